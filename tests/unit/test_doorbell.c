/* SPDX-License-Identifier: BSD-2-Clause */
/* test_doorbell.c: guest writes that only signal an eventfd. */
#include "api_vm.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int event(void)
{
    int fd = eventfd(0, EFD_NONBLOCK);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static uint64_t take(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static struct vmm_doorbell bell(uint32_t flags, uint64_t addr, uint32_t len, uint64_t match, int fd)
{
    return (struct vmm_doorbell){.size = sizeof(struct vmm_doorbell),
                                 .flags = flags,
                                 .addr = addr,
                                 .match = match,
                                 .len = len,
                                 .fd = fd};
}

static int add(uint32_t flags, uint64_t addr, uint32_t len, uint64_t match, int fd,
               struct doorbell **out)
{
    struct vmm_doorbell d = bell(flags, addr, len, match, fd);

    return mmio_doorbell(vm, &d, out);
}

static void load(const char *code, size_t len, uint64_t rdi, uint64_t rax)
{
    api_load(vcpu, code, len);
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR | VMM_REGS_EVENTS;
    regs.gpr[VMM_RDI] = rdi;
    regs.gpr[VMM_RAX] = rax;
    regs.gpr[VMM_RDX] = rdi;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
}

/* Runs one store of `size` bytes to `addr` (or an OUT) and HLT: whether it did not exit before. */
static bool stores(bool port, uint64_t addr, uint32_t size, uint64_t value)
{
    static const char *const mmio[9] = {[1] = "\x88\x07\x90\x90\xf4",
                                        [2] = "\x66\x89\x07\x90\xf4",
                                        [4] = "\x89\x07\x90\x90\xf4",
                                        [8] = "\x48\x89\x07\x90\xf4"};
    static const char *const pio[9] = {
        [1] = "\xee\x90\x90\x90\xf4", [2] = "\x66\xef\x90\x90\xf4", [4] = "\xef\x90\x90\x90\xf4"};

    load(port ? pio[size] : mmio[size], 5, addr, value);
    if (api_run() == VMM_EXIT_HLT)
        return true;
    ck_assert_uint_eq(ex.reason, port ? VMM_EXIT_PIO : VMM_EXIT_MMIO);
    return false;
}

static uint32_t writes, reads;

static int count_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    writes++;
    return VMM_IO_OK;
}

static int count_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)offset, (void)size;
    reads++;
    *value = 0x77;
    return VMM_IO_OK;
}

static const struct vmm_io_ops counting = {
    .size = sizeof(counting), .read = count_read, .write = count_write};

START_TEST(lengths)
{
    int fd[5];

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    for (int i = 0; i < 5; i++)
        fd[i] = event();
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(add(0, MMIO_BASE, 1u << i, 0, fd[i], NULL), 0);
    ck_assert_int_eq(add(0, MMIO_BASE + 8, 0, 0, fd[4], NULL), 0);
    for (int i = 0; i < 4; i++) {
        ck_assert(stores(false, MMIO_BASE, 1u << i, 5));
        for (int j = 0; j < 4; j++)
            ck_assert_uint_eq(take(fd[j]), i == j);
        ck_assert(stores(false, MMIO_BASE + 8, 1u << i, 5));
        ck_assert_uint_eq(take(fd[4]), 1);
    }
    /* Exactly there: not a byte of it, and not what covers it. */
    ck_assert(!stores(false, MMIO_BASE + 9, 1, 5));
    ck_assert(!stores(false, MMIO_BASE + 4, 8, 5));
    ck_assert_uint_eq(take(fd[4]), 0);
    api_end();
}
END_TEST

START_TEST(values)
{
    int one = event(), two = event(), all = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 4, 1, one, NULL), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 4, 2, two, NULL), 0);
    ck_assert_int_eq(add(0, MMIO_BASE, 2, 0, all, NULL), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 8, ~0ull, all, NULL), 0);
    ck_assert(stores(false, MMIO_BASE, 4, 0xffffffff00000001)); /* what counts is 4 bytes */
    ck_assert(stores(false, MMIO_BASE, 4, 2));
    ck_assert(stores(false, MMIO_BASE, 4, 2));
    ck_assert(!stores(false, MMIO_BASE, 4, 3));
    ck_assert(!stores(false, MMIO_BASE, 1, 1));
    ck_assert(!stores(false, MMIO_BASE, 8, 1));
    ck_assert_uint_eq(take(one), 1);
    ck_assert_uint_eq(take(two), 2);
    ck_assert_uint_eq(take(all), 0);
    ck_assert(stores(false, MMIO_BASE, 8, ~0ull));
    ck_assert(stores(false, MMIO_BASE, 2, 1));
    ck_assert_uint_eq(take(all), 2);
    api_end();
}
END_TEST

START_TEST(ports)
{
    int fd = event(), other = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0x510, 2, 0, fd, NULL), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT | VMM_DOORBELL_MATCH, 0x510, 1, 9, other, NULL), 0);
    ck_assert(stores(true, 0x510, 2, 5));
    ck_assert(stores(true, 0x510, 1, 9));
    ck_assert(!stores(true, 0x510, 1, 8));
    ck_assert(!stores(true, 0x510, 4, 5));
    ck_assert(!stores(false, 0xd0000510, 2, 5)); /* memory is not ports */
    ck_assert_uint_eq(take(fd), 1);
    ck_assert_uint_eq(take(other), 1);
    /* outsw: two words */
    load("\xbe\x00\x10\x00\x00\xb9\x02\x00\x00\x00\xf3\x66\x6f\xf4", 14, 0x510, 0);
    RUN(HLT);
    ck_assert_uint_eq(take(fd), 2);
    api_end();
}
END_TEST

START_TEST(they_win_over_registrations)
{
    struct doorbell *d;
    int fd = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    writes = reads = 0;
    ck_assert_int_eq(mmio_register(vm, MMIO_BASE, 0x1000, &counting, NULL, NULL), 0);
    ck_assert_int_eq(add(0, MMIO_BASE + 0x10, 4, 0, fd, &d), 0);
    ck_assert(stores(false, MMIO_BASE + 0x10, 4, 1));
    ck_assert_uint_eq(writes, 0);
    ck_assert_uint_eq(take(fd), 1);
    ck_assert(stores(false, MMIO_BASE + 0x10, 2, 1));
    ck_assert(stores(false, MMIO_BASE + 0x14, 4, 1));
    ck_assert_uint_eq(writes, 2);
    load("\x8b\x07\xf4", 3, MMIO_BASE + 0x10, 0); /* a read */
    RUN(HLT);
    ck_assert_uint_eq(reads, 1);
    ck_assert_uint_eq(take(fd), 0);
    mmio_doorbell_remove(d);
    ck_assert(stores(false, MMIO_BASE + 0x10, 4, 1));
    ck_assert_uint_eq(writes, 3);
    ck_assert_uint_eq(take(fd), 0);
    api_end();
}
END_TEST

/* Memory wins; but a write to read-only memory is an access that a doorbell sees. */
START_TEST(memory_wins)
{
    int fd = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RX, NULL), 0);
    ck_assert_int_eq(add(0, 0x200000, 4, 0, fd, NULL), 0);
    ck_assert_int_eq(add(0, 0x50000, 4, 0, fd, NULL), 0);
    ck_assert(stores(false, 0x50000, 4, 1));
    ck_assert_uint_eq(take(fd), 0);
    ck_assert(stores(false, 0x200000, 4, 1));
    ck_assert_uint_eq(take(fd), 1);
    api_end();
}
END_TEST

/* An instruction that exits after it has rung is executed again, but does not ring again. */
START_TEST(each_write_rings_once)
{
    int fd = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(add(0, MMIO_BASE, 8, 0, fd, NULL), 0);
    load("\x0f\x11\x07\xf4", 4, MMIO_BASE, 0); /* movups %xmm0, (%rdi): the second half exits */
    RUN(MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, MMIO_BASE + 8);
    ck_assert_uint_eq(take(fd), 1);
    RUN(HLT);
    ck_assert_uint_eq(take(fd), 0);
    api_end();
}
END_TEST

START_TEST(competing_ones_are_refused)
{
    struct doorbell *d;
    int fd = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 4, 1, fd, &d), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 4, 1, fd, NULL), VMM_E_EXIST);
    ck_assert_int_eq(add(0, MMIO_BASE, 4, 0, fd, NULL), VMM_E_EXIST);
    ck_assert_int_eq(add(0, MMIO_BASE, 0, 0, fd, NULL), VMM_E_EXIST);
    ck_assert_int_eq(add(0, MMIO_BASE, 2, 0, fd, NULL), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0xd000, 4, 0, fd, NULL), 0);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0xd000, 0, 0, fd, NULL), VMM_E_EXIST);
    mmio_doorbell_remove(d);
    ck_assert_int_eq(add(0, MMIO_BASE, 4, 0, fd, &d), 0);
    api_end();
}
END_TEST

START_TEST(bad_arguments)
{
    struct vmm_doorbell d = bell(0, MMIO_BASE, 4, 0, 0);
    struct doorbell *out = NULL;
    int fd = event(), ends[2];

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(mmio_doorbell(NULL, &d, &out), VMM_E_INVAL);
    ck_assert_int_eq(mmio_doorbell(vm, NULL, &out), VMM_E_INVAL);
    d.size = 8;
    ck_assert_int_eq(mmio_doorbell(vm, &d, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(4, MMIO_BASE, 4, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(0, MMIO_BASE, 3, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(0, MMIO_BASE, 16, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0x10, 8, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0x10000, 1, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(VMM_DOORBELL_PORT, 0xffff, 2, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(0, ~0ull, 1, 0, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 0, 1, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(VMM_DOORBELL_MATCH, MMIO_BASE, 2, 0x10000, fd, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(0, MMIO_BASE, 4, 0, -1, &out), VMM_E_INVAL);
    ck_assert_int_eq(add(0, MMIO_BASE, 4, 0, ends[1], &out), VMM_E_INVAL);
    ck_assert_ptr_null(out);
    mmio_doorbell_remove(NULL);
    api_end();
}
END_TEST

/* Many of them, in no order. */
START_TEST(many)
{
    enum { N = 64 };
    struct doorbell *d[N];
    int fd[N];

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    for (unsigned i = 0; i < N; i++) {
        unsigned n = i * 37 % N;

        fd[n] = event();
        ck_assert_int_eq(add(0, MMIO_BASE + n * 4, 4, 0, fd[n], &d[n]), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        ck_assert(stores(false, MMIO_BASE + i * 4, 4, i));
        ck_assert_uint_eq(take(fd[i]), 1);
    }
    for (unsigned i = 0; i < N; i += 2)
        mmio_doorbell_remove(d[i]);
    for (unsigned i = 0; i < N; i++) {
        ck_assert_int_eq(stores(false, MMIO_BASE + i * 4, 4, i), i % 2);
        ck_assert_uint_eq(take(fd[i]), i % 2);
    }
    api_end();
}
END_TEST

static _Atomic bool over;

static void *come_and_go(void *arg)
{
    while (!over) {
        struct doorbell *d;

        ck_assert_int_eq(add(0, MMIO_BASE, 4, 0, *(int *)arg, &d), 0);
        mmio_doorbell_remove(d);
    }
    return NULL;
}

/* Each write goes to the doorbell or to the registration. */
START_TEST(removing_while_the_guest_writes)
{
    /* mov $100000, %ecx; 1: mov %eax, (%rdi); dec %ecx; jnz 1b; hlt */
    static const char code[] = "\xb9\xa0\x86\x01\x00\x89\x07\xff\xc9\x75\xfa\xf4";
    pthread_t thread;
    int fd = event();

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    writes = 0;
    over = false;
    ck_assert_int_eq(mmio_register(vm, MMIO_BASE, 0x1000, &counting, NULL, NULL), 0);
    load(code, sizeof(code) - 1, MMIO_BASE, 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, come_and_go, &fd), 0);
    RUN(HLT);
    over = true;
    pthread_join(thread, NULL);
    ck_assert_uint_eq(writes + take(fd), 100000);
    api_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        lengths,
        values,
        ports,
        they_win_over_registrations,
        memory_wins,
        each_write_rings_once,
        competing_ones_are_refused,
        bad_arguments,
        many,
        removing_while_the_guest_writes,
    };

    return api_main("doorbell", tests, sizeof(tests) / sizeof(tests[0]));
}
