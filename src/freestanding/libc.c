/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/libc.c: the functions of POSIX that the library calls. */
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#include "freestanding/host.h"

/* ---- locks of devices ---- */

int pthread_mutex_init(pthread_mutex_t *m, const void *attr)
{
    (void)attr;
    return os_mutex_init(&m->mutex);
}

int pthread_mutex_destroy(pthread_mutex_t *m)
{
    os_mutex_fini(&m->mutex);
    return 0;
}

int pthread_mutex_lock(pthread_mutex_t *m)
{
    os_mutex_lock(&m->mutex);
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    os_mutex_unlock(&m->mutex);
    return 0;
}

#define ONCE_NEW  0u
#define ONCE_RUNS 1u
#define ONCE_DONE 2u

int pthread_once(pthread_once_t *once, void (*run)(void))
{
    uint32_t new = ONCE_NEW;

    if (atomic_load_explicit(&once->state, memory_order_acquire) == ONCE_DONE)
        return 0;
    if (atomic_compare_exchange_strong(&once->state, &new, ONCE_RUNS)) {
        run();
        atomic_store_explicit(&once->state, ONCE_DONE, memory_order_release);
    }
    while (atomic_load_explicit(&once->state, memory_order_acquire) != ONCE_DONE)
        host_yield();
    return 0;
}

/* ---- time ---- */

int clock_gettime(int clock, struct timespec *ts)
{
    uint64_t ns = vmm_host->wall_clock ? vmm_host->wall_clock(vmm_host->ctx) : 0;

    (void)clock; /* CLOCK_REALTIME is the only one */
    ts->tv_sec = (time_t)(ns / 1000000000);
    ts->tv_nsec = (long)(ns % 1000000000);
    return 0;
}
