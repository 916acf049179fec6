/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/copy.c: copies of instructions: where their operands are, and flags around them. */
#include "backends/bt/copy.h"

/* The host registers of the operands. */
struct placement {
    uint8_t reg[3];
    struct em_rm mem;
};

static bool resident(const struct gen *g, const struct operand *r)
{
    return gen_host(g, r->slot) == H_NONE;
}

/* A register that stays in x86_cpu can be the operand where it is. */
static bool in_place(const struct gen *g, const struct copy *c, unsigned i)
{
    const struct operand *r = &c->r[i];

    if (r->field != IN_RM || c->mem || (r->write && r->size == 4))
        return false;
    if (r->read && r->write && (r->size < 8 || g->insn->mnemonic == ZYDIS_MNEMONIC_XCHG))
        return false;
    for (unsigned k = 0; k < c->nr; k++)
        if (k != i && c->r[k].slot == r->slot)
            return false;
    switch (g->insn->mnemonic) { /* to which memory is another matter */
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return false;
    default:
        return true;
    }
}

/* Registers that stay in x86_cpu come into what is free of RAX and RCX. */
static bool place(struct gen *g, const struct copy *c, struct placement *p)
{
    uint8_t avail[2];
    unsigned n = 0, used = 0;

    g->keeps_rcx = !c->count && !g->kept;
    if (!c->count && !(c->mem && p->mem.reg == H_RCX))
        avail[n++] = H_RCX;
    if (!g->held && !(c->mem && p->mem.reg == H_RAX))
        avail[n++] = H_RAX;
    for (unsigned i = 0; i < c->nr; i++) {
        if (!resident(g, &c->r[i])) {
            p->reg[i] = gen_host(g, c->r[i].slot);
            continue;
        }
        p->reg[i] = H_NONE;
        if (in_place(g, c, i))
            continue;
        for (unsigned k = 0; k < i; k++)
            if (c->r[k].slot == c->r[i].slot)
                p->reg[i] = p->reg[k];
        if (p->reg[i] == H_NONE) {
            if (used == n)
                return false;
            p->reg[i] = avail[used++];
            g->keeps_rcx &= p->reg[i] != H_RCX;
        }
    }
    return true;
}

static void load_residents(struct gen *g, const struct copy *c, const struct placement *p)
{
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]) && p->reg[i] != H_NONE && (c->r[i].read || c->r[i].size < 4))
            gen_get(g, p->reg[i], c->r[i].slot);
}

static void store_residents(struct gen *g, const struct copy *c, const struct placement *p)
{
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]) && p->reg[i] != H_NONE && c->r[i].write)
            gen_put(g, c->r[i].slot, p->reg[i]);
}

static void write_insn(struct gen *g, const struct copy *c, const struct placement *p)
{
    struct em_op op = c->op;
    struct em_rm rm = p->mem;
    unsigned reg = c->ext;

    for (unsigned i = 0; i < c->nr; i++) {
        unsigned r = p->reg[i];

        if (c->r[i].size == 1 && r >= 4 && r < 8)
            op.rex = true;
        if (c->r[i].field == IN_RM)
            rm = r == H_NONE ? gen_gpr(c->r[i].slot) : em_reg(r);
        else if (c->r[i].field == IN_VVVV)
            op.vvvv = (uint8_t)r;
        else
            reg = r;
    }
    em_insn(&g->e, op, reg, rm);
    if (c->nimm)
        em_bytes(&g->e, c->imm, c->nimm);
}

/* The operand in memory is what the flags are made of, and is to be kept for that. */
static bool keeps_operand(const struct gen *g, const struct copy *c)
{
    if (!c->mem || c->store || c->count || c->nr + (c->nimm != 0) > 1)
        return false;
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]))
            return false;
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        return gen_flags_last(g, g->i);
    default:
        return false;
    }
}

/* RCX = the operand, kept in x86_cpu too. */
static void keep_operand(struct gen *g, const struct copy *c, struct placement *p)
{
    struct em_op load = {.op = OP_LOAD, .wide = c->size == 8};

    if (c->size < 4)
        load = (struct em_op){.map = 1, .op = c->size == 1 ? 0xb6 : 0xb7};
    em_insn(&g->e, load, H_RCX, p->mem);
    em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(tier_operand));
    p->mem = em_reg(H_RCX);
    g->kept = true;
    g->leaves[g->held ? g->group.first : g->i] = true;
}

static bool needs_all_flags(const struct gen *g, const struct copy *c)
{
    return !g->in_host && (c->use == READS || c->use == CHANGES);
}

bool gen_copy(struct gen *g, const struct copy *c)
{
    struct placement p = {.mem = em_at(H_RAX, 0)};

    if (c->use == CARRIES && !c->mem && !g->in_cc)
        gen_need_flags(g);
    if (g->held) {
        if (needs_all_flags(g, c) || c->no_split)
            return false;
        if (c->mem)
            p.mem = gen_held(g, g->op->disp);
        if (c->mem && c->count && p.mem.reg == H_RCX)
            return false;
    } else if (c->mem) {
        if (!gen_mem(g, c->size, c->store))
            return false;
        if (c->no_split)
            gen_no_split(g, c->size);
        if (needs_all_flags(g, c)) {
            if (c->count)
                return false;
            p.mem.reg = H_RCX;
            em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        }
    }
    if (keeps_operand(g, c))
        keep_operand(g, c, &p);
    if (!place(g, c, &p)) {
        g->keeps_rcx = false;
        return false;
    }
    if (c->use == READS || c->use == CHANGES)
        gen_need_flags(g);
    if (c->shifts)
        gen_save_shifted(g);
    load_residents(g, c, &p);
    if (c->count)
        gen_get(g, H_RCX, VMM_RCX);
    if (c->use == CARRIES)
        gen_need_carry(g);
    write_insn(g, c, &p);
    store_residents(g, c, &p);
    if (c->use != NOT && c->use != READS)
        gen_flags_set(g);
    if (c->use == SETS && (!c->mem || !c->store))
        gen_make_recipe(g);
    g->kept = g->saved = false;
    return true;
}
