/* SPDX-License-Identifier: BSD-2-Clause */
/* test_portio.c: IN, OUT, INS and OUTS of the software CPU. */
#include "core/x86/control.h"
#include "x86_expect.h"

FAKE_ASM(in_imm, 64, "in $0xf3, %al\n in $0xf3, %ax\n in $0xf3, %eax\n hlt\n");
FAKE_ASM(in_b, 64, "in %dx, %al\n hlt\n");
FAKE_ASM(in_w, 64, "in %dx, %ax\n hlt\n");
FAKE_ASM(in_l, 64, "in %dx, %eax\n hlt\n");
FAKE_ASM(out_b, 64, "out %al, %dx\n hlt\n");
FAKE_ASM(out_imm, 64, "out %eax, $0x80\n hlt\n");
FAKE_ASM(out_w, 64, "out %ax, %dx\n hlt\n");
FAKE_ASM(out_l, 64, "out %eax, %dx\n hlt\n");
FAKE_ASM(in_16, 16, "in %dx, %al\n hlt\n");
FAKE_ASM(do_insb, 64, "insb\n hlt\n");
FAKE_ASM(do_outsl, 64, "outsl\n hlt\n");
FAKE_ASM(rep_insw, 64, "rep insw\n hlt\n");
FAKE_ASM(rep_outsb, 64, "rep outsb\n hlt\n");
FAKE_ASM(outsb_fs, 64, "fs outsb\n hlt\n");
FAKE_ASM(rep_outsb_a32, 64, "addr32 rep outsb\n hlt\n");

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    f->cpu->gpr[VMM_RDX] = 0x3f8;
    return f;
}

START_TEST(in_writes_its_size)
{
    struct fake *f = long64();

    f->input = 0x11223344;
    f->cpu->gpr[VMM_RAX] = ~(uint64_t)0;
    EXPECT_OK(f, in_b);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0xffffffffffffff44);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, in_w);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0xffffffffffff3344);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, in_l);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x11223344);
    f->nlog = 0;
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, in_imm);
    ck_assert_uint_eq(f->nlog, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(f->log[i].addr, 0xf3);
        ck_assert_uint_eq(f->log[i].size, 1u << i);
    }
    fake_free(f);
}
END_TEST

START_TEST(out_gives_its_size)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 0x8877665544332211;
    EXPECT_OK(f, out_b);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, out_w);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, out_l);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, out_imm);
    ck_assert_uint_eq(f->log[0].value, 0x11);
    ck_assert_uint_eq(f->log[1].value, 0x2211);
    ck_assert_uint_eq(f->log[2].value, 0x44332211);
    ck_assert_uint_eq(f->log[2].addr, 0x3f8);
    ck_assert_uint_eq(f->log[3].addr, 0x80);
    ck_assert(f->log[3].write);
    fake_free(f);
}
END_TEST

START_TEST(abort_leaves_the_instruction_to_be_repeated)
{
    struct fake *f = long64();
    uint64_t serial;

    f->abort_in = 1;
    f->input = 5;
    f->cpu->gpr[VMM_RAX] = 0;
    ck_assert_int_eq(EXPECT_RUN(f, in_b), FAKE_ABORTED);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    serial = x86_serial(f->cpu);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 5);
    ck_assert_uint_eq(f->log[0].serial, serial);
    fake_free(f);
}
END_TEST

/* ---- permissions ---- */

/* A TSS with an I/O bit map of `bytes` bytes at 0x68. */
static void set_tss(struct fake *f, unsigned bytes)
{
    f->cpu->seg[VMM_TR].limit = 0x67 + bytes;
    fake_put(f, FAKE_TSS + 0x66, 2, 0x68);
    memset(f->mem + FAKE_TSS + 0x68, 0xff, bytes);
}

static void allow(struct fake *f, unsigned port)
{
    f->mem[FAKE_TSS + 0x68 + port / 8] &= (uint8_t) ~(1u << (port & 7));
}

START_TEST(iopl_lets_users_in)
{
    struct fake *f = long64();

    fake_user(f);
    f->cpu->rflags |= X86_IOPL;
    EXPECT_OK(f, in_b);
    ck_assert_uint_eq(f->nlog, 1);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->rflags &= ~X86_IOPL;
    EXPECT_FAULT(f, in_b, X86_GP);
    ck_assert_uint_eq(f->nlog, 1);
    fake_free(f);
}
END_TEST

START_TEST(bitmap_lets_users_in)
{
    struct fake *f = long64();

    set_tss(f, 0x81);
    allow(f, 0x3f8);
    allow(f, 0x3f9);
    fake_user(f);
    EXPECT_OK(f, in_b);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, out_w);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_FAULT(f, in_l, X86_GP); /* all four must be clear */
    f->cpu->gpr[VMM_RDX] = 0x3f7;
    EXPECT_FAULT(f, in_w, X86_GP); /* across a byte of the map */
    f->mem[FAKE_TSS + 0x68 + 0x3f7 / 8] = 0;
    EXPECT_OK(f, in_w);
    ck_assert_uint_eq(f->nlog, 3);
    fake_free(f);
}
END_TEST

START_TEST(bitmap_ends_with_the_tss)
{
    struct fake *f = long64();

    set_tss(f, 0x80);
    memset(f->mem + FAKE_TSS + 0x68, 0, 0x80);
    fake_user(f);
    f->cpu->gpr[VMM_RDX] = 0x3f7;
    EXPECT_OK(f, in_b);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RDX] = 0x3f8; /* two bytes are read, the second is behind the limit */
    EXPECT_FAULT(f, in_b, X86_GP);
    f->cpu->gpr[VMM_RDX] = 0x3f0;
    f->cpu->seg[VMM_TR].limit = 0x66; /* no room for the map's base */
    EXPECT_FAULT(f, in_b, X86_GP);
    f->cpu->seg[VMM_TR].limit = 0xff;
    fake_put(f, FAKE_TSS + 0x66, 2, 0xffff);
    EXPECT_FAULT(f, in_b, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(narrow_tss_has_no_bitmap)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    set_tss(f, 0x81);
    memset(f->mem + FAKE_TSS + 0x68, 0, 0x81);
    f->cpu->seg[VMM_TR].ar = VMM_AR_P | 3;
    fake_user(f);
    EXPECT_FAULT(f, in_b, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(vm86_always_asks_the_bitmap)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    set_tss(f, 0x81);
    f->cpu->cpl = 3;
    f->cpu->rflags |= X86_VM | X86_IOPL;
    fake_data_segs(f, 0, 0xffff, 0xf3);
    fake_seg(f, VMM_CS, FAKE_TEXT / 16, FAKE_TEXT, 0xffff, 0xf3);
    f->cpu->rip = 0;
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RDX] = 0x3f8;
    EXPECT_FAULT(f, in_16, X86_GP);
    allow(f, 0x3f8);
    EXPECT_OK(f, in_16);
    ck_assert_uint_eq(f->nlog, 1);
    fake_free(f);
}
END_TEST

/* ---- strings ---- */

START_TEST(single_strings_move_both_ways)
{
    struct fake *f = long64();

    f->input = 0xab;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    EXPECT_OK(f, do_insb);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 2), 0xab);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], FAKE_DATA + 1);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->rflags |= X86_DF;
    f->cpu->gpr[VMM_RSI] = FAKE_DATA;
    EXPECT_OK(f, do_outsl);
    ck_assert_uint_eq(f->log[1].value, 0xab);
    ck_assert_uint_eq(f->log[1].size, 4);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], FAKE_DATA - 4);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->seg[VMM_FS].base = FAKE_DATA;
    f->cpu->gpr[VMM_RSI] = 0;
    EXPECT_OK(f, outsb_fs);
    ck_assert_uint_eq(f->log[2].value, 0xab);
    fake_free(f);
}
END_TEST

START_TEST(rep_moves_all)
{
    struct fake *f = long64();

    f->input = 0x1234;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 3;
    EXPECT_OK(f, rep_insw);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 8), 0x123412341234);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], FAKE_DATA + 6);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0);
    ck_assert_uint_eq(f->done, 2);
    for (unsigned i = 1; i < 3; i++)
        ck_assert_uint_ne(f->log[i].serial, f->log[i - 1].serial);

    /* A count of zero: no access, but permission is checked, as processors do. */
    f->cpu->rip = FAKE_TEXT;
    f->nlog = 0;
    EXPECT_OK(f, rep_insw);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->rflags &= ~X86_IOPL;
    fake_user(f);
    EXPECT_FAULT(f, rep_insw, X86_GP);
    ck_assert_uint_eq(f->nlog, 0);
    fake_free(f);
}
END_TEST

START_TEST(rep_by_address_size)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RSI] = 0xffffffff00000000 | FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 0xffffffff00000002;
    fake_put(f, FAKE_DATA, 2, 0x4241);
    EXPECT_OK(f, rep_outsb_a32);
    ck_assert_uint_eq(f->nlog, 2);
    ck_assert_uint_eq(f->log[1].value, 0x42);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], FAKE_DATA + 2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0);
    fake_free(f);
}
END_TEST

START_TEST(rep_goes_on_after_an_abort)
{
    struct fake *f = long64();

    memcpy(f->mem + FAKE_DATA, "abcd", 4);
    f->cpu->gpr[VMM_RSI] = FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 4;
    f->abort_in = 3;
    ck_assert_int_eq(EXPECT_RUN(f, rep_outsb), FAKE_ABORTED);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 2);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_HLT);
    ck_assert_uint_eq(f->nlog, 4);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_uint_eq(f->log[i].value, (unsigned)"abcd"[i]);
    fake_free(f);
}
END_TEST

START_TEST(long_rep_lets_the_surroundings_run)
{
    struct fake *f = long64();
    unsigned polls;

    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 2000;
    polls = f->polls;
    EXPECT_OK(f, rep_insw);
    ck_assert_uint_ge(f->polls - polls, 7);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0);

    FAKE_LOAD(f, rep_insw);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 1000;
    x86_wake(f->cpu);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_ATTENTION);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0);
    fake_free(f);
}
END_TEST

START_TEST(ins_faults_before_it_reads_the_port)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RDI] = 1ull << 40;
    ck_assert_int_eq(EXPECT_RUN(f, do_insb), X86_PF_);
    ck_assert_uint_eq(f->cpu->event.error, MMU_PF_W);
    f->cpu->gpr[VMM_RDI] = 1ull << 62;
    EXPECT_FAULT(f, do_insb, X86_GP);
    ck_assert_uint_eq(f->nlog, 0);

    /* In the middle of a repetition: the iterations before it count. */
    fake_put(f, FAKE_PT + ((FAKE_DATA >> 12) + 1) * 8, 8, 0);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RDI] = FAKE_DATA + 0x1000 - 4;
    f->cpu->gpr[VMM_RCX] = 5;
    ck_assert_int_eq(EXPECT_RUN(f, rep_insw), X86_PF_);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], FAKE_DATA + 0x1000);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_uint_eq(f->nlog, 2);
    fake_free(f);
}
END_TEST

START_TEST(single_step_traps_after_each_iteration)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RCX] = 3;
    f->cpu->rflags |= X86_TF;
    x86_cs_changed(f->cpu);
    ck_assert_int_eq(EXPECT_RUN(f, rep_insw), X86_DB);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 2);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff4ff0);
    fake_free(f);
}
END_TEST

START_TEST(io_breakpoints)
{
    struct fake *f = long64();

    f->cpu->cr4 |= X86_CR4_DE;
    f->cpu->dr.addr[1] = 0x3fa;
    f->cpu->dr.dr7 = 0x400 | 1u << 2 | 6u << 20; /* I/O, two bytes */
    x86_breakpoints_changed(f->cpu);
    EXPECT_OK(f, in_w); /* 3F8H-3F9H */
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(EXPECT_RUN(f, in_l), X86_DB);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 1); /* a trap */
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff2);
    f->cpu->cr4 &= ~(uint64_t)X86_CR4_DE;
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, in_l);
    fake_free(f);
}
END_TEST

EXPECT_MAIN("portio", in_writes_its_size, out_gives_its_size,
            abort_leaves_the_instruction_to_be_repeated, iopl_lets_users_in, bitmap_lets_users_in,
            bitmap_ends_with_the_tss, narrow_tss_has_no_bitmap, vm86_always_asks_the_bitmap,
            single_strings_move_both_ways, rep_moves_all, rep_by_address_size,
            rep_goes_on_after_an_abort, long_rep_lets_the_surroundings_run,
            ins_faults_before_it_reads_the_port, single_step_traps_after_each_iteration,
            io_breakpoints)
