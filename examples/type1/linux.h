/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.h: Linux as a guest of the bare machine. `boot`: the boot information of Multiboot. */
#ifndef LINUX_H
#define LINUX_H

#include <stdbool.h>
#include <stdint.h>

/* How many modules the boot loader has brought: a kernel, and perhaps an initrd. */
uint32_t linux_modules(const uint32_t *boot);
/* Their memory stays theirs. After host_init. */
void linux_reserve(const uint32_t *boot);
/* Runs the kernel, with this machine's command line as its own, until it powers off. */
bool linux_run(const uint32_t *boot);

#endif
