/* SPDX-License-Identifier: BSD-2-Clause */
/* test_run.c: the run loop of the software CPU: budgets, steps, events, shadows. */
#include <check.h>

#include "x86_fake.h"

FAKE_ASM(sum, 64, "add %rbx, %rax\n hlt\n");

START_TEST(runs_to_hlt)
{
    struct fake *f = fake_new();

    fake_long64(f);
    f->cpu->gpr[VMM_RAX] = 1;
    f->cpu->gpr[VMM_RBX] = 2;
    ck_assert_int_eq(FAKE_EXEC(f, sum), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 3);
    ck_assert_uint_eq(f->done, 2);
    fake_free(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *t = tcase_create("run");
    SRunner *r;
    int failed;

    tcase_add_test(t, runs_to_hlt);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
