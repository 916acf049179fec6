/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/interp/interp.c: the engine of the software CPU: binds core/x86 to the core. */
#include <string.h>

#include "backends/backend.h"

static void interp_probe(struct vmm_backend_report *report)
{
    report->result = VMM_E_UNSUPPORTED;
    strcpy(report->reason, "the software CPU is not complete in this build");
}

const struct vmm_backend_ops vmm_backend_interp = {
    .name = "interp",
    .probe = interp_probe,
};
