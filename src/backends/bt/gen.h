/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/gen.h: what the parts of the translator share while they translate a block. */
#ifndef BACKENDS_BT_GEN_H
#define BACKENDS_BT_GEN_H

#include <Zydis/Zydis.h>

#include "backends/bt/bt.h"
#include "core/x86/decode.h"
#include "core/x86/vec_emit.h"

#define GEN_MAX_SLOW (X86_BLOCK_MAX * 8 + 2 * GEN_HOLDS)

/* Code that computes the arithmetic flags of an instruction once more, from the registers that it
 * has left; it changes RAX. */
struct gen_recipe {
    uint8_t len;  /* 0: none */
    uint8_t size; /* bytes of the registers that matter */
    uint8_t code[30];
    uint32_t regs;         /* that must not have changed, ... */
    uint64_t vec;          /* ... nor these vector registers (0-31) and masks (32-39) */
    uint8_t what, opcode;  /* what it does ... */
    uint8_t first, second; /* ... with which operands [flags.c] */
    int32_t value;         /* an immediate one */
};

/* A jump out of the fast path, to code that is written behind the block's. */
struct gen_slow {
    uint8_t *site;
    uint8_t i;                /* op */
    struct gen_recipe recipe; /* of the flags, if they are not in cc */
    uint8_t group;            /* index into apart + 1: the look for a group has failed */
    bool write;
    uint16_t cell;     /* a cell has been asked, not the TLB: its number + 1 ... */
    uint16_t size;     /* ... for an access of so many bytes; it goes on at `retry` behind that */
    bool hold;         /* a look in front of a block of a region has failed */
    bool completed;    /* the jump leads somewhere */
    uint8_t x87_due;   /* as in struct gen */
    const void *retry; /* a look in line: where it goes on with another entry; or NULL */
    const void *found; /* a look: where it goes on with a copy, when the operand crosses into the
                          next page; or NULL */
};

/* A group, for when its common look into the TLB fails. */
struct gen_apart {
    uint8_t first, last; /* ops */
    bool in_cc;          /* behind the look ... */
    struct gen_recipe recipe;
    unsigned simd_now;
    uint8_t x87_due;
    const void *back; /* ... and behind the group */
    bool back_host;
    const void *code; /* or NULL: handlers do it */
};

/* A jump to another block, whose way is written behind the block's code. */
struct gen_exit {
    uint8_t *site;
    int64_t offset;       /* of the target, from the beginning of the block's page */
    bool checked;         /* a target that is not canonical is the last op's fault */
    struct bt_link *link; /* to another page: all but the way out is written; or NULL */
};

/* Where the last op, an indirect branch, goes when the tables do not have its target. */
struct gen_lost {
    uint8_t *site; /* a jump; NULL: none */
    enum gen_lost_kind { GEN_LOST_JUMP, GEN_LOST_CALL, GEN_LOST_RETURN } kind;
    int32_t pop;      /* GEN_LOST_RETURN: what the stack pointer moves by */
    const void *back; /* GEN_LOST_CALL: where it goes on with what to call in RCX; NULL: behind */
};

/* A place where the guest's vector state must be in the host's registers from there on. */
struct gen_simd {
    uint8_t *test;    /* the constant of the test, writable */
    uint8_t *site;    /* jump to where the state is loaded ... */
    const void *back; /* ... which comes back here */
    uint32_t need;    /* BT_SIMD_* */
    uint8_t i;        /* op */
    struct gen_recipe recipe;
};

/* What an op does to memory off a base, and to general registers. */
struct gen_effect {
    bool access;
    uint8_t base, index, scale;
    int64_t disp;
    unsigned size;
    uint8_t align; /* of a vector operand */
    bool write;
    uint8_t moves; /* register that changes by `by`, or GEN_NO_MOVE */
    int64_t by;
    uint32_t changes; /* registers that change in other ways */
};
#define GEN_NO_MOVE 0xff

/* What matters of a ZydisDecodedOperand, without values, ... */
struct gen_operand {
    uint8_t type, encoding, actions;
    uint16_t size; /* bits */
    union {
        struct {
            uint16_t value;
        } reg;
        struct {
            uint16_t base, index;
        } mem;
    };
};

/* A register operand of an instruction that is to be copied. */
struct operand {
    uint8_t field; /* enum field */
    uint8_t slot;
    uint8_t size;
    bool read, write;
};

/* ... and of a ZydisDecodedInstruction: small, as those in use are a few thousand. */
struct gen_form {
    uint16_t mnemonic;
    uint8_t length, encoding, opcode_map, opcode;
    uint8_t operand_count, operand_count_visible;
    uint8_t extension;         /* the field `reg` of ModRM */
    uint8_t imm, imm_size;     /* the first immediate: where it is; bytes, 0: there is none */
    bool modrm;                /* it has that byte */
    bool is_near;              /* no far branch */
    bool is_string;            /* operation on strings ... */
    bool is_rep, has_rep;      /* ... that is repeated; it has such a prefix */
    bool excepts;              /* it has an exception class of vector instructions */
    bool tests_flags;          /* x87: FCMOVcc */
    struct em_op op;           /* as it is to be written, ... */
    bool copied;               /* ... if it can be, with its operands as they are: */
    bool mem, store, imm_copy; /* struct copy [copy.h] */
    bool count;
    uint8_t nr;
    uint16_t size;
    struct operand r[3];
};

/* A decoded instruction. Others may share what is pointed to, in which displacements and immediates
 * have no values: those are in the op and in `imm`. */
struct gen_insn {
    bool known;
    uint8_t flags_use;   /* what gen_flags_use says, ... */
    bool has_effect;     /* ... and gen_effect, ... */
    bool is_vec, is_x87; /* a vector or x87 instruction that can be copied, ... */
    bool x87_control;    /* ... or one whose form is empty: */
    uint32_t writes;     /* ... and gen_writes */
    uint64_t imm;        /* the second operand, if that is an immediate one */
    const struct gen_form *insn;
    const struct gen_operand *opnd;
    const struct vec_copy *vec; /* never NULL */
    struct gen_effect effect;
};

/*
 * Accesses off one base that changes by constants only, and share one look into the TLB: it covers
 * all of them.
 */
struct gen_base {
    unsigned accesses;
    uint8_t base, index, scale; /* as in struct x86_op */
    int64_t lo, hi;             /* range, from the base as it is at the beginning of the group */
    int64_t delta;              /* of the base since then */
    bool write;
    bool lost;     /* the base has changed in other ways */
    uint8_t align; /* of vector operands, else 0 or 1: ... */
    int64_t phase; /* ... this place is aligned */
    bool held;     /* by the region: no look is needed */
    int32_t cell;  /* field that has a host address, but for the first base of a look, ... */
    int64_t from;  /* ... and the base's distance from there, at the beginning of the group */
    uint8_t reg;   /* host register that has it instead, or H_NONE */
};

/* What a region knows of one of its bases. */
enum { GEN_UNKNOWN, GEN_HELD, GEN_DENIED };
#define GEN_HOLDS 8
struct gen_hold {
    uint8_t status;
    bool write;
    uint8_t align, phase; /* the place `phase` bytes from the range's beginning is aligned */
    int16_t off;  /* of the base as it is now, from there. Denied: how far it has moved since */
    uint16_t len; /* of the range: its host address is in gen_regs.hold or cpu->tier_held */
};
_Static_assert(sizeof(struct gen_hold) == 8, "compared as bytes");

#define GEN_BASES 3

/*
 * The accesses of ops `first` to `last`, off a few bases. All looks come first: a miss, or a page
 * boundary in a range, leads to other code for all these ops. So none of them needs a slow path of
 * its own, nor flags for one. The host address of the first base that the region does not hold in a
 * register is in RAX then, those of the others in cpu->tier_hold.
 */
struct gen_group {
    unsigned first, last;
    unsigned n;
    struct gen_base base[GEN_BASES];
    unsigned in_rax, in_rcx; /* the bases whose host addresses these have; GEN_BASES: none */
};

/*
 * Which guest registers are in host registers while a region is executed. At its edges, and around
 * calls of handlers, it is bt_host that says so.
 */
struct gen_regs {
    uint8_t host[16];        /* by slot, as bt_host */
    uint32_t in, out;        /* guest registers that have got a host register, or lost theirs */
    uint32_t written;        /* by the region's code */
    uint8_t hold[GEN_HOLDS]; /* of what is held: host registers of some in `out`, or H_NONE */
    uint8_t count;           /* has what is to be taken off cpu->countdown yet, or H_NONE */
};

struct gen {
    struct em e;
    struct x86_cpu *cpu;
    struct bt *bt;
    struct x86_block *b;
    struct bt_trans *t; /* writable */
    struct bt_page *page;
    uint8_t *cold;     /* where the cold part goes on */
    uint8_t *first;    /* displacement: where the run loop comes in */
    uint8_t *far_miss; /* a jump */
    uint8_t *refused;  /* likewise: by the count ... */
    uint8_t *hotter;   /* ... and when it has been executed often */
    struct gen_lost lost;
    const void *body;   /* behind the count of instructions */
    const void *heated; /* behind the count of executions */
    unsigned i;         /* current op */
    const struct x86_op *op;
    bool is64;
    const uint8_t *host;         /* registers by slot: at the edges of translations bt_host */
    const struct gen_regs *regs; /* those of the region; NULL: bt_host */

    /* Where the guest's arithmetic flags are: in one of these at least, unless nothing can need
     * them any more. */
    bool in_host, in_cc;
    struct gen_recipe recipe;
    bool keeps_rcx; /* the current op, that is written, has left in RCX what gen_held had there */
    const void *in_rax; /* behind the code here RAX still has the host address of base ... */
    uint8_t held_rax;   /* ... that the region has looked for */
    bool kept;          /* the current op's memory operand is in cpu->tier_operand, ... */
    bool saved;         /* ... the operand that it shifts in cpu->tier_saved */

    const struct gen_insn *all; /* of the block */
    const struct gen_form *insn;
    const struct gen_operand *opnd;
    const uint8_t *code;  /* of the block */
    const uint8_t *bytes; /* of insn */

    unsigned simd_now, nsimd;        /* index into simd of what holds here; 0: nothing */
    uint32_t simd_have;              /* BT_SIMD_* that are in the host everywhere in the region */
    bool held;                       /* group has been looked for */
    bool held_ret;                   /* the last op uses it: RET */
    int32_t sp_due;                  /* the stack pointer has to move by this yet */
    uint8_t x87_due;                 /* op + 1 whose address is to be stored for x87 yet; or 0 */
    struct gen_hold hold[GEN_HOLDS]; /* of the region's bases, at the current op */
    bool holds; /* some of them in this code: the TLB must not lose anything meanwhile */
    unsigned nslow, napart, nexits;
    uint64_t slow_ops; /* bit n: perhaps there are some of op n */

    struct region *region;  /* NULL: the block stands for itself */
    struct bt_links *links; /* of what is written */
    unsigned extra;         /* instructions that are paid for beyond the block's */
    int32_t page_delta;     /* of the block's page from tier_page */
    bool live_end;          /* the flags are needed behind the block */

    /* Of each op. What is up to here is cleared before a block is written [gen_clear]. */
    bool leaves[X86_BLOCK_MAX];    /* what follows relies on what the op's slow path does not do */
    bool saves[X86_BLOCK_MAX + 1]; /* it begins by keeping what a recipe needs */
    bool is_inline[X86_BLOCK_MAX + 1];
    uint8_t simd_of[X86_BLOCK_MAX + 1];    /* which of simd loads ... */
    uint32_t simd_need[X86_BLOCK_MAX + 1]; /* ... these BT_SIMD_* */
    uint8_t simd_at[X86_BLOCK_MAX + 1];    /* simd_now where the code of inline ops is, ... */

    bool host_at[X86_BLOCK_MAX + 1];   /* ... in_host ... */
    const void *at[X86_BLOCK_MAX + 1]; /* ... and the place */

    struct gen_group group; /* while held */
    struct gen_exit exit[BT_MAX_LINKS];

    /* Only the first ones are in use. */
    struct gen_simd simd[X86_BLOCK_MAX + 1];
    struct gen_apart apart[X86_BLOCK_MAX];
    struct gen_slow slow[GEN_MAX_SLOW];
};
#define GEN_CLEARED offsetof(struct gen, host_at)

static inline void gen_clear(struct gen *g)
{
    memset(g, 0, GEN_CLEARED);
}

/* The host register of a guest register in the code being written; H_NONE: it is in x86_cpu. */
static inline unsigned gen_host(const struct gen *g, unsigned slot)
{
    return g->host[slot];
}

static inline struct em_rm gen_gpr(unsigned slot)
{
    return em_at(H_RBP, BT_GPR(slot));
}

#define GEN_FIELD(field) em_at(H_RBP, BT_FIELD(field))

/* ---- assignment of registers [assign.c] ---- */

/* From bt_host to the region's assignment, and back. They keep RAX and RCX; flags, gen_regs_enter
 * only. */
void gen_regs_enter(struct gen *g);
void gen_regs_leave(struct gen *g);
static inline bool gen_counts(const struct gen *g)
{
    return g->regs && g->regs->count != H_NONE;
}
/* What the region holds in host registers, to memory and back, around calls of handlers. */
void gen_holds_move(struct gen *g, unsigned op);

/* ---- flags [flags.c] ---- */

/* Before a look into the TLB, which clobbers the host's flags. Changes RAX. */
void gen_free_flags(struct gen *g);
/* The same where they must be in cc. */
void gen_spill_flags(struct gen *g);
/* Before code that needs all of them, or CF only, in the host. Changes RAX; gen_need_carry only if
 * they are not in cc, as they are behind gen_mem and in groups. */
void gen_need_flags(struct gen *g);
void gen_need_carry(struct gen *g);
/* Before the block's end: they must be in cc. Keeps the host's. Changes RAX. */
void gen_save_flags(struct gen *g);
/* The instruction just written has set all of them. */
static inline void gen_flags_set(struct gen *g)
{
    g->in_host = true;
    g->in_cc = false;
    g->recipe.len = 0;
    g->recipe.vec = 0;
}
/* The current op has set them: how to compute them again, if there is a way. */
void gen_make_recipe(struct gen *g);
/* Keeps what the recipe needs of these guest registers, which are going to change, in x86_cpu.
 * Changes RAX. */
void gen_save_recipe(struct gen *g, uint32_t regs);
/* Before a shift by a constant: keeps the operand, if that is worth it. Changes RAX. */
void gen_save_shifted(struct gen *g);
void gen_cook(struct gen *g, const struct gen_recipe *r);
/* Host's flags to cc and back. Changes RAX. */
void gen_store_cc(struct gen *g);
void gen_load_cc(struct gen *g);

/* The form of an instruction, whose operands are in `opnd` already, as it is copied. [insn.c] */
void gen_find_copy(const struct gen *g, const struct x86_dec *d, const struct gen_operand *opnd,
                   struct gen_form *form);

/* What an instruction means to the flags. */
#define GEN_SETS    1u /* all of them: what they were before does not matter any more */
#define GEN_CHANGES 2u /* some, or all */
#define GEN_READS   4u
#define GEN_KEEPS   16u /* it may leave some as they are: needs them if they are needed behind it */
#define GEN_FAULTS                                                                                 \
    8u /* it may fault, or leave the translated code in other ways: it shows them                  \
        */
unsigned gen_find_flags_use(const struct gen_insn *in);
static inline unsigned gen_flags_use(const struct gen_insn *in)
{
    return in->flags_use;
}
/* The same of op i, where it is known whether they are needed behind it: no GEN_KEEPS. [live.c] */
unsigned gen_flags_use_at(const struct gen *g, unsigned i);
/* The same where it is known what cannot fault. [live.c] */
unsigned gen_flags_use_of(const struct gen *g, const struct gen_insn *in);
/* Whether the flags may still be needed behind op i. [live.c] */
bool gen_flags_live(const struct gen *g, unsigned i);
/* Whether the flags that op i sets will have to do without the host's. */
bool gen_flags_last(const struct gen *g, unsigned i);
/* Before and behind the writing of ops `first` to `last`: the recipe may lose its registers. */
void gen_keep_flags(struct gen *g, unsigned first, unsigned last);
void gen_track_flags(struct gen *g, unsigned i);
/* General registers that an instruction writes. */
uint32_t gen_find_writes(const struct gen_insn *in);
static inline uint32_t gen_writes(const struct gen_insn *in)
{
    return in->writes;
}

/* ---- memory operands [mem.c] ---- */

/* RAX = the op's linear address; false: not possible inline. Flags are gone. */
bool gen_linear(struct gen *g);
/* RAX: linear address, becomes the host address for an access of `size` bytes. Changes RCX. */
void gen_probe(struct gen *g, unsigned size, bool write);
/* The same for an access off a base, which may have a cell of its own. */
void gen_probe_off(struct gen *g, const struct gen_base *b, unsigned size, bool write);
/* The same for the op's memory operand; spills the flags. A place that no register decides may need
 * no look. False: not possible, nothing written. */
bool gen_mem(struct gen *g, unsigned size, bool write);
/* What a look into the TLB does that has failed; goes on behind if there is nothing. [tlb.c] */
void gen_miss(struct gen *g, const struct gen_slow *s);
/* The look itself. RAX: linear address; RCX becomes the TLB's entry, and condition A means that it
 * does not serve. The place where it goes on with another entry. Behind it: RAX = host address. */
const void *gen_look(struct em *e, const struct bt *bt, unsigned size, bool write);
void gen_look_found(struct em *e);
/* After gen_probe: an access that splits a cache line is slow. */
void gen_no_split(struct gen *g, unsigned size);
/* LEA of the op's offset. False: not possible. */
bool gen_lea(struct gen *g, unsigned dst, bool wide);
/* A jump to the op's slow path is taken on condition `cc`. */
void gen_slow_if(struct gen *g, unsigned cc);

/* MOV reg, guest register and back, 64 bits. */
void gen_get(struct gen *g, unsigned reg, unsigned slot);
void gen_put(struct gen *g, unsigned slot, unsigned reg);
/* reg = RSP/ESP + n, as wide as the mode's stack pointer. */
void gen_sp(struct gen *g, unsigned reg, int32_t n);

/* While a group is held: the operand of the current op at `disp` from its base. Its register is
 * RAX, or RCX, which is loaded, or one that has what the region holds. */
struct em_rm gen_held(struct gen *g, int64_t disp);

/* ---- vector state [simd_state.c] ---- */

/* Before an instruction that needs all this (BT_SIMD_*) in the host; until simd_now becomes 0. May
 * spill the flags. */
void gen_simd(struct gen *g, uint32_t need);
/* Behind the block's code, before the slow paths: what gen_simd jumps to. */
void gen_simd_loads(struct gen *g);
/* In a slow path that goes on with the code of op i, behind handlers. Changes RAX, RCX, flags. */
void gen_simd_again(struct gen *g, unsigned i);
/* In a region, behind handlers: what all of its code has. Changes RAX, RCX, flags. */
void gen_simd_restore(struct gen *g);
/* At a region's entry: a jump if not all of it is there; then, where it leads: it is loaded, or the
 * region is not entered. */
uint8_t *gen_simd_check(struct gen *g);
void gen_simd_enter(struct gen *g, uint8_t *site, const void *back, const void *refused);

/* ---- groups of accesses [group.c] ---- */

/* Behind the look into the TLB for g->group, whose slow paths begin at `nslow`, and behind its last
 * op; then, behind the block's code, its ops one by one. [apart.c] */
void gen_group_begins(struct gen *g, unsigned nslow);
void gen_group_ends(struct gen *g);
void gen_apart(struct gen *g);

/* Whether there are any: not if a region holds all that the group needs. */
static inline bool gen_needs_look(const struct gen_group *group)
{
    for (unsigned k = 0; k < group->n; k++)
        if (!group->base[k].held)
            return true;
    return false;
}

/* The looks into the TLB for g->group; one for a base, which may have a cell: RAX = the host
 * address of its `lo`. */
void gen_group_look(struct gen *g);
void gen_look_off(struct gen *g, const struct gen_base *b, bool cell);
/* NULL: an op that no group goes over. */
static inline const struct gen_effect *gen_effect(const struct gen *g, unsigned i)
{
    return g->all[i].has_effect ? &g->all[i].effect : NULL;
}
bool gen_find_effect(const struct gen *g, unsigned i, const struct gen_insn *in,
                     struct gen_effect *e);
/* Finds the group that begins with the current op: false if there is none of two accesses. */
bool gen_find_group(struct gen *g, unsigned limit, struct gen_group *group);
/* Follows the base over the current op, which is written. */
void gen_follow_base(struct gen *g);

/* ---- bases that regions hold over blocks [held.c] ---- */

/* What is known of a base, NULL: it is not one of them; whether that will do for its range; where
 * the host address is. */
const struct gen_hold *gen_hold_of(const struct gen *g, const struct gen_base *b);
bool gen_hold_covers(const struct gen_hold *h, const struct gen_base *b);
int32_t gen_hold_cell(const struct gen *g, const struct gen_hold *h);
unsigned gen_hold_reg(const struct gen *g, const struct gen_hold *h);
/* General registers that op i changes, by other than constants. */
uint32_t gen_changes(const struct gen *g, unsigned i);
/* Behind op i, that is written; or handlers have been called. */
void gen_hold_follow(struct gen *g, unsigned i);
void gen_hold_drop(struct gen *g);

/* ---- cells: pages that places of the code have accessed last [cell.c] ---- */

extern const struct gen_base gen_stack;
/* The cell for an access; MMU_CELLS: it had better look into the TLB. */
unsigned gen_cell(struct gen *g, const struct gen_base *b, unsigned size, bool write);
/* For how many bytes it may be used. */
unsigned gen_cell_size(unsigned cell);
/* In a region: RAX = host address of the op's memory operand, if the entry has made sure of its
 * page; false: nothing written. [fixed.c] */
bool gen_fixed(struct gen *g, unsigned size, bool write);
/* It relies on such pages: the TLB must not lose anything meanwhile. */
bool gen_has_fixed(const struct gen *g);
static inline struct em_rm gen_hold_field(unsigned k)
{
    return em_at(H_RBP, BT_FIELD(tier_held) + (int32_t)k * 8);
}
static inline struct em_rm gen_cell_field(unsigned cell, size_t member)
{
    return em_at(H_RBP, BT_FIELD(mmu.cell) + (int32_t)(cell * sizeof(struct mmu_cell) + member));
}

/* ---- blocks [translate.c] ---- */

/* The bytes of a block, if they are still what it was made of. */
bool gen_fetch(struct x86_cpu *cpu, const struct x86_block *b, uint8_t *bytes);
/* Decodes the block's instructions from g->code. They are valid until gen_shapes_begin. [shapes.c]
 */
void gen_decode(struct gen *g, struct gen_insn *all);
/* Before blocks are decoded; they have `n` instructions at most. */
void gen_shapes_begin(struct bt *bt, unsigned n);
/* Writes the block; the number of ops in line. */
unsigned gen_write_ops(struct gen *g);
/* What the slow paths of op i do; X86_BLOCK_MAX: of exits. */
void gen_write_slow(struct gen *g, unsigned i);

/* ---- regions [region_write.c] ---- */

/* As gen_exit_if and gen_exit_here. */
void gen_region_exit_if(struct gen *g, unsigned cc, int64_t offset);
void gen_region_exit(struct gen *g, int64_t offset, bool checked);
/* Whether the call that ends the block goes on in the region; whether what it calls returns there.
 */
bool gen_region_calls(const struct gen *g);
bool gen_region_expects(const struct gen *g);
/* A jump to RAX, with the flags in cc. False: it is not known where to; nothing is written. */
bool gen_region_indirect(struct gen *g);
/* Whether the region knows where the block returns to; a return to RAX then. */
bool gen_region_returns(const struct gen *g);
void gen_region_return(struct gen *g, int32_t pop);

/* ---- instructions ---- */

/* One op in line; false: nothing is written. [translate.c] */
bool gen_try(struct gen *g, bool last);
/* Makes op i the current one. */
void gen_select(struct gen *g, unsigned i);
/* Whether an instruction may be in a group. [insn.c] */
bool gen_may_group(const struct gen_insn *in);

/* Writes the current op's code; false: nothing is written, its handler has to do it. [insn.c] */
bool gen_insn(struct gen *g);
/* The same for vector instructions; what they are is found out first, and what they need. [vec.c]
 */
bool gen_vec(struct gen *g);
void gen_find_vec(const struct gen *g, const struct x86_dec *d, struct gen_insn *in,
                  struct vec_copy *room);
uint32_t gen_vec_needs(const struct gen_insn *in);
/* Whether it cannot fault, as a region has what it needs; which of the registers in `vec` of a
 * recipe it changes. */
bool gen_vec_is_safe(const struct gen *g, const struct gen_insn *in);
uint64_t gen_vec_writes(const struct gen_insn *in);
/* Writes it, with `rm` (base and displacement) for its memory operand, if it has one. */
void gen_put_core(struct gen *g, const struct vec_core *core, struct em_rm rm);
/* The same for x87 instructions. [x87.c] */
bool gen_x87(struct gen *g);
uint32_t gen_x87_needs(const struct gen *g, const struct gen_insn *in);
bool gen_x87_may_group(const struct gen_insn *in);
bool gen_x87_uses_flags(const struct gen_insn *in);
/* The address of op `due` - 1, if that is one, becomes the instruction pointer: before anybody can
 * see it. Changes RCX; no flags. */
void gen_x87_point(struct gen *g, unsigned due);
static inline void gen_x87_settle(struct gen *g)
{
    gen_x87_point(g, g->x87_due);
    g->x87_due = 0;
}
void gen_find_x87(const struct x86_dec *d, struct gen_insn *in, struct vec_copy *room);
/* The same for the op that ends the block. [branch.c] */
bool gen_branch(struct gen *g);
/* Some of gen_insn. [stack.c] */
bool gen_push(struct gen *g);
/* In a group PUSH and POP leave the move of the stack pointer for later: makes it, before an op
 * that needs the stack pointer. [stack.c] */
bool gen_needs_sp(const struct gen *g);
void gen_settle_sp(struct gen *g);
bool gen_pop(struct gen *g);
bool gen_leave(struct gen *g);
/* System instructions. [sys.c] */
bool gen_sys(struct gen *g);
/* Those that end a block. [syscall.c] */
bool gen_sys_branch(struct gen *g);
/* Whether AH, CH, DH or BH is an operand; such an instruction. [high.c] */
bool gen_has_high(const struct gen *g);
bool gen_high(struct gen *g);
/* BT and its like, of memory and a register. [bits.c] */
bool gen_bit_string(struct gen *g);
/* REP MOVS, REP STOS. [string.c] */
bool gen_string(struct gen *g);
/* DIV, IDIV. [div.c] */
bool gen_div(struct gen *g);
/* RAX = what RET pops. The flags are not in the host's. [branch.c] */
void gen_load_return(struct gen *g);
/* The number of a condition in Jcc, -1 for other instructions. [branch.c] */
int gen_condition(ZydisMnemonic m);
/* The slot of a general register; false for others. That of AH is RAX's. */
static inline bool gen_gpr_slot(ZydisRegister reg, uint8_t *slot)
{
    unsigned id, size = x86_dec_gpr(reg, &id);

    if (!size)
        return false;
    *slot = (uint8_t)(size == 1 && id >= 4 ? id - 4 : id);
    return true;
}

/* The same; false for AH, CH, DH and BH, too. */
static inline bool gen_reg_slot(ZydisRegister reg, uint8_t *slot)
{
    return (reg < ZYDIS_REGISTER_AH || reg > ZYDIS_REGISTER_BH) && gen_gpr_slot(reg, slot);
}

/* ---- ways into the block and out of it [ways.c] ---- */

/* Where calls come back to the block: `far`, in front of its code. */
void gen_near_entry(struct gen *g);
/* The other entries, apart from it. */
void gen_entries(struct gen *g);
/* dst = the address at the offset from the block's page. */
void gen_page_address(struct gen *g, unsigned dst, int64_t offset);

/* Offsets are those of targets from the block's page. The flags are in cc. */

/* The block goes on there if `cc` ... */
void gen_exit_if(struct gen *g, unsigned cc, int64_t offset);
/* ... and here; `checked`: a target that is not canonical is the current op's fault. */
void gen_exit_here(struct gen *g, int64_t offset, bool checked);
/* The same behind ops that are no branch. */
void gen_goto(struct gen *g, int64_t offset);
/* What is behind the block's code. */
void gen_exits(struct gen *g);

/* The op is slow if the target is not canonical: in RAX, which is kept, or direct. */
void gen_check_target(struct gen *g);
void gen_check_direct(struct gen *g, int64_t offset);
/* A call has pushed the address in RCX. */
void gen_expect_return(struct gen *g, int64_t offset);
/* Goes on at RAX: by the op's handler if that is not canonical. */
void gen_go_indirect(struct gen *g);
/* The same in two steps, and RAX and RCX may change in between. */
void gen_find_indirect(struct gen *g);
void gen_go_found(struct gen *g);
/* Goes on at RAX and adds `pop` to the stack pointer. */
void gen_return(struct gen *g, int32_t pop);

#endif
