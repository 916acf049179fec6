/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/entry.S: VMLAUNCH, VMRESUME, and the way back. */
#define HOST_RSP 0x6c14

	.text
	.globl	vmx_enter
	.hidden	vmx_enter
	.type	vmx_enter, @function
/* vmx_enter(uint64_t gpr[16] in RDI, bool launched in ESI, const uint32_t *requests in RDX, uint64_t
 * *host_rsp in RCX), with interrupts off. EAX: 0 after an exit, 1 VMfailInvalid, 2 VMfailValid, 3 not
 * tried, as *requests is not 0. RSP (gpr[4]) is the VMCS's. *host_rsp: what the VMCS has of the
 * host's. All registers but RBP and RSP are lost. */
vmx_enter:
	pushq	%rbp
	pushq	%rdi
	cmpq	%rsp, (%rcx)
	jne	.Lstack
.Lfrom:	cmpl	$0, (%rdx)
	jne	.Lback
	testb	%sil, %sil		/* the loads below keep ZF */
	movq	0(%rdi), %rax
	movq	8(%rdi), %rcx
	movq	16(%rdi), %rdx
	movq	24(%rdi), %rbx
	movq	40(%rdi), %rbp
	movq	48(%rdi), %rsi
	movq	64(%rdi), %r8
	movq	72(%rdi), %r9
	movq	80(%rdi), %r10
	movq	88(%rdi), %r11
	movq	96(%rdi), %r12
	movq	104(%rdi), %r13
	movq	112(%rdi), %r14
	movq	120(%rdi), %r15
	movq	56(%rdi), %rdi
	jz	1f
	vmresume
	jmp	2f
1:	vmlaunch
.Lto:
2:	movl	$1, %eax		/* no entry: CF or ZF */
	movl	$2, %ecx
	cmovzl	%ecx, %eax
	jmp	3f

.Lstack:
	movq	%rsp, (%rcx)
	movl	$HOST_RSP, %eax
	vmwrite	%rsp, %rax
	jmp	.Lfrom

.Lback:	movl	$3, %eax
3:	popq	%rdi
	popq	%rbp
	ret

	.globl	vmx_exited
	.hidden	vmx_exited
vmx_exited:
	pushq	%rdi
	movq	8(%rsp), %rdi
	movq	%rax, 0(%rdi)
	movq	%rcx, 8(%rdi)
	movq	%rdx, 16(%rdi)
	movq	%rbx, 24(%rdi)
	movq	%rbp, 40(%rdi)
	movq	%rsi, 48(%rdi)
	popq	56(%rdi)
	movq	%r8, 64(%rdi)
	movq	%r9, 72(%rdi)
	movq	%r10, 80(%rdi)
	movq	%r11, 88(%rdi)
	movq	%r12, 96(%rdi)
	movq	%r13, 104(%rdi)
	movq	%r14, 112(%rdi)
	movq	%r15, 120(%rdi)
	popq	%rdi
	popq	%rbp
	xorl	%eax, %eax
	ret
	.size	vmx_enter, . - vmx_enter

	.globl	vmm_host_nmi
	.type	vmm_host_nmi, @function
/* uint64_t vmm_host_nmi(uint64_t rip in RDI): of vmm/host.h. Between the look at the requests and the
 * entry the way leads back. */
vmm_host_nmi:
	leaq	.Lfrom(%rip), %rax
	cmpq	%rax, %rdi
	jb	1f
	leaq	.Lto(%rip), %rax
	cmpq	%rax, %rdi
	jae	1f
	leaq	.Lback(%rip), %rax
	ret
1:	movq	%rdi, %rax
	ret
	.size	vmm_host_nmi, . - vmm_host_nmi

	.section .note.GNU-stack, "", @progbits
