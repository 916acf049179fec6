/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/shapes.c: what decoded instructions mean, found once for all of the same shape. */
#include "backends/bt/region.h"
#include "core/os.h"

/*
 * Code consists of a few thousand instructions that differ in displacements and immediates only
 * (core/x86/decode_memo.c has their "shapes"). What the translator has to know of one is found out
 * when the first of its shape is translated in a mode; the values are put in each time.
 *
 * What is decoded points into this table, so that nothing of it may go while a block or region is
 * translated: it is emptied before that if it is too full. Instructions without a shape, and those
 * whose code has values in it, have a place at its end until then.
 */

#define SLOT_BITS 14
#define MAX_USED  (3u << (SLOT_BITS - 2)) /* slots: shapes are found at once as a rule */
#define ROOM      (4u << 20)              /* touched as it is used */

/* How op i of a block differs from others of the shape. */
enum {
    VARY_FLAGS = 1, /* the count of a shift decides what it means to the flags */
    VARY_PLACE = 2, /* the effect has the place of the memory operand */
    BY_DISP = 4,    /* what the effect moves a register by: the op's displacement, ... */
    BY_IMM = 8,     /* ... the immediate, ... */
    BY_MINUS_IMM = 16,
    BY_POP = 32 /* ... or what RET adds to the word that it pops */
};

struct gen_shape {
    uint64_t shape;
    uint32_t mode;
    uint8_t len;
    uint8_t imm, imm_size; /* of the second operand, if that is in the code; else 0 bytes */
    bool imm_signed;
    uint8_t vary;
    uint8_t operands; /* there is room for so many */
    struct gen_insn as;
    struct gen_form insn;
    struct gen_operand opnd[]; /* and, of vector and x87 instructions, struct vec_copy */
};

/* Where a shape is: those looked for are many, so that it matters which memory is touched. */
struct slot {
    uint32_t tag; /* of its hash */
    uint32_t at;  /* in room, in 64 bytes; + 1. 0: the slot is free */
};

struct gen_shapes {
    size_t used, end; /* of room: shapes, and at its end what is needed once */
    unsigned n;       /* slots in use */
    struct slot slot[1u << SLOT_BITS];
    _Alignas(64) uint8_t room[];
};

static const struct vec_copy no_vec;

/* Others matter as being none. */
static unsigned operand_count(const ZydisDecodedInstruction *in)
{
    return in->operand_count < 4 ? 4 : in->operand_count;
}

#define SHAPE_ALIGN     64
#define ALIGN(size, to) (((size) + (to)-1) & ~(size_t)((to)-1))

static size_t vec_offset(unsigned operands)
{
    return ALIGN(sizeof(struct gen_shape) + operands * sizeof(struct gen_operand),
                 _Alignof(struct vec_copy));
}

static size_t shape_size(unsigned operands, bool vec)
{
    return ALIGN(vec_offset(operands) + (vec ? sizeof(struct vec_copy) : 0), SHAPE_ALIGN);
}

static struct gen_shape *shape_at(struct gen_shapes *all, size_t offset)
{
    return (struct gen_shape *)(void *)&all->room[offset];
}

static struct vec_copy *vec_of(struct gen_shape *s)
{
    return (struct vec_copy *)(void *)((uint8_t *)s + vec_offset(s->operands));
}

bool bt_shapes_create(struct bt *bt)
{
    bt->shapes = os_pages_alloc(sizeof(*bt->shapes) + ROOM);
    if (bt->shapes)
        bt->shapes->end = ROOM;
    return bt->shapes;
}

void bt_shapes_destroy(struct bt *bt)
{
    os_pages_free(bt->shapes, sizeof(*bt->shapes) + ROOM);
}

void bt_shapes_clear(struct bt *bt)
{
    bt->shapes->used = 0;
    bt->shapes->n = 0;
    memset(bt->shapes->slot, 0, sizeof(bt->shapes->slot));
}

void gen_shapes_begin(struct bt *bt, unsigned n)
{
    bt->shapes->end = ROOM;
    /* The one that is being made is there twice. */
    if (bt->shapes->used + (n + 1) * shape_size(ZYDIS_MAX_OPERAND_COUNT, true) > ROOM ||
        bt->shapes->n + n > MAX_USED)
        bt_shapes_clear(bt);
}

/* ---- making one ---- */

static void find_meaning(const struct gen *g, unsigned i, struct gen_insn *in)
{
    in->flags_use = (uint8_t)gen_find_flags_use(in);
    in->writes = gen_find_writes(in);
    in->has_effect = gen_find_effect(g, i, in, &in->effect);
}

static bool is_shift(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_SHL || m == ZYDIS_MNEMONIC_SHR || m == ZYDIS_MNEMONIC_SAR;
}

static unsigned find_variation(const struct gen_shape *s)
{
    const struct gen_effect *e = &s->as.effect;
    ZydisMnemonic m = s->insn.mnemonic;
    unsigned vary = s->imm_size && is_shift(m) ? VARY_FLAGS : 0;

    if (!s->as.has_effect)
        return vary;
    switch (m) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP:
        return vary;
    case ZYDIS_MNEMONIC_RET:
        return vary | BY_POP;
    default:
        break;
    }
    if (e->access)
        vary |= VARY_PLACE;
    if (e->moves == GEN_NO_MOVE)
        return vary;
    switch (m) {
    case ZYDIS_MNEMONIC_LEA:
        return vary | BY_DISP;
    case ZYDIS_MNEMONIC_ADD:
        return vary | BY_IMM;
    case ZYDIS_MNEMONIC_SUB:
        return vary | BY_MINUS_IMM;
    default: /* INC, DEC */
        return vary;
    }
}

/* The immediate is taken from the code each time, if it is there. */
static void take_immediate(struct gen_shape *s, const struct x86_dec *d)
{
    const ZydisDecodedOperand *o = &d->opnd[1];

    if (o->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return;
    s->as.imm = o->imm.value.u;
    if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return;
    s->imm = d->insn.raw.imm[0].offset;
    s->imm_size = d->insn.raw.imm[0].size / 8;
    s->imm_signed = d->insn.raw.imm[0].is_signed;
}

static struct gen_operand find_operand(const ZydisDecodedOperand *o)
{
    struct gen_operand x = {
        .type = (uint8_t)o->type, .encoding = (uint8_t)o->encoding, .actions = o->actions};

    x.size = o->size;
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
        x.reg.value = (uint16_t)o->reg.value;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        x.mem.base = (uint16_t)o->mem.base;
        x.mem.index = (uint16_t)o->mem.index;
    }
    return x;
}

static struct gen_form find_form(const ZydisDecodedInstruction *in)
{
    struct gen_form f = {.mnemonic = (uint16_t)in->mnemonic,
                         .length = in->length,
                         .encoding = (uint8_t)in->encoding,
                         .opcode_map = (uint8_t)in->opcode_map,
                         .opcode = in->opcode,
                         .operand_count = in->operand_count,
                         .operand_count_visible = in->operand_count_visible};

    f.extension = in->raw.modrm.reg;
    f.imm = in->raw.imm[0].offset;
    f.imm_size = in->raw.imm[0].size / 8;
    f.modrm = in->raw.modrm.offset != 0;
    f.is_near = in->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
    f.is_string = in->meta.category == ZYDIS_CATEGORY_STRINGOP;
    f.is_rep = in->attributes & ZYDIS_ATTRIB_HAS_REP;
    f.excepts = in->meta.exception_class != ZYDIS_EXCEPTION_CLASS_NONE;
    f.tests_flags = in->cpu_flags && in->cpu_flags->tested;
    for (unsigned i = 0; i < in->raw.prefix_count; i++)
        f.has_rep |= (in->raw.prefixes[i].value & 0xfe) == 0xf2;
    return f;
}

/* At the end of the room. */
static struct gen_shape *describe(const struct gen *g, unsigned i, const struct x86_dec *d)
{
    struct gen_shapes *all = g->bt->shapes;
    unsigned n = operand_count(&d->insn);
    struct gen_shape *s = shape_at(all, all->end -= shape_size(n, true));

    *s = (struct gen_shape){.mode = g->b->mode, .len = d->insn.length, .operands = (uint8_t)n};
    s->insn = find_form(&d->insn);
    for (unsigned k = 0; k < n; k++)
        s->opnd[k] = find_operand(&d->opnd[k]);
    s->as = (struct gen_insn){.known = true, .insn = &s->insn, .opnd = s->opnd, .vec = &no_vec};
    gen_find_copy(g, d, s->opnd, &s->insn);
    take_immediate(s, d);
    gen_find_vec(g, d, &s->as, vec_of(s));
    gen_find_x87(d, &s->as, vec_of(s));
    find_meaning(g, i, &s->as);
    return s;
}

/* Whether code has nothing of the instruction's values in it. */
static bool may_share(const struct gen_shape *s, const struct x86_dec *d)
{
    return d->shaped && !((s->as.is_vec || s->as.is_x87) && d->insn.raw.imm[0].size);
}

/* For good, if that is possible. */
static struct gen_shape *make_shape(const struct gen *g, unsigned i, const struct x86_dec *d)
{
    struct gen_shapes *all = g->bt->shapes;
    struct gen_shape *s = describe(g, i, d), *shared;
    bool has_vec = s->as.vec != &no_vec;
    size_t size = shape_size(s->operands, has_vec);

    if (!may_share(s, d)) {
        s->imm_size = 0;
        return s;
    }
    s->vary = (uint8_t)find_variation(s);
    shared = shape_at(all, all->used);
    all->used += size;
    all->end += shape_size(s->operands, true);
    memcpy(shared, s, size);
    shared->as.insn = &shared->insn;
    shared->as.opnd = shared->opnd;
    if (has_vec)
        shared->as.vec = vec_of(shared);
    return shared;
}

/* ---- decoding ---- */

static void set_unknown(const struct gen *g, unsigned i, struct gen_insn *in)
{
    static const struct gen_form none;
    static const struct gen_operand no_operand[4];

    *in = (struct gen_insn){.insn = &none, .opnd = no_operand, .vec = &no_vec};
    find_meaning(g, i, in);
}

/* The slot of a shape, or that where it is to come. */
static struct slot *find_slot(struct gen_shapes *all, uint64_t shape, uint32_t mode)
{
    uint64_t hash = (shape ^ (uint64_t)mode << 32) * 0x9e3779b97f4a7c15ull;
    uint32_t tag = (uint32_t)(hash >> 16);

    for (unsigned i = hash >> (64 - SLOT_BITS);; i = (i + 1) & ((1u << SLOT_BITS) - 1)) {
        struct slot *slot = &all->slot[i];
        const struct gen_shape *s;

        if (!slot->at) {
            slot->tag = tag;
            return slot;
        }
        if (slot->tag != tag)
            continue;
        s = shape_at(all, (slot->at - 1) * (size_t)SHAPE_ALIGN);
        if (s->shape == shape && s->mode == mode)
            return slot;
    }
}

static const struct gen_shape *get_new(const struct gen *g, unsigned i, uint64_t shape,
                                       struct slot *slot)
{
    const uint8_t *code = g->code + g->b->ops[i].off;
    unsigned avail = X86_BLOCK_MAX * 15u - g->b->ops[i].off;
    struct gen_shapes *all = g->bt->shapes;
    size_t used = all->used;
    struct x86_dec room, *d;
    struct gen_shape *s;

    if (!ZYAN_SUCCESS(x86_dec_get(g->cpu, g->b->mode, code, avail, &room, &d)))
        return NULL;
    s = make_shape(g, i, d);
    s->shape = shape;
    if (slot && all->used != used) {
        slot->at = (uint32_t)(used / SHAPE_ALIGN) + 1;
        all->n++;
    }
    return s;
}

static const struct gen_shape *get_shape(const struct gen *g, unsigned i)
{
    struct gen_shapes *all = g->bt->shapes;
    unsigned off = g->b->ops[i].off;
    uint64_t shape = x86_memo_shape(g->b->mode, g->code + off, X86_BLOCK_MAX * 15u - off);
    struct slot *slot = shape ? find_slot(all, shape, g->b->mode) : NULL;

    if (slot && slot->at)
        return shape_at(all, (slot->at - 1) * (size_t)SHAPE_ALIGN);
    return get_new(g, i, shape, slot);
}

static void put_values(const struct gen *g, unsigned i, const struct gen_shape *s,
                       struct gen_insn *in)
{
    const struct x86_op *op = &g->b->ops[i];
    struct gen_effect *e = &in->effect;

    if (s->imm_size)
        in->imm = x86_dec_value(g->code + op->off + s->imm, s->imm_size, s->imm_signed);
    if (!s->vary)
        return;
    if (s->vary & VARY_FLAGS)
        in->flags_use = (uint8_t)gen_find_flags_use(in);
    if (s->vary & VARY_PLACE) {
        e->base = op->base;
        e->index = op->index;
        e->scale = op->scale;
        e->disp = op->disp;
    }
    if (s->vary & BY_DISP)
        e->by = op->disp;
    else if (s->vary & BY_IMM)
        e->by = (int32_t)in->imm;
    else if (s->vary & BY_MINUS_IMM)
        e->by = -(int64_t)(int32_t)in->imm;
    else if (s->vary & BY_POP)
        e->by = (int64_t)e->size + (int64_t)op->imm;
}

void gen_decode(struct gen *g, struct gen_insn *all)
{
    for (unsigned i = 0; i < g->b->n; i++) {
        const struct gen_shape *s = get_shape(g, i);

        if (!s || s->len != g->b->ops[i].len) {
            set_unknown(g, i, &all[i]);
            continue;
        }
        all[i] = s->as;
        put_values(g, i, s, &all[i]);
    }
    g->all = all;
}
