/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/registry.c: the engines of this build. */
#include "backends/backend.h"

const struct vmm_backend_ops *const vmm_backends[] = {
    &vmm_backend_kvm,
    &vmm_backend_bt,
    &vmm_backend_interp,
    NULL,
};
