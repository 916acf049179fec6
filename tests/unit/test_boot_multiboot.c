/* SPDX-License-Identifier: BSD-2-Clause */
/* test_boot_multiboot.c: Multiboot kernels, by address fields and ELF, good and bad. */
#include "boot_elf_image.h"
#include "boot_test.h"

#define HEADER_AT 0x40u
#define IMAGE_LEN 0x1000u

static uint8_t kernel[0x3000];
static struct elf_image elf;

static uint32_t checksum(uint32_t flags)
{
    return 0u - 0x1badb002u - flags;
}

static void put_header(uint8_t *p, uint32_t flags)
{
    boot_put32(p, 0x1badb002);
    boot_put32(p + 4, flags);
    boot_put32(p + 8, checksum(flags));
}

struct fields {
    uint32_t header, load, load_end, bss_end, entry;
};

/* HLT everywhere but in the header. */
static void make_kernel(struct fields f)
{
    memset(kernel, 0xf4, sizeof(kernel));
    put_header(kernel + HEADER_AT, 0x10003);
    boot_put32(kernel + HEADER_AT + 12, f.header);
    boot_put32(kernel + HEADER_AT + 16, f.load);
    boot_put32(kernel + HEADER_AT + 20, f.load_end);
    boot_put32(kernel + HEADER_AT + 24, f.bss_end);
    boot_put32(kernel + HEADER_AT + 28, f.entry);
}

/* Loads from file offset 0x20 to 2 MiB, with 0x800 bytes of data and as many that are cleared. */
static const struct fields usual = {0x200020, 0x200000, 0x200800, 0x201000, 0x200100};

static struct vmm_boot mb_request(void)
{
    return request(kernel, IMAGE_LEN);
}

/* ---- good images ---- */

START_TEST(loads_by_address_fields)
{
    struct vcpu_regs regs;
    struct vmm_boot boot;

    make_kernel(usual);
    begin_pc(8 * MIB);
    boot = mb_request();
    must_boot(VMM_BOOT_AUTO, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.gpr[VMM_RAX], 0x2badb002);
    ck_assert_uint_eq(regs.rip, 0x200100);
    ck_assert(untouched(MIB, 0x200000));
    ck_assert_mem_eq(ram + 0x200000, kernel + 0x20, 0x800);
    ck_assert(all_bytes(ram + 0x200800, 0x800, 0));
    ck_assert(untouched(0x201000, 8 * MIB));
    ck_assert_uint_eq(run_to_hlt(), 0x200101);
    end();
}
END_TEST

START_TEST(without_ends_loads_the_rest_of_the_file)
{
    const struct fields f = {MIB + HEADER_AT, MIB, 0, 0, MIB};
    struct vmm_boot boot;

    make_kernel(f);
    begin_pc(8 * MIB);
    boot = mb_request();
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    ck_assert_mem_eq(ram + MIB, kernel, IMAGE_LEN);
    ck_assert(untouched(MIB + IMAGE_LEN, 8 * MIB));
    end();
}
END_TEST

START_TEST(fills_the_information_structure)
{
    struct vmm_boot boot;
    uint64_t info, map, loader;

    make_kernel(usual);
    begin_pc(8 * MIB);
    boot = mb_request();
    boot.kernel.name = "kernel.bin";
    boot.cmdline = "a=1 b";
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    info = regs_of().gpr[VMM_RBX];
    ck_assert_uint_eq(mem32(info), 0x24d);   /* memory, command line, modules, map, loader */
    ck_assert_uint_eq(mem32(info + 4), 639); /* KiB below 640 KiB without the EBDA */
    ck_assert_uint_eq(mem32(info + 8), 7 * 1024);
    ck_assert_uint_eq(mem32(info + 12), 0);
    ck_assert_str_eq(text_at(mem32(info + 16)), "kernel.bin a=1 b");
    ck_assert_uint_eq(mem32(info + 20), 0);
    ck_assert(all_bytes(at(info + 28, 16), 16, 0));
    ck_assert_uint_eq(mem32(info + 44), 3 * 24);
    map = mem32(info + 48);
    for (uint32_t i = 0; i < 3; i++) {
        static const uint64_t want[3][3] = {
            {0, 0x9fc00, 1}, {0x9fc00, 0x60400, 2}, {MIB, 7 * MIB, 1}};

        ck_assert_uint_eq(mem32(map + 24 * i), 20);
        ck_assert_uint_eq(mem64(map + 24 * i + 4), want[i][0]);
        ck_assert_uint_eq(mem64(map + 24 * i + 12), want[i][1]);
        ck_assert_uint_eq(mem32(map + 24 * i + 20), want[i][2]);
    }
    ck_assert(all_bytes(at(info + 52, 12), 12, 0));
    loader = mem32(info + 64);
    ck_assert_mem_eq(at(loader, 7), "libvmm ", 7);
    ck_assert(all_bytes(at(info + 68, 52), 52, 0));
    boot.kernel.name = NULL;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    ck_assert_str_eq(text_at(mem32(regs_of().gpr[VMM_RBX] + 16)), "a=1 b");
    boot.cmdline = NULL;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    ck_assert_str_eq(text_at(mem32(regs_of().gpr[VMM_RBX] + 16)), "");
    end();
}
END_TEST

START_TEST(loads_modules_on_pages_above_the_kernel)
{
    static uint8_t big[0x1801];
    struct vmm_image modules[3];
    struct vmm_boot boot;
    uint64_t info, list;

    memset(big, 0x42, sizeof(big));
    modules[0] = image_of(big, sizeof(big));
    modules[0].name = "big.bin with arguments";
    modules[1] = image_of(NULL, 0);
    modules[2] = image_of("small", 5);
    make_kernel(usual);
    begin_pc(8 * MIB);
    boot = mb_request();
    boot.modules = modules;
    boot.nmodules = 3;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    info = regs_of().gpr[VMM_RBX];
    ck_assert_uint_eq(mem32(info + 20), 3);
    list = mem32(info + 24);
    ck_assert_uint_eq(mem32(list), 0x201000);
    ck_assert_uint_eq(mem32(list + 4), 0x202801);
    ck_assert_str_eq(text_at(mem32(list + 8)), "big.bin with arguments");
    ck_assert_uint_eq(mem32(list + 12), 0);
    ck_assert_uint_eq(mem32(list + 20), mem32(list + 16));
    ck_assert_uint_eq(mem32(list + 32), 0x203000);
    ck_assert_uint_eq(mem32(list + 36), 0x203005);
    ck_assert_str_eq(text_at(mem32(list + 40)), "");
    ck_assert_mem_eq(ram + 0x201000, big, sizeof(big));
    ck_assert(untouched(0x202801, 0x203000));
    ck_assert_mem_eq(ram + 0x203000, "small", 5);
    ck_assert(untouched(0x203005, 8 * MIB));
    end();
}
END_TEST

START_TEST(finds_the_header_within_8_kib)
{
    struct vmm_boot boot;

    begin_pc(8 * MIB);
    make_kernel(usual);
    memcpy(kernel + 8192 - 32, kernel + HEADER_AT, 32);
    memset(kernel + HEADER_AT, 0, 4);
    boot_put32(kernel + 0x20, 0x1badb002); /* not this one: its checksum is wrong */
    boot_put32(kernel + 8192 - 20, 0x200000);
    boot_put32(kernel + 8192 - 16, 0x200000);
    boot = request(kernel, sizeof(kernel));
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    ck_assert_mem_eq(ram + 0x200000, kernel + 8192 - 32, 0x800);
    memmove(kernel + 8192 - 8, kernel + 8192 - 32, 32);
    memset(kernel + 8192 - 32, 0, 24);
    boot_put32(kernel + 0x20, 0);
    must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "no multiboot header in the first 8192");
    end();
}
END_TEST

/* ---- ELF ---- */

#define SYMTAB_LEN 48u

static void put_section(uint8_t *p, uint32_t type, uint32_t flags, uint32_t addr, uint32_t offset,
                        uint32_t size, uint32_t align)
{
    memset(p, 0, 40);
    boot_put32(p + 4, type);
    boot_put32(p + 8, flags);
    boot_put32(p + 12, addr);
    boot_put32(p + 16, offset);
    boot_put32(p + 20, size);
    boot_put32(p + 32, align);
}

START_TEST(loads_elf_and_its_symbols)
{
    uint8_t code[64], symtab[SYMTAB_LEN], sections[5 * 40];
    struct vcpu_regs regs;
    struct vmm_boot boot;
    uint32_t symbols;
    uint64_t info, table;

    memset(code, 0xf4, sizeof(code));
    memset(symtab, 0x5a, sizeof(symtab));
    put_header(code, 7); /* a wish for video, too, which is declined */
    elf_begin(&elf, false, 0xc0100010, 1);
    elf_load(&elf, 0, 0xc0100000, MIB, code, sizeof(code), 0x1000);
    symbols = elf_append(&elf, symtab, sizeof(symtab));
    put_section(sections, SHT_NULL, 0, 0, 0, 0, 0);
    put_section(sections + 40, SHT_PROGBITS, 2, 0xc0100000, 84, 64, 1);
    put_section(sections + 80, SHT_NOBITS, 0, 0, 0, 0xffffff, 1);
    put_section(sections + 120, SHT_SYMTAB, 0, 0, symbols, SYMTAB_LEN, 64);
    put_section(sections + 160, SHT_STRTAB, 0, 0, symbols, 0x7fffffff, 3); /* past the end */
    elf_sections(&elf, sections, 5, 4);
    begin_pc(8 * MIB);
    boot = request(elf.bytes, elf.len);
    must_boot(VMM_BOOT_AUTO, &boot);
    regs = regs_of();
    check_prot32(&regs);
    ck_assert_uint_eq(regs.rip, MIB + 0x10);
    ck_assert_uint_eq(regs.gpr[VMM_RAX], 0x2badb002);
    info = regs.gpr[VMM_RBX];
    ck_assert_uint_eq(mem32(info), 0x26d);
    ck_assert_uint_eq(mem32(info + 28), 5);
    ck_assert_uint_eq(mem32(info + 32), 40);
    table = mem32(info + 36);
    ck_assert_uint_eq(mem32(info + 40), 4);
    ck_assert_mem_eq(at(table, 120), sections, 120);
    ck_assert_mem_eq(at(table + 160, 40), sections + 160, 40);
    ck_assert_uint_eq(mem32(table + 120 + 12) % 64, 0);
    ck_assert_mem_eq(at(mem32(table + 120 + 12), SYMTAB_LEN), symtab, SYMTAB_LEN);
    ck_assert(all_bytes(ram + MIB + 64, 0x1000 - 64, 0));
    end();
}
END_TEST

START_TEST(refuses_an_elf_entry_above_4_gib)
{
    uint8_t code[64] = {0};
    struct vmm_boot boot;

    put_header(code, 0);
    elf_begin(&elf, true, VMM_PC_HIGH_RAM, 1);
    elf_load(&elf, 0, VMM_PC_HIGH_RAM, VMM_PC_HIGH_RAM, code, sizeof(code), 64);
    begin_pc(3200 * MIB);
    boot = request(elf.bytes, elf.len);
    must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "is above 4 GiB");
    end();
}
END_TEST

START_TEST(without_address_fields_needs_elf)
{
    struct vmm_boot boot;

    make_kernel(usual);
    put_header(kernel + HEADER_AT, 3);
    begin_pc(8 * MIB);
    boot = mb_request();
    must_refuse(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "does not begin with the ELF magic");
    end();
}
END_TEST

/* ---- bad images ---- */

START_TEST(refuses_bad_headers)
{
    static const struct {
        struct fields fields;
        int code;
        const char *text;
    } bad[] = {
        {{0x1fffff, 0x200000, 0, 0, 0x200000}, VMM_E_FORMAT, "do not fit a header at file offset"},
        {{0x200041, 0x200000, 0, 0, 0x200000}, VMM_E_FORMAT, "do not fit a header at file offset"},
        {{0x200000, 0x200000, 0x1fffff, 0, 0x200000},
         VMM_E_FORMAT,
         "load_end_addr 0x1fffff is below load_addr 0x200000"},
        {{0x200040, 0x200000, 0x201001, 0, 0x200000},
         VMM_E_TRUNCATED,
         "file range 0x0+0x1001 is past the end of the image (0x1000 bytes)"},
        {{0x200040, 0x200000, 0x200100, 0x2000ff, 0x200000},
         VMM_E_FORMAT,
         "bss_end_addr 0x2000ff is below the end of the data 0x200100"},
        {{0x200040, 0x200000, 0x200100, 0x200200, 0x200100},
         VMM_E_FORMAT,
         "entry_addr 0x200100 is outside of what is loaded, 0x200000+0x100"},
        {{0x200040, 0x200000, 0x200100, 0x200200, 0x1fffff}, VMM_E_FORMAT, "is outside"},
        {{0x200040, 0x200000, 0x200000, 0, 0x200000}, VMM_E_FORMAT, "is outside"},
        {{0xfffff840, 0xfffff800, 0, 0, 0xfffff800}, VMM_E_FORMAT, "passes 4 GiB"},
        {{0x7fff40, 0x7fff00, 0, 0, 0x7fff00},
         VMM_E_NOSPACE,
         "kernel at 0x7fff00+0x1000 does not lie in guest memory"},
        {{0x200040, 0x200000, 0x200100, 0xffffffff, 0x200000}, VMM_E_NOSPACE, "does not lie in"},
    };

    begin_pc(8 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vmm_boot boot = mb_request();

        make_kernel(bad[i].fields);
        must_refuse(VMM_BOOT_MULTIBOOT, &boot, bad[i].code, bad[i].text);
    }
    end();
}
END_TEST

START_TEST(refuses_what_it_does_not_know)
{
    struct vmm_boot boot;

    make_kernel(usual);
    put_header(kernel + HEADER_AT, 0x1800b);
    begin_pc(8 * MIB);
    boot = mb_request();
    must_refuse(VMM_BOOT_MULTIBOOT, &boot, VMM_E_UNSUPPORTED, "requires unknown features 0x8008");
    put_header(kernel + HEADER_AT, 0xfffe0000 | 0x10003); /* flags that ask for nothing */
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    end();
}
END_TEST

START_TEST(tells_a_bad_checksum_from_no_header)
{
    struct vmm_boot boot;

    make_kernel(usual);
    kernel[HEADER_AT + 8] ^= 1;
    begin_pc(8 * MIB);
    boot = mb_request();
    ck_assert_int_eq(vmm_boot_detect(&boot.kernel), VMM_E_FORMAT);
    must_refuse(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "multiboot header at 0x40: bad checksum");
    kernel[HEADER_AT] ^= 1;
    must_refuse(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "no multiboot header");
    end();
}
END_TEST

START_TEST(refuses_truncated_headers)
{
    begin_pc(8 * MIB);
    make_kernel(usual);
    for (uint32_t len = 1; len < 0x820; len++) {
        uint8_t *copy = malloc(len);
        struct vmm_boot boot = request(copy, len);

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, kernel, len);
        if (len < HEADER_AT + 12)
            must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_FORMAT, "no multiboot header");
        else
            must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_TRUNCATED, "image");
        free(copy);
    }
    ck_assert(untouched(0, ram_size));
    end();
}
END_TEST

START_TEST(limits_modules)
{
    static struct vmm_image modules[257];
    struct vmm_boot boot;

    for (int i = 0; i < 257; i++)
        modules[i] = image_of("x", 1);
    make_kernel(usual);
    begin_pc(8 * MIB);
    boot = mb_request();
    boot.modules = modules;
    boot.nmodules = 257;
    must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_LIMIT, "257 modules, at most 256");
    boot.nmodules = 100;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    modules[50].data = ram;
    modules[50].len = 7 * MIB;
    must_fail(VMM_BOOT_MULTIBOOT, &boot, VMM_E_NOSPACE, "no free RAM for module: 0x700000 bytes");
    end();
}
END_TEST

/* A module's end is a 32-bit field: the last page below 4 GiB stays free. */
START_TEST(modules_end_below_4_gib)
{
    static uint8_t bytes[0x3000];
    struct vmm_image module = image_of(bytes, sizeof(bytes));
    struct vmm_boot boot;

    make_kernel((struct fields){0x8040, 0x8000, 0, 0, 0x8000});
    begin_plain();
    add_memory(0, 0x100000, VMM_MEM_RWX);
    add_memory(0xffffc000, 0x4000, VMM_MEM_RWX);
    boot = mb_request();
    boot.modules = &module;
    boot.nmodules = 1;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    ck_assert_uint_eq(mem32(mem32(regs_of().gpr[VMM_RBX] + 24)), 0xffffc000);
    ck_assert_uint_eq(mem32(mem32(regs_of().gpr[VMM_RBX] + 24) + 4), 0xfffff000);
    module.len = sizeof(bytes) - 1;
    boot.nmodules = 1;
    must_boot(VMM_BOOT_MULTIBOOT, &boot);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        loads_by_address_fields,
        without_ends_loads_the_rest_of_the_file,
        fills_the_information_structure,
        loads_modules_on_pages_above_the_kernel,
        finds_the_header_within_8_kib,
        loads_elf_and_its_symbols,
        refuses_an_elf_entry_above_4_gib,
        without_address_fields_needs_elf,
        refuses_bad_headers,
        refuses_what_it_does_not_know,
        tells_a_bad_checksum_from_no_header,
        refuses_truncated_headers,
        limits_modules,
        modules_end_below_4_gib,
    };

    return RUN_SUITE("boot multiboot", tests);
}
