/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/event.c: delivery of interrupts and exceptions (SDM Vol. 3A chapter 6). */
#include "core/x86/sys_handlers.h"
#include "core/x86/task.h"

/* What of an event the steps of its delivery need. */
struct delivery {
    const struct x86_event *ev;
    bool software;   /* INT n, INT3, INTO: gates' DPL counts, EXT is clear */
    uint64_t rip;    /* to be pushed */
    uint32_t eflags; /* to be pushed */
    bool abandoned;  /* a task switch is done, there is nothing to go back to */
};

/* An entry of the IDT outside of long mode, and the fields that long mode has as well. */
static uint16_t gate_selector(uint64_t gate)
{
    return (uint16_t)(gate >> 16);
}

static uint32_t gate_offset(uint64_t gate)
{
    return (uint32_t)((gate & 0xffff) | (gate >> 32 & 0xffff0000));
}

/* S and type. */
static unsigned gate_type(uint64_t gate)
{
    return gate >> 40 & 0x1f;
}

static bool gate_refuse(struct x86_cpu *cpu, const struct delivery *d, uint8_t vector)
{
    return x86_refuse(cpu, vector, d->ev->vector * 8u + 2);
}

/* The checks of a gate that do not depend on its kind. */
static bool gate_check(struct x86_cpu *cpu, const struct delivery *d, uint64_t gate, bool type_ok)
{
    if (!type_ok || (d->software && (gate >> 45 & 3) < cpu->cpl))
        return gate_refuse(cpu, d, X86_GP);
    if (!(gate >> 47 & 1))
        return gate_refuse(cpu, d, X86_NP);
    return true;
}

/* The code segment that a gate leads to, and the new CPL. */
static bool gate_code(struct x86_cpu *cpu, uint16_t selector, struct x86_desc *code, unsigned *cpl)
{
    bool vm86 = cpu->mode & X86_MODE_VM86, lm = x86_long_mode(cpu);

    if (x86_null_selector(selector))
        return x86_refuse(cpu, X86_GP, 0);
    if (!x86_desc_read(cpu, selector, X86_GP, code))
        return false;
    if (!x86_desc_is_code(code) || x86_desc_dpl(code) > cpu->cpl ||
        (lm && !x86_desc_is_code64(code)))
        return x86_refuse_sel(cpu, X86_GP, selector);
    if (!x86_desc_present(code))
        return x86_refuse_sel(cpu, X86_NP, selector);
    *cpl = x86_desc_is_conforming(code) ? cpu->cpl : x86_desc_dpl(code);
    if (vm86 && *cpl != 0)
        return x86_refuse_sel(cpu, X86_GP, selector);
    return x86_desc_set_accessed(cpu, code);
}

/* The last step: nothing can fail any more. `set`: the pushed frame's stack. */
static void enter(struct x86_cpu *cpu, const struct x86_stack *s, uint16_t selector,
                  const struct x86_desc *code, unsigned cpl, uint64_t rip, bool interrupt_gate)
{
    bool vm86 = cpu->mode & X86_MODE_VM86;

    x86_stack_commit(cpu, s, cpl);
    if (vm86) {
        x86_seg_null(cpu, VMM_ES, 0);
        x86_seg_null(cpu, VMM_DS, 0);
        x86_seg_null(cpu, VMM_FS, 0);
        x86_seg_null(cpu, VMM_GS, 0);
    }
    x86_seg_set(cpu, VMM_CS, (uint16_t)((selector & ~3u) | cpl), code);
    cpu->cpl = (uint8_t)cpl;
    cpu->rflags &= ~(X86_TF | X86_VM | X86_RF | X86_NT | (interrupt_gate ? X86_IF : 0));
    cpu->rip = rip;
    x86_cs_changed(cpu);
}

/* ---- long mode ---- */

static bool deliver_long(struct x86_cpu *cpu, struct delivery *d)
{
    const struct x86_event *ev = d->ev;
    uint64_t gate[2], values[6], rip;
    uint16_t selector;
    struct x86_desc code;
    struct x86_stack s;
    unsigned cpl, ist, n = 0;
    bool type_ok;

    if (ev->vector * 16u + 15 > cpu->idt.limit)
        return gate_refuse(cpu, d, X86_GP);
    if (!x86_sys_read64(cpu, cpu->idt.base + ev->vector * 16u, &gate[0]) ||
        !x86_sys_read64(cpu, cpu->idt.base + ev->vector * 16u + 8, &gate[1]))
        return false;
    type_ok = gate_type(gate[0]) == X86_SYS_INTR32 || gate_type(gate[0]) == X86_SYS_TRAP32;
    if (!gate_check(cpu, d, gate[0], type_ok))
        return false;
    selector = gate_selector(gate[0]);
    if (!gate_code(cpu, selector, &code, &cpl))
        return false;
    ist = gate[0] >> 32 & 7;
    if (ist || cpl != cpu->cpl) {
        if (!x86_stack_inner64(cpu, cpl, ist, &s))
            return false;
    } else {
        x86_stack_current(cpu, &s);
        s.flat = true;
        s.mask = ~(uint64_t)0;
        if (s.idx == MMU_USER_ALIGN)
            s.idx = MMU_USER;
    }
    s.rsp &= ~(uint64_t)15;
    if (!mmu_canonical(&cpu->mmu, s.rsp))
        return x86_refuse(cpu, X86_SS, 0);
    rip = gate_offset(gate[0]) | gate[1] << 32;
    if (!mmu_canonical(&cpu->mmu, rip))
        return x86_refuse(cpu, X86_GP, 0);
    values[n++] = cpu->seg[VMM_SS].selector;
    values[n++] = cpu->gpr[VMM_RSP];
    values[n++] = d->eflags;
    values[n++] = cpu->seg[VMM_CS].selector;
    values[n++] = d->rip;
    if (ev->has_error)
        values[n++] = ev->error;
    if (!x86_stack_push(cpu, NULL, &s, values, n, 8))
        return false;
    enter(cpu, &s, selector, &code, cpl, rip, gate_type(gate[0]) == X86_SYS_INTR32);
    return true;
}

/* ---- protected and virtual-8086 mode ---- */

static bool deliver_task(struct x86_cpu *cpu, struct delivery *d, uint16_t selector)
{
    struct x86_task_switch t = {.via = X86_TASK_EVENT,
                                .selector = selector,
                                .eip = (uint32_t)d->rip,
                                .eflags = d->eflags,
                                .has_error = d->ev->has_error,
                                .error = d->ev->error};
    enum x86_task_result r = x86_task_switch(cpu, &t);

    d->abandoned = r != X86_TASK_REFUSED;
    return r == X86_TASK_DONE;
}

static bool deliver_gate(struct x86_cpu *cpu, struct delivery *d, uint64_t gate)
{
    const struct x86_event *ev = d->ev;
    unsigned type = gate_type(gate), size = type & X86_SYS_32BIT ? 4 : 2, n = 0, cpl;
    bool vm86 = cpu->mode & X86_MODE_VM86;
    uint16_t selector = gate_selector(gate);
    uint64_t values[10], rip = gate_offset(gate);
    struct x86_desc code;
    struct x86_stack s;

    if (!gate_code(cpu, selector, &code, &cpl))
        return false;
    if (cpl != cpu->cpl) {
        if (!x86_stack_inner(cpu, cpl, &s))
            return false;
        if (vm86) {
            values[n++] = cpu->seg[VMM_GS].selector;
            values[n++] = cpu->seg[VMM_FS].selector;
            values[n++] = cpu->seg[VMM_DS].selector;
            values[n++] = cpu->seg[VMM_ES].selector;
        }
        values[n++] = cpu->seg[VMM_SS].selector;
        values[n++] = cpu->gpr[VMM_RSP];
    } else {
        x86_stack_current(cpu, &s);
        if (s.idx == MMU_USER_ALIGN)
            s.idx = MMU_USER;
    }
    values[n++] = d->eflags;
    values[n++] = cpu->seg[VMM_CS].selector;
    values[n++] = d->rip;
    if (ev->has_error)
        values[n++] = ev->error;
    if (size == 2)
        rip &= 0xffff;
    if (!x86_stack_check(cpu, &s, n * size) || !x86_check_target(cpu, &code, rip) ||
        !x86_stack_push(cpu, NULL, &s, values, n, size))
        return false;
    enter(cpu, &s, selector, &code, cpl, rip, (type & 7) == X86_SYS_INTR16);
    return true;
}

static bool deliver_protected(struct x86_cpu *cpu, struct delivery *d)
{
    uint64_t gate;
    bool type_ok;

    if (d->ev->vector * 8u + 7 > cpu->idt.limit)
        return gate_refuse(cpu, d, X86_GP);
    if (!x86_sys_read(cpu, (uint32_t)(cpu->idt.base + d->ev->vector * 8u), &gate, 8))
        return false;
    switch (gate_type(gate)) {
    case X86_SYS_TASK_GATE:
    case X86_SYS_INTR16:
    case X86_SYS_TRAP16:
    case X86_SYS_INTR32:
    case X86_SYS_TRAP32:
        type_ok = true;
        break;
    default:
        type_ok = false;
    }
    if (!gate_check(cpu, d, gate, type_ok))
        return false;
    if (gate_type(gate) == X86_SYS_TASK_GATE)
        return deliver_task(cpu, d, gate_selector(gate));
    return deliver_gate(cpu, d, gate);
}

/* ---- real mode, and INT n of virtual-8086 mode that stays there ---- */

/* Through the vector at `address`; clears the flags `clear`. */
static bool deliver_vector(struct x86_cpu *cpu, struct delivery *d, uint64_t address,
                           uint32_t eflags, uint32_t clear)
{
    uint64_t values[3] = {eflags, cpu->seg[VMM_CS].selector, d->rip};
    struct x86_stack s;
    uint16_t entry[2];
    bool vm86 = cpu->mode & X86_MODE_VM86;

    if (vm86) {
        /* The 8086 program's own table: an ordinary access. */
        if (!x86_read(cpu, NULL, VMM_DS, address, entry, 4))
            return false;
    } else if (!x86_sys_read(cpu, address, entry, 4)) {
        return false;
    }
    x86_stack_current(cpu, &s);
    if (!x86_stack_check(cpu, &s, 6))
        return false;
    if (!vm86 && entry[0] > cpu->seg[VMM_CS].limit)
        return x86_refuse(cpu, X86_GP, 0);
    if (!x86_stack_push(cpu, NULL, &s, values, 3, 2))
        return false;
    x86_stack_commit(cpu, &s, cpu->cpl);
    x86_load_seg_real(cpu, VMM_CS, entry[1]);
    cpu->rflags &= ~clear;
    cpu->rip = entry[0];
    x86_cs_changed(cpu);
    return true;
}

static bool deliver_real(struct x86_cpu *cpu, struct delivery *d)
{
    if (d->ev->vector * 4u + 3 > cpu->idt.limit)
        return gate_refuse(cpu, d, X86_GP);
    return deliver_vector(cpu, d, (uint32_t)(cpu->idt.base + d->ev->vector * 4u), d->eflags,
                          X86_IF | X86_TF | X86_AC | X86_RF);
}

/* The bit of `vector` in the interrupt redirection bitmap, which ends where the I/O permission
 * bitmap begins (SDM Vol. 3B 21.3.3, figure 21-5). */
static bool redirection_bit(struct x86_cpu *cpu, uint8_t vector, bool *bit)
{
    const struct vmm_segment *tr = &cpu->seg[VMM_TR];
    uint16_t io_map;
    uint32_t offset;
    uint8_t byte;

    if (!(tr->ar & X86_SYS_32BIT) || tr->limit < 103)
        return x86_refuse(cpu, X86_GP, 0);
    if (!x86_sys_read(cpu, (uint32_t)(tr->base + 102), &io_map, 2))
        return false;
    offset = io_map - 32u + vector / 8;
    if (io_map < 32 || offset > tr->limit)
        return x86_refuse(cpu, X86_GP, 0);
    if (!x86_sys_read(cpu, (uint32_t)(tr->base + offset), &byte, 1))
        return false;
    *bit = byte >> (vector % 8) & 1;
    return true;
}

/* INT n in virtual-8086 mode: the six methods of SDM Vol. 3B table 21-2. */
static bool deliver_vm86_int(struct x86_cpu *cpu, struct delivery *d)
{
    bool iopl3 = (cpu->rflags & X86_IOPL) == X86_IOPL, redirect = false;
    uint32_t eflags = d->eflags;

    if (cpu->cr4 & X86_CR4_VME) {
        if (!redirection_bit(cpu, d->ev->vector, &redirect))
            return false;
        redirect = !redirect;
    }
    if (!redirect)
        return iopl3 ? deliver_protected(cpu, d) : x86_refuse(cpu, X86_GP, 0);
    if (iopl3)
        return deliver_vector(cpu, d, d->ev->vector * 4u, eflags, X86_IF | X86_TF | X86_RF);
    /* The virtual interrupt flag stands in for IF. */
    eflags = (eflags & ~X86_IF) | X86_IOPL | (cpu->rflags & X86_VIF ? X86_IF : 0);
    return deliver_vector(cpu, d, d->ev->vector * 4u, eflags, X86_VIF | X86_TF | X86_RF);
}

/* ---- any mode ---- */

/* Whether RF is set in the pushed flags, so that the instruction's breakpoint does not hit again
 * when a fault's handler returns (SDM Vol. 3B 18.3.1.1). */
static bool sets_rf(const struct x86_event *ev)
{
    if (ev->type != X86_EVENT_EXCEPTION)
        return false;
    switch (ev->vector) {
    case X86_DB:
        /* Instruction breakpoints do not, general detect does: x86_raise_db leaves the cause in
         * `error`. */
        return ev->error & X86_DR6_BD;
    case X86_BP:
    case X86_OF_:
    case X86_DF_:
    case X86_MC:
        return false;
    default:
        return true;
    }
}

/* One attempt. False: cpu->event is what came in between, or cpu->stop is set. */
static bool deliver(struct x86_cpu *cpu, struct delivery *d)
{
    const struct x86_event *ev = d->ev;

    d->software = ev->type == X86_EVENT_SOFT_INT || ev->type == X86_EVENT_SOFT_EXC;
    d->abandoned = false;
    d->rip = cpu->rip;
    d->eflags = x86_all_flags(cpu) | (sets_rf(ev) ? X86_RF : 0);
    if (d->software || ev->type == X86_EVENT_PRIV_SW) {
        d->rip = (d->rip + ev->len) & cpu->rip_mask;
        d->eflags &= ~X86_RF; /* it was for this instruction, which is over */
    }
    cpu->ext = !d->software;
    if (ev->has_cr2)
        cpu->cr2 = ev->cr2;
    if (ev->type == X86_EVENT_NMI)
        cpu->nmi_blocked = true;
    if (!(cpu->mode & X86_MODE_PE))
        return deliver_real(cpu, d);
    if (x86_long_mode(cpu))
        return deliver_long(cpu, d);
    if ((cpu->mode & X86_MODE_VM86) && ev->type == X86_EVENT_SOFT_INT)
        return deliver_vm86_int(cpu, d);
    return deliver_protected(cpu, d);
}

/* Classes of SDM Vol. 3A table 6-4. */
static bool is_contributory(const struct x86_event *ev)
{
    if (ev->type != X86_EVENT_EXCEPTION)
        return false;
    switch (ev->vector) {
    case X86_DE:
    case X86_TS:
    case X86_NP:
    case X86_SS:
    case X86_GP:
    case X86_CP:
        return true;
    default:
        return false;
    }
}

static bool is_exception(const struct x86_event *ev, uint8_t vector)
{
    return ev->type == X86_EVENT_EXCEPTION && ev->vector == vector;
}

/* What is delivered when `second` happens while `first` is delivered (SDM Vol. 3A table 6-5);
 * false: the processor shuts down. */
static bool combine(const struct x86_event *first, struct x86_event *second)
{
    bool page_fault = is_exception(second, X86_PF_), contributory = is_contributory(second);

    if (is_exception(first, X86_DF_))
        return false;
    if ((is_contributory(first) && contributory) ||
        (is_exception(first, X86_PF_) && (page_fault || contributory)))
        *second = (struct x86_event){.valid = true,
                                     .type = X86_EVENT_EXCEPTION,
                                     .vector = X86_DF_,
                                     .has_error = true,
                                     .has_cr2 = page_fault,
                                     .cr2 = second->cr2};
    return true;
}

static bool has_selector_error(uint8_t vector)
{
    return vector == X86_TS || vector == X86_NP || vector == X86_SS || vector == X86_GP;
}

static void count_event(struct x86_cpu *cpu, const struct x86_event *ev)
{
    if (ev->type == X86_EVENT_EXTERNAL || ev->type == X86_EVENT_NMI)
        cpu->count.irqs++;
    else
        cpu->count.exceptions++;
}

/* A second exception either makes progress along benign, contributory, page fault, double fault or
 * ends it, so the loop is short: the accesses here do not check alignment, and breakpoints only
 * leave a trap for later. */
bool x86_deliver(struct x86_cpu *cpu)
{
    struct x86_event ev = cpu->event;
    bool ok;

    for (;;) {
        struct delivery d = {.ev = &ev};

        cpu->event.valid = false;
        ok = deliver(cpu, &d);
        if (ok) {
            count_event(cpu, &ev);
            cpu->shadow = 0;
            if (ev.vector == X86_DB && ev.type != X86_EVENT_SOFT_INT)
                cpu->dr.dr7 &= ~(uint64_t)X86_DR7_GD;
            break;
        }
        if (!cpu->event.valid) {
            /* The surroundings want to leave: the next run tries again. */
            ok = true;
            if (!d.abandoned)
                cpu->event = ev;
            break;
        }
        if (cpu->ext && has_selector_error(cpu->event.vector))
            cpu->event.error |= 1;
        if (!combine(&ev, &cpu->event)) {
            cpu->event.valid = false;
            break;
        }
        ev = cpu->event;
    }
    cpu->ext = 0;
    return ok;
}

/* ---- software interrupts ---- */

static const struct x86_op *software(struct x86_cpu *cpu, const struct x86_op *op, uint8_t type,
                                     uint8_t vector)
{
    cpu->event = (struct x86_event){.valid = true, .type = type, .vector = vector, .len = op->len};
    return x86_leave(cpu, op);
}

const struct x86_op *x86_sys_int(struct x86_cpu *cpu, const struct x86_op *op)
{
    return software(cpu, op, X86_EVENT_SOFT_INT, (uint8_t)op->imm);
}

const struct x86_op *x86_sys_int1(struct x86_cpu *cpu, const struct x86_op *op)
{
    return software(cpu, op, X86_EVENT_PRIV_SW, X86_DB);
}

const struct x86_op *x86_sys_int3(struct x86_cpu *cpu, const struct x86_op *op)
{
    return software(cpu, op, X86_EVENT_SOFT_EXC, X86_BP);
}

const struct x86_op *x86_sys_into(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (!(cpu->cc & X86_CC_OF))
        return op + 1;
    return software(cpu, op, X86_EVENT_SOFT_EXC, X86_OF_);
}
