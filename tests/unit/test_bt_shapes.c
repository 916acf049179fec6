/* SPDX-License-Identifier: BSD-2-Clause */
/* test_bt_shapes.c: what the translator takes from other instructions of the same shape is what it
 * finds out for each of them alone. */
#include <check.h>

#include "backends/bt/region.h"
#include "bt_fake.h"
#include "random_insn.h"

static struct fake *f, *alone;
static unsigned shared;

/* Prefixes, REX, VEX or EVEX, opcode map; mostly what compilers use. */
static void make(uint8_t *p, bool code64)
{
    static const uint8_t prefix[] = {0x66, 0xf2, 0xf3, 0x64, 0x65, 0xf0, 0x2e};
    static const uint8_t often[] = {0x01, 0x03, 0x0f, 0x29, 0x2b, 0x31, 0x39, 0x3b, 0x50,
                                    0x58, 0x63, 0x68, 0x6a, 0x70, 0x80, 0x81, 0x83, 0x85,
                                    0x89, 0x8b, 0x8d, 0xb8, 0xc1, 0xc2, 0xc3, 0xc6, 0xc7,
                                    0xd1, 0xd3, 0xe8, 0xeb, 0xf7, 0xff};
    unsigned i = 0;

    random_bytes(p, 15);
    while (i < 2 && !number(4))
        p[i++] = prefix[number(sizeof(prefix))];
    if (random_vector(p, &i, code64, 12))
        return;
    if (!number(3))
        p[i++] = 0x0f;
    else if (number(3))
        p[i++] = often[number(sizeof(often))];
}

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("%s, seed %lx", #condition, seed);                                        \
    } while (0)

static void decode(struct fake *fake, uint32_t mode, const uint8_t *code, struct x86_block *b,
                   struct gen_insn *in)
{
    static struct gen g;
    bool end = false;

    memset(&b->ops[0], 0, sizeof(b->ops[0]));
    b->mode = mode;
    b->n = 1;
    b->bytes = (uint16_t)x86_decode(fake->cpu, mode, code, 15, &b->ops[0], &end);
    b->ends = end;
    g.cpu = fake->cpu;
    g.bt = fake->cpu->tier_state;
    g.b = b;
    g.host = bt_host;
    g.is64 = (mode & X86_MODE_CODE) == X86_MODE_CODE64;
    g.code = code;
    gen_shapes_begin(g.bt, 1);
    gen_decode(&g, in);
}

static void same_form(const struct gen_form *a, const struct gen_form *b)
{
    EXPECT(a->mnemonic == b->mnemonic && a->length == b->length && a->encoding == b->encoding);
    EXPECT(a->opcode_map == b->opcode_map && a->opcode == b->opcode);
    EXPECT(a->operand_count == b->operand_count);
    EXPECT(a->operand_count_visible == b->operand_count_visible);
    EXPECT(a->extension == b->extension && a->imm == b->imm && a->imm_size == b->imm_size);
    EXPECT(a->modrm == b->modrm && a->is_near == b->is_near && a->is_string == b->is_string);
    EXPECT(a->is_rep == b->is_rep && a->has_rep == b->has_rep && a->excepts == b->excepts);
    EXPECT(a->tests_flags == b->tests_flags && a->copied == b->copied && a->mem == b->mem);
    EXPECT(!memcmp(&a->op, &b->op, sizeof(a->op)));
    EXPECT(a->store == b->store && a->imm_copy == b->imm_copy && a->count == b->count);
    EXPECT(a->nr == b->nr && a->size == b->size && !memcmp(a->r, b->r, sizeof(a->r)));
}

static void same_operands(const struct gen_insn *a, const struct gen_insn *b)
{
    for (unsigned i = 0; i < a->insn->operand_count; i++) {
        const struct gen_operand *x = &a->opnd[i], *y = &b->opnd[i];

        EXPECT(x->type == y->type && x->size == y->size && x->encoding == y->encoding);
        EXPECT(x->actions == y->actions && x->mem.base == y->mem.base);
        EXPECT(x->mem.index == y->mem.index);
    }
}

static void same_effect(const struct gen_effect *a, const struct gen_effect *b)
{
    EXPECT(a->access == b->access && a->moves == b->moves && a->changes == b->changes);
    EXPECT(a->moves == GEN_NO_MOVE || a->by == b->by);
    if (a->access)
        EXPECT(a->base == b->base && a->index == b->index && a->scale == b->scale &&
               a->disp == b->disp && a->size == b->size && a->align == b->align &&
               a->write == b->write);
}

static void same_vec(const struct vec_copy *a, const struct vec_copy *b)
{
    const struct vec_form *x = &a->form, *y = &b->form;

    EXPECT(a->core.len == b->core.len && a->core.modrm == b->core.modrm);
    EXPECT(!memcmp(a->core.code, b->core.code, a->core.len));
    EXPECT(x->class == y->class && x->mem_size == y->mem_size && x->align == y->align);
    EXPECT(x->store == y->store && x->fp == y->fp && x->flags == y->flags && x->mmx == y->mmx);
    EXPECT(x->gread == y->gread && x->gwrite == y->gwrite && x->fop == y->fop);
}

static void compare(const struct gen_insn *a, const struct gen_insn *b)
{
    EXPECT(a->known == b->known && a->flags_use == b->flags_use && a->writes == b->writes);
    EXPECT(a->is_vec == b->is_vec && a->is_x87 == b->is_x87 && a->x87_control == b->x87_control);
    EXPECT(a->has_effect == b->has_effect && a->imm == b->imm);
    same_form(a->insn, b->insn);
    same_operands(a, b);
    if (a->has_effect)
        same_effect(&a->effect, &b->effect);
    if (a->is_vec)
        EXPECT(!memcmp(&a->vec->regs, &b->vec->regs, sizeof(a->vec->regs)));
    if (a->is_vec || a->is_x87)
        same_vec(a->vec, b->vec);
}

static void run(uint32_t mode, unsigned count)
{
    static uint64_t room[2][(sizeof(struct x86_block) + 2 * sizeof(struct x86_op)) / 8];
    struct bt *bt = alone->cpu->tier_state;
    uint8_t code[X86_BLOCK_MAX * 15] = {0};
    const struct gen_form *last;
    struct gen_insn a, b;

    for (unsigned i = 0; i < count; i++) {
        unsigned keep = 1 + number(8);

        make(code, (mode & X86_MODE_CODE) == X86_MODE_CODE64);
        last = NULL;
        for (unsigned k = 0; k < 4; k++) {
            bt_shapes_clear(bt);
            decode(f, mode, code, (struct x86_block *)(void *)room[0], &a);
            decode(alone, mode, code, (struct x86_block *)(void *)room[1], &b);
            compare(&a, &b);
            shared += a.known && a.insn == last;
            last = a.insn;
            random_bytes(code + keep, 15 - keep);
        }
    }
}

static void setup(void)
{
    f = translating();
    alone = translating();
    shared = 0;
}

static void teardown(void)
{
    finish(f);
    finish(alone);
}

START_TEST(random_64)
{
    uint32_t mode = X86_MODE_PE | X86_MODE_CODE64 | (_i ? X86_MODE_CPL3 : 0);

    seed = 1 + (unsigned)_i;
    run(mode, 60000);
    ck_assert_uint_gt(shared, 30000);
}
END_TEST

START_TEST(random_32)
{
    seed = 3;
    run(X86_MODE_PE | X86_MODE_CODE32 | X86_MODE_STACK32 | X86_MODE_FLAT, 60000);
    ck_assert_uint_gt(shared, 30000);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_shapes");
    TCase *tc = tcase_create("bt_shapes");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, random_64, 0, 2);
    tcase_add_test(tc, random_32);
    suite_add_tcase(s, tc);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
