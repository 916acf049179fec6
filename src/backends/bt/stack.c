/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/stack.c: PUSH, POP and LEAVE. */
#include "backends/bt/gen.h"

static bool stack_size(const struct gen *g)
{
    return g->op->size == (g->is64 ? 8 : 4);
}

static void stack_insn(struct gen *g, unsigned op, unsigned r, struct em_rm rm)
{
    em_rm(&g->e, g->is64, op, r, rm);
}

/* RAX = where a push goes. */
static void push_address(struct gen *g)
{
    gen_sp(g, H_RAX, g->is64 ? -8 : -4);
    gen_probe_off(g, &gen_stack, g->is64 ? 8 : 4, true);
}

/* In a group nothing can fault, so that moves of the stack pointer may wait. */
static void move_sp(struct gen *g, int32_t by)
{
    if (g->held)
        g->sp_due += by;
    else
        gen_sp(g, gen_host(g, VMM_RSP), by);
}

static void push_done(struct gen *g)
{
    move_sp(g, g->is64 ? -8 : -4);
}

void gen_settle_sp(struct gen *g)
{
    if (g->sp_due)
        gen_sp(g, gen_host(g, VMM_RSP), g->sp_due);
    g->sp_due = 0;
}

bool gen_needs_sp(const struct gen *g)
{
    uint8_t slot;

    if (g->insn->mnemonic == ZYDIS_MNEMONIC_RET)
        return true;
    for (unsigned k = 0; k < g->insn->operand_count_visible; k++) {
        const struct gen_operand *o = &g->opnd[k];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && gen_reg_slot(o->reg.value, &slot) &&
            slot == VMM_RSP)
            return true;
    }
    return g->insn->mnemonic == ZYDIS_MNEMONIC_LEA && g->op->base == VMM_RSP;
}

/* A register's value in itself or RCX. */
static unsigned push_value(struct gen *g, unsigned slot)
{
    if (gen_host(g, slot) != H_NONE)
        return gen_host(g, slot);
    gen_get(g, H_RCX, slot);
    return H_RCX;
}

static bool push_held(struct gen *g)
{
    const struct gen_operand *o = &g->opnd[0];
    struct em_rm to = gen_held(g, g->is64 ? -8 : -4);
    uint8_t slot;

    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        stack_insn(g, 0xc7, 0, to);
        em32(&g->e, (uint32_t)g->op->imm);
    } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && gen_reg_slot(o->reg.value, &slot)) {
        stack_insn(g, OP_STORE, push_value(g, slot), to);
    } else {
        return false;
    }
    push_done(g);
    return true;
}

bool gen_push(struct gen *g)
{
    const struct gen_operand *o = &g->opnd[0];
    unsigned r = H_RCX;
    uint8_t slot;

    if (!stack_size(g))
        return false;
    if (g->held)
        return push_held(g);
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!gen_mem(g, g->op->size, false))
            return false;
        stack_insn(g, OP_LOAD, H_RAX, em_at(H_RAX, 0));
        em_rm(&g->e, true, OP_STORE, H_RAX, GEN_FIELD(tier_temp[0]));
        push_address(g);
        em_rm(&g->e, true, OP_LOAD, H_RCX, GEN_FIELD(tier_temp[0]));
    } else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        gen_free_flags(g);
        push_address(g);
        stack_insn(g, 0xc7, 0, em_at(H_RAX, 0));
        em32(&g->e, (uint32_t)g->op->imm);
        push_done(g);
        return true;
    } else {
        if (!gen_reg_slot(o->reg.value, &slot))
            return false;
        gen_free_flags(g);
        push_address(g);
        r = push_value(g, slot);
    }
    stack_insn(g, OP_STORE, r, em_at(H_RAX, 0));
    push_done(g);
    return true;
}

/* The order matters to POP RSP. */
static void pop_to(struct gen *g, uint8_t slot, struct em_rm from)
{
    unsigned reg = gen_host(g, slot) != H_NONE && slot != VMM_RSP ? gen_host(g, slot) : H_RCX;

    stack_insn(g, OP_LOAD, reg, from);
    move_sp(g, g->is64 ? 8 : 4);
    if (reg == H_RCX)
        gen_put(g, slot, reg);
}

bool gen_pop(struct gen *g)
{
    unsigned size = g->is64 ? 8 : 4;
    uint8_t slot;

    if (!stack_size(g) || g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    if (g->held) {
        pop_to(g, slot, gen_held(g, 0));
        return true;
    }
    gen_free_flags(g);
    stack_insn(g, OP_LOAD, H_RAX, em_reg(gen_host(g, VMM_RSP)));
    gen_probe(g, size, false);
    pop_to(g, slot, em_at(H_RAX, 0));
    return true;
}

bool gen_leave(struct gen *g)
{
    unsigned size = g->is64 ? 8 : 4, frame = gen_host(g, VMM_RBP);

    if (!stack_size(g))
        return false;
    gen_free_flags(g);
    stack_insn(g, OP_LOAD, H_RAX, frame == H_NONE ? gen_gpr(VMM_RBP) : em_reg(frame));
    gen_probe(g, size, false);
    stack_insn(g, OP_LOAD, H_RAX, em_at(H_RAX, 0));
    if (frame == H_NONE)
        gen_get(g, frame = H_RCX, VMM_RBP);
    em_rm(&g->e, g->is64, OP_LEA, gen_host(g, VMM_RSP), em_at(frame, (int32_t)size));
    gen_put(g, VMM_RBP, H_RAX);
    return true;
}
