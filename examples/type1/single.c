/* SPDX-License-Identifier: BSD-2-Clause */
/* single.c: what of struct vmm_host_ops is simple with one CPU. */
#include "single.h"

#include <stddef.h>

static uint64_t virt_to_phys(void *ctx, const void *p)
{
    (void)ctx;
    return (uintptr_t)p;
}

static void *phys_to_virt(void *ctx, uint64_t phys)
{
    (void)ctx;
    return (void *)phys;
}

static uint32_t cpu_count(void *ctx)
{
    (void)ctx;
    return 1;
}

static uint32_t cpu_id(void *ctx)
{
    (void)ctx;
    return 0;
}

static int run_on_cpu(void *ctx, uint32_t cpu, void (*fn)(void *arg), void *arg)
{
    (void)ctx;
    if (cpu)
        return 1;
    fn(arg);
    return 0;
}

static void preempt(void *ctx)
{
    (void)ctx;
}

static void **thread_slot(void *ctx)
{
    static void *slot;

    (void)ctx;
    return &slot;
}

void host_single(struct vmm_host_ops *ops)
{
    ops->virt_to_phys = virt_to_phys;
    ops->phys_to_virt = phys_to_virt;
    ops->cpu_count = cpu_count;
    ops->cpu_id = cpu_id;
    ops->run_on_cpu = run_on_cpu;
    ops->preempt_off = preempt;
    ops->preempt_on = preempt;
    ops->thread_slot = thread_slot;
}
