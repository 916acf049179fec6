/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_mem.c: the memory map as KVM's slots: what the guest sees of it, and when KVM refuses.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kvm_vm.h"

#define PAGE 4096u
#define HIGH 0x80000000u /* where tests map */

/* ---- KVM_SET_USER_MEMORY_REGION that fails, wrapped by the linker ---- */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static int refuse_add, refuse_remove; /* errno */

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    uintptr_t arg = va_arg(args, uintptr_t);
    va_end(args);
    if (request == KVM_SET_USER_MEMORY_REGION) {
        const struct kvm_userspace_memory_region *r = (void *)arg;
        int err = r->memory_size ? refuse_add : refuse_remove;

        if (err) {
            errno = err;
            return -1;
        }
    }
    return __real_ioctl(fd, request, arg);
}

/* ---- guest accesses ---- */

/* 0: mov rax,[rbx]; hlt   10h: mov [rbx],rax; hlt   20h: call rbx; hlt */
#define LOAD_AT  0x00
#define STORE_AT 0x10
#define CALL_AT  0x20

static void begin(void)
{
    char code[0x30] = {0};

    memcpy(code + LOAD_AT, "\x48\x8b\x03\xf4", 4);
    memcpy(code + STORE_AT, "\x48\x89\x03\xf4", 4);
    memcpy(code + CALL_AT, "\xff\xd3\xf4", 3);
    kvm_begin(0, 1);
    load_on(vcpu, code, sizeof(code));
}

static void at(uint64_t code, uint64_t address)
{
    set_gpr(VMM_RBX, address);
    set_rip(CODE + code);
}

/* What the guest reads there, which must be memory. */
static uint64_t load(uint64_t address)
{
    at(LOAD_AT, address);
    set_gpr(VMM_RAX, 0);
    RUN(HLT);
    return gpr(VMM_RAX);
}

static void store(uint64_t address, uint64_t value)
{
    at(STORE_AT, address);
    set_gpr(VMM_RAX, value);
    RUN(HLT);
}

/* That an access there is MMIO; a read gets `value`. */
static void expect_mmio(uint64_t code, uint64_t address, uint64_t value)
{
    at(code, address);
    RUN(MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, address);
    ck_assert_uint_eq(ex.u.mmio.len, 8);
    ck_assert_uint_eq(ex.u.mmio.access, code == LOAD_AT ? VMM_ACCESS_READ : VMM_ACCESS_WRITE);
    if (code == LOAD_AT)
        ex.u.mmio.data = value;
    RUN(HLT);
    if (code == LOAD_AT)
        ck_assert_uint_eq(gpr(VMM_RAX), value);
}

static uint32_t count_slots(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < kvm()->nslots; i++)
        n += kvm()->slots[i].id != KVM_NO_SLOT;
    return n;
}

static void map(uint64_t gpa, void *memory, uint64_t len, uint32_t prot)
{
    ck_assert_int_eq(vm_mem_map(vm, gpa, memory, len, prot), 0);
}

static uint64_t *pages(size_t n)
{
    uint64_t *p = aligned_alloc(PAGE, n * PAGE);

    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < n * PAGE / 8; i++)
        p[i] = 0x1000000 * (i / (PAGE / 8) + 1) + i;
    return p;
}

/* ---- tests ---- */

START_TEST(memory_comes_and_goes)
{
    uint64_t *a = pages(2), *b = pages(1);

    begin();
    expect_mmio(LOAD_AT, HIGH, 42);
    map(HIGH, a, 2 * PAGE, VMM_MEM_RWX);
    ck_assert_uint_eq(count_slots(), 2);
    ck_assert_uint_eq(load(HIGH + PAGE), a[PAGE / 8]);
    store(HIGH, 7);
    ck_assert_uint_eq(a[0], 7);
    ck_assert_int_eq(vm_mem_unmap(vm, HIGH), 0);
    expect_mmio(LOAD_AT, HIGH, 43);
    expect_mmio(STORE_AT, HIGH + PAGE, 0);
    b[0] = 99;
    map(HIGH, b, PAGE, VMM_MEM_RWX);
    ck_assert_uint_eq(load(HIGH), 99);
    expect_mmio(LOAD_AT, HIGH + PAGE, 44);
    ck_assert_uint_eq(count_slots(), 2);
    ck_assert_uint_gt(hw_exits(), 0);
    ck_assert_uint_le(kvm()->next_id, 2); /* numbers are used again */
    kvm_end();
    free(a);
    free(b);
}
END_TEST

START_TEST(rom_reads_as_memory_and_writes_as_mmio)
{
    uint64_t *a = pages(1);

    begin();
    a[0] = 0xc3; /* ret */
    map(HIGH, a, PAGE, VMM_MEM_RX);
    ck_assert_uint_eq(kvm()->slots[1].flags, KVM_MEM_READONLY);
    ck_assert_uint_eq(load(HIGH + 8), a[1]);
    expect_mmio(STORE_AT, HIGH + 8, 0);
    at(CALL_AT, HIGH);
    RUN(HLT);
    kvm_end();
    free(a);
}
END_TEST

START_TEST(protection_changes)
{
    uint64_t *a = pages(1);

    begin();
    map(HIGH, a, PAGE, VMM_MEM_RWX);
    for (int i = 0; i < 3; i++) {
        store(HIGH, (uint64_t)i);
        ck_assert_int_eq(vm_mem_protect(vm, HIGH, VMM_MEM_RX), 0);
        expect_mmio(STORE_AT, HIGH, 0);
        ck_assert_uint_eq(load(HIGH), (uint64_t)i);
        ck_assert_int_eq(vm_mem_protect(vm, HIGH, VMM_MEM_RWX), 0);
    }
    ck_assert_uint_eq(count_slots(), 2);
    /* What makes no difference to KVM changes nothing. */
    uint32_t id = kvm()->slots[1].id;
    refuse_add = refuse_remove = EIO;
    ck_assert_int_eq(vm_mem_protect(vm, HIGH, VMM_MEM_R | VMM_MEM_W), 0);
    refuse_add = refuse_remove = 0;
    ck_assert_uint_eq(kvm()->slots[1].id, id);
    store(HIGH, 5);
    kvm_end();
    free(a);
}
END_TEST

#define MANY 300

START_TEST(many_regions)
{
    uint64_t *a = pages(MANY);

    begin();
    /* In an order that inserts at both ends and in the middle; with holes. */
    for (uint64_t i = 0; i < MANY; i++) {
        uint64_t n = i * 7 % MANY;

        map(HIGH + n * 2 * PAGE, a + n * (PAGE / 8), PAGE, n % 3 ? VMM_MEM_RWX : VMM_MEM_RX);
    }
    ck_assert_uint_eq(count_slots(), MANY + 1);
    for (uint64_t i = 0; i < MANY; i += 13)
        ck_assert_uint_eq(load(HIGH + i * 2 * PAGE + 16), a[i * (PAGE / 8) + 2]);
    for (uint64_t i = 0; i < MANY; i += 2)
        ck_assert_int_eq(vm_mem_unmap(vm, HIGH + i * 2 * PAGE), 0);
    expect_mmio(LOAD_AT, HIGH + 26 * 2 * PAGE, 1);
    ck_assert_uint_eq(load(HIGH + 27 * 2 * PAGE), a[27 * (PAGE / 8)]);
    for (uint64_t i = 1; i < MANY; i += 2)
        ck_assert_int_eq(vm_mem_unmap(vm, HIGH + i * 2 * PAGE), 0);
    ck_assert_uint_eq(count_slots(), 1);
    ck_assert_uint_eq(kvm()->nfree_ids + 1, kvm()->next_id);
    kvm_end();
    free(a);
}
END_TEST

START_TEST(slots_merge_when_numbers_run_short)
{
    uint32_t nslots = host()->nslots;
    uint64_t *a = pages(16);

    begin();
    host()->nslots = 8;
    for (uint64_t i = 0; i < 16; i++)
        map(HIGH + i * PAGE, a + i * (PAGE / 8), PAGE, i < 8 ? VMM_MEM_RWX : VMM_MEM_RX);
    ck_assert_uint_eq(count_slots(), 3);
    for (uint64_t i = 0; i < 16; i++)
        ck_assert_uint_eq(load(HIGH + i * PAGE), a[i * (PAGE / 8)]);
    expect_mmio(STORE_AT, HIGH + 8 * PAGE, 0);
    ck_assert_int_eq(vm_mem_unmap(vm, HIGH + 4 * PAGE), 0);
    ck_assert_uint_eq(count_slots(), 4);
    expect_mmio(LOAD_AT, HIGH + 4 * PAGE, 3);
    ck_assert_uint_eq(load(HIGH + 5 * PAGE), a[5 * (PAGE / 8)]);
    kvm_end();
    host()->nslots = nslots;
    free(a);
}
END_TEST

/* What is no slot is memory all the same. */
START_TEST(memory_without_a_slot)
{
    uint32_t nslots = host()->nslots;
    uint64_t *a = pages(16);

    begin();
    host()->nslots = 4;
    a[15 * (PAGE / 8) + 4] = 0xc3c08948; /* mov rax,rax; ret */
    for (uint64_t i = 0; i < 16; i++)
        map(HIGH + i * 2 * PAGE, a + i * (PAGE / 8), PAGE, i == 14 ? VMM_MEM_RX : VMM_MEM_RWX);
    ck_assert_uint_eq(count_slots(), 4);
    ck_assert_uint_eq(load(HIGH + 30 * PAGE), a[15 * (PAGE / 8)]);
    store(HIGH + 30 * PAGE + 8, 77);
    ck_assert_uint_eq(a[15 * (PAGE / 8) + 1], 77);
    ck_assert_uint_eq(load(HIGH + 28 * PAGE), a[14 * (PAGE / 8)]);
    expect_mmio(STORE_AT, HIGH + 28 * PAGE, 0);
    at(CALL_AT, HIGH + 30 * PAGE + 32);
    RUN(HLT);
    /* It becomes one as soon as there is a number for it. */
    for (uint64_t i = 0; i < 13; i++)
        ck_assert_int_eq(vm_mem_unmap(vm, HIGH + i * 2 * PAGE), 0);
    ck_assert_uint_eq(count_slots(), 4);
    store(HIGH + 30 * PAGE + 8, 78);
    ck_assert_uint_eq(a[15 * (PAGE / 8) + 1], 78);
    kvm_end();
    host()->nslots = nslots;
    free(a);
}
END_TEST

/* KVM has no memory for a slot: the next run says so, and later ones go on. */
START_TEST(refused_slot)
{
    uint64_t *a = pages(1);

    begin();
    refuse_add = ENOMEM;
    map(HIGH, a, PAGE, VMM_MEM_RWX);
    at(LOAD_AT, HIGH);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_NOMEM);
    last_error(VMM_E_NOMEM);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_NOMEM);
    refuse_add = 0;
    RUN(HLT);
    ck_assert_uint_eq(gpr(VMM_RAX), a[0]);
    kvm_end();
    free(a);
}
END_TEST

/* A slot that KVM does not take away leads to memory that is no longer the guest's: nothing runs.
 */
START_TEST(slot_that_stays)
{
    uint64_t *a = pages(1), old;

    begin();
    map(HIGH, a, PAGE, VMM_MEM_RWX);
    old = a[0];
    refuse_remove = ENOMEM;
    ck_assert_int_eq(vm_mem_unmap(vm, HIGH), 0);
    at(STORE_AT, HIGH);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_NOMEM);
    ck_assert_uint_eq(a[0], old);
    refuse_remove = 0;
    RUN(MMIO);
    ck_assert_uint_eq(a[0], old);
    RUN(HLT);
    kvm_end();
    free(a);
}
END_TEST

START_TEST(refresh_keeps_everything)
{
    uint64_t *a = pages(1);

    begin();
    map(HIGH, a, PAGE, VMM_MEM_RX);
    ck_assert_uint_eq(load(HIGH), a[0]);
    core_world_stop(vm);
    ck_assert_int_eq(kvm_mem_refresh(vm), 0);
    core_world_go(vm);
    ck_assert_uint_eq(count_slots(), 2);
    ck_assert_uint_eq(load(HIGH), a[0]);
    expect_mmio(STORE_AT, HIGH, 0);
    kvm_end();
    free(a);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        memory_comes_and_goes,
        rom_reads_as_memory_and_writes_as_mmio,
        protection_changes,
        many_regions,
        slots_merge_when_numbers_run_short,
        memory_without_a_slot,
        refused_slot,
        slot_that_stays,
        refresh_keeps_everything,
    };

    return kvm_main("kvm_mem", tests, sizeof(tests) / sizeof(tests[0]), 1);
}
