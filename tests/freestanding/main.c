/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: the freestanding archive in a process without a C library: VMs, devices and vector
 * instructions work with nothing but struct vmm_host_ops. Output is TAP. */
#include <stdbool.h>

#include <vmm/device.h>
#include <vmm/host.h>
#include <vmm/irq.h>
#include <vmm/memory.h>
#include <vmm/vmm.h>

#include "../../examples/type1/single.h"

int test_main(void);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- the host: a process, by its system calls ---- */

#define SYS_WRITE         1
#define SYS_MMAP          9
#define SYS_MUNMAP        11
#define SYS_FTRUNCATE     77
#define SYS_CLOCK_GETTIME 228
#define SYS_MEMFD_CREATE  319

static long call(long n, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
    register uint64_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static void print(const char *text)
{
    size_t n = 0;

    while (text[n])
        n++;
    call(SYS_WRITE, 1, (uintptr_t)text, n, 0, 0, 0);
}

static void *map(size_t len, unsigned prot, unsigned flags, int fd)
{
    long p = call(SYS_MMAP, 0, len, prot, flags, (uint64_t)(int64_t)fd, 0);

    return p < 0 && p > -4096 ? NULL : (void *)p;
}

static size_t live_pages;
static int fail_pages = -1; /* pages_alloc fails when it counts down to 0; negative: never */

static void *pages_alloc(void *ctx, size_t n)
{
    void *p = fail_pages >= 0 && fail_pages-- == 0 ? NULL : map(n * 4096, 3, 0x22, -1);

    (void)ctx;
    live_pages += p ? n : 0;
    return p;
}

static void pages_free(void *ctx, void *p, size_t n)
{
    (void)ctx;
    live_pages -= n;
    call(SYS_MUNMAP, (uintptr_t)p, n * 4096, 0, 0, 0, 0);
}

static int code_alloc(void *ctx, size_t len, void **rw, void **rx)
{
    int fd = (int)call(SYS_MEMFD_CREATE, (uintptr_t) "code", 0, 0, 0, 0, 0);

    (void)ctx;
    if (fd < 0 || call(SYS_FTRUNCATE, (uint64_t)fd, len, 0, 0, 0, 0))
        return 1;
    *rw = map(len, 3, 1, fd);
    *rx = map(len, 5, 1, fd);
    return !*rw || !*rx;
}

static void code_free(void *ctx, void *rw, void *rx, size_t len)
{
    (void)ctx;
    call(SYS_MUNMAP, (uintptr_t)rw, len, 0, 0, 0, 0);
    call(SYS_MUNMAP, (uintptr_t)rx, len, 0, 0, 0, 0);
}

static int rdmsr(void *ctx, uint32_t index, uint64_t *value)
{
    (void)ctx;
    (void)index;
    (void)value;
    return 1; /* this is not ring 0 */
}

static int wrmsr(void *ctx, uint32_t index, uint64_t value)
{
    (void)ctx;
    (void)index;
    (void)value;
    return 1;
}

static _Alignas(16) uint8_t fpu_area[512];
static unsigned fpu_depth, fpu_uses;

static void fpu_begin(void *ctx)
{
    (void)ctx;
    fpu_depth++;
    fpu_uses++;
    __asm__ volatile("fxsave %0" : "=m"(fpu_area));
}

static void fpu_end(void *ctx)
{
    (void)ctx;
    fpu_depth--;
    __asm__ volatile("fxrstor %0" ::"m"(fpu_area));
}

static uint64_t now(void *ctx)
{
    int64_t ts[2];

    (void)ctx;
    call(SYS_CLOCK_GETTIME, 1, (uintptr_t)ts, 0, 0, 0, 0);
    return (uint64_t)ts[0] * 1000000000 + (uint64_t)ts[1];
}

static struct vmm_host_ops ops = {.size = sizeof(ops),
                                  .tsc_khz = 1000000,
                                  .pages_alloc = pages_alloc,
                                  .pages_free = pages_free,
                                  .code_alloc = code_alloc,
                                  .code_free = code_free,
                                  .rdmsr = rdmsr,
                                  .wrmsr = wrmsr,
                                  .fpu_begin = fpu_begin,
                                  .fpu_end = fpu_end,
                                  .now = now};

/* ---- TAP ---- */

static unsigned number, failures;

static void print_unsigned(unsigned v)
{
    char digits[12];
    int at = 11;

    digits[at] = 0;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    print(digits + at);
}

static void check(bool ok, const char *what)
{
    failures += !ok;
    print(ok ? "ok " : "not ok ");
    print_unsigned(++number);
    print(" - ");
    print(what);
    print("\n");
}

static bool equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* ---- a guest ---- */

static uint64_t mmio_value, port_value;

static int mmio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    mmio_value = value + offset * 0 + size * 0;
    return VMM_IO_OK;
}

static int mmio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = 0x1234;
    return VMM_IO_OK;
}

static int port_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    port_value = value;
    return VMM_IO_OK;
}

/* Real mode: reads MMIO, doubles it with SSE, writes it to MMIO and its low byte to port 0x10, and
 * halts. */
static const uint8_t code[] = {
    0xb8, 0x00, 0xd0,                         /* mov ax, 0xd000 */
    0x8e, 0xd8,                               /* mov ds, ax */
    0xa1, 0x00, 0x00,                         /* mov ax, [0] */
    0x0f, 0x20, 0xe1,                         /* mov ecx, cr4 */
    0x66, 0x81, 0xc9, 0x00, 0x02, 0x00, 0x00, /* or ecx, OSFXSR */
    0x0f, 0x22, 0xe1,                         /* mov cr4, ecx */
    0x66, 0x0f, 0xb7, 0xc0,                   /* movzx eax, ax */
    0x66, 0x0f, 0x6e, 0xc0,                   /* movd xmm0, eax */
    0x66, 0x0f, 0xfe, 0xc0,                   /* paddd xmm0, xmm0 */
    0x66, 0x0f, 0x7e, 0xc0,                   /* movd eax, xmm0 */
    0xa3, 0x04, 0x00,                         /* mov [4], ax */
    0xe6, 0x10,                               /* out 0x10, al */
    0xf4,                                     /* hlt */
};

/* 0 or the first error. */
static int try_make(struct vm **vm, struct vcpu **vcpu)
{
    static const struct vmm_io_ops mmio = {
        .size = sizeof(mmio), .name = "mmio", .read = mmio_read, .write = mmio_write};
    static const struct vmm_io_ops port = {
        .size = sizeof(port), .name = "port", .write = port_write};
    const char *names[] = {"interp", NULL};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_REQUIRE, .backends = names};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR | VMM_REGS_SEG};
    uint8_t *ram;
    int err;

    if ((err = vm_create(&config, vm)) ||
        (err = vm_mem_alloc(*vm, 0, 0x10000, VMM_MEM_RWX, (void **)&ram)) ||
        (err = mmio_register(*vm, 0xd0000, 0x1000, &mmio, NULL, NULL)) ||
        (err = pio_register(*vm, 0x10, 1, &port, NULL, NULL)) ||
        (err = vcpu_create(*vm, 0, NULL, vcpu)))
        return err;
    memcpy(ram + 0x1000, code, sizeof(code));
    err = vcpu_get_regs(*vcpu, &regs);
    if (err)
        return err;
    regs.rip = 0x1000;
    regs.seg[VMM_CS].base = 0;
    regs.seg[VMM_CS].selector = 0;
    return vcpu_set_regs(*vcpu, &regs);
}

static bool make(struct vm **vm, struct vcpu **vcpu)
{
    return !try_make(vm, vcpu);
}

/* Each call of pages_alloc fails once. How many did, or -1 if something else than that came of one.
 */
static int without_pages(void)
{
    for (int n = 0;; n++) {
        struct vcpu *vcpu = NULL;
        struct vm *vm = NULL;
        int err;

        fail_pages = n;
        err = try_make(&vm, &vcpu);
        if (fail_pages >= 0) { /* all have been given */
            fail_pages = -1;
            return vm_destroy(vm) || err ? -1 : n;
        }
        if (vm_destroy(vm) || (err && err != VMM_E_NOMEM))
            return -1;
    }
}

static void test_no_pages(void)
{
    int cold = without_pages(), warm;
    size_t before = live_pages;

    warm = without_pages(); /* the heap keeps its pages */
    check(cold > 5 && warm > 1 && warm <= cold, "memory fails at each call");
    check(live_pages == before, "nothing stays of what could not be made");
}

/* A struct without a function that it must have, or with one half of a pair. */
static void test_missing_functions(void)
{
    void (**const required[])(void) = {
#define AT(name) (void (**)(void)) & ops.name
        AT(pages_alloc), AT(pages_free), AT(virt_to_phys), AT(phys_to_virt), AT(cpu_count),
        AT(cpu_id),      AT(run_on_cpu), AT(preempt_off),  AT(preempt_on),   AT(thread_slot),
        AT(rdmsr),       AT(wrmsr),      AT(fpu_begin),    AT(fpu_end),      AT(now),
        AT(code_alloc),  AT(code_free)};
#undef AT
    const struct vmm_host_ops good = ops;
    unsigned refused = 0;

    for (unsigned i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        *required[i] = NULL;
        refused += vmm_host_init(&ops) == VMM_E_INVAL;
        ops = good;
    }
    check(refused == sizeof(required) / sizeof(required[0]), "vmm_host_init without a function");
    ops.size--;
    check(vmm_host_init(&ops) == VMM_E_INVAL, "vmm_host_init with another size");
    ops = good;
    ops.tsc_khz = 0;
    check(vmm_host_init(&ops) == VMM_E_INVAL, "vmm_host_init without a frequency");
    ops = good;
}

static void test_guest(void)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu *vcpu;
    struct vm *vm;
    size_t before = live_pages;

    check(make(&vm, &vcpu), "a VM with memory, MMIO, a port and a vCPU");
    check(!vcpu_run(vcpu, &exit) && exit.reason == VMM_EXIT_HLT, "the guest halts");
    check(mmio_value == 0x2468 && port_value == 0x68, "MMIO, port and SSE instructions");
    check(fpu_uses && !fpu_depth, "vector registers are used between fpu_begin and fpu_end only");
    check(!vm_destroy(vm), "the VM is destroyed");
    check(live_pages - before <= 64, "its pages are given back");
}

static void test_no_code_memory(void)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu *vcpu;
    struct vm *vm;

    ops.code_alloc = NULL;
    check(make(&vm, &vcpu), "a vCPU without code memory");
    check(!vcpu_run(vcpu, &exit) && exit.reason == VMM_EXIT_EMUL_MISS && exit.insn_len >= 4 &&
              !memcmp(exit.insn, "\x66\x0f\xfe\xc0", 4),
          "exits at its first vector arithmetic");
    vm_destroy(vm);
    ops.code_alloc = code_alloc;
}

static void test_errors(void)
{
    struct vmm_error error = {.size = sizeof(error)};
    const char *names[] = {"none", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .error = &error,
                               .irqchip = VMM_IRQCHIP_NONE};
    struct vm *vm;

    check(vm_create(&config, &vm) == VMM_E_NODEV &&
              equal(error.text, "no backend can be used: none: this build has no such backend"),
          "texts of errors");
}

/* A program that forgets vmm_host_init is told so. */
static void test_too_early(void)
{
    struct vmm_backend_report report = {.size = sizeof(report)};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config), .error = &error};
    struct vm *vm = NULL;

    check(vmm_backend_probe(&report, 1) == VMM_E_STATE, "vmm_backend_probe before vmm_host_init");
    check(vm_create(&config, &vm) == VMM_E_STATE && !vm &&
              equal(error.text, "vmm_host_init comes first"),
          "vm_create before vmm_host_init");
    check(vm_create(NULL, &vm) == VMM_E_STATE && !vm, "the same without a config");
}

/* There are no descriptors: whatever the number, it is none. */
static void test_descriptors(void)
{
    const char *names[] = {"interp", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .irqchip = VMM_IRQCHIP_PC};
    struct vmm_doorbell bell = {.size = sizeof(bell), .addr = 0xd0000, .len = 4, .fd = 1};
    struct doorbell *doorbell = NULL;
    size_t before = live_pages;
    struct vm *vm;

    check(!vm_create(&config, &vm), "a VM with interrupt controllers");
    check(vm_mem_map_fd(vm, 0, 1, 0, 0x1000, VMM_MEM_RWX) == VMM_E_IO, "vm_mem_map_fd");
    check(vm_irq_fd(vm, 5, 1, -1) == VMM_E_IO, "vm_irq_fd");
    check(vm_irq_fd(vm, 5, 1, 2) == VMM_E_IO, "vm_irq_fd with a resample descriptor");
    check(vm_irq_fd_remove(vm, 5, 1) == VMM_E_NOENT, "vm_irq_fd_remove");
    check(mmio_doorbell(vm, &bell, &doorbell) == VMM_E_IO && !doorbell, "mmio_doorbell");
    check(!vm_mem_alloc(vm, 0, 0x1000, VMM_MEM_RWX, NULL), "the place is free");
    check(!vm_destroy(vm), "the VM is destroyed");
    check(live_pages - before <= 64, "its pages are given back");
}

int test_main(void)
{
    host_single(&ops);
    test_too_early();
    check(vmm_host_init(NULL) == VMM_E_INVAL, "vmm_host_init without a struct");
    test_missing_functions();
    check(vmm_host_init(&ops) == VMM_OK, "vmm_host_init");
    check(vmm_host_init(&ops) == VMM_E_STATE, "vmm_host_init again");
    test_no_pages();
    test_guest();
    test_no_code_memory();
    test_errors();
    test_descriptors();
    print("1..");
    print_unsigned(number);
    print("\n");
    return failures != 0;
}
