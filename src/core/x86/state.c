/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/state.c: registers for the outside. */
#include <string.h>

#include "core/x86/state.h"
#include <vmm/vcpu.h>

/* ---- RFLAGS ---- */

#define RFLAGS_ALL 0x3f7fd5u

uint64_t x86_get_rflags(const struct x86_cpu *cpu)
{
    return (cpu->rflags & ~X86_ARITH) | x86_cc_to_flags(cpu->cc) | 2;
}

/* Who changes TF, VM or AC calls x86_cs_changed as well. */
void x86_set_rflags(struct x86_cpu *cpu, uint64_t rflags)
{
    cpu->cc = x86_cc_from_flags((uint32_t)rflags);
    cpu->rflags = ((uint32_t)rflags & RFLAGS_ALL & ~X86_ARITH) | 2;
}

/* ---- reading ---- */

/* Inside of an instruction (a callback on its behalf) cpu->rip is stale. */
static uint64_t exact_rip(const struct x86_cpu *cpu)
{
    return cpu->blk ? x86_op_rip(cpu, &cpu->blk->ops[cpu->cur_idx]) : cpu->rip;
}

static void get_seg(const struct x86_cpu *cpu, struct vcpu_regs *r)
{
    memcpy(r->seg, cpu->seg, sizeof(r->seg));
    /* CPL is SS.DPL for the outside, also where SS is unusable. */
    if (!(cpu->rflags & X86_VM))
        r->seg[VMM_SS].ar = (r->seg[VMM_SS].ar & ~VMM_AR_DPL) | (uint32_t)cpu->cpl
                                                                    << VMM_AR_DPL_SHIFT;
}

static void get_control(struct x86_cpu *cpu, struct vcpu_regs *r)
{
    r->cr0 = cpu->cr0;
    /* A page fault that waits for its delivery has not written CR2 yet. */
    r->cr2 = cpu->event.valid && cpu->event.has_cr2 ? cpu->event.cr2 : cpu->cr2;
    r->cr3 = cpu->cr3;
    r->cr4 = cpu->cr4;
    r->cr8 = x86_read_cr8(cpu);
    r->xcr0 = cpu->xcr0;
    r->efer = cpu->efer;
    r->apic_base = 0; /* without an irqchip there is no local APIC */
}

static void get_msr(const struct x86_cpu *cpu, struct vcpu_regs *r)
{
    r->star = cpu->star;
    r->lstar = cpu->lstar;
    r->cstar = cpu->cstar;
    r->sfmask = cpu->sfmask;
    r->kernel_gs_base = cpu->kernel_gs_base;
    r->sysenter_cs = cpu->sysenter_cs;
    r->sysenter_esp = cpu->sysenter_esp;
    r->sysenter_eip = cpu->sysenter_eip;
    r->pat = cpu->pat;
    r->tsc = cpu->env->tsc(cpu->env->mmu.ctx);
    r->tsc_aux = cpu->tsc_aux;
}

static void get_events(const struct x86_cpu *cpu, struct vcpu_regs *r)
{
    const struct x86_event *e = cpu->later.valid ? &cpu->later : &cpu->event;

    r->activity = cpu->activity;
    r->shadow = x86_shadow(cpu);
    r->nmi_blocked = cpu->nmi_blocked;
    r->nmi_pending = cpu->nmi_pending;
    /* The event of INT n and its like is part of the instruction at RIP, which raises it again. */
    r->inject_valid = e->valid && e->type <= X86_EVENT_EXCEPTION;
    if (!r->inject_valid)
        return;
    r->inject_type = e->type;
    r->inject_vector = e->vector;
    r->inject_has_error = e->has_error;
    r->inject_error = e->has_error ? e->error : 0;
}

static void get_all(struct x86_cpu *cpu, struct vcpu_regs *r)
{
    const uint32_t groups = r->groups;

    if (groups & VMM_REGS_GPR) {
        memcpy(r->gpr, cpu->gpr, sizeof(r->gpr));
        r->rip = exact_rip(cpu);
        r->rflags = x86_get_rflags(cpu);
    }
    if (groups & VMM_REGS_SEG)
        get_seg(cpu, r);
    if (groups & VMM_REGS_DT) {
        r->gdt = cpu->gdt;
        r->idt = cpu->idt;
    }
    if (groups & VMM_REGS_CONTROL)
        get_control(cpu, r);
    if (groups & VMM_REGS_DEBUG) {
        memcpy(r->dr, cpu->dr.addr, sizeof(cpu->dr.addr));
        r->dr[4] = r->dr[5] = 0;
        r->dr[6] = cpu->dr.dr6;
        r->dr[7] = cpu->dr.dr7;
    }
    if (groups & VMM_REGS_MSR)
        get_msr(cpu, r);
    if (groups & VMM_REGS_EVENTS)
        get_events(cpu, r);
}

void x86_get_regs(struct x86_cpu *cpu, struct vcpu_regs *regs)
{
    get_all(cpu, regs);
}

/* ---- writing ---- */

/* The complete state that `in` would give. */
static void merge(struct x86_cpu *cpu, const struct vcpu_regs *in, struct vcpu_regs *r)
{
    const uint32_t groups = in->groups;

    *r = *in;
    r->groups = VMM_REGS_ALL & ~groups;
    get_all(cpu, r);
    r->groups = VMM_REGS_ALL;
}

static void set_control(struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    cpu->cr0 = r->cr0 | X86_CR0_ET;
    cpu->cr2 = r->cr2;
    cpu->cr3 = r->cr3;
    cpu->cr4 = r->cr4;
    cpu->xcr0 = r->xcr0;
    cpu->efer = r->efer;
    if (r->cr8 != x86_read_cr8(cpu))
        x86_write_cr8(cpu, r->cr8);
}

static void set_msr(struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    /* The time stamp counter is the core's (backend.h). */
    cpu->star = r->star;
    cpu->lstar = r->lstar;
    cpu->cstar = r->cstar;
    cpu->sfmask = r->sfmask;
    cpu->kernel_gs_base = r->kernel_gs_base;
    cpu->sysenter_cs = r->sysenter_cs;
    cpu->sysenter_esp = r->sysenter_esp;
    cpu->sysenter_eip = r->sysenter_eip;
    cpu->pat = r->pat;
    cpu->tsc_aux = r->tsc_aux;
}

/* Inside an instruction cpu->event is what that itself raises. */
static void set_events(struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    struct x86_event *event = cpu->blk ? &cpu->later : &cpu->event, old = *event;

    cpu->activity = (uint8_t)r->activity;
    cpu->shadow = (uint8_t)r->shadow;
    cpu->sti_passed = false;
    cpu->nmi_blocked = r->nmi_blocked;
    cpu->nmi_pending = r->nmi_pending;
    cpu->later.valid = false;
    *event = (struct x86_event){.valid = r->inject_valid};
    if (!r->inject_valid)
        return;
    event->type = r->inject_type;
    event->vector = r->inject_vector;
    event->has_error = r->inject_has_error;
    if (r->inject_has_error)
        event->error = r->inject_error;
    else if (r->inject_vector == X86_DB)
        event->error = (uint32_t)r->dr[6] & X86_DR6_WRITE; /* as x86_raise_db */
    /* The same page fault as the one that waits keeps its address. */
    if (old.valid && old.type == event->type && old.vector == event->vector &&
        !(r->groups & VMM_REGS_CONTROL)) {
        event->has_cr2 = old.has_cr2;
        event->cr2 = old.cr2;
    }
}

/* PAE paging: the PDPTEs are loaded as by MOV to CR3 (SDM Vol. 3C 27.3.2.4). False: reserved bits
 * are set in one, nothing has changed. */
static bool mmu_takes(struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    struct mmu_mode mode = {.cr0 = r->cr0,
                            .cr3 = r->cr3,
                            .cr4 = r->cr4,
                            .efer = r->efer,
                            .pkru = cpu->pkru,
                            .gpa_bits = cpu->feat.gpa_bits};

    return mmu_set_mode(&cpu->mmu, &mode, true);
}

static uint8_t cpl_of(const struct x86_cpu *cpu)
{
    if (!(cpu->cr0 & X86_CR0_PE))
        return 0;
    if (cpu->rflags & X86_VM)
        return 3;
    return (cpu->seg[VMM_SS].ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
}

const char *x86_set_regs(struct x86_cpu *cpu, const struct vcpu_regs *in)
{
    const uint32_t groups = in->groups, rflags = cpu->rflags;
    struct vcpu_regs r;
    const char *wrong;

    merge(cpu, in, &r);
    wrong = x86_check_regs(cpu, &r, groups);
    if (wrong)
        return wrong;
    if ((groups & VMM_REGS_CONTROL) && !mmu_takes(cpu, &r))
        return "CR3: PDPTE with reserved bits";

    r.groups = groups;
    if (groups & VMM_REGS_GPR) {
        memcpy(cpu->gpr, r.gpr, sizeof(r.gpr));
        cpu->rip = r.rip;
        x86_set_rflags(cpu, r.rflags);
    }
    if (groups & VMM_REGS_SEG)
        memcpy(cpu->seg, r.seg, sizeof(cpu->seg));
    if (groups & VMM_REGS_DT) {
        cpu->gdt = r.gdt;
        cpu->idt = r.idt;
    }
    if (groups & VMM_REGS_CONTROL)
        set_control(cpu, &r);
    if (groups & VMM_REGS_DEBUG) {
        memcpy(cpu->dr.addr, r.dr, sizeof(cpu->dr.addr));
        cpu->dr.dr6 = (r.dr[6] & X86_DR6_WRITE) | X86_DR6_FIXED;
        cpu->dr.dr7 = (r.dr[7] & X86_DR7_WRITE) | X86_DR7_FIXED;
    }
    if (groups & VMM_REGS_MSR)
        set_msr(cpu, &r);
    if (groups & VMM_REGS_EVENTS)
        set_events(cpu, &r);

    if (groups & (VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_CONTROL)) {
        cpu->cpl = cpl_of(cpu);
        x86_mode_changed(cpu);
    }
    if (groups & VMM_REGS_CONTROL)
        x86_flush_tlb(cpu);
    if (groups & VMM_REGS_DEBUG)
        x86_breakpoints_changed(cpu);
    if ((groups & ~VMM_REGS_GPR) || cpu->rflags != rflags)
        x86_end_block(cpu);
    return NULL;
}
