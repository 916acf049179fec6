/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/interp/env.c: what the software CPU needs of the core: memory, I/O, time, interrupts. */
#include <errno.h>
#include <stdlib.h>

#include "backends/interp/interp.h"
#include "core/irqchip.h"

static struct vcpu *vcpu_of(void *ctx)
{
    return ((struct interp_vcpu *)ctx)->vcpu;
}

static struct x86_cpu *cpu_of(void *ctx)
{
    return ((struct interp_vcpu *)ctx)->cpu;
}

static uint64_t serial(void *ctx)
{
    return x86_serial(cpu_of(ctx));
}

_Static_assert(CORE_IO_OK == X86_ENV_OK && CORE_IO_ABORT == X86_ENV_ABORT &&
                   CORE_IO_GP == X86_ENV_GP,
               "results are passed on as they are");

/* ---- memory ---- */

static bool env_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    struct core_page p;

    if (!core_mem_page(vcpu_of(ctx)->vm, gpa, &p) || !p.host)
        return false;
    page->host = p.host;
    page->writable = p.prot & VMM_MEM_W;
    page->executable = p.prot & VMM_MEM_X;
    page->code = p.code;
    page->dirty = p.dirty;
    return true;
}

static int env_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    struct vcpu *vcpu = vcpu_of(ctx);

    return core_mmio_access(vcpu->vm, vcpu, serial(ctx), gpa, size, write, value);
}

/*
 * Code and stores to it, with several vCPUs. A vCPU sets its bit in the page's word, and takes
 * everybody's fast write entries away, with the world stopped: no store that did not see the bit is
 * under way when it reads the code. A store that sees bits calls env_code_written after it. There
 * the fence orders the store before the look at the bits: either it finds the bit of a vCPU that is
 * about to decode, or that one, which is behind its world stop, decodes the new bytes.
 */

static bool alone(const struct vm *vm)
{
    return vm->max_vcpus == 1;
}

/* Stops the world unless this vCPU has: a locked access may write to code. */
static bool stop_world(struct vcpu *vcpu)
{
    if (atomic_load_explicit(&vcpu->vm->world_self, memory_order_relaxed) == vcpu)
        return false;
    core_world_stop(vcpu->vm);
    return true;
}

static void env_code_written(void *ctx, uint64_t gpa, unsigned len)
{
    struct vcpu *vcpu = vcpu_of(ctx);
    struct vm *vm = vcpu->vm;
    uint64_t own = 1ull << vcpu->id, bits, empty = 0;
    struct core_page page;
    bool stopped;

    atomic_thread_fence(memory_order_seq_cst);
    if (!core_mem_page(vm, gpa, &page) || !page.host)
        return;
    bits = atomic_load_explicit(page.code, memory_order_relaxed);
    if (!(bits & ~own)) {
        if (x86_cache_invalidate(cpu_of(ctx), gpa, len))
            atomic_fetch_and(page.code, ~own);
        return;
    }
    stopped = stop_world(vcpu);
    if (core_mem_page(vm, gpa, &page) && page.host) {
        bits = atomic_load_explicit(page.code, memory_order_relaxed);
        for (unsigned i = 0; i < vm->max_vcpus; i++) {
            struct x86_cpu *cpu = bits >> i & 1 ? interp_cpu_at(vm, i) : NULL;

            if (!cpu || x86_cache_invalidate(cpu, gpa, len))
                empty |= 1ull << i;
        }
        atomic_fetch_and(page.code, ~empty);
    }
    if (stopped)
        core_world_go(vm);
}

static void env_code_decoded(void *ctx, uint64_t gpa)
{
    struct vcpu *vcpu = vcpu_of(ctx);
    struct vm *vm = vcpu->vm;
    struct core_page page;

    if (!core_mem_page(vm, gpa, &page) || !page.host ||
        (atomic_load_explicit(page.code, memory_order_acquire) >> vcpu->id & 1))
        return;
    if (alone(vm)) {
        atomic_fetch_or(page.code, 1ull << vcpu->id);
        mmu_protect_gpa(&cpu_of(ctx)->mmu, gpa, 1);
        return;
    }
    core_world_stop(vm);
    if (core_mem_page(vm, gpa, &page) && page.host) {
        atomic_fetch_or(page.code, 1ull << vcpu->id);
        for (unsigned i = 0; i < vm->max_vcpus; i++) {
            struct x86_cpu *cpu = interp_cpu_at(vm, i);

            if (cpu)
                mmu_protect_gpa(&cpu->mmu, gpa, 1);
        }
    }
    core_world_go(vm);
}

static void env_lock(void *ctx)
{
    if (!alone(vcpu_of(ctx)->vm))
        core_world_stop(vcpu_of(ctx)->vm);
}

static void env_unlock(void *ctx)
{
    if (!alone(vcpu_of(ctx)->vm))
        core_world_go(vcpu_of(ctx)->vm);
}

static int env_code_alloc(void *ctx, size_t len, void **rw, void **rx)
{
    struct interp_vcpu *iv = ctx;
    struct interp_code *code = malloc(sizeof(*code));
    int r;

    if (!code)
        return ENOMEM;
    r = os_code_alloc(len, rw, rx);
    if (r) {
        free(code);
        return r;
    }
    *code = (struct interp_code){iv->code, *rw, *rx, len};
    iv->code = code;
    return 0;
}

/* ---- ports, MSRs, CPUID ---- */

static int env_pio(void *ctx, uint16_t port, unsigned size, bool write, uint64_t *value)
{
    struct vcpu *vcpu = vcpu_of(ctx);

    return core_pio_access(vcpu->vm, vcpu, serial(ctx), port, size, write, value);
}

static int env_msr(void *ctx, uint32_t index, bool write, uint64_t *value, bool *handled)
{
    return core_msr_access(vcpu_of(ctx), serial(ctx), index, write, value, handled);
}

static int env_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    return core_cpuid(vcpu_of(ctx), serial(ctx), leaf, subleaf, out);
}

/* ---- time and interrupts ---- */

static uint64_t env_tsc(void *ctx)
{
    return core_vcpu_tsc(vcpu_of(ctx));
}

static void env_set_tsc(void *ctx, uint64_t tsc)
{
    core_vcpu_set_tsc(vcpu_of(ctx), tsc);
}

/* The CPU asks when it could take an interrupt: an interrupt window is open. */
static bool env_intr(void *ctx)
{
    struct vcpu *vcpu = vcpu_of(ctx);
    struct x86_cpu *cpu = cpu_of(ctx);

    if (vcpu->irq_window_wanted) {
        vcpu->irq_window_wanted = false;
        cpu->exit_reason = VMM_EXIT_IRQ_WINDOW;
        cpu->stop = X86_STOP_EXIT;
        return false;
    }
    return core_intr_pending(vcpu);
}

static bool env_calm(void *ctx)
{
    struct vcpu *vcpu = vcpu_of(ctx);

    return !vcpu->irq_window_wanted && !core_intr_pending(vcpu);
}

static int env_intr_ack(void *ctx)
{
    return core_intr_ack(vcpu_of(ctx));
}

static uint64_t env_get_cr8(void *ctx)
{
    struct lapic *lapic = core_vcpu_lapic(vcpu_of(ctx));

    return lapic ? lapic_get_cr8(lapic) : cpu_of(ctx)->cr8;
}

static void env_set_cr8(void *ctx, uint64_t cr8)
{
    struct lapic *lapic = core_vcpu_lapic(vcpu_of(ctx));

    if (lapic)
        lapic_set_cr8(lapic, cr8);
    else
        cpu_of(ctx)->cr8 = cr8;
}

/*
 * A guest that waits in a loop with PAUSE waits for another vCPU, and there may be more vCPUs than
 * host CPUs: the one that is waited for may need this thread's. (A loop has at most a dozen
 * instructions.)
 */
static void let_others_run(struct vcpu *vcpu, struct x86_cpu *cpu)
{
    bool waits = cpu->pauses > X86_POLL / 16;

    cpu->pauses = 0;
    if (!waits || alone(vcpu->vm))
        return;
    core_guest_leave(vcpu);
    os_yield();
    core_guest_enter(vcpu);
}

static void env_poll(void *ctx)
{
    core_poll_timers(vcpu_of(ctx));
    let_others_run(vcpu_of(ctx), cpu_of(ctx));
}

/* ---- life cycle ---- */

void interp_env_init(struct interp_vcpu *iv)
{
    iv->env = (struct x86_env){
        .mmu = {.page = env_page, .mmio = env_mmio, .code_written = env_code_written, .ctx = iv},
        .pio = env_pio,
        .msr = env_msr,
        .cpuid = env_cpuid,
        .tsc = env_tsc,
        .set_tsc = env_set_tsc,
        .intr = env_intr,
        .calm = env_calm,
        .intr_ack = env_intr_ack,
        .get_cr8 = env_get_cr8,
        .set_cr8 = env_set_cr8,
        .poll = env_poll,
        .code_decoded = env_code_decoded,
        .lock = env_lock,
        .unlock = env_unlock,
        .code_alloc = env_code_alloc,
    };
}

void interp_env_fini(struct interp_vcpu *iv)
{
    while (iv->code) {
        struct interp_code *code = iv->code;

        iv->code = code->next;
        os_code_free(code->rw, code->rx, code->len);
        free(code);
    }
}
