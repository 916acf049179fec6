/* SPDX-License-Identifier: BSD-2-Clause */
/* sys/eventfd.h of tests on a bare machine, which has no descriptors. */
#ifndef TESTS_SYS_EVENTFD_H
#define TESTS_SYS_EVENTFD_H

#define EFD_CLOEXEC  1
#define EFD_NONBLOCK 2

int eventfd(unsigned value, int flags);

#endif
