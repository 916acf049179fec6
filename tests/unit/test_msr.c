/* SPDX-License-Identifier: BSD-2-Clause */
/* test_msr.c: the MSRs of the software CPU: values that are refused, RDMSR and WRMSR. */
#include "core/x86/control.h"
#include "x86_expect.h"

FAKE_ASM(do_rdmsr, 64, "rdmsr\n hlt\n");
FAKE_ASM(do_wrmsr, 64, "wrmsr\n hlt\n");

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    return f;
}

static uint64_t get(struct fake *f, uint32_t index)
{
    uint64_t value = 0xdead;

    ck_assert_msg(x86_read_msr(f->cpu, index, &value, false), "MSR %#x", index);
    return value;
}

static bool set(struct fake *f, uint32_t index, uint64_t value)
{
    return x86_write_msr(f->cpu, index, value, false);
}

/* ---- RDMSR and WRMSR ---- */

START_TEST(rdmsr_and_wrmsr_split_values)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RCX] = 0xffffffffc0000082; /* IA32_LSTAR: the upper half is ignored */
    f->cpu->gpr[VMM_RAX] = 0xffffffff12345678;
    f->cpu->gpr[VMM_RDX] = 0xffffffffffff8000;
    EXPECT_OK(f, do_wrmsr);
    ck_assert_uint_eq(f->cpu->lstar, 0xffff800012345678);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, do_rdmsr);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x12345678);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0xffff8000);
    fake_free(f);
}
END_TEST

START_TEST(rdmsr_and_wrmsr_fault)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RCX] = 0x12345; /* unknown */
    EXPECT_FAULT(f, do_rdmsr, X86_GP);
    EXPECT_FAULT(f, do_wrmsr, X86_GP);
    f->cpu->gpr[VMM_RCX] = 0xc0000082;
    f->cpu->gpr[VMM_RDX] = 0x8000; /* not canonical */
    EXPECT_FAULT(f, do_wrmsr, X86_GP);
    ck_assert_uint_eq(f->cpu->lstar, 0);
    fake_user(f);
    EXPECT_FAULT(f, do_rdmsr, X86_GP);
    EXPECT_FAULT(f, do_wrmsr, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(surroundings_come_first)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RCX] = 0x40000001; /* the test's */
    f->input = 0x1122334455667788;
    EXPECT_OK(f, do_rdmsr);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x55667788);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0x11223344);
    f->cpu->rip = FAKE_TEXT;
    f->abort_in = 1;
    ck_assert_int_eq(EXPECT_RUN(f, do_wrmsr), FAKE_ABORTED);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_HLT);
    ck_assert(f->log[1].write);
    ck_assert_uint_eq(f->log[1].value, 0x1122334455667788);
    fake_free(f);
}
END_TEST

/* ---- values ---- */

START_TEST(addresses_are_canonical)
{
    static const uint32_t index[] = {0x175,      0x176,      0xc0000082, 0xc0000083,
                                     0xc0000100, 0xc0000101, 0xc0000102};
    struct fake *f = long64();

    for (unsigned i = 0; i < sizeof(index) / sizeof(index[0]); i++) {
        ck_assert(set(f, index[i], 0xffff800000000000 + i));
        ck_assert(!set(f, index[i], 0x0000800000000000));
        ck_assert_uint_eq(get(f, index[i]), 0xffff800000000000 + i);
    }
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0xffff800000000004);
    ck_assert_uint_eq(f->cpu->seg[VMM_GS].base, 0xffff800000000005);
    ck_assert_uint_eq(f->cpu->kernel_gs_base, 0xffff800000000006);
    fake_free(f);
}
END_TEST

START_TEST(memory_types)
{
    struct fake *f = long64();

    ck_assert_uint_eq(get(f, 0x277), 0x0007040600070406);
    ck_assert(set(f, 0x277, 0x0001040506070000));
    ck_assert(!set(f, 0x277, 0x0002040506070000));
    ck_assert(!set(f, 0x277, 0x0800000000000000));
    ck_assert_uint_eq(get(f, 0x277), 0x0001040506070000);

    ck_assert_uint_eq(get(f, 0xfe), 0x508);
    ck_assert(!set(f, 0xfe, 0x508));
    ck_assert(set(f, 0x2ff, 0xc06));
    ck_assert(!set(f, 0x2ff, 0xc07)); /* UC- is for PAT only */
    ck_assert(!set(f, 0x2ff, 0x1c06));
    ck_assert(set(f, 0x250, 0x0606060606060606));
    ck_assert(set(f, 0x259, 0x0505050505050505));
    ck_assert(set(f, 0x26f, 0x0404040404040404));
    ck_assert(!set(f, 0x268, 3));
    ck_assert_uint_eq(f->cpu->mtrr_fixed[0], 0x0606060606060606);
    ck_assert_uint_eq(f->cpu->mtrr_fixed[2], 0x0505050505050505);
    ck_assert_uint_eq(f->cpu->mtrr_fixed[10], 0x0404040404040404);
    ck_assert_uint_eq(get(f, 0x259), 0x0505050505050505);
    ck_assert(!set(f, 0x251, 0)); /* between the fixed ranges */

    ck_assert(set(f, 0x200, 0x80000006));
    ck_assert(!set(f, 0x200, 0x80000106));
    ck_assert(!set(f, 0x200, 2));
    ck_assert(set(f, 0x20f, 0xff80000800));
    ck_assert(!set(f, 0x20f, 0xff80000c00));
    ck_assert(!set(f, 0x20f, 1ull << 40)); /* above the physical address width */
    ck_assert(!set(f, 0x210, 0));
    ck_assert_uint_eq(get(f, 0x20f), 0xff80000800);
    fake_free(f);
}
END_TEST

START_TEST(efer_checks)
{
    struct fake *f = long64();
    uint64_t efer = f->cpu->efer;

    ck_assert(!set(f, 0xc0000080, efer & ~(uint64_t)X86_EFER_LME)); /* while paging */
    ck_assert(!set(f, 0xc0000080, efer | 2));
    ck_assert(!f->cpu->event.valid);
    ck_assert(set(f, 0xc0000080, efer & ~(uint64_t)(X86_EFER_LMA | X86_EFER_SCE)));
    ck_assert_uint_eq(f->cpu->efer, efer & ~(uint64_t)X86_EFER_SCE); /* LMA is read-only */
    f->cpu->feat.x1_edx &= ~X86_FX1_EDX_NX;
    ck_assert(!set(f, 0xc0000080, efer));
    fake_free(f);
}
END_TEST

FAKE_ASM(nx_off, 64, "wrmsr\n call *%rbx\n hlt\n");

START_TEST(nxe_takes_effect_at_once)
{
    struct fake *f = long64();

    /* With EFER.NXE clear bit 63 is reserved. */
    fake_put(f, FAKE_PT + (FAKE_DATA >> 12) * 8, 8, FAKE_DATA | 7 | 1ull << 63);
    fake_put(f, FAKE_DATA, 1, 0xc3);
    f->cpu->gpr[VMM_RCX] = 0xc0000080;
    f->cpu->gpr[VMM_RAX] = X86_EFER_LME | X86_EFER_LMA;
    f->cpu->gpr[VMM_RDX] = 0;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    ck_assert_int_eq(EXPECT_RUN(f, nx_off), X86_PF_);
    ck_assert(f->cpu->event.error & MMU_PF_RSVD);
    fake_free(f);
}
END_TEST

START_TEST(misc_enable)
{
    struct fake *f = long64();

    ck_assert_uint_eq(get(f, 0x1a0), 0x1801);
    ck_assert(set(f, 0x1a0, 0)); /* BTS and PEBS stay unavailable */
    ck_assert_uint_eq(get(f, 0x1a0), 0x1800);
    ck_assert(!set(f, 0x1a0, 1ull << 40));
    ck_assert(set(f, 0x1a0, X86_MISC_XD_DISABLE));
    ck_assert(!(x86_efer_allowed(f->cpu) & X86_EFER_NXE));
    fake_free(f);
}
END_TEST

START_TEST(time_stamp_counter)
{
    struct fake *f = long64();

    f->tsc = 1000;
    ck_assert_uint_eq(get(f, 0x10), 1000);
    ck_assert(set(f, 0x10, 5000));
    ck_assert_uint_eq(f->tsc, 5000);
    ck_assert_uint_eq(get(f, 0x3b), 4000);
    ck_assert(set(f, 0x3b, 4001));
    ck_assert_uint_eq(f->tsc, 5001);
    fake_free(f);
}
END_TEST

START_TEST(small_ones)
{
    struct fake *f = long64();

    ck_assert(set(f, 0x174, 0x10) && !set(f, 0x174, 1ull << 32));
    ck_assert(set(f, 0xc0000084, 0x47700) && !set(f, 0xc0000084, 1ull << 32));
    ck_assert(set(f, 0xc0000103, 7) && !set(f, 0xc0000103, 1ull << 32));
    ck_assert(set(f, 0xc0000081, 0x0023001000000000));
    ck_assert(set(f, 0x17a, 4) && !set(f, 0x17a, 8));
    ck_assert_uint_eq(get(f, 0x179), 0);
    ck_assert(!set(f, 0x179, 0));
    ck_assert(set(f, 0xda0, 0) && !set(f, 0xda0, 0x100));
    ck_assert(set(f, 0x140, 1) && !set(f, 0x140, 2));
    ck_assert(set(f, 0x8b, 0)); /* asks for the microcode revision */
    ck_assert_uint_eq(get(f, 0x8b) >> 32, 1);
    ck_assert_uint_eq(get(f, 0xce), 1ull << 31);
    ck_assert(!set(f, 0xce, 0));
    ck_assert(get(f, 0x10a) & 1);
    fake_free(f);
}
END_TEST

START_TEST(absent_features_have_no_msrs)
{
    static const uint32_t index[] = {0x3b, 0x48,  0x10a, 0x174,      0x175,      0x17a,     0x277,
                                     0xfe, 0x200, 0xda0, 0xc0000080, 0xc0000082, 0xc0000103};
    struct fake *f = long64();
    uint64_t value;

    memset(&f->cpu->feat, 0, sizeof(f->cpu->feat));
    for (unsigned i = 0; i < sizeof(index) / sizeof(index[0]); i++) {
        ck_assert_msg(!x86_read_msr(f->cpu, index[i], &value, false), "MSR %#x", index[i]);
        ck_assert_msg(!x86_write_msr(f->cpu, index[i], 0, true), "MSR %#x", index[i]);
    }
    fake_free(f);
}
END_TEST

START_TEST(host_restores_constants)
{
    struct fake *f = long64();

    ck_assert(x86_write_msr(f->cpu, 0xfe, 0x508, true));
    ck_assert(!x86_write_msr(f->cpu, 0xfe, 0x509, true));
    fake_free(f);
}
END_TEST

EXPECT_MAIN("msr", rdmsr_and_wrmsr_split_values, rdmsr_and_wrmsr_fault, surroundings_come_first,
            addresses_are_canonical, memory_types, efer_checks, nxe_takes_effect_at_once,
            misc_enable, time_stamp_counter, small_ones, absent_features_have_no_msrs,
            host_restores_constants)
