/* SPDX-License-Identifier: BSD-2-Clause */
/* test_fw_cfg.c: the firmware configuration device through its ports and its DMA, also hostile. */
#include <check.h>

#include "fake_vm.h"

#define SELECT 0x510
#define DATA   0x511
#define DMA    0x514

#define ERROR  1u
#define READ   2u
#define SKIP   4u
#define SEL    8u
#define WRITE  16u
#define KEY(k) ((uint32_t)(k) << 16)

#define RAM     0x100000u
#define DESC    0x1000u
#define BUF     0x2000u
#define FILLING 0xa5

static struct vm *vm;
static struct vmm_fw_cfg *fw;
static uint8_t *ram;

static void setup(void)
{
    vm = fake_vm_new();
    ck_assert_int_eq(vmm_fw_cfg_create(vm, &fw), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram), 0);
    memset(ram, FILLING, RAM);
}

static void teardown(void)
{
    fake_vm_free(vm);
}

static void pick(unsigned key)
{
    outw(vm, SELECT, key);
}

static void bytes(void *buf, unsigned n)
{
    uint8_t *p = buf;

    while (n-- > 0)
        *p++ = (uint8_t)inb(vm, DATA);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void start(uint64_t gpa)
{
    outl(vm, DMA, __builtin_bswap32((uint32_t)(gpa >> 32)));
    outl(vm, DMA + 4, __builtin_bswap32((uint32_t)gpa));
}

/* Runs a descriptor; returns its control word afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t address)
{
    put32(ram + DESC, control);
    put32(ram + DESC + 4, len);
    put32(ram + DESC + 8, (uint32_t)(address >> 32));
    put32(ram + DESC + 12, (uint32_t)address);
    start(DESC);
    return be32(ram + DESC);
}

START_TEST(linux_finds_signature_id_and_dma)
{
    char sig[8];
    uint8_t id[4];

    pick(0);
    bytes(sig, 4);
    ck_assert_mem_eq(sig, "QEMU", 4);
    pick(1);
    bytes(id, 4);
    ck_assert_mem_eq(id, "\3\0\0\0", 4);
    for (int i = 0; i < 8; i++)
        sig[i] = (char)inb(vm, DMA + i);
    ck_assert_mem_eq(sig, "QEMU CFG", 8);
    ck_assert_uint_eq(inl(vm, DMA), 0x554d4551);
    ck_assert_uint_eq(inw(vm, DMA + 6), 0x4746);
}
END_TEST

START_TEST(items_end_in_zeros_and_missing_ones_are_all_zeros)
{
    uint8_t b[4];

    ck_assert_int_eq(vmm_fw_cfg_add(fw, VMM_FW_CFG_NB_CPUS, "\2\1", 2), 0);
    pick(VMM_FW_CFG_NB_CPUS);
    bytes(b, 4);
    ck_assert_mem_eq(b, "\2\1\0\0", 4);
    pick(VMM_FW_CFG_NB_CPUS | 0x4000); /* the write channel of old */
    bytes(b, 2);
    ck_assert_mem_eq(b, "\2\1\0\0", 2);
    static const unsigned none[] = {0x02, 0x7fff, 0x8000, 0xffff, 0x20};
    for (unsigned i = 0; i < sizeof none / sizeof none[0]; i++) {
        pick(none[i]);
        bytes(b, 4);
        ck_assert_mem_eq(b, "\0\0\0\0", 4);
    }
}
END_TEST

START_TEST(other_accesses_do_nothing)
{
    uint8_t b[3];

    pick(0);
    outb(vm, SELECT, 5);
    outb(vm, DATA, 5); /* data is read-only */
    bytes(b, 1);
    outw(vm, DATA, 0x0101); /* not aligned: a byte here, a byte beyond */
    bytes(b + 1, 1);
    ck_assert_mem_eq(b, "QE", 2);
    ck_assert_uint_eq(inb(vm, SELECT), 0xff);
    ck_assert_uint_eq(inw(vm, SELECT), 0xffff);
    bytes(b, 1);
    ck_assert_uint_eq(b[0], 'M');
    outb(vm, DMA + 4, 1); /* starts nothing */
    outw(vm, DMA + 6, 1);
    ck_assert_uint_eq(ram[0], FILLING);
}
END_TEST

START_TEST(items_are_replaced_and_checked)
{
    uint8_t b[3];

    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x8003, "abc", 3), 0);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x8003, "xy", 2), 0);
    pick(0x8003);
    bytes(b, 3);
    ck_assert_mem_eq(b, "xy\0", 3);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x19, "x", 1), VMM_E_RANGE);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x20, "x", 1), VMM_E_RANGE);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x4005, "x", 1), VMM_E_RANGE);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 0x8020, "x", 1), VMM_E_RANGE);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 5, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, 5, NULL, 0), 0);
}
END_TEST

/* Reads the directory; returns the entry of `name` in it. */
static int find(const char *name, uint32_t *size, unsigned *key)
{
    uint8_t count[4], entry[64];

    pick(0x19);
    bytes(count, 4);
    for (uint32_t n = be32(count); n > 0; n--) {
        bytes(entry, 64);
        if (strcmp((char *)entry + 8, name) == 0) {
            *size = be32(entry);
            *key = (unsigned)(entry[4] << 8 | entry[5]);
            return 1;
        }
    }
    return 0;
}

START_TEST(files_are_in_the_directory)
{
    static const char longest[] = "etc/0123456789012345678901234567890123456789012345678901";
    uint32_t size = 0;
    unsigned key = 0, key2 = 0;
    char b[8];

    ck_assert_int_eq(find("a", &size, &key), 0);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, "etc/b", "hello", 5), 0);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, "bootorder", "", 0), 0);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, longest + 1, "x", 1), 0);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, longest, "x", 1), VMM_E_RANGE);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, "", "x", 1), VMM_E_INVAL);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, NULL, "x", 1), VMM_E_INVAL);
    ck_assert_int_eq(find(longest + 1, &size, &key), 1);
    ck_assert_int_eq(find("bootorder", &size, &key), 1);
    ck_assert_uint_eq(size, 0);
    ck_assert_int_eq(find("etc/b", &size, &key), 1);
    ck_assert_uint_eq(size, 5);
    ck_assert_uint_ge(key, 0x20);
    pick(key);
    bytes(b, 5);
    ck_assert_mem_eq(b, "hello", 5);
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, "etc/b", "bye", 3), 0);
    ck_assert_int_eq(find("etc/b", &size, &key2), 1);
    ck_assert_uint_eq(size, 3);
    ck_assert_uint_eq(key2, key); /* a replaced file keeps its key */
    pick(key);
    bytes(b, 4);
    ck_assert_mem_eq(b, "bye\0", 4);
}
END_TEST

START_TEST(dma_selects_reads_and_skips)
{
    uint8_t big[10000];

    for (unsigned i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 7 + i / 256);
    ck_assert_int_eq(vmm_fw_cfg_add(fw, VMM_FW_CFG_KERNEL_DATA, big, sizeof big), 0);
    ck_assert_uint_eq(dma(KEY(VMM_FW_CFG_KERNEL_DATA) | SEL | READ, sizeof big, BUF), 0);
    ck_assert_mem_eq(ram + BUF, big, sizeof big);
    ck_assert_uint_eq(ram[BUF + sizeof big], FILLING);
    ck_assert_uint_eq(dma(KEY(VMM_FW_CFG_KERNEL_DATA) | SEL | SKIP, 9998, 0), 0);
    ck_assert_uint_eq(dma(READ, 4, BUF), 0); /* the rest, then zeros */
    ck_assert_uint_eq(ram[BUF], big[9998]);
    ck_assert_uint_eq(ram[BUF + 1], big[9999]);
    ck_assert_uint_eq(ram[BUF + 2], 0);
    ck_assert_uint_eq(ram[BUF + 3], 0);
    ck_assert_uint_eq(ram[BUF + 4], big[4]);
    ck_assert_uint_eq(dma(KEY(0) | SEL, 0, 0), 0);
    ck_assert_uint_eq(inb(vm, DATA), 'Q'); /* ports and DMA share the offset */
    ck_assert_uint_eq(dma(SKIP, 1, 0), 0);
    ck_assert_uint_eq(inb(vm, DATA), 'M');
    ck_assert_uint_eq(dma(SKIP, 0xffffffff, 0), 0);
    ck_assert_uint_eq(inb(vm, DATA), 0);
    ck_assert_uint_eq(dma(READ | SKIP | WRITE, 1, BUF), 0); /* reading goes first */
    ck_assert_uint_eq(ram[BUF], 0);
    ck_assert_uint_eq(dma(0, 77, 12345), 0);
}
END_TEST

START_TEST(dma_writes_are_refused)
{
    ck_assert_uint_eq(dma(KEY(0) | SEL | WRITE, 4, BUF), ERROR);
    pick(0);
    ck_assert_uint_eq(inb(vm, DATA), 'Q');
    ck_assert_uint_eq(dma(WRITE, 0, BUF), 0);
}
END_TEST

START_TEST(hostile_addresses_end_in_the_error_bit)
{
    static const uint64_t bad[] = {
        RAM - 2,           RAM,        0xfee00000, UINT64_MAX, UINT64_MAX - 3, 0x8000000000000000,
        1ull << 32 | 4096, VMM_PC_HPET};
    uint8_t zeros[16] = {0};

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_uint_eq(dma(KEY(0) | SEL | READ, 4, bad[i]), ERROR);
        start(bad[i]); /* descriptors that are not there */
    }
    ck_assert_uint_eq(dma(KEY(0) | SEL | READ, 0xffffffff, BUF), ERROR);
    ck_assert_uint_eq(dma(KEY(2) | SEL | READ, 0xffffffff, 0), ERROR);
    /* A descriptor that runs out of memory has at least its control word told. */
    memset(ram + RAM - 4, 0, 4);
    start(RAM - 4);
    ck_assert_uint_eq(be32(ram + RAM - 4), ERROR);
    /* A transfer over its own descriptor. */
    ck_assert_uint_eq(dma(KEY(2) | SEL | READ, 16, DESC), 0);
    ck_assert_mem_eq(ram + DESC, zeros, 16);
}
END_TEST

START_TEST(dma_does_not_write_rom)
{
    uint8_t *rom;

    ck_assert_int_eq(vm_mem_alloc(vm, 0xfffff000, 0x1000, VMM_MEM_RX, (void **)&rom), 0);
    ck_assert_uint_eq(dma(KEY(0) | SEL | READ, 4, 0xfffff000), ERROR);
    put32(rom, READ);
    start(0xfffff000); /* a descriptor in ROM: its answer cannot be written */
    ck_assert_uint_eq(be32(rom), READ);
}
END_TEST

START_TEST(the_high_half_counts_once)
{
    outl(vm, DMA, __builtin_bswap32(1));
    put32(ram + DESC, READ);
    outl(vm, DMA + 4, __builtin_bswap32(DESC)); /* at 4 GiB + DESC: nothing */
    ck_assert_uint_eq(be32(ram + DESC), READ);
    outl(vm, DMA + 4, __builtin_bswap32(DESC));
    ck_assert_uint_ne(be32(ram + DESC), READ);
}
END_TEST

START_TEST(reset_selects_the_signature_and_keeps_items)
{
    ck_assert_int_eq(vmm_fw_cfg_add_file(fw, "f", "1", 1), 0);
    pick(1);
    fake_vm_reset(vm);
    ck_assert_uint_eq(inb(vm, DATA), 'Q');
    pick(0x20);
    ck_assert_uint_eq(inb(vm, DATA), '1');
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fw_cfg");
    TCase *tc = tcase_create("fw_cfg");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, linux_finds_signature_id_and_dma);
    tcase_add_test(tc, items_end_in_zeros_and_missing_ones_are_all_zeros);
    tcase_add_test(tc, other_accesses_do_nothing);
    tcase_add_test(tc, items_are_replaced_and_checked);
    tcase_add_test(tc, files_are_in_the_directory);
    tcase_add_test(tc, dma_selects_reads_and_skips);
    tcase_add_test(tc, dma_writes_are_refused);
    tcase_add_test(tc, hostile_addresses_end_in_the_error_bit);
    tcase_add_test(tc, dma_does_not_write_rom);
    tcase_add_test(tc, the_high_half_counts_once);
    tcase_add_test(tc, reset_selects_the_signature_and_keeps_items);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
