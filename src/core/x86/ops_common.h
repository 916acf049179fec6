/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_common.h: how handlers end. The threading of the interpreter is decided here alone.
 */
#ifndef CORE_X86_OPS_COMMON_H
#define CORE_X86_OPS_COMMON_H

#include "core/x86/exec.h"

/* A handler's parameters. */
#define X86_HANDLER(name)                                                                          \
    static const struct x86_op *name(struct x86_cpu *cpu, const struct x86_op *op)

/* Ends a handler: goes on with the op behind `op`. */
#define X86_NEXT(cpu, op) return (op) + 1

/* Ends the handler of a block's last instruction; `next` is a result of x86_next. */
#define X86_GO(cpu, next) return (next)

#endif
