/* SPDX-License-Identifier: BSD-2-Clause */
/* registers.c: every group of registers is what was set and what the guest sees, in every mode, and
 * impossible states are refused. */
#include "conform.h"

GUEST(halts, 64, "hlt");
GUEST(nops, 64, "nop\n nop\n hlt");

static const enum snip_mode modes[] = {REAL16, PROT16, PROT32, USER32, COMPAT32, LONG64, USER64};
#define NMODES (sizeof(modes) / sizeof(modes[0]))

static void same(const struct vcpu_regs *a, const struct vcpu_regs *b)
{
    for (unsigned i = 0; i < 16; i++)
        EQ(a->gpr[i], b->gpr[i]);
    EQ(a->rip, b->rip);
    EQ(a->rflags, b->rflags);
    for (unsigned i = 0; i < VMM_NSEG; i++) {
        EQ(a->seg[i].ar & VMM_AR_UNUSABLE, b->seg[i].ar & VMM_AR_UNUSABLE);
        EQ(a->seg[i].selector, b->seg[i].selector);
        if (a->seg[i].ar & VMM_AR_UNUSABLE)
            continue;
        EQ(a->seg[i].base, b->seg[i].base);
        EQ(a->seg[i].limit, b->seg[i].limit);
        EQ(a->seg[i].ar, b->seg[i].ar);
    }
    CHECK(memcmp(&a->gdt, &b->gdt, sizeof(a->gdt)) == 0);
    CHECK(memcmp(&a->idt, &b->idt, sizeof(a->idt)) == 0);
    EQ(a->cr0, b->cr0);
    EQ(a->cr2, b->cr2);
    EQ(a->cr3, b->cr3);
    EQ(a->cr4, b->cr4);
    EQ(a->cr8, b->cr8);
    EQ(a->xcr0, b->xcr0);
    EQ(a->efer, b->efer);
    EQ(a->apic_base, b->apic_base);
    for (unsigned i = 0; i < 8; i++)
        EQ(i == 4 || i == 5 ? 0 : a->dr[i], i == 4 || i == 5 ? 0 : b->dr[i]);
    EQ(a->star, b->star);
    EQ(a->lstar, b->lstar);
    EQ(a->cstar, b->cstar);
    EQ(a->sfmask, b->sfmask);
    EQ(a->kernel_gs_base, b->kernel_gs_base);
    EQ(a->sysenter_cs, b->sysenter_cs);
    EQ(a->sysenter_esp, b->sysenter_esp);
    EQ(a->sysenter_eip, b->sysenter_eip);
    EQ(a->pat, b->pat);
    EQ(a->tsc_aux, b->tsc_aux);
    EQ(a->activity, b->activity);
    EQ(a->shadow, b->shadow);
    EQ(a->nmi_blocked, b->nmi_blocked);
    EQ(a->nmi_pending, b->nmi_pending);
    EQ(a->inject_valid, b->inject_valid);
}

/* A state of `mode` in which every register has a value of its own. */
static struct vcpu_regs full_state(enum snip_mode mode)
{
    struct vcpu_regs r;

    LOAD(mode, halts);
    r = get_regs(cpu);
    bool wide = mode == LONG64 || mode == USER64;
    for (unsigned i = 0; i < 16; i++)
        if (i != VMM_RSP)
            r.gpr[i] = (wide ? 0x1111000022220000 : 0x22220000) + i;
    r.rflags = 0x8d7;
    r.seg[VMM_DS].selector = mode == REAL16 ? 0x1234 : r.seg[VMM_DS].selector;
    r.seg[VMM_DS].base = mode == REAL16 ? 0x12340 : r.seg[VMM_DS].base;
    r.seg[VMM_FS].base = wide ? 0x7fff12345000 : 0x345000;
    r.seg[VMM_GS].base = wide ? 0xffff800012345000 : 0x346000;
    r.cr2 = wide ? 0xffff900000001234 : 0x1234;
    r.cr8 = 7;
    r.dr[0] = 0x1000;
    r.dr[1] = 0x2000;
    r.dr[2] = 0x3000;
    r.dr[3] = wide ? 0xffff800000004000 : 0x4000;
    r.dr[6] = 0xffff0ff1;
    r.star = 0x0023001000000000;
    r.lstar = 0xffffffff81000000;
    r.cstar = 0xffffffff81000100;
    r.sfmask = 0x47700;
    r.kernel_gs_base = 0xffff888000001000;
    r.sysenter_cs = 0x10;
    r.sysenter_esp = 0xffff888000002000;
    r.sysenter_eip = 0xffffffff81000200;
    r.pat = 0x0007040600070106;
    r.tsc_aux = 5;
    r.nmi_blocked = 1;
    return r;
}

static void round_trip(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (unsigned m = 0; m < NMODES; m++) {
        struct vcpu_regs r = full_state(modes[m]), now;

        set_regs(cpu, &r, VMM_REGS_ALL);
        now = get_regs(cpu);
        same(&now, &r);
    }
    end();
}

/* The same behind guest code that changes none of them. */
static void round_trip_through_the_guest(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (unsigned m = 0; m < NMODES; m++) {
        struct vcpu_regs r = full_state(modes[m]), now;

        PLACE(CODE, nops);
        set_regs(cpu, &r, VMM_REGS_ALL);
        OK(vcpu_set_budget(cpu, 2, 0));
        if (conform_caps.caps & VMM_CAP_INSN_BUDGET)
            RUN(BUDGET);
        else
            RUN(HLT);
        now = get_regs(cpu);
        if (modes[m] != USER32 && modes[m] != USER64)
            CHECK(now.rip == CODE + 2 || now.rip == CODE + 3);
        now.rip = r.rip;
        now.activity = r.activity;
        if (conform_caps.caps & VMM_CAP_INSN_BUDGET)
            same(&now, &r);
    }
    end();
}

static void groups_are_apart(void)
{
    struct vcpu_regs r, now;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    r = full_state(LONG64);
    set_regs(cpu, &r, VMM_REGS_ALL);
    struct vcpu_regs other = r;
    other.gpr[VMM_RAX] = 1;
    other.cr2 = 2;
    other.dr[0] = 3;
    other.lstar = 4;
    other.gdt.base = 5;
    other.seg[VMM_FS].base = 6;
    for (uint32_t g = 1; g < VMM_REGS_ALL; g <<= 1) {
        set_regs(cpu, &other, g);
        now = get_regs(cpu);
        EQ(now.gpr[VMM_RAX], g == VMM_REGS_GPR ? 1 : r.gpr[VMM_RAX]);
        EQ(now.cr2, g == VMM_REGS_CONTROL ? 2 : r.cr2);
        EQ(now.dr[0], g == VMM_REGS_DEBUG ? 3 : r.dr[0]);
        EQ(now.lstar, g == VMM_REGS_MSR ? 4 : r.lstar);
        EQ(now.gdt.base, g == VMM_REGS_DT ? 5 : r.gdt.base);
        EQ(now.seg[VMM_FS].base, g == VMM_REGS_SEG ? 6 : r.seg[VMM_FS].base);
        set_regs(cpu, &r, VMM_REGS_ALL);
    }
    now = (struct vcpu_regs){.size = sizeof(now), .groups = VMM_REGS_GPR, .cr2 = 0x77};
    OK(vcpu_get_regs(cpu, &now));
    EQ(now.cr2, 0x77); /* not asked for */
    now.groups = VMM_REGS_ALL + 1;
    RESULT(vcpu_get_regs(cpu, &now), VMM_E_INVAL);
    RESULT(vcpu_set_regs(cpu, &now), VMM_E_INVAL);
    end();
}

GUEST(looks, 64,
      "mov %rax, 0x3000\n"
      "mov %r15, 0x3008\n"
      "mov %rsp, 0x3010\n"
      "pushf\n"
      "pop 0x3018\n"
      "mov %cr2, %rax\n mov %rax, 0x3020\n"
      "mov %cr8, %rax\n mov %rax, 0x3028\n"
      "mov %dr0, %rax\n mov %rax, 0x3030\n"
      "mov %dr6, %rax\n mov %rax, 0x3038\n"
      "mov $0xc0000082, %ecx\n rdmsr\n mov %eax, 0x3040\n mov %edx, 0x3044\n"
      "mov $0xc0000102, %ecx\n rdmsr\n mov %eax, 0x3048\n mov %edx, 0x304c\n"
      "mov $0x277, %ecx\n rdmsr\n mov %eax, 0x3050\n mov %edx, 0x3054\n"
      "mov $0xc0000100, %ecx\n rdmsr\n mov %eax, 0x3058\n mov %edx, 0x305c\n"
      "mov $0x175, %ecx\n rdmsr\n mov %eax, 0x3060\n mov %edx, 0x3064\n"
      "sgdt 0x3070\n"
      "mov %cr4, %rax\n mov %rax, 0x3080\n"
      "str 0x3090\n"
      "hlt");

static void the_guest_sees_them(void)
{
    struct vcpu_regs r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    r = full_state(LONG64);
    PLACE(CODE, looks);
    r.cr8 = 7;
    set_regs(cpu, &r, VMM_REGS_ALL);
    RUN(HLT);
    EQ(ex.rip, END_OF(looks));
    EQ(peek(DATA, 8), r.gpr[VMM_RAX]);
    EQ(peek(DATA + 8, 8), r.gpr[VMM_R15]);
    EQ(peek(DATA + 0x10, 8), SNIP_STACK);
    EQ(peek(DATA + 0x18, 8), r.rflags);
    EQ(peek(DATA + 0x20, 8), r.cr2);
    EQ(peek(DATA + 0x28, 8), 7);
    EQ(peek(DATA + 0x30, 8), 0x1000);
    EQ(peek(DATA + 0x38, 8), 0xffff0ff1);
    EQ(peek(DATA + 0x40, 8), r.lstar);
    EQ(peek(DATA + 0x48, 8), r.kernel_gs_base);
    EQ(peek(DATA + 0x50, 8), r.pat);
    EQ(peek(DATA + 0x58, 8), r.seg[VMM_FS].base);
    EQ(peek(DATA + 0x60, 8), r.sysenter_esp);
    EQ(peek(DATA + 0x70, 2), r.gdt.limit);
    EQ(peek(DATA + 0x72, 8), SNIP_GDT);
    EQ(peek(DATA + 0x80, 8), r.cr4);
    EQ(peek(DATA + 0x90, 2), SEL_TSS);
    end();
}

GUEST(changes, 64,
      "movabs $0x123456789abcdef0, %rax\n mov %rax, %cr2\n"
      "mov $9, %eax\n mov %rax, %cr8\n"
      "mov $0x5000, %eax\n mov %rax, %dr1\n"
      "mov $0xc0000082, %ecx\n mov $0x1000, %eax\n mov $0xffff8000, %edx\n wrmsr\n"
      "mov $0x277, %ecx\n mov $0x00070106, %eax\n mov $0x00070406, %edx\n wrmsr\n"
      "mov $0x10, %eax\n mov %eax, %es\n"
      "mov $0xc0000101, %ecx\n mov $0x7000, %eax\n xor %edx, %edx\n wrmsr\n"
      "swapgs\n"
      "std\n"
      "movabs $0x1122334455667788, %r9\n"
      "hlt");

static void what_the_guest_changes(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, changes);
    RUN(HLT);
    EQ(ex.rip, END_OF(changes));
    struct vcpu_regs r = get_regs(cpu);
    EQ(r.cr2, 0x123456789abcdef0);
    EQ(r.cr8, 9);
    EQ(r.dr[1], 0x5000);
    EQ(r.lstar, 0xffff800000001000);
    EQ(r.pat, 0x0007040600070106);
    EQ(r.seg[VMM_ES].selector, 0x10);
    EQ(r.seg[VMM_ES].ar & 0xff, 0x93);
    EQ(r.kernel_gs_base, 0x7000);
    EQ(r.seg[VMM_GS].base, 0);
    EQ(r.rflags & 0x400, 0x400);
    EQ(r.gpr[VMM_R9], 0x1122334455667788);
    end();
}

/* ---- impossible states ---- */

static unsigned step_number;

static void refused(struct vcpu_regs *r)
{
    struct vcpu_regs before = get_regs(cpu), after;

    step_number++;
    r->groups = VMM_REGS_ALL;
    if (vcpu_set_regs(cpu, r) != VMM_E_INVAL)
        FAIL("impossible state number %u was taken", step_number);
    after = get_regs(cpu);
    same(&after, &before);
    *r = before;
}

static void impossible_states(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    struct vcpu_regs r = get_regs(cpu);
    r.cr0 &= ~1ull; /* 1: PG without PE */
    refused(&r);
    r.cr0 |= 1ull << 40;
    refused(&r);
    r.cr0 |= 1ull << 29; /* 3: NW without CD */
    refused(&r);
    r.cr4 |= 1ull << 60;
    refused(&r);
    r.cr4 &= ~0x20ull; /* 5: LMA without PAE */
    refused(&r);
    r.efer &= ~0x400ull;
    refused(&r);
    r.efer |= 2; /* 7: reserved */
    refused(&r);
    r.cr3 = UINT64_MAX;
    refused(&r);
    r.cr8 = 16;
    refused(&r);
    r.rflags = 0; /* 10 */
    refused(&r);
    r.rflags |= 0x20000; /* VM in long mode */
    refused(&r);
    r.rip = 1ull << 47;
    refused(&r);
    r.seg[VMM_CS].ar |= VMM_AR_UNUSABLE;
    refused(&r);
    r.seg[VMM_CS].ar |= VMM_AR_DB; /* with L */
    refused(&r);
    r.seg[VMM_SS].ar |= VMM_AR_DPL; /* 15 */
    refused(&r);
    r.seg[VMM_TR].ar |= VMM_AR_UNUSABLE;
    refused(&r);
    r.seg[VMM_TR].base = 1ull << 63;
    refused(&r);
    r.seg[VMM_DS].limit = 0x12345678; /* 18: with G */
    refused(&r);
    r.seg[VMM_ES].ar &= ~VMM_AR_P;
    refused(&r);
    r.gdt.base = 1ull << 63; /* 20 */
    refused(&r);
    r.idt.base = 1ull << 63;
    refused(&r);
    r.dr[7] = 1ull << 32;
    refused(&r);
    r.dr[6] = 1ull << 32;
    refused(&r);
    r.pat = 2;
    refused(&r);
    r.lstar = 1ull << 63; /* 25 */
    refused(&r);
    r.kernel_gs_base = 1ull << 63;
    refused(&r);
    r.xcr0 = 2;
    refused(&r);
    r.activity = 4;
    refused(&r);
    r.shadow = 4;
    refused(&r);
    r.inject_valid = 2; /* 30 */
    refused(&r);
    r.reserved2 = 1;
    refused(&r);
    RUN(HLT);
    EQ(ex.rip, CODE + 1);
    end();
}

static void ready_made_states(void)
{
    static const struct {
        uint32_t mode, exit_mode;
        uint8_t cpl;
    } list[] = {{VMM_SETUP_REAL, VMM_MODE_REAL, 0},
                {VMM_SETUP_PROT32, VMM_MODE_PROT32, 0},
                {VMM_SETUP_LONG64, VMM_MODE_LONG64, 0},
                {VMM_SETUP_USER64, VMM_MODE_LONG64, 3}};
    struct vcpu_setup s = {.size = sizeof(s), .rsp = 0x8000, .tables = HIGH};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (unsigned i = 0; i < 4; i++) {
        LOAD(LONG64, halts);
        set_gpr(VMM_RCX, 5);
        poke(0x5000, 0xf4, 1);
        s.mode = list[i].mode;
        s.rip = list[i].mode == VMM_SETUP_REAL ? 0x15000 : 0x5000;
        if (list[i].mode == VMM_SETUP_REAL)
            poke(0x15000, 0xf4, 1);
        OK(vcpu_set_mode(cpu, &s));
        struct vcpu_regs r = get_regs(cpu);
        EQ(r.gpr[VMM_RCX], 0);
        EQ(r.gpr[VMM_RSP], 0x8000);
        EQ(r.rflags, 2);
        if (list[i].mode == VMM_SETUP_REAL) {
            EQ(r.seg[VMM_CS].base, 0x10000);
            EQ(r.rip, 0x5000);
            EQ(r.seg[VMM_DS].base, 0);
        } else {
            EQ(r.rip, 0x5000);
        }
        if (list[i].cpl) { /* HLT is #GP there, and there is no IDT */
            RUN(SHUTDOWN);
            if (lost_at_shutdown())
                continue;
        } else {
            RUN(HLT);
        }
        EQ(ex.mode, list[i].exit_mode);
        EQ(ex.cpl, list[i].cpl);
    }
    s.mode = VMM_SETUP_LONG64;
    s.tables = 0;
    RESULT(vcpu_set_mode(cpu, &s), VMM_E_INVAL);
    s.mode = 4;
    s.tables = HIGH;
    RESULT(vcpu_set_mode(cpu, &s), VMM_E_INVAL);
    end();
}

/* ---- x87 and vectors ---- */

GUEST(vectors, 64,
      "movups %xmm1, 0x3000\n"
      "movups %xmm15, 0x3010\n"
      "movups 0x3020, %xmm2\n"
      "stmxcsr 0x3030\n"
      "hlt");

#define AREA_MAX 16384
static _Alignas(64) uint8_t area[AREA_MAX], again[AREA_MAX];

static void vector_state(void)
{
    const uint32_t size = conform_caps.xsave_size;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, vectors);
    CHECK(size >= 576 && size <= AREA_MAX);
    RESULT(vcpu_get_xsave(cpu, area, size - 1), VMM_E_NOSPACE);
    OK(vcpu_get_xsave(cpu, area, size));
    for (unsigned i = 0; i < 256; i++)
        area[160 + i] = (uint8_t)i; /* XMM0-XMM15 */
    area[24] = 0x80;                /* MXCSR */
    area[25] = 0x3f;
    area[512] |= 3;
    RESULT(vcpu_set_xsave(cpu, area, 575), VMM_E_INVAL);
    OK(vcpu_set_xsave(cpu, area, size));
    OK(vcpu_get_xsave(cpu, again, size));
    CHECK(memcmp(again + 160, area + 160, 256) == 0);
    for (unsigned i = 0; i < 16; i++)
        poke(DATA + 0x20 + i, 0xc0 + i, 1);
    RUN(HLT);
    EQ(ex.rip, END_OF(vectors));
    CHECK(memcmp(ram + DATA, area + 176, 16) == 0);
    CHECK(memcmp(ram + DATA + 0x10, area + 160 + 240, 16) == 0);
    EQ(peek(DATA + 0x30, 4), 0x3f80);
    OK(vcpu_get_xsave(cpu, again, size));
    CHECK(memcmp(again + 160 + 32, ram + DATA + 0x20, 16) == 0);
    memcpy(area + 160 + 32, again + 160 + 32, 16);
    CHECK(memcmp(again + 160, area + 160, 256) == 0);
    end();
}

static void impossible_vector_state(void)
{
    static const unsigned bad[] = {24 + 2, 512 + 7, 512 + 16, 512 + 63};
    const uint32_t size = conform_caps.xsave_size;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vcpu_get_xsave(cpu, area, size));
    area[160] = 0x42;
    area[512] |= 2;
    OK(vcpu_set_xsave(cpu, area, size));
    OK(vcpu_get_xsave(cpu, again, size));
    for (unsigned i = 0; i < 4; i++) {
        memcpy(area, again, size);
        area[160] = 0x43;
        area[bad[i]] |= 0x80;
        if (vcpu_set_xsave(cpu, area, size) != VMM_E_INVAL)
            FAIL("byte %u was taken", bad[i]);
        OK(vcpu_get_xsave(cpu, area, size));
        CHECK(memcmp(area, again, size) == 0); /* nothing changed */
    }
    end();
}

GUEST(fpu, 64, "fninit\n fld1\n fldpi\n fldl2e\n fxsave 0x3000\n hlt");

static void x87_state(void)
{
    const uint32_t size = conform_caps.xsave_size;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, fpu);
    RUN(HLT);
    EQ(ex.rip, END_OF(fpu));
    OK(vcpu_get_xsave(cpu, area, size));
    EQ(area[0] | area[1] << 8, 0x37f);
    EQ((area[3] >> 3) & 7, 5); /* TOP */
    CHECK(memcmp(area + 32, ram + DATA + 32, 10) == 0);
    CHECK(memcmp(area + 48, ram + DATA + 48, 10) == 0);
    CHECK(memcmp(area + 64, "\0\0\0\0\0\0\0\x80\xff\x3f", 10) == 0); /* 1.0 */
    end();
}

/* ---- MSRs ---- */

static void msrs(void)
{
    static const struct {
        uint32_t index;
        uint64_t value;
    } list[] = {{0xc0000081, 0x0023001000000000},
                {0xc0000082, 0xffffffff81000000},
                {0xc0000102, 0xffff888000000000},
                {0xc0000100, 0x7fff00001000},
                {0xc0000101, 0xffff888000001000},
                {0x174, 0x10},
                {0x175, 0xffff888000002000},
                {0x277, 0x0007040600070106},
                {0xc0000103, 7}};
    uint64_t value;
    size_t n = sizeof(list) / sizeof(list[0]);

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    if (!cpu_has(0x80000001, 3, 27)) /* TSC_AUX comes with RDTSCP */
        n--;
    for (size_t i = 0; i < n; i++) {
        OK(vcpu_set_msr(cpu, list[i].index, list[i].value));
        OK(vcpu_get_msr(cpu, list[i].index, &value));
        EQ(value, list[i].value);
    }
    struct vcpu_regs r = get_regs(cpu);
    EQ(r.lstar, 0xffffffff81000000);
    EQ(r.kernel_gs_base, 0xffff888000000000);
    EQ(r.seg[VMM_FS].base, 0x7fff00001000);
    RESULT(vcpu_set_msr(cpu, 0xc0000082, 1ull << 63), VMM_E_INVAL);
    RESULT(vcpu_set_msr(cpu, 0x277, 2), VMM_E_INVAL);
    OK(vcpu_get_msr(cpu, 0xc0000082, &value));
    EQ(value, 0xffffffff81000000);
    RESULT(vcpu_get_msr(cpu, 0x12345678, &value), VMM_E_NOENT);
    RESULT(vcpu_set_msr(cpu, 0x12345678, 0), VMM_E_NOENT);
    OK(vcpu_msr_policy(cpu, 0, UINT32_MAX, VMM_MSR_DENY)); /* whatever the policy */
    OK(vcpu_get_msr(cpu, 0xc0000082, &value));
    EQ(value, 0xffffffff81000000);
    RUN(HLT);
    end();
}

static const struct conform_case cases[] = {
    CASE(round_trip, "every register is read back as it was set, in every mode"),
    CASE(round_trip_through_the_guest, "and after guest code that changes none of them"),
    CASE(groups_are_apart, "only the groups that are named are read and written"),
    CASE(the_guest_sees_them, "the guest sees what was set"),
    CASE(what_the_guest_changes, "what the guest changes is read"),
    CASE(impossible_states, "an impossible state is VMM_E_INVAL and nothing has changed"),
    CASE(ready_made_states, "vcpu_set_mode gives states that run"),
    CASE(vector_state, "vector registers by vcpu_get_xsave and vcpu_set_xsave"),
    CASE(impossible_vector_state, "impossible XSAVE areas are refused and change nothing"),
    CASE(x87_state, "x87 registers in the XSAVE area"),
    CASE(msrs, "vcpu_get_msr and vcpu_set_msr, whatever the guest's policy"),
};

AREA(registers, cases);
