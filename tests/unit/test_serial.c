/* SPDX-License-Identifier: BSD-2-Clause */
/* test_serial.c: the 16550A as drivers use it: detection, both directions, interrupts, errors. */
#include <check.h>

#include "fake_vm.h"

#define PORT 0x3f8
#define IRQ  4

#define IER (PORT + 1)
#define IIR (PORT + 2)
#define FCR (PORT + 2)
#define LCR (PORT + 3)
#define MCR (PORT + 4)
#define LSR (PORT + 5)
#define MSR (PORT + 6)
#define SCR (PORT + 7)

static struct vm *vm;
static struct vmm_serial *serial;
static uint8_t sent[8192];
static size_t nsent, room;

static size_t output(void *opaque, const uint8_t *bytes, size_t n)
{
    ck_assert_ptr_eq(opaque, &nsent);
    if (n > room)
        n = room;
    memcpy(sent + nsent, bytes, n);
    nsent += n;
    room -= n;
    return n;
}

static void setup(void)
{
    struct vmm_serial_config config = {
        .size = sizeof config, .port = PORT, .irq = IRQ, .output = output, .opaque = &nsent};

    vm = fake_vm_new();
    nsent = 0;
    room = sizeof sent;
    ck_assert_int_eq(vmm_serial_create(vm, &config, &serial), 0);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static void input(const char *text)
{
    ck_assert_uint_eq(vmm_serial_input(serial, (const uint8_t *)text, strlen(text)), strlen(text));
}

/* The steps of Linux's 8250 autoconfig and 16550A detection. */
START_TEST(linux_autoconfig_finds_a_16550a)
{
    outb(vm, IER, 0);
    ck_assert_uint_eq(inb(vm, IER) & 0x0f, 0);
    outb(vm, IER, 0x0f);
    ck_assert_uint_eq(inb(vm, IER) & 0x0f, 0x0f);
    outb(vm, IER, 0);

    outb(vm, MCR, 0x10 | 0x0a);
    ck_assert_uint_eq(inb(vm, MSR) & 0xf0, 0x90);
    outb(vm, MCR, 0);

    outb(vm, LCR, 0xbf);
    outb(vm, PORT + 2, 0);
    outb(vm, LCR, 0);
    outb(vm, FCR, 1);
    ck_assert_uint_eq(inb(vm, IIR) >> 6, 3);
    outb(vm, LCR, 0x80);
    ck_assert_uint_ne(inb(vm, PORT + 2), 0); /* no EFR: not a 16650 */
    outb(vm, LCR, 0);
    outb(vm, FCR, 0x21);
    ck_assert_uint_eq(inb(vm, IIR) >> 5, 6); /* no 64 byte FIFO: not a 16750 */
    outb(vm, IER, 0x40);
    ck_assert_uint_eq(inb(vm, IER) & 0x40, 0); /* not an XScale */
    outb(vm, IER, 0);
    for (unsigned v = 0; v < 256; v += 85) {
        outb(vm, SCR, v);
        ck_assert_uint_eq(inb(vm, SCR), v);
    }
    ck_assert_uint_eq(vm->edges[IRQ], 0);
}
END_TEST

START_TEST(divisor_latch_hides_data_and_ier)
{
    outb(vm, IER, 5);
    outb(vm, LCR, 0x83);
    outb(vm, PORT, 0x34);
    outb(vm, IER, 0x12);
    ck_assert_uint_eq(inb(vm, PORT), 0x34);
    ck_assert_uint_eq(inb(vm, IER), 0x12);
    outb(vm, LCR, 3);
    ck_assert_uint_eq(inb(vm, IER), 5);
    ck_assert_uint_eq(nsent, 0);
}
END_TEST

START_TEST(polled_output_reaches_the_program_at_once)
{
    outb(vm, LCR, 3);
    for (const char *p = "hello"; *p; p++) {
        ck_assert_uint_eq(inb(vm, LSR) & 0x60, 0x60);
        outb(vm, PORT, *p);
        ck_assert_uint_eq(sent[nsent - 1], *p);
    }
    ck_assert_uint_eq(nsent, 5);
}
END_TEST

START_TEST(output_works_without_any_initialisation)
{
    outb(vm, PORT, 0xc1);
    ck_assert_uint_eq(nsent, 1);
    ck_assert_uint_eq(sent[0], 0xc1);
}
END_TEST

START_TEST(thre_interrupt_rises_on_enable_and_after_each_write)
{
    outb(vm, MCR, 8);
    outb(vm, IER, 2);
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, IIR), 0x02);
    ck_assert_int_eq(vm->level[IRQ], 0); /* reading IIR took it back */
    ck_assert_uint_eq(inb(vm, IIR), 0x01);
    outb(vm, PORT, 'x');
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, IIR), 0x02);
    /* Linux's test for chips that do not raise it again: off and on. */
    outb(vm, IER, 0);
    outb(vm, IER, 2);
    ck_assert_uint_eq(inb(vm, IIR), 0x02);
}
END_TEST

START_TEST(out2_gates_the_interrupt)
{
    outb(vm, IER, 1);
    input("a");
    ck_assert_int_eq(vm->level[IRQ], 0);
    ck_assert_uint_eq(inb(vm, IIR), 0x04);
    outb(vm, MCR, 8);
    ck_assert_int_eq(vm->level[IRQ], 1);
}
END_TEST

START_TEST(a_busy_program_holds_thre_low_until_it_says_writable)
{
    room = 3;
    outb(vm, LCR, 3);
    outb(vm, FCR, 1);
    outb(vm, MCR, 8);
    for (int i = 0; i < 5; i++)
        outb(vm, PORT, 'a' + i);
    ck_assert_uint_eq(nsent, 3);
    ck_assert_uint_eq(inb(vm, LSR) & 0x60, 0);
    outb(vm, IER, 2);
    ck_assert_int_eq(vm->level[IRQ], 0);
    room = 100;
    vmm_serial_writable(serial);
    ck_assert_uint_eq(nsent, 5);
    ck_assert_mem_eq(sent, "abcde", 5);
    ck_assert_uint_eq(inb(vm, LSR) & 0x60, 0x60);
    ck_assert_int_eq(vm->level[IRQ], 1);
}
END_TEST

START_TEST(receive_trigger_levels_and_timeout)
{
    static const unsigned levels[] = {1, 4, 8, 14};

    outb(vm, LCR, 3);
    outb(vm, MCR, 8);
    for (unsigned l = 0; l < 4; l++) {
        outb(vm, FCR, 0x07 | l << 6);
        outb(vm, IER, 1);
        for (unsigned i = 1; i < levels[l]; i++) {
            input("x");
            ck_assert_int_eq(vm->level[IRQ], 0);
        }
        input("x");
        ck_assert_int_eq(vm->level[IRQ], 1);
        ck_assert_uint_eq(inb(vm, IIR), 0xc4);
        inb(vm, PORT);
        ck_assert_int_eq(vm->level[IRQ], 0);
    }
    /* 13 left below the trigger: after four characters at 9600 baud the timeout comes. */
    fake_advance(vm, 4000000);
    ck_assert_int_eq(vm->level[IRQ], 0);
    fake_advance(vm, 200000);
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, IIR), 0xcc);
    ck_assert_uint_eq(inb(vm, PORT), 'x');
    ck_assert_uint_eq(inb(vm, IIR), 0xc1);
}
END_TEST

START_TEST(long_input_waits_in_the_host_buffer_and_keeps_its_order)
{
    uint8_t data[5000];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    outb(vm, LCR, 3);
    outb(vm, FCR, 1);
    size_t taken = vmm_serial_input(serial, data, sizeof data);
    ck_assert_uint_ge(taken, 4096);
    ck_assert_uint_lt(taken, sizeof data);
    for (size_t i = 0; i < taken; i++) {
        ck_assert_uint_eq(inb(vm, LSR) & 3, 1); /* ready, no overrun */
        ck_assert_uint_eq(inb(vm, PORT), data[i]);
    }
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
    ck_assert_uint_eq(vmm_serial_input(serial, data, 10), 10);
}
END_TEST

START_TEST(without_fifo_one_byte_at_a_time)
{
    input("ab");
    ck_assert_uint_eq(inb(vm, PORT), 'a');
    ck_assert_uint_eq(inb(vm, LSR) & 1, 1);
    ck_assert_uint_eq(inb(vm, PORT), 'b');
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
    ck_assert_uint_eq(inb(vm, PORT), 'b'); /* RBR keeps it */
}
END_TEST

START_TEST(break_shows_when_it_reaches_the_top)
{
    outb(vm, LCR, 3);
    outb(vm, FCR, 1);
    outb(vm, MCR, 8);
    outb(vm, IER, 4);
    input("a");
    vmm_serial_break(serial);
    input("b");
    ck_assert_int_eq(vm->level[IRQ], 0);
    ck_assert_uint_eq(inb(vm, LSR) & 0x9e, 0x80); /* an error is in the FIFO */
    ck_assert_uint_eq(inb(vm, PORT), 'a');
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, IIR), 0xc6);
    ck_assert_uint_eq(inb(vm, LSR) & 0x9e, 0x90);
    ck_assert_int_eq(vm->level[IRQ], 0);
    ck_assert_uint_eq(inb(vm, LSR) & 0x9e, 0);
    ck_assert_uint_eq(inb(vm, PORT), 0);
    ck_assert_uint_eq(inb(vm, PORT), 'b');
}
END_TEST

START_TEST(loopback_returns_what_is_sent_and_overruns)
{
    outb(vm, LCR, 3);
    outb(vm, FCR, 7);
    outb(vm, MCR, 0x10);
    for (int i = 0; i < 17; i++)
        outb(vm, PORT, i);
    ck_assert_uint_eq(nsent, 0);
    ck_assert_uint_eq(inb(vm, LSR) & 0x03, 0x03);
    ck_assert_uint_eq(inb(vm, LSR) & 0x03, 0x01); /* the first read cleared OE */
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(inb(vm, PORT), i);
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
}
END_TEST

START_TEST(modem_deltas_follow_loopback_outputs)
{
    outb(vm, MCR, 0x10);
    inb(vm, MSR);
    outb(vm, MCR, 0x10 | 0x04); /* RI on: no trailing edge yet */
    ck_assert_uint_eq(inb(vm, MSR), 0x40);
    outb(vm, IER, 8);
    outb(vm, MCR, 0x10 | 0x08);
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, IIR), 0x00);
    ck_assert_uint_eq(inb(vm, MSR), 0x80 | 0x08 | 0x04);
    ck_assert_int_eq(vm->level[IRQ], 0);
    ck_assert_uint_eq(inb(vm, MSR), 0x80);
}
END_TEST

START_TEST(sources_are_reported_in_order_of_priority)
{
    outb(vm, LCR, 3);
    outb(vm, FCR, 1);
    outb(vm, MCR, 0x10);
    inb(vm, MSR);
    outb(vm, IER, 0x0f);
    outb(vm, MCR, 0x18); /* DCD: modem status */
    for (int i = 0; i < 17; i++)
        outb(vm, PORT, i);
    ck_assert_uint_eq(inb(vm, IIR) & 0x0f, 0x06);
    inb(vm, LSR);
    ck_assert_uint_eq(inb(vm, IIR) & 0x0f, 0x04);
    for (int i = 0; i < 16; i++)
        inb(vm, PORT);
    ck_assert_uint_eq(inb(vm, IIR) & 0x0f, 0x02);
    ck_assert_uint_eq(inb(vm, IIR) & 0x0f, 0x00);
    inb(vm, MSR);
    ck_assert_uint_eq(inb(vm, IIR) & 0x0f, 0x01);
}
END_TEST

START_TEST(reset_restores_power_on_state)
{
    room = 0;
    outb(vm, LCR, 3);
    outb(vm, FCR, 1);
    outb(vm, MCR, 8);
    outb(vm, IER, 0xf);
    outb(vm, PORT, 'x');
    input("abc");
    fake_vm_reset(vm);
    ck_assert_int_eq(vm->level[IRQ], 0);
    ck_assert_uint_eq(inb(vm, LSR), 0x60);
    ck_assert_uint_eq(inb(vm, IIR), 0x01);
    ck_assert_uint_eq(inb(vm, MSR), 0xb0);
    ck_assert_uint_eq(inb(vm, IER) | inb(vm, LCR) | inb(vm, MCR), 0);
}
END_TEST

/* A port with flow control in place of the plain one. */
static void flow_setup(void)
{
    struct vmm_serial_config config = {.size = sizeof config,
                                       .port = PORT,
                                       .irq = IRQ,
                                       .output = output,
                                       .opaque = &nsent,
                                       .flags = VMM_SERIAL_FLOW};

    vm = fake_vm_new();
    nsent = 0;
    room = sizeof sent;
    ck_assert_int_eq(vmm_serial_create(vm, &config, &serial), 0);
}

/* The order of Linux's serial8250_startup and uart_port_startup. */
START_TEST(flow_control_loses_nothing_while_the_driver_sets_up)
{
    input("early");
    outb(vm, FCR, 1);
    outb(vm, FCR, 7);
    outb(vm, FCR, 0);
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
    inb(vm, PORT);
    inb(vm, IIR);
    inb(vm, MSR);
    ck_assert_uint_eq(inb(vm, LSR), 0x60);
    outb(vm, LCR, 3);
    outb(vm, MCR, 8);
    outb(vm, IER, 2);
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
    outb(vm, IER, 0);
    inb(vm, LSR);
    inb(vm, PORT);
    inb(vm, IIR);
    outb(vm, IER, 5);
    outb(vm, LCR, 0x93);
    outb(vm, LCR, 0x13);
    outb(vm, FCR, 1);
    outb(vm, FCR, 0x81);
    outb(vm, MCR, 0x0b);
    for (const char *p = "early"; *p; p++) {
        ck_assert_uint_eq(inb(vm, LSR) & 1, 1);
        ck_assert_uint_eq(inb(vm, PORT), *p);
    }
    ck_assert_uint_eq(inb(vm, LSR) & 1, 0);
}
END_TEST

START_TEST(flow_control_sees_the_receive_interrupt_enabled)
{
    input("x");
    outb(vm, MCR, 8);
    ck_assert_int_eq(vm->level[IRQ], 0);
    outb(vm, IER, 1);
    ck_assert_int_eq(vm->level[IRQ], 1);
    ck_assert_uint_eq(inb(vm, PORT), 'x');
}
END_TEST

/* Waiting for the transmitter is not polling for input: there is a write after it. */
START_TEST(flow_control_sees_a_guest_that_polls)
{
    unsigned polls = 0;

    input("yz");
    for (int i = 0; i < 20; i++) {
        ck_assert_uint_eq(inb(vm, LSR) & 0x21, 0x20);
        outb(vm, PORT, '.');
    }
    while (!(inb(vm, LSR) & 1))
        ck_assert_uint_lt(++polls, 100);
    ck_assert_uint_eq(inb(vm, PORT), 'y');
    ck_assert_uint_eq(inb(vm, LSR) & 1, 1);
    ck_assert_uint_eq(inb(vm, PORT), 'z');
}
END_TEST

START_TEST(flow_control_keeps_input_through_a_reset)
{
    input("ab");
    fake_vm_reset(vm);
    outb(vm, FCR, 1);
    outb(vm, MCR, 3);
    ck_assert_uint_eq(inb(vm, PORT), 'a');
    ck_assert_uint_eq(inb(vm, PORT), 'b');
}
END_TEST

START_TEST(bad_configs_are_refused)
{
    struct {
        struct vmm_serial_config c;
        uint64_t tail;
    } big = {{.size = sizeof big, .port = 0x2f8, .irq = 3}, 1};
    struct vmm_serial_config none = {.port = 0x2f8};

    ck_assert_int_eq(vmm_serial_create(vm, &big.c, NULL), VMM_E_UNSUPPORTED);
    big.tail = 0;
    ck_assert_int_eq(vmm_serial_create(vm, &big.c, NULL), 0);
    ck_assert_int_eq(vmm_serial_create(vm, &none, NULL), VMM_E_INVAL);
    big.c.irq = 24;
    ck_assert_int_eq(vmm_serial_create(vm, &big.c, NULL), VMM_E_RANGE);
    big.c.irq = 3;
    big.c.flags = 2;
    ck_assert_int_eq(vmm_serial_create(vm, &big.c, NULL), VMM_E_UNSUPPORTED);
    big.c.flags = 0;
    ck_assert_int_eq(vmm_serial_create(vm, &big.c, NULL), VMM_E_EXIST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("serial");
    TCase *tc = tcase_create("serial");
    TCase *flow = tcase_create("flow control");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, linux_autoconfig_finds_a_16550a);
    tcase_add_test(tc, divisor_latch_hides_data_and_ier);
    tcase_add_test(tc, polled_output_reaches_the_program_at_once);
    tcase_add_test(tc, output_works_without_any_initialisation);
    tcase_add_test(tc, thre_interrupt_rises_on_enable_and_after_each_write);
    tcase_add_test(tc, out2_gates_the_interrupt);
    tcase_add_test(tc, a_busy_program_holds_thre_low_until_it_says_writable);
    tcase_add_test(tc, receive_trigger_levels_and_timeout);
    tcase_add_test(tc, long_input_waits_in_the_host_buffer_and_keeps_its_order);
    tcase_add_test(tc, without_fifo_one_byte_at_a_time);
    tcase_add_test(tc, break_shows_when_it_reaches_the_top);
    tcase_add_test(tc, loopback_returns_what_is_sent_and_overruns);
    tcase_add_test(tc, modem_deltas_follow_loopback_outputs);
    tcase_add_test(tc, sources_are_reported_in_order_of_priority);
    tcase_add_test(tc, reset_restores_power_on_state);
    tcase_add_test(tc, bad_configs_are_refused);
    suite_add_tcase(suite, tc);
    tcase_add_checked_fixture(flow, flow_setup, teardown);
    tcase_add_test(flow, flow_control_loses_nothing_while_the_driver_sets_up);
    tcase_add_test(flow, flow_control_sees_the_receive_interrupt_enabled);
    tcase_add_test(flow, flow_control_sees_a_guest_that_polls);
    tcase_add_test(flow, flow_control_keeps_input_through_a_reset);
    suite_add_tcase(suite, flow);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
