/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/shadow_impl.h: the records of shadow paging, private to src/mmu/shadow*.c.
 *
 * A space belongs to one root of the guest's and one set of mode bits. It is a tree of nodes: each
 * stands for one guest table at one place of the address space, or for one large page (direct), and
 * has child nodes and maps, each with the value of the guest's entry that it was made from. A map
 * is one page in the sink.
 *
 * A guest table that nodes stand for is write-protected (in sync), or writable and in the list of
 * those to compare at the next load of CR3 (out of sync). */
#ifndef MMU_SHADOW_IMPL_H
#define MMU_SHADOW_IMPL_H

#include <string.h>

#include "mmu/shadow.h"
#include "mmu/walk.h"

/* Doubly linked lists and hash chains: *at points to the record. */
struct link {
    struct link *next, **at;
};

#define LINKED(type, member, l) ((type *)(void *)((char *)(l)-offsetof(type, member)))

static inline void link_in(struct link **head, struct link *l)
{
    l->next = *head;
    l->at = head;
    if (l->next)
        l->next->at = &l->next;
    *head = l;
}

static inline void link_out(struct link *l)
{
    if (l->next)
        l->next->at = l->at;
    *l->at = l->next;
}

struct shadow_role {
    uint64_t root;     /* 32-bit and 4-level paging */
    uint64_t pdpte[4]; /* PAE */
    uint32_t pkru;     /* if the sink has no protection keys and the guest does */
    uint32_t bits;     /* paging mode, WP, NXE, ... */
};

struct shadow_table { /* a page of guest tables */
    struct link hash, unsynced;
    struct link *nodes;
    uint64_t gpa;
    bool unsync, busy;
    bool hot; /* not protected again: it is written too often */
    uint8_t heat;
};

struct shadow_node {
    struct link hash, in_table, sibling;
    struct shadow_node *lru_next, *lru_prev;
    struct shadow_space *space;
    struct shadow_node *parent;
    struct shadow_table *table; /* NULL: direct, or page-directory pointers */
    struct link *children, *maps;
    uint64_t linear; /* where it begins */
    uint64_t value;  /* of the entry above */
    uint64_t pass;   /* when it was compared last */
    uint8_t level;   /* of its entries: 1 maps pages of 4 KiB */
    bool direct, pinned;
};

struct shadow_map {
    struct link hash, by_gpa, in_node;
    struct shadow_node *node;
    uint64_t linear, gpa;
    uint64_t value; /* of the guest's entry; not in direct nodes */
    uint8_t rights, pkey;
    bool large;
    bool mapped; /* in the sink */
};

struct shadow_space {
    struct link all;
    struct shadow_role role;
    struct shadow_node *root;
    void *sink;
    uint64_t used;    /* stamp of the last load */
    uint32_t current; /* vCPUs that have it loaded */
};

/* Records of one size, from whole pages. */
struct pool {
    uint32_t size, used, max;
    void *free;
};

#define HASH_PAGES 64u
struct hash {
    struct link **page[HASH_PAGES];
    uint32_t mask;
};

#define SHADOW_ROLES 64u

struct shadow {
    struct shadow_config cfg;
    struct pool spaces, nodes, maps, tables;
    void *pages; /* all that the pools have taken; linked by the first word */
    struct hash node_hash, map_hash, gpa_hash, table_hash;
    struct shadow_node lru; /* a ring: lru_next is the most recently used */
    struct link *all_spaces, *unsynced;
    struct shadow_space *by_role[SHADOW_ROLES]; /* found last, by shadow_role_slot; NULL: none */
    struct shadow_vcpu *vcpus;
    const struct mmu_env *env; /* of any vCPU */
    uint64_t stamp, pass;
    bool stale; /* something was taken away since the last flush */
    struct shadow_counts counts;
};

/* How many address bits an entry of a level translates. */
static inline unsigned shadow_shift(unsigned level, bool two_level)
{
    return 12 + (level - 1) * (two_level ? 10 : 9);
}

static inline bool shadow_two_level(const struct shadow_space *space)
{
    return (space->role.bits & 3) == MMU_PAGING_32;
}

static inline struct shadow_space **shadow_role_slot(struct shadow *sh,
                                                     const struct shadow_role *role)
{
    uint64_t key = role->root ^ role->pdpte[0] ^ (uint64_t)role->bits << 12;

    return &sh->by_role[(key >> 12 ^ key >> 18 ^ key >> 24) % SHADOW_ROLES];
}

/* ---- shadow_pool.c: records ---- */

bool shadow_pools_init(struct shadow *sh);
void shadow_pools_free(struct shadow *sh);

/* NULL: no memory, even after eviction. */
struct shadow_space *shadow_space_new(struct shadow *sh, const struct shadow_role *role);
struct shadow_node *shadow_node_new(struct shadow *sh, struct shadow_node *parent, unsigned level,
                                    uint64_t linear, bool direct, uint64_t table_gpa);
struct shadow_map *shadow_map_new(struct shadow *sh, struct shadow_node *node, uint64_t linear,
                                  uint64_t gpa, bool large);

void shadow_space_drop(struct shadow *sh, struct shadow_space *space);
/* With all below. */
void shadow_node_drop(struct shadow *sh, struct shadow_node *node);
void shadow_map_drop(struct shadow *sh, struct shadow_map *map);
/* All that a node has, but not the node. */
void shadow_node_empty(struct shadow *sh, struct shadow_node *node);

struct shadow_node *shadow_node_find(struct shadow *sh, const struct shadow_node *parent,
                                     uint64_t linear);
struct shadow_map *shadow_map_find(struct shadow *sh, const struct shadow_node *node,
                                   uint64_t linear, bool large);
/* What maps a linear address now, or NULL. */
struct shadow_map *shadow_lookup(struct shadow *sh, struct shadow_space *space, uint64_t linear);
struct shadow_table *shadow_table_find(struct shadow *sh, uint64_t gpa);
void shadow_table_put(struct shadow *sh, struct shadow_table *t); /* frees it if it has no nodes */

void shadow_node_touch(struct shadow *sh, struct shadow_node *node);
/* Removes what was used least recently; false: there is nothing that may go. */
bool shadow_evict(struct shadow *sh);

/* The chains of maps by guest-physical address. */
struct link **shadow_gpa_chain(struct shadow *sh, uint64_t gpa, bool large);

/* ---- shadow_sync.c: guest tables ---- */

/* Takes the right to write away from all that maps the page. */
void shadow_protect_page(struct shadow *sh, uint64_t gpa);
void shadow_unsync(struct shadow *sh, struct shadow_table *t);
void shadow_resync(struct shadow *sh, struct shadow_space *space);
/* Whether what was made from an entry still holds. Takes over bits that the CPU has set since. */
bool shadow_same(uint64_t *was, uint64_t now);

static inline void shadow_watch(struct shadow *sh, const struct shadow_table *t, bool on)
{
    if (sh->cfg.watch)
        sh->cfg.watch(sh->cfg.ctx, t->gpa, on);
}

static inline void shadow_flush(struct shadow *sh)
{
    if (sh->stale)
        sh->cfg.sink->flush(sh->cfg.sink_ctx);
    sh->stale = false;
}

#endif
