/* SPDX-License-Identifier: BSD-2-Clause */
/* debug_exit.c: isa-debug-exit, the port with which test kernels end the run. */
#include <stdlib.h>

#include <vmm/vcpu.h>

#include "device.h"

struct debug_exit {
    struct vm *vm;
    struct pio *pio;
};

static int debug_exit_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)offset, (void)size;
    *value = 0;
    return VMM_IO_OK;
}

static int debug_exit_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct debug_exit *d = opaque;

    (void)offset, (void)size;
    vm_request_exit(d->vm, VMM_EXIT_USER, value << 1 | 1);
    return VMM_IO_OK;
}

static void debug_exit_stop(void *opaque)
{
    struct debug_exit *d = opaque;

    pio_unregister(d->pio);
    free(d);
}

int vmm_debug_exit_create(struct vm *vm, uint16_t port, uint16_t len)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .name = "debug-exit",
        .read = debug_exit_read,
        .write = debug_exit_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "debug-exit", .stop = debug_exit_stop};
    struct debug_exit *d = calloc(1, sizeof *d);
    int r;

    if (!d)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_debug_exit_create", "no memory");
    d->vm = vm;
    r = pio_register(vm, port, len, &io, d, &d->pio);
    if (!r)
        r = vm_device_add(vm, &ops, d, NULL);
    if (r)
        debug_exit_stop(d);
    return r;
}
