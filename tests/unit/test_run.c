/* SPDX-License-Identifier: BSD-2-Clause */
/* test_run.c: the run loop of the software CPU: budgets, steps, events, shadows. */
#include <check.h>
#include <vmm/vcpu.h>

#include "x86_fake.h"

static struct fake *f;

static void setup(void)
{
    f = fake_new();
}

static void teardown(void)
{
    fake_free(f);
}

/* ---- counting ---- */

FAKE_ASM(sum, 64, "add %rbx, %rax\n hlt\n");

START_TEST(runs_to_hlt)
{
    fake_long64(f);
    f->cpu->gpr[VMM_RAX] = 1;
    f->cpu->gpr[VMM_RBX] = 2;
    ck_assert_int_eq(FAKE_EXEC(f, sum), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 3);
    ck_assert_uint_eq(f->done, 2);
}
END_TEST

FAKE_ASM(loop, 64, "1: inc %rax\n inc %rbx\n inc %rcx\n nop\n jmp 1b\n");

/* Whatever the budget, exactly so many instructions are executed. */
START_TEST(budget_is_exact)
{
    uint64_t total = 0;

    fake_long64(f);
    FAKE_LOAD(f, loop);
    for (uint64_t n = 0; n < 300; n++) {
        ck_assert_int_eq(fake_run(f, n), X86_STOP_ATTENTION);
        ck_assert_uint_eq(f->done, n);
        total += n;
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], total / 5 + (total % 5 > 0));
        ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], total / 5 + (total % 5 > 2));
    }
    ck_assert_int_eq(fake_run(f, 1000003), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->done, 1000003);
    ck_assert_uint_ge(f->polls, 1000003 / X86_POLL);
}
END_TEST

START_TEST(steps_one_instruction)
{
    fake_long64(f);
    FAKE_LOAD(f, loop);
    for (unsigned i = 1; i <= 23; i++) {
        ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
        ck_assert_uint_eq(f->done, 1);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], i / 5 + (i % 5 > 0));
    }
}
END_TEST

/* A step or a budget ends behind a branch whose target is at hand. */
START_TEST(step_does_not_chain)
{
    fake_long64(f);
    FAKE_LOAD(f, loop);
    fake_run(f, 10000);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2001);
}
END_TEST

START_TEST(wake_stops)
{
    fake_long64(f);
    FAKE_LOAD(f, loop);
    x86_wake(f->cpu);
    ck_assert_int_eq(fake_run(f, UINT64_MAX), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->done, 0);
}
END_TEST

/* Handlers call each other as tail calls: the stack does not grow with what has been executed. */
FAKE_ASM(stack_use, 64,
         "mov (%rsi), %rax\n"
         "mov $1000, %ecx\n"
         "1: mov %rbx, (%rdi)\n"
         "add (%rdi), %rbx\n"
         "push %rbx\n"
         "addl $1, (%rdi)\n"
         "pop %rbx\n"
         "dec %ecx\n"
         "jnz 1b\n"
         "mov (%rsi), %rax\n"
         "hlt\n");

static uintptr_t frames[2];
static unsigned nframes;

static int note_frame(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    (void)ctx, (void)gpa, (void)size, (void)write, (void)value;
    frames[nframes++ & 1] = (uintptr_t)__builtin_frame_address(0);
    return X86_ENV_OK;
}

START_TEST(handlers_do_not_pile_up)
{
    fake_long64(f);
    f->env.mmu.mmio = note_frame;
    f->cpu->gpr[VMM_RSI] = FAKE_MMIO;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    nframes = 0;
    ck_assert_int_eq(FAKE_EXEC(f, stack_use), FAKE_HLT);
    ck_assert_uint_eq(nframes, 2);
    ck_assert_uint_le(frames[0] - frames[1] + 1024, 2048);
}
END_TEST

/* ---- interrupts ---- */

FAKE_ASM(sti_nop, 64, "sti\n inc %rax\n inc %rax\n hlt\n");

START_TEST(sti_shadow_covers_one_instruction)
{
    fake_long64(f);
    f->irq = 0x40;
    ck_assert_int_eq(FAKE_EXEC(f, sti_nop), 0x40);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 4);
}
END_TEST

FAKE_ASM(sti_cli, 64, "1: sti\n inc %rax\n inc %rax\n cli\n dec %ecx\n jnz 1b\n hlt\n");

/* Execution goes on behind STI when nobody waits; interrupted there, it is in the shadow still. */
START_TEST(sti_shadow_when_nobody_waited)
{
    for (unsigned n = 120; n < 132; n++) {
        bool behind, enabled;
        uint64_t rip;

        fake_long64(f);
        FAKE_LOAD(f, sti_cli);
        f->irq = -1;
        f->cpu->rflags &= ~X86_IF;
        f->cpu->gpr[VMM_RCX] = 1000;
        ck_assert_int_eq(fake_run(f, n), X86_STOP_ATTENTION);
        rip = f->cpu->rip;
        behind = rip == FAKE_TEXT + 1;
        enabled = rip > FAKE_TEXT && rip <= FAKE_TEXT + 7;
        ck_assert_uint_eq(x86_shadow(f->cpu), behind ? VMM_SHADOW_STI : 0);
        ck_assert_uint_eq(!!(f->cpu->rflags & X86_IF), enabled);
        f->irq = 0x40;
        f->irq_once = true;
        ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
        ck_assert_uint_eq(f->cpu->rip == FAKE_HANDLERS + 0x40 * 16, enabled && !behind);
        ck_assert_uint_eq(x86_shadow(f->cpu), rip == FAKE_TEXT ? VMM_SHADOW_STI : 0);
        if (behind) {
            ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 4);
            ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
            ck_assert_uint_eq(f->cpu->rip, FAKE_HANDLERS + 0x40 * 16);
        }
    }
}
END_TEST

FAKE_ASM(mov_ss, 64, "sti\n nop\n mov %ss, %ebx\n mov %ebx, %ss\n inc %rax\n inc %rax\n hlt\n");

START_TEST(mov_ss_shadow_covers_one_instruction)
{
    fake_long64(f);
    FAKE_LOAD(f, mov_ss);
    ck_assert_int_eq(fake_run(f, 4), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->shadow & VMM_SHADOW_MOV_SS, VMM_SHADOW_MOV_SS);
    f->irq = 0x40;
    f->cpu->nmi_pending = true;
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    ck_assert_uint_eq(f->cpu->shadow, 0);
    /* NMI comes before INTR. */
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->rip, FAKE_HANDLERS + 2 * 16);
    ck_assert(f->cpu->nmi_blocked);
}
END_TEST

FAKE_ASM(sti_hlt, 64, "sti\n hlt\n inc %rax\n cli\n hlt\n");

START_TEST(interrupt_ends_hlt)
{
    fake_long64(f);
    FAKE_LOAD(f, sti_hlt);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->cpu->activity, VMM_HALTED);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 2);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->done, 0);
    f->irq = 0x33;
    ck_assert_int_eq(fake_go(f), 0x33);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 2);
}
END_TEST

FAKE_ASM(cli_hlt, 64, "cli\n hlt\n inc %rax\n hlt\n");

START_TEST(only_nmi_ends_hlt_without_if)
{
    fake_long64(f);
    FAKE_LOAD(f, cli_hlt);
    f->irq = 0x33;
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    f->cpu->nmi_pending = true;
    ck_assert_int_eq(fake_go(f), 2);
    ck_assert(!f->cpu->nmi_pending);
}
END_TEST

START_TEST(wait_for_sipi_ignores_events)
{
    fake_long64(f);
    FAKE_LOAD(f, loop);
    f->cpu->activity = VMM_WAIT_SIPI;
    f->cpu->nmi_pending = true;
    f->irq = 0x33;
    ck_assert_int_eq(fake_run(f, 100), X86_STOP_HLT);
    ck_assert_uint_eq(f->done, 0);
}
END_TEST

/* ---- exceptions ---- */

FAKE_ASM(ud2, 64, "inc %rax\n ud2\n");

START_TEST(fault_reports_its_instruction)
{
    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, ud2), X86_UD);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    ck_assert_uint_eq(f->done, 2); /* INC and the handler's HLT */
}
END_TEST

FAKE_ASM(int_n, 64, "int $0x50\n");

START_TEST(software_interrupt_counts)
{
    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, int_n), 0x50);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 2);
    ck_assert_uint_eq(f->done, 2);
}
END_TEST

START_TEST(host_sees_exceptions_first)
{
    fake_long64(f);
    f->cpu->host_exceptions = 1u << X86_UD;
    ck_assert_int_eq(FAKE_EXEC(f, ud2), FAKE_EXIT);
    ck_assert_uint_eq(f->cpu->exit_reason, VMM_EXIT_EXCEPTION);
    ck_assert_uint_eq(f->cpu->exit_index, X86_UD);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    ck_assert_int_eq(fake_go(f), X86_UD);
}
END_TEST

FAKE_ASM(trap_flag, 64,
         "pushf\n orl $0x100, (%rsp)\n popf\n inc %rax\n inc %rax\n inc %rax\n hlt\n");

START_TEST(single_step_traps_after_the_next_instruction)
{
    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, trap_flag), X86_DB);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    ck_assert_uint_eq(f->cpu->dr.dr6 & 0x4000, 0x4000);
    ck_assert_uint_eq(fake_stack(f, 2, 8) & X86_TF, X86_TF);
    ck_assert_uint_eq(f->cpu->rflags & X86_TF, 0);
}
END_TEST

START_TEST(triple_fault_shuts_down)
{
    fake_long64(f);
    f->cpu->idt.limit = 0;
    ck_assert_int_eq(FAKE_EXEC(f, ud2), FAKE_SHUTDOWN);
    ck_assert_uint_eq(f->cpu->activity, VMM_SHUTDOWN);
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_SHUTDOWN);
}
END_TEST

/* Each handler faults at its first instruction, on a stack that begins anew each time: no
 * instruction is ever retired, but timers are polled and a budget ends. */
START_TEST(faulting_handlers_use_up_a_budget)
{
    fake_long64(f);
    fake_put(f, FAKE_TSS + 0x24, 8, FAKE_STACK0);
    f->mem[FAKE_IDT + X86_UD * 16 + 4] = 1;
    f->mem[FAKE_HANDLERS + X86_UD * 16] = 0x06;
    FAKE_LOAD(f, ud2);
    ck_assert_int_eq(fake_run(f, 100000), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->done, 100000);
    ck_assert_uint_ge(f->polls, 10);
}
END_TEST

/* ---- fetching ---- */

START_TEST(fetch_from_mmio_exits)
{
    fake_long64(f);
    f->cpu->rip = FAKE_MMIO + 4;
    ck_assert_int_eq(fake_run(f, 10), X86_STOP_EXIT);
    ck_assert_uint_eq(f->cpu->exit_reason, VMM_EXIT_MEM_FAULT);
    ck_assert_uint_eq(f->cpu->exit_gpa, FAKE_MMIO + 4);
    ck_assert_uint_eq(f->cpu->exit_gva, FAKE_MMIO + 4);
}
END_TEST

START_TEST(fetch_from_not_executable_memory_exits)
{
    fake_long64(f);
    f->attr[FAKE_TEXT / 4096] = FAKE_NX;
    ck_assert_int_eq(FAKE_EXEC(f, sum), FAKE_EXIT);
    ck_assert_uint_eq(f->cpu->exit_gpa, FAKE_TEXT);
}
END_TEST

START_TEST(fetch_at_non_canonical_address_faults)
{
    fake_long64(f);
    f->cpu->rip = 0x800000000000;
    ck_assert_int_eq(fake_go(f), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0);
    ck_assert_uint_eq(fake_stack(f, 1, 8), 0x800000000000);
}
END_TEST

FAKE_ASM(long_mov, 64, "movabs $0x1122334455667788, %rax\n hlt\n");

/* The second page of an instruction is not present: the fault's address is that page's. */
START_TEST(instruction_across_pages)
{
    fake_long64(f);
    f->cpu->rip = FAKE_TEXT + 4096 - 4;
    fake_put(f, FAKE_PT + (FAKE_TEXT / 4096 + 1) * 8, 8, 0);
    ck_assert_int_eq(FAKE_EXEC(f, long_mov), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, FAKE_TEXT + 4096);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0x10); /* EFER.NXE: instruction fetch */
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT + 4096 - 4);

    fake_long64(f);
    f->cpu->rip = FAKE_TEXT + 4096 - 4;
    ck_assert_int_eq(FAKE_EXEC(f, long_mov), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1122334455667788);

    /* Another page behind it. */
    fake_put(f, FAKE_PT + (FAKE_TEXT / 4096 + 1) * 8, 8, 0x80000 | 7);
    fake_put(f, 0x80000, 7, 0xf4aabbccddeeff);
    x86_flush_tlb(f->cpu);
    f->cpu->rip = FAKE_TEXT + 4096 - 4;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0xaabbccddeeff7788);
}
END_TEST

FAKE_ASM(nops16, 16, "nop\n nop\n nop\n nop\n");

START_TEST(code_beyond_the_limit_faults)
{
    fake_prot16(f);
    FAKE_LOAD(f, nops16);
    f->cpu->seg[VMM_CS].limit = 2;
    x86_mode_changed(f->cpu);
    ck_assert_int_eq(fake_go(f), X86_GP);
    ck_assert_uint_eq(f->done, 4); /* three NOPs and the handler's HLT */
}
END_TEST

/* ---- aborts ---- */

FAKE_ASM(mmio_copy, 64, "nop\n mov (%rsi), %rax\n nop\n hlt\n");

START_TEST(aborted_instruction_restarts)
{
    fake_long64(f);
    f->cpu->gpr[VMM_RSI] = FAKE_MMIO;
    f->input = 0x1234;
    f->abort_in = 1;
    ck_assert_int_eq(FAKE_EXEC(f, mmio_copy), FAKE_ABORTED);
    ck_assert_uint_eq(f->done, 1);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 1);
    /* The restart comes before the interrupt. */
    f->cpu->restart = true;
    f->cpu->rflags |= X86_IF;
    f->irq = 0x44;
    ck_assert_int_eq(fake_go(f), 0x44);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1234);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 4);
    ck_assert_uint_eq(f->nlog, 1);
}
END_TEST

FAKE_ASM(mmio_twice, 64, "mov (%rsi), %rax\n mov (%rsi), %rbx\n hlt\n");

START_TEST(serials_tell_instructions_apart)
{
    uint64_t first;

    fake_long64(f);
    f->cpu->gpr[VMM_RSI] = FAKE_MMIO;
    ck_assert_int_eq(FAKE_EXEC(f, mmio_twice), FAKE_HLT);
    ck_assert_uint_eq(f->nlog, 2);
    ck_assert_uint_ne(f->log[0].serial, f->log[1].serial);
    /* The same one after an abort. */
    f->cpu->rip = FAKE_TEXT;
    fake_run(f, 1);
    first = x86_serial(f->cpu);
    f->abort_in = 1;
    ck_assert_int_eq(fake_run(f, 1), X86_STOP_ABORT);
    ck_assert_uint_eq(x86_serial(f->cpu), first);
    ck_assert_int_eq(fake_run(f, 1), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->log[3].serial, first);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *t = tcase_create("run");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, runs_to_hlt);
    tcase_add_test(t, budget_is_exact);
    tcase_add_test(t, steps_one_instruction);
    tcase_add_test(t, step_does_not_chain);
    tcase_add_test(t, wake_stops);
    tcase_add_test(t, handlers_do_not_pile_up);
    tcase_add_test(t, sti_shadow_covers_one_instruction);
    tcase_add_test(t, sti_shadow_when_nobody_waited);
    tcase_add_test(t, mov_ss_shadow_covers_one_instruction);
    tcase_add_test(t, interrupt_ends_hlt);
    tcase_add_test(t, only_nmi_ends_hlt_without_if);
    tcase_add_test(t, wait_for_sipi_ignores_events);
    tcase_add_test(t, fault_reports_its_instruction);
    tcase_add_test(t, software_interrupt_counts);
    tcase_add_test(t, host_sees_exceptions_first);
    tcase_add_test(t, single_step_traps_after_the_next_instruction);
    tcase_add_test(t, triple_fault_shuts_down);
    tcase_add_test(t, faulting_handlers_use_up_a_budget);
    tcase_add_test(t, fetch_from_mmio_exits);
    tcase_add_test(t, fetch_from_not_executable_memory_exits);
    tcase_add_test(t, fetch_at_non_canonical_address_faults);
    tcase_add_test(t, instruction_across_pages);
    tcase_add_test(t, code_beyond_the_limit_faults);
    tcase_add_test(t, aborted_instruction_restarts);
    tcase_add_test(t, serials_tell_instructions_apart);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
