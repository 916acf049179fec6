/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_mem.c: memory operands with masks, and those with vectors of addresses. */
#include <string.h>

#include "core/x86/vec.h"

/* ---- masked operands ---- */

/* The linear address of `size` bytes at `offset` behind the memory operand's address; in 64-bit
 * mode wrapping as addresses do. */
static bool part_linear(struct x86_cpu *cpu, const struct x86_op *op, uint64_t offset,
                        unsigned size, bool write, uint64_t *linear)
{
    uint64_t a = x86_offset(cpu, op) + offset;

    if (op->asz != X86_A64)
        a &= op->asz == X86_A16 ? 0xffff : 0xffffffff;
    return x86_seg_check(cpu, op->seg, a, size, write, linear);
}

/* Parts of operands, and operands of more than 8 bytes, are not subject to alignment checking (SDM
 * Vol. 2, tables of exception types). Returns what cpu->mmu_idx is to be afterwards. */
static uint8_t ignore_alignment(struct x86_cpu *cpu, const struct vec_form *f, unsigned size)
{
    uint8_t idx = cpu->mmu_idx;

    if (idx == MMU_USER_ALIGN && (f->mem_size > 8 || size < f->mem_size))
        cpu->mmu_idx = MMU_USER;
    return idx;
}

static bool read_part(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                      uint64_t offset, unsigned size, void *buf)
{
    uint8_t idx = ignore_alignment(cpu, f, size);
    uint64_t linear;
    bool ok = part_linear(cpu, op, offset, size, false, &linear) &&
              x86_read(cpu, op, op->seg, linear, buf, size);

    cpu->mmu_idx = idx;
    return ok;
}

static bool write_part(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                       uint64_t offset, unsigned size, const void *buf)
{
    uint8_t idx = ignore_alignment(cpu, f, size);
    uint64_t linear;
    bool ok = part_linear(cpu, op, offset, size, true, &linear) &&
              x86_write(cpu, op, op->seg, linear, buf, size);

    cpu->mmu_idx = idx;
    return ok;
}

/* Bits of the memory operand's own elements. */
static uint64_t fold(const struct vec_form *f, uint64_t mask)
{
    unsigned n = f->mem_size / f->elem;
    uint64_t folded = 0;

    if (n >= f->n)
        return mask;
    for (; mask; mask >>= n)
        folded |= mask & (((uint64_t)1 << n) - 1);
    return folded;
}

bool vec_read_masked(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                     uint64_t mask, uint8_t *buf)
{
    memset(buf, 0, f->mem_size);
    for (uint64_t bits = fold(f, mask); bits; bits &= bits - 1) {
        unsigned i = (unsigned)__builtin_ctzll(bits) * f->elem;

        if (!read_part(cpu, op, f, i, f->elem, buf + i))
            return false;
    }
    return true;
}

/* All elements are checked before the first one is written. */
static bool probe_masked(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                         uint64_t mask)
{
    for (uint64_t bits = mask; bits; bits &= bits - 1) {
        uint64_t linear;
        int r;

        if (!part_linear(cpu, op, (uint64_t)__builtin_ctzll(bits) * f->elem, f->elem, true,
                         &linear))
            return false;
        if (mmu_fast_write(&cpu->mmu, cpu->mmu_idx, linear, f->elem))
            continue;
        cpu->cur_idx = op->idx;
        r = mmu_probe(&cpu->mmu, cpu->mmu_idx, linear, f->elem, MMU_WRITE);
        if (r != MMU_OK) {
            x86_mmu_failed(cpu, r, op->seg);
            return false;
        }
    }
    return true;
}

bool vec_write_masked(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                      uint64_t mask, const uint8_t *buf)
{
    if (!probe_masked(cpu, op, f, f->whole ? ((uint64_t)1 << f->n) - 1 : mask))
        return false;
    /* Neighbours go together, so that a device sees what the instruction means. */
    while (mask) {
        unsigned first = (unsigned)__builtin_ctzll(mask);
        uint64_t rest = ~(mask >> first);
        unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : 64;

        if (!write_part(cpu, op, f, (uint64_t)first * f->elem, n * f->elem, buf + first * f->elem))
            return false;
        mask = first + n == 64 ? 0 : mask >> (first + n) << (first + n);
    }
    return true;
}

/* ---- masked moves of AVX: VMASKMOVPS, VPMASKMOVD and alike ---- */

/* Sign bits of the elements of a vector register. */
static uint64_t sign_bits(const uint8_t *v, unsigned n, unsigned size)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < n; i++)
        bits |= (uint64_t)(v[(i + 1) * size - 1] >> 7) << i;
    return bits;
}

static const struct x86_op *run_maskmov(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    uint64_t mask;
    uint8_t buf[64];

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    mask = sign_bits(cpu->fpu.vec[f->reg2], f->n, f->elem);
    if (f->store) {
        if (!vec_write_masked(cpu, op, f, mask, cpu->fpu.vec[f->reg]))
            return x86_leave(cpu, op);
        return op + 1;
    }
    if (!vec_read_masked(cpu, op, f, mask, buf))
        return x86_leave(cpu, op);
    memcpy(cpu->fpu.vec[f->reg], buf, f->vl);
    vec_clear_above(cpu, f->reg, f->vl);
    cpu->fpu.xinuse |= f->xuse;
    return op + 1;
}

/* MASKMOVDQU, VMASKMOVDQU */
static const struct x86_op *run_maskmovdqu(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    if (!vec_write_masked(cpu, op, f, sign_bits(cpu->fpu.vec[f->reg2], 16, 1),
                          cpu->fpu.vec[f->reg]))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *run_maskmovq(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    struct x86_fpu *fpu = &cpu->fpu;
    uint64_t mask, linear;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, VEC_MMX);
    x87_set_top0(fpu);
    fpu->xinuse |= X86_XCR0_X87;
    mask = sign_bits(fpu->x87[f->reg2], 8, 1);
    if (x86_unlikely(cpu->mmu_idx == MMU_USER_ALIGN) && mask) {
        /* The 8 bytes count as one operand, whatever the mask says. */
        if (!part_linear(cpu, op, 0, 8, true, &linear))
            return x86_leave(cpu, op);
        if (linear & 7)
            return x86_fault_err(cpu, op, X86_AC_, 0);
    }
    if (!vec_write_masked(cpu, op, f, mask, fpu->x87[f->reg]))
        return x86_leave(cpu, op);
    fpu->ftw = 0xff;
    return op + 1;
}

/* ---- compressed stores and expanding loads ---- */

static uint64_t writemask(const struct x86_cpu *cpu, const struct vec_form *f)
{
    uint64_t all = f->n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << f->n) - 1;

    return f->mask ? cpu->fpu.k[f->mask] & all : all;
}

static const struct x86_op *run_compress(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    unsigned used = 0;
    uint8_t buf[64];

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    for (uint64_t m = writemask(cpu, f); m; m &= m - 1, used += f->elem)
        memcpy(buf + used, cpu->fpu.vec[f->reg] + (unsigned)__builtin_ctzll(m) * f->elem, f->elem);
    if (used && !write_part(cpu, op, f, 0, used, buf))
        return x86_leave(cpu, op);
    return op + 1;
}

static const struct x86_op *run_expand(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    uint8_t buf[64], *reg;
    uint64_t mask;
    unsigned used = 0;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    mask = writemask(cpu, f);
    if (mask && !read_part(cpu, op, f, 0, (unsigned)__builtin_popcountll(mask) * f->elem, buf))
        return x86_leave(cpu, op);
    reg = cpu->fpu.vec[f->reg];
    for (unsigned i = 0; i < f->n; i++) {
        if (mask >> i & 1) {
            memcpy(reg + i * f->elem, buf + used, f->elem);
            used += f->elem;
        } else if (f->zeroing) {
            memset(reg + i * f->elem, 0, f->elem);
        }
    }
    vec_clear_above(cpu, f->reg, f->vl);
    cpu->fpu.xinuse |= f->xuse;
    return op + 1;
}

/* ---- gathers and scatters ---- */

static bool element_linear(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                           unsigned i, bool write, uint64_t *linear)
{
    const uint8_t *index = cpu->fpu.vec[f->reg2] + i * f->index_size;
    int64_t n;

    if (f->index_size == 4) {
        int32_t n32;

        memcpy(&n32, index, 4);
        n = n32;
    } else {
        memcpy(&n, index, 8);
    }
    return part_linear(cpu, op, (uint64_t)n << op->scale, f->elem, write, linear);
}

/*
 * Elements are accessed from the lowest on. Before a fault is delivered, what has been done is
 * taken over and its mask bits are cleared, so that the instruction goes on where it stopped (SDM
 * Vol. 2, VGATHERDPS). When the surroundings abort the instruction, it starts anew.
 */
static uint64_t gather(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                       uint64_t mask, uint8_t *dest)
{
    while (mask) {
        unsigned i = (unsigned)__builtin_ctzll(mask);
        uint64_t linear;

        if (!element_linear(cpu, op, f, i, false, &linear) ||
            !x86_read(cpu, op, op->seg, linear, dest + i * f->elem, f->elem))
            break;
        mask &= mask - 1;
    }
    return mask;
}

static const struct x86_op *run_gather(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    struct x86_fpu *fpu = &cpu->fpu;
    uint8_t dest[64];
    uint64_t mask, left;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    mask = f->mask ? writemask(cpu, f) : sign_bits(fpu->vec[f->reg3], f->n, f->elem);
    memcpy(dest, fpu->vec[f->reg], sizeof dest);
    left = gather(cpu, op, f, mask, dest);
    if (left && !cpu->event.valid)
        return x86_leave(cpu, op);
    memcpy(fpu->vec[f->reg], dest, sizeof dest);
    if (f->mask) {
        fpu->k[f->mask] = left;
    } else {
        for (unsigned i = 0; i < f->n; i++)
            memset(fpu->vec[f->reg3] + i * f->elem, left >> i & 1 ? 0xff : 0, f->elem);
        vec_clear_above(cpu, f->reg3, f->n * f->elem);
    }
    cpu->fpu.xinuse |= f->xuse;
    vec_clear_above(cpu, f->reg, f->n * f->elem);
    return left ? x86_leave(cpu, op) : op + 1;
}

static const struct x86_op *run_scatter(struct x86_cpu *cpu, const struct x86_op *op)
{
    const struct vec_form *f = vec_form(cpu, op);
    uint64_t left;

    if (x86_unlikely(!f))
        return vec_redecode(cpu, op);
    VEC_CHECK(cpu, op, f->class);
    for (left = writemask(cpu, f); left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        uint64_t linear;

        if (!element_linear(cpu, op, f, i, true, &linear) ||
            !x86_write(cpu, op, op->seg, linear, cpu->fpu.vec[f->reg] + i * f->elem, f->elem))
            break;
    }
    if (left && !cpu->event.valid)
        return x86_leave(cpu, op);
    cpu->fpu.k[f->mask] = left;
    return left ? x86_leave(cpu, op) : op + 1;
}

/* ---- decoding ---- */

static uint8_t reg_id(const struct x86_dec *d, unsigned i)
{
    return (uint8_t)ZydisRegisterGetId(d->opnd[i].reg.value);
}

static uint8_t operand_bytes(const struct x86_dec *d, unsigned i)
{
    return (uint8_t)(ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, d->opnd[i].reg.value) / 8);
}

static uint8_t vec_components(unsigned reg, unsigned bytes)
{
    if (reg >= 16)
        return 1u << X86_XC_HI16;
    return (uint8_t)(X86_XCR0_SSE | (bytes >= 32 ? X86_XCR0_AVX : 0) |
                     (bytes >= 64 ? 1u << X86_XC_ZMM_HI : 0));
}

/* The form is identified by all that the handlers use. */
static bool enter(struct x86_dec *d, struct x86_op *op, struct vec_form *f, unsigned mem,
                  x86_fn *fn)
{
    x86_dec_mem(d, mem, op);
    f->fn = fn;
    f->mnemonic = d->insn.mnemonic;
    f->key[16] = 0; /* no thunk */
    f->key[0] = (uint8_t)f->mnemonic;
    f->key[1] = (uint8_t)(f->mnemonic >> 8);
    f->key[2] = f->reg;
    f->key[3] = f->reg2;
    f->key[4] = f->reg3;
    f->key[5] = f->mask;
    f->key[6] = f->vl;
    f->key[7] = f->zeroing;
    f->key[8] = f->store;
    f->key[9] = f->n;
    return vec_enter_form(d, op, f, NULL);
}

static uint8_t vex_class(const struct x86_dec *d)
{
    return d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX  ? VEC_AVX512
           : d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? VEC_AVX
                                                                : VEC_SSE;
}

static bool dec_maskmov(struct x86_dec *d, struct x86_op *op, unsigned elem)
{
    bool store = x86_dec_is_mem(d, 0);
    unsigned reg = store ? 2 : 0;
    struct vec_form f = {.class = VEC_AVX, .store = store, .elem = (uint8_t)elem};

    f.reg = reg_id(d, reg);
    f.reg2 = reg_id(d, 1);
    f.vl = f.mem_size = operand_bytes(d, reg);
    f.n = (uint8_t)(f.vl / elem);
    f.xuse = store ? 0 : vec_components(f.reg, f.vl);
    return enter(d, op, &f, store ? 0 : 2, run_maskmov);
}

static bool dec_maskmovdqu(struct x86_dec *d, struct x86_op *op)
{
    bool mmx = d->insn.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ;
    struct vec_form f = {.class = mmx ? (uint8_t)VEC_MMX : vex_class(d), .store = true, .elem = 1};

    f.reg = reg_id(d, 0);
    f.reg2 = reg_id(d, 1);
    f.vl = f.mem_size = f.n = mmx ? 8 : 16;
    return enter(d, op, &f, 2, mmx ? run_maskmovq : run_maskmovdqu);
}

static uint8_t mask_id(const struct x86_dec *d)
{
    ZydisRegister k = d->insn.avx.mask.reg;

    return k == ZYDIS_REGISTER_NONE ? 0 : (uint8_t)ZydisRegisterGetId(k);
}

/* Operands: destination, mask, source. */
static bool dec_compress(struct x86_dec *d, struct x86_op *op, unsigned elem)
{
    bool store = x86_dec_is_mem(d, 0);
    unsigned reg = store ? 2 : 0;
    struct vec_form f = {.class = VEC_AVX512, .store = store, .elem = (uint8_t)elem};

    f.reg = reg_id(d, reg);
    f.vl = f.mem_size = operand_bytes(d, reg);
    f.n = (uint8_t)(f.vl / elem);
    f.mask = mask_id(d);
    f.zeroing = d->insn.avx.mask.mode == ZYDIS_MASK_MODE_ZEROING;
    f.xuse = store ? 0 : vec_components(f.reg, f.vl);
    return enter(d, op, &f, store ? 0 : 2, store ? run_compress : run_expand);
}

/* VEX: destination, memory, mask vector; EVEX: destination, mask, memory; scatters: memory, mask,
 * source. */
static bool dec_gather(struct x86_dec *d, struct x86_op *op, unsigned index_size, unsigned elem,
                       bool scatter)
{
    bool evex = d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    unsigned mem = scatter ? 0 : evex ? 2 : 1, reg = scatter ? 2 : 0, n, ni;
    struct vec_form f = {.class = vex_class(d), .store = scatter, .elem = (uint8_t)elem};
    ZydisRegister index = d->opnd[mem].mem.index;
    bool ok;

    f.index_size = (uint8_t)index_size;
    f.reg = reg_id(d, reg);
    f.reg2 = (uint8_t)ZydisRegisterGetId(index);
    f.vl = operand_bytes(d, reg);
    n = f.vl / elem;
    ni = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, index) / 8u / index_size;
    f.n = (uint8_t)(n < ni ? n : ni);
    if (evex) {
        f.mask = mask_id(d);
        if (!f.mask || (!scatter && f.reg == f.reg2))
            return false;
        f.xuse = 1u << X86_XC_OPMASK;
    } else {
        f.reg3 = reg_id(d, 2);
        if (f.reg == f.reg2 || f.reg == f.reg3 || f.reg2 == f.reg3)
            return false;
        f.xuse = vec_components(f.reg3, f.vl);
    }
    if (!scatter)
        f.xuse |= vec_components(f.reg, f.vl);
    ok = enter(d, op, &f, mem, scatter ? run_scatter : run_gather);
    op->index = X86_ZERO; /* the scale is used for the vector's elements */
    return ok;
}

bool vec_dec_mem(struct x86_dec *d, struct x86_op *op, bool *ok)
{
    bool mem = (x86_dec_is_mem(d, 0) || x86_dec_is_mem(d, 2));

    switch (d->insn.mnemonic) {
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        *ok = dec_maskmov(d, op, 4);
        return true;
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        *ok = dec_maskmov(d, op, 8);
        return true;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        *ok = dec_maskmovdqu(d, op);
        return true;
    case ZYDIS_MNEMONIC_VPCOMPRESSB:
    case ZYDIS_MNEMONIC_VPEXPANDB:
        return mem && (*ok = dec_compress(d, op, 1), true);
    case ZYDIS_MNEMONIC_VPCOMPRESSW:
    case ZYDIS_MNEMONIC_VPEXPANDW:
        return mem && (*ok = dec_compress(d, op, 2), true);
    case ZYDIS_MNEMONIC_VPCOMPRESSD:
    case ZYDIS_MNEMONIC_VCOMPRESSPS:
    case ZYDIS_MNEMONIC_VPEXPANDD:
    case ZYDIS_MNEMONIC_VEXPANDPS:
        return mem && (*ok = dec_compress(d, op, 4), true);
    case ZYDIS_MNEMONIC_VPCOMPRESSQ:
    case ZYDIS_MNEMONIC_VCOMPRESSPD:
    case ZYDIS_MNEMONIC_VPEXPANDQ:
    case ZYDIS_MNEMONIC_VEXPANDPD:
        return mem && (*ok = dec_compress(d, op, 8), true);
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
        *ok = dec_gather(d, op, 4, 4, false);
        return true;
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
        *ok = dec_gather(d, op, 4, 8, false);
        return true;
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
        *ok = dec_gather(d, op, 8, 4, false);
        return true;
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VGATHERQPD:
        *ok = dec_gather(d, op, 8, 8, false);
        return true;
    case ZYDIS_MNEMONIC_VPSCATTERDD:
    case ZYDIS_MNEMONIC_VSCATTERDPS:
        *ok = dec_gather(d, op, 4, 4, true);
        return true;
    case ZYDIS_MNEMONIC_VPSCATTERDQ:
    case ZYDIS_MNEMONIC_VSCATTERDPD:
        *ok = dec_gather(d, op, 4, 8, true);
        return true;
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
        *ok = dec_gather(d, op, 8, 4, true);
        return true;
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
        *ok = dec_gather(d, op, 8, 8, true);
        return true;
    default:
        return false;
    }
}
