/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/vec.h: what the files about vector, mask, MMX and x87 instructions share. */
#ifndef CORE_X86_VEC_H
#define CORE_X86_VEC_H

#include "core/x86/decode.h"
#include "core/x86/exec.h"
#include "core/x86/xstate.h"

/*
 * A form is what one instruction says apart from its memory operand's address: operation,
 * registers, immediates, masking. Forms are kept per vCPU in a table of fixed size, each with the
 * host code (thunk) that executes it. When the table or the code memory is full, everything in it
 * is dropped and the generation number goes up. Ops refer to forms by index and generation in
 * op->imm, so that ops of dropped forms are found out when they are executed and decoded again.
 */

/* What thunks and their callers exchange. The memory operand is `mem`; a thunk reads and writes
 * nothing else but the guest's registers in struct x86_fpu and this. */
struct vec_ctx {
    _Alignas(64) uint8_t mem[128];
    uint64_t gpr[6];     /* VEC_G_* */
    uint64_t flags;      /* RFLAGS after the instruction; x87: also before */
    uint32_t mxcsr_in;   /* the guest's, all exceptions masked, no flags */
    uint32_t mxcsr_out;  /* after the instruction */
    uint32_t unmasked;   /* exception flags which must keep results from being stored */
    uint32_t mxcsr_host; /* saved */
    uint8_t x87[112];    /* the guest's x87 state as FRSTOR loads it */
    uint8_t x87_host[32];
};

/* Slots of vec_ctx.gpr, and the host registers that they go through. */
enum { VEC_G_REG, VEC_G_RM, VEC_G_VVVV, VEC_G_RAX, VEC_G_RCX, VEC_G_RDX, VEC_G_N };

typedef void vec_code(struct x86_fpu *fpu, struct vec_ctx *ctx);

/* What must be enabled for the instruction. */
enum vec_class {
    VEC_MMX, /* no vector registers: CR4.OSFXSR does not matter */
    VEC_SSE,
    VEC_AVX,
    VEC_AVX512,
};

#define VEC_KEY     24
#define VEC_KEY_X87 0xff /* in key[16] */

struct vec_form {
    uint8_t key[VEC_KEY];
    uint16_t next; /* in the hash chain */
    vec_code *code;
    x86_fn *fn;
    ZydisMnemonic mnemonic;

    uint8_t class;          /* enum vec_class */
    uint8_t mem_size;       /* of the memory operand; 0: none */
    uint8_t align;          /* required of the memory operand, else 1 */
    uint8_t elem;           /* size of what one mask bit stands for, in the memory operand */
    uint8_t n;              /* how many mask bits count */
    uint8_t mask;           /* 1-7: masked by k1-k7; 0: not masked */
    uint8_t reg;            /* vector or mask register that is loaded or stored */
    uint8_t reg2, reg3;     /* second source or vector of indices; vector that is the mask */
    uint8_t index_size, vl; /* in bytes */
    bool store;             /* the memory operand is written, else read */
    bool whole;             /* a masked store that faults on masked-out elements too */
    bool zeroing;           /* masking zeroes */
    bool fp;                /* depends on MXCSR, may raise #XM */
    bool underflows;        /* may raise the underflow exception */
    uint8_t half;           /* elements of a half-precision result that may be tiny; 0: none */
    uint8_t half_reg;       /* vector register with that result, if not in memory */
    uint8_t half_mask;      /* 1-7: k1-k7 says which elements are computed; 0: all are */
    bool sae;               /* no #XM: embedded rounding, "suppress all exceptions", complex */
    bool flags;             /* writes the arithmetic flags */
    bool mmx;               /* uses MMX registers: sets TOP and tags */
    uint8_t mmx_write;      /* MMX registers that are written */
    uint8_t xuse;           /* components 0-7 that get in use */
    uint32_t written;       /* vector registers whose bits above 255 become zero */

    uint16_t fop; /* x87 */

    uint8_t gread, gwrite;  /* slots of vec_ctx.gpr */
    uint8_t gslot[VEC_G_N]; /* guest register of each slot */
};

#define VEC_FORMS     2048
#define VEC_HASH      1024
#define VEC_CHUNK     (64u << 10)
#define VEC_MAX_CHUNK 8

struct x86_thunks {
    uint64_t gen; /* in the upper 48 bits of op->imm */
    unsigned nforms;
    unsigned nchunks, chunk, used; /* code memory: in use up to `used` of `chunk` */
    uint8_t *rw[VEC_MAX_CHUNK], *rx[VEC_MAX_CHUNK];
    uint16_t hash[VEC_HASH]; /* index + 1 */
    struct vec_form forms[VEC_FORMS];
};

/* ---- thunk.c ---- */

struct vec_emit;

/* Finds the form with this key, or enters *form with `code` as its thunk (NULL: it has none). Sets
 * op->imm and op->fn. False: no memory. */
bool vec_enter_form(struct x86_dec *d, struct x86_op *op, struct vec_form *form,
                    const struct vec_emit *code);

/* The op's form, or NULL if it has been dropped: return vec_redecode(cpu, op) then. */
static inline struct vec_form *vec_form(struct x86_cpu *cpu, const struct x86_op *op)
{
    struct x86_thunks *t = cpu->thunks;

    if (x86_unlikely(op->imm >> 16 != t->gen))
        return NULL;
    return &t->forms[op->imm & 0xffff];
}
const struct x86_op *vec_redecode(struct x86_cpu *cpu, const struct x86_op *op);

/* Whether guest and host have the instruction's ISA extension. [vec_isa.c] */
bool vec_has(const struct x86_dec *d);
/* Asks the host's processor, once; which is a system call, so when a vCPU is made. */
void vec_ask_host(void);

/* ---- vec_run.c ---- */

/* The exception to raise because of CR0, CR4, XCR0 or a pending x87 exception; 0: none. */
unsigned vec_denied(struct x86_cpu *cpu, unsigned class);

#define VEC_CHECK(cpu, op, class)                                                                  \
    do {                                                                                           \
        unsigned vector_ = vec_denied(cpu, class);                                                 \
        if (x86_unlikely(vector_ != 0))                                                            \
            return x86_fault(cpu, op, (uint8_t)vector_);                                           \
    } while (0)

x86_fn vec_run;
/* Bits above the register's length become zero, as VEX and EVEX instructions leave them. */
void vec_clear_above(struct x86_cpu *cpu, unsigned reg, unsigned length);

/* ---- vec_move.c: instructions without thunks ---- */

bool vec_dec_move(struct x86_dec *d, struct x86_op *op);

/* ---- vec_mem.c: memory operands with masks or vectors of addresses ---- */

bool vec_dec_mem(struct x86_dec *d, struct x86_op *op, bool *ok);
/* Reads the elements of size f->elem that `mask` enables into buf; others become zero there. Bits
 * beyond the operand's last element mean its first ones again: a broadcast. */
bool vec_read_masked(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                     uint64_t mask, uint8_t *buf);
bool vec_write_masked(struct x86_cpu *cpu, const struct x86_op *op, const struct vec_form *f,
                      uint64_t mask, const uint8_t *buf);

/* ---- x87.c, xsave.c ---- */

bool x87_dec(struct x86_dec *d, struct x86_op *op);
bool xsave_dec(struct x86_dec *d, struct x86_op *op);
/* Rotates the register stack so that TOP is 0. */
void x87_set_top0(struct x86_fpu *f);
/* ES and B follow from flags and masks. */
void x87_update_es(struct x86_fpu *f);

#define X87_ES 0x80u

/* An unmasked exception waits for the next waiting instruction. Without CR0.NE it would go through
 * FERR# and an interrupt controller; there are none on this CPU's pins, so it is as if IGNNE# were
 * asserted: instructions go on (SDM Vol. 1 8.7). */
static inline bool x87_pending(const struct x86_cpu *cpu)
{
    return (cpu->fpu.fsw & X87_ES) && (cpu->cr0 & X86_CR0_NE);
}

#endif
