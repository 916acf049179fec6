/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_flag.c: instructions on single flags, LAHF, SAHF, SALC. */
#include "core/x86/ops_common.h"

#define AH 1 /* byte offset in gpr */

X86_HANDLER(clc)
{
    cpu->cc &= (uint16_t)~X86_CC_CF;
    X86_NEXT(cpu, op);
}

X86_HANDLER(stc)
{
    cpu->cc |= X86_CC_CF;
    X86_NEXT(cpu, op);
}

X86_HANDLER(cmc)
{
    cpu->cc ^= X86_CC_CF;
    X86_NEXT(cpu, op);
}

X86_HANDLER(cld)
{
    cpu->rflags &= ~X86_DF;
    X86_NEXT(cpu, op);
}

X86_HANDLER(std)
{
    cpu->rflags |= X86_DF;
    X86_NEXT(cpu, op);
}

X86_HANDLER(sahf)
{
    cpu->cc = (uint16_t)((x86_r8(cpu, AH) & 0xd5u) << 8 | X86_CC_NONE | (cpu->cc & X86_CC_OF));
    X86_NEXT(cpu, op);
}

X86_HANDLER(lahf)
{
    x86_w8(cpu, AH, (uint8_t)(cpu->cc >> 8));
    X86_NEXT(cpu, op);
}

X86_HANDLER(salc)
{
    x86_w8(cpu, 0, cpu->cc & X86_CC_CF ? 0xff : 0);
    X86_NEXT(cpu, op);
}

bool x86_dec_flag(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[] = {
        [X86_FLAG_CLC] = clc,   [X86_FLAG_STC] = stc,   [X86_FLAG_CMC] = cmc,
        [X86_FLAG_CLD] = cld,   [X86_FLAG_STD] = std,   [X86_FLAG_SAHF] = sahf,
        [X86_FLAG_LAHF] = lahf, [X86_FLAG_SALC] = salc,
    };

    if ((arg == X86_FLAG_SAHF || arg == X86_FLAG_LAHF) && x86_dec_64(d) &&
        !(d->cpu->feat.x1_ecx & 1u))
        return false;
    op->fn = fn[arg];
    return true;
}
