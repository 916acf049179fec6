/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/xsave.c: FXSAVE, the XSAVE family and their counterparts. */
#include "core/x86/vec.h"

bool xsave_dec(struct x86_dec *d, struct x86_op *op)
{
    (void)d;
    (void)op;
    return false;
}
