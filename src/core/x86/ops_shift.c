/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_shift.c: shifts and rotates, SHLD and SHRD. */
#include "core/x86/ops_common.h"

/*
 * The count is masked by the host's instruction just as by the guest's, and a count of 0 leaves the
 * flags that were loaded.
 */

enum form { R, M, NFORMS };
enum count { BY_IMM, BY_CL, NCOUNTS };

#define CL(cpu) x86_r8(cpu, 8 * VMM_RCX)

#define SHIFT_ASM(insn, bits, constraint, dst, count)                                              \
    __asm__ volatile(X86_FLAGS_IN insn X86_SFX_##bits " %%cl, %[d]" X86_FLAGS_OUT                  \
                     : [d] constraint(dst), [cc] "+&a"(cc)                                         \
                     : "c"((uint8_t)(count))                                                       \
                     : "cc")

#define SHIFT_REG(name, insn, bits, count)                                                         \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r);                                                \
        uint16_t cc = cpu->cc;                                                                     \
        SHIFT_ASM(insn, bits, "+r", d, count);                                                     \
        x86_w##bits(cpu, op->r, d);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define SHIFT_FORMS(op_, insn, bits)                                                               \
    SHIFT_REG(op_##bits##_ri, insn, bits, op->imm)                                                 \
    SHIFT_REG(op_##bits##_rc, insn, bits, CL(cpu))                                                 \
    X86_RMW_HANDLER(op_##bits##_mi, bits, false, 0, SHIFT_ASM(insn, bits, "+m", *p, op->imm),      \
                    cpu->cc = cc)                                                                  \
    X86_RMW_HANDLER(op_##bits##_mc, bits, false, 0, SHIFT_ASM(insn, bits, "+m", *p, CL(cpu)),      \
                    cpu->cc = cc)
#define SHIFT(op_)                                                                                 \
    SHIFT_FORMS(op_, #op_, 8)                                                                      \
    SHIFT_FORMS(op_, #op_, 16) SHIFT_FORMS(op_, #op_, 32) SHIFT_FORMS(op_, #op_, 64)

SHIFT(rol)
SHIFT(ror)
SHIFT(rcl)
SHIFT(rcr)
SHIFT(shl)
SHIFT(shr)
SHIFT(sar)

#define FORM_ROW(op_, form)                                                                        \
    {                                                                                              \
        op_##8_##form, op_##16_##form, op_##32_##form, op_##64_##form                              \
    }
#define SHIFT_ROW(op_)                                                                             \
    {                                                                                              \
        {FORM_ROW(op_, ri), FORM_ROW(op_, rc)},                                                    \
        {                                                                                          \
            FORM_ROW(op_, mi), FORM_ROW(op_, mc)                                                   \
        }                                                                                          \
    }
static x86_fn *const shift_fn[][NFORMS][NCOUNTS][4] = {
    [X86_SHIFT_ROL] = SHIFT_ROW(rol), [X86_SHIFT_ROR] = SHIFT_ROW(ror),
    [X86_SHIFT_RCL] = SHIFT_ROW(rcl), [X86_SHIFT_RCR] = SHIFT_ROW(rcr),
    [X86_SHIFT_SHL] = SHIFT_ROW(shl), [X86_SHIFT_SHR] = SHIFT_ROW(shr),
    [X86_SHIFT_SAR] = SHIFT_ROW(sar),
};

/* Operand 0 into r or the memory operand. */
static enum form destination(struct x86_dec *d, struct x86_op *op)
{
    if (x86_dec_is_mem(d, 0)) {
        x86_dec_mem(d, 0, op);
        return M;
    }
    op->r = x86_dec_reg(d->opnd[0].reg.value);
    return R;
}

static enum count count_operand(struct x86_dec *d, unsigned i, struct x86_op *op)
{
    if (!x86_dec_is_imm(d, i))
        return BY_CL;
    op->imm = x86_dec_imm(d, i);
    return BY_IMM;
}

bool x86_dec_shift(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    enum form form = destination(d, op);
    enum count count = count_operand(d, 1, op);

    op->fn = shift_fn[arg][form][count][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}

/* ---- SHLD, SHRD: the register operand is rm ---- */

#define SHIFTD_ASM(insn, bits, constraint, dst, count)                                             \
    __asm__ volatile(X86_FLAGS_IN insn X86_SFX_##bits " %%cl, %[s], %[d]" X86_FLAGS_OUT            \
                     : [d] constraint(dst), [cc] "+&a"(cc)                                         \
                     : [s] "r"(s), "c"((uint8_t)(count))                                           \
                     : "cc")
#define SHIFTD_REG(name, insn, bits, count)                                                        \
    X86_HANDLER(name)                                                                              \
    {                                                                                              \
        uint##bits##_t d = x86_r##bits(cpu, op->r), s = x86_r##bits(cpu, op->rm);                  \
        uint16_t cc = cpu->cc;                                                                     \
        SHIFTD_ASM(insn, bits, "+r", d, count);                                                    \
        x86_w##bits(cpu, op->r, d);                                                                \
        cpu->cc = cc;                                                                              \
        X86_NEXT(cpu, op);                                                                         \
    }
#define SHIFTD_FORMS(op_, insn, bits)                                                              \
    SHIFTD_REG(op_##bits##_ri, insn, bits, op->imm)                                                \
    SHIFTD_REG(op_##bits##_rc, insn, bits, CL(cpu))                                                \
    X86_RMW_HANDLER(op_##bits##_mi, bits, false, x86_r##bits(cpu, op->rm),                         \
                    SHIFTD_ASM(insn, bits, "+m", *p, op->imm), cpu->cc = cc)                       \
    X86_RMW_HANDLER(op_##bits##_mc, bits, false, x86_r##bits(cpu, op->rm),                         \
                    SHIFTD_ASM(insn, bits, "+m", *p, CL(cpu)), cpu->cc = cc)
#define SHIFTD(op_)                                                                                \
    SHIFTD_FORMS(op_, #op_, 16) SHIFTD_FORMS(op_, #op_, 32) SHIFTD_FORMS(op_, #op_, 64)
SHIFTD(shld)
SHIFTD(shrd)

#define FORMD_ROW(op_, form)                                                                       \
    {                                                                                              \
        NULL, op_##16_##form, op_##32_##form, op_##64_##form                                       \
    }
#define SHIFTD_ROW(op_)                                                                            \
    {                                                                                              \
        {FORMD_ROW(op_, ri), FORMD_ROW(op_, rc)},                                                  \
        {                                                                                          \
            FORMD_ROW(op_, mi), FORMD_ROW(op_, mc)                                                 \
        }                                                                                          \
    }
static x86_fn *const shiftd_fn[2][NFORMS][NCOUNTS][4] = {SHIFTD_ROW(shld), SHIFTD_ROW(shrd)};

/* arg: 0 SHLD, 1 SHRD. */
bool x86_dec_shiftd(struct x86_dec *d, struct x86_op *op, unsigned arg)
{
    enum form form = destination(d, op);
    enum count count = count_operand(d, 2, op);

    op->rm = x86_dec_reg(d->opnd[1].reg.value);
    op->fn = shiftd_fn[arg][form][count][x86_log2_size(x86_dec_size(d, 0))];
    return true;
}
