/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/thunk.h: running the guest's data instructions on the host's own units. */
#ifndef CORE_X86_THUNK_H
#define CORE_X86_THUNK_H

#include "core/x86/decode.h"

/* Releases what vector and x87 instructions have allocated; for x86_destroy. */
void x86_thunks_destroy(struct x86_cpu *cpu);

#endif
