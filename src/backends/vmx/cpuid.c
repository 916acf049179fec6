/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/cpuid.c: what guests are offered: what the library models and this CPU has, too. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "vmx/insn.h"

enum { EAX, EBX, ECX, EDX };

#define F1_ECX_X2APIC       (1u << 21)
#define F1_ECX_TSC_DEADLINE (1u << 24)
#define F1_ECX_HYPERVISOR   (1u << 31)
#define F1_EDX_HTT          (1u << 28)
#define F7_EDX_FSRM         (1u << 4)
#define F7_EBX_ERMS         (1u << 9)

/* Registers of features, which the hardware executes; `own` bits are the library's. */
static const struct {
    uint32_t leaf, subleaf;
    unsigned reg;
    uint32_t own;
} registers[] = {
    {1, 0, ECX, F1_ECX_X2APIC | F1_ECX_TSC_DEADLINE | F1_ECX_HYPERVISOR},
    {1, 0, EDX, X86_F1_EDX_APIC | X86_F1_EDX_MCE | X86_F1_EDX_MCA | X86_F1_EDX_MTRR | F1_EDX_HTT},
    {7, 0, EBX, X86_F7_EBX_TSC_ADJUST | F7_EBX_ERMS},
    {7, 0, ECX, 0},
    {7, 0, EDX, X86_F7_EDX_ARCH_CAP | F7_EDX_FSRM},
    {7, 1, EAX, 0},
    {0xd, 0, EAX, 3},
    {0xd, 1, EAX, 0},
    {0x80000001, 0, ECX, 0},
    {0x80000001, 0, EDX, 0},
};

/* Features that the guest has only with a control of VMX. */
static const struct {
    uint32_t leaf;
    unsigned reg;
    uint32_t bits;
    uint32_t control; /* secondary */
} controlled[] = {
    {7, EBX, X86_F7_EBX_INVPCID, VMX_PROC2_INVPCID},
    {7, ECX, X86_F7_ECX_RDPID, VMX_PROC2_RDTSCP},
    {0xd, EAX, X86_FD1_XSAVES, VMX_PROC2_XSAVES},
    {0x80000001, EDX, X86_FX1_EDX_RDTSCP, VMX_PROC2_RDTSCP},
};

static uint32_t *reg_of(struct vmm_cpuid *e, unsigned reg)
{
    return reg == EAX ? &e->eax : reg == EBX ? &e->ebx : reg == ECX ? &e->ecx : &e->edx;
}

static uint32_t host_reg(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t id[4];

    vmx_insn_cpuid(leaf & 0x80000000u, id);
    if (id[EAX] < leaf)
        return 0;
    vmx_insn_cpuid_sub(leaf, subleaf, id);
    return id[reg];
}

static void limit(struct vmm_cpuid *e)
{
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++)
        if (registers[i].leaf == e->leaf && registers[i].subleaf == e->subleaf)
            *reg_of(e, registers[i].reg) &=
                registers[i].own | host_reg(e->leaf, e->subleaf, registers[i].reg);
    for (unsigned i = 0; i < sizeof(controlled) / sizeof(controlled[0]); i++)
        if (controlled[i].leaf == e->leaf && (e->leaf != 0xd || e->subleaf == 1) &&
            !vmx_uses(VMX_GROUP_PROC2, controlled[i].control))
            *reg_of(e, controlled[i].reg) &= ~controlled[i].bits;
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
