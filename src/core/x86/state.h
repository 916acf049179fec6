/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/state.h: between state.c and state_check.c. */
#ifndef CORE_X86_STATE_H
#define CORE_X86_STATE_H

#include "core/x86/control.h"

/* Whether the groups `changed` of the complete state `r` are such that a VM entry would accept them
 * (SDM Vol. 3C 27.3.1, an unrestricted guest), with what the others say. NULL, or what is wrong. */
const char *x86_check_regs(const struct x86_cpu *cpu, const struct vcpu_regs *r, uint32_t changed);

#endif
