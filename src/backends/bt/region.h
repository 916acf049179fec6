/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region.h: several blocks that are translated together. */
#ifndef BACKENDS_BT_REGION_H
#define BACKENDS_BT_REGION_H

#include "backends/bt/gen.h"

#define REGION_BLOCKS   32
#define REGION_COPIES   48 /* blocks with those of unrolled loops */
#define REGION_INSNS    256
#define REGION_DEPTH    3          /* of calls */
#define REGION_REACH    (1 << 28)  /* pages are not further away from the head's */
#define REGION_VERSIONS 7          /* of each block, and two more that take all */
#define REGION_FLAGS    3          /* of those, for the same holds */
#define REGION_SAVED    (1u << 20) /* bytes */
#define REGION_EDGES    (REGION_COPIES * (REGION_VERSIONS + 2) * 2)

/* Where the flags are when a block is entered. */
struct region_state {
    bool in_host, in_cc;
    struct gen_recipe recipe;
    struct gen_hold hold[GEN_HOLDS];
};

/* Places off a base, as it is at the beginning of a block. */
struct region_range {
    int64_t lo, hi, phase;
    uint8_t align;
    bool write;
    uint8_t n; /* blocks that access one, in turn; 0: there are none */
};

/* What a block does with a base ... */
struct region_use {
    bool lost;      /* it changes in other ways than ... */
    bool invariant; /* the block is the head of a loop over which it does not change */
    int16_t step;   /* by which each round of the innermost loop moves it, or 0 */
    int64_t delta;  /* ... by this */
    unsigned accesses;
    struct region_range own, all; /* until it is lost: of the block, and those behind it */
};

/* The code of a block for one state. */
struct region_version {
    struct region_state state;
    const uint8_t *code; /* NULL: not written yet */
    unsigned look;       /* edge + 1 for when a look for holds fails, or 0 */
    size_t saved;        /* what `now` was behind the block, for the slow paths */
};

struct region_block {
    struct bt_trans *t;  /* of the block alone: its handlers */
    struct x86_block *b; /* the block, or as much of it as is in the region: `cut` */
    uint8_t bytes[X86_BLOCK_MAX * 15];
    _Alignas(struct x86_block)
        uint8_t cut[sizeof(struct x86_block) + X86_BLOCK_MAX * sizeof(struct x86_op)];
    struct gen_insn *all;
    int32_t page_delta; /* of its page from the head's */
    unsigned up;        /* the block whose call has led here, + 1; 0: none in the region */
    uint64_t heat;      /* how often it is executed, about */
    int64_t next[2];    /* where it goes on, as offsets from its page ... */
    unsigned next_up[2];
    int to[2];    /* ... and which block of the region that is, or -1 ... */
    int first[2]; /* ... and was, before loops were unrolled */
    unsigned nnext;
    bool calls, returns, jumps; /* jumps: indirectly, to what its operand is now */
    bool expects;               /* what it calls comes back in the region */
    bool other;                 /* it may go on elsewhere, too */
    bool live, live_end;        /* the flags are needed at its beginning, behind it */
    bool reads_first;           /* by its instructions, before anything else clobbers them */
    unsigned need;              /* instructions that are paid for when it is entered */
    struct region_use use[GEN_HOLDS];
    bool in_loop;
    uint8_t loop;     /* head of the innermost loop, ... */
    uint64_t body;    /* ... and its blocks */
    uint16_t steady;  /* registers that stay near what they were in the innermost loop ... */
    uint16_t derived; /* ... but not by constants only */
    unsigned nversions;
    struct region_version version[REGION_VERSIONS + 2];
};

/* A way from the end of a version that has code of its own behind all others. */
struct region_edge {
    uint8_t *site; /* comes here; or NULL */
    struct region_state state;
    struct region_block *from, *to; /* to NULL: out of the region ... */
    struct region_version *version;
    int64_t offset;               /* ... to there */
    int16_t slide[GEN_HOLDS];     /* by which what is held moves on the way, ... */
    struct region_version *other; /* ... and where it goes if that is not possible */
    bool slides, slid;            /* it does; it comes to another page: */
    uint8_t base;                 /* with this one, ... */
    const void *back;             /* ... goes on there */
    bool checked;
    bool look;    /* has failed: the same block without what it would have held */
    bool refused; /* by the count, or for a request */
    bool returns; /* a return or jump to RAX, which is another address than expected */
    int32_t pop;  /* of a return; 0: a jump */
    bool written; /* but for the jump at its end */
};

struct region_fixed {
    struct bt_region_fixed at;
    uint64_t heat; /* how often it is accessed, about */
};

#define REGION_CELLS 64
struct region_cell {
    uint8_t base, index, scale;
    uint16_t cell;              /* of the MMU */
    const struct gen_insn *def; /* what has set one of the registers, or NULL */
};

struct region {
    unsigned n;
    unsigned order[REGION_COPIES]; /* blocks in reverse postorder */
    unsigned rank[REGION_COPIES];
    struct region_block block[REGION_COPIES];
    struct gen_insn insn[REGION_INSNS];
    unsigned ninsns;
    uint64_t linear; /* the head's page */
    struct bt_region_page page[BT_REGION_PAGES];
    unsigned npages;
    struct gen_base held[GEN_HOLDS];
    unsigned nbases;
    struct region_fixed fixed[REGION_INSNS / 8]; /* MMU_GUARD_PAGES once they are chosen */
    unsigned nfixed;
    struct region_cell cell[REGION_CELLS];
    unsigned ncells;
    struct region_edge edge[REGION_EDGES * 2];
    unsigned nedges;
    uint8_t *hot_end;
    unsigned guard; /* number + 1, or 0 */
    /* The entry: jumps when the guard does not hold, base.simd_have is not there, or the count is
     * used up, and goes on behind the first two. */
    uint8_t *guard_site, *simd_site, *refused_site;
    const void *guard_back, *simd_back;
    struct gen base, now; /* of all versions; while one is written */
    struct gen_regs regs;
    const uint8_t *slow, *last;  /* stubs.slow and stubs.tail with these registers */
    struct region_edge *tail;    /* whose jump is the last thing written ... */
    struct region_version *next; /* ... and what had best follow */
    struct region_block *next_block;
    struct region_block *current;
    uint8_t cc;       /* of a conditional branch that has come first ... */
    int64_t taken;    /* ... and where it goes */
    bool conditional; /* there is one */
    bool failed;
    size_t nsaved;
    uint8_t saved[REGION_SAVED]; /* of what has been written */
};

/* Whether an edge inside the region leads back. */
static inline bool region_is_back(const struct region *r, const struct region_block *from,
                                  const struct region_block *to)
{
    return r->rank[to - r->block] <= r->rank[from - r->block];
}

/* Instructions that are paid for when a block is left. */
static inline unsigned region_extra(const struct region_block *rb)
{
    return rb->need - rb->b->n;
}

/* Whether an edge inside the region pays for what comes. */
static inline bool region_pays(const struct region *r, const struct region_block *from,
                               const struct region_block *to)
{
    return region_is_back(r, from, to) || to->need > region_extra(from);
}

/* Takes blocks that have been translated already, beginning with `head`. [flow.c] */
void region_collect(struct gen *g, struct region *r, struct bt_trans *head);
/* Small loops several times over; sorts the blocks. */
void region_unroll(struct gen *g, struct region *r);
/* Counts, and where the flags matter. */
void region_analyse(struct region *r);
/* Which guest registers have host registers. [assign.c] */
void region_assign(struct gen *g, struct region *r);

/* The cold part of the entry. [region.c] */
void region_enter_slowly(struct gen *g, struct region *r, struct bt_region *br);

/* ---- the code [region_write.c] ---- */

/* All of `base` but the slow paths, of which there are none yet. */
void region_start(struct gen *g, const struct gen *base);
/* Behind the entry, hot and cold; false: there is not enough room. */
bool region_write(struct gen *g, struct region *r, struct bt_region *br);

/* The version of a block that is entered with `s`, or with less. [region_version.c] */
struct region_version *region_get_version(const struct region *r, struct region_block *to,
                                          struct region_state s);

/* ---- pages at fixed places [fixed.c] ---- */

void region_find_fixed(struct gen *g, struct region *r);
/* Takes the host addresses into the guard, in the cold part. What is not in the TLB leads to the
 * jumps in `fail`, of which there are as many as there are pages. */
void region_look_fixed(struct gen *g, struct region *r, uint8_t *fail[MMU_GUARD_PAGES]);

/* ---- ranges that follow their bases [slide.c] ---- */

/* Lets holds slide where an edge leads, and says by how much; `other` is what is left of them if
 * they cannot. */
bool region_find_slides(const struct region *r, const struct region_block *to,
                        struct gen_hold *hold, struct gen_hold *other, int16_t *slide);
/* The check of one, which clobbers flags, RAX and RCX: a jump if it is not possible; and the move
 * itself. */
uint8_t *region_check_slide(struct gen *g, unsigned k, const struct gen_hold *hold, int16_t by);
/* What happens then: a look for the other page, as if base k came from there. Goes on behind if
 * there is none. */
void region_slide_over(struct gen *g, const struct region_edge *x);
void region_slide(struct gen *g, unsigned k, int16_t by);
/* Which of them have a host register. [assign.c] */
void region_assign_holds(struct gen *g, struct region *r);

/* ---- bases that are held over blocks [held.c] ---- */

void region_find_bases(struct gen *g, struct region *r);
/* Finds loops, and what changes in them. [cell.c] */
void region_find_steady(struct gen *g, struct region *r);
/* The vector state that is loaded when the region is entered. [vec.c] */
uint32_t region_simd(const struct region *r);
/* What matters to a block. */
void region_reduce_holds(const struct region *r, const struct region_block *to,
                         struct gen_hold *hold);
/* What is known behind the current block; on edges back; by the versions that take all: nothing, if
 * there may be a look, false if not; and that there is none. */
void region_edge_holds(struct gen *g, struct gen_hold *hold);
void region_round_holds(struct gen_hold *hold);
bool region_forget_holds(const struct region *r, const struct region_block *to,
                         struct gen_hold *hold);
void region_deny_holds(const struct region *r, const struct region_block *to,
                       struct gen_hold *hold);
/* Whether a block begins with a look for a base. */
bool region_wants(const struct region_use *u);
/* Whether a range is held. */
bool region_covers(const struct gen_hold *h, const struct region_range *a);
/* At a block's beginning: the looks for what it wants, as bits; then, in the cold part, what
 * happens when one of them fails: returns the jump to the block without. */
unsigned region_looks(struct gen *g, const struct region *r, const struct region_block *rb);
uint8_t *region_look_fails(struct gen *g);

#endif
