/* SPDX-License-Identifier: BSD-2-Clause */
/* acpi.c: just enough ACPI to count processors and to power off, and the ways to reset. */
#include "guest.h"

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t len;
    uint64_t xsdt;
} __attribute__((packed));

struct table {
    char signature[4];
    uint32_t len;
    uint8_t rest[28];
};

/* Offsets in the FADT (ACPI 6.4, 5.2.9) and the MADT (5.2.12). */
#define FADT_DSDT       40u
#define FADT_PM1A       64u
#define MADT_ENTRIES    44u
#define MADT_LOCAL_APIC 0u
#define SLP_EN          (1u << 13)

static int checksum_ok(const void *data, uint32_t len)
{
    const uint8_t *bytes = data;
    uint8_t sum = 0;

    for (uint32_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + bytes[i]);
    }
    return sum == 0;
}

static uint32_t read32(const struct table *table, uint32_t offset)
{
    uint32_t value;

    memcpy(&value, (const uint8_t *)table + offset, sizeof(value));
    return value;
}

static const struct rsdp *find_rsdp(void)
{
    if (boot_info.rsdp != 0) {
        return (const struct rsdp *)boot_info.rsdp;
    }
    for (uintptr_t at = 0xe0000; at < 0x100000; at += 16) {
        const struct rsdp *rsdp = (const struct rsdp *)at;

        if (memcmp(rsdp->signature, "RSD PTR ", 8) == 0 && checksum_ok(rsdp, 20)) {
            return rsdp;
        }
    }
    return NULL;
}

static const struct table *find_table(const char *signature)
{
    const struct rsdp *rsdp = find_rsdp();

    if (rsdp == NULL) {
        return NULL;
    }
    int wide = rsdp->revision >= 2 && rsdp->xsdt != 0;
    const struct table *root = (const struct table *)(wide ? rsdp->xsdt : (uint64_t)rsdp->rsdt);
    uint32_t step = wide ? 8 : 4;

    for (uint32_t at = 36; at + step <= root->len; at += step) {
        uint64_t address = 0;

        memcpy(&address, (const uint8_t *)root + at, step);
        const struct table *table = (const struct table *)address;
        if (memcmp(table->signature, signature, 4) == 0 && checksum_ok(table, table->len)) {
            return table;
        }
    }
    return NULL;
}

uint32_t acpi_cpus(void)
{
    const struct table *madt = find_table("APIC");
    uint32_t n = 0;

    if (madt == NULL) {
        return 1;
    }
    for (uint32_t at = MADT_ENTRIES; at + 2 <= madt->len;) {
        const uint8_t *entry = (const uint8_t *)madt + at;

        n += entry[0] == MADT_LOCAL_APIC && (entry[4] & 1);
        if (entry[1] < 2) {
            break;
        }
        at += entry[1];
    }
    return n;
}

/* SLP_TYPa of S5: the first element of the DSDT's package named _S5_; -1 if there is none. */
static int sleep_type(const struct table *dsdt)
{
    const uint8_t *aml = (const uint8_t *)dsdt;

    for (uint32_t i = 36; i + 8 < dsdt->len; i++) {
        if (memcmp(aml + i, "_S5_\x12", 5) == 0) {
            uint32_t at = i + 5 + 1 + (aml[i + 5] >> 6) + 1; /* past PkgLength and NumElements */

            return aml[at] == 0x0a ? aml[at + 1] : aml[at]; /* BytePrefix, or ZeroOp and OneOp */
        }
    }
    return -1;
}

void power_off(void)
{
    const struct table *fadt = find_table("FACP");

    if (fadt == NULL) {
        return;
    }
    uint16_t pm1a = (uint16_t)read32(fadt, FADT_PM1A);
    int type = sleep_type((const struct table *)(uintptr_t)read32(fadt, FADT_DSDT));

    if (type >= 0) {
        outw(pm1a, (uint16_t)((uint32_t)type << 10 | SLP_EN));
        wait_ticks(100);
    }
}

void reset(void)
{
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    wait_ticks(10);
    outb(0x64, 0xfe); /* the keyboard controller's way */
    wait_ticks(10);
}

void triple_fault(void)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0\n\tint3" : : "m"(none));
}
