/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/decode.h: exit qualifications (SDM Vol. 3C 27.2.1), and MSR bitmaps (24.6.9). */
#ifndef VMX_DECODE_H
#define VMX_DECODE_H

#include <stdbool.h>
#include <stdint.h>

enum vmx_cr_kind { VMX_CR_WRITE, VMX_CR_READ, VMX_CR_CLTS, VMX_CR_LMSW };

struct vmx_cr_access {
    enum vmx_cr_kind kind;
    uint8_t cr, gpr; /* gpr as VMM_RAX ... */
    bool memory;     /* LMSW from memory */
    uint16_t source; /* LMSW */
};
struct vmx_cr_access vmx_cr_access(uint64_t qualification);

struct vmx_io_access {
    uint16_t port;
    uint8_t size; /* 1, 2 or 4 */
    bool in, string, rep, immediate;
};
static inline struct vmx_io_access vmx_io_access(uint64_t q)
{
    return (struct vmx_io_access){.port = (uint16_t)(q >> 16),
                                  .size = (uint8_t)((q & 7) + 1),
                                  .in = q >> 3 & 1,
                                  .string = q >> 4 & 1,
                                  .rep = q >> 5 & 1,
                                  .immediate = q >> 6 & 1};
}

struct vmx_ept_violation {
    bool read, write, fetch; /* what was tried; an A/D update reads and writes */
    bool readable, writable, executable;
    bool linear_valid; /* GUEST_LINEAR_ADDR */
    bool translated;   /* of the linear address itself, not of a paging structure */
};
static inline struct vmx_ept_violation vmx_ept_violation(uint64_t q)
{
    return (struct vmx_ept_violation){.read = q & 1,
                                      .write = q >> 1 & 1,
                                      .fetch = q >> 2 & 1,
                                      .readable = q >> 3 & 1,
                                      .writable = q >> 4 & 1,
                                      .executable = q >> 5 & 1,
                                      .linear_valid = q >> 7 & 1,
                                      .translated = (q >> 7 & 3) == 3};
}

/* ---- MSR bitmaps: a set bit exits ---- */

#define VMX_MSR_BITMAP_SIZE 4096

/* MSRs that the bitmap does not have (not in 0-1fff, c0000000-c0001fff) always exit; setting them
 * is without effect. */
void vmx_msr_bitmap_set(uint8_t *bitmap, uint32_t msr, bool read, bool write);
void vmx_msr_bitmap_clear(uint8_t *bitmap, uint32_t msr, bool read, bool write);

#endif
