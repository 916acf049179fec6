/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/mtrr.c: memory types of physical memory (SDM Vol. 3A 12.11). */
#include "vmx/mtrr.h"

#include <string.h>

#include "vmx/insn.h"

#define MSR_CAP        0xfeu
#define MSR_DEF_TYPE   0x2ffu
#define MSR_BASE       0x200u
#define DEF_TYPE_FIXED (1u << 10)
#define DEF_TYPE_ON    (1u << 11)
#define CAP_FIXED      (1u << 8)
#define MASK_VALID     (1u << 11)
#define F1_EDX_MTRR    (1u << 12)

#define UC 0u
#define WC 1u
#define WT 4u
#define WP 5u
#define WB 6u

#define MIB 0x100000ull

static const struct {
    uint32_t msr, n; /* MSRs of 8 pieces */
    uint64_t from;
    unsigned shift;
} pieces[] = {{0x250, 1, 0, 16}, {0x258, 2, 0x80000, 14}, {0x268, 8, 0xc0000, 12}};

/* Reserved types, which WRMSR does not take, are the strongest. */
static uint8_t type_of(uint64_t value)
{
    uint8_t type = (uint8_t)value;

    return type == WC || type == WT || type == WP || type == WB ? type : UC;
}

static bool read_fixed(struct vmx_mtrrs *m, const struct vmm_host_ops *host)
{
    unsigned at = 0;
    uint64_t value;

    for (unsigned k = 0; k < 3; k++)
        for (uint32_t i = 0; i < pieces[k].n; i++) {
            if (host->rdmsr(host->ctx, pieces[k].msr + i, &value))
                return false;
            for (unsigned b = 0; b < 8; b++)
                m->fixed[at++] = type_of(value >> 8 * b);
        }
    return true;
}

static bool read_ranges(struct vmx_mtrrs *m, const struct vmm_host_ops *host, unsigned n)
{
    uint64_t base, mask;

    for (uint32_t i = 0; i < n; i++) {
        if (host->rdmsr(host->ctx, MSR_BASE + 2 * i, &base) ||
            host->rdmsr(host->ctx, MSR_BASE + 2 * i + 1, &mask))
            return false;
        if (!(mask & MASK_VALID))
            continue;
        mask &= m->width & ~0xfffull;
        m->range[m->n].base = base & mask;
        m->range[m->n].mask = mask;
        m->range[m->n++].type = type_of(base);
    }
    return true;
}

void vmx_mtrrs_read(struct vmx_mtrrs *m, const struct vmm_host_ops *host, unsigned phys_bits)
{
    const struct vmx_mtrrs none = {.otherwise = WB};
    uint64_t cap, type;
    uint32_t id[4];
    unsigned n;

    *m = none;
    m->width = (1ull << phys_bits) - 1;
    vmx_insn_cpuid(1, id);
    if (!(id[3] & F1_EDX_MTRR) || host->rdmsr(host->ctx, MSR_CAP, &cap) ||
        host->rdmsr(host->ctx, MSR_DEF_TYPE, &type))
        return;
    m->otherwise = type & DEF_TYPE_ON ? type_of(type) : UC;
    if (!(type & DEF_TYPE_ON))
        return;
    n = (unsigned)(cap & 0xff);
    m->fixed_on = cap & CAP_FIXED && type & DEF_TYPE_FIXED;
    if ((m->fixed_on && !read_fixed(m, host)) ||
        !read_ranges(m, host, n < VMX_MTRR_RANGES ? n : VMX_MTRR_RANGES))
        *m = none;
}

static void lower(uint64_t *len, uint64_t reach)
{
    if (*len > reach)
        *len = reach;
}

static unsigned fixed_type(const struct vmx_mtrrs *m, uint64_t hpa, uint64_t *len)
{
    unsigned k = hpa < pieces[1].from ? 0 : hpa < pieces[2].from ? 1 : 2, first = 0;

    for (unsigned i = 0; i < k; i++)
        first += 8 * pieces[i].n;
    lower(len, (1ull << pieces[k].shift) - (hpa & ((1ull << pieces[k].shift) - 1)));
    return m->fixed[first + (unsigned)((hpa - pieces[k].from) >> pieces[k].shift)];
}

/* How far it is to a place where this range can begin or end. */
static uint64_t reach(const struct vmx_mtrrs *m, unsigned i, uint64_t hpa)
{
    uint64_t base = m->range[i].base, mask = m->range[i].mask, size = mask & -mask;

    if (!mask)
        return UINT64_MAX;                /* it is everywhere */
    if (mask != (m->width & ~(size - 1))) /* with holes */
        return size - (hpa & (size - 1));
    return hpa < base ? base - hpa : hpa - base < size ? size - (hpa - base) : UINT64_MAX;
}

unsigned vmx_mtrrs_type(const struct vmx_mtrrs *m, uint64_t hpa, uint64_t *len)
{
    unsigned types = 0;

    if (m->fixed_on && hpa < MIB)
        return fixed_type(m, hpa, len);
    for (unsigned i = 0; i < m->n; i++) {
        lower(len, reach(m, i, hpa));
        if ((hpa & m->range[i].mask) == m->range[i].base)
            types |= 1u << m->range[i].type;
    }
    if (!types)
        return m->otherwise;
    /* Where ranges overlap: UC, or WT of WT and WB; anything else is undefined. */
    if (types == (1u << WT | 1u << WB))
        return WT;
    return types & (types - 1) ? UC : (unsigned)__builtin_ctz(types);
}
