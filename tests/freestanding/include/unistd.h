/* SPDX-License-Identifier: BSD-2-Clause */
/* unistd.h of tests on a bare machine: one pipe, and no files. */
#ifndef TESTS_UNISTD_H
#define TESTS_UNISTD_H

#include <stddef.h>

typedef long ssize_t;
typedef long off_t;

int pipe(int fds[2]);
ssize_t read(int fd, void *to, size_t n);
ssize_t write(int fd, const void *from, size_t n);
ssize_t pread(int fd, void *to, size_t n, off_t at);
ssize_t pwrite(int fd, const void *from, size_t n, off_t at);
int ftruncate(int fd, off_t n);
int dup(int fd);
int close(int fd);
int unlink(const char *name);

#endif
