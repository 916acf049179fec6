/* SPDX-License-Identifier: BSD-2-Clause */
/* reset_control.h: the reset control register at port 0xcf9 (82371SB PIIX3, 2.5.4). It lies inside
 * the 32-bit port of PCI's configuration mechanism 1, so the host bridge has it where there is one
 * and the ACPI block otherwise. */
#ifndef VMM_DEVICES_RESET_CONTROL_H
#define VMM_DEVICES_RESET_CONTROL_H

#include <vmm/device.h>
#include <vmm/vcpu.h>

#define RESET_CONTROL_PORT 0xcf9
#define RESET_CONTROL_HARD 0x02u /* what RCPU does: a hard reset */
#define RESET_CONTROL_RCPU 0x04u /* starts it; reads as zero, since the reset clears it */
#define RESET_CONTROL_FULL 0x08u /* later chips: with a power cycle */

/* Stores a write in *value; both kinds of reset are VMM_EXIT_RESET. Not under a device's lock. */
static inline void reset_control_write(struct vm *vm, uint8_t *value, uint8_t written)
{
    __atomic_store_n(value, written & (RESET_CONTROL_HARD | RESET_CONTROL_FULL), __ATOMIC_RELAXED);
    if (written & RESET_CONTROL_RCPU)
        vm_request_exit(vm, VMM_EXIT_RESET, 0);
}

static inline uint8_t reset_control_read(const uint8_t *value)
{
    return __atomic_load_n(value, __ATOMIC_RELAXED);
}

#endif
