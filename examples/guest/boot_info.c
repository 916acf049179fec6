/* SPDX-License-Identifier: BSD-2-Clause */
/* boot_info.c: command line and memory map, from PVH's start info or Multiboot's information. */
#include "guest.h"

#define MULTIBOOT_MAGIC   0x2badb002u
#define MULTIBOOT_CMDLINE 4u
#define MULTIBOOT_MMAP    64u
#define PVH_MAGIC         0x336ec578u

/* struct hvm_start_info, version 1 */
struct pvh_info {
    uint32_t magic, version, flags, nmodules;
    uint64_t modules, cmdline, rsdp, memmap;
    uint32_t nmemmap, reserved;
};

struct pvh_range {
    uint64_t base, len;
    uint32_t type, reserved;
};

/* Multiboot 0.6.96, 3.3: only what is used here */
struct multiboot_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, nmodules, modules, syms[4];
    uint32_t mmap_len, mmap;
};

struct multiboot_range {
    uint32_t size; /* of what follows */
    uint64_t base, len;
    uint32_t type;
} __attribute__((packed));

struct boot_info boot_info = {.loader = "an unknown loader", .cmdline = ""};

static void add_range(uint64_t base, uint64_t len, uint32_t type)
{
    if (boot_info.nmemory < MEMORY_RANGES) {
        boot_info.memory[boot_info.nmemory++] = (struct memory_range){base, len, type};
    }
}

static void read_pvh(const struct pvh_info *info)
{
    const struct pvh_range *range = (const struct pvh_range *)info->memmap;

    boot_info.loader = "PVH";
    boot_info.rsdp = info->rsdp;
    if (info->cmdline != 0) {
        boot_info.cmdline = (const char *)info->cmdline;
    }
    for (uint32_t i = 0; info->version >= 1 && i < info->nmemmap; i++) {
        add_range(range[i].base, range[i].len, range[i].type);
    }
}

static void read_multiboot(const struct multiboot_info *info)
{
    boot_info.loader = "Multiboot";
    if (info->flags & MULTIBOOT_CMDLINE) {
        boot_info.cmdline = (const char *)(uintptr_t)info->cmdline;
    }
    if (info->flags & MULTIBOOT_MMAP) {
        uintptr_t at = info->mmap;

        while (at < (uintptr_t)info->mmap + info->mmap_len) {
            const struct multiboot_range *range = (const struct multiboot_range *)at;

            add_range(range->base, range->len, range->type);
            at += range->size + sizeof(range->size);
        }
    }
}

void boot_info_read(uint32_t magic, uint32_t address)
{
    const void *info = (const void *)(uintptr_t)address;

    if (magic == MULTIBOOT_MAGIC) {
        read_multiboot(info);
    } else if (((const struct pvh_info *)info)->magic == PVH_MAGIC) {
        read_pvh(info);
    }
}

uint64_t memory_bytes(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < boot_info.nmemory; i++) {
        sum += boot_info.memory[i].type == 1 ? boot_info.memory[i].len : 0;
    }
    return sum;
}
