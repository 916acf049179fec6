/* SPDX-License-Identifier: BSD-2-Clause */
/* pvpanic.c: the ISA port through which a guest kernel reports that it panicked. */
#include <stdlib.h>

#include <vmm/vcpu.h>

#include "device.h"

/* The events of the interface; a read tells the guest which ones are understood. */
#define PVPANIC_PANICKED     1u
#define PVPANIC_CRASH_LOADED 2u /* a crash kernel takes over: the program may run on */
#define PVPANIC_EVENTS       (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
    struct vm *vm;
    struct pio *pio;
};

static int pvpanic_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)offset, (void)size;
    *value = PVPANIC_EVENTS;
    return VMM_IO_OK;
}

static int pvpanic_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct pvpanic *p = opaque;

    (void)offset, (void)size;
    if (value & PVPANIC_EVENTS)
        vm_request_exit(p->vm, VMM_EXIT_PANIC, value & PVPANIC_EVENTS);
    return VMM_IO_OK;
}

static void pvpanic_stop(void *opaque)
{
    struct pvpanic *p = opaque;

    pio_unregister(p->pio);
    free(p);
}

int vmm_pvpanic_create(struct vm *vm, uint16_t port)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 1,
        .name = "pvpanic",
        .read = pvpanic_read,
        .write = pvpanic_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "pvpanic", .stop = pvpanic_stop};
    struct pvpanic *p = calloc(1, sizeof *p);
    int r;

    if (!p)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_pvpanic_create", "no memory");
    p->vm = vm;
    r = pio_register(vm, port, 1, &io, p, &p->pio);
    if (!r)
        r = vm_device_add(vm, &ops, p, NULL);
    if (r)
        pvpanic_stop(p);
    return r;
}
