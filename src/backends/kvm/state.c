/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/state.c: moves registers between KVM and the software CPU, group by group. */
#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>

#include "backends/kvm/kvm.h"
#include "core/irqchip.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"

/* ---- groups in kvm_run's shared area ---- */

#define SYNC_GROUPS (KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS)
_Static_assert(KVM_G_REGS == KVM_SYNC_X86_REGS && KVM_G_SREGS == KVM_SYNC_X86_SREGS &&
                   KVM_G_EVENTS == KVM_SYNC_X86_EVENTS,
               "groups are passed on as they are");

static bool has_sync(const struct kvm_vcpu *kv)
{
    return kv->host->has & KVM_HAS_SYNC_REGS;
}

static int get_failed(struct kvm_vcpu *kv, int r, const char *what)
{
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_get_regs", r, what) : 0;
}

static int set_failed(struct kvm_vcpu *kv, int r, const char *what)
{
    return r < 0 ? kvm_fail(kv->vcpu->vm, "vcpu_run", r, what) : 0;
}

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

static int pull_regs(struct kvm_vcpu *kv)
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
    return get_failed(kv, r, "KVM_GET_REGS");
}

static int push_regs(struct kvm_vcpu *kv)
{
    struct kvm_regs regs;

    if (has_sync(kv)) {
        give_regs(kv->soft.cpu, &kv->run->s.regs.regs);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        return 0;
    }
    give_regs(kv->soft.cpu, &regs);
    return set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
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

static void take_cr8(struct kvm_vcpu *kv, uint64_t cr8)
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

static int pull_sregs(struct kvm_vcpu *kv)
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
    return get_failed(kv, r, "KVM_GET_SREGS");
}

static int push_sregs(struct kvm_vcpu *kv)
{
    struct kvm_sregs sregs;

    if (has_sync(kv)) {
        give_sregs(kv, &kv->run->s.regs.sregs);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
        return 0;
    }
    give_sregs(kv, &sregs);
    return set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
}

/* What the software CPU derives from these two groups. */
static void derive(struct kvm_vcpu *kv)
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
    return get_failed(kv, kvm_ioctl_p(kv->fd, KVM_GET_VCPU_EVENTS, events), "KVM_GET_VCPU_EVENTS");
}

static int pull_debug(struct kvm_vcpu *kv);

/* A #DB that has not been delivered yet has not written DR6 either. */
static int take_payload(struct kvm_vcpu *kv, const struct kvm_vcpu_events *k)
{
    int r;

    if (!kv->has_payload || !k->exception.pending || !k->exception_has_payload ||
        k->exception.nr != X86_DB)
        return 0;
    r = kv->valid & KVM_G_DEBUG ? 0 : pull_debug(kv);
    if (r)
        return r;
    x86_raise_db(kv->soft.cpu, k->exception_payload);
    kv->valid |= KVM_G_DEBUG;
    kvm_changed(kv, KVM_G_DEBUG | KVM_G_EVENTS);
    return 0;
}

static int pull_events(struct kvm_vcpu *kv)
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

static int push_events(struct kvm_vcpu *kv)
{
    struct kvm_vcpu_events events;
    int r;

    if (kvm_lapic_in_kernel(kv->vcpu->vm)) {
        r = kvm_irq_set_activity(kv, kv->soft.cpu->activity);
        if (r)
            return r;
    }
    if (has_sync(kv)) {
        give_events(kv, &kv->run->s.regs.events);
        kv->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
        return 0;
    }
    give_events(kv, &events);
    return set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_VCPU_EVENTS, &events), "KVM_SET_VCPU_EVENTS");
}

/* ---- debug registers ---- */

static int pull_debug(struct kvm_vcpu *kv)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_debugregs k;
    int r = kvm_ioctl_p(kv->fd, KVM_GET_DEBUGREGS, &k);

    if (r < 0)
        return get_failed(kv, r, "KVM_GET_DEBUGREGS");
    for (unsigned i = 0; i < 4; i++)
        cpu->dr.addr[i] = k.db[i];
    cpu->dr.dr6 = (k.dr6 & X86_DR6_WRITE) | X86_DR6_FIXED;
    cpu->dr.dr7 = (k.dr7 & X86_DR7_WRITE) | X86_DR7_FIXED;
    return 0;
}

static int push_debug(struct kvm_vcpu *kv)
{
    const struct x86_cpu *cpu = kv->soft.cpu;
    struct kvm_debugregs k = {.dr6 = cpu->dr.dr6, .dr7 = cpu->dr.dr7};

    for (unsigned i = 0; i < 4; i++)
        k.db[i] = cpu->dr.addr[i];
    return set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_DEBUGREGS, &k), "KVM_SET_DEBUGREGS");
}

/* ---- MSRs ---- */

/* Those that the guest changes without an exit, or that KVM itself uses. */
static const struct {
    uint32_t index;
    size_t field;
} msrs[] = {
#define MSR(index, field)                                                                          \
    {                                                                                              \
        index, offsetof(struct x86_cpu, field)                                                     \
    }
    MSR(0xc0000081, star),    MSR(0xc0000082, lstar),          MSR(0xc0000083, cstar),
    MSR(0xc0000084, sfmask),  MSR(0xc0000102, kernel_gs_base), MSR(0x174, sysenter_cs),
    MSR(0x175, sysenter_esp), MSR(0x176, sysenter_eip),        MSR(0x140, misc_features),
    MSR(0x277, pat),          MSR(0xc0000103, tsc_aux),        MSR(0x48, spec_ctrl),
#undef MSR
};
#define NMSRS (sizeof(msrs) / sizeof(msrs[0]))
_Static_assert(NMSRS <= 32, "bits of msr_absent");

#define MSR_LSTAR  0xc0000082u
#define MSR_CSTAR  0xc0000083u
#define MSR_SFMASK 0xc0000084u

/* struct kvm_msrs with room for all. */
struct msr_list {
    struct {
        uint32_t nmsrs, pad;
    } head;
    struct kvm_msr_entry e[NMSRS];
};
_Static_assert(offsetof(struct msr_list, e) == sizeof(struct kvm_msrs), "KVM's layout");

static uint64_t *msr_field(struct kvm_vcpu *kv, unsigned i)
{
    return (uint64_t *)(void *)((uint8_t *)kv->soft.cpu + msrs[i].field);
}

void kvm_msrs_changed(struct kvm_vcpu *kv)
{
    kv->msr_absent = 0;
}

/* The MSRs from number `first` on that KVM has. */
static void list_msrs(struct kvm_vcpu *kv, struct msr_list *list, uint8_t number[NMSRS],
                      unsigned first)
{
    memset(list, 0, sizeof(*list));
    for (unsigned i = first; i < NMSRS; i++) {
        if (kv->msr_absent >> i & 1)
            continue;
        number[list->head.nmsrs] = (uint8_t)i;
        list->e[list->head.nmsrs].index = msrs[i].index;
        list->e[list->head.nmsrs].data = *msr_field(kv, i);
        list->head.nmsrs++;
    }
}

/* While fenced, SYSCALL jumps where the software CPU recognises it, with RFLAGS unchanged. */
static void fence_msrs(struct msr_list *list)
{
    for (unsigned i = 0; i < list->head.nmsrs; i++)
        switch (list->e[i].index) {
        case MSR_LSTAR:
        case MSR_CSTAR:
            list->e[i].data = KVM_FENCE_RIP;
            break;
        case MSR_SFMASK:
            list->e[i].data = 0;
            break;
        default:
            break;
        }
}

static bool fence_has(uint32_t index)
{
    return index == MSR_LSTAR || index == MSR_CSTAR || index == MSR_SFMASK;
}

/* KVM stops at the first MSR that it does not have, with this vCPU's CPUID. */
static int move_msrs(struct kvm_vcpu *kv, bool push)
{
    struct msr_list list;
    uint8_t number[NMSRS];
    unsigned first = 0;

    for (;;) {
        list_msrs(kv, &list, number, first);
        if (!list.head.nmsrs)
            return 0;
        if (push && kv->fenced)
            fence_msrs(&list);
        int r = kvm_ioctl_p(kv->fd, push ? KVM_SET_MSRS : KVM_GET_MSRS, &list);
        if (r < 0)
            return push ? set_failed(kv, r, "KVM_SET_MSRS") : get_failed(kv, r, "KVM_GET_MSRS");
        for (int i = 0; i < r && !push; i++)
            if (!kv->fenced || !fence_has(list.e[i].index))
                *msr_field(kv, number[i]) = list.e[i].data;
        if ((unsigned)r >= list.head.nmsrs)
            return 0;
        kv->msr_absent |= 1u << number[r];
        first = number[r] + 1u;
    }
}

/* ---- x87, vector state, XCR0 ---- */

/* Where the components are in this host's areas: AMD's are not where Intel's are. */
static struct {
    uint32_t offset, size;
} layout[X86_XC_N];
static pthread_once_t layout_once = PTHREAD_ONCE_INIT;

static void find_layout(void)
{
    for (unsigned i = 2; i < X86_XC_N; i++) {
        uint32_t a, b, c, d;

        if (x86_xcomp[i].size && __get_cpuid_count(0xd, i, &a, &b, &c, &d) &&
            a == x86_xcomp[i].size) {
            layout[i].offset = b;
            layout[i].size = a;
        }
    }
}

/* Copies components 2 and up, in one direction. */
static void move_components(uint8_t *own, uint8_t *host, bool to_host)
{
    uint32_t host_size = kvm_host()->xsave_size;

    for (unsigned i = 2; i < X86_XC_N; i++) {
        uint8_t *a = own + x86_xcomp[i].offset, *b = host + layout[i].offset;

        if (!layout[i].size || layout[i].offset + layout[i].size > host_size)
            continue;
        if (to_host)
            memcpy(b, a, layout[i].size);
        else
            memcpy(a, b, layout[i].size);
    }
}

#define LEGACY_AND_HEADER (X86_XSAVE_LEGACY + X86_XSAVE_HEADER)
#define XSTATE_BV         512

static int pull_xsave(struct kvm_vcpu *kv)
{
    bool two = kv->host->has & KVM_HAS_XSAVE2;
    uint8_t *host = (uint8_t *)kv->xsave, own[X86_XSAVE_MAX] = {0};
    struct x86_cpu *cpu = kv->soft.cpu;
    uint64_t bv;
    int r = kvm_ioctl_p(kv->fd, two ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, kv->xsave);

    if (r < 0)
        return get_failed(kv, r, "KVM_GET_XSAVE");
    pthread_once(&layout_once, find_layout);
    memcpy(own, host, X86_XSAVE_LEGACY);
    memcpy(&bv, host + XSTATE_BV, sizeof(bv));
    /* Components that the guest does not have are not its state. */
    bv &= cpu->feat.xcr0_mask;
    memcpy(own + XSTATE_BV, &bv, sizeof(bv));
    move_components(own, host, false);
    x86_set_xsave(cpu, own, sizeof(own));
    return 0;
}

static int push_xsave(struct kvm_vcpu *kv)
{
    uint8_t *host = (uint8_t *)kv->xsave, own[X86_XSAVE_MAX];
    uint64_t bv;

    pthread_once(&layout_once, find_layout);
    x86_get_xsave(kv->soft.cpu, own, sizeof(own));
    memset(host, 0, kvm_host()->xsave_size);
    memcpy(host, own, X86_XSAVE_LEGACY);
    memcpy(&bv, own + XSTATE_BV, sizeof(bv));
    /* MXCSR comes with the component, which may be in its initial state. */
    bv |= X86_XCR0_X87 | X86_XCR0_SSE;
    memcpy(host + XSTATE_BV, &bv, sizeof(bv));
    move_components(own, host, true);
    return set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_XSAVE, kv->xsave), "KVM_SET_XSAVE");
}

static int pull_xcr(struct kvm_vcpu *kv)
{
    struct kvm_xcrs k = {0};
    int r;

    if (!(kv->host->has & KVM_HAS_XCRS))
        return 0;
    r = kvm_ioctl_p(kv->fd, KVM_GET_XCRS, &k);
    for (uint32_t i = 0; r >= 0 && i < k.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (k.xcrs[i].xcr == 0)
            kv->soft.cpu->xcr0 = kv->xcr0 = k.xcrs[i].value;
    return get_failed(kv, r, "KVM_GET_XCRS");
}

static int push_xcr(struct kvm_vcpu *kv)
{
    struct kvm_xcrs k = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = kv->soft.cpu->xcr0}};
    int r;

    if (!(kv->host->has & KVM_HAS_XCRS) || kv->xcr0 == kv->soft.cpu->xcr0)
        return 0;
    r = kvm_ioctl_p(kv->fd, KVM_SET_XCRS, &k);
    if (r >= 0)
        kv->xcr0 = kv->soft.cpu->xcr0;
    return set_failed(kv, r, "KVM_SET_XCRS");
}

/* ---- completion ---- */

/* After KVM has run: what is in kvm_run's shared area is all that is known. */
void kvm_state_ran(struct kvm_vcpu *kv, bool complete)
{
    kv->valid = kv->newer = 0;
    kv->synced = complete && has_sync(kv) ? (uint32_t)kv->run->kvm_valid_regs & SYNC_GROUPS : 0;
    kv->fresh_soft = true;
    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        take_cr8(kv, kv->run->cr8);
}

/* KVM_RUN that runs nothing but the rest of an instruction. 0 or a negative errno. */
static int run_rest(struct kvm_vcpu *kv)
{
    int r;

    if (!kvm_lapic_in_kernel(kv->vcpu->vm))
        kv->run->cr8 = x86_read_cr8(kv->soft.cpu);
    __atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    r = ioctl(kv->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    kv->pending = KVM_PEND_NONE;
    kvm_state_ran(kv, r == 0 || r == -EINTR);
    if (r == 0 && !kvm_access_begin(kv))
        return -EPROTO;
    return r == -EINTR ? 0 : r;
}

/*
 * Registers that were set meanwhile: KVM would lose the instruction's result if it got them before
 * it completes the instruction. They follow, but for what the instruction writes.
 */
static int set_after(struct kvm_vcpu *kv, const uint64_t gpr[16], uint64_t rflags)
{
    struct x86_cpu *cpu = kv->soft.cpu;
    int r = pull_regs(kv);

    if (r)
        return r;
    for (unsigned i = 0; i < 16; i++)
        if (!(kv->insn_writes >> i & 1))
            cpu->gpr[i] = gpr[i];
    if (kv->insn_writes & KVM_WRITES_FLAGS)
        rflags = (rflags & ~(uint64_t)X86_ARITH) | (x86_get_rflags(cpu) & X86_ARITH);
    x86_set_rflags(cpu, rflags);
    kv->valid |= KVM_G_REGS;
    kvm_changed(kv, KVM_G_REGS);
    return 0;
}

int kvm_complete(struct kvm_vcpu *kv)
{
    int r;

    if (kv->pending != KVM_PEND_COMPLETE)
        return 0;
    uint64_t gpr[16], rflags = x86_get_rflags(kv->soft.cpu);
    bool set = kv->regs_set;

    memcpy(gpr, kv->soft.cpu->gpr, sizeof(gpr));
    kv->regs_set = false;
    r = kvm_push(kv);
    if (r)
        return r;
    r = run_rest(kv);
    if (r < 0)
        return kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_RUN");
    return set ? set_after(kv, gpr, rflags) : 0;
}

#define MAX_REST 64 /* accesses of one instruction */

void kvm_drop(struct kvm_vcpu *kv)
{
    for (int i = 0; kv->pending != KVM_PEND_NONE && i < MAX_REST; i++) {
        if (kv->pending == KVM_PEND_ACCESS)
            kvm_access_zero(kv);
        if (run_rest(kv) < 0)
            break;
    }
    kv->pending = KVM_PEND_NONE;
    kv->regs_set = false;
}

/* ---- all groups ---- */

static int pull_msrs(struct kvm_vcpu *kv)
{
    return move_msrs(kv, false);
}

static int push_msrs(struct kvm_vcpu *kv)
{
    return move_msrs(kv, true);
}

/* In the order of both directions: EVENTS makes KVM write CR2 and DR6; XCR0 decides what KVM keeps
 * of XSAVE. */
static const struct {
    uint32_t group;
    int (*pull)(struct kvm_vcpu *kv);
    int (*push)(struct kvm_vcpu *kv);
} table[] = {
    {KVM_G_REGS, pull_regs, push_regs},    {KVM_G_EVENTS, pull_events, push_events},
    {KVM_G_SREGS, pull_sregs, push_sregs}, {KVM_G_DEBUG, pull_debug, push_debug},
    {KVM_G_MSRS, pull_msrs, push_msrs},    {KVM_G_XCR, pull_xcr, push_xcr},
    {KVM_G_XSAVE, pull_xsave, push_xsave},
};
#define NTABLE (sizeof(table) / sizeof(table[0]))

int kvm_pull(struct kvm_vcpu *kv, uint32_t groups)
{
    int r;

    /* What the groups mean depends on the mode, which is in these two; CR2 comes with EVENTS. */
    groups |= KVM_G_REGS | KVM_G_SREGS;
    r = kvm_complete(kv);
    if (r)
        return r;
    kv->wanted |= groups;
    groups &= ~kv->valid;
    if (!groups)
        return 0;
    if (groups & (KVM_G_SREGS | KVM_G_DEBUG))
        groups |= KVM_G_EVENTS & ~kv->valid;
    for (size_t i = 0; i < NTABLE; i++) {
        if (!(groups & ~kv->valid & table[i].group))
            continue;
        r = table[i].pull(kv);
        if (r)
            return r;
        kv->valid |= table[i].group;
    }
    if (groups & (KVM_G_REGS | KVM_G_SREGS)) {
        derive(kv);
        kvm_undo_fenced(kv);
    }
    if (groups & KVM_G_DEBUG)
        x86_breakpoints_changed(kv->soft.cpu);
    return 0;
}

int kvm_push(struct kvm_vcpu *kv)
{
    for (size_t i = 0; i < NTABLE && kv->newer; i++) {
        if (!(kv->newer & table[i].group))
            continue;
        int r = table[i].push(kv);
        if (r)
            return r;
        kv->newer &= ~table[i].group;
    }
    return 0;
}

/* ---- for the program ---- */

static uint32_t groups_of(uint32_t regs_groups)
{
    uint32_t groups = 0;

    if (regs_groups & VMM_REGS_GPR)
        groups |= KVM_G_REGS;
    if (regs_groups & (VMM_REGS_SEG | VMM_REGS_DT | VMM_REGS_CONTROL))
        groups |= KVM_G_SREGS;
    if (regs_groups & VMM_REGS_CONTROL)
        groups |= KVM_G_XCR;
    if (regs_groups & VMM_REGS_DEBUG)
        groups |= KVM_G_DEBUG;
    if (regs_groups & VMM_REGS_MSR)
        groups |= KVM_G_MSRS;
    if (regs_groups & VMM_REGS_EVENTS)
        groups |= KVM_G_EVENTS;
    return groups;
}

int kvm_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    int err = kvm_pull(kv, groups_of(regs->groups));

    if (err)
        return err;
    interp_get_regs(vcpu, regs);
    /* KVM may be past the instruction already. */
    if ((regs->groups & VMM_REGS_GPR) && kv->pending == KVM_PEND_ACCESS) {
        err = kvm_find_insn(kv);
        if (err)
            return err;
        regs->rip = kv->insn_rip;
    }
    if (kvm_lapic_in_kernel(vcpu->vm))
        regs->apic_base = kv->apic_base;
    return 0;
}

/* Another RIP while KVM's instruction waits for its access: it is not executed any more. */
static int move_away(struct kvm_vcpu *kv)
{
    if (kv->in_callback)
        return vm_fail(kv->vcpu->vm, VMM_E_STATE, "vcpu_set_regs",
                       "a callback cannot move RIP: its instruction is not over");
    int err = kvm_pull(kv, KVM_G_ALL);
    if (err)
        return err;
    kvm_drop(kv);
    kv->valid = kv->newer = KVM_G_ALL;
    return 0;
}

int kvm_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    struct x86_cpu *cpu = kv->soft.cpu;
    uint32_t groups = groups_of(regs->groups);
    struct vcpu_regs own = *regs;
    struct x86_event old;

    /* The checks look at all that decides about the mode. */
    int err = kvm_pull(kv, groups | KVM_G_EVENTS | KVM_G_XCR);
    if (err)
        return err;
    bool waits = kv->pending == KVM_PEND_ACCESS && (regs->groups & VMM_REGS_GPR);
    if (waits) {
        err = kvm_find_insn(kv);
        if (!err && regs->rip != kv->insn_rip) {
            err = move_away(kv);
            waits = false;
        }
        if (err)
            return err;
        if (waits)
            own.rip = cpu->rip;
    }
    old = cpu->event;
    err = interp_set_regs(vcpu, &own);
    if (err)
        return err;
    if (waits) {
        kv->regs_set = true;
        groups &= ~KVM_G_REGS;
    }
    if ((regs->groups & VMM_REGS_EVENTS) && kv->pending != KVM_PEND_NONE) {
        /* What is injected here comes behind the instruction that waits. */
        cpu->later = cpu->event;
        cpu->event = old;
    }
    if ((regs->groups & VMM_REGS_CONTROL) && kvm_lapic_in_kernel(vcpu->vm))
        kv->apic_base = regs->apic_base;
    kvm_changed(kv, groups);
    return 0;
}
