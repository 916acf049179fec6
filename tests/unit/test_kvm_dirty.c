/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_dirty.c: dirty tracking by KVM's rings and by its bitmaps, each test with all of them.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>

#include "kvm_vm.h"

#define PAGE  4096ull
#define DATA  0x10000000ull /* a region of its own */
#define PAGES 8192ull       /* more than a ring holds */
#define WORDS (PAGES / 64)

/* ---- ioctls that fail, wrapped by the linker ---- */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static unsigned long refused;
static unsigned refuse_after; /* so many calls succeed first */

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    uintptr_t arg = va_arg(args, uintptr_t);
    va_end(args);
    if (request == refused && refuse_after-- == 0) {
        refused = 0;
        errno = ENOMEM;
        return -1;
    }
    return __real_ioctl(fd, request, arg);
}

/* ---- a guest that writes to pages ---- */

/* loop: mov [rbx],al; add rbx,4096; dec rcx; jnz loop; hlt */
static const char writer[] = "\x88\x03\x48\x81\xc3\x00\x10\x00\x00\x48\xff\xc9\x75\xf2\xf4";

enum { RING, MANUAL, BITMAP, MODES };

static uint64_t bitmap[WORDS + 1], count;

static void begin(int mode, uint32_t cpus)
{
    uint32_t has = host()->has;

    if (mode != RING)
        host()->has &= ~KVM_HAS_DIRTY_RING;
    if (mode == BITMAP)
        host()->has &= ~KVM_HAS_MANUAL_DIRTY;
    kvm_begin(0, cpus);
    ck_assert_int_eq(kvm()->ring_bytes != 0, (host()->has & KVM_HAS_DIRTY_RING) != 0);
    had = has;
    ck_assert_int_eq(vm_mem_alloc(vm, DATA, PAGES * PAGE, VMM_MEM_RWX, NULL), 0);
    load_on(vcpu, writer, sizeof(writer) - 1);
}

static void end(void)
{
    ck_assert_uint_gt(hw_exits(), 0); /* it was KVM that wrote */
    kvm_end();
}

/* The guest writes to `n` pages from `address` on. With few in one go no ring overflows where KVM
 * does not look at it often enough. */
#define FEW 50u

static void write_pages(uint64_t address, uint64_t n)
{
    while (n) {
        uint64_t part = n < FEW ? n : FEW;

        set_gpr(VMM_RBX, address);
        set_gpr(VMM_RCX, part);
        set_rip(CODE);
        RUN(HLT);
        address += part * PAGE;
        n -= part;
    }
}

static void get(uint64_t first, uint64_t n)
{
    memset(bitmap, 0xa5, sizeof(bitmap));
    ck_assert_int_eq(vm_dirty_get(vm, DATA + first * PAGE, n * PAGE, 0, bitmap, &count), 0);
    ck_assert_uint_eq(bitmap[(n + 63) / 64], 0xa5a5a5a5a5a5a5a5);
}

static bool dirty(uint64_t page)
{
    return bitmap[page / 64] >> page % 64 & 1;
}

static void start(void)
{
    ck_assert_int_eq(vm_dirty_start(vm), 0);
}

/* ---- tests ---- */

START_TEST(what_the_guest_writes)
{
    static const uint64_t at[] = {0, 3, 63, 64, 200, 4095, PAGES - 1};
    const size_t n = sizeof(at) / sizeof(at[0]);

    begin(_i, 1);
    write_pages(DATA, 20); /* before */
    start();
    get(0, PAGES);
    ck_assert_uint_eq(count, 0);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++)
            write_pages(DATA + at[i] * PAGE, 1);
        get(0, PAGES);
        ck_assert_uint_eq(count, n);
        for (size_t i = 0; i < n; i++)
            ck_assert(dirty(at[i]));
        get(0, PAGES);
        ck_assert_uint_eq(count, 0);
    }
    ck_assert_int_eq(vm_dirty_stop(vm), 0);
    end();
}
END_TEST

START_TEST(more_than_a_ring_holds)
{
    begin(_i, 1);
    start();
    for (int round = 0; round < 2; round++) {
        write_pages(DATA, PAGES);
        get(0, PAGES);
        ck_assert_uint_eq(count, PAGES);
        get(0, PAGES);
        ck_assert_uint_eq(count, 0);
    }
    end();
}
END_TEST

/* What is asked for is clean then; what is not stays for later. */
START_TEST(parts)
{
    begin(_i, 1);
    start();
    write_pages(DATA + 60 * PAGE, 80);
    get(62, 5);
    ck_assert_uint_eq(count, 5);
    get(62, 5);
    ck_assert_uint_eq(count, 0);
    write_pages(DATA + 63 * PAGE, 1);
    get(0, 64);
    ck_assert_uint_eq(count, 3);
    ck_assert(dirty(60) && dirty(61) && dirty(63));
    get(100, 3);
    ck_assert_uint_eq(count, 3);
    get(0, PAGES);
    ck_assert_uint_eq(count, 80 - 7 - 3);
    ck_assert(dirty(67) && !dirty(100) && dirty(103) && dirty(139) && !dirty(140));
    end();
}
END_TEST

/* Slots that come, go and change while tracking is on keep what was written. */
START_TEST(slots_that_change)
{
    begin(_i, 1);
    start();
    ck_assert_int_eq(vm_mem_alloc(vm, DATA + PAGES * PAGE, 64 * PAGE, VMM_MEM_RWX, NULL), 0);
    write_pages(DATA + (PAGES - 2) * PAGE, 4);
    ck_assert_int_eq(vm_mem_protect(vm, DATA, VMM_MEM_RX), 0);
    ck_assert_int_eq(vm_mem_protect(vm, DATA, VMM_MEM_RWX), 0);
    write_pages(DATA, 1);
    core_world_stop(vm);
    ck_assert_int_eq(kvm_mem_refresh(vm), 0);
    core_world_go(vm);
    write_pages(DATA + PAGE, 1);
    get(PAGES, 64);
    ck_assert_uint_eq(count, 2);
    get(0, PAGES);
    ck_assert_uint_eq(count, 4);
    ck_assert(dirty(0) && dirty(1) && dirty(PAGES - 2) && dirty(PAGES - 1));

    write_pages(DATA + PAGES * PAGE, 3);
    ck_assert_int_eq(vm_mem_unmap(vm, DATA + PAGES * PAGE), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, DATA + PAGES * PAGE, 64 * PAGE, VMM_MEM_RWX, NULL), 0);
    get(PAGES, 64);
    ck_assert_uint_eq(count, 0);
    end();
}
END_TEST

/* Both CPUs of a vCPU write, and the host program does. */
START_TEST(all_writers)
{
    const uint64_t value = 1;

    begin(_i, 1);
    start();
    write_pages(DATA, 2);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 1000, 0), 0); /* exact: the software CPU */
    write_pages(DATA + 10 * PAGE, 2);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 0), 0);
    ck_assert_int_eq(vm_mem_write(vm, DATA + 20 * PAGE, &value, sizeof(value)), 0);
    for (int i = 0; i < 2; i++) {
        get(0, PAGES);
        ck_assert_uint_eq(count, 5);
        ck_assert(dirty(0) && dirty(1) && dirty(10) && dirty(11) && dirty(20));
        write_pages(DATA, 2);
        ck_assert_int_eq(vcpu_set_budget(vcpu, 1000, 0), 0);
        write_pages(DATA + 10 * PAGE, 2);
        ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 0), 0);
        ck_assert_int_eq(vm_mem_write(vm, DATA + 20 * PAGE, &value, sizeof(value)), 0);
    }
    end();
}
END_TEST

START_TEST(off_and_on_again)
{
    begin(_i, 1);
    start();
    write_pages(DATA, 100);
    ck_assert_int_eq(vm_dirty_stop(vm), 0);
    write_pages(DATA + 200 * PAGE, PAGES - 200); /* nothing fills up now */
    start();
    get(0, PAGES);
    ck_assert_uint_eq(count, 0);
    write_pages(DATA + PAGE, 1);
    get(0, PAGES);
    ck_assert_uint_eq(count, 1);
    ck_assert(dirty(1));
    end();
}
END_TEST

/* What KVM refuses leaves tracking as it was, and loses nothing. */
START_TEST(refusals)
{
    begin(_i, 1);
    for (unsigned i = 0; i < 2; i++) {
        refused = KVM_SET_USER_MEMORY_REGION;
        refuse_after = i;
        ck_assert_int_eq(vm_dirty_start(vm), VMM_E_NOMEM);
        ck_assert_uint_eq(refused, 0);
        write_pages(DATA, 3);
    }
    start();
    write_pages(DATA + PAGE, 2);
    refused = kvm()->ring_bytes ? KVM_RESET_DIRTY_RINGS : KVM_GET_DIRTY_LOG;
    refuse_after = 0;
    ck_assert_int_eq(vm_dirty_get(vm, DATA, PAGES * PAGE, 0, bitmap, &count), VMM_E_NOMEM);
    ck_assert_uint_eq(refused, 0);
    write_pages(DATA + 9 * PAGE, 1);
    get(0, PAGES);
    ck_assert_uint_eq(count, 3);
    ck_assert(dirty(1) && dirty(2) && dirty(9));
    write_pages(DATA, PAGES);
    get(0, PAGES);
    ck_assert_uint_eq(count, PAGES);
    end();
}
END_TEST

/* Writes to half of the pages, by vCPU 0 or 1. */
static void *half(void *arg)
{
    struct vcpu_exit e = {.size = sizeof(e)};
    struct vcpu *v = arg;
    uint64_t first = vcpu_id(v) * (PAGES / 2);
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR | VMM_REGS_EVENTS};

    for (uint64_t i = 0; i < PAGES / 2; i += FEW) {
        ck_assert_int_eq(vcpu_get_regs(v, &r), 0);
        r.rip = CODE;
        r.activity = VMM_ACTIVE;
        r.gpr[VMM_RBX] = DATA + (first + i) * PAGE;
        r.gpr[VMM_RCX] = PAGES / 2 - i < FEW ? PAGES / 2 - i : FEW;
        ck_assert_int_eq(vcpu_set_regs(v, &r), 0);
        ck_assert_int_eq(vcpu_run(v, &e), 0);
        ck_assert_uint_eq(e.reason, VMM_EXIT_HLT);
    }
    return NULL;
}

/* Two vCPUs write while a third thread asks: each write is in one of the answers. */
START_TEST(while_they_run)
{
    static uint64_t seen[WORDS];
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = VMM_SETUP_LONG64, .rip = CODE, .rsp = STACK, .cr3 = TABLES};
    struct vcpu *v[2] = {0};
    pthread_t thread[2];
    uint64_t total = 0;

    begin(_i, 2);
    v[0] = vcpu;
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &v[1]), 0);
    start();
    for (uint64_t i = 0; i < 2; i++) {
        ck_assert_int_eq(vcpu_set_mode(v[i], &setup), 0);
        ck_assert_int_eq(pthread_create(&thread[i], NULL, half, v[i]), 0);
    }
    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < 20; i++) {
        get(0, PAGES);
        for (size_t w = 0; w < WORDS; w++)
            seen[w] |= bitmap[w];
    }
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
    get(0, PAGES);
    for (size_t w = 0; w < WORDS; w++)
        total += (uint64_t)__builtin_popcountll(seen[w] | bitmap[w]);
    ck_assert_uint_eq(total, PAGES);
    end();
}
END_TEST

/* The log of a vCPU that is gone is not, and the next one of its number goes on with it. */
START_TEST(vcpu_that_goes)
{
    begin(_i, 1);
    start();
    write_pages(DATA, 5);
    ck_assert_int_eq(vcpu_destroy(vcpu), 0);
    get(0, PAGES);
    ck_assert_uint_eq(count, 5);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    load_on(vcpu, writer, sizeof(writer) - 1);
    write_pages(DATA + 7 * PAGE, 2);
    get(0, PAGES);
    ck_assert_uint_eq(count, 2);
    ck_assert(dirty(7) && dirty(8));
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        what_the_guest_writes, more_than_a_ring_holds, parts,    slots_that_change,
        all_writers,           off_and_on_again,       refusals, while_they_run,
        vcpu_that_goes,
    };

    return kvm_main("kvm_dirty", tests, sizeof(tests) / sizeof(tests[0]), MODES);
}
