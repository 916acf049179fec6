/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_faults.c: the KVM backend while the kernel under it fails: every system call once and
 * from then on, capabilities that are missing, a device that is not there, and answers that no
 * kernel should give. Either all goes well, or a clear error comes back; nothing leaks, nothing
 * crashes, nothing hangs. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dir_entries.h"
#include "kvm_sound.h"
#include "sanitized.h"
#include <vmm/debug.h>
#include <vmm/vmm.h>

/* ---- the kernel, wrapped by the linker (--wrap) ---- */

int __real_ioctl(int fd, unsigned long request, ...);
int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
void *__real_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
void *__real_mremap(void *p, size_t len, size_t new_len, int flags, ...);
int __real_munmap(void *p, size_t len);
int __real_eventfd(unsigned value, int flags);
int __real_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer);
int __real_timer_delete(timer_t timer);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mremap(void *p, size_t len, size_t new_len, int flags, ...);
int __wrap_munmap(void *p, size_t len);
int __wrap_eventfd(unsigned value, int flags);
int __wrap_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer);
int __wrap_timer_delete(timer_t timer);

/* The fault to come. Threads of the library make system calls too. */
static struct {
    _Atomic bool armed;
    bool for_ever;
    bool ioctls_only;
    int error;
    _Atomic unsigned left;         /* calls that still succeed */
    _Atomic unsigned fired;        /* those that were made to fail */
    _Atomic unsigned long request; /* the first of them; 0: not an ioctl */
    unsigned long only;            /* ioctls of this request only; 0: all */
} fault;

static _Atomic long live_maps, live_timers;
static _Atomic unsigned bad_calls; /* of munmap, close and timer_delete, with nonsense */

static bool fails(unsigned long request)
{
    unsigned left;

    if (!atomic_load(&fault.armed) || (fault.ioctls_only && !request) ||
        (fault.only && request != fault.only))
        return false;
    left = atomic_load(&fault.left);
    while (left)
        if (atomic_compare_exchange_weak(&fault.left, &left, left - 1))
            return false;
    if (!fault.for_ever) {
        bool armed = true;

        if (!atomic_compare_exchange_strong(&fault.armed, &armed, false))
            return false;
    }
    if (!atomic_fetch_add(&fault.fired, 1))
        atomic_store(&fault.request, request);
    errno = fault.error;
    return true;
}

/* What replaces the kernel's answers in some tests; true: *result is the answer. */
static bool (*intervene)(int fd, unsigned long request, uintptr_t arg, int *result);
static const char *deny_open; /* this path cannot be opened */
static int deny_errno;

/* The shared area of the vCPU that was mapped last. */
static struct kvm_run *last_run;
static size_t last_run_size;
static bool guard_run; /* pages around it that cannot be touched */
#define GUARD 0x10000u

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    uintptr_t arg;
    int result;

    va_start(ap, request);
    arg = va_arg(ap, uintptr_t);
    va_end(ap);
    if (_IOC_TYPE(request) != KVMIO)
        return __real_ioctl(fd, request, arg);
    if (fails(request)) {
        /* KVM does something before it is interrupted. */
        if (request != KVM_RUN || fault.error != EINTR)
            return -1;
        __atomic_store_n(&last_run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    }
    if (intervene && intervene(fd, request, arg, &result))
        return result;
    return __real_ioctl(fd, request, arg);
}

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;

    if (flags & O_CREAT) {
        va_list ap;

        va_start(ap, flags);
        mode = va_arg(ap, mode_t);
        va_end(ap);
    }
    if (deny_open && !strcmp(path, deny_open)) {
        errno = deny_errno;
        return -1;
    }
    return fails(0) ? -1 : __real_open(path, flags, mode);
}

int __wrap_close(int fd)
{
    int r = __real_close(fd);

    if (r && errno == EBADF)
        atomic_fetch_add(&bad_calls, 1);
    return r;
}

static bool is_vcpu(int fd)
{
    char path[32], target[64] = "";

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "kvm-vcpu");
}

void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset)
{
    bool area = fd >= 0 && (flags & MAP_SHARED) && (prot & PROT_WRITE) && !offset && is_vcpu(fd);
    uint8_t *around = MAP_FAILED;

    if (fails(0))
        return MAP_FAILED;
    if (area && guard_run)
        around = __real_mmap(NULL, len + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (around != MAP_FAILED)
        p = __real_mmap(around + GUARD, len, prot, flags | MAP_FIXED, fd, offset);
    else
        p = __real_mmap(p, len, prot, flags, fd, offset);
    if (p == MAP_FAILED && around != MAP_FAILED)
        __real_munmap(around, len + 2 * GUARD);
    if (p == MAP_FAILED)
        return p;
    atomic_fetch_add(&live_maps, 1);
    if (area) {
        last_run = p;
        last_run_size = len;
    }
    return p;
}

/* The library uses it to map something twice. */
void *__wrap_mremap(void *p, size_t len, size_t new_len, int flags, ...)
{
    if (fails(0))
        return MAP_FAILED;
    p = __real_mremap(p, len, new_len, flags);
    atomic_fetch_add(&live_maps, p != MAP_FAILED);
    return p;
}

int __wrap_munmap(void *p, size_t len)
{
    int r;

    if (p == last_run && guard_run)
        r = __real_munmap((uint8_t *)p - GUARD, len + 2 * GUARD);
    else
        r = __real_munmap(p, len);
    if (r)
        atomic_fetch_add(&bad_calls, 1);
    atomic_fetch_sub(&live_maps, 1);
    if (p == last_run)
        last_run = NULL;
    return r;
}

int __wrap_eventfd(unsigned value, int flags)
{
    return fails(0) ? -1 : __real_eventfd(value, flags);
}

int __wrap_timer_create(clockid_t clock, struct sigevent *event, timer_t *timer)
{
    int r = fails(0) ? -1 : __real_timer_create(clock, event, timer);

    atomic_fetch_add(&live_timers, !r);
    return r;
}

int __wrap_timer_delete(timer_t timer)
{
    int r = __real_timer_delete(timer);

    if (r)
        atomic_fetch_add(&bad_calls, 1);
    atomic_fetch_sub(&live_timers, 1);
    return r;
}

/* ---- what the process has ---- */

struct resources {
    unsigned fds, maps;
    long live_maps, live_timers;
};

static unsigned lines(const char *path)
{
    FILE *file = fopen(path, "re");
    unsigned n = 0;
    int c;

    ck_assert_ptr_nonnull(file);
    while ((c = getc(file)) != EOF)
        n += c == '\n';
    fclose(file);
    return n;
}

/* Valgrind and sanitizers map memory as they like. */
static bool has_own_maps(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return !SANITIZED && (!preload || !strstr(preload, "vgpreload"));
}

static struct resources resources(void)
{
    unsigned maps = has_own_maps() ? lines("/proc/self/maps") : 0;

    return (struct resources){dir_entries("/proc/self/fd"), maps, atomic_load(&live_maps),
                              atomic_load(&live_timers)};
}

/* ---- the guest ---- */

#define CODE   0x1000u
#define IDT    0x4000u
#define GDT    0x5000u
#define DATA   0x8000u
#define TAKEN  0x9000u /* interrupts taken */
#define STACK  0xc000u
#define TABLES 0x10000u
#define RAM    0x100000u
#define ROM    0x200000u
#define MMIO   0xd0000000u
#define BELL   (MMIO + 0x1000)
#define POSTED (MMIO + 0x2000)
#define VECTOR 0x41u
#define MSR    0x12345678u

__asm__(".section .rodata.guest, \"a\", @progbits\n"
        "guest:\n"
        "    mov $0x5a, %eax\n"
        "    out %al, $0x10\n"
        "    in $0x10, %al\n"
        "    mov $0xd0000000, %ebx\n"
        "    mov %eax, (%rbx)\n"
        "    mov %eax, 0x2000(%rbx)\n"
        "    mov 4(%rbx), %ecx\n"
        "    mov %ecx, 0x8000\n"
        "    mov %eax, 0x1000(%rbx)\n"
        "    mov $0x155, %edx\n"
        "    popcnt %edx, %r8d\n"
        "guest_out:\n"
        "    out %al, $0x11\n"
        "    mov $0x12345678, %ecx\n"
        "guest_msr:\n"
        "    rdmsr\n"
        "    mov %eax, %r9d\n"
        "    mov $0x174, %ecx\n"
        "    rdmsr\n"
        "    mov %eax, %r10d\n"
        "    xor %eax, %eax\n"
        "    cpuid\n"
        "    mov %ebx, %r11d\n"
        "guest_rom:\n"
        "    mov %r9d, 0x200010\n"
        "    movdqu %xmm0, 0x8100\n"
        "    out %al, $0x13\n"
        "guest_interrupts:\n"
        "    mov $0xfee000f0, %edi\n"
        "    movl $0x1ff, (%rdi)\n"
        "    out %al, $0x12\n"
        "    sti\n"
        "1:  cmpl $0, 0x9000\n"
        "    je 1b\n"
        "    cli\n"
        "    out %al, $0x13\n"
        "guest_handler:\n"
        "    push %rdi\n"
        "    incl 0x9000\n"
        "    mov $0xfee000b0, %edi\n"
        "    movl $0, (%rdi)\n"
        "    pop %rdi\n"
        "    iretq\n"
        "guest_steps:\n"
        "    inc %r12\n"
        "    inc %r12\n"
        "guest_break:\n"
        "    inc %r12\n"
        "    out %al, $0x13\n"
        "guest_halt:\n"
        "    hlt\n"
        "guest_spin:\n"
        "    jmp guest_spin\n"
        "guest_end: .previous\n");
extern const uint8_t guest[], guest_out[], guest_msr[], guest_rom[], guest_interrupts[],
    guest_handler[], guest_steps[], guest_break[], guest_halt[], guest_spin[], guest_end[];

static uint64_t address(const uint8_t *label)
{
    return CODE + (uint64_t)(label - guest);
}

/* ---- the scenario: the whole life of a VM, with most of what the API offers ---- */

struct scenario {
    const char *backend; /* NULL: kvm */
    uint32_t irqchip, mode;
    bool impatient; /* gives up on a guest that gets nowhere soon */
    bool go_on;     /* after a failure: the functions that come next are called all the same */

    int err; /* VMM_E_*; 1: an exit that nobody asked for */
    int line;
    uint32_t reason;
    struct vmm_error error; /* of the failure */

    struct vm *vm;
    struct vcpu *vcpu;
    struct vcpu_exit exit;
    int bell, irq; /* eventfds */
    unsigned nlog;
    struct {
        uint32_t kind, size;
        uint64_t value;
    } log[16];
};

/* Check allocates and writes; so what is wrong is only noted, and looked at later. */
static void failed(struct scenario *s, int line, int err)
{
    if (s->err)
        return;
    s->err = err;
    s->line = line;
    s->reason = s->exit.reason;
    s->error.size = sizeof(s->error);
    if (s->vm)
        vm_last_error(s->vm, &s->error);
}

/* A step. False: the scenario is over. */
#define STEP(call)                                                                                 \
    do {                                                                                           \
        int r_ = (call);                                                                           \
        if (r_)                                                                                    \
            failed(s, __LINE__, r_);                                                               \
        if (r_ && !s->go_on)                                                                       \
            return;                                                                                \
    } while (0)
#define EXPECT(condition) STEP((condition) ? 0 : 2)

static void note(struct scenario *s, uint32_t kind, uint32_t size, uint64_t value)
{
    if (s->nlog < sizeof(s->log) / sizeof(s->log[0])) {
        s->log[s->nlog].kind = kind;
        s->log[s->nlog].size = size;
        s->log[s->nlog].value = value;
    }
    s->nlog++;
}

static int on_pio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    note(opaque, 'r' + (uint32_t)offset * 256, size, 0);
    *value = 0xa5;
    return VMM_IO_OK;
}

static int on_pio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    struct scenario *s = opaque;
    uint64_t one = 1;

    if (offset == 1 || offset == 3)
        return VMM_IO_EXIT;
    if (offset == 2)
        return write(s->irq, &one, sizeof(one)) == sizeof(one) ? VMM_IO_OK : VMM_IO_EXIT;
    note(s, 'w' + (uint32_t)offset * 256, size, value);
    return VMM_IO_OK;
}

static int on_mmio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    note(opaque, 'R' + (uint32_t)offset * 256, size, 0);
    *value = 0x11223344;
    return VMM_IO_OK;
}

static int on_mmio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    note(opaque, 'W' + (uint32_t)offset * 256, size, value);
    return VMM_IO_OK;
}

static int on_posted_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    note(opaque, 'P' + (uint32_t)offset * 256, size, value);
    return VMM_IO_OK;
}

static const struct vmm_io_ops pio_ops = {
    .size = sizeof(pio_ops), .read = on_pio_read, .write = on_pio_write};
static const struct vmm_io_ops mmio_ops = {
    .size = sizeof(mmio_ops), .read = on_mmio_read, .write = on_mmio_write};
static const struct vmm_io_ops posted_ops = {
    .size = sizeof(posted_ops), .flags = VMM_IO_POSTED, .write = on_posted_write};

/* Runs to an exit for this reason. */
static int run_to(struct scenario *s, uint32_t reason)
{
    int err = vcpu_run(s->vcpu, &s->exit);

    if (err)
        return err;
    return s->exit.reason == reason ? 0 : 1;
}

/* To the end of a part of the guest. */
static int run_to_end(struct scenario *s)
{
    int err = run_to(s, VMM_EXIT_PIO);

    return err ? err : s->exit.u.pio.port == 0x13 ? 0 : 1;
}

/* Also ends HLT. */
static int set_rip(struct scenario *s, const uint8_t *label)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR | VMM_REGS_EVENTS};
    int err = vcpu_get_regs(s->vcpu, &regs);

    regs.rip = address(label);
    regs.activity = VMM_ACTIVE;
    return err ? err : vcpu_set_regs(s->vcpu, &regs);
}

static int load(struct scenario *s)
{
    static const uint64_t gdt[3] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_DT};
    uint64_t handler = address(guest_handler);
    uint64_t gate[2] = {(handler & 0xffff) | 8u << 16 | 0x8eull << 40, 0};
    int err = vm_mem_write(s->vm, CODE, guest, (uint64_t)(guest_end - guest));

    if (!err)
        err = vm_mem_write(s->vm, GDT, gdt, sizeof(gdt));
    if (!err)
        err = vm_mem_write(s->vm, IDT + VECTOR * 16, gate, sizeof(gate));
    if (!err)
        err = vcpu_set_mode(s->vcpu, &setup);
    if (!err)
        err = vcpu_get_regs(s->vcpu, &regs);
    regs.gdt = (struct vmm_dtable){.base = GDT, .limit = sizeof(gdt) - 1};
    regs.idt = (struct vmm_dtable){.base = IDT, .limit = 0xfff};
    return err ? err : vcpu_set_regs(s->vcpu, &regs);
}

static int set_cpuid(struct scenario *s)
{
    struct vmm_cpuid table[256];
    uint32_t n = 256;
    int err = vm_default_cpuid(s->vm, table, &n);

    return err ? err : vcpu_set_cpuid(s->vcpu, table, n);
}

static const uint8_t pattern[16] = "sixteen bytes!!";

static int set_xmm0(struct scenario *s)
{
    _Alignas(64) static uint8_t area[16384];
    int err = vcpu_get_xsave(s->vcpu, area, sizeof(area));
    uint64_t xstate_bv;

    memcpy(area + 160, pattern, sizeof(pattern));
    memcpy(&xstate_bv, area + 512, 8);
    xstate_bv |= 2;
    memcpy(area + 512, &xstate_bv, 8);
    return err ? err : vcpu_set_xsave(s->vcpu, area, 576);
}

static bool in_kernel(const struct scenario *s)
{
    return s->mode == VMM_IRQCHIP_MODE_SPLIT || s->mode == VMM_IRQCHIP_MODE_KERNEL;
}

static void create(struct scenario *s)
{
    const char *const backends[] = {s->backend ? s->backend : "kvm", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = s->irqchip,
                               .irqchip_mode = s->mode,
                               .flags = in_kernel(s) ? 0 : VMM_VM_EXIT_HLT,
                               .error = &s->error};
    int err = vm_create(&config, &s->vm);

    if (err) {
        s->err = err;
        s->line = __LINE__;
        s->vm = NULL;
    }
}

static void add_devices(struct scenario *s, struct doorbell **bell)
{
    struct vmm_doorbell config = {.size = sizeof(config), .addr = BELL, .len = 4, .fd = s->bell};

    *bell = NULL;
    STEP(vm_mem_alloc(s->vm, 0, RAM, VMM_MEM_RWX, NULL));
    STEP(vm_mem_alloc(s->vm, ROM, 0x1000, VMM_MEM_RX, NULL));
    STEP(pio_register(s->vm, 0x10, 4, &pio_ops, s, NULL));
    STEP(mmio_register(s->vm, MMIO, 0x1000, &mmio_ops, s, NULL));
    STEP(mmio_register(s->vm, POSTED, 0x1000, &posted_ops, s, NULL));
    STEP(mmio_doorbell(s->vm, &config, bell));
    if (s->irqchip) {
        STEP(vm_irq_route(s->vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, VECTOR));
        STEP(vm_irq_fd(s->vm, VMM_IRQ_ROUTE_FIRST, s->irq, -1));
        STEP(vm_irq_set(s->vm, 20, 1));
        STEP(vm_irq_set(s->vm, 20, 0));
    }
}

static void prepare(struct scenario *s)
{
    STEP(set_cpuid(s));
    /* What is lost must not hang the test. */
    STEP(vcpu_set_budget(s->vcpu, 0, s->impatient ? 20000000 : 3000000000u));
    STEP(load(s));
    STEP(vcpu_msr_policy(s->vcpu, MSR, MSR, VMM_MSR_EXIT));
    STEP(vcpu_set_msr(s->vcpu, 0x174, 7));
    STEP(set_xmm0(s));
    STEP(vm_dirty_start(s->vm));
}

/* The accesses that the guest makes before its first exit. */
static bool log_is_right(const struct scenario *s)
{
    return s->nlog == 5 && s->log[0].kind == 'w' && s->log[0].size == 1 &&
           s->log[0].value == 0x5a && s->log[1].kind == 'r' && s->log[2].kind == 'W' &&
           s->log[2].size == 4 && s->log[2].value == 0xa5 && s->log[3].kind == 'P' &&
           s->log[3].value == 0xa5 && s->log[4].kind == 'R' + 4 * 256 && s->log[4].size == 4;
}

static void run_exits(struct scenario *s)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};
    uint8_t bytes[16];
    uint64_t word;

    STEP(run_to(s, VMM_EXIT_PIO));
    EXPECT(s->exit.u.pio.port == 0x11 && s->exit.u.pio.data == 0xa5 && log_is_right(s));
    EXPECT(s->exit.rip == address(guest_out));
    STEP(vcpu_get_regs(s->vcpu, &regs));
    EXPECT(regs.gpr[VMM_RCX] == 0x11223344 && regs.gpr[VMM_R8] == 5 &&
           regs.rip == address(guest_out));
    word = 0;
    EXPECT(read(s->bell, &word, sizeof(word)) == sizeof(word) && word == 1);

    STEP(run_to(s, VMM_EXIT_MSR));
    EXPECT(s->exit.u.msr.index == MSR && s->exit.u.msr.access == VMM_ACCESS_READ);
    s->exit.u.msr.value = 0x1234;
    STEP(run_to(s, VMM_EXIT_MMIO));
    EXPECT(s->exit.u.mmio.gpa == ROM + 0x10 && s->exit.u.mmio.data == 0x1234 &&
           s->exit.u.mmio.len == 4 && s->exit.rip == address(guest_rom));
    STEP(run_to_end(s));
    STEP(vcpu_get_regs(s->vcpu, &regs));
    EXPECT(regs.gpr[VMM_R9] == 0x1234 && regs.gpr[VMM_R10] == 7 && regs.gpr[VMM_R11] != 0);
    STEP(vm_mem_read(s->vm, DATA + 0x100, bytes, sizeof(bytes)));
    EXPECT(!memcmp(bytes, pattern, sizeof(bytes)));
}

static void run_interrupts(struct scenario *s)
{
    uint32_t taken = 0;

    if (!s->irqchip)
        return;
    STEP(set_rip(s, guest_interrupts));
    STEP(run_to_end(s));
    STEP(vm_mem_read(s->vm, TAKEN, &taken, sizeof(taken)));
    EXPECT(taken == 1);
    STEP(vm_irq_fd_remove(s->vm, VMM_IRQ_ROUTE_FIRST, s->irq));
}

static void run_debug(struct scenario *s)
{
    struct vmm_debug debug = {.size = sizeof(debug), .nbreakpoints = 1};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};

    debug.breakpoints[0] =
        (struct vmm_breakpoint){.addr = address(guest_break), .type = VMM_BREAK_EXEC};
    STEP(set_rip(s, guest_steps));
    STEP(vcpu_set_debug(s->vcpu, &debug));
    STEP(vcpu_step(s->vcpu, &s->exit));
    EXPECT(s->exit.reason == VMM_EXIT_STEP);
    STEP(run_to(s, VMM_EXIT_BREAKPOINT));
    STEP(vcpu_get_regs(s->vcpu, &regs));
    EXPECT(regs.rip == address(guest_break) && regs.gpr[VMM_R12] == 2);
    STEP(vcpu_set_debug(s->vcpu, NULL));
    STEP(run_to_end(s));
}

static void run_halt(struct scenario *s)
{
    if (in_kernel(s))
        return;
    STEP(set_rip(s, guest_halt));
    STEP(run_to(s, VMM_EXIT_HLT));
    EXPECT(s->exit.rip == address(guest_spin));
}

static void run_the_rest(struct scenario *s, struct doorbell *bell)
{
    uint64_t dirty[4] = {0}, count = 0;

    STEP(vm_dirty_get(s->vm, 0, RAM, 0, dirty, &count));
    /* After a failure it may be more than what was written. */
    EXPECT((dirty[0] >> (DATA >> 12) & 1) && (fault.fired || !(dirty[0] >> 0x30 & 1)));
    STEP(vm_dirty_stop(s->vm));

    STEP(set_rip(s, guest_spin));
    vcpu_kick(s->vcpu);
    STEP(run_to(s, VMM_EXIT_INTERRUPTED));
    STEP(vcpu_set_budget(s->vcpu, 0, 1000000));
    STEP(run_to(s, VMM_EXIT_BUDGET));

    mmio_doorbell_remove(bell);
    STEP(vm_mem_protect(s->vm, ROM, VMM_MEM_RWX));
    STEP(vm_mem_unmap(s->vm, ROM));
    STEP(vm_reset(s->vm));
    STEP(vcpu_destroy(s->vcpu));
    STEP(vcpu_create(s->vm, 0, NULL, &s->vcpu));
    STEP(vcpu_set_budget(s->vcpu, 0, s->impatient ? 20000000 : 3000000000u));
    s->nlog = 0;
    STEP(load(s));
    int err = run_to(s, VMM_EXIT_MMIO); /* nobody's doorbell any more */
    if (err == 1 && s->exit.reason == VMM_EXIT_PIO && fault.request == KVM_IOEVENTFD)
        return; /* KVM did not want to give it back */
    STEP(err);
    EXPECT(s->exit.u.mmio.gpa == BELL && log_is_right(s));
}

static void body(struct scenario *s)
{
    struct doorbell *bell;

    create(s);
    if (!s->vm)
        return;
    add_devices(s, &bell);
    if (s->err && !s->go_on)
        return;
    STEP(vcpu_create(s->vm, 0, NULL, &s->vcpu));
    if (!s->vcpu)
        return;
    s->exit.size = sizeof(s->exit);
    void (*const parts[])(struct scenario *) = {prepare, run_exits, run_interrupts, run_debug,
                                                run_halt};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        parts[i](s);
        if (s->err && !s->go_on)
            return;
    }
    run_the_rest(s, bell);
}

/* Runs the scenario and takes its VM away, which must work whatever has happened. */
static void play(struct scenario *s)
{
    kvm_take_as_sound();
    s->error = (struct vmm_error){.size = sizeof(s->error)};
    s->bell = __real_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->irq = __real_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    body(s);
    int err = vm_destroy(s->vm);
    atomic_store(&fault.armed, false);
    __real_close(s->bell);
    __real_close(s->irq);
    ck_assert_int_eq(err, 0);
}

/* ---- the tests' machinery ---- */

static const struct {
    const char *name;
    uint32_t irqchip, mode;
} modes[] = {
    {"no irqchip", VMM_IRQCHIP_NONE, VMM_IRQCHIP_MODE_AUTO},
    {"user", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_USER},
    {"split", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_SPLIT},
    {"kernel", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_KERNEL},
};
#define NMODES ((int)(sizeof(modes) / sizeof(modes[0])))

static struct scenario in_mode(int i)
{
    return (struct scenario){.irqchip = modes[i].irqchip, .mode = modes[i].mode};
}

/* Whether there is a KVM to test; says why not. */
static bool usable(void)
{
    struct vmm_backend_report reports[8] = {{.size = sizeof(reports[0])}};
    int n = vmm_backend_probe(reports, 8);

    for (int i = 0; i < n && i < 8; i++) {
        if (strcmp(reports[i].name, "kvm"))
            continue;
        if (!reports[i].result)
            return true;
        printf("skipped: %s\n", reports[i].reason);
    }
    return false;
}

/* A mode that this host's KVM does not offer is no failure. */
static bool unsupported(const struct scenario *s)
{
    return s->err == VMM_E_UNSUPPORTED && !s->vm && s->mode;
}

static const char *ioctl_name(unsigned long request)
{
    static const struct {
        unsigned long request;
        const char *name;
    } names[] = {
#define NAME(r) {r, #r}
        NAME(KVM_GET_API_VERSION),
        NAME(KVM_CREATE_VM),
        NAME(KVM_CHECK_EXTENSION),
        NAME(KVM_ENABLE_CAP),
        NAME(KVM_GET_VCPU_MMAP_SIZE),
        NAME(KVM_CREATE_VCPU),
        NAME(KVM_SET_USER_MEMORY_REGION),
        NAME(KVM_SET_TSS_ADDR),
        NAME(KVM_SET_IDENTITY_MAP_ADDR),
        NAME(KVM_GET_SUPPORTED_CPUID),
        NAME(KVM_SET_CPUID2),
        NAME(KVM_GET_CPUID2),
        NAME(KVM_RUN),
        NAME(KVM_GET_REGS),
        NAME(KVM_SET_REGS),
        NAME(KVM_GET_SREGS),
        NAME(KVM_SET_SREGS),
        NAME(KVM_GET_MSRS),
        NAME(KVM_SET_MSRS),
        NAME(KVM_GET_XSAVE),
        NAME(KVM_SET_XSAVE),
        NAME(KVM_GET_XCRS),
        NAME(KVM_SET_XCRS),
        NAME(KVM_GET_VCPU_EVENTS),
        NAME(KVM_SET_VCPU_EVENTS),
        NAME(KVM_GET_DEBUGREGS),
        NAME(KVM_SET_DEBUGREGS),
        NAME(KVM_SET_GUEST_DEBUG),
        NAME(KVM_SET_SIGNAL_MASK),
        NAME(KVM_INTERRUPT),
        NAME(KVM_NMI),
        NAME(KVM_X86_SET_MSR_FILTER),
        NAME(KVM_CREATE_IRQCHIP),
        NAME(KVM_IRQ_LINE),
        NAME(KVM_SIGNAL_MSI),
        NAME(KVM_SET_GSI_ROUTING),
        NAME(KVM_IRQFD),
        NAME(KVM_IOEVENTFD),
        NAME(KVM_GET_LAPIC),
        NAME(KVM_SET_LAPIC),
        NAME(KVM_GET_MP_STATE),
        NAME(KVM_SET_MP_STATE),
        NAME(KVM_GET_DIRTY_LOG),
        NAME(KVM_CLEAR_DIRTY_LOG),
        NAME(KVM_RESET_DIRTY_RINGS),
        NAME(KVM_REGISTER_COALESCED_MMIO),
        NAME(KVM_UNREGISTER_COALESCED_MMIO),
        NAME(KVM_GET_TSC_KHZ),
        NAME(KVM_SET_TSC_KHZ),
        NAME(KVM_GET_CLOCK),
        NAME(KVM_SET_CLOCK),
        NAME(KVM_KVMCLOCK_CTRL),
#undef NAME
    };
    static char text[32];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].request == request)
            return names[i].name;
    snprintf(text, sizeof(text), request ? "ioctl %#lx" : "a system call", request);
    return text;
}

static struct resources before;

static void *do_nothing(void *opaque)
{
    return opaque;
}

/* Threads leave their stacks to the next ones. */
static void make_a_thread(void)
{
    pthread_t thread;

    mallopt(M_ARENA_MAX, 1);
    ck_assert_int_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
    pthread_join(thread, NULL);
}

/* Plays once, so that what is kept for the process is there. False: not in this mode. */
static bool warm_up(int mode)
{
    struct scenario s = in_mode(mode);

    play(&s);
    if (unsupported(&s)) {
        printf("%s: skipped: %s\n", modes[mode].name, s.error.text);
        return false;
    }
    ck_assert_msg(!s.err, "%s, no fault: line %d: %d, exit %s at %#llx, %s: %s", modes[mode].name,
                  s.line, s.err, vmm_exit_name(s.reason), (unsigned long long)s.exit.rip,
                  s.error.op, s.error.text);
    make_a_thread();
    before = resources();
    return true;
}

static void nothing_leaked(const char *what, unsigned n)
{
    struct resources after = resources();

    ck_assert_msg(after.fds == before.fds && after.live_maps == before.live_maps &&
                      after.live_timers == before.live_timers && after.maps == before.maps,
                  "%s, call %u (%s): descriptors %u -> %u, mappings %u -> %u (%ld -> %ld), "
                  "timers %ld -> %ld",
                  what, n, ioctl_name(fault.request), before.fds, after.fds, before.maps,
                  after.maps, before.live_maps, after.live_maps, before.live_timers,
                  after.live_timers);
    ck_assert_msg(!bad_calls, "%s, call %u (%s): something was closed or unmapped twice", what, n,
                  ioctl_name(fault.request));
}

/* What a scenario may end with that did not go well. */
static void error_is_clear(const struct scenario *s, const char *what, unsigned n)
{
    const char *name = ioctl_name(fault.request);

    if (s->err == 1) {
        /* The kernel has failed and the guest cannot go on, or it has lost an interrupt. */
        ck_assert_msg((s->reason == VMM_EXIT_ENTRY_FAIL && s->exit.u.entry.text[0]) ||
                          s->reason == VMM_EXIT_BUDGET,
                      "%s, call %u (%s): line %d: exit %s at %#llx", what, n, name, s->line,
                      vmm_exit_name(s->reason), (unsigned long long)s->exit.rip);
        return;
    }
    ck_assert_msg(s->err != 2, "%s, call %u (%s): line %d: wrong results", what, n, name, s->line);
    switch (s->err) {
    case VMM_E_NOMEM:
        ck_assert_msg(fault.error == ENOMEM || fault.for_ever || !fault.request,
                      "%s, call %u (%s): line %d: %s", what, n, name, s->line, s->error.text);
        break;
    case VMM_E_PERM:
    case VMM_E_NODEV:
    case VMM_E_BACKEND:
    case VMM_E_IO:
    case VMM_E_LIMIT:
    case VMM_E_UNSUPPORTED:
        break;
    default:
        ck_abort_msg("%s, call %u (%s): line %d: %s (%s)", what, n, name, s->line,
                     vmm_err_name(s->err), s->error.text);
    }
    ck_assert_msg(s->error.code == s->err && s->error.text[0] && s->error.op[0],
                  "%s, call %u (%s): line %d: %s, but the last error is %s: \"%s\"", what, n, name,
                  s->line, vmm_err_name(s->err), vmm_err_name(s->error.code), s->error.text);
}

/* Every call number n fails. */
static void try_all(int mode, int error, bool for_ever, bool go_on)
{
    char what[64];
    unsigned n;

    snprintf(what, sizeof(what), "%s, %s%s", modes[mode].name, strerror(error),
             for_ever ? " for ever" : "");
    for (n = 0;; n++) {
        struct scenario s = in_mode(mode);

        s.go_on = go_on;
        fault.error = error;
        fault.for_ever = for_ever;
        fault.ioctls_only = error == EINTR;
        fault.left = n;
        fault.fired = 0;
        fault.request = 0;
        fault.armed = true;
        play(&s);
        if (!fault.fired)
            break;
        if (error == EINTR)
            ck_assert_msg(!s.err, "%s, call %u (%s): line %d: %d, exit %s, %s", what, n,
                          ioctl_name(fault.request), s.line, s.err, vmm_exit_name(s.reason),
                          s.error.text);
        if (s.err)
            error_is_clear(&s, what, n);
        nothing_leaked(what, n);
    }
    printf("%s: %u calls\n", what, n);
    ck_assert_uint_ge(n, 20);
}

/* ---- every system call ---- */

/* What the tests expect is what the software CPU does. */
START_TEST(all_goes_well_without_kvm)
{
    for (int i = 0; i < 2; i++) {
        struct scenario s = in_mode(i);

        s.backend = "interp";
        play(&s);
        ck_assert_msg(!s.err, "%s: line %d: %d, exit %s at %#llx, %s: %s", modes[i].name, s.line,
                      s.err, vmm_exit_name(s.reason), (unsigned long long)s.exit.rip, s.error.op,
                      s.error.text);
    }
}
END_TEST

START_TEST(all_goes_well)
{
    if (!usable())
        return;
    for (int i = 0; i < NMODES; i++) {
        if (!warm_up(i))
            continue;
        struct scenario s = in_mode(i);
        play(&s);
        ck_assert_int_eq(s.err, 0);
        nothing_leaked(modes[i].name, 0);
    }
}
END_TEST

START_TEST(interrupted_system_calls)
{
    if (usable() && warm_up(_i))
        try_all(_i, EINTR, false, false);
}
END_TEST

START_TEST(no_memory)
{
    if (!usable() || !warm_up(_i))
        return;
    try_all(_i, ENOMEM, false, false);
    if (!_i)
        try_all(_i, ENOMEM, true, false);
}
END_TEST

START_TEST(other_errors)
{
    static const int errors[] = {EIO, EPERM, EBADF, ENXIO};
    size_t n = _i ? 2 : sizeof(errors) / sizeof(errors[0]);

    if (!usable() || !warm_up(_i))
        return;
    for (size_t i = 0; i < n; i++)
        try_all(_i, errors[i], i == 0, false);
}
END_TEST

/* A program that does not look at results. */
START_TEST(errors_that_nobody_looks_at)
{
    if (!usable() || !warm_up(_i))
        return;
    try_all(_i, EIO, false, true);
}
END_TEST

/* ---- what only shows while the host is looked at: in a process of its own ---- */

/* The status of `run` in a child: 0 for what must not fail. */
static int in_child(void (*run)(const void *), const void *arg)
{
    int status;
    pid_t child;

    fflush(NULL);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (!child) {
        alarm(60);
        run(arg);
        fflush(NULL);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

/* In the child: says what is wrong and ends it. */
#define CHILD(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: ", __LINE__);                                                         \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void exit_if_unusable(const void *arg)
{
    (void)arg;
    if (!usable())
        _exit(1);
}

/* As usable(), but this process has not looked at the host after it. */
static bool usable_for_children(void)
{
    return !in_child(exit_if_unusable, NULL);
}

static struct vmm_backend_report kvm_report(void)
{
    struct vmm_backend_report reports[8] = {{.size = sizeof(reports[0])}}, none = {.result = 1};
    int n = vmm_backend_probe(reports, 8);

    for (int i = 0; i < n && i < 8; i++)
        if (!strcmp(reports[i].name, "kvm"))
            return reports[i];
    return none;
}

/* KVM is refused for a reason with `words` in it, and AUTO finds another engine. */
static void refused(int result, const char *words)
{
    unsigned fds = dir_entries("/proc/self/fd");
    struct vmm_backend_report report = kvm_report();
    struct scenario s = in_mode(0);
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vm *vm;

    CHILD(report.result < 0, "result %d: %s", report.result, report.reason);
    CHILD(!result || report.result == result, "result %d: %s", report.result, report.reason);
    CHILD(strstr(report.reason, words), "\"%s\" has no \"%s\"", report.reason, words);
    play(&s);
    CHILD(s.err == (report.result == VMM_E_NOMEM ? VMM_E_NOMEM : VMM_E_NODEV) &&
              strstr(s.error.text, words),
          "%d: %s", s.err, s.error.text);
    CHILD(!vm_create(NULL, &vm), "no VM");
    CHILD(!vm_get_caps(vm, &caps) && strcmp(caps.backend, "kvm"), "backend %s", caps.backend);
    vm_destroy(vm);
    CHILD(dir_entries("/proc/self/fd") == fds, "a descriptor leaks");
}

struct device_case {
    int os_errno, result;
};

static void without_device(const void *arg)
{
    const struct device_case *c = arg;

    deny_open = "/dev/kvm";
    deny_errno = c->os_errno;
    refused(c->result, "/dev/kvm");
}

START_TEST(device_that_cannot_be_opened)
{
    static const struct device_case cases[] = {
        {ENOENT, VMM_E_NODEV}, {EACCES, VMM_E_PERM}, {EPERM, VMM_E_PERM}, {ENXIO, VMM_E_NODEV},
        {ENODEV, VMM_E_NODEV}, {EMFILE, 0},          {EBUSY, 0},          {ENOMEM, VMM_E_NOMEM},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_int_eq(in_child(without_device, &cases[i]), 0);
}
END_TEST

static int fake_version;

static bool other_version(int fd, unsigned long request, uintptr_t arg, int *result)
{
    (void)fd;
    (void)arg;
    *result = fake_version;
    return request == KVM_GET_API_VERSION;
}

static void with_version(const void *arg)
{
    fake_version = *(const int *)arg;
    intervene = other_version;
    refused(0, "version");
}

START_TEST(other_api_versions)
{
    static const int versions[] = {11, 13, 0};

    if (!usable_for_children())
        return;
    for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
        ck_assert_int_eq(in_child(with_version, &versions[i]), 0);
}
END_TEST

/* A file that is no KVM: its ioctls fail. */
static bool no_kvm(int fd, unsigned long request, uintptr_t arg, int *result)
{
    (void)fd;
    (void)request;
    (void)arg;
    errno = ENOTTY;
    *result = -1;
    return true;
}

static void with_other_file(const void *arg)
{
    (void)arg;
    intervene = no_kvm;
    refused(0, "/dev/kvm");
}

START_TEST(device_that_is_no_kvm)
{
    if (usable_for_children())
        ck_assert_int_eq(in_child(with_other_file, NULL), 0);
}
END_TEST

static int mmap_size;

static bool other_mmap_size(int fd, unsigned long request, uintptr_t arg, int *result)
{
    (void)fd;
    (void)arg;
    *result = mmap_size;
    return request == KVM_GET_VCPU_MMAP_SIZE;
}

/* Either KVM is refused or all goes well, or creating a vCPU or what it does fails clearly. */
static void with_mmap_size(const void *arg)
{
    struct scenario s = in_mode(0);

    mmap_size = *(const int *)arg;
    intervene = other_mmap_size;
    play(&s);
    CHILD(!s.err || (s.err < 0 && s.error.code == s.err && s.error.text[0]) ||
              (s.err == 1 && s.reason == VMM_EXIT_ENTRY_FAIL),
          "line %d: %d, exit %s, %s", s.line, s.err, vmm_exit_name(s.reason), s.error.text);
    CHILD(mmap_size > 0 || s.err == VMM_E_NODEV, "%d", s.err);
}

START_TEST(sizes_of_the_shared_area)
{
    static const int sizes[] = {0, 100, 2048, 4096, 8192, 1 << 20, 0x7ffff000};

    if (!usable_for_children())
        return;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        ck_assert_msg(!in_child(with_mmap_size, &sizes[i]), "%d bytes", sizes[i]);
}
END_TEST

/* ---- capabilities that are missing ---- */

#define MAX_CAP 512
static _Atomic bool *asked; /* shared with the children */
static uintptr_t denied_cap;

static bool note_cap(int fd, unsigned long request, uintptr_t arg, int *result)
{
    (void)fd;
    (void)result;
    if (request == KVM_CHECK_EXTENSION && arg < MAX_CAP)
        asked[arg] = true;
    return false;
}

/* The ioctls that a kernel without the capability does not know. */
static const struct {
    uintptr_t cap;
    unsigned long requests[4];
} cap_ioctls[] = {
    {KVM_CAP_XSAVE, {KVM_GET_XSAVE, KVM_SET_XSAVE}},
    {KVM_CAP_XCRS, {KVM_GET_XCRS, KVM_SET_XCRS}},
    {KVM_CAP_VCPU_EVENTS, {KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS}},
    {KVM_CAP_DEBUGREGS, {KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS}},
    {KVM_CAP_MP_STATE, {KVM_GET_MP_STATE, KVM_SET_MP_STATE}},
    {KVM_CAP_IRQCHIP, {KVM_CREATE_IRQCHIP, KVM_GET_LAPIC, KVM_SET_LAPIC, KVM_IRQ_LINE}},
    {KVM_CAP_IRQ_ROUTING, {KVM_SET_GSI_ROUTING}},
    {KVM_CAP_IRQFD, {KVM_IRQFD}},
    {KVM_CAP_IOEVENTFD, {KVM_IOEVENTFD}},
    {KVM_CAP_SIGNAL_MSI, {KVM_SIGNAL_MSI}},
    {KVM_CAP_COALESCED_MMIO, {KVM_REGISTER_COALESCED_MMIO, KVM_UNREGISTER_COALESCED_MMIO}},
    {KVM_CAP_X86_MSR_FILTER, {KVM_X86_SET_MSR_FILTER}},
    {KVM_CAP_SET_GUEST_DEBUG, {KVM_SET_GUEST_DEBUG}},
    {KVM_CAP_TSC_CONTROL, {KVM_SET_TSC_KHZ}},
    {KVM_CAP_GET_TSC_KHZ, {KVM_GET_TSC_KHZ}},
    {KVM_CAP_ADJUST_CLOCK, {KVM_GET_CLOCK, KVM_SET_CLOCK}},
    {KVM_CAP_KVMCLOCK_CTRL, {KVM_KVMCLOCK_CTRL}},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, {KVM_CLEAR_DIRTY_LOG}},
    {KVM_CAP_EXT_CPUID, {KVM_SET_CPUID2, KVM_GET_SUPPORTED_CPUID}},
    {KVM_CAP_USER_MEMORY, {KVM_SET_USER_MEMORY_REGION}},
};

/* A kernel without the capability, as far as that can be played. */
static bool deny_cap(int fd, unsigned long request, uintptr_t arg, int *result)
{
    (void)fd;
    *result = 0;
    if (request == KVM_CHECK_EXTENSION && arg == denied_cap)
        return true;
    *result = -1;
    errno = EINVAL;
    if (request == KVM_ENABLE_CAP &&
        ((const struct kvm_enable_cap *)(const void *)arg)->cap == denied_cap)
        return true;
    if (request == KVM_RUN && denied_cap == KVM_CAP_SYNC_REGS && last_run &&
        (last_run->kvm_valid_regs || last_run->kvm_dirty_regs))
        return true;
    if (request == KVM_RUN && denied_cap == KVM_CAP_IMMEDIATE_EXIT && last_run)
        __atomic_store_n(&last_run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < sizeof(cap_ioctls) / sizeof(cap_ioctls[0]); i++)
        for (size_t k = 0; cap_ioctls[i].cap == denied_cap && k < 4; k++)
            if (request == cap_ioctls[i].requests[k])
                return true;
    return false;
}

static void without_cap(const void *arg)
{
    denied_cap = *(const uintptr_t *)arg;
    intervene = deny_cap;
    struct vmm_backend_report report = kvm_report();
    CHILD(!report.result || strstr(report.reason, "KVM_CAP_"), "refused without a name: %s",
          report.reason);
    for (int i = 0; i < NMODES; i++) {
        struct scenario s = in_mode(i);

        play(&s);
        if (report.result)
            CHILD(s.err == VMM_E_NODEV && strstr(s.error.text, "KVM_CAP_"), "%d: %s", s.err,
                  s.error.text);
        else
            CHILD(!s.err || (unsupported(&s) && s.error.text[0]),
                  "%s, line %d: %d, exit %s at %#llx, %s: %s", modes[i].name, s.line, s.err,
                  vmm_exit_name(s.reason), (unsigned long long)s.exit.rip, s.error.op,
                  s.error.text);
    }
}

static void note_caps(const void *arg)
{
    (void)arg;
    intervene = note_cap;
    for (int i = 0; i < NMODES; i++) {
        struct scenario s = in_mode(i);

        play(&s);
        CHILD(!s.err || unsupported(&s), "%s: %s", modes[i].name, s.error.text);
    }
}

START_TEST(missing_capabilities)
{
    unsigned n = 0;

    if (!usable_for_children())
        return;
    asked = __real_mmap(NULL, MAX_CAP, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(asked, MAP_FAILED);
    ck_assert(!in_child(note_caps, NULL));
    for (uintptr_t cap = 0; cap < MAX_CAP; cap++) {
        if (!asked[cap])
            continue;
        n++;
        ck_assert_msg(!in_child(without_cap, &cap), "capability %u", (unsigned)cap);
    }
    printf("%u capabilities\n", n);
    ck_assert_uint_ge(n, 10);
    __real_munmap(asked, MAX_CAP);
}
END_TEST

/* ---- answers that no kernel should give ---- */

static unsigned garbage_run;    /* which KVM_RUN */
static uint32_t garbage_reason; /* the exit */
static unsigned garbage_kind;
static uint64_t seed;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void scribble(void *p, size_t n, unsigned kind)
{
    uint8_t *bytes = p;

    for (size_t i = 0; i < n; i++)
        bytes[i] = kind == 0 ? 0 : kind == 1 ? 0xff : kind == 2 ? 1 : (uint8_t)random64();
}

#define GARBAGE_KINDS 8

static bool garbage(int fd, unsigned long request, uintptr_t arg, int *result)
{
    const size_t payload = offsetof(struct kvm_run, io), regs = offsetof(struct kvm_run, s);
    struct kvm_run *run = last_run;

    if (request != KVM_RUN || !run || garbage_run-- != 0)
        return false;
    if (garbage_kind == 0) {
        errno = EFAULT;
        *result = -1;
        return true;
    }
    *result = __real_ioctl(fd, request, arg);
    run->exit_reason = garbage_reason;
    if (garbage_kind >= 2)
        scribble((uint8_t *)run + payload, regs > payload ? 256 : 0, garbage_kind - 2);
    if (garbage_kind == 6)
        scribble((uint8_t *)run + regs, sizeof(run->s), 3);
    if (garbage_kind == 7 && last_run_size > 4096)
        scribble((uint8_t *)run + 4096, last_run_size - 4096, 1);
    if (garbage_kind == 5 && *result >= 0 && random64() & 1) {
        errno = (int)(random64() % 133) + 1;
        *result = -1;
    }
    return true;
}

static void with_garbage(uint32_t reason)
{
    for (unsigned kind = 0; kind < GARBAGE_KINDS; kind++)
        for (unsigned at = 0; at < 6; at += kind ? 2 : 1) {
            struct scenario s = in_mode(0);

            seed = 0x9e3779b97f4a7c15ull * (reason + 1) + kind * 64 + at;
            garbage_reason = reason;
            garbage_kind = kind;
            garbage_run = at;
            fault.request = KVM_RUN;
            s.impatient = true;
            intervene = garbage;
            play(&s);
            intervene = NULL;
            if (s.err < 0)
                ck_assert_msg(s.error.code == s.err && s.error.text[0],
                              "reason %u, kind %u, run %u: %s without a text", reason, kind, at,
                              vmm_err_name(s.err));
            nothing_leaked("garbage", kind);
        }
}

START_TEST(answers_of_a_broken_kernel)
{
    guard_run = true;
    if (!usable() || !warm_up(0))
        return;
    with_garbage((uint32_t)_i);
}
END_TEST

START_TEST(exits_of_a_later_kernel)
{
    guard_run = true;
    if (!usable() || !warm_up(0))
        return;
    with_garbage(1000);
    with_garbage(0xffffffff);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("kvm_faults");
    TCase *plain = tcase_create("plain"), *calls = tcase_create("calls");
    TCase *host = tcase_create("host"), *kernel = tcase_create("kernel");

    tcase_set_timeout(plain, 110);
    tcase_add_test(plain, all_goes_well_without_kvm);
    tcase_add_test(plain, all_goes_well);
    suite_add_tcase(s, plain);
    tcase_set_timeout(calls, 110);
    tcase_add_loop_test(calls, interrupted_system_calls, 0, NMODES);
    tcase_add_loop_test(calls, no_memory, 0, NMODES);
    /* Not in all modes: the kernel takes some 50 ms to end a VM. */
    tcase_add_loop_test(calls, other_errors, 0, 2);
    tcase_add_loop_test(calls, errors_that_nobody_looks_at, 0, 1);
    tcase_add_loop_test(calls, errors_that_nobody_looks_at, NMODES - 1, NMODES);
    suite_add_tcase(s, calls);
    tcase_set_timeout(host, 110);
    tcase_add_test(host, device_that_cannot_be_opened);
    tcase_add_test(host, other_api_versions);
    tcase_add_test(host, device_that_is_no_kvm);
    tcase_add_test(host, sizes_of_the_shared_area);
    tcase_add_test(host, missing_capabilities);
    suite_add_tcase(s, host);
    tcase_set_timeout(kernel, 110);
    tcase_add_loop_test(kernel, answers_of_a_broken_kernel, 0, 48);
    tcase_add_test(kernel, exits_of_a_later_kernel);
    suite_add_tcase(s, kernel);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failures;

    srunner_run_all(runner, CK_ENV);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
