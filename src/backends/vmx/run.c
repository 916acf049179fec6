/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/run.c: the run loop: entries, exits, and what the software CPU does in between. */
#include <stdio.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "core/irqchip.h"
#include "core/x86/cache.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "freestanding/host.h"
#include "vmx/check.h"
#include "vmx/decode.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define GO_ON (-2000) /* neither BACKEND_* nor VMM_E_* */
#define CHUNK 4096u   /* instructions of the software CPU between two looks at the mode */

/*
 * The hardware executes what is only execution. Everything else is the software CPU's: instructions
 * that exit, MMIO, the delivery of events that come from the library or whose delivery has exited,
 * single steps, budgets and breakpoints, and the modes that the hardware does not run. So the rules
 * for them are those of every engine; an exit costs some thousand instructions for that.
 */

/* ---- registers that are neither in the VMCS nor general ---- */

static uint64_t get_xcr0(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static void set_xcr0(uint64_t v)
{
    __asm__ volatile("xsetbv" ::"a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(0));
}

static bool has_xsave(void)
{
    return vmx_insn_get_cr4() >> 18 & 1;
}

/* Between fpu_begin and fpu_end. The host's XCR0, for fpu_store. */
static uint64_t fpu_load(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t host;

    x86_get_xsave(cpu, v->xsave, X86_XSAVE_MAX);
    if (!has_xsave()) {
        __asm__ volatile("fxrstorq (%0)" ::"r"(v->xsave) : "memory");
        return 0;
    }
    host = get_xcr0();
    __asm__ volatile("xrstorq (%0)" ::"r"(v->xsave), "a"(~0u), "d"(~0u) : "memory");
    set_xcr0(cpu->xcr0);
    return host;
}

static void fpu_store(struct vmx_vcpu *v, uint64_t host)
{
    struct x86_cpu *cpu = v->soft.cpu;

    memset((uint8_t *)v->xsave + 512, 0, 64);
    if (has_xsave()) {
        set_xcr0(host);
        __asm__ volatile("xsaveq (%0)" ::"r"(v->xsave), "a"(~0u), "d"(~0u) : "memory");
    } else {
        __asm__ volatile("fxsaveq (%0)" ::"r"(v->xsave) : "memory");
        ((uint8_t *)v->xsave)[512] = 3;
    }
    x86_set_xsave(cpu, v->xsave, X86_XSAVE_MAX);
}

#define NMSRS 6
static const uint32_t msr_index[NMSRS] = {0xc0000081, 0xc0000082, 0xc0000083,
                                          0xc0000084, 0xc0000102, 0xc0000103};

static void swap_msrs(struct x86_cpu *cpu, uint64_t host[NMSRS], bool in)
{
    uint64_t *const guest[NMSRS] = {&cpu->star,   &cpu->lstar,          &cpu->cstar,
                                    &cpu->sfmask, &cpu->kernel_gs_base, &cpu->tsc_aux};

    for (unsigned i = 0; i < NMSRS; i++) {
        if (vmm_host->rdmsr(vmm_host->ctx, msr_index[i], in ? &host[i] : guest[i]))
            continue; /* RDTSCP's on CPUs without it */
        vmm_host->wrmsr(vmm_host->ctx, msr_index[i], in ? *guest[i] : host[i]);
    }
}

/* ---- one entry ---- */

struct exit {
    int result; /* VMX_OK, or how the entry has failed */
    uint32_t reason, intr, intr_error, insn_error;
    uint64_t qualification, gpa;
    const char *rule; /* that a failed entry breaks */
};

static void set_windows(const struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    uint32_t proc = vmx_controls.value[VMX_GROUP_PROC];

    if (v->vcpu->irq_window_wanted || core_intr_pending(v->vcpu))
        proc |= VMX_PROC_INTERRUPT_WINDOW;
    if (cpu->nmi_pending && vmx_uses(VMX_GROUP_PIN, VMX_PIN_VIRTUAL_NMIS))
        proc |= VMX_PROC_NMI_WINDOW;
    vmx_insn_write(VMX_PROC_CTLS, proc);
}

/* The preemption timer ends the entry when the library's next timer is due. */
static void set_timer(uint64_t deadline)
{
    uint32_t pin = vmx_controls.value[VMX_GROUP_PIN];
    uint64_t now = os_now(), ns = deadline > now ? deadline - now : 0, ticks;

    if (!(pin & VMX_PIN_PREEMPTION_TIMER))
        return;
    if (ns > 1000000000)
        ns = 1000000000;
    ticks = ns * vmm_host->tsc_khz / 1000000 >> vmx_timer_shift(&vmx_machine.caps);
    vmx_insn_write(VMX_PIN_CTLS, pin);
    vmx_insn_write(VMX_PREEMPTION_TIMER, ticks > UINT32_MAX ? UINT32_MAX : ticks);
}

static void invalidate(struct vmx_vcpu *v)
{
    struct vmx_vm *vv = v->vcpu->vm->backend_data;
    struct vmx_inv_operand op = {ept_eptp(&vv->ept), 0};
    uint64_t generation;

    if (!ept_needs_invept(&vv->ept, &v->ept_cpu))
        return;
    generation = ept_generation(&vv->ept);
    vmx_insn_invept(ept_invept_type(&vv->ept), &op);
    os_mutex_lock(&vv->lock);
    ept_invept_done(&vv->ept, &v->ept_cpu, generation);
    os_mutex_unlock(&vv->lock);
}

static void read_exit(struct exit *e)
{
    if (e->result != VMX_OK) {
        e->insn_error =
            e->result == VMX_FAIL_VALID ? (uint32_t)vmx_insn_read(VMX_VM_INSN_ERROR) : 0;
        e->rule = vmx_check_entry(&vmx_machine.caps, vmx_phys_bits);
        return;
    }
    e->reason = (uint32_t)vmx_insn_read(VMX_EXIT_REASON);
    e->qualification = vmx_insn_read(VMX_EXIT_QUALIFICATION);
    e->intr = (uint32_t)vmx_insn_read(VMX_EXIT_INTR_INFO);
    e->gpa = vmx_insn_read(VMX_GUEST_PHYS_ADDR);
    if (e->reason & VMX_EXIT_ENTRY_FAILED)
        e->rule = vmx_check_entry(&vmx_machine.caps, vmx_phys_bits);
}

static bool is_nmi(const struct exit *e)
{
    return e->result == VMX_OK && e->reason == VMX_EXIT_EXCEPTION_NMI &&
           (e->intr & (VMX_INTR_VALID | VMX_INTR_TYPE)) ==
               (VMX_INTR_VALID | VMX_TYPE_NMI << VMX_INTR_TYPE_SHIFT);
}

/* From interrupts off to interrupts as they were, when the host takes what has ended the entry. */
static void guest(struct vmx_vcpu *v, struct exit *e)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint64_t flags, host_cr2;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags)::"memory");
    atomic_store(&v->running, vmm_host->cpu_id(vmm_host->ctx) + 1);
    if (atomic_load(&v->vcpu->requests)) {
        e->reason = VMX_EXIT_PREEMPTION_TIMER; /* as if it had left at once */
    } else {
        __asm__ volatile("mov %%cr2, %0" : "=r"(host_cr2));
        __asm__ volatile("mov %0, %%cr2" ::"r"(cpu->cr2));
        e->result = vmx_enter(cpu->gpr, v->vmcs.launched);
        __asm__ volatile("mov %%cr2, %0" : "=r"(cpu->cr2));
        __asm__ volatile("mov %0, %%cr2" ::"r"(host_cr2));
        if (e->result == VMX_OK)
            v->vmcs.launched = true;
        read_exit(e);
        if (e->result == VMX_OK && !(e->reason & VMX_EXIT_ENTRY_FAILED))
            vmx_state_store(v);
        if (is_nmi(e))
            __asm__ volatile("int $2" ::: "memory");
    }
    atomic_store(&v->running, 0);
    __asm__ volatile("pushq %0\n\tpopfq" ::"r"(flags) : "memory", "cc");
}

static int enter(struct vmx_vcpu *v, struct exit *e)
{
    uint64_t xcr0, host[NMSRS], deadline = core_timers_begin(v->vcpu);
    bool first = v->vmcs.cpu == VMX_NO_CPU && !v->entries++;

    memset(e, 0, sizeof(*e));
    vmm_host->preempt_off(vmm_host->ctx);
    if (!vmx_vmcs_load(&vmx_machine, &v->vmcs)) {
        vmm_host->preempt_on(vmm_host->ctx);
        core_timers_end(v->vcpu);
        return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "VMPTRLD: %s",
                       vmx_insn_error((uint32_t)vmx_insn_read(VMX_VM_INSN_ERROR)));
    }
    if (first)
        vmx_state_init(v, v->vcpu->vm->backend_data);
    vmm_host->fpu_begin(vmm_host->ctx);
    xcr0 = fpu_load(v);
    swap_msrs(v->soft.cpu, host, true);
    vmx_state_load(v);
    set_windows(v);
    set_timer(deadline);
    invalidate(v);
    guest(v, e);
    swap_msrs(v->soft.cpu, host, false);
    fpu_store(v, xcr0);
    vmm_host->fpu_end(vmm_host->ctx);
    vmm_host->preempt_on(vmm_host->ctx);
    core_timers_end(v->vcpu);
    return 0;
}

/* ---- the software CPU ---- */

/* Other vCPUs and this one have run in hardware since: what was decoded and cached may be old. */
static int soft(struct vmx_vcpu *v, uint64_t limit, bool step)
{
    struct vcpu *vcpu = v->vcpu;
    uint64_t budget = vcpu->insn_budget, n = limit < budget ? limit : budget, done;
    int r;

    x86_flush_tlb(v->soft.cpu);
    x86_cache_recheck(v->soft.cpu);
    vcpu->insn_budget = n;
    r = interp_run(vcpu, step);
    done = n - vcpu->insn_budget;
    vcpu->insn_budget = budget == UINT64_MAX ? budget : budget - done;
    return r;
}

/* One instruction, or one event. */
static int soft_one(struct vmx_vcpu *v)
{
    int r = soft(v, UINT64_MAX, true);

    if (r == BACKEND_STEPPED || (r == BACKEND_AGAIN && v->vcpu->exit.reason == VMM_EXIT_NONE &&
                                 !atomic_load(&v->vcpu->requests)))
        return GO_ON;
    return r;
}

/* ---- exits ---- */

static int fails(struct vmx_vcpu *v, const struct exit *e)
{
    struct vcpu_exit *out = &v->vcpu->exit;
    const char *what = e->rule ? e->rule : "no check that the library knows fails";

    memset(&out->u, 0, sizeof(out->u));
    if (e->result != VMX_OK)
        snprintf(out->u.entry.text, sizeof(out->u.entry.text), "VM entry: %s (%s)", what,
                 vmx_insn_error(e->insn_error));
    else
        snprintf(out->u.entry.text, sizeof(out->u.entry.text), "VM entry, %s: %s",
                 vmx_exit_name(e->reason), what);
    out->reason = VMM_EXIT_ENTRY_FAIL;
    out->insn_len = 0;
    return BACKEND_EXIT;
}

/* Maps the page if it is memory that the access may reach; GO_ON, or 1: the software CPU does the
 * access. Only pages that are dirty already are mapped for writing. */
static int map(struct vmx_vcpu *v, uint64_t gpa, bool write)
{
    struct vmx_vm *vv = v->vcpu->vm->backend_data;
    struct core_page page;
    unsigned rights = EPT_R;
    int err;

    if (!core_mem_page(v->vcpu->vm, gpa, &page) || !page.host)
        return 1;
    if (write && !(page.prot & VMM_MEM_W))
        return 1;
    if (page.prot & VMM_MEM_X)
        rights |= EPT_X;
    if (page.prot & VMM_MEM_W) {
        if (write && page.dirty)
            atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
        if (!page.dirty || atomic_load_explicit(page.dirty, memory_order_relaxed))
            rights |= EPT_W;
    }
    os_mutex_lock(&vv->lock);
    err = ept_map(&vv->ept, gpa & ~0xfffull, vmm_host->virt_to_phys(vmm_host->ctx, page.host), 4096,
                  rights);
    os_mutex_unlock(&vv->lock);
    return err ? 1 : GO_ON;
}

static int on_violation(struct vmx_vcpu *v, const struct exit *e)
{
    struct vmx_ept_violation a = vmx_ept_violation(e->qualification);

    if (vmx_iret_blocks_nmi(e->reason, e->qualification, 0))
        v->soft.cpu->nmi_blocked = !v->soft.cpu->event.valid;
    /* Once is enough: if the page is there with what was asked for, another reason remains. */
    if ((a.fetch && a.readable && !a.executable) || map(v, e->gpa, a.write) != GO_ON)
        return soft_one(v);
    return GO_ON;
}

static int on_exception(struct vmx_vcpu *v, const struct exit *e)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (is_nmi(e))
        return GO_ON;
    if ((e->intr & VMX_INTR_VECTOR) == X86_DB) {
        cpu->pending_db |= e->qualification & (X86_DR6_BS | X86_DR6_BD | 15);
        return GO_ON;
    }
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "machine check in the guest");
}

static int dispatch(struct vmx_vcpu *v, const struct exit *e)
{
    if (e->result != VMX_OK || (e->reason & VMX_EXIT_ENTRY_FAILED))
        return fails(v, e);
    switch (e->reason & 0xffff) {
    case VMX_EXIT_EXCEPTION_NMI:
        return on_exception(v, e);
    case VMX_EXIT_EXTERNAL_INTERRUPT:
    case VMX_EXIT_INTERRUPT_WINDOW:
    case VMX_EXIT_NMI_WINDOW:
    case VMX_EXIT_PREEMPTION_TIMER:
    case VMX_EXIT_INIT:
        return GO_ON;
    case VMX_EXIT_TRIPLE_FAULT:
        v->soft.cpu->event.valid = false;
        v->soft.cpu->activity = VMM_SHUTDOWN;
        return GO_ON;
    case VMX_EXIT_EPT_VIOLATION:
        return on_violation(v, e);
    case VMX_EXIT_EPT_MISCONFIG:
    case VMX_EXIT_ENTRY_MACHINE_CHECK:
        return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run", "%s at %#llx",
                       vmx_exit_name(e->reason), (unsigned long long)e->gpa);
    default:
        /* All others are instructions; the software CPU executes them by the library's rules. */
        return soft_one(v);
    }
}

/* ---- the loop ---- */

/* Whether the hardware can execute this state. */
static bool mode_ok(const struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    if (vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST))
        return true;
    return (cpu->cr0 & X86_CR0_PE) && (cpu->cr0 & X86_CR0_PG);
}

static bool needs_soft(struct vmx_vcpu *v, bool step)
{
    const struct vcpu *vcpu = v->vcpu;
    const struct x86_cpu *cpu = v->soft.cpu;

    return step || vcpu->insn_budget != UINT64_MAX || vcpu->restart || v->debug ||
           cpu->activity != VMM_ACTIVE || (cpu->rflags & X86_TF) || x86_breakpoints_armed(cpu) ||
           !mode_ok(v);
}

int vmx_run(struct vcpu *vcpu, bool step)
{
    struct vmx_vcpu *v = vcpu->backend_data;
    struct exit e;
    int r = GO_ON;

    while (r == GO_ON) {
        if (atomic_load(&vcpu->requests))
            return BACKEND_AGAIN;
        if (needs_soft(v, step)) {
            r = soft(v, CHUNK, step);
            if (r == BACKEND_AGAIN && !step && vcpu->exit.reason == VMM_EXIT_NONE &&
                vcpu->insn_budget)
                r = GO_ON;
        } else if (interp_event_waits(&v->soft)) { /* the software CPU delivers it */
            r = soft_one(v);
        } else {
            core_poll_timers(vcpu);
            r = enter(v, &e);
            if (!r)
                r = dispatch(v, &e);
        }
    }
    return r;
}
