/* SPDX-License-Identifier: BSD-2-Clause */
/* snippet.h: a table of instruction tests: an assembly snippet and the state it must lead to. A new
 * test is two lines of assembly (SNIPPET ... END in a .S file) and one row. */
#ifndef SNIPPET_H
#define SNIPPET_H

/* Memory of the guest, linear = physical in all modes; known to the assembly too. */
#define SNIP_CODE     0x1000
#define SNIP_DATA     0x3000 /* 4 KiB, read and write; filled with 0xa5 but for `in` */
#define SNIP_RO       0x4000 /* paging: read only */
#define SNIP_ABSENT   0x5000 /* paging: not present */
#define SNIP_KERNEL   0x6000 /* paging: supervisor only */
#define SNIP_NX       0x7000 /* paging: no execute */
#define SNIP_STACK    0x9000 /* top; of the snippet */
#define SNIP_TSS      0x9000
#define SNIP_GDT      0xa000
#define SNIP_IDT      0xb000
#define SNIP_HANDLERS 0xc000 /* HLT; JMP to it; NOP: 4 bytes for each vector */
#define SNIP_KSTACK   0xe000 /* top; of exceptions in user mode, 32-bit and long mode */
#define SNIP_TABLES   0x10000
#define SNIP_MEM      0x20000
#define SNIP_MMIO     0xd0000000 /* paging: mapped, no memory there */

/* Selectors. */
#define SEL_CODE64  0x08
#define SEL_DATA    0x10
#define SEL_CODE32  0x18
#define SEL_UCODE64 0x2b
#define SEL_UDATA   0x33
#define SEL_CODE16  0x38
#define SEL_DATA16  0x40
#define SEL_TSS     0x48 /* 16 bytes in long mode */
#define SEL_UCODE32 0x5b
#define SEL_ABSENT  0x60 /* data, not present */
#define SEL_RODATA  0x68
#define SEL_CONF32  0x70 /* conforming code */
#define SEL_GATE    0x7b /* 32-bit call gate of DPL 3 to SNIP_CODE + 0x800, no parameters */
#define SEL_XONLY   0x80 /* 32-bit code, execute only */
#define SEL_SMALL   0x88 /* data, limit 0xff */
#define SEL_DOWN    0x90 /* expand-down data, above 0xfff */
#define SEL_LAST    0x97

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

enum snip_mode { REAL16, PROT16, PROT32, USER32, COMPAT32, LONG64, USER64, SNIP_NMODES };

/* Values that a row names. */
enum snip_name {
    NONE,
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    FLAGS, /* in: arithmetic flags and DF; out: those in `mask` (default: the six and DF) */
    CR0,
    CR2,
    CR3,
    CR4,
    EFER,
    DR6,
    DR7,
    CSSEL,
    SSSEL,
    DSSEL,
    ESSEL,
    FSSEL,
    GSSEL,
    FSBASE,
    GSBASE,
    RIPOFF, /* out: offset in the snippet at which it ended (a fault: of the instruction) */
    MEM     /* MEM + n: the quadword at SNIP_DATA + 8 * n */
};

struct snip_value {
    unsigned name;
    uint64_t value;
};

#define SNIP_VALUES 10
#define VECTOR(n)   ((n) + 1)

struct snippet {
    const char *name; /* of the assembly */
    enum snip_mode mode;
    struct snip_value in[SNIP_VALUES], out[SNIP_VALUES];
    unsigned vector; /* VECTOR(n): ends in that exception */
    uint32_t error;  /* its error code */
    uint32_t mask;   /* flags compared with FLAGS; 0: all */
    uint32_t needs;  /* SNIP_FEATURE, without which the machine does not offer it; 0: nothing */
};

/* Of CPUID: leaf, number of the register (EAX 0 to EDX 3), bit. */
#define SNIP_FEATURE(leaf, reg, bit) (1u << 31 | (leaf) << 16 | (reg) << 8 | (bit))
#define SNIP_SSE4_2                  SNIP_FEATURE(1u, 2u, 20u)
#define SNIP_POPCNT                  SNIP_FEATURE(1u, 2u, 23u)
#define SNIP_XSAVE                   SNIP_FEATURE(1u, 2u, 26u)
#define SNIP_FSGSBASE                SNIP_FEATURE(7u, 1u, 0u)
#define SNIP_BMI1                    SNIP_FEATURE(7u, 1u, 3u)
#define SNIP_BMI2                    SNIP_FEATURE(7u, 1u, 8u)

/* The assembly's side: SNIPPET and END make an array of these. */
struct snip_code {
    const char *name;
    const uint8_t *begin, *end;
};
extern const struct snip_code __start_snip_index[], __stop_snip_index[];

#define CF 0x1u
#define PF 0x4u
#define AF 0x10u
#define ZF 0x40u
#define SF 0x80u
#define DF 0x400u
#define OF 0x800u

struct snip_table {
    const char *name;
    const struct snippet *rows;
    size_t n;
};
#define SNIP_TABLE(id)                                                                             \
    const struct snip_table snip_##id = {#id, id##_rows, sizeof(id##_rows) / sizeof(id##_rows[0])}

#endif
#endif
