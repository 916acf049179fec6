/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/tlb.c: INVVPID. */
#include "vmx/tlb.h"
#include "vmx/insn.h"

/* Types of INVVPID (SDM Vol. 3C 30.3). */
#define SINGLE 1u
#define ALL    2u

static unsigned type_of(const struct vmx_caps *caps)
{
    if (!(caps->ept_vpid & VMX_VPID_INVVPID))
        return 0;
    if (caps->ept_vpid & VMX_VPID_SINGLE)
        return SINGLE;
    return caps->ept_vpid & VMX_VPID_ALL ? ALL : 0;
}

bool vmx_tlb_usable(const struct vmx_caps *caps)
{
    return type_of(caps) != 0;
}

void vmx_tlb_init(struct vmx_tlb *t, uint16_t vpid)
{
    *t = (struct vmx_tlb){.vpid = vpid, .cpu = VMX_NO_CPU};
}

bool vmx_tlb_settle(struct vmx_tlb *t, const struct vmx_caps *caps, uint32_t cpu)
{
    struct vmx_inv_operand op = {t->vpid, 0};
    uint64_t due = t->due;

    if (vmx_tlb_settled(t, cpu))
        return true;
    if (vmx_insn_invvpid(type_of(caps), &op) != VMX_OK)
        return false;
    t->executed++;
    t->cpu = cpu;
    t->done = due;
    return true;
}
