/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/interp/interp.h: the engine's own part of a vCPU, and the CPU's surroundings. */
#ifndef BACKENDS_INTERP_INTERP_H
#define BACKENDS_INTERP_INTERP_H

#include "backends/backend.h"
#include "core/x86/x86.h"

/* Code memory that the CPU has asked for; freed with the vCPU. */
struct interp_code {
    struct interp_code *next;
    void *rw, *rx;
    size_t len;
};

/* Counters as other threads may read them: interp_run brings them up to date when it returns. */
struct interp_stats {
    _Atomic uint64_t insns, irqs, exceptions, tlb_misses, tlb_flushes, blocks_decoded,
        blocks_flushed, block_lookups, thunks, translations, code_flushes, handler_calls, regions,
        chains, code_bytes, tlb_l2_hits, tlb_read_misses, tlb_write_misses, tlb_fetch_misses,
        direct_entries, direct_faults, direct_pages, direct_spaces;
};

struct interp_vcpu {
    struct vcpu *vcpu;
    struct x86_cpu *cpu;
    struct x86_env env;
    struct interp_code *code;
    struct shadow *shadow; /* direct execution, or NULL */
    struct interp_stats stats;
    uint64_t nexits; /* vcpu->nexits of the last run: tells when a new vcpu_run has begun */
};

/* The vCPU's CPU. */
static inline struct x86_cpu *interp_cpu(struct vcpu *vcpu)
{
    return ((struct interp_vcpu *)vcpu->backend_data)->cpu;
}

/* vCPU number `i` if it is this engine's and complete, else NULL. */
static inline struct interp_vcpu *interp_at(struct vm *vm, unsigned i)
{
    struct vcpu *vcpu = atomic_load_explicit(&vm->vcpus[i], memory_order_acquire);

    return vcpu ? vcpu->backend_data : NULL;
}

static inline struct x86_cpu *interp_cpu_at(struct vm *vm, unsigned i)
{
    struct interp_vcpu *iv = interp_at(vm, i);

    return iv ? iv->cpu : NULL;
}

/* The software CPU inside another engine, whose part of a vCPU then begins with a struct
 * interp_vcpu: opens it as vcpu->backend_data, in its reset state. 0 or VMM_E_*. */
int interp_vcpu_open(struct interp_vcpu *iv, struct vcpu *vcpu);
void interp_vcpu_close(struct interp_vcpu *iv);

/* False: the host refuses what each software CPU needs; the report says so. */
bool interp_can_run(struct vmm_backend_report *report);
/* Whether an event or interrupt comes before the next instruction; it also ends HLT. */
bool interp_event_waits(const struct interp_vcpu *iv);

/* The functions of vmm_backend_ops. */
void interp_caps(struct vm *vm, struct vm_caps *caps);
void interp_stats(struct vm *vm, struct vm_stats *stats);
int interp_default_cpuid(struct vm *vm, struct vmm_cpuid *entries, uint32_t *n);
void interp_vcpu_reset(struct vcpu *vcpu, bool init);
int interp_run(struct vcpu *vcpu, bool step);
/* What interp_run returns after `done` instructions of x86_run. */
int interp_stopped(struct vcpu *vcpu, enum x86_stop stop, uint64_t done);
/* exit.insn: the bytes at CS:RIP. */
void interp_fill_insn(struct vcpu *vcpu);
void interp_wake(struct vcpu *vcpu);
int interp_get_regs(struct vcpu *vcpu, struct vcpu_regs *regs);
int interp_set_regs(struct vcpu *vcpu, const struct vcpu_regs *regs);
int interp_get_xsave(struct vcpu *vcpu, void *area, uint32_t len);
int interp_set_xsave(struct vcpu *vcpu, const void *area, uint32_t len);
int interp_get_msr(struct vcpu *vcpu, uint32_t index, uint64_t *value);
int interp_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value);
int interp_set_cpuid(struct vcpu *vcpu);
int interp_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug);
int interp_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *gpa, bool *ok);
bool interp_irq_window(struct vcpu *vcpu);
void interp_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len);
void interp_code_changed(struct vm *vm, uint64_t gpa, uint64_t len);
void interp_dirty_cleared(struct vm *vm, uint64_t gpa, uint64_t len);

/* Fills iv->env. [env.c] */
void interp_env_init(struct interp_vcpu *iv);
/* Frees what the environment has allocated. */
void interp_env_fini(struct interp_vcpu *iv);

#endif
