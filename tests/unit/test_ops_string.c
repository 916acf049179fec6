/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ops_string.c: string instructions: pages, overlap, faults, interruption, I/O. */
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

/* Takes a page away from the guest. */
static void unmap(uint64_t page)
{
    fake_put(f, FAKE_PT + page / 4096 * 8, 8, 0);
    x86_flush_tlb(f->cpu);
}

static void fill(uint64_t at, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        f->mem[at + i] = (uint8_t)(i * 7 + i / 256);
}

FAKE_ASM(rep_movsb, 64, "rep movsb\n hlt");
FAKE_ASM(rep_movsq, 64, "rep movsq\n hlt");
FAKE_ASM(rep_stosb, 64, "rep stosb\n hlt");
FAKE_ASM(rep_stosw, 64, "rep stosw\n hlt");
FAKE_ASM(rep_stosd, 64, "rep stosl\n hlt");
FAKE_ASM(std_rep_movsb, 64, "std\n rep movsb\n hlt");
FAKE_ASM(repe_cmpsb, 64, "repe cmpsb\n hlt");
FAKE_ASM(repne_scasb, 64, "repne scasb\n hlt");
FAKE_ASM(rep_lodsd, 64, "rep lodsl\n hlt");

START_TEST(movs_copies_across_pages)
{
    static const unsigned counts[] = {1, 100, 4096, 9001};

    for (unsigned i = 0; i < 4; i++) {
        unsigned n = counts[i];

        fake_long64(f);
        memset(f->mem + 0x80000, 0, 0x8000);
        fill(FAKE_DATA + 0x123, n);
        gpr[VMM_RSI] = FAKE_DATA + 0x123;
        gpr[VMM_RDI] = 0x80ff0;
        gpr[VMM_RCX] = n;
        ck_assert_int_eq(FAKE_EXEC(f, rep_movsb), FAKE_HLT);
        ck_assert(!memcmp(f->mem + FAKE_DATA + 0x123, f->mem + 0x80ff0, n));
        ck_assert_uint_eq(f->mem[0x80ff0 + n], 0);
        ck_assert_uint_eq(gpr[VMM_RSI], FAKE_DATA + 0x123 + n);
        ck_assert_uint_eq(gpr[VMM_RDI], 0x80ff0 + n);
        ck_assert_uint_eq(gpr[VMM_RCX], 0);
    }
}
END_TEST

/* Pages that follow each other here do not there, or in the other way round. */
START_TEST(pages_in_another_order)
{
    static const unsigned order[] = {2, 0, 1, 3};
    static const uint64_t from = FAKE_DATA, to = 0x80000;

    for (unsigned i = 0; i < 4; i++) {
        fake_put(f, FAKE_PT + (from / 4096 + i) * 8, 8, (from + order[i] * 4096) | 7);
        fake_put(f, FAKE_PT + (to / 4096 + i) * 8, 8, (to + (3 - order[i]) * 4096) | 7);
    }
    fill(from, 4 * 4096);
    for (unsigned round = 0; round < 3; round++) { /* TLB empty, and filled */
        memset(f->mem + to, 0, 4 * 4096);
        gpr[VMM_RSI] = from;
        gpr[VMM_RDI] = to;
        gpr[VMM_RCX] = 4 * 4096 / 8;
        ck_assert_int_eq(FAKE_EXEC(f, rep_movsq), FAKE_HLT);
        for (unsigned i = 0; i < 4; i++)
            ck_assert(!memcmp(f->mem + from + order[i] * 4096, f->mem + to + (3 - order[i]) * 4096,
                              4096));
        gpr[VMM_RAX] = 0x5a + round;
        gpr[VMM_RDI] = to + 1;
        gpr[VMM_RCX] = 3 * 4096;
        ck_assert_int_eq(FAKE_EXEC(f, rep_stosb), FAKE_HLT);
        for (unsigned i = 0; i < 4 * 4096; i++) {
            bool kept = i < 1 || i > 3 * 4096;
            uint64_t at = to + (3 - order[i / 4096]) * 4096 + i % 4096;

            if (!kept)
                ck_assert_uint_eq(f->mem[at], 0x5a + round);
            else
                ck_assert_uint_eq(f->mem[at], f->mem[from + order[i / 4096] * 4096 + i % 4096]);
        }
    }
}
END_TEST

START_TEST(movs_elements_cross_pages)
{
    fill(FAKE_DATA + 3, 8 * 1500);
    gpr[VMM_RSI] = FAKE_DATA + 3;
    gpr[VMM_RDI] = 0x80005;
    gpr[VMM_RCX] = 1500;
    ck_assert_int_eq(FAKE_EXEC(f, rep_movsq), FAKE_HLT);
    ck_assert(!memcmp(f->mem + FAKE_DATA + 3, f->mem + 0x80005, 8 * 1500));
    ck_assert_uint_eq(gpr[VMM_RDI], 0x80005 + 8 * 1500);
}
END_TEST

/* An element that was written is read again: the pattern spreads. */
START_TEST(movs_overlap_repeats_a_pattern)
{
    for (unsigned distance = 1; distance < 20; distance++) {
        fake_long64(f);
        memset(f->mem + FAKE_DATA, 0, 0x4000);
        fill(FAKE_DATA, distance);
        gpr[VMM_RSI] = FAKE_DATA;
        gpr[VMM_RDI] = FAKE_DATA + distance;
        gpr[VMM_RCX] = 8000;
        ck_assert_int_eq(FAKE_EXEC(f, rep_movsb), FAKE_HLT);
        for (unsigned i = 0; i < 8000; i++)
            ck_assert_uint_eq(f->mem[FAKE_DATA + distance + i], f->mem[FAKE_DATA + i % distance]);
    }
}
END_TEST

START_TEST(movs_downwards)
{
    fill(FAKE_DATA, 6000);
    gpr[VMM_RSI] = FAKE_DATA + 5999;
    gpr[VMM_RDI] = FAKE_DATA + 6010;
    gpr[VMM_RCX] = 6000;
    ck_assert_int_eq(FAKE_EXEC(f, std_rep_movsb), FAKE_HLT);
    for (unsigned i = 0; i < 6000; i++)
        ck_assert_uint_eq(f->mem[FAKE_DATA + 11 + i], (uint8_t)(i * 7 + i / 256));
    ck_assert_uint_eq(gpr[VMM_RSI], FAKE_DATA - 1);
    ck_assert_uint_eq(gpr[VMM_RDI], FAKE_DATA + 10);
}
END_TEST

START_TEST(stos_of_all_sizes)
{
    gpr[VMM_RAX] = 0x1122334455667788;
    gpr[VMM_RDI] = FAKE_DATA + 1;
    gpr[VMM_RCX] = 5000;
    ck_assert_int_eq(FAKE_EXEC(f, rep_stosb), FAKE_HLT);
    for (unsigned i = 0; i < 5000; i++)
        ck_assert_uint_eq(f->mem[FAKE_DATA + 1 + i], 0x88);
    ck_assert_uint_eq(f->mem[FAKE_DATA], 0);
    ck_assert_uint_eq(f->mem[FAKE_DATA + 5001], 0);

    f->cpu->rip = FAKE_TEXT;
    gpr[VMM_RDI] = FAKE_DATA + 1;
    gpr[VMM_RCX] = 3000;
    ck_assert_int_eq(FAKE_EXEC(f, rep_stosw), FAKE_HLT);
    f->cpu->rip = FAKE_TEXT;
    gpr[VMM_RCX] = 3000;
    ck_assert_int_eq(FAKE_EXEC(f, rep_stosd), FAKE_HLT);
    for (unsigned i = 0; i < 3000; i++) {
        ck_assert_uint_eq(fake_get(f, FAKE_DATA + 1 + i * 2, 2), 0x7788);
        ck_assert_uint_eq(fake_get(f, FAKE_DATA + 6001 + i * 4, 4), 0x55667788);
    }
    ck_assert_uint_eq(gpr[VMM_RDI], FAKE_DATA + 18001);
}
END_TEST

START_TEST(a_fault_leaves_what_is_done)
{
    fill(FAKE_DATA, 0x1000);
    unmap(0x81000);
    gpr[VMM_RSI] = FAKE_DATA;
    gpr[VMM_RDI] = 0x80f00;
    gpr[VMM_RCX] = 0x200;
    ck_assert_int_eq(FAKE_EXEC(f, rep_movsb), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x81000);
    ck_assert_uint_eq(gpr[VMM_RSI], FAKE_DATA + 0x100);
    ck_assert_uint_eq(gpr[VMM_RDI], 0x81000);
    ck_assert_uint_eq(gpr[VMM_RCX], 0x100);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    ck_assert(!memcmp(f->mem + FAKE_DATA, f->mem + 0x80f00, 0x100));
}
END_TEST

/* SDM Vol. 2B, REP: the flags are those from before the instruction. */
START_TEST(a_fault_of_cmps_restores_flags)
{
    memset(f->mem + FAKE_DATA, 5, 0x100);
    memset(f->mem + 0x80f80, 5, 0x100);
    unmap(0x81000);
    gpr[VMM_RSI] = FAKE_DATA;
    gpr[VMM_RDI] = 0x80f80;
    gpr[VMM_RCX] = 0x100;
    x86_set_rflags(f->cpu, 2 | X86_CF | X86_OF);
    ck_assert_int_eq(FAKE_EXEC(f, repe_cmpsb), X86_PF_);
    ck_assert_uint_eq(gpr[VMM_RCX], 0x80);
    ck_assert_uint_eq(fake_stack(f, 3, 8) & X86_ARITH, X86_CF | X86_OF);
}
END_TEST

START_TEST(cmps_and_scas_end_by_zf)
{
    memset(f->mem + FAKE_DATA, 5, 100);
    memset(f->mem + 0x80000, 5, 100);
    f->mem[0x80000 + 40] = 6;
    gpr[VMM_RSI] = FAKE_DATA;
    gpr[VMM_RDI] = 0x80000;
    gpr[VMM_RCX] = 100;
    ck_assert_int_eq(FAKE_EXEC(f, repe_cmpsb), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RCX], 59);
    ck_assert_uint_eq(x86_get_rflags(f->cpu) & (X86_ZF | X86_CF), X86_CF);

    f->cpu->rip = FAKE_TEXT;
    gpr[VMM_RAX] = 6;
    gpr[VMM_RDI] = 0x80000;
    gpr[VMM_RCX] = 100;
    ck_assert_int_eq(FAKE_EXEC(f, repne_scasb), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RDI], 0x80000 + 41);
    ck_assert_uint_eq(x86_get_rflags(f->cpu) & (X86_ZF | X86_CF), X86_ZF);
}
END_TEST

START_TEST(io_has_a_serial_per_iteration)
{
    f->input = 0xabcdef01;
    gpr[VMM_RSI] = FAKE_MMIO;
    gpr[VMM_RCX] = 5;
    ck_assert_int_eq(FAKE_EXEC(f, rep_lodsd), FAKE_HLT);
    ck_assert_uint_eq(f->nlog, 5);
    ck_assert_uint_eq(gpr[VMM_RAX], 0xabcdef01);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(f->log[i].addr, FAKE_MMIO + i * 4);
        ck_assert_uint_eq(f->log[i].size, 4);
        if (i)
            ck_assert_uint_ne(f->log[i].serial, f->log[i - 1].serial);
    }
}
END_TEST

START_TEST(an_abort_goes_on_where_it_was)
{
    uint64_t serial;

    gpr[VMM_RDI] = FAKE_MMIO;
    gpr[VMM_RCX] = 4;
    f->abort_in = 3;
    ck_assert_int_eq(FAKE_EXEC(f, rep_stosd), FAKE_ABORTED);
    ck_assert_uint_eq(gpr[VMM_RCX], 2);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    serial = f->log[1].serial;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->nlog, 4);
    ck_assert_uint_gt(f->log[2].serial, serial);
    ck_assert_uint_eq(f->log[3].addr, FAKE_MMIO + 12);
}
END_TEST

static void poll_and_stop(void *ctx)
{
    struct x86_cpu *cpu = ((struct fake *)ctx)->cpu;

    if (cpu->blk) /* within an instruction */
        x86_wake(cpu);
}

/* A long instruction looks at the timers, and stops when somebody asks for it. */
START_TEST(attention_interrupts)
{
    unsigned stops = 0;

    fake_load(f, FAKE_TEXT, rep_stosb_begin, rep_stosb_end);
    f->env.poll = poll_and_stop;
    gpr[VMM_RDI] = 0x100000;
    gpr[VMM_RCX] = 8u << 20;
    gpr[VMM_RAX] = 0x33;
    while (f->cpu->rip == FAKE_TEXT) {
        ck_assert_int_eq(fake_run(f, 1), X86_STOP_ATTENTION);
        ck_assert_uint_lt(++stops, 1000);
    }
    ck_assert_uint_gt(stops, 4);
    ck_assert_uint_eq(gpr[VMM_RCX], 0);
    ck_assert_uint_eq(f->mem[0x100000 + (8u << 20) - 1], 0x33);
    ck_assert_uint_eq(f->mem[0x100000 + (8u << 20)], 0);
}
END_TEST

/* Single step traps after each iteration. */
START_TEST(single_step_sees_each_iteration)
{
    gpr[VMM_RSI] = FAKE_DATA;
    gpr[VMM_RDI] = FAKE_DATA + 0x100;
    gpr[VMM_RCX] = 3;
    x86_set_rflags(f->cpu, 2 | X86_TF);
    x86_mode_changed(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, rep_movsb), X86_DB);
    ck_assert_uint_eq(gpr[VMM_RCX], 2);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->dr.dr6 & 0x4000, 0x4000);
}
END_TEST

FAKE_ASM(a32_movsb, 64, "addr32 rep movsb\n hlt");
FAKE_ASM(a32_lodsb, 64, "addr32 rep lodsb\n hlt");

START_TEST(short_addresses_in_64_bit_mode)
{
    f->mem[FAKE_DATA] = 0x5a;
    gpr[VMM_RSI] = 0x7700000000 + FAKE_DATA;
    gpr[VMM_RDI] = 0x6600000000 + FAKE_DATA + 1;
    gpr[VMM_RCX] = 0x5500000002;
    ck_assert_int_eq(FAKE_EXEC(f, a32_movsb), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSI], FAKE_DATA + 2);
    ck_assert_uint_eq(gpr[VMM_RDI], FAKE_DATA + 3);
    ck_assert_uint_eq(gpr[VMM_RCX], 0);
    ck_assert_uint_eq(f->mem[FAKE_DATA + 2], 0x5a);

    f->cpu->rip = FAKE_TEXT;
    gpr[VMM_RSI] = 0x7700000000;
    gpr[VMM_RCX] = 0x5500000000;
    ck_assert_int_eq(FAKE_EXEC(f, a32_lodsb), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RSI], 0x7700000000);
    ck_assert_uint_eq(gpr[VMM_RCX], 0);
}
END_TEST

FAKE_ASM(real_movsw, 16, "rep movsw\n hlt");
FAKE_ASM(real_movsb_cs, 16, "rep movsb %cs:(%si), %es:(%di)\n hlt");

START_TEST(addresses_of_16_bits_wrap)
{
    fake_real(f);
    fake_seg(f, VMM_DS, 0x3000, 0x30000, 0xffff, FAKE_AR_DATA);
    fake_seg(f, VMM_ES, 0x5000, 0x50000, 0xffff, FAKE_AR_DATA);
    fill(0x30000, 0x10000);
    gpr[VMM_RSI] = 0xaaaafffc;
    gpr[VMM_RDI] = 0xbbbb0010;
    gpr[VMM_RCX] = 0xcccc0004;
    ck_assert_int_eq(FAKE_EXEC(f, real_movsw), FAKE_HLT);
    ck_assert(!memcmp(f->mem + 0x50010, f->mem + 0x3fffc, 4));
    ck_assert(!memcmp(f->mem + 0x50014, f->mem + 0x30000, 4));
    ck_assert_uint_eq(gpr[VMM_RSI], 0xaaaa0004);
    ck_assert_uint_eq(gpr[VMM_RDI], 0xbbbb0018);
    ck_assert_uint_eq(gpr[VMM_RCX], 0xcccc0000);
}
END_TEST

START_TEST(segment_overrides_and_limits)
{
    fake_real(f);
    fake_seg(f, VMM_ES, 0x5000, 0x50000, 0xffff, FAKE_AR_DATA);
    gpr[VMM_RSI] = 0;
    gpr[VMM_RDI] = 0x100;
    gpr[VMM_RCX] = 3;
    ck_assert_int_eq(FAKE_EXEC(f, real_movsb_cs), FAKE_HLT);
    ck_assert(!memcmp(f->mem + 0x50100, real_movsb_cs_begin, 3));

    /* A word at FFFFH is beyond the limit. */
    fake_real(f);
    gpr[VMM_RSI] = 0xfffd;
    gpr[VMM_RDI] = 0x9000;
    gpr[VMM_RCX] = 4;
    ck_assert_int_eq(FAKE_EXEC(f, real_movsw), X86_GP);
    ck_assert_uint_eq(gpr[VMM_RSI], 0xffff);
    ck_assert_uint_eq(gpr[VMM_RCX], 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops_string");
    TCase *tc = tcase_create("string");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, movs_copies_across_pages);
    tcase_add_test(tc, pages_in_another_order);
    tcase_add_test(tc, movs_elements_cross_pages);
    tcase_add_test(tc, movs_overlap_repeats_a_pattern);
    tcase_add_test(tc, movs_downwards);
    tcase_add_test(tc, stos_of_all_sizes);
    tcase_add_test(tc, a_fault_leaves_what_is_done);
    tcase_add_test(tc, a_fault_of_cmps_restores_flags);
    tcase_add_test(tc, cmps_and_scas_end_by_zf);
    tcase_add_test(tc, io_has_a_serial_per_iteration);
    tcase_add_test(tc, an_abort_goes_on_where_it_was);
    tcase_add_test(tc, attention_interrupts);
    tcase_add_test(tc, single_step_sees_each_iteration);
    tcase_add_test(tc, short_addresses_in_64_bit_mode);
    tcase_add_test(tc, addresses_of_16_bits_wrap);
    tcase_add_test(tc, segment_overrides_and_limits);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
