/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/decode_memo.c: what Zydis has said about instructions, to be said again. */
#include <string.h>

#include "core/os.h"
#include "core/x86/decode.h"

/*
 * Code consists of the same few thousand instructions again and again, but for displacements and
 * immediates. So what Zydis says about an instruction is kept under its "shape": prefixes, opcode,
 * ModRM and SIB. For the next instruction of that shape the displacement and the immediate are
 * taken from its bytes.
 *
 * Nothing here has to know all of the encodings: what is entered has been decoded, and each byte of
 * it either belongs to the shape or to a displacement or an immediate whose value is seen to be
 * nothing but those bytes. Whatever is not like that is left to Zydis each time.
 */

#define MEMO_BITS 12
#define MAX_BYTES 15 /* of an instruction */

struct entry {
    /* 0: empty. No instruction is a shape of zeros: ADD [RAX], AL is 0000H, 16 bits */
    _Alignas(64) uint64_t shape;
    bool code64;
    uint8_t len;                    /* of the instruction */
    uint8_t disp, disp_size;        /* where it is; bytes, 0: there is none */
    uint8_t imm, imm_size;          /* likewise */
    uint16_t disp_opnds, imm_opnds; /* the operands that have its value */
    uint8_t disp_shift;             /* EVEX: of the value */
    bool imm_signed;
    struct x86_dec d;
};

struct x86_memo {
    struct entry entry[1u << MEMO_BITS];
};

/* ---- shapes ---- */

/* What a first byte is. Errors make the table slow, not wrong. */
enum kind { PLAIN, MODRM, PREFIX, REX, MAP_0F, EVEX, VEX3, VEX2 };

#define ALU_ROW(last)                                                                              \
    MODRM, MODRM, MODRM, MODRM, PLAIN, PLAIN, PLAIN, PLAIN, MODRM, MODRM, MODRM, MODRM, PLAIN,     \
        PLAIN, PLAIN, last
#define ALU_PREFIX_ROW                                                                             \
    MODRM, MODRM, MODRM, MODRM, PLAIN, PLAIN, PREFIX, PLAIN, MODRM, MODRM, MODRM, MODRM, PLAIN,    \
        PLAIN, PREFIX, PLAIN
#define ROW_OF(kind)                                                                               \
    kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind, kind
#define ROW_6                                                                                      \
    PLAIN, PLAIN, EVEX, MODRM, PREFIX, PREFIX, PREFIX, PLAIN, PLAIN, MODRM, PLAIN, MODRM, PLAIN,   \
        PLAIN, PLAIN, PLAIN
#define ROW_C                                                                                      \
    MODRM, MODRM, PLAIN, PLAIN, VEX3, VEX2, MODRM, MODRM, PLAIN, PLAIN, PLAIN, PLAIN, PLAIN,       \
        PLAIN, PLAIN, PLAIN
#define ROW_D                                                                                      \
    MODRM, MODRM, MODRM, MODRM, PLAIN, PLAIN, PLAIN, PLAIN, MODRM, MODRM, MODRM, MODRM, MODRM,     \
        MODRM, MODRM, MODRM
#define ROW_F                                                                                      \
    PREFIX, PLAIN, PREFIX, PREFIX, PLAIN, PLAIN, MODRM, MODRM, PLAIN, PLAIN, PLAIN, PLAIN, PLAIN,  \
        PLAIN, MODRM, MODRM

static const uint8_t kinds[256] = {ALU_ROW(MAP_0F), ALU_ROW(PLAIN), ALU_PREFIX_ROW, ALU_PREFIX_ROW,
                                   ROW_OF(REX),     ROW_OF(PLAIN),  ROW_6,          ROW_OF(PLAIN),
                                   ROW_OF(MODRM),   ROW_OF(PLAIN),  ROW_OF(PLAIN),  ROW_OF(PLAIN),
                                   ROW_C,           ROW_D,          ROW_OF(PLAIN),  ROW_F};

/* Bit n of a row: opcode 0F, row * 16 + n has a ModRM byte. */
static const uint16_t modrm_0f[16] = {0x200f, 0xffff, 0xffff, 0x0000, 0xffff, 0xffff,
                                      0xffff, 0xff7f, 0,      0xffff, 0xb838, 0xfffd,
                                      0x00ff, 0xffff, 0xffff, 0xffff};

/* The bytes up to the ModRM byte, which *modrm says whether it is there. 0: not known. */
static unsigned opcode_bytes(const uint8_t *p, bool code64, bool *modrm)
{
    unsigned i = 0, kind = kinds[p[0]];

    while (kind == PREFIX && i < 3)
        kind = kinds[p[++i]];
    if (kind == REX && code64)
        kind = kinds[p[++i]];
    *modrm = true;
    switch (kind) {
    case MODRM:
        return i + 1;
    case MAP_0F:
        if ((p[i + 1] & 0xfd) == 0x38)
            return i + 3;
        *modrm = modrm_0f[p[i + 1] >> 4] >> (p[i + 1] & 15) & 1;
        return i + 2;
    case EVEX:
        return code64 ? i + 5 : 0;
    case VEX3:
        return code64 ? i + 4 : 0;
    case VEX2:
        *modrm = p[i + 2] != 0x77;
        return code64 ? i + 3 : 0;
    default:
        *modrm = false;
        return i + 1;
    }
}

/* Of the bytes at `p`, MAX_BYTES at least; *n gets how many bytes it has. 0: none that is kept. */
static uint64_t find_shape(const uint8_t *p, bool code64, unsigned *n)
{
    uint64_t bytes;
    bool modrm;

    *n = opcode_bytes(p, code64, &modrm);
    if (!*n)
        return 0;
    if (modrm) {
        unsigned m = p[*n];

        *n += 1 + ((m & 7) == 4 && m < 0xc0);
    }
    if (*n > 8)
        return 0;
    memcpy(&bytes, p, 8);
    bytes &= ~(uint64_t)0 >> (64 - 8 * *n);
    /* Zeros behind could be part of it, or not: but what is in front of them tells which. */
    return bytes ? bytes : ~(uint64_t)0;
}

static struct entry *entry_of(struct x86_memo *memo, uint64_t shape)
{
    return &memo->entry[shape * 0x9e3779b97f4a7c15ull >> (64 - MEMO_BITS)];
}

/* ---- values ---- */

static void put_values(struct entry *e, const uint8_t *code)
{
    struct x86_dec *d = &e->d;

    if (e->disp_size) {
        int64_t value = (int64_t)x86_dec_value(code + e->disp, e->disp_size, true);

        d->insn.raw.disp.value = value;
        value = (int64_t)((uint64_t)value << e->disp_shift);
        for (unsigned set = e->disp_opnds; set; set &= set - 1)
            d->opnd[__builtin_ctz(set)].mem.disp.value = value;
    }
    if (e->imm_size) {
        uint64_t value = x86_dec_value(code + e->imm, e->imm_size, e->imm_signed);

        d->insn.raw.imm[0].value.u = value;
        for (unsigned set = e->imm_opnds; set; set &= set - 1)
            d->opnd[__builtin_ctz(set)].imm.value.u = value;
    }
}

uint64_t x86_memo_shape(uint32_t mode, const uint8_t *code, unsigned avail)
{
    unsigned n;

    if (avail < MAX_BYTES || !(mode & X86_MODE_CODE))
        return 0;
    return find_shape(code, (mode & X86_MODE_CODE) == X86_MODE_CODE64, &n);
}

struct x86_dec *x86_memo_find(struct x86_memo *memo, uint32_t mode, const uint8_t *code,
                              unsigned avail)
{
    bool code64 = (mode & X86_MODE_CODE) == X86_MODE_CODE64;
    struct entry *e;
    uint64_t shape;
    unsigned n;

    if (!memo || avail < MAX_BYTES || !(mode & X86_MODE_CODE))
        return NULL;
    shape = find_shape(code, code64, &n);
    if (!shape)
        return NULL;
    e = entry_of(memo, shape);
    if (e->shape != shape || e->code64 != code64)
        return NULL;
    put_values(e, code);
    return &e->d;
}

/* ---- entering ---- */

/* Which operands have the displacement; false: not all of them are understood. */
static bool find_disp(struct entry *e, const struct x86_dec *d)
{
    const uint8_t *p = d->code + d->insn.raw.disp.offset;
    int64_t value = d->insn.raw.disp.value;

    e->disp = d->insn.raw.disp.offset;
    e->disp_size = d->insn.raw.disp.size / 8;
    e->disp_opnds = e->disp_shift = 0;
    if (!e->disp_size)
        return true;
    if (e->disp_size > 4 || value != (int64_t)x86_dec_value(p, e->disp_size, true))
        return false;
    /* Those of EVEX are multiplied by what does not show if they are 0. */
    if (d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && e->disp_size == 1 && !value)
        return false;
    for (unsigned i = 0; i < d->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->opnd[i];
        unsigned shift = 0;

        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !o->mem.disp.has_displacement)
            continue;
        while (shift < 6 && o->mem.disp.value != (int64_t)((uint64_t)value << shift))
            shift++;
        if (shift == 6 && o->mem.disp.value != (int64_t)((uint64_t)value << shift))
            return false;
        if (e->disp_opnds && e->disp_shift != shift)
            return false;
        e->disp_shift = (uint8_t)shift;
        e->disp_opnds |= (uint16_t)(1u << i);
    }
    return true;
}

static bool find_imm(struct entry *e, const struct x86_dec *d)
{
    const uint8_t *p = d->code + d->insn.raw.imm[0].offset;

    e->imm = d->insn.raw.imm[0].offset;
    e->imm_size = d->insn.raw.imm[0].size / 8;
    e->imm_signed = d->insn.raw.imm[0].is_signed;
    e->imm_opnds = 0;
    if (!e->imm_size)
        return true;
    if (d->insn.raw.imm[1].size ||
        d->insn.raw.imm[0].value.u != x86_dec_value(p, e->imm_size, e->imm_signed))
        return false;
    for (unsigned i = 0; i < d->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &d->opnd[i];

        if (o->encoding == ZYDIS_OPERAND_ENCODING_IS4 || o->type == ZYDIS_OPERAND_TYPE_POINTER)
            return false; /* it is, or has, something else */
        if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            continue;
        if (o->imm.value.u != d->insn.raw.imm[0].value.u)
            return false;
        e->imm_opnds |= (uint16_t)(1u << i);
    }
    return true;
}

/* Whether all bytes behind the `n` of the shape are displacement or immediate. */
static bool covers(const struct entry *e, unsigned n)
{
    unsigned end = e->len, values = (unsigned)e->disp_size + e->imm_size;

    if (end <= n)
        return true;
    return end - n <= values && (!e->disp_size || e->disp >= n) && (!e->imm_size || e->imm >= n);
}

bool x86_memo_enter(struct x86_memo *memo, const struct x86_dec *d, unsigned avail)
{
    bool code64 = (d->mode & X86_MODE_CODE) == X86_MODE_CODE64;
    struct entry *e, new;
    uint64_t shape;
    unsigned n;

    if (!memo || avail < MAX_BYTES || !(d->mode & X86_MODE_CODE) ||
        d->insn.address_width != (code64 ? 64 : 32))
        return false;
    shape = find_shape(d->code, code64, &n);
    new.len = d->insn.length;
    if (!shape || !find_disp(&new, d) || !find_imm(&new, d) || !covers(&new, n))
        return false;
    e = entry_of(memo, shape);
    memcpy(e, &new, offsetof(struct entry, d));
    e->shape = shape;
    e->code64 = code64;
    e->d.alien = d->alien;
    e->d.shaped = true;
    e->d.insn = d->insn;
    memcpy(e->d.opnd, d->opnd, sizeof(e->d.opnd)); /* others matter as being none */
    return true;
}

struct x86_memo *x86_memo_create(void)
{
    return os_pages_alloc(sizeof(struct x86_memo));
}

void x86_memo_destroy(struct x86_memo *memo)
{
    if (memo)
        os_pages_free(memo, sizeof(*memo));
}
