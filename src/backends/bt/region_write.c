/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region_write.c: the code of a region: versions of its blocks, and edges. */
#include "backends/bt/region.h"

/*
 * Flags: a block is written once for each state of the flags in which it is reached, so that
 * nothing needs to be stored at the edges between blocks.
 *
 * Counting: whoever enters a block has paid for the way from there to the end of the region that is
 * taken most often, loops left out (`need`). Shorter ways and exits give back what is left over;
 * longer ones pay the rest, and an edge back pays again, which is where requests are seen. So
 * inside a block `extra` instructions are paid for beyond what handlers expect; this is given back
 * around calls of them. In loops a register may have what is to be taken off the count in memory:
 * that is where requests are, and is only read then, until the region is left or a handler called.
 *
 * Pages: inside a region tier_page is the page of its head, wherever a block lies. That the others
 * are mapped at their distance from it is checked when the region is entered; handlers called by it
 * that flush the TLB do not come back to it (BT_MAPPED).
 *
 * Calls: what is called is in the region once for each call, so that a return has one place to go
 * to. It compares the address, and what is not expected goes the ways of other returns.
 */

void region_start(struct gen *g, const struct gen *base)
{
    memcpy(g, base, GEN_CLEARED);
}

/* ---- what the slow paths need ---- */

/* The parts of struct gen that are in use. */
struct part {
    void *at;
    size_t size;
};

enum { PARTS = 4 };

static void find_parts(struct gen *g, struct part part[PARTS])
{
    part[0] = (struct part){g, offsetof(struct gen, group)};
    part[1] = (struct part){g->simd + 1, g->nsimd * sizeof(g->simd[0])};
    part[2] = (struct part){g->apart, g->napart * sizeof(g->apart[0])};
    part[3] = (struct part){g->slow, g->nslow * sizeof(g->slow[0])};
}

static bool save_gen(struct region *r, struct gen *g, struct region_version *v)
{
    struct part part[PARTS];
    size_t at = r->nsaved;

    find_parts(g, part);
    for (unsigned i = 0; i < PARTS; i++) {
        if (part[i].size > REGION_SAVED - at)
            return false;
        memcpy(r->saved + at, part[i].at, part[i].size);
        at += part[i].size;
    }
    v->saved = r->nsaved;
    r->nsaved = at;
    return true;
}

static void restore_gen(const struct region *r, struct gen *g, const struct region_version *v)
{
    struct part part[PARTS];
    size_t at = v->saved;

    for (unsigned i = 0; i < PARTS; i++) {
        if (i < 2) /* the first part has the numbers of what is in the others */
            find_parts(g, part);
        memcpy(part[i].at, r->saved + at, part[i].size);
        at += part[i].size;
    }
}

/* ---- edges ---- */

/* countdown += n. Keeps the flags (then RAX changes), or RAX. */
static void give_back(struct gen *g, unsigned n, bool flags)
{
    if (!n)
        return;
    if (gen_counts(g)) {
        em_rm(&g->e, true, OP_LEA, g->regs->count, em_at(g->regs->count, -(int32_t)n));
        return;
    }
    if (!flags) {
        em_imm(&g->e, true, EXT_ADD, GEN_FIELD(countdown), (int32_t)n);
        return;
    }
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
        .from = r->current, .version = NULL, .state = {g->in_host, g->in_cc, g->recipe, {{0}}}};
    return x;
}

/* Out of the region from edge `x`, whose place is here. */
static void leave(struct gen *g, struct region_edge *x, unsigned paid)
{
    store_flags(g, &x->state);
    give_back(g, paid, false);
    if (x->from->page_delta)
        em_imm(&g->e, g->is64, EXT_ADD, GEN_FIELD(tier_page), x->from->page_delta);
    g->page_delta = 0;
    gen_regs_leave(g);
    g->regs = NULL; /* slow paths of the way out */
    g->host = bt_host;
    g->exit[0] =
        (struct gen_exit){.site = em_jmp_later(&g->e), .offset = x->offset, .checked = x->checked};
    g->nexits = 1;
    gen_exits(g);
    g->nexits = 0;
}

/* Pays for the way from `to` on. What refuses is written later. */
static void pay(struct gen *g, struct region *r, struct region_edge *x)
{
    int n = (int)x->to->need - (int)region_extra(x->from);
    struct region_edge *refused = new_edge(r, g);

    x->state.in_host = false;
    *refused = (struct region_edge){
        .state = x->state, .from = x->from, .to = x->to, .offset = x->offset, .refused = true};
    if (gen_counts(g)) {
        if (n)
            em_imm(&g->e, true, EXT_ADD, em_reg(g->regs->count), n);
        em_rm(&g->e, true, 0x39, g->regs->count, GEN_FIELD(countdown)); /* CMP */
    } else {
        em_imm(&g->e, true, n ? EXT_SUB : EXT_CMP, GEN_FIELD(countdown), n);
    }
    refused->site = em_jcc_later(&g->e, CC_L);
}

/* Moves what is held along with its bases. */
static void slide_holds(struct gen *g, struct region *r, const struct region_edge *x)
{
    for (unsigned k = 0; k < r->nbases; k++) {
        struct region_edge *slid;

        if (!x->slide[k])
            continue;
        slid = new_edge(r, g);
        *slid = (struct region_edge){
            .state = x->state, .from = x->from, .to = x->to, .version = x->other, .slid = true};
        slid->state.in_host = false;
        slid->state.hold[k] = x->version->state.hold[k];
        slid->slide[k] = x->slide[k];
        slid->base = (uint8_t)k;
        slid->site = region_check_slide(g, k, &x->version->state.hold[k], x->slide[k]);
        slid->back = em_rx(&g->e);
    }
    for (unsigned k = 0; k < r->nbases; k++)
        if (x->slide[k])
            region_slide(g, k, x->slide[k]);
}

/* What happens on an edge inside the region. */
static void cross(struct gen *g, struct region *r, struct region_edge *x)
{
    bool pays = region_pays(r, x->from, x->to);

    if (pays ? !x->state.recipe.len : x->version->state.in_cc && x->to->live)
        store_flags(g, &x->state);
    if (x->version->state.in_cc && x->to->live)
        store_flags(g, &x->state);
    if (pays)
        pay(g, r, x);
    else
        give_back(g, region_extra(x->from) - x->to->need, x->version->state.in_host);
    if (x->slides)
        slide_holds(g, r, x);
}

static bool is_empty(const struct region *r, const struct region_edge *x)
{
    if (!x->to)
        return x->state.in_cc && !region_extra(x->from);
    if (region_is_back(r, x->from, x->to) || region_extra(x->from) != x->to->need || x->slides)
        return false;
    return x->state.in_cc || !x->to->live || !x->version->state.in_cc;
}

/* The flags are not in the host's then: not where they would have to be stored. */
static void find_slides(struct region *r, struct region_edge *x, struct region_state *s)
{
    struct region_state other = *s, moved = *s;

    if (x->to->live && !s->in_cc && !s->recipe.len)
        return;
    if (!region_find_slides(r, x->to, moved.hold, other.hold, x->slide))
        return;
    moved.in_host = other.in_host = false;
    *s = moved;
    x->slides = true;
    x->other = region_get_version(r, x->to, other);
}

/* There may be no version for that. */
static void end_slides(const struct region *r, struct region_edge *x)
{
    bool any = false;

    for (unsigned k = 0; k < r->nbases; k++) {
        if (x->version->state.hold[k].status != GEN_HELD)
            x->slide[k] = 0;
        any |= x->slide[k] != 0;
    }
    x->slides = any;
}

/* The edge from the current block to `offset`. */
static struct region_edge *make_edge(struct gen *g, int64_t offset, bool checked)
{
    struct region *r = g->region;
    struct region_edge *x = new_edge(r, g);
    struct region_block *rb = r->current;

    x->offset = offset;
    x->checked = checked;
    region_edge_holds(g, x->state.hold);
    for (unsigned k = 0; k < rb->nnext; k++)
        if (rb->next[k] == offset && rb->to[k] >= 0)
            x->to = &r->block[rb->to[k]];
    if (x->to) {
        struct region_state s = x->state;

        if (region_pays(r, rb, x->to)) {
            s.in_host = false;
            if (!s.recipe.len)
                s.in_cc = true;
            region_round_holds(s.hold);
        }
        find_slides(r, x, &s);
        x->version = region_get_version(r, x->to, s);
        end_slides(r, x);
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

bool gen_region_calls(const struct gen *g)
{
    const struct region_block *rb = g->region->current;

    return rb->calls && rb->to[0] >= 0;
}

bool gen_region_expects(const struct gen *g)
{
    return gen_region_calls(g) && g->region->current->expects;
}

/* RAX is where the block is expected to go on, or else. The flags are not in the host's only. */
static void expect(struct gen *g, int32_t pop)
{
    struct region *r = g->region;
    const struct region_block *rb = r->current;
    struct region_edge *x;

    gen_page_address(g, H_RCX, rb->next[0]);
    em_rr(&g->e, true, OP_CMP, H_RAX, H_RCX);
    x = new_edge(r, g);
    x->returns = true;
    x->pop = pop;
    x->site = em_jcc_later(&g->e, CC_NZ);
    if (pop)
        gen_sp(g, gen_host(g, VMM_RSP), pop);
    gen_region_exit(g, rb->next[0], false);
}

bool gen_region_returns(const struct gen *g)
{
    const struct region_block *rb = g->region->current;

    return rb->returns && rb->to[0] >= 0;
}

void gen_region_return(struct gen *g, int32_t pop)
{
    expect(g, pop);
}

bool gen_region_indirect(struct gen *g)
{
    const struct region_block *rb = g->region->current;

    if (!rb->jumps || rb->to[0] < 0)
        return false;
    g->in_host = false;
    expect(g, 0);
    return true;
}

/* A conditional branch jumps where it costs less: to the loop's end, and out of the region. */
static void first_of_two(struct gen *g, int64_t *offset, bool *checked)
{
    struct region *r = g->region;
    struct region_edge *taken = make_edge(g, r->taken, true);

    r->conditional = false;
    if (taken->to && (region_is_back(r, taken->from, taken->to) || !inside(r->current, *offset))) {
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
    region_start(g, base);
    g->b = rb->b;
    g->t = rb->t;
    g->all = rb->all;
    g->code = rb->bytes;
    g->extra = rb->need - rb->t->block->n;
    g->page_delta = rb->page_delta;
    g->live_end = rb->live_end;
    g->in_host = v->state.in_host;
    g->in_cc = v->state.in_cc;
    g->recipe = v->state.recipe;
    memcpy(g->hold, v->state.hold, sizeof(g->hold));
    g->holds = false;
    r->current = rb;
    r->tail = NULL;
    r->next = NULL;
}

/* The slow paths may take as much. */
static bool room_left(const struct gen *g, const struct region *r, unsigned nslow)
{
    const uint8_t *hot = g->bt->rw + g->bt->used;
    size_t used = (size_t)(r->hot_end ? r->hot_end - hot + (g->e.p - r->base.cold) : g->e.p - hot);
    size_t later;

    later =
        nslow * 112u + r->nedges * (96u + 8u * (unsigned)__builtin_popcount(r->regs.out)) + 4096;
    return !r->failed && used + later < BT_REGION_CODE && g->links->n + 8 < BT_REGION_LINKS;
}

/* The looks at a version's beginning. */
static void write_looks(struct gen *g, struct region *r, struct region_block *rb,
                        struct region_version *v)
{
    unsigned denied = region_looks(g, r, rb);
    struct region_edge *x;

    if (!denied)
        return;
    x = new_edge(r, g);
    memcpy(x->state.hold, v->state.hold, sizeof(x->state.hold));
    for (unsigned k = 0; k < r->nbases; k++)
        if (denied >> k & 1)
            x->state.hold[k] = (struct gen_hold){.status = GEN_DENIED};
    x->to = rb;
    x->look = true;
    x->version = region_get_version(r, rb, x->state);
    v->look = (unsigned)(x - r->edge) + 1;
}

/* Slow paths that are twice as long. */
static unsigned cells(const struct gen *g)
{
    unsigned n = 0;

    for (unsigned j = 0; j < g->nslow; j++)
        n += g->slow[j].cell != 0;
    return n;
}

static bool write_version(struct gen *g, struct region *r, struct region_block *rb,
                          struct region_version *v, unsigned *nslow)
{
    /* The jump to what comes here is the last thing that was written. */
    if (r->tail && r->tail->version == v && r->tail->written && r->tail->site + 4 == g->e.p) {
        g->e.p -= 5;
        r->tail->site = NULL;
    }
    v->code = em_rx(&g->e);
    select_version(g, r, rb, v);
    write_looks(g, r, rb, v);
    gen_write_ops(g);
    *nslow += g->nslow + cells(g);
    return save_gen(r, g, v) && room_left(g, r, *nslow);
}

static bool is_denied(const struct region_version *v)
{
    for (unsigned k = 0; k < GEN_HOLDS; k++)
        if (v->state.hold[k].status == GEN_DENIED)
            return true;
    return false;
}

/* Those for which a look has failed come last. */
static struct region_version *unwritten(struct region *r, struct region_block **rb)
{
    if (r->next && !r->next->code) {
        *rb = r->next_block;
        return r->next;
    }
    for (unsigned denied = 0; denied < 2; denied++)
        for (unsigned i = 0; i < r->n; i++)
            for (unsigned k = 0; k < r->block[r->order[i]].nversions; k++) {
                struct region_version *v = &r->block[r->order[i]].version[k];

                if (v->code || is_denied(v) != denied)
                    continue;
                *rb = &r->block[r->order[i]];
                return v;
            }
    return NULL;
}

/* A return or jump to RAX, elsewhere. */
static void leave_back(struct gen *g, struct region_edge *x)
{
    if (!x->state.in_cc) {
        em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        store_flags(g, &x->state);
        em_rr(&g->e, true, OP_LOAD, H_RAX, H_RCX);
    }
    give_back(g, region_extra(x->from), false);
    g->i = X86_BLOCK_MAX;
    if (x->pop)
        gen_return(g, x->pop);
    else
        gen_go_indirect(g);
}

static void write_edge(struct gen *g, struct region *r, struct region_edge *x)
{
    if (!x->site)
        return;
    if (x->returns) {
        em_here(&g->e, x->site);
        leave_back(g, x);
    } else if (x->refused) {
        em_here(&g->e, x->site);
        leave(g, x, x->to->need);
    } else if (x->look || x->slid) {
        em_here(&g->e, x->site);
        if (x->slid)
            region_slide_over(g, x);
        if (x->version->state.in_cc && x->to->live)
            store_flags(g, &x->state);
        em_jmp(&g->e, x->version->code);
    } else if (!x->to) {
        em_here(&g->e, x->site);
        leave(g, x, region_extra(x->from));
    } else if (x->written || is_empty(r, x)) {
        em_patch(&g->e, x->site, x->version->code);
    } else {
        em_here(&g->e, x->site);
        cross(g, r, x);
        em_jmp(&g->e, x->version->code);
    }
}

/* The slow paths of a version; `nslow` of all of them. */
static void write_cold(struct gen *g, struct region *r, struct region_version *v, unsigned nslow)
{
    uint8_t *p = g->e.p;
    unsigned grouped = 0;

    restore_gen(r, g, v);
    g->e.p = p;
    for (unsigned i = 0; i < g->napart; i++)
        grouped += g->apart[i].last - g->apart[i].first + 1u;
    gen_hold_drop(g); /* what is written here looks for itself */
    if (room_left(g, r, nslow + grouped * 4))
        gen_apart(g);
    if (v->look)
        r->edge[v->look - 1].site = region_look_fails(g);
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
        region_start(g, base);
        r->current = x->from;
        g->t = x->from->t;
        g->b = x->from->b;
        g->all = x->from->all;
        g->code = x->from->bytes;
        g->page_delta = x->from->page_delta;
        write_edge(g, r, x);
        gen_write_slow(g, X86_BLOCK_MAX);
    }
}

bool region_write(struct gen *g, struct region *r, struct bt_region *br)
{
    struct region_block *rb = &r->block[0];
    struct region_version *v = region_get_version(r, rb, (struct region_state){.in_cc = true});
    unsigned nslow = 0;

    while (v) {
        if (!write_version(g, r, rb, v, &nslow))
            return false;
        v = unwritten(r, &rb);
    }
    r->hot_end = g->e.p;
    g->e.p = r->base.cold;
    region_enter_slowly(g, r, br);
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < r->block[i].nversions; k++)
            write_cold(g, r, &r->block[i].version[k], nslow);
    write_edges(g, r);
    return !r->failed;
}
