/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/tsc.c: the guest's TSCs: ticks of the VM on the host's TSC, offsets of the vCPUs. */
#include <cpuid.h>

#include "backends/kvm/kvm.h"
#include "core/internal.h"

/*
 * A guest reads (host TSC * ratio >> shift) + offset. The ticks of the VM are that without an
 * offset, less what had passed before the VM began and while it was paused (tsc_base); what the
 * core adds for each vCPU and the base together are the offset that KVM gets. Because it is
 * computed and compared before each KVM_RUN, nothing has to be told when one of the two moves.
 */

#define MSR_TSC 0x10u

/* KVM takes a frequency so close to the host's for the same (its parameter tsc_tolerance_ppm). */
#define TOLERANCE_PPM 250u

static uint64_t host_ticks(const struct kvm_vm *kvm)
{
    uint64_t tsc = __builtin_ia32_rdtsc();

    return kvm->tsc_shift ? (uint64_t)((unsigned __int128)tsc * kvm->tsc_ratio >> kvm->tsc_shift)
                          : tsc;
}

static bool follows_offset(void)
{
    return !(kvm_host()->bad & KVM_BAD_TSC_OFFSET);
}

uint64_t kvm_tsc(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    if (!follows_offset())
        return __builtin_ia32_rdtsc();
    for (;;) {
        bool stands = atomic_load(&kvm->tsc_stands);
        uint64_t base = atomic_load(&kvm->tsc_base), held = atomic_load(&kvm->tsc_held);
        uint64_t ticks = stands ? held : host_ticks(kvm) - base;

        if (stands == atomic_load(&kvm->tsc_stands) && base == atomic_load(&kvm->tsc_base) &&
            held == atomic_load(&kvm->tsc_held))
            return ticks;
    }
}

/* The kernel's clock for guests stands and goes on with the VM's, and its watchdogs are told. */
static void set_kvmclock(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    struct kvm_clock_data data = {.clock = atomic_load(&vm->clock_paused)};

    if (!(vm->flags & VMM_VM_KVM_PV))
        return;
    kvm_ioctl_p(kvm->fd, KVM_SET_CLOCK, &data);
    for (unsigned i = 0; i < vm->max_vcpus; i++)
        if (kvm->vcpu_fd[i] >= 0 && (kvm_host()->has & KVM_HAS_KVMCLOCK_CTRL))
            kvm_ioctl(kvm->vcpu_fd[i], KVM_KVMCLOCK_CTRL, 0);
}

void kvm_tsc_changed(struct vm *vm, bool runs)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    if (!runs) {
        atomic_store(&kvm->tsc_held, host_ticks(kvm) - atomic_load(&kvm->tsc_base));
        atomic_store(&kvm->tsc_stands, true);
        return;
    }
    atomic_store(&kvm->tsc_base, host_ticks(kvm) - atomic_load(&kvm->tsc_held));
    atomic_store(&kvm->tsc_stands, false);
    set_kvmclock(vm);
}

static bool has_svm(void)
{
    uint32_t a, b, c = 0, d;

    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 2);
}

/* As KVM computes the ratio: with 48 bits behind the point for VT-x, 32 for AMD-V. */
static void find_ratio(const struct vm *vm, struct kvm_vm *kvm)
{
    int khz = kvm_ioctl(kvm->fd, KVM_GET_TSC_KHZ, 0);
    uint64_t want = vm->tsc_khz, host, away;

    if (khz <= 0)
        khz = (int)os_tsc_khz();
    host = (uint64_t)khz;
    away = want > host ? want - host : host - want;
    if (away * 1000000 <= host * TOLERANCE_PPM)
        return;
    kvm->tsc_shift = has_svm() ? 32 : 48;
    kvm->tsc_ratio = (uint64_t)(((unsigned __int128)want << kvm->tsc_shift) / host);
}

void kvm_tsc_init(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    if (vm->tsc_khz != os_tsc_khz() && (kvm_host()->has & KVM_HAS_TSC_CONTROL))
        find_ratio(vm, kvm);
    atomic_store(&kvm->tsc_base, host_ticks(kvm));
}

/* Without KVM_VCPU_TSC_OFFSET: the value now. KVM gives vCPUs whose TSCs are written about the same
 * time one offset. */
static int write_tsc(struct kvm_vcpu *kv, uint64_t offset)
{
    struct {
        uint32_t nmsrs, pad; /* struct kvm_msrs */
        struct kvm_msr_entry entry;
    } tsc = {.nmsrs = 1, .entry = {.index = MSR_TSC}};
    int r;

    _Static_assert(sizeof(tsc) == sizeof(struct kvm_msrs) + sizeof(tsc.entry), "KVM's layout");
    tsc.entry.data = host_ticks(kvm_vm_of(kv->vcpu->vm)) + offset;
    r = kvm_ioctl_p(kv->fd, KVM_SET_MSRS, &tsc);
    return r < 0 ? r : 0;
}

static int set_offset(struct kvm_vcpu *kv, uint64_t offset)
{
    const struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    if (!(kvm_host()->has & KVM_HAS_TSC_OFFSET))
        return write_tsc(kv, offset);
    return kvm_ioctl_p(kv->fd, KVM_SET_DEVICE_ATTR, &attr);
}

int kvm_tsc_push(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint64_t offset = atomic_load_explicit(&kv->vcpu->tsc_offset, memory_order_relaxed) -
                      atomic_load_explicit(&kvm->tsc_base, memory_order_relaxed);
    int r;

    if ((kv->tsc_valid && kv->tsc_given == offset) || !follows_offset())
        return 0;
    if (!kv->tsc_valid && kvm->tsc_shift) {
        r = kvm_ioctl(kv->fd, KVM_SET_TSC_KHZ, vm->tsc_khz);
        if (r < 0)
            return kvm_fail(vm, "vcpu_run", r, "KVM_SET_TSC_KHZ");
    }
    r = set_offset(kv, offset);
    if (r < 0)
        return kvm_fail(vm, "vcpu_run", r, "the TSC offset");
    kv->tsc_valid = true;
    kv->tsc_given = offset;
    return 0;
}
