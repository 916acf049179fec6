/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/syscall.c: SYSCALL, SYSENTER and their returns. */
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"

/* RFLAGS bits that SYSRET takes from R11 (SDM Vol. 2B). */
#define SYSRET_FLAGS 0x3c7fd7u

/* Intel processors know SYSCALL and SYSRET in 64-bit mode only. */
static bool has_syscall(const struct x86_cpu *cpu)
{
    return x86_code64(cpu) && (cpu->efer & X86_EFER_SCE);
}

static bool has_sysenter(const struct x86_cpu *cpu)
{
    return cpu->feat.l1_edx & X86_F1_EDX_SEP;
}

const struct x86_op *x86_sys_syscall(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector = (uint16_t)(cpu->star >> 32) & 0xfffcu;
    uint32_t old = cpu->rflags, flags;

    if (!has_syscall(cpu))
        return x86_fault(cpu, op, X86_UD);
    flags = x86_all_flags(cpu) & ~X86_RF;
    cpu->gpr[VMM_RCX] = x86_op_next(cpu, op);
    cpu->gpr[VMM_R11] = flags;
    x86_change_flags(cpu, 0, (uint32_t)cpu->sfmask | X86_RF);
    /* Unlike other instructions these two trap by the new TF. */
    cpu->tf_trap = cpu->rflags & X86_TF;
    x86_seg_flat_code(cpu, selector, 0, true);
    x86_seg_flat_stack(cpu, (uint16_t)(selector + 8), 0);
    cpu->cpl = 0;
    x86_cs_changed(cpu);
    return x86_go(cpu, cpu->lstar, old);
}

const struct x86_op *x86_sys_sysret(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector = (uint16_t)(cpu->star >> 48);
    uint64_t rip = cpu->gpr[VMM_RCX];
    uint32_t old = cpu->rflags;
    bool code64 = op->size == 8;

    if (!has_syscall(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (cpu->cpl || (code64 && !mmu_canonical(&cpu->mmu, rip)))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!code64)
        rip = (uint32_t)rip;
    x86_change_flags(cpu, (uint32_t)cpu->gpr[VMM_R11] & SYSRET_FLAGS, X86_FLAGS_DEFINED);
    x86_seg_flat_code(cpu, (uint16_t)((selector + (code64 ? 16 : 0)) | 3), 3, code64);
    x86_seg_flat_stack(cpu, (uint16_t)((selector + 8) | 3), 3);
    cpu->cpl = 3;
    cpu->tf_trap = cpu->rflags & X86_TF;
    x86_cs_changed(cpu);
    return x86_go(cpu, rip, old);
}

const struct x86_op *x86_sys_sysenter(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector = cpu->sysenter_cs & 0xfffcu;
    uint32_t old = cpu->rflags;
    bool lm = x86_long_mode(cpu);

    if (!has_sysenter(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (!(cpu->mode & X86_MODE_PE) || !selector)
        return x86_fault_err(cpu, op, X86_GP, 0);
    cpu->rflags &= ~(X86_VM | X86_IF | X86_RF);
    x86_seg_flat_code(cpu, selector, 0, lm);
    x86_seg_flat_stack(cpu, (uint16_t)(selector + 8), 0);
    cpu->cpl = 0;
    cpu->gpr[VMM_RSP] = lm ? cpu->sysenter_esp : (uint32_t)cpu->sysenter_esp;
    x86_cs_changed(cpu);
    return x86_go(cpu, lm ? cpu->sysenter_eip : (uint32_t)cpu->sysenter_eip, old);
}

const struct x86_op *x86_sys_sysexit(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint16_t selector = cpu->sysenter_cs & 0xfffcu;
    uint64_t rip = cpu->gpr[VMM_RDX], rsp = cpu->gpr[VMM_RCX];
    bool code64 = op->size == 8;

    if (!has_sysenter(cpu))
        return x86_fault(cpu, op, X86_UD);
    if (!x86_protected(cpu) || cpu->cpl || !selector ||
        (code64 && (!mmu_canonical(&cpu->mmu, rip) || !mmu_canonical(&cpu->mmu, rsp))))
        return x86_fault_err(cpu, op, X86_GP, 0);
    selector = (uint16_t)((selector + (code64 ? 32 : 16)) | 3);
    x86_seg_flat_code(cpu, selector, 3, code64);
    x86_seg_flat_stack(cpu, (uint16_t)(selector + 8), 3);
    cpu->cpl = 3;
    cpu->gpr[VMM_RSP] = code64 ? rsp : (uint32_t)rsp;
    x86_cs_changed(cpu);
    return x86_go(cpu, code64 ? rip : (uint32_t)rip, cpu->rflags);
}
