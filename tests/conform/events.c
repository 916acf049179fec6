/* SPDX-License-Identifier: BSD-2-Clause */
/* events.c: injection of interrupts, NMIs and exceptions, and interrupt windows, without an
 * irqchip. */
#include "conform.h"

GUEST(window, 64, "sti\n nop\n nop\n cli\n hlt");
GUEST(enabled, 64, "sti\n nop\n 1: inc %ecx\n jmp 1b");
GUEST(nops, 64, "nop\n nop\n nop\n hlt");
GUEST(nops16, 16, "nop\n nop\n nop\n hlt");
GUEST(counts, 64, "incl 0x3010\n iretq");

static int inject(uint8_t type, uint8_t vector)
{
    struct vmm_event e = {.size = sizeof(e), .type = type, .vector = vector};

    return vcpu_inject(cpu, &e);
}

static void set_if(bool on)
{
    struct vcpu_regs regs = get_regs(cpu);

    regs.rflags = on ? regs.rflags | 0x200 : regs.rflags & ~0x200ull;
    set_regs(cpu, &regs, VMM_REGS_GPR);
}

/* The RIP that the handler's frame has on top of its stack (`error` bytes deeper). */
static uint64_t frame_rip(unsigned error)
{
    return peek(gpr(VMM_RSP) + error, 8);
}

/* ---- windows ---- */

static void window_after_sti(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, window);
    EQ(vcpu_irq_window_open(cpu), 0);
    OK(vcpu_request_irq_window(cpu, 1));
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE + 2); /* behind the instruction that follows STI */
    EQ(vcpu_irq_window_open(cpu), 1);
    RUN(HLT); /* one shot */
    EQ(vcpu_irq_window_open(cpu), 0);
    end();
}

static void window_at_once(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    set_if(true);
    EQ(vcpu_irq_window_open(cpu), 1);
    OK(vcpu_request_irq_window(cpu, 1));
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE);
    end();
}

static void window_taken_back(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, window);
    OK(vcpu_request_irq_window(cpu, 1));
    OK(vcpu_request_irq_window(cpu, 0));
    RUN(HLT);
    end();
}

GUEST(mov_ss, 64, "mov %ss, %eax\n sti\n mov %eax, %ss\n nop\n nop\n hlt");

static void window_after_mov_ss(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, mov_ss);
    set_if(true);
    struct vcpu_regs regs = get_regs(cpu);
    regs.rip = CODE + 3; /* at MOV SS */
    regs.gpr[VMM_RAX] = SEL_DATA;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    STEP(STEP);
    EQ(get_regs(cpu).shadow, VMM_SHADOW_MOV_SS);
    EQ(vcpu_irq_window_open(cpu), 0);
    RESULT(inject(VMM_EVENT_INTERRUPT, 0x50), VMM_E_STATE);
    OK(vcpu_request_irq_window(cpu, 1));
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE + 6);
    end();
}

GUEST(popf, 64, "push $0x202\n popf\n nop\n cli\n hlt");

static void window_after_popf(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, popf);
    OK(vcpu_request_irq_window(cpu, 1));
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE + 6); /* no shadow */
    end();
}

static void shadow_in_registers(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    set_if(true);
    struct vcpu_regs regs = get_regs(cpu);
    regs.shadow = VMM_SHADOW_STI;
    set_regs(cpu, &regs, VMM_REGS_EVENTS);
    EQ(get_regs(cpu).shadow, VMM_SHADOW_STI);
    EQ(vcpu_irq_window_open(cpu), 0);
    OK(vcpu_request_irq_window(cpu, 1));
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE + 1);
    EQ(get_regs(cpu).shadow, 0);
    end();
}

/* ---- external interrupts ---- */

static void interrupt(void)
{
    static const enum snip_mode modes[] = {REAL16, PROT32, LONG64, USER64};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int i = 0; i < 4; i++) {
        load_on(cpu, modes[i], GUEST_CODE(nops));
        RESULT(inject(VMM_EVENT_INTERRUPT, 0x50), VMM_E_STATE);
        set_if(true);
        OK(inject(VMM_EVENT_INTERRUPT, 0x50));
        RESULT(inject(VMM_EVENT_INTERRUPT, 0x51), VMM_E_BUSY);
        EQ(vcpu_irq_window_open(cpu), 0);
        EQ(get_regs(cpu).inject_valid, 1);
        EQ(get_regs(cpu).inject_vector, 0x50);
        RUN(HLT);
        EQ(halted_in(&ex), 0x50);
        EQ(ex.cpl, 0);
        EQ(get_regs(cpu).inject_valid, 0);
        CHECK(!(get_regs(cpu).rflags & 0x200));
        if (i == 2) { /* SS:RSP, RFLAGS, CS:RIP */
            EQ(frame_rip(0), CODE);
            EQ(peek(gpr(VMM_RSP) + 8, 8), SEL_CODE64);
            EQ(peek(gpr(VMM_RSP) + 16, 8), 0x202);
            EQ(peek(gpr(VMM_RSP) + 24, 8), SNIP_STACK);
        }
        if (i == 3) {
            EQ(frame_rip(0), CODE);
            EQ(peek(gpr(VMM_RSP) + 8, 8), SEL_UCODE64);
            EQ(peek(gpr(VMM_RSP) + 24, 8), SNIP_STACK);
            EQ(gpr(VMM_RSP), SNIP_KSTACK - 40);
        }
    }
    end();
}

static void many_interrupts(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, enabled);
    PLACE(HANDLER, counts);
    gate(LONG64, 0x50, HANDLER);
    poke(0x3010, 0, 4);
    for (unsigned i = 1; i <= 100; i++) {
        OK(vcpu_request_irq_window(cpu, 1));
        RUN(IRQ_WINDOW);
        OK(inject(VMM_EVENT_INTERRUPT, 0x50));
        OK(vcpu_request_irq_window(cpu, 1));
        RUN(IRQ_WINDOW); /* when the handler has returned */
        EQ(peek(0x3010, 4), i);
    }
    end();
}

GUEST(sti_hlt, 64, "sti\n hlt\n inc %ecx\n cli\n hlt");

static void interrupt_ends_hlt(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, sti_hlt);
    PLACE(HANDLER, counts);
    gate(LONG64, 0x50, HANDLER);
    poke(0x3010, 0, 4);
    RUN(HLT);
    EQ(ex.rip, CODE + 2);
    EQ(vcpu_irq_window_open(cpu), 1);
    OK(inject(VMM_EVENT_INTERRUPT, 0x50));
    RUN(HLT);
    EQ(ex.rip, END_OF(sti_hlt));
    EQ(peek(0x3010, 4), 1);
    EQ(gpr(VMM_RCX), 1);
    end();
}

/* ---- NMI ---- */

GUEST(nmi_handler, 64, "incl 0x3010\n out %al, $0x80\n iretq");
GUEST(loops, 64, "1: inc %ecx\n jmp 1b");

static void nmi(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops); /* RFLAGS.IF is clear */
    OK(inject(VMM_EVENT_NMI, 2));
    EQ(get_regs(cpu).nmi_pending, 1);
    RESULT(inject(VMM_EVENT_NMI, 2), VMM_E_BUSY);
    RUN(HLT);
    EQ(halted_in(&ex), 2);
    EQ(get_regs(cpu).nmi_blocked, 1);
    EQ(get_regs(cpu).nmi_pending, 0);
    EQ(frame_rip(0), CODE);
    end();
}

static void nmi_blocked_until_iret(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, loops);
    PLACE(HANDLER, nmi_handler);
    gate(LONG64, 2, HANDLER);
    poke(0x3010, 0, 4);
    OK(inject(VMM_EVENT_NMI, 2));
    RUN(PIO); /* in the handler */
    EQ(get_regs(cpu).nmi_blocked, 1);
    OK(inject(VMM_EVENT_NMI, 2)); /* one waits */
    RESULT(inject(VMM_EVENT_NMI, 2), VMM_E_BUSY);
    EQ(peek(0x3010, 4), 1);
    RUN(PIO); /* behind the IRET of the first */
    EQ(peek(0x3010, 4), 2);
    EQ(get_regs(cpu).nmi_pending, 0);
    OK(vcpu_set_budget(cpu, 0, 1000000));
    do /* a slow machine may not get behind IRET in the first budgets */
        RUN(BUDGET);
    while (ex.rip >= HANDLER);
    EQ(get_regs(cpu).nmi_blocked, 0);
    EQ(peek(0x3010, 4), 2);
    end();
}

static void nmi_ends_hlt(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    RUN(HLT);
    OK(inject(VMM_EVENT_NMI, 2));
    RUN(HLT);
    EQ(halted_in(&ex), 2);
    EQ(frame_rip(0), CODE + 4);
    end();
}

static void nmi_blocking_in_registers(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    struct vcpu_regs regs = get_regs(cpu);
    regs.nmi_blocked = 1;
    regs.nmi_pending = 1;
    set_regs(cpu, &regs, VMM_REGS_EVENTS);
    RUN(HLT);
    EQ(ex.rip, CODE + 4);
    EQ(get_regs(cpu).nmi_pending, 1);
    end();
}

/* ---- exceptions ---- */

static void exceptions(void)
{
    static const struct {
        uint8_t vector;
        bool error;
    } list[] = {{0, false}, {3, false}, {5, false},  {6, false},
                {11, true}, {13, true}, {16, false}, {17, true}};
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_EXCEPTION};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int user = 0; user < 2; user++) {
        for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
            load_on(cpu, user ? USER64 : LONG64, GUEST_CODE(nops));
            e.vector = list[i].vector;
            e.has_error = !list[i].error;
            e.error = 0;
            RESULT(vcpu_inject(cpu, &e), VMM_E_INVAL); /* exactly where they have one */
            e.has_error = list[i].error;
            e.error = list[i].error ? 0x18 : 0;
            OK(vcpu_inject(cpu, &e));
            RESULT(vcpu_inject(cpu, &e), VMM_E_BUSY);
            RUN(HLT);
            EQ(halted_in(&ex), list[i].vector);
            if (list[i].error)
                EQ(peek(gpr(VMM_RSP), 8), 0x18);
            EQ(frame_rip(list[i].error ? 8 : 0), CODE);
        }
    }
    e.vector = 32;
    RESULT(vcpu_inject(cpu, &e), VMM_E_INVAL);
    end();
}

static void page_fault(void)
{
    struct vmm_event e = {.size = sizeof(e),
                          .type = VMM_EVENT_EXCEPTION,
                          .vector = 14,
                          .has_error = 1,
                          .error = 6,
                          .has_cr2 = 1,
                          .cr2 = 0x123456789a};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    OK(vcpu_inject(cpu, &e));
    RUN(HLT);
    EQ(halted_in(&ex), 14);
    EQ(get_regs(cpu).cr2, 0x123456789a);
    EQ(peek(gpr(VMM_RSP), 8), 6);
    end();
}

static void exceptions_in_real_mode(void)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_EXCEPTION, .vector = 13};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(REAL16, nops16);
    e.has_error = 1;
    RESULT(vcpu_inject(cpu, &e), VMM_E_INVAL); /* none there */
    e.has_error = 0;
    OK(vcpu_inject(cpu, &e));
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(peek(gpr(VMM_RSP), 2), CODE);
    end();
}

static void queued_event_in_registers(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    struct vcpu_regs regs = get_regs(cpu);
    regs.inject_valid = 1;
    regs.inject_type = VMM_EVENT_EXCEPTION;
    regs.inject_vector = 13;
    regs.inject_has_error = 1;
    regs.inject_error = 0x10;
    set_regs(cpu, &regs, VMM_REGS_EVENTS);
    regs = get_regs(cpu);
    EQ(regs.inject_valid, 1);
    EQ(regs.inject_vector, 13);
    EQ(regs.inject_error, 0x10);
    RUN(HLT);
    EQ(halted_in(&ex), 13);
    EQ(peek(gpr(VMM_RSP), 8), 0x10);
    end();
}

static void fault_during_delivery(void)
{
    struct vmm_event e = {
        .size = sizeof(e), .type = VMM_EVENT_EXCEPTION, .vector = 13, .has_error = 1};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, nops);
    poke(SNIP_IDT + 16 * 13 + 4, 0, 4); /* not present: #NP during #GP is #DF */
    OK(vcpu_inject(cpu, &e));
    RUN(HLT);
    EQ(halted_in(&ex), 8);
    EQ(frame_rip(8), CODE);
    end();
}

/* ---- beside instructions that wait ---- */

GUEST(waits, 64, "sti\n mov $0x60, %edx\n in %dx, %al\n nop\n hlt");

static void behind_the_completion(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, waits);
    RUN(PIO);
    OK(vcpu_request_irq_window(cpu, 1));
    ex.u.pio.data = 0x77;
    RUN(IRQ_WINDOW);
    EQ(ex.rip, CODE + 7);
    EQ(gpr(VMM_RAX), 0x77);
    LOAD(LONG64, waits);
    RUN(PIO);
    OK(inject(VMM_EVENT_NMI, 2));
    ex.u.pio.data = 0x78;
    RUN(HLT);
    EQ(halted_in(&ex), 2);
    EQ(frame_rip(0), CODE + 7);
    EQ(gpr(VMM_RAX), 0x78);
    end();
}

GUEST(port, 64, "sti\n nop\n out %al, $0x80\n nop\n hlt");

static void inject_50(struct device *self)
{
    (void)self;
    OK(inject(VMM_EVENT_INTERRUPT, 0x50));
    RESULT(inject(VMM_EVENT_INTERRUPT, 0x50), VMM_E_BUSY);
}

static void from_a_callback(void)
{
    static struct device d = {.act = inject_50};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, port);
    RUN(HLT);
    EQ(halted_in(&ex), 0x50);
    EQ(frame_rip(0), CODE + 4); /* behind the instruction */
    EQ(d.n, 1);
    end();
}

/* ---- the guest's own ---- */

GUEST(faults, 64, "mov $5, %eax\n 1: mov %eax, 0x5123\n inc %ecx\n hlt");
GUEST(repairs, 64, "add $8, %rsp\n incl 0x3010\n orl $1, 0x13028\n invlpg 0x5000\n iretq");

/* The page tables of SNIP_ABSENT: bit 0 of its PTE. */
static void fault_and_return(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, faults);
    PLACE(HANDLER, repairs);
    gate(LONG64, 14, HANDLER);
    poke(0x3010, 0, 4);
    EQ(peek(SNIP_TABLES + 0x3000 + 8 * (SNIP_ABSENT >> 12), 8) & 1, 0);
    EQ(SNIP_TABLES + 0x3000 + 8 * (SNIP_ABSENT >> 12), 0x13028);
    RUN(HLT);
    EQ(ex.rip, END_OF(faults));
    EQ(get_regs(cpu).cr2, 0x5123);
    EQ(peek(0x5123, 4), 5);
    EQ(peek(0x3010, 4), 1);
    end();
}

static const struct conform_case cases[] = {
    CASE(window_after_sti, "IRQ_WINDOW behind the shadow of STI; one shot"),
    CASE(window_at_once, "IRQ_WINDOW at once when the window is open"),
    CASE(window_taken_back, "a request for a window can be taken back"),
    CASE(window_after_mov_ss, "MOV SS blocks interrupts for one instruction", .caps = VMM_CAP_STEP),
    CASE(window_after_popf, "IRQ_WINDOW right behind POPF"),
    CASE(shadow_in_registers, "a shadow that is set blocks for one instruction"),
    CASE(interrupt, "an external interrupt is delivered in every mode, with an open window only"),
    CASE(many_interrupts, "100 interrupts, each handled once"),
    CASE(interrupt_ends_hlt, "an injected interrupt ends HLT"),
    CASE(nmi, "an NMI is pended and taken whatever RFLAGS.IF"),
    CASE(nmi_blocked_until_iret, "NMIs are blocked until IRET; one waits"),
    CASE(nmi_ends_hlt, "an NMI ends HLT"),
    CASE(nmi_blocking_in_registers, "nmi_blocked that is set holds a pending NMI"),
    CASE(exceptions, "exceptions with and without error codes, at CPL 0 and 3"),
    CASE(page_fault, "an injected #PF sets CR2"),
    CASE(exceptions_in_real_mode, "exceptions in real mode have no error code"),
    CASE(queued_event_in_registers, "a queued event can be read and set with the registers"),
    CASE(fault_during_delivery, "a fault during the delivery of #GP is #DF"),
    CASE(behind_the_completion, "events come behind an instruction that waits for its answer"),
    CASE(from_a_callback, "an interrupt injected in a callback comes behind the instruction"),
    CASE(fault_and_return, "the guest handles its page faults and goes on"),
};

AREA(events, cases);
