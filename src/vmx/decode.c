/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/decode.c: exit qualifications and bitmaps. */
#include "vmx/decode.h"

struct vmx_cr_access vmx_cr_access(uint64_t q)
{
    return (struct vmx_cr_access){.kind = (enum vmx_cr_kind)(q >> 4 & 3),
                                  .cr = q & 15,
                                  .gpr = q >> 8 & 15,
                                  .memory = q >> 6 & 1,
                                  .source = (uint16_t)(q >> 16)};
}

/* ---- bitmaps ---- */

/* Quarters of a page: reads of low and high MSRs, then writes. False: not in the bitmap. */
static bool msr_bit(uint32_t msr, uint32_t *bit)
{
    if (msr <= 0x1fff)
        *bit = msr;
    else if (msr >= 0xc0000000 && msr <= 0xc0001fff)
        *bit = 8 * 1024 + (msr & 0x1fff);
    else
        return false;
    return true;
}

#define MSR_WRITES (8u * 2048u)

static void change(uint8_t *bitmap, uint32_t bit, bool set)
{
    uint8_t mask = (uint8_t)(1u << (bit & 7));

    if (set)
        bitmap[bit >> 3] |= mask;
    else
        bitmap[bit >> 3] &= (uint8_t)~mask;
}

static void msr_change(uint8_t *bitmap, uint32_t msr, bool read, bool write, bool set)
{
    uint32_t bit;

    if (!msr_bit(msr, &bit))
        return;
    if (read)
        change(bitmap, bit, set);
    if (write)
        change(bitmap, bit + MSR_WRITES, set);
}

void vmx_msr_bitmap_set(uint8_t *bitmap, uint32_t msr, bool read, bool write)
{
    msr_change(bitmap, msr, read, write, true);
}

void vmx_msr_bitmap_clear(uint8_t *bitmap, uint32_t msr, bool read, bool write)
{
    msr_change(bitmap, msr, read, write, false);
}
