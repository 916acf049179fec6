/* SPDX-License-Identifier: BSD-2-Clause */
/* pthread.h of tests on a bare machine. */
#ifndef TESTS_PTHREAD_H
#define TESTS_PTHREAD_H

typedef struct port_thread *pthread_t;

int pthread_create(pthread_t *thread, const void *attr, void *(*run)(void *arg), void *arg);
int pthread_join(pthread_t thread, void **result);

#endif
