/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check_common.h: what the files of the entry checks share. */
#ifndef VMX_CHECK_COMMON_H
#define VMX_CHECK_COMMON_H

#include "vmx/check.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* The first condition that does not hold ends the function. */
#define RULE(condition, text)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return text;                                                                           \
    } while (0)

#define CR0_PE 1ull
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_NW (1ull << 29)
#define CR0_CD (1ull << 30)
#define CR0_PG (1ull << 31)

#define CR4_PAE   (1ull << 5)
#define CR4_PCIDE (1ull << 17)
#define CR4_CET   (1ull << 23)

#define EFER_ALL 0xd01ull
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

#define RFLAGS_TF (1ull << 8)
#define RFLAGS_IF (1ull << 9)
#define RFLAGS_VM (1ull << 17)

static inline uint64_t rd(uint32_t field)
{
    return vmx_insn_read(field);
}

static inline uint32_t proc2(void)
{
    return rd(VMX_PROC_CTLS) & (uint32_t)VMX_PROC_SECONDARY ? (uint32_t)rd(VMX_PROC2_CTLS) : 0;
}

static inline bool canonical(uint64_t v)
{
    return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

/* A physical address, aligned. */
static inline bool address_ok(uint64_t v, uint64_t align, unsigned phys_bits)
{
    return !(v & (align - 1)) && !(v >> phys_bits);
}

static inline bool pat_ok(uint64_t pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        unsigned type = pat >> i & 0xff;

        if (type > 7 || type == 2 || type == 3)
            return false;
    }
    return true;
}

/* Bits that VMX fixes. */
static inline bool fixed_ok(uint64_t v, uint64_t fixed0, uint64_t fixed1)
{
    return !(~v & fixed0) && !(v & ~fixed1);
}

#endif
