/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/op.h: decoded instructions and blocks. */
#ifndef CORE_X86_OP_H
#define CORE_X86_OP_H

#include "core/x86/x86.h"

/* Executes one instruction; returns the next op, or NULL after x86_leave or at a block's end. */
typedef const struct x86_op *x86_fn(struct x86_cpu *cpu, const struct x86_op *op);

/* How a memory operand's linear address comes about. */
enum x86_ea {
    X86_EA_FLAT,   /* 64-bit mode, segment base 0 */
    X86_EA_SEG64,  /* 64-bit mode, FS or GS */
    X86_EA_FLAT32, /* flat legacy segment, 32-bit address size */
    X86_EA_SLOW,   /* everything else: x86_ea_slow */
};

/* Address size, for x86_ea_slow and string instructions. */
#define X86_A16 0
#define X86_A32 1
#define X86_A64 2

struct x86_op {
    x86_fn *fn;
    int32_t disp;
    uint16_t off;            /* of the instruction in its block, in bytes */
    uint8_t len;             /* of the instruction */
    uint8_t idx;             /* instructions of the block before this one */
    uint8_t r;               /* register operand: gpr slot; of byte size: byte offset into gpr */
    uint8_t rm;              /* the other register operand, likewise */
    uint8_t base;            /* gpr slot, X86_ZERO, or X86_RIP0 with disp corrected */
    uint8_t index;           /* gpr slot or X86_ZERO */
    uint8_t scale;           /* shift count */
    uint8_t seg;             /* VMM_ES ... of the memory operand */
    uint8_t ea : 4, asz : 4; /* enum x86_ea; X86_A16 ... */
    uint8_t size;            /* operand size in bytes, or free for the handler */
    uint64_t imm; /* immediate (sign-extended to the operand size's use), or free for the handler */
};
_Static_assert(sizeof(struct x86_op) == 32, "two ops a cache line");

#define X86_BLOCK_MAX 32 /* instructions */

struct x86_block {
    struct x86_block *next_hash;  /* cache.c's */
    struct x86_block *next_page;  /* blocks that begin in the same page */
    struct x86_block *next_page2; /* blocks that end in the same page gpa2 */
    uint64_t gpa;                 /* of the first byte */
    uint64_t gpa2; /* page of the rest of an instruction that crosses a page, or MMU_NO_TAG */
    uint32_t mode;
    uint16_t bytes; /* length of the code */
    uint8_t n;      /* instructions; ops has one more, which goes on to what follows */
    bool dead : 1;
    bool ends : 1;     /* the last instruction's handler does not go on with ops[n] */
    uint32_t epoch;    /* of the last comparison with memory */
    uint32_t hash;     /* of the code bytes, for that comparison */
    const void *entry; /* the tier's: where its code comes in */
    /* Of ops[n], `imm`, `disp` and `r` are the tier's. */
    struct x86_op ops[];
};
_Static_assert(offsetof(struct x86_block, ops) == 64, "two ops a cache line");

#endif
