/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/far.c: far branches, far returns and IRET. */
#include "core/x86/sys_handlers.h"
#include "core/x86/task.h"

static const struct x86_op *task_done(struct x86_cpu *cpu, const struct x86_op *op,
                                      enum x86_task_result r)
{
    if (r == X86_TASK_REFUSED)
        return x86_leave(cpu, op);
    return x86_next_slow(cpu, cpu->rip);
}

/* ---- JMP and CALL ---- */

/* A far branch under way. */
struct branch {
    uint16_t selector;
    uint64_t rip;
    unsigned size; /* of the operands, or of a call gate */
    bool call;
    bool long_stack; /* the return address goes to a 64-bit stack, whatever the mode is */
};

/* The last step: nothing can fail any more. */
static const struct x86_op *enter(struct x86_cpu *cpu, const struct x86_stack *s, uint16_t selector,
                                  const struct x86_desc *code, unsigned cpl, uint64_t rip)
{
    if (s)
        x86_stack_commit(cpu, s, cpl);
    x86_seg_set(cpu, VMM_CS, (uint16_t)((selector & ~3u) | cpl), code);
    cpu->cpl = (uint8_t)cpl;
    x86_cs_changed(cpu);
    return x86_go(cpu, rip, cpu->rflags);
}

/* To code of the same privilege. */
static const struct x86_op *branch_same(struct x86_cpu *cpu, const struct x86_op *op,
                                        const struct branch *b, struct x86_desc *code)
{
    uint64_t values[2] = {cpu->seg[VMM_CS].selector, x86_op_next(cpu, op)};
    struct x86_stack s;

    if (!b->call) {
        if (!x86_check_target(cpu, code, b->rip) || !x86_desc_set_accessed(cpu, code))
            return x86_leave(cpu, op);
        return enter(cpu, NULL, b->selector, code, cpu->cpl, b->rip);
    }
    x86_stack_current(cpu, &s);
    if (b->long_stack) {
        s.flat = true;
        s.mask = ~(uint64_t)0;
    }
    if (!x86_stack_check(cpu, &s, 2 * b->size) || !x86_check_target(cpu, code, b->rip) ||
        !x86_desc_set_accessed(cpu, code) || !x86_stack_push(cpu, op, &s, values, 2, b->size))
        return x86_leave(cpu, op);
    return enter(cpu, &s, b->selector, code, cpu->cpl, b->rip);
}

/* To a code segment that the operand names directly. */
static const struct x86_op *branch_code(struct x86_cpu *cpu, const struct x86_op *op,
                                        const struct branch *b, struct x86_desc *code)
{
    unsigned dpl = x86_desc_dpl(code), rpl = b->selector & 3;
    bool allowed =
        x86_desc_is_conforming(code) ? dpl <= cpu->cpl : rpl <= cpu->cpl && dpl == cpu->cpl;

    if (!allowed ||
        (x86_long_mode(cpu) && (x86_desc_ar(code) & VMM_AR_L) && (x86_desc_ar(code) & VMM_AR_DB))) {
        x86_refuse_sel(cpu, X86_GP, b->selector);
        return x86_leave(cpu, op);
    }
    if (!x86_desc_present(code)) {
        x86_refuse_sel(cpu, X86_NP, b->selector);
        return x86_leave(cpu, op);
    }
    return branch_same(cpu, op, b, code);
}

/* CALL through a gate to more privileged code: the inner stack gets the old one's address and
 * `count` parameters copied from it. */
static const struct x86_op *call_inner(struct x86_cpu *cpu, const struct x86_op *op,
                                       const struct branch *b, struct x86_desc *code,
                                       unsigned count)
{
    unsigned cpl = x86_desc_dpl(code), n = 0;
    uint64_t values[X86_STACK_MAX];
    struct x86_stack s;
    bool ok;

    ok = b->long_stack ? x86_stack_inner64(cpu, cpl, 0, &s) : x86_stack_inner(cpu, cpl, &s);
    if (!ok)
        return x86_leave(cpu, op);
    values[n++] = cpu->seg[VMM_SS].selector;
    values[n++] = cpu->gpr[VMM_RSP];
    while (count--)
        if (!x86_peek(cpu, op, count * b->size, b->size, &values[n++]))
            return x86_leave(cpu, op);
    values[n++] = cpu->seg[VMM_CS].selector;
    values[n++] = x86_op_next(cpu, op);
    if (!x86_stack_check(cpu, &s, n * b->size) || !x86_check_target(cpu, code, b->rip) ||
        !x86_desc_set_accessed(cpu, code) || !x86_stack_push(cpu, op, &s, values, n, b->size))
        return x86_leave(cpu, op);
    return enter(cpu, &s, b->selector, code, cpl, b->rip);
}

/* Whether a gate or TSS may be used: false after #GP or #NP. */
static bool system_access(struct x86_cpu *cpu, uint16_t selector, const struct x86_desc *d)
{
    unsigned dpl = x86_desc_dpl(d);

    if (dpl < cpu->cpl || dpl < (selector & 3u))
        return x86_refuse_sel(cpu, X86_GP, selector);
    return x86_desc_present(d) || x86_refuse_sel(cpu, X86_NP, selector);
}

static const struct x86_op *branch_call_gate(struct x86_cpu *cpu, const struct x86_op *op,
                                             struct branch *b, struct x86_desc *gate)
{
    unsigned count = gate->raw >> 32 & 31, dpl;
    bool lm = x86_long_mode(cpu), inner;
    struct x86_desc code;

    if (lm && !x86_desc_read_upper(cpu, b->selector, X86_GP, gate))
        return x86_leave(cpu, op);
    if (!system_access(cpu, b->selector, gate))
        return x86_leave(cpu, op);
    b->selector = (uint16_t)(gate->raw >> 16);
    b->rip = (gate->raw & 0xffff) | (gate->raw >> 32 & 0xffff0000) | gate->upper << 32;
    b->size = lm ? 8 : x86_desc_ar(gate) & X86_SYS_32BIT ? 4 : 2;
    b->long_stack = lm;
    if (b->size == 2)
        b->rip &= 0xffff;
    if (x86_null_selector(b->selector)) {
        x86_refuse(cpu, X86_GP, 0);
        return x86_leave(cpu, op);
    }
    if (!x86_desc_read(cpu, b->selector, X86_GP, &code))
        return x86_leave(cpu, op);
    dpl = x86_desc_dpl(&code);
    inner = !x86_desc_is_conforming(&code) && dpl < cpu->cpl;
    if (!x86_desc_is_code(&code) || dpl > cpu->cpl || (inner && !b->call) ||
        (lm && !x86_desc_is_code64(&code))) {
        x86_refuse_sel(cpu, X86_GP, b->selector);
        return x86_leave(cpu, op);
    }
    if (!x86_desc_present(&code)) {
        x86_refuse_sel(cpu, X86_NP, b->selector);
        return x86_leave(cpu, op);
    }
    return inner ? call_inner(cpu, op, b, &code, lm ? 0 : count) : branch_same(cpu, op, b, &code);
}

static const struct x86_op *branch_task(struct x86_cpu *cpu, const struct x86_op *op,
                                        const struct branch *b, const struct x86_desc *d, bool gate)
{
    struct x86_task_switch t = {.via = b->call ? X86_TASK_CALL : X86_TASK_JMP,
                                .selector = gate ? (uint16_t)(d->raw >> 16) : b->selector,
                                .eip = (uint32_t)x86_op_next(cpu, op),
                                .eflags = x86_all_flags(cpu)};

    if (!gate && (b->selector & 4)) {
        x86_refuse_sel(cpu, X86_GP, b->selector);
        return x86_leave(cpu, op);
    }
    if (gate && !system_access(cpu, b->selector, d))
        return x86_leave(cpu, op);
    if (!gate && (x86_desc_dpl(d) < cpu->cpl || x86_desc_dpl(d) < (b->selector & 3u))) {
        x86_refuse_sel(cpu, X86_GP, b->selector);
        return x86_leave(cpu, op);
    }
    return task_done(cpu, op, x86_task_switch(cpu, &t));
}

static const struct x86_op *branch_system(struct x86_cpu *cpu, const struct x86_op *op,
                                          struct branch *b, struct x86_desc *d)
{
    bool lm = x86_long_mode(cpu);

    switch (x86_desc_ar(d) & VMM_AR_TYPE) {
    case X86_SYS_CALL32:
        return branch_call_gate(cpu, op, b, d);
    case X86_SYS_CALL16:
        if (!lm)
            return branch_call_gate(cpu, op, b, d);
        break;
    case X86_SYS_TASK_GATE:
        if (!lm)
            return branch_task(cpu, op, b, d, true);
        break;
    case X86_SYS_TSS16:
    case X86_SYS_TSS32:
        if (!lm)
            return branch_task(cpu, op, b, d, false);
        break;
    default:
        break;
    }
    x86_refuse_sel(cpu, X86_GP, b->selector);
    return x86_leave(cpu, op);
}

static const struct x86_op *branch_real(struct x86_cpu *cpu, const struct x86_op *op,
                                        const struct branch *b)
{
    uint32_t limit = cpu->rflags & X86_VM ? 0xffff : cpu->seg[VMM_CS].limit;
    uint64_t values[2] = {cpu->seg[VMM_CS].selector, x86_op_next(cpu, op)};
    struct x86_stack s;

    x86_stack_current(cpu, &s);
    if (b->call && !x86_stack_check(cpu, &s, 2 * b->size))
        return x86_leave(cpu, op);
    if (b->rip > limit)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (b->call) {
        if (!x86_stack_push(cpu, op, &s, values, 2, b->size))
            return x86_leave(cpu, op);
        x86_stack_commit(cpu, &s, cpu->cpl);
    }
    x86_load_seg_real(cpu, VMM_CS, b->selector);
    x86_cs_changed(cpu);
    return x86_go(cpu, b->rip, cpu->rflags);
}

static const struct x86_op *branch(struct x86_cpu *cpu, const struct x86_op *op, struct branch *b)
{
    struct x86_desc d;

    if (!x86_protected(cpu))
        return branch_real(cpu, op, b);
    if (x86_null_selector(b->selector))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_desc_read(cpu, b->selector, X86_GP, &d))
        return x86_leave(cpu, op);
    if (x86_desc_is_code(&d))
        return branch_code(cpu, op, b, &d);
    if (x86_desc_ar(&d) & VMM_AR_S) {
        x86_refuse_sel(cpu, X86_GP, b->selector);
        return x86_leave(cpu, op);
    }
    return branch_system(cpu, op, b, &d);
}

static const struct x86_op *branch_imm(struct x86_cpu *cpu, const struct x86_op *op, bool call)
{
    struct branch b = {.selector = (uint16_t)(op->imm >> 32),
                       .rip = (uint32_t)op->imm,
                       .size = op->size,
                       .call = call};

    return branch(cpu, op, &b);
}

static const struct x86_op *branch_mem(struct x86_cpu *cpu, const struct x86_op *op, bool call)
{
    struct branch b = {.size = op->size, .call = call};

    if (!x86_far_pointer(cpu, op, &b.rip, &b.selector))
        return x86_leave(cpu, op);
    return branch(cpu, op, &b);
}

const struct x86_op *x86_sys_jmp_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    return branch_imm(cpu, op, false);
}

const struct x86_op *x86_sys_jmp_far_mem(struct x86_cpu *cpu, const struct x86_op *op)
{
    return branch_mem(cpu, op, false);
}

const struct x86_op *x86_sys_call_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    return branch_imm(cpu, op, true);
}

const struct x86_op *x86_sys_call_far_mem(struct x86_cpu *cpu, const struct x86_op *op)
{
    return branch_mem(cpu, op, true);
}

/* ---- returns: what RET and IRET share ---- */

/* What a return pops, and what the selectors stand for. */
struct popped {
    uint64_t rip, cs, flags, rsp, ss;
    struct x86_desc code, stack;
    bool null_ss;
};

/* The code segment to return to. */
static bool return_code(struct x86_cpu *cpu, struct popped *p)
{
    uint16_t selector = (uint16_t)p->cs;
    unsigned rpl = selector & 3, dpl;

    if (x86_null_selector(selector))
        return x86_refuse(cpu, X86_GP, 0);
    if (!x86_desc_read(cpu, selector, X86_GP, &p->code))
        return false;
    dpl = x86_desc_dpl(&p->code);
    if (!x86_desc_is_code(&p->code) || rpl < cpu->cpl ||
        (x86_desc_is_conforming(&p->code) ? dpl > rpl : dpl != rpl) ||
        (x86_long_mode(cpu) && (x86_desc_ar(&p->code) & VMM_AR_L) &&
         (x86_desc_ar(&p->code) & VMM_AR_DB)))
        return x86_refuse_sel(cpu, X86_GP, selector);
    return x86_desc_present(&p->code) || x86_refuse_sel(cpu, X86_NP, selector);
}

/* The stack segment to return to. */
static bool return_stack(struct x86_cpu *cpu, struct popped *p)
{
    uint16_t selector = (uint16_t)p->ss;
    unsigned rpl = p->cs & 3;

    p->null_ss = x86_null_selector(selector);
    if (p->null_ss) {
        bool code64 = x86_long_mode(cpu) && (x86_desc_ar(&p->code) & VMM_AR_L);

        return (code64 && rpl != 3 && (selector & 3u) == rpl) || x86_refuse(cpu, X86_GP, 0);
    }
    if (!x86_desc_read(cpu, selector, X86_GP, &p->stack))
        return false;
    if ((selector & 3u) != rpl || !x86_desc_is_writable_data(&p->stack) ||
        x86_desc_dpl(&p->stack) != rpl)
        return x86_refuse_sel(cpu, X86_GP, selector);
    if (!x86_desc_present(&p->stack))
        return x86_refuse_sel(cpu, X86_SS, selector);
    return x86_desc_set_accessed(cpu, &p->stack);
}

/* Outer code must not find segments that it could not have loaded. */
static void drop_data_segments(struct x86_cpu *cpu)
{
    static const uint8_t data[] = {VMM_ES, VMM_DS, VMM_FS, VMM_GS};

    for (unsigned i = 0; i < sizeof data; i++) {
        const struct vmm_segment *s = &cpu->seg[data[i]];
        bool conforming = (s->ar & X86_TYPE_CODE) && (s->ar & X86_TYPE_CONFORMING);

        if (!(s->ar & VMM_AR_UNUSABLE) && !conforming &&
            (s->ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT < cpu->cpl)
            x86_seg_null(cpu, data[i], 0);
    }
}

/* Loads CS. The caller calls x86_cs_changed. */
static void return_same(struct x86_cpu *cpu, const struct popped *p)
{
    x86_seg_set(cpu, VMM_CS, (uint16_t)p->cs, &p->code);
}

/* Loads CS, SS and RSP, which still has `release` to be added. */
static void return_outer(struct x86_cpu *cpu, const struct popped *p, uint64_t release)
{
    bool outer = (p->cs & 3) != cpu->cpl;

    return_same(cpu, p);
    cpu->cpl = p->cs & 3;
    if (p->null_ss)
        x86_seg_null(cpu, VMM_SS, (uint16_t)p->ss);
    else
        x86_seg_set(cpu, VMM_SS, (uint16_t)p->ss, &p->stack);
    x86_cs_changed(cpu);
    if (cpu->sp_mask == 0xffff)
        X86_R16(cpu, VMM_RSP) = (uint16_t)(p->rsp + release);
    else
        cpu->gpr[VMM_RSP] = (p->rsp + release) & cpu->sp_mask;
    if (outer)
        drop_data_segments(cpu);
}

static void release_stack(struct x86_cpu *cpu, uint64_t bytes)
{
    uint64_t sp = (cpu->gpr[VMM_RSP] + bytes) & cpu->sp_mask;

    cpu->gpr[VMM_RSP] = (cpu->gpr[VMM_RSP] & ~cpu->sp_mask) | sp;
}

/* ---- RET ---- */

static bool ret_far(struct x86_cpu *cpu, const struct x86_op *op, uint64_t *rip)
{
    unsigned size = op->size, release = (unsigned)op->imm;
    struct popped p;

    if (!x86_peek(cpu, op, size, size, &p.cs) || !x86_peek(cpu, op, 0, size, &p.rip))
        return false;
    *rip = p.rip;
    if (!x86_protected(cpu)) {
        if (p.rip > (cpu->rflags & X86_VM ? 0xffff : cpu->seg[VMM_CS].limit))
            return x86_refuse(cpu, X86_GP, 0);
        release_stack(cpu, 2 * size + release);
        x86_load_seg_real(cpu, VMM_CS, (uint16_t)p.cs);
        x86_cs_changed(cpu);
        return true;
    }
    if (!return_code(cpu, &p))
        return false;
    if ((p.cs & 3) == cpu->cpl) {
        if (!x86_check_target(cpu, &p.code, p.rip) || !x86_desc_set_accessed(cpu, &p.code))
            return false;
        release_stack(cpu, 2 * size + release);
        return_same(cpu, &p);
        x86_cs_changed(cpu);
        return true;
    }
    if (!x86_peek(cpu, op, 3 * size + release, size, &p.ss) ||
        !x86_peek(cpu, op, 2 * size + release, size, &p.rsp) || !return_stack(cpu, &p) ||
        !x86_check_target(cpu, &p.code, p.rip) || !x86_desc_set_accessed(cpu, &p.code))
        return false;
    return_outer(cpu, &p, release);
    return true;
}

const struct x86_op *x86_sys_ret_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t rip;

    if (!ret_far(cpu, op, &rip))
        return x86_leave(cpu, op);
    return x86_go(cpu, rip, cpu->rflags);
}

/* ---- IRET ---- */

#define FLAGS16 (X86_ARITH | X86_TF | X86_IF | X86_DF | X86_IOPL | X86_NT)

/* The flags that IRET may change in real mode (SDM Vol. 2A, IRET). */
static uint32_t real_flags(unsigned size)
{
    return size == 2 ? FLAGS16 : FLAGS16 | X86_RF | X86_AC | X86_ID;
}

/* The same in protected mode, from the privilege before the return. */
static uint32_t protected_flags(const struct x86_cpu *cpu, unsigned size)
{
    uint32_t mask = X86_ARITH | X86_TF | X86_DF | X86_NT;

    if (size != 2)
        mask |= X86_RF | X86_AC | X86_ID;
    if (cpu->cpl <= (cpu->rflags & X86_IOPL) >> X86_IOPL_SHIFT)
        mask |= X86_IF;
    if (cpu->cpl == 0)
        mask |= X86_IOPL | (size != 2 ? X86_VIF | X86_VIP : 0);
    return mask;
}

/* RIP, CS and flags from the stack. The topmost value comes first, so that a frame that does not
 * fit faults as a whole. */
static bool pop_three(struct x86_cpu *cpu, const struct x86_op *op, struct popped *p)
{
    unsigned size = op->size;

    return x86_peek(cpu, op, 2 * size, size, &p->flags) && x86_peek(cpu, op, size, size, &p->cs) &&
           x86_peek(cpu, op, 0, size, &p->rip);
}

/* Real mode, and virtual-8086 mode with the flags `mask` and VIF allowed. */
static bool iret_real(struct x86_cpu *cpu, const struct x86_op *op, const struct popped *p,
                      uint32_t image, uint32_t mask)
{
    if (p->rip > (cpu->rflags & X86_VM ? 0xffff : cpu->seg[VMM_CS].limit))
        return x86_refuse(cpu, X86_GP, 0);
    release_stack(cpu, 3u * op->size);
    x86_load_seg_real(cpu, VMM_CS, (uint16_t)p->cs);
    x86_change_flags(cpu, image, mask);
    x86_cs_changed(cpu);
    return true;
}

static bool iret_vm86(struct x86_cpu *cpu, const struct x86_op *op, struct popped *p)
{
    uint32_t image;

    if ((cpu->rflags & X86_IOPL) == X86_IOPL)
        return pop_three(cpu, op, p) &&
               iret_real(cpu, op, p, (uint32_t)p->flags, real_flags(op->size) & ~X86_IOPL);
    if (!(cpu->cr4 & X86_CR4_VME) || op->size != 2)
        return x86_refuse(cpu, X86_GP, 0);
    /* The virtual interrupt flag stands in for IF (SDM Vol. 3B 21.3.3.4). */
    if (!pop_three(cpu, op, p))
        return false;
    image = (uint32_t)p->flags;
    if ((image & X86_TF) || ((image & X86_IF) && (cpu->rflags & X86_VIP)))
        return x86_refuse(cpu, X86_GP, 0);
    image |= image & X86_IF ? X86_VIF : 0;
    return iret_real(cpu, op, p, image, (FLAGS16 & ~(X86_IF | X86_IOPL)) | X86_VIF);
}

/* From CPL 0 into virtual-8086 mode. */
static bool iret_to_vm86(struct x86_cpu *cpu, const struct x86_op *op, const struct popped *p)
{
    /* Behind EIP, CS and EFLAGS: ESP, SS, ES, DS, FS, GS. */
    static const uint8_t order[] = {VMM_SS, VMM_ES, VMM_DS, VMM_FS, VMM_GS};
    uint64_t selector[sizeof order], esp;

    for (unsigned i = sizeof order; i--;)
        if (!x86_peek(cpu, op, 16 + 4 * i, 4, &selector[i]))
            return false;
    if (!x86_peek(cpu, op, 12, 4, &esp))
        return false;
    if (p->rip > 0xffff)
        return x86_refuse(cpu, X86_GP, 0);
    x86_change_flags(cpu, (uint32_t)p->flags, X86_FLAGS_DEFINED);
    cpu->cpl = 3;
    x86_load_seg_real(cpu, VMM_CS, (uint16_t)p->cs);
    for (unsigned i = 0; i < sizeof order; i++)
        x86_load_seg_real(cpu, order[i], (uint16_t)selector[i]);
    cpu->gpr[VMM_RSP] = esp;
    x86_cs_changed(cpu);
    return true;
}

/* The five values of a frame in 64-bit mode. */
static bool pop_five(struct x86_cpu *cpu, const struct x86_op *op, struct popped *p)
{
    unsigned size = op->size;
    uint64_t v[5];

    if (x86_likely(size == 8 && cpu->mmu_idx != MMU_USER_ALIGN)) {
        if (!x86_read(cpu, op, VMM_SS, cpu->gpr[VMM_RSP], v, sizeof v))
            return false;
    } else {
        for (unsigned i = 5; i--;)
            if (!x86_peek(cpu, op, i * size, size, &v[i]))
                return false;
    }
    p->rip = v[0];
    p->cs = v[1];
    p->flags = v[2];
    p->rsp = v[3];
    p->ss = v[4];
    return true;
}

static bool iret_protected(struct x86_cpu *cpu, const struct x86_op *op, struct popped *p)
{
    unsigned size = op->size;
    uint32_t mask;
    bool five = x86_code64(cpu);

    if (!(five ? pop_five(cpu, op, p) : pop_three(cpu, op, p)))
        return false;
    if (size == 4 && (p->flags & X86_VM) && !cpu->cpl && !x86_long_mode(cpu))
        return iret_to_vm86(cpu, op, p);
    if (!return_code(cpu, p))
        return false;
    if (!five && (p->cs & 3) != cpu->cpl) {
        five = true;
        if (!x86_peek(cpu, op, 4 * size, size, &p->ss) ||
            !x86_peek(cpu, op, 3 * size, size, &p->rsp))
            return false;
    }
    if ((five && !return_stack(cpu, p)) || !x86_check_target(cpu, &p->code, p->rip) ||
        !x86_desc_set_accessed(cpu, &p->code))
        return false;
    mask = protected_flags(cpu, size);
    x86_change_flags(cpu, (uint32_t)p->flags, mask);
    if (five) {
        return_outer(cpu, p, 0);
    } else {
        release_stack(cpu, 3 * size);
        return_same(cpu, p);
        x86_cs_changed(cpu);
    }
    return true;
}

const struct x86_op *x86_sys_iret(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint32_t old = cpu->rflags;
    struct popped p;
    bool ok;

    x86_serialize();
    /* Even an IRET that faults unblocks NMIs (SDM Vol. 3A 6.7.1). */
    cpu->nmi_blocked = false;
    if (!(cpu->mode & X86_MODE_PE)) {
        ok = pop_three(cpu, op, &p) &&
             iret_real(cpu, op, &p, (uint32_t)p.flags, real_flags(op->size));
    } else if (cpu->mode & X86_MODE_VM86) {
        ok = iret_vm86(cpu, op, &p);
    } else if (cpu->rflags & X86_NT) {
        if (x86_long_mode(cpu))
            return x86_fault_err(cpu, op, X86_GP, 0);
        return task_done(cpu, op, x86_task_return(cpu, (uint32_t)x86_op_next(cpu, op)));
    } else {
        ok = iret_protected(cpu, op, &p);
    }
    if (!ok)
        return x86_leave(cpu, op);
    return x86_go(cpu, p.rip, old);
}
