/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/vmx.h: the engine on VMX instructions: its objects, and what its files call of each
 * other. */
#ifndef BACKENDS_VMX_VMX_H
#define BACKENDS_VMX_VMX_H

#include "backends/interp/interp.h"
#include "mmu/ept.h"
#include "vmx/cpu.h"

/* The library's registers (soft.cpu) are the vCPU's; a VMCS gets them for an entry and gives them
 * back after the exit. What the hardware does not do, the software CPU does in its place. */
struct vmx_vcpu {
    struct interp_vcpu soft; /* first: interp.h */
    struct vcpu *vcpu;
    struct vmx_vmcs vmcs;
    struct ept_cpu ept_cpu;
    void *xsave;              /* the guest's vector and x87 registers on their way */
    uint8_t *msr_bits;        /* bitmap */
    bool debug;               /* the program has break- or watchpoints */
    _Atomic uint32_t running; /* host CPU + 1 while in the guest: whom wake has to kick */
    uint64_t entries;
};

struct vmx_vm {
    struct vm *vm;
    struct os_mutex lock; /* of ept */
    struct ept ept;
};

/* The host's CPUs, in VMX operation while there is a VM. [host.c] */
extern struct vmx_machine vmx_machine;
extern struct vmx_controls vmx_controls;
extern unsigned vmx_phys_bits;
/* 0, or VMM_E_* with the reason. */
int vmx_host_probe(char *why, size_t size);
int vmx_host_get(char *why, size_t size);
void vmx_host_put(void);

static inline bool vmx_uses(enum vmx_group group, uint32_t bit)
{
    return vmx_controls.value[group] & bit;
}

/* State between soft.cpu and the current VMCS. [state.c] */
void vmx_state_init(struct vmx_vcpu *v, const struct vmx_vm *vv);
void vmx_state_load(struct vmx_vcpu *v);
void vmx_state_store(struct vmx_vcpu *v);

int vmx_run(struct vcpu *vcpu, bool step); /* of backend.h [run.c] */

/* Enters the guest and comes back. VMX_OK after an exit. [entry.S] */
int vmx_enter(uint64_t *gpr, bool launched);

#endif
