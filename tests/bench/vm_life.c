/* SPDX-License-Identifier: BSD-2-Clause */
/* vm_life.c: the time that a VM takes from vm_create over its first instruction to vm_destroy.
 *
 * usage: bench_vm_life [--lives N] [--real] [BACKEND ...]
 *
 * Each life creates a VM with 128 MiB of memory and one vCPU, which executes one OUT, in 64-bit
 * mode on page tables of the library's making (--real: in real mode). Medians of N lives (default
 * 300), for each kind of interrupt controllers; the first life of the process is shown by itself,
 * because it also pays for what the library finds out only once. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vmm/vmm.h>

#include "backends.h"

#define MEMORY (128u << 20)
#define CODE   0x1000u

enum step { CREATE, MEM, VCPU, SETUP, RUN, DESTROY, TOTAL, NSTEPS };
static const char *const step_names[NSTEPS] = {"vm_create", "memory",  "vcpu_create", "set_mode",
                                               "vcpu_run",  "destroy", "total"};

static unsigned lives = 300;
static uint32_t mode = VMM_SETUP_LONG64;

static uint64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static const struct kind {
    const char *name;
    uint32_t irqchip, irqchip_mode;
} kinds[] = {
    {"no irqchip", VMM_IRQCHIP_NONE, VMM_IRQCHIP_MODE_AUTO},
    {"irqchip auto", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_AUTO},
    {"irqchip user", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_USER},
    {"irqchip split", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_SPLIT},
    {"irqchip kernel", VMM_IRQCHIP_PC, VMM_IRQCHIP_MODE_KERNEL},
};

/* One life: nanoseconds of each step. Returns the VMM_E_* of what failed. */
static int live(const char *backend, const struct kind *kind, uint64_t ns[NSTEPS])
{
    const char *const backends[] = {backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = kind->irqchip,
                               .irqchip_mode = kind->irqchip_mode,
                               .error = &error};
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = mode, .rip = CODE, .rsp = 0x9000, .tables = 0x10000};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    static const uint8_t code[] = {0xe6, 0x10}; /* out %al,$0x10 */
    struct vcpu *vcpu;
    struct vm *vm;
    uint64_t t[NSTEPS];

    t[CREATE] = now();
    int err = vm_create(&config, &vm);
    if (err) {
        printf("%-7s %-15s %s\n", backend, kind->name, error.text);
        return err;
    }
    t[MEM] = now();
    err = vm_mem_alloc(vm, 0, MEMORY, VMM_MEM_RWX, NULL);
    t[VCPU] = now();
    if (!err)
        err = vcpu_create(vm, 0, NULL, &vcpu);
    t[SETUP] = now();
    if (!err)
        err = vm_mem_write(vm, CODE, code, sizeof(code));
    if (!err)
        err = vcpu_set_mode(vcpu, &setup);
    t[RUN] = now();
    if (!err)
        err = vcpu_run(vcpu, &exit);
    t[DESTROY] = now();
    if (err || exit.reason != VMM_EXIT_PIO) {
        vm_last_error(vm, &error);
        printf("%-7s %-15s exit %s, %s: %s\n", backend, kind->name, vmm_exit_name(exit.reason),
               error.op, error.text);
        vm_destroy(vm);
        return err ? err : VMM_E_BACKEND;
    }
    vm_destroy(vm);
    t[TOTAL] = now();
    for (int i = CREATE; i < TOTAL; i++)
        ns[i] = t[i + 1] - t[i];
    ns[TOTAL] = t[TOTAL] - t[CREATE];
    return 0;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void report(const char *backend, const char *what, const uint64_t ns[NSTEPS])
{
    printf("%-7s %-15s", backend, what);
    for (int i = 0; i < NSTEPS; i++)
        printf(" %11.1f", (double)ns[i] / 1e3);
    printf("\n");
}

static bool measure(const char *backend, const struct kind *kind)
{
    uint64_t *ns = calloc(lives, sizeof(uint64_t[NSTEPS])), *one = calloc(lives, sizeof(*one));
    uint64_t median[NSTEPS];
    bool ok = ns && one;

    for (unsigned i = 0; ok && i < lives; i++)
        ok = !live(backend, kind, ns + (size_t)i * NSTEPS);
    for (unsigned s = 0; ok && s < NSTEPS; s++) {
        for (unsigned i = 0; i < lives; i++)
            one[i] = ns[(size_t)i * NSTEPS + s];
        qsort(one, lives, sizeof(*one), by_value);
        median[s] = one[lives / 2];
    }
    if (ok)
        report(backend, kind->name, median);
    free(ns);
    free(one);
    return ok;
}

static bool measure_backend(const char *backend)
{
    uint64_t first[NSTEPS];

    if (live(backend, &kinds[0], first))
        return false;
    report(backend, "(first life)", first);
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        measure(backend, &kinds[i]);
    return true;
}

int main(int argc, char **argv)
{
    int i = 1;

    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--real"))
            mode = VMM_SETUP_REAL;
        else if (!strcmp(argv[i], "--lives") && i + 1 < argc && atoi(argv[i + 1]) > 0)
            lives = (unsigned)atoi(argv[++i]);
        else
            return fprintf(stderr, "usage: %s [--lives N] [--real] [BACKEND ...]\n", argv[0]), 2;
    }
    printf("microseconds, medians of %u\n%-23s", lives, "");
    for (int s = 0; s < NSTEPS; s++)
        printf(" %11s", step_names[s]);
    printf("\n");
    return !for_backends(argv + i, measure_backend);
}
