/* SPDX-License-Identifier: BSD-2-Clause */
/* dsdt.h: the AML that describes the PC's devices. */
#ifndef VMM_CORE_BOOT_DSDT_H
#define VMM_CORE_BOOT_DSDT_H

#include "core/boot/acpi.h"
#include "core/boot/aml.h"

/* Appends the body of the DSDT (everything behind its header). */
void acpi_dsdt(struct aml *aml, const struct acpi_config *config);

#endif
