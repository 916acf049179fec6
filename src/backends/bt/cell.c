/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/cell.c: which accesses of regions have a cell, and which one. */
#include "backends/bt/region.h"

/*
 * In loops, accesses off registers that change by constants only stay in a page for a while. So
 * they compare with the page of the access before (struct mmu_cell), at an address that is known
 * when the code is written, instead of computing an entry of the TLB. Only when that fails they
 * look there, and take what they find into the cell.
 *
 * Cells belong to all regions. They are divided by the kind of access, write or read, and by its
 * size, so that what one place puts into a cell is right for others that have the same one.
 *
 * The first level's table depends on the privilege level and AC, cells do not: they are for code at
 * CPL 3, and empty while alignment is checked there.
 */

#define MIN_SIZE 8 /* bytes, shift of */
#define CLASSES  8 /* by size */
#define IN_CLASS (MMU_CELLS / 2 / CLASSES)

const struct gen_base gen_stack = {.base = VMM_RSP, .index = X86_ZERO};

unsigned gen_cell_size(unsigned cell)
{
    return MIN_SIZE << cell / IN_CLASS % CLASSES;
}

/* The first cell for accesses of a kind; MMU_CELLS: there are none. */
static unsigned first_cell(unsigned size, bool write)
{
    unsigned class = 0;

    while (class < CLASSES && (MIN_SIZE << class) < (int)size)
        class ++;
    return class == CLASSES ? MMU_CELLS : (write * CLASSES + class) * IN_CLASS;
}

static bool is_steady(const struct region_block *rb, uint8_t slot)
{
    return slot >= 16 || (rb->steady >> slot & 1);
}

unsigned gen_cell(struct gen *g, const struct gen_base *b, unsigned size, bool write)
{
    struct region *r = g->region;
    struct region_block *rb;
    unsigned first = first_cell(size, write);
    struct region_cell *c;

    if (!r || !(g->b->mode & X86_MODE_CPL3) || first == MMU_CELLS)
        return MMU_CELLS;
    rb = r->current;
    if (!rb->in_loop || !is_steady(rb, b->base) || !is_steady(rb, b->index))
        return MMU_CELLS;
    for (unsigned k = 0; k < r->ncells; k++) {
        c = &r->cell[k];
        if (c->base == b->base && c->index == b->index && c->scale == b->scale &&
            c->cell / IN_CLASS == first / IN_CLASS)
            return c->cell;
    }
    if (r->ncells == REGION_CELLS)
        return MMU_CELLS;
    c = &r->cell[r->ncells++];
    *c = (struct region_cell){b->base, b->index, b->scale,
                              (uint16_t)(first + g->bt->cells++ % IN_CLASS)};
    return c->cell;
}

/* ---- loops ---- */

/* The blocks of the loop of an edge from `tail` back to `head`. */
static uint64_t find_body(const struct region *r, unsigned tail, unsigned head)
{
    uint64_t body = 1ull << head | 1ull << tail;
    bool more = tail != head;

    while (more) {
        more = false;
        for (unsigned i = 0; i < r->n; i++)
            for (unsigned e = 0; e < r->block[i].nnext; e++) {
                int to = r->block[i].to[e];

                if (to < 0 || to == (int)head || (body >> i & 1) || !(body >> to & 1))
                    continue;
                body |= 1ull << i;
                more = true;
            }
    }
    return body;
}

_Static_assert(REGION_COPIES <= 64, "a bit each");

void region_find_steady(struct gen *g, struct region *r)
{
    uint32_t changes[REGION_COPIES];
    unsigned size[REGION_COPIES];

    r->ncells = 0;
    for (unsigned i = 0; i < r->n; i++) {
        changes[i] = region_changes(g, &r->block[i]);
        r->block[i].in_loop = false;
        r->block[i].steady = 0;
        size[i] = ~0u;
    }
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned e = 0; e < r->block[i].nnext; e++) {
            int to = r->block[i].to[e];
            uint64_t body;
            uint32_t all = 0;

            if (to < 0 || r->rank[to] > r->rank[i])
                continue;
            body = find_body(r, i, (unsigned)to);
            for (unsigned k = 0; k < r->n; k++)
                if (body >> k & 1)
                    all |= changes[k];
            for (unsigned k = 0; k < r->n; k++)
                if ((body >> k & 1) && (unsigned)__builtin_popcountll(body) < size[k]) {
                    size[k] = (unsigned)__builtin_popcountll(body);
                    r->block[k].in_loop = true;
                    r->block[k].steady = (uint16_t)~all;
                }
        }
}
