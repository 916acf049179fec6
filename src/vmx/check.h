/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check.h: the checks of VM entries in software, to name what the CPU has only refused. */
#ifndef VMX_CHECK_H
#define VMX_CHECK_H

#include "vmx/caps.h"

/*
 * Goes through the current VMCS as a VM entry does (SDM Vol. 3C 26.2.1, 26.2.2 to 26.2.4, 26.3.1)
 * and returns the rule that it breaks first, or NULL. What only memory tells (PDPTEs without EPT,
 * the contents of the link pointer's VMCS, MSR-load areas) is not checked.
 */
const char *vmx_check_controls(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_host(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_guest(const struct vmx_caps *caps, unsigned phys_bits);
const char *vmx_check_entry(const struct vmx_caps *caps, unsigned phys_bits);

#endif
