/* SPDX-License-Identifier: BSD-2-Clause */
/* host.h: the bare machine: serial port, memory, exceptions, and what libvmm wants of its host. */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stdint.h>

#include <vmm/host.h>

/* Serial console: %s %u %x, with `l` for 64 bits. */
void host_print(const char *format, ...);
/* Sets everything up; `memory` is the end of RAM. */
void host_init(uint64_t memory);
/* Ends the machine, if it is an emulated one: Bochs, or QEMU with isa-debug-exit at 0xf4. */
_Noreturn void host_exit(bool ok);

/* For one CPU; a program may change it between host_init and vmm_host_init. */
extern struct vmm_host_ops host_ops;

#endif
