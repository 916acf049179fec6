/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/dtable.c: LGDT, LIDT, SGDT and SIDT. */
#include "core/x86/control.h"
#include "core/x86/sys_handlers.h"

/* In memory: a 16-bit limit and a base of 4 bytes, in 64-bit mode of 8. A load with a 16-bit
 * operand size takes 3 of the 4 (op->size is then 2, else that of the base). */

static unsigned base_bytes(const struct x86_op *op)
{
    return op->size == 8 ? 8 : 4;
}

static const struct x86_op *load(struct x86_cpu *cpu, const struct x86_op *op,
                                 struct vmm_dtable *table)
{
    uint8_t bytes[10] = {0};
    uint64_t linear, base = 0;
    unsigned size = 2 + base_bytes(op);

    if (cpu->cpl)
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_ea(cpu, op, size, false, &linear) || !x86_read(cpu, op, op->seg, linear, bytes, size))
        return x86_leave(cpu, op);
    __builtin_memcpy(&base, bytes + 2, base_bytes(op));
    if (op->size == 2)
        base &= 0xffffff;
    if (op->size == 8 && !x86_canonical(cpu, base))
        return x86_fault_err(cpu, op, X86_GP, 0);
    table->base = base;
    __builtin_memcpy(&table->limit, bytes, 2);
    return op + 1;
}

const struct x86_op *x86_sys_lgdt(struct x86_cpu *cpu, const struct x86_op *op)
{
    x86_serialize();
    return load(cpu, op, &cpu->gdt);
}

const struct x86_op *x86_sys_lidt(struct x86_cpu *cpu, const struct x86_op *op)
{
    x86_serialize();
    return load(cpu, op, &cpu->idt);
}

static const struct x86_op *store(struct x86_cpu *cpu, const struct x86_op *op,
                                  const struct vmm_dtable *table)
{
    unsigned size = base_bytes(op);
    uint64_t linear;
    int r;

    if (cpu->cpl && (cpu->cr4 & X86_CR4_UMIP))
        return x86_fault_err(cpu, op, X86_GP, 0);
    if (!x86_ea(cpu, op, 2 + size, true, &linear))
        return x86_leave(cpu, op);
    /* The two parts are checked for alignment each (SDM Vol. 3A 3.5.1), so they are written one by
     * one; what the second meets must be known before. */
    if (cpu->mmu_idx == MMU_USER_ALIGN && ((linear & 1) || ((linear + 2) & (size - 1))))
        return x86_fault_err(cpu, op, X86_AC_, 0);
    cpu->cur_idx = op->idx;
    r = mmu_probe(&cpu->mmu, cpu->mmu_idx, linear, 2 + size, MMU_WRITE);
    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, op->seg);
        return x86_leave(cpu, op);
    }
    if (!x86_write(cpu, op, op->seg, linear, &table->limit, 2) ||
        !x86_write(cpu, op, op->seg, linear + 2, &table->base, size))
        return x86_leave(cpu, op);
    return op + 1;
}

const struct x86_op *x86_sys_sgdt(struct x86_cpu *cpu, const struct x86_op *op)
{
    return store(cpu, op, &cpu->gdt);
}

const struct x86_op *x86_sys_sidt(struct x86_cpu *cpu, const struct x86_op *op)
{
    return store(cpu, op, &cpu->idt);
}
