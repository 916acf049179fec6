/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/cache.c: the cache of decoded blocks. */
#include <string.h>

#include "core/os.h"
#include "core/x86/cache.h"
#include "core/x86/decode.h"

/*
 * Blocks are found by the guest-physical address of their first byte and their mode. Each page that
 * has blocks has a struct page with the lists of the blocks that begin in it and of those whose
 * last instruction ends in it, and with a map of the 64-byte granules that code was decoded from:
 * most stores into a page with code hit none. A page that sees many such stores holds data by now
 * (or more data than code): it loses its blocks, so that stores become fast again.
 *
 * A block that is dropped ("dead") may be the one that is running, may be what cpu->jump leads to.
 * So its memory stays, but all its ops are replaced by one that leaves to the slow loop: whoever is
 * in it or comes into it is out of it before the next instruction. x86_cache_tidy, outside of
 * blocks, empties cpu->jump and reuses the memory.
 *
 * Memory is bounded: when as many chunks are full as there may be, everything is flushed.
 */

#define HASH_BITS  12 /* to begin with: the table of blocks grows with their number ... */
#define HASH_MAX   20 /* ... up to this */
#define PAGE_BITS  14
#define CHUNK_SIZE (512u << 10)
#define MAX_CHUNKS 4096
#define MAX_DEAD   512
#define MAX_MISSES 1024 /* then it is cheaper to decode again than to go on with slow stores */
#define INSN_MAX   15   /* bytes of the longest instruction */

struct page {
    _Alignas(32) struct page *next;
    uint64_t gpa;
    struct x86_block *blocks; /* by next_page */
    struct x86_block *tails;  /* by next_page2 */
    uint64_t granules;
    unsigned misses; /* stores into the page that hit no granule */
    uint32_t epoch;  /* with a tier: of the last comparison of all its blocks with memory */
};

struct x86_cache {
    struct x86_block **hash;
    unsigned hash_bits, nblocks;
    struct page *pages[1u << PAGE_BITS];
    struct x86_block *free[X86_BLOCK_MAX + 1]; /* by number of instructions, by next_hash */
    struct page *free_pages;                   /* by next */
    struct x86_block *dead;                    /* by next_hash */
    unsigned ndead;
    uint32_t epoch;
    bool flush_wanted;
    uint8_t *chunk[MAX_CHUNKS];
    unsigned nchunks, current, max_chunks; /* allocated; in use; at most */
    size_t used;                           /* of the current one */
};

/* Replaces the ops of dead blocks. */
static const struct x86_op *op_stale(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_leave(cpu, op);
}

/* Behind a block's last instruction, if that is no branch. */
static const struct x86_op *op_end(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct x86_op *next = x86_next(cpu, x86_op_rip(cpu, op));

    return x86_likely(next) ? x86_follow(cpu, next) : NULL;
}

static const struct x86_op *op_end_single(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_next_slow(cpu, x86_op_rip(cpu, op));
}

/* ---- tables ---- */

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ (x >> 32);
}

/* Blocks of a page are near each other: they are looked for together. */
static struct x86_block **bucket(struct x86_cache *c, uint64_t gpa, uint32_t mode)
{
    uint64_t page = mix(gpa >> MMU_PAGE_SHIFT ^ (uint64_t)mode << 40);

    return &c->hash[(page ^ (gpa >> 4 & 0xff)) & ((1u << c->hash_bits) - 1)];
}

static size_t hash_bytes_of(unsigned bits)
{
    return sizeof(struct x86_block *) << bits;
}

/* Chains stay short, so that a lookup meets few cache lines that the processor does not have.
 * Without memory they become longer. */
static void grow_hash(struct x86_cache *c)
{
    struct x86_block **old = c->hash, *b, *next;
    unsigned bits = c->hash_bits;
    struct x86_block **hash = os_pages_alloc(hash_bytes_of(bits + 1));

    if (!hash)
        return;
    c->hash = hash;
    c->hash_bits = bits + 1;
    for (unsigned i = 0; i < 1u << bits; i++)
        for (b = old[i]; b; b = next) {
            struct x86_block **h = bucket(c, b->gpa, b->mode);

            next = b->next_hash;
            b->next_hash = *h;
            *h = b;
        }
    os_pages_free(old, hash_bytes_of(bits));
}

static struct page **page_slot(struct x86_cache *c, uint64_t gpa)
{
    struct page **p = &c->pages[mix(gpa >> MMU_PAGE_SHIFT) & ((1u << PAGE_BITS) - 1)];

    while (*p && (*p)->gpa != (gpa & MMU_PAGE_MASK))
        p = &(*p)->next;
    return p;
}

/* The granules that `len` bytes at `gpa` touch within its page. */
static uint64_t granules(uint64_t gpa, uint64_t len)
{
    unsigned first = (gpa & ~MMU_PAGE_MASK) >> 6;
    uint64_t last = ((gpa & ~MMU_PAGE_MASK) + len - 1) >> 6;

    if (last > 63)
        last = 63;
    return (~(uint64_t)0 << first) & (~(uint64_t)0 >> (63 - last));
}

/* Bytes of the block in its first page. */
static unsigned head_bytes(const struct x86_block *b)
{
    unsigned left = MMU_PAGE_SIZE - (unsigned)(b->gpa & ~MMU_PAGE_MASK);

    return b->bytes < left ? b->bytes : left;
}

static uint32_t hash_bytes(uint32_t h, const uint8_t *p, unsigned n)
{
    uint64_t x = h, w;

    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        x = mix(x ^ w);
    }
    w = 0;
    memcpy(&w, p, n);
    /* mix has folded the upper half, on which all bytes act, into the lower one. */
    return (uint32_t)mix(x ^ w ^ (uint64_t)n << 56);
}

static uint32_t hash_code(const uint8_t *head, unsigned nhead, const uint8_t *tail, unsigned ntail)
{
    uint32_t h = hash_bytes(0x811c9dc5u, head, nhead);

    return ntail ? hash_bytes(h, tail, ntail) : h;
}

/* ---- memory ---- */

static size_t block_size(unsigned n)
{
    size_t size = sizeof(struct x86_block) + (n + 1) * sizeof(struct x86_op);

    return (size + 31) & ~(size_t)31;
}

static void flush_now(struct x86_cpu *cpu);

/* Makes sure that a block of any size and its two pages can be had. Flushes if there is no room:
 * with at least one chunk, there is some after that. */
static void reserve(struct x86_cpu *cpu)
{
    struct x86_cache *c = cpu->cache;

    if (x86_likely(c->used + block_size(X86_BLOCK_MAX) + 2 * sizeof(struct page) <= CHUNK_SIZE))
        return;
    if (c->current + 1 == c->nchunks && c->nchunks < c->max_chunks) {
        c->chunk[c->nchunks] = os_pages_alloc(CHUNK_SIZE);
        if (c->chunk[c->nchunks])
            c->nchunks++;
    }
    if (c->current + 1 < c->nchunks) {
        c->current++;
        c->used = 0;
    } else {
        flush_now(cpu);
    }
}

static void *take(struct x86_cache *c, size_t size)
{
    void *p = c->chunk[c->current] + c->used;

    c->used += size;
    return p;
}

static struct x86_block *block_alloc(struct x86_cache *c, unsigned n)
{
    struct x86_block *b = c->free[n];

    if (!b)
        return take(c, block_size(n));
    c->free[n] = b->next_hash;
    return b;
}

static struct page *page_alloc(struct x86_cache *c)
{
    struct page *pg = c->free_pages;

    if (pg)
        c->free_pages = pg->next;
    else
        pg = take(c, sizeof(*pg));
    memset(pg, 0, sizeof(*pg));
    pg->epoch = c->epoch;
    return pg;
}

/* Takes an empty page out of its list. */
static void page_remove(struct x86_cache *c, struct page **slot)
{
    struct page *pg = *slot;

    *slot = pg->next;
    pg->next = c->free_pages;
    c->free_pages = pg;
}

bool x86_cache_create(struct x86_cpu *cpu)
{
    struct x86_cache *c = os_pages_alloc(sizeof(*c)); /* a small guest touches little of it */

    if (!c)
        return false;
    c->chunk[0] = os_pages_alloc(CHUNK_SIZE);
    c->nchunks = c->chunk[0] != NULL;
    c->max_chunks = X86_CACHE_BYTES / CHUNK_SIZE;
    c->hash_bits = HASH_BITS;
    c->hash = os_pages_alloc(hash_bytes_of(HASH_BITS));
    if (!c->chunk[0] || !c->hash) {
        x86_cache_destroy(c);
        return false;
    }
    cpu->cache = c;
    return true;
}

void x86_cache_limit(struct x86_cpu *cpu, size_t bytes)
{
    size_t n = bytes / CHUNK_SIZE;

    cpu->cache->max_chunks = n > MAX_CHUNKS ? MAX_CHUNKS : n < 1 ? 1 : (unsigned)n;
}

void x86_cache_destroy(struct x86_cache *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->nchunks; i++)
        os_pages_free(c->chunk[i], CHUNK_SIZE);
    if (c->hash)
        os_pages_free(c->hash, hash_bytes_of(c->hash_bits));
    os_pages_free(c, sizeof(*c));
}

/* ---- dropping blocks ---- */

static void unlink_hash(struct x86_cache *c, struct x86_block *b)
{
    struct x86_block **p = bucket(c, b->gpa, b->mode);

    while (*p != b)
        p = &(*p)->next_hash;
    *p = b->next_hash;
    c->nblocks--;
}

static void unlink_head(struct x86_cache *c, struct x86_block *b)
{
    struct x86_block **p = &(*page_slot(c, b->gpa))->blocks;

    while (*p != b)
        p = &(*p)->next_page;
    *p = b->next_page;
}

static void unlink_tail(struct x86_cache *c, struct x86_block *b)
{
    struct x86_block **p;

    if (b->gpa2 == MMU_NO_TAG)
        return;
    p = &(*page_slot(c, b->gpa2))->tails;
    while (*p != b)
        p = &(*p)->next_page2;
    *p = b->next_page2;
}

static void make_stale(struct x86_cpu *cpu, struct x86_block *b)
{
    if (cpu->tier && !b->dead)
        cpu->tier->dropped(cpu, b);
    b->dead = true;
    for (unsigned i = 0; i <= b->n; i++)
        b->ops[i].fn = op_stale;
}

/* After all links are gone. */
static void bury(struct x86_cpu *cpu, struct x86_block *b)
{
    struct x86_cache *c = cpu->cache;

    unlink_hash(c, b);
    make_stale(cpu, b);
    b->next_hash = c->dead;
    c->dead = b;
    c->ndead++;
    cpu->count.blocks_flushed++;
}

static void kill(struct x86_cpu *cpu, struct x86_block *b)
{
    unlink_head(cpu->cache, b);
    unlink_tail(cpu->cache, b);
    bury(cpu, b);
}

/* Drops what overlaps [first, last] (offsets in the page) and finds out which granules are left. */
static void page_invalidate(struct x86_cpu *cpu, struct page *pg, unsigned first, unsigned last)
{
    struct x86_block *b, **p;

    pg->granules = 0;
    for (p = &pg->blocks; (b = *p);) {
        unsigned begin = (unsigned)(b->gpa & ~MMU_PAGE_MASK), n = head_bytes(b);

        if (begin <= last && begin + n > first) {
            *p = b->next_page;
            unlink_tail(cpu->cache, b);
            bury(cpu, b);
        } else {
            pg->granules |= granules(b->gpa, n);
            p = &b->next_page;
        }
    }
    for (p = &pg->tails; (b = *p);) {
        unsigned n = b->bytes - head_bytes(b);

        if (n > first) {
            *p = b->next_page2;
            unlink_head(cpu->cache, b);
            bury(cpu, b);
        } else {
            pg->granules |= granules(b->gpa2, n);
            p = &b->next_page2;
        }
    }
}

/* The page is gone when it has no blocks any more: true. */
static bool invalidate_in_page(struct x86_cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct page **slot = page_slot(cpu->cache, gpa), *pg = *slot;
    unsigned first = (unsigned)(gpa & ~MMU_PAGE_MASK);

    if (!pg)
        return true;
    if (pg->granules & granules(gpa, len))
        page_invalidate(cpu, pg, first, first + (unsigned)len - 1);
    else if (++pg->misses > MAX_MISSES)
        page_invalidate(cpu, pg, 0, MMU_PAGE_SIZE - 1);
    if (pg->blocks || pg->tails)
        return false;
    page_remove(cpu->cache, slot);
    return true;
}

/* A block that begins in one page of the range and ends in another takes both pages' lists with it,
 * so that pages are removed only in a second pass. */
static void invalidate_pages(struct x86_cpu *cpu, uint64_t first, uint64_t last)
{
    struct x86_cache *c = cpu->cache;

    for (unsigned i = 0; i < 1u << PAGE_BITS; i++)
        for (struct page *pg = c->pages[i]; pg; pg = pg->next)
            if (pg->gpa <= last && (pg->gpa | ~MMU_PAGE_MASK) >= first)
                page_invalidate(cpu, pg, 0, MMU_PAGE_SIZE - 1);
    for (unsigned i = 0; i < 1u << PAGE_BITS; i++)
        for (struct page **p = &c->pages[i], *pg; (pg = *p);) {
            if (pg->blocks || pg->tails)
                p = &pg->next;
            else
                page_remove(c, p);
        }
}

bool x86_cache_invalidate(struct x86_cpu *cpu, uint64_t gpa, uint64_t len)
{
    uint64_t last = gpa + len - 1;

    if (cpu->env->invalidated)
        cpu->env->invalidated(cpu->env->mmu.ctx, gpa, len ? len : 1);
    if (!len)
        return !*page_slot(cpu->cache, gpa);
    if ((gpa & MMU_PAGE_MASK) == (last & MMU_PAGE_MASK))
        return invalidate_in_page(cpu, gpa, len);
    invalidate_pages(cpu, gpa, last < gpa ? ~(uint64_t)0 : last);
    return true;
}

static void flush_now(struct x86_cpu *cpu)
{
    struct x86_cache *c = cpu->cache;

    c->flush_wanted = false;
    if (!c->current && !c->used)
        return; /* no block since the last time */
    for (unsigned i = 0; i < 1u << PAGE_BITS; i++)
        for (struct page *pg = c->pages[i]; pg; pg = pg->next)
            for (struct x86_block *b = pg->blocks; b; b = b->next_page)
                cpu->count.blocks_flushed++;
    memset(c->pages, 0, sizeof(c->pages));
    memset(c->hash, 0, hash_bytes_of(c->hash_bits));
    c->nblocks = 0;
    memset(c->free, 0, sizeof(c->free));
    c->free_pages = NULL;
    c->dead = NULL;
    c->ndead = 0;
    c->current = 0;
    c->used = 0;
    x86_jump_clear(cpu);
    if (cpu->tier)
        cpu->tier->flushed(cpu);
}

void x86_cache_flush(struct x86_cpu *cpu)
{
    x86_jump_flush(cpu);
    if (cpu->blk) {
        make_stale(cpu, cpu->blk);
        cpu->cache->flush_wanted = true;
    } else {
        flush_now(cpu);
    }
}

void x86_end_block(struct x86_cpu *cpu)
{
    if (!cpu->blk)
        return;
    x86_wake(cpu);
    x86_jump_flush(cpu);
    if (!cpu->blk->dead)
        kill(cpu, cpu->blk);
}

bool x86_block_is_current(const struct x86_cpu *cpu, const struct x86_block *b)
{
    return !b->dead && b->epoch == cpu->cache->epoch;
}

void x86_cache_recheck(struct x86_cpu *cpu)
{
    x86_jump_flush(cpu);
    if (cpu->blk && !cpu->blk->dead)
        kill(cpu, cpu->blk);
    if (!++cpu->cache->epoch)
        x86_cache_flush(cpu);
}

void x86_cache_tidy(struct x86_cpu *cpu)
{
    struct x86_cache *c = cpu->cache;

    if (x86_unlikely(c->flush_wanted))
        flush_now(cpu);
    if (x86_likely(c->ndead < MAX_DEAD))
        return;
    x86_jump_clear(cpu);
    while (c->dead) {
        struct x86_block *b = c->dead;

        c->dead = b->next_hash;
        b->next_hash = c->free[b->n];
        c->free[b->n] = b;
    }
    c->ndead = 0;
}

/* ---- finding and making blocks ---- */

/*
 * The code of a block with a page crossing: the page behind `code`, which must be the block's. The
 * walk may write to page tables that share a page with code, which drops blocks and gives other
 * threads a turn. *again: memory was mapped anew meanwhile; look `code` up again.
 */
static bool find_tail(struct x86_cpu *cpu, struct x86_code *code, struct x86_code *tail,
                      bool *again)
{
    uint64_t linear = (code->linear & MMU_PAGE_MASK) + MMU_PAGE_SIZE;
    uint64_t flushes = cpu->mmu.flush_gen;

    if ((cpu->mode & X86_MODE_CODE) != X86_MODE_CODE64)
        linear = (uint32_t)linear;
    if (!x86_fetch(cpu, linear, tail))
        return false;
    code->global &= tail->global;
    *again = cpu->mmu.flush_gen != flushes;
    return !*again;
}

bool x86_block_is_made_of(const struct x86_block *b, const uint8_t *bytes)
{
    return b->hash == hash_code(bytes, b->bytes, NULL, 0);
}

/* Whether memory still holds what the block, in one page, was decoded from. */
static bool unchanged(const struct x86_block *b, const struct x86_code *code)
{
    return x86_block_is_made_of(b, code->page + (code->gpa & ~MMU_PAGE_MASK));
}

/* A tier's code goes from block to block within a page, without lookups: so all of the page's
 * blocks are compared with memory before the first of them is entered in an epoch. */
static void check_page(struct x86_cpu *cpu, const struct x86_code *code)
{
    struct x86_cache *c = cpu->cache;
    struct page *pg = *page_slot(c, code->gpa);
    struct x86_block *b, *next;

    if (!pg || pg->epoch == c->epoch)
        return;
    pg->epoch = c->epoch;
    for (b = pg->blocks; b; b = next) {
        unsigned offset = (unsigned)(b->gpa & ~MMU_PAGE_MASK);

        next = b->next_page;
        if (b->gpa2 == MMU_NO_TAG && x86_block_is_made_of(b, code->page + offset))
            b->epoch = c->epoch;
        else
            kill(cpu, b);
    }
}

/* A block in one page that has been compared with memory in this epoch, as have been all blocks of
 * its page then; or NULL. */
static struct x86_block *lookup_current(struct x86_cache *c, uint64_t gpa, uint32_t mode)
{
    struct x86_block *b = *bucket(c, gpa, mode);

    while (b && (b->gpa != gpa || b->mode != mode || b->gpa2 != MMU_NO_TAG))
        b = b->next_hash;
    return b && b->epoch == c->epoch ? b : NULL;
}

/* NULL: there is none, an exception is queued, cpu->stop is set, or *again is. */
static struct x86_block *lookup(struct x86_cpu *cpu, struct x86_code *code, uint32_t mode,
                                bool *again)
{
    struct x86_cache *c = cpu->cache;
    struct x86_code tail = {0};
    struct x86_block *b, *next;
    bool have_tail = false;

    for (b = *bucket(c, code->gpa, mode); b; b = next) {
        next = b->next_hash;
        if (b->gpa != code->gpa || b->mode != mode)
            continue;
        if (b->gpa2 != MMU_NO_TAG && b->epoch != c->epoch) {
            /* It may end before the page does by now. */
            kill(cpu, b);
            return NULL;
        }
        if (b->gpa2 != MMU_NO_TAG && !have_tail) {
            if (!find_tail(cpu, code, &tail, again))
                return NULL;
            have_tail = true;
            next = *bucket(c, code->gpa, mode); /* b may be gone */
            continue;
        }
        if (b->gpa2 != MMU_NO_TAG && tail.gpa != b->gpa2)
            continue;
        if (x86_likely(b->epoch == c->epoch))
            return b;
        if (unchanged(b, code)) {
            b->epoch = c->epoch;
            return b;
        }
        kill(cpu, b);
        return NULL;
    }
    return NULL;
}

/* The page's entry. NULL: the page has just been marked as code, for which other threads may have
 * had a turn; look the code up again. */
static struct page *get_page(struct x86_cpu *cpu, uint64_t gpa)
{
    struct page **slot = page_slot(cpu->cache, gpa), *pg = *slot;

    if (pg)
        return pg;
    pg = page_alloc(cpu->cache);
    pg->gpa = gpa & MMU_PAGE_MASK;
    *slot = pg;
    cpu->env->code_decoded(cpu->env->mmu.ctx, pg->gpa);
    return NULL;
}

/* Decodes into ops: the number of instructions; *bytes gets their length, *ends whether the last
 * one ends the block. 0: the first one is not complete in `avail` bytes. */
static unsigned decode_run(struct x86_cpu *cpu, uint32_t mode, const uint8_t *code, unsigned avail,
                           struct x86_op *ops, unsigned *bytes, bool *ends)
{
    unsigned max = mode & X86_MODE_SINGLE ? 1 : X86_BLOCK_MAX, n = 0, at = 0;
    bool end = false;

    while (n < max && at < avail && !end) {
        struct x86_op *op = &ops[n];
        unsigned len;

        *op = (struct x86_op){.off = (uint16_t)at, .idx = (uint8_t)n};
        len = x86_decode(cpu, mode, code + at, avail - at, op, &end);
        if (!len)
            break;
        op->len = (uint8_t)len;
        at += len;
        n++;
    }
    *bytes = at;
    *ends = end;
    return n;
}

/* Makes a block of the first `n` ops and puts it into all lists. */
static struct x86_block *insert(struct x86_cpu *cpu, const struct x86_block *key,
                                const struct x86_op *ops, struct page *pg, struct page *pg2)
{
    struct x86_cache *c = cpu->cache;
    unsigned n = key->n;
    struct x86_block *b = block_alloc(c, n), **h;

    if (++c->nblocks * 2 > 1u << c->hash_bits && c->hash_bits < HASH_MAX)
        grow_hash(c);
    h = bucket(c, key->gpa, key->mode);
    *b = *key;
    b->epoch = c->epoch;
    memcpy(b->ops, ops, n * sizeof(*ops));
    b->ops[n] = (struct x86_op){.fn = b->mode & X86_MODE_SINGLE ? op_end_single : op_end,
                                .off = b->bytes,
                                .idx = (uint8_t)n};
    b->next_hash = *h;
    *h = b;
    b->next_page = pg->blocks;
    pg->blocks = b;
    pg->granules |= granules(b->gpa, head_bytes(b));
    if (pg2) {
        b->next_page2 = pg2->tails;
        pg2->tails = b;
        pg2->granules |= granules(b->gpa2, b->bytes - head_bytes(b));
    }
    cpu->count.blocks_decoded++;
    if (cpu->tier)
        cpu->tier->made(cpu, b);
    return b;
}

struct x86_block *x86_cache_get(struct x86_cpu *cpu, struct x86_code *code, uint32_t mode,
                                struct x86_block *hint, bool *again)
{
    struct x86_block *b, key = {.gpa = code->gpa, .gpa2 = MMU_NO_TAG, .mode = mode};
    struct x86_op ops[X86_BLOCK_MAX];
    uint8_t bytes[X86_BLOCK_MAX * INSN_MAX];
    unsigned offset = (unsigned)(code->gpa & ~MMU_PAGE_MASK), avail = MMU_PAGE_SIZE - offset, len;
    struct page *pg, *pg2 = NULL;
    bool ends;

    *again = false;
    if (hint->gpa == code->gpa && hint->mode == mode && hint->gpa2 == MMU_NO_TAG && !hint->dead &&
        hint->epoch == cpu->cache->epoch)
        return hint;
    cpu->count.block_lookups++;
    b = lookup_current(cpu->cache, code->gpa, mode);
    if (x86_likely(b))
        return b;
    if (cpu->tier)
        check_page(cpu, code);
    b = lookup(cpu, code, mode, again);
    if (x86_likely(b) || *again || cpu->event.valid || cpu->stop)
        return b;

    reserve(cpu);
    pg = get_page(cpu, code->gpa);
    if (!pg) {
        *again = true;
        return NULL;
    }
    /* Other vCPUs may write to the page meanwhile: what is decoded is one copy. */
    if (avail > sizeof(bytes))
        avail = sizeof(bytes);
    memcpy(bytes, code->page + offset, avail);
    key.n = (uint8_t)decode_run(cpu, mode, bytes, avail, ops, &len, &ends);
    if (!key.n) {
        struct x86_code tail;

        if (!find_tail(cpu, code, &tail, again))
            return NULL;
        pg2 = get_page(cpu, tail.gpa);
        if (!pg2 || *page_slot(cpu->cache, code->gpa) != pg) {
            *again = true;
            return NULL;
        }
        key.gpa2 = tail.gpa;
        memcpy(bytes, code->page + offset, avail);
        memcpy(bytes + avail, tail.page, INSN_MAX);
        key.n = (uint8_t)decode_run(cpu, mode | X86_MODE_SINGLE, bytes, avail + INSN_MAX, ops, &len,
                                    &ends);
    }
    key.ends = ends;
    key.bytes = (uint16_t)len;
    key.hash = hash_code(bytes, head_bytes(&key), bytes + avail, len - head_bytes(&key));
    return insert(cpu, &key, ops, pg, pg2);
}
