/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq.c: interrupt controllers in the kernel: creation, reset, messages; the
 * table of kernel services. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/kvm/irq.h"
#include "core/irqchip.h"

#define RTE_MASKED 0x10000u

/* ---- where the controllers are ---- */

/*
 * AUTO takes local APICs of the kernel, where they are right, with the library's 8259s and IOAPIC:
 * what guests use all the time is in the kernel then, and the kernel's other two would only add a
 * global wait for each of their devices to the creation and the destruction of a VM, and tell of
 * the EOI of a line too late.
 */
static uint32_t best_mode(const struct kvm_host *host)
{
    if (host->bad & KVM_BAD_USER_EVENTS)
        return VMM_IRQCHIP_MODE_USER;
    if (host->irqchip_split_ok)
        return VMM_IRQCHIP_MODE_SPLIT;
    return host->irqchip_kernel_ok ? VMM_IRQCHIP_MODE_KERNEL : VMM_IRQCHIP_MODE_USER;
}

static int not_ok(struct vm *vm, const char *what)
{
    return vm_fail(vm, VMM_E_UNSUPPORTED, "vm_create",
                   "interrupts of the %s of this host's KVM do not arrive as they should", what);
}

static int create_split(struct vm *vm)
{
    struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {VMM_IRQ_LINES}};

    if (!kvm_host()->irqchip_split_ok)
        return not_ok(vm, "local APICs (VMM_IRQCHIP_MODE_SPLIT)");
    int r = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_ENABLE_CAP, &cap);
    return r < 0 ? kvm_fail(vm, "vm_create", r, "KVM_CAP_SPLIT_IRQCHIP") : 0;
}

static int create_kernel(struct vm *vm)
{
    if (!kvm_host()->irqchip_kernel_ok)
        return not_ok(vm, "interrupt controllers (VMM_IRQCHIP_MODE_KERNEL)");
    int r = kvm_ioctl(kvm_vm_of(vm)->fd, KVM_CREATE_IRQCHIP, 0);
    if (r < 0)
        return kvm_fail(vm, "vm_create", r, "KVM_CREATE_IRQCHIP");
    r = kvm_route_commit(vm);
    return r < 0 ? kvm_fail(vm, "vm_create", r, "KVM_SET_GSI_ROUTING") : 0;
}

static int irqchip_create_in_kernel(struct vm *vm)
{
    int err = 0;

    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_AUTO)
        vm->irqchip_mode = best_mode(kvm_host());
    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT)
        err = create_split(vm);
    else if (vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL)
        err = create_kernel(vm);
    if (err || !kvm_lapic_in_kernel(vm))
        return err;
    err = kvm_irq_soft_init(vm);
    /* Which MSRs the kernel keeps follows from the mode. */
    return err ? err : kvm_msr_filter_update(vm);
}

int kvm_irq_init(struct vm *vm)
{
    struct kvm_irq *irq = calloc(1, sizeof(*irq));

    if (!irq || os_mutex_init(&irq->lock)) {
        free(irq);
        return vm_fail(vm, VMM_E_NOMEM, "vm_create", "no memory for interrupt controllers");
    }
    for (uint32_t i = 0; i < VMM_IRQ_LINES; i++)
        irq->eoi[i] = (struct kvm_eoi){.vm = vm, .line = i, .trigger = -1, .resample = -1};
    kvm_vm_of(vm)->irq = irq;
    return 0;
}

void kvm_irq_fini(struct vm *vm)
{
    struct kvm_irq *irq = kvm_irq_of(vm);

    if (!irq)
        return;
    kvm_irq_fds_fini(vm);
    kvm_stub_fini(vm);
    kvm_vm_of(vm)->irq = NULL;
    free(irq->routes);
    os_mutex_fini(&irq->lock);
    free(irq);
}

/* ---- reset ---- */

/* What the pins show stays, as they are other devices'. */
static void reset_pic(struct vm *vm, uint32_t chip_id)
{
    struct kvm_irqchip chip = {.chip_id = chip_id};
    int fd = kvm_vm_of(vm)->fd;

    if (kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &chip) < 0)
        return;
    chip.chip.pic = (struct kvm_pic_state){
        .last_irr = chip.chip.pic.last_irr,
        .elcr_mask = chip.chip.pic.elcr_mask,
    };
    kvm_ioctl_p(fd, KVM_SET_IRQCHIP, &chip);
}

static void reset_ioapic(struct vm *vm)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    int fd = kvm_vm_of(vm)->fd;

    if (kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &chip) < 0)
        return;
    chip.chip.ioapic.ioregsel = 0;
    chip.chip.ioapic.id = 0;
    for (uint32_t i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
        chip.chip.ioapic.redirtbl[i].bits = RTE_MASKED;
    kvm_ioctl_p(fd, KVM_SET_IRQCHIP, &chip);
}

static void irqchip_reset_in_kernel(struct vm *vm)
{
    if (vm->irqchip_mode != VMM_IRQCHIP_MODE_KERNEL)
        return;
    reset_pic(vm, KVM_IRQCHIP_PIC_MASTER);
    reset_pic(vm, KVM_IRQCHIP_PIC_SLAVE);
    reset_ioapic(vm);
}

/* ---- messages ---- */

#define MSI_DATA_ASSERT 0x4000u
#define MSI_DATA_LEVEL  0x8000u
#define MSI_MODE(data)  ((data) >> 8 & 7)
#define MSI_LOWEST      1u
#define MSI_SIPI        6u

/* 0; 1: no local APIC has taken it; or VMM_E_*. */
static int irq_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    struct kvm_msi msi = {.address_lo = (uint32_t)address, .data = data};
    uint32_t mode = MSI_MODE(data);

    /* As irqchip_msi; KVM would deliver these. */
    if ((data & MSI_DATA_LEVEL) && !(data & MSI_DATA_ASSERT))
        return 0;
    if (mode == MSI_SIPI || (mode <= MSI_LOWEST && (data & 0xff) < 16))
        return 1;
    if (data & MSI_DATA_LEVEL) {
        /* Its EOI must be known as an IOAPIC's before it can come. */
        os_mutex_lock(&irq->lock);
        if (irq->stale)
            kvm_route_commit(vm);
        os_mutex_unlock(&irq->lock);
    }
    int r = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_SIGNAL_MSI, &msi);
    if (r == 0 || r == -EPERM) /* -1, from inside of KVM: there is no such destination */
        return 1;
    return r < 0 ? kvm_fail(vm, "vm_irq_msi", r, "KVM_SIGNAL_MSI") : 0;
}

void kvm_irq_eoi_exit(struct vm *vm, uint8_t vector)
{
    if (vm->irqchip)
        irqchip_eoi_vector(vm->irqchip, vector);
}

/* ---- the table ---- */

const struct backend_host_ops kvm_host_ops = {
    .doorbell_add = kvm_doorbell_add,
    .doorbell_del = kvm_doorbell_del,
    .posted_add = kvm_posted_add,
    .posted_del = kvm_posted_del,
    .irq_fd_add = kvm_irq_fd_add,
    .irq_fd_del = kvm_irq_fd_del,
    .route_changed = kvm_route_changed,
    .dirty_start = kvm_dirty_start,
    .dirty_stop = kvm_dirty_stop,
    .dirty_sync = kvm_dirty_sync,
    .irqchip_create = irqchip_create_in_kernel,
    .irqchip_reset = irqchip_reset_in_kernel,
    .irq_line = kvm_irq_line,
    .irq_msi = irq_msi,
    .irq_eoi_wanted = kvm_irq_eoi_wanted,
};
