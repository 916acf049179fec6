/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/mtrr.h: the memory types of physical memory, which EPT entries name in place of the MTRRs. */
#ifndef VMX_MTRR_H
#define VMX_MTRR_H

#include <stdbool.h>
#include <stdint.h>

#include <vmm/host.h>

#define VMX_MTRR_RANGES 32u
#define VMX_MTRR_FIXED  88u /* the first MiB in pieces of 64, 16 and 4 KiB */

struct vmx_mtrrs {
    bool fixed_on;
    uint8_t otherwise; /* what no range says */
    uint8_t fixed[VMX_MTRR_FIXED];
    unsigned n;
    struct {
        uint64_t base, mask;
        uint8_t type;
    } range[VMX_MTRR_RANGES];
    uint64_t width; /* all bits of a physical address */
};

/* Those of this CPU, which are the same on all (SDM Vol. 3A 12.11.8). Without MTRRs all is WB. */
void vmx_mtrrs_read(struct vmx_mtrrs *m, const struct vmm_host_ops *host, unsigned phys_bits);
/* The type at `hpa`; lowers *len to how far it is known to reach, at least to the end of the page.
 */
unsigned vmx_mtrrs_type(const struct vmx_mtrrs *m, uint64_t hpa, uint64_t *len);

#endif
