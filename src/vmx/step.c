/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/step.c: kinds of instructions, by their opcodes (SDM Vol. 2D appendix A). */
#include "vmx/step.h"

/* A bit for each opcode, 32 in a word: what TF steps over. */
#define BITS(first, last)                                                                          \
    ((uint32_t)((0xffffffffull << (first)) & (0xffffffffull >> (31 - (last)))))

static const uint32_t one_byte[8] = {
    /* 00-1f: arithmetic; no segment registers on the stack */
    BITS(0x00, 0x05) | BITS(0x08, 0x0d) | BITS(0x10, 0x15) | BITS(0x18, 0x1d),
    /* 20-3f: arithmetic, decimal adjustment */
    BITS(0x00, 0x05) | BITS(0x07, 0x0d) | BITS(0x0f, 0x15) | BITS(0x17, 0x1d) | BITS(0x1f, 0x1f),
    /* 40-5f: INC and DEC, PUSH and POP */
    0xffffffff,
    /* 60-7f: MOVSXD, PUSH of constants, IMUL, Jcc */
    BITS(0x03, 0x03) | BITS(0x08, 0x0b) | BITS(0x10, 0x1f),
    /* 80-9f: all but 8c, 8e (segment registers), 9a (far), 9b (WAIT), 9c, 9d (flags) */
    BITS(0x00, 0x0b) | BITS(0x0d, 0x0d) | BITS(0x0f, 0x19) | BITS(0x1e, 0x1f),
    /* a0-bf: moves, strings that do not repeat */
    0xffffffff,
    /* c0-df: shifts, near RET, MOV, ENTER, LEAVE, XLAT, x87 */
    BITS(0x00, 0x03) | BITS(0x06, 0x09) | BITS(0x10, 0x1f),
    /* e0-ff: loops, near CALL and JMP, groups 3 and 4, CMC, CLC, STC, CLD, STD */
    BITS(0x00, 0x03) | BITS(0x08, 0x09) | BITS(0x0b, 0x0b) | BITS(0x15, 0x19) | BITS(0x1c, 0x1f)};

static const uint32_t two_bytes[8] = {
    /* 0d, 10-1f: prefetches, moves of vectors, NOP */
    BITS(0x0d, 0x0d) | BITS(0x10, 0x1f),
    /* 28-2f: moves and comparisons of vectors */
    BITS(0x08, 0x0f),
    /* 40-5f: CMOVcc, vectors */
    0xffffffff,
    /* 60-7f: vectors, but VMREAD and VMWRITE */
    BITS(0x00, 0x17) | BITS(0x1a, 0x1f),
    /* 80-9f: Jcc, SETcc */
    0xffffffff,
    /* a3-a5, ab-ad, af, b0, b1, b3, b6-bf: bits, shifts, CMPXCHG, MOVZX and MOVSX */
    BITS(0x03, 0x05) | BITS(0x0b, 0x0d) | BITS(0x0f, 0x11) | BITS(0x13, 0x13) | BITS(0x16, 0x18) |
        BITS(0x1a, 0x1f),
    /* c0-c6, c8-df: XADD, vectors, BSWAP */
    BITS(0x00, 0x06) | BITS(0x08, 0x1f),
    /* e0-fe: vectors */
    BITS(0x00, 0x1e)};

static bool in(const uint32_t *set, uint8_t opcode)
{
    return set[opcode >> 5] >> (opcode & 31) & 1;
}

static bool is_prefix(uint8_t b, enum vmx_code code)
{
    switch (b) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return code == VMX_CODE64 && (b & 0xf0) == 0x40;
    }
}

/* INS, OUTS, MOVS, CMPS, STOS, LODS, SCAS. */
static bool is_string(uint8_t opcode)
{
    return (opcode & 0xfc) == 0x6c || (opcode & 0xfc) == 0xa4 || (opcode >= 0xaa && opcode <= 0xaf);
}

/* MOV to CR8 and WRMSR may lower the priority, whose exit comes before that of the step. What a6
 * and a7 are on CPUs that have them repeats. */
static enum vmx_step two(uint8_t opcode)
{
    if (opcode == 0x22 || opcode == 0x30 || (opcode & 0xfe) == 0xa6)
        return VMX_STEP_SOFT;
    return in(two_bytes, opcode) || opcode == 0x38 || opcode == 0x3a ? VMX_STEP_TF : VMX_STEP_MTF;
}

/* Opcodes that the byte behind them tells apart: transactions; far CALL and JMP. */
static enum vmx_step with_modrm(uint8_t opcode, uint8_t modrm)
{
    const uint8_t reg = modrm >> 3 & 7;

    if (opcode == 0xff)
        return reg == 3 || reg == 5 ? VMX_STEP_MTF : VMX_STEP_TF;
    return reg == 7 ? VMX_STEP_SOFT : VMX_STEP_TF;
}

enum vmx_step vmx_step_kind(const uint8_t *insn, unsigned n, enum vmx_code code)
{
    bool repeats = false;
    unsigned at = 0;
    uint8_t op;

    for (; at < n && is_prefix(insn[at], code); at++)
        repeats |= (insn[at] & 0xfe) == 0xf2;
    if (at >= n)
        return VMX_STEP_SOFT;
    op = insn[at++];
    if (repeats && is_string(op))
        return VMX_STEP_SOFT;
    if (op != 0x0f && (op & 0xfe) != 0xc6 && op != 0xff)
        return in(one_byte, op) ? VMX_STEP_TF : VMX_STEP_MTF;
    if (at >= n)
        return VMX_STEP_SOFT;
    return op == 0x0f ? two(insn[at]) : with_modrm(op, insn[at]);
}
