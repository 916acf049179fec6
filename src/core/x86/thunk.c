/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/thunk.c: makes and keeps the host code that executes the guest's data instructions. */
#include <stdlib.h>

#include "core/x86/thunk.h"

void x86_thunks_destroy(struct x86_cpu *cpu)
{
    free(cpu->thunks);
    cpu->thunks = NULL;
}
