/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot_tables.c: ACPI and MP tables, read as a guest reads them; their AML through iasl. */
#include <stdio.h>
#include <unistd.h>

#include "boot_test.h"

#include "core/boot/acpi.h"
#include "core/boot/aml.h"
#include "core/boot/dsdt.h"
#include "core/boot/mptable.h"

static uint8_t sum_of(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return sum;
}

static const uint8_t halt[] = {0xf4};

static void boot_flat_pc(uint32_t cpus, uint32_t flags, uint32_t boot_flags)
{
    struct vmm_boot boot;

    begin_pc_with(16 * MIB, cpus, flags);
    boot = request(halt, sizeof(halt));
    boot.flags = boot_flags;
    must_boot(VMM_BOOT_FLAT, &boot);
}

/* ---- ACPI ---- */

/* As ACPI 6.4, 5.2.5.1 says: on 16-byte boundaries between 0xe0000 and 0xfffff. */
static const uint8_t *find_rsdp(void)
{
    for (uint64_t gpa = 0xe0000; gpa < 0x100000; gpa += 16)
        if (memcmp(ram + gpa, "RSD PTR ", 8) == 0)
            return ram + gpa;
    return NULL;
}

/* A table whose header is right. */
static const uint8_t *table_at(uint64_t gpa)
{
    const uint8_t *p = at(gpa, 36);
    uint32_t len = boot_get32(p + 4);

    ck_assert_uint_ge(len, 36);
    ck_assert_uint_ge(gpa, 0xe0000);
    ck_assert_uint_le(gpa + len, 0x100000);
    ck_assert_uint_eq(sum_of(p, len), 0);
    ck_assert_mem_eq(p + 10, "LIBVMM", 6);
    return p;
}

static const uint8_t *find_table(const char *signature)
{
    const uint8_t *rsdp = find_rsdp(), *xsdt, *rsdt, *found = NULL;
    uint32_t n;

    ck_assert_ptr_nonnull(rsdp);
    ck_assert_uint_eq(rsdp[15], 2);
    ck_assert_uint_eq(boot_get32(rsdp + 20), 36);
    ck_assert_uint_eq(sum_of(rsdp, 20), 0);
    ck_assert_uint_eq(sum_of(rsdp, 36), 0);
    rsdt = table_at(boot_get32(rsdp + 16));
    xsdt = table_at(boot_get64(rsdp + 24));
    ck_assert_mem_eq(rsdt, "RSDT", 4);
    ck_assert_mem_eq(xsdt, "XSDT", 4);
    n = (boot_get32(xsdt + 4) - 36) / 8;
    ck_assert_uint_eq(boot_get32(xsdt + 4), 36 + 8 * n);
    ck_assert_uint_eq(boot_get32(rsdt + 4), 36 + 4 * n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t gpa = boot_get64(xsdt + 36 + 8 * i);

        ck_assert_uint_eq(boot_get32(rsdt + 36 + 4 * i), gpa);
        if (memcmp(table_at(gpa), signature, 4) == 0)
            found = table_at(gpa);
    }
    return found;
}

static void check_gas(const uint8_t *p, uint8_t space, uint8_t bits, uint64_t addr)
{
    ck_assert_uint_eq(p[0], space);
    ck_assert_uint_eq(p[1], bits);
    ck_assert_uint_eq(p[2], 0);
    ck_assert_uint_eq(boot_get64(p + 4), addr);
}

START_TEST(fadt_names_the_fixed_hardware)
{
    const uint8_t *fadt, *facs;

    boot_flat_pc(1, 0, 0);
    fadt = find_table("FACP");
    ck_assert_ptr_nonnull(fadt);
    ck_assert_uint_eq(boot_get32(fadt + 4), 268);
    ck_assert_uint_eq(fadt[8], 5);
    facs = at(boot_get32(fadt + 36), 64);
    ck_assert_mem_eq(facs, "FACS", 4);
    ck_assert_uint_eq(boot_get32(facs + 4), 64);
    ck_assert_uint_eq(boot_get32(fadt + 36) % 64, 0);
    ck_assert_mem_eq(table_at(boot_get32(fadt + 40)), "DSDT", 4);
    ck_assert_uint_eq(boot_get64(fadt + 140), boot_get32(fadt + 40));
    ck_assert_uint_eq(boot_get64(fadt + 132), 0);
    ck_assert_uint_eq(boot_get16(fadt + 46), VMM_PC_SCI);
    ck_assert_uint_eq(boot_get32(fadt + 48), 0xb2);
    ck_assert_uint_eq(fadt[52], 0xa0);
    ck_assert_uint_eq(fadt[53], 0xa1);
    ck_assert_uint_eq(boot_get32(fadt + 56), 0x600); /* PM1a event */
    ck_assert_uint_eq(boot_get32(fadt + 60), 0);
    ck_assert_uint_eq(boot_get32(fadt + 64), 0x604); /* PM1a control */
    ck_assert_uint_eq(boot_get32(fadt + 76), 0x608); /* timer */
    ck_assert_uint_eq(boot_get32(fadt + 80), 0x610); /* GPE0 */
    ck_assert_uint_eq(fadt[88], 4);
    ck_assert_uint_eq(fadt[89], 2);
    ck_assert_uint_eq(fadt[91], 4);
    ck_assert_uint_eq(fadt[92], 4);
    ck_assert_uint_gt(boot_get16(fadt + 96), 100);  /* no C2 */
    ck_assert_uint_gt(boot_get16(fadt + 98), 1000); /* no C3 */
    ck_assert_uint_eq(fadt[108], 0x32);
    ck_assert_uint_eq(boot_get16(fadt + 109), 0x7); /* legacy devices, 8042, no VGA */
    ck_assert_uint_eq(boot_get32(fadt + 112), 0x465);
    check_gas(fadt + 116, 1, 8, 0xcf9);
    ck_assert_uint_eq(fadt[128], 6);
    check_gas(fadt + 148, 1, 32, 0x600);
    check_gas(fadt + 160, 0, 0, 0);
    check_gas(fadt + 172, 1, 16, 0x604);
    check_gas(fadt + 208, 1, 32, 0x608);
    check_gas(fadt + 220, 1, 32, 0x610);
    end();
    boot_flat_pc(1, VMM_PC_NO_I8042 | VMM_PC_NO_RTC, 0);
    fadt = find_table("FACP");
    ck_assert_uint_eq(boot_get16(fadt + 109), 0x25);
    ck_assert_uint_eq(fadt[108], 0);
    end();
}
END_TEST

static void check_madt(uint32_t cpus)
{
    const uint8_t *madt, *p, *end_of_table;
    uint32_t seen = 0, ioapics = 0, overrides = 0, nmis = 0;

    boot_flat_pc(cpus, 0, 0);
    madt = find_table("APIC");
    ck_assert_ptr_nonnull(madt);
    ck_assert_uint_eq(boot_get32(madt + 36), VMM_PC_LAPIC);
    ck_assert_uint_eq(boot_get32(madt + 40), 1);
    end_of_table = madt + boot_get32(madt + 4);
    for (p = madt + 44; p < end_of_table; p += p[1]) {
        ck_assert_uint_ge(p[1], 2);
        switch (p[0]) {
        case 0:
            ck_assert_uint_eq(p[1], 8);
            ck_assert_uint_eq(p[2], seen);
            ck_assert_uint_eq(p[3], seen);
            ck_assert_uint_eq(boot_get32(p + 4), 1);
            seen++;
            break;
        case 1:
            ck_assert_uint_eq(p[1], 12);
            ck_assert_uint_eq(boot_get32(p + 4), VMM_PC_IOAPIC);
            ck_assert_uint_eq(boot_get32(p + 8), 0);
            ioapics++;
            break;
        case 2:
            ck_assert_uint_eq(p[1], 10);
            ck_assert(p[3] == 0 || p[3] == 9);
            ck_assert_uint_eq(boot_get32(p + 4), p[3] == 0 ? 2 : 9);
            ck_assert_uint_eq(boot_get16(p + 8), p[3] == 0 ? 0 : 0xd);
            overrides++;
            break;
        default:
            ck_assert_uint_eq(p[0], 4);
            ck_assert_uint_eq(p[1], 6);
            ck_assert_uint_eq(p[2], 0xff);
            ck_assert_uint_eq(p[5], 1);
            nmis++;
        }
    }
    ck_assert_ptr_eq(p, end_of_table);
    ck_assert_uint_eq(seen, cpus);
    ck_assert_uint_eq(ioapics, 1);
    ck_assert_uint_eq(overrides, 2);
    ck_assert_uint_eq(nmis, 1);
    end();
}

START_TEST(madt_lists_the_processors)
{
    check_madt(1);
    check_madt(3);
    check_madt(64);
}
END_TEST

START_TEST(hpet_table_comes_with_the_hpet)
{
    const uint8_t *hpet;

    boot_flat_pc(1, 0, 0);
    hpet = find_table("HPET");
    ck_assert_ptr_nonnull(hpet);
    ck_assert_uint_eq(boot_get32(hpet + 4), 56);
    ck_assert_uint_eq(boot_get32(hpet + 36), 0x8086a201);
    check_gas(hpet + 40, 0, 64, VMM_PC_HPET);
    ck_assert_uint_eq(hpet[52], 0);
    ck_assert_ptr_null(find_table("MCFG")); /* there is no ECAM */
    end();
    boot_flat_pc(1, VMM_PC_NO_HPET, 0);
    ck_assert_ptr_null(find_table("HPET"));
    ck_assert_ptr_nonnull(find_table("APIC"));
    end();
}
END_TEST

START_TEST(no_tables_where_none_are_wanted)
{
    boot_flat_pc(1, 0, VMM_BOOT_NO_ACPI);
    ck_assert_ptr_null(find_rsdp());
    end();
    boot_flat_pc(1, VMM_PC_NO_ACPI, 0);
    ck_assert_ptr_null(find_rsdp());
    end();
}
END_TEST

START_TEST(pointers_and_checksums_are_listed)
{
    static struct acpi_tables low, high;
    const struct acpi_config config = {.cpus = 2, .low_ram = 16 * MIB};
    uint32_t changed = 0;

    ck_assert(acpi_build(&config, 0x10000, &low));
    ck_assert(acpi_build(&config, 0x20000, &high));
    ck_assert_uint_eq(low.len, high.len);
    /* Fields that depend on the address are pointers, the others checksums. */
    for (uint32_t i = 0; i < low.len; i++) {
        bool known = false;

        if (low.buf[i] == high.buf[i])
            continue;
        for (uint32_t k = 0; k < low.npointers; k++)
            known |= i - low.pointer[k].offset < low.pointer[k].size;
        for (uint32_t k = 0; k < low.ntables; k++)
            known |= i == low.table[k].checksum;
        ck_assert_msg(known, "byte 0x%x", i);
        changed++;
    }
    ck_assert_uint_ge(changed, low.npointers);
    for (uint32_t k = 0; k < low.ntables; k++)
        ck_assert_uint_eq(sum_of(low.buf + low.table[k].offset, low.table[k].len), 0);
}
END_TEST

/* ---- AML ---- */

START_TEST(aml_encodes_integers_and_names)
{
    static const uint8_t want[] = {
        0x08, 'A',  'B',  'C',  'D',  0x00,                   /* Name, Zero */
        0x01,                                                 /* One */
        0x0a, 0xff,                                           /* byte */
        0x0b, 0x00, 0x01,                                     /* word */
        0x0c, 0x00, 0x00, 0x01, 0x00,                         /* dword */
        0x0e, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, /* qword */
        0x0d, 'x',  0x00,                                     /* string */
        0x0c, 0x41, 0xd0, 0x0a, 0x03,                         /* EISA id PNP0A03 */
        0x12, 0x84, 0x00, 0x00, 0x00,                         /* empty package */
        0x10, 0x85, 0x00, 0x00, '\\', 0x00,                   /* the root's scope */
    };
    uint8_t buf[128];
    struct aml aml = {buf, sizeof(buf), 0, false};

    aml_name(&aml, "ABCD");
    aml_int(&aml, 0);
    aml_int(&aml, 1);
    aml_int(&aml, 0xff);
    aml_int(&aml, 0x100);
    aml_int(&aml, 0x10000);
    aml_int(&aml, 0x100000000);
    aml_string(&aml, "x");
    aml_eisaid(&aml, "PNP0A03");
    aml_close(&aml, aml_package(&aml, 0));
    aml_close(&aml, aml_scope(&aml, "\\"));
    ck_assert(!aml.overflow);
    ck_assert_uint_eq(aml.len, sizeof(want));
    ck_assert_mem_eq(buf, want, sizeof(want));
}
END_TEST

START_TEST(aml_stops_at_the_end_of_its_buffer)
{
    const struct acpi_config config = {.cpus = 4, .low_ram = 16 * MIB};
    uint8_t buf[0x4000];
    struct aml whole = {buf, sizeof(buf), 0, false};

    acpi_dsdt(&whole, &config);
    ck_assert(!whole.overflow);
    for (size_t cap = 0; cap < whole.len; cap += 7) {
        uint8_t *part = malloc(cap ? cap : 1);
        struct aml aml = {part, cap, 0, false};

        ck_assert_ptr_nonnull(part);
        acpi_dsdt(&aml, &config);
        ck_assert(aml.overflow);
        ck_assert_uint_eq(aml.len, cap);
        free(part);
    }
}
END_TEST

static void write_file(const char *dir, const char *name, const uint8_t *data, size_t len)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, len, file), len);
    ck_assert_int_eq(fclose(file), 0);
}

static int shell(const char *dir, const char *command)
{
    char line[512];

    snprintf(line, sizeof(line), "cd %s && %s", dir, command);
    return system(line);
}

/* ACPI's reference compiler finds what was meant: it disassembles the tables without complaint and
 * its compiler accepts the result. */
static void check_with_iasl(const char *dir, const struct acpi_config *config)
{
    static struct acpi_tables tables;

    ck_assert(acpi_build(config, 0xe0040, &tables));
    for (uint32_t i = 0; i < tables.ntables; i++) {
        const uint8_t *table = tables.buf + tables.table[i].offset;
        char name[16];

        snprintf(name, sizeof(name), "%.4s.dat", (const char *)table);
        write_file(dir, name, table, tables.table[i].len);
    }
    ck_assert_msg(shell(dir, "iasl -d *.dat >log 2>&1 && "
                             "! grep -iE 'error|warning|invalid|incorrect|unknown' log *.dsl") == 0,
                  "iasl finds fault with the tables");
    ck_assert_msg(shell(dir, "iasl -p again DSDT.dsl >log 2>&1 && grep -q ' 0 Errors, 0 Warnings' "
                             "log || { cat log; false; }") == 0,
                  "iasl finds fault with the DSDT");
    ck_assert_int_eq(shell(dir, "grep -q 'Name (_S5, Package' DSDT.dsl || grep -q _S5 DSDT.dsl"),
                     0);
}

START_TEST(iasl_accepts_the_tables)
{
    static const struct acpi_config configs[] = {
        {.cpus = 1, .low_ram = 16 * MIB},
        {.cpus = 64, .low_ram = 3072 * MIB, .high_ram = 13312 * MIB},
        {.flags = VMM_PC_NO_SERIAL | VMM_PC_NO_HPET | VMM_PC_NO_I8042 | VMM_PC_NO_RTC |
                  VMM_PC_NO_PIT | VMM_PC_NO_PCI | VMM_PC_NO_FW_CFG,
         .cpus = 2,
         .low_ram = 16 * MIB},
    };
    char dir[] = "/tmp/vmm-acpi-XXXXXX";

    if (system("command -v iasl >/dev/null") != 0) {
        printf("iasl_accepts_the_tables: skipped, there is no iasl (package acpica-tools)\n");
        return;
    }
    ck_assert_ptr_nonnull(mkdtemp(dir));
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        check_with_iasl(dir, &configs[i]);
        ck_assert_int_eq(shell(dir, "rm -f ./*"), 0);
    }
    ck_assert_int_eq(rmdir(dir), 0);
}
END_TEST

/* ---- MP tables ---- */

static void check_mp(uint32_t cpus, uint32_t flags)
{
    const uint8_t *mp = NULL, *table, *p;
    uint32_t n[5] = {0}, entries, isa = flags & VMM_PC_NO_PCI ? 0 : 1;

    boot_flat_pc(cpus, flags, 0);
    for (uint64_t gpa = 0xf0000; gpa < 0x100000 && !mp; gpa += 16)
        if (memcmp(ram + gpa, "_MP_", 4) == 0)
            mp = ram + gpa;
    ck_assert_ptr_nonnull(mp);
    ck_assert_uint_eq(mp[8], 1);
    ck_assert_uint_eq(mp[9], 4);
    ck_assert_uint_eq(sum_of(mp, 16), 0);
    ck_assert_uint_eq(mp[11], 0);
    table = at(boot_get32(mp + 4), 44);
    ck_assert_mem_eq(table, "PCMP", 4);
    ck_assert_uint_eq(sum_of(table, boot_get16(table + 4)), 0);
    ck_assert_uint_eq(table[6], 4);
    ck_assert_uint_eq(boot_get32(table + 36), VMM_PC_LAPIC);
    entries = boot_get16(table + 34);
    p = table + 44;
    for (uint32_t i = 0; i < entries; i++) {
        ck_assert_uint_le(p[0], 4);
        if (p[0] == 0) {
            ck_assert_uint_eq(p[1], n[0]);
            ck_assert_uint_eq(p[3], n[0] == 0 ? 3 : 1);
        } else if (p[0] == 1) {
            ck_assert_mem_eq(p + 2, p[1] == isa ? "ISA   " : "PCI   ", 6);
        } else if (p[0] == 2) {
            ck_assert_uint_eq(p[1], cpus); /* an APIC id of its own */
            ck_assert_uint_eq(p[3], 1);
            ck_assert_uint_eq(boot_get32(p + 4), VMM_PC_IOAPIC);
        } else if (p[0] == 3) {
            ck_assert_uint_eq(p[1], 0);
            ck_assert_uint_eq(boot_get16(p + 2), p[5] == VMM_PC_SCI ? 0xd : 0);
            ck_assert_uint_eq(p[4], isa);
            ck_assert_uint_eq(p[6], cpus);
            ck_assert_uint_eq(p[7], p[5] == 0 ? 2 : p[5]);
        } else {
            ck_assert_uint_eq(p[1], p[7] == 0 ? 3 : 1); /* ExtINT on LINT0, NMI on LINT1 */
            ck_assert_uint_eq(p[6], 0xff);
        }
        n[p[0]]++;
        p += p[0] == 0 ? 20 : 8;
    }
    ck_assert_ptr_eq(p, table + boot_get16(table + 4));
    ck_assert_uint_eq(n[0], cpus);
    ck_assert_uint_eq(n[1], isa + 1);
    ck_assert_uint_eq(n[2], 1);
    ck_assert_uint_eq(n[3], 15);
    ck_assert_uint_eq(n[4], 2);
    end();
}

START_TEST(mp_tables_list_the_machine)
{
    check_mp(1, 0);
    check_mp(5, VMM_PC_NO_PCI);
    check_mp(64, VMM_PC_NO_ACPI);
}
END_TEST

START_TEST(mp_tables_need_their_room)
{
    uint8_t buf[MPTABLE_MAX];
    size_t len = mptable_build(64, true, 0xf0000, buf, sizeof(buf));

    ck_assert_uint_ne(len, 0);
    ck_assert_uint_eq(mptable_build(64, true, 0xf0000, buf, len - 1), 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        fadt_names_the_fixed_hardware,      madt_lists_the_processors,
        hpet_table_comes_with_the_hpet,     no_tables_where_none_are_wanted,
        pointers_and_checksums_are_listed,  aml_encodes_integers_and_names,
        aml_stops_at_the_end_of_its_buffer, iasl_accepts_the_tables,
        mp_tables_list_the_machine,         mp_tables_need_their_room,
    };

    return RUN_SUITE("boot tables", tests);
}
