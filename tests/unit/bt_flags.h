/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/unit/bt_flags.h: random code whose flags outlive what they come from; part of test_bt.c. */

/* An instruction with two registers in ModRM, of 32 or 64 bits. */
static void put_registers(struct code *c, unsigned op, unsigned reg, unsigned rm)
{
    if (c->bits64)
        put8(c, 0x40 | (percent(50) ? 8u : 0) | (reg >> 3) << 2 | rm >> 3);
    put8(c, op);
    put8(c, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static unsigned any_register(const struct code *c)
{
    unsigned r = below(c->bits64 ? 16 : 8);

    return r == VMM_RSP ? VMM_RSI : r;
}

/* Sets the flags from `a` and perhaps `b`. */
static void put_setter(struct code *c, unsigned a, unsigned b)
{
    static const uint8_t shifts[] = {4, 5, 7};
    unsigned op;

    switch (below(6)) {
    case 0: /* a shift by a constant, or by 1 */
        op = percent(70) ? 0xc1 : 0xd1;
        put_registers(c, op, shifts[below(3)], a);
        if (op == 0xc1)
            put8(c, below(40));
        break;
    case 1: /* by CL, or another that keeps some */
        put_registers(c, 0xd3, below(8) & 5, a);
        break;
    case 2: /* NOT, NEG */
        put_registers(c, 0xf7, 2 + below(2), a);
        break;
    case 3: /* ALU, immediate */
        put_registers(c, 0x83, below(8), a);
        put8(c, value());
        break;
    case 4: /* TEST */
        put_registers(c, 0x85, b, a);
        break;
    default:
        put_registers(c, below(8) << 3 | (percent(50) ? 1u : 3u), b, a);
        break;
    }
}

/* Changes a register, without flags. */
static void put_change(struct code *c, unsigned r)
{
    switch (below(3)) {
    case 0:
        put_registers(c, 0x8b, r, any_register(c));
        break;
    case 1: /* SHLX to itself would need BMI2: LEA */
        if (c->bits64)
            put8(c, 0x48 | (r >> 3) << 2 | r >> 3);
        put8(c, 0x8d);
        put8(c, 0x40 | (r & 7) << 3 | ((r & 7) == VMM_RSP ? 4u : r & 7));
        if ((r & 7) == VMM_RSP)
            put8(c, 0x24);
        put8(c, below(64));
        break;
    default:
        if (r >= 8)
            put8(c, 0x41);
        put8(c, 0xb8 | (r & 7));
        put32(c, value());
        break;
    }
}

/* Sets the flags from XMM0 to XMM3 or masks: UCOMISS to COMISD, PTEST, KORTESTW. */
static void put_vector_setter(struct code *c)
{
    switch (below(3)) {
    case 0:
        if (percent(50))
            put8(c, 0x66);
        put8(c, 0x0f), put8(c, 0x2e + below(2));
        break;
    case 1:
        put8(c, 0x66), put8(c, 0x0f), put8(c, 0x38), put8(c, 0x17);
        break;
    default:
        put8(c, 0xc5), put8(c, 0xf8), put8(c, 0x98);
        break;
    }
    put8(c, 0xc0 | below(4) << 3 | below(4));
}

/* Changes one of these, or a general register from one: PADDQ, VPADDQ, KXNORW, MOVMSKPD, VZEROALL.
 */
static void put_vector_change(struct code *c)
{
    switch (below(5)) {
    case 0:
        put8(c, 0x66), put8(c, 0x0f), put8(c, 0xd4);
        break;
    case 1:
        put8(c, 0xc5), put8(c, 0xf9 - below(4) * 8), put8(c, 0xd4);
        break;
    case 2:
        put8(c, 0xc5), put8(c, 0xfc - below(4) * 8), put8(c, 0x46);
        break;
    case 3:
        put8(c, 0x66), put8(c, 0x0f), put8(c, 0x50);
        break;
    default:
        put8(c, 0xc5), put8(c, 0xfc), put8(c, 0x77);
        return;
    }
    put8(c, 0xc0 | below(4) << 3 | below(4));
}

static void put_vector_flags(struct code *c)
{
    put_vector_setter(c);
    if (percent(60))
        put_vector_change(c);
    if (percent(60)) {
        put8(c, percent(50) ? 0x8b : 0x03);
        modrm(c, below(8) & 3, true);
    }
    if (percent(30))
        put_vector_change(c);
}

/* The flags are set, what they were set from changes, and accesses may fault and show them. */
static void put_flags(struct code *c)
{
    unsigned a = any_register(c), b = any_register(c);

    if (percent(20)) {
        put_vector_flags(c);
    } else {
        put_setter(c, a, b);
        if (percent(80))
            put_change(c, percent(50) ? a : b);
        if (percent(40))
            put_change(c, percent(50) ? a : b);
    }
    if (percent(70)) {
        put8(c, percent(50) ? 0x8b : 0x03);
        modrm(c, below(8) & 3, true);
    }
    if (percent(30)) {
        put8(c, 0x0f); /* SETcc, CMOVcc */
        put8(c, (percent(50) ? 0x90u : 0x40u) | below(16));
        put8(c, 0xc0 | (below(8) & 3) << 3 | (below(8) & 3));
    }
}
