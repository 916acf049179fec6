/* SPDX-License-Identifier: BSD-2-Clause */
/* irq.c: the interrupt controllers of VMM_IRQCHIP_PC, wherever they are: messages, lines, the 8259
 * pair, the IOAPIC, local APICs with timers and interprocessor interrupts. */
#include "conform.h"

/* The guest's side: R15 is the local APIC, R14 the IOAPIC; handlers count at COUNT. */
#define COUNT   0x3010u
#define ORDER   0x3100u /* vectors as they came, a byte each; their number at ORDER_N */
#define ORDER_N 0x3018u
#define LOOPS   0x3020u /* wake-ups, or rounds of the main loop */
#define READY   0x3028u /* set when the set-up is done */

#define OUT(port, value) "mov $" #value ", %al\n out %al, $" #port "\n"
#define APIC_ON                                                                                    \
    OUT(0x21, 0xff)                                                                                \
    OUT(0xa1, 0xff) /* the 8259s stay out of it */                                                 \
    "mov $0xfee00000, %r15d\n"                                                                     \
    "mov $0xfec00000, %r14d\n"                                                                     \
    "movl $0x1ff, 0xf0(%r15)\n"                                                                    \
    "movl $0, 0x80(%r15)\n"
/* Interrupts are taken in HLT only, so that each of them is one round. */
#define LOOP_HALTED                                                                                \
    "movl $1, 0x3028\n"                                                                            \
    "1: sti\n"                                                                                     \
    "hlt\n"                                                                                        \
    "cli\n"                                                                                        \
    "incl 0x3020\n"                                                                                \
    "jmp 1b\n"

GUEST(halted, 64, APIC_ON LOOP_HALTED);
GUEST(spinning, 64,
      APIC_ON "movl $1, 0x3028\n"
              "sti\n"
              "1: incl 0x3020\n"
              "jmp 1b\n");
/* Waits with interrupts off for [LOOPS], then takes what has come. */
GUEST(gathers, 64,
      APIC_ON "movl $1, 0x3028\n"
              "1: cmpl $0, 0x3020\n"
              "je 1b\n"
              "sti\n"
              "2: jmp 2b\n");
GUEST(on_apic, 64,
      "incl 0x3010\n"
      "movl $0, 0xb0(%r15)\n"
      "iretq\n");
GUEST(on_apic_no_eoi, 64,
      "incl 0x3010\n"
      "iretq\n");
/* One for each vector, 32 bytes apart: writes it into the list. */
GUEST(on_listed, 64,
      "push %rax\n"
      "mov 0x3018, %eax\n"
      "movb $0, 0x3100(%rax)\n" /* patched */
      "incl 0x3018\n"
      "movl $0, 0xb0(%r15)\n"
      "pop %rax\n"
      "iretq\n");
#define LISTED_IMM 14 /* where the 0 is */

/* Loads the guest's code on vCPU 0, `vector` leads to the handler. */
static void load(struct code code, unsigned vector, struct code handler)
{
    load_on(cpu, LONG64, code);
    memset(ram + DATA, 0, 4096);
    place(HANDLER, handler);
    gate(LONG64, vector, HANDLER);
}

static void start(struct code code, unsigned vector, struct code handler, uint32_t ncpus)
{
    begin(VMM_IRQCHIP_PC, 0, ncpus);
    load(code, vector, handler);
}
#define START(id, vector) start(GUEST_CODE(id), vector, GUEST_CODE(on_apic), 1)

static struct runner r;

static void go(void)
{
    run_start(&r, cpu);
    WAIT(ram32(READY) == 1);
}

static void stop(void)
{
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

/* The handler runs no more. */
static void settled(uint32_t count)
{
    for (int i = 0; i < 20; i++)
        conform_nap();
    EQ(ram32(COUNT), count);
}

static uint64_t msi_address(uint32_t apic_id)
{
    return 0xfee00000 | apic_id << 12;
}

/* ---- messages ---- */

static void message_to_running_code(void)
{
    START(spinning, 0x41);
    go();
    for (uint32_t i = 1; i <= 50; i++) {
        OK(vm_irq_msi(vm, msi_address(0), 0x41));
        WAIT(ram32(COUNT) == i);
    }
    settled(50);
    stop();
}

static void message_ends_hlt(void)
{
    START(halted, 0x41);
    go();
    for (uint32_t i = 1; i <= 50; i++) {
        OK(vm_irq_msi(vm, msi_address(0), 0x41));
        WAIT(ram32(COUNT) == i && ram32(LOOPS) == i);
    }
    stop();
}

static void message_in_user_mode(void)
{
    START(spinning, 0x41);
    struct vcpu_regs regs = get_regs(cpu);
    go();
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    start_at(cpu, USER64, CODE + (uint32_t)(guest_spinning_end - guest_spinning) - 9, 0x8000);
    regs = get_regs(cpu);
    regs.rflags |= 0x200;
    regs.gpr[VMM_R15] = 0xfee00000;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    run_start(&r, cpu);
    for (uint32_t i = 1; i <= 20; i++) {
        uint32_t loops = ram32(LOOPS);

        OK(vm_irq_msi(vm, msi_address(0), 0x41));
        WAIT(ram32(COUNT) == i && ram32(LOOPS) != loops);
    }
    stop();
}

static void message_as_nmi(void)
{
    START(spinning, 2);
    place(HANDLER, GUEST_CODE(on_apic_no_eoi));
    go();
    for (uint32_t i = 1; i <= 10; i++) {
        OK(vm_irq_msi(vm, msi_address(0), 4u << 8));
        WAIT(ram32(COUNT) == i);
    }
    stop();
}

static void message_to_one_vcpu(void)
{
    struct runner other;
    struct vcpu *second;

    start(GUEST_CODE(halted), 0x41, GUEST_CODE(on_apic), 2);
    second = vm_vcpu(vm, 1);
    start_at(second, LONG64, CODE, SNIP_STACK - 0x800);
    go();
    *(volatile uint32_t *)(void *)(ram + READY) = 0;
    run_start(&other, second);
    WAIT(ram32(READY) == 1);
    OK(vm_irq_msi(vm, msi_address(1), 0x41));
    WAIT(ram32(COUNT) == 1);
    vcpu_kick(second);
    run_join(&other, VMM_EXIT_INTERRUPTED);
    OK(vm_irq_msi(vm, msi_address(1), 0x41)); /* it does not run: pending there */
    settled(1);
    OK(vm_irq_msi(vm, msi_address(0), 0x41));
    WAIT(ram32(COUNT) == 2);
    run_start(&other, second);
    WAIT(ram32(COUNT) == 3);
    vcpu_kick(second);
    run_join(&other, VMM_EXIT_INTERRUPTED);
    stop();
}

static void what_messages_refuse(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    RESULT(vm_irq_msi(vm, 0, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_msi(vm, 0xfedfffff, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_msi(vm, 0xfef00000, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_msi(vm, 0x1fee00000, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_set(vm, 24, 1), VMM_E_RANGE);
    RESULT(vm_irq_pulse(vm, 24), VMM_E_RANGE);
    OK(vm_irq_set(vm, 2, 1)); /* no effect */
    OK(vm_irq_set(vm, 2, 0));
    end();
}

static void without_controllers(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    RESULT(vm_irq_set(vm, 4, 1), VMM_E_STATE);
    RESULT(vm_irq_pulse(vm, 4), VMM_E_STATE);
    RESULT(vm_irq_msi(vm, msi_address(0), 0x41), VMM_E_STATE);
    RESULT(vm_irq_on_eoi(vm, 4, NULL, NULL), VMM_E_STATE);
    RESULT(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, msi_address(0), 0x41), VMM_E_STATE);
    RESULT(vm_irq_fd(vm, 4, 0, -1), VMM_E_STATE);
    RESULT(vm_irq_fd_remove(vm, 4, 0), VMM_E_STATE);
    CHECK(!cpu_has(1, 3, 9)); /* CPUID offers no APIC */
    end();
}

/* ---- local APIC ---- */

/* Handlers that list their vectors. */
static void list(unsigned index, unsigned vector)
{
    uint32_t at = HANDLER + index * 0x40;

    place(at, GUEST_CODE(on_listed));
    EQ(peek(at + LISTED_IMM, 1), 0);
    poke(at + LISTED_IMM, vector, 1);
    gate(LONG64, vector, at);
}

static void highest_vector_first(void)
{
    start(GUEST_CODE(gathers), 0x41, GUEST_CODE(on_apic), 1);
    list(0, 0x41);
    list(1, 0x91);
    list(2, 0x61);
    go();
    OK(vm_irq_msi(vm, msi_address(0), 0x41));
    OK(vm_irq_msi(vm, msi_address(0), 0x91));
    OK(vm_irq_msi(vm, msi_address(0), 0x61));
    OK(vm_irq_msi(vm, msi_address(0), 0x61)); /* merged */
    poke(LOOPS, 1, 4);
    WAIT(ram32(ORDER_N) == 3);
    EQ(peek(ORDER, 3), 0x416191);
    for (int i = 0; i < 10; i++)
        conform_nap();
    EQ(ram32(ORDER_N), 3);
    stop();
}

GUEST(task_priority, 64,
      APIC_ON "mov $5, %eax\n"
              "mov %rax, %cr8\n"
              "movl $0x4041, 0x300(%r15)\n" /* to APIC id 0: itself */
              "movl $0x4061, 0x300(%r15)\n"
              "sti\n"
              "nop\n"
              "mov 0x3010, %ebx\n" /* only the one above the priority has come */
              "xor %eax, %eax\n"
              "mov %rax, %cr8\n"
              "nop\n"
              "mov 0x3010, %ecx\n"
              "mov 0x80(%r15), %edx\n"
              "cli\n"
              "out %al, $0x99\n");

static void priority_of_the_task(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    load(GUEST_CODE(task_priority), 0x41, GUEST_CODE(on_apic));
    gate(LONG64, 0x61, HANDLER);
    RUN(PIO);
    EQ(gpr(VMM_RBX), 1);
    EQ(gpr(VMM_RCX), 2);
    EQ(gpr(VMM_RDX), 0);
    end();
}

/* The trap of a single step comes before the interrupt that its instruction has let through. */
GUEST(stepped_priority, 64,
      APIC_ON "mov $5, %eax\n"
              "mov %rax, %cr8\n"
              "movl $0x4041, 0x300(%r15)\n"
              "xor %eax, %eax\n"
              "sti\n"
              "pushf\n"
              "orl $0x100, (%rsp)\n"
              "popf\n"
              "mov %rax, %cr8\n"
              "guest_stepped_priority_trap: nop\n"
              "hlt\n");
GUEST(on_stepped, 64,
      "mov (%rsp), %rbx\n"
      "mov 0x3010, %ecx\n"
      "mov %dr6, %rdx\n"
      "out %al, $0x99\n"
      "andl $~0x100, 16(%rsp)\n"
      "iretq\n");
MARK(guest_stepped_priority_trap);

static void single_step_of_the_priority(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    load(GUEST_CODE(stepped_priority), 0x41, GUEST_CODE(on_apic));
    PLACE(HANDLER + 0x800, on_stepped);
    gate(LONG64, 1, HANDLER + 0x800);
    RUN(PIO);
    EQ(gpr(VMM_RBX), AT(stepped_priority, guest_stepped_priority_trap));
    EQ(gpr(VMM_RCX), 0);
    EQ(gpr(VMM_RDX) >> 14 & 1, 1);
    run_start(&r, cpu);
    WAIT(ram32(COUNT) == 1);
    settled(1);
    stop();
}

static void cr8_in_registers(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    load(GUEST_CODE(spinning), 0x41, GUEST_CODE(on_apic));
    struct vcpu_regs regs = get_regs(cpu);
    regs.cr8 = 9;
    set_regs(cpu, &regs, VMM_REGS_CONTROL);
    EQ(get_regs(cpu).cr8, 9);
    EQ(get_regs(cpu).apic_base, 0xfee00900);
    end();
}

GUEST(one_shot, 64,
      APIC_ON "movl $0xb, 0x3e0(%r15)\n" /* divide by 1 */
              "movl $0x41, 0x320(%r15)\n"
              "movl $200000, 0x380(%r15)\n" LOOP_HALTED);

static void timer_once(void)
{
    START(one_shot, 0x41);
    run_start(&r, cpu);
    WAIT(ram32(COUNT) == 1);
    settled(1);
    stop();
}

GUEST(periodic, 64,
      APIC_ON "movl $0xb, 0x3e0(%r15)\n"
              "movl $0x20041, 0x320(%r15)\n"
              "movl $1000000, 0x380(%r15)\n" LOOP_HALTED);

static void timer_periodic(void)
{
    START(periodic, 0x41);
    run_start(&r, cpu);
    WAIT(ram32(COUNT) >= 5);
    stop();
}

GUEST(deadline, 64,
      APIC_ON "movl $0x40041, 0x320(%r15)\n"
              "mfence\n"
              "rdtsc\n"
              "add $1000000, %eax\n"
              "adc $0, %edx\n"
              "mov $0x6e0, %ecx\n"
              "wrmsr\n" LOOP_HALTED);

static void timer_deadline(void)
{
    START(deadline, 0x41);
    if (!cpu_has(1, 2, 24))
        outcome_not_offered("TSC deadline in CPUID");
    run_start(&r, cpu);
    WAIT(ram32(COUNT) == 1);
    settled(1);
    stop();
}

GUEST(x2apic, 64,
      "mov $0x1b, %ecx\n"
      "rdmsr\n"
      "or $0x400, %eax\n"
      "wrmsr\n"
      "mov $0x80f, %ecx\n"
      "mov $0x1ff, %eax\n"
      "xor %edx, %edx\n"
      "wrmsr\n"
      "mov $0x802, %ecx\n" /* id */
      "rdmsr\n"
      "mov %eax, %ebx\n"
      "sti\n"
      "mov $20, %esi\n"
      "1: mov $0x83f, %ecx\n" /* self IPI */
      "mov $0x41, %eax\n"
      "wrmsr\n"
      "nop\n"
      "dec %esi\n"
      "jnz 1b\n"
      "cli\n"
      "out %al, $0x99\n");
GUEST(on_x2apic, 64,
      "incl 0x3010\n"
      "push %rax\n"
      "push %rcx\n"
      "push %rdx\n"
      "mov $0x80b, %ecx\n"
      "xor %eax, %eax\n"
      "xor %edx, %edx\n"
      "wrmsr\n"
      "pop %rdx\n"
      "pop %rcx\n"
      "pop %rax\n"
      "iretq\n");

static void x2apic_mode(void)
{
    start(GUEST_CODE(x2apic), 0x41, GUEST_CODE(on_x2apic), 1);
    RUN(PIO);
    EQ(gpr(VMM_RBX), 0);
    EQ(ram32(COUNT), 20);
    end();
}

/* ---- interprocessor interrupts ---- */

/* Sends RCX times the ICR R8 (low) and R9 (high), and waits each time for the counter. */
GUEST(sends, 64,
      APIC_ON "1: cmpl $2, 0x3028\n" /* the other is ready */
              "jne 1b\n"
              "xor %ebx, %ebx\n"
              "2: movl %r9d, 0x310(%r15)\n"
              "movl %r8d, 0x300(%r15)\n"
              "inc %ebx\n"
              "3: pause\n"
              "cmp %ebx, 0x3010\n"
              "jb 3b\n"
              "loop 2b\n"
              "out %al, $0x99\n");
GUEST(receives, 64,
      APIC_ON "movl $2, 0x3028\n"
              "1: sti\n"
              "hlt\n"
              "jmp 1b\n");

static void ipi(uint32_t icr_low, unsigned vector, struct code handler)
{
    struct runner other;
    struct vcpu *second;
    struct vcpu_regs regs;

    start(GUEST_CODE(sends), vector, handler, 2);
    second = vm_vcpu(vm, 1);
    place(CODE + 0x400, GUEST_CODE(receives));
    start_at(second, LONG64, CODE + 0x400, SNIP_STACK - 0x800);
    regs = get_regs(cpu);
    regs.gpr[VMM_RCX] = 100;
    regs.gpr[VMM_R8] = icr_low;
    regs.gpr[VMM_R9] = 1u << 24;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    run_start(&other, second);
    RUN(PIO);
    EQ(ram32(COUNT), 100);
    vcpu_kick(second);
    run_join(&other, VMM_EXIT_INTERRUPTED);
    end();
}

static void ipi_fixed(void)
{
    ipi(0x4041, 0x41, GUEST_CODE(on_apic));
}

static void ipi_nmi(void)
{
    ipi(0x4400, 2, GUEST_CODE(on_apic_no_eoi));
}

static void ipi_to_all_others(void)
{
    ipi(0xc4041, 0x41, GUEST_CODE(on_apic));
}

GUEST(starts_second, 64,
      APIC_ON "movl $0x01000000, 0x310(%r15)\n"
              "movl $0x4500, 0x300(%r15)\n" /* INIT */
              "movl $0x01000000, 0x310(%r15)\n"
              "movl $0x4606, 0x300(%r15)\n" /* SIPI to 0x6000 */
              "1: pause\n"
              "cmpl $0, 0x3010\n"
              "je 1b\n"
              "out %al, $0x99\n");
GUEST(second_cpu, 16,
      "mov %cs, %ax\n"
      "xor %bx, %bx\n"
      "mov %bx, %ds\n"
      "movw $1, 0x3010\n"
      "out %al, $0x98\n");

static void init_and_sipi(void)
{
    struct runner other;
    struct vcpu *second;

    start(GUEST_CODE(starts_second), 0x41, GUEST_CODE(on_apic), 2);
    second = vm_vcpu(vm, 1);
    PLACE(0x6000, second_cpu);
    EQ(get_regs(second).activity, VMM_WAIT_SIPI);
    run_start(&other, second);
    RUN(PIO);
    run_join(&other, VMM_EXIT_PIO);
    EQ(other.exit.u.pio.port, 0x98);
    EQ(other.exit.mode, VMM_MODE_REAL);
    EQ(get_regs(second).gpr[VMM_RAX] & 0xffff, 0x600);
    EQ(get_regs(second).seg[VMM_CS].base, 0x6000);
    EQ(get_regs(second).activity, VMM_ACTIVE);
    end();
}

/* ---- lines and the IOAPIC ---- */

/* Programs pin R8 with R9 (low) and R10 (high). */
#define PROGRAM_PIN                                                                                \
    APIC_ON "lea 0x11(%r8,%r8), %eax\n"                                                            \
            "mov %eax, (%r14)\n"                                                                   \
            "mov %r10d, 0x10(%r14)\n"                                                              \
            "dec %eax\n"                                                                           \
            "mov %eax, (%r14)\n"                                                                   \
            "mov %r9d, 0x10(%r14)\n"
GUEST(pin, 64, PROGRAM_PIN "mov 0x10(%r14), %ebx\n" LOOP_HALTED);

#define PIN_LEVEL  0x8000u
#define PIN_MASKED 0x10000u

static void set_pin(uint32_t number, uint32_t low)
{
    struct vcpu_regs regs = get_regs(cpu);

    regs.gpr[VMM_R8] = number;
    regs.gpr[VMM_R9] = low;
    regs.gpr[VMM_R10] = 0; /* to APIC id 0 */
    set_regs(cpu, &regs, VMM_REGS_GPR);
}

static void edges(void)
{
    START(pin, 0x41);
    set_pin(5, 0x41);
    go();
    for (uint32_t i = 1; i <= 20; i++) {
        OK(vm_irq_pulse(vm, 5));
        WAIT(ram32(COUNT) == i);
    }
    OK(vm_irq_set(vm, 5, 1));
    WAIT(ram32(COUNT) == 21);
    OK(vm_irq_set(vm, 5, 1)); /* idempotent */
    settled(21);
    OK(vm_irq_set(vm, 5, 0));
    settled(21);
    OK(vm_irq_set(vm, 5, 1));
    WAIT(ram32(COUNT) == 22);
    stop();
}

static void levels(void)
{
    uint32_t at;

    START(pin, 0x41);
    set_pin(17, 0x41 | PIN_LEVEL); /* a line that only the IOAPIC has */
    go();
    for (int i = 0; i < 3; i++) {
        at = ram32(COUNT);
        OK(vm_irq_set(vm, 17, 1));
        WAIT(ram32(COUNT) >= at + 5); /* again after each EOI */
        OK(vm_irq_set(vm, 17, 0));
        /* The last may have been on its way; then no more come. */
        do {
            at = ram32(COUNT);
            for (int k = 0; k < 40; k++)
                conform_nap();
        } while (ram32(COUNT) != at);
    }
    stop();
}

static void line_0_is_pin_2(void)
{
    START(pin, 0x41);
    set_pin(2, 0x41);
    go();
    OK(vm_irq_pulse(vm, 0));
    WAIT(ram32(COUNT) == 1);
    OK(vm_irq_pulse(vm, 2)); /* the slave's line: no effect */
    settled(1);
    stop();
}

static void masked_pins(void)
{
    START(pin, 0x41);
    set_pin(6, 0x41 | PIN_LEVEL | PIN_MASKED);
    go();
    OK(vm_irq_set(vm, 6, 1));
    settled(0);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    load(GUEST_CODE(pin), 0x41, GUEST_CODE(on_apic));
    set_pin(6, 0x41 | PIN_LEVEL);
    go();
    WAIT(ram32(COUNT) >= 1); /* the level is still there */
    OK(vm_irq_set(vm, 6, 0));
    stop();
}

static _Atomic uint32_t eois;
static _Atomic bool wrong_thread;

static void on_eoi(void *opaque, uint32_t line)
{
    (void)opaque;
    if (vcpu_current(vm) != cpu)
        wrong_thread = true;
    eois++;
    vm_irq_set(vm, line, 0);
}

/* As `pin`, and then in x2APIC mode. */
GUEST(x2apic_pin, 64,
      PROGRAM_PIN "mov $0x1b, %ecx\n"
                  "rdmsr\n"
                  "or $0x400, %eax\n"
                  "wrmsr\n" LOOP_HALTED);

static void call_back(struct code code, struct code handler)
{
    eois = 0;
    start(code, 0x41, handler, 1);
    set_pin(18, 0x41 | PIN_LEVEL);
    OK(vm_irq_on_eoi(vm, 18, on_eoi, NULL));
    RESULT(vm_irq_on_eoi(vm, 18, on_eoi, NULL), VMM_E_EXIST);
    RESULT(vm_irq_on_eoi(vm, 24, on_eoi, NULL), VMM_E_RANGE);
    go();
    for (uint32_t i = 1; i <= 20; i++) {
        OK(vm_irq_set(vm, 18, 1));
        WAIT(eois == i);
        WAIT(ram32(COUNT) == i && ram32(LOOPS) == i);
    }
    settled(20);
    CHECK(!wrong_thread); /* on that of the vCPU */
    OK(vm_irq_on_eoi(vm, 18, NULL, NULL));
    OK(vm_irq_set(vm, 18, 1));
    WAIT(ram32(COUNT) > 25);
    EQ(eois, 20);
    OK(vm_irq_set(vm, 18, 0));
    stop();
}

static void eoi_callbacks(void)
{
    call_back(GUEST_CODE(pin), GUEST_CODE(on_apic));
    call_back(GUEST_CODE(x2apic_pin), GUEST_CODE(on_x2apic));
}

static void lower(struct device *d)
{
    (void)d;
    OK(vm_irq_set(vm, 19, 0));
}

GUEST(on_device, 64,
      "push %rax\n"
      "mov $0xd0000000, %eax\n"
      "mov (%rax), %eax\n" /* the device lowers its line */
      "incl 0x3010\n"
      "movl $0, 0xb0(%r15)\n"
      "pop %rax\n"
      "iretq\n");

static void device_with_a_line(void)
{
    static struct device d = {.act = lower, .quiet = true};

    start(GUEST_CODE(pin), 0x41, GUEST_CODE(on_device), 1);
    device_mmio(&d, MMIO, 0x1000);
    set_pin(19, 0x41 | PIN_LEVEL);
    go();
    for (uint32_t i = 1; i <= 50; i++) {
        OK(vm_irq_set(vm, 19, 1));
        WAIT(ram32(COUNT) == i);
    }
    settled(50);
    EQ(d.n, 50);
    stop();
}

/* ---- the 8259 pair ---- */

#define PIC_ON                                                                                     \
    OUT(0x20, 0x11)                                                                                \
    OUT(0x21, 0x30)                                                                                \
    OUT(0x21, 0x04)                                                                                \
    OUT(0x21, 0x01)                                                                                \
    OUT(0xa0, 0x11) OUT(0xa1, 0x38) OUT(0xa1, 0x02) OUT(0xa1, 0x01) OUT(0x21, 0x00) OUT(0xa1, 0x00)
/* The APIC has to be on for its LVT to be unmasked (SDM Vol. 3A 11.4.7.2). */
#define LINT0_EXTINT                                                                               \
    "mov $0xfee00000, %r15d\n"                                                                     \
    "movl $0x1ff, 0xf0(%r15)\n"                                                                    \
    "movl $0x700, 0x350(%r15)\n"
GUEST(pics, 64, PIC_ON LINT0_EXTINT LOOP_HALTED);
GUEST(pics_gather, 64,
      PIC_ON LINT0_EXTINT "movl $1, 0x3028\n"
                          "1: cmpl $0, 0x3020\n"
                          "je 1b\n"
                          "sti\n"
                          "2: jmp 2b\n");
GUEST(on_master, 64,
      "push %rax\n"
      "incl 0x3010\n"
      "mov $0x20, %al\n"
      "out %al, $0x20\n"
      "pop %rax\n"
      "iretq\n");
GUEST(on_slave, 64,
      "push %rax\n"
      "incl 0x3010\n"
      "mov $0x20, %al\n"
      "out %al, $0xa0\n"
      "out %al, $0x20\n"
      "pop %rax\n"
      "iretq\n");

static void pic_master(void)
{
    start(GUEST_CODE(pics), 0x34, GUEST_CODE(on_master), 1);
    go();
    for (uint32_t i = 1; i <= 10; i++) {
        OK(vm_irq_pulse(vm, 4));
        WAIT(ram32(COUNT) == i);
    }
    settled(10);
    stop();
}

static void pic_slave(void)
{
    start(GUEST_CODE(pics), 0x3a, GUEST_CODE(on_slave), 1);
    go();
    for (uint32_t i = 1; i <= 10; i++) {
        OK(vm_irq_set(vm, 10, 1));
        WAIT(ram32(COUNT) == i);
        OK(vm_irq_set(vm, 10, 0));
    }
    settled(10);
    stop();
}

static void pic_waits_for_eoi(void)
{
    start(GUEST_CODE(pics), 0x34, GUEST_CODE(on_apic_no_eoi), 1);
    go();
    OK(vm_irq_pulse(vm, 4));
    WAIT(ram32(COUNT) == 1);
    OK(vm_irq_pulse(vm, 4));
    OK(vm_irq_pulse(vm, 17)); /* not a line of the 8259s */
    settled(1);
    stop();
}

GUEST(on_pic_listed, 64,
      "push %rax\n"
      "mov 0x3018, %eax\n"
      "movb $0, 0x3100(%rax)\n"
      "incl 0x3018\n"
      "mov $0x20, %al\n"
      "out %al, $0xa0\n"
      "out %al, $0x20\n"
      "pop %rax\n"
      "iretq\n");

static void pic_priority(void)
{
    static const uint8_t lines[] = {7, 3, 12, 1};

    start(GUEST_CODE(pics_gather), 0x41, GUEST_CODE(on_apic), 1);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t at = HANDLER + i * 0x40;

        place(at, GUEST_CODE(on_pic_listed));
        EQ(peek(at + LISTED_IMM, 1), 0);
        poke(at + LISTED_IMM, 0x30u + lines[i], 1);
        gate(LONG64, 0x30u + lines[i], at);
    }
    go();
    for (unsigned i = 0; i < 4; i++)
        OK(vm_irq_set(vm, lines[i], 1));
    poke(LOOPS, 1, 4);
    WAIT(ram32(ORDER_N) == 4);
    EQ(peek(ORDER, 4), 0x37333c31); /* 1, 12 (at the input 2), 3, 7 */
    stop();
}

GUEST(ticks, 64,
      PIC_ON OUT(0x43, 0x34) OUT(0x40, 0xa9) OUT(0x40, 0x04) /* 1 ms */
      LINT0_EXTINT LOOP_HALTED);

static void timer_of_the_pc(void)
{
    start(GUEST_CODE(ticks), 0x30, GUEST_CODE(on_master), 1);
    OK(vmm_pit_create(vm));
    run_start(&r, cpu);
    WAIT(ram32(COUNT) >= 5);
    CHECK(vm_clock(vm) >= 4000000);
    stop();
}

/* ---- reset ---- */

static void reset_forgets_interrupts(void)
{
    START(halted, 0x41);
    go();
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    OK(vm_irq_msi(vm, msi_address(0), 0x41));
    OK(vm_reset(vm));
    load(GUEST_CODE(halted), 0x41, GUEST_CODE(on_apic));
    go();
    settled(0);
    OK(vm_irq_msi(vm, msi_address(0), 0x41));
    WAIT(ram32(COUNT) == 1);
    stop();
}

static const struct conform_case cases[] = {
    CASE(message_to_running_code, "vm_irq_msi interrupts running code, once for each",
         .flags = CASE_MODES),
    CASE(message_ends_hlt, "vm_irq_msi ends HLT", .flags = CASE_MODES),
    CASE(message_in_user_mode, "vm_irq_msi interrupts user mode", .flags = CASE_MODES),
    CASE(message_as_nmi, "a message with delivery mode NMI", .flags = CASE_MODES),
    CASE(message_to_one_vcpu, "a message reaches the vCPU of its APIC id", .flags = CASE_MODES),
    CASE(what_messages_refuse, "addresses and lines out of range are refused", .flags = CASE_MODES),
    CASE(without_controllers, "without an irqchip these functions return VMM_E_STATE"),
    CASE(highest_vector_first, "pending vectors are taken by priority; equal ones merge",
         .flags = CASE_MODES),
    CASE(priority_of_the_task, "CR8 holds back vectors of its class and below",
         .flags = CASE_MODES),
    CASE(single_step_of_the_priority,
         "a single step over MOV to CR8 traps before the interrupt that comes of it",
         .flags = CASE_MODES),
    CASE(cr8_in_registers, "CR8 and the APIC base are registers of the vCPU", .flags = CASE_MODES),
    CASE(timer_once, "the local APIC's timer fires once", .flags = CASE_MODES),
    CASE(timer_periodic, "the local APIC's timer fires periodically", .flags = CASE_MODES),
    CASE(timer_deadline, "the local APIC's timer fires at a TSC deadline", .flags = CASE_MODES),
    CASE(x2apic_mode, "x2APIC mode through MSRs", .flags = CASE_MODES),
    CASE(ipi_fixed, "interprocessor interrupts arrive, each once", .flags = CASE_MODES),
    CASE(ipi_nmi, "interprocessor NMIs arrive, each once", .flags = CASE_MODES),
    CASE(ipi_to_all_others, "the shorthand for all but self", .flags = CASE_MODES),
    CASE(init_and_sipi, "INIT and SIPI start a vCPU that waits", .flags = CASE_MODES),
    CASE(edges, "an edge on a line is one interrupt through the IOAPIC", .flags = CASE_MODES),
    CASE(levels, "a level interrupts until it is lowered", .flags = CASE_MODES),
    CASE(line_0_is_pin_2, "line 0 is pin 2 of the IOAPIC, line 2 nothing", .flags = CASE_MODES),
    CASE(masked_pins, "a masked pin keeps its level", .flags = CASE_MODES),
    CASE(eoi_callbacks, "vm_irq_on_eoi calls back at the guest's EOI, on the vCPU's thread",
         .flags = CASE_MODES),
    CASE(device_with_a_line, "a device's callback lowers its line", .flags = CASE_MODES),
    CASE(pic_master, "lines 0 to 7 through the 8259 and LINT0", .flags = CASE_MODES),
    CASE(pic_slave, "lines 8 to 15 through both 8259s", .flags = CASE_MODES),
    CASE(pic_waits_for_eoi, "the 8259 holds a line back until its EOI", .flags = CASE_MODES),
    CASE(pic_priority, "the 8259s' priorities", .flags = CASE_MODES),
    CASE(timer_of_the_pc, "the 8254's ticks end HLT", .flags = CASE_MODES),
    CASE(reset_forgets_interrupts, "vm_reset resets the controllers", .flags = CASE_MODES),
};

AREA(irq, cases);
