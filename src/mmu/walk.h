/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/walk.h: the page walk, private to src/mmu. */
#ifndef MMU_WALK_H
#define MMU_WALK_H

#include <string.h>

#include "mmu/mmu.h"

/* Result of a walk: where the page is, and what the entries allow. */
struct mmu_walk {
    uint64_t gpa;        /* of the 4 KiB page */
    uint64_t large_size; /* bytes of the page that was found, MMU_PAGE_SIZE or more */
    bool user;           /* U/S of all levels */
    bool writable;       /* R/W of all levels */
    bool nx;
    bool global;
    bool accessed; /* all entries that were read are */
    bool dirty;
    uint8_t pkey;
};

/* Drops what there is for the page of `linear` in one table of both levels. [tlb.c] */
void mmu_drop(struct mmu *mmu, unsigned idx, uint64_t linear);

static inline struct mmu_entry *mmu_l2_entry(struct mmu *mmu, unsigned idx, uint64_t linear)
{
    unsigned slot = mmu_l2_slot(linear) ^ (linear >> 63 ? 0 : mmu->l2_salt);

    return &mmu->l2[idx << MMU_L2_BITS | slot];
}

/* Whether any entry may have a write tag of a page: pages that share a bit are told apart by
 * nobody. */
static inline void mmu_note_written(struct mmu *mmu, uint64_t gpa)
{
    unsigned n = (gpa >> MMU_PAGE_SHIFT) % (sizeof(mmu->written) * 8);

    mmu->written[n / 64] |= 1ull << n % 64;
}

static inline bool mmu_was_written(const struct mmu *mmu, uint64_t gpa)
{
    unsigned n = (gpa >> MMU_PAGE_SHIFT) % (sizeof(mmu->written) * 8);

    return mmu->written[n / 64] >> n % 64 & 1;
}

#define MMU_PATH_GEN_SHIFT 44 /* linear addresses >> 21 are below */

static inline void mmu_note_gone(struct mmu *mmu, uint64_t what)
{
    mmu->gone[mmu->ngone++ % MMU_GONE_KEPT] = what;
}

/* Forgets all paths and cells: entries are going to be taken away. */
static inline void mmu_flush_paths(struct mmu *mmu)
{
    mmu_empty_cells(mmu);
    mmu->path_gen += 1ull << MMU_PATH_GEN_SHIFT;
    if (!mmu->path_gen) /* tags of old are as the new ones */
        memset(mmu->path, 0, sizeof(mmu->path));
    mmu->path_gen += !mmu->path_gen ? 1ull << MMU_PATH_GEN_SHIFT : 0;
}

/* Walks for an access; `update`: sets accessed and dirty bits. MMU_OK or MMU_FAULT. */
int mmu_walk(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access, bool update,
             struct mmu_walk *w);

/* The entries of a walk: where they are, and their values after its accessed and dirty bits. */
struct mmu_trace {
    unsigned leaf; /* the level of the last one; 0: paging is off */
    struct mmu_trace_entry {
        uint64_t gpa, value;
    } e[4]; /* [level - 1] */
};

/* As mmu_walk, from the top table and without leaving a path; `trace` is valid after MMU_OK. */
int mmu_walk_trace(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                   bool update, struct mmu_walk *w, struct mmu_trace *trace);

/* Whether the entries found allow an access: 0, or error code bits of the #PF beside P. */
bool mmu_allowed(const struct mmu *mmu, unsigned idx, enum mmu_access access,
                 const struct mmu_walk *w, uint32_t *error);

#endif
