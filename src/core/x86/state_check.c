/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/state_check.c: the checks of register values that come from outside: those of a VM entry
 * (SDM Vol. 3C 27.3.1 and, for events, 27.2.1.3). */
#include "core/x86/state.h"
#include <vmm/vcpu.h>

#define CR0_RESERVED (~(uint64_t)0xe005003fu)
/* RFLAGS bits that are always clear: 3, 5, 15 and all above 21. */
#define RFLAGS_RESERVED (~(uint64_t)0x3f7fd7u)

#define TYPE_CODE       8u
#define TYPE_CONFORMING 4u
#define TYPE_READ       2u /* code */
#define TYPE_ACCESSED   1u
#define AR_RESERVED     0xfffe0f00u
#define SELECTOR_TI     4u
#define VM86_AR         0xf3u

/* ---- control registers, debug registers, MSRs (27.3.1.1) ---- */

static bool long_mode(const struct vcpu_regs *r)
{
    return r->efer & X86_EFER_LMA;
}

static const char *check_control(const struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    bool paging = r->cr0 & X86_CR0_PG;

    if (r->cr0 & CR0_RESERVED)
        return "CR0: reserved bits";
    if (paging && !(r->cr0 & X86_CR0_PE))
        return "CR0.PG without CR0.PE";
    if ((r->cr0 & X86_CR0_NW) && !(r->cr0 & X86_CR0_CD))
        return "CR0.NW without CR0.CD";
    if (r->cr3 >> cpu->feat.gpa_bits)
        return "CR3: bits above the physical address width";
    if (r->cr4 & ~x86_cr4_allowed(cpu))
        return "CR4: bits that CPUID does not have";
    if (r->cr8 > 15)
        return "CR8: above 15";
    if (r->efer & ~x86_efer_allowed(cpu))
        return "EFER: bits that CPUID does not have";
    if (!!(r->efer & X86_EFER_LMA) != (paging && (r->efer & X86_EFER_LME)))
        return "EFER.LMA is not EFER.LME and CR0.PG";
    if (long_mode(r) && !(r->cr4 & X86_CR4_PAE))
        return "EFER.LMA without CR4.PAE";
    if ((r->cr4 & X86_CR4_PCIDE) && !long_mode(r))
        return "CR4.PCIDE without EFER.LMA";
    if (!x86_xcr0_valid(cpu, r->xcr0))
        return "XCR0: impossible combination";
    return NULL;
}

static const char *check_debug(const struct vcpu_regs *r)
{
    if (r->dr[6] >> 32)
        return "DR6: bits 63:32";
    if (r->dr[7] >> 32)
        return "DR7: bits 63:32";
    return NULL;
}

static const char *check_msr(const struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    if (!x86_canonical(cpu, r->sysenter_esp))
        return "IA32_SYSENTER_ESP: not canonical";
    if (!x86_canonical(cpu, r->sysenter_eip))
        return "IA32_SYSENTER_EIP: not canonical";
    if (!x86_canonical(cpu, r->lstar))
        return "IA32_LSTAR: not canonical";
    if (!x86_canonical(cpu, r->cstar))
        return "IA32_CSTAR: not canonical";
    if (!x86_canonical(cpu, r->kernel_gs_base))
        return "IA32_KERNEL_GS_BASE: not canonical";
    if (r->sysenter_cs >> 32)
        return "IA32_SYSENTER_CS: bits 63:32";
    if (r->sfmask >> 32)
        return "IA32_FMASK: bits 63:32";
    if (r->tsc_aux >> 32)
        return "IA32_TSC_AUX: bits 63:32";
    if (!x86_pat_valid(r->pat))
        return "IA32_PAT: invalid memory type";
    return NULL;
}

/* ---- segments and descriptor tables (27.3.1.2, 27.3.1.3) ---- */

/* For each segment the texts of the checks that all have. */
static const struct {
    const char *reserved, *type, *system, *present, *granularity, *base;
} names[VMM_NSEG] = {
#define NAMES(reg, seg)                                                                            \
    [reg] = {seg ": reserved access rights", seg ": type", seg ": S bit", seg ": not present",     \
             seg ": limit and granularity",  seg ": base"}
    NAMES(VMM_ES, "ES"), NAMES(VMM_CS, "CS"), NAMES(VMM_SS, "SS"),     NAMES(VMM_DS, "DS"),
    NAMES(VMM_FS, "FS"), NAMES(VMM_GS, "GS"), NAMES(VMM_LDTR, "LDTR"), NAMES(VMM_TR, "TR"),
#undef NAMES
};

static unsigned type_of(const struct vmm_segment *s)
{
    return s->ar & VMM_AR_TYPE;
}

static unsigned dpl(const struct vmm_segment *s)
{
    return (s->ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
}

static bool usable(const struct vmm_segment *s)
{
    return !(s->ar & VMM_AR_UNUSABLE);
}

static bool type_valid(const struct vcpu_regs *r, unsigned i)
{
    unsigned type = type_of(&r->seg[i]);

    switch (i) {
    case VMM_CS:
        return type == 3 || (type & (TYPE_CODE | TYPE_ACCESSED)) == (TYPE_CODE | TYPE_ACCESSED);
    case VMM_SS:
        return type == 3 || type == 7;
    case VMM_LDTR:
        return type == 2;
    case VMM_TR:
        return type == 11 || (type == 3 && !long_mode(r));
    default:
        return (type & TYPE_ACCESSED) && (!(type & TYPE_CODE) || (type & TYPE_READ));
    }
}

static const char *check_segment(const struct x86_cpu *cpu, const struct vcpu_regs *r, unsigned i)
{
    const struct vmm_segment *s = &r->seg[i];
    bool wide = i == VMM_FS || i == VMM_GS || i == VMM_LDTR || i == VMM_TR;

    if ((usable(s) || i == VMM_CS || i == VMM_FS || i == VMM_GS) &&
        (wide ? !x86_canonical(cpu, s->base) : s->base >> 32 != 0))
        return names[i].base;
    if (!usable(s))
        return NULL;
    if (s->ar & AR_RESERVED)
        return names[i].reserved;
    if (!type_valid(r, i))
        return names[i].type;
    if (!!(s->ar & VMM_AR_S) != (i < VMM_LDTR))
        return names[i].system;
    if (!(s->ar & VMM_AR_P))
        return names[i].present;
    if (((s->limit & 0xfff) != 0xfff && (s->ar & VMM_AR_G)) ||
        (s->limit >> 20 && !(s->ar & VMM_AR_G)))
        return names[i].granularity;
    return NULL;
}

static const char *check_vm86(const struct vcpu_regs *r)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++) {
        const struct vmm_segment *s = &r->seg[i];

        if (s->base != (uint64_t)s->selector << 4)
            return "virtual-8086 mode: segment base is not 16 * selector";
        if (s->limit != 0xffff)
            return "virtual-8086 mode: segment limit is not FFFFH";
        if (s->ar != VM86_AR)
            return "virtual-8086 mode: access rights are not F3H";
    }
    return NULL;
}

static const char *check_privilege(const struct vcpu_regs *r)
{
    const struct vmm_segment *cs = &r->seg[VMM_CS], *ss = &r->seg[VMM_SS];

    if (type_of(cs) == 3) {
        if (dpl(cs))
            return "CS: DPL of a data segment is not 0";
    } else if (type_of(cs) & TYPE_CONFORMING) {
        if (dpl(cs) > dpl(ss))
            return "CS: DPL above that of SS";
    } else if (dpl(cs) != dpl(ss)) {
        return "CS: DPL is not that of SS";
    }
    if (dpl(ss) && (type_of(cs) == 3 || !(r->cr0 & X86_CR0_PE)))
        return "SS: DPL is not 0";
    if (long_mode(r) && (cs->ar & VMM_AR_L) && (cs->ar & VMM_AR_DB))
        return "CS: L and D/B";
    return NULL;
}

static const char *check_segments(const struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    bool vm86 = r->rflags & X86_VM;
    const char *wrong;

    if (!usable(&r->seg[VMM_CS]))
        return "CS: unusable";
    if (!usable(&r->seg[VMM_TR]))
        return "TR: unusable";
    if (r->seg[VMM_TR].selector & SELECTOR_TI)
        return "TR: selector with TI";
    if (usable(&r->seg[VMM_LDTR]) && (r->seg[VMM_LDTR].selector & SELECTOR_TI))
        return "LDTR: selector with TI";
    for (unsigned i = vm86 ? VMM_LDTR : VMM_ES; i < VMM_NSEG; i++) {
        wrong = check_segment(cpu, r, i);
        if (wrong)
            return wrong;
    }
    return vm86 ? check_vm86(r) : check_privilege(r);
}

static const char *check_tables(const struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    if (!x86_canonical(cpu, r->gdt.base))
        return "GDTR: base is not canonical";
    if (!x86_canonical(cpu, r->idt.base))
        return "IDTR: base is not canonical";
    return NULL;
}

/* ---- RIP and RFLAGS (27.3.1.4) ---- */

static const char *check_rip(const struct x86_cpu *cpu, const struct vcpu_regs *r)
{
    if (r->rflags & RFLAGS_RESERVED)
        return "RFLAGS: reserved bits";
    if (!(r->rflags & 2))
        return "RFLAGS: bit 1 is clear";
    if ((r->rflags & X86_VM) && (long_mode(r) || !(r->cr0 & X86_CR0_PE)))
        return "RFLAGS.VM outside of legacy protected mode";
    if (long_mode(r) && (r->seg[VMM_CS].ar & VMM_AR_L)) {
        if (!x86_canonical(cpu, r->rip))
            return "RIP: not canonical";
    } else if (r->rip >> 32) {
        return "RIP: bits 63:32 outside of 64-bit mode";
    }
    return NULL;
}

/* ---- activity and events (27.3.1.5, 27.2.1.3) ---- */

static bool pushes_error(unsigned vector)
{
    return vector == X86_DF_ || (vector >= X86_TS && vector <= X86_PF_) || vector == X86_AC_ ||
           vector == X86_CP;
}

static const char *check_injection(const struct vcpu_regs *r)
{
    bool error = r->inject_type == VMM_EVENT_EXCEPTION && (r->cr0 & X86_CR0_PE) &&
                 pushes_error(r->inject_vector);

    switch (r->inject_type) {
    case VMM_EVENT_INTERRUPT:
        if (!(r->rflags & X86_IF))
            return "injection: external interrupt while RFLAGS.IF is clear";
        if (r->shadow)
            return "injection: external interrupt in an interrupt shadow";
        break;
    case VMM_EVENT_NMI:
        if (r->inject_vector != X86_NMI)
            return "injection: NMI with a vector other than 2";
        if (r->shadow & VMM_SHADOW_MOV_SS)
            return "injection: NMI behind MOV SS";
        break;
    case VMM_EVENT_EXCEPTION:
        if (r->inject_vector > 31)
            return "injection: exception vector above 31";
        break;
    default:
        return "injection: unknown type";
    }
    if (!!r->inject_has_error != error)
        return error ? "injection: error code missing" : "injection: error code without need";
    if (r->inject_has_error && r->inject_error >> 16)
        return "injection: error code bits 31:16";
    return NULL;
}

static const char *check_events(const struct vcpu_regs *r)
{
    if (r->activity > VMM_SHUTDOWN)
        return "activity: unknown";
    if (r->activity == VMM_HALTED && dpl(&r->seg[VMM_SS]))
        return "activity: halted at a CPL other than 0";
    if (r->shadow & ~(VMM_SHADOW_STI | VMM_SHADOW_MOV_SS))
        return "shadow: reserved bits";
    if (r->shadow == (VMM_SHADOW_STI | VMM_SHADOW_MOV_SS))
        return "shadow: both STI and MOV SS";
    if ((r->shadow & VMM_SHADOW_STI) && !(r->rflags & X86_IF))
        return "shadow: STI while RFLAGS.IF is clear";
    if (r->shadow && r->activity != VMM_ACTIVE)
        return "shadow: while not active";
    return r->inject_valid ? check_injection(r) : NULL;
}

const char *x86_check_regs(const struct x86_cpu *cpu, const struct vcpu_regs *r, uint32_t changed)
{
    const uint32_t mode = VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_CONTROL;
    const char *wrong = NULL;

    if (changed & VMM_REGS_CONTROL)
        wrong = check_control(cpu, r);
    if (!wrong && (changed & VMM_REGS_DEBUG))
        wrong = check_debug(r);
    if (!wrong && (changed & VMM_REGS_MSR))
        wrong = check_msr(cpu, r);
    if (!wrong && (changed & mode))
        wrong = check_rip(cpu, r);
    if (!wrong && (changed & mode))
        wrong = check_segments(cpu, r);
    if (!wrong && (changed & VMM_REGS_DT))
        wrong = check_tables(cpu, r);
    if (!wrong && (changed & VMM_REGS_EVENTS))
        wrong = check_events(r);
    return wrong;
}
