/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot_linux.c: Linux bzImage kernels of several protocol versions, good and bad. */
#include "boot_test.h"

#define CODE_LEN  0x3000u
#define SETUP_LEN 0x600u /* with two setup sectors */
#define PREF      0x1000000u

static uint8_t bz[SETUP_LEN + CODE_LEN];

/* A 64-bit relocatable kernel as they are today; tests change what they are about. */
static void make_bz(uint32_t version)
{
    memset(bz, 0, sizeof(bz));
    memset(bz + 0x100, 0xcc, 0xf1); /* the boot sector's code must not reach boot_params */
    bz[0x1f1] = 2;
    boot_put32(bz + 0x1f4, CODE_LEN / 16);
    boot_put16(bz + 0x1fa, 0x1234);
    boot_put16(bz + 0x1fe, 0xaa55);
    bz[0x200] = 0xeb;
    bz[0x201] = version >= 0x20a ? 0x6a : 0x3a;
    memcpy(bz + 0x202, "HdrS", 4);
    boot_put16(bz + 0x206, (uint16_t)version);
    bz[0x211] = 1;
    boot_put32(bz + 0x214, 0x100000);
    boot_put32(bz + 0x22c, 0x7fffffff);
    boot_put32(bz + 0x230, 0x200000);
    bz[0x234] = 1;
    boot_put32(bz + 0x238, 2047);
    if (version >= 0x20a) {
        bz[0x235] = 21;
        boot_put16(bz + 0x236, version >= 0x20c ? 3 : 0);
        boot_put64(bz + 0x250, 0x1122334455667788);
        boot_put64(bz + 0x258, PREF);
        boot_put32(bz + 0x260, 0x800000);
    }
    for (uint32_t i = 0; i < CODE_LEN; i++)
        bz[SETUP_LEN + i] = (uint8_t)(i * 7 + (i >> 8));
    memset(bz + SETUP_LEN, 0xf4, 16);
    memset(bz + SETUP_LEN + 0x200, 0xf4, 16);
}

static void check_e820(uint64_t params, uint32_t i, uint64_t start, uint64_t len, uint32_t type)
{
    uint64_t entry = params + 0x2d0 + 20 * i;

    ck_assert_uint_eq(mem64(entry), start);
    ck_assert_uint_eq(mem64(entry + 8), len);
    ck_assert_uint_eq(mem32(entry + 16), type);
}

START_TEST(starts_at_the_64_bit_entry)
{
    struct vmm_boot boot = request(bz, sizeof(bz));
    struct vcpu_regs regs;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot.pc = &pc;
    must_boot(VMM_BOOT_LINUX, &boot);
    regs = regs_of();
    check_long64(&regs);
    ck_assert_uint_eq(regs.rip, PREF + 0x200);
    ck_assert_uint_eq(regs.gpr[VMM_RBP] | regs.gpr[VMM_RDI] | regs.gpr[VMM_RBX], 0);
    ck_assert_uint_eq(regs.gpr[VMM_RSI] % 4096, 0);
    ck_assert_uint_eq(run_to_hlt(), PREF + 0x201);
    end();
}
END_TEST

START_TEST(loads_the_kernel_and_nothing_beside_it)
{
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_mem_eq(ram + PREF, bz + SETUP_LEN, CODE_LEN);
    ck_assert(untouched(MIB, PREF));
    ck_assert(untouched(PREF + CODE_LEN, 64 * MIB));
    end();
}
END_TEST

START_TEST(fills_the_boot_parameters)
{
    static const char cmdline[] = "console=ttyS0 quiet";
    struct vmm_boot boot;
    uint64_t p, rsdp;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    boot.cmdline = cmdline;
    must_boot(VMM_BOOT_LINUX, &boot);
    p = regs_of().gpr[VMM_RSI];
    ck_assert(all_bytes(ram + p, 0x70, 0)); /* no screen, no APM */
    ck_assert(all_bytes(ram + p + 0x78, 0x1e8 - 0x78, 0));
    ck_assert_uint_eq(ram[p + 0x1e8], 3);
    ck_assert(all_bytes(ram + p + 0x1e9, 0x1f1 - 0x1e9, 0));
    ck_assert_uint_eq(ram[p + 0x1f1], 2);
    ck_assert_uint_eq(mem16(p + 0x1fa), 0xffff);
    ck_assert_mem_eq(ram + p + 0x202, "HdrS", 4);
    ck_assert_uint_eq(mem16(p + 0x206), 0x20f);
    ck_assert_uint_eq(ram[p + 0x210], 0xff);
    ck_assert_uint_eq(ram[p + 0x211], 1);
    ck_assert_uint_eq(mem32(p + 0x214), PREF);
    ck_assert_uint_eq(mem64(p + 0x218), 0); /* no initrd */
    ck_assert_str_eq(text_at(mem32(p + 0x228)), cmdline);
    ck_assert_uint_eq(mem64(p + 0x250),
                      0); /* what the image has as setup data is not the loader's */
    ck_assert_uint_eq(mem64(p + 0x258), PREF);
    ck_assert_uint_eq(mem32(p + 0x260), 0x800000);
    ck_assert(all_bytes(ram + p + 0x26c, 0x2d0 - 0x26c, 0));
    check_e820(p, 0, 0, 0x9fc00, 1);
    check_e820(p, 1, 0x9fc00, 0x60400, 2);
    check_e820(p, 2, MIB, 63 * MIB, 1);
    ck_assert(all_bytes(ram + p + 0x2d0 + 60, 4096 - 0x2d0 - 60, 0));
    rsdp = mem64(p + 0x70);
    ck_assert_uint_ge(rsdp, 0xe0000);
    ck_assert_mem_eq(ram + rsdp, "RSD PTR ", 8);
    end();
}
END_TEST

START_TEST(says_nothing_of_acpi_when_there_is_none)
{
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    boot.flags = VMM_BOOT_NO_ACPI;
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_uint_eq(mem64(regs_of().gpr[VMM_RSI] + 0x70), 0);
    ck_assert(untouched(0xe0000, 0xf0000));
    end();
    make_bz(0x20d); /* the field came with 2.14 */
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_uint_eq(mem64(regs_of().gpr[VMM_RSI] + 0x70), 0);
    ck_assert_mem_eq(ram + 0xe0000, "RSD PTR ", 8);
    end();
}
END_TEST

START_TEST(starts_kernels_without_64_bit_entry_in_protected_mode)
{
    struct vmm_boot boot;
    struct vcpu_regs regs;

    make_bz(0x20f);
    boot_put16(bz + 0x236, 2);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.rip, PREF);
    ck_assert_uint_eq(regs.gpr[VMM_RBP] | regs.gpr[VMM_RDI] | regs.gpr[VMM_RBX], 0);
    ck_assert_mem_eq(ram + regs.gpr[VMM_RSI] + 0x202, "HdrS", 4);
    ck_assert_uint_eq(run_to_hlt(), PREF + 1);
    end();
}
END_TEST

START_TEST(starts_kernels_of_protocol_2_06)
{
    struct vmm_boot boot;
    struct vcpu_regs regs;
    uint64_t p;

    make_bz(0x206);
    memset(bz + 0x23c, 0xee, 0x80); /* code of that kernel, not header */
    begin_pc(16 * MIB);
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.rip, MIB);
    ck_assert_mem_eq(ram + MIB, bz + SETUP_LEN, CODE_LEN);
    p = regs.gpr[VMM_RSI];
    ck_assert(all_bytes(ram + p + 0x23c, 0x2d0 - 0x23c, 0));
    end();
}
END_TEST

START_TEST(four_setup_sectors_are_the_default)
{
    static uint8_t old[0xa00 + CODE_LEN];
    struct vmm_boot boot;

    make_bz(0x20f);
    bz[0x1f1] = 0;
    memset(old, 0, sizeof(old));
    memcpy(old, bz, SETUP_LEN);
    memcpy(old + 0xa00, bz + SETUP_LEN, CODE_LEN);
    begin_pc(64 * MIB);
    boot = request(old, sizeof(old));
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_mem_eq(ram + PREF, bz + SETUP_LEN, CODE_LEN);
    end();
}
END_TEST

START_TEST(leaves_the_signature_behind_the_kernel_out)
{
    static uint8_t signed_[sizeof(bz) + 0x123];
    struct vmm_boot boot;

    make_bz(0x20f);
    memcpy(signed_, bz, sizeof(bz));
    memset(signed_ + sizeof(bz), 0x77, 0x123);
    begin_pc(64 * MIB);
    boot = request(signed_, sizeof(signed_));
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert(untouched(PREF + CODE_LEN, 64 * MIB));
    end();
}
END_TEST

/* ---- initrd ---- */

START_TEST(concatenates_initrds)
{
    static const struct vmm_image modules[] = {
        {.size = sizeof(struct vmm_image), .data = "12345", .len = 5},
        {.size = sizeof(struct vmm_image), .data = NULL, .len = 0},
        {.size = sizeof(struct vmm_image), .data = "abcdefg", .len = 7}};
    struct vmm_boot boot;
    uint64_t p;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    boot.modules = modules;
    boot.nmodules = 3;
    must_boot(VMM_BOOT_LINUX, &boot);
    p = regs_of().gpr[VMM_RSI];
    ck_assert_uint_eq(mem32(p + 0x218), 64 * MIB - 4096);
    ck_assert_uint_eq(mem32(p + 0x21c), 15);
    ck_assert_uint_eq(mem64(p + 0xc0), 0);
    ck_assert_mem_eq(ram + 64 * MIB - 4096, "12345\0\0\0abcdefg", 15);
    ck_assert(untouched(64 * MIB - 4096 + 15, 64 * MIB));
    end();
}
END_TEST

START_TEST(keeps_the_initrd_below_the_kernels_limit)
{
    struct vmm_image module;
    struct vmm_boot boot;
    uint8_t bytes[5000];
    uint64_t p;

    memset(bytes, 0x3c, sizeof(bytes));
    module = image_of(bytes, sizeof(bytes));
    make_bz(0x20f);
    boot_put32(bz + 0x22c, 0x2ffffff);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    boot.modules = &module;
    boot.nmodules = 1;
    must_boot(VMM_BOOT_LINUX, &boot);
    p = regs_of().gpr[VMM_RSI];
    ck_assert_uint_eq(mem32(p + 0x218), 0x3000000 - 0x2000);
    ck_assert_mem_eq(ram + 0x3000000 - 0x2000, bytes, sizeof(bytes));
    end();
}
END_TEST

START_TEST(places_the_initrd_above_4_gib_if_it_must_and_may)
{
    static uint8_t bytes[3 * MIB / 2];
    struct vmm_image module = image_of(bytes, sizeof(bytes));
    struct vmm_boot boot;
    uint64_t p, gpa;

    make_bz(0x20f);
    boot_put32(bz + 0x22c, 0x1fffff); /* one MiB is all that is left below */
    begin_pc(5120 * MIB);
    boot = request(bz, sizeof(bz));
    boot.modules = &module;
    boot.nmodules = 1;
    must_boot(VMM_BOOT_LINUX, &boot);
    p = regs_of().gpr[VMM_RSI];
    gpa = mem32(p + 0x218) | (uint64_t)mem32(p + 0xc0) << 32;
    ck_assert_uint_eq(gpa, VMM_PC_HIGH_RAM + 2048 * MIB - sizeof(bytes));
    ck_assert_uint_eq(mem32(p + 0x21c), sizeof(bytes));
    ck_assert_uint_eq(mem32(p + 0xc4), 0);
    check_e820(p, 2, MIB, 3071 * MIB, 1);
    check_e820(p, 3, VMM_PC_HIGH_RAM, 2048 * MIB, 1);
    boot_put16(bz + 0x236, 1);
    must_fail(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "no free RAM for initrd");
    end();
}
END_TEST

START_TEST(says_that_the_initrd_does_not_fit)
{
    struct vmm_image modules[2];
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_pc(32 * MIB);
    boot = request(bz, sizeof(bz));
    modules[0] = image_of(ram, 24 * MIB);
    boot.modules = modules;
    boot.nmodules = 1;
    must_fail(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "no free RAM for initrd");
    modules[0].len = modules[1].len = UINT64_MAX - 8;
    modules[1] = modules[0];
    boot.nmodules = 2;
    must_fail(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "the initrds are larger than memory");
    end();
}
END_TEST

/* ---- placement ---- */

START_TEST(relocates_where_the_preferred_address_is_no_memory)
{
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_plain();
    add_memory(0, 12 * MIB, VMM_MEM_RWX);
    add_memory(0x1500000, 43 * MIB, VMM_MEM_RWX); /* from 21 MiB, below the alignment of 2 MiB */
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_uint_eq(regs_of().rip, 0x1600000 + 0x200);
    ck_assert_mem_eq(at(0x1600000, CODE_LEN), bz + SETUP_LEN, CODE_LEN);
    ck_assert_uint_eq(mem32(regs_of().gpr[VMM_RSI] + 0x214), 0x1600000);
    check_e820(regs_of().gpr[VMM_RSI], 2, MIB, 11 * MIB, 1);
    check_e820(regs_of().gpr[VMM_RSI], 3, 0x1500000, 43 * MIB, 1);
    bz[0x234] = 0;
    must_fail(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "is not relocatable");
    end();
}
END_TEST

START_TEST(needs_room_for_all_that_the_kernel_uses)
{
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_pc(24 * MIB); /* just enough */
    boot = request(bz, sizeof(bz));
    must_boot(VMM_BOOT_LINUX, &boot);
    end();
    begin_pc(24 * MIB - 4096);
    boot = request(bz, sizeof(bz));
    must_refuse(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "no free RAM for kernel: 0x800000 bytes");
    boot_put64(bz + 0x258, 0x8000);
    must_refuse(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "is not relocatable there");
    boot_put64(bz + 0x258, UINT64_MAX - 0x1000);
    must_refuse(VMM_BOOT_LINUX, &boot, VMM_E_NOSPACE, "no free RAM for kernel");
    end();
}
END_TEST

/* ---- command line ---- */

START_TEST(takes_command_lines_up_to_the_kernels_limit)
{
    char text[2049];
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_pc(64 * MIB);
    boot = request(bz, sizeof(bz));
    memset(text, 'x', sizeof(text));
    text[2048] = '\0';
    boot.cmdline = text;
    must_refuse(VMM_BOOT_LINUX, &boot, VMM_E_LIMIT,
                "the command line has 2048 bytes, the kernel takes at most 2047");
    text[2047] = '\0';
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_str_eq(text_at(mem32(regs_of().gpr[VMM_RSI] + 0x228)), text);
    boot.cmdline = NULL;
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_str_eq(text_at(mem32(regs_of().gpr[VMM_RSI] + 0x228)), "");
    end();
}
END_TEST

/* ---- bad images ---- */

struct bad {
    uint32_t offset;
    uint32_t size;
    uint32_t value;
    int code;
    const char *text;
};

START_TEST(refuses_bad_headers)
{
    static const struct bad bad[] = {
        {0x1fe, 2, 0x55aa, VMM_E_FORMAT, "boot flag 0x55aa is not 0xaa55"},
        {0x202, 4, 0x12345678, VMM_E_FORMAT, "magic 0x12345678 is not \"HdrS\""},
        {0x206, 2, 0x205, VMM_E_UNSUPPORTED, "boot protocol 2.05 is older than 2.06"},
        {0x211, 1, 0, VMM_E_UNSUPPORTED, "a zImage"},
        {0x201, 1, 0x61, VMM_E_FORMAT, "the setup header ends at 0x263, must end between 0x264"},
        {0x1f1, 1, 26, VMM_E_TRUNCATED, "(0x3600 bytes) ends before the kernel at 0x3600"},
        {0x1f1, 1, 255, VMM_E_TRUNCATED, "ends before the kernel at 0x20000"},
        {0x1f4, 4, CODE_LEN / 16 + 1, VMM_E_TRUNCATED, "the kernel has 0x3010 bytes"},
        {0x1f4, 4, UINT32_MAX, VMM_E_TRUNCATED, "the kernel has 0xffffffff0 bytes"},
        {0x1f4, 4, 0x20, VMM_E_TRUNCATED, "(0x200 bytes) ends before its 64-bit entry"},
        {0x230, 4, 0, VMM_E_FORMAT, "kernel alignment 0x0 is no power of two"},
        {0x230, 4, 0x300000, VMM_E_FORMAT, "kernel alignment 0x300000 is no power of two"},
        {0x235, 1, 32, VMM_E_FORMAT, "minimum alignment 2^32"},
        {0x260, 4, UINT32_MAX, VMM_E_NOSPACE, "no free RAM for kernel: 0xffffffff bytes"},
    };

    begin_pc(32 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vmm_boot boot = request(bz, sizeof(bz));

        make_bz(0x20f);
        memcpy(bz + bad[i].offset, &bad[i].value, bad[i].size);
        must_refuse(VMM_BOOT_LINUX, &boot, bad[i].code, bad[i].text);
    }
    end();
}
END_TEST

START_TEST(refuses_every_truncated_image)
{
    make_bz(0x20f);
    begin_pc(32 * MIB);
    for (size_t len = 0; len <= sizeof(bz) - 16; len++) {
        uint8_t *copy = malloc(len ? len : 1); /* so that a sanitizer sees reads past the end */
        struct vmm_boot boot = request(copy, len);

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, bz, len);
        must_fail(VMM_BOOT_LINUX, &boot, VMM_E_TRUNCATED, len ? "0x" : "the kernel image is empty");
        free(copy);
    }
    ck_assert(untouched(0, ram_size));
    end();
}
END_TEST

/* Any single wrong byte of the header is harmless: an error, or a guest that starts somewhere in
 * its memory. */
START_TEST(survives_every_wrong_header_byte)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};

    begin_pc(32 * MIB);
    for (uint32_t offset = 0x1f1; offset < 0x270; offset++) {
        for (size_t i = 0; i < sizeof(values); i++) {
            struct vmm_boot boot = request(bz, sizeof(bz));
            uint64_t rip;
            int err;

            make_bz(0x20f);
            bz[offset] = values[i];
            err = vm_boot_linux(vcpu, &boot);
            if (err == 0) {
                rip = regs_of().rip;
                ck_assert_uint_ge(rip, MIB);
                ck_assert_uint_lt(rip, 32 * MIB);
                continue;
            }
            ck_assert(err == VMM_E_FORMAT || err == VMM_E_TRUNCATED || err == VMM_E_UNSUPPORTED ||
                      err == VMM_E_NOSPACE || err == VMM_E_LIMIT);
            ck_assert_str_ne(last_text(), "");
        }
    }
    end();
}
END_TEST

START_TEST(needs_a_memory_map_that_fits)
{
    struct vmm_boot boot;

    make_bz(0x20f);
    begin_plain();
    add_memory(0, 32 * MIB, VMM_MEM_RWX);
    for (uint64_t i = 0; i < 126; i++)
        add_memory(64 * MIB + i * 0x2000, 0x1000, VMM_MEM_RWX);
    boot = request(bz, sizeof(bz));
    must_fail(VMM_BOOT_LINUX, &boot, VMM_E_LIMIT, "the memory map needs more than 128 entries");
    ck_assert_int_eq(vm_mem_unmap(vm, 64 * MIB), 0);
    must_boot(VMM_BOOT_LINUX, &boot);
    ck_assert_uint_eq(*at(regs_of().gpr[VMM_RSI] + 0x1e8, 1), 128);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        starts_at_the_64_bit_entry,
        loads_the_kernel_and_nothing_beside_it,
        fills_the_boot_parameters,
        says_nothing_of_acpi_when_there_is_none,
        starts_kernels_without_64_bit_entry_in_protected_mode,
        starts_kernels_of_protocol_2_06,
        four_setup_sectors_are_the_default,
        leaves_the_signature_behind_the_kernel_out,
        concatenates_initrds,
        keeps_the_initrd_below_the_kernels_limit,
        places_the_initrd_above_4_gib_if_it_must_and_may,
        says_that_the_initrd_does_not_fit,
        relocates_where_the_preferred_address_is_no_memory,
        needs_room_for_all_that_the_kernel_uses,
        takes_command_lines_up_to_the_kernels_limit,
        refuses_bad_headers,
        refuses_every_truncated_image,
        survives_every_wrong_header_byte,
        needs_a_memory_map_that_fits,
    };

    return RUN_SUITE("boot linux", tests);
}
