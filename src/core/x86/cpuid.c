/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cpuid.c: the CPUID instruction: dynamic bits, and what other files need of the table. */
#include <string.h>

#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"
#include "core/x86/xstate.h"
#include <vmm/vcpu.h>

/* MSR_MISC_FEATURES_ENABLES */
#define CPUID_FAULTING 1u

static void dynamic_xsave(const struct x86_cpu *cpu, uint32_t subleaf, uint32_t out[4])
{
    if (subleaf == 0)
        out[1] = x86_xstate_size(cpu->xcr0);
    else if (subleaf == 1)
        out[1] =
            out[0] & (1u << 1 | X86_FD1_XSAVES) ? x86_xstate_compact_size(cpu->xcr0 | cpu->xss) : 0;
}

bool x86_cpuid_is_dynamic(uint32_t leaf)
{
    switch (leaf) {
    case 0:
    case 1:
    case 7:
    case 0xb:
    case 0x1f:
    case 0xd:
    case 0x80000001:
        return true;
    default:
        return false;
    }
}

/* Registers are in the order EAX, EBX, ECX, EDX. */
void x86_cpuid_fill(const struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    switch (leaf) {
    case 0:
        if ((cpu->misc_enable & X86_MISC_LIMIT_CPUID) && out[0] > 2)
            out[0] = 2;
        break;
    case 1:
        out[1] = (out[1] & 0x00ffffff) | cpu->id << 24;
        out[2] &= ~X86_F1_ECX_OSXSAVE;
        if (cpu->cr4 & X86_CR4_OSXSAVE)
            out[2] |= X86_F1_ECX_OSXSAVE;
        break;
    case 7:
        if (subleaf)
            break;
        out[2] &= ~X86_F7_ECX_OSPKE;
        if (cpu->cr4 & X86_CR4_PKE)
            out[2] |= X86_F7_ECX_OSPKE;
        break;
    case 0xb:
    case 0x1f:
        /* The x2APIC id comes with every level that the table has, and behind the last one. */
        if (out[0] || out[1] || out[2] || subleaf)
            out[3] = cpu->id;
        break;
    case 0xd:
        dynamic_xsave(cpu, subleaf, out);
        break;
    case 0x80000001:
        if (!x86_code64(cpu))
            out[3] &= ~X86_FX1_EDX_SYSCALL;
        if (cpu->misc_enable & X86_MISC_XD_DISABLE)
            out[3] &= ~X86_FX1_EDX_NX;
        break;
    }
}

int x86_cpuid(struct x86_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    int r = cpu->env->cpuid(cpu->env->mmu.ctx, leaf, subleaf, out);

    if (r == X86_ENV_OK)
        x86_cpuid_fill(cpu, leaf, subleaf, out);
    return r;
}

const struct x86_op *x86_sys_cpuid(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint32_t out[4] = {0};

    if (cpu->cpl && (cpu->misc_features & CPUID_FAULTING))
        return x86_fault_err(cpu, op, X86_GP, 0);
    x86_serialize();
    cpu->cur_idx = op->idx;
    if (!x86_env_result(cpu, x86_cpuid(cpu, X86_R32(cpu, VMM_RAX), X86_R32(cpu, VMM_RCX), out)))
        return x86_leave(cpu, op);
    cpu->gpr[VMM_RAX] = out[0];
    cpu->gpr[VMM_RBX] = out[1];
    cpu->gpr[VMM_RCX] = out[2];
    cpu->gpr[VMM_RDX] = out[3];
    return op + 1;
}

/* ---- features ---- */

static const struct vmm_cpuid none;

static const struct vmm_cpuid *find(const struct vmm_cpuid *entries, unsigned n, uint32_t leaf,
                                    uint32_t subleaf)
{
    for (unsigned i = 0; i < n; i++)
        if (entries[i].leaf == leaf &&
            (entries[i].subleaf == subleaf || !(entries[i].flags & VMM_CPUID_SUBLEAF)))
            return &entries[i];
    return &none;
}

static unsigned clamp(unsigned value, unsigned lo, unsigned hi)
{
    return value < lo ? lo : value > hi ? hi : value;
}

void x86_cpuid_changed(struct x86_cpu *cpu, const struct vmm_cpuid *entries, unsigned n)
{
    const struct vmm_cpuid *l1 = find(entries, n, 1, 0), *l7 = find(entries, n, 7, 0);
    const struct vmm_cpuid *x1 = find(entries, n, 0x80000001, 0);
    const struct vmm_cpuid *x8 = find(entries, n, 0x80000008, 0);
    const struct vmm_cpuid *d0 = find(entries, n, 0xd, 0);

    cpu->feat.l1_ecx = l1->ecx;
    cpu->feat.l1_edx = l1->edx;
    cpu->feat.l7_ebx = l7->ebx;
    cpu->feat.l7_ecx = l7->ecx;
    cpu->feat.l7_edx = l7->edx;
    cpu->feat.l7_1_eax = find(entries, n, 7, 1)->eax;
    cpu->feat.x1_ecx = x1->ecx;
    cpu->feat.x1_edx = x1->edx;
    cpu->feat.xsave_eax = find(entries, n, 0xd, 1)->eax;
    cpu->feat.xcr0_mask = X86_XCR0_X87 | X86_XCR0_SSE;
    if (l1->ecx & X86_F1_ECX_XSAVE)
        cpu->feat.xcr0_mask |= ((uint64_t)d0->edx << 32 | d0->eax) & X86_XCR0_ALL;
    /* Without leaf 80000008H: 36 bits with PAE, else 32 (SDM Vol. 3A 4.1.4). */
    cpu->feat.gpa_bits = x8->eax ? clamp(x8->eax & 0xff, 32, 52)
                                 : (l1->edx & (X86_F1_EDX_PAE | 1u << 17) ? 36u : 32u);
    cpu->feat.linear_bits = 48;
    /* Reserved bits of page table entries, and which instructions there are, depend on it. */
    x86_mode_changed(cpu);
    x86_known_clear(cpu->known);
    x86_flush_tlb(cpu);
    x86_cache_flush(cpu);
}
