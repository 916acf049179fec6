/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/slide.c: what a region holds of a page follows its base through it. */
#include "backends/bt/region.h"

/*
 * In a loop that moves a pointer, each round accesses a range like that of the round before, some
 * bytes further. What is held slides there on the edge: if old and new range are in one page, the
 * host address moves by as much as the base; if not, a look finds the other page, out of line. A
 * range that crosses from one page to the next is not held: the block is entered without. Copies of
 * unrolled loops slide among each other, if their ranges together are too large for one look.
 */

/* Where a held range begins once it serves `a`; false: it cannot. */
static bool move(const struct gen_hold *h, const struct region_range *a, struct gen_hold *moved)
{
    int64_t by = h->off + a->lo;

    if (a->hi - a->lo > h->len || by != (int16_t)by || -a->lo != (int16_t)-a->lo)
        return false;
    *moved = *h;
    moved->off = (int16_t)-a->lo;
    if (h->align > 1)
        moved->phase = (uint8_t)((h->phase - by) & 63);
    return true;
}

bool region_find_slides(const struct region *r, const struct region_block *to,
                        struct gen_hold *hold, struct gen_hold *other, int16_t *slide)
{
    bool any = false;

    memcpy(other, hold, GEN_HOLDS * sizeof(hold[0]));
    for (unsigned k = 0; k < r->nbases; k++) {
        const struct region_use *u = &to->use[k];
        const struct region_range *need = u->own.n ? &u->own : &u->all;
        struct gen_hold moved;

        slide[k] = 0;
        if (hold[k].status != GEN_HELD || !need->n || region_covers(&hold[k], need) ||
            !(u->step || region_wants(u)))
            continue;
        if (!(move(&hold[k], &u->all, &moved) && region_covers(&moved, need)) &&
            !(move(&hold[k], need, &moved) && region_covers(&moved, need)))
            continue;
        if (hold[k].off == moved.off)
            continue;
        slide[k] = (int16_t)(hold[k].off - moved.off);
        hold[k] = moved;
        other[k] = (struct gen_hold){.status = GEN_DENIED};
        any = true;
    }
    return any;
}

/* ---- the code ---- */

static unsigned in_register(struct gen *g, unsigned k)
{
    if (g->regs && g->regs->hold[k] != H_NONE)
        return g->regs->hold[k];
    em_rm(&g->e, true, OP_LOAD, H_RCX, gen_hold_field(k));
    return H_RCX;
}

/* Host pages are as guest pages: bits of the page's number change when its end is crossed, and as
 * nothing moves by 4 GiB, some of the lower ones do. */
uint8_t *region_check_slide(struct gen *g, unsigned k, const struct gen_hold *hold, int16_t by)
{
    unsigned reg = in_register(g, k);
    int32_t far = by > 0 ? by + hold->len - 1 : by;

    em_rm(&g->e, false, OP_LEA, H_RAX, em_at(reg, far));
    em_rr(&g->e, false, OP_XOR, H_RAX, reg);
    em_imm(&g->e, false, EXT_CMP, em_reg(H_RAX), (int32_t)MMU_PAGE_SIZE);
    return em_jcc_later(&g->e, CC_NC);
}

static void locate(struct gen *g, const struct gen_base *b, int32_t disp)
{
    struct em_rm m = {.mem = true, .reg = H_NONE, .index = H_NONE, .disp = disp};

    if (b->base != X86_ZERO) {
        m.reg = (uint8_t)gen_host(g, b->base);
        if (m.reg == H_NONE)
            gen_get(g, m.reg = H_RAX, b->base);
    }
    if (b->index != X86_ZERO) {
        m.index = (uint8_t)gen_host(g, b->index);
        if (m.index == H_NONE)
            gen_get(g, m.index = H_RCX, b->index);
        m.scale = b->scale;
    }
    em_lea(&g->e, g->is64, H_RAX, m);
}

void region_slide_over(struct gen *g, const struct region_edge *x)
{
    const struct gen_hold *h = &x->state.hold[x->base];
    struct em *e = &g->e;
    struct gen_slow miss = {.write = h->write};

    locate(g, &g->region->held[x->base], -h->off);
    miss.retry = gen_look(e, g->bt, h->len, h->write);
    miss.site = em_jcc_later(e, CC_A);
    gen_look_found(e);
    em_rm(e, true, OP_LEA, H_RAX, em_at(H_RAX, -x->slide[x->base]));
    if (g->regs && g->regs->hold[x->base] != H_NONE)
        em_rr(e, true, OP_LOAD, g->regs->hold[x->base], H_RAX);
    else
        em_rm(e, true, OP_STORE, H_RAX, gen_hold_field(x->base));
    em_jmp(e, x->back);
    gen_miss(g, &miss);
}

void region_slide(struct gen *g, unsigned k, int16_t by)
{
    if (g->regs && g->regs->hold[k] != H_NONE)
        em_imm(&g->e, true, EXT_ADD, em_reg(g->regs->hold[k]), by);
    else
        em_imm(&g->e, true, EXT_ADD, gen_hold_field(k), by);
}
