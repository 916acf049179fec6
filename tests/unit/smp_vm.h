/* SPDX-License-Identifier: BSD-2-Clause */
/* smp_vm.h: VMs with several vCPUs on the software CPU, each run by a thread of its own, with
 * 64-bit guest code from the test's assembly. */
#ifndef SMP_VM_H
#define SMP_VM_H

#include <check.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <vmm/vmm.h>

#define SMP_MAX    4u
#define SMP_MEMORY 0x1000000u
#define SMP_TABLES 0x10000u /* identity mapping, 6 pages */
#define SMP_GDT    0x20000u
#define SMP_IDT    0x21000u
#define SMP_STACK  0x30000u /* 16 KiB for each vCPU */
#define SMP_CODE   0x100000u
#define SMP_DATA   0x200000u

/* Where a guest function ends: its result is RAX. */
#define SMP_EXIT_PORT 0x99

/*
 * Assembly between SMP_BLOB_BEGIN and _END is one piece of position-independent guest code. A guest
 * function NAME gets RDI, RSI and RDX, and has R15 = &[barrier]; "call barrier" (RCX and R11 are
 * lost) waits for all vCPUs to come there.
 */
#define SMP_BLOB_BEGIN                                                                             \
    __asm__(".section .rodata.guest, \"a\", @progbits\n"                                           \
            ".balign 4096\n"                                                                       \
            "smp_blob:\n"                                                                          \
            "barrier:\n"                                                                           \
            "    mov 8(%r15), %ecx\n" /* the round */                                              \
            "    mov $1, %r11d\n"                                                                  \
            "    lock xadd %r11d, (%r15)\n"                                                        \
            "    inc %r11d\n"                                                                      \
            "    cmp 4(%r15), %r11d\n"                                                             \
            "    jne 1f\n"                                                                         \
            "    movl $0, (%r15)\n"                                                                \
            "    lock incl 8(%r15)\n"                                                              \
            "    ret\n"                                                                            \
            "1:  pause\n"                                                                          \
            "    cmp 8(%r15), %ecx\n"                                                              \
            "    je 1b\n"                                                                          \
            "    ret\n");
#define SMP_BLOB_END __asm__("smp_blob_end: .previous\n");
#define SMP_END      "    out %al, $0x99\n    ud2\n"

extern const uint8_t smp_blob[], smp_blob_end[];

struct smp_thread {
    struct vcpu *vcpu;
    struct vcpu_exit exit;
    pthread_t thread;
    int result;
};

static struct vm *vm;
static uint8_t *ram;
static struct smp_thread cpus[SMP_MAX];
static uint32_t ncpus;

#define SMP_BARRIER 0x2000u /* arrived, number of vCPUs, round */

static inline uint64_t smp_entry(const uint8_t *label)
{
    return SMP_CODE + (uint64_t)(label - smp_blob);
}

static inline uint64_t *word(uint64_t gpa)
{
    return (uint64_t *)(void *)(ram + gpa);
}

static inline uint32_t *word32(uint64_t gpa)
{
    return (uint32_t *)(void *)(ram + gpa);
}

/* How many vCPUs meet at the barrier. */
static inline void smp_barrier(uint32_t n)
{
    memset(ram + SMP_BARRIER, 0, 16);
    *word32(SMP_BARRIER + 4) = n;
}

/* A 64-bit interrupt gate. */
static inline void smp_gate(unsigned vector, const uint8_t *label)
{
    uint64_t address = smp_entry(label), *gate = word(SMP_IDT + vector * 16);

    gate[0] = (address & 0xffff) | 8u << 16 | 0x8e00ull << 32 | (address >> 16 & 0xffff) << 48;
    gate[1] = address >> 32;
}

static inline void smp_begin(uint32_t n, uint32_t irqchip)
{
    static const char *const backends[] = {"interp", NULL};
    static const uint64_t gdt[] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = irqchip,
                               .max_vcpus = n};
    void *host;

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, SMP_MEMORY, VMM_MEM_RWX, &host), 0);
    ram = host;
    ncpus = n;
    memset(cpus, 0, sizeof(cpus));
    for (uint32_t i = 0; i < n; i++)
        ck_assert_int_eq(vcpu_create(vm, i, NULL, &cpus[i].vcpu), 0);
    memcpy(ram + SMP_CODE, smp_blob, (size_t)(smp_blob_end - smp_blob));
    memcpy(ram + SMP_GDT, gdt, sizeof(gdt));
    smp_barrier(n);
}

static inline void smp_end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
}

/* Makes vCPU i begin at a guest function. */
static inline void smp_prepare(uint32_t i, const uint8_t *label, uint64_t rdi, uint64_t rsi,
                               uint64_t rdx)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = smp_entry(label),
                               .rsp = SMP_STACK + (i + 1) * 0x4000,
                               .tables = SMP_TABLES};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR | VMM_REGS_DT};

    ck_assert_int_eq(vcpu_set_mode(cpus[i].vcpu, &setup), 0);
    ck_assert_int_eq(vcpu_get_regs(cpus[i].vcpu, &r), 0);
    r.gpr[VMM_RDI] = rdi;
    r.gpr[VMM_RSI] = rsi;
    r.gpr[VMM_RDX] = rdx;
    r.gpr[VMM_R15] = SMP_BARRIER;
    r.gdt = (struct vmm_dtable){.base = SMP_GDT, .limit = 23};
    r.idt = (struct vmm_dtable){.base = SMP_IDT, .limit = 0xfff};
    ck_assert_int_eq(vcpu_set_regs(cpus[i].vcpu, &r), 0);
}

static void *smp_thread_main(void *opaque)
{
    struct smp_thread *t = opaque;

    t->exit = (struct vcpu_exit){.size = sizeof(t->exit)};
    do
        t->result = vcpu_run(t->vcpu, &t->exit);
    while (!t->result && t->exit.reason == VMM_EXIT_INTERRUPTED);
    return NULL;
}

static inline void smp_go(uint32_t i)
{
    ck_assert_int_eq(pthread_create(&cpus[i].thread, NULL, smp_thread_main, &cpus[i]), 0);
}

static inline void smp_start(uint32_t i, const uint8_t *label, uint64_t rdi, uint64_t rsi,
                             uint64_t rdx)
{
    smp_prepare(i, label, rdi, rsi, rdx);
    smp_go(i);
}

/* Waits for the end of vCPU i's guest function: RAX. */
static inline uint64_t smp_join(uint32_t i)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR};

    pthread_join(cpus[i].thread, NULL);
    ck_assert_int_eq(cpus[i].result, 0);
    ck_assert_msg(cpus[i].exit.reason == VMM_EXIT_PIO && cpus[i].exit.u.pio.port == SMP_EXIT_PORT,
                  "vCPU %u: %s at %#llx", i, vmm_exit_name(cpus[i].exit.reason),
                  (unsigned long long)cpus[i].exit.rip);
    ck_assert_int_eq(vcpu_get_regs(cpus[i].vcpu, &r), 0);
    return r.gpr[VMM_RAX];
}

/* Runs a guest function on all vCPUs, RSI their number: true if all returned 0. */
static inline bool smp_run_all(const uint8_t *label, uint64_t rdi, uint64_t rdx)
{
    bool ok = true;

    for (uint32_t i = 0; i < ncpus; i++)
        smp_prepare(i, label, rdi, i, rdx);
    for (uint32_t i = 0; i < ncpus; i++)
        smp_go(i);
    for (uint32_t i = 0; i < ncpus; i++)
        ok = smp_join(i) == 0 && ok;
    return ok;
}

static inline int smp_main(Suite *s)
{
    SRunner *runner = srunner_create(s);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
