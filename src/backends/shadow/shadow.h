/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/shadow.h: direct execution of guest user code, beside the software CPU. */
#ifndef BACKENDS_SHADOW_SHADOW_H
#define BACKENDS_SHADOW_SHADOW_H

#include "backends/interp/interp.h"

/*
 * The software CPU asks before it executes 64-bit code at CPL 3 (x86_env.user). If it pays, and all
 * that such code can see is as the host has it, the code is executed by a stub until something
 * comes up: a page that is not mapped there and can be, which is mapped; or anything else, which
 * the software CPU then does: system calls, faults, instructions that trap, interrupts, requests.
 */

/* For VMs with VMM_VM_DIRECT, after interp_vcpu_open. 0 or VMM_E_NOMEM. */
int shadow_attach(struct interp_vcpu *iv);
/* Before interp_vcpu_close. */
void shadow_detach(struct interp_vcpu *iv);
/* As the engine's wake, beside it. */
void shadow_wake(const struct interp_vcpu *iv);

#endif
