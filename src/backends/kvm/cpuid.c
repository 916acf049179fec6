/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/cpuid.c: what the guest's CPUID shows: the default table, and tables for KVM. */
#include <asm/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/kvm/kvm.h"
#include "core/internal.h"
#include "core/x86/control.h"
#include "core/x86/cpuid_limit.h"
#include "core/x86/xstate.h"

/*
 * A feature is in the default table if the software CPU models it, for it repairs what KVM cannot
 * run and checks what the program sets, and if the guest has it when KVM runs it: what
 * KVM_GET_SUPPORTED_CPUID says; on a host that overrides tables also what it shows whatever it is
 * given.
 */

static uint32_t entry_reg(const struct kvm_cpuid_entry2 *e, unsigned reg)
{
    const uint32_t regs[4] = {e->eax, e->ebx, e->ecx, e->edx};

    return regs[reg];
}

static uint32_t kvm_reg(const struct kvm_cpuid2 *table, uint32_t leaf, uint32_t subleaf,
                        unsigned reg)
{
    for (uint32_t i = 0; table && i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &table->entries[i];

        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return entry_reg(e, reg);
    }
    return 0;
}

/* ---- what KVM shows whatever it is given ---- */

static struct kvm_cpuid2 *table_new(uint32_t n)
{
    struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + n * sizeof(table->entries[0]));

    if (table)
        table->nent = n;
    return table;
}

/* With leaves in which no feature is set, in a VM of its own: the answer in the same table. */
static int read_back(struct kvm_cpuid2 *table)
{
    static const uint32_t leaves[][2] = {
        {0, 0},   {1, 0},          {7, 0},          {7, 1},          {0xd, 0},
        {0xd, 1}, {0x80000000, 0}, {0x80000001, 0}, {0x80000007, 0}, {0x80000008, 0}};
    const uint32_t n = sizeof(leaves) / sizeof(leaves[0]), room = table->nent;
    int result, dev = kvm_open(&result), fd, cpu, r;

    if (dev < 0)
        return result;
    fd = r = kvm_ioctl(dev, KVM_CREATE_VM, 0);
    close(dev);
    if (fd < 0)
        return kvm_error(-r);
    cpu = r = kvm_ioctl(fd, KVM_CREATE_VCPU, 0);
    for (uint32_t i = 0; i < n; i++)
        table->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaves[i][0],
            .index = leaves[i][1],
            .flags =
                leaves[i][0] == 7 || leaves[i][0] == 0xd ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0};
    table->entries[0].eax = 0xd;
    table->entries[6].eax = 0x80000008;
    table->nent = n;
    if (cpu >= 0)
        r = kvm_ioctl_p(cpu, KVM_SET_CPUID2, table);
    table->nent = room;
    if (r >= 0)
        r = kvm_ioctl_p(cpu, KVM_GET_CPUID2, table);
    if (cpu >= 0)
        close(cpu);
    close(fd);
    return r < 0 ? kvm_error(-r) : 0;
}

/* Found once per process, as kvm_host(); NULL with *err set if that fails now. */
static const struct kvm_cpuid2 *forced(int *err)
{
    static _Atomic(struct kvm_cpuid2 *) found;
    struct kvm_cpuid2 *table = atomic_load(&found), *none = NULL;

    *err = 0;
    if (table)
        return table;
    table = table_new(CORE_MAX_CPUID);
    *err = table ? read_back(table) : VMM_E_NOMEM;
    if (!*err && atomic_compare_exchange_strong(&found, &none, table))
        return table;
    free(table);
    return *err ? NULL : none;
}

/* ---- the default table ---- */

/* Instructions that end in #UD instead of an internal error where KVM emulates CPL 0 and cannot do
 * everyday ones: nothing would repair them. */
static uint32_t unrepaired(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    if (!(kvm_host()->bad & KVM_BAD_EMULATION))
        return 0;
    if (leaf == 1 && reg == X86_CPUID_ECX)
        return X86_F1_ECX_MOVBE;
    if (leaf == 7 && !subleaf && reg == X86_CPUID_ECX)
        return X86_F7_ECX_RDPID;
    return 0;
}

/* The software CPU speculates on nothing and says so in IA32_ARCH_CAPABILITIES; the host's does. */
static uint32_t untrue(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    return leaf == 7 && !subleaf && reg == X86_CPUID_EDX ? X86_F7_EDX_ARCH_CAP : 0;
}

/* `ctx`: what it also shows, or NULL. */
static uint32_t allowed(const void *ctx, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    uint32_t bits =
        kvm_reg(kvm_host()->supported, leaf, subleaf, reg) | kvm_reg(ctx, leaf, subleaf, reg);

    return bits & ~unrepaired(leaf, subleaf, reg) & ~untrue(leaf, subleaf, reg);
}

static struct vmm_cpuid *find(struct vmm_cpuid *table, uint32_t n, uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < n; i++)
        if (table[i].leaf == leaf && table[i].subleaf == subleaf)
            return &table[i];
    return NULL;
}

static void drop(struct vmm_cpuid *table, uint32_t *n, struct vmm_cpuid *e)
{
    --*n;
    memmove(e, e + 1, (size_t)(table + *n - e) * sizeof(*e));
}

/* XSAVE components that are left, and what depends on them. */
static void settle_xsave(struct vmm_cpuid *table, uint32_t *n)
{
    struct vmm_cpuid *l1 = find(table, *n, 1, 0), *l7 = find(table, *n, 7, 0);
    struct vmm_cpuid *d = find(table, *n, 0xd, 0);
    bool has = l1 && (l1->ecx & X86_F1_ECX_XSAVE) && (kvm_host()->has & KVM_HAS_XCRS);
    uint64_t xcr0 = d ? (uint64_t)d->edx << 32 | d->eax : 0;

    if (!has)
        xcr0 = 0;
    if (l7 && !(xcr0 & X86_XCR0_PKRU))
        l7->ecx &= ~X86_F7_ECX_PKU;
    if (l7 && !(l7->ecx & X86_F7_ECX_PKU))
        xcr0 &= ~(uint64_t)X86_XCR0_PKRU;
    if (!has && l1)
        l1->ecx &= ~(X86_F1_ECX_XSAVE | X86_F1_ECX_AVX | 1u << 12 /* FMA */ | 1u << 29 /* F16C */);
    for (uint32_t i = *n; i-- > 0;)
        if (table[i].leaf == 0xd && (!has || (table[i].subleaf >= 2 && table[i].subleaf < 64 &&
                                              !(xcr0 >> table[i].subleaf & 1))))
            drop(table, n, &table[i]);
    d = find(table, *n, 0xd, 0);
    if (d) {
        d->eax = (uint32_t)xcr0;
        d->edx = (uint32_t)(xcr0 >> 32);
        d->ecx = x86_xstate_size(xcr0);
    }
}

static void settle_leaf7(struct vmm_cpuid *table, uint32_t *n)
{
    struct vmm_cpuid *l7 = find(table, *n, 7, 0), *l71 = find(table, *n, 7, 1);

    if (l71 && !(l71->eax | l71->ebx | l71->ecx | l71->edx)) {
        drop(table, n, l71);
        l7->eax = 0;
    }
}

static void settle_widths(struct vmm_cpuid *table, uint32_t n)
{
    struct vmm_cpuid *e = find(table, n, 0x80000008, 0);
    uint32_t bits = kvm_host()->gpa_bits;

    if (e && bits < (e->eax & 0xff))
        e->eax = (e->eax & ~0xffu) | bits;
}

/*
 * KVM's own leaves. Only features that are MSRs alone: hypercalls would end in the software CPU
 * when that runs the guest, and those for local APICs need them in the kernel.
 */
#define PV                                                                                         \
    (1u << KVM_FEATURE_CLOCKSOURCE | 1u << KVM_FEATURE_NOP_IO_DELAY |                              \
     1u << KVM_FEATURE_CLOCKSOURCE2 | 1u << KVM_FEATURE_STEAL_TIME |                               \
     1u << KVM_FEATURE_CLOCKSOURCE_STABLE_BIT)

static int offer_pv(struct vm *vm, struct vmm_cpuid *table, uint32_t *n)
{
    struct vmm_cpuid *base = find(table, *n, KVM_CPUID_SIGNATURE, 0);
    bool apic =
        vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT || vm->irqchip_mode == VMM_IRQCHIP_MODE_KERNEL;
    uint32_t features = PV | (apic ? 1u << KVM_FEATURE_PV_EOI : 0);

    if (!base || *n >= CORE_MAX_CPUID)
        return 0;
    memcpy(&base->ebx, "KVMK", 4);
    memcpy(&base->ecx, "VMKV", 4);
    memcpy(&base->edx, "M\0\0\0", 4);
    features &= kvm_reg(kvm_host()->supported, KVM_CPUID_FEATURES, 0, X86_CPUID_EAX);
    table[(*n)++] = (struct vmm_cpuid){.leaf = KVM_CPUID_FEATURES, .eax = features};
    return 0;
}

int kvm_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    struct vmm_cpuid table[CORE_MAX_CPUID];
    const struct kvm_cpuid2 *extra = NULL;
    uint32_t count = CORE_MAX_CPUID, room = *n;
    int err = interp_default_cpuid(vm, table, &count);

    if (!err && (kvm_host()->bad & KVM_BAD_CPUID))
        extra = forced(&err);
    if (err)
        return err;
    for (uint32_t i = 0; i < count; i++)
        x86_cpuid_limit(&table[i], allowed, extra);
    settle_xsave(table, &count);
    settle_leaf7(table, &count);
    settle_widths(table, count);
    if (vm->flags & VMM_VM_KVM_PV)
        offer_pv(vm, table, &count);
    *n = count;
    memcpy(entries, table, (room < count ? room : count) * sizeof(*table));
    return room < count ? VMM_E_NOSPACE : VMM_OK;
}

/* ---- tables for KVM ---- */

/* APIC ids are the vCPU's number; KVM itself follows CR4, XCR0 and the APIC base. */
static void fill(const struct vcpu *vcpu, struct kvm_cpuid2 *table)
{
    for (uint32_t i = 0; i < vcpu->ncpuid; i++) {
        const struct vmm_cpuid *from = &vcpu->cpuid[i];
        struct kvm_cpuid_entry2 *to = &table->entries[i];

        *to = (struct kvm_cpuid_entry2){
            .function = from->leaf,
            .index = from->subleaf,
            .flags = from->flags & VMM_CPUID_SUBLEAF ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = from->eax,
            .ebx = from->ebx,
            .ecx = from->ecx,
            .edx = from->edx};
        if (from->leaf == 1)
            to->ebx = (to->ebx & 0x00ffffffu) | vcpu->id << 24;
        if (from->leaf == 0xb || from->leaf == 0x1f)
            to->edx = vcpu->id;
    }
}

static bool same(const struct kvm_cpuid2 *a, const struct kvm_cpuid2 *b)
{
    return a && a->nent == b->nent &&
           memcmp(a->entries, b->entries, a->nent * sizeof(a->entries[0])) == 0;
}

/* Once a vCPU has run, KVM takes no other table. `creating`: of a vCPU that was destroyed and is
 * made anew, in which KVM's part lives on. */
static int give(struct vcpu *vcpu, struct kvm_cpuid2 *table, bool creating)
{
    struct kvm_vcpu *kv = kvm_vcpu_of(vcpu);
    struct kvm_vm *kvm = kvm_vm_of(vcpu->vm);
    struct kvm_cpuid2 **given = &kvm->cpuid[vcpu->id];
    int r;

    if (same(*given, table)) {
        kv->cpuid_stale = false;
        free(table);
        return 0;
    }
    if (atomic_load_explicit(&kvm->vcpu_ran[vcpu->id], memory_order_relaxed)) {
        free(table);
        kv->cpuid_stale = creating || kv->cpuid_stale;
        return creating
                   ? 0
                   : vm_fail(vcpu->vm, VMM_E_STATE, "vcpu_set_cpuid",
                             "vCPU %u has run: KVM takes no other CPUID table any more", vcpu->id);
    }
    r = kvm_ioctl_p(kv->fd, KVM_SET_CPUID2, table);
    if (r < 0) {
        free(table);
        return kvm_fail(vcpu->vm, "vcpu_set_cpuid", r, "KVM_SET_CPUID2");
    }
    free(*given);
    *given = table;
    kv->cpuid_stale = false;
    kvm_msrs_changed(kv);
    return 0;
}

int kvm_set_cpuid(struct vcpu *vcpu)
{
    struct kvm_cpuid2 *table = table_new(vcpu->ncpuid ? vcpu->ncpuid : 1);
    int err;

    if (!table)
        return vm_fail(vcpu->vm, VMM_E_NOMEM, "vcpu_set_cpuid", "no memory for the CPUID table");
    table->nent = vcpu->ncpuid;
    fill(vcpu, table);
    err = give(vcpu, table, !atomic_load(&vcpu->alive));
    return err ? err : interp_set_cpuid(vcpu);
}
