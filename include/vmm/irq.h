/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/irq.h: interrupt lines, message-signalled interrupts, end-of-interrupt notification. */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <vmm/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All of these need VMM_IRQCHIP_PC, else VMM_E_STATE. Lines 0-15 are the ISA lines: they reach the
 * 8259 pair and the IOAPIC (line 0 as pin 2); 16-23 reach the IOAPIC only. Line 2 is the slave
 * 8259's: setting it has no effect. A device may hold its own lock while it calls these functions.
 */
#define VMM_IRQ_LINES 24u

/* Sets the level of a line: asserted or not. VMM_E_RANGE. Idempotent: devices
 * that share a line must combine their levels. ANY. */
int vm_irq_set(struct vm *vm, uint32_t line, int level);

/* Asserts and deasserts: one edge. ANY. */
int vm_irq_pulse(struct vm *vm, uint32_t line);

/* Sends a message-signalled interrupt as a memory write of `data` to `address` (0xFEExxxxx) would:
 * SDM Vol. 3A 11.11. VMM_E_RANGE for an address outside that window. ANY. */
int vm_irq_msi(struct vm *vm, uint64_t address, uint32_t data);

/* Calls `eoi` whenever the guest ends the interrupt of a level-triggered line; NULL takes it
 * back. On the thread of the vCPU that writes the EOI; with VMM_IRQCHIP_MODE_KERNEL on that
 * of some vCPU which is inside vcpu_run, soon. VMM_E_EXIST if the line has one. ANY. */
int vm_irq_on_eoi(struct vm *vm, uint32_t line, void (*eoi)(void *opaque, uint32_t line),
                  void *opaque);

/* Numbers of message routes; where a function takes a line, it takes a route too if it says so. */
#define VMM_IRQ_ROUTE_FIRST 24u
#define VMM_IRQ_ROUTES      1024u

/* Makes `route` (VMM_IRQ_ROUTE_FIRST .. VMM_IRQ_ROUTE_FIRST + VMM_IRQ_ROUTES - 1) stand for the
 * message `data` to `address`, as vm_irq_msi sends it; address 0 clears it, and its signals are
 * lost then. A signal counts when it is served, which for vm_irq_fd may be a little later.
 * VMM_E_RANGE. ANY. */
int vm_irq_route(struct vm *vm, uint32_t route, uint64_t address, uint32_t data);

/*
 * From now on a signal of the eventfd `fd` (duplicated) is an edge on `line`, or the message of the
 * route `line`: in the host's kernel where it can, else on a thread of the library. With
 * resample_fd >= 0 (an eventfd, duplicated; lines only) the signal asserts the level-triggered
 * line, and the guest's EOI lowers it and signals resample_fd, so that the device signals again if
 * it still wants service; until then the line is asserted whatever vm_irq_set says. VMM_E_RANGE,
 * VMM_E_INVAL, VMM_E_EXIST if `fd` is on a line or route already, VMM_E_LIMIT, VMM_E_NOMEM. ANY.
 */
int vm_irq_fd(struct vm *vm, uint32_t line, int fd, int resample_fd);

/* Takes it back: no signal of it is delivered after this returns. VMM_E_NOENT. `fd` is the number
 * that vm_irq_fd was given. ANY. */
int vm_irq_fd_remove(struct vm *vm, uint32_t line, int fd);

#ifdef __cplusplus
}
#endif
#endif
