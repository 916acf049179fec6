/* SPDX-License-Identifier: BSD-2-Clause */
/* cpus.h: the CPUs of a bare machine: what threads.c and cpus.c know of each other. */
#ifndef CPUS_H
#define CPUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EFLAGS_IF 0x200u

struct thread;

/* GS of each CPU leads here. */
struct cpu {
    struct cpu *self;       /* at 0 */
    struct thread *current; /* at 8 */
    uint64_t resched;       /* at 16: the thread has had its time, but keeps the CPU */
    struct thread *idle;
    uint32_t id;
    _Atomic(void *) call; /* what another CPU wants to be called here: struct call */
};

/* Each is one instruction, so that the thread may move before and after. */
static inline struct cpu *this_cpu(void)
{
    struct cpu *cpu;

    __asm__ volatile("mov %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

static inline struct thread *current_thread(void)
{
    struct thread *t;

    __asm__ volatile("mov %%gs:8, %0" : "=r"(t));
    return t;
}

static inline bool this_cpu_resched(void)
{
    uint64_t resched;

    __asm__ volatile("mov %%gs:16, %0" : "=r"(resched));
    return resched;
}

static inline uint64_t irq_off(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags)::"memory");
    return flags;
}

static inline void irq_restore(uint64_t flags)
{
    if (flags & EFLAGS_IF)
        __asm__ volatile("sti" ::: "memory");
}

static inline bool irq_is_on(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
    return flags & EFLAGS_IF;
}

/* Starts the other CPUs, whose first thread is their idle one, and all clocks. */
void cpus_init(uint32_t ncpus, bool nmi, struct thread *first);

/* threads.c: */
void threads_interrupt(void);         /* the thread that runs here has had its time */
struct thread *threads_idle(void);    /* an idle thread for a CPU; NULL without memory */
_Noreturn void threads_be_idle(void); /* on a new CPU: its idle thread, on any stack */

#endif
