/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/interp/interp.c: the engine of the software CPU: binds core/x86 to the core. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/interp/interp.h"
#include "core/x86/cache.h"
#include "core/x86/thunk.h"
#include "core/x86/xstate.h"

bool interp_can_run(struct vmm_backend_report *report)
{
    void *rw, *rx;
    int r = os_code_alloc(MMU_PAGE_SIZE, &rw, &rx);

    if (r == ENOTSUP) /* a freestanding host without it: no vector instructions */
        return true;
    if (r) {
        report->result = r == EPERM || r == EACCES ? VMM_E_PERM : VMM_E_NOMEM;
        report->flags = 0;
        snprintf(report->reason, sizeof(report->reason), "%s",
                 r == EPERM || r == EACCES ? "the host allows no executable memory"
                                           : "no room for executable memory");
        return false;
    }
    os_code_free(rw, rx, MMU_PAGE_SIZE);
    return true;
}

static void interp_probe(struct vmm_backend_report *report)
{
    if (!interp_can_run(report))
        return;
    report->result = VMM_OK;
    strcpy(report->reason, "software CPU, needs executable memory");
}

/* ---- VMs ---- */

static int interp_vm_init(struct vm *vm)
{
    (void)vm;
    return VMM_OK;
}

static void interp_vm_fini(struct vm *vm)
{
    (void)vm;
}

int interp_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n)
{
    struct vmm_cpuid all[CORE_MAX_CPUID];
    uint32_t room = *n;

    *n = x86_default_cpuid(all, CORE_MAX_CPUID, vm->tsc_khz);
    memcpy(entries, all, (room < *n ? room : *n) * sizeof(*all));
    return room < *n ? VMM_E_NOSPACE : VMM_OK;
}

/* Physical address bits by CPUID leaf 80000008H. */
static uint32_t gpa_bits(struct vm *vm)
{
    struct vmm_cpuid all[CORE_MAX_CPUID];
    unsigned n = x86_default_cpuid(all, CORE_MAX_CPUID, vm->tsc_khz);

    for (unsigned i = 0; i < n; i++)
        if (all[i].leaf == 0x80000008)
            return all[i].eax & 0xff;
    return 36;
}

void interp_caps(struct vm *vm, struct vm_caps *caps)
{
    caps->caps = VMM_CAP_MEM_EXEC | VMM_CAP_INSN_BUDGET | VMM_CAP_STEP | VMM_CAP_BREAKPOINT |
                 VMM_CAP_WATCHPOINT | VMM_CAP_EXIT_CPUID | VMM_CAP_EXIT_HYPERCALL |
                 VMM_CAP_TSC_KHZ | VMM_CAP_CPUID_TABLE | VMM_CAP_TSC_OFFSET | VMM_CAP_HYPERCALL_UD |
                 VMM_CAP_DIRTY_EXACT;
    caps->gpa_bits = gpa_bits(vm);
    caps->page_size = MMU_PAGE_SIZE;
    caps->xsave_size = X86_XSAVE_MAX;
}

#define STATS(X)                                                                                   \
    X(insns, count.insns)                                                                          \
    X(irqs, count.irqs)                                                                            \
    X(exceptions, count.exceptions)                                                                \
    X(tlb_misses, mmu.misses)                                                                      \
    X(tlb_flushes, mmu.flushes)                                                                    \
    X(blocks_decoded, count.blocks_decoded)                                                        \
    X(blocks_flushed, count.blocks_flushed)                                                        \
    X(block_lookups, count.block_lookups)                                                          \
    X(thunks, count.thunks)                                                                        \
    X(translations, count.translations)                                                            \
    X(code_flushes, count.code_flushes)                                                            \
    X(handler_calls, count.handler_calls)                                                          \
    X(regions, count.regions)                                                                      \
    X(chains, count.chains)                                                                        \
    X(code_bytes, count.code_bytes)                                                                \
    X(tlb_l2_hits, mmu.l2_hits)                                                                    \
    X(tlb_read_misses, mmu.misses_by[MMU_READ])                                                    \
    X(tlb_write_misses, mmu.misses_by[MMU_WRITE])                                                  \
    X(tlb_fetch_misses, mmu.misses_by[MMU_EXEC])                                                   \
    X(direct_entries, count.direct_entries)                                                        \
    X(direct_faults, count.direct_faults)                                                          \
    X(direct_pages, count.direct_pages)                                                            \
    X(direct_spaces, count.direct_spaces)

static void publish_stats(struct interp_vcpu *iv)
{
    const struct x86_cpu *cpu = iv->cpu;

#define PUBLISH(name, counter)                                                                     \
    atomic_store_explicit(&iv->stats.name, cpu->counter, memory_order_relaxed);
    STATS(PUBLISH)
#undef PUBLISH
}

/* Under vm->lock, which keeps the vCPUs from going away. */
void interp_stats(struct vm *vm, struct vm_stats *stats)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct interp_vcpu *iv = interp_at(vm, i);

        if (!iv)
            continue;
#define ADD(name, counter)                                                                         \
    stats->name += atomic_load_explicit(&iv->stats.name, memory_order_relaxed);
        STATS(ADD)
#undef ADD
    }
}

/* With the world stopped. */
void interp_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct x86_cpu *cpu = interp_cpu_at(vm, i);

        if (!cpu)
            continue;
        mmu_flush_gpa(&cpu->mmu, gpa, len);
        x86_jump_flush(cpu);
        x86_cache_invalidate(cpu, gpa, len);
    }
}

/* With the world stopped. Bits of pages that have no blocks any more go away with the next store.
 */
void interp_code_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct x86_cpu *cpu = interp_cpu_at(vm, i);

        if (cpu)
            x86_cache_invalidate(cpu, gpa, len);
    }
}

/* With the world stopped. */
void interp_dirty_cleared(struct vm *vm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        struct x86_cpu *cpu = interp_cpu_at(vm, i);

        if (cpu)
            mmu_protect_gpa(&cpu->mmu, gpa, len);
    }
}

/* ---- vCPUs ---- */

void interp_vcpu_close(struct interp_vcpu *iv)
{
    x86_destroy(iv->cpu);
    iv->cpu = NULL;
    interp_env_fini(iv);
}

static void interp_vcpu_fini(struct vcpu *vcpu)
{
    struct interp_vcpu *iv = vcpu->backend_data;

    if (!iv)
        return;
    vcpu->backend_data = NULL;
    interp_vcpu_close(iv);
    free(iv);
}

int interp_set_cpuid(struct vcpu *vcpu)
{
    x86_cpuid_changed(interp_cpu(vcpu), vcpu->cpuid, vcpu->ncpuid);
    return VMM_OK;
}

/* EDX after reset is the processor's signature (SDM Vol. 3A 10.1.2). */
void interp_vcpu_reset(struct vcpu *vcpu, bool init)
{
    struct x86_cpu *cpu = interp_cpu(vcpu);

    x86_reset(cpu, init);
    for (uint32_t i = 0; i < vcpu->ncpuid; i++)
        if (vcpu->cpuid[i].leaf == 1)
            cpu->gpr[VMM_RDX] = vcpu->cpuid[i].eax;
}

int interp_vcpu_open(struct interp_vcpu *iv, struct vcpu *vcpu)
{
    iv->vcpu = vcpu;
    interp_env_init(iv);
    iv->cpu = x86_create(&iv->env, vcpu->id);
    int err = iv->cpu ? x86_thunks_create(iv->cpu) : ENOMEM;
    /* ENOTSUP: a freestanding host without code memory has no vector instructions. */
    if (err && err != ENOTSUP) {
        interp_vcpu_close(iv);
        return err == EPERM || err == EACCES ? VMM_E_PERM : VMM_E_NOMEM; /* no code memory */
    }
    iv->cpu->vmcall_exits = vcpu->vm->flags & VMM_VM_EXIT_HYPERCALL;
    vcpu->backend_data = iv;
    interp_set_cpuid(vcpu);
    interp_vcpu_reset(vcpu, false);
    return VMM_OK;
}

static int interp_vcpu_init(struct vcpu *vcpu)
{
    struct interp_vcpu *iv = calloc(1, sizeof(*iv));

    if (!iv)
        return VMM_E_NOMEM;
    int err = interp_vcpu_open(iv, vcpu);
    if (err)
        free(iv);
    return err;
}

/* ---- running ---- */

/* The bytes at CS:RIP, as far as they can be had without side effects. */
void interp_fill_insn(struct vcpu *vcpu)
{
    struct x86_cpu *cpu = interp_cpu(vcpu);
    struct vcpu_exit *e = &vcpu->exit;
    uint64_t linear = cpu->seg[VMM_CS].base + cpu->rip, gpa;

    for (e->insn_len = 0; e->insn_len < 15;) {
        struct core_page page;
        uint32_t n, offset;

        if (!(cpu->efer & X86_EFER_LMA))
            linear = (uint32_t)linear;
        if (!mmu_translate(&cpu->mmu, linear, &gpa) || !core_mem_page(vcpu->vm, gpa, &page) ||
            !page.host)
            return;
        offset = (uint32_t)(linear & ~MMU_PAGE_MASK);
        n = (uint32_t)(MMU_PAGE_SIZE - offset);
        if (n > 15u - e->insn_len)
            n = 15u - e->insn_len;
        memcpy(e->insn + e->insn_len, page.host + offset, n);
        e->insn_len += n;
        linear += n;
    }
}

/* X86_STOP_EXIT: the CPU's details. */
static void fill_exit(struct vcpu *vcpu)
{
    const struct x86_cpu *cpu = interp_cpu(vcpu);
    struct vcpu_exit *e = &vcpu->exit;

    e->reason = cpu->exit_reason;
    memset(&e->u, 0, sizeof(e->u));
    switch (e->reason) {
    case VMM_EXIT_MEM_FAULT:
        e->u.fault.gpa = cpu->exit_gpa;
        e->u.fault.gva = cpu->exit_gva;
        e->u.fault.access = VMM_ACCESS_EXEC;
        break;
    case VMM_EXIT_BREAKPOINT:
    case VMM_EXIT_WATCH:
        e->u.debug.addr = cpu->exit_gva;
        e->u.debug.index = cpu->exit_index;
        e->u.debug.dr6 = 1ull << (cpu->exit_index & 3);
        e->u.debug.vector = X86_DB;
        break;
    case VMM_EXIT_EXCEPTION:
        e->u.debug.vector = cpu->event.vector;
        e->u.debug.error = cpu->event.has_error ? cpu->event.error : 0;
        e->u.debug.addr = cpu->event.has_cr2 ? cpu->event.cr2 : cpu->seg[VMM_CS].base + cpu->rip;
        e->u.debug.dr6 = cpu->event.vector == X86_DB ? cpu->dr.dr6 : 0;
        break;
    default:
        break;
    }
}

static int exits(struct vcpu *vcpu)
{
    interp_fill_insn(vcpu);
    return BACKEND_EXIT;
}

int interp_run(struct vcpu *vcpu, bool step)
{
    struct interp_vcpu *iv = vcpu->backend_data;
    struct x86_cpu *cpu = iv->cpu;
    uint64_t nexits = atomic_load_explicit(&vcpu->nexits, memory_order_relaxed), done;
    enum x86_stop stop;

    /* Requests come before the call of wake, so none is lost. */
    atomic_store(&cpu->attention, 0);
    if (atomic_load(&vcpu->requests) || !vcpu->insn_budget)
        return BACKEND_AGAIN;
    if (nexits != iv->nexits) {
        /* Between two vcpu_run the host may have written to memory in its own ways. */
        iv->nexits = nexits;
        x86_cache_recheck(cpu);
    }
    cpu->restart = vcpu->restart;
    stop = x86_run(cpu, vcpu->insn_budget, step, &done);
    return interp_stopped(vcpu, stop, done);
}

int interp_stopped(struct vcpu *vcpu, enum x86_stop stop, uint64_t done)
{
    struct interp_vcpu *iv = vcpu->backend_data;

    publish_stats(iv);
    if (vcpu->insn_budget != UINT64_MAX)
        vcpu->insn_budget -= done;
    vcpu->restart = iv->cpu->restart;

    switch (stop) {
    case X86_STOP_STEP:
        return BACKEND_STEPPED;
    case X86_STOP_HLT:
        return BACKEND_HALT;
    case X86_STOP_ABORT:
        return vcpu->exit.reason == VMM_EXIT_NONE ? BACKEND_AGAIN : exits(vcpu);
    case X86_STOP_SHUTDOWN:
        vcpu->exit.reason = VMM_EXIT_SHUTDOWN;
        return exits(vcpu);
    case X86_STOP_EXIT:
        fill_exit(vcpu);
        return exits(vcpu);
    default:
        return BACKEND_AGAIN;
    }
}

void interp_wake(struct vcpu *vcpu)
{
    struct interp_vcpu *iv = vcpu->backend_data;

    if (iv)
        x86_wake(iv->cpu);
}

bool interp_event_waits(const struct interp_vcpu *iv)
{
    const struct x86_cpu *cpu = iv->cpu;

    if (cpu->event.valid || cpu->later.valid || cpu->pending_db)
        return true;
    if (cpu->shadow)
        return false;
    if (cpu->nmi_pending && !cpu->nmi_blocked)
        return true;
    return (cpu->rflags & X86_IF) && (iv->vcpu->irq_window_wanted || core_intr_pending(iv->vcpu));
}

bool interp_irq_window(struct vcpu *vcpu)
{
    const struct x86_cpu *cpu = interp_cpu(vcpu);

    return (cpu->rflags & X86_IF) && !x86_shadow(cpu) && !cpu->event.valid && !cpu->later.valid;
}

/* ---- state ---- */

int interp_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs)
{
    x86_get_regs(interp_cpu(vcpu), regs);
    return VMM_OK;
}

/* A callback's instruction goes on when it returns, and its successor follows it. */
static bool moves_inside_insn(struct x86_cpu *cpu, const struct vcpu_regs *regs)
{
    struct vcpu_regs now = {.groups = VMM_REGS_GPR};

    if (!cpu->blk || !(regs->groups & VMM_REGS_GPR))
        return false;
    x86_get_regs(cpu, &now);
    return regs->rip != now.rip;
}

int interp_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs)
{
    struct x86_cpu *cpu = interp_cpu(vcpu);

    if (moves_inside_insn(cpu, regs))
        return vm_fail(vcpu->vm, VMM_E_STATE, "vcpu_set_regs",
                       "a callback cannot move RIP: its instruction is not over");
    const char *wrong = x86_set_regs(cpu, regs);
    if (wrong)
        return vm_fail(vcpu->vm, VMM_E_INVAL, "vcpu_set_regs", "invalid state: %s", wrong);
    return VMM_OK;
}

int interp_get_xsave(struct vcpu *vcpu, void *area, uint32_t len)
{
    if (len < x86_xsave_size(interp_cpu(vcpu)))
        return VMM_E_NOSPACE;
    x86_get_xsave(interp_cpu(vcpu), area, len);
    return VMM_OK;
}

int interp_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len)
{
    return x86_set_xsave(interp_cpu(vcpu), area, len) ? VMM_OK : VMM_E_INVAL;
}

int interp_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value)
{
    return x86_read_msr(interp_cpu(vcpu), index, value, true) ? VMM_OK : VMM_E_NOENT;
}

int interp_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
    uint64_t old;

    if (x86_write_msr(interp_cpu(vcpu), index, value, true)) {
        x86_end_block(interp_cpu(vcpu));
        return VMM_OK;
    }
    return x86_read_msr(interp_cpu(vcpu), index, &old, true) ? VMM_E_INVAL : VMM_E_NOENT;
}

static bool valid_breakpoint(const struct vmm_breakpoint *b)
{
    switch (b->type) {
    case VMM_BREAK_EXEC:
        return true;
    case VMM_BREAK_WRITE:
    case VMM_BREAK_ACCESS:
        return b->len == 1 || b->len == 2 || b->len == 4 || b->len == 8;
    default:
        return false;
    }
}

int interp_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    static const struct vmm_debug none;
    struct x86_cpu *cpu = interp_cpu(vcpu);

    if (!debug)
        debug = &none;
    if (debug->nbreakpoints > 4)
        return VMM_E_INVAL;
    for (unsigned i = 0; i < debug->nbreakpoints; i++)
        if (!valid_breakpoint(&debug->breakpoints[i]))
            return VMM_E_INVAL;
    cpu->nhost_bp = debug->nbreakpoints;
    for (unsigned i = 0; i < debug->nbreakpoints; i++) {
        const struct vmm_breakpoint *b = &debug->breakpoints[i];

        cpu->host_bp[i] = b->addr;
        cpu->host_bp_type[i] = (uint8_t)b->type;
        cpu->host_bp_len[i] = b->type == VMM_BREAK_EXEC ? 1 : (uint8_t)b->len;
    }
    cpu->host_exceptions = debug->flags & VMM_DEBUG_EXCEPTIONS ? debug->exception_mask : 0;
    x86_breakpoints_changed(cpu);
    x86_end_block(cpu);
    return VMM_OK;
}

int interp_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok)
{
    *ok = mmu_translate(&interp_cpu(vcpu)->mmu, gva, gpa);
    return VMM_OK;
}

const struct vmm_backend_ops vmm_backend_interp = {
    .name = "interp",
    .probe = interp_probe,
    .vm_init = interp_vm_init,
    .vm_fini = interp_vm_fini,
    .caps = interp_caps,
    .stats = interp_stats,
    .default_cpuid = interp_default_cpuid,
    .vcpu_init = interp_vcpu_init,
    .vcpu_fini = interp_vcpu_fini,
    .vcpu_reset = interp_vcpu_reset,
    .run = interp_run,
    .wake = interp_wake,
    .get_regs = interp_get_regs,
    .set_regs = interp_set_regs,
    .get_xsave = interp_get_xsave,
    .set_xsave = interp_set_xsave,
    .get_msr = interp_get_msr,
    .set_msr = interp_set_msr,
    .set_cpuid = interp_set_cpuid,
    .set_debug = interp_set_debug,
    .translate = interp_translate,
    .irq_window = interp_irq_window,
    .mem_map_changed = interp_mem_map_changed,
    .code_changed = interp_code_changed,
    .dirty_cleared = interp_dirty_cleared,
};
