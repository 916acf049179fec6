/* SPDX-License-Identifier: BSD-2-Clause */
/* poll.h of tests on a bare machine, which has no files. */
#ifndef TESTS_POLL_H
#define TESTS_POLL_H

#define POLLIN 1

struct pollfd {
    int fd;
    short events, revents;
};
int poll(struct pollfd *fds, unsigned long n, int timeout);

#endif
