/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/xstate.c: sizes and use of the state components of XSAVE areas. */
#include <string.h>

#include "core/x86/xstate.h"

/* The offsets are those that all processors with these components have. */
const struct x86_xcomp x86_xcomp[X86_XC_N] = {
    [X86_XC_X87] = {0, 160},      [X86_XC_SSE] = {160, 256},     [X86_XC_AVX] = {576, 256},
    [X86_XC_OPMASK] = {1088, 64}, [X86_XC_ZMM_HI] = {1152, 512}, [X86_XC_HI16] = {1664, 1024},
    [X86_XC_PKRU] = {2688, 8},
};

uint32_t x86_xstate_size(uint64_t components)
{
    uint32_t size = X86_XSAVE_LEGACY + X86_XSAVE_HEADER;

    for (unsigned i = 2; i < X86_XC_N; i++)
        if ((components >> i & 1) && x86_xcomp[i].size)
            size = x86_xcomp[i].offset + x86_xcomp[i].size;
    return size;
}

uint32_t x86_xstate_compact_size(uint64_t components)
{
    uint32_t size = X86_XSAVE_LEGACY + X86_XSAVE_HEADER;

    for (unsigned i = 2; i < X86_XC_N; i++)
        if (components >> i & 1)
            size += x86_xcomp[i].size;
    return size;
}

static uint64_t word(const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
    return w;
}

/* `size`: a multiple of 8. */
static bool all_zero(const void *p, size_t size)
{
    const uint8_t *b = p;
    uint64_t any = 0;

    for (size_t i = 0; i < size; i += 8)
        any |= word(b + i);
    return !any;
}

/* The same 16, 32 or 64 bytes at `offset` of `n` vector registers. */
static bool vec_zero(const struct x86_fpu *f, unsigned first, unsigned n, unsigned offset,
                     unsigned size)
{
    for (unsigned i = first; i < first + n; i++)
        if (!all_zero(f->vec[i] + offset, size))
            return false;
    return true;
}

static bool x87_initial(const struct x86_fpu *f)
{
    return f->fcw == 0x37f && f->fsw == 0 && f->ftw == 0 && f->fop == 0 && f->fip == 0 &&
           f->fdp == 0 && f->fcs == 0 && f->fds == 0 && all_zero(f->x87, sizeof f->x87);
}

uint64_t x86_xinuse(const struct x86_cpu *cpu)
{
    const struct x86_fpu *f = &cpu->fpu;
    uint64_t use = f->xinuse & ~(uint64_t)X86_XCR0_PKRU;

    if ((use & X86_XCR0_X87) && x87_initial(f))
        use &= ~(uint64_t)X86_XCR0_X87;
    if ((use & X86_XCR0_SSE) && vec_zero(f, 0, 16, 0, 16))
        use &= ~(uint64_t)X86_XCR0_SSE;
    if ((use & X86_XCR0_AVX) && vec_zero(f, 0, 16, 16, 16))
        use &= ~(uint64_t)X86_XCR0_AVX;
    if ((use >> X86_XC_OPMASK & 1) && all_zero(f->k, sizeof f->k))
        use &= ~((uint64_t)1 << X86_XC_OPMASK);
    if ((use >> X86_XC_ZMM_HI & 1) && vec_zero(f, 0, 16, 32, 32))
        use &= ~((uint64_t)1 << X86_XC_ZMM_HI);
    if ((use >> X86_XC_HI16 & 1) && vec_zero(f, 16, 16, 0, 64))
        use &= ~((uint64_t)1 << X86_XC_HI16);
    if (cpu->pkru)
        use |= X86_XCR0_PKRU;
    return use;
}
