/* SPDX-License-Identifier: BSD-2-Clause */
/* vec.c: vector state from and to an XSAVE area in standard form (SDM Vol. 1 13.4). */
#include <string.h>

#include "diff.h"

enum { XC_X87, XC_SSE, XC_AVX, XC_OPMASK = 5, XC_ZMM_HI, XC_HI16 };

static void put(uint8_t *area, size_t at, const void *from, size_t len)
{
    memcpy(area + at, from, len);
}

void diff_vec_to_area(const struct diff_vec *vec, void *area, const struct diff_layout *layout)
{
    uint8_t *a = area;
    uint64_t bv;

    put(a, 0, &vec->fcw, 2);
    put(a, 2, &vec->fsw, 2);
    put(a, 4, &vec->ftw, 1);
    memset(a + 5, 0, 19); /* FOP, FIP, FDP */
    put(a, 24, &vec->mxcsr, 4);
    memcpy(a + 32, vec->st, sizeof(vec->st));
    for (unsigned i = 0; i < 16; i++)
        memcpy(a + 160 + 16 * i, vec->zmm[i], 16);
    if (layout->offset[XC_AVX])
        for (unsigned i = 0; i < 16; i++)
            memcpy(a + layout->offset[XC_AVX] + 16 * i, vec->zmm[i] + 16, 16);
    if (layout->offset[XC_OPMASK]) {
        memcpy(a + layout->offset[XC_OPMASK], vec->k, sizeof(vec->k));
        for (unsigned i = 0; i < 16; i++)
            memcpy(a + layout->offset[XC_ZMM_HI] + 32 * i, vec->zmm[i] + 32, 32);
        memcpy(a + layout->offset[XC_HI16], vec->zmm[16], 16 * 64);
    }
    memcpy(&bv, a + 512, 8);
    bv |= layout->mask & 0xe7;
    memcpy(a + 512, &bv, 8);
}

void diff_vec_from_area(struct diff_vec *vec, const void *area, const struct diff_layout *layout)
{
    const uint8_t *a = area;
    uint64_t bv;

    memset(vec, 0, sizeof(*vec));
    memcpy(&bv, a + 512, 8);
    vec->fcw = 0x37f;
    memcpy(&vec->mxcsr, a + 24, 4);
    if (bv & 1 << XC_X87) {
        memcpy(&vec->fcw, a, 2);
        memcpy(&vec->fsw, a + 2, 2);
        memcpy(&vec->ftw, a + 4, 1);
        for (unsigned i = 0; i < 8; i++)
            memcpy(vec->st[i], a + 32 + 16 * i, 10);
    }
    if (bv & 1 << XC_SSE)
        for (unsigned i = 0; i < 16; i++)
            memcpy(vec->zmm[i], a + 160 + 16 * i, 16);
    if (bv & 1 << XC_AVX)
        for (unsigned i = 0; i < 16; i++)
            memcpy(vec->zmm[i] + 16, a + layout->offset[XC_AVX] + 16 * i, 16);
    if (bv & 1 << XC_OPMASK)
        memcpy(vec->k, a + layout->offset[XC_OPMASK], sizeof(vec->k));
    if (bv & 1 << XC_ZMM_HI)
        for (unsigned i = 0; i < 16; i++)
            memcpy(vec->zmm[i] + 32, a + layout->offset[XC_ZMM_HI] + 32 * i, 32);
    if (bv & 1 << XC_HI16)
        memcpy(vec->zmm[16], a + layout->offset[XC_HI16], 16 * 64);
}
