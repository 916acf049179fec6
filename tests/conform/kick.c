/* SPDX-License-Identifier: BSD-2-Clause */
/* kick.c: vcpu_kick at every point of a run, and budgets. */
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "conform.h"

GUEST(spins, 64, "1: incl 0x3000\n jmp 1b");
GUEST(spins_only, 64, "1: jmp 1b");
GUEST(halts, 64, "hlt");
GUEST(reads, 64, "movabs 0xd0000000, %al\n hlt");

static void wait_for_progress(void)
{
    uint32_t at = ram32(DATA);

    WAIT(ram32(DATA) != at);
}

static void before_run(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    EQ(ex.rip, CODE);
    RUN(HLT);
    end();
}

static void several_count_once(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    for (int i = 0; i < 5; i++)
        vcpu_kick(cpu);
    RUN(INTERRUPTED);
    RUN(HLT);
    end();
}

static void in_guest_code(void)
{
    static const enum snip_mode modes[] = {LONG64, USER64};
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int i = 0; i < 10; i++) {
        LOAD(modes[i & 1], spins);
        run_start(&r, cpu);
        wait_for_progress();
        vcpu_kick(cpu);
        run_join(&r, VMM_EXIT_INTERRUPTED);
        EQ(r.exit.cpl, i & 1 ? 3 : 0);
        CHECK(r.exit.rip >= CODE && r.exit.rip < END_OF(spins));
    }
    end();
}

static void with_interrupts_off(void)
{
    struct runner r;

    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, spins); /* RFLAGS.IF is clear */
    for (int i = 0; i < 5; i++) {
        run_start(&r, cpu);
        wait_for_progress();
        vcpu_kick(cpu);
        run_join(&r, VMM_EXIT_INTERRUPTED);
    }
    end();
}

static void kick_self(struct device *d)
{
    (void)d;
    vcpu_kick(cpu);
}

static void in_a_callback(void)
{
    static struct device d = {.act = kick_self};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    LOAD(LONG64, reads);
    RUN(INTERRUPTED);
    CHECK(ex.rip >= CODE && ex.rip <= END_OF(reads)); /* soon, not at once */
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x10);
    EQ(d.n, 1);
    end();
}

static void in_a_halt(void)
{
    struct runner r;

    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, halts);
    OK(vcpu_set_budget(cpu, 0, 1000000));
    do
        RUN(BUDGET);
    while (get_regs(cpu).activity != VMM_HALTED);
    OK(vcpu_set_budget(cpu, 0, 0));
    for (int i = 0; i < 10; i++) {
        run_start(&r, cpu);
        for (int k = 0; k < 5 * (i & 1); k++)
            conform_nap();
        vcpu_kick(cpu);
        run_join(&r, VMM_EXIT_INTERRUPTED);
    }
    EQ(get_regs(cpu).activity, VMM_HALTED);
    end();
}

static void while_waiting_for_sipi(void)
{
    struct runner r;

    begin(VMM_IRQCHIP_PC, 0, 2);
    for (int i = 0; i < 5; i++) {
        run_start(&r, vm_vcpu(vm, 1));
        conform_nap();
        vcpu_kick(vm_vcpu(vm, 1));
        run_join(&r, VMM_EXIT_INTERRUPTED);
    }
    EQ(get_regs(vm_vcpu(vm, 1)).activity, VMM_WAIT_SIPI);
    end();
}

static void in_a_deferred_access(void)
{
    static struct device d = {.result = VMM_IO_DEFER};
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    LOAD(LONG64, reads);
    for (int i = 0; i < 5; i++) {
        run_start(&r, cpu);
        WAIT(d.n == 1);
        conform_nap();
        vcpu_kick(cpu);
        run_join(&r, VMM_EXIT_INTERRUPTED);
        EQ(r.exit.rip, CODE);
    }
    OK(mmio_complete(cpu, 0x42));
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x42);
    EQ(d.n, 1);
    end();
}

static void after_return(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, reads);
    RUN(MMIO);
    vcpu_kick(cpu);
    ex.u.mmio.data = 5;
    RUN(INTERRUPTED);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 5);
    vcpu_kick(cpu);
    STEP(INTERRUPTED);
    end();
}

static void on_signal(int number)
{
    (void)number;
    vcpu_kick(cpu);
}

static void from_a_signal_handler(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    timer_t timer;

    begin(VMM_IRQCHIP_PC, 0, 1);
    CHECK(sigaction(SIGUSR1, &sa, NULL) == 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    LOAD(LONG64, spins_only);
    timer_settime(timer, 0, &every, NULL);
    for (int i = 0; i < 20; i++)
        RUN(INTERRUPTED);
    LOAD(LONG64, halts); /* also while it is halted */
    for (int i = 0; i < 20; i++)
        RUN(INTERRUPTED);
    timer_delete(timer);
    end();
}

static void *owner_with_signals_blocked(void *opaque)
{
    sigset_t all, now;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    *(int *)opaque = vcpu_run(cpu, &ex);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    for (int s = 1; s < 32; s++)
        if (s != SIGKILL && s != SIGSTOP && !sigismember(&now, s))
            *(int *)opaque = -1000 - s; /* the mask is not what it was */
    sigpending(&now);
    for (int s = 1; s < 32; s++)
        if (sigismember(&now, s))
            *(int *)opaque = -2000 - s; /* a signal was left behind */
    return NULL;
}

static void with_signals_blocked(void)
{
    pthread_t thread;
    int result;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, spins);
    for (int i = 0; i < 5; i++) {
        CHECK(pthread_create(&thread, NULL, owner_with_signals_blocked, &result) == 0);
        wait_for_progress();
        vcpu_kick(cpu);
        pthread_join(thread, NULL);
        EQ(result, 0);
        EQ(ex.reason, VMM_EXIT_INTERRUPTED);
    }
    end();
}

static void signals_stay_the_programs(void)
{
    struct sigaction before[32], now;
    sigset_t mask, mask_now;
    struct runner r;

    for (int s = 1; s < 32; s++)
        sigaction(s, NULL, &before[s]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, spins);
    run_start(&r, cpu);
    wait_for_progress();
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    end();
    for (int s = 1; s < 32; s++) {
        sigaction(s, NULL, &now);
        CHECK(now.sa_handler == before[s].sa_handler);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
    for (int s = 1; s < 32; s++)
        CHECK(sigismember(&mask, s) == sigismember(&mask_now, s));
}

/* ---- no kick is lost ---- */

static struct {
    _Atomic uint32_t returned;
    _Atomic bool over;
} rounds;

static void *kick_at_random_times(void *opaque)
{
    uint32_t seed = 12345, seen = 0;

    while (!rounds.over) {
        seed = seed * 1103515245 + 12345;
        for (volatile uint32_t i = 0; i < (seed >> 16) % 3000; i++)
            continue;
        vcpu_kick(cpu);
        while (rounds.returned == seen && !rounds.over)
            sched_yield();
        seen = rounds.returned;
    }
    return opaque;
}

GUEST(everything, 64,
      "1: incl 0x3000\n"
      "out %al, $0x80\n"
      "movabs 0xd0000000, %eax\n"
      "mov $50, %ecx\n"
      "2: loop 2b\n"
      "jmp 1b");

static void none_is_lost(void)
{
    static struct device d = {.quiet = true};
    pthread_t thread;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, everything);
    CHECK(pthread_create(&thread, NULL, kick_at_random_times, NULL) == 0);
    for (int i = 0; i < 1000; i++) {
        RUN(INTERRUPTED);
        rounds.returned++;
    }
    rounds.over = true;
    pthread_join(thread, NULL);
    end();
}

static void none_is_lost_in_halts(void)
{
    pthread_t thread;

    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, halts);
    CHECK(pthread_create(&thread, NULL, kick_at_random_times, NULL) == 0);
    for (int i = 0; i < 300; i++) {
        RUN(INTERRUPTED);
        rounds.returned++;
    }
    rounds.over = true;
    pthread_join(thread, NULL);
    end();
}

static const struct conform_case cases[] = {
    CASE(before_run, "a kick before vcpu_run makes the next one return"),
    CASE(several_count_once, "several kicks before a return count as one"),
    CASE(in_guest_code, "a kick returns from guest code at CPL 0 and 3"),
    CASE(with_interrupts_off, "a guest that spins with interrupts off is interrupted",
         .flags = CASE_MODES),
    CASE(in_a_callback, "a kick from a callback; the access is made once"),
    CASE(in_a_halt, "a kick returns from a wait in HLT", .flags = CASE_MODES),
    CASE(while_waiting_for_sipi, "a kick returns from a wait for SIPI", .flags = CASE_MODES),
    CASE(in_a_deferred_access, "a kick returns from a deferred access, which stays pending"),
    CASE(after_return, "a kick after a return counts for the next run, or step",
         .caps = VMM_CAP_STEP),
    CASE(from_a_signal_handler, "vcpu_kick from a signal handler of the vCPU's thread",
         .flags = CASE_MODES),
    CASE(with_signals_blocked, "a thread with all signals blocked is kicked; no signal is left"),
    CASE(signals_stay_the_programs, "no handler is installed, the signal mask stays"),
    CASE(none_is_lost, "1000 kicks at random times, each seen"),
    CASE(none_is_lost_in_halts, "300 kicks of a halted vCPU, each seen", .flags = CASE_MODES),
};

AREA(kick, cases);
