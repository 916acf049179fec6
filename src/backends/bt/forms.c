/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/forms.c: short encodings, which become others, and implied operands. */
#include "backends/bt/copy.h"

/* ---- encodings that become others ---- */

static struct operand reg(unsigned field, unsigned slot, unsigned size, bool read, bool write)
{
    return (struct operand){(uint8_t)field, (uint8_t)slot, (uint8_t)size, read, write};
}

/* INC, DEC with the register in the opcode; there is none in 64-bit mode. ALU and TEST with the
 * accumulator; MOV of an immediate. */
bool gen_short(struct gen *g)
{
    unsigned op = g->insn->opcode, size = g->opnd[0].size / 8;
    struct copy c = {.use = SETS, .nr = 1};
    uint8_t slot;

    if (g->insn->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || g->insn->modrm ||
        g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    c.op.wide = size == 8;
    c.op.half = size == 2;
    c.r[0] = reg(IN_RM, slot, size, true, true);
    if (op < 0x40 && (op & 7) >= 4 && (op & 7) < 6) {
        c.op.op = op & 1 ? 0x81 : 0x80;
        c.ext = op >> 3;
        if (c.ext == 2 || c.ext == 3) /* ADC, SBB */
            c.use = CARRIES;
        c.r[0].write = c.ext != 7;
    } else if (op == 0xa8 || op == 0xa9) {
        c.op.op = op & 1 ? 0xf7 : 0xf6;
        c.r[0].write = false;
    } else if (op >= 0x40 && op < 0x50 && !g->is64) {
        c.op.op = 0xff;
        c.ext = op >> 3 & 1;
        c.use = CARRIES;
        return gen_copy(g, &c);
    } else if (op >= 0xb0 && op < 0xc0 && size < 8) {
        c.op.op = op & 8 ? 0xc7 : 0xc6;
        c.use = NOT;
        c.r[0].read = false;
    } else {
        return false;
    }
    gen_immediate(g, &c);
    return gen_copy(g, &c);
}

bool gen_mov64(struct gen *g)
{
    uint8_t slot;
    unsigned host;

    if (g->insn->modrm || g->insn->opcode < 0xb8 || g->insn->opcode > 0xbf ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot) || g->opnd[0].size != 64)
        return false;
    host = gen_host(g, slot);
    if (g->held && host == H_NONE)
        return false;
    em_const(&g->e, host == H_NONE ? H_RAX : host, g->all[g->i].imm);
    if (host == H_NONE)
        gen_put(g, slot, H_RAX);
    return true;
}

bool gen_xchg(struct gen *g)
{
    struct copy c = {.nr = 2, .op = {.op = 0x87}};
    unsigned size = g->opnd[0].size / 8;
    uint8_t a, b;

    if (g->insn->modrm || !gen_reg_slot(g->opnd[0].reg.value, &a) ||
        !gen_reg_slot(g->opnd[1].reg.value, &b))
        return false;
    c.op.wide = size == 8;
    c.op.half = size == 2;
    c.r[0] = reg(IN_RM, a, size, true, true);
    c.r[1] = reg(IN_REG, b, size, true, true);
    return gen_copy(g, &c);
}

/* CBW, CWDE, CDQE as MOVSX. */
bool gen_cbw(struct gen *g)
{
    struct copy c = {.nr = 2, .op = {.map = 1}};

    if (g->insn->mnemonic == ZYDIS_MNEMONIC_CBW)
        c.op.op = 0xbe, c.op.half = true;
    else if (g->insn->mnemonic == ZYDIS_MNEMONIC_CWDE)
        c.op.op = 0xbf;
    else
        c.op = (struct em_op){.op = 0x63, .wide = true};
    c.r[0] = reg(IN_REG, VMM_RAX, 8, false, true);
    c.r[1] = reg(IN_RM, VMM_RAX, 8, true, false);
    return gen_copy(g, &c);
}

bool gen_cwd(struct gen *g)
{
    gen_get(g, H_RAX, VMM_RAX);
    if (g->insn->mnemonic == ZYDIS_MNEMONIC_CWD)
        em8(&g->e, 0x66);
    if (g->insn->mnemonic == ZYDIS_MNEMONIC_CQO)
        em8(&g->e, 0x48);
    em8(&g->e, 0x99);
    return true;
}

bool gen_bswap(struct gen *g)
{
    unsigned host;
    uint8_t slot;
    bool wide = g->opnd[0].size == 64;

    if (g->opnd[0].size < 32 || !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    host = gen_host(g, slot);
    if (host == H_NONE)
        gen_get(g, H_RCX, slot);
    else if (!wide)
        em_rr(&g->e, false, OP_LOAD, H_RCX, host);
    if (host == H_NONE || !wide)
        EM(&g->e, wide ? 0x48 : 0x40, 0x0f, 0xc8 | H_RCX);
    else
        EM(&g->e, (uint8_t)(0x48 | host >> 3), 0x0f, (uint8_t)(0xc8 | (host & 7)));
    if (host == H_NONE || !wide)
        gen_put(g, slot, H_RCX);
    return true;
}

/* ---- implied operands ---- */

/* The operand of MUL and alike, in RCX or its own register. False: not possible. */
static bool wide_operand(struct gen *g, struct em_rm *rm, bool *byte_rex)
{
    const struct gen_operand *o = &g->opnd[0];
    uint8_t slot;

    *byte_rex = false;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!gen_mem(g, o->size / 8, false))
            return false;
        em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        *rm = em_at(H_RCX, 0);
        return true;
    }
    if (!gen_reg_slot(o->reg.value, &slot))
        return false;
    if (gen_host(g, slot) == H_NONE) {
        gen_get(g, H_RCX, slot);
        *rm = em_reg(H_RCX);
    } else {
        *rm = em_reg(gen_host(g, slot));
        *byte_rex = o->size == 8 && gen_host(g, slot) >= 4 && gen_host(g, slot) < 8;
    }
    return true;
}

/* MUL, and IMUL with one operand: RDX:RAX. */
bool gen_mul(struct gen *g)
{
    struct em_op op = {
        .op = g->insn->opcode, .wide = g->opnd[0].size == 64, .half = g->opnd[0].size == 16};
    struct em_rm rm;

    if (!wide_operand(g, &rm, &op.rex))
        return false;
    gen_get(g, H_RAX, VMM_RAX);
    em_insn(&g->e, op, g->insn->extension, rm);
    gen_put(g, VMM_RAX, H_RAX);
    gen_flags_set(g);
    return true;
}

bool gen_cmpxchg(struct gen *g)
{
    unsigned size = g->opnd[0].size / 8;
    struct em_op op = {.map = 1,
                       .op = g->insn->opcode,
                       .wide = size == 8,
                       .half = size == 2,
                       .lock = g->insn->op.lock};
    uint8_t slot;

    if (g->opnd[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        !gen_reg_slot(g->opnd[1].reg.value, &slot) || gen_host(g, slot) == H_NONE ||
        !gen_mem(g, size, true))
        return false;
    if (op.lock)
        gen_no_split(g, size);
    op.rex = size == 1 && gen_host(g, slot) >= 4 && gen_host(g, slot) < 8;
    em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
    gen_get(g, H_RAX, VMM_RAX);
    em_insn(&g->e, op, gen_host(g, slot), em_at(H_RCX, 0));
    gen_put(g, VMM_RAX, H_RAX);
    gen_flags_set(g);
    return true;
}

/* CLC, STC, CMC */
bool gen_carry(struct gen *g)
{
    gen_need_flags(g);
    em8(&g->e, g->insn->opcode);
    gen_flags_set(g);
    return true;
}

bool gen_lea_insn(struct gen *g)
{
    unsigned size = g->opnd[0].size, host;
    uint8_t slot;

    if (size < 32 || g->op->asz == X86_A16 || !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    host = gen_host(g, slot);
    if (g->held && (host == H_NONE || g->op->base == X86_RIP0 ||
                    (g->op->base != X86_ZERO && gen_host(g, g->op->base) == H_NONE)))
        return false;
    if (!gen_lea(g, host == H_NONE ? H_RAX : host, size == 64 && g->op->asz == X86_A64))
        return false;
    if (host == H_NONE)
        gen_put(g, slot, H_RAX);
    return true;
}
