/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/walk.h: the page walk, private to src/mmu. */
#ifndef MMU_WALK_H
#define MMU_WALK_H

#include "mmu/mmu.h"

/* Result of a walk: where the page is, and what the entries allow. */
struct mmu_walk {
    uint64_t gpa;        /* of the 4 KiB page */
    uint64_t large_size; /* bytes of the page that was found, MMU_PAGE_SIZE or more */
    bool user;           /* U/S of all levels */
    bool writable;       /* R/W of all levels */
    bool nx;
    bool global;
    bool dirty;
    uint8_t pkey;
};

/* Lists an entry that is being filled, `which` as in mmu->filled. */
static inline void mmu_note_filled(struct mmu *mmu, unsigned which)
{
    if (mmu->nfilled < MMU_FILLED)
        mmu->filled[mmu->nfilled] = (uint16_t)which;
    if (mmu->nfilled <= MMU_FILLED)
        mmu->nfilled++;
}

/* Walks for an access; `update`: sets accessed and dirty bits. MMU_OK or MMU_FAULT. */
int mmu_walk(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access, bool update,
             struct mmu_walk *w);

/* Whether the entries found allow an access: 0, or error code bits of the #PF beside P. */
bool mmu_allowed(const struct mmu *mmu, unsigned idx, enum mmu_access access,
                 const struct mmu_walk *w, uint32_t *error);

#endif
