/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/area.c: IA32_EFER and IA32_PAT by lists of MSRs, on CPUs whose entries and exits do
 * not load them from fields of the VMCS.
 *
 * Lists rather than WRMSR in sessions: the host's interrupts and NMIs come behind an exit, and must
 * not find the guest's EFER or PAT there. Each entry and exit pays for what is in a list, so
 * nothing is in it that guest and host have in common. */
#include <stdio.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/check.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define MSR_PAT   0x277u
#define MSR_EFER  0xc0000080u
#define PAT_FIRST 7u /* the type of index 0 */

static bool efer_by_list(void)
{
    return !vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_EFER);
}

static bool pat_by_list(void)
{
    return !vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_PAT);
}

int vmx_area_open(struct vmx_vcpu *v)
{
    void *page;

    if (!efer_by_list() && !pat_by_list())
        return VMM_OK;
    page = vmx_pages.alloc(NULL, false);
    if (!page)
        return VMM_E_NOMEM;
    vmx_area_init(&v->area, &vmx_machine.caps, page, vmx_pages.phys(NULL, page));
    return VMM_OK;
}

void vmx_area_close(struct vmx_vcpu *v)
{
    if (v->area.msrs)
        vmx_pages.free(NULL, v->area.msrs);
}

/* There is room: these are the only ones. */
static void put(struct vmx_vcpu *v, uint32_t index, uint64_t guest, uint64_t host, bool differ)
{
    if (differ) {
        vmx_area_put(&v->area, VMX_AREA_ENTRY_LOAD, index, guest);
        vmx_area_put(&v->area, VMX_AREA_EXIT_LOAD, index, host);
    } else {
        vmx_area_remove(&v->area, VMX_AREA_ENTRY_LOAD, index);
        vmx_area_remove(&v->area, VMX_AREA_EXIT_LOAD, index);
    }
}

/* LMA and LME follow the controls of entries and exits; but for LME while paging is off. */
static void put_efer(struct vmx_vcpu *v)
{
    uint64_t guest = vmx_guest_efer(v), host = v->host_efer;
    uint64_t by_wrmsr = ~(uint64_t)X86_EFER_LMA;

    if (vmx_guest_pages(v))
        by_wrmsr &= ~(uint64_t)X86_EFER_LME;
    put(v, MSR_EFER, guest, host, (guest ^ host) & by_wrmsr);
}

/* Shadow page tables use one memory type only, which most hosts have there, too. */
static void put_pat(struct vmx_vcpu *v)
{
    uint64_t guest = vmx_has_ept() ? v->soft.cpu->pat : VMX_SHADOW_PAT;
    uint64_t matters = vmx_has_ept() ? UINT64_MAX : PAT_FIRST;

    put(v, MSR_PAT, guest, v->host_pat, (guest ^ v->host_pat) & matters);
}

void vmx_area_efer_now(struct vmx_vcpu *v)
{
    if (efer_by_list())
        put_efer(v);
    vmx_area_push(&v->area);
}

void vmx_area_pat_now(struct vmx_vcpu *v)
{
    if (pat_by_list())
        put_pat(v);
    vmx_area_push(&v->area);
}

void vmx_area_host(struct vmx_vcpu *v)
{
    if (!v->area.msrs)
        return;
    v->host_efer = vmx_insn_rdmsr(MSR_EFER);
    v->host_pat = vmx_insn_rdmsr(MSR_PAT);
    vmx_area_efer_now(v);
    vmx_area_pat_now(v);
}

void vmx_area_failed(const struct vmx_vcpu *v, char *text, size_t size)
{
    uint64_t n = vmx_insn_read(VMX_EXIT_QUALIFICATION);
    const struct vmx_area_msr *m;
    const char *rule;

    if (!n || n > v->area.known[VMX_AREA_ENTRY_LOAD]) {
        snprintf(text, size, "VM entry, MSR loading: entry %llu of the list, which is not there",
                 (unsigned long long)n);
        return;
    }
    m = &v->area.msrs[n - 1];
    rule = vmx_check_load(VMX_AREA_ENTRY_LOAD, m);
    snprintf(text, size, "VM entry, MSR loading: entry %llu, MSR %#x = %#llx: %s",
             (unsigned long long)n, m->index, (unsigned long long)m->value,
             rule ? rule : "the CPU refuses it");
}
