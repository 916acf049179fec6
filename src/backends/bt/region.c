/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region.c: hot blocks are translated together with those they lead to. */
#include <stdlib.h>

#include "backends/bt/region.h"

/*
 * A region has copies of the code of its blocks, which go on to exist for themselves: it begins
 * with one of them, its head, and leaves by exits in which all is as between blocks.
 */

/* ---- the entry ---- */

/* Whether another page of the region is where it was. */
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
    const struct region_block *head = &r->block[0];
    struct em *e = &g->e;
    uint8_t *enough, *elsewhere[REGION_PAGES];

    write_calls(g, r);
    br->entry = em_rx(e);
    for (unsigned k = 1; k < r->npages; k++)
        elsewhere[k] = check_page(g, r->page[k].page, r->page[k].delta);
    region_check_fixed(g, r);
    r->simd_site = g->simd_have ? gen_simd_check(g) : NULL;
    r->simd_back = em_rx(e);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), (int32_t)head->need);
    enough = em_jcc_later(e, CC_L ^ 1);
    em_imm(e, true, EXT_ADD, GEN_FIELD(countdown), (int32_t)head->need);
    for (unsigned k = 1; k < r->npages; k++)
        em_here(e, elsewhere[k]);
    r->elsewhere = em_rx(e);
    em_imm(e, true, EXT_SUB, GEN_FIELD(countdown), head->t->block->n);
    em_jmp(e, head->t->chain + BT_ENTRY_BYTES);
    em_here(e, enough);
    gen_regs_enter(g);
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
    give_head(bt, br);
    bt_links_remove(bt, &br->links);
    bt->deaths++;
}

void bt_regions_end(struct bt *bt, struct bt_trans *t)
{
    while (t->regions)
        end_region(bt, t->regions->region);
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
    return region_write(g, r);
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
