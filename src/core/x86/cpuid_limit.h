/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cpuid_limit.h: the default CPUID table on hardware, which has not all that the software
 * CPU models. */
#ifndef X86_CPUID_LIMIT_H
#define X86_CPUID_LIMIT_H

#include <stdint.h>

struct vmm_cpuid;

enum { X86_CPUID_EAX, X86_CPUID_EBX, X86_CPUID_ECX, X86_CPUID_EDX };

#define X86_F1_ECX_X2APIC       (1u << 21)
#define X86_F1_ECX_MOVBE        (1u << 22)
#define X86_F1_ECX_TSC_DEADLINE (1u << 24)
#define X86_F1_ECX_HYPERVISOR   (1u << 31)
#define X86_F1_EDX_HTT          (1u << 28)
#define X86_F7_EBX_ERMS         (1u << 9)
#define X86_F7_EDX_FSRM         (1u << 4)

uint32_t *x86_cpuid_reg(struct vmm_cpuid *e, unsigned reg);

/* For registers of features: the bits that an engine can give to a guest. Those that are the
 * library's whatever the hardware has (its APIC, say) stay without being asked for. */
typedef uint32_t x86_cpuid_allowed(const void *ctx, uint32_t leaf, uint32_t subleaf, unsigned reg);

/* Takes what is not allowed from an entry. */
void x86_cpuid_limit(struct vmm_cpuid *e, x86_cpuid_allowed *allowed, const void *ctx);

#endif
