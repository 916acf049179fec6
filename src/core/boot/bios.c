/* SPDX-License-Identifier: BSD-2-Clause */
/* bios.c: what is left of a BIOS: vectors that refuse services, and a reset entry. */
#include "core/boot/boot.h"

/*
 * Kernels drop to real mode to ask for a memory map or for disks (Xen when it starts, Linux for
 * reboot=bios) and expect that a service that is not there says so. Without vectors they would run
 * into whatever lies at address 0.
 */

#define SEGMENT    0xf000u
#define SEGMENT_AT 0xf0000ull
#define RESET_AT   0xffff0ull /* the reset vector, as real mode sees it */
#define RESET_LEN  16u
#define MODEL      0xfcu /* of an AT: the last byte but one */
#define N_VECTORS  256u
#define INT_FIRST  0x10u /* services: 10H (video) to 1AH (clock), ... */
#define INT_LAST   0x1au
#define INT_MEMORY 0x12u /* ... one of which needs no device */

/* Offsets in the code. */
#define AT_IGNORE 0x00u
#define AT_REFUSE 0x01u
#define AT_MEMORY 0x0cu
#define AT_RESET  0x17u

static const uint8_t code[] = {
    /* ignore: exceptions, interrupts and callbacks */
    0xcf, /* iret */
    /* refuse: carry in the flags on the stack, AH = 86H */
    0x55,                   /* push bp */
    0x89, 0xe5,             /* mov bp, sp */
    0x80, 0x4e, 0x06, 0x01, /* or byte [bp+6], 1 */
    0x5d,                   /* pop bp */
    0xb4, 0x86,             /* mov ah, 86h */
    0xcf,                   /* iret */
    /* memory: AX = KiB of conventional memory, from the BIOS data area */
    0x1e,             /* push ds */
    0xb8, 0x40, 0x00, /* mov ax, 40h */
    0x8e, 0xd8,       /* mov ds, ax */
    0xa1, 0x13, 0x00, /* mov ax, [13h] */
    0x1f,             /* pop ds */
    0xcf,             /* iret */
    /* reset: the reset register, and if there is none, the keyboard controller */
    0xba, 0xf9, 0x0c, /* mov dx, 0cf9h */
    0xb0, 0x06,       /* mov al, 6 */
    0xee,             /* out dx, al */
    0xb0, 0xfe,       /* mov al, 0feh */
    0xe6, 0x64,       /* out 64h, al */
    0xf4,             /* halt: hlt */
    0xeb, 0xfd,       /* jmp halt */
};

static int write_vectors(struct boot *boot, uint64_t stub)
{
    uint8_t table[4 * N_VECTORS];
    int err = boot_mem_claim(&boot->mem, 0, sizeof(table), "interrupt vectors");

    for (uint32_t i = 0; i < N_VECTORS; i++) {
        uint32_t at = i < INT_FIRST || i > INT_LAST ? AT_IGNORE : AT_REFUSE;

        boot_put16(table + 4 * i,
                   (uint16_t)(stub - SEGMENT_AT + (i == INT_MEMORY ? AT_MEMORY : at)));
        boot_put16(table + 4 * i + 2, SEGMENT);
    }
    return err ? err : boot_mem_write(&boot->mem, 0, table, sizeof(table));
}

static int write_reset(struct boot *boot, uint64_t stub)
{
    uint8_t entry[RESET_LEN] = {0xea}; /* jmp far */
    int err = boot_mem_claim(&boot->mem, RESET_AT, sizeof(entry), "reset vector");

    boot_put16(entry + 1, (uint16_t)(stub - SEGMENT_AT + AT_RESET));
    boot_put16(entry + 3, SEGMENT);
    entry[RESET_LEN - 2] = MODEL;
    return err ? err : boot_mem_write(&boot->mem, RESET_AT, entry, sizeof(entry));
}

int boot_bios(struct boot *boot)
{
    uint64_t stub = RESET_AT - sizeof(code);
    int err;

    /* Whoever loads an image over these places does without. */
    if (!boot_mem_is_free(&boot->mem, 0, 4 * N_VECTORS) ||
        !boot_mem_is_free(&boot->mem, stub, sizeof(code) + RESET_LEN))
        return 0;
    err = boot_mem_claim(&boot->mem, stub, sizeof(code), "BIOS stub");
    if (!err)
        err = boot_mem_write(&boot->mem, stub, code, sizeof(code));
    if (!err)
        err = write_vectors(boot, stub);
    return err ? err : write_reset(boot, stub);
}
