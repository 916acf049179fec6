/* SPDX-License-Identifier: BSD-2-Clause */
/* core/doorbell.c: guest writes that only signal an eventfd. */
#include "core/internal.h"

#include <vmm/io.h>

int mmio_doorbell(struct vm *vm, const struct vmm_doorbell *config, struct doorbell **out)
{
    (void)config, (void)out;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

void mmio_doorbell_remove(struct doorbell *doorbell)
{
    (void)doorbell;
}

void core_doorbells_fini(struct vm *vm)
{
    (void)vm;
}
