/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vcpu.c: running vCPUs: exits and their completion, kicks, budgets, waiting, events, state.
 */
#include <check.h>
#include <pthread.h>
#include <signal.h>

#include "fake_backend.h"

#include <vmm/vmm.h>

static struct vm *vm;
static struct vcpu *vcpu;
static struct vcpu_exit ex;

static void setup(void)
{
    vm = fake_vm(NULL);
    vcpu = fake_add(vm, 0, NULL);
    memset(&ex, 0, sizeof(ex));
    ex.size = sizeof(ex);
}

static void setup_irqchip(void)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 4, .irqchip = VMM_IRQCHIP_PC};

    vm = fake_vm(&config);
    vcpu = fake_add(vm, 0, NULL);
    memset(&ex, 0, sizeof(ex));
    ex.size = sizeof(ex);
}

static void teardown(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    ck_assert_int_eq(fake_cpus, 0);
    ck_assert_int_eq(fake_vms, 0);
}

static uint32_t run(void)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return ex.reason;
}

static struct vcpu_regs get(uint32_t groups)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = groups};

    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    return regs;
}

static uint64_t rax(void)
{
    return get(VMM_REGS_GPR).gpr[VMM_RAX];
}

/* ---- exits ---- */

START_TEST(bad_exit_structs)
{
    struct vcpu_exit small = {.size = 8};

    ck_assert_int_eq(vcpu_run(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_run(vcpu, &small), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_run(NULL, &ex), VMM_E_INVAL);
}
END_TEST

START_TEST(halt_without_irqchip_exits)
{
    static const struct fake_op code[] = {{.kind = OP_NOP}, {.kind = OP_HLT}, {.kind = OP_NOP}};

    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(ex.rip, 2);
    ck_assert_uint_eq(ex.mode, VMM_MODE_REAL);
    ck_assert_uint_eq(ex.size, sizeof(ex));
    /* It stays halted until an event. */
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(ex.rip, 2);
    ck_assert_uint_eq(get(VMM_REGS_EVENTS).activity, VMM_HALTED);
}
END_TEST

START_TEST(pio_and_mmio_exits_complete_once)
{
    static const struct fake_op code[] = {
        {.kind = OP_IN, .a = 0x60},     {.kind = OP_OUT, .a = 0x61, .b = 0x42},
        {.kind = OP_READ, .a = 0x5000}, {.kind = OP_MOVS, .a = 0x6000, .b = 0x7000},
        {.kind = OP_IN, .a = 0x62},     {.kind = OP_HLT}};

    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x60);
    ck_assert_uint_eq(ex.u.pio.len, 1);
    ck_assert_uint_eq(ex.u.pio.access, VMM_ACCESS_READ);
    ck_assert_uint_eq(ex.rip, 0);
    ex.u.pio.data = 0x5a;
    /* A kick before the completion leaves it pending, with its answer. */
    vcpu_kick(vcpu);
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x61);
    ck_assert_uint_eq(ex.u.pio.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.u.pio.data, 0x42);
    ck_assert_uint_eq(rax(), 0x5a);
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x5000);
    ck_assert_uint_eq(ex.u.mmio.len, 4);
    ex.u.mmio.data = 0x11223344;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(rax(), 0x11223344);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x6000);
    ex.u.mmio.data = 0xabcdef01;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x7000);
    ck_assert_uint_eq(ex.u.mmio.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.rip, 3);
    /* Not answered: all ones. */
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.rip, 4);
    ex.reason = VMM_EXIT_NONE;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(rax(), 0xff);
}
END_TEST

START_TEST(moving_rip_gives_the_instruction_up)
{
    static const struct fake_op code[] = {
        {.kind = OP_IN, .a = 0x60}, {.kind = OP_IN, .a = 0x61}, {.kind = OP_HLT}};

    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    struct vcpu_regs regs = get(VMM_REGS_GPR);
    regs.rip = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ex.u.pio.data = 0x77; /* for nobody */
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x61);
    ex.u.pio.data = 0x12;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(rax(), 0x12);
}
END_TEST

START_TEST(shutdown_exits_each_time)
{
    static const struct fake_op code[] = {{.kind = OP_TRIPLE}};

    fake_cpu(vcpu)->code = code;
    ck_assert_uint_eq(run(), VMM_EXIT_SHUTDOWN);
    ck_assert_uint_eq(run(), VMM_EXIT_SHUTDOWN);
}
END_TEST

/* ---- kick, budget, step ---- */

static const struct fake_op spin[] = {{.kind = OP_NOP}, {.kind = OP_JMP, .a = 0}};

START_TEST(kick_is_sticky_and_counts_once)
{
    fake_cpu(vcpu)->code = spin;
    vcpu_set_budget(vcpu, 10, 0);
    vcpu_kick(vcpu);
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
}
END_TEST

struct kicker {
    struct vcpu *vcpu;
    _Atomic uint32_t rounds; /* that have returned */
    _Atomic int over;
};

static void *kick_storm(void *opaque)
{
    struct kicker *k = opaque;
    uint32_t seen = 0;

    while (!k->over) {
        vcpu_kick(k->vcpu);
        /* Each kick ends a run: wait for that, and no kick may be lost. */
        while (k->rounds == seen && !k->over)
            os_yield();
        seen = k->rounds;
    }
    return NULL;
}

START_TEST(no_kick_is_lost)
{
    struct kicker k = {.vcpu = vcpu};
    pthread_t thread;

    fake_cpu(vcpu)->code = spin;
    pthread_create(&thread, NULL, kick_storm, &k);
    for (int i = 0; i < 3000; i++) {
        ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
        k.rounds++;
    }
    k.over = 1;
    pthread_join(thread, NULL);
}
END_TEST

static void kick_from_signal(int number)
{
    (void)number;
    vcpu_kick(vcpu);
}

START_TEST(kick_from_a_signal_handler)
{
    struct sigaction sa = {.sa_handler = kick_from_signal};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    timer_t timer;

    fake_cpu(vcpu)->code = spin;
    sigaction(SIGUSR1, &sa, NULL);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &every, NULL);
    for (int i = 0; i < 20; i++)
        ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    timer_delete(timer);
}
END_TEST

START_TEST(instruction_budgets_are_exact)
{
    fake_cpu(vcpu)->code = spin;
    for (uint64_t n = 1; n < 100; n++) {
        uint64_t before = atomic_load(&fake_cpu(vcpu)->retired);
        ck_assert_int_eq(vcpu_set_budget(vcpu, n, 0), 0);
        ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
        ck_assert_uint_eq(atomic_load(&fake_cpu(vcpu)->retired) - before, n);
    }
}
END_TEST

START_TEST(wall_time_budget)
{
    fake_cpu(vcpu)->code = spin;
    uint64_t before = os_now();
    vcpu_set_budget(vcpu, 0, 2000000);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    ck_assert_uint_ge(os_now() - before, 2000000);
}
END_TEST

START_TEST(step_is_one_instruction_or_event)
{
    static const struct fake_op code[] = {
        {.kind = OP_NOP}, {.kind = OP_IN, .a = 0x60}, {.kind = OP_NOP}};
    struct vmm_event nmi = {.size = sizeof(nmi), .type = VMM_EVENT_NMI, .vector = 2};

    fake_cpu(vcpu)->code = code;
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_STEP);
    ck_assert_uint_eq(ex.rip, 1);
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_PIO);
    /* The instruction that waits for its completion comes before the event. */
    ck_assert_int_eq(vcpu_inject(vcpu, &nmi), 0);
    ex.u.pio.data = 3;
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_STEP);
    ck_assert_uint_eq(ex.rip, 2);
    ck_assert_uint_eq(fake_cpu(vcpu)->events, 0);
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_uint_eq(ex.rip, 2);
    ck_assert_uint_eq(fake_cpu(vcpu)->events, 1);
    fake_caps_bits &= ~(uint64_t)VMM_CAP_STEP;
    struct vm *other = fake_vm(NULL);
    ck_assert_int_eq(vcpu_step(fake_add(other, 0, code), &ex), VMM_E_UNSUPPORTED);
    vm_destroy(other);
}
END_TEST

/* ---- callbacks ---- */

static int reentrant_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    struct vcpu_exit inner = {.size = sizeof(inner)};

    (void)offset;
    (void)size;
    ++*(int *)opaque;
    ck_assert_ptr_eq(vcpu_current(vm), vcpu);
    ck_assert_int_eq(vcpu_run(vcpu, &inner), VMM_E_STATE);
    ck_assert_int_eq(vcpu_step(vcpu, &inner), VMM_E_STATE);
    ck_assert_int_eq(vm_pause(vm), VMM_E_STATE);
    ck_assert_int_eq(vm_destroy(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_reset(vm), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_destroy(vcpu), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    *value = regs.rip + 0x40;
    ck_assert_int_eq(vm_mem_alloc(vm, 0x10000, 4096, VMM_MEM_RWX, NULL), 0);
    return VMM_IO_OK;
}

START_TEST(what_callbacks_may_do)
{
    static const struct fake_op code[] = {
        {.kind = OP_NOP}, {.kind = OP_IN, .a = 0x60}, {.kind = OP_HLT}};
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "reentrant", .read = reentrant_read};
    int calls = 0;

    fake_cpu(vcpu)->code = code;
    ck_assert_int_eq(pio_register(vm, 0x60, 1, &ops, &calls, NULL), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(rax(), 0x41);
    ck_assert_int_eq(calls, 1);
    ck_assert_ptr_null(vcpu_current(vm));
}
END_TEST

static int defer_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)offset;
    (void)size;
    (void)value;
    ++*(_Atomic int *)opaque;
    return VMM_IO_DEFER;
}

struct completer {
    _Atomic int *calls;
    uint64_t value;
};

static void *complete(void *opaque)
{
    struct completer *c = opaque;

    while (!*c->calls)
        os_yield();
    /* The callback may still be about to return. */
    while (mmio_complete(vcpu, c->value) == VMM_E_STATE)
        os_yield();
    return NULL;
}

START_TEST(deferred_access_waits_inside)
{
    static const struct fake_op code[] = {{.kind = OP_READ, .a = 0x1000}, {.kind = OP_HLT}};
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "slow", .read = defer_read};
    _Atomic int calls = 0;
    struct completer c = {.calls = &calls, .value = 0x1234};
    pthread_t thread;

    fake_cpu(vcpu)->code = code;
    ck_assert_int_eq(mmio_register(vm, 0x1000, 8, &ops, &calls, NULL), 0);
    /* Kicked while it waits: still pending afterwards. */
    vcpu_set_budget(vcpu, 0, 1000000);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    vcpu_set_budget(vcpu, 0, 0);
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    pthread_create(&thread, NULL, complete, &c);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(rax(), 0x1234);
    ck_assert_int_eq(calls, 1);
    ck_assert_int_eq(mmio_complete(vcpu, 1), VMM_E_STATE);
}
END_TEST

/* ---- waiting with interrupt controllers ---- */

static void fire_msi(void *opaque, uint64_t deadline)
{
    (void)deadline;
    ++*(int *)opaque;
    ck_assert_ptr_eq(vcpu_current(vm), vcpu);
    vm_irq_msi(vm, 0xfee00000, 0x50);
}

/* A software-enabled local APIC takes messages. */
static void enable_apic(void)
{
    uint64_t svr = 0x1ff;

    ck_assert_int_eq(core_mmio_access(vm, vcpu, ~0ull - 1, 0xfee000f0, 4, true, &svr), 0);
}

START_TEST(timers_wake_a_halted_vcpu)
{
    static const struct fake_op code[] = {
        {.kind = OP_WRITE, .a = 0xfee000f0, .b = 0x1ff}, /* enable the local APIC */
        {.kind = OP_STI},
        {.kind = OP_HLT},
        {.kind = OP_IN, .a = 0x99},
    };
    struct vmm_timer *timer;
    int fired = 0;

    fake_cpu(vcpu)->code = code;
    ck_assert_int_eq(vm_timer_create(vm, fire_msi, &fired, &timer), 0);
    uint64_t deadline = vm_clock(vm) + 3000000;
    vm_timer_set(timer, deadline);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_int_eq(fired, 1);
    ck_assert_uint_ge(vm_clock(vm), deadline);
    ck_assert_uint_eq(fake_cpu(vcpu)->last_event, 0x51);
    struct vm_stats stats = {.size = sizeof(stats)};
    ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
    ck_assert_uint_ge(stats.halts, 1);
    ck_assert_uint_eq(stats.exits, 1);
    ck_assert_uint_eq(stats.nvcpus, 1);
}
END_TEST

START_TEST(halt_budget_and_flag)
{
    static const struct fake_op code[] = {{.kind = OP_HLT}};
    struct vm_config config = {
        .size = sizeof(config), .irqchip = VMM_IRQCHIP_PC, .flags = VMM_VM_EXIT_HLT};

    fake_cpu(vcpu)->code = code;
    vcpu_set_budget(vcpu, 0, 1000000);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    vcpu_set_budget(vcpu, 5, 0);
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);

    struct vm *other = fake_vm(&config);
    ck_assert_int_eq(vcpu_run(fake_add(other, 0, code), &ex), 0);
    ck_assert_uint_eq(ex.reason, VMM_EXIT_HLT);
    vm_destroy(other);
}
END_TEST

struct sleeper {
    pthread_t thread;
    struct vcpu *vcpu;
    struct vcpu_exit exit;
};

static void *sleep_in_run(void *opaque)
{
    struct sleeper *s = opaque;

    s->exit.size = sizeof(s->exit);
    vcpu_run(s->vcpu, &s->exit);
    return NULL;
}

START_TEST(init_and_sipi_start_a_waiting_vcpu)
{
    static const struct fake_op code[] = {{.kind = OP_IN, .a = 0x99}};
    struct sleeper s = {.vcpu = fake_add(vm, 1, code)};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_SEG | VMM_REGS_GPR};

    pthread_create(&s.thread, NULL, sleep_in_run, &s);
    enable_apic();
    while (atomic_load(&s.vcpu->where) != VCPU_WAIT)
        os_yield();
    core_vcpu_nmi(s.vcpu); /* not taken before SIPI */
    core_vcpu_init_ipi(s.vcpu);
    core_vcpu_sipi(s.vcpu, 0x12);
    core_vcpu_sipi(s.vcpu, 0x13);
    pthread_join(s.thread, NULL);
    ck_assert_uint_eq(s.exit.reason, VMM_EXIT_PIO);
    ck_assert_int_eq(vcpu_get_regs(s.vcpu, &regs), 0);
    ck_assert_uint_eq(regs.seg[VMM_CS].selector, 0x1200);
    ck_assert_uint_eq(regs.seg[VMM_CS].base, 0x12000);
    ck_assert_uint_eq(regs.rip, 0);
    ck_assert_uint_eq(fake_cpu(s.vcpu)->events, 0);
}
END_TEST

/* ---- events ---- */

static int inject(uint8_t type, uint8_t vector, uint8_t has_error)
{
    struct vmm_event e = {
        .size = sizeof(e), .type = type, .vector = vector, .has_error = has_error, .error = 4};

    return vcpu_inject(vcpu, &e);
}

START_TEST(injected_events_are_checked)
{
    struct vcpu_regs regs = get(VMM_REGS_CONTROL | VMM_REGS_GPR);

    ck_assert_int_eq(inject(1, 0, 0), VMM_E_INVAL);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 32, 0), VMM_E_INVAL);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 2, 0), VMM_E_INVAL);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 13, 1), VMM_E_INVAL); /* real mode */
    regs.cr0 |= 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 13, 0), VMM_E_INVAL);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 6, 1), VMM_E_INVAL);

    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 0);
    ck_assert_int_eq(inject(VMM_EVENT_INTERRUPT, 0x40, 0), VMM_E_STATE);
    regs.rflags |= 0x200;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 1);
    ck_assert_int_eq(inject(VMM_EVENT_INTERRUPT, 0x40, 0), 0);
    ck_assert_int_eq(inject(VMM_EVENT_EXCEPTION, 13, 1), VMM_E_BUSY);
    ck_assert_int_eq(inject(VMM_EVENT_NMI, 2, 0), 0);
    ck_assert_int_eq(inject(VMM_EVENT_NMI, 2, 0), VMM_E_BUSY);
    regs = get(VMM_REGS_EVENTS);
    ck_assert_uint_eq(regs.inject_valid, 1);
    ck_assert_uint_eq(regs.inject_vector, 0x40);
    ck_assert_uint_eq(regs.nmi_pending, 1);
}
END_TEST

START_TEST(page_fault_sets_cr2)
{
    struct vmm_event e = {.size = sizeof(e),
                          .type = VMM_EVENT_EXCEPTION,
                          .vector = 14,
                          .has_error = 1,
                          .has_cr2 = 1,
                          .cr2 = 0xdead000};
    struct vcpu_regs regs = get(VMM_REGS_CONTROL);

    regs.cr0 |= 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_uint_eq(get(VMM_REGS_CONTROL).cr2, 0xdead000);
}
END_TEST

START_TEST(irq_window_exit_is_one_shot)
{
    static const struct fake_op code[] = {
        {.kind = OP_NOP}, {.kind = OP_STI}, {.kind = OP_HLT}, {.kind = OP_NOP}, {.kind = OP_HLT}};

    fake_cpu(vcpu)->code = code;
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_IRQ_WINDOW);
    ck_assert_uint_eq(ex.rip, 2);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_int_eq(inject(VMM_EVENT_INTERRUPT, 0x21, 0), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(ex.rip, 5);
    ck_assert_uint_eq(fake_cpu(vcpu)->last_event, 0x22);
}
END_TEST

/* ---- state ---- */

START_TEST(register_groups_are_checked)
{
    struct vcpu_regs regs = get(VMM_REGS_ALL);

    regs.groups = 0x100;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), VMM_E_INVAL);
    regs.groups = VMM_REGS_EVENTS;
    regs.activity = 4;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs.activity = 0;
    regs.shadow = 3;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs.shadow = 0;
    regs.inject_valid = 1;
    regs.inject_type = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs.groups = VMM_REGS_GPR;
    regs.rflags = 0;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs.size = 0;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    /* Groups that are not named stay as they are in the caller's struct. */
    memset(&regs, 0x33, sizeof(regs));
    regs.size = sizeof(regs);
    regs.groups = VMM_REGS_DT;
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    ck_assert_uint_eq(regs.gpr[0], 0x3333333333333333);
    ck_assert_uint_eq(regs.gdt.base, 0);
}
END_TEST

START_TEST(tsc_is_set_and_runs)
{
    struct vcpu_regs regs = get(VMM_REGS_MSR);
    uint64_t value;

    regs.tsc = 1ull << 50;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    ck_assert_int_eq(vcpu_get_msr(vcpu, 0x10, &value), 0);
    ck_assert_uint_ge(value, 1ull << 50);
    ck_assert_uint_lt(value, (1ull << 50) + (1ull << 40));
    ck_assert_int_eq(vcpu_set_msr(vcpu, 0x10, 5), 0);
    ck_assert_uint_lt(get(VMM_REGS_MSR).tsc, 1ull << 40);
    uint64_t at = core_tsc_deadline(vcpu, 1ull << 41);
    ck_assert_uint_gt(at, vm_clock(vm));
    ck_assert_int_eq(vcpu_get_msr(vcpu, 0x277, &value), 0);
    ck_assert_uint_eq(value, 0x1234);
    ck_assert_int_eq(vcpu_get_msr(vcpu, 0x9999, &value), VMM_E_NOENT);
    ck_assert_int_eq(vcpu_set_msr(vcpu, 0x9999, 0), VMM_E_NOENT);
}
END_TEST

START_TEST(tsc_deadline_in_the_past_is_now)
{
    uint64_t before = vm_clock(vm), tsc = core_vcpu_tsc(vcpu);
    uint64_t at = core_tsc_deadline(vcpu, tsc);

    ck_assert_uint_ge(at, before);
    ck_assert_uint_le(at, vm_clock(vm));
    at = core_tsc_deadline(vcpu, 1);
    ck_assert_uint_ge(at, before);
    ck_assert_uint_le(at, vm_clock(vm));
}
END_TEST

START_TEST(tsc_deadline_is_the_first_nanosecond)
{
    struct vm_config config = {.size = sizeof(config), .tsc_khz = 2345678};
    struct vm *other = fake_vm(&config);
    struct vcpu *cpu = fake_add(other, 0, spin);

    ck_assert_int_eq(vm_pause(other), 0);
    for (uint64_t d = 1; d < 5000000000; d = d * 3 + 1) {
        uint64_t now = vm_clock(other), tsc = core_vcpu_tsc(cpu);
        uint64_t at = core_tsc_deadline(cpu, tsc + d);
        unsigned __int128 mult = other->tsc_mult;

        ck_assert_uint_gt(at, now);
        ck_assert_uint_ge((uint64_t)(at * mult >> 32), tsc + d);
        ck_assert_uint_lt((uint64_t)((at - 1) * mult >> 32), tsc + d);
    }
    vm_resume(other);
    vm_destroy(other);
}
END_TEST

START_TEST(xsave_sizes)
{
    uint8_t area[576] = {0};

    ck_assert_int_eq(vcpu_get_xsave(vcpu, area, 575), VMM_E_NOSPACE);
    ck_assert_int_eq(vcpu_get_xsave(vcpu, area, 576), 0);
    ck_assert_uint_eq(area[575], 0x5a);
    ck_assert_int_eq(vcpu_set_xsave(vcpu, area, 576), VMM_E_INVAL);
    memset(area, 0, sizeof(area));
    ck_assert_int_eq(vcpu_set_xsave(vcpu, area, 512), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_xsave(vcpu, area, 576), 0);
}
END_TEST

START_TEST(ready_made_modes)
{
    struct vcpu_setup s = {
        .size = sizeof(s), .mode = VMM_SETUP_REAL, .rip = 0x12345, .rsp = 0x8000};
    uint64_t pml4[512], pd[512];

    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), 0);
    struct vcpu_regs r = get(VMM_REGS_ALL);
    ck_assert_uint_eq(r.seg[VMM_CS].base, 0x10000);
    ck_assert_uint_eq(r.rip, 0x2345);
    ck_assert_uint_eq(r.gpr[VMM_RSP], 0x8000);
    ck_assert_uint_eq(core_regs_mode(&r), VMM_MODE_REAL);

    s.mode = VMM_SETUP_PROT32;
    s.rip = 0x1ffff0000;
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), VMM_E_INVAL);
    s.rip = 0x100000;
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), 0);
    r = get(VMM_REGS_ALL);
    ck_assert_uint_eq(core_regs_mode(&r), VMM_MODE_PROT32);
    ck_assert_uint_eq(r.cr0 & 0x80000001, 1);

    s.mode = VMM_SETUP_LONG64;
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), VMM_E_INVAL);
    s.tables = 0x3000;
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x10000, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), 0);
    r = get(VMM_REGS_ALL);
    ck_assert_uint_eq(core_regs_mode(&r), VMM_MODE_LONG64);
    ck_assert_uint_eq(r.cr3, 0x3000);
    ck_assert_int_eq(vm_mem_read(vm, 0x3000, pml4, 4096), 0);
    ck_assert_uint_eq(pml4[0], 0x4003);
    ck_assert_uint_eq(pml4[1], 0);
    ck_assert_int_eq(vm_mem_read(vm, 0x8000, pd, 4096), 0);
    ck_assert_uint_eq(pd[511], 0xffe00083);

    s.mode = VMM_SETUP_USER64;
    s.cr3 = 0x3000;
    s.rip = 0x400000;
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), 0);
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    ck_assert_uint_eq(ex.mode, VMM_MODE_LONG64);
    ck_assert_uint_eq(ex.cpl, 3);
    ck_assert_uint_eq(ex.rip, 0x400000);
}
END_TEST

START_TEST(virtual_memory)
{
    uint8_t data[0x3000], back[0x3000];
    uint64_t gpa = 7;
    int ok;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x4000, VMM_MEM_R, NULL), 0);
    ck_assert_int_eq(vcpu_translate(vcpu, 0x10123, &gpa, &ok), 0);
    ck_assert_int_eq(ok, 1);
    ck_assert_uint_eq(gpa, 0x123);
    ck_assert_int_eq(vcpu_translate(vcpu, 0x123, &gpa, &ok), 0);
    ck_assert_int_eq(ok, 0);
    /* Whatever the protection. */
    ck_assert_int_eq(vcpu_write_virt(vcpu, 0x10100, data, sizeof(data)), 0);
    ck_assert_int_eq(vcpu_read_virt(vcpu, 0x10100, back, sizeof(back)), 0);
    ck_assert_mem_eq(data, back, sizeof(data));
    /* Neither unmapped addresses nor what is no memory, and then nothing is written. */
    ck_assert_int_eq(vcpu_read_virt(vcpu, 0xff00, back, 0x200), VMM_E_RANGE);
    memset(back, 0xee, sizeof(back));
    ck_assert_int_eq(vcpu_write_virt(vcpu, 0x13000, back, 0x1001), VMM_E_RANGE);
    ck_assert_int_eq(vcpu_read_virt(vcpu, 0x13000, back, 0x1000), 0);
    ck_assert_uint_eq(back[0], data[0x2f00]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vcpu");
    TCase *plain = tcase_create("plain");
    TCase *irqchip = tcase_create("irqchip");

    suite_add_tcase(s, plain);
    tcase_set_timeout(plain, 60);
    tcase_add_checked_fixture(plain, setup, teardown);
    tcase_add_test(plain, bad_exit_structs);
    tcase_add_test(plain, halt_without_irqchip_exits);
    tcase_add_test(plain, pio_and_mmio_exits_complete_once);
    tcase_add_test(plain, moving_rip_gives_the_instruction_up);
    tcase_add_test(plain, shutdown_exits_each_time);
    tcase_add_test(plain, kick_is_sticky_and_counts_once);
    tcase_add_test(plain, no_kick_is_lost);
    tcase_add_test(plain, kick_from_a_signal_handler);
    tcase_add_test(plain, instruction_budgets_are_exact);
    tcase_add_test(plain, wall_time_budget);
    tcase_add_test(plain, step_is_one_instruction_or_event);
    tcase_add_test(plain, what_callbacks_may_do);
    tcase_add_test(plain, deferred_access_waits_inside);
    tcase_add_test(plain, injected_events_are_checked);
    tcase_add_test(plain, page_fault_sets_cr2);
    tcase_add_test(plain, irq_window_exit_is_one_shot);
    tcase_add_test(plain, register_groups_are_checked);
    tcase_add_test(plain, tsc_is_set_and_runs);
    tcase_add_test(plain, tsc_deadline_in_the_past_is_now);
    tcase_add_test(plain, tsc_deadline_is_the_first_nanosecond);
    tcase_add_test(plain, xsave_sizes);
    tcase_add_test(plain, ready_made_modes);
    tcase_add_test(plain, virtual_memory);
    suite_add_tcase(s, irqchip);
    tcase_set_timeout(irqchip, 60);
    tcase_add_checked_fixture(irqchip, setup_irqchip, teardown);
    tcase_add_test(irqchip, timers_wake_a_halted_vcpu);
    tcase_add_test(irqchip, halt_budget_and_flag);
    tcase_add_test(irqchip, init_and_sipi_start_a_waiting_vcpu);

    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
