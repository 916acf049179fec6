/* SPDX-License-Identifier: BSD-2-Clause */
/* pvh.c: the PVH entry point of ELF kernels and its start information (Xen's x86/HVM direct boot
 * ABI). */
#include "core/boot/boot.h"

#include <inttypes.h>

/* struct hvm_start_info, version 1 */
#define START_MAGIC   0x336ec578u
#define START_SIZE    56u
#define MODLIST_ENTRY 32u
#define MEMMAP_ENTRY  24u

#define MEMMAP_MAX (BOOT_MAX_RANGES + 1u)

/* So that the end of a module fits into 32 bits. */
#define MODULES_END (BOOT_4G - BOOT_PAGE)

int boot_modules(struct boot *boot, uint64_t gpa[BOOT_MAX_MODULES])
{
    struct boot_mem *mem = &boot->mem;
    uint64_t min = BOOT_1M;
    int err = 0;

    if (boot->nmodules > BOOT_MAX_MODULES)
        return boot_fail(&boot->error, VMM_E_LIMIT, "%u modules, at most %u", boot->nmodules,
                         BOOT_MAX_MODULES);
    for (uint32_t i = 0; i < mem->nclaim; i++)
        if (mem->claim[i].end > min && mem->claim[i].end < BOOT_4G)
            min = mem->claim[i].end;
    for (uint32_t i = 0; !err && i < boot->nmodules; i++) {
        const struct vmm_image *module = &boot->modules[i];

        err = boot_mem_place_low(mem, module->len, BOOT_PAGE, min, MODULES_END, "module", &gpa[i]);
        if (err) /* better below a part of the kernel than nowhere */
            err = boot_mem_place_low(mem, module->len, BOOT_PAGE, BOOT_1M, MODULES_END, "module",
                                     &gpa[i]);
        if (!err)
            err = boot_mem_write(mem, gpa[i], module->data, module->len);
    }
    return err;
}

static int write_modlist(struct boot *boot, uint64_t *gpa)
{
    struct boot_mem *mem = &boot->mem;
    uint64_t module[BOOT_MAX_MODULES];
    int err = boot_modules(boot, module);

    if (!err)
        err = boot_mem_place_data(mem, (uint64_t)boot->nmodules * MODLIST_ENTRY, 8, "module list",
                                  gpa);
    for (uint32_t i = 0; !err && i < boot->nmodules; i++) {
        uint8_t entry[MODLIST_ENTRY] = {0};
        uint64_t name = 0;

        if (boot->modules[i].name)
            err = boot_mem_string(mem, boot->modules[i].name, "module name", &name);
        boot_put64(entry, module[i]);
        boot_put64(entry + 8, boot->modules[i].len);
        boot_put64(entry + 16, name);
        if (!err)
            err = boot_mem_write(mem, *gpa + i * MODLIST_ENTRY, entry, sizeof(entry));
    }
    return err;
}

static int write_memmap(struct boot *boot, uint64_t *gpa, uint32_t *n)
{
    struct boot_e820 map[MEMMAP_MAX];
    uint8_t bytes[MEMMAP_MAX * MEMMAP_ENTRY] = {0};
    int err = boot_mem_e820(&boot->mem, map, MEMMAP_MAX, n);

    if (err)
        return err;
    for (uint32_t i = 0; i < *n; i++) {
        boot_put64(bytes + i * MEMMAP_ENTRY, map[i].addr);
        boot_put64(bytes + i * MEMMAP_ENTRY + 8, map[i].len);
        boot_put32(bytes + i * MEMMAP_ENTRY + 16, map[i].type);
    }
    err = boot_mem_place_data(&boot->mem, *n * MEMMAP_ENTRY, 8, "memory map", gpa);
    return err ? err : boot_mem_write(&boot->mem, *gpa, bytes, *n * MEMMAP_ENTRY);
}

int boot_start_info(struct boot *boot, uint64_t *gpa)
{
    uint8_t info[START_SIZE] = {0};
    uint64_t modlist = 0, cmdline = 0, memmap = 0;
    uint32_t entries = 0;
    int err = 0;

    if (boot->nmodules > 0)
        err = write_modlist(boot, &modlist);
    if (!err)
        err = boot_mem_string(&boot->mem, boot->cmdline, "command line", &cmdline);
    if (!err)
        err = write_memmap(boot, &memmap, &entries);
    if (!err)
        err = boot_mem_place_data(&boot->mem, START_SIZE, 8, "start info", gpa);
    if (err)
        return err;
    boot_put32(info, START_MAGIC);
    boot_put32(info + 4, 1); /* version */
    boot_put32(info + 12, boot->nmodules);
    boot_put64(info + 16, modlist);
    boot_put64(info + 24, cmdline);
    boot_put64(info + 32, boot->rsdp);
    boot_put64(info + 40, memmap);
    boot_put32(info + 48, entries);
    return boot_mem_write(&boot->mem, *gpa, info, sizeof(info));
}

int boot_pvh(struct boot *boot)
{
    struct boot_elf_image elf;
    struct boot_entry entry = {0};
    int err = boot_elf_parse(boot->kernel, &elf, &boot->error);

    if (err)
        return err;
    if (!elf.has_pvh)
        return boot_fail(&boot->error, VMM_E_FORMAT,
                         "the ELF image has no XEN_ELFNOTE_PHYS32_ENTRY note");
    if (elf.pvh_entry >= BOOT_4G || !boot_elf_contains(&elf, elf.pvh_entry))
        return boot_fail(&boot->error, VMM_E_FORMAT,
                         "PVH entry point 0x%" PRIx64 " is in no loadable segment below 4 GiB",
                         elf.pvh_entry);
    entry.rip = elf.pvh_entry;
    err = boot_elf_load(boot, &elf);
    if (!err)
        err = boot_tables(boot);
    if (!err)
        err = boot_start_info(boot, &entry.rbx);
    return err ? err : boot_enter(boot, &entry);
}
