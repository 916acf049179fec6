/* SPDX-License-Identifier: BSD-2-Clause */
/* test_task.c: hardware task switches. */
#include "core/x86/control.h"
#include "x86_sys_test.h"

FAKE_ASM(jmp, 32, "ljmp *(%edi)\n hlt\n");
FAKE_ASM(call, 32, "lcall *(%edi)\n hlt\n");
FAKE_ASM(int30, 32, "int $0x30\n hlt\n");
FAKE_ASM(iret_, 32, "iret\n hlt\n");
FAKE_ASM(ud2_, 32, "ud2\n");
FAKE_ASM(bad_ds, 32, "mov %eax, %ds\n");
FAKE_ASM(int31, 16, "int $0x31\n");

#define TSS2    0x32000u /* the other task */
#define LDT     0x33000u
#define TARGET  0x11000u
#define STACK2  0x48000u
#define TASK2   FAKE_FREE
#define GATE    (FAKE_FREE + 8)
#define SEL     (FAKE_FREE + 16)
#define LDT_SEL (FAKE_FREE + 24)

/* Offsets in 32-bit and 16-bit TSSs. */
enum {
    T_LINK = 0,
    T_ESP0 = 4,
    T_SS0 = 8,
    T_CR3 = 0x1c,
    T_EIP = 0x20,
    T_EFLAGS = 0x24,
    T_EAX = 0x28,
    T_ESP = 0x38,
    T_ES = 0x48,
    T_CS = 0x4c,
    T_SS = 0x50,
    T_DS = 0x54,
    T_FS = 0x58,
    T_GS = 0x5c,
    T_LDT = 0x60,
    T_TRAP = 0x64,
    T16_IP = 0x0e,
    T16_FLAGS = 0x10,
    T16_AX = 0x12,
    T16_SP = 0x1a,
    T16_ES = 0x22,
    T16_CS = 0x24,
    T16_SS = 0x26,
    T16_DS = 0x28,
    T16_LDT = 0x2a,
};

static struct fake *f;

static uint32_t old(unsigned offset)
{
    return (uint32_t)fake_get(f, FAKE_TSS + offset, 4);
}

static void new_field(unsigned offset, uint32_t value)
{
    fake_put(f, TSS2 + offset, 4, value);
}

static unsigned type_of(unsigned selector)
{
    return fake_get_desc(f, selector) >> 40 & 15;
}

/* Task 2: 32 bits, ring 0, its code is a HLT. */
static void setup(void)
{
    f = fake_new();
    fake_prot32(f);
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x67, AR_SYS(9, 0)));
    fake_set_desc(f, GATE, gate_desc(TASK2, 0, 5, 0, 0));
    fake_set_desc(f, LDT_SEL, fake_desc(LDT, 0xff, AR_SYS(2, 0)));
    memset(f->mem + TSS2, 0, 0x68);
    new_field(T_EIP, TARGET);
    new_field(T_EFLAGS, 2 | X86_ZF);
    for (unsigned i = 0; i < 8; i++)
        new_field(T_EAX + 4 * i, 0x11111111 * i);
    new_field(T_ESP, STACK2);
    new_field(T_ES, FAKE_DS);
    new_field(T_CS, FAKE_CS32);
    new_field(T_SS, FAKE_DS);
    new_field(T_DS, FAKE_DS);
    new_field(T_FS, FAKE_UDS);
    new_field(T_GS, 0);
    new_field(T_LDT, LDT_SEL);
    fake_put(f, TSS2 + 0x66, 2, 0x68);
    f->mem[TARGET] = 0xf4;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RSI] = 0x51515151;
    fake_put(f, FAKE_DATA + 4, 2, TASK2);
    x86_set_rflags(f->cpu, 2 | X86_CF);
}

static void teardown(void)
{
    fake_free(f);
}

static void check_task2(bool nested)
{
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].selector, TASK2);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].base, TSS2);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].ar, AR_SYS(11, 0));
    ck_assert_uint_eq(type_of(TASK2), 11);
    ck_assert_uint_eq(f->cpu->rip, TARGET + 1);
    ck_assert_uint_eq(rflags(f), 2 | X86_ZF | (nested ? X86_NT : 0));
    for (unsigned i = 0; i < 8; i++)
        if (i != VMM_RSP)
            ck_assert_uint_eq(f->cpu->gpr[i], 0x11111111 * i);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], STACK2);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].selector, FAKE_UDS);
    ck_assert_uint_eq(f->cpu->seg[VMM_LDTR].base, LDT);
    ck_assert(f->cpu->cr0 & X86_CR0_TS);
    ck_assert_uint_eq(fake_get(f, TSS2 + T_LINK, 2), nested ? FAKE_TR : 0);
}

static void check_saved(uint32_t eip, uint32_t eflags)
{
    ck_assert_uint_eq(old(T_EIP), eip);
    ck_assert_uint_eq(old(T_EFLAGS), eflags);
    ck_assert_uint_eq(old(T_EAX + 4 * VMM_RSI), 0x51515151);
    ck_assert_uint_eq(old(T_ESP), FAKE_STACK);
    ck_assert_uint_eq(old(T_CS), FAKE_CS32);
    ck_assert_uint_eq(old(T_SS), FAKE_DS);
    ck_assert_uint_eq(old(T_GS), FAKE_DS);
}

START_TEST(jmp_leaves_the_old_task)
{
    for (int gate = 0; gate < 2; gate++) {
        setup();
        fake_put(f, FAKE_DATA + 4, 2, gate ? GATE : TASK2);
        ck_assert_int_eq(FAKE_EXEC(f, jmp), FAKE_HLT);
        check_task2(false);
        check_saved(FAKE_TEXT + 2, 2 | X86_CF);
        ck_assert_uint_eq(type_of(FAKE_TR), 9);
        teardown();
    }
}
END_TEST

START_TEST(call_nests_and_iret_returns)
{
    setup();
    fake_load(f, TARGET, iret__begin, iret__end);
    fake_load(f, FAKE_TEXT, call_begin, call_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    f->cpu->rip++; /* as behind the HLT of the others */
    check_task2(true);
    f->cpu->rip--;
    check_saved(FAKE_TEXT + 2, 2 | X86_CF);
    ck_assert_uint_eq(type_of(FAKE_TR), 11);
    /* And back. */
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].selector, FAKE_TR);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], 0x51515151);
    ck_assert_uint_eq(rflags(f), 2 | X86_CF);
    ck_assert_uint_eq(type_of(TASK2), 9);
    ck_assert_uint_eq(type_of(FAKE_TR), 11);
    ck_assert_uint_eq(fake_get(f, TSS2 + T_EFLAGS, 4), 2 | X86_ZF); /* saved without NT */
    ck_assert_uint_eq(fake_get(f, TSS2 + T_EIP, 4), TARGET + 1);
    teardown();
}
END_TEST

START_TEST(events_go_through_task_gates)
{
    setup();
    fake_put(f, FAKE_IDT + 0x30 * 8, 8, gate_desc(TASK2, 0, 5, 0, 0));
    ck_assert_int_eq(FAKE_EXEC(f, int30), FAKE_HLT);
    check_task2(true);
    check_saved(FAKE_TEXT + 2, 2 | X86_CF);
    teardown();

    setup(); /* a fault: EIP of the instruction, RF */
    fake_put(f, FAKE_IDT + X86_UD * 8, 8, gate_desc(TASK2, 0, 5, 0, 0));
    ck_assert_int_eq(FAKE_EXEC(f, ud2_), FAKE_HLT);
    check_task2(true);
    check_saved(FAKE_TEXT, 2 | X86_CF | X86_RF);
    teardown();

    setup(); /* an error code goes to the new stack */
    fake_put(f, FAKE_IDT + X86_GP * 8, 8, gate_desc(TASK2, 0, 5, 0, 0));
    f->cpu->gpr[VMM_RAX] = 0xfff8;
    ck_assert_int_eq(FAKE_EXEC(f, bad_ds), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], STACK2 - 4);
    ck_assert_uint_eq(fake_stack(f, 0, 4), 0xfff8);
    ck_assert_uint_eq(fake_get(f, TSS2, 2), FAKE_TR);
    teardown();
}
END_TEST

START_TEST(tasks_of_16_bits)
{
    setup();
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x2b, AR_SYS(1, 0)));
    memset(f->mem + TSS2, 0, 0x2c);
    fake_put(f, TSS2 + T16_IP, 2, 0x1000);
    fake_put(f, TSS2 + T16_FLAGS, 2, 2 | X86_ZF);
    fake_put(f, TSS2 + T16_AX, 2, 0x1234);
    fake_put(f, TSS2 + T16_SP, 2, 0x8000);
    fake_put(f, TSS2 + T16_ES, 2, FAKE_DS);
    fake_put(f, TSS2 + T16_CS, 2, FAKE_CS16);
    fake_put(f, TSS2 + T16_SS, 2, FAKE_DS16);
    fake_put(f, TSS2 + T16_DS, 2, FAKE_DS16);
    fake_set_desc(f, FAKE_CS16, fake_desc(TARGET - 0x1000, 0xffff, FAKE_AR_CODE));
    fake_load(f, TARGET, iret__begin, iret__end);
    fake_load(f, FAKE_TEXT, call_begin, call_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].ar, AR_SYS(3, 0));
    ck_assert_uint_eq(f->cpu->rip, 0x1000);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX] & 0xffff, 0x1234);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP] & 0xffff, 0x8000);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].selector, FAKE_CS16);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].selector, 0);
    ck_assert_uint_eq(rflags(f), 2 | X86_ZF | X86_NT);
    /* IRET saves the 16-bit state. */
    f->cpu->gpr[VMM_RAX] = 0xabcd5678;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT + 3);
    ck_assert_uint_eq(fake_get(f, TSS2 + T16_IP, 2), 0x1001);
    ck_assert_uint_eq(fake_get(f, TSS2 + T16_AX, 2), 0x5678);
    ck_assert_uint_eq(fake_get(f, TSS2 + T16_FLAGS, 2), 2 | X86_ZF);
    ck_assert_uint_eq(type_of(TASK2), 1);
    teardown();
}
END_TEST

START_TEST(tasks_in_virtual_8086_mode)
{
    setup();
    new_field(T_EFLAGS, 2 | X86_VM | X86_IOPL);
    new_field(T_CS, 0x1100);
    new_field(T_EIP, 0x10);
    new_field(T_SS, 0x2000);
    new_field(T_ESP, 0x800);
    new_field(T_DS, 0x1234);
    new_field(T_ESP0, STACK2);
    new_field(T_SS0, FAKE_DS);
    fake_load(f, 0x11010, int31_begin, int31_end);
    ck_assert_int_eq(FAKE_EXEC(f, jmp), 0x31);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], STACK2 - 36);
    ck_assert_uint_eq(fake_stack(f, 0, 4), 0x12);
    ck_assert_uint_eq(fake_stack(f, 1, 4), 0x1100);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_IOPL);
    ck_assert_uint_eq(fake_stack(f, 4, 4), 0x2000);
    ck_assert_uint_eq(fake_stack(f, 6, 4), 0x1234);
    teardown();
}
END_TEST

START_TEST(paging_follows_the_task)
{
    setup();
    fake_paging32(f);
    memcpy(f->mem + 0xa000, f->mem + FAKE_PD32, 4096);
    new_field(T_CR3, 0xa000);
    ck_assert_int_eq(FAKE_EXEC(f, call), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->cr3, 0xa000);
    ck_assert_uint_eq(f->cpu->mmu.root, 0xa000);
    ck_assert_uint_eq(old(T_CR3), 0); /* not saved */
    teardown();
}
END_TEST

START_TEST(debugging_follows_the_task)
{
    setup();
    f->cpu->dr.dr7 = 0x400 | 0x155 | 0x2; /* L0-L3, LE, G0 */
    f->cpu->dr.addr[0] = f->cpu->dr.addr[1] = 0x70000;
    x86_breakpoints_changed(f->cpu);
    new_field(T_TRAP, 0x680001);
    ck_assert_int_eq(FAKE_EXEC(f, jmp), X86_DB);
    ck_assert_uint_eq(f->cpu->dr.dr7, 0x402);
    ck_assert_uint_eq(f->cpu->dr.dr6 & 0xe00f, X86_DR6_BT);
    ck_assert_uint_eq(fake_stack(f, 0, 4), TARGET);
    teardown();
}
END_TEST

/* The switch must not happen: a fault of the old task. */
static void refused(const uint8_t *begin, const uint8_t *end, int vector, uint32_t error)
{
    bool inner = f->cpu->cpl;

    ck_assert_int_eq(fake_exec(f, begin, end), vector);
    ck_assert_uint_eq(fake_stack(f, 0, 4), error);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].selector, FAKE_TR);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], inner ? FAKE_STACK0 - 24 : FAKE_STACK - 16);
    ck_assert_uint_eq(old(T_EIP), 0);
    ck_assert_uint_eq(type_of(FAKE_TR), 11);
    teardown();
}
#define REFUSED(name, vector, error) refused(name##_begin, name##_end, vector, error)

START_TEST(checks_before_the_switch)
{
    setup();
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x67, AR_SYS(11, 0))); /* busy */
    REFUSED(jmp, X86_GP, TASK2);
    setup();
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x67, 9));
    REFUSED(call, X86_NP, TASK2);
    setup();
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x66, AR_SYS(9, 0)));
    REFUSED(call, X86_TS, TASK2);
    setup();
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x2a, AR_SYS(1, 0)));
    REFUSED(call, X86_TS, TASK2);
    setup(); /* privilege */
    fake_user(f);
    REFUSED(call, X86_GP, TASK2);
    setup();
    fake_put(f, FAKE_DATA + 4, 2, TASK2 | 1);
    REFUSED(jmp, X86_GP, TASK2);
    setup(); /* gates */
    fake_set_desc(f, GATE, gate_desc(TASK2, 0, 5, 0, 0) & ~(1ull << 47));
    fake_put(f, FAKE_DATA + 4, 2, GATE);
    REFUSED(jmp, X86_NP, GATE);
    setup();
    fake_put(f, FAKE_DATA + 4, 2, GATE);
    fake_user(f);
    REFUSED(call, X86_GP, GATE);
    setup();
    fake_set_desc(f, GATE, gate_desc(TASK2 | 4, 0, 5, 0, 0));
    fake_put(f, FAKE_DATA + 4, 2, GATE);
    REFUSED(jmp, X86_GP, TASK2 | 4);
    setup();
    fake_set_desc(f, GATE, gate_desc(FAKE_DS, 0, 5, 0, 0));
    fake_put(f, FAKE_DATA + 4, 2, GATE);
    REFUSED(jmp, X86_GP, FAKE_DS);
    setup(); /* of the IDT */
    fake_put(f, FAKE_IDT + 0x30 * 8, 8, gate_desc(TASK2, 0, 5, 0, 0));
    fake_set_desc(f, TASK2, fake_desc(TSS2, 0x67, 9));
    REFUSED(int30, X86_NP, TASK2);
    setup();
    fake_put(f, FAKE_IDT + X86_UD * 8, 8, gate_desc(0xfff8, 0, 5, 0, 0));
    REFUSED(ud2_, X86_GP, 0xfff9);
    setup(); /* IRET: the link must name a busy task */
    fake_put(f, FAKE_TSS, 2, TASK2);
    x86_set_rflags(f->cpu, 2 | X86_NT);
    REFUSED(iret_, X86_TS, TASK2);
    setup();
    fake_put(f, FAKE_TSS, 2, 0xfff8);
    x86_set_rflags(f->cpu, 2 | X86_NT);
    REFUSED(iret_, X86_TS, 0xfff8);
    setup(); /* a TSS that is not in memory */
    fake_paging32(f);
    fake_put(f, FAKE_PT32 + 4 * (TSS2 >> 12), 4, 0);
    x86_flush_tlb(f->cpu);
    REFUSED(call, X86_PF_, 0);
}
END_TEST

/* The switch happens, and the new task faults before its first instruction. */
static void fails(int vector, uint32_t error)
{
    ck_assert_int_eq(FAKE_EXEC(f, call), vector);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].selector, TASK2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], STACK2 - 16);
    ck_assert_uint_eq(fake_stack(f, 0, 4), error);
    ck_assert_uint_eq(fake_stack(f, 1, 4), TARGET);
    ck_assert_uint_eq(old(T_EIP), FAKE_TEXT + 2);
    teardown();
}

START_TEST(faults_of_the_new_task)
{
    setup();
    new_field(T_DS, 0xfff8);
    fails(X86_TS, 0xfff8);
    setup();
    set_flat(f, SEL, AR_DATA(0) & ~VMM_AR_P);
    new_field(T_GS, SEL);
    fails(X86_NP, SEL);
    setup();
    set_flat(f, SEL, AR_CODE32(0) & ~2u); /* execute only */
    new_field(T_ES, SEL);
    fails(X86_TS, SEL);
    setup();
    new_field(T_ES, FAKE_DS | 1);
    fails(X86_TS, FAKE_DS);
    setup(); /* beyond the code segment; the handlers are in another */
    set_flat(f, SEL, 0);
    fake_set_desc(f, SEL, fake_desc(0, TARGET - 1, AR_CODE32(0) & ~VMM_AR_G));
    new_field(T_CS, SEL);
    fails(X86_GP, 0);
}
END_TEST

/* With no usable stack of its own, the new task's fault goes to a third task. */
START_TEST(faults_of_the_new_task_without_a_stack)
{
    static const struct {
        unsigned offset;
        uint32_t value;
        uint8_t vector;
        uint32_t error;
    } rows[] = {
        {T_SS, 0, X86_TS, 0},
        {T_SS, 0xfff8, X86_TS, 0xfff8},
        {T_SS, FAKE_CS32, X86_TS, FAKE_CS32},
        {T_SS, FAKE_DS | 1, X86_TS, FAKE_DS},
        {T_SS, SEL, X86_SS, SEL}, /* not present */
        {T_CS, 0, X86_TS, 0},
        {T_CS, FAKE_DS, X86_TS, FAKE_DS},
        {T_CS, FAKE_UCS32 & ~3u, X86_TS, FAKE_UCS32 & ~3u},
        {T_CS, SEL + 16, X86_NP, SEL + 16},
        {T_LDT, FAKE_DS, X86_TS, FAKE_DS},
        {T_LDT, LDT_SEL | 4, X86_TS, LDT_SEL | 4},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const unsigned tss3 = 0x34000, task3 = SEL + 24;

        setup();
        set_flat(f, SEL, AR_DATA(0) & ~VMM_AR_P);
        set_flat(f, SEL + 16, AR_CODE32(0) & ~VMM_AR_P);
        memcpy(f->mem + tss3, f->mem + TSS2, 0x68);
        fake_put(f, tss3 + T_ESP, 4, 0x4a000);
        fake_set_desc(f, task3, fake_desc(tss3, 0x67, AR_SYS(9, 0)));
        fake_put(f, FAKE_IDT + 8u * rows[i].vector, 8, gate_desc(task3, 0, 5, 0, 0));
        new_field(rows[i].offset, rows[i].value);
        ck_assert_int_eq(FAKE_EXEC(f, call), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->seg[VMM_TR].selector, task3);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x4a000 - 4);
        ck_assert_uint_eq(fake_stack(f, 0, 4), rows[i].error);
        ck_assert_uint_eq(fake_get(f, tss3, 2), TASK2);
        ck_assert_uint_eq(fake_get(f, TSS2 + T_EIP, 4), TARGET);
        teardown();
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        jmp_leaves_the_old_task,      call_nests_and_iret_returns,
        events_go_through_task_gates, tasks_of_16_bits,
        tasks_in_virtual_8086_mode,   paging_follows_the_task,
        debugging_follows_the_task,   checks_before_the_switch,
        faults_of_the_new_task,       faults_of_the_new_task_without_a_stack,
    };

    return RUN_SUITE("task", tests);
}
