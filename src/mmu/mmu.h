/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/mmu.h: guest paging: the page walk and the software TLB of one vCPU. */
#ifndef MMU_MMU_H
#define MMU_MMU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MMU_PAGE_SHIFT 12
#define MMU_PAGE_SIZE  4096u
#define MMU_PAGE_MASK  (~(uint64_t)0xfff)

/*
 * The TLB may be stale in every way that the architecture allows: it changes on misses and is
 * flushed by INVLPG, INVPCID, and loads of CR3, CR0 and CR4 (SDM Vol. 3A 4.10). Guest page
 * tables therefore need no write traces.
 *
 * Data entries hold one tag for reads and one for writes. A write tag is only there when a store
 * needs no further work: the guest's dirty bit is set, no vCPU has decoded code of the page, and it
 * counts as dirty already where that is tracked. A page with a breakpoint of either kind has no
 * tags.
 */

/*
 * Guests may race with themselves as they like, which is not the library's business: functions that
 * access guest memory as the guest does are not for ThreadSanitizer to look into.
 */
#if defined(__SANITIZE_THREAD__)
#define MMU_GUEST_ACCESS __attribute__((no_sanitize("thread")))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MMU_GUEST_ACCESS __attribute__((no_sanitize("thread")))
#endif
#endif
#ifdef MMU_GUEST_ACCESS
#define MMU_SANITIZE_THREAD 1
#else
#define MMU_GUEST_ACCESS __attribute__((always_inline))
#endif

typedef uint16_t mmu_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t mmu_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t mmu_u64 __attribute__((aligned(1), may_alias));

/* Copies between guest memory and the library's. Operands of the natural sizes are one host access
 * each, so that other vCPUs never see half of one, nor see it made twice (SDM Vol. 3A 9.1.1). */
MMU_GUEST_ACCESS static inline void mmu_copy(void *to, const void *from, size_t size)
{
    switch (size) {
    case 1:
        *(uint8_t *)to = *(const uint8_t *)from;
        break;
    case 2:
        *(mmu_u16 *)to = *(const mmu_u16 *)from;
        break;
    case 4:
        *(mmu_u32 *)to = *(const mmu_u32 *)from;
        break;
    case 8:
        *(mmu_u64 *)to = *(const mmu_u64 *)from;
        break;
    case 16:
#ifdef VMM_FREESTANDING
    {
        /* The host's vector registers are not ours here: two accesses. */
        uint64_t low, high;

        __asm__ volatile("movq (%3), %0\n\tmovq 8(%3), %1\n\tmovq %0, (%2)\n\tmovq %1, 8(%2)"
                         : "=&r"(low), "=&r"(high)
                         : "r"(to), "r"(from)
                         : "memory");
    }
#else
        /* Spelled out, as no type promises a single access. */
        __asm__ volatile("movups (%1), %%xmm0\n\tmovups %%xmm0, (%0)"
                         :
                         : "r"(to), "r"(from)
                         : "xmm0", "memory");
#endif
    break;
    default:
#ifdef MMU_SANITIZE_THREAD
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
#else
        __builtin_memcpy(to, from, size);
#endif
    }
}

/* Which permissions an access has. */
enum mmu_index {
    MMU_USER,      /* CPL 3 */
    MMU_KERNEL,    /* CPL 0-2, and implicit accesses: SMAP applies */
    MMU_KERNEL_AC, /* explicit access at CPL 0-2 with RFLAGS.AC: SMAP does not */
    MMU_NINDEX,
    /* CPL 3 with alignment checking: never has fast entries, so that every access comes to the slow
     * path, which checks; else as MMU_USER. */
    MMU_USER_ALIGN = MMU_NINDEX,
    MMU_NTABLES
};

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC };

/* More than a kernel's text, its data and the memory of each CPU are usually apart, which all begin
 * at multiples of 2 MiB: with half as many they share entries as a rule. */
#define MMU_TLB_BITS 11
#define MMU_TLB_SIZE (1u << MMU_TLB_BITS)
#define MMU_NO_TAG   (~(uint64_t)0)
/* A linear address that has no entry, as it is not canonical. */
#define MMU_NEVER 0x8000000000000000ull

struct mmu_entry {
    uint64_t read; /* page address, or mmu_empty_tag */
    uint64_t write;
    uint8_t *host; /* of the page */
    uint64_t gpa;  /* page; valid while one of the tags is */
};

/* The data entry of an address. */
static inline unsigned mmu_slot(uint64_t linear)
{
    return (unsigned)(linear >> MMU_PAGE_SHIFT) & (MMU_TLB_SIZE - 1);
}

/* The tag of an empty data entry must be out of reach for all addresses that lead to this entry: it
 * is the address of a page that belongs to another one. */
static inline uint64_t mmu_empty_tag(unsigned index)
{
    return index ? 0 : MMU_PAGE_SIZE;
}

#define MMU_ENTRY_GLOBAL 1u /* survives mmu_flush_nonglobal */

/*
 * A page that one place of translated code has accessed last at CPL 3, for accesses of one kind and
 * up to one size: what the first level's entry said then, in the form in which the code adds it up.
 * Cells are emptied whenever entries or rights are taken away.
 */
struct mmu_cell {
    uint64_t negative; /* minus the page's address */
    uint64_t limit;    /* offsets in the page are below; 0: empty */
    uint8_t *host;     /* of the page */
    uint64_t unused;
};
#define MMU_CELLS 256

/*
 * What a piece of translated code has made sure of when it was entered: as long as `stamp` is the
 * linear page of its code ^ mmu.epoch it still holds, and so do the host addresses of pages of data
 * that it found then. An epoch ends whenever entries or rights are taken away. Its number is in
 * bits that addresses of pages do not differ in (the upper 16 and the lower 12), the lower ones
 * never being 0: a stamp of 0 is none. Code without such pages may take another number that changes
 * when its own pages may have moved.
 */
#define MMU_GUARD_PAGES 4
struct mmu_guard {
    uint64_t stamp;
    uint8_t *host[MMU_GUARD_PAGES];
    int32_t patience; /* so often it may fail before a closer look */
};
#ifdef VMM_FREESTANDING
#define MMU_GUARDS 1 /* nothing is translated there */
#else
#define MMU_GUARDS 4096
#endif

/*
 * What has been taken away, for those who keep mappings made from translations: the addresses of
 * linear pages, or with MMU_GONE_GPA of guest-physical pages that stores are to be seen of, or
 * MMU_GONE_ALL. The last MMU_GONE_KEPT of `ngone` notes are kept, each at its number modulo that.
 */
#define MMU_GONE_KEPT 128
#define MMU_GONE_GPA  1ull
#define MMU_GONE_ALL  2ull

/* Instruction fetches: which page, and where it is. */
struct mmu_exec_entry {
    uint64_t tag;
    uint64_t gpa; /* page, with MMU_ENTRY_GLOBAL */
    const uint8_t *host;
};
#define MMU_XTLB_BITS 8
#define MMU_XTLB_SIZE (1u << MMU_XTLB_BITS)

/* Bit of mmu_page.code: shadow paging keeps tables of the hardware's made from this page. Stores
 * are seen as those to code are; what a walk itself sets is not. */
#define MMU_CODE_TABLE (1ull << 63)

/* A page of guest-physical memory. */
struct mmu_page {
    uint8_t *host; /* NULL: not memory */
    bool writable;
    bool executable;
    _Atomic uint64_t *code; /* one bit per vCPU that has decoded code of the page */
    _Atomic uint8_t *dirty; /* NULL: not tracked */
};

/* What the MMU needs of its surroundings. */
struct mmu_env {
    /* Fills *page for the page that holds gpa; false if it is no memory. */
    bool (*page)(void *ctx, uint64_t gpa, struct mmu_page *page);
    /* One MMIO access within 8 aligned bytes; 0, or non-zero to abort the instruction. */
    int (*mmio)(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value);
    /* Memory that vCPUs have decoded code from has just been written: drops what overlaps, and
     * clears the page's code bits when nothing is left there, so that stores become fast again. */
    void (*code_written)(void *ctx, uint64_t gpa, unsigned len);
    void *ctx;
};

enum mmu_paging { MMU_PAGING_NONE, MMU_PAGING_32, MMU_PAGING_PAE, MMU_PAGING_4LEVEL };

/* Error code bits of #PF (SDM Vol. 3A 4.7). */
#define MMU_PF_P    1u
#define MMU_PF_W    2u
#define MMU_PF_U    4u
#define MMU_PF_RSVD 8u
#define MMU_PF_I    16u
#define MMU_PF_PK   32u

/* Results of slow-path functions. */
#define MMU_OK       0
#define MMU_FAULT    1 /* #PF: fault_addr and fault_error are set */
#define MMU_NONCANON 2 /* non-canonical address: #GP(0) or #SS(0) */
#define MMU_ABORT    3 /* the surroundings want the instruction to stop without effect */

/*
 * The second level: larger, asked when there is no entry in the first, and optional (l2). It is
 * flushed by generation: tags are ^ the key of the time when they were entered, which only has bits
 * that addresses of pages share (the upper 16 and the lower 12), and is never 0; an empty tag is 0.
 * Addresses that are not canonical must not be looked up. What is in it is allowed by all that the
 * first level's entries are, and goes when they go.
 */
#define MMU_L2_BITS  13
#define MMU_L2_SIZE  (1u << MMU_L2_BITS)
#define MMU_L2_BYTES (MMU_NTABLES * MMU_L2_SIZE * sizeof(struct mmu_entry))

/*
 * With PCIDs (SDM Vol. 3A 4.10.1) the second level also keeps what was entered for others than the
 * current one: each has a key of its own. The first level, paths and fetches have no PCIDs and
 * begin anew with each load of CR3. All but the loads of CR3 forget the other contexts if they
 * flush more than a page; entries of a page go whatever their PCID is.
 */
#define MMU_CONTEXTS   8
#define MMU_SALT_SHIFT (MMU_L2_BITS - 3)

struct mmu_context {
    uint64_t key; /* l2_key[0] while it is the current one; 0: not in use */
    uint16_t pcid;
};

static inline unsigned mmu_l2_slot(uint64_t linear)
{
    return (unsigned)((linear >> MMU_PAGE_SHIFT) ^ (linear >> (MMU_PAGE_SHIFT + MMU_L2_BITS))) &
           (MMU_L2_SIZE - 1);
}

/*
 * Where walks may begin (the paging-structure caches of SDM Vol. 3A 4.10.3): tables of the two
 * lowest levels that were reached through entries with their accessed bits set, and what the
 * entries above allow. All go with every flush, and with INVLPG, by the generation in their tags.
 */
#define MMU_PATH_BITS 6
#define MMU_PATHS     (1u << MMU_PATH_BITS)

struct mmu_path {
    uint64_t tag;   /* mmu_path_tag */
    uint64_t table; /* guest-physical */
    struct mmu_page page;
    bool user, writable, nx;
};

struct mmu {
    struct mmu_entry data[MMU_NTABLES][MMU_TLB_SIZE];
    struct mmu_guard guard[MMU_GUARDS];
    uint64_t epoch;                               /* of guards */
    struct mmu_exec_entry exec[2][MMU_XTLB_SIZE]; /* user, kernel */
    /* Bits of entries that may have tags: of global pages if [1]; an entry can be in both. */
    uint64_t filled[2][MMU_NTABLES][MMU_TLB_SIZE / 64];
    uint64_t filled_exec[2][2][MMU_XTLB_SIZE / 64];
    /* Entries have been made by a walk since mmu_flush_all, from which others come, or contexts. */
    bool used;
    /* Of pages, by number: those that an entry of either level may have a write tag of. */
    uint64_t written[512];
    struct mmu_path path[2][MMU_PATHS]; /* level 1 and 2 */
    uint64_t path_gen;

    struct mmu_entry *l2; /* [MMU_NTABLES][MMU_L2_SIZE], or NULL */
    uint64_t l2_key[2];   /* of entries that are valid; [1]: of global pages */
    uint32_t l2_gen;      /* of the last key */
    uint32_t l2_salt;     /* of slots of the lower half, where contexts use the same addresses */
    struct mmu_context context[MMU_CONTEXTS];
    unsigned context_next; /* the one to be given to the next PCID that has none */

    struct mmu_cell cell[MMU_CELLS];
    uint64_t cells_filled[MMU_CELLS / 64]; /* bits */

    uint64_t gone[MMU_GONE_KEPT], ngone;

    const struct mmu_env *env;

    /* Set by mmu_set_mode. */
    enum mmu_paging paging;
    uint64_t root;     /* physical address of the top table */
    uint64_t pdpte[4]; /* PAE: loaded with CR3, SDM Vol. 3A 4.4.1 */
    uint64_t rsvd;     /* address bits above the physical address width */
    bool wp, nx, smep, smap, pse, pke;
    uint32_t pkru;
    unsigned linear_bits; /* 48 with 4-level paging, else 32 */

    /* Pages with data breakpoints: linear page addresses without fast entries. */
    uint64_t watch[8];
    unsigned nwatch;

    /* Linear ranges of the user and the kernel half in which large pages were cached since the last
     * flush: INVLPG there flushes everything, as entries are per 4 KiB. */
    uint64_t large_lo[2], large_hi[2];

    uint64_t fault_addr;
    uint32_t fault_error;

    uint64_t flush_gen;    /* counts flushes; what caches linear addresses compares it */
    uint64_t misses;       /* walks */
    uint64_t misses_by[3]; /* by enum mmu_access */
    uint64_t l2_hits;
    uint64_t flushes;
};

struct mmu_mode {
    uint64_t cr0, cr3, cr4, efer;
    uint32_t pkru;
    unsigned gpa_bits;
};

static inline void mmu_clear_guards(struct mmu *mmu)
{
    for (unsigned i = 0; i < MMU_GUARDS; i++)
        mmu->guard[i].stamp = 0;
}

/* What guards have found does not hold any more. */
static inline void mmu_next_epoch(struct mmu *mmu)
{
    if (++mmu->epoch & (MMU_PAGE_SIZE - 1))
        return;
    mmu->epoch += (UINT64_C(1) << 48) - MMU_PAGE_SIZE + 1;
    if (!(mmu->epoch >> 48)) /* numbers of old are as the new ones */
        mmu_clear_guards(mmu);
}

/* Entries or rights are taken away: what translated code has found by them goes, too. */
static inline void mmu_empty_cells(struct mmu *mmu)
{
    mmu_next_epoch(mmu);
    for (unsigned w = 0; w < MMU_CELLS / 64; w++)
        for (; mmu->cells_filled[w]; mmu->cells_filled[w] &= mmu->cells_filled[w] - 1)
            mmu->cell[w * 64 + (unsigned)__builtin_ctzll(mmu->cells_filled[w])].limit = 0;
}

/* All tags empty, paging off. `mmu->data`, `guard` and `epoch` must have been zeroed once. */
void mmu_init(struct mmu *mmu, const struct mmu_env *env);

/* Takes over control registers; does not flush. With PAE paging loads the PDPTEs when `load_pdpte`:
 * false if one has reserved bits set (#GP), nothing changed then. */
bool mmu_set_mode(struct mmu *mmu, const struct mmu_mode *mode, bool load_pdpte);

/* Adds a second level: MMU_L2_BYTES of zeros, or takes it away. */
void mmu_set_l2(struct mmu *mmu, struct mmu_entry *l2);

void mmu_flush_all(struct mmu *mmu);
/* All but global pages: MOV to CR3 while CR4.PGE is set. */
void mmu_flush_nonglobal(struct mmu *mmu);
/* MOV to CR3 while CR4.PCIDE and CR4.PGE are set; `keep`: what there is for the PCID stays valid.
 */
void mmu_load_pcid(struct mmu *mmu, uint16_t pcid, bool keep);
/* What there is for a PCID that is not the current one. */
void mmu_forget_pcid(struct mmu *mmu, uint16_t pcid);
/* All entries of one linear page, INVLPG. Large pages: whatever was cached of it is found too. */
void mmu_flush_page(struct mmu *mmu, uint64_t linear);
/* Drops what points into [gpa, gpa+len); after the memory map has changed. */
void mmu_flush_gpa(struct mmu *mmu, uint64_t gpa, uint64_t len);
/* Takes away the fast write entries that point into [gpa, gpa+len): it holds code now, or is clean
 * again. */
void mmu_protect_gpa(struct mmu *mmu, uint64_t gpa, uint64_t len);
/* Linear pages that must take the slow path for every access (watchpoints); at most 8. */
void mmu_set_watch(struct mmu *mmu, const uint64_t *pages, unsigned n);

/*
 * The host address for an access of `size` bytes that lies in one page and needs nothing but the
 * access; NULL: take a slow path.
 */
static inline uint8_t *mmu_fast_read(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size)
{
    const struct mmu_entry *e = &mmu->data[idx][mmu_slot(linear)];
    uint64_t offset = linear - e->read;

    if (__builtin_expect(offset <= MMU_PAGE_SIZE - size, 1))
        return e->host + offset;
    return NULL;
}

static inline uint8_t *mmu_fast_write(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size)
{
    const struct mmu_entry *e = &mmu->data[idx][mmu_slot(linear)];
    uint64_t offset = linear - e->write;

    if (__builtin_expect(offset <= MMU_PAGE_SIZE - size, 1))
        return e->host + offset;
    return NULL;
}

/*
 * Complete accesses: any size up to 4096, page crossing, MMIO, stores into pages with code. All
 * pages are checked before anything is written. MMU_*.
 */
int mmu_read(struct mmu *mmu, unsigned idx, uint64_t linear, void *buf, unsigned size);
int mmu_write(struct mmu *mmu, unsigned idx, uint64_t linear, const void *buf, unsigned size);

/* Checks that [linear, linear+size) could be accessed, sets A (and D for MMU_WRITE) bits. */
int mmu_probe(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size,
              enum mmu_access access);

/*
 * Read-modify-write in place: *host is where the `size` bytes are (memory in one page, write
 * permission checked), or NULL when they cross a page or are MMIO; the caller then uses mmu_read
 * after mmu_probe and mmu_write. mmu_rmw_done follows the store to *host.
 */
struct mmu_rmw {
    uint8_t *host;
    uint64_t code_gpa; /* page with code, or MMU_NO_TAG */
    unsigned size;
};
int mmu_rmw_begin(struct mmu *mmu, unsigned idx, uint64_t linear, unsigned size,
                  struct mmu_rmw *rmw);
void mmu_rmw_done(struct mmu *mmu, struct mmu_rmw *rmw);

/* Translates for an instruction fetch: the guest-physical address of `linear`, the host address of
 * its page, and whether the translation survives mmu_flush_nonglobal. MMU_OK with host NULL: fetch
 * from what is not executable memory. */
struct mmu_code {
    uint64_t gpa;
    const uint8_t *host;
    bool global;
};
int mmu_fetch(struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code);
/* The same if the TLB has it, without any side effect; else false. */
bool mmu_fetch_cached(const struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code);

/*
 * Translations that nothing has been accessed by: processors may cache them at any time if an
 * access needed neither a fault nor a change of an entry (SDM Vol. 3A 4.10.2.3, 4.8). As mmu_fetch;
 * and the host address of a data page that may be accessed so without further work, or NULL.
 */
bool mmu_prefetch_code(struct mmu *mmu, bool user, uint64_t linear, struct mmu_code *code);
uint8_t *mmu_prefetch(struct mmu *mmu, unsigned idx, uint64_t linear, bool write);

/* Translates without side effects (no A/D bits, no TLB entries), as a supervisor read. */
bool mmu_translate(struct mmu *mmu, uint64_t linear, uint64_t *gpa);

static inline bool mmu_canonical(const struct mmu *mmu, uint64_t linear)
{
    unsigned drop = 64 - mmu->linear_bits;
    return mmu->linear_bits == 32 || (uint64_t)((int64_t)(linear << drop) >> drop) == linear;
}

#endif
