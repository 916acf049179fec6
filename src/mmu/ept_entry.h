/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/ept_entry.h: entries of extended page tables (SDM Vol. 3C tables 28-1 to 28-7). */
#ifndef MMU_EPT_ENTRY_H
#define MMU_EPT_ENTRY_H

#include "mmu/ept.h"

#define EPT_TYPE_SHIFT 3
#define EPT_TYPE_MASK  (7ull << EPT_TYPE_SHIFT)
#define EPT_IPAT       (1ull << 6) /* the guest's PAT does not count */
#define EPT_PS         (1ull << 7)
#define EPT_A          (1ull << 8)
#define EPT_D          (1ull << 9)
#define EPT_ADDR       0x000ffffffffff000ull
#define EPT_TABLE_RSVD 0x78u
#define EPT_GPA_BITS   48

/* Bits that the CPU ignores. */
#define EPT_SW_LOGGED (1ull << 52) /* not writable only so that a write is seen */
#define EPT_SW_DIRTY  (1ull << 53) /* written since the last report */

static inline uint64_t ept_size(unsigned level)
{
    return 1ull << (12 + 9 * (level - 1));
}

static inline unsigned ept_index(uint64_t gpa, unsigned level)
{
    return gpa >> (12 + 9 * (level - 1)) & 511;
}

static inline bool ept_is_leaf(uint64_t entry, unsigned level)
{
    return level == 1 || (level < 4 && (entry & EPT_PS));
}

static inline bool ept_has_size(uint64_t cap, unsigned level)
{
    return level == 1 || (level == 2 && (cap & EPT_CAP_2M)) || (level == 3 && (cap & EPT_CAP_1G));
}

#endif
