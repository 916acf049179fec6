/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_bcd.c: DAA DAS AAA AAS AAM AAD; not in 64-bit mode, so the host cannot do them. */
#include "core/x86/ops_common.h"

#define AL 0
#define AH 1

/* DAA and DAS (SDM Vol. 2A): `sign` is +1 or -1. OF is undefined: clear. */
static inline void decimal_adjust(struct x86_cpu *cpu, int sign)
{
    uint8_t old = x86_r8(cpu, AL), al = old;
    bool cf = cpu->cc & X86_CC_CF, af = cpu->cc & X86_CC_AF, carry = false;

    if ((old & 0xf) > 9 || af) {
        carry = cf || (sign > 0 ? old > 0xf9 : old < 6);
        al = (uint8_t)(al + sign * 6);
        af = true;
    }
    if (old > 0x99 || cf) {
        al = (uint8_t)(al + sign * 0x60);
        carry = true;
    }
    x86_w8(cpu, AL, al);
    cpu->cc = (uint16_t)(x86_cc_logic(al, 1) | (carry ? X86_CC_CF : 0) | (af ? X86_CC_AF : 0));
}

X86_HANDLER(daa)
{
    decimal_adjust(cpu, 1);
    X86_NEXT(cpu, op);
}

X86_HANDLER(das)
{
    decimal_adjust(cpu, -1);
    X86_NEXT(cpu, op);
}

/* AAA and AAS: 106H is added to or subtracted from AX as a whole. SF, ZF, PF and OF are undefined:
 * those of AL, and clear. */
static inline void ascii_adjust(struct x86_cpu *cpu, int sign)
{
    uint16_t ax = x86_r16(cpu, VMM_RAX);
    bool adjust = (ax & 0xf) > 9 || (cpu->cc & X86_CC_AF);

    if (adjust)
        ax = (uint16_t)(ax + sign * 0x106);
    ax &= 0xff0f;
    x86_w16(cpu, VMM_RAX, ax);
    cpu->cc = (uint16_t)(x86_cc_logic(ax, 1) | (adjust ? X86_CC_CF | X86_CC_AF : 0));
}

X86_HANDLER(aaa)
{
    ascii_adjust(cpu, 1);
    X86_NEXT(cpu, op);
}

X86_HANDLER(aas)
{
    ascii_adjust(cpu, -1);
    X86_NEXT(cpu, op);
}

X86_HANDLER(aam)
{
    uint8_t al = x86_r8(cpu, AL), base = (uint8_t)op->imm;

    if (!base)
        return x86_fault(cpu, op, X86_DE);
    x86_w8(cpu, AH, al / base);
    x86_w8(cpu, AL, al % base);
    cpu->cc = x86_cc_logic(al % base, 1);
    X86_NEXT(cpu, op);
}

/* The flags that are undefined are those of the addition. */
X86_HANDLER(aad)
{
    uint8_t al = x86_r8(cpu, AL), add = (uint8_t)(x86_r8(cpu, AH) * (uint8_t)op->imm);
    uint16_t cc;

    __asm__("addb %[add], %[al]" X86_FLAGS_OUT : [al] "+r"(al), "=a"(cc) : [add] "r"(add) : "cc");
    x86_w16(cpu, VMM_RAX, al);
    cpu->cc = cc;
    X86_NEXT(cpu, op);
}

bool x86_dec_bcd(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    static x86_fn *const fn[] = {[X86_BCD_DAA] = daa, [X86_BCD_DAS] = das, [X86_BCD_AAA] = aaa,
                                 [X86_BCD_AAS] = aas, [X86_BCD_AAM] = aam, [X86_BCD_AAD] = aad};

    /* AAM and AAD have the base as their last byte. */
    op->imm = d->code[d->insn.length - 1];
    op->fn = fn[arg];
    return true;
}
