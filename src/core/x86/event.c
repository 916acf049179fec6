/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/event.c: the delivery of interrupts and exceptions, and software interrupts. */
#include <stdlib.h>

#include "core/x86/exec.h"
#include "core/x86/sys_handlers.h"

const struct x86_op *x86_sys_int(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_int1(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_int3(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_into(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

bool x86_deliver(struct x86_cpu *cpu)
{
    (void)cpu;
    abort();
}
