/* SPDX-License-Identifier: BSD-2-Clause */
/* test_x87.c: x87 instructions against the real CPU. */
#define _GNU_SOURCE
#include <check.h>

#include "native.h"

static struct fake *fake;
static unsigned run;
static uint8_t before[NATIVE_SIZE], after[NATIVE_SIZE];

/* ---- random values ---- */

static void put80(uint8_t *p, uint16_t exponent, uint64_t mantissa)
{
    memcpy(p, &mantissa, 8);
    memcpy(p + 8, &exponent, 2);
}

static void random_st(uint8_t *p)
{
    static const struct {
        uint16_t exponent;
        uint64_t mantissa;
    } odd[] = {{0, 0},
               {0x8000, 0},
               {0x7fff, 0x8000000000000000},
               {0xffff, 0x8000000000000000},
               {0x7fff, 0xc000000000000001},
               {0x7fff, 0x8000000000000001},
               {0xffff, 0xc000000000000000},
               {0, 1},
               {0, 0x7fffffffffffffff},
               {0, 0x8000000000000000},
               {1, 0x8000000000000000},
               {0x7ffe, 0xffffffffffffffff},
               {0x3fff, 0x8000000000000000},
               {0xbfff, 0x8000000000000000},
               {0x3ffe, 0x8000000000000000},
               {0x4000, 0x0000000000000001}, /* unsupported: no integer bit */
               {0x7fff, 0x0000000000000000},
               {0x403e, 0x8000000000000000},
               {0x401e, 0xffffffff00000000},
               {0x4007, 0xfe00000000000000}};
    unsigned i = rnd() % 40;

    if (i < sizeof(odd) / sizeof(odd[0]))
        put80(p, odd[i].exponent, odd[i].mantissa);
    else if (i < 36)
        put80(p, (uint16_t)((rnd() & 0x8000) | (0x3ff0 + rnd() % 32)), rnd() | 0x8000000000000000);
    else
        put80(p, (uint16_t)rnd(), rnd() | 0x8000000000000000);
}

static void random_state(struct native_state *s)
{
    uint16_t fcw = (uint16_t)(0x40 | (rnd() & 0xf00) | (rnd() % 4 ? 0x3f : rnd() & 0x3f));
    uint16_t fsw = (uint16_t)(rnd() & 0x7f00);

    if (rnd() % 2)
        fcw |= 0x300;
    if (rnd() % 4 == 0)
        fsw |= (fcw & 0x3f) & rnd(); /* nothing unmasked is pending */
    memset(s, 0, sizeof(*s));
    memcpy(s->xsave, &fcw, 2);
    memcpy(s->xsave + 2, &fsw, 2);
    s->xsave[4] = rnd() % 3 ? 0xff : (uint8_t)rnd();
    s->xsave[25] = 0x1f;
    s->xsave[24] = 0x80;
    for (unsigned i = 0; i < 8; i++)
        random_st(s->xsave + 32 + 16 * i);
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = rnd();
    s->flags = 0x202 | (rnd() & X86_ARITH);
}

/* ---- comparing ---- */

/* FIP is an address that differs: compared is whether it was set. */
static void same_fip(struct native_state *n)
{
    uint64_t real, text = FAKE_TEXT;

    memcpy(&real, n->xsave + 8, 8);
    if (real == (uint64_t)native_code)
        memcpy(n->xsave + 8, &text, 8);
}

static void compare(const uint8_t *code, const struct native_state *in)
{
    static struct native_state n, e;
    struct native_end nr, er;

    n = e = *in;
    memcpy((void *)NATIVE_DATA, before, NATIVE_SIZE);
    nr = native_run(&n, code, native_insn.length);
    memcpy(after, (void *)NATIVE_DATA, NATIVE_SIZE);
    memcpy(fake->mem + NATIVE_DATA, before, NATIVE_SIZE);
    fake->cpu->fpu.fip = fake->cpu->fpu.fdp = 0;
    fake->cpu->fpu.fop = fake->cpu->fpu.fcs = fake->cpu->fpu.fds = 0;
    er = native_emulate(fake, &e, code, native_insn.length);
    memcpy(e.xsave + 6, &fake->cpu->fpu.fop, 2);
    memcpy(e.xsave + 8, &fake->cpu->fpu.fip, 8);
    memcpy(e.xsave + 16, &fake->cpu->fpu.fdp, 8);
    run++;
    if (nr.vector != er.vector || (nr.vector == X86_PF_ && nr.cr2 >> 12 != er.cr2 >> 12)) {
        native_report(code, "exception", &nr, &er);
        return;
    }
    /* The processor may have written a part before a fault. */
    if (nr.vector < 0 && memcmp(fake->mem + NATIVE_DATA, after, NATIVE_SIZE)) {
        native_report(code, "memory", &nr, &er);
        native_dump("mem", after, fake->mem + NATIVE_DATA, NATIVE_SIZE);
    }
    n.gpr[VMM_RSP] = e.gpr[VMM_RSP] = 0;
    if (memcmp(n.gpr, e.gpr, sizeof(n.gpr))) {
        native_report(code, "general registers", &nr, &er);
        native_dump("gpr", (uint8_t *)n.gpr, (uint8_t *)e.gpr, sizeof(n.gpr));
    }
    if ((n.flags ^ e.flags) & X86_ARITH)
        native_report(code, "flags", &nr, &er);
    if (!(n.xsave[512] & 1))
        memcpy(n.xsave, e.xsave, 160);
    same_fip(&n);
    if (memcmp(n.xsave, e.xsave, 24) || memcmp(n.xsave + 32, e.xsave + 32, 128)) {
        native_report(code, "registers", &nr, &er);
        native_dump("xsave", n.xsave, e.xsave, 24);
        native_dump("xsave st", n.xsave + 32, e.xsave + 32, 128);
        native_dump("before", in->xsave, e.xsave, 8);
    }
}

static uint64_t random_address(void)
{
    switch (rnd() % 8) {
    case 0:
        return NATIVE_END - rnd() % 12;
    case 1:
        return NATIVE_DATA + 4096 - rnd() % 12;
    default:
        return NATIVE_DATA + 512 + rnd() % 1024;
    }
}

/* Numbers of all formats that instructions load. */
static void random_memory(uint64_t address)
{
    uint8_t st[10];

    for (unsigned i = 0; i < NATIVE_SIZE; i += 8) {
        uint64_t v = rnd();

        memcpy(before + i, &v, 8);
    }
    if (address < NATIVE_DATA || address + 16 > NATIVE_END)
        return;
    random_st(st);
    switch (rnd() % 5) {
    case 0:
        memcpy(before + (address - NATIVE_DATA), st, 10);
        break;
    case 1: {
        static const uint64_t odd[] = {
            0, 0x7ff0000000000000, 0x7ff0000000000001, 0x7ff8000000000000,
            1, 0xfff0000000000000, 0x8000000000000000, 0x3ff0000000000000};
        memcpy(before + (address - NATIVE_DATA), &odd[rnd() % 8], 8);
        break;
    }
    case 2: {
        static const uint32_t odd[] = {0, 0x7f800000, 0x7f800001, 0x7fc00000,
                                       1, 0xff800000, 0x80000000, 0x3f800000};
        memcpy(before + (address - NATIVE_DATA), &odd[rnd() % 8], 4);
        break;
    }
    case 3: /* decimal digits */
        for (unsigned i = 0; i < 9; i++)
            before[address - NATIVE_DATA + i] = (uint8_t)((rnd() % 10) << 4 | rnd() % 10);
        break;
    default:
        break;
    }
}

static void setup(void)
{
    if (!native_setup())
        exit(77);
    fake = native_fake();
    if (__builtin_cpu_supports("sse2")) {
        uint32_t a, b, c, d;

        __cpuid_count(7, 0, a, b, c, d);
        fake->cpu->feat.l7_ebx = b;
    }
}

static void try_code(const uint8_t *code)
{
    static struct native_state s;
    ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoder z;

    ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (ZYAN_FAILED(ZydisDecoderDecodeFull(&z, code, 15, &native_insn, opnd)))
        return;
    for (unsigned i = 0; i < native_count(40); i++) {
        random_state(&s);
        s.gpr[VMM_RBX] = random_address();
        random_memory(s.gpr[VMM_RBX]);
        compare(code, &s);
    }
}

START_TEST(every_instruction)
{
    for (unsigned i = 0; i < 8 * 256; i++) {
        uint8_t code[16] = {(uint8_t)(0xd8 + i / 256), (uint8_t)i};

        if (code[1] < 0xc0) {
            if ((code[1] & 0xc7) != 3)
                continue;
        }
        try_code(code);
    }
    for (unsigned i = 0; i < 4; i++) { /* 16-bit environments */
        static const uint8_t codes[4][4] = {
            {0x66, 0xd9, 0x33}, {0x66, 0xd9, 0x23}, {0x66, 0xdd, 0x33}, {0x66, 0xdd, 0x23}};
        uint8_t code[16] = {0};

        memcpy(code, codes[i], 3);
        try_code(code);
    }
    ck_assert_msg(!native_wrong, "%u disagreements in %u", native_wrong, run);
    ck_assert_uint_ge(run, 1000);
    fake_free(fake);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("x87");
    TCase *t = tcase_create("x87");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 100);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, every_instruction);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
