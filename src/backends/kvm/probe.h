/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe.h: finding out what the host's KVM can do: for probe*.c and their tests. */
#ifndef BACKENDS_KVM_PROBE_H
#define BACKENDS_KVM_PROBE_H

#include <time.h>

#include "backends/kvm/kvm.h"

/* Probes afresh, whatever kvm_host() has found; all of *host is written. Returns host->result. */
int kvm_probe_host(struct kvm_host *host);
/* Frees what `host` has. */
void kvm_probe_free(struct kvm_host *host);

/* Sets host->result, ->os_errno and ->reason; returns `result`. */
__attribute__((format(printf, 4, 5))) int kvm_probe_refuse(struct kvm_host *host, int result,
                                                           int os_errno, const char *format, ...);
/* The same for a system call that failed: "what: its error". */
int kvm_probe_refuse_errno(struct kvm_host *host, int os_errno, const char *what);

/* Fills what only running guests can show: bad, the speeds, the irqchip members and
 * KVM_HAS_TSC_OFFSET. `dev` is /dev/kvm; the capabilities are filled already. host->result.
 * [probe_guests.c] */
int kvm_probe_guests(int dev, struct kvm_host *host);
/* Whether the local APICs of the kernel, with its other controllers or (split) without, interrupt a
 * guest at CPL 0 and at CPL 3. *ok is the answer; host->result. [probe_irq.c] */
int kvm_probe_irqchip(int dev, struct kvm_host *host, bool split, bool *ok);

/* ---- a VM for small guests (probe_lab.c) ---- */

/*
 * One VM with one vCPU and 64 KiB of memory, in which small guests run one after the other, each
 * from a state of its own. All of them end at once on a KVM that works; one that does not end is
 * interrupted, by a timer of this thread whose signal is unblocked only inside KVM_RUN.
 *
 * Whatever the processor delivers arrives at LAB_STUBS + vector, where each byte is an instruction
 * that exits: HLT, or with interrupt controllers in the kernel, which keep HLT, OUT to port DX.
 * So RIP tells the vector, and what was pushed is at RSP.
 */
#define LAB_SIZE      0x10000u
#define LAB_STUBS     0xa000u /* supervisor */
#define LAB_SYSCALL   0xa800u /* entry points of SYSCALL and SYSENTER, in the same page */
#define LAB_SYSENTER  0xa900u
#define LAB_STACK     0xc000u /* top of the stack of CPL 0; supervisor */
#define LAB_CODE      0xc000u /* pages for all */
#define LAB_USTACK    0xe000u
#define LAB_DATA      0xe000u
#define LAB_DATA2     0xf000u
#define LAB_ALIAS     0x1ff000u /* 64-bit: a second address of LAB_DATA, through LAB_ALIAS_PTE */
#define LAB_ALIAS32   0x400000u /* PAGING32 and PAE: all memory once more */
#define LAB_PT        0x4000u
#define LAB_ALIAS_PTE (LAB_PT + 511 * 8)
#define LAB_PORT      0x510u /* of the OUT */
#define LAB_CS        0x08u  /* selectors */
#define LAB_USER_CS   0x33u
#define LAB_USER_SS   0x2bu
#define LAB_USER_CS32 0x23u
#define LAB_UD        6u /* vector of #UD, in which guests for both CPLs end */
#define LAB_PTE_USER  7u /* present, writable, user */

enum lab_mode {
    LAB_REAL,
    LAB_PROTECTED,
    LAB_PAGING32,
    LAB_PAE,
    LAB_COMPAT,      /* at CPL 0 */
    LAB_COMPAT_USER, /* at CPL 3 */
    LAB_KERNEL,      /* 64-bit, CPL 0 */
    LAB_USER,        /* 64-bit, CPL 3 */
};

enum lab_irqchip { LAB_IRQ_NONE, LAB_IRQ_SPLIT, LAB_IRQ_KERNEL };

/* lab.exit beyond KVM_EXIT_*. */
#define LAB_EXIT_HANG  0x10000u /* did not end */
#define LAB_EXIT_ERROR 0x10001u /* KVM_RUN, or setting the state, failed: .run_errno */

struct kvm_lab {
    struct kvm_host *host;
    enum lab_irqchip irqchip;
    int vm, cpu;
    struct kvm_run *run;
    uint8_t *mem;
    struct kvm_cpuid2 *cpuid; /* less than what KVM supports */
    struct kvm_sregs initial; /* after creation */
    struct kvm_regs regs;     /* to start with; then, with sregs, those at the exit */
    struct kvm_sregs sregs;
    uint32_t exit; /* KVM_EXIT_* or LAB_EXIT_* */
    int run_errno;
    uint64_t limit_ns, cpu_ns; /* CPU time: that a guest may take, and that the last one took */
    timer_t timer;
    bool has_timer, masked;
    sigset_t old_mask;
    siginfo_t foreign; /* a signal of the program's that the watch has met */
    bool has_foreign;
};

/* host->result. lab_close also after a failure. */
int lab_open(struct kvm_lab *lab, int dev, struct kvm_host *host, enum lab_irqchip irqchip);
void lab_close(struct kvm_lab *lab);

/* Puts the code at LAB_CODE and the start state of the mode into regs and sregs. */
void lab_prepare(struct kvm_lab *lab, enum lab_mode mode, const void *code, size_t len);
/* Runs from regs and sregs to the first exit. What fails for lack of memory is not the guest's
 * fault and goes to host->result; all else is lab->exit. */
void lab_run(struct kvm_lab *lab);
/* Its first half: gives KVM the state. False: it does not take it, as if the guest had failed. */
bool lab_load(struct kvm_lab *lab);
/* Goes on to the next exit. */
void lab_continue(struct kvm_lab *lab);
/* Whether the last exit is that of the stub of `vector`, at CPL 0. */
bool lab_arrived(const struct kvm_lab *lab, uint32_t vector);
/* The same for the entry point at `address`. */
bool lab_arrived_at(const struct kvm_lab *lab, uint64_t address);
/* Item `i` of the stack at the exit. */
uint64_t lab_stack(const struct kvm_lab *lab, unsigned i);
void lab_poke(struct kvm_lab *lab, uint32_t addr, uint64_t value);
uint64_t lab_peek(const struct kvm_lab *lab, uint32_t addr);
/* An ioctl for the guests: 0 or more, or a negative errno; ENOMEM goes to host->result too. */
int lab_ioctl(struct kvm_lab *lab, int fd, unsigned long request, const void *arg,
              const char *name);
/* The leaf (of index 0) in lab->cpuid, or NULL. */
const struct kvm_cpuid_entry2 *lab_cpuid(const struct kvm_lab *lab, uint32_t function);
int lab_set_msr(struct kvm_lab *lab, uint32_t index, uint64_t value);

#endif
