/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_signals.c: kicks of vCPUs that are inside KVM_RUN, and what they do to the program's own
 * signals: no kick is lost, no signal of the library reaches a handler, masks stay what they were,
 * handlers of the program run meanwhile, and a fork harms nobody. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kvm_sound.h"
#include <vmm/vmm.h>

#define CODE    0x1000u
#define COUNTER 0x8000u
#define STACK   0xc000u
#define TABLES  0x10000u
#define RAM     0x100000u

static struct vm *vm;
static struct vcpu *vcpu;
static uint8_t *ram;
static struct vcpu_exit ex;

/* Guests: all count in memory for ever. */
enum { KERNEL, USER, PORTS, NGUESTS };
static const struct {
    const char *name;
    uint32_t mode;
    uint8_t code[16];
} guests[NGUESTS] = {
    /* 1: incq 0x8000; jmp 1b */
    {"CPL 0", VMM_SETUP_LONG64, {0x48, 0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0xeb, 0xf6}},
    {"CPL 3", VMM_SETUP_USER64, {0x48, 0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0xeb, 0xf6}},
    /* 1: incq 0x8000; out %al,$0x10; jmp 1b */
    {"ports",
     VMM_SETUP_LONG64,
     {0x48, 0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0xe6, 0x10, 0xeb, 0xf4}},
};

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    return VMM_IO_OK;
}

/* False: this host has no KVM. */
static bool begin(int guest)
{
    static const char *const backends[] = {"kvm", NULL};
    static const struct vmm_io_ops ops = {.size = sizeof(ops), .write = on_write};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .error = &error};
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = guests[guest].mode,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    void *host;

    int err = vm_create(&config, &vm);
    if (err == VMM_E_NODEV) {
        printf("skipped: %s\n", error.text);
        return false;
    }
    ck_assert_msg(!err, "%s", error.text);
    kvm_take_as_sound();
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, &host), 0);
    ram = host;
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ck_assert_int_eq(pio_register(vm, 0x10, 1, &ops, NULL, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, CODE, guests[guest].code, sizeof(guests[guest].code)), 0);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &setup), 0);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    regs.rflags |= 0x200;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    /* A kick that is lost shows as the end of the budget. */
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 20000000000u), 0);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
    return true;
}

/* Checks too that it was KVM that ran the guest. */
static void end(void)
{
    struct vm_stats stats = {.size = sizeof(stats)};

    ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
    ck_assert_uint_gt(stats.hw_exits, 0);
    ck_assert_int_eq(vm_destroy(vm), 0);
}

static void run_to(uint32_t reason)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    ck_assert_msg(ex.reason == reason, "%s instead of %s at %#llx", vmm_exit_name(ex.reason),
                  vmm_exit_name(reason), (unsigned long long)ex.rip);
}

static uint64_t counter(void)
{
    return atomic_load((_Atomic uint64_t *)(void *)(ram + COUNTER));
}

static bool pending(int sig)
{
    sigset_t set;

    sigpending(&set);
    return sigismember(&set, sig);
}

static void wait_some(unsigned *state)
{
    *state = *state * 1103515245 + 12345;
    for (unsigned i = *state >> 16 & 0x3fff; i; i--)
        __builtin_ia32_pause();
}

static void handle(int sig, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};

    ck_assert_int_eq(sigaction(sig, &action, NULL), 0);
}

/* ---- a thread that kicks once for each round ---- */

static _Atomic uint32_t rounds, kicked;
static _Atomic bool over;

static void *kick_each_round(void *opaque)
{
    unsigned state = (unsigned)(uintptr_t)opaque;

    while (!atomic_load(&over)) {
        if (atomic_load(&kicked) == atomic_load(&rounds)) {
            sched_yield();
            continue;
        }
        wait_some(&state);
        atomic_fetch_add(&kicked, 1);
        vcpu_kick(vcpu);
    }
    return NULL;
}

static void kick_rounds(uint32_t n)
{
    pthread_t thread;

    atomic_store(&rounds, 0);
    atomic_store(&kicked, 0);
    atomic_store(&over, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, kick_each_round, (void *)(uintptr_t)n), 0);
    for (uint32_t i = 1; i <= n; i++) {
        atomic_store(&rounds, i);
        run_to(VMM_EXIT_INTERRUPTED);
        ck_assert_uint_eq(atomic_load(&kicked), i);
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
}

START_TEST(no_kick_of_another_thread_is_lost)
{
    if (!begin(_i))
        return;
    kick_rounds(500);
    ck_assert(!pending(SIGURG));
    ck_assert_uint_gt(counter(), 0);
    end();
}
END_TEST

/* ---- the program's handlers ---- */

static _Atomic int nhandled, nurgent;

static void count_and_kick(int sig)
{
    (void)sig;
    nhandled++;
    vcpu_kick(vcpu);
}

static void count(int sig)
{
    (void)sig;
    nhandled++;
}

static void count_urgent(int sig)
{
    (void)sig;
    nurgent++;
}

START_TEST(no_kick_of_a_signal_handler_is_lost)
{
    if (!begin(_i))
        return;
    handle(SIGALRM, count_and_kick);
    for (int i = 1; i <= 200; i++) {
        struct itimerval it = {.it_value.tv_usec = 1 + i * 7 % 500};

        setitimer(ITIMER_REAL, &it, NULL);
        run_to(VMM_EXIT_INTERRUPTED);
        ck_assert_int_eq(nhandled, i);
    }
    end();
}
END_TEST

START_TEST(handlers_of_the_program_run_meanwhile)
{
    struct itimerval it = {.it_value.tv_usec = 1000, .it_interval.tv_usec = 1000}, off = {0};
    uint64_t before;

    if (!begin(_i))
        return;
    handle(SIGALRM, count);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 100000000), 0);
    before = counter();
    setitimer(ITIMER_REAL, &it, NULL);
    do
        run_to(VMM_EXIT_BUDGET);
    while (nhandled < 10);
    setitimer(ITIMER_REAL, &off, NULL);
    ck_assert_uint_gt(counter(), before);
    end();
}
END_TEST

/* ---- SIGURG ---- */

START_TEST(a_handler_for_sigurg_sees_nothing)
{
    if (!begin(_i))
        return;
    handle(SIGURG, count_urgent);
    kick_rounds(500);
    /* The budget's timer is no business of the program's either. */
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 200000), 0);
    for (int i = 0; i < 50; i++)
        run_to(VMM_EXIT_BUDGET);
    end();
    ck_assert_int_eq(nurgent, 0);
    raise(SIGURG);
    ck_assert_int_eq(nurgent, 1);
}
END_TEST

static pid_t the_thread;
static _Atomic bool in_run;

static void *send_urgent(void *opaque)
{
    bool to_thread = opaque != NULL;

    while (!atomic_load(&in_run) || !counter())
        sched_yield();
    usleep(2000);
    if (to_thread)
        syscall(SYS_tgkill, getpid(), the_thread, SIGURG);
    else
        kill(getpid(), SIGURG);
    usleep(2000);
    vcpu_kick(vcpu);
    return NULL;
}

/* SIGURG is the program's for data out of band; its own ones reach it, at once or after vcpu_run.
 */
START_TEST(the_programs_own_sigurg_arrives)
{
    sigset_t mask;
    pthread_t thread;

    if (!begin(KERNEL))
        return;
    handle(SIGURG, count_urgent);
    the_thread = (pid_t)syscall(SYS_gettid);
    for (int i = 0; i < 20; i++) {
        void *to_thread = i & 1 ? &mask : NULL;

        memset(ram + COUNTER, 0, 8);
        /* Nobody but this thread takes it. */
        sigemptyset(&mask);
        sigaddset(&mask, SIGURG);
        pthread_sigmask(SIG_BLOCK, &mask, NULL);
        ck_assert_int_eq(pthread_create(&thread, NULL, send_urgent, to_thread), 0);
        pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
        atomic_store(&in_run, true);
        run_to(VMM_EXIT_INTERRUPTED);
        atomic_store(&in_run, false);
        pthread_join(thread, NULL);
        ck_assert_int_eq(nurgent, i + 1);
    }
    end();
}
END_TEST

START_TEST(sigurg_may_be_ignored)
{
    if (!begin(_i))
        return;
    handle(SIGURG, SIG_IGN);
    kick_rounds(200);
    end();
}
END_TEST

START_TEST(sigurg_may_be_blocked)
{
    sigset_t mask;

    if (!begin(_i))
        return;
    sigfillset(&mask);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    kick_rounds(200);
    ck_assert(!pending(SIGURG));
    /* One of the program's own stays pending. */
    raise(SIGURG);
    kick_rounds(50);
    ck_assert(pending(SIGURG));
    end();
    ck_assert(pending(SIGURG));
}
END_TEST

START_TEST(masks_stay_what_they_were)
{
    static const int lists[][3] = {{0}, {SIGURG}, {SIGUSR1, SIGALRM}, {SIGURG, SIGTERM, SIGUSR2}};
    sigset_t mask, now;

    if (!begin(_i))
        return;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        sigemptyset(&mask);
        for (int k = 0; k < 3 && lists[i][k]; k++)
            sigaddset(&mask, lists[i][k]);
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
        kick_rounds(20);
        pthread_sigmask(SIG_BLOCK, NULL, &now);
        for (int sig = 1; sig < 32; sig++)
            ck_assert_int_eq(sigismember(&mask, sig), sigismember(&now, sig));
    }
    end();
}
END_TEST

/* Signals that the program has blocked stay out of the guest's way, and pending. */
START_TEST(blocked_signals_wait)
{
    sigset_t mask;

    if (!begin(_i))
        return;
    handle(SIGUSR1, count);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    raise(SIGUSR1);
    kick_rounds(20);
    ck_assert_int_eq(nhandled, 0);
    ck_assert(pending(SIGUSR1));
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    ck_assert_int_eq(nhandled, 1);
    end();
}
END_TEST

/* ---- callbacks see the program's mask ---- */

static int check_mask(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    sigset_t now, *expected = opaque;

    (void)offset;
    (void)size;
    (void)value;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    /* SIGURG itself may be blocked inside of vcpu_run, the others are the program's. */
    for (int sig = 1; sig < 32; sig++)
        if (sig != SIGURG && sigismember(&now, sig) != sigismember(expected, sig))
            return VMM_IO_EXIT;
    vcpu_kick(vcpu);
    return VMM_IO_OK;
}

START_TEST(callbacks_run_with_the_programs_mask)
{
    static const uint8_t code[] = {0xe6, 0x20, 0xeb, 0xfc}; /* 1: out %al,$0x20; jmp 1b */
    struct vmm_io_ops ops = {.size = sizeof(ops), .write = check_mask};
    sigset_t mask;

    if (!begin(KERNEL))
        return;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    ck_assert_int_eq(pio_register(vm, 0x20, 1, &ops, &mask, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, CODE, code, sizeof(code)), 0);
    for (int i = 0; i < 20; i++)
        run_to(VMM_EXIT_INTERRUPTED);
    end();
}
END_TEST

/* ---- threads ---- */

static void *run_once(void *opaque)
{
    (void)opaque;
    ex.size = sizeof(ex);
    return vcpu_run(vcpu, &ex) ? &ex : NULL;
}

/* A thread that has run the vCPU and has ended is signalled no more. */
START_TEST(the_thread_may_change)
{
    pthread_t thread;
    void *failed;

    if (!begin(_i))
        return;
    for (int i = 0; i < 50; i++) {
        memset(ram + COUNTER, 0, 8);
        ck_assert_int_eq(pthread_create(&thread, NULL, run_once, NULL), 0);
        if (i & 1)
            while (!counter())
                sched_yield();
        vcpu_kick(vcpu);
        pthread_join(thread, &failed);
        ck_assert_ptr_null(failed);
        ck_assert_int_eq(ex.reason, VMM_EXIT_INTERRUPTED);
        vcpu_kick(vcpu);
        run_to(VMM_EXIT_INTERRUPTED);
    }
    end();
}
END_TEST

static void *storm(void *opaque)
{
    unsigned state = (unsigned)(uintptr_t)opaque;

    while (!atomic_load(&over)) {
        wait_some(&state);
        if (state >> 20 & 1)
            vcpu_kick(vcpu);
        else if (state >> 21 & 1)
            vm_stop(vm);
        else
            vm_resume(vm);
    }
    return NULL;
}

START_TEST(a_storm_of_kicks)
{
    struct itimerval it = {.it_value.tv_usec = 700, .it_interval.tv_usec = 700}, off = {0};
    pthread_t threads[3];
    unsigned interrupted = 0;

    if (!begin(_i))
        return;
    handle(SIGURG, count_urgent);
    handle(SIGALRM, count_and_kick);
    atomic_store(&over, false);
    for (uintptr_t i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    setitimer(ITIMER_REAL, &it, NULL);
    while (interrupted < 2000) {
        ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
        ck_assert(ex.reason == VMM_EXIT_INTERRUPTED || ex.reason == VMM_EXIT_STOPPED);
        interrupted += ex.reason == VMM_EXIT_INTERRUPTED;
    }
    setitimer(ITIMER_REAL, &off, NULL);
    atomic_store(&over, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    vm_resume(vm);
    vcpu_kick(vcpu);
    run_to(VMM_EXIT_INTERRUPTED);
    end();
    ck_assert_int_eq(nurgent, 0);
}
END_TEST

/* ---- fork ---- */

START_TEST(forks_do_no_harm)
{
    pthread_t thread;
    void *failed;
    uint64_t seen;

    if (!begin(_i))
        return;
    for (int i = 0; i < 10; i++) {
        int status;

        memset(ram + COUNTER, 0, 8);
        ck_assert_int_eq(pthread_create(&thread, NULL, run_once, NULL), 0);
        while (!counter())
            sched_yield();
        fflush(NULL);
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (!child) {
            /* The vCPU is not the child's, but a kick of it is harmless. */
            if (i & 1)
                vcpu_kick(vcpu);
            _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        seen = counter();
        while (counter() == seen)
            sched_yield();
        vcpu_kick(vcpu);
        pthread_join(thread, &failed);
        ck_assert_ptr_null(failed);
        ck_assert_int_eq(ex.reason, VMM_EXIT_INTERRUPTED);
    }
    end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kvm_signals");
    TCase *tc = tcase_create("kvm_signals");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 100);
    tcase_add_loop_test(tc, no_kick_of_another_thread_is_lost, 0, NGUESTS);
    tcase_add_loop_test(tc, no_kick_of_a_signal_handler_is_lost, 0, NGUESTS);
    tcase_add_loop_test(tc, handlers_of_the_program_run_meanwhile, 0, NGUESTS);
    tcase_add_loop_test(tc, a_handler_for_sigurg_sees_nothing, 0, NGUESTS);
    tcase_add_test(tc, the_programs_own_sigurg_arrives);
    tcase_add_loop_test(tc, sigurg_may_be_ignored, 0, NGUESTS);
    tcase_add_loop_test(tc, sigurg_may_be_blocked, 0, NGUESTS);
    tcase_add_loop_test(tc, masks_stay_what_they_were, 0, NGUESTS);
    tcase_add_loop_test(tc, blocked_signals_wait, 0, NGUESTS);
    tcase_add_test(tc, callbacks_run_with_the_programs_mask);
    tcase_add_loop_test(tc, the_thread_may_change, 0, NGUESTS);
    tcase_add_loop_test(tc, a_storm_of_kicks, 0, NGUESTS);
    tcase_add_loop_test(tc, forks_do_no_harm, 0, NGUESTS);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
