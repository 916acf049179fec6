/* SPDX-License-Identifier: BSD-2-Clause */
/* boot_elf_image.h: writing ELF images of either class, field by field, for the loaders' tests. */
#ifndef BOOT_ELF_IMAGE_H
#define BOOT_ELF_IMAGE_H

#include <elf.h>
#include <string.h>

#include "core/boot/boot.h"

#define ELF_IMAGE_MAX 0x3000u

struct elf_image {
    bool is64;
    uint32_t nphdr;
    uint32_t len; /* of the whole image; data is appended here */
    uint8_t bytes[ELF_IMAGE_MAX];
};

static inline uint32_t elf_phdr_at(const struct elf_image *e, uint32_t i)
{
    return e->is64 ? 64 + 56 * i : 52 + 32 * i;
}

/* Headers with room for `nphdr` program headers, which are then null entries. */
static inline void elf_begin(struct elf_image *e, bool is64, uint64_t entry, uint32_t nphdr)
{
    uint8_t *p = e->bytes;

    memset(e, 0, sizeof(*e));
    e->is64 = is64;
    e->len = elf_phdr_at(e, nphdr);
    memcpy(p, "\177ELF", 4);
    p[4] = is64 ? 2 : 1;
    p[5] = p[6] = 1;
    boot_put16(p + 16, ET_EXEC);
    boot_put16(p + 18, is64 ? EM_X86_64 : EM_386);
    boot_put32(p + 20, 1);
    if (is64) {
        boot_put64(p + 24, entry);
        boot_put64(p + 32, 64);
        boot_put16(p + 52, 64);
        boot_put16(p + 54, 56);
        boot_put16(p + 56, (uint16_t)nphdr);
        boot_put16(p + 58, 64);
    } else {
        boot_put32(p + 24, (uint32_t)entry);
        boot_put32(p + 28, 52);
        boot_put16(p + 40, 52);
        boot_put16(p + 42, 32);
        boot_put16(p + 44, (uint16_t)nphdr);
        boot_put16(p + 46, 40);
    }
}

struct elf_phdr {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

static inline void elf_put_phdr(struct elf_image *e, uint32_t i, struct elf_phdr h)
{
    uint8_t *p = e->bytes + elf_phdr_at(e, i);

    boot_put32(p, h.type);
    if (e->is64) {
        boot_put32(p + 4, 5);
        boot_put64(p + 8, h.offset);
        boot_put64(p + 16, h.vaddr);
        boot_put64(p + 24, h.paddr);
        boot_put64(p + 32, h.filesz);
        boot_put64(p + 40, h.memsz);
        boot_put64(p + 48, h.align);
    } else {
        boot_put32(p + 4, (uint32_t)h.offset);
        boot_put32(p + 8, (uint32_t)h.vaddr);
        boot_put32(p + 12, (uint32_t)h.paddr);
        boot_put32(p + 16, (uint32_t)h.filesz);
        boot_put32(p + 20, (uint32_t)h.memsz);
        boot_put32(p + 24, 5);
        boot_put32(p + 28, (uint32_t)h.align);
    }
}

/* Appends bytes, returns their file offset, which is a multiple of 4. */
static inline uint32_t elf_append(struct elf_image *e, const void *data, uint32_t len)
{
    uint32_t offset = (e->len + 3) & ~3u;

    memcpy(e->bytes + offset, data, len);
    e->len = offset + len;
    return offset;
}

/* Program header `i`: a segment with these bytes. */
static inline void elf_load(struct elf_image *e, uint32_t i, uint64_t vaddr, uint64_t paddr,
                            const void *data, uint32_t len, uint64_t memsz)
{
    uint32_t offset = elf_append(e, data, len);

    elf_put_phdr(e, i, (struct elf_phdr){PT_LOAD, offset, vaddr, paddr, len, memsz, 1});
}

/* Program header `i`: notes as they are. */
static inline void elf_notes(struct elf_image *e, uint32_t i, const void *data, uint32_t len,
                             uint64_t align)
{
    uint32_t offset = elf_append(e, data, len);

    elf_put_phdr(e, i, (struct elf_phdr){PT_NOTE, offset, 0, 0, len, len, align});
}

/* One note in `p`, padded to `align`; returns its length. */
static inline uint32_t elf_note(uint8_t *p, uint32_t align, const char *name, uint32_t type,
                                const void *desc, uint32_t descsz)
{
    uint32_t namesz = (uint32_t)strlen(name) + 1;
    uint32_t at = (12 + namesz + align - 1) & ~(align - 1);
    uint32_t len = (at + descsz + align - 1) & ~(align - 1);

    memset(p, 0, len);
    boot_put32(p, namesz);
    boot_put32(p + 4, descsz);
    boot_put32(p + 8, type);
    memcpy(p + 12, name, namesz);
    memcpy(p + at, desc, descsz);
    return len;
}

/* Adds the note of a PVH kernel as program header `i`. */
static inline void elf_pvh(struct elf_image *e, uint32_t i, uint32_t entry)
{
    uint8_t note[64], desc[4];

    boot_put32(desc, entry);
    elf_notes(e, i, note, elf_note(note, 4, "Xen", 18, desc, 4), 4);
}

/* Names the section header table at the end of the image: `n` entries from `data`. */
static inline void elf_sections(struct elf_image *e, const void *data, uint32_t n, uint32_t strings)
{
    uint32_t offset = elf_append(e, data, n * (e->is64 ? 64 : 40));

    if (e->is64)
        boot_put64(e->bytes + 40, offset);
    else
        boot_put32(e->bytes + 32, offset);
    boot_put16(e->bytes + (e->is64 ? 60 : 48), (uint16_t)n);
    boot_put16(e->bytes + (e->is64 ? 62 : 50), (uint16_t)strings);
}

#endif
