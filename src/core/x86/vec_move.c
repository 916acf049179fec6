/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_move.c: frequent vector instructions that need no thunk. */
#include <string.h>

#include "core/x86/vec.h"

/*
 * Ops use r and rm for vector register numbers and size for the operand's length in bytes. Moves
 * are copies; what memory functions see is the size as a constant where it matters.
 */

static inline void set_use(struct x86_cpu *cpu, unsigned components)
{
    cpu->fpu.xinuse |= components;
}

/* After a VEX or EVEX instruction wrote `length` bytes of a register. */
static inline void vex_written(struct x86_cpu *cpu, unsigned reg, unsigned length)
{
    memset(cpu->fpu.vec[reg] + length, 0, 64 - length);
    set_use(cpu, reg >= 16      ? 1u << X86_XC_HI16
                 : length == 16 ? X86_XCR0_SSE
                 : length == 32 ? X86_XCR0_SSE | X86_XCR0_AVX
                                : X86_XCR0_SSE | X86_XCR0_AVX | 1u << X86_XC_ZMM_HI);
}

static bool load_slow(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear, void *buf,
                      unsigned size)
{
    uint8_t copy[64];

    if (!x86_read_slow(cpu, op, op->seg, linear, copy, size))
        return false;
    memcpy(buf, copy, size);
    return true;
}

/* Changes buf, which may be a register, only on success. */
static inline bool load(struct x86_cpu *cpu, const struct x86_op *op, void *buf, unsigned size,
                        bool aligned)
{
    const uint8_t *p;
    uint64_t linear;

    if (x86_unlikely(!x86_ea(cpu, op, size, false, &linear)))
        return false;
    if (aligned && x86_unlikely(linear & (size - 1))) {
        x86_raise_err(cpu, X86_GP, 0);
        return false;
    }
    p = mmu_fast_read(&cpu->mmu, cpu->mmu_idx, linear, size);
    if (x86_unlikely(!p))
        return load_slow(cpu, op, linear, buf, size);
    mmu_copy(buf, p, size);
    return true;
}

static inline bool store(struct x86_cpu *cpu, const struct x86_op *op, const void *buf,
                         unsigned size, bool aligned)
{
    uint64_t linear;

    if (x86_unlikely(!x86_ea(cpu, op, size, true, &linear)))
        return false;
    if (aligned && x86_unlikely(linear & (size - 1))) {
        x86_raise_err(cpu, X86_GP, 0);
        return false;
    }
    return x86_likely(x86_write(cpu, op, op->seg, linear, buf, size));
}

/* ---- whole registers ---- */

#define SSE_LOAD(name, aligned)                                                                    \
    static const struct x86_op *name(struct x86_cpu *cpu, const struct x86_op *op)                 \
    {                                                                                              \
        VEC_CHECK(cpu, op, VEC_SSE);                                                               \
        if (!load(cpu, op, cpu->fpu.vec[op->r], 16, aligned))                                      \
            return x86_leave(cpu, op);                                                             \
        set_use(cpu, X86_XCR0_SSE);                                                                \
        return op + 1;                                                                             \
    }
#define SSE_STORE(name, aligned)                                                                   \
    static const struct x86_op *name(struct x86_cpu *cpu, const struct x86_op *op)                 \
    {                                                                                              \
        VEC_CHECK(cpu, op, VEC_SSE);                                                               \
        if (!store(cpu, op, cpu->fpu.vec[op->r], 16, aligned))                                     \
            return x86_leave(cpu, op);                                                             \
        return op + 1;                                                                             \
    }
SSE_LOAD(sse_load, false)
SSE_LOAD(sse_load_aligned, true)
SSE_STORE(sse_store, false)
SSE_STORE(sse_store_aligned, true)

static const struct x86_op *sse_copy(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, VEC_SSE);
    memmove(cpu->fpu.vec[op->r], cpu->fpu.vec[op->rm], 16);
    set_use(cpu, X86_XCR0_SSE);
    return op + 1;
}

#define AVX_MOVES(bytes, class)                                                                    \
    static const struct x86_op *avx_load##bytes(struct x86_cpu *cpu, const struct x86_op *op)      \
    {                                                                                              \
        VEC_CHECK(cpu, op, class);                                                                 \
        if (!load(cpu, op, cpu->fpu.vec[op->r], bytes, false))                                     \
            return x86_leave(cpu, op);                                                             \
        vex_written(cpu, op->r, bytes);                                                            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct x86_op *avx_load_aligned##bytes(struct x86_cpu *cpu,                       \
                                                        const struct x86_op *op)                   \
    {                                                                                              \
        VEC_CHECK(cpu, op, class);                                                                 \
        if (!load(cpu, op, cpu->fpu.vec[op->r], bytes, true))                                      \
            return x86_leave(cpu, op);                                                             \
        vex_written(cpu, op->r, bytes);                                                            \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct x86_op *avx_store##bytes(struct x86_cpu *cpu, const struct x86_op *op)     \
    {                                                                                              \
        VEC_CHECK(cpu, op, class);                                                                 \
        if (!store(cpu, op, cpu->fpu.vec[op->r], bytes, false))                                    \
            return x86_leave(cpu, op);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct x86_op *avx_store_aligned##bytes(struct x86_cpu *cpu,                      \
                                                         const struct x86_op *op)                  \
    {                                                                                              \
        VEC_CHECK(cpu, op, class);                                                                 \
        if (!store(cpu, op, cpu->fpu.vec[op->r], bytes, true))                                     \
            return x86_leave(cpu, op);                                                             \
        return op + 1;                                                                             \
    }                                                                                              \
    static const struct x86_op *avx_copy##bytes(struct x86_cpu *cpu, const struct x86_op *op)      \
    {                                                                                              \
        VEC_CHECK(cpu, op, class);                                                                 \
        memmove(cpu->fpu.vec[op->r], cpu->fpu.vec[op->rm], bytes);                                 \
        vex_written(cpu, op->r, bytes);                                                            \
        return op + 1;                                                                             \
    }
AVX_MOVES(16, VEC_AVX)
AVX_MOVES(32, VEC_AVX)
AVX_MOVES(64, VEC_AVX512)

/* ---- parts of registers, legacy encoding ---- */

/* MOVQ, MOVD, MOVSS and MOVSD from memory: the rest of the register becomes zero. */
static const struct x86_op *sse_load_zero4(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t v[2] = {0, 0};

    VEC_CHECK(cpu, op, VEC_SSE);
    if (!load(cpu, op, v, 4, false))
        return x86_leave(cpu, op);
    memcpy(cpu->fpu.vec[op->r], v, 16);
    set_use(cpu, X86_XCR0_SSE);
    return op + 1;
}

static const struct x86_op *sse_load_zero8(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t v[2] = {0, 0};

    VEC_CHECK(cpu, op, VEC_SSE);
    if (!load(cpu, op, v, 8, false))
        return x86_leave(cpu, op);
    memcpy(cpu->fpu.vec[op->r], v, 16);
    set_use(cpu, X86_XCR0_SSE);
    return op + 1;
}

/* MOVLPS, MOVHPS: `size` is the offset. */
static const struct x86_op *sse_load_half(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, VEC_SSE);
    if (!load(cpu, op, cpu->fpu.vec[op->r] + op->size, 8, false))
        return x86_leave(cpu, op);
    set_use(cpu, X86_XCR0_SSE);
    return op + 1;
}

static const struct x86_op *sse_store4(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, VEC_SSE);
    if (!store(cpu, op, cpu->fpu.vec[op->r], 4, false))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *sse_store_half(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, VEC_SSE);
    if (!store(cpu, op, cpu->fpu.vec[op->r] + op->size, 8, false))
        return x86_leave(cpu, op);
    return op + 1;
}

/* MOVD and MOVQ with a general register (rm; `size` 4 or 8). */
static const struct x86_op *sse_from_gpr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t v[2] = {0, 0};

    VEC_CHECK(cpu, op, VEC_SSE);
    v[0] = x86_get_reg(cpu, op->rm, op->size);
    memcpy(cpu->fpu.vec[op->r], v, 16);
    set_use(cpu, X86_XCR0_SSE);
    return op + 1;
}

static const struct x86_op *sse_to_gpr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t v = 0;

    VEC_CHECK(cpu, op, VEC_SSE);
    memcpy(&v, cpu->fpu.vec[op->r], op->size);
    cpu->gpr[op->rm] = v;
    return op + 1;
}

/* ---- logic ---- */

#define SSE_LOGIC(name, expr)                                                                      \
    static const struct x86_op *name(struct x86_cpu *cpu, const struct x86_op *op)                 \
    {                                                                                              \
        uint64_t a[2], b[2];                                                                       \
                                                                                                   \
        VEC_CHECK(cpu, op, VEC_SSE);                                                               \
        memcpy(a, cpu->fpu.vec[op->r], 16);                                                        \
        memcpy(b, cpu->fpu.vec[op->rm], 16);                                                       \
        for (unsigned i = 0; i < 2; i++)                                                           \
            a[i] = (expr);                                                                         \
        memcpy(cpu->fpu.vec[op->r], a, 16);                                                        \
        set_use(cpu, X86_XCR0_SSE);                                                                \
        return op + 1;                                                                             \
    }
SSE_LOGIC(sse_xor, a[i] ^ b[i])
SSE_LOGIC(sse_or, a[i] | b[i])
SSE_LOGIC(sse_and, a[i] & b[i])

/* ---- VZEROUPPER and VZEROALL ---- */

static const struct x86_op *vzero(struct x86_cpu *cpu, const struct x86_op *op)
{
    unsigned n = (cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64 ? 16 : 8;

    VEC_CHECK(cpu, op, VEC_AVX);
    if (op->size || (cpu->fpu.xinuse & (X86_XCR0_AVX | 1u << X86_XC_ZMM_HI)))
        for (unsigned i = 0; i < n; i++)
            vec_clear_above(cpu, i, op->size ? 0 : 16);
    return op + 1;
}

/* ---- MXCSR ---- */

/* LDMXCSR, VLDMXCSR; `size`: enum vec_class. */
static const struct x86_op *ldmxcsr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint32_t v;

    VEC_CHECK(cpu, op, op->size);
    if (!x86_ld32(cpu, op, &v))
        return x86_leave(cpu, op);
    if (v & ~X86_MXCSR_MASK)
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->fpu.mxcsr = v;
    return op + 1;
}

static const struct x86_op *stmxcsr(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, op->size);
    if (!x86_st32(cpu, op, cpu->fpu.mxcsr))
        return x86_leave(cpu, op);
    return op + 1;
}

/* ---- MMX ---- */

static const struct x86_op *emms(struct x86_cpu *cpu, const struct x86_op *op)
{
    VEC_CHECK(cpu, op, VEC_MMX);
    x87_set_top0(&cpu->fpu);
    cpu->fpu.ftw = 0;
    return op + 1;
}

/* MOVQ, MOVD and MOVNTQ to memory. TOP becomes 0 even if the store faults. */
static const struct x86_op *mmx_store(struct x86_cpu *cpu, const struct x86_op *op)
{
    struct x86_fpu *f = &cpu->fpu;

    VEC_CHECK(cpu, op, VEC_MMX);
    x87_set_top0(f);
    set_use(cpu, X86_XCR0_X87);
    if (!store(cpu, op, f->x87[op->r], op->size, false))
        return x86_leave(cpu, op);
    f->ftw = 0xff;
    return op + 1;
}

/* ---- decoding ---- */

static uint8_t reg_id(const struct x86_dec *d, unsigned i)
{
    return (uint8_t)ZydisRegisterGetId(d->opnd[i].reg.value);
}

static ZydisRegisterClass reg_class(const struct x86_dec *d, unsigned i)
{
    return x86_dec_is_reg(d, i) ? ZydisRegisterGetClass(d->opnd[i].reg.value)
                                : ZYDIS_REGCLASS_INVALID;
}

struct move_fns {
    x86_fn *load, *store, *copy;
};

/* Operand 0 is the destination, operand `src` the source. */
static bool dec_copy(struct x86_dec *d, struct x86_op *op, unsigned src, const struct move_fns *fns)
{
    if (x86_dec_is_mem(d, 0)) {
        op->r = reg_id(d, src);
        op->fn = fns->store;
        x86_dec_mem(d, 0, op);
    } else if (x86_dec_is_mem(d, src)) {
        op->r = reg_id(d, 0);
        op->fn = fns->load;
        x86_dec_mem(d, src, op);
    } else {
        op->r = reg_id(d, 0);
        op->rm = reg_id(d, src);
        op->fn = fns->copy;
    }
    return op->fn != NULL;
}

static bool dec_sse_move(struct x86_dec *d, struct x86_op *op, bool aligned)
{
    static const struct move_fns fns[] = {{sse_load, sse_store, sse_copy},
                                          {sse_load_aligned, sse_store_aligned, sse_copy}};

    return dec_copy(d, op, 1, &fns[aligned]);
}

static bool dec_avx_move(struct x86_dec *d, struct x86_op *op, bool aligned)
{
    static const struct move_fns fns[2][3] = {
        {{avx_load16, avx_store16, avx_copy16},
         {avx_load32, avx_store32, avx_copy32},
         {avx_load64, avx_store64, avx_copy64}},
        {{avx_load_aligned16, avx_store_aligned16, avx_copy16},
         {avx_load_aligned32, avx_store_aligned32, avx_copy32},
         {avx_load_aligned64, avx_store_aligned64, avx_copy64}}};
    bool evex = d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    unsigned vl = d->insn.avx.vector_length;

    /* EVEX forms of 128 and 256 bits need another check: they go through thunks. */
    if (evex && (vl != 512 || d->insn.avx.mask.reg != ZYDIS_REGISTER_K0 || x86_dec_is_mem(d, 1)))
        return false;
    return dec_copy(d, op, evex ? 2 : 1, &fns[aligned][vl == 128 ? 0 : vl == 256 ? 1 : 2]);
}

/* MOVD and MOVQ of the legacy encoding. */
static bool dec_sse_movd(struct x86_dec *d, struct x86_op *op, unsigned size)
{
    ZydisRegisterClass to = reg_class(d, 0), from = reg_class(d, 1);

    if (from == ZYDIS_REGCLASS_MMX && x86_dec_is_mem(d, 0)) {
        op->r = reg_id(d, 1);
        op->size = (uint8_t)size;
        op->fn = mmx_store;
        x86_dec_mem(d, 0, op);
        return true;
    }
    if (to == ZYDIS_REGCLASS_MMX || from == ZYDIS_REGCLASS_MMX)
        return false;
    if (to == ZYDIS_REGCLASS_XMM && x86_dec_is_mem(d, 1)) {
        op->r = reg_id(d, 0);
        op->fn = size == 4 ? sse_load_zero4 : sse_load_zero8;
        x86_dec_mem(d, 1, op);
        return true;
    }
    if (from == ZYDIS_REGCLASS_XMM && x86_dec_is_mem(d, 0)) {
        op->r = reg_id(d, 1);
        op->size = 0;
        op->fn = size == 4 ? sse_store4 : sse_store_half;
        x86_dec_mem(d, 0, op);
        return true;
    }
    if (to == ZYDIS_REGCLASS_XMM && from == ZYDIS_REGCLASS_XMM)
        return false;
    op->size = (uint8_t)size;
    op->r = reg_id(d, to == ZYDIS_REGCLASS_XMM ? 0 : 1);
    op->rm = reg_id(d, to == ZYDIS_REGCLASS_XMM ? 1 : 0);
    op->fn = to == ZYDIS_REGCLASS_XMM ? sse_from_gpr : sse_to_gpr;
    return true;
}

static bool dec_half(struct x86_dec *d, struct x86_op *op, unsigned offset)
{
    static const struct move_fns fns = {sse_load_half, sse_store_half, NULL};

    op->size = (uint8_t)offset;
    return dec_copy(d, op, 1, &fns);
}

static bool dec_logic(struct x86_dec *d, struct x86_op *op, x86_fn *fn)
{
    if (reg_class(d, 0) != ZYDIS_REGCLASS_XMM || reg_class(d, 1) != ZYDIS_REGCLASS_XMM)
        return false;
    op->r = reg_id(d, 0);
    op->rm = reg_id(d, 1);
    op->fn = fn;
    return true;
}

static bool dec_mxcsr(struct x86_dec *d, struct x86_op *op, x86_fn *fn, enum vec_class class)
{
    op->size = (uint8_t) class;
    op->fn = fn;
    x86_dec_mem(d, 0, op);
    return true;
}

static bool dec_vzero(struct x86_dec *d, struct x86_op *op)
{
    op->size = d->insn.mnemonic == ZYDIS_MNEMONIC_VZEROALL;
    op->fn = vzero;
    return true;
}

bool vec_dec_move(struct x86_dec *d, struct x86_op *op)
{
    static const struct move_fns ss = {sse_load_zero4, sse_store4, NULL},
                                 sd = {sse_load_zero8, sse_store_half, NULL};

    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
        return dec_sse_move(d, op, true);
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
        return dec_sse_move(d, op, false);
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
        return dec_avx_move(d, op, true);
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VMOVDQU8:
    case ZYDIS_MNEMONIC_VMOVDQU16:
    case ZYDIS_MNEMONIC_VMOVDQU32:
    case ZYDIS_MNEMONIC_VMOVDQU64:
        return dec_avx_move(d, op, false);
    case ZYDIS_MNEMONIC_MOVD:
        return dec_sse_movd(d, op, 4);
    case ZYDIS_MNEMONIC_MOVQ:
        return dec_sse_movd(d, op, 8);
    case ZYDIS_MNEMONIC_MOVNTQ:
        return dec_sse_movd(d, op, 8);
    case ZYDIS_MNEMONIC_MOVSS:
        return dec_copy(d, op, 1, &ss);
    case ZYDIS_MNEMONIC_MOVSD:
        op->size = 0;
        return dec_copy(d, op, 1, &sd);
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
        return dec_half(d, op, 0);
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
        return dec_half(d, op, 8);
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
        return dec_logic(d, op, sse_xor);
    case ZYDIS_MNEMONIC_POR:
    case ZYDIS_MNEMONIC_ORPS:
    case ZYDIS_MNEMONIC_ORPD:
        return dec_logic(d, op, sse_or);
    case ZYDIS_MNEMONIC_PAND:
    case ZYDIS_MNEMONIC_ANDPS:
    case ZYDIS_MNEMONIC_ANDPD:
        return dec_logic(d, op, sse_and);
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
        return dec_vzero(d, op);
    case ZYDIS_MNEMONIC_LDMXCSR:
        return dec_mxcsr(d, op, ldmxcsr, VEC_SSE);
    case ZYDIS_MNEMONIC_VLDMXCSR:
        return dec_mxcsr(d, op, ldmxcsr, VEC_AVX);
    case ZYDIS_MNEMONIC_STMXCSR:
        return dec_mxcsr(d, op, stmxcsr, VEC_SSE);
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return dec_mxcsr(d, op, stmxcsr, VEC_AVX);
    case ZYDIS_MNEMONIC_EMMS:
        op->fn = emms;
        return true;
    default:
        return false;
    }
}
