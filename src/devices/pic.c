/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/pic.c: the pair of 8259A interrupt controllers of a PC, with edge/level control
 * registers. */
#include "devices/irqchip_internal.h"

/*
 * Ports 0x20-0x21 (master), 0xa0-0xa1 (slave on the master's input 2), 0x4d0-0x4d1 (ELCR).
 *
 * References are to the Intel 8259A datasheet (order 231468-003). Where chip sets replace it: the
 * trigger mode of each input comes from the ELCR, not from ICW1's LTIM; ICW3 is wired; ICW4's 8080
 * mode and buffered mode have no effect. The cascade input shows the slave's INT output without
 * latching it.
 */

#define MASTER 0
#define SLAVE  1

#define CASCADE 2u /* the master's input to which the slave is wired */

/* Inputs that are always edge-triggered: 0, 1, 2 of the master, 8 and 13. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

/* 0: highest priority now. */
static unsigned rank(const struct pic_chip *c, unsigned input)
{
    return (input - c->lowest - 1) & 7;
}

/* The input of `mask` with the highest priority, or -1. */
static int highest(const struct pic_chip *c, uint8_t mask)
{
    for (unsigned i = 1; mask && i <= 8; i++) {
        unsigned input = (c->lowest + i) & 7;
        if (mask >> input & 1)
            return (int)input;
    }
    return -1;
}

/* The input that requests service now, or -1: fully nested mode and its two variants. */
static int request(const struct pic_chip *c)
{
    int input = highest(c, c->irr & (uint8_t)~c->imr);
    if (input < 0 || c->step)
        return -1;
    /* Special mask mode: inputs that are masked while in service hold nobody back. */
    int serving = highest(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
    if (serving < 0 || rank(c, (unsigned)input) < rank(c, (unsigned)serving))
        return input;
    /* Special fully nested mode: the slave in service may ask again for a better input of its own.
     */
    if (c->special_nested && input == (int)CASCADE && serving == (int)CASCADE)
        return input;
    return -1;
}

static void set_input(struct pic_chip *c, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
    else if (level && !(c->lines & bit))
        c->irr |= bit;
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
}

/* Passes outputs on: slave to master, master to LINT0 of the local APICs and pin 0 of the IOAPIC.
 */
static void update(struct irqchip *chip)
{
    struct pic *pic = &chip->pic;
    struct pic_chip *m = &pic->chip[MASTER];
    uint8_t cascade = 1u << CASCADE;

    if (request(&pic->chip[SLAVE]) >= 0)
        m->irr |= cascade;
    else
        m->irr &= (uint8_t)~cascade;

    bool out = request(m) >= 0;
    if (atomic_load_explicit(&pic->intr, memory_order_relaxed) == out)
        return;
    atomic_store(&pic->intr, out);
    ioapic_set_pin(chip, 0, out);
    if (chip->remote && out)
        chip->remote->intr(chip->vm);
    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct lapic *l = atomic_load(&chip->lapic[i]);
        if (l)
            lapic_pic_output(l, out);
    }
}

/* Ends service of an input; returns the EOI bit of a level-triggered one. */
static uint8_t end(struct pic_chip *c, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!(c->isr & bit))
        return 0;
    c->isr &= (uint8_t)~bit;
    return c->elcr & bit;
}

/* Acknowledges an input: from IRR to ISR. Returns the EOI bit if automatic EOI ends it at once. */
static uint8_t acknowledge(struct pic_chip *c, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    c->isr |= bit;
    if (!c->auto_eoi)
        return 0;
    if (c->rotate_auto_eoi)
        c->lowest = (uint8_t)input;
    return end(c, input);
}

void pic_set_line(struct irqchip *chip, uint32_t line, bool level)
{
    struct pic *pic = &chip->pic;
    os_mutex_lock(&pic->lock);
    set_input(&pic->chip[line >> 3], line & 7, level);
    update(chip);
    os_mutex_unlock(&pic->lock);
}

/* One chip's part of the INTA cycles: its vector. A request that has gone gives input 7, which is
 * not in service then ("default IR7"). */
static uint8_t inta(struct pic_chip *c, int *input, uint8_t *eoi)
{
    *input = request(c);
    if (*input < 0)
        return c->base + 7;
    *eoi = acknowledge(c, (unsigned)*input);
    return c->base + (uint8_t)*input;
}

uint8_t pic_ack(struct irqchip *chip)
{
    struct pic *pic = &chip->pic;
    uint8_t eoi[2] = {0, 0};
    int input;

    os_mutex_lock(&pic->lock);
    uint8_t vector = inta(&pic->chip[MASTER], &input, &eoi[MASTER]);
    if (input == (int)CASCADE)
        vector = inta(&pic->chip[SLAVE], &input, &eoi[SLAVE]);
    /* INT falls with INTA, whatever else waits: an edge-triggered LINT0 or IOAPIC pin sees it. */
    if (atomic_exchange(&pic->intr, false))
        ioapic_set_pin(chip, 0, false);
    update(chip);
    os_mutex_unlock(&pic->lock);

    irqchip_notify_eoi(chip, eoi[MASTER] | (uint32_t)eoi[SLAVE] << 8);
    return vector;
}

/* ---- registers ---- */

static void write_icw1(struct pic_chip *c, uint8_t value)
{
    c->step = 2;
    c->want_icw4 = value & 1;
    c->single = value & 2;
    /* Initialization clears edge latches, IMR, ISR, rotation and modes. */
    c->irr &= c->elcr;
    c->imr = 0;
    c->isr = 0;
    c->lowest = 7;
    c->auto_eoi = false;
    c->rotate_auto_eoi = false;
    c->special_mask = false;
    c->special_nested = false;
    c->read_isr = false;
    c->poll = false;
}

static void write_icw(struct pic_chip *c, uint8_t value)
{
    switch (c->step) {
    case 2:
        c->base = value & 0xf8;
        c->step = !c->single ? 3 : c->want_icw4 ? 4 : 0;
        break;
    case 3:
        c->step = c->want_icw4 ? 4 : 0;
        break;
    default:
        c->auto_eoi = value & 2;
        c->special_nested = value & 0x10;
        c->step = 0;
        break;
    }
}

/* OCW2: bits 7:5 are rotate, specific, EOI. Returns the EOI bit. */
static uint8_t write_ocw2(struct pic_chip *c, uint8_t value)
{
    bool rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    uint8_t ended = 0;

    if (!eoi) {
        if (rotate && specific)
            c->lowest = value & 7;
        else if (!specific)
            c->rotate_auto_eoi = rotate;
        return 0;
    }
    /* In special mask mode a non-specific EOI leaves masked inputs in service. */
    int input = specific ? value & 7 : highest(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    if (input >= 0) {
        ended = end(c, (unsigned)input);
        if (rotate)
            c->lowest = (uint8_t)input;
    }
    return ended;
}

static void write_ocw3(struct pic_chip *c, uint8_t value)
{
    if (value & 0x40)
        c->special_mask = value & 0x20;
    c->poll = value & 4;
    if (value & 2)
        c->read_isr = value & 1;
}

static int pic_write(struct irqchip *chip, int which, uint64_t offset, uint64_t value)
{
    struct pic *pic = &chip->pic;
    uint8_t v = (uint8_t)value, eoi = 0;

    os_mutex_lock(&pic->lock);
    struct pic_chip *c = &pic->chip[which];
    if (offset == 1 && c->step)
        write_icw(c, v);
    else if (offset == 1)
        c->imr = v;
    else if (v & 0x10)
        write_icw1(c, v);
    else if (v & 8)
        write_ocw3(c, v);
    else
        eoi = write_ocw2(c, v);
    update(chip);
    os_mutex_unlock(&pic->lock);

    irqchip_notify_eoi(chip, (uint32_t)eoi << (which == SLAVE ? 8 : 0));
    return VMM_IO_OK;
}

static int pic_read(struct irqchip *chip, int which, uint64_t offset, uint64_t *value)
{
    struct pic *pic = &chip->pic;
    uint8_t eoi = 0;

    os_mutex_lock(&pic->lock);
    struct pic_chip *c = &pic->chip[which];
    if (c->poll) {
        /* Poll command: this read is the acknowledge. */
        c->poll = false;
        int input = request(c);
        *value = 0;
        if (input >= 0) {
            eoi = acknowledge(c, (unsigned)input);
            *value = 0x80u | (unsigned)input;
            update(chip);
        }
    } else if (offset == 1) {
        *value = c->imr;
    } else {
        *value = c->read_isr ? c->isr : c->irr;
    }
    os_mutex_unlock(&pic->lock);

    irqchip_notify_eoi(chip, (uint32_t)eoi << (which == SLAVE ? 8 : 0));
    return VMM_IO_OK;
}

static int master_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)size;
    return pic_read(opaque, MASTER, offset, value);
}

static int master_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)size;
    return pic_write(opaque, MASTER, offset, value);
}

static int slave_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)size;
    return pic_read(opaque, SLAVE, offset, value);
}

static int slave_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)size;
    return pic_write(opaque, SLAVE, offset, value);
}

static int elcr_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct pic *pic = &((struct irqchip *)opaque)->pic;
    (void)size;
    os_mutex_lock(&pic->lock);
    *value = pic->chip[offset & 1].elcr;
    os_mutex_unlock(&pic->lock);
    return VMM_IO_OK;
}

static int elcr_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct irqchip *chip = opaque;
    struct pic *pic = &chip->pic;
    (void)size;
    os_mutex_lock(&pic->lock);
    struct pic_chip *c = &pic->chip[offset & 1];
    c->elcr = (uint8_t)value & elcr_mask[offset & 1];
    /* An input that is level-triggered now requests as long as its pin is high. */
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
    update(chip);
    os_mutex_unlock(&pic->lock);
    return VMM_IO_OK;
}

/* ---- life cycle ---- */

static const struct {
    uint16_t port;
    struct vmm_io_ops ops;
} pic_ports[3] = {
    {0x20,
     {.size = sizeof(struct vmm_io_ops),
      .max_access = 1,
      .name = "pic-master",
      .read = master_read,
      .write = master_write}},
    {0xa0,
     {.size = sizeof(struct vmm_io_ops),
      .max_access = 1,
      .name = "pic-slave",
      .read = slave_read,
      .write = slave_write}},
    {0x4d0,
     {.size = sizeof(struct vmm_io_ops),
      .max_access = 1,
      .name = "pic-elcr",
      .read = elcr_read,
      .write = elcr_write}},
};

static void power_on(struct pic_chip *c)
{
    uint8_t lines = c->lines; /* pins are their devices' */
    *c = (struct pic_chip){.lines = lines, .lowest = 7};
}

void pic_reset(struct irqchip *chip)
{
    struct pic *pic = &chip->pic;
    os_mutex_lock(&pic->lock);
    power_on(&pic->chip[MASTER]);
    power_on(&pic->chip[SLAVE]);
    update(chip);
    os_mutex_unlock(&pic->lock);
}

int pic_init(struct irqchip *chip)
{
    struct pic *pic = &chip->pic;
    if (os_mutex_init(&pic->lock))
        return VMM_E_NOMEM;
    power_on(&pic->chip[MASTER]);
    power_on(&pic->chip[SLAVE]);
    for (int i = 0; i < 3; i++) {
        int err =
            pio_register(chip->vm, pic_ports[i].port, 2, &pic_ports[i].ops, chip, &pic->ports[i]);
        if (err) {
            pic_fini(chip);
            return err;
        }
    }
    return 0;
}

void pic_fini(struct irqchip *chip)
{
    struct pic *pic = &chip->pic;
    for (int i = 0; i < 3; i++)
        pio_unregister(pic->ports[i]); /* NULL is allowed by mmio_unregister's rule */
    os_mutex_fini(&pic->lock);
}
