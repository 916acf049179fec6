/* SPDX-License-Identifier: BSD-2-Clause */
/* debug.c: steps, breakpoints, watchpoints and exception exits; the guest sees nothing of them. */
#include "conform.h"

GUEST(counts, 64, "1: inc %eax\n inc %ebx\n jmp 1b");
GUEST(string, 64, "mov $0x3000, %edi\n mov $4, %ecx\n xor %eax, %eax\n rep stosb\n hlt");
GUEST(divides, 64, "xor %ecx, %ecx\n div %ecx\n hlt");
GUEST(returns, 64, "nop\n iretq");
GUEST(port, 64, "mov $0x60, %edx\n in %dx, %al\n hlt");
GUEST(branches, 64, "call 1f\n hlt\n 1: push %rax\n pop %rbx\n ret");

static void breakpoint(uint64_t addr, uint32_t type, uint32_t len)
{
    struct vmm_debug debug = {
        .size = sizeof(debug), .nbreakpoints = 1, .breakpoints = {{addr, type, len}}};

    OK(vcpu_set_debug(cpu, &debug));
}

static void exceptions(uint32_t mask)
{
    struct vmm_debug debug = {
        .size = sizeof(debug), .flags = VMM_DEBUG_EXCEPTIONS, .exception_mask = mask};

    OK(vcpu_set_debug(cpu, &debug));
}

/* ---- steps ---- */

static void step_at(uint64_t rip)
{
    STEP(STEP);
    EQ(ex.rip, rip);
}

static void steps(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, counts);
    for (unsigned i = 0; i < 10; i++) {
        step_at(CODE + 2);
        step_at(CODE + 4);
        step_at(CODE);
        EQ(gpr(VMM_RAX), i + 1);
        EQ(gpr(VMM_RBX), i + 1);
    }
    LOAD(LONG64, branches);
    step_at(CODE + 6);
    step_at(CODE + 7);
    step_at(CODE + 8);
    step_at(CODE + 5);
    end();
}

static void steps_in_every_mode(void)
{
    static const enum snip_mode modes[] = {REAL16,   PROT16, PROT32, USER32,
                                           COMPAT32, LONG64, USER64};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (unsigned m = 0; m < 7; m++) {
        LOAD(modes[m], counts);
        struct vcpu_regs before = get_regs(cpu), after;
        step_at(CODE + 2);
        step_at(CODE + 4);
        step_at(CODE);
        after = get_regs(cpu);
        EQ(after.rflags & 0x100, 0);
        EQ(after.dr[6], before.dr[6]);
        EQ(after.dr[7], before.dr[7]);
    }
    end();
}

static void step_of_a_string(void)
{
    unsigned n = 0;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, string);
    for (int i = 0; i < 3; i++)
        STEP(STEP);
    EQ(ex.rip, CODE + 12);
    do {
        STEP(STEP);
        n++;
    } while (ex.rip == CODE + 12);
    CHECK(n <= 4);
    EQ(gpr(VMM_RCX), 0);
    STEP(STEP); /* the HLT is executed ... */
    STEP(HLT);  /* ... and then halts */
    end();
}

static void step_into_a_handler(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, divides);
    PLACE(HANDLER, returns);
    gate(LONG64, 0, HANDLER);
    step_at(CODE + 2);
    STEP(STEP);
    if (ex.rip == CODE + 2) /* raising and delivering may be steps of their own */
        STEP(STEP);
    EQ(ex.rip, HANDLER);
    step_at(HANDLER + 1);
    step_at(CODE + 2);
    end();
}

static void step_of_an_injected_event(void)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_EXCEPTION, .vector = 0};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, counts);
    PLACE(HANDLER, returns);
    gate(LONG64, 0, HANDLER);
    OK(vcpu_inject(cpu, &e));
    step_at(HANDLER);
    step_at(HANDLER + 1);
    step_at(CODE);
    step_at(CODE + 2);
    end();
}

static void step_completes_an_access(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, port);
    STEP(STEP);
    STEP(PIO);
    EQ(ex.rip, CODE + 5);
    ex.u.pio.data = 0x77;
    step_at(CODE + 6);
    EQ(gpr(VMM_RAX), 0x77);
    end();
}

GUEST(trap_flag, 64, "pushf\n orl $0x100, (%rsp)\n popf\n nop\n nop\n hlt");

/* The guest's own single steps are its own. */
static void step_with_the_guests_tf(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, trap_flag);
    RUN(HLT);
    EQ(halted_in(&ex), 1);
    EQ(get_regs(cpu).dr[6] >> 14 & 1, 1);
    uint64_t rip = peek(gpr(VMM_RSP), 8), flags = peek(gpr(VMM_RSP) + 16, 8);
    EQ(flags >> 8 & 1, 1);
    LOAD(LONG64, trap_flag);
    for (int i = 0; i < 10; i++) {
        STEP(STEP);
        if (ex.rip >= SNIP_HANDLERS)
            break;
    }
    CHECK(ex.rip >= SNIP_HANDLERS);
    EQ(peek(gpr(VMM_RSP), 8), rip);
    end();
}

/* What single steps by the CPU's own means would show in, or would miss: flags that are stored and
 * loaded, repeated strings, shadows, faults, entries into the kernel. */
#define FLAGS_AND_STRINGS                                                                          \
    "mov $2, %ebp\n"                                                                               \
    "1: pushf\n"                                                                                   \
    "pop %rbx\n"                                                                                   \
    "mov $3, %ecx\n"                                                                               \
    "mov $0x3000, %esi\n"                                                                          \
    "lea 0x40(%rsi), %edi\n"                                                                       \
    "rep movsb\n"                                                                                  \
    "lodsb\n"                                                                                      \
    "mov %ss, %edx\n"                                                                              \
    "mov %edx, %ss\n"                                                                              \
    "push %rdx\n"                                                                                  \
    "pop %rdx\n"                                                                                   \
    "call 2f\n"                                                                                    \
    "xor %ecx, %ecx\n"                                                                             \
    "div %ecx\n" /* passed by its handler */                                                       \
    "mov $1, %eax\n"                                                                               \
    "xchg %eax, 0x3020\n"                                                                          \
    "std\n"                                                                                        \
    "pushf\n"                                                                                      \
    "cld\n"                                                                                        \
    "popf\n"                                                                                       \
    "cld\n"                                                                                        \
    "dec %ebp\n"                                                                                   \
    "jnz 1b\n"                                                                                     \
    "jmp 3f\n"                                                                                     \
    "2: xor %eax, %eax\n"                                                                          \
    "cpuid\n"                                                                                      \
    "ret\n"                                                                                        \
    "3: "
#define IN_A_ROUND 29u /* instructions, with the three of its handler */
GUEST(stepped, 64,
      FLAGS_AND_STRINGS "sti\n"
                        "nop\n"
                        "cli\n"
                        "hlt\n");
GUEST(stepped_user, 64,
      FLAGS_AND_STRINGS "syscall\n"
                        "mov %r11, %r12\n"
                        "hlt\n");
/* RF of the frame is not what this is about. */
GUEST(divide_passed, 64, "addq $2, (%rsp)\n andl $~0x10000, 16(%rsp)\n iretq");
GUEST(syscall_passed, 64, "mov %r11, 0x3038\n sysretq");

/* Registers, and all that the guest writes to: data, stacks. */
struct left {
    struct vcpu_regs regs;
    uint8_t data[4096], stack[4096], kernel_stack[4096];
};

static struct left what_is_left(void)
{
    struct left l = {.regs = get_regs(cpu)};

    memcpy(l.data, ram + DATA, sizeof(l.data));
    memcpy(l.stack, ram + SNIP_STACK - sizeof(l.stack), sizeof(l.stack));
    memcpy(l.kernel_stack, ram + SNIP_KSTACK - sizeof(l.kernel_stack), sizeof(l.kernel_stack));
    return l;
}

static void load_stepped(bool user)
{
    struct vcpu_regs regs;

    load_on(cpu, user ? USER64 : LONG64, user ? GUEST_CODE(stepped_user) : GUEST_CODE(stepped));
    PLACE(HANDLER, divide_passed);
    PLACE(HANDLER + 0x800, syscall_passed);
    gate(LONG64, 0, HANDLER);
    regs = get_regs(cpu);
    regs.star = (uint64_t)(SEL_UCODE64 - 16) << 48 | (uint64_t)SEL_CODE64 << 32;
    regs.lstar = HANDLER + 0x800;
    regs.sfmask = 0x700;
    set_regs(cpu, &regs, VMM_REGS_MSR);
}

/* The HLT is one more step; in user mode it leads to the handler of #GP. */
static unsigned step_to_the_halt(bool user)
{
    uint64_t last = user ? END_OF(stepped_user) : END_OF(stepped);
    unsigned n = 0;

    do {
        STEP(STEP);
        EQ(get_regs(cpu).rflags >> 8 & 1, 0);
        n++;
    } while (ex.rip != last - 1 && n < 1000);
    return n;
}

static void steps_leave_no_trace(void)
{
    static struct left ran, stepped;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int user = 0; user < 2; user++) {
        load_stepped(user);
        RUN(HLT);
        if (user)
            EQ(halted_in(&ex), 13);
        ran = what_is_left();
        load_stepped(user);
        EQ(step_to_the_halt(user), 2 + 2 * IN_A_ROUND + (user ? 4 : 3));
        RUN(HLT);
        stepped = what_is_left();
        CHECK(!memcmp(ran.data, stepped.data, sizeof(ran.data)));
        CHECK(!memcmp(ran.stack, stepped.stack, sizeof(ran.stack)));
        CHECK(!memcmp(ran.kernel_stack, stepped.kernel_stack, sizeof(ran.kernel_stack)));
        CHECK(!memcmp(ran.regs.gpr, stepped.regs.gpr, sizeof(ran.regs.gpr)));
        EQ(stepped.regs.rip, ran.regs.rip);
        EQ(stepped.regs.rflags, ran.regs.rflags);
        EQ(stepped.regs.dr[6], ran.regs.dr[6]);
    }
    end();
}

/* ---- breakpoints ---- */

static void breakpoints(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int user = 0; user < 2; user++) {
        load_on(cpu, user ? USER64 : LONG64, GUEST_CODE(counts));
        breakpoint(CODE + 2, VMM_BREAK_EXEC, 0);
        for (unsigned i = 0; i < 5; i++) {
            RUN(BREAKPOINT);
            EQ(ex.rip, CODE + 2); /* before the instruction */
            EQ(ex.u.debug.index, 0);
            EQ(ex.u.debug.addr, CODE + 2);
            EQ(gpr(VMM_RAX), i + 1);
            EQ(gpr(VMM_RBX), i); /* running again passes it once */
        }
        EQ(get_regs(cpu).dr[7], 0x400);
        EQ(get_regs(cpu).dr[6], 0xffff0ff0);
        OK(vcpu_set_debug(cpu, NULL));
        OK(vcpu_set_budget(cpu, 0, 1000000));
        RUN(BUDGET);
        OK(vcpu_set_budget(cpu, 0, 0));
    }
    end();
}

static void four_breakpoints(void)
{
    struct vmm_debug debug = {.size = sizeof(debug),
                              .nbreakpoints = 4,
                              .breakpoints = {{CODE + 5, VMM_BREAK_EXEC, 0},
                                              {CODE + 6, VMM_BREAK_EXEC, 0},
                                              {CODE + 7, VMM_BREAK_EXEC, 0},
                                              {CODE + 8, VMM_BREAK_EXEC, 0}}};
    static const unsigned order[] = {1, 2, 3, 0};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, branches);
    OK(vcpu_set_debug(cpu, &debug));
    for (unsigned i = 0; i < 4; i++) {
        RUN(BREAKPOINT);
        EQ(ex.u.debug.index, order[i]);
        EQ(ex.rip, CODE + 5 + order[i]);
    }
    RUN(HLT);
    end();
}

GUEST(own_registers, 64,
      "mov $0x5000, %eax\n"
      "mov %rax, %dr0\n"
      "mov %dr0, %rbx\n"
      "mov %dr7, %rcx\n"
      "mov %dr6, %rdx\n"
      "hlt");

static void the_guests_registers_are_its_own(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, own_registers);
    breakpoint(CODE + 5, VMM_BREAK_EXEC, 0);
    RUN(BREAKPOINT);
    RUN(HLT);
    EQ(gpr(VMM_RBX), 0x5000);
    EQ(gpr(VMM_RCX), 0x400);
    EQ(gpr(VMM_RDX), 0xffff0ff0);
    EQ(get_regs(cpu).dr[0], 0x5000);
    end();
}

GUEST(own_breakpoint, 64,
      "mov $0x3000, %eax\n"
      "mov %rax, %dr0\n"
      "mov $0xd0602, %eax\n" /* 4 bytes, writes, global */
      "mov %rax, %dr7\n"
      "movl $1, 0x3000\n"
      "nop\n"
      "hlt");

static void the_guests_watchpoints(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, own_breakpoint);
    RUN(HLT);
    EQ(halted_in(&ex), 1);
    EQ(get_regs(cpu).dr[6] & 0xf, 1);
    EQ(peek(gpr(VMM_RSP), 8), END_OF(own_breakpoint) - 2);
    end();
}

static void breakpoints_end_with_the_vcpu(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, branches);
    breakpoint(CODE + 7, VMM_BREAK_EXEC, 0);
    RUN(BREAKPOINT);
    OK(vcpu_destroy(cpu));
    OK(vcpu_create(vm, 0, NULL, &cpu));
    LOAD(LONG64, branches);
    RUN(HLT);
    EQ(ex.rip, CODE + 6);
    EQ(get_regs(cpu).dr[7], 0x400);
    end();
}

/* ---- watchpoints ---- */

GUEST(accesses, 64,
      "mov $0x3000, %ebx\n"
      "mov $1, %eax\n"
      "mov %eax, (%rbx)\n"
      "mov 4(%rbx), %eax\n"
      "mov %al, 0x11(%rbx)\n"
      "mov 0x10(%rbx), %rcx\n"
      "hlt");

static void watchpoints(void)
{
    struct vmm_debug debug = {
        .size = sizeof(debug),
        .nbreakpoints = 2,
        .breakpoints = {{DATA, VMM_BREAK_WRITE, 4}, {DATA + 0x10, VMM_BREAK_ACCESS, 8}}};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, accesses);
    OK(vcpu_set_debug(cpu, &debug));
    RUN(WATCH);
    EQ(ex.u.debug.index, 0);
    EQ(ex.rip, CODE + 12); /* behind the instruction */
    EQ(peek(DATA, 4), 1);
    RUN(WATCH);
    EQ(ex.u.debug.index, 1);
    EQ(ex.rip, CODE + 18);
    RUN(WATCH);
    EQ(ex.rip, CODE + 22);
    RUN(HLT);
    EQ(get_regs(cpu).dr[6], 0xffff0ff0);
    end();
}

static void watchpoints_in_user_mode(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, accesses);
    breakpoint(DATA, VMM_BREAK_WRITE, 4);
    RUN(WATCH);
    EQ(ex.rip, CODE + 12);
    EQ(ex.cpl, 3);
    OK(vcpu_set_debug(cpu, NULL));
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    end();
}

/* ---- exceptions ---- */

GUEST(int3, 64, "nop\n int3\n hlt");

static void exception_exits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int user = 0; user < 2; user++) {
        enum snip_mode mode = user ? USER64 : LONG64;

        load_on(cpu, mode, GUEST_CODE(divides));
        exceptions(1u << 0 | 1u << 3);
        RUN(EXCEPTION);
        EQ(ex.u.debug.vector, 0);
        EQ(ex.rip, CODE + 2); /* before its delivery */
        RUN(HLT);             /* delivered */
        EQ(halted_in(&ex), 0);
        load_on(cpu, mode, GUEST_CODE(int3));
        RUN(EXCEPTION);
        EQ(ex.u.debug.vector, 3);
        EQ(ex.rip, CODE + 1); /* of the instruction, as for all exits */
        RUN(HLT);
        EQ(halted_in(&ex), 3);
        exceptions(1u << 14);
        load_on(cpu, mode, GUEST_CODE(int3));
        RUN(HLT); /* not one of the mask */
        EQ(halted_in(&ex), 3);
    }
    end();
}

GUEST(faults, 64, "mov %eax, 0x5018\n hlt");

static void page_fault_exits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, faults);
    exceptions(1u << 14);
    RUN(EXCEPTION);
    EQ(ex.u.debug.vector, 14);
    EQ(ex.u.debug.error, 2);
    EQ(ex.u.debug.addr, 0x5018);
    EQ(ex.rip, CODE);
    RUN(HLT);
    EQ(halted_in(&ex), 14);
    EQ(get_regs(cpu).cr2, 0x5018);
    end();
}

static void what_is_refused(void)
{
    struct vmm_debug debug = {.size = sizeof(debug), .nbreakpoints = 5};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, counts);
    RESULT(vcpu_set_debug(cpu, &debug), VMM_E_INVAL);
    debug.nbreakpoints = 1;
    debug.breakpoints[0].type = 2;
    RESULT(vcpu_set_debug(cpu, &debug), VMM_E_INVAL);
    debug.breakpoints[0] = (struct vmm_breakpoint){DATA, VMM_BREAK_WRITE, 3};
    RESULT(vcpu_set_debug(cpu, &debug),
           conform_caps.caps & VMM_CAP_WATCHPOINT ? VMM_E_INVAL : VMM_E_UNSUPPORTED);
    debug = (struct vmm_debug){.size = sizeof(debug), .flags = 2};
    RESULT(vcpu_set_debug(cpu, &debug), VMM_E_UNSUPPORTED);
    OK(vcpu_set_debug(cpu, NULL));
    if (!(conform_caps.caps & VMM_CAP_STEP))
        RESULT(vcpu_step(cpu, &ex), VMM_E_UNSUPPORTED);
    end();
}

static const struct conform_case cases[] = {
    CASE(steps, "vcpu_step executes one instruction", .caps = VMM_CAP_STEP),
    CASE(steps_in_every_mode, "in every mode, and leaves no trace in the guest's state",
         .caps = VMM_CAP_STEP),
    CASE(step_of_a_string, "a REP string and HLT by steps", .caps = VMM_CAP_STEP),
    CASE(step_into_a_handler, "an exception is delivered by a step", .caps = VMM_CAP_STEP),
    CASE(step_of_an_injected_event, "an injected event is one step", .caps = VMM_CAP_STEP),
    CASE(step_completes_an_access, "a step exits for an access, the next completes it",
         .caps = VMM_CAP_STEP),
    CASE(step_with_the_guests_tf, "the guest's own single steps", .caps = VMM_CAP_STEP),
    CASE(steps_leave_no_trace, "stepping through a program leaves what running it leaves",
         .caps = VMM_CAP_STEP),
    CASE(breakpoints, "a breakpoint exits before the instruction; running on passes it once",
         .caps = VMM_CAP_BREAKPOINT),
    CASE(four_breakpoints, "four breakpoints, told apart", .caps = VMM_CAP_BREAKPOINT),
    CASE(the_guests_registers_are_its_own, "the guest's debug registers are its own",
         .caps = VMM_CAP_BREAKPOINT),
    CASE(the_guests_watchpoints, "the guest's own watchpoints work"),
    CASE(breakpoints_end_with_the_vcpu, "a vCPU that is created again has no breakpoints",
         .caps = VMM_CAP_BREAKPOINT),
    CASE(watchpoints, "a watchpoint exits behind the access", .caps = VMM_CAP_WATCHPOINT),
    CASE(watchpoints_in_user_mode, "a watchpoint in user mode", .caps = VMM_CAP_WATCHPOINT),
    CASE(exception_exits, "an exception of the mask exits before its delivery",
         .caps = VMM_CAP_BREAKPOINT),
    CASE(page_fault_exits, "a page fault exits with its error code and address",
         .caps = VMM_CAP_BREAKPOINT),
    CASE(what_is_refused, "bad break- and watchpoints are refused"),
};

AREA(debug, cases);
