/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/decode_known.c: ops of instructions whose shape has been decoded before. */
#include "core/os.h"
#include "core/x86/decode.h"
#include "core/x86/ops_int.h"
#include "core/x86/ops_sys.h"

/*
 * The op of the instructions that compilers use most is that of the first of their shape
 * (decode_memo.c), but for a displacement and an immediate. It is kept with the places where these
 * are in the code, in one cache line, so that most instructions are decoded without a look at what
 * Zydis says about them. Whose decode function looks at the values themselves is not among them.
 */

#define BITS 14

struct known {
    _Alignas(64) uint64_t shape; /* 0: empty */
    uint32_t mode;
    uint8_t len;
    uint8_t disp, disp_size; /* where it is; bytes, 0: there is none that matters */
    uint8_t imm, imm_size;   /* likewise */
    bool imm_signed;
    bool relative; /* the immediate is the distance to a target */
    bool end;      /* as in struct x86_dec */
    struct x86_op op;
};
_Static_assert(sizeof(struct known) == 64, "a cache line");

struct x86_known {
    struct known known[1u << BITS];
    bool any; /* else nothing of it has been touched */
};

struct x86_known *x86_known_create(void)
{
    return os_pages_alloc(sizeof(struct x86_known));
}

void x86_known_destroy(struct x86_known *k)
{
    if (k)
        os_pages_free(k, sizeof(*k));
}

void x86_known_clear(struct x86_known *k)
{
    if (!k || !k->any)
        return;
    for (unsigned i = 0; i < 1u << BITS; i++)
        if (k->known[i].shape)
            k->known[i].shape = 0;
    k->any = false;
}

static struct known *find(struct x86_known *k, uint64_t shape, uint32_t mode)
{
    return &k->known[(shape ^ (uint64_t)mode << 32) * 0x9e3779b97f4a7c15ull >> (64 - BITS)];
}

unsigned x86_known_decode(struct x86_known *all, uint64_t shape, uint32_t mode, const uint8_t *code,
                          struct x86_op *op, bool *end)
{
    const struct known *k = find(all, shape, mode);
    uint16_t off = op->off;
    uint8_t idx = op->idx;

    if (k->shape != shape || k->mode != mode)
        return 0;
    *op = k->op;
    op->off = off;
    op->idx = idx;
    if (k->disp_size)
        op->disp = (int32_t)x86_dec_value(code + k->disp, k->disp_size, true);
    if (op->base == X86_RIP0)
        x86_dec_rip(op);
    if (k->imm_size)
        op->imm = x86_dec_value(code + k->imm, k->imm_size, k->imm_signed);
    if (k->relative)
        op->imm += off + (unsigned)k->len;
    *end = k->end;
    return k->len;
}

/* ---- what is kept ---- */

/* How the op has the values. */
enum values {
    LOOKED_AT, /* its decode function decides by them, or does other things with them */
    NONE,      /* not at all */
    AS_THEY_ARE,
    DISTANCE, /* a direct branch's immediate: to the target */
    POPPED    /* RET's: without sign */
};

static enum values values_of(x86_dec_fn *fn)
{
    static x86_dec_fn *const plain[] = {x86_dec_alu,  x86_dec_unary, x86_dec_mov,  x86_dec_movx,
                                        x86_dec_lea,  x86_dec_cmov,  x86_dec_set,  x86_dec_push,
                                        x86_dec_pop,  x86_dec_shift, x86_dec_imul, x86_dec_muldiv,
                                        x86_dec_leave};

    for (unsigned i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        if (fn == plain[i])
            return AS_THEY_ARE;
    if (fn == x86_dec_jcc || fn == x86_dec_jmp || fn == x86_dec_call)
        return DISTANCE;
    if (fn == x86_dec_ret)
        return POPPED;
    return fn == x86_dec_nop || fn == x86_dec_cbw || fn == x86_dec_cwd ? NONE : LOOKED_AT;
}

/* Of the operands: the displacement is that of one in memory, by ModRM. */
static bool has_modrm_place(const struct x86_dec *d)
{
    return d->insn.raw.modrm.offset && d->insn.raw.modrm.mod != 3;
}

void x86_known_enter(struct x86_known *all, uint64_t shape, const struct x86_dec *d,
                     const struct x86_op *op, x86_dec_fn *fn)
{
    enum values values = values_of(fn);
    struct known *k = find(all, shape, d->mode);

    if (values == LOOKED_AT || x86_dec_is_sys(d) || (d->insn.raw.disp.size && !has_modrm_place(d)))
        return;
    all->any = true;
    *k = (struct known){.shape = shape, .mode = d->mode, .len = op->len, .end = d->end, .op = *op};
    if (values == NONE)
        return;
    k->op.disp = 0;
    k->disp = d->insn.raw.disp.offset;
    k->disp_size = d->insn.raw.disp.size / 8;
    if (k->op.base == X86_RIP0)
        k->op.index = X86_ZERO; /* it may have overflowed */
    k->imm = d->insn.raw.imm[0].offset;
    k->imm_size = d->insn.raw.imm[0].size / 8;
    k->imm_signed = d->insn.raw.imm[0].is_signed && values != POPPED;
    k->relative = values == DISTANCE && x86_dec_is_imm(d, 0);
}
