/* SPDX-License-Identifier: BSD-2-Clause */
/* random_insn.h: bytes that begin as instructions do. */
#ifndef RANDOM_INSN_H
#define RANDOM_INSN_H

#include <stdbool.h>
#include <stdint.h>

static uint64_t seed;

/* Below n. */
static uint32_t number(uint32_t n)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % n;
}

static void random_bytes(uint8_t *p, unsigned n)
{
    while (n--)
        *p++ = (uint8_t)(number(4) ? number(256) : number(2) * 255);
}

/* Behind legacy prefixes: those of VEX and EVEX, to the map, one time in `vector` each. False: REX
 * at most, and the opcode is to come, at *i. */
static bool random_vector(uint8_t *p, unsigned *i, bool code64, unsigned vector)
{
    switch (number(vector)) {
    case 0:
        p[(*i)++] = 0xc5;
        return true;
    case 1:
        p[(*i)++] = 0xc4;
        p[*i] = (uint8_t)((p[*i] & 0xe0) | (1 + number(3)));
        return true;
    case 2:
        p[(*i)++] = 0x62;
        p[*i] = (uint8_t)((p[*i] & 0xf0) | (number(4) ? 1 + number(3) : 5 + number(2)));
        p[*i + 1] |= 4;
        return true;
    default:
        break;
    }
    if (code64 && number(2))
        p[(*i)++] = (uint8_t)(0x40 + number(16));
    return false;
}

#endif
