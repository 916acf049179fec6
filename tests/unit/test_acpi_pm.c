/* SPDX-License-Identifier: BSD-2-Clause */
/* test_acpi_pm.c: the fixed ACPI hardware as Linux drives it: ACPI mode, timer, events, S5, reset.
 */
#include <check.h>

#include "devices/acpi_pm.h"
#include "fake_vm.h"
#include <vmm/vcpu.h>

#define PORT 0x600
#define STS  (PORT + ACPI_PM1_EVT)
#define EN   (STS + 2)
#define CNT  (PORT + ACPI_PM1_CNT)
#define TMR  (PORT + ACPI_PM_TMR)
#define GPE  (PORT + ACPI_GPE0)
#define SCI  9

#define TMR_STS    0x0001
#define PWRBTN_STS 0x0100
#define SCI_EN     0x0001
#define SLP_EN     0x2000
#define SLP_TYP(n) ((n) << 10)

static struct vm *vm;
static struct vmm_acpi_pm *pm;

static void setup(void)
{
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_acpi_pm_create(vm, PORT, SCI, &pm), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

/* The clock at which the timer's tick `n` begins. */
static void at_tick(uint64_t n)
{
    uint64_t ns = (n * 1000000000 + ACPI_PM_TMR_HZ - 1) / ACPI_PM_TMR_HZ;

    fake_advance(vm, ns - vm->clock);
}

static void acpi_mode(void)
{
    outb(vm, ACPI_SMI_CMD, ACPI_ENABLE);
}

START_TEST(smi_command_switches_acpi_mode)
{
    ck_assert_uint_eq(inw(vm, CNT) & SCI_EN, 0);
    outb(vm, 0xb3, 0x5a);
    acpi_mode();
    ck_assert_uint_eq(inw(vm, CNT) & SCI_EN, 1);
    ck_assert_uint_eq(inb(vm, 0xb2), ACPI_ENABLE);
    ck_assert_uint_eq(inb(vm, 0xb3), 0x5a);
    outb(vm, ACPI_SMI_CMD, 0x00);
    ck_assert_uint_eq(inw(vm, CNT) & SCI_EN, 1);
    outb(vm, ACPI_SMI_CMD, ACPI_DISABLE);
    ck_assert_uint_eq(inw(vm, CNT) & SCI_EN, 0);
}
END_TEST

START_TEST(timer_counts_24_bits_at_3_58_mhz)
{
    ck_assert_uint_eq(inl(vm, TMR), 0);
    fake_advance(vm, 1000000000);
    ck_assert_uint_eq(inl(vm, TMR), 3579545);
    ck_assert_uint_eq(inw(vm, TMR), 3579545 & 0xffff);
    ck_assert_uint_eq(inb(vm, TMR + 2), 3579545 >> 16);
    ck_assert_uint_eq(inb(vm, TMR + 3), 0);
    outl(vm, TMR, 0); /* read-only */
    ck_assert_uint_eq(inl(vm, TMR), 3579545);
    at_tick(0x1000000 + 5);
    ck_assert_uint_eq(inl(vm, TMR), 5);
}
END_TEST

START_TEST(timer_status_follows_the_highest_bit)
{
    at_tick(0x7fffff);
    ck_assert_uint_eq(inw(vm, STS) & TMR_STS, 0);
    at_tick(0x800000);
    ck_assert_uint_eq(inw(vm, STS) & TMR_STS, 1);
    outw(vm, STS, TMR_STS);
    ck_assert_uint_eq(inw(vm, STS) & TMR_STS, 0);
    at_tick(0x1000000);
    ck_assert_uint_eq(inw(vm, STS) & TMR_STS, 1);
    ck_assert_uint_eq(vm->fired, 0); /* no host timer without the interrupt */
}
END_TEST

START_TEST(timer_carry_raises_the_sci)
{
    acpi_mode();
    outw(vm, EN, TMR_STS);
    at_tick(0x800000 - 1);
    ck_assert_int_eq(vm->level[SCI], 0);
    at_tick(0x800000);
    ck_assert_int_eq(vm->level[SCI], 1);
    outw(vm, STS, TMR_STS);
    ck_assert_int_eq(vm->level[SCI], 0);
    at_tick(0x1000000);
    ck_assert_int_eq(vm->level[SCI], 1);
    ck_assert_uint_eq(vm->edges[SCI], 2);
    ck_assert_uint_le(vm->fired, 2);
}
END_TEST

START_TEST(power_button_raises_the_sci_in_acpi_mode)
{
    vmm_acpi_pm_button(pm);
    ck_assert_uint_eq(inw(vm, STS), PWRBTN_STS);
    outw(vm, EN, PWRBTN_STS);
    ck_assert_int_eq(vm->level[SCI], 0); /* legacy mode */
    acpi_mode();
    ck_assert_int_eq(vm->level[SCI], 1);
    outw(vm, STS, 0); /* zeros clear nothing */
    ck_assert_int_eq(vm->level[SCI], 1);
    outw(vm, STS, 0xffff);
    ck_assert_int_eq(vm->level[SCI], 0);
    ck_assert_uint_eq(inw(vm, STS), 0);
    ck_assert_uint_eq(inw(vm, EN), PWRBTN_STS);
}
END_TEST

START_TEST(bytes_words_and_dwords_reach_the_same_registers)
{
    outl(vm, STS, 0x01210000);
    ck_assert_uint_eq(inw(vm, EN), 0x0121);
    outb(vm, EN + 1, 0);
    ck_assert_uint_eq(inw(vm, EN), 0x0021);
    outw(vm, EN, 0xffff); /* only the bits that exist */
    ck_assert_uint_eq(inl(vm, STS), 0x05210000);
    outw(vm, CNT, 0x1fff);
    ck_assert_uint_eq(inw(vm, CNT), 0x1c03); /* GBL_RLS reads as zero */
    outb(vm, CNT + 1, 0);
    ck_assert_uint_eq(inb(vm, CNT), 0x03);
    ck_assert_uint_eq(inl(vm, PORT + 0xc), 0);
    outl(vm, PORT + 0xc, 0xffffffff);
    ck_assert_uint_eq(inl(vm, PORT + 0xc), 0);
}
END_TEST

START_TEST(gpe_block_has_enables_and_no_events)
{
    outw(vm, GPE, 0xffff);
    outb(vm, GPE + 2, 0x12);
    outb(vm, GPE + 3, 0x34);
    ck_assert_uint_eq(inl(vm, GPE), 0x34120000);
}
END_TEST

START_TEST(s5_powers_off_and_nothing_else_does)
{
    for (unsigned typ = 0; typ < 8; typ++) {
        if (typ == ACPI_SLP_TYP_S5)
            continue;
        outw(vm, CNT, SLP_TYP(typ));
        outw(vm, CNT, SLP_TYP(typ) | SLP_EN);
    }
    outw(vm, CNT, SLP_TYP(ACPI_SLP_TYP_S5)); /* Linux writes the type first */
    ck_assert_uint_eq(vm->exits, 0);
    outw(vm, CNT, SLP_TYP(ACPI_SLP_TYP_S5) | SLP_EN);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_POWEROFF);
    ck_assert_uint_eq(inw(vm, CNT) & SLP_EN, 0);
    outb(vm, CNT + 1, (SLP_TYP(ACPI_SLP_TYP_S5) | SLP_EN) >> 8);
    ck_assert_uint_eq(vm->exits, 2);
}
END_TEST

START_TEST(reset_register_resets)
{
    outb(vm, ACPI_RESET_PORT, ACPI_RESET_VALUE);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
    ck_assert_uint_eq(inb(vm, ACPI_RESET_PORT), 2);
    outb(vm, ACPI_RESET_PORT, 0x0a);
    ck_assert_uint_eq(vm->exits, 1);
}
END_TEST

START_TEST(the_host_bridge_may_have_the_reset_register)
{
    fake_vm_free(vm);
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_pci_create(vm, NULL), 0);
    ck_assert_int_eq(vmm_acpi_pm_create(vm, PORT, SCI, NULL), 0);
    outb(vm, ACPI_RESET_PORT, ACPI_RESET_VALUE);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
}
END_TEST

START_TEST(reset_restores_power_on_state)
{
    acpi_mode();
    outw(vm, EN, PWRBTN_STS | TMR_STS);
    outw(vm, GPE + 2, 7);
    vmm_acpi_pm_button(pm);
    at_tick(0x800000);
    ck_assert_int_eq(vm->level[SCI], 1);
    fake_vm_reset(vm);
    ck_assert_int_eq(vm->level[SCI], 0);
    ck_assert_uint_eq(inl(vm, STS), 0);
    ck_assert_uint_eq(inw(vm, CNT), 0);
    ck_assert_uint_eq(inl(vm, GPE), 0);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
    ck_assert_int_eq(vmm_acpi_pm_create(vm, 0x601, SCI, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_acpi_pm_create(vm, 0x700, 24, NULL), VMM_E_RANGE);
    ck_assert_int_eq(vmm_acpi_pm_create(vm, PORT, SCI, NULL), VMM_E_EXIST);
    fake_vm_free(vm);
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_acpi_pm_create(vm, 0x700, VMM_IRQ_NONE, NULL), 0);
    outw(vm, 0x704, SCI_EN);
    ck_assert_uint_eq(inw(vm, 0x704), SCI_EN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("acpi_pm");
    TCase *tc = tcase_create("acpi_pm");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, smi_command_switches_acpi_mode);
    tcase_add_test(tc, timer_counts_24_bits_at_3_58_mhz);
    tcase_add_test(tc, timer_status_follows_the_highest_bit);
    tcase_add_test(tc, timer_carry_raises_the_sci);
    tcase_add_test(tc, power_button_raises_the_sci_in_acpi_mode);
    tcase_add_test(tc, bytes_words_and_dwords_reach_the_same_registers);
    tcase_add_test(tc, gpe_block_has_enables_and_no_events);
    tcase_add_test(tc, s5_powers_off_and_nothing_else_does);
    tcase_add_test(tc, reset_register_resets);
    tcase_add_test(tc, the_host_bridge_may_have_the_reset_register);
    tcase_add_test(tc, reset_restores_power_on_state);
    tcase_add_test(tc, bad_arguments_are_refused);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
