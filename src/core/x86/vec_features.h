/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec_features.h: the CPUID bits whose instructions vec_decode.c and its like execute.
 * Those that the host has too may be offered to the guest. */
#ifndef CORE_X86_VEC_FEATURES_H
#define CORE_X86_VEC_FEATURES_H

/* CPUID.1:EDX: FPU, MMX, FXSR, SSE, SSE2. */
#define X86_VEC_1_EDX (1u << 0 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26)

/* CPUID.1:ECX: SSE3, PCLMULQDQ, SSSE3, FMA, SSE4.1, SSE4.2, AES, XSAVE, AVX, F16C. */
#define X86_VEC_1_ECX                                                                              \
    (1u << 0 | 1u << 1 | 1u << 9 | 1u << 12 | 1u << 19 | 1u << 20 | 1u << 25 | 1u << 26 |          \
     1u << 28 | 1u << 29)

/* CPUID.(7,0):EBX: AVX2, AVX512F, AVX512DQ, AVX512_IFMA, AVX512CD, SHA, AVX512BW, AVX512VL. */
#define X86_VEC_7_EBX                                                                              \
    (1u << 5 | 1u << 16 | 1u << 17 | 1u << 21 | 1u << 28 | 1u << 29 | 1u << 30 | 1u << 31)
/* "FPU CS and DS are deprecated": honoured by FSAVE and alike, to be set as the host has it. */
#define X86_VEC_7_EBX_NO_FCS (1u << 13)

/* CPUID.(7,0):ECX: AVX512_VBMI, AVX512_VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512_VNNI, AVX512_BITALG,
 * AVX512_VPOPCNTDQ. */
#define X86_VEC_7_ECX                                                                              \
    (1u << 1 | 1u << 6 | 1u << 8 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 14)

/* CPUID.(7,0):EDX: AVX512_FP16. */
#define X86_VEC_7_EDX (1u << 23)

/* CPUID.(7,1):EAX: AVX_VNNI, AVX512_BF16. */
#define X86_VEC_7_1_EAX (1u << 4 | 1u << 5)

/* CPUID.(0DH,1):EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES. No host support is needed. */
#define X86_VEC_D_1_EAX 0xfu

#endif
