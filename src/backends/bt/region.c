/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region.c: hot blocks are translated together with those of the page they lead to. */
#include <stdlib.h>

#include "backends/bt/region.h"
#include "core/x86/decode.h"

/*
 * A region has copies of the code of its blocks, which go on to exist for themselves: it begins
 * with one of them, its head, and leaves by exits in which all is as between blocks.
 *
 * Flags: a block is written once for each state of the flags in which it is reached, so that
 * nothing needs to be stored at the edges between blocks.
 *
 * Counting: whoever enters a block has paid for the longest way from there to the end of the
 * region, loops left out (`need`). Shorter ways and exits give back what is left over; an edge back
 * pays again, and looks for requests. So inside a block `extra` instructions are paid for beyond
 * what handlers expect; this is given back around calls of them.
 */

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
static void collect(struct gen *g, struct region *r, struct bt_trans *head)
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

static bool is_back(const struct region *r, const struct region_block *from,
                    const struct region_block *to)
{
    return r->rank[to - r->block] <= r->rank[from - r->block];
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
        struct region_block *was = &r->block[from[k]], *is = &r->block[copy[k]];

        if (!(body >> k & 1))
            continue;
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

static void unroll(struct region *r)
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

static void analyse(struct region *r)
{
    for (unsigned i = r->n; i-- > 0;) {
        struct region_block *rb = &r->block[r->order[i]];
        unsigned longest = 0;

        rb->live_end = rb->other;
        for (unsigned k = 0; k < rb->nnext; k++) {
            struct region_block *to = rb->to[k] < 0 ? NULL : &r->block[rb->to[k]];

            if (!to)
                continue;
            if (is_back(r, rb, to)) {
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

static unsigned extra(const struct region_block *rb)
{
    return rb->need - rb->t->block->n;
}

/* All but the slow paths, of which there are none yet. */
static void start(struct gen *g, const struct gen *base)
{
    memcpy(g, base, offsetof(struct gen, slow));
}

/* ---- versions ---- */

static const struct region_state in_cc = {.in_cc = true};

static bool same_state(const struct region_state *a, const struct region_state *b)
{
    return a->in_host == b->in_host && a->in_cc == b->in_cc && a->recipe.len == b->recipe.len &&
           !memcmp(a->recipe.code, b->recipe.code, a->recipe.len);
}

/* What of a state matters to a block. */
static struct region_state reduce(const struct region_block *to, struct region_state s)
{
    if (!to->live)
        return in_cc;
    if (!to->reads_first && (s.in_cc || s.recipe.len))
        s.in_host = false;
    if (s.in_cc)
        s.recipe.len = 0;
    return s;
}

static struct region_version *find_version(struct region_block *to, const struct region_state *s)
{
    for (unsigned i = 0; i < to->nversions; i++)
        if (same_state(&to->version[i].state, s))
            return &to->version[i];
    return NULL;
}

static struct region_version *get_version(struct region_block *to, struct region_state s)
{
    struct region_version *v;

    s = reduce(to, s);
    v = find_version(to, &s);
    if (v)
        return v;
    if (to->nversions >= REGION_VERSIONS) {
        s = in_cc;
        v = find_version(to, &s);
        if (v)
            return v;
    }
    v = &to->version[to->nversions++];
    *v = (struct region_version){.state = s};
    return v;
}

/* ---- edges ---- */

/* countdown += n; keeps the flags, changes RAX. */
static void give_back(struct gen *g, unsigned n)
{
    if (!n)
        return;
    em_rm(&g->e, true, OP_LOAD, H_RAX, GEN_FIELD(countdown));
    em_rm(&g->e, true, OP_LEA, H_RAX, em_at(H_RAX, (int32_t)n));
    em_rm(&g->e, true, OP_STORE, H_RAX, GEN_FIELD(countdown));
}

static void store_flags(struct gen *g, struct region_state *s)
{
    if (s->in_cc)
        return;
    if (!s->in_host)
        gen_cook(g, &s->recipe);
    gen_store_cc(g);
    s->in_host = s->in_cc = true;
}

static struct region_edge *new_edge(struct region *r, const struct gen *g)
{
    struct region_edge *x = &r->edge[r->nedges];

    if (r->nedges == sizeof(r->edge) / sizeof(r->edge[0])) {
        r->failed = true;
        return x - 1;
    }
    r->nedges++;
    *x = (struct region_edge){
        .from = r->current, .version = NULL, .state = {g->in_host, g->in_cc, g->recipe}};
    return x;
}

/* Out of the region from edge `x`, whose place is here. */
static void leave(struct gen *g, struct region_edge *x, unsigned paid)
{
    store_flags(g, &x->state);
    give_back(g, paid);
    g->exit[0] = (struct gen_exit){em_jmp_later(&g->e), x->offset, x->checked};
    g->nexits = 1;
    gen_exits(g);
    g->nexits = 0;
}

/* Pays for the way from `to` on. What refuses is written later. */
static void pay(struct gen *g, struct region *r, struct region_edge *x)
{
    int n = (int)x->to->need - (int)extra(x->from);
    struct region_edge *refused = new_edge(r, g);

    x->state.in_host = false;
    *refused = (struct region_edge){
        .state = x->state, .from = x->from, .to = x->to, .offset = x->offset, .refused = true};
    if (n > 0) {
        em_imm(&g->e, true, EXT_SUB, GEN_FIELD(countdown), n);
        refused->site2 = em_jcc_later(&g->e, CC_L);
    } else if (n < 0) {
        give_back(g, (unsigned)-n);
    }
    em_imm(&g->e, false, EXT_CMP, GEN_FIELD(attention), 0);
    refused->site = em_jcc_later(&g->e, CC_NZ);
}

/* What happens on an edge inside the region. */
static void cross(struct gen *g, struct region *r, struct region_edge *x)
{
    bool back = is_back(r, x->from, x->to);

    if (back ? !x->state.recipe.len : x->version->state.in_cc && x->to->live)
        store_flags(g, &x->state);
    if (x->version->state.in_cc && x->to->live)
        store_flags(g, &x->state);
    if (back)
        pay(g, r, x);
    else
        give_back(g, extra(x->from) - x->to->need);
}

static bool is_empty(const struct region *r, const struct region_edge *x)
{
    if (!x->to)
        return x->state.in_cc && !extra(x->from);
    if (is_back(r, x->from, x->to) || extra(x->from) != x->to->need)
        return false;
    return x->state.in_cc || !x->to->live || !x->version->state.in_cc;
}

/* The edge from the current block to `offset`. */
static struct region_edge *make_edge(struct gen *g, int64_t offset, bool checked)
{
    struct region *r = g->region;
    struct region_edge *x = new_edge(r, g);
    struct region_block *rb = r->current;

    x->offset = offset;
    x->checked = checked;
    for (unsigned k = 0; k < rb->nnext; k++)
        if (rb->next[k] == offset && rb->to[k] >= 0)
            x->to = &r->block[rb->to[k]];
    if (x->to) {
        struct region_state s = x->state;

        if (is_back(r, rb, x->to)) {
            s.in_host = false;
            if (!s.recipe.len)
                s.in_cc = true;
        }
        x->version = get_version(x->to, s);
    }
    return x;
}

void gen_region_exit_if(struct gen *g, unsigned cc, int64_t offset)
{
    g->region->cc = (uint8_t)cc;
    g->region->taken = offset;
    g->region->conditional = true;
}

/* Whether the block goes on in the region there. */
static bool inside(const struct region_block *rb, int64_t offset)
{
    for (unsigned k = 0; k < rb->nnext; k++)
        if (rb->next[k] == offset && rb->to[k] >= 0)
            return true;
    return false;
}

/* A conditional branch jumps where it costs less: to the loop's end, and out of the region. */
static void first_of_two(struct gen *g, int64_t *offset, bool *checked)
{
    struct region *r = g->region;
    struct region_edge *taken = make_edge(g, r->taken, true);

    r->conditional = false;
    if (taken->to && (is_back(r, taken->from, taken->to) || !inside(r->current, *offset))) {
        struct region_edge *next = taken;
        int64_t t = r->taken;

        r->nedges--;
        next = make_edge(g, *offset, false);
        next->site = em_jcc_later(&g->e, r->cc ^ 1u);
        *offset = t;
        *checked = true;
        return;
    }
    taken->site = em_jcc_later(&g->e, r->cc);
}

void gen_region_exit(struct gen *g, int64_t offset, bool checked)
{
    struct region *r = g->region;
    struct region_edge *x, copy;

    if (r->conditional)
        first_of_two(g, &offset, &checked);
    x = make_edge(g, offset, checked);
    if (x->to) {
        copy = *x;
        cross(g, r, &copy);
        x->written = true;
        r->next = copy.version->code ? NULL : copy.version;
        r->next_block = copy.to;
    }
    x->site = em_jmp_later(&g->e);
    r->tail = x;
}

/* ---- writing ---- */

static void select_version(struct gen *g, struct region *r, struct region_block *rb,
                           struct region_version *v)
{
    struct gen *base = &r->base;

    base->e = g->e;
    start(g, base);
    g->b = rb->t->block;
    g->t = rb->t;
    g->all = rb->all;
    g->code = rb->bytes;
    g->extra = extra(rb);
    g->live_end = rb->live_end;
    g->in_host = v->state.in_host;
    g->in_cc = v->state.in_cc;
    g->recipe = v->state.recipe;
    r->current = rb;
    r->tail = NULL;
    r->next = NULL;
}

/* The slow paths may take as much. */
static bool room_left(const struct gen *g, const struct region *r, unsigned nslow)
{
    size_t used = (size_t)(g->e.p - (g->bt->rw + g->bt->used)), later;

    later = (nslow + r->nedges) * 128u + 4096;
    return !r->failed && used + later < BT_REGION_CODE && g->owner->nlinks + 8 < BT_REGION_LINKS;
}

static bool write_version(struct gen *g, struct region *r, struct region_block *rb,
                          struct region_version *v, unsigned *nslow)
{
    size_t head = offsetof(struct gen, slow);

    /* The jump to what comes here is the last thing that was written. */
    if (r->tail && r->tail->version == v && r->tail->written && r->tail->site + 4 == g->e.p) {
        g->e.p -= 5;
        r->tail->site = NULL;
    }
    v->code = em_rx(&g->e);
    select_version(g, r, rb, v);
    gen_write_ops(g);
    *nslow += g->nslow;
    v->gen = malloc(head + g->nslow * sizeof(g->slow[0]));
    if (!v->gen)
        return false;
    memcpy(v->gen, g, head + g->nslow * sizeof(g->slow[0]));
    return room_left(g, r, *nslow);
}

static struct region_version *unwritten(struct region *r, struct region_block **rb)
{
    if (r->next && !r->next->code) {
        *rb = r->next_block;
        return r->next;
    }
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < r->block[r->order[i]].nversions; k++)
            if (!r->block[r->order[i]].version[k].code) {
                *rb = &r->block[r->order[i]];
                return &(*rb)->version[k];
            }
    return NULL;
}

static void write_edge(struct gen *g, struct region *r, struct region_edge *x)
{
    if (!x->site)
        return;
    if (x->refused) {
        em_here(&g->e, x->site);
        if (x->site2)
            em_here(&g->e, x->site2);
        leave(g, x, x->to->need);
    } else if (!x->to) {
        em_here(&g->e, x->site);
        leave(g, x, extra(x->from));
    } else if (x->written || is_empty(r, x)) {
        em_patch(&g->e, x->site, x->version->code);
    } else {
        em_here(&g->e, x->site);
        cross(g, r, x);
        em_jmp(&g->e, x->version->code);
    }
}

/* The slow paths of a version; `nslow` of all of them. */
static void write_cold(struct gen *g, const struct region *r, struct region_version *v,
                       unsigned nslow)
{
    uint8_t *p = g->e.p;
    size_t head = offsetof(struct gen, slow);
    unsigned grouped = 0;

    memcpy(g, v->gen, head + v->gen->nslow * sizeof(g->slow[0]));
    g->e.p = p;
    for (unsigned i = 0; i < g->napart; i++)
        grouped += g->apart[i].last - g->apart[i].first + 1u;
    if (room_left(g, r, nslow + grouped * 4))
        gen_apart(g);
    gen_simd_loads(g);
    for (unsigned i = 0; i < g->b->n; i++)
        gen_write_slow(g, i);
}

/* Edges: they may have slow paths of their own, in which nothing extra is paid. */
static void write_edges(struct gen *g, struct region *r)
{
    for (unsigned i = 0; i < r->nedges; i++) { /* which become more */
        struct region_edge *x = &r->edge[i];
        struct gen *base = &r->base;

        if (!x->site)
            continue;
        base->e = g->e;
        start(g, base);
        r->current = x->from;
        g->t = x->from->t;
        g->b = x->from->t->block;
        g->all = x->from->all;
        g->code = x->from->bytes;
        write_edge(g, r, x);
        gen_write_slow(g, X86_BLOCK_MAX);
    }
}

static bool write_region(struct gen *g, struct region *r)
{
    struct region_block *rb = &r->block[0];
    struct region_version *v = get_version(rb, in_cc);
    unsigned nslow = 0;

    while (v) {
        if (!write_version(g, r, rb, v, &nslow))
            return false;
        v = unwritten(r, &rb);
    }
    r->hot_end = g->e.p;
    g->e.p = r->base.cold;
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < r->block[i].nversions; k++)
            write_cold(g, r, &r->block[i].version[k], nslow);
    write_edges(g, r);
    return !r->failed;
}

static void free_versions(struct region *r)
{
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < r->block[i].nversions; k++)
            free(r->block[i].version[k].gen);
}

/* ---- the entry ---- */

/* The head's entry is the first instruction of its count; it becomes a jump. */
static void write_entry(struct gen *g, struct bt_region *br, const struct region_block *head)
{
    struct em *e = &g->e;
    uint8_t *used_up, *attention;

    br->entry = em_rx(e);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), (int32_t)head->need);
    used_up = em_jcc_later(e, CC_L);
    em_imm(e, false, EXT_CMP, GEN_FIELD(attention), 0);
    attention = em_jcc_later(e, CC_Z);
    em_here(e, used_up);
    em_imm(e, true, EXT_ADD, GEN_FIELD(countdown), (int32_t)head->need);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), head->t->block->n);
    em_jmp(e, head->t->chain + BT_ENTRY_BYTES);
    em_here(e, attention);
}

static void take_head(struct bt *bt, struct bt_region *br)
{
    struct em e = {br->head->chain - bt->rx + bt->rw, bt->rx - bt->rw};

    memcpy(br->saved, e.p, BT_ENTRY_BYTES);
    em_jmp(&e, br->entry);
    bt->patched = true;
}

static void give_head(struct bt *bt, struct bt_region *br)
{
    memcpy(br->head->chain - bt->rx + bt->rw, br->saved, BT_ENTRY_BYTES);
    bt->patched = true;
}

static void become(struct bt *bt, struct bt_region *br, const struct region *r)
{
    br->n = r->n;
    for (unsigned i = 0; i < r->n; i++) {
        struct bt_member *m = &br->member[i];
        struct bt_trans *t = r->block[i].t;

        *m = (struct bt_member){.region = br, .t = t, .next = t->regions};
        t->regions = m;
    }
    br->head->region = br;
    bt_links_enter(bt, &br->t);
    take_head(bt, br);
}

static void end_region(struct bt *bt, struct bt_region *br)
{
    for (unsigned i = 0; i < br->n; i++) {
        struct bt_member **m = &br->member[i].t->regions;

        while (*m != &br->member[i])
            m = &(*m)->next;
        *m = br->member[i].next;
    }
    br->head->region = NULL;
    give_head(bt, br);
    bt_links_remove(bt, &br->t);
    bt->deaths++;
}

void bt_regions_end(struct bt *bt, struct bt_trans *t)
{
    while (t->regions)
        end_region(bt, t->regions->region);
}

bool bt_region_translate(struct x86_cpu *cpu, struct bt *bt, struct bt_trans *head)
{
    struct bt_region *br = (struct bt_region *)(bt->rw + bt->cold);
    struct region *r = bt->room;
    struct gen *g;
    bool ok;

    if (head->region || bt->used + BT_REGION_CODE > bt_cold_start(bt) ||
        bt->cold + bt->high + BT_REGION_CODE + BT_REGION_LINKS * sizeof(struct bt_link) > bt->size)
        return false;
    if (!r)
        r = bt->room = malloc(sizeof(*r));
    if (!r)
        return false;
    r->n = r->ninsns = r->nedges = 0;
    r->failed = r->conditional = false;
    r->tail = NULL;
    r->next = NULL;
    memset(&r->base, 0, sizeof(r->base));
    r->base.cpu = cpu;
    r->base.bt = bt;
    r->base.host = bt_host;
    r->base.is64 = (head->mode & X86_MODE_CODE) == X86_MODE_CODE64;
    r->base.page = head->page;
    r->base.region = r;
    r->base.owner = &br->t;
    r->base.b = head->block;
    g = malloc(sizeof(*g));
    if (!g)
        return false;
    start(g, &r->base);
    collect(g, r, head);
    ok = r->n > 0;
    if (ok) {
        unroll(r);
        analyse(r);
        *br = (struct bt_region){.head = head};
        br->t.gpa = head->gpa;
        br->t.mode = head->mode;
        br->t.link = (struct bt_link *)(bt->rw + bt->size - bt->high);
        start(g, &r->base);
        r->base.cold = (uint8_t *)&br->member[r->n];
        g->e = (struct em){bt->rw + bt->used, bt->rx - bt->rw};
        write_entry(g, br, &r->block[0]);
        ok = write_region(g, r);
        free_versions(r);
    }
    if (ok) {
        bt->used = ((size_t)(r->hot_end - bt->rw) + 15) & ~(size_t)15;
        bt->cold = ((size_t)(g->e.p - bt->rw) + 15) & ~(size_t)15;
        br->t.link -= br->t.nlinks;
        bt->high += br->t.nlinks * sizeof(struct bt_link);
        become(bt, br, r);
        cpu->count.regions++;
    }
    free(g);
    return ok;
}
