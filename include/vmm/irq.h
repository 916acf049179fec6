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
 * back. On the thread of the vCPU that writes the EOI. VMM_E_EXIST if the line has one. ANY. */
int vm_irq_on_eoi(struct vm *vm, uint32_t line, void (*eoi)(void *opaque, uint32_t line),
                  void *opaque);

#ifdef __cplusplus
}
#endif
#endif
