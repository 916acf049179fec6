/* SPDX-License-Identifier: BSD-2-Clause */
/* core/os.h: all that the core needs of its host: time, locks, waiting, pages. One file per host
 * implements it (os_linux.c;
 * freestanding/os_host.c for ring 0). */
#ifndef CORE_OS_H
#define CORE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct os_mutex {
    uint64_t storage[5]; /* holds the host's mutex; checked by a static assertion */
};

int os_mutex_init(struct os_mutex *m);
void os_mutex_fini(struct os_mutex *m);
void os_mutex_lock(struct os_mutex *m);
void os_mutex_unlock(struct os_mutex *m);

/* Whether there is a host: before vmm_host_init the freestanding build has none, and nothing else
 * of this file may be called. */
bool os_ready(void);

/* Monotonic nanoseconds. */
uint64_t os_now(void);
/* Frequency of the host TSC in kHz, measured or read once. */
uint64_t os_tsc_khz(void);

/*
 * Sleeps while *word == seen, until os_wake on the same word, a spurious wake-up, or the absolute
 * os_now time `deadline` (UINT64_MAX: none). The caller rechecks its condition.
 */
void os_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline);
/* Wakes all that wait on the word. Async-signal-safe. */
void os_wake(_Atomic uint32_t *word);

/* An identity of the calling thread that no other living thread has; never 0. */
uintptr_t os_thread_self(void);
/* A pointer of the calling thread's own, NULL at first, for core/io_map.c. */
void **os_thread_slot(void);
void os_yield(void);

/* A thread of the library's own, which blocks all signals; *thread stays until it is joined. 0 or
 * an errno. */
struct os_thread {
    uint64_t storage;
    void (*run)(void *arg);
    void *arg;
};
int os_thread_start(struct os_thread *thread, void (*run)(void *arg), void *arg);
void os_thread_join(struct os_thread *thread);

/* What a thread does between two looks at a word that another is about to change. */
void os_relax(void);

/* Zeroed, lazily touched pages; NULL when there are none. */
void *os_pages_alloc(size_t len);
/* Length of a file of which pages can be mapped; UINT64_MAX where only mapping tells (a device).
 * 0 or an errno. */
int os_file_size(int fd, uint64_t *size);
/* Shared mapping of a file; NULL with *os_errno set. */
void *os_pages_map_fd(int fd, uint64_t offset, size_t len, bool writable, int *os_errno);
/* As os_pages_alloc, with the descriptor of a file whose pages they are, from its beginning on: the
 * same memory for whoever maps that, and shared over a fork. NULL where there is no such thing. */
void *os_pages_alloc_fd(size_t len, int *fd);
void os_pages_free(void *p, size_t len);
/* Another descriptor for the same open file, closed on exec; -1 if there is none to be had. */
int os_fd_dup(int fd);
void os_fd_close(int fd);

/* Code memory: the same pages writable at *rw and executable at *rx (W^X). 0 or an errno. */
int os_code_alloc(size_t len, void **rw, void **rx);
void os_code_free(void *rw, void *rx, size_t len);

/* Around the use of vector and x87 registers, by code that the compiler has not made. In a process
 * they are free to use; a kernel saves and restores them. */
#ifdef VMM_FREESTANDING
void os_fpu_begin(void);
void os_fpu_end(void);
#else
static inline void os_fpu_begin(void)
{
}
static inline void os_fpu_end(void)
{
}
#endif

/* ---- events: descriptors with a counter that signals add to ---- */

/* A new one. 0 or an errno. */
int os_event_create(int *event);
/* Another descriptor for what the caller's `fd` is; EINVAL if that is no event. 0 or an errno. */
int os_event_dup(int fd, int *event);
void os_event_close(int event);
/* Adds 1. */
void os_event_signal(int event);
/* Takes all signals; false if there were none. Does not wait. */
bool os_event_take(int event);

/* Sets of events to wait for. 0 or an errno. */
int os_poll_create(int *set);
void os_poll_close(int set);
int os_poll_add(int set, int event, uint64_t tag);
void os_poll_remove(int set, int event);
/* Waits until events of the set have signals; up to `max` tags of them, and their number. */
uint32_t os_poll_wait(int set, uint64_t *tags, uint32_t max);

#endif
