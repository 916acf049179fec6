/* SPDX-License-Identifier: BSD-2-Clause */
/* kvm_sound.h: for tests of what the KVM engine does inside of KVM, on hosts too where KVM has
 * defects that the software CPU works around by executing most of a guest itself. */
#ifndef KVM_SOUND_H
#define KVM_SOUND_H

#include "backends/kvm/kvm.h"

/* From now on CPL 0 is KVM's, and so are events at CPL 3. */
static inline void kvm_take_as_sound(void)
{
    struct kvm_host *host = (struct kvm_host *)(uintptr_t)kvm_host();

    host->bad &= ~(KVM_BAD_EMULATION | KVM_BAD_USER_EVENTS | KVM_BAD_USER_FLAGS);
}

#endif
