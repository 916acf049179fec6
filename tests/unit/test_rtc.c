/* SPDX-License-Identifier: BSD-2-Clause */
/* test_rtc.c: date, formats, update cycle, interrupts and memory sizes of the CMOS clock. */
#include <check.h>
#include <time.h>

#include "fake_vm.h"

#define SEC  1000000000ull
#define LINE 8

static struct vm *vm;
static struct vmm_rtc *rtc;

static void start(int64_t epoch)
{
    struct vmm_rtc_config config = {.size = sizeof config,
                                    .memory_below_4g = 3ull << 30,
                                    .memory_above_4g = 5ull << 30,
                                    .epoch = epoch};

    vm = fake_vm_new();
    ck_assert_int_eq(vmm_rtc_create(vm, &config, &rtc), 0);
}

static void setup(void)
{
    start(951782399); /* 2000-02-28 23:59:59, a Monday */
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static unsigned get(unsigned index)
{
    outb(vm, 0x70, index);
    return inb(vm, 0x71);
}

static void set(unsigned index, unsigned value)
{
    outb(vm, 0x70, index);
    outb(vm, 0x71, value);
}

static void check_date(unsigned century, unsigned year, unsigned month, unsigned day, unsigned wday,
                       unsigned hour, unsigned min, unsigned sec)
{
    ck_assert_uint_eq(get(0x32), century);
    ck_assert_uint_eq(get(9), year);
    ck_assert_uint_eq(get(8), month);
    ck_assert_uint_eq(get(7), day);
    ck_assert_uint_eq(get(6), wday);
    ck_assert_uint_eq(get(4), hour);
    ck_assert_uint_eq(get(2), min);
    ck_assert_uint_eq(get(0), sec);
}

START_TEST(the_date_runs_in_bcd_over_a_leap_day)
{
    check_date(0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59);
    fake_advance(vm, SEC);
    check_date(0x20, 0x00, 0x02, 0x29, 3, 0x00, 0x00, 0x00);
    fake_advance(vm, 86400 * SEC);
    check_date(0x20, 0x00, 0x03, 0x01, 4, 0x00, 0x00, 0x00);
}
END_TEST

START_TEST(dates_agree_with_the_c_library)
{
    for (int64_t t = -62000000000; t < 250000000000; t += 1234567890) {
        struct tm tm;
        time_t tt = (time_t)t;
        fake_vm_free(vm);
        start(t);
        set(0xb, 0x06);
        gmtime_r(&tt, &tm);
        int year = tm.tm_year + 1900;
        check_date((unsigned)(year / 100), (unsigned)(year % 100), (unsigned)tm.tm_mon + 1,
                   (unsigned)tm.tm_mday, (unsigned)tm.tm_wday + 1, (unsigned)tm.tm_hour,
                   (unsigned)tm.tm_min, (unsigned)tm.tm_sec);
    }
}
END_TEST

START_TEST(epoch_zero_is_the_hosts_time)
{
    fake_vm_free(vm);
    start(0);
    set(0xb, 0x06);
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    ck_assert_uint_eq(get(0x32) * 100 + get(9), (unsigned)tm.tm_year + 1900);
}
END_TEST

START_TEST(twelve_hour_and_binary_formats)
{
    set(0xb, 0x00); /* 12 h, BCD */
    ck_assert_uint_eq(get(4), 0x91);
    fake_advance(vm, SEC);
    ck_assert_uint_eq(get(4), 0x12); /* midnight */
    fake_advance(vm, 12 * 3600 * SEC);
    ck_assert_uint_eq(get(4), 0x92); /* noon */
    set(0xb, 0x06);
    ck_assert_uint_eq(get(4), 12);
    set(0xb, 0x04);
    ck_assert_uint_eq(get(4), 0x8c);
}
END_TEST

/* Linux's mc146818_set_time: stop, divider in reset, fields, run. */
START_TEST(setting_the_time_as_linux_does)
{
    set(0xb, get(0xb) | 0x80);
    unsigned a = get(0xa);
    set(0xa, a | 0x70);
    set(9, 0x24), set(8, 0x12), set(7, 0x31), set(4, 0x23), set(2, 0x59), set(0, 0x58);
    set(0x32, 0x20);
    fake_advance(vm, 5 * SEC);
    check_date(0x20, 0x24, 0x12, 0x31, get(6), 0x23, 0x59, 0x58); /* stands still */
    set(0xb, get(0xb) & ~0x80u);
    set(0xa, a);
    /* The first update comes half a second after the divider starts. */
    fake_advance(vm, SEC / 2 - 1000);
    ck_assert_uint_eq(get(0), 0x58);
    fake_advance(vm, 2000);
    ck_assert_uint_eq(get(0), 0x59);
    fake_advance(vm, SEC);
    check_date(0x20, 0x25, 0x01, 0x01, 4, 0, 0, 0);
}
END_TEST

START_TEST(uip_announces_the_update)
{
    ck_assert_uint_eq(get(0xa), 0x26);
    fake_advance(vm, SEC - 2300000);
    ck_assert_uint_eq(get(0xa) & 0x80, 0);
    fake_advance(vm, 100000);
    ck_assert_uint_eq(get(0xa) & 0x80, 0x80);
    ck_assert_uint_eq(get(0), 0x59);
    fake_advance(vm, 2200000);
    ck_assert_uint_eq(get(0xa) & 0x80, 0);
    ck_assert_uint_eq(get(0), 0x00);
    set(0xa, 0xa6); /* UIP cannot be written */
    ck_assert_uint_eq(get(0xa), 0x26);
}
END_TEST

START_TEST(update_interrupt_once_per_second_until_c_is_read)
{
    get(0xc);
    set(0xb, 0x12);
    fake_advance(vm, SEC + 1);
    ck_assert_int_eq(vm->level[LINE], 1);
    fake_advance(vm, 3 * SEC);
    ck_assert_uint_eq(vm->edges[LINE], 1);
    ck_assert_uint_eq(get(0xc) & 0x90, 0x90);
    ck_assert_int_eq(vm->level[LINE], 0);
    ck_assert_uint_eq(get(0xc) & 0xf0, 0);
    fake_advance(vm, SEC);
    ck_assert_uint_eq(vm->edges[LINE], 2);
}
END_TEST

START_TEST(flags_rise_without_interrupts_too)
{
    get(0xc);
    fake_advance(vm, 1000);
    ck_assert_uint_eq(get(0xc), 0);
    fake_advance(vm, SEC);
    ck_assert_uint_eq(get(0xc) & 0xd0, 0x50); /* UF and PF, no IRQF */
    ck_assert_uint_eq(vm->edges[LINE], 0);
    ck_assert_uint_eq(vm->fired, 0);
}
END_TEST

START_TEST(periodic_rates)
{
    static const unsigned hz[] = {0,   256, 128, 8192, 4096, 2048, 1024, 512,
                                  256, 128, 64,  32,   16,   8,    4,    2};
    for (unsigned rs = 1; rs < 16; rs++) {
        set(0xa, 0x20 | rs);
        set(0xb, 0x42);
        get(0xc);
        uint32_t before = vm->edges[LINE];
        for (uint64_t end = vm->clock + SEC; vm->clock < end;) {
            fake_advance(vm, 50000);
            if (vm->level[LINE])
                ck_assert_uint_eq(get(0xc) & 0xc0, 0xc0);
        }
        ck_assert_uint_ge(vm->edges[LINE] - before, hz[rs] - 1);
        ck_assert_uint_le(vm->edges[LINE] - before, hz[rs] + 1);
    }
    set(0xa, 0x20);
    uint32_t before = vm->edges[LINE];
    get(0xc);
    fake_advance(vm, SEC);
    ck_assert_uint_eq(vm->edges[LINE], before);
}
END_TEST

START_TEST(alarm_at_a_time_and_with_dont_care)
{
    set(5, 0x01), set(3, 0x02), set(1, 0x03);
    get(0xc);
    set(0xb, 0x22);
    fake_advance(vm, SEC + 3723 * SEC - 1000);
    ck_assert_uint_eq(vm->edges[LINE], 0);
    fake_advance(vm, 2000);
    ck_assert_uint_eq(vm->edges[LINE], 1);
    ck_assert_uint_eq(get(0xc) & 0xa0, 0xa0);
    set(5, 0xff), set(3, 0xff);
    for (int i = 0; i < 5; i++) { /* every minute */
        fake_advance(vm, 60 * SEC);
        ck_assert_uint_eq(vm->edges[LINE], 2u + (unsigned)i);
        get(0xc);
    }
    set(1, 0x61); /* never */
    fake_advance(vm, 100000 * SEC);
    ck_assert_uint_eq(vm->edges[LINE], 6);
}
END_TEST

START_TEST(any_bytes_make_some_date)
{
    for (unsigned v = 0; v < 256; v++) {
        for (unsigned b = 0; b < 8; b += 2) {
            set(0xb, 0x80 | b);
            for (unsigned reg = 0; reg < 10; reg++)
                set(reg, v);
            set(0x32, v);
            ck_assert_uint_eq(get(8), v); /* stopped: plain bytes */
            set(0xb, b);
            set(0xb, 6);
            ck_assert_uint_le(get(8), 12);
            ck_assert_uint_le(get(0), 59);
        }
    }
}
END_TEST

START_TEST(memory_sizes_for_firmware)
{
    ck_assert_uint_eq(get(0x15) | get(0x16) << 8, 640);
    ck_assert_uint_eq(get(0x17) | get(0x18) << 8, 0xffff);
    ck_assert_uint_eq(get(0x30) | get(0x31) << 8, 0xffff);
    ck_assert_uint_eq(get(0x34) | get(0x35) << 8, ((3u << 30) - (16u << 20)) >> 16);
    ck_assert_uint_eq(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5ull << 30 >> 16);
    ck_assert_uint_eq(get(0x0d), 0x80);
    unsigned sum = 0;
    for (unsigned i = 0x10; i < 0x2e; i++)
        sum += get(i);
    ck_assert_uint_eq(get(0x2e) << 8 | get(0x2f), sum);
}
END_TEST

START_TEST(cmos_ram_and_reset)
{
    set(0x0f, 0x0a);
    set(0x7f, 0x5a);
    vmm_rtc_set(rtc, 0x5f, 3);
    set(0xb, 0x72);
    fake_vm_reset(vm);
    ck_assert_uint_eq(get(0x8f), 0x0a); /* bit 7 is the NMI mask */
    ck_assert_uint_eq(vmm_rtc_get(rtc, 0x7f), 0x5a);
    ck_assert_uint_eq(get(0x5f), 3);
    ck_assert_uint_eq(get(0xb), 0x02);
    ck_assert_uint_eq(inb(vm, 0x70), 0xff);
    check_date(0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rtc");
    TCase *tc = tcase_create("rtc");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_date_runs_in_bcd_over_a_leap_day);
    tcase_add_test(tc, dates_agree_with_the_c_library);
    tcase_add_test(tc, epoch_zero_is_the_hosts_time);
    tcase_add_test(tc, twelve_hour_and_binary_formats);
    tcase_add_test(tc, setting_the_time_as_linux_does);
    tcase_add_test(tc, uip_announces_the_update);
    tcase_add_test(tc, update_interrupt_once_per_second_until_c_is_read);
    tcase_add_test(tc, flags_rise_without_interrupts_too);
    tcase_add_test(tc, periodic_rates);
    tcase_add_test(tc, alarm_at_a_time_and_with_dont_care);
    tcase_add_test(tc, any_bytes_make_some_date);
    tcase_add_test(tc, memory_sizes_for_firmware);
    tcase_add_test(tc, cmos_ram_and_reset);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
