/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/regs.h: the registers of the software CPU and those of a stub. */
#ifndef BACKENDS_SHADOW_REGS_H
#define BACKENDS_SHADOW_REGS_H

#include "backends/shadow/stub.h"
#include "core/x86/exec.h"

/* Whether all that user code could see of the CPU's state is as it is in a process of the host,
 * whose XCR0 is given: 64-bit user mode, selectors, descriptors, flags, control registers. */
bool regs_fit(struct x86_cpu *cpu, uint64_t host_xcr0);

/* Whether the host's XSAVE areas are laid out as the library's. */
bool regs_layout_fits(uint64_t host_xcr0);

/* The stub's guest task gets the CPU's registers. False: its frame is not usable. */
bool regs_give(struct x86_cpu *cpu, const struct stub *s);

/* The other way; what a CPU could not have is made up for. */
bool regs_take(struct x86_cpu *cpu, const struct stub *s);

/* Of the frame of a fault behind which the guest task goes on: what the host's kernel has changed
 * in it is as it was. */
void regs_tidy(const struct stub *s, struct stub_context *c);

/* Behind a trap with that vector: the length of the instruction that has caused it. */
unsigned regs_trap_len(struct x86_cpu *cpu, uint32_t vector);

/* Behind a system call that the host has refused: back to the instruction, with the registers that
 * it had. */
void regs_before_call(struct x86_cpu *cpu, const siginfo_t *info);

#endif
