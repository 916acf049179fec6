/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/state.h: between the files that move registers between KVM and the software CPU. */
#ifndef BACKENDS_KVM_STATE_H
#define BACKENDS_KVM_STATE_H

#include "backends/kvm/kvm.h"

/* Groups that kvm_run's shared area can hold. */
#define KVM_SYNC_GROUPS (KVM_G_REGS | KVM_G_SREGS | KVM_G_EVENTS)

static inline bool kvm_has_sync(const struct kvm_vcpu *kv)
{
    return kv->host->has & KVM_HAS_SYNC_REGS;
}

/* 0, or what kvm_fail gives for a negative errno. */
int kvm_get_failed(struct kvm_vcpu *kv, int r, const char *what);
int kvm_set_failed(struct kvm_vcpu *kv, int r, const char *what);

/* One group, from KVM and to it. [state_regs.c] */
int kvm_pull_regs(struct kvm_vcpu *kv);
int kvm_push_regs(struct kvm_vcpu *kv);
int kvm_pull_sregs(struct kvm_vcpu *kv);
int kvm_push_sregs(struct kvm_vcpu *kv);
int kvm_pull_events(struct kvm_vcpu *kv);
int kvm_push_events(struct kvm_vcpu *kv);
int kvm_pull_debug(struct kvm_vcpu *kv);
int kvm_push_debug(struct kvm_vcpu *kv);
/* What the software CPU derives from REGS and SREGS. */
void kvm_derive(struct kvm_vcpu *kv);
void kvm_take_cr8(struct kvm_vcpu *kv, uint64_t cr8);

/* [state_ext.c] */
int kvm_pull_msrs(struct kvm_vcpu *kv);
int kvm_push_msrs(struct kvm_vcpu *kv);
int kvm_pull_xsave(struct kvm_vcpu *kv);
int kvm_push_xsave(struct kvm_vcpu *kv);
int kvm_pull_xcr(struct kvm_vcpu *kv);
int kvm_push_xcr(struct kvm_vcpu *kv);

#endif
