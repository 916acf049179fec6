/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_bit.c: BT BTS BTR BTC; BSF BSR TZCNT LZCNT POPCNT. */
#include "core/x86/ops_common.h"

/* ---- bit tests: the bit offset is rm or imm ---- */

enum form { RR, RI, MR, MI, LOCK_MR, LOCK_MI, NFORMS };

#define BT_ASM(insn, bits, constraint, dst)                                                        \
    __asm__ volatile(X86_FLAGS_IN insn X86_SFX_##bits " %[s], %[d]" X86_FLAGS_OUT                  \
                     : [d] constraint(dst), [cc] "+&a"(cc)                                         \
                     : [s] "r"((uint##bits##_t)((s) & (bits - 1)))                                 \
                     : "cc", "memory")

/*
 * A bit offset in a register reaches beyond the operand of `bits` bits: it moves the address by
 * whole operands, as a signed number of the operand's size (SDM Vol. 2A 3.1.1.9).
 */
#define BIT_ADDRESS(bits)                                                                          \
    static inline uint64_t bit_offset_##bits(const struct x86_cpu *cpu, const struct x86_op *op)   \
    {                                                                                              \
        int64_t bit = (int##bits##_t)x86_r##bits(cpu, op->rm);                                     \
        return x86_offset(cpu, op) + (uint64_t)(bit >> __builtin_ctz(bits)) * (bits / 8);          \
    }
BIT_ADDRESS(16)
BIT_ADDRESS(32)
BIT_ADDRESS(64)

/* x86_rmw_begin for an operand that is not at x86_ea. */
static bool rmw_begin_at(struct x86_cpu *cpu, const struct x86_op *op, uint64_t offset,
                         unsigned size, bool lock, struct x86_rmw *m)
{
    if (!x86_linear_at(cpu, op, offset, size, true, &m->linear))
        return false;
    m->p = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, m->linear, size);
    m->slow = false;
    if (x86_unlikely(!m->p || (lock && x86_splits_line(m->linear, size))))
        return x86_rmw_slow(cpu, op, size, lock, m);
    return true;
}

#define BT_REG(name, insn, bits, offset)                                                           \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r), s = (offset);                                  \
        uint16_t cc = cpu->cc;                                                                     \
        BT_ASM(insn, bits, "+r", d);                                                               \
        x86_w##bits(cpu, op->r, d);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
/* The register stays as it is: BT of a 32-bit register is no write to it. */
#define BT_TEST(name, bits, offset)                                                                \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r), s = (offset);                                  \
        uint16_t cc = cpu->cc;                                                                     \
        BT_ASM("bt", bits, "+r", d);                                                               \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define BT_MEM_REG(name, insn, bits, lock)                                                         \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t s = x86_r##bits(cpu, op->rm);                                               \
        uint16_t cc = cpu->cc;                                                                     \
        struct x86_rmw m;                                                                          \
        if (!rmw_begin_at(cpu, op, bit_offset_##bits(cpu, op), bits / 8, lock, &m))                \
            return x86_leave(cpu, op);                                                             \
        BT_ASM(insn, bits, "+m", *(x86_u##bits *)m.p);                                             \
        if (!x86_rmw_end(cpu, op, &m))                                                             \
            return x86_leave(cpu, op);                                                             \
        cpu->cc = cc;                                                                              \
        X86_RETURN(cpu, op);                                                                       \
    }
#define BT_FORMS(op_, bits)                                                                        \
    BT_REG(op_##bits##_rr, #op_, bits, x86_r##bits(cpu, op->rm))                                   \
    BT_REG(op_##bits##_ri, #op_, bits, (uint##bits##_t)op->imm)                                    \
    BT_MEM_REG(op_##bits##_mr, #op_, bits, false)                                                  \
    BT_MEM_REG(op_##bits##_lmr, "lock " #op_, bits, true)                                          \
    X86_RMW_HANDLER(op_##bits##_mi, bits, false, (uint##bits##_t)op->imm,                          \
                    BT_ASM(#op_, bits, "+m", *p), cpu->cc = cc)                                    \
    X86_RMW_HANDLER(op_##bits##_lmi, bits, true, (uint##bits##_t)op->imm,                          \
                    BT_ASM("lock " #op_, bits, "+m", *p), cpu->cc = cc)
#define BT_FAMILY(op_) BT_FORMS(op_, 16) BT_FORMS(op_, 32) BT_FORMS(op_, 64)
BT_FAMILY(bts)
BT_FAMILY(btr)
BT_FAMILY(btc)

#define BT(bits)                                                                                   \
    BT_TEST(bt##bits##_rr, bits, x86_r##bits(cpu, op->rm))                                         \
    BT_TEST(bt##bits##_ri, bits, (uint##bits##_t)op->imm)                                          \
    X86_HANDLER(bt##bits##_mr)                                                                     \
    {                                                                                              \
        uint##bits##_t d, s = x86_r##bits(cpu, op->rm);                                            \
        uint16_t cc = cpu->cc;                                                                     \
        uint64_t a;                                                                                \
        if (!x86_linear_at(cpu, op, bit_offset_##bits(cpu, op), bits / 8, false, &a) ||            \
            !x86_read(cpu, op, op->seg, a, &d, bits / 8))                                          \
            return x86_leave(cpu, op);                                                             \
        BT_ASM("bt", bits, "+r", d);                                                               \
        cpu->cc = cc;                                                                              \
        X86_RETURN(cpu, op);                                                                       \
    }                                                                                              \
    X86_HANDLER(bt##bits##_mi)                                                                     \
    {                                                                                              \
        uint##bits##_t d, s = (uint##bits##_t)op->imm;                                             \
        uint16_t cc = cpu->cc;                                                                     \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &d)))                                              \
            return x86_leave(cpu, op);                                                             \
        BT_ASM("bt", bits, "+r", d);                                                               \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
BT(16)
BT(32)
BT(64)

#define ROW(op_, form)                                                                             \
    {                                                                                              \
        NULL, op_##16_##form, op_##32_##form, op_##64_##form                                       \
    }
#define BT_ROWS(op_)                                                                               \
    [RR] = ROW(op_, rr), [RI] = ROW(op_, ri), [MR] = ROW(op_, mr), [MI] = ROW(op_, mi)
#define BT_LOCK_ROWS(op_) [LOCK_MR] = ROW(op_, lmr), [LOCK_MI] = ROW(op_, lmi)

bool x86_dec_bt(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[][NFORMS][4] = {
        [X86_BT] = {BT_ROWS(bt)},
        [X86_BTS] = {BT_ROWS(bts), BT_LOCK_ROWS(bts)},
        [X86_BTR] = {BT_ROWS(btr), BT_LOCK_ROWS(btr)},
        [X86_BTC] = {BT_ROWS(btc), BT_LOCK_ROWS(btc)},
    };
    bool mem = x86_dec_is_mem(d, 0), imm = x86_dec_is_imm(d, 1);
    enum form form = imm ? RI : RR;

    if (imm)
        op->imm = x86_dec_imm(d, 1);
    else
        op->rm = x86_dec_reg(d->opnd[1].reg.value);
    if (mem) {
        x86_dec_mem(d, 0, op);
        form = x86_dec_lock(d) ? (imm ? LOCK_MI : LOCK_MR) : imm ? MI : MR;
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
    }
    op->fn = fn[arg][form][x86_log2_size(x86_dec_size(d, 0))];
    return op->fn;
}

/* ---- scans and counts: r from rm or memory ---- */

/* With a source of 0 the destination keeps its old value, all 64 bits of it on the hardware that
 * leaves it alone: the host's instruction works on the whole register. */
#define SCAN(op_, bits)                                                                            \
    static inline uint64_t op_##_##bits(uint64_t d, uint##bits##_t s, uint16_t *cc)                \
    {                                                                                              \
        uint16_t ax = *cc;                                                                         \
        __asm__(X86_FLAGS_IN #op_ X86_SFX_##bits " %[s], %" MOD_##bits "[d]" X86_FLAGS_OUT         \
                : [d] "+&r"(d), [cc] "+&a"(ax)                                                     \
                : [s] "r"(s)                                                                       \
                : "cc");                                                                           \
        *cc = ax;                                                                                  \
        return d;                                                                                  \
    }
#define MOD_16 "w"
#define MOD_32 "k"
#define MOD_64 "q"
SCAN(bsf, 16)
SCAN(bsf, 32)
SCAN(bsf, 64)
SCAN(bsr, 16)
SCAN(bsr, 32)
SCAN(bsr, 64)

/* The counts are a feature of the guest's CPU, not of the host's. Flags: CF when the source is 0,
 * ZF when the count is 0; the others are undefined: clear. */
static inline uint16_t count_flags(bool cf, bool zf)
{
    return (uint16_t)(X86_CC_NONE | (cf ? X86_CC_CF : 0) | (zf ? X86_CC_ZF : 0));
}

#define COUNTS(bits)                                                                               \
    static inline uint64_t tzcnt_##bits(uint64_t d, uint##bits##_t s, uint16_t *cc)                \
    {                                                                                              \
        uint64_t n = s ? (uint64_t)__builtin_ctzll(s) : bits;                                      \
        (void)d;                                                                                   \
        *cc = count_flags(!s, !n);                                                                 \
        return n;                                                                                  \
    }                                                                                              \
    static inline uint64_t lzcnt_##bits(uint64_t d, uint##bits##_t s, uint16_t *cc)                \
    {                                                                                              \
        uint64_t n = s ? (uint64_t)__builtin_clzll(s) - (64 - bits) : bits;                        \
        (void)d;                                                                                   \
        *cc = count_flags(!s, !n);                                                                 \
        return n;                                                                                  \
    }                                                                                              \
    static inline uint64_t popcnt_##bits(uint64_t d, uint##bits##_t s, uint16_t *cc)               \
    {                                                                                              \
        (void)d;                                                                                   \
        *cc = count_flags(false, !s);                                                              \
        return (uint64_t)__builtin_popcountll(s);                                                  \
    }
COUNTS(16)
COUNTS(32)
COUNTS(64)

/* A 16-bit result replaces 16 bits; the functions have done it, or have less than 8 bits. */
#define SCAN_STORE_16(v) x86_w16(cpu, op->r, (uint16_t)(v))
#define SCAN_STORE_32(v) (cpu->gpr[op->r] = (v))
#define SCAN_STORE_64(v) (cpu->gpr[op->r] = (v))
#define SCAN_FORMS(op_, bits)                                                                      \
    X86_HANDLER(op_##bits##_r)                                                                     \
    {                                                                                              \
        uint16_t cc = cpu->cc;                                                                     \
        uint64_t v = op_##_##bits(cpu->gpr[op->r], x86_r##bits(cpu, op->rm), &cc);                 \
        SCAN_STORE_##bits(v);                                                                      \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(op_##bits##_m)                                                                     \
    {                                                                                              \
        uint16_t cc = cpu->cc;                                                                     \
        uint##bits##_t s;                                                                          \
        uint64_t v;                                                                                \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &s)))                                              \
            return x86_leave(cpu, op);                                                             \
        v = op_##_##bits(cpu->gpr[op->r], s, &cc);                                                 \
        SCAN_STORE_##bits(v);                                                                      \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define SCAN_SIZES(op_) SCAN_FORMS(op_, 16) SCAN_FORMS(op_, 32) SCAN_FORMS(op_, 64)
SCAN_SIZES(bsf)
SCAN_SIZES(bsr)
SCAN_SIZES(tzcnt)
SCAN_SIZES(lzcnt)
SCAN_SIZES(popcnt)

bool x86_dec_scan(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
#define SCAN_ROW(op_)                                                                              \
    {                                                                                              \
        ROW(op_, r), ROW(op_, m)                                                                   \
    }
    static x86_fn *const fn[][2][4] = {
        [X86_BSF] = SCAN_ROW(bsf),       [X86_BSR] = SCAN_ROW(bsr),
        [X86_TZCNT] = SCAN_ROW(tzcnt),   [X86_LZCNT] = SCAN_ROW(lzcnt),
        [X86_POPCNT] = SCAN_ROW(popcnt),
    };
    bool mem = x86_dec_is_mem(d, 1);

    /* Without the feature F3 is ignored. */
    if (arg == X86_TZCNT && !(d->cpu->feat.l7_ebx & 1u << 3))
        arg = X86_BSF;
    if (d->insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) /* Knights Corner's */
        return false;
    if (arg == X86_LZCNT && !(d->cpu->feat.x1_ecx & 1u << 5))
        arg = X86_BSR;
    if (arg == X86_POPCNT && !(d->cpu->feat.l1_ecx & 1u << 23))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (mem)
        x86_dec_mem(d, 1, op);
    else
        op->rm = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = fn[arg][mem][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}
