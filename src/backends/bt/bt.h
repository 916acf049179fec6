/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/bt.h: the binary translator: a tier on top of the software CPU. */
#ifndef BACKENDS_BT_BT_H
#define BACKENDS_BT_BT_H

#include "backends/bt/emit.h"
#include "core/x86/cache.h"

/*
 * Blocks of the software CPU (struct x86_block) that are executed often are translated to host
 * code. A translated block begins with an op whose handler is that code, and obeys the rules of
 * handlers: everything else, the run loop, invalidation, interrupts, budgets, exact exceptions, is
 * the software CPU's.
 *
 * In translated code twelve guest registers live in host registers (bt_host), four in x86_cpu; RBP
 * points into x86_cpu, RAX and RCX are free for use, RSP is the host's. The arithmetic flags are in
 * the host's or in cpu->cc, which the translator keeps track of; between blocks in cpu->cc.
 * cpu->blk, gpr[X86_RIP0] and the registers in x86_cpu are only valid while a handler runs.
 *
 * An op that is translated inline ("inline op") has bt_stop for a handler, so that the handlers of
 * the ops before it return to the translated code when they come to it. All others keep their
 * handlers: translated code calls that of the first of a run. A memory access that the software TLB
 * cannot serve calls the op's handler, too, which does it all over again: until then the op has
 * done nothing.
 *
 * Code goes from block to block by direct jumps (link.c), or through tables of targets (map.c) and
 * at last cpu->jump. All of this belongs to one vCPU and is touched by its thread only, or with the
 * world stopped.
 */

/* RBP's distance from x86_cpu: from R10, the first register in memory, to tier_held fields are in
 * reach of 8-bit displacements. */
#define BT_BIAS         208
#define BT_FIELD(field) ((int32_t)offsetof(struct x86_cpu, field) - BT_BIAS)
#define BT_GPR(slot)    ((int32_t)(slot)*8 - BT_BIAS)

/* The host register of a guest register; H_NONE: it stays in x86_cpu. */
extern const uint8_t bt_host[16];

#define BT_ARENA       (64u << 20) /* bytes of code memory for each vCPU */
#define BT_MAX_CODE    (24u << 10) /* room that one translation may need ... */
#define BT_MAX_HOT     (12u << 10) /* ... for what is executed as a rule */
#define BT_HOT         16          /* executions before a block is translated */
#define BT_HOTTER_THAN 20000       /* executions of a translation before it is one of a region */
#define BT_HASH_BITS   17
#define BT_MAX_LINKS   2

/* Where a direct jump to a block comes in. */
enum bt_way {
    BT_IN_PAGE, /* `chain`: from the same page */
    BT_RETURN,  /* `far`: what a call leaves in cpu->tier_return */
    BT_CROSS    /* `chain`, behind a look into tier_map: from another page */
};

/* A direct jump to a block. */
struct bt_link {
    struct bt_link *next; /* of those in the same bucket */
    uint64_t gpa;         /* of the target; its mode is the block's. BT_CROSS: once bound */
    uint8_t *site;        /* the displacement, writable */
    int32_t out;          /* what it is while the target is not translated */
    uint8_t mode;
    uint8_t way : 4;   /* enum bt_way */
    uint8_t bound : 1; /* it is in a bucket */
    uint8_t map; /* BT_CROSS: so many bytes before the site the element of tier_map is named */
};
_Static_assert(sizeof(struct bt_link) == 32, "there are many");
struct bt_links {
    struct bt_link *first; /* while a region is written: the end of their room */
    unsigned n;
};
_Static_assert(X86_MODE_CPL3 <= 0xff, "modes are bytes here");

/* A page of code in one mode: has an element of cpu->tier_map, which has the same number. */
struct bt_page {
    struct bt_page *next; /* of those in the same bucket, or that are free */
    uint64_t gpa;
    uint32_t mode;
    unsigned ntrans;
};
#define BT_PAGE_BITS 12
#define BT_NO_PAGE   0 /* no code is in this one */

#define BT_HASH_FACTOR 0x9e3779b1u /* of linear addresses, for tier_target */

/* A translation: it lies in front of its code, in code memory; pointers into it are writable. */
struct bt_trans {
    struct bt_trans *next; /* of those in the same bucket */
    struct bt_trans *newer, *older;
    struct x86_block *block;
    const uint8_t *chain;  /* entry for jumps from where its page is known to be mapped */
    const uint8_t *hashed; /* from cpu->jump. RAX: tier_page ^ link_key */
    const uint8_t *far;    /* from anywhere in its mode. RAX: its linear address */
    struct bt_page *page;
    uint64_t gpa;
    uint32_t mode;
    uint32_t offset; /* of the block in its page */
    struct bt_links links;
    uint32_t heat;             /* which element of cpu->tier_heat counts its executions */
    struct bt_region *region;  /* that begins with it, or NULL */
    struct bt_member *regions; /* that it is in */
    x86_fn *fn[];              /* the handlers of all ops, ops[n] included; bt_mnemonics, links */
};

/* ZydisMnemonic of each op. */
static inline uint16_t *bt_mnemonics(const struct bt_trans *t)
{
    return (uint16_t *)(uintptr_t)&t->fn[t->block->n + 1];
}
#define BT_MNEMONICS 2048 /* above all */

/* Several blocks translated together. As struct bt_trans in front of its code. [region.c] */
#define BT_REGION_CODE  (128u << 10) /* room that one may need */
#define BT_REGION_LINKS 256
#define BT_REGION_PAGES 4
#define BT_ENTRY_BYTES  5                    /* at `chain`: the count, ... */
#define BT_COUNT_BYTES  (BT_ENTRY_BYTES + 6) /* ... and with the jump behind it */
struct bt_member {
    struct bt_member *next; /* of those of the same block */
    struct bt_region *region;
    struct bt_trans *t;
};
struct bt_region {
    struct bt_trans *head;
    const uint8_t *entry;
    uint8_t saved[BT_ENTRY_BYTES]; /* what was at its head's `chain` */
    /* What the entry relies on, the head's page left out, and where it goes on if that holds, or if
     * it does not. */
    uint16_t guard; /* number + 1, or 0: nothing is relied on, or only pages are */
    uint8_t npages, nfixed, failures;
    struct bt_region_page {
        const struct bt_page *page;
        int32_t delta; /* from the head's */
    } page[BT_REGION_PAGES];
    struct bt_region_fixed {
        int64_t page; /* its distance from the head's page, or its address */
        bool absolute, write;
    } fixed[MMU_GUARD_PAGES];
    const uint8_t *holds, *fails;
    struct bt_links links; /* at the other end of code memory */
    unsigned n;
    struct bt_member member[];
};

/* Lengths of operands for which there is shared code that looks into the TLB: 1, 2, 4, and
 * multiples of 8 up to 256. */
#define BT_LOOKS 35
static inline unsigned bt_look_class(unsigned size)
{
    return size <= 2 ? size - 1 : size <= 4 ? 2 : 2 + (size + 7) / 8;
}

/* Entries of code that all translations share. */
struct bt_stubs {
    const uint8_t *enter; /* RDI: cpu, RAX: where to go on */
    const uint8_t *leave; /* returns NULL; cpu->rip is set */
    const uint8_t *slow;  /* call: bt_run_handlers(RAX: struct bt_trans, ECX: op); may not return */
    const uint8_t *tail;  /* goes on with the handler of the last op. RAX: struct bt_trans */
    const uint8_t *refuse; /* leaves at the beginning of RAX: struct bt_trans, which is counted */
    const uint8_t *jump;   /* goes on at RAX, by cpu->jump */
    const uint8_t *fill;   /* the same, and puts the target into cpu->tier_target */
    const uint8_t *bind;   /* the same for a link that is not bound. RCX: struct bt_link */
    const uint8_t *prove;  /* where a region is entered whose guard has failed. RCX: its struct */
    const uint8_t *decode; /* entry of blocks that are not translated. RCX: the block */
    const uint8_t *simd_store, *simd_load; /* [simd_state.c] */
    const uint8_t *split;                  /* a load goes over the end of a page [tlb.c] */
    const uint8_t *miss[2];                /* the first level of the TLB: [1]: write [tlb.c] */
    const uint8_t *look[2][BT_LOOKS];      /* both levels, by bt_look_class [tlb.c] */
};

/* Bits of x86_cpu.simd_lack; the last ones are those of XINUSE. [simd_state.c] */
#define BT_SIMD_SSE      0x01u
#define BT_SIMD_AVX      0x02u
#define BT_SIMD_AVX512   0x04u
#define BT_SIMD_FP       0x08u /* MXCSR, with all exceptions masked */
#define BT_SIMD_X87      0x10u /* with all exceptions masked; also MMX */
#define BT_SIMD_W_SHIFT  8
#define BT_SIMD_W_X87    0x0100u
#define BT_SIMD_W_SSE    0x0200u
#define BT_SIMD_W_AVX    0x0400u
#define BT_SIMD_W_OPMASK 0x2000u
#define BT_SIMD_W_ZMM_HI 0x4000u
#define BT_SIMD_W_HI16   0x8000u

struct bt {
    uint8_t *rw, *rx; /* code memory ... */
    size_t size;      /* ... of which so much is used at most, ... */
    size_t used;      /* ... and so much is */
    size_t cold;      /* up to where slow paths, exits and data are, apart from the rest */
    size_t high;      /* at the other end: links of regions */
    size_t start;     /* behind the shared code */
    uint64_t chains;  /* links that were made to lead to a translation */
    bool patched;     /* code that may have been executed has been changed */
    unsigned hot;
    unsigned hotter;            /* executions of a translation until it becomes a region */
    unsigned nheat;             /* elements of tier_heat that have been given away */
    unsigned deaths;            /* of regions */
    unsigned cells;             /* of the MMU that have been given to regions */
    struct region *room;        /* to make one; or NULL */
    uint16_t guard[MMU_GUARDS]; /* those that no region has, ... */
    unsigned nguards;           /* ... so many */
    bool exact;       /* for comparisons: flags that are undefined as handlers leave them, too */
    uint32_t shuffle; /* likewise, not 0: regions' registers are assigned at random */
    struct bt_stubs stubs;
    struct gen_insn *decoded; /* room for a block's instructions */
    struct gen_shapes *shapes;
    struct bt_trans *newest;
    struct bt_page page[X86_TIER_PAGES];
    struct bt_page *pages[1u << BT_PAGE_BITS], *free_pages;
    unsigned npages; /* that have been used */
    struct bt_trans *trans[1u << BT_HASH_BITS];
    struct bt_link *links[1u << BT_HASH_BITS];
    _Atomic uint64_t fallbacks[BT_MNEMONICS]; /* handlers called by mnemonic; other threads read */
    struct bt_features {
        bool popcnt, lzcnt, bmi1, bmi2, movbe, adx, crc32, serialize;
        bool xsave, avx, avx512; /* with the host's system; AVX-512 with 64-bit masks */
    } host;
};

/* Makes `cpu` translate blocks that were executed `hot` times, into `size` bytes of code memory
 * (BT_ARENA; at least 2 * BT_MAX_CODE). 0 or an errno. */
int bt_attach(struct x86_cpu *cpu, unsigned hot, size_t size);
/* Before the CPU runs: as if the host's processor had no more than `host`. */
void bt_limit_host(struct x86_cpu *cpu, const struct bt_features *host);
void bt_detach(struct x86_cpu *cpu);

/* ---- the parts ---- */

/* Where the cold part of code memory begins: so the hot one is dense. */
static inline size_t bt_cold_start(const struct bt *bt)
{
    return bt->start + ((bt->size - bt->start) / 3 & ~(size_t)63);
}

/* Translates: the translation, not entered anywhere yet, or NULL: this one is not worth it.
 * [translate.c] */
struct bt_trans *bt_translate(struct x86_cpu *cpu, struct bt *bt, struct x86_block *b);

/* bt->decoded. [translate.c] */
struct gen_insn *bt_make_room(void);

/* What is known of instructions that have been translated; when modes or features mean something
 * else, it must be forgotten. [shapes.c] */
bool bt_shapes_create(struct bt *bt);
void bt_shapes_destroy(struct bt *bt);
void bt_shapes_clear(struct bt *bt);

/* The shared code. [stubs.c] */
void bt_make_stubs(struct bt *bt);

/* To be called after `patched` was set, before the code that was changed is executed. [serialize.c]
 */
void bt_serialize(struct bt *bt);

/* Those that look into the TLB. [tlb.c] */
void bt_make_tlb_stubs(struct bt *bt, struct em *e);
/* Those that move the guest's vector state. [simd_state.c] */
void bt_make_simd_stubs(struct bt *bt, struct em *e);
/* Writes what has to come before code that is not generated: a call of C functions, or a return to
 * them. Changes RDX and flags. */
void bt_simd_out(struct em *e, const struct bt_stubs *s);

/* Handler of inline ops. [tier.c] */
x86_fn bt_stop;
/* Called by translated code. `what`: the handlers of which op, up to which; with BT_LEAVE it does
 * not go on there, with BT_MAPPED not if the TLB was flushed, with BT_HOTTER it only asks for a
 * region. [tier.c] */
#define BT_CALL(i, until) ((i) | (until) << 8)
#define BT_LEAVE          0x10000u
#define BT_HOTTER         0x20000u
#define BT_MAPPED         0x40000u
#define BT_HELD           0x80000u  /* it only goes on if the TLB has lost nothing, ... */
#define BT_SIMD           0x100000u /* ... if what was allowed to be loaded still is */
const struct x86_op *bt_run_handlers(struct x86_cpu *cpu, struct bt_trans *t, unsigned what);
const struct x86_op *bt_run_last(struct x86_cpu *cpu, struct bt_trans *t);

/* Brings the counters in cpu->count up to date. [tier.c] */
void bt_count_code(struct x86_cpu *cpu, const struct bt *bt);
/* A block's translation, or NULL. [tier.c] */
struct bt_trans *bt_translation(const struct x86_block *b);

/* The page of a block that is being translated; NULL: there are too many. [map.c] */
struct bt_page *bt_page_get(struct x86_cpu *cpu, struct bt *bt, const struct x86_block *b);
/* One translation less. */
void bt_page_put(struct bt *bt, struct bt_page *page);
/* No pages and no targets. */
void bt_map_clear(struct x86_cpu *cpu, struct bt *bt);
/* Called by translated code: where to go on, which is at cpu->rip, with this address in RAX. */
const void *bt_fill(struct x86_cpu *cpu, const void *unused);
const void *bt_bind(struct x86_cpu *cpu, const struct bt_link *link);
const void *bt_region_prove(struct x86_cpu *cpu, const struct bt_region *br);

/* Displacement of a page's element of tier_map. */
static inline int32_t bt_map_field(const struct bt *bt, const struct bt_page *page)
{
    return BT_FIELD(tier_map) + (int32_t)(page - bt->page) * 8;
}

/* Makes a region that begins with a block; false: not now. It ends with any of its blocks.
 * [region.c] */
bool bt_region_translate(struct x86_cpu *cpu, struct bt *bt, struct bt_trans *head);
/* Ends all regions that a block is in. */
void bt_regions_end(struct bt *bt, struct bt_trans *t);

/* The translation of a block, or NULL. [link.c] */
struct bt_trans *bt_link_find(struct bt *bt, uint64_t gpa, uint32_t mode);
/* Whether there is a call that comes back there. */
bool bt_link_returns(const struct bt *bt, uint64_t gpa, uint32_t mode);
/* The links only. */
void bt_links_enter(struct bt *bt, struct bt_links *links);
void bt_links_remove(struct bt *bt, struct bt_links *links);
/* Lets a link lead to a translation. [link.c] */
void bt_link_bind(struct bt *bt, struct bt_link *l, const struct bt_trans *t);
/* Enters a translation: links what jumps to it and where it jumps to. [link.c] */
void bt_link_enter(struct bt *bt, struct bt_trans *t);
/* Takes it out again: nothing jumps to it any more. */
void bt_link_remove(struct bt *bt, struct bt_trans *t);

#endif
