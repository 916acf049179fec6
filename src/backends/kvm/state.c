/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/state.c: which of the two CPUs has the newest state, and what completes KVM's. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "backends/kvm/state.h"
#include "core/x86/control.h"

int kvm_get_failed(struct kvm_vcpu *kv, int r, const char *what)
{
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_get_regs", r, what) : 0;
}

int kvm_set_failed(struct kvm_vcpu *kv, int r, const char *what)
{
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_run", r, what) : 0;
}

/* ---- completion ---- */

/* After KVM has run: what is in kvm_run's shared area is all that is known. */
void kvm_state_ran(struct kvm_vcpu *kv, bool complete)
{
    kv->valid = kv->newer = 0;
    kv->synced =
        complete && kvm_has_sync(kv) ? (uint32_t)kv->run->kvm_valid_regs & KVM_SYNC_GROUPS : 0;
    kv->fresh_soft = true;
    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        kvm_take_cr8(kv, kv->run->cr8);
}

/* KVM_RUN that runs nothing but the rest of an instruction. 0 or a negative errno. */
static int run_rest(struct kvm_vcpu *kv)
{
    int r;

    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        kv->run->cr8 = x86_read_cr8(kv->soft.cpu);
    __atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    r = ioctl(kv->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    kv->pending = KVM_PEND_NONE;
    kvm_state_ran(kv, r == 0 || r == -EINTR);
    if (r == 0 && !kvm_access_begin(kv))
        return -EPROTO;
    return r == -EINTR ? 0 : r;
}

/*
 * Registers that were set meanwhile: KVM would lose the instruction's result if it got them before
 * it completes the instruction. They follow, but for what the instruction writes.
 */
static int set_after(struct kvm_vcpu *kv, const uint64_t gpr[16], uint64_t rflags)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    int r = kvm_pull_regs(kv);

    if (r)
        return r;
    for (unsigned i = 0; i < 16; i++)
        if (!(kv->insn_writes >> i & 1))
            cpu->gpr[i] = gpr[i];
    if (kv->insn_writes & KVM_WRITES_FLAGS)
        rflags = (rflags & ~(uint64_t)X86_ARITH) | (x86_get_rflags(cpu) & X86_ARITH);
    x86_set_rflags(cpu, rflags);
    kv->valid |= KVM_G_REGS;
    kvm_changed(kv, KVM_G_REGS);
    return 0;
}

int kvm_complete(struct kvm_vcpu *kv)
{
    int r;

    if (kv->pending != KVM_PEND_COMPLETE)
        return 0;
    uint64_t gpr[16], rflags = x86_get_rflags(kv->soft.cpu);
    bool set = kv->regs_set;

    memcpy(gpr, kv->soft.cpu->gpr, sizeof(gpr));
    kv->regs_set = false;
    r = kvm_push(kv);
    if (r)
        return r;
    r = run_rest(kv);
    if (r < 0)
        return kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_RUN");
    return set ? set_after(kv, gpr, rflags) : 0;
}

#define MAX_REST 64 /* accesses of one instruction */

void kvm_drop(struct kvm_vcpu *kv)
{
    for (int i = 0; kv->pending != KVM_PEND_NONE && i < MAX_REST; i++) {
        if (kv->pending == KVM_PEND_ACCESS)
            kvm_access_zero(kv);
        if (run_rest(kv) < 0)
            break;
    }
    kv->pending = KVM_PEND_NONE;
    kv->regs_set = false;
}

/* ---- all groups ---- */

/* In the order of both directions: EVENTS makes KVM write CR2 and DR6; XCR0 decides what KVM keeps
 * of XSAVE. */
static const struct {
    uint32_t group;
    int (*pull)(struct kvm_vcpu *kv);
    int (*push)(struct kvm_vcpu *kv);
} table[] = {
    {KVM_G_REGS, kvm_pull_regs, kvm_push_regs},    {KVM_G_EVENTS, kvm_pull_events, kvm_push_events},
    {KVM_G_SREGS, kvm_pull_sregs, kvm_push_sregs}, {KVM_G_DEBUG, kvm_pull_debug, kvm_push_debug},
    {KVM_G_MSRS, kvm_pull_msrs, kvm_push_msrs},    {KVM_G_XCR, kvm_pull_xcr, kvm_push_xcr},
    {KVM_G_XSAVE, kvm_pull_xsave, kvm_push_xsave},
};
#define NTABLE (sizeof(table) / sizeof(table[0]))

int kvm_pull(struct kvm_vcpu *kv, uint32_t groups)
{
    int r;

    /* What the groups mean depends on the mode, which is in these two; CR2 comes with EVENTS. */
    groups |= KVM_G_REGS | KVM_G_SREGS;
    r = kvm_complete(kv);
    if (r)
        return r;
    kv->wanted |= groups;
    groups &= ~kv->valid;
    if (!groups)
        return 0;
    if (groups & (KVM_G_SREGS | KVM_G_DEBUG))
        groups |= KVM_G_EVENTS & ~kv->valid;
    for (size_t i = 0; i < NTABLE; i++) {
        if (!(groups & ~kv->valid & table[i].group))
            continue;
        r = table[i].pull(kv);
        if (r)
            return r;
        kv->valid |= table[i].group;
    }
    if (groups & (KVM_G_REGS | KVM_G_SREGS)) {
        kvm_derive(kv);
        kvm_undo_fenced(kv);
    }
    if (groups & KVM_G_DEBUG)
        x86_breakpoints_changed(kv->soft.cpu);
    return 0;
}

int kvm_push(struct kvm_vcpu *kv)
{
    for (size_t i = 0; i < NTABLE && kv->newer; i++) {
        if (!(kv->newer & table[i].group))
            continue;
        int r = table[i].push(kv);
        if (r)
            return r;
        kv->newer &= ~table[i].group;
    }
    return 0;
}

/* ---- for the program ---- */

static uint32_t groups_of(uint32_t regs_groups)
{
    uint32_t groups = 0;

    if (regs_groups & VMM_REGS_GPR)
        groups |= KVM_G_REGS;
    if (regs_groups & (VMM_REGS_SEG | VMM_REGS_DT | VMM_REGS_CONTROL))
        groups |= KVM_G_SREGS;
    if (regs_groups & VMM_REGS_CONTROL)
        groups |= KVM_G_XCR;
    if (regs_groups & VMM_REGS_DEBUG)
        groups |= KVM_G_DEBUG;
    if (regs_groups & VMM_REGS_MSR)
        groups |= KVM_G_MSRS;
    if (regs_groups & VMM_REGS_EVENTS)
        groups |= KVM_G_EVENTS;
    return groups;
}

int kvm_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    int err = kvm_pull(kv, groups_of(regs->groups));

    if (err)
        return err;
    interp_get_regs(vcpu, regs);
    /* KVM may be past the instruction already. */
    if ((regs->groups & VMM_REGS_GPR) && kv->pending == KVM_PEND_ACCESS) {
        err = kvm_find_insn(kv);
        if (err)
            return err;
        regs->rip = kv->insn_rip;
    }
    if (kvm_lapic_in_kernel(vcpu->vm))
        regs->apic_base = kv->apic_base;
    return 0;
}

/* Another RIP while KVM's instruction waits for its access: it is not executed any more. */
static int move_away(struct kvm_vcpu *kv)
{
    if (kv->in_callback)
        return vm_fail(kv->vcpu->vm, VMM_E_STATE, "vcpu_set_regs",
                       "a callback cannot move RIP: its instruction is not over");
    int err = kvm_pull(kv, KVM_G_ALL);
    if (err)
        return err;
    kvm_drop(kv);
    kv->valid = kv->newer = KVM_G_ALL;
    return 0;
}

int kvm_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    struct x86_cpu *cpu = kv->soft.cpu;
    uint32_t groups = groups_of(regs->groups);
    struct vcpu_regs own = *regs;
    struct x86_event old;

    /* The checks look at all that decides about the mode. */
    int err = kvm_pull(kv, groups | KVM_G_EVENTS | KVM_G_XCR);
    if (err)
        return err;
    bool waits = kv->pending == KVM_PEND_ACCESS && (regs->groups & VMM_REGS_GPR);
    if (waits) {
        err = kvm_find_insn(kv);
        if (!err && regs->rip != kv->insn_rip) {
            err = move_away(kv);
            waits = false;
        }
        if (err)
            return err;
        if (waits)
            own.rip = cpu->rip;
    }
    old = cpu->event;
    err = interp_set_regs(vcpu, &own);
    if (err)
        return err;
    if (waits) {
        kv->regs_set = true;
        groups &= ~KVM_G_REGS;
    }
    if ((regs->groups & VMM_REGS_EVENTS) && kv->pending != KVM_PEND_NONE) {
        /* What is injected here comes behind the instruction that waits. */
        cpu->later = cpu->event;
        cpu->event = old;
    }
    if ((regs->groups & VMM_REGS_CONTROL) && kvm_lapic_in_kernel(vcpu->vm))
        kv->apic_base = regs->apic_base;
    kvm_changed(kv, groups);
    return 0;
}
