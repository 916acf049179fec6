/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/registry.c: the engines of the freestanding build. */
#include "backends/backend.h"

const struct vmm_backend_ops *const vmm_backends[] = {
    &vmm_backend_vmx,
    &vmm_backend_interp,
    NULL,
};
