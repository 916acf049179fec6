/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/flow.c: which blocks a region has, and the ways between them. */
#include "backends/bt/region.h"

/* ---- the blocks ---- */

static bool direct(const struct gen_insn *in)
{
    return in->opnd[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && in->insn->is_near;
}

/* Whether the block calls something that may be written again for this call. */
static bool may_follow(const struct region *r, unsigned i, int64_t target)
{
    unsigned depth = 0;

    for (unsigned at = i + 1; at; at = r->block[at - 1].up) {
        const struct region_block *from = &r->block[at - 1];

        if (at != i + 1 && from->page_delta + from->next[0] == target) /* recursion */
            return false;
        depth++;
    }
    return depth <= REGION_DEPTH && target != r->block[0].t->offset;
}

/* What an indirect jump through a constant address finds there now: stubs of dynamic linking lead
 * to the same function for good. */
static void find_constant(const struct gen *g, const struct region *r, struct region_block *rb)
{
    const struct x86_op *op = &rb->b->ops[rb->b->n - 1];
    uint64_t linear =
        r->linear + (uint64_t)(int64_t)rb->page_delta + rb->t->offset + (uint64_t)(int64_t)op->disp;
    struct mmu_page page;
    uint64_t gpa, value;

    if (!g->is64 || op->base != X86_RIP0 || op->index != X86_ZERO || (linear & 7) ||
        rb->all[rb->b->n - 1].opnd[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        !mmu_translate(&g->cpu->mmu, linear, &gpa) ||
        !g->cpu->env->mmu.page(g->cpu->env->mmu.ctx, gpa, &page) || !page.host)
        return;
    memcpy(&value, page.host + (gpa & ~MMU_PAGE_MASK), 8);
    value -= r->linear;
    if (value + REGION_REACH > 2 * (uint64_t)REGION_REACH)
        return;
    rb->next[rb->nnext++] = (int64_t)value - rb->page_delta;
    rb->jumps = true;
}

/* Where block i goes on. */
static void find_next(const struct gen *g, struct region *r, unsigned i)
{
    struct region_block *rb = &r->block[i];
    const struct x86_block *b = rb->b;
    const struct x86_op *last = &b->ops[b->n - 1];
    const struct gen_insn *in = &rb->all[b->n - 1];
    int64_t target = (int64_t)rb->t->offset + (int64_t)last->imm;
    int64_t behind = (int64_t)rb->t->offset + b->bytes;

    rb->next_up[0] = rb->next_up[1] = rb->up;
    if (!b->ends) {
        rb->next[rb->nnext++] = behind;
        return;
    }
    if (!in->known || last->size != (g->is64 ? 8 : 4) || !in->insn->is_near)
        return;
    if (in->insn->mnemonic == ZYDIS_MNEMONIC_RET && rb->up) {
        const struct region_block *from = &r->block[rb->up - 1];

        rb->returns = true;
        rb->next_up[0] = from->up;
        rb->next[rb->nnext++] =
            (int64_t)from->page_delta - rb->page_delta + from->t->offset + from->t->block->bytes;
        return;
    }
    if (!direct(in)) {
        if (in->insn->mnemonic == ZYDIS_MNEMONIC_JMP)
            find_constant(g, r, rb);
        return;
    }
    if (gen_condition(in->insn->mnemonic) >= 0) {
        rb->next[rb->nnext++] = behind;
        rb->next[rb->nnext++] = target;
    } else if (in->insn->mnemonic == ZYDIS_MNEMONIC_JMP) {
        rb->next[rb->nnext++] = target;
    } else if (in->insn->mnemonic == ZYDIS_MNEMONIC_CALL) {
        rb->next[rb->nnext++] = target;
        rb->calls = true;
        rb->next_up[0] = may_follow(r, i, rb->page_delta + target) ? i + 1 : 0;
    }
}

/* The block at `at` from the head's page, reached by calls `up`, or -1. */
static int find_block(const struct region *r, int64_t at, unsigned up)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->block[i].page_delta + (int64_t)r->block[i].t->offset == at && r->block[i].up == up)
            return (int)i;
    return -1;
}

/* Takes the page of a block; false: there are too many, or it is too far away. */
static bool take_page(struct region *r, const struct bt_trans *t, int64_t delta)
{
    for (unsigned k = 0; k < r->npages; k++)
        if (r->page[k].delta == delta)
            return r->page[k].page == t->page;
    if (r->npages == BT_REGION_PAGES || delta < -REGION_REACH || delta > REGION_REACH)
        return false;
    r->page[r->npages].page = t->page;
    r->page[r->npages++].delta = (int32_t)delta;
    return true;
}

/* Instructions that were decoded for a block of the region already. */
static struct gen_insn *known_insns(const struct region *r, const struct bt_trans *t)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->block[i].t == t)
            return r->block[i].all;
    return NULL;
}

/* Adds a block; false: it is not fit or there is no room. */
static bool add_block(struct gen *g, struct region *r, struct bt_trans *t, int64_t page,
                      unsigned up, uint64_t heat)
{
    struct region_block *rb = &r->block[r->n];
    struct x86_block *b = t->block;
    struct gen_insn *known = known_insns(r, t);

    if (r->n == REGION_BLOCKS || r->ninsns + b->n > REGION_INSNS || !take_page(r, t, page))
        return false;
    memset(rb, 0, offsetof(struct region_block, bytes));
    memset(&rb->all, 0,
           offsetof(struct region_block, version) - offsetof(struct region_block, all));
    rb->t = t;
    rb->b = b;
    rb->page_delta = (int32_t)page;
    rb->up = up;
    rb->heat = heat;
    rb->all = &r->insn[r->ninsns];
    if (!gen_fetch(g->cpu, b, rb->bytes))
        return false;
    g->b = b;
    g->code = rb->bytes;
    if (known)
        rb->all = known;
    else
        gen_decode(g, rb->all);
    r->n++;
    find_next(g, r, r->n - 1);
    r->ninsns += b->n;
    return true;
}

/* The translation at `at` from the head's page, as the CPU's TLB has it. */
static struct bt_trans *find_trans(const struct gen *g, const struct region *r, int64_t at)
{
    const struct bt_trans *head = r->block[0].t;
    uint64_t linear = r->linear + (uint64_t)at;
    const struct x86_jump *j;
    struct mmu_code code;
    struct bt_trans *t = NULL;

    if (at >= 0 && at < MMU_PAGE_SIZE)
        return bt_link_find(g->bt, (head->gpa & MMU_PAGE_MASK) + (uint64_t)at, head->mode);
    if (!g->is64)
        linear &= 0xffffffffu;
    j = &g->cpu->jump[x86_jump_index(linear)];
    if (j->key == (linear ^ g->cpu->jump_key))
        t = bt_translation(j->blk);
    else if (mmu_fetch_cached(&g->cpu->mmu, g->cpu->cpl == 3, linear, &code))
        t = bt_link_find(g->bt, code.gpa, head->mode);
    if (!t || t->mode != head->mode || t->offset != (linear & (MMU_PAGE_SIZE - 1)) ||
        !x86_block_is_current(g->cpu, t->block))
        return NULL;
    return t;
}

/* How often a block has been executed. What is in a region already does not count any more. */
static uint64_t heat_of(const struct gen *g, const struct bt_trans *t)
{
    uint32_t left = g->cpu->tier_heat[t->heat];

    if (t->regions || left > g->bt->hotter)
        return g->bt->hotter;
    return g->bt->hotter - left;
}

/* What is executed less often than the head does not belong to it. */
#define COLD 128

/* Where an edge out of the region leads. */
struct candidate {
    struct region_block *from;
    unsigned k;
    struct bt_trans *t;
    int64_t at;
    uint64_t heat;
    bool done; /* it is in the region, or cannot be */
};

/* Looks at edge k of a block; false: it leads to nothing that could be added. */
static bool look_at(const struct gen *g, const struct region *r, struct region_block *rb,
                    unsigned k, struct candidate *c)
{
    int64_t at = rb->page_delta + rb->next[k];
    struct bt_trans *t;
    uint64_t heat;

    if ((rb->calls && !rb->next_up[k]) || find_block(r, at, rb->next_up[k]) >= 0)
        return false;
    t = find_trans(g, r, at);
    if (!t)
        return false;
    heat = heat_of(g, t);
    if (heat > rb->heat)
        heat = rb->heat;
    *c = (struct candidate){.from = rb, .k = k, .t = t, .at = at, .heat = heat};
    return true;
}

static struct candidate *find_hottest(struct candidate *c, unsigned n, uint64_t least)
{
    struct candidate *best = NULL;

    for (unsigned i = 0; i < n; i++)
        if (!c[i].done && c[i].heat > (best ? best->heat : least))
            best = &c[i];
    return best;
}

/* Adds what a candidate leads to; the others that lead there are done, too. */
static void add_candidate(struct gen *g, struct region *r, struct candidate *all, unsigned n,
                          struct candidate *c)
{
    unsigned up = c->from->next_up[c->k];

    c->done = true;
    if (!add_block(g, r, c->t, c->at - c->t->offset, up, c->heat))
        return;
    for (unsigned i = 0; i < n; i++)
        if (all[i].at == c->at && all[i].from->next_up[all[i].k] == up)
            all[i].done = true;
}

/* ---- blocks that begin in others ---- */

/*
 * Blocks go on up to a branch, so that the one in front of a loop has all of its first round, too.
 * In a region such blocks end where another one begins: then all rounds are the same code.
 */

/* Where block i goes over the beginning of another one: the op, or 0. */
static unsigned find_cut(const struct region *r, unsigned i)
{
    const struct region_block *rb = &r->block[i];

    for (unsigned k = 1; k < rb->b->n && !rb->calls; k++) {
        int at = find_block(r, (int64_t)rb->page_delta + rb->t->offset + rb->b->ops[k].off, rb->up);

        if (at >= 0 && at != (int)i && r->block[at].page_delta == rb->page_delta)
            return k;
    }
    return 0;
}

static void cut(struct region_block *rb, unsigned n)
{
    struct x86_block *b = (struct x86_block *)(void *)rb->cut;

    memcpy(b, rb->b, sizeof(*b) + n * sizeof(b->ops[0]));
    b->bytes = rb->b->ops[n].off;
    b->n = (uint8_t)n;
    b->ends = false;
    rb->b = b;
    rb->calls = rb->returns = rb->jumps = false;
    rb->nnext = 1;
    rb->next[0] = (int64_t)rb->t->offset + b->bytes;
    rb->next_up[0] = rb->up;
}

/* The blocks that can be reached from block i. */
static void reach(const struct region *r, unsigned i, uint64_t *reached)
{
    *reached |= UINT64_C(1) << i;
    for (unsigned k = 0; k < r->block[i].nnext; k++) {
        const struct region_block *rb = &r->block[i];
        int to = find_block(r, rb->page_delta + rb->next[k], rb->next_up[k]);

        if (to >= 0 && !(*reached >> to & 1))
            reach(r, (unsigned)to, reached);
    }
}

static void cut_blocks(struct region *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        struct region_block *rb = &r->block[i];
        struct region_block was;
        unsigned n = find_cut(r, i);
        uint64_t before = 0, after = 0;

        if (!n)
            continue;
        was = *rb;
        reach(r, 0, &before);
        cut(rb, n);
        reach(r, 0, &after);
        if (after != before)
            *rb = was;
    }
}

/* Blocks that have been translated already, the hottest first. */
void region_collect(struct gen *g, struct region *r, struct bt_trans *head)
{
    uint64_t least = g->bt->hotter / COLD;
    struct candidate all[REGION_BLOCKS * 2], *best;
    unsigned n = 0, seen = 0;

    r->npages = 0;
    if (!add_block(g, r, head, 0, 0, g->bt->hotter))
        return;
    do {
        for (; seen < r->n; seen++)
            for (unsigned k = 0; k < r->block[seen].nnext; k++)
                n += look_at(g, r, &r->block[seen], k, &all[n]);
        best = find_hottest(all, n, least);
        if (best)
            add_candidate(g, r, all, n, best);
    } while (best);
    cut_blocks(r);
    for (unsigned i = 0; i < r->n; i++) {
        struct region_block *rb = &r->block[i];

        rb->other = !rb->nnext || rb->returns || rb->jumps;
        for (unsigned k = 0; k < rb->nnext; k++) {
            rb->to[k] = find_block(r, rb->page_delta + rb->next[k], rb->next_up[k]);
            rb->first[k] = rb->to[k];
            rb->other |= rb->to[k] < 0;
        }
        if (rb->returns && rb->to[0] >= 0)
            r->block[rb->up - 1].expects = true;
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

static bool leads_to(const struct region_block *rb, unsigned i)
{
    for (unsigned e = 0; e < rb->nnext; e++)
        if (rb->to[e] == (int)i)
            return true;
    return false;
}

/* Adds to `body` what leads to block i; false: it is too much. */
static bool add_sources(const struct region *r, unsigned i, uint64_t *body)
{
    for (unsigned k = 0; k < r->n; k++) {
        if (!leads_to(&r->block[k], i) || (*body >> k & 1))
            continue;
        *body |= UINT64_C(1) << k;
        if (__builtin_popcountll(*body) > LOOP_BLOCKS || !add_sources(r, k, body))
            return false;
    }
    return true;
}

/* The blocks of the loop that begins with `head`, if it is a small one without others inside and
 * with no other entry; else 0. Larger loops may begin there, too: above all with the region's first
 * block. */
static uint64_t find_loop(const struct region *r, unsigned head)
{
    uint64_t body = UINT64_C(1) << head;
    unsigned insns = 0;
    bool found = leads_to(&r->block[head], head);

    for (unsigned k = 0; k < r->n && !leads_to(&r->block[head], head); k++) {
        uint64_t with = body | UINT64_C(1) << k;

        if (!leads_to(&r->block[k], head) || r->rank[head] > r->rank[k])
            continue;
        if ((body >> k & 1) ||
            (__builtin_popcountll(with) <= LOOP_BLOCKS && add_sources(r, k, &with))) {
            found = true;
            body |= with;
        }
    }
    if (!found)
        return 0;
    for (unsigned k = 0; k < r->n; k++) {
        if (!(body >> k & 1))
            continue;
        insns += r->block[k].b->n;
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
static void copy_loop(struct region *r, uint64_t body, unsigned head, uint8_t *from)
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
            int to = r->block[k].first[e] == (int)head ? (int)head : is->to[e];

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

/* Processors fetch ahead of loads that move on by the same distance each time, at most so far. */
#define PREFETCHED 2048

/* How many copies of a loop leave its loads such. */
static unsigned most_copies(struct gen *g, const struct region *r, uint64_t body, unsigned copies)
{
    for (; body; body &= body - 1) {
        const struct region_block *rb = &r->block[__builtin_ctzll(body)];

        g->b = rb->b;
        g->all = rb->all;
        for (unsigned i = 0; i < rb->b->n; i++) {
            const struct gen_effect *e = gen_effect(g, i);

            while (copies && e && e->moves != GEN_NO_MOVE &&
                   (e->by < 0 ? -e->by : e->by) * (copies + 1) > PREFETCHED)
                copies--;
        }
    }
    return copies;
}

void region_unroll(struct gen *g, struct region *r)
{
    unsigned n = r->n;
    uint64_t done = 0;

    sort_blocks(r);
    for (unsigned head = 0; head < n; head++) {
        uint64_t body = find_loop(r, head);
        unsigned insns = 0, blocks = (unsigned)__builtin_popcountll(body);
        uint8_t from[REGION_COPIES];

        if (!body || (body & done) || body >> n)
            continue;
        done |= body;
        for (unsigned k = 0; k < n; k++) {
            from[k] = (uint8_t)k;
            if (body >> k & 1)
                insns += r->block[k].b->n;
        }
        for (unsigned i = most_copies(g, r, body, insns <= 8 ? 3 : insns <= 14 ? 2 : 1); i; i--)
            if (r->n + blocks <= REGION_COPIES)
                copy_loop(r, body, head, from);
        sort_blocks(r);
    }
}

/* ---- flags ---- */

static void find_flags(const struct region *r, struct region_block *rb)
{
    bool live = rb->live_end;
    unsigned n = rb->b->n;

    rb->live = rb->live_end;
    for (unsigned i = 0; i < n; i++) {
        unsigned use = gen_flags_use_of(&r->base, &rb->all[i]);

        if (i == n - 1 && rb->all[i].known && rb->all[i].insn->mnemonic == ZYDIS_MNEMONIC_JMP &&
            direct(&rb->all[i]))
            break;
        if (use & (GEN_READS | GEN_FAULTS)) {
            live = true;
            rb->reads_first = gen_condition(rb->all[i].insn->mnemonic) >= 0 || !(use & GEN_FAULTS);
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
        const struct region_block *most = NULL;

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
            if (!most || to->heat > most->heat || (to->heat == most->heat && to->need > most->need))
                most = to;
        }
        rb->need = rb->b->n + (most ? most->need : 0);
        if (rb->need < rb->t->block->n)
            rb->need = rb->t->block->n; /* what handlers expect */
        find_flags(r, rb);
    }
}
