/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/shadow_pool.c: records of shadow paging: where they come from, how they are found, and what
 * goes when there are too many. */
#include "mmu/shadow_impl.h"

#define PAGE 4096u

/* ---- memory ---- */

static void *page_take(struct shadow *sh)
{
    void **page = sh->cfg.pages->alloc(sh->cfg.pages->ctx, false);

    if (page) {
        *page = sh->pages;
        sh->pages = page;
    }
    return page;
}

static bool pool_grow(struct shadow *sh, struct pool *pool)
{
    char *page = page_take(sh);

    if (!page)
        return false;
    for (uint32_t at = 64; at + pool->size <= PAGE; at += pool->size) {
        void **record = (void **)(void *)(page + at);

        *record = pool->free;
        pool->free = record;
    }
    return true;
}

/* A record of zeros if there is room for one. */
static void *pool_try(struct shadow *sh, struct pool *pool)
{
    void **record;

    if (pool->used == pool->max || (!pool->free && !pool_grow(sh, pool)))
        return NULL;
    record = pool->free;
    pool->free = *record;
    pool->used++;
    return memset(record, 0, pool->size);
}

static void *pool_get(struct shadow *sh, struct pool *pool)
{
    void *record;

    while (!(record = pool_try(sh, pool)))
        if (!shadow_evict(sh))
            return NULL;
    return record;
}

static void pool_put(struct pool *pool, void *record)
{
    memcpy(record, &pool->free, sizeof(pool->free));
    pool->free = record;
    pool->used--;
}

/* ---- chains ---- */

static bool hash_init(struct shadow *sh, struct hash *h, uint32_t records)
{
    uint32_t n = PAGE / sizeof(struct link *);

    while (n < records && n < HASH_PAGES * PAGE / sizeof(struct link *))
        n *= 2;
    h->mask = n - 1;
    for (uint32_t i = 0; i < n / (PAGE / sizeof(struct link *)); i++) {
        h->page[i] = sh->cfg.pages->alloc(sh->cfg.pages->ctx, false);
        if (!h->page[i])
            return false;
    }
    return true;
}

static void hash_free(struct shadow *sh, struct hash *h)
{
    for (uint32_t i = 0; i < HASH_PAGES && h->page[i]; i++)
        sh->cfg.pages->free(sh->cfg.pages->ctx, h->page[i]);
}

static struct link **chain(struct hash *h, uint64_t key)
{
    uint32_t i;

    key *= 0x9e3779b97f4a7c15ull;
    i = (uint32_t)(key >> 32) & h->mask;
    return &h->page[i / (PAGE / sizeof(struct link *))][i % (PAGE / sizeof(struct link *))];
}

struct link **shadow_gpa_chain(struct shadow *sh, uint64_t gpa, bool large)
{
    return chain(&sh->gpa_hash, large ? gpa >> 21 | 1ull << 60 : gpa >> 12);
}

static struct link **node_chain(struct shadow *sh, const struct shadow_node *parent,
                                uint64_t linear)
{
    return chain(&sh->node_hash, (uint64_t)(uintptr_t)parent + (linear >> 12));
}

static struct link **map_chain(struct shadow *sh, const struct shadow_node *node, uint64_t linear)
{
    return chain(&sh->map_hash, (uint64_t)(uintptr_t)node + (linear >> 12));
}

static uint64_t node_start(const struct shadow_space *space, unsigned level, uint64_t linear)
{
    unsigned shift = shadow_shift(level + 1, shadow_two_level(space));

    return linear >> shift << shift;
}

struct shadow_node *shadow_node_find(struct shadow *sh, const struct shadow_node *parent,
                                     uint64_t linear)
{
    linear = node_start(parent->space, parent->level - 1u, linear);
    for (struct link *l = *node_chain(sh, parent, linear); l; l = l->next) {
        struct shadow_node *n = LINKED(struct shadow_node, hash, l);

        if (n->parent == parent && n->linear == linear)
            return n;
    }
    return NULL;
}

struct shadow_map *shadow_map_find(struct shadow *sh, const struct shadow_node *node,
                                   uint64_t linear, bool large)
{
    linear &= large ? ~0x1fffffull : MMU_PAGE_MASK;
    for (struct link *l = *map_chain(sh, node, linear); l; l = l->next) {
        struct shadow_map *m = LINKED(struct shadow_map, hash, l);

        if (m->node == node && m->linear == linear && m->large == large)
            return m;
    }
    return NULL;
}

struct shadow_map *shadow_lookup(struct shadow *sh, struct shadow_space *space, uint64_t linear)
{
    struct shadow_node *n = space->root;
    struct shadow_map *m;

    while (n && n->level > 1 && !n->direct)
        n = shadow_node_find(sh, n, linear);
    if (!n)
        return NULL;
    m = shadow_map_find(sh, n, linear, false);
    return !m && n->direct ? shadow_map_find(sh, n, linear, true) : m;
}

struct shadow_table *shadow_table_find(struct shadow *sh, uint64_t gpa)
{
    gpa &= MMU_PAGE_MASK;
    for (struct link *l = *chain(&sh->table_hash, gpa); l; l = l->next) {
        struct shadow_table *t = LINKED(struct shadow_table, hash, l);

        if (t->gpa == gpa)
            return t;
    }
    return NULL;
}

/* ---- tables ---- */

/* The record of a guest table. A new one is in sync: nothing writes it unseen from here on. */
static struct shadow_table *table_get(struct shadow *sh, uint64_t gpa)
{
    struct shadow_table *t = shadow_table_find(sh, gpa);

    if (t)
        return t;
    t = pool_get(sh, &sh->tables);
    if (!t)
        return NULL;
    t->gpa = gpa & MMU_PAGE_MASK;
    link_in(chain(&sh->table_hash, t->gpa), &t->hash);
    shadow_watch(sh, t, true);
    shadow_protect_page(sh, t->gpa);
    return t;
}

void shadow_table_put(struct shadow *sh, struct shadow_table *t)
{
    if (t->nodes || t->busy)
        return;
    link_out(&t->hash);
    if (t->unsync)
        link_out(&t->unsynced);
    shadow_watch(sh, t, false);
    pool_put(&sh->tables, t);
}

/* ---- nodes ---- */

static void lru_out(struct shadow_node *n)
{
    n->lru_prev->lru_next = n->lru_next;
    n->lru_next->lru_prev = n->lru_prev;
}

static void lru_in(struct shadow *sh, struct shadow_node *n)
{
    n->lru_next = sh->lru.lru_next;
    n->lru_prev = &sh->lru;
    n->lru_next->lru_prev = n;
    sh->lru.lru_next = n;
}

void shadow_node_touch(struct shadow *sh, struct shadow_node *node)
{
    lru_out(node);
    lru_in(sh, node);
}

static struct shadow_node *node_new(struct shadow *sh, struct shadow_space *space, bool has_table,
                                    uint64_t table_gpa)
{
    struct shadow_node *n = pool_get(sh, &sh->nodes);
    struct shadow_table *t = NULL;

    if (n && has_table) {
        t = table_get(sh, table_gpa);
        if (!t) {
            pool_put(&sh->nodes, n);
            return NULL;
        }
    }
    if (!n)
        return NULL;
    n->space = space;
    n->table = t;
    if (t)
        link_in(&t->nodes, &n->in_table);
    lru_in(sh, n);
    return n;
}

struct shadow_node *shadow_node_new(struct shadow *sh, struct shadow_node *parent, unsigned level,
                                    uint64_t linear, bool direct, uint64_t table_gpa)
{
    struct shadow_node *n = node_new(sh, parent->space, !direct, table_gpa);

    if (!n)
        return NULL;
    n->parent = parent;
    n->level = (uint8_t)level;
    n->direct = direct;
    n->linear = node_start(parent->space, level, linear);
    link_in(&parent->children, &n->sibling);
    link_in(node_chain(sh, parent, n->linear), &n->hash);
    return n;
}

void shadow_node_empty(struct shadow *sh, struct shadow_node *node)
{
    while (node->maps)
        shadow_map_drop(sh, LINKED(struct shadow_map, in_node, node->maps));
    while (node->children)
        shadow_node_drop(sh, LINKED(struct shadow_node, sibling, node->children));
}

void shadow_node_drop(struct shadow *sh, struct shadow_node *node)
{
    shadow_node_empty(sh, node);
    lru_out(node);
    if (node->parent) {
        link_out(&node->sibling);
        link_out(&node->hash);
    }
    if (node->table) {
        link_out(&node->in_table);
        shadow_table_put(sh, node->table);
    }
    pool_put(&sh->nodes, node);
}

/* ---- maps ---- */

struct shadow_map *shadow_map_new(struct shadow *sh, struct shadow_node *node, uint64_t linear,
                                  uint64_t gpa, bool large)
{
    struct shadow_map *m = pool_get(sh, &sh->maps);

    /* The node's own maps, if it has them all. */
    if (!m && node->maps) {
        while (node->maps)
            shadow_map_drop(sh, LINKED(struct shadow_map, in_node, node->maps));
        m = pool_get(sh, &sh->maps);
    }
    if (!m)
        return NULL;
    m->node = node;
    m->linear = linear;
    m->gpa = gpa;
    m->large = large;
    link_in(&node->maps, &m->in_node);
    link_in(map_chain(sh, node, linear), &m->hash);
    link_in(shadow_gpa_chain(sh, gpa, large), &m->by_gpa);
    return m;
}

void shadow_map_drop(struct shadow *sh, struct shadow_map *map)
{
    if (map->mapped) {
        sh->cfg.sink->unmap(sh->cfg.sink_ctx, map->node->space->sink, map->linear,
                            map->large ? 0x200000 : MMU_PAGE_SIZE);
        sh->stale = true;
    }
    link_out(&map->in_node);
    link_out(&map->hash);
    link_out(&map->by_gpa);
    pool_put(&sh->maps, map);
}

/* ---- spaces ---- */

/* Makes room for one more: the one that was loaded the longest time ago goes. */
static bool evict_space(struct shadow *sh)
{
    struct shadow_space *oldest = NULL;

    for (struct link *l = sh->all_spaces; l; l = l->next) {
        struct shadow_space *s = LINKED(struct shadow_space, all, l);

        if (!s->current && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    if (oldest)
        shadow_space_drop(sh, oldest);
    return oldest;
}

struct shadow_space *shadow_space_new(struct shadow *sh, const struct shadow_role *role)
{
    unsigned paging = role->bits & 3;
    struct shadow_space *s;

    while (!(s = pool_try(sh, &sh->spaces)))
        if (!evict_space(sh))
            return NULL;
    s->role = *role;
    s->current = 1; /* not to be evicted while it is made */
    link_in(&sh->all_spaces, &s->all);
    s->root = node_new(sh, s, paging == MMU_PAGING_32 || paging == MMU_PAGING_4LEVEL, role->root);
    while (s->root && !(s->sink = sh->cfg.sink->space_new(sh->cfg.sink_ctx, role->bits >> 31))) {
        if (!shadow_evict(sh))
            break;
        shadow_flush(sh);
    }
    s->current = 0;
    if (!s->root || !s->sink) {
        shadow_space_drop(sh, s);
        return NULL;
    }
    s->root->level = paging == MMU_PAGING_32     ? 2
                     : paging == MMU_PAGING_PAE  ? 3
                     : paging == MMU_PAGING_NONE ? 0
                                                 : 4;
    s->root->direct = paging == MMU_PAGING_NONE;
    return s;
}

void shadow_space_drop(struct shadow *sh, struct shadow_space *space)
{
    struct shadow_space **slot;

    if (space->root)
        shadow_node_drop(sh, space->root);
    if (space->sink) {
        sh->cfg.sink->space_free(sh->cfg.sink_ctx, space->sink);
        sh->stale = true;
    }
    slot = shadow_role_slot(sh, &space->role);
    if (*slot == space)
        *slot = NULL;
    link_out(&space->all);
    pool_put(&sh->spaces, space);
}

/* ---- eviction ---- */

/*
 * A node is touched when a fault goes through it, those above after those below: so what is last in
 * the ring has nothing below that was used later. Roots of spaces that are loaded stay, and nodes
 * that are being worked on, with those above them.
 */
bool shadow_evict(struct shadow *sh)
{
    for (struct shadow_node *n = sh->lru.lru_prev; n != &sh->lru; n = n->lru_prev) {
        if (n->pinned)
            continue;
        if (n->parent) {
            shadow_node_drop(sh, n);
        } else if (!n->space->current) {
            shadow_space_drop(sh, n->space);
        } else if (n->maps) {
            shadow_node_empty(sh, n);
        } else {
            continue;
        }
        sh->counts.evictions++;
        return true;
    }
    return false;
}

/* ---- all of it ---- */

bool shadow_pools_init(struct shadow *sh)
{
    const struct shadow_config *c = &sh->cfg;

    sh->spaces = (struct pool){.size = sizeof(struct shadow_space), .max = c->max_spaces};
    sh->nodes = (struct pool){.size = sizeof(struct shadow_node), .max = c->max_nodes};
    sh->tables = (struct pool){.size = sizeof(struct shadow_table), .max = c->max_nodes};
    sh->maps = (struct pool){.size = sizeof(struct shadow_map), .max = c->max_maps};
    sh->lru.lru_next = sh->lru.lru_prev = &sh->lru;
    return hash_init(sh, &sh->node_hash, c->max_nodes) &&
           hash_init(sh, &sh->table_hash, c->max_nodes) &&
           hash_init(sh, &sh->map_hash, c->max_maps) && hash_init(sh, &sh->gpa_hash, c->max_maps);
}

void shadow_pools_free(struct shadow *sh)
{
    while (sh->all_spaces)
        shadow_space_drop(sh, LINKED(struct shadow_space, all, sh->all_spaces));
    shadow_flush(sh);
    hash_free(sh, &sh->node_hash);
    hash_free(sh, &sh->table_hash);
    hash_free(sh, &sh->map_hash);
    hash_free(sh, &sh->gpa_hash);
    while (sh->pages) {
        void *page = sh->pages;

        memcpy(&sh->pages, page, sizeof(sh->pages));
        sh->cfg.pages->free(sh->cfg.pages->ctx, page);
    }
}
