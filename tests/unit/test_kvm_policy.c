/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_policy.c: CPUID, MSRs, TSC and breakpoints with KVM. */
#include <stdlib.h>
#include <sys/ioctl.h>

#include "core/irqchip.h"
#include "core/x86/control.h"
#include "kvm_vm.h"

#define STAR          0xc0000081u
#define LSTAR         0xc0000082u
#define FS_BASE       0xc0000100u
#define EFER          0xc0000080u
#define MISC_ENABLE   0x1a0u
#define TSC           0x10u
#define TSC_AUX       0xc0000103u
#define MISC_FEATURES 0x140u
#define NOT_THERE     0x12345u
#define HANDLER       0x3000u
#define GATES         0x4000u
#define NCPUID        256u
#define IN_KERNEL(i)  (kvm()->msr_passed >> (i)&1)
#define FIRST_OF_STAR 6 /* its place in msr.c's table */

static void begin(void)
{
    kvm_begin(0, 2);
}

/* Gates for all exceptions to HLT: RBX is the address below the code, RDX what was pushed. */
static void catch_exceptions(void)
{
    const uint64_t gdt[3] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    struct vcpu_regs r = get_regs();

    for (uint64_t i = 0; i < 32; i++) {
        const uint64_t gate[2] = {HANDLER | 8u << 16 | 0x8eull << 40, 0};

        ck_assert_int_eq(vm_mem_write(vm, GATES + i * 16, gate, sizeof(gate)), 0);
    }
    ck_assert_int_eq(vm_mem_write(vm, GATES + 0x800, gdt, sizeof(gdt)), 0);
    ck_assert_int_eq(vm_mem_write(vm, HANDLER, "\xbf\x0d\x00\x00\x00\xf4", 6), 0);
    r.groups = VMM_REGS_DT;
    r.idt = (struct vmm_dtable){.base = GATES, .limit = 32 * 16 - 1};
    r.gdt = (struct vmm_dtable){.base = GATES + 0x800, .limit = sizeof(gdt) - 1};
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
}

/* ---- CPUID ---- */

static uint32_t default_table(struct vmm_cpuid *table)
{
    uint32_t n = NCPUID;

    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), 0);
    return n;
}

static struct vmm_cpuid *find(struct vmm_cpuid *table, uint32_t n, uint32_t leaf, uint32_t sub)
{
    for (uint32_t i = 0; i < n; i++)
        if (table[i].leaf == leaf && table[i].subleaf == sub)
            return &table[i];
    return NULL;
}

static const struct kvm_cpuid_entry2 *supported(uint32_t leaf, uint32_t sub)
{
    static const struct kvm_cpuid_entry2 none;
    const struct kvm_cpuid2 *t = kvm_host()->supported;

    for (uint32_t i = 0; i < t->nent; i++)
        if (t->entries[i].function == leaf && t->entries[i].index == sub)
            return &t->entries[i];
    return &none;
}

START_TEST(default_table_is_what_all_have)
{
    struct vmm_cpuid table[NCPUID], soft[NCPUID], *e;
    uint32_t n, nsoft = NCPUID;

    begin();
    n = default_table(table);
    ck_assert_int_eq(interp_default_cpuid(vm, soft, &nsoft), 0);
    /* Nothing that the software CPU does not model, but KVM's leaves. */
    for (uint32_t i = 0; i < n; i++) {
        const struct vmm_cpuid *s = find(soft, nsoft, table[i].leaf, table[i].subleaf);

        ck_assert_ptr_nonnull(s);
        if (table[i].leaf == 7 && table[i].subleaf == 0)
            ck_assert_uint_eq(table[i].ebx & ~s->ebx, 0);
        if (table[i].leaf == 1)
            ck_assert_uint_eq(table[i].ecx & ~s->ecx, 0);
    }
    /* Nothing that KVM cannot run, where its answer means something. */
    e = find(table, n, 7, 0);
    if (!(kvm_host()->bad & KVM_BAD_CPUID)) {
        ck_assert_uint_eq(e->ebx & ~(supported(7, 0)->ebx | X86_F7_EBX_TSC_ADJUST), 0);
        ck_assert_uint_eq(e->ecx & ~supported(7, 0)->ecx, 0);
        ck_assert_uint_eq(find(table, n, 0x80000001, 0)->edx & ~supported(0x80000001, 0)->edx, 0);
    }
    ck_assert_uint_eq(e->edx & X86_F7_EDX_ARCH_CAP, 0);
    /* Everything of long mode is there. */
    e = find(table, n, 0x80000001, 0);
    ck_assert_uint_eq(e->edx & (X86_FX1_EDX_LM | X86_FX1_EDX_NX | X86_FX1_EDX_SYSCALL),
                      X86_FX1_EDX_LM | X86_FX1_EDX_NX | X86_FX1_EDX_SYSCALL);
    e = find(table, n, 0x80000008, 0);
    ck_assert_uint_le(e->eax & 0xff, kvm_host()->gpa_bits);
    struct vm_caps caps = {.size = sizeof(caps)};
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(e->eax & 0xff, caps.gpa_bits);
    kvm_end();
}
END_TEST

START_TEST(xsave_leaves_agree)
{
    struct vmm_cpuid table[NCPUID], *d, *l1;
    uint32_t n;

    begin();
    n = default_table(table);
    l1 = find(table, n, 1, 0);
    d = find(table, n, 0xd, 0);
    ck_assert_int_eq(d != NULL, (l1->ecx & X86_F1_ECX_XSAVE) != 0);
    for (uint32_t i = 2; d && i < 32; i++)
        ck_assert_int_eq(find(table, n, 0xd, i) != NULL, d->eax >> i & 1);
    if (d && (l1->ecx & X86_F1_ECX_AVX))
        ck_assert_uint_eq(d->eax & 7, 7);
    ck_assert_int_eq((find(table, n, 7, 0)->ecx & X86_F7_ECX_PKU) != 0, d && (d->eax >> 9 & 1));
    kvm_end();
}
END_TEST

/* What KVM got for vCPU 1, and what it says it shows. */
START_TEST(kvm_has_the_table)
{
    struct vmm_cpuid table[NCPUID];
    struct vcpu *second;
    uint32_t n;

    begin();
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    n = default_table(table);
    const struct kvm_cpuid2 *given = kvm()->cpuid[1];
    ck_assert_uint_eq(given->nent, n);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_uint_eq(given->entries[i].function, table[i].leaf);
        ck_assert_uint_eq(given->entries[i].eax, table[i].eax);
        if (table[i].leaf == 1)
            ck_assert_uint_eq(given->entries[i].ebx >> 24, 1); /* its APIC id */
    }
    struct kvm_cpuid2 *back = calloc(1, sizeof(*back) + NCPUID * sizeof(struct kvm_cpuid_entry2));
    back->nent = NCPUID; /* older kernels leave it so */
    ck_assert_int_eq(ioctl(kvm()->vcpu_fd[1], KVM_GET_CPUID2, back), 0);
    for (uint32_t i = 0; i < n && !(kvm_host()->bad & KVM_BAD_CPUID); i++)
        if (given->entries[i].function == 7)
            ck_assert_int_eq(memcmp(&given->entries[i], &back->entries[i], sizeof(*back->entries)),
                             0);
    free(back);
    kvm_end();
}
END_TEST

/* cpuid; hlt */
START_TEST(guest_sees_the_table)
{
    struct vmm_cpuid table[NCPUID], *e;
    uint32_t n;

    begin();
    n = default_table(table);
    LOAD("\x0f\xa2\xf4");
    for (uint32_t i = 0; i < n; i++) {
        e = &table[i];
        bool forced = kvm_host()->bad & KVM_BAD_CPUID;

        if (e->leaf == 1 || (e->leaf == 0xd && e->subleaf < 2) ||
            (forced && (e->leaf == 7 || e->leaf == 0xd)))
            continue; /* dynamic, or not ours to decide */
        set_gpr(VMM_RAX, e->leaf);
        set_gpr(VMM_RCX, e->subleaf);
        set_rip(CODE);
        RUN(HLT);
        struct vcpu_regs r = get_regs();
        ck_assert_uint_eq(r.gpr[VMM_RAX], e->eax);
        ck_assert_uint_eq(r.gpr[VMM_RBX], e->ebx);
        ck_assert_uint_eq(r.gpr[VMM_RCX], e->ecx);
    }
    kvm_end();
}
END_TEST

START_TEST(table_is_fixed_by_the_first_run)
{
    struct vmm_cpuid table[NCPUID], *e;
    uint32_t n;

    begin();
    n = default_table(table);
    e = find(table, n, 0x80000002, 0);
    ck_assert_ptr_nonnull(e);
    e->eax = 0x41414141;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
    /* mov eax,80000002h; cpuid; hlt */
    LOAD("\xb8\x02\x00\x00\x80\x0f\xa2\xf4");
    RUN(HLT);
    ck_assert_uint_eq(gpr(VMM_RAX), 0x41414141);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0); /* the same: nothing to do */
    e->eax = 0x42424242;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), VMM_E_STATE);
    ck_assert_ptr_nonnull(strstr(last_error(VMM_E_STATE), "has run"));
    set_rip(CODE);
    RUN(HLT);
    ck_assert_uint_eq(gpr(VMM_RAX), 0x41414141);

    /* A new vCPU of the number has the default table, whatever KVM's has kept. */
    ck_assert_int_eq(vcpu_destroy(vcpu), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    LOAD("\xb8\x02\x00\x00\x80\x0f\xa2\xf4");
    RUN(HLT);
    ck_assert_uint_ne(gpr(VMM_RAX), 0x41414141);
    /* With the old one KVM runs it again. */
    e->eax = 0x41414141;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
    LOAD("\xb8\x02\x00\x00\x80\x0f\xa2\xf4");
    RUN(HLT);
    ck_assert_uint_eq(gpr(VMM_RAX), 0x41414141);
    kvm_end();
}
END_TEST

/* ---- MSRs ---- */

/* 0: rdmsr; hlt   10h: wrmsr; hlt   20h: mov rdi,0 ...; EDI is 13 after #GP. */
static void load_msr_code(void)
{
    char code[0x20] = {0};

    memcpy(code, "\x0f\x32\xf4", 3);
    memcpy(code + 0x10, "\x0f\x30\xf4", 3);
    load_on(vcpu, code, sizeof(code));
    catch_exceptions();
}

static bool guest_reads(uint32_t index, uint64_t *value)
{
    set_gpr(VMM_RCX, index);
    set_gpr(VMM_RDI, 0);
    set_rip(CODE);
    if (run() == VMM_EXIT_MSR)
        return false;
    ck_assert_uint_eq(ex.reason, VMM_EXIT_HLT);
    *value = gpr(VMM_RDX) << 32 | (uint32_t)gpr(VMM_RAX);
    return gpr(VMM_RDI) != 13;
}

static bool guest_writes(uint32_t index, uint64_t value)
{
    set_gpr(VMM_RCX, index);
    set_gpr(VMM_RAX, (uint32_t)value);
    set_gpr(VMM_RDX, value >> 32);
    set_gpr(VMM_RDI, 0);
    set_rip(CODE + 0x10);
    if (run() == VMM_EXIT_MSR)
        return false;
    ck_assert_uint_eq(ex.reason, VMM_EXIT_HLT);
    return gpr(VMM_RDI) != 13;
}

static uint64_t host_reads(uint32_t index)
{
    uint64_t value = 0;

    ck_assert_int_eq(vcpu_get_msr(vcpu, index, &value), 0);
    return value;
}

static bool has_tsc_aux(void)
{
    struct vmm_cpuid table[NCPUID];
    uint32_t n = default_table(table);

    return (find(table, n, 0x80000001, 0)->edx & X86_FX1_EDX_RDTSCP) ||
           (find(table, n, 7, 0)->ecx & X86_F7_ECX_RDPID);
}

/* As with the other engines: in the kernel, in the software CPU, and nowhere. */
START_TEST(msrs_by_default)
{
    static const uint32_t both[] = {STAR, LSTAR, FS_BASE, MISC_ENABLE, 0x174, 0x277, TSC_AUX};
    uint64_t value = 0;

    begin();
    load_msr_code();
    for (size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        if (both[i] == TSC_AUX && !has_tsc_aux()) {
            ck_assert(!guest_reads(TSC_AUX, &value));
            continue;
        }
        uint64_t want = both[i] == MISC_ENABLE ? 0x1801
                        : both[i] == 0x277     ? 0x0007010600070106
                                               : 0x1230;

        ck_assert(guest_writes(both[i], want));
        ck_assert_uint_eq(host_reads(both[i]), want);
        ck_assert(guest_reads(both[i], &value));
        ck_assert_uint_eq(value, want);
    }
    ck_assert_int_eq(vcpu_set_msr(vcpu, STAR, 0x5500000000), 0);
    ck_assert(guest_reads(STAR, &value));
    ck_assert_uint_eq(value, 0x5500000000);
    ck_assert(!guest_reads(NOT_THERE, &value));
    ck_assert(!guest_writes(NOT_THERE, 0));
    ck_assert(guest_reads(EFER, &value));
    ck_assert_uint_eq(value, host_reads(EFER));
    ck_assert(!guest_writes(EFER, value | 1ull << 63));
    if (!(had_bad & KVM_BAD_CPUID)) /* such a KVM takes anything */
        ck_assert(!guest_writes(MISC_FEATURES, 2));
    ck_assert(guest_writes(MISC_FEATURES, 1)); /* CPUID faults */
    ck_assert_uint_eq(host_reads(MISC_FEATURES), 1);
    ck_assert(guest_writes(EFER, value | 1));
    ck_assert_uint_eq(host_reads(EFER), value | 1);
    kvm_end();
}
END_TEST

START_TEST(msr_policies)
{
    static const uint32_t index[] = {STAR, MISC_ENABLE, NOT_THERE};
    uint64_t value;

    begin();
    load_msr_code();
    ck_assert(guest_writes(STAR, 0x1111));
    for (size_t i = 0; i < 3; i++) {
        uint32_t m = index[i];

        ck_assert_int_eq(vcpu_msr_policy(vcpu, m, m, VMM_MSR_DENY), 0);
        ck_assert(!guest_reads(m, &value));
        ck_assert(!guest_writes(m, 0x2222));
        ck_assert_int_eq(vcpu_msr_policy(vcpu, m, m, VMM_MSR_IGNORE), 0);
        ck_assert(guest_writes(m, 0x3333));
        ck_assert(guest_reads(m, &value));
        ck_assert_uint_eq(value, 0);

        ck_assert_int_eq(vcpu_msr_policy(vcpu, m, m, VMM_MSR_EXIT), 0);
        ck_assert(!guest_reads(m, &value));
        ck_assert_str_eq(vmm_exit_name(ex.reason), "MSR");
        ck_assert_uint_eq(ex.u.msr.index, m);
        ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_READ);
        ck_assert_uint_eq(ex.rip, CODE);
        ex.u.msr.value = 0x123456789abc;
        RUN(HLT);
        ck_assert_uint_eq(gpr(VMM_RAX), 0x56789abc);
        ck_assert_uint_eq(gpr(VMM_RDX), 0x1234);
        ck_assert(!guest_writes(m, 0x4444));
        ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_WRITE);
        ck_assert_uint_eq(ex.u.msr.value, 0x4444);
        ex.u.msr.fault = 1;
        RUN(HLT);
        ck_assert_uint_eq(gpr(VMM_RDI), 13);
        ck_assert_int_eq(vcpu_msr_policy(vcpu, m, m, VMM_MSR_DEFAULT), 0);
    }
    ck_assert(guest_reads(STAR, &value));
    ck_assert_uint_eq(value, 0x1111);
    ck_assert(!guest_reads(NOT_THERE, &value));
    kvm_end();
}
END_TEST

/* The filter is the VM's, policies are the vCPUs': one's policy does not change another's MSR. */
START_TEST(policy_of_one_vcpu)
{
    struct vcpu *first, *second;
    uint64_t value;

    begin();
    first = vcpu;
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    ck_assert(IN_KERNEL(FIRST_OF_STAR));
    ck_assert_int_eq(vcpu_msr_policy(second, STAR, STAR, VMM_MSR_DENY), 0);
    ck_assert(!IN_KERNEL(FIRST_OF_STAR));
    load_msr_code();
    ck_assert(guest_writes(STAR, 0x7777));
    ck_assert(guest_reads(STAR, &value));
    ck_assert_uint_eq(value, 0x7777);
    ck_assert_uint_eq(host_reads(STAR), 0x7777);
    vcpu = second;
    load_msr_code();
    ck_assert(!guest_reads(STAR, &value));
    ck_assert_int_eq(vcpu_msr_policy(second, 0, UINT32_MAX, VMM_MSR_DEFAULT), 0);
    ck_assert(IN_KERNEL(FIRST_OF_STAR));
    ck_assert(guest_reads(STAR, &value));
    ck_assert_uint_eq(value, 0);
    /* It goes with its vCPU. */
    ck_assert_int_eq(vcpu_msr_policy(second, 0, UINT32_MAX, VMM_MSR_EXIT), 0);
    ck_assert_int_eq(vcpu_destroy(second), 0);
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    vcpu = second;
    load_msr_code();
    ck_assert(guest_reads(STAR, &value));
    vcpu = first;
    set_rip(CODE);
    kvm_end();
}
END_TEST

/* ---- TSC ---- */

/* rdtsc; hlt */
static uint64_t guest_tsc(void)
{
    set_rip(CODE);
    RUN(HLT);
    return gpr(VMM_RDX) << 32 | (uint32_t)gpr(VMM_RAX);
}

START_TEST(tsc_of_guest_and_library_agree)
{
    begin();
    LOAD("\x0f\x31\xf4");
    for (int i = 0; i < 10; i++) {
        uint64_t before = host_reads(TSC), guest = guest_tsc(), after = host_reads(TSC);

        ck_assert_uint_le(before, guest);
        ck_assert_uint_le(guest, after);
    }
    /* In the software CPU too. */
    ck_assert_int_eq(vcpu_set_budget(vcpu, 100, 0), 0);
    uint64_t before = host_reads(TSC), guest = guest_tsc(), after = host_reads(TSC);
    ck_assert_uint_le(before, guest);
    ck_assert_uint_le(guest, after);
    kvm_end();
}
END_TEST

static bool follows_offset(void)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    return caps.caps & VMM_CAP_TSC_OFFSET;
}

START_TEST(tsc_can_be_set)
{
    begin();
    LOAD("\x0f\x31\xf4");
    ck_assert_int_eq(vcpu_set_msr(vcpu, TSC, 1ull << 60), 0);
    uint64_t guest = guest_tsc(), after = host_reads(TSC);

    ck_assert_uint_le(guest, after);
    if (follows_offset())
        ck_assert_uint_ge(guest, 1ull << 60);
    else /* it is the host's, for the library too */
        ck_assert_uint_lt(after, 1ull << 60);
    kvm_end();
}
END_TEST

START_TEST(tsc_stands_while_paused)
{
    begin();
    LOAD("\x0f\x31\xf4");
    uint64_t guest = guest_tsc();

    ck_assert_int_eq(vm_pause(vm), 0);
    uint64_t a = host_reads(TSC), b = host_reads(TSC);
    ck_assert_uint_le(guest, a);
    if (follows_offset())
        ck_assert_uint_eq(a, b);
    ck_assert_int_eq(vm_resume(vm), 0);
    ck_assert_uint_ge(guest_tsc(), b);
    kvm_end();
}
END_TEST

/* The arithmetic, with an offset or without: ticks go on where they stopped. */
START_TEST(ticks_go_on)
{
    begin();
    host()->bad &= ~KVM_BAD_TSC_OFFSET;
    uint64_t a = kvm_tsc(vm);

    kvm_tsc_changed(vm, false);
    uint64_t held = kvm_tsc(vm);
    ck_assert_uint_ge(held, a);
    for (int i = 0; i < 1000; i++)
        ck_assert_uint_eq(kvm_tsc(vm), held);
    uint64_t base = atomic_load(&kvm()->tsc_base);
    kvm_tsc_changed(vm, true);
    ck_assert_uint_gt(atomic_load(&kvm()->tsc_base), base);
    ck_assert_uint_ge(kvm_tsc(vm), held);
    kvm_end();
}
END_TEST

/* ---- PV ---- */

/* The guest writes the MSRs of its clock, run by either CPU, and finds the time in memory. */
START_TEST(kvmclock)
{
    enum { SYSTEM_TIME = 0x4b564d01, CLOCK = 0x6000 };
    static const char *const backends[] = {"kvm", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_KVM_PV,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends};
    struct vmm_cpuid table[NCPUID], *base;
    struct vm_caps caps = {.size = sizeof(caps)};
    uint64_t value = 0;
    uint32_t n;

    begin();
    load_msr_code();
    ck_assert(!guest_writes(SYSTEM_TIME, CLOCK | 1)); /* not without the flag */
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    kvm_end();
    if (!(caps.caps & VMM_CAP_KVM_PV)) {
        ck_assert_int_eq(vm_create(&config, &vm), VMM_E_UNSUPPORTED);
        return;
    }
    kvm_begin(VMM_VM_KVM_PV, 1);
    n = default_table(table);
    base = find(table, n, 0x40000000, 0);
    ck_assert_uint_eq(base->ebx, 0x4b4d564b); /* "KVMKVMKVM" */
    ck_assert_uint_eq(base->ecx, 0x564b4d56);
    ck_assert_uint_eq(base->edx, 0x4d);
    ck_assert(find(table, n, 0x40000001, 0)->eax >> 3 & 1);
    load_msr_code();
    for (int soft = 0; soft < 2; soft++) {
        uint8_t info[32];

        ck_assert_int_eq(vcpu_set_budget(vcpu, soft ? 1000 : 0, 0), 0);
        ck_assert(guest_writes(SYSTEM_TIME, (CLOCK + (unsigned)soft * 32) | 1));
        ck_assert(guest_reads(SYSTEM_TIME, &value));
        ck_assert_uint_eq(value, (CLOCK + (unsigned)soft * 32) | 1);
        ck_assert_uint_eq(host_reads(SYSTEM_TIME), value);
        ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 0), 0);
        set_rip(CODE + 2); /* HLT: KVM fills the page at its next entry */
        RUN(HLT);
        ck_assert_int_eq(vm_mem_read(vm, CLOCK + (unsigned)soft * 32, info, sizeof(info)), 0);
        ck_assert_uint_ne(info[0], 0);     /* version */
        ck_assert_uint_eq(info[0] & 1, 0); /* not being written */
    }
    ck_assert_int_eq(vm_pause(vm), 0);
    ck_assert_int_eq(vm_resume(vm), 0);
    kvm_end();
}
END_TEST

/* ---- breakpoints ---- */

#define BP_AT(address)                                                                             \
    {                                                                                              \
        .addr = (address), .type = VMM_BREAK_EXEC, .len = 1                                        \
    }

static void set_debug(const struct vmm_debug *debug)
{
    ck_assert_int_eq(vcpu_set_debug(vcpu, debug), 0);
}

/* 0: KVM's, if they work at all: where CPL 3 is wrong, they may still be right at CPL 0. */
static void choose_breakpoints(int soft)
{
    if (soft)
        host()->bad |= KVM_BAD_BREAKPOINT;
    else if (had_bad & KVM_BAD_USER_EVENTS)
        host()->bad &= ~KVM_BAD_BREAKPOINT;
}

/* By KVM's hardware breakpoints and by the software CPU. */
START_TEST(breakpoints)
{
    const struct vmm_debug debug = {.size = sizeof(debug),
                                    .nbreakpoints = 2,
                                    .breakpoints = {BP_AT(CODE + 3), BP_AT(CODE + 9)}};
    begin();
    choose_breakpoints(_i);
    /* l: inc rax; inc rbx; cmp al,2; nop; jne l; hlt */
    LOAD("\x48\xff\xc0\x48\xff\xc3\x3c\x02\x90\x75\xf5\xf4");
    set_debug(&debug);
    ck_assert_int_eq(kvm_vcpu_of(vcpu)->debug_hw,
                     (host()->has & KVM_HAS_GUEST_DEBUG) && !(host()->bad & KVM_BAD_BREAKPOINT));
    for (uint64_t i = 1; i <= 2; i++) {
        RUN(BREAKPOINT);
        ck_assert_uint_eq(ex.rip, CODE + 3);
        ck_assert_uint_eq(ex.u.debug.index, 0);
        ck_assert_uint_eq(ex.u.debug.addr, CODE + 3);
        ck_assert_uint_eq(ex.u.debug.dr6, 1);
        ck_assert_uint_eq(gpr(VMM_RAX), i);
        ck_assert_uint_eq(gpr(VMM_RBX), i - 1);
        RUN(BREAKPOINT);
        ck_assert_uint_eq(ex.rip, CODE + 9);
        ck_assert_uint_eq(ex.u.debug.index, 1);
        ck_assert_uint_eq(ex.u.debug.dr6, 2);
        ck_assert_uint_eq(gpr(VMM_RBX), i);
    }
    struct vcpu_regs r = get_regs();
    ck_assert_uint_eq(r.dr[7], 0x400); /* the guest's own */
    ck_assert_uint_eq(r.dr[0], 0);
    ck_assert_uint_eq(r.rflags & X86_RF, 0);
    RUN(HLT);
    set_debug(NULL);
    set_gpr(VMM_RAX, 0);
    set_rip(CODE);
    RUN(HLT);
    kvm_end();
}
END_TEST

/* Another instruction than that which has exited is not passed. */
START_TEST(moved_from_a_breakpoint)
{
    const struct vmm_debug debug = {
        .size = sizeof(debug), .nbreakpoints = 2, .breakpoints = {BP_AT(CODE), BP_AT(CODE + 1)}};
    begin();
    choose_breakpoints(_i);
    LOAD("\x90\x90\xf4");
    set_debug(&debug);
    RUN(BREAKPOINT);
    set_rip(CODE + 1);
    RUN(BREAKPOINT);
    ck_assert_uint_eq(ex.rip, CODE + 1);
    set_rip(CODE);
    RUN(BREAKPOINT);
    ck_assert_uint_eq(ex.rip, CODE);
    RUN(BREAKPOINT);
    ck_assert_uint_eq(ex.rip, CODE + 1);
    RUN(HLT);
    kvm_end();
}
END_TEST

/* What KVM does not do exactly, the software CPU does. */
START_TEST(watchpoints_and_exceptions)
{
    struct vmm_debug debug = {.size = sizeof(debug),
                              .nbreakpoints = 1,
                              .breakpoints = {{.addr = 0x8004, .type = VMM_BREAK_WRITE, .len = 4}}};

    begin();
    /* mov [0x8000],rax; nop; ud2 */
    LOAD("\x48\x89\x04\x25\x00\x80\x00\x00\x90\x0f\x0b");
    set_debug(&debug);
    ck_assert(kvm_vcpu_of(vcpu)->debug_soft);
    RUN(WATCH);
    ck_assert_uint_eq(ex.rip, CODE + 8);
    ck_assert_uint_eq(ex.u.debug.addr, 0x8000);
    debug = (struct vmm_debug){
        .size = sizeof(debug), .flags = VMM_DEBUG_EXCEPTIONS, .exception_mask = 1u << X86_UD};
    set_debug(&debug);
    RUN(EXCEPTION);
    ck_assert_uint_eq(ex.u.debug.vector, X86_UD);
    set_debug(NULL);
    ck_assert(!kvm_vcpu_of(vcpu)->debug_soft && !kvm_vcpu_of(vcpu)->debug_hw);
    kvm_end();
}
END_TEST

/* A guest with breakpoints of its own keeps them, and does not see the program's. */
START_TEST(guest_with_debug_registers)
{
    const struct vmm_debug debug = {
        .size = sizeof(debug), .nbreakpoints = 1, .breakpoints = {BP_AT(CODE)}};
    struct vcpu_regs r;

    begin();
    LOAD("\x90\x90\x90\xf4");
    catch_exceptions();
    r = get_regs();
    r.groups = VMM_REGS_DEBUG;
    r.dr[0] = CODE + 2;
    r.dr[7] = 0x402;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
    set_debug(&debug);
    RUN(BREAKPOINT);
    ck_assert_uint_eq(ex.rip, CODE);
    RUN(HLT); /* of the handler */
    r = get_regs();
    ck_assert_uint_eq(r.rip, HANDLER + 6);
    ck_assert_uint_eq(r.dr[6] & 15, 1);
    ck_assert_uint_eq(r.dr[7], 0x402);
    kvm_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        default_table_is_what_all_have,
        xsave_leaves_agree,
        kvm_has_the_table,
        guest_sees_the_table,
        table_is_fixed_by_the_first_run,
        msrs_by_default,
        msr_policies,
        policy_of_one_vcpu,
        tsc_of_guest_and_library_agree,
        tsc_can_be_set,
        tsc_stands_while_paused,
        ticks_go_on,
        kvmclock,
        breakpoints,
        moved_from_a_breakpoint,
        watchpoints_and_exceptions,
        guest_with_debug_registers,
    };

    return kvm_main("kvm_policy", tests, sizeof(tests) / sizeof(tests[0]), 2);
}
