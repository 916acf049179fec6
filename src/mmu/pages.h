/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/pages.h: where tables that the hardware reads come from. */
#ifndef MMU_PAGES_H
#define MMU_PAGES_H

#include <stdbool.h>
#include <stdint.h>

/* Pages of 4 KiB, aligned. Called with whatever lock the caller of the module holds. */
struct mmu_pages {
    /* A page of zeros; below 4 GiB (physical) if `low`. NULL: there is none. */
    void *(*alloc)(void *ctx, bool low);
    void (*free)(void *ctx, void *page);
    /* The physical address of a page from alloc, or of guest memory. */
    uint64_t (*phys)(void *ctx, const void *p);
    /* The page from alloc that has this physical address. */
    void *(*virt)(void *ctx, uint64_t phys);
    void *ctx;
};

#endif
