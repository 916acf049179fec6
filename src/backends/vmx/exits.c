/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/exits.c: what each basic exit reason asks for (SDM Vol. 3D appendix C). */
#include <stdio.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/decode.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* ---- memory ---- */

/* Maps the page if it is memory that the access may reach. Only pages that are dirty already are
 * mapped for writing. */
static bool map(struct vmx_vcpu *v, const struct core_page *page, uint64_t gpa, bool write)
{
    struct vmx_vm *vv = vmx_vm_of(v);
    unsigned rights = EPT_R;
    int err;

    if (write && !(page->prot & VMM_MEM_W))
        return false;
    if (page->prot & VMM_MEM_X)
        rights |= EPT_X;
    if (page->prot & VMM_MEM_W) {
        if (write && page->dirty)
            atomic_store_explicit(page->dirty, 1, memory_order_relaxed);
        if (!page->dirty || atomic_load_explicit(page->dirty, memory_order_relaxed))
            rights |= EPT_W;
    }
    os_mutex_lock(&vv->lock);
    err = ept_map(&vv->ept, gpa & ~0xfffull, vmm_host->virt_to_phys(vmm_host->ctx, page->host),
                  4096, rights);
    os_mutex_unlock(&vv->lock);
    return !err;
}

static int on_ept_violation(struct vmx_vcpu *v)
{
    uint64_t qualification = vmx_insn_read(VMX_EXIT_QUALIFICATION);
    uint64_t gpa = vmx_insn_read(VMX_GUEST_PHYS_ADDR);
    struct vmx_ept_violation a = vmx_ept_violation(qualification);
    struct core_page page;
    int r;

    if (!v->soft.cpu->event.valid && vmx_iret_blocks_nmi(v->reason, qualification, 0)) {
        vmx_pull(v, VMX_G_BLOCKING);
        v->soft.cpu->nmi_blocked = true;
        vmx_changed(v, VMX_G_BLOCKING);
    }
    if (!core_mem_page(v->vcpu->vm, gpa, &page) || !page.host) {
        r = vmx_on_mmio(v, gpa, qualification);
        return r == VMX_INJECT_SOFT ? vmx_soft_one(v, true) : r;
    }
    vmx_session_end(v); /* locks and allocations may wait */
    /* Once is enough: if the page is there with what was asked for, another reason remains. */
    if ((a.fetch && a.readable && !a.executable) || !map(v, &page, gpa, a.write))
        return vmx_soft_one(v, true);
    return VMX_GO_ON;
}

/* ---- events ---- */

static int on_exception(struct vmx_vcpu *v)
{
    uint32_t intr = (uint32_t)vmx_insn_read(VMX_EXIT_INTR_INFO);
    struct x86_cpu *cpu = v->soft.cpu;

    if ((intr & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT == VMX_TYPE_NMI) {
        vmx_session_end(v); /* the host has had it (run.c), and may want the CPU */
        return VMX_GO_ON;
    }
    if ((intr & VMX_INTR_VECTOR) == X86_DB) {
        cpu->pending_db |= vmx_insn_read(VMX_EXIT_QUALIFICATION) & (X86_DR6_BS | X86_DR6_BD | 15);
        return VMX_GO_ON;
    }
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "machine check in the guest");
}

/* The host takes it when interrupts are on again, and may want the CPU for another thread. */
static int on_interrupt(struct vmx_vcpu *v)
{
    vmx_session_end(v);
    return VMX_GO_ON;
}

static int on_nothing(struct vmx_vcpu *v)
{
    (void)v;
    return VMX_GO_ON;
}

static int on_triple_fault(struct vmx_vcpu *v)
{
    v->soft.cpu->event.valid = false;
    v->soft.cpu->activity = VMM_SHUTDOWN;
    return VMX_GO_ON;
}

/* ---- the rest ---- */

/* An instruction that the software CPU executes by the library's rules; it is none that touches
 * vector registers. */
static int on_insn(struct vmx_vcpu *v)
{
    return vmx_soft_one(v, false);
}

static int on_vector_insn(struct vmx_vcpu *v)
{
    return vmx_soft_one(v, true);
}

/* Reasons of controls that are not set, or of what this engine never brings about. */
static int on_impossible(struct vmx_vcpu *v)
{
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run",
                   "VM exit for reason %u (%s), which is not asked for", v->reason & 0xffff,
                   vmx_exit_name(v->reason));
}

static int on_misconfig(struct vmx_vcpu *v)
{
    uint64_t gpa = vmx_insn_read(VMX_GUEST_PHYS_ADDR);
    struct ept_walk walk;

    ept_walk(&vmx_vm_of(v)->ept, gpa, 0, &walk);
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "EPT misconfiguration at %#llx: %s",
                   (unsigned long long)gpa, ept_misconfig_text(walk.rule));
}

static int on_machine_check(struct vmx_vcpu *v)
{
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "machine check at the VM entry");
}

static int (*const handlers[VMX_NEXITS])(struct vmx_vcpu *v) = {
    [VMX_EXIT_EXCEPTION_NMI] = on_exception,
    [VMX_EXIT_EXTERNAL_INTERRUPT] = on_interrupt,
    [VMX_EXIT_TRIPLE_FAULT] = on_triple_fault,
    [VMX_EXIT_INIT] = on_nothing, /* blocked in VMX operation, and so lost */
    [VMX_EXIT_SIPI] = on_impossible,
    [VMX_EXIT_IO_SMI] = on_impossible, /* SMM with a monitor of its own */
    [VMX_EXIT_OTHER_SMI] = on_impossible,
    [VMX_EXIT_INTERRUPT_WINDOW] = on_nothing, /* vmx_inject looks again */
    [VMX_EXIT_NMI_WINDOW] = on_nothing,
    [VMX_EXIT_TASK_SWITCH] = on_insn,
    [VMX_EXIT_CPUID] = vmx_on_cpuid,
    [VMX_EXIT_GETSEC] = on_insn,
    [VMX_EXIT_HLT] = vmx_on_hlt,
    [VMX_EXIT_INVD] = on_insn,
    [VMX_EXIT_INVLPG] = on_insn,
    [VMX_EXIT_RDPMC] = on_insn,
    [VMX_EXIT_RDTSC] = vmx_on_rdtsc,
    [VMX_EXIT_RSM] = on_insn,
    [VMX_EXIT_VMCALL] = vmx_on_vmcall,
    [VMX_EXIT_VMCLEAR] = on_insn,
    [VMX_EXIT_VMLAUNCH] = on_insn,
    [VMX_EXIT_VMPTRLD] = on_insn,
    [VMX_EXIT_VMPTRST] = on_insn,
    [VMX_EXIT_VMREAD] = on_insn,
    [VMX_EXIT_VMRESUME] = on_insn,
    [VMX_EXIT_VMWRITE] = on_insn,
    [VMX_EXIT_VMXOFF] = on_insn,
    [VMX_EXIT_VMXON] = on_insn,
    [VMX_EXIT_CR_ACCESS] = on_insn,
    [VMX_EXIT_DR_ACCESS] = on_insn,
    [VMX_EXIT_IO] = vmx_on_io,
    [VMX_EXIT_RDMSR] = vmx_on_rdmsr,
    [VMX_EXIT_WRMSR] = vmx_on_wrmsr,
    [VMX_EXIT_ENTRY_GUEST_STATE] = on_impossible, /* entry failures do not come here */
    [VMX_EXIT_ENTRY_MSR_LOADING] = on_impossible,
    [VMX_EXIT_MWAIT] = on_insn,
    [VMX_EXIT_MONITOR_TRAP_FLAG] = on_nothing,
    [VMX_EXIT_MONITOR] = on_insn,
    [VMX_EXIT_PAUSE] = on_insn,
    [VMX_EXIT_ENTRY_MACHINE_CHECK] = on_machine_check,
    [VMX_EXIT_TPR_BELOW_THRESHOLD] = on_nothing,
    [VMX_EXIT_APIC_ACCESS] = on_impossible,
    [VMX_EXIT_VIRTUALIZED_EOI] = on_impossible,
    [VMX_EXIT_GDTR_IDTR] = on_insn,
    [VMX_EXIT_LDTR_TR] = on_insn,
    [VMX_EXIT_EPT_VIOLATION] = on_ept_violation,
    [VMX_EXIT_EPT_MISCONFIG] = on_misconfig,
    [VMX_EXIT_INVEPT] = on_insn,
    [VMX_EXIT_RDTSCP] = on_insn,
    [VMX_EXIT_PREEMPTION_TIMER] = on_interrupt, /* timers are looked at before the next entry */
    [VMX_EXIT_INVVPID] = on_insn,
    [VMX_EXIT_WBINVD] = on_insn,
    [VMX_EXIT_XSETBV] = on_insn,
    [VMX_EXIT_APIC_WRITE] = on_impossible,
    [VMX_EXIT_RDRAND] = on_insn,
    [VMX_EXIT_INVPCID] = on_insn,
    [VMX_EXIT_VMFUNC] = on_insn,
    [VMX_EXIT_ENCLS] = on_insn,
    [VMX_EXIT_RDSEED] = on_insn,
    [VMX_EXIT_PML_FULL] = on_impossible,
    [VMX_EXIT_XSAVES] = on_vector_insn,
    [VMX_EXIT_XRSTORS] = on_vector_insn,
    [VMX_EXIT_PCONFIG] = on_insn,
    [VMX_EXIT_SPP] = on_impossible,
    [VMX_EXIT_UMWAIT] = on_insn,
    [VMX_EXIT_TPAUSE] = on_insn,
    [VMX_EXIT_LOADIWKEY] = on_vector_insn,
    [VMX_EXIT_ENCLV] = on_insn,
    [VMX_EXIT_ENQCMD_PASID] = on_impossible,
    [VMX_EXIT_ENQCMDS_PASID] = on_impossible,
    [VMX_EXIT_BUS_LOCK] = on_nothing,
    [VMX_EXIT_INSTRUCTION_TIMEOUT] = on_nothing,
};

int vmx_dispatch(struct vmx_vcpu *v)
{
    uint32_t reason = v->reason & 0xffff;

    if (reason < VMX_NEXITS && handlers[reason])
        return handlers[reason](v);
    return on_impossible(v);
}
