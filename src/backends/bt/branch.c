/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/branch.c: how a block ends: near branches. */
#include "backends/bt/gen.h"

/* ---- Jcc ---- */

/* The condition of Jcc from cc in memory: the host's condition to jump on. */
static unsigned test_cc(struct gen *g, unsigned code)
{
    static const uint16_t mask[] = {X86_CC_OF, X86_CC_CF, X86_CC_ZF, X86_CC_CF | X86_CC_ZF,
                                    X86_CC_SF, X86_CC_PF};
    struct em *e = &g->e;

    if (code >= 12) {
        gen_load_cc(g);
        return code;
    }
    em_insn(e, (struct em_op){.op = 0xf7, .half = true}, 0, GEN_FIELD(cc)); /* TEST */
    em8(e, mask[code >> 1] & 0xff);
    em8(e, mask[code >> 1] >> 8);
    return code & 1 ? CC_Z : CC_NZ;
}

int gen_condition(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_JO:
        return 0;
    case ZYDIS_MNEMONIC_JNO:
        return 1;
    case ZYDIS_MNEMONIC_JB:
        return 2;
    case ZYDIS_MNEMONIC_JNB:
        return 3;
    case ZYDIS_MNEMONIC_JZ:
        return 4;
    case ZYDIS_MNEMONIC_JNZ:
        return 5;
    case ZYDIS_MNEMONIC_JBE:
        return 6;
    case ZYDIS_MNEMONIC_JNBE:
        return 7;
    case ZYDIS_MNEMONIC_JS:
        return 8;
    case ZYDIS_MNEMONIC_JNS:
        return 9;
    case ZYDIS_MNEMONIC_JP:
        return 10;
    case ZYDIS_MNEMONIC_JNP:
        return 11;
    case ZYDIS_MNEMONIC_JL:
        return 12;
    case ZYDIS_MNEMONIC_JNL:
        return 13;
    case ZYDIS_MNEMONIC_JLE:
        return 14;
    case ZYDIS_MNEMONIC_JNLE:
        return 15;
    default:
        return -1;
    }
}

/* The target of a relative branch, from the page; false: too far for a displacement. */
static bool relative(const struct gen *g, int64_t *offset)
{
    int64_t far;

    *offset = (int64_t)g->t->offset + (int64_t)g->op->imm;
    /* As gen_page_address has it, of the target or its page. */
    far = *offset + g->page_delta;
    return g->op->size == (g->is64 ? 8 : 4) && far >= (int64_t)INT32_MIN + MMU_PAGE_SIZE &&
           far <= INT32_MAX;
}

static int64_t next(const struct gen *g)
{
    return (int64_t)g->t->offset + g->op->off + g->op->len;
}

static bool gen_jcc(struct gen *g, unsigned code)
{
    int64_t target;

    if (!relative(g, &target))
        return false;
    if (!g->in_cc)
        gen_need_flags(g);
    if (g->in_host && !g->region)
        gen_save_flags(g);
    else if (!g->in_host)
        code = test_cc(g, code);
    gen_exit_if(g, code, target);
    gen_exit_here(g, next(g), false);
    return true;
}

/* ---- JMP, CALL, RET ---- */

static bool is_near(const struct gen *g)
{
    return g->insn->is_near;
}

/* RAX = the target of an indirect branch. False: not possible. */
static bool indirect(struct gen *g)
{
    const struct gen_operand *o = &g->opnd[0];
    unsigned size = g->is64 ? 8 : 4;

    if (g->op->size != size)
        return false;
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!gen_mem(g, size, false))
            return false;
        em_rm(&g->e, g->is64, OP_LOAD, H_RAX, em_at(H_RAX, 0));
    } else {
        gen_spill_flags(g);
        gen_get(g, H_RAX, g->op->r);
        if (!g->is64)
            em_rr(&g->e, false, OP_LOAD, H_RAX, H_RAX);
    }
    return true;
}

static bool gen_jmp(struct gen *g)
{
    int64_t target;

    if (!is_near(g))
        return false;
    if (g->opnd[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        if (!relative(g, &target))
            return false;
        if (!g->region)
            gen_spill_flags(g);
        gen_exit_here(g, target, true);
        return true;
    }
    if (!indirect(g))
        return false;
    if (g->region && gen_region_indirect(g))
        return true;
    gen_go_indirect(g);
    return true;
}

static void push_return(struct gen *g)
{
    int32_t size = g->is64 ? 8 : 4;

    gen_sp(g, H_RAX, -size);
    gen_probe_off(g, &gen_stack, (unsigned)size, true);
    gen_page_address(g, H_RCX, next(g));
    em_rm(&g->e, g->is64, OP_STORE, H_RCX, em_at(H_RAX, 0));
    gen_sp(g, gen_host(g, VMM_RSP), -size);
    if (!g->region || !gen_region_expects(g))
        gen_expect_return(g, next(g));
}

static bool gen_call(struct gen *g)
{
    int64_t target;

    if (!is_near(g))
        return false;
    if (g->opnd[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        if (!relative(g, &target))
            return false;
        if (g->region)
            gen_free_flags(g);
        else
            gen_spill_flags(g);
        if (!g->region || !gen_region_calls(g))
            gen_check_direct(g, target);
        push_return(g);
        gen_exit_here(g, target, false);
        return true;
    }
    if (!indirect(g))
        return false;
    gen_find_indirect(g);
    push_return(g);
    gen_go_found(g);
    return true;
}

/* The flags have to do without the host's, `in_cc`: and without recipes. RAX is kept. */
static void put_flags_aside(struct gen *g, bool in_cc)
{
    if (!g->in_cc && (in_cc || !g->recipe.len)) {
        em_rr(&g->e, true, OP_LOAD, H_RCX, H_RAX);
        gen_save_flags(g);
        em_rr(&g->e, true, OP_LOAD, H_RAX, H_RCX);
    }
    g->in_host = false;
}

void gen_load_return(struct gen *g)
{
    em_rm(&g->e, g->is64, OP_LOAD, H_RAX, em_reg(gen_host(g, VMM_RSP)));
    gen_probe(g, g->is64 ? 8 : 4, false);
    em_rm(&g->e, g->is64, OP_LOAD, H_RAX, em_at(H_RAX, 0));
}

static bool gen_ret(struct gen *g)
{
    unsigned size = g->is64 ? 8 : 4;
    int32_t pop = (int32_t)(size + g->op->imm);
    bool inside = g->region && gen_region_returns(g);
    bool recipe = inside && !(g->recipe.regs >> VMM_RSP & 1); /* it may stay one */

    if (!is_near(g) || g->op->size != size)
        return false;
    if (g->held) {
        em_rm(&g->e, g->is64, OP_LOAD, H_RAX, gen_held(g, 0));
        put_flags_aside(g, !recipe);
        if (g->region && gen_needs_look(&g->group))
            gen_group_ends(g); /* apart, the address is loaded in another way */
    } else {
        if (recipe)
            gen_free_flags(g);
        else
            gen_spill_flags(g);
        gen_load_return(g);
    }
    if (inside)
        gen_region_return(g, pop);
    else
        gen_return(g, pop);
    return true;
}

bool gen_branch(struct gen *g)
{
    int code = gen_condition(g->insn->mnemonic);

    if (code >= 0)
        return gen_jcc(g, (unsigned)code);
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return gen_jmp(g);
    case ZYDIS_MNEMONIC_CALL:
        return gen_call(g);
    case ZYDIS_MNEMONIC_RET:
        return gen_ret(g);
    default:
        return gen_sys_branch(g);
    }
}
