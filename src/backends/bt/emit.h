/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/emit.h: writes host instructions. */
#ifndef BACKENDS_BT_EMIT_H
#define BACKENDS_BT_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Host registers by number. */
enum {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = 0xff
};

/* Where code is written; the same bytes are executable `to_rx` bytes from there. */
struct em {
    uint8_t *p;
    ptrdiff_t to_rx;
};

static inline void em8(struct em *e, unsigned v)
{
    *e->p++ = (uint8_t)v;
}

static inline void em32(struct em *e, uint32_t v)
{
    memcpy(e->p, &v, 4);
    e->p += 4;
}

static inline void em64(struct em *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}

static inline void em_bytes(struct em *e, const void *bytes, size_t n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}

/* Short fixed sequences. */
#define EM(e, ...)                                                                                 \
    do {                                                                                           \
        const uint8_t bytes_[] = {__VA_ARGS__};                                                    \
        em_bytes(e, bytes_, sizeof(bytes_));                                                       \
    } while (0)

/* What stands before ModRM. */
struct em_op {
    uint8_t map;   /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t op;    /* opcode */
    uint8_t rep;   /* F2 or F3, 0: none */
    bool lock;     /* F0 */
    bool half;     /* 66 */
    bool wide;     /* REX.W, VEX.W */
    bool rex;      /* a REX prefix even if empty: SPL, BPL, SIL, DIL */
    bool vex;      /* VEX: `pp` and `vvvv` */
    uint8_t pp;    /* 0, 1: 66, 2: F3, 3: F2 */
    uint8_t vvvv;  /* host register */
    uint8_t vex_l; /* 0 for general registers */
};

/* A ModRM operand: a register, or memory at base + index * 2^scale + disp. */
struct em_rm {
    bool mem;
    uint8_t reg; /* or the base; H_NONE: no base */
    uint8_t index;
    uint8_t scale;
    int32_t disp;
};

static inline struct em_rm em_reg(unsigned reg)
{
    return (struct em_rm){.reg = (uint8_t)reg, .index = H_NONE};
}

static inline struct em_rm em_at(unsigned base, int32_t disp)
{
    return (struct em_rm){.mem = true, .reg = (uint8_t)base, .index = H_NONE, .disp = disp};
}

/* An instruction with ModRM; `reg` is the other register or the opcode's extension. */
void em_insn(struct em *e, struct em_op op, unsigned reg, struct em_rm rm);

/*
 * op with 64-bit (wide) or 32-bit operands, one-byte opcode. Most of what is written is of this
 * kind: opcode, ModRM and displacement are one store, which may go over their end by some bytes.
 */
static inline void em_word(struct em *e, unsigned rex, uint64_t bytes, unsigned n)
{
    if (rex) {
        bytes = bytes << 8 | 0x40 | rex;
        n++;
    }
    memcpy(e->p, &bytes, 8);
    e->p += n;
}

static inline void em_rr(struct em *e, bool wide, unsigned op, unsigned reg, unsigned rm)
{
    em_word(e, (wide ? 8u : 0) | reg >> 3 << 2 | rm >> 3,
            op | (0xc0 | (reg & 7) << 3 | (rm & 7)) << 8, 2);
}

/* Memory at base + disp; not RSP or R12, which need a SIB byte. */
static inline void em_based(struct em *e, bool wide, unsigned op, unsigned reg, unsigned base,
                            int32_t disp)
{
    unsigned rex = (wide ? 8u : 0) | reg >> 3 << 2 | base >> 3;
    uint64_t bytes = op | ((reg & 7) << 3 | (base & 7)) << 8;

    if (disp != (int8_t)disp)
        em_word(e, rex, bytes | 0x8000 | (uint64_t)(uint32_t)disp << 16, 6);
    else if (disp || (base & 7) == H_RBP)
        em_word(e, rex, bytes | 0x4000 | (uint64_t)(uint8_t)disp << 16, 3);
    else
        em_word(e, rex, bytes, 2);
}

void em_any_rm(struct em *e, bool wide, unsigned op, unsigned reg, struct em_rm rm);

static inline void em_rm(struct em *e, bool wide, unsigned op, unsigned reg, struct em_rm rm)
{
    /* Fields of the vCPU's state: most of this is known when it is compiled. */
    if (__builtin_constant_p(rm.reg) && rm.mem && rm.reg == H_RBP && rm.index == H_NONE)
        em_based(e, wide, op, reg, H_RBP, rm.disp);
    else
        em_any_rm(e, wide, op, reg, rm);
}

#define OP_ADD   0x03 /* reg += rm */
#define OP_XOR   0x33
#define OP_SUB   0x2b
#define OP_CMP   0x3b
#define OP_STORE 0x89
#define OP_LOAD  0x8b
#define OP_LEA   0x8d
#define OP_IMM32 0x81 /* with EXT_* */
#define OP_IMM8  0x83
#define OP_SHIFT 0xc1
#define EXT_ADD  0
#define EXT_OR   1
#define EXT_AND  4
#define EXT_SUB  5
#define EXT_CMP  7
#define EXT_SHL  4
#define EXT_SHR  5
#define EXT_SAR  7
#define CC_C     2
#define CC_NC    3
#define CC_Z     4
#define CC_NZ    5
#define CC_A     7
#define CC_L     12

/* LEA, or a shorter MOV. */
void em_lea(struct em *e, bool wide, unsigned reg, struct em_rm m);

/* ALU operation with an immediate. */
void em_imm(struct em *e, bool wide, unsigned ext, struct em_rm rm, int32_t imm);

/* Jumps to an executable address. */
void em_jmp(struct em *e, const void *target);
void em_call(struct em *e, const void *target);
void em_jcc(struct em *e, unsigned cc, const void *target);
/* The same, to be completed by em_here or em_patch: the place of the displacement. */
uint8_t *em_jmp_later(struct em *e);
uint8_t *em_jcc_later(struct em *e, unsigned cc);
static inline void em_patch(const struct em *e, uint8_t *site, const void *target)
{
    int32_t rel = (int32_t)((const uint8_t *)target - (site + 4 + e->to_rx));

    memcpy(site, &rel, 4);
}

static inline void em_here(const struct em *e, uint8_t *site)
{
    em_patch(e, site, e->p + e->to_rx);
}

static inline const void *em_rx(const struct em *e)
{
    return e->p + e->to_rx;
}

/* MOV reg, constant. */
void em_const(struct em *e, unsigned reg, uint64_t value);

#endif
