/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/cell.c: which accesses of regions have a cell, and which one. */
#include "backends/bt/region.h"

/*
 * In loops, accesses off registers that change by constants only stay in a page for a while, and so
 * do those off registers that are set from such ones. So they compare with the page of the access
 * before (struct mmu_cell), at an address that is known when the code is written, instead of
 * computing an entry of the TLB. Only when that fails they look there, and take what they find into
 * the cell.
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

/* What has set one of these registers in the block: other such places had better not have the same
 * cell. */
static const struct gen_insn *definition(const struct gen *g, uint32_t regs)
{
    for (unsigned i = g->i; regs && i-- > 0;)
        if (gen_changes(g, i) & regs)
            return &g->all[i];
    return NULL;
}

static bool same_cell(const struct region_cell *a, const struct region_cell *b)
{
    return a->base == b->base && a->index == b->index && a->scale == b->scale && a->def == b->def &&
           a->cell / IN_CLASS == b->cell / IN_CLASS;
}

static uint32_t bit_of(uint8_t slot)
{
    return slot < 16 ? 1u << slot : 0;
}

/* ---- what registers are set from ---- */

/* What an op does to the general registers that it changes by other than constants: `from` decides
 * where they point to then. Anything, if it is `hard`. */
struct source {
    uint16_t to, from;
    bool hard;
};

static uint16_t bit_of_operand(const struct gen_operand *o)
{
    uint8_t slot;

    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && gen_reg_slot(o->reg.value, &slot)
               ? (uint16_t)(1u << slot)
               : 0;
}

/* A word on the stack: mostly what there was no register for. */
static bool is_local(const struct gen *g, unsigned i)
{
    const struct gen_operand *s = &g->all[i].opnd[1];

    return s->type == ZYDIS_OPERAND_TYPE_MEMORY && s->size == (g->is64 ? 64 : 32) &&
           g->b->ops[i].base == VMM_RSP && g->b->ops[i].index == X86_ZERO;
}

#define SMALL 255 /* less is as good as a constant */

static struct source find_source(const struct gen *g, unsigned i)
{
    const struct gen_insn *in = &g->all[i];
    const struct gen_operand *d = &in->opnd[0], *s = &in->opnd[1];
    struct source x = {.to = (uint16_t)gen_changes(g, i)};
    bool constant = in->known && s->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    bool registers = in->known && s->type == ZYDIS_OPERAND_TYPE_REGISTER;
    uint16_t itself = in->known ? bit_of_operand(d) : 0;

    x.hard = x.to != itself || !in->known || d->size < 32;
    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVZX:
        x.from = bit_of_operand(s);
        x.hard |= !constant && !registers && !is_local(g, i);
        break;
    case ZYDIS_MNEMONIC_LEA:
        x.from = (uint16_t)(bit_of(g->b->ops[i].base) | bit_of(g->b->ops[i].index));
        break;
    case ZYDIS_MNEMONIC_XOR:
        x.hard |= !registers || bit_of_operand(s) != itself;
        break;
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        x.from = itself | bit_of_operand(s);
        x.hard |= !constant && !registers;
        break;
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_SHL:
        x.from = itself;
        x.hard |= in->insn->mnemonic == ZYDIS_MNEMONIC_SHL && !constant;
        break;
    case ZYDIS_MNEMONIC_AND:
        x.hard |= !constant || in->imm > SMALL;
        break;
    default:
        x.hard = true;
        break;
    }
    return x;
}

/* ---- choice ---- */

#define DEPTH 5 /* of registers set from others */

/* Whether a register stays near what it was in the loop, or has been set in the block, in front of
 * op i, from what does. */
static bool settles(const struct gen *g, uint8_t slot, unsigned i, unsigned depth)
{
    if (is_steady(g->region->current, slot))
        return true;
    while (i-- > 0) {
        struct source x;

        if (!(gen_changes(g, i) >> slot & 1))
            continue;
        x = find_source(g, i);
        if (x.hard)
            return false;
        for (uint8_t from = 0; from < 16; from++)
            if ((x.from >> from & 1) && (!depth || !settles(g, from, i, depth - 1)))
                return false;
        return true;
    }
    return false;
}

unsigned gen_cell(struct gen *g, const struct gen_base *b, unsigned size, bool write)
{
    struct region *r = g->region;
    struct region_block *rb;
    unsigned first = first_cell(size, write);
    struct region_cell c = {b->base, b->index, b->scale, (uint16_t)first, NULL};

    if (!r || !(g->b->mode & X86_MODE_CPL3) || first == MMU_CELLS)
        return MMU_CELLS;
    rb = r->current;
    if (!rb->in_loop || !settles(g, b->base, g->i, DEPTH) || !settles(g, b->index, g->i, DEPTH))
        return MMU_CELLS;
    c.def = definition(g, (bit_of(b->base) | bit_of(b->index)) & rb->derived);
    for (unsigned k = 0; k < r->ncells; k++)
        if (same_cell(&r->cell[k], &c))
            return r->cell[k].cell;
    if (r->ncells == REGION_CELLS)
        return MMU_CELLS;
    c.cell += g->bt->cells++ % IN_CLASS;
    r->cell[r->ncells++] = c;
    return c.cell;
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

/* Adds what the blocks of `body` change to `hard` and `derived`; whether that was something. */
static bool add_changes(const struct region *r, const struct source *source, uint64_t body,
                        uint32_t *hard, uint32_t *derived)
{
    uint32_t was = *hard;

    for (; body; body &= body - 1) {
        const struct region_block *rb = &r->block[__builtin_ctzll(body)];
        const struct source *x = source + (rb->all - r->insn);

        for (unsigned i = 0; i < rb->b->n; i++, x++) {
            *derived |= x->to;
            if (x->hard || (x->from & *hard))
                *hard |= x->to;
        }
    }
    return *hard != was;
}

void region_find_steady(struct gen *g, struct region *r)
{
    struct source source[REGION_INSNS];
    unsigned size[REGION_COPIES];

    r->ncells = 0;
    for (unsigned i = 0; i < r->n; i++) {
        struct region_block *rb = &r->block[i];

        g->b = rb->b;
        g->all = rb->all;
        for (unsigned k = 0; k < g->b->n; k++)
            source[rb->all - r->insn + k] = find_source(g, k);
        rb->in_loop = false;
        rb->steady = rb->derived = 0;
        rb->body = 0;
        size[i] = ~0u;
    }
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned e = 0; e < r->block[i].nnext; e++) {
            int to = r->block[i].to[e];
            uint64_t body;
            uint32_t hard = 0, derived = 0;

            if (to < 0 || r->rank[to] > r->rank[i])
                continue;
            body = find_body(r, i, (unsigned)to);
            while (add_changes(r, source, body, &hard, &derived))
                continue;
            for (unsigned k = 0; k < r->n; k++)
                if ((body >> k & 1) && (unsigned)__builtin_popcountll(body) < size[k]) {
                    size[k] = (unsigned)__builtin_popcountll(body);
                    r->block[k].in_loop = true;
                    r->block[k].loop = (uint8_t)to;
                    r->block[k].body = body;
                    r->block[k].steady = (uint16_t)~hard;
                    r->block[k].derived = (uint16_t)derived;
                }
        }
}
