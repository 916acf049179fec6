/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/state_regs.c: moves general, segment and control registers, events and debug
 * registers between KVM and the software CPU. */
#include <string.h>

#include "backends/kvm/state.h"
#include "core/irqchip.h"
#include "core/x86/control.h"

_Static_assert(KVM_G_REGS == KVM_SYNC_X86_REGS && KVM_G_SREGS == KVM_SYNC_X86_SREGS &&
                   KVM_G_EVENTS == KVM_SYNC_X86_EVENTS,
               "groups are passed on as they are");

/* ---- general registers ---- */

/* kvm_regs orders them as rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8 ... */
#define FOR_GPRS(X)                                                                                \
    X(RAX, rax)                                                                                    \
    X(RCX, rcx)                                                                                    \
    X(RDX, rdx)                                                                                    \
    X(RBX, rbx)                                                                                    \
    X(RSP, rsp)                                                                                    \
    X(RBP, rbp)                                                                                    \
    X(RSI, rsi)                                                                                    \
    X(RDI, rdi)                                                                                    \
    X(R8, r8)                                                                                      \
    X(R9, r9)                                                                                      \
    X(R10, r10)                                                                                    \
    X(R11, r11)                                                                                    \
    X(R12, r12)                                                                                    \
    X(R13, r13)                                                                                    \
    X(R14, r14)                                                                                    \
    X(R15, r15)

static void take_regs(struct x86_cpu *cpu, const struct kvm_regs *k)
{
#define TAKE(name, field) cpu->gpr[VMM_##name] = k->field;
    FOR_GPRS(TAKE)
#undef TAKE
    cpu->rip = k->rip;
    x86_set_rflags(cpu, k->rflags);
}

static void give_regs(const struct x86_cpu *cpu, struct kvm_regs *k)
{
#define GIVE(name, field) k->field = cpu->gpr[VMM_##name];
    FOR_GPRS(GIVE)
#undef GIVE
    k->rip = cpu->rip;
    k->rflags = x86_get_rflags(cpu);
}

int kvm_pull_regs(struct kvm_vcpu *kv)
{
    struct kvm_regs regs;
    int r;

    if (kv->synced & KVM_G_REGS) {
        take_regs(kv->soft.cpu, &kv->run->s.regs.regs);
        return 0;
    }
    r = kvm_ioctl_p(kv->fd, KVM_GET_REGS, &regs);
    if (r >= 0)
        take_regs(kv->soft.cpu, &regs);
    return kvm_get_failed(kv, r, "KVM_GET_REGS");
}

int kvm_push_regs(struct kvm_vcpu *kv)
{
    struct kvm_regs regs;

    if (kvm_has_sync(kv)) {
        give_regs(kv->soft.cpu, &kv->run->s.regs.regs);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        return 0;
    }
    give_regs(kv->soft.cpu, &regs);
    return kvm_set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

/* ---- segments and control registers ---- */

static void take_segment(struct vmm_segment *s, const struct kvm_segment *k)
{
    s->base = k->base;
    s->limit = k->limit;
    s->selector = k->selector;
    s->ar = (k->type & 15u) | (uint32_t)(k->s & 1) << 4 | (uint32_t)(k->dpl & 3) << 5 |
            (uint32_t)(k->present & 1) << 7 | (uint32_t)(k->avl & 1) << 12 |
            (uint32_t)(k->l & 1) << 13 | (uint32_t)(k->db & 1) << 14 | (uint32_t)(k->g & 1) << 15;
    if (k->unusable)
        s->ar |= VMM_AR_UNUSABLE;
}

static void give_segment(const struct vmm_segment *s, struct kvm_segment *k)
{
    memset(k, 0, sizeof(*k));
    k->base = s->base;
    k->limit = s->limit;
    k->selector = s->selector;
    k->type = s->ar & VMM_AR_TYPE;
    k->s = s->ar >> 4 & 1;
    k->dpl = (s->ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
    k->present = s->ar >> 7 & 1;
    k->avl = s->ar >> 12 & 1;
    k->l = s->ar >> 13 & 1;
    k->db = s->ar >> 14 & 1;
    k->g = s->ar >> 15 & 1;
    k->unusable = s->ar >> 16 & 1;
}

void kvm_take_cr8(struct kvm_vcpu *kv, uint64_t cr8)
{
    if (cr8 != x86_read_cr8(kv->soft.cpu))
        x86_write_cr8(kv->soft.cpu, cr8);
}

static void take_sregs(struct kvm_vcpu *kv, const struct kvm_sregs *k)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    take_segment(&cpu->seg[VMM_ES], &k->es);
    take_segment(&cpu->seg[VMM_CS], &k->cs);
    take_segment(&cpu->seg[VMM_SS], &k->ss);
    take_segment(&cpu->seg[VMM_DS], &k->ds);
    take_segment(&cpu->seg[VMM_FS], &k->fs);
    take_segment(&cpu->seg[VMM_GS], &k->gs);
    take_segment(&cpu->seg[VMM_LDTR], &k->ldt);
    take_segment(&cpu->seg[VMM_TR], &k->tr);
    cpu->gdt.base = k->gdt.base;
    cpu->gdt.limit = k->gdt.limit;
    if (!kv->fenced) {
        cpu->idt.base = k->idt.base;
        cpu->idt.limit = k->idt.limit;
        cpu->cr2 = k->cr2;
    }
    cpu->cr0 = k->cr0;
    cpu->cr3 = k->cr3;
    cpu->cr4 = k->cr4;
    cpu->efer = k->efer;
    if (kvm_lapic_in_kernel(kv->vcpu->vm)) {
        kv->apic_base = k->apic_base;
        cpu->cr8 = k->cr8;
    }
}

/* Without a local APIC its enable bit is clear, from which CPUID follows. */
static uint64_t apic_base(struct kvm_vcpu *kv)
{
    struct lapic *lapic = core_vcpu_lapic(kv->vcpu);
    uint64_t value = 0;

    if (kvm_lapic_in_kernel(kv->vcpu->vm))
        return kv->apic_base;
    if (!lapic || lapic_read_msr(lapic, 0x1b, &value))
        return 0xfee00000;
    return value;
}

static void give_sregs(struct kvm_vcpu *kv, struct kvm_sregs *k)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    memset(k, 0, sizeof(*k));
    give_segment(&cpu->seg[VMM_ES], &k->es);
    give_segment(&cpu->seg[VMM_CS], &k->cs);
    give_segment(&cpu->seg[VMM_SS], &k->ss);
    give_segment(&cpu->seg[VMM_DS], &k->ds);
    give_segment(&cpu->seg[VMM_FS], &k->fs);
    give_segment(&cpu->seg[VMM_GS], &k->gs);
    give_segment(&cpu->seg[VMM_LDTR], &k->ldt);
    give_segment(&cpu->seg[VMM_TR], &k->tr);
    /* CPL is SS.DPL, also where SS is unusable. */
    if (!(cpu->rflags & X86_VM))
        k->ss.dpl = cpu->cpl;
    k->gdt.base = cpu->gdt.base;
    k->gdt.limit = cpu->gdt.limit;
    k->idt.base = cpu->idt.base;
    k->idt.limit = kv->fenced ? 0 : cpu->idt.limit;
    k->cr0 = cpu->cr0;
    k->cr2 = cpu->cr2;
    k->cr3 = cpu->cr3;
    k->cr4 = cpu->cr4;
    k->cr8 = x86_read_cr8(cpu);
    k->efer = cpu->efer;
    k->apic_base = apic_base(kv);
}

int kvm_pull_sregs(struct kvm_vcpu *kv)
{
    struct kvm_sregs sregs;
    int r;

    if (kv->synced & KVM_G_SREGS) {
        take_sregs(kv, &kv->run->s.regs.sregs);
        return 0;
    }
    r = kvm_ioctl_p(kv->fd, KVM_GET_SREGS, &sregs);
    if (r >= 0)
        take_sregs(kv, &sregs);
    return kvm_get_failed(kv, r, "KVM_GET_SREGS");
}

int kvm_push_sregs(struct kvm_vcpu *kv)
{
    struct kvm_sregs sregs;

    if (kvm_has_sync(kv)) {
        give_sregs(kv, &kv->run->s.regs.sregs);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
        return 0;
    }
    give_sregs(kv, &sregs);
    return kvm_set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
}

/* What the software CPU derives from these two groups. */
void kvm_derive(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;

    if (!(cpu->cr0 & X86_CR0_PE))
        cpu->cpl = 0;
    else if (cpu->rflags & X86_VM)
        cpu->cpl = 3;
    else
        cpu->cpl = (cpu->seg[VMM_SS].ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
    x86_mode_loaded(cpu);
}

/* ---- events ---- */

#define SHADOW_MOV_SS 1u /* KVM_X86_SHADOW_INT_MOV_SS */
#define SHADOW_STI    2u

/* AMD has one shadow, which KVM reports as both; a VM entry accepts one. */
static uint8_t shadow_of(const struct x86_cpu *cpu, uint8_t shadow)
{
    if ((shadow & SHADOW_STI) && (cpu->rflags & X86_IF))
        return VMM_SHADOW_STI;
    return shadow ? VMM_SHADOW_MOV_SS : 0;
}

static void take_events(struct kvm_vcpu *kv, const struct kvm_vcpu_events *k)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct x86_event *e = &cpu->event;

    *e = (struct x86_event){0};
    kv->has_payload = k->flags & KVM_VCPUEVENT_VALID_PAYLOAD;
    if (k->exception.injected || k->exception.pending) {
        e->valid = true;
        e->type = X86_EVENT_EXCEPTION;
        e->vector = k->exception.nr;
        e->has_error = k->exception.has_error_code;
        e->error = k->exception.has_error_code ? k->exception.error_code : 0;
        if (kv->has_payload && k->exception.pending && k->exception_has_payload &&
            e->vector == X86_PF_) {
            e->has_cr2 = true;
            e->cr2 = k->exception_payload;
        }
    } else if (k->nmi.injected) {
        e->valid = true;
        e->type = X86_EVENT_NMI;
        e->vector = X86_NMI;
    } else if (k->interrupt.injected && !k->interrupt.soft) {
        e->valid = true;
        e->type = X86_EVENT_EXTERNAL;
        e->vector = k->interrupt.nr;
    }
    cpu->nmi_pending = k->nmi.pending;
    kv->nmi_in_kvm = k->nmi.pending;
    cpu->nmi_blocked = k->nmi.masked;
    cpu->shadow = shadow_of(cpu, k->interrupt.shadow);
}

static void give_events(struct kvm_vcpu *kv, struct kvm_vcpu_events *k)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    const struct x86_event *e = &cpu->event;

    memset(k, 0, sizeof(*k));
    k->flags = KVM_VCPUEVENT_VALID_SHADOW;
    /* Where nothing has changed, an NMI that came to a local APIC in the kernel must not be lost.
     */
    if (cpu->nmi_pending != kv->nmi_in_kvm || !kvm_lapic_in_kernel(kv->vcpu->vm))
        k->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
    kv->nmi_in_kvm = cpu->nmi_pending;
    if (kv->fenced) {
        /* No event has these numbers: one that comes up against the fence leaves its own. */
        k->exception.nr = KVM_NO_EVENT;
        k->interrupt.nr = KVM_NO_EVENT;
    }
    if (e->valid && e->type == X86_EVENT_EXCEPTION) {
        k->exception.injected = 1;
        k->exception.nr = e->vector;
        k->exception.has_error_code = e->has_error;
        k->exception.error_code = e->has_error ? e->error : 0;
        if (e->has_cr2) {
            k->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
            k->exception.injected = 0;
            k->exception.pending = 1;
            k->exception_has_payload = 1;
            k->exception_payload = e->cr2;
        }
    } else if (e->valid && e->type == X86_EVENT_NMI) {
        k->nmi.injected = 1;
    } else if (e->valid && e->type == X86_EVENT_EXTERNAL) {
        k->interrupt.injected = 1;
        k->interrupt.nr = e->vector;
    }
    k->nmi.pending = cpu->nmi_pending;
    k->nmi.masked = cpu->nmi_blocked;
    if (cpu->shadow & VMM_SHADOW_STI)
        k->interrupt.shadow = SHADOW_STI;
    else if (cpu->shadow)
        k->interrupt.shadow = SHADOW_MOV_SS;
}

int kvm_get_events(struct kvm_vcpu *kv, struct kvm_vcpu_events *events)
{
    if (kv->synced & KVM_G_EVENTS) {
        *events = kv->run->s.regs.events;
        return 0;
    }
    return kvm_get_failed(kv, kvm_ioctl_p(kv->fd, KVM_GET_VCPU_EVENTS, events),
                          "KVM_GET_VCPU_EVENTS");
}

/* A #DB that has not been delivered yet has not written DR6 either. */
static int take_payload(struct kvm_vcpu *kv, const struct kvm_vcpu_events *k)
{
    int r;

    if (!kv->has_payload || !k->exception.pending || !k->exception_has_payload ||
        k->exception.nr != X86_DB)
        return 0;
    r = kv->valid & KVM_G_DEBUG ? 0 : kvm_pull_debug(kv);
    if (r)
        return r;
    x86_raise_db(kv->soft.cpu, k->exception_payload);
    kv->valid |= KVM_G_DEBUG;
    kvm_changed(kv, KVM_G_DEBUG | KVM_G_EVENTS);
    return 0;
}

int kvm_pull_events(struct kvm_vcpu *kv)
{
    struct kvm_vcpu_events events;
    uint32_t activity;
    int r = kvm_get_events(kv, &events);

    if (r)
        return r;
    take_events(kv, &events);
    /* Without payloads KVM writes CR2 when it tells of the exception: after it has shown the other
     * groups. */
    if (kv->soft.cpu->event.valid && kv->soft.cpu->event.type == X86_EVENT_EXCEPTION)
        kv->synced &= ~KVM_G_SREGS;
    r = take_payload(kv, &events);
    if (r)
        return r;
    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        return 0;
    r = kvm_irq_get_activity(kv, &activity);
    if (!r)
        kv->soft.cpu->activity = (uint8_t)activity;
    return r;
}

int kvm_push_events(struct kvm_vcpu *kv)
{
    struct kvm_vcpu_events events;
    int r;

    if (kvm_lapic_in_kernel(kv->vcpu->vm)) {
        r = kvm_irq_set_activity(kv, kv->soft.cpu->activity);
        if (r)
            return r;
    }
    if (kvm_has_sync(kv)) {
        give_events(kv, &kv->run->s.regs.events);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
        return 0;
    }
    give_events(kv, &events);
    return kvm_set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_VCPU_EVENTS, &events),
                          "KVM_SET_VCPU_EVENTS");
}

/* ---- debug registers ---- */

int kvm_pull_debug(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_debugregs k;
    int r = kvm_ioctl_p(kv->fd, KVM_GET_DEBUGREGS, &k);

    if (r < 0)
        return kvm_get_failed(kv, r, "KVM_GET_DEBUGREGS");
    for (unsigned i = 0; i < 4; i++)
        cpu->dr.addr[i] = k.db[i];
    cpu->dr.dr6 = (k.dr6 & X86_DR6_WRITE) | X86_DR6_FIXED;
    cpu->dr.dr7 = (k.dr7 & X86_DR7_WRITE) | X86_DR7_FIXED;
    return 0;
}

int kvm_push_debug(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_debugregs k = {.dr6 = cpu->dr.dr6, .dr7 = cpu->dr.dr7};

    for (unsigned i = 0; i < 4; i++)
        k.db[i] = cpu->dr.addr[i];
    return kvm_set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_DEBUGREGS, &k), "KVM_SET_DEBUGREGS");
}
