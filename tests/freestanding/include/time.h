/* SPDX-License-Identifier: BSD-2-Clause */
/* time.h of tests on a bare machine. */
#ifndef TESTS_TIME_H
#define TESTS_TIME_H

#include "../../../src/freestanding/include/time.h"

#define CLOCK_MONOTONIC 1

struct itimerspec {
    struct timespec it_interval, it_value;
};
typedef int timer_t;
struct sigevent;

int nanosleep(const struct timespec *time, struct timespec *left);
int timer_create(int clock, struct sigevent *event, timer_t *timer);
int timer_settime(timer_t timer, int flags, const struct itimerspec *value, struct itimerspec *old);
int timer_delete(timer_t timer);

#endif
