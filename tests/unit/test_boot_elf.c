/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot_elf.c: plain ELF kernels and those with a PVH entry point, good and bad. */
#include "boot_elf_image.h"
#include "boot_test.h"

static struct elf_image elf;
static uint8_t code[64];

/* HLT everywhere, so that any entry point stops. */
static void make_elf(bool is64, uint64_t entry)
{
    memset(code, 0xf4, sizeof(code));
    elf_begin(&elf, is64, entry, 3);
}

static struct vmm_boot elf_request(void)
{
    return request(elf.bytes, elf.len);
}

/* ---- start information ---- */

static void check_memmap(uint64_t gpa, uint32_t i, uint64_t start, uint64_t len, uint32_t type)
{
    ck_assert_uint_eq(mem64(gpa + 24 * i), start);
    ck_assert_uint_eq(mem64(gpa + 24 * i + 8), len);
    ck_assert_uint_eq(mem32(gpa + 24 * i + 16), type);
    ck_assert_uint_eq(mem32(gpa + 24 * i + 20), 0);
}

static void check_start_info(uint64_t info, uint32_t modules, const char *cmdline)
{
    uint64_t memmap = mem64(info + 40);

    ck_assert_uint_eq(mem32(info), 0x336ec578);
    ck_assert_uint_eq(mem32(info + 4), 1);
    ck_assert_uint_eq(mem32(info + 8), 0);
    ck_assert_uint_eq(mem32(info + 12), modules);
    ck_assert_str_eq(text_at(mem64(info + 24)), cmdline);
    ck_assert_mem_eq(at(mem64(info + 32), 8), "RSD PTR ", 8);
    ck_assert_uint_eq(mem32(info + 48), 3);
    ck_assert_uint_eq(mem32(info + 52), 0);
    check_memmap(memmap, 0, 0, 0x9fc00, 1);
    check_memmap(memmap, 1, 0x9fc00, 0x60400, 2);
    check_memmap(memmap, 2, MIB, ram_size - MIB, 1);
}

/* ---- plain ELF ---- */

START_TEST(starts_elf32_in_protected_mode)
{
    struct vcpu_regs regs;
    struct vmm_boot boot;

    make_elf(false, 0xc0100010);
    elf_load(&elf, 0, 0xc0100000, 0x200000, code, sizeof(code), 0x1800);
    elf_load(&elf, 2, 0xc0200000, 0x300000, "data", 4, 4);
    begin_pc(8 * MIB);
    boot = elf_request();
    boot.cmdline = "one two";
    must_boot(VMM_BOOT_ELF, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.rip, 0x200010);
    ck_assert_uint_eq(regs.gpr[VMM_RSP] % 16, 0);
    ck_assert(untouched(regs.gpr[VMM_RSP] - 0x4000, regs.gpr[VMM_RSP]));
    check_start_info(regs.gpr[VMM_RBX], 0, "one two");
    ck_assert_mem_eq(ram + 0x200000, code, sizeof(code));
    ck_assert(all_bytes(ram + 0x200000 + sizeof(code), 0x1800 - sizeof(code), 0));
    ck_assert(untouched(MIB, 0x200000));
    ck_assert(untouched(0x201800, 0x300000));
    ck_assert_mem_eq(ram + 0x300000, "data", 4);
    ck_assert(untouched(0x300004, 8 * MIB));
    ck_assert_uint_eq(run_to_hlt(), 0x200011);
    end();
}
END_TEST

START_TEST(starts_elf64_in_long_mode)
{
    struct vcpu_regs regs;
    struct vmm_boot boot;

    make_elf(true, 0xffffffff80000020);
    elf_load(&elf, 1, 0xffffffff80000000, 0x400000, code, sizeof(code), sizeof(code));
    begin_pc(8 * MIB);
    boot = elf_request();
    must_boot(VMM_BOOT_AUTO, &boot);
    regs = regs_of();
    check_long64(&regs);
    ck_assert_uint_eq(regs.rip, 0x400020);
    ck_assert_uint_eq(regs.gpr[VMM_RDI], regs.gpr[VMM_RBX]);
    check_start_info(regs.gpr[VMM_RDI], 0, "");
    ck_assert_uint_eq(run_to_hlt(), 0x400021);
    end();
}
END_TEST

START_TEST(takes_a_physical_entry_point)
{
    struct vmm_boot boot;

    make_elf(true, MIB + 8);
    elf_load(&elf, 0, 0xffffffff80000000, MIB, code, sizeof(code), sizeof(code));
    begin_pc(8 * MIB);
    boot = elf_request();
    must_boot(VMM_BOOT_ELF, &boot);
    ck_assert_uint_eq(regs_of().rip, MIB + 8);
    end();
}
END_TEST

START_TEST(loads_above_4_gib)
{
    struct vmm_boot boot;
    uint64_t gpa = 0;
    int ok = 0;

    make_elf(true, VMM_PC_HIGH_RAM + 0x1000);
    elf_load(&elf, 0, VMM_PC_HIGH_RAM, VMM_PC_HIGH_RAM, code, sizeof(code), 0x2000);
    begin_pc(5120 * MIB);
    ck_assert_int_eq(vm_mem_write(vm, VMM_PC_HIGH_RAM + 0x1000, code, sizeof(code)), 0);
    boot = elf_request();
    must_boot(VMM_BOOT_ELF, &boot);
    ck_assert_int_eq(vcpu_translate(vcpu, VMM_PC_HIGH_RAM + 2047 * MIB, &gpa, &ok), 0);
    ck_assert_int_eq(ok, 1);
    ck_assert_uint_eq(gpa, VMM_PC_HIGH_RAM + 2047 * MIB);
    /* The part of the segment without bytes in the file is cleared, whatever was there. */
    ck_assert(all_bytes(at(VMM_PC_HIGH_RAM + sizeof(code), 0x1000), 0x1000, 0));
    end();
}
END_TEST

/* One PML4 entry is all there is. */
START_TEST(refuses_an_entry_above_the_identity_map)
{
    const uint64_t far = 1ull << 39;
    struct vmm_boot boot;

    make_elf(true, far);
    elf_load(&elf, 0, far, far, code, sizeof(code), sizeof(code));
    begin_plain();
    add_memory(0, 4 * MIB, VMM_MEM_RWX);
    if (vm_mem_alloc(vm, far, 0x1000, VMM_MEM_RWX, NULL) == 0) { /* else no memory can be there */
        boot = elf_request();
        must_fail(VMM_BOOT_ELF, &boot, VMM_E_NOSPACE,
                  "entry point 0x8000000000 is above the first 512 GiB");
    }
    end();
}
END_TEST

/* ---- PVH ---- */

START_TEST(starts_pvh_kernels)
{
    static const struct vmm_image modules[] = {
        {.size = sizeof(struct vmm_image), .data = "first", .len = 5, .name = "a b"},
        {.size = sizeof(struct vmm_image), .data = "second", .len = 6}};
    struct vcpu_regs regs;
    struct vmm_boot boot;
    uint64_t info, list;

    make_elf(true, 0);
    elf_load(&elf, 0, 0xffffffff80000000, 2 * MIB, code, sizeof(code), 0x1000);
    elf_pvh(&elf, 1, 2 * MIB + 4);
    begin_pc(8 * MIB);
    boot = elf_request();
    boot.modules = modules;
    boot.nmodules = 2;
    boot.cmdline = "x=y";
    must_boot(VMM_BOOT_AUTO, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.rip, 2 * MIB + 4);
    info = regs.gpr[VMM_RBX];
    check_start_info(info, 2, "x=y");
    list = mem64(info + 16);
    ck_assert_uint_eq(mem64(list), 2 * MIB + 0x1000); /* just above the kernel */
    ck_assert_uint_eq(mem64(list + 8), 5);
    ck_assert_str_eq(text_at(mem64(list + 16)), "a b");
    ck_assert_uint_eq(mem64(list + 24), 0);
    ck_assert_uint_eq(mem64(list + 32), 2 * MIB + 0x2000);
    ck_assert_uint_eq(mem64(list + 40), 6);
    ck_assert_uint_eq(mem64(list + 48), 0);
    ck_assert_mem_eq(ram + 2 * MIB + 0x1000, "first", 5);
    ck_assert_mem_eq(ram + 2 * MIB + 0x2000, "second", 6);
    ck_assert(untouched(2 * MIB + 0x2006, 8 * MIB));
    ck_assert_uint_eq(run_to_hlt(), 2 * MIB + 5);
    end();
}
END_TEST

START_TEST(places_modules_below_a_kernel_at_the_top)
{
    static const struct vmm_image module = {
        .size = sizeof(struct vmm_image), .data = "m", .len = 1};
    struct vmm_boot boot;

    make_elf(false, 0);
    elf_load(&elf, 0, 0, 8 * MIB - 64, code, sizeof(code), sizeof(code));
    elf_pvh(&elf, 1, 8 * MIB - 64);
    begin_pc(8 * MIB);
    boot = elf_request();
    boot.modules = &module;
    boot.nmodules = 1;
    must_boot(VMM_BOOT_PVH, &boot);
    ck_assert_uint_eq(mem64(mem64(regs_of().gpr[VMM_RBX] + 16)), MIB);
    ck_assert_uint_eq(ram[MIB], 'm');
    end();
}
END_TEST

/* The entry is found behind other notes, with 4 and 8 bytes, padded to 4 and to 8. */
START_TEST(finds_the_pvh_note)
{
    begin_pc(8 * MIB);
    for (uint32_t align = 4; align <= 8; align += 4) {
        for (uint32_t size = 4; size <= 8; size += 4) {
            struct vmm_boot boot;
            uint8_t notes[256], desc[8];
            uint32_t len = elf_note(notes, align, "GNU", 3, "abcdefghijk", 11);

            boot_put64(desc, MIB + 12);
            len += elf_note(notes + len, align, "Xen", 17, desc, 8);
            len += elf_note(notes + len, align, "Xenix", 18, "no", 2);
            len += elf_note(notes + len, align, "Xen", 18, desc, size);
            make_elf(true, 0);
            elf_notes(&elf, 0, notes, len, align);
            elf_load(&elf, 1, 0, MIB, code, sizeof(code), sizeof(code));
            boot = elf_request();
            ck_assert_int_eq(vmm_boot_detect(&boot.kernel), VMM_BOOT_PVH);
            must_boot(VMM_BOOT_PVH, &boot);
            ck_assert_uint_eq(regs_of().rip, MIB + 12);
        }
    }
    end();
}
END_TEST

START_TEST(finds_no_pvh_note_in_broken_ones)
{
    static const struct {
        uint32_t offset, value;
    } wrong[] = {
        {0, 0xfffffff0}, {0, 3}, {0, 0x1000}, {4, 0xfffffff0}, {4, 5}, {4, 0}, {8, 17}, {12, 0},
    };

    begin_pc(8 * MIB);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct vmm_boot boot;
        uint8_t note[64], desc[4];
        uint32_t len;

        boot_put32(desc, MIB);
        len = elf_note(note, 4, "Xen", 18, desc, 4);
        boot_put32(note + wrong[i].offset, wrong[i].value);
        make_elf(true, MIB);
        elf_load(&elf, 0, MIB, MIB, code, sizeof(code), sizeof(code));
        elf_notes(&elf, 1, note, len, 4);
        boot = elf_request();
        ck_assert_int_eq(vmm_boot_detect(&boot.kernel), VMM_BOOT_ELF);
        must_refuse(VMM_BOOT_PVH, &boot, VMM_E_FORMAT, "has no XEN_ELFNOTE_PHYS32_ENTRY note");
    }
    end();
}
END_TEST

START_TEST(gives_up_on_very_many_notes)
{
    static uint8_t bytes[0x100 + 16 * 5000 + 32];
    struct boot_elf_image parsed;
    struct boot_error error;
    struct vmm_image image = image_of(bytes, sizeof(bytes));
    uint8_t desc[4];

    make_elf(true, MIB);
    elf_load(&elf, 0, MIB, MIB, code, sizeof(code), sizeof(code));
    elf_put_phdr(&elf, 1, (struct elf_phdr){PT_NOTE, 0x200, 0, 0, 16 * 4000 + 20, 0, 4});
    memcpy(bytes, elf.bytes, elf.len);
    for (uint32_t i = 0; i < 4000; i++)
        elf_note(bytes + 0x200 + 16 * i, 4, "abc", 1, "", 0);
    boot_put32(desc, MIB);
    elf_note(bytes + 0x200 + 16 * 4000, 4, "Xen", 18, desc, 4);
    ck_assert_int_eq(boot_elf_parse(&image, &parsed, &error), 0);
    ck_assert(parsed.has_pvh);
    /* The same notes twice are more than the parser looks at. */
    elf_put_phdr(&elf, 1, (struct elf_phdr){PT_NOTE, 0x200, 0, 0, 16 * 4000, 0, 4});
    elf_put_phdr(&elf, 2, (struct elf_phdr){PT_NOTE, 0x200, 0, 0, 16 * 4000 + 20, 0, 4});
    memcpy(bytes, elf.bytes, elf.len);
    ck_assert_int_eq(boot_elf_parse(&image, &parsed, &error), 0);
    ck_assert(!parsed.has_pvh);
}
END_TEST

START_TEST(refuses_a_pvh_entry_outside_the_kernel)
{
    static const uint32_t entries[] = {0, MIB - 1, MIB + 0x1000, 0xffffffff};

    begin_pc(8 * MIB);
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        struct vmm_boot boot;

        make_elf(true, MIB);
        elf_load(&elf, 0, 0, MIB, code, sizeof(code), 0x1000);
        elf_pvh(&elf, 1, entries[i]);
        boot = elf_request();
        must_refuse(VMM_BOOT_PVH, &boot, VMM_E_FORMAT, "is in no loadable segment below 4 GiB");
    }
    end();
}
END_TEST

/* ---- bad images ---- */

static void good(bool is64)
{
    make_elf(is64, MIB);
    elf_load(&elf, 0, MIB, MIB, code, sizeof(code), sizeof(code));
    elf_load(&elf, 1, 2 * MIB, 2 * MIB, code, sizeof(code), sizeof(code));
}

START_TEST(refuses_bad_headers)
{
    static const struct {
        bool is64;
        uint32_t offset, size, value;
        int code;
        const char *text;
    } bad[] = {
        {true, 0, 4, 0, VMM_E_FORMAT, "does not begin with the ELF magic"},
        {true, 4, 1, 3, VMM_E_FORMAT, "ELF class 3 is neither"},
        {true, 4, 1, 1, VMM_E_FORMAT, "ELF machine 62 is not 3 (i386)"},
        {true, 5, 1, 2, VMM_E_FORMAT, "ELF data encoding 2 is not little-endian"},
        {true, 6, 1, 0, VMM_E_FORMAT, "ELF version 0 is not 1"},
        {true, 16, 2, 1, VMM_E_FORMAT, "ELF type 1 is neither EXEC nor DYN"},
        {true, 16, 2, 4, VMM_E_FORMAT, "ELF type 4 is neither EXEC nor DYN"},
        {true, 18, 2, 183, VMM_E_FORMAT, "ELF machine 183 is not 62 (x86-64)"},
        {false, 18, 2, 62, VMM_E_FORMAT, "ELF machine 62 is not 3 (i386)"},
        {true, 20, 4, 7, VMM_E_FORMAT, "ELF version 7 is not 1"},
        {true, 24, 4, MIB + 64, VMM_E_FORMAT, "entry point 0x100040 is in no loadable segment"},
        {false, 24, 4, 0, VMM_E_FORMAT, "entry point 0x0 is in no loadable segment"},
        {true, 32, 4, 0, VMM_E_FORMAT, "the ELF image has no program headers"},
        {true, 32, 4, 0x7fffff00, VMM_E_TRUNCATED, "program headers"},
        {false, 28, 4, 0xffffff00, VMM_E_TRUNCATED, "program headers"},
        {true, 54, 2, 32, VMM_E_FORMAT, "ELF program header size is 32, must be 56"},
        {false, 42, 2, 0, VMM_E_FORMAT, "ELF program header size is 0, must be 32"},
        {true, 56, 2, 0, VMM_E_FORMAT, "the ELF image has no program headers"},
        {true, 56, 2, 0xfff0, VMM_E_TRUNCATED, "past the end of the image"},
        {false, 44, 2, 0xfff0, VMM_E_TRUNCATED, "past the end of the image"},
    };

    begin_pc(8 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vmm_boot boot;

        good(bad[i].is64);
        memcpy(elf.bytes + bad[i].offset, &bad[i].value, bad[i].size);
        boot = elf_request();
        must_refuse(VMM_BOOT_ELF, &boot, bad[i].code, bad[i].text);
    }
    end();
}
END_TEST

START_TEST(refuses_bad_segments)
{
    static const struct {
        bool is64;
        struct elf_phdr phdr; /* replaces the second one */
        int code;
        const char *text;
    } bad[] = {
        {true, {PT_LOAD, 0x1000, 0, 0x200000, 1, 1, 1}, VMM_E_TRUNCATED, "segment 1: file range"},
        {true, {PT_LOAD, 8, 0, 0x200000, UINT64_MAX, UINT64_MAX, 1}, VMM_E_TRUNCATED, "segment 1"},
        {true, {PT_LOAD, UINT64_MAX, 0, 0x200000, 2, 2, 1}, VMM_E_TRUNCATED, "segment 1"},
        {true,
         {PT_LOAD, 0, 0, 0x200000, 9, 8, 1},
         VMM_E_FORMAT,
         "segment 1: file size 0x9 exceeds memory size 0x8"},
        {true, {PT_LOAD, 0, 0, UINT64_MAX - 7, 8, 16, 1}, VMM_E_FORMAT, "wraps around"},
        {false, {PT_LOAD, 0, 0, 0xfffffff0, 8, 17, 1}, VMM_E_FORMAT, "wraps around"},
        {true,
         {PT_LOAD, 0, 0, MIB + 63, 1, 1, 1},
         VMM_E_FORMAT,
         "segment 1 (0x10003f+0x1) overlaps segment 0 (0x100000+0x40)"},
        {true, {PT_LOAD, 0, 0, MIB - 8, 1, 9, 1}, VMM_E_FORMAT, "overlaps segment 0"},
        {true,
         {PT_LOAD, 0, 0, 8 * MIB - 8, 8, 9, 1},
         VMM_E_NOSPACE,
         "ELF segment at 0x7ffff8+0x9 does not lie in guest memory"},
        {true,
         {PT_LOAD, 0, 0, 1ull << 40, 0, 1ull << 40, 1},
         VMM_E_NOSPACE,
         "does not lie in guest memory"},
        {true, {PT_NOTE, 0x1000, 0, 0, 1, 0, 4}, VMM_E_TRUNCATED, "note segment 1: file range"},
    };

    begin_pc(8 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vmm_boot boot;

        good(bad[i].is64);
        elf_put_phdr(&elf, 1, bad[i].phdr);
        boot = elf_request();
        must_refuse(VMM_BOOT_ELF, &boot, bad[i].code, bad[i].text);
    }
    end();
}
END_TEST

START_TEST(needs_a_segment_to_load)
{
    struct vmm_boot boot;

    make_elf(true, MIB);
    elf_put_phdr(&elf, 0, (struct elf_phdr){PT_LOAD, 0, MIB, MIB, 0, 0, 1});
    elf_put_phdr(&elf, 1, (struct elf_phdr){PT_DYNAMIC, 0, MIB, MIB, 8, 8, 1});
    begin_pc(8 * MIB);
    boot = elf_request();
    must_refuse(VMM_BOOT_ELF, &boot, VMM_E_FORMAT, "the ELF image has no loadable segment");
    end();
}
END_TEST

START_TEST(limits_segments_and_program_headers)
{
    static uint8_t many[64 + 56 * 1025];
    struct vmm_boot boot;

    elf_begin(&elf, true, MIB, 65);
    for (uint32_t i = 0; i < 64; i++)
        elf_put_phdr(&elf, i, (struct elf_phdr){PT_LOAD, 0, MIB + i * 16, MIB + i * 16, 16, 16, 1});
    begin_pc(8 * MIB);
    boot = elf_request();
    must_boot(VMM_BOOT_ELF, &boot);
    elf_put_phdr(&elf, 64, (struct elf_phdr){PT_LOAD, 0, 3 * MIB, 3 * MIB, 16, 16, 1});
    must_fail(VMM_BOOT_ELF, &boot, VMM_E_LIMIT, "more than 64 loadable segments");
    memcpy(many, elf.bytes, 64 + 56 * 64);
    boot_put16(many + 56, 1024);
    boot = request(many, sizeof(many));
    must_boot(VMM_BOOT_ELF, &boot);
    boot_put16(many + 56, 1025);
    must_fail(VMM_BOOT_ELF, &boot, VMM_E_LIMIT, "1025 program headers, at most 1024");
    end();
}
END_TEST

START_TEST(refuses_every_truncated_image)
{
    begin_pc(8 * MIB);
    for (int is64 = 0; is64 < 2; is64++) {
        good(is64);
        elf_pvh(&elf, 2, MIB);
        for (uint32_t len = 1; len < elf.len; len++) {
            uint8_t *copy = malloc(len);
            struct vmm_boot boot = request(copy, len);

            ck_assert_ptr_nonnull(copy);
            memcpy(copy, elf.bytes, len);
            must_fail(VMM_BOOT_PVH, &boot, len < 4 ? VMM_E_FORMAT : VMM_E_TRUNCATED, "image");
            free(copy);
        }
    }
    ck_assert(untouched(0, ram_size));
    end();
}
END_TEST

/* A kernel that fills all memory leaves no place for what it needs at its entry point. */
START_TEST(says_what_found_no_place)
{
    struct vmm_boot boot;

    make_elf(true, 0x1000);
    elf_load(&elf, 0, 0x1000, 0x1000, code, sizeof(code), MIB - 0x1000);
    begin_plain();
    add_memory(0, MIB, VMM_MEM_RWX);
    boot = elf_request();
    must_fail(VMM_BOOT_ELF, &boot, VMM_E_NOSPACE, "no free RAM for stack");
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        starts_elf32_in_protected_mode,
        starts_elf64_in_long_mode,
        takes_a_physical_entry_point,
        loads_above_4_gib,
        refuses_an_entry_above_the_identity_map,
        starts_pvh_kernels,
        places_modules_below_a_kernel_at_the_top,
        finds_the_pvh_note,
        finds_no_pvh_note_in_broken_ones,
        gives_up_on_very_many_notes,
        refuses_a_pvh_entry_outside_the_kernel,
        refuses_bad_headers,
        refuses_bad_segments,
        needs_a_segment_to_load,
        limits_segments_and_program_headers,
        refuses_every_truncated_image,
        says_what_found_no_place,
    };

    return RUN_SUITE("boot elf", tests);
}
