/* SPDX-License-Identifier: BSD-2-Clause */
/* unit/bt_vec.h: random vector, mask and x87 code for test_bt.c, in the middle of which it is. */
#ifndef TESTS_UNIT_BT_VEC_H
#define TESTS_UNIT_BT_VEC_H

#include <Zydis/Zydis.h>

/* SSE2: moves, logic, integers. */
static void put_sse(struct code *c)
{
    static const uint8_t moves[] = {0x10, 0x11, 0x28, 0x29, 0x6f, 0x7f, 0x6e, 0x7e, 0xd6};
    static const uint8_t prefix[] = {0x66, 0x66, 0x66, 0xf3, 0xf2, 0};
    unsigned p = prefix[below(6)], op = 0x60 + below(0xa0), ext = 0;

    if (percent(40))
        op = moves[below(9)];
    else if (percent(20))
        op = 0x71 + below(3), ext = 2 + 2 * below(3), p = 0x66;
    else if (percent(20))
        op = 0x54 + below(4);
    if (op == 0xc7) /* RDRAND */
        op = 0xef;
    if (p)
        put8(c, p);
    rex(c);
    put8(c, 0x0f);
    put8(c, op);
    if (ext)
        put8(c, 0xc0 | ext << 3 | below(8));
    else if (op >= 0x71 && op <= 0x73)
        put8(c, 0xc0 | 6 << 3);
    else
        modrm(c, below(8), false);
    if (op == 0x70 || (op >= 0x71 && op <= 0x73) || op == 0xc6 || op == 0xc4 || op == 0xc5)
        put8(c, value());
}

static bool has_immediate(unsigned map, unsigned op)
{
    return map == 3 || (map == 1 && ((op >= 0x70 && op <= 0x73) || (op >= 0xc2 && op <= 0xc6)));
}

static void put_legacy(struct code *c)
{
    static const uint8_t prefix[] = {0, 0x66, 0xf2, 0xf3};
    unsigned map = 1 + below(3), p = prefix[below(map == 1 ? 4 : 2)], op = below(256);

    if (map == 1 && percent(60))
        op = percent(70) ? 0x50 + below(16) : 0x10 + below(8); /* floating point; moves */
    if (map == 1 && percent(15))
        op = 0xe6;
    if (p)
        put8(c, p);
    rex(c);
    put8(c, 0x0f);
    if (map == 2)
        put8(c, 0x38);
    if (map == 3)
        put8(c, 0x3a);
    put8(c, op);
    modrm(c, below(8), false);
    if (has_immediate(map, op))
        put8(c, value());
}

static void put_vex(struct code *c)
{
    unsigned map = 1 + below(3), op = below(256), extend = c->bits64 ? below(8) : 7;

    if (percent(30))
        map = 1, op = percent(60) ? 0x50 + below(16) : 0x6f + (below(2) << 4);
    if (percent(5)) {
        put8(c, 0xc5), put8(c, 0xf8 | below(2) << 2), put8(c, 0x77);
        return;
    }
    put8(c, 0xc4);
    put8(c, extend << 5 | map);
    put8(c, below(2) << 7 |
                (percent(30) ? 15
                 : c->bits64 ? below(16)
                             : 8 + below(8))
                    << 3 |
                below(2) << 2 | below(4));
    put8(c, op);
    modrm(c, below(8), false);
    if (has_immediate(map, op))
        put8(c, value());
}

static void put_evex(struct code *c)
{
    unsigned map = percent(75) ? 1 + below(3) : 5 + below(2), op = below(256);
    unsigned extend = c->bits64 ? below(16) : 15;
    unsigned high = percent(50) || !c->bits64, v = percent(30) ? 15 : below(16);

    if (percent(30))
        map = 1, op = percent(60) ? 0x50 + below(16) : 0x6f + (below(2) << 4);
    put8(c, 0x62);
    put8(c, extend << 4 | map);
    put8(c, below(2) << 7 | (c->bits64 ? v : v | 8) << 3 | 4 | below(4));
    put8(c, (percent(30) ? 0x80u : 0) | below(4) << 5 | (percent(25) ? 0x10u : 0) | high << 3 |
                (percent(40) ? 0 : below(8)));
    put8(c, op);
    modrm(c, below(8), false);
    if (has_immediate(map, op))
        put8(c, value());
}

static void put_x87(struct code *c)
{
    put8(c, 0xd8 | below(8));
    modrm(c, below(8), false);
}

/* A write of MXCSR, sometimes with exceptions that are not masked. */
static void put_mxcsr(struct code *c)
{
    uint32_t v = 0x1f80 | (below(4) << 13) | (percent(20) ? 0x8040 & rnd() : 0);

    if (percent(25))
        v &= (uint32_t)rnd() | ~0x1f80u;
    put8(c, 0x68), put32(c, v);
    put8(c, 0x0f), put8(c, 0xae), put8(c, 0x14), put8(c, 0x24);
    put8(c, 0x5a);
}

/* CLTS, or CR0.TS changes. */
static void put_ts(struct code *c)
{
    if (percent(70)) {
        put8(c, 0x0f), put8(c, 0x06);
        return;
    }
    put8(c, 0x0f), put8(c, 0x20), put8(c, 0xc0);
    put8(c, 0x83), put8(c, 0xf0), put8(c, 8);
    put8(c, 0x0f), put8(c, 0x22), put8(c, 0xc0);
}

static void put_state(struct code *c)
{
    static const uint8_t ext[] = {0, 1, 3, 3, 4, 5, 6};

    switch (below(4)) {
    case 0:
        put_mxcsr(c);
        break;
    case 1:
        put_ts(c);
        break;
    default:
        rex(c);
        put8(c, 0x0f);
        if (percent(20)) {
            put8(c, 0xc7);
            modrm(c, 3 + below(3), true);
        } else {
            put8(c, 0xae);
            modrm(c, ext[below(sizeof(ext))], true);
        }
    }
}

static bool valid(const struct code *c, unsigned start)
{
    ZydisDecoder z;
    ZydisDecodedInstruction insn;

    if (c->bits64)
        ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else
        ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    return ZYAN_SUCCESS(
               ZydisDecoderDecodeInstruction(&z, NULL, c->bytes + start, c->len - start, &insn)) &&
           insn.length == c->len - start && insn.mnemonic != ZYDIS_MNEMONIC_RDRAND &&
           insn.mnemonic != ZYDIS_MNEMONIC_RDSEED;
}

/* Mostly such code as there is. */
static void put_vector(struct code *c)
{
    unsigned start = c->len, kind = below(100);

    if (kind < 3) {
        put_state(c);
        return;
    }
    for (unsigned i = 0; i < 40; i++) {
        c->len = start;
        if (kind < 10)
            put_x87(c);
        else if (kind < 25)
            put_sse(c);
        else if (kind < 45)
            put_legacy(c);
        else if (kind < 70)
            put_vex(c);
        else
            put_evex(c);
        if (valid(c, start))
            return;
    }
}

#endif
