/* SPDX-License-Identifier: BSD-2-Clause */
/* timers.c: timers in guest time, and the guest's time-stamp counter. */
#include <time.h>

#include "conform.h"

GUEST(spins, 64, "1: incl 0x3000\n jmp 1b");
GUEST(halts, 64, "sti\n hlt");

static struct {
    _Atomic unsigned n;
    uint64_t deadline, clock;
    struct vcpu *on;
    struct vmm_timer *timer;
    unsigned again; /* sets itself again so often */
    uint64_t period;
} fired;

static void fire(void *opaque, uint64_t deadline)
{
    CHECK(opaque == &fired);
    fired.deadline = deadline;
    fired.clock = vm_clock(vm);
    fired.on = vcpu_current(vm);
    if (fired.again) {
        fired.again--;
        vm_timer_set(fired.timer, deadline + fired.period);
    }
    fired.n++;
}

static void start(uint32_t irqchip, struct code code)
{
    begin(irqchip, 0, 1);
    load_on(cpu, LONG64, code);
    memset(&fired, 0, sizeof(fired));
    OK(vm_timer_create(vm, fire, &fired, &fired.timer));
}

static void run_for(uint64_t ns)
{
    OK(vcpu_set_budget(cpu, 0, ns));
    RUN(BUDGET);
}

/* ---- timers ---- */

static void fires_once(void)
{
    uint64_t deadline;

    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    deadline = vm_clock(vm) + 2000000;
    vm_timer_set(fired.timer, deadline);
    do
        run_for(3000000);
    while (!fired.n);
    EQ(fired.deadline, deadline); /* the one that was set */
    CHECK(fired.clock >= deadline);
    CHECK(fired.on == cpu);
    run_for(3000000);
    EQ(fired.n, 1);
    end();
}

static void fires_in_user_mode(void)
{
    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    LOAD(USER64, spins);
    vm_timer_set(fired.timer, vm_clock(vm) + 1000000);
    do
        run_for(3000000);
    while (!fired.n);
    end();
}

static void kick_us(void *opaque, uint64_t deadline)
{
    (void)opaque;
    (void)deadline;
    vcpu_kick(cpu);
}

static void fires_while_halted(void)
{
    struct vmm_timer *timer;
    uint64_t deadline;

    begin(VMM_IRQCHIP_PC, 0, 1);
    LOAD(LONG64, halts);
    OK(vm_timer_create(vm, kick_us, NULL, &timer));
    for (int i = 0; i < 5; i++) {
        deadline = vm_clock(vm) + 1000000;
        vm_timer_set(timer, deadline);
        RUN(INTERRUPTED);
        CHECK(vm_clock(vm) >= deadline);
    }
    end();
}

static void *set_from_a_thread(void *timer)
{
    for (int i = 0; i < 20; i++)
        conform_nap();
    vm_timer_set(timer, vm_clock(vm) + 1000000);
    return NULL;
}

static void set_while_running(void)
{
    struct vmm_timer *timer;
    pthread_t thread;

    for (int halted = 0; halted < 2; halted++) {
        begin(VMM_IRQCHIP_PC, 0, 1);
        load_on(cpu, LONG64, halted ? GUEST_CODE(halts) : GUEST_CODE(spins));
        OK(vm_timer_create(vm, kick_us, NULL, &timer));
        vm_timer_set(timer, vm_clock(vm) + 3600000000000); /* replaced by an earlier one */
        CHECK(pthread_create(&thread, NULL, set_from_a_thread, timer) == 0);
        RUN(INTERRUPTED);
        pthread_join(thread, NULL);
        end();
    }
}

static void periodic(void)
{
    uint64_t first;

    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    fired.again = 9;
    fired.period = 300000;
    first = vm_clock(vm) + 1000000;
    vm_timer_set(fired.timer, first);
    do
        run_for(3000000);
    while (fired.n < 10);
    EQ(fired.deadline, first + 9 * 300000);
    run_for(1000000);
    EQ(fired.n, 10);
    end();
}

static void replaced_and_cancelled(void)
{
    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    vm_timer_set(fired.timer, vm_clock(vm) + 1000000);
    vm_timer_set(fired.timer, UINT64_MAX / 2);
    run_for(3000000);
    EQ(fired.n, 0);
    vm_timer_set(fired.timer, vm_clock(vm) + 1000000);
    vm_timer_cancel(fired.timer);
    run_for(3000000);
    EQ(fired.n, 0);
    vm_timer_set(fired.timer, 0); /* long past */
    run_for(1000000);
    EQ(fired.n, 1);
    vm_timer_destroy(fired.timer);
    vm_timer_destroy(NULL);
    end();
}

static void not_while_nobody_runs(void)
{
    const struct timespec some = {.tv_nsec = 5000000};

    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    vm_timer_set(fired.timer, vm_clock(vm) + 1000000);
    nanosleep(&some, NULL);
    EQ(fired.n, 0);
    run_for(1000000); /* what is due fires at the next run */
    EQ(fired.n, 1);
    end();
}

static void not_while_paused(void)
{
    struct runner r;
    uint64_t deadline;

    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    run_start(&r, cpu);
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    OK(vm_pause(vm));
    deadline = vm_clock(vm) + 1000000;
    vm_timer_set(fired.timer, deadline);
    for (int i = 0; i < 60; i++)
        conform_nap();
    EQ(fired.n, 0);
    OK(vm_resume(vm));
    WAIT(fired.n == 1);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

static void in_order(void)
{
    struct vmm_timer *other;
    uint64_t now;

    start(VMM_IRQCHIP_NONE, GUEST_CODE(spins));
    OK(vm_timer_create(vm, fire, &fired, &other));
    now = vm_clock(vm);
    vm_timer_set(fired.timer, now + 2);
    vm_timer_set(other, now + 1);
    run_for(1000000);
    EQ(fired.n, 2);
    EQ(fired.deadline, now + 2); /* the later one was the last */
    end();
}

static _Atomic int firing;

static void fire_slowly(void *opaque, uint64_t deadline)
{
    (void)opaque;
    (void)deadline;
    firing = 1;
    for (int i = 0; i < 40; i++)
        conform_nap();
    firing = 2;
}

static void destroy_waits(void)
{
    struct vmm_timer *timer;
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, spins);
    OK(vm_timer_create(vm, fire_slowly, NULL, &timer));
    vm_timer_set(timer, 1);
    run_start(&r, cpu);
    WAIT(firing >= 1);
    vm_timer_destroy(timer);
    EQ(firing, 2);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

/* ---- TSC ---- */

GUEST(reads_tsc, 64, "rdtsc\n shl $32, %rdx\n or %rax, %rdx\n mov %rdx, %rbx\n hlt");

static uint64_t guest_tsc(void)
{
    LOAD(LONG64, reads_tsc);
    RUN(HLT);
    return gpr(VMM_RBX);
}

static uint64_t host_view(void)
{
    uint64_t value;

    OK(vcpu_get_msr(cpu, 0x10, &value));
    return value;
}

static void tsc_goes_on(void)
{
    uint64_t a, b, c;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    a = guest_tsc();
    b = host_view();
    c = guest_tsc();
    CHECK(a < b && b < c);
    CHECK(get_regs(cpu).tsc > c);
    end();
}

static void tsc_begins_at_0(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    CHECK(guest_tsc() < conform_caps.tsc_khz * 10000); /* ten seconds */
    OK(vm_reset(vm));
    CHECK(guest_tsc() < conform_caps.tsc_khz * 10000);
    end();
}

static void tsc_is_written(void)
{
    const uint64_t far = 1ull << 50;
    uint64_t tsc;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vcpu_set_msr(cpu, 0x10, far));
    tsc = guest_tsc();
    CHECK(tsc >= far && tsc < far + conform_caps.tsc_khz * 10000);
    struct vcpu_regs r = get_regs(cpu);
    r.tsc = far * 2;
    set_regs(cpu, &r, VMM_REGS_MSR);
    CHECK(guest_tsc() >= far * 2);
    end();
}

GUEST(writes_tsc, 64,
      "mov $0x10, %ecx\n mov $0x100000, %edx\n xor %eax, %eax\n wrmsr\n rdtsc\n hlt");

static void tsc_is_written_by_the_guest(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, writes_tsc);
    RUN(HLT);
    EQ(gpr(VMM_RDX), 0x100000);
    CHECK(guest_tsc() >> 32 >= 0x100000);
    CHECK(host_view() >> 32 >= 0x100000);
    end();
}

static void tsc_stops_in_a_pause(void)
{
    const struct timespec some = {.tv_nsec = 50000000};
    uint64_t before, after;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_pause(vm));
    before = vm_clock(vm);
    nanosleep(&some, NULL);
    EQ(vm_clock(vm), before);
    OK(vm_resume(vm));
    /* TSC and clock go together: the pause is in neither. */
    before = vm_clock(vm);
    after = guest_tsc() / (conform_caps.tsc_khz / 1000) * 1000;
    CHECK(after + 10000000 > before && after < vm_clock(vm) + 10000000);
    end();
}

static void tsc_of_another_rate(void)
{
    const char *names[] = {conform_backend, NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .tsc_khz = 1000000};
    struct vm_caps caps = {.size = sizeof(caps)};
    uint64_t before, tsc, after;

    OK(vm_create(&config, &vm));
    OK(vm_get_caps(vm, &caps));
    EQ(caps.tsc_khz, 1000000);
    OK(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram));
    OK(vcpu_create(vm, 0, NULL, &cpu));
    ex = (struct vcpu_exit){.size = sizeof(ex)};
    before = vm_clock(vm);
    tsc = guest_tsc();
    after = vm_clock(vm);
    CHECK(tsc + 1000000 > before && tsc < after + 1000000); /* one tick is one ns */
    end();
}

static void rates_that_are_refused(void)
{
    const char *names[] = {conform_backend, NULL};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_REQUIRE, .backends = names, .tsc_khz = 10};
    struct vm_caps caps = {.size = sizeof(caps)};

    RESULT(vm_create(&config, &vm), VMM_E_INVAL);
    config.tsc_khz = 1000000;
    if (!(conform_caps.caps & VMM_CAP_TSC_KHZ))
        RESULT(vm_create(&config, &vm), VMM_E_UNSUPPORTED);
    config.tsc_khz = 0; /* the host's: measured once in a process */
    OK(vm_create(&config, &vm));
    OK(vm_get_caps(vm, &caps));
    end();
    config.tsc_khz = caps.tsc_khz;
    OK(vm_create(&config, &vm));
    end();
}

static void tscs_of_two_vcpus(void)
{
    uint64_t a, b, c;

    begin(VMM_IRQCHIP_NONE, 0, 2);
    a = guest_tsc();
    cpu = vm_vcpu(vm, 1);
    b = guest_tsc();
    cpu = vm_vcpu(vm, 0);
    c = guest_tsc();
    CHECK(a < b && b < c);
    end();
}

static const struct conform_case cases[] = {
    CASE(fires_once, "a timer fires once, not before its deadline, on a vCPU's thread"),
    CASE(fires_in_user_mode, "a timer fires while user mode runs"),
    CASE(fires_while_halted, "a halted vCPU wakes for the earliest deadline", .flags = CASE_MODES),
    CASE(set_while_running, "an earlier deadline set by another thread counts",
         .flags = CASE_MODES),
    CASE(periodic, "fire may set the timer again, from the deadline it got"),
    CASE(replaced_and_cancelled, "a deadline can be replaced and cancelled"),
    CASE(not_while_nobody_runs, "nothing fires while no vCPU runs; then at the next run"),
    CASE(not_while_paused, "nothing fires during vm_pause"),
    CASE(in_order, "timers fire in the order of their deadlines"),
    CASE(destroy_waits, "vm_timer_destroy waits for a running callback"),
    CASE(tsc_goes_on, "RDTSC and the TSC that the host reads are one clock"),
    CASE(tsc_begins_at_0, "the TSC begins at 0 with vm_create and vm_reset",
         .caps = VMM_CAP_TSC_OFFSET),
    CASE(tsc_is_written, "RDTSC follows what the host writes", .caps = VMM_CAP_TSC_OFFSET),
    CASE(tsc_is_written_by_the_guest, "RDTSC follows what the guest writes",
         .caps = VMM_CAP_TSC_OFFSET),
    CASE(tsc_stops_in_a_pause, "the TSC stops during vm_pause", .caps = VMM_CAP_TSC_OFFSET),
    CASE(tsc_of_another_rate, "the TSC has the rate of vm_config.tsc_khz", .caps = VMM_CAP_TSC_KHZ),
    CASE(rates_that_are_refused, "rates out of range, or not offered, are refused"),
    CASE(tscs_of_two_vcpus, "the TSCs of all vCPUs are one clock"),
};

AREA(timers, cases);
