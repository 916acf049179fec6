/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/div.c: DIV and IDIV of 32 and 64 bits. */
#include "backends/bt/gen.h"

#define CC_AE 3
#define CC_BE 6

/* The divisor into RCX. False: not possible. */
static bool divisor(struct gen *g, bool wide)
{
    const struct gen_operand *o = &g->opnd[0];
    uint8_t slot;

    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!gen_mem(g, wide ? 8 : 4, false))
            return false;
        em_rm(&g->e, wide, OP_LOAD, H_RCX, em_at(H_RAX, 0));
        return true;
    }
    if (!gen_reg_slot(o->reg.value, &slot))
        return false;
    gen_spill_flags(g);
    gen_get(g, H_RCX, slot);
    return true;
}

/*
 * The host must never raise #DE: the handler does what could. The quotient of an unsigned division
 * fits if the upper half of the dividend is below the divisor, which excludes 0, too. The dividend
 * of a signed one is nearly always the extension of RAX; then only 0 and -1 can be bad.
 */
static void check(struct gen *g, bool wide, bool is_signed)
{
    struct em *e = &g->e;

    if (!is_signed) {
        em_rr(e, wide, OP_CMP, H_RDX, H_RCX);
        gen_slow_if(g, CC_AE);
        return;
    }
    em_rm(e, wide, OP_LEA, H_RAX, em_at(H_RCX, 1));
    em_rr(e, wide, OP_IMM8, EXT_CMP, H_RAX);
    em8(e, 1);
    gen_slow_if(g, CC_BE);
    gen_get(g, H_RAX, VMM_RAX);
    em_rr(e, wide, OP_SHIFT, EXT_SAR, H_RAX);
    em8(e, wide ? 63 : 31);
    em_rr(e, wide, OP_CMP, H_RAX, H_RDX);
    gen_slow_if(g, CC_NZ);
}

/* The flags are undefined: they stay, unless they are to be what the handlers leave. */
bool gen_div(struct gen *g)
{
    bool wide = g->opnd[0].size == 64, is_signed = g->insn->mnemonic == ZYDIS_MNEMONIC_IDIV;

    if (g->opnd[0].size < 32 || gen_host(g, VMM_RDX) != H_RDX || !divisor(g, wide))
        return false;
    check(g, wide, is_signed);
    if (g->bt->exact)
        gen_need_flags(g);
    gen_get(g, H_RAX, VMM_RAX);
    em_rr(&g->e, wide, 0xf7, is_signed ? 7 : 6, H_RCX);
    gen_put(g, VMM_RAX, H_RAX);
    if (g->bt->exact)
        gen_flags_set(g);
    return true;
}
