/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/sink.h: what shadow paging puts its mappings into: tables for the hardware, or the address
 * space of a process. */
#ifndef MMU_SINK_H
#define MMU_SINK_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/pages.h"

/* Rights of a mapping, as the CPU understands page table entries with CR0.WP = EFER.NXE = 1. */
#define SINK_W 1u
#define SINK_X 2u
#define SINK_U 4u /* user mode may access; supervisor mode as SMEP and SMAP allow */

struct sink_page {
    uint64_t linear, gpa;
    uint8_t *host;
    uint64_t size; /* 4 KiB, or 2 MiB with SINK_LARGE; linear, gpa and host are multiples of it */
    unsigned rights;
    uint8_t pkey; /* 0 without SINK_PKEY */
};

/* What a sink can do. */
#define SINK_LARGE 1u /* pages of 2 MiB */
#define SINK_PKEY  2u /* protection keys, by the guest's PKRU */
#define SINK_SMEP  4u /* supervisor mode does not fetch from user pages while the guest's CR4 */
#define SINK_SMAP  8u /* says so, or access them */

/* A space is what one set of the guest's page tables makes of linear addresses. */
struct sink_ops {
    unsigned features;
    /* `long_mode`: 48-bit linear addresses, else 32-bit ones. NULL: no memory. */
    void *(*space_new)(void *ctx, bool long_mode);
    void (*space_free)(void *ctx, void *space); /* no mappings are left */
    /* Maps a page. There is nothing at its place, or a page of the same size, which it replaces.
     * False: no memory, nothing changed (then mappings are removed and it is called again). */
    bool (*map)(void *ctx, void *space, const struct sink_page *page);
    /* Gives a mapped page fewer rights. */
    void (*protect)(void *ctx, void *space, uint64_t linear, uint64_t size, unsigned rights);
    void (*unmap)(void *ctx, void *space, uint64_t linear, uint64_t size);
    /* What has been taken away until now cannot be used by any vCPU any more when it returns, or
     * before that vCPU's next entry. */
    void (*flush)(void *ctx);
};

/* ---- tables for the hardware: 4-level in long mode, else PAE ---- */

struct sink_x86 {
    const struct mmu_pages *pages;
    /* Makes the vCPUs forget translations (INVVPID before the next entry; those in the guest leave
     * it first). */
    void (*flush)(void *ctx);
    void *ctx;
    uint32_t max_tables;
    bool large;      /* use pages of 2 MiB */
    bool pkey;       /* the CPU has protection keys, and the guest's PKRU */
    bool smep, smap; /* the CPU has them */
    uint32_t tables; /* in use, with those that wait for a flush */
    void *pending;
    struct sink_ops ops; /* by sink_x86 */
};

/* The functions, whose ctx is `x`; after its flags have been set. */
const struct sink_ops *sink_x86(struct sink_x86 *x);

/* The value of CR3 for the VMCS: a 4-level table, or page-directory pointers below 4 GiB. */
uint64_t sink_x86_cr3(const struct sink_x86 *x, const void *space);

#endif
