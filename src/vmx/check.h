/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check.h: the checks of VM entries in software, to name what the CPU has only refused. */
#ifndef VMX_CHECK_H
#define VMX_CHECK_H

#include "vmx/area.h"

/*
 * Goes through the current VMCS as a VM entry does (SDM Vol. 3C 26.2.1, 26.2.2 to 26.2.4, 26.3.1)
 * and returns the rule that it breaks first, or NULL. What only memory tells (PDPTEs without EPT,
 * the virtual TPR that the threshold must not exceed, the contents of the link pointer's VMCS,
 * MSR-load areas) is not checked here.
 */
const char *vmx_check_controls(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_host(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_guest(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_entry(const struct vmx_caps *caps, unsigned phys_bits);

/* Why the entry into the current VMCS, or the exit from it, does not load this MSR of its list, as
 * far as the library knows the MSR; NULL: nothing is known against it. */
const char *vmx_check_load(enum vmx_area_list list, const struct vmx_area_msr *msr);
/* The first such of a list: *which counts from 1, as exit qualifications do. */
const char *vmx_check_loads(enum vmx_area_list list, const struct vmx_area_msr *msrs, uint32_t n,
                            uint32_t *which);

#endif
