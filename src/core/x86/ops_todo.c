/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_todo.c: integer instructions that are not written yet. */
#include "core/x86/ops_int.h"

bool x86_dec_string(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    (void)d, (void)op, (void)arg;
    return false;
}
