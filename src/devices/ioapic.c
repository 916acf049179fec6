/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/ioapic.c: the I/O APIC (82093AA, with the EOI register of version 0x20). */
#include "devices/irqchip_internal.h"

/*
 * 24 pins at 0xfec00000. Pin 0 is the 8259s' INTR, pin 2 is ISA line 0. Polarity is only stored:
 * devices say "asserted". An edge-triggered pin that rises while it is masked is lost (82093AA
 * 3.2.4, "Interrupt Mask"); a level-triggered one is delivered when it is unmasked.
 */

#define IOAPIC_GPA 0xfec00000ull
#define IOAPIC_LEN 0x1000ull

#define REG_SELECT 0x00u
#define REG_WINDOW 0x10u
#define REG_EOI    0x40u

#define IOAPIC_ID      0x00u
#define IOAPIC_VERSION 0x01u
#define IOAPIC_ARB     0x02u
#define IOAPIC_RTE     0x10u

#define VERSION_VALUE (((IOAPIC_PINS - 1) << 16) | 0x20u)

#define RTE_VECTOR     0xffull
#define RTE_LOGICAL    0x800ull
#define RTE_REMOTE_IRR 0x4000ull
#define RTE_LEVEL      0x8000ull
#define RTE_MASKED     0x10000ull

/* Writable bits; delivery status (12) and remote IRR (14) are the chip's. */
#define RTE_LOW_WRITABLE  0x0001afffu
#define RTE_HIGH_WRITABLE 0xff000000u

static struct irq_msg message(uint64_t rte)
{
    uint32_t dest = (uint32_t)(rte >> 56);
    uint8_t mode = rte >> 8 & 7;

    return (struct irq_msg){
        .dest = dest == 0xff ? IRQ_BROADCAST : dest,
        .mode = mode,
        .vector = (uint8_t)rte,
        .logical = rte & RTE_LOGICAL,
        .level = (rte & RTE_LEVEL) && (mode == IRQ_FIXED || mode == IRQ_LOWEST),
    };
}

/* Sends the message of a pin. Locked. */
static uint32_t send(struct irqchip *chip, uint64_t rte)
{
    struct irq_msg msg = message(rte);

    return msg.mode == IRQ_SIPI ? 0 : irqchip_deliver(chip, &msg, NULL);
}

/* Remote local APICs have to know which vectors' EOI is wanted. A pin that was masked while its
 * interrupt is in service waits for that too. Locked. */
static void tell_remote(struct irqchip *chip, uint32_t pin)
{
    uint64_t rte = chip->ioapic.rte[pin], address = 0;
    uint32_t data = 0;

    if (!chip->remote)
        return;
    if (!(rte & RTE_MASKED) || (rte & RTE_REMOTE_IRR)) {
        struct irq_msg msg = message(rte);

        address = irqchip_compose(&msg, &data);
    }
    chip->remote->pin(chip->vm, pin, address, data);
}

/* Delivers a level-triggered pin that is asserted, unless it waits for its EOI. Locked. */
static void serve_level(struct irqchip *chip, uint32_t pin)
{
    struct ioapic *io = &chip->ioapic;
    uint64_t rte = io->rte[pin];
    if (!(rte & RTE_LEVEL) || (rte & (RTE_MASKED | RTE_REMOTE_IRR)) || !(io->lines >> pin & 1))
        return;
    uint8_t mode = rte >> 8 & 7;
    /* Modes without an EOI behave as edge-triggered ones: see ioapic_set_pin. */
    if (mode != IRQ_FIXED && mode != IRQ_LOWEST)
        return;
    if (send(chip, rte))
        io->rte[pin] |= RTE_REMOTE_IRR;
}

void ioapic_set_pin(struct irqchip *chip, uint32_t pin, bool level)
{
    struct ioapic *io = &chip->ioapic;
    uint32_t bit = 1u << pin;

    os_mutex_lock(&io->lock);
    bool rises = level && !(io->lines & bit);
    io->lines = level ? io->lines | bit : io->lines & ~bit;
    uint64_t rte = io->rte[pin];
    uint8_t mode = rte >> 8 & 7;
    if ((rte & RTE_LEVEL) && (mode == IRQ_FIXED || mode == IRQ_LOWEST))
        serve_level(chip, pin);
    else if (rises && !(rte & RTE_MASKED))
        send(chip, rte);
    os_mutex_unlock(&io->lock);
}

void ioapic_eoi(struct irqchip *chip, uint8_t vector)
{
    struct ioapic *io = &chip->ioapic;
    uint32_t pins = 0;

    os_mutex_lock(&io->lock);
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t rte = io->rte[pin];
        if ((rte & RTE_VECTOR) == vector && (rte & RTE_LEVEL) && (rte & RTE_REMOTE_IRR))
            pins |= 1u << pin;
    }
    os_mutex_unlock(&io->lock);
    if (!pins)
        return;

    /* The callbacks come first: a device that lowers its line there is not delivered again. */
    uint32_t lines = pins & ~5u;
    if (pins & 4)
        lines |= 1;
    irqchip_notify_eoi(chip, lines);

    os_mutex_lock(&io->lock);
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        if (!(pins >> pin & 1) || (io->rte[pin] & RTE_VECTOR) != vector)
            continue;
        io->rte[pin] &= ~RTE_REMOTE_IRR;
        serve_level(chip, pin);
    }
    os_mutex_unlock(&io->lock);
}

/* ---- registers ---- */

static uint32_t read_reg(const struct ioapic *io)
{
    switch (io->select) {
    case IOAPIC_ID:
    case IOAPIC_ARB:
        return io->id;
    case IOAPIC_VERSION:
        return VERSION_VALUE;
    default:
        break;
    }
    uint32_t index = io->select - IOAPIC_RTE;
    if (io->select < IOAPIC_RTE || index >= 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->rte[index / 2] >> (index & 1 ? 32 : 0));
}

static void write_reg(struct irqchip *chip, uint32_t value)
{
    struct ioapic *io = &chip->ioapic;
    if (io->select == IOAPIC_ID)
        io->id = value & 0x0f000000;

    uint32_t index = io->select - IOAPIC_RTE;
    if (io->select < IOAPIC_RTE || index >= 2 * IOAPIC_PINS)
        return;
    uint32_t pin = index / 2;
    uint64_t rte = io->rte[pin];
    if (index & 1) {
        rte = (rte & 0xffffffffu) | (uint64_t)(value & RTE_HIGH_WRITABLE) << 32;
    } else {
        rte = (rte & ~(uint64_t)RTE_LOW_WRITABLE) | (value & RTE_LOW_WRITABLE);
        /* Becoming edge-triggered drops remote IRR; systems without an EOI register rely on it. */
        if (!(rte & RTE_LEVEL))
            rte &= ~RTE_REMOTE_IRR;
    }
    io->rte[pin] = rte;
    tell_remote(chip, pin);
    serve_level(chip, pin);
}

static int mmio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct irqchip *chip = opaque;
    struct ioapic *io = &chip->ioapic;
    uint32_t reg = offset & ~3u, word = 0;
    (void)size;

    os_mutex_lock(&io->lock);
    if (reg == REG_SELECT)
        word = io->select;
    else if (reg == REG_WINDOW)
        word = read_reg(io);
    os_mutex_unlock(&io->lock);
    *value = word >> (offset & 3) * 8;
    return VMM_IO_OK;
}

static int mmio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct irqchip *chip = opaque;
    struct ioapic *io = &chip->ioapic;

    if (offset == REG_EOI) {
        ioapic_eoi(chip, (uint8_t)value);
        return VMM_IO_OK;
    }
    os_mutex_lock(&io->lock);
    if (offset == REG_SELECT)
        io->select = value & 0xff;
    else if (offset == REG_WINDOW && size == 4)
        write_reg(chip, (uint32_t)value);
    os_mutex_unlock(&io->lock);
    return VMM_IO_OK;
}

/* ---- life cycle ---- */

static const struct vmm_io_ops ioapic_ops = {
    .size = sizeof(struct vmm_io_ops),
    .max_access = 4,
    .name = "ioapic",
    .read = mmio_read,
    .write = mmio_write,
};

static void power_on(struct irqchip *chip)
{
    struct ioapic *io = &chip->ioapic;

    io->select = 0;
    io->id = 0;
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        io->rte[pin] = RTE_MASKED;
        tell_remote(chip, pin);
    }
}

void ioapic_reset(struct irqchip *chip)
{
    struct ioapic *io = &chip->ioapic;
    os_mutex_lock(&io->lock);
    power_on(chip);
    os_mutex_unlock(&io->lock);
}

int ioapic_init(struct irqchip *chip)
{
    struct ioapic *io = &chip->ioapic;
    if (os_mutex_init(&io->lock))
        return VMM_E_NOMEM;
    power_on(chip);
    int err = mmio_register(chip->vm, IOAPIC_GPA, IOAPIC_LEN, &ioapic_ops, chip, &io->mmio);
    if (err)
        os_mutex_fini(&io->lock);
    return err;
}

void ioapic_fini(struct irqchip *chip)
{
    mmio_unregister(chip->ioapic.mmio);
    os_mutex_fini(&chip->ioapic.lock);
}
