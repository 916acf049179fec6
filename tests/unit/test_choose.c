/* SPDX-License-Identifier: BSD-2-Clause */
/* test_choose.c: which engine vm_create takes, of those that work, work badly or do not. */
#include <check.h>

#define FAKE_OWN_TABLE
#include "fake_backend.h"

#define ENGINES 3

static struct vmm_backend_ops engine[ENGINES];
static struct {
    int result;
    uint32_t flags;
    unsigned probes;
} answer[ENGINES];

const struct vmm_backend_ops *const vmm_backends[] = {&engine[0], &engine[1], &engine[2], NULL};

static void fill(unsigned i, struct vmm_backend_report *report)
{
    report->result = answer[i].result;
    report->flags = answer[i].flags;
    snprintf(report->reason, sizeof(report->reason), "reason %u", i);
    answer[i].probes++;
}

static void probe0(struct vmm_backend_report *report)
{
    fill(0, report);
}

static void probe1(struct vmm_backend_report *report)
{
    fill(1, report);
}

static void probe2(struct vmm_backend_report *report)
{
    fill(2, report);
}

static void setup(void)
{
    static void (*const probes[ENGINES])(struct vmm_backend_report *) = {probe0, probe1, probe2};
    static const char *const names[ENGINES] = {"first", "second", "third"};

    for (unsigned i = 0; i < ENGINES; i++) {
        engine[i] = fake_backend;
        engine[i].name = names[i];
        engine[i].probe = probes[i];
    }
    memset(answer, 0, sizeof(answer));
}

static char error_text[512];

/* The name of the engine of a VM so created; NULL: there is none. */
static const char *chosen(uint32_t select, const char *const *list)
{
    static char name[16];
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {
        .size = sizeof(config), .select = select, .backends = list, .error = &error};
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vm *vm = NULL;
    int err = vm_create(&config, &vm);

    snprintf(error_text, sizeof(error_text), "%s", error.text);
    if (err) {
        ck_assert_int_eq(err, VMM_E_NODEV);
        return NULL;
    }
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    memcpy(name, caps.backend, sizeof(name));
    vm_destroy(vm);
    return name;
}

START_TEST(auto_takes_the_first_that_works_well)
{
    ck_assert_str_eq(chosen(VMM_SELECT_AUTO, NULL), "first");
    answer[0].flags = VMM_BACKEND_DEGRADED;
    ck_assert_str_eq(chosen(VMM_SELECT_AUTO, NULL), "second");
    answer[1].result = VMM_E_PERM;
    ck_assert_str_eq(chosen(VMM_SELECT_AUTO, NULL), "third");
}
END_TEST

START_TEST(auto_takes_a_degraded_one_when_none_works_well)
{
    answer[0].result = VMM_E_NODEV;
    answer[1].flags = VMM_BACKEND_DEGRADED;
    answer[2].flags = VMM_BACKEND_DEGRADED;
    ck_assert_str_eq(chosen(VMM_SELECT_AUTO, NULL), "second");
}
END_TEST

START_TEST(auto_passes_over_flags_of_a_later_version)
{
    answer[0].flags = 0x80;
    answer[1].flags = VMM_BACKEND_DEGRADED;
    ck_assert_str_eq(chosen(VMM_SELECT_AUTO, NULL), "third");
}
END_TEST

START_TEST(auto_says_why_none_works)
{
    for (unsigned i = 0; i < ENGINES; i++)
        answer[i].result = VMM_E_PERM;
    ck_assert_ptr_null(chosen(VMM_SELECT_AUTO, NULL));
    for (unsigned i = 0; i < ENGINES; i++) {
        char reason[32];

        snprintf(reason, sizeof(reason), "%s: reason %u", engine[i].name, i);
        char *at = strstr(error_text, reason);
        ck_assert_ptr_nonnull(at);
        ck_assert_ptr_null(strstr(at + 1, reason));
    }
}
END_TEST

START_TEST(one_that_is_asked_for_may_be_degraded)
{
    const char *list[] = {"first", NULL};

    answer[0].flags = VMM_BACKEND_DEGRADED;
    ck_assert_str_eq(chosen(VMM_SELECT_REQUIRE, list), "first");
    ck_assert_str_eq(chosen(VMM_SELECT_PREFER, list), "first");
    answer[0].result = VMM_E_PERM;
    ck_assert_ptr_null(chosen(VMM_SELECT_REQUIRE, list));
    ck_assert_str_eq(chosen(VMM_SELECT_PREFER, list), "second");
}
END_TEST

START_TEST(the_report_has_the_flag)
{
    struct vmm_backend_report r[ENGINES] = {{.size = sizeof(r[0])}};

    answer[1].flags = VMM_BACKEND_DEGRADED;
    ck_assert_int_eq(vmm_backend_probe(r, ENGINES), ENGINES);
    ck_assert_uint_eq(r[0].flags, 0);
    ck_assert_uint_eq(r[1].flags, VMM_BACKEND_DEGRADED);
    ck_assert_str_eq(r[1].reason, "reason 1");
}
END_TEST

/* For engines that know it; not in lock step. */
START_TEST(direct_is_taken_by_all_and_seen_by_some)
{
    static const struct {
        const char *backend;
        uint32_t flags, kept;
    } t[] = {{"first", VMM_VM_DIRECT, 0},
             {"second", VMM_VM_DIRECT, VMM_VM_DIRECT},
             {"second", 0, 0},
             {"second", VMM_VM_DIRECT | VMM_VM_LOCKSTEP, VMM_VM_LOCKSTEP}};

    engine[1].direct = true;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        const char *const names[] = {t[i].backend, NULL};
        struct vm_config config = {.size = sizeof(config),
                                   .flags = t[i].flags,
                                   .select = VMM_SELECT_REQUIRE,
                                   .backends = names};
        struct vm *vm = NULL;

        ck_assert_int_eq(vm_create(&config, &vm), 0);
        ck_assert_uint_eq(vm->flags, t[i].kept);
        vm_destroy(vm);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("choose");
    TCase *tcase = tcase_create("choose");

    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, auto_takes_the_first_that_works_well);
    tcase_add_test(tcase, auto_takes_a_degraded_one_when_none_works_well);
    tcase_add_test(tcase, auto_passes_over_flags_of_a_later_version);
    tcase_add_test(tcase, auto_says_why_none_works);
    tcase_add_test(tcase, one_that_is_asked_for_may_be_degraded);
    tcase_add_test(tcase, the_report_has_the_flag);
    tcase_add_test(tcase, direct_is_taken_by_all_and_seen_by_some);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
