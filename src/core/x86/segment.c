/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/segment.c: descriptors and segment registers. */
#include <stdlib.h>

#include "core/x86/exec.h"
#include "core/x86/sys_handlers.h"

const struct x86_op *x86_sys_lxs(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_lar(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_lsl(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_verr(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_verw(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_arpl(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_lldt(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_ltr(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_sldt(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_str(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_mov_to_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_mov_from_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_push_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_pop_seg(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

bool x86_load_seg(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    (void)cpu;
    (void)seg;
    (void)selector;
    abort();
}

void x86_load_seg_real(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    (void)cpu;
    (void)seg;
    (void)selector;
    abort();
}
