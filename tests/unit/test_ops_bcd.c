/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ops_bcd.c: the decimal instructions, against the host's CPU in compatibility mode. */
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>

#include "x86_fake.h"

static const struct insn {
    const char *name;
    uint8_t code[2], len;
} insns[] = {
    {"daa", {0x27}, 1},           {"das", {0x2f}, 1},       {"aaa", {0x37}, 1},
    {"aas", {0x3f}, 1},           {"aam", {0xd4, 0x0a}, 2}, {"aam 1", {0xd4, 0x01}, 2},
    {"aam 16", {0xd4, 0x10}, 2},  {"aad", {0xd5, 0x0a}, 2}, {"aad 0", {0xd5, 0x00}, 2},
    {"aad 255", {0xd5, 0xff}, 2},
};
#define NINSNS (sizeof(insns) / sizeof(insns[0]))

/* ---- the host's side ---- */

static uint8_t *low; /* code, stack at the end; below 4 GiB */
static sigjmp_buf fault_jump;

static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(fault_jump, 1);
}

/* Code that comes back to 64-bit mode behind the instruction: PUSH 33H, PUSH offset, RETF to the
 * JMP RBX at 200. */
static void load_native(const struct insn *i)
{
    uint32_t back = (uint32_t)(uintptr_t)(low + 200);
    uint8_t *p = low + i->len;

    memcpy(low, i->code, i->len);
    memcpy(p, "\x6a\x33\x68", 3);
    memcpy(p + 3, &back, 4);
    p[7] = 0xcb;
    memcpy(low + 200, "\xff\xe3", 2);
}

static __attribute__((noinline)) void run_native(uint64_t *ax, uint64_t *flags)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) volatile far = {(uint32_t)(uintptr_t)low, 0x23};
    uint64_t a = *ax, fl = *flags;

    __asm__ volatile("mov %%rsp, %%r12\n\tlea 1f(%%rip), %%rbx\n\tmov %%rdx, %%rsp\n\t"
                     "push %%rcx\n\tpopf\n\tljmp *(%%rsi)\n"
                     "1:\n\tpushf\n\tpop %%rcx\n\tmov %%r12, %%rsp"
                     : "+a"(a), "+c"(fl)
                     : "d"(low + 4096), "S"(&far)
                     : "rbx", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc",
                       "memory");
    *ax = a;
    *flags = fl;
}

static bool native_works(void)
{
    struct sigaction sa = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    static uint8_t stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
    uint64_t ax = 0x9f, flags = 2;

    low = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return false;
    sigaltstack(&ss, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    if (sigsetjmp(fault_jump, 1))
        return false;
    load_native(&insns[0]);
    run_native(&ax, &flags);
    return ax == 5;
}

START_TEST(same_as_the_host)
{
    static const uint32_t in[] = {0, X86_CF, X86_AF, X86_CF | X86_AF, X86_ARITH};
    static const uint8_t ahs[] = {0, 1, 2, 9, 0x7f, 0x80, 0xfe, 0xff};
    const struct insn *i = &insns[_i];
    struct fake *f = fake_new();

    load_native(i);
    fake_prot32(f);
    fake_load(f, FAKE_TEXT, i->code, i->code + i->len);
    for (unsigned n = 0; n < 256 * 8 * 5; n++) {
        uint64_t flags = in[n / 2048] | 2, ax = (n & 255) | (uint64_t)ahs[n / 256 % 8] << 8;
        uint64_t want_ax = ax | 0xabcd0000, want_flags = flags;

        f->cpu->gpr[VMM_RAX] = want_ax;
        x86_set_rflags(f->cpu, flags);
        f->cpu->rip = FAKE_TEXT;
        ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
        run_native(&want_ax, &want_flags);
        ck_assert_msg(
            f->cpu->gpr[VMM_RAX] == want_ax && !((x86_get_rflags(f->cpu) ^ want_flags) & X86_ARITH),
            "%s: AX %llx, flags %llx: AX %llx, flags %llx; the host has %llx, %llx", i->name,
            (unsigned long long)ax, (unsigned long long)flags,
            (unsigned long long)f->cpu->gpr[VMM_RAX], (unsigned long long)x86_get_rflags(f->cpu),
            (unsigned long long)want_ax, (unsigned long long)want_flags);
    }
    fake_free(f);
}
END_TEST

FAKE_ASM(aam_0, 32, "aam $0\n hlt");

START_TEST(aam_by_zero_is_a_divide_error)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    f->cpu->gpr[VMM_RAX] = 0x1234;
    ck_assert_int_eq(FAKE_EXEC(f, aam_0), X86_DE);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1234);
    fake_free(f);
}
END_TEST

START_TEST(invalid_in_64_bit_mode)
{
    struct fake *f = fake_new();

    for (unsigned k = 0; k < NINSNS; k++) {
        fake_long64(f);
        ck_assert_int_eq(fake_exec(f, insns[k].code, insns[k].code + 2), X86_UD);
    }
    fake_free(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops_bcd");
    TCase *tc = tcase_create("bcd");
    SRunner *sr = srunner_create(s);
    int failed;

    if (native_works())
        tcase_add_loop_test(tc, same_as_the_host, 0, NINSNS);
    else
        puts("skipped: comparison with the host, which has no 32-bit code segment at 23H");
    tcase_add_test(tc, aam_by_zero_is_a_divide_error);
    tcase_add_test(tc, invalid_in_64_bit_mode);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
