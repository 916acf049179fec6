/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_emit.h: writes the machine code of thunks. */
#ifndef CORE_X86_VEC_EMIT_H
#define CORE_X86_VEC_EMIT_H

#include "core/x86/vec.h"

#define VEC_EMIT_MAX 768

struct vec_emit {
    unsigned len;
    uint8_t code[VEC_EMIT_MAX];
};

/* An instruction of the guest as it is executed on the host: registers by number, the memory
 * operand at [base]. */
struct vec_core {
    unsigned len, modrm; /* `modrm`: where that byte is */
    uint8_t code[16];
};

/* Registers that a thunk loads and stores. Vector registers by number, lengths in bytes. */
struct vec_regs {
    uint8_t load[32], store[32]; /* vector registers: bytes, 0 is none */
    uint8_t kload, kstore;
    uint8_t mload, mstore; /* MMX */
};

/* Which registers of the host take the place of others: `base` holds the address of the memory
 * operand. */
struct vec_target {
    uint8_t base;
    const uint8_t *gpr; /* by guest register; 0xff: `scratch`. NULL: thunks, R8 to R10 by operand */
    uint8_t scratch;
};

/* An instruction and what is to be known about it to execute it anywhere. */
struct vec_copy {
    struct vec_form form; /* but for key, next, code and fn */
    struct vec_regs regs;
    struct vec_core core;
    bool scratch;     /* there is a general register that goes through `scratch` ... */
    uint8_t resident; /* ... this one */
};

/* Whether an instruction of these files is valid in this mode, for guest and host. [vec_decode.c]
 */
bool vec_may_execute(const struct x86_dec *d);

/* False: it is not valid here, or cannot be copied. [vec_decode.c] */
bool vec_dec_copy(struct x86_dec *d, const struct vec_target *target, struct vec_copy *copy);

/* The same for x87 instructions but those for control. Nothing but fop, mem_size, store and flags
 * is set in copy->form. [x87.c] */
bool x87_dec_copy(const struct x86_dec *d, uint8_t base, struct vec_copy *copy);

/* The thunk for form `f`. False: it does not fit. */
bool vec_emit_thunk(struct vec_emit *e, const struct vec_form *f, const struct vec_core *core,
                    const struct vec_regs *r);

/* The thunk of an x87 instruction: loads ctx->x87, executes, saves it again. */
void vec_emit_x87(struct vec_emit *e, const struct vec_core *core);

#endif
