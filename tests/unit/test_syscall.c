/* SPDX-License-Identifier: BSD-2-Clause */
/* test_syscall.c: SYSCALL, SYSENTER and their returns. */
#include "core/x86/control.h"
#include "x86_sys_test.h"

FAKE_ASM(syscall_, 64, "syscall\n int $0x30\n");
FAKE_ASM(syscall_32, 32, "syscall\n hlt\n");
FAKE_ASM(sysret64, 64, "sysretq\n hlt\n");
FAKE_ASM(sysret32, 64, "sysretl\n hlt\n");
FAKE_ASM(sysenter_, 64, "sysenter\n hlt\n");
FAKE_ASM(sysenter_32, 32, "sysenter\n hlt\n");
FAKE_ASM(sysenter_16, 16, ".byte 0x0f, 0x34\n hlt\n");
FAKE_ASM(sysexit64, 64, ".byte 0x48, 0x0f, 0x35\n hlt\n");
FAKE_ASM(sysexit32, 64, "sysexitl\n hlt\n");
FAKE_ASM(sysexit_32, 32, "sysexit\n hlt\n");
FAKE_ASM(hlt_, 64, "hlt\n");
FAKE_ASM(int31, 64, "int $0x31\n");
FAKE_ASM(round_trip, 64,
         "syscall\n dec %ebx\n .byte 0x75, 0xfa\n int $0x31\n"); /* jnz to the syscall */
FAKE_ASM(kernel, 64, "inc %rax\n sysretq\n");

#define ENTRY 0x11000u
#define USER  0x12000u

/* Legacy selectors as MSRs imply them: CS, SS and for returns +16 and +24 or +32 and +40. */
#define STAR ((uint64_t)0x2b << 48 | (uint64_t)0x100 << 32)

static struct fake *f;

static void setup(void)
{
    f = fake_new();
    fake_long64(f);
    f->cpu->star = STAR;
    f->cpu->lstar = ENTRY;
    f->cpu->sfmask = X86_TF | X86_IF | X86_DF;
    f->cpu->sysenter_cs = 0x100;
    f->cpu->sysenter_eip = ENTRY;
    f->cpu->sysenter_esp = FAKE_STACK0;
    fake_load(f, ENTRY, hlt__begin, hlt__end);
    fake_load(f, USER, int31_begin, int31_end);
}

static void teardown(void)
{
    fake_free(f);
}

static void check_flat(unsigned cs, unsigned dpl, bool code64)
{
    const struct vmm_segment *c = &f->cpu->seg[VMM_CS], *s = &f->cpu->seg[VMM_SS];

    ck_assert_uint_eq(c->selector, cs);
    ck_assert_uint_eq(c->base, 0);
    ck_assert_uint_eq(c->limit, FLAT_LIMIT);
    ck_assert_uint_eq(c->ar, code64 ? AR_CODE64(dpl) : AR_CODE32(dpl));
    ck_assert_uint_eq(s->limit, FLAT_LIMIT);
    ck_assert_uint_eq(s->ar, AR_DATA(dpl));
    ck_assert_uint_eq(f->cpu->cpl, dpl);
}

START_TEST(syscall_enters_the_kernel)
{
    setup();
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_IF | X86_CF | X86_AC);
    ck_assert_int_eq(FAKE_EXEC(f, syscall_), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, ENTRY + 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], FAKE_TEXT + 2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R11], 2 | X86_IF | X86_CF | X86_AC);
    ck_assert_uint_eq(rflags(f), 2 | X86_CF | X86_AC);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK);
    check_flat(0x100, 0, true);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0x108);
    teardown();
}
END_TEST

START_TEST(syscall_is_for_64_bit_mode)
{
    setup();
    f->cpu->efer &= ~(uint64_t)X86_EFER_SCE;
    ck_assert_int_eq(FAKE_EXEC(f, syscall_), X86_UD);
    teardown();
    setup();
    fake_seg(f, VMM_CS, FAKE_CS32, 0, FLAT_LIMIT, AR_CODE32(0));
    x86_mode_changed(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, syscall_32), X86_UD);
    teardown();
    f = fake_new();
    fake_prot32(f);
    ck_assert_int_eq(FAKE_EXEC(f, syscall_32), X86_UD);
    teardown();
}
END_TEST

START_TEST(syscall_traps_by_the_new_tf)
{
    setup();
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_TF);
    ck_assert_int_eq(FAKE_EXEC(f, syscall_), FAKE_HLT);
    teardown();
    setup();
    f->cpu->sfmask = 0;
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_TF);
    ck_assert_int_eq(FAKE_EXEC(f, syscall_), X86_DB);
    ck_assert_uint_eq(fake_stack(f, 0, 8), ENTRY);
    teardown();
}
END_TEST

START_TEST(sysret_returns)
{
    setup();
    f->cpu->gpr[VMM_RCX] = USER;
    f->cpu->gpr[VMM_R11] = 0xffffffff & ~(X86_TF | X86_AC);
    fake_load(f, FAKE_TEXT, sysret64_begin, sysret64_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->rip, USER);
    ck_assert_uint_eq(rflags(f), (0x3c7fd7 & ~(X86_TF | X86_AC)) | 2);
    check_flat(0x3b, 3, true);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0x33);
    ck_assert_int_eq(fake_go(f), 0x31);
    teardown();

    setup();
    f->cpu->gpr[VMM_RCX] = 0xabcd000000000000 | USER;
    f->cpu->gpr[VMM_R11] = 0;
    fake_load(f, FAKE_TEXT, sysret32_begin, sysret32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->rip, USER);
    ck_assert_uint_eq(rflags(f), 2);
    check_flat(0x2b, 3, false);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0x33);
    teardown();
}
END_TEST

START_TEST(sysret_faults_in_the_kernel)
{
    setup(); /* Intel: at CPL 0 */
    f->cpu->gpr[VMM_RCX] = 1ull << 47;
    ck_assert_int_eq(FAKE_EXEC(f, sysret64), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0);
    ck_assert_uint_eq(fake_stack(f, 2, 8), FAKE_CS64);
    teardown();
    setup();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, sysret64), X86_GP);
    teardown();
    setup();
    f->cpu->efer &= ~(uint64_t)X86_EFER_SCE;
    ck_assert_int_eq(FAKE_EXEC(f, sysret64), X86_UD);
    teardown();
}
END_TEST

START_TEST(round_trips)
{
    setup();
    fake_load(f, ENTRY, kernel_begin, kernel_end);
    fake_user(f);
    f->cpu->gpr[VMM_RBX] = 1000;
    ck_assert_int_eq(FAKE_EXEC(f, round_trip), 0x31);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1000);
    teardown();
}
END_TEST

START_TEST(sysenter_and_sysexit_in_long_mode)
{
    setup();
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_IF | X86_ZF);
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0);
    ck_assert_uint_eq(rflags(f), 2 | X86_ZF);
    check_flat(0x100, 0, true);
    teardown();

    setup();
    f->cpu->gpr[VMM_RDX] = USER;
    f->cpu->gpr[VMM_RCX] = 0x12345;
    fake_load(f, FAKE_TEXT, sysexit64_begin, sysexit64_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    check_flat(0x123, 3, true);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0x12b);
    ck_assert_uint_eq(f->cpu->rip, USER);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x12345);
    teardown();

    setup();
    f->cpu->gpr[VMM_RDX] = 0x100000000 | USER;
    f->cpu->gpr[VMM_RCX] = 0x100012345;
    fake_load(f, FAKE_TEXT, sysexit32_begin, sysexit32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    check_flat(0x113, 3, false);
    ck_assert_uint_eq(f->cpu->rip, USER);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x12345);
    teardown();

    setup();
    f->cpu->gpr[VMM_RDX] = 1ull << 47;
    ck_assert_int_eq(FAKE_EXEC(f, sysexit64), X86_GP);
    teardown();
    setup();
    f->cpu->gpr[VMM_RCX] = 1ull << 47;
    ck_assert_int_eq(FAKE_EXEC(f, sysexit64), X86_GP);
    teardown();
    setup();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, sysexit64), X86_GP);
    teardown();
}
END_TEST

static void setup_32(void)
{
    f = fake_new();
    fake_prot32(f);
    f->cpu->sysenter_cs = 0x100;
    f->cpu->sysenter_eip = ENTRY;
    f->cpu->sysenter_esp = FAKE_STACK0;
    fake_load(f, ENTRY, hlt__begin, hlt__end);
}

START_TEST(sysenter_and_sysexit_in_protected_mode)
{
    setup_32();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_32), FAKE_HLT);
    check_flat(0x100, 0, false);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0);
    teardown();

    setup_32();
    f->cpu->gpr[VMM_RDX] = USER;
    f->cpu->gpr[VMM_RCX] = 0x12345;
    fake_load(f, FAKE_TEXT, sysexit_32_begin, sysexit_32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    check_flat(0x113, 3, false);
    teardown();

    setup_32();
    f->cpu->sysenter_cs = 3;
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_32), X86_GP);
    teardown();
    setup_32();
    f->cpu->sysenter_cs = 0;
    ck_assert_int_eq(FAKE_EXEC(f, sysexit_32), X86_GP);
    teardown();
    setup_32();
    f->cpu->feat.l1_edx &= ~X86_F1_EDX_SEP;
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_32), X86_UD);
    teardown();
    f = fake_new();
    fake_real(f);
    f->cpu->sysenter_cs = 0x100;
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_16), X86_GP);
    teardown();
}
END_TEST

START_TEST(sysenter_leaves_virtual_8086_mode)
{
    setup_32();
    x86_set_rflags(f->cpu, 2 | X86_VM | X86_IF);
    f->cpu->cpl = 3;
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        x86_load_seg_real(f->cpu, i, FAKE_TEXT / 16);
    x86_mode_changed(f->cpu);
    f->cpu->rip = 0;
    ck_assert_int_eq(FAKE_EXEC(f, sysenter_16), FAKE_HLT);
    ck_assert_uint_eq(rflags(f), 2);
    check_flat(0x100, 0, false);
    teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        syscall_enters_the_kernel,         syscall_is_for_64_bit_mode,
        syscall_traps_by_the_new_tf,       sysret_returns,
        sysret_faults_in_the_kernel,       round_trips,
        sysenter_and_sysexit_in_long_mode, sysenter_and_sysexit_in_protected_mode,
        sysenter_leaves_virtual_8086_mode,
    };

    return RUN_SUITE("syscall", tests);
}
