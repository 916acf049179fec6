/* SPDX-License-Identifier: BSD-2-Clause */
/* core/vcpu.c: vCPUs: life cycle, who may use them, requests to them. Running them is in run.c. */
#include <stdlib.h>

#include "core/internal.h"

/* ---- requests ---- */

/*
 * The request is stored before `where` is looked at, and a vCPU stores VCPU_WAIT before it sleeps
 * on the request word, so either we see that it sleeps or it sees the request.
 */
void core_vcpu_request(struct vcpu *vcpu, uint32_t bits)
{
    /* Keeps vcpu_destroy from taking the engine's state away under us. */
    atomic_fetch_add(&vcpu->waking, 1);
    if (atomic_load(&vcpu->alive)) {
        const struct vmm_backend_ops *ops = vcpu->vm->ops;

        atomic_fetch_or(&vcpu->requests, bits);
        if (ops->wake)
            ops->wake(vcpu);
        if (atomic_load(&vcpu->where) == VCPU_WAIT)
            os_wake(&vcpu->requests);
    }
    atomic_fetch_sub(&vcpu->waking, 1);
}

void core_request_all(struct vm *vm, uint32_t bits)
{
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu)
            core_vcpu_request(vcpu, bits);
    }
}

void vcpu_kick(struct vcpu *vcpu)
{
    if (vcpu)
        core_vcpu_request(vcpu, VCPU_REQ_KICK);
}

/* ---- claims ---- */

int core_vcpu_claim(struct vcpu *vcpu, const char *op, bool *nested)
{
    uintptr_t self = os_thread_self(), owner = 0;

    *nested = false;
    if (atomic_compare_exchange_strong(&vcpu->vm->owner[vcpu->id], &owner, self)) {
        if (atomic_load(&vcpu->alive))
            return 0;
        atomic_store(&vcpu->vm->owner[vcpu->id], 0);
        return vm_fail(vcpu->vm, VMM_E_STATE, op, "vCPU %u has been destroyed", vcpu->id);
    }
    if (owner == self && !atomic_load(&vcpu->alive)) /* a callback of vm_destroy */
        return vm_fail(vcpu->vm, VMM_E_STATE, op, "vCPU %u has been destroyed", vcpu->id);
    if (owner == self) {
        *nested = true;
        return 0;
    }
    return vm_fail(vcpu->vm, VMM_E_BUSY, op, "another thread runs vCPU %u", vcpu->id);
}

void core_vcpu_release(struct vcpu *vcpu, bool nested)
{
    if (!nested)
        atomic_store(&vcpu->vm->owner[vcpu->id], 0);
}

static void release_first(struct vm *vm, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        atomic_store(&vm->owner[i], 0);
}

int core_claim_all(struct vm *vm, const char *op)
{
    uintptr_t self = os_thread_self();

    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        uintptr_t owner = 0;

        if (atomic_compare_exchange_strong(&vm->owner[i], &owner, self))
            continue;
        release_first(vm, i);
        return vm_fail(vm, VMM_E_BUSY, op, "vCPU %u is in use by %s thread", i,
                       owner == self ? "this" : "another");
    }
    return 0;
}

void core_release_all(struct vm *vm)
{
    release_first(vm, vm->max_vcpus);
}

/* ---- reset ---- */

static void set_activity(struct vcpu *vcpu, uint32_t activity)
{
    struct vcpu_regs regs;

    if (core_regs_get(vcpu, VMM_REGS_EVENTS, &regs))
        return;
    regs.activity = activity;
    core_regs_set(vcpu, &regs);
}

void core_vcpu_reset(struct vcpu *vcpu, bool init)
{
    bool entered = core_engine_enter(vcpu);

    vcpu->vm->ops->vcpu_reset(vcpu, init);
    core_engine_leave(vcpu, entered);
    core_io_drop(vcpu);
    vcpu->answer = ANSWER_NONE;
    vcpu->restart = false;
    if (!init) {
        core_tsc_reset(vcpu);
        vcpu->irq_window_wanted = false;
        os_mutex_lock(&vcpu->vm->lock);
        vcpu->nexit_requests = 0;
        os_mutex_unlock(&vcpu->vm->lock);
    } else if (vcpu->lapic) {
        lapic_reset(vcpu->lapic, true);
    }
    /* SDM Vol. 3A 9.4.2: the boot processor starts at once, the others wait for SIPI. */
    if (vcpu->vm->irqchip_kind != VMM_IRQCHIP_NONE && vcpu->id != 0)
        set_activity(vcpu, VMM_WAIT_SIPI);
}

/* ---- life cycle ---- */

/* A slot's memory, made at its first use and kept. Under vm->lock. */
static struct vcpu *slot(struct vm *vm, uint32_t id)
{
    struct vcpu *vcpu = atomic_load(&vm->vcpus[id]);

    if (vcpu)
        return vcpu;
    vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return NULL;
    vcpu->vm = vm;
    vcpu->id = id;
    atomic_store(&vm->vcpus[id], vcpu);
    return vcpu;
}

static void clear(struct vcpu *vcpu, void *data)
{
    vcpu->data = data;
    vcpu->backend_data = NULL;
    atomic_store(&vcpu->requests, 0);
    vcpu->insn_budget = UINT64_MAX;
    vcpu->budget_insns = vcpu->budget_ns = 0;
    vcpu->budget_deadline = UINT64_MAX;
    memset(&vcpu->exit, 0, sizeof(vcpu->exit));
    vcpu->nmsr_ranges = 0;
    vcpu->ncpuid = 0;
    vcpu->io_hit[0] = vcpu->io_hit[1] = NULL;
}

/* With the world stopped, under vm->lock. */
static int init_engine(struct vcpu *vcpu)
{
    int err = vcpu->vm->ops->vcpu_init(vcpu);

    if (err)
        return vm_fail(vcpu->vm, err, "vcpu_create", "the backend could not create vCPU %u: %s",
                       vcpu->id, vmm_strerror(err));
    err = core_cpuid_init(vcpu);
    if (!err)
        return 0;
    vcpu->vm->ops->vcpu_fini(vcpu);
    vcpu->backend_data = NULL;
    return vm_fail(vcpu->vm, err, "vcpu_create", "no CPUID table for vCPU %u: %s", vcpu->id,
                   vmm_strerror(err));
}

static void fini_engine(struct vcpu *vcpu)
{
    vcpu->vm->ops->vcpu_fini(vcpu);
    vcpu->backend_data = NULL;
}

/* The claim of the slot keeps other creators and destroyers of it out. */
static int create(struct vm *vm, uint32_t id, void *data, struct vcpu **out)
{
    core_world_stop(vm); /* engines walk the vCPUs when memory changes */
    os_mutex_lock(&vm->lock);
    struct vcpu *vcpu = slot(vm, id);
    int err = VMM_E_NOMEM;
    if (vcpu) {
        clear(vcpu, data);
        err = init_engine(vcpu);
    } else {
        vm_fail(vm, err, "vcpu_create", "no memory for vCPU %u", id);
    }
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
    if (err)
        return err;

    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_USER) {
        err = lapic_create(vm->irqchip, vcpu, &vcpu->lapic);
        if (err) {
            core_vcpu_fini(vcpu);
            return vm_fail(vm, err, "vcpu_create", "no local APIC for vCPU %u: %s", id,
                           vmm_strerror(err));
        }
    }
    core_vcpu_reset(vcpu, false);
    atomic_store(&vcpu->alive, true);
    *out = vcpu;
    return 0;
}

int vcpu_create(struct vm *vm, uint32_t id, void *data, struct vcpu **out)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!out)
        return vm_fail(vm, VMM_E_INVAL, __func__, "out is NULL");
    if (id >= vm->max_vcpus)
        return vm_fail(vm, VMM_E_RANGE, __func__, "vCPU %u, but the VM has at most %u", id,
                       vm->max_vcpus);

    uintptr_t owner = 0;
    bool claimed = atomic_compare_exchange_strong(&vm->owner[id], &owner, os_thread_self());
    int err;
    if (vm_vcpu(vm, id))
        err = vm_fail(vm, VMM_E_EXIST, __func__, "vCPU %u exists", id);
    else if (!claimed)
        err = vm_fail(vm, VMM_E_BUSY, __func__,
                      "vCPU %u is being created or destroyed, or the VM reset", id);
    else
        err = create(vm, id, data, out);
    if (claimed)
        atomic_store(&vm->owner[id], 0);
    return err;
}

void core_vcpu_fini(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;

    atomic_store(&vcpu->alive, false);
    /* Waits for a firing timer of the local APIC, so it comes before any lock. */
    lapic_destroy(vcpu->lapic);
    vcpu->lapic = NULL;
    while (atomic_load(&vcpu->waking))
        os_yield();
    core_io_drop(vcpu);

    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    fini_engine(vcpu);
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
}

int vcpu_destroy(struct vcpu *vcpu)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    if (nested)
        return vm_fail(vcpu->vm, VMM_E_BUSY, __func__, "vCPU %u is inside vcpu_run", vcpu->id);
    core_vcpu_fini(vcpu);
    core_vcpu_release(vcpu, false);
    return 0;
}

/* ---- what is known of a vCPU ---- */

struct vm *vcpu_vm(struct vcpu *vcpu)
{
    return vcpu ? vcpu->vm : NULL;
}

uint32_t vcpu_id(struct vcpu *vcpu)
{
    return vcpu ? vcpu->id : 0;
}

void *vcpu_data(struct vcpu *vcpu)
{
    return vcpu ? vcpu->data : NULL;
}

struct vcpu *vm_vcpu(struct vm *vm, uint32_t id)
{
    struct vcpu *vcpu = vm && id < vm->max_vcpus ? atomic_load(&vm->vcpus[id]) : NULL;

    return vcpu && atomic_load(&vcpu->alive) ? vcpu : NULL;
}

struct vcpu *vcpu_current(struct vm *vm)
{
    struct vcpu *vcpu = vm ? core_world_self(vm) : NULL;

    return vcpu && atomic_load(&vcpu->where) == VCPU_RUN ? vcpu : NULL;
}

int vcpu_set_budget(struct vcpu *vcpu, uint64_t insns, uint64_t ns)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    vcpu->budget_insns = insns;
    vcpu->budget_ns = ns;
    core_vcpu_release(vcpu, nested);
    return 0;
}
