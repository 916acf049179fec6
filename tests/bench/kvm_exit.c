/* SPDX-License-Identifier: BSD-2-Clause */
/* kvm_exit.c: what the library adds to an exit of KVM: a bare loop around KVM_RUN against the same
 * guest in the library with a callback, both in this process, in turns.
 *
 * usage: bench_kvm_exit [--batches N] [--fake] [--sound] [--count KIND N]
 *
 * The guest is at CPL 0, which is left to KVM on hosts too where the library would not do that.
 * --fake: KVM_RUN is answered by this program, at once, so that the difference is the library's own
 * time without the kernel's noise. --sound: as on a host whose KVM has no defects at all. --count:
 * only N fake exits of one kind in the library, for an instruction counter around it: valgrind
 * --tool=callgrind --toggle-collect=count_exits bench_kvm_exit --count out 100000 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm_sound.h"
#include <vmm/vmm.h>

#define CODE   0x1000u
#define STACK  0x9000u
#define TABLES 0x10000u
#define RAM    0x100000u
#define MMIO   0xd0000000u
#define PORT   0x10u

enum kind { OUT, IN, WRITE, READ, NKINDS };
static const struct {
    const char *name;
    uint8_t code[10];
} kinds[NKINDS] = {
    {"out", {0xbb, 0x00, 0x00, 0x00, 0xd0, 0xe6, PORT, 0xeb, 0xfc}},   /* mov; 1: out; jmp 1b */
    {"in", {0xbb, 0x00, 0x00, 0x00, 0xd0, 0xe4, PORT, 0xeb, 0xfc}},    /* in */
    {"write", {0xbb, 0x00, 0x00, 0x00, 0xd0, 0x89, 0x03, 0xeb, 0xfc}}, /* mov %eax,(%rbx) */
    {"read", {0xbb, 0x00, 0x00, 0x00, 0xd0, 0x8b, 0x0b, 0xeb, 0xfc}},  /* mov (%rbx),%ecx */
};

static uint64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

__attribute__((noreturn)) static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- the kernel, wrapped by the linker (--wrap) ---- */

int __real_ioctl(int fd, unsigned long request, ...);
void *__real_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_ioctl(int fd, unsigned long request, ...);
void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset);

static bool fake;
static enum kind fake_kind;
static int new_vcpu = -1; /* created, its area not mapped yet */
static struct kvm_run *areas[1024];

static int fake_exit(struct kvm_run *run)
{
    if (run->immediate_exit) {
        errno = EINTR;
        return -1;
    }
    run->ready_for_interrupt_injection = 1;
    if (fake_kind == OUT || fake_kind == IN) {
        run->exit_reason = KVM_EXIT_IO;
        run->io.direction = fake_kind == OUT ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
        run->io.size = 1;
        run->io.port = PORT;
        run->io.count = 1;
        run->io.data_offset = 4096;
    } else {
        run->exit_reason = KVM_EXIT_MMIO;
        run->mmio.phys_addr = MMIO;
        run->mmio.len = 4;
        run->mmio.is_write = fake_kind == WRITE;
        memset(run->mmio.data, 0, sizeof(run->mmio.data));
    }
    return 0;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;

    va_start(ap, request);
    uintptr_t arg = va_arg(ap, uintptr_t);
    va_end(ap);
    if (fake && request == KVM_RUN)
        return fake_exit(areas[fd]);
    int r = __real_ioctl(fd, request, arg);
    if (request == KVM_CREATE_VCPU && r >= 0 && r < 1024)
        new_vcpu = r;
    return r;
}

void *__wrap_mmap(void *p, size_t len, int prot, int flags, int fd, off_t offset)
{
    void *area = __real_mmap(p, len, prot, flags, fd, offset);

    if (fd >= 0 && fd == new_vcpu && !offset) {
        areas[fd] = area;
        new_vcpu = -1;
    }
    return area;
}

/* ---- the bare loop ---- */

struct bare {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    size_t run_size;
    uint8_t *ram;
};

static void bare_tables(uint8_t *ram)
{
    uint64_t *pml4 = (uint64_t *)(void *)(ram + TABLES), *pdpt = pml4 + 512;

    pml4[0] = (TABLES + 0x1000) | 3;
    for (uint64_t i = 0; i < 4; i++) {
        uint64_t *pd = pml4 + 512 * (2 + i);

        pdpt[i] = (TABLES + 0x2000 + i * 0x1000) | 3;
        for (uint64_t k = 0; k < 512; k++)
            pd[k] = i << 30 | k << 21 | 0x83;
    }
}

static void bare_registers(const struct bare *b)
{
    struct kvm_segment code = {
        .limit = 0xffffffff, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1, .selector = 8};
    struct kvm_segment data = {
        .limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .selector = 16};
    struct kvm_sregs sregs;

    if (ioctl(b->vcpu, KVM_GET_SREGS, &sregs))
        fail("KVM_GET_SREGS");
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cr0 = 0x80000011;
    sregs.cr3 = TABLES;
    sregs.cr4 = 0x20;
    sregs.efer = 0x500;
    if (ioctl(b->vcpu, KVM_SET_SREGS, &sregs))
        fail("KVM_SET_SREGS");
}

static void bare_open(struct bare *b)
{
    b->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (b->kvm < 0)
        fail("/dev/kvm");
    b->vm = ioctl(b->kvm, KVM_CREATE_VM, 0);
    b->run_size = (size_t)ioctl(b->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    b->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = RAM,
                                                 .userspace_addr = (uintptr_t)b->ram};
    if (b->vm < 0 || ioctl(b->vm, KVM_SET_USER_MEMORY_REGION, &region))
        fail("KVM_CREATE_VM");
    b->vcpu = ioctl(b->vm, KVM_CREATE_VCPU, 0);
    if (b->vcpu < 0)
        fail("KVM_CREATE_VCPU");
    b->run = mmap(NULL, b->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, b->vcpu, 0);
    if (b->run == MAP_FAILED)
        fail("mmap");
    bare_tables(b->ram);
    bare_registers(b);
}

static void bare_start(const struct bare *b, enum kind kind)
{
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = 2};

    /* An instruction that is not over is completed first. */
    b->run->immediate_exit = 1;
    ioctl(b->vcpu, KVM_RUN, 0);
    b->run->immediate_exit = 0;
    memcpy(b->ram + CODE, kinds[kind].code, sizeof(kinds[kind].code));
    if (ioctl(b->vcpu, KVM_SET_REGS, &regs))
        fail("KVM_SET_REGS");
}

static volatile uint64_t sink;

/* Nanoseconds of n exits; the first starts the clock. */
static uint64_t bare_batch(const struct bare *b, unsigned n)
{
    struct kvm_run *run = b->run;
    uint64_t start = 0;

    for (unsigned i = 0; i <= n; i++) {
        uint64_t value = 0x5a;

        if (ioctl(b->vcpu, KVM_RUN, 0))
            fail("KVM_RUN");
        if (!i)
            start = now();
        switch (run->exit_reason) {
        case KVM_EXIT_IO:
            if (run->io.direction == KVM_EXIT_IO_OUT)
                sink = *((uint8_t *)run + run->io.data_offset);
            else
                *((uint8_t *)run + run->io.data_offset) = (uint8_t)value;
            break;
        case KVM_EXIT_MMIO:
            if (run->mmio.is_write)
                sink = run->mmio.data[0];
            else
                memcpy(run->mmio.data, &value, 8);
            break;
        default:
            fprintf(stderr, "exit %u\n", run->exit_reason);
            exit(1);
        }
    }
    return now() - start;
}

/* ---- the library ---- */

static struct vm *vm;
static struct vcpu *vcpu;
static struct {
    unsigned i, n;
    uint64_t start, end;
} batch;

static int next(void)
{
    if (!batch.i++)
        batch.start = now();
    if (batch.i <= batch.n)
        return VMM_IO_OK;
    batch.end = now();
    return VMM_IO_EXIT;
}

static int on_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = 0x5a;
    return next();
}

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    sink = value;
    return next();
}

static void check(int err, const char *what)
{
    struct vmm_error error = {.size = sizeof(error)};

    if (!err)
        return;
    vm_last_error(vm, &error);
    fprintf(stderr, "%s: %s: %s\n", what, vmm_err_name(err), error.text);
    exit(1);
}

static void library_open(void)
{
    static const char *const backends[] = {"kvm", NULL};
    static const struct vmm_io_ops ops = {.size = sizeof(ops), .read = on_read, .write = on_write};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .error = &error};

    if (vm_create(&config, &vm)) {
        fprintf(stderr, "vm_create: %s\n", error.text);
        exit(1);
    }
    check(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, NULL), "vm_mem_alloc");
    check(vcpu_create(vm, 0, NULL, &vcpu), "vcpu_create");
    check(pio_register(vm, PORT, 1, &ops, NULL, NULL), "pio_register");
    check(mmio_register(vm, MMIO, 0x1000, &ops, NULL, NULL), "mmio_register");
}

static void library_start(enum kind kind)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};

    check(vm_mem_write(vm, CODE, kinds[kind].code, sizeof(kinds[kind].code)), "vm_mem_write");
    check(vcpu_set_mode(vcpu, &setup), "vcpu_set_mode");
}

static uint64_t library_batch(unsigned n)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    batch.i = 0;
    batch.n = n;
    check(vcpu_run(vcpu, &exit), "vcpu_run");
    if (exit.reason != VMM_EXIT_PIO && exit.reason != VMM_EXIT_MMIO)
        check(VMM_E_BACKEND, vmm_exit_name(exit.reason));
    return batch.end - batch.start;
}

/* For an instruction counter: nothing but the library's exits. */
__attribute__((noinline)) static void count_exits(unsigned n)
{
    library_batch(n);
}

/* ---- the comparison ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}

static void compare(const struct bare *b, enum kind kind, unsigned batches)
{
    const unsigned n = fake ? 5000 : 200;
    double *bare = calloc(batches, sizeof(*bare)), *library = calloc(batches, sizeof(*library));

    if (!bare || !library)
        fail("calloc");
    /* The state of the vCPUs is always that after a true exit. */
    fake_kind = kind;
    bool fakes = fake;
    fake = false;
    bare_start(b, kind);
    library_start(kind);
    bare_batch(b, 10);
    library_batch(10);
    fake = fakes;
    for (unsigned i = 0; i < batches; i++) {
        bare[i] = (double)bare_batch(b, n) / n;
        library[i] = (double)library_batch(n) / n;
    }
    double x = median(bare, batches), y = median(library, batches);
    printf("%-6s %10.1f %10.1f %10.1f %8.2f\n", kinds[kind].name, x, y, y - x, y / x);
    fflush(stdout);
    free(bare);
    free(library);
}

static int usage(const char *name)
{
    fprintf(stderr, "usage: %s [--batches N] [--fake] [--sound] [--count out|in|write|read N]\n",
            name);
    return 2;
}

int main(int argc, char **argv)
{
    unsigned batches = 200, count = 0;
    bool fakes = false, sound = false;
    struct bare b;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--fake")) {
            fakes = true;
        } else if (!strcmp(argv[i], "--sound")) {
            sound = true;
        } else if (!strcmp(argv[i], "--batches") && i + 1 < argc) {
            batches = (unsigned)atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--count") && i + 2 < argc) {
            while (fake_kind < NKINDS && strcmp(kinds[fake_kind].name, argv[i + 1]))
                fake_kind++;
            count = (unsigned)atoi(argv[i + 2]);
            i += 2;
        } else {
            return usage(argv[0]);
        }
    }
    if (!batches || fake_kind == NKINDS)
        return usage(argv[0]);
    kvm_take_as_sound();
    if (sound)
        ((struct kvm_host *)(uintptr_t)kvm_host())->bad = 0;
    library_open();
    if (count) {
        library_start(fake_kind);
        library_batch(1);
        fake = true;
        count_exits(count);
    } else {
        bare_open(&b);
        fake = fakes;
        printf("nanoseconds per exit%s, medians of %u batches\n%-6s %10s %10s %10s %8s\n",
               fake ? ", KVM_RUN is faked" : "", batches, "", "bare", "library", "difference",
               "ratio");
        for (unsigned kind = 0; kind < NKINDS; kind++)
            compare(&b, (enum kind)kind, batches);
    }
    fake = false;
    return vm_destroy(vm) != 0;
}
