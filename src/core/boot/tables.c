/* SPDX-License-Identifier: BSD-2-Clause */
/* tables.c: what a PC's BIOS leaves behind: data area, ACPI and MP tables; or their form for one.
 */
#include "core/boot/boot.h"

#include <stdlib.h>
#include <string.h>

#include "core/boot/acpi.h"
#include "core/boot/mptable.h"

#define BIOS_AREA 0xe0000ull /* where guests look for an RSDP */
#define MP_AREA   0xf0000ull /* and for an MP floating pointer */

/* ---- BIOS data area ---- */

#define BDA_COM1   0x400u
#define BDA_EBDA   0x40eu
#define BDA_MEMORY 0x413u
#define EBDA_SIZE  (0xa0000ull - BOOT_LOW_RAM_END)

/* Serial port, EBDA segment and KiB of conventional memory, for guests that look there. A
 * kernel that was loaded over them does not. */
static int write_bda(struct boot *boot)
{
    struct boot_mem *mem = &boot->mem;
    uint8_t field[2], kib[2] = {EBDA_SIZE / 1024, 0};
    int err;

    if (!boot_mem_is_free(mem, BDA_COM1, 0x100) ||
        !boot_mem_is_free(mem, BOOT_LOW_RAM_END, EBDA_SIZE))
        return 0;
    err = boot_mem_claim(mem, BDA_COM1, 0x100, "BIOS data area");
    if (!err)
        err = boot_mem_claim(mem, BOOT_LOW_RAM_END, EBDA_SIZE, "EBDA");
    boot_put16(field, boot->pc->flags & VMM_PC_NO_SERIAL ? 0 : 0x3f8);
    if (!err)
        err = boot_mem_write(mem, BDA_COM1, field, 2);
    boot_put16(field, (uint16_t)(BOOT_LOW_RAM_END >> 4));
    if (!err)
        err = boot_mem_write(mem, BDA_EBDA, field, 2);
    boot_put16(field, (uint16_t)(BOOT_LOW_RAM_END / 1024));
    if (!err)
        err = boot_mem_write(mem, BDA_MEMORY, field, 2);
    return err ? err : boot_mem_write(mem, BOOT_LOW_RAM_END, kib, 2);
}

/* ---- placement below 1 MiB ---- */

/* The lowest free place in [min, 1 MiB): outside what the guest takes for RAM. */
static int place_bios(struct boot *boot, uint64_t len, uint64_t align, uint64_t min,
                      const char *what, uint64_t *gpa)
{
    for (*gpa = min; *gpa + len <= BOOT_1M; *gpa += align)
        if (boot_mem_is_free(&boot->mem, *gpa, len))
            return boot_mem_claim(&boot->mem, *gpa, len, what);
    return boot_fail(&boot->error, VMM_E_NOSPACE,
                     "no room for %s (0x%llx bytes) between 0x%llx and 1 MiB", what,
                     (unsigned long long)len, (unsigned long long)min);
}

static int write_mp(struct boot *boot, const struct acpi_config *config)
{
    bool pci = !(boot->pc->flags & VMM_PC_NO_PCI);
    uint8_t buf[MPTABLE_MAX];
    uint64_t gpa = 0;
    size_t len = mptable_build(config->cpus, pci, 0, buf, sizeof(buf));
    int err;

    if (len == 0)
        return boot_fail(&boot->error, VMM_E_INTERNAL, "the MP table is too large");
    err = place_bios(boot, len, 16, MP_AREA, "MP table", &gpa);
    if (err)
        return err;
    mptable_build(config->cpus, pci, (uint32_t)gpa, buf, sizeof(buf));
    return boot_mem_write(&boot->mem, gpa, buf, len);
}

static int write_acpi(struct boot *boot, const struct acpi_config *config,
                      struct acpi_tables *tables)
{
    uint8_t rsdp[ACPI_RSDP_SIZE];
    uint64_t base = 0;
    int err;

    if (!acpi_build(config, 0, tables))
        return boot_fail(&boot->error, VMM_E_INTERNAL, "the ACPI tables are too large");
    err = place_bios(boot, ACPI_RSDP_SIZE, 16, BIOS_AREA, "ACPI RSDP", &boot->rsdp);
    if (!err)
        err = place_bios(boot, tables->len, ACPI_TABLES_ALIGN, BIOS_AREA, "ACPI tables", &base);
    if (err)
        return err;
    acpi_build(config, base, tables);
    acpi_build_rsdp(tables, base, rsdp);
    err = boot_mem_write(&boot->mem, base, tables->buf, tables->len);
    return err ? err : boot_mem_write(&boot->mem, boot->rsdp, rsdp, sizeof(rsdp));
}

static bool wants_acpi(const struct boot *boot)
{
    return !(boot->flags & VMM_BOOT_NO_ACPI) && !(boot->pc->flags & VMM_PC_NO_ACPI);
}

int boot_tables(struct boot *boot)
{
    struct acpi_config config;
    struct acpi_tables *tables;
    int err;

    if (!boot->pc)
        return 0;
    acpi_config_of_pc(boot->pc, &config);
    err = boot_bios(boot);
    if (!err)
        err = write_bda(boot);
    if (!err)
        err = write_mp(boot, &config);
    if (err || !wants_acpi(boot))
        return err;
    tables = malloc(sizeof(*tables));
    if (!tables)
        return boot_fail(&boot->error, VMM_E_NOMEM, "no memory to build the ACPI tables");
    err = write_acpi(boot, &config, tables);
    free(tables);
    return err;
}

/* ---- fw_cfg: firmware allocates the tables and runs QEMU's linker script over them ---- */

#define LOADER_ENTRY 128u
#define LOADER_NAME  56u
#define LOADER_MAX   (2 + ACPI_MAX_POINTERS + 2 + ACPI_MAX_TABLES + 2)
enum { LOADER_ALLOCATE = 1, LOADER_ADD_POINTER, LOADER_ADD_CHECKSUM };
enum { ZONE_HIGH = 1, ZONE_FSEG };

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"

struct loader {
    uint8_t buf[LOADER_MAX * LOADER_ENTRY];
    uint32_t n;
};

static uint8_t *loader_entry(struct loader *loader, uint32_t command, const char *file)
{
    uint8_t *p = loader->buf + LOADER_ENTRY * loader->n++;

    memset(p, 0, LOADER_ENTRY);
    boot_put32(p, command);
    memcpy(p + 4, file, strlen(file));
    return p;
}

static void loader_allocate(struct loader *loader, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *p = loader_entry(loader, LOADER_ALLOCATE, file);

    boot_put32(p + 60, align);
    p[64] = zone;
}

/* Adds the address of the tables to the field, which holds an offset into them. */
static void loader_pointer(struct loader *loader, const char *file, uint32_t offset, uint32_t size)
{
    uint8_t *p = loader_entry(loader, LOADER_ADD_POINTER, file);

    memcpy(p + 60, TABLES_FILE, strlen(TABLES_FILE));
    boot_put32(p + 116, offset);
    p[120] = (uint8_t)size;
}

static void loader_checksum(struct loader *loader, const char *file, uint32_t offset,
                            uint32_t start, uint32_t len)
{
    uint8_t *p = loader_entry(loader, LOADER_ADD_CHECKSUM, file);

    boot_put32(p + 60, offset);
    boot_put32(p + 64, start);
    boot_put32(p + 68, len);
}

/* Checksum bytes are left zero: some firmware adds them to the sum. */
static void build_loader(struct loader *loader, struct acpi_tables *tables,
                         uint8_t rsdp[ACPI_RSDP_SIZE])
{
    loader->n = 0;
    loader_allocate(loader, TABLES_FILE, ACPI_TABLES_ALIGN, ZONE_HIGH);
    loader_allocate(loader, RSDP_FILE, 16, ZONE_FSEG);
    for (uint32_t i = 0; i < tables->npointers; i++)
        loader_pointer(loader, TABLES_FILE, tables->pointer[i].offset, tables->pointer[i].size);
    loader_pointer(loader, RSDP_FILE, 16, 4);
    loader_pointer(loader, RSDP_FILE, 24, 8);
    for (uint32_t i = 0; i < tables->ntables; i++) {
        const struct acpi_table *table = &tables->table[i];

        tables->buf[table->checksum] = 0;
        loader_checksum(loader, TABLES_FILE, table->checksum, table->offset, table->len);
    }
    rsdp[8] = rsdp[32] = 0;
    loader_checksum(loader, RSDP_FILE, 8, 0, 20);
    loader_checksum(loader, RSDP_FILE, 32, 0, ACPI_RSDP_SIZE);
}

static int add_file(struct boot *boot, const char *name, const void *data, uint32_t len)
{
    int err = vmm_fw_cfg_add_file(boot->pc->fw_cfg, name, data, len);

    return err ? boot_fail(&boot->error, err, "cannot add %s to fw_cfg: %s", name,
                           vmm_strerror(err))
               : 0;
}

/* etc/e820: RAM for firmware that cannot learn of memory above 4 GiB elsewhere. */
static int add_e820(struct boot *boot)
{
    const struct boot_e820 map[2] = {{0, boot->pc->low_ram, BOOT_RAM},
                                     {VMM_PC_HIGH_RAM, boot->pc->high_ram, BOOT_RAM}};
    uint8_t bytes[2 * 20];
    uint32_t n = boot->pc->high_ram > 0 ? 2 : 1;

    for (uint32_t i = 0; i < n; i++) {
        boot_put64(bytes + 20 * i, map[i].addr);
        boot_put64(bytes + 20 * i + 8, map[i].len);
        boot_put32(bytes + 20 * i + 16, map[i].type);
    }
    return add_file(boot, "etc/e820", bytes, n * 20);
}

static int add_acpi(struct boot *boot, struct acpi_tables *tables, struct loader *loader)
{
    uint8_t rsdp[ACPI_RSDP_SIZE];
    struct acpi_config config;
    int err;

    acpi_config_of_pc(boot->pc, &config);
    if (!acpi_build(&config, 0, tables))
        return boot_fail(&boot->error, VMM_E_INTERNAL, "the ACPI tables are too large");
    acpi_build_rsdp(tables, 0, rsdp);
    build_loader(loader, tables, rsdp);
    err = add_file(boot, TABLES_FILE, tables->buf, tables->len);
    if (!err)
        err = add_file(boot, RSDP_FILE, rsdp, sizeof(rsdp));
    return err ? err : add_file(boot, "etc/table-loader", loader->buf, loader->n * LOADER_ENTRY);
}

int boot_tables_fw_cfg(struct boot *boot)
{
    struct acpi_tables *tables;
    struct loader *loader;
    int err = add_e820(boot);

    if (err || !wants_acpi(boot))
        return err;
    tables = malloc(sizeof(*tables));
    loader = malloc(sizeof(*loader));
    err = tables && loader
              ? add_acpi(boot, tables, loader)
              : boot_fail(&boot->error, VMM_E_NOMEM, "no memory to build the ACPI tables");
    free(tables);
    free(loader);
    return err;
}
