/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/string.c: MOVS and STOS, with REP if the operands lie in one page each. */
#include "backends/bt/gen.h"

/*
 * The host's own instruction does it, on host addresses: these have the guest's offsets in their
 * pages, and pages that are the same for the guest are so for the host, so that operands that
 * overlap do it in the same way. At most a page is done at once, so nobody waits for long. Copies
 * that go over the end of a page, and DF, are the handler's.
 */

#define OP_TEST 0x85

/* Saves what the host's `reg` holds in its place in x86_cpu, or takes it back. */
static void move_resident(struct gen *g, unsigned reg, unsigned op)
{
    for (unsigned slot = 0; slot < 16; slot++)
        if (gen_host(g, slot) == reg)
            em_rm(&g->e, true, op, reg, gen_gpr(slot));
    if (gen_counts(g) && g->regs->count == reg)
        em_rm(&g->e, true, op, reg, GEN_FIELD(tier_back));
    for (unsigned k = 0; g->regs && k < GEN_HOLDS; k++)
        if (g->regs->hold[k] == reg)
            em_rm(&g->e, true, op, reg, em_at(H_RBP, BT_FIELD(tier_held) + (int32_t)k * 8));
}

/* RAX = the host address of [slot]; all of the operand is in its page. RCX is changed. */
static void probe_operand(struct gen *g, unsigned slot, unsigned shift, bool write)
{
    struct em *e = &g->e;
    struct em_rm end = {.mem = true, .reg = H_RCX, .index = H_RAX, .scale = (uint8_t)shift};

    gen_get(g, H_RCX, slot);
    em_imm(e, false, EXT_AND, em_reg(H_RCX), MMU_PAGE_SIZE - 1);
    gen_get(g, H_RAX, VMM_RCX);
    em_rm(e, true, OP_LEA, H_RCX, end);
    em_imm(e, true, EXT_CMP, em_reg(H_RCX), MMU_PAGE_SIZE);
    gen_slow_if(g, CC_A);
    gen_get(g, H_RAX, slot);
    gen_probe(g, 1, write);
}

/* Register `slot` += RAX << shift */
static void step(struct gen *g, unsigned slot, unsigned shift)
{
    struct em_rm sum = {.mem = true, .reg = H_RCX, .index = H_RAX, .scale = (uint8_t)shift};

    gen_get(g, H_RCX, slot);
    em_rm(&g->e, true, OP_LEA, H_RCX, sum);
    gen_put(g, slot, H_RCX);
}

/* MOV between `reg` and [RAX]. */
static void move_element(struct gen *g, unsigned op, unsigned reg)
{
    unsigned size = g->op->size;
    struct em_op insn = {.op = (uint8_t)(size == 1 ? op - 1 : op),
                         .half = size == 2,
                         .wide = size == 8,
                         .rex = size == 1 && reg >= 4 && reg < 8};

    em_insn(&g->e, insn, reg, em_at(H_RAX, 0));
}

/* Register `slot` += n */
static void advance(struct gen *g, unsigned slot, unsigned n)
{
    unsigned reg = gen_host(g, slot);

    if (reg == H_NONE)
        gen_get(g, reg = H_RCX, slot);
    em_rm(&g->e, true, OP_LEA, reg, em_at(reg, (int32_t)n));
    if (gen_host(g, slot) == H_NONE)
        gen_put(g, slot, reg);
}

/* Without REP. */
static bool once(struct gen *g, bool movs)
{
    unsigned size = g->op->size;

    gen_free_flags(g);
    em_rm(&g->e, false, 0xf7, 0, GEN_FIELD(rflags)); /* TEST */
    em32(&g->e, X86_DF);
    gen_slow_if(g, CC_NZ);
    if (movs) {
        gen_get(g, H_RAX, VMM_RSI);
        gen_probe(g, size, false);
        move_element(g, OP_LOAD, H_RCX);
        em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(tier_temp[0]));
    }
    gen_get(g, H_RAX, VMM_RDI);
    gen_probe(g, size, true);
    if (movs)
        em_rm(&g->e, true, OP_LOAD, H_RCX, GEN_FIELD(tier_temp[0]));
    else
        gen_get(g, H_RCX, VMM_RAX);
    move_element(g, OP_STORE, H_RCX);
    advance(g, VMM_RDI, size);
    if (movs)
        advance(g, VMM_RSI, size);
    return true;
}

bool gen_string(struct gen *g)
{
    bool movs = false;
    unsigned shift;
    struct em *e = &g->e;
    uint8_t *none;

    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSW:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_MOVSQ:
        movs = true;
        break;
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSW:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        break;
    default:
        return false;
    }
    if (!g->is64 || !g->insn->is_string || g->op->asz != X86_A64 || g->op->scale != X86_EA_FLAT ||
        (movs && g->op->ea != X86_EA_FLAT))
        return false;
    if (!g->insn->has_rep)
        return once(g, movs);
    if (!g->insn->is_rep)
        return false;
    shift = (unsigned)__builtin_ctz(g->op->size);

    gen_spill_flags(g);
    gen_get(g, H_RAX, VMM_RCX);
    em_rr(e, true, OP_TEST, H_RAX, H_RAX);
    none = em_jcc_later(e, CC_Z);
    em_imm(e, true, EXT_CMP, em_reg(H_RAX), (int32_t)(MMU_PAGE_SIZE >> shift));
    gen_slow_if(g, CC_A);
    em_rm(e, false, 0xf7, 0, GEN_FIELD(rflags)); /* TEST */
    em32(e, X86_DF);
    gen_slow_if(g, CC_NZ);
    if (movs) {
        probe_operand(g, VMM_RSI, shift, false);
        em_rm(e, true, OP_STORE, H_RAX, GEN_FIELD(tier_temp[0]));
    }
    probe_operand(g, VMM_RDI, shift, true);

    gen_get(g, H_RCX, VMM_RCX);
    move_resident(g, H_RDI, OP_STORE);
    if (movs)
        move_resident(g, H_RSI, OP_STORE);
    em_rr(e, true, OP_LOAD, H_RDI, H_RAX);
    if (movs)
        em_rm(e, true, OP_LOAD, H_RSI, GEN_FIELD(tier_temp[0]));
    else if (gen_host(g, VMM_RAX) == H_RDI)
        em_rm(e, true, OP_LOAD, H_RAX, gen_gpr(VMM_RAX));
    else
        gen_get(g, H_RAX, VMM_RAX);
    if (g->op->size == 2)
        em8(e, 0x66);
    em8(e, 0xf3); /* REP */
    if (g->op->size == 8)
        em8(e, 0x48);
    em8(e, (movs ? 0xa4u : 0xaau) | (g->op->size > 1));
    move_resident(g, H_RDI, OP_LOAD);
    if (movs)
        move_resident(g, H_RSI, OP_LOAD);

    gen_get(g, H_RAX, VMM_RCX);
    step(g, VMM_RDI, shift);
    if (movs)
        step(g, VMM_RSI, shift);
    em_rr(e, false, OP_XOR, H_RAX, H_RAX);
    gen_put(g, VMM_RCX, H_RAX);
    em_here(e, none);
    return true;
}
