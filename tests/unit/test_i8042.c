/* SPDX-License-Identifier: BSD-2-Clause */
/* test_i8042.c: the keyboard controller, keyboard and mouse as Linux probes and drives them. */
#include <check.h>

#include "fake_vm.h"
#include <vmm/vcpu.h>

#define DATA   0x60
#define STATUS 0x64

#define OBF 0x01
#define AUX 0x20

static struct vm *vm;
static struct vmm_i8042 *kbc;

static void setup(void)
{
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_i8042_create(vm, &kbc), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static void command(unsigned c)
{
    outb(vm, STATUS, c);
}

/* The next byte, which must be there. */
static unsigned get(void)
{
    ck_assert_uint_eq(inb(vm, STATUS) & OBF, OBF);
    return inb(vm, DATA);
}

static unsigned get_aux(void)
{
    ck_assert_uint_eq(inb(vm, STATUS) & (OBF | AUX), OBF | AUX);
    return inb(vm, DATA);
}

static void empty(void)
{
    ck_assert_uint_eq(inb(vm, STATUS) & OBF, 0);
}

static unsigned ask(unsigned c)
{
    command(c);
    return get();
}

static void set_cb(unsigned value)
{
    command(0x60);
    outb(vm, DATA, value);
}

/* Checks the bytes that wait, and that there are no more. */
static void expect(const char *hex)
{
    for (unsigned v; sscanf(hex, "%x", &v) == 1; hex += strcspn(hex, " "), hex += *hex == ' ')
        ck_assert_uint_eq(get(), v);
    empty();
}

static void keyboard(unsigned byte, const char *replies)
{
    outb(vm, DATA, byte);
    expect(replies);
}

static void mouse(unsigned byte, const char *replies)
{
    command(0xd4);
    outb(vm, DATA, byte);
    expect(replies);
}

static void key(unsigned code, const char *make, const char *brk)
{
    vmm_i8042_key(kbc, code, 1);
    expect(make);
    vmm_i8042_key(kbc, code, 0);
    expect(brk);
}

static void untranslated(unsigned set)
{
    set_cb(0x03);
    keyboard(0xf0, "fa");
    outb(vm, DATA, set);
    expect("fa");
}

/* ---- Controller ---- */

/* The order of drivers/input/serio/i8042.c. */
START_TEST(linux_probe_finds_controller_and_mouse_port)
{
    empty();
    ck_assert_uint_eq(ask(0xaa), 0x55);
    unsigned cb = ask(0x20);
    ck_assert_uint_eq(ask(0x20), cb);
    ck_assert_uint_eq(inb(vm, STATUS) & 0x10, 0x10); /* not locked */
    ck_assert_uint_eq(cb & 0x40, 0x40);              /* translating */
    set_cb((cb | 0x10) & ~1u);
    ck_assert_uint_eq(ask(0x20), (cb | 0x10) & ~1u);

    command(0xd3);
    outb(vm, DATA, 0x5a);
    ck_assert_uint_eq(get_aux(), 0x5a);
    command(0xa7);
    ck_assert_uint_eq(ask(0x20) & 0x20, 0x20);
    command(0xa8);
    ck_assert_uint_eq(ask(0x20) & 0x20, 0);
    ck_assert_uint_eq(ask(0xa9), 0x00);

    /* The loop must raise line 12. */
    set_cb((cb | 0x12) & ~0x21u);
    command(0xd3);
    uint32_t before = vm->edges[12];
    outb(vm, DATA, 0xa5);
    ck_assert_uint_eq(vm->edges[12], before + 1);
    ck_assert_uint_eq(get_aux(), 0xa5);
    ck_assert_int_eq(vm->level[12], 0);

    /* No multiplexer answers: its probe sees its own bytes. */
    static const uint8_t mux[] = {0xf0, 0x56, 0xa4};
    for (unsigned i = 0; i < 3; i++) {
        command(0xd3);
        outb(vm, DATA, mux[i]);
        ck_assert_uint_eq(get_aux(), mux[i]);
    }
}
END_TEST

START_TEST(interface_tests_and_ports)
{
    ck_assert_uint_eq(ask(0xab), 0);
    ck_assert_uint_eq(ask(0xa4), 0xf1);
    ck_assert_uint_eq(ask(0xc0) & 0x80, 0x80);
    ck_assert_uint_eq(ask(0xd0) & 3, 3);
    ck_assert_uint_eq(ask(0xe0), 0);
    command(0xad);
    ck_assert_uint_eq(ask(0x20) & 0x10, 0x10);
    command(0xae);
    ck_assert_uint_eq(ask(0x20) & 0x10, 0);
    command(0x6f);
    outb(vm, DATA, 0x99);
    ck_assert_uint_eq(ask(0x2f), 0x99); /* its RAM */
    command(0x01);                      /* unknown */
    empty();
}
END_TEST

START_TEST(status_tells_command_from_data)
{
    ck_assert_uint_eq(inb(vm, STATUS) & 0x08, 0);
    command(0x60);
    ck_assert_uint_eq(inb(vm, STATUS) & 0x08, 8);
    outb(vm, DATA, 0x47);
    ck_assert_uint_eq(inb(vm, STATUS) & 0x08, 0);
}
END_TEST

START_TEST(a20_by_three_ways)
{
    command(0xd1);
    outb(vm, DATA, 0xdd);
    ck_assert_uint_eq(ask(0xd0) & 2, 0);
    ck_assert_uint_eq(inb(vm, 0x92) & 2, 0);
    outb(vm, 0x92, 2);
    ck_assert_uint_eq(ask(0xd0) & 2, 2);
    command(0xdd);
    ck_assert_uint_eq(inb(vm, 0x92) & 2, 0);
    command(0xdf);
    ck_assert_uint_eq(inb(vm, 0x92) & 2, 2);
    ck_assert_uint_eq(vm->exits, 0);
}
END_TEST

START_TEST(resets_of_the_machine)
{
    command(0xff);
    command(0xf1);
    ck_assert_uint_eq(vm->exits, 0);
    command(0xfe);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
    command(0xd1);
    outb(vm, DATA, 0xfe);
    ck_assert_uint_eq(vm->exits, 2);
    outb(vm, 0x92, 3);
    ck_assert_uint_eq(vm->exits, 3);
    outb(vm, 0x92, 3); /* only the edge */
    ck_assert_uint_eq(vm->exits, 3);
}
END_TEST

START_TEST(each_byte_is_an_edge_and_the_command_byte_gates_it)
{
    uint32_t before = vm->edges[1];

    vmm_i8042_key(kbc, 0x1e, 1);
    vmm_i8042_key(kbc, 0x1e, 0);
    ck_assert_uint_eq(vm->edges[1], before + 1);
    ck_assert_uint_eq(get(), 0x1e);
    ck_assert_uint_eq(vm->edges[1], before + 2);
    ck_assert_uint_eq(get(), 0x9e);
    ck_assert_int_eq(vm->level[1], 0);
    ck_assert_uint_eq(inb(vm, DATA), 0x9e); /* empty: the last byte */

    set_cb(0x40);
    vmm_i8042_key(kbc, 0x1e, 1);
    ck_assert_int_eq(vm->level[1], 0);
    set_cb(0x41);
    ck_assert_int_eq(vm->level[1], 1);
}
END_TEST

START_TEST(a_disabled_interface_holds_keys_until_it_is_enabled)
{
    command(0xad);
    vmm_i8042_key(kbc, 0x1e, 1);
    empty();
    ck_assert_uint_eq(ask(0x20) & 0x10, 0x10); /* answers come all the same */
    command(0xae);
    ck_assert_uint_eq(get(), 0x1e);
    command(0xad);
    outb(vm, DATA, 0xee); /* talking to the keyboard enables it */
    ck_assert_uint_eq(get(), 0xee);
    command(0xa7);
    mouse(0xf2, "fa 00");
}
END_TEST

START_TEST(loop_to_the_keyboard_and_bounded_answers)
{
    command(0xd2);
    outb(vm, DATA, 0x31);
    ck_assert_uint_eq(inb(vm, STATUS) & AUX, 0);
    ck_assert_uint_eq(get(), 0x31);
    for (int i = 0; i < 1000; i++)
        command(0xaa);
    unsigned n = 0;
    while (inb(vm, STATUS) & OBF) {
        ck_assert_uint_eq(inb(vm, DATA), 0x55);
        n++;
    }
    ck_assert_uint_le(n, 16);
}
END_TEST

/* ---- Keyboard ---- */

START_TEST(linux_probes_the_keyboard)
{
    keyboard(0xff, "fa aa");
    keyboard(0xf2, "fa ab 41"); /* as the controller translates it */
    set_cb(0x03);
    keyboard(0xf2, "fa ab 83");
    keyboard(0xed, "fa");
    keyboard(0x07, "fa");
    ck_assert_uint_eq(vmm_i8042_leds(kbc), 7);
    keyboard(0xf3, "fa");
    keyboard(0x00, "fa");
    keyboard(0xf4, "fa");
    keyboard(0xee, "ee");
    keyboard(0xf6, "fa");
    keyboard(0x12, "fe");
    keyboard(0xef, "fe");
    keyboard(0xfe, "fa"); /* the last byte that was no Resend */
}
END_TEST

START_TEST(a_command_takes_the_place_of_an_argument)
{
    keyboard(0xed, "fa");
    keyboard(0xf4, "fa");
    keyboard(0x07, "fe");
    ck_assert_uint_eq(vmm_i8042_leds(kbc), 0);
    keyboard(0xf0, "fa");
    keyboard(0x04, "fe");
}
END_TEST

START_TEST(keys_in_the_translated_set)
{
    key(0x1e, "1e", "9e");
    key(0x01, "01", "81");
    key(0x58, "58", "d8");
    key(0x41, "41", "c1");
    key(0x46, "46", "c6");
    key(0xe048, "e0 48", "e0 c8");
    key(0xe01d, "e0 1d", "e0 9d");
    key(0xe05b, "e0 5b", "e0 db");
    key(0xe037, "e0 2a e0 37", "e0 b7 e0 aa");
    key(0xe11d, "e1 1d 45 e1 9d c5", "");
    for (unsigned code = 1; code < 0x80; code++) {
        char make[8], brk[8];
        snprintf(make, sizeof make, "%x", code);
        snprintf(brk, sizeof brk, "%x", code | 0x80);
        key(code, make, brk);
    }
    vmm_i8042_key(kbc, 0, 1);
    vmm_i8042_key(kbc, 0x80, 1);
    vmm_i8042_key(kbc, 0xe000, 1);
    vmm_i8042_key(kbc, 0xe080, 1);
    vmm_i8042_key(kbc, 0xffffffff, 1);
    empty();
}
END_TEST

START_TEST(keys_in_sets_1_2_and_3)
{
    untranslated(1);
    key(0x1e, "1e", "9e");
    key(0xe050, "e0 50", "e0 d0");
    untranslated(2);
    key(0x1e, "1c", "f0 1c");
    key(0x41, "83", "f0 83");
    key(0x3b, "05", "f0 05");
    key(0xe050, "e0 72", "e0 f0 72");
    key(0xe11d, "e1 14 77 e1 f0 14 f0 77", "");
    key(0xe037, "e0 12 e0 7c", "e0 f0 7c e0 f0 12");
    untranslated(3);
    key(0x1e, "1c", "");      /* typematic only */
    key(0x2a, "12", "f0 12"); /* make and break */
    key(0x01, "08", "");      /* make only */
    keyboard(0xfa, "fa");     /* all of them both */
    key(0x1e, "1c", "f0 1c");
    key(0xe050, "60", "f0 60");
    key(0xe11d, "62", "f0 62");
    keyboard(0xf0, "fa");
    keyboard(0x00, "fa 03");
    keyboard(0xfd, "fa"); /* 'a' make only */
    keyboard(0x1c, "fa");
    key(0x1e, "1c", "");
    key(0x1f, "1b", "f0 1b");
}
END_TEST

START_TEST(print_and_pause_with_modifiers)
{
    vmm_i8042_key(kbc, 0x38, 1);
    expect("38");
    key(0xe037, "54", "d4"); /* SysRq */
    vmm_i8042_key(kbc, 0x38, 0);
    expect("b8");
    vmm_i8042_key(kbc, 0x1d, 1);
    expect("1d");
    key(0xe037, "e0 37", "e0 b7");
    key(0xe11d, "e0 46 e0 c6", ""); /* Break */
}
END_TEST

START_TEST(the_keyboard_repeats_and_the_host_does_not)
{
    vmm_i8042_key(kbc, 0x1e, 1);
    vmm_i8042_key(kbc, 0x1e, 1);
    expect("1e");
    fake_advance(vm, 499000000);
    empty();
    fake_advance(vm, 1000000);
    expect("1e");
    fake_advance(vm, 91000000); /* 10.9 per second */
    empty();
    fake_advance(vm, 1000000);
    expect("1e");
    fake_advance(vm, 10000000000); /* nobody reads: nothing piles up */
    expect("1e 1e");
    vmm_i8042_key(kbc, 0x1f, 1);
    expect("1f");
    vmm_i8042_key(kbc, 0x1e, 0); /* another key is the one that repeats */
    expect("9e");
    fake_advance(vm, 500000000);
    expect("1f");
    vmm_i8042_key(kbc, 0x1f, 0);
    expect("9f");
    fake_advance(vm, 10000000000);
    empty();
    keyboard(0xf3, "fa");
    keyboard(0x00, "fa"); /* 30 per second after 250 ms */
    vmm_i8042_key(kbc, 0x1e, 1);
    expect("1e");
    fake_advance(vm, 250000000);
    expect("1e");
    fake_advance(vm, 33360000);
    expect("1e");
}
END_TEST

START_TEST(scanning_can_be_disabled)
{
    vmm_i8042_key(kbc, 0x1e, 1);
    vmm_i8042_key(kbc, 0x1f, 1);
    expect("1e 1f");
    keyboard(0xf5, "fa");
    vmm_i8042_key(kbc, 0x1e, 0);
    vmm_i8042_key(kbc, 0x10, 1);
    fake_advance(vm, 1000000000);
    empty();
    keyboard(0xf4, "fa");
    vmm_i8042_key(kbc, 0x10, 0);
    expect("90");
}
END_TEST

START_TEST(too_many_keys_end_in_an_overrun_code)
{
    untranslated(2);
    for (int i = 0; i < 200; i++) {
        vmm_i8042_key(kbc, 0x1e, 1);
        vmm_i8042_key(kbc, 0x1e, 0);
    }
    unsigned n = 0, last = 1;
    for (; inb(vm, STATUS) & OBF; n++)
        last = inb(vm, DATA);
    ck_assert_uint_eq(last, 0x00);
    ck_assert_uint_le(n, 257);
    ck_assert_uint_ge(n, 16);
    key(0x1e, "1c", "f0 1c"); /* and it works again */
}
END_TEST

/* ---- Mouse ---- */

static void rate(unsigned r)
{
    mouse(0xf3, "fa");
    mouse(r, "fa");
}

static void report(const char *hex)
{
    for (unsigned v; sscanf(hex, "%x", &v) == 1; hex += strcspn(hex, " "), hex += *hex == ' ')
        ck_assert_uint_eq(get_aux(), v);
}

START_TEST(plain_mouse_reports_movement_and_buttons)
{
    mouse(0xff, "fa aa 00");
    mouse(0xf2, "fa 00");
    vmm_i8042_mouse(kbc, 5, 5, 0, 0);
    empty(); /* not enabled */
    mouse(0xf4, "fa");
    uint32_t before = vm->edges[12];
    vmm_i8042_mouse(kbc, 5, -3, 0, 1);
    ck_assert_uint_eq(vm->edges[12], before + 1);
    report("29 05 fd");
    empty();
    vmm_i8042_mouse(kbc, -1, 0, 0, 6);
    report("1e ff 00");
    vmm_i8042_mouse(kbc, 0, 0, 0, 6); /* nothing new */
    empty();
    vmm_i8042_mouse(kbc, 0, 0, 5, 6); /* no wheel */
    empty();
    mouse(0xf5, "fa");
    vmm_i8042_mouse(kbc, 1, 1, 0, 0);
    empty();
}
END_TEST

START_TEST(movement_comes_together_and_large_steps_are_split)
{
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 1, 1, 0, 0);
    vmm_i8042_mouse(kbc, 300, 2, 0, 0);
    vmm_i8042_mouse(kbc, 300, 3, 0, 0);
    report("08 01 01");
    report("08 ff 05");
    report("08 ff 00");
    report("08 5a 00");
    empty();
    for (int i = 0; i < 1000; i++) /* clicks wait in a bounded queue */
        vmm_i8042_mouse(kbc, 0, 0, 0, i & 1);
    unsigned n = 0;
    for (; inb(vm, STATUS) & OBF; n++)
        inb(vm, DATA);
    ck_assert_uint_le(n, 48);
    for (int i = 0; i < 100; i++)
        vmm_i8042_mouse(kbc, 0x7fffffff, -0x7fffffff - 1, 0x7fffffff, 0);
}
END_TEST

START_TEST(sample_rates_switch_to_the_wheel_and_to_five_buttons)
{
    rate(200), rate(100), rate(80);
    mouse(0xf2, "fa 03");
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 0, 0, 1, 0); /* away from the user */
    report("08 00 00 ff");
    vmm_i8042_mouse(kbc, 0, 0, -10, 0);
    report("08 00 00 07");
    report("08 00 00 03");
    empty();
    vmm_i8042_mouse(kbc, 0, 0, 0, 8); /* no such button here */
    empty();
    rate(200), rate(200), rate(80);
    mouse(0xf2, "fa 04");
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 2, 0, 1, 0x10);
    report("08 02 00 2f");
    vmm_i8042_mouse(kbc, 0, 0, 0, 0x08);
    report("08 00 00 10");
    mouse(0xff, "fa aa 00");
    mouse(0xf2, "fa 00");
}
END_TEST

START_TEST(status_resolution_and_scaling)
{
    mouse(0xe9, "fa 00 02 64");
    mouse(0xe8, "fa");
    mouse(0x03, "fa");
    rate(40);
    mouse(0xe7, "fa");
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 3, -5, 0, 5);
    report("2d 03 f7");
    mouse(0xe9, "fa 36 03 28");
    vmm_i8042_mouse(kbc, 200, 0, 0, 5);
    report("0d fe 00");
    report("0d 92 00");
    mouse(0xe6, "fa");
    mouse(0xf6, "fa");
    mouse(0xe9, "fa 06 02 64");
}
END_TEST

START_TEST(remote_mode_reports_on_request)
{
    mouse(0xf0, "fa");
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 7, 0, 0, 1);
    empty();
    mouse(0xeb, "fa 09 07 00");
    mouse(0xeb, "fa 09 00 00");
    mouse(0xe9, "fa 64 02 64");
    mouse(0xea, "fa");
    vmm_i8042_mouse(kbc, 1, 0, 0, 1);
    report("09 01 00");
}
END_TEST

START_TEST(wrap_mode_echoes_all_but_two)
{
    mouse(0xee, "fa");
    mouse(0xf4, "f4");
    mouse(0x00, "0");
    mouse(0xee, "ee");
    mouse(0xec, "fa");
    mouse(0xf2, "fa 00");
    mouse(0xee, "fa");
    mouse(0xff, "fa aa 00");
    mouse(0xf2, "fa 00");
}
END_TEST

START_TEST(invalid_bytes_are_refused_twice)
{
    mouse(0x10, "fe");
    mouse(0x10, "fc");
    mouse(0x10, "fe");
    mouse(0xf2, "fa 00");
    mouse(0xf3, "fa");
    mouse(33, "fe");
    mouse(0xe8, "fa");
    mouse(4, "fe");
    mouse(0xf3, "fa");
    mouse(0xff, "fa aa 00"); /* lost in an argument, a reset still works */
}
END_TEST

START_TEST(keyboard_goes_before_the_mouse)
{
    mouse(0xf4, "fa");
    vmm_i8042_mouse(kbc, 1, 0, 0, 0);
    vmm_i8042_key(kbc, 0x1e, 1);
    ck_assert_uint_eq(get_aux(), 0x08); /* was in the buffer already */
    ck_assert_uint_eq(inb(vm, STATUS) & AUX, 0);
    ck_assert_uint_eq(get(), 0x1e);
    report("01 00");
}
END_TEST

START_TEST(reset_restores_power_on_state)
{
    set_cb(0);
    mouse(0xf4, "fa");
    keyboard(0xf5, "fa");
    command(0xd1);
    vmm_i8042_mouse(kbc, 1, 0, 0, 0);
    fake_vm_reset(vm);
    empty();
    ck_assert_int_eq(vm->level[12], 0);
    ck_assert_uint_eq(ask(0x20), 0x47);
    key(0x1e, "1e", "9e");
    vmm_i8042_mouse(kbc, 1, 0, 0, 0);
    empty();
    keyboard(0xee, "ee");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("i8042");
    TCase *tc = tcase_create("i8042");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, linux_probe_finds_controller_and_mouse_port);
    tcase_add_test(tc, interface_tests_and_ports);
    tcase_add_test(tc, status_tells_command_from_data);
    tcase_add_test(tc, a20_by_three_ways);
    tcase_add_test(tc, resets_of_the_machine);
    tcase_add_test(tc, each_byte_is_an_edge_and_the_command_byte_gates_it);
    tcase_add_test(tc, a_disabled_interface_holds_keys_until_it_is_enabled);
    tcase_add_test(tc, loop_to_the_keyboard_and_bounded_answers);
    tcase_add_test(tc, linux_probes_the_keyboard);
    tcase_add_test(tc, a_command_takes_the_place_of_an_argument);
    tcase_add_test(tc, keys_in_the_translated_set);
    tcase_add_test(tc, keys_in_sets_1_2_and_3);
    tcase_add_test(tc, print_and_pause_with_modifiers);
    tcase_add_test(tc, the_keyboard_repeats_and_the_host_does_not);
    tcase_add_test(tc, scanning_can_be_disabled);
    tcase_add_test(tc, too_many_keys_end_in_an_overrun_code);
    tcase_add_test(tc, plain_mouse_reports_movement_and_buttons);
    tcase_add_test(tc, movement_comes_together_and_large_steps_are_split);
    tcase_add_test(tc, sample_rates_switch_to_the_wheel_and_to_five_buttons);
    tcase_add_test(tc, status_resolution_and_scaling);
    tcase_add_test(tc, remote_mode_reports_on_request);
    tcase_add_test(tc, wrap_mode_echoes_all_but_two);
    tcase_add_test(tc, invalid_bytes_are_refused_twice);
    tcase_add_test(tc, keyboard_goes_before_the_mouse);
    tcase_add_test(tc, reset_restores_power_on_state);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
