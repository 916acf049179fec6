/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/probe.c: what has to be tried out. Some emulators offer the monitor trap flag and
 * ignore it, so that a step would not end; or do not tell which virtual interrupt was being
 * delivered at an exit. */
#include <stdlib.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* The guest, which runs in the host's own address space and touches no memory. */
__asm__(".pushsection .text\n"
        ".hidden vmx_probe_guest\n"
        "vmx_probe_guest:\n"
        "	nop\n"
        "	nop\n"
        "	vmcall\n"
        "	ud2\n"
        ".popsection");
extern const uint8_t vmx_probe_guest[] __attribute__((visibility("hidden")));

#define put vmx_insn_put

#define AR_CODE     0xa09bu
#define AR_DATA     0xc093u
#define AR_TSS      0x8bu
#define AR_UNUSABLE 0x10000u
#define TRIES       64u /* entries that an interrupt ends at once */

static void put_segs(void)
{
    for (unsigned i = 0; i < VMM_NSEG; i++) {
        put(VMX_SEG(VMX_GUEST_ES_SEL, i), 0);
        put(VMX_SEG(VMX_GUEST_ES_BASE, i), 0);
        put(VMX_SEG(VMX_GUEST_ES_LIMIT, i), UINT32_MAX);
        put(VMX_SEG(VMX_GUEST_ES_AR, i), AR_UNUSABLE);
    }
    put(VMX_SEG(VMX_GUEST_ES_SEL, VMM_CS), vmx_insn_read(VMX_HOST_CS_SEL));
    put(VMX_SEG(VMX_GUEST_ES_AR, VMM_CS), AR_CODE);
    put(VMX_SEG(VMX_GUEST_ES_AR, VMM_SS), AR_DATA);
    put(VMX_SEG(VMX_GUEST_ES_SEL, VMM_TR), vmx_insn_read(VMX_HOST_TR_SEL));
    put(VMX_SEG(VMX_GUEST_ES_LIMIT, VMM_TR), 0x67);
    put(VMX_SEG(VMX_GUEST_ES_AR, VMM_TR), AR_TSS);
    put(VMX_GUEST_GDTR_BASE, 0);
    put(VMX_GUEST_GDTR_LIMIT, 0);
    put(VMX_GUEST_IDTR_BASE, 0);
    put(VMX_GUEST_IDTR_LIMIT, 0);
}

static void put_guest(void)
{
    put_segs();
    put(VMX_GUEST_CR0, vmx_insn_read(VMX_HOST_CR0));
    put(VMX_GUEST_CR3, vmx_insn_read(VMX_HOST_CR3));
    put(VMX_GUEST_CR4, vmx_insn_read(VMX_HOST_CR4));
    if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_EFER))
        put(VMX_GUEST_EFER, vmx_insn_read(VMX_HOST_EFER));
    if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_PAT))
        put(VMX_GUEST_PAT, vmx_insn_rdmsr(0x277));
    put(VMX_GUEST_SYSENTER_CS, 0);
    put(VMX_GUEST_SYSENTER_ESP, 0);
    put(VMX_GUEST_SYSENTER_EIP, 0);
    put(VMX_GUEST_DEBUGCTL, 0);
    put(VMX_GUEST_DR7, X86_DR7_FIXED);
    put(VMX_GUEST_ACTIVITY, 0);
    put(VMX_GUEST_PENDING_DEBUG, 0);
    put(VMX_GUEST_INTERRUPTIBILITY, 0);
    put(VMX_LINK_POINTER, UINT64_MAX);
    put(VMX_GUEST_RSP, 0);
    put(VMX_GUEST_RFLAGS, 2);
    put(VMX_GUEST_RIP, (uint64_t)(uintptr_t)vmx_probe_guest);
}

/* Everything that exits exits; nothing else is asked for that needs further fields. */
static void put_controls(const uint8_t *msr_bits, uint32_t proc)
{
    const uint32_t not_here = (uint32_t)VMX_PROC_SECONDARY | (uint32_t)VMX_PROC_TPR_SHADOW |
                              (uint32_t)VMX_PROC_TSC_OFFSETTING | (uint32_t)VMX_PROC_IO_BITMAPS;

    put(VMX_PIN_CTLS, vmx_controls.value[VMX_GROUP_PIN] & ~(uint32_t)VMX_PIN_PREEMPTION_TIMER);
    put(VMX_PROC_CTLS,
        (vmx_controls.value[VMX_GROUP_PROC] & ~not_here & ~(uint32_t)VMX_PROC_MONITOR_TRAP_FLAG) |
            proc);
    put(VMX_EXIT_CTLS, vmx_controls.value[VMX_GROUP_EXIT]);
    put(VMX_ENTRY_CTLS, vmx_controls.value[VMX_GROUP_ENTRY] | VMX_ENTRY_GUEST_64);
    put(VMX_EXCEPTION_BITMAP, UINT32_MAX);
    put(VMX_PF_ERROR_MASK, 0);
    put(VMX_PF_ERROR_MATCH, 0);
    put(VMX_CR0_MASK, 0);
    put(VMX_CR4_MASK, 0);
    put(VMX_CR3_TARGET_COUNT, 0);
    vmx_area_attach(&(struct vmx_area){.msrs = NULL});
    put(VMX_ENTRY_INTR_INFO, 0);
    put(VMX_HOST_RIP, (uintptr_t)vmx_exited);
    put(VMX_MSR_BITMAP, vmm_host->virt_to_phys(vmm_host->ctx, msr_bits));
}

static bool was_nmi(void)
{
    return ((uint32_t)vmx_insn_read(VMX_EXIT_INTR_INFO) & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT ==
           VMX_TYPE_NMI;
}

/* One entry: the exit's reason, or UINT32_MAX. An NMI is the host's. */
static uint32_t enter(struct vmx_vcpu *v)
{
    static const _Atomic uint32_t none;
    uint64_t regs[16] = {0}, flags;
    uint32_t reason;
    int result;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags)::"memory");
    result = vmx_enter_with(regs, v->vmcs.launched, &none, &v->host_rsp);
    reason = result == VMX_OK ? (uint32_t)vmx_insn_read(VMX_EXIT_REASON) : UINT32_MAX;
    if (reason == VMX_EXIT_EXCEPTION_NMI && was_nmi())
        __asm__ volatile("int $2" ::: "memory");
    __asm__ volatile("pushq %0\n\tpopfq" ::"r"(flags) : "memory", "cc");
    v->vmcs.launched |= result == VMX_OK && !(reason & VMX_EXIT_ENTRY_FAILED);
    return reason;
}

static bool steps(struct vmx_vcpu *v)
{
    const uint64_t second = (uint64_t)(uintptr_t)vmx_probe_guest + 1;

    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t reason = enter(v);

        if (reason == VMX_EXIT_MONITOR_TRAP_FLAG)
            return vmx_insn_read(VMX_GUEST_RIP) == second;
        if (reason != VMX_EXIT_EXTERNAL_INTERRUPT && reason != VMX_EXIT_EXCEPTION_NMI)
            return false;
    }
    return false;
}

/* A virtual interrupt, for which there is no gate: the #GP exits, and the exit tells of both. */
static bool tells(struct vmx_vcpu *v)
{
    const uint32_t vector = 0x31, expected = VMX_INTR_VALID | vector;

    put(VMX_GUEST_RFLAGS, 2 | X86_IF);
    put(VMX_PROC2_CTLS, VMX_PROC2_VIRTUAL_INTERRUPTS);
    put(VMX_VIRTUAL_APIC_ADDR, vmm_host->virt_to_phys(vmm_host->ctx, v->vapic));
    put(VMX_TPR_THRESHOLD, 0);
    for (unsigned i = 0; i < 4; i++)
        put(VMX_EOI_EXIT0 + 2 * i, 0);
    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t reason;

        memset(v->vapic, 0, 4096);
        v->vapic[0x200 + vector / 32 * 16 + vector % 32 / 8] = 1u << vector % 8;
        put(VMX_GUEST_INTR_STATUS, vector);
        reason = enter(v);
        if (reason == VMX_EXIT_EXCEPTION_NMI && !was_nmi())
            return (uint32_t)vmx_insn_read(VMX_IDT_VECTORING_INFO) == expected;
        if (reason != VMX_EXIT_EXTERNAL_INTERRUPT && reason != VMX_EXIT_EXCEPTION_NMI)
            return false;
    }
    return false;
}

static bool try(struct vmx_vcpu *v, uint32_t proc, bool (*what)(struct vmx_vcpu *v))
{
    bool works = false;

    vmm_host->preempt_off(vmm_host->ctx);
    if (vmx_vmcs_load(&vmx_machine, &v->vmcs)) {
        vmx_put_host(v);
        put_controls(v->msr_bits, proc);
        put_guest();
        works = what(v);
    }
    vmm_host->preempt_on(vmm_host->ctx);
    return works;
}

static bool find_out(uint32_t proc, bool (*what)(struct vmx_vcpu *v))
{
    struct vmx_vcpu *v = calloc(1, sizeof(*v));
    bool works = false;

    if (!v)
        return false;
    v->msr_bits = vmx_pages.alloc(NULL, false);
    v->vapic = vmx_pages.alloc(NULL, false);
    if (v->msr_bits && v->vapic && !vmx_vmcs_create(&vmx_machine, &v->vmcs)) {
        works = try(v, proc, what);
        vmx_vmcs_destroy(&vmx_machine, &v->vmcs);
    }
    if (v->msr_bits)
        vmx_pages.free(NULL, v->msr_bits);
    if (v->vapic)
        vmx_pages.free(NULL, v->vapic);
    free(v);
    return works;
}

/* *known: 0, or once somebody has found it out, 1 or -1: it does not work. Two threads may find it
 * out at the same time. */
static bool works(_Atomic int *known, uint32_t proc, bool (*what)(struct vmx_vcpu *v))
{
    int is = atomic_load(known);

    if (!is) {
        is = find_out(proc, what) ? 1 : -1;
        atomic_store(known, is);
    }
    return is > 0;
}

bool vmx_mtf_works(void)
{
    static _Atomic int known;

    return vmx_uses(VMX_GROUP_PROC, VMX_PROC_MONITOR_TRAP_FLAG) &&
           works(&known, VMX_PROC_MONITOR_TRAP_FLAG, steps);
}

bool vmx_tells_virtual_interrupts(void)
{
    static _Atomic int known;

    return vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS) &&
           works(&known, (uint32_t)VMX_PROC_SECONDARY | (uint32_t)VMX_PROC_TPR_SHADOW, tells);
}
