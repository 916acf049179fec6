/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/move.c: plain moves (SDM Vol. 2A chapter 2, Vol. 2B MOV). */
#include "vmx/move.h"

struct reader {
    const uint8_t *p;
    unsigned at, n;
    bool short_of; /* bytes were missing */
};

static uint8_t next(struct reader *r)
{
    if (r->at >= r->n) {
        r->short_of = true;
        return 0;
    }
    return r->p[r->at++];
}

static uint64_t bytes(struct reader *r, unsigned n)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++)
        value |= (uint64_t)next(r) << 8 * i;
    return value;
}

struct prefixes {
    bool operand, address;
    uint8_t rex;
};

/* The opcode, behind all prefixes. */
static uint8_t prefixes(struct reader *r, enum vmx_code code, struct prefixes *p)
{
    for (;;) {
        uint8_t b = next(r);

        switch (b) {
        case 0x66:
            p->operand = true;
            break;
        case 0x67:
            p->address = true;
            break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
            break;
        default:
            if (code != VMX_CODE64 || (b & 0xf0) != 0x40)
                return b;
            p->rex = b; /* only the last one counts, and only directly before the opcode */
            b = next(r);
            if ((b & 0xf0) == 0x40 || b == 0x66 || b == 0x67 || b == 0x64 || b == 0x65 ||
                (b & 0xe7) == 0x26)
                return 0xf1; /* strange: not one of ours */
            return b;
        }
        if (r->short_of)
            return 0xf1;
    }
}

/* Goes behind ModRM, SIB and displacement of a memory operand; false: it is a register. */
static bool modrm(struct reader *r, unsigned address_bytes, uint8_t *byte)
{
    uint8_t m = next(r), mod = m >> 6, rm = m & 7;
    unsigned disp = mod == 1 ? 1 : 0;

    *byte = m;
    if (mod == 3)
        return false;
    if (address_bytes == 2) {
        if (mod == 2 || (mod == 0 && rm == 6))
            disp = 2;
    } else {
        if (rm == 4) {
            uint8_t sib = next(r);

            rm = sib & 7;
        }
        if (mod == 2 || (mod == 0 && rm == 5))
            disp = 4;
    }
    bytes(r, disp);
    return true;
}

static unsigned address_bytes(enum vmx_code code, const struct prefixes *p)
{
    if (code == VMX_CODE64)
        return p->address ? 4 : 8;
    return (code == VMX_CODE32) != p->address ? 4 : 2;
}

static unsigned operand_bytes(enum vmx_code code, const struct prefixes *p)
{
    if (code == VMX_CODE64 && (p->rex & 8))
        return 8;
    return (code != VMX_CODE16) != p->operand ? 4 : 2;
}

/* The register field; bytes without REX have AH to BH. */
static void set_reg(struct vmx_move *m, uint8_t modrm_byte, const struct prefixes *p, bool byte_reg)
{
    m->reg = (uint8_t)((modrm_byte >> 3 & 7) | (p->rex & 4) << 1);
    if (byte_reg && !p->rex && m->reg >= 4) {
        m->reg -= 4;
        m->high = true;
    }
}

static bool two_bytes(struct reader *r, enum vmx_code code, const struct prefixes *p,
                      struct vmx_move *m)
{
    uint8_t op = next(r), byte;

    if (op != 0xb6 && op != 0xb7 && op != 0xbe && op != 0xbf)
        return false;
    m->size = op & 1 ? 2 : 1;
    m->to = (uint8_t)operand_bytes(code, p);
    m->sign = op >= 0xbe;
    if (!modrm(r, address_bytes(code, p), &byte))
        return false;
    set_reg(m, byte, p, false);
    return true;
}

static bool immediate(struct reader *r, enum vmx_code code, const struct prefixes *p,
                      struct vmx_move *m)
{
    unsigned n = m->size > 4 ? 4 : m->size;
    uint8_t byte;

    if (!modrm(r, address_bytes(code, p), &byte) || (byte >> 3 & 7))
        return false;
    m->write = m->immediate = true;
    m->value = bytes(r, n);
    if (m->size == 8)
        m->value = (uint64_t)(int32_t)m->value;
    return true;
}

static bool one_byte(struct reader *r, uint8_t op, enum vmx_code code, const struct prefixes *p,
                     struct vmx_move *m)
{
    uint8_t byte;

    m->size = m->to = (uint8_t)(op & 1 ? operand_bytes(code, p) : 1);
    switch (op) {
    case 0x63: /* MOVSXD */
        if (code != VMX_CODE64 || !(p->rex & 8))
            return false;
        m->size = 4;
        m->to = 8;
        m->sign = true;
        break;
    case 0x88:
    case 0x89:
        m->write = true;
        break;
    case 0x8a:
    case 0x8b:
        break;
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa3:
        m->write = op & 2;
        bytes(r, address_bytes(code, p));
        return true; /* register 0 */
    case 0xc6:
    case 0xc7:
        return immediate(r, code, p, m);
    default:
        return false;
    }
    if (!modrm(r, address_bytes(code, p), &byte))
        return false;
    set_reg(m, byte, p, m->to == 1);
    return true;
}

bool vmx_decode_move(const uint8_t *insn, unsigned n, enum vmx_code code, struct vmx_move *m)
{
    struct reader r = {insn, 0, n > 15 ? 15 : n, false};
    struct prefixes p = {false, false, 0};
    uint8_t op = prefixes(&r, code, &p);
    bool ok;

    *m = (struct vmx_move){0};
    if (r.short_of)
        return false;
    ok = op == 0x0f ? two_bytes(&r, code, &p, m) : one_byte(&r, op, code, &p, m);
    m->len = (uint8_t)r.at;
    return ok && !r.short_of;
}
