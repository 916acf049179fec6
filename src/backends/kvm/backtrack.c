/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/backtrack.c: which instruction an access belongs to that KVM has left to us. */
#include "backends/kvm/kvm.h"

void kvm_backtrack(struct kvm_vcpu *kv)
{
    if (!kvm_pull(kv, KVM_G_REGS | KVM_G_SREGS))
        interp_fill_insn(kv->vcpu);
}
