/* SPDX-License-Identifier: BSD-2-Clause */
/* test_hpet.c: the HPET as drivers use it: calibration, one-shot and periodic interrupts, legacy
 * replacement, levels, messages, and the rules for 32-bit accesses. */
#include <check.h>

#include "devices/pc_timers.h"
#include "fake_vm.h"

#define BASE    VMM_PC_HPET
#define CAP     (BASE + 0x00)
#define CONFIG  (BASE + 0x10)
#define STATUS  (BASE + 0x20)
#define COUNTER (BASE + 0xf0)
#define TN(n)   (BASE + 0x100 + 0x20 * (n))
#define CMP(n)  (TN(n) + 8)
#define FSB(n)  (TN(n) + 16)

#define ENABLE    1
#define LEGACY    2
#define LEVEL     2
#define INT       4
#define PERIODIC  8
#define SETVAL    0x40
#define MODE32    0x100
#define ROUTE(n)  ((n) << 9)
#define FSB_ON    0x4000
#define NS        10 /* per tick */
#define TICKS(us) ((us)*1000 / NS)

static struct vm *vm;

static void setup(void)
{
    vm = fake_vm_new();
    vm->clock = 123456780; /* the counter does not begin with the VM */
    ck_assert_int_eq(vmm_hpet_create(vm), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static uint64_t rd(uint64_t reg)
{
    return mmio_in(vm, reg, 8);
}

static void wr(uint64_t reg, uint64_t value)
{
    mmio_out(vm, reg, 8, value);
}

START_TEST(linux_finds_capabilities_that_the_acpi_table_announces)
{
    uint64_t cap = rd(CAP);

    ck_assert_uint_eq(mmio_in(vm, CAP + 4, 4), 10000000); /* period in fs */
    ck_assert_uint_eq(cap & 0xffffffff, 0x8086a201);
    ck_assert_uint_eq(cap >> 8 & 31, 2); /* the last timer */
    wr(CAP, 0);
    ck_assert_uint_eq(rd(CAP), cap);
    for (int n = 0; n < 3; n++) {
        ck_assert_uint_eq(rd(TN(n)) & 0xffffffff, 0x8030);
        ck_assert_uint_eq(rd(TN(n)) >> 32, 0x00f00000);
        ck_assert_uint_eq(rd(CMP(n)), UINT64_MAX);
    }
    ck_assert_uint_eq(rd(TN(3)), 0); /* there are no more */
}
END_TEST

START_TEST(counter_runs_only_when_enabled_and_keeps_its_value)
{
    ck_assert_uint_eq(rd(COUNTER), 0);
    fake_advance(vm, 1000000);
    ck_assert_uint_eq(rd(COUNTER), 0);
    wr(COUNTER, 0x1fffffff0);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 250);
    ck_assert_uint_eq(rd(COUNTER), 0x1fffffff0 + 25);
    ck_assert_uint_eq(mmio_in(vm, COUNTER, 4), 9);
    ck_assert_uint_eq(mmio_in(vm, COUNTER + 4, 4), 2);
    wr(CONFIG, 0);
    fake_advance(vm, 99999);
    ck_assert_uint_eq(rd(COUNTER), 0x1fffffff0 + 25);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 10);
    ck_assert_uint_eq(rd(COUNTER), 0x1fffffff0 + 26);
}
END_TEST

START_TEST(halves_are_written_one_by_one_and_small_accesses_do_nothing)
{
    mmio_out(vm, COUNTER, 4, 0x11223344);
    mmio_out(vm, COUNTER + 4, 4, 0x55667788);
    ck_assert_uint_eq(rd(COUNTER), 0x5566778811223344);
    mmio_out(vm, COUNTER, 2, 0);
    mmio_out(vm, COUNTER + 1, 1, 0);
    mmio_out(vm, COUNTER + 2, 4, 0); /* not aligned: smaller pieces */
    ck_assert_uint_eq(rd(COUNTER), 0x5566778811223344);
    ck_assert_uint_eq(mmio_in(vm, COUNTER, 1), 0xff);
    ck_assert_uint_eq(mmio_in(vm, COUNTER + 2, 4), 0xffffffff);
    ck_assert_uint_eq(mmio_in(vm, BASE + 0x3f8, 8), 0);
}
END_TEST

START_TEST(one_shot_fires_once_at_its_tick)
{
    wr(TN(2), INT | ROUTE(20));
    wr(CMP(2), 1000);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 1000 * NS - 1);
    ck_assert_uint_eq(vm->edges[20], 0);
    fake_advance(vm, 1);
    ck_assert_uint_eq(vm->edges[20], 1);
    ck_assert_int_eq(vm->level[20], 0); /* an edge */
    ck_assert_uint_eq(rd(STATUS), 0);
    fake_advance(vm, 1000000000);
    ck_assert_uint_eq(vm->edges[20], 1);
}
END_TEST

/* Drivers read the counter after they have set the comparator, and set it again if it was late. */
START_TEST(a_comparator_in_the_past_is_missed)
{
    wr(TN(2), INT | ROUTE(21));
    wr(CONFIG, ENABLE);
    fake_advance(vm, 5000);
    wr(CMP(2), rd(COUNTER) - 1);
    fake_advance(vm, 1000000000);
    ck_assert_uint_eq(vm->edges[21], 0);
    wr(CMP(2), rd(COUNTER)); /* equal is a match */
    fake_advance(vm, 1);
    ck_assert_uint_eq(vm->edges[21], 1);
}
END_TEST

START_TEST(in_32_bit_mode_it_fires_whenever_the_low_half_comes_round)
{
    wr(COUNTER, 0x7fffff000);
    wr(TN(0), INT | MODE32 | ROUTE(22));
    wr(CMP(0), 0xabcdef0000000010);
    ck_assert_uint_eq(rd(CMP(0)), 0x10);
    wr(CONFIG, ENABLE);
    fake_advance(vm, (0x1000 + 0x10) * NS - 1);
    ck_assert_uint_eq(vm->edges[22], 0);
    fake_advance(vm, 1);
    ck_assert_uint_eq(vm->edges[22], 1);
    fake_advance(vm, 0x100000000ull * NS);
    ck_assert_uint_eq(vm->edges[22], 2);
}
END_TEST

/* Linux's sequence: value with VAL_SET, then period; 32-bit writes. */
START_TEST(periodic_mode_of_linux_keeps_its_rate_for_an_hour)
{
    uint32_t now, period = TICKS(4000);

    wr(CONFIG, ENABLE | LEGACY);
    fake_advance(vm, 77777);
    now = (uint32_t)mmio_in(vm, COUNTER, 4);
    mmio_out(vm, TN(0), 4, INT | PERIODIC | SETVAL | MODE32);
    mmio_out(vm, CMP(0), 4, now + period);
    mmio_out(vm, CMP(0), 4, period);
    ck_assert_uint_eq(mmio_in(vm, CMP(0), 4), now + period);
    ck_assert_uint_eq(rd(TN(0)) & SETVAL, 0);
    fake_advance(vm, 4000000 - 7 - 1);
    ck_assert_uint_eq(vm->edges[0], 0);
    fake_advance(vm, 7 + 1);
    ck_assert_uint_eq(vm->edges[0], 1);
    ck_assert_uint_eq(mmio_in(vm, CMP(0), 4), now + 2 * period);
    fake_advance(vm, 3600ull * 1000000000);
    ck_assert_uint_eq(vm->edges[0], 1 + 3600 * 250);
}
END_TEST

START_TEST(the_first_write_sets_value_and_period_the_next_only_the_period)
{
    wr(TN(1), INT | PERIODIC | SETVAL | ROUTE(20));
    wr(CMP(1), 10000);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 10000 * NS);
    ck_assert_uint_eq(vm->edges[20], 1);
    ck_assert_uint_eq(rd(CMP(1)), 20000);
    wr(CMP(1), 5000); /* from the next match on */
    ck_assert_uint_eq(rd(CMP(1)), 20000);
    fake_advance(vm, 10000 * NS);
    ck_assert_uint_eq(rd(CMP(1)), 25000);
    ck_assert_uint_eq(vm->edges[20], 2);
    /* The halves each need the bit. */
    wr(TN(1), INT | PERIODIC | SETVAL | ROUTE(20));
    mmio_out(vm, CMP(1), 4, 0x40000000);
    wr(TN(1), INT | PERIODIC | SETVAL | ROUTE(20));
    mmio_out(vm, CMP(1) + 4, 4, 1);
    ck_assert_uint_eq(rd(CMP(1)), 0x140000000);
}
END_TEST

START_TEST(a_guest_that_was_away_gets_at_most_the_last_ticks)
{
    wr(TN(2), INT | PERIODIC | SETVAL | ROUTE(20));
    wr(CMP(2), TICKS(1000));
    wr(CONFIG, ENABLE);
    vm->clock += 2500000; /* two and a half periods: made up for */
    fake_advance(vm, 600000);
    ck_assert_uint_eq(vm->edges[20], 3);
    vm->clock += 1000000000; /* a second: forgotten */
    fake_advance(vm, 10000);
    ck_assert_uint_le(vm->edges[20], 6);
    uint32_t before = vm->edges[20];
    fake_advance(vm, 10000000);
    ck_assert_uint_le(vm->edges[20] - before, 11);
    ck_assert_uint_ge(vm->edges[20] - before, 9);
    ck_assert_uint_eq(rd(CMP(2)) % TICKS(1000), 0); /* still in phase */
}
END_TEST

START_TEST(periods_too_short_do_not_flood_the_host)
{
    wr(TN(2), INT | PERIODIC | SETVAL | ROUTE(20));
    wr(CMP(2), 1);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 10000000);
    ck_assert_uint_le(vm->fired, 501);
    ck_assert_uint_ge(vm->fired, 400);
    wr(TN(2), INT | PERIODIC | SETVAL | ROUTE(20));
    wr(CMP(2), 0); /* no period at all */
    vm->fired = 0;
    fake_advance(vm, 10000000);
    ck_assert_uint_le(vm->fired, 1);
}
END_TEST

START_TEST(levels_stay_until_the_status_is_cleared)
{
    wr(TN(1), INT | LEVEL | ROUTE(23));
    wr(TN(2), INT | LEVEL | ROUTE(23));
    wr(CMP(1), 100);
    wr(CMP(2), 200);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 100 * NS);
    ck_assert_uint_eq(rd(STATUS), 2);
    ck_assert_int_eq(vm->level[23], 1);
    fake_advance(vm, 100 * NS);
    ck_assert_uint_eq(rd(STATUS), 6);
    wr(STATUS, 2); /* the other one still holds the shared line */
    ck_assert_int_eq(vm->level[23], 1);
    wr(STATUS, 4);
    ck_assert_int_eq(vm->level[23], 0);
    ck_assert_uint_eq(rd(STATUS), 0);
}
END_TEST

START_TEST(status_is_kept_without_interrupt_enable)
{
    wr(TN(1), LEVEL | ROUTE(23));
    wr(CMP(1), 100);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 100 * NS);
    ck_assert_uint_eq(rd(STATUS), 2);
    ck_assert_int_eq(vm->level[23], 0);
    wr(TN(1), INT | LEVEL | ROUTE(23));
    ck_assert_int_eq(vm->level[23], 1);
    wr(CONFIG, 0); /* disabled as a whole: no interrupts */
    ck_assert_int_eq(vm->level[23], 0);
    wr(CONFIG, ENABLE);
    ck_assert_int_eq(vm->level[23], 1);
    wr(TN(1), INT | LEVEL | ROUTE(22));
    ck_assert_int_eq(vm->level[23], 0);
    ck_assert_int_eq(vm->level[22], 1);
    wr(TN(1), INT | ROUTE(22)); /* edges have no status */
    ck_assert_int_eq(vm->level[22], 0);
    ck_assert_uint_eq(rd(STATUS), 0);
}
END_TEST

START_TEST(routes_that_do_not_exist_lead_nowhere)
{
    for (unsigned route = 0; route < 32; route++) {
        uint32_t before[VMM_IRQ_LINES];

        if (route >= 20 && route < 24)
            continue;
        memcpy(before, vm->edges, sizeof before);
        wr(CONFIG, 0);
        wr(COUNTER, 0);
        wr(TN(0), INT | ROUTE(route));
        wr(CMP(0), 10);
        wr(CONFIG, ENABLE);
        fake_advance(vm, 1000);
        ck_assert_mem_eq(before, vm->edges, sizeof before);
    }
}
END_TEST

START_TEST(messages_go_to_the_address_in_the_register)
{
    wr(FSB(0), 0xfee0100000004031);
    ck_assert_uint_eq(rd(FSB(0)), 0xfee0100000004031);
    wr(TN(0), INT | FSB_ON);
    wr(CMP(0), 50);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 50 * NS);
    ck_assert_uint_eq(vm->msis, 1);
    ck_assert_uint_eq(vm->msi_address, 0xfee01000);
    ck_assert_uint_eq(vm->msi_data, 0x4031);
    wr(FSB(0), 0x0000100000004031); /* would be a write to memory */
    wr(CMP(0), rd(COUNTER) + 50);
    fake_advance(vm, 50 * NS);
    ck_assert_uint_eq(vm->msis, 1);
}
END_TEST

START_TEST(legacy_route_takes_the_lines_of_the_pit_and_the_rtc)
{
    struct vmm_rtc_config config = {.size = sizeof config, .epoch = 1};
    struct pit *pit = NULL;
    struct vmm_rtc *rtc = NULL;

    fake_vm_free(vm);
    vm = fake_vm_new();
    ck_assert_int_eq(pit_create(vm, &pit), 0);
    ck_assert_int_eq(vmm_rtc_create(vm, &config, &rtc), 0);
    ck_assert_int_eq(hpet_create(vm, pit, rtc), 0);
    outb(vm, 0x43, 0x34);
    outb(vm, 0x40, 0xa9);
    outb(vm, 0x40, 0x04); /* 1 kHz */
    outb(vm, 0x70, 0x0b);
    outb(vm, 0x71, 0x42); /* periodic interrupts */
    fake_advance(vm, 100000000);
    ck_assert_uint_ge(vm->edges[0], 99);
    ck_assert_uint_ge(vm->edges[8], 1);

    wr(TN(0), INT);
    wr(TN(1), INT);
    wr(CMP(0), TICKS(1000));
    wr(CMP(1), TICKS(2000));
    wr(CONFIG, LEGACY); /* not in force before the HPET is enabled */
    uint32_t before = vm->edges[0];
    fake_advance(vm, 10000000);
    ck_assert_uint_ge(vm->edges[0], before + 9);

    wr(CONFIG, ENABLE | LEGACY);
    ck_assert_int_eq(vm->level[8], 0); /* the RTC had left it asserted */
    uint32_t e0 = vm->edges[0], e8 = vm->edges[8];
    fake_advance(vm, 1000000);
    ck_assert_uint_eq(vm->edges[0], e0 + 1);
    ck_assert_uint_eq(vm->edges[8], e8);
    fake_advance(vm, 100000000);
    ck_assert_uint_eq(vm->edges[0], e0 + 1);
    ck_assert_uint_eq(vm->edges[8], e8 + 1);

    wr(CONFIG, ENABLE);
    e0 = vm->edges[0];
    fake_advance(vm, 10000000);
    ck_assert_uint_ge(vm->edges[0], e0 + 9); /* the 8254 is back */
}
END_TEST

START_TEST(reset_restores_power_on_state)
{
    wr(TN(1), INT | LEVEL | ROUTE(23));
    wr(CMP(1), 100);
    wr(FSB(1), 7);
    wr(CONFIG, ENABLE);
    fake_advance(vm, 10000);
    ck_assert_int_eq(vm->level[23], 1);
    fake_vm_reset(vm);
    ck_assert_int_eq(vm->level[23], 0);
    ck_assert_uint_eq(rd(STATUS), 0);
    ck_assert_uint_eq(rd(CONFIG), 0);
    ck_assert_uint_eq(rd(COUNTER), 0);
    ck_assert_uint_eq(rd(FSB(1)), 0);
    ck_assert_uint_eq(rd(CMP(1)), UINT64_MAX);
    ck_assert_uint_eq(rd(TN(1)) & 0xffffffff, 0x8030);
    vm->fired = 0;
    fake_advance(vm, 1000000000);
    ck_assert_uint_eq(vm->fired, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hpet");
    TCase *tc = tcase_create("hpet");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, linux_finds_capabilities_that_the_acpi_table_announces);
    tcase_add_test(tc, counter_runs_only_when_enabled_and_keeps_its_value);
    tcase_add_test(tc, halves_are_written_one_by_one_and_small_accesses_do_nothing);
    tcase_add_test(tc, one_shot_fires_once_at_its_tick);
    tcase_add_test(tc, a_comparator_in_the_past_is_missed);
    tcase_add_test(tc, in_32_bit_mode_it_fires_whenever_the_low_half_comes_round);
    tcase_add_test(tc, periodic_mode_of_linux_keeps_its_rate_for_an_hour);
    tcase_add_test(tc, the_first_write_sets_value_and_period_the_next_only_the_period);
    tcase_add_test(tc, a_guest_that_was_away_gets_at_most_the_last_ticks);
    tcase_add_test(tc, periods_too_short_do_not_flood_the_host);
    tcase_add_test(tc, levels_stay_until_the_status_is_cleared);
    tcase_add_test(tc, status_is_kept_without_interrupt_enable);
    tcase_add_test(tc, routes_that_do_not_exist_lead_nowhere);
    tcase_add_test(tc, messages_go_to_the_address_in_the_register);
    tcase_add_test(tc, legacy_route_takes_the_lines_of_the_pit_and_the_rtc);
    tcase_add_test(tc, reset_restores_power_on_state);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
