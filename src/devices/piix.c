/* SPDX-License-Identifier: BSD-2-Clause */
/* piix.c: the south bridge as firmware looks for it on bus 0: PCI-to-ISA bridge and ACPI function.
 *
 * Firmware and drivers identify the chipset by them, put the legacy devices behind the ISA bridge,
 * and learn from the ACPI function where the PM block is. The devices themselves are models of
 * their own, at fixed ports: registers that would move them only keep what is written, or say
 * where they are. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <vmm/machine.h>

#include "acpi_pm.h"
#include "piix.h"

#define CONFIG_LEN 256u

struct reg {
    uint8_t offset, value, mask; /* value after reset, bits that can be written */
};

struct function {
    pthread_mutex_t lock;
    const struct reg *regs;
    size_t nregs;
    uint8_t config[CONFIG_LEN];
};

/* 82371SB data sheet (Intel 290550), chapter 2.1. */
static const struct reg isa_regs[] = {
    {0x00, 0x86, 0x00}, {0x01, 0x80, 0x00}, {0x02, 0x00, 0x00}, {0x03, 0x70, 0x00},
    {0x04, 0x07, 0x08},                     /* PCICMD: I/O, memory and bus master always on */
    {0x06, 0x80, 0x00}, {0x07, 0x02, 0x00}, /* PCISTS: fast back-to-back, medium DEVSEL */
    {0x0a, 0x01, 0x00}, {0x0b, 0x06, 0x00}, /* CLASSC: ISA bridge */
    {0x0e, 0x80, 0x00},                     /* HEDT: more than one function */
    {0x4c, 0x4d, 0xff},                     /* IORT */
    {0x4e, 0x03, 0xff}, {0x4f, 0x00, 0x01}, /* XBCS */
    {0x60, 0x80, 0x8f}, {0x61, 0x80, 0x8f}, {0x62, 0x80, 0x8f}, {0x63, 0x80, 0x8f}, /* PIRQRC */
    {0x69, 0x02, 0xfe},                                                             /* TOM */
    {0x82, 0x00, 0x0f},                                                             /* DLC */
};

/* 82371AB data sheet (Intel 290562), chapter 7.1. APMC_EN in DEVACTB is set and no SMI ever comes:
 * so firmware sees that system management mode is taken care of, and does not wait for it. */
static const struct reg pm_regs[] = {
    {0x00, 0x86, 0x00},
    {0x01, 0x80, 0x00},
    {0x02, 0x13, 0x00},
    {0x03, 0x71, 0x00},
    {0x04, 0x00, 0x01}, /* PCICMD */
    {0x06, 0x80, 0x00},
    {0x07, 0x02, 0x00}, /* PCISTS */
    {0x08, 0x03, 0x00}, /* RID */
    {0x0a, 0x80, 0x00},
    {0x0b, 0x06, 0x00}, /* CLASSC: other bridge */
    {0x3c, 0x09, 0xff}, /* INTLN: the SCI, which is no PCI interrupt */
    {0x40, (VMM_PC_ACPI_PM & 0xc0) | 1, 0},
    {0x41, VMM_PC_ACPI_PM >> 8, 0}, /* PMBA */
    {0x58, 0x00, 0xff},
    {0x59, 0x00, 0xff},
    {0x5a, 0x00, 0xff},
    {0x5b, 0x02, 0xfd}, /* DEVACTB */
    {0x80, 0x01, 0x00}, /* PMREGMISC: the PM block answers */
};

static uint8_t mask_of(const struct function *f, uint32_t offset)
{
    for (size_t i = 0; i < f->nregs; i++)
        if (f->regs[i].offset == offset)
            return f->regs[i].mask;
    return 0;
}

static uint32_t config_read(void *opaque, uint32_t offset, uint32_t size)
{
    struct function *f = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < size; i++)
        value |= (uint32_t)f->config[offset + i] << (8 * i);
    pthread_mutex_unlock(&f->lock);
    return value;
}

static void config_write(void *opaque, uint32_t offset, uint32_t size, uint32_t value)
{
    struct function *f = opaque;

    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < size; i++) {
        uint8_t mask = mask_of(f, offset + i), *reg = &f->config[offset + i];

        *reg = (uint8_t)((*reg & ~mask) | (value >> (8 * i) & mask));
    }
    pthread_mutex_unlock(&f->lock);
}

static void function_reset(void *opaque)
{
    struct function *f = opaque;

    pthread_mutex_lock(&f->lock);
    memset(f->config, 0, sizeof f->config);
    for (size_t i = 0; i < f->nregs; i++)
        f->config[f->regs[i].offset] = f->regs[i].value;
    pthread_mutex_unlock(&f->lock);
}

static void function_stop(void *opaque)
{
    struct function *f = opaque;

    pthread_mutex_destroy(&f->lock);
    free(f);
}

static int add_function(struct vm *vm, struct vmm_pci *pci, uint8_t devfn, const struct reg *regs,
                        size_t nregs)
{
    static const struct vmm_pci_ops config = {
        .size = sizeof config, .config_read = config_read, .config_write = config_write};
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "piix", .reset = function_reset, .stop = function_stop};
    struct function *f = calloc(1, sizeof *f);
    int r;

    if (!f)
        return vm_fail(vm, VMM_E_NOMEM, "piix_create", "no memory");
    f->regs = regs;
    f->nregs = nregs;
    pthread_mutex_init(&f->lock, NULL);
    function_reset(f);
    /* First the owner, which frees it with the VM: functions are never removed. */
    r = vm_device_add(vm, &ops, f, NULL);
    if (r) {
        function_stop(f);
        return r;
    }
    return vmm_pci_add(pci, devfn, &config, f);
}

int piix_create(struct vm *vm, struct vmm_pci *pci, int with_acpi)
{
    int r = add_function(vm, pci, PIIX_ISA, isa_regs, sizeof isa_regs / sizeof isa_regs[0]);

    if (!r && with_acpi)
        r = add_function(vm, pci, PIIX_ACPI, pm_regs, sizeof pm_regs / sizeof pm_regs[0]);
    return r;
}
