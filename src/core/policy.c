/* SPDX-License-Identifier: BSD-2-Clause */
/* core/policy.c: what the guest sees of CPUID and MSRs: the tables, the policies, and the exits. */
#include <stdlib.h>

#include "core/internal.h"

#define MSR_TSC          0x10u
#define MSR_APIC_BASE    0x1bu
#define MSR_TSC_ADJUST   0x3bu
#define MSR_TSC_DEADLINE 0x6e0u

/* ---- the record of MSR and CPUID exits ---- */

/* Such an instruction makes one access: an entry that has been answered is the answer. */
#define KEY_CPUID 0xc0000000u
#define KEY_RDMSR 0xc1000000u
#define KEY_WRMSR 0xc2000000u

#define ANSWERED 1u
#define FAULT    2u

static struct core_record_entry *recorded(struct vcpu *vcpu, uint64_t serial, uint32_t key)
{
    struct core_record *r = &vcpu->record;

    return r->n == 1 && r->serial == serial && r->e[0].key == key ? &r->e[0] : NULL;
}

/* Begins the exit; its answer comes with the next vcpu_run. */
static int ask(struct vcpu *vcpu, uint64_t serial, uint32_t key, enum core_answer answer,
               uint32_t reason)
{
    struct core_record *r = &vcpu->record;

    r->serial = serial;
    r->n = 1;
    r->pos = 0;
    r->e[0] = (struct core_record_entry){.value = UINT64_MAX, .key = key, .state = ANSWERED};
    vcpu->answer = answer;
    vcpu->exit.reason = reason;
    return CORE_IO_ABORT;
}

void core_policy_answer(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct core_record *r = &vcpu->record;

    if (!exit || r->n != 1)
        return; /* what `ask` has entered stays */
    if (vcpu->answer == ANSWER_CPUID) {
        r->cpuid[0] = exit->u.cpuid.eax;
        r->cpuid[1] = exit->u.cpuid.ebx;
        r->cpuid[2] = exit->u.cpuid.ecx;
        r->cpuid[3] = exit->u.cpuid.edx;
    } else {
        r->e[0].value = exit->u.msr.value;
        if (exit->u.msr.fault)
            r->e[0].state = FAULT;
    }
}

/* ---- MSRs ---- */

static uint32_t msr_policy(const struct vcpu *vcpu, uint32_t index)
{
    for (uint32_t i = vcpu->nmsr_ranges; i-- > 0;) {
        const struct core_msr_range *range = &vcpu->msr_ranges[i];

        if (index >= range->first && index <= range->last)
            return range->policy;
    }
    return VMM_MSR_DEFAULT;
}

/* Under vm->lock: engines look at the ranges of all vCPUs. */
static int add_range(struct vcpu *vcpu, const struct core_msr_range *range)
{
    const struct vmm_backend_ops *ops = vcpu->vm->ops;
    struct core_msr_range old[CORE_MAX_MSR_RANGES];
    uint32_t nold = vcpu->nmsr_ranges, n = 0;

    memcpy(old, vcpu->msr_ranges, sizeof(old));
    /* Ranges that the new one hides go, so that a policy can be changed for ever. */
    for (uint32_t i = 0; i < nold; i++)
        if (old[i].first < range->first || old[i].last > range->last)
            vcpu->msr_ranges[n++] = old[i];
    int err = n < CORE_MAX_MSR_RANGES ? 0
                                      : vm_fail(vcpu->vm, VMM_E_LIMIT, "vcpu_msr_policy",
                                                "vCPU %u has %u ranges already", vcpu->id, n);
    if (!err) {
        vcpu->msr_ranges[n++] = *range;
        vcpu->nmsr_ranges = n;
        err = ops->msr_policy ? ops->msr_policy(vcpu) : 0;
    }
    if (err) {
        memcpy(vcpu->msr_ranges, old, sizeof(old));
        vcpu->nmsr_ranges = nold;
    }
    return err;
}

int vcpu_msr_policy(struct vcpu *vcpu, uint32_t first, uint32_t last, uint32_t policy)
{
    const struct core_msr_range range = {first, last, policy};
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (first > last)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "MSRs %#x to %#x are no range", first,
                       last);
    if (policy > VMM_MSR_EXIT)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "unknown policy %u", policy);
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    os_mutex_lock(&vcpu->vm->lock);
    err = add_range(vcpu, &range);
    os_mutex_unlock(&vcpu->vm->lock);
    core_vcpu_release(vcpu, nested);
    return err;
}

bool core_msr_is_apic(const struct vcpu *vcpu, uint32_t index)
{
    return vcpu->lapic && (index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE ||
                           (index >= 0x800 && index <= 0x8ff));
}

static int msr_exit(struct vcpu *vcpu, uint64_t serial, uint32_t index, bool write, uint64_t *value)
{
    uint32_t key = write ? KEY_WRMSR : KEY_RDMSR;
    struct core_record_entry *e = recorded(vcpu, serial, key);

    if (e && e->state == FAULT)
        return CORE_IO_GP;
    if (e) {
        if (!write)
            *value = e->value;
        return CORE_IO_OK;
    }
    memset(&vcpu->exit.u, 0, sizeof(vcpu->exit.u));
    vcpu->exit.u.msr.index = index;
    vcpu->exit.u.msr.access = write ? VMM_ACCESS_WRITE : VMM_ACCESS_READ;
    vcpu->exit.u.msr.value = write ? *value : UINT64_MAX;
    return ask(vcpu, serial, key, ANSWER_MSR, VMM_EXIT_MSR);
}

static int apic_msr(struct vcpu *vcpu, uint32_t index, bool write, uint64_t *value)
{
    int err;

    if (!write)
        return lapic_read_msr(vcpu->lapic, index, value) ? CORE_IO_GP : CORE_IO_OK;
    core_guest_leave(vcpu); /* EOI callbacks, and a moved APIC page is registered */
    err = lapic_write_msr(vcpu->lapic, index, *value, false);
    core_guest_enter(vcpu);
    return err ? CORE_IO_GP : CORE_IO_OK;
}

static int own_msr(struct vcpu *vcpu, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    *handled = true;
    if (core_msr_is_apic(vcpu, index))
        return apic_msr(vcpu, index, write, value);
    switch (index) {
    case MSR_TSC:
        if (write)
            core_tsc_write(vcpu, *value);
        else
            *value = core_vcpu_tsc(vcpu);
        break;
    case MSR_TSC_ADJUST:
        if (write)
            core_tsc_write_adjust(vcpu, *value);
        else
            *value = atomic_load(&vcpu->tsc_adjust);
        break;
    default:
        *handled = false;
    }
    return CORE_IO_OK;
}

int core_msr_access(struct vcpu *vcpu, uint64_t serial, uint32_t index, bool write, uint64_t *value,
                    bool *handled)
{
    *handled = true;
    switch (msr_policy(vcpu, index)) {
    case VMM_MSR_DENY:
        return CORE_IO_GP;
    case VMM_MSR_IGNORE:
        if (!write)
            *value = 0;
        return CORE_IO_OK;
    case VMM_MSR_EXIT:
        return msr_exit(vcpu, serial, index, write, value);
    default:
        return own_msr(vcpu, index, write, value, handled);
    }
}

/* ---- CPUID ---- */

enum { EAX, EBX, ECX, EDX };

static uint32_t reg_of(const struct vmm_cpuid *e, int reg)
{
    const uint32_t regs[4] = {e->eax, e->ebx, e->ecx, e->edx};

    return regs[reg];
}

/* The entry for a leaf in a table, or NULL. */
static const struct vmm_cpuid *find(const struct vmm_cpuid *table, uint32_t n, uint32_t leaf,
                                    uint32_t subleaf)
{
    for (uint32_t i = 0; i < n && table[i].leaf <= leaf; i++)
        if (table[i].leaf == leaf &&
            (!(table[i].flags & VMM_CPUID_SUBLEAF) || table[i].subleaf == subleaf))
            return &table[i];
    return NULL;
}

static bool is_amd(const struct vmm_cpuid *leaf0)
{
    return leaf0->edx == 0x69746e65 /* AuthenticAMD */ || leaf0->edx == 0x6e65476e /* Hygon */;
}

/* IA32_APIC_BASE.EN. */
static bool apic_enabled(struct vcpu *vcpu)
{
    struct vcpu_regs regs = {0};

    if (vcpu->lapic)
        lapic_read_msr(vcpu->lapic, MSR_APIC_BASE, &regs.apic_base);
    else if (vcpu->vm->irqchip_kind != VMM_IRQCHIP_NONE)
        core_regs_get(vcpu, VMM_REGS_CONTROL, &regs);
    return regs.apic_base & 0x800;
}

static void lookup(struct vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct vmm_cpuid *e = find(vcpu->cpuid, vcpu->ncpuid, leaf, subleaf);
    const struct vmm_cpuid *base = find(vcpu->cpuid, vcpu->ncpuid, leaf & 0xffff0000u, 0);
    const struct vmm_cpuid *zero = find(vcpu->cpuid, vcpu->ncpuid, 0, 0);

    memset(out, 0, 4 * sizeof(*out));
    /* SDM Vol. 2A, CPUID: past the last basic or extended leaf, the data of the last basic one. */
    if (!e && zero && !is_amd(zero) && leaf >> 16 != 0x4000 && (!base || leaf > base->eax))
        e = find(vcpu->cpuid, vcpu->ncpuid, zero->eax, subleaf);
    if (e)
        for (int reg = EAX; reg <= EDX; reg++)
            out[reg] = reg_of(e, reg);
    else if (base && leaf <= base->eax && (leaf == 0xb || leaf == 0x1f))
        out[ECX] = subleaf & 0xff; /* topology: an invalid level keeps its number */
    /* CPUID.01H:EDX.APIC follows the APIC's global enable bit (SDM Vol. 3A 11.4.3). */
    if (leaf == 1 && !apic_enabled(vcpu))
        out[EDX] &= ~(1u << 9);
}

int core_cpuid(struct vcpu *vcpu, uint64_t serial, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    if (!(vcpu->vm->flags & VMM_VM_EXIT_CPUID)) {
        lookup(vcpu, leaf, subleaf, out);
        return CORE_IO_OK;
    }
    if (recorded(vcpu, serial, KEY_CPUID)) {
        memcpy(out, vcpu->record.cpuid, sizeof(vcpu->record.cpuid));
        return CORE_IO_OK;
    }
    lookup(vcpu, leaf, subleaf, out);
    memcpy(vcpu->record.cpuid, out, sizeof(vcpu->record.cpuid));
    memset(&vcpu->exit.u, 0, sizeof(vcpu->exit.u));
    vcpu->exit.u.cpuid = (struct vcpu_exit_cpuid){.leaf = leaf,
                                                  .subleaf = subleaf,
                                                  .eax = out[EAX],
                                                  .ebx = out[EBX],
                                                  .ecx = out[ECX],
                                                  .edx = out[EDX]};
    return ask(vcpu, serial, KEY_CPUID, ANSWER_CPUID, VMM_EXIT_CPUID);
}

static int compare(const void *a, const void *b)
{
    const struct vmm_cpuid *x = a, *y = b;

    if (x->leaf != y->leaf)
        return x->leaf < y->leaf ? -1 : 1;
    return x->subleaf < y->subleaf ? -1 : x->subleaf > y->subleaf;
}

static void sort(struct vmm_cpuid *table, uint32_t n)
{
    qsort(table, n, sizeof(*table), compare);
}

#define F1_ECX_APIC (1u << 21 | 1u << 24) /* x2APIC, TSC deadline */
#define F1_EDX_APIC (1u << 9)
#define F6_EAX_ARAT (1u << 2)

/* Without an irqchip there is no local APIC. */
static void remove_apic(struct vmm_cpuid *table, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (table[i].leaf == 1) {
            table[i].ecx &= ~F1_ECX_APIC;
            table[i].edx &= ~F1_EDX_APIC;
        } else if (table[i].leaf == 6) {
            table[i].eax &= ~F6_EAX_ARAT;
        }
}

static int default_table(struct vm *vm, struct vmm_cpuid table[CORE_MAX_CPUID], uint32_t *n)
{
    *n = CORE_MAX_CPUID;
    int err = vm->ops->default_cpuid(vm, table, n);

    if (err)
        return err;
    if (vm->irqchip_kind == VMM_IRQCHIP_NONE)
        remove_apic(table, *n);
    sort(table, *n);
    return 0;
}

int vm_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    struct vmm_cpuid table[CORE_MAX_CPUID];
    uint32_t count;

    if (!vm)
        return VMM_E_INVAL;
    if (!n || (!entries && *n))
        return vm_fail(vm, VMM_E_INVAL, __func__, "%s is NULL", n ? "entries" : "n");
    int err = default_table(vm, table, &count);
    if (err)
        return vm_fail(vm, err, __func__, "the backend has no CPUID table");

    uint32_t room = *n;
    *n = count;
    if (count && room)
        memcpy(entries, table, (count < room ? count : room) * sizeof(*table));
    if (count > room)
        return vm_fail(vm, VMM_E_NOSPACE, __func__, "%u entries, but there are %u", room, count);
    return 0;
}

int core_cpuid_init(struct vcpu *vcpu)
{
    int err = default_table(vcpu->vm, vcpu->cpuid, &vcpu->ncpuid);

    return err ? err : vcpu->vm->ops->set_cpuid(vcpu);
}

/* Registers in which each bit is a feature; `dynamic` bits are the library's whatever the table. */
static const struct {
    uint32_t leaf, subleaf;
    int reg;
    uint32_t dynamic;
    const char *name;
} features[] = {
    {0x1, 0, ECX, 1u << 27 | 1u << 31, "CPUID.01H:ECX"},
    {0x1, 0, EDX, 1u << 9, "CPUID.01H:EDX"},
    {0x6, 0, EAX, 0, "CPUID.06H:EAX"},
    {0x7, 0, EBX, 0, "CPUID.(07H,0):EBX"},
    {0x7, 0, ECX, 1u << 4, "CPUID.(07H,0):ECX"},
    {0x7, 0, EDX, 0, "CPUID.(07H,0):EDX"},
    {0x7, 1, EAX, 0, "CPUID.(07H,1):EAX"},
    {0x7, 1, EBX, 0, "CPUID.(07H,1):EBX"},
    {0x7, 1, ECX, 0, "CPUID.(07H,1):ECX"},
    {0x7, 1, EDX, 0, "CPUID.(07H,1):EDX"},
    {0x7, 2, EDX, 0, "CPUID.(07H,2):EDX"},
    {0xd, 0, EAX, 0, "CPUID.(0DH,0):EAX"},
    {0xd, 0, EDX, 0, "CPUID.(0DH,0):EDX"},
    {0xd, 1, EAX, 0, "CPUID.(0DH,1):EAX"},
    {0xd, 1, ECX, 0, "CPUID.(0DH,1):ECX"},
    {0xd, 1, EDX, 0, "CPUID.(0DH,1):EDX"},
    {0x80000001, 0, ECX, 0, "CPUID.80000001H:ECX"},
    {0x80000001, 0, EDX, 1u << 9, "CPUID.80000001H:EDX"},
    {0x80000007, 0, EDX, 0, "CPUID.80000007H:EDX"},
    {0x80000008, 0, EBX, 0, "CPUID.80000008H:EBX"},
};

static int check_features(struct vm *vm, const struct vmm_cpuid *table, uint32_t n)
{
    struct vmm_cpuid host[CORE_MAX_CPUID];
    uint32_t nhost;

    int err = default_table(vm, host, &nhost);
    if (err)
        return vm_fail(vm, err, "vcpu_set_cpuid", "the backend has no CPUID table");
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        const struct vmm_cpuid *want = find(table, n, features[i].leaf, features[i].subleaf);
        const struct vmm_cpuid *have = find(host, nhost, features[i].leaf, features[i].subleaf);
        uint32_t extra = want ? reg_of(want, features[i].reg) : 0;

        extra &= ~features[i].dynamic & ~(have ? reg_of(have, features[i].reg) : 0);
        if (extra)
            return vm_fail(vm, VMM_E_UNSUPPORTED, "vcpu_set_cpuid",
                           "the feature %s[bit %d] is not available", features[i].name,
                           __builtin_ctz(extra));
    }
    return 0;
}

static int check_entries(struct vm *vm, const struct vmm_cpuid *table, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if ((table[i].flags & ~VMM_CPUID_SUBLEAF) || table[i].reserved)
            return vm_fail(vm, VMM_E_UNSUPPORTED, "vcpu_set_cpuid",
                           "unknown flags in the entry for leaf %#x", table[i].leaf);
        if (i && table[i].leaf == table[i - 1].leaf &&
            (table[i].subleaf == table[i - 1].subleaf ||
             !(table[i].flags & table[i - 1].flags & VMM_CPUID_SUBLEAF)))
            return vm_fail(vm, VMM_E_INVAL, "vcpu_set_cpuid",
                           "two entries for leaf %#x, subleaf %#x", table[i].leaf,
                           table[i].subleaf);
    }
    return 0;
}

/* What the engine does not take changes nothing. */
static int replace_table(struct vcpu *vcpu, const struct vmm_cpuid *table, uint32_t n)
{
    struct vmm_cpuid old[CORE_MAX_CPUID];
    uint32_t nold = vcpu->ncpuid;

    memcpy(old, vcpu->cpuid, nold * sizeof(*old));
    memcpy(vcpu->cpuid, table, n * sizeof(*table));
    vcpu->ncpuid = n;

    bool entered = core_engine_enter(vcpu);
    int err = vcpu->vm->ops->set_cpuid(vcpu);
    core_engine_leave(vcpu, entered);
    if (err) {
        memcpy(vcpu->cpuid, old, nold * sizeof(*old));
        vcpu->ncpuid = nold;
    }
    return err;
}

static int set_cpuid(struct vcpu *vcpu, const struct vmm_cpuid *entries, uint32_t n)
{
    struct vmm_cpuid table[CORE_MAX_CPUID];

    if (n)
        memcpy(table, entries, n * sizeof(*table));
    sort(table, n);
    int err = check_entries(vcpu->vm, table, n);
    if (!err)
        err = check_features(vcpu->vm, table, n);
    if (err)
        return err;
    return replace_table(vcpu, table, n);
}

int vcpu_set_cpuid(struct vcpu *vcpu, const struct vmm_cpuid *entries, uint32_t n)
{
    bool nested;

    if (!vcpu)
        return VMM_E_INVAL;
    if (!entries && n)
        return vm_fail(vcpu->vm, VMM_E_INVAL, __func__, "entries is NULL");
    if (n > CORE_MAX_CPUID)
        return vm_fail(vcpu->vm, VMM_E_LIMIT, __func__, "%u entries, but at most %u fit", n,
                       CORE_MAX_CPUID);
    int err = core_vcpu_claim(vcpu, __func__, &nested);
    if (err)
        return err;
    err = set_cpuid(vcpu, entries, n);
    core_vcpu_release(vcpu, nested);
    return err;
}
