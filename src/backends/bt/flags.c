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

/* Where an operand of a recipe is: in a guest register (by slot), or in one of these. */
enum { IN_OPERAND = 16, IN_SAVED, IN_SAVED2, IMMEDIATE };

/* What a recipe executes once more. */
enum { LOGIC = 8, SHIFTS = 16, NEGATES = 32 }; /* others: EXT_ADD, EXT_SUB, EXT_CMP; TEST: LOGIC */

static struct em_rm where(const struct gen *g, unsigned place)
{
    switch (place) {
    case IN_OPERAND:
        return GEN_FIELD(tier_operand);
    case IN_SAVED:
        return GEN_FIELD(tier_saved[0]);
    case IN_SAVED2:
        return GEN_FIELD(tier_saved[1]);
    default:
        return gen_host(g, place) == H_NONE ? gen_gpr(place) : em_reg(gen_host(g, place));
    }
}

static void immediate(struct em *e, unsigned size, int32_t value)
{
    if (size == 1)
        em8(e, (uint8_t)value);
    else if (size == 2)
        em8(e, (uint8_t)value), em8(e, (uint8_t)(value >> 8));
    else
        em32(e, (uint32_t)value);
}

/* ADD, SUB, CMP or TEST (`ext`: of ModRM with an immediate) of a register and the second operand.
 */
static void alu(const struct gen *g, struct em *e, unsigned ext, unsigned reg,
                const struct gen_recipe *r)
{
    bool test = ext == LOGIC, byte = r->size == 1;
    struct em_op op = {.wide = r->size == 8, .half = r->size == 2};
    unsigned wide_bit = byte ? 0 : 1;
    struct em_rm rm;

    if (r->second == IMMEDIATE) {
        op.op = (uint8_t)((test ? 0xf6 : 0x80) | wide_bit);
        op.rex = byte && reg >= 4 && reg < 8;
        em_insn(e, op, test ? 0 : ext, em_reg(reg));
        immediate(e, r->size, r->value);
        return;
    }
    rm = where(g, r->second);
    op.op = (uint8_t)(test ? 0x84 | wide_bit : ext << 3 | 2 | wide_bit);
    op.rex = byte && ((reg >= 4 && reg < 8) || (!rm.mem && rm.reg >= 4 && rm.reg < 8));
    em_insn(e, op, reg, rm);
}

/* A register for the first operand: its own, or RAX, loaded; `copy`: RAX in any case. */
static unsigned first(const struct gen *g, struct em *e, const struct gen_recipe *r, bool copy)
{
    struct em_rm rm = where(g, r->first);

    if (!rm.mem && !copy)
        return rm.reg;
    em_rm(e, true, OP_LOAD, H_RAX, rm);
    return H_RAX;
}

/* D0, D1, C0 or C1: as the instruction was, as what is undefined may depend on that. */
static void shift_again(struct em *e, const struct gen_recipe *r)
{
    struct em_op op = {.wide = r->size == 8, .half = r->size == 2, .op = r->opcode};

    em_insn(e, op, r->what - SHIFTS, em_reg(H_RAX));
    if (r->opcode < 0xd0)
        em8(e, (uint8_t)r->value);
}

static void negate(struct em *e, const struct gen_recipe *r)
{
    struct em_op op = {
        .wide = r->size == 8, .half = r->size == 2, .op = r->size == 1 ? 0xf6 : 0xf7};

    em_insn(e, op, 3, em_reg(H_RAX));
}

static void write_recipe(const struct gen *g, struct gen_recipe *r)
{
    struct em e = {.p = r->code};

    switch (r->what) {
    case EXT_CMP:
    case LOGIC:
        alu(g, &e, r->what, first(g, &e, r, false), r);
        break;
    case EXT_ADD:
    case EXT_SUB:
        first(g, &e, r, true);
        alu(g, &e, r->what ^ EXT_SUB, H_RAX, r);
        alu(g, &e, r->what, H_RAX, r);
        break;
    case NEGATES:
        first(g, &e, r, true);
        negate(&e, r);
        negate(&e, r);
        break;
    default:
        first(g, &e, r, true);
        shift_again(&e, r);
        break;
    }
    r->regs = (r->first < 16 ? 1u << r->first : 0) | (r->second < 16 ? 1u << r->second : 0);
    r->len = (uint8_t)(e.p - r->code);
}

/* The op's second operand. */
static bool second(const struct gen *g, struct gen_recipe *r)
{
    const struct gen_operand *o = &g->opnd[1];

    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        r->second = IMMEDIATE;
        r->value = (int32_t)g->all[g->i].imm;
        return true;
    case ZYDIS_OPERAND_TYPE_REGISTER:
        return gen_reg_slot(o->reg.value, &r->second);
    default:
        r->second = IN_OPERAND;
        return g->kept;
    }
}

/* What the current op executes again, and its operands; false: there is no way. */
static bool find_recipe(const struct gen *g, struct gen_recipe *r)
{
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
        r->what = EXT_CMP;
        return second(g, r);
    case ZYDIS_MNEMONIC_TEST:
        r->what = LOGIC;
        return second(g, r);
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
        r->what = LOGIC;
        r->second = r->first;
        return true;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        r->what = g->insn->mnemonic == ZYDIS_MNEMONIC_ADD ? EXT_ADD : EXT_SUB;
        return second(g, r) && r->second != r->first;
    case ZYDIS_MNEMONIC_NEG:
        r->what = NEGATES;
        r->second = IMMEDIATE;
        return true;
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
        r->what = (uint8_t)(SHIFTS + g->insn->extension);
        r->opcode = g->insn->opcode;
        r->first = IN_SAVED;
        r->second = IMMEDIATE;
        r->value = (int32_t)g->all[g->i].imm;
        return g->saved;
    default:
        return false;
    }
}

void gen_make_recipe(struct gen *g)
{
    struct gen_recipe r = {.size = (uint8_t)(g->opnd[0].size / 8)};

    if (g->opnd[0].type == ZYDIS_OPERAND_TYPE_MEMORY && g->kept)
        r.first = IN_OPERAND;
    else if (g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
             !gen_reg_slot(g->opnd[0].reg.value, &r.first))
        return;
    if (!find_recipe(g, &r))
        return;
    write_recipe(g, &r);
    g->recipe = r;
}

static void save(struct gen *g, unsigned slot, unsigned place)
{
    unsigned reg = gen_host(g, slot);

    if (reg == H_NONE)
        gen_get(g, reg = H_RAX, slot);
    em_rm(&g->e, true, OP_STORE, reg, where(g, place));
}

void gen_save_recipe(struct gen *g, uint32_t regs)
{
    struct gen_recipe *r = &g->recipe;
    unsigned was = r->first;

    g->saves[g->i] = true;

    if (was < 16 && (regs >> was & 1)) {
        save(g, was, IN_SAVED);
        r->first = IN_SAVED;
    }
    if (r->second < 16 && (regs >> r->second & 1)) {
        if (r->second == was) {
            r->second = r->first;
        } else {
            save(g, r->second, IN_SAVED2);
            r->second = IN_SAVED2;
        }
    }
    write_recipe(g, r);
}

void gen_save_shifted(struct gen *g)
{
    uint8_t slot;

    if (g->held || g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot) || !gen_flags_last(g, g->i))
        return;
    save(g, slot, IN_SAVED);
    g->saves[g->i] = true;
    g->saved = true;
}
