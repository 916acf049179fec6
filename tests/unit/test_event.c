/* SPDX-License-Identifier: BSD-2-Clause */
/* test_event.c: delivery of interrupts and exceptions in every mode. */
#include "x86_sys_test.h"

FAKE_ASM(int30, 64, "int $0x30\n hlt\n");
FAKE_ASM(int3_, 64, "int3\n");
FAKE_ASM(int1_, 64, ".byte 0xf1\n");
FAKE_ASM(ud2_, 64, "ud2\n");
FAKE_ASM(bad_ds, 64, "mov %eax, %ds\n hlt\n");
FAKE_ASM(load_rax, 64, "mov (%rax), %rbx\n hlt\n");
FAKE_ASM(nops, 64, "nop\n nop\n hlt\n");
FAKE_ASM(mov_ss, 64, "mov %eax, %ss\n nop\n nop\n hlt\n");
FAKE_ASM(read_dr0, 64, "mov %dr0, %rax\n hlt\n");
FAKE_ASM(iretq_, 64, "iretq\n");
FAKE_ASM(int30_32, 32, "int $0x30\n hlt\n");
FAKE_ASM(into_32, 32, "into\n hlt\n");
FAKE_ASM(ud2_32, 32, "ud2\n");
FAKE_ASM(nops_16, 16, "nop\n nop\n hlt\n");
FAKE_ASM(int30_16, 16, "int $0x30\n hlt\n");
FAKE_ASM(int3_16, 16, "int3\n hlt\n");

#define R1_CS      (FAKE_FREE | 1u)
#define R1_SS      ((FAKE_FREE + 8) | 1u)
#define SPARE      (FAKE_FREE + 16)
#define GATE_AT(v) (FAKE_IDT + (v)*8u)

static struct fake *f;

static void setup_long(void)
{
    f = fake_new();
    fake_long64(f);
}

static void setup_32(void)
{
    f = fake_new();
    fake_prot32(f);
    set_flat(f, R1_CS, AR_CODE32(1));
    set_flat(f, R1_SS, AR_DATA(1));
    fake_put(f, FAKE_TSS + 12, 4, FAKE_STACK0 - 0x1000);
    fake_put(f, FAKE_TSS + 16, 2, R1_SS);
}

static void teardown(void)
{
    fake_free(f);
}

/* ---- long mode ---- */

START_TEST(long_frame_is_aligned_and_complete)
{
    setup_long();
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 3;
    x86_set_rflags(f->cpu, 2 | X86_IF | X86_CF | X86_NT | X86_AC);
    ck_assert_int_eq(FAKE_EXEC(f, int30), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 16 - 40);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 2);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_CS64);
    ck_assert_uint_eq(fake_stack(f, 2, 8), 2 | X86_IF | X86_CF | X86_NT | X86_AC);
    ck_assert_uint_eq(fake_stack(f, 3, 8), FAKE_STACK - 3);
    ck_assert_uint_eq(fake_stack(f, 4, 8), FAKE_DS);
    ck_assert_uint_eq(rflags(f), 2 | X86_CF | X86_AC);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, FAKE_DS);
    teardown();
}
END_TEST

START_TEST(long_trap_gate_keeps_interrupts)
{
    setup_long();
    fake_set_gate(f, 0x30, FAKE_CS64, FAKE_HANDLERS + 0x300, 15, 0);
    x86_set_rflags(f->cpu, 2 | X86_IF);
    ck_assert_int_eq(FAKE_EXEC(f, int30), 0x30);
    ck_assert_uint_eq(rflags(f), 2 | X86_IF);
    teardown();
}
END_TEST

START_TEST(long_inner_stack_has_a_null_ss)
{
    setup_long();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30), 0x30);
    ck_assert_uint_eq(f->cpu->cpl, 0);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0);
    ck_assert(f->cpu->seg[VMM_SS].ar & VMM_AR_UNUSABLE);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 40);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_UCS64);
    ck_assert_uint_eq(fake_stack(f, 3, 8), FAKE_STACK);
    ck_assert_uint_eq(fake_stack(f, 4, 8), FAKE_UDS);
    teardown();
}
END_TEST

START_TEST(long_ist_is_used_at_any_privilege)
{
    for (int user = 0; user < 2; user++) {
        setup_long();
        fake_put(f, FAKE_TSS + 36 + 8, 8, FAKE_DATA + 8); /* IST2 */
        fake_put(f, FAKE_IDT + 0x30 * 16 + 4, 1, 2);
        if (user)
            fake_user(f);
        ck_assert_int_eq(FAKE_EXEC(f, int30), 0x30);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA - 40);
        ck_assert_uint_eq(fake_stack(f, 3, 8), FAKE_STACK);
        ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, user ? 0 : FAKE_DS);
        teardown();
    }
}
END_TEST

/* Runs INT 0x30, which must fault. */
static void int30_faults(uint8_t vector, uint32_t error)
{
    uint64_t rsp = f->cpu->gpr[VMM_RSP];

    ck_assert_int_eq(FAKE_EXEC(f, int30), vector);
    ck_assert_uint_eq(fake_stack(f, 0, 8), error);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 4, 8), rsp);
    ck_assert_uint_eq(f->cpu->count.exceptions, 1);
    teardown();
}

START_TEST(long_gate_checks)
{
    uint64_t at = FAKE_IDT + 0x30 * 16;

    setup_long();
    f->cpu->idt.limit = 0x30e;
    int30_faults(X86_GP, 0x30 * 8 + 2);
    setup_long();
    fake_put(f, at + 5, 1, 0x8c); /* a call gate */
    int30_faults(X86_GP, 0x30 * 8 + 2);
    setup_long();
    fake_put(f, at + 5, 1, 0x85); /* no task gates in long mode */
    int30_faults(X86_GP, 0x30 * 8 + 2);
    setup_long();
    fake_put(f, at + 5, 1, 0x0e);
    int30_faults(X86_NP, 0x30 * 8 + 2);
    setup_long();
    fake_put(f, at + 2, 2, 3);
    int30_faults(X86_GP, 0);
    setup_long();
    fake_put(f, at + 2, 2, 0xfff8);
    int30_faults(X86_GP, 0xfff8);
    setup_long();
    fake_put(f, at + 2, 2, 0xc); /* no LDT */
    int30_faults(X86_GP, 0xc);
    setup_long();
    fake_put(f, at + 2, 2, FAKE_DS);
    int30_faults(X86_GP, FAKE_DS);
    setup_long();
    fake_put(f, at + 2, 2, FAKE_CS32);
    int30_faults(X86_GP, FAKE_CS32);
    setup_long();
    fake_put(f, at + 2, 2, FAKE_UCS64);
    int30_faults(X86_GP, FAKE_UCS64 & ~3u);
    setup_long();
    set_flat(f, SPARE, AR_CODE64(0) & ~VMM_AR_P);
    fake_put(f, at + 2, 2, SPARE);
    int30_faults(X86_NP, SPARE);
    setup_long();
    fake_put(f, at + 8, 4, 0x8000); /* not canonical */
    int30_faults(X86_GP, 0);
    setup_long();
    fake_put(f, at + 4, 1, 1);
    fake_put(f, FAKE_TSS + 36, 8, 1ull << 47);
    int30_faults(X86_SS, 0);
    setup_long();
    fake_put(f, at + 4, 1, 7);
    f->cpu->seg[VMM_TR].limit = 28 + 56 + 6;
    int30_faults(X86_TS, FAKE_TR);
}
END_TEST

START_TEST(long_privilege_of_gates_counts_for_software_only)
{
    setup_long();
    for (unsigned v = 0; v < 256; v++)
        fake_set_gate(f, v, FAKE_CS64, FAKE_HANDLERS + v * 16, 14, 0);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0x30 * 8 + 2);
    teardown();

    setup_long();
    for (unsigned v = 0; v < 256; v++)
        fake_set_gate(f, v, FAKE_CS64, FAKE_HANDLERS + v * 16, 14, 0);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int3_), X86_GP);
    teardown();

    setup_long();
    for (unsigned v = 0; v < 256; v++)
        fake_set_gate(f, v, FAKE_CS64, FAKE_HANDLERS + v * 16, 14, 0);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int1_), X86_DB);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 1);
    teardown();
}
END_TEST

START_TEST(faults_push_rf_and_traps_do_not)
{
    setup_long();
    ck_assert_int_eq(FAKE_EXEC(f, ud2_), X86_UD);
    ck_assert_uint_eq(fake_stack(f, 2, 8), 2 | X86_RF);
    ck_assert_uint_eq(rflags(f) & X86_RF, 0);
    teardown();
    setup_long();
    ck_assert_int_eq(FAKE_EXEC(f, int3_), X86_BP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 1);
    ck_assert_uint_eq(fake_stack(f, 2, 8), 2);
    teardown();
}
END_TEST

START_TEST(page_faults_set_cr2)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = 0x50123;
    map_page(f, 0x50000, 0);
    ck_assert_int_eq(FAKE_EXEC(f, load_rax), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x50123);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    teardown();
}
END_TEST

START_TEST(external_events_set_ext)
{
    setup_long();
    x86_set_rflags(f->cpu, 2 | X86_IF);
    fake_put(f, FAKE_IDT + 0x55 * 16 + 5, 1, 0);
    f->irq = 0x55;
    ck_assert_int_eq(FAKE_EXEC(f, nops), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0x55 * 8 + 3);
    ck_assert_uint_eq(f->cpu->ext, 0);
    teardown();
}
END_TEST

START_TEST(interrupts_wait_behind_mov_ss)
{
    setup_long();
    x86_set_rflags(f->cpu, 2 | X86_IF);
    f->cpu->gpr[VMM_RAX] = FAKE_DS;
    fake_load(f, FAKE_TEXT, mov_ss_begin, mov_ss_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->shadow, VMM_SHADOW_MOV_SS);
    f->irq = 0x44;
    ck_assert_int_eq(fake_go(f), 0x44);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 3);
    ck_assert_uint_eq(f->cpu->shadow, 0);
    teardown();
}
END_TEST

START_TEST(nmi_blocks_until_iret)
{
    setup_long();
    f->cpu->nmi_pending = true;
    ck_assert_int_eq(FAKE_EXEC(f, nops), X86_NMI);
    ck_assert(f->cpu->nmi_blocked);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    f->cpu->nmi_pending = true;
    fake_load(f, 0x11000, iretq__begin, iretq__end);
    f->cpu->rip = 0x11000;
    ck_assert_int_eq(fake_go(f), X86_NMI); /* right after the IRET */
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 40);
    teardown();
}
END_TEST

/* ---- nested exceptions ---- */

static void break_gate(unsigned vector)
{
    fake_put(f, FAKE_IDT + vector * 16 + 5, 1, 0x0e);
}

START_TEST(contributory_twice_is_a_double_fault)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = 0xfff8;
    break_gate(X86_GP);
    ck_assert_int_eq(FAKE_EXEC(f, bad_ds), X86_DF_);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 0);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
    teardown();
}
END_TEST

START_TEST(benign_then_contributory_is_serial)
{
    setup_long();
    break_gate(X86_UD);
    ck_assert_int_eq(FAKE_EXEC(f, ud2_), X86_NP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), X86_UD * 8 + 3);
    teardown();
}
END_TEST

START_TEST(contributory_then_page_fault_is_serial)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = 0xfff8;
    fake_put(f, FAKE_TSS + 36, 8, 0x52000);
    fake_put(f, FAKE_IDT + X86_GP * 16 + 4, 1, 1);
    map_page(f, 0x51000, 0);
    ck_assert_int_eq(FAKE_EXEC(f, bad_ds), X86_PF_);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 2);
    ck_assert_uint_eq(f->cpu->cr2, 0x52000 - 48);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 48);
    teardown();
}
END_TEST

START_TEST(page_fault_twice_is_a_double_fault)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = 0x50123;
    fake_put(f, FAKE_TSS + 36, 8, 0x51000);
    fake_put(f, FAKE_IDT + X86_PF_ * 16 + 4, 1, 1);
    map_page(f, 0x50000, 0);
    ck_assert_int_eq(FAKE_EXEC(f, load_rax), X86_DF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x51000 - 48);
    teardown();

    setup_long(); /* page fault, then contributory */
    f->cpu->gpr[VMM_RAX] = 0x50123;
    break_gate(X86_PF_);
    map_page(f, 0x50000, 0);
    ck_assert_int_eq(FAKE_EXEC(f, load_rax), X86_DF_);
    teardown();
}
END_TEST

START_TEST(fault_in_a_double_fault_shuts_down)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = 0xfff8;
    break_gate(X86_GP);
    break_gate(X86_DF_);
    ck_assert_int_eq(FAKE_EXEC(f, bad_ds), FAKE_SHUTDOWN);
    ck_assert_uint_eq(f->cpu->activity, VMM_SHUTDOWN);
    ck_assert(!f->cpu->event.valid);
    teardown();
}
END_TEST

START_TEST(software_vectors_are_benign)
{
    setup_long(); /* INT 13 is no #GP */
    FAKE_LOAD(f, int30);
    fake_put(f, FAKE_TEXT + 1, 1, X86_GP);
    break_gate(X86_GP);
    ck_assert_int_eq(fake_go(f), X86_NP);
    ck_assert_uint_eq(fake_stack(f, 0, 8), X86_GP * 8 + 2);
    teardown();
}
END_TEST

START_TEST(debug_exceptions_clear_general_detect)
{
    setup_long();
    f->cpu->dr.dr7 |= 0x2000;
    ck_assert_int_eq(FAKE_EXEC(f, int1_), X86_DB);
    ck_assert_uint_eq(f->cpu->dr.dr7 & 0x2000, 0);
    teardown();
}
END_TEST

START_TEST(general_detect_is_a_fault)
{
    setup_long();
    f->cpu->dr.dr7 |= 0x2000;
    ck_assert_int_eq(FAKE_EXEC(f, read_dr0), X86_DB);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 2, 8), 2 | X86_RF);
    teardown();

    setup_long(); /* an instruction breakpoint is one that pushes no RF */
    f->cpu->dr.dr7 |= 1;
    f->cpu->dr.addr[0] = FAKE_TEXT;
    x86_breakpoints_changed(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, nops), X86_DB);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 2, 8), 2);
    teardown();
}
END_TEST

START_TEST(compatibility_mode_enters_64_bit_handlers)
{
    setup_long();
    fake_user(f);
    fake_seg(f, VMM_CS, FAKE_UCS32, 0, FLAT_LIMIT, AR_CODE32(3));
    x86_mode_changed(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(fake_mode(f), 6);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 40);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_UCS32);
    teardown();
}
END_TEST

START_TEST(smap_protects_inner_stacks)
{
    setup_long(); /* the stack's page is the user's, whatever AC is */
    f->cpu->cr4 |= X86_CR4_SMAP;
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_AC);
    for (uint64_t page = 0; page < 0x40000; page += 4096)
        if (page != 0x27000 && page != FAKE_TEXT)
            map_page(f, page, 3);
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
    fake_put(f, FAKE_TSS + 36, 8, FAKE_STACK);
    fake_put(f, FAKE_IDT + X86_PF_ * 16 + 4, 1, 1);
    ck_assert_int_eq(FAKE_EXEC(f, int30), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, FAKE_STACK0 - 40);
    ck_assert_uint_eq(fake_stack(f, 0, 8), 3);
    teardown();
}
END_TEST

START_TEST(aborted_delivery_is_repeated)
{
    setup_long();
    f->cpu->gpr[VMM_RSP] = FAKE_MMIO + 0x100;
    f->abort_in = 1;
    ck_assert_int_eq(FAKE_EXEC(f, int30), FAKE_ABORTED);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_MMIO + 0x100);
    ck_assert_int_eq(fake_go(f), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_MMIO + 0x100 - 40);
    ck_assert_uint_eq(f->log[0].value, FAKE_TEXT + 2);
    teardown();
}
END_TEST

/* ---- protected mode ---- */

START_TEST(legacy_frames_at_the_same_level)
{
    setup_32();
    x86_set_rflags(f->cpu, 2 | X86_IF);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 12);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 2);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_CS32);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_IF);
    ck_assert_uint_eq(rflags(f), 2);
    teardown();

    setup_32(); /* a 16-bit trap gate; the handler's upper half is ignored */
    fake_put(f, GATE_AT(0x30), 8,
             gate_desc(FAKE_CS32, 0xabc00000 | (FAKE_HANDLERS + 0x300), 7, 0, 0));
    x86_set_rflags(f->cpu, 2 | X86_IF);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 6);
    ck_assert_uint_eq(fake_stack(f, 0, 2), (FAKE_TEXT + 2) & 0xffff);
    ck_assert_uint_eq(fake_stack(f, 1, 2), FAKE_CS32);
    ck_assert_uint_eq(fake_stack(f, 2, 2), 2 | X86_IF);
    ck_assert_uint_eq(rflags(f), 2 | X86_IF);
    teardown();
}
END_TEST

START_TEST(a_frame_wraps_in_a_16_bit_stack)
{
    setup_32();
    fake_seg(f, VMM_SS, FAKE_DS16, FAKE_DATA, 0xffff, FAKE_AR_DATA);
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RSP] = 0x12340004;
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x1234fff8);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 4), 2);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 0xfffc, 4), FAKE_CS32);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 0xfff8, 4), FAKE_TEXT + 2);
    teardown();
}
END_TEST

START_TEST(legacy_inner_stack)
{
    setup_32();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(f->cpu->cpl, 0);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, FAKE_DS);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].selector, FAKE_CS32);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 20);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_UCS32);
    ck_assert_uint_eq(fake_stack(f, 3, 4), FAKE_STACK);
    ck_assert_uint_eq(fake_stack(f, 4, 4), FAKE_UDS);
    teardown();

    setup_32(); /* to ring 1 */
    fake_set_gate(f, 0x30, R1_CS & ~3u, FAKE_HANDLERS + 0x300, 14, 3);
    fake_put(f, FAKE_HANDLERS + 0x300, 2, 0x31cd);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x31);
    ck_assert_uint_eq(fake_stack(f, 1, 4), R1_CS);
    ck_assert_uint_eq(fake_stack(f, 4, 4), R1_SS);
    ck_assert_uint_eq(fake_stack(f, 3, 4), FAKE_STACK0 - 0x1000 - 20);
    ck_assert_uint_eq(fake_get_desc(f, R1_CS) >> 40 & 1, 1);
    teardown();
}
END_TEST

START_TEST(inner_stack_of_a_16_bit_tss)
{
    setup_32();
    f->cpu->seg[VMM_TR].ar = VMM_AR_P | 3;
    fake_put(f, FAKE_TSS + 2, 2, 0xe000);
    fake_put(f, FAKE_TSS + 4, 2, FAKE_DS);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe000 - 20);
    teardown();
}
END_TEST

/* INT 0x30 from ring 3 to a ring 1 gate fails; the fault itself goes to ring 0. */
static void ring1_faults(uint8_t vector, uint32_t error)
{
    fake_set_gate(f, 0x30, R1_CS & ~3u, FAKE_HANDLERS + 0x300, 14, 3);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), vector);
    ck_assert_uint_eq(fake_stack(f, 0, 4), error);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 2, 4), FAKE_UCS32);
    ck_assert_uint_eq(fake_stack(f, 4, 4), FAKE_STACK);
    ck_assert_uint_eq(fake_stack(f, 5, 4), FAKE_UDS);
    teardown();
}

START_TEST(inner_stack_checks)
{
    setup_32();
    fake_put(f, FAKE_TSS + 16, 2, 1);
    ring1_faults(X86_TS, 0);
    setup_32();
    fake_put(f, FAKE_TSS + 16, 2, 0xfff9);
    ring1_faults(X86_TS, 0xfff8);
    setup_32();
    fake_put(f, FAKE_TSS + 16, 2, R1_SS & ~3u); /* RPL */
    ring1_faults(X86_TS, R1_SS & ~3u);
    setup_32();
    set_flat(f, R1_SS, AR_DATA(2));
    ring1_faults(X86_TS, R1_SS & ~3u);
    setup_32();
    set_flat(f, R1_SS, AR_DATA(1) & ~2u); /* read-only */
    ring1_faults(X86_TS, R1_SS & ~3u);
    setup_32();
    set_flat(f, R1_SS, AR_DATA(1) & ~VMM_AR_P);
    ring1_faults(X86_SS, R1_SS & ~3u);
    setup_32();
    fake_set_desc(f, R1_SS, fake_desc(0, 0xfff, (AR_DATA(1)) & ~VMM_AR_G)); /* no room */
    ring1_faults(X86_SS, R1_SS & ~3u);
    setup_32();
    set_flat(f, R1_CS, AR_CODE32(1) & ~VMM_AR_P);
    ring1_faults(X86_NP, R1_CS & ~3u);
    setup_32(); /* beyond the code segment's limit */
    fake_set_desc(f, R1_CS, fake_desc(0, FAKE_HANDLERS + 0x2ff, AR_CODE32(1) & ~VMM_AR_G));
    ring1_faults(X86_GP, 0);
}
END_TEST

START_TEST(inner_stack_beyond_the_tss)
{
    setup_32();
    fake_set_gate(f, 0x30, R1_CS & ~3u, FAKE_HANDLERS + 0x300, 14, 3);
    fake_user(f);
    f->cpu->seg[VMM_TR].limit = 12 + 4; /* one byte of SS1 is missing */
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), X86_TS);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TR);
    teardown();
}
END_TEST

START_TEST(conforming_handlers_keep_the_privilege)
{
    setup_32();
    set_flat(f, SPARE, AR_CONFORM(0));
    fake_set_gate(f, 0x30, SPARE, FAKE_HANDLERS + 0x300, 14, 3);
    fake_put(f, FAKE_HANDLERS + 0x300, 2, 0x31cd);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, int30_32), 0x31);
    ck_assert_uint_eq(fake_stack(f, 1, 4), SPARE | 3);
    ck_assert_uint_eq(fake_stack(f, 3, 4), FAKE_STACK - 12);
    teardown();
}
END_TEST

START_TEST(into_traps_on_overflow_only)
{
    setup_32();
    ck_assert_int_eq(FAKE_EXEC(f, into_32), FAKE_HLT);
    teardown();
    setup_32();
    x86_set_rflags(f->cpu, 2 | X86_OF);
    ck_assert_int_eq(FAKE_EXEC(f, into_32), X86_OF_);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 1);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_OF);
    teardown();
}
END_TEST

START_TEST(descriptor_tables_may_fault)
{
    setup_32();
    fake_paging32(f);
    f->cpu->gdt.base = 0x60000;
    memcpy(f->mem + 0x60000, f->mem + FAKE_GDT, 0x200);
    fake_put(f, FAKE_PT32 + 0x60 * 4, 4, 0x60000 | 1); /* read-only supervisor page */
    fake_put(f, 0x60000 + FAKE_CS32 + 5, 1, 0x9a);     /* not accessed yet */
    f->cpu->cr0 |= X86_CR0_WP;
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(FAKE_EXEC(f, ud2_32), FAKE_SHUTDOWN); /* nor can #PF load its CS */
    ck_assert_uint_eq(f->cpu->cr2, 0x60000 + FAKE_CS32 + 5);
    teardown();
}
END_TEST

/* ---- virtual-8086 mode ---- */

static void setup_vm86(unsigned iopl)
{
    setup_32();
    x86_set_rflags(f->cpu, 2 | X86_VM | X86_IF | iopl << X86_IOPL_SHIFT);
    f->cpu->cpl = 3;
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        x86_load_seg_real(f->cpu, i, (uint16_t)(0x100 * i));
    x86_load_seg_real(f->cpu, VMM_CS, FAKE_TEXT / 16);
    x86_load_seg_real(f->cpu, VMM_SS, FAKE_DATA / 16);
    x86_mode_changed(f->cpu);
    f->cpu->rip = 0;
    f->cpu->gpr[VMM_RSP] = 0x1000;
}

static void check_vm86_frame(unsigned error, uint32_t ip, uint32_t eflags)
{
    ck_assert_uint_eq(f->cpu->cpl, 0);
    ck_assert_uint_eq(rflags(f) & X86_VM, 0);
    ck_assert_uint_eq(fake_stack(f, error, 4), ip);
    ck_assert_uint_eq(fake_stack(f, error + 1, 4), FAKE_TEXT / 16);
    ck_assert_uint_eq(fake_stack(f, error + 2, 4), eflags);
    ck_assert_uint_eq(fake_stack(f, error + 3, 4), 0x1000);
    ck_assert_uint_eq(fake_stack(f, error + 4, 4), FAKE_DATA / 16);
    ck_assert_uint_eq(fake_stack(f, error + 5, 4), 0x100 * VMM_ES);
    ck_assert_uint_eq(fake_stack(f, error + 6, 4), 0x100 * VMM_DS);
    ck_assert_uint_eq(fake_stack(f, error + 7, 4), 0x100 * VMM_FS);
    ck_assert_uint_eq(fake_stack(f, error + 8, 4), 0x100 * VMM_GS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 4 * (9 + error));
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, 0);
    ck_assert(f->cpu->seg[VMM_GS].ar & VMM_AR_UNUSABLE);
}

START_TEST(vm86_int_needs_iopl_3)
{
    setup_vm86(3);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), 0x30);
    check_vm86_frame(0, 2, 2 | X86_VM | X86_IF | X86_IOPL);
    teardown();
    setup_vm86(2);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 4), 0);
    check_vm86_frame(1, 0, 2 | X86_VM | X86_IF | X86_RF | 2 << X86_IOPL_SHIFT);
    teardown();
    setup_vm86(0); /* INT3 does not care */
    ck_assert_int_eq(FAKE_EXEC(f, int3_16), X86_BP);
    check_vm86_frame(0, 1, 2 | X86_VM | X86_IF);
    teardown();
    setup_vm86(0);
    f->irq = 0x66;
    ck_assert_int_eq(FAKE_EXEC(f, nops_16), 0x66);
    check_vm86_frame(0, 0, 2 | X86_VM | X86_IF);
    teardown();
}
END_TEST

START_TEST(vm86_handlers_must_be_in_ring_0)
{
    setup_vm86(3);
    fake_set_gate(f, 0x30, R1_CS & ~3u, FAKE_HANDLERS + 0x300, 14, 3);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 4), R1_CS & ~3u);
    teardown();
    setup_vm86(3);
    set_flat(f, SPARE, AR_CONFORM(0));
    fake_set_gate(f, 0x30, SPARE, FAKE_HANDLERS + 0x300, 14, 3);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 4), SPARE);
    teardown();
}
END_TEST

/* The redirection bitmap ends at offset 0xa0 of the TSS. */
static void setup_vme(unsigned iopl, bool bit)
{
    setup_vm86(iopl);
    f->cpu->cr4 |= X86_CR4_VME;
    f->cpu->seg[VMM_TR].limit = 0xa0;
    fake_put(f, FAKE_TSS + 0x66, 2, 0xa0);
    fake_put(f, FAKE_TSS + 0x80 + 0x30 / 8, 1, bit ? 1 : 0xfe);
    fake_put(f, 0x30 * 4, 4, (uint64_t)(FAKE_TEXT / 16) << 16 | 0x800);
    f->mem[FAKE_TEXT + 0x800] = 0xcc; /* INT3 leads to the monitor */
}

START_TEST(vme_redirects_int)
{
    uint64_t old = FAKE_DATA + 0x1000;

    setup_vme(3, false);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_BP);
    ck_assert_uint_eq(fake_stack(f, 0, 4), 0x801);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_IOPL); /* IF is clear */
    ck_assert_uint_eq(fake_stack(f, 3, 4), 0x1000 - 6);
    ck_assert_uint_eq(fake_get(f, old - 6, 2), 2);
    ck_assert_uint_eq(fake_get(f, old - 4, 2), FAKE_TEXT / 16);
    ck_assert_uint_eq(fake_get(f, old - 2, 2), 2 | X86_IF | X86_IOPL);
    teardown();

    setup_vme(0, false);
    f->cpu->rflags |= X86_VIF;
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_BP);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_IF); /* VIF is clear */
    ck_assert_uint_eq(fake_get(f, old - 2, 2), 2 | X86_IF | X86_IOPL);
    teardown();

    setup_vme(0, false); /* VIF clear: the pushed IF is, too */
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_BP);
    ck_assert_uint_eq(fake_get(f, old - 2, 2), 2 | X86_IOPL);
    teardown();

    setup_vme(3, true);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), 0x30);
    teardown();
    setup_vme(0, true);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_GP);
    teardown();
}
END_TEST

/* ---- real mode ---- */

START_TEST(real_mode_frame)
{
    f = fake_new();
    fake_real(f);
    x86_set_rflags(f->cpu, 2 | X86_IF | X86_AC | X86_DF);
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), 0x30);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe000 - 6);
    ck_assert_uint_eq(fake_stack(f, 0, 2), 2);
    ck_assert_uint_eq(fake_stack(f, 1, 2), FAKE_TEXT / 16);
    ck_assert_uint_eq(fake_stack(f, 2, 2), 2 | X86_IF | X86_DF);
    ck_assert_uint_eq(rflags(f), 2 | X86_DF);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].base, FAKE_HANDLERS);
    teardown();
}
END_TEST

START_TEST(real_mode_idt_limit)
{
    f = fake_new();
    fake_real(f);
    f->cpu->idt.limit = 0x30 * 4 + 2;
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe000 - 6); /* no error code */
    ck_assert_uint_eq(fake_stack(f, 0, 2), 0);
    teardown();

    f = fake_new();
    fake_real(f);
    f->cpu->idt.limit = 8 * 4 + 3;
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), X86_DF_);
    teardown();

    f = fake_new();
    fake_real(f);
    f->cpu->idt.limit = 0;
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), FAKE_SHUTDOWN);
    teardown();
}
END_TEST

START_TEST(real_mode_stack_limit)
{
    f = fake_new();
    fake_real(f);
    f->cpu->seg[VMM_SS].limit = 0xdfff - 2;
    ck_assert_int_eq(FAKE_EXEC(f, int30_16), FAKE_SHUTDOWN); /* #SS finds no room either */
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe000);
    teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        long_frame_is_aligned_and_complete,
        long_trap_gate_keeps_interrupts,
        long_inner_stack_has_a_null_ss,
        long_ist_is_used_at_any_privilege,
        long_gate_checks,
        long_privilege_of_gates_counts_for_software_only,
        faults_push_rf_and_traps_do_not,
        page_faults_set_cr2,
        external_events_set_ext,
        interrupts_wait_behind_mov_ss,
        nmi_blocks_until_iret,
        contributory_twice_is_a_double_fault,
        benign_then_contributory_is_serial,
        contributory_then_page_fault_is_serial,
        page_fault_twice_is_a_double_fault,
        fault_in_a_double_fault_shuts_down,
        software_vectors_are_benign,
        debug_exceptions_clear_general_detect,
        general_detect_is_a_fault,
        compatibility_mode_enters_64_bit_handlers,
        smap_protects_inner_stacks,
        aborted_delivery_is_repeated,
        legacy_frames_at_the_same_level,
        a_frame_wraps_in_a_16_bit_stack,
        legacy_inner_stack,
        inner_stack_of_a_16_bit_tss,
        inner_stack_checks,
        inner_stack_beyond_the_tss,
        conforming_handlers_keep_the_privilege,
        into_traps_on_overflow_only,
        descriptor_tables_may_fault,
        vm86_int_needs_iopl_3,
        vm86_handlers_must_be_in_ring_0,
        vme_redirects_int,
        real_mode_frame,
        real_mode_idt_limit,
        real_mode_stack_limit,
    };

    return RUN_SUITE("event", tests);
}
