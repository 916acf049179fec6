/* SPDX-License-Identifier: BSD-2-Clause */
/* test_smp_irq.c: interrupts between running vCPUs, their timers, a device's line, INIT and SIPI.
 */
#include <sched.h>
#include <stdatomic.h>

#include "smp_vm.h"

/*
 * Guest functions as in smp_vm.h; all have interrupts off until they say STI. Each vCPU counts in
 * its own cells, R14 = COUNTS + id * 64: handlers count at 0 (fixed), 8 (NMI), 16 (timer), 24
 * (device).
 */
#define COUNTS 0x2800u
#define EPOCH  0x2f00u /* the page that PAGE shows at least */
#define DEVICE 0xd0000000u
#define PAGE   0x400000u
#define FRAMES 0x500000u
#define TABLE  0x40000u

#define V_FIXED  0x40
#define V_TIMER  0x41
#define V_DEVICE 0x42
#define V_FLUSH  0x43

SMP_BLOB_BEGIN
__asm__("failed:\n"
        "    mov $1, %eax\n" SMP_END
        /* R14, local APIC on (x2APIC mode), spurious vector 0xff. RSI: id. */
        "set_up:\n"
        "    mov %rsi, %r14\n"
        "    shl $6, %r14\n"
        "    add $0x2800, %r14\n"
        "    push %rdx\n"
        "    mov $0x1b, %ecx\n"
        "    rdmsr\n"
        "    or $0xc00, %eax\n"
        "    wrmsr\n"
        "    mov $0x80f, %ecx\n"
        "    mov $0x1ff, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    pop %rdx\n"
        "    call barrier\n"
        "    ret\n"
        /* ICR = EDX:EAX. */
        "send:\n"
        "    mov $0x830, %ecx\n"
        "    wrmsr\n"
        "    ret\n"
        "eoi:\n"
        "    push %rax\n"
        "    push %rcx\n"
        "    push %rdx\n"
        "    mov $0x80b, %ecx\n"
        "    xor %eax, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    pop %rdx\n"
        "    pop %rcx\n"
        "    pop %rax\n"
        "    ret\n"
        "on_fixed:\n"
        "    lock incq (%r14)\n"
        "    call eoi\n"
        "    iretq\n"
        "on_nmi:\n"
        "    lock incq 8(%r14)\n"
        "    iretq\n"
        "on_timer:\n"
        "    lock incq 16(%r14)\n"
        "    call eoi\n"
        "    iretq\n"
        /* The device lowers its line when its register is read. */
        "on_device:\n"
        "    push %rax\n"
        "    mov $0xd0000000, %eax\n"
        "    mov (%rax), %eax\n"
        "    lock add %rax, 24(%r14)\n"
        "    call eoi\n"
        "    pop %rax\n"
        "    iretq\n"
        "on_flush:\n"
        "    invlpg 0x400000\n"
        "    lock incq (%r14)\n"
        "    call eoi\n"
        "    iretq\n");
/* Sends RDX times what RDI says (ICR, destination in the upper half; bit 31: an NMI) and waits each
 * time until the counters of the vCPUs below R8 have been counted: [COUNTS+64] of vCPU 1. */
__asm__("ipi_send:\n"
        "    call set_up\n"
        "    mov %rdx, %rbp\n"
        "    xor %ebx, %ebx\n"
        "9:  mov %edi, %eax\n"
        "    and $0x7fffffff, %eax\n"
        "    mov %rdi, %rdx\n"
        "    shr $32, %rdx\n"
        "    call send\n"
        "    inc %rbx\n"
        "    mov $0x2840, %esi\n"
        "    test %edi, %edi\n"
        "    jns 8f\n"
        "    mov $0x2848, %esi\n"
        "8:  pause\n"
        "    cmp %rbx, (%rsi)\n"
        "    jb 8b\n"
        "    ja failed\n"
        "    cmp %rbp, %rbx\n"
        "    jb 9b\n"
        "    movb $1, 0x2700\n"
        "    mov $0x40040, %eax\n" /* one more, fixed, to all but us: the end */
        "    or $0xc0000, %eax\n"
        "    xor %edx, %edx\n"
        "    call send\n"
        "    xor %eax, %eax\n" SMP_END
        /* Takes interrupts in a loop, or halted (RDI), until [0x2700]. */
        "ipi_take:\n"
        "    call set_up\n"
        "9:  cmpb $0, 0x2700\n"
        "    jne 7f\n"
        "    test %rdi, %rdi\n"
        "    jz 8f\n"
        "    sti\n"
        "    hlt\n"
        "    cli\n"
        "    jmp 9b\n"
        "8:  sti\n"
        "    pause\n"
        "    pause\n"
        "    cli\n"
        "    jmp 9b\n"
        "7:  xor %eax, %eax\n" SMP_END
        /* To itself: the interrupt is there after the STI. */
        "ipi_self:\n"
        "    call set_up\n"
        "    mov %rdx, %rbp\n"
        "    xor %ebx, %ebx\n"
        "9:  mov $0x44040, %eax\n"
        "    xor %edx, %edx\n"
        "    call send\n"
        "    mov $0x83f, %ecx\n" /* SELF IPI, the same vector: one while it is pending */
        "    mov $0x40, %eax\n"
        "    wrmsr\n"
        "    inc %rbx\n"
        "    sti\n"
        "    nop\n"
        "    cli\n"
        "    cmp %rbx, (%r14)\n"
        "    jne failed\n"
        "    cmp %rbp, %rbx\n"
        "    jb 9b\n"
        "    xor %eax, %eax\n" SMP_END
        /* All send to all, RDX times, each waiting only for room: the counters of everybody are at
         * least one per sender by then. */
        "ipi_storm:\n"
        "    call set_up\n"
        "    mov %rdx, %rbp\n"
        "    sti\n"
        "9:  mov $0x84040, %eax\n" /* all including self */
        "    xor %edx, %edx\n"
        "    call send\n"
        "    dec %rbp\n"
        "    jnz 9b\n"
        "    mov (%r14), %rax\n"
        "    test %rax, %rax\n"
        "    jz failed\n"
        "    cli\n"
        "    call barrier\n" /* nobody leaves while others send */
        "    xor %eax, %eax\n" SMP_END);
/* RDX expiries of the own timer: EDI 0 one-shot with HLT, 1 periodic with HLT, 2 TSC deadline with
 * HLT, 3 one-shot in a loop. */
__asm__("timers:\n"
        "    call set_up\n"
        "    mov %rdx, %rbp\n"
        "    xor %ebx, %ebx\n"
        "    mov $0x83e, %ecx\n" /* divide by 1 */
        "    mov $0xb, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    mov $0x832, %ecx\n" /* LVT */
        "    mov $0x41, %eax\n"
        "    cmp $1, %edi\n"
        "    jb 8f\n"
        "    cmp $2, %edi\n"
        "    ja 8f\n"
        "    mov %edi, %edx\n"
        "    shl $17, %edx\n"
        "    or %edx, %eax\n"
        "8:  xor %edx, %edx\n"
        "    wrmsr\n"
        "    cmp $1, %edi\n"
        "    jne 9f\n"
        "    mov $0x838, %ecx\n"
        "    mov $150000, %eax\n"
        "    wrmsr\n"
        "9:  inc %rbx\n"
        "    cmp $1, %edi\n"
        "    je 7f\n"
        "    cmp $2, %edi\n"
        "    je 6f\n"
        "    mov $0x838, %ecx\n"
        "    mov $100000, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    jmp 7f\n"
        "6:  rdtsc\n"
        "    add $200000, %eax\n"
        "    adc $0, %edx\n"
        "    mov $0x6e0, %ecx\n"
        "    wrmsr\n"
        "7:  cli\n"
        "    cmp %rbx, 16(%r14)\n"
        "    jae 5f\n"
        "    cmp $3, %edi\n"
        "    je 4f\n"
        "    sti\n"
        "    hlt\n"
        "    jmp 7b\n"
        "4:  sti\n"
        "    pause\n"
        "    jmp 7b\n"
        "5:  cmp %rbp, %rbx\n"
        "    jb 9b\n"
        "    mov $0x832, %ecx\n"
        "    mov $0x10041, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    xor %eax, %eax\n" SMP_END);
/* Maps frame n = 1 ... RDX at PAGE, one after the other (eight in turn), and shoots the other's TLB
 * entry down. */
__asm__("shoot:\n"
        "    call set_up\n"
        "    mov %rdx, %rbp\n"
        "    xor %ebx, %ebx\n"
        "9:  inc %rbx\n"
        "    mov %ebx, %eax\n"
        "    and $7, %eax\n"
        "    shl $12, %eax\n"
        "    add $0x500003, %eax\n"
        "    mov %rax, 0x40000\n"
        "    invlpg 0x400000\n"
        "    mov $0xc4043, %eax\n" /* all but us */
        "    xor %edx, %edx\n"
        "    call send\n"
        "8:  pause\n"
        "    cmp %rbx, 0x2840\n"
        "    jb 8b\n"
        "    mov %rbx, 0x2f00\n"
        "    cmp %rbp, %rbx\n"
        "    jb 9b\n"
        "    movb $1, 0x2700\n"
        "    xor %eax, %eax\n" SMP_END
        /* What PAGE shows is no older than what had been shot down before, and at most one newer
         * than what was at the end. */
        "shot:\n"
        "    call set_up\n"
        "    sti\n"
        "9:  mov 0x2f00, %rbx\n"
        "    mov 0x400000, %rax\n"
        "    mov 0x2f00, %rcx\n"
        "    sub %rbx, %rcx\n"
        "    inc %rcx\n"
        "    sub %rbx, %rax\n"
        "    and $7, %eax\n"
        "    cmp $7, %rcx\n"
        "    jae 8f\n"
        "    cmp %rcx, %rax\n"
        "    ja failed\n"
        "8:  cmpb $0, 0x2700\n"
        "    je 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* Takes the device's interrupts, halted (RDI) or not, until [0x2700]; vCPU 0 sets pin 20 up: level,
 * lowest priority, logical destination 3. */
__asm__("device_take:\n"
        "    call set_up\n"
        "    test %rsi, %rsi\n"
        "    jnz 9f\n"
        "    mov $0xfec00000, %eax\n"
        "    movl $0x39, (%rax)\n"
        "    movl $0x03000000, 0x10(%rax)\n"
        "    movl $0x38, (%rax)\n"
        "    movl $0x8942, 0x10(%rax)\n"
        "    movb $1, 0x2701\n"
        "9:  cmpb $0, 0x2700\n"
        "    jne 7f\n"
        "    test %rdi, %rdi\n"
        "    jz 8f\n"
        "    sti\n"
        "    hlt\n"
        "    cli\n"
        "    jmp 9b\n"
        "8:  sti\n"
        "    pause\n"
        "    cli\n"
        "    jmp 9b\n"
        "7:  xor %eax, %eax\n" SMP_END);
/* RDX times: starts vCPU 1, which counts at [0x2600] and then halts, spins or changes code. */
__asm__("starter:\n"
        "    call set_up_alone\n"
        "    mov %rdx, %rbp\n"
        "    xor %ebx, %ebx\n"
        "9:  inc %rbx\n"
        "    mov $0x4500, %eax\n" /* INIT */
        "    mov $1, %edx\n"
        "    call send\n"
        "    mov $0x4603, %eax\n" /* SIPI, twice as systems do */
        "    mov $1, %edx\n"
        "    call send\n"
        "    mov $0x4603, %eax\n"
        "    mov $1, %edx\n"
        "    call send\n"
        "8:  pause\n"
        "    mov %bl, 0x3fff\n" /* in the page of its code */
        "    cmp %ebx, 0x2600\n"
        "    jb 8b\n"
        "    ja failed\n"
        "    cmp %rbp, %rbx\n"
        "    jb 9b\n"
        "    movb $1, 0x2700\n"
        "    xor %eax, %eax\n" SMP_END "set_up_alone:\n"
        "    push %rdx\n"
        "    mov $0x1b, %ecx\n"
        "    rdmsr\n"
        "    or $0xc00, %eax\n"
        "    wrmsr\n"
        "    mov $0x80f, %ecx\n"
        "    mov $0x1ff, %eax\n"
        "    xor %edx, %edx\n"
        "    wrmsr\n"
        "    pop %rdx\n"
        "    ret\n");
SMP_BLOB_END

#define LABEL(name) extern const uint8_t name[];
LABEL(on_fixed)
LABEL(on_nmi)
LABEL(on_timer)
LABEL(on_device)
LABEL(on_flush)
LABEL(ipi_send)
LABEL(ipi_take)
LABEL(ipi_self)
LABEL(ipi_storm)
LABEL(timers)
LABEL(shoot)
LABEL(shot)
LABEL(starter)
LABEL(device_take)

static void begin(uint32_t n)
{
    smp_begin(n, VMM_IRQCHIP_PC);
    smp_gate(2, on_nmi);
    smp_gate(V_FIXED, on_fixed);
    smp_gate(V_TIMER, on_timer);
    smp_gate(V_DEVICE, on_device);
    smp_gate(V_FLUSH, on_flush);
}

static uint64_t counted(uint32_t cpu, unsigned what)
{
    return word(COUNTS + cpu * 64)[what];
}

/* x2APIC ICR values; logical ids: cluster 0, bit of the vCPU. */
static const struct ipi {
    const char *name;
    uint64_t icr;
    bool nmi;
} ipis[] = {
    {"physical", 1ull << 32 | 0x4000 | V_FIXED, false},
    {"logical", 2ull << 32 | 0x4800 | V_FIXED, false},
    {"all but self", 0xc4000 | V_FIXED, false},
    {"NMI, physical", 1ull << 32 | 0x4400, true},
    {"NMI, all but self", 0xc4400, true},
};

START_TEST(ipis_of_all_kinds)
{
    for (unsigned i = 0; i < sizeof(ipis) / sizeof(ipis[0]); i++)
        for (uint64_t halted = 0; halted < 2; halted++) {
            begin(2); /* vCPU 1 may end before the last IPI comes: it must not wait in the next case
                       */
            smp_start(1, ipi_take, halted, 1, 0);
            smp_start(0, ipi_send, ipis[i].icr | (uint64_t)ipis[i].nmi << 31, 0, 100);
            ck_assert_msg(smp_join(0) == 0, "%s", ipis[i].name);
            ck_assert_msg(smp_join(1) == 0, "%s", ipis[i].name);
            ck_assert_uint_ge(counted(1, ipis[i].nmi), 100);
            smp_end();
        }
}
END_TEST

START_TEST(ipis_to_self)
{
    begin(2);
    ck_assert(smp_run_all(ipi_self, 0, 1000));
    ck_assert_uint_eq(counted(0, 0), 1000);
    ck_assert_uint_eq(counted(1, 0), 1000);
    smp_end();
}
END_TEST

START_TEST(ipis_all_to_all)
{
    begin(4);
    ck_assert(smp_run_all(ipi_storm, 0, 2000));
    smp_end();
}
END_TEST

START_TEST(each_has_its_timer)
{
    begin(4);
    for (uint32_t i = 0; i < 4; i++)
        smp_prepare(i, timers, i, i, 100);
    for (uint32_t i = 0; i < 4; i++)
        smp_go(i);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_uint_eq(smp_join(i), 0);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_uint_ge(counted(i, 2), 100);
    /* All halted on the same kind. */
    for (uint64_t kind = 0; kind < 3; kind++) {
        memset(ram + COUNTS, 0, 0x100);
        ck_assert(smp_run_all(timers, kind, 50));
    }
    smp_end();
}
END_TEST

START_TEST(tlb_shootdown)
{
    begin(2);
    smp_prepare(0, shoot, 0, 0, 300);
    smp_prepare(1, shot, 0, 1, 0);
    for (uint64_t i = 0; i < 8; i++)
        *word(FRAMES + i * 4096) = i;
    *word(TABLE) = FRAMES | 3;
    *word(SMP_TABLES + 0x2000 + (PAGE >> 21) * 8) = TABLE | 3;
    smp_go(1);
    smp_go(0);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_msg(smp_join(1) == 0, "a stale translation");
    smp_end();
}
END_TEST

/* ---- a device with a level-triggered line ---- */

static _Atomic uint32_t raised;

static int device_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)offset, (void)size;
    *value = atomic_exchange(&raised, 0);
    vm_irq_set(vm, 20, 0);
    return VMM_IO_OK;
}

/* Through the IOAPIC, to both in lowest priority mode, while they run and halt. */
START_TEST(level_interrupts_of_a_device)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "device", .read = device_read};

    begin(2);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &ops, NULL, NULL), 0);
    smp_start(0, device_take, 0, 0, 0);
    smp_start(1, device_take, 1, 1, 0);
    while (!atomic_load((_Atomic uint8_t *)(ram + 0x2701))) /* it has set the pin up */
        sched_yield();
    for (uint64_t n = 1; n <= 200; n++) {
        atomic_store(&raised, 1);
        vm_irq_set(vm, 20, 1);
        while (atomic_load((_Atomic uint64_t *)(word(COUNTS) + 3)) +
                   atomic_load((_Atomic uint64_t *)(word(COUNTS + 64) + 3)) <
               n)
            sched_yield();
    }
    *(_Atomic uint8_t *)(ram + 0x2700) = 1;
    vm_irq_msi(vm, 0xfee00000, V_FIXED); /* ends the HLT of each */
    vm_irq_msi(vm, 0xfee01000, V_FIXED);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_uint_eq(smp_join(1), 0);
    ck_assert_uint_eq(counted(0, 3) + counted(1, 3), 200);
    smp_end();
}
END_TEST

/* ---- INIT and SIPI ---- */

/* At 3000:0: lock inc dword [0x2600], and then what may go on when the next INIT comes. */
#define AP_COUNTS 0x31, 0xc0, 0x8e, 0xd8, 0xf0, 0x66, 0xff, 0x06, 0x00, 0x26

static void start_again_and_again(const void *code, size_t len)
{
    begin(2);
    memcpy(ram + 0x3000, code, len);
    smp_prepare(0, starter, 0, 0, 100);
    smp_go(1); /* waits for SIPI */
    smp_go(0);
    /* Meanwhile memory is mapped and unmapped, in front of both. */
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(vm_mem_alloc(vm, 0x2000000, 0x1000, VMM_MEM_RWX, NULL), 0);
        ck_assert_int_eq(vm_mem_unmap(vm, 0x2000000), 0);
    }
    ck_assert_uint_eq(smp_join(0), 0);
    vm_stop(vm);
    pthread_join(cpus[1].thread, NULL);
    ck_assert_uint_eq(cpus[1].exit.reason, VMM_EXIT_STOPPED);
    smp_end();
}

START_TEST(init_of_a_halted_cpu)
{
    static const uint8_t code[] = {AP_COUNTS, 0xf4};

    start_again_and_again(code, sizeof(code));
}
END_TEST

START_TEST(init_of_a_running_cpu)
{
    static const uint8_t code[] = {AP_COUNTS, 0xeb, 0xfe};

    start_again_and_again(code, sizeof(code));
}
END_TEST

START_TEST(init_of_a_cpu_that_changes_code)
{
    /* inc byte [0x3fff]; inc byte [0x3800]; jmp back */
    static const uint8_t code[] = {AP_COUNTS, 0xfe, 0x06, 0xff, 0x3f, 0xfe,
                                   0x06,      0x00, 0x38, 0xeb, 0xf6};

    start_again_and_again(code, sizeof(code));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("smp_irq");
    TCase *tc = tcase_create("smp_irq");

    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, ipis_of_all_kinds);
    tcase_add_test(tc, ipis_to_self);
    tcase_add_test(tc, ipis_all_to_all);
    tcase_add_test(tc, each_has_its_timer);
    tcase_add_test(tc, tlb_shootdown);
    tcase_add_test(tc, level_interrupts_of_a_device);
    tcase_add_test(tc, init_of_a_halted_cpu);
    tcase_add_test(tc, init_of_a_running_cpu);
    tcase_add_test(tc, init_of_a_cpu_that_changes_code);
    return smp_main(s);
}
