/* SPDX-License-Identifier: BSD-2-Clause */
/* machine.c: builds the virtual PC, boots it and runs each vCPU on a thread of its own. */
#include "machine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BACKENDS 16u

/* ---- backends ---- */

static const char *state(const struct vmm_backend_report *report)
{
    if (report->result != 0) {
        return "unavailable";
    }
    return report->flags & VMM_BACKEND_DEGRADED ? "degraded" : "available";
}

int machine_list_backends(FILE *file)
{
    struct vmm_backend_report reports[MAX_BACKENDS];
    int usable = 0;
    int n;

    for (uint32_t i = 0; i < MAX_BACKENDS; i++) {
        reports[i] = (struct vmm_backend_report){.size = sizeof(reports[i])};
    }
    n = vmm_backend_probe(reports, MAX_BACKENDS);
    for (int i = 0; i < n && i < (int)MAX_BACKENDS; i++) {
        fprintf(file, "%-8s %-12s %s\n", reports[i].name, state(&reports[i]), reports[i].reason);
        usable += reports[i].result == 0;
    }
    return usable;
}

/* ---- creation ---- */

static int failed(struct machine *machine, const char *what)
{
    struct vmm_error error = {.size = sizeof(error)};

    vm_last_error(machine->vm, &error);
    fprintf(stderr, "vmm-run: %s: %s (%s)\n", what, error.text, vmm_err_name(error.code));
    return -1;
}

static int load_image(const char *path, struct vmm_image *image)
{
    struct vmm_error error = {.size = sizeof(error)};

    image->size = sizeof(*image);
    if (vmm_image_load(path, 0, image, &error) == 0) {
        image->name = path;
        return 0;
    }
    fprintf(stderr, "vmm-run: %s\n", error.text);
    return -1;
}

/* "FILE", or "FILE arguments" for a Multiboot module whose string is the whole text. */
static int load_module(const char *text, struct vmm_image *image)
{
    char *path = strdup(text);
    int result;

    if (path == NULL) {
        fputs("vmm-run: out of memory\n", stderr);
        return -1;
    }
    path[strcspn(path, " ")] = '\0';
    result = load_image(path, image);
    image->name = text;
    free(path);
    return result;
}

static int create_vm(struct machine *machine)
{
    const char *const names[] = {machine->options->backend, NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {
        .size = sizeof(config),
        .flags = (machine->options->check ? VMM_VM_LOCKSTEP : 0) |
                 (machine->options->hot ? VMM_VM_TRANSLATE_ALL : 0) |
                 (machine->options->direct ? VMM_VM_DIRECT : 0),
        .select = names[0] != NULL ? VMM_SELECT_REQUIRE : VMM_SELECT_AUTO,
        .backends = names[0] != NULL ? names : NULL,
        .irqchip = VMM_IRQCHIP_PC,
        .code_cache = machine->options->code_cache,
        .irqchip_mode = machine->options->irqchip,
        .max_vcpus = machine->options->cpus,
        .error = &error,
    };
    int result = vm_create(&config, &machine->vm);

    if (result == 0) {
        return 0;
    }
    machine->vm = NULL;
    fprintf(stderr, "vmm-run: cannot create the VM: %s (%s)\n",
            error.text[0] != '\0' ? error.text : vmm_strerror(result), vmm_err_name(result));
    if (result == VMM_E_NODEV) {
        machine_list_backends(stderr);
    }
    return -1;
}

int machine_create(struct machine *machine, const struct options *options,
                   size_t (*serial_output)(void *, const uint8_t *, size_t), void *serial_opaque)
{
    struct vmm_pc_config config = {
        .size = sizeof(config),
        .flags = VMM_PC_SERIAL_FLOW,
        .memory = options->memory,
        .cpus = options->cpus,
        .serial_output = serial_output,
        .opaque = serial_opaque,
    };

    machine->options = options;
    pthread_mutex_init(&machine->lock, NULL);
    if (load_image(options->kernel, &machine->kernel) != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < options->nmodules; i++) {
        if (load_module(options->modules[i], &machine->modules[i]) != 0) {
            return -1;
        }
    }
    if (create_vm(machine) != 0) {
        return -1;
    }
    machine->pc.size = sizeof(machine->pc);
    if (vmm_pc_create(machine->vm, &config, &machine->pc) != 0) {
        return failed(machine, "cannot build the machine");
    }
    for (uint32_t i = 0; i < options->cpus; i++) {
        if (vcpu_create(machine->vm, i, machine, &machine->vcpu[i]) != 0) {
            return failed(machine, "cannot create a CPU");
        }
    }
    return 0;
}

void machine_destroy(struct machine *machine)
{
    if (machine->vm != NULL) {
        vm_destroy(machine->vm);
        machine->vm = NULL;
    }
    if (machine->options != NULL) {
        for (uint32_t i = 0; i < machine->options->nmodules; i++) {
            vmm_image_free(&machine->modules[i]);
        }
        vmm_image_free(&machine->kernel);
        pthread_mutex_destroy(&machine->lock);
    }
}

/* ---- running ---- */

static void end_run(struct machine *machine, uint32_t cpu, int error, const struct vcpu_exit *exit)
{
    int first;

    pthread_mutex_lock(&machine->lock);
    first = !machine->ended;
    if (first) {
        machine->ended = 1;
        machine->end_cpu = cpu;
        machine->end_error = error;
        machine->exit = *exit;
    }
    pthread_mutex_unlock(&machine->lock);
    if (first) {
        machine->on_end(machine->opaque);
    }
}

/* What vmm-run does about an exit: 1 to run on. */
static int handle_exit(struct vcpu_exit *exit)
{
    switch (exit->reason) {
    case VMM_EXIT_NONE:
    case VMM_EXIT_INTERRUPTED:
    case VMM_EXIT_BUDGET:
    case VMM_EXIT_IRQ_WINDOW:
    case VMM_EXIT_HLT:
        return 1;
    case VMM_EXIT_MMIO: /* nobody is there: reads give all ones, writes go nowhere */
        exit->u.mmio.data = UINT64_MAX;
        return 1;
    case VMM_EXIT_PIO:
        exit->u.pio.data = UINT64_MAX;
        return 1;
    case VMM_EXIT_PANIC: /* bit 0: panicked; others: a crash kernel takes over, ... */
        return (exit->u.user.value & 1) == 0;
    default:
        return 0;
    }
}

static void *run_vcpu(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct machine *machine = vcpu_data(vcpu);
    struct vcpu_exit exit = {.size = sizeof(exit)};
    int error;

    do {
        error = vcpu_run(vcpu, &exit);
    } while (error == 0 && handle_exit(&exit));
    if (error != 0 || exit.reason != VMM_EXIT_STOPPED) {
        end_run(machine, vcpu_id(vcpu), error, &exit);
    }
    return NULL;
}

int machine_start(struct machine *machine)
{
    const struct options *options = machine->options;
    struct vmm_boot boot = {
        .size = sizeof(boot),
        .kernel = machine->kernel,
        .modules = machine->modules,
        .nmodules = options->nmodules,
        .cmdline = options->append,
        .pc = &machine->pc,
    };

    if (vm_boot(machine->vcpu[0], options->format, &boot) != 0) {
        return failed(machine, options->kernel);
    }
    machine->ended = 0;
    machine->end_error = 0;
    for (machine->running = 0; machine->running < options->cpus; machine->running++) {
        if (pthread_create(&machine->thread[machine->running], NULL, run_vcpu,
                           machine->vcpu[machine->running]) != 0) {
            fputs("vmm-run: cannot create a thread\n", stderr);
            machine_stop(machine);
            return -1;
        }
    }
    return 0;
}

void machine_stop(struct machine *machine)
{
    vm_stop(machine->vm);
    while (machine->running > 0) {
        pthread_join(machine->thread[--machine->running], NULL);
    }
}

int machine_reset(struct machine *machine)
{
    if (vm_resume(machine->vm) != 0 || vm_reset(machine->vm) != 0) {
        return failed(machine, "cannot reset the machine");
    }
    return 0;
}

#define MAX_COUNTS 40

/* "exit PIO         12" */
static void print_counts(struct vm *vm, int (*get)(struct vm *, struct vmm_count *, uint32_t),
                         const char *what, FILE *file)
{
    struct vmm_count counts[MAX_COUNTS] = {{.size = sizeof(counts[0])}};
    int n = get(vm, counts, MAX_COUNTS);

    for (int i = 0; i < n && i < MAX_COUNTS; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s %s", what, counts[i].name);
        fprintf(file, "%-24s %" PRIu64 "\n", name, counts[i].count);
    }
}

void machine_stats(struct machine *machine, double seconds, FILE *file)
{
    struct vm_stats stats = {.size = sizeof(stats)};
    struct vm_caps caps = {.size = sizeof(caps)};

    if (vm_get_stats(machine->vm, &stats) != 0 || vm_get_caps(machine->vm, &caps) != 0) {
        failed(machine, "no counters");
        return;
    }
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"instructions", stats.insns},
        {"exits", stats.exits},
        {"mmio accesses", stats.mmio},
        {"port accesses", stats.pio},
        {"interrupts", stats.irqs},
        {"exceptions", stats.exceptions},
        {"halts", stats.halts},
        {"tlb misses", stats.tlb_misses},
        {"tlb flushes", stats.tlb_flushes},
        {"blocks decoded", stats.blocks_decoded},
        {"blocks flushed", stats.blocks_flushed},
        {"block lookups", stats.block_lookups},
        {"thunks", stats.thunks},
        {"hardware exits", stats.hw_exits},
        {"repairs", stats.repairs},
        {"translations", stats.translations},
        {"code flushes", stats.code_flushes},
        {"handler calls", stats.handler_calls},
        {"regions", stats.regions},
        {"chains", stats.chains},
        {"code bytes", stats.code_bytes},
        {"tlb level 2 hits", stats.tlb_l2_hits},
        {"tlb read misses", stats.tlb_read_misses},
        {"tlb write misses", stats.tlb_write_misses},
        {"tlb fetch misses", stats.tlb_fetch_misses},
        {"direct entries", stats.direct_entries},
        {"direct faults", stats.direct_faults},
        {"direct pages", stats.direct_pages},
        {"direct spaces", stats.direct_spaces},
    };
    fprintf(file, "backend          %s\n", caps.backend);
    fprintf(file, "wall seconds     %.3f\n", seconds);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fprintf(file, "%-16s %" PRIu64 "\n", rows[i].name, rows[i].value);
    }
    fprintf(file, "MIPS             %.1f\n", (double)stats.insns / 1e6 / seconds);
    print_counts(machine->vm, vm_get_exit_counts, "exit", file);
    print_counts(machine->vm, vm_get_fallback_counts, "fallback", file);
}
