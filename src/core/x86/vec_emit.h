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
 * operand always [RSI]. */
struct vec_core {
    unsigned len;
    uint8_t code[16];
};

/* Registers that a thunk loads and stores. Vector registers by number, lengths in bytes. */
struct vec_regs {
    uint8_t load[32], store[32]; /* vector registers: bytes, 0 is none */
    uint8_t kload, kstore;
    uint8_t mload, mstore; /* MMX */
};

/* The thunk for form `f`. False: it does not fit. */
bool vec_emit_thunk(struct vec_emit *e, const struct vec_form *f, const struct vec_core *core,
                    const struct vec_regs *r);

/* The thunk of an x87 instruction: loads ctx->x87, executes, saves it again. */
void vec_emit_x87(struct vec_emit *e, const struct vec_core *core);

#endif
