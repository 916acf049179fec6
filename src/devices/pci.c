/* SPDX-License-Identifier: BSD-2-Clause */
/* pci.c: configuration mechanism 1 (PCI 3.0, 3.2.2.3.2) and the 82441FX host bridge on bus 0.
 *
 * CONFIG_ADDRESS answers to 32-bit accesses only; the byte port 0xcf9 inside it is the reset
 * control register. Everything but the functions of bus 0 reads as all ones: there are no bridges
 * to other buses. Functions are never removed, so they are called without the lock. */
#include <pthread.h>
#include <stdlib.h>

#include "device.h"
#include "reset_control.h"

enum {
    REG_ADDRESS = 0, /* port 0xcf8 */
    REG_RESET = 1,   /* port 0xcf9 */
    REG_DATA = 4,    /* ports 0xcfc-0xcff: bytes of the register that CONFIG_ADDRESS selects */
    REGS = 8,
};

#define PCI_PORT         0xcf8
#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_MASK     0x80fffffcu /* the others are reserved and read as zero */
#define ADDRESS_BUS(a)   ((a) >> 16 & 0xff)
#define ADDRESS_DEVFN(a) ((a) >> 8 & 0xff)
#define ADDRESS_REG(a)   ((a)&0xfc)

#define FUNCTIONS    256u
#define CONFIG_LEN   256u
#define HOST_BRIDGE  0u
#define PAM_FIRST    0x59u
#define PAM_LAST     0x5fu
#define PAM_RESERVED 0xccu

struct pci_function {
    struct vmm_pci_ops ops;
    void *opaque;
    int used;
};

struct vmm_pci {
    struct vm *vm;
    pthread_mutex_t lock;
    struct pio *pio;
    uint32_t address;
    uint8_t reset_control;
    struct pci_function functions[FUNCTIONS];
    uint8_t bridge[CONFIG_LEN];
};

/* ---- Host bridge: 82441FX data sheet (Intel 290549), chapter 3 ---- */

/* Values after reset, and the bits that can be written. The registers of a memory controller that
 * is not there only keep what firmware stores; the memory map does not depend on them. The
 * subsystem, which the chip does not have, is how firmware made for QEMU knows that it will find
 * fw_cfg. */
static const struct {
    uint8_t offset, value, mask;
} bridge_regs[] = {
    {0x00, 0x86, 0x00}, {0x01, 0x80, 0x00}, /* VID: Intel */
    {0x02, 0x37, 0x00}, {0x03, 0x12, 0x00}, /* DID */
    {0x04, 0x06, 0x40}, {0x05, 0x00, 0x01}, /* PCICMD: memory and bus master are always on */
    {0x06, 0x80, 0x00}, {0x07, 0x02, 0x00}, /* PCISTS: fast back-to-back, medium DEVSEL */
    {0x08, 0x02, 0x00},                     /* RID */
    {0x0b, 0x06, 0x00},                     /* CLASSC: host bridge */
    {0x0d, 0x00, 0xf8},                     /* MLT */
    {0x2c, 0xf4, 0x00}, {0x2d, 0x1a, 0x00}, {0x2e, 0x00, 0x00}, {0x2f, 0x11, 0x00}, /* subsystem */
    {0x50, 0x00, 0xff}, {0x51, 0x00, 0xff},                                         /* PMCCFG */
    {0x52, 0x00, 0xff},                                                             /* DETURBO */
    {0x53, 0x80, 0xff},                                                             /* DBC */
    {0x54, 0x00, 0xff},                                                             /* AXC */
    {0x55, 0x00, 0xff}, {0x56, 0x00, 0xff},                                         /* DRT */
    {0x57, 0x01, 0xff},                                                             /* DRAMC */
    {0x58, 0x10, 0xff},                                                             /* DRAMT */
    {0x60, 0x01, 0xff}, {0x61, 0x01, 0xff}, {0x62, 0x01, 0xff}, {0x63, 0x01, 0xff}, /* DRB */
    {0x64, 0x01, 0xff}, {0x65, 0x01, 0xff}, {0x66, 0x01, 0xff}, {0x67, 0x01, 0xff},
    {0x68, 0x00, 0xc0}, /* FDHC */
    {0x70, 0x00, 0xff}, /* MTT */
    {0x71, 0x10, 0xff}, /* CLT */
    {0x72, 0x02, 0x78}, /* SMRAM */
    {0x90, 0x00, 0xff}, /* ERRCMD */
};

static uint8_t bridge_mask(uint32_t offset)
{
    if (offset >= PAM_FIRST && offset <= PAM_LAST)
        return (uint8_t)~PAM_RESERVED;
    for (size_t i = 0; i < sizeof bridge_regs / sizeof bridge_regs[0]; i++)
        if (bridge_regs[i].offset == offset)
            return bridge_regs[i].mask;
    return 0;
}

static uint32_t bridge_read(void *opaque, uint32_t offset, uint32_t size)
{
    struct vmm_pci *pci = opaque;
    uint32_t value = 0;

    pthread_mutex_lock(&pci->lock);
    for (uint32_t i = 0; i < size; i++)
        value |= (uint32_t)pci->bridge[offset + i] << (8 * i);
    pthread_mutex_unlock(&pci->lock);
    return value;
}

static void bridge_write(void *opaque, uint32_t offset, uint32_t size, uint32_t value)
{
    struct vmm_pci *pci = opaque;

    pthread_mutex_lock(&pci->lock);
    for (uint32_t i = 0; i < size; i++) {
        uint8_t mask = bridge_mask(offset + i), v = (uint8_t)(value >> (8 * i));
        uint8_t *reg = &pci->bridge[offset + i];
        *reg = (uint8_t)((*reg & ~mask) | (v & mask));
    }
    pthread_mutex_unlock(&pci->lock);
}

static void bridge_reset(struct vmm_pci *pci)
{
    memset(pci->bridge, 0, sizeof pci->bridge);
    for (size_t i = 0; i < sizeof bridge_regs / sizeof bridge_regs[0]; i++)
        pci->bridge[bridge_regs[i].offset] = bridge_regs[i].value;
}

/* ---- Ports ---- */

/* What CONFIG_ADDRESS selects, or NULL; *offset is that of its 32-bit register. */
static const struct pci_function *selected(struct vmm_pci *pci, uint32_t *offset, int *enabled)
{
    const struct pci_function *function = NULL;
    uint32_t address;

    pthread_mutex_lock(&pci->lock);
    address = pci->address;
    *enabled = !!(address & ADDRESS_ENABLE);
    *offset = ADDRESS_REG(address);
    if (*enabled && ADDRESS_BUS(address) == 0)
        function = &pci->functions[ADDRESS_DEVFN(address)];
    if (function && !function->used)
        function = NULL;
    pthread_mutex_unlock(&pci->lock);
    return function;
}

static int pci_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_pci *pci = opaque;
    const struct pci_function *function;
    uint32_t reg;
    int enabled;

    if (offset >= REG_DATA) {
        function = selected(pci, &reg, &enabled);
        if (!enabled)
            return VMM_IO_NOBODY;
        if (function && function->ops.config_read)
            *value = function->ops.config_read(function->opaque,
                                               reg + (uint32_t)(offset - REG_DATA), size);
        return VMM_IO_OK; /* a master abort reads as all ones */
    }
    if (offset == REG_RESET && size == 1) {
        *value = reset_control_read(&pci->reset_control);
        return VMM_IO_OK;
    }
    if (offset != REG_ADDRESS || size != 4)
        return VMM_IO_NOBODY;
    pthread_mutex_lock(&pci->lock);
    *value = pci->address;
    pthread_mutex_unlock(&pci->lock);
    return VMM_IO_OK;
}

static int pci_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_pci *pci = opaque;
    const struct pci_function *function;
    uint32_t reg;
    int enabled;

    if (offset >= REG_DATA) {
        function = selected(pci, &reg, &enabled);
        if (!enabled)
            return VMM_IO_NOBODY;
        if (function && function->ops.config_write)
            function->ops.config_write(function->opaque, reg + (uint32_t)(offset - REG_DATA), size,
                                       (uint32_t)value);
        return VMM_IO_OK;
    }
    if (offset == REG_RESET && size == 1) {
        reset_control_write(pci->vm, &pci->reset_control, (uint8_t)value);
        return VMM_IO_OK;
    }
    if (offset != REG_ADDRESS || size != 4)
        return VMM_IO_NOBODY;
    pthread_mutex_lock(&pci->lock);
    pci->address = (uint32_t)value & ADDRESS_MASK;
    pthread_mutex_unlock(&pci->lock);
    return VMM_IO_OK;
}

/* ---- Life cycle ---- */

static void pci_reset(void *opaque)
{
    struct vmm_pci *pci = opaque;

    pthread_mutex_lock(&pci->lock);
    pci->address = 0;
    bridge_reset(pci);
    pthread_mutex_unlock(&pci->lock);
    __atomic_store_n(&pci->reset_control, 0, __ATOMIC_RELAXED);
}

static void pci_stop(void *opaque)
{
    struct vmm_pci *pci = opaque;

    pio_unregister(pci->pio);
    pthread_mutex_destroy(&pci->lock);
    free(pci);
}

int vmm_pci_add(struct vmm_pci *pci, uint8_t devfn, const struct vmm_pci_ops *ops, void *opaque)
{
    struct pci_function *function;
    struct vmm_pci_ops copy;
    int r = config_copy(&copy, sizeof copy, ops);

    if (!pci)
        return VMM_E_INVAL;
    function = &pci->functions[devfn];
    if (!r && copy.reserved)
        r = VMM_E_UNSUPPORTED;
    if (r)
        return vm_fail(pci->vm, r, "vmm_pci_add", "bad ops");
    pthread_mutex_lock(&pci->lock);
    if (function->used) {
        r = VMM_E_EXIST;
    } else {
        function->ops = copy;
        function->opaque = opaque;
        function->used = 1;
    }
    pthread_mutex_unlock(&pci->lock);
    return r ? vm_fail(pci->vm, r, "vmm_pci_add", "there is a function 00:%02x.%u", devfn >> 3,
                       devfn & 7u)
             : 0;
}

int vmm_pci_create(struct vm *vm, struct vmm_pci **out)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 4,
        .name = "pci",
        .read = pci_read,
        .write = pci_write,
    };
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "pci", .reset = pci_reset, .stop = pci_stop};
    static const struct vmm_pci_ops bridge = {
        .size = sizeof bridge, .config_read = bridge_read, .config_write = bridge_write};
    struct vmm_pci *pci = calloc(1, sizeof *pci);
    int r;

    if (!pci)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_pci_create", "no memory");
    pci->vm = vm;
    pthread_mutex_init(&pci->lock, NULL);
    pci->functions[HOST_BRIDGE] = (struct pci_function){bridge, pci, 1};
    bridge_reset(pci);
    r = pio_register(vm, PCI_PORT, REGS, &io, pci, &pci->pio);
    if (!r)
        r = vm_device_add(vm, &ops, pci, NULL);
    if (r)
        pci_stop(pci);
    else if (out)
        *out = pci;
    return r;
}
