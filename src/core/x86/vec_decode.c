/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_decode.c: decodes vector, mask, MMX and x87 instructions. */
#include "core/x86/decode.h"

bool x86_dec_vec(struct x86_dec *d, struct x86_op *op)
{
    (void)d;
    (void)op;
    return false;
}
