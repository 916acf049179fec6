/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/x87.c: x87 instructions. */
#include <string.h>

#include "core/x86/vec.h"

void x87_set_top0(struct x86_fpu *f)
{
    unsigned top = f->fsw >> 11 & 7;
    uint8_t old[8][16];

    if (!top)
        return;
    memcpy(old, f->x87, sizeof old);
    for (unsigned i = 0; i < 8; i++) /* ST(i) is physical register TOP + i */
        memcpy(f->x87[(i + top) & 7], old[i], 16);
    f->fsw &= (uint16_t)~0x3800u;
}

void x87_update_es(struct x86_fpu *f)
{
    f->fsw &= (uint16_t)~0x8080u;
    if (f->fsw & ~f->fcw & 0x3f)
        f->fsw |= 0x8080;
}

bool x87_dec(struct x86_dec *d, struct x86_op *op)
{
    (void)d;
    (void)op;
    return false;
}
