/* SPDX-License-Identifier: BSD-2-Clause */
/* core/device.c: the VM's list of device models. */
#include <stdlib.h>

#include "core/internal.h"

struct vmm_device {
    struct vm *vm;
    struct vmm_device_ops ops;
    void *opaque;
    struct vmm_device *next; /* the one that was added before */
};

int vm_device_add(struct vm *vm, const struct vmm_device_ops *ops, void *opaque,
                  struct vmm_device **out)
{
    struct vmm_device *d;
    int err;

    if (!vm)
        return VMM_E_INVAL;
    d = calloc(1, sizeof(*d));
    if (!d)
        return vm_fail(vm, VMM_E_NOMEM, __func__, "no memory for the device");
    err = core_copy_in(&d->ops, sizeof(d->ops), ops, offsetof(struct vmm_device_ops, name));
    if (!err && d->ops.reserved)
        err = VMM_E_UNSUPPORTED;
    if (err) {
        free(d);
        return vm_fail(vm, err, __func__, "bad struct vmm_device_ops");
    }
    d->vm = vm;
    d->opaque = opaque;
    if (out)
        *out = d;
    os_mutex_lock(&vm->lock);
    d->next = vm->devices;
    vm->devices = d;
    os_mutex_unlock(&vm->lock);
    return 0;
}

/* Takes the device out of the list; false if it is not there (any more). */
static bool unlink_device(struct vm *vm, const struct vmm_device *device)
{
    bool found = false;

    os_mutex_lock(&vm->lock);
    for (struct vmm_device **p = &vm->devices; *p && !found;) {
        found = *p == device;
        if (found)
            *p = device->next;
        else
            p = &(*p)->next;
    }
    os_mutex_unlock(&vm->lock);
    return found;
}

static void device_stop(struct vmm_device *d)
{
    if (d->ops.stop)
        d->ops.stop(d->opaque);
    free(d);
}

int vm_device_remove(struct vmm_device *device)
{
    struct vm *vm;
    int err;

    if (!device)
        return 0;
    vm = device->vm;
    err = core_claim_all(vm, __func__);
    if (err)
        return err;
    if (unlink_device(vm, device))
        device_stop(device);
    core_release_all(vm);
    return 0;
}

static struct vmm_device *older(struct vm *vm, struct vmm_device *d)
{
    os_mutex_lock(&vm->lock);
    d = d ? d->next : vm->devices;
    os_mutex_unlock(&vm->lock);
    return d;
}

void core_devices_reset(struct vm *vm)
{
    for (struct vmm_device *d = older(vm, NULL); d; d = older(vm, d))
        if (d->ops.reset)
            d->ops.reset(d->opaque);
}

void core_devices_stop(struct vm *vm)
{
    struct vmm_device *d;

    while ((d = older(vm, NULL)))
        if (unlink_device(vm, d))
            device_stop(d);
}
