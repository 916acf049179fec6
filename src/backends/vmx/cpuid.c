/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/cpuid.c: what guests are offered: what the library models and this CPU has, too. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "core/x86/cpuid_limit.h"
#include "core/x86/xstate.h"
#include "vmx/insn.h"

/* Features that the guest has only with a control of VMX. */
static const struct {
    uint32_t leaf;
    unsigned reg;
    uint32_t bits;
    uint32_t control; /* secondary */
} controlled[] = {
    {7, X86_CPUID_EBX, X86_F7_EBX_INVPCID, VMX_PROC2_INVPCID},
    {7, X86_CPUID_ECX, X86_F7_ECX_RDPID, VMX_PROC2_RDTSCP},
    {0xd, X86_CPUID_EAX, X86_FD1_XSAVES, VMX_PROC2_XSAVES},
    {0x80000001, X86_CPUID_EDX, X86_FX1_EDX_RDTSCP, VMX_PROC2_RDTSCP},
};

/* What the hardware executes, and what the library does for it. */
static uint32_t allowed(const void *ctx, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t id[4], own = 0;

    (void)ctx;
    if (leaf == 0x80000007) /* the host's counters are constant (vmm/host.h) */
        return UINT32_MAX;
    if (leaf == 7 && !subleaf && reg == X86_CPUID_EBX)
        own = X86_F7_EBX_ERMS;
    if (leaf == 7 && !subleaf && reg == X86_CPUID_EDX)
        own = X86_F7_EDX_ARCH_CAP | X86_F7_EDX_FSRM;
    if (leaf == 0xd && !subleaf && reg == X86_CPUID_EAX)
        own = X86_XCR0_X87 | X86_XCR0_SSE;
    vmx_insn_cpuid(leaf & 0x80000000u, id);
    if (id[X86_CPUID_EAX] < leaf)
        return own;
    vmx_insn_cpuid_sub(leaf, subleaf, id);
    return id[reg] | own;
}

static void limit(struct vmm_cpuid *e)
{
    x86_cpuid_limit(e, allowed, NULL);
    for (unsigned i = 0; i < sizeof(controlled) / sizeof(controlled[0]); i++)
        if (controlled[i].leaf == e->leaf && (e->leaf != 0xd || e->subleaf == 1) &&
            !vmx_uses(VMX_GROUP_PROC2, controlled[i].control))
            *x86_cpuid_reg(e, controlled[i].reg) &= ~controlled[i].bits;
    /* The hardware takes PKRU from the guest without an exit; shadow tables would not know. */
    if (e->leaf == 7 && !e->subleaf && !vmx_has_ept())
        e->ecx &= ~X86_F7_ECX_PKU;
    if (e->leaf == 0xd && !e->subleaf && !vmx_has_ept())
        e->eax &= ~X86_XCR0_PKRU;
    if (e->leaf == 0x80000008)
        e->eax = (e->eax & ~0xffu) | vmx_gpa_bits(e->eax & 0xff);
}

unsigned vmx_gpa_bits(unsigned bits)
{
    /* The hardware walks the guest's tables with its own width. */
    return vmx_has_ept() && vmx_phys_bits < bits ? vmx_phys_bits : bits;
}

int vmx_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    uint32_t room = *n;
    int err = interp_default_cpuid(vm, entries, n);

    for (uint32_t i = 0; i < *n && i < room; i++)
        limit(&entries[i]);
    return err;
}
