/* SPDX-License-Identifier: BSD-2-Clause */
/* test_smp_dirty.c: dirty tracking while vCPUs and the program write: a copy of the memory that is
 * kept up to date with the dirty pages is the memory in the end. */
#include "smp_vm.h"

#define PAGE  4096u
#define PAGES 256u /* that the guests write to, from SMP_DATA on */
#define AREA  (PAGES * PAGE)

SMP_BLOB_BEGIN
/*
 * RDI: area, RSI: number of the vCPU, RDX: rounds. Writes to pages here and there, in all ways that
 * stores can go: plain, locked, string, across pages, pushes.
 */
__asm__("writer:\n"
        "    lea 12345(%rsi), %r8\n"
        "    mov %rdi, %r9\n"
        "    mov %rsp, %r12\n"
        "1:  imul $1103515245, %r8d, %r8d\n"
        "    add $12345, %r8d\n"
        "    mov %r8d, %eax\n"
        "    shr $8, %eax\n"
        "    and $0xffff8, %eax\n" /* 1 MiB, by 8 */
        "    lea (%r9,%rax), %rbx\n"
        "    mov %r8d, %ecx\n"
        "    shr $29, %ecx\n"
        "    cmp $1, %ecx\n"
        "    je 2f\n"
        "    cmp $2, %ecx\n"
        "    je 3f\n"
        "    cmp $3, %ecx\n"
        "    je 4f\n"
        "    cmp $4, %ecx\n"
        "    je 5f\n"
        "    mov %r8, (%rbx)\n"
        "    jmp 9f\n"
        "2:  lock add %r8, (%rbx)\n"
        "    jmp 9f\n"
        "3:  and $-4096, %rbx\n" /* the end of the page before, and this one */
        "    cmp %r9, %rbx\n"
        "    je 9f\n"
        "    mov %r8, -4(%rbx)\n"
        "    jmp 9f\n"
        "4:  mov %rbx, %rdi\n"
        "    and $-4096, %rdi\n"
        "    mov $32, %ecx\n"
        "    mov %r8, %rax\n"
        "    rep stosq\n"
        "    jmp 9f\n"
        "5:  lea 8(%rbx), %rsp\n"
        "    push %r8\n"
        "    mov %r12, %rsp\n"
        "9:  dec %rdx\n"
        "    jnz 1b\n"
        "    xor %eax, %eax\n" SMP_END);
/* Sets dirty bits in page table entries that the host clears. RDI: a page, RDX: rounds. */
__asm__("toucher:\n"
        "1:  invlpg (%rdi)\n"
        "    mov %edx, (%rdi)\n"
        "    dec %rdx\n"
        "    jnz 1b\n"
        "    xor %eax, %eax\n" SMP_END);
SMP_BLOB_END

extern const uint8_t writer[], toucher[];

static uint8_t shadow[AREA];
static uint64_t bitmap[PAGES / 64];
static _Atomic bool over;

/* Brings the copy up to date. */
static uint64_t sync_shadow(void)
{
    uint64_t count;

    ck_assert_int_eq(vm_dirty_get(vm, SMP_DATA, AREA, 0, bitmap, &count), 0);
    for (uint32_t i = 0; i < PAGES; i++)
        if (bitmap[i / 64] >> i % 64 & 1)
            memcpy(shadow + i * PAGE, ram + SMP_DATA + i * PAGE, PAGE);
    return count;
}

static void *collect(void *arg)
{
    (void)arg;
    while (!over)
        sync_shadow();
    return NULL;
}

/* The program writes too, by vm_mem_write. */
static void *host_writes(void *arg)
{
    uint64_t seed = 99;

    (void)arg;
    while (!over) {
        seed = seed * 6364136223846793005u + 1;
        uint64_t at = seed >> 33 & (AREA - 8);

        ck_assert_int_eq(vm_mem_write(vm, SMP_DATA + at / 8 * 8, &seed, 8), 0);
    }
    return NULL;
}

static void run_and_compare(uint32_t n, bool host)
{
    pthread_t collector, other;

    smp_begin(n, VMM_IRQCHIP_NONE);
    over = false;
    memset(shadow, 0, sizeof(shadow));
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    for (uint32_t i = 0; i < n; i++)
        smp_prepare(i, writer, SMP_DATA, i, 300000);
    ck_assert_int_eq(pthread_create(&collector, NULL, collect, NULL), 0);
    if (host)
        ck_assert_int_eq(pthread_create(&other, NULL, host_writes, NULL), 0);
    for (uint32_t i = 0; i < n; i++)
        smp_go(i);
    for (uint32_t i = 0; i < n; i++)
        ck_assert_uint_eq(smp_join(i), 0);
    over = true;
    pthread_join(collector, NULL);
    if (host)
        pthread_join(other, NULL);
    sync_shadow();
    for (uint32_t i = 0; i < PAGES; i++)
        ck_assert_msg(!memcmp(shadow + i * PAGE, ram + SMP_DATA + i * PAGE, PAGE),
                      "page %u differs", i);
    ck_assert_uint_eq(sync_shadow(), 0);
    smp_end();
}

START_TEST(no_write_of_one_vcpu_is_lost)
{
    run_and_compare(1, false);
}
END_TEST

START_TEST(no_write_of_several_vcpus_is_lost)
{
    run_and_compare(4, false);
}
END_TEST

START_TEST(no_write_of_the_program_is_lost)
{
    run_and_compare(2, true);
}
END_TEST

/* Starting and stopping while they run. */
static void *start_and_stop(void *arg)
{
    (void)arg;
    while (!over) {
        uint64_t count;

        ck_assert_int_eq(vm_dirty_start(vm), 0);
        ck_assert_int_eq(vm_dirty_start(vm), VMM_E_STATE);
        ck_assert_int_eq(vm_dirty_get(vm, SMP_DATA, AREA, 0, bitmap, &count), 0);
        ck_assert_int_eq(vm_dirty_stop(vm), 0);
    }
    return NULL;
}

START_TEST(tracking_comes_and_goes)
{
    pthread_t thread;

    smp_begin(2, VMM_IRQCHIP_NONE);
    over = false;
    for (uint32_t i = 0; i < 2; i++)
        smp_prepare(i, writer, SMP_DATA, i, 300000);
    ck_assert_int_eq(pthread_create(&thread, NULL, start_and_stop, NULL), 0);
    smp_go(0);
    smp_go(1);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_uint_eq(smp_join(1), 0);
    over = true;
    pthread_join(thread, NULL);
    smp_end();
}
END_TEST

/* A page table that a vCPU may be changing. */
static void copy_table(uint64_t *to, const uint8_t *from)
{
    const uint64_t *entry = (const uint64_t *)(uintptr_t)from;

    for (unsigned i = 0; i < PAGE / sizeof(*to); i++)
        to[i] = __atomic_load_n(&entry[i], __ATOMIC_RELAXED);
}

/* The page tables are guest memory that the CPU itself writes. */
START_TEST(no_dirty_bit_of_a_table_is_lost)
{
    uint64_t directory = SMP_TABLES + 0x2000, entry = directory + SMP_DATA / 0x200000 * 8;
    uint64_t copy[512], bits;

    smp_begin(1, VMM_IRQCHIP_NONE);
    smp_prepare(0, toucher, SMP_DATA, 0, 20000);
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    memcpy(copy, ram + directory, PAGE);
    smp_go(0);
    for (int i = 0; i < 2000; i++) {
        uint64_t clean;

        __atomic_fetch_and(word(entry), ~0x60ull, __ATOMIC_SEQ_CST);
        copy[SMP_DATA / 0x200000] &= ~0x60ull;
        ck_assert_int_eq(vm_dirty_get(vm, directory, PAGE, 0, &bits, &clean), 0);
        if (bits)
            copy_table(copy, ram + directory);
    }
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_int_eq(vm_dirty_get(vm, directory, PAGE, 0, &bits, NULL), 0);
    if (bits)
        memcpy(copy, ram + directory, PAGE);
    ck_assert_int_eq(memcmp(copy, ram + directory, PAGE), 0);
    smp_end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("smp_dirty");
    TCase *tc = tcase_create("smp_dirty");

    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, no_write_of_one_vcpu_is_lost);
    tcase_add_test(tc, no_write_of_several_vcpus_is_lost);
    tcase_add_test(tc, no_write_of_the_program_is_lost);
    tcase_add_test(tc, tracking_comes_and_goes);
    tcase_add_test(tc, no_dirty_bit_of_a_table_is_lost);
    suite_add_tcase(s, tc);
    return smp_main(s);
}
