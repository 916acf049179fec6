/* SPDX-License-Identifier: BSD-2-Clause */
/* test_debug.c: debug registers of the software CPU, and the host program's breakpoints. */
#include <vmm/debug.h>

#include "core/x86/control.h"
#include "x86_expect.h"

FAKE_ASM(set_dr0, 64, "mov %rax, %dr0\n mov %dr0, %rbx\n hlt\n");
FAKE_ASM(set_dr4, 64, "mov %rax, %dr4\n mov %dr4, %rbx\n hlt\n");
FAKE_ASM(set_dr6, 64, "mov %rax, %dr6\n mov %dr6, %rbx\n hlt\n");
FAKE_ASM(set_dr7, 64, "mov %rax, %dr7\n mov %dr7, %rbx\n hlt\n");
FAKE_ASM(get_dr5, 64, "mov %dr5, %rbx\n hlt\n");
FAKE_ASM(nops, 64, "nop\n nop\n nop\n nop\n hlt\n");
FAKE_ASM(store, 64, "nop\n mov %al, (%rbx)\n nop\n hlt\n");
FAKE_ASM(load, 64, "nop\n mov (%rbx), %rax\n nop\n hlt\n");
FAKE_ASM(rep_stos, 64, "rep stosb\n hlt\n");
FAKE_ASM(ss_int1, 64, "mov (%rbx), %ss\n .byte 0xf1\n hlt\n");
FAKE_ASM(ss_int3, 64, "mov (%rbx), %ss\n int3\n hlt\n");
FAKE_ASM(ss_ud, 64, "mov (%rbx), %ss\n ud2\n hlt\n");

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    return f;
}

/* Breakpoint `i` of the guest: type as in DR7.R/W, LEN field. */
static void arm(struct fake *f, unsigned i, uint64_t addr, unsigned type, unsigned len)
{
    f->cpu->dr.addr[i] = addr;
    f->cpu->dr.dr7 |= 0x400 | 1u << (2 * i) | type << (16 + 4 * i) | (uint64_t)len << (18 + 4 * i);
    x86_breakpoints_changed(f->cpu);
}

static void host(struct fake *f, unsigned type, uint64_t addr, unsigned len)
{
    unsigned i = f->cpu->nhost_bp++;

    f->cpu->host_bp[i] = addr;
    f->cpu->host_bp_type[i] = (uint8_t)type;
    f->cpu->host_bp_len[i] = (uint8_t)len;
    x86_breakpoints_changed(f->cpu);
}

/* ---- MOV ---- */

START_TEST(fixed_bits)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 0x8000123456789abc; /* any address */
    EXPECT_OK(f, set_dr0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x8000123456789abc);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0;
    EXPECT_OK(f, set_dr6);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xffff0ff0);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0xffffffff;
    EXPECT_OK(f, set_dr6);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xffffefff);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0xffffdf00; /* without GD and breakpoints */
    EXPECT_OK(f, set_dr7);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xffff0700);
    fake_free(f);
}
END_TEST

START_TEST(mov_faults)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 1ull << 32;
    EXPECT_FAULT(f, set_dr6, X86_GP);
    EXPECT_FAULT(f, set_dr7, X86_GP);
    fake_user(f);
    EXPECT_FAULT(f, set_dr0, X86_GP);
    EXPECT_FAULT(f, get_dr5, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(dr4_and_dr5_by_de)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 0xf;
    EXPECT_OK(f, set_dr4);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0fff);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, get_dr5);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x400);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->cr4 |= X86_CR4_DE;
    EXPECT_FAULT(f, set_dr4, X86_UD);
    EXPECT_FAULT(f, get_dr5, X86_UD);
    fake_free(f);
}
END_TEST

START_TEST(general_detect)
{
    struct fake *f = long64();

    f->cpu->dr.dr7 |= X86_DR7_GD;
    EXPECT_FAULT(f, set_dr0, X86_DB);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff2ff0);
    ck_assert_uint_eq(f->cpu->dr.dr7, 0x400); /* the handler may use them */
    ck_assert_uint_eq(f->cpu->dr.addr[0], 0);
    fake_free(f);
}
END_TEST

/* ---- the guest's breakpoints ---- */

START_TEST(instruction_breakpoint_is_a_fault)
{
    struct fake *f = long64();

    arm(f, 2, FAKE_TEXT + 2, 0, 0);
    ck_assert_int_eq(EXPECT_RUN(f, nops), X86_DB);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 2);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff4);
    /* RF lets the instruction pass. */
    f->cpu->event.valid = false;
    f->cpu->rflags |= X86_RF;
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert(!(f->cpu->rflags & X86_RF));
    fake_free(f);
}
END_TEST

START_TEST(arming_by_mov_works_for_the_next_instruction)
{
    struct fake *f = long64();

    f->cpu->dr.addr[0] = FAKE_TEXT + 3; /* behind the MOV */
    f->cpu->gpr[VMM_RAX] = 1;
    ck_assert_int_eq(EXPECT_RUN(f, set_dr7), X86_DB);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    fake_free(f);
}
END_TEST

START_TEST(disabled_breakpoints_do_nothing)
{
    struct fake *f = long64();

    arm(f, 0, FAKE_TEXT + 1, 0, 0);
    f->cpu->dr.dr7 = 0x400;
    x86_breakpoints_changed(f->cpu);
    EXPECT_OK(f, nops);
    ck_assert(!(f->cpu->mode & X86_MODE_SINGLE));
    fake_free(f);
}
END_TEST

START_TEST(data_breakpoints_are_traps)
{
    static const struct {
        unsigned type, len;
        uint64_t addr;
        bool on_load, on_store;
    } rows[] = {
        {1, 0, FAKE_DATA, false, true},      {3, 0, FAKE_DATA, true, true},
        {1, 3, FAKE_DATA, false, true},      {3, 0, FAKE_DATA + 7, true, false},
        {3, 2, FAKE_DATA - 8, false, false}, {3, 1, FAKE_DATA + 1, true, true}, /* aligned down */
        {3, 0, FAKE_DATA + 8, false, false},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f = long64();
        int r;

        arm(f, 3, rows[i].addr, rows[i].type, rows[i].len);
        f->cpu->gpr[VMM_RBX] = FAKE_DATA;
        fake_put(f, FAKE_DATA, 8, 0x55);
        r = EXPECT_RUN(f, load);
        ck_assert_msg(r == (rows[i].on_load ? X86_DB : FAKE_HLT), "row %u", i);
        if (rows[i].on_load) {
            ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 4); /* behind it */
            ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x55);
            ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff8);
        }
        f->cpu->gpr[VMM_RAX] = 0x66;
        f->cpu->rip = FAKE_TEXT;
        r = EXPECT_RUN(f, store);
        ck_assert_msg(r == (rows[i].on_store ? X86_DB : FAKE_HLT), "row %u", i);
        ck_assert_uint_eq(fake_get(f, FAKE_DATA, 1), 0x66);
        fake_free(f);
    }
}
END_TEST

/* A trap that MOV SS put off comes in INT3's handler, but not in those of INT1 and of faults (SDM
 * Vol. 3C 27.7.3): Linux would lose the frame that INT1 left on the same stack of the IST. */
START_TEST(trap_behind_mov_ss)
{
    for (int i = 0; i < 3; i++) {
        struct fake *f = long64();
        int first;

        fake_put(f, FAKE_DATA, 2, FAKE_DS);
        f->cpu->gpr[VMM_RBX] = FAKE_DATA;
        arm(f, 0, FAKE_DATA, 3, 1);
        first = i == 0   ? FAKE_EXEC(f, ss_int3)
                : i == 1 ? FAKE_EXEC(f, ss_int1)
                         : FAKE_EXEC(f, ss_ud);
        ck_assert_int_eq(first, i == 2 ? X86_UD : X86_DB);
        ck_assert_uint_eq(fake_stack(f, 0, 8), i == 0   ? FAKE_HANDLERS + 16 * X86_BP
                                               : i == 1 ? FAKE_TEXT + 3
                                                        : FAKE_TEXT + 2);
        ck_assert_uint_eq(f->cpu->count.exceptions, i == 0 ? 2 : 1);
        ck_assert_uint_eq(f->cpu->dr.dr6 & 15, i == 0);
        ck_assert_uint_eq(f->cpu->pending_db, 0);
        fake_free(f);
    }
}
END_TEST

START_TEST(db_replaces_b_bits_and_keeps_the_others)
{
    struct fake *f = long64();

    f->cpu->dr.dr6 = 0xffff8ff3;
    x86_raise_db(f->cpu, 4 | X86_DR6_BS);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffffcff4);
    ck_assert(f->cpu->event.valid);
    ck_assert_uint_eq(f->cpu->event.vector, X86_DB);
    ck_assert(!f->cpu->event.has_error);
    fake_free(f);
}
END_TEST

START_TEST(single_step_and_data_in_one_trap)
{
    struct fake *f = long64();

    arm(f, 0, FAKE_DATA, 1, 0);
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    f->cpu->rip = FAKE_TEXT;
    FAKE_LOAD(f, store);
    f->cpu->rip = FAKE_TEXT + 1;
    f->cpu->rflags |= X86_TF;
    x86_cs_changed(f->cpu);
    f->cpu->host_exceptions = ~0u;
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_EXIT);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff4ff1);
    fake_free(f);
}
END_TEST

/* ---- the host's ---- */

START_TEST(host_breakpoint_exits_and_is_passed_once)
{
    struct fake *f = long64();

    host(f, VMM_BREAK_EXEC, FAKE_TEXT + 1, 1);
    host(f, VMM_BREAK_EXEC, FAKE_TEXT + 3, 1);
    FAKE_LOAD(f, nops);
    for (unsigned round = 0; round < 2; round++) {
        f->cpu->rip = FAKE_TEXT;
        for (unsigned i = 0; i < 2; i++) {
            ck_assert_int_eq(fake_run(f, 100), X86_STOP_EXIT);
            ck_assert_uint_eq(f->cpu->exit_reason, VMM_EXIT_BREAKPOINT);
            ck_assert_uint_eq(f->cpu->exit_index, i);
            ck_assert_uint_eq(f->cpu->exit_gva, FAKE_TEXT + 1 + 2 * i);
            ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 1 + 2 * i);
        }
        ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
        f->cpu->activity = VMM_ACTIVE;
    }
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff0); /* the guest sees nothing */
    fake_free(f);
}
END_TEST

START_TEST(host_breakpoint_counts_a_repeated_instruction_once)
{
    struct fake *f = long64();

    host(f, VMM_BREAK_EXEC, FAKE_TEXT, 1);
    FAKE_LOAD(f, rep_stos);
    f->cpu->gpr[VMM_RDI] = FAKE_MMIO;
    f->cpu->gpr[VMM_RCX] = 20;
    fake_put(f, FAKE_PD + 504 * 8, 8, FAKE_MMIO | 0x87);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_EXIT);
    f->abort_in = 7; /* in the middle */
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_ABORT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 14);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->nlog, 20);
    fake_free(f);
}
END_TEST

START_TEST(host_watchpoint_exits_behind_the_access)
{
    struct fake *f = long64();

    host(f, VMM_BREAK_WRITE, FAKE_DATA, 4);
    f->cpu->gpr[VMM_RBX] = FAKE_DATA + 3;
    EXPECT_OK(f, load);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0x77;
    ck_assert_int_eq(EXPECT_RUN(f, store), FAKE_EXIT);
    ck_assert_uint_eq(f->cpu->exit_reason, VMM_EXIT_WATCH);
    ck_assert_uint_eq(f->cpu->exit_gva, FAKE_DATA + 3);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 3, 1), 0x77);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff0);

    /* Off again: accesses become fast again. */
    f->cpu->nhost_bp = 0;
    x86_breakpoints_changed(f->cpu);
    ck_assert_uint_eq(f->cpu->mmu.nwatch, 0);
    f->cpu->activity = VMM_ACTIVE;
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, store);
    fake_free(f);
}
END_TEST

START_TEST(eight_watchpoints_share_pages)
{
    struct fake *f = long64();

    for (unsigned i = 0; i < 4; i++) {
        arm(f, i, FAKE_DATA + i * 0x1000, 1, 0);
        host(f, VMM_BREAK_ACCESS, FAKE_DATA + i * 0x1000 + 8, 8);
    }
    ck_assert_uint_eq(f->cpu->mmu.nwatch, 4);
    for (unsigned i = 0; i < 4; i++)
        f->cpu->host_bp[i] += 0x10000;
    x86_breakpoints_changed(f->cpu);
    ck_assert_uint_eq(f->cpu->mmu.nwatch, 8);
    f->cpu->gpr[VMM_RBX] = FAKE_DATA + 0x3000;
    ck_assert_int_eq(EXPECT_RUN(f, store), X86_DB);
    ck_assert_uint_eq(f->cpu->dr.dr6, 0xffff0ff8);
    fake_free(f);
}
END_TEST

EXPECT_MAIN("debug", fixed_bits, mov_faults, dr4_and_dr5_by_de, general_detect,
            instruction_breakpoint_is_a_fault, arming_by_mov_works_for_the_next_instruction,
            disabled_breakpoints_do_nothing, data_breakpoints_are_traps, trap_behind_mov_ss,
            db_replaces_b_bits_and_keeps_the_others, single_step_and_data_in_one_trap,
            host_breakpoint_exits_and_is_passed_once,
            host_breakpoint_counts_a_repeated_instruction_once,
            host_watchpoint_exits_behind_the_access, eight_watchpoints_share_pages)
