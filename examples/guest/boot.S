/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * boot.S: the guest's way from its loader to C: 32-bit entry, long mode, interrupt stubs, and the
 * trampoline of the other processors. Assembled twice: with a PVH note (ELF64), and with
 * -DMULTIBOOT for a Multiboot header (turned into an ELF32 file).
 */
#define TRAMPOLINE 0x8000
#define STACK_SIZE 16384
#define MAX_CPUS 64

#ifdef MULTIBOOT
/* Multiboot 0.6.96, 3.1: magic, flags (bit 0: page-aligned modules, bit 1: memory map), checksum */
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)
#else
/* XEN_ELFNOTE_PHYS32_ENTRY: type 18, the 32-bit entry point */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long entry
#endif

    .bss
    .balign 4096
tables: /* PML4, page-directory pointers, four page directories: the first 4 GiB as they are */
    .skip 6 * 4096
    .global stacks
stacks:
    .skip MAX_CPUS * STACK_SIZE

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 0x08: 64-bit code */
    .quad 0x00cf93000000ffff /* 0x10: data */
gdtr:
    .word . - gdt - 1
    .quad gdt
    .global next_cpu
next_cpu: /* how many processors have taken a stack */
    .long 1

/* Protected mode, paging off; %eax: Multiboot's magic or anything, %ebx: boot information. */
    .text
    .code32
    .global entry
entry:
    cli
    cld
    mov %eax, %esi
    movl $tables + 4096 + 3, tables
    mov $4, %ecx
1:  lea -1(%ecx), %eax
    mov %eax, %edi
    shl $12, %eax
    add $tables + 2 * 4096 + 3, %eax
    mov %eax, tables + 4096(, %edi, 8)
    loop 1b
    mov $2048, %ecx
2:  lea -1(%ecx), %eax
    mov %eax, %edi
    shl $21, %eax
    or $0x83, %eax /* present, writable, 2 MiB */
    mov %eax, tables + 2 * 4096(, %edi, 8)
    loop 2b
    mov %cr4, %eax
    or $0x20, %eax /* PAE */
    mov %eax, %cr4
    mov $tables, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx /* EFER.LME */
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80010001, %eax /* PG, WP, PE */
    mov %eax, %cr0
    lgdt gdtr
    ljmp $0x08, $long_mode

    .code64
long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stacks + STACK_SIZE, %rsp
    xor %ebp, %ebp
    mov %esi, %edi
    mov %ebx, %esi
    call guest_main
3:  cli
    hlt
    jmp 3b

/* Copied to TRAMPOLINE: where a start-up interrupt puts the other processors, in real mode. */
    .code16
    .global trampoline, trampoline_end
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl TRAMPOLINE + trampoline_gdtr - trampoline
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $tables, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    and $~0x60000000, %eax /* CD and NW are set after INIT */
    or $0x80010001, %eax
    mov %eax, %cr0
    ljmpl $0x08, $cpu_long_mode
trampoline_gdtr:
    .word 23
    .long gdt
trampoline_end:

    .code64
cpu_long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %eax
    lock xadd %eax, next_cpu
    cmp $MAX_CPUS, %eax
    jae 4f
    inc %eax
    imul $STACK_SIZE, %rax, %rax
    lea stacks(%rax), %rsp
    xor %ebp, %ebp
    call cpu_main
4:  cli
    hlt
    jmp 4b

/* One stub per vector: error code (0 where the processor pushes none), vector, registers. */
    .altmacro
    .macro stub n
    .balign 16
    .if (\n != 8) && (\n != 10) && (\n != 11) && (\n != 12) && (\n != 13) && (\n != 14) && (\n != 17)
    push $0
    .endif
    push $\n
    jmp common
    .endm
    .balign 16
    .global stubs
stubs:
    .set vector, 0
    .rept 48
    stub %vector
    .set vector, vector + 1
    .endr

common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call interrupt
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    add $16, %rsp
    iretq

    .section .note.GNU-stack, "", @progbits
