/* SPDX-License-Identifier: BSD-2-Clause */
/* acpi_pm.c: ACPI fixed hardware (ACPI 6.4, 4.8): PM1 event and control registers, PM timer, GPE0,
 * the command port that switches to ACPI mode, and the reset register.
 *
 * The timer follows from the clock; TMR_STS becomes set at the tick `overflow`, the next at which
 * the timer's highest bit changes. Only while its interrupt is enabled does a VM timer wait for
 * it. Nothing is wired to GPE0, so its status stays zero. */
#include <pthread.h>
#include <stdlib.h>

#include "acpi_pm.h"
#include "device.h"
#include "reset_control.h"

/* PM1 status and enable (tables 4.12 and 4.13). Sleep button and RTC are no fixed events here. */
#define PM1_TMR    0x0001u
#define PM1_GBL    0x0020u
#define PM1_PWRBTN 0x0100u
#define PM1_RTC    0x0400u /* only an enable bit: Linux insists on it, whatever the FADT says */
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN)

/* PM1 control (table 4.14). GBL_RLS and SLP_EN are commands and read as zero. */
#define CNT_SCI_EN        0x0001u
#define CNT_BM_RLD        0x0002u
#define CNT_SLP_TYP       0x1c00u
#define CNT_SLP_TYP_SHIFT 10
#define CNT_SLP_EN        0x2000u
#define CNT_STORED        (CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP)

#define TMR_MASK  0xffffffu /* 24 bits */
#define TMR_CARRY 0x800000u /* TMR_STS: this bit changed */

enum { APM_COMMAND = 0, APM_STATUS = 1, APM_REGS = 2 };

struct vmm_acpi_pm {
    struct vm *vm;
    pthread_mutex_t lock;
    uint16_t irq;
    struct pio *pio, *apm_pio, *reset_pio;
    struct vmm_timer *timer;
    uint16_t pm1_sts; /* without TMR_STS */
    uint16_t pm1_en, pm1_cnt, gpe0_en;
    uint64_t overflow; /* tick at which TMR_STS becomes set */
    uint8_t apm[APM_REGS];
    uint8_t reset_control;
};

/* ---- Events ---- */

static uint64_t pm_ticks(const struct vmm_acpi_pm *pm)
{
    return ns_to_ticks(vm_clock(pm->vm), ACPI_PM_TMR_HZ);
}

static uint16_t pm1_status(const struct vmm_acpi_pm *pm)
{
    return (uint16_t)(pm->pm1_sts | (pm_ticks(pm) >= pm->overflow ? PM1_TMR : 0));
}

/* The SCI is a level; in legacy mode events would raise an SMI, for which nobody waits. */
static void pm_update(struct vmm_acpi_pm *pm)
{
    uint16_t status = pm1_status(pm);

    if ((pm->pm1_en & PM1_TMR) && !(status & PM1_TMR))
        vm_timer_set(pm->timer, ticks_to_ns(pm->overflow, ACPI_PM_TMR_HZ));
    else
        vm_timer_cancel(pm->timer);
    if (pm->irq != VMM_IRQ_NONE)
        vm_irq_set(pm->vm, pm->irq, (pm->pm1_cnt & CNT_SCI_EN) && (status & pm->pm1_en));
}

static void pm_fire(void *opaque, uint64_t deadline)
{
    struct vmm_acpi_pm *pm = opaque;

    (void)deadline;
    pthread_mutex_lock(&pm->lock);
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
}

/* ---- Registers ---- */

/* The registers are grouped in aligned 32-bit words; smaller accesses are parts of them. */
static uint32_t pm_read_word(const struct vmm_acpi_pm *pm, uint32_t word)
{
    switch (word) {
    case ACPI_PM1_EVT:
        return pm1_status(pm) | (uint32_t)pm->pm1_en << 16;
    case ACPI_PM1_CNT:
        return pm->pm1_cnt;
    case ACPI_PM_TMR:
        return pm_ticks(pm) & TMR_MASK;
    case ACPI_GPE0:
        return (uint32_t)pm->gpe0_en << 16;
    default:
        return 0;
    }
}

static void merge(uint16_t *reg, uint32_t value, uint32_t mask)
{
    *reg = (uint16_t)((*reg & ~mask) | (value & mask));
}

/* Writes the bytes of a word that `mask` covers. Returns 1 if the guest switched the power off. */
static int pm_write_word(struct vmm_acpi_pm *pm, uint32_t word, uint32_t value, uint32_t mask)
{
    value &= mask;
    switch (word) {
    case ACPI_PM1_EVT:
        if ((value & PM1_TMR) && (pm1_status(pm) & PM1_TMR))
            pm->overflow = (pm_ticks(pm) | (TMR_CARRY - 1)) + 1;
        pm->pm1_sts &= (uint16_t)~value;
        merge(&pm->pm1_en, value >> 16, mask >> 16 & (PM1_EVENTS | PM1_RTC));
        break;
    case ACPI_PM1_CNT:
        merge(&pm->pm1_cnt, value, mask & CNT_STORED);
        return (value & CNT_SLP_EN) &&
               (pm->pm1_cnt & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT == ACPI_SLP_TYP_S5;
    case ACPI_GPE0:
        merge(&pm->gpe0_en, value >> 16, mask >> 16);
        break;
    default:
        break;
    }
    return 0;
}

static int pm_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_acpi_pm *pm = opaque;
    uint32_t word = (uint32_t)offset & ~3u;

    (void)size;
    pthread_mutex_lock(&pm->lock);
    *value = pm_read_word(pm, word) >> 8 * (offset & 3);
    pthread_mutex_unlock(&pm->lock);
    return VMM_IO_OK;
}

static int pm_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_acpi_pm *pm = opaque;
    uint32_t shift = 8 * (offset & 3);
    uint32_t mask = (uint32_t)((1ull << 8 * size) - 1) << shift;
    int off;

    pthread_mutex_lock(&pm->lock);
    off = pm_write_word(pm, (uint32_t)offset & ~3u, (uint32_t)value << shift, mask);
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
    if (off)
        vm_request_exit(pm->vm, VMM_EXIT_POWEROFF, 0);
    return VMM_IO_OK;
}

/* The ports behind which firmware's SMI handler would sit: command and status (82371AB, 7.2). */
static int apm_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_acpi_pm *pm = opaque;

    (void)size;
    pthread_mutex_lock(&pm->lock);
    *value = pm->apm[offset];
    pthread_mutex_unlock(&pm->lock);
    return VMM_IO_OK;
}

static int apm_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_acpi_pm *pm = opaque;

    (void)size;
    pthread_mutex_lock(&pm->lock);
    pm->apm[offset] = (uint8_t)value;
    if (offset == APM_COMMAND && value == ACPI_ENABLE)
        pm->pm1_cnt |= CNT_SCI_EN;
    else if (offset == APM_COMMAND && value == ACPI_DISABLE)
        pm->pm1_cnt &= (uint16_t)~CNT_SCI_EN;
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
    return VMM_IO_OK;
}

static int reset_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_acpi_pm *pm = opaque;

    (void)offset, (void)size;
    *value = reset_control_read(&pm->reset_control);
    return VMM_IO_OK;
}

static int reset_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_acpi_pm *pm = opaque;

    (void)offset, (void)size;
    reset_control_write(pm->vm, &pm->reset_control, (uint8_t)value);
    return VMM_IO_OK;
}

void vmm_acpi_pm_button(struct vmm_acpi_pm *pm)
{
    if (!pm)
        return;
    pthread_mutex_lock(&pm->lock);
    pm->pm1_sts |= PM1_PWRBTN;
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
}

/* ---- Life cycle ---- */

static void pm_reset(void *opaque)
{
    struct vmm_acpi_pm *pm = opaque;

    pthread_mutex_lock(&pm->lock);
    pm->pm1_sts = pm->pm1_en = pm->pm1_cnt = pm->gpe0_en = 0;
    pm->overflow = (pm_ticks(pm) | (TMR_CARRY - 1)) + 1;
    memset(pm->apm, 0, sizeof pm->apm);
    pm_update(pm);
    pthread_mutex_unlock(&pm->lock);
    __atomic_store_n(&pm->reset_control, 0, __ATOMIC_RELAXED);
}

static void pm_stop(void *opaque)
{
    struct vmm_acpi_pm *pm = opaque;

    pio_unregister(pm->pio);
    pio_unregister(pm->apm_pio);
    pio_unregister(pm->reset_pio);
    vm_timer_destroy(pm->timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static int pm_register(struct vmm_acpi_pm *pm, uint16_t port, int with_reset)
{
    static const struct vmm_io_ops io = {
        .size = sizeof io,
        .max_access = 4,
        .name = "acpi-pm",
        .read = pm_read,
        .write = pm_write,
    };
    static const struct vmm_io_ops apm_io = {
        .size = sizeof apm_io,
        .max_access = 1,
        .name = "acpi-smi",
        .read = apm_read,
        .write = apm_write,
    };
    static const struct vmm_io_ops reset_io = {
        .size = sizeof reset_io,
        .max_access = 1,
        .name = "acpi-reset",
        .read = reset_read,
        .write = reset_write,
    };
    int r = pio_register(pm->vm, port, ACPI_PM_BLOCK, &io, pm, &pm->pio);

    if (!r)
        r = pio_register(pm->vm, ACPI_SMI_CMD, APM_REGS, &apm_io, pm, &pm->apm_pio);
    if (!r && with_reset) {
        r = pio_register(pm->vm, RESET_CONTROL_PORT, 1, &reset_io, pm, &pm->reset_pio);
        if (r == VMM_E_EXIST)
            r = 0; /* the PCI host bridge's */
    }
    return r;
}

int acpi_pm_create(struct vm *vm, uint16_t port, uint16_t irq, int with_reset,
                   struct vmm_acpi_pm **out)
{
    static const struct vmm_device_ops ops = {
        .size = sizeof ops, .name = "acpi-pm", .reset = pm_reset, .stop = pm_stop};
    struct vmm_acpi_pm *pm;
    int r;

    if (port % 4)
        return vm_fail(vm, VMM_E_INVAL, "vmm_acpi_pm_create", "port %#x is not a multiple of 4",
                       port);
    if (irq != VMM_IRQ_NONE && irq >= VMM_IRQ_LINES)
        return vm_fail(vm, VMM_E_RANGE, "vmm_acpi_pm_create", "no interrupt line %u", irq);
    pm = calloc(1, sizeof *pm);
    if (!pm)
        return vm_fail(vm, VMM_E_NOMEM, "vmm_acpi_pm_create", "no memory");
    pm->vm = vm;
    pm->irq = irq;
    pthread_mutex_init(&pm->lock, NULL);
    r = vm_timer_create(vm, pm_fire, pm, &pm->timer);
    if (!r) {
        pm_reset(pm);
        r = pm_register(pm, port, with_reset);
    }
    if (!r)
        r = vm_device_add(vm, &ops, pm, NULL);
    if (r)
        pm_stop(pm);
    else if (out)
        *out = pm;
    return r;
}

int vmm_acpi_pm_create(struct vm *vm, uint16_t port, uint16_t irq, struct vmm_acpi_pm **out)
{
    return acpi_pm_create(vm, port, irq, 1, out);
}
