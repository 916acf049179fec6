/* SPDX-License-Identifier: BSD-2-Clause */
/* test_smp.c: what several vCPUs see of each other in memory: locked and plain accesses, the order
 * of stores, code that is changed, accessed and dirty bits. */
#include "smp_vm.h"

/* ---- LOCK ---- */

/*
 * Functions of RDI (operand), RSI (number of the vCPU) and RDX (rounds). Sums are checked by the
 * host at the end; where a vCPU has a bit or byte of its own, it checks it after each change.
 */
#define REPEAT(name, body)                                                                         \
#name ":\n"                                                                                    \
          "    mov %rsi, %r8\n"                                                                    \
          "    call barrier\n"                                                                     \
          "9:\n" body "    dec %rdx\n"                                                             \
          "    jnz 9b\n"                                                                           \
          "    xor %eax, %eax\n" SMP_END
/* Sets bit CL = 3 * RSI + 1 with one form, looks, and takes it back with another. */
#define TOGGLE(name, set, clear)                                                                   \
    REPEAT(name, "    lea 1(%r8,%r8,2), %ecx\n"                                                    \
                 "    mov $1, %r9d\n"                                                              \
                 "    shl %cl, %r9d\n"                                                             \
                 "    mov %r9d, %r10d\n"                                                           \
                 "    not %r10d\n" set "    test %r9b, (%rdi)\n"                                   \
                 "    jz failed\n" clear "    test %r9b, (%rdi)\n"                                 \
                 "    jnz failed\n")

SMP_BLOB_BEGIN
__asm__("failed:\n"
        "    mov $1, %eax\n" SMP_END);
/* Each adds 1, whatever its way. */
__asm__(REPEAT(add_inc8, "    lock incb (%rdi)\n"));
__asm__(REPEAT(add_inc16, "    lock incw (%rdi)\n"));
__asm__(REPEAT(add_inc32, "    lock incl (%rdi)\n"));
__asm__(REPEAT(add_inc64, "    lock incq (%rdi)\n"));
__asm__(REPEAT(add_dec64,
               "    lock subq $2, (%rdi)\n    lock incq (%rdi)\n    lock subq $-2, (%rdi)\n"));
__asm__(REPEAT(add_add8, "    lock addb $1, (%rdi)\n"));
__asm__(REPEAT(add_add16, "    mov $1, %eax\n    lock addw %ax, (%rdi)\n"));
__asm__(REPEAT(add_add32, "    lock addl $1, (%rdi)\n"));
__asm__(REPEAT(add_add64, "    mov $1, %eax\n    lock addq %rax, (%rdi)\n"));
__asm__(REPEAT(add_adc32, "    stc\n    lock adcl $0, (%rdi)\n"));
__asm__(REPEAT(add_sbb64, "    stc\n    lock sbbq $-2, (%rdi)\n"));
__asm__(REPEAT(add_dec32, "    lock addl $2, (%rdi)\n    lock decl (%rdi)\n"));
__asm__(REPEAT(add_xadd8, "    mov $1, %eax\n    lock xaddb %al, (%rdi)\n"));
__asm__(REPEAT(add_xadd16, "    mov $1, %eax\n    lock xaddw %ax, (%rdi)\n"));
__asm__(REPEAT(add_xadd32, "    mov $1, %eax\n    lock xaddl %eax, (%rdi)\n"));
__asm__(REPEAT(add_xadd64, "    mov $1, %eax\n    lock xaddq %rax, (%rdi)\n"));
__asm__(REPEAT(add_cmpxchg8, "    movb (%rdi), %al\n"
                             "8:  lea 1(%eax), %ecx\n"
                             "    lock cmpxchgb %cl, (%rdi)\n"
                             "    jne 8b\n"));
__asm__(REPEAT(add_cmpxchg16, "    movw (%rdi), %ax\n"
                              "8:  lea 1(%eax), %ecx\n"
                              "    lock cmpxchgw %cx, (%rdi)\n"
                              "    jne 8b\n"));
__asm__(REPEAT(add_cmpxchg32, "    movl (%rdi), %eax\n"
                              "8:  lea 1(%eax), %ecx\n"
                              "    lock cmpxchgl %ecx, (%rdi)\n"
                              "    jne 8b\n"));
__asm__(REPEAT(add_cmpxchg64, "    movq (%rdi), %rax\n"
                              "8:  lea 1(%rax), %rcx\n"
                              "    lock cmpxchgq %rcx, (%rdi)\n"
                              "    jne 8b\n"));
__asm__(REPEAT(add_cmpxchg8b, "    movl (%rdi), %eax\n"
                              "    push %rdx\n"
                              "    movl 4(%rdi), %edx\n"
                              "8:  lea 1(%rax), %ebx\n"
                              "    mov %edx, %ecx\n"
                              "    lock cmpxchg8b (%rdi)\n"
                              "    jne 8b\n"
                              "    pop %rdx\n"));
__asm__(REPEAT(add_cmpxchg16b, "    movq (%rdi), %rax\n"
                               "    push %rdx\n"
                               "    movq 8(%rdi), %rdx\n"
                               "8:  lea 1(%rax), %rbx\n"
                               "    lea 1(%rdx), %rcx\n"
                               "    lock cmpxchg16b (%rdi)\n"
                               "    jne 8b\n"
                               "    pop %rdx\n"));
/* A lock made of them around a plain increment. */
__asm__(REPEAT(lock_xchg, "8:  mov $1, %eax\n"
                          "    xchg %al, 32(%rdi)\n" /* locked without the prefix */
                          "    test %al, %al\n"
                          "    jnz 8b\n"
                          "    incl (%rdi)\n"
                          "    movb $0, 32(%rdi)\n"));
__asm__(REPEAT(lock_bts, "8:  lock btsl $5, 32(%rdi)\n"
                         "    jc 8b\n"
                         "    mov (%rdi), %eax\n"
                         "    inc %eax\n"
                         "    mov %eax, (%rdi)\n"
                         "    movl $0, 32(%rdi)\n"));
__asm__(REPEAT(lock_xchg64, "8:  mov $1, %eax\n"
                            "    xchg %rax, 24(%rdi)\n"
                            "    test %rax, %rax\n"
                            "    jnz 8b\n"
                            "    addq $1, (%rdi)\n"
                            "    xor %eax, %eax\n"
                            "    xchg %rax, 24(%rdi)\n"));
/* Bits of their own. */
__asm__(TOGGLE(own_or_and, "    lock orl %r9d, (%rdi)\n", "    lock andl %r10d, (%rdi)\n"));
__asm__(TOGGLE(own_xor, "    lock xorl %r9d, (%rdi)\n", "    lock xorl %r9d, (%rdi)\n"));
__asm__(TOGGLE(own_or_and8, "    lock orb %r9b, (%rdi)\n", "    lock andb %r10b, (%rdi)\n"));
__asm__(TOGGLE(own_or_and64, "    lock orq %r9, (%rdi)\n", "    lock andq %r10, (%rdi)\n"));
__asm__(TOGGLE(own_bts_btr, "    lock btsl %ecx, (%rdi)\n    jc failed\n",
               "    lock btrl %ecx, (%rdi)\n    jnc failed\n"));
__asm__(TOGGLE(own_btc, "    lock btcq %rcx, (%rdi)\n    jc failed\n",
               "    lock btcq %rcx, (%rdi)\n    jnc failed\n"));
__asm__(TOGGLE(own_bts16, "    lock btsw %cx, (%rdi)\n    jc failed\n",
               "    lock btrw %cx, (%rdi)\n    jnc failed\n"));
/* Even numbers of these change nothing. */
__asm__(REPEAT(even_not64, "    lock notq (%rdi)\n    lock notq (%rdi)\n"));
__asm__(REPEAT(even_neg32, "    lock negl (%rdi)\n    lock negl (%rdi)\n"));

/* ---- no tearing ---- */

/* Writes RSI = 0 or 1 in all bytes of one operand with one instruction, for ever changing. */
#define WRITER(name, store)                                                                        \
#name ":\n"                                                                                    \
          "    call barrier\n"                                                                     \
          "    pcmpeqd %xmm0, %xmm0\n"                                                             \
          "    pxor %xmm1, %xmm1\n"                                                                \
          "    xor %eax, %eax\n"                                                                   \
          "9:  not %rax\n"                                                                         \
          "    movdqa %xmm0, %xmm2\n"                                                              \
          "    movdqa %xmm1, %xmm0\n"                                                              \
          "    movdqa %xmm2, %xmm1\n"                                                              \
          "    test %rsi, %rsi\n"                                                                  \
          "    jz 8f\n"                                                                            \
          "    invlpg (%rdi)\n" /* by the slow path too */                                         \
          "8:\n" store "    dec %rdx\n"                                                            \
          "    jnz 9b\n"                                                                           \
          "    movb $1, 64(%rdi)\n"                                                                \
          "    xor %eax, %eax\n" SMP_END
/* Until the writer has ended: all bits of what it reads are the same. */
#define READER(name, load)                                                                         \
#name ":\n"                                                                                    \
          "    call barrier\n"                                                                     \
          "9:  test %rsi, %rsi\n"                                                                  \
          "    jz 8f\n"                                                                            \
          "    invlpg (%rdi)\n"                                                                    \
          "8:\n" load /* to RAX, sign-extended; flags free */                                      \
          "    lea 1(%rax), %rcx\n"                                                                \
          "    cmp $1, %rcx\n"                                                                     \
          "    ja failed\n"                                                                        \
          "    cmpb $0, 64(%rdi)\n"                                                                \
          "    je 9b\n"                                                                            \
          "    xor %eax, %eax\n" SMP_END
__asm__(WRITER(write16, "    mov %ax, (%rdi)\n"));
__asm__(WRITER(write32, "    mov %eax, (%rdi)\n"));
__asm__(WRITER(write64, "    mov %rax, (%rdi)\n"));
__asm__(WRITER(write_stos64, "    push %rdi\n    stosq\n    pop %rdi\n"));
__asm__(WRITER(write_rep_stos64, "    push %rdi\n    mov $1, %ecx\n    rep stosq\n    pop %rdi\n"));
__asm__(WRITER(write_push64, "    mov %rsp, %rbp\n    lea 8(%rdi), %rsp\n    push %rax\n"
                             "    mov %rbp, %rsp\n"));
__asm__(WRITER(write128, "    movdqa %xmm0, (%rdi)\n"));
__asm__(READER(read16, "    movswq (%rdi), %rax\n"));
__asm__(READER(read32, "    movslq (%rdi), %rax\n"));
__asm__(READER(read64, "    mov (%rdi), %rax\n"));
__asm__(READER(read_pop64, "    mov %rsp, %rbp\n    mov %rdi, %rsp\n    pop %rax\n"
                           "    mov %rbp, %rsp\n"));
__asm__(READER(read_movs64, "    push %rsi\n    push %rdi\n    mov %rdi, %rsi\n"
                            "    lea -8(%rsp), %rdi\n    mov $1, %ecx\n    rep movsq\n"
                            "    mov -8(%rsp), %rax\n    pop %rdi\n    pop %rsi\n"));
__asm__(READER(read128, "    movdqa (%rdi), %xmm0\n"
                        "    movq %xmm0, %rax\n"
                        "    psrldq $8, %xmm0\n"
                        "    movq %xmm0, %rcx\n"
                        "    cmp %rax, %rcx\n"
                        "    jne failed\n"));

/* ---- order ---- */

/* RDX rounds with cells of their own: RDI is where this vCPU stores, RSI where the other does; what
 * it reads goes behind its cell. */
#define ORDER(name, body)                                                                          \
#name ":\n"                                                                                    \
          "    push %rbx\n"                                                                        \
          "9:  call barrier\n"                                                                     \
          "    mov $1, %ebp\n"                                                                     \
          "    xor %r8d, %r8d\n"                                                                   \
          "    xor %r9d, %r9d\n" body "    add $64, %rdi\n"                                        \
          "    add $64, %rsi\n"                                                                    \
          "    dec %rdx\n"                                                                         \
          "    jnz 9b\n"                                                                           \
          "    xor %eax, %eax\n" SMP_END
#define STORE_LOAD(name, fence)                                                                    \
    ORDER(name, "    mov %ebp, (%rdi)\n" fence "    mov (%rsi), %r8d\n"                            \
                "    mov %r8d, 8(%rdi)\n")
__asm__(STORE_LOAD(order_mfence, "    mfence\n"));
__asm__(STORE_LOAD(order_lock, "    lock addl $0, (%rsp)\n"));
__asm__(STORE_LOAD(order_xchg, "    xchg %r9d, (%rsp)\n    xchg %r9d, (%rsp)\n"));
__asm__(STORE_LOAD(order_cpuid, "    mov %rdx, %r10\n    xor %eax, %eax\n    cpuid\n"
                                "    mov %r10, %rdx\n"));
__asm__(STORE_LOAD(order_cr3, "    mov %cr3, %rax\n    mov %rax, %cr3\n"));
__asm__(STORE_LOAD(order_iret, "    mov %rsp, %rax\n    pushq $0x10\n    push %rax\n    pushfq\n"
                               "    pushq $8\n    lea 7f(%rip), %rax\n    push %rax\n"
                               "    iretq\n7:\n"));
__asm__(STORE_LOAD(order_invlpg, "    invlpg (%rsp)\n"));
__asm__(STORE_LOAD(order_out, "    out %al, $0x80\n"));
/* Message passing: one stores data and then a flag, the other reads the flag and then the data. */
__asm__(ORDER(order_send, "    mov %ebp, (%rdi)\n    mov %ebp, 4(%rdi)\n"));
__asm__(ORDER(order_receive, "    mov 4(%rsi), %r8d\n    mov (%rsi), %r9d\n"
                             "    mov %r8d, 8(%rdi)\n    mov %r9d, 12(%rdi)\n"));
/* Load buffering: each reads the other's cell and then stores its own. */
__asm__(ORDER(order_load_store, "    mov (%rsi), %r8d\n    mov %ebp, (%rdi)\n"
                                "    mov %r8d, 8(%rdi)\n"));

/* ---- code ---- */

/* RDI: where the code is; [rdi - 64] counts versions made, [rdi - 56] those checked. The code is
 * MOV EAX, imm32; RET, and RSI the offset of its operand's last bytes. */
__asm__("code_writer:\n"
        "    call barrier\n"
        "    mov $1, %ebx\n"
        "9:  mov %ebx, 1(%rdi)\n"
        "    mov %ebx, -64(%rdi)\n"
        "8:  pause\n"
        "    cmp %ebx, -56(%rdi)\n"
        "    jne 8b\n"
        "    inc %ebx\n"
        "    cmp %edx, %ebx\n"
        "    jbe 9b\n"
        "    xor %eax, %eax\n" SMP_END);
__asm__("code_reader:\n"
        "    mov %edx, %r8d\n"
        "    call barrier\n"
        "    mov $1, %r9d\n"
        "9:  pause\n"
        "    cmp %r9d, -64(%rdi)\n"
        "    jne 9b\n"
        "    xor %eax, %eax\n"
        "    cpuid\n" /* SDM Vol. 3A 9.1.3: a serializing instruction before the new code */
        "    call *%rdi\n"
        "    cmp %r9d, %eax\n"
        "    jne failed\n"
        "    mov %r9d, -56(%rdi)\n"
        "    inc %r9d\n"
        "    cmp %r8d, %r9d\n"
        "    jbe 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* Changes its own code and runs it at once; RDI + 256 * RSI. */
__asm__("code_self:\n"
        "    shl $8, %rsi\n"
        "    add %rsi, %rdi\n"
        "    call barrier\n"
        "9:  mov %edx, 1(%rdi)\n"
        "    call *%rdi\n"
        "    cmp %edx, %eax\n"
        "    jne failed\n"
        "    dec %edx\n"
        "    jnz 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* Runs the code at RDI + 64 all the time. */
__asm__("code_runner:\n"
        "    call barrier\n"
        "9:  lea 64(%rdi), %rax\n"
        "    call *%rax\n"
        "    cmpb $0, 128(%rdi)\n"
        "    je 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* Locked additions across the line that begins at RDI + 64, on a page with code. */
__asm__("code_split_lock:\n"
        "    call barrier\n"
        "9:  lock addq $1, 60(%rdi)\n"
        "    lock subq $1, 60(%rdi)\n"
        "    dec %rdx\n"
        "    jnz 9b\n"
        "    movb $1, 128(%rdi)\n"
        "    xor %eax, %eax\n" SMP_END);

/* ---- page tables ---- */

/* RDI: a page table entry, RSI: its page. One counts in bits that are the system's, the other takes
 * A and D away and sets them by accesses. */
__asm__("bits_count:\n"
        "    call barrier\n"
        "    mov $1, %eax\n"
        "    shl $52, %rax\n"
        "9:  lock addq %rax, (%rdi)\n"
        "    mov $50, %ecx\n"
        "8:  dec %ecx\n"
        "    jnz 8b\n"
        "    dec %rdx\n"
        "    jnz 9b\n"
        "    xor %eax, %eax\n" SMP_END);
__asm__("bits_touch:\n"
        "    call barrier\n"
        "9:  lock andq $-97, (%rdi)\n" /* A and D */
        "    invlpg (%rsi)\n"
        "    mov (%rsi), %eax\n"
        "    testb $0x20, (%rdi)\n"
        "    jz failed\n"
        "    movb $1, (%rsi)\n"
        "    testb $0x40, (%rdi)\n"
        "    jz failed\n"
        "    dec %rdx\n"
        "    jnz 9b\n"
        "    xor %eax, %eax\n" SMP_END);
/* RDI: a page table that is mapped as the first of its own pages, and code: an instruction that
 * ends in the next page. Each round the code is new, and the next page's entry has A clear again.
 */
__asm__("code_in_tables:\n"
        "    call barrier\n"
        "9:  movb $0xb8, 0xffe(%rdi)\n"
        "    mov %dl, 0xfff(%rdi)\n"
        "    andb $0xdf, 8(%rdi)\n"
        "    invlpg 0x1000(%rdi)\n"
        "    lea 0xffe(%rdi), %rax\n"
        "    call *%rax\n"
        "    movzbl %dl, %ecx\n"
        "    cmp %ecx, %eax\n"
        "    jne failed\n"
        "    testb $0x20, 8(%rdi)\n"
        "    jz failed\n"
        "    dec %rdx\n"
        "    jnz 9b\n"
        "    xor %eax, %eax\n" SMP_END);
SMP_BLOB_END

#define LABEL(name) extern const uint8_t name[];

/* ---- the tests ---- */

/* name, bytes of the operand */
#define SUMS(X)                                                                                    \
    X(add_inc8, 1)                                                                                 \
    X(add_inc16, 2)                                                                                \
    X(add_inc32, 4)                                                                                \
    X(add_inc64, 8)                                                                                \
    X(add_dec64, 8)                                                                                \
    X(add_add8, 1)                                                                                 \
    X(add_add16, 2)                                                                                \
    X(add_add32, 4)                                                                                \
    X(add_add64, 8)                                                                                \
    X(add_adc32, 4)                                                                                \
    X(add_sbb64, 8)                                                                                \
    X(add_dec32, 4)                                                                                \
    X(add_xadd8, 1)                                                                                \
    X(add_xadd16, 2)                                                                               \
    X(add_xadd32, 4)                                                                               \
    X(add_xadd64, 8)                                                                               \
    X(add_cmpxchg8, 1)                                                                             \
    X(add_cmpxchg16, 2)                                                                            \
    X(add_cmpxchg32, 4)                                                                            \
    X(add_cmpxchg64, 8)                                                                            \
    X(add_cmpxchg8b, 8)                                                                            \
    X(lock_xchg, 4)                                                                                \
    X(lock_bts, 4)                                                                                 \
    X(lock_xchg64, 8)
#define OWN(X)                                                                                     \
    X(own_or_and, 4)                                                                               \
    X(own_xor, 4)                                                                                  \
    X(own_or_and8, 1)                                                                              \
    X(own_or_and64, 8)                                                                             \
    X(own_bts_btr, 4)                                                                              \
    X(own_btc, 8)                                                                                  \
    X(own_bts16, 2)                                                                                \
    X(even_not64, 8)                                                                               \
    X(even_neg32, 4)
#define EXTERN(name, size)    LABEL(name)
#define FORM_ROW(name, bytes) {#name, name, bytes},

SUMS(EXTERN)
OWN(EXTERN)
LABEL(add_cmpxchg16b)

static const struct form {
    const char *name;
    const uint8_t *label;
    unsigned size;
} sums[] = {SUMS(FORM_ROW)}, own[] = {OWN(FORM_ROW)};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void check_sum(const struct form *f, uint64_t gpa, uint64_t rounds)
{
    uint64_t mask = f->size == 8 ? UINT64_MAX : (1ull << f->size * 8) - 1, got = 0;

    memset(ram + SMP_DATA, 0, 0x4000);
    ck_assert_msg(smp_run_all(f->label, gpa, rounds), "%s", f->name);
    memcpy(&got, ram + gpa, f->size);
    ck_assert_msg(got == (ncpus * rounds & mask), "%s at %#llx: %llu", f->name,
                  (unsigned long long)gpa, (unsigned long long)got);
}

START_TEST(locked_sums)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(sums); i++) {
        check_sum(&sums[i], SMP_DATA, 50000);
        check_sum(&sums[i], SMP_DATA + 3, 20000);
    }
    check_sum(&(struct form){"cmpxchg16b", add_cmpxchg16b, 8}, SMP_DATA, 50000);
    ck_assert_uint_eq(*word(SMP_DATA + 8), 100000);
    smp_end();
}
END_TEST

START_TEST(locked_sums_across_lines_and_pages)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(sums); i++) {
        check_sum(&sums[i], SMP_DATA + 0x3f, 500);
        check_sum(&sums[i], SMP_DATA + 0xfff, 500);
    }
    smp_end();
}
END_TEST

START_TEST(locked_sums_of_four)
{
    smp_begin(4, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(sums); i++)
        check_sum(&sums[i], SMP_DATA + (i % 3) * 0x3f, i % 3 == 1 ? 200 : 5000);
    smp_end();
}
END_TEST

START_TEST(locked_bits)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(own); i++) {
        static const struct {
            uint64_t offset, rounds;
        } at[] = {{0, 30000}, {5, 10000}, {0x3f, 300}, {0xfff, 300}};

        for (unsigned n = 0; n < COUNT(at); n++) {
            uint64_t got = 0;

            memset(ram + SMP_DATA, 0, 0x2000);
            ck_assert_msg(smp_run_all(own[i].label, SMP_DATA + at[n].offset, at[n].rounds),
                          "%s at %#llx", own[i].name, (unsigned long long)at[n].offset);
            memcpy(&got, ram + SMP_DATA + at[n].offset, own[i].size);
            ck_assert_msg(got == 0, "%s at %#llx", own[i].name, (unsigned long long)at[n].offset);
        }
    }
    smp_end();
}
END_TEST

LABEL(write16)
LABEL(write32)
LABEL(write64)
LABEL(write_stos64)
LABEL(write_rep_stos64)
LABEL(write_push64)
LABEL(write128)
LABEL(read16)
LABEL(read32)
LABEL(read64)
LABEL(read_pop64)
LABEL(read_movs64)
LABEL(read128)

/* SDM Vol. 3A 9.1.1. */
START_TEST(plain_accesses_are_whole)
{
    static const struct {
        const uint8_t *writer, *reader;
        uint64_t offset;
    } pairs[] = {
        {write16, read16, 0},      {write32, read32, 0},          {write64, read64, 0},
        {write16, read16, 5},      {write32, read32, 7},          {write64, read64, 3},
        {write_stos64, read64, 0}, {write_rep_stos64, read64, 0}, {write_push64, read_pop64, 0},
        {write64, read_movs64, 0}, {write128, read128, 0},
    };

    smp_begin(2, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(pairs); i++)
        for (uint64_t slow = 0; slow < 2; slow++) {
            uint64_t at = SMP_DATA + pairs[i].offset;

            memset(ram + SMP_DATA, 0, 0x1000);
            smp_start(0, pairs[i].writer, at, slow, slow ? 10000 : 50000);
            smp_start(1, pairs[i].reader, at, slow, 0);
            ck_assert_uint_eq(smp_join(0), 0);
            ck_assert_msg(smp_join(1) == 0, "pair %u: torn", i);
        }
    smp_end();
}
END_TEST

LABEL(order_mfence)
LABEL(order_lock)
LABEL(order_xchg)
LABEL(order_cpuid)
LABEL(order_cr3)
LABEL(order_iret)
LABEL(order_invlpg)
LABEL(order_out)
LABEL(order_send)
LABEL(order_receive)
LABEL(order_load_store)

#define ROUNDS   5000u
#define CELLS(i) (SMP_DATA + (i)*0x100000u)

static void run_order(const uint8_t *first, const uint8_t *second)
{
    memset(ram + SMP_DATA, 0, 0x200000);
    smp_barrier(2);
    smp_start(0, first, CELLS(0), CELLS(1), ROUNDS);
    smp_start(1, second, CELLS(1), CELLS(0), ROUNDS);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_uint_eq(smp_join(1), 0);
}

static int out_ignored(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    return VMM_IO_OK;
}

/* SDM Vol. 3A 9.2.2, 9.2.3.9 and 9.3. */
START_TEST(fences_order_stores_before_loads)
{
    static const struct {
        const char *name;
        const uint8_t *label;
    } forms[] = {{"mfence", order_mfence}, {"lock", order_lock}, {"xchg", order_xchg},
                 {"cpuid", order_cpuid},   {"cr3", order_cr3},   {"iret", order_iret},
                 {"invlpg", order_invlpg}, {"out", order_out}};
    struct vmm_io_ops ops = {.size = sizeof(ops), .name = "post", .write = out_ignored};

    smp_begin(2, VMM_IRQCHIP_NONE);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &ops, NULL, NULL), 0);
    for (unsigned f = 0; f < COUNT(forms); f++) {
        run_order(forms[f].label, forms[f].label);
        for (unsigned i = 0; i < ROUNDS; i++)
            ck_assert_msg(*word32(CELLS(0) + i * 64 + 8) || *word32(CELLS(1) + i * 64 + 8),
                          "%s, round %u: both read the old value", forms[f].name, i);
    }
    smp_end();
}
END_TEST

/* SDM Vol. 3A 9.2.3.2 and 9.2.3.3. */
START_TEST(plain_accesses_are_in_order)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    run_order(order_send, order_receive);
    for (unsigned i = 0; i < ROUNDS; i++)
        ck_assert_msg(!*word32(CELLS(1) + i * 64 + 8) || *word32(CELLS(1) + i * 64 + 12),
                      "round %u: the flag came before the data", i);
    run_order(order_load_store, order_load_store);
    for (unsigned i = 0; i < ROUNDS; i++)
        ck_assert_msg(!(*word32(CELLS(0) + i * 64 + 8) && *word32(CELLS(1) + i * 64 + 8)),
                      "round %u: loads passed stores", i);
    smp_end();
}
END_TEST

LABEL(code_writer)
LABEL(code_reader)
LABEL(code_self)
LABEL(code_runner)
LABEL(code_split_lock)

static void put_code(uint64_t gpa)
{
    static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $0, %eax; ret */

    memcpy(ram + gpa, code, sizeof(code));
}

START_TEST(one_changes_code_of_the_other)
{
    /* In a page, across lines, and across pages: before, within and behind the operand. */
    static const uint64_t at[] = {0x100, 0x13d, 0xffe, 0xffc, 0xffb, 0xfff};

    smp_begin(2, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < COUNT(at); i++) {
        memset(ram + SMP_DATA, 0, 0x2000);
        put_code(SMP_DATA + at[i]);
        smp_start(0, code_writer, SMP_DATA + at[i], 0, 2000);
        smp_start(1, code_reader, SMP_DATA + at[i], 0, 2000);
        ck_assert_uint_eq(smp_join(0), 0);
        ck_assert_msg(smp_join(1) == 0, "stale code at %#llx", (unsigned long long)at[i]);
        ck_assert_int_eq(vm_mem_changed(vm, SMP_DATA, 0x2000), 0);
    }
    smp_end();
}
END_TEST

START_TEST(all_change_their_own_code_in_one_page)
{
    smp_begin(4, VMM_IRQCHIP_NONE);
    for (unsigned i = 0; i < 4; i++)
        put_code(SMP_DATA + i * 256);
    ck_assert(smp_run_all(code_self, SMP_DATA, 1000));
    smp_end();
}
END_TEST

/* The locked access has the world stopped when it finds the other's code. */
START_TEST(split_locks_on_code_of_the_other)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    put_code(SMP_DATA + 64);
    smp_start(0, code_split_lock, SMP_DATA, 0, 1000);
    smp_start(1, code_runner, SMP_DATA, 0, 0);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_uint_eq(smp_join(1), 0);
    smp_end();
}
END_TEST

LABEL(bits_count)
LABEL(bits_touch)

/* 4 KiB pages for the 2 MiB at 4 MiB. */
#define PAGE_TABLE 0x40000u
#define SMALL      0x400000u

static void small_pages(void)
{
    for (uint64_t i = 0; i < 512; i++)
        word(PAGE_TABLE)[i] = (SMALL + i * 4096) | 3;
    word(SMP_TABLES + 0x2000)[SMALL >> 21] = PAGE_TABLE | 3;
}

START_TEST(accessed_and_dirty_bits_keep_what_others_store)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    for (uint64_t page = 0; page < 20; page++) {
        uint64_t *pte = word(PAGE_TABLE + page * 8);

        /* set_mode writes the tables: theirs come after it. */
        smp_prepare(0, bits_count, PAGE_TABLE + page * 8, 0, 100);
        smp_prepare(1, bits_touch, PAGE_TABLE + page * 8, SMALL + page * 4096, 500);
        small_pages();
        smp_go(0);
        smp_go(1);
        ck_assert_uint_eq(smp_join(0), 0);
        ck_assert_msg(smp_join(1) == 0, "A or D is missing");
        ck_assert_uint_eq(*pte, (100ull << 52) | (SMALL + page * 4096) | 0x63);
    }
    smp_end();
}
END_TEST

LABEL(code_in_tables)

/* The walk for the second page of an instruction writes to the page of the first. */
START_TEST(code_and_page_tables_in_one_page)
{
    smp_begin(2, VMM_IRQCHIP_NONE);
    for (uint64_t i = 0; i < 2; i++)
        smp_prepare((uint32_t)i, code_in_tables, SMALL + (i << 21), i, 2000);
    for (uint64_t i = 0; i < 2; i++) {
        uint64_t table = PAGE_TABLE + i * 4096, tail = 0x500000 + i * 4096;

        word(table)[0] = table | 3;
        word(table)[1] = tail | 3;
        *word32(tail) = 0xc3000000; /* the rest of the operand; ret */
        word(SMP_TABLES + 0x2000)[(SMALL >> 21) + i] = table | 3;
    }
    smp_go(0);
    smp_go(1);
    ck_assert_uint_eq(smp_join(0), 0);
    ck_assert_uint_eq(smp_join(1), 0);
    smp_end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("smp");
    TCase *tc = tcase_create("smp");

    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 100);
    tcase_add_test(tc, locked_sums);
    tcase_add_test(tc, locked_sums_across_lines_and_pages);
    tcase_add_test(tc, locked_sums_of_four);
    tcase_add_test(tc, locked_bits);
    tcase_add_test(tc, plain_accesses_are_whole);
    tcase_add_test(tc, fences_order_stores_before_loads);
    tcase_add_test(tc, plain_accesses_are_in_order);
    tcase_add_test(tc, one_changes_code_of_the_other);
    tcase_add_test(tc, all_change_their_own_code_in_one_page);
    tcase_add_test(tc, split_locks_on_code_of_the_other);
    tcase_add_test(tc, accessed_and_dirty_bits_keep_what_others_store);
    tcase_add_test(tc, code_and_page_tables_in_one_page);
    return smp_main(s);
}
