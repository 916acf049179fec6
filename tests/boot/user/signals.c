/* SPDX-License-Identifier: BSD-2-Clause */
/* Signals: what frames show, what handlers change in them, faults of all kinds. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "user.h"

static volatile sig_atomic_t seen, code_seen;
static volatile greg_t rip_seen, trap_seen, error_seen, cr2_seen;
static void *volatile addr_seen;
static volatile greg_t go_on; /* where the handler sends the program; 0: where it was */

static void note(int sig, void *info, void *context)
{
    const siginfo_t *si = info;
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;

    seen = sig;
    code_seen = si->si_code;
    addr_seen = si->si_addr;
    rip_seen = r[REG_RIP];
    trap_seen = r[REG_TRAPNO];
    error_seen = r[REG_ERR];
    cr2_seen = r[REG_CR2];
    if (go_on)
        r[REG_RIP] = go_on;
}

#define EXPECT(sig, rip, trap)                                                                     \
    do {                                                                                           \
        CHECK(seen == (sig));                                                                      \
        CHECK(rip_seen == (greg_t)(rip));                                                          \
        CHECK(trap_seen == (trap));                                                                \
        seen = 0;                                                                                  \
    } while (0)

/* Executes what comes before, and the instruction; the handler goes on behind that. */
#define FAULT(insn, sig, trap, ...) FAULT_AFTER("", insn, sig, trap, __VA_ARGS__)
#define FAULT_AFTER(before, insn, sig, trap, ...)                                                  \
    do {                                                                                           \
        void *at_;                                                                                 \
        __asm__ volatile("lea 2f(%%rip), %%rax\n\tmov %%rax, %1\n\t"                               \
                         "lea 1f(%%rip), %0\n\t" before "\n1:\t" insn "\n2:"                       \
                         : "=&r"(at_), "=m"(go_on)                                                 \
                         : __VA_ARGS__                                                             \
                         : "rax", "memory", "cc");                                                 \
        EXPECT(sig, at_, trap);                                                                    \
    } while (0)

static void faults(void)
{
    char *none = user_pages(2, PROT_NONE), *ro = user_pages(2, PROT_READ);

    CHECK(!munmap(ro + PAGE, PAGE));
    for (int sig = 1; sig < 32; sig++)
        if (sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGFPE || sig == SIGTRAP)
            user_handle(sig, note, 0);
    for (long i = 0; i < user_rounds * 5; i++) {
        user_spin(10);
        FAULT("movb (%2), %%al", SIGSEGV, 14, "r"(none + 123));
        CHECK(addr_seen == none + 123 && error_seen == 4 && cr2_seen == (greg_t)(none + 123));
        CHECK(code_seen == SEGV_ACCERR);
        FAULT("movb %%al, (%2)", SIGSEGV, 14, "r"(none + PAGE));
        CHECK(addr_seen == none + PAGE && error_seen == 6);
        CHECK(*(volatile char *)ro == 0);
        FAULT("movb %%al, (%2)", SIGSEGV, 14, "r"(ro));
        CHECK(addr_seen == ro && error_seen == 7);
        FAULT("mov (%2), %%rax", SIGSEGV, 14, "r"(ro + PAGE - 3)); /* goes over its end */
        CHECK(addr_seen == ro + PAGE);
        FAULT("movb (%2), %%al", SIGSEGV, 13, "r"(0x8000000000000000));
        CHECK(addr_seen == NULL && error_seen == 0);
        FAULT("movb (%2), %%al", SIGSEGV, 14, "r"(0xffffffff81000000));
        FAULT("movb (%2), %%al", SIGSEGV, 14, "r"(16l));
        FAULT("hlt", SIGSEGV, 13);
        FAULT("mov %%cr0, %%rax", SIGSEGV, 13);
        FAULT("in $0x60, %%al", SIGSEGV, 13);
        FAULT("cli", SIGSEGV, 13);
        FAULT("ud2", SIGILL, 6);
        FAULT_AFTER("xor %%eax, %%eax", "divl %%eax", SIGFPE, 0);
        CHECK(code_seen == FPE_INTDIV);
        FAULT("mov %w2, %%ds", SIGSEGV, 13, "r"(0x10));
        CHECK(error_seen == 0x10);
    }
}

/* Behind the instruction, when its handler is called. */
static void traps(void)
{
    user_handle(SIGTRAP, note, 0);
    go_on = 0;
    for (long i = 0; i < user_rounds * 5; i++) {
        void *at;

        user_spin(10);
        __asm__ volatile("lea 1f(%%rip), %0\n\tint3\n1:" : "=r"(at) : : "memory");
        EXPECT(SIGTRAP, at, 3);
        __asm__ volatile("lea 1f(%%rip), %0\n\t.byte 0xcd, 3\n1:" : "=r"(at) : : "memory");
        EXPECT(SIGTRAP, at, 3);
        __asm__ volatile("lea 1f(%%rip), %0\n\t.byte 0xf1\n1:" : "=r"(at) : : "memory");
        EXPECT(SIGTRAP, at, 1);
    }
}

static volatile long steps;
static volatile greg_t first_step, last_step;

static void step(int sig, void *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;

    (void)sig;
    (void)info;
    if (!steps++)
        first_step = r[REG_RIP];
    last_step = r[REG_RIP];
}

/* A program that sets TF itself. */
static void trap_flag(void)
{
    user_handle(SIGTRAP, step, 0);
    for (long i = 0; i < user_rounds; i++) {
        void *first, *last;
        long count = 50;

        user_spin(10);
        steps = 0;
        __asm__ volatile("lea 1f(%%rip), %0\n\tlea 3f(%%rip), %1\n\t"
                         "pushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\t"
                         "nop\n1:\tdec %2\n\tjnz 1b\n\t"
                         "pushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n3:"
                         : "=&r"(first), "=&r"(last), "+r"(count)
                         :
                         : "memory", "cc");
        CHECK(first_step == (greg_t)first);
        CHECK(last_step == (greg_t)last); /* POPF that clears it still traps */
        CHECK(steps == 1 + 2 * 50 + 3);
        CHECK(count == 0);
    }
}

/* A misaligned access with AC. */
static void alignment(void)
{
    char *p = user_pages(1, PROT_READ | PROT_WRITE);

    user_handle(SIGBUS, note, 0);
    for (long i = 0; i < user_rounds * 5; i++) {
        user_spin(10);
        FAULT_AFTER("pushfq\n\torq $0x40000, (%%rsp)\n\tpopfq",
                    "movl 1(%2), %%eax\n2:\tpushfq\n\tandq $~0x40000, (%%rsp)\n\tpopfq", SIGBUS, 17,
                    "r"(p));
    }
}

static volatile long alarms;

static void on_alarm(int sig, void *info, void *context)
{
    __m128i junk = _mm_set1_epi8((char)alarms);

    (void)sig;
    (void)info;
    (void)context;
    __asm__ volatile("movdqa %0, %%xmm7\n\tmovdqa %0, %%xmm15\n\tfninit\n\tfld1\n\tstd\n\tcld"
                     :
                     : "x"(junk)
                     : "xmm7", "xmm15", "memory");
    alarms++;
}

static void every(long us)
{
    struct itimerval t = {{0, us}, {0, us}};

    CHECK(!setitimer(ITIMER_REAL, &t, NULL));
}

/* Timer signals at any instruction leave all registers alone. */
static void interrupted(void)
{
    user_handle(SIGALRM, on_alarm, 0);
    every(1000);
    for (long i = 0; alarms < user_rounds * 5; i++) {
        uint64_t a = 0x1111111111111111, b = 3, lo, hi;
        uint32_t mxcsr = 0x5f80, got;
        uint16_t cw = 0x027f, cw_got;
        double top;

        __asm__ volatile("movq %[a], %%xmm7\n\tmovq %[b], %%xmm15\n\t"
                         "ldmxcsr %[mxcsr]\n\tfninit\n\tfldcw %[cw]\n\tfldpi\n\t"
                         "mov $20000, %%ecx\n"
                         "1:\tpaddq %%xmm15, %%xmm7\n\tadd %[b], %[a]\n\tstc\n\tlahf\n\t"
                         "test $1, %%ah\n\tjz 2f\n\tdec %%ecx\n\tjnz 1b\n"
                         "2:\tmovq %%xmm7, %[lo]\n\tmovq %%xmm15, %[hi]\n\tstmxcsr %[got]\n\t"
                         "fnstcw %[cw_got]\n\tfstpl %[top]\n\tfninit"
                         : [a] "+r"(a), [lo] "=&r"(lo), [hi] "=&r"(hi), [got] "=m"(got),
                           [cw_got] "=m"(cw_got), [top] "=m"(top)
                         : [b] "r"(b), [mxcsr] "m"(mxcsr), [cw] "m"(cw)
                         : "xmm7", "xmm15", "rax", "rcx", "cc", "memory");
        CHECK(a == 0x1111111111111111 + 60000);
        CHECK(lo == a && hi == b);
        CHECK((got & 0xffc0) == mxcsr && cw_got == cw);
        CHECK(top == 3.141592653589793);
        mxcsr = 0x1f80;
        __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    }
}

static sigjmp_buf back;

static void jump_out(int sig, void *info, void *context)
{
    (void)sig;
    (void)info;
    (void)context;
    alarms++;
    siglongjmp(back, 1);
}

/* Endless loops end by a jump out of a handler. */
static void jumped(void)
{
    user_handle(SIGALRM, jump_out, 0);
    for (volatile long i = 0; i < user_rounds; i++)
        if (!sigsetjmp(back, 1)) {
            if (!i)
                every(2000); /* there must be somewhere to go to, ... */
            for (;;)
                __asm__ volatile("");
        }
    every(0); /* ... and not once this has returned */
    CHECK(alarms >= user_rounds);
}

static char *open_page;

static void let_in(int sig, void *info, void *context)
{
    char *page = (char *)((uintptr_t)((siginfo_t *)info)->si_addr & ~(PAGE - 1));

    (void)sig;
    (void)context;
    alarms++;
    CHECK(!mprotect(page, PAGE, PROT_READ | PROT_WRITE));
    if (open_page)
        CHECK(!mprotect(open_page, PAGE, PROT_NONE));
    open_page = page;
}

/* A string instruction that faults at each page, on a handler with a stack of its own. */
static void strings(void)
{
    stack_t alt = {.ss_sp = user_pages(16, PROT_READ | PROT_WRITE), .ss_size = 16 * PAGE};
    char *p = user_pages(16, PROT_NONE);

    CHECK(!sigaltstack(&alt, NULL));
    user_handle(SIGSEGV, let_in, SA_ONSTACK);
    for (long i = 0; i < user_rounds; i++) {
        char *to = p;
        uint64_t count = 16 * PAGE;

        alarms = 0;
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(i) : "memory");
        CHECK(alarms == 16);
        CHECK(to == p + 16 * PAGE && !count);
        for (unsigned j = 0; j < 16; j++)
            CHECK(p[j * PAGE + 77] == (char)i && p[j * PAGE + PAGE - 1] == (char)i);
        CHECK(!mprotect(p, 16 * PAGE, PROT_NONE));
        open_page = NULL;
    }
}

/* The page of old system calls: executed by the kernel for whoever jumps there, or a fault. */
static void vsyscall(void)
{
    long (*const time_there)(long *) = (long (*)(long *))0xffffffffff600400ul;

    user_handle(SIGSEGV, jump_out, 0);
    for (volatile long i = 0; i < user_rounds * 10; i++) {
        long t, now;
        uint64_t rsp_before, rsp_after;

        if (sigsetjmp(back, 1))
            SKIP("vsyscall");
        __asm__ volatile("mov %%rsp, %0" : "=r"(rsp_before));
        t = time_there(NULL);
        __asm__ volatile("mov %%rsp, %0" : "=r"(rsp_after));
        now = time(NULL);
        CHECK(t && now - t <= 1 && now >= t);
        CHECK(rsp_before == rsp_after);
        user_spin(10);
    }
}

const struct user_check user_signals[] = {
    {"faults", faults},
    {"traps", traps},
    {"trap-flag", trap_flag},
    {"alignment", alignment},
    {"interrupted", interrupted},
    {"jumped", jumped},
    {"strings", strings},
    {"vsyscall", vsyscall},
    {0},
};
