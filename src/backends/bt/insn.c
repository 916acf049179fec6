/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/insn.c: instructions that are copied with other operands. */
#include "backends/bt/gen.h"

/* How an instruction uses the arithmetic flags. Those that leave some as they are, or all for a
 * count of 0, need them in the host before; handlers treat them in the same way. */
enum use {
    NOT,     /* not */
    SETS,    /* sets all */
    CARRIES, /* sets all, with CF as an input or left alone */
    READS,   /* condition codes */
    CHANGES  /* sets some */
};

enum need { NOTHING, POPCNT, LZCNT, BMI1, BMI2, MOVBE, ADX, CRC32 };

struct row {
    bool known;
    uint8_t use, need;
};

#define ROW(mnemonic, use, need) [ZYDIS_MNEMONIC_##mnemonic] = {true, use, need}
#define CONDITIONS(insn, use)                                                                      \
    ROW(insn##O, use, NOTHING), ROW(insn##NO, use, NOTHING), ROW(insn##B, use, NOTHING),           \
        ROW(insn##NB, use, NOTHING), ROW(insn##Z, use, NOTHING), ROW(insn##NZ, use, NOTHING),      \
        ROW(insn##BE, use, NOTHING), ROW(insn##NBE, use, NOTHING), ROW(insn##S, use, NOTHING),     \
        ROW(insn##NS, use, NOTHING), ROW(insn##P, use, NOTHING), ROW(insn##NP, use, NOTHING),      \
        ROW(insn##L, use, NOTHING), ROW(insn##NL, use, NOTHING), ROW(insn##LE, use, NOTHING),      \
        ROW(insn##NLE, use, NOTHING)

/* Instructions with ModRM, all of whose operands are there, or CL, or an immediate. */
static const struct row rows[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    ROW(MOV, NOT, NOTHING),     ROW(MOVZX, NOT, NOTHING),    ROW(MOVSX, NOT, NOTHING),
    ROW(MOVSXD, NOT, NOTHING),  ROW(NOT, NOT, NOTHING),      ROW(XCHG, NOT, NOTHING),
    ROW(MOVBE, NOT, MOVBE),     ROW(ADD, SETS, NOTHING),     ROW(OR, SETS, NOTHING),
    ROW(AND, SETS, NOTHING),    ROW(SUB, SETS, NOTHING),     ROW(XOR, SETS, NOTHING),
    ROW(CMP, SETS, NOTHING),    ROW(TEST, SETS, NOTHING),    ROW(NEG, SETS, NOTHING),
    ROW(IMUL, SETS, NOTHING),   ROW(XADD, SETS, NOTHING),    ROW(ADC, CARRIES, NOTHING),
    ROW(SBB, CARRIES, NOTHING), ROW(INC, CARRIES, NOTHING),  ROW(DEC, CARRIES, NOTHING),
    ROW(SHL, CHANGES, NOTHING), ROW(SHR, CHANGES, NOTHING),  ROW(SAR, CHANGES, NOTHING),
    ROW(ROL, CHANGES, NOTHING), ROW(ROR, CHANGES, NOTHING),  ROW(RCL, CHANGES, NOTHING),
    ROW(RCR, CHANGES, NOTHING), ROW(SHLD, CHANGES, NOTHING), ROW(SHRD, CHANGES, NOTHING),
    ROW(BT, CHANGES, NOTHING),  ROW(BTS, CHANGES, NOTHING),  ROW(BTR, CHANGES, NOTHING),
    ROW(BTC, CHANGES, NOTHING), ROW(BSF, CHANGES, NOTHING),  ROW(BSR, CHANGES, NOTHING),
    ROW(TZCNT, SETS, BMI1),     ROW(LZCNT, SETS, LZCNT),     ROW(ANDN, SETS, BMI1),
    ROW(BLSR, SETS, BMI1),      ROW(BLSI, SETS, BMI1),       ROW(BLSMSK, SETS, BMI1),
    ROW(BZHI, SETS, BMI2),      ROW(BEXTR, SETS, BMI1),      ROW(POPCNT, SETS, POPCNT),
    ROW(RORX, NOT, BMI2),       ROW(SARX, NOT, BMI2),        ROW(SHLX, NOT, BMI2),
    ROW(SHRX, NOT, BMI2),       ROW(PDEP, NOT, BMI2),        ROW(PEXT, NOT, BMI2),
    ROW(ADCX, CHANGES, ADX),    ROW(ADOX, CHANGES, ADX),     ROW(CRC32, NOT, CRC32),
    CONDITIONS(CMOV, READS),    CONDITIONS(SET, READS),
};

static bool host_has(const struct gen *g, unsigned need)
{
    const struct bt_features *f = &g->bt->host;

    switch (need) {
    case POPCNT:
        return f->popcnt;
    case LZCNT: /* to a CPU without them these two are BSR and BSF */
        return f->lzcnt && (g->cpu->feat.x1_ecx & 1u << 5);
    case BMI1:
        return f->bmi1 && (g->cpu->feat.l7_ebx & 1u << 3);
    case BMI2:
        return f->bmi2;
    case MOVBE:
        return f->movbe;
    case ADX:
        return f->adx;
    case CRC32:
        return f->crc32;
    default:
        return true;
    }
}

/* ---- copies ---- */

enum field { IN_REG, IN_RM, IN_VVVV };

struct operand {
    uint8_t field;
    uint8_t slot;
    uint8_t size;
    bool read, write;
};

/* An instruction as it is to be written, with the guest's registers. */
struct copy {
    struct em_op op;
    unsigned ext; /* without a register operand in the field `reg` */
    struct operand r[3];
    unsigned nr;
    bool mem, store; /* the operand rm is memory, and written */
    unsigned size;   /* of it */
    bool no_split;   /* it is locked */
    bool count;      /* CL is an operand */
    uint8_t use;
    const uint8_t *imm;
    unsigned nimm;
};

static unsigned reg_size(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        return 1;
    case ZYDIS_REGCLASS_GPR16:
        return 2;
    case ZYDIS_REGCLASS_GPR32:
        return 4;
    case ZYDIS_REGCLASS_GPR64:
        return 8;
    default:
        return 0;
    }
}

bool gen_reg_slot(ZydisRegister reg, uint8_t *slot)
{
    unsigned id = (unsigned)ZydisRegisterGetId(reg), size = reg_size(reg);

    if (!size || (size == 1 && id >= 4 && id < 8))
        return false;
    *slot = (uint8_t)(size == 1 && id >= 8 ? id - 4 : id);
    return true;
}

static bool reg_operand(struct copy *c, const ZydisDecodedOperand *o)
{
    struct operand *r = &c->r[c->nr];

    if (!gen_reg_slot(o->reg.value, &r->slot))
        return false;
    r->size = (uint8_t)reg_size(o->reg.value);
    r->read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    r->write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    if (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
        r->read = true;
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        r->field = IN_REG;
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        r->field = IN_RM;
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        r->field = IN_VVVV;
        break;
    case ZYDIS_OPERAND_ENCODING_NONE:
        c->count = true;
        return o->reg.value == ZYDIS_REGISTER_CL;
    default:
        return false;
    }
    c->nr++;
    return true;
}

static void opcode(const struct gen *g, struct copy *c)
{
    const ZydisDecodedInstruction *in = &g->insn;

    c->op.op = in->opcode;
    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        c->op.vex = true;
        c->op.map = in->raw.vex.m_mmmm;
        c->op.wide = in->raw.vex.W && g->is64; /* else ignored */
        c->op.pp = in->raw.vex.pp;
        c->op.vex_l = in->raw.vex.L;
        return;
    }
    c->op.map = in->opcode_map == ZYDIS_OPCODE_MAP_0F     ? 1
                : in->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2
                : in->opcode_map == ZYDIS_OPCODE_MAP_0F3A ? 3
                                                          : 0;
    c->op.wide = in->raw.rex.W;
    c->op.lock = in->attributes & ZYDIS_ATTRIB_HAS_LOCK;
    for (unsigned i = 0; i < in->raw.prefix_count; i++) {
        uint8_t p = in->raw.prefixes[i].value;

        if (p == 0x66)
            c->op.half = true;
        else if ((p == 0xf2 || p == 0xf3) &&
                 in->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            c->op.rep = p;
    }
}

static void immediate(const struct gen *g, struct copy *c)
{
    c->imm = g->bytes + g->insn.raw.imm[0].offset;
    c->nimm = g->insn.raw.imm[0].size / 8;
}

/* The operands as they are; false: there is one that cannot be copied. */
static bool operands(const struct gen *g, struct copy *c)
{
    for (unsigned i = 0; i < g->insn.operand_count_visible; i++) {
        const ZydisDecodedOperand *o = &g->opnd[i];

        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!reg_operand(c, o))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
                return false;
            c->mem = true;
            c->size = o->size / 8;
            c->store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            if (o->encoding != ZYDIS_OPERAND_ENCODING_NONE)
                immediate(g, c);
            break;
        default:
            return false;
        }
    }
    return true;
}

/* ---- writing a copy ---- */

/* The host registers of the operands. */
struct placement {
    uint8_t reg[3];
    struct em_rm mem;
};

static bool resident(const struct gen *g, const struct operand *r)
{
    return gen_host(g, r->slot) == H_NONE;
}

/* A register that stays in x86_cpu can be the operand where it is. */
static bool in_place(const struct gen *g, const struct copy *c, unsigned i)
{
    const struct operand *r = &c->r[i];

    if (r->field != IN_RM || c->mem || (r->read && r->write) || (r->write && r->size == 4))
        return false;
    for (unsigned k = 0; k < c->nr; k++)
        if (k != i && c->r[k].slot == r->slot)
            return false;
    switch (g->insn.mnemonic) { /* to which memory is another matter */
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return false;
    default:
        return true;
    }
}

/* Registers that stay in x86_cpu come into what is free of RAX and RCX. */
static bool place(const struct gen *g, const struct copy *c, struct placement *p)
{
    uint8_t avail[2];
    unsigned n = 0, used = 0;

    if (!c->count && !(c->mem && p->mem.reg == H_RCX))
        avail[n++] = H_RCX;
    if (!g->held && !(c->mem && p->mem.reg == H_RAX))
        avail[n++] = H_RAX;
    for (unsigned i = 0; i < c->nr; i++) {
        if (!resident(g, &c->r[i])) {
            p->reg[i] = gen_host(g, c->r[i].slot);
            continue;
        }
        p->reg[i] = H_NONE;
        if (in_place(g, c, i))
            continue;
        for (unsigned k = 0; k < i; k++)
            if (c->r[k].slot == c->r[i].slot)
                p->reg[i] = p->reg[k];
        if (p->reg[i] == H_NONE) {
            if (used == n)
                return false;
            p->reg[i] = avail[used++];
        }
    }
    return true;
}

static void load_residents(struct gen *g, const struct copy *c, const struct placement *p)
{
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]) && p->reg[i] != H_NONE && (c->r[i].read || c->r[i].size < 4))
            gen_get(g, p->reg[i], c->r[i].slot);
}

static void store_residents(struct gen *g, const struct copy *c, const struct placement *p)
{
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]) && p->reg[i] != H_NONE && c->r[i].write)
            gen_put(g, c->r[i].slot, p->reg[i]);
}

static void write_insn(struct gen *g, const struct copy *c, const struct placement *p)
{
    struct em_op op = c->op;
    struct em_rm rm = p->mem;
    unsigned reg = c->ext;

    for (unsigned i = 0; i < c->nr; i++) {
        unsigned r = p->reg[i];

        if (c->r[i].size == 1 && r >= 4 && r < 8)
            op.rex = true;
        if (c->r[i].field == IN_RM)
            rm = r == H_NONE ? gen_gpr(c->r[i].slot) : em_reg(r);
        else if (c->r[i].field == IN_VVVV)
            op.vvvv = (uint8_t)r;
        else
            reg = r;
    }
    em_insn(&g->e, op, reg, rm);
    if (c->nimm)
        em_bytes(&g->e, c->imm, c->nimm);
}

/* The operand in memory is what the flags are made of, and is to be kept for that. */
static bool keeps_operand(const struct gen *g, const struct copy *c)
{
    if (!c->mem || c->store || c->count || c->nr + (c->nimm != 0) > 1)
        return false;
    for (unsigned i = 0; i < c->nr; i++)
        if (resident(g, &c->r[i]))
            return false;
    switch (g->insn.mnemonic) {
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        return gen_flags_last(g, g->i);
    default:
        return false;
    }
}

/* RCX = the operand, kept in x86_cpu too. */
static void keep_operand(struct gen *g, const struct copy *c, struct placement *p)
{
    struct em_op load = {.op = OP_LOAD, .wide = c->size == 8};

    if (c->size < 4)
        load = (struct em_op){.map = 1, .op = c->size == 1 ? 0xb6 : 0xb7};
    em_insn(&g->e, load, H_RCX, p->mem);
    em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(tier_operand));
    p->mem = em_reg(H_RCX);
    g->kept = true;
    g->leaves[g->held ? g->group.first : g->i] = true;
}

static bool needs_all_flags(const struct gen *g, const struct copy *c)
{
    return !g->in_host && (c->use == READS || c->use == CHANGES);
}

static bool gen_copy(struct gen *g, const struct copy *c)
{
    struct placement p = {.mem = em_at(H_RAX, 0)};

    if (c->use == CARRIES && !c->mem && !g->in_cc)
        gen_need_flags(g);
    if (g->held) {
        if (needs_all_flags(g, c) || c->no_split)
            return false;
        if (c->mem)
            p.mem = gen_held(g, g->op->disp);
        if (c->mem && c->count && p.mem.reg == H_RCX)
            return false;
    } else if (c->mem) {
        if (!gen_mem(g, c->size, c->store))
            return false;
        if (c->no_split)
            gen_no_split(g, c->size);
        if (needs_all_flags(g, c)) {
            if (c->count)
                return false;
            p.mem.reg = H_RCX;
            em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        }
    }
    if (keeps_operand(g, c))
        keep_operand(g, c, &p);
    if (!place(g, c, &p))
        return false;
    if (c->use == READS || c->use == CHANGES)
        gen_need_flags(g);
    load_residents(g, c, &p);
    if (c->count)
        em_rr(&g->e, false, OP_LOAD, H_RCX, gen_host(g, VMM_RCX));
    if (c->use == CARRIES)
        gen_need_carry(g);
    write_insn(g, c, &p);
    store_residents(g, c, &p);
    if (c->use != NOT && c->use != READS)
        gen_flags_set(g);
    if (c->use == SETS && (!c->mem || !c->store))
        gen_make_recipe(g);
    g->kept = false;
    return true;
}

/* A shift by a constant other than 0 sets all flags. */
static bool shift_sets_all(const struct gen *g, const struct copy *c)
{
    ZydisMnemonic m = g->insn.mnemonic;
    unsigned bits = g->opnd[0].size, count;

    if ((m != ZYDIS_MNEMONIC_SHL && m != ZYDIS_MNEMONIC_SHR && m != ZYDIS_MNEMONIC_SAR) || c->count)
        return false;
    count = (unsigned)g->opnd[1].imm.value.u & (bits == 64 ? 63 : 31);
    return count && count < bits;
}

/* OF is undefined, and hosts differ between a count that is a constant and one in CL, which is what
 * handlers use. */
static bool leaves_undefined(const struct gen *g, const struct copy *c)
{
    switch (g->insn.mnemonic) {
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return c->nimm;
    default:
        return false;
    }
}

static bool gen_modrm(struct gen *g)
{
    const struct row *row = &rows[g->insn.mnemonic];
    struct copy c = {.use = row->use, .ext = g->insn.raw.modrm.reg};

    if (!row->known || !g->insn.raw.modrm.offset || !host_has(g, row->need) || !operands(g, &c))
        return false;
    opcode(g, &c);
    if (c.op.vex && c.op.map < 2) /* LZCNT and TZCNT of other processors */
        return false;
    if (!c.op.map && c.op.op == 0x82) /* as 80, but not in 64-bit mode */
        c.op.op = 0x80;
    if (g->bt->exact && leaves_undefined(g, &c))
        return false;
    if (shift_sets_all(g, &c))
        c.use = SETS;
    switch (g->insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (c.mem && !c.nimm) /* a bit string */
            return false;
        break;
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
        c.r[0].read = true; /* stays as it is if the source is 0 */
        break;
    case ZYDIS_MNEMONIC_IMUL:
        if (g->insn.operand_count_visible == 1)
            return false;
        break;
    default:
        break;
    }
    c.no_split = c.mem && (c.op.lock || g->insn.mnemonic == ZYDIS_MNEMONIC_XCHG);
    return gen_copy(g, &c);
}

/* ---- encodings that become others ---- */

static struct operand reg(unsigned field, unsigned slot, unsigned size, bool read, bool write)
{
    return (struct operand){(uint8_t)field, (uint8_t)slot, (uint8_t)size, read, write};
}

/* INC, DEC with the register in the opcode; there is none in 64-bit mode. ALU and TEST with the
 * accumulator; MOV of an immediate. */
static bool gen_short(struct gen *g)
{
    unsigned op = g->insn.opcode, size = g->opnd[0].size / 8;
    struct copy c = {.use = SETS, .nr = 1};
    uint8_t slot;

    if (g->insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || g->insn.raw.modrm.offset ||
        g->opnd[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    c.op.wide = size == 8;
    c.op.half = size == 2;
    c.r[0] = reg(IN_RM, slot, size, true, true);
    if (op < 0x40 && (op & 7) >= 4 && (op & 7) < 6) {
        c.op.op = op & 1 ? 0x81 : 0x80;
        c.ext = op >> 3;
        if (c.ext == 2 || c.ext == 3) /* ADC, SBB */
            c.use = CARRIES;
        c.r[0].write = c.ext != 7;
    } else if (op == 0xa8 || op == 0xa9) {
        c.op.op = op & 1 ? 0xf7 : 0xf6;
        c.r[0].write = false;
    } else if (op >= 0x40 && op < 0x50 && !g->is64) {
        c.op.op = 0xff;
        c.ext = op >> 3 & 1;
        c.use = CARRIES;
        return gen_copy(g, &c);
    } else if (op >= 0xb0 && op < 0xc0 && size < 8) {
        c.op.op = op & 8 ? 0xc7 : 0xc6;
        c.use = NOT;
        c.r[0].read = false;
    } else {
        return false;
    }
    immediate(g, &c);
    return gen_copy(g, &c);
}

static bool gen_mov64(struct gen *g)
{
    uint8_t slot;
    unsigned host;

    if (g->insn.raw.modrm.offset || g->insn.opcode < 0xb8 || g->insn.opcode > 0xbf ||
        !gen_reg_slot(g->opnd[0].reg.value, &slot) || g->opnd[0].size != 64)
        return false;
    host = gen_host(g, slot);
    if (g->held && host == H_NONE)
        return false;
    em_const(&g->e, host == H_NONE ? H_RAX : host, g->opnd[1].imm.value.u);
    if (host == H_NONE)
        gen_put(g, slot, H_RAX);
    return true;
}

static bool gen_xchg(struct gen *g)
{
    struct copy c = {.nr = 2, .op = {.op = 0x87}};
    unsigned size = g->opnd[0].size / 8;
    uint8_t a, b;

    if (g->insn.raw.modrm.offset || !gen_reg_slot(g->opnd[0].reg.value, &a) ||
        !gen_reg_slot(g->opnd[1].reg.value, &b))
        return false;
    c.op.wide = size == 8;
    c.op.half = size == 2;
    c.r[0] = reg(IN_RM, a, size, true, true);
    c.r[1] = reg(IN_REG, b, size, true, true);
    return gen_copy(g, &c);
}

/* CBW, CWDE, CDQE as MOVSX. */
static bool gen_cbw(struct gen *g)
{
    struct copy c = {.nr = 2, .op = {.map = 1}};

    if (g->insn.mnemonic == ZYDIS_MNEMONIC_CBW)
        c.op.op = 0xbe, c.op.half = true;
    else if (g->insn.mnemonic == ZYDIS_MNEMONIC_CWDE)
        c.op.op = 0xbf;
    else
        c.op = (struct em_op){.op = 0x63, .wide = true};
    c.r[0] = reg(IN_REG, VMM_RAX, 8, false, true);
    c.r[1] = reg(IN_RM, VMM_RAX, 8, true, false);
    return gen_copy(g, &c);
}

static bool gen_cwd(struct gen *g)
{
    gen_get(g, H_RAX, VMM_RAX);
    if (g->insn.mnemonic == ZYDIS_MNEMONIC_CWD)
        em8(&g->e, 0x66);
    if (g->insn.mnemonic == ZYDIS_MNEMONIC_CQO)
        em8(&g->e, 0x48);
    em8(&g->e, 0x99);
    return true;
}

static bool gen_bswap(struct gen *g)
{
    unsigned host;
    uint8_t slot;
    bool wide = g->opnd[0].size == 64;

    if (g->opnd[0].size < 32 || !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    host = gen_host(g, slot);
    if (host == H_NONE)
        gen_get(g, H_RCX, slot);
    else if (!wide)
        em_rr(&g->e, false, OP_LOAD, H_RCX, host);
    if (host == H_NONE || !wide)
        EM(&g->e, wide ? 0x48 : 0x40, 0x0f, 0xc8 | H_RCX);
    else
        EM(&g->e, (uint8_t)(0x48 | host >> 3), 0x0f, (uint8_t)(0xc8 | (host & 7)));
    if (host == H_NONE || !wide)
        gen_put(g, slot, H_RCX);
    return true;
}

/* ---- implied operands ---- */

/* The operand of MUL and alike, in RCX or its own register. False: not possible. */
static bool wide_operand(struct gen *g, struct em_rm *rm, bool *byte_rex)
{
    const ZydisDecodedOperand *o = &g->opnd[0];
    uint8_t slot;

    *byte_rex = false;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!gen_mem(g, o->size / 8, false))
            return false;
        em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        *rm = em_at(H_RCX, 0);
        return true;
    }
    if (!gen_reg_slot(o->reg.value, &slot))
        return false;
    if (gen_host(g, slot) == H_NONE) {
        gen_get(g, H_RCX, slot);
        *rm = em_reg(H_RCX);
    } else {
        *rm = em_reg(gen_host(g, slot));
        *byte_rex = o->size == 8 && gen_host(g, slot) >= 4 && gen_host(g, slot) < 8;
    }
    return true;
}

/* MUL, and IMUL with one operand: RDX:RAX. */
static bool gen_mul(struct gen *g)
{
    struct em_op op = {
        .op = g->insn.opcode, .wide = g->opnd[0].size == 64, .half = g->opnd[0].size == 16};
    struct em_rm rm;

    if (!wide_operand(g, &rm, &op.rex))
        return false;
    gen_get(g, H_RAX, VMM_RAX);
    em_insn(&g->e, op, g->insn.raw.modrm.reg, rm);
    gen_put(g, VMM_RAX, H_RAX);
    gen_flags_set(g);
    return true;
}

static bool gen_cmpxchg(struct gen *g)
{
    unsigned size = g->opnd[0].size / 8;
    struct em_op op = {.map = 1,
                       .op = g->insn.opcode,
                       .wide = size == 8,
                       .half = size == 2,
                       .lock = g->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK};
    uint8_t slot;

    if (g->opnd[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
        !gen_reg_slot(g->opnd[1].reg.value, &slot) || gen_host(g, slot) == H_NONE ||
        !gen_mem(g, size, true))
        return false;
    if (op.lock)
        gen_no_split(g, size);
    op.rex = size == 1 && gen_host(g, slot) >= 4 && gen_host(g, slot) < 8;
    em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
    gen_get(g, H_RAX, VMM_RAX);
    em_insn(&g->e, op, gen_host(g, slot), em_at(H_RCX, 0));
    gen_put(g, VMM_RAX, H_RAX);
    gen_flags_set(g);
    return true;
}

/* CLC, STC, CMC */
static bool gen_carry(struct gen *g)
{
    gen_need_flags(g);
    em8(&g->e, g->insn.opcode);
    gen_flags_set(g);
    return true;
}

static bool gen_lea_insn(struct gen *g)
{
    unsigned size = g->opnd[0].size, host;
    uint8_t slot;

    if (size < 32 || g->op->asz == X86_A16 || !gen_reg_slot(g->opnd[0].reg.value, &slot))
        return false;
    host = gen_host(g, slot);
    if (g->held && (host == H_NONE || g->op->base == X86_RIP0 ||
                    (g->op->base != X86_ZERO && gen_host(g, g->op->base) == H_NONE)))
        return false;
    if (!gen_lea(g, host == H_NONE ? H_RAX : host, size == 64 && g->op->asz == X86_A64))
        return false;
    if (host == H_NONE)
        gen_put(g, slot, H_RAX);
    return true;
}

/* ---- which of them ---- */

unsigned gen_flags_use(const struct gen_insn *in)
{
    const struct row *row = &rows[in->insn.mnemonic];
    unsigned use = 0;

    if (in->is_vec)
        return GEN_FAULTS | (in->vec.form.flags ? GEN_SETS | GEN_CHANGES : 0);
    for (unsigned i = 0; i < in->insn.operand_count; i++)
        if (in->opnd[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            in->insn.mnemonic != ZYDIS_MNEMONIC_LEA)
            use = GEN_FAULTS;
    for (unsigned i = 0; i < in->insn.operand_count_visible; i++)
        if (in->opnd[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !reg_size(in->opnd[i].reg.value))
            use = GEN_FAULTS; /* segment or control registers */
    switch (in->insn.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_BSWAP:
        return use;
    case ZYDIS_MNEMONIC_MUL:
        return use | GEN_SETS | GEN_CHANGES;
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_LEAVE:
        return GEN_FAULTS;
    default:
        break;
    }
    if (!in->known || !row->known || (in->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return GEN_FAULTS | GEN_READS;
    if (row->need != NOTHING)
        use |= GEN_FAULTS; /* perhaps there is no such instruction */
    switch (row->use) {
    case NOT:
        return use;
    case SETS:
        return use | GEN_SETS | GEN_CHANGES;
    case READS:
        return use | GEN_READS;
    default:
        return use | GEN_READS | GEN_CHANGES;
    }
}

bool gen_may_group(const struct gen_insn *in)
{
    if (in->is_vec)
        return !(in->vec.form.gread >> VEC_G_RAX);
    switch (in->insn.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        return true;
    case ZYDIS_MNEMONIC_XCHG: /* locked, or with the accumulator */
        return false;
    case ZYDIS_MNEMONIC_IMUL:
        return in->insn.operand_count_visible > 1;
    default:
        return rows[in->insn.mnemonic].known && !(in->insn.attributes & ZYDIS_ATTRIB_HAS_LOCK);
    }
}

bool gen_insn(struct gen *g)
{
    if (gen_has_high(g))
        return gen_high(g);
    switch (g->insn.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
        return true;
    case ZYDIS_MNEMONIC_LEA:
        return gen_lea_insn(g);
    case ZYDIS_MNEMONIC_PUSH:
        return gen_push(g);
    case ZYDIS_MNEMONIC_POP:
        return gen_pop(g);
    case ZYDIS_MNEMONIC_LEAVE:
        return gen_leave(g);
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
        return gen_cbw(g);
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
        return gen_cwd(g);
    case ZYDIS_MNEMONIC_BSWAP:
        return gen_bswap(g);
    case ZYDIS_MNEMONIC_CMPXCHG:
        return gen_cmpxchg(g);
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
        return gen_carry(g);
    case ZYDIS_MNEMONIC_MUL:
        return gen_mul(g);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return gen_modrm(g) || gen_bit_string(g);
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        return gen_div(g);
    case ZYDIS_MNEMONIC_IMUL:
        return g->insn.operand_count_visible == 1 ? gen_mul(g) : gen_modrm(g);
    case ZYDIS_MNEMONIC_XCHG:
        return gen_xchg(g) || gen_modrm(g);
    case ZYDIS_MNEMONIC_MOV:
        return gen_modrm(g) || gen_short(g) || gen_mov64(g) || gen_sys(g);
    default:
        return rows[g->insn.mnemonic].known ? gen_modrm(g) || gen_short(g)
                                            : gen_sys(g) || gen_vec(g) || gen_x87(g);
    }
}
