/* SPDX-License-Identifier: BSD-2-Clause */
/* test_timer.c: guest timers: order, setting again, cancelling, and who runs them. */
#include <check.h>
#include <pthread.h>

#include "fake_backend.h"

#include <vmm/vmm.h>

static const struct fake_op spin[] = {{.kind = OP_NOP}, {.kind = OP_JMP, .a = 0}};
static const struct fake_op halt[] = {{.kind = OP_HLT}, {.kind = OP_JMP, .a = 0}};

static struct vm *vm;
static struct vcpu *vcpu[4];

static void setup(void)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 4, .irqchip = VMM_IRQCHIP_PC};

    vm = fake_vm(&config);
    for (uint32_t i = 0; i < 4; i++) {
        struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_EVENTS};

        vcpu[i] = fake_add(vm, i, halt);
        vcpu_set_regs(vcpu[i], &regs); /* active */
    }
}

static void teardown(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
}

/* ---- a log of callbacks ---- */

struct logger {
    struct vmm_timer *timer;
    uint64_t fired[64];
    _Atomic uint32_t n;
    uint64_t again; /* period to set it again with */
    uint32_t until; /* this many callbacks, then vcpu_kick */
    bool destroy;
};

static void log_fire(void *opaque, uint64_t deadline)
{
    struct logger *l = opaque;
    uint32_t n = l->n;

    ck_assert_uint_ge(vm_clock(vm), deadline);
    ck_assert_ptr_nonnull(vcpu_current(vm));
    if (n < 64)
        l->fired[n] = deadline;
    if (l->again)
        vm_timer_set(l->timer, deadline + l->again);
    l->n = n + 1;
    if (l->n == l->until) {
        if (l->destroy)
            vm_timer_destroy(l->timer);
        else
            vm_timer_cancel(l->timer);
        for (int i = 0; i < 4; i++)
            vcpu_kick(vcpu[i]);
    }
}

static void run_until_kicked(struct vcpu *cpu)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vcpu_run(cpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_INTERRUPTED);
}

START_TEST(fires_once_in_order_of_deadlines)
{
    enum { N = 50 };
    struct logger l[N] = {0};
    uint64_t base = vm_clock(vm) + 1000000;

    for (uint64_t i = 0; i < N; i++) {
        ck_assert_int_eq(vm_timer_create(vm, log_fire, &l[i], &l[i].timer), 0);
        vm_timer_set(l[i].timer, base + 999999);
        vm_timer_set(l[i].timer, base + i * 7919 % N * 1000); /* replaces the first */
    }
    vm_timer_cancel(l[5].timer);
    l[N - 1].until = 1;
    vm_timer_set(l[N - 1].timer, base + 1000000);
    run_until_kicked(vcpu[0]);
    for (int i = 0; i < N; i++) {
        ck_assert_uint_eq(l[i].n, i != 5);
        if (i != 5 && i != N - 1)
            ck_assert_uint_eq(l[i].fired[0], base + (uint64_t)i * 7919 % N * 1000);
    }
}
END_TEST

START_TEST(callback_sets_it_again)
{
    struct logger l = {.again = 10000, .until = 30};
    uint64_t base = vm_clock(vm) + 100000;

    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    vm_timer_set(l.timer, base);
    run_until_kicked(vcpu[0]);
    for (uint64_t i = 0; i < 30; i++)
        ck_assert_uint_eq(l.fired[i], base + i * 10000);
    ck_assert_uint_eq(l.n, 30);
}
END_TEST

START_TEST(a_running_guest_polls)
{
    struct logger l = {.again = 10000, .until = 10};

    fake_cpu(vcpu[0])->code = spin;
    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    vm_timer_set(l.timer, 0);
    run_until_kicked(vcpu[0]);
    ck_assert_uint_eq(l.n, 10);
}
END_TEST

START_TEST(callback_destroys_its_timer)
{
    struct logger l = {.until = 1, .destroy = true};

    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    vm_timer_set(l.timer, vm_clock(vm) + 1000);
    run_until_kicked(vcpu[0]);
    ck_assert_uint_eq(l.n, 1);
    vm_timer_destroy(NULL);
}
END_TEST

START_TEST(bad_arguments)
{
    struct vmm_timer *timer;

    ck_assert_int_eq(vm_timer_create(vm, NULL, NULL, &timer), VMM_E_INVAL);
    ck_assert_int_eq(vm_timer_create(vm, log_fire, NULL, NULL), VMM_E_INVAL);
}
END_TEST

/* A timer that sets itself to the past must not keep vcpu_run from seeing a kick. */
START_TEST(a_storm_of_callbacks_can_be_kicked)
{
    struct logger l = {.again = 1};

    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    vm_timer_set(l.timer, 0);
    vcpu_set_budget(vcpu[0], 0, 2000000);
    struct vcpu_exit exit = {.size = sizeof(exit)};
    ck_assert_int_eq(vcpu_run(vcpu[0], &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_BUDGET);
    vm_timer_cancel(l.timer);
}
END_TEST

/* ---- several threads ---- */

static void *runner(void *opaque)
{
    run_until_kicked(opaque);
    return NULL;
}

START_TEST(all_vcpus_halted)
{
    struct logger l = {.again = 50000, .until = 60};
    pthread_t thread[4];

    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, runner, vcpu[i]);
    for (int i = 0; i < 4; i++)
        while (atomic_load(&vcpu[i]->where) != VCPU_WAIT)
            os_yield();
    /* From outside, while all sleep without a deadline. */
    vm_timer_set(l.timer, vm_clock(vm) + 100000);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(l.n, 60);
}
END_TEST

/* Whoever sleeps for a timer may leave; the next one has to know of it. */
START_TEST(a_leaving_vcpu_hands_over)
{
    struct logger l = {.until = 1};
    pthread_t thread[4];
    int left = -1;

    ck_assert_int_eq(vm_timer_create(vm, log_fire, &l, &l.timer), 0);
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, runner, vcpu[i]);
    for (int i = 0; i < 4; i++)
        while (atomic_load(&vcpu[i]->where) != VCPU_WAIT)
            os_yield();
    uint64_t deadline = vm_clock(vm) + 30000000;
    vm_timer_set(l.timer, deadline);
    while (left < 0)
        for (int i = 0; i < 4; i++)
            if (atomic_load(&vcpu[i]->wait_deadline) == deadline)
                left = i;
    vcpu_kick(vcpu[left]);
    pthread_join(thread[left], NULL);
    for (int i = 0; i < 4; i++)
        if (i != left)
            pthread_join(thread[i], NULL);
    ck_assert_uint_eq(l.n, 1);
}
END_TEST

static _Atomic int inside, storms;

static void slow_fire(void *opaque, uint64_t deadline)
{
    (void)opaque;
    (void)deadline;
    ck_assert_int_eq(inside++, 0); /* never on two threads at once */
    storms++;
    for (int i = 0; i < 20; i++)
        os_yield();
    inside--;
}

START_TEST(set_cancel_destroy_against_running_callbacks)
{
    pthread_t thread[4];

    for (int i = 0; i < 4; i++) {
        fake_cpu(vcpu[i])->code = i < 2 ? spin : halt;
        pthread_create(&thread[i], NULL, runner, vcpu[i]);
    }
    for (int round = 0; round < 300; round++) {
        struct vmm_timer *timer;

        ck_assert_int_eq(vm_timer_create(vm, slow_fire, NULL, &timer), 0);
        vm_timer_set(timer, vm_clock(vm));
        for (int i = 0; i < round % 7; i++) {
            os_yield();
            vm_timer_set(timer, vm_clock(vm));
        }
        if (round % 3)
            vm_timer_cancel(timer);
        vm_timer_destroy(timer);
        ck_assert_int_eq(inside, 0);
    }
    for (int i = 0; i < 4; i++)
        vcpu_kick(vcpu[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_int_gt(storms, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("timer");
    TCase *tc = tcase_create("timer");

    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, fires_once_in_order_of_deadlines);
    tcase_add_test(tc, callback_sets_it_again);
    tcase_add_test(tc, a_running_guest_polls);
    tcase_add_test(tc, callback_destroys_its_timer);
    tcase_add_test(tc, bad_arguments);
    tcase_add_test(tc, a_storm_of_callbacks_can_be_kicked);
    tcase_add_test(tc, all_vcpus_halted);
    tcase_add_test(tc, a_leaving_vcpu_hands_over);
    tcase_add_test(tc, set_cancel_destroy_against_running_callbacks);

    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
