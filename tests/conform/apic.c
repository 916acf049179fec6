/* SPDX-License-Identifier: BSD-2-Clause */
/* apic.c: the registers of local APICs in memory, which hardware may keep for the guest: task
 * priority, ends of interrupts, IPIs to itself, and what comes of moving the page. */
#include "conform.h"

/* The guest's side: R15 is the local APIC; handlers count at COUNT. */
#define COUNT 0x3010u
#define APIC  0xfee00000u
#define APIC_ON                                                                                    \
    "mov $0xff, %al\n"                                                                             \
    "out %al, $0x21\n"                                                                             \
    "out %al, $0xa1\n" /* the 8259s stay out of it */                                              \
    "mov $0xfee00000, %r15d\n"                                                                     \
    "movl $0x1ff, 0xf0(%r15)\n"                                                                    \
    "movl $0, 0x80(%r15)\n"
/* IA32_APIC_BASE */
#define MOVE_TO(base)                                                                              \
    "mov $0x1b, %ecx\n"                                                                            \
    "mov $" #base ", %eax\n"                                                                       \
    "xor %edx, %edx\n"                                                                             \
    "wrmsr\n"

GUEST(counts, 64,
      "incl 0x3010\n"
      "movl $0, 0xb0(%r15)\n"
      "iretq\n");

static void load(struct code code)
{
    load_on(cpu, LONG64, code);
    memset(ram + DATA, 0, 4096);
    PLACE(HANDLER, counts);
    gate(LONG64, 0x41, HANDLER);
    gate(LONG64, 0x61, HANDLER);
}

static void start(struct code code, uint32_t ncpus)
{
    begin(VMM_IRQCHIP_PC, 0, ncpus);
    load(code);
}

/* ---- the task priority ---- */

GUEST(priority, 64,
      APIC_ON "mov $20, %r9d\n"
              "1: movl $0, 0x3010\n"
              "movl $0x50, 0x80(%r15)\n"
              "movl $0x4041, 0x300(%r15)\n" /* to APIC id 0: itself */
              "movl $0x4061, 0x300(%r15)\n"
              "sti\n"
              "nop\n"
              "mov 0x3010, %ebx\n" /* only the one above the priority has come */
              "movl $0, 0x80(%r15)\n"
              "2: mov 0x3010, %r11d\n"
              "cmp $1, %r11d\n"
              "je 2b\n"
              "cli\n"
              "movl $0xa5, 0x80(%r15)\n"
              "mov 0x80(%r15), %edx\n"
              "mov %cr8, %rsi\n"
              "mov $3, %eax\n"
              "mov %rax, %cr8\n"
              "mov 0x80(%r15), %edi\n"
              "mov 0xa0(%r15), %r8d\n"
              "movl $0, 0x80(%r15)\n"
              "dec %r9d\n"
              "jnz 1b\n"
              "out %al, $0x99\n");

static void check_priority(void)
{
    RUN(PIO);
    EQ(gpr(VMM_RBX), 1);
    EQ(gpr(VMM_R11), 2);
    EQ(gpr(VMM_RDX), 0xa5);
    EQ(gpr(VMM_RSI), 0xa);
    EQ(gpr(VMM_RDI), 0x30);
    EQ(gpr(VMM_R8), 0x30);
}

static void priority_in_memory(void)
{
    start(GUEST_CODE(priority), 1);
    check_priority();
    end();
}

static void priority_while_tracked(void)
{
    static uint64_t map[RAM / 4096 / 64];
    uint64_t n;

    start(GUEST_CODE(priority), 1);
    OK(vm_dirty_start(vm));
    check_priority();
    OK(vm_dirty_get(vm, 0, RAM, 0, map, &n));
    CHECK(map[COUNT / 4096 / 64] >> COUNT / 4096 % 64 & 1);
    load(GUEST_CODE(priority));
    check_priority();
    OK(vm_dirty_stop(vm));
    end();
}

/* Accesses that are no plain moves of 32 bits. */
GUEST(other_accesses, 64,
      APIC_ON "mov $10, %r9d\n"
              "1: movl $0x21, 0x80(%r15)\n"
              "orl $0x50, 0x80(%r15)\n"
              "mov 0x80(%r15), %ebx\n"
              "mov $0x33, %r11d\n"
              "xchg %r11d, 0x80(%r15)\n"
              "addl $0x11, 0x80(%r15)\n"
              "movzbl 0x80(%r15), %edx\n"
              "lea 0x80(%r15), %rsi\n"
              "mov $0x3040, %edi\n"
              "movsl\n"
              "mov $0x3040, %esi\n"
              "lea 0x80(%r15), %rdi\n"
              "movl $0x77, 0x3040\n"
              "movsl\n"
              "mov 0x80(%r15), %r8d\n"
              "cmpl $0x77, 0x80(%r15)\n"
              "sete %al\n"
              "movzbl %al, %esi\n"
              "movl $0, 0x80(%r15)\n"
              "dec %r9d\n"
              "jnz 1b\n"
              "mov 0x3040, %edi\n"
              "out %al, $0x99\n");

static void other_instructions(void)
{
    start(GUEST_CODE(other_accesses), 1);
    RUN(PIO);
    EQ(gpr(VMM_RBX), 0x71);
    EQ(gpr(VMM_R11), 0x71);
    EQ(gpr(VMM_RDX), 0x44);
    EQ(gpr(VMM_R8), 0x77);
    EQ(gpr(VMM_RSI), 1);
    EQ(gpr(VMM_RDI), 0x77);
    end();
}

/* The trap of a single step comes before the interrupt that its instruction has let through. */
#define STEPS_OVER(id, before, stepped)                                                            \
    GUEST(id, 64,                                                                                  \
          APIC_ON "mov $10, %r9d\n"                                                                \
                  "1: " before "pushf\n"                                                           \
                  "orl $0x100, (%rsp)\n"                                                           \
                  "popf\n" stepped "guest_" #id "_trap: nop\n"                                     \
                  "mov 0x3010, %r13d\n"                                                            \
                  "cli\n"                                                                          \
                  "dec %r9d\n"                                                                     \
                  "jnz 1b\n"                                                                       \
                  "out %al, $0x99\n");                                                             \
    MARK(guest_##id##_trap)
STEPS_OVER(steps_priority,
           "movl $0x50, 0x80(%r15)\n"
           "movl $0x44041, 0x300(%r15)\n"
           "sti\n",
           "movl $0, 0x80(%r15)\n");
STEPS_OVER(steps_ipi, "sti\n", "movl $0x44041, 0x300(%r15)\n");
GUEST(on_step, 64,
      "mov (%rsp), %rbx\n"
      "mov 0x3010, %r8d\n"
      "mov %dr6, %rdx\n"
      "andl $~0x100, 16(%rsp)\n"
      "incl 0x3014\n"
      "iretq\n");

static void stepped_over(struct code code, uint64_t trap)
{
    start(code, 1);
    PLACE(HANDLER + 0x800, on_step);
    gate(LONG64, 1, HANDLER + 0x800);
    RUN(PIO);
    EQ(gpr(VMM_RBX), trap);
    EQ(gpr(VMM_R8), 9);
    EQ(gpr(VMM_R13), 10);
    EQ(gpr(VMM_RDX) >> 14 & 1, 1);
    EQ(ram32(COUNT), 10);
    EQ(ram32(COUNT + 4), 10);
    end();
}

static void single_steps(void)
{
    stepped_over(GUEST_CODE(steps_priority), AT(steps_priority, guest_steps_priority_trap));
    stepped_over(GUEST_CODE(steps_ipi), AT(steps_ipi, guest_steps_ipi_trap));
}

/* As far as the loop has been run, then by vcpu_step. */
GUEST(to_step, 64,
      APIC_ON "mov $3, %r9d\n"
              "guest_to_step_loop: movl $0x50, 0x80(%r15)\n"
              "mov 0x80(%r15), %ebx\n"
              "movl $0, 0xb0(%r15)\n"
              "movl $0, 0x80(%r15)\n"
              "mov 0x80(%r15), %r8d\n"
              "dec %r9d\n"
              "jnz guest_to_step_loop\n"
              "out %al, $0x99\n"
              "mov $5, %r9d\n"
              "jmp guest_to_step_loop\n");
MARK(guest_to_step_loop);

static void steps(void)
{
    uint64_t rip;

    start(GUEST_CODE(to_step), 1);
    RUN(PIO);
    while (get_regs(cpu).rip != AT(to_step, guest_to_step_loop))
        STEP(STEP);
    for (unsigned round = 0; round < 5; round++)
        for (unsigned i = 0; i < 7; i++) {
            rip = get_regs(cpu).rip;
            STEP(STEP);
            CHECK(get_regs(cpu).rip != rip);
            if (i == 1)
                EQ(gpr(VMM_RBX), 0x50);
            if (i == 4)
                EQ(gpr(VMM_R8), 0);
            EQ(gpr(VMM_R9), i < 5 ? 5 - round : 4 - round);
        }
    RUN(PIO);
    EQ(gpr(VMM_RBX), 0x50);
    end();
}

/* ---- other registers ---- */

/* Pairs at RSI: an offset, with bit 31 if it is only read, and what is written; what is read comes
 * behind them. */
#define LIST 0x3100u
GUEST(accesses, 64,
      APIC_ON "mov $0x3100, %esi\n"
              "1: mov (%rsi), %eax\n"
              "test %eax, %eax\n"
              "jz 3f\n"
              "mov 4(%rsi), %ebx\n"
              "btr $31, %eax\n"
              "jc 2f\n"
              "mov %ebx, (%r15,%rax)\n"
              "2: mov (%r15,%rax), %ecx\n"
              "mov %ecx, 8(%rsi)\n"
              "add $16, %rsi\n"
              "jmp 1b\n"
              "3: out %al, $0x99\n"
              "mov $0x3100, %esi\n"
              "jmp 1b\n");

static void registers(void)
{
    static const struct {
        uint32_t offset, value, read;
    } list[] = {
        {0x80, 0x27, 0x27},
        {0xd0, 0x0f123456, 0x0f000000},
        {0xe0, 0, 0x0fffffff},
        {0xf0, 0x13f, 0x13f},
        {0x310, 0x12345678, 0x12000000},
        {0x300, 0xc4041, 0xc4041}, /* to all others, who do not exist */
        {0x310, 0xfe000000, 0xfe000000},
        {0x80000300, 0, 0xc4041},
        {0x320, 0x10042, 0x10042},
        {0x350, 0x10700, 0x10700},
        {0x360, 0x10400, 0x10400},
        {0x370, 0x100fe, 0x100fe},
        {0x3e0, 0xb, 0xb},
        {0x380, 0, 0},
        {0x80000390, 0, 0},
        {0x280, 0, 0},
        {0x80000020, 0, 0},
        {0x80000100, 0, 0},
        {0x80000270, 0, 0},
        {0x20, 0, 0}, /* reads, or keeps, what is there */
        {0x800000a0, 0, 0x27},
        {0x80, 0, 0},
        {0x800000a0, 0, 0},
    };
    const unsigned n = sizeof(list) / sizeof(list[0]);

    start(GUEST_CODE(accesses), 1);
    for (unsigned i = 0; i < n; i++) {
        poke(LIST + 16 * i, list[i].offset, 4);
        poke(LIST + 16 * i + 4, list[i].value, 4);
    }
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < n; i++)
            poke(LIST + 16 * i + 8, 0xdeadbeef, 4);
        RUN(PIO);
        for (unsigned i = 0; i < n; i++)
            if (ram32(LIST + 16 * i + 8) != list[i].read)
                FAIL("register %#x, round %u: %#x, not %#x", list[i].offset, round,
                     ram32(LIST + 16 * i + 8), list[i].read);
    }
    end();
}

GUEST(timer, 64,
      APIC_ON "movl $0xb, 0x3e0(%r15)\n"
              "movl $0x10041, 0x320(%r15)\n"
              "movl $0x7fffffff, 0x380(%r15)\n"
              "mov 0x390(%r15), %ebx\n"
              "mov $1000, %ecx\n"
              "1: loop 1b\n"
              "mov 0x390(%r15), %edx\n"
              "mov 0x380(%r15), %esi\n"
              "out %al, $0x99\n");

static void timer_counts(void)
{
    start(GUEST_CODE(timer), 1);
    RUN(PIO);
    CHECK(gpr(VMM_RBX) > gpr(VMM_RDX) && gpr(VMM_RBX) <= 0x7fffffff);
    EQ(gpr(VMM_RSI), 0x7fffffff);
    end();
}

/* ---- interrupts ---- */

/* 0x61 arrives in the handler of 0x41. */
GUEST(nests, 64,
      APIC_ON "sti\n"
              "mov $20, %r9d\n"
              "1: movl $0x44041, 0x300(%r15)\n"
              "2: mov 0x3010, %eax\n"
              "cmp $2, %eax\n"
              "jne 2b\n"
              "movl $0, 0x3010\n"
              "dec %r9d\n"
              "jnz 1b\n"
              "mov 0x3014, %eax\n"
              "out %al, $0x99\n");
GUEST(in_service, 64,
      "movl $0x44061, 0x300(%r15)\n"
      "mov 0x120(%r15), %r8d\n"
      "mov 0x230(%r15), %r10d\n"
      "mov 0xa0(%r15), %r11d\n"
      "mov 0x300(%r15), %r12d\n"
      "movl $0, 0xb0(%r15)\n"
      "mov 0x120(%r15), %r13d\n"
      "mov 0x230(%r15), %r14d\n"
      "mov 0xa0(%r15), %ebp\n"
      "incl 0x3010\n"
      "incl 0x3014\n"
      "iretq\n");

static void interrupts_in_service(void)
{
    start(GUEST_CODE(nests), 1);
    PLACE(HANDLER + 0x800, in_service);
    gate(LONG64, 0x41, HANDLER + 0x800);
    RUN(PIO);
    EQ(gpr(VMM_R8), 2);
    EQ(gpr(VMM_R10), 2);
    EQ(gpr(VMM_R11), 0x40);
    EQ(gpr(VMM_R12), 0x44061);
    EQ(gpr(VMM_R13), 0);
    EQ(gpr(VMM_R14), 2);
    EQ(gpr(VMM_RBP), 0);
    EQ(gpr(VMM_RAX), 20);
    end();
}

GUEST(ipis, 64,
      APIC_ON "sti\n"
              "mov $100, %r9d\n"
              "1: movl $0x44041, 0x300(%r15)\n"
              "nop\n"
              "movl $0x44061, 0x300(%r15)\n"
              "nop\n"
              "dec %r9d\n"
              "jnz 1b\n"
              "cli\n"
              "movl $0x44005, 0x300(%r15)\n" /* no vector: an error */
              "movl $0, 0x280(%r15)\n"
              "mov 0x280(%r15), %ebx\n"
              "out %al, $0x99\n");

static void ipis_to_itself(void)
{
    start(GUEST_CODE(ipis), 1);
    RUN(PIO);
    EQ(ram32(COUNT), 200);
    EQ(gpr(VMM_RBX) & 0x60, 0x20);
    end();
}

/* ---- where it is ---- */

/* Runs to the next PIO. Accesses that meet nobody read as ones; where the controllers are in the
 * kernel, they are exits. */
static void run_past_nobody(void)
{
    OK(vcpu_run(cpu, &ex));
    while (ex.reason == VMM_EXIT_MMIO) {
        EQ(ex.u.mmio.gpa >> 12, APIC >> 12);
        if (ex.u.mmio.access == VMM_ACCESS_READ)
            ex.u.mmio.data = UINT64_MAX;
        OK(vcpu_run(cpu, &ex));
    }
    EQ(ex.reason, VMM_EXIT_PIO);
}

/* A local APIC that moves by a page, and back. */
GUEST(moves, 64,
      APIC_ON
      "mov $3, %r9d\n"
      "1: mov 0x30(%r15), %ebx\n"
      "movl $0x20, 0x80(%r15)\n" MOVE_TO(0xfee01900) "mov 0x1030(%r15), %esi\n"
                                                     "mov 0x1080(%r15), %r8d\n"
                                                     "mov 0x30(%r15), %edi\n" /* nobody */
                                                     "movl $0x50, 0x80(%r15)\n"
                                                     "mov 0x1080(%r15), %r10d\n" MOVE_TO(
                                                         0xfee00900) "mov 0x30(%r15), %r12d\n"
                                                                     "mov 0x80(%r15), %r13d\n"
                                                                     "movl $0, 0x80(%r15)\n"
                                                                     "dec %r9d\n"
                                                                     "jnz 1b\n"
                                                                     "out %al, $0x99\n");

static void page_that_moves(void)
{
    start(GUEST_CODE(moves), 1);
    run_past_nobody();
    EQ(gpr(VMM_RSI), gpr(VMM_RBX));
    EQ(gpr(VMM_R8), 0x20);
    EQ(gpr(VMM_RDI), 0xffffffff);
    EQ(gpr(VMM_R10), 0x20);
    EQ(gpr(VMM_R12), gpr(VMM_RBX));
    EQ(gpr(VMM_R13), 0x20);
    end();
}

/* Off, and on again, beside another whose page stays. */
GUEST(disables, 64,
      APIC_ON "mov $10, %r9d\n"
              "1: movl $0x30, 0x80(%r15)\n" MOVE_TO(
                  0xfee00100) "mov 0x80(%r15), %ebx\n"
                              "movl $0x77, 0x80(%r15)\n"
                              "out %al, $0x99\n" MOVE_TO(0xfee00900) "movl $0, 0x80(%r15)\n"
                                                                     "mov 0xf0(%r15), %esi\n"
                                                                     "movl $0x1ff, 0xf0(%r15)\n"
                                                                     "dec %r9d\n"
                                                                     "jnz 1b\n"
                                                                     "out %al, $0x99\n");
GUEST(stays, 64,
      "mov $0xfee00000, %r15d\n"
      "movl $0x1ff, 0xf0(%r15)\n"
      "xor %ecx, %ecx\n"
      "1: add $0x10, %cl\n"
      "mov %ecx, 0x80(%r15)\n"
      "cmp %ecx, 0x80(%r15)\n"
      "jne 2f\n"
      "cmpl $0x1ff, 0xf0(%r15)\n"
      "jne 2f\n"
      "incl 0x3018\n"
      "jmp 1b\n"
      "2: out %al, $0x98\n");

static void page_that_is_off(void)
{
    struct runner other;
    struct vcpu *second;

    start(GUEST_CODE(disables), 2);
    second = vm_vcpu(vm, 1);
    place(CODE + 0x400, GUEST_CODE(stays));
    start_at(second, LONG64, CODE + 0x400, SNIP_STACK - 0x800);
    run_start(&other, second);
    WAIT(ram32(COUNT + 8) >= 20);
    for (unsigned i = 0; i < 10; i++) {
        uint32_t at = ram32(COUNT + 8);

        run_past_nobody();
        EQ(gpr(VMM_RBX), 0xffffffff);
        WAIT(ram32(COUNT + 8) >= at + 5);
    }
    RUN(PIO);
    EQ(gpr(VMM_RSI), 0xff);
    WAIT(ram32(COUNT + 8) >= 200);
    vcpu_kick(second);
    run_join(&other, VMM_EXIT_INTERRUPTED);
    end();
}

static const struct conform_case cases[] = {
    CASE(priority_in_memory, "the task priority in memory is that of CR8", .flags = CASE_MODES),
    CASE(priority_while_tracked, "the same while written pages are tracked", .flags = CASE_MODES),
    CASE(other_instructions, "instructions other than moves access registers", .flags = CASE_MODES),
    CASE(single_steps, "a single step over an access traps before the interrupt that comes of it",
         .flags = CASE_MODES),
    CASE(steps, "vcpu_step over accesses to registers", .caps = VMM_CAP_STEP, .flags = CASE_MODES),
    CASE(registers, "registers read as they were written", .flags = CASE_MODES),
    CASE(timer_counts, "the timer's current count", .flags = CASE_MODES),
    CASE(interrupts_in_service, "ISR, IRR and PPR in a handler", .flags = CASE_MODES),
    CASE(ipis_to_itself, "the shorthand for self", .flags = CASE_MODES),
    CASE(page_that_moves, "a local APIC that moves leaves nothing at its page",
         .flags = CASE_MODES),
    CASE(page_that_is_off, "a disabled local APIC beside one that is not", .flags = CASE_MODES),
};

AREA(apic, cases);
