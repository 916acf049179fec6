/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/syscall.c: SYSCALL, SYSENTER and their returns. */
#include <stdlib.h>

#include "core/x86/exec.h"
#include "core/x86/sys_handlers.h"

const struct x86_op *x86_sys_syscall(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_sysret(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_sysenter(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}

const struct x86_op *x86_sys_sysexit(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    (void)op;
    abort();
}
