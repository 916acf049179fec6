/* SPDX-License-Identifier: BSD-2-Clause */
/* core/run.c: vcpu_run: between guest code, requests, timers, waiting and the caller's exits. */
#include "core/internal.h"

/*
 * The loop alternates between `service`, which does what other threads have asked for, and the
 * engine. Exits that the guest causes are made by the engine or by the callbacks that it calls;
 * those that other threads cause are made by `service`, at an instruction boundary or while an
 * instruction waits for its restart.
 */

/* ---- what others ask for ---- */

static bool take(struct vcpu *vcpu, uint32_t bit)
{
    if (!(atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & bit))
        return false;
    return atomic_fetch_and(&vcpu->requests, ~bit) & bit;
}

static bool exits(struct vcpu *vcpu, uint32_t reason)
{
    vcpu->exit.reason = reason;
    vcpu->exit.insn_len = 0;
    return true;
}

uint64_t core_timers_begin(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    uint64_t next;

    do {
        next = atomic_load(&vm->next_timer);
        atomic_store(&vcpu->wait_deadline, next ? next : 1);
    } while (atomic_load(&vm->next_timer) < next); /* set since: see core_timers_wake */
    if (next != UINT64_MAX)
        next = core_clock_to_os(vm, next);
    return next < vcpu->budget_deadline ? next : vcpu->budget_deadline;
}

void core_timers_end(struct vcpu *vcpu)
{
    atomic_store(&vcpu->wait_deadline, 0);
}

/* Sleeps until a request comes, or timers or the budget are due if `timed`. */
static void wait_request(struct vcpu *vcpu, uint32_t seen, bool timed)
{
    os_wait(&vcpu->requests, seen, timed ? core_timers_begin(vcpu) : UINT64_MAX);
    core_timers_end(vcpu);
}

/* Inside vm_pause: until vm_resume, or something that makes vcpu_run return. */
static void hold(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;

    core_vcpu_where(vcpu, VCPU_WAIT);
    for (;;) {
        uint32_t seen = atomic_fetch_and(&vcpu->requests, ~VCPU_REQ_PAUSE) & ~VCPU_REQ_PAUSE;

        if (!atomic_load(&vm->paused) || atomic_load(&vm->stopped) || (seen & VCPU_REQ_KICK))
            break;
        wait_request(vcpu, seen, false);
    }
    core_vcpu_where(vcpu, VCPU_RUN);
}

/* The next of vm_request_exit. */
static bool requested_exit(struct vcpu *vcpu)
{
    struct core_exit_request *q = vcpu->exit_requests;
    bool found;

    os_mutex_lock(&vcpu->vm->lock);
    found = vcpu->nexit_requests;
    if (found) {
        exits(vcpu, q[0].reason);
        memset(&vcpu->exit.u, 0, sizeof(vcpu->exit.u));
        vcpu->exit.u.user.value = q[0].value;
        memmove(q, q + 1, --vcpu->nexit_requests * sizeof(*q));
        if (vcpu->nexit_requests)
            atomic_fetch_or(&vcpu->requests, VCPU_REQ_EXIT);
    }
    os_mutex_unlock(&vcpu->vm->lock);
    return found;
}

/* SDM Vol. 3A 9.4.3: SIPI starts a waiting processor at 000VV000H, in real mode. */
static int start_at(struct vcpu *vcpu, uint8_t vector)
{
    struct vcpu_regs regs;
    int err = core_regs_get(vcpu, VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_EVENTS, &regs);

    if (err || regs.activity != VMM_WAIT_SIPI)
        return err;
    regs.rip = 0;
    regs.seg[VMM_CS].selector = (uint16_t)(vector << 8);
    regs.seg[VMM_CS].base = (uint64_t)vector << 12;
    regs.activity = VMM_ACTIVE;
    return core_regs_set(vcpu, &regs);
}

static int pend_nmi(struct vcpu *vcpu)
{
    struct vcpu_regs regs;
    int err = core_regs_get(vcpu, VMM_REGS_EVENTS, &regs);

    /* One is latched; a waiting processor takes none (SDM Vol. 3C 25.2). */
    if (err || regs.nmi_pending || regs.activity == VMM_WAIT_SIPI)
        return err;
    regs.nmi_pending = 1;
    return core_regs_set(vcpu, &regs);
}

/* What could not be done is still to be done. */
static bool again(struct vcpu *vcpu, uint32_t bit, int err)
{
    if (err)
        atomic_fetch_or(&vcpu->requests, bit);
    return err;
}

/* Does what is asked for; true: vcpu->exit is filled, or *err is set. */
static bool service(struct vcpu *vcpu, int *err)
{
    struct vm *vm = vcpu->vm;

    if (!atomic_load(&vcpu->requests) && !atomic_load(&vm->paused) && !atomic_load(&vm->stopped))
        return false;
    /* These only had to bring us here: what they are about is looked at after they are cleared. */
    atomic_fetch_and(&vcpu->requests,
                     ~(VCPU_REQ_STOP | VCPU_REQ_PAUSE | VCPU_REQ_WORLD | VCPU_REQ_INTR |
                       VCPU_REQ_TIMER | VCPU_REQ_DEFER | VCPU_REQ_BUDGET));
    while (atomic_load(&vm->paused) && !atomic_load(&vm->stopped) &&
           !(atomic_load(&vcpu->requests) & VCPU_REQ_KICK))
        hold(vcpu);
    if (atomic_load(&vm->stopped))
        return exits(vcpu, VMM_EXIT_STOPPED);
    if (take(vcpu, VCPU_REQ_KICK))
        return exits(vcpu, VMM_EXIT_INTERRUPTED);
    if (take(vcpu, VCPU_REQ_EXIT) && requested_exit(vcpu))
        return true;
    if (take(vcpu, VCPU_REQ_INIT))
        core_vcpu_reset(vcpu, true);
    if (take(vcpu, VCPU_REQ_SIPI))
        *err = start_at(vcpu, (uint8_t)atomic_load(&vcpu->sipi_vector));
    if (again(vcpu, VCPU_REQ_SIPI, *err))
        return true;
    if (take(vcpu, VCPU_REQ_NMI))
        *err = pend_nmi(vcpu);
    return again(vcpu, VCPU_REQ_NMI, *err);
}

static bool budget_used(struct vcpu *vcpu)
{
    return !vcpu->insn_budget ||
           (vcpu->budget_deadline != UINT64_MAX && os_now() >= vcpu->budget_deadline);
}

void core_poll_timers(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;

    if (vcpu->budget_deadline != UINT64_MAX && os_now() >= vcpu->budget_deadline)
        core_vcpu_request(vcpu, VCPU_REQ_BUDGET);
    if (atomic_load_explicit(&vm->next_timer, memory_order_relaxed) > vm_clock(vm))
        return;
    core_guest_leave(vcpu);
    core_timers_run(vm);
    core_guest_enter(vcpu);
}

/* ---- waiting ---- */

static void wait_event(struct vcpu *vcpu)
{
    core_vcpu_where(vcpu, VCPU_WAIT);
    wait_request(vcpu, 0, true);
    core_vcpu_where(vcpu, VCPU_RUN);
}

static __attribute__((noinline)) int waits_for_sipi(struct vcpu *vcpu, bool *waits)
{
    struct vcpu_regs regs;
    int err = core_regs_get(vcpu, VMM_REGS_EVENTS, &regs);

    *waits = !err && regs.activity == VMM_WAIT_SIPI;
    return err;
}

/* The CPU is halted; true: that exits, or *err is set. */
static bool halt(struct vcpu *vcpu, int *err)
{
    bool wait_sipi = false;

    if (!vcpu->halted) {
        *err = waits_for_sipi(vcpu, &wait_sipi);
        if (*err)
            return true;
    }
    if (!wait_sipi) {
        if (vcpu->vm->irqchip_kind == VMM_IRQCHIP_NONE || (vcpu->vm->flags & VMM_VM_EXIT_HLT))
            return exits(vcpu, VMM_EXIT_HLT);
        atomic_fetch_add_explicit(&vcpu->nhalts, 1, memory_order_relaxed);
    }
    if (vcpu->vm->irqchip_mode > VMM_IRQCHIP_MODE_USER)
        return false; /* what ends it comes to the kernel's local APIC: the engine waits there */
    /* An instruction budget that is used up ends here, not after the wait. */
    if (!budget_used(vcpu))
        wait_event(vcpu);
    return false;
}

/* ---- the loop ---- */

/* Runs the engine once; true: vcpu->exit is filled, or *err is set. */
static bool enter(struct vcpu *vcpu, bool step, int *err)
{
    core_guest_in(vcpu);
    int result = vcpu->vm->ops->run(vcpu, step);
    if (core_guest_leaves(vcpu))
        core_guest_out(vcpu);
    else
        core_guest_leave(vcpu);

    if (result < 0) {
        *err = result;
        return true;
    }
    switch (result) {
    case BACKEND_EXIT:
        return vcpu->exit.reason != VMM_EXIT_NONE;
    case BACKEND_STEPPED:
        return exits(vcpu, VMM_EXIT_STEP);
    case BACKEND_HALT:
        return halt(vcpu, err);
    default:
        return false;
    }
}

static int loop(struct vcpu *vcpu, bool step)
{
    int err = 0;

    for (;;) {
        if (service(vcpu, &err))
            return err;
        if (atomic_load(&vcpu->vm->next_timer) != UINT64_MAX)
            core_timers_run(vcpu->vm);
        if (budget_used(vcpu)) {
            exits(vcpu, VMM_EXIT_BUDGET);
            return 0;
        }
        if (core_io_deferred(vcpu)) {
            wait_event(vcpu);
            continue;
        }
        vcpu->exit.reason = VMM_EXIT_NONE;
        vcpu->exit.insn_len = 0;
        vcpu->exit_complete = vcpu->halted = false;
        if (enter(vcpu, step, &err))
            return err;
    }
}

static __attribute__((noinline)) int fill_where(struct vcpu *vcpu)
{
    struct vcpu_regs regs;
    int err = core_regs_get(vcpu, VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_CONTROL, &regs);

    if (err)
        return err;
    vcpu->exit.rip = regs.rip;
    vcpu->exit.mode = core_regs_mode(&regs);
    vcpu->exit.cpl = core_regs_cpl(&regs);
    return 0;
}

/* What all exits have in common. */
static int fill_common(struct vcpu *vcpu)
{
    int err = vcpu->exit_complete ? 0 : fill_where(vcpu);

    if (err)
        return err;
    if (vcpu->exit.insn_len)
        for (unsigned i = vcpu->exit.insn_len; i < sizeof(vcpu->exit.insn); i++)
            vcpu->exit.insn[i] = 0;
    else
        __builtin_memset(vcpu->exit.insn, 0, sizeof(vcpu->exit.insn));
    return 0;
}

/* Completes the last exit with what the caller has stored in its struct. */
static void take_answer(struct vcpu *vcpu, const struct vcpu_exit *given)
{
    const struct vcpu_exit *exit = given->reason == vcpu->exit.reason ? given : NULL;

    switch (vcpu->answer) {
    case ANSWER_MMIO:
    case ANSWER_PIO:
        core_io_answer(vcpu, exit);
        break;
    case ANSWER_MSR:
    case ANSWER_CPUID:
        core_policy_answer(vcpu, exit);
        break;
    default:
        break;
    }
    vcpu->answer = ANSWER_NONE;
}

static __attribute__((noinline)) void take_answer_of(struct vcpu *vcpu,
                                                     const struct vcpu_exit *exit)
{
    struct vcpu_exit given = {0};

    memcpy(&given, exit, exit->size < sizeof(given) ? exit->size : sizeof(given));
    take_answer(vcpu, &given);
}

static void set_budget(struct vcpu *vcpu)
{
    uint64_t now = vcpu->budget_ns ? os_now() : 0;

    vcpu->insn_budget = vcpu->budget_insns ? vcpu->budget_insns : UINT64_MAX;
    vcpu->budget_deadline = UINT64_MAX;
    if (vcpu->budget_ns && vcpu->budget_ns < UINT64_MAX - now)
        vcpu->budget_deadline = now + vcpu->budget_ns;
}

/* The caller's struct may be an older version's; the common header is in all of them. */
static int check_exit(struct vm *vm, const char *op, const struct vcpu_exit *exit)
{
    const uint32_t min = offsetof(struct vcpu_exit, u) + sizeof(uint64_t);

    if (!exit)
        return vm_fail(vm, VMM_E_INVAL, op, "exit is NULL");
    if (exit->size < min || exit->size > CORE_STRUCT_MAX)
        return vm_fail(vm, VMM_E_INVAL, op, "exit->size is %u, but a struct vcpu_exit has %zu",
                       exit->size, sizeof(*exit));
    return 0;
}

/* Whether this exit has left `u` as it was: zero. */
static bool is_blank(const struct vcpu_exit *exit)
{
    return exit->reason == VMM_EXIT_HLT || exit->reason == VMM_EXIT_HYPERCALL;
}

static int run(struct vcpu *vcpu, struct vcpu_exit *exit, bool step, const char *op)
{
    struct vm *vm = vcpu->vm;
    bool nested;

    int err = check_exit(vm, op, exit);
    if (err)
        return err;
    if (vm->max_vcpus > 1 && vcpu_current(vm))
        return vm_fail(vm, VMM_E_STATE, op, "called from a callback of this VM");
    err = core_vcpu_claim(vcpu, op, &nested);
    if (err)
        return err;
    if (nested && vcpu_current(vm))
        return vm_fail(vm, VMM_E_STATE, op, "called from a callback of this VM");
    if (nested)
        return vm_fail(vm, VMM_E_STATE, op, "called from inside a function for vCPU %u", vcpu->id);

    if (vcpu->answer != ANSWER_NONE)
        take_answer_of(vcpu, exit);
    if (!is_blank(&vcpu->exit))
        memset(&vcpu->exit, 0, sizeof(vcpu->exit));
    vcpu->exit.size = sizeof(vcpu->exit);
    set_budget(vcpu);

    core_vcpu_where(vcpu, VCPU_RUN);
    vcpu->exit_complete = false;
    err = loop(vcpu, step);
    if (!err)
        err = fill_common(vcpu);
    if (!err) {
        core_copy_out(exit, &vcpu->exit, sizeof(vcpu->exit));
        atomic_fetch_add_explicit(&vcpu->nexits_by[vcpu->exit.reason], 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&vcpu->nexits, 1, memory_order_relaxed);
    vcpu->budget_deadline = UINT64_MAX;
    /* Timers were ours to poll; a vCPU that sleeps may not know of them all. */
    if (atomic_load(&vm->next_timer) != UINT64_MAX)
        core_timers_wake(vm);
    core_vcpu_where(vcpu, VCPU_OUT);
    core_vcpu_release(vcpu, false);
    return err;
}

int vcpu_run(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    if (!vcpu)
        return VMM_E_INVAL;
    return run(vcpu, exit, false, __func__);
}

int vcpu_step(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    if (!vcpu)
        return VMM_E_INVAL;
    if (!(vcpu->vm->caps.caps & VMM_CAP_STEP))
        return vm_fail(vcpu->vm, VMM_E_UNSUPPORTED, __func__, "backend %s cannot single-step",
                       vcpu->vm->ops->name);
    return run(vcpu, exit, true, __func__);
}
