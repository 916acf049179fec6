/* SPDX-License-Identifier: BSD-2-Clause */
/* gen.c: random cases. Instructions are random bytes that decode to something user mode may execute
 * and whose result only depends on the state that both sides share. MOVs in front of each make its
 * memory operands mostly hit the data. */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gen.h"

struct gen {
    struct diff_case *c;
    uint64_t rng;
    ZydisDecoder decoder;
    bool mode32;
    unsigned unit;
    uint32_t undefined[DIFF_MAX_UNITS + 2]; /* flags that may be undefined before each unit */
    struct {
        unsigned at;   /* offset of a 4-byte displacement or immediate */
        unsigned unit; /* whose offset it gets */
        bool relative;
    } fixup[DIFF_MAX_UNITS];
    unsigned nfixups;
};

static struct diff_features has;

void diff_gen_init(bool has_avx, bool has_avx512)
{
    unsigned eax, ebx, ecx, edx;

    has.avx = has_avx;
    has.avx512 = has_avx512;
    __cpuid_count(7, 0, eax, ebx, ecx, edx);
    has.fp16 = edx >> 23 & 1;
    __cpuid_count(7, 1, eax, ebx, ecx, edx);
    has.bf16 = eax >> 5 & 1;
}

/* ---- bytes ---- */

static void random_bytes(struct gen *g, uint8_t *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(diff_rnd(&g->rng) >> 24);
}

/* Something with the look of an instruction, 15 bytes. */
static void guess(struct gen *g, uint8_t *p)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x66, 0xf2, 0xf3, 0xf3, 0x67, 0x64, 0x65, 0xf0};
    unsigned n = 0, form = diff_below(&g->rng, 100);

    random_bytes(g, p, 15);
    if (form < 18 && has.avx) {
        if (diff_percent(&g->rng, 30)) {
            p[0] = 0xc5;
        } else {
            p[0] = 0xc4;
            p[1] = (uint8_t)((p[1] & 0xe0) | (1 + diff_below(&g->rng, 3)));
        }
        if (g->mode32)
            p[1] |= 0xc0;
        return;
    }
    if (form < 33 && has.avx512) {
        p[0] = 0x62;
        p[1] = (uint8_t)((p[1] & 0xf0) |
                         (has.fp16 && diff_percent(&g->rng, 25) ? 5 + diff_below(&g->rng, 2)
                                                                : 1 + diff_below(&g->rng, 3)));
        p[2] |= 0x04;
        if (g->mode32)
            p[1] |= 0xc0;
        return;
    }
    while (diff_percent(&g->rng, 25) && n < 3)
        p[n++] = prefixes[diff_below(&g->rng, sizeof(prefixes))];
    if (!g->mode32 && diff_percent(&g->rng, 45))
        p[n++] = (uint8_t)(0x40 | diff_below(&g->rng, 16));
    if (form < 60)
        return;
    p[n++] = 0x0f;
    if (form < 85)
        return;
    p[n++] = diff_percent(&g->rng, 60) ? 0x38 : 0x3a;
}

/* ---- operands ---- */

static int gpr_of(ZydisRegister reg)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(reg);

    if (c != ZYDIS_REGCLASS_GPR64 && c != ZYDIS_REGCLASS_GPR32)
        return -1;
    return ZydisRegisterGetId(reg);
}

static void emit(struct gen *g, const void *bytes, unsigned n)
{
    memcpy(g->c->code + g->c->len, bytes, n);
    g->c->len += n;
}

static void emit_mov(struct gen *g, unsigned reg, uint64_t value)
{
    uint8_t b[10];

    if (g->mode32) {
        b[0] = (uint8_t)(0xb8 | reg);
        memcpy(b + 1, &value, 4);
        emit(g, b, 5);
    } else {
        b[0] = (uint8_t)(0x48 | reg >> 3);
        b[1] = (uint8_t)(0xb8 | (reg & 7));
        memcpy(b + 2, &value, 8);
        emit(g, b, 10);
    }
}

/* An address for an operand of `bits`. */
static uint64_t target(struct gen *g, unsigned bits)
{
    unsigned size = bits / 8 ? bits / 8 : 1;
    unsigned luck = diff_below(&g->rng, 200);
    uint64_t a;

    if (luck == 0)
        return diff_rnd(&g->rng);
    if (luck < 4)
        return DIFF_DATA + DIFF_DATA_SIZE - diff_below(&g->rng, 80);
    if (luck < 6)
        return DIFF_DATA - diff_below(&g->rng, 80);
    a = DIFF_DATA + 256 + diff_below(&g->rng, DIFF_DATA_SIZE - 1024);
    if (diff_percent(&g->rng, 75))
        a &= ~(uint64_t)((size & (size - 1)) == 0 ? size - 1 : 15);
    return a;
}

/* MOVs for one memory operand; false if it had better be another instruction. */
static bool aim(struct gen *g, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op,
                uint8_t *bytes, uint32_t *set)
{
    const ZydisDecodedOperandMem *m = &op->mem;
    uint64_t a = target(g, op->size), disp = (uint64_t)m->disp.value, index_value = 0;
    int base = gpr_of(m->base), index = gpr_of(m->index);
    bool vsib =
        m->index != ZYDIS_REGISTER_NONE && ZydisRegisterGetClass(m->index) >= ZYDIS_REGCLASS_XMM;

    if (!g->mode32 && m->segment == ZYDIS_REGISTER_FS)
        a -= g->c->init.fs_base;
    if (!g->mode32 && m->segment == ZYDIS_REGISTER_GS)
        a -= g->c->init.gs_base;
    if (g->mode32 && (m->segment == ZYDIS_REGISTER_FS || m->segment == ZYDIS_REGISTER_GS))
        return diff_percent(&g->rng, 5); /* null: faults */
    if (g->mode32 && m->segment == ZYDIS_REGISTER_CS && diff_percent(&g->rng, 90))
        return false;
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP) {
        uint64_t next = DIFF_CODE + g->c->len + in->length;
        uint32_t rel = (uint32_t)(a - next);

        memcpy(bytes + in->raw.disp.offset, &rel, 4);
        return true;
    }
    if (in->address_width == 16)
        return diff_percent(&g->rng, 5);
    if (base < 0) {
        if (index >= 0 && !vsib)
            return diff_percent(&g->rng, 10);
        if (vsib)
            return diff_percent(&g->rng, 10);
        if (in->raw.disp.size == 32 && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN) {
            uint32_t d = (uint32_t)a;

            memcpy(bytes + in->raw.disp.offset, &d, 4);
        } else if (in->raw.disp.size == 64) {
            memcpy(bytes + in->raw.disp.offset, &a, 8);
        }
        return true;
    }
    if (base == index && !vsib)
        return diff_percent(&g->rng, 5);
    if (*set & 1u << base)
        return true;
    if (index >= 0 && !vsib) {
        index_value =
            diff_percent(&g->rng, 80) ? diff_below(&g->rng, 512) : diff_interesting(&g->rng);
        if (!(*set & 1u << index))
            emit_mov(g, (unsigned)index, index_value);
        *set |= 1u << index;
    }
    emit_mov(g, (unsigned)base, a - disp - index_value * m->scale);
    *set |= 1u << base;
    return true;
}

/* Setting-up that is not about addresses. */
static void set_up_values(struct gen *g, const ZydisDecodedInstruction *in,
                          const ZydisDecodedOperand *ops, uint32_t *set)
{
    if (in->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) {
        emit_mov(g, 1, diff_below(&g->rng, 40));
        *set |= 2;
    }
    switch (in->mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            unsigned reg = (unsigned)ZydisRegisterGetId(ops[1].reg.value);

            if (reg != 4) {
                emit_mov(g, reg, (uint64_t)((int64_t)diff_below(&g->rng, 4000) - 2000));
                *set |= 1u << reg;
            }
        }
        break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (diff_percent(&g->rng, 80)) {
            emit_mov(g, 2, diff_percent(&g->rng, 70) ? 0 : diff_below(&g->rng, 16));
            *set |= 4;
        }
        break;
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
        emit_mov(g, in->mnemonic == ZYDIS_MNEMONIC_XLAT ? 3 : 5,
                 DIFF_DATA + 0x2000 + diff_below(&g->rng, 0x800));
        *set |= in->mnemonic == ZYDIS_MNEMONIC_XLAT ? 8 : 32;
        break;
    default:
        break;
    }
}

/* ---- branches: forward, to the beginning of a unit ---- */

static void branch_to(struct gen *g, unsigned at, bool relative, uint32_t undefined)
{
    unsigned unit = g->unit + 1 + diff_below(&g->rng, 4);

    g->fixup[g->nfixups].at = at;
    g->fixup[g->nfixups].unit = unit;
    g->fixup[g->nfixups++].relative = relative;
    for (unsigned i = g->unit + 1; i <= unit && i <= DIFF_MAX_UNITS; i++)
        g->undefined[i] |= undefined;
}

/* One of the branches whose targets can be placed; the undefined flags stay as they are. */
static void gen_branch(struct gen *g)
{
    uint32_t undefined = g->undefined[g->unit];
    uint8_t b[16] = {0};
    unsigned reg;

    switch (diff_below(&g->rng, 8)) {
    case 0: /* jmp rel32 */
        emit(g, "\xe9\0\0\0\0", 5);
        branch_to(g, g->c->len - 4, true, undefined);
        break;
    case 1: /* call rel32 */
        emit(g, "\xe8\0\0\0\0", 5);
        branch_to(g, g->c->len - 4, true, undefined);
        break;
    case 2: /* push imm32; ret */
        emit(g, "\x68\0\0\0\0\xc3", 6);
        branch_to(g, g->c->len - 5, false, undefined);
        break;
    case 3: /* push imm32; ret imm16 */
        emit(g, "\x68\0\0\0\0\xc2\x10\0", 8);
        branch_to(g, g->c->len - 7, false, undefined);
        break;
    case 4: /* mov imm32, reg; jmp or call reg */
        reg = diff_below(&g->rng, 8);
        if (reg == 4)
            reg = 0;
        b[0] = (uint8_t)(0xb8 | reg);
        b[5] = 0xff;
        b[6] = (uint8_t)((diff_percent(&g->rng, 50) ? 0xe0 : 0xd0) | reg);
        emit(g, b, 7);
        branch_to(g, g->c->len - 6, false, undefined);
        break;
    default: /* jcc rel32 whose condition is not undefined */
        for (unsigned tries = 0; tries < 20; tries++) {
            static const uint16_t tests[8] = {0x800, 1, 0x40, 0x41, 0x80, 4, 0x880, 0x8c0};
            unsigned cond = diff_below(&g->rng, 16);

            if (tests[cond >> 1] & undefined)
                continue;
            b[0] = 0x0f;
            b[1] = (uint8_t)(0x80 | cond);
            emit(g, b, 6);
            branch_to(g, g->c->len - 4, true, undefined);
            return;
        }
        emit(g, "\x90", 1);
    }
    g->undefined[g->unit + 1] |= undefined;
}

static bool is_branch(const ZydisDecodedInstruction *in)
{
    return in->meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
           in->meta.category == ZYDIS_CATEGORY_CALL ||
           in->meta.category == ZYDIS_CATEGORY_UNCOND_BR ||
           in->meta.category == ZYDIS_CATEGORY_COND_BR;
}

/* ---- one unit ---- */

static bool writes_segment(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < in->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            (ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    return false;
}

static bool try_insn(struct gen *g)
{
    ZydisDecodedInstruction in;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[15];
    struct diff_unit *u = &g->c->units[g->unit];
    unsigned start = g->c->len;
    uint32_t set = 0, undefined = g->undefined[g->unit];
    bool loose = false;

    guess(g, bytes);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->decoder, bytes, 15, &in, ops)))
        return false;
    if (!diff_insn_allowed(&in, &has) || is_branch(&in) || writes_segment(&in, ops))
        return false;
    if ((in.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || in.meta.category == ZYDIS_CATEGORY_SYSTEM ||
         in.meta.category == ZYDIS_CATEGORY_IO || in.meta.category == ZYDIS_CATEGORY_IOSTRINGOP) &&
        !diff_percent(&g->rng, 2))
        return false;
    if (in.cpu_flags != NULL && in.cpu_flags->tested & undefined)
        return false;

    loose = diff_fault_is_loose(in.mnemonic);
    set_up_values(g, &in, ops, &set);
    for (unsigned i = 0; i < in.operand_count; i++) {
        if (ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY || ops[i].mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            loose = true;
        if (!aim(g, &in, &ops[i], bytes, &set)) {
            g->c->len = start;
            return false;
        }
    }
    /* RIP-relative displacements were made for the instruction at this place. */
    u->off = (uint16_t)start;
    u->insn = (uint16_t)g->c->len;
    emit(g, bytes, in.length);
    u->len = (uint16_t)(g->c->len - start);
    u->loose = loose;
    if (in.cpu_flags != NULL) {
        undefined &= ~(in.cpu_flags->modified | in.cpu_flags->set_0 | in.cpu_flags->set_1);
        undefined |= in.cpu_flags->undefined;
        /* A count of 0 leaves the flags alone. */
        if (in.meta.category == ZYDIS_CATEGORY_SHIFT || in.meta.category == ZYDIS_CATEGORY_ROTATE ||
            in.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
            undefined |= g->undefined[g->unit];
    }
    g->undefined[g->unit + 1] |= undefined;
    return true;
}

static void resolve(struct gen *g)
{
    struct diff_case *c = g->c;

    for (unsigned i = 0; i < g->nfixups; i++) {
        unsigned unit = g->fixup[i].unit > c->nunits ? c->nunits : g->fixup[i].unit;
        uint32_t value = c->units[unit].off;

        if (g->fixup[i].relative)
            value -= g->fixup[i].at + 4;
        else
            value += DIFF_CODE;
        memcpy(c->code + g->fixup[i].at, &value, 4);
    }
}

void diff_gen(struct diff_case *c, uint64_t seed, unsigned insns, bool code32)
{
    struct gen g = {.c = c, .mode32 = code32};

    g.rng = seed * 0x9e3779b97f4a7c15 + (code32 ? 0x1234567 : 0);
    if (g.rng == 0)
        g.rng = 1;
    for (unsigned i = 0; i < 4; i++)
        diff_rnd(&g.rng);
    ZydisDecoderInit(&g.decoder,
                     code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32 : ZYDIS_MACHINE_MODE_LONG_64,
                     code32 ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_64);
    memset(c, 0, sizeof(*c));
    c->code32 = code32;
    diff_init_state(c, &g.rng, &has);
    for (g.unit = 0; g.unit < insns; g.unit++) {
        struct diff_unit *u = &c->units[g.unit];

        if (insns > 1 && diff_percent(&g.rng, 10)) {
            u->off = u->insn = (uint16_t)c->len;
            gen_branch(&g);
            u->len = (uint16_t)(c->len - u->off);
        } else {
            while (!try_insn(&g))
                continue;
        }
        u->undefined = g.undefined[g.unit];
    }
    c->nunits = insns;
    c->units[insns].off = c->units[insns].insn = (uint16_t)c->len;
    c->units[insns].len = 1;
    c->units[insns].undefined = g.undefined[insns];
    resolve(&g);
    emit(&g, "\xcc", 1);
}

void diff_print_code(const struct diff_case *c)
{
    ZydisDisassembledInstruction in;

    for (unsigned off = 0; off < c->len;) {
        if (c->code[off] == 0x90) {
            off++;
            continue;
        }
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(c->code32 ? ZYDIS_MACHINE_MODE_LONG_COMPAT_32
                                                          : ZYDIS_MACHINE_MODE_LONG_64,
                                                DIFF_CODE + off, c->code + off, c->len - off, &in)))
            return;
        printf("  %08x  ", DIFF_CODE + off);
        for (unsigned i = 0; i < 12; i++)
            if (i < in.info.length)
                printf("%02x ", c->code[off + i]);
            else
                printf("   ");
        printf(" %s\n", in.text);
        off += in.info.length;
    }
}
