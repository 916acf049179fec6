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

struct interp_vcpu {
    struct vcpu *vcpu;
    struct x86_cpu *cpu;
    struct x86_env env;
    struct interp_code *code;
    uint64_t nexits; /* vcpu->nexits of the last run: tells when a new vcpu_run has begun */
};

/* The vCPU's CPU. */
static inline struct x86_cpu *interp_cpu(struct vcpu *vcpu)
{
    return ((struct interp_vcpu *)vcpu->backend_data)->cpu;
}

/* vCPU number `i` if it is this engine's and complete, else NULL. */
static inline struct x86_cpu *interp_cpu_at(struct vm *vm, unsigned i)
{
    struct vcpu *vcpu = atomic_load_explicit(&vm->vcpus[i], memory_order_acquire);

    return vcpu && vcpu->backend_data ? interp_cpu(vcpu) : NULL;
}

/* Fills iv->env. [env.c] */
void interp_env_init(struct interp_vcpu *iv);
/* Frees what the environment has allocated. */
void interp_env_fini(struct interp_vcpu *iv);

#endif
