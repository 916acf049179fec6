/* SPDX-License-Identifier: BSD-2-Clause */
/* host.h: the bare machine: serial port, memory, exceptions, and what libvmm wants of its host. */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmm/host.h>

/* Serial console: %s %u %x, with `l` for 64 bits. */
void host_print(const char *format, ...);
void host_write(const char *text, size_t n);
/* Sets everything up; `memory` is the end of RAM. */
void host_init(uint64_t memory);
/* No page of [begin, end) is given out. */
void host_reserve(uint64_t begin, uint64_t end);
/* The part of it that each CPU needs, with the stack, GDT, page tables and EFER of boot.S. */
void host_cpu_init(void);
/* From now on an NMI comes about each millisecond and ends what a guest does: CPUs without the
 * preemption timer of VMX need it for the guest's clocks. */
void host_tick(void);
/* Called for interrupts (vectors from 32 on), with interrupts off. */
extern void (*host_interrupt)(unsigned vector);
/* Ends the machine, if it is an emulated one: Bochs, or QEMU with isa-debug-exit at 0xf4. */
_Noreturn void host_exit(bool ok);

/* For one CPU; a program may change it between host_init and vmm_host_init. */
extern struct vmm_host_ops host_ops;

/* Prints what exits of this vCPU cost, whose VM has ports from 10h, MMIO from 0d0000h and `ram`
 * from 0. How many could not be measured or cost more than they may, with EPT or without it.
 * [cost.c] */
struct vcpu;
unsigned host_costs(struct vcpu *vcpu, uint8_t *ram, bool has_ept);
unsigned host_apic_costs(struct vcpu *vcpu, uint8_t *ram, bool has_ept);

#endif
