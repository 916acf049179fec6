/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/host.c: VMX operation of the host's CPUs, and the controls that guests run with. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/xstate.h"
#include "freestanding/host.h"
#include "vmx/insn.h"

#define VMM_MAX_VPIDS 4096u

struct vmx_machine vmx_machine;
struct vmx_controls vmx_controls;
unsigned vmx_phys_bits;
uint64_t vmx_host_xcr0;
struct vmx_mtrrs vmx_mtrrs;
void *vmx_io_bits;
void *vmx_apic_page;

/* VMs are made and destroyed by threads that may sleep: two at the same time wait. */
static struct os_mutex mutex;
static unsigned users;
static _Atomic uint32_t vpids[VMM_MAX_VPIDS / 32]; /* taken */

static const struct vmx_wish wish = {
    .required = {[VMX_GROUP_PIN] = VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS,
                 [VMX_GROUP_PROC] = VMX_PROC_HLT | VMX_PROC_MWAIT | VMX_PROC_MONITOR |
                                    VMX_PROC_RDPMC | VMX_PROC_RDTSC | VMX_PROC_MOV_DR |
                                    VMX_PROC_UNCONDITIONAL_IO | VMX_PROC_MSR_BITMAPS |
                                    VMX_PROC_CR8_LOAD | VMX_PROC_CR8_STORE,
                 [VMX_GROUP_EXIT] = VMX_EXITC_HOST_64 | VMX_EXITC_SAVE_DEBUG,
                 [VMX_GROUP_ENTRY] = VMX_ENTRY_LOAD_DEBUG},
    .wanted = {[VMX_GROUP_PIN] = VMX_PIN_PREEMPTION_TIMER,
               [VMX_GROUP_PROC] =
                   VMX_PROC_TSC_OFFSETTING | VMX_PROC_TPR_SHADOW | VMX_PROC_MONITOR_TRAP_FLAG,
               [VMX_GROUP_EXIT] = VMX_EXITC_SAVE_EFER | VMX_EXITC_LOAD_EFER | VMX_EXITC_LOAD_PAT,
               [VMX_GROUP_ENTRY] = VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_PAT,
               [VMX_GROUP_PROC2] = VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST | VMX_PROC2_VPID |
                                   VMX_PROC2_WBINVD | VMX_PROC2_RDRAND | VMX_PROC2_RDSEED |
                                   VMX_PROC2_RDTSCP | VMX_PROC2_INVPCID | VMX_PROC2_XSAVES |
                                   VMX_PROC2_TSC_SCALING | VMX_PROC2_VIRTUAL_X2APIC |
                                   VMX_PROC2_PML | VMX_PROC2_VIRTUAL_INTERRUPTS |
                                   VMX_PROC2_VIRTUAL_APIC_ACCESSES | VMX_PROC2_APIC_REGISTERS}};

/* ---- VPIDs ---- */

uint16_t vmx_vpid_get(void)
{
    if (!vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VPID) || !vmx_tlb_usable(&vmx_machine.caps))
        return 0;
    for (uint16_t n = 1; n < VMM_MAX_VPIDS; n++)
        if (!(atomic_fetch_or(&vpids[n / 32], 1u << n % 32) >> n % 32 & 1))
            return n;
    return 0;
}

void vmx_vpid_put(uint16_t vpid)
{
    if (vpid)
        atomic_fetch_and(&vpids[vpid / 32], ~(1u << vpid % 32));
}

/* ---- VMX operation ---- */

/* What of XCR0 is on while the library uses vector registers: the guest gets no more. */
static uint64_t host_xcr0(void)
{
    return vmx_insn_get_cr4() & X86_CR4_OSXSAVE ? vmx_insn_xgetbv() : 0;
}

/* EPT, or else what shadow page tables need. */
static int negotiate(char *why, size_t size)
{
    struct vmx_wish w = wish;
    int err;

    if (!(vmx_may_be_1(&vmx_machine.caps, VMX_GROUP_PROC) & VMX_PROC_UNCONDITIONAL_IO)) {
        w.required[VMX_GROUP_PROC] &= ~(uint32_t)VMX_PROC_UNCONDITIONAL_IO;
        w.required[VMX_GROUP_PROC] |= VMX_PROC_IO_BITMAPS;
    }
    err = vmx_negotiate(&vmx_machine.caps, &w, &vmx_controls, why, size);

    if (!err && vmx_has_ept() && ept_usable(vmx_machine.caps.ept_vpid))
        return VMM_OK;
    w.wanted[VMX_GROUP_PROC2] &= ~(uint32_t)(VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST);
    w.required[VMX_GROUP_PROC] |= VMX_PROC_INVLPG | VMX_PROC_CR3_LOAD | VMX_PROC_CR3_STORE;
    return vmx_negotiate(&vmx_machine.caps, &w, &vmx_controls, why, size);
}

/* The result is in use while there are VMs. With the mutex held. */
static int prepare(char *why, size_t size)
{
    int err;

    if (users)
        return VMM_OK;
    vmx_machine.host = vmm_host;
    err = vmx_caps_read(&vmx_machine.caps, vmm_host, why, size);
    if (!err)
        err = negotiate(why, size);
    return err == VMM_E_UNSUPPORTED ? VMM_E_NODEV : err;
}

int vmx_host_probe(char *why, size_t size)
{
    os_mutex_lock(&mutex);
    int err = prepare(why, size);
    os_mutex_unlock(&mutex);
    return err;
}

static void all_off(void)
{
    vmx_machine_off(&vmx_machine);
    free(vmx_machine.cpus);
    vmx_machine.cpus = NULL;
    if (vmx_io_bits)
        vmx_pages.free(NULL, vmx_io_bits);
    vmx_io_bits = NULL;
    if (vmx_apic_page)
        vmx_pages.free(NULL, vmx_apic_page);
    vmx_apic_page = NULL;
}

/* All ports exit: where the CPU does not say so at once, by bitmaps that are both this page. */
static int io_bits(char *why, size_t size)
{
    if (!vmx_uses(VMX_GROUP_PROC, VMX_PROC_IO_BITMAPS))
        return VMM_OK;
    vmx_io_bits = vmx_pages.alloc(NULL, false);
    if (!vmx_io_bits) {
        snprintf(why, size, "no memory");
        return VMM_E_NOMEM;
    }
    memset(vmx_io_bits, 0xff, 4096);
    return VMM_OK;
}

/* Its contents are nobody's: all VMs have the same. */
static int apic_page(char *why, size_t size)
{
    if (!vmx_has_ept() || !vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_APIC_ACCESSES) ||
        !vmx_uses(VMX_GROUP_PROC, VMX_PROC_TPR_SHADOW))
        return VMM_OK;
    vmx_apic_page = vmx_pages.alloc(NULL, false);
    if (vmx_apic_page)
        return VMM_OK;
    snprintf(why, size, "no memory");
    return VMM_E_NOMEM;
}

static int all_on(char *why, size_t size)
{
    int err;

    vmx_machine.ncpus = vmm_host->cpu_count(vmm_host->ctx);
    vmx_machine.cpus = calloc(vmx_machine.ncpus, sizeof(*vmx_machine.cpus));
    if (!vmx_machine.cpus) {
        snprintf(why, size, "no memory");
        return VMM_E_NOMEM;
    }
    err = io_bits(why, size);
    if (!err)
        err = apic_page(why, size);
    if (!err)
        err = vmx_machine_on(&vmx_machine, why, size);
    if (err)
        all_off();
    return err;
}

int vmx_host_get(char *why, size_t size)
{
    uint32_t id[4];
    int err = VMM_OK;

    os_mutex_lock(&mutex);
    if (!users) {
        vmx_insn_cpuid(0x80000008, id);
        vmx_phys_bits = id[0] & 0xff;
        vmx_mtrrs_read(&vmx_mtrrs, vmm_host, vmx_phys_bits);
        vmm_host->fpu_begin(vmm_host->ctx);
        vmx_host_xcr0 = host_xcr0();
        vmm_host->fpu_end(vmm_host->ctx);
        err = prepare(why, size);
        if (!err)
            err = all_on(why, size);
    }
    users += !err;
    os_mutex_unlock(&mutex);
    return err;
}

void vmx_host_put(void)
{
    os_mutex_lock(&mutex);
    if (!--users)
        all_off();
    os_mutex_unlock(&mutex);
}
