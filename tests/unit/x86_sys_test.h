/* SPDX-License-Identifier: BSD-2-Clause */
/* x86_sys_test.h: what the tests of segments, events, far transfers and tasks share. */
#ifndef X86_SYS_TEST_H
#define X86_SYS_TEST_H

#include <check.h>

#include "x86_fake.h"

/* Access rights of descriptors. */
#define AR_CODE32(dpl)    (FAKE_AR_CODE | VMM_AR_DB | VMM_AR_G | (dpl) << VMM_AR_DPL_SHIFT)
#define AR_CODE64(dpl)    (FAKE_AR_CODE | VMM_AR_L | VMM_AR_G | (dpl) << VMM_AR_DPL_SHIFT)
#define AR_CONFORM(dpl)   (AR_CODE32(dpl) | 4u)
#define AR_DATA(dpl)      (FAKE_AR_DATA | VMM_AR_DB | VMM_AR_G | (dpl) << VMM_AR_DPL_SHIFT)
#define AR_SYS(type, dpl) (VMM_AR_P | (type) | (dpl) << VMM_AR_DPL_SHIFT)

#define FLAT_LIMIT 0xffffffffu

/* A flat segment at a selector of the test's part of the GDT. */
static inline void set_flat(struct fake *f, unsigned selector, uint32_t ar)
{
    fake_set_desc(f, selector, fake_desc(0, FLAT_LIMIT, ar));
}

/* A call gate (type 4 or 12), task gate (5), interrupt or trap gate in the GDT or IDT format. */
static inline uint64_t gate_desc(unsigned selector, uint32_t offset, unsigned type, unsigned dpl,
                                 unsigned params)
{
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)params << 32 |
           (uint64_t)(0x80u | dpl << 5 | type) << 40 | (uint64_t)(offset >> 16) << 48;
}

static inline uint64_t fake_get_desc(const struct fake *f, unsigned selector)
{
    return fake_get(f, FAKE_GDT + (selector & ~7u), 8);
}

/* The page of `linear` in the page tables of fake_long64: present or not. */
static inline void map_page(struct fake *f, uint64_t linear, unsigned bits)
{
    fake_put(f, FAKE_PT + (linear >> 12) * 8, 8, bits ? linear | bits : 0);
    x86_flush_tlb(f->cpu);
}

static inline uint64_t rflags(const struct fake *f)
{
    return x86_get_rflags(f->cpu);
}

static inline int run_suite(const char *name, const TTest *const *tests, unsigned n)
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

#define RUN_SUITE(name, tests) run_suite(name, tests, sizeof(tests) / sizeof(tests[0]))

#endif
