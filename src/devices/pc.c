/* SPDX-License-Identifier: BSD-2-Clause */
/* pc.c: a PC: RAM, the usual devices at their usual places, and what firmware asks fw_cfg for. */
#include <stdlib.h>

#include <vmm/machine.h>

#include "acpi_pm.h"
#include "device.h"
#include "pc_timers.h"
#include "piix.h"

#define PAGE         4096u
#define MEMORY_MIN   0x100000u
#define FLAGS_ALL    ((VMM_PC_NO_FW_CFG * 2 - 1) | VMM_PC_SERIAL_FLOW)
#define COM1_PORT    0x3f8
#define COM1_LINE    4
#define EXIT_PORTS   4
#define CMOS_CPUS    0x5f /* less one: where firmware for QEMU and Bochs looks */
#define PVPANIC_PORT ((uint16_t)VMM_PC_PVPANIC)

/* ---- Memory ---- */

static int add_ram(struct vm *vm, const struct vmm_pc_config *c, uint64_t gpa, uint64_t offset,
                   uint64_t len)
{
    if (!len)
        return 0;
    if (!c->ram)
        return vm_mem_alloc(vm, gpa, len, VMM_MEM_RWX, NULL);
    return vm_mem_map(vm, gpa, (uint8_t *)c->ram + offset, len, VMM_MEM_RWX);
}

static int create_memory(struct vm *vm, const struct vmm_pc_config *c, struct vmm_pc *pc)
{
    int r;

    pc->low_ram = c->memory < VMM_PC_LOW_RAM_MAX ? c->memory : VMM_PC_LOW_RAM_MAX;
    pc->high_ram = c->memory - pc->low_ram;
    r = add_ram(vm, c, 0, 0, pc->low_ram);
    return r ? r : add_ram(vm, c, VMM_PC_HIGH_RAM, pc->low_ram, pc->high_ram);
}

/* ---- Ports 0x80-0x8f ---- */

/* The page registers of the DMA controllers that are not there. Guests write port 0x80 to report
 * their progress or to pass the time, and expect no more than to be let go on. */
struct page_regs {
    struct pio *pio;
    uint8_t value[16];
};

static int page_regs_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct page_regs *p = opaque;

    (void)size;
    *value = __atomic_load_n(&p->value[offset], __ATOMIC_RELAXED);
    return VMM_IO_OK;
}

static int page_regs_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct page_regs *p = opaque;

    (void)size;
    __atomic_store_n(&p->value[offset], (uint8_t)value, __ATOMIC_RELAXED);
    return VMM_IO_OK;
}

static void page_regs_reset(void *opaque)
{
    struct page_regs *p = opaque;

    for (uint32_t i = 0; i < sizeof p->value; i++)
        __atomic_store_n(&p->value[i], 0, __ATOMIC_RELAXED);
}

static void page_regs_stop(void *opaque)
{
    struct page_regs *p = opaque;

    pio_unregister(p->pio);
    free(p);
}

static int page_regs_create(struct vm *vm)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 1,
        .name = "port80",
        .read = page_regs_read,
        .write = page_regs_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "port80", .reset = page_regs_reset, .stop = page_regs_stop};
    struct page_regs *p = calloc(1, sizeof *p);
    int r;

    if (!p)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_pc_create", "no memory");
    r = pio_register(vm, 0x80, sizeof p->value, &io, p, &p->pio);
    if (!r)
        r = vm_device_add(vm, &ops, p, NULL);
    if (r)
        page_regs_stop(p);
    return r;
}

/* ---- Devices ---- */

static int create_serial(struct vm *vm, const struct vmm_pc_config *c, struct vmm_pc *pc)
{
    struct vmm_serial_config config = {
        .size = sizeof config,
        .port = COM1_PORT,
        .irq = COM1_LINE,
        .output = c->serial_output,
        .opaque = c->opaque,
        .flags = c->flags & VMM_PC_SERIAL_FLOW ? VMM_SERIAL_FLOW : 0,
    };

    return vmm_serial_create(vm, &config, &pc->serial);
}

/* The HPET can take the lines of the other two. */
static int create_timers(struct vm *vm, const struct vmm_pc_config *c, struct vmm_pc *pc)
{
    struct vmm_rtc_config config = {
        .size = sizeof config,
        .memory_below_4g = pc->low_ram,
        .memory_above_4g = pc->high_ram,
        .epoch = c->rtc_epoch,
    };
    struct pit *pit = NULL;
    int r = 0;

    if (!(c->flags & VMM_PC_NO_PIT))
        r = pit_create(vm, &pit);
    if (!r && !(c->flags & VMM_PC_NO_RTC))
        r = vmm_rtc_create(vm, &config, &pc->rtc);
    if (!r && pc->rtc)
        vmm_rtc_set(pc->rtc, CMOS_CPUS, (uint8_t)(pc->cpus - 1));
    if (!r && !(c->flags & VMM_PC_NO_HPET))
        r = hpet_create(vm, pit, pc->rtc);
    return r;
}

static void put_le(uint8_t *p, uint64_t value, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

static int add_number(struct vmm_fw_cfg *fw, uint16_t key, uint64_t value, uint32_t len)
{
    uint8_t bytes[8];

    put_le(bytes, value, len);
    return vmm_fw_cfg_add(fw, key, bytes, len);
}

/* A count byte and, for up to eight HPETs, block id, address, least tick and page protection. */
static int add_hpets(struct vmm_fw_cfg *fw, int present)
{
    uint8_t table[1 + 8 * 15] = {0};

    if (present) {
        table[0] = 1;
        put_le(table + 1, 0x8086a201, 4);
        put_le(table + 5, VMM_PC_HPET, 8);
        put_le(table + 13, 0x80, 2);
    }
    return vmm_fw_cfg_add(fw, VMM_FW_CFG_HPET, table, sizeof table);
}

static int create_fw_cfg(struct vm *vm, struct vmm_pc *pc)
{
    int r = vmm_fw_cfg_create(vm, &pc->fw_cfg);

    if (!r)
        r = add_number(pc->fw_cfg, VMM_FW_CFG_RAM_SIZE, pc->memory, 8);
    if (!r)
        r = add_number(pc->fw_cfg, VMM_FW_CFG_NB_CPUS, pc->cpus, 2);
    if (!r)
        r = add_number(pc->fw_cfg, VMM_FW_CFG_MAX_CPUS, pc->cpus, 2);
    if (!r)
        r = add_number(pc->fw_cfg, VMM_FW_CFG_NOGRAPHIC, 1, 2);
    if (!r)
        r = add_number(pc->fw_cfg, VMM_FW_CFG_IRQ0_OVERRIDE, 1, 4);
    if (!r)
        r = add_hpets(pc->fw_cfg, !(pc->flags & VMM_PC_NO_HPET));
    return r;
}

static int create_devices(struct vm *vm, const struct vmm_pc_config *c, struct vmm_pc *pc)
{
    int r = page_regs_create(vm);

    if (!r && !(c->flags & VMM_PC_NO_SERIAL))
        r = create_serial(vm, c, pc);
    if (!r)
        r = create_timers(vm, c, pc);
    if (!r && !(c->flags & VMM_PC_NO_PCI))
        r = vmm_pci_create(vm, &pc->pci);
    if (!r && pc->pci)
        r = piix_create(vm, pc->pci, !(c->flags & VMM_PC_NO_ACPI));
    if (!r && !(c->flags & VMM_PC_NO_ACPI))
        r = acpi_pm_create(vm, VMM_PC_ACPI_PM, VMM_PC_SCI, !pc->pci, &pc->acpi_pm);
    if (!r && !(c->flags & VMM_PC_NO_I8042))
        r = vmm_i8042_create(vm, &pc->i8042);
    if (!r && !(c->flags & VMM_PC_NO_FW_CFG))
        r = create_fw_cfg(vm, pc);
    if (!r)
        r = vmm_debug_exit_create(vm, VMM_PC_DEBUG_EXIT, EXIT_PORTS);
    return r ? r : vmm_pvpanic_create(vm, PVPANIC_PORT);
}

static int check_config(struct vm *vm, const struct vmm_pc_config *c)
{
    const char *op = "vmm_pc_create";
    struct vm_caps caps = {.size = sizeof caps};

    if (c->flags & ~FLAGS_ALL)
        return vm_fail(vm, VMM_E_UNSUPPORTED, op, "unknown flags %#x", c->flags & ~FLAGS_ALL);
    if (c->reserved)
        return vm_fail(vm, VMM_E_UNSUPPORTED, op, "reserved is not 0");
    if (c->memory < MEMORY_MIN || c->memory % PAGE)
        return vm_fail(vm, VMM_E_INVAL, op,
                       "memory of %#llx bytes: want a multiple of 4 KiB, at least 1 MiB",
                       (unsigned long long)c->memory);
    if ((uintptr_t)c->ram % PAGE)
        return vm_fail(vm, VMM_E_INVAL, op, "ram is not page-aligned");
    if (!vm_get_caps(vm, &caps) && c->cpus > caps.max_vcpus)
        return vm_fail(vm, VMM_E_RANGE, op, "%u CPUs, but the VM has at most %u", c->cpus,
                       caps.max_vcpus);
    return vm_irq_set(vm, VMM_PC_SCI, 0); /* are there interrupt controllers? */
}

int vmm_pc_create(struct vm *vm, const struct vmm_pc_config *config, struct vmm_pc *out)
{
    struct vmm_pc_config c;
    struct vmm_pc pc = {.size = sizeof pc};
    int r = config_copy(&c, sizeof c, config);

    if (r || !out || out->size < sizeof out->size)
        return vm_fail(vm, r ? r : VMM_E_INVAL, "vmm_pc_create", "bad config or result struct");
    r = check_config(vm, &c);
    if (r)
        return r;
    pc.flags = c.flags;
    pc.memory = c.memory;
    pc.cpus = c.cpus ? c.cpus : 1;
    r = create_memory(vm, &c, &pc);
    if (!r)
        r = create_devices(vm, &c, &pc);
    if (r)
        return r;
    pc.size = out->size;
    memcpy(out, &pc, out->size < sizeof pc ? out->size : sizeof pc);
    return 0;
}
