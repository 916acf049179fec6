/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/held.c: looks into the TLB that hold over the blocks of a region. */
#include "backends/bt/region.h"

/*
 * A base is a register or two that accesses go off. A block that is going to access memory off one,
 * and from which such accesses can be reached in other blocks while it changes by constants only,
 * begins with a look for the range of all of them (and the head of a loop over which it does not
 * change, for those in the loop). From there on, the versions of blocks differ by what is held: the
 * host address of a range, in a register or cpu->tier_held. Accesses in it need no look and have no
 * slow path. When a base has moved on, what is held may slide after it [slide.c].
 *
 * When the look fails, as the range goes over the end of a page or may not be written to, a version
 * of the block is entered in which the base is denied: its accesses look for themselves, until the
 * base has changed.
 *
 * What is held is only known to the region's code: it is gone with every way out of it, so also
 * when another thread wants something. Handlers that are called in between may take entries from
 * the TLB; bt_run_handlers then leaves the region. In line, only what is known not to do that is
 * let pass.
 */

#define MAX_RANGE 512 /* bytes */
#define MAX_BASES 24  /* that are considered */
#define FAR       256 /* a loop that moves a base so far looks for other pages as a rule */

/* ---- what ops do to bases ---- */

static bool only_general(const struct gen_insn *in)
{
    uint8_t slot;

    for (unsigned k = 0; k < in->insn->operand_count_visible; k++) {
        ZydisRegister reg = in->opnd[k].reg.value;

        if (in->opnd[k].type == ZYDIS_OPERAND_TYPE_REGISTER && !gen_gpr_slot(reg, &slot))
            return false;
    }
    return true;
}

/* Instructions that no group goes over, but which leave the TLB and its index as they are. */
static bool is_harmless(const struct gen_insn *in)
{
    if (in->is_vec || in->is_x87 || gen_condition(in->insn->mnemonic) >= 0)
        return true;
    if (gen_may_group(in) || in->insn->op.lock)
        return only_general(in);
    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
        return in->insn->is_near;
    case ZYDIS_MNEMONIC_XCHG:
        return only_general(in);
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
    case ZYDIS_MNEMONIC_BSWAP:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_MOVSB:
    case ZYDIS_MNEMONIC_MOVSQ:
    case ZYDIS_MNEMONIC_STOSB:
    case ZYDIS_MNEMONIC_STOSD:
    case ZYDIS_MNEMONIC_STOSQ:
        return true;
    default:
        return false;
    }
}

/* False: nothing is known any more behind the op. */
static bool find_effect(const struct gen *g, unsigned i, struct gen_effect *e)
{
    const struct gen_insn *in = &g->all[i];

    if (in->has_effect) {
        *e = in->effect;
        return true;
    }
    *e = (struct gen_effect){.moves = GEN_NO_MOVE, .changes = gen_writes(in)};
    if (!in->known || !is_harmless(in))
        return false;
    if (in->insn->mnemonic == ZYDIS_MNEMONIC_CALL) {
        e->changes &= ~(1u << VMM_RSP);
        e->moves = VMM_RSP;
        e->by = g->is64 ? -8 : -4;
        if (g->b->ops[i].size != -e->by)
            return false;
    }
    return true;
}

static uint32_t regs_of(const struct gen_base *b)
{
    return (b->base < 16 ? 1u << b->base : 0) | (b->index < 16 ? 1u << b->index : 0);
}

static int64_t movement(const struct gen_base *b, const struct gen_effect *e)
{
    int64_t by = 0;

    if (e->moves == GEN_NO_MOVE)
        return 0;
    if (e->moves == b->base)
        by += e->by;
    if (e->moves == b->index)
        by += e->by * (1 << b->scale);
    return by;
}

/* ---- while code is written ---- */

static bool same_base(const struct gen_base *a, const struct gen_base *b)
{
    return a->base == b->base && a->index == b->index &&
           (a->scale == b->scale || a->index == X86_ZERO);
}

const struct gen_hold *gen_hold_of(const struct gen *g, const struct gen_base *b)
{
    if (!g->holds)
        return NULL;
    for (unsigned k = 0; k < g->region->nbases; k++)
        if (same_base(&g->region->held[k], b))
            return &g->hold[k];
    return NULL;
}

bool gen_hold_covers(const struct gen_hold *h, const struct gen_base *b)
{
    if (h->status != GEN_HELD || b->lo + h->off < 0 || b->hi + h->off > h->len ||
        (b->write && !h->write))
        return false;
    return b->align <= 1 ||
           (b->align <= h->align && !((b->phase + h->off - h->phase) & (b->align - 1)));
}

int32_t gen_hold_cell(const struct gen *g, const struct gen_hold *h)
{
    return BT_FIELD(tier_held) + (int32_t)(h - g->hold) * 8;
}

unsigned gen_hold_reg(const struct gen *g, const struct gen_hold *h)
{
    return g->regs ? g->regs->hold[h - g->hold] : H_NONE;
}

void gen_holds_move(struct gen *g, unsigned op)
{
    for (unsigned k = 0; k < GEN_HOLDS; k++)
        if (g->regs->hold[k] != H_NONE)
            em_rm(&g->e, true, op, g->regs->hold[k], gen_hold_field(k));
}

void gen_hold_drop(struct gen *g)
{
    memset(g->hold, 0, sizeof(g->hold));
}

static void follow(const struct region *r, struct gen_hold *hold, const struct gen_effect *e)
{
    for (unsigned k = 0; k < r->nbases; k++) {
        const struct gen_base *b = &r->held[k];
        int64_t off = hold[k].off + movement(b, e);

        if (hold[k].status == GEN_UNKNOWN)
            continue;
        if ((e->changes & regs_of(b)) || off != (int16_t)off)
            hold[k] = (struct gen_hold){0};
        else
            hold[k].off = (int16_t)off;
    }
}

void gen_hold_follow(struct gen *g, unsigned i)
{
    struct gen_effect e;

    if (!g->region || !g->region->nbases)
        return;
    if (find_effect(g, i, &e))
        follow(g->region, g->hold, &e);
    else
        gen_hold_drop(g);
}

uint32_t gen_changes(const struct gen *g, unsigned i)
{
    struct gen_effect e;

    find_effect(g, i, &e);
    return e.changes;
}

/* ---- ranges ---- */

/* Adds a range that begins `by` bytes further; false: they do not go together. */
static bool join(struct region_range *to, struct region_range a, int64_t by)
{
    int64_t lo = a.lo + by, hi = a.hi + by;
    unsigned align = a.align < to->align ? a.align : to->align;

    if (!to->n) {
        *to = a;
        to->lo = lo;
        to->hi = hi;
        to->phase += by;
        return hi - lo <= MAX_RANGE && lo == (int16_t)lo && hi == (int16_t)hi;
    }
    if (align > 1 && ((a.phase + by - to->phase) & (align - 1)))
        return false;
    lo = lo < to->lo ? lo : to->lo;
    hi = hi > to->hi ? hi : to->hi;
    if (hi - lo > MAX_RANGE || lo != (int16_t)lo || hi != (int16_t)hi)
        return false;
    to->lo = lo;
    to->hi = hi;
    to->write |= a.write;
    if (a.align > to->align) {
        to->align = a.align;
        to->phase = a.phase + by;
    }
    return true;
}

static void add_access(struct region_use *u, const struct gen_effect *e)
{
    struct region_range a = {.lo = e->disp + u->delta,
                             .hi = e->disp + u->delta + e->size,
                             .phase = e->disp + u->delta,
                             .align = e->align,
                             .write = e->write,
                             .n = 1};
    struct region_range was = u->own;

    if (!join(&u->own, a, 0))
        u->own = was;
}

/* What a block does with a base. */
static struct region_use find_use(struct gen *g, const struct region_block *rb,
                                  const struct gen_base *b)
{
    struct region_use u = {0};
    struct gen_effect e;

    g->b = rb->b;
    g->all = rb->all;
    for (unsigned i = 0; i < g->b->n; i++) {
        if (!find_effect(g, i, &e)) {
            u.lost = true;
            break;
        }
        if (e.access &&
            same_base(b, &(struct gen_base){.base = e.base, .index = e.index, .scale = e.scale})) {
            add_access(&u, &e);
            u.accesses++;
        }
        if (e.changes & regs_of(b)) {
            u.lost = true;
            break;
        }
        u.delta += movement(b, &e);
        if (u.delta != (int16_t)u.delta) {
            u.lost = true;
            break;
        }
    }
    return u;
}

/* ---- loops ---- */

/* By how much base k has moved at every edge back to block `head` since that was entered, in the
 * innermost loop; false: that is not known, or not the same. */
static bool find_round(const struct region *r, unsigned head, unsigned k, int64_t *by)
{
    enum { NOT_REACHED, REACHED, LOST } reached[REGION_COPIES] = {NOT_REACHED};
    int64_t at[REGION_COPIES] = {0};
    bool found = false;

    reached[head] = REACHED;
    for (unsigned i = r->rank[head]; i < r->n; i++) {
        unsigned from = r->order[i];
        const struct region_block *rb = &r->block[from];
        const struct region_use *u = &rb->use[k];

        if (reached[from] == NOT_REACHED)
            continue;
        for (unsigned e = 0; e < rb->nnext; e++) {
            int to = rb->to[e];
            bool lost = reached[from] == LOST || u->lost;
            int64_t there = at[from] + u->delta;

            if (to < 0)
                continue;
            if (to == (int)head && rb->body == r->block[head].body) {
                if (lost || (found && there != *by))
                    return false;
                found = true;
                *by = there;
            } else if (r->rank[to] > i) {
                if (lost || (reached[to] == REACHED && at[to] != there))
                    reached[to] = LOST;
                else if (reached[to] == NOT_REACHED)
                    reached[to] = REACHED;
                at[to] = there;
            }
        }
    }
    return found;
}

/* The accesses that can be reached from each block. Edges back count for loops over which the base
 * does not change. */
static void find_all(struct region *r, unsigned k)
{
    for (unsigned i = r->n; i-- > 0;) {
        struct region_block *rb = &r->block[r->order[i]];
        struct region_use *u = &rb->use[k];
        unsigned behind = 0;

        u->all = u->own;
        for (unsigned e = 0; e < rb->nnext && !u->lost; e++) {
            const struct region_use *next = rb->to[e] < 0 ? NULL : &r->block[rb->to[e]].use[k];
            struct region_range was = u->all;

            if (!next || !next->all.n ||
                (region_is_back(r, rb, &r->block[rb->to[e]]) && !next->invariant))
                continue;
            if (!join(&u->all, next->all, u->delta))
                u->all = was;
            else if (region_is_back(r, rb, &r->block[rb->to[e]]))
                behind = behind ? behind : 1;
            else if (next->all.n > behind)
                behind = next->all.n;
        }
        u->all.n = u->own.n + behind;
        if (u->all.n > 200)
            u->all.n = 200;
    }
}

/* ---- bases ---- */

static void add_base(struct gen_base *list, unsigned *n, const struct gen_effect *e)
{
    struct gen_base b = {.base = e->base, .index = e->index, .scale = e->scale};

    if ((b.base != X86_ZERO && b.base >= 16) || (b.index != X86_ZERO && b.index >= 16))
        return;
    for (unsigned i = 0; i < *n; i++)
        if (same_base(&list[i], &b)) {
            list[i].accesses++;
            return;
        }
    if (*n < MAX_BASES) {
        b.accesses = 1;
        list[(*n)++] = b;
    }
}

static unsigned list_bases(struct gen *g, const struct region *r, struct gen_base *list)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->n; i++) {
        struct gen_effect e;

        g->b = r->block[i].b;
        g->all = r->block[i].all;
        for (unsigned k = 0; k < g->b->n; k++)
            if (find_effect(g, k, &e) && e.access)
                add_base(list, &n, &e);
    }
    return n;
}

bool region_wants(const struct region_use *u)
{
    return u->own.n ? u->all.n > 1 || u->invariant || u->step : u->invariant && u->all.n;
}

static bool is_wanted(struct gen *g, struct region *r, const struct gen_base *b)
{
    unsigned k = r->nbases;
    bool wanted = false;
    int64_t step[REGION_COPIES];

    for (unsigned i = 0; i < r->n; i++)
        r->block[i].use[k] = find_use(g, &r->block[i], b);
    for (unsigned i = 0; i < r->n; i++) {
        if (!find_round(r, i, k, &step[i]))
            step[i] = 0;
        else
            r->block[i].use[k].invariant = !step[i];
    }
    for (unsigned i = 0; i < r->n; i++)
        if (r->block[i].in_loop && step[r->block[i].loop] == (int16_t)step[r->block[i].loop])
            r->block[i].use[k].step = (int16_t)step[r->block[i].loop];
    find_all(r, k);
    find_all(r, k);
    for (unsigned i = 0; i < r->n; i++)
        wanted |= region_wants(&r->block[i].use[k]);
    return wanted;
}

void region_find_bases(struct gen *g, struct region *r)
{
    struct gen_base list[MAX_BASES];
    unsigned n = list_bases(g, r, list);

    r->nbases = 0;
    while (n && r->nbases < GEN_HOLDS) {
        unsigned best = 0;

        for (unsigned i = 1; i < n; i++)
            if (list[i].accesses > list[best].accesses)
                best = i;
        r->held[r->nbases] = list[best];
        if (is_wanted(g, r, &list[best]))
            r->nbases++;
        list[best] = list[--n];
    }
}

/* ---- states ---- */

bool region_covers(const struct gen_hold *h, const struct region_range *a)
{
    struct gen_base b = {
        .lo = a->lo, .hi = a->hi, .write = a->write, .align = a->align, .phase = a->phase};

    return gen_hold_covers(h, &b);
}

/* What is held may slide to the next round of the loop, at whose beginning there are accesses. */
static bool matters_next_round(const struct region *r, const struct region_block *rb, unsigned k)
{
    return rb->use[k].step && r->block[rb->loop].use[k].all.n;
}

void region_reduce_holds(const struct region *r, const struct region_block *to,
                         struct gen_hold *hold)
{
    for (unsigned k = 0; k < GEN_HOLDS; k++) {
        const struct region_use *u = &to->use[k];
        bool keep = k < r->nbases && u->all.n;

        if (keep && hold[k].status == GEN_HELD)
            keep = region_covers(&hold[k], u->own.n ? &u->own : &u->all);
        else if (k < r->nbases && hold[k].status == GEN_HELD)
            keep = matters_next_round(r, to, k);
        if (!keep)
            hold[k] = (struct gen_hold){0};
    }
}

void region_edge_holds(struct gen *g, struct gen_hold *hold)
{
    struct gen_effect e;

    memcpy(hold, g->hold, sizeof(g->hold));
    if (!g->region->nbases || !g->b->ends)
        return;
    if (find_effect(g, g->b->n - 1u, &e))
        follow(g->region, hold, &e);
    else
        memset(hold, 0, sizeof(g->hold));
}

void region_round_holds(struct gen_hold *hold)
{
    for (unsigned k = 0; k < GEN_HOLDS; k++)
        if (hold[k].status == GEN_DENIED && hold[k].off)
            hold[k] = (struct gen_hold){0};
}

bool region_forget_holds(const struct region *r, const struct region_block *to,
                         struct gen_hold *hold)
{
    for (unsigned k = 0; k < r->nbases; k++)
        if (hold[k].status == GEN_DENIED && region_wants(&to->use[k]))
            return false;
    memset(hold, 0, GEN_HOLDS * sizeof(hold[0]));
    return true;
}

void region_deny_holds(const struct region *r, const struct region_block *to, struct gen_hold *hold)
{
    memset(hold, 0, GEN_HOLDS * sizeof(hold[0]));
    for (unsigned k = 0; k < r->nbases; k++)
        if (region_wants(&to->use[k]))
            hold[k] = (struct gen_hold){.status = GEN_DENIED};
}

/* ---- looks ---- */

static void look(struct gen *g, const struct region *r, unsigned k, const struct region_range *a,
                 bool far)
{
    struct gen_base b = r->held[k];

    b.lo = a->lo;
    b.hi = a->hi;
    b.write = a->write;
    b.align = a->align;
    b.phase = a->phase;
    gen_look_off(g, &b, !far);
    if (g->regs && g->regs->hold[k] != H_NONE)
        em_rr(&g->e, true, OP_LOAD, g->regs->hold[k], H_RAX);
    else
        em_rm(&g->e, true, OP_STORE, H_RAX, gen_hold_field(k));
    g->in_rax = g->e.p;
    g->held_rax = (uint8_t)k;
    g->hold[k] = (struct gen_hold){.status = GEN_HELD,
                                   .write = a->write,
                                   .align = a->align,
                                   .phase = (uint8_t)(a->align > 1 ? (a->phase - a->lo) & 63 : 0),
                                   .off = (int16_t)-a->lo,
                                   .len = (uint16_t)(a->hi - a->lo)};
}

unsigned region_looks(struct gen *g, const struct region *r, const struct region_block *rb)
{
    unsigned first = g->nslow, denied = 0;

    for (unsigned k = 0; k < r->nbases; k++)
        g->holds |= g->hold[k].status == GEN_HELD;
    if (rb->live && !g->in_cc && !g->recipe.len)
        return 0; /* the flags would have to be stored */
    for (unsigned k = 0; k < r->nbases; k++) {
        const struct region_use *u = &rb->use[k];

        if (g->hold[k].status != GEN_UNKNOWN || !region_wants(u))
            continue;
        if (!denied)
            gen_free_flags(g);
        look(g, r, k, &u->all, u->step >= FAR || u->step <= -FAR);
        denied |= 1u << k;
        g->holds = true;
    }
    for (unsigned j = first; j < g->nslow; j++) {
        g->slow[j].i = X86_BLOCK_MAX;
        g->slow[j].hold = true;
    }
    return denied;
}

uint8_t *region_look_fails(struct gen *g)
{
    uint8_t *site[GEN_MAX_SLOW], *other;
    unsigned n = 0;

    for (unsigned j = 0; j < g->nslow; j++) {
        const struct gen_slow *s = &g->slow[j];

        if (!s->hold)
            continue;
        if (s->retry) {
            gen_miss(g, s);
            site[n++] = em_jmp_later(&g->e);
        } else {
            site[n++] = s->site;
        }
    }
    while (n)
        em_here(&g->e, site[--n]);
    other = em_jmp_later(&g->e);
    return other;
}
