/* SPDX-License-Identifier: BSD-2-Clause */
/* core/core.h: the VM and vCPU objects, and what backends and tests may call of the core. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "core/irqchip.h"
#include "core/os.h"
#include <vmm/debug.h>
#include <vmm/device.h>
#include <vmm/memory.h>

/*
 * Locks, in the order in which they may be taken:
 *   world (stop the vCPUs) -> vm->lock (lists of vCPUs, regions, registrations, timers, devices)
 *   -> a device's own lock -> irqchip locks.
 * No lock is held while a callback of the user runs.
 *
 * A vCPU thread is "in guest" while the backend may use guest memory pointers and I/O registrations
 * without a reference; it leaves that state for callbacks, waits and exits. Whoever changes the
 * memory map or the I/O map stops the world: it asks all vCPUs to leave the guest state and waits
 * until they have; core_guest_enter blocks until the world goes on.
 */

/* Request bits of a vCPU (vcpu->requests): why it must come to core/vcpu.c at the next block edge.
 * A backend polls the word, with a relaxed load, and returns BACKEND_AGAIN when it is not zero;
 * only the core clears bits. */
#define VCPU_REQ_KICK   1u
#define VCPU_REQ_STOP   2u
#define VCPU_REQ_PAUSE  4u
#define VCPU_REQ_WORLD  8u
#define VCPU_REQ_EXIT   16u
#define VCPU_REQ_INTR   32u
#define VCPU_REQ_NMI    64u
#define VCPU_REQ_INIT   128u
#define VCPU_REQ_SIPI   256u
#define VCPU_REQ_TIMER  512u
#define VCPU_REQ_DEFER  1024u
#define VCPU_REQ_BUDGET 2048u

/* Sets request bits, makes the backend leave guest code and wakes the vCPU's thread. ANY+SIG. */
void core_vcpu_request(struct vcpu *vcpu, uint32_t bits);

/* Results of accesses that a backend makes on behalf of an instruction. */
#define CORE_IO_OK 0
/* Leave the instruction without effect and return from backend->run: BACKEND_EXIT if
 * vcpu->exit.reason is set, else BACKEND_AGAIN. */
#define CORE_IO_ABORT 1
/* MSR accesses: raise #GP(0). */
#define CORE_IO_GP 2

/*
 * One access by the instruction `serial` (a number that is the same when the same instruction is
 * executed again after an abort, and differs from its predecessors'). Accesses that were already
 * made before the abort are answered from the record, so that each takes effect exactly once.
 * `size` is 1, 2, 4 or 8 (ports: 1, 2, 4); `vcpu` NULL: from no CPU, never aborts (NOBODY instead
 * of EXIT and DEFER).
 */
int core_mmio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint64_t gpa, uint32_t size,
                     bool write, uint64_t *value);
int core_pio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint16_t port, uint32_t size,
                    bool write, uint64_t *value);
/* The same for an instruction that makes this access only, has not been aborted before, and is over
 * when this returns CORE_IO_OK: the short way for engines. `how`: CORE_PORT, CORE_WRITE. What
 * *value has beyond `size` is ignored. */
#define CORE_PORT  1u
#define CORE_WRITE 2u
int core_only_access(struct vcpu *vcpu, uint64_t serial, unsigned how, uint64_t addr, uint32_t size,
                     uint64_t *value);

/*
 * MSRs that are not CPU state, and the policy: CORE_IO_*. `handled` false: the CPU's own. The
 * core's own are IA32_TSC, IA32_TSC_ADJUST and, with an irqchip, IA32_APIC_BASE, IA32_TSC_DEADLINE
 * and 0x800-0x8ff.
 */
int core_msr_access(struct vcpu *vcpu, uint64_t serial, uint32_t index, bool write, uint64_t *value,
                    bool *handled);
/* CPUID by the vCPU's table; `out` = eax, ebx, ecx, edx. Dynamic bits are filled by the caller. */
int core_cpuid(struct vcpu *vcpu, uint64_t serial, uint32_t leaf, uint32_t subleaf,
               uint32_t out[4]);

/* External interrupts of the irqchip, as lapic_intr and lapic_ack; false and -1 without one. What
 * vcpu_inject queues is in the backend's own state (vcpu_regs.inject_*, nmi_pending). */
bool core_intr_pending(struct vcpu *vcpu);
int core_intr_ack(struct vcpu *vcpu);

/* CR8 of a vCPU with a local APIC of the library's is that one's (lapic_get_cr8 of
 * core_vcpu_lapic); without one core_vcpu_lapic is NULL and the backend keeps CR8. */

/* Moves the guest TSC of the vCPU (core_vcpu_tsc in irqchip.h) to `value` now. OWNER. */
void core_vcpu_set_tsc(struct vcpu *vcpu, uint64_t value);

/*
 * For engines that cannot poll timers while guest code runs: around that time. _begin returns the
 * os_now time at which the engine must leave guest code and call core_poll_timers (UINT64_MAX:
 * never); a timer that is set earlier meanwhile sends VCPU_REQ_TIMER.
 */
uint64_t core_timers_begin(struct vcpu *vcpu);
void core_timers_end(struct vcpu *vcpu);

/*
 * Descriptors that a thread of the library waits for, one per VM, started with the first: `ready`
 * is called there, with no lock held and all signals blocked, after a signal of the eventfd `fd`
 * (not duplicated) has been taken. 0 or VMM_E_*, vm_fail'ed as `op`. _remove waits until `ready`
 * has returned, unless it is called from there; NULL is allowed. ANY.
 */
struct core_watch;
int core_watch_add(struct vm *vm, const char *op, int fd, void (*ready)(void *opaque), void *opaque,
                   struct core_watch **out);
void core_watch_remove(struct core_watch *watch);

/* Runs timers that are due; a backend calls it often enough for their precision
 * (interp: every X86_POLL instructions). Leaves the guest state while callbacks run. */
void core_poll_timers(struct vcpu *vcpu);

/* A page of guest memory as the MMU wants it. */
struct core_page {
    uint8_t *host;          /* NULL: not memory */
    uint32_t prot;          /* VMM_MEM_* */
    _Atomic uint64_t *code; /* bit n: vCPU n has decoded code of this page */
    _Atomic uint8_t *dirty; /* whoever writes stores 1; NULL while dirty tracking is off */
    int fd;                 /* the file that has it, for VMM_VM_DIRECT; -1: none */
    uint64_t fd_offset;     /* of the page in that file */
};
/* Looks a page up; `gpa` need not be aligned. In guest state or with the world stopped. */
bool core_mem_page(struct vm *vm, uint64_t gpa, struct core_page *page);

/*
 * Guest state and stopping the world. core_world_stop returns when no vCPU of another thread is in
 * guest state. If the calling thread's own vCPU is in it, it leaves it while it waits for its turn
 * (pointers from core_mem_page must be looked up again) and is back in it after core_world_go.
 * Stops of several threads queue up; it does not nest.
 *
 * A vCPU that has stopped the world and then comes to a callback (a locked access to a device) lets
 * the world go for the time of it: core_guest_leave starts it, core_guest_enter stops it again.
 */
void core_guest_enter(struct vcpu *vcpu);
void core_guest_leave(struct vcpu *vcpu);
void core_world_stop(struct vm *vm);
void core_world_go(struct vm *vm);

/* ---- The objects. Backends use the fields named "backend"; the rest is the core's. ---- */

struct vmm_backend_ops;
struct core_route;
struct doorbell_map;
struct irq_fd;
struct mem_map;
struct io_map;
struct io_reg;

/* Accesses of one instruction that a record holds: an XSAVE area with AVX-512 state, 8 bytes each.
 */
#define CORE_RECORD_MAX 352

/* What the answer in the caller's vcpu_exit completes. */
enum core_answer { ANSWER_NONE, ANSWER_MMIO, ANSWER_PIO, ANSWER_MSR, ANSWER_CPUID };

struct core_record_entry {
    uint64_t value; /* what a read gave */
    uint32_t key;   /* kind, direction, size and low address bits: a check */
    uint32_t state; /* io.c */
};

/* The accesses that the current instruction made so far; see core_mmio_access. */
struct core_record {
    uint64_t serial;
    uint32_t n;        /* entries filled */
    uint32_t pos;      /* next entry that a replay meets */
    uint32_t cpuid[4]; /* answer of a CPUID exit */
    struct core_record_entry e[CORE_RECORD_MAX];
};

struct core_msr_range {
    uint32_t first, last, policy;
};

struct core_exit_request {
    uint32_t reason;
    uint64_t value;
};

#define CORE_MAX_CPUID         256
#define CORE_MAX_MSR_RANGES    64
#define CORE_MAX_EXIT_REQUESTS 4

#define CORE_EXIT_REASONS 128u /* above all VMM_EXIT_* */

struct vcpu {
    struct vm *vm;      /* backend */
    uint32_t id;        /* backend */
    void *backend_data; /* backend: its own */

    _Atomic uint32_t requests; /* backend: VCPU_REQ_*, polled; also the futex word of waits */
    uint64_t insn_budget;      /* backend: counted down; UINT64_MAX: no limit */
    struct vcpu_exit exit;     /* backend: reason, insn, insn_len, u; the core fills the rest
                                  unless exit_complete */

    /* backend: set when an instruction was aborted after it made accesses. Its restart must come
     * before the delivery of any event; the backend clears it when that instruction is over. */
    bool restart;
    bool world_dropped;     /* between core_guest_leave and _enter of who has stopped the world */
    bool irq_window_wanted; /* backend: VMM_EXIT_IRQ_WINDOW when irq_window opens, then cleared */
    bool exit_complete;     /* backend: exit.rip, mode and cpl are filled too */
    bool halted;            /* backend, with BACKEND_HALT: it is VMM_HALTED, as nobody need ask */

    /* backend: sorted by leaf, then subleaf; use core_cpuid for what the guest sees. */
    struct vmm_cpuid cpuid[CORE_MAX_CPUID];
    uint32_t ncpuid;

    _Atomic bool alive;
    void *data;
    struct lapic *lapic;
    _Atomic uint32_t in_guest;      /* guest state; a futex word */
    _Atomic uint32_t where;         /* VCPU_OUT ... (internal.h); a futex word */
    _Atomic uint32_t waking;        /* threads inside core_vcpu_request */
    _Atomic uint64_t wait_deadline; /* vm_clock time until which it sleeps; 0: it does not */

    uint64_t budget_insns, budget_ns;
    uint64_t budget_deadline; /* os_now time; UINT64_MAX: none */

    _Atomic uint64_t tsc_offset, tsc_adjust;
    _Atomic uint32_t sipi_vector;
    struct core_exit_request exit_requests[CORE_MAX_EXIT_REQUESTS]; /* under vm->lock */
    uint32_t nexit_requests;

    struct core_msr_range msr_ranges[CORE_MAX_MSR_RANGES];
    uint32_t nmsr_ranges;

    enum core_answer answer;  /* the last exit asks for one; it belongs to record.e[record.n - 1] */
    struct io_reg *io_hit[2]; /* last one found, MMIO and ports */
    _Atomic uint32_t defer;   /* DEFER_* (io.c) */
    uint64_t defer_value;
    _Atomic uint64_t nexits, nmmio, npio, nhalts;
    _Atomic uint64_t nexits_by[CORE_EXIT_REASONS]; /* those without an error */
    struct core_record record;
};

/* Descriptors that a thread of the library waits for (watch.c). */
struct core_watcher {
    struct os_mutex lock;        /* of all that follows */
    struct core_watch **watches; /* by number; NULL: free */
    uint32_t nwatches;
    int poll, wake; /* descriptors, while `running` */
    bool running;
    uint32_t generation;
    struct core_watch *current; /* whose `ready` runs */
    _Atomic uint32_t done;      /* counts calls of `ready` that have returned; a futex word */
    uintptr_t thread;           /* os_thread_self of it */
    struct os_thread handle;
};

/* Many readers or one writer, for host threads; a writer that waits keeps new readers out. */
struct core_rwlock {
    _Atomic uint32_t word;
};

struct vm {
    const struct vmm_backend_ops *ops; /* backend */
    void *backend_data;                /* backend: its own */
    uint32_t flags;                    /* backend: VMM_VM_* */
    uint32_t max_vcpus;                /* backend */
    uint64_t tsc_khz;                  /* backend: of the guest */
    uint64_t code_cache;               /* backend: vm_config's */
    uint32_t irqchip_kind;             /* backend: VMM_IRQCHIP_*: whether there is one at all */
    uint32_t irqchip_mode;             /* backend: VMM_IRQCHIP_MODE_*, where it is */
    struct irqchip *irqchip;           /* NULL: VMM_IRQCHIP_NONE, or all of it in the kernel */
    bool dirty_on;      /* backend: writes are tracked; changed with the world stopped */
    bool dirty_in_host; /* backend_host_ops.dirty_sync tells */
    struct vm_caps caps;

    struct os_mutex lock;
    struct os_mutex error_lock; /* a leaf: vm_fail may be called with any lock held */
    struct vmm_error error;

    /* A slot's vCPU stays allocated once created, so that vm_stop can look at it at any time. */
    _Atomic(struct vcpu *) vcpus[VMM_MAX_VCPUS];
    _Atomic uintptr_t owner[VMM_MAX_VCPUS]; /* the thread that has claimed the vCPU */

    struct os_mutex world_lock;
    _Atomic uint32_t world; /* stopped; a futex word */
    _Atomic uint32_t world_waiters;
    _Atomic(struct vcpu *) world_self; /* the stopper's vCPU that goes back into guest state */

    _Atomic uint32_t stopped;
    _Atomic uint32_t paused;       /* PAUSE_* (internal.h); not 0: vCPUs hold */
    _Atomic uint64_t clock_base;   /* os_now - vm_clock */
    _Atomic uint64_t clock_paused; /* vm_clock while paused */
    uint64_t tsc_mult;             /* guest TSC ticks per ns, 32.32 */
    _Atomic uint64_t tsc_start;    /* ticks at which the TSC was 0: the last reset */

    char *lockstep_report; /* under error_lock; backend: what vm_lockstep_report returns, or NULL */
    struct mem_map *mem;   /* changed with the world stopped and mem_lock held for writing */
    struct core_rwlock mem_lock;

    struct io_map *io[2];   /* MMIO, ports: changed with the world stopped and vm->lock held */
    struct io_reg *io_list; /* under vm->lock */
    struct doorbell_map *doorbells[2]; /* as io; NULL: none */

    /* What drives interrupt lines, and who wants to hear of them. After devices' locks, before the
     * controllers'. */
    struct os_mutex irq_lock;
    uint32_t irq_levels;         /* lines that vm_irq_set asserts */
    uint32_t irq_resampled;      /* lines that descriptors with a resample_fd assert */
    uint32_t irq_resample_lines; /* lines whose EOI signals a resample_fd, by the library */
    uint32_t eoi_wanted;         /* as backend_host_ops.irq_eoi_wanted was told */
    struct core_eoi {
        void (*fn)(void *opaque, uint32_t line);
        void *opaque;
    } eoi[VMM_IRQ_LINES];
    struct core_route *routes; /* VMM_IRQ_ROUTES of them, or NULL: none was ever set */
    struct irq_fd *irq_fds;
    struct core_watcher watcher;

    struct os_mutex timer_lock;
    struct vmm_timer **timers; /* binary heap */
    uint32_t ntimers, timers_cap;
    struct vmm_timer *timer_list;
    _Atomic uint64_t next_timer; /* vm_clock time of the earliest, UINT64_MAX: none */
    _Atomic uint32_t timer_done; /* counts callbacks that have returned; a futex word */

    struct vmm_device *devices;
};

/* A list that is being filled for vm_get_exit_counts and its like. [counts.c] */
struct core_counts {
    struct vmm_count *out; /* elements of `size` bytes */
    uint32_t capacity, size;
    uint32_t used, total; /* elements that are filled; that are not 0 */
};

/* Puts a count in its place; not if it is 0. */
void core_counts_add(struct core_counts *list, uint32_t id, const char *name, uint64_t count);

#endif
