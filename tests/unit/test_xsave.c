/* SPDX-License-Identifier: BSD-2-Clause */
/* test_xsave.c: FXSAVE, the XSAVE family and their counterparts. */
#define _GNU_SOURCE
#include <check.h>

#include "native.h"

#define AREA (NATIVE_DATA + 0x200)

static struct fake *fake;
static unsigned run;
static uint8_t before[NATIVE_SIZE], after[NATIVE_SIZE];

static const uint8_t save_codes[][5] = {
    {0x0f, 0xae, 0x03}, {0x48, 0x0f, 0xae, 0x03}, /* FXSAVE */
    {0x0f, 0xae, 0x23}, {0x48, 0x0f, 0xae, 0x23}, /* XSAVE */
    {0x0f, 0xae, 0x33}, {0x48, 0x0f, 0xae, 0x33}, /* XSAVEOPT */
    {0x0f, 0xc7, 0x23}, {0x48, 0x0f, 0xc7, 0x23}, /* XSAVEC */
};
static const uint8_t load_codes[][5] = {
    {0x0f, 0xae, 0x0b},
    {0x48, 0x0f, 0xae, 0x0b}, /* FXRSTOR */
    {0x0f, 0xae, 0x2b},
    {0x48, 0x0f, 0xae, 0x2b}, /* XRSTOR */
};

static void random_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)rnd();
}

/* Components that are not in `use` stay in their initial state. */
static void random_state(struct native_state *s, uint64_t use)
{
    memset(s, 0, sizeof(*s));
    s->xsave[0] = 0x7f;
    s->xsave[1] = 3;
    s->xsave[24] = 0x80;
    s->xsave[25] = 0x1f;
    if (use & 1) {
        s->xsave[1] = (uint8_t)(rnd() & 15);
        s->xsave[3] = (uint8_t)(rnd() & 0x7f);
        random_bytes(s->xsave + 4, 1);
        for (unsigned i = 0; i < 8; i++)
            random_bytes(s->xsave + 32 + 16 * i, 10);
    }
    if (rnd() % 2)
        s->xsave[25] |= (uint8_t)(rnd() & 0xe0);
    if (use & 2)
        random_bytes(s->xsave + 160, 256);
    for (unsigned i = 2; i < 8; i++)
        if (use >> i & 1)
            random_bytes(s->xsave + x86_xcomp[i].offset, x86_xcomp[i].size);
    random_bytes(s->gpr, sizeof(s->gpr));
    s->flags = 0x202;
    s->gpr[VMM_RBX] = AREA;
    s->gpr[VMM_RAX] = rnd() & native_xcr0();
    if (rnd() % 4 == 0)
        s->gpr[VMM_RAX] = native_xcr0();
    s->gpr[VMM_RDX] = 0;
}

static bool decode(const uint8_t *code)
{
    ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoder z;

    ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, 5, &native_insn, opnd));
}

/* What the real CPU has that CPUID of the guest must tell. */
static void setup(void)
{
    uint32_t a, b, c, d;

    if (!native_setup())
        exit(77);
    fake = native_fake();
    fake->cpu->xcr0 = native_xcr0();
    __cpuid_count(7, 0, a, b, c, d);
    fake->cpu->feat.l7_ebx = b;
    __cpuid_count(13, 1, fake->cpu->feat.xsave_eax, b, c, d);
    __cpuid(0x80000008, a, b, c, d);
    fake->cpu->feat.linear_bits = a >> 8 & 0xff;
}

static void emulate(struct native_state *s, const uint8_t *code, struct native_end *end)
{
    struct x86_fpu *f = &fake->cpu->fpu;

    f->fip = f->fdp = 0;
    f->fop = f->fcs = f->fds = 0;
    memcpy(fake->mem + NATIVE_DATA, before, NATIVE_SIZE);
    *end = native_emulate(fake, s, code, native_insn.length);
}

static struct native_end real(struct native_state *s, const uint8_t *code)
{
    struct native_end end;

    memcpy((void *)NATIVE_DATA, before, NATIVE_SIZE);
    end = native_run(s, code, native_insn.length);
    memcpy(after, (void *)NATIVE_DATA, NATIVE_SIZE);
    return end;
}

static void check_end(const uint8_t *code, const struct native_end *n, const struct native_end *e)
{
    run++;
    if (n->vector != e->vector || n->cr2 >> 12 != e->cr2 >> 12)
        if (n->vector != e->vector || n->vector == X86_PF_)
            native_report(code, "exception", n, e);
}

/* All components in use: the images must be equal, byte for byte. */
START_TEST(saves_as_the_real_cpu)
{
    static struct native_state in, n, e;
    struct native_end nr, er;

    for (unsigned i = 0; i < sizeof(save_codes) / sizeof(save_codes[0]); i++)
        for (unsigned j = 0; j < native_count(60); j++) {
            if (!decode(save_codes[i]))
                continue;
            random_state(&in, 0xe7);
            random_bytes(before, sizeof(before));
            switch (rnd() % 8) {
            case 0:
                in.gpr[VMM_RBX] = NATIVE_END - rnd() % 50 * 64;
                break;
            case 1:
                in.gpr[VMM_RBX] += rnd() % 64;
                break;
            default:
                break;
            }
            n = e = in;
            nr = real(&n, save_codes[i]);
            emulate(&e, save_codes[i], &er);
            check_end(save_codes[i], &nr, &er);
            if (nr.vector < 0 && memcmp(after, fake->mem + NATIVE_DATA, NATIVE_SIZE)) {
                native_report(save_codes[i], "memory", &nr, &er);
                native_dump("mem", after, fake->mem + NATIVE_DATA, NATIVE_SIZE);
            }
        }
    ck_assert_uint_eq(native_wrong, 0);
    ck_assert_uint_ge(run, 100);
    fake_free(fake);
}
END_TEST

/* A component that may be one of the host's, but none that the library does not have, as AMX. */
static uint64_t any_component(void)
{
    uint64_t bit = 1ull << rnd() % 64;

    return bit & native_all_xcr0() & ~native_xcr0() ? 1ull << 62 : bit;
}

/* Areas with and without components, compacted or not, some with invalid headers. */
static void random_area(uint8_t *p)
{
    uint64_t bv = rnd() & native_xcr0(), comp = 0;
    uint32_t mxcsr = rnd() & 0xffff;

    memset(p + 512, 0, 64);
    if (rnd() % 2) {
        comp = 1ull << 63 | (rnd() & native_xcr0());
        if (rnd() % 8)
            comp |= bv;
    }
    if (rnd() % 8 == 0)
        comp |= any_component();
    if (rnd() % 8 == 0)
        bv |= any_component();
    if (rnd() % 8 == 0)
        mxcsr |= 1u << rnd() % 32;
    if (rnd() % 8 == 0)
        p[528 + rnd() % 48] = 1;
    memcpy(p + 512, &bv, 8);
    memcpy(p + 520, &comp, 8);
    memcpy(p + 24, &mxcsr, 4);
    p[0] = 0x7f; /* nothing pending */
}

START_TEST(loads_as_the_real_cpu)
{
    static struct native_state in, n, e;
    struct native_end nr, er;
    uint64_t offset;

    for (unsigned i = 0; i < sizeof(load_codes) / sizeof(load_codes[0]); i++)
        for (unsigned j = 0; j < native_count(300); j++) {
            if (!decode(load_codes[i]))
                continue;
            random_state(&in, rnd() & native_xcr0());
            random_bytes(before, sizeof(before));
            if (rnd() % 8 == 0)
                in.gpr[VMM_RBX] = NATIVE_END - 576 - rnd() % 40 * 64;
            offset = in.gpr[VMM_RBX] - NATIVE_DATA;
            random_area(before + offset);
            if (rnd() % 16 == 0)
                in.gpr[VMM_RBX] += 8;
            n = e = in;
            nr = real(&n, load_codes[i]);
            emulate(&e, load_codes[i], &er);
            if (nr.vector == X86_PF_ && er.vector != X86_PF_)
                continue; /* the processor looks at parts that are not loaded, or earlier */
            check_end(load_codes[i], &nr, &er);
            if (nr.vector >= 0)
                continue; /* may have loaded a part */
            memcpy(e.xsave + 6, &fake->cpu->fpu.fop, 2);
            memcpy(e.xsave + 8, &fake->cpu->fpu.fip, 8);
            memcpy(e.xsave + 16, &fake->cpu->fpu.fdp, 8);
            memcpy(n.xsave + 28, e.xsave + 28, 4);
            memcpy(n.xsave + 416, e.xsave + 416, 96);
            memcpy(n.xsave + 832, e.xsave + 832, 256);
            for (unsigned c = 1; c < 8; c++)
                if (x86_xcomp[c].size && !(n.xsave[512] >> c & 1))
                    memset(n.xsave + x86_xcomp[c].offset, 0, x86_xcomp[c].size);
            if (!(n.xsave[512] & 1))
                memset(n.xsave + 32, 0, 128);
            memcpy(n.xsave + 512, e.xsave + 512, 64);
            if (memcmp(n.xsave, e.xsave, 2688)) {
                native_report(load_codes[i], "registers", &nr, &er);
                native_dump("xsave", n.xsave, e.xsave, 2688);
            }
        }
    ck_assert_uint_eq(native_wrong, 0);
    ck_assert_uint_ge(run, 100);
    fake_free(fake);
}
END_TEST

/* ---- without the real CPU ---- */

static struct native_end step(const char *bytes, unsigned len)
{
    static struct native_state s;
    struct native_end end;

    ck_assert(decode((const uint8_t *)bytes));
    ck_assert_uint_eq(native_insn.length, len);
    native_from_cpu(&s, fake->cpu);
    memcpy(s.gpr, fake->cpu->gpr, sizeof(s.gpr));
    end = native_emulate(fake, &s, (const uint8_t *)bytes, len);
    return end;
}

static void setup_plain(void)
{
    fake = fake_new();
    fake_long64(fake);
    fake->cpu->gpr[VMM_RBX] = AREA;
    fake->cpu->gpr[VMM_RAX] = 0x2e7;
    fake->cpu->gpr[VMM_RDX] = 0;
    fake->cpu->fpu.fcw = 0x37f;
    fake->cpu->fpu.ftw = 0;
}

#define FXSAVE  "\x0f\xae\x03\0", 3
#define FXRSTOR "\x0f\xae\x0b\0", 3
#define XSAVE   "\x0f\xae\x23\0", 3
#define XSAVEC  "\x0f\xc7\x23\0", 3
#define XSAVES  "\x0f\xc7\x2b\0", 3
#define XRSTOR  "\x0f\xae\x2b\0", 3
#define XRSTORS "\x0f\xc7\x1b\0", 3

START_TEST(faults)
{
    struct x86_cpu *cpu = fake->cpu;

    ck_assert_int_eq(step(XSAVE).vector, -1);
    ck_assert_int_eq(step(XSAVES).vector, -1);
    ck_assert_int_eq(step(XRSTORS).vector, -1);
    cpu->cr0 |= X86_CR0_TS;
    ck_assert_int_eq(step(FXSAVE).vector, X86_NM);
    ck_assert_int_eq(step(XSAVE).vector, X86_NM);
    ck_assert_int_eq(step(XRSTOR).vector, X86_NM);
    cpu->cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    ck_assert_int_eq(step(XSAVE).vector, X86_UD);
    ck_assert_int_eq(step(XRSTORS).vector, X86_UD);
    cpu->cr4 |= X86_CR4_OSXSAVE;
    cpu->cr0 = (cpu->cr0 & ~(uint64_t)X86_CR0_TS) | X86_CR0_EM;
    ck_assert_int_eq(step(FXRSTOR).vector, X86_NM);
    ck_assert_int_eq(step(XRSTOR).vector, -1);
    cpu->cpl = 3;
    ck_assert_int_eq(step(XSAVES).vector, X86_GP);
    ck_assert_int_eq(step(XRSTORS).vector, X86_GP);
    cpu->feat.xsave_eax = 0;
    ck_assert_int_eq(step(XSAVEC).vector, X86_UD);
    fake_free(fake);
}
END_TEST

START_TEST(xrstors_needs_a_compacted_area)
{
    ck_assert_int_eq(step(XSAVE).vector, -1);
    ck_assert_int_eq(step(XRSTORS).vector, X86_GP);
    ck_assert_int_eq(step(XRSTOR).vector, -1);
    fake_free(fake);
}
END_TEST

START_TEST(initial_components_are_not_saved)
{
    struct x86_cpu *cpu = fake->cpu;

    cpu->fpu.mxcsr = 0x1f80;
    fake_put(fake, AREA + 512, 8, 0xfff);
    ck_assert_int_eq(step(XSAVEC).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 512, 8), 0);
    ck_assert_uint_eq(fake_get(fake, AREA + 520, 8), 1ull << 63 | 0x2e7);
    cpu->fpu.vec[17][5] = 1;
    ck_assert_int_eq(step(XSAVEC).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 512, 8), 0x80);
    cpu->fpu.mxcsr = 0x1fa0;
    ck_assert_int_eq(step(XSAVEC).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 512, 8), 0x82);
    fake_put(fake, AREA + 512, 8, ~0ull);
    ck_assert_int_eq(step(XSAVE).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 512, 8), ~0ull & ~(uint64_t)0x267);
    fake_free(fake);
}
END_TEST

START_TEST(pkru)
{
    struct x86_cpu *cpu = fake->cpu;

    cpu->pkru = 0x12345678;
    ck_assert_int_eq(step(XSAVE).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 2688, 8), 0x12345678);
    cpu->pkru = 0;
    ck_assert_int_eq(step(XRSTOR).vector, -1);
    ck_assert_uint_eq(cpu->pkru, 0x12345678);
    ck_assert_int_eq(step(XSAVEC).vector, -1);
    cpu->pkru = 4;
    ck_assert_int_eq(step(XRSTOR).vector, -1);
    ck_assert_uint_eq(cpu->pkru, 0x12345678);
    fake_free(fake);
}
END_TEST

/* AMD's fast FXSAVE at CPL 0 in 64-bit mode. */
START_TEST(fast_fxsave_leaves_xmm_out)
{
    struct x86_cpu *cpu = fake->cpu;

    memset(cpu->fpu.vec[3], 0x33, 16);
    cpu->efer |= X86_EFER_FFXSR;
    ck_assert_int_eq(step(FXSAVE).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 160 + 48, 8), 0);
    cpu->efer &= ~(uint64_t)X86_EFER_FFXSR;
    ck_assert_int_eq(step(FXSAVE).vector, -1);
    ck_assert_uint_eq(fake_get(fake, AREA + 160 + 48, 8), 0x3333333333333333);
    fake_free(fake);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("xsave");
    TCase *t = tcase_create("real"), *p = tcase_create("plain");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, saves_as_the_real_cpu);
    tcase_add_test(t, loads_as_the_real_cpu);
    suite_add_tcase(s, t);
    tcase_add_checked_fixture(p, setup_plain, NULL);
    tcase_add_test(p, faults);
    tcase_add_test(p, xrstors_needs_a_compacted_area);
    tcase_add_test(p, initial_components_are_not_saved);
    tcase_add_test(p, pkru);
    tcase_add_test(p, fast_fxsave_leaves_xmm_out);
    suite_add_tcase(s, p);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
