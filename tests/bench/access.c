/* SPDX-License-Identifier: BSD-2-Clause */
/* access.c: what a guest's access to a device costs, from instruction to instruction.
 *
 * usage: bench_access [--count N] [BACKEND ...]
 *
 * A 64-bit guest executes a loop of N accesses (default 1,000,000) of one kind: to a device of the
 * program (callback), or one that ends vcpu_run (exit). Nanoseconds of wall time and of the
 * thread's CPU time for each, less those of the same loop without the access. Medians of five. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vmm/vmm.h>

#include "backends.h"

#define CODE     0x1000u
#define PORT     0x10u
#define OTHER    0x20u
#define MMIO     0x40000000u
#define FAR_MMIO 0x40001000u

enum { ROUNDS = 5 };

static uint32_t count = 1000000;
static uint64_t seen;

/* What stands in the loop; EBX holds the address of the device. */
static const struct kind {
    const char *name;
    uint64_t address;
    uint8_t code[4];
    uint8_t bytes;
    bool exits;
} kinds[] = {
    {"nothing", 0, {0x90}, 1, false},
    {"OUT, callback", PORT, {0xe6, PORT}, 2, false},
    {"IN, callback", PORT, {0xe4, PORT}, 2, false},
    {"MMIO store, callback", MMIO, {0x89, 0x03}, 2, false},
    {"MMIO load, callback", MMIO, {0x8b, 0x03}, 2, false},
    {"OUT, exit", OTHER, {0xe6, OTHER}, 2, true},
    {"MMIO store, exit", FAR_MMIO, {0x89, 0x03}, 2, true},
};

static uint64_t now(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int on_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque, (void)offset, (void)size;
    seen++;
    *value = seen;
    return VMM_IO_OK;
}

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    seen++;
    return VMM_IO_OK;
}

/* mov $count, %ecx; mov $address, %ebx; 1: the access; dec %ecx; jnz 1b; hlt */
static size_t make_code(const struct kind *kind, uint32_t n, uint8_t *code)
{
    uint32_t address = (uint32_t)kind->address;

    code[0] = 0xb9;
    memcpy(code + 1, &n, 4);
    code[5] = 0xbb;
    memcpy(code + 6, &address, 4);
    memcpy(code + 10, kind->code, kind->bytes);
    memcpy(code + 10 + kind->bytes, "\xff\xc9\x75", 3);
    code[13 + kind->bytes] = (uint8_t) - (4 + kind->bytes);
    code[14 + kind->bytes] = 0xf4;
    return 15u + kind->bytes;
}

static int start(struct vcpu *vcpu, struct vm *vm, const struct kind *kind, uint32_t n)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = 0x9000,
                               .tables = 0x10000};
    uint8_t code[32];
    size_t bytes = make_code(kind, n, code);
    int err = vm_mem_write(vm, CODE, code, bytes);

    return err ? err : vcpu_set_mode(vcpu, &setup);
}

/* Runs until HLT; the exits on the way, or a negative VMM_E_*. */
static int64_t run(struct vcpu *vcpu)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    for (int64_t exits = 0;; exits++) {
        int err = vcpu_run(vcpu, &exit);
        if (err)
            return err;
        if (exit.reason == VMM_EXIT_HLT)
            return exits;
        if (exit.reason != VMM_EXIT_PIO && exit.reason != VMM_EXIT_MMIO) {
            fprintf(stderr, "exit %s\n", vmm_exit_name(exit.reason));
            return VMM_E_BACKEND;
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Medians of wall and CPU nanoseconds of one turn of the loop. */
static bool measure(struct vcpu *vcpu, struct vm *vm, const struct kind *kind, double ns[2])
{
    double rounds[2][ROUNDS];

    /* What is not measured: the way to translated code. */
    if (start(vcpu, vm, kind, 10000) || run(vcpu) < 0)
        return false;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t before = seen;
        if (start(vcpu, vm, kind, count))
            return false;
        uint64_t wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_THREAD_CPUTIME_ID);
        int64_t exits = run(vcpu);
        wall = now(CLOCK_MONOTONIC) - wall;
        cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
        uint64_t callbacks = kind->address && !kind->exits ? count : 0;
        if (exits != (kind->exits ? (int64_t)count : 0) || seen - before != callbacks) {
            fprintf(stderr, "%s: %lld exits, %llu callbacks\n", kind->name, (long long)exits,
                    (unsigned long long)(seen - before));
            return false;
        }
        rounds[0][i] = (double)wall / count;
        rounds[1][i] = (double)cpu / count;
    }
    for (int i = 0; i < 2; i++) {
        qsort(rounds[i], ROUNDS, sizeof(double), by_value);
        ns[i] = rounds[i][ROUNDS / 2];
    }
    return true;
}

static bool measure_backend(const char *backend)
{
    const char *const backends[] = {backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = VMM_IRQCHIP_NONE,
                               .error = &error};
    const struct vmm_io_ops ops = {
        .size = sizeof(ops), .name = "bench", .read = on_read, .write = on_write};
    struct vm *vm;
    struct vcpu *vcpu;
    double ns[2], empty[2] = {0, 0};

    if (vm_create(&config, &vm)) {
        printf("%-8s %s\n", backend, error.text);
        return false;
    }
    bool ok = !vm_mem_alloc(vm, 0, 1u << 20, VMM_MEM_RWX, NULL) &&
              !vcpu_create(vm, 0, NULL, &vcpu) && !pio_register(vm, PORT, 1, &ops, NULL, NULL) &&
              !mmio_register(vm, MMIO, 0x1000, &ops, NULL, NULL);
    for (size_t i = 0; ok && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        ok = measure(vcpu, vm, &kinds[i], ns);
        if (ok && kinds[i].address)
            printf("%-8s %-22s %8.1f %8.1f\n", backend, kinds[i].name, ns[0] - empty[0],
                   ns[1] - empty[1]);
        else
            memcpy(empty, ns, sizeof(empty));
    }
    if (!ok) {
        vm_last_error(vm, &error);
        printf("%-8s failed: %s\n", backend, error.text);
    }
    vm_destroy(vm);
    return ok;
}

int main(int argc, char **argv)
{
    int i = 1;

    if (argc > 2 && !strcmp(argv[1], "--count") && atoi(argv[2]) > 0) {
        count = (uint32_t)atoi(argv[2]);
        i = 3;
    }
    if (i < argc && argv[i][0] == '-')
        return fprintf(stderr, "usage: %s [--count N] [BACKEND ...]\n", argv[0]), 2;
    printf("%-8s %-22s %8s %8s\n", "", "ns per access", "wall", "CPU");
    return !for_backends(argv + i, measure_backend);
}
