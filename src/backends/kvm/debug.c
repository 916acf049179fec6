/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/debug.c: the host program's breakpoints and watchpoints. */
#include <stdlib.h>

#include "backends/kvm/kvm.h"

int kvm_set_debug(struct vcpu *vcpu, const struct vmm_debug *debug)
{
    int err = interp_set_debug(vcpu, debug);

    if (!err)
        kvm_vcpu_of(vcpu)->debug_soft = debug && (debug->nbreakpoints || debug->flags);
    return err;
}

int kvm_debug_exit(struct kvm_vcpu *kv)
{
    (void)kv;
    return BACKEND_AGAIN;
}
