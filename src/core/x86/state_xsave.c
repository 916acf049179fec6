/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/state_xsave.c: x87, vector and PKRU state for the outside, as an XSAVE area in standard
 * form (SDM Vol. 1 13.4). */
#include <string.h>

#include "core/x86/control.h"
#include "core/x86/xstate.h"

/* Offsets in the legacy region, in the 64-bit form: FIP and FDP are whole. */
enum {
    FCW = 0,
    FSW = 2,
    FTW = 4,
    FOP = 6,
    FIP = 8,
    FDP = 16,
    MXCSR = 24,
    MXCSR_MASK = 28,
    ST = 32,
    XMM = 160,
    XSTATE_BV = 512,
    XCOMP_BV = 520,
};

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The vector registers' parts: which component holds `size` bytes at `part` of each of `n`
 * registers from `first`. */
static const struct part {
    uint8_t component, first, n, part, size;
} parts[] = {
    {X86_XC_SSE, 0, 16, 0, 16},
    {X86_XC_AVX, 0, 16, 16, 16},
    {X86_XC_ZMM_HI, 0, 16, 32, 32},
    {X86_XC_HI16, 16, 16, 0, 64},
};
#define NPARTS (sizeof(parts) / sizeof(parts[0]))

uint32_t x86_xsave_size(const struct x86_cpu *cpu)
{
    return x86_xstate_size(cpu->feat.xcr0_mask);
}

/* ---- reading ---- */

static void get_x87(const struct x86_fpu *f, uint8_t *p)
{
    put16(p + FCW, f->fcw);
    put16(p + FSW, f->fsw);
    p[FTW] = f->ftw;
    put16(p + FOP, f->fop);
    put64(p + FIP, f->fip);
    put64(p + FDP, f->fdp);
    memcpy(p + ST, f->x87, sizeof(f->x87));
}

static void get_area(const struct x86_cpu *cpu, uint8_t *p)
{
    const struct x86_fpu *f = &cpu->fpu;

    get_x87(f, p);
    put32(p + MXCSR, f->mxcsr);
    put32(p + MXCSR_MASK, X86_MXCSR_MASK);
    for (unsigned i = 0; i < NPARTS; i++) {
        const struct part *c = &parts[i];
        uint8_t *to = p + x86_xcomp[c->component].offset;

        for (unsigned j = 0; j < c->n; j++)
            memcpy(to + j * c->size, f->vec[c->first + j] + c->part, c->size);
    }
    memcpy(p + x86_xcomp[X86_XC_OPMASK].offset, f->k, sizeof(f->k));
    put32(p + x86_xcomp[X86_XC_PKRU].offset, cpu->pkru);
    put64(p + XSTATE_BV, x86_xinuse(cpu) & cpu->feat.xcr0_mask);
}

void x86_get_xsave(struct x86_cpu *cpu, void *area, uint32_t len)
{
    uint8_t whole[X86_XSAVE_MAX] = {0};
    uint32_t size = x86_xsave_size(cpu);

    get_area(cpu, whole);
    memset(area, 0, len);
    memcpy(area, whole, len < size ? len : size);
}

/* ---- writing ---- */

/* The checks of XRSTOR (SDM Vol. 1 13.8.1), and that all of the components is there. */
static bool valid(const struct x86_cpu *cpu, const uint8_t *p, uint32_t len)
{
    static const uint8_t zero[X86_XSAVE_HEADER - 8];
    uint64_t bv;

    if (len < X86_XSAVE_LEGACY + X86_XSAVE_HEADER)
        return false;
    bv = get64(p + XSTATE_BV);
    return !(bv & ~cpu->feat.xcr0_mask) && memcmp(p + XCOMP_BV, zero, sizeof(zero)) == 0 &&
           x86_xstate_size(bv) <= len && !(get32(p + MXCSR) & ~X86_MXCSR_MASK);
}

static void set_x87(struct x86_fpu *f, const uint8_t *p, bool used)
{
    f->fcs = f->fds = 0;
    if (!used) {
        f->fcw = 0x37f;
        f->fsw = f->fop = 0;
        f->ftw = 0;
        f->fip = f->fdp = 0;
        memset(f->x87, 0, sizeof(f->x87));
        return;
    }
    f->fcw = get16(p + FCW);
    f->fsw = get16(p + FSW);
    f->ftw = p[FTW];
    f->fop = get16(p + FOP) & 0x7ff;
    f->fip = get64(p + FIP);
    f->fdp = get64(p + FDP);
    memcpy(f->x87, p + ST, sizeof(f->x87));
    /* Registers are 80 bits wide. */
    for (unsigned i = 0; i < 8; i++)
        memset(f->x87[i] + 10, 0, 6);
}

bool x86_set_xsave(struct x86_cpu *cpu, const void *area, uint32_t len)
{
    const uint8_t *p = area;
    struct x86_fpu *f = &cpu->fpu;
    uint64_t bv;

    if (!valid(cpu, p, len))
        return false;
    bv = get64(p + XSTATE_BV);
    set_x87(f, p, bv & X86_XCR0_X87);
    f->mxcsr = get32(p + MXCSR);
    for (unsigned i = 0; i < NPARTS; i++) {
        const struct part *c = &parts[i];
        const uint8_t *from = p + x86_xcomp[c->component].offset;

        for (unsigned j = 0; j < c->n; j++)
            if (bv >> c->component & 1)
                memcpy(f->vec[c->first + j] + c->part, from + j * c->size, c->size);
            else
                memset(f->vec[c->first + j] + c->part, 0, c->size);
    }
    if (bv >> X86_XC_OPMASK & 1)
        memcpy(f->k, p + x86_xcomp[X86_XC_OPMASK].offset, sizeof(f->k));
    else
        memset(f->k, 0, sizeof(f->k));
    f->xinuse = bv & ~(uint64_t)X86_XCR0_PKRU;
    x86_set_pkru(cpu, bv & X86_XCR0_PKRU ? get32(p + x86_xcomp[X86_XC_PKRU].offset) : 0);
    x86_end_block(cpu); /* a tier may count on xinuse */
    return true;
}
