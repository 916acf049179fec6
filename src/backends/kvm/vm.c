/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/vm.c: VMs of the KVM engine: creation, capabilities. */
#include <asm/kvm_para.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/kvm/kvm.h"
#include "backends/kvm/uapi.h"
#include "core/internal.h"

/*
 * A CPU with VT-x that cannot run real mode itself needs a TSS and a page table in guest-physical
 * memory, which KVM keeps out of the guest's sight. Here firmware images and the chipset's windows
 * leave room; other CPUs ignore it.
 */
#define IDENTITY_MAP 0xfeffc000ull
#define TSS          (IDENTITY_MAP + 0x1000) /* three pages */

/* ---- creation ---- */

static int create_fd(struct vm *vm, int *out)
{
    int result, dev = kvm_open(&result), fd;

    if (dev < 0)
        return kvm_fail(vm, "vm_create", dev, "/dev/kvm");
    fd = kvm_ioctl(dev, KVM_CREATE_VM, 0);
    close(dev);
    if (fd < 0)
        return kvm_fail(vm, "vm_create", fd, "KVM_CREATE_VM");
    *out = fd;
    return 0;
}

/* A KVM that does not have the calls needs neither. */
static int set_real_mode_pages(struct vm *vm, int fd)
{
    const uint64_t map = IDENTITY_MAP;
    int r = kvm_ioctl_p(fd, KVM_SET_IDENTITY_MAP_ADDR, &map);

    if (r < 0 && r != -ENOTTY && r != -EINVAL)
        return kvm_fail(vm, "vm_create", r, "KVM_SET_IDENTITY_MAP_ADDR");
    r = kvm_ioctl(fd, KVM_SET_TSS_ADDR, TSS);
    if (r < 0 && r != -ENOTTY && r != -EINVAL)
        return kvm_fail(vm, "vm_create", r, "KVM_SET_TSS_ADDR");
    return 0;
}

static int enable(int fd, uint32_t cap, uint64_t arg)
{
    const struct kvm_enable_cap enable_cap = {.cap = cap, .args = {arg}};

    return kvm_ioctl_p(fd, KVM_ENABLE_CAP, &enable_cap);
}

/* Behaviour that KVM keeps for old programs, and that no CPU has. */
#define QUIRKS                                                                                     \
    (KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_LAPIC_MMIO_HOLE |                               \
     KVM_X86_QUIRK_OUT_7E_INC_RIP | KVM_X86_QUIRK_FIX_HYPERCALL_INSN |                             \
     KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

static int enable_caps(struct vm *vm, int fd)
{
    const struct kvm_host *host = kvm_host();
    const struct {
        uint32_t has; /* 0: harmless where it is missing */
        uint32_t cap;
        uint64_t arg;
        const char *name;
    } caps[] = {
        {KVM_HAS_USER_MSR, KVM_CAP_X86_USER_SPACE_MSR,
         KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER,
         "KVM_CAP_X86_USER_SPACE_MSR"},
        {KVM_HAS_X2APIC_API, KVM_CAP_X2APIC_API,
         KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
         "KVM_CAP_X2APIC_API"},
        {KVM_HAS_MANUAL_DIRTY, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
         KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"},
        {KVM_HAS_EXIT_ON_EMUL, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1,
         "KVM_CAP_EXIT_ON_EMULATION_FAILURE"},
        {0, KVM_CAP_EXCEPTION_PAYLOAD, 1, "KVM_CAP_EXCEPTION_PAYLOAD"},
    };

    for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
        if (caps[i].has && !(host->has & caps[i].has))
            continue;
        int r = enable(fd, caps[i].cap, caps[i].arg);

        if (r < 0 && (caps[i].has || r != -EINVAL))
            return kvm_fail(vm, "vm_create", r, caps[i].name);
    }
    return 0;
}

static int disable_quirks(struct vm *vm, int fd)
{
    int known = kvm_ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2), r = 0;

    if (known > 0 && ((uint32_t)known & QUIRKS))
        r = enable(fd, KVM_CAP_DISABLE_QUIRKS2, (uint32_t)known & QUIRKS);
    return r < 0 ? kvm_fail(vm, "vm_create", r, "KVM_CAP_DISABLE_QUIRKS2") : 0;
}

int kvm_vm_init(struct vm *vm)
{
    const struct kvm_host *host = kvm_host();
    struct kvm_vm *kvm;
    int err;

    if (host->result)
        return core_fail_os(vm, host->result, "vm_create", host->os_errno, "%s", host->reason);
    kvm = calloc(1, sizeof(*kvm));
    if (!kvm)
        return vm_fail(vm, VMM_E_NOMEM, "vm_create", "no memory for the VM");
    kvm->host = host;
    if (vm->flags & VMM_VM_TRUST_HOST) {
        kvm->trusted = *host;
        kvm->trusted.bad &= ~KVM_BAD_EXECUTION;
        kvm->host = &kvm->trusted;
    }
    for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
        kvm->vcpu_fd[i] = -1;
    err = create_fd(vm, &kvm->fd);
    if (err)
        goto no_fd;
    vm->backend_data = kvm;
    kvm_tsc_init(vm);
    kvm_dirty_init(vm);
    err = set_real_mode_pages(vm, kvm->fd);
    if (!err)
        err = enable_caps(vm, kvm->fd);
    if (!err)
        err = disable_quirks(vm, kvm->fd);
    if (!err)
        err = kvm_msr_filter_init(vm);
    if (!err)
        err = kvm_irq_init(vm);
    if (err)
        goto no_caps;
    err = kvm_io_init(vm);
    if (err)
        goto no_io;
    return 0;

no_io:
    kvm_irq_fini(vm);
no_caps:
    vm->backend_data = NULL;
    close(kvm->fd);
no_fd:
    free(kvm);
    return err;
}

void kvm_vm_fini(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    if (!kvm)
        return;
    kvm_io_fini(vm);
    kvm_irq_fini(vm);
    kvm_dirty_fini(vm);
    for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
        if (kvm->vcpu_fd[i] >= 0)
            close(kvm->vcpu_fd[i]);
    for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
        free(kvm->cpuid[i]);
    close(kvm->fd);
    kvm_mem_fini(vm);
    vm->backend_data = NULL;
    free(kvm);
}

/* ---- capabilities ---- */

/* Leaf 40000001H of the kernel's table: bits of EAX. */
static uint32_t pv_features(const struct kvm_host *host)
{
    for (uint32_t i = 0; host->supported && i < host->supported->nent; i++)
        if (host->supported->entries[i].function == KVM_CPUID_FEATURES)
            return host->supported->entries[i].eax;
    return 0;
}

void kvm_caps(struct vm *vm, struct vm_caps *caps)
{
    const struct kvm_host *host = kvm_host();
    uint64_t c =
        VMM_CAP_INSN_BUDGET | VMM_CAP_STEP | VMM_CAP_BREAKPOINT | VMM_CAP_WATCHPOINT | VMM_CAP_HW;

    interp_caps(vm, caps);
    if (!(host->bad & KVM_BAD_CPUID))
        c |= VMM_CAP_CPUID_TABLE;
    if (!(host->bad & KVM_BAD_TSC_OFFSET)) {
        c |= VMM_CAP_TSC_OFFSET;
        if (host->has & KVM_HAS_TSC_CONTROL)
            c |= VMM_CAP_TSC_KHZ;
        if (pv_features(host) & 1u << KVM_FEATURE_CLOCKSOURCE2)
            c |= VMM_CAP_KVM_PV;
    }
    if (host->irqchip_split_ok)
        c |= VMM_CAP_IRQCHIP_SPLIT;
    if (host->irqchip_kernel_ok)
        c |= VMM_CAP_IRQCHIP_KERNEL;
    caps->caps = c;
    if (host->gpa_bits < caps->gpa_bits)
        caps->gpa_bits = host->gpa_bits;
    if (host->max_vcpus < caps->max_vcpus)
        caps->max_vcpus = host->max_vcpus;
}
