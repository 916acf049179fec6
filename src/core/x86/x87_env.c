/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/x87_env.c: x87 control instructions: FINIT, FCLEX, control and status word, environment.
 */
#include <string.h>

#include "core/x86/x87.h"

#define FCW_BITS 0x1f3fu /* the others are constant */
#define FCW_ONE  0x40u

/* ---- tags ---- */

/* 0 valid, 1 zero, 2 special; only empty or not counts when it is loaded. */
static unsigned tag_of(const uint8_t *reg)
{
    uint64_t mantissa;
    uint16_t exponent;

    memcpy(&mantissa, reg, 8);
    memcpy(&exponent, reg + 8, 2);
    exponent &= 0x7fff;
    if (!exponent)
        return mantissa ? 2 : 1;
    return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

/* Full tag word from registers and abridged tags, and back (SDM Vol. 1 8.1.7, Vol. 2 FXSAVE). */
static uint16_t full_tags(const struct x86_fpu *f)
{
    unsigned top = f->fsw >> 11 & 7;
    uint16_t tags = 0;

    for (unsigned i = 0; i < 8; i++) {
        unsigned tag = f->ftw >> i & 1 ? tag_of(f->x87[(i - top) & 7]) : 3;

        tags |= (uint16_t)(tag << 2 * i);
    }
    return tags;
}

static void set_full_tags(struct x86_fpu *f, uint16_t tags)
{
    f->ftw = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((tags >> 2 * i & 3) != 3)
            f->ftw |= (uint8_t)(1u << i);
}

/* ---- state ---- */

void x87_init(struct x86_fpu *f)
{
    x87_set_top0(f);
    f->fcw = 0x37f;
    f->fsw = 0;
    f->ftw = 0;
    f->fop = 0;
    f->fip = f->fdp = 0;
    f->fcs = f->fds = 0;
}

/* TOP changes, the registers stay where they are. */
static void set_fsw(struct x86_fpu *f, uint16_t fsw)
{
    unsigned top = fsw >> 11 & 7;
    uint8_t old[8][16];

    x87_set_top0(f);
    memcpy(old, f->x87, sizeof old);
    for (unsigned i = 0; i < 8; i++)
        memcpy(f->x87[i], old[(i + top) & 7], 16);
    f->fsw = fsw;
}

static void set_fcw(struct x86_fpu *f, uint16_t fcw)
{
    f->fcw = (fcw & FCW_BITS) | FCW_ONE;
    x87_update_es(f);
}

/* ---- environment in memory (SDM Vol. 1 8.1.10, figures 8-9 to 8-12) ---- */

/* `size` of the op: bytes of the environment, 14 or 28. */
static bool real_format(const struct x86_cpu *cpu)
{
    return !(cpu->mode & X86_MODE_PE) || (cpu->mode & X86_MODE_VM86);
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v);
    put16(p + 2, v >> 16);
}

static uint32_t get16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | get16(p + 2) << 16;
}

/* Pointers of real mode are linear addresses. */
static void put_env(const struct x86_cpu *cpu, uint8_t *p, unsigned size)
{
    const struct x86_fpu *f = &cpu->fpu;
    bool real = real_format(cpu), wide = size == 28;
    uint32_t fip = (uint32_t)f->fip, fdp = (uint32_t)f->fdp;
    uint32_t words[7] = {f->fcw, f->fsw, full_tags(f), fip, f->fcs, fdp, f->fds};

    if (real) {
        fip += (uint32_t)f->fcs << 4;
        fdp += (uint32_t)f->fds << 4;
        words[3] = fip & 0xffff;
        words[4] = (fip >> 16) << 12 | f->fop;
        words[5] = fdp & 0xffff;
        words[6] = (fdp >> 16) << 12;
    } else if (wide) {
        words[4] |= (uint32_t)f->fop << 16;
    }
    for (unsigned i = 0; i < 7; i++) {
        if (!wide)
            put16(p + 2 * i, words[i]);
        else if (i < 3 || (i == 6 && !real) || (real && (i == 3 || i == 5)))
            put32(p + 4 * i, words[i] | 0xffff0000); /* reserved halves read as ones */
        else
            put32(p + 4 * i, words[i]);
    }
}

static void load_env(struct x86_cpu *cpu, const uint8_t *p, unsigned size)
{
    struct x86_fpu *f = &cpu->fpu;
    bool real = real_format(cpu), wide = size == 28;
    uint32_t w[7];

    for (unsigned i = 0; i < 7; i++)
        w[i] = wide ? get32(p + 4 * i) : get16(p + 2 * i);
    set_fsw(f, (uint16_t)w[1]);
    set_full_tags(f, (uint16_t)w[2]);
    set_fcw(f, (uint16_t)w[0]);
    f->fop = real ? w[4] & 0x7ff : wide ? w[4] >> 16 & 0x7ff : 0;
    if (real) {
        uint32_t high = wide ? 0xffff : 0xf;

        f->fip = (w[3] & 0xffff) | (w[4] >> 12 & high) << 16;
        f->fdp = (w[5] & 0xffff) | (w[6] >> 12 & high) << 16;
        f->fcs = f->fds = 0;
        return;
    }
    f->fip = w[3];
    f->fdp = w[5];
    f->fcs = cpu->feat.l7_ebx & 1u << 13 ? 0 : (uint16_t)w[4];
    f->fds = cpu->feat.l7_ebx & 1u << 13 ? 0 : (uint16_t)w[6];
}

/* ---- handlers ---- */

#define NM_CHECK(cpu, op)                                                                          \
    do {                                                                                           \
        if (x86_unlikely((cpu)->cr0 & (X86_CR0_EM | X86_CR0_TS)))                                  \
            return x86_fault(cpu, op, X86_NM);                                                     \
    } while (0)

static const struct x86_op *fninit(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    x87_init(&cpu->fpu);
    return op + 1;
}

/* FENI, FDISI and FSETPM of older coprocessors. */
static const struct x86_op *nop(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    return op + 1;
}

static const struct x86_op *fnclex(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    cpu->fpu.fsw &= 0x7f00;
    return op + 1;
}

static const struct x86_op *fnstcw(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    if (!x86_st16(cpu, op, cpu->fpu.fcw))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *fldcw(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t fcw;

    X87_CHECK(cpu, op);
    if (!x86_ld16(cpu, op, &fcw))
        return x86_leave(cpu, op);
    set_fcw(&cpu->fpu, fcw);
    cpu->fpu.xinuse |= X86_XCR0_X87;
    return op + 1;
}

static const struct x86_op *fnstsw(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    if (!x86_st16(cpu, op, cpu->fpu.fsw))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *fnstsw_ax(struct x86_cpu *cpu, const struct x86_op *op)
{
    NM_CHECK(cpu, op);
    X86_R16(cpu, VMM_RAX) = cpu->fpu.fsw;
    return op + 1;
}

static const struct x86_op *fwait(struct x86_cpu *cpu, const struct x86_op *op)
{
    if ((cpu->cr0 & (X86_CR0_MP | X86_CR0_TS)) == (X86_CR0_MP | X86_CR0_TS))
        return x86_fault(cpu, op, X86_NM);
    if (x87_pending(cpu))
        return x86_fault(cpu, op, X86_MF);
    return op + 1;
}

static bool put_mem(struct x86_cpu *cpu, const struct x86_op *op, const void *buf, unsigned size)
{
    uint64_t linear;

    return x86_ea(cpu, op, size, true, &linear) && x86_write(cpu, op, op->seg, linear, buf, size);
}

static bool get_mem(struct x86_cpu *cpu, const struct x86_op *op, void *buf, unsigned size)
{
    uint64_t linear;

    return x86_ea(cpu, op, size, false, &linear) && x86_read(cpu, op, op->seg, linear, buf, size);
}

static const struct x86_op *fnstenv(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint8_t env[28];

    NM_CHECK(cpu, op);
    put_env(cpu, env, op->size);
    if (!put_mem(cpu, op, env, op->size))
        return x86_leave(cpu, op);
    cpu->fpu.fcw |= 0x3f;
    x87_update_es(&cpu->fpu);
    return op + 1;
}

static const struct x86_op *fldenv(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint8_t env[28];

    X87_CHECK(cpu, op);
    if (!get_mem(cpu, op, env, op->size))
        return x86_leave(cpu, op);
    load_env(cpu, env, op->size);
    cpu->fpu.xinuse |= X86_XCR0_X87;
    return op + 1;
}

static const struct x86_op *fnsave(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint8_t save[28 + 80];

    NM_CHECK(cpu, op);
    put_env(cpu, save, op->size);
    for (unsigned i = 0; i < 8; i++)
        memcpy(save + op->size + 10 * i, cpu->fpu.x87[i], 10);
    if (!put_mem(cpu, op, save, op->size + 80u))
        return x86_leave(cpu, op);
    x87_init(&cpu->fpu);
    return op + 1;
}

static const struct x86_op *frstor(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint8_t save[28 + 80];

    X87_CHECK(cpu, op);
    if (!get_mem(cpu, op, save, op->size + 80u))
        return x86_leave(cpu, op);
    load_env(cpu, save, op->size);
    for (unsigned i = 0; i < 8; i++) {
        memcpy(cpu->fpu.x87[i], save + op->size + 10 * i, 10);
        memset(cpu->fpu.x87[i] + 10, 0, 6);
    }
    cpu->fpu.xinuse |= X86_XCR0_X87;
    return op + 1;
}

/* ---- decoding ---- */

static bool dec_mem(struct x86_dec *d, struct x86_op *op, x86_fn *fn)
{
    op->fn = fn;
    for (unsigned i = 0; i < d->insn.operand_count; i++)
        if (x86_dec_is_mem(d, i)) {
            x86_dec_mem(d, i, op);
            return true;
        }
    return false;
}

/* 14 or 28 bytes, and 80 more with the registers. */
static bool dec_env(struct x86_dec *d, struct x86_op *op, x86_fn *fn)
{
    unsigned bytes = d->opnd[0].size / 8u;

    op->size = (uint8_t)(bytes > 28 ? bytes - 80 : bytes);
    return (op->size == 14 || op->size == 28) && dec_mem(d, op, fn);
}

static bool dec_plain(struct x86_op *op, x86_fn *fn)
{
    op->fn = fn;
    return true;
}

bool x87_is_control(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
    case ZYDIS_MNEMONIC_FWAIT:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
        return true;
    default:
        return false;
    }
}

bool x87_dec_control(struct x86_dec *d, struct x86_op *op)
{
    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
        return dec_plain(op, fninit);
    case ZYDIS_MNEMONIC_FNCLEX:
        return dec_plain(op, fnclex);
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return dec_plain(op, nop);
    case ZYDIS_MNEMONIC_FWAIT:
        return dec_plain(op, fwait);
    case ZYDIS_MNEMONIC_FNSTCW:
        return dec_mem(d, op, fnstcw);
    case ZYDIS_MNEMONIC_FLDCW:
        return dec_mem(d, op, fldcw);
    case ZYDIS_MNEMONIC_FNSTSW:
        return x86_dec_is_reg(d, 0) ? dec_plain(op, fnstsw_ax) : dec_mem(d, op, fnstsw);
    case ZYDIS_MNEMONIC_FNSTENV:
        return dec_env(d, op, fnstenv);
    case ZYDIS_MNEMONIC_FLDENV:
        return dec_env(d, op, fldenv);
    case ZYDIS_MNEMONIC_FNSAVE:
        return dec_env(d, op, fnsave);
    case ZYDIS_MNEMONIC_FRSTOR:
        return dec_env(d, op, frstor);
    default:
        return false;
    }
}
