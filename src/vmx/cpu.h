/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/cpu.h: VMX operation of host CPUs, and the VMCSs that are active on them. */
#ifndef VMX_CPU_H
#define VMX_CPU_H

#include "vmx/caps.h"

#define VMX_NO_CPU UINT32_MAX

/* Guests' TSCs by TSC scaling: 48 bits behind the point (SDM Vol. 3C 25.3). 0: it cannot be said
 * so. */
static inline uint64_t vmx_tsc_ratio(uint64_t guest_khz, uint64_t host_khz)
{
    unsigned __int128 ratio = ((unsigned __int128)guest_khz << 48) / host_khz;

    return ratio >> 64 ? 0 : (uint64_t)ratio;
}
static inline uint64_t vmx_tsc_scale(uint64_t tsc, uint64_t ratio)
{
    return (uint64_t)((unsigned __int128)tsc * ratio >> 48);
}

struct vmx_vmcs {
    void *page;
    uint64_t phys;
    uint32_t cpu;  /* where it is active, or VMX_NO_CPU */
    bool launched; /* VMRESUME instead of VMLAUNCH */
};

struct vmx_cpu {
    void *region; /* for VMXON */
    bool on;
    bool had_vmxe;            /* CR4.VMXE was set before */
    struct vmx_vmcs *current; /* the VMCS that instructions refer to */
    char why[96];             /* why it is not on */
};

/* The CPUs of a host. */
struct vmx_machine {
    const struct vmm_host_ops *host;
    struct vmx_caps caps;
    uint32_t ncpus;
    struct vmx_cpu *cpus;
    bool same_tsc; /* the CPUs' time stamp counters agree [vmx_machine_on] */
};

/* All CPUs, each on itself. 0; VMM_E_NODEV with the CPU that refuses and why, VMM_E_NOMEM: then
 * none is on. */
int vmx_machine_on(struct vmx_machine *m, char *why, size_t size);
/* No VMCS is active any more. */
void vmx_machine_off(struct vmx_machine *m);
/*
 * Enters VMX operation on this CPU, which has a region, with preemption off: IA32_FEATURE_CONTROL
 * is set and locked if the firmware has not. 0 (also if it is on already) or VMM_E_NODEV with
 * cpu->why.
 */
int vmx_cpu_on(struct vmx_machine *m, uint32_t cpu);
/* Leaves it; no VMCS is active here any more. */
void vmx_cpu_off(struct vmx_machine *m, uint32_t cpu);

/* A VMCS that is clear and active nowhere. 0 or VMM_E_NOMEM. */
int vmx_vmcs_create(struct vmx_machine *m, struct vmx_vmcs *v);
void vmx_vmcs_destroy(struct vmx_machine *m, struct vmx_vmcs *v);
/* Makes it current on this CPU, with preemption off; takes it away from another CPU first. False:
 * the CPU refuses it. */
bool vmx_vmcs_load(struct vmx_machine *m, struct vmx_vmcs *v);
/* Writes it back to memory and makes it active nowhere. With preemption off. */
void vmx_vmcs_clear(struct vmx_machine *m, struct vmx_vmcs *v);
/* The VMX-abort indicator: not 0 after an exit that could not be completed, with which its CPU has
 * stopped (vmx_abort_name). Other CPUs may ask. */
uint32_t vmx_vmcs_abort(const struct vmx_vmcs *v);

#endif
