/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/state.c: moves the vCPU's registers between the software CPU and the VMCS. */
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define CR0_NE   0x20u
#define CR4_VMXE 0x2000u
#define MSR_EFER 0xc0000080u
#define MSR_PAT  0x277u

static void put(uint32_t field, uint64_t value)
{
    vmx_insn_write(field, value);
}

static uint64_t get(uint32_t field)
{
    return vmx_insn_read(field);
}

/* ---- once: controls and what of the host does not change ---- */

struct table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static uint64_t tr_base(uint64_t gdt, uint16_t tr)
{
    const uint8_t *d = (const uint8_t *)(gdt + (tr & 0xfff8));
    uint32_t low, high;
    uint64_t top;

    memcpy(&low, d, 4);
    memcpy(&high, d + 4, 4);
    memcpy(&top, d + 8, 4);
    return (low >> 16) | (high & 0xff) << 16 | (high & 0xff000000) | (uint64_t)(uint32_t)top << 32;
}

static uint64_t msr(uint32_t index)
{
    uint64_t value = 0;

    vmm_host->rdmsr(vmm_host->ctx, index, &value);
    return value;
}

/* Of the CPU that the entry is on: each has its own tables. */
static void put_host(void)
{
    struct table gdt, idt;
    uint16_t sel[7];
    uint64_t cr3;

    __asm__ volatile("sgdt %0" : "=m"(gdt));
    __asm__ volatile("sidt %0" : "=m"(idt));
    __asm__ volatile("mov %%es, %0" : "=r"(sel[0]));
    __asm__ volatile("mov %%cs, %0" : "=r"(sel[1]));
    __asm__ volatile("mov %%ss, %0" : "=r"(sel[2]));
    __asm__ volatile("mov %%ds, %0" : "=r"(sel[3]));
    __asm__ volatile("mov %%fs, %0" : "=r"(sel[4]));
    __asm__ volatile("mov %%gs, %0" : "=r"(sel[5]));
    __asm__ volatile("str %0" : "=r"(sel[6]));
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    for (unsigned i = 0; i < 7; i++)
        put(VMX_HOST_ES_SEL + 2 * i, sel[i] & 0xfff8);
    put(VMX_HOST_CR0, vmx_insn_get_cr0());
    put(VMX_HOST_CR3, cr3);
    put(VMX_HOST_CR4, vmx_insn_get_cr4());
    put(VMX_HOST_FS_BASE, msr(0xc0000100));
    put(VMX_HOST_GS_BASE, msr(0xc0000101));
    put(VMX_HOST_TR_BASE, tr_base(gdt.base, sel[6]));
    put(VMX_HOST_GDTR_BASE, gdt.base);
    put(VMX_HOST_IDTR_BASE, idt.base);
    put(VMX_HOST_SYSENTER_CS, msr(0x174));
    put(VMX_HOST_SYSENTER_ESP, msr(0x175));
    put(VMX_HOST_SYSENTER_EIP, msr(0x176));
    put(VMX_HOST_EFER, msr(MSR_EFER));
    put(VMX_HOST_PAT, msr(MSR_PAT));
}

void vmx_state_init(struct vmx_vcpu *v, const struct vmx_vm *vv)
{
    put(VMX_PIN_CTLS, vmx_controls.value[VMX_GROUP_PIN] & ~(uint32_t)VMX_PIN_PREEMPTION_TIMER);
    put(VMX_PROC_CTLS, vmx_controls.value[VMX_GROUP_PROC]);
    put(VMX_PROC2_CTLS, vmx_controls.value[VMX_GROUP_PROC2]);
    put(VMX_EXIT_CTLS, vmx_controls.value[VMX_GROUP_EXIT]);
    put(VMX_ENTRY_CTLS, vmx_controls.value[VMX_GROUP_ENTRY]);
    put(VMX_EXCEPTION_BITMAP, 1u << X86_DB | 1u << 18);
    put(VMX_PF_ERROR_MASK, 0);
    put(VMX_PF_ERROR_MATCH, 0);
    put(VMX_CR3_TARGET_COUNT, 0);
    put(VMX_EXIT_MSR_STORE_COUNT, 0);
    put(VMX_EXIT_MSR_LOAD_COUNT, 0);
    put(VMX_ENTRY_MSR_LOAD_COUNT, 0);
    put(VMX_ENTRY_INTR_INFO, 0);
    put(VMX_MSR_BITMAP, vmm_host->virt_to_phys(vmm_host->ctx, v->msr_bits));
    put(VMX_EPTP, ept_eptp(&vv->ept));
    put(VMX_LINK_POINTER, UINT64_MAX);
    put(VMX_GUEST_DEBUGCTL, 0);
    if (vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_XSAVES))
        put(VMX_XSS_EXIT_BITMAP, UINT64_MAX);
    put(VMX_CR0_MASK, UINT64_MAX);
    put(VMX_CR4_MASK, UINT64_MAX);
}

/* ---- at each entry and exit ---- */

void vmx_state_load(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t entry = vmx_controls.value[VMX_GROUP_ENTRY];

    put_host();
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
    put(VMX_GUEST_GDTR_BASE, cpu->gdt.base);
    put(VMX_GUEST_GDTR_LIMIT, cpu->gdt.limit);
    put(VMX_GUEST_IDTR_BASE, cpu->idt.base);
    put(VMX_GUEST_IDTR_LIMIT, cpu->idt.limit);
    put(VMX_GUEST_CR0, cpu->cr0 | CR0_NE);
    put(VMX_CR0_SHADOW, cpu->cr0);
    put(VMX_GUEST_CR3, cpu->cr3);
    put(VMX_GUEST_CR4, cpu->cr4 | CR4_VMXE);
    put(VMX_CR4_SHADOW, cpu->cr4);
    for (unsigned i = 0; i < 4; i++)
        put(VMX_GUEST_PDPTE0 + 2 * i, cpu->mmu.pdpte[i]);
    put(VMX_GUEST_EFER, cpu->efer);
    put(VMX_GUEST_PAT, cpu->pat);
    if (cpu->efer & X86_EFER_LMA)
        entry |= VMX_ENTRY_GUEST_64;
    put(VMX_ENTRY_CTLS, entry);
    put(VMX_GUEST_DR7, 0x400);
    put(VMX_GUEST_RSP, cpu->gpr[VMM_RSP]);
    put(VMX_GUEST_RIP, cpu->rip);
    put(VMX_GUEST_RFLAGS, x86_get_rflags(cpu));
    put(VMX_GUEST_INTERRUPTIBILITY,
        (uint32_t)x86_shadow(cpu) | (cpu->nmi_blocked ? VMX_BLOCK_NMI : 0));
    put(VMX_GUEST_ACTIVITY, 0);
    put(VMX_GUEST_PENDING_DEBUG, 0);
    put(VMX_GUEST_SYSENTER_CS, cpu->sysenter_cs);
    put(VMX_GUEST_SYSENTER_ESP, cpu->sysenter_esp);
    put(VMX_GUEST_SYSENTER_EIP, cpu->sysenter_eip);
}

/* An event whose delivery the exit has interrupted is delivered by the software CPU. */
static void take_event(struct x86_cpu *cpu)
{
    bool unblock;
    struct vmx_event e = vmx_interrupted_event((uint32_t)get(VMX_IDT_VECTORING_INFO),
                                               (uint32_t)get(VMX_IDT_VECTORING_ERROR),
                                               (uint32_t)get(VMX_EXIT_INSN_LEN), &unblock);

    if (!e.info)
        return;
    cpu->event =
        (struct x86_event){.valid = true,
                           .type = (uint8_t)((e.info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT),
                           .vector = (uint8_t)e.info,
                           .has_error = e.info & VMX_INTR_HAS_ERROR,
                           .error = e.error,
                           .len = (uint8_t)e.len};
    if (unblock)
        cpu->nmi_blocked = false;
}

void vmx_state_store(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t blocking = get(VMX_GUEST_INTERRUPTIBILITY);

    for (unsigned i = 0; i < VMM_NSEG; i++) {
        struct vmm_segment *s = &cpu->seg[i];

        s->selector = (uint16_t)get(VMX_SEG(VMX_GUEST_ES_SEL, i));
        s->base = get(VMX_SEG(VMX_GUEST_ES_BASE, i));
        s->limit = (uint32_t)get(VMX_SEG(VMX_GUEST_ES_LIMIT, i));
        s->ar = (uint32_t)get(VMX_SEG(VMX_GUEST_ES_AR, i));
    }
    cpu->cr3 = get(VMX_GUEST_CR3);
    cpu->gpr[VMM_RSP] = get(VMX_GUEST_RSP);
    cpu->rip = get(VMX_GUEST_RIP);
    x86_set_rflags(cpu, get(VMX_GUEST_RFLAGS));
    cpu->cpl = (uint8_t)((cpu->seg[VMM_SS].ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT);
    cpu->sti_passed = false;
    cpu->shadow = blocking & (VMX_BLOCK_STI | VMX_BLOCK_MOV_SS);
    cpu->nmi_blocked = blocking & VMX_BLOCK_NMI;
    x86_mode_changed(cpu);
    for (unsigned i = 0; i < 4; i++)
        cpu->mmu.pdpte[i] = get(VMX_GUEST_PDPTE0 + 2 * i);
    take_event(cpu);
}
