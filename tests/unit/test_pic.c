/* SPDX-License-Identifier: BSD-2-Clause */
/* test_pic.c: the 8259 pair: initialization, priorities, rotation, modes, EOI, polling, ELCR. */
#include <check.h>

#include "fake_irq.h"

#include "devices/irqchip_internal.h"

/* Both chips at vectors 0x20 and 0x28 with `icw4`, all inputs open. */
static void init(uint32_t icw4_master, uint32_t icw4_slave)
{
    outb(vm, 0x20, 0x11);
    outb(vm, 0x21, 0x20);
    outb(vm, 0x21, 0x04);
    outb(vm, 0x21, icw4_master);
    outb(vm, 0xa0, 0x11);
    outb(vm, 0xa1, 0x28);
    outb(vm, 0xa1, 0x02);
    outb(vm, 0xa1, icw4_slave);
    outb(vm, 0x21, 0x00);
    outb(vm, 0xa1, 0x00);
}

static void setup(void)
{
    irq_setup();
    init(0x01, 0x01);
}

static uint32_t irr(uint32_t port)
{
    outb(vm, port, 0x0a);
    return inb(vm, port);
}

static uint32_t isr(uint32_t port)
{
    outb(vm, port, 0x0b);
    return inb(vm, port);
}

static int intr(void)
{
    return lapic_intr(cpu[0].lapic);
}

START_TEST(initialization_sets_vectors_and_clears_the_mask)
{
    outb(vm, 0x21, 0xff);
    ck_assert_uint_eq(inb(vm, 0x21), 0xff);
    outb(vm, 0x20, 0x11);
    ck_assert_uint_eq(inb(vm, 0x21), 0);
    outb(vm, 0x21, 0x57); /* the low three bits do not count */
    outb(vm, 0x21, 0x04);
    line(3, 1);
    ck_assert_int_eq(intr(), 0); /* not before the sequence is over */
    outb(vm, 0x21, 0x01);
    ck_assert_int_eq(ack(0), 0x53);
}
END_TEST

START_TEST(initialization_without_icw4_ends_after_icw3)
{
    outb(vm, 0x20, 0x10);
    outb(vm, 0x21, 0x40);
    outb(vm, 0x21, 0x04);
    outb(vm, 0x21, 0xfd); /* OCW1 already */
    ck_assert_uint_eq(inb(vm, 0x21), 0xfd);
    pulse(0);
    ck_assert_int_eq(intr(), 0);
    pulse(1);
    ck_assert_int_eq(ack(0), 0x41);
}
END_TEST

START_TEST(initialization_of_a_single_chip_skips_icw3)
{
    outb(vm, 0x20, 0x13);
    outb(vm, 0x21, 0x48);
    outb(vm, 0x21, 0x03); /* ICW4: automatic EOI */
    outb(vm, 0x21, 0xfe);
    ck_assert_uint_eq(inb(vm, 0x21), 0xfe);
    pulse(0);
    ck_assert_int_eq(ack(0), 0x48);
    ck_assert_uint_eq(isr(0x20), 0);
}
END_TEST

START_TEST(icw1_forgets_edges_that_came_before)
{
    line(4, 1);
    init(1, 1);
    ck_assert_int_eq(intr(), 0);
    line(4, 0);
    line(4, 1);
    ck_assert_int_eq(ack(0), 0x24);
}
END_TEST

START_TEST(lower_inputs_go_first_and_hold_others_back)
{
    pulse(5);
    pulse(3);
    ck_assert_uint_eq(irr(0x20), 0x28);
    ck_assert_int_eq(ack(0), 0x23);
    ck_assert_uint_eq(isr(0x20), 0x08);
    ck_assert_uint_eq(irr(0x20), 0x20);
    ck_assert_int_eq(intr(), 0);
    pulse(1); /* better: nests */
    ck_assert_int_eq(ack(0), 0x21);
    ck_assert_uint_eq(isr(0x20), 0x0a);
    outb(vm, 0x20, 0x20); /* non-specific EOI: of input 1 */
    ck_assert_uint_eq(isr(0x20), 0x08);
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x20, 0x63); /* specific EOI of input 3 */
    ck_assert_int_eq(ack(0), 0x25);
}
END_TEST

START_TEST(masked_inputs_wait)
{
    outb(vm, 0x21, 0x10);
    pulse(4);
    ck_assert_int_eq(intr(), 0);
    ck_assert_uint_eq(irr(0x20), 0x10);
    outb(vm, 0x21, 0x00);
    ck_assert_int_eq(ack(0), 0x24);
}
END_TEST

START_TEST(the_slave_comes_through_input_2)
{
    pulse(14);
    ck_assert_uint_eq(irr(0x20), 0x04);
    ck_assert_int_eq(ack(0), 0x2e);
    ck_assert_uint_eq(isr(0x20), 0x04);
    ck_assert_uint_eq(isr(0xa0), 0x40);
    pulse(8); /* better on the slave, but the master serves the slave already */
    ck_assert_int_eq(intr(), 0);
    pulse(3); /* behind the slave */
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0xa0, 0x20);
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(ack(0), 0x28);
    outb(vm, 0xa0, 0x20);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(ack(0), 0x23);
}
END_TEST

START_TEST(special_fully_nested_mode_lets_the_slave_nest)
{
    init(0x11, 0x01);
    pulse(14);
    ck_assert_int_eq(ack(0), 0x2e);
    pulse(15);
    ck_assert_int_eq(intr(), 0);
    pulse(9);
    ck_assert_int_eq(ack(0), 0x29);
    ck_assert_uint_eq(isr(0xa0), 0x42);
}
END_TEST

START_TEST(automatic_eoi_ends_at_the_acknowledge)
{
    init(0x03, 0x03);
    pulse(6);
    ck_assert_int_eq(ack(0), 0x26);
    ck_assert_uint_eq(isr(0x20), 0);
    pulse(12);
    ck_assert_int_eq(ack(0), 0x2c);
    ck_assert_uint_eq(isr(0x20), 0);
    ck_assert_uint_eq(isr(0xa0), 0);
    pulse(7);
    ck_assert_int_eq(ack(0), 0x27);
}
END_TEST

START_TEST(rotation_in_automatic_eoi_mode)
{
    init(0x03, 0x03);
    outb(vm, 0x20, 0x80); /* set */
    pulse(3);
    ck_assert_int_eq(ack(0), 0x23); /* 3 is the last now */
    pulse(3);
    pulse(6);
    ck_assert_int_eq(ack(0), 0x26);
    ck_assert_int_eq(ack(0), 0x23);
    outb(vm, 0x20, 0x00); /* clear: the order stays */
    pulse(3);
    pulse(5);
    ck_assert_int_eq(ack(0), 0x25);
    ck_assert_int_eq(ack(0), 0x23);
    pulse(4);
    ck_assert_int_eq(ack(0), 0x24);
}
END_TEST

START_TEST(rotation_by_eoi_and_set_priority)
{
    pulse(4);
    ck_assert_int_eq(ack(0), 0x24);
    outb(vm, 0x20, 0xa0); /* rotate on non-specific EOI */
    ck_assert_uint_eq(isr(0x20), 0);
    pulse(4);
    pulse(5);
    ck_assert_int_eq(ack(0), 0x25);
    outb(vm, 0x20, 0xe5); /* rotate on specific EOI: 5 is last, then 6, 7, 0 ... 4 */
    pulse(6);
    ck_assert_int_eq(ack(0), 0x26);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(ack(0), 0x24);
    outb(vm, 0x20, 0x20);
    outb(vm, 0x20, 0xc7); /* set priority: 7 last, as at the start */
    pulse(0);
    pulse(6);
    ck_assert_int_eq(ack(0), 0x20);
}
END_TEST

START_TEST(a_no_operation_of_ocw2_changes_nothing)
{
    pulse(1);
    ck_assert_int_eq(ack(0), 0x21);
    outb(vm, 0x20, 0x40);
    ck_assert_uint_eq(isr(0x20), 0x02);
    pulse(0);
    ck_assert_int_eq(ack(0), 0x20);
}
END_TEST

START_TEST(special_mask_mode_opens_lower_inputs)
{
    pulse(2 + 1);
    ck_assert_int_eq(ack(0), 0x23);
    pulse(6);
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x21, 0x08); /* mask what is in service */
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x20, 0x68); /* special mask mode */
    ck_assert_int_eq(ack(0), 0x26);
    outb(vm, 0x20, 0x20); /* non-specific EOI passes over the masked one */
    ck_assert_uint_eq(isr(0x20), 0x08);
    outb(vm, 0x20, 0x48); /* out of it */
    pulse(5);
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x20, 0x63);
    ck_assert_int_eq(ack(0), 0x25);
}
END_TEST

START_TEST(polling_acknowledges)
{
    outb(vm, 0x20, 0x0c);
    ck_assert_uint_eq(inb(vm, 0x20) & 0x80, 0);
    pulse(5);
    pulse(1);
    outb(vm, 0x20, 0x0c);
    ck_assert_uint_eq(inb(vm, 0x20), 0x81);
    ck_assert_uint_eq(isr(0x20), 0x02);
    ck_assert_int_eq(intr(), 0);
    outb(vm, 0x20, 0x20);
    pulse(10);
    outb(vm, 0xa0, 0x0c);
    ck_assert_uint_eq(inb(vm, 0xa0), 0x82);
    ck_assert_uint_eq(isr(0xa0), 0x04);
    ck_assert_int_eq(ack(0), 0x25); /* the slave's request is gone */
}
END_TEST

START_TEST(a_request_that_goes_away_gives_input_7_without_service)
{
    outb(vm, 0x4d0, 0x20);
    line(5, 1);
    ck_assert_int_eq(intr(), 1);
    line(5, 0); /* between the CPU's look at INTR and its INTA cycles */
    ck_assert_uint_eq(pic_ack(chip), 0x27);
    ck_assert_uint_eq(isr(0x20), 0);
    ck_assert_int_eq(intr(), 0);
    pulse(7); /* a real one is in service */
    ck_assert_int_eq(ack(0), 0x27);
    ck_assert_uint_eq(isr(0x20), 0x80);
}
END_TEST

START_TEST(level_triggered_inputs_request_while_they_are_high)
{
    outb(vm, 0x4d0, 0xff);
    outb(vm, 0x4d1, 0xff);
    ck_assert_uint_eq(inb(vm, 0x4d0), 0xf8); /* 0, 1, 2 and 8, 13 stay edge-triggered */
    ck_assert_uint_eq(inb(vm, 0x4d1), 0xde);
    line(11, 1);
    ck_assert_int_eq(ack(0), 0x2b);
    ck_assert_uint_eq(irr(0xa0), 0x08);
    outb(vm, 0xa0, 0x20);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(ack(0), 0x2b);
    line(11, 0);
    outb(vm, 0xa0, 0x20);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(intr(), 0);
    line(9, 1);
    outb(vm, 0xa0, 0x11); /* initialization does not lose a level */
    outb(vm, 0xa1, 0x28);
    outb(vm, 0xa1, 0x02);
    outb(vm, 0xa1, 0x01);
    ck_assert_int_eq(ack(0), 0x29);
}
END_TEST

START_TEST(edges_need_a_rise)
{
    line(6, 1);
    line(6, 1);
    ck_assert_int_eq(ack(0), 0x26);
    outb(vm, 0x20, 0x20);
    ck_assert_int_eq(intr(), 0);
    line(6, 0);
    line(6, 1);
    ck_assert_int_eq(ack(0), 0x26);
}
END_TEST

static uint32_t eois, eoi_line;

static void count_eoi(void *opaque, uint32_t n)
{
    (void)opaque;
    eois++;
    eoi_line = n;
    irqchip_set_line(chip, n, 0);
}

START_TEST(eoi_of_a_level_triggered_input_is_told)
{
    eois = 0;
    eoi_callback[10] = count_eoi;
    pulse(10);
    ck_assert_int_eq(ack(0), 0x2a);
    outb(vm, 0xa0, 0x20);
    ck_assert_uint_eq(eois, 0); /* edge-triggered */
    outb(vm, 0x20, 0x20);
    outb(vm, 0x4d1, 0x04);
    line(10, 1);
    ck_assert_int_eq(ack(0), 0x2a);
    outb(vm, 0xa0, 0x20);
    outb(vm, 0x20, 0x20);
    ck_assert_uint_eq(eois, 1);
    ck_assert_uint_eq(eoi_line, 10);
    ck_assert_int_eq(intr(), 0);
}
END_TEST

START_TEST(reset_is_power_on)
{
    outb(vm, 0x4d0, 0xf8);
    outb(vm, 0x21, 0xaa);
    pulse(1);
    irqchip_reset(chip);
    ck_assert_uint_eq(inb(vm, 0x21), 0);
    ck_assert_uint_eq(inb(vm, 0x4d0), 0);
    ck_assert_int_eq(intr(), 0);
}
END_TEST

START_TEST(only_the_boot_processor_sees_intr_in_virtual_wire_mode)
{
    pulse(1);
    ck_assert_int_eq(lapic_intr(cpu[1].lapic), 0);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    ck_assert_int_eq(ack(0), 0x21);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pic");
    TCase *tc = tcase_create("pic");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, irq_teardown);
    tcase_add_test(tc, initialization_sets_vectors_and_clears_the_mask);
    tcase_add_test(tc, initialization_without_icw4_ends_after_icw3);
    tcase_add_test(tc, initialization_of_a_single_chip_skips_icw3);
    tcase_add_test(tc, icw1_forgets_edges_that_came_before);
    tcase_add_test(tc, lower_inputs_go_first_and_hold_others_back);
    tcase_add_test(tc, masked_inputs_wait);
    tcase_add_test(tc, the_slave_comes_through_input_2);
    tcase_add_test(tc, special_fully_nested_mode_lets_the_slave_nest);
    tcase_add_test(tc, automatic_eoi_ends_at_the_acknowledge);
    tcase_add_test(tc, rotation_in_automatic_eoi_mode);
    tcase_add_test(tc, rotation_by_eoi_and_set_priority);
    tcase_add_test(tc, a_no_operation_of_ocw2_changes_nothing);
    tcase_add_test(tc, special_mask_mode_opens_lower_inputs);
    tcase_add_test(tc, polling_acknowledges);
    tcase_add_test(tc, a_request_that_goes_away_gives_input_7_without_service);
    tcase_add_test(tc, level_triggered_inputs_request_while_they_are_high);
    tcase_add_test(tc, edges_need_a_rise);
    tcase_add_test(tc, eoi_of_a_level_triggered_input_is_told);
    tcase_add_test(tc, reset_is_power_on);
    tcase_add_test(tc, only_the_boot_processor_sees_intr_in_virtual_wire_mode);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
