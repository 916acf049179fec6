/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/run.c: the run loop: what happens between blocks. */
#include "core/x86/cache.h"
#include <vmm/vcpu.h>

#define DR6_BS 0x4000u

#define MAX_FRUITLESS 64  /* event deliveries without an instruction; each further counts as one */
#define MAX_TURNS     512 /* of the slow loop without a poll */

/* ---- leaving a block ---- */

const struct x86_op *x86_leave(struct x86_cpu *cpu, const struct x86_op *op)
{
    cpu->rip = x86_op_rip(cpu, op);
    x86_count(cpu, op->idx - cpu->blk->n);
    /* What the instruction did up to its fault and the delivery of the fault are two things. */
    if (cpu->event.valid)
        cpu->rep_serial++;
    return NULL;
}

void x86_raise(struct x86_cpu *cpu, uint8_t vector)
{
    cpu->event = (struct x86_event){.valid = true, .type = X86_EVENT_EXCEPTION, .vector = vector};
}

void x86_raise_err(struct x86_cpu *cpu, uint8_t vector, uint32_t error)
{
    x86_raise(cpu, vector);
    cpu->event.has_error = true;
    cpu->event.error = vector >= X86_TS && vector <= X86_GP ? error | cpu->ext : error;
}

const struct x86_op *x86_fault(struct x86_cpu *cpu, const struct x86_op *op, uint8_t vector)
{
    x86_raise(cpu, vector);
    return x86_leave(cpu, op);
}

const struct x86_op *x86_fault_err(struct x86_cpu *cpu, const struct x86_op *op, uint8_t vector,
                                   uint32_t error)
{
    x86_raise_err(cpu, vector, error);
    return x86_leave(cpu, op);
}

/* ---- counting ---- */

uint64_t x86_retired(const struct x86_cpu *cpu)
{
    return cpu->retired + (uint64_t)(cpu->countdown_start - x86_countdown(cpu));
}

/* Instructions retired before the current one. */
static uint64_t retired_before(const struct x86_cpu *cpu)
{
    /* The block's instructions are counted already. */
    return x86_retired(cpu) - (cpu->blk ? (uint64_t)(cpu->blk->n - cpu->cur_idx) : 0);
}

static void reload(struct x86_cpu *cpu, uint64_t left)
{
    uint64_t slices = left / X86_POLL;

    slices = slices > X86_SLICES ? X86_SLICES : slices ? slices - 1 : 0;
    cpu->slices = cpu->tier ? (int32_t)slices * 16 : 0;
    cpu->retired = x86_retired(cpu);
    cpu->countdown_start = left < X86_POLL ? (int64_t)left : X86_POLL;
    atomic_store_explicit(&cpu->countdown, cpu->countdown_start, memory_order_seq_cst);
}

uint64_t x86_serial(const struct x86_cpu *cpu)
{
    return retired_before(cpu) + cpu->rep_serial;
}

uint8_t x86_shadow(const struct x86_cpu *cpu)
{
    if (cpu->sti_passed && !x86_is_sti_at(cpu, retired_before(cpu)))
        return cpu->shadow & (uint8_t)~VMM_SHADOW_STI;
    return cpu->shadow;
}

/* ---- fetching ---- */

bool x86_fetch(struct x86_cpu *cpu, uint64_t linear, struct x86_code *code)
{
    struct mmu_code found;
    int r = mmu_fetch(&cpu->mmu, cpu->cpl == 3, linear, &found);

    if (x86_unlikely(r != MMU_OK)) {
        x86_mmu_failed(cpu, r, VMM_CS);
        return false;
    }
    if (x86_unlikely(!found.host)) {
        cpu->exit_reason = VMM_EXIT_MEM_FAULT;
        cpu->exit_gpa = found.gpa;
        cpu->exit_gva = linear;
        cpu->stop = X86_STOP_EXIT;
        return false;
    }
    *code = (struct x86_code){linear, found.gpa, found.host, found.global};
    return true;
}

static bool is_64(const struct x86_cpu *cpu)
{
    return (cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64;
}

static bool locate(struct x86_cpu *cpu, struct x86_code *code)
{
    if (is_64(cpu))
        return x86_fetch(cpu, cpu->rip, code);
    if (x86_unlikely(cpu->rip > cpu->seg[VMM_CS].limit)) {
        x86_raise_err(cpu, X86_GP, 0);
        return false;
    }
    return x86_fetch(cpu, (uint32_t)(cpu->seg[VMM_CS].base + cpu->rip), code);
}

/* Whether all of a block lies within the limit of CS, and before IP wraps. */
static bool fits(const struct x86_cpu *cpu, const struct x86_block *b, bool single)
{
    uint64_t limit = cpu->seg[VMM_CS].limit;

    if (is_64(cpu))
        return true;
    if (!single && limit > cpu->rip_mask)
        limit = cpu->rip_mask;
    return cpu->rip + b->bytes - 1 <= limit;
}

/* Blocks in cpu->jump have been checked against one base and limit of CS. */
static void check_jump(struct x86_cpu *cpu)
{
    const struct vmm_segment *cs = &cpu->seg[VMM_CS];

    if (is_64(cpu) || (cpu->mode & X86_MODE_FLAT) ||
        (cs->limit == cpu->jump_limit && cs->base == cpu->jump_base))
        return;
    x86_jump_flush(cpu);
    cpu->jump_limit = cs->limit;
    cpu->jump_base = cs->base;
}

/* The block at rip if cpu->jump leads there, as x86_next: events and their returns come to places
 * that have been executed before. */
static struct x86_block *block_at_hand(const struct x86_cpu *cpu)
{
    uint64_t linear = cpu->seg[VMM_CS].base + cpu->rip;
    const struct x86_jump *j = &cpu->jump[x86_jump_index(linear)];

    if (j->key != (linear ^ cpu->jump_key) || !x86_block_is_current(cpu, j->blk) ||
        j->blk->n > x86_countdown(cpu))
        return NULL;
    return is_64(cpu) || (cpu->mode & X86_MODE_FLAT) ? j->blk : NULL;
}

/* The block at rip; NULL: an exception is queued, or cpu->stop is set. */
static struct x86_block *find_block(struct x86_cpu *cpu, bool single)
{
    uint32_t mode = cpu->mode | (single ? X86_MODE_SINGLE : 0);
    uint64_t linear = cpu->seg[VMM_CS].base + cpu->rip;
    struct x86_block *b, *hint = cpu->jump[x86_jump_index(linear)].blk;
    struct x86_code code;

    for (;;) {
        bool again;

        if (!locate(cpu, &code))
            return NULL;
        b = x86_cache_get(cpu, &code, mode, hint, &again);
        if (!b) {
            if (!again)
                return NULL;
            continue;
        }
        single = mode & X86_MODE_SINGLE;
        if (x86_likely(fits(cpu, b, single) && b->n <= x86_countdown(cpu)))
            break;
        if (single) {
            x86_raise_err(cpu, X86_GP, 0);
            return NULL;
        }
        mode |= X86_MODE_SINGLE;
    }
    if (!single) {
        check_jump(cpu);
        x86_jump_set(cpu, linear, b, code.global);
    }
    return b;
}

/* ---- events ---- */

static bool nmi_ready(const struct x86_cpu *cpu)
{
    return cpu->nmi_pending && !cpu->nmi_blocked && !cpu->shadow;
}

/* Also asks for the exit when an interrupt window opens, so only to be called when one is open. */
static bool intr_ready(struct x86_cpu *cpu)
{
    return (cpu->rflags & X86_IF) && !cpu->shadow && cpu->env->intr(cpu->env->mmu.ctx);
}

/* Queues what is to be delivered before the next instruction, by priority (SDM Vol. 3A 6.9). */
static void queue_event(struct x86_cpu *cpu)
{
    if (x86_unlikely(cpu->later.valid)) {
        cpu->event = cpu->later;
        cpu->later.valid = false;
    } else if (cpu->pending_db && !(cpu->shadow & VMM_SHADOW_MOV_SS)) {
        uint64_t dr6 = cpu->pending_db;

        cpu->pending_db = 0;
        x86_raise_db(cpu, dr6);
    } else if (nmi_ready(cpu)) {
        cpu->nmi_pending = false;
        cpu->event = (struct x86_event){.valid = true, .type = X86_EVENT_NMI, .vector = X86_NMI};
    } else if (intr_ready(cpu)) {
        int vector = cpu->env->intr_ack(cpu->env->mmu.ctx);

        if (vector >= 0)
            cpu->event = (struct x86_event){
                .valid = true, .type = X86_EVENT_EXTERNAL, .vector = (uint8_t)vector};
    }
}

/* The host program wants to see this exception first. */
static bool host_takes(struct x86_cpu *cpu)
{
    const struct x86_event *e = &cpu->event;

    if (x86_likely(!cpu->host_exceptions) || cpu->host_exception_pass || e->vector > 31 ||
        !(cpu->host_exceptions >> e->vector & 1) ||
        !(e->type == X86_EVENT_EXCEPTION || e->type == X86_EVENT_SOFT_EXC ||
          e->type == X86_EVENT_PRIV_SW))
        return false;
    cpu->host_exception_pass = true;
    cpu->exit_reason = VMM_EXIT_EXCEPTION;
    cpu->exit_index = e->vector;
    cpu->stop = X86_STOP_EXIT;
    return true;
}

/* Delivers cpu->event; false: cpu->stop is set. */
static bool deliver(struct x86_cpu *cpu)
{
    struct x86_event e = cpu->event;
    bool insn =
        e.type == X86_EVENT_SOFT_INT || e.type == X86_EVENT_SOFT_EXC || e.type == X86_EVENT_PRIV_SW;
    bool ok;

    if (host_takes(cpu))
        return false;
    /* Traps of an instruction that has faulted come again with it. Those that MOV SS put off are
     * lost with a fault and INT1, not with INT n (SDM Vol. 3C 27.7.3). */
    if (e.type == X86_EVENT_EXCEPTION || e.type == X86_EVENT_PRIV_SW)
        cpu->pending_db = 0;
    ok = x86_deliver(cpu);
    if (cpu->stop == X86_STOP_ABORT && cpu->event.valid) {
        /* Delivered again from the start, so that the accesses made so far are replayed. */
        cpu->event = e;
        return false;
    }
    cpu->host_exception_pass = false;
    cpu->rep_serial++;
    /* A guest whose handlers fault at their first instruction would never use up a budget. */
    if (insn || ++cpu->fruitless > MAX_FRUITLESS)
        x86_count(cpu, 1);
    if (!ok) {
        cpu->activity = VMM_SHUTDOWN;
        cpu->stop = X86_STOP_SHUTDOWN;
    }
    return !cpu->stop;
}

/* HLT and its like: true when the CPU executes instructions (again). */
static bool active(struct x86_cpu *cpu)
{
    switch (cpu->activity) {
    case VMM_ACTIVE:
        return true;
    case VMM_HALTED:
        if (cpu->event.valid || cpu->pending_db || nmi_ready(cpu) || intr_ready(cpu)) {
            cpu->activity = VMM_ACTIVE;
            return true;
        }
        if (cpu->stop == X86_STOP_NONE)
            cpu->stop = X86_STOP_HLT;
        return false;
    case VMM_WAIT_SIPI:
        cpu->stop = X86_STOP_HLT;
        return false;
    default:
        cpu->stop = X86_STOP_SHUTDOWN;
        return false;
    }
}

/* ---- the loop ---- */

/* Runs blocks from rip until something needs the slow loop: exactly one instruction when `single`.
 * True if an instruction was retired. */
static bool execute(struct x86_cpu *cpu, bool single)
{
    uint64_t before = x86_retired(cpu), rip = cpu->rip;
    uint32_t rf = cpu->rflags & X86_RF;
    uint8_t shadow = cpu->sti_passed ? 0 : cpu->shadow; /* what ends with this instruction */
    const struct x86_op *op;
    struct x86_block *b = single ? NULL : block_at_hand(cpu);

    if (!b)
        b = find_block(cpu, single);
    if (!b)
        return false;
    cpu->tf_trap = cpu->rflags & X86_TF;
    cpu->rflags &= ~X86_RF;
    x86_count(cpu, b->n);
    cpu->gpr[X86_RIP0] = rip;
    cpu->blk = b;
    /* Blocks of one instruction are followed by none. */
    cpu->jump_key = x86_jump_key(cpu, b->mode);
    op = b->ops;
    do
        op = op->fn(cpu, op);
    while (op);
    cpu->blk = NULL;
    cpu->jump_key = x86_jump_key(cpu, cpu->mode);

    if (x86_retired(cpu) == before) {
        cpu->rflags |= rf;
        /* Between two iterations of a string instruction: its breakpoints are behind us. */
        if ((cpu->mode & X86_MODE_SINGLE) && !cpu->event.valid && !cpu->stop && cpu->rip == rip)
            cpu->rflags |= X86_RF;
        return false;
    }
    cpu->fruitless = 0;
    if (shadow)
        cpu->shadow = cpu->shadow == shadow ? 0 : cpu->shadow & (uint8_t)~shadow;
    if (cpu->tf_trap && !(cpu->shadow & VMM_SHADOW_MOV_SS))
        cpu->pending_db |= DR6_BS;
    return true;
}

/* Whether events could come up behind the next instruction for which the present is too early. */
static bool in_shadow(struct x86_cpu *cpu)
{
    return cpu->shadow && !(cpu->sti_passed && x86_calm(cpu));
}

/* One turn of the slow loop; cpu->stop tells when it is over. */
static void turn(struct x86_cpu *cpu, bool step)
{
    bool again = cpu->restart, retired_one;

    if (x86_unlikely(!active(cpu)))
        return;
    if (!cpu->event.valid && !again)
        queue_event(cpu);
    if (x86_unlikely(cpu->stop))
        return;
    if (cpu->event.valid) {
        if (deliver(cpu)) {
            cpu->restart = false;
            if (step)
                cpu->stop = X86_STOP_STEP;
        }
        return;
    }
    if (x86_unlikely(cpu->mode & X86_MODE_SINGLE) && !again && x86_check_exec_breakpoints(cpu))
        return;
    if (cpu->cpl == 3 && cpu->env->user && !step && !again && cpu->env->user(cpu->env->mmu.ctx))
        return;
    retired_one = execute(cpu, step || again || in_shadow(cpu));
    cpu->restart = cpu->stop == X86_STOP_ABORT;
    if (step && retired_one && (cpu->stop == X86_STOP_NONE || cpu->stop == X86_STOP_HLT))
        cpu->stop = X86_STOP_STEP;
    else if (cpu->stop == X86_STOP_HLT)
        cpu->stop = X86_STOP_NONE; /* active() has the last word */
}

enum x86_stop x86_run(struct x86_cpu *cpu, uint64_t limit, bool step, uint64_t *done)
{
    uint64_t begin = x86_retired(cpu), used;
    unsigned turns = 0;

    if (x86_unlikely(!cpu->jump_ready))
        x86_jump_clear(cpu);
    cpu->stop = X86_STOP_NONE;
    cpu->blk = NULL;
    cpu->restless = true;
    reload(cpu, 0);
    for (;;) {
        used = x86_retired(cpu) - begin;
        x86_settle_shadow(cpu);
        if (cpu->stop)
            break;
        x86_cache_tidy(cpu);
        /* The request goes first: `attention` was set before. */
        if (atomic_load_explicit(&cpu->countdown, memory_order_relaxed) < 0)
            atomic_fetch_and_explicit(&cpu->countdown, INT64_MAX, memory_order_seq_cst);
        if (x86_countdown(cpu) < X86_BLOCK_MAX || ++turns > MAX_TURNS) {
            turns = 0;
            reload(cpu, limit - used);
            cpu->env->poll(cpu->env->mmu.ctx);
        }
        if (used >= limit || atomic_load_explicit(&cpu->attention, memory_order_acquire)) {
            atomic_store_explicit(&cpu->attention, 0, memory_order_relaxed);
            cpu->stop = X86_STOP_ATTENTION;
            break;
        }
        turn(cpu, step);
    }
    cpu->sti_passed = false; /* a shadow that is left is one */
    cpu->count.insns += used;
    *done = used;
    return cpu->stop;
}
