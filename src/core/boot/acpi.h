/* SPDX-License-Identifier: BSD-2-Clause */
/* acpi.h: building the ACPI tables of the PC in a buffer. */
#ifndef VMM_CORE_BOOT_ACPI_H
#define VMM_CORE_BOOT_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmm/machine.h>

#define ACPI_RSDP_SIZE    36u
#define ACPI_TABLES_MAX   0x4000u
#define ACPI_TABLES_ALIGN 64u /* the FACS wants it */

#define ACPI_MAX_POINTERS 32u
#define ACPI_MAX_TABLES   12u

struct acpi_config {
    uint32_t flags; /* VMM_PC_NO_* */
    uint32_t cpus;
    uint64_t low_ram;
    uint64_t high_ram;
};

/* A field of `size` bytes at `offset` that holds the guest-physical address of another table. */
struct acpi_pointer {
    uint32_t offset;
    uint32_t size;
};

/* A table with its header's checksum byte (0: it has none). */
struct acpi_table {
    uint32_t offset;
    uint32_t len;
    uint32_t checksum;
};

struct acpi_tables {
    uint8_t buf[ACPI_TABLES_MAX];
    uint32_t len;
    uint32_t rsdt; /* offsets in buf */
    uint32_t xsdt;
    struct acpi_pointer pointer[ACPI_MAX_POINTERS];
    uint32_t npointers;
    struct acpi_table table[ACPI_MAX_TABLES];
    uint32_t ntables;
};

/* Describes the configuration to the builder. */
void acpi_config_of_pc(const struct vmm_pc *pc, struct acpi_config *config);

/* Builds all tables as if `buf` were loaded at guest-physical `base`, checksums included.
 * False if they do not fit. */
bool acpi_build(const struct acpi_config *config, uint64_t base, struct acpi_tables *tables);

/* The root pointer to tables that were built for `base`. */
void acpi_build_rsdp(const struct acpi_tables *tables, uint64_t base, uint8_t rsdp[ACPI_RSDP_SIZE]);

/* The byte that makes the sum of all bytes zero when it replaces one that is zero. */
uint8_t acpi_checksum(const uint8_t *p, size_t len);

#endif
