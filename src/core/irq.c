/* SPDX-License-Identifier: BSD-2-Clause */
/* core/irq.c: interrupt lines and messages, what controllers ask of vCPUs, injected events. */
#include "core/internal.h"
#include "core/x86/x86.h"

#include <vmm/irq.h>

#define MSI_WINDOW_MASK 0xfffffffffff00000ull
#define MSI_WINDOW      0xfee00000ull

/* ---- where the controllers are ---- */

static bool in_kernel(const struct vm *vm)
{
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL;
}

int core_irq_check(struct vm *vm, const char *op)
{
    if (vm->irqchip_kind == VMM_IRQCHIP_NONE)
        return vm_fail(vm, VMM_E_STATE, op, "the VM was created without interrupt controllers");
    return 0;
}

static int no_service(struct vm *vm, const char *op)
{
    return vm_fail(vm, VMM_E_UNSUPPORTED, op, "backend %s does not do this for the host's kernel",
                   vm->ops->name);
}

/* Split mode: a message to the kernel's local APICs. */
static bool remote_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    const struct backend_host_ops *host = vm->ops->host;

    return host->irq_msi && host->irq_msi(vm, address, data) == 0;
}

/* The 8259s' INTR goes to the boot processor. */
static void remote_intr(struct vm *vm)
{
    struct vcpu *vcpu = vm_vcpu(vm, 0);

    if (vcpu)
        core_vcpu_intr(vcpu);
}

static void remote_pin(struct vm *vm, uint32_t pin, uint64_t address, uint32_t data)
{
    const struct core_route route = {.set = address != 0, .address = address, .data = data};

    if (vm->ops->host->route_changed)
        vm->ops->host->route_changed(vm, pin, &route);
}

const struct irqchip_remote core_irq_remote = {
    .msi = remote_msi,
    .intr = remote_intr,
    .pin = remote_pin,
};

/* ---- lines and messages ---- */

int core_irq_drive(struct vm *vm, uint32_t line)
{
    int level = (vm->irq_levels | vm->irq_resampled) >> line & 1;

    if (!in_kernel(vm))
        return irqchip_set_line(vm->irqchip, line, level);
    if (!vm->ops->host->irq_line)
        return no_service(vm, "vm_irq_set");
    return vm->ops->host->irq_line(vm, line, level);
}

/* Under irq_lock. */
static int set_level(struct vm *vm, uint32_t line, int level)
{
    uint32_t bit = 1u << line;

    vm->irq_levels = level ? vm->irq_levels | bit : vm->irq_levels & ~bit;
    return core_irq_drive(vm, line);
}

int core_irq_pulse(struct vm *vm, uint32_t line)
{
    int err = set_level(vm, line, 1);
    int err2 = set_level(vm, line, 0);

    return err ? err : err2;
}

static int check_line(struct vm *vm, const char *op, uint32_t line)
{
    int err = core_irq_check(vm, op);

    if (err)
        return err;
    if (line >= VMM_IRQ_LINES)
        return vm_fail(vm, VMM_E_RANGE, op, "line %u, but there are %u", line, VMM_IRQ_LINES);
    return 0;
}

int vm_irq_set(struct vm *vm, uint32_t line, int level)
{
    int err = vm ? check_line(vm, __func__, line) : VMM_E_INVAL;

    if (err)
        return err;
    os_mutex_lock(&vm->irq_lock);
    err = set_level(vm, line, level);
    os_mutex_unlock(&vm->irq_lock);
    return err;
}

int vm_irq_pulse(struct vm *vm, uint32_t line)
{
    int err = vm ? check_line(vm, __func__, line) : VMM_E_INVAL;

    if (err)
        return err;
    os_mutex_lock(&vm->irq_lock);
    err = core_irq_pulse(vm, line);
    os_mutex_unlock(&vm->irq_lock);
    return err;
}

int core_irq_check_msi(struct vm *vm, const char *op, uint64_t address)
{
    if ((address & MSI_WINDOW_MASK) == MSI_WINDOW)
        return 0;
    return core_fail_gpa(vm, VMM_E_RANGE, op, address,
                         "%#llx is outside of the message window at 0xfee00000",
                         (unsigned long long)address);
}

int core_irq_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_USER)
        return irqchip_msi(vm->irqchip, address, data);
    if (!vm->ops->host->irq_msi)
        return no_service(vm, "vm_irq_msi");
    int err = vm->ops->host->irq_msi(vm, address, data);
    return err < 0 ? err : 0;
}

int vm_irq_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    int err = vm ? core_irq_check(vm, __func__) : VMM_E_INVAL;

    if (!err)
        err = core_irq_check_msi(vm, __func__, address);
    return err ? err : core_irq_msi(vm, address, data);
}

/* ---- ends of interrupts ---- */

int core_irq_update_wanted(struct vm *vm)
{
    uint32_t lines = vm->irq_resample_lines;

    if (!in_kernel(vm))
        return 0; /* the library's controllers tell of all */
    for (uint32_t line = 0; line < VMM_IRQ_LINES; line++)
        lines |= (uint32_t)(vm->eoi[line].fn != NULL) << line;
    if (lines == vm->eoi_wanted)
        return 0;
    if (!vm->ops->host->irq_eoi_wanted)
        return no_service(vm, "vm_irq_on_eoi");
    int err = vm->ops->host->irq_eoi_wanted(vm, lines);
    if (!err)
        vm->eoi_wanted = lines;
    return err;
}

/* Under irq_lock. */
static int set_eoi(struct vm *vm, uint32_t line, struct core_eoi eoi)
{
    struct core_eoi old = vm->eoi[line];

    if (eoi.fn && old.fn)
        return vm_fail(vm, VMM_E_EXIST, "vm_irq_on_eoi", "line %u has an EOI callback", line);
    vm->eoi[line] = eoi;
    int err = core_irq_update_wanted(vm);
    if (err && eoi.fn) /* taking one back does not fail */
        vm->eoi[line] = old;
    return eoi.fn ? err : 0;
}

int vm_irq_on_eoi(struct vm *vm, uint32_t line, void (*eoi)(void *opaque, uint32_t line),
                  void *opaque)
{
    int err = vm ? check_line(vm, __func__, line) : VMM_E_INVAL;

    if (err)
        return err;
    os_mutex_lock(&vm->irq_lock);
    err = set_eoi(vm, line, (struct core_eoi){eoi, opaque});
    os_mutex_unlock(&vm->irq_lock);
    return err;
}

void core_irq_eoi(struct vm *vm, uint32_t line)
{
    if (line >= VMM_IRQ_LINES)
        return;
    os_mutex_lock(&vm->irq_lock);
    struct core_eoi eoi = vm->eoi[line];
    bool resample = vm->irq_resample_lines >> line & 1;
    os_mutex_unlock(&vm->irq_lock);
    if (eoi.fn)
        eoi.fn(eoi.opaque, line);
    if (resample)
        core_irq_fd_eoi(vm, line);
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

    int err = core_regs_get(vcpu, VMM_REGS_CONTROL | VMM_REGS_EVENTS, &regs);
    if (err)
        return err;
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
    if (on && nested) /* the engine may believe that nobody waits */
        core_vcpu_request(vcpu, 0);
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
