/* SPDX-License-Identifier: BSD-2-Clause */
/* diff.h: random user-mode code on the real CPU and in a VM: what the parts share. */
#ifndef DIFF_H
#define DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Linear addresses, the same on both sides. Nothing else is mapped for user mode. */
#define DIFF_CODE      0x10000000u
#define DIFF_CODE_SIZE 0x1000u
#define DIFF_DATA      0x20000000u
#define DIFF_DATA_SIZE 0x4000u

#define DIFF_MAX_UNITS 32

/* Selectors as Linux has them, so that what stores selectors agrees. */
#define DIFF_CS32 0x23u
#define DIFF_DS   0x2bu
#define DIFF_CS64 0x33u

/* How a run ended; what both sides can tell apart. */
enum diff_end {
    DIFF_DONE,      /* the INT3 at the end */
    DIFF_DIVIDE,    /* #DE */
    DIFF_UNDEFINED, /* #UD */
    DIFF_PROTECT,   /* #GP, #OF, #BR, #NP: the host's SIGSEGV without an address */
    DIFF_PAGE,      /* #PF: addr is CR2 */
    DIFF_STACK,     /* #SS */
    DIFF_ALIGN,     /* #AC */
    DIFF_FLOAT,     /* #MF or #XM */
    DIFF_OTHER
};

struct diff_vec {
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint32_t mxcsr;
    uint8_t st[8][16]; /* as in FXSAVE; 10 bytes of each count */
    uint8_t zmm[32][64];
    uint64_t k[8];
};

struct diff_state {
    uint64_t gpr[16]; /* in the order of the encoding */
    uint64_t rip;
    uint64_t rflags;
    uint64_t fs_base, gs_base;
    struct diff_vec vec;
    enum diff_end end;
    uint64_t addr;
    uint8_t data[DIFF_DATA_SIZE];
};

/* An instruction under test with the MOVs in front that give it usable operands. */
struct diff_unit {
    uint16_t off, len;
    uint16_t insn;      /* offset of the instruction itself */
    uint32_t undefined; /* flags that are undefined before it */
    bool loose; /* what a fault leaves behind, and its address, are the processor's choice */
};

struct diff_case {
    bool code32;
    uint8_t code[DIFF_CODE_SIZE];
    unsigned len;
    unsigned nunits; /* units[nunits] is the INT3 */
    struct diff_unit units[DIFF_MAX_UNITS + 1];
    struct diff_state init;
};

/* Where XSAVE components lie; 0: there is no such component. */
struct diff_layout {
    uint32_t size;
    uint32_t offset[16];
    uint64_t mask;
};

/* gen.c: cases by seed. The same seed gives the same case on every machine. */
void diff_gen_init(bool has_avx, bool has_avx512);
void diff_gen(struct diff_case *c, uint64_t seed, unsigned insns, bool code32);
void diff_print_code(const struct diff_case *c);

/* native.c: a traced child on the real CPU. */
int diff_native_start(void);
int diff_native_run(const struct diff_case *c, struct diff_state *out);
void diff_native_stop(void);
const struct diff_layout *diff_native_layout(void);

/* guest.c: a VM with one vCPU at CPL 3. `backend` NULL: the best one. */
int diff_guest_start(const char *backend, uint32_t flags);
int diff_guest_run(const struct diff_case *c, struct diff_state *out);
void diff_guest_stop(void);

/* vec.c: vector state from and to an XSAVE area in standard form. */
void diff_vec_to_area(const struct diff_vec *vec, void *area, const struct diff_layout *layout);
void diff_vec_from_area(struct diff_vec *vec, const void *area, const struct diff_layout *layout);

#endif
