/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq_soft.c: the kernel's interrupt controllers as the software CPU sees them. */
#include <string.h>

#include "backends/kvm/irq.h"
#include "core/irqchip.h"
#include "core/x86/control.h"
#include <vmm/io.h>

#define MSR_APIC_BASE  0x1bu
#define MSR_X2APIC_EOI 0x80bu

#define APIC_BASE_ENABLE 0x800ull
#define APIC_BASE_X2APIC 0x400ull

/* KVM moves what its timers have to say into the local APIC only while the vCPU runs: how long that
 * may be put off (ns). */
#define LOOK_INTERVAL 100000u

static struct kvm_vcpu *kv_of(void *ctx)
{
    return ctx; /* the software CPU is its first member */
}

/* ---- what waits in the controllers ---- */

static int highest(const struct kvm_lapic_state *s, uint32_t offset)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t word = kvm_lapic_reg(s, offset + (uint32_t)i * 16);

        if (word)
            return i * 32 + 31 - __builtin_clz(word);
    }
    return -1;
}

/* SDM Vol. 3A 11.8.3.1, with the software CPU's task priority. */
static bool deliverable(struct kvm_vcpu *kv, const struct kvm_lapic_state *s)
{
    int irr = highest(s, KVM_LAPIC_IRR), isr = highest(s, KVM_LAPIC_ISR);
    int tpr = (int)(x86_read_cr8(kv->soft.cpu) << 4);

    return irr >= 0 && (irr & 0xf0) > (isr & 0xf0 & ~(isr >> 31)) && (irr & 0xf0) > tpr;
}

/* Whether the 8259s' INTR reaches this CPU: as lapic_update_lint0. */
static bool lint0_open(struct kvm_vcpu *kv, const struct kvm_lapic_state *s)
{
    uint32_t lint0 = kvm_lapic_reg(s, KVM_LAPIC_LINT0);

    if (!(kv->apic_base & APIC_BASE_ENABLE))
        return kv->vcpu->id == 0;
    return !(lint0 & KVM_LVT_MASKED) && (lint0 >> 8 & 7) == 7;
}

/* The input of one of the kernel's 8259s that has the highest priority and may interrupt, or -1. */
static int pic_request(const struct kvm_pic_state *p, uint8_t cascade)
{
    uint8_t irr = (p->irr | cascade) & (uint8_t)~p->imr, isr = p->isr;

    if (p->special_mask)
        isr &= (uint8_t)~p->imr;
    for (unsigned i = 0; i < 8; i++) {
        unsigned input = (i + p->priority_add) & 7;

        if (irr >> input & 1)
            return (isr >> input & 1) && !(p->special_fully_nested_mode && input == 2) ? -1
                                                                                       : (int)input;
        if (isr >> input & 1 && !(p->special_fully_nested_mode && input == 2))
            return -1;
    }
    return -1;
}

static bool kernel_pic_intr(struct vm *vm)
{
    struct kvm_irqchip master = {.chip_id = KVM_IRQCHIP_PIC_MASTER};
    struct kvm_irqchip slave = {.chip_id = KVM_IRQCHIP_PIC_SLAVE};
    int fd = kvm_vm_of(vm)->fd;

    if (kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &master) < 0 ||
        kvm_ioctl_p(fd, KVM_GET_IRQCHIP, &slave) < 0)
        return false;
    return pic_request(&master.chip.pic, pic_request(&slave.chip.pic, 0) >= 0 ? 4 : 0) >= 0;
}

static bool get_lapic(struct kvm_vcpu *kv, struct kvm_lapic_state *s)
{
    return kvm_ioctl_p(kv->fd, KVM_GET_LAPIC, s) >= 0;
}

/* ---- interrupts of the 8259s, for KVM ---- */

bool kvm_intr_pending(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_lapic_state s;

    if (!kvm_lapic_in_kernel(vm))
        return core_intr_pending(kv->vcpu);
    return vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT && irqchip_pic_intr(vm->irqchip) &&
           get_lapic(kv, &s) && lint0_open(kv, &s);
}

int kvm_intr_ack(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;

    return kvm_lapic_in_kernel(vm) ? irqchip_pic_ack(vm->irqchip) : core_intr_ack(kv->vcpu);
}

/* ---- interrupts for the software CPU ---- */

/* An EOI of the IOAPIC that came out: in or out of guest state. */
static void pass_eoi(struct kvm_vcpu *kv, const struct kvm_stub_call *call)
{
    struct vcpu *vcpu = kv->vcpu;

    if (!call->eoi)
        return;
    bool in_guest = atomic_load(&vcpu->in_guest);
    if (in_guest)
        core_guest_leave(vcpu);
    kvm_irq_eoi_exit(vcpu->vm, call->eoi_vector);
    if (in_guest)
        core_guest_enter(vcpu);
}

/* Has KVM look at its timers, and tell of EOIs. */
static void look(struct kvm_vcpu *kv)
{
    struct kvm_stub_call call = {.program = KVM_STUB_PAUSE};

    kvm_irq_of(kv->vcpu->vm)->looked[kv->vcpu->id] = os_now();
    if (!kvm_stub_run(kv, &call))
        pass_eoi(kv, &call);
}

/* NMIs come with it too, which do not wait for RFLAGS.IF. */
static void look_now_and_then(struct kvm_vcpu *kv)
{
    if (os_now() - kvm_irq_of(kv->vcpu->vm)->looked[kv->vcpu->id] > LOOK_INTERVAL)
        look(kv);
}

static bool pending(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;
    struct kvm_lapic_state s;

    look_now_and_then(kv);
    if (!get_lapic(kv, &s))
        return false;
    if ((kv->apic_base & APIC_BASE_ENABLE) && deliverable(kv, &s))
        return true;
    if (!lint0_open(kv, &s))
        return false;
    return vm->irqchip ? irqchip_pic_intr(vm->irqchip) : kernel_pic_intr(vm);
}

/* As env_intr of the interp engine. */
static bool soft_intr(void *ctx)
{
    struct kvm_vcpu *kv = kv_of(ctx);
    struct x86_cpu *cpu = kv->soft.cpu;

    if (kv->vcpu->irq_window_wanted) {
        kv->vcpu->irq_window_wanted = false;
        cpu->exit_reason = VMM_EXIT_IRQ_WINDOW;
        cpu->stop = X86_STOP_EXIT;
        return false;
    }
    return pending(kv);
}

static int soft_intr_ack(void *ctx)
{
    struct kvm_vcpu *kv = kv_of(ctx);
    struct kvm_stub_call call = {.program = KVM_STUB_PAUSE, .interrupts = true};

    if (kv->vcpu->vm->irqchip && kvm_intr_pending(kv))
        return kvm_intr_ack(kv);
    if (kvm_stub_run(kv, &call))
        return -1;
    pass_eoi(kv, &call);
    return call.vector;
}

/* ---- MSRs ---- */

/* SDM Vol. 3A figure 11-27: as write_base of the library's local APIC. */
static bool base_legal(struct kvm_vcpu *kv, uint64_t value)
{
    const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
    uint64_t from = kv->apic_base & mode, to = value & mode;

    if ((value & 0x2ff) || value >> kv->vcpu->vm->caps.gpa_bits || to == APIC_BASE_X2APIC)
        return false;
    if (from == mode)
        return to == mode || to == 0;
    return from != 0 || to != mode;
}

static int write_msr(struct kvm_vcpu *kv, uint32_t index, uint64_t value)
{
    if (index == MSR_APIC_BASE && !base_legal(kv, value))
        return CORE_IO_GP;
    if (kvm_lapic_set_msr(kv, index, value))
        return CORE_IO_GP;
    if (index == MSR_X2APIC_EOI)
        look(kv);
    return CORE_IO_OK;
}

static int soft_msr(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    struct kvm_vcpu *kv = kv_of(ctx);
    int r = core_msr_access(kv->vcpu, x86_serial(kv->soft.cpu), index, write, value, handled);

    if (r != CORE_IO_OK || *handled || !kvm_lapic_has_msr(kv->vcpu->vm, index))
        return r;
    *handled = true;
    if (write)
        return write_msr(kv, index, *value);
    return kvm_lapic_get_msr(kv, index, value) ? CORE_IO_GP : CORE_IO_OK;
}

static void soft_poll(void *ctx)
{
    struct kvm_vcpu *kv = kv_of(ctx);

    kvm_irq_of(kv->vcpu->vm)->poll(ctx);
    look_now_and_then(kv);
}

void kvm_irq_vcpu_init(struct kvm_vcpu *kv)
{
    struct x86_env *env = &kv->soft.env;

    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        return;
    kvm_irq_of(kv->vcpu->vm)->poll = env->poll;
    env->poll = soft_poll;
    env->intr = soft_intr;
    env->calm = NULL; /* the kernel's controllers do not ask for attention */
    env->intr_ack = soft_intr_ack;
    env->msr = soft_msr;
}

/* ---- memory and ports ---- */

/* KVM itself answers for its controllers while it runs guest code, so what comes here is the
 * software CPU's, or for a local APIC that is switched off. Out of guest state. */
static int access_kernel(struct vm *vm, enum kvm_stub_program program, uint64_t addr,
                         uint64_t *value)
{
    struct vcpu *vcpu = vcpu_current(vm);
    struct kvm_stub_call call = {
        .program = program, .addr = (uint32_t)addr, .value = (uint32_t)*value};

    if (!vcpu)
        return VMM_IO_NOBODY;
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    if (kv->pending != KVM_PEND_NONE)
        return VMM_IO_NOBODY;
    core_guest_enter(vcpu);
    int err = kvm_stub_run(kv, &call);
    core_guest_leave(vcpu);
    if (err || call.nobody)
        return VMM_IO_NOBODY;
    pass_eoi(kv, &call);
    *value = call.value;
    return VMM_IO_OK;
}

static enum kvm_stub_program sized(enum kvm_stub_program first, uint32_t size)
{
    return (enum kvm_stub_program)(first + (size == 4 ? 2 : size - 1));
}

struct window {
    uint64_t base;
    uint32_t len;
    bool port;
};

static const struct window windows[] = {
    {0xfee00000, 0x1000, false}, /* local APIC */
    {0xfec00000, 0x1000, false}, /* the rest is VMM_IRQCHIP_MODE_KERNEL's: IOAPIC, 8259s, ELCR */
    {0x20, 2, true},
    {0xa0, 2, true},
    {0x4d0, 2, true},
};
#define NWINDOWS (sizeof(windows) / sizeof(windows[0]))

static uint64_t mask(uint32_t size)
{
    return (1ull << size * 8) - 1;
}

static int window_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct kvm_irq_window *w = opaque;
    uint64_t v = 0;
    int r = access_kernel(w->vm, sized(w->port ? KVM_STUB_IN8 : KVM_STUB_READ8, size),
                          w->base + offset, &v);

    *value = v & mask(size);
    return r;
}

static int window_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct kvm_irq_window *w = opaque;

    return access_kernel(w->vm, sized(w->port ? KVM_STUB_OUT8 : KVM_STUB_WRITE8, size),
                         w->base + offset, &value);
}

int kvm_irq_soft_init(struct vm *vm)
{
    static const struct vmm_io_ops ops = {
        .size = sizeof(ops),
        .max_access = 4,
        .name = "kernel-irqchip",
        .read = window_read,
        .write = window_write,
    };
    size_t n = vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL ? NWINDOWS : 1;
    int err = 0;

    _Static_assert(NWINDOWS <= KVM_IRQ_WINDOWS, "room");
    for (size_t i = 0; i < n && !err; i++) {
        struct kvm_irq_window *w = &kvm_irq_of(vm)->windows[i];

        *w = (struct kvm_irq_window){vm, windows[i].base, windows[i].port};
        err = w->port ? pio_register(vm, (uint16_t)w->base, windows[i].len, &ops, w, NULL)
                      : mmio_register(vm, w->base, windows[i].len, &ops, w, NULL);
    }
    return err;
}

/* ---- waiting ---- */

#define SIPI_INTERVAL 1000000u /* ns */

/* KVM would run the guest when SIPI comes, so it is only asked now and then. */
static int wait_sipi(struct kvm_vcpu *kv)
{
    struct vcpu *vcpu = kv->vcpu;
    uint32_t activity;
    uint64_t until = os_now() + SIPI_INTERVAL, timers;
    int r = kvm_irq_set_activity(kv, VMM_WAIT_SIPI);

    if (!r)
        r = kvm_irq_get_activity(kv, &activity);
    if (r)
        return r;
    if (activity != VMM_WAIT_SIPI) {
        kv->valid = kv->newer = kv->synced = 0;
        return 0;
    }
    timers = core_timers_begin(vcpu);
    core_guest_leave(vcpu);
    os_wait(&vcpu->requests, 0, timers < until ? timers : until);
    core_guest_enter(vcpu);
    core_timers_end(vcpu);
    return 0;
}

static void wake_up(struct kvm_vcpu *kv, int vector, bool nmi)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    cpu->activity = VMM_ACTIVE;
    if (vector >= 0)
        cpu->event = (struct x86_event){.valid = true,
                                        .type = nmi ? X86_EVENT_NMI : X86_EVENT_EXTERNAL,
                                        .vector = (uint8_t)vector};
    kvm_changed(kv, KVM_G_EVENTS);
}

int kvm_irq_wait(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_stub_call call = {.program = KVM_STUB_PAUSE, .halted = true};
    int r = kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS | KVM_G_DEBUG);

    if (r)
        return r;
    if (cpu->activity == VMM_WAIT_SIPI)
        return wait_sipi(kv);
    call.interrupts = cpu->rflags & X86_IF;
    if (cpu->event.valid || cpu->later.valid || cpu->pending_db ||
        (cpu->nmi_pending && !cpu->nmi_blocked)) {
        wake_up(kv, -1, false);
    } else if (call.interrupts && kv->vcpu->irq_window_wanted) {
        wake_up(kv, -1, false);
    } else if (call.interrupts && kvm_intr_pending(kv)) {
        wake_up(kv, kvm_intr_ack(kv), false);
    } else {
        r = kvm_stub_run(kv, &call);
        kvm_irq_of(kv->vcpu->vm)->activity[kv->vcpu->id] = KVM_ACTIVITY_UNKNOWN;
        if (!r)
            wake_up(kv, call.vector, call.nmi);
    }
    return 0;
}
