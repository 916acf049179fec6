/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/access.c: what the fast path leaves over: TLB fills, page crossing, MMIO, code pages. */
#include <string.h>

#include "mmu/walk.h"

/* Where one access that lies in one page goes. */
struct target {
    uint64_t gpa;           /* exact */
    uint8_t *host;          /* exact; NULL: MMIO, or a write to read-only memory */
    _Atomic uint64_t *code; /* with host */
};

static bool watched(const struct mmu *mmu, uint64_t linear)
{
    for (unsigned i = 0; i < mmu->nwatch; i++)
        if (mmu->watch[i] == (linear & MMU_PAGE_MASK))
            return true;
    return false;
}

static void note_large(struct mmu *mmu, uint64_t linear, uint64_t size)
{
    unsigned half = linear >> 63;
    uint64_t lo = linear & ~(size - 1), hi = lo + size - 1;

    if (lo < mmu->large_lo[half])
        mmu->large_lo[half] = lo;
    if (hi > mmu->large_hi[half])
        mmu->large_hi[half] = hi;
}

/* Whether stores to a page need not be seen. While writes are tracked the first one is: a page does
 * not become dirty by being read. */
static bool may_write_unseen(const struct mmu_page *page, enum mmu_access access)
{
    if (!page->writable || atomic_load_explicit(page->code, memory_order_acquire))
        return false;
    return !page->dirty || access == MMU_WRITE ||
           atomic_load_explicit(page->dirty, memory_order_relaxed);
}

/* Enters a first level's entry into the second. */
static void fill_l2(struct mmu *mmu, unsigned idx, const struct mmu_entry *from, uint64_t page)
{
    struct mmu_entry *e = mmu_l2_entry(mmu, idx, page);
    uint64_t tag = page ^ mmu->l2_key[from->gpa & MMU_ENTRY_GLOBAL];

    e->read = from->read == page ? tag : 0;
    e->write = from->write == page ? tag : 0;
    e->host = from->host;
    e->gpa = from->gpa;
}

/* Enters what the walk found into the data TLB. */
static void fill(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                 const struct mmu_walk *w, const struct mmu_page *page)
{
    uint64_t tag = linear & MMU_PAGE_MASK;
    unsigned i = mmu_slot(linear);
    struct mmu_entry *e = &mmu->data[idx][i];
    uint32_t error;

    e->read = mmu_empty_tag(i);
    e->write = mmu_empty_tag(i);
    if (idx >= MMU_NINDEX || watched(mmu, linear))
        return;
    mmu->used = true;
    mmu->filled[w->global][idx][i / 64] |= 1ull << i % 64;
    e->host = page->host;
    e->gpa = w->gpa | (w->global ? MMU_ENTRY_GLOBAL : 0);
    if (mmu_allowed(mmu, idx, MMU_READ, w, &error))
        e->read = tag;
    if (w->dirty && may_write_unseen(page, access) && mmu_allowed(mmu, idx, MMU_WRITE, w, &error)) {
        e->write = tag;
        mmu_note_written(mmu, w->gpa);
    }
    if (mmu->l2)
        fill_l2(mmu, idx, e, tag);
    if (w->large_size > MMU_PAGE_SIZE)
        note_large(mmu, linear, w->large_size);
}

/* As resolve, by the second level, which also fills the first. */
static bool find_l2(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                    struct target *t)
{
    static _Atomic uint64_t no_code; /* of pages with write tags */
    uint64_t page = linear & MMU_PAGE_MASK, key;
    unsigned i = mmu_slot(linear);
    struct mmu_entry *e = &mmu->data[idx][i];
    const struct mmu_entry *from;

    if (!mmu->l2 || idx >= MMU_NINDEX || access == MMU_EXEC)
        return false;
    from = mmu_l2_entry(mmu, idx, linear);
    key = (access == MMU_WRITE ? from->write : from->read) ^ page;
    if (key != mmu->l2_key[0] && key != mmu->l2_key[1])
        return false;
    e->read = page;
    e->write = from->write == from->read ? page : mmu_empty_tag(i);
    e->host = from->host;
    e->gpa = from->gpa;
    mmu->filled[from->gpa & MMU_ENTRY_GLOBAL][idx][i / 64] |= 1ull << i % 64;
    mmu->l2_hits++;
    t->gpa = (from->gpa & MMU_PAGE_MASK) | (linear & ~MMU_PAGE_MASK);
    t->host = from->host + (linear & ~MMU_PAGE_MASK);
    t->code = &no_code;
    return true;
}

/* Translates one address for an access that stays in its page. */
static int resolve(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                   struct target *t)
{
    struct mmu_walk w;
    struct mmu_page page;
    int r;

    if (!mmu_canonical(mmu, linear))
        return MMU_NONCANON;
    if (find_l2(mmu, idx, linear, access, t))
        return MMU_OK;
    mmu->misses++;
    mmu->misses_by[access]++;
    r = mmu_walk(mmu, idx, linear, access, true, &w);
    if (r != MMU_OK) {
        mmu_drop(mmu, idx, linear); /* SDM Vol. 3A 4.10.4.1 */
        return r;
    }
    t->gpa = w.gpa | (linear & ~MMU_PAGE_MASK);
    t->host = NULL;
    if (!mmu->env->page(mmu->env->ctx, w.gpa, &page))
        return MMU_OK;
    fill(mmu, idx, linear, access, &w, &page);
    if (access == MMU_WRITE && !page.writable)
        return MMU_OK;
    /* Before the store, or those that a write entry lets pass unseen. */
    if (access == MMU_WRITE && page.dirty)
        atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
    t->host = page.host + (linear & ~MMU_PAGE_MASK);
    t->code = page.code;
    return MMU_OK;
}

/* MMIO in naturally aligned pieces of at most 8 bytes. */
static int mmio(struct mmu *mmu, uint64_t gpa, uint8_t *buf, unsigned size, bool write)
{
    while (size) {
        unsigned piece = 8;
        uint64_t value = 0;

        while (piece > size || (gpa & (piece - 1)))
            piece /= 2;
        if (write)
            memcpy(&value, buf, piece);
        if (mmu->env->mmio(mmu->env->ctx, gpa, piece, write, &value))
            return MMU_ABORT;
        if (!write)
            memcpy(buf, &value, piece);
        gpa += piece;
        buf += piece;
        size -= piece;
    }
    return MMU_OK;
}

static int read_in_page(struct mmu *mmu, unsigned idx, uint64_t linear, void *buf, unsigned size)
{
    struct target t;
    int r = resolve(mmu, idx, linear, MMU_READ, &t);

    if (r != MMU_OK)
        return r;
    if (!t.host)
        return mmio(mmu, t.gpa, buf, size, false);
    mmu_copy(buf, t.host, size);
    return MMU_OK;
}

static int write_in_page(struct mmu *mmu, unsigned idx, uint64_t linear, const void *buf,
                         unsigned size)
{
    struct target t;
    int r = resolve(mmu, idx, linear, MMU_WRITE, &t);

    if (r != MMU_OK)
        return r;
    if (!t.host) {
        uint8_t bytes[MMU_PAGE_SIZE];

        memcpy(bytes, buf, size);
        return mmio(mmu, t.gpa, bytes, size, true);
    }
    mmu_copy(t.host, buf, size);
    if (atomic_load_explicit(t.code, memory_order_acquire))
        mmu->env->code_written(mmu->env->ctx, t.gpa, size);
    return MMU_OK;
}

/* Linear addresses wrap at 4 GiB outside of long mode. */
static uint64_t next_page(const struct mmu *mmu, uint64_t linear)
{
    uint64_t next = (linear & MMU_PAGE_MASK) + MMU_PAGE_SIZE;

    return mmu->linear_bits == 32 ? (uint32_t)next : next;
}

int mmu_probe(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size, enum mmu_access access)
{
    for (;;) {
        unsigned left = MMU_PAGE_SIZE - (unsigned)(linear & ~MMU_PAGE_MASK);
        struct target t;
        int r = resolve(mmu, idx, linear, access, &t);

        if (r != MMU_OK)
            return r;
        if (size <= left)
            return MMU_OK;
        size -= left;
        linear = next_page(mmu, linear);
    }
}

int mmu_read(struct mmu *mmu, unsigned idx, uint64_t linear, void *buf, unsigned size)
{
    uint8_t *to = buf;
    unsigned left = MMU_PAGE_SIZE - (unsigned)(linear & ~MMU_PAGE_MASK);
    int r;

    if (size > left) {
        r = mmu_probe(mmu, idx, linear, size, MMU_READ);
        if (r != MMU_OK)
            return r;
    }
    while (size > left) {
        r = read_in_page(mmu, idx, linear, to, left);
        if (r != MMU_OK)
            return r;
        to += left;
        size -= left;
        linear = next_page(mmu, linear);
        left = MMU_PAGE_SIZE;
    }
    return read_in_page(mmu, idx, linear, to, size);
}

int mmu_write(struct mmu *mmu, unsigned idx, uint64_t linear, const void *buf, unsigned size)
{
    const uint8_t *from = buf;
    unsigned left = MMU_PAGE_SIZE - (unsigned)(linear & ~MMU_PAGE_MASK);
    int r;

    if (size > left) {
        r = mmu_probe(mmu, idx, linear, size, MMU_WRITE);
        if (r != MMU_OK)
            return r;
    }
    while (size > left) {
        r = write_in_page(mmu, idx, linear, from, left);
        if (r != MMU_OK)
            return r;
        from += left;
        size -= left;
        linear = next_page(mmu, linear);
        left = MMU_PAGE_SIZE;
    }
    return write_in_page(mmu, idx, linear, from, size);
}

int mmu_rmw_begin(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size,
                  struct mmu_rmw *rmw)
{
    struct target t;
    int r;

    rmw->host = NULL;
    rmw->code_gpa = MMU_NO_TAG;
    rmw->size = size;
    if ((linear & ~MMU_PAGE_MASK) + size > MMU_PAGE_SIZE)
        return mmu_probe(mmu, idx, linear, size, MMU_WRITE);
    r = resolve(mmu, idx, linear, MMU_WRITE, &t);
    if (r != MMU_OK || !t.host)
        return r;
    rmw->host = t.host;
    if (atomic_load_explicit(t.code, memory_order_acquire))
        rmw->code_gpa = t.gpa;
    return MMU_OK;
}

void mmu_rmw_done(struct mmu *mmu, struct mmu_rmw *rmw)
{
    if (rmw->code_gpa != MMU_NO_TAG)
        mmu->env->code_written(mmu->env->ctx, rmw->code_gpa, rmw->size);
}

bool mmu_fetch_cached(const struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code)
{
    unsigned i = (linear >> MMU_PAGE_SHIFT) & (MMU_XTLB_SIZE - 1);
    const struct mmu_exec_entry *e = &mmu->exec[!user][i];

    if (e->tag != (linear & MMU_PAGE_MASK))
        return false;
    code->gpa = (e->gpa & MMU_PAGE_MASK) | (linear & ~MMU_PAGE_MASK);
    code->host = e->host;
    code->global = e->gpa & MMU_ENTRY_GLOBAL;
    return true;
}

/* Enters what the walk found into the TLB of fetches, if it is executable memory. */
static void fill_code(struct mmu *mmu, bool user, uint64_t linear, const struct mmu_walk *w,
                      struct mmu_code *code)
{
    unsigned i = (linear >> MMU_PAGE_SHIFT) & (MMU_XTLB_SIZE - 1);
    struct mmu_exec_entry *e = &mmu->exec[!user][i];
    struct mmu_page page;

    code->gpa = w->gpa | (linear & ~MMU_PAGE_MASK);
    code->host = NULL;
    code->global = w->global;
    if (!mmu->env->page(mmu->env->ctx, w->gpa, &page) || !page.executable)
        return;
    code->host = page.host;
    mmu->used = true;
    mmu->filled_exec[w->global][!user][i / 64] |= 1ull << i % 64;
    e->tag = linear & MMU_PAGE_MASK;
    e->gpa = w->gpa | (w->global ? MMU_ENTRY_GLOBAL : 0);
    e->host = page.host;
    if (w->large_size > MMU_PAGE_SIZE)
        note_large(mmu, linear, w->large_size);
}

int mmu_fetch(struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code)
{
    struct mmu_walk w;
    int r;

    if (mmu_fetch_cached(mmu, user, linear, code))
        return MMU_OK;
    if (!mmu_canonical(mmu, linear))
        return MMU_NONCANON;
    mmu->misses++;
    mmu->misses_by[MMU_EXEC]++;
    r = mmu_walk(mmu, user ? MMU_USER : MMU_KERNEL, linear, MMU_EXEC, true, &w);
    if (r == MMU_OK)
        fill_code(mmu, user, linear, &w, code);
    return r;
}

/* A walk that changes nothing; false: an access would fault or set bits. */
static bool look_ahead(struct mmu *mmu, unsigned idx, uint64_t linear, enum mmu_access access,
                       struct mmu_walk *w)
{
    uint64_t addr = mmu->fault_addr;
    uint32_t error = mmu->fault_error;
    bool ok = mmu_canonical(mmu, linear) &&
              mmu_walk(mmu, idx, linear, access, false, w) == MMU_OK && w->accessed &&
              (access != MMU_WRITE || w->dirty);

    mmu->fault_addr = addr;
    mmu->fault_error = error;
    return ok;
}

bool mmu_prefetch_code(struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code)
{
    struct mmu_walk w;

    if (mmu_fetch_cached(mmu, user, linear, code))
        return true;
    if (!look_ahead(mmu, user ? MMU_USER : MMU_KERNEL, linear, MMU_EXEC, &w))
        return false;
    fill_code(mmu, user, linear, &w, code);
    return code->host;
}

uint8_t *mmu_prefetch(struct mmu *mmu, unsigned idx, uint64_t linear, bool write)
{
    uint64_t start = linear & MMU_PAGE_MASK;
    struct mmu_walk w;
    struct mmu_page page;
    uint8_t *host = write ? mmu_fast_write(mmu, idx, start, 1) : mmu_fast_read(mmu, idx, start, 1);

    if (host || !look_ahead(mmu, idx, start, write ? MMU_WRITE : MMU_READ, &w) ||
        !mmu->env->page(mmu->env->ctx, w.gpa, &page))
        return host;
    fill(mmu, idx, start, MMU_READ, &w, &page); /* not written yet: the page does not get dirty */
    return write ? mmu_fast_write(mmu, idx, start, 1) : mmu_fast_read(mmu, idx, start, 1);
}

bool mmu_translate(struct mmu *mmu, uint64_t linear, uint64_t *gpa)
{
    uint64_t addr = mmu->fault_addr;
    uint32_t error = mmu->fault_error;
    struct mmu_walk w;
    bool ok;

    ok = mmu_canonical(mmu, linear) &&
         mmu_walk(mmu, MMU_KERNEL_AC, linear, MMU_READ, false, &w) == MMU_OK;
    mmu->fault_addr = addr;
    mmu->fault_error = error;
    if (ok)
        *gpa = w.gpa | (linear & ~MMU_PAGE_MASK);
    return ok;
}
