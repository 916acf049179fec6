/* SPDX-License-Identifier: BSD-2-Clause */
/* direct_kernel.S: the kernel of the guest in direct_guest.h. */
#include "direct_layout.h"

	.section .rodata.kernel, "a", @progbits
	.balign	4096
	.globl	kernel_blob, kernel_blob_end, kernel_syscall, kernel_start, kernel_log, kernel_write
kernel_blob:
	.set	v, 0
	.rept	256
	.balign	16
	.if	v == 8 || v >= 10 && v <= 14 || v == 17 || v == 21
	.else
	pushq	$0
	.endif
	pushq	$v
	jmp	entry
	.set	v, v + 1
	.endr
kernel_syscall:
	mov	%rsp, user_rsp(%rip)
	movabs	$K + KSTACK, %rsp
	pushq	$0x2b
	pushq	user_rsp(%rip)
	push	%r11
	pushq	$0x33
	push	%rcx
	pushq	$0
	pushq	$256

	.macro	POP_ALL
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	.endm
	/* Distances in the frame. */
	.set	F_R15, 0
	.set	F_RDI, 64
	.set	F_RSI, 72
	.set	F_RDX, 96
	.set	F_RAX, 112
	.set	F_VECTOR, 120
	.set	F_RIP, 136
	.set	F_RFLAGS, 152

entry:	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	/* The record. */
	cld
	mov	kernel_log(%rip), %rdi
	mov	%rdi, %rbx
	mov	%rsp, %rsi
	mov	$22, %ecx
	rep movsq
	mov	%cr2, %rax
	stosq
	mov	%dr6, %rax
	stosq
	mov	$0xffff0ff0, %eax
	mov	%rax, %dr6
	mov	%cr3, %rax
	stosq
	mov	%ds, %eax
	stosq
	mov	%es, %eax
	stosq
	mov	%fs, %eax
	stosq
	mov	%gs, %eax
	stosq
	mov	$0xc0000100, %ecx
	rdmsr
	stosl
	mov	%edx, %eax
	stosl
	mov	$0xc0000101, %ecx
	rdmsr
	stosl
	mov	%edx, %eax
	stosl
	lea	512(%rbx), %rdi
	movabs	$K + PT_DATA, %rsi
	mov	$16, %ecx
	rep movsq
	movabs	$K + PT_B, %rsi
	mov	$16, %ecx
	rep movsq
	mov	$-1, %eax
	mov	$-1, %edx
	xsave64	1024(%rbx)
	cmpl	$IRQS, F_VECTOR(%rsp)
	jae	3f
2:	addq	$RECORD, kernel_log(%rip)
	decl	room(%rip)
	jnz	1f
full:	out	%al, $PORT_FULL
3:	cmpl	$256, F_VECTOR(%rsp)
	je	2b

	/* What to do. */
1:	mov	F_VECTOR(%rsp), %eax
	cmp	$256, %eax
	je	call
	cmp	$14, %eax
	je	page_fault
	cmp	$1, %eax
	je	debug
	cmp	$3, %eax
	je	return
	cmp	$4, %eax
	je	return
	cmp	$IRQS, %eax
	jae	interrupt
	cmp	$32, %eax
	jae	return
fault:	mov	F_R15(%rsp), %rax
	movq	$0, F_R15(%rsp)
	test	%rax, %rax
	jz	full
	mov	%rax, F_RIP(%rsp)
	jmp	return
page_fault:
	mov	fix(%rip), %rdi
	test	%rdi, %rdi
	jz	fault
	mov	fix+8(%rip), %rsi
	mov	%rsi, (%rdi)
	movq	$0, fix(%rip)
	cmpl	$0, fix+16(%rip)
	je	return
	mov	%cr2, %rax
	invlpg	(%rax)
	jmp	return
debug:	mov	%db7, %rax
	test	$1, %al
	jz	1f
	orq	$0x10000, F_RFLAGS(%rsp)
1:	incl	steps(%rip)
	testl	$3, steps(%rip)
	jnz	return
	andq	$~0x100, F_RFLAGS(%rsp)
return:	POP_ALL
	add	$16, %rsp
	iretq

interrupt:
	movabs	$K + PAGES, %rax
	lock incl (%rax)
	movabs	$APIC, %rax
	movl	$0, 0xb0(%rax)
	jmp	return

call:	mov	F_RAX(%rsp), %rax
	mov	F_RDI(%rsp), %rdi
	mov	F_RSI(%rsp), %rsi
	mov	F_RDX(%rsp), %rdx
	cmp	$OP_APIC, %rax
	ja	done
	lea	ops(%rip), %rcx
	movslq	(%rcx,%rax,4), %rax
	add	%rcx, %rax
	jmp	*%rax
ops:	.long	op_end - ops, op_invlpg - ops, op_cr3 - ops, op_invpcid - ops
	.long	op_wrmsr - ops, op_store - ops, op_host - ops, done - ops
	.long	op_flags - ops, op_fix - ops, op_debug - ops, op_cr4 - ops
	.long	op_store - ops, op_apic - ops
op_end:	out	%al, $PORT_END
	hlt
op_invlpg:
	invlpg	(%rdi)
	jmp	done
op_cr3:	mov	%rdi, %cr3
	jmp	done
op_invpcid:
	push	%rdx
	push	%rsi
	invpcid	(%rsp), %rdi
	add	$16, %rsp
	jmp	done
op_wrmsr:
	mov	%edi, %ecx
	mov	%esi, %eax
	shr	$32, %rsi
	mov	%esi, %edx
	wrmsr
	jmp	done
op_store:
	mov	%rsi, (%rdi)
	jmp	done
op_host:
	out	%al, $PORT_HOST
	jmp	done
op_flags:
	or	%rdi, F_RFLAGS(%rsp)
	jmp	return
op_fix:	mov	%rdi, fix(%rip)
	mov	%rsi, fix+8(%rip)
	mov	%edx, fix+16(%rip)
	jmp	done
op_debug:
	mov	%rdi, %dr0
	mov	%rsi, %dr7
	jmp	done
op_apic:
	movabs	$APIC, %rax
	mov	%esi, (%rax,%rdi)
	jmp	done
op_cr4:	mov	%cr4, %rax
	xor	%rdi, %rax
	mov	%rax, %cr4
done:	POP_ALL
	mov	40(%rsp), %rsp
	sysretq
kernel_start:
	iretq
	/* Another vCPU: writes RSI to RDI. */
kernel_write:
	mov	%esi, (%rdi)
	out	%al, $PORT_END

	.balign	4096
kernel_log:
	.quad	K + LOG
fix:	.quad	0, 0, 0
user_rsp:
	.quad	0
steps:	.long	0
room:	.long	RECORDS
kernel_blob_end:

	.section .note.GNU-stack, "", @progbits
