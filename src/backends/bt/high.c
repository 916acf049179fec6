/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/high.c: instructions with AH, CH, DH or BH as an operand. */
#include "backends/bt/gen.h"

/*
 * Guest registers are not where their second bytes could be named, so the work is done on copies in
 * RAX and RCX, without REX prefixes. While RAX is held for a group, forms with one register only.
 */

enum { AL, CL, AH = 4, CH };

/* A register of a byte: which guest register, and whether it is its second byte. */
struct byte_reg {
    uint8_t slot;
    bool high;
};

static bool byte_reg(const struct gen_operand *o, struct byte_reg *r)
{
    unsigned id;

    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || x86_dec_gpr(o->reg.value, &id) != 1)
        return false;
    r->high = id >= 4 && id < 8;
    r->slot = (uint8_t)(id < 4 ? id : id - 4);
    return true;
}

bool gen_has_high(const struct gen *g)
{
    for (unsigned i = 0; i < 2 && i < g->insn->operand_count_visible; i++) {
        ZydisRegister r = g->opnd[i].reg.value;

        if (g->opnd[i].type == ZYDIS_OPERAND_TYPE_REGISTER && r >= ZYDIS_REGISTER_AH &&
            r <= ZYDIS_REGISTER_BH)
            return true;
    }
    return false;
}

/* How an ALU operation goes about its operands: the number in bits 5:3 of its opcodes. */
enum { ALU_ADC = 2, ALU_SBB = 3, ALU_CMP = 7, MOVES = 8, TESTS = 9 };

static int alu(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_ADD:
        return 0;
    case ZYDIS_MNEMONIC_OR:
        return 1;
    case ZYDIS_MNEMONIC_ADC:
        return ALU_ADC;
    case ZYDIS_MNEMONIC_SBB:
        return ALU_SBB;
    case ZYDIS_MNEMONIC_AND:
        return 4;
    case ZYDIS_MNEMONIC_SUB:
        return 5;
    case ZYDIS_MNEMONIC_XOR:
        return 6;
    case ZYDIS_MNEMONIC_CMP:
        return ALU_CMP;
    case ZYDIS_MNEMONIC_MOV:
        return MOVES;
    case ZYDIS_MNEMONIC_TEST:
        return TESTS;
    default:
        return -1;
    }
}

static bool carries(int kind)
{
    return kind == ALU_ADC || kind == ALU_SBB;
}

static bool writes(int kind)
{
    return kind != ALU_CMP && kind != TESTS;
}

static void set_flags(struct gen *g, int kind)
{
    if (kind != MOVES)
        gen_flags_set(g);
}

/* OP r8, imm8: in CH. */
static bool with_immediate(struct gen *g, int kind, const struct byte_reg *d)
{
    struct em *e = &g->e;

    if (carries(kind))
        gen_need_carry(g);
    gen_get(g, H_RCX, d->slot);
    if (kind == MOVES)
        EM(e, 0xb0 | CH);
    else if (kind == TESTS)
        EM(e, 0xf6, 0xc0 | CH);
    else
        EM(e, 0x80, (uint8_t)(0xc0 | kind << 3 | CH));
    em8(e, (uint8_t)g->all[g->i].imm);
    if (writes(kind))
        gen_put(g, d->slot, H_RCX);
    set_flags(g, kind);
    return true;
}

/* OP r8, r8: the destination in AL or AH, the source in CL or CH. */
static bool with_register(struct gen *g, int kind, const struct byte_reg *d,
                          const struct byte_reg *s)
{
    struct em *e = &g->e;
    unsigned to = d->high ? AH : AL, from = s->high ? CH : CL;
    unsigned op = kind == MOVES ? 0x88u : kind == TESTS ? 0x84u : (unsigned)kind << 3;

    if (g->held)
        return false;
    if (carries(kind))
        gen_need_carry(g);
    gen_get(g, H_RCX, s->slot);
    gen_get(g, H_RAX, d->slot);
    EM(e, (uint8_t)op, (uint8_t)(0xc0 | from << 3 | to));
    if (writes(kind))
        gen_put(g, d->slot, H_RAX);
    set_flags(g, kind);
    return true;
}

/* MOVZX, MOVSX r32 or r64, high byte. */
static bool extend(struct gen *g, const struct byte_reg *s, bool sign)
{
    uint8_t slot;

    if (g->opnd[0].size < 32 || !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    gen_get(g, H_RCX, s->slot);
    EM(&g->e, 0x0f, sign ? 0xbe : 0xb6, 0xc0 | H_RCX << 3 | CH);
    if (sign && g->opnd[0].size == 64)
        em_rr(&g->e, true, 0x63, H_RCX, H_RCX); /* MOVSXD */
    gen_put(g, slot, H_RCX);
    return true;
}

bool gen_high(struct gen *g)
{
    int kind = alu(g->insn->mnemonic);
    struct byte_reg d, s;

    if (g->insn->mnemonic == ZYDIS_MNEMONIC_MOVZX || g->insn->mnemonic == ZYDIS_MNEMONIC_MOVSX)
        return byte_reg(&g->opnd[1], &s) &&
               extend(g, &s, g->insn->mnemonic == ZYDIS_MNEMONIC_MOVSX);
    if (kind < 0 || g->insn->operand_count_visible != 2 || !byte_reg(&g->opnd[0], &d))
        return false;
    if (g->opnd[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return with_immediate(g, kind, &d);
    return byte_reg(&g->opnd[1], &s) && with_register(g, kind, &d, &s);
}
