/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/check.c: lock step: running segments on both CPUs, and everything else on one. */
#include <errno.h>
#include <stdlib.h>

#include "backends/bt/check.h"
#include "core/irqchip.h"
#include "core/x86/cache.h"
#include "core/x86/thunk.h"

/* ---- life cycle ---- */

/* Only what check_copy_state copies is ever touched of it. */
static struct x86_cpu *state_holder(void)
{
    return aligned_alloc(64, (sizeof(struct x86_cpu) + 63) & ~(size_t)63);
}

static int make_tested(struct check *c, struct vcpu *vcpu)
{
    int err;

    c->tested = x86_create(&c->env, vcpu->id);
    c->start = state_holder();
    c->end = state_holder();
    c->inputs = malloc(CHECK_MAX_INSNS * sizeof(*c->inputs));
    if (!c->tested || !c->start || !c->end || !c->inputs)
        return ENOMEM;
    err = x86_thunks_create(c->tested);
    if (!err)
        err = bt_attach_vcpu(c->tested, vcpu);
    if (!err)
        ((struct bt *)c->tested->tier_state)->exact = true;
    return err;
}

static void free_all(struct check *c)
{
    if (c->tested)
        bt_detach(c->tested);
    x86_destroy(c->tested);
    interp_vcpu_close(&c->iv);
    check_env_fini(c);
    free(c->start);
    free(c->end);
    free(c->inputs);
    free(c);
}

void bt_check_close(struct vcpu *vcpu)
{
    struct check *c = vcpu->backend_data;

    vcpu->backend_data = NULL;
    if (c)
        free_all(c);
}

int bt_check_open(struct vcpu *vcpu)
{
    struct check *c = calloc(1, sizeof(*c));
    int err;

    if (!c)
        return VMM_E_NOMEM;
    err = interp_vcpu_open(&c->iv, vcpu);
    if (err) {
        free(c);
        return err;
    }
    check_env_init(c);
    err = make_tested(c, vcpu);
    if (err) {
        bt_check_close(vcpu);
        return err == EPERM || err == EACCES ? VMM_E_PERM : VMM_E_NOMEM;
    }
    x86_cpuid_changed(c->tested, vcpu->cpuid, vcpu->ncpuid);
    c->rng = core_vcpu_tsc(vcpu) | 1;
    return VMM_OK;
}

/* ---- segments ---- */

enum x86_stop check_execute(struct x86_cpu *cpu, uint64_t limit, uint64_t *done)
{
    enum x86_stop stop;
    uint64_t n;

    *done = 0;
    do {
        stop = x86_run(cpu, limit - *done, false, &n);
        *done += n;
    } while (stop == X86_STOP_ATTENTION && *done < limit);
    return stop;
}

/* Mostly long enough for what is hot to be translated and linked, sometimes short. */
static uint64_t next_length(struct check *c, uint64_t budget)
{
    uint64_t n;

    c->rng ^= c->rng >> 12;
    c->rng ^= c->rng << 25;
    c->rng ^= c->rng >> 27;
    n = c->rng >> 32;
    n = n % 16 ? 500 + (n >> 4) % (CHECK_MAX_INSNS - 500) : 1 + (n >> 4) % 64;
    return n < budget ? n : budget;
}

/* The tested CPU's code must notice what it did not write itself. */
static void notice_changes(struct check *c)
{
    uint64_t nexits = atomic_load_explicit(&c->iv.vcpu->nexits, memory_order_relaxed);

    if (c->nexits != nexits) {
        c->nexits = nexits;
        x86_cache_recheck(c->iv.cpu);
        c->foreign = true;
    }
    if (c->foreign)
        x86_cache_recheck(c->tested);
    c->foreign = false;
}

static void publish(struct check *c)
{
    struct x86_counters *to = &c->iv.cpu->count;
    const struct x86_counters *from = &c->tested->count;

    to->translations = from->translations;
    to->code_flushes = from->code_flushes;
    to->handler_calls = from->handler_calls;
    to->regions = from->regions;
    to->chains = from->chains;
    to->code_bytes = from->code_bytes;
}

/* With the world stopped: executes a segment and compares. Sets what the plain CPU's x86_run gives;
 * 0 or VMM_E_*. */
static int segment(struct check *c, enum x86_stop *stop, uint64_t *done)
{
    struct x86_cpu *plain = c->iv.cpu, *tested = c->tested;
    uint64_t limit = next_length(c, c->iv.vcpu->insn_budget), tested_done, cr8;
    struct check_diffs diffs;
    enum x86_stop tested_stop;

    notice_changes(c);
    check_pages_begin(c);
    c->wanted = c->iv.vcpu->irq_window_wanted || core_intr_pending(c->iv.vcpu);
    c->first = plain->count.insns;
    c->ninputs = c->input = 0;
    c->cr8 = cr8 = c->real.get_cr8(plain->env->mmu.ctx);
    plain->restart = false;
    check_copy_state(c->start, plain, false);
    check_copy_state(tested, plain, true);
    x86_flush_tlb(plain);

    c->phase = CHECK_TESTED;
    tested_stop = check_execute(tested, limit, &tested_done);
    c->phase = CHECK_PLAIN;
    c->input = 0;
    c->cr8 = cr8;
    *stop = check_execute(plain, limit, done);
    check_differ(c, &diffs);
    check_add_counts(&diffs, tested_stop, tested_done, *stop, *done);
    c->phase = CHECK_LIVE;
    publish(c);
    if (c->no_memory)
        diffs.n = c->no_memory = 0; /* what the copies held was not what it should be */
    return diffs.n ? check_find(c, *done > tested_done ? *done : tested_done) : 0;
}

static int run_segment(struct check *c, enum x86_stop *stop, uint64_t *done)
{
    struct vm *vm = c->iv.vcpu->vm;
    int err;

    if (vm->max_vcpus == 1)
        return segment(c, stop, done);
    core_world_stop(vm);
    err = segment(c, stop, done);
    core_world_go(vm);
    return err;
}

/* ---- what is not compared ---- */

/* Whether something other than an instruction comes first, or is looked for at each one. */
static bool must_be_live(const struct check *c)
{
    const struct x86_cpu *cpu = c->iv.cpu;
    struct vcpu *vcpu = c->iv.vcpu;

    if (c->go_live || cpu->activity != VMM_ACTIVE || cpu->later.valid || vcpu->restart ||
        (cpu->mode & X86_MODE_SINGLE) || cpu->nhost_bp || cpu->mmu.nwatch || cpu->host_exceptions)
        return true;
    return (cpu->rflags & X86_IF) && !cpu->shadow &&
           (vcpu->irq_window_wanted || core_intr_pending(vcpu));
}

int bt_check_run(struct vcpu *vcpu, bool step)
{
    struct check *c = vcpu->backend_data;

    if (c->broken)
        return vm_fail(vcpu->vm, VMM_E_STATE, "vcpu_run", "the vCPU has differed in lock step");
    for (;;) {
        enum x86_stop stop;
        uint64_t done;
        int r;

        if (atomic_load(&vcpu->requests) || !vcpu->insn_budget)
            return BACKEND_AGAIN;
        c->real.poll(&c->iv);
        if (step || must_be_live(c)) {
            c->foreign = true;
            r = interp_run(vcpu, true);
            if (r == BACKEND_STEPPED)
                c->go_live = false;
            if (r != BACKEND_STEPPED || step)
                return r;
            continue;
        }
        r = run_segment(c, &stop, &done);
        if (r)
            return r;
        c->go_live = stop == X86_STOP_ABORT;
        if (stop != X86_STOP_ABORT && stop != X86_STOP_ATTENTION)
            return interp_stopped(vcpu, stop, done);
        if (vcpu->insn_budget != UINT64_MAX)
            vcpu->insn_budget -= done;
    }
}
