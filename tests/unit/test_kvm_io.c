/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_io.c: doorbells and posted writes in the host's kernel, beside the software CPU's. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kvm_vm.h"

#define DEVICE 0xd0000000u
#define PORT   0x5a0u

/* Loop index: as the host is; or KVM runs CPL 0 itself, which the guests here are good for. */
enum { AS_FOUND, IN_KVM, NWAYS };

static void begin(int way)
{
    if (way == IN_KVM)
        host()->bad &= ~(KVM_BAD_EMULATION | KVM_BAD_USER_EVENTS);
    kvm_begin(0, 1);
}

static uint64_t taken(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static int event(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

/* ---- devices ---- */

struct access {
    bool write;
    uint64_t offset, value;
    uint32_t size;
};

static struct access seen[4096];
static unsigned nseen;

static int dev_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    seen[nseen++] = (struct access){false, offset, 0, size};
    *value = 0x77;
    return VMM_IO_OK;
}

static int dev_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    ck_assert_ptr_eq(vcpu_current(vm), vcpu);
    seen[nseen++] = (struct access){true, offset, value, size};
    return VMM_IO_EXIT; /* of posted writes it is ignored */
}

static struct vmm_io_ops ops(uint16_t flags)
{
    return (struct vmm_io_ops){.size = sizeof(struct vmm_io_ops),
                               .flags = flags,
                               .name = "test",
                               .read = dev_read,
                               .write = dev_write};
}

static struct mmio *posted_device(void)
{
    struct vmm_io_ops o = ops(VMM_IO_POSTED);
    struct mmio *mmio;

    nseen = 0;
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &o, NULL, &mmio), 0);
    return mmio;
}

/* mov $DEVICE, %ebx; mov $count, %ecx; 1: mov %ecx, 4(%rbx); loop 1b; then `tail` */
#define WRITES(count, tail) "\xbb\x00\x00\x00\xd0\xb9" count "\x89\x4b\x04\xe2\xfb" tail

static void check_writes(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        ck_assert(seen[i].write);
        ck_assert_uint_eq(seen[i].offset, 4);
        ck_assert_uint_eq(seen[i].size, 4);
        ck_assert_uint_eq(seen[i].value, n - i);
    }
}

/* ---- posted writes ---- */

START_TEST(posted_before_the_exit)
{
    begin(_i);
    posted_device();
    LOAD(WRITES("\x0a\0\0\0", "\xf4"));
    RUN(HLT);
    ck_assert_uint_eq(nseen, 10);
    check_writes(10);
    kvm_end();
}
END_TEST

START_TEST(posted_before_a_callback)
{
    begin(_i);
    posted_device();
    LOAD(WRITES("\x03\0\0\0", "\x8b\x03\xf4")); /* mov (%rbx), %eax */
    RUN(HLT);
    ck_assert_uint_eq(nseen, 4);
    check_writes(3);
    ck_assert(!seen[3].write);
    ck_assert_uint_eq(gpr(VMM_RAX), 0x77);
    kvm_end();
}
END_TEST

/* More than KVM's ring holds: writes that find it full exit. */
START_TEST(posted_ring_overflows)
{
    begin(_i);
    posted_device();
    LOAD(WRITES("\xe8\x03\0\0", "\xf4"));
    RUN(HLT);
    ck_assert_uint_eq(nseen, 1000);
    check_writes(1000);
    kvm_end();
}
END_TEST

START_TEST(posted_saves_exits)
{
    struct vm_stats before = {.size = sizeof(before)}, after = before;

    begin(_i);
    posted_device();
    LOAD(WRITES("\x64\0\0\0", "\xf4"));
    vm_get_stats(vm, &before);
    RUN(HLT);
    vm_get_stats(vm, &after);
    ck_assert_uint_eq(after.mmio - before.mmio, 100);
    if ((host()->has & KVM_HAS_COALESCED_MMIO) && !(host()->bad & KVM_BAD_EMULATION))
        ck_assert_uint_lt(after.hw_exits - before.hw_exits, 10);
    kvm_end();
}
END_TEST

START_TEST(posted_then_unregistered)
{
    struct mmio *mmio;

    begin(_i);
    mmio = posted_device();
    LOAD(WRITES("\x05\0\0\0", "\xf4\x89\x4b\x08\xf4"));
    RUN(HLT);
    ck_assert_uint_eq(nseen, 5);
    mmio_unregister(mmio);
    set_rip(get_regs().rip);
    RUN(MMIO); /* nobody is there any more */
    ck_assert_uint_eq(ex.u.mmio.gpa, DEVICE + 8);
    ck_assert_uint_eq(nseen, 5);
    kvm_end();
}
END_TEST

START_TEST(posted_moves)
{
    struct mmio *mmio;

    begin(_i);
    mmio = posted_device();
    ck_assert_int_eq(mmio_move(mmio, DEVICE + 0x100000), 0);
    /* mov $DEVICE + 0x100000, %ebx; mov %ebx, (%rbx); hlt */
    LOAD("\xbb\x00\x00\x10\xd0\x89\x1b\xf4");
    RUN(HLT);
    ck_assert_uint_eq(nseen, 1);
    ck_assert_uint_eq(seen[0].offset, 0);
    kvm_end();
}
END_TEST

START_TEST(posted_port)
{
    struct vmm_io_ops o = ops(VMM_IO_POSTED);

    begin(_i);
    nseen = 0;
    o.max_access = 4;
    ck_assert_int_eq(pio_register(vm, PORT, 8, &o, NULL, NULL), 0);
    /* mov $PORT + 2, %edx; mov $3, %eax; 1: out %al, %dx; dec %eax; jnz 1b; hlt */
    LOAD("\xba\xa2\x05\0\0\xb8\x03\0\0\0\xee\xff\xc8\x75\xfb\xf4");
    RUN(HLT);
    ck_assert_uint_eq(nseen, 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(seen[i].offset, 2);
        ck_assert_uint_eq(seen[i].value, 3 - i);
        ck_assert_uint_eq(seen[i].size, 1);
    }
    kvm_end();
}
END_TEST

/* ---- doorbells ---- */

static struct doorbell *ring(uint32_t flags, uint64_t addr, uint32_t len, uint64_t match, int fd)
{
    struct vmm_doorbell config = {
        .size = sizeof(config), .flags = flags, .addr = addr, .len = len, .match = match, .fd = fd};
    struct doorbell *bell;

    ck_assert_int_eq(mmio_doorbell(vm, &config, &bell), 0);
    return bell;
}

/* Three writes of 4 bytes: 3, 2, 1. */
#define THREE WRITES("\x03\0\0\0", "\xf4")

START_TEST(doorbell_any_value)
{
    int fd = event();
    struct doorbell *bell;

    begin(_i);
    bell = ring(0, DEVICE + 4, 4, 0, fd);
    LOAD(THREE);
    RUN(HLT);
    ck_assert_uint_eq(taken(fd), 3);
    mmio_doorbell_remove(bell);
    LOAD(THREE);
    RUN(MMIO);
    ck_assert_uint_eq(taken(fd), 0);
    kvm_end();
    close(fd);
}
END_TEST

START_TEST(doorbell_of_any_length)
{
    int fd = event();

    begin(_i);
    ring(0, DEVICE + 4, 0, 0, fd);
    /* mov $DEVICE + 4, %ebx; movb, movw, movl, movq $1, (%rbx); hlt */
    LOAD("\xbb\x04\0\0\xd0\xc6\x03\x01\x66\xc7\x03\x01\0\xc7\x03\x01\0\0\0\x48\xc7\x03\x01\0\0\0"
         "\xf4");
    RUN(HLT);
    ck_assert_uint_eq(taken(fd), 4);
    kvm_end();
    close(fd);
}
END_TEST

START_TEST(doorbells_by_value)
{
    int one = event(), two = event();

    begin(_i);
    ring(VMM_DOORBELL_MATCH, DEVICE + 4, 4, 1, one);
    ring(VMM_DOORBELL_MATCH, DEVICE + 4, 4, 2, two);
    LOAD(THREE);
    RUN(MMIO); /* 3 is nobody's */
    ck_assert_uint_eq(ex.u.mmio.data, 3);
    RUN(HLT);
    ck_assert_uint_eq(taken(one), 1);
    ck_assert_uint_eq(taken(two), 1);
    kvm_end();
    close(one);
    close(two);
}
END_TEST

START_TEST(doorbell_at_a_port)
{
    int fd = event();

    begin(_i);
    ring(VMM_DOORBELL_PORT | VMM_DOORBELL_MATCH, PORT, 2, 0x1234, fd);
    /* mov $PORT, %edx; mov $0x1234, %eax; out %ax, %dx; out %ax, %dx; hlt */
    LOAD("\xba\xa0\x05\0\0\xb8\x34\x12\0\0\x66\xef\x66\xef\xf4");
    RUN(HLT);
    ck_assert_uint_eq(taken(fd), 2);
    kvm_end();
    close(fd);
}
END_TEST

/* It must not wait for the next exit, whichever comes first. */
START_TEST(doorbell_inside_of_a_posted_range)
{
    int fd = event(), early = event();

    begin(_i);
    ring(0, DEVICE + 0x20, 4, 0, early);
    posted_device();
    ring(0, DEVICE + 4, 4, 0, fd);
    LOAD("\xbb\x00\x00\x00\xd0\x89\x5b\x20\x89\x5b\x04\x89\x5b\x08\xf4");
    RUN(HLT);
    ck_assert_uint_eq(taken(early), 1);
    ck_assert_uint_eq(taken(fd), 1);
    ck_assert_uint_eq(nseen, 1);
    ck_assert_uint_eq(seen[0].offset, 8);
    kvm_end();
    close(fd);
    close(early);
}
END_TEST

/* A guest that never exits still rings. */
static void *spin(void *unused)
{
    (void)unused;
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return NULL;
}

START_TEST(doorbell_while_the_guest_runs_on)
{
    int fd = event();
    struct pollfd p = {.fd = fd, .events = POLLIN};
    pthread_t thread;

    begin(_i);
    posted_device();
    ring(0, DEVICE + 4, 4, 0, fd);
    LOAD(WRITES("\x01\0\0\0", "\xeb\xfe"));
    pthread_create(&thread, NULL, spin, NULL);
    ck_assert_int_eq(poll(&p, 1, -1), 1);
    vcpu_kick(vcpu);
    pthread_join(thread, NULL);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "INTERRUPTED");
    kvm_end();
    close(fd);
}
END_TEST

/* The software CPU rings the same bells, and its writes come after those that KVM has posted. */
START_TEST(steps_and_posted_writes)
{
    int fd = event();

    begin(_i);
    posted_device();
    ring(0, DEVICE + 0x1004, 4, 0, fd);
    LOAD("\xbb\x00\x00\x00\xd0\x89\x5b\x04\xf4" /* two instructions; hlt */
         "\x89\x5b\x08\x89\x9b\x04\x10\0\0\x8b\x03\xf4" /* posted, bell, read */);
    RUN(HLT);
    set_rip(get_regs().rip);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
        ck_assert_str_eq(vmm_exit_name(ex.reason), "STEP");
    }
    ck_assert_uint_eq(nseen, 3);
    ck_assert_uint_eq(seen[0].offset, 4);
    ck_assert_uint_eq(seen[1].offset, 8);
    ck_assert(!seen[2].write);
    ck_assert_uint_eq(taken(fd), 1);
    kvm_end();
    close(fd);
}
END_TEST

/* Registering from inside of a posted write's callback, while entries wait. */
static int reg_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct vmm_io_ops o = ops(0);

    (void)opaque;
    (void)offset;
    (void)size;
    seen[nseen++].value = value;
    if (nseen == 1)
        ck_assert_int_eq(mmio_register(vm, DEVICE + 0x2000, 0x1000, &o, NULL, NULL), 0);
    get_regs();
    return VMM_IO_OK;
}

START_TEST(callback_of_a_posted_write)
{
    struct vmm_io_ops o = ops(VMM_IO_POSTED);

    begin(_i);
    nseen = 0;
    o.write = reg_write;
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &o, NULL, NULL), 0);
    LOAD(WRITES("\x05\0\0\0", "\xf4"));
    RUN(HLT);
    ck_assert_uint_eq(nseen, 5);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(seen[i].value, 5 - i);
    kvm_end();
}
END_TEST

int main(void)
{
    static const TTest *tests[64];
    size_t n = 0;

    tests[n++] = posted_before_the_exit;
    tests[n++] = posted_before_a_callback;
    tests[n++] = posted_ring_overflows;
    tests[n++] = posted_saves_exits;
    tests[n++] = posted_then_unregistered;
    tests[n++] = posted_moves;
    tests[n++] = posted_port;
    tests[n++] = doorbell_any_value;
    tests[n++] = doorbell_of_any_length;
    tests[n++] = doorbells_by_value;
    tests[n++] = doorbell_at_a_port;
    tests[n++] = doorbell_inside_of_a_posted_range;
    tests[n++] = doorbell_while_the_guest_runs_on;
    tests[n++] = steps_and_posted_writes;
    tests[n++] = callback_of_a_posted_write;
    return kvm_main("kvm_io", tests, n, NWAYS);
}
