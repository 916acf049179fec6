/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_irq.c: interrupt controllers in the host's kernel: descriptors, routes, EOI, local APIC
 * state, and the software CPU beside them. */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kvm_vm.h"

#include <vmm/irq.h>

/* ---- guests ---- */

#define HANDLER 0x2000u
#define GDT     0x3000u
#define IDT     0x4000u
#define COUNT   0x5000u /* interrupts taken */
#define LOOPS   0x5008u /* rounds of the main loop, or wake-ups */
#define READY   0x5010u

#define GUEST(name, code)                                                                          \
    extern const char guest_##name[], guest_##name##_end[];                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            "guest_" #name ":\n" code "guest_" #name "_end:\n"                                     \
            ".popsection\n")

#define APIC_ON                                                                                    \
    "mov $0xfee00000, %ebp\n"                                                                      \
    "movl $0x1ff, 0xf0(%rbp)\n"                                                                    \
    "movl $1, 0x5010\n"

GUEST(halted, APIC_ON "1: sti\n"
                      "hlt\n"
                      "cli\n"
                      "incl 0x5008\n"
                      "jmp 1b\n");
GUEST(spinning, APIC_ON "sti\n"
                        "1: incl 0x5008\n"
                        "jmp 1b\n");
GUEST(reads, APIC_ON "mov 0x20(%rbp), %eax\n"
                     "mov 0xf0(%rbp), %ebx\n"
                     "movl $0x20, 0x80(%rbp)\n"
                     "mov 0x80(%rbp), %ecx\n"
                     "mov %cr8, %rdx\n"
                     "mov $5, %esi\n"
                     "mov %rsi, %cr8\n"
                     "mov 0x80(%rbp), %esi\n"
                     "movzbl 0xf0(%rbp), %edi\n"
                     "nop\n"
                     "out %al, $0xf4\n");
/* Sends itself an interrupt by its ICR, with interrupts off, and lets it come. */
GUEST(self, APIC_ON "movl $0x44041, 0x300(%rbp)\n"
                    "mov 0x220(%rbp), %eax\n" /* IRR */
                    "sti\n"
                    "1: cmpl $0, 0x5000\n"
                    "je 1b\n"
                    "cli\n"
                    "mov 0x220(%rbp), %ebx\n"
                    "out %al, $0xf4\n");
GUEST(x2apic, "mov $0x1b, %ecx\n"
              "rdmsr\n"
              "or $0xc00, %eax\n"
              "wrmsr\n"
              "mov $0x80f, %ecx\n" /* SVR */
              "mov $0x1ff, %eax\n"
              "xor %edx, %edx\n"
              "wrmsr\n"
              "mov $0x83f, %ecx\n" /* self IPI */
              "mov $0x41, %eax\n"
              "wrmsr\n"
              "mov $0xfee00000, %ebp\n"
              "sti\n"
              "1: cmpl $0, 0x5000\n"
              "je 1b\n"
              "cli\n"
              "mov $0x802, %ecx\n"
              "rdmsr\n"
              "mov $0x80b, %ecx\n"
              "xor %eax, %eax\n"
              "wrmsr\n"
              "out %al, $0xf4\n");
GUEST(on_mmio_eoi, "incl 0x5000\n"
                   "movl $0, 0xb0(%rbp)\n"
                   "iretq\n");
GUEST(on_no_eoi, "incl 0x5000\n"
                 "iretq\n");

static uint8_t *ram;

#define RAM32(address) (*(volatile uint32_t *)(void *)(ram + (address)))

static void place(uint32_t address, const char *begin, const char *end)
{
    memcpy(ram + address, begin, (size_t)(end - begin));
}

static void put64(uint32_t address, uint64_t value)
{
    memcpy(ram + address, &value, sizeof(value));
}

static void gate(unsigned vector)
{
    put64(IDT + vector * 16, (HANDLER & 0xffff) | 8u << 16 | 0x8e00ull << 32);
    put64(IDT + vector * 16 + 8, 0);
}

static void load_guest(const char *begin, const char *end, const char *handler,
                       const char *handler_end)
{
    memset(ram + COUNT, 0, 0x100);
    load_on(vcpu, begin, (size_t)(end - begin));
    place(HANDLER, handler, handler_end);
    put64(GDT, 0);
    put64(GDT + 8, 0x00af9b000000ffff);
    put64(GDT + 16, 0x00cf93000000ffff);
    gate(0x41);
    ck_assert_int_eq(vm_mem_changed(vm, 0, RAM), 0);

    struct vcpu_regs r = get_regs();
    r.groups = VMM_REGS_DT;
    r.gdt.base = GDT;
    r.gdt.limit = 0x17;
    r.idt.base = IDT;
    r.idt.limit = 0xfff;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
}
#define GUEST_LOAD(name, handler)                                                                  \
    load_guest(guest_##name, guest_##name##_end, guest_##handler, guest_##handler##_end)

/* ---- VMs ---- */

static const uint32_t modes[] = {VMM_IRQCHIP_MODE_SPLIT, VMM_IRQCHIP_MODE_KERNEL};
/* Loop index: the mode; and whether the software CPU does CPL 0 on hosts where KVM is bad at it. */
#define NTESTS 4

static uint32_t mode_of(int i)
{
    return modes[i & 1];
}

static int create(uint32_t mode, uint32_t flags, struct vmm_error *error)
{
    static const char *const backends[] = {"kvm", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = VMM_IRQCHIP_PC,
                               .irqchip_mode = mode,
                               .error = error};

    error->size = sizeof(*error);
    return vm_create(&config, &vm);
}

/* The guests here do without what the host's local APICs may lack. */
static void force(int i)
{
    struct kvm_host *h = host();

    h->irqchip_split_ok = h->has & KVM_HAS_SPLIT_IRQCHIP;
    h->irqchip_kernel_ok = h->has & KVM_HAS_IRQCHIP;
    if (i & 2)
        h->bad &= ~(KVM_BAD_EMULATION | KVM_BAD_USER_EVENTS);
}

static void begin(int i)
{
    struct vmm_error error;

    force(i);
    int err = create(mode_of(i), 0, &error);
    ck_assert_msg(!err, "%s", error.text);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
}

static pthread_t thread;

static void *run_main(void *unused)
{
    (void)unused;
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return NULL;
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 1000000};

    nanosleep(&t, NULL);
}

#define WAIT(condition)                                                                            \
    do                                                                                             \
        nap();                                                                                     \
    while (!(condition))

static void go(void)
{
    pthread_create(&thread, NULL, run_main, NULL);
    WAIT(RAM32(READY));
}

static void stop(void)
{
    vcpu_kick(vcpu);
    pthread_join(thread, NULL);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "INTERRUPTED");
}

static int event(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

static void signal_event(int fd)
{
    const uint64_t one = 1;

    ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

static bool taken(int fd)
{
    uint64_t n;

    return read(fd, &n, sizeof(n)) == sizeof(n);
}

#define MESSAGE 0xfee00000u, 0x41u

/* ---- where they are ---- */

START_TEST(the_mode_is_told)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    begin(_i);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(caps.irqchip_mode, mode_of(_i));
    kvm_end();
}
END_TEST

START_TEST(automatic_choice)
{
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vmm_error error;
    bool events = host()->bad & KVM_BAD_USER_EVENTS;

    force(_i & 1);
    ck_assert_int_eq(create(VMM_IRQCHIP_MODE_AUTO, 0, &error), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(caps.irqchip_mode, events ? VMM_IRQCHIP_MODE_USER : VMM_IRQCHIP_MODE_SPLIT);
    kvm_end();

    host()->bad &= ~KVM_BAD_USER_EVENTS;
    ck_assert_int_eq(create(VMM_IRQCHIP_MODE_AUTO, 0, &error), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(caps.irqchip_mode, VMM_IRQCHIP_MODE_SPLIT);
    kvm_end();

    host()->irqchip_split_ok = host()->irqchip_kernel_ok = false;
    ck_assert_int_eq(create(VMM_IRQCHIP_MODE_AUTO, 0, &error), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(caps.irqchip_mode, VMM_IRQCHIP_MODE_USER);
    kvm_end();
    ck_assert_int_eq(create(mode_of(_i), 0, &error), VMM_E_UNSUPPORTED);
}
END_TEST

START_TEST(hlt_exits_need_the_library)
{
    struct vmm_error error;

    force(_i);
    ck_assert_int_eq(create(mode_of(_i), VMM_VM_EXIT_HLT, &error), VMM_E_UNSUPPORTED);
}
END_TEST

/* ---- descriptors and routes ---- */

START_TEST(descriptor_of_a_route)
{
    const uint32_t route = VMM_IRQ_ROUTE_FIRST + 700;
    int fd = event();

    begin(_i);
    ck_assert_int_eq(vm_irq_route(vm, route, MESSAGE), 0);
    ck_assert_int_eq(vm_irq_fd(vm, route, fd, -1), 0);
    ck_assert_ptr_nonnull(kvm()->irq);
    GUEST_LOAD(halted, on_mmio_eoi);
    go();
    for (uint32_t i = 1; i <= 20; i++) {
        signal_event(fd);
        WAIT(RAM32(COUNT) == i && RAM32(LOOPS) == i);
    }
    /* The message changes: to one that nobody takes, and back. */
    ck_assert_int_eq(vm_irq_route(vm, route, 0xfee07000, 0x41), 0);
    signal_event(fd);
    WAIT(!taken(fd));
    nap();
    ck_assert_uint_eq(RAM32(COUNT), 20);
    ck_assert_int_eq(vm_irq_route(vm, route, MESSAGE), 0);
    signal_event(fd);
    WAIT(RAM32(COUNT) == 21);
    /* And goes. */
    ck_assert_int_eq(vm_irq_route(vm, route, 0, 0), 0);
    signal_event(fd);
    nap();
    ck_assert_uint_eq(RAM32(COUNT), 21);
    ck_assert_int_eq(vm_irq_route(vm, route, MESSAGE), 0);
    ck_assert_int_eq(vm_irq_fd_remove(vm, route, fd), 0);
    signal_event(fd);
    nap();
    ck_assert_uint_eq(RAM32(COUNT), 21);
    ck_assert(taken(fd));
    stop();
    kvm_end();
    close(fd);
}
END_TEST

START_TEST(many_routes)
{
    int fd[8];

    begin(_i);
    for (uint32_t i = 0; i < 8; i++) {
        fd[i] = event();
        ck_assert_int_eq(vm_irq_fd(vm, VMM_IRQ_ROUTE_FIRST + i * 100, fd[i], -1), 0);
        ck_assert_int_eq(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST + i * 100, MESSAGE), 0);
    }
    GUEST_LOAD(spinning, on_mmio_eoi);
    go();
    for (uint32_t i = 0; i < 8; i++) {
        signal_event(fd[i]);
        WAIT(RAM32(COUNT) == i + 1);
    }
    stop();
    kvm_end();
    for (uint32_t i = 0; i < 8; i++)
        close(fd[i]);
}
END_TEST

/* Hosts that only emulate CPL 0 may lose what is in service in a local APIC, and with it EOIs. */
START_TEST(descriptor_that_resamples)
{
    if ((_i & 2) && (host()->bad & KVM_BAD_EMULATION))
        return;

    int fd = event(), resample = event();
    struct pollfd p = {.fd = resample, .events = POLLIN};

    begin(_i);
    ck_assert_int_eq(vm_irq_fd(vm, 18, fd, resample), 0);
    /* The pin is set through a guest that ends in a port access nobody answers. */
    static const char code[] = "\xbd\x00\x00\xc0\xfe"         /* mov $0xfec00000, %ebp */
                               "\xc7\x45\x00\x34\x00\x00\x00" /* movl $0x34, (%rbp) */
                               "\xc7\x45\x10\x41\x80\x00\x00" /* movl $0x8041, 0x10(%rbp) */
                               "\xe6\xf4";
    load_guest(code, code + sizeof(code) - 1, guest_on_mmio_eoi, guest_on_mmio_eoi_end);
    RUN(PIO);
    GUEST_LOAD(halted, on_mmio_eoi);
    go();
    for (uint32_t i = 1; i <= 10; i++) {
        signal_event(fd);
        WAIT(RAM32(COUNT) == i);
        ck_assert_int_eq(poll(&p, 1, -1), 1);
        ck_assert(taken(resample));
    }
    nap();
    ck_assert_uint_eq(RAM32(COUNT), 10);
    ck_assert(!taken(resample));
    stop();
    ck_assert_int_eq(vm_irq_fd_remove(vm, 18, fd), 0);
    kvm_end();
    close(fd);
    close(resample);
}
END_TEST

/* ---- the software CPU beside them ---- */

START_TEST(steps_through_the_local_apic)
{
    begin(_i);
    GUEST_LOAD(reads, on_mmio_eoi);
    for (int i = 0; i < 13 && ex.reason != VMM_EXIT_PIO; i++) {
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
        if (ex.reason != VMM_EXIT_PIO)
            ck_assert_str_eq(vmm_exit_name(ex.reason), "STEP");
    }
    ck_assert_uint_eq(gpr(VMM_RAX), 0);
    ck_assert_uint_eq(gpr(VMM_RBX), 0x1ff);
    ck_assert_uint_eq(gpr(VMM_RCX), 0x20);
    ck_assert_uint_eq(gpr(VMM_RDX), 2);
    ck_assert_uint_eq(gpr(VMM_RSI), 0x50);
    ck_assert_uint_eq(gpr(VMM_RDI), 0xff);
    ck_assert_uint_eq(get_regs().cr8, 5);
    kvm_end();
}
END_TEST

START_TEST(runs_through_the_local_apic)
{
    begin(_i);
    GUEST_LOAD(reads, on_mmio_eoi);
    RUN(PIO);
    ck_assert_uint_eq(gpr(VMM_RBX), 0x1ff);
    ck_assert_uint_eq(gpr(VMM_RCX), 0x20);
    ck_assert_uint_eq(gpr(VMM_RDX), 2);
    ck_assert_uint_eq(gpr(VMM_RSI), 0x50);
    kvm_end();
}
END_TEST

/* Runs to the port access: at once, or step by step. */
static void to_the_end(bool steps)
{
    if (!steps) {
        RUN(PIO);
        return;
    }
    do
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    while (ex.reason == VMM_EXIT_STEP);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "PIO");
}

START_TEST(interrupts_itself)
{
    begin(_i);
    for (int steps = 0; steps < 2; steps++) {
        GUEST_LOAD(self, on_mmio_eoi);
        to_the_end(steps);
        ck_assert_uint_eq(gpr(VMM_RAX), 2);
        ck_assert_uint_eq(gpr(VMM_RBX), 0);
        ck_assert_uint_eq(RAM32(COUNT), 1);
        ck_assert_int_eq(vm_reset(vm), 0);
    }
    kvm_end();
}
END_TEST

START_TEST(x2apic_msrs)
{
    uint64_t value;

    begin(_i);
    for (int steps = 0; steps < 2; steps++) {
        GUEST_LOAD(x2apic, on_no_eoi);
        to_the_end(steps);
        ck_assert_uint_eq(RAM32(COUNT), 1);
        ck_assert_int_eq(vcpu_get_msr(vcpu, 0x1b, &value), 0);
        ck_assert_uint_eq(value, 0xfee00d00);
        ck_assert_uint_eq(get_regs().apic_base, 0xfee00d00);
        ck_assert_int_eq(vcpu_get_msr(vcpu, 0x80f, &value), 0);
        ck_assert_uint_eq(value, 0x1ff);
        ck_assert_int_eq(vcpu_set_msr(vcpu, 0x808, 0x30), 0);
        ck_assert_uint_eq(get_regs().cr8, 3);
        ck_assert_int_eq(vcpu_get_msr(vcpu, 0x8ff, &value), VMM_E_NOENT);
        ck_assert_int_eq(vm_reset(vm), 0);
        ck_assert_int_eq(vcpu_get_msr(vcpu, 0x1b, &value), 0);
        ck_assert_uint_eq(value, 0xfee00900);
        ck_assert_uint_eq(get_regs().cr8, 0);
        ck_assert_int_eq(vcpu_get_msr(vcpu, 0x80f, &value), VMM_E_NOENT);
    }
    kvm_end();
}
END_TEST

/* An interrupt is delivered by one step, and HLT is ended by it. */
START_TEST(steps_over_an_interrupt)
{
    begin(_i);
    GUEST_LOAD(halted, on_mmio_eoi);
    for (int i = 0; i < 5; i++) /* to behind HLT */
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "STEP");
    ck_assert_uint_eq(get_regs().activity, VMM_HALTED);
    ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "STEP");
    ck_assert_uint_eq(get_regs().rip, HANDLER);
    ck_assert_uint_eq(get_regs().activity, VMM_ACTIVE);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    ck_assert_uint_eq(RAM32(COUNT), 1);
    /* KVM goes on where the software CPU was. */
    pthread_create(&thread, NULL, run_main, NULL);
    for (uint32_t i = 2; i <= 10; i++) {
        ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
        WAIT(RAM32(COUNT) == i);
    }
    stop();
    kvm_end();
}
END_TEST

START_TEST(budget_while_interrupted)
{
    begin(_i);
    GUEST_LOAD(spinning, on_mmio_eoi);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 5000, 0), 0);
    RUN(BUDGET);
    for (uint32_t i = 1; i <= 10; i++) {
        ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
        RUN(BUDGET);
        ck_assert_uint_eq(RAM32(COUNT), i);
    }
    kvm_end();
}
END_TEST

START_TEST(window_exit)
{
    begin(_i);
    GUEST_LOAD(spinning, on_mmio_eoi);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    RUN(IRQ_WINDOW);
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 1);
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_INTERRUPT, .vector = 0x41};
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    pthread_create(&thread, NULL, run_main, NULL);
    WAIT(RAM32(COUNT) == 1);
    stop();
    kvm_end();
}
END_TEST

/* ---- life ---- */

START_TEST(reset_while_halted)
{
    begin(_i);
    for (int round = 0; round < 3; round++) {
        GUEST_LOAD(halted, on_mmio_eoi);
        go();
        ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
        WAIT(RAM32(LOOPS) == 1);
        stop();
        ck_assert_uint_eq(get_regs().activity, VMM_HALTED);
        ck_assert_int_eq(vm_reset(vm), 0);
        ck_assert_uint_eq(get_regs().activity, VMM_ACTIVE);
        ck_assert_uint_eq(get_regs().rip, 0xfff0);
    }
    kvm_end();
}
END_TEST

START_TEST(vcpu_comes_again)
{
    begin(_i);
    for (int round = 0; round < 3; round++) {
        GUEST_LOAD(spinning, on_mmio_eoi);
        go();
        ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
        WAIT(RAM32(COUNT) == 1);
        stop();
        ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0); /* forgotten with the vCPU */
        ck_assert_int_eq(vcpu_destroy(vcpu), 0);
        ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    }
    kvm_end();
}
END_TEST

START_TEST(stop_and_pause_reach_hlt)
{
    begin(_i);
    GUEST_LOAD(halted, on_mmio_eoi);
    go();
    ck_assert_int_eq(vm_pause(vm), 0);
    ck_assert_int_eq(vm_irq_msi(vm, MESSAGE), 0);
    nap();
    ck_assert_uint_eq(RAM32(COUNT), 0);
    ck_assert_int_eq(vm_resume(vm), 0);
    WAIT(RAM32(LOOPS) == 1);
    vm_stop(vm);
    pthread_join(thread, NULL);
    ck_assert_str_eq(vmm_exit_name(ex.reason), "STOPPED");
    ck_assert_int_eq(vm_resume(vm), 0);
    kvm_end();
}
END_TEST

/* The library's own pages make room for the program's memory, and come back without it. */
START_TEST(memory_in_the_message_window)
{
    void *host_page;

    begin(_i);
    for (int round = 0; round < 2; round++) {
        GUEST_LOAD(self, on_mmio_eoi);
        to_the_end(true);
        ck_assert_uint_eq(RAM32(COUNT), 1);
        ck_assert_int_eq(vm_mem_alloc(vm, 0xfeefc000, 0x3000, VMM_MEM_RWX, &host_page), 0);
        memset(host_page, 0x5a, 0x3000);
        /* mov $0xfeefc000, %ebx; mov (%rbx), %eax; out */
        GUEST_LOAD(reads, on_mmio_eoi);
        LOAD("\xbb\x00\xc0\xef\xfe\x8b\x03\xe6\xf4");
        RUN(PIO);
        ck_assert_uint_eq(gpr(VMM_RAX), 0x5a5a5a5a);
        ck_assert_int_eq(vm_mem_unmap(vm, 0xfeefc000), 0);
        ck_assert_int_eq(vm_reset(vm), 0);
    }
    kvm_end();
}
END_TEST

int main(void)
{
    static const TTest *tests[64];
    size_t n = 0;

    tests[n++] = the_mode_is_told;
    tests[n++] = automatic_choice;
    tests[n++] = hlt_exits_need_the_library;
    tests[n++] = descriptor_of_a_route;
    tests[n++] = many_routes;
    tests[n++] = descriptor_that_resamples;
    tests[n++] = steps_through_the_local_apic;
    tests[n++] = runs_through_the_local_apic;
    tests[n++] = interrupts_itself;
    tests[n++] = x2apic_msrs;
    tests[n++] = steps_over_an_interrupt;
    tests[n++] = budget_while_interrupted;
    tests[n++] = window_exit;
    tests[n++] = reset_while_halted;
    tests[n++] = vcpu_comes_again;
    tests[n++] = stop_and_pause_reach_hlt;
    tests[n++] = memory_in_the_message_window;
    return kvm_main("kvm_irq", tests, n, NTESTS);
}
