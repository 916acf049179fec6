/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq.h: what the files on interrupt controllers in the kernel share. */
#ifndef BACKENDS_KVM_IRQ_H
#define BACKENDS_KVM_IRQ_H

#include "backends/kvm/kvm.h"
#include <vmm/irq.h>

struct kvm_irq_fd {
    struct kvm_irq_fd *next;
    uint32_t line; /* or route */
    int fd, resample;
};

/* A line whose EOI somebody wants to hear of (VMM_IRQCHIP_MODE_KERNEL). */
struct kvm_eoi {
    struct vm *vm;
    uint32_t line;
    int trigger, resample; /* eventfds, -1: none; nobody signals the first */
    bool on;               /* KVM signals `resample` */
    struct core_watch *watch;
};

struct kvm_irq {
    struct os_mutex lock; /* of all that follows; a leaf */
    struct kvm_irq_fd *fds;
    struct core_route *routes;             /* VMM_IRQ_ROUTES, or NULL: none was ever set */
    struct core_route pins[VMM_IRQ_LINES]; /* split mode: what level-triggered IOAPIC pins send */
    bool stale;                            /* `pins` are not in KVM's table yet */
    struct kvm_eoi eoi[VMM_IRQ_LINES];
    uint32_t activity[VMM_MAX_VCPUS]; /* as last seen in KVM; of the vCPU's thread */
};

static inline struct kvm_irq *kvm_irq_of(struct vm *vm)
{
    return kvm_vm_of(vm)->irq;
}

/* Whether local APICs are in the kernel. */
static inline bool kvm_irq_in_kernel(const struct vm *vm)
{
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT ||
           vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL;
}

/* ---- irq_route.c ---- */

/* Gives KVM the whole table: 0, or a negative errno and the old table stays. Under the lock. */
int kvm_route_commit(struct vm *vm);
/* backend_host_ops.route_changed */
int kvm_route_changed(struct vm *vm, uint32_t route, const struct core_route *r);

/* ---- irq_fd.c ---- */

/* KVM_IRQFD. 0 or a negative errno. */
int kvm_irq_fd_set(struct vm *vm, uint32_t gsi, int fd, int resample, bool on);
/* backend_host_ops.irq_fd_add, irq_fd_del and irq_eoi_wanted */
int kvm_irq_fd_add(struct vm *vm, uint32_t line, int fd, int resample_fd);
void kvm_irq_fd_del(struct vm *vm, uint32_t line, int fd);
int kvm_irq_eoi_wanted(struct vm *vm, uint32_t lines);
void kvm_irq_fds_fini(struct vm *vm);

/* ---- lapic.c ---- */

#define ACTIVITY_UNKNOWN UINT32_MAX

/* ---- io.c: backend_host_ops ---- */

int kvm_doorbell_add(struct vm *vm, const struct core_doorbell *d);
void kvm_doorbell_del(struct vm *vm, const struct core_doorbell *d);
int kvm_posted_add(struct vm *vm, bool port, uint64_t addr, uint64_t len);
void kvm_posted_del(struct vm *vm, bool port, uint64_t addr, uint64_t len);

#endif
