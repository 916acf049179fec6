/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/sse.c: moves, logic and integer arithmetic of SSE and SSE2 in line. */
#include "backends/bt/gen.h"
#include "core/x86/xstate.h"

/*
 * Vector registers stay in x86_cpu: XMM0 of the host is the operand `reg`, the other one is memory,
 * the guest's or that of the register. Only instructions that MXCSR does not concern, and only with
 * the legacy encoding, which leaves what is above 128 bits as it is.
 */

enum kind { NOTHING, LOAD, BINARY, UNARY, SHIFT, MASK };

struct row {
    uint8_t kind;
    uint8_t size; /* of an operand in memory */
    bool aligned; /* it must be */
};

#define ROW(mnemonic, kind, size, aligned) [ZYDIS_MNEMONIC_##mnemonic] = {kind, size, aligned}
#define BIN(mnemonic)                      ROW(mnemonic, BINARY, 16, true)
#define SHIFTS(mnemonic)                   ROW(mnemonic, SHIFT, 16, true)

/* Moves are LOAD or STORE by their operands. */
static const struct row rows[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    ROW(MOVUPS, LOAD, 16, false),
    ROW(MOVUPD, LOAD, 16, false),
    ROW(MOVDQU, LOAD, 16, false),
    ROW(MOVAPS, LOAD, 16, true),
    ROW(MOVAPD, LOAD, 16, true),
    ROW(MOVDQA, LOAD, 16, true),
    ROW(MOVQ, LOAD, 8, false),
    ROW(MOVD, LOAD, 4, false),
    ROW(MOVSD, LOAD, 8, false),
    ROW(MOVSS, LOAD, 4, false),
    ROW(PSHUFD, UNARY, 16, true),
    ROW(PSHUFLW, UNARY, 16, true),
    ROW(PSHUFHW, UNARY, 16, true),
    ROW(PMOVMSKB, MASK, 0, false),
    BIN(PXOR),
    BIN(POR),
    BIN(PAND),
    BIN(PANDN),
    BIN(XORPS),
    BIN(XORPD),
    BIN(ORPS),
    BIN(ORPD),
    BIN(ANDPS),
    BIN(ANDPD),
    BIN(ANDNPS),
    BIN(ANDNPD),
    BIN(PADDB),
    BIN(PADDW),
    BIN(PADDD),
    BIN(PADDQ),
    BIN(PSUBB),
    BIN(PSUBW),
    BIN(PSUBD),
    BIN(PSUBQ),
    BIN(PCMPEQB),
    BIN(PCMPEQW),
    BIN(PCMPEQD),
    BIN(PCMPGTB),
    BIN(PCMPGTW),
    BIN(PCMPGTD),
    BIN(PMINUB),
    BIN(PMAXUB),
    BIN(PMINSW),
    BIN(PMAXSW),
    BIN(PUNPCKLBW),
    BIN(PUNPCKLWD),
    BIN(PUNPCKLDQ),
    BIN(PUNPCKLQDQ),
    BIN(PUNPCKHBW),
    BIN(PUNPCKHWD),
    BIN(PUNPCKHDQ),
    BIN(PUNPCKHQDQ),
    BIN(PMULUDQ),
    BIN(PMULLW),
    BIN(PMULHW),
    BIN(PMULHUW),
    BIN(PMADDWD),
    BIN(PSADBW),
    BIN(PAVGB),
    BIN(PAVGW),
    BIN(PADDUSB),
    BIN(PADDUSW),
    BIN(PSUBUSB),
    BIN(PSUBUSW),
    BIN(PACKUSWB),
    BIN(PACKSSWB),
    BIN(PACKSSDW),
    BIN(SHUFPS),
    BIN(SHUFPD),
    BIN(UNPCKLPS),
    BIN(UNPCKHPS),
    BIN(UNPCKLPD),
    BIN(UNPCKHPD),
    SHIFTS(PSLLW),
    SHIFTS(PSLLD),
    SHIFTS(PSLLQ),
    SHIFTS(PSRLW),
    SHIFTS(PSRLD),
    SHIFTS(PSRLQ),
    SHIFTS(PSRAW),
    SHIFTS(PSRAD),
    SHIFTS(PSLLDQ),
    SHIFTS(PSRLDQ),
};

static bool is_xmm(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_XMM;
}

static bool is_mem(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* The slot of a general register of 4 or 8 bytes. */
static bool is_gpr(const ZydisDecodedOperand *o, unsigned *slot)
{
    ZydisRegisterClass class =
        o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value) : 0;

    *slot = class ? (unsigned)ZydisRegisterGetId(o->reg.value) : 0;
    return class == ZYDIS_REGCLASS_GPR32 || class == ZYDIS_REGCLASS_GPR64;
}

static struct em_rm xmm(const ZydisDecodedOperand *o)
{
    return em_at(H_RBP, BT_FIELD(fpu.vec) + ZydisRegisterGetId(o->reg.value) * 64);
}

/* The instructions may be executed, and the state counts as used: once in a block, and again behind
 * handlers. */
static void check(struct gen *g)
{
    if (g->sse_checked)
        return;
    gen_spill_flags(g);
    em_rm(&g->e, false, 0xf7, 0, GEN_FIELD(cr0)); /* TEST */
    em32(&g->e, X86_CR0_EM | X86_CR0_TS);
    gen_slow_if(g, CC_NZ);
    em_rm(&g->e, false, 0xf7, 0, GEN_FIELD(cr4));
    em32(&g->e, X86_CR4_OSFXSR);
    gen_slow_if(g, CC_Z);
    em_imm(&g->e, false, EXT_OR, GEN_FIELD(fpu.xinuse), X86_XCR0_SSE);
    g->sse_checked = true;
}

/* MOVAPS between XMM0 and a register's place. */
static void get(struct gen *g, const ZydisDecodedOperand *o)
{
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0x28}, 0, xmm(o));
}

static void put(struct gen *g, const ZydisDecodedOperand *o)
{
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0x29}, 0, xmm(o));
}

/* RAX: the host address of the memory operand. */
static bool memory(struct gen *g, const struct row *row, bool write)
{
    if (!gen_mem(g, row->size, write))
        return false;
    if (row->aligned) {
        EM(&g->e, 0xa8, 15); /* TEST AL, 15: as the guest's address */
        gen_slow_if(g, CC_NZ);
    }
    return true;
}

/* The instruction as it is, with XMM0 and another operand rm. */
static void copy(struct gen *g, unsigned reg, struct em_rm rm)
{
    const ZydisDecodedInstruction *in = &g->insn;
    struct em_op op = {.map = 1, .op = in->opcode};

    for (unsigned i = 0; i < in->raw.prefix_count; i++)
        if (in->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY) {
            if (in->raw.prefixes[i].value == 0x66)
                op.half = true;
            else
                op.rep = in->raw.prefixes[i].value;
        }
    em_insn(&g->e, op, reg, rm);
    if (in->raw.imm[0].size)
        em8(&g->e, g->bytes[in->raw.imm[0].offset]);
}

/* ---- moves ---- */

static bool load(struct gen *g, const struct row *row)
{
    static const struct em_op loads[] = {
        [4] = {.map = 1, .op = 0x6e, .half = true}, /* MOVD */
        [8] = {.map = 1, .op = 0x7e, .rep = 0xf3},  /* MOVQ */
        [16] = {.map = 1, .op = 0x10},              /* MOVUPS */
    };
    const ZydisDecodedOperand *to = &g->opnd[0], *from = &g->opnd[1];
    ZydisMnemonic m = g->insn.mnemonic;
    struct em_rm rm = em_at(H_RAX, 0);
    unsigned slot, size = row->size;

    if (is_mem(from)) {
        check(g);
        size = from->size / 8;
        if (size != row->size || !memory(g, row, false))
            return false;
    } else if (is_xmm(from)) {
        if (m == ZYDIS_MNEMONIC_MOVSD || m == ZYDIS_MNEMONIC_MOVSS) /* a part of the register */
            return false;
        check(g);
        rm = xmm(from);
    } else {
        if (!is_gpr(from, &slot))
            return false;
        check(g);
        size = from->size / 8;
        gen_get(g, H_RAX, slot);
        em_insn(&g->e, (struct em_op){.map = 1, .op = 0x6e, .half = true, .wide = size == 8}, 0,
                em_reg(H_RAX));
        put(g, to);
        return true;
    }
    em_insn(&g->e, loads[size], 0, rm);
    put(g, to);
    return true;
}

static bool store(struct gen *g, const struct row *row)
{
    const ZydisDecodedOperand *to = &g->opnd[0], *from = &g->opnd[1];
    unsigned slot, size = row->size;

    check(g);
    if (!is_mem(to)) {
        if (!is_gpr(to, &slot))
            return false;
        em_rm(&g->e, to->size == 64, OP_LOAD, H_RAX, xmm(from));
        gen_put(g, slot, H_RAX);
        return true;
    }
    if (to->size / 8 != size || !memory(g, row, true))
        return false;
    if (size == 16) {
        get(g, from);
        em_insn(&g->e, (struct em_op){.map = 1, .op = 0x11}, 0, em_at(H_RAX, 0));
    } else {
        em_rm(&g->e, size == 8, OP_LOAD, H_RCX, xmm(from));
        em_rm(&g->e, size == 8, OP_STORE, H_RCX, em_at(H_RAX, 0));
    }
    return true;
}

/* ---- arithmetic ---- */

static bool compute(struct gen *g, const struct row *row, bool read)
{
    const ZydisDecodedOperand *to = &g->opnd[0], *from = &g->opnd[1];
    struct em_rm rm = em_at(H_RAX, 0);

    check(g);
    if (is_mem(from)) {
        if (from->size / 8 != row->size || !memory(g, row, false))
            return false;
    } else if (is_xmm(from)) {
        rm = xmm(from);
    } else {
        return false;
    }
    if (read)
        get(g, to);
    copy(g, 0, rm);
    put(g, to);
    return true;
}

static bool shift(struct gen *g, const struct row *row)
{
    if (g->opnd[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return compute(g, row, true);
    check(g);
    get(g, &g->opnd[0]);
    copy(g, g->insn.raw.modrm.reg, em_reg(0));
    put(g, &g->opnd[0]);
    return true;
}

static bool mask(struct gen *g)
{
    unsigned slot;

    if (!is_gpr(&g->opnd[0], &slot) || !is_xmm(&g->opnd[1]))
        return false;
    check(g);
    get(g, &g->opnd[1]);
    copy(g, H_RAX, em_reg(0));
    gen_put(g, slot, H_RAX);
    return true;
}

bool gen_sse(struct gen *g)
{
    const struct row *row = &rows[g->insn.mnemonic];

    if (row->kind == NOTHING || g->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
        g->insn.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return false;
    switch (row->kind) {
    case LOAD:
        return is_xmm(&g->opnd[0]) ? load(g, row) : is_xmm(&g->opnd[1]) && store(g, row);
    case BINARY:
        return is_xmm(&g->opnd[0]) && compute(g, row, true);
    case UNARY:
        return is_xmm(&g->opnd[0]) && compute(g, row, false);
    case SHIFT:
        return is_xmm(&g->opnd[0]) && shift(g, row);
    default:
        return mask(g);
    }
}
