/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/probe_irq.c: small guests that take interrupts of the kernel's controllers. */
#include <errno.h>
#include <string.h>

#include "backends/kvm/probe.h"

#define VECTOR_LINE  0x40u
#define VECTOR_TIMER 0x51u
#define GSI          4u

/* Registers of a local APIC. */
#define APIC_SVR   0xf0u
#define APIC_ISR   0x100u
#define APIC_LVTT  0x320u
#define APIC_LVT0  0x350u
#define APIC_TMICT 0x380u
#define APIC_TMCCT 0x390u
#define APIC_TDCR  0x3e0u

static void apic_write(struct kvm_lapic_state *apic, uint32_t reg, uint32_t value)
{
    memcpy(apic->regs + reg, &value, sizeof(value));
}

/* Enables the local APIC, with its timer running out after `ns` (0: stopped). */
static bool set_apic(struct kvm_lab *lab, uint32_t ns)
{
    struct kvm_lapic_state apic = {0};

    if (lab_ioctl(lab, lab->cpu, KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC") < 0)
        return false;
    apic_write(&apic, APIC_SVR, 0x1ff);
    apic_write(&apic, APIC_LVT0, 0x10000);
    apic_write(&apic, APIC_LVTT, ns ? VECTOR_TIMER : 0x10000);
    apic_write(&apic, APIC_TDCR, 0xb); /* KVM's bus clock, of 1 GHz */
    apic_write(&apic, APIC_TMICT, ns);
    apic_write(&apic, APIC_TMCCT, ns);
    return lab_ioctl(lab, lab->cpu, KVM_SET_LAPIC, &apic, "KVM_SET_LAPIC") >= 0;
}

/* Makes VECTOR_LINE pending: a message, or where the IOAPIC is in the kernel, a line. */
static bool raise_line(struct kvm_lab *lab)
{
    const struct kvm_msi msi = {.address_lo = 0xfee00000, .data = VECTOR_LINE};
    const struct kvm_irq_level line = {.irq = GSI, .level = 1};
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

    if (lab->irqchip == LAB_IRQ_SPLIT)
        return lab_ioctl(lab, lab->vm, KVM_SIGNAL_MSI, &msi, "KVM_SIGNAL_MSI") > 0;
    if (lab_ioctl(lab, lab->vm, KVM_GET_IRQCHIP, &chip, "KVM_GET_IRQCHIP") < 0)
        return false;
    chip.chip.ioapic.redirtbl[GSI].bits = VECTOR_LINE; /* edge, to APIC 0 */
    return lab_ioctl(lab, lab->vm, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP") >= 0 &&
           lab_ioctl(lab, lab->vm, KVM_IRQ_LINE, &line, "KVM_IRQ_LINE") >= 0;
}

/* Between its delivery and its EOI an interrupt holds off those of its priority and below. */
static bool in_service(struct kvm_lab *lab, uint32_t vector)
{
    struct kvm_lapic_state apic;
    uint32_t word;

    if (lab_ioctl(lab, lab->cpu, KVM_GET_LAPIC, &apic, "KVM_GET_LAPIC") < 0)
        return false;
    memcpy(&word, apic.regs + APIC_ISR + vector / 32 * 16, sizeof(word));
    return word >> vector % 32 & 1;
}

/* An interrupt that is pending when CPL 0 sets IF. */
static bool interrupts_kernel(struct kvm_lab *lab)
{
    static const uint8_t code[] = {
        0xfb,       /* sti */
        0xff, 0xc9, /* dec ecx */
        0x75, 0xfc, /* jnz */
        0xfa,       /* cli */
        0xee,       /* out dx, al */
    };

    if (!set_apic(lab, 0) || !raise_line(lab))
        return false;
    lab_prepare(lab, LAB_KERNEL, code, sizeof(code));
    lab->regs.rcx = 5000; /* an emulator may look for interrupts only now and then */
    lab_run(lab);
    if (!lab_arrived(lab, VECTOR_LINE) || lab_stack(lab, 1) != LAB_CS)
        return false;
    if (in_service(lab, VECTOR_LINE))
        return true;
    lab->host->bad |= KVM_BAD_IN_SERVICE;
    return false;
}

/* One that comes while CPL 3 runs. */
static bool interrupts_user(struct kvm_lab *lab)
{
    static const uint8_t code[] = {
        0x48, 0xff, 0xc9, /* dec rcx */
        0x75, 0xfb,       /* jnz */
        0x0f, 0x0b,       /* ud2 */
    };

    if (!set_apic(lab, 100000))
        return false;
    lab_prepare(lab, LAB_USER, code, sizeof(code));
    lab->regs.rcx = 100000000;
    lab->regs.rflags |= 0x200; /* IF */
    lab_run(lab);
    return lab_arrived(lab, VECTOR_TIMER) && lab_stack(lab, 1) == LAB_USER_CS;
}

int kvm_probe_irqchip(int dev, struct kvm_host *host, bool split, bool *ok)
{
    struct kvm_lab lab;

    *ok = false;
    if (!lab_open(&lab, dev, host, split ? LAB_IRQ_SPLIT : LAB_IRQ_KERNEL))
        *ok = interrupts_kernel(&lab) && interrupts_user(&lab) && !host->result;
    lab_close(&lab);
    return host->result;
}
