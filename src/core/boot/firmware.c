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

/* Claims nothing: the ROM lies outside the memory that was there before. */
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

static uint64_t legacy_len(const struct boot *boot)
{
    return boot->kernel->len < LEGACY_MAX ? boot->kernel->len : LEGACY_MAX;
}

/* The legacy range is RAM that holds a copy, as after a chipset has shadowed the ROM: firmware
 * that relocates itself there (SeaBIOS) writes to it. */
static int copy_legacy(struct boot *boot)
{
    uint64_t len = legacy_len(boot);
    const uint8_t *bytes = boot->kernel->data;

    return boot_mem_write(&boot->mem, BOOT_1M - len, bytes + boot->kernel->len - len, len);
}

/* ---- the CPU ---- */

#define RESET_IP     0xfff0u
#define RESET_CS     0xf000u
#define RESET_BASE   0xffff0000u
#define RESET_CR0    0x60000010u
#define CR0_PE       1u
#define CPU_FAMILY_6 0x600u

static bool is_reset(const struct vcpu_regs *regs)
{
    return regs->rip == RESET_IP && regs->seg[VMM_CS].base == RESET_BASE && !(regs->cr0 & CR0_PE);
}

/* The first instruction is at 0xfffffff0 (SDM Vol. 3A 10.1.4). A vCPU that comes from reset has
 * that state already, and its processor signature in EDX. */
static int set_reset_state(struct boot *boot)
{
    struct vcpu_setup setup = {.size = sizeof(setup), .mode = VMM_SETUP_REAL, .rip = RESET_IP};
    struct vcpu_regs regs = {.size = sizeof(regs),
                             .groups =
                                 VMM_REGS_GPR | VMM_REGS_SEG | VMM_REGS_DT | VMM_REGS_CONTROL};
    int err = vcpu_get_regs(boot->vcpu, &regs);

    if (!err && is_reset(&regs))
        return 0;
    if (!err)
        err = vcpu_set_mode(boot->vcpu, &setup);
    if (!err)
        err = vcpu_get_regs(boot->vcpu, &regs);
    if (!err) {
        regs.gpr[VMM_RDX] = CPU_FAMILY_6;
        regs.seg[VMM_CS].selector = RESET_CS;
        regs.seg[VMM_CS].base = RESET_BASE;
        regs.gdt.limit = regs.idt.limit = 0xffff;
        regs.cr0 = RESET_CR0;
        err = vcpu_set_regs(boot->vcpu, &regs);
    }
    return err ? boot_fail(&boot->error, err, "the reset state was refused: %s", vmm_strerror(err))
               : 0;
}

int boot_firmware(struct boot *boot)
{
    uint64_t legacy = legacy_len(boot);
    int err = check_image(boot);

    if (!err)
        err = boot_mem_claim(&boot->mem, BOOT_1M - legacy, legacy, "firmware below 1 MiB");
    if (!err)
        err = map_rom(boot);
    if (!err)
        err = copy_legacy(boot);
    if (!err && boot->pc && boot->pc->fw_cfg)
        err = boot_tables_fw_cfg(boot);
    return err ? err : set_reset_state(boot);
}
