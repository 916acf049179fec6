/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/backend.h: what an engine implements. The table of engines is in registry.c. */
#ifndef BACKENDS_BACKEND_H
#define BACKENDS_BACKEND_H

#include "core/core.h"

/*
 * Results of run; a negative VMM_E_* (vm_fail'ed) if the host fails, with which vcpu_run returns.
 *
 * HLT and waiting for SIPI are CPU state that the backend holds (vcpu_regs.activity). run
 * returns BACKEND_HALT when the activity is HALTED or WAIT_SIPI and nothing ends it: each call
 * looks at inject_valid, at nmi_pending (unless blocked), and at core_intr_pending if RFLAGS.IF is
 * set and no shadow is; when one of them ends HLT, the activity becomes ACTIVE and run goes on with
 * the delivery. The core then waits for a request and calls run again; with local APICs in the
 * kernel it calls run again at once, which waits there. The core also decides
 * whether a halt exits to the program (no irqchip, VMM_VM_EXIT_HLT). RIP is after the HLT. In
 * SHUTDOWN run returns BACKEND_EXIT with VMM_EXIT_SHUTDOWN, each time. NMI, INIT and SIPI reach the
 * backend through set_regs and vcpu_reset.
 */
#define BACKEND_AGAIN   0 /* a request is pending, the budget is used up, or just call again */
#define BACKEND_EXIT    1 /* vcpu->exit is filled */
#define BACKEND_HALT    2 /* wait for an event */
#define BACKEND_STEPPED 3 /* with `step`: the instruction is executed or the event delivered */

struct backend_host_ops;

struct vmm_backend_ops {
    const char *name;
    bool direct; /* it knows VMM_VM_DIRECT; the flag is not in vm->flags otherwise */

    /* Fills report->result, ->reason and ->flags: usable here, or why not. */
    void (*probe)(struct vmm_backend_report *report);

    int (*vm_init)(struct vm *vm); /* vm->backend_data is the engine's */
    void (*vm_fini)(struct vm *vm);
    void (*caps)(struct vm *vm, struct vm_caps *caps);
    void (*stats)(struct vm *vm, struct vm_stats *stats); /* adds the engine's counters */
    /* Adds to the list what vm_get_fallback_counts gives; NULL: nothing. Under vm->lock. */
    void (*fallbacks)(struct vm *vm, struct core_counts *list);
    /* What the engine can run, for vm_default_cpuid; as that function. */
    int (*default_cpuid)(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n);

    int (*vcpu_init)(struct vcpu *vcpu); /* vcpu->backend_data is the engine's */
    void (*vcpu_fini)(struct vcpu *vcpu);
    /* Power-on (init false) or INIT reset of the CPU state, SDM Vol. 3A table 10-1. The activity
     * becomes ACTIVE; the core sets WAIT_SIPI where it applies. */
    void (*vcpu_reset)(struct vcpu *vcpu, bool init);

    /*
     * Runs guest code, in guest state, until a BACKEND_* result. Must return soon after
     * core_vcpu_request (which calls wake). `step`: one instruction or one event delivery only.
     * Instruction budget: vcpu->insn_budget instructions at most (0: none left means return AGAIN
     * with it at 0; UINT64_MAX: no limit); the engine counts it down.
     */
    int (*run)(struct vcpu *vcpu, bool step);
    void (*wake)(struct vcpu *vcpu); /* ANY+SIG; may be NULL if run polls vcpu->requests */

    /* vcpu_reset, set_* and translate too are called in guest state, or with the world stopped:
     * what mem_map_changed and code_changed do to a vCPU never meets them. */

    /* The groups in regs->groups. The core has checked the groups, the reserved members and the
     * EVENTS group; the engine checks the rest as a VM entry does: VMM_E_INVAL, nothing changed and
     * a vm_fail that names the check. The core itself does tsc, and for a vCPU with a local APIC of
     * the library's (vcpu->lapic) cr8 and apic_base, which the engine ignores then. */
    int (*get_regs)(struct vcpu *vcpu, struct vcpu_regs *regs);
    int (*set_regs)(struct vcpu *vcpu, const struct vcpu_regs *regs);
    int (*get_xsave)(struct vcpu *vcpu, void *area, uint32_t len);
    int (*set_xsave)(struct vcpu *vcpu, const void *area, uint32_t len);
    int (*get_msr)(struct vcpu *vcpu, uint32_t index, uint64_t *value); /* VMM_E_NOENT */
    int (*set_msr)(struct vcpu *vcpu, uint32_t index, uint64_t value);
    int (*set_cpuid)(struct vcpu *vcpu); /* the table in vcpu->cpuid has changed */
    int (*set_debug)(struct vcpu *vcpu, const struct vmm_debug *debug);
    int (*translate)(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok);
    bool (*irq_window)(struct vcpu *vcpu); /* IF set, no shadow, nothing queued */

    /* With the world stopped: [gpa, gpa+len) now maps differently (drop translations). */
    void (*mem_map_changed)(struct vm *vm, uint64_t gpa, uint64_t len);
    /* With the world stopped: the host wrote to memory from which code was decoded. */
    void (*code_changed)(struct vm *vm, uint64_t gpa, uint64_t len);
    /* With the world stopped: the dirty bytes of [gpa, gpa+len) have been cleared, or were made
     * just now; the next write to each page has to set its byte again. NULL: nothing to do. */
    void (*dirty_cleared)(struct vm *vm, uint64_t gpa, uint64_t len);

    /* The VM's ticks, when the hardware gives the TSC: a vCPU's TSC is this plus its tsc_offset
     * (without VMM_CAP_TSC_OFFSET the core keeps that at 0). They stand while the clock does.
     * NULL: the core's own (clock.c). ANY. tsc_changed: while vm->paused is PAUSE_CHANGE, so that
     * nobody looks: the ticks stop (`runs` false), or go on from where they stopped. */
    uint64_t (*tsc)(struct vm *vm);
    void (*tsc_changed)(struct vm *vm, bool runs);
    /* vcpu_msr_policy has changed the ranges of this vCPU; a failure undoes that. Under vm->lock,
     * which keeps other vCPUs' ranges as they are. NULL: nothing to do. */
    int (*msr_policy)(struct vcpu *vcpu);

    const struct backend_host_ops *host; /* NULL: no such services */
};

/*
 * Optional services of the host's kernel (vmm_backend_ops.host; each member may be NULL): what the
 * core otherwise does in software. A function that cannot serve this request here and now returns
 * VMM_E_UNSUPPORTED, and the core does it in software; other errors go to the caller.
 */
struct core_doorbell {
    uint64_t addr; /* guest-physical address or port */
    uint64_t match;
    uint32_t len; /* 0: any length; 1, 2, 4, 8: that length */
    bool port;
    bool has_match; /* only writes of `match` */
    int fd;         /* an eventfd */
};

struct core_route {
    bool set;
    uint64_t address; /* of the message */
    uint32_t data;
};

struct backend_host_ops {
    /* A guest write then adds 1 to the eventfd, without an exit. `del` gets an equal struct. ANY.
     */
    int (*doorbell_add)(struct vm *vm, const struct core_doorbell *d);
    void (*doorbell_del)(struct vm *vm, const struct core_doorbell *d);
    /* Writes to the range may be delivered late, but in order and before anything that the guest
     * or the program can see comes after them; after any failure they exit. `del` first delivers
     * what there is. Both come out of guest state with no lock held: callbacks may run. ANY. */
    int (*posted_add)(struct vm *vm, bool port, uint64_t addr, uint64_t len);
    void (*posted_del)(struct vm *vm, bool port, uint64_t addr, uint64_t len);
    /* A signal of `fd` is an edge on `line` (routes too); with `resample_fd` >= 0 it asserts the
     * level-triggered line, whose EOI lowers it and signals resample_fd. The descriptors are the
     * core's duplicates. This, route_changed, irq_line and irq_eoi_wanted come under vm->irq_lock:
     * they call nothing that takes it. ANY. */
    int (*irq_fd_add)(struct vm *vm, uint32_t line, int fd, int resample_fd);
    void (*irq_fd_del)(struct vm *vm, uint32_t line, int fd);
    /* Route number `route` (VMM_IRQ_ROUTE_FIRST ...) has changed. SPLIT: numbers 0-23 too, what
     * the IOAPIC's pins send (so which vectors' EOI the IOAPIC must hear of: irqchip_eoi_vector);
     * those come under locks of the controllers. ANY. */
    int (*route_changed)(struct vm *vm, uint32_t route, const struct core_route *r);

    /*
     * Dirty tracking, all with the world stopped. `start`: from now on writes of the guest are
     * logged; VMM_E_UNSUPPORTED: all that the engine runs sets the bytes directly. `sync` moves
     * what is logged for the range into the pages' core_page.dirty bytes and starts afresh there;
     * so does mem_map_changed for ranges whose log it would lose. Writes that the core or the
     * engine make for the guest set the bytes directly.
     */
    int (*dirty_start)(struct vm *vm);
    void (*dirty_stop)(struct vm *vm);
    int (*dirty_sync)(struct vm *vm, uint64_t gpa, uint64_t len);

    /*
     * Interrupt controllers in the kernel: vm->irqchip_mode is SPLIT or KERNEL; `irqchip_create`
     * comes before the first vCPU and resolves AUTO: it sets vm->irqchip_mode, to USER if the
     * library's are better here (as does VMM_E_UNSUPPORTED). KERNEL: there is no vm->irqchip, and
     * lines, messages and EOI callbacks come here. SPLIT: vm->irqchip has 8259s and IOAPIC but no
     * local APICs; messages come here, the engine takes ExtINT from irqchip_pic_intr and
     * irqchip_pic_ack, for which vCPU 0 gets a VCPU_REQ_INTR, and calls irqchip_eoi_vector. In both
     * there is no vcpu->lapic: APIC base, CR8, TSC deadline, HLT and waiting for SIPI are the
     * engine's.
     */
    int (*irqchip_create)(struct vm *vm);
    void (*irqchip_reset)(struct vm *vm);
    int (*irq_line)(struct vm *vm, uint32_t line, int level);
    /* 0, VMM_E_*, or 1: no CPU took it. SPLIT: also under locks of the controllers. */
    int (*irq_msi)(struct vm *vm, uint64_t address, uint32_t data);
    /* The set of lines whose EOI somebody wants to hear of has changed; the engine then calls
     * core_irq_eoi. */
    int (*irq_eoi_wanted)(struct vm *vm, uint32_t lines);
};

/* NULL-terminated, best first. */
extern const struct vmm_backend_ops *const vmm_backends[];
extern const struct vmm_backend_ops vmm_backend_interp;
extern const struct vmm_backend_ops vmm_backend_kvm;
extern const struct vmm_backend_ops vmm_backend_bt;
extern const struct vmm_backend_ops vmm_backend_vmx; /* in the freestanding build */

#endif
