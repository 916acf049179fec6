/* SPDX-License-Identifier: BSD-2-Clause */
/* test_device.c: the list of device models: order, removal, what callbacks may do. */
#include <check.h>

#include "script_backend.h"

static char calls[64];

static void note(void *opaque, char c)
{
    size_t n = strlen(calls);

    ck_assert_uint_lt(n + 3, sizeof(calls));
    calls[n] = c;
    calls[n + 1] = *(const char *)opaque;
    calls[n + 2] = 0;
}

static void on_reset(void *opaque)
{
    note(opaque, 'r');
}

static void on_stop(void *opaque)
{
    note(opaque, 's');
}

static const struct vmm_device_ops ops = {
    .size = sizeof(ops), .name = "test", .reset = on_reset, .stop = on_stop};

static void setup(void)
{
    script_setup();
    calls[0] = 0;
}

static char *id(const char *s)
{
    static char ids[26][2];

    ids[*s - 'a'][0] = *s;
    return ids[*s - 'a'];
}

START_TEST(reset_and_stop_run_in_reverse_order)
{
    ck_assert_int_eq(vm_device_add(vm, &ops, id("a"), NULL), 0);
    ck_assert_int_eq(vm_device_add(vm, &ops, id("b"), NULL), 0);
    ck_assert_int_eq(vm_device_add(vm, &ops, id("c"), NULL), 0);
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_str_eq(calls, "rcrbra");
    calls[0] = 0;
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    ck_assert_str_eq(calls, "scsbsa");
}
END_TEST

START_TEST(a_removed_device_is_stopped_once)
{
    struct vmm_device *d;

    ck_assert_int_eq(vm_device_add(vm, &ops, id("a"), NULL), 0);
    ck_assert_int_eq(vm_device_add(vm, &ops, id("b"), &d), 0);
    ck_assert_int_eq(vm_device_add(vm, &ops, id("c"), NULL), 0);
    ck_assert_int_eq(vm_device_remove(d), 0);
    ck_assert_str_eq(calls, "sb");
    ck_assert_int_eq(vm_device_remove(NULL), 0);
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    ck_assert_str_eq(calls, "sbscsa");
}
END_TEST

START_TEST(callbacks_may_be_missing_and_structs_are_checked)
{
    struct vmm_device_ops none = {.size = sizeof(none)}, bad = {.size = 4};
    struct {
        struct vmm_device_ops ops;
        uint64_t more;
    } longer = {.ops = {.size = sizeof(longer)}};

    ck_assert_int_eq(vm_device_add(vm, &none, NULL, NULL), 0);
    ck_assert_int_eq(vm_device_add(vm, &bad, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_device_add(vm, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_device_add(vm, &longer.ops, NULL, NULL), 0);
    longer.more = 1;
    ck_assert_int_eq(vm_device_add(vm, &longer.ops, NULL, NULL), VMM_E_UNSUPPORTED);
    none.reserved = 1;
    ck_assert_int_eq(vm_device_add(vm, &none, NULL, NULL), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vm_reset(vm), 0);
}
END_TEST

static struct vmm_device *self;
static int remove_result;

static int remove_self(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    remove_result = vm_device_remove(self);
    return VMM_IO_OK;
}

static int poke(struct vcpu *vcpu, uint64_t serial)
{
    uint64_t v = 1;

    return core_pio_access(vcpu->vm, vcpu, serial, 0x80, 1, true, &v);
}

START_TEST(removal_while_a_vcpu_runs_is_refused)
{
    struct vmm_io_ops io = {.size = sizeof(io), .write = remove_self};
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vm_device_add(vm, &ops, id("a"), &self), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &io, NULL, NULL), 0);
    script[0] = (struct script_cpu){.insn = poke, .count = 1};
    ck_assert_int_eq(vcpu_run(cpu[0], &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_HLT);
    ck_assert_int_eq(remove_result, VMM_E_BUSY);
    ck_assert_str_eq(calls, "");
    ck_assert_int_eq(vm_device_remove(self), 0);
    ck_assert_str_eq(calls, "sa");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("device");
    TCase *tc = tcase_create("device");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, script_teardown);
    tcase_add_test(tc, reset_and_stop_run_in_reverse_order);
    tcase_add_test(tc, a_removed_device_is_stopped_once);
    tcase_add_test(tc, callbacks_may_be_missing_and_structs_are_checked);
    tcase_add_test(tc, removal_while_a_vcpu_runs_is_refused);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
