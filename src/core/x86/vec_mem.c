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

static bool read_part(struct x86_cpu *cpu, const struct x86_op *op, uint64_t offset, unsigned size,
                      void *buf)
{
    uint64_t linear;

    return part_linear(cpu, op, offset, size, false, &linear) &&
           x86_read(cpu, op, op->seg, linear, buf, size);
}

static bool write_part(struct x86_cpu *cpu, const struct x86_op *op, uint64_t offset, unsigned size,
                       const void *buf)
{
    uint64_t linear;

    return part_linear(cpu, op, offset, size, true, &linear) &&
           x86_write(cpu, op, op->seg, linear, buf, size);
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

        if (!read_part(cpu, op, i, f->elem, buf + i))
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
    if (!probe_masked(cpu, op, f, mask))
        return false;
    /* Neighbours go together, so that a device sees what the instruction means. */
    while (mask) {
        unsigned first = (unsigned)__builtin_ctzll(mask);
        uint64_t rest = ~(mask >> first);
        unsigned n = rest ? (unsigned)__builtin_ctzll(rest) : 64;

        if (!write_part(cpu, op, (uint64_t)first * f->elem, n * f->elem, buf + first * f->elem))
            return false;
        mask = first + n == 64 ? 0 : mask >> (first + n) << (first + n);
    }
    return true;
}
