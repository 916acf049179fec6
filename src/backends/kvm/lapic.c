/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/lapic.c: a vCPU's local APIC in the kernel: reset, MSRs, waiting for events. */
#include <errno.h>
#include <string.h>

#include "backends/kvm/irq.h"
#include "core/x86/control.h"

#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_TPR   0x808u

#define APIC_BASE_RESET 0xfee00800ull
#define APIC_BASE_BSP   0x100ull

/* Offsets of registers (SDM Vol. 3A table 11-1). */
#define REG_ID      0x20u
#define REG_VERSION 0x30u
#define REG_DFR     0xe0u
#define REG_SVR     0xf0u
#define REG_CMCI    0x2f0u
#define REG_TIMER   0x320u
#define REG_ERROR   0x370u

#define LVT_EXTINT 0x700u

uint32_t kvm_lapic_reg(const struct kvm_lapic_state *s, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, s->regs + offset, sizeof(value));
    return value;
}

static void set_reg(struct kvm_lapic_state *s, uint32_t offset, uint32_t value)
{
    memcpy(s->regs + offset, &value, sizeof(value));
}

/* ---- MSRs ---- */

bool kvm_lapic_has_msr(const struct vm *vm, uint32_t index)
{
    return kvm_lapic_in_kernel(vm) && (index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
                                       (index >= 0x800 && index <= 0x8ff));
}

/* The software CPU may have changed the task priority. */
static void give_priority(struct kvm_vcpu *kv)
{
    struct kvm_sregs s;

    if (!(kv->newer & KVM_G_SREGS) || kvm_ioctl_p(kv->fd, KVM_GET_SREGS, &s) < 0 ||
        s.cr8 == x86_read_cr8(kv->soft.cpu))
        return;
    s.cr8 = x86_read_cr8(kv->soft.cpu);
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    kvm_ioctl_p(kv->fd, KVM_SET_SREGS, &s);
}

int kvm_lapic_get_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t *value)
{
    give_priority(kv);
    return kvm_get_one_msr(kv->fd, index, value) ? 0 : VMM_E_NOENT;
}

int kvm_lapic_set_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t value)
{
    give_priority(kv);
    if (!kvm_set_one_msr(kv->fd, index, value))
        return VMM_E_NOENT;
    /* Both are in the group SREGS too, of which there may be older copies. */
    if (index == MSR_APIC_BASE)
        kv->apic_base = value;
    else if (index == MSR_X2APIC_TPR)
        kv->soft.cpu->cr8 = value >> 4 & 15;
    kv->synced &= ~KVM_G_SREGS;
    return 0;
}

/* ---- reset ---- */

/* SDM Vol. 3A 11.4.7.1, with what firmware would have set up (lapic_reset_regs). */
static void reset_regs(struct kvm_lapic_state *s, uint32_t id)
{
    uint32_t version = kvm_lapic_reg(s, REG_VERSION);

    memset(s, 0, sizeof(*s));
    set_reg(s, REG_ID, id << 24);
    set_reg(s, REG_VERSION, version);
    set_reg(s, REG_DFR, 0xffffffff);
    set_reg(s, REG_SVR, 0xff);
    for (uint32_t lvt = REG_TIMER; lvt <= REG_ERROR; lvt += 0x10)
        set_reg(s, lvt, KVM_LVT_MASKED);
    if ((version >> 16 & 0xff) >= 6)
        set_reg(s, REG_CMCI, KVM_LVT_MASKED);
    if (id == 0)
        set_reg(s, KVM_LAPIC_LINT0, LVT_EXTINT);
}

/* INIT reaches the CPU through KVM's local APIC, which resets itself then. */
int kvm_lapic_reset(struct kvm_vcpu *kv)
{
    struct vcpu *vcpu = kv->vcpu;
    struct kvm_lapic_state s;
    uint64_t base = APIC_BASE_RESET | (vcpu->id == 0 ? APIC_BASE_BSP : 0);
    int r;

    /* Whoever was here before may have left it in x2APIC mode, with other registers. */
    if (kvm_lapic_set_msr(kv, MSR_APIC_BASE, base))
        return kvm_fail(vcpu->vm, "vcpu_create", -EINVAL, "KVM_SET_MSRS for IA32_APIC_BASE");
    r = kvm_ioctl_p(kv->fd, KVM_GET_LAPIC, &s);
    if (r < 0)
        return kvm_fail(vcpu->vm, "vcpu_create", r, "KVM_GET_LAPIC");
    reset_regs(&s, vcpu->id);
    r = kvm_ioctl_p(kv->fd, KVM_SET_LAPIC, &s);
    if (r < 0)
        return kvm_fail(vcpu->vm, "vcpu_create", r, "KVM_SET_LAPIC");
    kvm_lapic_set_msr(kv, MSR_TSC_DEADLINE, 0);
    kvm_irq_of(vcpu->vm)->activity[vcpu->id] = KVM_ACTIVITY_UNKNOWN;
    return 0;
}

/* ---- activity ---- */

static const struct {
    uint32_t mp_state, activity;
} activities[] = {
    {KVM_MP_STATE_RUNNABLE, VMM_ACTIVE},         {KVM_MP_STATE_HALTED, VMM_HALTED},
    {KVM_MP_STATE_INIT_RECEIVED, VMM_WAIT_SIPI}, {KVM_MP_STATE_UNINITIALIZED, VMM_WAIT_SIPI},
    {KVM_MP_STATE_SIPI_RECEIVED, VMM_WAIT_SIPI},
};
#define NACTIVITIES (sizeof(activities) / sizeof(activities[0]))

int kvm_irq_get_activity(struct kvm_vcpu *kv, uint32_t *activity)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_mp_state mp;
    int r = kvm_ioctl_p(kv->fd, KVM_GET_MP_STATE, &mp);

    if (r < 0)
        return kvm_fail(vm, "vcpu_get_regs", r, "KVM_GET_MP_STATE");
    *activity = VMM_ACTIVE;
    for (size_t i = 0; i < NACTIVITIES; i++)
        if (activities[i].mp_state == mp.mp_state)
            *activity = activities[i].activity;
    kvm_irq_of(vm)->activity[kv->vcpu->id] = *activity;
    return 0;
}

/* What has not changed is left alone: an INIT may have come since it was read. */
int kvm_irq_set_activity(struct kvm_vcpu *kv, uint32_t activity)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE}; /* SHUTDOWN: not run at all */
    uint32_t *known = &kvm_irq_of(vm)->activity[kv->vcpu->id];

    if (*known == activity)
        return 0;
    for (size_t i = NACTIVITIES; i-- > 0;)
        if (activities[i].activity == activity)
            mp.mp_state = activities[i].mp_state;
    int r = kvm_ioctl_p(kv->fd, KVM_SET_MP_STATE, &mp);
    if (r < 0)
        return kvm_fail(vm, "vcpu_run", r, "KVM_SET_MP_STATE");
    *known = activity;
    return 0;
}
