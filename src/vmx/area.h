/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/area.h: lists of MSRs that VM entries load and VM exits store and load (SDM Vol. 3C 24.7.2,
 * 24.8.2, 26.4, 27.4, 27.6). */
#ifndef VMX_AREA_H
#define VMX_AREA_H

#include "vmx/caps.h"

struct vmx_area_msr {
    uint32_t index, zero;
    uint64_t value;
};

enum vmx_area_list {
    VMX_AREA_ENTRY_LOAD, /* the guest's values */
    VMX_AREA_EXIT_STORE, /* what the guest has made of them */
    VMX_AREA_EXIT_LOAD,  /* the host's */
    VMX_AREA_LISTS
};

/* Of each list: all three are in one page. */
#define VMX_AREA_ROOM 80u

/* Those of one VMCS. */
struct vmx_area {
    struct vmx_area_msr *msrs; /* the page; NULL: there are no lists */
    uint64_t phys;
    uint32_t max; /* entries of a list that this CPU takes */
    uint32_t count[VMX_AREA_LISTS];
    uint32_t known[VMX_AREA_LISTS]; /* counts in the VMCS */
};

/* More MSRs in a list than this are undefined behaviour (SDM Vol. 3D A.6). */
static inline uint32_t vmx_area_limit(const struct vmx_caps *caps)
{
    return 512 * (((uint32_t)caps->misc >> 25 & 7) + 1);
}

/* Empty lists. The page is the caller's. */
void vmx_area_init(struct vmx_area *a, const struct vmx_caps *caps, void *page, uint64_t phys);
/* Puts addresses and counts into the current VMCS, which knows nothing of them yet; NULL: no lists.
 */
void vmx_area_attach(struct vmx_area *a);
/* Counts that have changed since. Values are read from memory by each entry and exit. */
void vmx_area_push(struct vmx_area *a);

/* NULL, or the reason why the manual excludes the MSR from such a list, whatever its value. */
const char *vmx_area_refuses(enum vmx_area_list list, uint32_t index);
/* Adds an MSR or changes its value, which vmx_area_push makes known. False: the list takes no such
 * MSR, or no further one. */
bool vmx_area_put(struct vmx_area *a, enum vmx_area_list list, uint32_t index, uint64_t value);
void vmx_area_remove(struct vmx_area *a, enum vmx_area_list list, uint32_t index);
/* NULL: it is not in the list. After an exit, of VMX_AREA_EXIT_STORE: the guest's value. */
const struct vmx_area_msr *vmx_area_find(const struct vmx_area *a, enum vmx_area_list list,
                                         uint32_t index);

#endif
