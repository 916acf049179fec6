/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/stub.h: a process that does nothing but run guest user code. */
#ifndef BACKENDS_SHADOW_STUB_H
#define BACKENDS_SHADOW_STUB_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/shadow/stub_text.h"

/*
 * A stub is two tasks that share one address space, in which nothing is mapped but a few pages of
 * the stub's own and what the owner has put there:
 *
 * - the guest task runs guest code. Its seccomp filter knows three system calls, each at one place
 *   of the stub's code: the one with which its signal handler tells the owner that it has stopped,
 *   arch_prctl for faults of CPUID, and rt_sigreturn. Everything else, whatever the guest executes,
 *   becomes a signal. A task that has told its owner is inside the kernel until the owner answers
 * (SECCOMP_RET_USER_NOTIF), so code that jumps into the stub's pages cannot go on while the owner
 * thinks that it has stopped.
 * - the mapper executes mmap and munmap for the owner, while the guest task is stopped. It waits
 * for its orders in the same way, and has no memory that the guest could write to but the word in
 *   which it reports.
 *
 * Registers are exchanged as a signal frame, which lies in memory that the owner sees too. The
 * guest may write to it, as to all that is writable there: what the owner takes from it are
 * registers of guest user code, and nothing else.
 *
 * The tasks are children of the process, with exit signal 0, and die with the thread that has
 * made them. They share the table of descriptors, of which they can do nothing but map files that
 * the owner names.
 */

/* A system call of the mapper. */
struct stub_cmd {
    uint64_t nr, arg[6];
};
#define STUB_CMDS 250

/* What the guest task says when it stops; the owner may change it before it goes on. */
struct stub_state {
    uint64_t fs_base, gs_base;
    uint16_t ds, es, fs, gs;
    uint64_t context; /* address of the struct stub_context there */
    int64_t error;    /* the mapper's: what the last command that failed has returned, or 0 */
    uint32_t signal;
    /* of the start: descriptors, or what is below 0 */
    _Atomic int32_t guest_listener, mapper_listener;
    int32_t guest_pid, tsc_error, cpuid_error;
    uint32_t cpuid; /* 1: CPUID raises #GP from now on, 2: no longer, 0: as before */
    uint64_t info;  /* address of the siginfo_t there */
};

/* struct ucontext of the kernel (arch/x86/include/uapi/asm/sigcontext.h): what a frame is made of.
 */
struct stub_context {
    uint64_t flags, link, stack[3];
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
    uint64_t eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, trap, oldmask, cr2;
    uint64_t xsave; /* address there of an XSAVE area, standard format */
    uint64_t reserved[8];
    uint64_t mask;
};

struct stub_ctl;

struct stub {
    uint8_t *mem;  /* its own pages, as the owner has them */
    uint64_t base; /* where they are there */
    struct stub_ctl *ctl;
    struct stub_state *state;
    int fd;
    struct stub_task {
        int pid;
        int listener;    /* where it tells */
        uint64_t notice; /* it waits for an answer to this; 0: it runs */
    } mapper, guest;
    bool lost;            /* it cannot be used any more ... */
    bool dying;           /* ... and its tasks end by themselves */
    bool tsc_faults;      /* RDTSC and RDTSCP raise #GP there */
    bool cpuid_faults;    /* CPUID raises #GP there, ... */
    bool cpuid_can_fault; /* ... if stub_fault_cpuid wants it, which may not be possible */
};

/* Starts one, stopped, at a random place where the top page table `top` of 512 entries, if it is
 * not NULL, has nothing. 0 or an errno; EADDRINUSE: there is no such place. Not for signal
 * handlers. */
int stub_create(struct stub *s, const uint64_t *top);
/* Kills it; `s` may be all zero. */
void stub_kill(struct stub *s);
/* Behind stub_kill, when nobody calls stub_kick any more. */
void stub_destroy(struct stub *s);

/* The commands to be written before stub_map. */
struct stub_cmd *stub_cmds(struct stub *s);
/* Executes the first n commands. 0, the errno of the last that failed, or ESRCH: it is lost. */
int stub_map(struct stub *s, unsigned n);

/* Where the registers of the stopped guest task are; NULL: it has destroyed its frame. */
struct stub_context *stub_context(const struct stub *s);
/* What the signal that has stopped it is about; NULL likewise. */
const siginfo_t *stub_info(const struct stub *s);
/* The XSAVE area that goes with it, of at most *len bytes; NULL likewise. */
uint8_t *stub_xsave(const struct stub *s, const struct stub_context *c, uint32_t *len);

/* Lets the guest task run until it stops, or until os_now is `deadline`, when it is kicked. */
enum stub_end {
    STUB_STOPPED,
    STUB_GONE, /* there is no guest task any more, and it has executed nothing */
    STUB_LOST, /* it died while it was running, or would not stop: its registers are lost */
};
enum stub_end stub_run(struct stub *s, uint64_t deadline);
/* Whether CPUID is to raise #GP there, from the next stub_run on; at first it does not. As the CPU
 * has to be told at each change of tasks, runs are longer then. */
void stub_fault_cpuid(struct stub *s, bool on);
/* Makes the guest task with that process ID, if it is not 0, stop soon, or as soon as it runs. Any
 * thread, and signal handlers. */
void stub_kick(int guest);

#endif
