/* SPDX-License-Identifier: BSD-2-Clause */
/* test_policy.c: CPUID tables, MSR policies, their exits, breakpoint checks. */
#include <check.h>

#include "fake_backend.h"

#include <vmm/vmm.h>

static struct vm *vm;
static struct vcpu *vcpu;
static struct vcpu_exit ex;

static void begin(uint32_t flags, uint32_t irqchip)
{
    struct vm_config config = {.size = sizeof(config), .flags = flags, .irqchip = irqchip};

    vm = fake_vm(&config);
    vcpu = fake_add(vm, 0, NULL);
    memset(&ex, 0, sizeof(ex));
    ex.size = sizeof(ex);
}

static void end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
}

static uint32_t run(void)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return ex.reason;
}

static uint64_t reg(int index)
{
    return fake_cpu(vcpu)->regs.gpr[index];
}

static const char *last_error(void)
{
    static struct vmm_error e;

    e.size = sizeof(e);
    vm_last_error(vm, &e);
    return e.text;
}

/* ---- MSRs ---- */

static const struct fake_op msrs[] = {
    {.kind = OP_RDMSR, .a = 0x100}, {.kind = OP_WRMSR, .a = 0x101, .b = 7}, {.kind = OP_HLT}};

START_TEST(unmodelled_msrs_fault)
{
    begin(0, 0);
    fake_cpu(vcpu)->code = msrs;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(fake_cpu(vcpu)->faults, 2);
    end();
}
END_TEST

START_TEST(msr_exits_are_answered)
{
    begin(0, 0);
    fake_cpu(vcpu)->code = msrs;
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x100, 0x1ff, VMM_MSR_EXIT), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_MSR);
    ck_assert_uint_eq(ex.u.msr.index, 0x100);
    ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_READ);
    ex.u.msr.value = 0x123456789abcdef0;
    ck_assert_uint_eq(run(), VMM_EXIT_MSR);
    ck_assert_uint_eq(reg(VMM_RAX), 0x123456789abcdef0);
    ck_assert_uint_eq(ex.u.msr.index, 0x101);
    ck_assert_uint_eq(ex.u.msr.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.u.msr.value, 7);
    ex.u.msr.fault = 1;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(fake_cpu(vcpu)->faults, 1);
    end();
}
END_TEST

START_TEST(later_policies_override)
{
    begin(0, 0);
    fake_cpu(vcpu)->code = msrs;
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0, 0xffffffff, VMM_MSR_DENY), 0);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x100, 0x100, VMM_MSR_IGNORE), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(reg(VMM_RAX), 0);
    ck_assert_uint_eq(fake_cpu(vcpu)->faults, 1);

    ck_assert_int_eq(vcpu_msr_policy(vcpu, 2, 1, VMM_MSR_DENY), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 1, 2, 4), VMM_E_INVAL);
    for (uint32_t i = 0; i < 62; i++)
        ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x1000 + i, 0x1000 + i, VMM_MSR_DENY), 0);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x2000, 0x2000, VMM_MSR_DENY), VMM_E_LIMIT);
    /* What is hidden does not count. */
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x1005, 0x1005, VMM_MSR_IGNORE), 0);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0, 0xffffffff, VMM_MSR_DEFAULT), 0);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x2000, 0x2000, VMM_MSR_DENY), 0);
    end();
}
END_TEST

START_TEST(tsc_and_tsc_adjust_move_together)
{
    static const struct fake_op code[] = {
        {.kind = OP_WRMSR, .a = 0x10, .b = 1ull << 50},
        {.kind = OP_RDMSR, .a = 0x3b},
        {.kind = OP_HLT},
        {.kind = OP_WRMSR, .a = 0x3b, .b = 0},
        {.kind = OP_RDMSR, .a = 0x10},
        {.kind = OP_HLT},
    };

    begin(0, 0);
    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_gt(reg(VMM_RAX), (1ull << 50) - (1ull << 45));
    ck_assert_uint_le(reg(VMM_RAX), 1ull << 50);
    fake_cpu(vcpu)->regs.activity = VMM_ACTIVE;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_lt(reg(VMM_RAX), 1ull << 45);
    end();
}
END_TEST

START_TEST(apic_msrs_are_the_controllers)
{
    static const struct fake_op code[] = {
        {.kind = OP_RDMSR, .a = 0x1b},
        {.kind = OP_IN, .a = 0x99},
        {.kind = OP_RDMSR, .a = 0x802}, /* not in x2APIC mode */
        {.kind = OP_WRMSR, .a = 0x1b, .b = 0xfee00d00},
        {.kind = OP_RDMSR, .a = 0x803},
        {.kind = OP_IN, .a = 0x99},
    };
    uint64_t value;

    begin(0, VMM_IRQCHIP_PC);
    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(reg(VMM_RAX), 0xfee00900);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(fake_cpu(vcpu)->faults, 1);
    ck_assert_uint_eq(reg(VMM_RAX) & 0xff, 0x14); /* local APIC version */
    ck_assert_int_eq(vcpu_get_msr(vcpu, 0x1b, &value), 0);
    ck_assert_uint_eq(value, 0xfee00d00);
    end();
}
END_TEST

/* ---- CPUID ---- */

static uint32_t cpuid(uint32_t leaf, uint32_t subleaf, int index)
{
    uint32_t out[4];

    ck_assert_int_eq(core_cpuid(vcpu, 1, leaf, subleaf, out), CORE_IO_OK);
    return out[index];
}

START_TEST(lookups_follow_the_manual)
{
    begin(0, 0);
    ck_assert_uint_eq(cpuid(0, 0, 0), 0xb);
    ck_assert_uint_eq(cpuid(0, 5, 0), 0xb); /* subleaf does not matter */
    ck_assert_uint_eq(cpuid(1, 0, 3), 0x11);
    ck_assert_uint_eq(cpuid(0xb, 0, 2), 0x100);
    ck_assert_uint_eq(cpuid(0xb, 1, 2), 0x201);
    ck_assert_uint_eq(cpuid(0xb, 2, 2), 2);
    ck_assert_uint_eq(cpuid(0xb, 2, 0), 0);
    ck_assert_uint_eq(cpuid(5, 0, 0), 0);        /* a hole */
    ck_assert_uint_eq(cpuid(0x10, 1, 2), 0x201); /* past the end: the last basic leaf */
    ck_assert_uint_eq(cpuid(0x80000001, 0, 3), 0x20000000);
    ck_assert_uint_eq(cpuid(0x80000002, 0, 2), 0x100);
    ck_assert_uint_eq(cpuid(0x40000000, 0, 0), 0); /* no hypervisor leaves */
    end();
}
END_TEST

START_TEST(default_table)
{
    struct vmm_cpuid table[8];
    uint32_t n = 2;

    begin(0, 0);
    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), VMM_E_NOSPACE);
    ck_assert_uint_eq(n, 6);
    ck_assert_uint_eq(table[1].leaf, 1);
    n = 8;
    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), 0);
    ck_assert_uint_eq(n, 6);
    ck_assert_uint_eq(table[5].leaf, 0x80000001);
    ck_assert_int_eq(vm_default_cpuid(vm, NULL, NULL), VMM_E_INVAL);
    end();
}
END_TEST

START_TEST(tables_are_checked)
{
    struct vmm_cpuid table[257] = {0};
    uint32_t n = 257;

    begin(0, 0);
    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), 0);
    uint32_t sets = fake_cpu(vcpu)->sets;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, 257), VMM_E_LIMIT);
    table[1].ecx |= 1u << 27 | 1u << 31; /* dynamic, and "there is a hypervisor" */
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
    ck_assert_uint_eq(fake_cpu(vcpu)->sets, sets + 1);
    table[1].edx |= 1u << 25;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), VMM_E_UNSUPPORTED);
    ck_assert_str_eq(last_error(), "the feature CPUID.01H:EDX[bit 25] is not available");
    table[1].edx = 0;
    table[1].eax = 0x700; /* not a feature */
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
    ck_assert_uint_eq(cpuid(1, 0, 3), 0);
    ck_assert_uint_eq(cpuid(1, 0, 0), 0x700);
    table[n] = table[0];
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n + 1), VMM_E_INVAL);
    table[0].flags = 4;
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, NULL, 0), 0);
    ck_assert_uint_eq(cpuid(0, 0, 0), 0);
    end();
}
END_TEST

START_TEST(cpuid_exits)
{
    static const struct fake_op code[] = {
        {.kind = OP_CPUID, .a = 1}, {.kind = OP_CPUID, .a = 1}, {.kind = OP_HLT}};

    begin(VMM_VM_EXIT_CPUID, 0);
    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_CPUID);
    ck_assert_uint_eq(ex.u.cpuid.leaf, 1);
    ck_assert_uint_eq(ex.u.cpuid.eax, 0x600);
    ex.u.cpuid.eax = 0x999;
    ck_assert_uint_eq(run(), VMM_EXIT_CPUID);
    ck_assert_uint_eq(reg(VMM_RAX), 0x999);
    ck_assert_uint_eq(reg(VMM_RDX), 0x11);
    /* Not answered: the table's. */
    ex.reason = VMM_EXIT_NONE;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(reg(VMM_RAX), 0x600);
    end();
}
END_TEST

/* ---- breakpoints ---- */

static int set_debug(uint32_t type, uint64_t addr, uint32_t len)
{
    struct vmm_debug d = {.size = sizeof(d), .nbreakpoints = 1};

    d.breakpoints[0] = (struct vmm_breakpoint){.addr = addr, .type = type, .len = len};
    return vcpu_set_debug(vcpu, &d);
}

START_TEST(breakpoints_are_checked)
{
    struct vmm_debug d = {.size = sizeof(d), .nbreakpoints = 5};

    begin(0, 0);
    ck_assert_int_eq(vcpu_set_debug(vcpu, NULL), 0);
    ck_assert_int_eq(vcpu_set_debug(vcpu, &d), VMM_E_INVAL);
    d = (struct vmm_debug){.size = sizeof(d), .flags = 2};
    ck_assert_int_eq(vcpu_set_debug(vcpu, &d), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(set_debug(VMM_BREAK_EXEC, 0x1001, 0), 0);
    ck_assert_int_eq(set_debug(VMM_BREAK_EXEC, 0x1001, 2), VMM_E_INVAL);
    ck_assert_int_eq(set_debug(VMM_BREAK_WRITE, 0x1000, 3), VMM_E_INVAL);
    ck_assert_int_eq(set_debug(VMM_BREAK_ACCESS, 0x1002, 4), VMM_E_INVAL);
    ck_assert_int_eq(set_debug(VMM_BREAK_ACCESS, 0x1004, 4), 0);
    ck_assert_int_eq(set_debug(2, 0x1004, 4), VMM_E_INVAL);
    vm->caps.caps &= ~(uint64_t)VMM_CAP_WATCHPOINT;
    ck_assert_int_eq(set_debug(VMM_BREAK_WRITE, 0x1000, 4), VMM_E_UNSUPPORTED);
    end();
}
END_TEST

/* ---- interrupt functions without controllers ---- */

START_TEST(no_interrupt_controllers)
{
    begin(0, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(vm_irq_set(vm, 1, 1), VMM_E_STATE);
    ck_assert_int_eq(vm_irq_pulse(vm, 1), VMM_E_STATE);
    ck_assert_int_eq(vm_irq_msi(vm, 0xfee00000, 0), VMM_E_STATE);
    ck_assert_int_eq(vm_irq_on_eoi(vm, 1, NULL, NULL), VMM_E_STATE);
    end();
    begin(0, VMM_IRQCHIP_PC);
    ck_assert_int_eq(vm_irq_set(vm, 24, 1), VMM_E_RANGE);
    ck_assert_str_eq(last_error(), "line 24, but there are 24");
    ck_assert_int_eq(vm_irq_pulse(vm, 23), 0);
    ck_assert_int_eq(vm_irq_msi(vm, 0xfed00000, 0x30), VMM_E_RANGE);
    end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("policy");
    TCase *tc = tcase_create("policy");

    suite_add_tcase(s, tc);
    tcase_add_test(tc, unmodelled_msrs_fault);
    tcase_add_test(tc, msr_exits_are_answered);
    tcase_add_test(tc, later_policies_override);
    tcase_add_test(tc, tsc_and_tsc_adjust_move_together);
    tcase_add_test(tc, apic_msrs_are_the_controllers);
    tcase_add_test(tc, lookups_follow_the_manual);
    tcase_add_test(tc, default_table);
    tcase_add_test(tc, tables_are_checked);
    tcase_add_test(tc, cpuid_exits);
    tcase_add_test(tc, breakpoints_are_checked);
    tcase_add_test(tc, no_interrupt_controllers);

    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
