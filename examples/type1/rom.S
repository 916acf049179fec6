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
	movl	$0x7000, %esp
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
	call	modules
	movl	$0x500, %ebx
	movl	$0x2badb002, %eax
	jmp	*0x10001c		/* the entry in the Multiboot header */

/* A disk may hold modules (mkdisk.py): 0x600 gets its first sector, 0x800 their list, and they lie
 * from 32 MiB on, each on a page of its own. */
modules:
	movw	$0x1f7, %dx
	inb	%dx, %al
	incb	%al			/* all ones: there is no controller */
	jz	3f
	movl	$0x600, %edi
	xorl	%ebx, %ebx
	call	sector
	cmpl	$0x446d6d76, 0x600	/* "vmmD" */
	jne	3f
	movl	0x604, %eax
	movl	%eax, 0x514
	movl	$0x800, 0x518
	orl	$8, 0x500
	movl	$0x608, %esi		/* sector, bytes, name */
	movl	$0x800, %ebp
	movl	$0x2000000, %edi
1:	movl	%edi, (%ebp)
	movl	0(%esi), %ebx
	movl	4(%esi), %eax
	addl	%edi, %eax
	movl	%eax, 4(%ebp)
	leal	8(%esi), %eax
	movl	%eax, 8(%ebp)
2:	call	sector
	cmpl	4(%ebp), %edi
	jb	2b
	addl	$4095, %edi
	andl	$-4096, %edi
	addl	$32, %esi
	addl	$16, %ebp
	decl	0x604
	jnz	1b
3:	ret

/* Reads sector EBX to EDI; both go on. */
sector:
	movw	$0x1f2, %dx
	movb	$1, %al
	outb	%al, %dx
	incw	%dx
	movb	%bl, %al
	outb	%al, %dx
	incw	%dx
	movb	%bh, %al
	outb	%al, %dx
	incw	%dx
	movl	%ebx, %eax
	shrl	$16, %eax
	outb	%al, %dx
	incw	%dx
	movb	%ah, %al
	orb	$0xe0, %al
	outb	%al, %dx
	incw	%dx
	movb	$0x20, %al
	outb	%al, %dx
1:	inb	%dx, %al
	testb	$0x80, %al
	jnz	1b
	testb	$0x08, %al
	jz	1b
	movw	$0x1f0, %dx
	movl	$256, %ecx
	rep insw
	incl	%ebx
	ret

	.org	0xe00
command:				/* filled in by who runs the ROM */
	.org	0xfe0
source:	.long	0			/* both filled in by mkrom.py */
length:	.long	0
	.org	0xff0
	.code16
	jmp	base
	.org	0x1000
