/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/tlb.h: when INVVPID is due, for the linear translations that a CPU keeps under a VPID. */
#ifndef VMX_TLB_H
#define VMX_TLB_H

#include "vmx/caps.h"
#include "vmx/cpu.h"

/*
 * Translations of a vCPU may be in the CPU that it last ran on, under its VPID, until they are
 * invalidated. Entries and exits keep them (SDM Vol. 3C 28.4.1); without a VPID (0) both drop all.
 * An INVVPID is due:
 * - before the first entry, as somebody else may have used that VPID on that CPU;
 * - before the first entry on another CPU: what that has of earlier is older than the guest's
 *   INVLPGs and loads of CR3 since;
 * - when something has invalidated translations in the guest's stead (vmx_tlb_due): instructions
 *   that were executed in software, changes of registers by the program.
 * What changes EPT makes is INVEPT's (mmu/ept.h), which also drops these translations.
 */
struct vmx_tlb {
    uint16_t vpid;
    uint32_t cpu;       /* where the VPID's translations are in order; VMX_NO_CPU: nowhere */
    uint64_t due, done; /* counts: reasons for an invalidation, and those that one has followed */
    uint64_t executed;  /* INVVPIDs */
};

/* Whether INVVPID on this CPU is what VPIDs need: a type that drops all of one or all VPIDs. */
bool vmx_tlb_usable(const struct vmx_caps *caps);
void vmx_tlb_init(struct vmx_tlb *t, uint16_t vpid);
static inline void vmx_tlb_due(struct vmx_tlb *t)
{
    t->due++;
}
/* Before each entry, on the CPU of the entry, with preemption off: executes what is due. False: the
 * CPU has refused it. */
bool vmx_tlb_settle(struct vmx_tlb *t, const struct vmx_caps *caps, uint32_t cpu);
/* The last look before the entry, beside vmx_tlb_settle: nothing is due on this CPU. */
static inline bool vmx_tlb_settled(const struct vmx_tlb *t, uint32_t cpu)
{
    return !t->vpid || (t->cpu == cpu && t->done == t->due);
}

#endif
