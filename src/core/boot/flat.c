/* SPDX-License-Identifier: BSD-2-Clause */
/* flat.c: raw code in real mode, as a boot sector is started. */
#include "core/boot/boot.h"

#include <inttypes.h>

#define FLAT_DEFAULT 0x7c00ull
#define STACK_ROOM   0x400ull
#define STACK_LOWEST 0x800ull /* above vectors and BIOS data area */
#define BOOT_DRIVE   0x80u

/* A stack of at least 1 KiB in segment 0 that does not touch the image: below 0x7c00 as after a
 * BIOS, else below the image, else at the top of the segment, else above the image in its own. */
static int choose_stack(struct boot *boot, uint64_t start, uint64_t end, uint64_t *ss, uint64_t *sp)
{
    *ss = 0;
    if (end + STACK_ROOM <= FLAT_DEFAULT || start >= FLAT_DEFAULT)
        *sp = FLAT_DEFAULT;
    else if (start >= STACK_LOWEST + STACK_ROOM)
        *sp = start & ~15ull;
    else if (end + STACK_ROOM <= 0xfff0)
        *sp = 0xfff0;
    else if (end + 15 + STACK_ROOM <= BOOT_LOW_RAM_END) {
        *ss = (end + 15) >> 4;
        *sp = STACK_ROOM;
    } else
        return boot_fail(&boot->error, VMM_E_NOSPACE,
                         "the flat image at 0x%" PRIx64 "-0x%" PRIx64
                         " leaves no room for a stack below 640 KiB",
                         start, end);
    return 0;
}

static int check_request(struct boot *boot, uint64_t start)
{
    if (boot->nmodules > 0 || boot->cmdline[0] != '\0')
        return boot_fail(&boot->error, VMM_E_UNSUPPORTED,
                         "a flat image takes neither modules nor a command line");
    if (start >= BOOT_1M)
        return boot_fail(&boot->error, VMM_E_RANGE,
                         "load address 0x%" PRIx64 " is not below 1 MiB, where real mode can start",
                         start);
    return 0;
}

static int set_regs(struct boot *boot, uint64_t start, uint64_t ss, uint64_t sp)
{
    uint64_t segment = start < 0x10000 ? 0 : start >> 4;
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = VMM_SETUP_REAL, .rip = start - (segment << 4), .rsp = sp};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR | VMM_REGS_SEG};
    int err = vcpu_set_mode(boot->vcpu, &setup);

    if (!err)
        err = vcpu_get_regs(boot->vcpu, &regs);
    if (!err) {
        regs.rip = setup.rip;
        regs.gpr[VMM_RDX] = BOOT_DRIVE;
        regs.seg[VMM_CS].selector = (uint16_t)segment;
        regs.seg[VMM_CS].base = segment << 4;
        regs.seg[VMM_SS].selector = (uint16_t)ss;
        regs.seg[VMM_SS].base = ss << 4;
        err = vcpu_set_regs(boot->vcpu, &regs);
    }
    return err ? boot_fail(&boot->error, err, "the real-mode state was refused: %s",
                           vmm_strerror(err))
               : 0;
}

int boot_flat(struct boot *boot)
{
    uint64_t start = boot->load_addr ? boot->load_addr : FLAT_DEFAULT;
    uint64_t ss = 0, sp = 0;
    int err = check_request(boot, start);

    if (!err)
        err = boot_mem_claim(&boot->mem, start, boot->kernel->len, "flat image");
    if (!err)
        err = choose_stack(boot, start, start + boot->kernel->len, &ss, &sp);
    if (!err)
        err = boot_mem_write(&boot->mem, start, boot->kernel->data, boot->kernel->len);
    if (!err)
        err = boot_tables(boot);
    return err ? err : set_regs(boot, start, ss, sp);
}
