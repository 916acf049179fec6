/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check_msr.c: why an entry or an exit does not load an MSR of its list. */
#include "vmx/check_common.h"

#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_PAT          0x277u
#define MSR_EFER         0xc0000080u
#define MSR_LSTAR        0xc0000082u
#define MSR_CSTAR        0xc0000083u
#define MSR_KERNEL_GS    0xc0000102u
#define MSR_TSC_AUX      0xc0000103u

/* Paging is on after an exit to a host of this library's, and after most entries: then LME cannot
 * be another than the entry or the exit has just made it. */
static const char *check_efer(enum vmx_area_list list, uint64_t efer)
{
    bool entry = list == VMX_AREA_ENTRY_LOAD;
    bool long_mode =
        entry ? rd(VMX_ENTRY_CTLS) & VMX_ENTRY_GUEST_64 : rd(VMX_EXIT_CTLS) & VMX_EXITC_HOST_64;

    RULE(!(efer & ~EFER_ALL), "EFER: reserved bits");
    RULE((entry && !(rd(VMX_GUEST_CR0) & CR0_PG)) || !(efer & EFER_LME) == !long_mode,
         "EFER: LME changes while CR0.PG is set");
    return NULL;
}

const char *vmx_check_load(enum vmx_area_list list, const struct vmx_area_msr *m)
{
    const char *wrong = vmx_area_refuses(list, m->index);

    if (wrong)
        return wrong;
    RULE(!m->zero, "reserved bits of the list are set");
    switch (m->index) {
    case MSR_EFER:
        return check_efer(list, m->value);
    case MSR_PAT:
        RULE(pat_ok(m->value), "PAT: bad memory type");
        return NULL;
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
    case MSR_LSTAR:
    case MSR_CSTAR:
    case MSR_KERNEL_GS:
        RULE(canonical(m->value), "the address is not canonical");
        return NULL;
    case MSR_TSC_AUX:
        RULE(!(m->value >> 32), "TSC_AUX: reserved bits");
        return NULL;
    default:
        return NULL;
    }
}

const char *vmx_check_loads(enum vmx_area_list list, const struct vmx_area_msr *msrs, uint32_t n,
                            uint32_t *which)
{
    for (uint32_t i = 0; i < n; i++) {
        const char *wrong = vmx_check_load(list, &msrs[i]);

        if (wrong) {
            *which = i + 1;
            return wrong;
        }
    }
    return NULL;
}
