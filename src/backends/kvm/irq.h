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
    bool asserted;         /* `trigger` has been signalled, and no EOI has come since */
    struct core_watch *watch;
};

/* Addresses or ports of a controller. */
#define KVM_IRQ_WINDOWS 5u
struct kvm_irq_window {
    struct vm *vm;
    uint64_t base;
    bool port;
};

/* Pages with the code of stub.c. */
struct kvm_stub {
    uint8_t *pages; /* NULL: not made yet */
    bool present;   /* in KVM's memory map */
};

struct kvm_irq {
    struct os_mutex lock; /* of all that follows; a leaf */
    struct kvm_irq_fd *fds;
    struct core_route *routes;             /* VMM_IRQ_ROUTES, or NULL: none was ever set */
    struct core_route pins[VMM_IRQ_LINES]; /* split mode: what level-triggered IOAPIC pins send */
    bool stale;                            /* `pins` are not in KVM's table yet */
    struct kvm_eoi eoi[VMM_IRQ_LINES];
    uint32_t levels;        /* of the lines, as irq_line has set them */
    _Atomic uint32_t ended; /* lines whose EOI a vCPU's thread has to tell of */
    struct kvm_stub stub;
    /* What of the kernel's controllers the software CPU reaches as devices (irq_soft.c). */
    struct kvm_irq_window windows[KVM_IRQ_WINDOWS];
    void (*poll)(void *ctx); /* the software CPU's, without controllers in the kernel */
    /* Of the vCPU's thread. */
    uint32_t activity[VMM_MAX_VCPUS]; /* as last seen in KVM */
    uint64_t looked[VMM_MAX_VCPUS];   /* os_now time at which KVM last looked at its timers */
};

static inline struct kvm_irq *kvm_irq_of(struct vm *vm)
{
    return kvm_vm_of(vm)->irq;
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
/* backend_host_ops.irq_line */
int kvm_irq_line(struct vm *vm, uint32_t line, int level);
void kvm_irq_fds_fini(struct vm *vm);

/* ---- lapic.c ---- */

#define KVM_ACTIVITY_UNKNOWN UINT32_MAX

/* Offsets of registers (SDM Vol. 3A table 11-1). */
#define KVM_LAPIC_ISR   0x100u
#define KVM_LAPIC_IRR   0x200u
#define KVM_LAPIC_LINT0 0x350u

#define KVM_LVT_MASKED 0x10000u

uint32_t kvm_lapic_reg(const struct kvm_lapic_state *s, uint32_t offset);

/* ---- stub.c ---- */

/* READ, WRITE: memory; IN, OUT: ports. */
enum kvm_stub_program {
    KVM_STUB_PAUSE, /* lets timers and interrupts come */
    KVM_STUB_END,
    KVM_STUB_READ8,
    KVM_STUB_READ16,
    KVM_STUB_READ32,
    KVM_STUB_WRITE8,
    KVM_STUB_WRITE16,
    KVM_STUB_WRITE32,
    KVM_STUB_IN8,
    KVM_STUB_IN16,
    KVM_STUB_IN32,
    KVM_STUB_OUT8,
    KVM_STUB_OUT16,
    KVM_STUB_OUT32,
};

struct kvm_stub_call {
    enum kvm_stub_program program;
    bool interrupts; /* an external interrupt may come, which then ends it */
    bool halted;     /* begins in HLT; NMIs may come too */
    uint32_t addr;
    uint32_t value; /* to write, or what was read */
    /* Results: */
    int vector;  /* of the event that came, or -1 */
    bool nmi;    /* it is an NMI */
    bool nobody; /* the access is for no controller of the kernel's */
    bool eoi;    /* eoi_vector has ended, of a level-triggered interrupt of the IOAPIC */
    uint8_t eoi_vector;
};

/* Has KVM run it on this vCPU, with the vCPU's registers in the software CPU: 0; VMM_E_STATE if KVM
 * is inside of an instruction, or something else has taken the vCPU, as an INIT does. A halted one
 * also ends with VMM_E_STATE for a request. */
int kvm_stub_run(struct kvm_vcpu *kv, struct kvm_stub_call *call);
void kvm_stub_fini(struct vm *vm);

/* ---- irq_soft.c ---- */

/* Registers what the software CPU accesses of the kernel's controllers. 0 or VMM_E_*. */
int kvm_irq_soft_init(struct vm *vm);

/* ---- io.c: backend_host_ops ---- */

int kvm_doorbell_add(struct vm *vm, const struct core_doorbell *d);
void kvm_doorbell_del(struct vm *vm, const struct core_doorbell *d);
int kvm_posted_add(struct vm *vm, bool port, uint64_t addr, uint64_t len);
void kvm_posted_del(struct vm *vm, bool port, uint64_t addr, uint64_t len);

#endif
