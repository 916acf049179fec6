/* SPDX-License-Identifier: BSD-2-Clause */
/* test_sysinsn.c: time stamps, segment bases, HLT, VMCALL, descriptor table registers. */
#include "core/x86/control.h"
#include "x86_expect.h"

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    return f;
}

static struct fake *user64(void)
{
    struct fake *f = long64();

    fake_user(f);
    return f;
}

/* ---- time stamps ---- */

FAKE_ASM(do_rdtsc, 64, "rdtsc\n hlt\n");
FAKE_ASM(do_rdtscp, 64, "rdtscp\n hlt\n");
FAKE_ASM(do_rdpid, 64, "rdpid %rbx\n hlt\n");
FAKE_ASM(do_rdpmc, 64, "rdpmc\n hlt\n");

START_TEST(rdtsc_and_tsd)
{
    struct fake *f = user64();

    f->tsc = 0x123456789abcdef0;
    f->cpu->tsc_aux = 0x77;
    EXPECT_OK(f, do_rdtsc);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x9abcdef0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0x12345678);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0;
    EXPECT_OK(f, do_rdtscp);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x9abcdef0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x77);

    f->cpu->rip = FAKE_TEXT;
    f->cpu->cr4 |= X86_CR4_TSD;
    EXPECT_FAULT(f, do_rdtsc, X86_GP);
    EXPECT_FAULT(f, do_rdtscp, X86_GP);
    f->cpu->feat.x1_edx = 0;
    EXPECT_FAULT(f, do_rdtscp, X86_UD);
    fake_free(f);

    f = long64();
    f->cpu->cr4 |= X86_CR4_TSD; /* the supervisor may */
    EXPECT_OK(f, do_rdtsc);
    fake_free(f);
}
END_TEST

START_TEST(rdpid_reads_tsc_aux)
{
    struct fake *f = user64();

    f->cpu->tsc_aux = 0x1234;
    f->cpu->gpr[VMM_RBX] = ~(uint64_t)0;
    EXPECT_OK(f, do_rdpid);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x1234);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->feat.l7_ecx = 0;
    EXPECT_FAULT(f, do_rdpid, X86_UD);
    fake_free(f);
}
END_TEST

START_TEST(rdpmc_has_no_counters)
{
    struct fake *f = long64();

    EXPECT_FAULT(f, do_rdpmc, X86_GP);
    f->cpu->cr4 |= X86_CR4_PCE;
    fake_user(f);
    EXPECT_FAULT(f, do_rdpmc, X86_GP);
    fake_free(f);
}
END_TEST

/* ---- FS and GS ---- */

FAKE_ASM(do_swapgs, 64, "swapgs\n hlt\n");
FAKE_ASM(swapgs_32, 32, ".byte 0x0f, 0x01, 0xf8\n hlt\n");
FAKE_ASM(wr_fs, 64, "wrfsbase %rbx\n rdfsbase %rcx\n wrfsbase %ebx\n rdfsbase %edx\n hlt\n");
FAKE_ASM(wr_gs, 64, "wrgsbase %rbx\n rdgsbase %rcx\n hlt\n");
FAKE_ASM(rd_fs, 64, "rdfsbase %rcx\n hlt\n");
FAKE_ASM(rd_gs, 64, "rdgsbase %rcx\n hlt\n");

START_TEST(swapgs_exchanges)
{
    struct fake *f = long64();

    f->cpu->seg[VMM_GS].base = 0x1000;
    f->cpu->kernel_gs_base = 0xffff800000000000;
    EXPECT_OK(f, do_swapgs);
    ck_assert_uint_eq(f->cpu->seg[VMM_GS].base, 0xffff800000000000);
    ck_assert_uint_eq(f->cpu->kernel_gs_base, 0x1000);
    f->cpu->rip = FAKE_TEXT;
    fake_user(f);
    EXPECT_FAULT(f, do_swapgs, X86_GP);
    fake_prot32(f);
    EXPECT_FAULT(f, swapgs_32, X86_UD);
    fake_free(f);
}
END_TEST

START_TEST(fsgsbase)
{
    struct fake *f = user64();

    EXPECT_FAULT(f, rd_fs, X86_UD);
    EXPECT_FAULT(f, rd_gs, X86_UD);
    EXPECT_FAULT(f, wr_fs, X86_UD);
    EXPECT_FAULT(f, wr_gs, X86_UD);
    f->cpu->cr4 |= X86_CR4_FSGSBASE;
    f->cpu->gpr[VMM_RBX] = 0x00007fff12345678;
    f->cpu->gpr[VMM_RDX] = ~(uint64_t)0;
    EXPECT_OK(f, wr_fs);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x00007fff12345678);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0x12345678);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0x12345678);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, wr_gs);
    ck_assert_uint_eq(f->cpu->seg[VMM_GS].base, 0x00007fff12345678);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = 0x0000800000000000;
    EXPECT_FAULT(f, wr_gs, X86_GP);
    ck_assert_uint_eq(f->cpu->seg[VMM_GS].base, 0x00007fff12345678);
    fake_free(f);
}
END_TEST

/* ---- HLT, VMCALL and the like ---- */

FAKE_ASM(do_hlt, 64, "hlt\n nop\n hlt\n");
FAKE_ASM(sti_hlt, 64, "sti\n hlt\n hlt\n");
FAKE_ASM(do_vmcall, 64, "vmcall\n hlt\n");
FAKE_ASM(do_vmmcall, 64, "vmmcall\n hlt\n");
FAKE_ASM(do_serialize, 64, ".byte 0x0f, 0x01, 0xe8\n hlt\n");
FAKE_ASM(do_wbinvd, 64, "wbinvd\n invd\n hlt\n");
FAKE_ASM(do_invd, 64, "invd\n hlt\n");
FAKE_ASM(do_invlpg, 64, "invlpg (%rbx)\n hlt\n");
FAKE_ASM(do_monitor, 64, "monitor\n hlt\n");
FAKE_ASM(do_mwait, 64, "mwait\n hlt\n");

START_TEST(hlt_stops_behind_itself)
{
    struct fake *f = long64();

    FAKE_LOAD(f, do_hlt);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 1);
    ck_assert_uint_eq(f->cpu->activity, VMM_HALTED);
    ck_assert_uint_eq(f->cpu->count.halts, 1);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT); /* and stays there */
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 1);
    fake_free(f);

    f = user64();
    EXPECT_FAULT(f, do_hlt, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(sti_hlt_waits_before_the_interrupt)
{
    struct fake *f = long64();

    FAKE_LOAD(f, sti_hlt);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 2);
    ck_assert_uint_eq(f->cpu->shadow, 0);
    ck_assert(f->cpu->rflags & X86_IF);
    fake_free(f);
}
END_TEST

START_TEST(vmcall_exits_if_asked_for)
{
    struct fake *f = long64();

    EXPECT_FAULT(f, do_vmcall, X86_UD);
    EXPECT_FAULT(f, do_vmmcall, X86_UD);
    f->cpu->vmcall_exits = true;
    ck_assert_int_eq(EXPECT_RUN(f, do_vmcall), FAKE_EXIT);
    ck_assert_uint_eq(f->cpu->exit_reason, VMM_EXIT_HYPERCALL);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(EXPECT_RUN(f, do_vmmcall), FAKE_EXIT);
    fake_free(f);
}
END_TEST

START_TEST(privileged_and_absent_instructions)
{
    struct fake *f = long64();

    EXPECT_OK(f, do_wbinvd);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, do_serialize);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = 1ull << 63; /* not canonical: no effect, no fault */
    EXPECT_OK(f, do_invlpg);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->feat.l7_edx = 0;
    EXPECT_FAULT(f, do_serialize, X86_UD);
    f->cpu->feat.l1_ecx &= ~(1u << 3);
    EXPECT_FAULT(f, do_monitor, X86_UD);
    EXPECT_FAULT(f, do_mwait, X86_UD);
    fake_user(f);
    EXPECT_FAULT(f, do_wbinvd, X86_GP);
    EXPECT_FAULT(f, do_invd, X86_GP);
    EXPECT_FAULT(f, do_invlpg, X86_GP);
    fake_free(f);
}
END_TEST

/* ---- descriptor tables ---- */

FAKE_ASM(lgdt_64, 64, "lgdt (%rbx)\n hlt\n");
FAKE_ASM(lidt_64, 64, "lidt (%rbx)\n hlt\n");
FAKE_ASM(lgdt_32, 32, "lgdtl (%ebx)\n hlt\n");
FAKE_ASM(lgdt_24, 32, "lgdtw (%ebx)\n hlt\n");
FAKE_ASM(sgdt_64, 64, "sgdt (%rbx)\n sidt 16(%rbx)\n hlt\n");
FAKE_ASM(sgdt_32, 32, "sgdtl (%ebx)\n hlt\n");
FAKE_ASM(sgdt_24, 32, "sgdtw (%ebx)\n hlt\n");

START_TEST(loads_of_tables)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 2, 0x1234);
    fake_put(f, FAKE_DATA + 2, 8, 0xffff900012345678);
    EXPECT_OK(f, lgdt_64);
    ck_assert_uint_eq(f->cpu->gdt.limit, 0x1234);
    ck_assert_uint_eq(f->cpu->gdt.base, 0xffff900012345678);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, lidt_64);
    ck_assert_uint_eq(f->cpu->idt.base, 0xffff900012345678);

    f->cpu->rip = FAKE_TEXT;
    fake_put(f, FAKE_DATA + 2, 8, 0x8000900012345678);
    EXPECT_FAULT(f, lgdt_64, X86_GP);
    ck_assert_uint_eq(f->cpu->gdt.base, 0xffff900012345678);
    f->cpu->gpr[VMM_RBX] = 1ull << 40; /* not mapped */
    ck_assert_int_eq(EXPECT_RUN(f, lgdt_64), X86_PF_);
    fake_user(f);
    EXPECT_FAULT(f, lgdt_64, X86_GP);

    fake_prot32(f);
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    EXPECT_OK(f, lgdt_32);
    ck_assert_uint_eq(f->cpu->gdt.base, 0x12345678);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, lgdt_24);
    ck_assert_uint_eq(f->cpu->gdt.base, 0x345678);
    fake_free(f);
}
END_TEST

START_TEST(stores_of_tables)
{
    struct fake *f = long64();

    f->cpu->gdt.base = 0xffff900012345678;
    f->cpu->gdt.limit = 0x4321;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_user(f);
    EXPECT_OK(f, sgdt_64);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 2), 0x4321);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 2, 8), 0xffff900012345678);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 16, 2), f->cpu->idt.limit);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 18, 8), f->cpu->idt.base);

    f->cpu->rip = FAKE_TEXT;
    f->cpu->cr4 |= X86_CR4_UMIP;
    EXPECT_FAULT(f, sgdt_64, X86_GP);

    /* The whole base, whatever the operand size. */
    fake_prot32(f);
    f->cpu->gdt.base = 0x87654321;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, ~(uint64_t)0);
    EXPECT_OK(f, sgdt_24);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 2, 6), 0xffff87654321);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, sgdt_32);
    fake_free(f);
}
END_TEST

START_TEST(stores_of_tables_check_alignment)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    f->cpu->cr0 |= X86_CR0_AM;
    f->cpu->rflags |= X86_AC;
    fake_user(f);
    f->cpu->gpr[VMM_RBX] = FAKE_DATA + 2; /* the base is aligned */
    EXPECT_OK(f, sgdt_32);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    EXPECT_FAULT(f, sgdt_32, X86_AC_);
    fake_free(f);
}
END_TEST

START_TEST(stores_of_tables_are_all_or_nothing)
{
    struct fake *f = long64();
    const uint64_t at = FAKE_DATA + 0x1000 - 4; /* the next page is missing */

    fake_put(f, FAKE_PT + ((FAKE_DATA >> 12) + 1) * 8, 8, 0);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RBX] = at;
    fake_put(f, at, 4, 0xdeadbeef);
    ck_assert_int_eq(EXPECT_RUN(f, sgdt_64), X86_PF_);
    ck_assert_uint_eq(f->cpu->event.cr2, FAKE_DATA + 0x1000);
    ck_assert_uint_eq(fake_get(f, at, 4), 0xdeadbeef);
    fake_free(f);
}
END_TEST

EXPECT_MAIN("sysinsn", rdtsc_and_tsd, rdpid_reads_tsc_aux, rdpmc_has_no_counters, swapgs_exchanges,
            fsgsbase, hlt_stops_behind_itself, sti_hlt_waits_before_the_interrupt,
            vmcall_exits_if_asked_for, privileged_and_absent_instructions, loads_of_tables,
            stores_of_tables, stores_of_tables_check_alignment, stores_of_tables_are_all_or_nothing)
