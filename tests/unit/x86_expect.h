/* SPDX-License-Identifier: BSD-2-Clause */
/* x86_expect.h: runs snippets on the CPU of x86_fake.h and stops at exceptions before they are
 * delivered, so that a test sees the state that the faulting instruction has left. */
#ifndef X86_EXPECT_H
#define X86_EXPECT_H

#include <check.h>
#include <vmm/vcpu.h>

#include "x86_fake.h"

/*
 * Runs the code, whose last instruction is a HLT, at CS:rip. FAKE_HLT if it comes to that HLT, at
 * whatever privilege; else the vector of the exception, which stays in cpu->event, or FAKE_*.
 */
static inline int expect_run(struct fake *f, const uint8_t *begin, const uint8_t *end)
{
    struct x86_cpu *cpu = f->cpu;
    uint64_t last = cpu->rip + (uint64_t)(end - begin) - 1;

    fake_load(f, cpu->seg[VMM_CS].base + cpu->rip, begin, end);
    cpu->host_exceptions = ~0u;
    cpu->host_exception_pass = false;
    cpu->event.valid = false;
    switch (fake_run(f, 100000)) {
    case X86_STOP_HLT:
        cpu->activity = VMM_ACTIVE;
        return FAKE_HLT;
    case X86_STOP_EXIT:
        if (cpu->exit_reason != VMM_EXIT_EXCEPTION)
            return FAKE_EXIT;
        if (cpu->rip == last && cpu->event.vector == X86_GP)
            return FAKE_HLT;
        return cpu->event.vector;
    case X86_STOP_ABORT:
        return FAKE_ABORTED;
    case X86_STOP_SHUTDOWN:
        return FAKE_SHUTDOWN;
    default:
        return FAKE_TIMEOUT;
    }
}

#define EXPECT_RUN(f, name) expect_run(f, name##_begin, name##_end)

/* Asserts an exception at the first instruction of the code, with error code 0 if it has one. */
#define EXPECT_FAULT(f, name, wanted)                                                              \
    do {                                                                                           \
        uint64_t at_ = (f)->cpu->rip;                                                              \
        ck_assert_int_eq(EXPECT_RUN(f, name), wanted);                                             \
        ck_assert_uint_eq((f)->cpu->rip, at_);                                                     \
        if ((f)->cpu->event.has_error)                                                             \
            ck_assert_uint_eq((f)->cpu->event.error, 0);                                           \
    } while (0)

#define EXPECT_OK(f, name) ck_assert_int_eq(EXPECT_RUN(f, name), FAKE_HLT)

/* A whole test program of one test case. */
static inline int expect_main(const char *name, const TTest *const *tests, unsigned n)
{
    Suite *s = suite_create(name);
    TCase *t = tcase_create(name);
    SRunner *r;
    int failed;

    for (unsigned i = 0; i < n; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define EXPECT_MAIN(name, ...)                                                                     \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return expect_main(name, tests, sizeof(tests) / sizeof(tests[0]));                         \
    }

#endif
