/* SPDX-License-Identifier: BSD-2-Clause */
/* multiboot.c: Multiboot kernels (Multiboot Specification 0.6.96), by address fields or ELF. */
#include "core/boot/boot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MB_MAGIC  0x1badb002u
#define MB_BOOTED 0x2badb002u
#define MB_SEARCH 8192u /* the header lies within so many bytes of the image */

/* Header flags. Bits 0-15 are requirements; bit 2 (video) is a wish that a machine without
 * a display may decline by leaving the video fields out. */
#define MB_PAGE_ALIGN  0x1u
#define MB_MEMORY_INFO 0x2u
#define MB_VIDEO_MODE  0x4u
#define MB_KNOWN       0x7u
#define MB_REQUIRED    0xffffu
#define MB_ADDRESSES   0x10000u

/* Information structure: flags and offsets. */
#define MBI_MEMORY   0x1u
#define MBI_CMDLINE  0x4u
#define MBI_MODULES  0x8u
#define MBI_SECTIONS 0x20u
#define MBI_MMAP     0x40u
#define MBI_LOADER   0x200u
#define MBI_SIZE     120u
#define MODULE_ENTRY 16u
#define MMAP_ENTRY   24u
#define MMAP_MAX     (BOOT_MAX_RANGES + 1u)

#define MAX_SECTIONS 1024u

struct mb_image {
    uint32_t header; /* offset in the image */
    uint32_t flags;
    uint64_t load; /* address fields: guest address, file offset and sizes */
    uint64_t offset;
    uint64_t filesz;
    uint64_t memsz;
    uint64_t entry;
};

/* ---- the header ---- */

/* Offset of a header with a good checksum or -1; *bad is the first one with a wrong checksum. */
static int64_t find_header(const struct vmm_image *image, int64_t *bad)
{
    const uint8_t *bytes = image->data;
    uint64_t end = image->len < MB_SEARCH ? image->len : MB_SEARCH;

    *bad = -1;
    for (uint32_t at = 0; at + 12 <= end; at += 4) {
        if (boot_get32(bytes + at) != MB_MAGIC)
            continue;
        if (MB_MAGIC + boot_get32(bytes + at + 4) + boot_get32(bytes + at + 8) == 0)
            return at;
        if (*bad < 0)
            *bad = at;
    }
    return -1;
}

bool boot_is_multiboot(const struct vmm_image *image)
{
    int64_t bad;

    return find_header(image, &bad) >= 0;
}

static int parse_addresses(const struct vmm_image *image, struct mb_image *mb,
                           struct boot_error *error)
{
    const uint8_t *h = (const uint8_t *)image->data + mb->header;
    uint64_t header_addr, load_end, bss_end;

    if (image->len - mb->header < 32)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the image (0x%" PRIx64 " bytes) ends inside the multiboot header at 0x%x",
                         image->len, mb->header);
    header_addr = boot_get32(h + 12);
    mb->load = boot_get32(h + 16);
    load_end = boot_get32(h + 20);
    bss_end = boot_get32(h + 24);
    mb->entry = boot_get32(h + 28);
    if (mb->load > header_addr || header_addr - mb->load > mb->header)
        return boot_fail(error, VMM_E_FORMAT,
                         "multiboot: load_addr 0x%" PRIx64 " and header_addr 0x%" PRIx64
                         " do not fit a header at file offset 0x%x",
                         mb->load, header_addr, mb->header);
    mb->offset = mb->header - (header_addr - mb->load);
    if (load_end != 0 && load_end < mb->load)
        return boot_fail(error, VMM_E_FORMAT,
                         "multiboot: load_end_addr 0x%" PRIx64 " is below load_addr 0x%" PRIx64,
                         load_end, mb->load);
    mb->filesz = load_end ? load_end - mb->load : image->len - mb->offset;
    if (mb->filesz > image->len - mb->offset)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "multiboot: file range 0x%" PRIx64 "+0x%" PRIx64
                         " is past the end of the image (0x%" PRIx64 " bytes)",
                         mb->offset, mb->filesz, image->len);
    if (bss_end != 0 && bss_end < mb->load + mb->filesz)
        return boot_fail(error, VMM_E_FORMAT,
                         "multiboot: bss_end_addr 0x%" PRIx64
                         " is below the end of the data 0x%" PRIx64,
                         bss_end, mb->load + mb->filesz);
    mb->memsz = bss_end ? bss_end - mb->load : mb->filesz;
    if (mb->memsz > BOOT_4G - mb->load)
        return boot_fail(error, VMM_E_FORMAT,
                         "multiboot: memory range 0x%" PRIx64 "+0x%" PRIx64 " passes 4 GiB",
                         mb->load, mb->memsz);
    if (mb->entry - mb->load >= mb->filesz)
        return boot_fail(error, VMM_E_FORMAT,
                         "multiboot: entry_addr 0x%" PRIx64
                         " is outside of what is loaded, 0x%" PRIx64 "+0x%" PRIx64,
                         mb->entry, mb->load, mb->filesz);
    return 0;
}

static int parse_header(const struct vmm_image *image, struct mb_image *mb,
                        struct boot_error *error)
{
    int64_t bad, at = find_header(image, &bad);
    uint32_t unknown;

    if (at < 0 && bad >= 0)
        return boot_fail(error, VMM_E_FORMAT, "multiboot header at 0x%" PRIx64 ": bad checksum",
                         (uint64_t)bad);
    if (at < 0)
        return boot_fail(error, VMM_E_FORMAT, "no multiboot header in the first %u bytes",
                         MB_SEARCH);
    mb->header = (uint32_t)at;
    mb->flags = boot_get32((const uint8_t *)image->data + at + 4);
    unknown = mb->flags & MB_REQUIRED & ~MB_KNOWN;
    if (unknown)
        return boot_fail(error, VMM_E_UNSUPPORTED,
                         "multiboot header at 0x%x: requires unknown features 0x%x", mb->header,
                         unknown);
    return mb->flags & MB_ADDRESSES ? parse_addresses(image, mb, error) : 0;
}

/* ---- loading ---- */

static int load_addresses(struct boot *boot, const struct mb_image *mb)
{
    int err = boot_mem_claim(&boot->mem, mb->load, mb->memsz, "kernel");

    if (!err)
        err = boot_mem_write(&boot->mem, mb->load, (const uint8_t *)boot->kernel->data + mb->offset,
                             mb->filesz);
    return err ? err : boot_mem_zero(&boot->mem, mb->load + mb->filesz, mb->memsz - mb->filesz);
}

static int load_elf(struct boot *boot, struct boot_elf_image *elf, struct mb_image *mb)
{
    int err = boot_elf_parse(boot->kernel, elf, &boot->error);

    if (!err)
        err = boot_elf_entry(elf, &mb->entry, &boot->error);
    if (!err && mb->entry >= BOOT_4G)
        err = boot_fail(&boot->error, VMM_E_FORMAT,
                        "entry point 0x%" PRIx64 " is above 4 GiB, where multiboot cannot start it",
                        mb->entry);
    return err ? err : boot_elf_load(boot, elf);
}

/* ---- the information structure ---- */

/* "kernel-name command-line", the form of GRUB. */
static int put_cmdline(struct boot *boot, uint8_t *info)
{
    const char *name = boot->kernel->name ? boot->kernel->name : "";
    size_t name_len = strlen(name), len = strlen(boot->cmdline) + 1;
    uint64_t gpa = 0;
    struct boot_mem *mem = &boot->mem;
    size_t gap = name_len > 0 && len > 1 ? 1 : 0;
    int err = boot_mem_place_data(mem, name_len + gap + len, 16, "command line", &gpa);

    if (!err)
        err = boot_mem_write(mem, gpa, name, name_len);
    if (!err)
        err = boot_mem_write(mem, gpa + name_len, " ", gap);
    if (!err)
        err = boot_mem_write(mem, gpa + name_len + gap, boot->cmdline, len);
    boot_put32(info + 16, (uint32_t)gpa);
    return err;
}

static int put_modules(struct boot *boot, uint8_t *info)
{
    struct boot_mem *mem = &boot->mem;
    uint64_t module[BOOT_MAX_MODULES];
    uint64_t list = 0;
    int err = boot_modules(boot, module);

    if (!err)
        err = boot_mem_place_data(mem, (uint64_t)boot->nmodules * MODULE_ENTRY, 16, "module list",
                                  &list);
    for (uint32_t i = 0; !err && i < boot->nmodules; i++) {
        const char *name = boot->modules[i].name;
        uint8_t entry[MODULE_ENTRY] = {0};
        uint64_t text = 0;

        err = boot_mem_string(mem, name ? name : "", "module string", &text);
        boot_put32(entry, (uint32_t)module[i]);
        boot_put32(entry + 4, (uint32_t)(module[i] + boot->modules[i].len));
        boot_put32(entry + 8, (uint32_t)text);
        if (!err)
            err = boot_mem_write(mem, list + i * MODULE_ENTRY, entry, sizeof(entry));
    }
    boot_put32(info + 20, boot->nmodules);
    boot_put32(info + 24, (uint32_t)list);
    return err;
}

/* KiB from 0 and from 1 MiB up to the first hole, as BIOS would say. */
static void put_memory(const struct boot_e820 *map, uint32_t n, uint8_t *info)
{
    for (uint32_t i = 0; i < n; i++) {
        if (map[i].type != BOOT_RAM)
            continue;
        if (map[i].addr == 0)
            boot_put32(info + 4, (uint32_t)(map[i].len / 1024));
        if (map[i].addr == BOOT_1M)
            boot_put32(info + 8,
                       map[i].len / 1024 < UINT32_MAX ? (uint32_t)(map[i].len / 1024) : UINT32_MAX);
    }
}

static int put_mmap(struct boot *boot, uint8_t *info)
{
    struct boot_e820 map[MMAP_MAX];
    uint8_t bytes[MMAP_MAX * MMAP_ENTRY] = {0};
    uint64_t gpa = 0;
    uint32_t n = 0;
    int err = boot_mem_e820(&boot->mem, map, MMAP_MAX, &n);

    if (err)
        return err;
    put_memory(map, n, info);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *entry = bytes + i * MMAP_ENTRY;

        boot_put32(entry, MMAP_ENTRY - 4); /* size of what follows */
        boot_put64(entry + 4, map[i].addr);
        boot_put64(entry + 12, map[i].len);
        boot_put32(entry + 20, map[i].type);
    }
    err = boot_mem_place_data(&boot->mem, n * MMAP_ENTRY, 16, "memory map", &gpa);
    boot_put32(info + 44, n * MMAP_ENTRY);
    boot_put32(info + 48, (uint32_t)gpa);
    return err ? err : boot_mem_write(&boot->mem, gpa, bytes, n * MMAP_ENTRY);
}

static int put_loader(struct boot *boot, uint8_t *info)
{
    char name[32];
    uint64_t gpa = 0;
    int err;

    snprintf(name, sizeof(name), "libvmm %d.%d.%d", VMM_VERSION_MAJOR, VMM_VERSION_MINOR,
             VMM_VERSION_PATCH);
    err = boot_mem_string(&boot->mem, name, "loader name", &gpa);
    boot_put32(info + 64, (uint32_t)gpa);
    return err;
}

/* ---- ELF sections: the table, and copies of the sections that the segments do not hold ---- */

struct section {
    uint32_t type;
    uint64_t flags, addr, offset, size, align;
};

#define SHT_NOBITS_ 8u
#define SHF_ALLOC_  2u

static struct section get_section(const uint8_t *p, bool is64)
{
    if (is64)
        return (struct section){.type = boot_get32(p + 4),
                                .flags = boot_get64(p + 8),
                                .addr = boot_get64(p + 16),
                                .offset = boot_get64(p + 24),
                                .size = boot_get64(p + 32),
                                .align = boot_get64(p + 48)};
    return (struct section){.type = boot_get32(p + 4),
                            .flags = boot_get32(p + 8),
                            .addr = boot_get32(p + 12),
                            .offset = boot_get32(p + 16),
                            .size = boot_get32(p + 20),
                            .align = boot_get32(p + 32)};
}

/* Symbols and strings for the kernel's own debugger. They are a courtesy: a section that lies
 * outside the image or does not fit into RAM keeps address 0. */
static int copy_section(struct boot *boot, const struct section *s, uint8_t *header, bool is64)
{
    uint64_t align =
        s->align >= 1 && s->align <= BOOT_PAGE && (s->align & (s->align - 1)) == 0 ? s->align : 1;
    uint64_t gpa = 0, len = boot->kernel->len;
    int err;

    if ((s->flags & SHF_ALLOC_) || s->type == SHT_NOBITS_ || s->size == 0 || s->type == 0 ||
        s->offset > len || s->size > len - s->offset)
        return 0;
    if (boot_mem_place_low(&boot->mem, s->size, align, BOOT_1M, BOOT_4G, "ELF section", &gpa) != 0)
        return 0;
    err = boot_mem_write(&boot->mem, gpa, (const uint8_t *)boot->kernel->data + s->offset, s->size);
    if (is64)
        boot_put64(header + 16, gpa);
    else
        boot_put32(header + 12, (uint32_t)gpa);
    return err;
}

static int put_sections(struct boot *boot, const struct boot_elf_image *elf, uint8_t *info,
                        uint32_t *flags)
{
    uint64_t table = 0, size = (uint64_t)elf->nsections * elf->section_size;
    int err = 0;

    if (!elf->sections || elf->nsections > MAX_SECTIONS ||
        boot_mem_place_low(&boot->mem, size, 16, BOOT_1M, BOOT_4G, "section table", &table) != 0)
        return 0;
    for (uint32_t i = 0; !err && i < elf->nsections; i++) {
        uint8_t header[64];
        struct section s;

        memcpy(header, elf->sections + (size_t)i * elf->section_size, elf->section_size);
        s = get_section(header, elf->is64);
        if (boot->mem.nclaim < BOOT_MAX_CLAIMS / 2)
            err = copy_section(boot, &s, header, elf->is64);
        if (!err)
            err = boot_mem_write(&boot->mem, table + (uint64_t)i * elf->section_size, header,
                                 elf->section_size);
    }
    boot_put32(info + 28, elf->nsections);
    boot_put32(info + 32, elf->section_size);
    boot_put32(info + 36, (uint32_t)table);
    boot_put32(info + 40, elf->section_strings);
    *flags |= MBI_SECTIONS;
    return err;
}

static int write_info(struct boot *boot, const struct boot_elf_image *elf, uint64_t *gpa)
{
    uint32_t flags = MBI_MEMORY | MBI_CMDLINE | MBI_MODULES | MBI_MMAP | MBI_LOADER;
    uint8_t info[MBI_SIZE] = {0};
    int err = put_modules(boot, info);

    if (!err)
        err = put_cmdline(boot, info);
    if (!err)
        err = put_mmap(boot, info);
    if (!err)
        err = put_loader(boot, info);
    if (!err)
        err = boot_mem_place_data(&boot->mem, MBI_SIZE, 16, "multiboot information", gpa);
    if (!err)
        err = put_sections(boot, elf, info, &flags);
    boot_put32(info, flags);
    return err ? err : boot_mem_write(&boot->mem, *gpa, info, sizeof(info));
}

int boot_multiboot(struct boot *boot)
{
    struct boot_elf_image elf = {0};
    struct mb_image mb = {0};
    struct boot_entry entry = {.rax = MB_BOOTED};
    int err = parse_header(boot->kernel, &mb, &boot->error);

    if (!err)
        err = mb.flags & MB_ADDRESSES ? load_addresses(boot, &mb) : load_elf(boot, &elf, &mb);
    if (!err)
        err = boot_tables(boot);
    if (!err)
        err = write_info(boot, &elf, &entry.rbx);
    if (err)
        return err;
    entry.rip = mb.entry;
    return boot_enter(boot, &entry);
}
