/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ioapic.c: the I/O APIC's registers, trigger modes, remote IRR, EOI, and destinations. */
#include <check.h>

#include "fake_irq.h"

#define SELECT 0xfec00000ull
#define WINDOW 0xfec00010ull
#define EOI    0xfec00040ull

#define MASKED     0x10000u
#define LEVEL      0x8000u
#define REMOTE_IRR 0x4000u
#define LOGICAL    0x800u

static uint32_t get(uint32_t reg)
{
    mmio_out(vm, SELECT, 4, reg);
    return (uint32_t)mmio_in(vm, WINDOW, 4);
}

static void set(uint32_t reg, uint32_t value)
{
    mmio_out(vm, SELECT, 4, reg);
    mmio_out(vm, WINDOW, 4, value);
}

static uint32_t rte(uint32_t pin)
{
    return get(0x10 + 2 * pin);
}

static void set_rte(uint32_t pin, uint32_t dest, uint32_t low)
{
    set(0x11 + 2 * pin, dest << 24);
    set(0x10 + 2 * pin, low);
}

static void setup(void)
{
    irq_setup();
    outb(vm, 0x21, 0xff); /* the 8259s keep out of it */
    outb(vm, 0xa1, 0xff);
    apic_enable_all();
}

static void eoi(uint32_t n)
{
    apic_write(n, 0xb0, 0);
}

START_TEST(registers)
{
    ck_assert_uint_eq(get(1), 0x00170020);
    set(0, 0xffffffff);
    ck_assert_uint_eq(get(0), 0x0f000000);
    ck_assert_uint_eq(get(2), 0x0f000000);
    set(0, 0x03000000);
    ck_assert_uint_eq(get(0), 0x03000000);
    set(1, 0);
    ck_assert_uint_eq(get(1), 0x00170020);
    for (uint32_t pin = 0; pin < 24; pin++)
        ck_assert_uint_eq(rte(pin), MASKED);
    ck_assert_uint_eq(get(0x40), 0); /* behind the last entry */
    set(0x40, 0xffffffff);
    ck_assert_uint_eq(mmio_in(vm, SELECT, 4), 0x40);
}
END_TEST

START_TEST(redirection_entries_keep_their_writable_bits)
{
    set(0x3e, 0xffffffff);
    set(0x3f, 0xffffffff);
    ck_assert_uint_eq(get(0x3e), 0x0001afff);
    ck_assert_uint_eq(get(0x3f), 0xff000000);
}
END_TEST

START_TEST(isa_line_0_is_pin_2_and_others_keep_their_number)
{
    set_rte(2, 0, 0x30);
    set_rte(4, 1, 0x34);
    set_rte(23, 2, 0x47);
    pulse(0);
    ck_assert_int_eq(ack(0), 0x30);
    pulse(4);
    ck_assert_int_eq(ack(1), 0x34);
    pulse(23);
    ck_assert_int_eq(ack(2), 0x47);
    pulse(2); /* the cascade: not wired */
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_int_eq(irqchip_set_line(chip, 24, 1), VMM_E_RANGE);
}
END_TEST

START_TEST(edges_are_delivered_once_and_lost_while_masked)
{
    set_rte(5, 0, 0x35 | MASKED);
    line(5, 1);
    set_rte(5, 0, 0x35);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    line(5, 0);
    line(5, 1);
    line(5, 1);
    ck_assert_int_eq(ack(0), 0x35);
    ck_assert_uint_eq(rte(5), 0x35); /* no remote IRR */
    eoi(0);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_uint_eq(apic_read(0, 0x180 + 0x10), 0); /* TMR */
}
END_TEST

START_TEST(levels_are_delivered_again_after_eoi_while_they_last)
{
    set_rte(10, 0, 0x5a | LEVEL);
    line(10, 1);
    ck_assert_uint_eq(rte(10), 0x5a | LEVEL | REMOTE_IRR);
    ck_assert_int_eq(ack(0), 0x5a);
    ck_assert_uint_eq(apic_read(0, 0x180 + 0x20), 1u << 0x1a); /* TMR */
    line(10, 0);
    line(10, 1); /* remote IRR holds it */
    ck_assert_uint_eq(apic_read(0, 0x200 + 0x20), 0);
    eoi(0);
    ck_assert_int_eq(ack(0), 0x5a);
    line(10, 0);
    eoi(0);
    ck_assert_uint_eq(rte(10), 0x5a | LEVEL);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(a_masked_level_is_delivered_when_unmasked)
{
    set_rte(11, 0, 0x5b | LEVEL | MASKED);
    line(11, 1);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    set_rte(11, 0, 0x5b | LEVEL);
    ck_assert_int_eq(ack(0), 0x5b);
    set_rte(11, 0, 0x5b | LEVEL | MASKED); /* remote IRR outlives the mask */
    ck_assert_uint_eq(rte(11), 0x5b | LEVEL | MASKED | REMOTE_IRR);
    eoi(0);
    ck_assert_uint_eq(rte(11), 0x5b | LEVEL | MASKED);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    set_rte(11, 0, 0x5b | LEVEL);
    ck_assert_int_eq(ack(0), 0x5b);
}
END_TEST

START_TEST(directed_eoi_clears_remote_irr)
{
    set_rte(12, 0, 0x5c | LEVEL);
    line(12, 1);
    mmio_out(vm, EOI, 4, 0x5d);
    ck_assert_uint_eq(rte(12), 0x5c | LEVEL | REMOTE_IRR);
    line(12, 0);
    mmio_out(vm, EOI, 4, 0x5c);
    ck_assert_uint_eq(rte(12), 0x5c | LEVEL);
}
END_TEST

START_TEST(becoming_edge_triggered_clears_remote_irr)
{
    set_rte(12, 0, 0x5c | LEVEL);
    line(12, 1);
    line(12, 0);
    set(0x10 + 24, 0x5c | MASKED);
    ck_assert_uint_eq(rte(12), 0x5c | MASKED);
    set(0x10 + 24, 0x5c | LEVEL);
    ck_assert_uint_eq(rte(12), 0x5c | LEVEL);
}
END_TEST

START_TEST(pins_that_share_a_vector_end_together)
{
    set_rte(16, 0, 0x60 | LEVEL);
    set_rte(17, 0, 0x60 | LEVEL);
    line(16, 1);
    line(17, 1);
    ck_assert_int_eq(ack(0), 0x60);
    line(16, 0);
    eoi(0);
    ck_assert_uint_eq(rte(16), 0x60 | LEVEL);
    ck_assert_uint_eq(rte(17), 0x60 | LEVEL | REMOTE_IRR);
    ck_assert_int_eq(ack(0), 0x60);
}
END_TEST

static uint32_t eois[24];

static void lower(void *opaque, uint32_t n)
{
    (void)opaque;
    eois[n]++;
    irqchip_set_line(chip, n, 0);
}

START_TEST(eoi_callbacks_come_before_the_next_delivery)
{
    memset(eois, 0, sizeof(eois));
    eoi_callback[18] = eoi_callback[0] = lower;
    set_rte(18, 0, 0x61 | LEVEL);
    line(18, 1);
    ck_assert_int_eq(ack(0), 0x61);
    eoi(0);
    ck_assert_uint_eq(eois[18], 1);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    set_rte(2, 0, 0x62 | LEVEL); /* pin 2 is line 0 */
    line(0, 1);
    ck_assert_int_eq(ack(0), 0x62);
    eoi(0);
    ck_assert_uint_eq(eois[0], 1);
    ck_assert_uint_eq(eois[2], 0);
}
END_TEST

START_TEST(delivery_modes)
{
    set_rte(5, 1, 0x400); /* NMI: its vector does not count */
    line(5, 1);
    ck_assert_uint_eq(cpu[1].nmi, 1);
    set_rte(6, 1, 0x500); /* INIT */
    line(6, 1);
    ck_assert_uint_eq(cpu[1].init, 1);
    set_rte(7, 1, 0x400 | LEVEL); /* NMI is edge-triggered whatever the entry says */
    line(7, 1);
    ck_assert_uint_eq(cpu[1].nmi, 2);
    ck_assert_uint_eq(rte(7) & REMOTE_IRR, 0);
    set_rte(8, 1, 0x600); /* reserved: SIPI cannot come from here */
    line(8, 1);
    ck_assert_uint_eq(cpu[1].sipi, 0);
    set_rte(9, 1, 0x200); /* SMI: nothing there */
    line(9, 1);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    set_rte(10, 1, 0x0f); /* an illegal vector is noted in the receiver's ESR */
    line(10, 1);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    apic_write(1, 0x280, 0);
    ck_assert_uint_eq(apic_read(1, 0x280), 0x40);
}
END_TEST

START_TEST(extint_through_pin_0_runs_the_inta_cycles)
{
    apic_write(0, 0x350, MASKED); /* LINT0 shut */
    outb(vm, 0x20, 0x11);
    outb(vm, 0x21, 0x20);
    outb(vm, 0x21, 0x04);
    outb(vm, 0x21, 0x01);
    set_rte(0, 1, 0x700);
    pulse(3);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_int_eq(ack(1), 0x23);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    pulse(1);
    ck_assert_int_eq(ack(1), 0x21);
}
END_TEST

START_TEST(polarity_is_stored_only)
{
    set_rte(13, 0, 0x3d | 0x2000);
    ck_assert_uint_eq(rte(13), 0x3d | 0x2000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    line(13, 1);
    ck_assert_int_eq(ack(0), 0x3d);
}
END_TEST

START_TEST(physical_broadcast_reaches_all)
{
    set_rte(5, 0xff, 0x35);
    pulse(5);
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_int_eq(ack(n), 0x35);
}
END_TEST

START_TEST(logical_flat_destinations)
{
    for (uint32_t n = 0; n < CPUS; n++)
        apic_write(n, 0xd0, 1u << (24 + n));
    set_rte(5, 0x0a, 0x35 | LOGICAL);
    pulse(5);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_int_eq(ack(1), 0x35);
    ck_assert_int_eq(ack(2), NO_VECTOR);
    ck_assert_int_eq(ack(3), 0x35);
}
END_TEST

START_TEST(lowest_priority_goes_to_the_least_busy)
{
    for (uint32_t n = 0; n < CPUS; n++) {
        apic_write(n, 0xd0, 1u << (24 + n));
        apic_write(n, 0x80, n == 2 ? 0x10 : 0x40);
    }
    set_rte(5, 0x0f, 0x75 | LOGICAL | 0x100);
    pulse(5);
    ck_assert_int_eq(ack(2), 0x75);
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_int_eq(ack(n), NO_VECTOR);
    eoi(2);
    apic_write(2, 0x80, 0x40); /* equals take turns */
    uint32_t got[CPUS] = {0};
    for (uint32_t i = 0; i < 8; i++) {
        pulse(5);
        for (uint32_t n = 0; n < CPUS; n++) {
            if (ack(n) == 0x75) {
                got[n]++;
                eoi(n);
            }
        }
    }
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_uint_eq(got[n], 2);
}
END_TEST

START_TEST(a_level_without_a_taker_waits)
{
    apic_write(1, 0xf0, 0x0ff); /* disabled by software */
    set_rte(5, 1, 0x35 | LEVEL);
    line(5, 1);
    ck_assert_uint_eq(rte(5) & REMOTE_IRR, 0);
    apic_enable(1);
    set_rte(5, 1, 0x35 | LEVEL);
    ck_assert_int_eq(ack(1), 0x35);
}
END_TEST

START_TEST(reset_masks_everything)
{
    set_rte(5, 1, 0x35);
    set(0, 0x05000000);
    irqchip_reset(chip);
    ck_assert_uint_eq(rte(5), MASKED);
    ck_assert_uint_eq(get(0x1b), 0);
    ck_assert_uint_eq(get(0), 0);
}
END_TEST

/* ---- message-signalled interrupts ---- */

static void msi(uint64_t address, uint32_t data)
{
    ck_assert_int_eq(irqchip_msi(chip, address, data), 0);
}

START_TEST(msi_physical)
{
    ck_assert_int_eq(irqchip_msi(chip, 0xfed00000, 0x41), VMM_E_RANGE);
    ck_assert_int_eq(irqchip_msi(chip, 0x1fee00000ull, 0x41), VMM_E_RANGE);
    msi(0xfee02000, 0x41);
    ck_assert_int_eq(ack(2), 0x41);
    eoi(2);
    msi(0xfee0a000, 0x41); /* nobody */
    msi(0xfeeff000, 0x42);
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_int_eq(ack(n), 0x42);
}
END_TEST

START_TEST(msi_logical_and_redirection_hint)
{
    for (uint32_t n = 0; n < CPUS; n++) {
        apic_write(n, 0xd0, 1u << (24 + n));
        apic_write(n, 0x80, n == 3 ? 0x00 : 0x20);
    }
    msi(0xfee0e004, 0x51); /* to 1, 2 and 3 */
    for (uint32_t n = 0; n < CPUS; n++) {
        ck_assert_int_eq(ack(n), n ? 0x51 : NO_VECTOR);
        eoi(n);
    }
    msi(0xfee0e00c, 0x52); /* to the one with the lowest priority of them */
    ck_assert_int_eq(ack(3), 0x52);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    ck_assert_int_eq(ack(2), NO_VECTOR);
    eoi(3);
    msi(0xfee01008, 0x53); /* physical with the hint: the one CPU */
    ck_assert_int_eq(ack(1), 0x53);
}
END_TEST

START_TEST(msi_delivery_modes)
{
    msi(0xfee01000, 0x400);
    ck_assert_uint_eq(cpu[1].nmi, 1);
    msi(0xfee01000, 0x500);
    ck_assert_uint_eq(cpu[1].init, 1);
    msi(0xfee01000, 0x600);
    ck_assert_uint_eq(cpu[1].sipi, 0);
    msi(0xfee01000, 0x8041); /* level, deasserted: nothing */
    ck_assert_int_eq(ack(1), NO_VECTOR);
    msi(0xfee01000, 0xc041);
    ck_assert_int_eq(ack(1), 0x41);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ioapic");
    TCase *tc = tcase_create("ioapic");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, irq_teardown);
    tcase_add_test(tc, registers);
    tcase_add_test(tc, redirection_entries_keep_their_writable_bits);
    tcase_add_test(tc, isa_line_0_is_pin_2_and_others_keep_their_number);
    tcase_add_test(tc, edges_are_delivered_once_and_lost_while_masked);
    tcase_add_test(tc, levels_are_delivered_again_after_eoi_while_they_last);
    tcase_add_test(tc, a_masked_level_is_delivered_when_unmasked);
    tcase_add_test(tc, directed_eoi_clears_remote_irr);
    tcase_add_test(tc, becoming_edge_triggered_clears_remote_irr);
    tcase_add_test(tc, pins_that_share_a_vector_end_together);
    tcase_add_test(tc, eoi_callbacks_come_before_the_next_delivery);
    tcase_add_test(tc, delivery_modes);
    tcase_add_test(tc, extint_through_pin_0_runs_the_inta_cycles);
    tcase_add_test(tc, polarity_is_stored_only);
    tcase_add_test(tc, physical_broadcast_reaches_all);
    tcase_add_test(tc, logical_flat_destinations);
    tcase_add_test(tc, lowest_priority_goes_to_the_least_busy);
    tcase_add_test(tc, a_level_without_a_taker_waits);
    tcase_add_test(tc, reset_masks_everything);
    tcase_add_test(tc, msi_physical);
    tcase_add_test(tc, msi_logical_and_redirection_hint);
    tcase_add_test(tc, msi_delivery_modes);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
