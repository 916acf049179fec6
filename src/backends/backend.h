/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/backend.h: what an engine implements. The table of engines is in registry.c. */
#ifndef BACKENDS_BACKEND_H
#define BACKENDS_BACKEND_H

#include "core/core.h"

/*
 * Results of run.
 *
 * HLT and waiting for SIPI are CPU state that the backend holds (vcpu_regs.activity). run
 * returns BACKEND_HALT when the activity is HALTED or WAIT_SIPI and nothing ends it: each call
 * looks at inject_valid, at nmi_pending (unless blocked), and at core_intr_pending if RFLAGS.IF is
 * set and no shadow is; when one of them ends HLT, the activity becomes ACTIVE and run goes on with
 * the delivery. The core then waits for a request and calls run again. The core also decides
 * whether a halt exits to the program (no irqchip, VMM_VM_EXIT_HLT). RIP is after the HLT. In
 * SHUTDOWN run returns BACKEND_EXIT with VMM_EXIT_SHUTDOWN, each time. NMI, INIT and SIPI reach the
 * backend through set_regs and vcpu_reset.
 */
#define BACKEND_AGAIN   0 /* a request is pending, the budget is used up, or just call again */
#define BACKEND_EXIT    1 /* vcpu->exit is filled */
#define BACKEND_HALT    2 /* wait for an event */
#define BACKEND_STEPPED 3 /* with `step`: the instruction is executed or the event delivered */

struct vmm_backend_ops {
    const char *name;

    /* Fills report->result and ->reason: usable here, or why not. */
    void (*probe)(struct vmm_backend_report *report);

    int (*vm_init)(struct vm *vm); /* vm->backend_data is the engine's */
    void (*vm_fini)(struct vm *vm);
    void (*caps)(struct vm *vm, struct vm_caps *caps);
    void (*stats)(struct vm *vm, struct vm_stats *stats); /* adds the engine's counters */
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
     * a vm_fail that names the check. The core itself does tsc, and with an irqchip cr8 and
     * apic_base, which the engine ignores then. */
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
};

/* NULL-terminated, best first. */
extern const struct vmm_backend_ops *const vmm_backends[];
extern const struct vmm_backend_ops vmm_backend_interp;

#endif
