/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/walk.c: the guest's page tables: 32-bit, PAE and 4-level paging (SDM Vol. 3A chapter 4). */
#include "mmu/walk.h"

#define PTE_P          0x1u
#define PTE_W          0x2u
#define PTE_U          0x4u
#define PTE_A          0x20u
#define PTE_D          0x40u
#define PTE_PS         0x80u
#define PTE_G          0x100u
#define PTE_NX         (1ull << 63)
#define PTE_PKEY_SHIFT 59

#define ADDR_MASK  0x000ffffffffff000ull
#define MAX_LEVELS 4

/* What the levels of a paging mode look like. */
struct format {
    uint8_t levels;
    uint8_t entry_size; /* 4 or 8 */
    uint8_t index_bits; /* of the levels below the top */
    uint8_t large;      /* bit n: level n (1 = page table) may map a page itself */
    uint64_t rsvd_high; /* bits that are reserved whatever the physical address width */
};

static const struct format formats[] = {
    [MMU_PAGING_32] = {2, 4, 10, 0x4, 0},
    [MMU_PAGING_PAE] = {2, 8, 9, 0x4, 0x7ff0000000000000ull},
    [MMU_PAGING_4LEVEL] = {4, 8, 9, 0xc, 0},
};

/* One table entry in guest memory. */
struct slot {
    void *host;
    struct mmu_page page;
    uint64_t gpa;
    uint64_t value;
    bool updated;
};

/* Reads an entry; `page` is where it is, if that is known. Tables that are not in memory read as
 * all ones, which have reserved bits set. */
static void slot_read(struct mmu *mmu, uint64_t gpa, unsigned size, const struct mmu_page *page,
                      struct slot *s)
{
    s->gpa = gpa;
    s->updated = false;
    if (page) {
        s->page = *page;
    } else if (!mmu->env->page(mmu->env->ctx, gpa, &s->page)) {
        s->host = NULL;
        s->value = ~(uint64_t)0;
        return;
    }
    s->host = s->page.host + (gpa & ~MMU_PAGE_MASK);
    if (size == 4)
        s->value = atomic_load_explicit((_Atomic uint32_t *)s->host, memory_order_relaxed);
    else
        s->value = atomic_load_explicit((_Atomic uint64_t *)s->host, memory_order_relaxed);
}

/* Sets bits in an entry if it is still what was read: other vCPUs may change it at the same time.
 * False: it has changed, walk again. */
static bool slot_update(struct slot *s, unsigned size, uint64_t bits)
{
    bool ok;

    if ((s->value & bits) == bits || !s->host || !s->page.writable)
        return true;
    if (size == 4) {
        uint32_t old = (uint32_t)s->value;
        ok = atomic_compare_exchange_strong((_Atomic uint32_t *)s->host, &old,
                                            (uint32_t)(s->value | bits));
    } else {
        uint64_t old = s->value;
        ok = atomic_compare_exchange_strong((_Atomic uint64_t *)s->host, &old, s->value | bits);
    }
    if (ok) {
        s->value |= bits;
        s->updated = true;
        if (s->page.dirty)
            atomic_store_explicit(s->page.dirty, 1, memory_order_relaxed);
    }
    return ok;
}

/* Reserved bits of a present entry at `level` (SDM Vol. 3A tables 4-4 to 4-20). */
static uint64_t rsvd_bits(const struct mmu *mmu, const struct format *f, unsigned level, uint64_t e)
{
    uint64_t bits;

    if (f->entry_size == 4) {
        /* PSE-36: bits 20:13 of a 4 MiB page hold address bits 39:32, bit 21 is reserved. */
        if (level == 2 && (e & PTE_PS) && mmu->pse)
            return 0x200000u | ((mmu->rsvd >> 19) & 0x1fe000u);
        return 0;
    }
    bits = mmu->rsvd | f->rsvd_high;
    if (!mmu->nx)
        bits |= PTE_NX;
    if (level == 4)
        bits |= PTE_PS;
    else if (level == 3 && (e & PTE_PS))
        bits |= 0x3fffe000u;
    else if (level == 2 && (e & PTE_PS))
        bits |= 0x1fe000u;
    return bits;
}

static int fault(struct mmu *mmu, uint64_t linear, uint32_t error)
{
    mmu->fault_addr = linear;
    mmu->fault_error = error;
    return MMU_FAULT;
}

bool mmu_allowed(const struct mmu *mmu, unsigned idx, enum mmu_access access,
                 const struct mmu_walk *w, uint32_t *error)
{
    bool user = idx == MMU_USER || idx == MMU_USER_ALIGN;

    *error = MMU_PF_P;
    if (access == MMU_EXEC)
        return !w->nx && (user ? w->user : !(w->user && mmu->smep));
    if (user ? !w->user : w->user && mmu->smap && idx != MMU_KERNEL_AC)
        return false;
    if (access == MMU_WRITE && !w->writable && (user || mmu->wp))
        return false;
    if (mmu->pke && w->user) {
        uint32_t pk = mmu->pkru >> (w->pkey * 2);

        if ((pk & 1) || (access == MMU_WRITE && (pk & 2) && (user || mmu->wp))) {
            *error |= MMU_PF_PK;
            return false;
        }
    }
    return true;
}

/* ---- paths ---- */

/* The number of the region that a table of `level` maps. */
static uint64_t region(const struct format *f, unsigned level, uint64_t linear)
{
    return linear >> (MMU_PAGE_SHIFT + level * f->index_bits);
}

static struct mmu_path *path_of(struct mmu *mmu, unsigned level, uint64_t region_)
{
    return &mmu->path[level - 1][region_ & (MMU_PATHS - 1)];
}

/* The lowest table that is known on the way to `linear`; its level, or 0. */
static unsigned find_path(struct mmu *mmu, const struct format *f, uint64_t linear,
                          const struct mmu_path **path)
{
    for (unsigned level = 1; level <= 2 && level < f->levels; level++) {
        uint64_t r = region(f, level, linear);

        *path = path_of(mmu, level, r);
        if ((*path)->tag == (mmu->path_gen ^ r))
            return level;
    }
    return 0;
}

/* Keeps the way to a table. `above`: what the entries above it allow. */
static void keep_path(struct mmu *mmu, const struct format *f, unsigned level, uint64_t linear,
                      const struct slot *s, const struct mmu_walk *above)
{
    uint64_t r = region(f, level, linear);

    *path_of(mmu, level, r) = (struct mmu_path){.tag = mmu->path_gen ^ r,
                                                .table = s->gpa & MMU_PAGE_MASK,
                                                .page = s->page,
                                                .user = above->user,
                                                .writable = above->writable,
                                                .nx = above->nx};
}

/* `from`: the level of a table to begin with, and the path there; 0: the top. */
static int walk_once(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                     bool update, unsigned from, const struct mmu_path *path, struct mmu_walk *w,
                     struct mmu_trace *trace, bool *again)
{
    const struct format *f = &formats[mmu->paging];
    struct slot slots[MAX_LEVELS];
    struct mmu_walk above[MAX_LEVELS]; /* what the entries above each slot allow */
    uint64_t table = mmu->root, code[MAX_LEVELS], e;
    unsigned n = 0, ncode = 0, level, top = f->levels, shift = 0;
    bool known = true; /* all entries so far have their accessed bits */
    uint32_t access_bits = access == MMU_WRITE ? MMU_PF_W : 0, error;

    if (idx == MMU_USER || idx == MMU_USER_ALIGN)
        access_bits |= MMU_PF_U;
    if (access == MMU_EXEC && ((mmu->nx && mmu->paging != MMU_PAGING_32) || mmu->smep))
        access_bits |= MMU_PF_I;

    *again = false;
    *w = (struct mmu_walk){.user = true, .writable = true};
    if (from) {
        top = from;
        table = path->table;
        w->user = path->user;
        w->writable = path->writable;
        w->nx = path->nx;
    } else if (mmu->paging == MMU_PAGING_PAE) {
        uint64_t pdpte = mmu->pdpte[(linear >> 30) & 3];

        if (!(pdpte & PTE_P))
            return fault(mmu, linear, access_bits);
        table = pdpte & ADDR_MASK;
    }

    for (level = top;; level--) {
        unsigned index;
        struct slot *s = &slots[n];

        above[n++] = *w;
        shift = MMU_PAGE_SHIFT + (level - 1) * f->index_bits;
        index = (linear >> shift) & ((1u << f->index_bits) - 1);
        slot_read(mmu, table + (uint64_t)index * f->entry_size, f->entry_size,
                  from && level == top ? &path->page : NULL, s);
        e = s->value;
        if (!(e & PTE_P))
            return fault(mmu, linear, access_bits);
        if (f->entry_size == 4)
            e = (uint32_t)e;
        /* An entry that is not in memory: reserved bits, in the 32-bit format as well. */
        if (!s->host || (e & rsvd_bits(mmu, f, level, e)))
            return fault(mmu, linear, access_bits | MMU_PF_P | MMU_PF_RSVD);
        w->user &= !!(e & PTE_U);
        w->writable &= !!(e & PTE_W);
        w->nx |= f->entry_size == 8 && (e & PTE_NX);
        if (level == 1 ||
            ((f->large >> level & 1) && (e & PTE_PS) && (f->entry_size == 8 || mmu->pse)))
            break;
        table = f->entry_size == 4 ? (e & 0xfffff000u) : (e & ADDR_MASK);
    }

    w->large_size = 1ull << shift;
    w->gpa = e & (f->entry_size == 4 ? 0xfffff000u : ADDR_MASK);
    if (level > 1) {
        w->gpa &= ~(w->large_size - 1);
        if (f->entry_size == 4)
            w->gpa |= (e & 0x1fe000u) << 19;
        w->gpa |= linear & (w->large_size - 1) & MMU_PAGE_MASK;
    }
    w->global = e & PTE_G;
    w->pkey = (e >> PTE_PKEY_SHIFT) & 15;

    if (!mmu_allowed(mmu, idx, access, w, &error))
        return fault(mmu, linear, access_bits | error);

    for (unsigned i = 0; update && !*again && i < n; i++)
        *again = !slot_update(&slots[i], f->entry_size,
                              i == n - 1 && access == MMU_WRITE ? PTE_A | PTE_D : PTE_A);
    for (unsigned i = 0; trace && i < n; i++)
        trace->e[top - i - 1] = (struct mmu_trace_entry){slots[i].gpa, slots[i].value};
    if (trace)
        trace->leaf = level;
    /* The tables of the two lowest levels, unless they are the top one or known already. */
    for (unsigned i = 1; update && !*again && known && i < n; i++) {
        known = slots[i - 1].value & PTE_A;
        if (known && top - i <= 2)
            keep_path(mmu, f, top - i, linear, &slots[i], &above[i]);
    }
    e = slots[n - 1].value;
    /* Last, as other threads may get a turn meanwhile: the slots' pointers are not valid then. */
    for (unsigned i = 0; i < n; i++)
        if (slots[i].updated && (atomic_load(slots[i].page.code) & ~MMU_CODE_TABLE))
            code[ncode++] = slots[i].gpa;
    for (unsigned i = 0; i < ncode; i++)
        mmu->env->code_written(mmu->env->ctx, code[i], f->entry_size);
    w->dirty = e & PTE_D;
    w->accessed = true;
    for (unsigned i = 0; i < n; i++)
        w->accessed &= !!(slots[i].value & PTE_A);
    return MMU_OK;
}

/* From the top, as often as it takes. Each retry means that another vCPU has changed the entry; a
 * bound keeps a hostile one from holding us here: then the access bits stay as they are. */
static int walk_all(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                    bool update, struct mmu_walk *w, struct mmu_trace *trace)
{
    bool again;
    int r;

    for (unsigned tries = 0; tries < 64; tries++) {
        r = walk_once(mmu, idx, linear, access, update, 0, NULL, w, trace, &again);
        if (!again)
            return r;
    }
    return walk_once(mmu, idx, linear, access, false, 0, NULL, w, trace, &again);
}

static void identity(uint64_t linear, struct mmu_walk *w)
{
    *w = (struct mmu_walk){.gpa = linear & MMU_PAGE_MASK,
                           .large_size = MMU_PAGE_SIZE,
                           .user = true,
                           .writable = true,
                           .accessed = true,
                           .dirty = true};
}

int mmu_walk_trace(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                   bool update, struct mmu_walk *w, struct mmu_trace *trace)
{
    if (mmu->paging != MMU_PAGING_NONE)
        return walk_all(mmu, idx, linear, access, update, w, trace);
    identity(linear, w);
    trace->leaf = 0;
    return MMU_OK;
}

int mmu_walk(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access, bool update,
             struct mmu_walk *w)
{
    const struct mmu_path *path;
    bool again;
    int r;

    if (mmu->paging == MMU_PAGING_NONE) {
        identity(linear, w);
        return MMU_OK;
    }
    /* A fault is not due to what has been kept of old entries (SDM Vol. 3A 4.10.4.1). */
    if (update) {
        unsigned from = find_path(mmu, &formats[mmu->paging], linear, &path);

        if (from) {
            r = walk_once(mmu, idx, linear, access, true, from, path, w, NULL, &again);
            if (r == MMU_OK && !again)
                return r;
        }
    }
    return walk_all(mmu, idx, linear, access, update, w, NULL);
}
