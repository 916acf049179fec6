/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/xsave.c: FXSAVE, the XSAVE family and their counterparts (SDM Vol. 1 chapter 13). */
#include <string.h>

#include "core/x86/control.h"
#include "core/x86/x87.h"

#define MXCSR_INIT 0x1f80u

#define OFF_MXCSR 24
#define OFF_ST    32
#define OFF_XMM   160
#define OFF_BV    512
#define OFF_XCOMP 520

#define COMPACT  ((uint64_t)1 << 63)
#define LEGACY   3u /* x87 and SSE */
#define AREA_MAX 2752

#define XSAVEC_ENABLED(cpu) ((cpu)->feat.xsave_eax & 2)

/* ---- memory images ---- */

static void put(uint8_t *p, uint64_t v, unsigned size)
{
    memcpy(p, &v, size);
}

static uint64_t get(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p, size);
    return v;
}

static bool is_64(const struct x86_cpu *cpu)
{
    return (cpu->mode & X86_MODE_CODE) == X86_MODE_CODE64;
}

/* Registers 8 on exist in 64-bit mode only; elsewhere their places are not touched. */
static unsigned nregs(const struct x86_cpu *cpu)
{
    return is_64(cpu) ? 16 : 8;
}

/* Bytes 0-23 and 32-159. `wide`: with REX.W, 64-bit pointers. */
static void put_x87(const struct x86_cpu *cpu, uint8_t *p, bool wide)
{
    const struct x86_fpu *f = &cpu->fpu;

    put(p, f->fcw, 2);
    put(p + 2, f->fsw, 2);
    put(p + 4, f->ftw, 2);
    put(p + 6, f->fop, 2);
    put(p + 8, f->fip, 8);
    put(p + 16, f->fdp, 8);
    if (!wide) {
        put(p + 12, f->fcs, 4);
        put(p + 20, f->fds, 4);
    }
    memcpy(p + OFF_ST, f->x87, sizeof f->x87);
}

/* Processors keep only a linear address' width of FIP. */
static uint64_t canonical(const struct x86_cpu *cpu, uint64_t v)
{
    unsigned drop = 64 - cpu->feat.linear_bits;

    return drop < 64 ? (uint64_t)((int64_t)(v << drop) >> drop) : v;
}

static void load_x87(struct x86_cpu *cpu, const uint8_t *p, bool wide)
{
    struct x86_fpu *f = &cpu->fpu;
    bool selectors = !(cpu->feat.l7_ebx & 1u << 13) && !wide;

    f->fcw = (get(p, 2) & 0x1f3f) | 0x40;
    f->fsw = (uint16_t)get(p + 2, 2);
    f->ftw = p[4];
    f->fop = get(p + 6, 2) & 0x7ff;
    f->fip = wide ? canonical(cpu, get(p + 8, 8)) : get(p + 8, 4);
    f->fdp = get(p + 16, wide ? 8 : 4);
    f->fcs = selectors ? (uint16_t)get(p + 12, 2) : 0;
    f->fds = selectors ? (uint16_t)get(p + 20, 2) : 0;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(f->x87[i], p + OFF_ST + 16 * i, 10);
        memset(f->x87[i] + 10, 0, 6);
    }
    x87_update_es(f);
}

static void init_x87(struct x86_cpu *cpu)
{
    x87_init(&cpu->fpu);
    memset(cpu->fpu.x87, 0, sizeof cpu->fpu.x87);
}

/* Vector registers' parts: where component `i` has them. */
static const struct part {
    uint8_t first, n, offset, size;
} parts[X86_XC_N] = {
    [X86_XC_SSE] = {0, 16, 0, 16},
    [X86_XC_AVX] = {0, 16, 16, 16},
    [X86_XC_ZMM_HI] = {0, 16, 32, 32},
    [X86_XC_HI16] = {16, 16, 0, 64},
};

static unsigned part_regs(const struct x86_cpu *cpu, unsigned i)
{
    if (is_64(cpu))
        return parts[i].n;
    return i == X86_XC_HI16 ? 0 : 8;
}

/* Bytes of component `i` that are saved and restored in this mode. */
static unsigned component_bytes(const struct x86_cpu *cpu, unsigned i)
{
    return parts[i].n ? part_regs(cpu, i) * parts[i].size : x86_xcomp[i].size;
}

/* Copies `n` parts of registers. `from` NULL: zeros. The sizes are spelled out, so that each part
 * is a move or two. */
static void copy_parts(uint8_t *to, size_t to_step, const uint8_t *from, size_t from_step,
                       unsigned n, unsigned size)
{
#define COPY(bytes)                                                                                \
    for (unsigned r = 0; r < n; r++) {                                                             \
        if (from)                                                                                  \
            memcpy(to + r * to_step, from + r * from_step, bytes);                                 \
        else                                                                                       \
            memset(to + r * to_step, 0, bytes);                                                    \
    }
    switch (size) {
    case 16:
        COPY(16)
        break;
    case 32:
        COPY(32)
        break;
    default:
        COPY(64)
    }
#undef COPY
}

static void put_component(const struct x86_cpu *cpu, unsigned i, uint8_t *p)
{
    const struct part *t = &parts[i];

    if (i == X86_XC_OPMASK)
        memcpy(p, cpu->fpu.k, sizeof cpu->fpu.k);
    else if (i == X86_XC_PKRU)
        put(p, cpu->pkru, 8);
    else if (t->n)
        copy_parts(p, t->size, cpu->fpu.vec[t->first] + t->offset, sizeof cpu->fpu.vec[0],
                   part_regs(cpu, i), t->size);
}

/* p NULL: the initial state, which is there already if the component has not been used. */
static void load_component(struct x86_cpu *cpu, unsigned i, const uint8_t *p)
{
    const struct part *t = &parts[i];

    if (i == X86_XC_PKRU) {
        x86_set_pkru(cpu, p ? (uint32_t)get(p, 4) : 0);
        return;
    }
    if (!p && !(cpu->fpu.xinuse >> i & 1))
        return;
    if (i != X86_XC_OPMASK)
        copy_parts(cpu->fpu.vec[t->first] + t->offset, sizeof cpu->fpu.vec[0], p, t->size,
                   part_regs(cpu, i), t->size);
    else if (p)
        memcpy(cpu->fpu.k, p, sizeof cpu->fpu.k);
    else
        memset(cpu->fpu.k, 0, sizeof cpu->fpu.k);
}

/* ---- checks ---- */

static bool operand(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, unsigned align,
                    bool write, uint64_t *linear)
{
    if (!x86_ea(cpu, op, size, write, linear))
        return false;
    if (*linear & (align - 1)) {
        x86_raise_err(cpu, X86_GP, 0);
        return false;
    }
    return true;
}

static bool probe_write(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear,
                        unsigned size)
{
    int r = mmu_probe(&cpu->mmu, cpu->mmu_idx, linear, size, MMU_WRITE);

    cpu->cur_idx = op->idx;
    if (r != MMU_OK)
        x86_mmu_failed(cpu, r, op->seg);
    return r == MMU_OK;
}

static const struct x86_op *gp(struct x86_cpu *cpu, const struct x86_op *op)
{
    return x86_fault_err(cpu, op, X86_GP, 0);
}

/* ---- FXSAVE and FXRSTOR ---- */

/* XMM registers are left out by AMD's fast FXSAVE. */
static bool fast(const struct x86_cpu *cpu)
{
    return (cpu->efer & X86_EFER_FFXSR) && is_64(cpu) && cpu->cpl == 0;
}

#define NM_CHECK(cpu, op)                                                                          \
    do {                                                                                           \
        if (x86_unlikely((cpu)->cr0 & (X86_CR0_EM | X86_CR0_TS)))                                  \
            return x86_fault(cpu, op, X86_NM);                                                     \
    } while (0)

/* `size` of ops: REX.W. */
static const struct x86_op *fxsave(struct x86_cpu *cpu, const struct x86_op *op)
{
    unsigned size = fast(cpu) ? OFF_XMM : OFF_XMM + nregs(cpu) * 16;
    uint8_t area[512];
    uint64_t linear;

    NM_CHECK(cpu, op);
    if (!operand(cpu, op, 512, 16, true, &linear) || !probe_write(cpu, op, linear, 512))
        return x86_leave(cpu, op);
    put_x87(cpu, area, op->size);
    put(area + OFF_MXCSR, cpu->fpu.mxcsr, 4);
    put(area + OFF_MXCSR + 4, X86_MXCSR_MASK, 4);
    put_component(cpu, X86_XC_SSE, area + OFF_XMM);
    if (!x86_write(cpu, op, op->seg, linear, area, size))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *fxrstor(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint8_t area[512];
    uint64_t linear;
    uint32_t mxcsr;

    NM_CHECK(cpu, op);
    if (!operand(cpu, op, 512, 16, false, &linear) ||
        !x86_read(cpu, op, op->seg, linear, area, 512))
        return x86_leave(cpu, op);
    mxcsr = (uint32_t)get(area + OFF_MXCSR, 4);
    if (mxcsr & ~X86_MXCSR_MASK)
        return gp(cpu, op);
    load_x87(cpu, area, op->size);
    cpu->fpu.mxcsr = mxcsr;
    if (!fast(cpu))
        load_component(cpu, X86_XC_SSE, area + OFF_XMM);
    cpu->fpu.xinuse |= LEGACY;
    return op + 1;
}

/* ---- XSAVE, XSAVEOPT, XSAVEC, XSAVES ---- */

#define XSAVE_CHECK(cpu, op)                                                                       \
    do {                                                                                           \
        if (x86_unlikely(!((cpu)->cr4 & X86_CR4_OSXSAVE)))                                         \
            return x86_fault(cpu, op, X86_UD);                                                     \
        if (x86_unlikely((cpu)->cr0 & X86_CR0_TS))                                                 \
            return x86_fault(cpu, op, X86_NM);                                                     \
    } while (0)

/* Requested-feature bitmap. */
static uint64_t rfbm(const struct x86_cpu *cpu, uint64_t allowed)
{
    return allowed & ((uint32_t)cpu->gpr[VMM_RAX] | cpu->gpr[VMM_RDX] << 32);
}

/* Where component `i` lies in a compacted area with the components of `bv`, or a standard one. */
static unsigned offset_of(uint64_t bv, unsigned i)
{
    return bv & COMPACT ? x86_xstate_compact_size(bv & (((uint64_t)1 << i) - 1))
                        : x86_xcomp[i].offset;
}

static bool write_at(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear, unsigned offset,
                     const uint8_t *area, unsigned size)
{
    return !size || x86_write(cpu, op, op->seg, linear + offset, area + offset, size);
}

/* Writes the components of `save`. `bv`: XCOMP_BV, 0 for the standard format. */
static bool write_components(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear,
                             uint64_t save, uint64_t bv, uint8_t *area)
{
    for (unsigned i = 2; i < X86_XC_N; i++) {
        unsigned offset;

        if (!(save >> i & 1))
            continue;
        offset = offset_of(bv, i);
        put_component(cpu, i, area + offset);
        if (!write_at(cpu, op, linear, offset, area, component_bytes(cpu, i)))
            return false;
    }
    return true;
}

static bool write_legacy(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear,
                         uint64_t save, bool mxcsr, uint8_t *area)
{
    if (save & X86_XCR0_X87) {
        put_x87(cpu, area, op->size);
        if (!write_at(cpu, op, linear, 0, area, OFF_MXCSR) ||
            !write_at(cpu, op, linear, OFF_ST, area, 128))
            return false;
    }
    if (mxcsr) {
        put(area + OFF_MXCSR, cpu->fpu.mxcsr, 4);
        put(area + OFF_MXCSR + 4, X86_MXCSR_MASK, 4);
        if (!write_at(cpu, op, linear, OFF_MXCSR, area, 8))
            return false;
    }
    if (save & X86_XCR0_SSE) {
        put_component(cpu, X86_XC_SSE, area + OFF_XMM);
        if (!write_at(cpu, op, linear, OFF_XMM, area, nregs(cpu) * 16))
            return false;
    }
    return true;
}

/* XSAVE and XSAVEOPT: the latter leaves out what is in its initial state. */
static const struct x86_op *save_standard(struct x86_cpu *cpu, const struct x86_op *op,
                                          bool optimized)
{
    uint64_t mask = rfbm(cpu, cpu->xcr0), use = x86_xinuse(cpu), bv, linear;
    uint64_t save = optimized ? mask & use : mask;
    unsigned size = x86_xstate_size(mask);
    uint8_t area[AREA_MAX];

    XSAVE_CHECK(cpu, op);
    if (!operand(cpu, op, size, 64, true, &linear) || !probe_write(cpu, op, linear, size) ||
        !x86_read(cpu, op, op->seg, linear + OFF_BV, &bv, 8))
        return x86_leave(cpu, op);
    bv = (bv & ~mask) | (mask & use);
    if (!write_legacy(cpu, op, linear, save, mask & (X86_XCR0_SSE | X86_XCR0_AVX), area) ||
        !write_components(cpu, op, linear, save, 0, area) ||
        !x86_write(cpu, op, op->seg, linear + OFF_BV, &bv, 8))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *xsave(struct x86_cpu *cpu, const struct x86_op *op)
{
    return save_standard(cpu, op, false);
}

static const struct x86_op *xsaveopt(struct x86_cpu *cpu, const struct x86_op *op)
{
    return save_standard(cpu, op, true);
}

static const struct x86_op *save_compact(struct x86_cpu *cpu, const struct x86_op *op,
                                         uint64_t allowed)
{
    uint64_t mask = rfbm(cpu, allowed), save = mask & x86_xinuse(cpu), linear;
    unsigned size = x86_xstate_compact_size(mask);
    uint8_t area[AREA_MAX];

    if (cpu->fpu.mxcsr != MXCSR_INIT)
        save |= mask & X86_XCR0_SSE;
    if (!operand(cpu, op, size, 64, true, &linear) || !probe_write(cpu, op, linear, size))
        return x86_leave(cpu, op);
    memset(area + OFF_BV, 0, X86_XSAVE_HEADER);
    put(area + OFF_BV, save, 8);
    put(area + OFF_XCOMP, mask | COMPACT, 8);
    if (!write_legacy(cpu, op, linear, save, save & X86_XCR0_SSE, area) ||
        !write_components(cpu, op, linear, save, mask | COMPACT, area) ||
        !write_at(cpu, op, linear, OFF_BV, area, 16))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *xsavec(struct x86_cpu *cpu, const struct x86_op *op)
{
    XSAVE_CHECK(cpu, op);
    return save_compact(cpu, op, cpu->xcr0);
}

static const struct x86_op *xsaves(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl != 0)
        return gp(cpu, op);
    XSAVE_CHECK(cpu, op);
    return save_compact(cpu, op, cpu->xcr0 | cpu->xss);
}

/* ---- XRSTOR, XRSTORS ---- */

/* Checks of the header (SDM Vol. 1 13.8.1, 13.12.1). */
static bool header_valid(const struct x86_cpu *cpu, const uint8_t *area, uint64_t allowed,
                         bool supervisor)
{
    uint64_t bv = get(area + OFF_BV, 8), comp = get(area + OFF_XCOMP, 8);
    unsigned zero_to = comp & COMPACT ? X86_XSAVE_HEADER : 24;

    for (unsigned i = 16; i < zero_to; i++)
        if (area[OFF_BV + i])
            return false;
    if (!(comp & COMPACT))
        return !supervisor && !comp && !(bv & ~allowed);
    if (!supervisor && !XSAVEC_ENABLED(cpu))
        return false;
    comp &= ~COMPACT;
    return !(comp & ~allowed) && !(bv & ~comp);
}

/* Reads what will be loaded: everything that can fault comes first. */
static bool read_area(struct x86_cpu *cpu, const struct x86_op *op, uint64_t linear, uint64_t load,
                      uint64_t comp, uint8_t *area)
{
    for (unsigned i = 2; i < X86_XC_N; i++) {
        unsigned offset = offset_of(comp, i), size = component_bytes(cpu, i);

        if ((load >> i & 1) && size &&
            !x86_read(cpu, op, op->seg, linear + offset, area + offset, size))
            return false;
    }
    return true;
}

static const struct x86_op *restore(struct x86_cpu *cpu, const struct x86_op *op, uint64_t allowed,
                                    bool supervisor)
{
    uint64_t mask = rfbm(cpu, allowed), linear, load, comp;
    bool load_mxcsr, init_mxcsr = false;
    uint8_t area[AREA_MAX];
    uint32_t mxcsr;

    if (!operand(cpu, op, X86_XSAVE_LEGACY + X86_XSAVE_HEADER, 64, false, &linear) ||
        !x86_read(cpu, op, op->seg, linear, area, X86_XSAVE_LEGACY + X86_XSAVE_HEADER))
        return x86_leave(cpu, op);
    if (!header_valid(cpu, area, allowed, supervisor))
        return gp(cpu, op);
    load = mask & get(area + OFF_BV, 8);
    comp = get(area + OFF_XCOMP, 8);
    if (comp & COMPACT) {
        load_mxcsr = load & X86_XCR0_SSE;
        init_mxcsr = (mask & X86_XCR0_SSE) && !load_mxcsr;
    } else {
        load_mxcsr = mask & (X86_XCR0_SSE | X86_XCR0_AVX);
    }
    mxcsr = (uint32_t)get(area + OFF_MXCSR, 4);
    if (load_mxcsr && (mxcsr & ~X86_MXCSR_MASK))
        return gp(cpu, op);
    if (!read_area(cpu, op, linear, load, comp, area))
        return x86_leave(cpu, op);

    if (load_mxcsr || init_mxcsr)
        cpu->fpu.mxcsr = load_mxcsr ? mxcsr : MXCSR_INIT;
    if (mask & X86_XCR0_X87) {
        if (load & X86_XCR0_X87)
            load_x87(cpu, area, op->size);
        else
            init_x87(cpu);
    }
    for (unsigned i = 1; i < X86_XC_N; i++)
        if ((mask >> i & 1) && x86_xcomp[i].size)
            load_component(cpu, i,
                           load >> i & 1 ? area + (i == 1 ? OFF_XMM : offset_of(comp, i)) : NULL);
    /* Outside 64-bit mode some registers of a component are left as they are. */
    if (is_64(cpu))
        cpu->fpu.xinuse &= ~mask;
    cpu->fpu.xinuse |= load;
    return op + 1;
}

static const struct x86_op *xrstor(struct x86_cpu *cpu, const struct x86_op *op)
{
    XSAVE_CHECK(cpu, op);
    return restore(cpu, op, cpu->xcr0, false);
}

static const struct x86_op *xrstors(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->cr4 & X86_CR4_OSXSAVE))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl != 0)
        return gp(cpu, op);
    XSAVE_CHECK(cpu, op);
    return restore(cpu, op, cpu->xcr0 | cpu->xss, true);
}

/* ---- decoding ---- */

static const struct insn {
    uint16_t mnemonic, wide; /* ZydisMnemonic; with REX.W */
    x86_fn *fn;
    bool fx;      /* CPUID.1:EDX.FXSR, else CPUID.1:ECX.XSAVE */
    uint8_t leaf; /* bits needed of CPUID.(0DH,1):EAX */
} insns[] = {
    {ZYDIS_MNEMONIC_FXSAVE, ZYDIS_MNEMONIC_FXSAVE64, fxsave, true, 0},
    {ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64, fxrstor, true, 0},
    {ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVE64, xsave, false, 0},
    {ZYDIS_MNEMONIC_XRSTOR, ZYDIS_MNEMONIC_XRSTOR64, xrstor, false, 0},
    {ZYDIS_MNEMONIC_XSAVEOPT, ZYDIS_MNEMONIC_XSAVEOPT64, xsaveopt, false, 1},
    {ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64, xsavec, false, 2},
    {ZYDIS_MNEMONIC_XSAVES, ZYDIS_MNEMONIC_XSAVES64, xsaves, false, 8},
    {ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_XRSTORS64, xrstors, false, 8},
};

bool xsave_dec(struct x86_dec *d, struct x86_op *op)
{
    for (unsigned i = 0; i < sizeof insns / sizeof insns[0]; i++) {
        const struct insn *n = &insns[i];

        if (d->insn.mnemonic != n->mnemonic && d->insn.mnemonic != n->wide)
            continue;
        if (n->fx ? !(d->cpu->feat.l1_edx & 1u << 24) : !(d->cpu->feat.l1_ecx & 1u << 26))
            return false;
        if ((d->cpu->feat.xsave_eax & n->leaf) != n->leaf)
            return false;
        op->fn = n->fn;
        op->size = d->insn.mnemonic == n->wide;
        x86_dec_mem(d, 0, op);
        return true;
    }
    return false;
}
