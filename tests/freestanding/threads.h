/* SPDX-License-Identifier: BSD-2-Clause */
/* threads.h: threads on the CPUs of a bare machine, which a clock takes away from each other. */
#ifndef THREADS_H
#define THREADS_H

#include <stdbool.h>
#include <stdint.h>

struct thread;

/* From host_main, after host_init: starts `ncpus` CPUs and changes host_ops to serve threads. With
 * `nmi`, kicks are NMIs, else interrupts. The caller is the first thread. */
void threads_init(uint32_t ncpus, bool nmi);
/* NULL without memory. */
struct thread *thread_start(void (*run)(void *arg), void *arg);
/* Waits until it has ended, and frees it. */
void thread_join(struct thread *t);
/* Ends the calling thread. */
_Noreturn void thread_exit(void);
/* Ends all threads but the calling one, wherever they are, and frees them. False: one holds its CPU
 * and does not give it back. */
bool threads_end_others(void);
/* Whether the calling thread is the one of threads_init. */
bool thread_is_first(void);

/* Sleeps while *word == seen (if there is a word), at most until that time of thread_now. */
void thread_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline);
void thread_yield(void);
uint64_t thread_now(void); /* nanoseconds */

#endif
