/* SPDX-License-Identifier: BSD-2-Clause */
/* core/irq.c: interrupt lines and messages, what controllers ask of vCPUs, injected events. */
#include "core/internal.h"
#include "core/x86/x86.h"

#include <vmm/irq.h>

/* ---- lines and messages ---- */

static int no_irqchip(struct vm *vm, const char *op)
{
    return vm_fail(vm, VMM_E_STATE, op, "the VM was created without interrupt controllers");
}

static int checked_line(struct vm *vm, const char *op, uint32_t line, int err)
{
    if (err == VMM_E_RANGE)
        return vm_fail(vm, err, op, "line %u, but there are %u", line, VMM_IRQ_LINES);
    if (err == VMM_E_EXIST)
        return vm_fail(vm, err, op, "line %u has an EOI callback", line);
    return err;
}

int vm_irq_set(struct vm *vm, uint32_t line, int level)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!vm->irqchip)
        return no_irqchip(vm, __func__);
    return checked_line(vm, __func__, line, irqchip_set_line(vm->irqchip, line, level));
}

int vm_irq_pulse(struct vm *vm, uint32_t line)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!vm->irqchip)
        return no_irqchip(vm, __func__);
    int err = irqchip_set_line(vm->irqchip, line, 1);
    if (!err)
        err = irqchip_set_line(vm->irqchip, line, 0);
    return checked_line(vm, __func__, line, err);
}

int vm_irq_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!vm->irqchip)
        return no_irqchip(vm, __func__);
    int err = irqchip_msi(vm->irqchip, address, data);
    if (err == VMM_E_RANGE)
        return core_fail_gpa(vm, err, __func__, address,
                             "%#llx is outside of the message window at 0xfee00000",
                             (unsigned long long)address);
    return err;
}

int vm_irq_on_eoi(struct vm *vm, uint32_t line, void (*eoi)(void *opaque, uint32_t line),
                  void *opaque)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!vm->irqchip)
        return no_irqchip(vm, __func__);
    return checked_line(vm, __func__, line, irqchip_on_eoi(vm->irqchip, line, eoi, opaque));
}

/* ---- from the controllers ---- */

void core_vcpu_intr(struct vcpu *vcpu)
{
    core_vcpu_request(vcpu, VCPU_REQ_INTR);
}

void core_vcpu_nmi(struct vcpu *vcpu)
{
    core_vcpu_request(vcpu, VCPU_REQ_NMI);
}

void core_vcpu_init_ipi(struct vcpu *vcpu)
{
    /* What came before the INIT has no effect any more. */
    atomic_fetch_and(&vcpu->requests, ~(VCPU_REQ_SIPI | VCPU_REQ_NMI));
    core_vcpu_request(vcpu, VCPU_REQ_INIT);
}

void core_vcpu_sipi(struct vcpu *vcpu, uint8_t vector)
{
    /* The first of several counts: the second finds the processor running. */
    if (atomic_load(&vcpu->requests) & VCPU_REQ_SIPI)
        return;
    atomic_store(&vcpu->sipi_vector, vector);
    core_vcpu_request(vcpu, VCPU_REQ_SIPI);
}

struct lapic *core_vcpu_lapic(struct vcpu *vcpu)
{
    return vcpu->lapic;
}

bool core_intr_pending(struct vcpu *vcpu)
{
    return vcpu->lapic && lapic_intr(vcpu->lapic);
}

int core_intr_ack(struct vcpu *vcpu)
{
    return vcpu->lapic ? lapic_ack(vcpu->lapic) : -1;
}

/* ---- events of the host program ---- */

/* SDM Vol. 3A table 6-1: the exceptions that push an error code. */
#define WITH_ERROR                                                                                 \
    (1u << X86_DF_ | 1u << X86_TS | 1u << X86_NP | 1u << X86_SS | 1u << X86_GP | 1u << X86_PF_ |   \
     1u << X86_AC_ | 1u << X86_CP)

/* What is wrong with an event for a CPU in this state; NULL if nothing. */
static const char *check_event(const struct vmm_event *e, bool protected)
{
    bool exception = e->type == VMM_EVENT_EXCEPTION;

    if (e->type != VMM_EVENT_INTERRUPT && e->type != VMM_EVENT_NMI && !exception)
        return "unknown type";
    if (exception && (e->vector > 31 || e->vector == X86_NMI))
        return "the vector is no exception's";
    if (e->has_error > 1 || (e->has_error && !exception))
        return "only exceptions have an error code";
    if (exception && protected && (WITH_ERROR >> e->vector & 1) != e->has_error)
        return e->has_error ? "this exception has no error code"
                            : "this exception needs an error code";
    if (exception && !protected && e->has_error)
        return "there are no error codes in real mode";
    if (e->has_cr2 > 1 || (e->has_cr2 && !(exception && e->vector == X86_PF_)))
        return "only #PF sets CR2";
    return NULL;
}

static int inject_nmi(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    if (regs->nmi_pending)
        return vm_fail(vcpu->vm, VMM_E_BUSY, "vcpu_inject", "an NMI is pending");
    regs->nmi_pending = 1;
    return core_regs_set(vcpu, regs);
}

static int inject(struct vcpu *vcpu, const struct vmm_event *e)
{
    struct vm *vm = vcpu->vm;
    struct vcpu_regs regs;

    core_regs_get(vcpu, VMM_REGS_CONTROL | VMM_REGS_EVENTS, &regs);
    const char *wrong = check_event(e, regs.cr0 & X86_CR0_PE);
    if (wrong)
        return vm_fail(vm, VMM_E_INVAL, "vcpu_inject", "type %u, vector %u: %s", e->type, e->vector,
                       wrong);
    regs.groups = VMM_REGS_EVENTS;
    if (e->type == VMM_EVENT_NMI)
        return inject_nmi(vcpu, &regs);
    if (regs.inject_valid)
        return vm_fail(vm, VMM_E_BUSY, "vcpu_inject", "an event with vector %u is queued",
                       regs.inject_vector);
    if (e->type == VMM_EVENT_INTERRUPT && !vm->ops->irq_window(vcpu))
        return vm_fail(vm, VMM_E_STATE, "vcpu_inject", "the CPU takes no interrupts now");
    if (e->has_cr2) {
        regs.groups |= VMM_REGS_CONTROL;
        regs.cr2 = e->cr2;
    }
    regs.inject_valid = 1;
    regs.inject_type = e->type;
    regs.inject_vector = e->vector;
    regs.inject_has_error = e->has_error;
    regs.inject_error = e->error;
    return core_regs_set(vcpu, &regs);
}

int vcpu_inject(struct vcpu *vcpu, const struct vmm_event *event)
{
    struct vmm_event own;
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_copy_in(&own, sizeof(own), event, 2 * sizeof(uint32_t));
    if (!err && own.reserved)
        err = VMM_E_UNSUPPORTED;
    if (err)
        return vm_fail(vcpu->vm, err, __func__, "bad struct vmm_event");
    err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = inject(vcpu, &own);
    core_vcpu_release(vcpu, nested);
    return err;
}

int vcpu_request_irq_window(struct vcpu *vcpu, int on)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    vcpu->irq_window_wanted = on;
    core_vcpu_release(vcpu, nested);
    return 0;
}

int vcpu_irq_window_open(struct vcpu *vcpu)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    int result = core_vcpu_claim(vcpu, __func__, &nested);
    if (result)
        return result;
    result = vcpu->vm->ops->irq_window(vcpu);
    core_vcpu_release(vcpu, nested);
    return result;
}
