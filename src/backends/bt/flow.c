/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/flow.c: which blocks a region has, and the ways between them. */
#include "backends/bt/region.h"

/* ---- the blocks ---- */

static bool direct(const struct gen_insn *in)
{
    return in->opnd[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
           in->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
}

/* Where a block goes on within its page. */
static void find_next(struct region_block *rb, bool is64)
{
    const struct x86_block *b = rb->t->block;
    const struct x86_op *last = &b->ops[b->n - 1];
    const struct gen_insn *in = &rb->all[b->n - 1];
    int64_t target = (int64_t)rb->t->offset + (int64_t)last->imm;
    int64_t behind = (int64_t)rb->t->offset + b->bytes;

    if (!b->ends) {
        rb->next[rb->nnext++] = behind;
        return;
    }
    if (!in->known || last->size != (is64 ? 8 : 4) || !direct(in))
        return;
    if (gen_condition(in->insn.mnemonic) >= 0) {
        rb->next[rb->nnext++] = behind;
        rb->next[rb->nnext++] = target;
    } else if (in->insn.mnemonic == ZYDIS_MNEMONIC_JMP ||
               in->insn.mnemonic == ZYDIS_MNEMONIC_CALL) {
        rb->next[rb->nnext++] = target;
    }
}

static int find_block(const struct region *r, uint32_t offset)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->block[i].t->offset == offset)
            return (int)i;
    return -1;
}

/* Adds a block; false: it is not fit or there is no room. */
static bool add_block(struct gen *g, struct region *r, struct bt_trans *t)
{
    struct region_block *rb = &r->block[r->n];
    struct x86_block *b = t->block;

    if (r->n == REGION_BLOCKS || r->ninsns + b->n > REGION_INSNS)
        return false;
    memset(rb, 0, offsetof(struct region_block, bytes));
    memset(rb->next, 0, sizeof(*rb) - offsetof(struct region_block, next));
    rb->t = t;
    rb->all = &r->insn[r->ninsns];
    if (!gen_fetch(g->cpu, b, rb->bytes))
        return false;
    g->b = b;
    g->code = rb->bytes;
    gen_decode(g, rb->all);
    find_next(rb, g->is64);
    r->ninsns += b->n;
    r->n++;
    return true;
}

/* Blocks that have been translated already, breadth first. */
void region_collect(struct gen *g, struct region *r, struct bt_trans *head)
{
    uint64_t page = head->gpa & MMU_PAGE_MASK;

    if (!add_block(g, r, head))
        return;
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < r->block[i].nnext; k++) {
            int64_t at = r->block[i].next[k];
            struct bt_trans *t;

            if (at < 0 || at >= MMU_PAGE_SIZE || find_block(r, (uint32_t)at) >= 0)
                continue;
            t = bt_link_find(g->bt, page + (uint64_t)at, head->mode);
            if (t)
                add_block(g, r, t);
        }
    for (unsigned i = 0; i < r->n; i++) {
        struct region_block *rb = &r->block[i];

        rb->other = !rb->nnext;
        for (unsigned k = 0; k < rb->nnext; k++) {
            bool inside = rb->next[k] >= 0 && rb->next[k] < MMU_PAGE_SIZE;

            rb->to[k] = inside ? find_block(r, (uint32_t)rb->next[k]) : -1;
            rb->other |= rb->to[k] < 0;
        }
    }
}

/* ---- order ---- */

static void visit(struct region *r, unsigned i, bool *seen, unsigned *left)
{
    seen[i] = true;
    for (unsigned k = 0; k < r->block[i].nnext; k++) {
        int to = r->block[i].to[k];

        if (to >= 0 && !seen[to])
            visit(r, (unsigned)to, seen, left);
    }
    r->order[--*left] = i;
}

static void sort_blocks(struct region *r)
{
    bool seen[REGION_COPIES] = {false};
    unsigned left = r->n;

    visit(r, 0, seen, &left);
    for (unsigned i = 0; i < r->n; i++)
        r->rank[r->order[i]] = i;
}

/* ---- unrolling ---- */

/*
 * The count in memory takes longer than an iteration of a small loop. So such loops are written
 * several times over, and only the last copy's way back pays.
 */

#define LOOP_BLOCKS 4
#define LOOP_INSNS  24

/* Adds to `body` what leads to block i; false: it is too much. */
static bool add_sources(const struct region *r, unsigned i, uint32_t *body)
{
    for (unsigned k = 0; k < r->n; k++) {
        bool leads = false;

        for (unsigned e = 0; e < r->block[k].nnext; e++)
            leads |= r->block[k].to[e] == (int)i;
        if (!leads || (*body >> k & 1))
            continue;
        *body |= 1u << k;
        if (__builtin_popcount(*body) > LOOP_BLOCKS || !add_sources(r, k, body))
            return false;
    }
    return true;
}

/* The blocks of the loop that begins with `head`, if it is a small one without others inside and
 * with no other entry; else 0. */
static uint32_t find_loop(const struct region *r, unsigned head)
{
    uint32_t body = 1u << head;
    unsigned insns = 0;
    bool found = false;

    for (unsigned k = 0; k < r->n; k++)
        for (unsigned e = 0; e < r->block[k].nnext; e++)
            if (r->block[k].to[e] == (int)head && r->rank[head] <= r->rank[k]) {
                found = true;
                if (body >> k & 1)
                    continue;
                body |= 1u << k;
                if (!add_sources(r, k, &body))
                    return 0;
            }
    if (!found || __builtin_popcount(body) > LOOP_BLOCKS)
        return 0;
    for (unsigned k = 0; k < r->n; k++) {
        if (!(body >> k & 1))
            continue;
        insns += r->block[k].t->block->n;
        if (r->rank[k] < r->rank[head])
            return 0;
        for (unsigned e = 0; e < r->block[k].nnext; e++) {
            int to = r->block[k].to[e];

            if (to >= 0 && to != (int)head && (body >> to & 1) && r->rank[to] <= r->rank[k])
                return 0;
        }
    }
    return insns <= LOOP_INSNS ? body : 0;
}

/* One more copy of the blocks in `body`; `from`: of which each is the latest one, and becomes this.
 * Edges to `head` lead to the new copy's, whose own lead to the first. */
static void copy_loop(struct region *r, uint32_t body, unsigned head, uint8_t *from)
{
    uint8_t copy[REGION_COPIES];

    for (unsigned k = 0; k < REGION_BLOCKS; k++)
        if (body >> k & 1) {
            copy[k] = (uint8_t)r->n++;
            r->block[copy[k]] = r->block[k];
        }
    for (unsigned k = 0; k < REGION_BLOCKS; k++) {
        struct region_block *was, *is;

        if (!(body >> k & 1))
            continue;
        was = &r->block[from[k]];
        is = &r->block[copy[k]];
        for (unsigned e = 0; e < is->nnext; e++) {
            int to = r->block[k].next[e] == r->block[head].t->offset ? (int)head : is->to[e];

            if (to == (int)head)
                is->to[e] = (int)head;
            else if (to >= 0 && to < REGION_BLOCKS && (body >> to & 1))
                is->to[e] = copy[to];
            if (was->to[e] == (int)head)
                was->to[e] = copy[head];
        }
    }
    for (unsigned k = 0; k < REGION_BLOCKS; k++)
        if (body >> k & 1)
            from[k] = copy[k];
}

void region_unroll(struct region *r)
{
    unsigned n = r->n;
    uint32_t done = 0;

    sort_blocks(r);
    for (unsigned head = 0; head < n; head++) {
        uint32_t body = find_loop(r, head);
        unsigned insns = 0, blocks = (unsigned)__builtin_popcount(body);
        uint8_t from[REGION_COPIES];

        if (!body || (body & done) || body >> n)
            continue;
        done |= body;
        for (unsigned k = 0; k < n; k++) {
            from[k] = (uint8_t)k;
            if (body >> k & 1)
                insns += r->block[k].t->block->n;
        }
        for (unsigned i = insns <= 8 ? 3 : insns <= 14 ? 2 : 1; i; i--)
            if (r->n + blocks <= REGION_COPIES)
                copy_loop(r, body, head, from);
        sort_blocks(r);
    }
}

/* ---- flags ---- */

static void find_flags(struct region_block *rb)
{
    bool live = rb->live_end;
    unsigned n = rb->t->block->n;

    rb->live = rb->live_end;
    for (unsigned i = 0; i < n; i++) {
        unsigned use = gen_flags_use(&rb->all[i]);

        if (i == n - 1 && rb->all[i].known && rb->all[i].insn.mnemonic == ZYDIS_MNEMONIC_JMP &&
            direct(&rb->all[i]))
            break;
        if (use & (GEN_READS | GEN_FAULTS)) {
            live = true;
            rb->reads_first = gen_condition(rb->all[i].insn.mnemonic) >= 0 || !(use & GEN_FAULTS);
            break;
        }
        if (use & GEN_SETS) {
            live = false;
            break;
        }
    }
    rb->live = live;
}

void region_analyse(struct region *r)
{
    for (unsigned i = r->n; i-- > 0;) {
        struct region_block *rb = &r->block[r->order[i]];
        unsigned longest = 0;

        rb->live_end = rb->other;
        for (unsigned k = 0; k < rb->nnext; k++) {
            struct region_block *to = rb->to[k] < 0 ? NULL : &r->block[rb->to[k]];

            if (!to)
                continue;
            if (region_is_back(r, rb, to)) {
                rb->live_end = true;
                continue;
            }
            rb->live_end |= to->live;
            if (to->need > longest)
                longest = to->need;
        }
        rb->need = rb->t->block->n + longest;
        find_flags(rb);
    }
}
