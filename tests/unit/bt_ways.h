/* SPDX-License-Identifier: BSD-2-Clause */
/* bt_ways.h: random ways through code for test_bt.c: returns, recursion, pages of code that are
 * mapped twice and elsewhere. */
#ifndef BT_WAYS_H
#define BT_WAYS_H

#include "core/x86/control.h"

#define ALIAS (FAKE_TEXT + 0x8000u) /* the code's pages for a second time */

static uint32_t code_address(void)
{
    return (percent(70) ? FAKE_TEXT : ALIAS) + below(percent(50) ? CODE_SIZE / 8 : CODE_SIZE);
}

/* Where a page of code is mapped by now, mostly: a page table entry and its new value. */
static void remapping(bool bits64, uint32_t *linear, uint32_t *entry, uint32_t *value)
{
    *linear = (percent(30) ? FAKE_TEXT : ALIAS) + below(CODE_SIZE >> 12) * 0x1000;
    *entry = bits64 ? FAKE_PT + (*linear >> 12) * 8 : FAKE_PT32 + (*linear >> 12) * 4;
    *value = percent(95) ? (FAKE_TEXT + below(CODE_SIZE >> 12) * 0x1000) | 7 : 0;
}

static void put_remapping(struct code *c)
{
    uint32_t linear, entry, value;

    remapping(c->bits64, &linear, &entry, &value);
    put8(c, 0xc7), put8(c, 0x04), put8(c, 0x25); /* MOV [entry], value */
    put32(c, entry);
    put32(c, value);
    switch (below(3)) {
    case 0: /* INVLPG [linear] */
        put8(c, 0x0f), put8(c, 0x01), put8(c, 0x3c), put8(c, 0x25);
        put32(c, linear);
        break;
    case 1: /* MOV EAX, CR3; MOV CR3, EAX */
        put8(c, 0x0f), put8(c, 0x20), put8(c, 0xd8);
        put8(c, 0x0f), put8(c, 0x22), put8(c, 0xd8);
        break;
    default:
        break;
    }
}

/* A function that calls itself. */
static void put_recursion(struct code *c)
{
    put8(c, 0xb9); /* MOV ECX, n; CALL 1f; JMP 2f; 1: DEC ECX; JZ 3f; CALL 1b; 3: RET; 2: */
    put32(c, 1 + below(60));
    put8(c, 0xe8);
    put32(c, 2);
    put8(c, 0xeb), put8(c, 10);
    put8(c, 0xff), put8(c, 0xc9);
    put8(c, 0x74), put8(c, 5);
    put8(c, 0xe8);
    put32(c, (uint32_t)-9);
    put8(c, 0xc3);
}

static void put_body(struct code *c)
{
    for (unsigned n = below(4); n; n--)
        switch (below(4)) {
        case 0:
            put_load(c);
            break;
        case 1:
            put_one_byte(c);
            break;
        default:
            put_alu(c);
        }
}

static void put_call(struct code *c)
{
    unsigned at = c->func[below(c->nfunc)];

    put8(c, 0xe8);
    put32(c, at - (c->len + 4));
}

/* A function, which may call others, and change where it returns to. */
static void put_function(struct code *c)
{
    uint32_t over, skip;

    put8(c, 0xe9); /* JMP over */
    over = c->len;
    put32(c, 0);
    if (c->nfunc < sizeof(c->func) / sizeof(c->func[0])) {
        unsigned at = c->len;

        put_body(c);
        if (c->nfunc && percent(50)) {
            put_call(c);
            put_body(c);
        }
        if (percent(40)) { /* TEST DL, 3; JNZ 1f; ADD [xSP], n; 1: */
            put8(c, 0xf6), put8(c, 0xc2), put8(c, 3);
            put8(c, 0x75), put8(c, 4);
            put8(c, 0x83), put8(c, 0x04), put8(c, 0x24), put8(c, below(8));
        }
        if (percent(80))
            put8(c, 0xc3);
        else
            put8(c, 0xc2), put8(c, 8 * below(2)), put8(c, 0);
        c->func[c->nfunc++] = at;
    }
    skip = c->len - (over + 4);
    memcpy(c->bytes + over, &skip, 4);
}

/* A loop that calls functions wherever they are. */
static void put_calls(struct code *c)
{
    unsigned loop;

    if (!c->nfunc || percent(40))
        put_function(c);
    put8(c, 0xba); /* MOV EDX, n */
    put32(c, 1 + below(40));
    loop = c->len;
    for (unsigned n = 1 + below(3); n; n--) {
        put_call(c);
        if (percent(50))
            put_body(c);
    }
    put8(c, 0xff), put8(c, 0xca); /* DEC EDX; JNZ loop */
    put8(c, 0x0f), put8(c, 0x85);
    put32(c, loop - (c->len + 4));
}

static void put_way(struct code *c)
{
    switch (below(8)) {
    case 5:
    case 6:
    case 7:
        put_calls(c);
        break;
    case 0: /* PUSH address; RET */
        put8(c, 0x68);
        put32(c, code_address());
        put8(c, 0xc3);
        break;
    case 1: /* ADD [xSP], n; RET */
        put8(c, 0x83), put8(c, 0x04), put8(c, 0x24), put8(c, below(24));
        put8(c, 0xc3);
        break;
    case 2: /* MOV EAX, address; JMP or CALL EAX */
        put8(c, 0xb8);
        put32(c, code_address());
        put8(c, 0xff), put8(c, percent(50) ? 0xe0 : 0xd0);
        break;
    case 3:
        put_recursion(c);
        break;
    default:
        put_remapping(c);
    }
}

/* Between two pieces: as another CPU, or the kernel, does it. */
static void remap(const struct pair *p, bool bits64)
{
    uint32_t linear, entry, value;
    unsigned flush = below(5);

    remapping(bits64, &linear, &entry, &value);
    BOTH(p, f)
    {
        fake_put(f, entry, 4, value);
        if (flush == 0)
            x86_flush_tlb(f->cpu);
        else if (flush == 1)
            x86_flush_tlb_nonglobal(f->cpu);
        else if (flush < 4)
            x86_flush_tlb_page(f->cpu, linear);
    }
}

#endif
