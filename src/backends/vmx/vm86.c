/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/vm86.c: real mode on CPUs without unrestricted guest, by virtual-8086 mode.
 *
 * With IOPL 0 and CR4.VME clear, whatever is different in virtual-8086 mode faults there: the
 * instructions that depend on IOPL or CPL, ports (the TSS has no permission bitmap), SYSENTER
 * (its CS is 0). All exceptions exit, and the software CPU does those instructions, and a few after
 * them, by the rules of real mode; it also delivers all events. What is the same runs on the
 * identity tables of an unpaged guest. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "vmx/insn.h"

#define AR_VM86 0xf3u /* what an entry demands of all segments */
#define AR_TSS  0x8bu
#define AR_CODE 0x9bu /* as real mode leaves them */
#define AR_DATA 0x93u

/* Whether the segments are as a load in real mode makes them: not so after a return from protected
 * mode with others ("unreal" mode). */
static bool segments_fit(const struct x86_cpu *cpu)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++) {
        const struct vmm_segment *s = &cpu->seg[i];

        if (s->base != (uint64_t)s->selector << 4 || s->limit != 0xffff ||
            (s->ar != AR_DATA && (i != VMM_CS || s->ar != AR_CODE)))
            return false;
    }
    return true;
}

/* The guest's CR0.PE has changed: the VMCS gets another form of it all. */
static void change(struct vmx_vcpu *v, bool on)
{
    if (v->mmu.vm86 == on)
        return;
    vmx_pull(v, VMX_G_VMCS);
    v->mmu.vm86 = on;
    vmx_changed(v, VMX_G_VMCS);
}

bool vmx_vm86_ready(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    if (cpu->cr0 & X86_CR0_PE) {
        change(v, false);
        return true;
    }
    if (v->mmu.linger) {
        v->mmu.linger = false;
        return false;
    }
    if ((v->valid & VMX_G_SEGS) && !segments_fit(cpu))
        return false;
    change(v, true);
    return true;
}

void vmx_vm86_push_segs(const struct x86_cpu *cpu)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        vmx_insn_put(VMX_SEG(VMX_GUEST_ES_AR, i), AR_VM86);
    vmx_insn_put(VMX_SEG(VMX_GUEST_ES_SEL, VMM_TR), cpu->seg[VMM_TR].selector & ~4u);
    vmx_insn_put(VMX_SEG(VMX_GUEST_ES_LIMIT, VMM_TR), 0); /* nor a bitmap of ports */
    vmx_insn_put(VMX_SEG(VMX_GUEST_ES_AR, VMM_TR), AR_TSS);
}

void vmx_vm86_pull_segs(struct x86_cpu *cpu)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++) {
        cpu->seg[i].selector = (uint16_t)vmx_insn_read(VMX_SEG(VMX_GUEST_ES_SEL, i));
        cpu->seg[i].base = vmx_insn_read(VMX_SEG(VMX_GUEST_ES_BASE, i));
    }
    cpu->cpl = 0;
}

uint64_t vmx_vm86_flags_in(const struct vmx_vcpu *v, uint64_t rflags)
{
    return v->mmu.vm86 ? (rflags & ~(uint64_t)X86_IOPL) | X86_VM : rflags;
}

uint64_t vmx_vm86_flags_out(const struct vmx_vcpu *v, uint64_t rflags)
{
    const uint64_t mask = X86_IOPL | X86_VM;

    return v->mmu.vm86 ? (rflags & ~mask) | (v->soft.cpu->rflags & X86_IOPL) : rflags;
}
