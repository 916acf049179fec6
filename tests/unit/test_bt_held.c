/* SPDX-License-Identifier: BSD-2-Clause */
/* What regions hold of the TLB over blocks, and cells: that they do without handlers at the ends of
 * pages, and that nothing outlives what the TLB may say. */
#include <check.h>

#include "bt_fake.h"
#include "core/x86/control.h"

#define PAGE   0x50000u
#define PAGE_2 0x52000u
#define PTE    (FAKE_PT + PAGE / 4096 * 8)

/* A group of accesses around RSI, in a loop of two blocks. */
FAKE_ASM(around, 64,
         "mov $20000, %ecx\n 1: mov -8(%rsi), %eax\n add 8(%rsi), %eax\n add %rax, %rbx\n"
         "test $1, %cl\n jz 2f\n incl 4(%rsi)\n 2: add (%rdi), %ebx\n dec %ecx\n jnz 1b\n hlt");

START_TEST(ranges_over_the_end_of_a_page)
{
    for (unsigned at = 0; at < 3; at++) {
        struct fake *f = soon_regions();
        uint64_t calls;

        f->cpu->gpr[VMM_RSI] = PAGE + 0x1000 - at * 4;
        f->cpu->gpr[VMM_RDI] = PAGE + 0x800;
        fake_put(f, f->cpu->gpr[VMM_RSI] - 8, 4, 1);
        fake_put(f, f->cpu->gpr[VMM_RSI] + 8, 4, 2);
        fake_put(f, PAGE + 0x800, 4, 3);
        ck_assert_int_eq(FAKE_EXEC(f, around), FAKE_HLT);
        calls = f->cpu->count.handler_calls;
        ck_assert_int_eq(again(f), FAKE_HLT);
        ck_assert_uint_gt(f->cpu->count.regions, 0);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 2 * 20000 * 6);
        ck_assert_uint_eq(fake_get(f, f->cpu->gpr[VMM_RSI] + 4, 4), 20000);
        ck_assert_uint_lt(f->cpu->count.handler_calls - calls, 100);
        finish(f);
    }
}
END_TEST

/* One pointer goes through pages, another one stays. At CPL 3: ends with #GP. */
FAKE_ASM(through, 64,
         "mov $50000, %edi\n 1: mov $0x50000, %esi\n mov $0x800, %ecx\n 2: mov (%rsi), %eax\n"
         "add %eax, (%rdx)\n add $4, %rsi\n dec %ecx\n jnz 2b\n sub $1000, %edi\n jnz 1b\n hlt");

START_TEST(pointers_that_move_on)
{
    for (unsigned user = 0; user < 2; user++) {
        struct fake *f = soon_regions();
        uint64_t calls;

        for (unsigned i = 0; i < 0x800; i++)
            fake_put(f, PAGE + i * 4, 4, i);
        f->cpu->gpr[VMM_RDX] = PAGE + 0x3ff0;
        FAKE_LOAD(f, through);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        calls = f->cpu->count.handler_calls;
        ck_assert_uint_eq(fake_get(f, PAGE + 0x3ff0, 4), (uint32_t)(50 * (0x7ffull * 0x800 / 2)));
        ck_assert_uint_gt(f->cpu->count.regions, 0);
        ck_assert_uint_lt(calls, 1000);
        for (unsigned i = 0, filled = 0; i < MMU_CELLS; i++) {
            filled += f->cpu->mmu.cell[i].host != NULL;
            if (i == MMU_CELLS - 1)
                ck_assert_int_eq(filled != 0, user);
        }
        finish(f);
    }
}
END_TEST

/* Sums what a page and one that is mapped elsewhere in between have. */
FAKE_ASM(remaps, 64,
         "mov $3000, %ecx\n 1: mov (%rsi), %eax\n add %rax, %rbx\n test $1, %cl\n jz 2f\n"
         "add 4(%rsi), %ebx\n 2: xorq $0x2000, (%rdi)\n invlpg (%rsi)\n add (%rsi), %ebx\n"
         "dec %ecx\n jnz 1b\n hlt");

START_TEST(invlpg_in_a_loop)
{
    struct fake *f = soon_regions();

    fake_put(f, PAGE, 4, 1);
    fake_put(f, PAGE + 4, 4, 10);
    fake_put(f, PAGE_2, 4, 100);
    fake_put(f, PAGE_2 + 4, 4, 1000);
    f->cpu->gpr[VMM_RSI] = PAGE;
    f->cpu->gpr[VMM_RDI] = PTE;
    ck_assert_int_eq(FAKE_EXEC(f, remaps), FAKE_HLT);
    /* Rounds with an odd number, to begin with the second one, find PAGE_2. */
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 3000 * 101 + 1500 * 1000);
    finish(f);
}
END_TEST

/* A store into a page that code is decoded from now and then: RDI, mostly next to it. */
FAKE_ASM(code_in_page, 64,
         "mov $4000, %ecx\n mov $0x50800, %r8d\n 1: mov %ecx, 8(%rsi)\n add $1, %edx\n"
         "and $63, %edx\n jnz 2f\n mov %ecx, 1(%r8)\n call *%r8\n add %rax, %rbx\n"
         "2: mov %cl, 9(%rsi)\n add (%rsi), %ebx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(constant, 64, "mov $0, %eax\n ret");

START_TEST(code_in_a_page_that_is_held)
{
    for (unsigned user = 0; user < 2; user++) {
        struct fake *f = soon_regions();
        uint64_t sum = 0;

        fake_load(f, PAGE + 0x800, constant_begin, constant_end);
        f->cpu->gpr[VMM_RSI] = PAGE + 0x7f9; /* its second store hits the constant */
        FAKE_LOAD(f, code_in_page);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        for (unsigned i = 1; i <= 4000; i++)
            if (!((4001 - i) & 63))
                sum += i;
        ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], sum);
        finish(f);
    }
}
END_TEST

/* Alignment checks at CPL 3 begin in the middle: POPF in a loop over an address that is odd. */
FAKE_ASM(aligned, 64,
         "mov $5000, %ecx\n 1: mov (%rsi), %eax\n add $4, %rsi\n and $~0x800, %rsi\n dec %ecx\n"
         "jnz 1b\n pushf\n orl $0x40000, (%rsp)\n popf\n mov $5000, %ecx\n jmp 1b");

START_TEST(alignment_is_checked_later)
{
    struct fake *f = soon_regions();

    f->cpu->cr0 |= X86_CR0_AM;
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RSI] = PAGE + 1;
    FAKE_LOAD(f, aligned);
    fake_user(f);
    ck_assert_int_eq(again(f), X86_AC_);
    finish(f);
}
END_TEST

/* Variables at fixed places, by RIP and by their addresses: in an inner region, which is entered
 * often, and with pages that change in between. At CPL 3: ends with #GP. */
FAKE_ASM(variables, 64,
         "mov $3000, %ecx\n mov $0x50800, %r8d\n 1: call 2f\n dec %ecx\n jnz 1b\n hlt\n"
         "2: mov 1b+0x40000(%rip), %eax\n add %eax, 0x51010\n addb $1, 0x51fff\n"
         "mov 0x50ffd, %edx\n inc %rbx\n ret");

START_TEST(variables_at_fixed_places)
{
    for (unsigned user = 0; user < 2; user++) {
        struct fake *f = soon_regions();
        uint64_t calls;

        FAKE_LOAD(f, variables);
        fake_put(f, FAKE_TEXT + 11 + 0x40000, 4, 7);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        ck_assert_uint_gt(f->cpu->count.regions, 0);
        ck_assert_uint_eq(fake_get(f, 0x51010, 4), 3000 * 7);
        ck_assert_uint_eq(fake_get(f, 0x51fff, 1), 3000 & 0xff);
        /* Elsewhere, and not to be written to: the fault shows it, at CPL 3. */
        f->cpu->rip = FAKE_TEXT;
        fake_put(f, 0x53010, 4, 0);
        fake_put(f, PTE + 8, 8, 0x53007);
        x86_flush_tlb(f->cpu);
        calls = f->cpu->count.handler_calls;
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        ck_assert_uint_eq(fake_get(f, 0x51010, 4), 3000 * 7);
        ck_assert_uint_eq(fake_get(f, 0x53010, 4), 3000 * 7);
        ck_assert_uint_lt(f->cpu->count.handler_calls - calls,
                          3000 + 200); /* the one that crosses */
        fake_put(f, PTE + 8, 8, 0x53005);
        x86_flush_tlb(f->cpu);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_PF_ : FAKE_HLT);
        finish(f);
    }
}
END_TEST

/* The page of a variable is mapped elsewhere by what a handler calls, in the middle of a region. */
FAKE_ASM(cpuid_in_a_loop, 64,
         "mov $3000, %edi\n xor %esi, %esi\n 1: add 0x50010, %esi\n xor %eax, %eax\n cpuid\n"
         "add 0x50014, %esi\n dec %edi\n jnz 1b\n hlt");
static int cpuid_remaps(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct fake *f = ctx;

    (void)leaf, (void)subleaf;
    memset(out, 0, 16);
    if (f->cpu->gpr[VMM_RDI] == 100) {
        fake_put(f, PTE, 8, PAGE_2 | 7);
        mmu_flush_page(&f->cpu->mmu, PAGE); /* no code is there */
    }
    return X86_ENV_OK;
}

START_TEST(variables_that_a_handler_maps_elsewhere)
{
    for (unsigned user = 0; user < 2; user++) {
        struct fake *f = soon_regions();

        f->env.cpuid = cpuid_remaps;
        fake_put(f, PAGE + 0x10, 4, 1);
        fake_put(f, PAGE + 0x14, 4, 10);
        fake_put(f, PAGE_2 + 0x10, 4, 100);
        fake_put(f, PAGE_2 + 0x14, 4, 1000);
        FAKE_LOAD(f, cpuid_in_a_loop);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        ck_assert_uint_gt(f->cpu->count.regions, 0);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], 2901 * 1 + 2900 * 10 + 99 * 100 + 100 * 1000);
        finish(f);
    }
}
END_TEST

/* Code is decoded from the page of a variable, again and again. */
FAKE_ASM(code_at_variable, 64,
         "mov $4000, %ecx\n mov $0x50800, %r8d\n 1: mov %ecx, 0x50010\n add $1, %edx\n"
         "and $63, %edx\n jnz 2f\n mov %ecx, 0x50801\n call *%r8\n add %rax, %rbx\n"
         "2: mov %cl, 0x50011\n add 0x50010, %ebx\n dec %ecx\n jnz 1b\n hlt");

START_TEST(code_in_the_page_of_a_variable)
{
    for (unsigned user = 0; user < 2; user++) {
        struct fake *f = soon_regions();
        uint64_t sum = 0;

        fake_load(f, PAGE + 0x800, constant_begin, constant_end);
        FAKE_LOAD(f, code_at_variable);
        if (user)
            fake_user(f);
        ck_assert_int_eq(again(f), user ? X86_GP : FAKE_HLT);
        for (uint32_t i = 1; i <= 4000; i++)
            sum += ((i & 0xffff00ffu) | (i & 0xff) << 8) + (((4001 - i) & 63) ? 0 : i);
        ck_assert_uint_eq((uint32_t)f->cpu->gpr[VMM_RBX], (uint32_t)sum);
        finish(f);
    }
}
END_TEST

/* Alignment is checked from the middle of a region on, for a variable whose address is odd. */
FAKE_ASM(odd_variable, 64,
         "mov $5000, %ecx\n 1: mov 0x50801, %eax\n pushf\n cmp $100, %ecx\n jne 2f\n"
         "orl $0x40000, (%rsp)\n 2: popf\n dec %ecx\n jnz 1b\n hlt");

START_TEST(alignment_of_a_variable)
{
    struct fake *f = soon_regions();

    f->cpu->cr0 |= X86_CR0_AM;
    x86_mode_changed(f->cpu);
    FAKE_LOAD(f, odd_variable);
    fake_user(f);
    ck_assert_int_eq(again(f), X86_AC_);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 99);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    finish(f);
}
END_TEST

/* Not canonical, but with the bits of an address that a cell has. */
START_TEST(wild_addresses)
{
    for (unsigned bit = 47; bit < 64; bit++) {
        struct fake *f = soon_regions();

        f->cpu->gpr[VMM_RDX] = PAGE | 1ull << bit;
        FAKE_LOAD(f, through);
        fake_user(f);
        ck_assert_int_eq(again(f), X86_GP);
        finish(f);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_held");
    TCase *t = tcase_create("bt_held");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, ranges_over_the_end_of_a_page);
    tcase_add_test(t, pointers_that_move_on);
    tcase_add_test(t, invlpg_in_a_loop);
    tcase_add_test(t, code_in_a_page_that_is_held);
    tcase_add_test(t, alignment_is_checked_later);
    tcase_add_test(t, variables_at_fixed_places);
    tcase_add_test(t, variables_that_a_handler_maps_elsewhere);
    tcase_add_test(t, code_in_the_page_of_a_variable);
    tcase_add_test(t, alignment_of_a_variable);
    tcase_add_test(t, wild_addresses);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
