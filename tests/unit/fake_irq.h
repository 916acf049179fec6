/* SPDX-License-Identifier: BSD-2-Clause */
/* fake_irq.h: interrupt controllers with CPUs that only count what reaches their pins. */
#ifndef FAKE_IRQ_H
#define FAKE_IRQ_H

#include "fake_vm.h"

#include "core/irqchip.h"

#define CPUS      4u
#define NO_VECTOR (-1)

struct vcpu {
    struct vm *vm;
    uint32_t id;
    struct lapic *lapic;
    uint32_t intr, nmi, init, sipi; /* calls */
    uint8_t sipi_vector;
    uint64_t tsc_offset;
};

static struct vm *vm;
static struct irqchip *chip;
static struct vcpu cpu[CPUS];
static struct vcpu *current;

struct vcpu *vcpu_current(struct vm *of)
{
    (void)of;
    return current;
}

uint32_t vcpu_id(struct vcpu *vcpu)
{
    return vcpu->id;
}

struct lapic *core_vcpu_lapic(struct vcpu *vcpu)
{
    return vcpu->lapic;
}

void core_vcpu_intr(struct vcpu *vcpu)
{
    vcpu->intr++;
}

void core_vcpu_nmi(struct vcpu *vcpu)
{
    vcpu->nmi++;
}

void core_vcpu_init_ipi(struct vcpu *vcpu)
{
    vcpu->init++;
}

void core_vcpu_sipi(struct vcpu *vcpu, uint8_t vector)
{
    vcpu->sipi++;
    vcpu->sipi_vector = vector;
}

static void (*eoi_callback[VMM_IRQ_LINES])(void *opaque, uint32_t line);

void core_irq_eoi(struct vm *of, uint32_t line)
{
    (void)of;
    if (eoi_callback[line])
        eoi_callback[line](NULL, line);
}

/* Two TSC ticks per ns. */
uint64_t core_vcpu_tsc(struct vcpu *vcpu)
{
    return vcpu->vm->clock * 2 + vcpu->tsc_offset;
}

uint64_t core_tsc_deadline(struct vcpu *vcpu, uint64_t tsc)
{
    return (tsc - vcpu->tsc_offset + 1) / 2;
}

static void irq_setup(void)
{
    vm = fake_vm_new();
    vm->clock = 1000;
    ck_assert_int_eq(irqchip_create(vm, NULL, &chip), 0);
    for (uint32_t i = 0; i < CPUS; i++) {
        cpu[i] = (struct vcpu){.vm = vm, .id = i};
        ck_assert_int_eq(lapic_create(chip, &cpu[i], &cpu[i].lapic), 0);
    }
    current = &cpu[0];
    memset(eoi_callback, 0, sizeof(eoi_callback));
}

static void irq_teardown(void)
{
    irqchip_destroy(chip);
    fake_vm_free(vm);
}

#define LAPIC_GPA 0xfee00000ull

__attribute__((unused)) static uint32_t apic_read(uint32_t n, uint32_t reg)
{
    current = &cpu[n];
    return (uint32_t)mmio_in(vm, LAPIC_GPA + reg, 4);
}

__attribute__((unused)) static void apic_write(uint32_t n, uint32_t reg, uint32_t value)
{
    current = &cpu[n];
    mmio_out(vm, LAPIC_GPA + reg, 4, value);
}

/* As an operating system starts a local APIC: software enable, spurious vector 0xff. */
__attribute__((unused)) static void apic_enable(uint32_t n)
{
    apic_write(n, 0xf0, 0x1ff);
}

__attribute__((unused)) static void apic_enable_all(void)
{
    for (uint32_t i = 0; i < CPUS; i++)
        apic_enable(i);
}

__attribute__((unused)) static uint64_t rdmsr(uint32_t n, uint32_t index)
{
    uint64_t value = 0;

    ck_assert_int_eq(lapic_read_msr(cpu[n].lapic, index, &value), 0);
    return value;
}

/* 0, or -1 for #GP. */
__attribute__((unused)) static int wrmsr(uint32_t n, uint32_t index, uint64_t value)
{
    return lapic_write_msr(cpu[n].lapic, index, value, false);
}

/* What the CPU takes, if anything. */
static int ack(uint32_t n)
{
    return lapic_intr(cpu[n].lapic) ? lapic_ack(cpu[n].lapic) : NO_VECTOR;
}

__attribute__((unused)) static void line(uint32_t n, int level)
{
    ck_assert_int_eq(irqchip_set_line(chip, n, level), 0);
}

__attribute__((unused)) static void pulse(uint32_t n)
{
    line(n, 1);
    line(n, 0);
}

#endif
