/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/x86.h: the software CPU: its state and its interface to the rest of the library. */
#ifndef CORE_X86_X86_H
#define CORE_X86_X86_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/mmu.h"
#include <vmm/regs.h>

/*
 * The CPU executes decoded blocks: straight runs of instructions of one physical page, decoded by
 * Zydis into arrays of struct x86_op (op.h), cached by guest-physical address and mode (cache.c).
 * The run loop (run.c) calls one handler per instruction; a handler returns the next op, which at
 * the end of a block is the first op of the next one, or NULL to leave to the slow loop.
 *
 * What is exact when: inside a block cpu->rip is stale; the address of an instruction is
 * gpr[X86_RIP0] + op->off. Whoever leaves a block early goes through x86_leave (exceptions,
 * aborts), which makes rip and the instruction counter exact. A handler changes no architectural
 * state before the last thing that can fault has succeeded.
 */

/* Slots of gpr behind the sixteen registers. */
#define X86_ZERO 16 /* always 0: "no base", "no index" */
#define X86_RIP0 17 /* RIP of the current block's first instruction (an offset in CS) */
#define X86_64K  18 /* always 0x10000: RIP-relative operands whose corrected disp overflows */
#define X86_NGPR 19

/* RFLAGS bits. */
#define X86_CF         0x1u
#define X86_PF         0x4u
#define X86_AF         0x10u
#define X86_ZF         0x40u
#define X86_SF         0x80u
#define X86_TF         0x100u
#define X86_IF         0x200u
#define X86_DF         0x400u
#define X86_OF         0x800u
#define X86_IOPL       0x3000u
#define X86_IOPL_SHIFT 12
#define X86_NT         0x4000u
#define X86_RF         0x10000u
#define X86_VM         0x20000u
#define X86_AC         0x40000u
#define X86_VIF        0x80000u
#define X86_VIP        0x100000u
#define X86_ID         0x200000u
#define X86_ARITH      (X86_CF | X86_PF | X86_AF | X86_ZF | X86_SF | X86_OF)

#define X86_CR0_PE 0x1u
#define X86_CR0_MP 0x2u
#define X86_CR0_EM 0x4u
#define X86_CR0_TS 0x8u
#define X86_CR0_ET 0x10u
#define X86_CR0_NE 0x20u
#define X86_CR0_WP 0x10000u
#define X86_CR0_AM 0x40000u
#define X86_CR0_NW 0x20000000u
#define X86_CR0_CD 0x40000000u
#define X86_CR0_PG 0x80000000u

#define X86_CR4_VME        0x1u
#define X86_CR4_PVI        0x2u
#define X86_CR4_TSD        0x4u
#define X86_CR4_DE         0x8u
#define X86_CR4_PSE        0x10u
#define X86_CR4_PAE        0x20u
#define X86_CR4_MCE        0x40u
#define X86_CR4_PGE        0x80u
#define X86_CR4_PCE        0x100u
#define X86_CR4_OSFXSR     0x200u
#define X86_CR4_OSXMMEXCPT 0x400u
#define X86_CR4_UMIP       0x800u
#define X86_CR4_FSGSBASE   0x10000u
#define X86_CR4_PCIDE      0x20000u
#define X86_CR4_OSXSAVE    0x40000u
#define X86_CR4_SMEP       0x100000u
#define X86_CR4_SMAP       0x200000u
#define X86_CR4_PKE        0x400000u

#define X86_EFER_SCE   0x1u
#define X86_EFER_LME   0x100u
#define X86_EFER_LMA   0x400u
#define X86_EFER_NXE   0x800u
#define X86_EFER_FFXSR 0x4000u

/* Exception vectors. */
enum {
    X86_DE,
    X86_DB,
    X86_NMI,
    X86_BP,
    X86_OF_,
    X86_BR,
    X86_UD,
    X86_NM,
    X86_DF_,
    X86_TS = 10,
    X86_NP,
    X86_SS,
    X86_GP,
    X86_PF_,
    X86_MF = 16,
    X86_AC_,
    X86_MC,
    X86_XM,
    X86_CP = 21
};

/* Mode of decoding; part of the key of cached blocks. */
#define X86_MODE_CODE16  0x0u
#define X86_MODE_CODE32  0x1u
#define X86_MODE_CODE64  0x2u
#define X86_MODE_CODE    0x3u
#define X86_MODE_STACK32 0x4u /* SS.B: pushes use ESP (64-bit mode: RSP, bit clear) */
#define X86_MODE_FLAT                                                                              \
    0x8u /* legacy: CS, DS, ES and SS have base 0 and limit 4 GiB, writable data */
#define X86_MODE_PE     0x10u /* protected mode */
#define X86_MODE_VM86   0x20u
#define X86_MODE_SINGLE 0x40u /* blocks of one instruction */
#define X86_MODE_CPL3   0x80u

/* Why x86_run returns. */
enum x86_stop {
    X86_STOP_NONE,      /* still running */
    X86_STOP_ATTENTION, /* somebody set cpu->attention; or the budget is used up */
    X86_STOP_STEP,      /* with `step`: the instruction is executed or the event delivered */
    X86_STOP_ABORT,     /* an env function asked to leave the instruction */
    X86_STOP_HLT,       /* HLT or MWAIT executed: cpu->activity is set */
    X86_STOP_SHUTDOWN,  /* triple fault */
    X86_STOP_EXIT,      /* cpu->exit_* say which exit */
};

/* Results of env functions. */
#define X86_ENV_OK    0
#define X86_ENV_ABORT 1
#define X86_ENV_GP    2

struct x86_cpu;
struct x86_op;
struct x86_block;
struct x86_cache;
struct x86_memo;
struct x86_known;
struct x86_thunks;

/* What the CPU needs of its surroundings. `serial` as core_mmio_access in core/core.h. */
struct x86_env {
    struct mmu_env mmu; /* ctx serves all functions here */
    int (*pio)(void *ctx, uint16_t port, unsigned size, bool write, uint64_t *value);
    /* MSRs: *handled false means that the CPU's own table decides. */
    int (*msr)(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled);
    int (*cpuid)(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
    /* Feature bits as the guest's CPUID gives them; to be read again after x86_cpuid_changed. */
    uint64_t (*tsc)(void *ctx);
    void (*set_tsc)(void *ctx, uint64_t tsc);
    /* A number for RDRAND and RDSEED. NULL, or false: they take the host's. */
    bool (*random)(void *ctx, uint64_t *value);
    bool (*intr)(void *ctx); /* the INTR pin */
    /* Nobody waits for interrupts to be possible, neither INTR nor the program. Without side
     * effects, unlike intr. NULL: not known. */
    bool (*calm)(void *ctx);
    int (*intr_ack)(void *ctx); /* vector, or -1 */
    uint64_t (*get_cr8)(void *ctx);
    void (*set_cr8)(void *ctx, uint64_t cr8);
    void (*poll)(void *ctx); /* every X86_POLL instructions: timers; may set attention */
    /* Before code at CPL 3 is executed, outside of blocks, if nothing else is to be done: true if
     * somebody else has executed some of it, as far as the registers say now. NULL: nobody does. */
    bool (*user)(void *ctx);
    /* Code in [gpa, gpa+len) is not what it was, as x86_cache_invalidate is told. May be NULL. */
    void (*invalidated)(void *ctx, uint64_t gpa, uint64_t len);
    /* Before the first block of a page is decoded: marks the page in mmu_page.code and makes all
     * vCPUs drop their fast write entries for it. */
    void (*code_decoded)(void *ctx, uint64_t gpa);
    /* Locked read-modify-write that is not one host access (page crossing): excludes other vCPUs.
     */
    void (*lock)(void *ctx);
    void (*unlock)(void *ctx);
    /* Code memory for thunks: the same bytes writable and executable. 0 or an errno. */
    int (*code_alloc)(void *ctx, size_t len, void **rw, void **rx);
};

#define X86_POLL   8192
#define X86_SLICES 3 /* a tier may go on so many times without a poll, if all goes fast */

/*
 * A tier above the handlers, which may put code of its own in place of a block's first op and then
 * executes the block by the same rules (backends/bt). It is told what becomes of blocks. All
 * functions: with the vCPU outside of guest code, or by itself.
 */
struct x86_tier {
    void (*made)(struct x86_cpu *cpu, struct x86_block *b);    /* a block has been decoded */
    void (*dropped)(struct x86_cpu *cpu, struct x86_block *b); /* it is dead from now on */
    void (*flushed)(struct x86_cpu *cpu);                      /* no block is left */
};

/* Event that waits to be delivered before the next instruction. */
struct x86_event {
    bool valid;
    uint8_t type; /* X86_EVENT_* */
    uint8_t vector;
    bool has_error;
    uint32_t error;
    bool has_cr2; /* x86_deliver writes cr2 */
    uint64_t cr2;
    uint8_t len; /* software interrupts: instruction length, RIP pushed is behind it */
};
/* As VMX interruption types (SDM Vol. 3C 25.8.3). */
#define X86_EVENT_EXTERNAL  0
#define X86_EVENT_NMI       2
#define X86_EVENT_EXCEPTION 3
#define X86_EVENT_SOFT_INT  4 /* INT n */
#define X86_EVENT_PRIV_SW   5 /* INT1 */
#define X86_EVENT_SOFT_EXC  6 /* INT3, INTO */

/* Vector, mask and x87 state. From fcw on it is an area as XRSTOR64 loads it, with the x87 state
 * (SDM Vol. 1 13.4). */
struct x86_fpu {
    _Alignas(64) uint8_t vec[32][64]; /* ZMM0-31: XMM and YMM are their low parts */
    uint64_t k[8];
    _Alignas(64) uint16_t fcw;
    uint16_t fsw;
    uint8_t ftw; /* abridged tags: 1 = not empty */
    uint8_t ftw_high;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t x87[8][16];      /* ST0-ST7 (also MM0-7): relative to TOP */
    uint8_t area_rest[352];  /* not used */
    uint64_t area_header[8]; /* the tier's */
    uint16_t fcs, fds;
    uint64_t xinuse; /* components that are (or may be) not in their initial state */
};

struct x86_dr {
    uint64_t addr[4];
    uint64_t dr6, dr7;
};

struct x86_counters {
    uint64_t insns, irqs, exceptions, halts, blocks_decoded, blocks_flushed, block_lookups, thunks,
        translations, code_flushes, handler_calls, regions, chains, code_bytes, direct_entries,
        direct_faults, direct_pages, direct_spaces;
};

/* Direct-mapped cache from linear addresses and modes to blocks; flushed with the TLB. The key of a
 * block is its linear address ^ x86_jump_key: no two canonical addresses and modes share one. */
struct x86_jump {
    uint64_t key;
    struct x86_block *blk; /* never NULL */
};
#define X86_JUMP_BITS       14
#define X86_JUMP_PAGES_BITS 14
#define X86_JUMP_SIZE       (1u << X86_JUMP_BITS)

/* Of the entries of CPL 3, and of those of other privilege levels. */
struct x86_jump_set {
    uint8_t gen;       /* counts flushes; part of the keys */
    uint32_t link_gen; /* the same for cpu->link_key; flushes of single pages count, too */
    bool private;      /* there are blocks in other than global pages */
    bool used;         /* a bit of `pages` is set */
    /* Since the last flush there have been blocks with code in pages from `first` to `last` for
     * which the bits of two hashes are set. INVLPG for other pages has nothing to look for. */
    uint64_t first, last;
    uint64_t pages[2][1u << (X86_JUMP_PAGES_BITS - 6)];
};

/*
 * A tier's ways to code in other pages. An element of tier_map belongs to a page of code in one
 * mode: it is the linear page ^ cpu->link_key at the time when it was last known (by a fetch) that
 * this is where the page is mapped. As long as it is equal to that, no fetch is needed: the
 * translation may have been in the CPU's TLB since then. The tables of targets lead from linear
 * addresses to the tier's code, which looks into tier_map.
 */
struct x86_target {
    uint64_t linear;
    const void *code;
};
#define X86_TIER_HEAT        4096
#define X86_TIER_PAGES       16384
#define X86_TIER_RETURN_BITS 10 /* not more than bits in an offset in a page */
#define X86_TIER_RETURNS     (1u << X86_TIER_RETURN_BITS)
#define X86_TIER_TARGET_BITS 12
#define X86_TIER_TARGETS     (1u << X86_TIER_TARGET_BITS)

struct x86_cpu {
    uint64_t gpr[X86_NGPR];
    uint16_t cc;                /* arithmetic flags: AH after LAHF in bits 15:8, OF in bit 0 */
    _Atomic uint32_t attention; /* leave to the surroundings at a block edge */
    /* Instructions until the slow loop must look; blocks count at entry. Negative: attention has
     * been asked for at the next block edge. [x86_wake] */
    _Atomic int64_t countdown;
    uint32_t rflags; /* everything but the arithmetic flags */
    uint32_t mode;   /* X86_MODE_* */
    uint8_t cpl;
    uint8_t mmu_idx;    /* of explicit data accesses */
    uint32_t simd_lack; /* the tier's: what the host's vector registers do not hold of fpu */
    /* So many times 16 the tier may add X86_POLL to countdown and countdown_start by itself; what
     * takes long takes some away, as polls are to come after some time. */
    int32_t slices;

    /* In reach of the tier's short displacements. */
    struct mmu_entry *tier_data; /* the tier's: mmu.data[mmu_idx], ... */
    uint64_t tier_page;          /* ... RIP of the page that its code is in ... */
    uint64_t tier_temp[2];       /* ... and room for values, */
    uint64_t tier_saved[2];      /* for registers that they come from and that have changed, */
    uint64_t tier_operand;       /* for the memory operand that the flags come from, */
    uint64_t tier_hold[2];       /* and for host addresses */
    uint64_t link_key;           /* x86_link_key of the mode */
    uint64_t tier_held[8];       /* the tier's: host addresses over blocks */

    uint64_t tier_back;    /* the tier's: where a region goes on behind handlers */
    uint64_t jump_key;     /* x86_jump_key of the mode, with SINGLE in such a block */
    struct x86_block *blk; /* current block */
    uint64_t rip;          /* exact outside blocks */
    uint64_t rip_mask;     /* of code: 0xffff, 0xffffffff or all ones */
    uint64_t sp_mask;      /* of the stack pointer, likewise */
    uint32_t jump_limit;   /* CS limit and base for which blocks are in `jump`, unless flat */
    uint64_t jump_base;
    const struct x86_tier *tier; /* or NULL */
    void *tier_state;

    struct vmm_segment seg[VMM_NSEG];

    struct x86_jump jump[X86_JUMP_SIZE]; /* without content until jump_ready */

    /* The tier's, without content until there is one. */
    uint64_t tier_map[X86_TIER_PAGES];
    uint32_t tier_heat[X86_TIER_HEAT]; /* count executions down */
    struct x86_target tier_return[X86_TIER_RETURNS];
    struct x86_target tier_target[X86_TIER_TARGETS];

    bool jump_ready;                 /* set by the first x86_run */
    struct x86_jump_set jump_set[2]; /* index: X86_MODE_CPL3 is set */

    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer, xss;
    struct vmm_dtable gdt, idt;
    struct x86_dr dr;
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, misc_enable, spec_ctrl;
    uint64_t mtrr_cap_def; /* IA32_MTRR_DEF_TYPE */
    uint64_t mtrr_fixed[11], mtrr_var[16];
    uint64_t mcg_status, tsc_adjust, misc_features;
    uint32_t pkru;

    struct x86_fpu fpu;
    uint8_t tier_split[128]; /* copies of the end of a page and of the beginning of the next */
    uint32_t simd_mxcsr; /* the tier's: the host program's MXCSR while the guest's is loaded, ... */
    uint16_t simd_fcw;   /* ... and its x87 control word */

    struct x86_event event; /* to be delivered */
    struct x86_event later; /* injected by a callback: delivered after its instruction */
    uint8_t shadow;         /* VMM_SHADOW_*: cleared after the next instruction */
    bool restless;          /* somebody may wait for interrupts to be possible */
    bool user_stops;        /* returns to CPL 3 go by the slow loop: env->user wants to know */
    bool sti_passed;        /* execution went on behind STI: its shadow is over, unless ... */
    uint64_t sti_at;        /* ... so many instructions are retired */
    bool nmi_blocked, nmi_pending;
    uint8_t activity;        /* VMM_ACTIVE ... */
    uint64_t monitor_linear; /* armed by MONITOR */
    uint64_t pending_db;     /* DR6 bits of #DB traps to raise after the instruction */
    bool tf_trap; /* #DB for TF follows the instruction; SYSCALL and SYSRET set it at their end */
    bool restart; /* an aborted instruction comes before any event */
    uint64_t rep_serial;     /* counts iterations of string instructions */
    unsigned pauses;         /* PAUSE instructions executed; the surroundings may reset it */
    unsigned fruitless;      /* events delivered since the last instruction was retired */
    uint64_t retired;        /* instructions up to the last time that countdown was reloaded */
    int64_t countdown_start; /* its value at that time */
    uint8_t cur_idx;         /* op->idx of the instruction that is in a slow path */
    uint8_t ext;             /* EXT bit of error codes: 1 during the delivery of events */
    uint64_t bp_serial;      /* the instruction that passes its breakpoints (debug.c) ... */
    uint64_t bp_rip;         /* ... and its address */
    bool vmcall_exits;       /* VMCALL is VMM_EXIT_HYPERCALL, else #UD */
    enum x86_stop stop;

    /* Details of X86_STOP_EXIT: a struct vcpu_exit's reason and u, by the interp backend. */
    uint32_t exit_reason;
    uint64_t exit_gpa, exit_gva;
    uint32_t exit_index;

    /* The host program's debugging (vmm/debug.h). */
    uint64_t host_bp[4];
    uint8_t host_bp_type[4], host_bp_len[4];
    unsigned nhost_bp;
    uint32_t host_exceptions; /* mask of vectors that exit */
    bool host_bp_pass;        /* the next instruction ignores its breakpoint */
    bool host_exception_pass; /* the queued exception has exited already */

    /* Features of the guest's CPUID that instructions check. */
    struct {
        uint32_t l1_ecx, l1_edx, l7_ebx, l7_ecx, l7_edx, l7_1_eax, x1_ecx, x1_edx, xsave_eax;
        uint64_t xcr0_mask; /* XCR0 bits that may be set */
        unsigned gpa_bits, linear_bits;
    } feat;

    const struct x86_env *env;
    unsigned id; /* vCPU number: its bit in mmu_page.code */
    struct x86_cache *cache;
    struct x86_memo *memo;   /* or NULL */
    struct x86_known *known; /* likewise */
    struct x86_thunks *thunks;
    struct x86_counters count;
    struct mmu mmu;
};

/* ---- life cycle (cpu.c) ---- */

/* Allocates everything; NULL without memory. The state is that after reset. */
struct x86_cpu *x86_create(const struct x86_env *env, unsigned id);
void x86_destroy(struct x86_cpu *cpu);
/* SDM Vol. 3A table 10-1: power-up/reset or INIT. */
void x86_reset(struct x86_cpu *cpu, bool init);

/* ---- running (run.c) ---- */

/* Runs until a stop. `limit`: at most so many instructions (UINT64_MAX: no limit) are retired;
 * *done gets how many were. `step`: one instruction or one event delivery. */
enum x86_stop x86_run(struct x86_cpu *cpu, uint64_t limit, bool step, uint64_t *done);

/*
 * Any thread or signal handler: makes x86_run return soon. Blocks count down without locked
 * accesses, and may overwrite the sign that another thread has set; then `attention` is found when
 * the count is used up, after X86_POLL instructions at most. The vCPU's own thread is seen at the
 * next block edge.
 */
static inline void x86_wake(struct x86_cpu *cpu)
{
    atomic_store_explicit(&cpu->attention, 1, memory_order_release);
    atomic_fetch_or_explicit(&cpu->countdown, INT64_MIN, memory_order_seq_cst);
}

/* The count without the request. */
static inline int64_t x86_countdown(const struct x86_cpu *cpu)
{
    return atomic_load_explicit(&cpu->countdown, memory_order_relaxed) & INT64_MAX;
}

/* The vCPU's thread: counts n instructions more, or with a negative n takes some back. */
static inline void x86_count(struct x86_cpu *cpu, int64_t n)
{
    uint64_t now = (uint64_t)atomic_load_explicit(&cpu->countdown, memory_order_relaxed);

    atomic_store_explicit(&cpu->countdown, (int64_t)(now - (uint64_t)n), memory_order_relaxed);
}

/* The shadow that the next instruction is in; in a callback, the current one. */
uint8_t x86_shadow(const struct x86_cpu *cpu);

/* The number of the current instruction: the same when it is executed again after an abort. */
uint64_t x86_serial(const struct x86_cpu *cpu);

/* ---- code cache (cache.c) ---- */

void x86_cache_flush(struct x86_cpu *cpu);
/* Drops the blocks that overlap [gpa, gpa+len). True if the page has no blocks of this CPU left. */
bool x86_cache_invalidate(struct x86_cpu *cpu, uint64_t gpa, uint64_t len);
/* From a callback: state of which blocks make assumptions has changed. Ends the current block
 * behind the instruction that the callback is about. */
void x86_end_block(struct x86_cpu *cpu);
/* Host memory may have changed behind our back: compare each block with memory at its next lookup.
 */
void x86_cache_recheck(struct x86_cpu *cpu);

/* ---- state for the outside (state.c) ---- */

uint64_t x86_get_rflags(const struct x86_cpu *cpu);
void x86_set_rflags(struct x86_cpu *cpu, uint64_t rflags); /* all bits, no checks */
/* As backend get_regs/set_regs; set checks as a VM entry does: NULL, or the name of what is wrong.
 */
void x86_get_regs(struct x86_cpu *cpu, struct vcpu_regs *regs);
const char *x86_set_regs(struct x86_cpu *cpu, const struct vcpu_regs *regs);
/* XSAVE area in standard form. */
uint32_t x86_xsave_size(const struct x86_cpu *cpu);
void x86_get_xsave(struct x86_cpu *cpu, void *area, uint32_t len);
bool x86_set_xsave(struct x86_cpu *cpu, const void *area, uint32_t len);

/* MSRs of the CPU itself (msr.c). False: not modelled, or a value that raises #GP. `host`: without
 * the checks for read-only and alike. */
bool x86_read_msr(struct x86_cpu *cpu, uint32_t index, uint64_t *value, bool host);
bool x86_write_msr(struct x86_cpu *cpu, uint32_t index, uint64_t value, bool host);

/* CPUID leaves that this CPU can offer on this host (cpuid.c): fills `entries` (struct vmm_cpuid,
 * at most `max`) and returns the count. */
struct vmm_cpuid;
unsigned x86_default_cpuid(struct vmm_cpuid *entries, unsigned max, uint64_t tsc_khz);
/* Sets cpu->feat from a table of the guest. */
void x86_cpuid_changed(struct x86_cpu *cpu, const struct vmm_cpuid *entries, unsigned n);

#endif
