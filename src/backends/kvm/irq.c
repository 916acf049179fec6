/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/irq.c: interrupt controllers in the kernel, and the table of kernel services. */
#include <stdlib.h>

#include "backends/kvm/kvm.h"

int kvm_irq_init(struct vm *vm)
{
    (void)vm;
    return 0;
}

void kvm_irq_fini(struct vm *vm)
{
    (void)vm;
}

void kvm_irq_eoi_exit(struct vm *vm, uint8_t vector)
{
    (void)vm;
    (void)vector;
    abort();
}

int kvm_lapic_reset(struct kvm_vcpu *kv, bool init)
{
    (void)kv;
    (void)init;
    abort();
}

int kvm_irq_get_activity(struct kvm_vcpu *kv, uint32_t *activity)
{
    (void)kv;
    (void)activity;
    abort();
}

int kvm_irq_set_activity(struct kvm_vcpu *kv, uint32_t activity)
{
    (void)kv;
    (void)activity;
    abort();
}

const struct backend_host_ops kvm_host_ops = {
    .dirty_start = kvm_dirty_start,
    .dirty_stop = kvm_dirty_stop,
    .dirty_sync = kvm_dirty_sync,
};
