/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/shadow.h: shadow paging: the guest's page tables made into mappings of a sink.
 *
 * What is mapped follows from a walk of the guest's tables, and stays until the guest invalidates
 * it as the architecture demands (SDM Vol. 3A 4.10.4): like a TLB it may be stale until then and
 * not after. docs/mmu.md tells how.
 *
 * One struct shadow per VM; calls are made with a lock of the caller's held. */
#ifndef MMU_SHADOW_H
#define MMU_SHADOW_H

#include "mmu/mmu.h"
#include "mmu/sink.h"

struct shadow;
struct shadow_space;

#define SHADOW_MIN_MAPS  32u
#define SHADOW_MIN_NODES 32u

struct shadow_config {
    const struct mmu_pages *pages; /* for the module's own records */
    const struct sink_ops *sink;
    void *sink_ctx;
    uint32_t max_spaces; /* at least one per vCPU */
    uint32_t max_nodes;  /* guest tables and large pages in use, SHADOW_MIN_NODES or more */
    uint32_t max_maps;   /* mapped pages, SHADOW_MIN_MAPS or more */
    /* Whether the 2 MiB at `gpa` (aligned) are memory in one piece of the host's physical memory,
     * aligned there, too, all writable or all not, likewise executable, and no page of it holds
     * decoded code or is tracked. NULL: never. */
    bool (*large)(void *ctx, uint64_t gpa);
    /* Stores of the software CPU, of devices and of the host to the guest table at `gpa` must come
     * with shadow_written from now on, or need not. (MMU_CODE_TABLE in the page's word is one way
     * to see them.) NULL: shadow_written comes with each store. */
    void (*watch)(void *ctx, uint64_t gpa, bool on);
    /* Who decodes code compares it before each use: the guest's stores to it need not be seen. */
    bool code_compared;
    void *ctx;
};

/* One vCPU: its control registers are those of `mmu` (mmu_set_mode), its memory is mmu->env. */
struct shadow_vcpu {
    struct shadow *shadow;
    struct mmu *mmu;
    struct shadow_space *space; /* NULL: none yet, or no memory for it */
    struct shadow_vcpu *next;
};

enum shadow_result {
    SHADOW_RETRY,   /* go on in the guest */
    SHADOW_PF,      /* #PF for the guest: mmu->fault_addr, mmu->fault_error */
    SHADOW_MMIO,    /* no memory: emulate the instruction */
    SHADOW_EMULATE, /* one that no mapping can let through: emulate the instruction */
    SHADOW_NOMEM,   /* no page from `pages` or the sink, even with all else removed: emulate it */
    SHADOW_UNSUP    /* the guest has SMEP or SMAP on, and the sink cannot enforce it */
};

/* NULL: no memory, or a limit is below its minimum. */
struct shadow *shadow_new(const struct shadow_config *config);
/* Without a call of `watch` for what is still watched. */
void shadow_free(struct shadow *sh);

void shadow_vcpu_add(struct shadow *sh, struct shadow_vcpu *sv, struct mmu *mmu);
void shadow_vcpu_remove(struct shadow_vcpu *sv);

/*
 * To be called after mmu_set_mode: the guest has loaded CR3, CR0, CR4, EFER or (without SINK_PKEY)
 * PKRU, or executed INVPCID for more than an address; what was changed in its tables until now
 * counts. With PCIDs too: a load that need not invalidate may (SDM Vol. 3A 4.10.4.1), and other
 * PCIDs' translations are looked at when they are loaded. SHADOW_RETRY, NOMEM or UNSUP.
 */
enum shadow_result shadow_load(struct shadow_vcpu *sv);

/*
 * The same where there is nothing to do but to find the space: then it is true, and nothing has
 * been taken away, allocated or freed. Without `move` nothing is changed either, and it is only
 * true if the space stays: this may be asked while other vCPUs run.
 */
bool shadow_load_quick(struct shadow_vcpu *sv, bool move);

/* INVLPG, or INVPCID of one address of the current PCID. (Of another PCID: nothing to do.) */
void shadow_invlpg(struct shadow_vcpu *sv, uint64_t linear);
/* Whether shadow_invlpg would find nothing to drop. Changes nothing: as shadow_load_quick. */
bool shadow_invlpg_holds(const struct shadow_vcpu *sv, uint64_t linear);

/*
 * The guest met a page fault at `linear`. `idx`: MMU_USER for user-mode accesses; MMU_KERNEL for
 * supervisor-mode ones with RFLAGS.AC = 0 or at CPL 3; MMU_KERNEL_AC with AC = 1. *gpa is set with
 * SHADOW_MMIO.
 */
enum shadow_result shadow_fault(struct shadow_vcpu *sv, uint64_t linear, unsigned idx,
                                enum mmu_access access, uint64_t *gpa);

/* The host, the interpreter or a device has written guest memory. */
void shadow_written(struct shadow *sh, uint64_t gpa, uint64_t len);
/* Stores to [gpa, gpa+len) are to be seen: decoded code, or pages that count as clean again. */
void shadow_protect_gpa(struct shadow *sh, uint64_t gpa, uint64_t len);
/* The memory map has changed there. */
void shadow_unmap_gpa(struct shadow *sh, uint64_t gpa, uint64_t len);

/* The sink's space of what is loaded. */
void *shadow_sink_space(const struct shadow_vcpu *sv);

struct shadow_counts {
    uint64_t faults;       /* calls of shadow_fault */
    uint64_t maps;         /* mappings made or changed */
    uint64_t injected;     /* SHADOW_PF */
    uint64_t unsyncs;      /* guest tables that became writable */
    uint64_t resyncs;      /* guest tables that were compared with what was taken from them */
    uint64_t dropped;      /* mappings removed because the guest's entry had changed */
    uint64_t evictions;    /* nodes removed for want of memory or at a limit */
    uint64_t loads, found; /* shadow_load, and how often there was a space already */
};
const struct shadow_counts *shadow_counts(const struct shadow *sh);

#endif
