/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest user code executed directly: interrupts, requests of the host, memory that changes
 * meanwhile, threads, and what is left behind. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vmm/debug.h>

#include "dir_entries.h"
#include "direct_guest.h"

#include "has_stubs.h"

#define USE(X)        X(spin) X(count) X(wait) X(timer) X(until_7) X(add) X(accessed)
#define DECLARE(NAME) extern const uint8_t user_##NAME[], user_##NAME##_end[];
USE(DECLARE)
#define PROGRAM(NAME)                                                                              \
    static const struct program NAME = {                                                           \
        .name = #NAME, .code = user_##NAME, .end = user_##NAME##_end};
#define wait wait_ /* not wait(2) */
USE(PROGRAM)
#undef wait

#define AT 0x400000

static struct guest g;

static void begin(const struct program *p, uint32_t irqchip, uint32_t cpus)
{
    guest_begin(&g, "bt", DIRECT, irqchip, cpus);
    guest_load(&g, p, AT);
}

static struct vm_stats stats(void)
{
    struct vm_stats s = {.size = sizeof(s)};

    ck_assert_int_eq(vm_get_stats(g.vm, &s), 0);
    return s;
}

static void end(void)
{
    ck_assert_uint_gt(stats().direct_entries, 0);
    guest_end(&g);
}

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_nsec = (long)ms * 1000000};

    nanosleep(&t, NULL);
}

static const char *run(void)
{
    ck_assert_int_eq(vcpu_run(g.vcpu, &g.exit), 0);
    return vmm_exit_name(g.exit.reason);
}

static uint64_t reg(unsigned n)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR};

    ck_assert_int_eq(vcpu_get_regs(g.vcpu, &r), 0);
    return n == 16 ? r.rip : r.gpr[n];
}

/* ---- another thread, which does something in a few milliseconds ---- */

static pthread_t thread;

static void meanwhile(void *(*what)(void *))
{
    ck_assert_int_eq(pthread_create(&thread, NULL, what, NULL), 0);
}

static void join(void)
{
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

/* Until the program has counted, and been through all of its loop since. */
static void wait_for_count(void)
{
    uint64_t n = peek(&g, PAGES + 8);

    while (peek(&g, PAGES + 8) < n + 2)
        sleep_ms(1);
}

static void *kicks(void *unused)
{
    (void)unused;
    wait_for_count();
    vcpu_kick(g.vcpu);
    return NULL;
}

static void *stops(void *unused)
{
    (void)unused;
    wait_for_count();
    vm_stop(g.vm);
    return NULL;
}

/* ---- interrupts and requests ---- */

START_TEST(requests)
{
    begin(&count, VMM_IRQCHIP_NONE, 1);
    for (unsigned i = 0; i < 5; i++) {
        meanwhile(kicks);
        ck_assert_str_eq(run(), "INTERRUPTED");
        join();
        ck_assert_uint_le(reg(16) - AT, 64);
        meanwhile(stops);
        ck_assert_str_eq(run(), "STOPPED");
        join();
        ck_assert_int_eq(vm_resume(g.vm), 0);
    }
    /* A kick that comes first is not lost. */
    vcpu_kick(g.vcpu);
    ck_assert_str_eq(run(), "INTERRUPTED");
    end();
}
END_TEST

/* Instructions that have been executed, in a loop of two. */
static uint64_t spun(void)
{
    return reg(VMM_RBX) * 2 - (reg(16) != AT);
}

START_TEST(budgets)
{
    uint64_t n, entries;

    begin(&spin, VMM_IRQCHIP_NONE, 1);
    ck_assert_int_eq(vcpu_set_budget(g.vcpu, 0, 2000000), 0);
    do {
        n = spun();
        ck_assert_str_eq(run(), "BUDGET");
    } while (spun() < n + 10000);
    /* A budget of instructions is exact, and nothing is executed directly then. */
    ck_assert_int_eq(vcpu_set_budget(g.vcpu, 1000, 0), 0);
    n = spun();
    entries = stats().direct_entries;
    for (unsigned i = 1; i < 5; i++) {
        ck_assert_str_eq(run(), "BUDGET");
        ck_assert_uint_eq(spun(), n + i * 1000);
    }
    ck_assert_uint_eq(stats().direct_entries, entries);
    ck_assert_int_eq(vcpu_set_budget(g.vcpu, 0, 2000000), 0);
    do
        ck_assert_str_eq(run(), "BUDGET");
    while (stats().direct_entries == entries);
    end();
}
END_TEST

static void *pauses(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t n;

        sleep_ms(2);
        ck_assert_int_eq(vm_pause(g.vm), 0);
        n = peek(&g, PAGES + 8);
        sleep_ms(2);
        ck_assert_uint_eq(peek(&g, PAGES + 8), n);
        ck_assert_int_eq(vm_resume(g.vm), 0);
        wait_for_count();
    }
    poke(&g, PAGES + 0x3000, 1);
    return NULL;
}

START_TEST(pausing)
{
    begin(&count, VMM_IRQCHIP_NONE, 1);
    meanwhile(pauses);
    ck_assert_str_eq(run(), "PIO");
    join();
    ck_assert_uint_eq(g.exit.u.pio.port, PORT_END);
    end();
}
END_TEST

START_TEST(local_timer)
{
    begin(&timer, VMM_IRQCHIP_PC, 1);
    ck_assert_uint_eq(guest_run(&g, &timer), PORT_END);
    ck_assert_uint_ge(peek(&g, PAGES) & 0xffffffff, 3);
    end();
}
END_TEST

static void *interrupts(void *unused)
{
    (void)unused;
    wait_for_count();
    for (uint32_t i = 0; i < 3; i++) {
        sleep_ms(2);
        ck_assert_int_eq(vm_irq_msi(g.vm, 0xfee00000, 0xe1 + i), 0);
    }
    return NULL;
}

START_TEST(messages)
{
    begin(&wait_, VMM_IRQCHIP_PC, 1);
    meanwhile(interrupts);
    ck_assert_uint_eq(guest_run(&g, &wait_), PORT_END);
    join();
    ck_assert_uint_eq(peek(&g, PAGES) & 0xffffffff, 3);
    end();
}
END_TEST

/* ---- debugging ---- */

/* Step by step, and in between some milliseconds at full speed. */
START_TEST(steps)
{
    struct guest ref;

    guest_begin(&ref, "interp", 0, VMM_IRQCHIP_NONE, 1);
    guest_load(&ref, &accessed, AT);
    begin(&accessed, VMM_IRQCHIP_NONE, 1);
    for (unsigned i = 0; i < 400; i++) {
        struct vcpu_regs a = {.size = sizeof(a), .groups = VMM_REGS_GPR}, b = a;

        ck_assert_int_eq(vcpu_step(ref.vcpu, &ref.exit), 0);
        ck_assert_int_eq(vcpu_step(g.vcpu, &g.exit), 0);
        ck_assert_uint_eq(g.exit.reason, VMM_EXIT_STEP);
        ck_assert_uint_eq(ref.exit.reason, VMM_EXIT_STEP);
        ck_assert_int_eq(vcpu_get_regs(ref.vcpu, &a), 0);
        ck_assert_int_eq(vcpu_get_regs(g.vcpu, &b), 0);
        ck_assert_mem_eq(&a, &b, sizeof(a));
    }
    ck_assert_uint_eq(stats().direct_entries, 0);
    guest_run(&ref, &accessed);
    guest_run(&g, &accessed);
    ck_assert_uint_eq(guest_compare(&ref, &g, "steps", AT), 0);
    guest_end(&ref);
    end();
}
END_TEST

START_TEST(breaks)
{
    struct vmm_debug d = {.size = sizeof(d), .nbreakpoints = 1};

    begin(&count, VMM_IRQCHIP_NONE, 1);
    meanwhile(kicks);
    ck_assert_str_eq(run(), "INTERRUPTED");
    join();
    d.breakpoints[0] = (struct vmm_breakpoint){DATA + 0x2000, VMM_BREAK_WRITE, 8};
    ck_assert_int_eq(vcpu_set_debug(g.vcpu, &d), 0);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_str_eq(run(), "WATCH");
        ck_assert_uint_eq(g.exit.u.debug.addr, DATA + 0x2000);
    }
    d.breakpoints[0] = (struct vmm_breakpoint){DATA + 0x1000, VMM_BREAK_ACCESS, 8};
    ck_assert_int_eq(vcpu_set_debug(g.vcpu, &d), 0);
    ck_assert_str_eq(run(), "WATCH");
    d.breakpoints[0] = (struct vmm_breakpoint){g.exit.rip, VMM_BREAK_EXEC, 0};
    ck_assert_int_eq(vcpu_set_debug(g.vcpu, &d), 0);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_str_eq(run(), "BREAKPOINT");
        ck_assert_uint_eq(reg(16), d.breakpoints[0].addr);
    }
    ck_assert_int_eq(vcpu_set_debug(g.vcpu, NULL), 0);
    poke(&g, PAGES + 0x3000, 1);
    ck_assert_str_eq(run(), "PIO");
    end();
}
END_TEST

/* ---- memory ---- */

#define OTHER 0x1000000 /* where a page of another region is */

static void *unmaps(void *unused)
{
    (void)unused;
    wait_for_count();
    ck_assert_int_eq(vm_mem_unmap(g.vm, OTHER), 0);
    return NULL;
}

static void *protects(void *unused)
{
    (void)unused;
    wait_for_count();
    ck_assert_int_eq(vm_mem_protect(g.vm, OTHER, VMM_MEM_RX), 0);
    return NULL;
}

START_TEST(regions_change)
{
    void *host;

    begin(&count, VMM_IRQCHIP_NONE, 1);
    poke(&g, PT_DATA + 16, OTHER | PG_RW);
    ck_assert_int_eq(vm_mem_alloc(g.vm, OTHER, 4096, VMM_MEM_RWX, &host), 0);
    poke(&g, PAGES + 0x1000, 0x55);
    meanwhile(protects);
    ck_assert_str_eq(run(), "MMIO");
    join();
    ck_assert_uint_eq(g.exit.u.mmio.gpa, OTHER);
    ck_assert_uint_eq(g.exit.u.mmio.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(*(uint64_t *)host, 0x55);
    poke(&g, PAGES + 0x1000, 0x66);
    ck_assert_str_eq(run(), "MMIO");
    ck_assert_uint_eq(*(uint64_t *)host, 0x55);
    ck_assert_int_eq(vm_mem_protect(g.vm, OTHER, VMM_MEM_RWX), 0);
    meanwhile(unmaps);
    ck_assert_str_eq(run(), "MMIO");
    join();
    ck_assert_uint_eq(g.exit.u.mmio.gpa, OTHER);
    ck_assert_uint_eq(g.exit.u.mmio.data, 0x66);
    /* Other memory at the same address. */
    ck_assert_int_eq(vm_mem_alloc(g.vm, OTHER, 4096, VMM_MEM_RWX, &host), 0);
    poke(&g, PAGES + 0x1000, 0x77);
    meanwhile(kicks);
    ck_assert_str_eq(run(), "INTERRUPTED");
    join();
    ck_assert_uint_eq(*(uint64_t *)host, 0x77);
    end();
}
END_TEST

static unsigned ndirty;

static void *watches(void *unused)
{
    uint64_t bitmap[RAM / 4096 / 64], seen = 0;

    (void)unused;
    wait_for_count();
    ck_assert_int_eq(vm_dirty_start(g.vm), 0);
    for (unsigned i = 0; i < 10; i++) {
        sleep_ms(1);
        ck_assert_int_eq(vm_dirty_get(g.vm, 0, RAM, 0, bitmap, NULL), 0);
        for (uint64_t page = 0; page < RAM / 4096; page++)
            if (bitmap[page / 64] >> page % 64 & 1) {
                ck_assert(page == PAGES / 4096 || page == PAGES / 4096 + 2);
                ndirty++;
            }
        /* What has been counted is in pages that were dirty since. */
        ck_assert_uint_ge(peek(&g, PAGES + 8), seen);
        seen = peek(&g, PAGES + 8);
    }
    ck_assert_int_eq(vm_pause(g.vm), 0);
    ck_assert_int_eq(vm_dirty_get(g.vm, 0, RAM, 0, bitmap, NULL), 0);
    ck_assert_int_eq(vm_resume(g.vm), 0);
    wait_for_count();
    ck_assert_int_eq(vm_dirty_get(g.vm, PAGES, 4096, 0, bitmap, NULL), 0);
    ck_assert_uint_eq(bitmap[0], 1);
    ck_assert_int_eq(vm_dirty_stop(g.vm), 0);
    sleep_ms(2);
    poke(&g, PAGES + 0x3000, 1);
    return NULL;
}

START_TEST(dirty_pages)
{
    begin(&count, VMM_IRQCHIP_NONE, 1);
    meanwhile(watches);
    ck_assert_str_eq(run(), "PIO");
    join();
    ck_assert_uint_ge(ndirty, 4);
    end();
}
END_TEST

/* ---- several vCPUs ---- */

static void *writes_code(void *unused)
{
    struct vcpu *other;
    struct vcpu_exit e = {.size = sizeof(e)};
    struct vcpu_regs r = g.regs;

    (void)unused;
    ck_assert_int_eq(vcpu_create(g.vm, 1, NULL, &other), 0);
    r.rip = K + KERNEL + (uint64_t)(kernel_write - kernel_blob);
    r.gpr[VMM_RDI] = K + PAGES + 0x1001;
    r.gpr[VMM_RSI] = 7;
    r.groups = VMM_REGS_ALL & ~VMM_REGS_EVENTS;
    ck_assert_int_eq(vcpu_set_regs(other, &r), 0);
    wait_for_count();
    ck_assert_int_eq(vcpu_run(other, &e), 0);
    ck_assert_str_eq(vmm_exit_name(e.reason), "PIO");
    return NULL;
}

START_TEST(code_from_another_vcpu)
{
    begin(&until_7, VMM_IRQCHIP_NONE, 2);
    meanwhile(writes_code);
    ck_assert_str_eq(run(), "PIO");
    join();
    end();
}
END_TEST

#define CPUS 3
static void *adds(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct vcpu_exit e = {.size = sizeof(e)};

    ck_assert_int_eq(vcpu_run(vcpu, &e), 0);
    ck_assert_str_eq(vmm_exit_name(e.reason), "STOPPED");
    return NULL;
}

/* All in user mode, in one address space, at the same counter. */
START_TEST(several_vcpus)
{
    pthread_t threads[CPUS];

    begin(&add, VMM_IRQCHIP_NONE, CPUS);
    for (uint32_t i = 0; i < CPUS; i++) {
        struct vcpu_regs r = g.regs;
        struct vcpu *vcpu = g.vcpu;

        if (i)
            ck_assert_int_eq(vcpu_create(g.vm, i, NULL, &vcpu), 0);
        r.rip = AT;
        r.gpr[VMM_RSP] = USER_STACK - 64;
        r.rflags = 0x202;
        r.seg[VMM_CS] = segment(0x33, 0xa0fb, 0, 0xffffffff);
        r.seg[VMM_SS] = segment(0x2b, 0xc0f3, 0, 0xffffffff);
        r.groups = VMM_REGS_ALL & ~VMM_REGS_EVENTS;
        ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, adds, vcpu), 0);
    }
    while ((peek(&g, PAGES + 0x28) & 0xffffffff) != CPUS)
        sleep_ms(1);
    vm_stop(g.vm);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_uint_eq(peek(&g, PAGES + 0x20), CPUS * 20000);
    ck_assert_uint_ge(stats().direct_spaces, CPUS);
    end();
}
END_TEST

/* ---- threads and processes ---- */

static void *runs(void *unused)
{
    (void)unused;
    meanwhile(kicks);
    ck_assert_str_eq(run(), "INTERRUPTED");
    join();
    return NULL;
}

/* The stubs of a thread die some time after it has been joined. */
START_TEST(threads_that_end)
{
    uint64_t n = 0;

    begin(&count, VMM_IRQCHIP_NONE, 1);
    for (unsigned i = 0; i < 20; i++) {
        pthread_t t;

        ck_assert_int_eq(pthread_create(&t, NULL, runs, NULL), 0);
        ck_assert_int_eq(pthread_join(t, NULL), 0);
        ck_assert_uint_gt(peek(&g, PAGES + 8), n);
        n = peek(&g, PAGES + 8);
    }
    runs(NULL);
    ck_assert_uint_eq(stats().exceptions, 0);
    end();
}
END_TEST

static void no_children(void)
{
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    ck_assert_int_eq(errno, ECHILD);
}

START_TEST(nothing_is_left)
{
    struct guest other;
    unsigned before;

    begin(&accessed, VMM_IRQCHIP_NONE, 1);
    guest_end(&g);
    before = dir_entries("/proc/self/fd");
    for (unsigned i = 0; i < 4; i++) {
        guest_begin(&other, "bt", DIRECT, VMM_IRQCHIP_NONE, 1);
        guest_load(&other, &accessed, AT);
        begin(&accessed, VMM_IRQCHIP_NONE, 1);
        ck_assert_uint_eq(guest_run(&g, &accessed), PORT_END);
        ck_assert_uint_eq(guest_run(&other, &accessed), PORT_END);
        ck_assert_uint_eq(guest_compare(&other, &g, "two", AT), 0);
        guest_end(&other);
        end();
        no_children();
        ck_assert_uint_eq(dir_entries("/proc/self/fd"), before);
    }
}
END_TEST

/* Kills all children. */
static void *kills(void *unused)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;

    (void)unused;
    ck_assert_ptr_nonnull(d);
    wait_for_count();
    while ((e = readdir(d))) {
        char path[300];
        FILE *f;
        int pid;

        snprintf(path, sizeof(path), "/proc/self/task/%s/children", e->d_name);
        f = fopen(path, "r");
        while (f && fscanf(f, "%d", &pid) == 1)
            kill(pid, SIGKILL);
        if (f)
            fclose(f);
    }
    closedir(d);
    return NULL;
}

/* The guest's program gets an exception at most. */
START_TEST(killed)
{
    for (unsigned i = 0; i < 3; i++) {
        begin(&count, VMM_IRQCHIP_NONE, 1);
        meanwhile(kills);
        ck_assert_str_eq(run(), "PIO");
        /* At the first instruction it has nothing to go on with. */
        ck_assert(g.exit.u.pio.port == PORT_END || g.exit.u.pio.port == PORT_FULL);
        join();
        end();
        no_children();
    }
}
END_TEST

/* ---- the stub's own pages ---- */

/* The guest has something at 512 GiB each from `first` to `last`, and nothing else where stubs are.
 */
static void occupy(unsigned first, unsigned last)
{
    for (unsigned i = 32; i < 160; i++)
        poke(&g, PML4_A + 8 * i, i >= first && i <= last ? g.tables | PG_RW : 0);
}

static uint64_t entries_of_a_run(void)
{
    uint64_t before = stats().direct_entries;

    meanwhile(kicks);
    ck_assert_str_eq(run(), "INTERRUPTED");
    join();
    return stats().direct_entries - before;
}

/* A kick may come before the stub has been made. */
static void runs_directly(void)
{
    unsigned tries = 100;

    while (!entries_of_a_run())
        ck_assert_uint_gt(--tries, 0);
}

START_TEST(stub_gives_way)
{
    begin(&count, VMM_IRQCHIP_NONE, 1);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t spaces = stats().direct_spaces;

        occupy(32, 95);
        runs_directly();
        occupy(96, 159);
        runs_directly();
        ck_assert_uint_gt(stats().direct_spaces, spaces);
        occupy(32, 159);
        ck_assert_uint_eq(entries_of_a_run(), 0);
        occupy(1, 0);
        runs_directly();
    }
    end();
}
END_TEST

/* ---- the suite ---- */

int main(void)
{
    Suite *s = suite_create("direct_vm");
    TCase *t = tcase_create("vm");
    const TTest *const tests[] = {
        requests,      budgets,          pausing,         local_timer, messages,
        steps,         breaks,           regions_change,  dirty_pages, code_from_another_vcpu,
        several_vcpus, threads_that_end, nothing_is_left, killed,      stub_gives_way};
    SRunner *runner;
    int failed;

    if (!has_stubs())
        return 77;
    tcase_set_timeout(t, 60);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (!getenv("DIRECT_ONLY") || !strcmp(tests[i]->name, getenv("DIRECT_ONLY")))
            tcase_add_test(t, tests[i]);
    suite_add_tcase(s, t);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
