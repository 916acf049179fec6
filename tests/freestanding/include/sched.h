/* SPDX-License-Identifier: BSD-2-Clause */
/* sched.h of tests on a bare machine. */
#ifndef TESTS_SCHED_H
#define TESTS_SCHED_H

int sched_yield(void);

#endif
