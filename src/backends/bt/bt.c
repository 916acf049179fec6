/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/bt.c: the engine: the software CPU with the translator as a tier on top. */
#include <errno.h>
#include <stdlib.h>

#include <Zydis/Zydis.h>

#include "backends/bt/check.h"
#include "backends/shadow/shadow.h"

static void bt_probe(struct vmm_backend_report *report)
{
    if (!interp_can_run(report))
        return;
    report->result = VMM_OK;
    strcpy(report->reason, "binary translator, needs executable memory");
}

static int bt_vm_init(struct vm *vm)
{
    (void)vm;
    return VMM_OK;
}

static void bt_vm_fini(struct vm *vm)
{
    (void)vm;
}

static void bt_vcpu_fini(struct vcpu *vcpu)
{
    struct interp_vcpu *iv = vcpu->backend_data;

    if (!iv)
        return;
    if (check_of(vcpu)) {
        bt_check_close(vcpu);
        return;
    }
    vcpu->backend_data = NULL;
    shadow_detach(iv);
    bt_detach(iv->cpu);
    interp_vcpu_close(iv);
    free(iv);
}

_Static_assert(VMM_CODE_CACHE_MIN >= 8 * BT_MAX_CODE, "room for some translations");

int bt_attach_vcpu(struct x86_cpu *cpu, const struct vcpu *vcpu)
{
    const struct vm *vm = vcpu->vm;
    size_t size = vm->code_cache ? (size_t)vm->code_cache & ~(size_t)(MMU_PAGE_SIZE - 1) : BT_ARENA;
    int err = bt_attach(cpu, vm->flags & VMM_VM_TRANSLATE_ALL ? 1 : BT_HOT, size);

    if (!err && (vm->flags & VMM_VM_BASELINE))
        bt_limit_host(cpu, &(struct bt_features){0});
    return err;
}

static int bt_vcpu_init(struct vcpu *vcpu)
{
    struct interp_vcpu *iv;
    int err;

    if (vcpu->vm->flags & VMM_VM_LOCKSTEP)
        return bt_check_open(vcpu);
    iv = calloc(1, sizeof(*iv));
    if (!iv)
        return VMM_E_NOMEM;
    err = interp_vcpu_open(iv, vcpu);
    if (err) {
        free(iv);
        return err;
    }
    err = bt_attach_vcpu(iv->cpu, vcpu);
    if (err) {
        bt_vcpu_fini(vcpu);
        return err == EPERM || err == EACCES ? VMM_E_PERM : VMM_E_NOMEM;
    }
    if (vcpu->vm->flags & VMM_VM_DIRECT)
        err = shadow_attach(iv);
    if (err)
        bt_vcpu_fini(vcpu);
    return err;
}

static void bt_wake(struct vcpu *vcpu)
{
    interp_wake(vcpu);
    if ((vcpu->vm->flags & VMM_VM_DIRECT) && vcpu->backend_data)
        shadow_wake(vcpu->backend_data);
}

static int bt_run(struct vcpu *vcpu, bool step)
{
    return check_of(vcpu) ? bt_check_run(vcpu, step) : interp_run(vcpu, step);
}

static int bt_set_cpuid(struct vcpu *vcpu)
{
    struct check *c = check_of(vcpu);

    if (c)
        x86_cpuid_changed(c->tested, vcpu->cpuid, vcpu->ncpuid);
    return interp_set_cpuid(vcpu);
}

/* The tested CPUs know the memory of the last segment only, except for their blocks. */
static void drop_tested(struct vm *vm)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++)
        if ((vm->flags & VMM_VM_LOCKSTEP) && interp_at(vm, i))
            x86_cache_flush(((struct check *)interp_at(vm, i))->tested);
}

static void bt_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    interp_mem_map_changed(vm, gpa, len);
    drop_tested(vm);
}

static void bt_code_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    interp_code_changed(vm, gpa, len);
    drop_tested(vm);
}

static void bt_fallbacks(struct vm *vm, struct core_counts *list)
{
    for (unsigned m = 1; m < BT_MNEMONICS && m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        uint64_t sum = 0;

        for (unsigned i = 0; i < vm->max_vcpus; i++) {
            const struct x86_cpu *cpu = interp_cpu_at(vm, i);
            const struct bt *bt = cpu ? cpu->tier_state : NULL;

            if (bt)
                sum += atomic_load_explicit(&bt->fallbacks[m], memory_order_relaxed);
        }
        core_counts_add(list, 0, ZydisMnemonicGetString((ZydisMnemonic)m), sum);
    }
}

const struct vmm_backend_ops vmm_backend_bt = {
    .name = "bt",
    .direct = true,
    .probe = bt_probe,
    .vm_init = bt_vm_init,
    .vm_fini = bt_vm_fini,
    .caps = interp_caps,
    .stats = interp_stats,
    .fallbacks = bt_fallbacks,
    .default_cpuid = interp_default_cpuid,
    .vcpu_init = bt_vcpu_init,
    .vcpu_fini = bt_vcpu_fini,
    .vcpu_reset = interp_vcpu_reset,
    .run = bt_run,
    .wake = bt_wake,
    .get_regs = interp_get_regs,
    .set_regs = interp_set_regs,
    .get_xsave = interp_get_xsave,
    .set_xsave = interp_set_xsave,
    .get_msr = interp_get_msr,
    .set_msr = interp_set_msr,
    .set_cpuid = bt_set_cpuid,
    .set_debug = interp_set_debug,
    .translate = interp_translate,
    .irq_window = interp_irq_window,
    .mem_map_changed = bt_mem_map_changed,
    .code_changed = bt_code_changed,
    .dirty_cleared = interp_dirty_cleared,
};
