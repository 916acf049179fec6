/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/scan.h: finds code that the host's CPU must not execute for the guest. */
#ifndef VMM_SHADOW_SCAN_H
#define VMM_SHADOW_SCAN_H

#include <stdbool.h>
#include <stdint.h>

/* Which instructions the host does not trap and whose result would differ. */
#define SHADOW_SCAN_XSTATE   1u  /* XCR0 differs: XGETBV, XSAVE, XSAVEC, XSAVEOPT, XRSTOR */
#define SHADOW_SCAN_CPUID    2u  /* CPUID does not fault here */
#define SHADOW_SCAN_TSC      4u  /* RDTSC, RDTSCP, RDPRU do not fault here */
#define SHADOW_SCAN_FSGSBASE 8u  /* guest has CR4.FSGSBASE clear: RDFSBASE and its like are #UD */
#define SHADOW_SCAN_PKU      16u /* PKRU is not the guest's: RDPKRU, WRPKRU */
#define SHADOW_SCAN_UMIP     32u /* guest has CR4.UMIP: SLDT, STR raise #GP */

/* A page of code, and those around it in linear addresses, or NULL if they are not known. */
struct shadow_code {
    const uint8_t *page;
    const uint8_t *prev; /* of it the last 70 bytes are looked at */
    const uint8_t *next; /* of it the first 15 */
};

/*
 * Whether the page may contain an instruction that begins in it and must not be executed directly:
 * SGDT, SIDT, SMSW, LSL, RDPID, VMCALL, VMMCALL, SYSENTER, INT 80h (half of RAX would get lost) and
 * what `what` names. Without `next` an opcode that the page cuts off counts; where only its
 * prefixes are in the page, nothing is seen of it, so the page needs another scan when the one
 * behind it is to be executable. Without `prev` more counts in the first 70 bytes than need be.
 *
 * It follows the code in a straight line from several places before each suspect, as x86 code is
 * soon in step wherever decoding begins. SLDT and STR, whose opcodes are two frequent bytes, count
 * if most of these places lead to them, over data or not; all others if one does, or if nothing but
 * data is before them. It is no boundary for a program that hides such an instruction inside of
 * another one and jumps there: that program sees the host's values, and by SYSENTER loses its
 * registers.
 */
bool shadow_scan(const struct shadow_code *c, unsigned what);

#endif
