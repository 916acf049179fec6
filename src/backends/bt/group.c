/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/group.c: accesses that share one look into the TLB. */
#include "backends/bt/gen.h"

#define MAX_RANGE 256 /* bytes: the larger, the more often a page boundary is in it */

static int64_t stack_word(const struct gen *g)
{
    return g->is64 ? 8 : 4;
}

/* ---- what an op does ---- */

static void stack_access(const struct gen *g, struct gen_effect *e, bool push)
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
                      struct gen_effect *e)
{
    const struct gen_operand *d = &in->opnd[0], *s = &in->opnd[1];
    unsigned bits = g->is64 ? 64 : 32;
    uint8_t slot;

    if (d->type != ZYDIS_OPERAND_TYPE_REGISTER || d->size != bits ||
        !gen_gpr_slot(d->reg.value, &slot))
        return;
    switch (in->insn->mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return;
        e->by = in->insn->mnemonic == ZYDIS_MNEMONIC_ADD ? (int32_t)in->imm
                                                         : -(int64_t)(int32_t)in->imm;
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

bool gen_find_effect(const struct gen *g, unsigned i, const struct gen_insn *in,
                     struct gen_effect *e)
{
    const struct x86_op *op = &g->b->ops[i];
    ZydisMnemonic m = in->insn->mnemonic;
    bool ret = m == ZYDIS_MNEMONIC_RET && in->insn->is_near;
    uint8_t slot;

    *e = (struct gen_effect){.moves = GEN_NO_MOVE};
    if (!in->known || (!ret && !gen_may_group(in)))
        return false;
    for (unsigned k = 0; k < in->insn->operand_count_visible; k++) {
        const struct gen_operand *o = &in->opnd[k];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            if (!gen_gpr_slot(o->reg.value, &slot)) {
                if (in->is_vec || in->is_x87)
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
            e->align = in->is_vec ? in->vec->form.align : 0;
        }
    }
    if (ret || m == ZYDIS_MNEMONIC_PUSH || m == ZYDIS_MNEMONIC_POP) {
        if (op->size != stack_word(g) || (e->changes & 1u << VMM_RSP))
            return false;
        stack_access(g, e, m == ZYDIS_MNEMONIC_PUSH);
        if (ret)
            e->by += (int64_t)op->imm;
    } else {
        find_move(g, in, op, e);
    }
    return true;
}

/* ---- groups ---- */

static bool usable(uint8_t slot)
{
    return slot == X86_ZERO || slot < 16;
}

/* One test shows whether all operands are aligned that must be. */
static bool in_phase(const struct gen_base *b, const struct gen_effect *e)
{
    unsigned align = e->align < b->align ? e->align : b->align;

    return align <= 1 || !((e->disp + b->delta - b->phase) & (align - 1));
}

/* What a region holds for it, if that covers the range; NULL: a look is needed. */
static const struct gen_hold *covered(const struct gen *g, const struct gen_base *b)
{
    const struct gen_hold *h = gen_hold_of(g, b);

    return h && gen_hold_covers(h, b) ? h : NULL;
}

static bool fits(const struct gen_base *b, const struct gen_effect *e)
{
    int64_t lo = e->disp + b->delta, hi = lo + e->size;

    lo = lo < b->lo ? lo : b->lo;
    hi = hi > b->hi ? hi : b->hi;
    return !b->lost && hi - lo <= MAX_RANGE && lo == (int32_t)lo && in_phase(b, e);
}

static void take(struct gen_base *b, const struct gen_effect *e)
{
    int64_t lo = e->disp + b->delta, hi = lo + e->size;

    b->lo = lo < b->lo ? lo : b->lo;
    b->hi = hi > b->hi ? hi : b->hi;
    b->write |= e->write;
    if (e->align > b->align) {
        b->align = e->align;
        b->phase = e->disp + b->delta;
    }
    b->accesses++;
}

static struct gen_base *base_of(struct gen_group *group, const struct gen_effect *e)
{
    for (unsigned k = 0; k < group->n; k++) {
        struct gen_base *b = &group->base[k];

        if (b->base == e->base && b->index == e->index && b->scale == e->scale)
            return b;
    }
    return NULL;
}

/* What has become of the registers since the beginning of the group. */
struct history {
    uint32_t changed;
    int64_t moved[16];
};

static bool start_base(struct gen_group *group, const struct history *h, const struct gen_effect *e)
{
    struct gen_base *b = &group->base[group->n];

    if (group->n == GEN_BASES || !usable(e->base) || !usable(e->index))
        return false;
    if (e->base < 16 && (h->changed >> e->base & 1))
        return false;
    if (e->index < 16 && ((h->changed >> e->index & 1) || h->moved[e->index]))
        return false;
    *b = (struct gen_base){.base = e->base, .index = e->index, .scale = e->scale};
    b->delta = e->base < 16 ? h->moved[e->base] : 0;
    b->lo = e->disp + b->delta;
    b->hi = b->lo + e->size;
    if (b->lo != (int32_t)b->lo)
        return false;
    group->n++;
    take(b, e);
    return true;
}

/* A base is not known any more behind an op that changes it in other ways. */
static bool loses(const struct gen_base *b, const struct gen_effect *e)
{
    uint32_t regs = (b->base < 16 ? 1u << b->base : 0) | (b->index < 16 ? 1u << b->index : 0);

    return (e->changes & regs) || (e->moves != GEN_NO_MOVE && e->moves == b->index);
}

static void follow(struct gen_group *group, struct history *h, const struct gen_effect *e)
{
    for (unsigned k = 0; k < group->n; k++) {
        struct gen_base *b = &group->base[k];

        b->lost |= loses(b, e);
        if (e->moves == b->base)
            b->delta += e->by;
    }
    h->changed |= e->changes;
    if (e->moves != GEN_NO_MOVE)
        h->moved[e->moves] += e->by;
}

uint32_t gen_find_writes(const struct gen_insn *in)
{
    uint32_t regs = 0;
    uint8_t slot;

    if (!in->known)
        return 0xffff;
    for (unsigned k = 0; k < in->insn->operand_count; k++)
        if (in->opnd[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (in->opnd[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            gen_gpr_slot(in->opnd[k].reg.value, &slot))
            regs |= 1u << slot;
    return regs;
}

static bool is_stack(const struct gen_base *b)
{
    return b->base == VMM_RSP && b->index == X86_ZERO;
}

/* The stack's base comes first: what PUSH and POP need does not leave another register. Else that
 * with most accesses. */
static void sort(struct gen_group *group)
{
    for (unsigned k = 1; k < group->n; k++) {
        struct gen_base *first = &group->base[0], b = *first;

        if (is_stack(first) ||
            (!is_stack(&group->base[k]) && group->base[k].accesses <= first->accesses))
            continue;
        *first = group->base[k];
        group->base[k] = b;
    }
}

bool gen_find_group(struct gen *g, unsigned limit, struct gen_group *group)
{
    const struct gen_effect *e = gen_effect(g, g->i);
    struct history h = {0};
    struct gen_group now;

    group->n = 0;
    if (!e || !e->access)
        return false;
    now.first = now.last = g->i;
    now.n = now.in_rax = now.in_rcx = 0;
    for (unsigned i = g->i; i <= limit; i++) {
        e = gen_effect(g, i);
        if (!e)
            break;
        if (e->access) {
            struct gen_base *b = base_of(&now, e);

            if (b ? !fits(b, e) : !start_base(&now, &h, e))
                break;
            if (b)
                take(b, e);
            else
                b = &now.base[now.n - 1];
            if (b->accesses > 1 || covered(g, b)) { /* a look is saved */
                *group = now;
                group->last = i;
            }
        }
        follow(&now, &h, e);
    }
    sort(group);
    for (unsigned k = 0; k < group->n; k++) {
        struct gen_base *b = &group->base[k];
        const struct gen_hold *hold = covered(g, b);

        b->delta = 0;
        b->held = hold != NULL;
        b->from = hold ? hold->off : -b->lo;
        b->cell =
            hold ? gen_hold_cell(g, hold) : BT_FIELD(tier_hold) + (int32_t)(k ? k - 1 : 0) * 8;
        b->reg = (uint8_t)(hold ? gen_hold_reg(g, hold) : H_NONE);
    }
    group->in_rax = 0;
    while (group->in_rax < group->n && group->base[group->in_rax].reg != H_NONE)
        group->in_rax++;
    group->in_rcx = GEN_BASES;
    return group->n > 0;
}

void gen_follow_base(struct gen *g)
{
    const struct gen_effect *e = gen_effect(g, g->i);

    if (!e)
        return;
    for (unsigned k = 0; k < g->group.n; k++)
        if (e->moves == g->group.base[k].base)
            g->group.base[k].delta += e->by;
}

struct em_rm gen_held(struct gen *g, int64_t disp)
{
    const struct gen_base *b = base_of(&g->group, gen_effect(g, g->i));
    unsigned k = (unsigned)(b - g->group.base);

    disp += b->delta + b->from;
    if (b->reg != H_NONE)
        return em_at(b->reg, (int32_t)disp);
    if (k == g->group.in_rax)
        return em_at(H_RAX, (int32_t)disp);
    if (k != g->group.in_rcx)
        em_rm(&g->e, true, OP_LOAD, H_RCX, em_at(H_RBP, b->cell));
    g->group.in_rcx = k;
    return em_at(H_RCX, (int32_t)disp);
}

/* ---- writing ---- */

static void check_phase(struct gen *g, const struct gen_base *b)
{
    uint8_t low = (uint8_t)(b->align - 1u);
    int32_t phase = (int32_t)(b->phase - b->lo) & low;

    if (b->align <= 1)
        return;
    if (phase) {
        em_rm(&g->e, false, OP_LEA, H_RCX, em_at(H_RAX, phase));
        EM(&g->e, 0xf6, 0xc1, low); /* TEST CL */
    } else {
        EM(&g->e, 0xa8, low); /* TEST AL */
    }
    gen_slow_if(g, CC_NZ);
}

/* The register that has the value, or `scratch` that gets it. */
static uint8_t in_register(struct gen *g, uint8_t slot, unsigned scratch)
{
    if (slot == X86_ZERO)
        return H_NONE;
    if (gen_host(g, slot) != H_NONE)
        return (uint8_t)gen_host(g, slot);
    gen_get(g, scratch, slot);
    return (uint8_t)scratch;
}

void gen_look_off(struct gen *g, const struct gen_base *b, bool cell)
{
    struct em_rm m = {.mem = true, .disp = (int32_t)b->lo};

    m.reg = in_register(g, b->base, H_RAX);
    m.index = in_register(g, b->index, H_RCX);
    m.scale = m.index == H_NONE ? 0 : b->scale;
    em_lea(&g->e, g->is64, H_RAX, m);
    if (cell)
        gen_probe_off(g, b, (unsigned)(b->hi - b->lo), b->write);
    else
        gen_probe(g, (unsigned)(b->hi - b->lo), b->write);
    check_phase(g, b);
}

void gen_group_look(struct gen *g)
{
    const struct gen_base *first = &g->group.base[g->group.in_rax];

    for (unsigned k = g->group.n; k-- > g->group.in_rax + 1;) {
        const struct gen_base *b = &g->group.base[k];

        if (b->held)
            continue;
        gen_look_off(g, b, true);
        em_rm(&g->e, true, OP_STORE, H_RAX, em_at(H_RBP, b->cell));
    }
    if (g->group.in_rax == g->group.n)
        return;
    if (!first->held)
        gen_look_off(g, first, true);
    else if (g->in_rax != g->e.p || first->cell != BT_FIELD(tier_held) + g->held_rax * 8)
        em_rm(&g->e, true, OP_LOAD, H_RAX, em_at(H_RBP, first->cell));
}
