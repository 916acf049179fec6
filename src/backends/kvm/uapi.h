/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/uapi.h: what <linux/kvm.h> of older distributions does not have yet. */
#ifndef BACKENDS_KVM_UAPI_H
#define BACKENDS_KVM_UAPI_H

#include <linux/kvm.h>

#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223
#endif

#endif
