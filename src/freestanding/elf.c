/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/elf.c: core/boot/elf.c needs libelf; here ELF images are known, but not loaded. */
#include <string.h>

#include "core/boot/boot.h"

bool boot_is_elf(const struct vmm_image *image)
{
    return image->len >= 4 && !memcmp(image->data, "\177ELF", 4);
}

int boot_elf_parse(const struct vmm_image *image, struct boot_elf_image *elf,
                   struct boot_error *error)
{
    (void)image;
    memset(elf, 0, sizeof(*elf));
    return boot_fail(error, VMM_E_UNSUPPORTED, "the freestanding build loads no ELF images");
}

int boot_elf(struct boot *boot)
{
    struct boot_elf_image elf;

    return boot_elf_parse(boot->kernel, &elf, &boot->error);
}

/* Of what boot_elf_parse gives, which is nothing. */

int boot_elf_load(struct boot *boot, const struct boot_elf_image *elf)
{
    (void)elf;
    return boot_fail(&boot->error, VMM_E_UNSUPPORTED, "no ELF image");
}

bool boot_elf_contains(const struct boot_elf_image *elf, uint64_t gpa)
{
    (void)elf;
    (void)gpa;
    return false;
}

int boot_elf_entry(const struct boot_elf_image *elf, uint64_t *entry, struct boot_error *error)
{
    (void)elf;
    *entry = 0;
    return boot_fail(error, VMM_E_UNSUPPORTED, "no ELF image");
}
