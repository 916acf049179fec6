/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vec.c: vector, mask and MMX instructions against the real CPU. */
#define _GNU_SOURCE
#include <check.h>

#include "native.h"

/* ---- random state ---- */

static const uint64_t odd64[] = {0,
                                 0x8000000000000000,
                                 0x7ff0000000000000,
                                 0xfff0000000000000,
                                 0x7ff8000000000001,
                                 0x7ff0000000000001,
                                 1,
                                 0x000fffffffffffff,
                                 0x0010000000000000,
                                 0x7fefffffffffffff,
                                 0x3ff0000000000000,
                                 0x41e0000000000000,
                                 0x43e0000000000000,
                                 0xffffffffffffffff,
                                 0x3fefffffffffffff};
static const uint32_t odd32[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00001,
                                 0x7f800001, 1,          0x007fffff, 0x00800000, 0x7f7fffff,
                                 0x3f800000, 0x4f000000, 0x5f000000, 0xffffffff, 0x3f7fffff};
static const uint16_t odd16[] = {0,      0x8000, 0x7c00, 0xfc00, 0x7e01, 0x7c01, 1,     0x03ff,
                                 0x0200, 0x0400, 0x0600, 0x7bff, 0x3c00, 0x3800, 0x7800};

#define STYLES 8

static uint64_t rnd64(unsigned style)
{
    uint32_t lo, hi;

    switch (style) {
    case 0:
        return rnd();
    case 1:
        return odd64[rnd() % 15];
    case 2:
        lo = odd32[rnd() % 15];
        hi = odd32[rnd() % 15];
        return lo | (uint64_t)hi << 32;
    case 3: /* ordinary doubles */
        return (rnd() & 0x800fffffffffffff) | (0x3f0 + rnd() % 32) << 52;
    case 4: /* ordinary floats */
        return (rnd() & 0x807fffff807fffff) | (0x70 + rnd() % 32) << 23 | (0x70 + rnd() % 32) << 55;
    case 5:
        return odd16[rnd() % 15] | (uint64_t)odd16[rnd() % 15] << 16 |
               (uint64_t)odd16[rnd() % 15] << 32 | (uint64_t)odd16[rnd() % 15] << 48;
    case 6: /* half precision, of any size */
        return rnd() & 0xbfffbfffbfffbfff;
    default: /* small integers */
        return rnd() & 0x0f000f0f000f0f;
    }
}

static void random_bytes(void *p, size_t n)
{
    unsigned style = rnd() % STYLES;

    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t v = rnd64(rnd() % 4 ? style : rnd() % STYLES);

        memcpy((uint8_t *)p + i, &v, 8);
    }
}

static void random_state(struct native_state *s)
{
    static const uint32_t masks[] = {0x1f80, 0x1f80, 0x1f80, 0x1f80, 0, 0x1000, 0x1e80, 0x0f80};
    uint32_t mxcsr = masks[rnd() % 8] | (rnd() & 0x6000);
    uint64_t k;

    memset(s, 0, sizeof(*s));
    s->xsave[0] = 0x7f;
    s->xsave[1] = 3;
    s->xsave[3] = (uint8_t)((rnd() & 7) << 3);
    s->xsave[4] = (uint8_t)rnd();
    if (rnd() % 4 == 0)
        mxcsr |= rnd() & 0x8040;
    if (rnd() % 4 == 0)
        mxcsr |= rnd() & 0x3f;
    memcpy(s->xsave + 24, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++)
        random_bytes(s->xsave + 32 + 16 * i, 8);
    for (unsigned i = 0; i < 16; i++) {
        random_bytes(s->xsave + 160 + 16 * i, 16);
        random_bytes(s->xsave + 576 + 16 * i, 16);
        random_bytes(s->xsave + 1152 + 32 * i, 32);
        random_bytes(s->xsave + 1664 + 64 * i, 64);
    }
    for (unsigned i = 0; i < 8; i++) {
        k = rnd() % 4 ? rnd() : rnd() % 2 ? ~0ull : rnd() & rnd() & rnd();
        memcpy(s->xsave + 1088 + 8 * i, &k, 8);
    }
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = rnd() % 4 ? rnd() : rnd() % 40;
    s->flags = 0x202 | (rnd() & X86_ARITH);
    /* What this CPU does not have stays zero. */
    if (!(native_xcr0() & 4))
        memset(s->xsave + 576, 0, 256);
    if ((native_xcr0() & 0xe0) != 0xe0)
        memset(s->xsave + 1088, 0, sizeof(s->xsave) - 1088);
}

/* ---- comparing ---- */

static struct fake *fake;
static unsigned run, faults[32];
static ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
static uint8_t before[NATIVE_SIZE], after[NATIVE_SIZE];

static bool mask_move(void)
{
    return native_insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ ||
           native_insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
           native_insn.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU;
}

static bool vector_index(void)
{
    for (unsigned i = 0; i < native_insn.operand_count; i++)
        if (opnd[i].type == ZYDIS_OPERAND_TYPE_MEMORY && opnd[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return true;
    return false;
}

/* The operand's parts are accessed alone: which fault comes first is not defined exactly. */
static bool partial(void)
{
    return native_insn.avx.mask.mode > ZYDIS_MASK_MODE_DISABLED || mask_move() || vector_index() ||
           strstr(ZydisMnemonicGetString(native_insn.mnemonic), "maskmov");
}

/* Several roundings, at which an unmasked exception stops the rest. */
static bool dot_product(void)
{
    return strstr(ZydisMnemonicGetString(native_insn.mnemonic), "dpp");
}

/*
 * Not compared: whether a result that is too large or too small, which is not stored because the
 * exception is unmasked, is inexact too.
 */
static void compare(const uint8_t *code, const struct native_state *in)
{
    static struct native_state n, e;
    struct native_end nr, er;

    n = e = *in;
    memcpy((void *)NATIVE_DATA, before, NATIVE_SIZE);
    nr = native_run(&n, code, native_insn.length);
    memcpy(after, (void *)NATIVE_DATA, NATIVE_SIZE);
    memcpy(fake->mem + NATIVE_DATA, before, NATIVE_SIZE);
    er = native_emulate(fake, &e, code, native_insn.length);
    run++;
    if (nr.vector != er.vector ||
        (nr.vector == X86_PF_ && (partial() ? nr.cr2 >> 12 != er.cr2 >> 12 : nr.cr2 != er.cr2))) {
        if (mask_move() && nr.vector == X86_PF_)
            return; /* allowed to access masked bytes too */
        native_report(code, "exception", &nr, &er);
        return;
    }
    if (nr.vector >= 0)
        faults[nr.vector & 31]++;
    if (nr.vector == X86_PF_ && (vector_index() || mask_move()))
        return; /* how far it got is not defined */
    if (memcmp(fake->mem + NATIVE_DATA, after, NATIVE_SIZE)) {
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
    memcpy(n.xsave + 5, e.xsave + 5, 19); /* opcode and pointers: test_x87.c */
    memcpy(n.xsave + 28, e.xsave + 28, 4);
    for (unsigned i = 0; i < 8; i++)
        memcpy(n.xsave + 32 + 16 * i + 10, e.xsave + 32 + 16 * i + 10, 6);
    memcpy(n.xsave + 416, e.xsave + 416, 96);
    memcpy(n.xsave + 832, e.xsave + 832, 256);
    /* Components in their initial state are not written by XSAVE. */
    for (unsigned c = 2; c < 8; c++)
        if (x86_xcomp[c].size && !(n.xsave[512] >> c & 1))
            memset(n.xsave + x86_xcomp[c].offset, 0, x86_xcomp[c].size);
    if (!(n.xsave[512] & 2))
        memset(n.xsave + 160, 0, 256);
    if (!(n.xsave[512] & 1))
        memcpy(n.xsave + 32, (uint8_t[128]){0}, 128);
    if (nr.vector == X86_XM && ((n.xsave[24] & 0x18) || dot_product()))
        n.xsave[24] = e.xsave[24];
    if (memcmp(n.xsave, e.xsave, 512) || memcmp(n.xsave + 576, e.xsave + 576, 2688 - 576)) {
        native_report(code, "registers", &nr, &er);
        memcpy(n.xsave + 512, e.xsave + 512, 64);
        native_dump("xsave", n.xsave, e.xsave, 2688);
        uint32_t mx;
        memcpy(&mx, in->xsave + 24, 4);
        fprintf(stderr, "  mxcsr was %x rbx %lx\n", mx, in->gpr[VMM_RBX]);
    }
}

/* ---- all encodings ---- */

/* Extensions that processors execute although CPUID does not tell. */
static bool hidden(void)
{
    uint32_t a, b, c, d, edx, eax1;

    __cpuid_count(7, 0, a, b, c, edx);
    __cpuid_count(7, 1, eax1, b, c, d);
    switch (native_insn.meta.isa_set) {
    case ZYDIS_ISA_SET_AVX_VNNI:
        return !(eax1 & 1u << 4);
    case ZYDIS_ISA_SET_AVX512_BF16_128:
    case ZYDIS_ISA_SET_AVX512_BF16_256:
    case ZYDIS_ISA_SET_AVX512_BF16_512:
        return !(eax1 & 1u << 5);
    case ZYDIS_ISA_SET_AVX512_FP16_128:
    case ZYDIS_ISA_SET_AVX512_FP16_128N:
    case ZYDIS_ISA_SET_AVX512_FP16_256:
    case ZYDIS_ISA_SET_AVX512_FP16_512:
    case ZYDIS_ISA_SET_AVX512_FP16_SCALAR:
        return !(edx & 1u << 23);
    default:
        return false;
    }
}

static bool in_scope(void)
{
    if (hidden())
        return false;
    switch (native_insn.meta.isa_ext) {
    case ZYDIS_ISA_EXT_SSE:
        if (native_insn.meta.isa_set == ZYDIS_ISA_SET_FXSAVE ||
            native_insn.meta.isa_set == ZYDIS_ISA_SET_FXSAVE64)
            return false; /* test_xsave.c */
        /* fallthrough */
    case ZYDIS_ISA_EXT_SSE2:
        return native_insn.meta.category != ZYDIS_CATEGORY_PREFETCH &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_MOVNTI &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_LFENCE &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_SFENCE &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_MFENCE &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_PAUSE;
    case ZYDIS_ISA_EXT_SSE4:
        return native_insn.mnemonic != ZYDIS_MNEMONIC_CRC32 &&
               native_insn.mnemonic != ZYDIS_MNEMONIC_POPCNT;
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE3:
        return native_insn.meta.isa_set != ZYDIS_ISA_SET_SSE3X87;
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
    case ZYDIS_ISA_EXT_GFNI:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
    case ZYDIS_ISA_EXT_AVX_VNNI:
        return true;
    default:
        return false;
    }
}

static uint64_t random_address(void)
{
    switch (rnd() % 8) {
    case 0:
        return NATIVE_DATA + rnd() % NATIVE_SIZE;
    case 1:
        return NATIVE_END - rnd() % 65;
    case 2:
        return NATIVE_DATA - rnd() % 65;
    case 3:
        return NATIVE_DATA + 4096 - rnd() % 65;
    default:
        return NATIVE_DATA + 1024 + (rnd() % 16) * 64;
    }
}

/* Small indices in the register that holds them. */
static void random_indices(struct native_state *s, unsigned reg)
{
    unsigned size = native_insn.opcode & 1 ? 8 : 4; /* of the indices, as opcodes go */
    uint8_t bytes[64];

    for (unsigned i = 0; i < 64; i += size) {
        int64_t v = (int64_t)(rnd() % 256) - 128;

        memcpy(bytes + i, &v, size);
    }
    if (reg >= 16) {
        memcpy(s->xsave + 1664 + 64 * (reg - 16), bytes, 64);
        return;
    }
    memcpy(s->xsave + 160 + 16 * reg, bytes, 16);
    memcpy(s->xsave + 576 + 16 * reg, bytes + 16, 16);
    if ((native_xcr0() & 0xe0) == 0xe0)
        memcpy(s->xsave + 1152 + 32 * reg, bytes + 32, 32);
}

/* Whether it is an instruction that belongs here. */
static bool decode(const uint8_t *code)
{
    ZydisDecoder z;

    ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, 15, &native_insn, opnd)) && in_scope();
}

/* Tries `code` some times, if it belongs here. */
static void try_code(const uint8_t *code, unsigned times)
{
    static struct native_state s;

    if (!decode(code))
        return;
    for (unsigned i = 0; i < times; i++) {
        random_state(&s);
        random_bytes(before, sizeof(before));
        s.gpr[VMM_RBX] = random_address();
        s.gpr[VMM_RDI] = random_address();
        if (vector_index())
            for (unsigned o = 0; o < native_insn.operand_count; o++)
                if (opnd[o].type == ZYDIS_OPERAND_TYPE_MEMORY)
                    random_indices(&s, (unsigned)ZydisRegisterGetId(opnd[o].mem.index));
        compare(code, &s);
    }
}

/* ModRM, perhaps SIB, perhaps displacement, immediate: memory at RBX, or no RSP. */
static unsigned put_operands(uint8_t *code, bool memory, bool vsib)
{
    unsigned n = 0, reg = rnd() % 8, rm = rnd() % 8;

    if (reg == 4)
        reg = 5;
    if (rm == 4)
        rm = 3;
    if (!memory) {
        code[n++] = (uint8_t)(0xc0 | reg << 3 | rm);
    } else if (vsib) {
        code[n++] = (uint8_t)(reg << 3 | 4);
        code[n++] = (uint8_t)((rnd() & 0xf8) | 3);
    } else {
        code[n++] = (uint8_t)(reg << 3 | 3);
    }
    for (unsigned i = 0; i < 4; i++)
        code[n++] = (uint8_t)rnd();
    return n;
}

static void setup(void)
{
    if (!native_setup())
        exit(77);
    fake = native_fake();
}

static void finish(unsigned least)
{
    ck_assert_msg(!native_wrong, "%u disagreements in %u", native_wrong, run);
    ck_assert_uint_ge(run, least);
    fake_free(fake);
}

START_TEST(legacy)
{
    static const uint8_t pps[] = {0, 0x66, 0xf3, 0xf2};

    for (unsigned i = 0; i < 3 * 256 * 4 * 2 * 2 * 2; i++) {
        unsigned map = i % 3, opcode = i / 3 % 256, pp = i / 768 % 4, w = i / 3072 % 2, n = 0;
        uint8_t code[20] = {0};

        if (!map && (opcode == 0x38 || opcode == 0x3a))
            continue;
        for (unsigned j = 0; j < 2; j++) {
            n = 0;
            if (pp)
                code[n++] = pps[pp];
            code[n++] = (uint8_t)(0x40 | w << 3 | (rnd() & 4)); /* B would change RBX */
            code[n++] = 0x0f;
            if (map)
                code[n++] = map == 1 ? 0x38 : 0x3a;
            code[n++] = (uint8_t)opcode;
            put_operands(code + n, i / 6144 % 2, false);
            try_code(code, native_count(3));
        }
    }
    finish(1000);
}
END_TEST

START_TEST(vex)
{
    for (unsigned i = 0; i < 3 * 256 * 4 * 2 * 2 * 2; i++) {
        unsigned map = i % 3, opcode = i / 3 % 256, pp = i / 768 % 4, w = i / 3072 % 2;
        unsigned l = i / 6144 % 2, memory = i / 12288 % 2;

        for (unsigned j = 0; j < 3; j++) {
            uint8_t code[20] = {0xc4};
            unsigned vvvv = j ? rnd() % 16 : 15;

            code[1] = (uint8_t)((rnd() & 0x80) | 0x60 | (map + 1));
            if (memory)
                code[1] |= 0x40;
            code[2] = (uint8_t)(w << 7 | vvvv << 3 | l << 2 | pp);
            code[3] = (uint8_t)opcode;
            put_operands(code + 4, memory, map == 1 && opcode >= 0x90 && opcode < 0x94);
            try_code(code, native_count(3));
        }
    }
    finish(1000);
}
END_TEST

START_TEST(evex)
{
    static const uint8_t maps[] = {1, 2, 3, 5, 6};

    for (unsigned i = 0; i < 5 * 256 * 4 * 2 * 3 * 2; i++) {
        unsigned map = maps[i % 5], opcode = i / 5 % 256, pp = i / 1280 % 4, w = i / 5120 % 2;
        unsigned l = i / 10240 % 3, memory = i / 30720 % 2;

        for (unsigned j = 0; j < 8; j++) {
            uint8_t code[20] = {0x62};
            unsigned vvvv = j & 1 ? rnd() % 16 : 15, aaa = j & 2 ? rnd() % 8 : 0;
            bool vsib = map == 2 &&
                        ((opcode >= 0x90 && opcode < 0x94) || (opcode >= 0xa0 && opcode < 0xa4));

            code[1] = (uint8_t)((rnd() & 0x90) | 0x60 | map);
            if (!memory)
                code[1] ^= (uint8_t)(rnd() & 0x40);
            code[2] = (uint8_t)(w << 7 | vvvv << 3 | 4 | pp);
            code[3] = (uint8_t)((aaa && rnd() % 2 ? 0x80u : 0) | l << 5 | (j & 4 ? 0x10 : 0) |
                                (j & 1 ? rnd() & 8 : 8) | aaa);
            code[4] = (uint8_t)opcode;
            put_operands(code + 5, memory, vsib);
            try_code(code, native_count(3));
        }
    }
    finish(1000);
}
END_TEST

/* Half-precision results that are tiny and exact: they underflow if that is unmasked, and are not
 * flushed. */
START_TEST(half)
{
    static const struct {
        uint8_t code[15];
        uint64_t source; /* the lowest bits of XMM1 */
    } rows[] = {
        {{0xc4, 0xe3, 0x79, 0x1d, 0xc8, 4}, 0x35800000},            /* vcvtps2ph: 2^-20 */
        {{0xc4, 0xe3, 0x79, 0x1d, 0x0b, 4}, 0x35800000},            /* to memory */
        {{0x62, 0xf3, 0x7d, 0x49, 0x1d, 0xc8, 4}, 0x35800000},      /* masked */
        {{0x62, 0xf5, 0x74, 0x08, 0x58, 0xc2}, 0x0200},             /* vaddph */
        {{0x62, 0xf5, 0x76, 0x09, 0x5c, 0xc2}, 0x0200},             /* vsubsh, masked */
        {{0x62, 0xf5, 0x74, 0xca, 0x59, 0xc1}, 0x1c00},             /* vmulph, zeroing */
        {{0x62, 0xf3, 0x7c, 0x08, 0x08, 0xc1, 0xf0}, 0x0200},       /* vrndscaleph */
        {{0x62, 0xf5, 0xfd, 0x28, 0x5a, 0xc1}, 0x3eb0000000000000}, /* vcvtpd2ph */
        {{0x62, 0xf6, 0x76, 0x08, 0xd6, 0xc2}, 0x000000003c000200}, /* vfmulcph: no #XM */
    };
    static const uint32_t mxcsr[] = {0x1f80, 0x1780, 0x9780, 0x1700};
    static struct native_state s;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]) * 4 * 4; i++) {
        const uint8_t *code = rows[i / 16].code;

        if (!decode(code))
            continue;
        memset(&s, 0, sizeof(s));
        s.xsave[0] = 0x7f;
        s.xsave[1] = 3;
        memcpy(s.xsave + 24, &mxcsr[i % 4], 4);
        memset(s.xsave + 160, 3, 16);
        memcpy(s.xsave + 160 + 16, &rows[i / 16].source, 8);
        if ((native_xcr0() & 0xe0) == 0xe0) {
            s.xsave[1088 + 8] = i >> 2 & 1;
            s.xsave[1088 + 16] = i >> 3 & 1;
        }
        s.gpr[VMM_RBX] = NATIVE_DATA + 1024;
        s.flags = 0x202;
        memset(before, 0, sizeof(before));
        compare(code, &s);
    }
    ck_assert(!run || faults[X86_XM]);
    finish(0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vec");
    TCase *t = tcase_create("vec");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 100);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, legacy);
    tcase_add_test(t, vex);
    tcase_add_test(t, evex);
    tcase_add_test(t, half);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
