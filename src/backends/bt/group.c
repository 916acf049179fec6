/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/group.c: accesses that share one look into the TLB. */
#include "backends/bt/gen.h"

#define MAX_RANGE 128 /* bytes: the larger, the more often a page boundary is in it */
#define NONE      0xff

struct em_rm gen_held(const struct gen *g, int64_t disp)
{
    return em_at(H_RAX, (int32_t)(disp + g->group.delta - g->group.lo));
}

static int64_t stack_word(const struct gen *g)
{
    return g->is64 ? 8 : 4;
}

/* ---- what an op does ---- */

struct effect {
    bool access;
    uint8_t base, index, scale;
    int64_t disp;
    unsigned size;
    uint8_t align; /* of a vector operand */
    bool write;
    uint8_t moves; /* register that changes by `by`, or NONE */
    int64_t by;
    uint32_t changes; /* registers that change in other ways */
};

static bool gpr_slot(ZydisRegister reg, uint8_t *slot)
{
    unsigned id = (unsigned)ZydisRegisterGetId(reg);

    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        *slot = (uint8_t)(id < 4 ? id : id - 4);
        return true;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        *slot = (uint8_t)id;
        return true;
    default:
        return false;
    }
}

static void stack_access(const struct gen *g, struct effect *e, bool push)
{
    int64_t size = stack_word(g);

    e->access = true;
    e->base = VMM_RSP;
    e->index = X86_ZERO;
    e->disp = push ? -size : 0;
    e->size = (unsigned)size;
    e->write = push;
    e->moves = VMM_RSP;
    e->by = push ? -size : size;
}

/* ADD, SUB, INC, DEC of a whole register by a constant; LEA of itself. */
static void find_move(const struct gen *g, const struct gen_insn *in, const struct x86_op *op,
                      struct effect *e)
{
    const ZydisDecodedOperand *d = &in->opnd[0], *s = &in->opnd[1];
    unsigned bits = g->is64 ? 64 : 32;
    uint8_t slot;

    if (d->type != ZYDIS_OPERAND_TYPE_REGISTER || d->size != bits || !gpr_slot(d->reg.value, &slot))
        return;
    switch (in->insn.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return;
        e->by = in->insn.mnemonic == ZYDIS_MNEMONIC_ADD ? (int32_t)s->imm.value.s
                                                        : -(int64_t)(int32_t)s->imm.value.s;
        break;
    case ZYDIS_MNEMONIC_INC:
        e->by = 1;
        break;
    case ZYDIS_MNEMONIC_DEC:
        e->by = -1;
        break;
    case ZYDIS_MNEMONIC_LEA:
        if (op->base != slot || op->index != X86_ZERO || op->asz != (g->is64 ? X86_A64 : X86_A32))
            return;
        e->by = op->disp;
        break;
    default:
        return;
    }
    e->moves = slot;
    e->changes &= ~(1u << slot);
}

/* False: an op that no group goes over. */
static bool find_effect(const struct gen *g, unsigned i, struct effect *e)
{
    const struct gen_insn *in = &g->all[i];
    const struct x86_op *op = &g->b->ops[i];
    ZydisMnemonic m = in->insn.mnemonic;
    bool ret = m == ZYDIS_MNEMONIC_RET && in->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR;
    uint8_t slot;

    *e = (struct effect){.moves = NONE};
    if (!in->known || (!ret && !gen_may_group(in)))
        return false;
    for (unsigned k = 0; k < in->insn.operand_count_visible; k++) {
        const ZydisDecodedOperand *o = &in->opnd[k];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (!gpr_slot(o->reg.value, &slot)) {
                if (in->is_vec)
                    continue;
                return false;
            }
            if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
                e->changes |= 1u << slot;
        } else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && m != ZYDIS_MNEMONIC_LEA &&
                   m != ZYDIS_MNEMONIC_NOP) {
            if (op->ea != (g->is64 ? X86_EA_FLAT : X86_EA_FLAT32) || m == ZYDIS_MNEMONIC_PUSH ||
                m == ZYDIS_MNEMONIC_POP)
                return false;
            e->access = true;
            e->base = op->base;
            e->index = op->index;
            e->scale = op->scale;
            e->disp = op->disp;
            e->size = o->size / 8;
            e->write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
            e->align = in->is_vec ? in->vec.form.align : 0;
        }
    }
    if (ret || m == ZYDIS_MNEMONIC_PUSH || m == ZYDIS_MNEMONIC_POP) {
        if (op->size != stack_word(g) || (e->changes & 1u << VMM_RSP))
            return false;
        stack_access(g, e, m == ZYDIS_MNEMONIC_PUSH);
    } else {
        find_move(g, in, op, e);
    }
    return true;
}

/* ---- groups ---- */

static bool usable(const struct gen *g, uint8_t slot)
{
    return slot == X86_ZERO || (slot < 16 && gen_host(g, slot) != H_NONE);
}

/* One test shows whether all operands are aligned that must be. */
static bool in_phase(const struct gen_group *group, const struct effect *e)
{
    unsigned align = e->align < group->align ? e->align : group->align;

    return align <= 1 || !((e->disp + group->delta - group->phase) & (align - 1));
}

static bool fits(const struct gen_group *group, const struct effect *e)
{
    int64_t lo = e->disp + group->delta, hi = lo + e->size;

    if (e->base != group->base || e->index != group->index || e->scale != group->scale)
        return false;
    lo = lo < group->lo ? lo : group->lo;
    hi = hi > group->hi ? hi : group->hi;
    return hi - lo <= MAX_RANGE && lo == (int32_t)lo && in_phase(group, e);
}

static void take(struct gen_group *group, const struct effect *e, unsigned i)
{
    int64_t lo = e->disp + group->delta, hi = lo + e->size;

    group->lo = lo < group->lo ? lo : group->lo;
    group->hi = hi > group->hi ? hi : group->hi;
    group->write |= e->write;
    if (e->align > group->align) {
        group->align = e->align;
        group->phase = e->disp + group->delta;
    }
    group->accesses++;
    group->last = i;
}

/* The base is not known any more behind an op that changes it in other ways. */
static bool loses(const struct gen_group *group, const struct effect *e)
{
    uint32_t regs =
        (group->base < 16 ? 1u << group->base : 0) | (group->index < 16 ? 1u << group->index : 0);

    return (e->changes & regs) || (e->moves != NONE && e->moves == group->index);
}

uint32_t gen_writes(const struct gen_insn *in)
{
    uint32_t regs = 0;
    uint8_t slot;

    if (!in->known)
        return 0xffff;
    for (unsigned k = 0; k < in->insn.operand_count; k++)
        if (in->opnd[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (in->opnd[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            gpr_slot(in->opnd[k].reg.value, &slot))
            regs |= 1u << slot;
    return regs;
}

bool gen_find_group(struct gen *g, unsigned limit, struct gen_group *group)
{
    struct effect e;

    if (!find_effect(g, g->i, &e) || !e.access || !usable(g, e.base) || !usable(g, e.index))
        return false;
    *group = (struct gen_group){.first = g->i,
                                .base = e.base,
                                .index = e.index,
                                .scale = e.scale,
                                .lo = e.disp,
                                .hi = e.disp + e.size};
    for (unsigned i = g->i; i <= limit; i++) {
        if (!find_effect(g, i, &e))
            break;
        if (e.access) {
            if (!fits(group, &e))
                break;
            take(group, &e, i);
        }
        if (loses(group, &e))
            break;
        if (e.moves == group->base)
            group->delta += e.by;
    }
    return group->accesses > 1;
}

void gen_follow_base(struct gen *g)
{
    struct effect e;

    if (find_effect(g, g->i, &e) && e.moves == g->group.base)
        g->group.delta += e.by;
}
