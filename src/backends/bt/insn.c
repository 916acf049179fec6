/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/insn.c: instructions that are copied with other operands. */
#include "backends/bt/copy.h"

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

static unsigned reg_size(ZydisRegister reg)
{
    unsigned id;

    return x86_dec_gpr(reg, &id);
}

static bool reg_operand(struct gen_form *f, const struct gen_operand *o)
{
    struct operand *r = &f->r[f->nr];

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
        f->count = true;
        return o->reg.value == ZYDIS_REGISTER_CL;
    default:
        return false;
    }
    f->nr++;
    return true;
}

static struct em_op find_op(const struct gen *g, const ZydisDecodedInstruction *in)
{
    struct em_op op = {.op = in->opcode};

    if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        op.vex = true;
        op.map = in->raw.vex.m_mmmm;
        op.wide = in->raw.vex.W && g->is64; /* else ignored */
        op.pp = in->raw.vex.pp;
        op.vex_l = in->raw.vex.L;
        return op;
    }
    op.map = in->opcode_map == ZYDIS_OPCODE_MAP_0F     ? 1
             : in->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2
             : in->opcode_map == ZYDIS_OPCODE_MAP_0F3A ? 3
                                                       : 0;
    op.wide = in->raw.rex.W;
    op.lock = in->attributes & ZYDIS_ATTRIB_HAS_LOCK;
    for (unsigned i = 0; i < in->raw.prefix_count; i++) {
        uint8_t p = in->raw.prefixes[i].value;

        if (p == 0x66)
            op.half = true;
        else if ((p == 0xf2 || p == 0xf3) &&
                 in->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            op.rep = p;
    }
    return op;
}

void gen_immediate(const struct gen *g, struct copy *c)
{
    c->imm = g->bytes + g->insn->imm;
    c->nimm = g->insn->imm_size;
}

/* The operands as they are; false: there is one that cannot be copied. */
static bool find_operands(struct gen_form *f, const struct gen_operand *opnd)
{
    for (unsigned i = 0; i < f->operand_count_visible; i++) {
        const struct gen_operand *o = &opnd[i];

        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!reg_operand(f, o))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
                return false;
            f->mem = true;
            f->size = o->size / 8;
            f->store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            f->imm_copy |= o->encoding != ZYDIS_OPERAND_ENCODING_NONE;
            break;
        default:
            return false;
        }
    }
    return true;
}

void gen_find_copy(const struct gen *g, const struct x86_dec *d, const struct gen_operand *opnd,
                   struct gen_form *f)
{
    f->op = find_op(g, &d->insn);
    f->copied = f->modrm && rows[f->mnemonic].known && find_operands(f, opnd);
}

/* The current op's. */
static struct copy copy_of(const struct gen *g)
{
    const struct gen_form *f = g->insn;
    struct copy c = {.op = f->op, .ext = f->extension, .nr = f->nr};

    memcpy(c.r, f->r, sizeof(c.r));
    c.mem = f->mem;
    c.store = f->store;
    c.size = f->size;
    c.count = f->count;
    c.use = rows[f->mnemonic].use;
    if (f->imm_copy)
        gen_immediate(g, &c);
    return c;
}

/* A shift by a constant other than 0 sets all flags. */
static bool shift_sets_all(const struct gen_insn *in)
{
    ZydisMnemonic m = in->insn->mnemonic;
    unsigned bits = in->opnd[0].size, count;

    if ((m != ZYDIS_MNEMONIC_SHL && m != ZYDIS_MNEMONIC_SHR && m != ZYDIS_MNEMONIC_SAR) ||
        in->opnd[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return false;
    count = (unsigned)in->imm & (bits == 64 ? 63 : 31);
    return count && count < bits;
}

/* OF is undefined, and hosts differ between a count that is a constant and one in CL, which is what
 * handlers use. */
static bool leaves_undefined(const struct gen *g, const struct copy *c)
{
    switch (g->insn->mnemonic) {
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

/* Of those that leave some as they are: whether others are operands. */
static bool reads_some(const struct gen_insn *in)
{
    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
        return true;
    default:
        return false;
    }
}

/* SHL, SHR and SAR by CL as SHLX and its like: fewer steps. */
static void without_flags(const struct gen *g, struct copy *c)
{
    uint8_t pp;

    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
        pp = 1;
        break;
    case ZYDIS_MNEMONIC_SAR:
        pp = 2;
        break;
    case ZYDIS_MNEMONIC_SHR:
        pp = 3;
        break;
    default:
        return;
    }
    if (c->mem || c->r[0].size < 4)
        return;
    c->op = (struct em_op){.vex = true, .map = 2, .op = 0xf7, .pp = pp, .wide = c->r[0].size == 8};
    c->nr = 3;
    c->r[1] = c->r[2] = c->r[0];
    c->r[0].field = IN_REG;
    c->r[0].read = false;
    c->r[1].write = false;
    c->r[2] = (struct operand){IN_VVVV, VMM_RCX, c->r[0].size, true, false};
    c->count = false;
    c->use = NOT;
}

static bool gen_modrm(struct gen *g)
{
    const struct row *row = &rows[g->insn->mnemonic];
    struct copy c;

    if (!g->insn->copied || (row->need != NOTHING && !host_has(g, row->need)))
        return false;
    c = copy_of(g);
    if (c.op.vex && c.op.map < 2) /* LZCNT and TZCNT of other processors */
        return false;
    if (!c.op.map && c.op.op == 0x82) /* as 80, but not in 64-bit mode */
        c.op.op = 0x80;
    if (g->bt->exact && leaves_undefined(g, &c))
        return false;
    c.shifts = shift_sets_all(&g->all[g->i]);
    if (c.shifts)
        c.use = SETS;
    else if ((c.use == CHANGES || c.use == CARRIES) && !reads_some(&g->all[g->i]) &&
             !gen_flags_live(g, g->i))
        c.use = OVERWRITES;
    if (c.count && c.use == OVERWRITES && g->bt->host.bmi2)
        without_flags(g, &c);
    switch (g->insn->mnemonic) {
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
        if (g->insn->operand_count_visible == 1)
            return false;
        break;
    default:
        break;
    }
    c.no_split = c.mem && (c.op.lock || g->insn->mnemonic == ZYDIS_MNEMONIC_XCHG);
    return gen_copy(g, &c);
}

/* ---- which of them ---- */

unsigned gen_find_flags_use(const struct gen_insn *in)
{
    const struct row *row = &rows[in->insn->mnemonic];
    unsigned use = 0;

    if (in->is_vec)
        return GEN_FAULTS | (in->vec->form.flags ? GEN_SETS | GEN_CHANGES : 0);
    if (in->is_x87)
        return GEN_FAULTS | (in->vec->form.flags ? GEN_CHANGES : 0) |
               (gen_x87_uses_flags(in) ? GEN_READS : 0);
    for (unsigned i = 0; i < in->insn->operand_count; i++)
        if (in->opnd[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            in->insn->mnemonic != ZYDIS_MNEMONIC_LEA)
            use = GEN_FAULTS;
    for (unsigned i = 0; i < in->insn->operand_count_visible; i++)
        if (in->opnd[i].type == ZYDIS_OPERAND_TYPE_REGISTER && !reg_size(in->opnd[i].reg.value))
            use = GEN_FAULTS; /* segment or control registers */
    switch (in->insn->mnemonic) {
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
    if (!in->known || !row->known || in->insn->op.lock)
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
    case CHANGES:
        return use | GEN_CHANGES |
               (shift_sets_all(in) ? GEN_SETS
                : reads_some(in)   ? GEN_READS
                                   : GEN_KEEPS);
    default:
        return use | GEN_CHANGES | (reads_some(in) ? GEN_READS : GEN_KEEPS);
    }
}

bool gen_may_group(const struct gen_insn *in)
{
    if (in->is_vec)
        return !(in->vec->form.gread >> VEC_G_RAX);
    if (in->is_x87)
        return gen_x87_may_group(in);
    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        return true;
    case ZYDIS_MNEMONIC_XCHG: /* locked, or with the accumulator */
        return false;
    case ZYDIS_MNEMONIC_IMUL:
        return in->insn->operand_count_visible > 1;
    default:
        return rows[in->insn->mnemonic].known && !in->insn->op.lock;
    }
}

bool gen_insn(struct gen *g)
{
    if (gen_has_high(g))
        return gen_high(g);
    switch (g->insn->mnemonic) {
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
        return g->insn->operand_count_visible == 1 ? gen_mul(g) : gen_modrm(g);
    case ZYDIS_MNEMONIC_XCHG:
        return gen_xchg(g) || gen_modrm(g);
    case ZYDIS_MNEMONIC_MOV:
        return gen_modrm(g) || gen_short(g) || gen_mov64(g) || gen_sys(g);
    default:
        return rows[g->insn->mnemonic].known
                   ? gen_modrm(g) || gen_short(g)
                   : gen_string(g) || gen_sys(g) || gen_vec(g) || gen_x87(g);
    }
}
