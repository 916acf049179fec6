/* SPDX-License-Identifier: BSD-2-Clause */
/* rom.S: the last 4 KiB below 4 GiB: from reset to the image, which lies in the ROM in front of it. */
	.code16
	.text
base:	cli
	cld
	lgdtl	%cs:(pointer - base + 0xf000)
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$0x08, $protected
	.balign	8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
pointer:
	.word	. - gdt - 1
	.long	gdt

	.code32
protected:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	source, %esi
	movl	length, %ecx
	movl	$0x100000, %edi
	rep movsb
	/* Boot information: KiB above 1 MiB, by the CMOS (64 KiB units above 16 MiB). */
	movb	$0x35, %al
	outb	%al, $0x70
	inb	$0x71, %al
	movb	%al, %bh
	movb	$0x34, %al
	outb	%al, $0x70
	inb	$0x71, %al
	movb	%al, %bl
	movzwl	%bx, %ebx
	shll	$6, %ebx
	addl	$15 * 1024, %ebx
	movl	$5, 0x500		/* memory and a command line */
	movl	$640, 0x504
	movl	%ebx, 0x508
	movl	$0xfffffe00, 0x510
	movl	$0x500, %ebx
	movl	$0x2badb002, %eax
	jmp	*0x10001c		/* the entry in the Multiboot header */

	.org	0xe00
command:				/* filled in by who runs the ROM */
	.org	0xfe0
source:	.long	0			/* both filled in by mkrom.py */
length:	.long	0
	.org	0xff0
	.code16
	jmp	base
	.org	0x1000
