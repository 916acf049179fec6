/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/map.c: pages of code, and where linear addresses lead to. */
#include "backends/bt/bt.h"

/* ---- pages of code ---- */

static struct bt_page **bucket(struct bt *bt, uint64_t gpa, uint32_t mode)
{
    uint64_t x = (gpa ^ (uint64_t)mode << 52) * 0x9e3779b97f4a7c15ull;

    return &bt->pages[x >> (64 - BT_PAGE_BITS)];
}

static struct bt_page *alloc(struct bt *bt)
{
    struct bt_page *page = bt->free_pages;

    if (page)
        bt->free_pages = page->next;
    else if (bt->npages < X86_TIER_PAGES)
        page = &bt->page[bt->npages++];
    return page;
}

struct bt_page *bt_page_get(struct x86_cpu *cpu, struct bt *bt, const struct x86_block *b)
{
    uint64_t gpa = b->gpa & MMU_PAGE_MASK;
    struct bt_page **head = bucket(bt, gpa, b->mode), *page;

    for (page = *head; page; page = page->next)
        if (page->gpa == gpa && page->mode == b->mode) {
            page->ntrans++;
            return page;
        }
    page = alloc(bt);
    if (!page)
        return NULL;
    *page = (struct bt_page){.next = *head, .gpa = gpa, .mode = b->mode, .ntrans = 1};
    *head = page;
    cpu->tier_map[page - bt->page] = 0;
    return page;
}

void bt_page_put(struct bt *bt, struct bt_page *page)
{
    struct bt_page **p = bucket(bt, page->gpa, page->mode);

    if (--page->ntrans)
        return;
    while (*p != page)
        p = &(*p)->next;
    *p = page->next;
    page->next = bt->free_pages;
    bt->free_pages = page;
}

/* An element that is found although it is empty leads where the missing ones do. */
static void clear_targets(struct x86_target *table, unsigned n, const void *code)
{
    for (unsigned i = 0; i < n; i++)
        table[i] = (struct x86_target){0, code};
}

void bt_map_clear(struct x86_cpu *cpu, struct bt *bt)
{
    memset(bt->pages, 0, sizeof(bt->pages));
    bt->free_pages = NULL;
    bt->npages = BT_NO_PAGE + 1;
    cpu->tier_map[BT_NO_PAGE] = 0; /* nothing has the key 0: it has a mode in it */
    for (bt->nguards = 0; bt->nguards < MMU_GUARDS; bt->nguards++)
        bt->guard[bt->nguards] = (uint16_t)(MMU_GUARDS - 1 - bt->nguards);
    clear_targets(cpu->tier_return, X86_TIER_RETURNS, bt->stubs.jump);
    clear_targets(cpu->tier_target, X86_TIER_TARGETS, bt->stubs.jump);
}

/* ---- called by translated code ---- */

/* The translation at cpu->rip, when cpu->jump has nothing: if the fetch needs no walk, and there is
 * one, cpu->jump leads there from now on. */
static const struct bt_trans *find_anew(struct x86_cpu *cpu, struct bt *bt)
{
    struct mmu_code code;
    const struct bt_trans *t;

    if (!mmu_fetch_cached(&cpu->mmu, cpu->cpl == 3, cpu->rip, &code))
        return NULL;
    t = bt_link_find(bt, code.gpa, cpu->mode);
    if (!t || !x86_block_is_current(cpu, t->block))
        return NULL;
    x86_jump_set(cpu, cpu->rip, t->block, code.global);
    return t;
}

/* Or NULL: *out is where to go then. The page of a translation is known to be there. */
static const struct bt_trans *find(struct x86_cpu *cpu, struct bt *bt, const void **out)
{
    const struct x86_jump *j = &cpu->jump[x86_jump_index(cpu->rip)];
    const struct bt_trans *t;

    if (j->key == (cpu->rip ^ cpu->jump_key)) {
        t = bt_translation(j->blk);
        *out = bt->stubs.jump;
    } else {
        t = find_anew(cpu, bt);
        *out = bt->stubs.leave;
    }
    if (t)
        cpu->tier_map[t->page - bt->page] = (cpu->rip & MMU_PAGE_MASK) ^ cpu->link_key;
    return t;
}

const void *bt_fill(struct x86_cpu *cpu, const void *unused)
{
    struct bt *bt = cpu->tier_state;
    const void *out;
    const struct bt_trans *t = find(cpu, bt, &out);
    uint32_t hash = (uint32_t)cpu->rip * BT_HASH_FACTOR;

    (void)unused;
    if (!t)
        return out;
    cpu->tier_target[hash >> (32 - X86_TIER_TARGET_BITS)] = (struct x86_target){cpu->rip, t->far};
    return t->far;
}

const void *bt_bind(struct x86_cpu *cpu, const struct bt_link *link)
{
    struct bt *bt = cpu->tier_state;
    const void *out;
    const struct bt_trans *t = find(cpu, bt, &out);

    if (!t)
        return out;
    bt_link_bind(bt, (struct bt_link *)(bt->rw + ((const uint8_t *)link - bt->rx)), t);
    bt_serialize(bt);
    bt_count_code(cpu, bt);
    return t->far;
}
