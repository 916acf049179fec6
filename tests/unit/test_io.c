/* SPDX-License-Identifier: BSD-2-Clause */
/* test_io.c: MMIO and port registrations: sizes, splitting, results, restarts, unregistering. */
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "script_backend.h"

#define MMIO 0x10000000ull

/* A device that notes what it is asked; answers with the address of each byte. */
struct recorder {
    char log[512];
    uint32_t accesses, releases;
    int result;
};

static struct recorder dev;

static void note(struct recorder *r, const char *what, uint64_t offset, uint32_t size)
{
    size_t n = strlen(r->log);

    r->accesses++;
    snprintf(r->log + n, sizeof(r->log) - n, "%s%llx.%u ", what, (unsigned long long)offset, size);
}

static int dev_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct recorder *r = opaque;

    ck_assert_uint_eq(*value, UINT64_MAX);
    note(r, "r", offset, size);
    for (uint32_t i = 0; i < 8; i++) /* the bytes behind `size` must not matter */
        ((uint8_t *)value)[i] = (uint8_t)(offset + i + 1);
    return r->result;
}

static int dev_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct recorder *r = opaque;
    size_t n;

    note(r, "w", offset, size);
    n = strlen(r->log);
    snprintf(r->log + n - 1, sizeof(r->log) - n, "=%llx ", (unsigned long long)value);
    return r->result;
}

static void dev_release(void *opaque)
{
    ((struct recorder *)opaque)->releases++;
}

static struct vmm_io_ops dev_ops(uint8_t min, uint8_t max)
{
    return (struct vmm_io_ops){.size = sizeof(struct vmm_io_ops),
                               .min_access = min,
                               .max_access = max,
                               .name = "recorder",
                               .read = dev_read,
                               .write = dev_write,
                               .release = dev_release};
}

/* What the script's instruction does: up to four accesses, in this order. */
static struct {
    bool port, write;
    uint64_t addr;
    uint32_t size;
    uint64_t value; /* written, or what was read */
} step[4];
static uint32_t steps, begun;

static struct vcpu_exit x = {.size = sizeof(x)};

static void setup(void)
{
    script_setup();
    memset(&dev, 0, sizeof(dev));
    memset(step, 0, sizeof(step));
    x = (struct vcpu_exit){.size = sizeof(x)};
}

static struct mmio *mmio_dev(uint64_t gpa, uint64_t len, uint8_t min, uint8_t max)
{
    struct vmm_io_ops ops = dev_ops(min, max);
    struct mmio *m;

    ck_assert_int_eq(mmio_register(vm, gpa, len, &ops, &dev, &m), 0);
    return m;
}

static struct pio *pio_dev(uint16_t port, uint32_t len, uint8_t min, uint8_t max)
{
    struct vmm_io_ops ops = dev_ops(min, max);
    struct pio *p;

    ck_assert_int_eq(pio_register(vm, port, len, &ops, &dev, &p), 0);
    return p;
}

/* Accesses from no CPU. */
static uint64_t host_in(bool port, uint64_t addr, uint32_t size)
{
    uint64_t v = 0x1111111111111111;
    int r = port ? core_pio_access(vm, NULL, 0, (uint16_t)addr, size, false, &v)
                 : core_mmio_access(vm, NULL, 0, addr, size, false, &v);

    ck_assert_int_eq(r, CORE_IO_OK);
    return v;
}

static void host_out(bool port, uint64_t addr, uint32_t size, uint64_t v)
{
    int r = port ? core_pio_access(vm, NULL, 0, (uint16_t)addr, size, true, &v)
                 : core_mmio_access(vm, NULL, 0, addr, size, true, &v);

    ck_assert_int_eq(r, CORE_IO_OK);
}

static void logged(const char *want)
{
    ck_assert_str_eq(dev.log, want);
    dev.log[0] = 0;
}

/* ---- registering ---- */

START_TEST(arguments_are_checked)
{
    struct vmm_io_ops ops = dev_ops(0, 0), bad;

    ck_assert_int_eq(mmio_register(vm, 0, 0, &ops, &dev, NULL), VMM_E_INVAL);
    ck_assert_int_eq(mmio_register(vm, 1ull << 40, 1, &ops, &dev, NULL), VMM_E_RANGE);
    ck_assert_int_eq(mmio_register(vm, 0x1000, UINT64_MAX, &ops, &dev, NULL), VMM_E_RANGE);
    ck_assert_int_eq(mmio_register(vm, 0, 8, NULL, &dev, NULL), VMM_E_INVAL);
    ck_assert_int_eq(pio_register(vm, 0xffff, 2, &ops, &dev, NULL), VMM_E_RANGE);
    ck_assert_int_eq(pio_register(vm, 0, 0, &ops, &dev, NULL), VMM_E_INVAL);
    ck_assert_int_eq(pio_register(vm, 1, UINT32_MAX, &ops, &dev, NULL), VMM_E_RANGE);
    bad = dev_ops(3, 0);
    ck_assert_int_eq(mmio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_INVAL);
    bad = dev_ops(0, 16);
    ck_assert_int_eq(mmio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_INVAL);
    bad = dev_ops(4, 2);
    ck_assert_int_eq(mmio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_INVAL);
    bad = dev_ops(8, 8);
    ck_assert_int_eq(pio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_INVAL);
    bad = ops;
    bad.flags = 0x8000;
    ck_assert_int_eq(mmio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_UNSUPPORTED);
    bad = ops;
    bad.size = 4;
    ck_assert_int_eq(mmio_register(vm, 0, 8, &bad, &dev, NULL), VMM_E_INVAL);
    ck_assert_uint_eq(dev.releases, 0);
    ck_assert_int_eq(pio_register(vm, 0, 0x10000, &ops, &dev, NULL), 0);
    mmio_unregister(NULL);
    pio_unregister(NULL);
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    ck_assert_uint_eq(dev.releases, 1);
}
END_TEST

START_TEST(overlaps_are_refused)
{
    struct vmm_io_ops ops = dev_ops(0, 0);
    struct mmio *m = mmio_dev(MMIO, 16, 0, 0);

    ck_assert_int_eq(mmio_register(vm, MMIO + 15, 1, &ops, &dev, NULL), VMM_E_EXIST);
    ck_assert_int_eq(mmio_register(vm, MMIO - 4, 5, &ops, &dev, NULL), VMM_E_EXIST);
    ck_assert_int_eq(mmio_register(vm, MMIO - 4, 400, &ops, &dev, NULL), VMM_E_EXIST);
    ck_assert_uint_eq(last_error().gpa, MMIO - 4);
    ck_assert_int_eq(mmio_register(vm, MMIO + 16, 1, &ops, &dev, NULL), 0);
    ck_assert_int_eq(mmio_register(vm, MMIO - 1, 1, &ops, &dev, NULL), 0);
    ck_assert_int_eq(pio_register(vm, 0, 16, &ops, &dev, NULL), 0); /* another space */
    mmio_unregister(m);
    ck_assert_uint_eq(dev.releases, 1);
    mmio_dev(MMIO + 3, 7, 0, 0);
}
END_TEST

START_TEST(moving)
{
    struct mmio *m = mmio_dev(MMIO, 16, 0, 0);

    mmio_dev(MMIO + 0x100, 16, 0, 0);
    ck_assert_int_eq(mmio_move(m, MMIO + 0xf8), VMM_E_EXIST);
    ck_assert_int_eq(mmio_move(m, (1ull << 40) - 8), VMM_E_RANGE);
    ck_assert_uint_eq(host_in(false, MMIO + 1, 1), 2);
    ck_assert_int_eq(mmio_move(m, MMIO + 8), 0); /* overlaps only itself */
    ck_assert_uint_eq(host_in(false, MMIO + 1, 1), 0xff);
    ck_assert_uint_eq(host_in(false, MMIO + 9, 1), 2);
    ck_assert_int_eq(mmio_move(m, MMIO + 0x200), 0); /* to the other side of a neighbour */
    ck_assert_uint_eq(host_in(false, MMIO + 0x201, 1), 2);
    ck_assert_uint_eq(host_in(false, MMIO + 0x101, 1), 2);
    ck_assert_int_eq(mmio_move(NULL, 0), VMM_E_INVAL);
    mmio_unregister(m);
    ck_assert_uint_eq(host_in(false, MMIO + 0x201, 1), 0xff);
}
END_TEST

/* ---- size rules ---- */

START_TEST(accesses_are_split)
{
    static const struct {
        uint8_t min, max;
        uint32_t offset, size;
        uint64_t value;
        const char *log;
    } t[] = {
        {0, 0, 8, 8, 0x100f0e0d0c0b0a09, "r8.8 "},
        {0, 4, 8, 8, 0x100f0e0d0c0b0a09, "r8.4 rc.4 "},
        {0, 1, 4, 4, 0x08070605, "r4.1 r5.1 r6.1 r7.1 "},
        {0, 0, 1, 4, 0x05040302, "r1.1 r2.2 r4.1 "},
        {0, 0, 3, 2, 0x0504, "r3.1 r4.1 "},
        {0, 0, 4, 8, 0x0c0b0a0908070605, "r4.4 r8.4 "},
        {0, 0, 2, 8, 0x0a09080706050403, "r2.2 r4.4 r8.2 "},
        {4, 4, 2, 2, 0xffff, ""},
        {4, 4, 4, 4, 0x08070605, "r4.4 "},
        {4, 4, 2, 4, 0xffffffff, ""},
        {2, 4, 5, 4, 0xff0807ff, "r6.2 "},
        {0, 0, 0x20, 1, 0x21, "r20.1 "},
    };

    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct mmio *m = mmio_dev(MMIO, 0x40, t[i].min, t[i].max);

        ck_assert_msg(host_in(false, MMIO + t[i].offset, t[i].size) == t[i].value, "row %zu", i);
        ck_assert_msg(!strcmp(dev.log, t[i].log), "row %zu: %s", i, dev.log);
        dev.log[0] = 0;
        mmio_unregister(m);
    }
}
END_TEST

START_TEST(writes_are_split_and_cut)
{
    mmio_dev(MMIO, 16, 0, 2);
    host_out(false, MMIO + 3, 4, 0xffffffff44332211);
    logged("w3.1=11 w4.2=3322 w6.1=44 ");
    host_out(false, MMIO + 8, 1, 0xabcd);
    logged("w8.1=cd ");
}
END_TEST

START_TEST(bytes_outside_go_to_whoever_is_there)
{
    static struct recorder second; /* outlives the registration */
    struct vmm_io_ops ops = dev_ops(0, 0);

    memset(&second, 0, sizeof(second));
    mmio_dev(MMIO, 6, 0, 0);
    ck_assert_int_eq(mmio_register(vm, MMIO + 8, 2, &ops, &second, NULL), 0);
    ck_assert_uint_eq(host_in(false, MMIO, 8), 0xffff060504030201);
    logged("r0.4 r4.2 ");
    ck_assert_uint_eq(host_in(false, MMIO + 4, 8), 0xffff0201ffff0605);
    logged("r4.2 ");
    ck_assert_str_eq(second.log, "r0.2 ");
    ck_assert_uint_eq(host_in(false, MMIO - 4, 8), 0x04030201ffffffff);
    logged("r0.4 ");
    pio_dev(0xfffe, 2, 0, 0);
    ck_assert_uint_eq(host_in(true, 0xfffe, 4), 0xffff0201); /* behind the last port */
    logged("r0.2 ");
}
END_TEST

START_TEST(ports_take_up_to_4_bytes)
{
    struct pio *p = pio_dev(0x70, 2, 0, 1);

    host_out(true, 0x70, 2, 0x1234);
    logged("w0.1=34 w1.1=12 ");
    pio_unregister(p);
    pio_dev(0xcfc, 4, 0, 8);
    ck_assert_uint_eq(host_in(true, 0xcfc, 4), 0x04030201);
    logged("r0.4 ");
    ck_assert_uint_eq(host_in(true, 0xcfe, 2), 0x0403);
    logged("r2.2 ");
}
END_TEST

START_TEST(nobody_and_missing_callbacks)
{
    struct vmm_io_ops none = {.size = sizeof(none)};

    ck_assert_int_eq(mmio_register(vm, 0x5000, 8, &none, NULL, NULL), 0);
    ck_assert_uint_eq(host_in(false, 0x5000, 4), 0xffffffff);
    host_out(false, 0x5000, 4, 1);
    ck_assert_uint_eq(host_in(false, 0x6000, 8), UINT64_MAX);
    ck_assert_uint_eq(host_in(true, 0x6000, 2), 0xffff);
    mmio_dev(MMIO, 8, 0, 0);
    dev.result = VMM_IO_NOBODY;
    ck_assert_uint_eq(host_in(false, MMIO, 4), 0xffffffff);
    dev.result = 77; /* unknown: as nobody */
    ck_assert_uint_eq(host_in(false, MMIO, 4), 0xffffffff);
    dev.result = VMM_IO_EXIT; /* no CPU that could wait */
    ck_assert_uint_eq(host_in(false, MMIO, 4), 0xffffffff);
    dev.result = VMM_IO_DEFER;
    ck_assert_uint_eq(host_in(false, MMIO, 4), 0xffffffff);
    ck_assert_int_eq(mmio_complete(cpu[0], 1), VMM_E_STATE);
}
END_TEST

/* ---- results, from vCPUs ---- */

static int make_steps(struct vcpu *vcpu, uint64_t serial)
{
    begun++;
    for (uint32_t i = 0; i < steps; i++) {
        uint64_t v = step[i].write ? step[i].value : 0;
        int r = step[i].port ? core_pio_access(vm, vcpu, serial, (uint16_t)step[i].addr,
                                               step[i].size, step[i].write, &v)
                             : core_mmio_access(vm, vcpu, serial, step[i].addr, step[i].size,
                                                step[i].write, &v);

        if (r != CORE_IO_OK)
            return r;
        step[i].value = v;
    }
    return CORE_IO_OK;
}

static void load_script(uint32_t n)
{
    steps = n;
    begun = 0;
    script[0] = (struct script_cpu){.insn = make_steps, .count = 1, .serial = script[0].serial};
}

static uint32_t run(void)
{
    ck_assert_int_eq(vcpu_run(cpu[0], &x), 0);
    return x.reason;
}

START_TEST(what_nobody_handles_exits)
{
    load_script(2);
    step[0].addr = MMIO + 1;
    step[0].size = 4;
    step[1].addr = 0x61;
    step[1].port = true;
    step[1].write = true;
    step[1].size = 2;
    step[1].value = 0xbeef;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(x.u.mmio.gpa, MMIO + 1); /* not split: nobody is there */
    ck_assert_uint_eq(x.u.mmio.len, 4);
    ck_assert_uint_eq(x.u.mmio.access, VMM_ACCESS_READ);
    ck_assert_uint_eq(x.u.mmio.data, 0xffffffff);
    x.u.mmio.data = 0x1122334455667788;
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(x.u.pio.port, 0x61);
    ck_assert_uint_eq(x.u.pio.len, 2);
    ck_assert_uint_eq(x.u.pio.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(x.u.pio.data, 0xbeef);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, 0x55667788);
    ck_assert_uint_eq(begun, 3);
}
END_TEST

START_TEST(an_exit_that_is_not_answered_reads_all_ones)
{
    struct vcpu_exit other = {.size = sizeof(other)};

    load_script(1);
    step[0].addr = MMIO;
    step[0].size = 8;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_int_eq(vcpu_run(cpu[0], &other), 0); /* not the struct with the answer */
    ck_assert_uint_eq(other.reason, VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, UINT64_MAX);
    load_script(1);
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT); /* left as it was */
    ck_assert_uint_eq(step[0].value, UINT64_MAX);
}
END_TEST

START_TEST(each_access_takes_effect_once)
{
    load_script(4);
    mmio_dev(MMIO, 0x100, 0, 4);
    for (uint32_t i = 0; i < 4; i++) {
        step[i].addr = i & 1 ? 0x20000000 : MMIO + i;
        step[i].size = i & 1 ? 4 : 8;
        step[i].write = i == 2;
    }
    step[2].value = 0xaaaabbbbccccdddd;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    logged("r0.4 r4.4 ");
    x.u.mmio.data = 1;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    logged("w2.2=dddd w4.4=bbbbcccc w8.2=aaaa ");
    x.u.mmio.data = 2;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    logged("");
    ck_assert_uint_eq(step[0].value, 0x0807060504030201);
    ck_assert_uint_eq(step[1].value, 1);
    ck_assert_uint_eq(step[3].value, 2);
}
END_TEST

START_TEST(the_same_address_twice_in_an_instruction_is_two_accesses)
{
    load_script(3);
    for (uint32_t i = 0; i < 3; i++) {
        step[i].addr = 0x80;
        step[i].port = true;
        step[i].size = 1;
    }
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(run(), VMM_EXIT_PIO);
        x.u.pio.data = 0x1000 + 10 + i;
    }
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert_uint_eq(step[i].value, 10 + i);
    load_script(1); /* another instruction: nothing is left of the last one */
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
}
END_TEST

START_TEST(a_callback_may_ask_for_an_exit)
{
    load_script(1);
    pio_dev(0x80, 4, 0, 0);
    dev.result = VMM_IO_EXIT;
    step[0].addr = 0x82;
    step[0].port = true;
    step[0].size = 2;
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(x.u.pio.port, 0x82);
    x.u.pio.data = 0x4321;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, 0x4321);
    ck_assert_uint_eq(dev.accesses, 1);
}
END_TEST

START_TEST(a_kick_keeps_the_answer)
{
    load_script(1);
    step[0].addr = MMIO;
    step[0].size = 1;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    x.u.mmio.data = 0x42;
    vcpu_kick(cpu[0]);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, 0x42);
}
END_TEST

START_TEST(a_registration_that_moves_does_not_repeat_what_was_done)
{
    struct mmio *m = mmio_dev(MMIO, 8, 0, 2);

    load_script(2);
    step[0].addr = MMIO;
    step[0].size = 4;
    step[1].addr = 0x20000000;
    step[1].size = 1;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    mmio_unregister(m);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, 0x04030201);
    ck_assert_uint_eq(dev.accesses, 2);
}
END_TEST

START_TEST(counters)
{
    struct vm_stats stats = {.size = sizeof(stats)};

    mmio_dev(MMIO, 8, 0, 2);
    pio_dev(0x80, 1, 0, 0);
    load_script(2);
    step[0].addr = MMIO;
    step[0].size = 4;
    step[1].addr = 0x80;
    step[1].size = 1;
    step[1].port = true;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
    ck_assert_uint_eq(stats.mmio, 2);
    ck_assert_uint_eq(stats.pio, 1);
}
END_TEST

/* ---- DEFER ---- */

static pthread_barrier_t barrier;

static void *complete(void *arg)
{
    pthread_barrier_wait(&barrier);
    while (mmio_complete(cpu[0], (uintptr_t)arg) == VMM_E_STATE)
        ;
    return NULL;
}

static int defer_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)offset;
    (void)size;
    (void)value;
    ((struct recorder *)opaque)->accesses++;
    pthread_barrier_wait(&barrier);
    return VMM_IO_DEFER;
}

START_TEST(another_thread_completes)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = defer_read};
    pthread_t t;

    ck_assert_int_eq(mmio_register(vm, MMIO, 8, &ops, &dev, NULL), 0);
    pthread_barrier_init(&barrier, NULL, 2);
    for (uintptr_t i = 0; i < 200; i++) {
        ck_assert_int_eq(pthread_create(&t, NULL, complete, (void *)(0x11000 + i)), 0);
        load_script(1);
        step[0].addr = MMIO;
        step[0].size = 2;
        ck_assert_uint_eq(run(), VMM_EXIT_HLT);
        ck_assert_uint_eq(step[0].value, 0x1000 + i);
        ck_assert_uint_eq(dev.accesses, i + 1);
        pthread_join(t, NULL);
        ck_assert_int_eq(mmio_complete(cpu[0], 0), VMM_E_STATE);
    }
    pthread_barrier_destroy(&barrier);
}
END_TEST

static int early_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    ck_assert_int_eq(mmio_complete(cpu[0], 0x77), 0);
    ck_assert_int_eq(mmio_complete(cpu[0], 0x78), VMM_E_STATE); /* once */
    return VMM_IO_DEFER;
}

START_TEST(completion_before_the_callback_returns)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = early_read};

    ck_assert_int_eq(mmio_register(vm, MMIO, 8, &ops, &dev, NULL), 0);
    load_script(1);
    step[0].addr = MMIO;
    step[0].size = 1;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(step[0].value, 0x77);
}
END_TEST

START_TEST(a_kick_interrupts_the_wait_and_the_completion_stays_pending)
{
    load_script(2);
    mmio_dev(MMIO, 8, 0, 0);
    step[0].addr = MMIO;
    step[0].size = 1;
    step[0].write = true;
    step[1].addr = MMIO + 4;
    step[1].size = 4;
    dev.result = VMM_IO_DEFER;
    vcpu_kick(cpu[0]);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED); /* sticky: not begun yet */
    ck_assert_uint_eq(dev.accesses, 0);
    ck_assert_int_eq(vcpu_set_budget(cpu[0], 0, 1000000), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET); /* waits, and the budget ends it */
    ck_assert_uint_eq(dev.accesses, 1);
    ck_assert_int_eq(mmio_complete(cpu[0], 0), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    ck_assert_uint_eq(dev.accesses, 2);
    ck_assert_int_eq(mmio_complete(cpu[0], 0x99), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(dev.accesses, 2);
    ck_assert_uint_eq(step[1].value, 0x99);
}
END_TEST

/* ---- unregistering ---- */

static struct mmio *self;
static uint32_t releases_inside;

static int unregister_self(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct recorder *r = opaque;

    (void)offset;
    (void)size;
    (void)value;
    r->accesses++;
    mmio_unregister(self);
    releases_inside = r->releases;
    return VMM_IO_OK;
}

START_TEST(a_callback_unregisters_itself)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .write = unregister_self, .release = dev_release};

    ck_assert_int_eq(mmio_register(vm, MMIO, 8, &ops, &dev, &self), 0);
    load_script(2);
    step[0].addr = step[1].addr = MMIO;
    step[0].size = step[1].size = 1;
    step[0].write = step[1].write = true;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO); /* the second finds nobody */
    ck_assert_uint_eq(releases_inside, 0);
    ck_assert_uint_eq(dev.releases, 1);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(dev.accesses, 1);
}
END_TEST

static atomic_bool inside, leave;

static int slow_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)offset;
    (void)size;
    (void)value;
    atomic_store(&inside, true);
    while (!atomic_load(&leave))
        os_yield();
    ((struct recorder *)opaque)->accesses++;
    return VMM_IO_OK;
}

static void *run_thread(void *arg)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vcpu_run(arg, &exit), 0);
    return (void *)(uintptr_t)exit.reason;
}

static void *let_go(void *arg)
{
    (void)arg;
    for (int i = 0; i < 1000; i++)
        os_yield();
    atomic_store(&leave, true);
    return NULL;
}

START_TEST(unregister_waits_for_other_threads)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .write = slow_write, .release = dev_release};
    struct mmio *m;
    pthread_t t, u;

    ck_assert_int_eq(mmio_register(vm, MMIO, 8, &ops, &dev, &m), 0);
    atomic_store(&inside, false);
    atomic_store(&leave, false);
    load_script(1);
    step[0].addr = MMIO;
    step[0].size = 1;
    step[0].write = true;
    ck_assert_int_eq(pthread_create(&t, NULL, run_thread, cpu[0]), 0);
    while (!atomic_load(&inside))
        os_yield();
    ck_assert_int_eq(pthread_create(&u, NULL, let_go, NULL), 0);
    mmio_unregister(m);
    ck_assert_uint_eq(dev.accesses, 1); /* the callback had returned */
    ck_assert_uint_eq(dev.releases, 1);
    pthread_join(u, NULL);
    pthread_join(t, NULL);
}
END_TEST

static uint32_t released_twice;

static void release_other(void *opaque)
{
    (void)opaque;
    released_twice++;
    mmio_unregister(self);
    self = NULL;
}

START_TEST(a_release_may_unregister_another_and_destroy_releases_the_rest)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .release = release_other};

    self = mmio_dev(MMIO, 8, 0, 0);
    pio_dev(0x80, 1, 0, 0);
    ck_assert_int_eq(mmio_register(vm, 0x5000, 1, &ops, NULL, NULL), 0);
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    ck_assert_uint_eq(released_twice, 1);
    ck_assert_uint_eq(dev.releases, 2);
}
END_TEST

/* ---- threads ---- */

/* Lives as long as its registration: use after release is use after free. */
struct alive {
    atomic_uint calls;
    uint32_t cookie;
};

static int alive_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct alive *a = opaque;

    (void)offset;
    (void)size;
    ck_assert_uint_eq(a->cookie, 0xc00c1e);
    atomic_fetch_add(&a->calls, 1);
    *value = 0x5a;
    return VMM_IO_OK;
}

static void alive_release(void *opaque)
{
    ((struct alive *)opaque)->cookie = 0;
    free(opaque);
}

static int touch(struct vcpu *vcpu, uint64_t serial)
{
    uint64_t v = 0;
    int r = core_mmio_access(vcpu->vm, vcpu, serial, MMIO + 0x100 * (serial & 3), 1, false, &v);

    if (r == CORE_IO_OK) {
        ck_assert(v == 0x5a || v == 0xff);
        r = core_pio_access(vcpu->vm, vcpu, serial, 0x80, 1, false, &v);
    }
    return r;
}

/* Runs on through exits for addresses where nobody is just now. */
static void *run_on(void *arg)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    do {
        ck_assert_int_eq(vcpu_run(arg, &exit), 0);
    } while (exit.reason == VMM_EXIT_MMIO || exit.reason == VMM_EXIT_PIO);
    return (void *)(uintptr_t)exit.reason;
}

static void *come_and_go(void *arg)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = alive_read, .release = alive_release};
    uint64_t gpa = MMIO + 0x100 * (uintptr_t)arg;

    for (int i = 0; i < 300; i++) {
        struct alive *a = calloc(1, sizeof(*a));
        struct mmio *m;
        struct pio *p;

        a->cookie = 0xc00c1e;
        ck_assert_int_eq(mmio_register(vm, gpa, 0x10, &ops, a, &m), 0);
        ck_assert_int_eq(mmio_move(m, gpa + 0x20), 0);
        ck_assert_int_eq(mmio_move(m, gpa), 0);
        mmio_unregister(m);
        if (!arg) {
            a = calloc(1, sizeof(*a));
            a->cookie = 0xc00c1e;
            ck_assert_int_eq(pio_register(vm, 0x80, 1, &ops, a, &p), 0);
            pio_unregister(p);
        }
    }
    return NULL;
}

START_TEST(registrations_come_and_go_while_vcpus_run)
{
    pthread_t runs[SCRIPT_CPUS], changes[3];
    void *reason;

    for (uint32_t i = 0; i < SCRIPT_CPUS; i++) {
        script[i] = (struct script_cpu){.insn = touch, .count = UINT64_MAX};
        ck_assert_int_eq(pthread_create(&runs[i], NULL, run_on, cpu[i]), 0);
    }
    for (uintptr_t i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&changes[i], NULL, come_and_go, (void *)i), 0);
    for (uint32_t i = 0; i < 200; i++)
        host_in(false, MMIO + 0x100 * (i & 3), 1);
    for (uint32_t i = 0; i < 3; i++)
        pthread_join(changes[i], NULL);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++)
        vcpu_kick(cpu[i]);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++) {
        pthread_join(runs[i], &reason);
        ck_assert_uint_eq((uintptr_t)reason, VMM_EXIT_INTERRUPTED);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("io");
    TCase *tc = tcase_create("io");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, script_teardown);
    tcase_add_test(tc, arguments_are_checked);
    tcase_add_test(tc, overlaps_are_refused);
    tcase_add_test(tc, moving);
    tcase_add_test(tc, accesses_are_split);
    tcase_add_test(tc, writes_are_split_and_cut);
    tcase_add_test(tc, bytes_outside_go_to_whoever_is_there);
    tcase_add_test(tc, ports_take_up_to_4_bytes);
    tcase_add_test(tc, nobody_and_missing_callbacks);
    tcase_add_test(tc, what_nobody_handles_exits);
    tcase_add_test(tc, an_exit_that_is_not_answered_reads_all_ones);
    tcase_add_test(tc, each_access_takes_effect_once);
    tcase_add_test(tc, the_same_address_twice_in_an_instruction_is_two_accesses);
    tcase_add_test(tc, a_callback_may_ask_for_an_exit);
    tcase_add_test(tc, a_kick_keeps_the_answer);
    tcase_add_test(tc, a_registration_that_moves_does_not_repeat_what_was_done);
    tcase_add_test(tc, counters);
    tcase_add_test(tc, another_thread_completes);
    tcase_add_test(tc, completion_before_the_callback_returns);
    tcase_add_test(tc, a_kick_interrupts_the_wait_and_the_completion_stays_pending);
    tcase_add_test(tc, a_callback_unregisters_itself);
    tcase_add_test(tc, unregister_waits_for_other_threads);
    tcase_add_test(tc, a_release_may_unregister_another_and_destroy_releases_the_rest);
    tcase_add_test(tc, registrations_come_and_go_while_vcpus_run);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
