/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/pml.h: page-modification logging (SDM Vol. 3C 28.3.6): what the CPU has logged. */
#ifndef VMX_PML_H
#define VMX_PML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VMX_PML_ENTRIES 512u
#define VMX_PML_EMPTY   (VMX_PML_ENTRIES - 1) /* the index of a log without entries */

/* The CPU fills a log from its last entry down; what it writes next is at the index. Behind entry 0
 * the index wraps, and the next write to a clean page exits. */
static inline unsigned vmx_pml_count(uint64_t index)
{
    return index < VMX_PML_ENTRIES ? VMX_PML_EMPTY - (unsigned)index : VMX_PML_ENTRIES;
}

/* Pages of a VM that have been logged, by any of its vCPUs, and not been taken. */
struct vmx_pml {
    uint64_t *gpa;
    size_t n, room;
    bool lost; /* there were more than are in the list */
};

/* No longer than this: from there on a look at all pages costs less. */
#define VMX_PML_MAX ((size_t)1 << 18)

/* The `count` entries at the end of a log. */
void vmx_pml_add(struct vmx_pml *p, const uint64_t *log, unsigned count);
/* Empties the list, with a call for each page of it. False, without calls, if it is not complete.
 */
bool vmx_pml_take(struct vmx_pml *p, void (*fn)(void *ctx, uint64_t gpa), void *ctx);
void vmx_pml_free(struct vmx_pml *p);

#endif
