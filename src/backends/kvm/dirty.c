/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/dirty.c: dirty tracking by KVM's logs. */
#include <stdlib.h>

#include "backends/kvm/kvm.h"

int kvm_dirty_start(struct vm *vm)
{
    (void)vm;
    abort();
}
void kvm_dirty_stop(struct vm *vm)
{
    (void)vm;
    abort();
}
int kvm_dirty_sync(struct vm *vm, uint64_t gpa, uint64_t len)
{
    (void)vm;
    (void)gpa;
    (void)len;
    abort();
}
int kvm_dirty_harvest(struct kvm_vcpu *kv)
{
    (void)kv;
    return 0;
}
void kvm_dirty_slot_gone(struct vm *vm, const struct kvm_slot *slot)
{
    (void)vm;
    (void)slot;
    abort();
}
int kvm_dirty_init(struct vm *vm)
{
    (void)vm;
    return 0;
}
void kvm_dirty_fini(struct vm *vm)
{
    (void)vm;
}
