/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_mov.c: MOV and its kin, LEA, BSWAP, XLAT, sign extension of the accumulator. */
#include "core/x86/ops_common.h"
#include "core/x86/ops_sys.h"

/* ---- MOV ---- */

enum form { RR, RI, RM, MR, MI, ABS_LOAD, ABS_STORE, NFORMS };

/* The ABS forms are those of opcodes A0-A3 with an address of 64 bits, in op->imm. */
#define MOV_FORMS(bits)                                                                            \
    X86_HANDLER(mov##bits##_rr)                                                                    \
    {                                                                                              \
        x86_w##bits(cpu, op->r, x86_r##bits(cpu, op->rm));                                         \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mov##bits##_ri)                                                                    \
    {                                                                                              \
        x86_w##bits(cpu, op->r, (uint##bits##_t)op->imm);                                          \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mov##bits##_rm)                                                                    \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &v)))                                              \
            return x86_leave(cpu, op);                                                             \
        x86_w##bits(cpu, op->r, v);                                                                \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mov##bits##_mr)                                                                    \
    {                                                                                              \
        if (x86_unlikely(!x86_st##bits(cpu, op, x86_r##bits(cpu, op->r))))                         \
            return x86_leave(cpu, op);                                                             \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mov##bits##_mi)                                                                    \
    {                                                                                              \
        if (x86_unlikely(!x86_st##bits(cpu, op, (uint##bits##_t)op->imm)))                         \
            return x86_leave(cpu, op);                                                             \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(mov##bits##_abs_load)                                                              \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        uint64_t a;                                                                                \
        if (!x86_linear_at(cpu, op, op->imm, bits / 8, false, &a) ||                               \
            !x86_read(cpu, op, op->seg, a, &v, bits / 8))                                          \
            return x86_leave(cpu, op);                                                             \
        x86_w##bits(cpu, op->r, v);                                                                \
        X86_RETURN(cpu, op);                                                                       \
    }                                                                                              \
    X86_HANDLER(mov##bits##_abs_store)                                                             \
    {                                                                                              \
        uint##bits##_t v = x86_r##bits(cpu, op->r);                                                \
        uint64_t a;                                                                                \
        if (!x86_linear_at(cpu, op, op->imm, bits / 8, true, &a) ||                                \
            !x86_write(cpu, op, op->seg, a, &v, bits / 8))                                         \
            return x86_leave(cpu, op);                                                             \
        X86_RETURN(cpu, op);                                                                       \
    }
MOV_FORMS(8)
MOV_FORMS(16)
MOV_FORMS(32)
MOV_FORMS(64)

#define MOV_ROW(form)                                                                              \
    {                                                                                              \
        mov8_##form, mov16_##form, mov32_##form, mov64_##form                                      \
    }
static x86_fn *const mov_fn[NFORMS][4] = {
    [RR] = MOV_ROW(rr),
    [RI] = MOV_ROW(ri),
    [RM] = MOV_ROW(rm),
    [MR] = MOV_ROW(mr),
    [MI] = MOV_ROW(mi),
    [ABS_LOAD] = MOV_ROW(abs_load),
    [ABS_STORE] = MOV_ROW(abs_store),
};

/* Memory operand i of a MOV: true if its address needs an ABS form. */
static bool mov_mem(const struct x86_dec *d, unsigned i, struct x86_op *op)
{
    const ZydisDecodedOperandMem *m = &d->opnd[i].mem;

    x86_dec_mem(d, i, op);
    if (m->base != ZYDIS_REGISTER_NONE || m->index != ZYDIS_REGISTER_NONE ||
        m->disp.value == (int32_t)m->disp.value)
        return false;
    op->imm = (uint64_t)m->disp.value;
    return true;
}

bool x86_dec_mov(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    unsigned size = x86_log2_size(x86_dec_size(d, 0));
    enum form form;

    if (x86_dec_is_sys(d))
        return x86_dec_mov_sys(d, op, arg);
    if (x86_dec_is_mem(d, 0)) {
        form = mov_mem(d, 0, op) ? ABS_STORE : MR;
        if (x86_dec_is_imm(d, 1)) {
            form = MI;
            op->imm = x86_dec_imm(d, 1);
        } else {
            op->r = x86_dec_reg(d->opnd[1].reg.value);
        }
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        if (x86_dec_is_imm(d, 1)) {
            form = RI;
            op->imm = x86_dec_imm(d, 1);
        } else if (x86_dec_is_mem(d, 1)) {
            form = mov_mem(d, 1, op) ? ABS_LOAD : RM;
        } else {
            form = RR;
            op->rm = x86_dec_reg(d->opnd[1].reg.value);
        }
    }
    op->fn = mov_fn[form][size];
    return true;
}

/* MOVNTI (arg 0) and MOVDIRI (arg 1): plain stores here. */
bool x86_dec_movnti(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (arg ? !(d->cpu->feat.l7_ecx & 1u << 27) : !(d->cpu->feat.l1_edx & 1u << 26))
        return false;
    x86_dec_mem(d, 0, op);
    op->r = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = mov_fn[MR][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* ---- MOVZX, MOVSX, MOVSXD ---- */

#define EXTEND(name, from, to, type)                                                               \
    X86_HANDLER(name##_r)                                                                          \
    {                                                                                              \
        x86_w##to(cpu, op->r, (uint##to##_t)(type)x86_r##from(cpu, op->rm));                       \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(name##_m)                                                                          \
    {                                                                                              \
        uint##from##_t v;                                                                          \
        if (x86_unlikely(!x86_ld##from(cpu, op, &v)))                                              \
            return x86_leave(cpu, op);                                                             \
        x86_w##to(cpu, op->r, (uint##to##_t)(type)v);                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define EXTENDS(from, to)                                                                          \
    EXTEND(movzx##from##_##to, from, to, uint##from##_t)                                           \
    EXTEND(movsx##from##_##to, from, to, int##from##_t)
EXTENDS(8, 16)
EXTENDS(8, 32)
EXTENDS(8, 64)
EXTENDS(16, 16)
EXTENDS(16, 32)
EXTENDS(16, 64)
EXTENDS(32, 32)
EXTENDS(32, 64)

/* [sign][source size][destination size][memory] */
#define EXTEND_PAIR(k, from, to)                                                                   \
    {                                                                                              \
        k##from##_##to##_r, k##from##_##to##_m                                                     \
    }
#define EXTEND_ROWS(k)                                                                             \
    {                                                                                              \
        [0] = {[1] = EXTEND_PAIR(k, 8, 16), EXTEND_PAIR(k, 8, 32), EXTEND_PAIR(k, 8, 64)},         \
        [1] = {[1] = EXTEND_PAIR(k, 16, 16), EXTEND_PAIR(k, 16, 32), EXTEND_PAIR(k, 16, 64)},      \
        [2] = {[2] = EXTEND_PAIR(k, 32, 32), EXTEND_PAIR(k, 32, 64)},                              \
    }
static x86_fn *const extend_fn[2][3][4][2] = {EXTEND_ROWS(movzx), EXTEND_ROWS(movsx)};

/* arg 1: with sign. */
bool x86_dec_movx(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    unsigned to = x86_log2_size(x86_dec_size(d, 0)), from = x86_log2_size(x86_dec_size(d, 1));
    bool mem = x86_dec_is_mem(d, 1);

    /* MOVSXD r16 reads 16 bits only. */
    if (from > to)
        from = to;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (mem)
        x86_dec_mem(d, 1, op);
    else
        op->rm = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = extend_fn[arg][from][to][mem];
    return op->fn;
}

/* ---- MOVBE, BSWAP ---- */

#define MOVBE(bits)                                                                                \
    X86_HANDLER(movbe##bits##_rm)                                                                  \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &v)))                                              \
            return x86_leave(cpu, op);                                                             \
        x86_w##bits(cpu, op->r, __builtin_bswap##bits(v));                                         \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(movbe##bits##_mr)                                                                  \
    {                                                                                              \
        if (x86_unlikely(!x86_st##bits(cpu, op, __builtin_bswap##bits(x86_r##bits(cpu, op->r)))))  \
            return x86_leave(cpu, op);                                                             \
        X86_NEXT(cpu, op);                                                                         \
    }
MOVBE(16)
MOVBE(32)
MOVBE(64)

bool x86_dec_movbe(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[2][4] = {{NULL, movbe16_rm, movbe32_rm, movbe64_rm},
                                     {NULL, movbe16_mr, movbe32_mr, movbe64_mr}};
    bool store = x86_dec_is_mem(d, 0);

    (void)arg;
    if (!(d->cpu->feat.l1_ecx & 1u << 22))
        return false;
    x86_dec_mem(d, !store, op);
    op->r = x86_dec_reg(d->opnd[store].reg.value);
    op->fn = fn[store][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* What the manuals leave undefined: the host decides. */
X86_HANDLER(bswap16)
{
    uint16_t v = x86_r16(cpu, op->r);

    __asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(v)); /* bswap ax */
    x86_w16(cpu, op->r, v);
    X86_NEXT(cpu, op);
}

X86_HANDLER(bswap32)
{
    x86_w32(cpu, op->r, __builtin_bswap32(x86_r32(cpu, op->r)));
    X86_NEXT(cpu, op);
}

X86_HANDLER(bswap64)
{
    x86_w64(cpu, op->r, __builtin_bswap64(x86_r64(cpu, op->r)));
    X86_NEXT(cpu, op);
}

bool x86_dec_bswap(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[4] = {NULL, bswap16, bswap32, bswap64};

    (void)arg;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    op->fn = fn[x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* ---- LEA ---- */

X86_HANDLER(lea64_a64)
{
    cpu->gpr[op->r] = x86_offset(cpu, op);
    X86_NEXT(cpu, op);
}

/* 32 bits of a 32 or 64-bit address, or 64 bits of a 32-bit address. */
X86_HANDLER(lea32)
{
    cpu->gpr[op->r] = (uint32_t)x86_offset(cpu, op);
    X86_NEXT(cpu, op);
}

X86_HANDLER(lea32_a16)
{
    cpu->gpr[op->r] = (uint16_t)x86_offset(cpu, op);
    X86_NEXT(cpu, op);
}

X86_HANDLER(lea16)
{
    x86_w16(cpu, op->r, (uint16_t)x86_offset(cpu, op));
    X86_NEXT(cpu, op);
}

bool x86_dec_lea(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    unsigned size = x86_dec_size(d, 0);

    (void)arg;
    x86_dec_mem(d, 1, op);
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (size == 2)
        op->fn = lea16;
    else if (op->asz == X86_A16)
        op->fn = lea32_a16;
    else if (size == 8 && op->asz == X86_A64)
        op->fn = lea64_a64;
    else
        op->fn = lea32;
    return true;
}

/* ---- XLAT ---- */

X86_HANDLER(xlat)
{
    uint64_t a;
    uint8_t v;

    if (!x86_linear_at(cpu, op, cpu->gpr[VMM_RBX] + x86_r8(cpu, 0), 1, false, &a) ||
        !x86_read(cpu, op, op->seg, a, &v, 1))
        return x86_leave(cpu, op);
    x86_w8(cpu, 0, v);
    X86_RETURN(cpu, op);
}

bool x86_dec_xlat(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    x86_dec_mem(d, 0, op);
    op->fn = xlat;
    return true;
}

/* ---- CBW CWDE CDQE, CWD CDQ CQO ---- */

X86_HANDLER(cbw)
{
    x86_w16(cpu, VMM_RAX, (uint16_t)(int8_t)x86_r16(cpu, VMM_RAX));
    X86_NEXT(cpu, op);
}

X86_HANDLER(cwde)
{
    x86_w32(cpu, VMM_RAX, (uint32_t)(int16_t)x86_r32(cpu, VMM_RAX));
    X86_NEXT(cpu, op);
}

X86_HANDLER(cdqe)
{
    x86_w64(cpu, VMM_RAX, (uint64_t)(int32_t)x86_r64(cpu, VMM_RAX));
    X86_NEXT(cpu, op);
}

/* arg: size of the source. */
bool x86_dec_cbw(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d;
    op->fn = arg == 1 ? cbw : arg == 2 ? cwde : cdqe;
    return true;
}

X86_HANDLER(cwd)
{
    x86_w16(cpu, VMM_RDX, (uint16_t)((int16_t)x86_r16(cpu, VMM_RAX) >> 15));
    X86_NEXT(cpu, op);
}

X86_HANDLER(cdq)
{
    x86_w32(cpu, VMM_RDX, (uint32_t)((int32_t)x86_r32(cpu, VMM_RAX) >> 31));
    X86_NEXT(cpu, op);
}

X86_HANDLER(cqo)
{
    x86_w64(cpu, VMM_RDX, (uint64_t)((int64_t)x86_r64(cpu, VMM_RAX) >> 63));
    X86_NEXT(cpu, op);
}

/* arg: size of the source. */
bool x86_dec_cwd(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d;
    op->fn = arg == 2 ? cwd : arg == 4 ? cdq : cqo;
    return true;
}
