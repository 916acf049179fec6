/* SPDX-License-Identifier: BSD-2-Clause */
/* acpi.c: the ACPI tables of the PC (ACPI 6.4): FACS, DSDT, FADT, MADT, HPET, RSDT, XSDT, RSDP. */
#include "core/boot/acpi.h"

#include <string.h>

#include "core/boot/aml.h"
#include "core/boot/dsdt.h"
#include "devices/acpi_pm.h"

#define HEADER_LENGTH   4u
#define HEADER_CHECKSUM 9u

#define GAS_MEMORY 0u
#define GAS_IO     1u

/* FADT flags and boot architecture flags (ACPI 6.4, tables 5.10 and 5.11). */
#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_SLEEP_BUTTON  (1u << 5) /* there is no fixed one */
#define FADT_FIX_RTC       (1u << 6) /* RTC wake-up has no fixed register bit */
#define FADT_RESET_REG_SUP (1u << 10)
#define BOOT_ARCH_LEGACY   (1u << 0)
#define BOOT_ARCH_8042     (1u << 1)
#define BOOT_ARCH_NO_VGA   (1u << 2)
#define BOOT_ARCH_NO_RTC   (1u << 5)

#define LATENCY_NO_C2 101u /* above 100 us: no C2; above 1000 us: no C3 */
#define LATENCY_NO_C3 1001u
#define RTC_CENTURY   0x32u

#define HPET_ID 0x8086a201u /* revision 1, three 64-bit comparators, legacy replacement */

struct build {
    struct acpi_tables *tables;
    struct aml out;
    uint64_t base;
};

uint8_t acpi_checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

void acpi_config_of_pc(const struct vmm_pc *pc, struct acpi_config *config)
{
    *config = (struct acpi_config){.flags = pc->flags,
                                   .cpus = pc->cpus ? pc->cpus : 1,
                                   .low_ram = pc->low_ram,
                                   .high_ram = pc->high_ram};
    if (config->cpus > VMM_MAX_VCPUS)
        config->cpus = VMM_MAX_VCPUS;
}

/* ---- tables and pointers ---- */

static void align(struct build *b, size_t to)
{
    while (b->out.len % to != 0 && !b->out.overflow)
        aml_byte(&b->out, 0);
}

static void put_text(struct aml *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        aml_byte(out, (uint8_t)text[i]);
}

static uint32_t table_begin(struct build *b, const char *signature, uint8_t revision)
{
    uint32_t start;

    align(b, 16);
    start = (uint32_t)b->out.len;
    put_text(&b->out, signature, 4);
    aml_dword(&b->out, 0); /* length */
    aml_byte(&b->out, revision);
    aml_byte(&b->out, 0); /* checksum */
    put_text(&b->out, "LIBVMM", 6);
    put_text(&b->out, "VMMPC   ", 8);
    aml_dword(&b->out, 1);
    put_text(&b->out, "VMM ", 4);
    aml_dword(&b->out, 1);
    return start;
}

static void table_end(struct build *b, uint32_t start)
{
    uint8_t *p = b->out.buf + start;
    uint32_t len = (uint32_t)b->out.len - start;
    struct acpi_tables *t = b->tables;

    if (b->out.overflow || t->ntables == ACPI_MAX_TABLES) {
        b->out.overflow = true;
        return;
    }
    for (int i = 0; i < 4; i++)
        p[HEADER_LENGTH + i] = (uint8_t)(len >> (8 * i));
    p[HEADER_CHECKSUM] = acpi_checksum(p, len);
    t->table[t->ntables++] = (struct acpi_table){start, len, start + HEADER_CHECKSUM};
}

static void put_pointer(struct build *b, uint32_t target, uint32_t size)
{
    struct acpi_tables *t = b->tables;

    if (t->npointers == ACPI_MAX_POINTERS) {
        b->out.overflow = true;
        return;
    }
    t->pointer[t->npointers++] = (struct acpi_pointer){(uint32_t)b->out.len, size};
    if (size == 8)
        aml_qword(&b->out, b->base + target);
    else
        aml_dword(&b->out, (uint32_t)(b->base + target));
}

/* Generic address structure (ACPI 6.4, 5.2.3.2). All zero: no such register. */
static void put_gas(struct aml *out, uint8_t space, uint8_t bits, uint8_t access, uint64_t addr)
{
    aml_byte(out, space);
    aml_byte(out, bits);
    aml_byte(out, 0);
    aml_byte(out, access);
    aml_qword(out, addr);
}

static void put_zeros(struct aml *out, size_t n)
{
    while (n-- > 0)
        aml_byte(out, 0);
}

/* ---- the tables ---- */

/* Firmware ACPI control structure: no checksum, aligned to 64 bytes (5.2.10). */
static uint32_t put_facs(struct build *b)
{
    uint32_t start;

    align(b, 64);
    start = (uint32_t)b->out.len;
    put_text(&b->out, "FACS", 4);
    aml_dword(&b->out, 64);
    put_zeros(&b->out, 24);
    aml_byte(&b->out, 2); /* version */
    put_zeros(&b->out, 31);
    return start;
}

static uint32_t put_dsdt(struct build *b, const struct acpi_config *config)
{
    uint32_t start = table_begin(b, "DSDT", 2);

    acpi_dsdt(&b->out, config);
    table_end(b, start);
    return start;
}

static void put_fadt_ports(struct aml *out, bool wide)
{
    static const struct {
        uint16_t port;
        uint8_t bits;
        uint8_t access;
    } block[] = {
        {VMM_PC_ACPI_PM + ACPI_PM1_EVT, 32, 2},
        {0, 0, 0},
        {VMM_PC_ACPI_PM + ACPI_PM1_CNT, 16, 2},
        {0, 0, 0},
        {0, 0, 0},
        {VMM_PC_ACPI_PM + ACPI_PM_TMR, 32, 3},
        {VMM_PC_ACPI_PM + ACPI_GPE0, 8 * ACPI_GPE0_LEN, 1},
        {0, 0, 0},
    };

    for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++) {
        if (wide)
            put_gas(out, block[i].bits ? GAS_IO : 0, block[i].bits, block[i].access, block[i].port);
        else
            aml_dword(out, block[i].port);
    }
}

static uint16_t boot_arch(const struct acpi_config *config)
{
    uint32_t flags = BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA;

    if (!(config->flags & VMM_PC_NO_I8042))
        flags |= BOOT_ARCH_8042;
    if (config->flags & VMM_PC_NO_RTC)
        flags |= BOOT_ARCH_NO_RTC;
    return (uint16_t)flags;
}

/* Fixed ACPI description table, revision 5 (5.2.9). The power button is the fixed one. */
static uint32_t put_fadt(struct build *b, const struct acpi_config *config, uint32_t facs,
                         uint32_t dsdt)
{
    struct aml *out = &b->out;
    uint32_t start = table_begin(b, "FACP", 5);

    put_pointer(b, facs, 4);
    put_pointer(b, dsdt, 4);
    aml_byte(out, 0); /* reserved */
    aml_byte(out, 0); /* profile: unspecified */
    aml_word(out, VMM_PC_SCI);
    aml_dword(out, ACPI_SMI_CMD);
    aml_byte(out, ACPI_ENABLE);
    aml_byte(out, ACPI_DISABLE);
    aml_word(out, 0); /* S4BIOS_REQ, PSTATE_CNT */
    put_fadt_ports(out, false);
    aml_byte(out, 4); /* PM1_EVT_LEN */
    aml_byte(out, 2); /* PM1_CNT_LEN */
    aml_byte(out, 0); /* PM2_CNT_LEN */
    aml_byte(out, 4); /* PM_TMR_LEN */
    aml_byte(out, ACPI_GPE0_LEN);
    put_zeros(out, 3); /* GPE1_BLK_LEN, GPE1_BASE, CST_CNT */
    aml_word(out, LATENCY_NO_C2);
    aml_word(out, LATENCY_NO_C3);
    put_zeros(out, 8); /* flush size and stride, duty offset and width, alarm day and month */
    aml_byte(out, config->flags & VMM_PC_NO_RTC ? 0 : RTC_CENTURY);
    aml_word(out, boot_arch(config));
    aml_byte(out, 0); /* reserved */
    aml_dword(out,
              FADT_WBINVD | FADT_PROC_C1 | FADT_SLEEP_BUTTON | FADT_FIX_RTC | FADT_RESET_REG_SUP);
    put_gas(out, GAS_IO, 8, 1, ACPI_RESET_PORT);
    aml_byte(out, ACPI_RESET_VALUE);
    aml_word(out, 0);  /* ARM_BOOT_ARCH */
    aml_byte(out, 1);  /* minor version */
    aml_qword(out, 0); /* X_FIRMWARE_CTRL: the 32-bit field is in use */
    put_pointer(b, dsdt, 8);
    put_fadt_ports(out, true);
    put_zeros(out, 24); /* sleep control and status: only for reduced hardware */
    table_end(b, start);
    return start;
}

/* Multiple APIC description table (5.2.12). */
static uint32_t put_madt(struct build *b, const struct acpi_config *config)
{
    struct aml *out = &b->out;
    uint32_t start = table_begin(b, "APIC", 3);

    aml_dword(out, (uint32_t)VMM_PC_LAPIC);
    aml_dword(out, 1); /* there are 8259s too */
    for (uint32_t i = 0; i < config->cpus; i++) {
        aml_word(out, 8 << 8 | 0); /* local APIC */
        aml_byte(out, (uint8_t)i); /* processor UID */
        aml_byte(out, (uint8_t)i); /* APIC id */
        aml_dword(out, 1);         /* enabled */
    }
    aml_word(out, 12 << 8 | 1); /* I/O APIC */
    aml_word(out, 0);           /* id */
    aml_dword(out, (uint32_t)VMM_PC_IOAPIC);
    aml_dword(out, 0);          /* first interrupt */
    aml_word(out, 10 << 8 | 2); /* source override: the timer is on pin 2 */
    aml_word(out, 0 << 8 | 0);
    aml_dword(out, 2);
    aml_word(out, 0);
    aml_word(out, 10 << 8 | 2); /* source override: the SCI is level-triggered, active high */
    aml_word(out, VMM_PC_SCI << 8 | 0);
    aml_dword(out, VMM_PC_SCI);
    aml_word(out, 0x000d);
    aml_word(out, 6 << 8 | 4); /* NMI on LINT1 of every local APIC */
    aml_byte(out, 0xff);
    aml_word(out, 0);
    aml_byte(out, 1);
    table_end(b, start);
    return start;
}

/* IA-PC HPET 1.0a, 3.2.4 */
static uint32_t put_hpet(struct build *b)
{
    struct aml *out = &b->out;
    uint32_t start = table_begin(b, "HPET", 1);

    aml_dword(out, HPET_ID);
    put_gas(out, GAS_MEMORY, 64, 0, VMM_PC_HPET);
    aml_byte(out, 0);    /* number */
    aml_word(out, 0x80); /* least ticks in periodic mode */
    aml_byte(out, 0);    /* no page protection */
    table_end(b, start);
    return start;
}

static uint32_t put_root(struct build *b, const char *signature, uint32_t entry_size,
                         const uint32_t *entry, uint32_t n)
{
    uint32_t start = table_begin(b, signature, 1);

    for (uint32_t i = 0; i < n; i++)
        put_pointer(b, entry[i], entry_size);
    table_end(b, start);
    return start;
}

bool acpi_build(const struct acpi_config *config, uint64_t base, struct acpi_tables *tables)
{
    struct build b = {tables, {tables->buf, sizeof(tables->buf), 0, false}, base};
    uint32_t facs, dsdt, entry[4], n = 0;

    tables->len = tables->npointers = tables->ntables = 0;
    facs = put_facs(&b);
    dsdt = put_dsdt(&b, config);
    entry[n++] = put_fadt(&b, config, facs, dsdt);
    entry[n++] = put_madt(&b, config);
    if (!(config->flags & VMM_PC_NO_HPET))
        entry[n++] = put_hpet(&b);
    tables->rsdt = put_root(&b, "RSDT", 4, entry, n);
    tables->xsdt = put_root(&b, "XSDT", 8, entry, n);
    tables->len = (uint32_t)b.out.len;
    return !b.out.overflow;
}

void acpi_build_rsdp(const struct acpi_tables *tables, uint64_t base, uint8_t rsdp[ACPI_RSDP_SIZE])
{
    struct aml out = {rsdp, ACPI_RSDP_SIZE, 0, false};

    memset(rsdp, 0, ACPI_RSDP_SIZE);
    put_text(&out, "RSD PTR ", 8);
    aml_byte(&out, 0);
    put_text(&out, "LIBVMM", 6);
    aml_byte(&out, 2); /* revision */
    aml_dword(&out, (uint32_t)(base + tables->rsdt));
    aml_dword(&out, ACPI_RSDP_SIZE);
    aml_qword(&out, base + tables->xsdt);
    rsdp[8] = acpi_checksum(rsdp, 20);
    rsdp[32] = acpi_checksum(rsdp, ACPI_RSDP_SIZE);
}
