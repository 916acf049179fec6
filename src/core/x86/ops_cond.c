/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_cond.c: CMOVcc and SETcc. */
#include "core/x86/ops_common.h"

/* The second operand is always read; a 32-bit destination is always written. */
#define COND(code)                                                                                 \
    CMOV(code, 16)                                                                                 \
    CMOV(code, 32)                                                                                 \
    CMOV(code, 64)                                                                                 \
    X86_HANDLER(set##code##_r)                                                                     \
    {                                                                                              \
        x86_w8(cpu, op->r, x86_cond(cpu->cc, code));                                               \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(set##code##_m)                                                                     \
    {                                                                                              \
        if (x86_unlikely(!x86_st8(cpu, op, x86_cond(cpu->cc, code))))                              \
            return x86_leave(cpu, op);                                                             \
        X86_NEXT(cpu, op);                                                                         \
    }
#define CMOV(code, bits)                                                                           \
    X86_HANDLER(cmov##code##_##bits##_r)                                                           \
    {                                                                                              \
        uint##bits##_t v = x86_r##bits(cpu, x86_cond(cpu->cc, code) ? op->rm : op->r);             \
        x86_w##bits(cpu, op->r, v);                                                                \
        X86_NEXT(cpu, op);                                                                         \
    }                                                                                              \
    X86_HANDLER(cmov##code##_##bits##_m)                                                           \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        if (x86_unlikely(!x86_ld##bits(cpu, op, &v)))                                              \
            return x86_leave(cpu, op);                                                             \
        if (!x86_cond(cpu->cc, code))                                                              \
            v = x86_r##bits(cpu, op->r);                                                           \
        x86_w##bits(cpu, op->r, v);                                                                \
        X86_NEXT(cpu, op);                                                                         \
    }

#define FOR_ALL_CONDITIONS(X)                                                                      \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
FOR_ALL_CONDITIONS(COND)

#define CMOV_ROW(code)                                                                             \
    {{cmov##code##_16_r, cmov##code##_32_r, cmov##code##_64_r},                                    \
     {cmov##code##_16_m, cmov##code##_32_m, cmov##code##_64_m}},
static x86_fn *const cmov_fn[16][2][3] = {FOR_ALL_CONDITIONS(CMOV_ROW)};

#define SET_ROW(code) {set##code##_r, set##code##_m},
static x86_fn *const set_fn[16][2] = {FOR_ALL_CONDITIONS(SET_ROW)};

/* arg: condition code. */
bool x86_dec_cmov(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    bool mem = x86_dec_is_mem(d, 1);

    if (!(d->cpu->feat.l1_edx & 1u << 15))
        return false;
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    if (mem)
        x86_dec_mem(d, 1, op);
    else
        op->rm = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = cmov_fn[arg][mem][x86_log2_size(x86_dec_size(d, 0)) - 1];
    return true;
}

bool x86_dec_set(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    bool mem = x86_dec_is_mem(d, 0);

    if (mem)
        x86_dec_mem(d, 0, op);
    else
        op->r = x86_dec_reg(d->opnd[0].reg.value);
    op->fn = set_fn[arg][mem];
    return true;
}
