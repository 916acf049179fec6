/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/stub_text.S: the stub's own code. */
#include <sys/syscall.h>

#include "backends/shadow/stub_text.h"

/*
 * Data for this process; it is executed where stub.c has mapped a copy. It begins in the process
 * that has just been made, a copy of the program's, with the stub's pages mapped: takes all others
 * away, makes the guest task, and becomes the mapper. There is no stack before the first signal.
 * RBX: the address of the text. System calls change RAX, RCX and R11 only.
 */

#define PR_SET_PDEATHSIG      1
#define PR_SET_TSC            26
#define ARCH_SET_CPUID        0x1012
#define CLONE_VM_FILES_PARENT 0x8500
#define NEW_LISTENER          12 /* SECCOMP_FILTER_FLAG_NEW_LISTENER | SPEC_ALLOW */

/* Takes the filter `prog`; who listens to it is at `listener`. */
	.macro filter prog, listener
	mov	$1, %edi	/* SECCOMP_SET_MODE_FILTER */
	mov	$NEW_LISTENER, %esi
	lea	\prog(%rbx), %rdx
	mov	$SYS_seccomp, %eax
	syscall
	mov	%eax, \listener(%rbx)
	.endm

/* Whether CPUID faults: `how` 0, or not: 1. */
	.macro fault_cpuid how
	mov	$ARCH_SET_CPUID, %edi
	mov	\how, %esi
	mov	$SYS_arch_prctl, %eax
	syscall
	.endm

	.section	.rodata.vmm_stub, "a", @progbits
	.balign	64
	.irp	label, text, handler, told, cpuid, returned, text_end
	.globl	vmm_stub_\label
	.hidden	vmm_stub_\label
	.endr
vmm_stub_text:
	lea	vmm_stub_text(%rip), %rbx
	/* Takes away what is below, and what is above. */
	xor	%edi, %edi
	mov	%rbx, %rsi
	mov	$SYS_munmap, %eax
	syscall
	lea	STUB_SIZE(%rbx), %rdi
	mov	$STUB_HIGH, %rsi
	sub	%rdi, %rsi
	mov	$SYS_munmap, %eax
	syscall
	/* Makes the guest task. */
	mov	$CLONE_VM_FILES_PARENT, %edi
	lea	STUB_SIZE(%rbx), %rsi
	xor	%edx, %edx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	mov	$SYS_clone, %eax
	syscall
	test	%eax, %eax
	jz	3f
	mov	%eax, STATE_GUEST_PID(%rbx)

	/* The mapper: tells that it is ready, and gets its orders as the answer to that. */
	filter	CTL_MAPPER_PROG, STATE_MAPPER_LISTENER
1:	mov	$STUB_TELL, %eax
	syscall
	test	%eax, %eax
	js	vmm_stub_returned	/* nobody listens any more */
	mov	CTL_NCMD(%rbx), %r14d
	lea	CTL_CMD(%rbx), %r13
	movq	$0, STATE_ERROR(%rbx)
2:	test	%r14d, %r14d
	jz	1b
	mov	(%r13), %rax
	mov	8(%r13), %rdi
	mov	16(%r13), %rsi
	mov	24(%r13), %rdx
	mov	32(%r13), %r10
	mov	40(%r13), %r8
	mov	48(%r13), %r9
	syscall
	add	$STUB_CMD_SIZE, %r13
	dec	%r14d
	cmp	$-4095, %rax
	jb	2b
	mov	%rax, STATE_ERROR(%rbx)
	jmp	2b

	/* The guest task. */
3:	mov	$PR_SET_PDEATHSIG, %edi
	mov	$9, %esi	/* SIGKILL */
	mov	$SYS_prctl, %eax
	syscall
	/* It may have come too late for that. */
	mov	$SYS_getppid, %eax
	syscall
	cmp	%eax, CTL_OWNER(%rbx)
	je	5f
	mov	$1, %edi
	mov	$SYS_exit_group, %eax
	syscall
5:
	lea	CTL_ALTSTACK(%rbx), %rdi
	xor	%esi, %esi
	mov	$SYS_sigaltstack, %eax
	syscall
	mov	$PR_SET_TSC, %edi
	mov	$2, %esi	/* PR_TSC_SIGSEGV */
	mov	$SYS_prctl, %eax
	syscall
	mov	%eax, STATE_TSC_ERROR(%rbx)
	fault_cpuid	$0	/* whether it can */
	mov	%eax, STATE_CPUID_ERROR(%rbx)
	fault_cpuid	$1
	mov	$2, %edi	/* SIG_SETMASK */
	lea	CTL_NO_SIGNALS(%rbx), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	mov	$SYS_rt_sigprocmask, %eax
	syscall
	filter	CTL_GUEST_PROG, STATE_GUEST_LISTENER
	int3
	hlt

	/* Its signal handler. EDI: the signal, RSI: what it is about, RDX: the context. All signals are blocked. */
vmm_stub_handler:
	lea	vmm_stub_text(%rip), %rbx
	rdfsbase	%rax
	mov	%rax, STATE_FS_BASE(%rbx)
	rdgsbase	%rax
	mov	%rax, STATE_GS_BASE(%rbx)
	movw	%ds, STATE_DS(%rbx)
	movw	%es, STATE_ES(%rbx)
	movw	%fs, STATE_FS(%rbx)
	movw	%gs, STATE_GS(%rbx)
	mov	%edi, STATE_SIGNAL(%rbx)
	mov	%rdx, STATE_CONTEXT(%rbx)
	mov	%rsi, STATE_INFO(%rbx)
	mov	$STUB_TELL, %eax
	syscall
vmm_stub_told:
	test	%eax, %eax
	js	vmm_stub_returned	/* nobody listens any more */
	mov	STATE_CPUID(%rbx), %eax
	test	%eax, %eax
	jz	6f
	movl	$0, STATE_CPUID(%rbx)
	dec	%eax
	fault_cpuid	%eax
vmm_stub_cpuid:
6:	/* The owner wants all selectors to be 0; flags that rt_sigreturn leaves alone go, too. */
	cmpq	$0, STATE_DS(%rbx)
	je	4f
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
4:	pushq	$0x202
	popfq
	mov	STATE_FS_BASE(%rbx), %rax
	wrfsbase	%rax
	mov	STATE_GS_BASE(%rbx), %rax
	wrgsbase	%rax
	mov	STATE_CONTEXT(%rbx), %rsp
	mov	$SYS_rt_sigreturn, %eax
	syscall
vmm_stub_returned:
	hlt
vmm_stub_text_end:

	.section	.note.GNU-stack, "", @progbits
