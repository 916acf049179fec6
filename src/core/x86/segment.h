/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/segment.h: descriptors, and the stacks that events and far transfers build frames on. */
#ifndef CORE_X86_SEGMENT_H
#define CORE_X86_SEGMENT_H

#include "core/x86/control.h"

/* Segment types with VMM_AR_S (SDM Vol. 3A 3.4.5.1). */
#define X86_TYPE_CODE        8u
#define X86_TYPE_CONFORMING  4u /* code */
#define X86_TYPE_READABLE    2u /* code */
#define X86_TYPE_EXPAND_DOWN 4u /* data */
#define X86_TYPE_WRITABLE    2u /* data */
#define X86_TYPE_ACCESSED    1u

/* System types (SDM Vol. 3A 3.5). Bit 3: 32-bit, in long mode 64-bit. */
#define X86_SYS_TSS16      1u
#define X86_SYS_LDT_DESC   2u
#define X86_SYS_TSS16_BUSY 3u
#define X86_SYS_CALL16     4u
#define X86_SYS_TASK_GATE  5u
#define X86_SYS_INTR16     6u
#define X86_SYS_TRAP16     7u
#define X86_SYS_TSS32      9u
#define X86_SYS_TSS32_BUSY 11u
#define X86_SYS_CALL32     12u
#define X86_SYS_INTR32     14u
#define X86_SYS_TRAP32     15u
#define X86_SYS_BUSY_BIT   2u
#define X86_SYS_32BIT      8u

/* A segment descriptor as it lies in memory. */
struct x86_desc {
    uint64_t raw;
    uint64_t upper; /* the second half of 16-byte descriptors, else 0 */
    uint64_t addr;  /* linear */
};

/* Access rights in the layout of VMM_AR_*. */
static inline uint32_t x86_desc_ar(const struct x86_desc *d)
{
    return (uint32_t)(d->raw >> 40) & 0xf0ffu;
}

static inline uint64_t x86_desc_base(const struct x86_desc *d)
{
    return ((d->raw >> 16) & 0xffffff) | ((d->raw >> 32) & 0xff000000) | d->upper << 32;
}

static inline uint32_t x86_desc_limit(const struct x86_desc *d)
{
    uint32_t limit = (uint32_t)((d->raw & 0xffff) | ((d->raw >> 32) & 0xf0000));

    return x86_desc_ar(d) & VMM_AR_G ? limit << 12 | 0xfff : limit;
}

static inline unsigned x86_desc_dpl(const struct x86_desc *d)
{
    return (d->raw >> 45) & 3;
}

static inline bool x86_desc_present(const struct x86_desc *d)
{
    return d->raw >> 47 & 1;
}

static inline bool x86_desc_is_code(const struct x86_desc *d)
{
    return (x86_desc_ar(d) & (VMM_AR_S | X86_TYPE_CODE)) == (VMM_AR_S | X86_TYPE_CODE);
}

static inline bool x86_desc_is_conforming(const struct x86_desc *d)
{
    return x86_desc_ar(d) & X86_TYPE_CONFORMING;
}

static inline bool x86_desc_is_writable_data(const struct x86_desc *d)
{
    return (x86_desc_ar(d) & (VMM_AR_S | X86_TYPE_CODE | X86_TYPE_WRITABLE)) ==
           (VMM_AR_S | X86_TYPE_WRITABLE);
}

/* 64-bit code: L set, D clear. */
static inline bool x86_desc_is_code64(const struct x86_desc *d)
{
    return (x86_desc_ar(d) & (VMM_AR_L | VMM_AR_DB)) == VMM_AR_L;
}

static inline bool x86_long_mode(const struct x86_cpu *cpu)
{
    return cpu->efer & X86_EFER_LMA;
}

/* Protected mode proper: selectors name descriptors. */
static inline bool x86_protected(const struct x86_cpu *cpu)
{
    return (cpu->mode & (X86_MODE_PE | X86_MODE_VM86)) == X86_MODE_PE;
}

static inline bool x86_null_selector(uint16_t selector)
{
    return !(selector & 0xfffc);
}

static inline uint32_t x86_all_flags(const struct x86_cpu *cpu)
{
    return cpu->rflags | x86_cc_to_flags(cpu->cc) | 2;
}

#define X86_FLAGS_DEFINED                                                                          \
    (X86_ARITH | X86_TF | X86_IF | X86_DF | X86_IOPL | X86_NT | X86_RF | X86_VM | X86_AC |         \
     X86_VIF | X86_VIP | X86_ID)

/* Takes the bits `mask` of RFLAGS from `image`. */
static inline void x86_change_flags(struct x86_cpu *cpu, uint32_t image, uint32_t mask)
{
    uint32_t flags = (x86_all_flags(cpu) & ~mask) | (image & mask);

    cpu->cc = x86_cc_from_flags(flags);
    cpu->rflags = (flags & X86_FLAGS_DEFINED & ~X86_ARITH) | 2;
}

/* Queues an exception; always false. */
static inline bool x86_refuse(struct x86_cpu *cpu, uint8_t vector, uint32_t error)
{
    x86_raise_err(cpu, vector, error);
    return false;
}

/* The same with a selector as the error code. */
static inline bool x86_refuse_sel(struct x86_cpu *cpu, uint8_t vector, uint16_t selector)
{
    return x86_refuse(cpu, vector, selector & 0xfffcu);
}

/* Whether [offset, offset+size) lies within the segment's limit (SDM Vol. 3A 6.3). */
static inline bool x86_within_limit(const struct vmm_segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;

    if ((s->ar & (VMM_AR_S | X86_TYPE_CODE | X86_TYPE_EXPAND_DOWN)) ==
        (VMM_AR_S | X86_TYPE_EXPAND_DOWN)) {
        uint64_t max = s->ar & VMM_AR_DB ? 0xffffffffu : 0xffffu;

        return offset > s->limit && last <= max;
    }
    /* With a limit of 4 GiB accesses wrap around instead. */
    return last <= s->limit || s->limit == 0xffffffffu;
}

/* x86_sys_read of 8 bytes. */
static inline bool x86_sys_read64(struct x86_cpu *cpu, uint64_t linear, uint64_t *value)
{
    const uint8_t *p = mmu_fast_read(&cpu->mmu, MMU_KERNEL, linear, 8);

    if (x86_unlikely(!p))
        return x86_sys_read(cpu, linear, value, 8);
    mmu_copy(value, p, 8);
    return true;
}

/* ---- descriptors (segment.c); false: an exception is queued, or cpu->stop set ---- */

/* The address of a selector's descriptor; false, without an exception: beyond the table. */
bool x86_desc_probe(const struct x86_cpu *cpu, uint16_t selector, uint64_t *addr);
/* The descriptor of a selector that is not null; beyond the table it is #vector(selector). */
bool x86_desc_read(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, struct x86_desc *d);
/* Reads the second half of a 16-byte system descriptor. */
bool x86_desc_read_upper(struct x86_cpu *cpu, uint16_t selector, uint8_t vector,
                         struct x86_desc *d);
/* Sets the accessed bit, in memory and in *d. */
bool x86_desc_set_accessed(struct x86_cpu *cpu, struct x86_desc *d);
/* Sets or clears bits of the access byte of the descriptor at `addr`, atomically. */
bool x86_desc_change(struct x86_cpu *cpu, uint64_t addr, uint8_t set, uint8_t clear);
/* The TSS descriptor that a task switch goes to, checked to be in the GDT and within its limit:
 * #vector(selector) if not. */
bool x86_tss_desc(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, struct x86_desc *d);

/* What `seg` holds after a load; cpu->seg is not changed. */
struct vmm_segment x86_desc_segment(const struct x86_desc *d, uint16_t selector);
/* Loads a segment register without checks. The caller calls x86_cs_changed. */
void x86_seg_set(struct x86_cpu *cpu, unsigned seg, uint16_t selector, const struct x86_desc *d);
void x86_seg_null(struct x86_cpu *cpu, unsigned seg, uint16_t selector);
/* Loads SS, or ES, DS, FS or GS, with all checks: #vector where a load by MOV gives #GP (a task
 * switch gives #TS there). */
bool x86_load_stack_seg(struct x86_cpu *cpu, uint16_t selector, uint8_t vector);
bool x86_load_data_seg(struct x86_cpu *cpu, unsigned seg, uint16_t selector, uint8_t vector);
/* The flat segments that SYSCALL, SYSENTER and their returns load. */
void x86_seg_flat_code(struct x86_cpu *cpu, uint16_t selector, unsigned dpl, bool code64);
void x86_seg_flat_stack(struct x86_cpu *cpu, uint16_t selector, unsigned dpl);

/* Whether code can go on at `rip` in code segment `d`: within its limit, or canonical in 64-bit
 * code; #GP(0). */
bool x86_check_target(struct x86_cpu *cpu, const struct x86_desc *d, uint64_t rip);

/* The far pointer that is the op's memory operand. */
static inline bool x86_far_pointer(struct x86_cpu *cpu, const struct x86_op *op, uint64_t *offset,
                                   uint16_t *selector)
{
    unsigned size = op->size;
    uint64_t linear;

    *offset = 0;
    return x86_ea(cpu, op, size + 2, false, &linear) &&
           x86_read(cpu, op, op->seg, linear, offset, size) &&
           x86_read(cpu, op, op->seg, linear + size, selector, 2);
}

/* Goes on at `rip` after an instruction that ends its block and may have changed RFLAGS, which were
 * `old`, and the mode. */
const struct x86_op *x86_go(struct x86_cpu *cpu, uint64_t rip, uint32_t old);

/* The same after an instruction that may have let an interrupt through in other ways, or may have
 * called the surroundings. */
static inline const struct x86_op *x86_go_checked(struct x86_cpu *cpu, uint64_t rip)
{
    if (cpu->stop)
        return x86_next_slow(cpu, rip);
    cpu->restless = true;
    return x86_go(cpu, rip, cpu->rflags & ~X86_IF);
}

/* ---- stacks (stack.c) ---- */

/* A stack that is being pushed to; becomes the CPU's only when all is well. */
struct x86_stack {
    struct vmm_segment ss;
    struct x86_desc desc; /* of inner stacks in legacy mode: the descriptor of SS */
    uint64_t rsp;
    uint64_t mask;
    unsigned idx;   /* enum mmu_index of the accesses */
    uint32_t error; /* error code of #SS */
    bool flat;      /* 64-bit mode */
};

/* The current stack. */
void x86_stack_current(const struct x86_cpu *cpu, struct x86_stack *s);
/* The stack for privilege level `cpl` that the TSS names, with the checks of SDM Vol. 2A, CALL:
 * #TS, #NP or #SS. */
bool x86_stack_inner(struct x86_cpu *cpu, unsigned cpl, struct x86_stack *s);
/* Long mode: RSP0-2, or an entry of the interrupt stack table if `ist` is not 0. */
bool x86_stack_inner64(struct x86_cpu *cpu, unsigned cpl, unsigned ist, struct x86_stack *s);
/* Whether `size` bytes fit below RSP; a frame that is pushed by parts is checked as a whole. */
bool x86_stack_check(struct x86_cpu *cpu, const struct x86_stack *s, unsigned size);
/* Pushes n values of `size` bytes, the first one first. #SS, #PF, #AC. */
bool x86_stack_push(struct x86_cpu *cpu, const struct x86_op *op, struct x86_stack *s,
                    const uint64_t *values, unsigned n, unsigned size);
#define X86_STACK_MAX 40 /* values at a time: 31 parameters, SS:RSP, CS:RIP */
/* Loads SS (unless s is the current stack) and RSP. */
void x86_stack_commit(struct x86_cpu *cpu, const struct x86_stack *s, unsigned cpl);

#endif
