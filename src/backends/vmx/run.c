/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/run.c: the run loop: entries, and what the software CPU does in between. */
#include <stdio.h>
#include <string.h>

#include "backends/vmx/fetch.h"
#include "backends/vmx/vmx.h"
#include "core/internal.h"
#include "core/irqchip.h"
#include "core/x86/cache.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/check.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

#define CHUNK 4096u /* instructions of the software CPU between two looks at the mode */

/*
 * The hardware executes what is only execution, and delivers events. Instructions that exit often
 * are executed here (insn.c, mmio.c). Everything else is the software CPU's: all other instructions
 * that exit, single steps, budgets and breakpoints, and the modes that the hardware does not run.
 */

/* ---- exits to the program ---- */

int vmx_exits(struct vmx_vcpu *v, uint32_t reason)
{
    vmx_session_end(v);
    vmx_pull(v, VMX_G_REGS | VMX_G_SEGS | VMX_G_CONTROL);
    v->vcpu->exit.reason = reason;
    vmx_fill_insn(v, reason == VMM_EXIT_HYPERCALL);
    return BACKEND_EXIT;
}

int vmx_fails(struct vmx_vcpu *v, const char *text)
{
    struct vcpu_exit *out = &v->vcpu->exit;

    vmx_session_end(v);
    memset(&out->u, 0, sizeof(out->u));
    snprintf(out->u.entry.text, sizeof(out->u.entry.text), "%s", text);
    out->reason = VMM_EXIT_ENTRY_FAIL;
    out->insn_len = 0;
    return BACKEND_EXIT;
}

/* ---- the software CPU ---- */

/* The hardware's translations are not in order any more if something has flushed the software
 * CPU's: that was for the guest, but for what this file does itself. */
static void note_flush(struct vmx_vcpu *v)
{
    if (v->soft.cpu->mmu.flush_gen == v->flush_seen)
        return;
    v->flush_seen = v->soft.cpu->mmu.flush_gen;
    vmx_tlb_due(&v->tlb);
}

/* Single steps over MOV SS leave their trap in the VMCS (SDM Vol. 3C 27.3.4). */
static void take_pending_debug(struct vmx_vcpu *v)
{
    if (!v->in_session || (v->valid & VMX_G_BLOCKING))
        return;
    vmx_pull(v, VMX_G_BLOCKING | VMX_G_FLAGS);
    if (v->soft.cpu->shadow)
        v->soft.cpu->pending_db |= vmx_insn_read(VMX_GUEST_PENDING_DEBUG) & (X86_DR6_BS | 15);
}

static void note_serial(struct vmx_vcpu *v)
{
    v->serial_base = x86_serial(v->soft.cpu) - v->soft.cpu->rep_serial;
}

/* Other vCPUs and this one have run in hardware since: what was decoded and cached may be old. */
static int soft(struct vmx_vcpu *v, uint64_t limit, bool step, bool fpu)
{
    uint32_t groups = VMX_G_VMCS | (fpu ? VMX_G_FPU : 0);
    struct vcpu *vcpu = v->vcpu;
    uint64_t budget = vcpu->insn_budget, n = limit < budget ? limit : budget, done;
    int r;

    take_pending_debug(v);
    vmx_session_end(v);
    vmx_timers_end(v);
    vmx_pull(v, groups);
    note_flush(v);
    /* Without EPT, whatever invalidates exits: this TLB is as good as the hardware's. */
    if (vmx_has_ept())
        x86_flush_tlb(v->soft.cpu);
    x86_cache_recheck(v->soft.cpu);
    v->flush_seen = v->soft.cpu->mmu.flush_gen;
    vcpu->insn_budget = n;
    r = interp_run(vcpu, step);
    note_serial(v);
    done = n - vcpu->insn_budget;
    vcpu->insn_budget = budget == UINT64_MAX ? budget : budget - done;
    vmx_changed(v, groups);
    v->checked = false;
    return r;
}

int vmx_soft_one(struct vmx_vcpu *v, bool fpu)
{
    int r = soft(v, UINT64_MAX, true, fpu);

    v->stepped |= r == BACKEND_STEPPED;
    if (r == BACKEND_STEPPED || (r == BACKEND_AGAIN && v->vcpu->exit.reason == VMM_EXIT_NONE &&
                                 !atomic_load(&v->vcpu->requests)))
        return VMX_GO_ON;
    return r;
}

/* ---- one entry ---- */

/* The preemption timer ends the entry when the library's next timer is due, which is no further
 * away than the timer reaches (tsc_at in session.c). */
static inline void set_timer(const struct vmx_vcpu *v)
{
    uint64_t now, ticks;

    if (!v->timer_runs)
        return;
    now = vmx_insn_rdtsc();
    ticks = v->deadline > now ? v->deadline - now : 0;
    vmx_insn_put(VMX_PREEMPTION_TIMER, ticks >> vmx_timer_shift(&vmx_machine.caps));
}

static __attribute__((noinline)) void invept(struct vmx_vcpu *v)
{
    struct ept *ept = &vmx_vm_of(v)->mmu.ept;
    struct vmx_inv_operand op = {ept_eptp(ept), 0};

    v->ept_gen = ept_generation(ept);
    v->ept_seen = vmx_insn_invept(ept_invept_type(ept), &op) == VMX_OK;
}

/* This CPU's own record of what it has invalidated may wait until the session's end. */
static inline bool ept_settled(const struct vmx_vcpu *v)
{
    const struct ept *ept = &vmx_vm_of(v)->mmu.ept;

    return !vmx_has_ept() || !ept_needs_invept(ept, &v->mmu.ept_cpu) ||
           (v->ept_seen && v->ept_gen == ept_generation(ept));
}

/* The last look before each entry: nothing is due that has not been executed. On another CPU than
 * last time nothing is known of what it has cached. */
static inline bool settled(const struct vmx_vcpu *v)
{
    return v->soft.cpu->mmu.flush_gen == v->flush_seen && v->tlb.cpu == v->vmcs.cpu &&
           vmx_tlb_settled(&v->tlb, v->vmcs.cpu) && ept_settled(v);
}

static void invalidate(struct vmx_vcpu *v)
{
    if (!ept_settled(v) || (vmx_has_ept() && v->tlb.cpu != v->vmcs.cpu))
        invept(v);
    note_flush(v);
    if (!vmx_tlb_settled(&v->tlb, v->vmcs.cpu))
        vmx_tlb_settle(&v->tlb, &vmx_machine.caps, v->vmcs.cpu);
    if (!v->tlb.vpid)
        v->tlb.cpu = v->vmcs.cpu;
}

/* Emulators flush at each entry, so that what is missing would not be noticed there. */
static int not_settled(struct vmx_vcpu *v, const char *what)
{
    vmx_session_end(v);
    return vm_fail(v->vcpu->vm, VMM_E_BACKEND, "vcpu_run",
                   "an %s that is due has not been executed before the entry", what);
}

#define MAX_ROUNDS 16 /* other vCPUs can take something away meanwhile */

/* Executes what is due, and looks again; VMX_RESUME: the entry comes. */
static __attribute__((noinline)) int settle(struct vmx_vcpu *v)
{
    for (unsigned i = 0; i < MAX_ROUNDS; i++) {
        uint64_t before = vmx_asked(v);

        if (!vmx_mmu_current(v)) {
            v->checked = false;
            vmx_withdraw(v);
            return VMX_GO_ON;
        }
        if (settled(v)) {
            v->settled = before;
            return VMX_RESUME;
        }
        invalidate(v);
    }
    return not_settled(v, ept_settled(v) ? "INVVPID" : "INVEPT");
}

static __attribute__((noinline)) int failed(struct vmx_vcpu *v, int result)
{
    const char *rule = vmx_check_entry(&vmx_machine.caps, vmx_phys_bits);
    char text[sizeof(v->vcpu->exit.u.entry.text)];

    if (result == VMX_OK && (v->reason & 0xffff) == VMX_EXIT_ENTRY_MSR_LOADING) {
        vmx_area_failed(v, text, sizeof(text));
        vmx_withdraw(v);
        return vmx_fails(v, text);
    }
    if (!rule)
        rule = "no check that the library knows fails";
    if (result == VMX_OK)
        snprintf(text, sizeof(text), "VM entry, %s: %s", vmx_exit_name(v->reason), rule);
    else
        snprintf(text, sizeof(text), "VM entry: %s (%s)", rule,
                 vmx_insn_error(
                     result == VMX_FAIL_VALID ? (uint32_t)vmx_insn_read(VMX_VM_INSN_ERROR) : 0));
    vmx_withdraw(v);
    return vmx_fails(v, text);
}

/* The host takes NMIs at once. */
static void take_nmi(void)
{
    const uint32_t mask = VMX_INTR_VALID | VMX_INTR_TYPE;

    if (((uint32_t)vmx_insn_read(VMX_EXIT_INTR_INFO) & mask) ==
        (VMX_INTR_VALID | VMX_TYPE_NMI << VMX_INTR_TYPE_SHIFT))
        __asm__ volatile("int $2" ::: "memory");
}

/* Interrupts are off: who makes a request after the look at them kicks a CPU that is in a session,
 * and the kick ends the entry at once. */
static inline int guest(struct vmx_vcpu *v)
{
    return vmx_enter_with(v->soft.cpu->gpr, v->vmcs.launched, &v->vcpu->requests, &v->host_rsp);
}

static __attribute__((noinline)) int not_entered(struct vmx_vcpu *v, int result)
{
    if (result != VMX_NOT_ENTERED)
        return failed(v, result);
    vmx_withdraw(v);
    return VMX_GO_ON;
}

static inline __attribute__((always_inline)) int enter_guest(struct vmx_vcpu *v)
{
    uint32_t vectoring;
    int result;

    if (__builtin_expect(vmx_asked(v) != v->settled, 0)) {
        result = settle(v);
        if (result != VMX_RESUME)
            return result;
    }
    if (__builtin_expect(v->newer == VMX_G_RIP, 1)) { /* behind an instruction */
        vmx_insn_put(VMX_GUEST_RIP, v->soft.cpu->rip);
        v->newer = 0;
    } else {
        vmx_push(v);
    }
    if (v->nmi_injected) {
        v->may_block_nmi = true;
        v->nmi_injected = false;
    }
    if (!vmx_has_ept())
        vmx_shadow_entering(v);
    set_timer(v);
    result = guest(v);
    if (__builtin_expect(result != VMX_OK, 0))
        return not_entered(v, result);
    v->reason = (uint32_t)vmx_insn_get(VMX_EXIT_REASON);
    if (__builtin_expect(v->reason & VMX_EXIT_ENTRY_FAILED, 0))
        return failed(v, result);
    if (v->reason == VMX_EXIT_EXCEPTION_NMI)
        take_nmi();
    v->vmcs.launched = true;
    v->valid = 0;
    v->flags = (uint32_t)vmx_insn_get(VMX_GUEST_RFLAGS);
    if (v->flags & X86_TF)
        v->checked = false;
    vectoring = (uint32_t)vmx_insn_get(VMX_IDT_VECTORING_INFO);
    if (vectoring & VMX_INTR_VALID)
        vmx_take_interrupted(v, vectoring);
    return VMX_EXITED;
}

int vmx_enter_guest(struct vmx_vcpu *v)
{
    return enter_guest(v);
}

static inline int enter(struct vmx_vcpu *v)
{
    int r = enter_guest(v);

    return r == VMX_EXITED ? vmx_dispatch(v) : r;
}

/* ---- the loop ---- */

/* Whether the hardware can execute this state. */
static bool mode_ok(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    /* Features that the guest's CPUID offers and this CPU does not have. */
    if ((cpu->cr4 & ~vmx_machine.caps.cr4_fixed1) || (cpu->xcr0 & ~(vmx_host_xcr0 | 3)))
        return false;
    return vmx_mmu_ready(v);
}

static bool needs_soft(struct vmx_vcpu *v, bool step)
{
    const struct vcpu *vcpu = v->vcpu;
    const struct x86_cpu *cpu = v->soft.cpu;

    /* Single steps are the software CPU's, also those that the guest has begun in hardware. */
    return step || vcpu->insn_budget != UINT64_MAX || vcpu->restart || v->debug ||
           ((v->valid & VMX_G_FLAGS ? cpu->rflags : v->flags) & X86_TF) ||
           x86_breakpoints_armed(cpu) || !mode_ok(v);
}

/* HLT and its like; VMX_GO_ON: instructions are executed. */
static int check_activity(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (cpu->activity == VMM_SHUTDOWN)
        return vmx_exits(v, VMM_EXIT_SHUTDOWN);
    if (cpu->activity == VMM_WAIT_SIPI)
        return BACKEND_HALT;
    vmx_pull(v, VMX_G_FLAGS | VMX_G_BLOCKING);
    if (v->lent && v->delivers)
        vmx_session_end(v); /* what waits is in the virtual-APIC page */
    if (!interp_event_waits(&v->soft)) {
        v->vcpu->halted = cpu->activity == VMM_HALTED;
        vmx_fill_where(v);
        return BACKEND_HALT;
    }
    cpu->activity = VMM_ACTIVE;
    return VMX_GO_ON;
}

/* Nothing waits to be injected, and no window is asked for. */
static inline bool calm(const struct vmx_vcpu *v)
{
    const uint32_t windows = VMX_PROC_INTERRUPT_WINDOW | VMX_PROC_NMI_WINDOW;
    const struct x86_cpu *cpu = v->soft.cpu;

    return !cpu->event.valid && !cpu->later.valid && !cpu->pending_db && !cpu->nmi_pending &&
           !v->vcpu->irq_window_wanted && !(v->proc & windows) &&
           !(v->vcpu->lapic && vmx_intr_pending(v));
}

static int step_once(struct vmx_vcpu *v)
{
    int r = vmx_session_begin(v);

    if (r)
        return r;
    return vmx_has_ept() || vmx_mmu_current(v) ? vmx_step_once(v) : VMX_GO_ON;
}

/* VMX_RESUME: an entry is what comes next. */
static int turn(struct vmx_vcpu *v, bool step)
{
    struct vcpu *vcpu = v->vcpu;
    int r;

    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed))
        return BACKEND_AGAIN;
    /* An access has been made: the rest of its instruction. */
    if (vcpu->restart && !step && vcpu->insn_budget == UINT64_MAX && !v->debug)
        return vmx_soft_one(v, true);
    if (v->checked) {
        /* as it was before the last entry */
    } else if (step && !needs_soft(v, false) && vmx_step_ready(v)) {
        return step_once(v);
    } else if (needs_soft(v, step)) {
        r = soft(v, CHUNK, step, true);
        return r == BACKEND_AGAIN && !step && vcpu->exit.reason == VMM_EXIT_NONE &&
                       vcpu->insn_budget
                   ? VMX_GO_ON
                   : r;
    } else {
        v->checked = true;
    }
    if (v->soft.cpu->activity != VMM_ACTIVE) {
        r = check_activity(v);
        if (r != VMX_GO_ON)
            return r;
    }
    r = vmx_session_begin(v);
    if (r)
        return r;
    if (!vmx_has_ept() && !vmx_mmu_current(v)) {
        v->checked = false;
        return VMX_GO_ON;
    }
    v->calm = calm(v);
    if (v->calm)
        return VMX_RESUME;
    v->injected = false;
    r = vmx_inject(v);
    if (r == VMX_INJECT_SOFT)
        return vmx_soft_one(v, true);
    if (r == VMX_INJECT_TAKEN)
        return VMX_GO_ON;
    return r == VMX_GO_ON ? VMX_RESUME : r;
}

/* What all exits have in common. */
static __attribute__((noinline)) void fill_exit(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    struct vcpu_exit *e = &v->vcpu->exit;

    vmx_pull(v, VMX_G_REGS | VMX_G_SEGS | VMX_G_CONTROL);
    e->mode = core_mode(cpu->cr0, cpu->efer, cpu->rflags, cpu->seg[VMM_CS].ar);
    e->cpl = cpu->cpl;
    e->rip = cpu->rip;
    v->vcpu->exit_complete = true;
}

int vmx_run(struct vcpu *vcpu, bool step)
{
    struct vmx_vcpu *v = vcpu->backend_data;
    int r;

    v->host_known = v->again = false;
    v->stepping = step;
    /* What the program has changed since has told so (vmx_changed). */
    if (step || vcpu->insn_budget != UINT64_MAX)
        v->checked = false;
    note_serial(v);
    do {
        r = turn(v, step);
        while (r == VMX_RESUME)
            r = enter(v);
    } while (r == VMX_GO_ON);
    vmx_session_end(v);
    vmx_timers_end(v);
    if (r == BACKEND_EXIT && !vcpu->exit_complete)
        fill_exit(v);
    return r;
}
