/* SPDX-License-Identifier: BSD-2-Clause */
/* acpi_pm.h: layout of the ACPI power management block, shared with the builder of the FADT and
 * the DSDT. Offsets are relative to the block's port (VMM_PC_ACPI_PM on a PC). */
#ifndef VMM_DEVICES_ACPI_PM_H
#define VMM_DEVICES_ACPI_PM_H

#include <vmm/device.h>

/* vmm_acpi_pm_create, with or without the reset register, which the PCI host bridge may have. */
int acpi_pm_create(struct vm *vm, uint16_t port, uint16_t irq, int with_reset,
                   struct vmm_acpi_pm **out);

#define ACPI_PM1_EVT   0x00 /* PM1a_EVT_BLK: status (2 bytes), enable (2 bytes) */
#define ACPI_PM1_CNT   0x04 /* PM1a_CNT_BLK: 2 bytes */
#define ACPI_PM_TMR    0x08 /* PM_TMR_BLK: 4 bytes; 24-bit timer: FADT flag TMR_VAL_EXT stays 0 */
#define ACPI_GPE0      0x10 /* GPE0_BLK: status (2 bytes), enable (2 bytes) */
#define ACPI_GPE0_LEN  4
#define ACPI_PM_BLOCK  0x14 /* bytes in all */
#define ACPI_PM_TMR_HZ 3579545u

/* FADT: SMI_CMD, ACPI_ENABLE, ACPI_DISABLE. SCI_EN is clear after power-on. */
#define ACPI_SMI_CMD 0xb2
#define ACPI_ENABLE  0xa0
#define ACPI_DISABLE 0xa1

/* FADT: RESET_REG (system I/O, 8 bits wide) and RESET_VALUE. */
#define ACPI_RESET_PORT  0xcf9
#define ACPI_RESET_VALUE 0x06

/* DSDT: SLP_TYPa of \_S5. */
#define ACPI_SLP_TYP_S5 5

#endif
