/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_common.h: what the handlers of integer instructions share: how they begin and end,
 * flags, operands by size. */
#ifndef CORE_X86_OPS_COMMON_H
#define CORE_X86_OPS_COMMON_H

#include "core/x86/exec.h"
#include "core/x86/ops_int.h"

/* ---- handlers ---- */

#define X86_HANDLER(name)                                                                          \
    static const struct x86_op *name(struct x86_cpu *cpu, const struct x86_op *op)

/* Ends a handler: goes on with the op behind `op`. How the interpreter is threaded is decided here
 * alone. Handlers that have let the address of a local variable escape use X86_RETURN. */
#define X86_NEXT(cpu, op)   return x86_follow(cpu, (op) + 1)
#define X86_RETURN(cpu, op) return (void)(cpu), (op) + 1

/* Ends the handler of a block's last instruction; `next` is a result of x86_next. */
#define X86_GO(cpu, next)                                                                          \
    do {                                                                                           \
        const struct x86_op *next_ = (next);                                                       \
        return x86_likely(next_) ? x86_follow(cpu, next_) : NULL;                                  \
    } while (0)

#define X86_COLD __attribute__((cold, noinline))

/* ---- flags ---- */

/*
 * Arithmetic is done by the host's own instruction, so that all flags, also those the manuals call
 * undefined, are as on hardware. cpu->cc is AX after LAHF and SETO AL; the macros are pieces of asm
 * templates in which the operand [cc] is "=a" (flags only written) or "+a" (read too).
 */
#define X86_FLAGS_OUT "\n\tlahf\n\tseto %%al"
#define X86_FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t" /* AL = 1 overflows: OF; the rest is in AH */
#define X86_CARRY_IN  "btl $8, %k[cc]\n\t"

/* cc with nothing but bit 1 of RFLAGS, which is always set. */
#define X86_CC_NONE 0x0200u

/* SF, ZF and PF of a result, the other flags clear. */
static inline uint16_t x86_cc_logic(uint64_t result, unsigned size)
{
    uint64_t sign = (uint64_t)1 << (8 * size - 1), mask = sign | (sign - 1);
    uint16_t cc = X86_CC_NONE;

    if (!(result & mask))
        cc |= X86_CC_ZF;
    if (result & sign)
        cc |= X86_CC_SF;
    if (!__builtin_parity((unsigned)(result & 0xff)))
        cc |= X86_CC_PF;
    return cc;
}

/* ---- operands by size in bits; register operands as in struct x86_op ---- */

/* Guest memory has no alignment. */
typedef uint8_t x86_u8;
typedef uint16_t x86_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t x86_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t x86_u64 __attribute__((aligned(1), may_alias));

#define X86_REG_FUNCS(bits)                                                                        \
    static inline uint##bits##_t x86_r##bits(const struct x86_cpu *cpu, unsigned slot)             \
    {                                                                                              \
        return (uint##bits##_t)x86_get_reg(cpu, slot, bits / 8);                                   \
    }                                                                                              \
    static inline void x86_w##bits(struct x86_cpu *cpu, unsigned slot, uint##bits##_t v)           \
    {                                                                                              \
        x86_set_reg(cpu, slot, bits / 8, v);                                                       \
    }
X86_REG_FUNCS(8)
X86_REG_FUNCS(16)
X86_REG_FUNCS(32)
X86_REG_FUNCS(64)

/* Suffix of the host's instructions. */
#define X86_SFX_8  "b"
#define X86_SFX_16 "w"
#define X86_SFX_32 "l"
#define X86_SFX_64 "q"

/* 0-3 for operands of 1, 2, 4 and 8 bytes. */
static inline unsigned x86_log2_size(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

static inline unsigned x86_dec_size(const struct x86_dec *d, unsigned i)
{
    return d->opnd[i].size / 8;
}

/* ---- memory ---- */

/* The linear address of `offset` in the memory operand's segment, with its address size. */
static inline bool x86_linear_at(struct x86_cpu *cpu, const struct x86_op *op, uint64_t offset,
                                 unsigned size, bool write, uint64_t *linear)
{
    if (op->asz == X86_A32)
        offset = (uint32_t)offset;
    else if (op->asz == X86_A16)
        offset = (uint16_t)offset;
    if (op->ea == X86_EA_SLOW)
        return x86_seg_check(cpu, op->seg, offset, size, write, linear);
    *linear = op->ea == X86_EA_SEG64 ? offset + cpu->seg[op->seg].base : offset;
    return true;
}

/* Where the memory operand is, if it can be read and written there at once, with the host's LOCK
 * prefix if `lock`; else NULL. */
static inline void *x86_fast_rmw(struct x86_cpu *cpu, const struct x86_op *op, unsigned size,
                                 bool lock)
{
    uint64_t a = x86_ea_fast(cpu, op);

    if (lock && x86_unlikely(x86_splits_line(a, size)))
        return NULL;
    return mmu_fast_write(&cpu->mmu, cpu->mmu_idx, a, size);
}

/* x86_push and x86_pop of 8 bytes, in 64-bit mode only. */
static inline bool x86_push64(struct x86_cpu *cpu, const struct x86_op *op, uint64_t value)
{
    uint64_t sp = cpu->gpr[VMM_RSP] - 8;
    uint8_t *p = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, sp, 8);

    if (x86_unlikely(!p))
        return x86_push(cpu, op, 8, value);
    mmu_copy(p, &value, 8);
    cpu->gpr[VMM_RSP] = sp;
    return true;
}

/* The value at RSP, which stays; NULL: not at hand. */
static inline const uint8_t *x86_fast_top64(struct x86_cpu *cpu)
{
    return mmu_fast_read(&cpu->mmu, cpu->mmu_idx, cpu->gpr[VMM_RSP], 8);
}

/* Adds to the stack pointer, as wide as the stack segment says. */
static inline void x86_add_sp(struct x86_cpu *cpu, uint64_t n)
{
    uint64_t sp = cpu->gpr[VMM_RSP], mask = cpu->sp_mask;

    sp = mask == 0xffff ? (sp & ~mask) | ((sp + n) & mask) : (sp + n) & mask;
    cpu->gpr[VMM_RSP] = sp;
}

/*
 * A handler of an instruction that reads, changes and writes its memory operand. `compute` does it
 * on *p and may fill `d` and `cc` (cpu->cc before), `commit` stores these to registers. `s`, an
 * expression, is the other operand.
 */
#define X86_RMW_HANDLER(name, bits, lock, source, compute, commit)                                 \
    X86_COLD X86_HANDLER(name##_slow)                                                              \
    {                                                                                              \
        uint##bits##_t s = (source), d = 0;                                                        \
        uint16_t cc = cpu->cc;                                                                     \
        struct x86_rmw m;                                                                          \
        x86_u##bits *p;                                                                            \
                                                                                                   \
        if (!x86_rmw_begin(cpu, op, bits / 8, lock, &m))                                           \
            return x86_leave(cpu, op);                                                             \
        p = m.p;                                                                                   \
        compute;                                                                                   \
        if (!x86_rmw_end(cpu, op, &m))                                                             \
            return x86_leave(cpu, op);                                                             \
        (void)s, (void)d, (void)cc;                                                                \
        commit;                                                                                    \
        X86_RETURN(cpu, op);                                                                       \
    }                                                                                              \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t s = (source), d = 0;                                                        \
        uint16_t cc = cpu->cc;                                                                     \
        x86_u##bits *p = x86_fast_rmw(cpu, op, bits / 8, lock);                                    \
                                                                                                   \
        if (x86_unlikely(!p))                                                                      \
            return name##_slow(cpu, op);                                                           \
        compute;                                                                                   \
        (void)s, (void)d, (void)cc;                                                                \
        commit;                                                                                    \
        X86_NEXT(cpu, op);                                                                         \
    }

#endif
