/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/ops_int.h: the integer instructions, for decode.c. */
#ifndef CORE_X86_OPS_INT_H
#define CORE_X86_OPS_INT_H

#include "core/x86/decode.h"

/* Arguments of the decode functions below; those that are plain numbers are a condition code, an
 * operand size in bytes, or a variant that the function's file explains. */
enum {
    X86_ALU_ADD,
    X86_ALU_OR,
    X86_ALU_ADC,
    X86_ALU_SBB,
    X86_ALU_AND,
    X86_ALU_SUB,
    X86_ALU_XOR,
    X86_ALU_CMP,
    X86_ALU_TEST
};                                                                   /* x86_dec_alu */
enum { X86_UNARY_INC, X86_UNARY_DEC, X86_UNARY_NEG, X86_UNARY_NOT }; /* x86_dec_unary */
enum {
    X86_SHIFT_ROL,
    X86_SHIFT_ROR,
    X86_SHIFT_RCL,
    X86_SHIFT_RCR,
    X86_SHIFT_SHL,
    X86_SHIFT_SHR,
    X86_SHIFT_SAR
};                                   /* x86_dec_shift */
enum { X86_MUL, X86_DIV, X86_IDIV }; /* x86_dec_muldiv */
enum {
    X86_BCD_DAA,
    X86_BCD_DAS,
    X86_BCD_AAA,
    X86_BCD_AAS,
    X86_BCD_AAM,
    X86_BCD_AAD
};                                                           /* x86_dec_bcd */
enum { X86_BT, X86_BTS, X86_BTR, X86_BTC };                  /* x86_dec_bt */
enum { X86_BSF, X86_BSR, X86_TZCNT, X86_LZCNT, X86_POPCNT }; /* x86_dec_scan */
enum {
    X86_ANDN,
    X86_BEXTR,
    X86_BLSI,
    X86_BLSMSK,
    X86_BLSR,
    X86_BZHI,
    X86_MULX,
    X86_PDEP,
    X86_PEXT,
    X86_RORX,
    X86_SARX,
    X86_SHLX,
    X86_SHRX,
    X86_ADCX,
    X86_ADOX
};                                                         /* x86_dec_bmi */
enum { X86_LOOP, X86_LOOPE, X86_LOOPNE, X86_JCXZ };        /* x86_dec_loop */
enum { X86_MOVS, X86_CMPS, X86_STOS, X86_LODS, X86_SCAS }; /* x86_dec_string */
enum {
    X86_FLAG_CLC,
    X86_FLAG_STC,
    X86_FLAG_CMC,
    X86_FLAG_CLD,
    X86_FLAG_STD,
    X86_FLAG_SAHF,
    X86_FLAG_LAHF,
    X86_FLAG_SALC
};                                              /* x86_dec_flag */
enum { X86_CLFLUSH, X86_CLFLUSHOPT, X86_CLWB }; /* x86_dec_clflush */
enum { X86_RDRAND, X86_RDSEED };                /* x86_dec_random */

x86_dec_fn x86_dec_mov;
x86_dec_fn x86_dec_movx;
x86_dec_fn x86_dec_movbe;
x86_dec_fn x86_dec_movnti;
x86_dec_fn x86_dec_lea;
x86_dec_fn x86_dec_bswap;
x86_dec_fn x86_dec_xlat;
x86_dec_fn x86_dec_cbw;
x86_dec_fn x86_dec_cwd;
x86_dec_fn x86_dec_cmov;
x86_dec_fn x86_dec_set;
x86_dec_fn x86_dec_alu;
x86_dec_fn x86_dec_unary;
x86_dec_fn x86_dec_xchg;
x86_dec_fn x86_dec_xadd;
x86_dec_fn x86_dec_cmpxchg;
x86_dec_fn x86_dec_cmpxchg2;
x86_dec_fn x86_dec_shift;
x86_dec_fn x86_dec_shiftd;
x86_dec_fn x86_dec_muldiv;
x86_dec_fn x86_dec_imul;
x86_dec_fn x86_dec_bcd;
x86_dec_fn x86_dec_bt;
x86_dec_fn x86_dec_scan;
x86_dec_fn x86_dec_bmi;
x86_dec_fn x86_dec_crc32;
x86_dec_fn x86_dec_jcc;
x86_dec_fn x86_dec_jmp;
x86_dec_fn x86_dec_call;
x86_dec_fn x86_dec_ret;
x86_dec_fn x86_dec_loop;
x86_dec_fn x86_dec_string;
x86_dec_fn x86_dec_push;
x86_dec_fn x86_dec_pop;
x86_dec_fn x86_dec_pusha;
x86_dec_fn x86_dec_popa;
x86_dec_fn x86_dec_enter;
x86_dec_fn x86_dec_leave;
x86_dec_fn x86_dec_flag;
x86_dec_fn x86_dec_nop;
x86_dec_fn x86_dec_pause;
x86_dec_fn x86_dec_fence;
x86_dec_fn x86_dec_clflush;
x86_dec_fn x86_dec_random;
x86_dec_fn x86_dec_bound;
x86_dec_fn x86_dec_monitor;
x86_dec_fn x86_dec_ud;

#define X86_OPS_MOV(X)                                                                             \
    X(MOV, x86_dec_mov, 0)                                                                         \
    X(MOVZX, x86_dec_movx, 0)                                                                      \
    X(MOVSX, x86_dec_movx, 1)                                                                      \
    X(MOVSXD, x86_dec_movx, 1)                                                                     \
    X(MOVBE, x86_dec_movbe, 0)                                                                     \
    X(MOVNTI, x86_dec_movnti, 0)                                                                   \
    X(MOVDIRI, x86_dec_movnti, 1)                                                                  \
    X(LEA, x86_dec_lea, 0)                                                                         \
    X(BSWAP, x86_dec_bswap, 0)                                                                     \
    X(XLAT, x86_dec_xlat, 0)                                                                       \
    X(CBW, x86_dec_cbw, 1)                                                                         \
    X(CWDE, x86_dec_cbw, 2)                                                                        \
    X(CDQE, x86_dec_cbw, 4)                                                                        \
    X(CWD, x86_dec_cwd, 2)                                                                         \
    X(CDQ, x86_dec_cwd, 4)                                                                         \
    X(CQO, x86_dec_cwd, 8)

#define X86_OPS_COND(X)                                                                            \
    X(CMOVO, x86_dec_cmov, 0)                                                                      \
    X(CMOVNO, x86_dec_cmov, 1)                                                                     \
    X(CMOVB, x86_dec_cmov, 2)                                                                      \
    X(CMOVNB, x86_dec_cmov, 3)                                                                     \
    X(CMOVZ, x86_dec_cmov, 4)                                                                      \
    X(CMOVNZ, x86_dec_cmov, 5)                                                                     \
    X(CMOVBE, x86_dec_cmov, 6)                                                                     \
    X(CMOVNBE, x86_dec_cmov, 7)                                                                    \
    X(CMOVS, x86_dec_cmov, 8)                                                                      \
    X(CMOVNS, x86_dec_cmov, 9)                                                                     \
    X(CMOVP, x86_dec_cmov, 10)                                                                     \
    X(CMOVNP, x86_dec_cmov, 11)                                                                    \
    X(CMOVL, x86_dec_cmov, 12)                                                                     \
    X(CMOVNL, x86_dec_cmov, 13)                                                                    \
    X(CMOVLE, x86_dec_cmov, 14)                                                                    \
    X(CMOVNLE, x86_dec_cmov, 15)                                                                   \
    X(SETO, x86_dec_set, 0)                                                                        \
    X(SETNO, x86_dec_set, 1)                                                                       \
    X(SETB, x86_dec_set, 2)                                                                        \
    X(SETNB, x86_dec_set, 3)                                                                       \
    X(SETZ, x86_dec_set, 4)                                                                        \
    X(SETNZ, x86_dec_set, 5)                                                                       \
    X(SETBE, x86_dec_set, 6)                                                                       \
    X(SETNBE, x86_dec_set, 7)                                                                      \
    X(SETS, x86_dec_set, 8)                                                                        \
    X(SETNS, x86_dec_set, 9)                                                                       \
    X(SETP, x86_dec_set, 10)                                                                       \
    X(SETNP, x86_dec_set, 11)                                                                      \
    X(SETL, x86_dec_set, 12)                                                                       \
    X(SETNL, x86_dec_set, 13)                                                                      \
    X(SETLE, x86_dec_set, 14)                                                                      \
    X(SETNLE, x86_dec_set, 15)

#define X86_OPS_ALU(X)                                                                             \
    X(ADD, x86_dec_alu, X86_ALU_ADD)                                                               \
    X(OR, x86_dec_alu, X86_ALU_OR)                                                                 \
    X(ADC, x86_dec_alu, X86_ALU_ADC)                                                               \
    X(SBB, x86_dec_alu, X86_ALU_SBB)                                                               \
    X(AND, x86_dec_alu, X86_ALU_AND)                                                               \
    X(SUB, x86_dec_alu, X86_ALU_SUB)                                                               \
    X(XOR, x86_dec_alu, X86_ALU_XOR)                                                               \
    X(CMP, x86_dec_alu, X86_ALU_CMP)                                                               \
    X(TEST, x86_dec_alu, X86_ALU_TEST)                                                             \
    X(INC, x86_dec_unary, X86_UNARY_INC)                                                           \
    X(DEC, x86_dec_unary, X86_UNARY_DEC)                                                           \
    X(NEG, x86_dec_unary, X86_UNARY_NEG)                                                           \
    X(NOT, x86_dec_unary, X86_UNARY_NOT)

#define X86_OPS_ATOMIC(X)                                                                          \
    X(XCHG, x86_dec_xchg, 0)                                                                       \
    X(XADD, x86_dec_xadd, 0)                                                                       \
    X(CMPXCHG, x86_dec_cmpxchg, 0)                                                                 \
    X(CMPXCHG8B, x86_dec_cmpxchg2, 8)                                                              \
    X(CMPXCHG16B, x86_dec_cmpxchg2, 16)

#define X86_OPS_SHIFT(X)                                                                           \
    X(ROL, x86_dec_shift, X86_SHIFT_ROL)                                                           \
    X(ROR, x86_dec_shift, X86_SHIFT_ROR)                                                           \
    X(RCL, x86_dec_shift, X86_SHIFT_RCL)                                                           \
    X(RCR, x86_dec_shift, X86_SHIFT_RCR)                                                           \
    X(SHL, x86_dec_shift, X86_SHIFT_SHL)                                                           \
    X(SHR, x86_dec_shift, X86_SHIFT_SHR)                                                           \
    X(SAR, x86_dec_shift, X86_SHIFT_SAR)                                                           \
    X(SHLD, x86_dec_shiftd, 0)                                                                     \
    X(SHRD, x86_dec_shiftd, 1)

#define X86_OPS_MULDIV(X)                                                                          \
    X(MUL, x86_dec_muldiv, X86_MUL)                                                                \
    X(IMUL, x86_dec_imul, 0)                                                                       \
    X(DIV, x86_dec_muldiv, X86_DIV)                                                                \
    X(IDIV, x86_dec_muldiv, X86_IDIV)

#define X86_OPS_BCD(X)                                                                             \
    X(DAA, x86_dec_bcd, X86_BCD_DAA)                                                               \
    X(DAS, x86_dec_bcd, X86_BCD_DAS)                                                               \
    X(AAA, x86_dec_bcd, X86_BCD_AAA)                                                               \
    X(AAS, x86_dec_bcd, X86_BCD_AAS)                                                               \
    X(AAM, x86_dec_bcd, X86_BCD_AAM)                                                               \
    X(AAD, x86_dec_bcd, X86_BCD_AAD)

#define X86_OPS_BIT(X)                                                                             \
    X(BT, x86_dec_bt, X86_BT)                                                                      \
    X(BTS, x86_dec_bt, X86_BTS)                                                                    \
    X(BTR, x86_dec_bt, X86_BTR)                                                                    \
    X(BTC, x86_dec_bt, X86_BTC)                                                                    \
    X(BSF, x86_dec_scan, X86_BSF)                                                                  \
    X(BSR, x86_dec_scan, X86_BSR)                                                                  \
    X(TZCNT, x86_dec_scan, X86_TZCNT)                                                              \
    X(LZCNT, x86_dec_scan, X86_LZCNT)                                                              \
    X(POPCNT, x86_dec_scan, X86_POPCNT)

#define X86_OPS_BMI(X)                                                                             \
    X(ANDN, x86_dec_bmi, X86_ANDN)                                                                 \
    X(BEXTR, x86_dec_bmi, X86_BEXTR)                                                               \
    X(BLSI, x86_dec_bmi, X86_BLSI)                                                                 \
    X(BLSMSK, x86_dec_bmi, X86_BLSMSK)                                                             \
    X(BLSR, x86_dec_bmi, X86_BLSR)                                                                 \
    X(BZHI, x86_dec_bmi, X86_BZHI)                                                                 \
    X(MULX, x86_dec_bmi, X86_MULX)                                                                 \
    X(PDEP, x86_dec_bmi, X86_PDEP)                                                                 \
    X(PEXT, x86_dec_bmi, X86_PEXT)                                                                 \
    X(RORX, x86_dec_bmi, X86_RORX)                                                                 \
    X(SARX, x86_dec_bmi, X86_SARX)                                                                 \
    X(SHLX, x86_dec_bmi, X86_SHLX)                                                                 \
    X(SHRX, x86_dec_bmi, X86_SHRX)                                                                 \
    X(ADCX, x86_dec_bmi, X86_ADCX)                                                                 \
    X(ADOX, x86_dec_bmi, X86_ADOX)                                                                 \
    X(CRC32, x86_dec_crc32, 0)

#define X86_OPS_BRANCH(X)                                                                          \
    X(JO, x86_dec_jcc, 0)                                                                          \
    X(JNO, x86_dec_jcc, 1)                                                                         \
    X(JB, x86_dec_jcc, 2)                                                                          \
    X(JNB, x86_dec_jcc, 3)                                                                         \
    X(JZ, x86_dec_jcc, 4)                                                                          \
    X(JNZ, x86_dec_jcc, 5)                                                                         \
    X(JBE, x86_dec_jcc, 6)                                                                         \
    X(JNBE, x86_dec_jcc, 7)                                                                        \
    X(JS, x86_dec_jcc, 8)                                                                          \
    X(JNS, x86_dec_jcc, 9)                                                                         \
    X(JP, x86_dec_jcc, 10)                                                                         \
    X(JNP, x86_dec_jcc, 11)                                                                        \
    X(JL, x86_dec_jcc, 12)                                                                         \
    X(JNL, x86_dec_jcc, 13)                                                                        \
    X(JLE, x86_dec_jcc, 14)                                                                        \
    X(JNLE, x86_dec_jcc, 15)                                                                       \
    X(JMP, x86_dec_jmp, 0)                                                                         \
    X(CALL, x86_dec_call, 0)                                                                       \
    X(RET, x86_dec_ret, 0)                                                                         \
    X(LOOP, x86_dec_loop, X86_LOOP)                                                                \
    X(LOOPE, x86_dec_loop, X86_LOOPE)                                                              \
    X(LOOPNE, x86_dec_loop, X86_LOOPNE)                                                            \
    X(JCXZ, x86_dec_loop, X86_JCXZ)                                                                \
    X(JECXZ, x86_dec_loop, X86_JCXZ)                                                               \
    X(JRCXZ, x86_dec_loop, X86_JCXZ)

#define X86_OPS_STRING(X)                                                                          \
    X(MOVSB, x86_dec_string, X86_MOVS)                                                             \
    X(MOVSW, x86_dec_string, X86_MOVS)                                                             \
    X(MOVSD, x86_dec_string, X86_MOVS)                                                             \
    X(MOVSQ, x86_dec_string, X86_MOVS)                                                             \
    X(CMPSB, x86_dec_string, X86_CMPS)                                                             \
    X(CMPSW, x86_dec_string, X86_CMPS)                                                             \
    X(CMPSD, x86_dec_string, X86_CMPS)                                                             \
    X(CMPSQ, x86_dec_string, X86_CMPS)                                                             \
    X(STOSB, x86_dec_string, X86_STOS)                                                             \
    X(STOSW, x86_dec_string, X86_STOS)                                                             \
    X(STOSD, x86_dec_string, X86_STOS)                                                             \
    X(STOSQ, x86_dec_string, X86_STOS)                                                             \
    X(LODSB, x86_dec_string, X86_LODS)                                                             \
    X(LODSW, x86_dec_string, X86_LODS)                                                             \
    X(LODSD, x86_dec_string, X86_LODS)                                                             \
    X(LODSQ, x86_dec_string, X86_LODS)                                                             \
    X(SCASB, x86_dec_string, X86_SCAS)                                                             \
    X(SCASW, x86_dec_string, X86_SCAS)                                                             \
    X(SCASD, x86_dec_string, X86_SCAS)                                                             \
    X(SCASQ, x86_dec_string, X86_SCAS)

#define X86_OPS_STACK(X)                                                                           \
    X(PUSH, x86_dec_push, 0)                                                                       \
    X(POP, x86_dec_pop, 0)                                                                         \
    X(PUSHA, x86_dec_pusha, 2)                                                                     \
    X(PUSHAD, x86_dec_pusha, 4)                                                                    \
    X(POPA, x86_dec_popa, 2)                                                                       \
    X(POPAD, x86_dec_popa, 4)                                                                      \
    X(ENTER, x86_dec_enter, 0)                                                                     \
    X(LEAVE, x86_dec_leave, 0)

#define X86_OPS_FLAG(X)                                                                            \
    X(CLC, x86_dec_flag, X86_FLAG_CLC)                                                             \
    X(STC, x86_dec_flag, X86_FLAG_STC)                                                             \
    X(CMC, x86_dec_flag, X86_FLAG_CMC)                                                             \
    X(CLD, x86_dec_flag, X86_FLAG_CLD)                                                             \
    X(STD, x86_dec_flag, X86_FLAG_STD)                                                             \
    X(SAHF, x86_dec_flag, X86_FLAG_SAHF)                                                           \
    X(LAHF, x86_dec_flag, X86_FLAG_LAHF)                                                           \
    X(SALC, x86_dec_flag, X86_FLAG_SALC)

#define X86_OPS_MISC(X)                                                                            \
    X(NOP, x86_dec_nop, 0)                                                                         \
    X(PAUSE, x86_dec_pause, 0)                                                                     \
    X(ENDBR32, x86_dec_nop, 0)                                                                     \
    X(ENDBR64, x86_dec_nop, 0)                                                                     \
    X(RDSSPD, x86_dec_nop, 0)                                                                      \
    X(RDSSPQ, x86_dec_nop, 0)                                                                      \
    X(CLDEMOTE, x86_dec_nop, 0)                                                                    \
    X(PREFETCH, x86_dec_nop, 0)                                                                    \
    X(PREFETCHNTA, x86_dec_nop, 0)                                                                 \
    X(PREFETCHT0, x86_dec_nop, 0)                                                                  \
    X(PREFETCHT1, x86_dec_nop, 0)                                                                  \
    X(PREFETCHT2, x86_dec_nop, 0)                                                                  \
    X(PREFETCHW, x86_dec_nop, 0)                                                                   \
    X(PREFETCHWT1, x86_dec_nop, 0)                                                                 \
    X(BNDCL, x86_dec_nop, 0)                                                                       \
    X(BNDCN, x86_dec_nop, 0)                                                                       \
    X(BNDCU, x86_dec_nop, 0)                                                                       \
    X(BNDLDX, x86_dec_nop, 0)                                                                      \
    X(BNDMK, x86_dec_nop, 0)                                                                       \
    X(BNDMOV, x86_dec_nop, 0)                                                                      \
    X(BNDSTX, x86_dec_nop, 0)                                                                      \
    X(LFENCE, x86_dec_fence, 0)                                                                    \
    X(SFENCE, x86_dec_fence, 0)                                                                    \
    X(MFENCE, x86_dec_fence, 0)                                                                    \
    X(CLFLUSH, x86_dec_clflush, X86_CLFLUSH)                                                       \
    X(CLFLUSHOPT, x86_dec_clflush, X86_CLFLUSHOPT)                                                 \
    X(CLWB, x86_dec_clflush, X86_CLWB)                                                             \
    X(RDRAND, x86_dec_random, X86_RDRAND)                                                          \
    X(RDSEED, x86_dec_random, X86_RDSEED)                                                          \
    X(BOUND, x86_dec_bound, 0)                                                                     \
    X(MONITOR, x86_dec_monitor, 0)                                                                 \
    X(MWAIT, x86_dec_monitor, 1)                                                                   \
    X(UD0, x86_dec_ud, 0)                                                                          \
    X(UD1, x86_dec_ud, 0)                                                                          \
    X(UD2, x86_dec_ud, 0)

#define X86_OPS_INT(X)                                                                             \
    X86_OPS_MOV(X)                                                                                 \
    X86_OPS_COND(X)                                                                                \
    X86_OPS_ALU(X)                                                                                 \
    X86_OPS_ATOMIC(X)                                                                              \
    X86_OPS_SHIFT(X)                                                                               \
    X86_OPS_MULDIV(X)                                                                              \
    X86_OPS_BCD(X)                                                                                 \
    X86_OPS_BIT(X)                                                                                 \
    X86_OPS_BMI(X)                                                                                 \
    X86_OPS_BRANCH(X)                                                                              \
    X86_OPS_STRING(X)                                                                              \
    X86_OPS_STACK(X)                                                                               \
    X86_OPS_FLAG(X)                                                                                \
    X86_OPS_MISC(X)

#endif
