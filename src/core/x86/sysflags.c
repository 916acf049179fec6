/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/sysflags.c: CLI, STI, PUSHF and POPF, with the virtual interrupt flag (SDM Vol. 3B
 * 21.3.3, 21.4), STAC and CLAC. */
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"

/* What POPF may change at any privilege. */
#define POPF_ALWAYS (X86_ARITH | X86_TF | X86_DF | X86_NT | X86_AC | X86_ID)

static unsigned iopl(const struct x86_cpu *cpu)
{
    return (cpu->rflags & X86_IOPL) >> X86_IOPL_SHIFT;
}

static bool vm86(const struct x86_cpu *cpu)
{
    return cpu->mode & X86_MODE_VM86;
}

/* Whether CLI and STI act on VIF: virtual-8086 mode with CR4.VME, CPL 3 with CR4.PVI; both where
 * IOPL does not let them act on IF. */
static bool virtual_if(const struct x86_cpu *cpu)
{
    return vm86(cpu) ? cpu->cr4 & X86_CR4_VME : cpu->cpl == 3 && (cpu->cr4 & X86_CR4_PVI);
}

const struct x86_op *x86_sys_cli(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (x86_likely(cpu->cpl <= iopl(cpu)))
        cpu->rflags &= ~X86_IF;
    else if (virtual_if(cpu))
        cpu->rflags &= ~X86_VIF;
    else
        return x86_fault_err(cpu, op, X86_GP, 0);
    return op + 1;
}

/*
 * Behind an STI that has set IF. If nobody waits for that, interrupts need no look before the next
 * one asks for attention, and the block that follows is entered at once; x86_settle_shadow does the
 * rest.
 */
static const struct x86_op *enabled(struct x86_cpu *cpu, const struct x86_op *op)
{
    cpu->sti_passed = !(cpu->blk->mode & X86_MODE_SINGLE) && x86_calm(cpu);
    if (!cpu->sti_passed)
        return x86_next_slow(cpu, x86_op_next(cpu, op));
    cpu->sti_at = x86_retired(cpu);
    return x86_next(cpu, x86_op_next(cpu, op));
}

const struct x86_op *x86_sys_sti(struct x86_cpu *cpu, const struct x86_op *op)
{
    if (x86_likely(cpu->cpl <= iopl(cpu))) {
        if (cpu->rflags & X86_IF)
            return x86_next(cpu, x86_op_next(cpu, op));
        cpu->rflags |= X86_IF;
        cpu->shadow |= VMM_SHADOW_STI;
        return enabled(cpu, op);
    }
    if (!virtual_if(cpu) || (cpu->rflags & X86_VIP))
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->rflags |= X86_VIF;
    return x86_next(cpu, x86_op_next(cpu, op));
}

/* Virtual-8086 mode with IOPL below 3: only the 16-bit forms, and only with CR4.VME. */
static bool restricted(const struct x86_cpu *cpu)
{
    return vm86(cpu) && iopl(cpu) < 3;
}

static bool vme_form(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return (cpu->cr4 & X86_CR4_VME) && op->size == 2;
}

const struct x86_op *x86_sys_pushf(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t flags = x86_get_rflags(cpu) & ~(uint64_t)(X86_VM | X86_RF);

    if (x86_unlikely(restricted(cpu))) {
        if (!vme_form(cpu, op))
            return x86_fault_err(cpu, op, X86_GP, 0);
        flags = (flags & ~(uint64_t)X86_IF) | X86_IOPL;
        if (cpu->rflags & X86_VIF)
            flags |= X86_IF;
    }
    if (!x86_push(cpu, op, op->size, flags))
        return x86_leave(cpu, op);
    return op + 1;
}

/* The flags after a POPF of `value`; false: #GP. */
static bool popf_flags(const struct x86_cpu *cpu, const struct x86_op *op, uint64_t value,
                       uint64_t *flags)
{
    uint64_t mask = POPF_ALWAYS, old = x86_get_rflags(cpu);

    if (cpu->cpl == 0) {
        mask |= X86_IOPL | X86_IF;
    } else if (cpu->cpl <= iopl(cpu)) {
        mask |= X86_IF;
    } else if (vm86(cpu)) {
        if (!vme_form(cpu, op) || (value & X86_TF) || ((value & X86_IF) && (old & X86_VIP)))
            return false;
        old &= ~(uint64_t)X86_VIF;
        if (value & X86_IF)
            old |= X86_VIF;
    }
    if (op->size == 2)
        mask &= 0xffff;
    *flags = (old & ~mask) | (value & mask);
    return true;
}

const struct x86_op *x86_sys_popf(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value, flags, sp = cpu->gpr[VMM_RSP];
    uint32_t changed, old = cpu->rflags;

    if (x86_unlikely(restricted(cpu) && !vme_form(cpu, op)))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_peek(cpu, op, 0, op->size, &value))
        return x86_leave(cpu, op);
    if (!popf_flags(cpu, op, value, &flags))
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->gpr[VMM_RSP] = (sp & ~cpu->sp_mask) | ((sp + op->size) & cpu->sp_mask);
    x86_set_rflags(cpu, flags);
    changed = cpu->rflags ^ old;
    if (changed & (X86_TF | X86_AC))
        x86_cs_changed(cpu);
    if ((changed & X86_TF) || (changed & cpu->rflags & X86_IF))
        return x86_go(cpu, x86_op_next(cpu, op), old);
    return x86_next(cpu, x86_op_next(cpu, op));
}

static const struct x86_op *set_ac(struct x86_cpu *cpu, const struct x86_op *op, uint32_t ac)
{
    if (cpu->cpl || !(cpu->feat.l7_ebx & X86_F7_EBX_SMAP))
        return x86_fault(cpu, op, X86_UD);
    cpu->rflags = (cpu->rflags & ~X86_AC) | ac;
    x86_mmu_idx_changed(cpu);
    return op + 1;
}

const struct x86_op *x86_sys_stac(struct x86_cpu *cpu, const struct x86_op *op)
{
    return set_ac(cpu, op, X86_AC);
}

const struct x86_op *x86_sys_clac(struct x86_cpu *cpu, const struct x86_op *op)
{
    return set_ac(cpu, op, 0);
}
