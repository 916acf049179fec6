/* SPDX-License-Identifier: BSD-2-Clause */
/* errno.h of the freestanding build: the numbers that core/os.h passes. */
#ifndef FREESTANDING_ERRNO_H
#define FREESTANDING_ERRNO_H

#define EPERM   1
#define ENOENT  2
#define EIO     5
#define EBADF   9
#define EAGAIN  11
#define ENOMEM  12
#define EACCES  13
#define EINVAL  22
#define ENFILE  23
#define EMFILE  24
#define ENOSPC  28
#define ENOSYS  38
#define ENOTSUP 95

#endif
