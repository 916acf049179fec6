/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/state.c: moves the vCPU's registers between the software CPU and the VMCS. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "freestanding/host.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define CR4_VMXE 0x2000u

/* What the guest changes in CR0 without an exit. */
#define CR0_OWNED (uint64_t) X86_CR0_TS

/* Exceptions that exit. */
#define EXCEPTIONS (1u << X86_DB | 1u << X86_UD | 1u << X86_MC)

#define put vmx_insn_put
#define get vmx_insn_read

/* ---- once: controls ---- */

void vmx_state_init(struct vmx_vcpu *v)
{
    const struct vmx_vm *vv = vmx_vm_of(v);

    v->pin = vmx_controls.value[VMX_GROUP_PIN];
    v->proc = vmx_controls.value[VMX_GROUP_PROC] & ~(uint32_t)VMX_PROC_MONITOR_TRAP_FLAG;
    v->proc2 = vmx_controls.value[VMX_GROUP_PROC2];
    v->entry = vmx_controls.value[VMX_GROUP_ENTRY];
    if (!v->tlb.vpid)
        v->proc2 &= ~(uint32_t)VMX_PROC2_VPID;
    vmx_tsc_controls(v);
    vmx_apic_controls(v);
    vmx_pml_controls(v);
    put(VMX_PIN_CTLS, v->pin);
    put(VMX_PROC_CTLS, v->proc);
    put(VMX_PROC2_CTLS, v->proc2);
    put(VMX_EXIT_CTLS, vmx_controls.value[VMX_GROUP_EXIT]);
    put(VMX_ENTRY_CTLS, v->entry);
    put(VMX_PF_ERROR_MASK, 0);
    put(VMX_PF_ERROR_MATCH, 0);
    put(VMX_CR3_TARGET_COUNT, 0);
    vmx_area_attach(&v->area);
    put(VMX_ENTRY_INTR_INFO, 0);
    if (vmx_io_bits) {
        put(VMX_IO_BITMAP_A, vmm_host->virt_to_phys(vmm_host->ctx, vmx_io_bits));
        put(VMX_IO_BITMAP_B, vmm_host->virt_to_phys(vmm_host->ctx, vmx_io_bits));
    }
    put(VMX_MSR_BITMAP, vmm_host->virt_to_phys(vmm_host->ctx, v->msr_bits));
    if (vmx_has_ept())
        put(VMX_EPTP, ept_eptp(&vv->mmu.ept));
    put(VMX_LINK_POINTER, UINT64_MAX);
    put(VMX_HOST_RIP, (uintptr_t)vmx_exited);
    v->host_rsp = 0;
    if (v->pin & VMX_PIN_PREEMPTION_TIMER)
        put(VMX_PREEMPTION_TIMER, UINT32_MAX);
    put(VMX_GUEST_DEBUGCTL, 0);
    put(VMX_GUEST_DR7, X86_DR7_FIXED);
    put(VMX_GUEST_ACTIVITY, 0);
    put(VMX_GUEST_PENDING_DEBUG, 0);
    if (v->tlb.vpid)
        put(VMX_VPID, v->tlb.vpid);
    if (v->proc2 & VMX_PROC2_XSAVES)
        put(VMX_XSS_EXIT_BITMAP, UINT64_MAX);
    put(VMX_CR0_MASK, ~CR0_OWNED);
    put(VMX_CR4_MASK, UINT64_MAX);
    v->ready = true;
}

/* ---- to the VMCS ---- */

static void push_segs(const struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    for (unsigned i = 0; i < VMM_NSEG; i++) {
        const struct vmm_segment *s = &cpu->seg[i];
        uint32_t ar = s->ar;

        if (i == VMM_SS && !(cpu->rflags & X86_VM))
            ar = (ar & ~VMM_AR_DPL) | (uint32_t)cpu->cpl << VMM_AR_DPL_SHIFT;
        put(VMX_SEG(VMX_GUEST_ES_SEL, i), s->selector);
        put(VMX_SEG(VMX_GUEST_ES_BASE, i), s->base);
        put(VMX_SEG(VMX_GUEST_ES_LIMIT, i), s->limit);
        put(VMX_SEG(VMX_GUEST_ES_AR, i), ar);
    }
    if (v->mmu.vm86)
        vmx_vm86_push_segs(cpu);
}

static bool has_pdptes(const struct x86_cpu *cpu)
{
    return (cpu->cr0 & X86_CR0_PG) && (cpu->cr4 & X86_CR4_PAE) && !(cpu->efer & X86_EFER_LMA);
}

static void push_paging(const struct x86_cpu *cpu)
{
    put(VMX_GUEST_CR0, cpu->cr0 | X86_CR0_NE);
    put(VMX_GUEST_CR3, cpu->cr3);
    put(VMX_GUEST_CR4, cpu->cr4 | CR4_VMXE);
    for (unsigned i = 0; i < 4 && has_pdptes(cpu); i++)
        put(VMX_GUEST_PDPTE0 + 2 * i, cpu->mmu.pdpte[i]);
}

/* With EPT the guest's loads of CR3 are the hardware's, unless CR3 is not the guest's. */
static void exit_for_cr3(struct vmx_vcpu *v)
{
    const uint32_t mask = VMX_PROC_CR3_LOAD | VMX_PROC_CR3_STORE;
    uint32_t proc = v->proc & ~mask;

    if (v->mmu.flat || (vmx_controls.value[VMX_GROUP_PROC] & mask))
        proc |= mask;
    if (proc == v->proc)
        return;
    v->proc = proc;
    put(VMX_PROC_CTLS, proc);
}

static void push_control(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint32_t entry = v->entry & ~(uint32_t)VMX_ENTRY_GUEST_64;

    put(VMX_EXCEPTION_BITMAP, v->mmu.vm86                     ? UINT32_MAX
                              : vmx_has_ept() && !v->mmu.flat ? EXCEPTIONS
                                                              : EXCEPTIONS | 1u << VMX_VECTOR_PF);
    put(VMX_CR0_SHADOW, cpu->cr0);
    put(VMX_CR4_SHADOW, cpu->cr4);
    if (!vmx_has_ept())
        vmx_shadow_push(v);
    else if (v->mmu.flat)
        vmx_identity_push(v);
    else
        push_paging(cpu);
    if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_EFER))
        put(VMX_GUEST_EFER, vmx_guest_efer(v));
    else
        vmx_area_efer(v);
    exit_for_cr3(v);
    if (cpu->efer & X86_EFER_LMA)
        entry |= VMX_ENTRY_GUEST_64;
    if (entry == v->entry)
        return;
    v->entry = entry;
    put(VMX_ENTRY_CTLS, entry);
}

static void push_rest(struct vmx_vcpu *v, uint32_t groups)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    if (groups & VMX_G_SEGS)
        push_segs(v);
    if (groups & VMX_G_TABLES) {
        put(VMX_GUEST_GDTR_BASE, cpu->gdt.base);
        put(VMX_GUEST_GDTR_LIMIT, cpu->gdt.limit);
        put(VMX_GUEST_IDTR_BASE, cpu->idt.base);
        put(VMX_GUEST_IDTR_LIMIT, cpu->idt.limit);
    }
    if (groups & VMX_G_CONTROL)
        push_control(v);
    if (groups & VMX_G_MSRS) {
        if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_PAT))
            put(VMX_GUEST_PAT, vmx_has_ept() ? cpu->pat : VMX_SHADOW_PAT);
        else
            vmx_area_pat(v);
        put(VMX_GUEST_SYSENTER_CS, v->mmu.vm86 ? 0 : cpu->sysenter_cs);
        put(VMX_GUEST_SYSENTER_ESP, cpu->sysenter_esp);
        put(VMX_GUEST_SYSENTER_EIP, cpu->sysenter_eip);
    }
}

void vmx_push_groups(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint32_t groups = v->newer;

    v->newer = 0;
    if (groups & VMX_G_RIP)
        put(VMX_GUEST_RIP, cpu->rip);
    if (groups & VMX_G_RSP)
        put(VMX_GUEST_RSP, cpu->gpr[VMM_RSP]);
    if (groups & VMX_G_FLAGS) {
        put(VMX_GUEST_RFLAGS, vmx_vm86_flags_in(v, x86_get_rflags(cpu)));
        /* SDM Vol. 3C 26.3.1.5: a single step that waits behind STI or MOV SS. */
        put(VMX_GUEST_PENDING_DEBUG, (cpu->rflags & X86_TF) && cpu->shadow ? X86_DR6_BS : 0);
    }
    if (groups & VMX_G_BLOCKING) {
        v->may_block_nmi = cpu->nmi_blocked;
        put(VMX_GUEST_INTERRUPTIBILITY,
            (uint32_t)x86_shadow(cpu) | (cpu->nmi_blocked ? VMX_BLOCK_NMI : 0));
    }
    if (groups & ~(uint32_t)(VMX_G_REGS | VMX_G_FPU))
        push_rest(v, groups);
}

/* ---- from the VMCS ---- */

static void pull_segs(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (v->mmu.vm86) {
        vmx_vm86_pull_segs(cpu);
        return;
    }
    for (unsigned i = 0; i < VMM_NSEG; i++) {
        struct vmm_segment *s = &cpu->seg[i];

        s->selector = (uint16_t)get(VMX_SEG(VMX_GUEST_ES_SEL, i));
        s->base = get(VMX_SEG(VMX_GUEST_ES_BASE, i));
        s->limit = (uint32_t)get(VMX_SEG(VMX_GUEST_ES_LIMIT, i));
        s->ar = (uint32_t)get(VMX_SEG(VMX_GUEST_ES_AR, i));
    }
    cpu->cpl = (uint8_t)((cpu->seg[VMM_SS].ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT);
}

static void pull_control(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    cpu->cr0 = (cpu->cr0 & ~CR0_OWNED) | (get(VMX_GUEST_CR0) & CR0_OWNED);
    if (vmx_has_ept() && !v->mmu.flat) /* else loads of CR3 exit */
        cpu->cr3 = get(VMX_GUEST_CR3);
}

/* Virtual-NMI blocking comes with an entry, by its state or by an injection: an emulator that keeps
 * it from an earlier guest is not believed. */
static inline void take_blocking(struct vmx_vcpu *v, uint64_t blocking)
{
    struct x86_cpu *cpu = v->soft.cpu;

    v->may_block_nmi = v->may_block_nmi && (blocking & VMX_BLOCK_NMI);
    cpu->sti_passed = false;
    cpu->shadow = blocking & (VMX_BLOCK_STI | VMX_BLOCK_MOV_SS);
    cpu->nmi_blocked = v->may_block_nmi;
}

static void pull_regs(struct vmx_vcpu *v, uint32_t groups)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (groups & VMX_G_RIP)
        cpu->rip = get(VMX_GUEST_RIP);
    if (groups & VMX_G_RSP)
        cpu->gpr[VMM_RSP] = get(VMX_GUEST_RSP);
    if (groups & VMX_G_FLAGS)
        x86_set_rflags(cpu, vmx_vm86_flags_out(v, get(VMX_GUEST_RFLAGS)));
    if (groups & VMX_G_BLOCKING)
        take_blocking(v, get(VMX_GUEST_INTERRUPTIBILITY));
}

static void pull_tables(struct x86_cpu *cpu)
{
    cpu->gdt.base = get(VMX_GUEST_GDTR_BASE);
    cpu->gdt.limit = (uint16_t)get(VMX_GUEST_GDTR_LIMIT);
    cpu->idt.base = get(VMX_GUEST_IDTR_BASE);
    cpu->idt.limit = (uint16_t)get(VMX_GUEST_IDTR_LIMIT);
}

/* With the VMCS current. */
static void pull_current(struct vmx_vcpu *v, uint32_t groups)
{
    const uint32_t mode = VMX_G_FLAGS | VMX_G_SEGS | VMX_G_CONTROL;
    struct x86_cpu *cpu = v->soft.cpu;

    if (!(groups & ~(uint32_t)VMX_G_REGS)) {
        pull_regs(v, groups);
        v->valid |= groups;
        return;
    }
    /* What is derived from these needs them all. */
    if (groups & (VMX_G_SEGS | VMX_G_CONTROL))
        groups |= mode & ~v->valid;
    pull_regs(v, groups);
    if (groups & VMX_G_SEGS)
        pull_segs(v);
    if (groups & VMX_G_TABLES)
        pull_tables(cpu);
    if (groups & VMX_G_CONTROL)
        pull_control(v);
    v->valid |= groups;
    if ((groups & mode) && (v->valid & mode) == mode) {
        x86_mode_changed(cpu);
        for (unsigned i = 0; i < 4 && (groups & VMX_G_CONTROL) && has_pdptes(cpu) && vmx_has_ept();
             i++)
            cpu->mmu.pdpte[i] = get(VMX_GUEST_PDPTE0 + 2 * i);
    }
}

void vmx_pull_groups(struct vmx_vcpu *v, uint32_t groups)
{
    if ((groups & VMX_G_FPU) && !v->in_session) {
        x86_set_xsave(v->soft.cpu, v->xsave, X86_XSAVE_MAX);
        v->valid |= VMX_G_FPU;
        groups &= ~VMX_G_FPU;
    }
    if (!(groups &= VMX_G_VMCS))
        return;
    if (v->in_session) {
        pull_current(v, groups);
        return;
    }
    vmm_host->preempt_off(vmm_host->ctx);
    if (vmx_vmcs_load(&vmx_machine, &v->vmcs))
        pull_current(v, groups);
    vmm_host->preempt_on(vmm_host->ctx);
}
