/* SPDX-License-Identifier: BSD-2-Clause */
/* fcntl.h of tests on a bare machine, which has no files. */
#ifndef TESTS_FCNTL_H
#define TESTS_FCNTL_H

#define O_RDONLY 0

int open(const char *name, int flags, ...);

#endif
