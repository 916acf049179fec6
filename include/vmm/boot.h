/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/boot.h: loading kernels and firmware into a VM and setting the boot vCPU up for them. */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include <vmm/machine.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a file or of the program's own. */
struct vmm_image {
    uint32_t size;
    uint32_t reserved;
    const void *data; /* borrowed until the boot function returns */
    uint64_t len;
    const char *name; /* for messages and module command lines; may be NULL */
};

/* Reads a whole file (at most `max` bytes, 0: 1 GiB) into *image; free it with vmm_image_free.
 * VMM_E_IO, VMM_E_NOENT, VMM_E_PERM, VMM_E_LIMIT, VMM_E_NOMEM; *err may be NULL. ANY. */
int vmm_image_load(const char *path, uint64_t max, struct vmm_image *image, struct vmm_error *err);
void vmm_image_free(struct vmm_image *image);

#define VMM_BOOT_AUTO      0u
#define VMM_BOOT_LINUX     1u /* bzImage, 64-bit entry (Documentation/arch/x86/boot.rst) */
#define VMM_BOOT_PVH       2u /* ELF with XEN_ELFNOTE_PHYS32_ENTRY */
#define VMM_BOOT_MULTIBOOT 3u /* Multiboot 0.6.96: ELF or address fields */
#define VMM_BOOT_ELF       4u /* plain ELF32 (protected mode) or ELF64 (long mode) */
#define VMM_BOOT_FLAT      5u /* raw code at `load_addr` in real mode */
#define VMM_BOOT_FIRMWARE  6u /* ROM that ends at 4 GiB, also below 1 MiB; reset vector */

#define VMM_BOOT_NO_ACPI 1u /* write no ACPI tables */

struct vmm_boot {
    uint32_t size;
    uint32_t flags;          /* VMM_BOOT_NO_ACPI */
    struct vmm_image kernel; /* the image to start */
    const struct vmm_image
        *modules; /* initrds (concatenated, 4-byte aligned) or multiboot modules */
    uint32_t nmodules;
    uint32_t reserved;
    const char *cmdline;     /* NULL: empty. Copied into the guest */
    const struct vmm_pc *pc; /* memory map and ACPI tables describe it; NULL: regions only */
    uint64_t load_addr;      /* flat: physical address, default 0x7c00 */
};

/* Name of a VMM_BOOT_* kind, "linux". ANY. */
const char *vmm_boot_name(uint32_t kind);

/* What kind of image it is: VMM_BOOT_LINUX, _PVH, _MULTIBOOT or _ELF, or VMM_E_FORMAT. Reads
 * nothing but the image. ANY. */
int vmm_boot_detect(const struct vmm_image *image);

/*
 * Load the image, write boot parameters, memory map and tables into guest memory and set `vcpu`
 * (the boot CPU) up to run from its entry point. VMM_E_FORMAT or VMM_E_TRUNCATED for a bad image,
 * VMM_E_NOSPACE when it does not fit into guest memory; vm_last_error says what and where.
 * After a failure guest memory is unspecified. QUIET.
 */
int vm_boot(struct vcpu *vcpu, uint32_t kind, const struct vmm_boot *boot); /* any kind, or AUTO */
int vm_boot_linux(struct vcpu *vcpu, const struct vmm_boot *boot);
int vm_boot_pvh(struct vcpu *vcpu, const struct vmm_boot *boot);
int vm_boot_multiboot(struct vcpu *vcpu, const struct vmm_boot *boot);
int vm_boot_elf(struct vcpu *vcpu, const struct vmm_boot *boot);
int vm_boot_flat(struct vcpu *vcpu, const struct vmm_boot *boot);
int vm_boot_firmware(struct vcpu *vcpu, const struct vmm_boot *boot);

#ifdef __cplusplus
}
#endif
#endif
