/* SPDX-License-Identifier: BSD-2-Clause */
/* piix.h: the south bridge's functions in PCI configuration space. */
#ifndef VMM_DEVICES_PIIX_H
#define VMM_DEVICES_PIIX_H

#include <vmm/device.h>

#define PIIX_ISA  0x08 /* 00:01.0 */
#define PIIX_ACPI 0x0b /* 00:01.3 */

/* Adds the ISA bridge and, `with_acpi`, the function that tells where the PM block is
 * (VMM_PC_ACPI_PM). */
int piix_create(struct vm *vm, struct vmm_pci *pci, int with_acpi);

#endif
