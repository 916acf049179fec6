/* SPDX-License-Identifier: BSD-2-Clause */
/* budget.c: limits of vcpu_run by time and by instructions. */
#include "conform.h"

GUEST(spins, 64, "1: inc %rax\n jmp 1b");
GUEST(halts, 64, "hlt");

static void wall_time(void)
{
    static const enum snip_mode modes[] = {LONG64, USER64};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int i = 0; i < 4; i++) {
        uint64_t before, ns = 3000000;

        LOAD(modes[i & 1], spins);
        /* A slow machine may not get to the guest in the first budgets. */
        do {
            before = vm_clock(vm);
            OK(vcpu_set_budget(cpu, 0, ns));
            RUN(BUDGET);
            CHECK(vm_clock(vm) >= before + ns);
            ns *= 2;
        } while (gpr(VMM_RAX) == 0);
        before = vm_clock(vm);
        RUN(BUDGET); /* each following vcpu_run */
        CHECK(vm_clock(vm) >= before + 3000000);
    }
    end();
}

static void none(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    OK(vcpu_set_budget(cpu, 0, 1));
    RUN(BUDGET);
    OK(vcpu_set_budget(cpu, 0, 0));
    RUN(HLT);
    OK(vcpu_set_budget(cpu, 0, UINT64_MAX)); /* no overflow */
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    end();
}

static void instructions(void)
{
    static const enum snip_mode modes[] = {LONG64, USER64, REAL16, PROT32};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int m = 0; m < 4; m++) {
        LOAD(modes[m], spins);
        for (uint64_t n = 1; n < 2000; n = n * 2 + 1) {
            uint64_t before = gpr(VMM_RAX);

            OK(vcpu_set_budget(cpu, 2 * n, 0));
            if (modes[m] == REAL16 || modes[m] == PROT32) {
                /* 48 ff c0: DEC, then INC of another size: three instructions in a round */
                OK(vcpu_set_budget(cpu, 3 * n, 0));
                RUN(BUDGET);
                EQ(ex.rip, CODE);
                continue;
            }
            RUN(BUDGET);
            EQ(gpr(VMM_RAX), before + n);
            EQ(ex.rip, CODE);
        }
        OK(vcpu_set_budget(cpu, 1, 0));
        RUN(BUDGET);
        CHECK(ex.rip != CODE);
    }
    end();
}

GUEST(ports, 64, "mov $0x60, %edx\n in %dx, %al\n in %dx, %al\n nop\n nop\n hlt");

static void exits_do_not_use_it_up(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, ports);
    OK(vcpu_set_budget(cpu, 2, 0));
    RUN(PIO); /* MOV has used one; each run has two again */
    RUN(PIO);
    RUN(BUDGET);
    EQ(ex.rip, CODE + 8); /* the second IN and a NOP */
    RUN(BUDGET);          /* a NOP and the HLT */
    RUN(HLT);
    end();
}

GUEST(calls, 64, "out %al, $0x80\n out %al, $0x80\n out %al, $0x80\n nop\n hlt");

static void callbacks_count_once(void)
{
    static struct device d;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, calls);
    OK(vcpu_set_budget(cpu, 2, 0));
    RUN(BUDGET);
    EQ(d.n, 2);
    EQ(ex.rip, CODE + 4);
    RUN(BUDGET);
    EQ(d.n, 3);
    EQ(ex.rip, CODE + 7);
    end();
}

static void of_a_halted_cpu(void)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, halts);
    OK(vcpu_set_budget(cpu, 0, 1000000));
    do /* a slow machine may not get there in the first budgets */
        RUN(BUDGET);
    while (get_regs(cpu).activity != VMM_HALTED);
    RUN(BUDGET);
    EQ(get_regs(cpu).activity, VMM_HALTED);
    end();
}

/* A page fault whose handler's first byte is not there, for ever, on a stack that does not move. */
static void without_progress(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    gate(LONG64, 14, SNIP_ABSENT);
    poke(SNIP_IDT + 16 * 14 + 4, 1, 1); /* IST 1 */
    poke(SNIP_TSS + 36, SNIP_KSTACK, 8);
    struct vcpu_regs regs = get_regs(cpu);
    regs.rip = SNIP_ABSENT;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    OK(vcpu_set_budget(cpu, 0, 3000000));
    RUN(BUDGET);
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    OK(vcpu_set_budget(cpu, 1000, 0));
    if (conform_caps.caps & VMM_CAP_INSN_BUDGET)
        RUN(BUDGET);
    end();
}

GUEST(string, 64, "mov $1000000, %ecx\n mov $0x200000, %edi\n 1: rep stosb\n jmp 1b");

static void inside_strings(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, string);
    /* As above. */
    for (uint64_t ns = 2000000; ns <= 2000000000 && ex.rip < CODE + 10; ns *= 2) {
        OK(vcpu_set_budget(cpu, 0, ns));
        RUN(BUDGET);
    }
    CHECK(ex.rip >= CODE + 10);
    end();
}

static const struct conform_case cases[] = {
    CASE(wall_time, "a budget of wall time limits each vcpu_run, at CPL 0 and 3"),
    CASE(none, "0 is no limit; huge values do not overflow"),
    CASE(instructions, "a budget of instructions is exact", .caps = VMM_CAP_INSN_BUDGET),
    CASE(exits_do_not_use_it_up, "an instruction that waits for its answer counts once",
         .caps = VMM_CAP_INSN_BUDGET),
    CASE(callbacks_count_once, "instructions with callbacks count once",
         .caps = VMM_CAP_INSN_BUDGET),
    CASE(of_a_halted_cpu, "a budget of time ends a wait in HLT", .flags = CASE_MODES),
    CASE(without_progress, "event deliveries without progress end with the budget"),
    CASE(inside_strings, "a budget ends during strings and short loops"),
};

AREA(budget, cases);
