/* SPDX-License-Identifier: BSD-2-Clause */
/* policy.c: what CPUID and MSRs give the guest: the table and the ranges that the program sets. */
#include "conform.h"

static struct vmm_cpuid table[256];
static uint32_t n;

static void start(uint32_t irqchip)
{
    begin(irqchip, 0, 2);
    n = 256;
    OK(vm_default_cpuid(vm, table, &n));
}

static struct vmm_cpuid *entry(uint32_t leaf, uint32_t subleaf)
{
    for (uint32_t i = 0; i < n; i++)
        if (table[i].leaf == leaf &&
            (table[i].subleaf == subleaf || !(table[i].flags & VMM_CPUID_SUBLEAF)))
            return &table[i];
    FAIL("the table has no leaf %#x", leaf);
}

GUEST(cpuid, 64, "cpuid\n out %al, $0x99"); /* HLT would wait with an irqchip */

static void ask(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct vcpu_regs r;

    LOAD(LONG64, cpuid);
    r = get_regs(cpu);
    r.gpr[VMM_RAX] = leaf;
    r.gpr[VMM_RCX] = subleaf;
    set_regs(cpu, &r, VMM_REGS_GPR);
    RUN(PIO);
    r = get_regs(cpu);
    out[0] = (uint32_t)r.gpr[VMM_RAX];
    out[1] = (uint32_t)r.gpr[VMM_RBX];
    out[2] = (uint32_t)r.gpr[VMM_RCX];
    out[3] = (uint32_t)r.gpr[VMM_RDX];
}

/* ---- CPUID ---- */

static void the_default_table(void)
{
    uint32_t few = 1;

    start(VMM_IRQCHIP_NONE);
    CHECK(n > 5 && n <= 256);
    RESULT(vm_default_cpuid(vm, table, &few), VMM_E_NOSPACE);
    EQ(few, n); /* the number there are */
    OK(vcpu_set_cpuid(cpu, table, n));
    EQ(entry(1, 0)->edx & 1, 1);
    CHECK(entry(0x80000001, 0)->edx >> 29 & 1); /* long mode */
    end();
}

static void the_guest_sees_the_table(void)
{
    uint32_t out[4];

    start(VMM_IRQCHIP_NONE);
    for (unsigned user = 0; user < 2; user++) {
        for (uint32_t i = 0; i < n; i++) {
            if (table[i].leaf == 1 || table[i].leaf == 7 || table[i].leaf == 0xb ||
                table[i].leaf == 0x1f || table[i].leaf == 0xd || table[i].leaf == 6)
                continue; /* dynamic bits */
            ask(table[i].leaf, table[i].subleaf, out);
            if (out[0] != table[i].eax || out[1] != table[i].ebx || out[2] != table[i].ecx ||
                out[3] != table[i].edx)
                FAIL("leaf %#x.%u is %#x %#x %#x %#x, in the table %#x %#x %#x %#x", table[i].leaf,
                     table[i].subleaf, out[0], out[1], out[2], out[3], table[i].eax, table[i].ebx,
                     table[i].ecx, table[i].edx);
        }
    }
    end();
}

static void a_changed_table(void)
{
    uint32_t out[4];

    start(VMM_IRQCHIP_NONE);
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
        entry(leaf, 0)->eax = leaf;
        entry(leaf, 0)->edx = 0x41424344;
    }
    OK(vcpu_set_cpuid(cpu, table, n));
    ask(0x80000003, 0, out);
    EQ(out[0], 0x80000003);
    EQ(out[3], 0x41424344);
    end();
}

static void features_are_taken_away(void)
{
    uint32_t out[4];

    start(VMM_IRQCHIP_NONE);
    entry(1, 0)->ecx &= ~(1u << 23 | 1u << 22); /* POPCNT, MOVBE */
    entry(7, 0)->ebx &= ~(1u << 7);             /* SMEP */
    OK(vcpu_set_cpuid(cpu, table, n));
    ask(1, 0, out);
    EQ(out[2] >> 22 & 3, 0);
    ask(7, 0, out);
    EQ(out[1] >> 7 & 1, 0);
    struct vcpu_regs r = get_regs(cpu);
    r.groups = VMM_REGS_CONTROL;
    r.cr4 |= 1u << 20;
    RESULT(vcpu_set_regs(cpu, &r), VMM_E_INVAL);
    end();
}

static void unknown_features_are_refused(void)
{
    struct vmm_error error = {.size = sizeof(error)};

    start(VMM_IRQCHIP_NONE);
    entry(1, 0)->ecx |= 1u << 5; /* VMX */
    RESULT(vcpu_set_cpuid(cpu, table, n), VMM_E_UNSUPPORTED);
    vm_last_error(vm, &error);
    CHECK(error.text[0] != 0); /* it names the bit */
    RESULT(vcpu_set_cpuid(cpu, table, 257), VMM_E_LIMIT);
    RESULT(vcpu_set_cpuid(cpu, NULL, 1), VMM_E_INVAL);
    end();
}

GUEST(osxsave, 64,
      "mov %cr4, %rax\n xor $0x40000, %rax\n mov %rax, %cr4\n mov $1, %eax\n"
      "cpuid\n out %al, $0x99");

static void dynamic_bits(void)
{
    uint32_t out[4];

    start(VMM_IRQCHIP_PC);
    ask(1, 0, out);
    EQ(out[1] >> 24, 0);                    /* initial APIC id */
    EQ(out[2] >> 27 & 1, out[2] >> 26 & 1); /* OSXSAVE is CR4's, which is set where XSAVE is */
    EQ(out[3] >> 9 & 1, 1);                 /* APIC */
    if (out[2] >> 26 & 1) {
        LOAD(LONG64, osxsave);
        RUN(PIO);
        EQ(gpr(VMM_RCX) >> 27 & 1, 0);
    }
    LOAD(LONG64, cpuid);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    cpu = vm_vcpu(vm, 1);
    set_gpr(VMM_RAX, 1);
    RUN(PIO);
    EQ(gpr(VMM_RBX) >> 24, 1);
    end();
}

static void leaves_that_are_not_there(void)
{
    uint32_t out[4];

    start(VMM_IRQCHIP_NONE);
    ask(0x40000000, 0, out);
    for (int i = 0; i < 4; i++) {
        const uint32_t wanted[4] = {entry(0x40000000, 0)->eax, entry(0x40000000, 0)->ebx,
                                    entry(0x40000000, 0)->ecx, entry(0x40000000, 0)->edx};
        EQ(out[i], wanted[i]);
    }
    ask(0x20000000, 0, out); /* as the highest basic leaf, or nothing */
    end();
}

/* ---- MSRs ---- */

GUEST(rdmsr, 64, "mov $-1, %eax\n mov %eax, %edx\n rdmsr\n hlt");
GUEST(wrmsr, 64, "mov $0x1000, %eax\n xor %edx, %edx\n wrmsr\n hlt");

/* RDMSR or WRMSR at the guest: false if it raised #GP. */
static bool access_msr(uint32_t index, bool write)
{
    load_on(cpu, LONG64, write ? GUEST_CODE(wrmsr) : GUEST_CODE(rdmsr));
    set_gpr(VMM_RCX, index);
    RUN(HLT);
    if (ex.rip == (write ? END_OF(wrmsr) : END_OF(rdmsr)))
        return true;
    EQ(halted_in(&ex), 13);
    EQ(peek(gpr(VMM_RSP), 8), 0); /* the error code */
    return false;
}

static void unknown_msrs(void)
{
    static const uint32_t list[] = {0x12345678, 0xc0001234, 0x1d9, 0x3ff};

    start(VMM_IRQCHIP_NONE);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        CHECK(!access_msr(list[i], false));
        CHECK(!access_msr(list[i], true));
    }
    end();
}

static void modelled_msrs(void)
{
    static const uint32_t list[] = {0xc0000082, 0xc0000102, 0x175, 0x1b, 0xc0000100, 0x2ff};
    uint64_t value;

    start(VMM_IRQCHIP_NONE);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        bool apic = list[i] == 0x1b, mtrr = list[i] == 0x2ff;

        if (apic)
            continue;
        CHECK(access_msr(list[i], false));
        if (mtrr)
            continue;
        CHECK(access_msr(list[i], true));
        OK(vcpu_get_msr(cpu, list[i], &value));
        EQ(value, 0x1000);
    }
    end();
}

static void denied_and_ignored(void)
{
    static const uint32_t list[] = {0xc0000082, 0xc0000102, 0x277, 0x12345678, 0x10};
    uint64_t value;

    start(VMM_IRQCHIP_NONE);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        uint32_t index = list[i];
        bool modelled = index != 0x12345678;
        uint64_t before = 0;

        if (modelled)
            OK(vcpu_get_msr(cpu, index, &before));
        OK(vcpu_msr_policy(cpu, index, index, VMM_MSR_DENY));
        CHECK(!access_msr(index, false));
        CHECK(!access_msr(index, true));
        OK(vcpu_msr_policy(cpu, index, index, VMM_MSR_IGNORE));
        CHECK(access_msr(index, false));
        EQ(gpr(VMM_RAX), 0); /* reads 0 */
        EQ(gpr(VMM_RDX), 0);
        CHECK(access_msr(index, true));
        if (modelled && index != 0x10) {
            OK(vcpu_get_msr(cpu, index, &value));
            EQ(value, before); /* writes are dropped */
        }
        OK(vcpu_msr_policy(cpu, index, index, VMM_MSR_DEFAULT));
        CHECK(access_msr(index, false) == modelled);
    }
    end();
}

static void policy_is_the_vcpus(void)
{
    start(VMM_IRQCHIP_NONE);
    OK(vcpu_msr_policy(vm_vcpu(vm, 1), 0xc0000082, 0xc0000082, VMM_MSR_DENY));
    CHECK(access_msr(0xc0000082, false));
    cpu = vm_vcpu(vm, 1);
    CHECK(!access_msr(0xc0000082, false));
    end();
}

static void later_ranges_override(void)
{
    start(VMM_IRQCHIP_NONE);
    OK(vcpu_msr_policy(cpu, 0, UINT32_MAX, VMM_MSR_DENY));
    CHECK(!access_msr(0xc0000082, false));
    OK(vcpu_msr_policy(cpu, 0xc0000080, 0xc00000ff, VMM_MSR_IGNORE));
    CHECK(access_msr(0xc0000082, false));
    OK(vcpu_msr_policy(cpu, 0xc0000082, 0xc0000082, VMM_MSR_EXIT));
    load_on(cpu, LONG64, GUEST_CODE(rdmsr));
    set_gpr(VMM_RCX, 0xc0000082);
    RUN(MSR);
    EQ(ex.u.msr.index, 0xc0000082);
    CHECK(access_msr(0xc0000081, false));
    CHECK(!access_msr(0x277, false));
    OK(vcpu_msr_policy(cpu, 0, UINT32_MAX, VMM_MSR_DEFAULT));
    CHECK(access_msr(0xc0000082, false));
    RESULT(vcpu_msr_policy(cpu, 2, 1, VMM_MSR_DENY), VMM_E_INVAL);
    RESULT(vcpu_msr_policy(cpu, 1, 2, 4), VMM_E_INVAL);
    for (uint32_t i = 1; i < 64; i++) /* one there is */
        OK(vcpu_msr_policy(cpu, i * 4, i * 4, i & 1 ? VMM_MSR_DENY : VMM_MSR_IGNORE));
    RESULT(vcpu_msr_policy(cpu, 0x1000, 0x1000, VMM_MSR_DENY), VMM_E_LIMIT);
    OK(vcpu_msr_policy(cpu, 0, 0xfff, VMM_MSR_DENY)); /* covers them all */
    OK(vcpu_msr_policy(cpu, 0x1000, 0x1000, VMM_MSR_DENY));
    end();
}

static void values_that_msrs_refuse(void)
{
    start(VMM_IRQCHIP_NONE);
    LOAD(LONG64, wrmsr);
    struct vcpu_regs r = get_regs(cpu);
    r.gpr[VMM_RCX] = 0xc0000080; /* EFER without LME, in long mode */
    set_regs(cpu, &r, VMM_REGS_GPR);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    CHECK(!access_msr(0x277, true) || get_regs(cpu).pat == 0x1000); /* 0x10 is no memory type */
    EQ(get_regs(cpu).efer & 0x500, 0x500);
    end();
}

static const struct conform_case cases[] = {
    CASE(the_default_table, "vm_default_cpuid gives a table that can be set"),
    CASE(the_guest_sees_the_table, "CPUID gives what the table says", .caps = VMM_CAP_CPUID_TABLE),
    CASE(a_changed_table, "CPUID gives what vcpu_set_cpuid has changed"),
    CASE(features_are_taken_away, "features that the table lacks are gone",
         .caps = VMM_CAP_CPUID_TABLE),
    CASE(unknown_features_are_refused, "features that are not in the default table are refused"),
    CASE(dynamic_bits, "OSXSAVE and the APIC id are the library's", .flags = CASE_MODES),
    CASE(leaves_that_are_not_there, "the hypervisor's leaves are the table's"),
    CASE(unknown_msrs, "MSRs that are not modelled raise #GP"),
    CASE(modelled_msrs, "modelled MSRs are read and written by the guest"),
    CASE(denied_and_ignored, "DENY raises #GP; IGNORE reads 0 and drops writes"),
    CASE(policy_is_the_vcpus, "a policy is for one vCPU"),
    CASE(later_ranges_override, "later ranges override earlier ones; 64 at most"),
    CASE(values_that_msrs_refuse, "values that an MSR cannot hold raise #GP"),
};

AREA(policy, cases);
