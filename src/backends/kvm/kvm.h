/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/kvm.h: the engine on /dev/kvm: its objects, and what its files call of each other.
 */
#ifndef BACKENDS_KVM_KVM_H
#define BACKENDS_KVM_KVM_H

#include <linux/kvm.h>
#include <signal.h>

#include "backends/interp/interp.h"

/*
 * A vCPU is two CPUs: the kernel's and a software CPU (backends/interp), of which at any time one
 * has the newest state, group by group. What KVM cannot execute, and what it executes wrongly on
 * this host (KVM_BAD_*), the software CPU does: one instruction, or for as long as the state is one
 * that KVM cannot run. Checks of what the program sets, MSRs that KVM does not hold, debugging with
 * exact semantics and single steps are the software CPU's on every host, so that they behave as
 * with the other engines.
 */

/* ---- what the host has (probe.c) ---- */

/* Capabilities found, bits of kvm_host.has. */
#define KVM_HAS_SYNC_REGS      0x1u
#define KVM_HAS_IMMEDIATE_EXIT 0x2u
#define KVM_HAS_XSAVE          0x4u
#define KVM_HAS_XSAVE2         0x8u
#define KVM_HAS_READONLY_MEM   0x10u
#define KVM_HAS_MSR_FILTER     0x20u
#define KVM_HAS_USER_MSR       0x40u
#define KVM_HAS_IRQCHIP        0x80u
#define KVM_HAS_SPLIT_IRQCHIP  0x100u
#define KVM_HAS_IRQFD          0x200u
#define KVM_HAS_IRQFD_RESAMPLE 0x400u
#define KVM_HAS_IOEVENTFD      0x800u
#define KVM_HAS_IOEVENTFD_ANY  0x1000u
#define KVM_HAS_COALESCED_MMIO 0x2000u
#define KVM_HAS_COALESCED_PIO  0x4000u
#define KVM_HAS_SIGNAL_MSI     0x8000u
#define KVM_HAS_X2APIC_API     0x10000u
#define KVM_HAS_DIRTY_RING     0x20000u /* with acquire-release semantics */
#define KVM_HAS_MANUAL_DIRTY   0x40000u
#define KVM_HAS_TSC_CONTROL    0x80000u
#define KVM_HAS_TSC_OFFSET     0x100000u /* KVM_VCPU_TSC_OFFSET */
#define KVM_HAS_GUEST_DEBUG    0x200000u
#define KVM_HAS_KVMCLOCK_CTRL  0x400000u
#define KVM_HAS_EXIT_ON_EMUL   0x800000u
#define KVM_HAS_DEBUGREGS      0x1000000u
#define KVM_HAS_VCPU_EVENTS    0x2000000u
#define KVM_HAS_MULTI_ADDRESS  0x4000000u
#define KVM_HAS_XCRS           0x8000000u /* else the guest has no XSAVE: XCR0 stays 1 */

/* A usable host has all of these. */
#define KVM_HAS_REQUIRED                                                                           \
    (KVM_HAS_VCPU_EVENTS | KVM_HAS_DEBUGREGS | KVM_HAS_XSAVE | KVM_HAS_READONLY_MEM |              \
     KVM_HAS_IMMEDIATE_EXIT | KVM_HAS_USER_MSR | KVM_HAS_MSR_FILTER)

/* What this host's KVM gets wrong, as small guests have shown: bits of kvm_host.bad. */
#define KVM_BAD_REAL         0x1u   /* 16-bit real mode does not run */
#define KVM_BAD_PROTECTED    0x2u   /* nor protected mode without paging */
#define KVM_BAD_PAGING32     0x4u   /* nor 32-bit paging */
#define KVM_BAD_PAE          0x8u   /* nor PAE paging */
#define KVM_BAD_COMPAT       0x10u  /* nor compatibility mode */
#define KVM_BAD_USER_EVENTS  0x20u  /* SYSCALL, INT n or SYSENTER at CPL 3 do not reach ring 0 */
#define KVM_BAD_USER_FLAGS   0x40u  /* IF and IOPL at CPL 3 are not what was set */
#define KVM_BAD_CPUID        0x80u  /* KVM_SET_CPUID2 is overridden */
#define KVM_BAD_TSC_OFFSET   0x100u /* RDTSC ignores the offset */
#define KVM_BAD_STALE_TABLES 0x200u /* a flush does not drop page tables that the host edits */
#define KVM_BAD_STEP         0x400u /* single steps */
#define KVM_BAD_BREAKPOINT   0x800u /* hardware breakpoints of KVM_SET_GUEST_DEBUG */
#define KVM_BAD_WATCHPOINT   0x1000u
#define KVM_BAD_EMULATION    0x2000u  /* everyday instructions at CPL 0 end in internal errors */
#define KVM_BAD_HYPERCALL    0x4000u  /* VMCALL hangs */
#define KVM_BAD_SLOW_KERNEL  0x8000u  /* CPL 0 runs at less than 5 % of CPL 3 */
#define KVM_BAD_WINDOW       0x10000u /* at CPL 0 a short interrupt window is missed */
#define KVM_BAD_IN_SERVICE   0x20000u /* local APICs in the kernel: no ISR bit at CPL 0 */

/* Those for which the software CPU executes guest code in KVM's place. */
#define KVM_BAD_EXECUTION                                                                          \
    (KVM_BAD_REAL | KVM_BAD_PROTECTED | KVM_BAD_PAGING32 | KVM_BAD_PAE | KVM_BAD_COMPAT |          \
     KVM_BAD_USER_EVENTS | KVM_BAD_USER_FLAGS | KVM_BAD_EMULATION)

struct kvm_host {
    int result;       /* VMM_E_*; 0: usable */
    int os_errno;     /* behind it */
    char reason[200]; /* for the report */
    uint32_t has, bad;
    bool degraded; /* VMM_BACKEND_DEGRADED */
    uint32_t run_size, xsave_size, nslots, max_vcpus, dirty_ring_bytes;
    uint32_t gpa_bits;
    uint32_t kernel_insn_ns10; /* tenths of ns per instruction at CPL 0, and at CPL 3 */
    uint32_t user_insn_ns10;
    bool irqchip_kernel_ok, irqchip_split_ok; /* small guests took their interrupts */
    struct kvm_cpuid2 *supported;             /* KVM_GET_SUPPORTED_CPUID */
};

/* Probed at the first call in the process, then the same for ever; also when unusable. ANY. */
const struct kvm_host *kvm_host(void);
/* "PAE paging, SYSCALL at CPL 3, ..." for a set of KVM_BAD_*. */
void kvm_bad_names(uint32_t bad, char *text, size_t size);
/* vmm_backend_ops.probe. */
void kvm_probe(struct vmm_backend_report *report);

/* ---- system calls (sys.c) ---- */

/* ioctl that goes on after EINTR; the result of success (>= 0), or a negative errno. */
int kvm_ioctl(int fd, unsigned long request, uintptr_t arg);
static inline int kvm_ioctl_p(int fd, unsigned long request, const void *arg)
{
    return kvm_ioctl(fd, request, (uintptr_t)arg);
}
/* Opens /dev/kvm (close-on-exec) and checks the API version: the descriptor, or a negative errno
 * with VMM_E_* in *result. */
int kvm_open(int *result);
/* One MSR of a vCPU; false: KVM does not have it, or not with this value. */
bool kvm_get_one_msr(int fd, uint32_t index, uint64_t *value);
bool kvm_set_one_msr(int fd, uint32_t index, uint64_t value);
/* VMM_E_* for an errno. */
int kvm_error(int os_errno);
/* vm_fail for a failed ioctl: `what` names it; returns the VMM_E_*. */
int kvm_fail(struct vm *vm, const char *op, int negative_errno, const char *what);

/* ---- VMs (vm.c), memory slots (mem.c), dirty log (dirty.c) ---- */

#define KVM_NO_SLOT UINT32_MAX

struct kvm_slot {
    uint64_t gpa, len;
    uint8_t *host;
    uint32_t flags; /* KVM_MEM_* */
    uint32_t id;
};

struct kvm_vm {
    int fd;
    const struct kvm_host *host; /* kvm_host(), or `trusted` with VMM_VM_TRUST_HOST */
    struct kvm_host trusted;
    struct kvm_slot *slots; /* sorted by gpa; changed with the world stopped */
    uint32_t nslots, slots_cap;
    uint32_t *free_ids;
    uint32_t nfree_ids, free_ids_cap, next_id;
    bool slots_lack; /* there is memory that KVM would not take as a slot */
    bool dirty_on;
    uint32_t ring_bytes; /* of each vCPU's dirty ring; 0: a bitmap per slot instead */
    struct {
        struct kvm_dirty_gfn *map; /* NULL: not looked at yet */
        uint32_t next;
    } ring[VMM_MAX_VCPUS];
    _Atomic bool ring_reset_due; /* entries have been collected since KVM_RESET_DIRTY_RINGS */
    uint64_t *dirty_bits;        /* one slot's bitmap */
    size_t dirty_bits_cap;
    _Atomic bool derived;  /* KVM may have derived something of guest page tables */
    _Atomic int mem_error; /* KVM has refused a change of slots: see kvm_mem_settle */
    uint32_t msr_passed;   /* what the filter lets through, as bits of the table in msr.c */
    struct kvm_cpuid2 *cpuid[VMM_MAX_VCPUS]; /* what each of vcpu_fd has been given */
    /* tsc.c: ticks = (host TSC * ratio >> shift) - base, or tsc_held while they stand. */
    uint64_t tsc_ratio;
    uint32_t tsc_shift; /* 0: not scaled */
    _Atomic uint64_t tsc_base, tsc_held;
    _Atomic bool tsc_stands;
    struct kvm_irq *irq;        /* irq.c: routes, eventfds, kernel controllers */
    struct kvm_io *io;          /* io.c: doorbells and coalesced ranges */
    int vcpu_fd[VMM_MAX_VCPUS]; /* -1: none yet. KVM's vCPUs cannot be destroyed: kept and reused */
    _Atomic bool vcpu_ran[VMM_MAX_VCPUS]; /* its CPUID can no longer be changed */
    uint64_t hw_exits, repairs;           /* of vCPUs that are gone; under vm->lock */
};

static inline struct kvm_vm *kvm_vm_of(struct vm *vm)
{
    return vm->backend_data;
}

int kvm_vm_init(struct vm *vm);
void kvm_vm_fini(struct vm *vm);
void kvm_caps(struct vm *vm, struct vm_caps *caps);
int kvm_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n);

/* vmm_backend_ops.mem_map_changed, for both CPUs: brings the slots in line with the memory map.
 * What KVM refuses for want of memory is kept in kvm_vm.mem_error; what cannot be a slot is none,
 * and accesses to it come as MMIO, which the engine makes in memory. [mem.c] */
void kvm_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len);
/* While kvm_vm.mem_error is not 0, slots may lead to memory that is no longer the guest's, and no
 * vCPU may enter KVM: this tries again. In guest state; stops the world. 0, or VMM_E_*
 * (vm_fail'ed). [mem.c] */
int kvm_mem_settle(struct vcpu *vcpu);
/* Removes and adds all slots: drops what KVM has derived from guest page tables. World stopped, or
 * on a VM with one vCPU by its thread. [mem.c] */
int kvm_mem_refresh(struct vm *vm);
/* Logging of writes to the slots, on or off; a slot where it cannot be changed stays as it was.
 * World stopped. [mem.c] */
int kvm_mem_log(struct vm *vm, bool on);
void kvm_mem_fini(struct vm *vm);

int kvm_dirty_start(struct vm *vm);
void kvm_dirty_stop(struct vm *vm);
int kvm_dirty_sync(struct vm *vm, uint64_t gpa, uint64_t len);
struct kvm_vcpu;
/* KVM_EXIT_DIRTY_RING_FULL: empties the vCPU's ring into the pages' dirty bytes. In guest state. 0,
 * or VMM_E_* (vm_fail'ed). */
int kvm_dirty_harvest(struct kvm_vcpu *kv);
/* Before a slot goes: moves its log to the dirty bytes. World stopped. */
void kvm_dirty_slot_gone(struct vm *vm, const struct kvm_slot *slot);
void kvm_dirty_init(struct vm *vm);
void kvm_dirty_fini(struct vm *vm);

/* ---- vCPUs (vcpu.c), state (state.c) ---- */

/* Groups of state that move between the two CPUs. */
#define KVM_G_REGS   1u  /* GPRs, RIP, RFLAGS */
#define KVM_G_SREGS  2u  /* segments, tables, control registers, EFER, APIC base, CR8 */
#define KVM_G_EVENTS 4u  /* queued events, shadow, NMI */
#define KVM_G_DEBUG  8u  /* DR0-DR7 */
#define KVM_G_MSRS   16u /* the MSRs that KVM holds */
#define KVM_G_XSAVE  32u /* x87 ... */
#define KVM_G_XCR    64u /* XCR0 */
#define KVM_G_ALL    127u

/* What of KVM's last exit has to be done or completed before anything else. */
enum kvm_pending {
    KVM_PEND_NONE,
    KVM_PEND_ACCESS,   /* an access of run->io, ->mmio or ->msr that has not been made (all) yet */
    KVM_PEND_COMPLETE, /* made: the next KVM_RUN completes the instruction */
};

struct kvm_vcpu {
    struct interp_vcpu soft; /* first: interp_cpu() and the like work on this */
    struct vcpu *vcpu;
    const struct kvm_host *host;
    int fd;
    struct kvm_run *run;
    uint32_t valid;  /* KVM_G_*: the software CPU's copy is as new as KVM's, or newer */
    uint32_t newer;  /* subset of valid: KVM's copy is out of date */
    bool fresh_soft; /* the software CPU's caches may be stale: flush before it runs */
    bool fenced; /* KVM's IDT limit is 0 (KVM_BAD_USER_EVENTS); the real one is in the soft CPU */
    enum kvm_pending pending;
    uint32_t pending_item; /* of a string access: which is next */
    uint32_t ins_size;     /* of the items that KVM has read ahead for an INS; 0: none */
    uint64_t serial;       /* of the access, for core_mmio_access */
    uint64_t flush_count;  /* soft.cpu->mmu.flushes when KVM last had the state */
    uint64_t soft_until;   /* ... */
    struct kvm_xsave *xsave;
    /* Kicks (kick.c). */
    _Atomic uint32_t in_run; /* the thread is inside KVM_RUN, or about to be */
    _Atomic int tid;
    uint64_t mask; /* last KVM_SET_SIGNAL_MASK */
    bool mask_set;
    sigset_t outer_mask; /* of the thread, outside of the run loop */
    bool has_timer;
    void *timer; /* timer_t */
    uint64_t timer_armed;
    /* The vCPU has run with another CPUID table, and KVM takes no new one: software only. */
    bool cpuid_stale;
    bool debug_soft; /* debugging that KVM cannot do exactly: the software CPU runs the guest */
    bool debug_hw;   /* KVM_SET_GUEST_DEBUG is in force */
    bool
        debug_pass; /* the breakpoint at RIP has exited: the software CPU takes the guest past it */
    bool tsc_valid; /* tsc_given is what KVM has */
    uint64_t tsc_given;
    /* The rest is private to vcpu.c ... access.c. */
    uint32_t synced;     /* KVM_G_*: KVM's copy is in run->s, as it is there */
    uint64_t apic_base;  /* with the local APIC in the kernel: group SREGS */
    uint64_t xcr0;       /* as KVM has it */
    uint32_t wanted;     /* KVM_G_*: pulled since the last exit, so the next one is to bring them */
    uint32_t msr_absent; /* bit n: KVM does not have MSR n of the list in state_ext.c */
    bool in_callback;    /* a callback runs for the instruction that waits in KVM */
    bool foreign_signal; /* a SIGURG that was not ours has been consumed: send it again */
    siginfo_t foreign;   /* what came with it */
    bool lapic_reset_due; /* the kernel has refused it */
    bool init_came;       /* to a local APIC in the kernel, while the software CPU ran */
    bool nmi_in_kvm;      /* an NMI is pending there, as far as is known */
    bool has_payload;     /* KVM_CAP_EXCEPTION_PAYLOAD is in force */
    uint64_t insn_serial; /* of the access that insn_* are about */
    uint64_t insn_rip;
    uint32_t insn_writes; /* bit n: VMM_RAX + n; KVM_WRITES_FLAGS */
    uint8_t insn[16], insn_len;
    bool moves_rip; /* KVM's RIP is behind an OUT when it exits */
    bool regs_set;  /* REGS has been set while KVM's instruction waits for an access */
    uint32_t batch; /* instructions that the next repair executes */
    _Atomic uint64_t entries, repairs; /* KVM_RUNs; repairs. Written by the vCPU's thread only */
    uint64_t last_repair;              /* value of `entries` at the last one */
};

static inline struct kvm_vcpu *kvm_vcpu_of(struct vcpu *vcpu)
{
    return vcpu->backend_data;
}

int kvm_vcpu_init(struct vcpu *vcpu);
void kvm_vcpu_fini(struct vcpu *vcpu);
void kvm_vcpu_reset(struct vcpu *vcpu, bool init);

/* Serial numbers of KVM's accesses (core_mmio_access); the software CPU's are below. */
#define KVM_FIRST_SERIAL (1ull << 63)

static inline bool kvm_lapic_in_kernel(const struct vm *vm)
{
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT ||
           vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL;
}

/* Brings the software CPU's copy of the groups up to date. 0 or VMM_E_* (vm_fail'ed). An
 * instruction that KVM has to complete is completed first. [state.c] */
int kvm_pull(struct kvm_vcpu *kv, uint32_t groups);
/* Says that the software CPU's copy of the groups has changed; they must be valid. */
static inline void kvm_changed(struct kvm_vcpu *kv, uint32_t groups)
{
    kv->newer |= groups;
}
/* Gives KVM all that is newer: what goes through kvm_run's shared area, and ioctls for the rest. */
int kvm_push(struct kvm_vcpu *kv);

/* After KVM_RUN; `complete`: it came to its end, so that kvm_run's shared area is filled.
 * [state.c] */
void kvm_state_ran(struct kvm_vcpu *kv, bool complete);
/* Completes an instruction whose access has been made (KVM_PEND_COMPLETE), without running any
 * further one; its next access may then be pending. 0 or VMM_E_*. [state.c] */
int kvm_complete(struct kvm_vcpu *kv);
/* Rids KVM of an instruction that waits for its access: it takes zeros for what it has not been
 * given, and what it changes is to be overwritten. [state.c] */
void kvm_drop(struct kvm_vcpu *kv);
/* As KVM has them; for what the software CPU has no place for. [state_regs.c] */
int kvm_get_events(struct kvm_vcpu *kv, struct kvm_vcpu_events *events);
/* The MSRs that KVM has depend on CPUID: they are to be found again. [state_ext.c] */
void kvm_msrs_changed(struct kvm_vcpu *kv);

/* Whether KVM can run the current state on this host; needs REGS and SREGS, and what is pending.
 * [soft.c] */
bool kvm_can_run(struct kvm_vcpu *kv);
/* Where SYSCALL goes behind the fence: nothing is ever mapped for CPL 3 in the last page. */
#define KVM_FENCE_RIP 0xffffffffffffff00ull

/* After KVM's state has been taken over: exceptions and SYSCALL behind the fence have not happened.
 * [soft.c] */
void kvm_undo_fenced(struct kvm_vcpu *kv);
/* Whether these bytes are at the linear address. [soft.c] */
bool kvm_code_is(struct kvm_vcpu *kv, uint64_t linear, const char *bytes, unsigned n);

/* Whether KVM is to run it behind the fence. [soft.c] */
bool kvm_wants_fence(struct kvm_vcpu *kv);
/* Runs the software CPU: `insns` instructions at most (UINT64_MAX: until KVM can run the state, or
 * a stop), or one step. BACKEND_* (BACKEND_AGAIN: nothing keeps from going on), or VMM_E_*.
 * [soft.c] */
int kvm_soft_run(struct kvm_vcpu *kv, uint64_t insns, bool step);

/* Accesses of KVM_EXIT_IO, _MMIO and the MSR exits. kvm_access_begin is for the exit (false: KVM
 * should not have said that), _go on makes what is left of them: KVM_ACCESS_DONE, or a BACKEND_*
 * with which run returns. [access.c] */
#define KVM_ACCESS_DONE (-1000)
bool kvm_access_begin(struct kvm_vcpu *kv);
int kvm_access_go_on(struct kvm_vcpu *kv);
/* Answers all that is left of them with zeros. */
void kvm_access_zero(struct kvm_vcpu *kv);
/* Of the access that is pending: kv->insn_*, the instruction that makes it. 0 or VMM_E_*.
 * [backtrack.c] */
#define KVM_WRITES_FLAGS (1u << 16)
int kvm_find_insn(struct kvm_vcpu *kv);
/* Whether RIP is at an INS, where KVM leaves it while a repeated one goes on. 0 or VMM_E_*.
 * [backtrack.c] */
int kvm_at_ins(struct kvm_vcpu *kv, bool *ins);

/* Around a stay in the run loop: blocks SIGURG, and gives the thread its mask back. [kick.c] */
int kvm_kick_begin(struct kvm_vcpu *kv);
void kvm_kick_end(struct kvm_vcpu *kv);
/* KVM_RUN, unless there is a request: KVM_ENTER_*, or a negative errno. [kick.c] */
#define KVM_ENTER_EXIT        0 /* run->exit_reason tells */
#define KVM_ENTER_NOT         1 /* there is a request: KVM has not been called */
#define KVM_ENTER_INTERRUPTED 2
int kvm_enter(struct kvm_vcpu *kv);
/* KVM_RUN for code that soon comes to its end, whatever requests there are: the same, but never
 * KVM_ENTER_NOT. A vCPU that waits in the kernel instead is interrupted after a while. [kick.c] */
int kvm_enter_bounded(struct kvm_vcpu *kv);
void kvm_kick_fini(struct kvm_vcpu *kv);

/* The functions of vmm_backend_ops. [state.c] */
int kvm_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs);
int kvm_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs);
/* vmm_backend_ops.run and wake. [run.c, kick.c] */
int kvm_run(struct vcpu *vcpu, bool step);
void kvm_wake(struct vcpu *vcpu);

/* ---- CPUID (cpuid.c), MSRs (msr.c), debugging (debug.c), TSC (tsc.c) ---- */

int kvm_set_cpuid(struct vcpu *vcpu);
/* The VM's filter: MSRs that only KVM can hold stay in the kernel, all others come to the library.
 * Also after a policy of one vCPU has changed: the filter is the VM's, so it lets nothing through
 * that any vCPU has a policy for. Under vm->lock. */
int kvm_msr_policy(struct vcpu *vcpu);
int kvm_msr_filter_init(struct vm *vm);
/* After vm->irqchip_mode is known: with local APICs in the kernel some of their MSRs are too. */
int kvm_msr_filter_update(struct vm *vm);
/* KVM_EXIT_X86_RDMSR and _WRMSR: fills run->msr.error and .data. 0 done, 1 aborted (core_msr_access
 * returned CORE_IO_ABORT), or VMM_E_*. */
int kvm_msr_exit(struct kvm_vcpu *kv);
/* MSRs that neither the core nor the software CPU has, but the kernel: of its local APICs, and PV
 * ones. For the program, VMM_E_*; and a function for the software CPU's environment. */
bool kvm_msr_in_kernel(const struct vm *vm, uint32_t index);
int kvm_msr_get(struct kvm_vcpu *kv, uint32_t index, uint64_t *value);
int kvm_msr_set(struct kvm_vcpu *kv, uint32_t index, uint64_t value);
int kvm_msr_env(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled);
int kvm_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug);
/* Before KVM's vCPU gets another owner. */
void kvm_debug_fini(struct kvm_vcpu *kv);
/* KVM_EXIT_DEBUG: a BACKEND_* result of run; BACKEND_AGAIN: go on. Before a KVM_RUN with debug_pass
 * set, clear it and let the software CPU execute one instruction. */
int kvm_debug_exit(struct kvm_vcpu *kv);
uint64_t kvm_tsc(struct vm *vm);
void kvm_tsc_changed(struct vm *vm, bool runs);
void kvm_tsc_init(struct vm *vm);
/* Before each KVM_RUN: gives KVM the TSC offset if it has another one. 0, or VMM_E_*. */
int kvm_tsc_push(struct kvm_vcpu *kv);

/* ---- services of the kernel (irq.c, io.c) ---- */

extern const struct backend_host_ops kvm_host_ops;
int kvm_irq_init(struct vm *vm);
void kvm_irq_fini(struct vm *vm);
int kvm_io_init(struct vm *vm);
void kvm_io_fini(struct vm *vm);
/* Delivers what the kernel has collected of posted writes; before anything else of an exit. Out of
 * or in guest state as core_mmio_access. */
void kvm_io_drain(struct kvm_vcpu *kv);
/* Calls what waits for the EOI of lines of the kernel's controllers; in guest state. */
void kvm_irq_tell_eois(struct kvm_vcpu *kv);
/* KVM_EXIT_IOAPIC_EOI. */
void kvm_irq_eoi_exit(struct vm *vm, uint8_t vector);
/* With local APICs in the kernel: their state after reset or INIT, activity (KVM_SET_MP_STATE), and
 * the state for vcpu_get_msr/vcpu_set_msr of APIC MSRs. */
int kvm_lapic_reset(struct kvm_vcpu *kv);
int kvm_irq_get_activity(struct kvm_vcpu *kv, uint32_t *activity);
int kvm_irq_set_activity(struct kvm_vcpu *kv, uint32_t activity);
/* What vcpu_events says of an exception and an interrupt behind the fence when there was none. */
#define KVM_NO_EVENT 0xffu

/* With the world stopped: the program maps [gpa, gpa+len), so the library's own pages make room. */
void kvm_stub_yield(struct vm *vm, uint64_t gpa, uint64_t len);
/* The software CPU beside a local APIC in the kernel: after interp_vcpu_open. */
void kvm_irq_vcpu_init(struct kvm_vcpu *kv);
/* External interrupts for KVM, from the library's controllers: all of them, or those of the 8259s
 * in split mode. As core_intr_pending and core_intr_ack. */
bool kvm_intr_pending(struct kvm_vcpu *kv);
int kvm_intr_ack(struct kvm_vcpu *kv);
/* The software CPU is in HLT or waits for SIPI, and KVM must not run the guest: waits until
 * something ends that, or for a request. 0 or VMM_E_*. */
int kvm_irq_wait(struct kvm_vcpu *kv);
/* The MSRs of a local APIC in the kernel: 0 or VMM_E_NOENT. A write takes effect as the guest's. */
bool kvm_lapic_has_msr(const struct vm *vm, uint32_t index);
int kvm_lapic_get_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t *value);
int kvm_lapic_set_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t value);

#endif
