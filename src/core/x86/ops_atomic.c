/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_atomic.c: XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. */
#include "core/x86/ops_common.h"

/* ---- XCHG and XADD ---- */

/* With memory XCHG is locked, with and without the prefix (SDM Vol. 3A 9.1.2.1). */
#define XCHG(bits)                                                                                 \
    X86_HANDLER(xchg##bits##_r)                                                                    \
    {                                                                                              \
        uint##bits##_t a = x86_r##bits(cpu, op->r), b = x86_r##bits(cpu, op->rm);                  \
        x86_w##bits(cpu, op->r, b);                                                                \
        x86_w##bits(cpu, op->rm, a);                                                               \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_RMW_HANDLER(xchg##bits##_m, bits, true, x86_r##bits(cpu, op->r),                           \
                    __asm__ volatile("xchg" X86_SFX_##bits " %0, %1"                               \
                                     : "+r"(s), "+m"(*p)                                           \
                                     :                                                             \
                                     : "memory"),                                                  \
                    x86_w##bits(cpu, op->r, s))

#define XADD_ASM(lock, bits)                                                                       \
    __asm__ volatile(lock "xadd" X86_SFX_##bits " %[s], %[p]" X86_FLAGS_OUT                        \
                     : [s] "+&r"(s), [p] "+m"(*p), "=a"(cc)                                        \
                     :                                                                             \
                     : "cc", "memory")
#define XADD(bits)                                                                                 \
    X86_HANDLER(xadd##bits##_r)                                                                    \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r), s = x86_r##bits(cpu, op->rm);                  \
        uint16_t cc;                                                                               \
        __asm__("xadd" X86_SFX_##bits " %[s], %[d]" X86_FLAGS_OUT                                  \
                : [d] "+r"(d), [s] "+r"(s), "=a"(cc)                                               \
                :                                                                                  \
                : "cc");                                                                           \
        x86_w##bits(cpu, op->rm, s);                                                               \
        x86_w##bits(cpu, op->r, d); /* XADD of a register to itself: the sum stays */              \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_RMW_HANDLER(xadd##bits##_m, bits, false, x86_r##bits(cpu, op->r), XADD_ASM("", bits),      \
                    (x86_w##bits(cpu, op->r, s), cpu->cc = cc))                                    \
    X86_RMW_HANDLER(xadd##bits##_lm, bits, true, x86_r##bits(cpu, op->r), XADD_ASM("lock ", bits), \
                    (x86_w##bits(cpu, op->r, s), cpu->cc = cc))

/* The comparison sets the flags of CMP accumulator, destination. */
#define CMPXCHG_ASM(lock, bits)                                                                    \
    __asm__ volatile(lock "cmpxchg" X86_SFX_##bits                                                 \
                     " %[s], %[p]\n\tmovq %%rax, %q[d]" X86_FLAGS_OUT                              \
                     : [p] "+m"(*p), [d] "=&r"(d), "=a"(cc)                                        \
                     : [s] "r"(s), "a"(x86_r##bits(cpu, RAX_##bits))                               \
                     : "cc", "memory")
#define RAX_8  0
#define RAX_16 VMM_RAX
#define RAX_32 VMM_RAX
#define RAX_64 VMM_RAX

#define CMPXCHG_COMMIT(bits)                                                                       \
    do {                                                                                           \
        if (!(cc & X86_CC_ZF))                                                                     \
            x86_w##bits(cpu, RAX_##bits, d);                                                       \
        cpu->cc = cc;                                                                              \
    } while (0)

/* Whether a 32-bit destination that differs is zero-extended is up to the host: its instruction
 * works on the whole register. */
#define CMPXCHG_WHOLE_8   x86_r8(cpu, op->r)
#define CMPXCHG_WHOLE_16  cpu->gpr[op->r]
#define CMPXCHG_WHOLE_32  cpu->gpr[op->r]
#define CMPXCHG_WHOLE_64  cpu->gpr[op->r]
#define CMPXCHG_SET_8(v)  x86_w8(cpu, op->r, (uint8_t)(v))
#define CMPXCHG_SET_16(v) (cpu->gpr[op->r] = (v))
#define CMPXCHG_SET_32(v) (cpu->gpr[op->r] = (v))
#define CMPXCHG_SET_64(v) (cpu->gpr[op->r] = (v))
#define MOD_8             "b"
#define MOD_16            "w"
#define MOD_32            "k"
#define MOD_64            "q"

#define CMPXCHG(bits)                                                                              \
    X86_HANDLER(cmpxchg##bits##_r)                                                                 \
    {                                                                                              \
        uint64_t acc = x86_r##bits(cpu, RAX_##bits), d = CMPXCHG_WHOLE_##bits;                     \
        uint##bits##_t s = x86_r##bits(cpu, op->rm);                                               \
        uint16_t cc;                                                                               \
        __asm__("cmpxchg" X86_SFX_##bits " %[s], %" MOD_##bits                                     \
                "[d]\n\tmovq %%rax, %[acc]" X86_FLAGS_OUT                                          \
                : [d] "+&r"(d), [acc] "=&r"(acc), "=a"(cc)                                         \
                : [s] "r"(s), "a"(acc)                                                             \
                : "cc");                                                                           \
        CMPXCHG_SET_##bits(d);                                                                     \
        if (!(cc & X86_CC_ZF))                                                                     \
            x86_w##bits(cpu, RAX_##bits, (uint##bits##_t)acc);                                     \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_RMW_HANDLER(cmpxchg##bits##_m, bits, false, x86_r##bits(cpu, op->r),                       \
                    CMPXCHG_ASM("", bits), CMPXCHG_COMMIT(bits))                                   \
    X86_RMW_HANDLER(cmpxchg##bits##_lm, bits, true, x86_r##bits(cpu, op->r),                       \
                    CMPXCHG_ASM("lock ", bits), CMPXCHG_COMMIT(bits))

XCHG(8)
XCHG(16)
XCHG(32)
XCHG(64)
XADD(8)
XADD(16)
XADD(32)
XADD(64)
CMPXCHG(8)
CMPXCHG(16)
CMPXCHG(32)
CMPXCHG(64)

#define ROW(op_, form)                                                                             \
    {                                                                                              \
        op_##8_##form, op_##16_##form, op_##32_##form, op_##64_##form                              \
    }
static x86_fn *const xchg_fn[2][4] = {ROW(xchg, r), ROW(xchg, m)};
static x86_fn *const xadd_fn[3][4] = {ROW(xadd, r), ROW(xadd, m), ROW(xadd, lm)};
static x86_fn *const cmpxchg_fn[3][4] = {ROW(cmpxchg, r), ROW(cmpxchg, m), ROW(cmpxchg, lm)};

/* Operands: 0 register (r) or memory, 1 register (rm; r if operand 0 is memory). */
static unsigned operands(struct x86_dec *d, struct x86_op *op)
{
    if (x86_dec_is_mem(d, 0)) {
        x86_dec_mem(d, 0, op);
        op->r = x86_dec_reg(d->opnd[1].reg.value);
        return x86_dec_lock(d) ? 2 : 1;
    }
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    op->rm = x86_dec_reg(d->opnd[1].reg.value);
    return 0;
}

bool x86_dec_xchg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    unsigned size = x86_log2_size(x86_dec_size(d, 0));

    (void)arg;
    if (x86_dec_is_mem(d, 1)) { /* Zydis may give the operands of 86 and 87 in either order */
        x86_dec_mem(d, 1, op);
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        op->fn = xchg_fn[1][size];
        return true;
    }
    op->fn = xchg_fn[operands(d, op) != 0][size];
    return true;
}

bool x86_dec_xadd(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->fn = xadd_fn[operands(d, op)][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

bool x86_dec_cmpxchg(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->fn = cmpxchg_fn[operands(d, op)][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* ---- CMPXCHG8B, CMPXCHG16B: only ZF changes ---- */

static void set_zf(struct x86_cpu *cpu, bool zf)
{
    cpu->cc = (uint16_t)((cpu->cc & ~X86_CC_ZF) | (zf ? X86_CC_ZF : 0));
}

/* `op->size` tells whether there is a LOCK prefix; the destination is written in any case. */
X86_HANDLER(cmpxchg8b)
{
    uint64_t old = (uint64_t)x86_r32(cpu, VMM_RDX) << 32 | x86_r32(cpu, VMM_RAX);
    uint64_t new = (uint64_t)x86_r32(cpu, VMM_RCX) << 32 | x86_r32(cpu, VMM_RBX);
    struct x86_rmw m;
    bool equal;

    if (!x86_rmw_begin(cpu, op, 8, op->size, &m))
        return x86_leave(cpu, op);
    if (op->size)
        __asm__ volatile("lock cmpxchgq %[new], %[p]"
                         : [p] "+m"(*(x86_u64 *)m.p), "+a"(old), "=@ccz"(equal)
                         : [new] "r"(new)
                         : "memory");
    else
        __asm__ volatile("cmpxchgq %[new], %[p]"
                         : [p] "+m"(*(x86_u64 *)m.p), "+a"(old), "=@ccz"(equal)
                         : [new] "r"(new)
                         : "memory");
    if (!x86_rmw_end(cpu, op, &m))
        return x86_leave(cpu, op);
    if (!equal) {
        x86_w32(cpu, VMM_RAX, (uint32_t)old);
        x86_w32(cpu, VMM_RDX, (uint32_t)(old >> 32));
    }
    set_zf(cpu, equal);
    X86_RETURN(cpu, op);
}

struct pair {
    uint64_t lo, hi;
} __attribute__((may_alias));

/* Atomic also without the prefix: it costs nothing that matters. */
X86_HANDLER(cmpxchg16b)
{
    uint64_t lo = cpu->gpr[VMM_RAX], hi = cpu->gpr[VMM_RDX], linear;
    struct x86_rmw m;
    bool equal;

    if (!x86_ea(cpu, op, 16, true, &linear))
        return x86_leave(cpu, op);
    if (linear & 15)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_rmw_begin(cpu, op, 16, true, &m))
        return x86_leave(cpu, op);
    __asm__ volatile("lock cmpxchg16b %[p]"
                     : [p] "+m"(*(struct pair *)m.p), "+a"(lo), "+d"(hi), "=@ccz"(equal)
                     : "b"(cpu->gpr[VMM_RBX]), "c"(cpu->gpr[VMM_RCX])
                     : "memory");
    if (!x86_rmw_end(cpu, op, &m))
        return x86_leave(cpu, op);
    if (!equal) {
        cpu->gpr[VMM_RAX] = lo;
        cpu->gpr[VMM_RDX] = hi;
    }
    set_zf(cpu, equal);
    X86_RETURN(cpu, op);
}

/* arg: bytes. */
bool x86_dec_cmpxchg2(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (arg == 8 ? !(d->cpu->feat.l1_edx & 1u << 8) : !(d->cpu->feat.l1_ecx & 1u << 13))
        return false;
    x86_dec_mem(d, 0, op);
    op->size = x86_dec_lock(d);
    op->fn = arg == 8 ? cmpxchg8b : cmpxchg16b;
    return true;
}
