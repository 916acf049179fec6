/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/emit.c: writes host instructions (SDM Vol. 2A 2.1-2.3). */
#include "backends/bt/emit.h"

/* What is written goes through `p`, a local variable: stores of bytes may change anything else. */

static uint8_t *legacy_prefixes(uint8_t *p, const struct em_op *op)
{
    if (op->lock)
        *p++ = 0xf0;
    if (op->half)
        *p++ = 0x66;
    if (op->rep)
        *p++ = op->rep;
    return p;
}

static uint8_t *vex_prefix(uint8_t *p, const struct em_op *op, unsigned rex)
{
    p[0] = 0xc4;
    p[1] = (uint8_t)((~rex & 7) << 5 | op->map);
    p[2] =
        (uint8_t)((op->wide ? 0x80u : 0) | (~op->vvvv & 15u) << 3 | (op->vex_l ? 4u : 0) | op->pp);
    return p + 3;
}

static uint8_t *prefixes(uint8_t *p, const struct em_op *op, unsigned r, unsigned x, unsigned b)
{
    unsigned rex = (op->wide ? 8u : 0) | r << 2 | x << 1 | b;

    if (op->vex)
        return vex_prefix(p, op, rex);
    p = legacy_prefixes(p, op);
    if (rex || op->rex)
        *p++ = (uint8_t)(0x40 | rex);
    if (op->map) {
        *p++ = 0x0f;
        if (op->map > 1)
            *p++ = op->map == 2 ? 0x38 : 0x3a;
    }
    return p;
}

static uint8_t *modrm_mem(uint8_t *p, unsigned reg, const struct em_rm *m)
{
    bool none = m->reg == H_NONE, sib = none || m->index != H_NONE || (m->reg & 7) == H_RSP;
    unsigned base = none ? H_RBP : m->reg & 7u, mod;

    if (none)
        mod = 0;
    else if (!m->disp && base != H_RBP)
        mod = 0;
    else
        mod = m->disp == (int8_t)m->disp ? 1 : 2;
    *p++ = (uint8_t)(mod << 6 | (reg & 7) << 3 | (sib ? (unsigned)H_RSP : base));
    if (sib)
        *p++ = (uint8_t)((unsigned)m->scale << 6 | (m->index == H_NONE ? 4u : m->index & 7u) << 3 |
                         base);
    if (mod == 1) {
        *p++ = (uint8_t)m->disp;
    } else if (mod == 2 || none) {
        memcpy(p, &m->disp, 4);
        p += 4;
    }
    return p;
}

void em_insn(struct em *e, struct em_op op, unsigned reg, struct em_rm rm)
{
    unsigned b = rm.reg == H_NONE ? 0 : rm.reg >> 3, x = rm.index == H_NONE ? 0 : rm.index >> 3;
    uint8_t *p = prefixes(e->p, &op, reg >> 3, x, b);

    *p++ = op.op;
    if (rm.mem)
        p = modrm_mem(p, reg, &rm);
    else
        *p++ = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm.reg & 7u));
    e->p = p;
}

void em_any_rm(struct em *e, bool wide, unsigned op, unsigned reg, struct em_rm rm)
{
    if (!rm.mem)
        em_rr(e, wide, op, reg, rm.reg);
    else if (rm.reg != H_NONE && rm.index == H_NONE && (rm.reg & 7) != H_RSP)
        em_based(e, wide, op, reg, rm.reg, rm.disp);
    else
        em_insn(e, (struct em_op){.op = (uint8_t)op, .wide = wide}, reg, rm);
}

void em_lea(struct em *e, bool wide, unsigned reg, struct em_rm m)
{
    if (m.reg == H_NONE || m.index != H_NONE || m.disp)
        em_rm(e, wide, OP_LEA, reg, m);
    else if (!wide || m.reg != reg)
        em_rr(e, wide, OP_LOAD, reg, m.reg);
}

void em_imm(struct em *e, bool wide, unsigned ext, struct em_rm rm, int32_t imm)
{
    if (imm == (int8_t)imm) {
        em_any_rm(e, wide, OP_IMM8, ext, rm);
        em8(e, (uint8_t)imm);
    } else if (!rm.mem && rm.reg == H_RAX) {
        if (wide)
            em8(e, 0x48);
        em8(e, ext << 3 | 5);
        em32(e, (uint32_t)imm);
    } else {
        em_any_rm(e, wide, OP_IMM32, ext, rm);
        em32(e, (uint32_t)imm);
    }
}

uint8_t *em_jmp_later(struct em *e)
{
    uint8_t *p = e->p;

    p[0] = 0xe9;
    memset(p + 1, 0, 4);
    e->p = p + 5;
    return p + 1;
}

uint8_t *em_jcc_later(struct em *e, unsigned cc)
{
    uint8_t *p = e->p;

    p[0] = 0x0f;
    p[1] = (uint8_t)(0x80 | cc);
    memset(p + 2, 0, 4);
    e->p = p + 6;
    return p + 2;
}

void em_jmp(struct em *e, const void *target)
{
    uint8_t *p = e->p;

    p[0] = 0xe9;
    em_patch(e, p + 1, target);
    e->p = p + 5;
}

void em_call(struct em *e, const void *target)
{
    uint8_t *p = e->p;

    p[0] = 0xe8;
    em_patch(e, p + 1, target);
    e->p = p + 5;
}

void em_jcc(struct em *e, unsigned cc, const void *target)
{
    em_patch(e, em_jcc_later(e, cc), target);
}

void em_const(struct em *e, unsigned reg, uint64_t value)
{
    bool wide = value > UINT32_MAX;

    if (wide || reg >= 8)
        em8(e, 0x40u | (wide ? 8u : 0) | reg >> 3);
    em8(e, 0xb8 | (reg & 7));
    if (wide)
        em64(e, value);
    else
        em32(e, (uint32_t)value);
}
