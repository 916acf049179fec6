/* SPDX-License-Identifier: BSD-2-Clause */
/* test_state.c: registers and vector state of the software CPU for the outside, and the modes. */
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "x86_expect.h"

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    return f;
}

static struct vcpu_regs get(struct fake *f, uint32_t groups)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = groups};

    x86_get_regs(f->cpu, &r);
    return r;
}

#define ACCEPTS(f, r) ck_assert_ptr_null(x86_set_regs((f)->cpu, &(r)))
#define REJECTS(f, r, text)                                                                        \
    do {                                                                                           \
        const char *wrong_ = x86_set_regs((f)->cpu, &(r));                                         \
        ck_assert_ptr_nonnull(wrong_);                                                             \
        ck_assert_str_eq(wrong_, text);                                                            \
    } while (0)

/* ---- modes ---- */

START_TEST(mode_names)
{
    struct fake *f = fake_new();

    fake_real(f);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_REAL);
    fake_prot16(f);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_PROT16);
    fake_prot32(f);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_PROT32);
    f->cpu->rflags |= X86_VM;
    x86_cs_changed(f->cpu);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_VM86);
    fake_long64(f);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_LONG64);
    f->cpu->seg[VMM_CS].ar ^= VMM_AR_L | VMM_AR_DB;
    x86_cs_changed(f->cpu);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_COMPAT32);
    f->cpu->seg[VMM_CS].ar ^= VMM_AR_DB;
    x86_cs_changed(f->cpu);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_COMPAT16);
    fake_free(f);
}
END_TEST

START_TEST(mode_bits_and_masks)
{
    struct fake *f = fake_new();

    fake_real(f);
    ck_assert_uint_eq(f->cpu->mode, X86_MODE_CODE16);
    ck_assert_uint_eq(f->cpu->rip_mask, 0xffff);
    ck_assert_uint_eq(f->cpu->sp_mask, 0xffff);
    fake_prot32(f);
    ck_assert_uint_eq(f->cpu->mode,
                      X86_MODE_CODE32 | X86_MODE_STACK32 | X86_MODE_FLAT | X86_MODE_PE);
    ck_assert_uint_eq(f->cpu->rip_mask, 0xffffffff);
    f->cpu->seg[VMM_ES].base = 16;
    x86_cs_changed(f->cpu);
    ck_assert(!(f->cpu->mode & X86_MODE_FLAT));
    f->cpu->seg[VMM_ES].base = 0;
    f->cpu->seg[VMM_DS].ar &= ~2u; /* read-only */
    x86_cs_changed(f->cpu);
    ck_assert(!(f->cpu->mode & X86_MODE_FLAT));
    f->cpu->seg[VMM_DS].ar |= 2u;
    f->cpu->seg[VMM_SS].ar &= ~VMM_AR_DB;
    x86_cs_changed(f->cpu);
    ck_assert_uint_eq(f->cpu->sp_mask, 0xffff);
    fake_long64(f);
    ck_assert_uint_eq(f->cpu->mode, X86_MODE_CODE64 | X86_MODE_PE);
    ck_assert_uint_eq(f->cpu->rip_mask, ~(uint64_t)0);
    f->cpu->rflags |= X86_TF;
    fake_user(f);
    ck_assert_uint_eq(f->cpu->mode,
                      X86_MODE_CODE64 | X86_MODE_PE | X86_MODE_SINGLE | X86_MODE_CPL3);
    ck_assert_uint_eq(f->cpu->mmu_idx, MMU_USER);
    fake_free(f);
}
END_TEST

START_TEST(rflags_round_trip)
{
    struct fake *f = fake_new();

    for (uint32_t bit = 1; bit < 1u << 24; bit <<= 1) {
        x86_set_rflags(f->cpu, bit);
        ck_assert_uint_eq(x86_get_rflags(f->cpu), 2 | (bit & 0x3f7fd7));
    }
    fake_free(f);
}
END_TEST

/* ---- reading and writing ---- */

START_TEST(everything_comes_back)
{
    struct fake *f = long64(), *g = fake_new();
    struct vcpu_regs r, s;

    for (unsigned i = 0; i < 16; i++)
        f->cpu->gpr[i] = i * 0x0101010101010101ull;
    f->cpu->rip = 0xffffffff81000000;
    x86_set_rflags(f->cpu, 0x246);
    f->cpu->cr2 = 0x1234;
    f->cpu->dr.addr[3] = 0x42;
    f->cpu->dr.dr7 = 0x4c0; /* armed */
    f->cpu->lstar = 0xffffffff82000000;
    f->cpu->star = 0x0023001000000000;
    f->cpu->pat = 6;
    f->cpu->tsc_aux = 3;
    f->cpu->nmi_blocked = true;
    f->cpu->event = (struct x86_event){.valid = true,
                                       .type = X86_EVENT_EXCEPTION,
                                       .vector = X86_GP,
                                       .has_error = true,
                                       .error = 0x18};
    f->cr8 = g->cr8 = 0;
    r = get(f, VMM_REGS_ALL);
    ck_assert_uint_eq(r.rflags, 0x246);
    ck_assert_uint_eq(r.inject_vector, X86_GP);
    memcpy(g->mem, f->mem, FAKE_MEM);
    ACCEPTS(g, r);
    s = get(g, VMM_REGS_ALL);
    ck_assert_mem_eq(&r, &s, sizeof(r));
    ck_assert_uint_eq(g->cpu->mode, f->cpu->mode | X86_MODE_SINGLE);
    ck_assert_uint_eq(g->cpu->event.error, 0x18);
    fake_free(f);
    fake_free(g);
}
END_TEST

START_TEST(only_the_groups_asked_for)
{
    struct fake *f = long64();
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR, .cr0 = 0x77};

    x86_get_regs(f->cpu, &r);
    ck_assert_uint_eq(r.cr0, 0x77);
    ck_assert_uint_eq(r.rip, FAKE_TEXT);
    r.rip = 0x5000;
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->rip, 0x5000);
    ck_assert_uint_ne(f->cpu->cr0, 0x77);
    fake_free(f);
}
END_TEST

START_TEST(all_modes_are_accepted)
{
    struct fake *f = fake_new();
    struct vcpu_regs r;

    fake_real(f);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    fake_prot16(f);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    fake_prot32(f);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    fake_user(f);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    fake_long64(f);
    fake_user(f);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    x86_reset(f->cpu, false);
    r = get(f, VMM_REGS_ALL);
    ACCEPTS(f, r);
    fake_free(f);
}
END_TEST

START_TEST(modes_are_entered)
{
    struct fake *f = long64();
    struct vcpu_regs r = get(f, VMM_REGS_ALL);

    x86_reset(f->cpu, false);
    ACCEPTS(f, r);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_LONG64);
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_4LEVEL);
    fake_free(f);
}
END_TEST

START_TEST(cpl_is_that_of_an_unusable_ss)
{
    struct fake *f = long64();
    struct vcpu_regs r;

    fake_user(f);
    f->cpu->seg[VMM_SS].ar = VMM_AR_UNUSABLE;
    r = get(f, VMM_REGS_SEG);
    ck_assert_uint_eq(r.seg[VMM_SS].ar, VMM_AR_UNUSABLE | VMM_AR_DPL);
    f->cpu->cpl = 0;
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    fake_free(f);
}
END_TEST

START_TEST(software_interrupts_are_raised_again)
{
    struct fake *f = long64();

    f->cpu->event = (struct x86_event){.valid = true, .type = X86_EVENT_SOFT_INT, .vector = 0x80};
    ck_assert_uint_eq(get(f, VMM_REGS_EVENTS).inject_valid, 0);
    fake_free(f);
}
END_TEST

START_TEST(page_fault_keeps_its_address)
{
    struct fake *f = long64();
    struct vcpu_regs r;

    f->cpu->cr2 = 1;
    f->cpu->event = (struct x86_event){.valid = true,
                                       .type = X86_EVENT_EXCEPTION,
                                       .vector = X86_PF_,
                                       .has_error = true,
                                       .has_cr2 = true,
                                       .cr2 = 0x5555};
    r = get(f, VMM_REGS_ALL);
    ck_assert_uint_eq(r.cr2, 0x5555);
    r.groups = VMM_REGS_EVENTS;
    ACCEPTS(f, r);
    ck_assert(f->cpu->event.has_cr2);
    r.groups = VMM_REGS_ALL;
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->cr2, 0x5555);
    fake_free(f);
}
END_TEST

/* ---- checks ---- */

enum start { REAL, PROT, LONG };

/* One wrong value each: where it is in struct vcpu_regs, and what it becomes. */
static const struct wrong {
    enum start start;
    uint32_t groups;
    size_t offset;
    unsigned size;
    uint64_t value;
    const char *text;
} wrongs[] = {
#define W(start, group, member, value, text)                                                       \
    {                                                                                              \
        start, VMM_REGS_##group, offsetof(struct vcpu_regs, member),                               \
            sizeof(((struct vcpu_regs *)0)->member), value, text                                   \
    }
    W(LONG, CONTROL, cr0, 0x1000080000011ull, "CR0: reserved bits"),
    W(LONG, CONTROL, cr0, 0x80000010, "CR0.PG without CR0.PE"),
    W(LONG, CONTROL, cr0, 0xa0000011, "CR0.NW without CR0.CD"),
    W(LONG, CONTROL, cr0, 0x11, "EFER.LMA is not EFER.LME and CR0.PG"),
    W(LONG, CONTROL, cr3, 1ull << 40, "CR3: bits above the physical address width"),
    W(LONG, CONTROL, cr4, 1u << 13 | 0x20, "CR4: bits that CPUID does not have"),
    W(LONG, CONTROL, cr4, 0, "EFER.LMA without CR4.PAE"),
    W(PROT, CONTROL, cr4, 1u << 17, "CR4.PCIDE without EFER.LMA"),
    W(LONG, CONTROL, cr8, 16, "CR8: above 15"),
    W(LONG, CONTROL, efer, 2, "EFER: bits that CPUID does not have"),
    W(LONG, CONTROL, efer, 0x100, "EFER.LMA is not EFER.LME and CR0.PG"),
    W(PROT, CONTROL, efer, 0x500, "EFER.LMA is not EFER.LME and CR0.PG"),
    W(LONG, CONTROL, xcr0, 5, "XCR0: impossible combination"),
    W(LONG, DEBUG, dr[6], 1ull << 32, "DR6: bits 63:32"),
    W(LONG, DEBUG, dr[7], 1ull << 32, "DR7: bits 63:32"),
    W(LONG, MSR, sysenter_esp, 1ull << 63, "IA32_SYSENTER_ESP: not canonical"),
    W(LONG, MSR, sysenter_eip, 1ull << 63, "IA32_SYSENTER_EIP: not canonical"),
    W(LONG, MSR, sysenter_cs, 1ull << 32, "IA32_SYSENTER_CS: bits 63:32"),
    W(LONG, MSR, lstar, 1ull << 47, "IA32_LSTAR: not canonical"),
    W(LONG, MSR, cstar, 1ull << 47, "IA32_CSTAR: not canonical"),
    W(LONG, MSR, sfmask, 1ull << 32, "IA32_FMASK: bits 63:32"),
    W(LONG, MSR, tsc_aux, 1ull << 32, "IA32_TSC_AUX: bits 63:32"),
    W(LONG, MSR, kernel_gs_base, 1ull << 47, "IA32_KERNEL_GS_BASE: not canonical"),
    W(LONG, MSR, pat, 2, "IA32_PAT: invalid memory type"),
    W(LONG, GPR, rflags, 0, "RFLAGS: bit 1 is clear"),
    W(LONG, GPR, rflags, 2 | 8, "RFLAGS: reserved bits"),
    W(LONG, GPR, rflags, 2 | 1ull << 40, "RFLAGS: reserved bits"),
    W(LONG, GPR, rflags, 2 | X86_VM, "RFLAGS.VM outside of legacy protected mode"),
    W(REAL, GPR, rflags, 2 | X86_VM, "RFLAGS.VM outside of legacy protected mode"),
    W(PROT, GPR, rflags, 2 | X86_VM, "virtual-8086 mode: segment base is not 16 * selector"),
    W(LONG, GPR, rip, 1ull << 47, "RIP: not canonical"),
    W(PROT, GPR, rip, 1ull << 32, "RIP: bits 63:32 outside of 64-bit mode"),
    W(LONG, SEG, seg[VMM_CS].ar, VMM_AR_UNUSABLE, "CS: unusable"),
    W(LONG, SEG, seg[VMM_CS].ar, 0x693, "CS: reserved access rights"),
    W(LONG, SEG, seg[VMM_CS].ar, 0xa098, "CS: type"), /* not accessed */
    W(LONG, SEG, seg[VMM_CS].ar, 0xa08b, "CS: S bit"),
    W(LONG, SEG, seg[VMM_CS].ar, 0xa01b, "CS: not present"),
    W(LONG, SEG, seg[VMM_CS].ar, 0x209b, "CS: limit and granularity"),
    W(LONG, SEG, seg[VMM_CS].limit, 0xfff00, "CS: limit and granularity"),
    W(LONG, SEG, seg[VMM_CS].ar, 0xe09b, "CS: L and D/B"),
    W(LONG, SEG, seg[VMM_CS].ar, 0xa0fb, "CS: DPL is not that of SS"),
    W(LONG, SEG, seg[VMM_CS].ar, 0xa0ff, "CS: DPL above that of SS"),
    W(PROT, SEG, seg[VMM_CS].ar, 0xc0f3, "CS: DPL of a data segment is not 0"),
    W(LONG, SEG, seg[VMM_CS].base, 1ull << 32, "CS: base"),
    W(LONG, SEG, seg[VMM_SS].ar, 0xc091, "SS: type"), /* read-only */
    W(REAL, SEG, seg[VMM_SS].ar, 0xf3, "CS: DPL is not that of SS"),
    W(LONG, SEG, seg[VMM_DS].ar, 0xc092, "DS: type"), /* not accessed */
    W(LONG, SEG, seg[VMM_ES].ar, 0xc099, "ES: type"), /* not readable */
    W(LONG, SEG, seg[VMM_DS].base, 1ull << 32, "DS: base"),
    W(LONG, SEG, seg[VMM_FS].base, 1ull << 47, "FS: base"),
    W(LONG, SEG, seg[VMM_GS].base, 1ull << 47, "GS: base"),
    W(LONG, SEG, seg[VMM_TR].ar, VMM_AR_UNUSABLE, "TR: unusable"),
    W(LONG, SEG, seg[VMM_TR].ar, 0x83, "TR: type"),
    W(LONG, SEG, seg[VMM_TR].ar, 0x89, "TR: type"), /* not busy */
    W(LONG, SEG, seg[VMM_TR].ar, 0x9b, "TR: S bit"),
    W(LONG, SEG, seg[VMM_TR].selector, 0x4c, "TR: selector with TI"),
    W(LONG, SEG, seg[VMM_TR].base, 1ull << 47, "TR: base"),
    W(LONG, SEG, seg[VMM_LDTR].ar, 0x83, "LDTR: type"),
    W(LONG, SEG, seg[VMM_LDTR].selector, 4, "LDTR: selector with TI"),
    W(LONG, DT, gdt.base, 1ull << 47, "GDTR: base is not canonical"),
    W(LONG, DT, idt.base, 1ull << 47, "IDTR: base is not canonical"),
    W(LONG, EVENTS, activity, 4, "activity: unknown"),
    W(LONG, EVENTS, shadow, 4, "shadow: reserved bits"),
    W(LONG, EVENTS, shadow, 3, "shadow: both STI and MOV SS"),
    W(LONG, EVENTS, shadow, 1, "shadow: STI while RFLAGS.IF is clear"),
#undef W
};

static void start(struct fake *f, enum start mode)
{
    if (mode == REAL)
        fake_real(f);
    else if (mode == PROT)
        fake_prot32(f);
    else
        fake_long64(f);
}

START_TEST(wrong_values_are_named)
{
    for (unsigned i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        const struct wrong *w = &wrongs[i];
        struct fake *f = fake_new();
        struct vcpu_regs r, before, after;
        const char *text;

        start(f, w->start);
        before = get(f, VMM_REGS_ALL);
        r = get(f, w->groups);
        memcpy((uint8_t *)&r + w->offset, &w->value, w->size);
        text = x86_set_regs(f->cpu, &r);
        ck_assert_msg(text && strcmp(text, w->text) == 0, "\"%s\", not \"%s\"",
                      text ? text : "accepted", w->text);
        after = get(f, VMM_REGS_ALL);
        ck_assert_mem_eq(&before, &after, sizeof(before));
        fake_free(f);
    }
}
END_TEST

START_TEST(virtual_8086_segments)
{
    struct fake *f = fake_new();
    struct vcpu_regs r;

    fake_prot32(f);
    r = get(f, VMM_REGS_GPR | VMM_REGS_SEG);
    r.rflags = 2 | X86_VM;
    r.rip = 0;
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        r.seg[i] = (struct vmm_segment){0x1000, 0xffff, 0xf3, 0x100, {0}};
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_VM86);
    r.seg[VMM_FS].base = 0x1010;
    REJECTS(f, r, "virtual-8086 mode: segment base is not 16 * selector");
    r.seg[VMM_FS].base = 0x1000;
    r.seg[VMM_ES].ar = 0x93;
    REJECTS(f, r, "virtual-8086 mode: access rights are not F3H");
    fake_free(f);
}
END_TEST

START_TEST(injected_events)
{
    struct fake *f = long64();
    struct vcpu_regs r = get(f, VMM_REGS_EVENTS);

    r.inject_valid = 1;
    r.inject_type = VMM_EVENT_INTERRUPT;
    r.inject_vector = 0x30;
    REJECTS(f, r, "injection: external interrupt while RFLAGS.IF is clear");
    f->cpu->rflags |= X86_IF;
    ACCEPTS(f, r);
    r.shadow = VMM_SHADOW_STI;
    REJECTS(f, r, "injection: external interrupt in an interrupt shadow");
    r.shadow = VMM_SHADOW_MOV_SS;
    r.inject_type = VMM_EVENT_NMI;
    r.inject_vector = 2;
    REJECTS(f, r, "injection: NMI behind MOV SS");
    r.shadow = 0;
    ACCEPTS(f, r);
    r.inject_vector = 3;
    REJECTS(f, r, "injection: NMI with a vector other than 2");
    r.inject_type = VMM_EVENT_EXCEPTION;
    r.inject_vector = 32;
    REJECTS(f, r, "injection: exception vector above 31");
    r.inject_vector = X86_PF_;
    REJECTS(f, r, "injection: error code missing");
    r.inject_has_error = 1;
    r.inject_error = 0x10000;
    REJECTS(f, r, "injection: error code bits 31:16");
    r.inject_error = 2;
    ACCEPTS(f, r);
    r.inject_vector = X86_UD;
    REJECTS(f, r, "injection: error code without need");
    r.inject_type = 1;
    REJECTS(f, r, "injection: unknown type");

    r = get(f, VMM_REGS_EVENTS);
    r.inject_valid = 0;
    r.activity = VMM_HALTED;
    ACCEPTS(f, r);
    r.shadow = VMM_SHADOW_STI;
    REJECTS(f, r, "shadow: while not active");
    fake_long64(f);
    fake_user(f);
    r.shadow = 0;
    REJECTS(f, r, "activity: halted at a CPL other than 0");
    fake_free(f);
}
END_TEST

START_TEST(pdptes_are_checked)
{
    struct fake *f = fake_new();
    struct vcpu_regs r;

    fake_prot32(f);
    fake_put(f, FAKE_DATA, 8, 3); /* reserved bit */
    r = get(f, VMM_REGS_CONTROL);
    r.cr3 = FAKE_DATA;
    r.cr4 = X86_CR4_PAE;
    r.cr0 |= X86_CR0_PG;
    REJECTS(f, r, "CR3: PDPTE with reserved bits");
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_NONE);
    fake_put(f, FAKE_DATA, 8, FAKE_PD | 1);
    ACCEPTS(f, r);
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_PAE);
    fake_free(f);
}
END_TEST

/* ---- the XSAVE area ---- */

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

START_TEST(xsave_round_trip)
{
    struct fake *f = long64(), *g = long64();
    uint8_t area[X86_XSAVE_MAX], again[X86_XSAVE_MAX];
    struct x86_fpu *p = &f->cpu->fpu;

    ck_assert_uint_eq(x86_xsave_size(f->cpu), X86_XSAVE_MAX);
    for (unsigned i = 0; i < 32; i++)
        for (unsigned j = 0; j < 64; j++)
            p->vec[i][j] = (uint8_t)(i * 64 + j + 1);
    for (unsigned i = 0; i < 8; i++) {
        p->k[i] = i + 1;
        for (unsigned j = 0; j < 10; j++)
            p->x87[i][j] = (uint8_t)(i + j + 1);
    }
    p->fcw = 0x37e;
    p->fsw = 0x3800;
    p->ftw = 0x81;
    p->fop = 0x123;
    p->fip = 0xffff800000001234;
    p->fdp = 0x5678;
    p->mxcsr = 0x1fa0;
    p->xinuse = 0xe7;
    x86_set_pkru(f->cpu, 0x55555554);
    x86_get_xsave(f->cpu, area, sizeof(area));
    ck_assert_uint_eq(area[512], 0xe7);
    ck_assert_uint_eq(area[513], 0x02);
    ck_assert_mem_eq(area + 160, p->vec[0], 16);
    ck_assert_mem_eq(area + 576 + 15 * 16, p->vec[15] + 16, 16);
    ck_assert_mem_eq(area + 1664 + 64, p->vec[17], 64);
    ck_assert(x86_set_xsave(g->cpu, area, sizeof(area)));
    ck_assert_mem_eq(g->cpu->fpu.vec, p->vec, sizeof(p->vec));
    ck_assert_mem_eq(g->cpu->fpu.x87, p->x87, sizeof(p->x87));
    ck_assert_mem_eq(g->cpu->fpu.k, p->k, sizeof(p->k));
    ck_assert_uint_eq(g->cpu->pkru, 0x55555554);
    ck_assert_uint_eq(g->cpu->mmu.pkru, 0x55555554);
    x86_get_xsave(g->cpu, again, sizeof(again));
    ck_assert_mem_eq(area, again, sizeof(area));
    fake_free(f);
    fake_free(g);
}
END_TEST

START_TEST(xsave_initial_state)
{
    struct fake *f = long64();
    uint8_t area[X86_XSAVE_MAX] = {0};

    memset(f->cpu->fpu.vec, 0xee, sizeof(f->cpu->fpu.vec));
    f->cpu->pkru = 1;
    area[25] = 0x1f; /* MXCSR */
    area[24] = 0x80;
    memset(area + 160, 0x11, 16);
    put64(area + 512, 2);
    ck_assert(x86_set_xsave(f->cpu, area, 576));
    ck_assert_uint_eq(f->cpu->fpu.vec[0][0], 0x11);
    ck_assert_uint_eq(f->cpu->fpu.vec[0][16], 0);
    ck_assert_uint_eq(f->cpu->fpu.vec[31][0], 0);
    ck_assert_uint_eq(f->cpu->fpu.fcw, 0x37f);
    ck_assert_uint_eq(f->cpu->fpu.ftw, 0);
    ck_assert_uint_eq(f->cpu->pkru, 0);
    ck_assert_uint_eq(x86_xinuse(f->cpu), 2);
    fake_free(f);
}
END_TEST

START_TEST(xsave_rejects_bad_areas)
{
    struct fake *f = long64();
    uint8_t area[X86_XSAVE_MAX] = {0};

    ck_assert(!x86_set_xsave(f->cpu, area, 575));
    ck_assert(x86_set_xsave(f->cpu, area, 576));
    put64(area + 512, 4); /* AVX, which does not fit */
    ck_assert(!x86_set_xsave(f->cpu, area, 576));
    ck_assert(x86_set_xsave(f->cpu, area, 832));
    put64(area + 512, 8); /* no such component */
    ck_assert(!x86_set_xsave(f->cpu, area, sizeof(area)));
    put64(area + 512, 1);
    put64(area + 520, 1ull << 63); /* compacted */
    ck_assert(!x86_set_xsave(f->cpu, area, sizeof(area)));
    put64(area + 520, 0);
    area[575] = 1; /* the header's reserved bytes */
    ck_assert(!x86_set_xsave(f->cpu, area, sizeof(area)));
    area[575] = 0;
    area[26] = 1; /* MXCSR bit 16 */
    ck_assert(!x86_set_xsave(f->cpu, area, sizeof(area)));
    fake_free(f);
}
END_TEST

EXPECT_MAIN("state", mode_names, mode_bits_and_masks, rflags_round_trip, everything_comes_back,
            only_the_groups_asked_for, all_modes_are_accepted, modes_are_entered,
            cpl_is_that_of_an_unusable_ss, software_interrupts_are_raised_again,
            page_fault_keeps_its_address, wrong_values_are_named, virtual_8086_segments,
            injected_events, pdptes_are_checked, xsave_round_trip, xsave_initial_state,
            xsave_rejects_bad_areas)
