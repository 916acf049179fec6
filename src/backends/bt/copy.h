/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/copy.h: instructions that are written with other operands. */
#ifndef BACKENDS_BT_COPY_H
#define BACKENDS_BT_COPY_H

#include "backends/bt/gen.h"

/* How an instruction uses the arithmetic flags. Those that leave some as they are, or all for a
 * count of 0, need them in the host before; handlers treat them in the same way. */
enum use {
    NOT,       /* not */
    SETS,      /* sets all */
    CARRIES,   /* sets all, with CF as an input or left alone */
    READS,     /* condition codes */
    CHANGES,   /* sets some */
    OVERWRITES /* sets some, and the others do not matter any more */
};

enum field { IN_REG, IN_RM, IN_VVVV };

/* An instruction as it is to be written, with the guest's registers. */
struct copy {
    struct em_op op;
    unsigned ext; /* without a register operand in the field `reg` */
    struct operand r[3];
    unsigned nr;
    bool mem, store; /* the operand rm is memory, and written */
    unsigned size;   /* of it */
    bool no_split;   /* it is locked */
    bool count;      /* CL is an operand */
    bool shifts;     /* by a constant other than 0 */
    uint8_t use;
    const uint8_t *imm;
    unsigned nimm;
};

/* Writes it, as the current op. False: not possible, and what has been written is void. [copy.c] */
bool gen_copy(struct gen *g, const struct copy *c);

/* The current op's immediate. [insn.c] */
void gen_immediate(const struct gen *g, struct copy *c);

/* Instructions that become others, or have implied operands; as gen_insn. [forms.c] */
bool gen_short(struct gen *g);
bool gen_mov64(struct gen *g);
bool gen_xchg(struct gen *g);
bool gen_cbw(struct gen *g);
bool gen_cwd(struct gen *g);
bool gen_bswap(struct gen *g);
bool gen_mul(struct gen *g);
bool gen_cmpxchg(struct gen *g);
bool gen_carry(struct gen *g);
bool gen_lea_insn(struct gen *g);

#endif
