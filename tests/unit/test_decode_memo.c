/* SPDX-License-Identifier: BSD-2-Clause */
/* test_decode_memo.c: instructions that are decoded from what is known of others of their shape are
 * the same as Zydis decodes them, and so are their ops. */
#include <check.h>
#include <string.h>

#include "core/x86/decode.h"
#include "random_insn.h"
#include "x86_fake.h"

static struct fake *f, *plain;
static unsigned hits, known;

static void setup(void)
{
    f = fake_new();
    plain = fake_new();
    x86_known_destroy(plain->cpu->known);
    plain->cpu->known = NULL;
}

static void teardown(void)
{
    fake_free(f);
    fake_free(plain);
}

/* Prefixes, REX, VEX or EVEX, and an opcode map; the rest is what happens to be there. */
static void make(uint8_t *p, bool code64)
{
    static const uint8_t prefix[] = {0x66, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0xf0, 0x3e, 0x67};
    unsigned i = 0;

    random_bytes(p, 15);
    while (i < 3 && !number(3))
        p[i++] = prefix[number(sizeof(prefix))];
    if (random_vector(p, &i, code64, 8))
        return;
    if (number(2))
        p[i++] = 0x0f;
    if (p[i - !!i] == 0x0f && !number(4))
        p[i++] = number(2) ? 0x38 : 0x3a;
}

/* Millions of times: an assertion of Check's writes to a pipe. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("%s", #condition);                                                        \
    } while (0)

static void same_operand(const ZydisDecodedOperand *a, const ZydisDecodedOperand *b)
{
    EXPECT(!memcmp(a, b, offsetof(ZydisDecodedOperand, reg)));
    switch (a->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        EXPECT(a->reg.value == b->reg.value);
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        EXPECT(a->mem.type == b->mem.type);
        EXPECT(a->mem.segment == b->mem.segment);
        EXPECT(a->mem.base == b->mem.base);
        EXPECT(a->mem.index == b->mem.index);
        EXPECT(a->mem.scale == b->mem.scale);
        EXPECT(a->mem.disp.has_displacement == b->mem.disp.has_displacement);
        EXPECT(a->mem.disp.value == b->mem.disp.value);
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        EXPECT(a->imm.is_signed == b->imm.is_signed);
        EXPECT(a->imm.is_relative == b->imm.is_relative);
        EXPECT(a->imm.value.u == b->imm.value.u);
        break;
    default:
        break;
    }
}

static void compare(uint32_t mode, const uint8_t *code)
{
    struct x86_dec room, *d;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoder z;
    ZyanStatus wanted, status;

    x86_dec_init(&z, mode);
    wanted = ZydisDecoderDecodeFull(&z, code, 15, &insn, opnd);
    status = x86_dec_get(f->cpu, mode, code, 15, &room, &d);
    EXPECT(ZYAN_SUCCESS(status) == ZYAN_SUCCESS(wanted));
    if (!ZYAN_SUCCESS(status))
        return;
    hits += d != &room;
    EXPECT(d->code == code && d->mode == mode && d->cpu == f->cpu && !d->end);
    EXPECT(!memcmp(&d->insn, &insn, sizeof(insn)));
    for (unsigned i = 0; i < ZYDIS_MAX_OPERAND_COUNT; i++)
        if (i < insn.operand_count)
            same_operand(&d->opnd[i], &opnd[i]);
        else
            EXPECT(d->opnd[i].type == ZYDIS_OPERAND_TYPE_UNUSED);
}

/* The op, somewhere in a block, on a CPU that keeps ops and on one that does not. */
static void compare_ops(uint32_t mode, const uint8_t *code)
{
    struct x86_op a = {.off = (uint16_t)number(400), .idx = (uint8_t)number(32)}, b = a, c = a;
    bool end_a = false, end_b = false, end_c = false;
    unsigned len = x86_decode(f->cpu, mode, code, 15, &a, &end_a);
    uint64_t shape = x86_memo_shape(mode, code, 15);

    EXPECT(x86_decode(plain->cpu, mode, code, 15, &b, &end_b) == len && end_a == end_b);
    EXPECT(a.fn == b.fn && a.disp == b.disp && a.off == b.off && a.len == b.len && a.idx == b.idx);
    EXPECT(a.r == b.r && a.rm == b.rm && a.base == b.base && a.index == b.index);
    EXPECT(a.scale == b.scale && a.seg == b.seg && a.ea == b.ea && a.asz == b.asz);
    EXPECT(a.size == b.size && a.imm == b.imm);
    known += shape && x86_known_decode(f->cpu->known, shape, mode, code, &c, &end_c);
}

static void random_ops(uint32_t mode, unsigned count)
{
    uint8_t code[15 + 8];

    known = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned keep = 1 + number(8);

        make(code, (mode & X86_MODE_CODE) == X86_MODE_CODE64);
        for (unsigned k = 0; k < 4; k++) {
            compare_ops(mode, code);
            random_bytes(code + keep, 15 - keep);
            if (!number(4)) /* an address that wraps */
                memcpy(code + keep, (uint8_t[]){(uint8_t)number(256), 0xff, 0xff, 0x7f}, 4);
        }
    }
    ck_assert_uint_gt(known, count / 2);
}

START_TEST(ops)
{
    static const uint32_t modes[] = {
        X86_MODE_PE | X86_MODE_CODE64, X86_MODE_PE | X86_MODE_CODE64 | X86_MODE_CPL3,
        X86_MODE_PE | X86_MODE_CODE32 | X86_MODE_STACK32 | X86_MODE_FLAT,
        X86_MODE_PE | X86_MODE_CODE32, X86_MODE_PE};

    seed = 4;
    for (unsigned i = 0; i < 4; i++)
        random_ops(modes[i], 60000);
    for (unsigned i = 0; i < 50000; i++) { /* one after the other */
        uint8_t code[15];

        make(code, true);
        compare_ops(modes[number(5)], code);
    }
}
END_TEST

/* What the guest's CPU does not have any more is not known either. */
START_TEST(features)
{
    static const uint8_t cmov[15] = {0x0f, 0x44, 0xc1};
    static const struct vmm_cpuid none;
    uint32_t mode = X86_MODE_PE | X86_MODE_CODE64;

    compare_ops(mode, cmov);
    x86_cpuid_changed(f->cpu, &none, 1);
    x86_cpuid_changed(plain->cpu, &none, 1);
    compare_ops(mode, cmov);
}
END_TEST

static void compare_shapes(uint32_t mode, unsigned count)
{
    uint8_t code[15 + 8];

    hits = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned keep = 1 + number(8);

        make(code, (mode & X86_MODE_CODE) == X86_MODE_CODE64);
        for (unsigned k = 0; k < 4; k++) {
            compare(mode, code);
            random_bytes(code + keep, 15 - keep);
        }
    }
    ck_assert_uint_gt(hits, count / 4);
}

START_TEST(shapes_64)
{
    seed = 1;
    compare_shapes(X86_MODE_PE | X86_MODE_CODE64, 200000);
}
END_TEST

START_TEST(shapes_32)
{
    seed = 2;
    compare_shapes(X86_MODE_PE | X86_MODE_CODE32 | X86_MODE_STACK32 | X86_MODE_FLAT, 200000);
}
END_TEST

/* Every opcode of the three maps, with each form of ModRM, with and without prefixes that select.
 */
START_TEST(opcodes)
{
    static const uint8_t prefix[] = {0x90, 0x66, 0xf2, 0xf3, 0x48};
    uint32_t mode = _i ? X86_MODE_PE | X86_MODE_CODE32 : X86_MODE_PE | X86_MODE_CODE64;

    seed = 3;
    hits = 0;
    for (unsigned x = 0; x < 4 * 256 * 256; x++)
        for (unsigned p = 0; p < (x & 7 ? 1 : sizeof(prefix)); p++) {
            uint8_t code[15];
            unsigned n = 0;

            if (p)
                code[n++] = prefix[p];
            if (x >> 16)
                code[n++] = 0x0f;
            if (x >> 16 >= 2)
                code[n++] = x >> 16 == 2 ? 0x38 : 0x3a;
            code[n++] = (uint8_t)(x >> 8);
            code[n++] = (uint8_t)x;
            code[n++] = (uint8_t)(number(2) * 0x24);
            for (unsigned k = 0; k < 2; k++) {
                random_bytes(code + n, 15 - n);
                compare(mode, code);
            }
        }
    ck_assert_uint_gt(hits, 100000);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("decode_memo");
    TCase *tc = tcase_create("decode_memo");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, shapes_64);
    tcase_add_test(tc, shapes_32);
    tcase_add_loop_test(tc, opcodes, 0, 2);
    tcase_add_test(tc, ops);
    tcase_add_test(tc, features);
    suite_add_tcase(s, tc);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
