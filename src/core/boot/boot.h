/* SPDX-License-Identifier: BSD-2-Clause */
/* boot.h: what the image loaders share: errors, the layout of guest memory, images, CPU state. */
#ifndef VMM_CORE_BOOT_BOOT_H
#define VMM_CORE_BOOT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmm/boot.h>

/*
 * The loaders know the VM only through the public headers. A loader runs in four steps: parse the
 * image (pure), claim the memory that it fixes itself, place everything else around those claims,
 * write. Nothing that an image or a caller says reaches guest memory without a claim, and claims
 * never overlap.
 */

#define BOOT_PAGE        4096ull
#define BOOT_LOW_RAM_END 0x9fc00ull /* conventional memory ends where the EBDA begins */
#define BOOT_1M          0x100000ull
#define BOOT_4G          0x100000000ull

/* E820 types (ACPI 6.4, table 15.6). */
#define BOOT_RAM      1u
#define BOOT_RESERVED 2u

/* ---- errors ---- */

struct boot_error {
    int code; /* VMM_E_* */
    char text[256];
};

/* Records code and text, returns code. */
int boot_fail(struct boot_error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- little-endian fields ---- */

uint16_t boot_get16(const uint8_t *p);
uint32_t boot_get32(const uint8_t *p);
uint64_t boot_get64(const uint8_t *p);
void boot_put16(uint8_t *p, uint16_t v);
void boot_put32(uint8_t *p, uint32_t v);
void boot_put64(uint8_t *p, uint64_t v);

/* ---- guest memory ---- */

struct boot_range {
    uint64_t start;
    uint64_t end; /* exclusive */
    const char *what;
};

struct boot_e820 {
    uint64_t addr;
    uint64_t len;
    uint32_t type; /* BOOT_RAM ... */
};

#define BOOT_MAX_RANGES 128u
#define BOOT_MAX_CLAIMS 512u

struct boot_mem {
    struct vm *vm;
    struct boot_error *error;
    struct boot_range mapped[BOOT_MAX_RANGES]; /* what is memory at all, adjacent regions merged */
    uint32_t nmapped;
    struct boot_range ram[BOOT_MAX_RANGES]; /* what the guest is told to be RAM */
    uint32_t nram;
    struct boot_range claim[BOOT_MAX_CLAIMS]; /* sorted */
    uint32_t nclaim;
};

/* Collects the memory of `vm`; RAM is what `pc` says or, without one, every writable region. The
 * range from 0x9fc00 to 1 MiB is never RAM for the guest. VMM_E_LIMIT, VMM_E_NOSPACE. */
int boot_mem_init(struct boot_mem *mem, struct vm *vm, const struct vmm_pc *pc,
                  struct boot_error *error);

/* Takes [start, start+len) for `what`. VMM_E_NOSPACE if it is not all memory, VMM_E_EXIST if it
 * overlaps an earlier claim. An empty range is free. */
int boot_mem_claim(struct boot_mem *mem, uint64_t start, uint64_t len, const char *what);

/* Whether all of the range is memory and free. */
bool boot_mem_is_free(const struct boot_mem *mem, uint64_t start, uint64_t len);

/* Claims the lowest (or highest) free place for `len` bytes inside RAM and [min, max);
 * `align` is a power of two. VMM_E_NOSPACE. */
int boot_mem_place_low(struct boot_mem *mem, uint64_t len, uint64_t align, uint64_t min,
                       uint64_t max, const char *what, uint64_t *gpa);
int boot_mem_place_high(struct boot_mem *mem, uint64_t len, uint64_t align, uint64_t min,
                        uint64_t max, const char *what, uint64_t *gpa);

/* Claims a place for boot data: in conventional memory if it fits, else anywhere below 4 GiB. */
int boot_mem_place_data(struct boot_mem *mem, uint64_t len, uint64_t align, const char *what,
                        uint64_t *gpa);

/* Writes or clears claimed memory. Clearing leaves pages that are zero already untouched. */
int boot_mem_write(struct boot_mem *mem, uint64_t gpa, const void *data, uint64_t len);
int boot_mem_zero(struct boot_mem *mem, uint64_t gpa, uint64_t len);

/* Places a string with its terminator as boot data. */
int boot_mem_string(struct boot_mem *mem, const char *text, const char *what, uint64_t *gpa);

/* Fills `map` (capacity `max`) with the memory map for the guest, sorted; sets *n.
 * VMM_E_LIMIT. */
int boot_mem_e820(const struct boot_mem *mem, struct boot_e820 *map, uint32_t max, uint32_t *n);

/* ---- one boot ---- */

struct boot {
    struct vm *vm;
    struct vcpu *vcpu;
    uint32_t flags;
    const struct vmm_image *kernel;
    const struct vmm_image *modules;
    uint32_t nmodules;
    const char *cmdline; /* never NULL */
    const struct vmm_pc *pc;
    uint64_t load_addr;
    uint64_t rsdp; /* set by boot_tables, 0: none */
    struct boot_error error;
    struct boot_mem mem;
};

/* The loaders: return 0 or error.code. */
int boot_linux(struct boot *boot);
int boot_pvh(struct boot *boot);
int boot_multiboot(struct boot *boot);
int boot_elf(struct boot *boot);
int boot_flat(struct boot *boot);
int boot_firmware(struct boot *boot);

/* Writes real-mode vectors and a reset entry for a machine without firmware, if their places are
 * free. */
int boot_bios(struct boot *boot);

/* Writes what boot_bios does, the BIOS data area, ACPI and MP tables for `boot->pc`; after the
 * kernel's claims. */
int boot_tables(struct boot *boot);

/* Puts the ACPI tables and the memory map into the fw_cfg device, for firmware to install. */
int boot_tables_fw_cfg(struct boot *boot);

/* Writes PVH start information (start_info, modules, memory map, command line); *gpa is where. */
int boot_start_info(struct boot *boot, uint64_t *gpa);

#define BOOT_MAX_MODULES 256u

/* Places and writes the modules one by one, page-aligned; just above the kernel. VMM_E_LIMIT
 * if there are more than BOOT_MAX_MODULES. */
int boot_modules(struct boot *boot, uint64_t gpa[BOOT_MAX_MODULES]);

/* ---- ELF ---- */

#define BOOT_ELF_MAX_LOADS 64u
#define BOOT_ELF_MAX_PHDRS 1024u
#define BOOT_ELF_MAX_NOTES 4096u

struct boot_segment {
    uint32_t index; /* of the program header */
    uint64_t offset;
    uint64_t filesz;
    uint64_t vaddr;
    uint64_t paddr;
    uint64_t memsz;
};

struct boot_elf_image {
    bool is64;
    uint64_t entry; /* as in the header */
    uint32_t nload;
    struct boot_segment load[BOOT_ELF_MAX_LOADS]; /* PT_LOAD with memsz > 0 */
    uint32_t nnotes;                              /* looked at */
    bool has_pvh;
    uint64_t pvh_entry;      /* physical address from XEN_ELFNOTE_PHYS32_ENTRY */
    const uint8_t *sections; /* section header table inside the image, NULL: none or unusable */
    uint32_t nsections;
    uint32_t section_size;
    uint32_t section_strings;
};

/* Reads and checks all headers. VMM_E_FORMAT, _TRUNCATED, _UNSUPPORTED, _LIMIT. */
int boot_elf_parse(const struct vmm_image *image, struct boot_elf_image *elf,
                   struct boot_error *error);

/* Claims and writes all segments at their physical addresses. */
int boot_elf_load(struct boot *boot, const struct boot_elf_image *elf);

/* The physical entry point, which must lie in a segment. */
int boot_elf_entry(const struct boot_elf_image *elf, uint64_t *entry, struct boot_error *error);

/* Whether `gpa` lies in a segment. */
bool boot_elf_contains(const struct boot_elf_image *elf, uint64_t gpa);

/* ---- detection ---- */

bool boot_is_linux(const struct vmm_image *image);
bool boot_is_multiboot(const struct vmm_image *image);
bool boot_is_elf(const struct vmm_image *image);

/* ---- CPU state ---- */

#define BOOT_CS                                                                                    \
    0x10u /* selectors of the Linux boot protocol, used for every protected-mode entry */
#define BOOT_DS 0x18u

struct boot_entry {
    bool long_mode;
    uint64_t rip;
    uint64_t rsp;
    uint64_t rax, rbx, rsi, rdi;
};

/* Places a GDT (and for long mode identity page tables over all RAM and at least 4 GiB), and sets
 * the vCPU up in flat 32-bit protected mode or 64-bit mode with paging, interrupts off. */
int boot_enter(struct boot *boot, const struct boot_entry *entry);

/* Places a stack; *top is its first byte above, 16-byte aligned. */
int boot_stack(struct boot *boot, uint64_t *top);

#endif
