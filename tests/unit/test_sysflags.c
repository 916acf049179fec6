/* SPDX-License-Identifier: BSD-2-Clause */
/* test_sysflags.c: CLI, STI, PUSHF, POPF, STAC and CLAC in all modes. */
#include "core/x86/control.h"
#include "x86_expect.h"

FAKE_ASM(do_cli, 64, "cli\n hlt\n");
FAKE_ASM(do_sti, 64, "sti\n nop\n hlt\n");
FAKE_ASM(cli_16, 16, "cli\n hlt\n");
FAKE_ASM(sti_16, 16, "sti\n nop\n hlt\n");
FAKE_ASM(pushf_16, 16, "pushfw\n hlt\n");
FAKE_ASM(pushf_32, 16, "pushfl\n hlt\n");
FAKE_ASM(popf_16, 16, "popfw\n hlt\n");
FAKE_ASM(popf_32, 16, "popfl\n hlt\n");
FAKE_ASM(pushf_64, 64, "pushfq\n hlt\n");
FAKE_ASM(popf_64, 64, "popfq\n hlt\n");
FAKE_ASM(popfw_64, 64, "popfw\n hlt\n");
FAKE_ASM(do_stac, 64, "stac\n hlt\n");
FAKE_ASM(do_clac, 64, "clac\n hlt\n");

/* 64-bit mode at ring 3 with an I/O privilege level. */
static struct fake *user64(unsigned iopl)
{
    struct fake *f = fake_new();

    fake_long64(f);
    fake_user(f);
    f->cpu->rflags |= iopl << X86_IOPL_SHIFT;
    return f;
}

/* Virtual-8086 mode: CS FAKE_TEXT / 16, the others 0, stack at 0xe000. */
static struct fake *vm86(unsigned iopl)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    f->cpu->cpl = 3;
    f->cpu->rflags |= X86_VM | iopl << X86_IOPL_SHIFT;
    fake_data_segs(f, 0, 0xffff, 0xf3);
    fake_seg(f, VMM_CS, FAKE_TEXT / 16, FAKE_TEXT, 0xffff, 0xf3);
    f->cpu->gpr[VMM_RSP] = 0xe000;
    f->cpu->rip = 0;
    x86_mode_changed(f->cpu);
    return f;
}

static void rewind_vm86(struct fake *f)
{
    f->cpu->rip = 0;
    f->cpu->gpr[VMM_RSP] = 0xe000;
}

/* ---- CLI and STI ---- */

START_TEST(cli_sti_by_iopl)
{
    struct fake *f = user64(3);

    EXPECT_OK(f, do_sti);
    ck_assert(f->cpu->rflags & X86_IF);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, do_cli);
    ck_assert(!(f->cpu->rflags & X86_IF));
    f->cpu->rflags &= ~X86_IOPL;
    f->cpu->rip = FAKE_TEXT;
    EXPECT_FAULT(f, do_cli, X86_GP);
    EXPECT_FAULT(f, do_sti, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(pvi_virtualizes_at_ring_3)
{
    struct fake *f = user64(0);

    f->cpu->cr4 |= X86_CR4_PVI;
    f->cpu->rflags |= X86_IF;
    EXPECT_OK(f, do_sti);
    ck_assert(f->cpu->rflags & X86_VIF);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, do_cli);
    ck_assert(!(f->cpu->rflags & X86_VIF));
    ck_assert(f->cpu->rflags & X86_IF);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->rflags |= X86_VIP;
    EXPECT_FAULT(f, do_sti, X86_GP);
    ck_assert(!(f->cpu->rflags & X86_VIF));
    fake_free(f);
}
END_TEST

START_TEST(vme_virtualizes_in_vm86)
{
    struct fake *f = vm86(0);

    EXPECT_FAULT(f, cli_16, X86_GP);
    EXPECT_FAULT(f, sti_16, X86_GP);
    f->cpu->cr4 |= X86_CR4_VME;
    EXPECT_OK(f, sti_16);
    ck_assert((f->cpu->rflags & X86_VIF) && !(f->cpu->rflags & X86_IF));
    rewind_vm86(f);
    EXPECT_OK(f, cli_16);
    ck_assert(!(f->cpu->rflags & X86_VIF));
    fake_free(f);

    f = vm86(3);
    EXPECT_OK(f, sti_16);
    ck_assert(f->cpu->rflags & X86_IF);
    fake_free(f);
}
END_TEST

START_TEST(sti_shadow_lasts_one_instruction)
{
    struct fake *f = fake_new();

    fake_long64(f);
    FAKE_LOAD(f, do_sti);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->shadow, VMM_SHADOW_STI);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->shadow, 0);
    /* No shadow when interrupts were on. */
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->shadow, 0);
    fake_free(f);
}
END_TEST

/* ---- PUSHF ---- */

START_TEST(pushf_hides_vm_and_rf)
{
    struct fake *f = user64(1);

    f->cpu->rflags |= X86_IF | X86_NT | X86_ID | X86_AC;
    x86_set_rflags(f->cpu, x86_get_rflags(f->cpu) | X86_CF | X86_OF);
    EXPECT_OK(f, pushf_64);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 8);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 8, 8), 2 | X86_IF | X86_NT | X86_ID | X86_AC |
                                                          X86_CF | X86_OF | 1u << X86_IOPL_SHIFT);
    fake_free(f);

    f = vm86(3);
    EXPECT_OK(f, pushf_32);
    ck_assert_uint_eq(fake_get(f, 0xe000 - 4, 4), 2 | X86_IOPL);
    fake_free(f);
}
END_TEST

START_TEST(pushf_in_vm86)
{
    struct fake *f = vm86(0);

    EXPECT_FAULT(f, pushf_16, X86_GP);
    f->cpu->cr4 |= X86_CR4_VME;
    EXPECT_FAULT(f, pushf_32, X86_GP);
    f->cpu->rflags |= X86_IF;
    EXPECT_OK(f, pushf_16); /* IOPL 3, IF is VIF */
    ck_assert_uint_eq(fake_get(f, 0xe000 - 2, 2), 2 | X86_IOPL);
    rewind_vm86(f);
    f->cpu->rflags |= X86_VIF;
    EXPECT_OK(f, pushf_16);
    ck_assert_uint_eq(fake_get(f, 0xe000 - 2, 2), 2 | X86_IOPL | X86_IF);
    fake_free(f);
}
END_TEST

/* ---- POPF ---- */

static uint64_t popf64(struct fake *f, uint64_t value)
{
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 8;
    fake_put(f, FAKE_STACK - 8, 8, value);
    EXPECT_OK(f, popf_64);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK);
    return x86_get_rflags(f->cpu);
}

#define ALL_BUT_TF (~(uint64_t)X86_TF)
#define PLAIN      (X86_ARITH | X86_DF | X86_NT | X86_AC | X86_ID | 2)

START_TEST(popf_by_privilege)
{
    struct fake *f = fake_new();

    fake_long64(f);
    ck_assert_uint_eq(popf64(f, ALL_BUT_TF), PLAIN | X86_IF | X86_IOPL);
    ck_assert_uint_eq(popf64(f, 0), 2);
    f->cpu->rflags |= X86_VIF | X86_VIP;
    ck_assert_uint_eq(popf64(f, 0), 2 | X86_VIF | X86_VIP);
    fake_free(f);

    f = user64(3);
    ck_assert_uint_eq(popf64(f, ALL_BUT_TF), PLAIN | X86_IF | X86_IOPL);
    ck_assert_uint_eq(popf64(f, 0), 2 | X86_IOPL);
    fake_free(f);

    f = user64(2);
    ck_assert_uint_eq(popf64(f, ALL_BUT_TF), PLAIN | 2u << X86_IOPL_SHIFT);
    f->cpu->rflags |= X86_IF;
    ck_assert_uint_eq(popf64(f, 0), 2 | X86_IF | 2u << X86_IOPL_SHIFT);
    fake_free(f);
}
END_TEST

START_TEST(popf_16_keeps_the_upper_half)
{
    struct fake *f = fake_new();

    fake_long64(f);
    f->cpu->rflags |= X86_ID;
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 8;
    fake_put(f, FAKE_STACK - 8, 8, X86_CF | X86_IF | X86_AC);
    EXPECT_OK(f, popfw_64);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), 2 | X86_ID | X86_CF | X86_IF);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 6);
    fake_free(f);
}
END_TEST

START_TEST(popf_tf_traps_after_the_next_instruction)
{
    struct fake *f = fake_new();

    fake_long64(f);
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 8;
    fake_put(f, FAKE_STACK - 8, 8, X86_TF);
    fake_put(f, FAKE_TEXT + 1, 2, 0x9090);
    fake_put(f, FAKE_TEXT, 1, 0x9d); /* POPFQ; NOP; NOP */
    f->cpu->host_exceptions = ~0u;
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_EXIT);
    ck_assert_uint_eq(f->cpu->event.vector, X86_DB);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 2);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff4ff0);
    fake_free(f);
}
END_TEST

START_TEST(popf_faults_change_nothing)
{
    struct fake *f = fake_new();

    fake_long64(f);
    f->cpu->gpr[VMM_RSP] = 1ull << 62;
    EXPECT_FAULT(f, popf_64, X86_SS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 1ull << 62);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), 2);
    fake_free(f);
}
END_TEST

static void popf_vm86(struct fake *f, uint32_t value)
{
    f->cpu->rip = 0;
    f->cpu->gpr[VMM_RSP] = 0xe000 - 4;
    fake_put(f, 0xe000 - 4, 4, value);
}

START_TEST(popf_in_vm86)
{
    struct fake *f = vm86(0);

    popf_vm86(f, X86_IF);
    EXPECT_FAULT(f, popf_16, X86_GP);
    f->cpu->cr4 |= X86_CR4_VME;
    EXPECT_FAULT(f, popf_32, X86_GP);
    EXPECT_OK(f, popf_16); /* IF goes to VIF, IOPL stays */
    ck_assert_uint_eq(x86_get_rflags(f->cpu), 2 | X86_VM | X86_VIF);
    popf_vm86(f, X86_CF | X86_IOPL);
    EXPECT_OK(f, popf_16);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), 2 | X86_VM | X86_CF);

    popf_vm86(f, X86_TF);
    EXPECT_FAULT(f, popf_16, X86_GP);
    f->cpu->rflags |= X86_VIP;
    popf_vm86(f, X86_IF);
    EXPECT_FAULT(f, popf_16, X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe000 - 4);
    popf_vm86(f, 0);
    EXPECT_OK(f, popf_16);
    fake_free(f);

    f = vm86(3);
    popf_vm86(f, X86_IF | X86_AC | X86_ID | X86_VIF);
    EXPECT_OK(f, popf_32);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), 2 | X86_VM | X86_IOPL | X86_IF | X86_AC | X86_ID);
    fake_free(f);
}
END_TEST

/* ---- STAC and CLAC ---- */

START_TEST(stac_and_clac)
{
    struct fake *f = fake_new();

    fake_long64(f);
    EXPECT_OK(f, do_stac);
    ck_assert(f->cpu->rflags & X86_AC);
    ck_assert_uint_eq(f->cpu->mmu_idx, MMU_KERNEL_AC);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, do_clac);
    ck_assert(!(f->cpu->rflags & X86_AC));
    ck_assert_uint_eq(f->cpu->mmu_idx, MMU_KERNEL);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->feat.l7_ebx = 0;
    EXPECT_FAULT(f, do_stac, X86_UD);
    f->cpu->feat.l7_ebx = ~0u;
    fake_user(f);
    EXPECT_FAULT(f, do_stac, X86_UD);
    EXPECT_FAULT(f, do_clac, X86_UD);
    fake_free(f);
}
END_TEST

EXPECT_MAIN("sysflags", cli_sti_by_iopl, pvi_virtualizes_at_ring_3, vme_virtualizes_in_vm86,
            sti_shadow_lasts_one_instruction, pushf_hides_vm_and_rf, pushf_in_vm86,
            popf_by_privilege, popf_16_keeps_the_upper_half,
            popf_tf_traps_after_the_next_instruction, popf_faults_change_nothing, popf_in_vm86,
            stac_and_clac)
