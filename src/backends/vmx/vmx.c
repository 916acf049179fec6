/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/vmx.c: the engine's table: VMs, vCPUs, and what changes their memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/xstate.h"
#include "freestanding/host.h"
#include "vmx/decode.h"

/* ---- VMs ---- */

static void probe(struct vmm_backend_report *report)
{
    report->result = vmx_host_probe(report->reason, sizeof(report->reason));
    if (!report->result)
        snprintf(report->reason, sizeof(report->reason), "VMX with %s%s",
                 vmx_has_ept() ? "EPT" : "shadow page tables",
                 vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST)
                     ? ""
                     : "; real mode by virtual-8086 mode");
}

static void vm_fini(struct vm *vm)
{
    struct vmx_vm *vv = vm->backend_data;

    if (!vv)
        return;
    vm->backend_data = NULL;
    vmx_mmu_fini(vv);
    free(vv);
    vmx_host_put();
}

static int vm_init(struct vm *vm)
{
    char why[160];
    int err = vmx_host_get(why, sizeof(why));
    struct vmx_vm *vv;

    if (err)
        return vm_fail(vm, err, "vm_create", "%s", why);
    vv = calloc(1, sizeof(*vv));
    if (!vv) {
        vmx_host_put();
        return vm_fail(vm, VMM_E_NOMEM, "vm_create", "no memory");
    }
    vv->vm = vm;
    vv->map_generation = 1;
    vm->backend_data = vv;
    err = vmx_mmu_init(vv);
    /* Last: the VM's clock begins behind this, and page tables take their time. */
    vmx_tsc_init(vv);
    if (!err)
        return VMM_OK;
    vm_fini(vm);
    return vm_fail(vm, err, "vm_create", "%s",
                   err == VMM_E_NOMEM ? "no memory for page tables of the hardware"
                                      : "without EPT there are at most 63 vCPUs");
}

/* Faults of shadow paging are TLB misses, too. */
static void stats(struct vm *vm, struct vm_stats *s)
{
    const struct shadow *shadow = ((struct vmx_vm *)vm->backend_data)->mmu.shadow;

    interp_stats(vm, s);
    if (shadow)
        s->tlb_misses += shadow_counts(shadow)->faults;
}

static void caps(struct vm *vm, struct vm_caps *c)
{
    interp_caps(vm, c);
    c->caps |= VMM_CAP_HW;
    c->gpa_bits = vmx_gpa_bits(c->gpa_bits);
    if (vmx_mmu_marks_tables())
        c->caps &= ~VMM_CAP_DIRTY_EXACT;
}

/* ---- vCPUs ---- */

static void vcpu_fini(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend_data;

    if (!v)
        return;
    vmx_mmu_vcpu_fini(v);
    vcpu->backend_data = NULL;
    vmx_vmcs_destroy(&vmx_machine, &v->vmcs);
    vmx_pages.free(NULL, v->xsave);
    vmx_pages.free(NULL, v->msr_bits);
    vmx_area_close(v);
    vmx_apic_fini(v);
    vmx_pml_fini(v);
    vmx_vpid_put(v->tlb.vpid);
    interp_vcpu_close(&v->soft);
    free(v);
}

_Static_assert(X86_XSAVE_MAX <= 4096, "an XSAVE area is one page");

static int vcpu_init(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = calloc(1, sizeof(*v));
    int err;

    if (!v)
        return VMM_E_NOMEM;
    v->vcpu = vcpu;
    v->vv = vcpu->vm->backend_data;
    v->valid = v->newer = VMX_G_ALL;
    v->poll = true;
    v->host_cpu = VMX_NO_CPU;
    vmx_tlb_init(&v->tlb, vmx_vpid_get());
    v->xsave = vmx_pages.alloc(NULL, false);
    v->msr_bits = vmx_pages.alloc(NULL, false);
    err = v->xsave && v->msr_bits ? vmx_vmcs_create(&vmx_machine, &v->vmcs) : VMM_E_NOMEM;
    if (!err)
        err = vmx_area_open(v);
    if (!err)
        err = vmx_apic_init(v);
    if (!err)
        err = vmx_pml_init(v);
    if (!err)
        err = interp_vcpu_open(&v->soft, vcpu);
    if (err) {
        vmx_vmcs_destroy(&vmx_machine, &v->vmcs);
        if (v->xsave)
            vmx_pages.free(NULL, v->xsave);
        if (v->msr_bits)
            vmx_pages.free(NULL, v->msr_bits);
        vmx_area_close(v);
        vmx_apic_fini(v);
        vmx_pml_fini(v);
        vmx_vpid_put(v->tlb.vpid);
        free(v);
        return err;
    }
    vmx_msr_policy(vcpu);
    vmx_mmu_vcpu_init(v);
    return VMM_OK;
}

static void wake(struct vcpu *vcpu)
{
    struct vmx_vcpu *v = vcpu->backend_data;
    uint32_t cpu;

    if (!v)
        return;
    interp_wake(vcpu);
    cpu = atomic_load(&v->running);
    if (cpu && vmm_host->kick)
        vmm_host->kick(vmm_host->ctx, cpu - 1);
}

/* ---- registers: those of the groups that are asked for ---- */

static struct vmx_vcpu *of(struct vcpu *vcpu)
{
    return vcpu->backend_data;
}

static uint32_t groups_of(uint32_t regs)
{
    uint32_t groups = 0;

    if (regs & VMM_REGS_GPR)
        groups |= VMX_G_RIP | VMX_G_RSP | VMX_G_FLAGS;
    if (regs & VMM_REGS_SEG)
        groups |= VMX_G_SEGS;
    if (regs & VMM_REGS_DT)
        groups |= VMX_G_TABLES;
    if (regs & VMM_REGS_CONTROL)
        groups |= VMX_G_CONTROL;
    if (regs & VMM_REGS_EVENTS)
        groups |= VMX_G_BLOCKING;
    return groups;
}

static int get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    vmx_pull(of(vcpu), groups_of(regs->groups));
    return interp_get_regs(vcpu, regs);
}

/* All of them: what is new is checked together with the rest. */
static int set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    struct vmx_vcpu *v = of(vcpu);

    vmx_pull(v, VMX_G_VMCS);
    if (v->in_insn && (regs->groups & VMM_REGS_GPR) && regs->rip != v->soft.cpu->rip)
        return vm_fail(vcpu->vm, VMM_E_STATE, "vcpu_set_regs",
                       "a callback cannot move RIP: its instruction is not over");
    vmx_changed(v, VMX_G_VMCS);
    return interp_set_regs(vcpu, regs);
}

static int get_xsave(struct vcpu *vcpu, void *area, uint32_t len)
{
    vmx_pull(of(vcpu), VMX_G_FPU);
    return interp_get_xsave(vcpu, area, len);
}

static int set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    vmx_pull(of(vcpu), VMX_G_ALL);
    vmx_changed(of(vcpu), VMX_G_FPU);
    return interp_set_xsave(vcpu, area, len);
}

static int get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
    vmx_pull(of(vcpu), VMX_G_VMCS);
    return interp_get_msr(vcpu, index, value);
}

static int set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    vmx_pull(of(vcpu), VMX_G_VMCS);
    vmx_changed(of(vcpu), VMX_G_VMCS);
    return interp_set_msr(vcpu, index, value);
}

static int set_cpuid(struct vcpu *vcpu)
{
    vmx_pull(of(vcpu), VMX_G_ALL);
    vmx_changed(of(vcpu), VMX_G_ALL);
    memset(of(vcpu)->leaves, 0, sizeof(of(vcpu)->leaves));
    return interp_set_cpuid(vcpu);
}

static void vcpu_reset(struct vcpu *vcpu, bool init)
{
    vmx_pull(of(vcpu), VMX_G_ALL);
    vmx_changed(of(vcpu), VMX_G_ALL);
    interp_vcpu_reset(vcpu, init);
}

static int translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok)
{
    vmx_pull(of(vcpu), VMX_G_FLAGS | VMX_G_SEGS | VMX_G_CONTROL);
    return interp_translate(vcpu, gva, gpa, ok);
}

static bool irq_window(struct vcpu *vcpu)
{
    vmx_pull(of(vcpu), VMX_G_FLAGS | VMX_G_BLOCKING);
    return interp_irq_window(vcpu);
}

static int set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    struct vmx_vcpu *v = of(vcpu);
    int err;

    vmx_pull(v, VMX_G_VMCS);
    v->checked = false;
    err = interp_set_debug(vcpu, debug);
    if (!err)
        v->debug = v->soft.cpu->nhost_bp || v->soft.cpu->host_exceptions;
    return err;
}

static const struct backend_host_ops host_services = {
    .dirty_start = vmx_dirty_start, .dirty_stop = vmx_dirty_stop, .dirty_sync = vmx_dirty_sync};

const struct vmm_backend_ops vmm_backend_vmx = {
    .name = "vmx",
    .probe = probe,
    .vm_init = vm_init,
    .vm_fini = vm_fini,
    .caps = caps,
    .stats = stats,
    .default_cpuid = vmx_default_cpuid,
    .vcpu_init = vcpu_init,
    .vcpu_fini = vcpu_fini,
    .vcpu_reset = vcpu_reset,
    .run = vmx_run,
    .wake = wake,
    .get_regs = get_regs,
    .set_regs = set_regs,
    .get_xsave = get_xsave,
    .set_xsave = set_xsave,
    .get_msr = get_msr,
    .set_msr = set_msr,
    .set_cpuid = set_cpuid,
    .set_debug = set_debug,
    .msr_policy = vmx_msr_policy,
    .translate = translate,
    .irq_window = irq_window,
    .mem_map_changed = vmx_mem_map_changed,
    .code_changed = vmx_code_changed,
    .dirty_cleared = vmx_dirty_cleared,
    .tsc = vmx_tsc,
    .tsc_changed = vmx_tsc_changed,
    .host = &host_services,
};
