/* SPDX-License-Identifier: BSD-2-Clause */
/* system.S: snippets of system instructions, segments, exceptions; expected results in system.c. */
#include "snippet.inc"

#define AT(label, snippet) (SNIP_CODE + label - snip_##snippet)


/* ---- long mode ---- */
SNIPPET syscall_kernel 64
    mov $0xc0000081, %ecx
    xor %eax, %eax
    mov $SEL_CODE64, %edx
    wrmsr
    mov $0xc0000082, %ecx
    lea 1f(%rip), %eax
    xor %edx, %edx
    wrmsr
    mov $0xc0000084, %ecx
    mov $0x1, %eax
    wrmsr
    stc
    syscall
    ud2
1:  mov %r11, %rbx
END syscall_kernel
SNIPPET sysret_user 64
    mov $0xc0000081, %ecx
    xor %eax, %eax
    mov $0x1b0008, %edx
    wrmsr
    lea 1f(%rip), %rcx
    mov $0x203, %r11d
    sysretq
    ud2
1:  mov %cs, %ebx
    mov %ss, %edx
END sysret_user
SNIPPET sysret_noncanonical 64
    movabs $0x800000000000, %rcx
    sysretq
END sysret_noncanonical
SNIPPET iretq_to_user 64
    push $SEL_UDATA
    push $SNIP_STACK - 64
    push $0x246
    push $SEL_UCODE64
    lea 1f(%rip), %rax
    push %rax
    iretq
1:  mov %cs, %ebx
END iretq_to_user
SNIPPET iretq_to_compat 64
    push $SEL_UDATA
    push $SNIP_STACK - 64
    push $0x202
    push $SEL_UCODE32
    lea 1f(%rip), %rax
    push %rax
    iretq
    .code32
1:  mov $0x80000000, %eax
    inc %eax
    .byte 0x40 # inc %eax in 32-bit code
    .code64
END iretq_to_compat
SNIPPET iretq_null_ss 64
    push $0
    push $SNIP_STACK - 64
    push $2
    push $SEL_CODE64
    lea 1f(%rip), %rax
    push %rax
    iretq
1:  mov %ss, %eax
END iretq_null_ss
SNIPPET iretq_bad_cs 64
    push $SEL_DATA
    push $SNIP_STACK - 64
    push $2
    push $SEL_DATA
    push $SNIP_CODE
    iretq
END iretq_bad_cs
SNIPPET swapgs 64
    mov $0xc0000102, %ecx
    mov $0x1234, %eax
    xor %edx, %edx
    wrmsr
    swapgs
    rdmsr
END swapgs
SNIPPET fsgsbase 64
    mov %cr4, %rax
    or $0x10000, %eax
    mov %rax, %cr4
    mov $SNIP_DATA, %ebx
    wrfsbase %rbx
    mov %fs:8, %rax
    rdfsbase %rdx
END fsgsbase
SNIPPET wrfsbase_off 64
    wrfsbase %rbx
END wrfsbase_off
SNIPPET rdmsr_unknown 64
    mov $0x12345678, %ecx
    rdmsr
END rdmsr_unknown
SNIPPET wrmsr_noncanonical 64
    mov $0xc0000100, %ecx
    mov $0x8000, %edx
    wrmsr
END wrmsr_noncanonical
SNIPPET efer_reserved 64
    mov $0xc0000080, %ecx
    mov $0xffffffff, %eax
    xor %edx, %edx
    wrmsr
END efer_reserved
SNIPPET paging_off_in_long_mode 64
    mov %cr0, %rax
    btr $31, %rax
    mov %rax, %cr0
END paging_off_in_long_mode
SNIPPET pg_without_pe 64
    mov %cr0, %rax
    btr $0, %rax
    mov %rax, %cr0
END pg_without_pe
SNIPPET cr4_reserved 64
    mov %cr4, %rax
    bts $31, %rax
    mov %rax, %cr4
END cr4_reserved
SNIPPET cr0_upper 64
    movabs $0x180010033, %rax
    mov %rax, %cr0
END cr0_upper
SNIPPET cr8 64
    mov $9, %eax
    mov %rax, %cr8
    xor %eax, %eax
    mov %cr8, %rax
END cr8
SNIPPET cr8_reserved 64
    mov $16, %eax
    mov %rax, %cr8
END cr8_reserved
SNIPPET mov_cr1 64
    .byte 0x0f, 0x20, 0xc8
END mov_cr1
SNIPPET clts_and_nm 64
    mov %cr0, %rax
    or $8, %eax
    mov %rax, %cr0
    clts
    fninit
    mov %rax, %cr0
    nop
    fninit
END clts_and_nm
SNIPPET ts_sse 64
    mov %cr0, %rax
    or $8, %eax
    mov %rax, %cr0
    xorps %xmm0, %xmm0
END ts_sse
SNIPPET smsw_lmsw 64
    smsw %eax
    mov $0x0008, %ecx
    lmsw %cx
    smsw %ebx
END smsw_lmsw
SNIPPET sgdt_lgdt 64
    sgdt SNIP_DATA
    movw $0x27, SNIP_DATA
    lgdt SNIP_DATA
    movw $0, SNIP_DATA
    sgdt SNIP_DATA
END sgdt_lgdt
SNIPPET lidt_noncanonical 64
    lidt (%rax)
END lidt_noncanonical
SNIPPET invlpg 64
    mov SNIP_ABSENT - 0x1000, %eax
    invlpg SNIP_DATA
END invlpg
SNIPPET xsetbv_bad 64
    xor %ecx, %ecx
    xor %edx, %edx
    mov $4, %eax
    xsetbv
END xsetbv_bad
SNIPPET xgetbv 64
    xor %ecx, %ecx
    xgetbv
END xgetbv
SNIPPET tsd_user 64
    rdtsc
END tsd_user
SNIPPET user_hlt 64
    hlt
END user_hlt
SNIPPET user_cli 64
    cli
END user_cli
SNIPPET user_out 64
    out %al, $0x80
END user_out
SNIPPET user_popf 64
    push $0x3ed7
    popf
    pushf
    pop %rax
END user_popf
SNIPPET user_int 64
    int $0x20
END user_int
SNIPPET user_mov_ss_null 64
    xor %eax, %eax
    mov %eax, %ss
END user_mov_ss_null
SNIPPET user_mov_cr 64
    mov %cr0, %rax
END user_mov_cr
SNIPPET user_ac 64
    pushf
    orl $0x40000, (%rsp)
    popf
    mov SNIP_DATA + 1, %eax
END user_ac
SNIPPET load_absent_segment 64
    mov $SEL_ABSENT, %eax
    mov %eax, %ds
END load_absent_segment
SNIPPET load_beyond_gdt 64
    mov $0xf8, %eax
    mov %eax, %fs
END load_beyond_gdt
SNIPPET load_ss_read_only 64
    mov $SEL_RODATA, %eax
    mov %eax, %ss
END load_ss_read_only
SNIPPET load_ds_execute_only 64
    mov $SEL_XONLY, %eax
    mov %eax, %ds
END load_ds_execute_only
SNIPPET load_fs_clears_base 64
    mov $SEL_DATA, %eax
    mov %eax, %fs
END load_fs_clears_base
SNIPPET lar_lsl 64
    mov $SEL_SMALL, %eax
    lsl %eax, %ebx
    lar %eax, %ecx
END lar_lsl
SNIPPET lar_invalid 64
    mov $5, %ebx
    mov $0xf8, %eax
    lar %eax, %ebx
END lar_invalid
SNIPPET verw_read_only 64
    mov $SEL_RODATA, %eax
    verw %ax
END verw_read_only
SNIPPET ltr_busy 64
    mov $SEL_TSS, %eax
    ltr %ax
END ltr_busy
SNIPPET lretq_compat 64
    push $SEL_CODE32
    lea 1f(%rip), %rax
    push %rax
    lretq
    .code32
1:  .byte 0x40, 0x40 # inc %eax, twice
    .code64
END lretq_compat
SNIPPET ud2 64
    ud2
END ud2
SNIPPET vmcall_ud 64
    vmcall
END vmcall_ud
SNIPPET int_n_frame 64
    stc
    int $0x30
END int_n_frame
SNIPPET single_step 64
    pushf
    orl $0x100, (%rsp)
    popf
    nop
    nop
END single_step
SNIPPET breakpoint_data 64
    mov $SNIP_DATA + 8, %eax
    mov %rax, %dr0
    mov $0x00010402, %eax
    mov %rax, %dr7
    mov SNIP_DATA + 8, %ebx
    movb $1, SNIP_DATA + 11
    movb $1, SNIP_DATA + 8
    nop
END breakpoint_data
SNIPPET breakpoint_code 64
    lea 1f(%rip), %rax
    mov %rax, %dr1
    mov $0x408, %eax
    mov %rax, %dr7
    mov $1, %ebx
1:  mov $2, %ebx
END breakpoint_code
SNIPPET general_detect 64
    mov $0x2400, %eax
    mov %rax, %dr7
    mov %dr0, %rax
END general_detect
SNIPPET dr7_reserved 64
    movabs $0x100000400, %rax
    mov %rax, %dr7
END dr7_reserved
SNIPPET icebp 64
    .byte 0xf1
END icebp
SNIPPET sse_unaligned 64
    movaps SNIP_DATA + 8, %xmm0
END sse_unaligned
SNIPPET sse_unmasked 64
    movl $0x1d80, SNIP_DATA
    ldmxcsr SNIP_DATA
    xorps %xmm1, %xmm1
    mov $0x3f800000, %eax
    movd %eax, %xmm0
    divss %xmm1, %xmm0
END sse_unmasked
SNIPPET x87_unmasked 64
    fninit
    movw $0x37b, SNIP_DATA
    fldcw SNIP_DATA
    fld1
    fldz
    fdivrp
    nop
    fwait
END x87_unmasked
SNIPPET mxcsr_reserved 64
    movl $0x10000, SNIP_DATA
    ldmxcsr SNIP_DATA
END mxcsr_reserved
SNIPPET too_long 64
    .fill 15, 1, 0x66
    nop
    nop
END too_long
SNIPPET fifteen_bytes 64
    .fill 14, 1, 0x66
    nop
END fifteen_bytes

/* ---- protected mode ---- */
SNIPPET call_gate_inner 32
    lcall $SEL_GATE, $0
    .skip 0x800 - (. - snip_call_gate_inner)
    mov %cs, %eax
    pop %ebx
    pop %ecx
    pop %edx
END call_gate_inner
SNIPPET lret_outer 32
    push $SEL_UDATA
    push $SNIP_STACK - 256
    push $SEL_UCODE32
    push $AT(1f, lret_outer)
    lret
1:  mov %ds, %eax
    mov %cs, %ebx
END lret_outer
SNIPPET limit_ds 32
    mov $SEL_SMALL, %eax
    mov %eax, %ds
    mov 0xfc, %ebx
    mov 0xfd, %ebx
END limit_ds
SNIPPET expand_down 32
    mov $SEL_DOWN, %eax
    mov %eax, %ds
    mov 0x1000, %ebx
    mov 0xffc, %ebx
END expand_down
SNIPPET write_to_code 32
    mov %eax, %cs:SNIP_DATA
END write_to_code
SNIPPET null_ds 32
    xor %eax, %eax
    mov %eax, %ds
    mov SNIP_DATA, %eax
END null_ds
SNIPPET jmp_conforming 32
    ljmp $SEL_CONF32, $AT(1f, jmp_conforming)
1:  mov %cs, %eax
END jmp_conforming
SNIPPET jmp_data 32
    ljmp $SEL_DATA, $0
END jmp_data
SNIPPET into_vm86 32
    pushl $0
    pushl $0
    pushl $SNIP_DATA >> 4
    pushl $0
    pushl $0
    pushl $SNIP_STACK - 512
    pushl $0x23202
    pushl $0
    pushl $AT(1f, into_vm86)
    iretl
    .code16
1:  mov 0, %eax
    mov %ds, %bx
END into_vm86
SNIPPET vm86_gp_int 32
    pushl $0
    pushl $0
    pushl $0
    pushl $0
    pushl $0
    pushl $SNIP_STACK - 512
    pushl $0x20202
    pushl $0
    pushl $AT(1f, vm86_gp_int)
    iretl
    .code16
1:  int $0x21
END vm86_gp_int
SNIPPET paging_32 32
    mov %cr4, %eax
    or $0x10, %eax
    mov %eax, %cr4
    movl $0x87, SNIP_DATA
    movl $0x200087, SNIP_DATA + 4
    mov $SNIP_DATA, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    bts $31, %eax
    mov %eax, %cr0
    mov SNIP_DATA, %ebx
    mov 0x400000, %ecx
END paging_32
SNIPPET arpl 32
    mov $0x10, %eax
    mov $0x3, %ebx
    arpl %bx, %ax
END arpl
SNIPPET user_iopl_in 32
    in $0x80, %al
END user_iopl_in
SNIPPET sidt32 32
    sidt SNIP_DATA
END sidt32
SNIPPET push_segment 32
    pushl %ds
    pop %eax
END push_segment
SNIPPET mov_ss_shadow 32
    mov $SEL_DATA, %eax
    pushf
    orl $0x100, (%esp)
    popf
    mov %eax, %ss
    nop
    nop
END mov_ss_shadow

/* ---- real mode ---- */
SNIPPET real_int_iret 16
    movw $AT(1f, real_int_iret), 0x21 * 4
    stc
    int $0x21
    mov $5, %bx
    jmp 2f
1:  mov $7, %ax
    clc
    iret
2:
END real_int_iret
SNIPPET unreal 16
    lgdt SNIP_DATA
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    mov $SEL_DATA, %bx
    mov %bx, %ds
    and $0xfe, %al
    mov %eax, %cr0
    mov $0x10000, %ebx
    .byte 0x67, 0x66, 0x8b, 0x0b # mov (%ebx), %ecx
END unreal
SNIPPET real_sgdt 16
    sgdt SNIP_DATA
END real_sgdt
SNIPPET real_lldt_ud 16
    lldt %ax
END real_lldt_ud
SNIPPET real_pushf 16
    pushl $0xfffffeff
    popfl
    pushfl
    pop %eax
END real_pushf
