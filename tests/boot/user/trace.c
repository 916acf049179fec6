/* SPDX-License-Identifier: BSD-2-Clause */
/* A debugger's work: single steps, breakpoints, watchpoints, system calls that are stopped at. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user.h"

#define LOOPS 250

/* Four instructions a round, of different lengths. */
extern const uint8_t stepped[], stepped_loop[], stepped_end[];
volatile uint64_t watched __asm__("watched");
__asm__(".text\n\t.globl stepped, stepped_loop, stepped_end\nstepped:\n\tmov %rdi, %rcx\n"
        "\txor %eax, %eax\n"
        "stepped_loop:\n\tlea 3(%rax,%rcx,4), %rax\n\tpush %rax\n\tpop %rdx\n\tloop stepped_loop\n"
        "stepped_end:\n\tmov %rax, watched\n\tret\n");

static uint64_t call_stepped(uint64_t n)
{
    return ((uint64_t(*)(uint64_t))(uintptr_t)stepped)(n);
}

static uint64_t expected(uint64_t n)
{
    return 3 * n + 4 * (n * (n + 1) / 2);
}

/* A child that has become hot, stopped by SIGSTOP; it then calls the function with LOOPS. */
static pid_t traced_child(void)
{
    int status;
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (!pid) {
        CHECK(!ptrace(PTRACE_TRACEME, 0, 0, 0));
        user_spin(300);
        for (long i = 0; i < user_rounds * 50; i++)
            CHECK(call_stepped(LOOPS) == expected(LOOPS));
        watched = 0;
        raise(SIGSTOP);
        CHECK(call_stepped(LOOPS) == expected(LOOPS));
        user_spin(10);
        CHECK(call_stepped(LOOPS) == expected(LOOPS));
        CHECK((pid_t)syscall(SYS_getppid) == getppid());
        _exit(5);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    return pid;
}

static void go(pid_t pid, int request, int signal)
{
    int status;

    CHECK(!ptrace(request, pid, 0, 0));
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == signal);
}

static void finish(pid_t pid)
{
    int status;

    CHECK(!ptrace(PTRACE_CONT, pid, 0, 0));
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 5);
}

static uint64_t rip_of(pid_t pid)
{
    struct user_regs_struct r;

    CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r));
    return r.rip;
}

static void put_breakpoint(pid_t pid, const uint8_t *at, long *old)
{
    *old = ptrace(PTRACE_PEEKTEXT, pid, at, 0);
    CHECK(!ptrace(PTRACE_POKETEXT, pid, at, (*old & ~0xffl) | 0xcc));
}

static void take_breakpoint(pid_t pid, const uint8_t *at, long old)
{
    struct user_regs_struct r;

    CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r));
    CHECK(r.rip == (uint64_t)at + 1);
    r.rip--;
    CHECK(!ptrace(PTRACE_POKETEXT, pid, at, old) && !ptrace(PTRACE_SETREGS, pid, 0, &r));
}

/* To a breakpoint, then instruction by instruction. */
static void single_step(void)
{
    pid_t pid = traced_child();
    struct user_regs_struct r;
    uint64_t at[4];
    long old;

    put_breakpoint(pid, stepped, &old);
    go(pid, PTRACE_CONT, SIGTRAP);
    take_breakpoint(pid, stepped, old);
    go(pid, PTRACE_SINGLESTEP, SIGTRAP);
    CHECK(rip_of(pid) == (uint64_t)stepped + 3);
    go(pid, PTRACE_SINGLESTEP, SIGTRAP);
    CHECK(rip_of(pid) == (uint64_t)stepped_loop);
    for (unsigned i = 0; i < 4 * LOOPS; i++) {
        uint64_t rip = rip_of(pid);

        if (i < 4)
            at[i] = rip;
        CHECK(rip == at[i % 4]);
        go(pid, PTRACE_SINGLESTEP, SIGTRAP);
    }
    CHECK(rip_of(pid) == (uint64_t)stepped_end);
    CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r) && r.rcx == 0 && r.rax == expected(LOOPS));
    CHECK(at[1] - at[0] == 5 && at[2] - at[1] == 1 && at[3] - at[2] == 1);
    finish(pid);
}

/* A breakpoint in the middle of a loop, again and again. */
static void breakpoints(void)
{
    pid_t pid = traced_child();
    struct user_regs_struct r;
    long old;

    for (uint64_t i = 0; i < 20; i++) {
        put_breakpoint(pid, stepped_loop, &old);
        go(pid, PTRACE_CONT, SIGTRAP);
        take_breakpoint(pid, stepped_loop, old);
        CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r) && r.rcx == LOOPS - i);
        go(pid, PTRACE_SINGLESTEP, SIGTRAP);
    }
    finish(pid);
}

static void set_debug(pid_t pid, unsigned n, uint64_t value)
{
    CHECK(!ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg) + n * 8ul, value));
}

/* Debug registers: a store to a variable, then an instruction. */
static void hardware(void)
{
    pid_t pid = traced_child();
    uint64_t dr6;

    set_debug(pid, 0, (uint64_t)&watched);
    set_debug(pid, 7, 0x000d0001); /* 8 bytes would be 9; 4 bytes, stores */
    go(pid, PTRACE_CONT, SIGTRAP);
    CHECK(rip_of(pid) > (uint64_t)stepped_end && rip_of(pid) <= (uint64_t)stepped_end + 8);
    dr6 = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, u_debugreg) + 48, 0);
    CHECK((dr6 & 15) == 1);
    set_debug(pid, 7, 0);
    set_debug(pid, 1, (uint64_t)stepped_end);
    set_debug(pid, 7, 4);
    go(pid, PTRACE_CONT, SIGTRAP);
    CHECK(rip_of(pid) == (uint64_t)stepped_end);
    set_debug(pid, 7, 0);
    finish(pid);
}

/* Steps over system calls, and stops at them. */
static void stops(void)
{
    pid_t pid = traced_child();
    struct user_regs_struct r;
    long calls = 0;

    for (;;) {
        int status;

        CHECK(!ptrace(PTRACE_SYSCALL, pid, 0, 0));
        CHECK(waitpid(pid, &status, 0) == pid);
        if (WIFEXITED(status)) {
            CHECK(WEXITSTATUS(status) == 5);
            break;
        }
        CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
        CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r));
        if (r.orig_rax == SYS_getppid)
            calls++;
    }
    CHECK(calls == 4);
}

extern const uint8_t endless[], endless_end[];
__asm__(".text\nendless:\n\txor %ebx, %ebx\n"
        "1:\tmov $1, %ecx\n\tcmp $7, %rbx\n\tjne 1b\nendless_end:\n\tud2\n");

/* One that runs for ever is stopped from outside, and goes on with another register. */
static void attached(void)
{
    for (long i = 0; i < user_rounds; i++) {
        struct user_regs_struct r = {0};
        int status;
        pid_t pid = fork();

        if (!pid)
            ((void (*)(void))(uintptr_t)endless)();
        CHECK(pid > 0);
        do {
            user_spin(50);
            CHECK(!r.rip || !ptrace(PTRACE_DETACH, pid, 0, 0));
            CHECK(!ptrace(PTRACE_ATTACH, pid, 0, 0));
            CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
            CHECK(!ptrace(PTRACE_GETREGS, pid, 0, &r));
        } while (r.rip < (uint64_t)endless + 2 || r.rip >= (uint64_t)endless_end);
        CHECK(r.rbx == 0);
        r.rbx = 7;
        CHECK(!ptrace(PTRACE_SETREGS, pid, 0, &r));
        CHECK(!ptrace(PTRACE_DETACH, pid, 0, 0));
        CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
    }
}

const struct user_check user_trace[] = {
    {"single-step", single_step}, {"breakpoints", breakpoints},
    {"hardware", hardware},       {"stops", stops},
    {"attached", attached},       {0},
};
