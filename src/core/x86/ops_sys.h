/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_sys.h: the system instructions, for decode.c. */
#ifndef CORE_X86_OPS_SYS_H
#define CORE_X86_OPS_SYS_H

#include "core/x86/decode.h"

/*
 * Forms of MOV, PUSH, POP, CALL, JMP and RET that belong here; the rows of those mnemonics call
 * these when x86_dec_is_sys says so. `arg` of x86_dec_far: X86_FAR_*.
 */
#define X86_FAR_JMP  0
#define X86_FAR_CALL 1
#define X86_FAR_RET  2
x86_dec_fn x86_dec_far;
x86_dec_fn x86_dec_mov_sys;  /* MOV with a segment, control or debug register */
x86_dec_fn x86_dec_push_seg; /* PUSH ES ... GS */
x86_dec_fn x86_dec_pop_seg;

/* A far branch, or an instruction with a segment, control or debug register as operand 0 or 1. */
static inline bool x86_dec_is_sys(const struct x86_dec *d)
{
    if (d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return true;
    for (unsigned i = 0; i < 2 && i < d->insn.operand_count_visible; i++) {
        ZydisRegisterClass c;

        if (d->opnd[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        c = ZydisRegisterGetClass(d->opnd[i].reg.value);
        if (c == ZYDIS_REGCLASS_SEGMENT || c == ZYDIS_REGCLASS_CONTROL || c == ZYDIS_REGCLASS_DEBUG)
            return true;
    }
    return false;
}

/* `arg` of x86_dec_sys: enum x86_sys_insn (ops_sys.c). */
x86_dec_fn x86_dec_sys;

#define X86_OPS_SYS(X)                                                                             \
    X(INT, x86_dec_sys, X86_SYS_INT)                                                               \
    X(INT1, x86_dec_sys, X86_SYS_INT1)                                                             \
    X(INT3, x86_dec_sys, X86_SYS_INT3)                                                             \
    X(INTO, x86_dec_sys, X86_SYS_INTO)                                                             \
    X(IRET, x86_dec_sys, X86_SYS_IRET)                                                             \
    X(IRETD, x86_dec_sys, X86_SYS_IRET)                                                            \
    X(IRETQ, x86_dec_sys, X86_SYS_IRET)                                                            \
    X(SYSCALL, x86_dec_sys, X86_SYS_SYSCALL)                                                       \
    X(SYSRET, x86_dec_sys, X86_SYS_SYSRET)                                                         \
    X(SYSENTER, x86_dec_sys, X86_SYS_SYSENTER)                                                     \
    X(SYSEXIT, x86_dec_sys, X86_SYS_SYSEXIT)                                                       \
    X(LDS, x86_dec_sys, X86_SYS_LXS)                                                               \
    X(LES, x86_dec_sys, X86_SYS_LXS)                                                               \
    X(LFS, x86_dec_sys, X86_SYS_LXS)                                                               \
    X(LGS, x86_dec_sys, X86_SYS_LXS)                                                               \
    X(LSS, x86_dec_sys, X86_SYS_LXS)                                                               \
    X(LAR, x86_dec_sys, X86_SYS_LAR)                                                               \
    X(LSL, x86_dec_sys, X86_SYS_LSL)                                                               \
    X(VERR, x86_dec_sys, X86_SYS_VERR)                                                             \
    X(VERW, x86_dec_sys, X86_SYS_VERW)                                                             \
    X(ARPL, x86_dec_sys, X86_SYS_ARPL)                                                             \
    X(LLDT, x86_dec_sys, X86_SYS_LLDT)                                                             \
    X(LTR, x86_dec_sys, X86_SYS_LTR)                                                               \
    X(SLDT, x86_dec_sys, X86_SYS_SLDT)                                                             \
    X(STR, x86_dec_sys, X86_SYS_STR)                                                               \
    X(LGDT, x86_dec_sys, X86_SYS_LGDT)                                                             \
    X(LIDT, x86_dec_sys, X86_SYS_LIDT)                                                             \
    X(SGDT, x86_dec_sys, X86_SYS_SGDT)                                                             \
    X(SIDT, x86_dec_sys, X86_SYS_SIDT)                                                             \
    X(CLTS, x86_dec_sys, X86_SYS_CLTS)                                                             \
    X(LMSW, x86_dec_sys, X86_SYS_LMSW)                                                             \
    X(SMSW, x86_dec_sys, X86_SYS_SMSW)                                                             \
    X(INVLPG, x86_dec_sys, X86_SYS_INVLPG)                                                         \
    X(INVPCID, x86_dec_sys, X86_SYS_INVPCID)                                                       \
    X(INVD, x86_dec_sys, X86_SYS_INVD)                                                             \
    X(WBINVD, x86_dec_sys, X86_SYS_WBINVD)                                                         \
    X(XGETBV, x86_dec_sys, X86_SYS_XGETBV)                                                         \
    X(XSETBV, x86_dec_sys, X86_SYS_XSETBV)                                                         \
    X(HLT, x86_dec_sys, X86_SYS_HLT)                                                               \
    X(RDPMC, x86_dec_sys, X86_SYS_RDPMC)                                                           \
    X(RDTSC, x86_dec_sys, X86_SYS_RDTSC)                                                           \
    X(RDTSCP, x86_dec_sys, X86_SYS_RDTSCP)                                                         \
    X(RDPID, x86_dec_sys, X86_SYS_RDPID)                                                           \
    X(SWAPGS, x86_dec_sys, X86_SYS_SWAPGS)                                                         \
    X(RDFSBASE, x86_dec_sys, X86_SYS_RDFSBASE)                                                     \
    X(RDGSBASE, x86_dec_sys, X86_SYS_RDGSBASE)                                                     \
    X(WRFSBASE, x86_dec_sys, X86_SYS_WRFSBASE)                                                     \
    X(WRGSBASE, x86_dec_sys, X86_SYS_WRGSBASE)                                                     \
    X(STAC, x86_dec_sys, X86_SYS_STAC)                                                             \
    X(CLAC, x86_dec_sys, X86_SYS_CLAC)                                                             \
    X(RDPKRU, x86_dec_sys, X86_SYS_RDPKRU)                                                         \
    X(WRPKRU, x86_dec_sys, X86_SYS_WRPKRU)                                                         \
    X(CPUID, x86_dec_sys, X86_SYS_CPUID)                                                           \
    X(VMCALL, x86_dec_sys, X86_SYS_VMCALL)                                                         \
    X(VMMCALL, x86_dec_sys, X86_SYS_VMCALL)                                                        \
    X(SERIALIZE, x86_dec_sys, X86_SYS_SERIALIZE)                                                   \
    X(RDMSR, x86_dec_sys, X86_SYS_RDMSR)                                                           \
    X(WRMSR, x86_dec_sys, X86_SYS_WRMSR)                                                           \
    X(CLI, x86_dec_sys, X86_SYS_CLI)                                                               \
    X(STI, x86_dec_sys, X86_SYS_STI)                                                               \
    X(PUSHF, x86_dec_sys, X86_SYS_PUSHF)                                                           \
    X(PUSHFD, x86_dec_sys, X86_SYS_PUSHF)                                                          \
    X(PUSHFQ, x86_dec_sys, X86_SYS_PUSHF)                                                          \
    X(POPF, x86_dec_sys, X86_SYS_POPF)                                                             \
    X(POPFD, x86_dec_sys, X86_SYS_POPF)                                                            \
    X(POPFQ, x86_dec_sys, X86_SYS_POPF)                                                            \
    X(IN, x86_dec_sys, X86_SYS_IN)                                                                 \
    X(OUT, x86_dec_sys, X86_SYS_OUT)                                                               \
    X(INSB, x86_dec_sys, X86_SYS_INS)                                                              \
    X(INSW, x86_dec_sys, X86_SYS_INS)                                                              \
    X(INSD, x86_dec_sys, X86_SYS_INS)                                                              \
    X(OUTSB, x86_dec_sys, X86_SYS_OUTS)                                                            \
    X(OUTSW, x86_dec_sys, X86_SYS_OUTS)                                                            \
    X(OUTSD, x86_dec_sys, X86_SYS_OUTS)

enum x86_sys_insn {
    X86_SYS_INT,
    X86_SYS_INT1,
    X86_SYS_INT3,
    X86_SYS_INTO,
    X86_SYS_IRET,
    X86_SYS_SYSCALL,
    X86_SYS_SYSRET,
    X86_SYS_SYSENTER,
    X86_SYS_SYSEXIT,
    X86_SYS_LXS,
    X86_SYS_LAR,
    X86_SYS_LSL,
    X86_SYS_VERR,
    X86_SYS_VERW,
    X86_SYS_ARPL,
    X86_SYS_LLDT,
    X86_SYS_LTR,
    X86_SYS_SLDT,
    X86_SYS_STR,
    X86_SYS_LGDT,
    X86_SYS_LIDT,
    X86_SYS_SGDT,
    X86_SYS_SIDT,
    X86_SYS_CLTS,
    X86_SYS_LMSW,
    X86_SYS_SMSW,
    X86_SYS_INVLPG,
    X86_SYS_INVPCID,
    X86_SYS_INVD,
    X86_SYS_WBINVD,
    X86_SYS_XGETBV,
    X86_SYS_XSETBV,
    X86_SYS_HLT,
    X86_SYS_RDPMC,
    X86_SYS_RDTSC,
    X86_SYS_RDTSCP,
    X86_SYS_RDPID,
    X86_SYS_SWAPGS,
    X86_SYS_RDFSBASE,
    X86_SYS_RDGSBASE,
    X86_SYS_WRFSBASE,
    X86_SYS_WRGSBASE,
    X86_SYS_STAC,
    X86_SYS_CLAC,
    X86_SYS_RDPKRU,
    X86_SYS_WRPKRU,
    X86_SYS_CPUID,
    X86_SYS_VMCALL,
    X86_SYS_SERIALIZE,
    X86_SYS_RDMSR,
    X86_SYS_WRMSR,
    X86_SYS_CLI,
    X86_SYS_STI,
    X86_SYS_PUSHF,
    X86_SYS_POPF,
    X86_SYS_IN,
    X86_SYS_OUT,
    X86_SYS_INS,
    X86_SYS_OUTS,
    X86_SYS_COUNT
};

#endif
