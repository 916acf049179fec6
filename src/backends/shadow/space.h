/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/space.h: which pages of a guest's address space a stub has. */
#ifndef BACKENDS_SHADOW_SPACE_H
#define BACKENDS_SHADOW_SPACE_H

#include "backends/interp/interp.h"
#include "backends/shadow/stub.h"

/*
 * What is mapped in a stub is like the content of a TLB: each page is there by a translation that
 * the vCPU's MMU has given (accessed, and dirty if it is writable there). What is taken away from
 * the MMU (mmu.gone) is compared with what it gives now before the guest task runs again. So all
 * that the MMU is told takes effect: INVLPG, loads of CR3, code that was decoded, dirty pages that
 * were cleaned, changes of the memory map.
 *
 * Pages that are executable there are marked like those from which the vCPU has decoded code:
 * stores to them are seen, and take them away. They never are writable there.
 */

struct space_page {
    uint64_t va;
    const uint8_t *host; /* of the page */
    uint64_t gpa;
    uint32_t next;      /* of those in the same bucket, + 1 */
    uint32_t next_code; /* likewise, if it is executable */
    uint8_t prot;       /* PROT_* */
    bool stale;         /* code that has been written to */
};

#define SPACE_BUCKET_BITS 10
#define SPACE_CODE_BITS   8
#define SPACE_MAX_PAGES   24576 /* well below the 65,530 mappings that a process may have */

struct space {
    struct stub stub;
    uint64_t cr3;  /* address of the top table */
    uint64_t seen; /* of mmu.ngone: what has been taken from the MMU is not here either */
    struct space_page *page;
    uint32_t npages, room;
    uint32_t ncmds;
    unsigned scan;                     /* what executable pages must not have [scan.h] */
    bool any_stale;                    /* a page is */
    bool only_cpuid;                   /* what was refused last was refused for CPUID only, ... */
    uint32_t cpuid_refused;            /* ... and so many faults since the last verdict */
    uint64_t large_lo, large_hi;       /* addresses that may be parts of large pages */
    uint64_t around_first, around_len; /* what was looked at with the last page that was missing */
    uint32_t code_bucket[1u << SPACE_CODE_BITS]; /* executable pages, by guest-physical address */
    uint32_t bucket[1u << SPACE_BUCKET_BITS];

    /* Whether it pays, for who uses it. */
    bool active;
    bool fill;               /* nothing has been mapped beforehand yet */
    uint32_t runs;           /* since the last verdict, ... */
    uint64_t run_ns, all_ns; /* ... their time, and that with all around them */
    uint64_t start_ns;       /* what it took to begin, the last time */
    uint64_t used;           /* when: the latest is the largest */
};

/* Begins with a stub for the address space, with nothing mapped. 0 or an errno; EADDRINUSE: the
 * guest has something wherever its own pages could be. */
int space_open(struct space *sp, struct interp_vcpu *iv, uint64_t cr3);
void space_kill(struct space *sp);
void space_close(struct space *sp);

/* Takes all pages away. False: the stub is lost. */
bool space_clear(struct space *sp);

/* Whether the guest can have nothing where the stub's own pages are: looks at its tables. */
bool space_is_free(struct space *sp, struct interp_vcpu *iv);

/* Takes away what the MMU does not give any more. False: the stub is lost. */
bool space_check(struct space *sp, struct interp_vcpu *iv);

/* Whether a page is executable. */
bool space_has_code(const struct space *sp);

/* Maps what the vCPU has accessed lately. False: the stub is lost. */
bool space_fill(struct space *sp, struct interp_vcpu *iv);

/* The guest task has faulted at `va`: true if it may go on, as the page is there now. */
bool space_fault(struct space *sp, struct interp_vcpu *iv, uint64_t va, enum mmu_access access);

/* The same page, after the software CPU has made the access, or the guest its handler's doing: maps
 * what may be there without looking, and changes nothing of the guest's. */
void space_look(struct space *sp, struct interp_vcpu *iv, uint64_t va, enum mmu_access access);

/* Code in [gpa, gpa + len) has been written to. With the vCPU's guest task stopped. */
void space_written(struct space *sp, uint64_t gpa, uint64_t len);

#endif
