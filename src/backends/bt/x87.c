/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/x87.c: x87 and MMX instructions, with the guest's registers in the host's. */
#include "core/x86/x87.h"
#include "backends/bt/gen.h"

/*
 * Only while all exceptions are masked, so that none can be pending. The instruction and data
 * pointers are kept in x86_cpu, as the host's are those of the copy. That of the last instruction
 * is stored at the block's end, or before a handler is called.
 */

#define STATE (BT_SIMD_X87 | BT_SIMD_W_X87)

/* FCS and FDS are always 0; FDP is only set by unmasked exceptions (CPUID.(7,0):EBX). */
#define NO_FCS   (1u << 13)
#define FDP_EXCP (1u << 6)

/* ---- pointers ---- */

/* FCS and FDS are 0, or FCS or FDS a selector. Changes RCX. */
static void put_selector(struct gen *g, int32_t to, unsigned seg)
{
    int32_t from = BT_FIELD(seg) + (int32_t)seg * (int32_t)sizeof(struct vmm_segment) +
                   (int32_t)offsetof(struct vmm_segment, selector);

    _Static_assert(offsetof(struct x86_cpu, fpu.fds) == offsetof(struct x86_cpu, fpu.fcs) + 2,
                   "both are written");
    if (g->cpu->feat.l7_ebx & NO_FCS) {
        em_rm(&g->e, false, 0xc7, 0, GEN_FIELD(fpu.fcs));
        em32(&g->e, 0);
        return;
    }
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb7}, H_RCX, em_at(H_RBP, from));
    em_insn(&g->e, (struct em_op){.op = OP_STORE, .half = true}, H_RCX, em_at(H_RBP, to));
}

void gen_x87_point(struct gen *g, unsigned due)
{
    if (!due)
        return;
    gen_page_address(g, H_RCX, (int64_t)g->t->offset + g->b->ops[due - 1].off);
    em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(fpu.fip));
    put_selector(g, BT_FIELD(fpu.fcs), VMM_CS);
}

/* Changes RCX, and RAX unless FDP does not matter. No flags. */
static void put_pointers(struct gen *g, const struct vec_copy *c)
{
    if (c->form.mem_size && !(g->cpu->feat.l7_ebx & FDP_EXCP)) {
        gen_lea(g, H_RCX, g->op->asz == X86_A64);
        em_rm(&g->e, true, OP_STORE, H_RCX, GEN_FIELD(fpu.fdp));
        if (!(g->cpu->feat.l7_ebx & NO_FCS))
            put_selector(g, BT_FIELD(fpu.fds), g->op->seg);
    }
    g->x87_due = (uint8_t)(g->i + 1);
}

/* The operand's address without RAX, where a group has its own. */
static bool has_registers(const struct gen *g)
{
    return (g->op->base == X86_ZERO || (g->op->base < 16 && gen_host(g, g->op->base) != H_NONE)) &&
           (g->op->index == X86_ZERO || (g->op->index < 16 && gen_host(g, g->op->index) != H_NONE));
}

/* ---- instructions ---- */

/* FCMOVcc reads flags; what FCOMI leaves as they are is the host's business. */
bool gen_x87_uses_flags(const struct gen_insn *in)
{
    return in->vec->form.flags || in->insn->tests_flags;
}

static bool gen_operation(struct gen *g, const struct gen_insn *in)
{
    const struct vec_copy *c = in->vec;
    struct em_rm rm = em_reg(0);

    gen_simd(g, STATE);
    if (c->form.mem_size && g->held && !has_registers(g))
        return false;
    if (c->form.mem_size && g->held)
        rm = gen_held(g, g->op->disp);
    else if (c->form.mem_size && !gen_mem(g, c->form.mem_size, c->form.store))
        return false;
    if (gen_x87_uses_flags(in))
        gen_need_flags(g);
    gen_put_core(g, &c->core, rm);
    if (c->form.flags)
        gen_flags_set(g);
    put_pointers(g, c);
    return true;
}

/* FLDCW: not if it unmasks something. */
static bool load_control(struct gen *g)
{
    gen_simd(g, STATE);
    if (!gen_mem(g, 2, false))
        return false;
    em_insn(&g->e, (struct em_op){.map = 1, .op = 0xb7}, H_RCX, em_at(H_RAX, 0));
    em_rr(&g->e, false, 0xf7, 2, H_RCX); /* NOT */
    EM(&g->e, 0xf6, 0xc1, 0x3f);         /* TEST CL */
    gen_slow_if(g, CC_NZ);
    em_rm(&g->e, false, 0xd9, 5, em_at(H_RAX, 0));
    return true;
}

/* FNSTCW, FNSTSW */
static bool store_word(struct gen *g, unsigned op)
{
    if (g->opnd[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        gen_simd(g, STATE);
        gen_get(g, H_RAX, VMM_RAX);
        EM(&g->e, 0xdf, 0xe0);
        gen_put(g, VMM_RAX, H_RAX);
        return true;
    }
    gen_simd(g, STATE);
    if (!gen_mem(g, 2, true))
        return false;
    em_rm(&g->e, false, op, 7, em_at(H_RAX, 0));
    return true;
}

static bool gen_control(struct gen *g)
{
    switch (g->insn->mnemonic) {
    case ZYDIS_MNEMONIC_FLDCW:
        return load_control(g);
    case ZYDIS_MNEMONIC_FNSTCW:
        return store_word(g, 0xd9);
    case ZYDIS_MNEMONIC_FNSTSW:
        return store_word(g, 0xdd);
    case ZYDIS_MNEMONIC_FWAIT: /* nothing can be pending */
        gen_simd(g, STATE);
        return true;
    case ZYDIS_MNEMONIC_FNCLEX:
        gen_simd(g, STATE);
        EM(&g->e, 0xdb, 0xe2);
        return true;
    default:
        return false;
    }
}

static bool is_valid(const struct x86_dec *d, struct gen_insn *in, struct vec_copy *room)
{
    in->x87_control = x87_is_control(in->insn->mnemonic);
    if (!in->x87_control)
        return x87_dec_copy(d, H_RAX, room);
    memset(room, 0, sizeof(*room));
    return vec_may_execute(d);
}

void gen_find_x87(const struct x86_dec *d, struct gen_insn *in, struct vec_copy *room)
{
    in->is_x87 =
        in->insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
        ((in->insn->opcode & 0xf8) == 0xd8 || in->insn->mnemonic == ZYDIS_MNEMONIC_FWAIT) &&
        is_valid(d, in, room);
    if (in->is_x87)
        in->vec = room;
}

uint32_t gen_x87_needs(const struct gen *g, const struct gen_insn *in)
{
    return in->is_x87 && g->bt->host.xsave ? STATE : 0;
}

bool gen_x87_may_group(const struct gen_insn *in)
{
    return !in->x87_control && !gen_x87_uses_flags(in);
}

bool gen_x87(struct gen *g)
{
    const struct gen_insn *in = &g->all[g->i];

    if (!in->is_x87 || !g->bt->host.xsave)
        return false;
    return in->x87_control ? gen_control(g) : gen_operation(g, in);
}
