/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/cr.c: MOV to and from control registers, and INVLPG, where they change neither the
 * mode nor what it allows; all else is the software CPU's. */
#include "backends/vmx/fetch.h"
#include "backends/vmx/simple.h"
#include "core/x86/control.h"
#include "core/x86/exec.h"
#include "vmx/decode.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define CR4_VMXE 0x2000u

/* Bits that only say what is an exception, which the CPU itself looks at. */
#define CR0_PLAIN (X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_NE | X86_CR0_AM)
#define CR4_PLAIN                                                                                  \
    (X86_CR4_TSD | X86_CR4_DE | X86_CR4_MCE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |  \
     X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_OSXSAVE)

/* Registers are as the exit has left them, in the VMCS, and those are the guest's own. */
static bool untouched(const struct vmx_vcpu *v)
{
    return !(v->valid & ~(uint32_t)VMX_G_RIP) && !v->mmu.vm86 && !v->mmu.flat;
}

/* What soft.cpu derives from these registers, it derives when it pulls the others (state.c). */
static int to_cr0(struct vmx_vcpu *v, uint64_t value)
{
    struct x86_cpu *cpu = v->soft.cpu;

    value |= X86_CR0_ET;
    if ((value ^ cpu->cr0) & ~(uint64_t)CR0_PLAIN)
        return VMX_INJECT_SOFT;
    cpu->cr0 = value;
    vmx_insn_put(VMX_CR0_SHADOW, value);
    if (vmx_has_ept())
        vmx_insn_put(VMX_GUEST_CR0, value | X86_CR0_NE);
    else
        vmx_shadow_push(v);
    return vmx_next(v);
}

/* Behind an instruction that has flushed the software CPU's TLB since `flush_gen`, on shadow page
 * tables: if there is more to do for it than that, the next turn loads them anew. */
static int flushed(struct vmx_vcpu *v, uint64_t flush_gen)
{
    if (vmx_shadow_loaded(v, flush_gen))
        return vmx_next(v);
    vmx_skip(v);
    return VMX_GO_ON;
}

/* CR4.PGE empties the TLB. */
static int to_cr4(struct vmx_vcpu *v, uint64_t value)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t changed = value ^ cpu->cr4, set = value & changed, flush_gen = cpu->mmu.flush_gen;

    if ((changed & ~(uint64_t)(CR4_PLAIN | X86_CR4_PGE)) || (set & ~vmx_machine.caps.cr4_fixed1) ||
        (set && (set & ~x86_cr4_allowed(cpu))))
        return VMX_INJECT_SOFT;
    cpu->cr4 = value;
    vmx_insn_put(VMX_CR4_SHADOW, value);
    if (vmx_has_ept())
        vmx_insn_put(VMX_GUEST_CR4, value | CR4_VMXE);
    else
        vmx_shadow_push(v);
    if ((changed & X86_CR4_PGE) && !vmx_has_ept()) {
        x86_flush_tlb(cpu);
        return flushed(v, flush_gen);
    }
    if (changed & X86_CR4_PGE)
        vmx_tlb_due(&v->tlb);
    return vmx_next(v);
}

/* It exits on shadow page tables only. */
static int to_cr3(struct vmx_vcpu *v, uint64_t value)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t flush_gen = cpu->mmu.flush_gen;

    if (vmx_has_ept())
        return VMX_INJECT_SOFT;
    if (x86_set_cr3(cpu, value))
        return flushed(v, flush_gen);
    cpu->rep_serial++; /* an exception waits */
    return VMX_GO_ON;
}

static int from_cr3(struct vmx_vcpu *v, unsigned gpr)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (vmx_has_ept())
        return VMX_INJECT_SOFT;
    cpu->gpr[gpr] = cpu->cr3;
    return vmx_next(v);
}

static int move(struct vmx_vcpu *v, const struct vmx_cr_access *a)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    /* 64-bit code, whose registers are as wide; RSP is in the VMCS. */
    if (a->gpr == VMM_RSP || !(cpu->efer & X86_EFER_LMA) || !untouched(v) ||
        !(vmx_insn_get(VMX_GUEST_CS_AR) & VMM_AR_L) ||
        !vmx_simple(v, (uint32_t)vmx_insn_get(VMX_EXIT_INSN_LEN)))
        return VMX_INJECT_SOFT;
    if (a->kind == VMX_CR_READ)
        return a->cr == 3 ? from_cr3(v, a->gpr) : VMX_INJECT_SOFT;
    switch (a->cr) {
    case 0:
        return to_cr0(v, cpu->gpr[a->gpr]);
    case 3:
        return to_cr3(v, cpu->gpr[a->gpr]);
    case 4:
        return to_cr4(v, cpu->gpr[a->gpr]);
    default:
        return VMX_INJECT_SOFT;
    }
}

int vmx_on_control_register(struct vmx_vcpu *v)
{
    struct vmx_cr_access a = vmx_cr_access(vmx_insn_get(VMX_EXIT_QUALIFICATION));
    int r = VMX_INJECT_SOFT;

    if (a.cr == 8)
        vmx_apic_used(v);
    else if (a.kind == VMX_CR_READ || a.kind == VMX_CR_WRITE)
        r = move(v, &a);
    return r == VMX_INJECT_SOFT ? vmx_soft_one(v, false) : r;
}

/* On shadow page tables only. The tables of one page follow, not the whole space. */
int vmx_on_invlpg(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t linear = vmx_insn_get(VMX_EXIT_QUALIFICATION), flush_gen = cpu->mmu.flush_gen;
    int r = VMX_GO_ON;

    if (vmx_has_ept() || !untouched(v) ||
        !vmx_simple(v, (uint32_t)vmx_insn_get(VMX_EXIT_INSN_LEN))) {
        r = vmx_soft_one(v, false);
    } else {
        if (!mmu_canonical(&cpu->mmu, linear))
            return vmx_next(v);
        x86_flush_tlb_page(cpu, linear);
        if (vmx_shadow_invlpg_holds(v, linear, flush_gen))
            return vmx_next(v);
        vmx_session_end(v); /* what is dropped may be given back to the host */
        vmx_skip(v);
    }
    vmx_mmu_invlpg(v, linear, flush_gen);
    return r;
}
