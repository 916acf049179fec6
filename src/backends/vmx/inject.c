/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/inject.c: events into the guest, by the hardware. */
#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "vmx/event.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

_Static_assert(X86_EVENT_EXTERNAL == VMX_TYPE_EXTERNAL && X86_EVENT_NMI == VMX_TYPE_NMI &&
                   X86_EVENT_EXCEPTION == VMX_TYPE_EXCEPTION &&
                   X86_EVENT_SOFT_INT == VMX_TYPE_SOFT_INT &&
                   X86_EVENT_PRIV_SW == VMX_TYPE_PRIV_SW && X86_EVENT_SOFT_EXC == VMX_TYPE_SOFT_EXC,
               "types of events are the same");

/* ---- what waits ---- */

static struct vmx_event event_of(const struct x86_event *e)
{
    struct vmx_event out = {VMX_INTR_VALID | (uint32_t)e->type << VMX_INTR_TYPE_SHIFT | e->vector,
                            0, e->len};

    if (e->has_error) {
        out.info |= VMX_INTR_HAS_ERROR;
        out.error = e->error;
    }
    return out;
}

static inline void set_proc(struct vmx_vcpu *v, bool intr_window, bool nmi_window)
{
    uint32_t proc = v->proc & ~(uint32_t)(VMX_PROC_INTERRUPT_WINDOW | VMX_PROC_NMI_WINDOW);

    if (intr_window)
        proc |= VMX_PROC_INTERRUPT_WINDOW;
    if (nmi_window)
        proc |= VMX_PROC_NMI_WINDOW;
    if (proc == v->proc)
        return;
    v->proc = proc;
    vmx_insn_put(VMX_PROC_CTLS, proc);
}

static void inject(struct vmx_vcpu *v, const struct vmx_event *e)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (e->info & VMX_INTR_HAS_ERROR)
        vmx_insn_put(VMX_ENTRY_INTR_ERROR, e->error);
    if (vmx_type_is_soft(e->info))
        vmx_insn_put(VMX_ENTRY_INSN_LEN, e->len);
    /* An entry leaves it invalid; one that is not made, valid: see vmx_withdraw. */
    vmx_insn_put(VMX_ENTRY_INTR_INFO, e->info);
    v->injected = true;
    v->nmi_injected = (e->info & VMX_INTR_TYPE) == VMX_TYPE_NMI << VMX_INTR_TYPE_SHIFT;
    if (cpu->shadow) {
        cpu->shadow = 0;
        vmx_changed(v, VMX_G_BLOCKING);
    }
}

/* The software CPU's own rules for what it delivers itself (core/x86/event.c): CR2, RF, GD. */
static void deliver_event(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    const struct x86_event *e = &cpu->event;
    struct vmx_event out = event_of(e);

    if (e->has_cr2)
        vmx_set_cr2(v, e->cr2);
    if (vmx_sets_rf(out.info, e->error) && !(cpu->rflags & X86_RF)) {
        cpu->rflags |= X86_RF;
        vmx_changed(v, VMX_G_FLAGS);
    }
    if (e->type == X86_EVENT_EXTERNAL || e->type == X86_EVENT_NMI)
        cpu->count.irqs++;
    else
        cpu->count.exceptions++;
    inject(v, &out);
    cpu->event.valid = false;
    cpu->rep_serial++;
}

/* The interrupt controllers have locks, for which this thread may have to wait: not in a session.
 * The next turn delivers what has been acknowledged, as the event that it is from now on. */
static int take_interrupt(struct vmx_vcpu *v)
{
    struct x86_cpu *cpu = v->soft.cpu;
    int vector;

    vmx_session_end(v);
    vector = core_intr_ack(v->vcpu);
    if (vector >= 0)
        cpu->event = (struct x86_event){
            .valid = true, .type = X86_EVENT_EXTERNAL, .vector = (uint8_t)vector};
    return VMX_INJECT_TAKEN;
}

static void deliver_nmi(struct vmx_vcpu *v)
{
    struct vmx_event e = {VMX_INTR_VALID | VMX_TYPE_NMI << VMX_INTR_TYPE_SHIFT | X86_NMI, 0, 0};

    v->soft.cpu->nmi_pending = false;
    v->soft.cpu->count.irqs++;
    v->soft.cpu->rep_serial++;
    inject(v, &e);
}

static int act(struct vmx_vcpu *v, const struct vmx_plan *plan)
{
    if (plan->program_window) {
        v->vcpu->irq_window_wanted = false;
        return vmx_exits(v, VMM_EXIT_IRQ_WINDOW);
    }
    set_proc(v, plan->interrupt_window, plan->nmi_window);
    switch (plan->inject) {
    case VMX_INJECT_EVENT:
        deliver_event(v);
        break;
    case VMX_INJECT_NMI:
        deliver_nmi(v);
        break;
    case VMX_INJECT_INTERRUPT:
        return take_interrupt(v);
    default:
        break;
    }
    return VMX_GO_ON;
}

static int inject_waiting(struct vmx_vcpu *v, struct vmx_waiting *w)
{
    struct x86_cpu *cpu = v->soft.cpu;
    struct vmx_plan plan;

    if (cpu->later.valid || cpu->pending_db)
        return VMX_INJECT_SOFT;
    vmx_pull(v, VMX_G_FLAGS | VMX_G_BLOCKING);
    w->interrupts_on = cpu->rflags & X86_IF;
    w->interruptibility = (uint32_t)cpu->shadow | (cpu->nmi_blocked ? VMX_BLOCK_NMI : 0);
    if (cpu->event.valid) {
        w->event = event_of(&cpu->event);
        if (!vmx_can_inject(w, cpu->cr0 & X86_CR0_PE))
            return VMX_INJECT_SOFT;
    }
    plan = vmx_plan_entry(w);
    if (v->mmu.vm86 && plan.inject != VMX_INJECT_NOTHING)
        return VMX_INJECT_SOFT;
    return act(v, &plan);
}

int vmx_inject(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    struct vmx_waiting w = {.interrupt = vmx_intr_pending(v), .virtual_nmis = true};

    if (!cpu->event.valid && !cpu->later.valid && !cpu->pending_db && !cpu->nmi_pending &&
        !w.interrupt && !v->vcpu->irq_window_wanted) {
        set_proc(v, false, false);
        return VMX_GO_ON;
    }
    w.nmi = cpu->nmi_pending;
    w.wants_window = v->vcpu->irq_window_wanted;
    return inject_waiting(v, &w);
}

/* ---- what comes back ---- */

static void wait_again(struct vmx_vcpu *v, uint32_t info, uint32_t error, uint32_t len)
{
    struct x86_cpu *cpu = v->soft.cpu;
    struct vmx_event e;
    bool unblock;

    e = vmx_interrupted_event(info, error, len, &unblock);
    cpu->event =
        (struct x86_event){.valid = true,
                           .type = (uint8_t)((e.info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT),
                           .vector = (uint8_t)e.info,
                           .has_error = e.info & VMX_INTR_HAS_ERROR,
                           .error = e.error,
                           .len = (uint8_t)e.len};
    if (!unblock)
        return;
    vmx_pull(v, VMX_G_BLOCKING);
    if (!cpu->nmi_blocked)
        return;
    cpu->nmi_blocked = false;
    vmx_changed(v, VMX_G_BLOCKING);
}

/* On a CPU that tells of some older event: what an interrupt could be that the hardware has begun
 * to deliver is one. If it was a fault of the guest's instead, in the handler of that interrupt and
 * with interrupts on, the handler is called once more, and the fault comes again. */
static uint32_t guess(struct vmx_vcpu *v, uint32_t info)
{
    uint32_t vector = (uint32_t)vmx_insn_read(VMX_GUEST_INTR_STATUS) >> 8 & 0xff;

    if ((!v->calm && v->injected) || !(v->flags & X86_IF) || !vector)
        return info;
    return VMX_INTR_VALID | VMX_TYPE_EXTERNAL << VMX_INTR_TYPE_SHIFT | vector;
}

void vmx_take_interrupted(struct vmx_vcpu *v, uint32_t info)
{
    if (v->lent && v->delivers && v->guesses)
        info = guess(v, info);
    wait_again(v, info, (uint32_t)vmx_insn_read(VMX_IDT_VECTORING_ERROR),
               (uint32_t)vmx_insn_read(VMX_EXIT_INSN_LEN));
}

void vmx_withdraw(struct vmx_vcpu *v)
{
    uint32_t info = (uint32_t)vmx_insn_read(VMX_ENTRY_INTR_INFO);

    if (!(info & VMX_INTR_VALID))
        return;
    vmx_insn_put(VMX_ENTRY_INTR_INFO, 0);
    wait_again(v, info, (uint32_t)vmx_insn_read(VMX_ENTRY_INTR_ERROR),
               (uint32_t)vmx_insn_read(VMX_ENTRY_INSN_LEN));
}

void vmx_raise(struct vmx_vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (has_error)
        x86_raise_err(cpu, vector, error);
    else
        x86_raise(cpu, vector);
    cpu->rep_serial++;
}
