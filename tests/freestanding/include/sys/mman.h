/* SPDX-License-Identifier: BSD-2-Clause */
/* sys/mman.h of tests on a bare machine, which has no files. */
#ifndef TESTS_SYS_MMAN_H
#define TESTS_SYS_MMAN_H

#define MFD_CLOEXEC 1u

int memfd_create(const char *name, unsigned flags);

#endif
