/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq_route.c: KVM's table of what its interrupt numbers (GSIs) stand for. */
#include <errno.h>
#include <stdlib.h>

#include "backends/kvm/irq.h"

/*
 * KVM takes the table as a whole, and waits for readers of the old one each time, so it holds only
 * what KVM has to know: all lines if the controllers are its own; in split mode the level-triggered
 * pins of the library's IOAPIC, from which KVM learns which EOIs to exit for (the pins' messages
 * are sent by KVM_SIGNAL_MSI, so a change of them can wait for the next of those); and the message
 * routes that have a descriptor in KVM.
 */

#define MSI_DATA_LEVEL 0x8000u
#define PIC_PINS       8u
#define MAX_ENTRIES    (2 * VMM_IRQ_LINES + VMM_IRQ_ROUTES)

static struct kvm_irq_routing_entry *add(struct kvm_irq_routing *table, uint32_t gsi, uint32_t type)
{
    struct kvm_irq_routing_entry *e = &table->entries[table->nr++];

    e->gsi = gsi;
    e->type = type;
    return e;
}

static void add_pin(struct kvm_irq_routing *table, uint32_t gsi, uint32_t chip, uint32_t pin)
{
    struct kvm_irq_routing_entry *e = add(table, gsi, KVM_IRQ_ROUTING_IRQCHIP);

    e->u.irqchip.irqchip = chip;
    e->u.irqchip.pin = pin;
}

static void add_message(struct kvm_irq_routing *table, uint32_t gsi, const struct core_route *r)
{
    struct kvm_irq_routing_entry *e = add(table, gsi, KVM_IRQ_ROUTING_MSI);

    e->u.msi.address_lo = (uint32_t)r->address;
    e->u.msi.address_hi = (uint32_t)(r->address >> 32);
    e->u.msi.data = r->data;
}

/* Line 0, the timer, is pin 2 of the IOAPIC; line 2 is the cascade of the 8259s. */
static void add_lines(struct kvm_irq_routing *table)
{
    for (uint32_t line = 0; line < VMM_IRQ_LINES; line++) {
        if (line == 2)
            continue;
        if (line < PIC_PINS)
            add_pin(table, line, KVM_IRQCHIP_PIC_MASTER, line);
        else if (line < 2 * PIC_PINS)
            add_pin(table, line, KVM_IRQCHIP_PIC_SLAVE, line - PIC_PINS);
        add_pin(table, line, KVM_IRQCHIP_IOAPIC, line ? line : 2);
    }
}

static bool has_fd(const struct kvm_irq *irq, uint32_t line)
{
    for (const struct kvm_irq_fd *f = irq->fds; f; f = f->next)
        if (f->line == line)
            return true;
    return false;
}

int kvm_route_commit(struct vm *vm)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    struct kvm_irq_routing *table =
        calloc(1, sizeof(*table) + MAX_ENTRIES * sizeof(table->entries[0]));

    if (!table)
        return -ENOMEM;
    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL)
        add_lines(table);
    else
        for (uint32_t pin = 0; pin < VMM_IRQ_LINES; pin++)
            if (irq->pins[pin].set)
                add_message(table, pin, &irq->pins[pin]);
    for (uint32_t i = 0; irq->routes && i < VMM_IRQ_ROUTES; i++)
        if (irq->routes[i].set && has_fd(irq, VMM_IRQ_ROUTE_FIRST + i))
            add_message(table, VMM_IRQ_ROUTE_FIRST + i, &irq->routes[i]);
    int r = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_SET_GSI_ROUTING, table);
    if (r >= 0)
        irq->stale = false;
    free(table);
    return r < 0 ? r : 0;
}

static bool equal(const struct core_route *a, const struct core_route *b)
{
    return a->set == b->set && (!a->set || (a->address == b->address && a->data == b->data));
}

/* A pin of the library's IOAPIC. Under the lock. */
static void pin_changed(struct kvm_irq *irq, uint32_t pin, const struct core_route *r)
{
    struct core_route wanted = {0};

    if (r->set && (r->data & MSI_DATA_LEVEL))
        wanted = *r;
    if (equal(&irq->pins[pin], &wanted))
        return;
    irq->pins[pin] = wanted;
    irq->stale = true;
}

/* Under the lock. */
static int message_changed(struct vm *vm, uint32_t route, const struct core_route *r)
{
    struct kvm_irq *irq = kvm_irq_of(vm);

    if (!irq->routes)
        irq->routes = calloc(VMM_IRQ_ROUTES, sizeof(*irq->routes));
    if (!irq->routes)
        return -ENOMEM;
    struct core_route *own = &irq->routes[route - VMM_IRQ_ROUTE_FIRST], old = *own;
    *own = *r;
    if (equal(&old, r) || !has_fd(irq, route))
        return 0;
    int err = kvm_route_commit(vm);
    if (err)
        *own = old;
    return err;
}

int kvm_route_changed(struct vm *vm, uint32_t route, const struct core_route *r)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    int err = 0;

    if (!kvm_lapic_in_kernel(vm))
        return VMM_E_UNSUPPORTED;
    os_mutex_lock(&irq->lock);
    if (route < VMM_IRQ_ROUTE_FIRST)
        pin_changed(irq, route, r);
    else
        err = message_changed(vm, route, r);
    os_mutex_unlock(&irq->lock);
    return err ? kvm_fail(vm, "vm_irq_route", err, "KVM_SET_GSI_ROUTING") : 0;
}
