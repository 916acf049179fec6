/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_alu.c: ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT. */
#include "core/x86/ops_common.h"

/* ---- two operands ---- */

enum form { RR, RI, RM, MR, MI, LOCK_MR, LOCK_MI, NFORMS };

/* The host's instruction on the lvalue d. */
#define BINARY(pre, insn, bits, constraint, dst, io)                                               \
    __asm__ volatile(pre insn X86_SFX_##bits " %[s], %[d]" X86_FLAGS_OUT                           \
                     : [d] constraint(dst), [cc] io(cc)                                            \
                     : [s] "r"(s)                                                                  \
                     : "cc")

#define STORE(bits)    x86_w##bits(cpu, op->r, d)
#define NO_STORE(bits) (void)d

/* Forms with a register destination, or whose result is flags only. */
#define REG_FORM(name, bits, pre, insn, io, store, dst, src)                                       \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t d = (dst), s = (src);                                                       \
        uint16_t cc = cpu->cc;                                                                     \
        BINARY(pre, insn, bits, "+r", d, io);                                                      \
        store(bits);                                                                               \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define LOAD_FORM(name, bits, pre, insn, io, store, dst, src)                                      \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t m, d, s;                                                                    \
        uint16_t cc = cpu->cc;                                                                     \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &m)))                                              \
            return x86_leave(cpu, op);                                                             \
        d = (dst);                                                                                 \
        s = (src);                                                                                 \
        BINARY(pre, insn, bits, "+r", d, io);                                                      \
        store(bits);                                                                               \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }

#define REG_FORMS(op_, bits, pre, insn, io, store)                                                 \
    REG_FORM(op_##bits##_rr, bits, pre, insn, io, store, x86_r##bits(cpu, op->r),                  \
             x86_r##bits(cpu, op->rm))                                                             \
    REG_FORM(op_##bits##_ri, bits, pre, insn, io, store, x86_r##bits(cpu, op->r),                  \
             (uint##bits##_t)op->imm)                                                              \
    LOAD_FORM(op_##bits##_rm, bits, pre, insn, io, store, x86_r##bits(cpu, op->r), m)

#define MEM_FORMS(op_, bits, pre, insn, io)                                                        \
    X86_RMW_HANDLER(op_##bits##_mr, bits, false, x86_r##bits(cpu, op->r),                          \
                    BINARY(pre, insn, bits, "+m", *p, io), cpu->cc = cc)                           \
    X86_RMW_HANDLER(op_##bits##_mi, bits, false, (uint##bits##_t)op->imm,                          \
                    BINARY(pre, insn, bits, "+m", *p, io), cpu->cc = cc)                           \
    X86_RMW_HANDLER(op_##bits##_lmr, bits, true, x86_r##bits(cpu, op->r),                          \
                    BINARY(pre "lock ", insn, bits, "+m", *p, io), cpu->cc = cc)                   \
    X86_RMW_HANDLER(op_##bits##_lmi, bits, true, (uint##bits##_t)op->imm,                          \
                    BINARY(pre "lock ", insn, bits, "+m", *p, io), cpu->cc = cc)

#define COMPARE_FORMS(op_, bits, insn)                                                             \
    REG_FORMS(op_, bits, "", insn, "=a", NO_STORE)                                                 \
    LOAD_FORM(op_##bits##_mr, bits, "", insn, "=a", NO_STORE, m, x86_r##bits(cpu, op->r))          \
    LOAD_FORM(op_##bits##_mi, bits, "", insn, "=a", NO_STORE, m, (uint##bits##_t)op->imm)

#define ARITH_FORMS(op_, bits, pre, insn, io)                                                      \
    REG_FORMS(op_, bits, pre, insn, io, STORE) MEM_FORMS(op_, bits, pre, insn, io)

#define ARITH(op_, pre, insn, io)                                                                  \
    ARITH_FORMS(op_, 8, pre, insn, io)                                                             \
    ARITH_FORMS(op_, 16, pre, insn, io)                                                            \
    ARITH_FORMS(op_, 32, pre, insn, io) ARITH_FORMS(op_, 64, pre, insn, io)
#define COMPARE(op_, insn)                                                                         \
    COMPARE_FORMS(op_, 8, insn)                                                                    \
    COMPARE_FORMS(op_, 16, insn) COMPARE_FORMS(op_, 32, insn) COMPARE_FORMS(op_, 64, insn)

ARITH(add, "", "add", "=a")
ARITH(or, "", "or", "=a")
ARITH(adc, X86_CARRY_IN, "adc", "+a")
ARITH(sbb, X86_CARRY_IN, "sbb", "+a")
ARITH(and, "", "and", "=a")
ARITH(sub, "", "sub", "=a")
ARITH(xor, "", "xor", "=a")
COMPARE(cmp, "cmp")
COMPARE(test, "test")

#define FORM_ROW(op_, form)                                                                        \
    {                                                                                              \
        op_##8_##form, op_##16_##form, op_##32_##form, op_##64_##form                              \
    }
#define ARITH_ROW(op_)                                                                             \
    {                                                                                              \
        [RR] = FORM_ROW(op_, rr), [RI] = FORM_ROW(op_, ri), [RM] = FORM_ROW(op_, rm),              \
        [MR] = FORM_ROW(op_, mr), [MI] = FORM_ROW(op_, mi), [LOCK_MR] = FORM_ROW(op_, lmr),        \
        [LOCK_MI] = FORM_ROW(op_, lmi)                                                             \
    }
#define COMPARE_ROW(op_)                                                                           \
    {                                                                                              \
        [RR] = FORM_ROW(op_, rr), [RI] = FORM_ROW(op_, ri), [RM] = FORM_ROW(op_, rm),              \
        [MR] = FORM_ROW(op_, mr), [MI] = FORM_ROW(op_, mi)                                         \
    }

static x86_fn *const alu_fn[][NFORMS][4] = {
    [X86_ALU_ADD] = ARITH_ROW(add),     [X86_ALU_OR] = ARITH_ROW(or),
    [X86_ALU_ADC] = ARITH_ROW(adc),     [X86_ALU_SBB] = ARITH_ROW(sbb),
    [X86_ALU_AND] = ARITH_ROW(and),     [X86_ALU_SUB] = ARITH_ROW(sub),
    [X86_ALU_XOR] = ARITH_ROW(xor),     [X86_ALU_CMP] = COMPARE_ROW(cmp),
    [X86_ALU_TEST] = COMPARE_ROW(test),
};

/* XOR or SUB of a register with itself. */
X86_HANDLER(zero_32)
{
    cpu->gpr[op->r] = 0;
    cpu->cc = X86_CC_NONE | X86_CC_ZF | X86_CC_PF;
    X86_NEXT(cpu, op);
}

bool x86_dec_alu(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    unsigned size = x86_dec_size(d, 0);
    bool lock = x86_dec_lock(d);
    enum form form;

    if (x86_dec_is_mem(d, 0)) {
        x86_dec_mem(d, 0, op);
        if (x86_dec_is_imm(d, 1)) {
            form = lock ? LOCK_MI : MI;
            op->imm = x86_dec_imm(d, 1);
        } else {
            form = lock ? LOCK_MR : MR;
            op->r = x86_dec_reg(d->opnd[1].reg.value);
        }
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        if (x86_dec_is_imm(d, 1)) {
            form = RI;
            op->imm = x86_dec_imm(d, 1);
        } else if (x86_dec_is_mem(d, 1)) {
            form = RM;
            x86_dec_mem(d, 1, op);
        } else {
            form = RR;
            op->rm = x86_dec_reg(d->opnd[1].reg.value);
        }
    }
    op->fn = alu_fn[arg][form][x86_log2_size(size)];
    if ((arg == X86_ALU_XOR || arg == X86_ALU_SUB) && form == RR && op->r == op->rm && size >= 4)
        op->fn = zero_32;
    return op->fn;
}

/* ---- one operand ---- */

enum unary_form { R, M, LOCK_M, NUNARY };

#define UNARY_ASM(pre, insn, bits, constraint, dst, io)                                            \
    __asm__ volatile(pre insn X86_SFX_##bits " %[d]" X86_FLAGS_OUT                                 \
                     : [d] constraint(dst), [cc] io(cc)                                            \
                     :                                                                             \
                     : "cc")

#define UNARY_FORMS(op_, bits, pre, insn, io)                                                      \
    X86_HANDLER(op_##bits##_r)                                                                     \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r);                                                \
        uint16_t cc = cpu->cc;                                                                     \
        UNARY_ASM(pre, insn, bits, "+r", d, io);                                                   \
        x86_w##bits(cpu, op->r, d);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_RMW_HANDLER(op_##bits##_m, bits, false, 0, UNARY_ASM(pre, insn, bits, "+m", *p, io),       \
                    cpu->cc = cc)                                                                  \
    X86_RMW_HANDLER(op_##bits##_lm, bits, true, 0,                                                 \
                    UNARY_ASM(pre "lock ", insn, bits, "+m", *p, io), cpu->cc = cc)
#define UNARY(op_, pre, insn, io)                                                                  \
    UNARY_FORMS(op_, 8, pre, insn, io)                                                             \
    UNARY_FORMS(op_, 16, pre, insn, io)                                                            \
    UNARY_FORMS(op_, 32, pre, insn, io) UNARY_FORMS(op_, 64, pre, insn, io)

UNARY(inc, X86_CARRY_IN, "inc", "+a")
UNARY(dec, X86_CARRY_IN, "dec", "+a")
UNARY(neg, "", "neg", "=a")

#define NOT_FORMS(bits)                                                                            \
    X86_HANDLER(not ##bits##_r)                                                                    \
    {                                                                                              \
        x86_w##bits(cpu, op->r, (uint##bits##_t) ~x86_r##bits(cpu, op->r));                        \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_RMW_HANDLER(not ##bits##_m, bits, false, 0, *p = (uint##bits##_t) ~*p, (void)0)            \
    X86_RMW_HANDLER(not ##bits##_lm, bits, true, 0,                                                \
                    __asm__ volatile("lock not" X86_SFX_##bits " %0"                               \
                                     : "+m"(*p)),                                                  \
                    (void)0)
NOT_FORMS(8)
NOT_FORMS(16)
NOT_FORMS(32)
NOT_FORMS(64)

#define UNARY_ROW(op_)                                                                             \
    {                                                                                              \
        [R] = FORM_ROW(op_, r), [M] = FORM_ROW(op_, m), [LOCK_M] = FORM_ROW(op_, lm)               \
    }
static x86_fn *const unary_fn[][NUNARY][4] = {
    [X86_UNARY_INC] = UNARY_ROW(inc),
    [X86_UNARY_DEC] = UNARY_ROW(dec),
    [X86_UNARY_NEG] = UNARY_ROW(neg),
    [X86_UNARY_NOT] = UNARY_ROW(not ),
};

bool x86_dec_unary(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    enum unary_form form = R;

    if (x86_dec_is_mem(d, 0)) {
        form = x86_dec_lock(d) ? LOCK_M : M;
        x86_dec_mem(d, 0, op);
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
    }
    op->fn = unary_fn[arg][form][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}
