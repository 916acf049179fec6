/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/heap.c: malloc and its like from the host's pages. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "freestanding/host.h"

/*
 * Sizes up to half a page come from lists of blocks of one power of two, which are cut from single
 * pages that are kept; what is larger has pages of its own. In front of each block a header says
 * which it is. The library allocates rarely: when VMs, vCPUs and devices are made.
 */
struct header {
    uint64_t size;  /* usable bytes */
    uint32_t class; /* OWN_PAGES, or which list */
    uint32_t check;
};
_Static_assert(sizeof(struct header) == 16, "blocks stay aligned to 16");

#define CLASSES   7 /* 32 to 2048 bytes, with the header */
#define SMALLEST  32u
#define OWN_PAGES CLASSES
#define OWN_SKIP  64u /* from the first page to the block, for aligned_alloc */
#define CHECK     0x766d6d68u

struct block {
    struct block *next;
};

static struct block *lists[CLASSES];
static struct spin lock;

static struct header *header_of(void *p)
{
    return (struct header *)p - 1;
}

static void *put_header(void *at, uint64_t size, uint32_t class)
{
    struct header *h = at;

    *h = (struct header){size, class, CHECK};
    return h + 1;
}

static bool refill(unsigned class)
{
    uint32_t len = SMALLEST << class;
    uint8_t *page = vmm_host->pages_alloc(vmm_host->ctx, 1);

    for (uint32_t at = 0; page && at < 4096; at += len) {
        struct block *b = (struct block *)(void *)(page + at);

        b->next = lists[class];
        lists[class] = b;
    }
    return page;
}

static void *small(size_t size)
{
    unsigned class = 0;
    struct block *b = NULL;

    while (SMALLEST << class < size + sizeof(struct header))
        class ++;
    spin_lock(&lock);
    if (lists[class] || refill(class)) {
        b = lists[class];
        lists[class] = b->next;
    }
    spin_unlock(&lock);
    return b ? put_header(b, (SMALLEST << class) - sizeof(struct header), class) : NULL;
}

static size_t own_pages(size_t size)
{
    return (size + OWN_SKIP + 4095) / 4096;
}

static void *large(size_t size)
{
    uint8_t *pages;

    if (size > SIZE_MAX / 2)
        return NULL;
    pages = vmm_host->pages_alloc(vmm_host->ctx, own_pages(size));
    return pages ? put_header(pages + OWN_SKIP - sizeof(struct header), size, OWN_PAGES) : NULL;
}

void *malloc(size_t size)
{
    return size <= 2048 - sizeof(struct header) ? small(size) : large(size);
}

void *calloc(size_t n, size_t size)
{
    void *p;

    if (size && n > SIZE_MAX / size)
        return NULL;
    p = malloc(n * size);
    if (p)
        memset(p, 0, n * size);
    return p;
}

/* Alignments up to that of a cache line. */
void *aligned_alloc(size_t alignment, size_t size)
{
    return alignment <= OWN_SKIP ? large(size) : NULL;
}

void free(void *p)
{
    struct header *h;

    if (!p)
        return;
    h = header_of(p);
    if (h->check != CHECK)
        __builtin_trap();
    h->check = 0;
    if (h->class == OWN_PAGES) {
        uint8_t *pages = (uint8_t *)p - OWN_SKIP;

        vmm_host->pages_free(vmm_host->ctx, pages, own_pages(h->size));
        return;
    }
    unsigned class = h->class;
    struct block *b = (struct block *)(void *)h;

    spin_lock(&lock);
    b->next = lists[class];
    lists[class] = b;
    spin_unlock(&lock);
}

void *realloc(void *p, size_t size)
{
    size_t old = p ? header_of(p)->size : 0;
    void *q;

    if (p && size <= old)
        return p;
    q = malloc(size);
    if (q && p) {
        memcpy(q, p, old);
        free(p);
    }
    return q;
}
