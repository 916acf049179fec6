/* SPDX-License-Identifier: BSD-2-Clause */
/* core/dirty.c: dirty tracking. */
#include "core/mem_map.h"

int vm_dirty_start(struct vm *vm)
{
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

int vm_dirty_stop(struct vm *vm)
{
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

int vm_dirty_get(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t flags, uint64_t *bitmap,
                 uint64_t *count)
{
    (void)gpa, (void)len, (void)flags, (void)bitmap, (void)count;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}
