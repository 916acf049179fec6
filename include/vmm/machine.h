/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/machine.h: a ready-made PC from the built-in devices. */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <vmm/device.h>
#include <vmm/memory.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Addresses of the PC. RAM lies at 0 and, past VMM_PC_LOW_RAM_MAX, at 4 GiB. */
#define VMM_PC_LOW_RAM_MAX 0xc0000000ull
#define VMM_PC_HIGH_RAM    0x100000000ull
#define VMM_PC_IOAPIC      0xfec00000ull
#define VMM_PC_HPET        0xfed00000ull
#define VMM_PC_LAPIC       0xfee00000ull
#define VMM_PC_ACPI_PM     0x600u
#define VMM_PC_SCI         9u
#define VMM_PC_DEBUG_EXIT  0xf4u /* 4 ports */
#define VMM_PC_PVPANIC     0x505u

/* Devices that are left out. */
#define VMM_PC_NO_SERIAL 1u
#define VMM_PC_NO_HPET   2u
#define VMM_PC_NO_I8042  4u
#define VMM_PC_NO_RTC    8u
#define VMM_PC_NO_PIT    16u
#define VMM_PC_NO_ACPI   32u
#define VMM_PC_NO_PCI    64u
#define VMM_PC_NO_FW_CFG 128u
/* The serial port has VMM_SERIAL_FLOW. */
#define VMM_PC_SERIAL_FLOW 0x10000u

struct vmm_pc_config {
    uint32_t size;
    uint32_t flags;  /* VMM_PC_* */
    uint64_t memory; /* bytes of RAM, a multiple of 4 KiB, at least 1 MiB */
    uint32_t cpus;   /* vCPUs that the tables announce, at most the VM's max_vcpus; 0: 1 */
    uint32_t reserved;
    int64_t rtc_epoch; /* 0: the host's time */
    size_t (*serial_output)(void *opaque, const uint8_t *bytes, size_t n);
    void *opaque; /* of serial_output */
    void *ram;    /* NULL: library-owned; else borrowed, page-aligned, `memory` bytes */
};

/* The machine's parts; those left out are NULL. All belong to the VM. */
struct vmm_pc {
    uint32_t size;
    uint32_t flags;
    uint64_t memory;
    uint64_t low_ram;  /* bytes at 0 */
    uint64_t high_ram; /* bytes at 4 GiB */
    uint32_t cpus;
    uint32_t reserved;
    struct vmm_serial *serial;
    struct vmm_rtc *rtc;
    struct vmm_acpi_pm *acpi_pm;
    struct vmm_i8042 *i8042;
    struct vmm_fw_cfg *fw_cfg;
    struct vmm_pci *pci;
};

/*
 * Fits RAM and the devices into a VM that was created with VMM_IRQCHIP_PC and has none yet; vCPUs
 * are the caller's to create. Fills *pc (pc->size must be set). VMM_E_INVAL, VMM_E_RANGE,
 * VMM_E_UNSUPPORTED (unknown flags), VMM_E_STATE (no interrupt controllers), or what adding a part
 * failed with: then the VM must be destroyed. ANY.
 */
int vmm_pc_create(struct vm *vm, const struct vmm_pc_config *config, struct vmm_pc *pc);

#ifdef __cplusplus
}
#endif
#endif
