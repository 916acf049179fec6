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

#define HASH_BITS 12
#define ROOM      (8u << 20) /* touched as it is used */

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
    struct gen_shape *next;
    uint64_t shape;
    uint32_t mode;
    uint8_t len;
    uint8_t imm, imm_size; /* of the second operand, if that is in the code; else 0 bytes */
    bool imm_signed;
    uint8_t vary;
    struct gen_insn as;
    ZydisDecodedInstruction insn;
    struct vec_copy vec;
    ZydisDecodedOperand opnd[]; /* so many as there are */
};

struct gen_shapes {
    size_t used, end; /* of room: shapes, and at its end what is needed once */
    struct gen_shape *hash[1u << HASH_BITS];
    _Alignas(64) uint8_t room[];
};

static const struct vec_copy no_vec;

/* Others matter as being none. */
static unsigned operand_count(const ZydisDecodedInstruction *in)
{
    return in->operand_count < 4 ? 4 : in->operand_count;
}

static size_t shape_size(unsigned operands)
{
    return (sizeof(struct gen_shape) + operands * sizeof(ZydisDecodedOperand) + 63) & ~(size_t)63;
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
    memset(bt->shapes->hash, 0, sizeof(bt->shapes->hash));
}

void gen_shapes_begin(struct bt *bt, unsigned n)
{
    bt->shapes->end = ROOM;
    if (bt->shapes->used + n * shape_size(ZYDIS_MAX_OPERAND_COUNT) > ROOM)
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

/* The immediate is taken from the code each time; in what is shared there is none. */
static void take_immediate(struct gen_shape *s)
{
    if (s->opnd[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return;
    s->as.imm = s->opnd[1].imm.value.u;
    if (s->opnd[1].encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return;
    s->imm = s->insn.raw.imm[0].offset;
    s->imm_size = s->insn.raw.imm[0].size / 8;
    s->imm_signed = s->insn.raw.imm[0].is_signed;
}

static struct gen_shape *take_room(struct gen_shapes *all, unsigned operands, bool once)
{
    size_t size = shape_size(operands);

    if (once)
        return (struct gen_shape *)(void *)&all->room[all->end -= size];
    all->used += size;
    return (struct gen_shape *)(void *)&all->room[all->used - size];
}

/* Whether code has nothing of the instruction's values in it. */
static bool may_share(const struct gen_shape *s, const struct x86_dec *d)
{
    return d->shaped && !((s->as.is_vec || s->as.is_x87) && d->insn.raw.imm[0].size);
}

static struct gen_shape *make_shape(const struct gen *g, unsigned i, const struct x86_dec *d)
{
    unsigned n = operand_count(&d->insn);
    struct gen_shape *s = take_room(g->bt->shapes, n, true), *shared;

    *s = (struct gen_shape){.mode = g->b->mode, .len = d->insn.length, .insn = d->insn};
    memcpy(s->opnd, d->opnd, n * sizeof(s->opnd[0]));
    s->as = (struct gen_insn){.known = true, .insn = &s->insn, .opnd = s->opnd, .vec = &no_vec};
    take_immediate(s);
    gen_find_vec(g, i, &s->as, &s->vec);
    gen_find_x87(g, i, &s->as, &s->vec);
    find_meaning(g, i, &s->as);
    if (!may_share(s, d)) {
        s->imm_size = 0;
        return s;
    }
    s->vary = (uint8_t)find_variation(s);
    for (unsigned k = 0; k < n; k++)
        if (s->opnd[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            s->opnd[k].imm.value.u = 0; /* nobody is to take it for the next one's */
    shared = take_room(g->bt->shapes, n, false);
    memcpy(shared, s, sizeof(*s) + n * sizeof(s->opnd[0]));
    g->bt->shapes->end += shape_size(n);
    shared->as.insn = &shared->insn;
    shared->as.opnd = shared->opnd;
    if (s->as.vec != &no_vec)
        shared->as.vec = &shared->vec;
    return shared;
}

/* ---- decoding ---- */

static void set_unknown(const struct gen *g, unsigned i, struct gen_insn *in)
{
    static const ZydisDecodedInstruction none;
    static const ZydisDecodedOperand no_operand[4];

    *in = (struct gen_insn){.insn = &none, .opnd = no_operand, .vec = &no_vec};
    find_meaning(g, i, in);
}

static struct gen_shape **bucket(struct gen_shapes *all, uint64_t shape, uint32_t mode)
{
    return &all->hash[(shape ^ (uint64_t)mode << 32) * 0x9e3779b97f4a7c15ull >> (64 - HASH_BITS)];
}

static const struct gen_shape *get_shape(const struct gen *g, unsigned i)
{
    const uint8_t *code = g->code + g->b->ops[i].off;
    unsigned avail = X86_BLOCK_MAX * 15u - g->b->ops[i].off;
    uint64_t shape = x86_memo_shape(g->b->mode, code, avail);
    struct gen_shape **head = bucket(g->bt->shapes, shape, g->b->mode), *s;
    struct x86_dec room, *d;

    for (s = shape ? *head : NULL; s; s = s->next)
        if (s->shape == shape && s->mode == g->b->mode)
            return s;
    if (!ZYAN_SUCCESS(x86_dec_get(g->cpu, g->b->mode, code, avail, &room, &d)))
        return NULL;
    s = make_shape(g, i, d);
    if ((uint8_t *)s - g->bt->shapes->room < (ptrdiff_t)g->bt->shapes->used) {
        s->shape = shape;
        s->next = *head;
        *head = s;
    }
    return s;
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
