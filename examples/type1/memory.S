/* SPDX-License-Identifier: BSD-2-Clause */
/* memory.S: what a host program brings for the library besides vmm/host.h: four functions on
 * memory. */
	.text
	.globl	memcpy, memmove, memset, memcmp
memcpy:	movq	%rdi, %rax
	movq	%rdx, %rcx
	rep movsb
	ret

memmove:
	movq	%rdi, %rax
	movq	%rdx, %rcx
	movq	%rdi, %r8
	subq	%rsi, %r8
	cmpq	%rdx, %r8
	jae	1f
	std
	leaq	-1(%rdi,%rdx), %rdi
	leaq	-1(%rsi,%rdx), %rsi
	rep movsb
	cld
	ret
1:	rep movsb
	ret

memset:	movq	%rdi, %r8
	movl	%esi, %eax
	movq	%rdx, %rcx
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
