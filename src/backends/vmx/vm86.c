/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/vm86.c: real mode on CPUs without unrestricted guest, by virtual-8086 mode.
 *
 * With IOPL 0 and CR4.VME clear, whatever is different in virtual-8086 mode faults there: the
 * instructions that depend on IOPL or CPL, ports (the TSS has no permission bitmap), SYSENTER
 * (its CS is 0). All exceptions exit, and the software CPU does those instructions, and a few after
 * them, by the rules of real mode; it also delivers all events. What is the same runs on tables
 * that map all at itself: shadow tables, or with EPT those below. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
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

/* ---- with EPT: identity tables ---- */

#define PAGE     4096ull
#define CR4_VMXE 0x2000u
#define PDE      0xe7u /* present, writable, user, accessed, dirty, 2 MiB */
#define PDPTE    1u

int vmx_identity_init(struct vmx_mmu *m)
{
    for (unsigned i = 0; i < 4; i++) {
        m->identity[i] = vmx_pages.alloc(NULL, false);
        if (!m->identity[i])
            return VMM_E_NOMEM;
        for (uint64_t n = 0; n < 512; n++)
            m->identity[i][n] = ((uint64_t)i << 30 | n << 21) | PDE;
    }
    return VMM_OK;
}

void vmx_identity_fini(struct vmx_mmu *m)
{
    for (unsigned i = 0; i < 4; i++)
        if (m->identity[i])
            vmx_pages.free(NULL, m->identity[i]);
}

/* The last pages that the CPU can address: the PDPTEs, which are in the VMCS, need not lead below 4
 * GiB. */
static uint64_t table_gpa(unsigned i)
{
    return (1ull << (vmx_phys_bits < 48 ? vmx_phys_bits : 48)) - (4 - i) * PAGE;
}

/* The guest's memory may be there, too. */
static bool room(struct vm *vm)
{
    struct core_page page;

    for (unsigned i = 0; i < 4; i++)
        if (core_mem_page(vm, table_gpa(i), &page))
            return false;
    return true;
}

static void flatten(struct vmx_vcpu *v, bool on)
{
    if (v->mmu.flat == on)
        return;
    vmx_pull(v, VMX_G_CONTROL);
    v->mmu.flat = on;
    vmx_changed(v, VMX_G_CONTROL);
}

bool vmx_restricted_ready(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    bool flat = !(cpu->cr0 & X86_CR0_PG);

    if ((flat && !room(v->vcpu->vm)) || !vmx_vm86_ready(v))
        return false;
    if ((cpu->cr0 & X86_CR0_PE) && !vmx_segments_ok(v))
        return false;
    flatten(v, flat);
    return true;
}

void vmx_identity_push(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint64_t cr4 = cpu->cr4 & ~(uint64_t)(X86_CR4_SMEP | X86_CR4_SMAP);

    if (v->mmu.vm86)
        cr4 &= ~(uint64_t)(X86_CR4_VME | X86_CR4_PVI);
    vmx_insn_put(VMX_GUEST_CR0, cpu->cr0 | X86_CR0_PE | X86_CR0_PG | X86_CR0_NE);
    vmx_insn_put(VMX_GUEST_CR3, 0);
    vmx_insn_put(VMX_GUEST_CR4, cr4 | X86_CR4_PAE | CR4_VMXE);
    for (unsigned i = 0; i < 4; i++)
        vmx_insn_put(VMX_GUEST_PDPTE0 + 2 * i, table_gpa(i) | PDPTE);
}

/* Writable, as walks with accessed and dirty bits of EPT are writes. What the guest writes there
 * leads it to its own memory only. */
bool vmx_identity_violation(struct vmx_vcpu *v, uint64_t gpa)
{
    struct vmx_mmu *m = &vmx_vm_of(v)->mmu;
    uint64_t n = (gpa - table_gpa(0)) / PAGE, hpa;
    int err;

    if (!v->mmu.flat || gpa < table_gpa(0) || n > 3)
        return false;
    vmx_session_end(v); /* locks and allocations may wait */
    hpa = vmm_host->virt_to_phys(vmm_host->ctx, m->identity[n]);
    os_mutex_lock(&m->lock);
    err = ept_map(&m->ept, table_gpa((unsigned)n), hpa, PAGE, EPT_R | EPT_W);
    os_mutex_unlock(&m->lock);
    return !err;
}
