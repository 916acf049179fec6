/* SPDX-License-Identifier: BSD-2-Clause */
/* elf.c: ELF images: headers through libelf, every value checked here, segments, plain ELF boot. */
#include "core/boot/boot.h"

#include <gelf.h>
#include <inttypes.h>
#include <string.h>

#ifndef XEN_ELFNOTE_PHYS32_ENTRY
#define XEN_ELFNOTE_PHYS32_ENTRY 18u
#endif

bool boot_is_elf(const struct vmm_image *image)
{
    return image->len >= SELFMAG && memcmp(image->data, ELFMAG, SELFMAG) == 0;
}

/* ---- headers ---- */

static bool in_image(const struct vmm_image *image, uint64_t offset, uint64_t len)
{
    return offset <= image->len && len <= image->len - offset;
}

/* libelf accepts every class, byte order and machine; only what an x86 CPU can start passes. */
static int check_ident(const struct vmm_image *image, struct boot_elf_image *elf,
                       struct boot_error *error)
{
    const uint8_t *ident = image->data;
    uint64_t header_size;

    if (!boot_is_elf(image))
        return boot_fail(error, VMM_E_FORMAT, "the image does not begin with the ELF magic");
    if (image->len < EI_NIDENT)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the image (0x%" PRIx64 " bytes) ends inside the ELF header", image->len);
    if (ident[EI_CLASS] != ELFCLASS32 && ident[EI_CLASS] != ELFCLASS64)
        return boot_fail(error, VMM_E_FORMAT, "ELF class %u is neither 32-bit nor 64-bit",
                         ident[EI_CLASS]);
    if (ident[EI_DATA] != ELFDATA2LSB)
        return boot_fail(error, VMM_E_FORMAT, "ELF data encoding %u is not little-endian",
                         ident[EI_DATA]);
    if (ident[EI_VERSION] != EV_CURRENT)
        return boot_fail(error, VMM_E_FORMAT, "ELF version %u is not %u", ident[EI_VERSION],
                         EV_CURRENT);
    elf->is64 = ident[EI_CLASS] == ELFCLASS64;
    header_size = elf->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
    if (image->len < header_size)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the image (0x%" PRIx64 " bytes) ends inside the ELF header", image->len);
    return 0;
}

static int check_header(const GElf_Ehdr *header, struct boot_elf_image *elf,
                        struct boot_error *error)
{
    uint32_t machine = elf->is64 ? EM_X86_64 : EM_386;
    size_t phentsize = elf->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return boot_fail(error, VMM_E_FORMAT, "ELF type %u is neither EXEC nor DYN",
                         header->e_type);
    if (header->e_machine != machine)
        return boot_fail(error, VMM_E_FORMAT, "ELF machine %u is not %u (%s)", header->e_machine,
                         machine, elf->is64 ? "x86-64" : "i386");
    if (header->e_version != EV_CURRENT)
        return boot_fail(error, VMM_E_FORMAT, "ELF version %u is not %u", header->e_version,
                         EV_CURRENT);
    if (header->e_phoff == 0 || header->e_phnum == 0)
        return boot_fail(error, VMM_E_FORMAT, "the ELF image has no program headers");
    if (header->e_phentsize != phentsize)
        return boot_fail(error, VMM_E_FORMAT, "ELF program header size is %u, must be %zu",
                         header->e_phentsize, phentsize);
    elf->entry = header->e_entry;
    return 0;
}

static int phdrs_past_end(const struct vmm_image *image, size_t n, uint64_t offset,
                          struct boot_error *error)
{
    return boot_fail(error, VMM_E_TRUNCATED,
                     "%zu program headers at 0x%" PRIx64
                     " are past the end of the image (0x%" PRIx64 " bytes)",
                     n, offset, image->len);
}

/* The count may live in section 0 (PN_XNUM), which libelf reads. It also refuses tables past the
 * end of the image, but does not say so: an image cut short must be told from a damaged one. */
static int check_phdrs(Elf *handle, const GElf_Ehdr *header, const struct vmm_image *image,
                       size_t *n, struct boot_error *error)
{
    uint64_t offset = header->e_phoff, size = header->e_phentsize;

    if (header->e_phnum == PN_XNUM && header->e_shoff != 0 &&
        !in_image(image, header->e_shoff, header->e_shentsize))
        return boot_fail(error, VMM_E_TRUNCATED,
                         "section header 0 at 0x%" PRIx64
                         " is past the end of the image (0x%" PRIx64 " bytes)",
                         (uint64_t)header->e_shoff, image->len);
    if (header->e_phnum != PN_XNUM && !in_image(image, offset, header->e_phnum * size))
        return phdrs_past_end(image, header->e_phnum, offset, error);
    if (elf_getphdrnum(handle, n) != 0)
        return boot_fail(error, VMM_E_FORMAT, "ELF program headers: %s", elf_errmsg(-1));
    if (*n > BOOT_ELF_MAX_PHDRS)
        return boot_fail(error, VMM_E_LIMIT, "%zu program headers, at most %u", *n,
                         BOOT_ELF_MAX_PHDRS);
    if (!in_image(image, offset, *n * size))
        return phdrs_past_end(image, *n, offset, error);
    return 0;
}

/* ---- segments ---- */

static int add_segment(const struct vmm_image *image, const GElf_Phdr *phdr, uint32_t index,
                       struct boot_elf_image *elf, struct boot_error *error)
{
    uint64_t end;

    if (!in_image(image, phdr->p_offset, phdr->p_filesz))
        return boot_fail(error, VMM_E_TRUNCATED,
                         "segment %u: file range 0x%" PRIx64 "+0x%" PRIx64
                         " is past the end of the image (0x%" PRIx64 " bytes)",
                         index, (uint64_t)phdr->p_offset, (uint64_t)phdr->p_filesz, image->len);
    if (phdr->p_filesz > phdr->p_memsz)
        return boot_fail(error, VMM_E_FORMAT,
                         "segment %u: file size 0x%" PRIx64 " exceeds memory size 0x%" PRIx64,
                         index, (uint64_t)phdr->p_filesz, (uint64_t)phdr->p_memsz);
    if (phdr->p_memsz == 0)
        return 0;
    if (__builtin_add_overflow(phdr->p_paddr, phdr->p_memsz, &end) || (!elf->is64 && end > BOOT_4G))
        return boot_fail(error, VMM_E_FORMAT,
                         "segment %u: memory range 0x%" PRIx64 "+0x%" PRIx64 " wraps around", index,
                         (uint64_t)phdr->p_paddr, (uint64_t)phdr->p_memsz);
    if (elf->nload == BOOT_ELF_MAX_LOADS)
        return boot_fail(error, VMM_E_LIMIT, "more than %u loadable segments", BOOT_ELF_MAX_LOADS);
    for (uint32_t i = 0; i < elf->nload; i++)
        if (phdr->p_paddr < elf->load[i].paddr + elf->load[i].memsz && elf->load[i].paddr < end)
            return boot_fail(error, VMM_E_FORMAT,
                             "segment %u (0x%" PRIx64 "+0x%" PRIx64
                             ") overlaps segment %u (0x%" PRIx64 "+0x%" PRIx64 ") in memory",
                             index, (uint64_t)phdr->p_paddr, (uint64_t)phdr->p_memsz,
                             elf->load[i].index, elf->load[i].paddr, elf->load[i].memsz);
    elf->load[elf->nload++] = (struct boot_segment){.index = index,
                                                    .offset = phdr->p_offset,
                                                    .filesz = phdr->p_filesz,
                                                    .vaddr = phdr->p_vaddr,
                                                    .paddr = phdr->p_paddr,
                                                    .memsz = phdr->p_memsz};
    return 0;
}

/* ---- notes ---- */

/* One note's fields (gABI 5, "Note Section"): sizes, type, padded name, padded descriptor. */
static void take_note(const uint8_t *name, uint32_t namesz, const uint8_t *desc, uint32_t descsz,
                      uint32_t type, struct boot_elf_image *elf)
{
    if (type != XEN_ELFNOTE_PHYS32_ENTRY || namesz != 4 || memcmp(name, "Xen", 4) != 0)
        return;
    if (descsz != 4 && descsz != 8)
        return;
    elf->has_pvh = true;
    elf->pvh_entry = descsz == 8 ? boot_get64(desc) : boot_get32(desc);
}

/* A truncated note ends the walk: what follows cannot be found. Neither can one behind very many
 * others: notes are few, and note segments that overlap must not add up to hours. */
static void scan_notes(const uint8_t *p, uint64_t len, uint64_t align, struct boot_elf_image *elf)
{
    uint64_t at = 0;

    while (!elf->has_pvh && elf->nnotes < BOOT_ELF_MAX_NOTES && len - at >= 12) {
        uint32_t namesz = boot_get32(p + at), descsz = boot_get32(p + at + 4);
        uint32_t type = boot_get32(p + at + 8);
        uint64_t desc = (at + 12 + namesz + align - 1) & ~(align - 1);

        if (desc > len || descsz > len - desc)
            return;
        take_note(p + at + 12, namesz, p + desc, descsz, type, elf);
        elf->nnotes++;
        at = (desc + descsz + align - 1) & ~(align - 1);
        if (at > len)
            return;
    }
}

static int add_notes(const struct vmm_image *image, const GElf_Phdr *phdr, uint32_t index,
                     struct boot_elf_image *elf, struct boot_error *error)
{
    const uint8_t *bytes = image->data;

    if (!in_image(image, phdr->p_offset, phdr->p_filesz))
        return boot_fail(error, VMM_E_TRUNCATED,
                         "note segment %u: file range 0x%" PRIx64 "+0x%" PRIx64
                         " is past the end of the image (0x%" PRIx64 " bytes)",
                         index, (uint64_t)phdr->p_offset, (uint64_t)phdr->p_filesz, image->len);
    scan_notes(bytes + phdr->p_offset, phdr->p_filesz, phdr->p_align == 8 ? 8 : 4, elf);
    return 0;
}

/* ---- sections ---- */

/* Only for the multiboot information structure, so a table that does not fit is simply not there.
 */
static void find_sections(const struct vmm_image *image, const GElf_Ehdr *header,
                          struct boot_elf_image *elf)
{
    size_t want = elf->is64 ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);

    if (header->e_shoff == 0 || header->e_shnum == 0 || header->e_shentsize != want ||
        header->e_shstrndx >= header->e_shnum ||
        !in_image(image, header->e_shoff, (uint64_t)header->e_shnum * want))
        return;
    elf->sections = (const uint8_t *)image->data + header->e_shoff;
    elf->nsections = header->e_shnum;
    elf->section_size = header->e_shentsize;
    elf->section_strings = header->e_shstrndx;
}

/* ---- the whole image ---- */

static int parse(Elf *handle, const struct vmm_image *image, struct boot_elf_image *elf,
                 struct boot_error *error)
{
    GElf_Ehdr header;
    size_t n = 0;
    int err;

    if (!handle || elf_kind(handle) != ELF_K_ELF || !gelf_getehdr(handle, &header))
        return boot_fail(error, VMM_E_FORMAT, "ELF header: %s", elf_errmsg(-1));
    err = check_header(&header, elf, error);
    if (!err)
        err = check_phdrs(handle, &header, image, &n, error);
    for (size_t i = 0; !err && i < n; i++) {
        GElf_Phdr phdr;

        if (!gelf_getphdr(handle, (int)i, &phdr))
            return boot_fail(error, VMM_E_FORMAT, "program header %zu: %s", i, elf_errmsg(-1));
        if (phdr.p_type == PT_LOAD)
            err = add_segment(image, &phdr, (uint32_t)i, elf, error);
        else if (phdr.p_type == PT_NOTE && !elf->has_pvh)
            err = add_notes(image, &phdr, (uint32_t)i, elf, error);
    }
    if (!err && elf->nload == 0)
        err = boot_fail(error, VMM_E_FORMAT, "the ELF image has no loadable segment");
    if (!err)
        find_sections(image, &header, elf);
    return err;
}

int boot_elf_parse(const struct vmm_image *image, struct boot_elf_image *elf,
                   struct boot_error *error)
{
    Elf *handle;
    int err;

    memset(elf, 0, sizeof(*elf));
    err = check_ident(image, elf, error);
    if (err)
        return err;
    if (elf_version(EV_CURRENT) == EV_NONE)
        return boot_fail(error, VMM_E_INTERNAL, "libelf: %s", elf_errmsg(-1));
    /* libelf wants a mutable pointer but only writes to images that were opened for writing. */
    handle = elf_memory((char *)(uintptr_t)image->data, (size_t)image->len);
    err = parse(handle, image, elf, error);
    elf_end(handle);
    return err;
}

int boot_elf_load(struct boot *boot, const struct boot_elf_image *elf)
{
    const uint8_t *bytes = boot->kernel->data;
    int err = 0;

    for (uint32_t i = 0; !err && i < elf->nload; i++) {
        const struct boot_segment *seg = &elf->load[i];

        err = boot_mem_claim(&boot->mem, seg->paddr, seg->memsz, "ELF segment");
    }
    for (uint32_t i = 0; !err && i < elf->nload; i++) {
        const struct boot_segment *seg = &elf->load[i];

        err = boot_mem_write(&boot->mem, seg->paddr, bytes + seg->offset, seg->filesz);
        if (!err)
            err = boot_mem_zero(&boot->mem, seg->paddr + seg->filesz, seg->memsz - seg->filesz);
    }
    return err;
}

bool boot_elf_contains(const struct boot_elf_image *elf, uint64_t gpa)
{
    for (uint32_t i = 0; i < elf->nload; i++)
        if (gpa - elf->load[i].paddr < elf->load[i].memsz)
            return true;
    return false;
}

/* Entry points are virtual addresses, but kernels are started with paging off or identity-mapped:
 * one inside a segment's virtual range means the same byte at its physical address. Linux's own
 * vmlinux has a physical entry point, outside every virtual range. */
int boot_elf_entry(const struct boot_elf_image *elf, uint64_t *entry, struct boot_error *error)
{
    *entry = elf->entry;
    for (uint32_t i = 0; i < elf->nload; i++) {
        const struct boot_segment *seg = &elf->load[i];

        if (elf->entry - seg->vaddr < seg->memsz) {
            *entry = elf->entry - seg->vaddr + seg->paddr;
            return 0;
        }
    }
    if (boot_elf_contains(elf, elf->entry))
        return 0;
    return boot_fail(error, VMM_E_FORMAT, "entry point 0x%" PRIx64 " is in no loadable segment",
                     elf->entry);
}

int boot_elf(struct boot *boot)
{
    struct boot_elf_image elf;
    struct boot_entry entry = {0};
    uint64_t info = 0;
    int err = boot_elf_parse(boot->kernel, &elf, &boot->error);

    if (!err)
        err = boot_elf_entry(&elf, &entry.rip, &boot->error);
    if (!err)
        err = boot_elf_load(boot, &elf);
    if (!err)
        err = boot_tables(boot);
    if (!err)
        err = boot_stack(boot, &entry.rsp);
    if (!err)
        err = boot_start_info(boot, &info);
    if (err)
        return err;
    entry.long_mode = elf.is64;
    entry.rbx = info;
    entry.rdi = elf.is64 ? info : 0;
    return boot_enter(boot, &entry);
}
