/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/run.c: the run loop: what is to be done before KVM_RUN, and for each of its exits.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backends/kvm/kvm.h"
#include "backends/kvm/uapi.h"
#include "core/internal.h"
#include "core/x86/control.h"

#define GO_ON     (-2000) /* results of the functions here: neither BACKEND_* nor VMM_E_* */
#define MAX_BATCH 4096u   /* instructions of a repair */

static int exits(struct kvm_vcpu *kv, uint32_t reason)
{
    kv->vcpu->exit.reason = reason;
    kv->vcpu->exit.insn_len = 0;
    return BACKEND_EXIT;
}

/* An exit for what neither the guest nor the library should ever see. */
static int fails(struct kvm_vcpu *kv, const char *what, uint64_t value)
{
    struct vcpu_exit *e = &kv->vcpu->exit;

    memset(&e->u, 0, sizeof(e->u));
    snprintf(e->u.entry.text, sizeof(e->u.entry.text), "%s %#llx", what, (unsigned long long)value);
    return exits(kv, VMM_EXIT_ENTRY_FAIL);
}

/* ---- the software CPU ---- */

/* Its results in terms of this file: nothing keeps the loop from going on. */
static int after_soft(struct kvm_vcpu *kv, int result, bool step)
{
    struct vcpu *vcpu = kv->vcpu;

    if (result == BACKEND_STEPPED)
        return step ? result : GO_ON;
    if (result != BACKEND_AGAIN || step || atomic_load(&vcpu->requests) || !vcpu->insn_budget)
        return result;
    return GO_ON;
}

/* Runs the software CPU until KVM can run the state. */
static int soft(struct kvm_vcpu *kv, bool step)
{
    int r;

    if (kv->pending == KVM_PEND_COMPLETE) {
        r = kvm_complete(kv);
        if (r)
            return r;
        if (kv->pending != KVM_PEND_NONE)
            return GO_ON;
        if (kv->vcpu->insn_budget != UINT64_MAX)
            kv->vcpu->insn_budget--;
        if (step)
            return BACKEND_STEPPED;
        if (!kv->vcpu->insn_budget)
            return BACKEND_AGAIN;
    }
    return after_soft(kv, kvm_soft_run(kv, UINT64_MAX, step), step);
}

/* One instruction, or one event. */
static int soft_one(struct kvm_vcpu *kv)
{
    int r = kvm_soft_run(kv, UINT64_MAX, true);

    return r == BACKEND_AGAIN && kv->vcpu->exit.reason == VMM_EXIT_NONE ? r
                                                                        : after_soft(kv, r, false);
}

static void count(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* What KVM could not execute. When repairs follow each other closely, the next ones take more than
 * their one instruction: the way to KVM and back costs as much as a thousand. */
static int repair(struct kvm_vcpu *kv)
{
    uint64_t entries = atomic_load_explicit(&kv->entries, memory_order_relaxed);
    bool close = entries - kv->last_repair <= 2;
    int r;

    count(&kv->repairs);
    kv->last_repair = entries;
    if (!close || !kv->batch)
        kv->batch = 1;
    else if (kv->batch < MAX_BATCH)
        kv->batch *= 2;
    if (kv->batch <= 1)
        return soft_one(kv);
    r = kvm_soft_run(kv, kv->batch, false);
    return after_soft(kv, r, false);
}

/* ---- before KVM_RUN ---- */

/* Whether the software CPU has to go first. */
static int needs_soft(struct kvm_vcpu *kv, bool step, bool *needs)
{
    const struct vcpu *vcpu = kv->vcpu;
    const struct x86_cpu *cpu = kv->soft.cpu;
    int r;

    *needs = step || vcpu->insn_budget != UINT64_MAX || vcpu->restart || kv->cpuid_stale ||
             kv->debug_soft || cpu->later.valid ||
             (vcpu->irq_window_wanted && kvm_lapic_in_kernel(vcpu->vm));
    if (*needs || (!kv->newer && (!kv->host->bad || kv->pending == KVM_PEND_COMPLETE)))
        return 0;
    r = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS);
    /* That may have completed an instruction, which has another access. */
    if (!r && kv->pending == KVM_PEND_NONE)
        *needs = !kvm_can_run(kv);
    return r;
}

static int check_activity(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    int r;

    if (cpu->activity == VMM_SHUTDOWN)
        return exits(kv, VMM_EXIT_SHUTDOWN);
    if (cpu->activity == VMM_ACTIVE || kvm_lapic_in_kernel(kv->vcpu->vm))
        return GO_ON;
    if (cpu->activity == VMM_WAIT_SIPI)
        return BACKEND_HALT;
    r = kvm_pull(kv, KVM_G_REGS | KVM_G_EVENTS);
    if (r)
        return r;
    if (!interp_event_waits(&kv->soft))
        return BACKEND_HALT;
    cpu->activity = VMM_ACTIVE;
    return GO_ON;
}

/* Whether KVM takes an external interrupt now. Behind an instruction that is still to be completed
 * it may not: that may fault. KVM then exits when it can. */
static bool window_open(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (kv->pending != KVM_PEND_NONE)
        return false;
    if ((kv->valid & KVM_G_REGS) && (kv->valid & KVM_G_EVENTS))
        return (cpu->rflags & X86_IF) && !cpu->shadow && !cpu->event.valid &&
               !(cpu->nmi_pending && !cpu->nmi_blocked);
    return kv->run->ready_for_interrupt_injection && kv->run->if_flag;
}

static int queue_interrupt(struct kvm_vcpu *kv, int vector)
{
    struct kvm_interrupt irq = {.irq = (uint32_t)vector};
    int r;

    if (kv->valid & KVM_G_EVENTS) {
        kv->soft.cpu->activity = VMM_ACTIVE;
        kv->soft.cpu->event = (struct x86_event){
            .valid = true, .type = X86_EVENT_EXTERNAL, .vector = (uint8_t)vector};
        kvm_changed(kv, KVM_G_EVENTS);
        return GO_ON;
    }
    r = kvm_ioctl_p(kv->fd, KVM_INTERRUPT, &irq);
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_INTERRUPT") : GO_ON;
}

/* Interrupts of the library's controllers, and the exit for an open window. *moved: the software
 * CPU has changed the state, so that what is known of it does not hold any more. */
static int interrupts(struct kvm_vcpu *kv, bool *moved)
{
    struct vcpu *vcpu = kv->vcpu;
    int r = GO_ON;

    if (kvm_lapic_in_kernel(vcpu->vm) && kv->pending == KVM_PEND_NONE && kvm_intr_pending(kv)) {
        /* The kernel's own do not wait for us, so the event is to be seen in its place. */
        r = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS);
        if (r)
            return r;
        r = GO_ON;
    }
    if ((vcpu->irq_window_wanted || kvm_intr_pending(kv)) && window_open(kv)) {
        if (vcpu->irq_window_wanted) {
            vcpu->irq_window_wanted = false;
            return exits(kv, VMM_EXIT_IRQ_WINDOW);
        }
        /* Behind the fence the software CPU delivers. */
        if (kv->fenced || kvm_wants_fence(kv)) {
            *moved = true;
            return soft_one(kv);
        }
        int vector = kvm_intr_ack(kv);
        if (vector >= 0)
            r = queue_interrupt(kv, vector);
    }
    kv->run->request_interrupt_window = vcpu->irq_window_wanted || kvm_intr_pending(kv);
    return r;
}

/* Behind the fence or before it: as the CPL demands. */
static int set_fence(struct kvm_vcpu *kv)
{
    int r;

    if (!(kv->host->bad & KVM_BAD_USER_EVENTS) || kv->pending == KVM_PEND_COMPLETE ||
        kvm_wants_fence(kv) == kv->fenced)
        return 0;
    r = kvm_pull(kv, KVM_G_SREGS | KVM_G_MSRS | KVM_G_EVENTS);
    kv->fenced = !kv->fenced;
    kvm_changed(kv, KVM_G_SREGS | KVM_G_MSRS | KVM_G_EVENTS);
    return r;
}

/* Whether KVM can have derived anything from the guest's page tables. */
static bool has_run(const struct vm *vm, const struct kvm_vm *kvm)
{
    for (uint32_t i = 0; i < vm->max_vcpus; i++)
        if (atomic_load_explicit(&kvm->vcpu_ran[i], memory_order_relaxed))
            return true;
    return false;
}

/* The software CPU has flushed its TLB: KVM's has to go too. KVM flushes for a change of CR0; the
 * right value follows with kvm_push. */
static int flush_tlb(struct kvm_vcpu *kv)
{
    struct kvm_sregs sregs;
    int r;

    if (kv->soft.cpu->mmu.flush_gen == kv->flush_count)
        return 0;
    kv->flush_count = kv->soft.cpu->mmu.flush_gen;
    if (!has_run(kv->vcpu->vm, kvm_vm_of(kv->vcpu->vm)))
        return 0;
    if (kv->host->bad & KVM_BAD_STALE_TABLES) {
        if (kv->vcpu->vm->max_vcpus == 1)
            return kvm_mem_refresh(kv->vcpu->vm);
        core_world_stop(kv->vcpu->vm);
        r = kvm_mem_refresh(kv->vcpu->vm);
        core_world_go(kv->vcpu->vm);
        return r;
    }
    r = kvm_ioctl_p(kv->fd, KVM_GET_SREGS, &sregs);
    if (r >= 0) {
        sregs.cr0 ^= X86_CR0_WP;
        memset(sregs.interrupt_bitmap, 0, sizeof(sregs.interrupt_bitmap));
        r = kvm_ioctl_p(kv->fd, KVM_SET_SREGS, &sregs);
    }
    kvm_changed(kv, KVM_G_SREGS);
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_SET_SREGS") : 0;
}

/* ---- exits ---- */

static int on_access(struct kvm_vcpu *kv)
{
    if (!kvm_access_begin(kv))
        return kvm_fail(kv->vcpu->vm, "vcpu_run", -EPROTO, "KVM_RUN (an access that cannot be)");
    int r = kvm_access_go_on(kv);
    return r == KVM_ACCESS_DONE ? GO_ON : r;
}

static int on_nothing(struct kvm_vcpu *kv)
{
    (void)kv;
    return GO_ON;
}

static int on_hlt(struct kvm_vcpu *kv)
{
    kv->soft.cpu->activity = VMM_HALTED;
    return GO_ON;
}

/*
 * An event at CPL 3 behind the fence. The instruction at RIP comes again in the software CPU, with
 * its fault. Only traps are over: INT3, INT1, and single steps.
 */
static int fenced_event(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_vcpu_events events;
    int r;

    count(&kv->repairs);
    r = kvm_pull(kv, KVM_G_ALL);
    if (r)
        return r;
    r = kvm_get_events(kv, &events);
    if (r)
        return r;
    cpu->event.valid = false;
    cpu->rflags &= ~X86_RF;
    kvm_changed(kv, KVM_G_ALL);
    if (kvm_lapic_in_kernel(kv->vcpu->vm) && events.interrupt.nr != KVM_NO_EVENT) {
        /* Of a local APIC in the kernel, which regards it as delivered. */
        cpu->event = (struct x86_event){
            .valid = true, .type = X86_EVENT_EXTERNAL, .vector = events.interrupt.nr};
    } else if (kvm_lapic_in_kernel(kv->vcpu->vm) && events.exception.nr == KVM_NO_EVENT) {
        cpu->nmi_blocked = false;
        cpu->event = (struct x86_event){.valid = true, .type = X86_EVENT_NMI, .vector = X86_NMI};
    } else if (events.exception.nr == X86_BP) {
        if (kvm_code_is(kv, cpu->rip - 1, "\xcc", 1))
            cpu->rip -= 1;
        else if (kvm_code_is(kv, cpu->rip - 2, "\xcd\x03", 2))
            cpu->rip -= 2;
    } else if (events.exception.nr == X86_DB) {
        if (cpu->rflags & X86_TF)
            cpu->pending_db |= X86_DR6_BS;
        else if (kvm_code_is(kv, cpu->rip - 1, "\xf1", 1))
            cpu->rip -= 1;
    }
    return soft_one(kv);
}

static int on_shutdown(struct kvm_vcpu *kv)
{
    int r;

    if (kv->fenced)
        return fenced_event(kv);
    /* With local APICs in the kernel KVM would tell another activity. */
    r = kvm_lapic_in_kernel(kv->vcpu->vm) ? kvm_pull(kv, KVM_G_EVENTS) : 0;
    if (r)
        return r;
    kv->soft.cpu->activity = VMM_SHUTDOWN;
    return exits(kv, VMM_EXIT_SHUTDOWN);
}

static int on_fail_entry(struct kvm_vcpu *kv)
{
    return fails(kv, "hardware entry failure reason",
                 kv->run->fail_entry.hardware_entry_failure_reason);
}

static int on_internal_error(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    int r = kvm_pull(kv, KVM_G_ALL);

    if (r)
        return r;
    /* KVM has queued a #UD for the case that we let the guest know. */
    if (kv->run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && cpu->event.valid &&
        cpu->event.type == X86_EVENT_EXCEPTION && cpu->event.vector == X86_UD) {
        cpu->event.valid = false;
        kvm_changed(kv, KVM_G_EVENTS);
    }
    return repair(kv);
}

static int on_system_event(struct kvm_vcpu *kv)
{
    static const uint32_t reasons[] = {[KVM_SYSTEM_EVENT_SHUTDOWN] = VMM_EXIT_POWEROFF,
                                       [KVM_SYSTEM_EVENT_RESET] = VMM_EXIT_RESET,
                                       [KVM_SYSTEM_EVENT_CRASH] = VMM_EXIT_PANIC};
    uint32_t type = kv->run->system_event.type;

    if (type >= sizeof(reasons) / sizeof(reasons[0]) || !reasons[type])
        return fails(kv, "KVM system event", type);
    memset(&kv->vcpu->exit.u, 0, sizeof(kv->vcpu->exit.u));
    return exits(kv, reasons[type]);
}

/* Not asked for, so there is no hypercall that would mean anything. */
static int on_hypercall(struct kvm_vcpu *kv)
{
    kv->run->hypercall.ret = (uint64_t)-ENOSYS;
    return GO_ON;
}

static int on_eoi(struct kvm_vcpu *kv)
{
    core_guest_leave(kv->vcpu);
    kvm_irq_eoi_exit(kv->vcpu->vm, kv->run->eoi.vector);
    core_guest_enter(kv->vcpu);
    return GO_ON;
}

static int on_debug(struct kvm_vcpu *kv)
{
    int r = kvm_debug_exit(kv);

    return r == BACKEND_AGAIN ? GO_ON : r;
}

static int on_ring_full(struct kvm_vcpu *kv)
{
    int r = kvm_dirty_harvest(kv);

    return r < 0 ? r : GO_ON;
}

static int on_memory_fault(struct kvm_vcpu *kv, bool known)
{
    struct vcpu_exit *e = &kv->vcpu->exit;

    memset(&e->u, 0, sizeof(e->u));
    /* struct { u64 flags, gpa, size; } memory_fault */
    e->u.fault.gpa = known ? kv->run->internal.data[0] : UINT64_MAX;
    e->u.fault.gva = UINT64_MAX;
    e->u.fault.access = VMM_ACCESS_READ;
    return exits(kv, VMM_EXIT_MEM_FAULT);
}

static int on_memory_fault_exit(struct kvm_vcpu *kv)
{
    return on_memory_fault(kv, true);
}

#define EXIT_MEMORY_FAULT 39u /* KVM_EXIT_MEMORY_FAULT */

static int (*const on_exit[])(struct kvm_vcpu *kv) = {
    [KVM_EXIT_IO] = on_access,
    [KVM_EXIT_MMIO] = on_access,
    [KVM_EXIT_X86_RDMSR] = on_access,
    [KVM_EXIT_X86_WRMSR] = on_access,
    [KVM_EXIT_HLT] = on_hlt,
    [KVM_EXIT_IRQ_WINDOW_OPEN] = on_nothing,
    [KVM_EXIT_SET_TPR] = on_nothing,
    [KVM_EXIT_INTR] = on_nothing,
    [KVM_EXIT_TPR_ACCESS] = on_nothing,
    [KVM_EXIT_X86_BUS_LOCK] = on_nothing,
    [KVM_EXIT_DEBUG] = on_debug,
    [KVM_EXIT_SHUTDOWN] = on_shutdown,
    [KVM_EXIT_FAIL_ENTRY] = on_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = on_internal_error,
    [KVM_EXIT_SYSTEM_EVENT] = on_system_event,
    [KVM_EXIT_HYPERCALL] = on_hypercall,
    [KVM_EXIT_IOAPIC_EOI] = on_eoi,
    [KVM_EXIT_DIRTY_RING_FULL] = on_ring_full,
    [EXIT_MEMORY_FAULT] = on_memory_fault_exit,
};

static int dispatch(struct kvm_vcpu *kv)
{
    uint32_t reason = kv->run->exit_reason;

    if (reason < sizeof(on_exit) / sizeof(on_exit[0]) && on_exit[reason])
        return on_exit[reason](kv);
    return fails(kv, "KVM exit reason", reason);
}

/* ---- KVM_RUN ---- */

/*
 * KVM_RUN has failed, perhaps after it has run the guest for a while. What KVM has taken of the
 * groups in the shared area it has struck from kvm_dirty_regs. Whether it has completed the
 * instruction that waited is not known; if it has, completing it once more does nothing.
 */
static int refused(struct kvm_vcpu *kv, int r, bool completing)
{
    uint32_t left = (uint32_t)kv->run->kvm_dirty_regs;

    kv->run->kvm_dirty_regs = 0;
    kvm_state_ran(kv, false);
    kv->valid = kv->newer = left;
    if (completing)
        kv->pending = KVM_PEND_COMPLETE;
    if (r != -EINVAL && r != -EPERM)
        return kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_RUN");
    /* A state, or an instruction, that this KVM does not take. */
    r = kvm_complete(kv);
    if (r)
        return r;
    if (kv->pending != KVM_PEND_NONE)
        return GO_ON;
    count(&kv->repairs);
    return soft_one(kv);
}

static int enter(struct kvm_vcpu *kv)
{
    const struct kvm_host *host = kv->host;
    bool completing = kv->pending == KVM_PEND_COMPLETE;
    int r;

    r = set_fence(kv);
    if (!r)
        r = flush_tlb(kv);
    if (!r)
        r = kvm_tsc_push(kv);
    if (r)
        return r;
    if (kv->newer) {
        r = kvm_push(kv);
        if (r)
            return r;
    }
    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        kv->run->cr8 = x86_read_cr8(kv->soft.cpu);
    if (host->has & KVM_HAS_SYNC_REGS)
        kv->run->kvm_valid_regs = (host->bad ? KVM_G_ALL : kv->wanted) & KVM_SYNC_X86_VALID_FIELDS;
    r = kvm_enter(kv);
    if (r == KVM_ENTER_NOT)
        return BACKEND_AGAIN;
    count(&kv->entries);
    atomic_store_explicit(&kvm_vm_of(kv->vcpu->vm)->vcpu_ran[kv->vcpu->id], true,
                          memory_order_relaxed);
    atomic_store_explicit(&kvm_vm_of(kv->vcpu->vm)->derived, true, memory_order_relaxed);
    kv->wanted = 0;
    kv->pending = KVM_PEND_NONE;
    if (r < 0 && r != -EFAULT)
        return refused(kv, r, completing);
    kvm_state_ran(kv, true);
    kvm_io_drain(kv);
    if (r < 0) {
        kv->run->kvm_dirty_regs = 0;
        return on_memory_fault(kv, kv->run->exit_reason == EXIT_MEMORY_FAULT);
    }
    if (r == KVM_ENTER_INTERRUPTED) {
        core_poll_timers(kv->vcpu);
        return GO_ON;
    }
    return dispatch(kv);
}

/* ---- the loop ---- */

static int turn(struct kvm_vcpu *kv, bool step)
{
    struct vcpu *vcpu = kv->vcpu;
    bool needs = false, moved = false;
    int r;

    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed) || !vcpu->insn_budget)
        return BACKEND_AGAIN;
    if (atomic_load_explicit(&kvm_vm_of(vcpu->vm)->mem_error, memory_order_relaxed)) {
        r = kvm_mem_settle(vcpu);
        if (r)
            return r;
    }
    if (kv->lapic_reset_due) {
        r = kvm_lapic_reset(kv);
        if (r)
            return r;
        kv->lapic_reset_due = false;
    }
    kvm_irq_tell_eois(kv);
    if (kv->init_came) {
        /* KVM has reset what an INIT resets. */
        kv->init_came = false;
        kv->valid &= ~(KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS | KVM_G_DEBUG);
        kv->newer &= kv->valid;
        kv->synced = 0;
    }
    if (kv->pending == KVM_PEND_ACCESS) {
        r = kvm_access_go_on(kv);
        return r == KVM_ACCESS_DONE ? GO_ON : r;
    }
    if (kv->regs_set) {
        r = kvm_complete(kv);
        if (r || kv->pending == KVM_PEND_ACCESS)
            return r ? r : GO_ON;
    }
    r = needs_soft(kv, step, &needs);
    if (r)
        return r;
    if (kv->pending == KVM_PEND_ACCESS)
        return GO_ON;
    if (needs && kvm_lapic_in_kernel(vcpu->vm) && kv->pending == KVM_PEND_NONE) {
        r = kvm_pull(kv, KVM_G_EVENTS);
        if (r)
            return r;
        if (kv->soft.cpu->activity == VMM_HALTED || kv->soft.cpu->activity == VMM_WAIT_SIPI) {
            r = kvm_irq_wait(kv);
            return r ? r : BACKEND_AGAIN;
        }
    }
    if (needs)
        return soft(kv, step);
    r = check_activity(kv);
    if (r == GO_ON && kv->debug_pass) {
        kv->debug_pass = false;
        return soft_one(kv);
    }
    if (r == GO_ON)
        r = interrupts(kv, &moved);
    if (r != GO_ON || moved || kv->pending == KVM_PEND_ACCESS)
        return r;
    return enter(kv);
}

/* What all exits have in common: known here without asking KVM for more. */
static int fill_exit(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct vcpu_exit *e = &kv->vcpu->exit;
    struct vcpu_regs regs = {0};
    int r = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS);

    if (r)
        return r;
    regs.cr0 = cpu->cr0;
    regs.efer = cpu->efer;
    regs.rflags = cpu->rflags;
    regs.seg[VMM_CS].ar = cpu->seg[VMM_CS].ar;
    e->mode = core_regs_mode(&regs);
    e->cpl = cpu->cpl;
    e->rip = kv->pending == KVM_PEND_ACCESS ? kv->insn_rip : cpu->rip;
    kv->vcpu->exit_complete = true;
    return BACKEND_EXIT;
}

int kvm_run(struct vcpu *vcpu, bool step)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    int r = kvm_kick_begin(kv);

    if (r)
        return r;
    do
        r = turn(kv, step);
    while (r == GO_ON);
    if (r == BACKEND_EXIT)
        r = fill_exit(kv);
    kvm_kick_end(kv);
    return r;
}
