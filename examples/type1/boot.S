/* SPDX-License-Identifier: BSD-2-Clause */
/* boot.S: from a boot loader (Multiboot 1) or the reset stub to long mode, and exception entries. */
#define MAGIC 0x1badb002
#define FLAGS 0x00010003	/* modules aligned, memory information, addresses below */

	.section .boot, "ax"
	.code32
header:	.long	MAGIC, FLAGS, -(MAGIC + FLAGS)
	.long	header, 0x100000, image_end, bss_end, entry

	.globl	entry
entry:	cli
	cld
	movl	%ebx, %esi		/* boot information */
	movl	$image_end, %edi
	movl	$bss_end, %ecx
	subl	%edi, %ecx
	xorl	%eax, %eax
	rep stosb
	movl	$stack_end, %esp

	/* The first 4 GiB at themselves, in pages of 2 MiB. */
	movl	$pdpt + 3, pml4
	xorl	%ecx, %ecx
1:	movl	%ecx, %eax
	shll	$12, %eax
	addl	$pd + 3, %eax
	movl	%eax, pdpt(, %ecx, 8)
	incl	%ecx
	cmpl	$4, %ecx
	jb	1b
	xorl	%ecx, %ecx
2:	movl	%ecx, %eax
	shll	$21, %eax
	orl	$0x83, %eax
	movl	%eax, pd(, %ecx, 8)
	incl	%ecx
	cmpl	$2048, %ecx
	jb	2b
	movl	$pml4, %eax
	movl	%eax, %cr3

	movl	%cr4, %eax
	orl	$0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER: LME, NXE */
	rdmsr
	orl	$0x900, %eax
	wrmsr
	movl	$0x80010033, %eax	/* PG, WP, NE, ET, MP, PE; caches on */
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$0x08, $long_mode

	.code64
long_mode:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	leaq	tss(%rip), %rax		/* its address goes into its descriptor */
	movw	%ax, gdt + 0x1a
	shrq	$16, %rax
	movb	%al, gdt + 0x1c
	movb	%ah, gdt + 0x1f
	movl	$0x18, %eax
	ltr	%ax
	movl	%esi, %edi
	xorl	%ebp, %ebp
	call	host_main
3:	hlt
	jmp	3b

	.text
/* Entries of the first 32 vectors and of interrupts: number and error code on the stack. */
	.altmacro
	.macro	vector number
	.balign	16
	.if	(\number == 8) || (\number >= 10 && \number <= 14) || (\number == 17) || (\number == 21)
	.else
	pushq	$0
	.endif
	pushq	$\number
	jmp	common
	.endm

	.balign	16
	.globl	vectors
vectors:
	.set	n, 0
	.rept	256
	vector	%n
	.set	n, n + 1
	.endr

common:	.irp	reg, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
	pushq	%\reg
	.endr
	movq	%rsp, %rdi
	cld
	call	host_exception
	.irp	reg, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
	popq	%\reg
	.endr
	addq	$16, %rsp
	iretq

/* int host_msr_read(index, value *), int host_msr_write(index, value): not 0 if they have faulted. */
	.globl	host_msr_read, host_msr_write, host_rdmsr, host_wrmsr, host_msr_fault
host_msr_read:
	movl	%edi, %ecx
host_rdmsr:
	rdmsr
	shlq	$32, %rdx
	orq	%rdx, %rax
	movq	%rax, (%rsi)
	xorl	%eax, %eax
	ret
host_msr_write:
	movl	%edi, %ecx
	movl	%esi, %eax
	movq	%rsi, %rdx
	shrq	$32, %rdx
host_wrmsr:
	wrmsr
	xorl	%eax, %eax
	ret
host_msr_fault:				/* #GP in one of the two leads here */
	movl	$1, %eax
	ret

	.data
	.balign	8
gdt:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
	.quad	0x0000890000000067, 0	/* TSS at 0x18: VMX wants one */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.balign	4096
	.globl	pml4
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	4 * 4096
stack:	.skip	65536
stack_end:
tss:	.skip	104

	.section .note.GNU-stack, "", @progbits
