/* SPDX-License-Identifier: BSD-2-Clause */
/* Vector and x87 state in the host's registers: what the program and the guest see of each other.
 */
#include <check.h>
#include <xmmintrin.h>

#include "bt_fake.h"
#include "core/x86/control.h"

static uint64_t low(const struct fake *f, unsigned reg)
{
    uint64_t v;

    memcpy(&v, f->cpu->fpu.vec[reg], 8);
    return v;
}

/* RAX = bits of 1/3 by SSE, RBX by x87, each rounded as the guest's control registers say: down.
 * The counted loop is in translated code with all of the state loaded. */
FAKE_ASM(thirds, 64,
         "movl $0x3f80, 0x40000\n ldmxcsr 0x40000\n movw $0x77f, 0x40008\n fldcw 0x40008\n"
         "mov $100, %ecx\n mov $3, %edx\n"
         "1: fld1\n movl $3, 0x40010\n fildl 0x40010\n fdivrp\n fstpl 0x40018\n"
         "mov $1, %esi\n cvtsi2sd %esi, %xmm0\n cvtsi2sd %edx, %xmm1\n divsd %xmm1, %xmm0\n"
         "dec %ecx\n jnz 1b\n movq %xmm0, %rax\n mov 0x40018, %rbx\n hlt");

struct x87_env {
    uint32_t fcw, fsw, ftw, other[4];
};

START_TEST(program_keeps_its_control_words)
{
    struct fake *f = translating();
    uint32_t before = _mm_getcsr(), mxcsr = (before & ~0x603fu) | 0x4000; /* upwards */
    uint16_t fcw = 0x0f7f, old;                                           /* to zero */
    struct x87_env env;
    int end;

    __asm__ volatile("fnstcw %0" : "=m"(old));
    __asm__ volatile("fldcw %0" ::"m"(fcw));
    _mm_setcsr(mxcsr);
    end = FAKE_EXEC(f, thirds);
    __asm__ volatile("fnstenv %0" : "=m"(env));
    __asm__ volatile("fldcw %0" ::"m"(old));
    mxcsr ^= _mm_getcsr();
    _mm_setcsr(before);
    ck_assert_int_eq(end, FAKE_HLT);
    ck_assert_uint_eq(mxcsr, 0);
    ck_assert_uint_eq(env.fcw & 0xffff, fcw);
    ck_assert_uint_eq(env.ftw & 0xffff, 0xffff);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x3fd5555555555555);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x3fd5555555555555);
    ck_assert_uint_eq(f->cpu->fpu.mxcsr, 0x3fa0); /* inexact */
    ck_assert_uint_eq(f->cpu->fpu.fcw, 0x77f);
    finish(f);
}
END_TEST

/* CR0.TS is set while the state is loaded; the same code is executed again. */
FAKE_ASM(switched, 64,
         "mov $2, %ecx\n 1: mov $7, %eax\n movd %eax, %xmm3\n paddd %xmm3, %xmm4\n"
         "mov %cr0, %rax\n or $8, %eax\n mov %rax, %cr0\n dec %ecx\n jnz 1b\n hlt");

START_TEST(task_switched)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, switched), X86_NM);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 1);
    ck_assert_uint_eq(low(f, 4) & 0xffffffff, 7);
    finish(f);
}
END_TEST

/* The division by 0 is masked in the first turn only. */
FAKE_ASM(unmasked, 64,
         "movl $0x1f80, 0x40000\n mov $2, %ecx\n xorpd %xmm0, %xmm0\n"
         "1: ldmxcsr 0x40000\n mov $5, %eax\n cvtsi2sd %eax, %xmm1\n mulsd %xmm1, %xmm1\n"
         "divsd %xmm0, %xmm1\n movl $0x1d80, 0x40000\n dec %ecx\n jnz 1b\n hlt");

START_TEST(unmasked_exception)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, unmasked), X86_XM);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 1);
    ck_assert_uint_eq(low(f, 1), 0x4039000000000000); /* 25 */
    ck_assert_uint_eq(f->cpu->fpu.mxcsr, 0x1d84);
    finish(f);
}
END_TEST

/* 16 bytes at 64 places, over the end of a page too; each has the number of its first byte. */
FAKE_ASM(crossing, 64,
         "mov $0x40fc0, %esi\n xor %eax, %eax\n mov $64, %ecx\n"
         "1: movups (%rsi), %xmm0\n pextrw $0, %xmm0, %edx\n movzbl %dl, %edx\n add %edx, %eax\n"
         "pextrw $7, %xmm0, %edx\n shr $8, %edx\n add %edx, %ebx\n inc %rsi\n dec %ecx\n jnz 1b\n"
         "hlt");

START_TEST(loads_over_the_end_of_a_page)
{
    struct fake *f = translating();

    for (unsigned i = 0; i < 80; i++)
        fake_put(f, 0x40fc0 + i, 1, i);
    ck_assert_int_eq(FAKE_EXEC(f, crossing), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 63 * 64 / 2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 63 * 64 / 2 + 64 * 15);
    fake_put(f, FAKE_PT + 0x41 * 8, 8, 0);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, crossing), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x41000);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], 0x40ff1);
    finish(f);
}
END_TEST

/* Aligned and not in turn: the second access is #GP. */
FAKE_ASM(misaligned, 64,
         "mov $0x40000, %esi\n mov $2, %ecx\n 1: movaps (%rsi), %xmm0\n add $8, %rsi\n dec %ecx\n"
         "jnz 1b\n hlt");

START_TEST(operands_are_aligned)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, misaligned), X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], 0x40008);
    finish(f);
}
END_TEST

/* MMX: TOP becomes 0, all tags valid; EMMS makes them empty again. */
FAKE_ASM(mmx, 64,
         "fninit\n fld1\n mov $50, %ecx\n mov $2, %eax\n 1: movd %eax, %mm1\n paddd %mm1, %mm2\n"
         "dec %ecx\n jnz 1b\n movd %mm2, %ebx\n hlt");

START_TEST(mmx_registers)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, mmx), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 100);
    ck_assert_uint_eq(f->cpu->fpu.ftw, 0xff);
    ck_assert_uint_eq(f->cpu->fpu.fsw & 0x3800, 0);
    ck_assert_mem_eq(f->cpu->fpu.x87[2] + 8, "\xff\xff", 2);
    finish(f);
}
END_TEST

/* A region has the state loaded when it is entered. In a later round CR0.TS is set. */
FAKE_ASM(switched_later, 64,
         "mov $40, %ecx\n mov $7, %eax\n 1: movd %eax, %xmm3\n paddd %xmm3, %xmm4\n"
         "cmp $3, %ecx\n jne 2f\n mov %cr0, %rdx\n or $8, %edx\n mov %rdx, %cr0\n"
         "2: dec %ecx\n jnz 1b\n hlt");

START_TEST(task_switched_in_region)
{
    struct fake *f = soon_regions();

    ck_assert_int_eq(FAKE_EXEC(f, switched_later), X86_NM);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 2);
    ck_assert_uint_eq(low(f, 4) & 0xffffffff, 38 * 7);
    ck_assert_int_eq(again(f), X86_NM);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 40);
    ck_assert_uint_eq(low(f, 4) & 0xffffffff, 38 * 7);
    finish(f);
}
END_TEST

/* MXCSR is loaded in each round; in a later one with the division by 0 unmasked. */
FAKE_ASM(unmasked_later, 64,
         "movl $0x1f80, 0x40000\n mov $40, %ecx\n xorpd %xmm0, %xmm0\n"
         "1: ldmxcsr 0x40000\n mov $5, %eax\n cvtsi2sd %eax, %xmm1\n divsd %xmm0, %xmm1\n"
         "cmp $3, %ecx\n jne 2f\n movl $0x1d80, 0x40000\n 2: dec %ecx\n jnz 1b\n hlt");

START_TEST(unmasked_in_region)
{
    struct fake *f = soon_regions();

    ck_assert_int_eq(FAKE_EXEC(f, unmasked_later), X86_XM);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 2);
    ck_assert_uint_eq(low(f, 1), 0x4014000000000000); /* 5 */
    ck_assert_uint_eq(f->cpu->fpu.mxcsr, 0x1d84);
    finish(f);
}
END_TEST

/* A handler in each round that leaves all as it is. */
FAKE_ASM(reloaded, 64,
         "mov $5000, %ecx\n mov $7, %eax\n 1: movd %eax, %xmm3\n paddd %xmm3, %xmm4\n"
         "fxsave 0x40000\n paddd %xmm3, %xmm5\n dec %ecx\n jnz 1b\n hlt");

START_TEST(handlers_in_region)
{
    struct fake *f = soon_regions();

    ck_assert_int_eq(FAKE_EXEC(f, reloaded), FAKE_HLT);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    ck_assert_uint_eq(low(f, 4) & 0xffffffff, 35000);
    ck_assert_uint_eq(low(f, 5) & 0xffffffff, 35000);
    ck_assert_uint_eq(fake_get(f, 0x40000 + 160 + 4 * 16, 4), 35000);
    finish(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_simd");
    TCase *t = tcase_create("bt_simd");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, program_keeps_its_control_words);
    tcase_add_test(t, task_switched);
    tcase_add_test(t, unmasked_exception);
    tcase_add_test(t, loads_over_the_end_of_a_page);
    tcase_add_test(t, operands_are_aligned);
    tcase_add_test(t, mmx_registers);
    tcase_add_test(t, task_switched_in_region);
    tcase_add_test(t, unmasked_in_region);
    tcase_add_test(t, handlers_in_region);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
