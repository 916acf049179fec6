/* SPDX-License-Identifier: BSD-2-Clause */
/* pthread.h of the freestanding build: locks, on top of core/os.h. */
#ifndef FREESTANDING_PTHREAD_H
#define FREESTANDING_PTHREAD_H

#include "core/os.h"

typedef struct {
    struct os_mutex mutex;
} pthread_mutex_t;

int pthread_mutex_init(pthread_mutex_t *m, const void *attr);
int pthread_mutex_destroy(pthread_mutex_t *m);
int pthread_mutex_lock(pthread_mutex_t *m);
int pthread_mutex_unlock(pthread_mutex_t *m);

typedef struct {
    _Atomic uint32_t state;
} pthread_once_t;
#define PTHREAD_ONCE_INIT                                                                          \
    {                                                                                              \
        0                                                                                          \
    }

int pthread_once(pthread_once_t *once, void (*run)(void));

#endif
