/* SPDX-License-Identifier: BSD-2-Clause */
/* dsdt.c: the AML that describes the PC: sleep states, host bridge, legacy devices, processors. */
#include "core/boot/dsdt.h"

#include "devices/acpi_pm.h"

#define NO_IRQ 0xffu

/* Legacy devices at fixed resources. Those with `absent` set in the PC's flags are left out. */
struct legacy_device {
    const char *name;
    const char *eisaid; /* or hid */
    const char *hid;
    uint32_t absent; /* VMM_PC_NO_* */
    uint16_t port[2];
    uint8_t len[2];
    uint8_t irq;
};

static const struct legacy_device legacy[] = {
    {"COM1", "PNP0501", NULL, VMM_PC_NO_SERIAL, {0x3f8, 0}, {8, 0}, 4},
    {"RTC_", "PNP0B00", NULL, VMM_PC_NO_RTC, {0x70, 0}, {2, 0}, 8},
    {"PIT_", "PNP0100", NULL, VMM_PC_NO_PIT, {0x40, 0}, {4, 0}, 0},
    {"PS2K", "PNP0303", NULL, VMM_PC_NO_I8042, {0x60, 0x64}, {1, 1}, 1},
    {"PS2M", "PNP0F13", NULL, VMM_PC_NO_I8042, {0, 0}, {0, 0}, 12},
    {"FWCF", NULL, "QEMU0002", VMM_PC_NO_FW_CFG, {0x510, 0}, {12, 0}, NO_IRQ},
    {"PEVT", NULL, "QEMU0001", 0, {VMM_PC_PVPANIC, 0}, {1, 0}, NO_IRQ},
};

static void put_legacy(struct aml *aml, const struct legacy_device *device)
{
    size_t mark = aml_device(aml, device->name), crs;

    aml_name(aml, "_HID");
    if (device->eisaid)
        aml_eisaid(aml, device->eisaid);
    else
        aml_string(aml, device->hid);
    aml_name(aml, "_UID");
    aml_int(aml, 1);
    aml_name(aml, "_STA");
    aml_int(aml, 0xf);
    crs = aml_crs_begin(aml);
    for (int i = 0; i < 2; i++)
        if (device->len[i] > 0)
            aml_io(aml, device->port[i], device->len[i]);
    if (device->irq != NO_IRQ)
        aml_irq(aml, device->irq);
    aml_crs_end(aml, crs);
    aml_close(aml, mark);
}

/* What the board itself decodes, so that no PCI resource is put there. */
static void put_board(struct aml *aml)
{
    size_t mark = aml_device(aml, "MBRD"), crs;

    aml_name(aml, "_HID");
    aml_eisaid(aml, "PNP0C02");
    aml_name(aml, "_UID");
    aml_int(aml, 1);
    crs = aml_crs_begin(aml);
    aml_io(aml, VMM_PC_ACPI_PM, ACPI_PM_BLOCK);
    aml_io(aml, ACPI_SMI_CMD, 2);
    aml_memory(aml, (uint32_t)VMM_PC_IOAPIC, 0x1000, true);
    aml_memory(aml, (uint32_t)VMM_PC_LAPIC, 0x100000, true);
    aml_crs_end(aml, crs);
    aml_close(aml, mark);
}

static void put_hpet(struct aml *aml)
{
    size_t mark = aml_device(aml, "HPET"), crs;

    aml_name(aml, "_HID");
    aml_eisaid(aml, "PNP0103");
    aml_name(aml, "_UID");
    aml_int(aml, 0);
    crs = aml_crs_begin(aml);
    aml_memory(aml, (uint32_t)VMM_PC_HPET, 0x400, false);
    aml_crs_end(aml, crs);
    aml_close(aml, mark);
}

/* ---- PCI ---- */

#define PCI_DEVICES     32u
#define PCI_FIRST_GSI   16u
#define PCI_GSIS        4u
#define PCI_MMIO_END    0xfebfffffull
#define PCI_MMIO64_SIZE (1ull << 36)

/* Pins A to D of the slots, rotated by slot, on the I/O APIC inputs 16-19. There is no interrupt
 * router for the 8259s. */
static void put_prt(struct aml *aml)
{
    size_t table;

    aml_name(aml, "_PRT");
    table = aml_package(aml, (PCI_DEVICES - 1) * 4);
    for (uint32_t device = 1; device < PCI_DEVICES; device++) {
        for (uint32_t pin = 0; pin < 4; pin++) {
            size_t entry = aml_package(aml, 4);

            aml_int(aml, device << 16 | 0xffff);
            aml_int(aml, pin);
            aml_int(aml, 0);
            aml_int(aml, PCI_FIRST_GSI + (device + pin) % PCI_GSIS);
            aml_close(aml, entry);
        }
    }
    aml_close(aml, table);
}

static void put_pci(struct aml *aml, const struct acpi_config *config)
{
    uint64_t low = config->low_ram > 0x1000000 ? config->low_ram : 0x1000000;
    uint64_t high = VMM_PC_HIGH_RAM + config->high_ram;
    size_t mark = aml_device(aml, "PCI0"), crs;

    low = (low + 0xffffff) & ~0xffffffull;
    high = (high + PCI_MMIO64_SIZE - 1) & ~(PCI_MMIO64_SIZE - 1);
    aml_name(aml, "_HID");
    aml_eisaid(aml, "PNP0A03");
    aml_name(aml, "_UID");
    aml_int(aml, 0);
    aml_name(aml, "_BBN");
    aml_int(aml, 0);
    crs = aml_crs_begin(aml);
    aml_bus_window(aml, 0, 0xff);
    aml_io(aml, 0xcf8, 8);
    aml_io_window(aml, 0, 0xcf7);
    aml_io_window(aml, 0xd00, 0xffff);
    aml_memory_window(aml, 0xa0000, 0xbffff, true);
    aml_memory_window(aml, low, PCI_MMIO_END, false);
    aml_memory_window(aml, high, high + PCI_MMIO64_SIZE - 1, true);
    aml_crs_end(aml, crs);
    put_prt(aml);
    aml_close(aml, mark);
}

/* ---- processors ---- */

static void put_cpu(struct aml *aml, uint32_t id)
{
    static const char digit[] = "0123456789ABCDEF";
    const char name[5] = {'C', digit[id >> 8 & 15], digit[id >> 4 & 15], digit[id & 15], '\0'};
    size_t mark = aml_device(aml, name);

    aml_name(aml, "_HID");
    aml_string(aml, "ACPI0007");
    aml_name(aml, "_UID");
    aml_int(aml, id);
    aml_close(aml, mark);
}

static void put_s5(struct aml *aml)
{
    size_t package;

    aml_name(aml, "\\_S5_");
    package = aml_package(aml, 4);
    aml_int(aml, ACPI_SLP_TYP_S5);
    aml_int(aml, ACPI_SLP_TYP_S5);
    aml_int(aml, 0);
    aml_int(aml, 0);
    aml_close(aml, package);
}

void acpi_dsdt(struct aml *aml, const struct acpi_config *config)
{
    size_t scope;

    put_s5(aml);
    scope = aml_scope(aml, "\\_SB_");
    if (!(config->flags & VMM_PC_NO_PCI))
        put_pci(aml, config);
    put_board(aml);
    for (size_t i = 0; i < sizeof(legacy) / sizeof(legacy[0]); i++)
        if (!(config->flags & legacy[i].absent))
            put_legacy(aml, &legacy[i]);
    if (!(config->flags & VMM_PC_NO_HPET))
        put_hpet(aml);
    for (uint32_t i = 0; i < config->cpus; i++)
        put_cpu(aml, i);
    aml_close(aml, scope);
}
