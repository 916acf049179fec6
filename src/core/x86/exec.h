/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/exec.h: what instruction handlers are made of: addresses, memory, flags, leaving. */
#ifndef CORE_X86_EXEC_H
#define CORE_X86_EXEC_H

#include "core/x86/op.h"

#define x86_likely(x)   __builtin_expect(!!(x), 1)
#define x86_unlikely(x) __builtin_expect(!!(x), 0)

/* ---- going on and leaving a block ---- */

/*
 * How a handler ends when the next instruction of its block follows: return x86_follow(cpu, op +
 * 1). Optimised builds call the next handler from there, as a tail call; it is one as long as the
 * address of no local variable has escaped from the handler (x86_ldN and x86_stN take care). Others
 * return to the run loop, and so does a plain "return op + 1".
 */
#if defined(__OPTIMIZE__) && !defined(X86_NO_THREADING)
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define X86_THREADED 1
#endif
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) ||                         \
    __has_feature(thread_sanitizer) || __has_feature(undefined_behavior_sanitizer)
#undef X86_THREADED
#endif
#endif

static inline const struct x86_op *x86_follow(struct x86_cpu *cpu, const struct x86_op *op)
{
#ifdef X86_THREADED
    return op->fn(cpu, op);
#else
    (void)cpu;
    return op;
#endif
}

/* Leaves the block at `op`, which has had no effect: makes rip and counters exact. Returns NULL.
 * The slow loop then acts on cpu->event, cpu->stop and so on. */
const struct x86_op *x86_leave(struct x86_cpu *cpu, const struct x86_op *op);

/* Queues an exception (a fault, or a trap whose rip is already set) and leaves. */
const struct x86_op *x86_fault(struct x86_cpu *cpu, const struct x86_op *op, uint8_t vector);
const struct x86_op *x86_fault_err(struct x86_cpu *cpu, const struct x86_op *op, uint8_t vector,
                                   uint32_t error);

/* Queues an exception without leaving; for functions called by handlers. */
void x86_raise(struct x86_cpu *cpu, uint8_t vector);
void x86_raise_err(struct x86_cpu *cpu, uint8_t vector, uint32_t error);

/* Turns a result of the MMU other than MMU_OK into cpu->event or cpu->stop. `seg`: VMM_SS gives #SS
 * for non-canonical addresses, others #GP. */
void x86_mmu_failed(struct x86_cpu *cpu, int result, unsigned seg);

static inline uint64_t x86_op_rip(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return (cpu->gpr[X86_RIP0] + op->off) & cpu->rip_mask;
}

static inline uint64_t x86_op_next(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return (cpu->gpr[X86_RIP0] + op->off + op->len) & cpu->rip_mask;
}

/* The upper 16 bits of keys: the mode, and which flush they are from. */
static inline uint64_t x86_jump_key(const struct x86_cpu *cpu, uint32_t mode)
{
    uint32_t gen = cpu->jump_set[!!(mode & X86_MODE_CPL3)].gen;

    return (uint64_t)(mode | gen << 8) << 48;
}

/* The upper 16 bits and the lower 12, which are those in which addresses of pages do not differ. */
static inline uint64_t x86_link_key(const struct x86_cpu *cpu, uint32_t mode)
{
    uint32_t gen = cpu->jump_set[!!(mode & X86_MODE_CPL3)].link_gen;

    return (uint64_t)(mode | (gen & 0xff) << 8) << 48 | (gen >> 8 & 0xfff);
}

static inline unsigned x86_jump_index(uint64_t linear)
{
    return (uint32_t)linear * 0x9e3779b1u >> (32 - X86_JUMP_BITS);
}

/* Goes on at `rip` (masked, checked) after the last instruction of a block: the first op of its
 * block if that is at hand and nothing waits, else NULL. */
static inline const struct x86_op *x86_next(struct x86_cpu *cpu, uint64_t rip)
{
    uint64_t linear = cpu->seg[VMM_CS].base + rip;
    struct x86_jump *j = &cpu->jump[x86_jump_index(linear)];
    struct x86_block *b = j->blk;
    int64_t countdown = atomic_load_explicit(&cpu->countdown, memory_order_relaxed);

    cpu->rip = rip;
    if (x86_unlikely(j->key != (linear ^ cpu->jump_key) || countdown < b->n))
        return NULL;
    atomic_store_explicit(&cpu->countdown, countdown - b->n, memory_order_relaxed);
    cpu->blk = b;
    cpu->gpr[X86_RIP0] = rip;
    return b->ops;
}

/* Goes on behind the block's last instruction, by the slow loop: something it looks at may have
 * changed (mode, interrupt flag, shadow, paging). */
static inline const struct x86_op *x86_next_slow(struct x86_cpu *cpu, uint64_t rip)
{
    cpu->rip = rip;
    return NULL;
}

/* Instructions retired when the current block ends. [run.c] */
uint64_t x86_retired(const struct x86_cpu *cpu);

/*
 * Whether interrupts may become possible without a look at the surroundings: whoever waits for them
 * from now on asks for attention. `restless` is false as long as that holds.
 */
static inline bool x86_calm(struct x86_cpu *cpu)
{
    if (cpu->restless && cpu->env->calm && cpu->env->calm(cpu->env->mmu.ctx))
        cpu->restless = false;
    return !cpu->restless;
}

/* Code that sets sti_at does not mask the request out of the count. */
static inline bool x86_is_sti_at(const struct x86_cpu *cpu, uint64_t retired)
{
    return !((retired ^ cpu->sti_at) & INT64_MAX);
}

/* At the end of a block, and outside of blocks: drops the shadow of an STI that is over. */
static inline void x86_settle_shadow(struct x86_cpu *cpu)
{
    if (x86_unlikely(cpu->sti_passed) && !x86_is_sti_at(cpu, x86_retired(cpu))) {
        cpu->shadow &= (uint8_t)~VMM_SHADOW_STI;
        cpu->sti_passed = false;
    }
}

/* Serializing instructions: the stores before them are visible to all before anything that follows
 * (SDM Vol. 3A 9.3). New code needs no more: whoever writes it drops the blocks made of the old. */
static inline void x86_serialize(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* ---- registers ---- */

#define X86_R8(cpu, off)   (((uint8_t *)(cpu)->gpr)[off])
#define X86_R16(cpu, slot) (*(uint16_t *)&(cpu)->gpr[slot])
#define X86_R32(cpu, slot) (*(uint32_t *)&(cpu)->gpr[slot]) /* reading; a write zero-extends */
#define X86_R64(cpu, slot) ((cpu)->gpr[slot])

/* Writes by size in bytes; 32-bit writes clear the upper half. `slot` of 8-bit registers is the
 * byte offset. */
static inline void x86_set_reg(struct x86_cpu *cpu, unsigned slot, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        X86_R8(cpu, slot) = (uint8_t)value;
        break;
    case 2:
        X86_R16(cpu, slot) = (uint16_t)value;
        break;
    case 4:
        cpu->gpr[slot] = (uint32_t)value;
        break;
    default:
        cpu->gpr[slot] = value;
    }
}

static inline uint64_t x86_get_reg(const struct x86_cpu *cpu, unsigned slot, unsigned size)
{
    switch (size) {
    case 1:
        return ((const uint8_t *)cpu->gpr)[slot];
    case 2:
        return (uint16_t)cpu->gpr[slot];
    case 4:
        return (uint32_t)cpu->gpr[slot];
    default:
        return cpu->gpr[slot];
    }
}

/* ---- arithmetic flags ---- */

/* cc from and to RFLAGS bits; the layout is what LAHF and SETO give. */
static inline uint32_t x86_cc_to_flags(uint16_t cc)
{
    return ((cc >> 8) & (X86_CF | X86_PF | X86_AF | X86_ZF | X86_SF)) | ((cc & 1u) << 11);
}

static inline uint16_t x86_cc_from_flags(uint32_t flags)
{
    return (uint16_t)(((flags & 0xd5u) << 8) | 0x200u | ((flags >> 11) & 1u));
}

#define X86_CC_OF 0x0001u
#define X86_CC_CF 0x0100u
#define X86_CC_PF 0x0400u
#define X86_CC_AF 0x1000u
#define X86_CC_ZF 0x4000u
#define X86_CC_SF 0x8000u

/* Condition codes 0-15 as encoded in Jcc, SETcc and CMOVcc (SDM Vol. 1 appendix B). */
static inline bool x86_cond(uint16_t cc, unsigned code)
{
    bool r;

    switch (code >> 1) {
    case 0:
        r = cc & X86_CC_OF;
        break;
    case 1:
        r = cc & X86_CC_CF;
        break;
    case 2:
        r = cc & X86_CC_ZF;
        break;
    case 3:
        r = cc & (X86_CC_CF | X86_CC_ZF);
        break;
    case 4:
        r = cc & X86_CC_SF;
        break;
    case 5:
        r = cc & X86_CC_PF;
        break;
    case 6:
        r = ((cc >> 15) ^ cc) & 1;
        break;
    default:
        r = (((cc >> 15) ^ cc) & 1) || (cc & X86_CC_ZF);
    }
    return r ^ (code & 1);
}

/* ---- memory ---- */

/* The linear address of the memory operand with segment checks (SDM Vol. 3A 6.3, 6.4); false: an
 * exception is queued. */
bool x86_ea_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, bool write,
                 uint64_t *linear);

/* The offset part only (LEA, string instructions): not masked. */
static inline uint64_t x86_offset(const struct x86_cpu *cpu, const struct x86_op *op)
{
    return cpu->gpr[op->base] + (cpu->gpr[op->index] << op->scale) + (int64_t)op->disp;
}

static inline bool x86_ea(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, bool write,
                          uint64_t *linear)
{
    uint64_t a = x86_offset(cpu, op);

    if (x86_unlikely(op->ea != X86_EA_FLAT)) {
        if (op->ea == X86_EA_SEG64)
            a += cpu->seg[op->seg].base;
        else if (op->ea == X86_EA_FLAT32)
            a = (uint32_t)a;
        else
            return x86_ea_slow(cpu, op, size, write, linear);
    }
    *linear = a;
    return true;
}

/* The same checks for an access that is no memory operand: `offset` in segment `seg`. */
bool x86_seg_check(struct x86_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write,
                   uint64_t *linear);

/* Slow accesses: false: an exception is queued, or cpu->stop is set; the handler must x86_leave.
 * `op` gives the position for counters; NULL outside blocks. */
bool x86_read_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg, uint64_t linear,
                   void *buf, unsigned size);
bool x86_write_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg, uint64_t linear,
                    const void *buf, unsigned size);

/* Accesses at a linear address with the current privilege. */
static inline bool x86_read(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg,
                            uint64_t linear, void *buf, unsigned size)
{
    const uint8_t *p = mmu_fast_read(&cpu->mmu, cpu->mmu_idx, linear, size);

    if (x86_unlikely(!p))
        return x86_read_slow(cpu, op, seg, linear, buf, size);
    mmu_copy(buf, p, size);
    return true;
}

static inline bool x86_write(struct x86_cpu *cpu, const struct x86_op *op, unsigned seg,
                             uint64_t linear, const void *buf, unsigned size)
{
    uint8_t *p = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, linear, size);

    if (x86_unlikely(!p))
        return x86_write_slow(cpu, op, seg, linear, buf, size);
    mmu_copy(p, buf, size);
    return true;
}

/* Accesses as the supervisor, whatever CPL is: descriptor tables, TSS, exception frames on an inner
 * stack (SDM Vol. 3A 4.6.1, implicit accesses). */
bool x86_sys_read(struct x86_cpu *cpu, uint64_t linear, void *buf, unsigned size);
bool x86_sys_write(struct x86_cpu *cpu, uint64_t linear, const void *buf, unsigned size);

/* The linear address of the memory operand if it needs no checks, else MMU_NEVER, which leads to
 * the slow path. */
static inline uint64_t x86_ea_fast(const struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t a = x86_offset(cpu, op);

    if (x86_likely(op->ea == X86_EA_FLAT))
        return a;
    if (op->ea == X86_EA_SEG64)
        return a + cpu->seg[op->seg].base;
    return op->ea == X86_EA_FLAT32 ? (uint32_t)a : MMU_NEVER;
}

/* x86_ldN / x86_stN: the op's memory operand. The slow halves take and give values, so that the
 * address of a handler's variable goes nowhere. */
struct x86_value {
    uint64_t value;
    bool ok;
};
struct x86_value x86_ld_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size);
bool x86_st_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t value);

#define X86_MEM_FUNCS(bits)                                                                        \
    static inline bool x86_ld##bits(struct x86_cpu *cpu, const struct x86_op *op,                  \
                                    uint##bits##_t *v)                                             \
    {                                                                                              \
        uint64_t a = x86_ea_fast(cpu, op);                                                         \
        const uint8_t *p = mmu_fast_read(&cpu->mmu, cpu->mmu_idx, a, bits / 8);                    \
        struct x86_value r;                                                                        \
                                                                                                   \
        if (x86_likely(p)) {                                                                       \
            mmu_copy(v, p, bits / 8);                                                              \
            return true;                                                                           \
        }                                                                                          \
        r = x86_ld_slow(cpu, op, bits / 8);                                                        \
        *v = (uint##bits##_t)r.value;                                                              \
        return r.ok;                                                                               \
    }                                                                                              \
    static inline bool x86_st##bits(struct x86_cpu *cpu, const struct x86_op *op,                  \
                                    uint##bits##_t v)                                              \
    {                                                                                              \
        uint64_t a = x86_ea_fast(cpu, op);                                                         \
        uint8_t *p = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, a, bits / 8);                         \
                                                                                                   \
        if (x86_unlikely(!p))                                                                      \
            return x86_st_slow(cpu, op, bits / 8, v);                                              \
        mmu_copy(p, &v, bits / 8);                                                                 \
        return true;                                                                               \
    }
X86_MEM_FUNCS(8)
X86_MEM_FUNCS(16)
X86_MEM_FUNCS(32)
X86_MEM_FUNCS(64)

/*
 * Read-modify-write of the memory operand in place:
 *
 *     struct x86_rmw m;
 *     if (!x86_rmw_begin(cpu, op, size, lock, &m)) return x86_leave(cpu, op);
 *     ... operate on m.p, with the host's LOCK prefix if `lock` ...
 *     if (!x86_rmw_end(cpu, op, &m)) return x86_leave(cpu, op);    -- before registers and cc
 * change
 *
 * m.p points to guest memory, or to a copy that x86_rmw_end stores back (MMIO, page crossing, and
 * with `lock` all that splits a cache line; other vCPUs are excluded in between then).
 */
struct x86_rmw {
    void *p;
    struct mmu_rmw mmu; /* mmu.host NULL: p is `copy` */
    uint64_t linear;
    bool slow, locked;
    _Alignas(16) uint8_t copy[16];
};
bool x86_rmw_slow(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, bool lock,
                  struct x86_rmw *m);
bool x86_rmw_end_slow(struct x86_cpu *cpu, const struct x86_op *op, struct x86_rmw *m);

/* The host may refuse locked accesses across cache lines, or punish them (split lock detection). */
static inline bool x86_splits_line(uint64_t linear, unsigned size)
{
    return (linear & 63) + size > 64;
}

static inline bool x86_rmw_begin(struct x86_cpu *cpu, const struct x86_op *op, unsigned size,
                                 bool lock, struct x86_rmw *m)
{
    if (x86_unlikely(!x86_ea(cpu, op, size, true, &m->linear)))
        return false;
    m->p = mmu_fast_write(&cpu->mmu, cpu->mmu_idx, m->linear, size);
    m->slow = false;
    if (x86_unlikely(!m->p || (lock && x86_splits_line(m->linear, size))))
        return x86_rmw_slow(cpu, op, size, lock, m);
    return true;
}

static inline bool x86_rmw_end(struct x86_cpu *cpu, const struct x86_op *op, struct x86_rmw *m)
{
    return x86_likely(!m->slow) || x86_rmw_end_slow(cpu, op, m);
}

/* ---- stack ---- */

/* Pushes and pops of 2, 4 or 8 bytes by the current stack size; RSP changes only on success. */
bool x86_push(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t value);
bool x86_pop(struct x86_cpu *cpu, const struct x86_op *op, unsigned size, uint64_t *value);
/* Reads the stack at RSP + offset without changing RSP. */
bool x86_peek(struct x86_cpu *cpu, const struct x86_op *op, unsigned offset, unsigned size,
              uint64_t *value);

/* ---- system state; the files that implement them in brackets ---- */

/* Recomputes mode, masks, mmu_idx and the MMU's mode from the registers. No flush. [mode.c] */
void x86_mode_changed(struct x86_cpu *cpu);
/* The same when the registers have come from another CPU: PDPTEs are taken from memory again. */
void x86_mode_loaded(struct x86_cpu *cpu);
/* The same when CR0, CR3, CR4, EFER and PKRU are as they were: what loads of CS and SS, CPL and
 * RFLAGS.TF, VM and AC change. MODE_SINGLE is set while TF is set or instruction breakpoints are
 * armed. [mode.c] */
void x86_cs_changed(struct x86_cpu *cpu);
/* After RFLAGS.AC, CR0.AM, CR4.SMAP or CPL changed: only mmu_idx. */
static inline void x86_mmu_idx_changed(struct x86_cpu *cpu)
{
    bool ac = cpu->rflags & X86_AC;

    if (cpu->cpl == 3)
        cpu->mmu_idx = ac && (cpu->cr0 & X86_CR0_AM) ? MMU_USER_ALIGN : MMU_USER;
    else
        cpu->mmu_idx = ac ? MMU_KERNEL_AC : MMU_KERNEL;
    cpu->tier_data = cpu->mmu.data[cpu->mmu_idx];
    if (cpu->mmu_idx == MMU_USER_ALIGN)
        mmu_empty_cells(&cpu->mmu);
}
/* Flushes TLB and jump cache. [mode.c] */
void x86_flush_tlb(struct x86_cpu *cpu);
void x86_flush_tlb_page(struct x86_cpu *cpu, uint64_t linear);

/* Delivers cpu->event through the IDT, with nested faults up to the double and triple fault. On
 * return event.valid is false, but with cpu->stop set the event waits for the next try; false:
 * triple fault. [event.c] */
bool x86_deliver(struct x86_cpu *cpu);

/* Loads control registers with all checks and side effects; false: #GP queued. [control.c] */
bool x86_set_cr0(struct x86_cpu *cpu, uint64_t value);
bool x86_set_cr3(struct x86_cpu *cpu, uint64_t value);
bool x86_set_cr4(struct x86_cpu *cpu, uint64_t value);
bool x86_set_xcr0(struct x86_cpu *cpu, uint64_t value);
bool x86_set_efer(struct x86_cpu *cpu, uint64_t value);
/* WRPKRU, and XRSTOR of PKRU: takes effect on the next access. [control.c] */
void x86_set_pkru(struct x86_cpu *cpu, uint32_t value);

/* Loads a data segment register, SS, LDTR or TR from a selector as MOV and LxS do, with all checks;
 * false: exception queued. [segment.c] */
bool x86_load_seg(struct x86_cpu *cpu, unsigned seg, uint16_t selector);
/* Real and virtual-8086 mode. */
void x86_load_seg_real(struct x86_cpu *cpu, unsigned seg, uint16_t selector);

/* Data breakpoints of DR7 and of the host program: tells the MMU which pages to watch. [debug.c] */
void x86_breakpoints_changed(struct x86_cpu *cpu);
/* An access to a watched page: sets cpu->pending_db or the host's watch exit. [debug.c] */
void x86_watch_access(struct x86_cpu *cpu, uint64_t linear, unsigned size, bool write);
/* Sets the cause bits `dr6` in DR6 and queues #DB. run.c calls it for cpu->pending_db (and BS after
 * an instruction that began with TF set), which it then clears. [debug.c] */
void x86_raise_db(struct x86_cpu *cpu, uint64_t dr6);
/* Instruction breakpoints and other things that run.c checks before the instruction at cpu->rip
 * while any are armed; true: an event is queued or cpu->stop set. [debug.c] */
bool x86_check_exec_breakpoints(struct x86_cpu *cpu);

#endif
