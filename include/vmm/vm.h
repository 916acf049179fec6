/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/vm.h: the virtual machine: creation, backend choice, life cycle, capabilities, counters. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <vmm/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vm;

#define VMM_MAX_VCPUS 64u

/* How `backends` of struct vm_config is read. */
#define VMM_SELECT_AUTO    0u /* the best backend that works; `backends` is ignored */
#define VMM_SELECT_PREFER  1u /* the first of `backends` that works, else as AUTO */
#define VMM_SELECT_REQUIRE 2u /* the first of `backends` that works, else VMM_E_NODEV */

#define VMM_IRQCHIP_NONE 0u /* no interrupt controllers: HLT exits, vcpu_inject delivers */
#define VMM_IRQCHIP_PC   1u /* 8259 pair, IOAPIC and a local APIC per vCPU */

/* Where the interrupt controllers of VMM_IRQCHIP_PC are. The guest sees no difference. With
 * VMM_VM_EXIT_HLT they are in the library: AUTO chooses that, the others are refused. */
#define VMM_IRQCHIP_MODE_AUTO 0u /* what is best with this backend on this machine */
#define VMM_IRQCHIP_MODE_USER 1u /* in the library */
#define VMM_IRQCHIP_MODE_SPLIT                                                                     \
    2u                             /* local APICs in the host's kernel, the others in the library  \
                                    */
#define VMM_IRQCHIP_MODE_KERNEL 3u /* all in the host's kernel */

/* Flags of struct vm_config. */
#define VMM_VM_EXIT_HYPERCALL 1u /* VMCALL/VMMCALL exit with VMM_EXIT_HYPERCALL, default #UD */
#define VMM_VM_EXIT_CPUID     2u /* CPUID exits with VMM_EXIT_CPUID instead of using the table */
#define VMM_VM_EXIT_HLT       4u /* HLT exits even when the library has interrupt controllers */
#define VMM_VM_KVM_PV         8u /* the default CPUID table offers KVM's clock and other PV features */
/* What a host's KVM is known to get wrong is left to it all the same, instead of being executed in
 * software: for tests and measurements. Without effect where there is nothing to leave to a host.
 */
#define VMM_VM_TRUST_HOST 16u
/* bt translates all code at once, instead of what is executed often: for tests. Without effect on
 * other backends. */
#define VMM_VM_TRANSLATE_ALL 32u
/* bt executes everything twice, translated and by the software CPU, and compares: vcpu_run fails
 * with VMM_E_INTERNAL at the first difference, which vm_last_error and vm_lockstep_report name.
 * Slow: for tests, and for reports of defects. Without effect on other backends. */
#define VMM_VM_LOCKSTEP 64u
/* bt generates only instructions that every x86-64 processor has: for tests. Without effect on
 * other backends. */
#define VMM_VM_BASELINE 128u
/* bt may execute 64-bit user code of the guest (CPL 3) directly, untranslated, in processes of its
 * own. Without effect on other backends; and where the host lacks what it takes, or forbids it, the
 * VM works the same without it. What a guest can see of it is in docs/direct.md; vm_stats.insns
 * does not count what is executed directly.
 *
 * For each address space that is executed so the library starts two processes by clone(), filtered
 * by seccomp, which end with the VM at the latest. Their exit signal is 0: wait() and waitpid()
 * without __WALL do not see them, and SIGCHLD is not raised. The program must not forbid itself (by
 * seccomp, say with SIGSYS) the system calls that docs/api.md names for it.
 *
 * Only with memory from vm_mem_alloc, which is that of a memfd then (one descriptor for each
 * region, and shared with the children of a fork), and from vm_mem_map_fd, which keeps a duplicate
 * of the descriptor of a regular file. What is in memory from vm_mem_map is translated as before;
 * so is everything while the vCPU has an instruction budget, a breakpoint, a watchpoint or a single
 * step to obey, and with VMM_VM_LOCKSTEP. */
#define VMM_VM_DIRECT 256u

/* The least and the largest vm_config.code_cache. */
#define VMM_CODE_CACHE_MIN (1u << 20)
#define VMM_CODE_CACHE_MAX (1u << 30)

/* It works, but slowly or with much repair: AUTO takes it only if nothing else works. */
#define VMM_BACKEND_DEGRADED 1u

/* One backend's answer to "can you run here?". */
struct vmm_backend_report {
    uint32_t size;
    int32_t result; /* 0 if usable, else VMM_E_* */
    char name[16];
    char reason[200]; /* what was found, or why it cannot run */
    uint32_t flags;   /* VMM_BACKEND_* */
    uint32_t reserved;
};

struct vm_config {
    uint32_t size;
    uint32_t flags;                     /* VMM_VM_* */
    uint32_t select;                    /* VMM_SELECT_* */
    uint32_t irqchip;                   /* VMM_IRQCHIP_* */
    const char *const *backends;        /* NULL-terminated names; copied */
    uint32_t max_vcpus;                 /* 0: 1; at most VMM_MAX_VCPUS */
    uint32_t nreports;                  /* capacity of `reports` */
    struct vmm_backend_report *reports; /* NULL, or filled; [0].size is that of all elements */
    struct vmm_error *error;            /* NULL, or filled when vm_create fails */
    uint64_t tsc_khz;                   /* guest TSC frequency, 1 MHz to 100 GHz; 0: the host's */
    uint32_t irqchip_mode;              /* VMM_IRQCHIP_MODE_*; AUTO without an irqchip */
    uint32_t reserved;
    /* Bytes of generated code that each vCPU keeps (bt), VMM_CODE_CACHE_MIN to _MAX; 0: 64 MiB.
     * When it is full, code is dropped and generated again: a small one costs time only. Decoded
     * instructions take up to twice as much beside it, or 64 MiB if that is more. */
    uint64_t code_cache;
};

/*
 * Creates a VM without memory, vCPUs or devices.
 *
 * `config` may be NULL for all defaults. Returns 0 and the VM in *out; VMM_E_INVAL for a bad
 * config, VMM_E_UNSUPPORTED for an option that the chosen backend cannot honour,
 * VMM_E_NODEV if no allowed backend works, VMM_E_NOMEM also if one lacks just that, VMM_E_STATE in
 * the freestanding build before vmm_host_init. ANY. Since 0.1.
 */
int vm_create(const struct vm_config *config, struct vm **out);

/*
 * Destroys the VM with all its vCPUs, regions, registrations and devices; each `release`
 * callback is called once. NULL is allowed. QUIET: returns VMM_E_BUSY (and destroys nothing)
 * while a vCPU is inside vcpu_run.
 */
int vm_destroy(struct vm *vm);

/* Fills *err with the detail of the VM's last failure on any thread. ANY. */
void vm_last_error(struct vm *vm, struct vmm_error *err);

/*
 * From now on vcpu_run returns VMM_EXIT_STOPPED, in running vCPUs within 10 ms, until
 * vm_resume. Does not wait. ANY+SIG.
 */
void vm_stop(struct vm *vm);

/*
 * Holds all vCPUs inside vcpu_run and stops the guest clock; returns when no guest instruction
 * and no callback runs any more. vcpu_kick and vm_stop still make vcpu_run return. VMM_E_STATE if
 * the VM is paused already, or from a callback. ANY.
 */
int vm_pause(struct vm *vm);

/* Undoes vm_pause and vm_stop. VMM_E_STATE if neither is in force. ANY. */
int vm_resume(struct vm *vm);

/*
 * Power-on reset: vCPUs to their reset state (all but the first wait for SIPI when there is an
 * irqchip), every device's reset callback, interrupt controllers; memory keeps its content. Exits
 * that were requested before are forgotten; kicks and vm_stop stay in force. QUIET.
 */
int vm_reset(struct vm *vm);

/*
 * Makes vcpu_run return `reason` (VMM_EXIT_POWEROFF, _RESET, _PANIC or _USER) once on each vCPU,
 * with `value` in the exit's user.value. For device callbacks. Up to four different requests wait
 * for each vCPU; then the latest replaces the one before it. VMM_E_INVAL for other reasons. ANY.
 */
int vm_request_exit(struct vm *vm, uint32_t reason, uint64_t value);

/* Nanoseconds of guest time: host monotonic time since vm_create, without pauses. ANY. */
uint64_t vm_clock(struct vm *vm);

/* Capabilities that differ between backends. */
#define VMM_CAP_MEM_EXEC       1u  /* execute permission of regions is enforced */
#define VMM_CAP_INSN_BUDGET    2u  /* instruction budgets are exact */
#define VMM_CAP_STEP           4u  /* vcpu_step and VMM_EXIT_STEP */
#define VMM_CAP_BREAKPOINT     8u  /* breakpoints */
#define VMM_CAP_WATCHPOINT     16u /* watchpoints */
#define VMM_CAP_EXIT_CPUID     32u
#define VMM_CAP_EXIT_HYPERCALL 64u
#define VMM_CAP_TSC_KHZ        128u /* vm_config.tsc_khz can differ from the host's */
#define VMM_CAP_HW             256u /* uses hardware virtualization */
#define VMM_CAP_IRQCHIP_SPLIT  512u /* VMM_IRQCHIP_MODE_SPLIT */
#define VMM_CAP_IRQCHIP_KERNEL 1024u
#define VMM_CAP_KVM_PV         2048u  /* VMM_VM_KVM_PV */
#define VMM_CAP_CPUID_TABLE    4096u  /* the guest sees the CPUID table and nothing else */
#define VMM_CAP_TSC_OFFSET     8192u  /* RDTSC follows what is written to the TSC, and vm_pause */
#define VMM_CAP_HYPERCALL_UD   16384u /* without VMM_VM_EXIT_HYPERCALL, VMCALL raises #UD */
#define VMM_CAP_DIRTY_EXACT    32768u /* vm_dirty_get shows no page that was only read */

struct vm_caps {
    uint32_t size;
    uint32_t max_vcpus;
    uint64_t caps;         /* VMM_CAP_* */
    uint32_t gpa_bits;     /* width of guest-physical addresses */
    uint32_t page_size;    /* alignment of memory regions, in bytes */
    uint32_t xsave_size;   /* bytes that vcpu_get_xsave needs */
    uint32_t irqchip_mode; /* VMM_IRQCHIP_MODE_*: which is used; AUTO: there is no irqchip */
    uint64_t tsc_khz;
    char backend[16];
};

/* ANY. VMM_E_INVAL if caps->size is not set. */
int vm_get_caps(struct vm *vm, struct vm_caps *caps);

/* Counters since vm_create, summed over the vCPUs that there are: one that is destroyed takes its
 * counts with it. Not exact while vCPUs run. */
struct vm_stats {
    uint32_t size;
    uint32_t nvcpus;
    uint64_t insns;      /* guest instructions retired (software backends) */
    uint64_t exits;      /* returns from vcpu_run */
    uint64_t mmio;       /* MMIO accesses delivered to callbacks */
    uint64_t pio;        /* port accesses delivered to callbacks */
    uint64_t irqs;       /* external interrupts taken by the guest */
    uint64_t exceptions; /* exceptions delivered to the guest */
    uint64_t halts;      /* HLT or MWAIT waits */
    uint64_t tlb_misses; /* software TLB fills */
    uint64_t tlb_flushes;
    uint64_t blocks_decoded; /* blocks decoded or translated */
    uint64_t blocks_flushed; /* blocks dropped: self-modifying code, unmap or a full cache */
    uint64_t block_lookups;  /* lookups that missed the fast path */
    uint64_t thunks;         /* generated thunks (interp) */
    uint64_t hw_exits;       /* exits of the hardware (or the host's kernel) to the library */
    uint64_t repairs;        /* instructions that a hardware backend had the software CPU execute */
    uint64_t translations;   /* blocks translated to host code (bt) */
    uint64_t code_flushes;   /* times that all translations were dropped, for want of room (bt) */
    uint64_t handler_calls;  /* from translated code to the software CPU (bt) */
    uint64_t regions;        /* groups of blocks translated together (bt) */
    uint64_t chains;         /* jumps from translation to translation that became direct (bt) */
    uint64_t code_bytes;     /* host code and its tables, as much as there is now (bt) */
    uint64_t tlb_l2_hits;    /* misses of the software TLB that its second level served (bt) */
    uint64_t tlb_read_misses; /* tlb_misses by the access that needed a page walk ... */
    uint64_t tlb_write_misses;
    uint64_t tlb_fetch_misses; /* ... of instructions */
    uint64_t direct_entries;   /* times that user code was entered directly (VMM_VM_DIRECT) ... */
    uint64_t direct_faults;    /* ... page faults of such code that mapped pages */
    uint64_t direct_pages;     /* ... pages mapped for it */
    uint64_t direct_spaces;    /* ... address spaces, each with processes of its own, begun */
};

/* ANY. VMM_E_INVAL if stats->size is not set. */
int vm_get_stats(struct vm *vm, struct vm_stats *stats);

/* How often something happened. */
struct vmm_count {
    uint32_t size;
    uint32_t id; /* exits: VMM_EXIT_*; else 0 */
    uint64_t count;
    char name[24];
};

/*
 * The returns from vcpu_run by reason, and (bt) the instructions that translated code left to the
 * software CPU by mnemonic, slow memory accesses included: fills up to `n` counts, the largest
 * first, and returns how many there are that are not 0. counts[0].size must be set, and is that of
 * all elements: VMM_E_INVAL. Summed as in struct vm_stats. ANY.
 */
int vm_get_exit_counts(struct vm *vm, struct vmm_count *counts, uint32_t n);
int vm_get_fallback_counts(struct vm *vm, struct vmm_count *counts, uint32_t n);

/*
 * With VMM_VM_LOCKSTEP: what differed first, with the code around it, as lines of text for people;
 * NULL if nothing did. Lives as long as the VM. ANY.
 */
const char *vm_lockstep_report(struct vm *vm);

/*
 * Asks each backend of this build whether it works here; fills up to `n` reports, best first, and
 * returns the number of backends. reports[0].size must be set, and is that of all elements:
 * VMM_E_INVAL. VMM_E_STATE in the freestanding build before vmm_host_init. ANY.
 */
int vmm_backend_probe(struct vmm_backend_report *reports, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
