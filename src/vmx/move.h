/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/move.h: decodes the plain moves that most accesses to devices are made with. */
#ifndef VMX_MOVE_H
#define VMX_MOVE_H

#include <stdbool.h>
#include <stdint.h>

struct vmx_move {
    uint8_t len;    /* of the instruction */
    uint8_t size;   /* of the access in memory: 1, 2, 4 or 8 */
    uint8_t to;     /* bytes of the register that a load writes; more than `size`: extended ... */
    uint8_t reg;    /* VMM_RAX ...; stores without `immediate` and loads */
    bool high;      /* AH to BH: byte 1 of register `reg` */
    bool write;     /* a store */
    bool sign;      /* ... with its sign */
    bool immediate; /* a store of `value` */
    uint64_t value;
};

/* Modes of code. */
enum vmx_code { VMX_CODE16, VMX_CODE32, VMX_CODE64 };

/*
 * The instruction in the first `n` bytes. False: it is none of MOV, MOVZX, MOVSX and MOVSXD between
 * memory and a general register or an immediate, or it is not all there. Where memory is need not
 * be known: the exit tells. LOCK and repeat prefixes are not taken.
 */
bool vmx_decode_move(const uint8_t *insn, unsigned n, enum vmx_code code, struct vmx_move *move);

#endif
