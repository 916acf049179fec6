/* SPDX-License-Identifier: BSD-2-Clause */
/* i8042.c: keyboard controller. */
#include "device.h"

int vmm_i8042_create(struct vm *vm, struct vmm_i8042 **out)
{
    (void)vm;
    if (out)
        *out = NULL;
    return 0;
}

void vmm_i8042_key(struct vmm_i8042 *i8042, uint32_t scancode, int pressed)
{
    (void)i8042, (void)scancode, (void)pressed;
}

void vmm_i8042_mouse(struct vmm_i8042 *i8042, int dx, int dy, int dz, uint32_t buttons)
{
    (void)i8042, (void)dx, (void)dy, (void)dz, (void)buttons;
}
