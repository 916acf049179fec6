/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/ept_walk.c: how the CPU reads extended page tables, and what is wrong with an entry. */
#include "mmu/ept.h"
#include "mmu/ept_entry.h"

enum ept_misconfig ept_misconfig(uint64_t cap, unsigned phys_bits, unsigned level, uint64_t entry)
{
    bool leaf = ept_is_leaf(entry, level);
    unsigned type = entry >> EPT_TYPE_SHIFT & 7;

    if (!(entry & EPT_RWX))
        return EPT_FINE; /* not present */
    if (!(entry & EPT_R) && (entry & EPT_W))
        return EPT_MIS_WRITE_ONLY;
    if (!(entry & EPT_R) && !(cap & EPT_CAP_EXEC_ONLY))
        return EPT_MIS_EXEC_ONLY;
    if (entry & EPT_ADDR & ~((1ull << phys_bits) - 1))
        return EPT_MIS_ADDRESS;
    if (level > 1 && (entry & EPT_PS) && !ept_has_size(cap, level))
        return EPT_MIS_PAGE_SIZE;
    if (!leaf)
        return entry & EPT_TABLE_RSVD ? EPT_MIS_RESERVED : EPT_FINE;
    if (entry & (ept_size(level) - 1) & EPT_ADDR)
        return EPT_MIS_ALIGNMENT;
    return type == 2 || type == 3 || type == 7 ? EPT_MIS_TYPE : EPT_FINE;
}

const char *ept_misconfig_text(enum ept_misconfig rule)
{
    static const char *const texts[] = {
        [EPT_FINE] = "no misconfiguration",
        [EPT_MIS_WRITE_ONLY] = "bit 0 (read) is clear and bit 1 (write) set",
        [EPT_MIS_EXEC_ONLY] =
            "bit 0 (read) is clear and bit 2 (execute) set without execute-only pages",
        [EPT_MIS_ADDRESS] = "an address bit beyond the physical address width is set",
        [EPT_MIS_RESERVED] = "one of bits 6:3 is set in an entry that refers to a table",
        [EPT_MIS_PAGE_SIZE] = "bit 7 is set where the CPU has no page of that size",
        [EPT_MIS_ALIGNMENT] = "an address bit below the size of the large page is set",
        [EPT_MIS_TYPE] = "the memory type is 2, 3 or 7",
    };

    return (unsigned)rule < sizeof(texts) / sizeof(texts[0]) ? texts[rule] : "?";
}

enum ept_result ept_walk(const struct ept *ept, uint64_t gpa, unsigned rights, struct ept_walk *w)
{
    const struct mmu_pages *pages = ept->cfg.pages;
    const uint64_t *table = ept->root;

    *w = (struct ept_walk){.level = 4, .rights = EPT_RWX, .accessed = true};
    if (gpa >> EPT_GPA_BITS) { /* no entry could map it (SDM Vol. 3C 28.3.2) */
        w->rights = 0;
        return EPT_VIOLATION;
    }
    for (;; w->level--) {
        w->entry = __atomic_load_n(&table[ept_index(gpa, w->level)], __ATOMIC_RELAXED);
        w->rights &= w->entry & EPT_RWX;
        if (!(w->entry & EPT_RWX))
            return EPT_VIOLATION;
        w->rule = ept_misconfig(ept->cfg.cap, ept->cfg.phys_bits, w->level, w->entry);
        if (w->rule != EPT_FINE)
            return EPT_MISCONFIGURATION;
        w->accessed &= !!(w->entry & EPT_A);
        if (ept_is_leaf(w->entry, w->level))
            break;
        table = pages->virt(pages->ctx, w->entry & EPT_ADDR);
    }
    w->size = ept_size(w->level);
    w->hpa = (w->entry & EPT_ADDR & ~(w->size - 1)) | (gpa & (w->size - 1));
    w->type = w->entry >> EPT_TYPE_SHIFT & 7;
    w->dirty = w->entry & (EPT_D | EPT_SW_DIRTY);
    return (w->rights & rights) == rights ? EPT_TRANSLATED : EPT_VIOLATION;
}
