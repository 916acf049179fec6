/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq_fd.c: descriptors whose signals are interrupts; ends of interrupts as the
 * kernel's controllers tell them. */
#include <errno.h>
#include <stdlib.h>

#include "backends/kvm/irq.h"

int kvm_irq_fd_set(struct vm *vm, uint32_t gsi, int fd, int resample, bool on)
{
    struct kvm_irqfd f = {.fd = (uint32_t)fd, .gsi = gsi};

    if (!on)
        f.flags |= KVM_IRQFD_FLAG_DEASSIGN;
    else if (resample >= 0)
        f.flags |= KVM_IRQFD_FLAG_RESAMPLE;
    if (on && resample >= 0)
        f.resamplefd = (uint32_t)resample;
    int r = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_IRQFD, &f);
    return r < 0 ? r : 0;
}

/* ---- descriptors ---- */

/* Lines of the library's controllers are the library's to drive. */
static bool in_kernel(const struct vm *vm, uint32_t line, bool resample)
{
    uint32_t needs = KVM_HAS_IRQFD | (resample ? KVM_HAS_IRQFD_RESAMPLE : 0);

    if (!kvm_lapic_in_kernel(vm) || (kvm_host()->has & needs) != needs)
        return false;
    if (line >= VMM_IRQ_ROUTE_FIRST)
        return true;
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL && line != 2;
}

/* Takes a descriptor out of the list. Under the lock. */
static void forget(struct kvm_irq *irq, uint32_t line, int fd)
{
    for (struct kvm_irq_fd **p = &irq->fds; *p; p = &(*p)->next) {
        struct kvm_irq_fd *f = *p;

        if (f->line != line || f->fd != fd)
            continue;
        *p = f->next;
        free(f);
        return;
    }
}

/* With the descriptor in the list, which decides on what is in the table. Under the lock. */
static int assign(struct vm *vm, const struct kvm_irq_fd *f)
{
    int err = f->line >= VMM_IRQ_ROUTE_FIRST ? kvm_route_commit(vm) : 0;

    return err ? err : kvm_irq_fd_set(vm, f->line, f->fd, f->resample, true);
}

int kvm_irq_fd_add(struct vm *vm, uint32_t line, int fd, int resample_fd)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    struct kvm_irq_fd *f;

    if (!in_kernel(vm, line, resample_fd >= 0))
        return VMM_E_UNSUPPORTED;
    f = malloc(sizeof(*f));
    if (!f)
        return VMM_E_UNSUPPORTED;
    os_mutex_lock(&irq->lock);
    *f = (struct kvm_irq_fd){irq->fds, line, fd, resample_fd};
    irq->fds = f;
    int err = assign(vm, f);
    if (err)
        forget(irq, line, fd);
    os_mutex_unlock(&irq->lock);
    /* What the kernel has no room for, or no number, the library serves. */
    return err ? VMM_E_UNSUPPORTED : 0;
}

void kvm_irq_fd_del(struct vm *vm, uint32_t line, int fd)
{
    struct kvm_irq *irq = kvm_irq_of(vm);

    os_mutex_lock(&irq->lock);
    kvm_irq_fd_set(vm, line, fd, -1, false);
    forget(irq, line, fd);
    os_mutex_unlock(&irq->lock);
}

/* ---- lines, and ends of interrupts ---- */

/*
 * The kernel's controllers tell of the EOI of a line by lowering it, on behalf of an irqfd that
 * has asserted it, and signalling its resample descriptor. So lines whose EOI somebody wants to
 * hear of are asserted by such an irqfd: what is told takes its time, and until then the line does
 * not interrupt again. The VM's thread takes the signal and brings a vCPU out of KVM, whose thread
 * calls whoever waits; then the line is asserted again if it still should be.
 */

#define RTE_LEVEL  0x8000u
#define RTE_MASKED 0x10000u

/* EOIs of edge-triggered interrupts come too. */
static bool level_triggered(struct vm *vm, uint32_t line)
{
    struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
    int fd = kvm_vm_of(vm)->fd;

    if (kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &chip) >= 0) {
        uint64_t entry = chip.chip.ioapic.redirtbl[line ? line : 2].bits;

        if ((entry & RTE_LEVEL) && !(entry & RTE_MASKED))
            return true;
    }
    if (line >= 16)
        return false;
    chip.chip_id = line < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;
    return kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &chip) >= 0 && (chip.chip.pic.elcr >> (line & 7) & 1);
}

static int set_line(struct vm *vm, uint32_t line, bool level)
{
    const struct kvm_irq_level l = {.irq = line, .level = level};
    int r = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_IRQ_LINE, &l);

    return r < 0 ? kvm_fail(vm, "vm_irq_set", r, "KVM_IRQ_LINE") : 0;
}

/* Under the lock. */
static void assert_line(struct kvm_eoi *e)
{
    e->asserted = true;
    os_event_signal(e->trigger);
}

/* KVM lowers the line when its irqfd goes. Under the lock. */
static void lower_line(struct kvm_eoi *e)
{
    e->asserted = false;
    kvm_irq_fd_set(e->vm, e->line, e->trigger, -1, false);
    e->on = !kvm_irq_fd_set(e->vm, e->line, e->trigger, e->resample, true);
}

int kvm_irq_line(struct vm *vm, uint32_t line, int level)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    struct kvm_eoi *e = &irq->eoi[line];
    uint32_t bit = 1u << line;
    int err = 0;

    if (line == 2) /* the cascade */
        return 0;
    os_mutex_lock(&irq->lock);
    irq->levels = level ? irq->levels | bit : irq->levels & ~bit;
    if (!level && e->asserted)
        lower_line(e);
    if (level && e->on && level_triggered(vm, line)) {
        if (!e->asserted)
            assert_line(e);
    } else {
        err = set_line(vm, line, level);
    }
    os_mutex_unlock(&irq->lock);
    return err;
}

/* On the VM's thread. */
static void ended(void *opaque)
{
    struct kvm_eoi *e = opaque;
    struct kvm_irq *irq = kvm_irq_of(e->vm);

    os_mutex_lock(&irq->lock);
    e->asserted = false;
    os_mutex_unlock(&irq->lock);
    atomic_fetch_or(&irq->ended, 1u << e->line);
    for (uint32_t i = 0; i < e->vm->max_vcpus; i++) {
        struct vcpu *vcpu = vm_vcpu(e->vm, i);

        if (vcpu)
            core_vcpu_request(vcpu, VCPU_REQ_INTR);
    }
}

static void tell(struct kvm_eoi *e)
{
    struct kvm_irq *irq = kvm_irq_of(e->vm);

    if (level_triggered(e->vm, e->line))
        core_irq_eoi(e->vm, e->line);
    os_mutex_lock(&irq->lock);
    if (e->on && !e->asserted && (irq->levels >> e->line & 1) && level_triggered(e->vm, e->line))
        assert_line(e);
    os_mutex_unlock(&irq->lock);
}

void kvm_irq_tell_eois(struct kvm_vcpu *kv)
{
    struct kvm_irq *irq = kvm_irq_of(kv->vcpu->vm);

    if (!atomic_load_explicit(&irq->ended, memory_order_relaxed))
        return;
    core_guest_leave(kv->vcpu);
    uint32_t lines = atomic_exchange(&irq->ended, 0);
    for (uint32_t line = 0; line < VMM_IRQ_LINES; line++)
        if (lines >> line & 1)
            tell(&irq->eoi[line]);
    core_guest_enter(kv->vcpu);
}

static void close_events(struct kvm_eoi *e)
{
    if (e->trigger >= 0)
        os_event_close(e->trigger);
    if (e->resample >= 0)
        os_event_close(e->resample);
    e->trigger = e->resample = -1;
}

/* 0 or an errno. */
static int open_events(struct kvm_eoi *e)
{
    int err = e->trigger < 0 ? os_event_create(&e->trigger) : 0;

    if (!err && e->resample < 0)
        err = os_event_create(&e->resample);
    return err;
}

/* The watch stays when nobody wants to hear of the line any more: its function may be running, and
 * waits for locks that the caller holds. It goes with the VM. Under the lock. */
static int listen(struct kvm_eoi *e)
{
    struct vm *vm = e->vm;
    int err = open_events(e);

    if (err)
        return kvm_fail(vm, "vm_irq_on_eoi", -err, "eventfd");
    if (!e->watch) {
        err = core_watch_add(vm, "vm_irq_on_eoi", e->resample, ended, e, &e->watch);
        if (err)
            return err;
    }
    err = kvm_irq_fd_set(vm, e->line, e->trigger, e->resample, true);
    if (err)
        return kvm_fail(vm, "vm_irq_on_eoi", err, "KVM_IRQFD");
    e->on = true;
    if ((kvm_irq_of(vm)->levels >> e->line & 1) && level_triggered(vm, e->line)) {
        set_line(vm, e->line, false);
        assert_line(e);
    }
    return 0;
}

/* Under the lock. */
static void ignore(struct kvm_eoi *e)
{
    kvm_irq_fd_set(e->vm, e->line, e->trigger, -1, false);
    e->on = false;
    if (e->asserted)
        set_line(e->vm, e->line, kvm_irq_of(e->vm)->levels >> e->line & 1);
    e->asserted = false;
}

int kvm_irq_eoi_wanted(struct vm *vm, uint32_t lines)
{
    struct kvm_irq *irq = kvm_irq_of(vm);
    int err = 0;

    if (vm->irqchip_mode != VMM_IRQCHIP_MODE_KERNEL)
        return 0;
    if (lines && !(kvm_host()->has & KVM_HAS_IRQFD_RESAMPLE))
        return vm_fail(vm, VMM_E_UNSUPPORTED, "vm_irq_on_eoi",
                       "this host's KVM does not tell of the EOI of its controllers' lines");
    os_mutex_lock(&irq->lock);
    for (uint32_t line = 0; line < VMM_IRQ_LINES && !err; line++) {
        struct kvm_eoi *e = &irq->eoi[line];
        bool wanted = lines >> line & 1;

        if (wanted && !e->on && line != 2)
            err = listen(e);
        else if (!wanted && e->on)
            ignore(e);
    }
    os_mutex_unlock(&irq->lock);
    return err;
}

/* The VM's thread has ended, and with it its watches. */
void kvm_irq_fds_fini(struct vm *vm)
{
    struct kvm_irq *irq = kvm_irq_of(vm);

    for (uint32_t line = 0; line < VMM_IRQ_LINES; line++)
        close_events(&irq->eoi[line]);
    while (irq->fds)
        forget(irq, irq->fds->line, irq->fds->fd);
}
