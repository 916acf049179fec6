/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/x87.h: what the files about x87 instructions share. */
#ifndef CORE_X86_X87_H
#define CORE_X86_X87_H

#include "core/x86/vec.h"

/* Before an instruction that waits: CR0.EM and TS, a pending exception. */
static inline unsigned x87_denied(const struct x86_cpu *cpu)
{
    if (x86_unlikely(cpu->cr0 & (X86_CR0_EM | X86_CR0_TS)))
        return X86_NM;
    return x86_unlikely(x87_pending(cpu)) ? X86_MF : 0;
}

#define X87_CHECK(cpu, op)                                                                         \
    do {                                                                                           \
        unsigned vector_ = x87_denied(cpu);                                                        \
        if (x86_unlikely(vector_ != 0))                                                            \
            return x86_fault(cpu, op, (uint8_t)vector_);                                           \
    } while (0)

/* The offset of the memory operand in its segment. */
static inline uint64_t x87_offset(const struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t offset = x86_offset(cpu, op);

    return op->asz == X86_A64 ? offset : op->asz == X86_A32 ? offset & 0xffffffff : offset & 0xffff;
}

/* FINIT's state. */
void x87_init(struct x86_fpu *f);

/* Control instructions: those that need no thunk. [x87_env.c] */
bool x87_is_control(ZydisMnemonic mnemonic);
bool x87_dec_control(struct x86_dec *d, struct x86_op *op);

#endif
