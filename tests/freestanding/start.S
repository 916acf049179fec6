/* SPDX-License-Identifier: BSD-2-Clause */
/* start.S: entry of a process without a C library. */
	.text
	.globl	_start
_start:	xorl	%ebp, %ebp
	andq	$-16, %rsp
	call	test_main
	movl	%eax, %edi
	movl	$231, %eax		/* exit_group */
	syscall

	.section .note.GNU-stack, "", @progbits
