/* SPDX-License-Identifier: BSD-2-Clause */
/* direct_layout.h: memory and system calls of the guest whose programs are executed directly, for C
 * and assembly. */
#ifndef DIRECT_LAYOUT_H
#define DIRECT_LAYOUT_H

/*
 * The kernel's descriptors, selectors and control registers are Linux's. All that it is entered by
 * (exceptions, INT n, SYSCALL) is written down with all registers and the page table of the data,
 * so that two runs are equal if memory is at the end.
 *
 * After a fault the program goes on at R15 (which then is 0), after a trap behind the instruction,
 * after the fourth #DB without TF. SYSCALL: RAX is one of OP_*, RDI, RSI and RDX are its arguments.
 * A program begins with R12 = DATA, R13 = the kernel's address of the data's page table.
 */
#define APIC 0xffff8880fee00000
#define IRQS                                                                                       \
    0xe0 /* from this vector on: counted in the first word of the data, not written down           \
          */
#define K       0xffff888000000000 /* the kernel's address of physical memory */
#define RAM     0x400000
#define PML4_A  0x1000
#define PML4_B  0x2000 /* the same, but for the data */
#define GDT     0x3000
#define IDT     0x4000
#define TSS     0x5000
#define KSTACK  0x7000 /* its end */
#define PT_DATA 0x8000
#define PT_B    0x9000
#define PT_CODE 0xa000
#define TABLES  0x10000 /* more of them */
#define KERNEL  0x100000
#define CODE    0x140000 /* the program */
#define PAGES   0x180000 /* of the data, and behind them those of address space B */
#define STACK   0x1f0000
#define LOG     0x200000
#define RECORD  4096
#define RECORDS 400

#define DATA       0x10000000
#define USER_STACK 0x7ffe00010000 /* its end */
#define DEVICE     0xd0000000     /* guest-physical */
#define CODE_PAGES 3

/* Pages of the data that are not like the others: read-only, supervisor's, missing, a device, not
 * executable; page 15 is missing, too. */
#define D_RO      8
#define D_KERNEL  9
#define D_MISSING 10
#define D_DEVICE  13
#define D_NX      12

#define OP_END     0
#define OP_INVLPG  1 /* address */
#define OP_CR3     2 /* value */
#define OP_INVPCID 3 /* type, PCID, address */
#define OP_WRMSR   4 /* number, value */
#define OP_STORE   5 /* the kernel's address, value */
#define OP_HOST    6 /* what, for the program's `host` */
#define OP_LOG     7
#define OP_FLAGS   8  /* to be set; returns by IRET */
#define OP_FIX     9  /* at the next #PF: address, value, 1 for INVLPG; then it is tried again */
#define OP_DEBUG   10 /* DR0, DR7 */
#define OP_CR4     11 /* bits to be changed */
#define OP_APIC    13 /* offset of a register, value */
#define OP_RAW     12 /* address, value: 8 bytes at a user address, by the kernel */

/* Ports. */
#define PORT_END  0x99
#define PORT_HOST 0x98
#define PORT_FULL 0x97

#endif
