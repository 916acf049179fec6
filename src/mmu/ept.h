/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/ept.h: extended page tables (SDM Vol. 3C 28.3): guest-physical to host-physical addresses.
 *
 * One writer at a time (the caller's lock); logical processors use the tables all the while.
 * Functions that can fail change nothing when they do: tables are set aside before the first
 * change. Tables that are taken out stay allocated until every processor has invalidated. */
#ifndef MMU_EPT_H
#define MMU_EPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/pages.h"

#define EPT_R   1u
#define EPT_W   2u
#define EPT_X   4u
#define EPT_RWX 7u

/* Memory types (SDM Vol. 3A table 11-2). */
#define EPT_UC 0u
#define EPT_WC 1u
#define EPT_WT 4u
#define EPT_WP 5u
#define EPT_WB 6u

/* IA32_VMX_EPT_VPID_CAP (SDM Vol. 3D A.10). */
#define EPT_CAP_EXEC_ONLY     (1ull << 0)
#define EPT_CAP_4LEVEL        (1ull << 6)
#define EPT_CAP_UC            (1ull << 8)
#define EPT_CAP_WB            (1ull << 14)
#define EPT_CAP_2M            (1ull << 16)
#define EPT_CAP_1G            (1ull << 17)
#define EPT_CAP_INVEPT        (1ull << 20)
#define EPT_CAP_AD            (1ull << 21)
#define EPT_CAP_INVEPT_SINGLE (1ull << 25)
#define EPT_CAP_INVEPT_ALL    (1ull << 26)

enum ept_error {
    EPT_OK,
    EPT_E_ARG,    /* not aligned, empty, or beyond the guest's or the host's address width */
    EPT_E_RIGHTS, /* write without read, or execute-only where the CPU has no such pages */
    EPT_E_TYPE,   /* the callback named a memory type that is none */
    EPT_E_CAPS,   /* the CPU's tables are of another kind, or it has no usable INVEPT */
    EPT_E_NOMEM,  /* no page for a table */
    EPT_E_LIMIT   /* more than max_tables would be in use; those count that wait for an INVEPT */
};

struct ept_config {
    const struct mmu_pages *pages;
    uint64_t cap;       /* IA32_VMX_EPT_VPID_CAP */
    unsigned phys_bits; /* the CPU's physical address width */
    uint32_t max_tables;
    bool accessed_dirty; /* use accessed and dirty bits if the CPU has them */
    /* The memory type of host-physical memory. *len comes in as the number of bytes asked about,
     * and may be lowered to how far the type reaches (a multiple of 4096). NULL: all is WB. */
    unsigned (*type)(void *ctx, uint64_t hpa, uint64_t *len);
    void *ctx;
};

/* One logical processor that may cache translations. */
struct ept_cpu {
    uint64_t seen;
    struct ept_cpu *next;
};

struct ept {
    struct ept_config cfg;
    uint64_t *root;
    uint32_t tables;   /* in use, and taken out but not free yet */
    uint32_t aside;    /* pages in `reserve` */
    uint64_t *reserve; /* set aside for the change at hand; linked by the first word */
    /* Taken out: the first word links, the second is the generation that ends their use. */
    uint64_t *pending;
    uint64_t gen; /* counts changes that need an invalidation */
    struct ept_cpu *cpus;
    bool ad, tracking;
};

/* Whether a CPU with this IA32_VMX_EPT_VPID_CAP has tables and INVEPT as they are needed here. */
bool ept_usable(uint64_t cap);
int ept_init(struct ept *ept, const struct ept_config *config);
/* Frees everything. No processor uses the tables any more, and none will without an INVEPT. */
void ept_free(struct ept *ept);

/* The EPT pointer for the VMCS (SDM Vol. 3C 24.6.11). */
uint64_t ept_eptp(const struct ept *ept);

/* Maps [gpa, gpa+len) to [hpa, hpa+len), in pages as large as they can be; replaces what was there.
 * Rights 0 is as ept_unmap. */
int ept_map(struct ept *ept, uint64_t gpa, uint64_t hpa, uint64_t len, unsigned rights);
int ept_unmap(struct ept *ept, uint64_t gpa, uint64_t len);
/* Changes the rights of what is mapped in the range, which may have holes. */
int ept_protect(struct ept *ept, uint64_t gpa, uint64_t len, unsigned rights);

/* ---- tracking of written pages ---- */

/* From now on pages are of 4 KiB and their being written is noted: by dirty bits, or where those
 * are not used by taking the right to write away. What was written until now counts as clean. */
int ept_track(struct ept *ept, bool on);
/* A write met a page without the right to write: true if that was for tracking only. The page is
 * writable and dirty now. */
bool ept_note_write(struct ept *ept, uint64_t gpa);
/* Calls `fn` for each page in the range that has been written since it was last reported. */
void ept_harvest(struct ept *ept, uint64_t gpa, uint64_t len, void (*fn)(void *ctx, uint64_t gpa),
                 void *ctx);

/* ---- looking ---- */

/* Why an entry is misconfigured (SDM Vol. 3C 28.3.3.1). */
enum ept_misconfig {
    EPT_FINE,
    EPT_MIS_WRITE_ONLY, /* bit 0 clear, bit 1 set */
    EPT_MIS_EXEC_ONLY,  /* bit 0 clear, bit 2 set, and the CPU has no execute-only pages */
    EPT_MIS_ADDRESS,    /* address bits beyond the physical address width */
    EPT_MIS_RESERVED,   /* bits 6:3 of an entry that refers to a table */
    EPT_MIS_PAGE_SIZE,  /* bit 7 in a PML4E, or for a page size that the CPU does not have */
    EPT_MIS_ALIGNMENT,  /* address bits below the size of a large page */
    EPT_MIS_TYPE        /* memory type 2, 3 or 7 */
};

enum ept_misconfig ept_misconfig(uint64_t cap, unsigned phys_bits, unsigned level, uint64_t entry);
const char *ept_misconfig_text(enum ept_misconfig rule);

enum ept_result { EPT_TRANSLATED, EPT_VIOLATION, EPT_MISCONFIGURATION };

struct ept_walk {
    unsigned level; /* of the last entry that was looked at: 4 to 1 */
    uint64_t entry; /* its value */
    enum ept_misconfig rule;
    unsigned rights; /* of all levels that were looked at */
    uint64_t hpa;    /* exact; if translated, or a violation for want of rights */
    uint64_t size;   /* of the page, or 0 if there is none */
    unsigned type;
    bool accessed, dirty;
};

/* What the CPU makes of an access with `rights` (of a lookup: 0, which any page allows). */
enum ept_result ept_walk(const struct ept *ept, uint64_t gpa, unsigned rights, struct ept_walk *w);

/* ---- invalidation ---- */

/* A processor begins and ends to use the tables. It must invalidate first: it has not seen
 * anything. */
void ept_cpu_add(struct ept *ept, struct ept_cpu *cpu);
void ept_cpu_remove(struct ept *ept, struct ept_cpu *cpu);

/*
 * Whether this processor must execute INVEPT (for this EPT pointer) before the next VM entry, or,
 * when it is in the guest now, be made to leave it and do so: something was taken away that it may
 * have cached. What was only added needs none: entries that are not present are not cached, and a
 * violation drops what caused it (SDM Vol. 3C 28.4.3.1), so that violations that a walk does not
 * confirm must be resumed.
 */
static inline bool ept_needs_invept(const struct ept *ept, const struct ept_cpu *cpu)
{
    return cpu->seen != __atomic_load_n(&ept->gen, __ATOMIC_ACQUIRE);
}
/* The INVEPT type to use: 1 single-context, 2 all contexts. */
unsigned ept_invept_type(const struct ept *ept);
/* To be called with ept_generation as read before the INVEPT. */
static inline uint64_t ept_generation(const struct ept *ept)
{
    return __atomic_load_n(&ept->gen, __ATOMIC_ACQUIRE);
}
void ept_invept_done(struct ept *ept, struct ept_cpu *cpu, uint64_t generation);

#endif
