/* SPDX-License-Identifier: BSD-2-Clause */
/* direct_programs.S: what the guest in direct_guest.h executes at CPL 3. */
#include "direct_layout.h"

	.macro	PROGRAM name
	.globl	user_\name, user_\name\()_end
	.set	user_\name\()_end, end_\name
user_\name:
	.endm
	.macro	END name
	xor	%eax, %eax
	syscall
end_\name:
	.endm
	/* System calls. */
	.macro	OP op
	mov	$\op, %eax
	syscall
	.endm
	.macro	OP1 op, a:vararg
	mov	\a, %rdi
	OP	\op
	.endm
	/* One instruction that may fault; or more, up to the label 9. */
	.macro	TRY insn:vararg
	lea	9f(%rip), %r15
	\insn
9:
	.endm
	.macro	RESUME
	lea	9f(%rip), %r15
	.endm
	/* The kernel writes to the entry of a page of the data. */
	.macro	PTE page, value
	lea	8*\page(%r13), %rdi
	mov	$\value, %rsi
	OP	OP_STORE
	.endm
	.macro	FLUSH page
	lea	4096*\page(%r12), %rdi
	OP	OP_INVLPG
	.endm
	.macro	SET_FLAGS value
	pushq	$\value
	popfq
	.endm
	.macro	SHOW_FLAGS to
	pushfq
	pop	%rax
	mov	%rax, \to(%r12)
	.endm

	.section .rodata.user, "a", @progbits

	/* With numbers that mean something to a kernel that restarts system calls. */
PROGRAM syscalls
	mov	$0x1234567, %rcx
	mov	$-1, %r11
	stc
	OP	OP_LOG
	.irp	nr, -512, -513, -514, -516, -1, 0x4000000000000007, 0x7fffffff, 0x80000000, 39, 15
	mov	$\nr, %rax
	mov	$0x1234567, %rcx
	syscall
	.endr
	mov	$-1, %eax
	std
	syscall
	cld
	mov	$39, %eax
	.byte	0x66, 0x0f, 0x05
END syscalls

PROGRAM traps
	int3
	.byte	0xcd, 3
	.byte	0x66, 0xcc
	add	$0x03030303, %eax
	int3
	int	$4
	.irp	n, 0x20, 1, 0, 8, 14, 0x81, 0xff
	TRY	int $\n
	.endr
	.byte	0xf1
	.byte	0xf3, 0xf1
	.irp	insn, "ud2", "ud1 %eax, %eax", "hlt", "cli", "sti", "clts", "invd", "wbinvd", "rdmsr"
	TRY	\insn
	.endr
	.irp	insn, "wrmsr", "sysretq", "sysretl", "sysexit", "swapgs", "xsetbv", "rsm", "clac", "stac"
	TRY	\insn
	.endr
	.irp	insn, "vmlaunch", "vmcall", "vmmcall", "monitor", "mwait", "sysenter", "rdpmc", "iretl"
	TRY	\insn
	.endr
	.irp	insn, "lmsw %ax", "ltr %ax", "lldt %ax", "lgdt (%r12)", "lidt (%r12)", "invlpg (%r12)"
	TRY	\insn
	.endr
	.irp	insn, "mov %cr0, %rax", "mov %rax, %cr3", "mov %db7, %rax", "mov %rax, %db7", "xsaves (%r12)"
	TRY	\insn
	.endr
	.irp	insn, "in $0x21, %al", "out %al, $0x21", "insb", "outsb", "in %dx, %eax", ".byte 0x0f, 0x0a"
	TRY	\insn
	.endr
	.irp	insn, ".byte 0x06", ".byte 0xd6", ".byte 0xf0, 0x90", "lretq"
	TRY	\insn
	.endr
	RESUME
	xor	%ecx, %ecx
	div	%ecx
9:	RESUME
	mov	$0x80000000, %eax
	cltd
	mov	$-1, %ecx
	idiv	%ecx
9:	RESUME
	movaps	1(%r12), %xmm0
9:	xor	%eax, %eax
END traps

PROGRAM int80
	movabs	$0x123456789abcdef0, %rax
	mov	%rax, %r8
	mov	%rax, %r11
	int	$0x80
	mov	$-512, %eax
	int	$0x80
	mov	$-513, %rax
	int	$0x80
	mov	$7, %eax
	int	$0x80
END int80

PROGRAM flags
	SHOW_FLAGS 0
	SET_FLAGS	0x246
	SHOW_FLAGS 8
	SET_FLAGS	0xcd7
	SHOW_FLAGS 16
	int3
	cld
	SET_FLAGS	0x40202
	TRY	mov 1(%r12), %eax
	SHOW_FLAGS 24
	SET_FLAGS	0x40202
	TRY	mov %eax, 0x1002(%r12)
	SET_FLAGS	0x202
	nop
	SET_FLAGS	0x40202
	OP	OP_LOG
	mov	$0x40000, %edi
	OP	OP_FLAGS
	TRY	mov 1(%r12), %eax
	SET_FLAGS	0x202
	.irp	value, 0x4202, 0x200202, 0x3202, 0x1a0202, 0x8202, 0x2
	SET_FLAGS	\value
	SHOW_FLAGS 32
	int3
	OP	OP_LOG
	SET_FLAGS	0x202
	nop
	.endr
	std
	int3
	mov	%rax, 64(%r12)
	TRY	ud2
	OP	OP_LOG
	cld
	TRY	iretq
END flags

PROGRAM single_step
	SET_FLAGS	0x302
	nop
	inc	%eax
	mov	%rax, (%r12)
	mov	4096(%r12), %rax
	nop
	.irp	insn, "syscall", "int3", ".byte 0xf1", "movb $1, 0x2000(%r12)", "xgetbv", "popfq", "pushfq"
	xor	%ecx, %ecx
	mov	$OP_LOG, %eax
	pushq	$0x302
	pushq	$0x302
	popfq
	\insn
	nop
	nop
	nop
	nop
	nop
	.endr
	/* SYSCALL ends it. */
	SET_FLAGS	0x302
	nop
	nop
	OP	OP_LOG
	nop
	nop
	nop
	nop
	nop
	SET_FLAGS	0x302
	nop
	TRY	ud2
	nop
	nop
	nop
	nop
	nop
	mov	$0x100, %edi
	OP	OP_FLAGS
	nop
	nop
	nop
	nop
	nop
	lea	0x4ffc(%r12), %rdi
	xor	%eax, %eax
	mov	$2, %ecx
	SET_FLAGS	0x302
	rep stosl
	nop
	nop
	nop
	nop
END single_step

PROGRAM system
	str	%rax
	sldt	%rcx
	mov	%rax, (%r12)
	mov	%rcx, 8(%r12)
	smsw	%rax
	mov	%rax, 16(%r12)
	sgdt	32(%r12)
	sidt	48(%r12)
	xor	%ebx, %ebx
1:	xor	%eax, %eax
	lar	%ebx, %eax
	sete	%cl
	xor	%edx, %edx
	lsl	%ebx, %edx
	sete	%ch
	verr	%bx
	sete	%r8b
	verw	%bx
	sete	%r9b
	mov	%eax, 4096(%r12,%rbx,4)
	mov	%edx, 4100(%r12,%rbx,4)
	mov	%cx, 4104(%r12,%rbx,4)
	mov	%r8b, 4106(%r12,%rbx,4)
	mov	%r9b, 4107(%r12,%rbx,4)
	add	$4, %ebx
	cmp	$0x100, %ebx
	jne	1b
END system

	/* The same without what is never executed directly. */
PROGRAM selectors_seen
	str	%rax
	sldt	%rcx
	mov	%rax, (%r12)
	mov	%rcx, 8(%r12)
	str	16(%r12)
	xor	%ebx, %ebx
1:	xor	%eax, %eax
	lar	%ebx, %eax
	sete	%cl
	verr	%bx
	sete	%ch
	verw	%bx
	sete	%dl
	mov	%eax, 4096(%r12,%rbx,4)
	mov	%cx, 4104(%r12,%rbx,4)
	mov	%dl, 4106(%r12,%rbx,4)
	add	$1, %ebx
	cmp	$0x200, %ebx
	jne	1b
END selectors_seen

PROGRAM umip_tr
	TRY	str %rax
	TRY	sldt %rax
	TRY	str (%r12)
END umip_tr

PROGRAM umip
	.irp	insn, "str %rax", "sldt %rax", "smsw %rax", "sgdt (%r12)", "sidt (%r12)", "str (%r12)"
	TRY	\insn
	xor	%eax, %eax
	.endr
END umip

	/* Nothing else keeps its page from being executed directly. */
PROGRAM cpuids
	mov	$40, %r14d
1:	mov	%r14d, %eax
	xor	%ecx, %ecx
	cpuid
	add	%rax, (%r12)
	add	%rbx, 8(%r12)
	add	%rcx, 16(%r12)
	add	%rdx, 24(%r12)
	dec	%r14d
	jnz	1b
END cpuids

PROGRAM identity
	.irp	leaf, 0, 1, 2, 4, 6, 7, 0xa, 0xb, 0xd, 0x14, 0x15, 0x16, 0x40000000, 0x40000001, 0x80000000, 0x80000001, 0x80000008, 0x8000001f
	mov	$\leaf, %eax
	xor	%ecx, %ecx
	cpuid
	OP	OP_LOG
	.endr
	xor	%ecx, %ecx
	xgetbv
	OP	OP_LOG
	mov	$2, %ecx
	TRY	xgetbv
	TRY	rdtscp
	xor	%eax, %eax
	xor	%edx, %edx
	mov	%rcx, (%r12)
	TRY	rdpid %rcx
	mov	%rcx, 8(%r12)
	xor	%ecx, %ecx
	TRY	rdpkru
	TRY	wrpkru
END identity

	/* Each RDTSC is above the one before it, and all are below 2^44, as the guest's begins at 0. */
PROGRAM tsc
	xor	%r8d, %r8d
	xor	%ebx, %ebx
	mov	$50, %ebp
1:	rdtsc
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	%r8, %rax
	adc	$0, %ebx
	mov	%rax, %r8
	rdtscp
	shl	$32, %rdx
	or	%rdx, %rax
	cmp	%r8, %rax
	adc	$0, %ebx
	mov	%rax, %r8
	dec	%ebp
	jnz	1b
	shr	$44, %rax
	mov	%rax, (%r12)
	mov	%rbx, 8(%r12)
	xor	%eax, %eax
	xor	%edx, %edx
	xor	%r8d, %r8d
END tsc

PROGRAM bases
	movabs	$0x10001000, %rax
	wrfsbase %rax
	mov	%fs:8, %rcx
	mov	%rcx, %fs:16
	rdfsbase %rdx
	wrgsbase %r12
	mov	%gs:0, %ebx
	rdgsbase %rsi
	mov	$0xc0000100, %edi
	mov	$0x10002000, %esi
	OP	OP_WRMSR
	movl	$0x77, %fs:0
	rdfsbase %rdx
	mov	$0xc0000101, %edi
	mov	$0x10003000, %esi
	OP	OP_WRMSR
	movl	$0x78, %gs:0
	rdgsbase %rdx
	movabs	$K, %rax
	wrgsbase %rax
	TRY	mov %gs:0, %eax
	movabs	$0x8000000000000000, %rax
	TRY	wrfsbase %rax
	TRY	wrgsbase %rax
	mov	$-4096, %rax
	wrfsbase %rax
	TRY	mov %fs:0, %eax
	wrfsbase %r12d
	movl	$1, %fs:0x20
END bases

PROGRAM no_fsgsbase
	TRY	rdfsbase %rax
	TRY	wrfsbase %rax
	TRY	rdgsbase %rcx
	TRY	wrgsbase %ecx
	mov	$0xc0000100, %edi
	mov	$0x10002000, %esi
	OP	OP_WRMSR
	movl	$7, %fs:8
END no_fsgsbase

PROGRAM selectors
	mov	$0x2b, %eax
	mov	%eax, %ds
	mov	%eax, %es
	int3
	mov	%eax, (%r12)
	mov	%ds, %ecx
	mov	%ecx, 4(%r12)
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	int3
	wrfsbase %r12
	mov	$0x2b, %eax
	mov	%eax, %fs
	rdfsbase %rcx
	int3
	wrfsbase %r12
	wrgsbase %r12
	xor	%eax, %eax
	mov	%eax, %fs
	mov	%eax, %gs
	rdfsbase %rcx
	rdgsbase %rdx
	int3
	wrgsbase %r12
	mov	$0x23, %eax
	mov	%eax, %gs
	rdgsbase %rcx
	int3
	xor	%eax, %eax
	mov	%eax, %gs
	.irp	value, 1, 2, 3, 0x7b, 0x33, 0x2a, 0x28
	mov	$\value, %eax
	mov	%eax, %ds
	mov	%eax, %fs
	mov	%ds, %ecx
	mov	%fs, %edx
	int3
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %fs
	nop
	.endr
	.irp	value, 0x10, 0x18, 0x43, 0x53, 0x57, 0x83, 0x1f0
	mov	$\value, %eax
	TRY	mov %eax, %ds
	TRY	mov %eax, %es
	TRY	mov %eax, %fs
	TRY	mov %eax, %gs
	TRY	mov %eax, %ss
	.endr
	mov	$0x33, %eax
	TRY	mov %eax, %ss
	xor	%eax, %eax
	TRY	mov %eax, %ss
	mov	$0x2b, %eax
	mov	%eax, %ss
	int3
	mov	%eax, %ss
	push	%rax
	pop	%rax
END selectors

	/* 32-bit code and back: what is from 3 to 4 is copied to the data. */
PROGRAM compat
	mov	$0x2b, %eax
	mov	%eax, %ds
	mov	%eax, %es
	lea	3f(%rip), %rsi
	mov	%r12, %rdi
	mov	$4f - 3f, %ecx
	rep movsb
	lea	4f(%rip), %rax
	mov	%rax, 0x900(%r12)
	mov	%rsp, 0x908(%r12)
	mov	%r12d, 0x910(%r12)
	movw	$0x23, 0x914(%r12)
	mov	$DATA + 6f - 3f, %eax
	mov	%eax, 0x920(%r12)
	movw	$0x33, 0x924(%r12)
	lea	0x800(%r12), %rsp
	ljmp	*0x910(%r12)
	.code32
3:	inc	%eax
	push	%eax
	pop	%ecx
	mov	DATA + 0x1000, %edx
	pushf
	pop	%esi
	int3
	incl	DATA + 0x1004
	mov	$0x11223344, %eax
	int	$0x80
	nop
	ljmp	*DATA + 0x920
	.code64
6:	mov	DATA + 0x908, %rsp
	jmp	*DATA + 0x900
4:	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	(%r12), %r8
END compat

PROGRAM iret
	mov	%rsp, %rbp
	lea	1f(%rip), %rax
	pushq	$0x2b
	push	%rbp
	pushq	$0x202
	pushq	$0x33
	push	%rax
	iretq
1:	int3
	lea	1f(%rip), %rax
	pushq	$0x2b
	push	%rbp
	pushq	$0x10ad7
	pushq	$0x33
	push	%rax
	iretq
1:	int3
	cld
	lea	1f(%rip), %rax
	pushq	$0x2b
	push	%rbp
	pushq	$0x10302
	pushq	$0x33
	push	%rax
	iretq
1:	nop
	nop
	nop
	nop
	pushq	$0x10
	push	%rbp
	pushq	$0x202
	pushq	$0x10
	push	%rax
	TRY	iretq
	mov	%rbp, %rsp
	lea	1f(%rip), %rax
	pushq	$0x33
	push	%rax
	lretq
1:	int3
END iret

	/* ---- page faults ---- */

	.macro	READ at:vararg
	TRY	mov \at, %rax
	.endm
	.macro	WRITE at:vararg
	TRY	mov %rax, \at
	.endm
	.macro	UPDATE at:vararg
	TRY	lock addl $1, \at
	.endm
	.macro	JUMP at:vararg
	lea	\at, %r9
	RESUME
	jmp	*%r9
9:
	.endm
	.macro	EVERYWHERE what
	.irp	at, D_RO*4096, D_KERNEL*4096, D_MISSING*4096, D_MISSING*4096+8, D_NX*4096+8
	\what	\at(%r12)
	.endr
	.irp	at, 0xeffd, 0x9ffd, 0x7ffd, 0x8ffd, 0xbffd, 0xfff8
	\what	\at(%r12)
	.endr
	.irp	at, 0, 8, 0xffc, 0xfff8, 0xfffe, 0x10000, 0x20000
	mov	$\at, %r9
	\what	(%r9)
	.endr
	.irp	at, -8, -4096, 0x7ffffffff000, 0x7ffffffffffe, 0x7fffffffeffe, 0x800000000000, K, 0x8000000000000000, 0xffff7fffffffffff
	movabs	$\at, %r9
	\what	(%r9)
	.endr
	.endm
PROGRAM reads
	EVERYWHERE READ
END reads
PROGRAM writes
	EVERYWHERE WRITE
END writes
PROGRAM updates
	EVERYWHERE UPDATE
END updates

PROGRAM fetches
	JUMP	D_RO*4096(%r12)
	JUMP	D_KERNEL*4096(%r12)
	JUMP	D_MISSING*4096+8(%r12)
	JUMP	D_NX*4096+8(%r12)
	JUMP	0x20000
	JUMP	8
	.irp	at, -8, 0x7ffffffff000, 0x800000000000, K, 0xffffffffff500000
	movabs	$\at, %r9
	RESUME
	jmp	*%r9
9:
	RESUME
	call	*%r9
9:
	.endr
	/* Instructions that begin in the last bytes before a page that is missing, or NX. */
	movb	$0x48, 0xefff(%r12)
	JUMP	0xefff(%r12)
	movw	$0x8948, 0xbffe(%r12)
	JUMP	0xbffe(%r12)
	movb	$0x48, 0x7fff(%r12)
	JUMP	0x7fff(%r12)
END fetches

	/* Where the host may have an old entry to its kernel. */
PROGRAM vsyscall
	mov	$0xffffffffff600000, %r9
	xor	%edi, %edi
	xor	%esi, %esi
	/* RAX gets lost there, and is what the host leaves in it. */
	.irp	call, 0x600060, 0x6004c9, 0x600935
	mov	$0xffffffffff600000 + (\call & 0xc00), %r9
	mov	$\call & 0x1ff, %eax
	RESUME
	call	*%r9
9:	xor	%eax, %eax
	.endr
	int	$4
	.irp	at, 0xc00, 1, 0x400010, 0xffffffffffffff00
	lea	0xffffffffff600000 + \at, %r9
	RESUME
	call	*%r9
9:	RESUME
	jmp	*%r9
9:	mov	$5, %eax
	.endr
	movabs	$0xffffffffff600000, %r9
	TRY	mov (%r9), %eax
END vsyscall

	/* Accessed and dirty bits. */
PROGRAM accessed
	mov	(%r12), %eax
	OP	OP_LOG
	mov	%eax, 0x1000(%r12)
	OP	OP_LOG
	mov	0x2000(%r12), %eax
	mov	%eax, 0x2008(%r12)
	OP	OP_LOG
	cmpxchg	%ebx, 0x3000(%r12)
	OP	OP_LOG
	xor	%eax, %eax
	inc	%eax
	cmpxchg	%ebx, 0x4000(%r12)
	OP	OP_LOG
	lea	0x5ffc(%r12), %rdi
	mov	$2, %ecx
	rep stosl
	OP	OP_LOG
	testb	$1, 0x7000(%r12)
	prefetcht0 0xb000(%r12)
	prefetchw 0xb000(%r12)
	OP	OP_LOG
	xor	%ecx, %ecx
	lea	0xb000(%r12), %rdi
	rep stosb
	OP	OP_LOG
	TRY	mov %rax, 0xeffc(%r12)
	OP	OP_LOG
	TRY	movups %xmm0, 0x7ff8(%r12)
	OP	OP_LOG
END accessed

	/* INT3 at the beginning of a page does not touch the page before it. */
PROGRAM int3_page
	movw	$0xc3cc, 0x1000(%r12)
	lea	0x1000(%r12), %rax
	call	*%rax
	OP	OP_LOG
	movw	$0xc3f1, 0x3000(%r12)
	lea	0x3000(%r12), %rax
	call	*%rax
	OP	OP_LOG
END int3_page

	/* ---- the kernel changes what is mapped ---- */

PROGRAM invlpg
	movl	$1, (%r12)
	movl	$2, 0x1000(%r12)
	PTE	0, 0x181007
	FLUSH	0
	mov	(%r12), %ebx
	movl	$3, 4(%r12)
	OP	OP_LOG
	PTE	0, 0x181005
	FLUSH	0
	mov	(%r12), %ebx
	TRY	movl $4, 8(%r12)
	PTE	0, 0
	FLUSH	0
	TRY	mov (%r12), %ebx
	TRY	movl $4, 8(%r12)
	/* more rights, and no flush */
	PTE	0, 0x180005
	mov	(%r12), %ebx
	TRY	movl $4, 8(%r12)
	PTE	0, 0x180007
	movl	$4, 8(%r12)
	OP	OP_LOG
	PTE	D_MISSING, 0x18a007
	movl	$4, D_MISSING*4096+8(%r12)
	OP	OP_LOG
	/* accessed and dirty bits go */
	PTE	0, 0x180027
	FLUSH	0
	mov	(%r12), %ebx
	OP	OP_LOG
	movl	$4, 8(%r12)
	OP	OP_LOG
	PTE	0, 0x180007
	FLUSH	0
	OP	OP_LOG
	mov	(%r12), %ebx
	OP	OP_LOG
	movl	$5, 8(%r12)
	OP	OP_LOG
	/* the supervisor's */
	PTE	0, 0x180003
	FLUSH	0
	TRY	mov (%r12), %ebx
	/* not executable, and executable */
	movw	$0xc390, 0x2000(%r12)
	lea	0x2000(%r12), %r14
	call	*%r14
	PTE	2, 0x8000000000182007
	FLUSH	2
	RESUME
	call	*%r14
9:
	mov	(%r14), %eax
	PTE	2, 0x182007
	call	*%r14
	OP	OP_LOG
END invlpg

	/* The handler of #PF mends the page, and the instruction is executed again; or is not. */
PROGRAM fixes
	lea	8*D_MISSING(%r13), %rdi
	mov	$0x18a007, %esi
	xor	%edx, %edx
	OP	OP_FIX
	movl	$1, D_MISSING*4096(%r12)
	OP	OP_LOG
	mov	D_RO*4096(%r12), %eax
	lea	8*D_RO(%r13), %rdi
	mov	$0x188007, %esi
	mov	$1, %edx
	OP	OP_FIX
	movl	$1, D_RO*4096(%r12)
	OP	OP_LOG
	TRY	movl $1, D_KERNEL*4096(%r12)
	PTE	D_KERNEL, 0x189007
	OP	OP_LOG
	TRY	movl $1, 0xf000(%r12)
	PTE	15, 0x18f007
	nop
	OP	OP_LOG
	nop
	OP	OP_LOG
END fixes

PROGRAM spaces
	movl	$1, (%r12)
	movl	$2, 0x1000(%r12)
	OP1	OP_CR3, $PML4_B
	mov	(%r12), %ebx
	movl	$3, (%r12)
	movl	$4, 0x3000(%r12)
	OP1	OP_CR3, $PML4_A
	mov	(%r12), %ebx
	mov	0x3000(%r12), %ecx
	incl	(%r12)
	OP1	OP_CR3, $PML4_B
	mov	(%r12), %ebx
	mov	0x3000(%r12), %ecx
	incl	(%r12)
	/* While A is away its page 0 becomes page 1, and page 3 is gone. */
	PTE	0, 0x181007
	PTE	3, 0
	nop
	OP1	OP_CR3, $PML4_A
	mov	(%r12), %ebx
	TRY	mov 0x3000(%r12), %ecx
	/* Other tables behind the same CR3: A's data are those of B. */
	mov	%rbx, %r10
	movabs	$K + PML4_A, %rdi
	movabs	$K + PML4_B, %rsi
	OP	OP_HOST
	OP1	OP_CR3, $PML4_A
	mov	(%r12), %ebx
	mov	0x3000(%r12), %ecx
	incl	(%r12)
END spaces

	/* A fault in one address space, and the other is executed next. */
PROGRAM fault_and_switch
	mov	D_RO*4096(%r12), %eax
	TRY	movl $1, D_RO*4096(%r12)
	OP1	OP_CR3, $PML4_B
	nop
	OP	OP_LOG
	OP1	OP_CR3, $PML4_A
	TRY	movl $1, D_MISSING*4096(%r12)
	OP1	OP_CR3, $PML4_B
	nop
	OP	OP_LOG
	OP1	OP_CR3, $PML4_A
	TRY	mov 0xf000(%r12), %eax
	OP1	OP_CR3, $PML4_B
	nop
	OP	OP_LOG
END fault_and_switch

PROGRAM pcid
	movabs	$0x8000000000000000 + PML4_A + 1, %r8
	movabs	$0x8000000000000000 + PML4_B + 2, %r9
	OP1	OP_CR3, $PML4_A + 1
	movl	$1, (%r12)
	movl	$2, 0x1000(%r12)
	OP1	OP_CR3, $PML4_B + 2
	movl	$3, (%r12)
	mov	0x1000(%r12), %ebx
	OP1	OP_CR3, %r8
	mov	(%r12), %ebx
	mov	0x1000(%r12), %ebp
	OP1	OP_CR3, %r9
	mov	(%r12), %ebx
	mov	0x1000(%r12), %ebp
	PTE	0, 0x181007
	/* one address of the other PCID */
	mov	$0, %edi
	mov	$1, %esi
	mov	%r12, %rdx
	OP	OP_INVPCID
	OP1	OP_CR3, %r8
	mov	(%r12), %ebx
	OP1	OP_CR3, %r9
	mov	(%r12), %ebx
	PTE	0, 0x182005
	mov	$1, %edi
	mov	$1, %esi
	mov	%r12, %rdx
	OP	OP_INVPCID
	OP1	OP_CR3, %r8
	TRY	movl $7, (%r12)
	OP1	OP_CR3, %r9
	mov	(%r12), %ebx
	PTE	0, 0
	mov	$2, %edi
	mov	$0, %esi
	OP	OP_INVPCID
	OP1	OP_CR3, %r8
	TRY	mov (%r12), %ebx
	OP1	OP_CR3, %r9
	mov	(%r12), %ebx
	PTE	0, 0x183007
	mov	$3, %edi
	xor	%esi, %esi
	OP	OP_INVPCID
	OP1	OP_CR3, %r8
	movl	$9, (%r12)
	OP1	OP_CR3, $PML4_A + 1
	movl	$9, 4(%r12)
	/* a load that does not keep */
	PTE	0, 0x184007
	OP1	OP_CR3, $PML4_A + 1
	incl	(%r12)
	OP1	OP_CR3, %r9
	incl	(%r12)
	PTE	0, 0x185007
	OP1	OP_CR3, $PML4_A + 1
	incl	(%r12)
	OP1	OP_CR3, $PML4_A
END pcid

	/* ---- code that changes ---- */

	/* A function at page 1 returns its immediate operand. */
	.macro	MAKE
	movb	$0xb8, 0x1000(%r12)
	movl	$1, 0x1001(%r12)
	movb	$0xc3, 0x1005(%r12)
	lea	0x1000(%r12), %r14
	.endm
	.macro	INVOKE
	call	*%r14
	add	%eax, %ebx
	mov	%eax, %ebp
	OP	OP_LOG
	.endm

PROGRAM self_modifying
	lea	1f+1(%rip), %rdi
	mov	$3, %ebp
2:	incl	(%rdi)
1:	mov	$0x100, %eax
	push	%rax
	dec	%ebp
	jnz	2b
	pop	%rax
	pop	%rcx
	pop	%rdx
	OP	OP_LOG
	MAKE
	INVOKE
	movl	$2, 0x1001(%r12)
	INVOKE
	movb	$3, 0x1002(%r12)
	INVOKE
	movl	$5, 0x1800(%r12)
	INVOKE
	mov	0x1001(%r12), %eax
	incl	0x1001(%r12)
	INVOKE
END self_modifying

	/* By the kernel, and through another mapping. */
PROGRAM aliases
	MAKE
	INVOKE
	lea	0x1001(%r12), %rdi
	movabs	$0xc300000004, %rsi
	OP	OP_RAW
	INVOKE
	movabs	$K + PAGES + 0x1001, %rdi
	movabs	$0xc300000005, %rsi
	OP	OP_STORE
	INVOKE
	PTE	2, 0x181007
	FLUSH	2
	movl	$6, 0x2001(%r12)
	INVOKE
	movl	$7, 0x2001(%r12)
	movl	$8, 0x1001(%r12)
	INVOKE
	movl	$9, 0x2001(%r12)
	INVOKE
	movb	$0xb8, 0x3000(%r12)
	movl	$10, 0x3001(%r12)
	movb	$0xc3, 0x3005(%r12)
	PTE	1, 0x183007
	FLUSH	1
	INVOKE
	PTE	1, 0x181005
	FLUSH	1
	INVOKE
END aliases

PROGRAM host_code
	MAKE
	INVOKE
	mov	$0x55, %ebp
	OP	OP_HOST
	INVOKE
	mov	$0x66, %ebp
	OP	OP_HOST
	INVOKE
END host_code

	/* Instructions over the border of two pages, of which some must not be executed by the host:
	 * F3 | 0F C7 F8 is RDPID RAX. */
PROGRAM borders
	movl	$0x90909090, 0x1ff8(%r12)
	movl	$0xb8909090, 0x1ffc(%r12)
	movl	$0x12345678, 0x2000(%r12)
	movb	$0xc3, 0x2004(%r12)
	lea	0x1ff8(%r12), %r14
	INVOKE
	movl	$0x87654321, 0x2000(%r12)
	INVOKE
	movl	$0xc3f8c70f, 0x2000(%r12)
	movb	$0xf3, 0x1fff(%r12)
	xor	%eax, %eax
	INVOKE
	movl	$0x00b89090, 0x2000(%r12)
	movl	$0xc3000000, 0x2004(%r12)
	INVOKE
	movl	$0xc3f8c70f, 0x2000(%r12)
	INVOKE
	/* The page behind becomes another one. */
	movb	$0xf3, 0x3fff(%r12)
	movl	$0xc3c08948, 0x4000(%r12)
	movl	$0x90909090, 0x3ffb(%r12)
	lea	0x3ffb(%r12), %r14
	INVOKE
	movl	$0xc3f8c70f, 0x5000(%r12)
	PTE	4, 0x185007
	FLUSH	4
	INVOKE
	/* The page behind is executed first. */
	movl	$0x90909090, 0x6ffb(%r12)
	movb	$0xf3, 0x6fff(%r12)
	movl	$0x9090c390, 0x7004(%r12)
	movl	$0xc3f8c70f, 0x7000(%r12)
	lea	0x7004(%r12), %r14
	INVOKE
	lea	0x6ffb(%r12), %r14
	INVOKE
END borders

	/* Where the host's values must not be seen, and other code behind it. */
PROGRAM refused
	mov	$20, %ebp
1:	xor	%ecx, %ecx
	xgetbv
	add	%rax, %rbx
	TRY	rdpid %rax
	add	%rax, %rbx
	mov	$0x33, %eax
	lsl	%eax, %ecx
	add	%rcx, %rbx
	mov	$0x7b, %eax
	lsl	%eax, %ecx
	add	%rcx, %rbx
	dec	%ebp
	jnz	1b
	jmp	2f
	.skip	4096
2:	mov	$1000, %ebp
1:	add	%rbx, %rax
	ror	$3, %rax
	dec	%ebp
	jnz	1b
END refused

PROGRAM device
	.set	AT, D_DEVICE*4096
	mov	AT(%r12), %rax
	mov	AT+8(%r12), %ecx
	mov	AT+1(%r12), %dl
	mov	%rax, AT+0x10(%r12)
	add	%ecx, AT+0x18(%r12)
	push	AT(%r12)
	pop	(%r12)
	lea	AT(%r12), %rsi
	mov	%r12, %rdi
	mov	$8, %ecx
	rep movsl
END device

	/* ---- vector state ---- */

PROGRAM vectors
	movabs	$0x0123456789abcdef, %rax
	movq	%rax, %xmm0
	movddup	%xmm0, %xmm1
	movaps	%xmm1, %xmm15
	OP	OP_LOG
	paddb	%xmm1, %xmm15
	int3
	fninit
	fldpi
	fld1
	fadd	%st(1)
	OP	OP_LOG
	fstpt	(%r12)
	fstpt	16(%r12)
	movq	%r12, %mm0
	movq	%mm0, %mm7
	paddb	%mm7, %mm0
	int3
	emms
	OP	OP_LOG
	movl	$0x3fa0, (%r12)
	ldmxcsr	(%r12)
	OP	OP_LOG
	stmxcsr	4(%r12)
	movl	$0x1f80, (%r12)
	ldmxcsr	(%r12)
	movw	$0x037b, (%r12)
	fldcw	(%r12)
	fldz
	fld1
	fdiv	%st(1)
	TRY	fwait
	fnclex
	fninit
	movl	$0x1d80, (%r12)
	ldmxcsr	(%r12)
	xorps	%xmm2, %xmm2
	mov	$1, %eax
	cvtsi2ss %eax, %xmm3
	TRY	divss %xmm2, %xmm3
	movl	$0x1f80, (%r12)
	ldmxcsr	(%r12)
	mov	$1, %eax
	movd	%eax, %xmm4
	mulss	%xmm4, %xmm3
	stmxcsr	8(%r12)
	int3
END vectors

PROGRAM avx
	movabs	$0x0123456789abcdef, %rax
	vmovq	%rax, %xmm0
	vpbroadcastq %xmm0, %ymm1
	vpaddb	%ymm1, %ymm1, %ymm15
	OP	OP_LOG
	vpaddb	%ymm15, %ymm15, %ymm7
	int3
	vzeroupper
	OP	OP_LOG
	vzeroall
	int3
END avx

PROGRAM avx512
	movabs	$0x0123456789abcdef, %rax
	vmovq	%rax, %xmm0
	mov	$0x5a5a, %eax
	kmovw	%eax, %k1
	vpbroadcastq %xmm0, %zmm31
	vmovdqu32 %zmm31, %zmm3{%k1}{z}
	vmovdqu64 %zmm31, (%r12)
	OP	OP_LOG
	vpaddb	%zmm31, %zmm3, %zmm16
	knotw	%k1, %k7
	int3
	vzeroall
	OP	OP_LOG
END avx512

	/* XSAVE by the program itself, and what is not in use. */
PROGRAM xsaves
	mov	$-1, %eax
	mov	$-1, %edx
	xsave	(%r12)
	xrstor	(%r12)
	pcmpeqb	%xmm3, %xmm3
	fxsave	0x1000(%r12)
	fxrstor	0x1000(%r12)
	xsave	0x2000(%r12)
	xor	%eax, %eax
	xor	%edx, %edx
	xrstor	0x2000(%r12)
	movups	%xmm3, 0x3000(%r12)
	fninit
	fld1
	mov	$-1, %eax
	mov	$-1, %edx
	xsaveopt 0x4000(%r12)
END xsaves

	/* ---- breakpoints of the guest's own ---- */

PROGRAM breakpoints
	movl	$1, 0x10(%r12)
	mov	$DATA + 0x10, %edi
	mov	$0xd0401, %esi
	OP	OP_DEBUG
	movl	$2, 0x10(%r12)
	mov	0x10(%r12), %eax
	movl	$2, 0x18(%r12)
	movl	$2, 0xd(%r12)
	movl	$2, 0x1010(%r12)
	lea	0x10(%r12), %rdi
	mov	$2, %ecx
	rep stosl
	mov	$DATA + 0x10, %edi
	mov	$0xf0401, %esi
	OP	OP_DEBUG
	mov	0x10(%r12), %eax
	lea	1f(%rip), %rdi
	mov	$0x401, %esi
	OP	OP_DEBUG
	xor	%eax, %eax
1:	inc	%eax
	xor	%edi, %edi
	mov	$0x400, %esi
	OP	OP_DEBUG
	mov	0x10(%r12), %eax
END breakpoints

	/* ---- regions of several kinds: not of the library's, a file, read-only ---- */

PROGRAM regions
	.irp	page, 4, 5
	mov	\page*4096(%r12), %rax
	incq	\page*4096(%r12)
	movw	$0xc3b0, \page*4096+16(%r12)
	movl	$0xc39055b0, \page*4096+16(%r12)
	lea	\page*4096+16(%r12), %rbx
	call	*%rbx
	mov	\page*4096(%r12), %rbp
	OP	OP_LOG
	.endr
	mov	6*4096(%r12), %rax
	movl	$1, 6*4096(%r12)
	mov	6*4096(%r12), %rbx
	OP	OP_LOG
END regions

	/* ---- for as long as the host likes ---- */

PROGRAM spin
1:	inc	%rbx
	jmp	1b
END spin

	/* Counts in memory, reads page 1, and writes page 2; ends when page 3 says so. */
PROGRAM count
	lea	9f(%rip), %r15
1:	incq	8(%r12)
	mov	0x1000(%r12), %rax
	mov	%rax, 0x2000(%r12)
	cmpl	$0, 0x3000(%r12)
	je	1b
9:
END count

	/* Waits for three interrupts. */
PROGRAM wait
	mov	$0xf0, %edi
	mov	$0x1ff, %esi
	OP	OP_APIC
1:	incq	8(%r12)
	cmpl	$3, (%r12)
	jb	1b
END wait
PROGRAM timer
	mov	$0xf0, %edi
	mov	$0x1ff, %esi
	OP	OP_APIC
	mov	$0x3e0, %edi
	mov	$0xb, %esi
	OP	OP_APIC
	mov	$0x320, %edi
	mov	$0x200e0, %esi
	OP	OP_APIC
	mov	$0x380, %edi
	mov	$500000, %esi
	OP	OP_APIC
1:	inc	%rbx
	cmpl	$3, (%r12)
	jb	1b
	mov	$0x320, %edi
	mov	$0x100e0, %esi
	OP	OP_APIC
END timer

	/* Until the function in page 1 returns 7. */
PROGRAM until_7
	MAKE
1:	incq	8(%r12)
	call	*%r14
	cmp	$7, %eax
	jne	1b
END until_7

	/* A page of its own for the code, as others are changed meanwhile. */
PROGRAM add
	mov	$20000, %ecx
1:	lock incq 0x20(%r12)
	dec	%ecx
	jnz	1b
	lock incl 0x28(%r12)
2:	pause
	jmp	2b
END add

	.section .note.GNU-stack, "", @progbits
