/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/msr.c: MSRs that do not exit. */
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/internal.h"
#include "vmx/decode.h"

/* Those that the VMCS or the session switches, and that take any canonical value. */
static const uint32_t free_msrs[] = {
    0xc0000100, /* IA32_FS_BASE */
    0xc0000101, /* IA32_GS_BASE */
    0xc0000102, /* IA32_KERNEL_GS_BASE */
};

/* Whether the program has a say in it. */
bool vmx_has_msr_policy(const struct vcpu *vcpu, uint32_t index)
{
    for (uint32_t i = 0; i < vcpu->nmsr_ranges; i++)
        if (index >= vcpu->msr_ranges[i].first && index <= vcpu->msr_ranges[i].last &&
            vcpu->msr_ranges[i].policy != VMM_MSR_DEFAULT)
            return true;
    return false;
}

int vmx_msr_policy(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend_data;

    memset(v->msr_bits, 0xff, VMX_MSR_BITMAP_SIZE);
    for (size_t i = 0; i < sizeof(free_msrs) / sizeof(free_msrs[0]); i++)
        if (!vmx_has_msr_policy(vcpu, free_msrs[i]))
            vmx_msr_bitmap_clear(v->msr_bits, free_msrs[i], true, true);
    vmx_apic_msrs(v);
    return VMM_OK;
}
