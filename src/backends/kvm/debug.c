/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/debug.c: the host program's breakpoints, watchpoints and exception exits. */
#include "backends/kvm/kvm.h"
#include "core/x86/control.h"

/*
 * KVM's hardware breakpoints find the instruction; the software CPU, which has the list too, is
 * then asked to execute it, and makes the exit. What KVM cannot do exactly is the software CPU's
 * alone: watchpoints, of which KVM does not tell the address and which its emulator passes over,
 * and exceptions before their delivery. So are breakpoints of a guest that uses the debug registers
 * itself, for KVM's replace them.
 */

#define DR7_FIXED    0x400u
#define DR7_LOCAL(i) (1u << (2 * (i)))
#define DR7_ENABLED  0xffu

static bool hardware_can(const struct kvm_vcpu *kv)
{
    const struct kvm_host *host = kvm_host();
    const struct x86_cpu *cpu = kv->soft.cpu;

    if (!(host->has & KVM_HAS_GUEST_DEBUG) || (host->bad & KVM_BAD_BREAKPOINT))
        return false;
    for (unsigned i = 0; i < cpu->nhost_bp; i++)
        if (cpu->host_bp_type[i] != VMM_BREAK_EXEC)
            return false;
    return !cpu->host_exceptions && !(cpu->dr.dr7 & DR7_ENABLED);
}

/* With DR7.GD, MOV to a debug register exits where KVM looks at it: the guest may be about to use
 * them. */
static int arm(struct kvm_vcpu *kv, bool on)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_guest_debug debug = {0};

    if (on) {
        debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[7] = DR7_FIXED | X86_DR7_GD;
        for (unsigned i = 0; i < cpu->nhost_bp; i++) {
            debug.arch.debugreg[i] = cpu->host_bp[i];
            debug.arch.debugreg[7] |= DR7_LOCAL(i);
        }
    }
    return kvm_ioctl_p(kv->fd, KVM_SET_GUEST_DEBUG, &debug);
}

/* By what there is to do, and the guest's own debug registers. */
static int choose(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    bool any = cpu->nhost_bp || cpu->host_exceptions, hw = any && hardware_can(kv);
    int r = 0;

    if (hw || kv->debug_hw)
        r = arm(kv, hw);
    if (r < 0 && hw) {
        hw = false;
        r = kv->debug_hw ? arm(kv, false) : 0;
    }
    if (r < 0)
        return kvm_fail(kv->vcpu->vm, "vcpu_set_debug", r, "KVM_SET_GUEST_DEBUG");
    kv->debug_hw = hw;
    kv->debug_soft = any && !hw;
    return 0;
}

void kvm_debug_fini(struct kvm_vcpu *kv)
{
    if (kv->debug_hw)
        arm(kv, false);
}

int kvm_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    int err = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS | KVM_G_DEBUG);

    if (!err)
        err = interp_set_debug(vcpu, debug);
    return err ? err : choose(kv);
}

/* The software CPU makes the exit, unless an event comes before the instruction. */
static int breakpoint(struct kvm_vcpu *kv)
{
    int result = kvm_soft_run(kv, 1, false);

    kv->debug_pass = result == BACKEND_EXIT && kv->vcpu->exit.reason == VMM_EXIT_BREAKPOINT;
    return result;
}

static int debug_register(struct kvm_vcpu *kv)
{
    int result = kvm_soft_run(kv, 1, false), err;

    if (result < 0 || !(kv->soft.cpu->dr.dr7 & DR7_ENABLED))
        return result;
    err = choose(kv);
    return err ? err : result;
}

/* The guest's: a single step, or a task switch. */
static int guest_trap(struct kvm_vcpu *kv, uint64_t dr6)
{
    int err = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS | KVM_G_DEBUG);

    if (err)
        return err;
    x86_raise_db(kv->soft.cpu, dr6);
    kvm_changed(kv, KVM_G_EVENTS | KVM_G_DEBUG);
    return BACKEND_AGAIN;
}

int kvm_debug_exit(struct kvm_vcpu *kv)
{
    uint64_t dr6 = kv->run->debug.arch.dr6;

    if (kv->run->debug.arch.exception != X86_DB)
        return BACKEND_AGAIN;
    if (dr6 & X86_DR6_BD)
        return debug_register(kv);
    if (dr6 & (X86_DR6_BS | X86_DR6_BT))
        return guest_trap(kv, dr6 & (X86_DR6_BS | X86_DR6_BT));
    /* A breakpoint, or INT1, which is at RIP too. */
    return breakpoint(kv);
}
