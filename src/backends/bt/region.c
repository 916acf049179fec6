/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region.c: hot blocks are translated together with those they lead to. */
#include <stdlib.h>

#include "backends/bt/region.h"

/*
 * A region has copies of the code of its blocks, which go on to exist for themselves: it begins
 * with one of them, its head, and leaves by exits in which all is as between blocks.
 */

/* ---- the entry ---- */

/*
 * A region relies on the places of its pages and on those of some of its variables. Its guard says
 * that nothing has happened to them since they were looked at; if it does not, they are, and if
 * that fails the head's own translation is executed.
 */

static struct em_rm guard_field(const struct region *r, size_t member)
{
    return em_at(H_RBP, BT_FIELD(mmu.guard) +
                            (int32_t)((r->guard - 1) * sizeof(struct mmu_guard) + member));
}

/* RAX = what the stamp is while it holds. Flushes that keep the pages of code leave it alone if
 * that is all. */
static void put_stamp(struct gen *g, const struct region *r)
{
    em_rm(&g->e, true, OP_LOAD, H_RAX, GEN_FIELD(tier_page));
    em_rm(&g->e, true, OP_XOR, H_RAX, r->nfixed ? GEN_FIELD(mmu.epoch) : GEN_FIELD(link_key));
}

/* Another page of the region is not where it was. */
static uint8_t *check_page(struct gen *g, const struct bt_page *page, int32_t delta)
{
    gen_page_address(g, H_RAX, delta);
    em_rm(&g->e, true, OP_XOR, H_RAX, GEN_FIELD(link_key));
    em_rm(&g->e, true, OP_CMP, H_RAX, em_at(H_RBP, bt_map_field(g->bt, page)));
    return em_jcc_later(&g->e, CC_NZ);
}

/* Calls of handlers: slow paths are many. */
static void write_calls(struct gen *g, struct region *r)
{
    struct em *e = &g->e;

    r->slow = em_rx(e);
    em_rm(e, true, 0x8f, 0, GEN_FIELD(tier_back)); /* POP: stubs.slow may not come back */
    gen_holds_move(g, OP_STORE);
    gen_regs_leave(g);
    em_call(e, g->bt->stubs.slow);
    gen_regs_enter(g);
    gen_holds_move(g, OP_LOAD);
    em8(e, 0x3e); /* NOTRACK */
    em_rm(e, false, 0xff, 4, GEN_FIELD(tier_back));
    r->last = em_rx(e);
    gen_regs_leave(g);
    em_jmp(e, g->bt->stubs.tail);
}

/* The head's entry is the first instruction of its count; it becomes a jump. */
static void write_entry(struct gen *g, struct bt_region *br, struct region *r)
{
    struct em *e = &g->e;

    write_calls(g, r);
    br->entry = em_rx(e);
    r->guard_site = NULL;
    if (r->guard) {
        put_stamp(g, r);
        em_rm(e, true, OP_CMP, H_RAX, guard_field(r, offsetof(struct mmu_guard, stamp)));
        r->guard_site = em_jcc_later(e, CC_NZ);
    } else if (r->npages > 1) {
        r->guard_site = em_jmp_later(e);
    }
    br->holds = em_rx(e);
    r->simd_site = g->simd_have ? gen_simd_check(g) : NULL;
    r->simd_back = em_rx(e);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), (int32_t)r->block[0].need);
    r->refused_site = em_jcc_later(e, CC_L);
    gen_regs_enter(g);
}

/* Everything that the entry relies on. */
static unsigned check_all(struct gen *g, struct region *r, uint8_t **fail)
{
    unsigned n = 0;

    for (unsigned k = 1; k < r->npages; k++)
        fail[n++] = check_page(g, r->page[k].page, r->page[k].delta);
    region_look_fixed(g, r, fail + n);
    return n + r->nfixed;
}

/* The guard has failed, and so has what could be seen at once. */
static void write_prove(struct gen *g, struct region *r, struct bt_region *br)
{
    struct em *e = &g->e;
    uint8_t *site;

    if (r->guard) {
        em_imm(e, false, EXT_SUB, guard_field(r, offsetof(struct mmu_guard, patience)), 1);
        em_jcc(e, CC_L ^ 1, br->fails);
    }
    gen_page_address(g, H_RAX, r->block[0].t->offset);
    EM(e, 0x48, 0x8d, 0x0d); /* LEA RCX, [RIP + br] */
    site = e->p;
    e->p += 4;
    em_patch(e, site, (const uint8_t *)br + e->to_rx);
    em_jmp(e, g->bt->stubs.prove);
}

void region_enter_slowly(struct gen *g, struct region *r, struct bt_region *br)
{
    const struct region_block *head = &r->block[0];
    struct em *e = &g->e;
    uint8_t *fail[BT_REGION_PAGES + MMU_GUARD_PAGES];
    unsigned n = 0;

    em_here(e, r->refused_site);
    em_imm(e, true, EXT_ADD, GEN_FIELD(countdown), (int32_t)head->need);
    br->fails = em_rx(e);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), head->t->block->n);
    em_jmp(e, head->t->chain + BT_ENTRY_BYTES);
    if (r->guard_site) {
        em_here(e, r->guard_site);
        n = check_all(g, r, fail);
        if (r->guard) {
            put_stamp(g, r);
            em_rm(e, true, OP_STORE, H_RAX, guard_field(r, offsetof(struct mmu_guard, stamp)));
        }
        em_jmp(e, br->holds);
    }
    if (n) {
        while (n)
            em_here(e, fail[--n]);
        write_prove(g, r, br);
    }
    if (r->simd_site)
        gen_simd_enter(g, r->simd_site, r->simd_back, br->fails);
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
    br->guard = (uint16_t)r->guard;
    br->npages = (uint8_t)(r->npages - 1);
    memcpy(br->page, r->page + 1, br->npages * sizeof(br->page[0]));
    br->nfixed = (uint8_t)r->nfixed;
    for (unsigned k = 0; k < r->nfixed; k++)
        br->fixed[k] = r->fixed[k].at;
    bt->nguards -= r->guard != 0;
    bt_links_enter(bt, &br->links);
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
    if (br->guard)
        bt->guard[bt->nguards++] = (uint16_t)(br->guard - 1);
    give_head(bt, br);
    bt_links_remove(bt, &br->links);
    bt->deaths++;
}

void bt_regions_end(struct bt *bt, struct bt_trans *t)
{
    while (t->regions)
        end_region(bt, t->regions->region);
}

/* Entries that fail before a closer look, as what is executed meanwhile may make the guard hold;
 * twice as many after each look that has failed, too. */
#define PATIENCE      16
#define MOST_PATIENCE 4096
#define MOST_FAILURES 16

/* The next guard that is free, if the region needs one. */
static void take_guard(struct x86_cpu *cpu, const struct bt *bt, struct region *r)
{
    r->guard = 0;
    if (!bt->nguards)
        r->nfixed = 0;
    else if (r->npages > 1 || r->nfixed)
        r->guard = bt->guard[bt->nguards - 1] + 1u;
    if (r->guard)
        cpu->mmu.guard[r->guard - 1] = (struct mmu_guard){.patience = PATIENCE};
}

/* ---- the entry, when it has failed ---- */

/* Makes sure of one of the pages of code. */
static bool prove_page(struct x86_cpu *cpu, const struct bt *bt, const struct bt_region_page *p)
{
    uint64_t linear = cpu->tier_page + (uint64_t)(int64_t)p->delta;
    uint64_t *known = &cpu->tier_map[p->page - bt->page];
    struct mmu_code code;

    if ((cpu->mode & X86_MODE_CODE) != X86_MODE_CODE64)
        linear &= 0xffffffffu;
    if (*known == (linear ^ cpu->link_key))
        return true;
    if (!mmu_prefetch_code(&cpu->mmu, cpu->cpl == 3, linear, &code) || code.gpa != p->page->gpa)
        return false;
    x86_jump_note(cpu, linear, code.global);
    *known = linear ^ cpu->link_key;
    return true;
}

static bool prove(struct x86_cpu *cpu, const struct bt *bt, const struct bt_region *br)
{
    struct mmu_guard *guard = br->guard ? &cpu->mmu.guard[br->guard - 1] : NULL;

    for (unsigned k = 0; k < br->npages; k++)
        if (!prove_page(cpu, bt, &br->page[k]))
            return false;
    for (unsigned k = 0; k < br->nfixed; k++) {
        const struct bt_region_fixed *f = &br->fixed[k];
        uint64_t linear = (f->absolute ? 0 : cpu->tier_page) + (uint64_t)f->page;

        guard->host[k] = mmu_prefetch(&cpu->mmu, cpu->mmu_idx, linear, f->write);
        if (!guard->host[k])
            return false;
    }
    if (guard)
        guard->stamp = cpu->tier_page ^ (br->nfixed ? cpu->mmu.epoch : cpu->link_key);
    return true;
}

static void be_patient(struct x86_cpu *cpu, const struct bt_region *br)
{
    uint32_t n = (uint32_t)PATIENCE << br->failures;

    if (br->guard)
        cpu->mmu.guard[br->guard - 1].patience = (int32_t)(n < MOST_PATIENCE ? n : MOST_PATIENCE);
}

/*
 * Pages that have not been executed or accessed since the last flush are looked for as a processor
 * may do it in advance: else a region would never be entered whose pages are not all in use. One
 * whose pages are elsewhere for good makes room for another.
 */
const void *bt_region_prove(struct x86_cpu *cpu, const struct bt_region *rx)
{
    struct bt *bt = cpu->tier_state;
    struct bt_region *br = (struct bt_region *)(bt->rw + ((const uint8_t *)rx - bt->rx));
    const void *head = br->head->chain;

    if (prove(cpu, bt, br)) {
        br->failures = 0;
        be_patient(cpu, br);
        return br->holds;
    }
    if (br->failures++ < MOST_FAILURES) {
        be_patient(cpu, br);
        return br->fails;
    }
    cpu->tier_heat[br->head->heat] = bt->hotter;
    end_region(bt, br);
    bt_serialize(bt);
    return head;
}

static bool write_whole(struct gen *g, struct region *r, struct bt_region *br)
{
    struct bt *bt = g->bt;

    br->links = (struct bt_links){.first = (struct bt_link *)(bt->rw + bt->size - bt->high)};
    for (unsigned i = 0; i < r->n; i++)
        r->block[i].nversions = 0;
    r->nedges = 0;
    r->nsaved = 0;
    r->failed = r->conditional = false;
    r->hot_end = NULL;
    r->tail = NULL;
    r->next = NULL;
    region_start(g, &r->base);
    r->base.cold = (uint8_t *)&br->member[r->n];
    g->e = (struct em){bt->rw + bt->used, bt->rx - bt->rw};
    write_entry(g, br, r);
    return region_write(g, r, br);
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
    r->n = r->ninsns = 0;
    r->linear = cpu->tier_page;
    gen_clear(&r->base);
    r->base.cpu = cpu;
    r->base.bt = bt;
    r->base.host = bt_host;
    r->base.is64 = (head->mode & X86_MODE_CODE) == X86_MODE_CODE64;
    r->base.page = head->page;
    r->base.region = r;
    r->base.links = &br->links;
    r->base.b = head->block;
    g = &r->now;
    region_start(g, &r->base);
    gen_shapes_begin(bt, REGION_INSNS);
    region_collect(g, r, head);
    ok = r->n > 0;
    if (ok) {
        region_unroll(g, r);
        r->base.simd_have = region_simd(r);
        region_analyse(r);
        region_assign(&r->base, r);
        region_find_steady(g, r);
        region_find_bases(g, r);
        region_assign_holds(&r->base, r);
        region_find_fixed(g, r);
        take_guard(cpu, bt, r);
        *br = (struct bt_region){.head = head};
        ok = write_whole(g, r, br);
        while (!ok && r->nbases) { /* it is shorter without */
            r->nbases /= 2;
            region_assign(&r->base, r);
            region_assign_holds(&r->base, r);
            ok = write_whole(g, r, br);
        }
    }
    if (ok) {
        bt->used = ((size_t)(r->hot_end - bt->rw) + 15) & ~(size_t)15;
        bt->cold = ((size_t)(g->e.p - bt->rw) + 15) & ~(size_t)15;
        br->links.first -= br->links.n;
        bt->high += br->links.n * sizeof(struct bt_link);
        become(bt, br, r);
        cpu->count.regions++;
    }
    return ok;
}
