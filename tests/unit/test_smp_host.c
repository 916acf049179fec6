/* SPDX-License-Identifier: BSD-2-Clause */
/* test_smp_host.c: what the host program does while several vCPUs run: kicks, pauses, changes of
 * memory and devices, code written from outside, resets; and callbacks in parallel. */
#include <sched.h>
#include <stdatomic.h>

#include "smp_vm.h"

#define DEVICE 0xd0000000u
#define SUMS   0x2800u /* of each vCPU, 8 bytes apart */

SMP_BLOB_BEGIN
__asm__("failed:\n"
        "    mov $1, %eax\n" SMP_END);
/* Some of everything, until [0x2700]: code of its own that it changes, a locked access across a
 * page, a device, a port, CR3. RSI: id. */
__asm__("mixture:\n"
        "    mov %rsi, %r8\n"
        "    mov %rsi, %rdi\n"
        "    shl $8, %rdi\n"
        "    add $0x200000, %rdi\n"
        "    movb $0xb8, (%rdi)\n" /* mov $imm, %eax; ret */
        "    movb $0xc3, 5(%rdi)\n"
        "    xor %edx, %edx\n"
        "9:  inc %edx\n"
        "    mov %edx, 1(%rdi)\n"
        "    call *%rdi\n"
        "    cmp %edx, %eax\n"
        "    jne failed\n"
        "    lock incq 0x201ffc\n"
        "    lock incq 0x2800(,%r8,8)\n"
        "    mov $0xd0000000, %ecx\n"
        "    mov (%rcx), %eax\n"
        "    mov %eax, 8(%rcx)\n"
        "    out %al, $0x80\n"
        "    mov %cr3, %rax\n"
        "    mov %rax, %cr3\n"
        "    mov $0x200800, %eax\n"
        "    call *%rax\n" /* what the host program writes there: RET */
        "    cmpb $0, 0x2700\n"
        "    je 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* RDX reads of the register RSI * 8, of which the sum must be RDX * (RSI + 1). */
__asm__("reads:\n"
        "    mov $0xd0000000, %ecx\n"
        "    lea (%rcx,%rsi,8), %rcx\n"
        "    inc %rsi\n"
        "    imul %rdx, %rsi\n"
        "    xor %ebx, %ebx\n"
        "    mov %rcx, %rdi\n"
        "9:  mov (%rdi), %eax\n"
        "    add %rax, %rbx\n"
        "    dec %rdx\n"
        "    jnz 9b\n"
        "    cmp %rsi, %rbx\n"
        "    jne failed\n"
        "    xor %eax, %eax\n" SMP_END);
SMP_BLOB_END

#define LABEL(name) extern const uint8_t name[];
LABEL(mixture)
LABEL(reads)

/* ---- devices ---- */

static _Atomic uint64_t accesses;

static int quick_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)size;
    atomic_fetch_add(&accesses, 1);
    *value = offset / 8 + 1;
    return VMM_IO_OK;
}

static int quick_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    atomic_fetch_add(&accesses, 1);
    return VMM_IO_OK;
}

static const struct vmm_io_ops quick = {
    .size = sizeof(quick), .name = "quick", .read = quick_read, .write = quick_write};

START_TEST(callbacks_run_in_parallel)
{
    smp_begin(4, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &quick, NULL, NULL), 0);
    atomic_store(&accesses, 0);
    ck_assert(smp_run_all(reads, 0, 5000));
    ck_assert_uint_eq(atomic_load(&accesses), 20000);
    smp_end();
}
END_TEST

/* Returns when the other vCPU is in its callback as well. */
static _Atomic uint32_t inside;

static int meeting_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)size;
    uint32_t ticket = atomic_fetch_add(&inside, 1);

    while (atomic_load(&inside) < (ticket | 1) + 1)
        sched_yield();
    *value = offset / 8 + 1;
    return VMM_IO_OK;
}

START_TEST(callbacks_can_wait_for_each_other)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "meeting", .read = meeting_read};

    smp_begin(2, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &ops, NULL, NULL), 0);
    atomic_store(&inside, 0);
    ck_assert(smp_run_all(reads, 0, 500));
    smp_end();
}
END_TEST

/* ---- DEFER ---- */

static _Atomic(struct vcpu *) waiting[SMP_MAX];
static _Atomic bool over;

static int later_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)size, (void)value;
    atomic_store(&waiting[offset / 8], vcpu_current(vm));
    return VMM_IO_DEFER;
}

static void *completer(void *opaque)
{
    (void)opaque;
    while (!atomic_load(&over)) {
        for (uint32_t i = 0; i < SMP_MAX; i++) {
            struct vcpu *v = atomic_exchange(&waiting[i], NULL);

            if (v && mmio_complete(v, i + 1))
                abort();
        }
        sched_yield();
    }
    return NULL;
}

START_TEST(deferred_accesses_of_all)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "later", .read = later_read};
    pthread_t thread;

    smp_begin(4, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &ops, NULL, NULL), 0);
    atomic_store(&over, false);
    pthread_create(&thread, NULL, completer, NULL);
    ck_assert(smp_run_all(reads, 0, 300));
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    smp_end();
}
END_TEST

/* ---- the host program ---- */

static void begin_mixture(uint32_t n)
{
    static const uint8_t ret = 0xc3;

    smp_begin(n, VMM_IRQCHIP_PC);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &quick, NULL, NULL), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &quick, NULL, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x200800, &ret, 1), 0);
    for (uint32_t i = 0; i < n; i++)
        smp_prepare(i, mixture, 0, i, 0);
    for (uint32_t i = 0; i < n; i++)
        smp_go(i);
}

static void end_mixture(void)
{
    atomic_store((_Atomic uint8_t *)(ram + 0x2700), 1);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ncpus; i++) {
        ck_assert_uint_eq(smp_join(i), 0);
        sum += word(SUMS)[i];
    }
    uint64_t all;
    memcpy(&all, ram + 0x201ffc, sizeof(all));
    ck_assert_uint_eq(all, sum);
    smp_end();
}

static void other_read(struct mmio **m)
{
    ck_assert_int_eq(mmio_register(vm, DEVICE + 0x10000, 0x1000, &quick, NULL, m), 0);
}

START_TEST(the_host_changes_everything)
{
    static const uint8_t codes[2][3] = {{0x90, 0x90, 0xc3}, {0x66, 0x90, 0xc3}};

    begin_mixture(3);
    for (unsigned i = 0; i < 60; i++) {
        struct vm_stats stats = {.size = sizeof(stats)};
        struct mmio *m;

        ck_assert_int_eq(vm_mem_alloc(vm, 0x2000000, 0x4000, VMM_MEM_RWX, NULL), 0);
        vcpu_kick(cpus[i % 3].vcpu);
        ck_assert_int_eq(vm_mem_protect(vm, 0x2000000, VMM_MEM_R), 0);
        other_read(&m);
        ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
        ck_assert_uint_eq(stats.nvcpus, 3);
        ck_assert_int_eq(vm_mem_write(vm, 0x200800, codes[i % 2], 3), 0);
        mmio_unregister(m);
        ck_assert_int_eq(vm_mem_unmap(vm, 0x2000000), 0);
    }
    end_mixture();
}
END_TEST

START_TEST(pauses_stand_still)
{
    begin_mixture(3);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t sums[3];

        ck_assert_int_eq(vm_pause(vm), 0);
        memcpy(sums, ram + SUMS, sizeof(sums));
        for (unsigned n = 0; n < 20; n++)
            sched_yield();
        ck_assert_int_eq(memcmp(sums, ram + SUMS, sizeof(sums)), 0);
        ck_assert_int_eq(vm_resume(vm), 0);
    }
    end_mixture();
}
END_TEST

START_TEST(stop_reset_and_again)
{
    begin_mixture(3);
    for (unsigned n = 0; n < 10; n++) {
        vm_stop(vm);
        for (uint32_t i = 0; i < 3; i++) {
            pthread_join(cpus[i].thread, NULL);
            ck_assert_int_eq(cpus[i].result, 0);
            ck_assert_uint_eq(cpus[i].exit.reason, VMM_EXIT_STOPPED);
        }
        ck_assert_int_eq(vm_resume(vm), 0);
        ck_assert_int_eq(vm_reset(vm), 0);
        memset(ram + SUMS, 0, 24);
        memset(ram + 0x201ffc, 0, 8);
        for (uint32_t i = 0; i < 3; i++)
            smp_prepare(i, mixture, 0, i, 0);
        for (uint32_t i = 0; i < 3; i++)
            smp_go(i);
    }
    end_mixture();
}
END_TEST

/* One that is not run by anybody is changed, and destroyed and made again, in front of the others.
 */
START_TEST(an_idle_cpu_is_changed)
{
    smp_begin(3, VMM_IRQCHIP_PC);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &quick, NULL, NULL), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &quick, NULL, NULL), 0);
    *(ram + 0x200800) = 0xc3;
    smp_prepare(0, mixture, 0, 0, 0);
    smp_prepare(1, mixture, 0, 1, 0);
    smp_go(0);
    smp_go(1);
    for (unsigned i = 0; i < 60; i++) {
        smp_prepare(2, mixture, 0, 2, 0);
        for (unsigned n = 0; n < 5; n++) {
            struct vcpu_exit exit = {.size = sizeof(exit)};

            ck_assert_int_eq(vcpu_step(cpus[2].vcpu, &exit), 0);
        }
        ck_assert_int_eq(vcpu_set_msr(cpus[2].vcpu, 0xc0000080, 0xd01), 0);
        if (i % 4)
            continue;
        ck_assert_int_eq(vcpu_destroy(cpus[2].vcpu), 0);
        ck_assert_int_eq(vcpu_create(vm, 2, NULL, &cpus[2].vcpu), 0);
    }
    ncpus = 2;
    end_mixture();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("smp_host");
    TCase *tc = tcase_create("smp_host");

    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, callbacks_run_in_parallel);
    tcase_add_test(tc, callbacks_can_wait_for_each_other);
    tcase_add_test(tc, deferred_accesses_of_all);
    tcase_add_test(tc, the_host_changes_everything);
    tcase_add_test(tc, pauses_stand_still);
    tcase_add_test(tc, stop_reset_and_again);
    tcase_add_test(tc, an_idle_cpu_is_changed);
    return smp_main(s);
}
