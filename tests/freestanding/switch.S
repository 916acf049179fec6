/* SPDX-License-Identifier: BSD-2-Clause */
/* switch.S: from one thread to another, and the first steps of other CPUs. */
	.text
	.globl	thread_switch, thread_begin, ap_code, ap_code_end
/* void thread_switch(struct thread *from, struct thread *to): RSP is at 0 of both. */
thread_switch:
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, (%rdi)
	movq	(%rsi), %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	ret
thread_begin:
	call	thread_main

/* At 0x8000, in real mode. */
	.code16
ap_code:
	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	lgdtl	0x8000 + ap_gdt_pointer - ap_code
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$0x18, $ap_protected
	.balign	8
ap_gdt:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
ap_gdt_pointer:
	.word	. - ap_gdt - 1
	.long	0x8000 + ap_gdt - ap_code
ap_code_end:

	.code32
ap_protected:
	movl	$0x10, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$0x620, %eax
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x900, %eax
	wrmsr
	movl	$0x80010033, %eax
	movl	%eax, %cr0
	ljmp	$0x08, $ap_long

	.code64
ap_long:
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	movq	ap_stack, %rsp
	andq	$-16, %rsp
	call	ap_main

	.bss
	.globl	ap_stack
	.balign	8
ap_stack:
	.skip	8

	.section .note.GNU-stack, "", @progbits
