/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_run.c: vCPUs of the KVM engine: what a guest does is the same as on the software CPU,
 * also where the one hands over to the other in the middle. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvm_sound.h"
#include <vmm/vmm.h>

#define RAM      0x200000u
#define KERNEL   0x1000u
#define USER     0x4000u
#define GDT      0x6000u
#define TSS      0x7000u
#define IDT      0x8000u
#define KSTACK   0xb000u
#define USTACK   0xd000u
#define TABLES   0x10000u
#define LOG      0x20000u
#define LOG_NEXT 0x1fff8u /* where the next entry goes */
#define RESULTS  0x1f000u
#define DEVICE   0xd0000000u

#define STUB 16u /* bytes of an entry point */

#define GUEST(name, text)                                                                          \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.balign 16\n" #name ":\n" text "\n" #name "_end:\n."            \
            "popsection\n")

/*
 * The kernel: 33 entry points (vectors 0 to 31, and 80H), which enter vector, error code, RIP,
 * RFLAGS and CR2 in the log. After a fault the program goes on at R15. Then the target of SYSCALL,
 * which logs RCX and R11, and halts for RAX = 60.
 */
GUEST(kernel, ".set v, 0\n"
              ".rept 33\n"
              ".balign 16\n"
              ".if v != 8 && (v < 10 || v > 14) && v != 17 && v != 21\n"
              "push $0\n"
              ".endif\n"
              "push $v\n"
              "jmp 1f\n"
              ".set v, v + 1\n"
              ".endr\n"
              ".balign 16\n"
              "cmp $60, %eax\n"
              "je 3f\n"
              "mov 0x1fff8, %r14\n"
              "movq $100, (%r14)\n"
              "mov %rcx, 16(%r14)\n"
              "mov %r11, 24(%r14)\n"
              "addq $40, 0x1fff8\n"
              "sysretq\n"
              "3: hlt\n"
              "jmp 3b\n"
              "1: push %rax\n"
              "push %rbx\n"
              "mov 0x1fff8, %rax\n"
              "mov 16(%rsp), %rbx\n"
              "mov %rbx, (%rax)\n"
              "mov 24(%rsp), %rbx\n"
              "mov %rbx, 8(%rax)\n"
              "mov 32(%rsp), %rbx\n"
              "mov %rbx, 16(%rax)\n"
              "mov 48(%rsp), %rbx\n"
              "mov %rbx, 24(%rax)\n"
              "andq $~0x100, 48(%rsp)\n" /* no further single steps */
              "cmpq $14, 16(%rsp)\n"
              "jne 2f\n"
              "mov %cr2, %rbx\n"
              "mov %rbx, 32(%rax)\n"
              "2: addq $40, %rax\n"
              "mov %rax, 0x1fff8\n"
              "cmpq $32, 16(%rsp)\n"
              "je 4f\n"
              "cmpq $3, 16(%rsp)\n"
              "je 4f\n"
              "cmpq $1, 16(%rsp)\n"
              "je 4f\n"
              "mov %r15, 32(%rsp)\n"
              "4: pop %rbx\n"
              "pop %rax\n"
              "add $16, %rsp\n"
              "iretq\n");

#define FAULTS(insn) "lea 1f(%rip), %r15\n" insn "\n1:\n"

/* Each way from CPL 3 to CPL 0, and work between them. */
GUEST(program,
      "mov $0x1f000, %ebp\n"
      "mov $0xd0000000, %ebx\n" /* DEVICE */
      "mov $0x4048f5c3, %eax\n"
      "movd %eax, %xmm3\n"
      "mov $500, %esi\n"
      "5:\n"
      "addss %xmm3, %xmm4\n" FAULTS(
          "ud2") "mov $2000, %ecx\n"
                 "6: add %rcx, %rdi\n"
                 "loop 6b\n"
                 "syscall\n"
                 "add %rcx, %rdi\n"
                 "int $0x80\n"
                 "int3\n" FAULTS("xor %eax, %eax\n div %eax")
                     FAULTS("mov $0x1234567890, %rax\n mov %rcx, (%rax)")
                         FAULTS("mov $0x1234567890, %rax\n jmp *%rax")
                             FAULTS("mov $0x8000000000000000, %rax\n mov (%rax), %rax")
                                 FAULTS("in $0x80, %al") FAULTS("cli") FAULTS("hlt")
                                     FAULTS("mov %cr0, %rax") FAULTS("int $0x21") FAULTS(
                                         "mov $0x28, %eax\n mov %eax, %ds") "pushf\n"
                                                                            "orl $0x100, (%rsp)\n"
                                                                            "popf\n"
                                                                            "nop\n" /* then #DB */
                                                                            ".byte 0xf1\n"
                                                                            "pushf\n"
                                                                            "pop %rax\n"
                                                                            "mov %rax, (%rbp)\n"
                                                                            "mov %esi, (%rbx)\n"
                                                                            "add 4(%rbx), %rdi\n"
                                                                            "mov %edi, 8(%rbx)\n"
                                                                            "dec %esi\n"
                                                                            "cmp $497, %esi\n"
                                                                            "ja 5b\n"
                                                                            "movss %xmm4, 8(%rbp)\n"
                                                                            "mov $60, %eax\n"
                                                                            "syscall\n");

static struct vm *vm;
static struct vcpu *vcpu;
static uint8_t *ram;

struct accesses {
    uint64_t value[64];
    unsigned n;
};

static int on_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct accesses *a = opaque;

    *value = 0x1000 * ++a->n + offset + size;
    return VMM_IO_OK;
}

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct accesses *a = opaque;

    a->value[a->n++ % 64] = value + (offset << 32) + ((uint64_t)size << 48);
    return VMM_IO_OK;
}

static void create(const char *backend, uint32_t irqchip)
{
    const char *const backends[] = {backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = irqchip,
                               .irqchip_mode = irqchip ? VMM_IRQCHIP_MODE_USER : 0,
                               .error = &error};
    int err = vm_create(&config, &vm);

    ck_assert_msg(!err, "%s", error.text);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
}

static void destroy(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
}

static void put64(uint64_t at, uint64_t value)
{
    memcpy(ram + at, &value, sizeof(value));
}

static uint64_t get64(uint64_t at)
{
    uint64_t value;

    memcpy(&value, ram + at, sizeof(value));
    return value;
}

static void gate(unsigned vector, uint64_t address, uint64_t dpl)
{
    put64(IDT + 16 * vector,
          (address & 0xffff) | 8 << 16 | (0x8e | dpl << 5) << 40 | (address >> 16) << 48);
    put64(IDT + 16 * vector + 8, 0);
}

static void build_kernel(void)
{
    static const uint64_t gdt[] = {0,
                                   0x00af9b000000ffff, /* 08: code, CPL 0 */
                                   0x00cf93000000ffff,
                                   0x00cff3000000ffff, /* 1b: data, CPL 3 */
                                   0x00affb000000ffff, /* 23: code, CPL 3 */
                                   0x0000890000000067 | (uint64_t)TSS << 16,
                                   0};

    memcpy(ram + GDT, gdt, sizeof(gdt));
    memcpy(ram + KERNEL, kernel, (size_t)(kernel_end - kernel));
    put64(TSS + 4, KSTACK);
    ram[TSS + 102] = 0x68; /* no I/O bitmap */
    for (unsigned v = 0; v < 32; v++)
        gate(v, KERNEL + STUB * v, v == 3 ? 3 : 0);
    gate(0x80, KERNEL + STUB * 32, 3);
    put64(LOG_NEXT, LOG);
}

static struct vmm_segment segment(uint16_t selector, uint32_t ar)
{
    return (struct vmm_segment){.selector = selector, .limit = UINT32_MAX, .ar = ar};
}

/* CPL 3 at USER, with interrupts on. */
static void start_user(const uint8_t *code, size_t len)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_USER64,
                               .rip = USER,
                               .rsp = USTACK,
                               .tables = TABLES};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL};

    build_kernel();
    memcpy(ram + USER, code, len);
    ck_assert_int_eq(vm_mem_changed(vm, 0, RAM), 0);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &setup), 0);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
    r.rflags = 0x202;
    r.seg[VMM_CS] = segment(0x23, 0xa0fb);
    r.seg[VMM_SS] = r.seg[VMM_DS] = r.seg[VMM_ES] = segment(0x1b, 0xc0f3);
    r.seg[VMM_TR] = (struct vmm_segment){.selector = 0x28, .base = TSS, .limit = 0x67, .ar = 0x8b};
    r.gdt = (struct vmm_dtable){.base = GDT, .limit = 7 * 8 - 1};
    r.idt = (struct vmm_dtable){.base = IDT, .limit = 0xfff};
    r.efer |= 1; /* SCE */
    r.star = 8ull << 32 | 0x13ull << 48;
    r.lstar = KERNEL + STUB * 33;
    r.sfmask = 0x700;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
}
#define START_USER(code) start_user(code, (size_t)(code##_end - code))

static struct vmm_io_ops device = {.size = sizeof(device), .read = on_read, .write = on_write};

static struct vm_stats stats(void)
{
    struct vm_stats s = {.size = sizeof(s)};

    ck_assert_int_eq(vm_get_stats(vm, &s), 0);
    return s;
}

/* ---- user mode ---- */

struct end {
    struct vcpu_regs regs;
    struct accesses accesses;
    uint8_t log[0x2000], results[16];
    size_t len;
};

static void run_program(const char *backend, struct end *end)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};

    memset(end, 0, sizeof(*end));
    create(backend, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(mmio_register(vm, DEVICE, 0x1000, &device, &end->accesses, NULL), 0);
    START_USER(program);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    ck_assert_msg(ex.reason == VMM_EXIT_HLT, "%s: %s at %#llx, %#llx", backend,
                  vmm_exit_name(ex.reason), (unsigned long long)ex.rip,
                  (unsigned long long)ex.u.mmio.gpa);
    end->regs = (struct vcpu_regs){.size = sizeof(end->regs), .groups = VMM_REGS_ALL};
    ck_assert_int_eq(vcpu_get_regs(vcpu, &end->regs), 0);
    end->len = get64(LOG_NEXT) - LOG;
    ck_assert_uint_le(end->len, sizeof(end->log));
    memcpy(end->log, ram + LOG, end->len);
    memcpy(end->results, ram + RESULTS, sizeof(end->results));
    if (strcmp(backend, "kvm") == 0)
        ck_assert_uint_gt(stats().hw_exits, 0);
    destroy();
}

/* Prints the first difference of two logs, which says more than that there is one. */
static void compare_logs(const struct end *a, const struct end *b)
{
    static const char *const names[5] = {"vector", "error", "rip", "rflags", "cr2"};

    for (size_t i = 0; i < a->len && i < b->len; i += 8) {
        uint64_t x, y;

        memcpy(&x, a->log + i, 8);
        memcpy(&y, b->log + i, 8);
        ck_assert_msg(x == y, "entry %zu: %s is %#llx, not %#llx", i / 40, names[i / 8 % 5],
                      (unsigned long long)y, (unsigned long long)x);
    }
    ck_assert_uint_eq(a->len, b->len);
}

START_TEST(user_mode_is_the_same)
{
    static struct end wanted, found;

    run_program("interp", &wanted);
    run_program("kvm", &found);
    compare_logs(&wanted, &found);
    ck_assert_uint_gt(wanted.len, 40 * 15 * 3);
    ck_assert_mem_eq(wanted.results, found.results, sizeof(wanted.results));
    ck_assert_mem_eq(&wanted.accesses, &found.accesses, sizeof(wanted.accesses));
    ck_assert_mem_eq(wanted.regs.gpr, found.regs.gpr, sizeof(wanted.regs.gpr));
    ck_assert_uint_eq(wanted.regs.rip, found.regs.rip);
    ck_assert_uint_eq(wanted.regs.rflags, found.regs.rflags);
    ck_assert_uint_eq(wanted.regs.idt.limit, found.regs.idt.limit);
    ck_assert_uint_eq(wanted.regs.lstar, found.regs.lstar);
    ck_assert_uint_eq(wanted.regs.sfmask, found.regs.sfmask);
    ck_assert_uint_eq(wanted.regs.cr2, found.regs.cr2);
}
END_TEST

/* Behind the fence the program's view of the registers is the guest's, not KVM's. */
GUEST(spins, "1: incq 0x1f000\n jmp 1b");

START_TEST(user_state_is_the_guests)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL};

    create("kvm", VMM_IRQCHIP_NONE);
    START_USER(spins);
    for (int i = 0; i < 20; i++) {
        ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 3000000), 0);
        ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
        ck_assert_str_eq(vmm_exit_name(ex.reason), "BUDGET");
        ck_assert_int_eq(ex.cpl, 3);
        ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
        ck_assert_uint_eq(r.idt.limit, 0xfff);
        ck_assert_uint_eq(r.lstar, KERNEL + STUB * 33);
        ck_assert_uint_eq(r.sfmask, 0x700);
        r.sfmask = 0x700;
        r.gpr[VMM_R9] = 77;
        ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
    }
    ck_assert_uint_gt(get64(RESULTS), 0);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
    ck_assert_uint_eq(r.gpr[VMM_R9], 77);
    destroy();
}
END_TEST

/* ---- interrupts at CPL 3 ---- */

GUEST(waits_for_interrupts, "1: incq 0x1f008\n"
                            "cmpq $50, 0x1f000\n"
                            "jb 1b\n"
                            "mov $60, %eax\n"
                            "syscall\n");
GUEST(interrupt_handler, "push %rax\n"
                         "push %rcx\n"
                         "push %rdx\n"
                         "incq 0x1f000\n"
                         "mov $0x80b, %ecx\n" /* EOI of the x2APIC */
                         "xor %eax, %eax\n"
                         "xor %edx, %edx\n"
                         "wrmsr\n"
                         "pop %rdx\n"
                         "pop %rcx\n"
                         "pop %rax\n"
                         "iretq\n");

static void *send_messages(void *opaque)
{
    for (uint64_t n = 0; n < 50; n++) {
        ck_assert_int_ge(vm_irq_msi(vm, 0xfee00000, 0x50), 0);
        while (__atomic_load_n((uint64_t *)(void *)(ram + RESULTS), __ATOMIC_SEQ_CST) <= n)
            sched_yield();
    }
    vcpu_kick(vcpu);
    return opaque;
}

START_TEST(interrupts_in_user_mode)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};
    pthread_t thread;

    create("kvm", VMM_IRQCHIP_PC);
    START_USER(waits_for_interrupts);
    memcpy(ram + 0xe000, interrupt_handler, (size_t)(interrupt_handler_end - interrupt_handler));
    gate(0x50, 0xe000, 0);
    ck_assert_int_eq(vm_mem_changed(vm, 0, RAM), 0);
    ck_assert_int_eq(vcpu_set_msr(vcpu, 0x1b, 0xfee00d00), 0); /* x2APIC */
    ck_assert_int_eq(vcpu_set_msr(vcpu, 0x80f, 0x1ff), 0);     /* enabled by software too */
    ck_assert_int_eq(pthread_create(&thread, NULL, send_messages, NULL), 0);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 50000000000), 0);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(get64(RESULTS), 50);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "INTERRUPTED");
    destroy();
}
END_TEST

/* ---- accesses ---- */

GUEST(port_strings, "mov $0x1f000, %edi\n"
                    "mov $5, %ecx\n"
                    "mov $0x60, %edx\n"
                    "rep insb\n"
                    "mov $0x1f000, %esi\n"
                    "mov $5, %ecx\n"
                    "rep outsb\n"
                    "hlt\n");

static void start_kernel(const uint8_t *code, size_t len)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = USER,
                               .rsp = USTACK,
                               .tables = TABLES};

    memcpy(ram + USER, code, len);
    ck_assert_int_eq(vm_mem_changed(vm, 0, RAM), 0);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &setup), 0);
}
#define START_KERNEL(code) start_kernel(code, (size_t)(code##_end - code))

/* Each item of a string of port accesses can go to the program, whatever KVM asks for at once. */
START_TEST(items_of_strings_exit_one_by_one)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};

    kvm_take_as_sound();
    create("kvm", VMM_IRQCHIP_NONE);
    START_KERNEL(port_strings);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
        ck_assert_str_eq(vmm_exit_name(ex.reason), "PIO");
        ck_assert_uint_eq(ex.u.pio.port, 0x60);
        ck_assert_uint_eq(ex.u.pio.len, 1);
        ck_assert_uint_eq(ex.u.pio.access, i < 5 ? VMM_ACCESS_READ : VMM_ACCESS_WRITE);
        if (i >= 5)
            ck_assert_uint_eq(ex.u.pio.data, 0x40 + i - 5);
        ex.u.pio.data = 0x40 + i;
        /* A kick between the exit and its answer loses nothing. */
        if (i % 2) {
            vcpu_kick(vcpu);
            ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
            ck_assert_str_eq(vmm_exit_name(ex.reason), "INTERRUPTED");
        }
    }
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "HLT");
    ck_assert_mem_eq(ram + RESULTS, "\x40\x41\x42\x43\x44", 5);
    destroy();
}
END_TEST

/* ---- repairs ---- */

GUEST(counts_bits, "mov $1000, %ecx\n"
                   "1: popcnt %rcx, %rax\n"
                   "add %rax, %rdi\n"
                   "movd %ecx, %xmm1\n"
                   "paddd %xmm1, %xmm2\n"
                   "loop 1b\n"
                   "movd %xmm2, %esi\n"
                   "hlt\n");

/* What KVM cannot execute, the software CPU does, and not each of them for itself. */
START_TEST(repairs_add_up)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR};
    uint64_t bits = 0;

    kvm_take_as_sound();
    create("kvm", VMM_IRQCHIP_NONE);
    START_KERNEL(counts_bits);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "HLT");
    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
    for (unsigned i = 1; i <= 1000; i++)
        bits += (unsigned)__builtin_popcount(i);
    ck_assert_uint_eq(r.gpr[VMM_RDI], bits);
    ck_assert_uint_eq(r.gpr[VMM_RSI], 500500);
    ck_assert_uint_gt(stats().hw_exits, 0);
    ck_assert_uint_le(stats().repairs, 100);
    destroy();
}
END_TEST

/* ---- vCPUs come and go ---- */

/* KVM keeps its vCPUs for ever: the next one of the same number finds nothing of the last. */
START_TEST(a_number_can_be_used_again)
{
    struct vcpu_exit ex = {.size = sizeof(ex)};
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_GPR};

    kvm_take_as_sound();
    create("kvm", VMM_IRQCHIP_NONE);
    for (int i = 0; i < 5; i++) {
        START_KERNEL(port_strings);
        ck_assert_int_eq(vcpu_run(vcpu, &ex), 0); /* leaves an access that nobody answers */
        ck_assert_str_eq(vmm_exit_name(ex.reason), "PIO");
        ck_assert_int_eq(vcpu_destroy(vcpu), 0);
        ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
        ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
        ck_assert_uint_eq(r.rip, 0xfff0);
        START_KERNEL(counts_bits);
        memset(&ex, 0, sizeof(ex));
        ex.size = sizeof(ex);
        ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
        ck_assert_str_eq(vmm_exit_name(ex.reason), "HLT");
        ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
        ck_assert_uint_eq(r.gpr[VMM_RSI], 500500);
    }
    destroy();
}
END_TEST

int main(void)
{
    const struct kvm_host *host = kvm_host();

    if (host->result) {
        printf("skipped: %s\n", host->reason);
        return 77;
    }
    Suite *s = suite_create("kvm_run");
    TCase *tc = tcase_create("kvm_run");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, user_mode_is_the_same);
    tcase_add_test(tc, user_state_is_the_guests);
    tcase_add_test(tc, interrupts_in_user_mode);
    tcase_add_test(tc, items_of_strings_exit_one_by_one);
    tcase_add_test(tc, repairs_add_up);
    tcase_add_test(tc, a_number_can_be_used_again);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
