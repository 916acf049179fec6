/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/tsc.c: the guest's TSCs as the hardware computes them: (host TSC * ratio >> 48) +
 * offset. */
#include "backends/vmx/vmx.h"
#include "core/internal.h"
#include "freestanding/host.h"
#include "vmx/insn.h"

/*
 * The ticks that the vCPUs have in common are the host's, scaled, less those that had passed when
 * the VM was created and those of its pauses (`base`). Where the CPUs' counters do not agree, or
 * the frequency is another and the hardware does not scale, they are the VM's clock; RDTSC exits.
 */

static uint64_t host_ticks(const struct vmx_tsc *t)
{
    uint64_t tsc = vmx_insn_rdtsc();

    return t->ratio ? vmx_tsc_scale(tsc, t->ratio) : tsc;
}

uint64_t vmx_tsc(struct vm *vm)
{
    struct vmx_tsc *t = &((struct vmx_vm *)vm->backend_data)->tsc;

    if (!t->hardware)
        return (uint64_t)((unsigned __int128)vm_clock(vm) * vm->tsc_mult >> 32);
    for (;;) {
        uint32_t version = atomic_load(&t->version);
        uint64_t base = atomic_load(&t->base);
        uint64_t now = atomic_load(&t->stands) ? base : host_ticks(t) - base;

        if (!(version & 1) && version == atomic_load(&t->version))
            return now;
        os_relax();
    }
}

/* The VM's clock stops or goes on, while no vCPU is in the guest. The base of one that stands is
 * its time. */
void vmx_tsc_changed(struct vm *vm, bool runs)
{
    struct vmx_tsc *t = &((struct vmx_vm *)vm->backend_data)->tsc;

    if (!t->hardware)
        return;
    atomic_fetch_add(&t->version, 1);
    atomic_store(&t->base, host_ticks(t) - atomic_load(&t->base));
    atomic_store(&t->stands, !runs);
    atomic_fetch_add(&t->version, 1);
}

void vmx_tsc_init(struct vmx_vm *vv)
{
    const struct vm *vm = vv->vm;
    struct vmx_tsc *t = &vv->tsc;

    if (!vmx_uses(VMX_GROUP_PROC, VMX_PROC_TSC_OFFSETTING) || !vmx_machine.same_tsc)
        return;
    if (vm->tsc_khz != vmm_host->tsc_khz) {
        if (!vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_TSC_SCALING))
            return;
        t->ratio = vmx_tsc_ratio(vm->tsc_khz, vmm_host->tsc_khz);
        if (!t->ratio)
            return;
    }
    t->hardware = true;
    atomic_store(&t->base, host_ticks(t));
}

/* ---- of a vCPU ---- */

void vmx_tsc_controls(struct vmx_vcpu *v)
{
    const struct vmx_tsc *t = &vmx_vm_of(v)->tsc;

    if (t->hardware)
        v->proc &= ~(uint32_t)VMX_PROC_RDTSC;
    else
        v->proc &= ~(uint32_t)VMX_PROC_TSC_OFFSETTING;
    if (t->ratio)
        vmx_insn_put(VMX_TSC_MULTIPLIER, t->ratio);
    else
        v->proc2 &= ~(uint32_t)VMX_PROC2_TSC_SCALING;
    v->tsc_offset = 0;
    if (t->hardware)
        vmx_insn_put(VMX_TSC_OFFSET, 0);
}
