/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot_real.c: images that start in real mode: flat code and firmware at the reset vector. */
#include "boot_test.h"

/* ---- flat images ---- */

START_TEST(starts_like_a_boot_sector)
{
    static const uint8_t sector[512] = {0xe8, 0x01, 0x00, 0xf4, 0xf4}; /* call over a hlt; hlt */
    struct vcpu_regs regs;
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(sector, sizeof(sector));
    must_boot(VMM_BOOT_FLAT, &boot);
    regs = regs_of();
    ck_assert_uint_eq(regs.cr0 & 1, 0);
    ck_assert_uint_eq(regs.rip, 0x7c00);
    ck_assert_uint_eq(regs.gpr[VMM_RSP], 0x7c00);
    ck_assert_uint_eq(regs.gpr[VMM_RDX], 0x80);
    ck_assert_uint_eq(regs.rflags, 2);
    for (int i = VMM_ES; i <= VMM_GS; i++) {
        ck_assert_uint_eq(regs.seg[i].selector, 0);
        ck_assert_uint_eq(regs.seg[i].base, 0);
        ck_assert_uint_eq(regs.seg[i].limit, 0xffff);
    }
    ck_assert_uint_eq(regs.idt.base, 0);
    ck_assert_uint_eq(regs.idt.limit, 0x3ff);
    ck_assert_mem_eq(ram + 0x7c00, sector, sizeof(sector));
    ck_assert(untouched(0x500, 0x7c00));
    ck_assert(untouched(0x7e00, 0x9fc00));
    ck_assert_uint_eq(run_to_hlt(), 0x7c05);
    ck_assert_uint_eq(mem16(0x7bfe), 0x7c03); /* the return address went to the stack */
    end();
}
END_TEST

START_TEST(leaves_a_bios_data_area)
{
    static const uint8_t code[] = {0xf4};
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(code, sizeof(code));
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_uint_eq(mem16(0x400), 0x3f8); /* COM1 */
    ck_assert_uint_eq(mem16(0x40e), 0x9fc0);
    ck_assert_uint_eq(mem16(0x413), 639);
    ck_assert_uint_eq(ram[0x9fc00], 1); /* KiB of EBDA */
    end();
    begin_pc_with(2 * MIB, 1, VMM_PC_NO_SERIAL);
    boot = request(code, sizeof(code));
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_uint_eq(mem16(0x400), 0);
    end();
}
END_TEST

START_TEST(refuses_bios_services)
{
    static const uint8_t code[] = {
        0xb4, 0x02,       /* mov ah, 2: read sectors */
        0xf8,             /* clc */
        0xcd, 0x13,       /* int 13h */
        0x89, 0xc3,       /* mov bx, ax */
        0x9c, 0x59,       /* pushf; pop cx */
        0xf8, 0xcd, 0x1c, /* clc; int 1ch: the timer's callback */
        0x9c, 0x5a,       /* pushf; pop dx */
        0xcd, 0x12,       /* int 12h: memory */
        0xf4,
    };
    struct vcpu_regs regs;
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(code, sizeof(code));
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_uint_eq(run_to_hlt(), 0x7c00 + sizeof(code));
    regs = regs_of();
    ck_assert_uint_eq(regs.gpr[VMM_RBX] >> 8, 0x86);
    ck_assert_uint_eq(regs.gpr[VMM_RCX] & 1, 1);
    ck_assert_uint_eq(regs.gpr[VMM_RDX] & 1, 0);
    ck_assert_uint_eq(regs.gpr[VMM_RAX], 639);
    ck_assert_uint_eq(regs.gpr[VMM_RSP], 0x7c00);
    ck_assert_uint_eq(ram[0xffffe], 0xfc);
    end();
}
END_TEST

START_TEST(resets_at_the_reset_vector)
{
    static const uint8_t code[] = {0xea, 0xf0, 0xff, 0x00, 0xf0}; /* jmp f000:fff0 */
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(code, sizeof(code));
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 1000, 0), 0);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_RESET);
    end();
}
END_TEST

START_TEST(leaves_the_vectors_to_an_image_over_them)
{
    static const uint8_t code[] = {0xf4, 1, 2, 3};
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(code, sizeof(code));
    boot.load_addr = 0x3fc;
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert(untouched(0, 0x3fc));
    ck_assert_mem_eq(ram + 0x3fc, code, sizeof(code));
    end();
}
END_TEST

/* Where the code and the stack of an image lie. */
START_TEST(chooses_segment_and_stack_by_the_load_address)
{
    static uint8_t code[0xa0000];
    static const struct {
        uint64_t addr;
        uint64_t len;
        uint32_t cs, ip, ss, sp;
    } cases[] = {
        {0x500, 0x1000, 0, 0x500, 0, 0x7c00},      /* ends far below */
        {0x7000, 0x1000, 0, 0x7000, 0, 0x7000},    /* reaches into it */
        {0x600, 0x8000, 0, 0x600, 0, 0xfff0},      /* around it */
        {0x600, 0x10000, 0, 0x600, 0x1060, 0x400}, /* no room in the segment */
        {0x601, 0x10000, 0, 0x601, 0x1061, 0x400}, /* the same, in an odd place */
        {0x10000, 0x100, 0x1000, 0, 0, 0x7c00},    /* segments of their own from 64 KiB on */
        {0x12345, 0x100, 0x1234, 5, 0, 0x7c00},    {0xfffff, 1, 0xffff, 15, 0, 0x7c00},
    };

    memset(code, 0xf4, sizeof(code));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vmm_boot boot = request(code, cases[i].len);
        struct vcpu_regs regs;
        uint64_t stack;

        begin_plain();
        add_memory(0, MIB, VMM_MEM_RWX);
        boot.pc = NULL;
        boot.load_addr = cases[i].addr;
        must_boot(VMM_BOOT_FLAT, &boot);
        regs = regs_of();
        ck_assert_uint_eq(regs.seg[VMM_CS].selector, cases[i].cs);
        ck_assert_uint_eq(regs.seg[VMM_CS].base, cases[i].cs * 16);
        ck_assert_uint_eq(regs.rip, cases[i].ip);
        ck_assert_uint_eq(regs.seg[VMM_SS].selector, cases[i].ss);
        ck_assert_uint_eq(regs.seg[VMM_SS].base, cases[i].ss * 16);
        ck_assert_uint_eq(regs.gpr[VMM_RSP], cases[i].sp);
        /* A KiB of stack that is not the image. */
        stack = cases[i].ss * 16 + cases[i].sp;
        ck_assert(stack <= cases[i].addr || stack - 0x400 >= cases[i].addr + cases[i].len);
        ck_assert_uint_eq(run_to_hlt(), cases[i].ip + 1);
        end();
    }
}
END_TEST

START_TEST(refuses_flat_images_that_do_not_fit)
{
    static uint8_t code[MIB];
    struct vmm_image module = image_of("m", 1);
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    boot = request(code, 16);
    boot.load_addr = MIB;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_RANGE, "load address 0x100000 is not below 1 MiB");
    boot.load_addr = 0x600;
    boot.kernel.len = 0x9f400;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_NOSPACE, "leaves no room for a stack");
    boot.kernel.len = 2 * MIB - 0x600 + 1;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_NOSPACE, "flat image at 0x600+0x1ffa01 does not lie");
    boot.kernel.len = 0;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_TRUNCATED, "the kernel image is empty");
    boot.kernel.len = 16;
    boot.cmdline = "x";
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_UNSUPPORTED, "neither modules nor a command line");
    boot.cmdline = "";
    boot.modules = &module;
    boot.nmodules = 1;
    must_refuse(VMM_BOOT_FLAT, &boot, VMM_E_UNSUPPORTED, "neither modules nor a command line");
    end();
}
END_TEST

START_TEST(works_around_a_flat_image_in_the_bios_area)
{
    static uint8_t code[0x10000];
    struct vmm_boot boot;

    memset(code, 0xf4, sizeof(code));
    begin_pc(2 * MIB);
    boot = request(code, sizeof(code));
    boot.load_addr = 0xe0000;
    must_boot(VMM_BOOT_FLAT, &boot);
    ck_assert_mem_eq(ram + 0xe0000, code, sizeof(code)); /* all tables are behind it */
    boot.load_addr = 0xf0000;
    must_fail(VMM_BOOT_FLAT, &boot, VMM_E_NOSPACE, "no room for MP table");
    end();
}
END_TEST

/* ---- firmware ---- */

static uint8_t rom[0x40000];

/* Far-jumps from the reset vector to f000:e05b, and halts there. */
static void make_rom(void)
{
    static const uint8_t jump[] = {0xea, 0x5b, 0xe0, 0x00, 0xf0};

    for (size_t i = 0; i < sizeof(rom); i++)
        rom[i] = (uint8_t)(i >> 12);
    memcpy(rom + sizeof(rom) - 16, jump, sizeof(jump));
    rom[sizeof(rom) - 0x10000 + 0xe05b] = 0xf4;
}

static void check_reset_state(void)
{
    struct vcpu_regs regs = regs_of();

    ck_assert_uint_eq(regs.rip, 0xfff0);
    ck_assert_uint_eq(regs.seg[VMM_CS].selector, 0xf000);
    ck_assert_uint_eq(regs.seg[VMM_CS].base, 0xffff0000);
    ck_assert_uint_eq(regs.seg[VMM_CS].limit, 0xffff);
    ck_assert_uint_eq(regs.seg[VMM_DS].base, 0);
    ck_assert_uint_eq(regs.cr0, 0x60000010);
    ck_assert_uint_eq(regs.cr4, 0);
    ck_assert_uint_eq(regs.efer, 0);
    ck_assert_uint_eq(regs.rflags, 2);
    ck_assert_uint_eq(regs.gpr[VMM_RSP], 0);
    ck_assert_uint_ne(regs.gpr[VMM_RDX] & 0xf00, 0);
    ck_assert_uint_eq(regs.gdt.limit, 0xffff);
    ck_assert_uint_eq(regs.idt.limit, 0xffff);
}

START_TEST(starts_firmware_at_the_reset_vector)
{
    struct vmm_boot boot;
    uint64_t gpa = 0, len = 0;
    uint32_t prot = 0;

    make_rom();
    begin_pc(2 * MIB);
    boot = request(rom, sizeof(rom));
    must_boot(VMM_BOOT_FIRMWARE, &boot);
    check_reset_state();
    ck_assert_int_eq(vm_mem_region(vm, 1, &gpa, &len, &prot), 0);
    ck_assert_uint_eq(gpa, 0xfffc0000);
    ck_assert_uint_eq(len, sizeof(rom));
    ck_assert_uint_eq(prot, VMM_MEM_RX);
    ck_assert_mem_eq(at(0xfffc0000, sizeof(rom)), rom, sizeof(rom));
    ck_assert_mem_eq(ram + 0xe0000, rom + 0x20000, 0x20000);
    ck_assert(untouched(0, 0xe0000));
    ck_assert(untouched(MIB, 2 * MIB));
    ck_assert_uint_eq(run_to_hlt(), 0xe05c); /* through the copy below 1 MiB */
    ck_assert_uint_eq(regs_of().seg[VMM_CS].base, 0xf0000);
    end();
}
END_TEST

START_TEST(small_firmware_lies_at_the_end)
{
    struct vmm_boot boot;

    make_rom();
    begin_pc(2 * MIB);
    boot = request(rom + sizeof(rom) - 0x10000, 0x10000);
    must_boot(VMM_BOOT_FIRMWARE, &boot);
    ck_assert(untouched(0, 0xf0000));
    ck_assert_uint_eq(run_to_hlt(), 0xe05c);
    end();
}
END_TEST

START_TEST(starts_firmware_again)
{
    struct vmm_boot boot;

    make_rom();
    begin_pc(2 * MIB);
    boot = request(rom, sizeof(rom));
    must_boot(VMM_BOOT_FIRMWARE, &boot);
    ck_assert_uint_eq(run_to_hlt(), 0xe05c);
    memset(ram + 0xe0000, 0, 0x20000);
    must_boot(VMM_BOOT_FIRMWARE, &boot); /* from wherever the vCPU is */
    check_reset_state();
    ck_assert_uint_eq(run_to_hlt(), 0xe05c);
    ck_assert_int_eq(vm_reset(vm), 0);
    must_boot(VMM_BOOT_FIRMWARE, &boot);
    check_reset_state();
    end();
}
END_TEST

START_TEST(starts_firmware_on_a_cpu_in_long_mode)
{
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = VMM_SETUP_LONG64, .rip = 0x1000, .tables = 0x10000};
    struct vmm_boot boot;

    make_rom();
    begin_pc(2 * MIB);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &setup), 0);
    boot = request(rom, sizeof(rom));
    must_boot(VMM_BOOT_FIRMWARE, &boot);
    check_reset_state();
    ck_assert_uint_eq(run_to_hlt(), 0xe05c);
    end();
}
END_TEST

START_TEST(refuses_bad_firmware)
{
    static uint8_t big[0x1001000];
    static const uint64_t sizes[] = {1, 0x1000, 0xf000, 0x10001, 0x1001000};
    struct vmm_image module = image_of("m", 1);
    struct vmm_boot boot;

    begin_pc(2 * MIB);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        boot = request(big, sizes[i]);
        must_refuse(VMM_BOOT_FIRMWARE, &boot, VMM_E_FORMAT,
                    "must be a multiple of 4 KiB from 64 KiB to 16 MiB");
    }
    boot = request(big, 0x10000);
    boot.cmdline = "x";
    must_refuse(VMM_BOOT_FIRMWARE, &boot, VMM_E_UNSUPPORTED, "neither modules nor a command line");
    boot.cmdline = NULL;
    boot.modules = &module;
    boot.nmodules = 1;
    must_refuse(VMM_BOOT_FIRMWARE, &boot, VMM_E_UNSUPPORTED, "neither modules nor a command line");
    boot.nmodules = 0;
    add_memory(0xffff0000, 0x1000, VMM_MEM_RWX); /* in the way */
    must_refuse(VMM_BOOT_FIRMWARE, &boot, VMM_E_EXIST, "cannot map the firmware at 0xffff0000");
    end();
    begin_plain();
    add_memory(0, 0xf8000, VMM_MEM_RWX);
    boot = request(big, 0x10000);
    must_fail(VMM_BOOT_FIRMWARE, &boot, VMM_E_NOSPACE, "firmware below 1 MiB at 0xf0000+0x10000");
    ck_assert_int_eq(vm_mem_region(vm, 1, NULL, NULL, NULL), VMM_E_NOENT); /* no ROM either */
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        starts_like_a_boot_sector,
        leaves_a_bios_data_area,
        refuses_bios_services,
        resets_at_the_reset_vector,
        leaves_the_vectors_to_an_image_over_them,
        chooses_segment_and_stack_by_the_load_address,
        refuses_flat_images_that_do_not_fit,
        works_around_a_flat_image_in_the_bios_area,
        starts_firmware_at_the_reset_vector,
        small_firmware_lies_at_the_end,
        starts_firmware_again,
        starts_firmware_on_a_cpu_in_long_mode,
        refuses_bad_firmware,
    };

    return RUN_SUITE("boot real", tests);
}
