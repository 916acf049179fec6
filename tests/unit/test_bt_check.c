/* SPDX-License-Identifier: BSD-2-Clause */
/* Lock step: code that is translated as it should be passes, a translation with a planted defect is
 * found and named. */
#include "backends/bt/check.h"

#include "api_vm.h"

static void begin(uint32_t flags, uint32_t cpus)
{
    static const char *const backends[] = {"bt", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_LOCKSTEP | flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .max_vcpus = cpus};

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
}

static void load(const char *code, size_t size)
{
    api_load(vcpu, code, size);
}
#define LOAD_CODE(code) load(code, sizeof(code) - 1)

static struct bt *translator(void)
{
    return check_of(vcpu)->tested->tier_state;
}

static int run(uint64_t insns)
{
    ck_assert_int_eq(vcpu_set_budget(vcpu, insns, 0), 0);
    return vcpu_run(vcpu, &ex);
}

/*
 *       mov $0, %ebx
 *       mov $20000, %ecx
 *  loop: mov $0x5a5a5a5a, %eax
 *       add %rax, %rbx
 *       mov %rbx, 0x8000
 *       dec %ecx
 *       jnz loop
 *       hlt
 */
static const char sums[] = "\xbb\x00\x00\x00\x00\xb9\x20\x4e\x00\x00"
                           "\xb8\x5a\x5a\x5a\x5a\x48\x01\xc3\x48\x89\x1c\x25\x00\x80\x00\x00"
                           "\xff\xc9\x75\xec\xf4";
#define LOOP (CODE + 10)

START_TEST(equal_is_passed)
{
    uint64_t sum = 0;

    begin(VMM_VM_TRANSLATE_ALL, 1);
    LOAD_CODE(sums);
    ck_assert_int_eq(run(0), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_HLT);
    ck_assert_int_eq(vm_mem_read(vm, 0x8000, &sum, 8), 0);
    ck_assert_uint_eq(sum, 20000ull * 0x5a5a5a5a);
    ck_assert_ptr_null(vm_lockstep_report(vm));
    ck_assert_uint_gt(check_of(vcpu)->segment, 1);
    ck_assert_uint_gt(translator()->used, translator()->start);
    api_end();
}
END_TEST

/* Changes a constant in all code that has been generated: the number of places. */
static unsigned corrupt(uint32_t from, uint32_t to)
{
    struct bt *bt = translator();
    unsigned n = 0;

    for (size_t at = bt->start; at + 4 <= bt->used; at++)
        if (!memcmp(bt->rw + at, &from, 4)) {
            memcpy(bt->rw + at, &to, 4);
            n++;
        }
    return n;
}

START_TEST(a_defect_is_named)
{
    struct vmm_error error = {.size = sizeof(error)};
    const char *report;
    uint64_t sum;

    begin(VMM_VM_TRANSLATE_ALL, 1);
    LOAD_CODE(sums);
    ck_assert_int_eq(run(1000), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_BUDGET);
    ck_assert_uint_gt(corrupt(0x5a5a5a5a, 0x5a5a5a5b), 0);
    ck_assert_int_eq(run(0), VMM_E_INTERNAL);
    vm_last_error(vm, &error);
    ck_assert_int_eq(error.code, VMM_E_INTERNAL);
    ck_assert_ptr_nonnull(strstr(error.text, "vCPU 0 differs at instruction 100"));
    ck_assert_ptr_nonnull(strstr(error.text, "(mov eax, 0x5A5A5A5A)"));
    ck_assert_ptr_nonnull(strstr(error.text, "0x5a5a5a5b translated"));
    report = vm_lockstep_report(vm);
    ck_assert_ptr_nonnull(report);
    ck_assert_ptr_nonnull(strstr(report, "rbx"));
    ck_assert_ptr_nonnull(strstr(report, "memory at 0x8000"));
    ck_assert_ptr_nonnull(strstr(report, "dec ecx"));
    /* The program sees the software CPU's state. */
    ck_assert_int_eq(vm_mem_read(vm, 0x8000, &sum, 8), 0);
    ck_assert_uint_eq(sum % 0x5a5a5a5a, 0);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_STATE);
    api_end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_check");
    TCase *t = tcase_create("bt_check");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, equal_is_passed);
    tcase_add_test(t, a_defect_is_named);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
