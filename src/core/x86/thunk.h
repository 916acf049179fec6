/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/thunk.h: running the guest's data instructions on the host's own units. */
#ifndef CORE_X86_THUNK_H
#define CORE_X86_THUNK_H

#include "core/x86/decode.h"

/* Allocates what vector and x87 instructions need at least, so that no later lack of memory keeps
 * them from being executed. 0 or an errno. */
int x86_thunks_create(struct x86_cpu *cpu);

/* Releases what vector and x87 instructions have allocated; for x86_destroy. */
void x86_thunks_destroy(struct x86_cpu *cpu);

#endif
