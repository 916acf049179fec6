/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/decode.h: from Zydis' instructions to ops. */
#ifndef CORE_X86_DECODE_H
#define CORE_X86_DECODE_H

#include <Zydis/Zydis.h>

#include "core/x86/op.h"

/*
 * Each family of instructions has a header ops_FAMILY.h with one X-macro list of rows
 * X(MNEMONIC, decode function, argument). decode.c makes one constant table of all lists, indexed
 * by ZydisMnemonic. A decode function fills op->fn and the operand fields (off, len, idx are set by
 * the caller), and sets d->end if a block must end behind the instruction: it may change RIP, the
 * mode, the interrupt flag, paging, or must be followed by the slow loop's checks. It returns false
 * if this form is not valid (#UD). What has no row is tried by x86_dec_vec (vector, mask and x87
 * instructions), else it is #UD.
 */
struct x86_dec {
    struct x86_cpu *cpu;
    uint32_t mode; /* X86_MODE_* */
    bool end;
    bool alien;          /* no x86 instruction of the guest's CPU, whatever Zydis says */
    bool shaped;         /* its shape decides all but the values in it [decode_memo.c] */
    const uint8_t *code; /* the instruction's bytes */
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
};

typedef bool x86_dec_fn(struct x86_dec *d, struct x86_op *op, unsigned arg);

/* Fills base, index, scale, disp, seg, ea and asz from memory operand number `i`. op->off and len
 * must be set (RIP-relative operands). */
void x86_dec_mem(const struct x86_dec *d, unsigned i, struct x86_op *op);

/* gpr slot of a general register operand; of AL-BH, SPL ... R15B the byte offset into gpr. */
uint8_t x86_dec_reg(ZydisRegister reg);

/* Size in bytes of a general register, and its number among those of that size; 0: another one. In
 * Zydis' numbers they follow each other (AL-BL, AH-BH, SPL-R15B; AX-R15W, ...). */
static inline unsigned x86_dec_gpr(ZydisRegister reg, unsigned *id)
{
    unsigned n = (unsigned)reg - ZYDIS_REGISTER_AL;

    if (n > ZYDIS_REGISTER_R15 - ZYDIS_REGISTER_AL)
        return 0;
    if (n < ZYDIS_REGISTER_AX - ZYDIS_REGISTER_AL) {
        *id = n;
        return 1;
    }
    n -= ZYDIS_REGISTER_AX - ZYDIS_REGISTER_AL;
    *id = n & 15;
    return 2u << (n >> 4);
}
_Static_assert(ZYDIS_REGISTER_AX == ZYDIS_REGISTER_AL + 20 &&
                   ZYDIS_REGISTER_EAX == ZYDIS_REGISTER_AX + 16 &&
                   ZYDIS_REGISTER_RAX == ZYDIS_REGISTER_EAX + 16 &&
                   ZYDIS_REGISTER_R15 == ZYDIS_REGISTER_RAX + 15,
               "x86_dec_gpr");

/* Immediate operand number `i`, sign-extended. */
static inline uint64_t x86_dec_imm(const struct x86_dec *d, unsigned i)
{
    return (uint64_t)d->opnd[i].imm.value.s;
}

static inline bool x86_dec_is_reg(const struct x86_dec *d, unsigned i)
{
    return d->opnd[i].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

static inline bool x86_dec_is_mem(const struct x86_dec *d, unsigned i)
{
    return d->opnd[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static inline bool x86_dec_is_imm(const struct x86_dec *d, unsigned i)
{
    return d->opnd[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static inline bool x86_dec_lock(const struct x86_dec *d)
{
    return d->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK;
}

static inline bool x86_dec_64(const struct x86_dec *d)
{
    return (d->mode & X86_MODE_CODE) == X86_MODE_CODE64;
}

/* Sets Zydis up for the instructions of a mode, as the guest's CPU has them. [decode.c] */
void x86_dec_init(ZydisDecoder *z, uint32_t mode);

/* As ZydisDecoderDecodeFull, for the instruction at `code` as the guest's CPU has it; what is known
 * comes from cpu->memo. On success *d holds until the next call, and may be `room`. [decode.c] */
ZyanStatus x86_dec_get(struct x86_cpu *cpu, uint32_t mode, const uint8_t *code, unsigned avail,
                       struct x86_dec *room, struct x86_dec **d);

/* Decoded instructions of a vCPU. [decode_memo.c] */
struct x86_memo *x86_memo_create(void);
void x86_memo_destroy(struct x86_memo *memo);
/* The instruction at `code`, but for cpu, mode, code and end; or NULL. */
struct x86_dec *x86_memo_find(struct x86_memo *memo, uint32_t mode, const uint8_t *code,
                              unsigned avail);
/* Keeps what has been decoded from `avail` bytes; false: it is not of such a kind. */
bool x86_memo_enter(struct x86_memo *memo, const struct x86_dec *d, unsigned avail);
/* The shape of the instruction at `code`: if x86_dec_get says that it is `shaped`, all others with
 * this number are the same but for the values of displacement and immediate. 0: it has none. */
uint64_t x86_memo_shape(uint32_t mode, const uint8_t *code, unsigned avail);

/* A displacement or immediate of `size` bytes. */
static inline uint64_t x86_dec_value(const uint8_t *p, unsigned size, bool is_signed)
{
    uint64_t value = 0;

    switch (size) {
    case 1:
        return is_signed ? (uint64_t)(int8_t)*p : *p;
    case 2:
        __builtin_memcpy(&value, p, 2);
        return is_signed ? (uint64_t)(int16_t)value : value;
    case 4:
        __builtin_memcpy(&value, p, 4);
        return is_signed ? (uint64_t)(int32_t)value : value;
    default:
        __builtin_memcpy(&value, p, 8);
        return value;
    }
}

/* Ops of instructions with a shape, for a mode. [decode_known.c] */
struct x86_known *x86_known_create(void);
void x86_known_destroy(struct x86_known *k);
/* When the CPU's features change. NULL is fine. */
void x86_known_clear(struct x86_known *k);
/* As x86_decode; 0: it is not known. */
unsigned x86_known_decode(struct x86_known *k, uint64_t shape, uint32_t mode, const uint8_t *code,
                          struct x86_op *op, bool *end);
/* Keeps an op that decode function `fn` has made, if it may be kept. */
void x86_known_enter(struct x86_known *k, uint64_t shape, const struct x86_dec *d,
                     const struct x86_op *op, x86_dec_fn *fn);

/* The displacement from the next instruction becomes one from the block's first byte. */
static inline void x86_dec_rip(struct x86_op *op)
{
    int64_t disp = (int64_t)op->disp + op->off + op->len;

    if (disp > INT32_MAX) {
        op->index = X86_64K;
        disp -= 0x10000;
    }
    op->disp = (int32_t)disp;
}

/* Decodes the instruction at `code` (`avail` bytes at hand) into *op; the number of its bytes, 0
 * when more bytes are needed. Invalid encodings become an op that raises #UD; more than 15 bytes
 * #GP. *end as in struct x86_dec. [decode.c] */
unsigned x86_decode(struct x86_cpu *cpu, uint32_t mode, const uint8_t *code, unsigned avail,
                    struct x86_op *op, bool *end);

/* Vector, mask, MMX and x87 instructions, XSAVE family included. [vec_decode.c] */
bool x86_dec_vec(struct x86_dec *d, struct x86_op *op);

#endif
