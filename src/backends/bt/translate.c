/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/translate.c: from a block to host code. */
#include <stdlib.h>

#include "backends/bt/region.h"
#include "core/x86/decode.h"

/* ---- calls of handlers ---- */

static void trans_argument(struct gen *g)
{
    uint8_t *site;

    EM(&g->e, 0x48, 0x8d, 0x05); /* LEA RAX, [RIP + t] */
    site = g->e.p;
    g->e.p += 4;
    em_patch(&g->e, site, (const uint8_t *)g->t + g->e.to_rx);
}

/* Handlers count by blocks, and know their own page only. */
static void adjust_state(struct gen *g, unsigned ext)
{
    if (g->extra && gen_counts(g))
        em_imm(&g->e, true, ext == EXT_ADD ? EXT_SUB : EXT_ADD, em_reg(g->regs->count),
               (int32_t)g->extra);
    else if (g->extra)
        em_imm(&g->e, true, ext, GEN_FIELD(countdown), (int32_t)g->extra);
    if (g->page_delta)
        em_imm(&g->e, g->is64, ext, GEN_FIELD(tier_page), g->page_delta);
}

/* What handlers must not change if a region is to go on behind them. */
static unsigned region_bits(const struct gen *g)
{
    return (g->region ? BT_MAPPED : 0) | (g->simd_have ? BT_SIMD : 0) |
           (gen_has_fixed(g) ? BT_HELD : 0);
}

/* The place of `what`. */
static uint8_t *call_handlers(struct gen *g, unsigned what)
{
    uint8_t *site;

    what |= region_bits(g);
    adjust_state(g, EXT_ADD);
    trans_argument(g);
    em_const(&g->e, H_RCX, what);
    site = g->e.p - 4;
    em_call(&g->e, g->regs ? g->region->slow : g->bt->stubs.slow);
    adjust_state(g, EXT_SUB);
    return site;
}

static void go_tail(struct gen *g)
{
    adjust_state(g, EXT_ADD);
    trans_argument(g);
    em_jmp(&g->e, g->regs ? g->region->last : g->bt->stubs.tail);
}

/* It looks into the second level of the TLB, or asks for a copy. */
static bool asks(const struct gen_slow *s)
{
    return s->retry || s->found;
}

/* Where those of op i are among g->slow, perhaps with others in between. */
struct range {
    unsigned first, end;
};

static struct range range_of(const struct gen *g, unsigned i)
{
    struct range r = {g->nslow, 0};

    for (unsigned j = 0; j < g->nslow; j++)
        if (g->slow[j].i == i) {
            r.first = j < r.first ? j : r.first;
            r.end = j + 1;
        }
    return r;
}

/* Jumps to the slow path of op i that need not bring the flags to cc: they are in front of all that
 * the op does. Each is completed once. */
static bool refused_here(struct gen *g, unsigned i, struct range of)
{
    bool any = false;

    for (unsigned j = of.first; j < of.end; j++) {
        struct gen_slow *s = &g->slow[j];

        if (s->i != i || s->recipe.len || asks(s) || s->completed)
            continue;
        em_here(&g->e, s->site);
        s->completed = true;
        any = true;
    }
    return any;
}

static void leave_behind(struct gen *g, unsigned what)
{
    call_handlers(g, what | BT_LEAVE);
    EM(&g->e, 0x0f, 0x0b); /* UD2: not reached */
}

/* What is left of the jumps to the slow path of op i. */
static void leave_refused(struct gen *g, unsigned i, struct range of, unsigned k, unsigned due)
{
    if (!refused_here(g, i, of))
        return;
    gen_x87_point(g, due);
    leave_behind(g, BT_CALL(i, k));
}

/* The slow path of op i: all its jumps come here. The registers are those before the op. */
void gen_write_slow(struct gen *g, unsigned i)
{
    unsigned k = i + 1;
    const struct gen_recipe *recipe = NULL;
    uint8_t *missed[GEN_MAX_SLOW];
    unsigned nmissed = 0, due = 0;
    struct range of;

    if (!(g->slow_ops >> i & 1))
        return;
    of = range_of(g, i);
    if (!of.end)
        return;
    for (unsigned j = of.first; j < of.end; j++)
        if (g->slow[j].i == i && asks(&g->slow[j])) {
            gen_miss(g, &g->slow[j]);
            missed[nmissed++] = em_jmp_later(&g->e);
        }
    while (nmissed)
        em_here(&g->e, missed[--nmissed]);
    for (unsigned j = of.first; j < of.end; j++)
        if (g->slow[j].i == i) {
            if (g->slow[j].x87_due)
                due = g->slow[j].x87_due;
            if (!g->slow[j].recipe.len)
                continue;
            recipe = &g->slow[j].recipe;
            if (!asks(&g->slow[j]))
                em_here(&g->e, g->slow[j].site);
        }
    if (recipe) {
        gen_cook(g, recipe);
        gen_store_cc(g);
    }
    if (!g->saves[i])
        refused_here(g, i, of);
    if (i == X86_BLOCK_MAX || (g->b->ends && i == g->b->n - 1u)) {
        refused_here(g, i, of);
        gen_x87_point(g, due);
        go_tail(g);
        return;
    }
    while (!g->is_inline[k])
        k++;
    if (g->leaves[i]) {
        refused_here(g, i, of);
        gen_x87_point(g, due);
        leave_behind(g, BT_CALL(i, k));
        return;
    }
    gen_x87_point(g, due);
    call_handlers(g, BT_CALL(i, k) | (g->holds ? BT_HELD : 0));
    if (g->held_ret && k == g->b->n - 1u) {
        go_tail(g);
        leave_refused(g, i, of, k, due);
        return;
    }
    gen_simd_again(g, k);
    if (g->host_at[k])
        gen_load_cc(g);
    em_jmp(&g->e, g->at[k]);
    leave_refused(g, i, of, k, due);
}

/* ---- the block ---- */

bool gen_try(struct gen *g, bool last)
{
    uint8_t *p = g->e.p;
    bool in_host = g->in_host, in_cc = g->in_cc;
    unsigned nslow = g->nslow, nexits = g->nexits, simd_now = g->simd_now, nsimd = g->nsimd;
    struct gen_recipe recipe = g->recipe;
    uint8_t x87_due = g->x87_due;

    g->at[g->i] = em_rx(&g->e);
    g->host_at[g->i] = in_host;
    g->simd_at[g->i] = simd_now;
    if (last)
        gen_x87_settle(g);
    gen_keep_flags(g, g->i, g->i);
    if (last ? gen_branch(g) : gen_insn(g)) {
        gen_track_flags(g, g->i);
        return true;
    }
    g->kept = g->saved = false;
    g->recipe = recipe;
    g->e.p = p;
    g->in_host = in_host;
    g->in_cc = in_cc;
    g->nslow = nslow;
    g->nexits = nexits;
    g->lost.site = NULL;
    g->simd_now = simd_now;
    g->nsimd = nsimd;
    g->x87_due = x87_due;
    g->simd_need[g->i] = 0;
    return false;
}

void gen_select(struct gen *g, unsigned i)
{
    g->i = i;
    g->op = &g->b->ops[i];
    g->bytes = g->code + g->op->off;
    g->insn = g->all[i].insn;
    g->opnd = g->all[i].opnd;
}

/* ---- groups of accesses ---- */

/* The vector state that the ops of a group need: nothing may be slow between them. */
static void need_simd(struct gen *g, const struct gen_group *group)
{
    uint32_t need = 0;

    for (unsigned i = group->first; i <= group->last; i++)
        need |= gen_vec_needs(&g->all[i]) | gen_x87_needs(g, &g->all[i]);
    if (need)
        gen_simd(g, need);
}

/* The ops of a group; the one that cannot be written, or b->n: all are. */
static unsigned write_group(struct gen *g, const struct gen_group *group)
{
    unsigned nslow, ret = g->b->ends ? g->b->n - 1u : ~0u;

    gen_keep_flags(g, group->first, group->last);
    need_simd(g, group);
    if (group->first == group->last && (gen_flags_use_at(g, g->i) & GEN_READS) && !g->in_host)
        gen_save_flags(g);
    if (gen_needs_look(group))
        gen_free_flags(g);
    nslow = g->nslow;
    g->group = *group;
    gen_group_look(g);
    if (gen_needs_look(group))
        gen_group_begins(g, nslow);
    g->held = true;
    g->sp_due = 0;
    for (unsigned i = group->first; i <= group->last; i++) {
        gen_select(g, i);
        g->keeps_rcx = false;
        if (gen_needs_sp(g))
            gen_settle_sp(g);
        if (i == ret) {
            g->held_ret = true;
            gen_x87_settle(g);
            if (!gen_branch(g))
                return i;
        } else if (!gen_insn(g)) {
            return i;
        }
        if (!g->keeps_rcx)
            g->group.in_rcx = GEN_BASES;
        gen_follow_base(g);
        gen_hold_follow(g, i);
        gen_track_flags(g, i);
    }
    gen_settle_sp(g);
    return g->b->n;
}

/* A group that begins with the current op; the number of its ops, 0: there is none. */
static unsigned try_group(struct gen *g)
{
    uint8_t *p = g->e.p;
    bool in_host = g->in_host, in_cc = g->in_cc;
    unsigned nslow = g->nslow, first = g->i, limit = g->b->n - 1u, bad;
    unsigned simd_now = g->simd_now, nsimd = g->nsimd;
    struct gen_recipe recipe = g->recipe;
    struct gen_group group;
    struct gen_hold hold[GEN_HOLDS];
    uint8_t x87_due = g->x87_due;

    memcpy(hold, g->hold, sizeof(hold));

    g->at[first] = em_rx(&g->e);
    g->host_at[first] = in_host;
    g->simd_at[first] = g->simd_now;
    while (gen_find_group(g, limit, &group)) {
        bad = write_group(g, &group);
        g->held = false;
        gen_select(g, first);
        if (bad == g->b->n) {
            if (!g->held_ret && gen_needs_look(&group))
                gen_group_ends(g);
            return group.last - first + 1;
        }
        memcpy(g->hold, hold, sizeof(hold));
        g->held_ret = false;
        g->kept = g->saved = false;
        g->recipe = recipe;
        g->e.p = p;
        g->in_host = in_host;
        g->in_cc = in_cc;
        g->nslow = nslow;
        g->simd_now = simd_now;
        g->nsimd = nsimd;
        g->x87_due = x87_due;
        memset(&g->simd_need[first], 0, (group.last - first + 1) * sizeof(g->simd_need[0]));
        if (bad == first)
            break;
        limit = bad - 1;
    }
    return 0;
}

/* Handlers have been called up to op i. */
static void end_run(const struct gen *g, uint8_t **run, unsigned first, unsigned i)
{
    uint32_t what = BT_CALL(first, i) | region_bits(g);

    if (*run)
        memcpy(*run, &what, 4);
    *run = NULL;
}

/* The number of ops in line. */
unsigned gen_write_ops(struct gen *g)
{
    struct x86_block *b = g->b;
    unsigned count = 0;
    uint8_t *run = NULL; /* handlers are called, beginning with `first` */
    unsigned first = 0;

    for (unsigned i = 0; i < b->n; i++) {
        bool last = b->ends && i == b->n - 1u;
        unsigned group;

        gen_select(g, i);
        group = last || !g->all[i].known ? 0 : try_group(g);
        if (group) {
            g->is_inline[i] = true;
            end_run(g, &run, first, i);
            count += group;
            i += group - 1;
            if (i == b->n - 1u && b->ends) {
                g->is_inline[i] = true; /* RET */
                return count;
            }
            continue;
        }
        if (g->all[i].known && gen_try(g, last)) {
            g->is_inline[i] = true;
            end_run(g, &run, first, i);
            gen_hold_follow(g, i);
            count++;
            continue;
        }
        if (last) { /* whatever it does, it does not come back */
            end_run(g, &run, first, i);
            gen_spill_flags(g);
            g->is_inline[g->i] = true;
            g->at[g->i] = em_rx(&g->e);
            g->host_at[g->i] = false;
            gen_x87_settle(g);
            go_tail(g);
            return count;
        }
        if (!run) {
            gen_spill_flags(g);
            gen_x87_settle(g);
            run = call_handlers(g, g->i);
            gen_simd_restore(g);
            first = i;
        }
        g->in_host = false;
        g->in_cc = true;
        g->simd_now = 0;
        g->recipe.len = 0;
        gen_hold_drop(g);
    }
    end_run(g, &run, first, b->n);
    if (!b->ends) {
        g->is_inline[b->n] = true;
        g->at[b->n] = em_rx(&g->e);
        g->host_at[b->n] = g->in_host;
        gen_x87_settle(g);
        gen_goto(g, (int64_t)g->t->offset + b->bytes);
    }
    return count;
}

static void write_refusal(struct gen *g)
{
    trans_argument(g);
    em_jmp(&g->e, g->bt->stubs.refuse);
}

bool gen_fetch(struct x86_cpu *cpu, const struct x86_block *b, uint8_t *bytes)
{
    struct mmu_page page;

    if (!cpu->env->mmu.page(cpu->env->mmu.ctx, b->gpa, &page))
        return false;
    memcpy(bytes, page.host + (b->gpa & ~MMU_PAGE_MASK), b->bytes);
    return x86_block_is_made_of(b, bytes);
}

static x86_fn *begin(struct gen *g)
{
    struct x86_block *b = g->b;
    struct bt_trans *t = (struct bt_trans *)(g->bt->rw + g->bt->cold);
    union {
        const void *object;
        x86_fn *fn;
    } entry;
    g->t = t;
    g->links = &t->links;
    *t = (struct bt_trans){.block = b,
                           .page = g->page,
                           .gpa = b->gpa,
                           .mode = b->mode,
                           .offset = (uint32_t)(b->gpa & ~MMU_PAGE_MASK)};
    for (unsigned i = 0; i <= b->n; i++)
        t->fn[i] = b->ops[i].fn;
    for (unsigned i = 0; i < b->n; i++)
        bt_mnemonics(t)[i] = g->all[i].known ? (uint16_t)g->all[i].insn->mnemonic : 0;
    t->links.first = (struct bt_link *)(bt_mnemonics(t) + ((b->n + 3u) & ~3u));
    t->heat = g->bt->nheat++ & (X86_TIER_HEAT - 1);
    g->e = (struct em){(uint8_t *)(t->links.first + BT_MAX_LINKS), g->bt->rx - g->bt->rw};
    entry.object = em_rx(&g->e);
    EM(&g->e, 0xf3, 0x0f, 0x1e, 0xfa); /* ENDBR64 */
    EM(&g->e, 0x48, 0x8d, 0x05);       /* LEA RAX, [RIP + first] */
    g->first = g->e.p;
    g->e.p += 4;
    em_jmp(&g->e, g->bt->stubs.enter);
    g->cold = g->e.p;
    g->e.p = g->bt->rw + g->bt->used;
    gen_near_entry(g);
    t->chain = em_rx(&g->e); /* BT_COUNT_BYTES from here to `body` */
    /* The count of instructions, and requests: as x86_next. */
    em_imm(&g->e, true, EXT_SUB, GEN_FIELD(countdown), b->n);
    g->refused = em_jcc_later(&g->e, CC_L);
    g->body = em_rx(&g->e);
    em_imm(&g->e, false, EXT_SUB, em_at(H_RBP, BT_FIELD(tier_heat) + (int32_t)t->heat * 4), 1);
    g->hotter = em_jcc_later(&g->e, CC_Z);
    g->heated = em_rx(&g->e);
    return entry.fn;
}

static void end(struct gen *g)
{
    g->bt->used = ((size_t)(g->e.p - g->bt->rw) + 15) & ~(size_t)15;
    g->e.p = g->cold;
    gen_entries(g);
    em_here(&g->e, g->refused);
    write_refusal(g);
    em_here(&g->e, g->hotter);
    call_handlers(g, BT_HOTTER);
    em_jmp(&g->e, g->heated);
    gen_exits(g);
    gen_simd_loads(g);
    for (unsigned i = 0; i < g->b->n; i++)
        gen_write_slow(g, i);
    g->bt->cold = ((size_t)(g->e.p - g->bt->rw) + 15) & ~(size_t)15;
}

struct gen_insn *bt_make_room(void)
{
    return malloc(X86_BLOCK_MAX * sizeof(struct gen_insn));
}

struct bt_trans *bt_translate(struct x86_cpu *cpu, struct bt *bt, struct x86_block *b)
{
    struct gen g;
    struct bt_page *page = bt_page_get(cpu, bt, b);
    uint8_t bytes[X86_BLOCK_MAX * 15];
    x86_fn *entry;

    gen_clear(&g);
    g.cpu = cpu;
    g.bt = bt;
    g.b = b;
    g.host = bt_host;
    g.in_cc = true;
    g.is64 = (b->mode & X86_MODE_CODE) == X86_MODE_CODE64;
    g.page = page;
    if (!page)
        return NULL;
    if (!gen_fetch(cpu, b, bytes)) {
        bt_page_put(bt, page);
        return NULL;
    }
    g.code = bytes;
    gen_shapes_begin(bt, b->n);
    gen_decode(&g, bt->decoded);
    entry = begin(&g);
    if (!gen_write_ops(&g)) {
        bt_page_put(bt, page);
        return NULL;
    }
    end(&g);
    for (unsigned i = 0; i <= b->n; i++)
        b->ops[i].fn = bt_stop;
    b->ops[0].fn = entry;
    return g.t;
}
