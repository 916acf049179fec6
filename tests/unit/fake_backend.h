/* SPDX-License-Identifier: BSD-2-Clause */
/* fake_backend.h: an engine for tests of the core: its guest code is an array of operations, and
 * RIP is the index of the next one. It takes the place of the library's table of backends. */
#ifndef FAKE_BACKEND_H
#define FAKE_BACKEND_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/internal.h"

enum fake_kind {
    OP_NOP,
    OP_HLT,
    OP_JMP,    /* to a */
    OP_OUT,    /* port a, value b, 1 byte */
    OP_IN,     /* port a, 1 byte, to RAX */
    OP_READ,   /* 4 bytes at a, to RAX */
    OP_WRITE,  /* 4 bytes at a, value b */
    OP_MOVS,   /* 4 bytes from a to b: two accesses in one instruction */
    OP_RDMSR,  /* a, to RAX */
    OP_WRMSR,  /* a, value b */
    OP_CPUID,  /* leaf a, to RAX, RBX, RCX, RDX */
    OP_STI,    /* sets RFLAGS.IF */
    OP_TRIPLE, /* triple fault */
};

struct fake_op {
    enum fake_kind kind;
    uint64_t a, b;
};

struct fake_cpu {
    struct vcpu_regs regs;
    const struct fake_op *code;
    _Atomic uint64_t retired;
    uint64_t restarts;
    uint32_t faults;     /* #GP that were raised; the instruction is skipped */
    uint32_t last_event; /* vector of the last delivered event + 1 */
    uint32_t events;
    uint32_t sets; /* set_cpuid and set_debug calls */
};

static int fake_probe_result;
static uint64_t fake_caps_bits = VMM_CAP_INSN_BUDGET | VMM_CAP_STEP | VMM_CAP_BREAKPOINT |
                                 VMM_CAP_WATCHPOINT | VMM_CAP_EXIT_CPUID | VMM_CAP_TSC_KHZ;
static _Atomic int fake_vms, fake_cpus; /* alive */

static struct fake_cpu *fake_cpu(struct vcpu *vcpu)
{
    return vcpu->backend_data;
}

/* ---- executing ---- */

static void fake_set(struct fake_cpu *cpu, int reg, uint64_t value)
{
    cpu->regs.gpr[reg] = value;
}

/* One operation: CORE_IO_*. */
static int fake_execute(struct vcpu *vcpu, const struct fake_op *op)
{
    struct fake_cpu *cpu = fake_cpu(vcpu);
    uint64_t serial = atomic_load(&cpu->retired), value = op->b;
    uint32_t regs[4];
    bool handled;
    int r = CORE_IO_OK;

    switch (op->kind) {
    case OP_HLT:
        cpu->regs.activity = VMM_HALTED;
        break;
    case OP_JMP:
        cpu->regs.rip = op->a - 1;
        break;
    case OP_OUT:
        r = core_pio_access(vcpu->vm, vcpu, serial, (uint16_t)op->a, 1, true, &value);
        break;
    case OP_IN:
        r = core_pio_access(vcpu->vm, vcpu, serial, (uint16_t)op->a, 1, false, &value);
        if (!r)
            fake_set(cpu, VMM_RAX, value & 0xff);
        break;
    case OP_READ:
        r = core_mmio_access(vcpu->vm, vcpu, serial, op->a, 4, false, &value);
        if (!r)
            fake_set(cpu, VMM_RAX, (uint32_t)value);
        break;
    case OP_WRITE:
        r = core_mmio_access(vcpu->vm, vcpu, serial, op->a, 4, true, &value);
        break;
    case OP_MOVS:
        r = core_mmio_access(vcpu->vm, vcpu, serial, op->a, 4, false, &value);
        if (!r)
            r = core_mmio_access(vcpu->vm, vcpu, serial, op->b, 4, true, &value);
        break;
    case OP_RDMSR:
        r = core_msr_access(vcpu, serial, (uint32_t)op->a, false, &value, &handled);
        if (!r && !handled)
            r = CORE_IO_GP;
        if (!r)
            fake_set(cpu, VMM_RAX, value);
        break;
    case OP_WRMSR:
        r = core_msr_access(vcpu, serial, (uint32_t)op->a, true, &value, &handled);
        if (!r && !handled)
            r = CORE_IO_GP;
        break;
    case OP_CPUID:
        r = core_cpuid(vcpu, serial, (uint32_t)op->a, 0, regs);
        if (!r) {
            fake_set(cpu, VMM_RAX, regs[0]);
            fake_set(cpu, VMM_RBX, regs[1]);
            fake_set(cpu, VMM_RCX, regs[2]);
            fake_set(cpu, VMM_RDX, regs[3]);
        }
        break;
    case OP_STI:
        cpu->regs.rflags |= 0x200;
        break;
    case OP_TRIPLE:
        cpu->regs.activity = VMM_SHUTDOWN;
        cpu->regs.rip--;
        break;
    default:
        break;
    }
    return r;
}

static bool fake_take_event(struct vcpu *vcpu)
{
    struct fake_cpu *cpu = fake_cpu(vcpu);
    int vector = -1;

    if (vcpu->restart || cpu->regs.activity > VMM_HALTED)
        return false;
    if (cpu->regs.inject_valid) {
        vector = cpu->regs.inject_vector;
        cpu->regs.inject_valid = 0;
    } else if (cpu->regs.nmi_pending && !cpu->regs.nmi_blocked) {
        vector = 2;
        cpu->regs.nmi_pending = 0;
    } else if ((cpu->regs.rflags & 0x200) && core_intr_pending(vcpu)) {
        vector = core_intr_ack(vcpu);
    }
    if (vector < 0)
        return false;
    cpu->regs.activity = VMM_ACTIVE;
    cpu->last_event = (uint32_t)vector + 1;
    cpu->events++;
    return true;
}

static bool fake_irq_window(struct vcpu *vcpu)
{
    struct fake_cpu *cpu = fake_cpu(vcpu);

    return (cpu->regs.rflags & 0x200) && !cpu->regs.inject_valid && !cpu->regs.shadow;
}

static int fake_run(struct vcpu *vcpu, bool step)
{
    struct fake_cpu *cpu = fake_cpu(vcpu);

    for (uint32_t n = 0;; n++) {
        if (n % 16 == 0)
            core_poll_timers(vcpu);
        if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed))
            return BACKEND_AGAIN;
        if (fake_take_event(vcpu) && step)
            return BACKEND_STEPPED;
        if (vcpu->irq_window_wanted && fake_irq_window(vcpu)) {
            vcpu->irq_window_wanted = false;
            vcpu->exit.reason = VMM_EXIT_IRQ_WINDOW;
            return BACKEND_EXIT;
        }
        if (cpu->regs.activity == VMM_SHUTDOWN) {
            vcpu->exit.reason = VMM_EXIT_SHUTDOWN;
            return BACKEND_EXIT;
        }
        if (cpu->regs.activity != VMM_ACTIVE)
            return BACKEND_HALT;
        if (!vcpu->insn_budget || !cpu->code)
            return BACKEND_AGAIN;

        int r = fake_execute(vcpu, &cpu->code[cpu->regs.rip]);
        if (r == CORE_IO_ABORT) {
            vcpu->restart = true;
            cpu->restarts++;
            return vcpu->exit.reason ? BACKEND_EXIT : BACKEND_AGAIN;
        }
        cpu->faults += r == CORE_IO_GP;
        vcpu->restart = false;
        cpu->regs.rip++;
        atomic_fetch_add(&cpu->retired, 1);
        if (vcpu->insn_budget != UINT64_MAX)
            vcpu->insn_budget--;
        if (step)
            return BACKEND_STEPPED;
    }
}

/* ---- the rest of an engine ---- */

static void fake_probe(struct vmm_backend_report *report)
{
    report->result = fake_probe_result;
    strcpy(report->reason, fake_probe_result ? "switched off by the test" : "for tests");
}

static int fake_vm_init(struct vm *vm)
{
    vm->backend_data = &fake_vms;
    fake_vms++;
    return 0;
}

static void fake_vm_fini(struct vm *vm)
{
    vm->backend_data = NULL;
    fake_vms--;
}

static void fake_caps(struct vm *vm, struct vm_caps *caps)
{
    (void)vm;
    caps->caps = fake_caps_bits;
    caps->gpa_bits = 40;
    caps->xsave_size = 576;
}

static void fake_stats(struct vm *vm, struct vm_stats *stats)
{
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu && vcpu->backend_data)
            stats->insns += atomic_load(&fake_cpu(vcpu)->retired);
    }
}

static int fake_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    static const struct vmm_cpuid table[] = {
        {.leaf = 0, .eax = 0xb, .ebx = 0x756e6547, .edx = 0x49656e69, .ecx = 0x6c65746e},
        {.leaf = 0x80000000, .eax = 0x80000001}, /* not in order */
        {.leaf = 1, .eax = 0x600, .ecx = 0x1, .edx = 0x11},
        {.leaf = 0xb, .subleaf = 1, .eax = 2, .ecx = 0x201, .flags = VMM_CPUID_SUBLEAF},
        {.leaf = 0xb, .subleaf = 0, .eax = 1, .ecx = 0x100, .flags = VMM_CPUID_SUBLEAF},
        {.leaf = 0x80000001, .edx = 0x20000000},
    };
    uint32_t count = sizeof(table) / sizeof(table[0]), room = *n;

    (void)vm;
    *n = count;
    memcpy(entries, table, (room < count ? room : count) * sizeof(table[0]));
    return room < count ? VMM_E_NOSPACE : 0;
}

static void fake_vcpu_reset(struct vcpu *vcpu, bool init)
{
    struct fake_cpu *cpu = fake_cpu(vcpu);

    (void)init;
    memset(&cpu->regs, 0, sizeof(cpu->regs));
    cpu->regs.rflags = 2;
    cpu->regs.seg[VMM_CS].selector = 0xf000;
}

static int fake_vcpu_init(struct vcpu *vcpu)
{
    struct fake_cpu *cpu = calloc(1, sizeof(*cpu));

    if (!cpu)
        return VMM_E_NOMEM;
    vcpu->backend_data = cpu;
    fake_cpus++;
    return 0;
}

static void fake_vcpu_fini(struct vcpu *vcpu)
{
    free(vcpu->backend_data);
    fake_cpus--;
}

#define FAKE_COPY(member) memcpy(&to->member, &from->member, sizeof(to->member))

static void fake_copy_regs(struct vcpu_regs *to, const struct vcpu_regs *from, uint32_t groups)
{
    if (groups & VMM_REGS_GPR) {
        FAKE_COPY(gpr);
        FAKE_COPY(rip);
        FAKE_COPY(rflags);
    }
    if (groups & VMM_REGS_SEG)
        FAKE_COPY(seg);
    if (groups & VMM_REGS_DT) {
        FAKE_COPY(gdt);
        FAKE_COPY(idt);
    }
    if (groups & VMM_REGS_CONTROL)
        memcpy(&to->cr0, &from->cr0, 8 * sizeof(uint64_t));
    if (groups & VMM_REGS_DEBUG)
        FAKE_COPY(dr);
    if (groups & VMM_REGS_MSR)
        memcpy(&to->star, &from->star, 11 * sizeof(uint64_t));
    if (groups & VMM_REGS_EVENTS)
        memcpy(&to->activity, &from->activity, 24);
}

static int fake_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    fake_copy_regs(regs, &fake_cpu(vcpu)->regs, regs->groups);
    return 0;
}

static int fake_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    if ((regs->groups & VMM_REGS_GPR) && !(regs->rflags & 2))
        return vm_fail(vcpu->vm, VMM_E_INVAL, "vcpu_set_regs", "rflags");
    fake_copy_regs(&fake_cpu(vcpu)->regs, regs, regs->groups);
    return 0;
}

static int fake_get_xsave(struct vcpu *vcpu, void *area, uint32_t len)
{
    (void)vcpu;
    memset(area, 0x5a, len);
    return 0;
}

static int fake_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    (void)vcpu;
    (void)len;
    return ((const uint8_t *)area)[512] > 3 ? VMM_E_INVAL : 0;
}

static int fake_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
    (void)vcpu;
    *value = 0x1234;
    return index == 0x277 ? 0 : VMM_E_NOENT;
}

static int fake_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    (void)vcpu;
    (void)value;
    return index == 0x277 ? 0 : VMM_E_NOENT;
}

static int fake_set_cpuid(struct vcpu *vcpu)
{
    fake_cpu(vcpu)->sets++;
    return 0;
}

static int fake_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    fake_cpu(vcpu)->sets += debug->nbreakpoints;
    return 0;
}

/* Virtual addresses are physical ones from 0x10000 on, mapped up to 1 MiB. */
static int fake_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok)
{
    (void)vcpu;
    *ok = gva >= 0x10000 && gva < 0x100000;
    *gpa = gva - 0x10000;
    return 0;
}

static void fake_mem_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    (void)gpa;
    (void)len;
    /* What engines do: they walk all vCPUs that have state. */
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu && vcpu->backend_data)
            fake_cpu(vcpu)->sets += 0x10000;
    }
}

/* Tests set the members that they need. */
static struct backend_host_ops fake_host;
static int fake_msr_policy_result;
static uint32_t fake_msr_policies;

static int fake_msr_policy(struct vcpu *vcpu)
{
    fake_msr_policies += vcpu->nmsr_ranges;
    return fake_msr_policy_result;
}

static uint32_t fake_clears;
static uint64_t fake_clear_gpa, fake_clear_len;

static void fake_dirty_cleared(struct vm *vm, uint64_t gpa, uint64_t len)
{
    (void)vm;
    fake_clears++;
    fake_clear_gpa = gpa;
    fake_clear_len = len;
}

static const struct vmm_backend_ops fake_backend = {
    .name = "fake",
    .probe = fake_probe,
    .vm_init = fake_vm_init,
    .vm_fini = fake_vm_fini,
    .caps = fake_caps,
    .stats = fake_stats,
    .default_cpuid = fake_default_cpuid,
    .vcpu_init = fake_vcpu_init,
    .vcpu_fini = fake_vcpu_fini,
    .vcpu_reset = fake_vcpu_reset,
    .run = fake_run,
    .get_regs = fake_get_regs,
    .set_regs = fake_set_regs,
    .get_xsave = fake_get_xsave,
    .set_xsave = fake_set_xsave,
    .get_msr = fake_get_msr,
    .set_msr = fake_set_msr,
    .set_cpuid = fake_set_cpuid,
    .set_debug = fake_set_debug,
    .translate = fake_translate,
    .irq_window = fake_irq_window,
    .mem_map_changed = fake_mem_changed,
    .code_changed = fake_mem_changed,
    .dirty_cleared = fake_dirty_cleared,
    .msr_policy = fake_msr_policy,
    .host = &fake_host,
};

#ifndef FAKE_OWN_TABLE /* else the test has one of its own */
static void broken_probe(struct vmm_backend_report *report)
{
    report->result = VMM_E_PERM;
    strcpy(report->reason, "never works");
}

static const struct vmm_backend_ops broken_backend = {.name = "broken", .probe = broken_probe};

const struct vmm_backend_ops *const vmm_backends[] = {&broken_backend, &fake_backend, NULL};
#endif

/* A VM with vCPU 0, which executes `code`. */
__attribute__((unused)) static struct vm *fake_vm(const struct vm_config *config)
{
    struct vm *vm = NULL;

    if (vm_create(config, &vm))
        abort();
    return vm;
}

__attribute__((unused)) static struct vcpu *fake_add(struct vm *vm, uint32_t id,
                                                     const struct fake_op *code)
{
    struct vcpu *vcpu = NULL;

    if (vcpu_create(vm, id, NULL, &vcpu))
        abort();
    fake_cpu(vcpu)->code = code;
    return vcpu;
}

#endif
