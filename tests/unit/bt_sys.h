/* SPDX-License-Identifier: BSD-2-Clause */
/* bt_sys.h: random system instructions for test_bt.c. */
#ifndef BT_SYS_H
#define BT_SYS_H

/* What kernels execute: flags, bases, control registers, fences, system calls and returns. */
static void put_system(struct code *c)
{
    static const char *const ops[] = {
        "\xfa",                 /* CLI */
        "\xfb",                 /* STI */
        "\x9c",                 /* PUSHF */
        "\x9c\x9d",             /* PUSHF, POPF */
        "\x9d",                 /* POPF */
        "\xfc",                 /* CLD */
        "\x9f",                 /* LAHF */
        "\x9e",                 /* SAHF */
        "\xf3\x90",             /* PAUSE */
        "\x0f\x01\xca",         /* CLAC */
        "\x0f\x01\xcb",         /* STAC */
        "\x0f\x01\xcb",         /* STAC */
        "\x0f\x01\xf8",         /* SWAPGS */
        "\x0f\xae\xe8",         /* LFENCE */
        "\x0f\xae\xf0",         /* MFENCE */
        "\x0f\xae\xf8",         /* SFENCE */
        "\x31\xc9\x0f\x01\xee", /* XOR ECX, ECX; RDPKRU */
        "\x0f\x01\xee",         /* RDPKRU */
        "\x31\xc9\x0f\x01\xd0", /* XOR ECX, ECX; XGETBV */
        "\x0f\x05",             /* SYSCALL */
        "\x48\x0f\x07",         /* SYSRET */
        "\x0f\x34",             /* SYSENTER */
        "\x0f\x22\xd8",         /* MOV CR3, EAX */
        "\x0f\x01\x3f",         /* INVLPG [EDI] */
        "\x0f\x06",             /* CLTS */
    };
    unsigned r = below(8);

    switch (below(10)) {
    case 9: { /* addresses that may overlap, a count; REP MOVS or STOS */
        uint32_t to = address();
        unsigned op = percent(50) ? 0xa4u : 0xaau;

        put8(c, 0xbf), put32(c, to);
        put8(c, 0xbe), put32(c, percent(50) ? to - 40 + below(80) : address());
        put8(c, 0xb9), put32(c, percent(10) ? 0 : 1 + below(percent(80) ? 100 : 5000));
        if (percent(3))
            put8(c, 0xfd); /* STD */
        if (percent(10))
            put8(c, 0x66);
        put8(c, percent(95) ? 0xf3 : 0xf2);
        if (c->bits64 && percent(50))
            put8(c, 0x48);
        put8(c, op | below(2));
        put8(c, 0xfc); /* CLD */
        break;
    }
    case 8: { /* MOV reg, bit number; BT and its like, of memory */
        static const uint8_t bits[] = {0xa3, 0xab, 0xb3, 0xbb};

        put8(c, 0xb8 | (r = below(4)));
        put32(c, percent(50) ? below(300) : (uint32_t) - (int)below(300));
        if (percent(40))
            put8(c, 0xf0);
        if (percent(20))
            put8(c, 0x66);
        if (c->bits64 && percent(50))
            put8(c, 0x48);
        put8(c, 0x0f), put8(c, bits[below(4)]);
        modrm(c, r, true);
        break;
    }
    case 0: /* MOV r, CRn; CR3 and back */
        put8(c, 0x0f), put8(c, 0x20), put8(c, 0xc0 | (2 + below(3)) << 3 | r);
        break;
    case 1: /* RDFSBASE to WRGSBASE */
        put8(c, 0xf3);
        if (percent(70))
            put8(c, 0x48 | below(2));
        put8(c, 0x0f), put8(c, 0xae), put8(c, 0xc0 | below(4) << 3 | r);
        break;
    case 2: /* MOV r, segment register */
        if (percent(20))
            put8(c, 0x66);
        put8(c, 0x8c), put8(c, 0xc0 | below(6) << 3 | r);
        break;
    case 3: /* XOR EDX, EDX or CDQ; DIV or IDIV */
        put8(c, percent(50) ? 0x31 : 0x99);
        if (c->bytes[c->len - 1] == 0x31)
            put8(c, 0xd2);
        if (percent(30))
            put8(c, 0x66);
        if (c->bits64 && percent(50))
            put8(c, 0x48 | below(2));
        put8(c, percent(90) ? 0xf7 : 0xf6);
        modrm(c, 6 + below(2), false);
        break;
    case 4: /* TEST, ADD to CMP with AH to BH and a constant */
        if (percent(50))
            put8(c, 0xf6), put8(c, 0xc4 + below(4));
        else
            put8(c, 0x80), put8(c, 0xc4 + below(8) * 8 + below(4));
        put8(c, value());
        break;
    default: {
        const char *op = ops[below(sizeof(ops) / sizeof(ops[0]))];

        if (!strcmp(op, "\x0f\x22\xd8")) {
            put8(c, 0x0f), put8(c, 0x20), put8(c, 0xd8);
        }
        while (*op)
            put8(c, (uint8_t)*op++);
    }
    }
}

#endif
