/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/vcpu.h: virtual CPUs: running them, their exits, state, events and policies. */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <vmm/regs.h>
#include <vmm/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vcpu;

/* Exit reasons: numbered ranges with gaps; a name each in vmm_exit_name. */
#define VMM_EXITS(X)                                                                               \
    X(NONE, 0)                                                                                     \
    X(INTERRUPTED, 1) /* vcpu_kick */                                                              \
    X(BUDGET, 2)      /* vcpu_set_budget used up */                                                \
    X(STOPPED, 3)     /* vm_stop is in force */                                                    \
    X(MMIO, 16)       /* u.mmio: nobody handled the access, or a callback said EXIT */             \
    X(PIO, 17)        /* u.pio: likewise for a port */                                             \
    X(MEM_FAULT, 18)  /* u.fault: fetch from MMIO or from a region without X */                    \
    X(HLT, 32)                                                                                     \
    X(SHUTDOWN, 33)   /* triple fault */                                                           \
    X(IRQ_WINDOW, 34) /* asked for with vcpu_request_irq_window */                                 \
    X(HYPERCALL, 48)                                                                               \
    X(MSR, 49)                                                                                     \
    X(CPUID, 50)                                                                                   \
    X(BREAKPOINT, 64)                                                                              \
    X(STEP, 65)                                                                                    \
    X(WATCH, 66)                                                                                   \
    X(EXCEPTION, 67)                                                                               \
    X(EMUL_MISS, 80)  /* an instruction that the library cannot execute; bytes in insn */          \
    X(ENTRY_FAIL, 81) /* impossible register state; u.entry.text names the check */                \
    X(POWEROFF, 96)                                                                                \
    X(RESET, 97)                                                                                   \
    X(PANIC, 98)                                                                                   \
    X(USER, 99)

enum vmm_exit_reason {
#define VMM_EXIT_ENUM(name, value) VMM_EXIT_##name = (value),
    VMM_EXITS(VMM_EXIT_ENUM)
#undef VMM_EXIT_ENUM
};

/* "MMIO" for VMM_EXIT_MMIO; "?" for an unknown reason. ANY+SIG. */
const char *vmm_exit_name(uint32_t reason);

#define VMM_ACCESS_READ  0u
#define VMM_ACCESS_WRITE 1u
#define VMM_ACCESS_EXEC  2u

/* CPU mode in an exit. */
#define VMM_MODE_REAL     0u
#define VMM_MODE_VM86     1u
#define VMM_MODE_PROT16   2u
#define VMM_MODE_PROT32   3u
#define VMM_MODE_COMPAT16 4u
#define VMM_MODE_COMPAT32 5u
#define VMM_MODE_LONG64   6u

struct vcpu_exit_mmio {
    uint64_t gpa;
    uint64_t data;  /* write: the value; read: the caller stores the answer here */
    uint8_t len;    /* 1, 2, 4 or 8 */
    uint8_t access; /* VMM_ACCESS_READ or _WRITE */
    uint8_t reserved[6];
};

struct vcpu_exit_pio {
    uint64_t data; /* as for mmio */
    uint16_t port;
    uint8_t len; /* 1, 2 or 4 */
    uint8_t access;
    uint8_t reserved[4];
};

struct vcpu_exit_fault {
    uint64_t gpa;
    uint64_t gva;
    uint32_t access; /* VMM_ACCESS_* */
    uint32_t reserved;
};

struct vcpu_exit_msr {
    uint32_t index;
    uint32_t access;
    uint64_t value; /* write: the value; read: the caller stores the answer here */
    uint32_t fault; /* the caller sets 1 to raise #GP instead */
    uint32_t reserved;
};

struct vcpu_exit_cpuid {
    uint32_t leaf;
    uint32_t subleaf;
    uint32_t eax, ebx, ecx, edx; /* filled from the table; the caller may change them */
};

struct vcpu_exit_debug {
    uint64_t dr6;  /* cause bits, as in DR6 */
    uint64_t addr; /* linear address of the access or instruction */
    uint32_t vector;
    uint32_t error;
    uint32_t index; /* number of the break- or watchpoint */
    uint32_t reserved;
};

struct vcpu_exit_entry {
    char text[128];
};

struct vcpu_exit_user {
    uint64_t value;
};

/*
 * Why vcpu_run returned. Set size once. After MMIO, PIO, MSR and CPUID reads the caller stores the
 * answer and passes the same struct to the next vcpu_run, which completes the instruction. What was
 * not answered reads as all ones.
 */
struct vcpu_exit {
    uint32_t size;
    uint32_t reason; /* VMM_EXIT_* */
    /* Of the instruction that exits; behind it for HLT, HYPERCALL, WATCH and STEP; of the next one
     * for exits that no instruction causes. */
    uint64_t rip;
    uint32_t mode; /* VMM_MODE_* */
    uint8_t cpl;
    uint8_t insn_len; /* bytes valid in insn, 0 if not known */
    uint8_t reserved[2];
    uint8_t insn[16];
    union {
        struct vcpu_exit_mmio mmio;
        struct vcpu_exit_pio pio;
        struct vcpu_exit_fault fault;
        struct vcpu_exit_msr msr;
        struct vcpu_exit_cpuid cpuid;
        struct vcpu_exit_debug debug;
        struct vcpu_exit_entry entry;
        struct vcpu_exit_user user;
        uint64_t pad[24];
    } u;
};

/*
 * Creates vCPU number `id` (0 .. max_vcpus-1; also its APIC id) in its reset state: real mode at
 * F000:FFF0. With an irqchip, ids above 0 wait for SIPI. `data` is returned by vcpu_data.
 * VMM_E_RANGE, VMM_E_EXIST, VMM_E_NOMEM, VMM_E_PERM (the host allows no executable memory, which
 * software backends need); VMM_E_BUSY while another thread destroys the one with
 * this number or resets the VM. ANY.
 */
int vcpu_create(struct vm *vm, uint32_t id, void *data, struct vcpu **out);

/* VMM_E_BUSY while a thread uses it, inside vcpu_run or another function of class OWNER. After it
 * the functions of that class refuse the handle with VMM_E_STATE, until vcpu_create has made the
 * same one valid again. ANY. */
int vcpu_destroy(struct vcpu *vcpu);

struct vm *vcpu_vm(struct vcpu *vcpu); /* ANY */
uint32_t vcpu_id(struct vcpu *vcpu);   /* ANY */
void *vcpu_data(struct vcpu *vcpu);    /* ANY */

/* vCPU `id`, or NULL. ANY. */
struct vcpu *vm_vcpu(struct vm *vm, uint32_t id);

/* The vCPU on whose behalf the calling thread runs a callback of `vm`, or NULL. ANY. */
struct vcpu *vcpu_current(struct vm *vm);

/*
 * Runs guest code on the calling thread until an exit that nobody inside the library handles.
 * Timers, interrupts and halted waiting (with an irqchip) are handled inside. Returns 0 with *exit
 * filled; VMM_E_BUSY if another thread runs it, VMM_E_INVAL for a bad struct, VMM_E_STATE from
 * inside a callback of the VM; never a negative value because of something that the guest did.
 * OWNER.
 */
int vcpu_run(struct vcpu *vcpu, struct vcpu_exit *exit);

/*
 * Makes the current or, if none is under way, the next vcpu_run return VMM_EXIT_INTERRUPTED
 * soon (goal: under 1 ms; any pending completion stays pending). Several kicks before
 * that return count as one. ANY+SIG.
 */
void vcpu_kick(struct vcpu *vcpu);

/*
 * Limits each following vcpu_run: after `insns` retired guest instructions (exact where
 * VMM_CAP_INSN_BUDGET) or `ns` of wall time it returns VMM_EXIT_BUDGET. 0 is no limit. OWNER.
 */
int vcpu_set_budget(struct vcpu *vcpu, uint64_t insns, uint64_t ns);

/* Executes exactly one instruction (or delivers one event) and returns VMM_EXIT_STEP, or another
 * exit if the instruction causes one (HLT is a step; the halt exits then). VMM_E_UNSUPPORTED
 * without VMM_CAP_STEP. OWNER. */
int vcpu_step(struct vcpu *vcpu, struct vcpu_exit *exit);

/* Reads or writes the groups named in regs->groups. Writes are checked as a VM entry would check
 * them (reserved bits, canonical addresses, mode consistency): VMM_E_INVAL and nothing changed.
 * Another value of RIP drops an instruction that waits for its completion (struct vcpu_exit).
 * OWNER; not while it runs (VMM_E_BUSY), except from its own callbacks: what those write is there
 * when the rest of their instruction is executed, and RIP cannot be moved (VMM_E_STATE). */
int vcpu_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs);
int vcpu_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs);

/* x87, SSE, AVX ... state as an XSAVE area in standard form (SDM Vol. 1 13.4). `len` at least
 * vm_caps.xsave_size for get (VMM_E_NOSPACE); 576 or more for set. VMM_E_INVAL for components and
 * bits that the CPU lacks: nothing changed. OWNER. */
int vcpu_get_xsave(struct vcpu *vcpu, void *area, uint32_t len);
int vcpu_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len);

/* One MSR, whatever the policy for the guest. VMM_E_NOENT if it is not modelled; a value that it
 * cannot hold is VMM_E_INVAL, for MSRs of the local APIC VMM_E_NOENT too. OWNER. */
int vcpu_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value);
int vcpu_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value);

/* Modes that vcpu_set_mode prepares. */
#define VMM_SETUP_REAL   0u /* real mode: cs.base = rip & ~0xffff, other segments 0 */
#define VMM_SETUP_PROT32 1u /* flat 32-bit protected mode, paging off; no GDT in memory needed */
#define VMM_SETUP_LONG64 2u /* 64-bit mode at CPL 0 on the page table at cr3 */
#define VMM_SETUP_USER64 3u /* 64-bit mode at CPL 3 on the page table at cr3 */

/*
 * Puts the vCPU into a ready-made state: flat segments, interrupts off, other registers zero, no
 * instruction that waits for its completion. IA32_APIC_BASE and the TSC stay.
 * `cr3` is used by the long modes; if it is 0, identity page tables for the first 4 GiB are written
 * into guest memory at `tables` (6 pages; 0: VMM_E_INVAL). OWNER.
 */
struct vcpu_setup {
    uint32_t size;
    uint32_t mode; /* VMM_SETUP_* */
    uint64_t rip;
    uint64_t rsp;
    uint64_t cr3;
    uint64_t tables;
};
int vcpu_set_mode(struct vcpu *vcpu, const struct vcpu_setup *setup);

/* Translates a guest-virtual address as a supervisor data read, without side effects (no A/D bits).
 * A guest fault is a result: *ok = 0. OWNER. */
int vcpu_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, int *ok);

/* Guest-virtual copies for debuggers: as a supervisor, ignoring write protection. VMM_E_RANGE if
 * part of it is not mapped to memory. OWNER. */
int vcpu_read_virt(struct vcpu *vcpu, uint64_t gva, void *buf, uint64_t len);
int vcpu_write_virt(struct vcpu *vcpu, uint64_t gva, const void *buf, uint64_t len);

/* Events to inject. */
#define VMM_EVENT_INTERRUPT 0u /* external interrupt; needs an open window, else VMM_E_STATE */
#define VMM_EVENT_NMI       2u /* pended; taken when NMIs are not blocked */
#define VMM_EVENT_EXCEPTION 3u /* delivered before the next instruction, whatever RFLAGS.IF */

struct vmm_event {
    uint32_t size;
    uint8_t type; /* VMM_EVENT_* */
    uint8_t vector;
    uint8_t has_error;
    uint8_t has_cr2;
    uint32_t error;
    uint32_t reserved;
    uint64_t cr2; /* for #PF, if has_cr2 */
};

/* Queues an event. VMM_E_BUSY if one is queued already (an NMI: if one is pending), VMM_E_STATE for
 * an interrupt without an open window, VMM_E_INVAL for one that cannot be: error codes must be
 * there exactly for exceptions that have one in the current mode. OWNER. */
int vcpu_inject(struct vcpu *vcpu, const struct vmm_event *event);

/* vcpu_run returns VMM_EXIT_IRQ_WINDOW as soon as an external interrupt could be taken. One
 * shot; `on` = 0 takes the request back. OWNER. */
int vcpu_request_irq_window(struct vcpu *vcpu, int on);

/* 1 if an external interrupt could be taken now, else 0. OWNER. */
int vcpu_irq_window_open(struct vcpu *vcpu);

/* ---- CPUID ---- */

#define VMM_CPUID_SUBLEAF 1u /* the entry is for this subleaf only */

struct vmm_cpuid {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
    uint32_t flags; /* VMM_CPUID_* */
    uint32_t reserved;
};

/*
 * The CPUID table that new vCPUs of this VM get: what the host CPU has, the backend can run and
 * the library models. Fills up to *n entries and sets *n to the number there are (VMM_E_NOSPACE if
 * more than fit). ANY.
 */
int vm_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n);

/* Replaces the table (copied; at most 256 entries). Dynamic bits (OSXSAVE, APIC id, current XSAVE
 * size) stay the library's. Features that are not in the default table are refused
 * (VMM_E_UNSUPPORTED, the bit named in the error). OWNER. */
int vcpu_set_cpuid(struct vcpu *vcpu, const struct vmm_cpuid *entries, uint32_t n);

/* ---- MSR policy ---- */

#define VMM_MSR_DEFAULT 0u /* modelled MSRs work, others raise #GP */
#define VMM_MSR_DENY    1u /* #GP even if it is modelled */
#define VMM_MSR_IGNORE  2u /* reads 0, writes are dropped */
#define VMM_MSR_EXIT    3u /* VMM_EXIT_MSR */

/* Sets the policy for the MSRs first..last; a later call overrides an earlier one. At most 64
 * ranges (VMM_E_LIMIT; those that a later one covers do not count). OWNER. */
int vcpu_msr_policy(struct vcpu *vcpu, uint32_t first, uint32_t last, uint32_t policy);

#ifdef __cplusplus
}
#endif
#endif
