/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/state_ext.c: moves MSRs, x87 and vector state between KVM and the software CPU. */
#include <cpuid.h>
#include <pthread.h>
#include <string.h>

#include "backends/kvm/state.h"
#include "core/x86/control.h"
#include "core/x86/xstate.h"

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
            return push ? kvm_set_failed(kv, r, "KVM_SET_MSRS")
                        : kvm_get_failed(kv, r, "KVM_GET_MSRS");
        for (int i = 0; i < r && !push; i++)
            if (!kv->fenced || !fence_has(list.e[i].index))
                *msr_field(kv, number[i]) = list.e[i].data;
        if ((unsigned)r >= list.head.nmsrs)
            return 0;
        kv->msr_absent |= 1u << number[r];
        first = number[r] + 1u;
    }
}

int kvm_pull_msrs(struct kvm_vcpu *kv)
{
    return move_msrs(kv, false);
}

int kvm_push_msrs(struct kvm_vcpu *kv)
{
    return move_msrs(kv, true);
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

int kvm_pull_xsave(struct kvm_vcpu *kv)
{
    bool two = kv->host->has & KVM_HAS_XSAVE2;
    uint8_t *host = (uint8_t *)kv->xsave, own[X86_XSAVE_MAX] = {0};
    struct x86_cpu *cpu = kv->soft.cpu;
    uint64_t bv;
    int r = kvm_ioctl_p(kv->fd, two ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, kv->xsave);

    if (r < 0)
        return kvm_get_failed(kv, r, "KVM_GET_XSAVE");
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

int kvm_push_xsave(struct kvm_vcpu *kv)
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
    return kvm_set_failed(kv, kvm_ioctl_p(kv->fd, KVM_SET_XSAVE, kv->xsave), "KVM_SET_XSAVE");
}

int kvm_pull_xcr(struct kvm_vcpu *kv)
{
    struct kvm_xcrs k = {0};
    int r;

    if (!(kv->host->has & KVM_HAS_XCRS))
        return 0;
    r = kvm_ioctl_p(kv->fd, KVM_GET_XCRS, &k);
    for (uint32_t i = 0; r >= 0 && i < k.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (k.xcrs[i].xcr == 0)
            kv->soft.cpu->xcr0 = kv->xcr0 = k.xcrs[i].value;
    return kvm_get_failed(kv, r, "KVM_GET_XCRS");
}

int kvm_push_xcr(struct kvm_vcpu *kv)
{
    struct kvm_xcrs k = {.nr_xcrs = 1, .xcrs[0] = {.xcr = 0, .value = kv->soft.cpu->xcr0}};
    int r;

    if (!(kv->host->has & KVM_HAS_XCRS) || kv->xcr0 == kv->soft.cpu->xcr0)
        return 0;
    r = kvm_ioctl_p(kv->fd, KVM_SET_XCRS, &k);
    if (r >= 0)
        kv->xcr0 = kv->soft.cpu->xcr0;
    return kvm_set_failed(kv, r, "KVM_SET_XCRS");
}
