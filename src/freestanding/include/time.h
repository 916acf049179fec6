/* SPDX-License-Identifier: BSD-2-Clause */
/* time.h of the freestanding build: the wall clock. */
#ifndef FREESTANDING_TIME_H
#define FREESTANDING_TIME_H

typedef long time_t;
struct timespec {
    time_t tv_sec;
    long tv_nsec;
};
#define CLOCK_REALTIME 0

int clock_gettime(int clock, struct timespec *ts);

#endif
