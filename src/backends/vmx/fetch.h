/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/fetch.h: the instruction that has met what is not memory. */
#ifndef BACKENDS_VMX_FETCH_H
#define BACKENDS_VMX_FETCH_H

#include "backends/vmx/simple.h"
#include "backends/vmx/vmx.h"
#include "vmx/move.h"

/* As core_mem_page, for memory; the last page that is none is remembered. */
bool vmx_find_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page);
static inline bool vmx_is_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page)
{
    if (v->nothing_at == (gpa & ~0xfffull) && v->pages_of == vmx_vm_of(v)->map_generation)
        return false;
    return vmx_find_memory(v, gpa, page);
}

/* With all registers pulled: the bytes at RIP into vcpu->exit. `behind`: RIP is the end of an
 * instruction that the hardware has fetched. */
void vmx_fill_insn(struct vmx_vcpu *v, bool behind);
/* In a session, before registers are pulled: RIP, mode and CPL into vcpu->exit, which is complete
 * then if it is as simple as that; and the bytes, too: whether it is so. */
void vmx_fill_where(struct vmx_vcpu *v);
bool vmx_fill_behind(struct vmx_vcpu *v);

/* Loads of CR3 exit where it is not the guest's. */
static inline uint64_t vmx_guest_cr3(const struct vmx_vcpu *v)
{
    return vmx_has_ept() && !v->mmu.flat ? vmx_insn_get(VMX_GUEST_CR3) : v->soft.cpu->cr3;
}

static inline bool vmx_entries_hold(const struct vmx_site *site)
{
#pragma GCC unroll 4
    for (unsigned i = 0; i < VMX_NENTRIES; i++)
        if (__atomic_load_n(site->entry[i], __ATOMIC_RELAXED) != site->value[i])
            return false;
    return true;
}

/* Whether the instruction is where it was, and the same. */
static inline bool vmx_site_holds(const struct vmx_site *site, uint64_t rip, uint64_t cr3,
                                  uint32_t ar)
{
    const uint64_t *bytes = (const uint64_t *)(const void *)site->insn;

    if (!site->known || site->rip != rip || site->cr3 != cr3 || !(ar & VMM_AR_L))
        return false;
    if (!vmx_entries_hold(site))
        return false;
    return bytes[0] == site->bytes[0] && bytes[1] == site->bytes[1];
}

/* In a session, after an exit of the instruction at RIP and vmx_is_memory: what it moves, until the
 * next call. NULL: it is no plain move, or cannot be had. */
const struct vmx_move *vmx_find_move(struct vmx_vcpu *v, struct vmx_site *site, uint64_t cr3,
                                     uint32_t ar);
static inline const struct vmx_move *vmx_move_at_rip(struct vmx_vcpu *v)
{
    uint64_t cr3 = vmx_guest_cr3(v);
    uint32_t ar = (uint32_t)vmx_insn_get(VMX_GUEST_CS_AR);
    struct vmx_site *site;

    vmx_need_rip(v);
    site = &v->sites[v->soft.cpu->rip / 4 % VMX_NSITES];
    if (__builtin_expect(vmx_site_holds(site, v->soft.cpu->rip, cr3, ar), 1))
        return &site->move;
    return vmx_find_move(v, site, cr3, ar);
}

#endif
