/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/shadow.c: when guest user code is executed directly, and what its ends mean. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "backends/shadow/regs.h"
#include "backends/shadow/scan.h"
#include "backends/shadow/shadow.h"
#include "backends/shadow/space.h"

#define SPACES     6 /* stubs of a vCPU */
#define DEAD       8
#define CANDIDATES 64 /* address spaces that are observed */
#define MAX_STARTS 64 /* of stubs: who loses so many has none */

/* An address space is executed directly when so many of its samples, each of X86_POLL instructions
 * or a few times that, were user code, of which half count when others have come between: programs
 * that follow each other in one address space are not one that computes ... */
#define SAMPLES 64
/* ... and no longer when in so many runs of its stub less than two fifths of the time was spent in
 * its code: translated, it takes about so much longer. Then it pauses, each time twice as long. */
#define RUNS        8u
#define PAUSE       500000ull /* ns */
#define MAX_BACKOFF 8u
/* ... and so many times as long as it took to begin: all that is still mapped is looked at then. */
#define START_WORTH 2u
/* As many of these runs that end at pages refused for CPUID only are worse than CPUID faults. */
#define MAX_REFUSED 4u

#define PF_WRITE 2u /* error codes of #PF */
#define PF_FETCH 16u

struct candidate {
    uint64_t cr3;
    uint32_t samples;
    unsigned backoff;
    uint64_t until; /* of the pause, as os_now */
};

struct shadow {
    struct interp_vcpu *iv;
    struct space *space[SPACES];
    _Atomic int running; /* the process that shadow_wake kicks, or 0 */
    /* Killed, and closed some time later: who is about to kick one must not meet another process
     * that has its number. */
    struct space *dead[DEAD];
    unsigned ndead;
    struct candidate candidate[CANDIDATES];
    uint64_t last; /* the address space that was seen last */
    uint64_t uses;
    uint64_t thread; /* that has made the spaces: they die with it */
    unsigned starts;
    bool at_once;  /* for tests: everything, always */
    bool unusable; /* the host makes no stubs */
    bool emulate;  /* what comes next is the software CPU's */
    bool again;    /* the page fault at `fault` was the software CPU's: the page may be there now */
    enum mmu_access access;
    uint64_t fault;
    uint64_t cost[2]; /* of going to a stub and coming back at once, without and with faults for
                       * CPUID, in ns; 0: not known */
    uint64_t host_xcr0;
};

/* ---- whether it can be done ---- */

static bool budgeted(const struct vcpu *vcpu)
{
    return vcpu->insn_budget != UINT64_MAX;
}

/* What the stub's code pages must not contain. */
static unsigned scan_for(const struct shadow *sh, const struct stub *s)
{
    const struct x86_cpu *cpu = sh->iv->cpu;

    return SHADOW_SCAN_PKU | (s->cpuid_faults ? 0 : SHADOW_SCAN_CPUID) |
           (s->tsc_faults ? 0 : SHADOW_SCAN_TSC) |
           (cpu->xcr0 != sh->host_xcr0 ? SHADOW_SCAN_XSTATE : 0) |
           (cpu->cr4 & X86_CR4_FSGSBASE ? 0 : SHADOW_SCAN_FSGSBASE) |
           (cpu->cr4 & X86_CR4_UMIP ? SHADOW_SCAN_UMIP : 0);
}

static bool can_enter(const struct shadow *sh)
{
    const struct interp_vcpu *iv = sh->iv;

    return !budgeted(iv->vcpu) && regs_fit(iv->cpu, sh->host_xcr0);
}

/* ---- which address spaces ---- */

static uint64_t root_of(const struct x86_cpu *cpu)
{
    return cpu->cr3 & 0xffffffffff000ull;
}

static struct candidate *candidate_of(struct shadow *sh, uint64_t cr3)
{
    struct candidate *c = &sh->candidate[(cr3 >> 12 ^ cr3 >> 18) % CANDIDATES];

    if (c->cr3 != cr3)
        *c = (struct candidate){.cr3 = cr3};
    return c;
}

static struct space *find_space(struct shadow *sh, uint64_t cr3)
{
    for (unsigned i = 0; i < SPACES; i++)
        if (sh->space[i] && sh->space[i]->cr3 == cr3)
            return sh->space[i];
    return NULL;
}

/* It does not pay now. */
static void pause_space(struct shadow *sh, struct space *sp)
{
    struct candidate *c = candidate_of(sh, sp->cr3);

    sp->active = false;
    c->until = os_now() + (PAUSE << c->backoff) + START_WORTH * sp->start_ns;
    c->backoff += c->backoff < MAX_BACKOFF;
    c->samples = SAMPLES - SAMPLES / 16;
}

/* Its address space is another program's. */
static void forget_program(struct shadow *sh, struct space *sp)
{
    *candidate_of(sh, sp->cr3) = (struct candidate){.cr3 = sp->cr3};
    sp->active = false;
    stub_fault_cpuid(&sp->stub, false);
}

static void free_space(struct space *sp)
{
    if (!sp)
        return;
    space_close(sp);
    free(sp);
}

/* The stub cannot be used any more. */
static void drop_space(struct shadow *sh, struct space *sp)
{
    struct space **slot = &sh->dead[sh->ndead++ % DEAD];

    for (unsigned i = 0; i < SPACES; i++)
        if (sh->space[i] == sp)
            sh->space[i] = NULL;
    space_kill(sp);
    free_space(*slot);
    *slot = sp;
}

/* What it costs to go there and come back at once: the least of a few times, and half as much again
 * for caches that are not as warm as here. With a new stub. */
static uint64_t round_trip(struct stub *s)
{
    uint64_t best = UINT64_MAX;

    for (unsigned i = 0; i < 8; i++) {
        uint64_t begin = os_now(), ns;

        stub_kick(s->guest.pid); /* it comes when the frame is given back */
        if (stub_run(s, UINT64_MAX) != STUB_STOPPED)
            return 0;
        ns = os_now() - begin;
        best = ns < best ? ns : best;
    }
    return best + best / 2;
}

static void measure(struct shadow *sh, struct stub *s)
{
    for (int faults = 1; faults >= 0 && !sh->cost[faults]; faults--) {
        stub_fault_cpuid(s, faults);
        sh->cost[faults] = round_trip(s);
    }
}

static struct space *start_space(struct shadow *sh, uint64_t cr3)
{
    struct space *sp = sh->starts < MAX_STARTS ? malloc(sizeof(*sp)) : NULL;
    int err = sp ? space_open(sp, sh->iv, cr3) : ENOMEM;

    if (err) {
        free(sp);
        sh->unusable = err != EADDRINUSE;
        return NULL;
    }
    sh->starts++;
    sh->iv->cpu->count.direct_spaces++;
    measure(sh, &sp->stub);
    return sp;
}

/* A stub for the address space: a new one, or that which was used least recently. */
static struct space *take_space(struct shadow *sh, uint64_t cr3)
{
    struct space *sp = find_space(sh, cr3);
    unsigned oldest = 0;

    if (sp)
        return sp;
    for (unsigned i = 0; i < SPACES; i++) {
        if (!sh->space[i])
            return sh->space[i] = start_space(sh, cr3);
        if (sh->space[i]->used < sh->space[oldest]->used)
            oldest = i;
    }
    sp = sh->space[oldest];
    sp->cr3 = cr3;
    stub_fault_cpuid(&sp->stub, false);
    if (space_clear(sp))
        return sp;
    drop_space(sh, sp);
    return NULL;
}

/* The CPU's counter has just been loaded: X86_POLL or more instructions have passed. */
static bool is_sample(const struct x86_cpu *cpu)
{
    return x86_countdown(cpu) == cpu->countdown_start;
}

/* Begins with the observations for a verdict. */
static void observe(struct space *sp)
{
    sp->runs = sp->cpuid_refused = 0;
    sp->run_ns = sp->all_ns = 0;
}

/* The space in which the CPU's code is to be executed now, or NULL. */
static struct space *choose_space(struct shadow *sh)
{
    const struct x86_cpu *cpu = sh->iv->cpu;
    uint64_t cr3 = root_of(cpu);
    struct space *sp = find_space(sh, cr3);
    struct candidate *c;

    if (!sp || !sp->active) {
        if (!sh->at_once) {
            if (!is_sample(cpu))
                return NULL;
            c = candidate_of(sh, cr3);
            if (cr3 != sh->last)
                c->samples /= 2;
            sh->last = cr3;
            if (++c->samples < SAMPLES || os_now() < c->until)
                return NULL;
        }
        if (!can_enter(sh))
            return NULL;
        sp = take_space(sh, cr3);
        if (!sp)
            return NULL;
        sp->active = true;
        observe(sp);
        sp->seen = cpu->mmu.ngone - MMU_GONE_KEPT - 1;
        sp->fill = true;
    }
    sh->last = cr3;
    sp->used = ++sh->uses;
    return sp;
}

/* The guest has something where the stub's own pages are: the next one is elsewhere. */
static void move_space(struct shadow *sh, struct space *sp)
{
    drop_space(sh, sp);
    sh->starts--;
}

/* Makes sure that all that is mapped is right. False: the stub is lost. */
static bool settle(struct shadow *sh, struct space *sp)
{
    struct interp_vcpu *iv = sh->iv;
    unsigned scan = scan_for(sh, &sp->stub);
    uint32_t before = sp->npages;

    if ((scan & ~sp->scan) && !space_clear(sp))
        return false;
    sp->scan = scan;
    while (sp->seen != iv->cpu->mmu.ngone || sp->any_stale)
        if (!space_check(sp, iv))
            return false;
    /* With half of the pages all code has gone: another program has this address space now. */
    if (before > 16 && sp->npages < before / 2 && !space_has_code(sp) && !sh->at_once)
        forget_program(sh, sp);
    return true;
}

/* The stub has been run a few times, in `ns` with all that belongs to it. */
static void judge(struct shadow *sh, struct space *sp, uint64_t ns)
{
    struct candidate *c = candidate_of(sh, sp->cr3);
    uint64_t cost;

    sp->all_ns += ns;
    if (sp->cpuid_refused >= MAX_REFUSED || (sp->cpuid_refused && sh->at_once)) {
        stub_fault_cpuid(&sp->stub, true);
        observe(sp);
    }
    if (sp->runs < RUNS)
        return;
    cost = sp->runs * sh->cost[sp->stub.cpuid_faults];
    if ((sp->run_ns < cost || (sp->run_ns - cost) * 5 < sp->all_ns * 2) && !sh->at_once)
        pause_space(sh, sp);
    else if (c->backoff)
        c->backoff--;
    observe(sp);
}

/* ---- running ---- */

static bool is_wanted(const struct shadow *sh)
{
    const struct x86_cpu *cpu = sh->iv->cpu;

    return atomic_load(&cpu->attention) || atomic_load(&cpu->countdown) < 0 ||
           atomic_load(&sh->iv->vcpu->requests);
}

/* False: it was not run, as somebody wants the vCPU. */
static bool run_stub(struct shadow *sh, struct space *sp, enum stub_end *end)
{
    struct vcpu *vcpu = sh->iv->vcpu;
    uint64_t deadline = core_timers_begin(vcpu);
    bool wanted;

    /* shadow_wake sees it, or we see what it is about. */
    atomic_store(&sh->running, sp->stub.guest.pid);
    wanted = is_wanted(sh);
    if (!wanted)
        *end = stub_run(&sp->stub, deadline);
    atomic_store(&sh->running, 0);
    core_timers_end(vcpu);
    return !wanted;
}

/* Whether a page fault there is one of the stub only, and its cause has been removed. */
static bool resolve(struct shadow *sh, struct space *sp, const struct stub_context *c)
{
    enum mmu_access access = c->error & PF_FETCH   ? MMU_EXEC
                             : c->error & PF_WRITE ? MMU_WRITE
                                                   : MMU_READ;
    const siginfo_t *info = stub_info(&sp->stub);

    /* Signals that the host's kernel gives other reasons come with the trap of an earlier one. */
    if (sp->stub.state->signal != SIGSEGV || c->trap != X86_PF_ || !info ||
        info->si_code == SI_KERNEL)
        return false;
    if (space_fault(sp, sh->iv, c->cr2, access))
        return true;
    sh->again = true;
    sh->fault = c->cr2;
    sh->access = access;
    return false;
}

/* The registers that the guest had are lost: its kernel is to end the program. */
static void give_up(struct x86_cpu *cpu)
{
    x86_raise_err(cpu, X86_GP, 0);
}

/* What stopped the guest task is not about pages. */
static void conclude(struct shadow *sh, const struct stub *s, const struct stub_context *c)
{
    struct x86_cpu *cpu = sh->iv->cpu;
    const siginfo_t *info = stub_info(s);

    sh->emulate = true;
    switch (s->state->signal) {
    case SIGSYS: /* SYSCALL or INT 0x80 */
        if (info)
            regs_before_call(cpu, info);
        break;
    case SIGTRAP:
        if (c->trap == X86_DB && info && info->si_code == TRAP_TRACE) {
            cpu->pending_db |= 0x4000; /* DR6.BS: the first instruction with TF is over */
            sh->emulate = false;
        } else {
            cpu->rip -= regs_trap_len(cpu, (uint32_t)c->trap);
        }
        break;
    case SIGSEGV:
        cpu->rip -= c->trap == X86_OF_ && cpu->rip < STUB_HIGH ? 2 : 0; /* INT 4 */
        break;
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
        break;
    default: /* a kick, or what others have sent */
        sh->emulate = false;
    }
    /* Behind an iteration of a string instruction. */
    if (!sh->emulate)
        cpu->rflags |= (uint32_t)c->eflags & X86_RF;
}

static bool has_selectors(const struct stub_state *state)
{
    return state->ds | state->es | state->fs | state->gs;
}

/* Executes in the stub until something else than a page that can be mapped comes up, whose signal
 * and trap are then in the stub's frame. STUB_GONE: nothing was executed. */
static enum stub_end run_on(struct shadow *sh, struct space *sp)
{
    struct x86_cpu *cpu = sh->iv->cpu;
    enum stub_end end, last = STUB_GONE;
    struct stub_context *c;

    for (;;) {
        uint64_t begin = os_now();

        if (!run_stub(sh, sp, &end))
            break;
        if (end != STUB_STOPPED)
            return end == STUB_LOST ? end : last;
        sp->run_ns += os_now() - begin;
        sp->runs++;
        cpu->count.direct_entries++;
        last = STUB_STOPPED;
        c = stub_context(&sp->stub);
        if (!c || !resolve(sh, sp, c))
            return STUB_STOPPED;
        sp->stub.state->signal = 0; /* that is settled, if it does not go on here */
        regs_tidy(&sp->stub, c);
        if (has_selectors(sp->stub.state) || !settle(sh, sp) || !sp->active)
            break;
    }
    return last;
}

/* Makes sure of what is mapped, and maps what is likely to be needed. False: not now. */
static bool prepare(struct shadow *sh, struct space *sp)
{
    bool first = sp->fill, ok;
    uint64_t begin = os_now();

    ok = settle(sh, sp) && sp->active;
    if (ok && first)
        space_fill(sp, sh->iv);
    if (ok && sh->again)
        space_look(sp, sh->iv, sh->fault, sh->access);
    if (ok)
        sp->fill = sh->again = false;
    ok = ok && settle(sh, sp) && sp->active;
    /* That is done once, and no part of what a run costs. */
    if (first) {
        sp->start_ns = os_now() - begin;
        sp->all_ns -= sp->start_ns;
    }
    return ok;
}

/* Executes in the stub; false: nothing was executed. */
static bool execute(struct shadow *sh, struct space *sp)
{
    struct x86_cpu *cpu = sh->iv->cpu;
    enum stub_end end = STUB_GONE;

    if (prepare(sh, sp) && regs_give(cpu, &sp->stub))
        end = run_on(sh, sp);
    if (end == STUB_STOPPED) {
        const struct stub_context *c = stub_context(&sp->stub);

        if (c && regs_take(cpu, &sp->stub))
            conclude(sh, &sp->stub, c);
        else
            end = STUB_LOST;
    }
    if (end == STUB_LOST)
        give_up(cpu);
    if (end == STUB_LOST || sp->stub.lost)
        drop_space(sh, sp);
    return end != STUB_GONE;
}

/* ---- threads ---- */

/* No other thread has ever had this number. */
static uint64_t this_thread(void)
{
    static _Atomic uint64_t last;
    static _Thread_local uint64_t number;

    if (!number)
        number = atomic_fetch_add(&last, 1) + 1;
    return number;
}

/* Stubs die with the thread that has made them, whoever uses them: if the vCPU is another one's now
 * it gets others. */
static void change_thread(struct shadow *sh, uint64_t thread)
{
    for (unsigned i = 0; i < SPACES; i++)
        if (sh->space[i]) {
            drop_space(sh, sh->space[i]);
            sh->starts--;
        }
    sh->thread = thread;
}

/* ---- what the software CPU calls ---- */

static struct shadow *shadow_of(void *ctx)
{
    return ((struct interp_vcpu *)ctx)->shadow;
}

static bool user(void *ctx)
{
    struct shadow *sh = shadow_of(ctx);
    uint64_t root = root_of(sh->iv->cpu), begin;
    struct space *sp;
    bool executed;

    if (sh->emulate || sh->unusable) {
        sh->emulate = false;
        return false;
    }
    if (sh->thread != this_thread())
        change_thread(sh, this_thread());
    sp = choose_space(sh);
    /* Other programs need not come by here at each return; this one is found when it polls. */
    sh->iv->cpu->user_stops = sp;
    if (!sp || !can_enter(sh))
        return false;
    if (!space_is_free(sp, sh->iv)) {
        move_space(sh, sp);
        sh->iv->cpu->user_stops = false;
        return false;
    }
    begin = os_now();
    executed = execute(sh, sp);
    if (find_space(sh, root) == sp)
        judge(sh, sp, os_now() - begin);
    if (executed)
        sh->iv->env.poll(ctx); /* a timer may have ended it */
    /* Nothing comes between: RCX and R11 are what SYSCALL leaves there. */
    executed &= !sh->emulate;
    sh->emulate = false;
    return executed;
}

static void invalidated(void *ctx, uint64_t gpa, uint64_t len)
{
    struct shadow *sh = shadow_of(ctx);

    for (unsigned i = 0; i < SPACES; i++)
        if (sh->space[i])
            space_written(sh->space[i], gpa, len);
}

void shadow_wake(const struct interp_vcpu *iv)
{
    const struct shadow *sh = iv->shadow;

    if (sh)
        stub_kick(atomic_load(&sh->running));
}

/* ---- life ---- */

/* Components of the vector state, and where XSAVE has them, as the library's. */
static bool host_fits(uint64_t *xcr0)
{
    uint32_t a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) /* OSXSAVE */
        return false;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    *xcr0 = (uint64_t)d << 32 | a;
    return regs_layout_fits(*xcr0);
}

int shadow_attach(struct interp_vcpu *iv)
{
    struct shadow *sh = calloc(1, sizeof(*sh));

    if (!sh)
        return VMM_E_NOMEM;
    sh->iv = iv;
    sh->at_once = iv->vcpu->vm->flags & VMM_VM_TRANSLATE_ALL;
    sh->unusable = !host_fits(&sh->host_xcr0);
    iv->shadow = sh;
    iv->env.invalidated = invalidated;
    iv->env.user = user;
    return 0;
}

void shadow_detach(struct interp_vcpu *iv)
{
    struct shadow *sh = iv->shadow;

    if (!sh)
        return;
    iv->env.user = NULL;
    iv->env.invalidated = NULL;
    iv->shadow = NULL;
    for (unsigned i = 0; i < SPACES; i++)
        if (sh->space[i])
            drop_space(sh, sh->space[i]);
    for (unsigned i = 0; i < DEAD; i++)
        free_space(sh->dead[i]);
    free(sh);
}
