/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/sink_x86.c: page tables for the hardware: 4-level ones, or PAE ones for guests that are not
 * in long mode.
 *
 * A table goes with its last entry; its page is used again after the next flush only, as processors
 * may keep pointers to tables. The four page directories of a PAE space are made with it, as the
 * processor reads the pointers to them only at VM entries. */
#include <stddef.h>
#include <string.h>

#include "mmu/sink.h"

#define PTE_P          1u
#define PTE_W          2u
#define PTE_U          4u
#define PTE_A          0x20u
#define PTE_D          0x40u
#define PTE_PS         0x80u
#define PTE_NX         (1ull << 63)
#define PTE_PKEY_SHIFT 59
#define ADDR           0x000ffffffffff000ull

struct space {
    uint64_t *root;
    unsigned levels; /* 4, or 3 with PAE */
};

static void *page_new(struct sink_x86 *x, bool low)
{
    void *page;

    if (x->tables >= x->max_tables)
        return NULL;
    page = x->pages->alloc(x->pages->ctx, low);
    if (page)
        x->tables++;
    return page;
}

static void page_free(struct sink_x86 *x, void *page)
{
    x->pages->free(x->pages->ctx, page);
    x->tables--;
}

/* Frees what has waited; translations through it cannot be used any more. */
static void flush(void *ctx)
{
    struct sink_x86 *x = ctx;

    x->flush(x->ctx);
    while (x->pending) {
        void *page = x->pending;

        memcpy(&x->pending, page, sizeof(x->pending));
        page_free(x, page);
    }
}

/* The page is empty, and the link's low bit is clear: not present, if it is read as an entry. */
static void retire(struct sink_x86 *x, uint64_t *table)
{
    __atomic_store_n(&table[0], (uint64_t)(uintptr_t)x->pending, __ATOMIC_RELAXED);
    x->pending = table;
}

static void set(uint64_t *entry, uint64_t value)
{
    __atomic_store_n(entry, value, __ATOMIC_RELEASE);
}

static uint64_t *child(struct sink_x86 *x, uint64_t entry)
{
    return x->pages->virt(x->pages->ctx, entry & ADDR);
}

static unsigned index_of(uint64_t linear, unsigned level)
{
    return linear >> (12 + 9 * (level - 1)) & 511;
}

static bool is_empty(const uint64_t *table)
{
    for (unsigned i = 0; i < 512; i++)
        if (table[i])
            return false;
    return true;
}

/* ---- spaces ---- */

static void *space_new(void *ctx, bool long_mode)
{
    struct sink_x86 *x = ctx;
    struct space *s = page_new(x, false);
    unsigned made = 0;

    if (!s)
        return NULL;
    s->levels = long_mode ? 4 : 3;
    s->root = page_new(x, !long_mode);
    for (; s->root && !long_mode && made < 4; made++) {
        uint64_t *table = page_new(x, false);

        if (!table)
            break;
        s->root[made] = x->pages->phys(x->pages->ctx, table) | PTE_P;
    }
    if (s->root && (long_mode || made == 4))
        return s;
    while (made--)
        page_free(x, child(x, s->root[made]));
    if (s->root)
        page_free(x, s->root);
    page_free(x, s);
    return NULL;
}

static void space_free(void *ctx, void *space)
{
    struct sink_x86 *x = ctx;
    struct space *s = space;

    for (unsigned i = 0; s->levels == 3 && i < 4; i++) {
        retire(x, child(x, s->root[i]));
        set(&s->root[i], 0);
    }
    retire(x, s->root);
    page_free(x, s);
}

uint64_t sink_x86_cr3(const struct sink_x86 *x, const void *space)
{
    return x->pages->phys(x->pages->ctx, ((const struct space *)space)->root);
}

/* ---- mappings ---- */

static uint64_t entry_for(unsigned rights)
{
    return PTE_P | PTE_A | (rights & SINK_W ? PTE_W | PTE_D : 0) | (rights & SINK_U ? PTE_U : 0) |
           (rights & SINK_X ? 0 : PTE_NX);
}

/* Takes out the tables on the way to `linear` that are empty, from the lowest. */
static void prune(struct sink_x86 *x, const struct space *s, uint64_t linear)
{
    uint64_t *at[4], *table = s->root;
    unsigned level, n = 0;

    for (level = s->levels; level > 1; level--) {
        at[n] = &table[index_of(linear, level)];
        if (!(*at[n] & PTE_P) || (*at[n] & PTE_PS))
            break;
        table = child(x, *at[n++]);
    }
    /* Page directories with PAE stay. */
    while (n > (s->levels == 3 ? 1 : 0)) {
        uint64_t *e = at[--n];

        table = child(x, *e);
        if (!is_empty(table))
            return;
        set(e, 0);
        retire(x, table);
    }
}

static bool map(void *ctx, void *space, const struct sink_page *page)
{
    struct sink_x86 *x = ctx;
    const struct space *s = space;
    unsigned leaf = page->size > 4096 ? 2 : 1;
    uint64_t *table = s->root;

    for (unsigned level = s->levels; level > leaf; level--) {
        uint64_t *e = &table[index_of(page->linear, level)];

        if (!*e) {
            uint64_t *t = page_new(x, false);

            if (!t) {
                prune(x, s, page->linear);
                return false;
            }
            set(e, x->pages->phys(x->pages->ctx, t) | PTE_P | PTE_W | PTE_U | PTE_A);
        }
        table = child(x, *e);
    }
    set(&table[index_of(page->linear, leaf)],
        x->pages->phys(x->pages->ctx, page->host) | entry_for(page->rights) |
            (leaf > 1 ? PTE_PS : 0) | (uint64_t)page->pkey << PTE_PKEY_SHIFT);
    return true;
}

/* The entry of a mapped page. */
static uint64_t *find(struct sink_x86 *x, const struct space *s, uint64_t linear, uint64_t size)
{
    unsigned leaf = size > 4096 ? 2 : 1;
    uint64_t *table = s->root;

    for (unsigned level = s->levels; level > leaf; level--)
        table = child(x, table[index_of(linear, level)]);
    return &table[index_of(linear, leaf)];
}

static void protect(void *ctx, void *space, uint64_t linear, uint64_t size, unsigned rights)
{
    uint64_t *e = find(ctx, space, linear, size);

    set(e, (*e & ~(PTE_W | PTE_D | PTE_U | PTE_NX)) | entry_for(rights));
}

static void unmap(void *ctx, void *space, uint64_t linear, uint64_t size)
{
    set(find(ctx, space, linear, size), 0);
    prune(ctx, space, linear);
}

const struct sink_ops *sink_x86(struct sink_x86 *x)
{
    x->ops = (struct sink_ops){.features = (x->large ? SINK_LARGE : 0) | (x->pkey ? SINK_PKEY : 0) |
                                           (x->smep ? SINK_SMEP : 0) | (x->smap ? SINK_SMAP : 0),
                               .space_new = space_new,
                               .space_free = space_free,
                               .map = map,
                               .protect = protect,
                               .unmap = unmap,
                               .flush = flush};
    return &x->ops;
}
