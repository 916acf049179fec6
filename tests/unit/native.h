/* SPDX-License-Identifier: BSD-2-Clause */
/* native.h: executes one instruction on the real CPU and in the software CPU, for comparison.
 *
 * Both see the same memory: pages at NATIVE_DATA, between unmapped ones, whose addresses are equal
 * in this process and in the fake guest. Registers are loaded and stored with XRSTOR and XSAVE.
 * Define _GNU_SOURCE before the first header.
 */
#ifndef NATIVE_H
#define NATIVE_H

#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <ucontext.h>

#include "core/x86/decode.h"
#include "core/x86/xstate.h"
#include "x86_fake.h"

#define NATIVE_DATA  0x41000ul
#define NATIVE_PAGES 2u
#define NATIVE_SIZE  (NATIVE_PAGES * 4096u)
#define NATIVE_END   (NATIVE_DATA + NATIVE_SIZE)

/* Registers on the way in and out; offsets are known to the assembly below. */
struct native_state {
    _Alignas(64) uint8_t xsave[2752];
    uint64_t gpr[16]; /* RSP is not used */
    uint64_t flags;
    uint64_t features; /* XCR0 of the host: for XRSTOR and XSAVE */
};
_Static_assert(offsetof(struct native_state, gpr) == 2752, "assembly");
_Static_assert(offsetof(struct native_state, flags) == 2880, "assembly");
_Static_assert(offsetof(struct native_state, features) == 2888, "assembly");

struct native_state *native_cur;
uint64_t native_rsp, native_tmp, native_target;
uint32_t native_mxcsr;
uint16_t native_fcw;
void native_enter(struct native_state *s, void *code);
extern uint8_t native_exit[];

__asm__(".pushsection .text\n"
        ".globl native_enter, native_exit\n"
        "native_enter:\n"
        "  push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "  mov %rdi, native_cur(%rip)\n"
        "  mov %rsi, native_target(%rip)\n"
        "  mov %rsp, native_rsp(%rip)\n"
        "  stmxcsr native_mxcsr(%rip)\n"
        "  fnstcw native_fcw(%rip)\n"
        "  mov 2888(%rdi), %eax\n xor %edx, %edx\n"
        "  xrstor64 (%rdi)\n"
        "  pushq 2880(%rdi)\n popfq\n"
        "  mov 2752(%rdi), %rax\n mov 2760(%rdi), %rcx\n mov 2768(%rdi), %rdx\n"
        "  mov 2776(%rdi), %rbx\n mov 2792(%rdi), %rbp\n mov 2800(%rdi), %rsi\n"
        "  mov 2816(%rdi), %r8\n mov 2824(%rdi), %r9\n mov 2832(%rdi), %r10\n"
        "  mov 2840(%rdi), %r11\n mov 2848(%rdi), %r12\n mov 2856(%rdi), %r13\n"
        "  mov 2864(%rdi), %r14\n mov 2872(%rdi), %r15\n mov 2808(%rdi), %rdi\n"
        "  jmp *native_target(%rip)\n"
        "native_exit:\n"
        "  mov %rax, native_tmp(%rip)\n"
        "  mov native_cur(%rip), %rax\n"
        "  mov %rcx, 2760(%rax)\n mov %rdx, 2768(%rax)\n mov %rbx, 2776(%rax)\n"
        "  mov %rbp, 2792(%rax)\n mov %rsi, 2800(%rax)\n mov %rdi, 2808(%rax)\n"
        "  mov %r8, 2816(%rax)\n mov %r9, 2824(%rax)\n mov %r10, 2832(%rax)\n"
        "  mov %r11, 2840(%rax)\n mov %r12, 2848(%rax)\n mov %r13, 2856(%rax)\n"
        "  mov %r14, 2864(%rax)\n mov %r15, 2872(%rax)\n"
        "  pushfq\n popq 2880(%rax)\n"
        "  mov native_tmp(%rip), %rcx\n mov %rcx, 2752(%rax)\n"
        "  mov %rax, %rdi\n mov 2888(%rdi), %eax\n xor %edx, %edx\n"
        "  xsave64 (%rdi)\n"
        "  fninit\n fldcw native_fcw(%rip)\n ldmxcsr native_mxcsr(%rip)\n cld\n"
        "  mov native_rsp(%rip), %rsp\n"
        "  pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "  ret\n"
        ".popsection\n");

static uint64_t native_seed;

/* How an instruction ended. */
struct native_end {
    int vector; /* -1: without exception */
    uint64_t cr2;
};

static struct native_end native_result;
static uint8_t *native_code;

static void native_signal(int sig, siginfo_t *info, void *ctx)
{
    ucontext_t *u = ctx;

    (void)sig;
    (void)info;
    native_result.vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    native_result.cr2 = (uint64_t)u->uc_mcontext.gregs[REG_CR2];
    u->uc_mcontext.gregs[REG_RIP] = (long)native_exit;
    u->uc_mcontext.gregs[REG_EFL] &= ~(long)0x40400;
}

static inline uint64_t native_all_xcr0(void)
{
    uint32_t a, b, c, d;

    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 27))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

static inline uint64_t native_xcr0(void)
{
    return native_all_xcr0() & 0xe7;
}

/* False: this CPU has no XSAVE, there is nothing to compare with. */
static inline bool native_setup(void)
{
    static const int signals[] = {SIGILL, SIGSEGV, SIGFPE, SIGBUS, SIGTRAP};
    struct sigaction sa = {.sa_sigaction = native_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
    void *p;

    if (!native_xcr0())
        return false;
    if (getenv("VMM_TEST_SEED"))
        native_seed = strtoull(getenv("VMM_TEST_SEED"), NULL, 0);
    native_code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = mmap((void *)(NATIVE_DATA - 4096), NATIVE_SIZE + 8192, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (native_code == MAP_FAILED || p != (void *)(NATIVE_DATA - 4096))
        return false;
    mprotect((void *)NATIVE_DATA, NATIVE_SIZE, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &sa, NULL);
    return true;
}

/* Executes on the real CPU. */
static inline struct native_end native_run(struct native_state *s, const uint8_t *insn,
                                           unsigned len)
{
    static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0};
    void *target = native_exit;

    memcpy(native_code, insn, len);
    memcpy(native_code + len, jump, sizeof(jump));
    memcpy(native_code + len + sizeof(jump), &target, 8);
    native_result = (struct native_end){-1, 0};
    s->features = native_xcr0();
    memcpy(s->xsave + 512, &s->features, 8);
    memset(s->xsave + 520, 0, 56);
    native_enter(s, native_code);
    return native_result;
}

/* A fake guest with the same pages. */
static inline struct fake *native_fake(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    fake_put(f, FAKE_PT + (NATIVE_DATA / 4096 - 1) * 8, 8, 0);
    fake_put(f, FAKE_PT + (NATIVE_END / 4096) * 8, 8, 0);
    fake_user(f);
    x86_flush_tlb(f->cpu);
    return f;
}

/* Vector registers, masks and x87 to and from the standard XSAVE layout. */
static inline void native_to_cpu(const struct native_state *s, struct x86_cpu *cpu)
{
    struct x86_fpu *f = &cpu->fpu;
    const uint8_t *x = s->xsave;

    memcpy(&f->fcw, x, 2);
    memcpy(&f->fsw, x + 2, 2);
    f->ftw = x[4];
    memcpy(&f->mxcsr, x + 24, 4);
    memcpy(f->x87, x + 32, 128);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(f->vec[i], x + 160 + 16 * i, 16);
        memcpy(f->vec[i] + 16, x + 576 + 16 * i, 16);
        memcpy(f->vec[i] + 32, x + 1152 + 32 * i, 32);
        memcpy(f->vec[i + 16], x + 1664 + 64 * i, 64);
    }
    memcpy(f->k, x + 1088, 64);
    f->xinuse = 0xe7;
    memcpy(cpu->gpr, s->gpr, sizeof(s->gpr));
    cpu->cc = x86_cc_from_flags((uint32_t)s->flags);
}

static inline void native_from_cpu(struct native_state *s, const struct x86_cpu *cpu)
{
    const struct x86_fpu *f = &cpu->fpu;
    uint8_t *x = s->xsave;

    memcpy(x, &f->fcw, 2);
    memcpy(x + 2, &f->fsw, 2);
    x[4] = f->ftw;
    memcpy(x + 24, &f->mxcsr, 4);
    memcpy(x + 32, f->x87, 128);
    for (unsigned i = 0; i < 16; i++) {
        memcpy(x + 160 + 16 * i, f->vec[i], 16);
        memcpy(x + 576 + 16 * i, f->vec[i] + 16, 16);
        memcpy(x + 1152 + 32 * i, f->vec[i] + 32, 32);
        memcpy(x + 1664 + 64 * i, f->vec[i + 16], 64);
    }
    memcpy(x + 1088, f->k, 64);
    memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
    s->flags = (s->flags & ~(uint64_t)X86_ARITH) | x86_cc_to_flags(cpu->cc);
}

/* The op behind the instruction. */
static inline const struct x86_op *native_behind(struct x86_cpu *cpu, const struct x86_op *op)
{
    (void)cpu;
    return op;
}

/* Executes one instruction in the software CPU, without its run loop. */
static inline struct native_end native_emulate(struct fake *f, struct native_state *s,
                                               const uint8_t *insn, unsigned len)
{
    static uint64_t space[(sizeof(struct x86_block) + 2 * sizeof(struct x86_op)) / 8];
    struct x86_block *blk = (struct x86_block *)space;
    struct x86_cpu *cpu = f->cpu;
    struct x86_op *op = blk->ops;
    struct native_end end = {-1, 0};
    uint8_t code[15] = {0};
    bool last = false;

    memcpy(code, insn, len);
    native_to_cpu(s, cpu);
    memset(space, 0, sizeof(space));
    blk->n = 1;
    blk->ops[1].fn = native_behind;
    cpu->blk = blk;
    cpu->gpr[X86_RIP0] = FAKE_TEXT;
    cpu->event.valid = false;
    if (x86_decode(cpu, cpu->mode, code, 15, op, &last) != len)
        ck_abort_msg("length");
    for (int i = 0; i < 8 && !op->fn(cpu, op) && !cpu->event.valid; i++)
        if (x86_decode(cpu, cpu->mode, code, 15, op, &last) != len) /* the form was dropped */
            ck_abort_msg("length");
    if (cpu->event.valid) {
        end.vector = cpu->event.vector;
        end.cr2 = cpu->event.has_cr2 ? cpu->event.cr2 : 0;
        cpu->event.valid = false;
    }
    native_from_cpu(s, cpu);
    return end;
}

/* ---- random numbers, reports ---- */

static uint64_t native_seed = 1;
static unsigned native_wrong; /* disagreements so far */
static ZydisDecodedInstruction native_insn;

static inline uint64_t rnd(void)
{
    uint64_t z = (native_seed += 0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Repetitions: VMM_TEST_COUNT, or what suits a short run. */
static inline unsigned native_count(unsigned usual)
{
    const char *n = getenv("VMM_TEST_COUNT");

    return n ? (unsigned)atoi(n) : usual;
}

static inline void native_report(const uint8_t *code, const char *what, const struct native_end *n,
                                 const struct native_end *e)
{
    fprintf(stderr,
            "%s: %s (real %d %lx, here %d %lx):", ZydisMnemonicGetString(native_insn.mnemonic),
            what, n->vector, (unsigned long)n->cr2, e->vector, (unsigned long)e->cr2);
    for (unsigned i = 0; i < native_insn.length; i++)
        fprintf(stderr, " %02x", code[i]);
    fprintf(stderr, "\n");
    if (++native_wrong >= 40)
        ck_abort_msg("too many disagreements");
}

static inline void native_dump(const char *name, const void *real, const void *here, unsigned n)
{
    const uint8_t *a = real, *b = here;

    for (unsigned i = 0; i < n; i += 8)
        if (memcmp(a + i, b + i, 8)) {
            uint64_t x, y;

            memcpy(&x, a + i, 8);
            memcpy(&y, b + i, 8);
            fprintf(stderr, "  %s+%u: real %016lx here %016lx\n", name, i, (unsigned long)x,
                    (unsigned long)y);
        }
}

#endif
