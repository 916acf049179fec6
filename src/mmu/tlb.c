/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/tlb.c: mode and flushes of the software TLB. */
#include <string.h>

#include "mmu/walk.h"

static void clear_entry(struct mmu *mmu, unsigned idx, unsigned i)
{
    mmu->data[idx][i].read = mmu_empty_tag(i);
    mmu->data[idx][i].write = mmu_empty_tag(i);
}

static void clear_large(struct mmu *mmu)
{
    for (unsigned half = 0; half < 2; half++) {
        mmu->large_lo[half] = ~(uint64_t)0;
        mmu->large_hi[half] = 0;
    }
}

/* Takes the lowest bit out of a word. */
static unsigned take_bit(uint64_t *word)
{
    unsigned n = (unsigned)__builtin_ctzll(*word);

    *word &= *word - 1;
    return n;
}

/* Clears the entries that are marked as global or not: but not those that belong to global pages by
 * now if `keep`. */
static void clear_filled(struct mmu *mmu, bool global, bool keep)
{
    for (unsigned idx = 0; idx < MMU_NINDEX; idx++)
        for (unsigned w = 0; w < MMU_TLB_SIZE / 64; w++)
            for (uint64_t *word = &mmu->filled[global][idx][w]; *word;) {
                unsigned i = w * 64 + take_bit(word);

                if (!keep || !(mmu->data[idx][i].gpa & MMU_ENTRY_GLOBAL))
                    clear_entry(mmu, idx, i);
            }
    for (unsigned u = 0; u < 2; u++)
        for (unsigned w = 0; w < MMU_XTLB_SIZE / 64; w++)
            for (uint64_t *word = &mmu->filled_exec[global][u][w]; *word;) {
                unsigned i = w * 64 + take_bit(word);

                if (!keep || !(mmu->exec[u][i].gpa & MMU_ENTRY_GLOBAL))
                    mmu->exec[u][i].tag = MMU_NO_TAG;
            }
}

static void forget_contexts(struct mmu *mmu)
{
    memset(mmu->context, 0, sizeof(mmu->context));
}

/* What has been entered into the second level with this key is not found any more. */
static void next_key(struct mmu *mmu, bool global)
{
    mmu->l2_gen = (mmu->l2_gen + 1) & 0xfffffff;
    if (!mmu->l2_gen) { /* old tags would be as the new ones */
        if (mmu->l2)
            memset(mmu->l2, 0, MMU_L2_BYTES);
        forget_contexts(mmu);
        mmu->l2_key[!global] = 1ull << 48;
        mmu->l2_gen = 2;
    }
    mmu->l2_key[global] = (uint64_t)(mmu->l2_gen & 0xffff) << 48 | mmu->l2_gen >> 16;
}

static void flush_l2(struct mmu *mmu)
{
    forget_contexts(mmu);
    next_key(mmu, false);
    next_key(mmu, true);
}

void mmu_set_l2(struct mmu *mmu, struct mmu_entry *l2)
{
    mmu->l2 = l2;
    flush_l2(mmu);
}

void mmu_flush_all(struct mmu *mmu)
{
    mmu_note_gone(mmu, MMU_GONE_ALL);
    if (mmu->used) {
        clear_filled(mmu, false, false);
        clear_filled(mmu, true, false);
        mmu->used = false;
        flush_l2(mmu);
        clear_large(mmu);
    }
    mmu_flush_paths(mmu);
    mmu->flush_gen++;
    mmu->flushes++;
}

/* All but the second level. */
static void flush_first_nonglobal(struct mmu *mmu)
{
    if (mmu->used)
        clear_filled(mmu, false, true);
    mmu_flush_paths(mmu);
    mmu->flush_gen++;
    mmu->flushes++;
}

void mmu_flush_nonglobal(struct mmu *mmu)
{
    mmu_note_gone(mmu, MMU_GONE_ALL);
    flush_first_nonglobal(mmu);
    if (!mmu->used)
        return;
    forget_contexts(mmu);
    next_key(mmu, false);
}

static struct mmu_context *find_context(struct mmu *mmu, uint16_t pcid)
{
    for (unsigned i = 0; i < MMU_CONTEXTS; i++)
        if (mmu->context[i].key && mmu->context[i].pcid == pcid)
            return &mmu->context[i];
    return NULL;
}

void mmu_load_pcid(struct mmu *mmu, uint16_t pcid, bool keep)
{
    struct mmu_context *c = find_context(mmu, pcid);

    flush_first_nonglobal(mmu);
    mmu->used = true; /* contexts are */
    if (!c) {
        c = &mmu->context[mmu->context_next++ % MMU_CONTEXTS];
        keep = false;
    }
    /* What is kept of a PCID was true when it was left, and all that was taken away since is noted.
     */
    if (!keep)
        mmu_note_gone(mmu, MMU_GONE_ALL);
    mmu->l2_salt = (uint32_t)(c - mmu->context) << MMU_SALT_SHIFT;
    if (keep) {
        mmu->l2_key[0] = c->key;
        return;
    }
    next_key(mmu, false);
    *c = (struct mmu_context){mmu->l2_key[0], pcid};
}

void mmu_forget_pcid(struct mmu *mmu, uint16_t pcid)
{
    struct mmu_context *c = find_context(mmu, pcid);

    if (c)
        c->key = 0;
    mmu_note_gone(mmu, MMU_GONE_ALL);
    mmu->flush_gen++;
}

static void drop_entries(struct mmu *mmu, unsigned idx, uint64_t linear)
{
    uint64_t page = linear & MMU_PAGE_MASK;
    unsigned i = mmu_slot(linear);
    struct mmu_entry *e = &mmu->data[idx][i];

    mmu_empty_cells(mmu);
    if (e->read == page || e->write == page)
        clear_entry(mmu, idx, i);
    if (!mmu->l2)
        return;
    /* In all places where it can be, whatever is there: the next walk enters it again. */
    for (unsigned n = 0; n < (linear >> 63 ? 1 : MMU_CONTEXTS); n++) {
        e = &mmu->l2[idx << MMU_L2_BITS | (mmu_l2_slot(linear) ^ n << MMU_SALT_SHIFT)];
        e->read = e->write = 0;
    }
}

void mmu_drop(struct mmu *mmu, unsigned idx, uint64_t linear)
{
    mmu_note_gone(mmu, linear & MMU_PAGE_MASK);
    drop_entries(mmu, idx, linear);
}

void mmu_flush_page(struct mmu *mmu, uint64_t linear)
{
    unsigned half = linear >> 63;
    uint64_t page = linear & MMU_PAGE_MASK;
    unsigned x = (linear >> MMU_PAGE_SHIFT) & (MMU_XTLB_SIZE - 1);

    mmu_flush_paths(mmu);
    if (page >= mmu->large_lo[half] && page <= mmu->large_hi[half]) {
        mmu_flush_all(mmu);
        return;
    }
    mmu_note_gone(mmu, page);
    for (unsigned idx = 0; mmu->used && idx < MMU_NINDEX; idx++)
        drop_entries(mmu, idx, linear);
    for (unsigned u = 0; u < 2; u++)
        if (mmu->exec[u][x].tag == page)
            mmu->exec[u][x].tag = MMU_NO_TAG;
    mmu->flush_gen++;
}

static bool has_tag(const struct mmu_entry *e, unsigned i)
{
    return e->read != mmu_empty_tag(i) || e->write != mmu_empty_tag(i);
}

void mmu_flush_gpa(struct mmu *mmu, uint64_t gpa, uint64_t len)
{
    uint64_t last = gpa + len - 1;

    if (!len)
        return;
    mmu_flush_paths(mmu);
    mmu_note_gone(mmu, MMU_GONE_ALL);
    mmu->flush_gen++;
    flush_l2(mmu);
    for (unsigned idx = 0; idx < MMU_NINDEX; idx++)
        for (unsigned i = 0; i < MMU_TLB_SIZE; i++) {
            struct mmu_entry *e = &mmu->data[idx][i];
            uint64_t page = e->gpa & MMU_PAGE_MASK;

            if (has_tag(e, i) && page <= last && (page | ~MMU_PAGE_MASK) >= gpa)
                clear_entry(mmu, idx, i);
        }
    for (unsigned u = 0; u < 2; u++)
        for (unsigned i = 0; i < MMU_XTLB_SIZE; i++) {
            struct mmu_exec_entry *e = &mmu->exec[u][i];
            uint64_t page = e->gpa & MMU_PAGE_MASK;

            if (e->tag != MMU_NO_TAG && page <= last && (page | ~MMU_PAGE_MASK) >= gpa)
                e->tag = MMU_NO_TAG;
        }
}

/* Takes write tags away from what the first level has of [page, page+size), and notes all others.
 */
static void protect_first_level(struct mmu *mmu, uint64_t page, uint64_t size)
{
    memset(mmu->written, 0, sizeof(mmu->written));
    for (unsigned idx = 0; idx < MMU_NINDEX; idx++)
        for (unsigned w = 0; w < MMU_TLB_SIZE / 64; w++)
            for (uint64_t word = mmu->filled[0][idx][w] | mmu->filled[1][idx][w]; word;) {
                unsigned i = w * 64 + take_bit(&word);
                struct mmu_entry *e = &mmu->data[idx][i];

                if ((e->gpa & MMU_PAGE_MASK) - page < size)
                    e->write = mmu_empty_tag(i);
                else if (e->write != mmu_empty_tag(i))
                    mmu_note_written(mmu, e->gpa);
            }
}

void mmu_protect_gpa(struct mmu *mmu, uint64_t gpa, uint64_t len)
{
    uint64_t page = gpa & MMU_PAGE_MASK, size = gpa - page + len;

    mmu_flush_paths(mmu);
    mmu_note_gone(mmu, size <= MMU_PAGE_SIZE ? page | MMU_GONE_GPA : MMU_GONE_ALL);
    if (size <= MMU_PAGE_SIZE && !mmu_was_written(mmu, page))
        return;
    flush_l2(mmu);
    protect_first_level(mmu, page, size);
}

void mmu_set_watch(struct mmu *mmu, const uint64_t *pages, unsigned n)
{
    mmu->nwatch = n > 8 ? 8 : n;
    memcpy(mmu->watch, pages, mmu->nwatch * sizeof(*pages));
    mmu_flush_all(mmu);
}

void mmu_init(struct mmu *mmu, const struct mmu_env *env)
{
    memset(&mmu->filled, 0, sizeof(*mmu) - offsetof(struct mmu, filled));
    /* mmu_empty_tag is 0 but for the first. */
    for (unsigned idx = 0; idx < MMU_NTABLES; idx++)
        clear_entry(mmu, idx, 0);
    memset(mmu->exec, 0xff, sizeof(mmu->exec));
    mmu->env = env;
    mmu->linear_bits = 32;
    mmu->used = true; /* keys and ranges are to be set */
    mmu_next_epoch(mmu);
    mmu_flush_all(mmu);
}

/* Bits that must be zero in a PDPTE that is present (SDM Vol. 3A table 4-8). */
#define PDPTE_RSVD 0x1e6u

static bool load_pdptes(struct mmu *mmu, uint64_t cr3, uint64_t rsvd, uint64_t pdpte[4])
{
    uint64_t table = cr3 & 0xffffffe0u;
    struct mmu_page page;

    if (!mmu->env->page(mmu->env->ctx, table, &page))
        return false;
    memcpy(pdpte, page.host + (table & ~MMU_PAGE_MASK), 4 * sizeof(*pdpte));
    for (unsigned i = 0; i < 4; i++)
        if ((pdpte[i] & 1) && (pdpte[i] & (PDPTE_RSVD | rsvd | 0xfff0000000000000ull)))
            return false;
    return true;
}

bool mmu_set_mode(struct mmu *mmu, const struct mmu_mode *mode, bool load_pdpte)
{
    uint64_t rsvd = 0x000fffffffffffffull & ~((1ull << mode->gpa_bits) - 1);
    enum mmu_paging paging = MMU_PAGING_NONE;
    uint64_t pdpte[4];

    if (mode->cr0 & 0x80000000u)
        paging = !(mode->cr4 & 0x20)    ? MMU_PAGING_32
                 : (mode->efer & 0x400) ? MMU_PAGING_4LEVEL
                                        : MMU_PAGING_PAE;
    if (paging == MMU_PAGING_PAE && load_pdpte) {
        if (!load_pdptes(mmu, mode->cr3, rsvd, pdpte))
            return false;
        memcpy(mmu->pdpte, pdpte, sizeof(pdpte));
    }
    mmu_flush_paths(mmu);
    mmu->paging = paging;
    mmu->root =
        paging == MMU_PAGING_32 ? mode->cr3 & 0xfffff000u : mode->cr3 & 0x000ffffffffff000ull;
    mmu->rsvd = rsvd;
    mmu->wp = mode->cr0 & 0x10000;
    mmu->pse = mode->cr4 & 0x10;
    mmu->smep = (mode->cr4 & 0x100000) && paging != MMU_PAGING_NONE;
    mmu->smap = (mode->cr4 & 0x200000) && paging != MMU_PAGING_NONE;
    mmu->nx = mode->efer & 0x800;
    mmu->pke = (mode->cr4 & 0x400000) && paging == MMU_PAGING_4LEVEL;
    mmu->pkru = mode->pkru;
    mmu->linear_bits = mode->efer & 0x400 ? 48 : 32;
    return true;
}
