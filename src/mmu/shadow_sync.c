/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/shadow_sync.c: guest tables that change: write protection, out-of-sync tables, comparison. */
#include "mmu/shadow_impl.h"

#define PTE_A 0x20u
#define PTE_D 0x40u

/* An event makes a table this much hotter, and a comparison without a difference cools it by 1. */
#define HEAT_WRITE 3u
#define HEAT_HOT   12u

void shadow_protect_page(struct shadow *sh, uint64_t gpa)
{
    struct link *l, *next;

    gpa &= MMU_PAGE_MASK;
    for (l = *shadow_gpa_chain(sh, gpa, false); l; l = l->next) {
        struct shadow_map *m = LINKED(struct shadow_map, by_gpa, l);

        if (m->large || m->gpa != gpa || !(m->rights & SINK_W))
            continue;
        m->rights &= (uint8_t)~SINK_W;
        sh->cfg.sink->protect(sh->cfg.sink_ctx, m->node->space->sink, m->linear, MMU_PAGE_SIZE,
                              m->rights);
        sh->stale = true;
    }
    /* Large ones go: the next fault maps what is needed of them. */
    for (l = *shadow_gpa_chain(sh, gpa, true); l; l = next) {
        struct shadow_map *m = LINKED(struct shadow_map, by_gpa, l);

        next = l->next;
        if (m->large && m->gpa == (gpa & ~0x1fffffull))
            shadow_map_drop(sh, m);
    }
}

void shadow_unsync(struct shadow *sh, struct shadow_table *t)
{
    if (t->unsync)
        return;
    t->unsync = true;
    shadow_watch(sh, t, false);
    link_in(&sh->unsynced, &t->unsynced);
    sh->counts.unsyncs++;
    t->heat += HEAT_WRITE;
    if (t->heat >= HEAT_HOT)
        t->hot = true;
}

bool shadow_same(uint64_t *was, uint64_t now)
{
    if (*was == now)
        return true;
    if ((*was ^ now) & ~(uint64_t)(PTE_A | PTE_D) || *was & ~now)
        return false;
    *was = now;
    return true;
}

static uint64_t entry_of(const struct shadow_node *n, const uint8_t *table, uint64_t linear)
{
    bool two = shadow_two_level(n->space);
    unsigned i = (unsigned)(linear >> shadow_shift(n->level, two)) & (two ? 1023 : 511);

    if (two)
        return atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)table + i, memory_order_relaxed);
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)table + i, memory_order_relaxed);
}

/* Drops what differs from the guest's table now; whether anything did. */
static bool compare(struct shadow *sh, struct shadow_node *n)
{
    struct mmu_page page;
    struct link *l, *next;
    bool differs = false;

    if (!sh->env->page(sh->env->ctx, n->table->gpa, &page)) {
        shadow_node_empty(sh, n);
        return true;
    }
    for (l = n->maps; l; l = next) {
        struct shadow_map *m = LINKED(struct shadow_map, in_node, l);

        next = l->next;
        if (shadow_same(&m->value, entry_of(n, page.host, m->linear)))
            continue;
        shadow_map_drop(sh, m);
        sh->counts.dropped++;
        differs = true;
    }
    for (l = n->children; l; l = next) {
        struct shadow_node *c = LINKED(struct shadow_node, sibling, l);

        next = l->next;
        if (shadow_same(&c->value, entry_of(n, page.host, c->linear)))
            continue;
        shadow_node_drop(sh, c);
        sh->counts.dropped++;
        differs = true;
    }
    return differs;
}

/* The next node of a table that this pass has not come to yet. Comparing one may drop others. */
static struct shadow_node *next_node(struct shadow *sh, struct shadow_table *t,
                                     const struct shadow_space *only)
{
    for (struct link *l = t->nodes; l; l = l->next) {
        struct shadow_node *n = LINKED(struct shadow_node, in_table, l);

        if (n->pass != sh->pass && (!only || n->space == only))
            return n;
    }
    return NULL;
}

/* Compares the nodes of a table: all, or for one that stays writable those of the space. */
static void compare_table(struct shadow *sh, struct shadow_table *t,
                          const struct shadow_space *space)
{
    struct shadow_node *n;
    bool differs = false;

    sh->pass++;
    sh->counts.resyncs++;
    t->busy = true;
    while ((n = next_node(sh, t, t->hot ? space : NULL))) {
        n->pass = sh->pass;
        differs |= compare(sh, n);
        /* Perhaps it is no table any more: let it be written in peace. */
        if (!n->maps && !n->children && n->parent && !n->pinned)
            shadow_node_drop(sh, n);
    }
    t->busy = false;
    if (differs)
        t->heat = t->hot ? HEAT_HOT : t->heat;
    else if (t->heat)
        t->heat--;
    if (!t->heat)
        t->hot = false;
    shadow_table_put(sh, t);
}

/* Tables that are to be in sync again are protected first, and compared when no vCPU can write them
 * any more. Comparing may free tables, this one's or others', so that the list begins anew. */
void shadow_resync(struct shadow *sh, struct shadow_space *space)
{
    struct link *l, *hot = NULL;

    for (l = sh->unsynced; l; l = l->next) {
        struct shadow_table *t = LINKED(struct shadow_table, unsynced, l);

        if (t->hot)
            continue;
        shadow_watch(sh, t, true);
        shadow_protect_page(sh, t->gpa);
    }
    shadow_flush(sh);
    while ((l = sh->unsynced)) {
        struct shadow_table *t = LINKED(struct shadow_table, unsynced, l);

        link_out(&t->unsynced);
        if (t->hot) {
            link_in(&hot, &t->unsynced);
        } else {
            t->unsync = false;
        }
        compare_table(sh, t, space);
    }
    sh->unsynced = hot;
    if (hot)
        hot->at = &sh->unsynced;
    shadow_flush(sh);
}

void shadow_invlpg(struct shadow_vcpu *sv, uint64_t linear)
{
    struct shadow *sh = sv->shadow;
    struct shadow_node *n = sv->space ? sv->space->root : NULL;
    struct mmu_page page;

    while (n && !n->direct) {
        struct shadow_node *c = n->level > 1 ? shadow_node_find(sh, n, linear) : NULL;
        struct shadow_map *m = n->level == 1 ? shadow_map_find(sh, n, linear, false) : NULL;

        if (n->table && (c || m)) {
            bool there = sh->env->page(sh->env->ctx, n->table->gpa, &page);
            uint64_t now = there ? entry_of(n, page.host, linear) : 0;

            if (!there || !shadow_same(c ? &c->value : &m->value, now)) {
                sh->counts.dropped++;
                if (c)
                    shadow_node_drop(sh, c);
                else
                    shadow_map_drop(sh, m);
                break;
            }
        }
        n = c;
    }
    shadow_flush(sh);
}

bool shadow_invlpg_holds(const struct shadow_vcpu *sv, uint64_t linear)
{
    struct shadow *sh = sv->shadow;
    struct shadow_node *n = sv->space ? sv->space->root : NULL;
    struct mmu_page page;

    while (n && !n->direct) {
        struct shadow_node *c = n->level > 1 ? shadow_node_find(sh, n, linear) : NULL;
        struct shadow_map *m = n->level == 1 ? shadow_map_find(sh, n, linear, false) : NULL;

        if (n->table && (c || m)) {
            uint64_t was = c ? c->value : m->value;

            if (!sh->env->page(sh->env->ctx, n->table->gpa, &page) ||
                !shadow_same(&was, entry_of(n, page.host, linear)))
                return false;
        }
        n = c;
    }
    return !sh->stale;
}

void shadow_written(struct shadow *sh, uint64_t gpa, uint64_t len)
{
    uint64_t last = gpa + len - 1;

    if (!len)
        return;
    if (len >> MMU_PAGE_SHIFT > sh->tables.used) {
        /* Rather each table than each page. */
        for (struct shadow_node *n = sh->lru.lru_next; n != &sh->lru; n = n->lru_next)
            if (n->table && n->table->gpa <= last && (n->table->gpa | 0xfff) >= gpa)
                shadow_unsync(sh, n->table);
        return;
    }
    for (uint64_t at = gpa & MMU_PAGE_MASK;
         at - (gpa & MMU_PAGE_MASK) <= last - (gpa & MMU_PAGE_MASK); at += MMU_PAGE_SIZE) {
        struct shadow_table *t = shadow_table_find(sh, at);

        if (t)
            shadow_unsync(sh, t);
    }
}

/* The nodes whose maps may lie in a long range: all. */
static void each_map(struct shadow *sh, uint64_t gpa, uint64_t last, bool drop)
{
    for (struct shadow_node *n = sh->lru.lru_next; n != &sh->lru; n = n->lru_next) {
        struct link *next;

        for (struct link *l = n->maps; l; l = next) {
            struct shadow_map *m = LINKED(struct shadow_map, in_node, l);

            next = l->next;
            if (m->gpa > last || (m->gpa | (m->large ? 0x1fffff : 0xfff)) < gpa)
                continue;
            if (drop || m->large) {
                shadow_map_drop(sh, m);
            } else if (m->rights & SINK_W) {
                m->rights &= (uint8_t)~SINK_W;
                sh->cfg.sink->protect(sh->cfg.sink_ctx, n->space->sink, m->linear, MMU_PAGE_SIZE,
                                      m->rights);
                sh->stale = true;
            }
        }
    }
}

void shadow_protect_gpa(struct shadow *sh, uint64_t gpa, uint64_t len)
{
    uint64_t pages = ((gpa & 0xfff) + len + 0xfff) >> MMU_PAGE_SHIFT;

    if (pages > sh->maps.used)
        each_map(sh, gpa, gpa + len - 1, false);
    else
        for (uint64_t i = 0; i < pages; i++)
            shadow_protect_page(sh, gpa + i * MMU_PAGE_SIZE);
    shadow_flush(sh);
}

/* Tables that are no memory any more, too: what was made from them goes. Those that stay are other
 * memory now, which nobody watches yet. */
void shadow_unmap_gpa(struct shadow *sh, uint64_t gpa, uint64_t len)
{
    if (!len)
        return;
    each_map(sh, gpa, gpa + len - 1, true);
    for (struct shadow_node *n = sh->lru.lru_next; n != &sh->lru;) {
        bool there = n->table && n->table->gpa <= gpa + len - 1 && (n->table->gpa | 0xfff) >= gpa;

        if (there)
            shadow_unsync(sh, n->table);
        if (!there || (!n->maps && !n->children)) {
            n = n->lru_next;
            continue;
        }
        shadow_node_empty(sh, n);
        n = sh->lru.lru_next; /* others have gone with it */
    }
    shadow_flush(sh);
}
