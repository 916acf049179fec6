/* SPDX-License-Identifier: BSD-2-Clause */
/* Lists of named counters: order, room, elements of other versions; what translated code counts. */
#include <check.h>

#include <Zydis/Zydis.h>

#include "bt_fake.h"
#include "core/core.h"
#include "core/x86/control.h"

START_TEST(the_largest_come_first)
{
    struct vmm_count out[3];
    struct core_counts list = {.out = out, .capacity = 3, .size = sizeof(out[0])};

    core_counts_add(&list, 1, "one", 10);
    core_counts_add(&list, 2, "two", 0);
    core_counts_add(&list, 3, "three", 30);
    core_counts_add(&list, 4, "four", 20);
    ck_assert_uint_eq(list.total, 3);
    ck_assert_uint_eq(out[0].id, 3);
    ck_assert_uint_eq(out[1].id, 4);
    ck_assert_uint_eq(out[2].id, 1);
    core_counts_add(&list, 5, "five", 15);
    core_counts_add(&list, 6, "six", 5);
    ck_assert_uint_eq(list.total, 5);
    ck_assert_uint_eq(out[2].id, 5);
    ck_assert_str_eq(out[2].name, "five");
    ck_assert_uint_eq(out[2].count, 15);
    ck_assert_uint_eq(out[2].size, sizeof(out[0]));
}
END_TEST

/* A caller of an older version, which has no names, and of a newer one. */
START_TEST(elements_have_the_callers_size)
{
    unsigned char bytes[3 * 64];
    const uint32_t sizes[] = {offsetof(struct vmm_count, name), 64};

    for (unsigned k = 0; k < 2; k++) {
        struct core_counts list = {
            .out = (struct vmm_count *)(void *)bytes, .capacity = 2, .size = sizes[k]};
        struct vmm_count first = {0};

        memset(bytes, 0xaa, sizeof(bytes));
        core_counts_add(&list, 1, "one", 10);
        core_counts_add(&list, 2, "two", 20);
        core_counts_add(&list, 3, "three", 30);
        memcpy(&first, bytes, offsetof(struct vmm_count, name));
        ck_assert_uint_eq(first.id, 3);
        ck_assert_uint_eq(first.size, sizes[k]);
        memcpy(&first, bytes + sizes[k], offsetof(struct vmm_count, name));
        ck_assert_uint_eq(first.id, 2);
        for (unsigned i = 2 * sizes[k]; i < sizeof(bytes); i++)
            ck_assert_uint_eq(bytes[i], 0xaa);
    }
}
END_TEST

/* CPUID is left to its handler; the load finds nothing in the TLB; both calls become direct. */
FAKE_ASM(counted, 64,
         "mov $100, %esi\n 1: xor %eax, %eax\n cpuid\n mov 0x40000, %eax\n call 1b + 0x2000\n"
         "dec %esi\n jnz 1b\n hlt");
FAKE_ASM(callee, 64, "nop\n ret");

START_TEST(translated_code_counts)
{
    struct fake *f = translating();
    const struct x86_counters *count = &f->cpu->count;
    const struct bt *bt = f->cpu->tier_state;

    fake_load(f, FAKE_TEXT + 0x2005, callee_begin, callee_end);
    ck_assert_int_eq(FAKE_EXEC(f, counted), FAKE_HLT);
    ck_assert_uint_ge(bt->fallbacks[ZYDIS_MNEMONIC_CPUID], 99);
    ck_assert_uint_le(bt->fallbacks[ZYDIS_MNEMONIC_CPUID], 100);
    ck_assert_uint_ge(f->cpu->mmu.misses_by[MMU_READ], 1);
    ck_assert_uint_ge(f->cpu->mmu.misses_by[MMU_EXEC], 2);
    ck_assert_uint_ge(count->chains, 2);
    ck_assert_uint_ge(count->translations, 3);
    ck_assert_uint_gt(count->code_bytes, 500);
    ck_assert_uint_lt(count->code_bytes, 100000);
    ck_assert_uint_ge(count->handler_calls, 99);
    finish(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("counts");
    TCase *t = tcase_create("counts");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, the_largest_come_first);
    tcase_add_test(t, elements_have_the_callers_size);
    tcase_add_test(t, translated_code_counts);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
