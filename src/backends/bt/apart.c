/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/apart.c: groups of accesses that one look into the TLB does not cover. */
#include "backends/bt/gen.h"

/*
 * When the look for a group fails, its range mostly goes over the end of a page, and data that lie
 * there are met again and again. So the ops are there once more, behind the block's code, each with
 * a look of its own; they are entered there from their slow paths, too. This is done in regions:
 * what is not so hot leaves these ops to their handlers.
 */

void gen_group_begins(struct gen *g, unsigned nslow)
{
    struct gen_apart *a = &g->apart[g->napart];

    *a = (struct gen_apart){
        .first = (uint8_t)g->group.first,
        .last = (uint8_t)g->group.last,
        .in_cc = g->in_cc,
        .recipe = g->recipe,
        .simd_now = g->simd_now,
        .x87_due = g->x87_due,
    };
    for (unsigned j = nslow; j < g->nslow; j++)
        g->slow[j].group = (uint8_t)(g->napart + 1);
}

void gen_group_ends(struct gen *g)
{
    struct gen_apart *a = &g->apart[g->napart++];

    a->back = em_rx(&g->e);
    a->back_host = g->in_host;
}

/* The RET that is the group's last op. */
static void write_return(struct gen *g, const struct gen_apart *a)
{
    gen_select(g, a->last);
    gen_keep_flags(g, a->last, a->last);
    gen_spill_flags(g);
    gen_x87_settle(g);
    gen_load_return(g);
    em_jmp(&g->e, a->back);
}

/* All ops, or nothing. */
static bool write_all(struct gen *g, const struct gen_apart *a)
{
    bool ret = g->b->ends && a->last == g->b->n - 1u;

    for (unsigned i = a->first; i <= a->last; i++) {
        if (ret && i == a->last) {
            write_return(g, a);
            return true;
        }
        gen_select(g, i);
        if (!gen_try(g, false))
            return false;
        g->is_inline[i] = true;
    }
    gen_save_flags(g);
    if (a->back_host)
        gen_need_flags(g);
    em_jmp(&g->e, a->back);
    return true;
}

static void write_apart(struct gen *g, unsigned index)
{
    struct gen_apart *a = &g->apart[index];
    const void *at = g->at[a->first];
    bool host_at = g->host_at[a->first];
    unsigned simd_at = g->simd_at[a->first], nslow = g->nslow;
    uint8_t *p = g->e.p;

    g->in_host = false;
    g->in_cc = a->in_cc;
    g->recipe = a->recipe;
    g->simd_now = a->simd_now;
    g->x87_due = a->x87_due;
    if (!write_all(g, a)) {
        for (unsigned i = a->first + 1u; i <= a->last; i++)
            g->is_inline[i] = false;
        g->e.p = p;
        g->nslow = nslow;
    } else {
        a->code = p + g->e.to_rx;
    }
    g->at[a->first] = at; /* others come to the group */
    g->host_at[a->first] = host_at;
    g->simd_at[a->first] = simd_at;
}

void gen_apart(struct gen *g)
{
    for (unsigned k = 0; k < g->napart; k++)
        if (!g->leaves[g->apart[k].first])
            write_apart(g, k);
    for (unsigned j = 0; j < g->nslow; j++) {
        struct gen_slow *s = &g->slow[j];

        if (!s->group || !g->apart[s->group - 1].code)
            continue;
        if (s->retry) {
            gen_miss(g, s);
            em_jmp(&g->e, g->apart[s->group - 1].code);
        } else {
            em_patch(&g->e, s->site, g->apart[s->group - 1].code);
        }
        s->i = X86_BLOCK_MAX; /* done */
    }
}
