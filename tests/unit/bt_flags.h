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

/* The flags are set, what they were set from changes, and accesses may fault and show them. */
static void put_flags(struct code *c)
{
    unsigned a = any_register(c), b = any_register(c);

    put_setter(c, a, b);
    if (percent(80))
        put_change(c, percent(50) ? a : b);
    if (percent(40))
        put_change(c, percent(50) ? a : b);
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
