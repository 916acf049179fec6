/* SPDX-License-Identifier: BSD-2-Clause */
/* core/mem_map.h: the guest-physical memory map, for memory.c and mem_access.c. */
#ifndef CORE_MEM_MAP_H
#define CORE_MEM_MAP_H

#include "core/internal.h"

#define MEM_PAGE_SHIFT 12
#define MEM_PAGE_SIZE  4096ull

enum mem_kind {
    MEM_BORROWED, /* the caller's */
    MEM_PAGES,    /* from os_pages_alloc, os_pages_alloc_fd or os_pages_map_fd */
};

struct mem_region {
    uint64_t gpa;
    uint64_t len;
    uint8_t *host;
    uint32_t prot; /* VMM_MEM_* */
    enum mem_kind kind;
    bool host_ro;           /* the host itself may not write: a file opened for reading */
    int fd;                 /* our own, of the file that `host` maps; -1: none */
    uint64_t fd_offset;     /* of the region in that file */
    _Atomic uint64_t *code; /* one per page, see struct core_page */
    _Atomic uint8_t *dirty; /* one per page; NULL while dirty tracking is off */
};

/* Sorted by address; replaced as a whole when regions come. */
struct mem_map {
    _Atomic uint32_t hit; /* the region found last; a hint */
    uint32_t n;
    struct mem_region r[];
};

/* The region that holds `gpa`, or NULL. In guest state, with the world stopped or mem_lock held. */
struct mem_region *mem_find(struct mem_map *map, uint64_t gpa);

/* The bytes of dirty tracking, all clean. World stopped; mem_lock held if the region is in the map.
 * 0 or VMM_E_NOMEM. */
int mem_dirty_alloc(struct mem_region *r);
void mem_dirty_free(struct mem_region *r);

#endif
