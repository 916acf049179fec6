/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/live.c: for how long the arithmetic flags matter. */
#include "backends/bt/gen.h"

/* The op ends the block with a direct jump. */
static bool jumps(const struct gen *g, unsigned i)
{
    return g->b->ends && i == g->b->n - 1u && g->all[i].known &&
           g->all[i].insn->mnemonic == ZYDIS_MNEMONIC_JMP &&
           g->all[i].opnd[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

unsigned gen_flags_use_of(const struct gen *g, const struct gen_insn *in)
{
    unsigned use = gen_flags_use(in);

    return in->is_vec && gen_vec_is_safe(g, in) ? use & ~GEN_FAULTS : use;
}

bool gen_flags_live(const struct gen *g, unsigned i)
{
    while (++i < g->b->n) {
        unsigned use = gen_flags_use_of(g, &g->all[i]);

        if (g->region && jumps(g, i))
            break;
        if (g->held && i <= g->group.last)
            use &= ~GEN_FAULTS; /* the looks have been successful */
        if (use & (GEN_READS | GEN_FAULTS))
            return true;
        if (use & GEN_SETS)
            return false;
    }
    return !g->region || g->live_end;
}

unsigned gen_flags_use_at(const struct gen *g, unsigned i)
{
    unsigned use = gen_flags_use_of(g, &g->all[i]);

    if ((use & GEN_KEEPS) && gen_flags_live(g, i))
        use |= GEN_READS;
    return use & ~GEN_KEEPS;
}

bool gen_flags_last(const struct gen *g, unsigned i)
{
    while (++i < g->b->n) {
        unsigned use = gen_flags_use_of(g, &g->all[i]);

        if (jumps(g, i) || gen_condition(g->all[i].insn->mnemonic) >= 0)
            break;
        if (g->held && i <= g->group.last)
            use &= ~GEN_FAULTS;
        if (use & GEN_FAULTS)
            return i < g->b->n - 1u || !g->b->ends;
        if (use & GEN_SETS)
            return false;
    }
    return g->region && g->live_end;
}

#define VECTOR (1u << 31)

/* Registers of the recipe that an op changes: extending one does not change what it is from.
 * VECTOR: some of its vector registers. */
static uint32_t spoils(const struct gen *g, unsigned i)
{
    const struct gen_insn *in = &g->all[i];
    uint32_t regs = gen_writes(in) & g->recipe.regs;
    uint8_t to, from;

    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        if (in->opnd[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gen_reg_slot(in->opnd[0].reg.value, &to) &&
            gen_reg_slot(in->opnd[1].reg.value, &from) && to == from &&
            in->opnd[1].size >= g->recipe.size * 8u)
            regs &= ~(1u << to);
        break;
    default:
        break;
    }
    return g->recipe.vec & gen_vec_writes(in) ? regs | VECTOR : regs;
}

enum loss { STAYS, LOST, READ };

/* Whether the recipe is needed behind an op of these that changes one of its registers (`regs`), or
 * the flags among them. */
static enum loss loses_recipe(const struct gen *g, unsigned first, unsigned last, uint32_t *regs)
{
    *regs = 0;

    for (unsigned i = first; i <= last; i++) {
        unsigned use = gen_flags_use_at(g, i);

        if (use & GEN_SETS)
            return STAYS;
        if ((use & GEN_READS) && (*regs || first != last))
            return READ;
        *regs |= spoils(g, i);
        if (use & GEN_CHANGES)
            return STAYS;
    }
    return *regs && gen_flags_live(g, last) ? LOST : STAYS;
}

void gen_keep_flags(struct gen *g, unsigned first, unsigned last)
{
    enum loss loss;
    uint32_t regs;

    if (!g->recipe.len || g->in_cc)
        return;
    loss = loses_recipe(g, first, last, &regs);
    if (loss == STAYS)
        return;
    if (loss == LOST && !g->recipe.vec && gen_flags_last(g, last))
        gen_save_recipe(g, regs);
    else if (first == last && !(gen_flags_use_of(g, &g->all[first]) & GEN_FAULTS))
        gen_need_flags(g);
    else
        gen_save_flags(g);
}

void gen_track_flags(struct gen *g, unsigned i)
{
    if (g->recipe.len && !(gen_flags_use_of(g, &g->all[i]) & GEN_CHANGES) && spoils(g, i))
        g->recipe.len = 0;
    if (!g->in_host && !g->recipe.len)
        g->in_cc = true; /* or nobody will ask */
}
