/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_probe.c: what the probe says of hosts without a usable KVM, and when system calls fail;
 * it leaves nothing behind. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/kvm/probe.h"
#include "dir_entries.h"

/* ---- system calls, wrapped by the linker (--wrap) ---- */

int __real_open(const char *path, int flags, ...);
int __real_ioctl(int fd, unsigned long request, ...);
void *__real_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *p, size_t len);
int __real_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer);
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
int __wrap_open(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *p, size_t len);
int __wrap_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static bool probing;          /* only what the probe calls fails */
static int open_errno;        /* of /dev/kvm; 0: it works */
static const char *open_path; /* instead of /dev/kvm */
static int version;           /* instead of KVM's; 0: KVM's */
static int missing_cap = -1;
static long calls, maps; /* system calls that may fail so far; mappings alive */
static long fail_at = -1;
static int fail_errno;
static bool fail_often; /* every second call */
static unsigned failures;

static bool fails(void)
{
    if (!probing)
        return false;

    long n = calls++;

    if (fail_often ? n & 1 : n == fail_at) {
        failures++;
        errno = fail_errno;
        return true;
    }
    return false;
}

int __wrap_open(const char *path, int flags, ...)
{
    if (!strcmp(path, "/dev/kvm")) {
        if (open_errno) {
            errno = open_errno;
            return -1;
        }
        if (open_path)
            path = open_path;
    }
    return __real_open(path, flags);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    uintptr_t arg = va_arg(args, uintptr_t);
    va_end(args);
    if (fails())
        return -1;
    if (request == KVM_GET_API_VERSION && version)
        return version;
    if (request == KVM_CHECK_EXTENSION && (int)arg == missing_cap)
        return 0;
    return __real_ioctl(fd, request, arg);
}

void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset)
{
    if (fail_errno == ENOMEM && fails())
        return MAP_FAILED;
    p = __real_mmap(p, len, prot, flags, fd, offset);
    maps += p != MAP_FAILED;
    return p;
}

int __wrap_munmap(void *p, size_t len)
{
    maps--;
    return __real_munmap(p, len);
}

int __wrap_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer)
{
    return fail_errno != EINTR && fails() ? -1 : __real_timer_create(clock, event, timer);
}

void *__wrap_malloc(size_t n)
{
    return fail_errno == ENOMEM && fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fail_errno == ENOMEM && fails() ? NULL : __real_calloc(n, size);
}

/* ---- what a probe must not change ---- */

/* POSIX timers of the process; 0 on kernels that do not tell. */
static unsigned count_timers(void)
{
    char line[128];
    unsigned n = 0;
    FILE *f = fopen("/proc/self/timers", "r");

    while (f && fgets(line, sizeof(line), f))
        n += !strncmp(line, "ID:", 3);
    if (f)
        fclose(f);
    return n;
}

static bool sigurg_blocked(void)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, SIGURG);
}

static bool sigurg_pending(void)
{
    sigset_t set;

    sigpending(&set);
    return sigismember(&set, SIGURG);
}

static struct kvm_host host;

static int probe(void)
{
    unsigned fds = dir_entries("/proc/self/fd"), timers = count_timers();
    bool blocked = sigurg_blocked(), pending = sigurg_pending();

    calls = maps = 0;
    failures = 0;
    memset(&host, 0x5a, sizeof(host));
    probing = true;
    int result = kvm_probe_host(&host);
    probing = false;
    ck_assert_int_eq(result, host.result);
    ck_assert_int_eq(maps, 0);
    ck_assert_uint_eq(dir_entries("/proc/self/fd"), fds);
    ck_assert_uint_eq(count_timers(), timers);
    ck_assert(sigurg_blocked() == blocked);
    ck_assert(sigurg_pending() == pending);
    ck_assert_uint_gt(strlen(host.reason), 0);
    ck_assert_uint_lt(strlen(host.reason), sizeof(host.reason));
    if (result)
        ck_assert_ptr_null(host.supported);
    else
        ck_assert_ptr_nonnull(host.supported);
    kvm_probe_free(&host);
    return result;
}

/* ---- hosts without KVM ---- */

START_TEST(no_device)
{
    open_errno = ENOENT;
    ck_assert_int_eq(probe(), VMM_E_NODEV);
    ck_assert_int_eq(host.os_errno, ENOENT);
    ck_assert_str_eq(host.reason, "there is no /dev/kvm");
    ck_assert_int_eq(calls, 0);
}
END_TEST

START_TEST(no_driver)
{
    open_errno = ENXIO;
    ck_assert_int_eq(probe(), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(host.reason, "/dev/kvm cannot be opened: "));
}
END_TEST

START_TEST(no_permission)
{
    static const int errors[] = {EACCES, EPERM};

    for (int i = 0; i < 2; i++) {
        open_errno = errors[i];
        ck_assert_int_eq(probe(), VMM_E_PERM);
        ck_assert_int_eq(host.os_errno, errors[i]);
        ck_assert_str_eq(host.reason, "no permission to open /dev/kvm");
    }
}
END_TEST

START_TEST(no_descriptor_left)
{
    open_errno = EMFILE;
    ck_assert_int_eq(probe(), VMM_E_LIMIT);
    ck_assert_int_eq(host.os_errno, EMFILE);
}
END_TEST

START_TEST(not_a_kvm_device)
{
    open_path = "/dev/null";
    ck_assert_int_eq(probe(), VMM_E_NODEV);
    ck_assert_int_eq(host.os_errno, ENOTTY);
    ck_assert_str_eq(host.reason, "/dev/kvm is not a KVM device");
}
END_TEST

START_TEST(another_version)
{
    open_path = "/dev/null";
    version = 11;
    ck_assert_int_eq(probe(), VMM_E_UNSUPPORTED);
    ck_assert_str_eq(host.reason, "/dev/kvm has an API version other than 12");
    ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(the_backend_report)
{
    struct vmm_backend_report report = {.size = sizeof(report), .flags = 1};
    const struct kvm_host *once;

    open_errno = ENOENT;
    kvm_probe(&report);
    ck_assert_int_eq(report.result, VMM_E_NODEV);
    ck_assert_uint_eq(report.flags, 0);
    ck_assert_str_eq(report.reason, "there is no /dev/kvm");

    /* The first answer is the process's. */
    open_errno = 0;
    once = kvm_host();
    ck_assert_int_eq(once->result, VMM_E_NODEV);
    ck_assert_int_eq(once->os_errno, ENOENT);
}
END_TEST

START_TEST(names_fit_or_are_cut_between_two)
{
    char text[400], all[400];

    kvm_bad_names(0, text, sizeof(text));
    ck_assert_str_eq(text, "");
    kvm_bad_names(KVM_BAD_PAE, text, sizeof(text));
    ck_assert_str_eq(text, "PAE");
    kvm_bad_names(KVM_BAD_REAL | KVM_BAD_PAE, text, sizeof(text));
    ck_assert_str_eq(text, "real mode, PAE");
    kvm_bad_names(0xffff, all, sizeof(all));
    ck_assert_ptr_null(strstr(all, "..."));
    for (size_t size = 1; size <= strlen(all) + 1; size++) {
        memset(text, 0x5a, sizeof(text));
        kvm_bad_names(0xffff, text, size);

        size_t len = strlen(text);
        ck_assert_uint_lt(len, size);
        ck_assert_int_eq(text[size], 0x5a);
        if (size > strlen(all)) {
            ck_assert_str_eq(text, all);
        } else if (len) {
            ck_assert_uint_gt(len, 5);
            ck_assert_str_eq(text + len - 5, ", ...");
            ck_assert(!memcmp(text, all, len - 5));
            ck_assert(all[len - 5] == ',');
        }
    }
}
END_TEST

/* ---- a host with KVM whose system calls fail ---- */

START_TEST(it_finds_the_same_again)
{
    ck_assert_int_eq(probe(), 0);

    const struct kvm_host *once = kvm_host();
    long before;

    ck_assert_int_eq(once->result, 0);
    ck_assert_uint_eq(once->bad & ~KVM_BAD_SLOW_KERNEL, host.bad & ~KVM_BAD_SLOW_KERNEL);
    ck_assert_uint_eq(once->has, host.has);
    ck_assert_uint_eq(once->has & KVM_HAS_REQUIRED, KVM_HAS_REQUIRED);
    ck_assert_uint_eq(once->gpa_bits, host.gpa_bits);
    ck_assert(once->irqchip_kernel_ok == host.irqchip_kernel_ok);
    ck_assert(once->irqchip_split_ok == host.irqchip_split_ok);
    ck_assert_uint_ge(once->run_size, sizeof(struct kvm_run));
    ck_assert_uint_ge(once->xsave_size, 4096);
    ck_assert_uint_ge(once->nslots, 32);
    ck_assert_uint_ge(once->max_vcpus, 1);
    ck_assert_uint_ge(once->gpa_bits, 32);
    ck_assert_uint_gt(once->kernel_insn_ns10, 0);
    ck_assert_uint_gt(once->user_insn_ns10, 0);
    ck_assert_uint_gt(once->supported->nent, 0);
    probing = true;
    before = calls;
    ck_assert_ptr_eq(kvm_host(), once);
    ck_assert_int_eq(calls, before);
    probing = false;

    struct vmm_backend_report report = {.size = sizeof(report)};

    kvm_probe(&report);
    ck_assert_int_eq(report.result, 0);
    ck_assert_uint_eq(report.flags, once->degraded ? VMM_BACKEND_DEGRADED : 0);
    ck_assert_str_eq(report.reason, once->reason);
    if (once->bad & (KVM_BAD_USER_EVENTS | KVM_BAD_PAE | KVM_BAD_SLOW_KERNEL))
        ck_assert(once->degraded);
    if (!once->bad)
        ck_assert(!once->degraded);
}
END_TEST

START_TEST(auto_goes_by_it)
{
    const struct kvm_host *once = kvm_host();
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vm *vm;

    ck_assert_int_eq(vm_create(NULL, &vm), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_str_eq(caps.backend, once->result || once->degraded ? "bt" : "kvm");
    vm_destroy(vm);
}
END_TEST

START_TEST(auto_without_kvm)
{
    open_errno = EACCES;
    struct vmm_backend_report reports[4] = {{.size = sizeof(reports[0])}};
    struct vm_config config = {.size = sizeof(config), .reports = reports, .nreports = 4};
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vm *vm;

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_str_eq(caps.backend, "bt");
    ck_assert_str_eq(reports[0].name, "kvm");
    ck_assert_int_eq(reports[0].result, VMM_E_PERM);
    ck_assert_str_eq(reports[0].reason, "no permission to open /dev/kvm");
    vm_destroy(vm);
}
END_TEST

static const struct {
    int cap;
    const char *reason;
} required[] = {
    {KVM_CAP_USER_MEMORY, "this KVM has no KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "this KVM has no KVM_CAP_EXT_CPUID"},
    {KVM_CAP_VCPU_EVENTS, "this KVM has no KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "this KVM has no KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "this KVM has no KVM_CAP_XSAVE"},
    {KVM_CAP_READONLY_MEM, "this KVM has no KVM_CAP_READONLY_MEM"},
    {KVM_CAP_IMMEDIATE_EXIT, "this KVM has no KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "this KVM has no KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "this KVM has no KVM_CAP_X86_MSR_FILTER"},
};

START_TEST(a_required_capability_is_missing)
{
    missing_cap = required[_i].cap;
    ck_assert_int_eq(probe(), VMM_E_UNSUPPORTED);
    ck_assert_str_eq(host.reason, required[_i].reason);
    ck_assert_int_eq(host.os_errno, 0);
}
END_TEST

static const struct {
    int cap;
    uint32_t has;
} optional[] = {
    {KVM_CAP_SYNC_REGS, KVM_HAS_SYNC_REGS},
    {KVM_CAP_XCRS, KVM_HAS_XCRS},
    {KVM_CAP_XSAVE2, KVM_HAS_XSAVE2},
    {KVM_CAP_IRQCHIP, KVM_HAS_IRQCHIP},
    {KVM_CAP_SPLIT_IRQCHIP, KVM_HAS_SPLIT_IRQCHIP},
    {KVM_CAP_IRQFD, KVM_HAS_IRQFD},
    {KVM_CAP_IRQFD_RESAMPLE, KVM_HAS_IRQFD_RESAMPLE},
    {KVM_CAP_IOEVENTFD, KVM_HAS_IOEVENTFD},
    {KVM_CAP_IOEVENTFD_ANY_LENGTH, KVM_HAS_IOEVENTFD_ANY},
    {KVM_CAP_COALESCED_MMIO, KVM_HAS_COALESCED_MMIO},
    {KVM_CAP_COALESCED_PIO, KVM_HAS_COALESCED_PIO},
    {KVM_CAP_SIGNAL_MSI, KVM_HAS_SIGNAL_MSI},
    {KVM_CAP_X2APIC_API, KVM_HAS_X2APIC_API},
    {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_HAS_DIRTY_RING},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_HAS_MANUAL_DIRTY},
    {KVM_CAP_TSC_CONTROL, KVM_HAS_TSC_CONTROL},
    {KVM_CAP_SET_GUEST_DEBUG, KVM_HAS_GUEST_DEBUG},
    {KVM_CAP_KVMCLOCK_CTRL, KVM_HAS_KVMCLOCK_CTRL},
    {KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_HAS_EXIT_ON_EMUL},
    {KVM_CAP_MULTI_ADDRESS_SPACE, KVM_HAS_MULTI_ADDRESS},
};

START_TEST(an_optional_capability_is_missing)
{
    missing_cap = optional[_i].cap;
    ck_assert_int_eq(probe(), 0);
    ck_assert_uint_eq(host.has & optional[_i].has, 0);
    if (missing_cap == KVM_CAP_IRQCHIP)
        ck_assert(!host.irqchip_kernel_ok);
    if (missing_cap == KVM_CAP_SPLIT_IRQCHIP)
        ck_assert(!host.irqchip_split_ok);
    if (missing_cap == KVM_CAP_SET_GUEST_DEBUG)
        ck_assert_uint_eq(host.bad & (KVM_BAD_STEP | KVM_BAD_BREAKPOINT | KVM_BAD_WATCHPOINT), 0);
    if (missing_cap == KVM_CAP_DIRTY_LOG_RING_ACQ_REL)
        ck_assert_uint_eq(host.dirty_ring_bytes, 0);
}
END_TEST

START_TEST(limits_that_kvm_does_not_tell)
{
    missing_cap = KVM_CAP_NR_MEMSLOTS;
    ck_assert_int_eq(probe(), 0);
    ck_assert_uint_eq(host.nslots, 32);
    missing_cap = KVM_CAP_MAX_VCPUS;
    ck_assert_int_eq(probe(), 0);
    ck_assert_uint_ge(host.max_vcpus, 1);
}
END_TEST

START_TEST(every_call_without_memory)
{
    fail_errno = ENOMEM;
    for (fail_at = 0;; fail_at++) {
        int result = probe();

        if (!failures)
            break;
        ck_assert_msg(result == VMM_E_NOMEM && host.os_errno == ENOMEM, "call %ld: %d, %s", fail_at,
                      result, host.reason);
    }
    ck_assert_int_gt(fail_at, 50);
    ck_assert_int_eq(host.result, 0);
}
END_TEST

/* A defect may be found where there is none, or the host refused, but nothing else happens. */
START_TEST(some_calls_forbidden)
{
    fail_errno = EPERM;
    for (fail_at = _i;; fail_at += 5) {
        int result = probe();

        if (!failures)
            break;
        ck_assert_msg(!result || result == VMM_E_PERM || result == VMM_E_BACKEND,
                      "call %ld: %d, %s", fail_at, result, host.reason);
    }
}
END_TEST

START_TEST(every_second_call_is_interrupted)
{
    uint32_t bad = kvm_host()->bad & ~KVM_BAD_SLOW_KERNEL, has = kvm_host()->has;

    fail_errno = EINTR;
    fail_often = true;
    ck_assert_int_eq(probe(), 0);
    ck_assert_uint_eq(host.bad & ~KVM_BAD_SLOW_KERNEL, bad);
    ck_assert_uint_eq(host.has, has);
    ck_assert_uint_gt(failures, 20);
}
END_TEST

/* ---- signals of the program ---- */

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

START_TEST(a_signal_that_the_program_waits_for)
{
    const struct timespec at_once = {0};
    uint32_t bad = kvm_host()->bad & ~KVM_BAD_SLOW_KERNEL;
    siginfo_t info;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sigqueue(getpid(), SIGURG, (union sigval){.sival_int = 1234});
    ck_assert_int_eq(probe(), 0);
    ck_assert_uint_eq(host.bad & ~KVM_BAD_SLOW_KERNEL, bad);
    ck_assert_int_eq(sigtimedwait(&set, &info, &at_once), SIGURG);
    ck_assert_int_eq(info.si_code, SI_QUEUE);
    ck_assert_int_eq(info.si_value.sival_int, 1234);
    ck_assert_int_eq(sigtimedwait(&set, &info, &at_once), -1);
}
END_TEST

START_TEST(a_handler_of_the_program_is_not_called)
{
    struct sigaction action = {.sa_handler = on_signal};

    ck_assert_int_eq(sigaction(SIGURG, &action, NULL), 0);
    ck_assert_int_eq(probe(), 0);
    ck_assert_int_eq(signals, 0);
}
END_TEST

static bool has_kvm(void)
{
    int fd = __real_open("/dev/kvm", O_RDWR | O_CLOEXEC);
    bool has = fd >= 0 && __real_ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;

    if (fd >= 0)
        close(fd);
    return has;
}

int main(void)
{
    Suite *suite = suite_create("kvm_probe");
    TCase *tcase = tcase_create("without KVM");

    tcase_add_test(tcase, no_device);
    tcase_add_test(tcase, no_driver);
    tcase_add_test(tcase, no_permission);
    tcase_add_test(tcase, no_descriptor_left);
    tcase_add_test(tcase, not_a_kvm_device);
    tcase_add_test(tcase, another_version);
    tcase_add_test(tcase, the_backend_report);
    tcase_add_test(tcase, auto_without_kvm);
    tcase_add_test(tcase, names_fit_or_are_cut_between_two);
    suite_add_tcase(suite, tcase);

    if (has_kvm()) {
        tcase = tcase_create("with KVM");
        tcase_set_timeout(tcase, 100);
        tcase_add_test(tcase, it_finds_the_same_again);
        tcase_add_test(tcase, auto_goes_by_it);
        tcase_add_loop_test(tcase, a_required_capability_is_missing, 0,
                            (int)(sizeof(required) / sizeof(required[0])));
        tcase_add_loop_test(tcase, an_optional_capability_is_missing, 0,
                            (int)(sizeof(optional) / sizeof(optional[0])));
        tcase_add_test(tcase, limits_that_kvm_does_not_tell);
        tcase_add_test(tcase, every_call_without_memory);
        tcase_add_loop_test(tcase, some_calls_forbidden, 0, 1);
        tcase_add_test(tcase, every_second_call_is_interrupted);
        tcase_add_test(tcase, a_signal_that_the_program_waits_for);
        tcase_add_test(tcase, a_handler_of_the_program_is_not_called);
        suite_add_tcase(suite, tcase);
    } else {
        printf("there is no KVM: tests that need it are left out\n");
    }

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
