/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/flags.c: where the guest's arithmetic flags are. */
#include "backends/bt/gen.h"

/*
 * The flags are in the host's, in cc, or can be had again from registers ("recipe"): most
 * instructions that set them leave enough behind to compute them once more. A look into the TLB
 * needs them only if it fails, so it is its slow path that computes and stores them then.
 */

/* LAHF; SETO AL; MOV cc, AX */
void gen_store_cc(struct gen *g)
{
    EM(&g->e, 0x9f, 0x0f, 0x90, 0xc0);
    em_insn(&g->e, (struct em_op){.op = OP_STORE, .half = true}, H_RAX, GEN_FIELD(cc));
}

/* MOVZX EAX, cc; ADD AL, 127; SAHF */
void gen_load_cc(struct gen *g)
{
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, GEN_FIELD(cc));
    EM(&g->e, 0x04, 0x7f, 0x9e);
}

void gen_cook(struct gen *g, const struct gen_recipe *r)
{
    em_bytes(&g->e, r->code, r->len);
}

void gen_save_flags(struct gen *g)
{
    if (g->in_cc)
        return;
    if (!g->in_host)
        gen_cook(g, &g->recipe);
    gen_store_cc(g);
    g->in_host = g->in_cc = true;
}

void gen_spill_flags(struct gen *g)
{
    gen_save_flags(g);
    g->in_host = false;
    g->recipe.len = 0; /* what comes may change cc */
}

void gen_free_flags(struct gen *g)
{
    if (!g->recipe.len)
        gen_save_flags(g);
    g->in_host = false;
}

void gen_need_flags(struct gen *g)
{
    if (g->in_host)
        return;
    if (g->recipe.len)
        gen_cook(g, &g->recipe);
    else
        gen_load_cc(g);
    g->in_host = true;
}

/* BT cc, 8: CF is bit 0 of what LAHF has given. Only for instructions that set the others. */
void gen_need_carry(struct gen *g)
{
    if (!g->in_cc)
        gen_need_flags(g);
    if (g->in_host)
        return;
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xba, .half = true}, 4, GEN_FIELD(cc));
    em8(&g->e, 8);
}

/* ---- recipes ---- */

struct source {
    bool imm;
    int32_t value;
    struct em_rm rm;
};

/* A register where it is. */
static struct em_rm where(const struct gen *g, unsigned slot)
{
    return gen_host(g, slot) == H_NONE ? gen_gpr(slot) : em_reg(gen_host(g, slot));
}

/* ADD, SUB, CMP or TEST (`ext`: of ModRM with an immediate) of `size` bytes. */
static void alu(struct em *e, unsigned ext, unsigned size, unsigned reg, struct source s)
{
    bool test = ext == 8;
    struct em_op op = {.wide = size == 8, .half = size == 2};
    unsigned byte = size == 1, wide_bit = byte ? 0 : 1;

    if (s.imm) {
        op.op = (uint8_t)((test ? 0xf6 : 0x80) | wide_bit);
        op.rex = byte && reg >= 4 && reg < 8;
        em_insn(e, op, test ? 0 : ext, em_reg(reg));
        if (byte)
            em8(e, (uint8_t)s.value);
        else if (size == 2)
            em8(e, (uint8_t)s.value), em8(e, (uint8_t)(s.value >> 8));
        else
            em32(e, (uint32_t)s.value);
        return;
    }
    op.op = (uint8_t)(test ? 0x84 | wide_bit : ext << 3 | 2 | wide_bit);
    op.rex = byte && ((reg >= 4 && reg < 8) || (!s.rm.mem && s.rm.reg >= 4 && s.rm.reg < 8));
    em_insn(e, op, reg, s.rm);
}

/* A register for operand 0: its own, or RAX, loaded; `copy`: RAX in any case. X86_ZERO: memory. */
static unsigned first(struct gen *g, struct em *e, unsigned slot, bool copy)
{
    unsigned host = slot == X86_ZERO ? H_NONE : gen_host(g, slot);

    if (slot == X86_ZERO) {
        em_rm(e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_operand));
        return H_RAX;
    }
    if (host != H_NONE && !copy)
        return host;
    em_rm(e, true, OP_LOAD, H_RAX, where(g, slot));
    return H_RAX;
}

/* The op's second operand. */
static bool second(const struct gen *g, struct source *s, uint32_t *regs)
{
    const ZydisDecodedOperand *o = &g->opnd[1];
    uint8_t slot;

    *s = (struct source){0};
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        s->imm = true;
        s->value = (int32_t)o->imm.value.s;
        return true;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!gen_reg_slot(o->reg.value, &slot))
            return false;
        s->rm = where(g, slot);
        *regs |= 1u << slot;
        return true;
    default:
        s->rm = GEN_FIELD(tier_operand);
        return g->kept;
    }
}

void gen_make_recipe(struct gen *g)
{
    struct gen_recipe r = {0};
    struct em e = {.p = r.code};
    unsigned size = g->opnd[0].size / 8;
    struct source s;
    uint8_t d;

    if (g->opnd[0].type == ZYDIS_OPERAND_TYPE_MEMORY && g->kept)
        d = X86_ZERO;
    else if (g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
             !gen_reg_slot(g->opnd[0].reg.value, &d))
        return;
    r.regs = d == X86_ZERO ? 0 : 1u << d;
    switch (g->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        if (!second(g, &s, &r.regs))
            return;
        alu(&e, g->insn.mnemonic == ZYDIS_MNEMONIC_CMP ? 7 : 8, size, first(g, &e, d, false), s);
        break;
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR: {
        unsigned reg = first(g, &e, d, false);

        alu(&e, 8, size, reg, (struct source){.rm = em_reg(reg)});
        break;
    }
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB: {
        unsigned op = g->insn.mnemonic == ZYDIS_MNEMONIC_ADD ? EXT_ADD : EXT_SUB;

        if (!second(g, &s, &r.regs) || (r.regs == 1u << d && !s.imm && !g->kept))
            return;
        first(g, &e, d, true);
        alu(&e, op ^ EXT_SUB, size, H_RAX, s);
        alu(&e, op, size, H_RAX, s);
        break;
    }
    default:
        return;
    }
    r.size = (uint8_t)size;
    r.len = (uint8_t)(e.p - r.code);
    g->recipe = r;
}
