/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/bits.c: BT, BTS, BTR and BTC of strings of bits: memory and a register. */
#include "backends/bt/gen.h"

#define OP_MOVSXD 0x63

/* RCX = the register's bit number, sign-extended, in operands of `size` bytes (SDM Vol. 1 3.5). */
static void operand_number(struct gen *g, unsigned slot, unsigned size)
{
    struct em *e = &g->e;

    gen_get(g, H_RCX, slot);
    if (size == 2)
        em_insn(e, (struct em_op){.map = 1, .op = 0xbf, .wide = true}, H_RCX, em_reg(H_RCX));
    else if (size == 4)
        em_rr(e, true, OP_MOVSXD, H_RCX, H_RCX);
    em_rr(e, true, OP_SHIFT, EXT_SAR, H_RCX);
    em8(e, size == 8 ? 6 : size == 4 ? 5 : 4);
}

/* CF in cc is the host's; the others stay. Changes RAX and RCX. */
static void keep_carry(struct gen *g)
{
    struct em *e = &g->e;

    em_rr(e, false, 0x19, H_RCX, H_RCX); /* SBB */
    em_rm(e, false, OP_IMM32, EXT_AND, em_reg(H_RCX));
    em32(e, X86_CC_CF);
    em_insn(e, (struct em_op){.map = 1, .op = 0xb7}, H_RAX, GEN_FIELD(cc));
    em_rm(e, false, OP_IMM32, EXT_AND, em_reg(H_RAX));
    em32(e, (uint16_t)~X86_CC_CF);
    em_rr(e, false, 0x0b, H_RAX, H_RCX); /* OR */
    em_insn(e, (struct em_op){.op = OP_STORE, .half = true}, H_RAX, GEN_FIELD(cc));
    g->in_host = false;
    g->in_cc = true;
    g->recipe.len = 0;
}

bool gen_bit_string(struct gen *g)
{
    unsigned size = g->opnd[0].size / 8;
    bool lock = g->insn->op.lock, wide = size == 8;
    bool test = g->insn->mnemonic == ZYDIS_MNEMONIC_BT;
    struct em_rm to = {.mem = true, .reg = H_RAX, .index = H_RCX};
    uint8_t slot;

    if (g->held || g->opnd[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        g->op->asz != (g->is64 ? X86_A64 : X86_A32) || g->op->ea == X86_EA_SLOW ||
        g->opnd[1].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !gen_reg_slot(g->opnd[1].reg.value, &slot))
        return false;
    gen_spill_flags(g);
    if (!gen_linear(g))
        return false;
    operand_number(g, slot, size);
    to.scale = size == 8 ? 3 : size == 4 ? 2 : 1;
    em_rm(&g->e, g->is64, OP_LEA, H_RAX, to);
    gen_probe(g, size, !test);
    if (lock)
        gen_no_split(g, size);
    gen_get(g, H_RCX, slot);
    em_imm(&g->e, false, EXT_AND, em_reg(H_RCX), (int32_t)(8 * size - 1));
    if (test) {
        em_insn(&g->e, (struct em_op){.op = OP_LOAD, .wide = wide, .half = size == 2}, H_RAX,
                em_at(H_RAX, 0));
        em_insn(&g->e, (struct em_op){.map = 1, .op = 0xa3, .wide = wide, .half = size == 2}, H_RCX,
                em_reg(H_RAX));
    } else {
        em_insn(&g->e,
                (struct em_op){
                    .map = 1, .op = g->insn->opcode, .lock = lock, .wide = wide, .half = size == 2},
                H_RCX, em_at(H_RAX, 0));
    }
    keep_carry(g);
    return true;
}
