/* SPDX-License-Identifier: BSD-2-Clause */
/* test_irq_fd.c: interrupts by eventfds and message routes, with the library's own thread. */
#include "api_vm.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/internal.h"

#define ROUTE 40u

static void out(uint16_t port, uint64_t value)
{
    ck_assert_int_eq(core_pio_access(vm, NULL, 0, port, 1, true, &value), CORE_IO_OK);
}

static void ioapic(uint32_t reg, uint64_t value)
{
    uint64_t select = reg;

    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00000, 4, true, &select), CORE_IO_OK);
    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00010, 4, true, &value), CORE_IO_OK);
}

static void wrmsr(uint32_t index, uint64_t value)
{
    ck_assert_int_eq(lapic_write_msr(core_vcpu_lapic(vcpu), index, value, true), 0);
}

/* 8259s with vectors from 0x20 on, all lines open; a local APIC that is enabled. */
static void begin(void)
{
    api_begin(VMM_IRQCHIP_PC, 0, 1);
    out(0x20, 0x11);
    out(0x21, 0x20);
    out(0x21, 4);
    out(0x21, 1);
    out(0x21, 0);
    out(0xa0, 0x11);
    out(0xa1, 0x28);
    out(0xa1, 2);
    out(0xa1, 1);
    out(0xa1, 0);
    wrmsr(0x1b, 0xfee00d00); /* x2APIC */
    wrmsr(0x80f, 0x1ff);
}

static int event(void)
{
    int fd = eventfd(0, EFD_NONBLOCK);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static void ring(int fd)
{
    ck_assert_int_eq(eventfd_write(fd, 1), 0);
}

static uint64_t take(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* The vector of the next interrupt, which comes some time. */
static int vector(void)
{
    while (!core_intr_pending(vcpu))
        usleep(50);
    return core_intr_ack(vcpu);
}

static void end_of_interrupt(void)
{
    wrmsr(0x80b, 0);
}

START_TEST(a_signal_is_an_edge)
{
    int fd = event(), other = eventfd(0, 0); /* one in blocking mode */

    begin();
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, -1), 0);
    ck_assert_int_eq(vm_irq_fd(vm, 5, other, -1), 0);
    for (int i = 0; i < 20; i++) {
        ring(fd);
        ck_assert_int_eq(vector(), 0x24);
        out(0x20, 0x20);
        ring(other);
        ck_assert_int_eq(vector(), 0x25);
        out(0x20, 0x20);
    }
    ck_assert(!core_intr_pending(vcpu));
    /* The descriptors are the library's own: the caller's can go. */
    int copy = dup(fd);
    close(fd);
    ring(copy);
    ck_assert_int_eq(vector(), 0x24);
    out(0x20, 0x20);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, fd), 0);
    ring(copy);
    ck_assert(!core_intr_pending(vcpu));
    ck_assert_uint_eq(take(copy), 1); /* nobody took it */
    api_end();
    close(copy);
    close(other);
}
END_TEST

START_TEST(a_signal_is_the_message_of_its_route)
{
    int fd = event(), other = event();

    begin();
    ck_assert_int_eq(vm_irq_fd(vm, ROUTE, fd, -1), 0);
    ck_assert_int_eq(vm_irq_route(vm, ROUTE, 0xfee00000, 0x55), 0);
    ring(fd);
    ck_assert_int_eq(vector(), 0x55);
    end_of_interrupt();
    ck_assert_int_eq(vm_irq_route(vm, ROUTE, 0xfee00000, 0x66), 0);
    ck_assert_int_eq(vm_irq_route(vm, ROUTE + 1, 0xfee00000, 0x77), 0);
    ring(fd);
    ck_assert_int_eq(vector(), 0x66);
    end_of_interrupt();
    ck_assert_int_eq(vm_irq_route(vm, ROUTE, 0, 0), 0);
    ck_assert_int_eq(vm_irq_fd(vm, ROUTE + 1, other, -1), 0);
    ring(fd); /* lost; the thread takes signals in their order */
    ring(other);
    ck_assert_int_eq(vector(), 0x77);
    end_of_interrupt();
    ck_assert_int_eq(vm_irq_fd_remove(vm, ROUTE, fd), 0);
    ck_assert(!core_intr_pending(vcpu));
    api_end();
    close(other);
    close(fd);
}
END_TEST

START_TEST(signals_before_the_descriptor_is_given_count)
{
    int fd = event();

    begin();
    ring(fd);
    ck_assert_int_eq(vm_irq_fd(vm, 6, fd, -1), 0);
    ck_assert_int_eq(vector(), 0x26);
    api_end();
    close(fd);
}
END_TEST

static void check_resample(int fd, int resample, int wanted, void (*eoi)(void))
{
    for (int i = 0; i < 5; i++) {
        ring(fd);
        ck_assert_int_eq(vector(), wanted);
        ck_assert_uint_eq(take(resample), 0);
        eoi();
        ck_assert_uint_eq(take(resample), 1);
        ck_assert(!core_intr_pending(vcpu)); /* lowered */
    }
}

START_TEST(level_triggered_lines_are_resampled_by_the_ioapic)
{
    int fd = event(), resample = event();

    begin();
    ioapic(0x10 + 2 * 18, 0x8061);
    ck_assert_int_eq(vm_irq_fd(vm, 18, fd, resample), 0);
    check_resample(fd, resample, 0x61, end_of_interrupt);
    /* A level of the program's keeps the line asserted. */
    ck_assert_int_eq(vm_irq_set(vm, 18, 1), 0);
    ck_assert_int_eq(vector(), 0x61);
    end_of_interrupt();
    ck_assert_int_eq(vector(), 0x61);
    ck_assert_int_eq(vm_irq_set(vm, 18, 0), 0);
    end_of_interrupt();
    ck_assert(!core_intr_pending(vcpu));
    api_end();
    close(fd);
    close(resample);
}
END_TEST

static void pic_eoi(void)
{
    out(0xa0, 0x20);
    out(0x20, 0x20);
}

START_TEST(level_triggered_lines_are_resampled_by_the_8259s)
{
    int fd = event(), resample = event();

    begin();
    out(0x4d1, 0x08);
    ck_assert_int_eq(vm_irq_fd(vm, 11, fd, resample), 0);
    check_resample(fd, resample, 0x2b, pic_eoi);
    api_end();
    close(fd);
    close(resample);
}
END_TEST

START_TEST(two_devices_share_a_line)
{
    int fd[2] = {event(), event()}, resample[2] = {event(), event()};

    begin();
    ioapic(0x10 + 2 * 18, 0x8061);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(vm_irq_fd(vm, 18, fd[i], resample[i]), 0);
    ring(fd[0]);
    ck_assert_int_eq(vector(), 0x61);
    end_of_interrupt();
    ck_assert_uint_eq(take(resample[0]), 1);
    ck_assert_uint_eq(take(resample[1]), 1);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 18, fd[0]), 0);
    ring(fd[1]);
    ck_assert_int_eq(vector(), 0x61);
    end_of_interrupt();
    ck_assert_uint_eq(take(resample[0]), 0);
    ck_assert_uint_eq(take(resample[1]), 1);
    api_end();
}
END_TEST

START_TEST(bad_arguments)
{
    int fd = event(), ends[2];

    begin();
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(vm_irq_fd(NULL, 4, fd, -1), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, 4, -1, -1), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, 4, 1 << 20, -1), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, 4, ends[0], -1), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, ends[1]), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, ROUTE, fd, fd), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd(vm, 24 + 1024, fd, -1), VMM_E_RANGE);
    ck_assert_int_eq(vm_irq_fd(vm, UINT32_MAX, fd, -1), VMM_E_RANGE);
    ck_assert(!vm->watcher.running); /* nothing to wait for: no thread */
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, -1), 0);
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, -1), VMM_E_EXIST);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 5, fd), VMM_E_NOENT);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, ends[0]), VMM_E_NOENT);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, -1), VMM_E_NOENT);
    ck_assert_int_eq(vm_irq_fd_remove(NULL, 4, fd), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, fd), 0);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, fd), VMM_E_NOENT);
    api_end();
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, -1), VMM_E_STATE);
    ck_assert_int_eq(vm_irq_route(vm, ROUTE, 0xfee00000, 1), VMM_E_STATE);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 4, fd), VMM_E_STATE);
    api_end();
}
END_TEST

/* ---- the thread ---- */

START_TEST(the_thread_takes_no_signals)
{
    sigset_t set, pending;
    int fd = event();

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    begin();
    ck_assert_int_eq(vm_irq_fd(vm, 4, fd, -1), 0);
    ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
    ck_assert_int_eq(kill(getpid(), SIGUSR1), 0);
    ring(fd);
    ck_assert_int_eq(vector(), 0x24); /* it is alive: SIGUSR1 would end the process */
    ck_assert_int_eq(sigpending(&pending), 0);
    ck_assert(sigismember(&pending, SIGUSR1));
    api_end();
}
END_TEST

START_TEST(many_descriptors_and_vms)
{
    enum { N = 100, VMS = 4 };
    static int fds[N];
    struct vm *vms[VMS];
    struct vcpu *vcpus[VMS];

    for (int i = 0; i < N; i++)
        fds[i] = event();
    for (int v = 0; v < VMS; v++) {
        begin();
        vms[v] = vm;
        vcpus[v] = vcpu;
        for (int i = v; i < N; i += VMS) {
            ck_assert_int_eq(vm_irq_fd(vm, ROUTE + (uint32_t)i, fds[i], -1), 0);
            ck_assert_int_eq(vm_irq_route(vm, ROUTE + (uint32_t)i, 0xfee00000, 0x40 + (uint32_t)i),
                             0);
        }
    }
    for (int i = 0; i < N; i++) {
        vm = vms[i % VMS];
        vcpu = vcpus[i % VMS];
        ring(fds[i]);
        ck_assert_int_eq(vector(), 0x40 + i);
        end_of_interrupt();
    }
    for (int v = 0; v < VMS; v++)
        ck_assert_int_eq(vm_destroy(vms[v]), 0);
    for (int i = 0; i < N; i++)
        close(fds[i]);
}
END_TEST

static _Atomic bool over;

static void *signaller(void *arg)
{
    while (!over)
        ring(*(int *)arg);
    return NULL;
}

/* Adding, removing and destroying while signals come; vCPU 0 acknowledges some. */
START_TEST(removing_while_signals_come)
{
    int fd[2] = {event(), event()}, resample = event();
    pthread_t threads[2];

    over = false;
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, signaller, &fd[i]), 0);
    for (int round = 0; round < 20; round++) {
        begin();
        ioapic(0x10 + 2 * 18, 0x8061);
        ck_assert_int_eq(vm_irq_route(vm, ROUTE, 0xfee00000, 0x55), 0);
        for (int i = 0; i < 20; i++) {
            ck_assert_int_eq(vm_irq_fd(vm, ROUTE, fd[0], -1), 0);
            ck_assert_int_eq(vm_irq_fd(vm, 18, fd[1], resample), 0);
            for (int n = 0; n < 3; n++) {
                vector();
                end_of_interrupt();
            }
            ck_assert_int_eq(vm_irq_fd_remove(vm, ROUTE, fd[0]), 0);
            ck_assert_int_eq(vm_irq_fd_remove(vm, 18, fd[1]), 0);
            while (core_intr_pending(vcpu)) {
                core_intr_ack(vcpu);
                end_of_interrupt();
            }
        }
        ck_assert_int_eq(vm_irq_fd(vm, ROUTE, fd[0], -1), 0);
        ck_assert_int_eq(vm_irq_fd(vm, 18, fd[1], resample), 0);
        api_end();
    }
    over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}
END_TEST

/* ---- watches, as engines use them ---- */

static struct core_watch *watch;
static _Atomic int calls;

static void remove_itself(void *opaque)
{
    ck_assert_ptr_eq(opaque, &calls);
    core_watch_remove(watch);
    atomic_fetch_add(&calls, 1);
}

START_TEST(a_watch_may_remove_itself)
{
    int fd = event();

    begin();
    ck_assert_int_eq(core_watch_add(vm, "test", fd, remove_itself, &calls, &watch), 0);
    ring(fd);
    while (!atomic_load(&calls))
        usleep(50);
    ring(fd);
    ck_assert_int_eq(core_watch_add(vm, "test", fd, remove_itself, &calls, &watch), 0);
    while (atomic_load(&calls) != 2)
        usleep(50);
    core_watch_remove(NULL);
    ck_assert_int_eq(core_watch_add(vm, "test", 1 << 20, remove_itself, &calls, &watch),
                     VMM_E_INVAL);
    api_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        a_signal_is_an_edge,
        a_signal_is_the_message_of_its_route,
        signals_before_the_descriptor_is_given_count,
        level_triggered_lines_are_resampled_by_the_ioapic,
        level_triggered_lines_are_resampled_by_the_8259s,
        two_devices_share_a_line,
        bad_arguments,
        the_thread_takes_no_signals,
        many_descriptors_and_vms,
        removing_while_signals_come,
        a_watch_may_remove_itself,
    };

    return api_main("irq_fd", tests, sizeof(tests) / sizeof(tests[0]));
}
