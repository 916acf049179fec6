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

/*
 * Whether the page may contain an instruction that begins in it and must not be executed directly:
 * SGDT, SIDT, SMSW, LSL, RDPID, VMCALL, VMMCALL, SYSENTER, INT 80h (half of RAX would get lost) and
 * what `what` names. `next`: the bytes of the page behind it in linear addresses (the first 15 are
 * looked at), or NULL if they are not known. Then an opcode that the page cuts off counts; where
 * only its prefixes are in the page, nothing is seen of it, so the page needs another scan when the
 * one behind it is to be executable.
 *
 * It follows the code in a straight line from several places before each suspect, as x86 code is
 * soon in step wherever decoding begins. SLDT and STR, whose opcodes are two frequent bytes, count
 * if most of these places lead to them, all others if one does. It is no boundary for a program
 * that hides such an instruction inside of another one and jumps there: that program sees the
 * host's values, and by SYSENTER loses its registers.
 */
bool shadow_scan(const uint8_t page[4096], const uint8_t *next, unsigned what);

#endif
