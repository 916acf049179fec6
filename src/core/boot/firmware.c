/* SPDX-License-Identifier: BSD-2-Clause */
/* firmware.c: a PC firmware image: ROM that ends at 4 GiB, and its end below 1 MiB. */
#include "core/boot/boot.h"

#include <inttypes.h>
#include <string.h>

#define ROM_MIN    0x10000ull
#define ROM_MAX    0x1000000ull
#define LEGACY_MAX 0x20000ull /* 0xe0000-0xfffff */

static int check_image(struct boot *boot)
{
    uint64_t len = boot->kernel->len;

    if (boot->nmodules > 0 || boot->cmdline[0] != '\0')
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED,
                         "firmware takes neither modules nor a command line");
    if (len < ROM_MIN || len > ROM_MAX || len % BOOT_PAGE != 0)
        return boot_fail(&boot->error, VMM_E_FORMAT,
                         "firmware has 0x%" PRIx64
                         " bytes, must be a multiple of 4 KiB from 64 KiB to 16 MiB",
                         len);
    return 0;
}

/* Whether an earlier boot of this VM left a region of exactly this shape. */
static bool have_rom(struct vm *vm, uint64_t gpa, uint64_t len)
{
    uint64_t at = 0, size = 0;
    uint32_t prot = 0;

    for (uint32_t i = 0; vm_mem_region(vm, i, &at, &size, &prot) == 0; i++)
        if (at == gpa && size == len && prot == VMM_MEM_RX)
            return true;
    return false;
}

static int map_rom(struct boot *boot)
{
    uint64_t len = boot->kernel->len, gpa = BOOT_4G - len;
    int err = 0;

    if (!have_rom(boot->vm, gpa, len))
        err = vm_mem_alloc(boot->vm, gpa, len, VMM_MEM_RX, NULL);
    if (err)
        return boot_fail(&boot->error, err,
                         "cannot map the firmware at 0x%" PRIx64 "+0x%" PRIx64 ": %s", gpa, len,
                         vmm_strerror(err));
    return boot_mem_write(&boot->mem, gpa, boot->kernel->data, len);
}

/* The legacy range is RAM that holds a copy, as after a chipset has shadowed the ROM: firmware
 * that relocates itself there (SeaBIOS) writes to it. */
static int copy_legacy(struct boot *boot)
{
    uint64_t len = boot->kernel->len < LEGACY_MAX ? boot->kernel->len : LEGACY_MAX;
    const uint8_t *bytes = boot->kernel->data;
    int err = boot_mem_claim(&boot->mem, BOOT_1M - len, len, "firmware below 1 MiB");

    return err ? err
               : boot_mem_write(&boot->mem, BOOT_1M - len, bytes + boot->kernel->len - len, len);
}

/* The vCPU stays in its reset state, whose first instruction is at 0xfffffff0. */
int boot_firmware(struct boot *boot)
{
    int err = check_image(boot);

    if (!err)
        err = copy_legacy(boot);
    if (!err)
        err = map_rom(boot);
    if (!err && boot->pc && boot->pc->fw_cfg)
        err = boot_tables_fw_cfg(boot);
    return err;
}
