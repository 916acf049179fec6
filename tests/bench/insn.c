/* SPDX-License-Identifier: BSD-2-Clause */
/* insn.c: guest instructions per second of the software CPU, and of the translator on top of it, in
 * loops of typical code.
 *
 * usage: bench_insn [NAME ...] */
#include <stdio.h>
#include <time.h>

#include "backends/bt/bt.h"
#include "x86_fake.h"

/* A bit mixer: registers only. */
FAKE_ASM(alu, 64,
         "1: mov %rax, %rdx\n shr $33, %rdx\n xor %rdx, %rax\n imul %rbx, %rax\n"
         "mov %eax, %edx\n rol $7, %edx\n add %rdx, %rsi\n lea 1(%rcx), %rcx\n"
         "and $0xff, %edx\n sub %rdx, %rsi\n inc %rcx\n jmp 1b\n");

/* Sums and stores an array of 4 KiB. */
FAKE_ASM(memory, 64,
         "1: xor %ecx, %ecx\n"
         "2: mov (%rdi,%rcx,8), %rax\n add %rax, %rdx\n mov %rdx, 4096(%rdi,%rcx,8)\n"
         "addl $1, 8192(%rdi)\n inc %ecx\n cmp $512, %ecx\n jne 2b\n jmp 1b\n");

/* Recursive Fibonacci numbers: calls, stack, branches. */
FAKE_ASM(calls, 64,
         "1: mov $20, %edi\n call 2f\n jmp 1b\n"
         "2: push %rbx\n mov %edi, %ebx\n cmp $2, %edi\n jb 3f\n"
         "lea -1(%rbx), %edi\n call 2b\n push %rax\n lea -2(%rbx), %edi\n call 2b\n"
         "pop %rdx\n add %edx, %eax\n pop %rbx\n ret\n"
         "3: mov %edi, %eax\n pop %rbx\n ret\n");

/* Functions in other pages, called directly and through a register; from two places each. */
FAKE_ASM(far_calls, 64,
         "lea 5f(%rip), %rbx\n 1: call 4f\n add %rax, %rcx\n call *%rbx\n add %rax, %rcx\n"
         "call 4f\n sub %rax, %rdx\n call *%rbx\n jmp 1b\n"
         ".skip 5000\n 4: lea 1(%rcx), %rax\n ret\n .skip 5000\n 5: lea 2(%rcx), %rax\n ret\n");

/* An indirect jump to one of eight places, as byte-code interpreters have it. */
FAKE_ASM(jump_table, 64,
         "lea 3f(%rip), %rbx\n 1: mov %eax, %edx\n shl $13, %edx\n xor %edx, %eax\n"
         "mov %eax, %edx\n shr $17, %edx\n xor %edx, %eax\n mov %eax, %edx\n shl $5, %edx\n"
         "xor %edx, %eax\n mov %eax, %edx\n and $7, %edx\n shl $4, %edx\n add %rbx, %rdx\n"
         "jmp *%rdx\n .balign 16\n 3: .rept 8\n inc %rcx\n jmp 1b\n .balign 16\n .endr\n");

/* Branches by a pseudo-random sequence. */
FAKE_ASM(branches, 64,
         "1: mov %eax, %edx\n shl $13, %edx\n xor %edx, %eax\n mov %eax, %edx\n shr $17, %edx\n"
         "xor %edx, %eax\n mov %eax, %edx\n shl $5, %edx\n xor %edx, %eax\n"
         "test $1, %al\n jz 2f\n inc %rsi\n 2: test $2, %al\n jz 3f\n inc %rdi\n"
         "3: test $0x30, %al\n jnz 1b\n dec %rbp\n jmp 1b\n");

/* String length, byte by byte. */
FAKE_ASM(bytes, 64,
         "1: lea 4096(%rdi), %rcx\n"
         "2: movzbl (%rcx), %eax\n inc %rcx\n test %al, %al\n jne 2b\n jmp 1b\n");

static const struct {
    const char *name;
    const uint8_t *begin, *end;
} loops[] = {
    {"alu", alu_begin, alu_end},
    {"memory", memory_begin, memory_end},
    {"calls", calls_begin, calls_end},
    {"branches", branches_begin, branches_end},
    {"far-calls", far_calls_begin, far_calls_end},
    {"jump-table", jump_table_begin, jump_table_end},
    {"bytes", bytes_begin, bytes_end},
};

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool wanted(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

/* Millions of instructions per second; 0: the loop did not run as it should. */
static double measure(unsigned loop, bool translate)
{
    const uint64_t n = translate ? 1000000000 : 200000000;
    struct fake *f = fake_new();
    double t;

    if (translate && bt_attach(f->cpu, BT_HOT, BT_ARENA))
        return 0;
    fake_long64(f);
    memset(f->mem + FAKE_DATA, 1, 16384 - 1);
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RAX] = 0x9e3779b97f4a7c15;
    f->cpu->gpr[VMM_RBX] = 0xbf58476d1ce4e5b9;
    fake_load(f, FAKE_TEXT, loops[loop].begin, loops[loop].end);
    t = seconds();
    if (fake_run(f, n) != X86_STOP_ATTENTION || f->done != n)
        return 0;
    t = seconds() - t;
    bt_detach(f->cpu);
    fake_free(f);
    return (double)n / t / 1e6;
}

int main(int argc, char **argv)
{
    printf("million instructions per second\n%-10s %10s %10s\n", "", "interp", "bt");
    for (unsigned i = 0; i < sizeof(loops) / sizeof(loops[0]); i++) {
        double interp, bt;

        if (!wanted(argc, argv, loops[i].name))
            continue;
        interp = measure(i, false);
        bt = measure(i, true);
        if (interp <= 0 || bt <= 0)
            return 1;
        printf("%-10s %10.1f %10.1f %6.2fx\n", loops[i].name, interp, bt, bt / interp);
    }
    return 0;
}
