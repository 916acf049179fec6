/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/fetch.h: the instruction that has met what is not memory. */
#ifndef BACKENDS_VMX_FETCH_H
#define BACKENDS_VMX_FETCH_H

#include "backends/vmx/vmx.h"
#include "vmx/move.h"

/* In a session, after an exit of the instruction at RIP: what it moves, until the next call. NULL:
 * it is no plain move, or cannot be had. */
const struct vmx_move *vmx_move_at_rip(struct vmx_vcpu *v);
/* As core_mem_page, for memory; the last page that is none is remembered. */
bool vmx_find_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page);
static inline bool vmx_is_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page)
{
    if (v->nothing_at == (gpa & ~0xfffull) && v->pages_of == vmx_vm_of(v)->map_generation)
        return false;
    return vmx_find_memory(v, gpa, page);
}

#endif
