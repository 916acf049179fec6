/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/kvm.c: the engine on /dev/kvm: its table of functions. */
#include "backends/kvm/kvm.h"

/* Under vm->lock, which keeps the vCPUs from going away. */
static void kvm_stats(struct vm *vm, struct vm_stats *stats)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    interp_stats(vm, stats);
    stats->hw_exits += kvm->hw_exits;
    stats->repairs += kvm->repairs;
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct kvm_vcpu *kv = (struct kvm_vcpu *)interp_at(vm, i);

        if (!kv)
            continue;
        stats->hw_exits += atomic_load_explicit(&kv->entries, memory_order_relaxed);
        stats->repairs += atomic_load_explicit(&kv->repairs, memory_order_relaxed);
    }
}

static int kvm_get_xsave(struct vcpu *vcpu, void *area, uint32_t len)
{
    int err = kvm_pull(kvm_vcpu_of(vcpu), KVM_G_XSAVE | KVM_G_XCR);

    return err ? err : interp_get_xsave(vcpu, area, len);
}

static int kvm_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    int err = kvm_pull(kv, KVM_G_XSAVE | KVM_G_XCR);

    if (!err)
        err = interp_set_xsave(vcpu, area, len);
    if (!err)
        kvm_changed(kv, KVM_G_XSAVE);
    return err;
}

static int kvm_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    if (kvm_msr_in_kernel(vcpu->vm, index))
        return kvm_msr_get(kv, index, value);
    int err = kvm_pull(kv, KVM_G_MSRS);
    return err ? err : interp_get_msr(vcpu, index, value);
}

static int kvm_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    if (kvm_msr_in_kernel(vcpu->vm, index))
        return kvm_msr_set(kv, index, value);
    int err = kvm_pull(kv, KVM_G_MSRS);
    if (!err)
        err = interp_set_msr(vcpu, index, value);
    if (!err)
        kvm_changed(kv, KVM_G_MSRS | KVM_G_SREGS); /* IA32_EFER, IA32_FS_BASE ... */
    return err;
}

static int kvm_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok)
{
    int err = kvm_pull(kvm_vcpu_of(vcpu), KVM_G_SREGS);

    return err ? err : interp_translate(vcpu, gva, gpa, ok);
}

static bool kvm_irq_window(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);

    return !kvm_pull(kv, KVM_G_REGS | KVM_G_EVENTS) && interp_irq_window(vcpu);
}

const struct vmm_backend_ops vmm_backend_kvm = {
    .name = "kvm",
    .probe = kvm_probe,
    .vm_init = kvm_vm_init,
    .vm_fini = kvm_vm_fini,
    .caps = kvm_caps,
    .stats = kvm_stats,
    .default_cpuid = kvm_default_cpuid,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_fini = kvm_vcpu_fini,
    .vcpu_reset = kvm_vcpu_reset,
    .run = kvm_run,
    .wake = kvm_wake,
    .get_regs = kvm_get_regs,
    .set_regs = kvm_set_regs,
    .get_xsave = kvm_get_xsave,
    .set_xsave = kvm_set_xsave,
    .get_msr = kvm_get_msr,
    .set_msr = kvm_set_msr,
    .set_cpuid = kvm_set_cpuid,
    .set_debug = kvm_set_debug,
    .translate = kvm_translate,
    .irq_window = kvm_irq_window,
    .mem_map_changed = kvm_mem_map_changed,
    .code_changed = interp_code_changed,
    .dirty_cleared = interp_dirty_cleared,
    .tsc = kvm_tsc,
    .tsc_changed = kvm_tsc_changed,
    .msr_policy = kvm_msr_policy,
    .host = &kvm_host_ops,
};
