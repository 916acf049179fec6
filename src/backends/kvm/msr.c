/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/msr.c: which MSRs stay in the kernel; accesses to all others. */
#include <string.h>

#include "backends/kvm/kvm.h"
#include "core/internal.h"

/*
 * The kernel has what the CPU itself uses and guests write often. Everything else exits, to the
 * core (policies, TSC, local APIC) or to the software CPU, so that it behaves as with the other
 * engines.
 */

enum where {
    ALWAYS,
    KERNEL_APIC, /* with local APICs in the kernel */
    PV,          /* with VMM_VM_KVM_PV */
};

static const struct {
    uint32_t index, group; /* KVM_G_*: which holds it */
    enum where where;
} passed[] = {
    {0x174, KVM_G_MSRS, ALWAYS}, /* IA32_SYSENTER_CS, _ESP, _EIP */
    {0x175, KVM_G_MSRS, ALWAYS},
    {0x176, KVM_G_MSRS, ALWAYS},
    {0x140, KVM_G_MSRS, ALWAYS},       /* MSR_MISC_FEATURES_ENABLES: CPUID faults at CPL 3 */
    {0x277, KVM_G_MSRS, ALWAYS},       /* IA32_PAT */
    {0xc0000080, KVM_G_SREGS, ALWAYS}, /* IA32_EFER */
    {0xc0000081, KVM_G_MSRS, ALWAYS},  /* IA32_STAR, LSTAR, CSTAR, FMASK */
    {0xc0000082, KVM_G_MSRS, ALWAYS},
    {0xc0000083, KVM_G_MSRS, ALWAYS},
    {0xc0000084, KVM_G_MSRS, ALWAYS},
    {0xc0000100, KVM_G_SREGS, ALWAYS}, /* IA32_FS_BASE, GS_BASE */
    {0xc0000101, KVM_G_SREGS, ALWAYS},
    {0xc0000102, KVM_G_MSRS, ALWAYS}, /* IA32_KERNEL_GS_BASE */
    {0xc0000103, KVM_G_MSRS, ALWAYS}, /* IA32_TSC_AUX */
    {0x1b, 0, KERNEL_APIC},           /* IA32_APIC_BASE */
    {0x6e0, 0, KERNEL_APIC},          /* IA32_TSC_DEADLINE */
    {0x11, 0, PV},                    /* the numbers of the first kvmclock */
    {0x12, 0, PV},
    {0x4b564d00, 0, PV}, /* wall clock, system time */
    {0x4b564d01, 0, PV},
    {0x4b564d03, 0, PV}, /* steal time */
    {0x4b564d04, 0, PV}, /* EOI */
};
#define NPASSED (sizeof(passed) / sizeof(passed[0]))
_Static_assert(NPASSED <= 32, "a bit each in msr_passed");

/* ---- the filter ---- */

static bool kernel_apic(const struct vm *vm)
{
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT ||
           vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL;
}

static bool applies(const struct vm *vm, enum where where)
{
    switch (where) {
    case KERNEL_APIC:
        return kernel_apic(vm);
    case PV:
        return vm->flags & VMM_VM_KVM_PV;
    default:
        return true;
    }
}

/* As msr_policy in core/policy.c: the latest range counts. */
static bool has_policy(const struct vcpu *vcpu, uint32_t index)
{
    for (uint32_t i = vcpu->nmsr_ranges; i-- > 0;)
        if (index >= vcpu->msr_ranges[i].first && index <= vcpu->msr_ranges[i].last)
            return vcpu->msr_ranges[i].policy != VMM_MSR_DEFAULT;
    return false;
}

/* Which of the MSRs KVM keeps on this VM, as bits of the table. */
static uint32_t wanted(struct vm *vm)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < NPASSED; i++)
        if (applies(vm, passed[i].where))
            bits |= 1u << i;
    for (unsigned n = 0; n < vm->max_vcpus; n++) {
        const struct vcpu *vcpu = atomic_load(&vm->vcpus[n]);

        for (unsigned i = 0; i < NPASSED && vcpu && vcpu->nmsr_ranges; i++)
            if (has_policy(vcpu, passed[i].index))
                bits &= ~(1u << i);
    }
    return bits;
}

/* Ranges of the filter: the bits of MSRs base to base+31. */
static const uint32_t bases[] = {0x0,   0x140,      0x160,      0x260,
                                 0x6e0, 0x4b564d00, 0xc0000080, 0xc0000100};
#define NBASES (sizeof(bases) / sizeof(bases[0]))
_Static_assert(NBASES <= KVM_MSR_FILTER_MAX_RANGES, "KVM takes no more ranges");

static int set_filter(struct kvm_vm *kvm, uint32_t bits)
{
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};
    uint32_t bitmaps[NBASES] = {0};
    int r;

    for (unsigned r_ = 0; r_ < NBASES; r_++) {
        filter.ranges[r_] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                                          .nmsrs = 32,
                                          .base = bases[r_],
                                          .bitmap = (uint8_t *)&bitmaps[r_]};
        for (unsigned i = 0; i < NPASSED; i++)
            if ((bits >> i & 1) && passed[i].index - bases[r_] < 32)
                bitmaps[r_] |= 1u << (passed[i].index - bases[r_]);
    }
    r = kvm_ioctl_p(kvm->fd, KVM_X86_SET_MSR_FILTER, &filter);
    if (!r)
        kvm->msr_passed = bits;
    return r;
}

int kvm_msr_filter_init(struct vm *vm)
{
    int r = set_filter(kvm_vm_of(vm), wanted(vm));

    return r < 0 ? kvm_fail(vm, "vm_create", r, "KVM_X86_SET_MSR_FILTER") : 0;
}

static int update(struct vm *vm, const char *op)
{
    uint32_t want = wanted(vm);
    int r = 0;

    if (want != kvm_vm_of(vm)->msr_passed)
        r = set_filter(kvm_vm_of(vm), want);
    return r < 0 ? kvm_fail(vm, op, r, "KVM_X86_SET_MSR_FILTER") : 0;
}

int kvm_msr_filter_update(struct vm *vm)
{
    return update(vm, "vm_create");
}

int kvm_msr_policy(struct vcpu *vcpu)
{
    return update(vcpu->vm, "vcpu_msr_policy");
}

/* ---- accesses ---- */

static uint32_t group_of(uint32_t index)
{
    for (unsigned i = 0; i < NPASSED; i++)
        if (passed[i].index == index)
            return passed[i].group;
    return 0;
}

/* The CPU's own: *ok false is #GP. */
static int access_own(struct kvm_vcpu *kv, uint32_t index, bool write, uint64_t *value, bool *ok)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    uint32_t group = group_of(index);
    /* EFER depends on CR0 and CR4, and the mode on RFLAGS. */
    int err = group ? kvm_pull(kv, group | KVM_G_REGS | KVM_G_SREGS) : 0;

    if (err)
        return err;
    if (!write) {
        *ok = x86_read_msr(cpu, index, value, false);
        return 0;
    }
    *ok = x86_write_msr(cpu, index, *value, false);
    if (*ok)
        kvm_changed(kv, group);
    return 0;
}

int kvm_msr_exit(struct kvm_vcpu *kv)
{
    struct kvm_run *run = kv->run;
    bool write = run->exit_reason == KVM_EXIT_X86_WRMSR, handled = false, ok;
    uint64_t value = write ? run->msr.data : 0;
    uint32_t index = run->msr.index;
    int r = core_msr_access(kv->vcpu, kv->serial, index, write, &value, &handled);

    if (r == CORE_IO_ABORT)
        return 1;
    ok = r == CORE_IO_OK;
    if (ok && !handled) {
        int err = access_own(kv, index, write, &value, &ok);

        if (err)
            return err;
    }
    run->msr.error = !ok;
    if (!write)
        run->msr.data = ok ? value : 0;
    return 0;
}

/* ---- MSRs that only the kernel has ---- */

static bool is_pv(const struct vm *vm, uint32_t index)
{
    for (unsigned i = 0; i < NPASSED; i++)
        if (passed[i].where == PV && passed[i].index == index)
            return applies(vm, PV);
    return false;
}

bool kvm_msr_in_kernel(const struct vm *vm, uint32_t index)
{
    return kvm_lapic_has_msr(vm, index) || is_pv(vm, index);
}

int kvm_msr_get(struct kvm_vcpu *kv, uint32_t index, uint64_t *value)
{
    if (kvm_lapic_has_msr(kv->vcpu->vm, index))
        return kvm_lapic_get_msr(kv, index, value);
    return kvm_get_one_msr(kv->fd, index, value) ? 0 : VMM_E_NOENT;
}

int kvm_msr_set(struct kvm_vcpu *kv, uint32_t index, uint64_t value)
{
    if (kvm_lapic_has_msr(kv->vcpu->vm, index))
        return kvm_lapic_set_msr(kv, index, value);
    return kvm_set_one_msr(kv->fd, index, value) ? 0 : VMM_E_INVAL;
}

int kvm_msr_env(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    struct kvm_vcpu *kv = ctx; /* it begins with the software CPU's part */
    int r = core_msr_access(kv->vcpu, x86_serial(kv->soft.cpu), index, write, value, handled);

    if (r != CORE_IO_OK || *handled || !kvm_msr_in_kernel(kv->vcpu->vm, index))
        return r;
    *handled = true;
    r = write ? kvm_msr_set(kv, index, *value) : kvm_msr_get(kv, index, value);
    return r ? CORE_IO_GP : CORE_IO_OK;
}
