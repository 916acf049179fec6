/* SPDX-License-Identifier: BSD-2-Clause */
/* integer.S: snippets of integer instructions; expected results in integer.c. */
#include "snippet.inc"

SNIPPET add32_carry 64
    add %ebx, %eax
END add32_carry
SNIPPET add8_high 64
    add %ah, %bh
END add8_high
SNIPPET add_mem_imm 64
    addw $0x7fff, SNIP_DATA
END add_mem_imm
SNIPPET adc_all 64
    adc %rbx, %rax
END adc_all
SNIPPET sbb_self 64
    sbb %eax, %eax
END sbb_self
SNIPPET inc_keeps_cf 64
    inc %al
END inc_keeps_cf
SNIPPET neg_min 64
    neg %eax
END neg_min
SNIPPET lock_xadd 64
    lock xadd %rax, (%rbx)
END lock_xadd
SNIPPET cmpxchg_equal 64
    lock cmpxchg %ecx, (%rbx)
END cmpxchg_equal
SNIPPET cmpxchg_differs 64
    cmpxchg %ecx, (%rbx)
END cmpxchg_differs
SNIPPET cmpxchg16b 64
    lock cmpxchg16b (%rdi)
END cmpxchg16b
SNIPPET cmpxchg16b_unaligned 64
    cmpxchg16b 8(%rdi)
END cmpxchg16b_unaligned
SNIPPET lock_register 64
    .byte 0xf0, 0x01, 0xd8
END lock_register
SNIPPET shl_count0 64
    shl %cl, %eax
END shl_count0
SNIPPET shl_count0_clears_upper 64
    shl %cl, %eax
END shl_count0_clears_upper
SNIPPET sar_one 64
    sar $1, %ax
END sar_one
SNIPPET rcl9 64
    rcl %cl, %al
END rcl9
SNIPPET shld 64
    shld $4, %ebx, %eax
END shld
SNIPPET mul64 64
    mul %rbx
END mul64
SNIPPET imul3 64
    imul $-3, %ebx, %eax
END imul3
SNIPPET div_overflow 64
    nop
    div %ebx
END div_overflow
SNIPPET idiv_signs 64
    idiv %ebx
END idiv_signs
SNIPPET bt_mem_negative 64
    btsq %rax, (%rbx)
END bt_mem_negative
SNIPPET bsf_zero 64
    bsf %ebx, %eax
END bsf_zero
SNIPPET tzcnt_zero 64
    tzcnt %ebx, %eax
END tzcnt_zero
SNIPPET popcnt 64
    popcnt %rbx, %rax
END popcnt
SNIPPET cmov_false_clears 64
    cmp %eax, %eax
    cmovne %ebx, %ecx
END cmov_false_clears
SNIPPET movsxd 64
    movslq %ebx, %rax
END movsxd
SNIPPET xchg_nop_r8 64
    xchg %r8d, %eax
END xchg_nop_r8
SNIPPET push_pop_rsp 64
    push %rsp
    pop %rax
END push_pop_rsp
SNIPPET pop_mem_rsp 64
    push %rax
    push %rbx
    pop (%rsp)
    pop %rcx
END pop_mem_rsp
SNIPPET enter_nested 64
    enter $16, $2
END enter_nested
SNIPPET leave16 64
    leave
END leave16
SNIPPET rep_movsb_overlap 64
    cld
    rep movsb
END rep_movsb_overlap
SNIPPET rep_movsq_backward 64
    std
    rep movsq
END rep_movsq_backward
SNIPPET repne_scasb 64
    repne scasb
END repne_scasb
SNIPPET repe_cmpsb_zero_count 64
    repe cmpsb
END repe_cmpsb_zero_count
SNIPPET rep_stos_fault 64
    rep stosl
END rep_stos_fault
SNIPPET jrcxz_taken 64
    jrcxz 1f
    mov $1, %eax
1:
END jrcxz_taken
SNIPPET loop_ecx 64
1:  inc %eax
    addr32 loop 1b
END loop_ecx
SNIPPET jmp_noncanonical 64
    jmp *%rax
END jmp_noncanonical
SNIPPET call_ret_imm 64
    push %rax
    call 1f
    jmp 2f
1:  ret $8
2:
END call_ret_imm
SNIPPET read_noncanonical 64
    mov (%rax), %rax
END read_noncanonical
SNIPPET read_noncanonical_ss 64
    mov (%rbp), %rax
END read_noncanonical_ss
SNIPPET write_absent 64
    add %eax, (%rbx)
END write_absent
SNIPPET user_reads_kernel 64
    mov (%rbx), %eax
END user_reads_kernel
SNIPPET user_write_ro 64
    mov %eax, (%rbx)
END user_write_ro
SNIPPET execute_nx 64
    jmp *%rbx
END execute_nx
SNIPPET self_modifying 64
    movb $0x2a, 1f+1(%rip)
1:  mov $1, %al
END self_modifying
SNIPPET crc32 64
    crc32b %bl, %eax
END crc32
SNIPPET pdep 64
    pdep %rcx, %rbx, %rax
END pdep
SNIPPET andn 64
    andn %ecx, %ebx, %eax
END andn
SNIPPET sib_without_base 64
    .byte 0x67, 0x41, 0x8b, 0x04, 0x25 # REX.B and an address size prefix
    .long SNIP_DATA
END sib_without_base
SNIPPET bswap64 64
    bswap %rax
END bswap64

SNIPPET daa 32
    daa
END daa
SNIPPET aam_zero 32
    aam $0
END aam_zero
SNIPPET aad 32
    aad
END aad
SNIPPET bound_out 32
    bound %eax, SNIP_DATA
END bound_out
SNIPPET into 32
    into
END into
SNIPPET pusha_popa 32
    pusha
    xor %eax, %eax
    popa
END pusha_popa
SNIPPET xlat32 32
    xlat
END xlat32
SNIPPET les 32
    les SNIP_DATA, %eax
END les
SNIPPET salc 32
    .byte 0xd6
END salc

SNIPPET real_seg_wrap 16
    mov (%bx, %si), %al
END real_seg_wrap
SNIPPET real_limit 16
    mov (%bx), %ax
END real_limit
SNIPPET real_ea32 16
    .byte 0x67, 0x66, 0x8b, 0x03 # mov (%ebx), %eax
END real_ea32
SNIPPET real_call_far 16
    lcall $SNIP_CODE >> 4, $1f - snip_real_call_far
    jmp 2f
1:  mov $7, %ax
    lret
2:
END real_call_far
