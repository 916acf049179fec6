/* SPDX-License-Identifier: BSD-2-Clause */
/* devices/irqchip.c: the interrupt controllers of a PC as a whole: wiring, messages, EOI callbacks.
 */
#include <stdlib.h>

#include "devices/irqchip_internal.h"

#define MSI_WINDOW_MASK 0xfffffffffff00000ull
#define MSI_WINDOW      0xfee00000ull

#define MSI_ADDRESS_LOGICAL 4u
#define MSI_ADDRESS_HINT    8u
#define MSI_DATA_ASSERT     0x4000u
#define MSI_DATA_LEVEL      0x8000u

int irqchip_create(struct vm *vm, const struct irqchip_remote *remote, struct irqchip **out)
{
    struct irqchip *chip = calloc(1, sizeof(*chip));
    if (!chip)
        return VMM_E_NOMEM;
    chip->vm = vm;
    chip->remote = remote;

    int err = VMM_E_NOMEM;
    if (os_mutex_init(&chip->window_lock))
        goto no_window_lock;
    err = pic_init(chip);
    if (err)
        goto no_pic;
    err = ioapic_init(chip);
    if (err)
        goto no_ioapic;
    err = remote ? 0 : lapic_window_init(chip);
    if (err)
        goto no_window;
    *out = chip;
    return 0;

no_window:
    ioapic_fini(chip);
no_ioapic:
    pic_fini(chip);
no_pic:
    os_mutex_fini(&chip->window_lock);
no_window_lock:
    free(chip);
    return err;
}

void irqchip_destroy(struct irqchip *chip)
{
    if (!chip)
        return;
    lapic_window_fini(chip, true);
    ioapic_fini(chip);
    pic_fini(chip);
    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct lapic *l = atomic_load(&chip->lapic[i]);
        if (!l)
            continue;
        lapic_destroy(l);
        os_mutex_fini(&l->lock);
        free(l);
    }
    os_mutex_fini(&chip->window_lock);
    free(chip);
}

void irqchip_reset(struct irqchip *chip)
{
    lapic_window_fini(chip, false);
    pic_reset(chip);
    ioapic_reset(chip);
    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct lapic *l = atomic_load(&chip->lapic[i]);
        if (l)
            lapic_reset(l, false);
    }
}

int irqchip_set_line(struct irqchip *chip, uint32_t line, int level)
{
    if (line >= VMM_IRQ_LINES)
        return VMM_E_RANGE;
    /* Input 2 of the master is the cascade, and pin 2 of the IOAPIC belongs to line 0. */
    if (line == 2)
        return 0;
    if (line < 16)
        pic_set_line(chip, line, level);
    ioapic_set_pin(chip, line ? line : 2, level);
    return 0;
}

/* SDM Vol. 3A 11.11. The destination mode bit is honoured without the redirection hint too, as
 * operating systems expect. */
int irqchip_msi(struct irqchip *chip, uint64_t address, uint32_t data)
{
    if ((address & MSI_WINDOW_MASK) != MSI_WINDOW)
        return VMM_E_RANGE;

    uint32_t dest = (uint32_t)(address >> 12) & 0xff;
    struct irq_msg msg = {
        .dest = dest == 0xff ? IRQ_BROADCAST : dest,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
        .shorthand = IRQ_TO_DEST,
        .logical = address & MSI_ADDRESS_LOGICAL,
        .level = data & MSI_DATA_LEVEL,
    };
    if (msg.level && !(data & MSI_DATA_ASSERT)) /* deassertion: only assertions are delivered */
        return 0;
    if ((address & MSI_ADDRESS_HINT) && msg.mode == IRQ_FIXED)
        msg.mode = IRQ_LOWEST;
    if (msg.mode != IRQ_SIPI)
        irqchip_deliver(chip, &msg, NULL);
    return 0;
}

void irqchip_notify_eoi(struct irqchip *chip, uint32_t mask)
{
    for (uint32_t line = 0; mask; line++, mask >>= 1)
        if (mask & 1)
            core_irq_eoi(chip->vm, line);
}

/* ---- local APICs elsewhere ---- */

void irqchip_eoi_vector(struct irqchip *chip, uint8_t vector)
{
    ioapic_eoi(chip, vector);
}

bool irqchip_pic_intr(struct irqchip *chip)
{
    return atomic_load(&chip->pic.intr);
}

uint8_t irqchip_pic_ack(struct irqchip *chip)
{
    return pic_ack(chip);
}

/* SDM Vol. 3A 11.11, from the fields that the IOAPIC has. */
uint64_t irqchip_compose(const struct irq_msg *msg, uint32_t *data)
{
    uint64_t dest = msg->dest == IRQ_BROADCAST ? 0xff : msg->dest & 0xff;

    *data = msg->vector | (uint32_t)msg->mode << 8;
    if (msg->level)
        *data |= MSI_DATA_LEVEL | MSI_DATA_ASSERT;
    return MSI_WINDOW | dest << 12 | (msg->mode == IRQ_LOWEST ? MSI_ADDRESS_HINT : 0) |
           (msg->logical ? MSI_ADDRESS_LOGICAL : 0);
}

static uint32_t deliver_remote(struct irqchip *chip, const struct irq_msg *msg)
{
    uint32_t data;
    uint64_t address = irqchip_compose(msg, &data);

    return chip->remote->msi(chip->vm, address, data);
}

/* ---- delivery ---- */

/* Among the destinations the one with the lowest priority; equals take turns. */
static uint32_t deliver_lowest(struct irqchip *chip, const struct irq_msg *msg)
{
    uint32_t start = atomic_fetch_add_explicit(&chip->next_lowest, 1, memory_order_relaxed);
    struct lapic *best = NULL;
    int best_priority = 0;

    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct lapic *l = atomic_load(&chip->lapic[(start + i) % VMM_MAX_VCPUS]);
        int priority = l ? lapic_arbitration(l, msg->dest, msg->logical) : -1;
        if (priority >= 0 && (!best || priority < best_priority)) {
            best = l;
            best_priority = priority;
        }
    }
    if (!best)
        return 0;
    /* Equals take turns only if the next search starts behind the winner. */
    atomic_store_explicit(&chip->next_lowest, best->id + 1, memory_order_relaxed);
    return lapic_accept(best, IRQ_FIXED, msg->vector, msg->level);
}

uint32_t irqchip_deliver(struct irqchip *chip, const struct irq_msg *msg, struct lapic *from)
{
    if (chip->remote)
        return deliver_remote(chip, msg);
    if (msg->shorthand == IRQ_TO_SELF)
        return lapic_accept(from, msg->mode, msg->vector, msg->level);
    if (msg->shorthand == IRQ_TO_DEST && msg->mode == IRQ_LOWEST)
        return deliver_lowest(chip, msg);
    if (msg->shorthand == IRQ_TO_DEST && !msg->logical && msg->dest != IRQ_BROADCAST) {
        struct lapic *l = msg->dest < VMM_MAX_VCPUS ? atomic_load(&chip->lapic[msg->dest]) : NULL;
        return l && lapic_accept(l, msg->mode, msg->vector, msg->level);
    }

    uint32_t taken = 0;
    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct lapic *l = atomic_load(&chip->lapic[i]);
        if (!l || (msg->shorthand == IRQ_TO_OTHERS && l == from))
            continue;
        if (msg->shorthand == IRQ_TO_DEST && !lapic_matches(l, msg->dest, msg->logical))
            continue;
        taken += lapic_accept(l, msg->mode, msg->vector, msg->level);
    }
    return taken;
}
