/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ops_branch.c: near branches and stack instructions: targets, sizes, limits, faults. */
#include <check.h>

#include "x86_fake.h"

static struct fake *f;
static uint64_t *gpr;

static void setup(void)
{
    f = fake_new();
    fake_long64(f);
    gpr = f->cpu->gpr;
}

static void teardown(void)
{
    fake_free(f);
}

static void unmap(uint64_t page)
{
    fake_put(f, FAKE_PT + page / 4096 * 8, 8, 0);
    x86_flush_tlb(f->cpu);
}

/* ---- conditions ---- */

#define JCC_ALL                                                                                    \
    "push %rax\n popf\n jo 1f\n bts $0, %r8\n 1: push %rax\n popf\n jno 1f\n bts $1, %r8\n"        \
    "1: push %rax\n popf\n jb 1f\n bts $2, %r8\n 1: push %rax\n popf\n jae 1f\n bts $3, %r8\n"     \
    "1: push %rax\n popf\n je 1f\n bts $4, %r8\n 1: push %rax\n popf\n jne 1f\n bts $5, %r8\n"     \
    "1: push %rax\n popf\n jbe 1f\n bts $6, %r8\n 1: push %rax\n popf\n ja 1f\n bts $7, %r8\n"     \
    "1: push %rax\n popf\n js 1f\n bts $8, %r8\n 1: push %rax\n popf\n jns 1f\n bts $9, %r8\n"     \
    "1: push %rax\n popf\n jp 1f\n bts $10, %r8\n 1: push %rax\n popf\n jnp 1f\n bts $11, %r8\n"   \
    "1: push %rax\n popf\n jl 1f\n bts $12, %r8\n 1: push %rax\n popf\n jge 1f\n bts $13, %r8\n"   \
    "1: push %rax\n popf\n jle 1f\n bts $14, %r8\n 1: push %rax\n popf\n jg 1f\n bts $15, %r8\n"   \
    "1:\n"
FAKE_ASM(jcc_all, 64, JCC_ALL "hlt");

/* The same as a function. */
uint64_t jcc_all_native(uint64_t flags);
__asm__(".text\njcc_all_native:\n mov %rdi, %rax\n xor %r8d, %r8d\n" JCC_ALL
        "mov %r8, %rax\n ret\n");

START_TEST(all_conditions_as_the_host)
{
    for (unsigned n = 0; n < 64; n++) {
        uint64_t flags = 2 | (n & 1 ? X86_CF : 0) | (n & 2 ? X86_PF : 0) | (n & 4 ? X86_AF : 0) |
                         (n & 8 ? X86_ZF : 0) | (n & 16 ? X86_SF : 0) | (n & 32 ? X86_OF : 0);

        f->cpu->rip = FAKE_TEXT;
        gpr[VMM_RSP] = FAKE_STACK;
        gpr[VMM_RAX] = flags;
        gpr[VMM_R8] = 0;
        ck_assert_int_eq(FAKE_EXEC(f, jcc_all), FAKE_HLT);
        ck_assert_uint_eq(gpr[VMM_R8], jcc_all_native(flags));
    }
}
END_TEST

/* ---- targets ---- */

FAKE_ASM(jmp_rax, 64, "jmp *%rax");
FAKE_ASM(call_rax, 64, "call *%rax");
FAKE_ASM(jmp_mem, 64, "jmp *(%rax)");
FAKE_ASM(ret8, 64, "ret $8");
FAKE_ASM(data16_call, 64, ".byte 0x66, 0xe8, 3, 0, 0, 0\n nop\n nop\n nop\n hlt");

START_TEST(non_canonical_targets)
{
    static const struct {
        const uint8_t *begin, *end;
    } code[] = {{jmp_rax_begin, jmp_rax_end}, {call_rax_begin, call_rax_end}};

    for (unsigned i = 0; i < 2; i++) {
        fake_long64(f);
        gpr[VMM_RAX] = 0x0000800000000000;
        ck_assert_int_eq(fake_exec(f, code[i].begin, code[i].end), X86_GP);
        ck_assert_uint_eq(fake_stack(f, 0, 8), 0);
        ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
        ck_assert_uint_eq(fake_stack(f, 4, 8), FAKE_STACK);
    }
    fake_long64(f);
    gpr[VMM_RAX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0xffff7fffffffffff);
    ck_assert_int_eq(FAKE_EXEC(f, jmp_mem), X86_GP);

    /* RET leaves the stack pointer alone then. */
    fake_long64(f);
    gpr[VMM_RSP] = FAKE_DATA;
    ck_assert_int_eq(FAKE_EXEC(f, ret8), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 4, 8), FAKE_DATA);
}
END_TEST

/* Intel CPUs ignore 66H of near branches in 64-bit mode. */
START_TEST(operand_size_prefix_is_ignored)
{
    ck_assert_int_eq(FAKE_EXEC(f, data16_call), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK - 8);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 6);
}
END_TEST

FAKE_ASM(call_unmapped, 64, "call .+0x100");

START_TEST(call_with_a_bad_stack)
{
    unmap(0x50000);
    gpr[VMM_RSP] = 0x51000;
    /* The handler's stack is bad too, but ring 3 has another one. */
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, call_unmapped), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x50ff8);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 4, 8), 0x51000);
}
END_TEST

FAKE_ASM(jmp_beyond, 32, "jmp .+0x2000");
FAKE_ASM(call_beyond, 32, "call .+0x2000");
FAKE_ASM(jmp16, 32, ".byte 0x66, 0xe9, 0x00, 0x00");
FAKE_ASM(call16, 32, ".byte 0x66, 0xe8, 0x00, 0x00");

START_TEST(targets_beyond_the_limit)
{
    static const struct {
        const uint8_t *begin, *end;
    } code[] = {{jmp_beyond_begin, jmp_beyond_end}, {call_beyond_begin, call_beyond_end}};

    for (unsigned i = 0; i < 2; i++) {
        fake_prot32(f);
        fake_seg(f, VMM_CS, FAKE_CS32, 0, FAKE_TEXT + 0xfff, FAKE_AR_CODE | VMM_AR_DB);
        x86_mode_changed(f->cpu);
        ck_assert_int_eq(fake_exec(f, code[i].begin, code[i].end), X86_GP);
        ck_assert_uint_eq(fake_stack(f, 0, 4), 0);
        ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_TEXT);
        ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK - 16);
    }
}
END_TEST

START_TEST(operand_size_16_truncates_eip)
{
    fake_prot32(f);
    fake_put(f, (FAKE_TEXT + 4) & 0xffff, 1, 0xf4);
    ck_assert_int_eq(FAKE_EXEC(f, jmp16), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, ((FAKE_TEXT + 4) & 0xffff) + 1);
    fake_prot32(f);
    ck_assert_int_eq(FAKE_EXEC(f, call16), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK - 2);
    ck_assert_uint_eq(fake_stack(f, 0, 2), (FAKE_TEXT + 4) & 0xffff);
}
END_TEST

FAKE_ASM(call_ret_16, 16, "push $0x1234\n call 1f\n hlt\n 1: ret $2");
FAKE_ASM(call_ret_32, 32, "push $0x1234\n call 1f\n hlt\n 1: ret $4");
FAKE_ASM(call_ret_64, 64, "push $0x1234\n call 1f\n hlt\n 1: ret $8");

START_TEST(call_and_ret)
{
    ck_assert_int_eq(FAKE_EXEC(f, call_ret_64), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK);
    fake_prot32(f);
    ck_assert_int_eq(FAKE_EXEC(f, call_ret_32), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK);
    fake_real(f);
    gpr[VMM_RSP] = 0x7fff0002; /* the upper half is no part of a 16-bit stack's pointer */
    ck_assert_int_eq(FAKE_EXEC(f, call_ret_16), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], 0x7fff0002);
    ck_assert_uint_eq(fake_get(f, 0xfffe, 2), 6);
    ck_assert_uint_eq(fake_get(f, 0, 2), 0x1234);
}
END_TEST

FAKE_ASM(loops, 64,
         "1: inc %rax\n loop 1b\n"
         "mov $5, %ecx\n 1: inc %rbx\n cmp $3, %rbx\n loopne 1b\n"
         "mov $5, %ecx\n xor %edx, %edx\n 1: inc %rdx\n cmp %rdx, %rdx\n loope 1b\n"
         "mov $0x100000000, %rcx\n jrcxz 2f\n or $1, %esi\n 2: jecxz 3f\n or $2, %esi\n 3: hlt");

START_TEST(loops_by_all_counters)
{
    gpr[VMM_RCX] = 7;
    ck_assert_int_eq(FAKE_EXEC(f, loops), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RAX], 7);
    ck_assert_uint_eq(gpr[VMM_RBX], 3);
    ck_assert_uint_eq(gpr[VMM_RDX], 5);
    ck_assert_uint_eq(gpr[VMM_RSI], 1);
}
END_TEST

/* ---- stack ---- */

FAKE_ASM(pusha16, 16, "pushaw\n xor %ax, %ax\n mov %ax, %di\n mov %ax, %bp\n popaw\n hlt");
FAKE_ASM(pusha32, 32, "pushal\n xor %eax, %eax\n mov %eax, %edi\n mov %eax, %ebp\n popal\n hlt");
FAKE_ASM(pusha_only, 32, "pushal\n hlt");

START_TEST(pusha_and_popa)
{
    fake_prot32(f);
    for (unsigned i = 0; i < 8; i++)
        gpr[i] = i == VMM_RSP ? FAKE_STACK : 0x11111111 * (i + 1);
    ck_assert_int_eq(FAKE_EXEC(f, pusha32), FAKE_HLT);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = i == VMM_RSP ? FAKE_STACK : 0x11111111 * (i + 1);

        ck_assert_uint_eq(gpr[i], v);
        ck_assert_uint_eq(fake_get(f, FAKE_STACK - 4 - i * 4, 4), v);
    }
    fake_real(f);
    for (unsigned i = 0; i < 8; i++)
        gpr[i] = i == VMM_RSP ? 0x10006 : 0x11111111 * (i + 1);
    ck_assert_int_eq(FAKE_EXEC(f, pusha16), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], 0x10006);
    ck_assert_uint_eq(gpr[VMM_RDI], 0x88888888);
    ck_assert_uint_eq(fake_get(f, 4, 2), 0x1111);
    ck_assert_uint_eq(fake_get(f, 0xfffc, 2), 6); /* SP before, behind the wrap */
}
END_TEST

START_TEST(pusha_writes_all_or_nothing)
{
    fake_prot32(f);
    fake_paging32(f);
    fake_put(f, FAKE_PT32 + 0x50 * 4, 4, 0);
    x86_flush_tlb(f->cpu);
    fake_user(f);
    gpr[VMM_RSP] = 0x51010;
    gpr[VMM_RAX] = 0xaaaaaaaa;
    ck_assert_int_eq(FAKE_EXEC(f, pusha_only), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2 & ~0xfffu, 0x50000);
    ck_assert_uint_eq(fake_stack(f, 4, 4), 0x51010);
    ck_assert_uint_eq(fake_get(f, 0x5100c, 4), 0);
}
END_TEST

FAKE_ASM(pop_sp_relative, 64, "pop 8(%rsp)\n hlt");
FAKE_ASM(enter_0, 64, "enter $0x1000, $0\n hlt");
FAKE_ASM(enter_2, 64, "enter $16, $2\n hlt");

START_TEST(pop_to_memory)
{
    fake_put(f, FAKE_STACK - 0x100, 8, 0x77);
    gpr[VMM_RSP] = FAKE_STACK - 0x100;
    ck_assert_int_eq(FAKE_EXEC(f, pop_sp_relative), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK - 0xf8);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 0xf0, 8), 0x77);

    /* A fault of the store restores the stack pointer. */
    fake_long64(f);
    unmap(0x51000);
    fake_user(f);
    gpr[VMM_RSP] = 0x50ff0;
    ck_assert_int_eq(FAKE_EXEC(f, pop_sp_relative), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x51000);
    ck_assert_uint_eq(fake_stack(f, 4, 8), 0x50ff0);
}
END_TEST

START_TEST(enter_checks_the_new_frame)
{
    unmap(0x50000);
    fake_user(f);
    gpr[VMM_RSP] = 0x51ff8;
    gpr[VMM_RBP] = 0x1234;
    ck_assert_int_eq(FAKE_EXEC(f, enter_0), X86_PF_);
    ck_assert_uint_eq(gpr[VMM_RBP], 0x1234);
    ck_assert_uint_eq(fake_stack(f, 4, 8), 0x51ff8);
}
END_TEST

START_TEST(enter_copies_frame_pointers)
{
    gpr[VMM_RBP] = FAKE_DATA;
    fake_put(f, FAKE_DATA - 8, 8, 0x4321);
    ck_assert_int_eq(FAKE_EXEC(f, enter_2), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RBP], FAKE_STACK - 8);
    ck_assert_uint_eq(gpr[VMM_RSP], FAKE_STACK - 24 - 16);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 8, 8), FAKE_DATA);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 16, 8), 0x4321);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 24, 8), FAKE_STACK - 8);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops_branch");
    TCase *tc = tcase_create("branch");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, all_conditions_as_the_host);
    tcase_add_test(tc, non_canonical_targets);
    tcase_add_test(tc, operand_size_prefix_is_ignored);
    tcase_add_test(tc, call_with_a_bad_stack);
    tcase_add_test(tc, targets_beyond_the_limit);
    tcase_add_test(tc, operand_size_16_truncates_eip);
    tcase_add_test(tc, call_and_ret);
    tcase_add_test(tc, loops_by_all_counters);
    tcase_add_test(tc, pusha_and_popa);
    tcase_add_test(tc, pusha_writes_all_or_nothing);
    tcase_add_test(tc, pop_to_memory);
    tcase_add_test(tc, enter_checks_the_new_frame);
    tcase_add_test(tc, enter_copies_frame_pointers);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
