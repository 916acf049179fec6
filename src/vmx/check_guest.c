/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check_guest.c: entry checks of the guest state (SDM Vol. 3C 26.3.1). */
#include "vmx/check_common.h"
#include <vmm/regs.h>

static bool unrestricted(void)
{
    return proc2() & VMX_PROC2_UNRESTRICTED_GUEST;
}

static bool guest64(void)
{
    return rd(VMX_ENTRY_CTLS) & VMX_ENTRY_GUEST_64;
}

/* ---- control registers, debug registers, MSRs (26.3.1.1) ---- */

static const char *check_control(const struct vmx_caps *c, unsigned pb)
{
    uint64_t cr0 = rd(VMX_GUEST_CR0), cr4 = rd(VMX_GUEST_CR4);
    uint64_t fixed0 = c->cr0_fixed0;

    if (unrestricted())
        fixed0 &= ~(CR0_PE | CR0_PG);
    /* NW and CD are not checked. */
    RULE(fixed_ok(cr0 | (fixed0 & (CR0_NW | CR0_CD)), fixed0, c->cr0_fixed1 | CR0_NW | CR0_CD),
         "guest CR0: bits that VMX fixes");
    RULE(!(cr0 & CR0_PG) || (cr0 & CR0_PE), "guest CR0.PG without CR0.PE");
    RULE(fixed_ok(cr4, c->cr4_fixed0, c->cr4_fixed1), "guest CR4: bits that VMX fixes");
    RULE(!(cr4 & CR4_CET) || (cr0 & CR0_WP), "guest CR4.CET without CR0.WP");
    if (guest64()) {
        RULE(cr0 & CR0_PG, "64-bit guest without CR0.PG");
        RULE(cr4 & CR4_PAE, "64-bit guest without CR4.PAE");
    } else {
        RULE(!(cr4 & CR4_PCIDE), "guest CR4.PCIDE outside of IA-32e mode");
    }
    RULE(!(rd(VMX_GUEST_CR3) >> pb), "guest CR3: beyond the physical address width");
    return NULL;
}

static const char *check_msrs(void)
{
    uint64_t entry = rd(VMX_ENTRY_CTLS), efer = rd(VMX_GUEST_EFER);

    if (entry & VMX_ENTRY_LOAD_DEBUG) {
        RULE(!(rd(VMX_GUEST_DEBUGCTL) & ~0xdfc3ull), "guest DEBUGCTL: reserved bits");
        RULE(!(rd(VMX_GUEST_DR7) >> 32), "guest DR7: bits 63:32");
    }
    RULE(canonical(rd(VMX_GUEST_SYSENTER_ESP)), "guest SYSENTER_ESP is not canonical");
    RULE(canonical(rd(VMX_GUEST_SYSENTER_EIP)), "guest SYSENTER_EIP is not canonical");
    RULE(!(entry & VMX_ENTRY_LOAD_PAT) || pat_ok(rd(VMX_GUEST_PAT)), "guest PAT: bad memory type");
    if (entry & VMX_ENTRY_LOAD_EFER) {
        RULE(!(efer & ~EFER_ALL), "guest EFER: reserved bits");
        RULE(!(efer & EFER_LMA) == !guest64(), "guest EFER.LMA against the 64-bit guest control");
        RULE(!(rd(VMX_GUEST_CR0) & CR0_PG) || !(efer & EFER_LMA) == !(efer & EFER_LME),
             "guest EFER: LMA and LME differ while CR0.PG is set");
    }
    RULE(!(entry & VMX_ENTRY_LOAD_BNDCFGS) ||
             (canonical(rd(VMX_GUEST_BNDCFGS)) && !(rd(VMX_GUEST_BNDCFGS) & 0xffc)),
         "guest BNDCFGS: bad value");
    return NULL;
}

/* ---- segment registers (26.3.1.2) ---- */

#define TYPE_CODE     8u
#define TYPE_ACCESSED 1u
#define AR_RESERVED   0xfffe0f00u

struct segment {
    uint64_t base;
    uint32_t selector, limit, ar;
};

static struct segment segment(unsigned n)
{
    return (struct segment){.base = rd(VMX_SEG(VMX_GUEST_ES_BASE, n)),
                            .selector = (uint32_t)rd(VMX_SEG(VMX_GUEST_ES_SEL, n)),
                            .limit = (uint32_t)rd(VMX_SEG(VMX_GUEST_ES_LIMIT, n)),
                            .ar = (uint32_t)rd(VMX_SEG(VMX_GUEST_ES_AR, n))};
}

static bool usable(const struct segment *s)
{
    return !(s->ar & VMM_AR_UNUSABLE);
}

static unsigned dpl(const struct segment *s)
{
    return (s->ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
}

/* With G clear bits 31:20 are 0, with G set bits 11:0 are 1. */
static bool limit_ok(const struct segment *s)
{
    if ((s->limit & 0xfff) != 0xfff && (s->ar & VMM_AR_G))
        return false;
    return !(s->limit & 0xfff00000) || (s->ar & VMM_AR_G);
}

static const char *check_vm86(void)
{
    for (unsigned n = VMM_ES; n <= VMM_GS; n++) {
        struct segment s = segment(n);

        RULE(s.base == (uint64_t)s.selector << 4, "virtual-8086 mode: base is not selector * 16");
        RULE(s.limit == 0xffff, "virtual-8086 mode: limit is not 0xffff");
        RULE(s.ar == 0xf3, "virtual-8086 mode: access rights are not 0xf3");
    }
    return NULL;
}

static const char *check_cs(void)
{
    struct segment cs = segment(VMM_CS), ss = segment(VMM_SS);
    unsigned type = cs.ar & VMM_AR_TYPE;

    RULE(usable(&cs), "CS is unusable");
    RULE(type == 9 || type == 11 || type == 13 || type == 15 || (type == 3 && unrestricted()),
         "CS: bad type");
    RULE(cs.ar & VMM_AR_S, "CS: S is 0");
    if (type == 3)
        RULE(!dpl(&cs), "CS: data segment with DPL not 0");
    else if (type == 9 || type == 11)
        RULE(dpl(&cs) == dpl(&ss), "CS: DPL is not SS.DPL");
    else
        RULE(dpl(&cs) <= dpl(&ss), "CS: conforming with a DPL above SS.DPL");
    RULE(cs.ar & VMM_AR_P, "CS is not present");
    RULE(!(cs.ar & AR_RESERVED), "CS: reserved access rights");
    RULE(!guest64() || !(cs.ar & VMM_AR_L) || !(cs.ar & VMM_AR_DB), "CS: L and D together");
    RULE(limit_ok(&cs), "CS: limit against granularity");
    RULE(!(cs.base >> 32), "CS: base above 4 GiB");
    return NULL;
}

static const char *check_ss(void)
{
    struct segment cs = segment(VMM_CS), ss = segment(VMM_SS);
    unsigned type = ss.ar & VMM_AR_TYPE;

    RULE(unrestricted() || (ss.selector & 3) == (cs.selector & 3), "SS: RPL is not CS.RPL");
    if (!unrestricted())
        RULE(dpl(&ss) == (ss.selector & 3), "SS: DPL is not its RPL");
    if ((cs.ar & VMM_AR_TYPE) == 3 || !(rd(VMX_GUEST_CR0) & CR0_PE))
        RULE(!dpl(&ss), "SS: DPL is not 0 in real mode");
    if (!usable(&ss))
        return NULL;
    RULE(type == 3 || type == 7, "SS: bad type");
    RULE(ss.ar & VMM_AR_S, "SS: S is 0");
    RULE(ss.ar & VMM_AR_P, "SS is not present");
    RULE(!(ss.ar & AR_RESERVED), "SS: reserved access rights");
    RULE(limit_ok(&ss), "SS: limit against granularity");
    RULE(!(ss.base >> 32), "SS: base above 4 GiB");
    return NULL;
}

static const char *check_data(unsigned n)
{
    struct segment s = segment(n);
    unsigned type = s.ar & VMM_AR_TYPE;

    if (n == VMM_FS || n == VMM_GS)
        RULE(canonical(s.base), "FS or GS: base is not canonical");
    if (!usable(&s))
        return NULL;
    RULE((type & TYPE_ACCESSED), "data segment: not accessed");
    RULE(!(type & TYPE_CODE) || (type & 2), "data segment: code that is not readable");
    RULE(s.ar & VMM_AR_S, "data segment: S is 0");
    if (!unrestricted() && type <= 11)
        RULE(dpl(&s) >= (s.selector & 3), "data segment: DPL below its RPL");
    RULE(s.ar & VMM_AR_P, "data segment is not present");
    RULE(!(s.ar & AR_RESERVED), "data segment: reserved access rights");
    RULE(limit_ok(&s), "data segment: limit against granularity");
    if (n == VMM_ES || n == VMM_DS)
        RULE(!(s.base >> 32), "DS or ES: base above 4 GiB");
    return NULL;
}

static const char *check_tr(void)
{
    struct segment tr = segment(VMM_TR);
    unsigned type = tr.ar & VMM_AR_TYPE;

    RULE(!(tr.selector & 4), "TR: in the LDT");
    RULE(canonical(tr.base), "TR: base is not canonical");
    RULE(type == 11 || (type == 3 && !guest64()), "TR: type is not a busy TSS");
    RULE(!(tr.ar & VMM_AR_S), "TR: S is 1");
    RULE(tr.ar & VMM_AR_P, "TR is not present");
    RULE(!(tr.ar & AR_RESERVED), "TR: reserved access rights");
    RULE(limit_ok(&tr), "TR: limit against granularity");
    RULE(usable(&tr), "TR is unusable");
    return NULL;
}

static const char *check_ldtr(void)
{
    struct segment ldtr = segment(VMM_LDTR);

    if (!usable(&ldtr))
        return NULL;
    RULE(!(ldtr.selector & 4), "LDTR: in the LDT");
    RULE(canonical(ldtr.base), "LDTR: base is not canonical");
    RULE((ldtr.ar & VMM_AR_TYPE) == 2, "LDTR: type is not an LDT");
    RULE(!(ldtr.ar & VMM_AR_S), "LDTR: S is 1");
    RULE(ldtr.ar & VMM_AR_P, "LDTR is not present");
    RULE(!(ldtr.ar & AR_RESERVED), "LDTR: reserved access rights");
    RULE(limit_ok(&ldtr), "LDTR: limit against granularity");
    return NULL;
}

static const char *check_segments(void)
{
    static const uint8_t data[] = {VMM_DS, VMM_ES, VMM_FS, VMM_GS};
    const char *wrong = check_tr();

    if (!wrong)
        wrong = check_ldtr();
    if (wrong)
        return wrong;
    if (rd(VMX_GUEST_RFLAGS) & RFLAGS_VM)
        return check_vm86();
    wrong = check_cs();
    if (!wrong)
        wrong = check_ss();
    for (unsigned i = 0; i < sizeof(data) && !wrong; i++)
        wrong = check_data(data[i]);
    return wrong;
}

static const char *check_tables(void)
{
    RULE(canonical(rd(VMX_GUEST_GDTR_BASE)), "GDTR: base is not canonical");
    RULE(canonical(rd(VMX_GUEST_IDTR_BASE)), "IDTR: base is not canonical");
    RULE(!(rd(VMX_GUEST_GDTR_LIMIT) >> 16), "GDTR: limit above 0xffff");
    RULE(!(rd(VMX_GUEST_IDTR_LIMIT) >> 16), "IDTR: limit above 0xffff");
    return NULL;
}

/* ---- RIP and RFLAGS (26.3.1.4) ---- */

static const char *check_rip(void)
{
    uint64_t rflags = rd(VMX_GUEST_RFLAGS), info = rd(VMX_ENTRY_INTR_INFO);
    bool code64 = guest64() && (segment(VMM_CS).ar & VMM_AR_L);

    RULE(code64 || !(rd(VMX_GUEST_RIP) >> 32), "RIP above 4 GiB outside of 64-bit mode");
    RULE(!code64 || canonical(rd(VMX_GUEST_RIP)), "RIP is not canonical");
    RULE((rflags & 2) && !(rflags & ~0x3f7fd7ull), "RFLAGS: reserved bits");
    RULE(!(rflags & RFLAGS_VM) || (!guest64() && (rd(VMX_GUEST_CR0) & CR0_PE)),
         "RFLAGS.VM in IA-32e or real mode");
    RULE(!(info & VMX_INTR_VALID) || (info & VMX_INTR_TYPE) || (rflags & RFLAGS_IF),
         "injected external interrupt with RFLAGS.IF clear");
    return NULL;
}

/* ---- non-register state (26.3.1.5) ---- */

static bool activity_takes(uint64_t activity, uint32_t info)
{
    uint32_t type = (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT, vector = info & VMX_INTR_VECTOR;

    switch (activity) {
    case VMM_HALTED:
        return type == VMX_TYPE_EXTERNAL || type == VMX_TYPE_NMI || type == 7 ||
               (type == VMX_TYPE_EXCEPTION && (vector == 1 || vector == 18));
    case 2: /* shutdown */
        return type == VMX_TYPE_NMI || (type == VMX_TYPE_EXCEPTION && vector == 18);
    case 3: /* wait for SIPI */
        return false;
    default:
        return true;
    }
}

static const char *check_activity(const struct vmx_caps *c)
{
    uint64_t activity = rd(VMX_GUEST_ACTIVITY), blocking = rd(VMX_GUEST_INTERRUPTIBILITY);
    uint32_t info = (uint32_t)rd(VMX_ENTRY_INTR_INFO);
    struct segment ss = segment(VMM_SS);

    RULE(activity <= 3 && (!activity || (c->misc >> (5 + activity) & 1)),
         "activity state that the CPU does not have");
    RULE(activity != 1 || !dpl(&ss), "halted with SS.DPL not 0");
    RULE(!activity || !(blocking & (VMX_BLOCK_STI | VMX_BLOCK_MOV_SS)),
         "not active, with blocking by STI or MOV SS");
    RULE(!(info & VMX_INTR_VALID) || activity_takes(activity, info),
         "injected event does not fit the activity state");
    return NULL;
}

static const char *check_blocking(void)
{
    uint64_t blocking = rd(VMX_GUEST_INTERRUPTIBILITY), rflags = rd(VMX_GUEST_RFLAGS);
    uint32_t info = (uint32_t)rd(VMX_ENTRY_INTR_INFO);
    uint32_t type = (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT;
    const uint64_t shadow = VMX_BLOCK_STI | VMX_BLOCK_MOV_SS;

    RULE(!(blocking & ~0x1full), "interruptibility: reserved bits");
    RULE((blocking & shadow) != shadow, "blocking by STI and by MOV SS together");
    RULE(!(blocking & VMX_BLOCK_STI) || (rflags & RFLAGS_IF),
         "blocking by STI with RFLAGS.IF clear");
    RULE(!(blocking & VMX_BLOCK_SMI), "blocking by SMI outside of SMM");
    if (!(info & VMX_INTR_VALID))
        return NULL;
    RULE(type != VMX_TYPE_EXTERNAL || !(blocking & shadow),
         "injected external interrupt while interrupts are blocked");
    RULE(type != VMX_TYPE_NMI || !(blocking & shadow),
         "injected NMI with blocking by STI or MOV SS");
    RULE(type != VMX_TYPE_NMI || !(blocking & VMX_BLOCK_NMI) ||
             !(rd(VMX_PIN_CTLS) & VMX_PIN_VIRTUAL_NMIS),
         "injected NMI with blocking by NMI");
    return NULL;
}

static const char *check_debug(void)
{
    uint64_t pending = rd(VMX_GUEST_PENDING_DEBUG), rflags = rd(VMX_GUEST_RFLAGS);
    bool btf = rd(VMX_GUEST_DEBUGCTL) & 2;

    RULE(!(pending & ~0x1d00full & ~(1ull << 11)), "pending debug exceptions: reserved bits");
    if ((rd(VMX_GUEST_INTERRUPTIBILITY) & (VMX_BLOCK_STI | VMX_BLOCK_MOV_SS)) ||
        rd(VMX_GUEST_ACTIVITY) == 1) {
        bool bs = pending >> 14 & 1;

        RULE(bs || !(rflags & RFLAGS_TF) || btf, "pending single step: BS is 0 with RFLAGS.TF");
        RULE(!bs || ((rflags & RFLAGS_TF) && !btf),
             "pending single step: BS is 1 without RFLAGS.TF");
    }
    return NULL;
}

static const char *check_other(unsigned pb)
{
    uint64_t link = rd(VMX_LINK_POINTER);

    RULE(link == UINT64_MAX || address_ok(link, 4096, pb), "VMCS link pointer: bad address");
    /* PAE paging with EPT: the PDPTEs are in the VMCS (26.3.1.6). */
    if ((proc2() & VMX_PROC2_EPT) && !guest64() && (rd(VMX_GUEST_CR0) & CR0_PG) &&
        (rd(VMX_GUEST_CR4) & CR4_PAE))
        for (uint32_t f = VMX_GUEST_PDPTE0; f <= VMX_GUEST_PDPTE3; f += 2)
            RULE(!(rd(f) & 1) || (!(rd(f) & 0x1e6) && !(rd(f) >> pb)), "PDPTE: reserved bits");
    return NULL;
}

const char *vmx_check_guest(const struct vmx_caps *c, unsigned pb)
{
    const char *wrong = check_control(c, pb);

    if (!wrong)
        wrong = check_msrs();
    if (!wrong)
        wrong = check_segments();
    if (!wrong)
        wrong = check_tables();
    if (!wrong)
        wrong = check_rip();
    if (!wrong)
        wrong = check_activity(c);
    if (!wrong)
        wrong = check_blocking();
    if (!wrong)
        wrong = check_debug();
    return wrong ? wrong : check_other(pb);
}
