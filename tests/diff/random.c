/* SPDX-License-Identifier: BSD-2-Clause */
/* random.c: random numbers (xorshift64*) and the random state that a case begins with. */
#include <string.h>

#include "gen.h"

uint64_t diff_rnd(uint64_t *rng)
{
    *rng ^= *rng >> 12;
    *rng ^= *rng << 25;
    *rng ^= *rng >> 27;
    return *rng * 0x2545f4914f6cdd1d;
}

unsigned diff_below(uint64_t *rng, unsigned n)
{
    return (unsigned)((diff_rnd(rng) >> 32) % n);
}

bool diff_percent(uint64_t *rng, unsigned p)
{
    return diff_below(rng, 100) < p;
}

/* Integers as programs have them, and corner cases. */
uint64_t diff_interesting(uint64_t *rng)
{
    static const uint64_t corner[] = {0,
                                      1,
                                      2,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      0xffffffffffffffff,
                                      0xffffffff80000000};

    switch (diff_below(rng, 5)) {
    case 0:
        return corner[diff_below(rng, sizeof(corner) / sizeof(corner[0]))];
    case 1:
        return diff_below(rng, 256);
    case 2:
        return (uint64_t) - (int64_t)diff_below(rng, 70000);
    case 3:
        return diff_rnd(rng) >> diff_below(rng, 64);
    default:
        return diff_rnd(rng);
    }
}

static double interesting_double(uint64_t *rng)
{
    switch (diff_below(rng, 4)) {
    case 0:
        return (double)(int64_t)diff_interesting(rng);
    case 1:
        return (double)(int)diff_below(rng, 2000) / 8 - 100;
    case 2:
        return 1.0 / (1 + diff_below(rng, 1000));
    default: {
        static const uint64_t special[] = {0,
                                           0x8000000000000000,
                                           0x7ff0000000000000,
                                           0xfff0000000000000,
                                           0x7ff8000000000000,
                                           0x7ff0000000000001,
                                           1,
                                           0x000fffffffffffff,
                                           0x7fefffffffffffff,
                                           0x3ff0000000000000,
                                           0x4059000000000001};
        double d;

        memcpy(&d, &special[diff_below(rng, sizeof(special) / sizeof(special[0]))], 8);
        return d;
    }
    }
}
static void fill(uint64_t *rng, uint8_t *p, unsigned len)
{
    unsigned style = diff_below(rng, 7);

    for (unsigned i = 0; i < len; i += 8) {
        uint64_t v;
        double d;
        float f[2];

        switch (style) {
        case 0:
        case 1:
            v = diff_rnd(rng);
            break;
        case 2: /* small doublewords: indexes */
            v = diff_below(rng, 2048) | (uint64_t)diff_below(rng, 2048) << 32;
            break;
        case 3:
            v = diff_below(rng, 2048);
            break;
        case 4:
            d = interesting_double(rng);
            memcpy(&v, &d, 8);
            break;
        case 5:
            f[0] = (float)interesting_double(rng);
            f[1] = (float)interesting_double(rng);
            memcpy(&v, f, 8);
            break;
        default:
            v = diff_interesting(rng);
        }
        memcpy(p + i, &v, 8);
    }
}

static void fill_x87(uint64_t *rng, uint8_t *st)
{
    long double ld;

    if (diff_percent(rng, 70)) {
        ld = interesting_double(rng);
        memcpy(st, &ld, 10);
    } else {
        uint64_t m = diff_rnd(rng);
        uint16_t e = (uint16_t)(diff_percent(rng, 50) ? diff_rnd(rng) : 0x3fff);

        if (diff_percent(rng, 80))
            m |= 1ull << 63;
        memcpy(st, &m, 8);
        memcpy(st + 8, &e, 2);
    }
}

void diff_init_state(struct diff_case *c, uint64_t *rng, const struct diff_features *has)
{
    struct diff_state *s = &c->init;

    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < (c->code32 ? 8 : 16); i++) {
        s->gpr[i] = diff_interesting(rng);
        if (diff_percent(rng, 25))
            s->gpr[i] = DIFF_DATA + diff_below(rng, DIFF_DATA_SIZE);
        if (c->code32)
            s->gpr[i] = (uint32_t)s->gpr[i];
    }
    s->gpr[4] = DIFF_DATA + 0x2000 + (diff_below(rng, 0x1000) & ~7u);
    s->rflags = 0x202 | (diff_rnd(rng) & 0x8d5);
    if (diff_percent(rng, 10))
        s->rflags |= 0x400;
    if (diff_percent(rng, 2))
        s->rflags |= 0x40000;
    if (!c->code32) {
        s->fs_base = diff_percent(rng, 70) ? 0 : DIFF_DATA;
        s->gs_base = diff_percent(rng, 70) ? 0 : diff_below(rng, 256);
    }
    s->vec.fcw = 0x37f;
    if (diff_percent(rng, 20))
        s->vec.fcw = (uint16_t)((diff_rnd(rng) & 0xf3f) | 0x40);
    s->vec.fsw = (uint16_t)(diff_rnd(rng) & 0x7f00);
    s->vec.ftw = (uint8_t)(diff_percent(rng, 50) ? 0xff : diff_rnd(rng));
    s->vec.mxcsr = 0x1f80;
    if (diff_percent(rng, 20))
        s->vec.mxcsr = diff_rnd(rng) & 0xffc0;
    if (diff_percent(rng, 10))
        s->vec.mxcsr |= diff_rnd(rng) & 0x3f;
    for (unsigned i = 0; i < 8; i++) {
        fill_x87(rng, s->vec.st[i]);
        if (has->avx512)
            s->vec.k[i] = diff_percent(rng, 30) ? ~0ull : diff_rnd(rng);
    }
    for (unsigned i = 0; i < (has->avx512 ? 32 : 16); i++)
        fill(rng, s->vec.zmm[i], has->avx512 ? 64 : has->avx ? 32 : 16);
    for (unsigned i = 0; i < DIFF_DATA_SIZE; i += 64)
        fill(rng, s->data + i, 64);
}
