/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/far.c: far branches and returns, IRET. */
#include <stdlib.h>

#include "core/x86/exec.h"
#include "core/x86/sys_handlers.h"

const struct x86_op *x86_sys_iret(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_jmp_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_jmp_far_mem(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_call_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_call_far_mem(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_ret_far(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}
