/* SPDX-License-Identifier: BSD-2-Clause */
/* native.c: runs a case on the real CPU: in a traced child that has nothing mapped but the code,
 * the data and a stub. Its system calls are swallowed (PTRACE_SYSEMU). */
#define _GNU_SOURCE
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "diff.h"

#define STUB 0x30000000u

#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU 31
#endif

static pid_t child;
static uint8_t *code, *data;
static struct diff_layout layout;
static uint8_t *area; /* of the child, as it was at its start */

const struct diff_layout *diff_native_layout(void)
{
    return &layout;
}

static void read_layout(void)
{
    unsigned eax, ebx, ecx, edx;

    __cpuid_count(0xd, 0, eax, ebx, ecx, edx);
    layout.size = ecx; /* all that the CPU has, AMX included */
    layout.mask = eax;
    for (unsigned i = 2; i < 16; i++) {
        if (!(layout.mask >> i & 1))
            continue;
        __cpuid_count(0xd, i, eax, ebx, ecx, edx);
        layout.offset[i] = ebx;
    }
}

static void child_main(int code_fd, int data_fd)
{
    static const uint8_t stub[] = {0x0f, 0x05, 0xcc}; /* syscall; int3 */
    void *p = mmap((void *)(uintptr_t)STUB, 4096, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    if (p == MAP_FAILED)
        _exit(1);
    /* The C library's restartable sequence area goes away with its page. */
    if (__rseq_size != 0)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1, RSEQ_SIG);
    memcpy(p, stub, sizeof(stub));
    if (mprotect(p, 4096, PROT_READ | PROT_EXEC) != 0 ||
        mmap((void *)(uintptr_t)DIFF_CODE, DIFF_CODE_SIZE, PROT_READ | PROT_EXEC,
             MAP_SHARED | MAP_FIXED, code_fd, 0) == MAP_FAILED ||
        mmap((void *)(uintptr_t)DIFF_DATA, DIFF_DATA_SIZE, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED, data_fd, 0) == MAP_FAILED ||
        ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        _exit(1);
    }
    raise(SIGSTOP);
    _exit(0);
}

static int wait_signal(void)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFSTOPPED(status) ? WSTOPSIG(status) : -1;
}

/* munmap in the child, by the stub. */
static int unmap(uint64_t start, uint64_t end)
{
    struct user_regs_struct r;

    if (ptrace(PTRACE_GETREGS, child, NULL, &r) != 0)
        return -1;
    r.rip = STUB;
    r.rax = 11;
    r.rdi = start;
    r.rsi = end - start;
    r.orig_rax = (uint64_t)-1;
    if (ptrace(PTRACE_SETREGS, child, NULL, &r) != 0 || ptrace(PTRACE_CONT, child, NULL, NULL) != 0)
        return -1;
    return wait_signal() == SIGTRAP ? 0 : -1;
}

static int unmap_all(void)
{
    struct {
        uint64_t start, end;
    } maps[256];
    unsigned n = 0;
    char name[64], line[512];
    FILE *f;

    snprintf(name, sizeof(name), "/proc/%d/maps", (int)child);
    f = fopen(name, "r");
    if (f == NULL)
        return -1;
    while (n < 256 && fgets(line, sizeof(line), f) != NULL) {
        unsigned long long start, end;

        if (sscanf(line, "%llx-%llx", &start, &end) != 2 || start == STUB || start == DIFF_CODE ||
            start == DIFF_DATA || start >> 47)
            continue;
        maps[n].start = start;
        maps[n++].end = end;
    }
    fclose(f);
    while (n-- > 0)
        if (unmap(maps[n].start, maps[n].end) != 0)
            return -1;
    return 0;
}

static void *share(int *fd, size_t len)
{
    *fd = memfd_create("diff", MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)len) != 0)
        return MAP_FAILED;
    return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
}

int diff_native_start(void)
{
    int code_fd, data_fd;
    struct iovec iov;

    read_layout();
    code = share(&code_fd, DIFF_CODE_SIZE);
    data = share(&data_fd, DIFF_DATA_SIZE);
    area = calloc(1, layout.size);
    if (code == MAP_FAILED || data == MAP_FAILED || area == NULL)
        return -1;
    child = fork();
    if (child == 0)
        child_main(code_fd, data_fd);
    close(code_fd);
    close(data_fd);
    if (child < 0 || wait_signal() != SIGSTOP || unmap_all() != 0)
        return -1;
    ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)PTRACE_O_EXITKILL);
    iov = (struct iovec){area, layout.size};
    if (ptrace(PTRACE_GETREGSET, child, (void *)(uintptr_t)NT_X86_XSTATE, &iov) != 0)
        return -1;
    /* The kernel says in bytes 464-471 which components it lets the process have. */
    memcpy(&layout.mask, area + 464, 8);
    for (unsigned i = 2; i < 16; i++)
        if (!(layout.mask >> i & 1))
            layout.offset[i] = 0;
    layout.size = (uint32_t)iov.iov_len;
    return 0;
}

void diff_native_stop(void)
{
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    child = 0;
}

static int set_state(const struct diff_case *c)
{
    struct user_regs_struct r;
    const struct diff_state *s = &c->init;
    struct iovec iov = {area, layout.size};

    memcpy(code, c->code, c->len);
    memcpy(data, s->data, DIFF_DATA_SIZE);
    if (ptrace(PTRACE_GETREGS, child, NULL, &r) != 0)
        return -1;
    r.rax = s->gpr[0];
    r.rcx = s->gpr[1];
    r.rdx = s->gpr[2];
    r.rbx = s->gpr[3];
    r.rsp = s->gpr[4];
    r.rbp = s->gpr[5];
    r.rsi = s->gpr[6];
    r.rdi = s->gpr[7];
    r.r8 = s->gpr[8];
    r.r9 = s->gpr[9];
    r.r10 = s->gpr[10];
    r.r11 = s->gpr[11];
    r.r12 = s->gpr[12];
    r.r13 = s->gpr[13];
    r.r14 = s->gpr[14];
    r.r15 = s->gpr[15];
    r.rip = DIFF_CODE;
    r.eflags = s->rflags;
    r.orig_rax = (uint64_t)-1;
    r.cs = c->code32 ? DIFF_CS32 : DIFF_CS64;
    r.ss = DIFF_DS;
    r.ds = r.es = c->code32 ? DIFF_DS : 0;
    r.fs = r.gs = 0;
    r.fs_base = s->fs_base;
    r.gs_base = s->gs_base;
    diff_vec_to_area(&s->vec, area, &layout);
    if (ptrace(PTRACE_SETREGS, child, NULL, &r) != 0)
        return -1;
    return (int)ptrace(PTRACE_SETREGSET, child, (void *)(uintptr_t)NT_X86_XSTATE, &iov);
}

static enum diff_end end_of(int sig, const siginfo_t *info)
{
    switch (sig) {
    case SIGTRAP:
        return info->si_code == SI_KERNEL ? DIFF_DONE : DIFF_OTHER;
    case SIGILL:
        return DIFF_UNDEFINED;
    case SIGFPE:
        return info->si_code == FPE_INTDIV ? DIFF_DIVIDE : DIFF_FLOAT;
    case SIGBUS:
        return info->si_code == BUS_ADRALN ? DIFF_ALIGN : DIFF_STACK;
    case SIGSEGV:
        return info->si_code == SI_KERNEL ? DIFF_PROTECT : DIFF_PAGE;
    default:
        return DIFF_OTHER;
    }
}

static int get_state(struct diff_state *s)
{
    struct user_regs_struct r;
    static uint8_t *buf;
    struct iovec iov;

    if (buf == NULL)
        buf = calloc(1, layout.size);
    iov = (struct iovec){buf, layout.size};
    if (ptrace(PTRACE_GETREGS, child, NULL, &r) != 0 ||
        ptrace(PTRACE_GETREGSET, child, (void *)(uintptr_t)NT_X86_XSTATE, &iov) != 0)
        return -1;
    s->gpr[0] = r.rax;
    s->gpr[1] = r.rcx;
    s->gpr[2] = r.rdx;
    s->gpr[3] = r.rbx;
    s->gpr[4] = r.rsp;
    s->gpr[5] = r.rbp;
    s->gpr[6] = r.rsi;
    s->gpr[7] = r.rdi;
    s->gpr[8] = r.r8;
    s->gpr[9] = r.r9;
    s->gpr[10] = r.r10;
    s->gpr[11] = r.r11;
    s->gpr[12] = r.r12;
    s->gpr[13] = r.r13;
    s->gpr[14] = r.r14;
    s->gpr[15] = r.r15;
    s->rip = r.rip;
    s->rflags = r.eflags;
    s->fs_base = r.fs_base;
    s->gs_base = r.gs_base;
    diff_vec_from_area(&s->vec, buf, &layout);
    memcpy(s->data, data, DIFF_DATA_SIZE);
    return 0;
}

int diff_native_run(const struct diff_case *c, struct diff_state *out)
{
    siginfo_t info;
    int sig;

    if (set_state(c) != 0 || ptrace(PTRACE_SYSEMU, child, NULL, NULL) != 0)
        return -1;
    sig = wait_signal();
    if (sig < 0 || ptrace(PTRACE_GETSIGINFO, child, NULL, &info) != 0 || get_state(out) != 0)
        return -1;
    out->end = end_of(sig, &info);
    out->addr = out->end == DIFF_PAGE ? (uint64_t)(uintptr_t)info.si_addr : 0;
    return 0;
}
