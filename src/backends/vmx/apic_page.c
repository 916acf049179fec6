/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/apic_page.c: the APIC-access page in the guest's memory, and who may see it. */
#include "backends/vmx/vmx.h"
#include "freestanding/host.h"
#include "vmx/decode.h"

/*
 * Extended page tables are the VM's, the place of a local APIC is its vCPU's. Where the registers
 * are in the default page, the page at that address is the APIC-access page, whose accesses are no
 * accesses to memory as long as the control is on. A vCPU whose registers are elsewhere runs
 * without the control, and would find memory there: while there is one, the page is not mapped, and
 * all go through EPT violations.
 *
 * The vCPU that goes away unmaps the page, and executes INVEPT before it enters the guest. Others,
 * who keep the control, may use what they have cached until they do.
 */

#define PAGE 4096ull

static uint64_t phys(void)
{
    return vmm_host->virt_to_phys(vmm_host->ctx, vmx_apic_page);
}

/* With the lock held. The program's memory may be there instead. */
static void unmap(struct vmx_mmu *m)
{
    struct ept_walk w;

    if (ept_walk(&m->ept, APIC_DEFAULT_BASE, 0, &w) != EPT_TRANSLATED || w.hpa != phys())
        return;
    if (ept_unmap(&m->ept, APIC_DEFAULT_BASE, PAGE))
        ept_unmap(&m->ept, 0, 1ull << 48); /* takes no memory */
}

void vmx_apic_moved(struct vmx_vcpu *v, bool here)
{
    struct vmx_mmu *m = &v->vv->mmu;

    os_mutex_lock(&m->lock);
    v->away = !here;
    if (here) {
        atomic_fetch_sub(&m->apic_away, 1);
        /* The control is set again (SDM Vol. 3C 28.4.3.3). */
        v->mmu.ept_cpu.seen = 0;
        vmx_tlb_due(&v->tlb);
    } else {
        atomic_fetch_add(&m->apic_away, 1);
        unmap(m);
    }
    os_mutex_unlock(&m->lock);
    v->apic_due = true;
}

/* Instructions are not fetched there: the page is not executable. */
bool vmx_apic_may_map(const struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification)
{
    return (gpa & ~(PAGE - 1)) == APIC_DEFAULT_BASE && vmx_at_apic_page(v) &&
           core_vcpu_lapic(v->vcpu) && !atomic_load(&v->vv->mmu.apic_away) &&
           !vmx_ept_violation(qualification).fetch;
}

bool vmx_apic_map(struct vmx_vcpu *v, uint64_t qualification)
{
    const bool write = vmx_ept_violation(qualification).write;
    struct vmx_mmu *m = &v->vv->mmu;
    struct ept_walk w;
    bool mapped;

    vmx_session_end(v);
    os_mutex_lock(&m->lock);
    mapped = ept_walk(&m->ept, APIC_DEFAULT_BASE, EPT_R | EPT_W, &w) == EPT_TRANSLATED;
    if (!mapped && !atomic_load(&m->apic_away))
        mapped = !ept_map(&m->ept, APIC_DEFAULT_BASE, phys(), PAGE, EPT_R | EPT_W);
    /* Where writes are tracked by their violations. */
    if (mapped && write)
        ept_note_write(&m->ept, APIC_DEFAULT_BASE);
    os_mutex_unlock(&m->lock);
    return mapped;
}
