/* SPDX-License-Identifier: BSD-2-Clause */
/* test_pit.c: the 8254 and port 0x61: modes, latching, gate, interrupts without drift. */
#include <check.h>

#include "fake_vm.h"

#define HZ 1193182ull

static struct vm *vm;

static void setup(void)
{
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_pit_create(vm), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

/* Moves the clock to the beginning of the tick that lies `n` ticks ahead. */
static void ticks(uint64_t n)
{
    uint64_t now = vm->clock * HZ / 1000000000;

    fake_advance(vm, ((now + n) * 1000000000 + HZ - 1) / HZ - vm->clock);
}

static void program(int counter, unsigned rw, unsigned mode, unsigned bcd, unsigned count)
{
    outb(vm, 0x43, counter << 6 | rw << 4 | mode << 1 | bcd);
    if (rw & 1)
        outb(vm, 0x40 + counter, count & 0xff);
    if (rw & 2)
        outb(vm, 0x40 + counter, count >> 8);
}

static unsigned latch(int counter)
{
    outb(vm, 0x43, counter << 6);
    unsigned low = inb(vm, 0x40 + counter);
    return low | inb(vm, 0x40 + counter) << 8;
}

static unsigned status(int counter)
{
    outb(vm, 0x43, 0xe0 | 2 << counter);
    return inb(vm, 0x40 + counter);
}

#define OUT(counter) (status(counter) >> 7)

START_TEST(mode2_interrupts_at_the_exact_rate_for_an_hour)
{
    program(0, 3, 2, 0, 11932); /* Linux at 100 Hz */
    fake_advance(vm, 1000000000ull * 3600);
    ck_assert_uint_eq(vm->edges[0], HZ * 3600 / 11932);
}
END_TEST

START_TEST(mode2_counts_down_and_reloads)
{
    program(0, 3, 2, 0, 1000);
    ck_assert_uint_eq(latch(0), 1000);
    ticks(999);
    ck_assert_uint_eq(latch(0), 1);
    ck_assert_uint_eq(OUT(0), 0);
    ticks(1);
    ck_assert_uint_eq(latch(0), 1000);
    ck_assert_uint_eq(OUT(0), 1);
    ck_assert_uint_eq(vm->edges[0], 1);
}
END_TEST

START_TEST(mode2_takes_a_new_count_at_the_end_of_the_period)
{
    program(0, 3, 2, 0, 1000);
    ticks(400);
    outb(vm, 0x40, 500 & 0xff);
    outb(vm, 0x40, 500 >> 8);
    ck_assert_uint_eq(status(0) & 0x40, 0x40); /* null count: not in the counter yet */
    ck_assert_uint_eq(latch(0), 600);
    ticks(600);
    ck_assert_uint_eq(vm->edges[0], 1);
    ck_assert_uint_eq(latch(0), 500);
    ck_assert_uint_eq(status(0) & 0x40, 0);
    ticks(499);
    ck_assert_uint_eq(vm->edges[0], 1);
    ticks(1);
    ck_assert_uint_eq(vm->edges[0], 2);
}
END_TEST

START_TEST(mode3_is_a_square_wave_counted_by_twos)
{
    program(2, 3, 3, 0, 100);
    outb(vm, 0x61, 1);
    ck_assert_uint_eq(latch(2), 100);
    ticks(10);
    ck_assert_uint_eq(latch(2), 80);
    ticks(39);
    ck_assert_uint_eq(OUT(2), 1);
    ticks(1);
    ck_assert_uint_eq(OUT(2), 0);
    ck_assert_uint_eq(latch(2), 100);
    ticks(50);
    ck_assert_uint_eq(OUT(2), 1);
}
END_TEST

START_TEST(mode3_takes_a_new_count_at_the_end_of_the_half)
{
    program(0, 3, 3, 0, 1000);
    ticks(3100); /* in the high half of the fourth period */
    ck_assert_uint_eq(vm->edges[0], 3);
    outb(vm, 0x40, 100);
    outb(vm, 0x40, 0);
    ticks(399);
    ck_assert_uint_eq(OUT(0), 1);
    ticks(1);
    ck_assert_uint_eq(OUT(0), 0);
    ticks(49);
    ck_assert_uint_eq(vm->edges[0], 3);
    ticks(1);
    ck_assert_uint_eq(OUT(0), 1);
    ck_assert_uint_eq(vm->edges[0], 4);
    ticks(100);
    ck_assert_uint_eq(vm->edges[0], 5);
}
END_TEST

START_TEST(mode3_odd_counts_are_high_one_period_longer)
{
    program(0, 1, 3, 0, 5);
    unsigned high = 0;
    for (int i = 0; i < 50; i++) {
        high += OUT(0);
        ticks(1);
    }
    ck_assert_uint_eq(high, 30);
}
END_TEST

/* Linux and memtest86+ calibrate the TSC so: gate on, mode 0, wait for OUT in port 0x61. */
START_TEST(channel2_calibration_by_port_61)
{
    outb(vm, 0x61, (inb(vm, 0x61) & ~0x02u) | 0x01);
    program(2, 3, 0, 0, 59659); /* 50 ms */
    ck_assert_uint_eq(inb(vm, 0x61) & 0x20, 0);
    fake_advance(vm, 49999000);
    ck_assert_uint_eq(inb(vm, 0x61) & 0x20, 0);
    fake_advance(vm, 2000);
    ck_assert_uint_eq(inb(vm, 0x61) & 0x20, 0x20);
    ck_assert_uint_eq(inb(vm, 0x61) & 0x03, 0x01);
}
END_TEST

START_TEST(mode0_gate_holds_the_count)
{
    outb(vm, 0x61, 1);
    program(2, 3, 0, 0, 1000);
    ticks(300);
    outb(vm, 0x61, 0);
    ticks(5000);
    ck_assert_uint_eq(latch(2), 700);
    ck_assert_uint_eq(OUT(2), 0);
    outb(vm, 0x61, 1);
    ticks(700);
    ck_assert_uint_eq(OUT(2), 1);
    ticks(1);
    ck_assert_uint_eq(latch(2), 0xffff); /* goes on past zero */
}
END_TEST

START_TEST(mode0_first_byte_of_a_new_count_stops_it)
{
    program(0, 3, 0, 0, 100);
    ticks(101);
    ck_assert_int_eq(vm->level[0], 1);
    outb(vm, 0x40, 50);
    ck_assert_int_eq(vm->level[0], 0);
    ticks(500);
    ck_assert_uint_eq(vm->edges[0], 1);
    outb(vm, 0x40, 0);
    ticks(50);
    ck_assert_uint_eq(vm->edges[0], 2);
}
END_TEST

START_TEST(mode1_is_a_retriggerable_one_shot)
{
    program(2, 3, 1, 0, 100);
    ck_assert_uint_eq(OUT(2), 1);
    outb(vm, 0x61, 1);
    ck_assert_uint_eq(OUT(2), 0);
    ticks(60);
    outb(vm, 0x61, 0);
    outb(vm, 0x61, 1);
    ticks(99);
    ck_assert_uint_eq(OUT(2), 0);
    ticks(1);
    ck_assert_uint_eq(OUT(2), 1);
}
END_TEST

/* Linux's one-shot clock event on the 8254. */
START_TEST(mode4_strobes_once_per_written_count)
{
    program(0, 3, 4, 0, 1000);
    ck_assert_uint_eq(vm->edges[0], 0);
    ticks(1000);
    ck_assert_uint_eq(OUT(0), 0);
    ticks(1);
    ck_assert_uint_eq(OUT(0), 1);
    ck_assert_uint_eq(vm->edges[0], 1);
    ticks(100000);
    ck_assert_uint_eq(vm->edges[0], 1);
    outb(vm, 0x40, 10);
    outb(vm, 0x40, 0);
    ticks(11);
    ck_assert_uint_eq(vm->edges[0], 2);
}
END_TEST

START_TEST(mode5_strobes_after_the_gate)
{
    program(2, 3, 5, 0, 10);
    ticks(20);
    ck_assert_uint_eq(OUT(2), 1);
    outb(vm, 0x61, 1);
    ticks(10);
    ck_assert_uint_eq(OUT(2), 0);
    ticks(1);
    ck_assert_uint_eq(OUT(2), 1);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    program(0, 3, 2, 1, 0x1000);
    ck_assert_uint_eq(latch(0), 0x1000);
    ticks(1);
    ck_assert_uint_eq(latch(0), 0x0999);
    program(0, 3, 2, 1, 0); /* 10000 */
    ticks(1);
    ck_assert_uint_eq(latch(0), 0x9999);
}
END_TEST

START_TEST(read_back_gives_status_then_count_and_the_first_latch_holds)
{
    program(0, 3, 2, 0, 0x1234);
    outb(vm, 0x43, 0xc2);
    ticks(10);
    outb(vm, 0x43, 0xc2);
    ck_assert_uint_eq(inb(vm, 0x40), 0x80 | 0x30 | 2 << 1);
    ck_assert_uint_eq(inb(vm, 0x40), 0x34);
    ck_assert_uint_eq(inb(vm, 0x40), 0x12);
    /* Unlatched reads alternate the two bytes of the running count. */
    ck_assert_uint_eq(inb(vm, 0x40), 0x2a);
    ck_assert_uint_eq(inb(vm, 0x40), 0x12);
    outb(vm, 0x43, 0x34);
    ck_assert_uint_eq(status(0), 0x40 | 0x80 | 0x34);
}
END_TEST

START_TEST(single_byte_formats)
{
    program(0, 1, 2, 0, 0x55);
    ck_assert_uint_eq(inb(vm, 0x40), 0x55);
    ck_assert_uint_eq(inb(vm, 0x40), 0x55);
    program(0, 2, 2, 0, 0x5500);
    ck_assert_uint_eq(inb(vm, 0x40), 0x55);
}
END_TEST

START_TEST(refresh_toggle_toggles)
{
    unsigned first = inb(vm, 0x61) & 0x10;

    fake_advance(vm, 15085);
    ck_assert_uint_ne(inb(vm, 0x61) & 0x10, first);
}
END_TEST

START_TEST(a_few_missed_ticks_are_made_up_and_many_are_dropped)
{
    program(0, 3, 2, 0, 11932); /* 10 ms */
    vm->clock += 35000000;      /* nobody ran for 3.5 periods */
    fake_advance(vm, 5000000);
    fake_advance(vm, 60100000);
    ck_assert_uint_eq(vm->edges[0], 10);
    uint32_t before = vm->edges[0];
    vm->clock += 10000000000ull; /* ten seconds: no flood */
    fake_advance(vm, 100000000);
    ck_assert_uint_le(vm->edges[0] - before, 15);
    ck_assert_uint_ge(vm->edges[0] - before, 10);
}
END_TEST

START_TEST(tiny_periods_do_not_flood_the_host)
{
    program(0, 1, 2, 0, 1);
    fake_advance(vm, 10000000);
    ck_assert_uint_le(vm->fired, 10000000 / 20000 + 1);
    ck_assert_uint_ge(vm->fired, 100);
}
END_TEST

START_TEST(reset_stops_everything)
{
    program(0, 3, 2, 0, 1000);
    outb(vm, 0x61, 3);
    fake_vm_reset(vm);
    fake_advance(vm, 1000000000);
    ck_assert_uint_eq(vm->edges[0], 0);
    ck_assert_uint_eq(inb(vm, 0x61) & 0x0f, 0);
    ck_assert_uint_eq(inb(vm, 0x43), 0xff);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pit");
    TCase *tc = tcase_create("pit");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, mode2_interrupts_at_the_exact_rate_for_an_hour);
    tcase_add_test(tc, mode2_counts_down_and_reloads);
    tcase_add_test(tc, mode2_takes_a_new_count_at_the_end_of_the_period);
    tcase_add_test(tc, mode3_is_a_square_wave_counted_by_twos);
    tcase_add_test(tc, mode3_takes_a_new_count_at_the_end_of_the_half);
    tcase_add_test(tc, mode3_odd_counts_are_high_one_period_longer);
    tcase_add_test(tc, channel2_calibration_by_port_61);
    tcase_add_test(tc, mode0_gate_holds_the_count);
    tcase_add_test(tc, mode0_first_byte_of_a_new_count_stops_it);
    tcase_add_test(tc, mode1_is_a_retriggerable_one_shot);
    tcase_add_test(tc, mode4_strobes_once_per_written_count);
    tcase_add_test(tc, mode5_strobes_after_the_gate);
    tcase_add_test(tc, bcd_counts_in_decimal);
    tcase_add_test(tc, read_back_gives_status_then_count_and_the_first_latch_holds);
    tcase_add_test(tc, single_byte_formats);
    tcase_add_test(tc, refresh_toggle_toggles);
    tcase_add_test(tc, a_few_missed_ticks_are_made_up_and_many_are_dropped);
    tcase_add_test(tc, tiny_periods_do_not_flood_the_host);
    tcase_add_test(tc, reset_stops_everything);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
