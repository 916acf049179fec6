/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_stack.c: PUSH POP PUSHA POPA ENTER LEAVE. */
#include "core/x86/ops_common.h"
#include "core/x86/ops_sys.h"

/* The operand's size is in op->size. */

/* ---- PUSH ---- */

X86_HANDLER(push_r64)
{
    if (x86_unlikely(!x86_push64(cpu, op, cpu->gpr[op->r])))
        return x86_leave(cpu, op);
    X86_NEXT(cpu, op);
}

X86_HANDLER(push_r)
{
    if (!x86_push(cpu, op, op->size, x86_get_reg(cpu, op->r, op->size)))
        return x86_leave(cpu, op);
    X86_NEXT(cpu, op);
}

X86_HANDLER(push_imm)
{
    if (!x86_push(cpu, op, op->size, op->imm))
        return x86_leave(cpu, op);
    X86_NEXT(cpu, op);
}

static bool load(struct x86_cpu *cpu, const struct x86_op *op, uint64_t *v)
{
    uint64_t a;

    *v = 0;
    return x86_ea(cpu, op, op->size, false, &a) && x86_read(cpu, op, op->seg, a, v, op->size);
}

static bool store(struct x86_cpu *cpu, const struct x86_op *op, uint64_t v)
{
    uint64_t a;

    return x86_ea(cpu, op, op->size, true, &a) && x86_write(cpu, op, op->seg, a, &v, op->size);
}

X86_HANDLER(push_m)
{
    uint64_t v;

    if (!load(cpu, op, &v) || !x86_push(cpu, op, op->size, v))
        return x86_leave(cpu, op);
    X86_RETURN(cpu, op);
}

bool x86_dec_push(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (x86_dec_is_sys(d))
        return x86_dec_push_seg(d, op, arg);
    op->size = (uint8_t)(d->insn.operand_width / 8);
    if (x86_dec_is_imm(d, 0)) {
        op->imm = x86_dec_imm(d, 0);
        op->fn = push_imm;
    } else if (x86_dec_is_mem(d, 0)) {
        x86_dec_mem(d, 0, op);
        op->fn = push_m;
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        op->fn = op->size == 8 ? push_r64 : push_r;
    }
    return true;
}

/* ---- POP ---- */

X86_HANDLER(pop_r)
{
    uint64_t v;

    if (!x86_pop(cpu, op, op->size, &v))
        return x86_leave(cpu, op);
    x86_set_reg(cpu, op->r, op->size, v);
    X86_RETURN(cpu, op);
}

X86_HANDLER(pop_r64)
{
    const uint8_t *p = x86_fast_top64(cpu);
    uint64_t v;

    if (x86_unlikely(!p))
        return pop_r(cpu, op);
    mmu_copy(&v, p, 8);
    cpu->gpr[VMM_RSP] += 8;
    cpu->gpr[op->r] = v;
    X86_NEXT(cpu, op);
}

/* The address is computed with the incremented stack pointer (SDM Vol. 2B, POP). */
X86_HANDLER(pop_m)
{
    uint64_t v, rsp = cpu->gpr[VMM_RSP];

    if (!x86_pop(cpu, op, op->size, &v))
        return x86_leave(cpu, op);
    if (!store(cpu, op, v)) {
        cpu->gpr[VMM_RSP] = rsp;
        return x86_leave(cpu, op);
    }
    X86_RETURN(cpu, op);
}

bool x86_dec_pop(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    if (x86_dec_is_sys(d))
        return x86_dec_pop_seg(d, op, arg);
    op->size = (uint8_t)(d->insn.operand_width / 8);
    if (x86_dec_is_mem(d, 0)) {
        x86_dec_mem(d, 0, op);
        op->fn = pop_m;
    } else {
        op->r = x86_dec_reg(d->opnd[0].reg.value);
        op->fn = op->size == 8 ? pop_r64 : pop_r;
    }
    return true;
}

/* ---- PUSHA, POPA ---- */

/* Whether `size` bytes at offset `sp` in the stack segment can be written. */
static bool probe(struct x86_cpu *cpu, uint64_t sp, unsigned size)
{
    uint64_t linear = sp;
    int r;

    if ((cpu->mode & X86_MODE_CODE) != X86_MODE_CODE64 &&
        !x86_seg_check(cpu, VMM_SS, sp, size, true, &linear))
        return false;
    if (cpu->mmu_idx == MMU_USER_ALIGN && (linear & (size - 1))) {
        x86_raise_err(cpu, X86_AC_, 0);
        return false;
    }
    r = mmu_probe(&cpu->mmu, cpu->mmu_idx, linear, size, MMU_WRITE);
    if (r != MMU_OK)
        x86_mmu_failed(cpu, r, VMM_SS);
    return r == MMU_OK;
}

X86_HANDLER(pusha)
{
    uint64_t rsp = cpu->gpr[VMM_RSP];

    for (unsigned i = 1; i <= 8; i++) {
        if (!probe(cpu, (rsp - i * op->size) & cpu->sp_mask, op->size))
            return x86_leave(cpu, op);
    }
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = i == VMM_RSP ? rsp : cpu->gpr[i];

        if (!x86_push(cpu, op, op->size, v)) {
            cpu->gpr[VMM_RSP] = rsp;
            return x86_leave(cpu, op);
        }
    }
    X86_NEXT(cpu, op);
}

X86_HANDLER(popa)
{
    uint64_t v[8];

    for (unsigned i = 0; i < 8; i++) {
        if (!x86_peek(cpu, op, i * op->size, op->size, &v[i]))
            return x86_leave(cpu, op);
    }
    x86_add_sp(cpu, 8u * op->size);
    for (unsigned i = 0; i < 8; i++) {
        if (7 - i != VMM_RSP)
            x86_set_reg(cpu, 7 - i, op->size, v[i]);
    }
    X86_RETURN(cpu, op);
}

/* arg: operand size. */
bool x86_dec_pusha(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d;
    op->size = (uint8_t)arg;
    op->fn = pusha;
    return true;
}

bool x86_dec_popa(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d;
    op->size = (uint8_t)arg;
    op->fn = popa;
    return true;
}

/* ---- ENTER, LEAVE ---- */

/* Reads the frame pointer that lies at offset `bp` in the stack segment. */
static bool read_frame(struct x86_cpu *cpu, const struct x86_op *op, uint64_t bp, uint64_t *v)
{
    uint64_t linear = bp;

    *v = 0;
    if ((cpu->mode & X86_MODE_CODE) != X86_MODE_CODE64 &&
        !x86_seg_check(cpu, VMM_SS, bp, op->size, false, &linear))
        return false;
    return x86_read(cpu, op, VMM_SS, linear, v, op->size);
}

/* imm: bytes of the new frame; r: nesting level. */
static bool enter_frame(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t bp = cpu->gpr[VMM_RBP], frame;

    if (!x86_push(cpu, op, op->size, bp))
        return false;
    frame = cpu->gpr[VMM_RSP];
    for (unsigned i = 1; i < op->r; i++) {
        uint64_t v;

        bp -= op->size;
        if (!read_frame(cpu, op, bp & cpu->sp_mask, &v) || !x86_push(cpu, op, op->size, v))
            return false;
    }
    if (op->r && !x86_push(cpu, op, op->size, frame))
        return false;
    x86_add_sp(cpu, -op->imm);
    /* The last stack pointer must be good for a write (SDM Vol. 2A, ENTER). */
    if (!probe(cpu, cpu->gpr[VMM_RSP] & cpu->sp_mask, op->size))
        return false;
    x86_set_reg(cpu, VMM_RBP, op->size, frame);
    return true;
}

X86_HANDLER(enter)
{
    uint64_t rsp = cpu->gpr[VMM_RSP];

    if (!enter_frame(cpu, op)) {
        cpu->gpr[VMM_RSP] = rsp;
        return x86_leave(cpu, op);
    }
    X86_NEXT(cpu, op);
}

bool x86_dec_enter(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->size = (uint8_t)(d->insn.operand_width / 8);
    op->imm = (uint16_t)x86_dec_imm(d, 0);
    op->r = x86_dec_imm(d, 1) & 31;
    op->fn = enter;
    return true;
}

X86_HANDLER(leave)
{
    uint64_t rsp = cpu->gpr[VMM_RSP], bp = cpu->gpr[VMM_RBP], v;

    cpu->gpr[VMM_RSP] =
        cpu->sp_mask == 0xffff ? (rsp & ~(uint64_t)0xffff) | (bp & 0xffff) : bp & cpu->sp_mask;
    if (!x86_pop(cpu, op, op->size, &v)) {
        cpu->gpr[VMM_RSP] = rsp;
        return x86_leave(cpu, op);
    }
    x86_set_reg(cpu, VMM_RBP, op->size, v);
    X86_RETURN(cpu, op);
}

bool x86_dec_leave(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)arg;
    op->size = (uint8_t)(d->insn.operand_width / 8);
    op->fn = leave;
    return true;
}
