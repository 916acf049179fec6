/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/pml.c: page-modification logging: the logs of the vCPUs. */
#include "backends/vmx/vmx.h"
#include "freestanding/host.h"
#include "vmx/insn.h"

/*
 * While written pages are tracked, the CPU logs each page that it makes dirty. At the end of a
 * session the log goes to the VM's list, so that with the world stopped the logs are empty. The
 * pages stay dirty in EPT, and so are not logged again, until vmx_dirty_sync has taken the list.
 */

int vmx_pml_init(struct vmx_vcpu *v)
{
    if (!vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_PML) || !vmx_vm_of(v)->mmu.ept.ad)
        return VMM_OK;
    v->pml_log = vmx_pages.alloc(NULL, false);
    return v->pml_log ? VMM_OK : VMM_E_NOMEM;
}

void vmx_pml_fini(struct vmx_vcpu *v)
{
    if (v->pml_log)
        vmx_pages.free(NULL, v->pml_log);
    v->pml_log = NULL;
}

void vmx_pml_controls(struct vmx_vcpu *v)
{
    v->proc2 &= ~(uint32_t)VMX_PROC2_PML;
    if (!v->pml_log)
        return;
    vmx_insn_put(VMX_PML_ADDR, vmm_host->virt_to_phys(vmm_host->ctx, v->pml_log));
    vmx_insn_put(VMX_PML_INDEX, VMX_PML_EMPTY);
}

void vmx_pml_switch(struct vmx_vcpu *v)
{
    v->proc2 ^= (uint32_t)VMX_PROC2_PML;
    vmx_insn_put(VMX_PROC2_CTLS, v->proc2);
}

void vmx_pml_collect(struct vmx_vcpu *v)
{
    v->pml_count = vmx_pml_count(vmx_insn_read(VMX_PML_INDEX));
    if (v->pml_count)
        vmx_insn_put(VMX_PML_INDEX, VMX_PML_EMPTY);
}

void vmx_pml_drain(struct vmx_vcpu *v)
{
    struct vmx_mmu *m = &vmx_vm_of(v)->mmu;

    os_mutex_lock(&m->lock);
    vmx_pml_add(&m->pml, v->pml_log, v->pml_count);
    os_mutex_unlock(&m->lock);
    v->pml_count = 0;
}
