/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.c: Linux bzImage, protocol 2.06 and newer (Linux Documentation/arch/x86/boot.rst). */
#include "core/boot/boot.h"

#include <inttypes.h>
#include <string.h>

/* Offsets of the setup header in the image, and of the same fields in struct boot_params. */
#define H_SETUP_SECTS      0x1f1u
#define H_SYSSIZE          0x1f4u
#define H_VID_MODE         0x1fau
#define H_BOOT_FLAG        0x1feu
#define H_JUMP             0x200u
#define H_MAGIC            0x202u
#define H_VERSION          0x206u
#define H_TYPE_OF_LOADER   0x210u
#define H_LOADFLAGS        0x211u
#define H_CODE32_START     0x214u
#define H_RAMDISK_IMAGE    0x218u
#define H_RAMDISK_SIZE     0x21cu
#define H_CMD_LINE_PTR     0x228u
#define H_INITRD_ADDR_MAX  0x22cu
#define H_KERNEL_ALIGNMENT 0x230u
#define H_RELOCATABLE      0x234u
#define H_MIN_ALIGNMENT    0x235u
#define H_XLOADFLAGS       0x236u
#define H_CMDLINE_SIZE     0x238u
#define H_SETUP_DATA       0x250u
#define H_PREF_ADDRESS     0x258u
#define H_INIT_SIZE        0x260u
#define H_END              0x290u /* room for the header in boot_params */

/* Fields of struct boot_params outside the setup header. */
#define P_ACPI_RSDP         0x070u
#define P_EXT_RAMDISK_IMAGE 0x0c0u
#define P_EXT_RAMDISK_SIZE  0x0c4u
#define P_E820_ENTRIES      0x1e8u
#define P_E820_TABLE        0x2d0u
#define P_E820_MAX          128u
#define P_SIZE              4096u

#define MIN_LEN         0x23cu /* where the fields of protocol 2.06 end */
#define LOADED_HIGH     1u
#define XLF_KERNEL_64   1u
#define XLF_ABOVE_4G    2u
#define VID_MODE_NORMAL 0xffffu
#define ENTRY64         0x200u

/* Kernels before 2.10 do not say how much memory unpacking takes: allow for a ratio of three. */
#define UNPACK_FACTOR 3u

struct linux_image {
    uint32_t version;
    uint32_t header_end;
    const uint8_t *code; /* protected-mode part */
    uint64_t code_len;
    uint64_t init_size; /* memory that the kernel needs from its load address on */
    uint64_t pref_address;
    uint64_t align;
    bool relocatable;
    bool entry64;
    bool above_4g;
    uint64_t initrd_max; /* highest byte that an initrd may use */
    uint64_t cmdline_max;
};

struct linux_placed {
    uint64_t code;
    uint64_t params;
    uint64_t cmdline;
    uint64_t initrd;
    uint64_t initrd_len;
};

bool boot_is_linux(const struct vmm_image *image)
{
    const uint8_t *bytes = image->data;

    return image->len >= H_VERSION + 2 && boot_get16(bytes + H_BOOT_FLAG) == 0xaa55 &&
           memcmp(bytes + H_MAGIC, "HdrS", 4) == 0;
}

/* ---- the header ---- */

static int parse_magic(const struct vmm_image *image, struct linux_image *linux_,
                       struct boot_error *error)
{
    const uint8_t *h = image->data;

    if (image->len < MIN_LEN)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the image (0x%" PRIx64 " bytes) ends inside the setup header",
                         image->len);
    if (boot_get16(h + H_BOOT_FLAG) != 0xaa55)
        return boot_fail(error, VMM_E_FORMAT, "boot flag 0x%04x is not 0xaa55",
                         boot_get16(h + H_BOOT_FLAG));
    if (memcmp(h + H_MAGIC, "HdrS", 4) != 0)
        return boot_fail(error, VMM_E_FORMAT, "setup header magic 0x%08x is not \"HdrS\"",
                         boot_get32(h + H_MAGIC));
    linux_->version = boot_get16(h + H_VERSION);
    if (linux_->version < 0x206)
        return boot_fail(error, VMM_E_UNSUPPORTED, "boot protocol %u.%02u is older than 2.06",
                         linux_->version >> 8, linux_->version & 0xff);
    if (!(h[H_LOADFLAGS] & LOADED_HIGH))
        return boot_fail(error, VMM_E_UNSUPPORTED,
                         "loadflags 0x%02x: a zImage, which loads below 1 MiB", h[H_LOADFLAGS]);
    return 0;
}

/* Where the setup header ends (the short jump at 0x200 leads past it) and the kernel begins. */
static int parse_extent(const struct vmm_image *image, struct linux_image *linux_,
                        struct boot_error *error)
{
    const uint8_t *h = image->data;
    uint32_t sects = h[H_SETUP_SECTS] ? h[H_SETUP_SECTS] : 4;
    uint64_t setup = (sects + 1) * 512u;
    uint64_t syssize = boot_get32(h + H_SYSSIZE) * 16ull;
    uint32_t want = linux_->version >= 0x20a ? H_INIT_SIZE + 4 : MIN_LEN;

    if (image->len <= setup)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the image (0x%" PRIx64 " bytes) ends before the kernel at 0x%" PRIx64,
                         image->len, setup);
    linux_->header_end = H_MAGIC + h[H_JUMP + 1];
    linux_->header_end = linux_->header_end < H_END ? linux_->header_end : H_END;
    if (linux_->header_end < want || linux_->header_end > setup)
        return boot_fail(error, VMM_E_FORMAT,
                         "the setup header ends at 0x%x, must end between 0x%x and 0x%" PRIx64,
                         linux_->header_end, want, setup);
    linux_->code = h + setup;
    linux_->code_len = image->len - setup;
    /* syssize counts paragraphs: the last one need not be whole. */
    if (syssize >= linux_->code_len + 16)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the kernel has 0x%" PRIx64 " bytes, but the image (0x%" PRIx64
                         " bytes) only 0x%" PRIx64 " of them",
                         syssize, image->len, linux_->code_len);
    if (syssize > 0 && syssize < linux_->code_len)
        linux_->code_len = syssize; /* what follows is a signature */
    return 0;
}

static int parse_alignment(const uint8_t *h, struct linux_image *linux_, struct boot_error *error)
{
    linux_->align = boot_get32(h + H_KERNEL_ALIGNMENT);
    if (!linux_->relocatable) {
        linux_->align = 1;
        return 0;
    }
    if (linux_->align == 0 || (linux_->align & (linux_->align - 1)) != 0)
        return boot_fail(error, VMM_E_FORMAT, "kernel alignment 0x%" PRIx64 " is no power of two",
                         linux_->align);
    if (linux_->version >= 0x20a && h[H_MIN_ALIGNMENT] > 31)
        return boot_fail(error, VMM_E_FORMAT, "minimum alignment 2^%u is not below 4 GiB",
                         h[H_MIN_ALIGNMENT]);
    return 0;
}

static int linux_parse(const struct vmm_image *image, struct linux_image *linux_,
                       struct boot_error *error)
{
    const uint8_t *h = image->data;
    int err = parse_magic(image, linux_, error);

    if (!err)
        err = parse_extent(image, linux_, error);
    if (err)
        return err;
    linux_->relocatable = h[H_RELOCATABLE] != 0;
    linux_->initrd_max = boot_get32(h + H_INITRD_ADDR_MAX);
    linux_->cmdline_max = boot_get32(h + H_CMDLINE_SIZE);
    linux_->pref_address = BOOT_1M;
    linux_->init_size = linux_->code_len * UNPACK_FACTOR;
    if (linux_->version >= 0x20a) {
        linux_->init_size = linux_->code_len;
        linux_->pref_address = boot_get64(h + H_PREF_ADDRESS);
        if (boot_get32(h + H_INIT_SIZE) > linux_->code_len)
            linux_->init_size = boot_get32(h + H_INIT_SIZE);
    }
    if (linux_->version >= 0x20c) {
        linux_->entry64 = (boot_get16(h + H_XLOADFLAGS) & XLF_KERNEL_64) != 0;
        linux_->above_4g = (boot_get16(h + H_XLOADFLAGS) & XLF_ABOVE_4G) != 0;
    }
    if (linux_->entry64 && linux_->code_len <= ENTRY64)
        return boot_fail(error, VMM_E_TRUNCATED,
                         "the kernel (0x%" PRIx64 " bytes) ends before its 64-bit entry at 0x200",
                         linux_->code_len);
    return parse_alignment(h, linux_, error);
}

/* ---- placement ---- */

/* The preferred address if it is free. A relocatable kernel may go higher, not lower: it would
 * move itself up to the preferred address and over whatever is there. */
static int place_kernel(struct boot_mem *mem, const struct linux_image *linux_,
                        struct linux_placed *placed)
{
    placed->code = linux_->pref_address;
    if (placed->code < BOOT_4G && placed->code >= BOOT_1M &&
        boot_mem_is_free(mem, placed->code, linux_->init_size))
        return boot_mem_claim(mem, placed->code, linux_->init_size, "kernel");
    if (!linux_->relocatable || placed->code < BOOT_1M)
        return boot_fail(mem->error, VMM_E_NOSPACE,
                         "the kernel needs 0x%" PRIx64 " bytes of RAM at 0x%" PRIx64
                         " and is not relocatable there",
                         linux_->init_size, linux_->pref_address);
    return boot_mem_place_low(mem, linux_->init_size, linux_->align, linux_->pref_address, BOOT_4G,
                              "kernel", &placed->code);
}

/* Initrds follow one another, each at a multiple of 4 bytes (cpio archives may be concatenated). */
static int initrd_len(struct boot *boot, uint64_t *len)
{
    *len = 0;
    for (uint32_t i = 0; i < boot->nmodules; i++) {
        uint64_t start = (*len + 3) & ~3ull;

        if (start < *len || __builtin_add_overflow(start, boot->modules[i].len, len))
            return boot_fail(&boot->error, VMM_E_NOSPACE, "the initrds are larger than memory");
    }
    return 0;
}

static int write_initrd(struct boot *boot, const struct linux_placed *placed)
{
    static const uint8_t pad[4];
    uint64_t at = 0;
    int err = 0;

    for (uint32_t i = 0; !err && i < boot->nmodules; i++) {
        uint64_t start = (at + 3) & ~3ull;

        err = boot_mem_write(&boot->mem, placed->initrd + at, pad, start - at);
        if (!err)
            err = boot_mem_write(&boot->mem, placed->initrd + start, boot->modules[i].data,
                                 boot->modules[i].len);
        at = start + boot->modules[i].len;
    }
    return err;
}

static int place_initrd(struct boot *boot, const struct linux_image *linux_,
                        struct linux_placed *placed)
{
    uint64_t max = linux_->initrd_max + 1;
    int err = initrd_len(boot, &placed->initrd_len);

    if (err || placed->initrd_len == 0)
        return err;
    max = max < BOOT_4G ? max : BOOT_4G;
    err = boot_mem_place_high(&boot->mem, placed->initrd_len, BOOT_PAGE, BOOT_1M, max, "initrd",
                              &placed->initrd);
    if (err && linux_->above_4g &&
        boot_mem_place_high(&boot->mem, placed->initrd_len, BOOT_PAGE, BOOT_1M, UINT64_MAX,
                            "initrd", &placed->initrd) == 0)
        err = 0;
    return err ? err : write_initrd(boot, placed);
}

/* ---- boot parameters ---- */

static int put_e820(struct boot *boot, uint8_t *params)
{
    struct boot_e820 map[P_E820_MAX];
    uint32_t n = 0;
    int err = boot_mem_e820(&boot->mem, map, P_E820_MAX, &n);

    for (uint32_t i = 0; !err && i < n; i++) {
        uint8_t *entry = params + P_E820_TABLE + 20 * i;

        boot_put64(entry, map[i].addr);
        boot_put64(entry + 8, map[i].len);
        boot_put32(entry + 16, map[i].type);
    }
    params[P_E820_ENTRIES] = (uint8_t)n;
    return err;
}

static int write_params(struct boot *boot, const struct linux_image *linux_,
                        const struct linux_placed *placed)
{
    uint8_t params[P_SIZE] = {0};
    const uint8_t *h = boot->kernel->data;
    int err;

    memcpy(params + H_SETUP_SECTS, h + H_SETUP_SECTS, linux_->header_end - H_SETUP_SECTS);
    boot_put16(params + H_VID_MODE, VID_MODE_NORMAL);
    params[H_TYPE_OF_LOADER] = 0xff; /* no assigned id */
    boot_put32(params + H_CODE32_START, (uint32_t)placed->code);
    boot_put32(params + H_RAMDISK_IMAGE, (uint32_t)placed->initrd);
    boot_put32(params + H_RAMDISK_SIZE, (uint32_t)placed->initrd_len);
    boot_put32(params + P_EXT_RAMDISK_IMAGE, (uint32_t)(placed->initrd >> 32));
    boot_put32(params + P_EXT_RAMDISK_SIZE, (uint32_t)(placed->initrd_len >> 32));
    boot_put32(params + H_CMD_LINE_PTR, (uint32_t)placed->cmdline);
    if (linux_->version >= 0x209)
        boot_put64(params + H_SETUP_DATA, 0);
    if (linux_->version >= 0x20e)
        boot_put64(params + P_ACPI_RSDP, boot->rsdp);
    err = put_e820(boot, params);
    return err ? err : boot_mem_write(&boot->mem, placed->params, params, sizeof(params));
}

static int check_cmdline(struct boot *boot, const struct linux_image *linux_)
{
    size_t len = strlen(boot->cmdline);

    if (len > linux_->cmdline_max)
        return boot_fail(&boot->error, VMM_E_LIMIT,
                         "the command line has %zu bytes, the kernel takes at most %" PRIu64, len,
                         linux_->cmdline_max);
    return 0;
}

int boot_linux(struct boot *boot)
{
    struct linux_image linux_ = {0};
    struct linux_placed placed = {0};
    struct boot_mem *mem = &boot->mem;
    int err = linux_parse(boot->kernel, &linux_, &boot->error);

    if (!err)
        err = check_cmdline(boot, &linux_);
    if (!err)
        err = place_kernel(mem, &linux_, &placed);
    if (!err)
        err = boot_tables(boot);
    if (!err)
        err = boot_mem_place_data(mem, P_SIZE, BOOT_PAGE, "boot parameters", &placed.params);
    if (!err)
        err = boot_mem_string(mem, boot->cmdline, "command line", &placed.cmdline);
    if (!err)
        err = boot_mem_write(mem, placed.code, linux_.code, linux_.code_len);
    if (!err)
        err = place_initrd(boot, &linux_, &placed);
    if (!err)
        err = write_params(boot, &linux_, &placed);
    if (err)
        return err;
    return boot_enter(boot,
                      &(struct boot_entry){.long_mode = linux_.entry64,
                                           .rip = placed.code + (linux_.entry64 ? ENTRY64 : 0),
                                           .rsi = placed.params});
}
