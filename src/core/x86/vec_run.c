/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_run.c: executes instructions through their thunks. */
#include <string.h>

#include "core/os.h"
#include "core/x86/vec.h"

/* ---- may the instruction be executed ---- */

unsigned vec_denied(struct x86_cpu *cpu, unsigned class)
{
    switch (class) {
    case VEC_MMX:
        if (x86_unlikely(cpu->cr0 & (X86_CR0_EM | X86_CR0_TS)))
            return cpu->cr0 & X86_CR0_EM ? X86_UD : X86_NM;
        return x86_unlikely(x87_pending(cpu)) ? X86_MF : 0;
    case VEC_SSE:
        if (x86_unlikely((cpu->cr0 & X86_CR0_EM) || !(cpu->cr4 & X86_CR4_OSFXSR)))
            return X86_UD;
        break;
    case VEC_AVX:
        if (x86_unlikely(!(cpu->cr4 & X86_CR4_OSXSAVE) || (cpu->xcr0 & 6) != 6))
            return X86_UD;
        break;
    default:
        if (x86_unlikely(!(cpu->cr4 & X86_CR4_OSXSAVE) || (cpu->xcr0 & 0xe6) != 0xe6))
            return X86_UD;
    }
    return x86_unlikely(cpu->cr0 & X86_CR0_TS) ? X86_NM : 0;
}

/* ---- parts of vector registers ---- */

void vec_clear_above(struct x86_cpu *cpu, unsigned reg, unsigned length)
{
    memset(cpu->fpu.vec[reg] + length, 0, 64 - length);
}

/* ---- SIMD floating-point exceptions ---- */

#define PRE_COMPUTATION    0x07u /* IE, DE, ZE */
#define OVERFLOW_UNDERFLOW 0x18u
#define UNDERFLOW          0x10u
#define PRECISION          0x20u
#define ALL_EXCEPTIONS     0x3fu
#define FLUSH_TO_ZERO      0x8000u

static void fp_begin(const struct x86_cpu *cpu, const struct vec_form *f, struct vec_ctx *c)
{
    uint32_t m = cpu->fpu.mxcsr & X86_MXCSR_MASK; /* the host must not fault on others */

    c->mxcsr_in = (m & ~ALL_EXCEPTIONS) | 0x1f80;
    c->unmasked = f->sae ? 0 : ~(m >> 7) & ALL_EXCEPTIONS;
    /* An unmasked underflow exception means every tiny result, also an exact one. Flushing makes
     * the host report these; the flushed results are not stored then. */
    if (x86_unlikely((c->unmasked & UNDERFLOW) && f->underflows))
        c->mxcsr_in |= FLUSH_TO_ZERO;
}

/* Whether an unmasked exception has occurred: then no result was stored. */
static bool fp_failed(const struct vec_ctx *c)
{
    return c->mxcsr_out & c->unmasked & ALL_EXCEPTIONS;
}

static bool half_tiny(const struct x86_fpu *fpu, const struct vec_form *f, const struct vec_ctx *c)
{
    const uint8_t *result = f->store ? c->mem : fpu->vec[f->half_reg];
    uint64_t mask = f->half_mask ? fpu->k[f->half_mask] : ~(uint64_t)0;

    for (unsigned i = 0; i < f->half; i++) {
        unsigned value = result[2 * i] | (unsigned)result[2 * i + 1] << 8;

        if ((mask >> i & 1) && !(value & 0x7c00) && (value & 0x3ff))
            return true;
    }
    return false;
}

/* Half-precision results are never flushed: with an unmasked underflow exception they are looked
 * at, and taken back if one is tiny (SDM Vol. 1, Intel AVX512-FP16, MXCSR's bits). */
static void run_half(struct x86_fpu *fpu, const struct vec_form *f, struct vec_ctx *c)
{
    uint32_t unmasked = c->unmasked;
    uint8_t old[64];

    memcpy(old, fpu->vec[f->half_reg], sizeof(old));
    c->unmasked = 0;
    f->code(fpu, c);
    c->unmasked = unmasked;
    if (half_tiny(fpu, f, c))
        c->mxcsr_out |= UNDERFLOW;
    if (fp_failed(c))
        memcpy(fpu->vec[f->half_reg], old, sizeof(old));
}

static bool is_scalef(const struct vec_form *f)
{
    switch (f->mnemonic) {
    case ZYDIS_MNEMONIC_VSCALEFPD:
    case ZYDIS_MNEMONIC_VSCALEFPH:
    case ZYDIS_MNEMONIC_VSCALEFPS:
    case ZYDIS_MNEMONIC_VSCALEFSD:
    case ZYDIS_MNEMONIC_VSCALEFSH:
    case ZYDIS_MNEMONIC_VSCALEFSS:
        return true;
    default:
        return false;
    }
}

static const struct x86_op *fp_fault(struct x86_cpu *cpu, const struct x86_op *op,
                                     const struct vec_form *f, const struct vec_ctx *c)
{
    uint32_t raised = c->mxcsr_out & ALL_EXCEPTIONS;

    /* What is found before the computation stops it (SDM Vol. 1 11.5.1). */
    if (raised & c->unmasked & PRE_COMPUTATION)
        raised &= PRE_COMPUTATION;
    /* Scaling is exact but for the range, which is unbounded when the exception is unmasked. */
    if (is_scalef(f) && !(raised & OVERFLOW_UNDERFLOW & ~c->unmasked))
        raised &= ~PRECISION;
    cpu->fpu.mxcsr |= raised;
    return x86_fault(cpu, op, cpu->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
}

/* ---- running ---- */

/* The linear address for alignment checks, without those of the segment. */
static uint64_t vec_linear(const struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t offset = x86_offset(cpu, op);

    if (op->asz != X86_A64)
        offset &= op->asz == X86_A16 ? 0xffff : 0xffffffff;
    if ((cpu->mode & X86_MODE_CODE) != X86_MODE_CODE64 || op->seg == VMM_FS || op->seg == VMM_GS)
        offset += cpu->seg[op->seg].base;
    return offset;
}

static bool misaligned(struct x86_cpu *cpu, const struct vec_form *f, uint64_t linear)
{
    if (x86_likely(!(linear & (f->align - 1u))))
        return false;
    x86_raise_err(cpu, X86_GP, 0);
    return true;
}

static uint64_t mask_bits(const struct x86_cpu *cpu, const struct vec_form *f)
{
    uint64_t all = f->n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << f->n) - 1;

    return cpu->fpu.k[f->mask] & all;
}

static bool all_bits(const struct vec_form *f, uint64_t mask)
{
    return mask == (f->n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << f->n) - 1);
}

static bool load_mem(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                     struct vec_ctx *c)
{
    uint64_t linear, mask;

    if (x86_unlikely(f->mask)) {
        mask = mask_bits(cpu, f);
        if (mask && f->align > 1 && misaligned(cpu, f, vec_linear(cpu, op)))
            return false;
        if (!all_bits(f, mask))
            return vec_read_masked(cpu, op, f, mask, c->mem);
    }
    return x86_ea(cpu, op, f->mem_size, false, &linear) && !misaligned(cpu, f, linear) &&
           x86_read(cpu, op, op->seg, linear, c->mem, f->mem_size);
}

static bool store_mem(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                      const struct vec_ctx *c)
{
    uint64_t linear, mask;

    if (x86_unlikely(f->mask)) {
        mask = mask_bits(cpu, f);
        if (mask && f->align > 1 && misaligned(cpu, f, vec_linear(cpu, op)))
            return false;
        if (!all_bits(f, mask))
            return vec_write_masked(cpu, op, f, mask, c->mem);
    }
    return x86_ea(cpu, op, f->mem_size, true, &linear) && !misaligned(cpu, f, linear) &&
           x86_write(cpu, op, op->seg, linear, c->mem, f->mem_size);
}

static void gpr_in(const struct x86_cpu *cpu, const struct vec_form *f, struct vec_ctx *c)
{
    for (unsigned slots = f->gread; slots; slots &= slots - 1) {
        unsigned i = (unsigned)__builtin_ctz(slots);

        c->gpr[i] = cpu->gpr[f->gslot[i]];
    }
}

static void gpr_out(struct x86_cpu *cpu, const struct vec_form *f, const struct vec_ctx *c)
{
    for (unsigned slots = f->gwrite; slots; slots &= slots - 1) {
        unsigned i = (unsigned)__builtin_ctz(slots);

        cpu->gpr[f->gslot[i]] = c->gpr[i];
    }
}

/* An MMX instruction: the tags are all valid, what is written gets an exponent of ones (SDM Vol. 1
 * 9.5). */
static void mmx_done(struct x86_fpu *fpu, const struct vec_form *f)
{
    fpu->ftw = 0xff;
    for (unsigned regs = f->mmx_write; regs; regs &= regs - 1)
        memset(fpu->x87[__builtin_ctz(regs)] + 8, 0xff, 2);
}

/* Everything that is not only a plain vector instruction on registers or loaded memory. */
static void finish(struct x86_cpu *cpu, const struct vec_form *f, const struct vec_ctx *c)
{
    if (f->gwrite)
        gpr_out(cpu, f, c);
    if (f->flags)
        cpu->cc = x86_cc_from_flags((uint32_t)c->flags);
    if (f->mmx)
        mmx_done(&cpu->fpu, f);
    if (f->written && (cpu->fpu.xinuse & (3u << X86_XC_ZMM_HI)))
        for (uint32_t regs = f->written; regs; regs &= regs - 1)
            vec_clear_above(cpu, (unsigned)__builtin_ctz(regs), 32);
    cpu->fpu.xinuse |= f->xuse;
}

const struct x86_op *vec_run(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    struct vec_ctx c;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    if (x86_unlikely(f->mmx && x87_pending(cpu)))
        return x86_fault(cpu, op, X86_MF);
    if (f->mem_size && !f->store && x86_unlikely(!load_mem(cpu, op, f, &c)))
        return x86_leave(cpu, op);
    if (f->fp)
        fp_begin(cpu, f, &c);
    if (f->gread)
        gpr_in(cpu, f, &c);
    if (f->mmx)
        x87_set_top0(&cpu->fpu);
    os_fpu_begin();
    if (x86_unlikely(f->half && (c.unmasked & UNDERFLOW)))
        run_half(&cpu->fpu, f, &c);
    else
        f->code(&cpu->fpu, &c);
    os_fpu_end();
    if (f->fp) {
        if (x86_unlikely(fp_failed(&c))) {
            if (f->mmx)
                cpu->fpu.ftw = 0xff;
            return fp_fault(cpu, op, f, &c);
        }
        cpu->fpu.mxcsr |= c.mxcsr_out & ALL_EXCEPTIONS;
    }
    if (f->store && x86_unlikely(!store_mem(cpu, op, f, &c)))
        return x86_leave(cpu, op);
    finish(cpu, f, &c);
    return op + 1;
}
