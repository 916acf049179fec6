/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/xstate.h: the layout of XSAVE areas, for CPUID leaf 0DH and the XSAVE instructions. */
#ifndef CORE_X86_XSTATE_H
#define CORE_X86_XSTATE_H

#include "core/x86/x86.h"

/* Components (SDM Vol. 1 13.1). */
#define X86_XC_X87    0
#define X86_XC_SSE    1
#define X86_XC_AVX    2
#define X86_XC_OPMASK 5
#define X86_XC_ZMM_HI 6
#define X86_XC_HI16   7
#define X86_XC_PKRU   9
#define X86_XC_N      10

#define X86_XCR0_X87    0x1u
#define X86_XCR0_SSE    0x2u
#define X86_XCR0_AVX    0x4u
#define X86_XCR0_AVX512 0xe0u
#define X86_XCR0_PKRU   0x200u
#define X86_XCR0_ALL    0x2e7u

#define X86_XSAVE_LEGACY 512
#define X86_XSAVE_HEADER 64
#define X86_XSAVE_MAX    2696 /* size of a standard area with all components */

/* Bits that MXCSR has. */
#define X86_MXCSR_MASK 0xffffu

/* Standard-format offset and size of each component; size 0: there is no such component. None needs
 * 64-byte alignment in compacted areas (CPUID.(0DH,i):ECX[1] = 0). */
struct x86_xcomp {
    uint16_t offset, size;
};
extern const struct x86_xcomp x86_xcomp[X86_XC_N];

/* Size of a standard area for these components (CPUID.(0DH,0):EBX for XCR0), and of a compacted one
 * (CPUID.(0DH,1):EBX for XCR0 | IA32_XSS). */
uint32_t x86_xstate_size(uint64_t components);
uint32_t x86_xstate_compact_size(uint64_t components);

/* Components that are not in their initial configuration: XINUSE, exact. XGETBV with ECX = 1 gives
 * this & XCR0. */
uint64_t x86_xinuse(const struct x86_cpu *cpu);

#endif
