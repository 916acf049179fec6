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
        blocks_flushed, block_lookups, thunks;
};

struct interp_vcpu {
    struct vcpu *vcpu;
    struct x86_cpu *cpu;
    struct x86_env env;
    struct interp_code *code;
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

/* Fills iv->env. [env.c] */
void interp_env_init(struct interp_vcpu *iv);
/* Frees what the environment has allocated. */
void interp_env_fini(struct interp_vcpu *iv);

#endif
