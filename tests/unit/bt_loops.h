/* SPDX-License-Identifier: BSD-2-Clause */
/* bt_loops.h: random loops for test_bt.c: pointers that move on or stay, page ends, stores into
 * code, pages that are mapped elsewhere in between. */
#ifndef BT_LOOPS_H
#define BT_LOOPS_H

enum { LOOP_BX = 3, LOOP_BP = 5, LOOP_SI = 6, LOOP_DI = 7 };

static void put_move(struct code *c, unsigned reg)
{
    if (c->bits64)
        put8(c, 0x48);
    if (percent(10)) {
        put8(c, 0x81), put8(c, (percent(70) ? 0xc0u : 0xe8u) | reg);
        put32(c, percent(70) ? 0x100u << below(4) : below(0x1100));
        return;
    }
    put8(c, 0x83), put8(c, (percent(70) ? 0xc0u : 0xe8u) | reg); /* ADD, SUB */
    put8(c, percent(70) ? 4u << below(5) : below(128));
}

/* The operand of what was written last: an absolute address, or one off RIP; some cross the end of
 * a page. */
static void put_fixed_operand(struct code *c, unsigned to)
{
    uint32_t linear =
        FAKE_DATA + below(4) * 0x1000 + (percent(90) ? below(64) * 4 : 0xff0 + below(16));

    if (!c->bits64) {
        put8(c, 0x05 | to << 3);
    } else if (percent(50)) {
        put8(c, 0x05 | to << 3);
        linear -= FAKE_TEXT + c->len + 4;
    } else {
        put8(c, 0x04 | to << 3), put8(c, 0x25);
    }
    put32(c, linear);
}

/* An access off a pointer, or an index, or to a place that no register decides. */
static void put_loop_access(struct code *c, unsigned reg)
{
    static const uint8_t ops[] = {0x8b, 0x8b, 0x8b, 0x03, 0x3b, 0x89, 0x01, 0x31, 0x88, 0x8a};
    unsigned to = below(2) * 2; /* EAX, EDX */

    if (percent(15)) {
        put8(c, 0xf3), put8(c, 0x0f), put8(c, percent(70) ? 0x6f : 0x7f); /* MOVDQU */
        to = below(4);
    } else if (percent(8)) {
        put8(c, 0x66), put8(c, 0x0f), put8(c, percent(70) ? 0x6f : 0x7f); /* MOVDQA */
        to = below(4);
    } else if (percent(8)) { /* FADD, FLD, FST, FSTP, FILD, FIST, FISTP of 2 to 10 bytes */
        put8(c, 0xd8 + below(8));
        to = below(percent(80) ? 4 : 8);
    } else {
        put8(c, ops[below(sizeof(ops))]);
    }
    if (percent(20)) {
        put_fixed_operand(c, to);
        return;
    }
    if (percent(15)) {
        put8(c, 0x44 | to << 3), put8(c, below(3) << 6 | LOOP_BX << 3 | reg);
        put8(c, below(16) * 4);
        return;
    }
    put8(c, 0x40 | to << 3 | reg);
    put8(c, percent(80) ? below(8) * 8 : below(256));
}

/* Maps a page of data elsewhere and flushes, at CPL 0 only: MOV EAX, CR3; MOV [entry], value; MOV
 * CR3, EAX or INVLPG. */
static void put_data_remapping(struct code *c)
{
    uint32_t linear = FAKE_DATA + below(10) * 0x1000;

    put8(c, 0x0f), put8(c, 0x20), put8(c, 0xd8);
    put8(c, 0xc7), put8(c, 0x04), put8(c, 0x25);
    put32(c, c->bits64 ? FAKE_PT + (linear >> 12) * 8 : FAKE_PT32 + (linear >> 12) * 4);
    put32(c, (FAKE_DATA + below(10) * 0x1000) | (percent(80) ? 7 : 5));
    if (percent(50)) {
        put8(c, 0x0f), put8(c, 0x22), put8(c, 0xd8);
    } else {
        put8(c, 0x0f), put8(c, 0x01), put8(c, 0x3c), put8(c, 0x25);
        put32(c, linear);
    }
}

static void put_loop_item(struct code *c)
{
    static const uint8_t pointers[] = {LOOP_BP, LOOP_SI, LOOP_DI, LOOP_SI};
    unsigned reg = pointers[below(4)], site;

    switch (below(12)) {
    case 0:
    case 1: /* past an access: CMP EAX, n, or UCOMISD; Jcc */
        if (percent(25)) {
            put8(c, 0x66), put8(c, 0x0f), put8(c, 0x2e), put8(c, 0xc0 | below(4) << 3 | below(4));
        } else {
            put8(c, 0x83), put8(c, 0xf8), put8(c, below(64));
        }
        put8(c, 0x70 | below(16));
        site = c->len;
        put8(c, 0);
        put_loop_access(c, reg);
        if (percent(50))
            put_move(c, reg);
        c->bytes[site] = (uint8_t)(c->len - site - 1);
        break;
    case 2:
    case 3:
        put_move(c, reg);
        break;
    case 4: /* the index: AND EBX, 63 */
        put8(c, 0x83), put8(c, 0xe3), put8(c, 63);
        break;
    case 5:
        if (percent(80))
            put_loop_access(c, reg);
        else
            put_data_remapping(c);
        break;
    case 6: /* PUSH RCX; MOV ECX, n; REP MOVSB or STOSB; POP RCX */
        if (percent(20)) {
            put8(c, 0x51), put8(c, 0xb9), put32(c, below(40));
            put8(c, 0xf3), put8(c, percent(50) ? 0xa4 : 0xaa), put8(c, 0x59);
            break;
        }
        /* fallthrough */
    default:
        put_loop_access(c, reg);
    }
}

/* A loop, perhaps with another one inside: MOV ECX, n; 1: ...; DEC ECX; JNZ 1b */
static void put_loop_of(struct code *c, unsigned counter, bool nested)
{
    unsigned head, items = 1 + below(5), leaves = 0;
    int32_t back;

    put8(c, 0xb8 | counter);
    put32(c, 1 + below(nested ? 12 : 40));
    head = c->len;
    for (unsigned i = 0; i < items; i++)
        put_loop_item(c);
    if (nested)
        put_loop_of(c, LOOP_BX, false);
    if (percent(40)) { /* the last block has no access: CMP EAX, n; Jcc out of the loop */
        put8(c, 0x83), put8(c, 0xf8), put8(c, below(64));
        put8(c, 0x0f), put8(c, percent(80) ? 0x84 : 0x80 | below(16));
        leaves = c->len;
        put32(c, 0);
        if (percent(50))
            put_move(c, LOOP_DI);
    }
    put_move(c, LOOP_SI);
    put8(c, 0xff), put8(c, 0xc8 | counter); /* DEC */
    put8(c, 0x0f), put8(c, 0x85);
    back = (int32_t)head - (int32_t)(c->len + 4);
    put32(c, (uint32_t)back);
    if (leaves) {
        uint32_t out = c->len - leaves - 4;

        memcpy(c->bytes + leaves, &out, 4);
    }
}

static void put_loop(struct code *c)
{
    static const uint8_t pointers[] = {LOOP_BP, LOOP_SI, LOOP_DI};

    for (unsigned i = 0; i < 3; i++)
        if (percent(80)) {
            put8(c, 0xb8 | pointers[i]);
            put32(c, address() & (percent(50) ? ~15u : ~0u));
        }
    put_loop_of(c, 1, percent(40));
}

#endif
