/* SPDX-License-Identifier: BSD-2-Clause */
/* core/irqchip.h: between the core and the user-space interrupt controllers (8259 pair, IOAPIC,
 * local APICs), which live in src/devices/{irqchip,pic,ioapic,lapic}.c. */
#ifndef CORE_IRQCHIP_H
#define CORE_IRQCHIP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <vmm/irq.h>
#include <vmm/vcpu.h>

struct irqchip; /* per VM */
struct lapic;   /* per vCPU */

/* What 8259s and IOAPIC need of local APICs that are somewhere else (VMM_IRQCHIP_MODE_SPLIT). All
 * are called with locks of the controllers held. */
struct irqchip_remote {
    /* Sends a message; false: no CPU took it. */
    bool (*msi)(struct vm *vm, uint64_t address, uint32_t data);
    /* The 8259 pair has an interrupt (irqchip_pic_intr). */
    void (*intr)(struct vm *vm);
    /* What IOAPIC pin `pin` sends from now on; address 0: nothing. */
    void (*pin)(struct vm *vm, uint32_t pin, uint64_t address, uint32_t data);
};

/* Registers the controllers' ports and MMIO through the public API. `remote` NULL: with local
 * APICs. 0 or VMM_E_*. */
int irqchip_create(struct vm *vm, const struct irqchip_remote *remote, struct irqchip **out);
void irqchip_destroy(struct irqchip *chip);
/* Power-on state of 8259s, IOAPIC and all local APICs. */
void irqchip_reset(struct irqchip *chip);

int irqchip_set_line(struct irqchip *chip, uint32_t line, int level);
int irqchip_msi(struct irqchip *chip, uint64_t address, uint32_t data);

/* For remote local APICs: a CPU has ended a level-triggered interrupt. No lock held. ANY. */
void irqchip_eoi_vector(struct irqchip *chip, uint8_t vector);
/* The 8259 pair's INTR, and its INTA cycles: the vector; a spurious one (input 7) if the request
 * has gone. ANY. */
bool irqchip_pic_intr(struct irqchip *chip);
uint8_t irqchip_pic_ack(struct irqchip *chip);

/* The local APIC of a vCPU, created with it and freed by lapic_destroy. */
int lapic_create(struct irqchip *chip, struct vcpu *vcpu, struct lapic **out);
void lapic_destroy(struct lapic *lapic);
/* Power-on or INIT reset (SDM Vol. 3A 11.4.7.3: INIT keeps the APIC id and base). */
void lapic_reset(struct lapic *lapic, bool init);

/* Whether the CPU's INTR line is asserted: an interrupt above the processor priority, or ExtINT
 * from the 8259s where LINT0 passes it to this CPU. Lock-free and cheap. ANY. */
bool lapic_intr(struct lapic *lapic);
/* Interrupt acknowledge: the vector to deliver (moves it from IRR to ISR, or runs the 8259s' INTA
 * cycle), or -1 when there is none any more. OWNER. */
int lapic_ack(struct lapic *lapic);

/* CR8 = task priority bits 7:4. OWNER. */
uint64_t lapic_get_cr8(struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, uint64_t cr8);

/*
 * For engines whose hardware keeps the task priority while the guest runs: from lapic_lend to
 * lapic_take_back it is what *tpr holds (bits 7:0). Interrupts that arrive meanwhile are always
 * told by core_vcpu_intr. lapic_lend returns the class (bits 7:4) that the task priority must fall
 * below so that a waiting interrupt may be delivered; 0: there is none that only waits for this.
 * Nothing else of OWNER's in between but lapic_place. OWNER.
 */
uint32_t lapic_lend(struct lapic *lapic, atomic_uint *tpr);
void lapic_take_back(struct lapic *lapic);

/* Where the guest finds its registers: in no place that these engines know (off, or moved), in the
 * page at APIC_DEFAULT_BASE, or as MSRs. OWNER. */
enum lapic_place { LAPIC_ELSEWHERE, LAPIC_IN_PAGE, LAPIC_IN_MSRS };
enum lapic_place lapic_place(const struct lapic *lapic);
#define APIC_DEFAULT_BASE 0xfee00000ull

/*
 * For engines whose hardware delivers and ends interrupts, too: instead of lapic_lend. IRR, ISR and
 * PPR go to a virtual-APIC page (SDM Vol. 3C 29.1). What arrives meanwhile is not in the page: it
 * is told by core_vcpu_intr, and kept until the page comes back. The hardware may send to itself
 * (not while lapic_takes_fixed is false), and tells of ends of the vectors in `level`, and
 * lapic_ended of them here, after lapic_take_back. Of lapic_intr only the 8259s' part holds
 * meanwhile (lapic_extint). False: the page, always the same, is as the hardware has left it, and
 * so are `requested`, `serviced` and `level`. OWNER.
 */
struct lapic_delivery {
    uint8_t requested, serviced; /* the highest vectors of IRR and ISR; 0: none */
    uint32_t waiting;            /* vectors in IRR */
    uint64_t level[4];
};
bool lapic_lend_delivery(struct lapic *lapic, atomic_uint *tpr, uint8_t *page,
                         struct lapic_delivery *out);
/* Returns how many vectors are in IRR there. */
uint32_t lapic_take_delivery(struct lapic *lapic, const uint8_t *page);
void lapic_ended(struct lapic *lapic, uint8_t vector);
bool lapic_extint(struct lapic *lapic);
/* Software has not disabled it. */
bool lapic_takes_fixed(const struct lapic *lapic);

/*
 * For engines whose hardware gives the guest its registers in memory, too, while they are in the
 * default page: between lapic_lend and lapic_take_back they are in a virtual-APIC page, always the
 * same, but for TPR, PPR and the timer's current count. What others change meanwhile is told by
 * core_vcpu_intr, and kept until the page comes back. The hardware keeps the ICR, which comes back
 * by lapic_take_registers, and tells of what else has been written (and of the ICR, if that has
 * sent something elsewhere), and lapic_written of it here, after lapic_take_back. Behind
 * lapic_lend_delivery and lapic_take_delivery, if there are both. OWNER.
 */
void lapic_lend_registers(struct lapic *lapic, uint8_t *page);
void lapic_take_registers(struct lapic *lapic, const uint8_t *page);
void lapic_written(struct lapic *lapic, uint8_t *page, uint32_t offset);

/* IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0) and the x2APIC MSRs (0x800-0x8ff).
 * Return 0, or -1 for #GP. `host` skips the checks that only guests need. OWNER. */
int lapic_read_msr(struct lapic *lapic, uint32_t index, uint64_t *value);
int lapic_write_msr(struct lapic *lapic, uint32_t index, uint64_t value, bool host);

/*
 * What the controllers ask of the core (core/vcpu.c). All ANY.
 * core_vcpu_intr: lapic_intr may have become true: look again. The others are the pins and messages
 * of the same names.
 */
void core_vcpu_intr(struct vcpu *vcpu);
void core_vcpu_nmi(struct vcpu *vcpu);
void core_vcpu_init_ipi(struct vcpu *vcpu);
void core_vcpu_sipi(struct vcpu *vcpu, uint8_t vector);
struct lapic *core_vcpu_lapic(struct vcpu *vcpu);
/* The guest has ended the interrupt of a level-triggered line: calls what vm_irq_on_eoi has
 * registered, and serves resampling descriptors. Out of guest state, no lock held. */
void core_irq_eoi(struct vm *vm, uint32_t line);
/* Guest TSC of the vCPU now, and the vm_clock time at which it will reach `tsc`: now if it has. */
uint64_t core_vcpu_tsc(struct vcpu *vcpu);
uint64_t core_tsc_deadline(struct vcpu *vcpu, uint64_t tsc);

#endif
