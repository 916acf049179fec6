/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/exits.c: what each basic exit reason asks for (SDM Vol. 3D appendix C). */
#include <stdio.h>

#include "backends/vmx/fetch.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* ---- memory ---- */

/* A fault of the hardware's page walk has ended an IRET that had ended NMI blocking. */
static void block_nmi_again(struct vmx_vcpu *v, uint64_t info)
{
    if (v->soft.cpu->event.valid || !vmx_iret_blocks_nmi(v->reason, info, 0))
        return;
    vmx_pull(v, VMX_G_BLOCKING);
    v->soft.cpu->nmi_blocked = true;
    vmx_changed(v, VMX_G_BLOCKING);
}

static int on_ept_violation(struct vmx_vcpu *v)
{
    uint64_t qualification = vmx_insn_get(VMX_EXIT_QUALIFICATION);
    uint64_t gpa = vmx_insn_read(VMX_GUEST_PHYS_ADDR);
    struct core_page page;
    int r;

    if (qualification & VMX_INTR_NMI_UNBLOCK)
        block_nmi_again(v, qualification);
    if (v->mmu.flat && vmx_identity_violation(v, gpa))
        return VMX_GO_ON;
    if (!vmx_is_memory(v, gpa, &page)) {
        if (vmx_apic_may_map(v, gpa, qualification))
            return vmx_apic_map(v, qualification) ? VMX_GO_ON : vmx_soft_one(v, true);
        r = vmx_on_mmio(v, gpa, qualification);
        return r == VMX_INJECT_SOFT ? vmx_soft_one(v, true) : r;
    }
    vmx_session_end(v); /* locks and allocations may wait */
    return vmx_mmu_violation(v, gpa, qualification) == VMX_MMU_SOFT ? vmx_soft_one(v, true)
                                                                    : VMX_GO_ON;
}

/* The end of the session empties the log; the write is made again. */
static int on_pml_full(struct vmx_vcpu *v)
{
    uint64_t qualification = vmx_insn_get(VMX_EXIT_QUALIFICATION);

    if (qualification & VMX_INTR_NMI_UNBLOCK)
        block_nmi_again(v, qualification);
    vmx_session_end(v);
    return VMX_GO_ON;
}

/* With shadow page tables. */
static int on_page_fault(struct vmx_vcpu *v, uint32_t intr)
{
    uint64_t linear = vmx_insn_get(VMX_EXIT_QUALIFICATION);
    uint32_t error = (uint32_t)vmx_insn_get(VMX_EXIT_INTR_ERROR);
    int r = vmx_on_mmio_fault(v, linear, error);

    if (r != VMX_INJECT_SOFT)
        return r;
    if (!vmx_has_ept())
        vmx_shadow_keep_blocking(v);
    block_nmi_again(v, intr);
    if (vmx_has_ept()) /* the guest, which has paging off, has changed the identity tables */
        return vmx_soft_one(v, true);
    vmx_pull(v, VMX_G_RIP | VMX_G_FLAGS | VMX_G_SEGS);
    vmx_session_end(v); /* locks and allocations may wait */
    return vmx_mmu_page_fault(v, linear, error) == VMX_MMU_SOFT ? vmx_soft_one(v, true) : VMX_GO_ON;
}

/* ---- events ---- */

void vmx_take_trap(struct vmx_vcpu *v)
{
    if (v->flags & X86_TF)
        v->soft.cpu->pending_db |= vmx_insn_read(VMX_GUEST_PENDING_DEBUG) & (X86_DR6_BS | 15);
}

static int on_exception(struct vmx_vcpu *v)
{
    uint32_t intr = (uint32_t)vmx_insn_get(VMX_EXIT_INTR_INFO);
    struct x86_cpu *cpu = v->soft.cpu;

    if ((intr & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT == VMX_TYPE_NMI) {
        vmx_session_end(v); /* the host has had it (run.c), and may want the CPU */
        return VMX_GO_ON;
    }
    if ((intr & VMX_INTR_VECTOR) == VMX_VECTOR_PF)
        return on_page_fault(v, intr);
    if (!vmx_has_ept())
        vmx_shadow_keep_blocking(v);
    if ((intr & VMX_INTR_VECTOR) == X86_DB) {
        /* INT1 is an instruction, whose event has no bits in DR6. */
        if ((intr & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT == VMX_TYPE_PRIV_SW)
            return vmx_soft_one(v, false);
        cpu->pending_db |= vmx_insn_get(VMX_EXIT_QUALIFICATION) & (X86_DR6_BS | X86_DR6_BD | 15);
        return VMX_GO_ON;
    }
    /* Instructions that the guest's CPUID offers and this CPU does not have, VMMCALL; or the
     * software CPU raises it again. */
    if ((intr & VMX_INTR_VECTOR) == X86_UD && !v->mmu.vm86)
        return vmx_soft_one(v, true);
    if (v->mmu.vm86 && (intr & VMX_INTR_VECTOR) != X86_MC) {
        v->mmu.linger = true;
        v->checked = false;
        return VMX_GO_ON;
    }
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "machine check in the guest");
}

/* The host takes it when interrupts are on again, and may want the CPU for another thread. */
static int on_interrupt(struct vmx_vcpu *v)
{
    v->poll = true;
    v->again = false;
    vmx_session_end(v);
    return VMX_GO_ON;
}

/* What had to wait for a lower task priority is delivered now. */
static int on_task_priority(struct vmx_vcpu *v)
{
    vmx_take_trap(v);
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
int vmx_on_impossible(struct vmx_vcpu *v)
{
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run",
                   "VM exit for reason %u (%s), which is not asked for", v->reason & 0xffff,
                   vmx_exit_name(v->reason));
}

static int on_misconfig(struct vmx_vcpu *v)
{
    uint64_t gpa = vmx_insn_read(VMX_GUEST_PHYS_ADDR);
    char text[160];

    vmx_session_end(v);
    vmx_mmu_misconfigured(v, gpa, text, sizeof(text));
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "%s", text);
}

static int on_machine_check(struct vmx_vcpu *v)
{
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "machine check at the VM entry");
}

int (*const vmx_handlers[VMX_NEXITS])(struct vmx_vcpu *v) = {
    [VMX_EXIT_EXCEPTION_NMI] = on_exception,
    [VMX_EXIT_EXTERNAL_INTERRUPT] = on_interrupt,
    [VMX_EXIT_TRIPLE_FAULT] = on_triple_fault,
    [VMX_EXIT_INIT] = on_nothing, /* blocked in VMX operation, and so lost */
    [VMX_EXIT_SIPI] = vmx_on_impossible,
    [VMX_EXIT_IO_SMI] = vmx_on_impossible, /* SMM with a monitor of its own */
    [VMX_EXIT_OTHER_SMI] = vmx_on_impossible,
    [VMX_EXIT_INTERRUPT_WINDOW] = on_nothing, /* vmx_inject looks again */
    [VMX_EXIT_NMI_WINDOW] = on_nothing,
    [VMX_EXIT_TASK_SWITCH] = on_insn,
    [VMX_EXIT_CPUID] = vmx_on_cpuid,
    [VMX_EXIT_GETSEC] = on_insn,
    [VMX_EXIT_HLT] = vmx_on_hlt,
    [VMX_EXIT_INVD] = on_insn,
    [VMX_EXIT_INVLPG] = vmx_on_invlpg,
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
    [VMX_EXIT_CR_ACCESS] = vmx_on_control_register,
    [VMX_EXIT_DR_ACCESS] = on_insn,
    [VMX_EXIT_IO] = vmx_on_io,
    [VMX_EXIT_RDMSR] = vmx_on_rdmsr,
    [VMX_EXIT_WRMSR] = vmx_on_wrmsr,
    [VMX_EXIT_ENTRY_GUEST_STATE] = vmx_on_impossible, /* entry failures do not come here */
    [VMX_EXIT_ENTRY_MSR_LOADING] = vmx_on_impossible,
    [VMX_EXIT_MWAIT] = on_insn,
    [VMX_EXIT_MONITOR_TRAP_FLAG] = on_nothing,
    [VMX_EXIT_MONITOR] = on_insn,
    [VMX_EXIT_PAUSE] = on_insn,
    [VMX_EXIT_ENTRY_MACHINE_CHECK] = on_machine_check,
    [VMX_EXIT_TPR_BELOW_THRESHOLD] = on_task_priority,
    [VMX_EXIT_APIC_ACCESS] = vmx_on_apic_access,
    [VMX_EXIT_VIRTUALIZED_EOI] = vmx_on_virtualized_eoi,
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
    [VMX_EXIT_APIC_WRITE] = vmx_on_apic_write,
    [VMX_EXIT_RDRAND] = on_insn,
    [VMX_EXIT_INVPCID] = on_insn,
    [VMX_EXIT_VMFUNC] = on_insn,
    [VMX_EXIT_ENCLS] = on_insn,
    [VMX_EXIT_RDSEED] = on_insn,
    [VMX_EXIT_PML_FULL] = on_pml_full,
    [VMX_EXIT_XSAVES] = on_vector_insn,
    [VMX_EXIT_XRSTORS] = on_vector_insn,
    [VMX_EXIT_PCONFIG] = on_insn,
    [VMX_EXIT_SPP] = vmx_on_impossible,
    [VMX_EXIT_UMWAIT] = on_insn,
    [VMX_EXIT_TPAUSE] = on_insn,
    [VMX_EXIT_LOADIWKEY] = on_vector_insn,
    [VMX_EXIT_ENCLV] = on_insn,
    [VMX_EXIT_ENQCMD_PASID] = vmx_on_impossible,
    [VMX_EXIT_ENQCMDS_PASID] = vmx_on_impossible,
    [VMX_EXIT_BUS_LOCK] = on_nothing,
    [VMX_EXIT_INSTRUCTION_TIMEOUT] = on_nothing,
};
