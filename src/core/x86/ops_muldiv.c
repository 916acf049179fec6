/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_muldiv.c: MUL, IMUL, DIV, IDIV. */
#include "core/x86/ops_common.h"

#define AL 0
#define AH 1

/* ---- the double-width forms: operands of all sizes come as 64 bits ---- */

struct wide {
    uint64_t lo, hi;
    uint16_t cc;
};

/* rdx:rax (of 8 bits: ah:al) = accumulator * s. */
#define MULTIPLY(op_, bits)                                                                        \
    static inline struct wide op_##_##bits(uint64_t acc, uint64_t s)                               \
    {                                                                                              \
        struct wide w;                                                                             \
        __asm__(#op_ X86_SFX_##bits " %" MOD_##bits "[s]\n\tmovq %%rax, %[lo]" X86_FLAGS_OUT       \
                : [lo] "=&r"(w.lo), "=d"(w.hi), "=a"(w.cc)                                         \
                : [s] "r"(s), "a"(acc)                                                             \
                : "cc");                                                                           \
        return w;                                                                                  \
    }
#define MOD_8  "b"
#define MOD_16 "w"
#define MOD_32 "k"
#define MOD_64 "q"

/* rax, rdx = rdx:rax / s, remainder; does not overflow (checked before). */
#define DIVIDE(op_, bits)                                                                          \
    static inline struct wide op_##_##bits(uint64_t lo, uint64_t hi, uint64_t s, uint16_t cc)      \
    {                                                                                              \
        struct wide w = {.hi = hi, .cc = cc};                                                      \
        __asm__(X86_FLAGS_IN "movq %[in], %%rax\n\t" #op_ X86_SFX_##bits " %" MOD_##bits           \
                "[s]\n\tmovq %%rax, %[lo]" X86_FLAGS_OUT                                           \
                : [lo] "=&r"(w.lo), "+d"(w.hi), "+&a"(w.cc)                                        \
                : [s] "r"(s), [in] "r"(lo)                                                         \
                : "cc");                                                                           \
        return w;                                                                                  \
    }
#define ALL_SIZES(X, op_) X(op_, 8) X(op_, 16) X(op_, 32) X(op_, 64)
ALL_SIZES(MULTIPLY, mul)
ALL_SIZES(MULTIPLY, imul)
ALL_SIZES(DIVIDE, div)
ALL_SIZES(DIVIDE, idiv)

/* Whether the division raises #DE. */
static inline bool div_overflows(unsigned bits, uint64_t lo, uint64_t hi, uint64_t s)
{
    (void)lo, (void)bits;
    return hi >= s; /* s = 0 included */
}

static inline bool idiv_overflows(unsigned bits, uint64_t lo, uint64_t hi, uint64_t s)
{
    unsigned up = 64 - bits;
    uint64_t min = (uint64_t)1 << (bits - 1), ones = ~(uint64_t)0 >> up, abs;
    unsigned __int128 dividend = (unsigned __int128)hi << bits | lo;
    bool negative = hi & min, differ = negative != !!(s & min);

    if (negative)
        dividend = -dividend & ((unsigned __int128)ones << bits | ones);
    abs = s & min ? -s & ones : s;
    /* The quotient's magnitude fits in bits if the dividend's upper half is below the divisor; then
     * it must be within the signed range. */
    if ((uint64_t)(dividend >> bits) >= abs)
        return true;
    if (bits == 64) {
        uint64_t q = (uint64_t)dividend, r = (uint64_t)(dividend >> 64);

        __asm__("divq %2" : "+a"(q), "+d"(r) : "r"(abs) : "cc");
        return q > min - !differ;
    }
    return (uint64_t)dividend / abs > min - !differ;
}

#define LOW(bits)         x86_r##bits(cpu, VMM_RAX)
#define HIGH(bits)        x86_r##bits(cpu, VMM_RDX)
#define SET_LOW(bits, v)  x86_w##bits(cpu, VMM_RAX, (uint##bits##_t)(v))
#define SET_HIGH(bits, v) x86_w##bits(cpu, VMM_RDX, (uint##bits##_t)(v))

/* Both results of a multiplication or division of `bits` into their registers. */
#define COMMIT_8(w)  SET_LOW(16, (w).lo)
#define COMMIT_16(w) (SET_LOW(16, (w).lo), SET_HIGH(16, (w).hi))
#define COMMIT_32(w) (SET_LOW(32, (w).lo), SET_HIGH(32, (w).hi))
#define COMMIT_64(w) (SET_LOW(64, (w).lo), SET_HIGH(64, (w).hi))
/* The dividend's halves; DIV r/m8 divides AX. */
#define DIVIDEND_8(lo, hi)  (lo = x86_r8(cpu, AL), hi = x86_r8(cpu, AH))
#define DIVIDEND_16(lo, hi) (lo = LOW(16), hi = HIGH(16))
#define DIVIDEND_32(lo, hi) (lo = LOW(32), hi = HIGH(32))
#define DIVIDEND_64(lo, hi) (lo = LOW(64), hi = HIGH(64))
/* RAX as the host's instruction wants it. */
#define RAX_IN_8(lo, hi)  ((lo) | (hi) << 8)
#define RAX_IN_16(lo, hi) (lo)
#define RAX_IN_32(lo, hi) (lo)
#define RAX_IN_64(lo, hi) (lo)

#define MULTIPLY_BODY(op_, bits, s)                                                                \
    struct wide w = op_##_##bits(cpu->gpr[VMM_RAX], s);                                            \
    COMMIT_##bits(w);                                                                              \
    cpu->cc = w.cc;                                                                                \
    X86_NEXT(cpu, op)
#define DIVIDE_BODY(op_, bits, s)                                                                  \
    uint64_t lo, hi;                                                                               \
    struct wide w;                                                                                 \
    DIVIDEND_##bits(lo, hi);                                                                       \
    if (op_##_overflows(bits, lo, hi, s))                                                          \
        return x86_fault(cpu, op, X86_DE);                                                         \
    w = op_##_##bits(RAX_IN_##bits(lo, hi), hi, s, cpu->cc);                                       \
    COMMIT_##bits(w);                                                                              \
    cpu->cc = w.cc;                                                                                \
    X86_NEXT(cpu, op)

#define FORMS(op_, bits, BODY)                                                                     \
    X86_HANDLER(op_##bits##_r)                                                                     \
    {                                                                                              \
        uint##bits##_t s = x86_r##bits(cpu, op->r);                                                \
        BODY(op_, bits, s);                                                                        \
    }                                                                                              \
    X86_HANDLER(op_##bits##_m)                                                                     \
    {                                                                                              \
        uint##bits##_t s;                                                                          \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &s)))                                              \
            return x86_leave(cpu, op);                                                             \
        BODY(op_, bits, s);                                                                        \
    }
#define MULTIPLY_FORMS(op_, bits) FORMS(op_, bits, MULTIPLY_BODY)
#define DIVIDE_FORMS(op_, bits)   FORMS(op_, bits, DIVIDE_BODY)
ALL_SIZES(MULTIPLY_FORMS, mul)
ALL_SIZES(MULTIPLY_FORMS, imul)
ALL_SIZES(DIVIDE_FORMS, div)
ALL_SIZES(DIVIDE_FORMS, idiv)

#define ROW(op_, form)                                                                             \
    {                                                                                              \
        op_##8_##form, op_##16_##form, op_##32_##form, op_##64_##form                              \
    }
static x86_fn *const imul_fn[2][4] = {ROW(imul, r), ROW(imul, m)};
static x86_fn *const muldiv_fn[][2][4] = {
    [X86_MUL] = {ROW(mul, r), ROW(mul, m)},
    [X86_DIV] = {ROW(div, r), ROW(div, m)},
    [X86_IDIV] = {ROW(idiv, r), ROW(idiv, m)},
};

static bool operand(struct x86_dec *d, unsigned i, uint8_t *reg, struct x86_op *op)
{
    bool mem = x86_dec_is_mem(d, i);

    if (mem)
        x86_dec_mem(d, i, op);
    else
        *reg = x86_dec_reg(d->opnd[i].reg.value);
    return mem;
}

bool x86_dec_muldiv(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    bool mem = operand(d, 0, &op->r, op);

    op->fn = muldiv_fn[arg][mem][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* ---- IMUL with two and three operands: r = a * b ---- */

#define IMUL(name, bits, load, a, b)                                                               \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t m = 0, d, s;                                                                \
        uint16_t cc;                                                                               \
        if (load && x86_unlikely(!x86_ld##bits(cpu, op, &m)))                                      \
            return x86_leave(cpu, op);                                                             \
        d = (a);                                                                                   \
        s = (b);                                                                                   \
        __asm__("imul" X86_SFX_##bits " %[s], %[d]" X86_FLAGS_OUT                                  \
                : [d] "+r"(d), "=a"(cc)                                                            \
                : [s] "r"(s)                                                                       \
                : "cc");                                                                           \
        (void)m;                                                                                   \
        x86_w##bits(cpu, op->r, d);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define IMULS(bits)                                                                                \
    IMUL(imul##bits##_rr, bits, false, x86_r##bits(cpu, op->r), x86_r##bits(cpu, op->rm))          \
    IMUL(imul##bits##_rm, bits, true, x86_r##bits(cpu, op->r), m)                                  \
    IMUL(imul##bits##_rri, bits, false, x86_r##bits(cpu, op->rm), (uint##bits##_t)op->imm)         \
    IMUL(imul##bits##_rmi, bits, true, m, (uint##bits##_t)op->imm)
IMULS(16)
IMULS(32)
IMULS(64)

bool x86_dec_imul(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
#define ROW3(form)                                                                                 \
    {                                                                                              \
        NULL, imul16_##form, imul32_##form, imul64_##form                                          \
    }
    static x86_fn *const fn[2][2][4] = {{ROW3(rr), ROW3(rm)}, {ROW3(rri), ROW3(rmi)}};
    unsigned size = x86_log2_size(x86_dec_size(d, 0)), n = d->insn.operand_count_visible;
    bool mem;

    (void)arg;
    if (n == 1) {
        mem = operand(d, 0, &op->r, op);
        op->fn = imul_fn[mem][size];
        return true;
    }
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    mem = operand(d, 1, &op->rm, op);
    if (n == 3)
        op->imm = x86_dec_imm(d, 2);
    op->fn = fn[n == 3][mem][size];
    return true;
}
