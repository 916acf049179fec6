/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cpuid_limit.c: which registers of the default CPUID table are features of hardware. */
#include "core/x86/cpuid_limit.h"

#include "core/x86/control.h"
#include <vmm/vcpu.h>

/* `own` bits are the library's. */
static const struct {
    uint32_t leaf, subleaf;
    unsigned reg;
    uint32_t own;
} registers[] = {
    {1, 0, X86_CPUID_ECX, X86_F1_ECX_X2APIC | X86_F1_ECX_TSC_DEADLINE | X86_F1_ECX_HYPERVISOR},
    {1, 0, X86_CPUID_EDX,
     X86_F1_EDX_APIC | X86_F1_EDX_MCE | X86_F1_EDX_MCA | X86_F1_EDX_MTRR | X86_F1_EDX_HTT},
    {7, 0, X86_CPUID_EBX, X86_F7_EBX_TSC_ADJUST},
    {7, 0, X86_CPUID_ECX, 0},
    {7, 0, X86_CPUID_EDX, 0},
    {7, 1, X86_CPUID_EAX, 0},
    {0xd, 0, X86_CPUID_EAX, 0},
    {0xd, 0, X86_CPUID_EDX, 0},
    {0xd, 1, X86_CPUID_EAX, 0},
    {0x80000001, 0, X86_CPUID_ECX, 0},
    {0x80000001, 0, X86_CPUID_EDX, 0},
    {0x80000007, 0, X86_CPUID_EDX, 0},
    {0x80000008, 0, X86_CPUID_EBX, 0},
};

uint32_t *x86_cpuid_reg(struct vmm_cpuid *e, unsigned reg)
{
    uint32_t *const regs[4] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

    return regs[reg];
}

void x86_cpuid_limit(struct vmm_cpuid *e, x86_cpuid_allowed *allowed, const void *ctx)
{
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
        uint32_t leaf = registers[i].leaf, subleaf = registers[i].subleaf;

        if (e->leaf != leaf || ((e->flags & VMM_CPUID_SUBLEAF) && e->subleaf != subleaf))
            continue;
        *x86_cpuid_reg(e, registers[i].reg) &=
            allowed(ctx, leaf, subleaf, registers[i].reg) | registers[i].own;
    }
}
