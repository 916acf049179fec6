/* SPDX-License-Identifier: BSD-2-Clause */
/* core/debug.c: checks of the host program's breakpoints; the engine does the rest. */
#include "core/internal.h"

#include <vmm/debug.h>

static int check_breakpoint(struct vm *vm, const struct vmm_breakpoint *b, uint32_t index)
{
    bool exec = b->type == VMM_BREAK_EXEC;

    if (!exec && b->type != VMM_BREAK_WRITE && b->type != VMM_BREAK_ACCESS)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_set_debug", "breakpoint %u: unknown type %u", index,
                       b->type);
    if (!(vm->caps.caps & (exec ? VMM_CAP_BREAKPOINT : VMM_CAP_WATCHPOINT)))
        return vm_fail(vm, VMM_E_UNSUPPORTED, "vcpu_set_debug", "backend %s has no %s",
                       vm->ops->name, exec ? "breakpoints" : "watchpoints");
    if (exec && b->len > 1)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_set_debug",
                       "breakpoint %u: length %u, but instruction breakpoints have 1", index,
                       b->len);
    if (!exec && b->len != 1 && b->len != 2 && b->len != 4 && b->len != 8)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_set_debug", "watchpoint %u: length %u", index,
                       b->len);
    if (!exec && b->addr % b->len)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_set_debug", "watchpoint %u: %#llx is not aligned",
                       index, (unsigned long long)b->addr);
    return 0;
}

static int check(struct vm *vm, const struct vmm_debug *d)
{
    if (d->flags & ~VMM_DEBUG_EXCEPTIONS)
        return vm_fail(vm, VMM_E_UNSUPPORTED, "vcpu_set_debug", "unknown flags %#x",
                       d->flags & ~VMM_DEBUG_EXCEPTIONS);
    if (d->nbreakpoints > 4)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_set_debug", "%u breakpoints, but there are 4",
                       d->nbreakpoints);
    for (uint32_t i = 0; i < d->nbreakpoints; i++) {
        int err = check_breakpoint(vm, &d->breakpoints[i], i);
        if (err)
            return err;
    }
    return 0;
}

int vcpu_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    struct vmm_debug own = {.size = sizeof(own)};
    bool nested;
    int err = 0;

    if (!vcpu)
        return VMM_E_INVAL;
    if (debug)
        err = core_copy_in(&own, sizeof(own), debug, 2 * sizeof(uint32_t));
    if (err)
        return vm_fail(vcpu->vm, err, __func__, "bad struct vmm_debug");
    err = check(vcpu->vm, &own);
    if (err)
        return err;
    err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    bool entered = core_engine_enter(vcpu);
    err = vcpu->vm->ops->set_debug(vcpu, &own);
    core_engine_leave(vcpu, entered);
    core_vcpu_release(vcpu, nested);
    return err;
}
