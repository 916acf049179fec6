/* SPDX-License-Identifier: BSD-2-Clause */
/* memory.S: what a host program brings for the library besides vmm/host.h: four functions on
 * memory. */
	.text
	.globl	memcpy, memmove, memset, memcmp
memcpy:	movq	%rdi, %rax
1:	movq	%rdx, %rcx
	shrq	$3, %rcx
	rep movsq
	movl	%edx, %ecx
	andl	$7, %ecx
	rep movsb
	ret

memmove:
	movq	%rdi, %rax
	movq	%rdx, %rcx
	movq	%rdi, %r8
	subq	%rsi, %r8
	cmpq	%rdx, %r8
	jae	1b
	std
	leaq	-1(%rdi,%rdx), %rdi
	leaq	-1(%rsi,%rdx), %rsi
	rep movsb
	cld
	ret

memset:	movq	%rdi, %r8
	movzbl	%sil, %eax
	movabsq	$0x0101010101010101, %rcx
	imulq	%rcx, %rax
	movq	%rdx, %rcx
	shrq	$3, %rcx
	rep stosq
	movl	%edx, %ecx
	andl	$7, %ecx
	rep stosb
	movq	%r8, %rax
	ret

memcmp:	xorl	%eax, %eax
	movq	%rdx, %rcx
	testq	%rcx, %rcx
	jz	1f
	repe cmpsb
	movzbl	-1(%rdi), %eax
	movzbl	-1(%rsi), %ecx
	subl	%ecx, %eax
1:	ret

	.section .note.GNU-stack, "", @progbits
