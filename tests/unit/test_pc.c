/* SPDX-License-Identifier: BSD-2-Clause */
/* test_pc.c: the ready-made PC: its memory, its devices at their places, and what it leaves out. */
#include <check.h>
#include <sys/mman.h>

#include "core/boot/acpi.h"
#include "core/boot/boot.h"
#include "fake_vm.h"
#include <vmm/vcpu.h>

static struct vm *vm;
static struct vmm_pc pc;

static void setup(void)
{
    vm = fake_vm_new();
    memset(&pc, 0, sizeof pc);
    pc.size = sizeof pc;
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static char printed[8];

static size_t print(void *opaque, const uint8_t *bytes, size_t n)
{
    ck_assert_ptr_eq(opaque, printed);
    memcpy(printed, bytes, n);
    return n;
}

static int create(uint64_t memory, uint32_t flags, uint32_t cpus)
{
    struct vmm_pc_config config = {
        .size = sizeof config,
        .flags = flags,
        .memory = memory,
        .cpus = cpus,
        .rtc_epoch = 1,
        .serial_output = print,
        .opaque = printed,
    };

    return vmm_pc_create(vm, &config, &pc);
}

static uint64_t fw_number(unsigned key)
{
    uint64_t v = 0;

    outw(vm, 0x510, key);
    for (int i = 0; i < 8; i++)
        v |= (uint64_t)inb(vm, 0x511) << (8 * i);
    return v;
}

START_TEST(everything_is_at_its_place)
{
    ck_assert_int_eq(create(0x2000000, 0, 3), 0);
    ck_assert_int_eq(vm->last_error, 0);
    ck_assert_uint_eq(pc.size, sizeof pc);
    ck_assert_uint_eq(pc.memory, 0x2000000);
    ck_assert_uint_eq(pc.low_ram, 0x2000000);
    ck_assert_uint_eq(pc.high_ram, 0);
    ck_assert_uint_eq(pc.cpus, 3);
    ck_assert_ptr_nonnull(vm_mem_ptr(vm, 0, 0x2000000));
    ck_assert_ptr_nonnull(pc.serial);
    ck_assert_ptr_nonnull(pc.rtc);
    ck_assert_ptr_nonnull(pc.acpi_pm);
    ck_assert_ptr_nonnull(pc.i8042);
    ck_assert_ptr_nonnull(pc.fw_cfg);
    ck_assert_ptr_nonnull(pc.pci);
    outb(vm, 0x3f8, 'x');
    ck_assert_int_eq(printed[0], 'x');
    outl(vm, 0xcf8, 0x80000000);
    ck_assert_uint_eq(inl(vm, 0xcfc), 0x12378086);
    ck_assert_uint_eq(mmio_in(vm, VMM_PC_HPET, 4), 0x8086a201);
    ck_assert_uint_eq(inb(vm, 0x64) & 0x14, 0x14);
    ck_assert_uint_eq(inb(vm, VMM_PC_PVPANIC), 3);
    outb(vm, 0x43, 0xe8); /* status of counter 2 */
    ck_assert_uint_eq(inb(vm, 0x42) & 0x3f, 0x36);
    outw(vm, VMM_PC_ACPI_PM + 4, 5 << 10 | 1 << 13);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_POWEROFF);
    outb(vm, 0xcf9, 6);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
    outb(vm, VMM_PC_DEBUG_EXIT, 0x10);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_USER);
    ck_assert_uint_eq(vm->exit_value, 0x21);
    outb(vm, 0x80, 0x5a); /* delays and progress codes */
    ck_assert_uint_eq(inb(vm, 0x80), 0x5a);
    fake_vm_reset(vm);
    ck_assert_uint_eq(inb(vm, 0x80), 0);
}
END_TEST

static uint32_t config(unsigned devfn, unsigned reg)
{
    outl(vm, 0xcf8, 0x80000000u | devfn << 8 | reg);
    return inl(vm, 0xcfc);
}

/* What OVMF, SeaBIOS and Linux's quirks look at. */
START_TEST(firmware_finds_the_south_bridge)
{
    ck_assert_int_eq(create(0x2000000, 0, 1), 0);
    ck_assert_uint_eq(config(0x08, 0), 0x70008086);
    ck_assert_uint_eq(config(0x08, 8), 0x06010000);
    ck_assert_uint_eq(config(0x08, 0xc) >> 16 & 0xff, 0x80); /* more functions */
    ck_assert_uint_eq(config(0x08, 0x60), 0x80808080);
    outl(vm, 0xcfc, 0x0b0b0a0a); /* keeps an interrupt routing */
    ck_assert_uint_eq(inl(vm, 0xcfc), 0x0b0b0a0a);
    ck_assert_uint_eq(config(0x0b, 0), 0x71138086);
    ck_assert_uint_eq(config(0x0b, 8), 0x06800003);
    ck_assert_uint_eq(config(0x0b, 0x40), VMM_PC_ACPI_PM | 1);
    outl(vm, 0xcfc, 0xb001); /* the block stays where it is */
    ck_assert_uint_eq(inl(vm, 0xcfc), VMM_PC_ACPI_PM | 1);
    ck_assert_uint_eq(config(0x0b, 0x80) & 0xff, 1);   /* enabled */
    ck_assert_uint_eq(config(0x0b, 0x58), 0x02000000); /* no SMI to wait for */
    ck_assert_uint_eq(config(0x0b, 0x90), 0);          /* no SMBus */
    ck_assert_uint_eq(config(0x09, 0), 0xffffffff);    /* nor IDE, nor USB */
    ck_assert_uint_eq(config(0x0a, 0), 0xffffffff);
    fake_vm_reset(vm);
    ck_assert_uint_eq(config(0x08, 0x60), 0x80808080);
}
END_TEST

START_TEST(firmware_learns_of_cpus_and_memory)
{
    ck_assert_int_eq(create(0x2000000, 0, 3), 0);
    ck_assert_uint_eq(fw_number(VMM_FW_CFG_RAM_SIZE), 0x2000000);
    ck_assert_uint_eq(fw_number(VMM_FW_CFG_NB_CPUS), 3);
    ck_assert_uint_eq(fw_number(VMM_FW_CFG_MAX_CPUS), 3);
    ck_assert_uint_eq(fw_number(VMM_FW_CFG_NOGRAPHIC), 1);
    ck_assert_uint_eq(fw_number(VMM_FW_CFG_IRQ0_OVERRIDE), 1);
    outw(vm, 0x510, VMM_FW_CFG_HPET);
    ck_assert_uint_eq(inb(vm, 0x511), 1);
    ck_assert_uint_eq(inb(vm, 0x511), 0x01);
    ck_assert_uint_eq(inb(vm, 0x511), 0xa2);
    outb(vm, 0x70, 0x5f);
    ck_assert_uint_eq(inb(vm, 0x71), 2);
    outb(vm, 0x70, 0x35);
    ck_assert_uint_eq(inb(vm, 0x71), (0x2000000 - 0x1000000) >> 24); /* CMOS */
}
END_TEST

/* ---- The ACPI tables and the devices tell the same story ---- */

static struct acpi_tables tables;

static uint8_t *table(const char *signature)
{
    for (uint32_t i = 0; i < tables.ntables; i++)
        if (memcmp(tables.buf + tables.table[i].offset, signature, 4) == 0)
            return tables.buf + tables.table[i].offset;
    ck_abort_msg("no %s", signature);
    return NULL;
}

static uint64_t le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static void build_tables(void)
{
    struct acpi_config config;

    ck_assert_int_eq(create(0x2000000, 0, 1), 0);
    acpi_config_of_pc(&pc, &config);
    ck_assert(acpi_build(&config, 0, &tables));
}

/* SLP_TYP of _S5_: Name (_S5_, Package () { byte, ... }). */
static unsigned s5_type(void)
{
    const uint8_t *dsdt = table("DSDT");
    uint32_t len = (uint32_t)le(dsdt + 4, 4);

    for (uint32_t i = 36; i + 16 < len; i++) {
        if (memcmp(dsdt + i, "_S5_", 4) == 0) {
            uint32_t more = dsdt[i + 5] >> 6; /* bytes of the length after the first */
            ck_assert_uint_eq(dsdt[i + 4], 0x12);
            ck_assert_uint_eq(dsdt[i + 7 + more], 0x0a);
            return dsdt[i + 8 + more];
        }
    }
    ck_abort_msg("no _S5_");
    return 0;
}

START_TEST(the_fadt_names_registers_that_work)
{
    build_tables();
    const uint8_t *fadt = table("FACP");
    unsigned evt = (unsigned)le(fadt + 56, 4), cnt = (unsigned)le(fadt + 64, 4);
    unsigned tmr = (unsigned)le(fadt + 76, 4), gpe = (unsigned)le(fadt + 80, 4);

    ck_assert_uint_eq(le(fadt + 112, 4) >> 8 & 1, 0); /* TMR_VAL_EXT: 24 bits */
    fake_advance(vm, 5000000000);
    ck_assert_uint_eq(inl(vm, tmr), 5000000000 * 3579545 / 1000000000 & 0xffffff);
    outb(vm, le(fadt + 48, 4), fadt[52]); /* SMI_CMD, ACPI_ENABLE */
    ck_assert_uint_eq(inw(vm, cnt) & 1, 1);
    outw(vm, evt + fadt[88] / 2, 0x100);
    vmm_acpi_pm_button(pc.acpi_pm);
    ck_assert_int_eq(vm->level[le(fadt + 46, 2)], 1); /* SCI_INT */
    outw(vm, evt, 0x100);
    ck_assert_int_eq(vm->level[le(fadt + 46, 2)], 0);
    outb(vm, gpe + fadt[92] / 2, 0xff);
    ck_assert_uint_eq(inb(vm, gpe + fadt[92] / 2), 0xff);
    outw(vm, cnt, s5_type() << 10 | 1 << 13);
    ck_assert_uint_eq(vm->exits, 1);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_POWEROFF);
    ck_assert_uint_eq(fadt[116], 1);        /* RESET_REG: I/O space */
    outb(vm, le(fadt + 120, 8), fadt[128]); /* RESET_VALUE */
    ck_assert_uint_eq(vm->exits, 2);
    ck_assert_uint_eq(vm->exit_reason, VMM_EXIT_RESET);
    outb(vm, le(fadt + 48, 4), fadt[53]); /* ACPI_DISABLE */
    ck_assert_uint_eq(inw(vm, cnt) & 1, 0);
}
END_TEST

START_TEST(the_hpet_table_is_the_hpet)
{
    build_tables();
    const uint8_t *hpet = table("HPET");

    ck_assert_uint_eq(hpet[40], 0); /* memory space */
    ck_assert_uint_eq(mmio_in(vm, le(hpet + 44, 8), 4), le(hpet + 36, 4));
}
END_TEST

/* ---- What firmware does with fw_cfg: it runs the loader script over the files ---- */

struct file {
    char name[56];
    uint8_t bytes[0x8000];
    uint32_t len;
    uint32_t address; /* where firmware put it */
};

static uint64_t be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | *p++;
    return v;
}

static void fw_bytes(unsigned key, uint8_t *p, uint32_t n)
{
    outw(vm, 0x510, key);
    while (n-- > 0)
        *p++ = (uint8_t)inb(vm, 0x511);
}

static void load_file(const char *name, struct file *file)
{
    static uint8_t dir[4 + 64 * 64];

    fw_bytes(VMM_FW_CFG_FILE_DIR, dir, sizeof dir);
    for (uint64_t i = 0; i < be(dir, 4); i++) {
        const uint8_t *entry = dir + 4 + 64 * i;
        if (strcmp((const char *)entry + 8, name) != 0)
            continue;
        strcpy(file->name, name);
        file->len = (uint32_t)be(entry, 4);
        ck_assert_uint_le(file->len, sizeof file->bytes);
        fw_bytes((unsigned)be(entry + 4, 2), file->bytes, file->len);
        return;
    }
    ck_abort_msg("no file %s", name);
}

static struct file script, files[2];

static struct file *file_named(const uint8_t *name)
{
    for (int i = 0; i < 2; i++)
        if (strcmp(files[i].name, (const char *)name) == 0)
            return &files[i];
    ck_abort_msg("no file %s", (const char *)name);
    return NULL;
}

static void add_le(uint8_t *p, unsigned n, uint64_t add)
{
    add += le(p, n);
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(add >> (8 * i));
}

static uint8_t sum(const uint8_t *p, uint64_t n)
{
    uint8_t s = 0;

    while (n-- > 0)
        s = (uint8_t)(s + *p++);
    return s;
}

static void run_entry(const uint8_t *e, uint32_t *place)
{
    struct file *f = file_named(e + 4), *target;
    uint32_t align = (uint32_t)le(e + 60, 4);

    switch (le(e, 4)) {
    case 1: /* allocate */
        *place = (*place + align - 1) / align * align;
        f->address = *place;
        *place += f->len;
        break;
    case 2: /* add pointer */
        target = file_named(e + 60);
        ck_assert_uint_le(le(e + 116, 4) + e[120], f->len);
        ck_assert_uint_lt(le(f->bytes + le(e + 116, 4), e[120]), target->len);
        add_le(f->bytes + le(e + 116, 4), e[120], target->address);
        break;
    case 3: /* add checksum */
        ck_assert_uint_le(le(e + 64, 4) + le(e + 68, 4), f->len);
        ck_assert_uint_eq(f->bytes[le(e + 60, 4)], 0);
        f->bytes[le(e + 60, 4)] = (uint8_t)-sum(f->bytes + le(e + 64, 4), le(e + 68, 4));
        break;
    default:
        ck_abort_msg("unknown command %u", (unsigned)le(e, 4));
    }
}

/* The table at an address, whose checksum must be right. */
static const uint8_t *installed(uint64_t address, const char *signature)
{
    const uint8_t *p = files[0].bytes + (address - files[0].address);

    ck_assert_uint_lt(address - files[0].address, files[0].len);
    ck_assert_mem_eq(p, signature, 4);
    ck_assert_uint_eq(sum(p, le(p + 4, 4)), 0);
    return p;
}

START_TEST(firmware_can_install_the_acpi_tables)
{
    static struct boot boot;
    uint32_t place = 0x12345;

    ck_assert_int_eq(create(0x2000000, 0, 1), 0);
    boot.vm = vm;
    boot.pc = &pc;
    ck_assert_int_eq(boot_tables_fw_cfg(&boot), 0);
    load_file("etc/table-loader", &script);
    load_file("etc/acpi/tables", &files[0]);
    load_file("etc/acpi/rsdp", &files[1]);
    ck_assert_uint_eq(script.len % 128, 0);
    for (uint32_t i = 0; i < script.len; i += 128)
        run_entry(script.bytes + i, &place);
    const uint8_t *rsdp = files[1].bytes;
    ck_assert_mem_eq(rsdp, "RSD PTR ", 8);
    ck_assert_uint_eq(sum(rsdp, 20), 0);
    ck_assert_uint_eq(sum(rsdp, 36), 0);
    const uint8_t *rsdt = installed(le(rsdp + 16, 4), "RSDT");
    const uint8_t *xsdt = installed(le(rsdp + 24, 8), "XSDT");
    ck_assert_uint_eq(le(rsdt + 36, 4), le(xsdt + 36, 8));
    const uint8_t *fadt = installed(le(xsdt + 36, 8), "FACP");
    installed(le(xsdt + 44, 8), "APIC");
    installed(le(xsdt + 52, 8), "HPET");
    installed(le(fadt + 40, 4), "DSDT");
    ck_assert_uint_eq(le(fadt + 140, 8), le(fadt + 40, 4));
}
END_TEST

START_TEST(memory_past_3_gib_continues_at_4_gib)
{
    const size_t len = VMM_PC_LOW_RAM_MAX + 0x100000;
    uint8_t *ram = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct vmm_pc_config config = {.size = sizeof config, .memory = len, .ram = ram};

    ck_assert_ptr_ne(ram, MAP_FAILED);
    ck_assert_int_eq(vmm_pc_create(vm, &config, &pc), 0);
    ck_assert_uint_eq(pc.low_ram, VMM_PC_LOW_RAM_MAX);
    ck_assert_uint_eq(pc.high_ram, 0x100000);
    ck_assert_uint_eq(pc.cpus, 1);
    ck_assert_ptr_eq(vm_mem_ptr(vm, 0, VMM_PC_LOW_RAM_MAX), ram);
    ck_assert_ptr_null(vm_mem_ptr(vm, 0, VMM_PC_LOW_RAM_MAX + 1));
    ck_assert_ptr_eq(vm_mem_ptr(vm, VMM_PC_HIGH_RAM, 0x100000), ram + VMM_PC_LOW_RAM_MAX);
    ck_assert_ptr_null(vm_mem_ptr(vm, VMM_PC_HIGH_RAM, 0x100001));
    outb(vm, 0x70, 0x5b);
    ck_assert_uint_eq(inb(vm, 0x71), 0x10); /* CMOS: 64 KiB units above 4 GiB */
    munmap(ram, len);
}
END_TEST

START_TEST(parts_can_be_left_out)
{
    ck_assert_int_eq(create(0x100000, 0xff, 1), 0);
    ck_assert_uint_eq(pc.flags, 0xff);
    ck_assert_ptr_null(pc.serial);
    ck_assert_ptr_null(pc.rtc);
    ck_assert_ptr_null(pc.acpi_pm);
    ck_assert_ptr_null(pc.i8042);
    ck_assert_ptr_null(pc.fw_cfg);
    ck_assert_ptr_null(pc.pci);
    static const uint16_t ports[] = {0x3f8, 0x40,  0x61, 0x70,  0x71,  0x60,  0x64,
                                     0x92,  0x600, 0xb2, 0xcf8, 0xcf9, 0xcfc, 0x511};
    for (unsigned i = 0; i < sizeof ports / sizeof ports[0]; i++)
        ck_assert_uint_eq(inb(vm, ports[i]), 0xff);
    ck_assert_uint_eq(mmio_in(vm, VMM_PC_HPET, 4), 0xffffffff);
}
END_TEST

START_TEST(each_part_alone_can_be_left_out)
{
    for (uint32_t flag = 1; flag < 0x100; flag *= 2) {
        ck_assert_int_eq(create(0x100000, flag, 1), 0);
        ck_assert_int_eq(!pc.serial, flag == VMM_PC_NO_SERIAL);
        ck_assert_int_eq(!pc.rtc, flag == VMM_PC_NO_RTC);
        ck_assert_int_eq(!pc.acpi_pm, flag == VMM_PC_NO_ACPI);
        ck_assert_int_eq(!pc.i8042, flag == VMM_PC_NO_I8042);
        ck_assert_int_eq(!pc.fw_cfg, flag == VMM_PC_NO_FW_CFG);
        ck_assert_int_eq(!pc.pci, flag == VMM_PC_NO_PCI);
        outb(vm, 0xcf9, 6); /* the ACPI tables' way to reset needs one of two parts */
        ck_assert_uint_eq(vm->exits, 1);
        fake_vm_free(vm);
        vm = fake_vm_new();
    }
}
END_TEST

START_TEST(legacy_replacement_is_wired)
{
    ck_assert_int_eq(create(0x100000, 0, 1), 0);
    outb(vm, 0x43, 0x34);
    outb(vm, 0x40, 0);
    outb(vm, 0x40, 1);
    fake_advance(vm, 10000000);
    ck_assert_uint_gt(vm->edges[0], 0);
    mmio_out(vm, VMM_PC_HPET + 0x10, 8, 3);
    uint32_t before = vm->edges[0];
    fake_advance(vm, 10000000);
    ck_assert_uint_eq(vm->edges[0], before);
}
END_TEST

START_TEST(bad_configs_are_refused)
{
    struct vmm_pc_config config = {.size = sizeof config, .memory = 0x100000, .cpus = 1};
    struct vmm_pc none = {.size = 0};

    ck_assert_int_eq(vmm_pc_create(vm, NULL, &pc), VMM_E_INVAL);
    ck_assert_int_eq(vmm_pc_create(vm, &config, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_pc_create(vm, &config, &none), VMM_E_INVAL);
    ck_assert_int_eq(create(0x100000 - 4096, 0, 1), VMM_E_INVAL);
    ck_assert_int_eq(create(0x100001, 0, 1), VMM_E_INVAL);
    ck_assert_int_eq(create(0x100000, 0x100, 1), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(create(0x100000, 0, FAKE_MAX_VCPUS + 1), VMM_E_RANGE);
    config.ram = (void *)(uintptr_t)0x1008;
    ck_assert_int_eq(vmm_pc_create(vm, &config, &pc), VMM_E_INVAL);
    vm->no_irqs = 1;
    ck_assert_int_eq(create(0x100000, 0, 1), VMM_E_STATE);
    vm->no_irqs = 0;
    ck_assert_int_eq(create(0x100000, 0, FAKE_MAX_VCPUS), 0);
}
END_TEST

START_TEST(a_taken_port_fails_and_leaves_a_vm_that_can_be_destroyed)
{
    ck_assert_int_eq(vmm_pvpanic_create(vm, VMM_PC_PVPANIC), 0);
    ck_assert_int_eq(create(0x100000, 0, 1), VMM_E_EXIST);
    ck_assert_uint_eq(pc.memory, 0); /* nothing filled in */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pc");
    TCase *tc = tcase_create("pc");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, everything_is_at_its_place);
    tcase_add_test(tc, firmware_finds_the_south_bridge);
    tcase_add_test(tc, firmware_learns_of_cpus_and_memory);
    tcase_add_test(tc, the_fadt_names_registers_that_work);
    tcase_add_test(tc, the_hpet_table_is_the_hpet);
    tcase_add_test(tc, firmware_can_install_the_acpi_tables);
    tcase_add_test(tc, memory_past_3_gib_continues_at_4_gib);
    tcase_add_test(tc, parts_can_be_left_out);
    tcase_add_test(tc, each_part_alone_can_be_left_out);
    tcase_add_test(tc, legacy_replacement_is_wired);
    tcase_add_test(tc, bad_configs_are_refused);
    tcase_add_test(tc, a_taken_port_fails_and_leaves_a_vm_that_can_be_destroyed);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
