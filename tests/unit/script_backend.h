/* SPDX-License-Identifier: BSD-2-Clause */
/* script_backend.h: an engine whose vCPUs execute a C function of the test as their instructions.
 *
 * Included by one source file of a test program: its table of engines takes the library's place. */
#ifndef SCRIPT_BACKEND_H
#define SCRIPT_BACKEND_H

#include <check.h>
#include <string.h>

#include <vmm/vmm.h>

#include "backends/backend.h"

/* One instruction: CORE_IO_*. `serial` is the same when it is restarted. */
typedef int script_insn(struct vcpu *vcpu, uint64_t serial);

struct script_cpu {
    script_insn *insn;
    uint64_t serial;
    uint64_t count; /* instructions to execute before it halts; UINT64_MAX: until it is kicked */
};

static struct script_cpu script[VMM_MAX_VCPUS];

/* What the core told the engine. */
static struct {
    uint32_t map_changes, code_changes;
    uint64_t gpa, len;
} told;

static void script_probe(struct vmm_backend_report *report)
{
    report->result = 0;
}

static int script_vm_init(struct vm *vm)
{
    (void)vm;
    return 0;
}

static void script_vm_fini(struct vm *vm)
{
    (void)vm;
}

static void script_caps(struct vm *vm, struct vm_caps *caps)
{
    (void)vm;
    caps->gpa_bits = 40;
    caps->page_size = 4096;
    caps->xsave_size = 576;
}

static void script_stats(struct vm *vm, struct vm_stats *stats)
{
    (void)vm;
    (void)stats;
}

static int script_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    (void)vm;
    (void)entries;
    *n = 0;
    return 0;
}

static int script_vcpu_init(struct vcpu *vcpu)
{
    (void)vcpu;
    return 0;
}

static void script_vcpu_fini(struct vcpu *vcpu)
{
    (void)vcpu;
}

static void script_vcpu_reset(struct vcpu *vcpu, bool init)
{
    (void)vcpu;
    (void)init;
}

static int script_run(struct vcpu *vcpu, bool step)
{
    struct script_cpu *s = &script[vcpu->id];

    (void)step;
    while (s->count) {
        if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed))
            return BACKEND_AGAIN;
        if (s->insn(vcpu, s->serial) == CORE_IO_ABORT)
            return vcpu->exit.reason ? BACKEND_EXIT : BACKEND_AGAIN;
        s->serial++;
        if (s->count != UINT64_MAX)
            s->count--;
    }
    return BACKEND_HALT;
}

static int script_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    (void)vcpu;
    (void)regs;
    return 0;
}

static int script_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    (void)vcpu;
    (void)regs;
    return 0;
}

static int script_set_cpuid(struct vcpu *vcpu)
{
    (void)vcpu;
    return 0;
}

static void script_map_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    (void)vm;
    told.map_changes++;
    told.gpa = gpa;
    told.len = len;
}

static void script_code_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    (void)vm;
    told.code_changes++;
    told.gpa = gpa;
    told.len = len;
}

static const struct vmm_backend_ops script_ops = {
    .name = "script",
    .direct = true,
    .probe = script_probe,
    .vm_init = script_vm_init,
    .vm_fini = script_vm_fini,
    .caps = script_caps,
    .stats = script_stats,
    .default_cpuid = script_cpuid,
    .vcpu_init = script_vcpu_init,
    .vcpu_fini = script_vcpu_fini,
    .vcpu_reset = script_vcpu_reset,
    .run = script_run,
    .get_regs = script_get_regs,
    .set_regs = script_set_regs,
    .set_cpuid = script_set_cpuid,
    .mem_map_changed = script_map_changed,
    .code_changed = script_code_changed,
};

const struct vmm_backend_ops *const vmm_backends[] = {&script_ops, NULL};

#define SCRIPT_CPUS 4u

static struct vm *vm;
static struct vcpu *cpu[SCRIPT_CPUS];

static void script_setup_flags(uint32_t flags)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = SCRIPT_CPUS, .flags = flags};

    memset(script, 0, sizeof(script));
    memset(&told, 0, sizeof(told));
    ck_assert_int_eq(vm_create(&config, &vm), 0);
    for (uint32_t i = 0; i < SCRIPT_CPUS; i++)
        ck_assert_int_eq(vcpu_create(vm, i, NULL, &cpu[i]), 0);
}

static void script_setup(void)
{
    script_setup_flags(0);
}

static void script_teardown(void)
{
    if (vm)
        ck_assert_int_eq(vm_destroy(vm), 0);
}

/* The text and address of the last failure. */
__attribute__((unused)) static struct vmm_error last_error(void)
{
    struct vmm_error e = {.size = sizeof(e)};

    vm_last_error(vm, &e);
    return e;
}

#endif
