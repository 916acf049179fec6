/* SPDX-License-Identifier: BSD-2-Clause */
/* What programs ask of the kernel:
 * "kernel syscall|fault|switch|signal|raise|map|fork|spawn|file SIZE". */
#define _GNU_SOURCE
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

/* The null system call. */
static uint64_t null_syscall(long n)
{
    uint64_t same = 0;
    long parent = getppid();
    for (long i = 0; i < n; i++)
        same += syscall(SYS_getppid) == parent;
    return same;
}

/* A touched anonymous page. */
static uint64_t page_fault(long n)
{
    enum { PAGES = 1024 };
    uint64_t sum = 0;
    for (long done = 0; done < n; done += PAGES) {
        char *p =
            mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "mmap");
        madvise(p, PAGES * 4096, MADV_NOHUGEPAGE);
        for (long i = 0; i < PAGES; i++) {
            sum += (uint8_t)p[i * 4096];
            p[i * 4096] = (char)(i | 1);
        }
        for (long i = 0; i < PAGES; i++)
            sum += p[i * 4096] != 0;
        munmap(p, PAGES * 4096);
    }
    return sum;
}

/* Two processes on one CPU hand a byte to and fro through pipes. */
static uint64_t context_switch(long n)
{
    int there[2], back[2];
    char byte = 1;
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    check(sched_setaffinity(0, sizeof(first), &first) == 0, "sched_setaffinity");
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        close(there[1]);
        while (read(there[0], &byte, 1) == 1) {
            byte++;
            if (write(back[1], &byte, 1) != 1)
                _exit(1);
        }
        _exit(0);
    }
    for (long i = 0; i < n; i++)
        check(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
    close(there[1]);
    waitpid(child, NULL, 0);
    return (uint8_t)byte;
}

static volatile uint64_t signals;

static void skip_store(int number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    (void)number;
    (void)info;
    signals++;
    at->uc_mcontext.gregs[REG_RIP] += 2; /* movb %al, (%rdx) */
}

static void count(int number)
{
    (void)number;
    signals++;
}

/* A store to a protected page; the handler goes on behind it. */
static uint64_t fault_signal(long n)
{
    struct sigaction action = {.sa_sigaction = skip_store, .sa_flags = SA_SIGINFO};
    check(sigaction(SIGSEGV, &action, NULL) == 0, "sigaction");
    char *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(p != MAP_FAILED, "mmap");
    for (long i = 0; i < n; i++)
        __asm__ volatile("movb %%al, (%%rdx)" ::"a"(1), "d"(p) : "memory");
    return signals;
}

static uint64_t own_signal(long n)
{
    struct sigaction action = {.sa_handler = count};
    check(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
    for (long i = 0; i < n; i++)
        raise(SIGUSR1);
    return signals;
}

/* A small mapping, one page of it used. */
static uint64_t map(long n)
{
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(p != MAP_FAILED, "mmap");
        p[i * 4096 % 65536] = (char)i;
        sum += (uint8_t)p[i * 4096 % 65536];
        munmap(p, 65536);
    }
    return sum;
}

/* A process that ends at once, or one that executes "true" in this directory. */
static uint64_t processes(long n, int with_exec)
{
    uint64_t good = 0;
    for (long i = 0; i < n; i++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) {
            if (with_exec)
                execl("./true", "true", (char *)NULL);
            _exit(with_exec ? 1 : 0);
        }
        int status;
        good += waitpid(child, &status, 0) == child && status == 0;
    }
    return good;
}

static uint64_t forks(long n)
{
    return processes(n, 0);
}

static uint64_t spawns(long n)
{
    return processes(n, 1);
}

/* A memory file of 1 MiB written and read in pieces of 4 KiB. */
static uint64_t file(long n)
{
    static char block[4096];
    uint64_t sum = 0;
    int fd = memfd_create("bench", 0);
    check(fd >= 0, "memfd_create");
    bench_text(block, sizeof(block), 61);
    for (long i = 0; i < n; i++) {
        off_t at = i * 4096 % (1 << 20);
        check(pwrite(fd, block, sizeof(block), at) == sizeof(block), "pwrite");
        check(pread(fd, block, sizeof(block), at / 2 / 4096 * 4096) == sizeof(block), "pread");
        sum = bench_mix(sum, (uint8_t)block[i % 4096]);
    }
    return sum;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint64_t (*run)(long);
    } kinds[] = {{"syscall", null_syscall}, {"fault", page_fault}, {"switch", context_switch},
                 {"signal", fault_signal},  {"raise", own_signal}, {"map", map},
                 {"fork", forks},           {"spawn", spawns},     {"file", file}};
    if (argc < 3)
        return 2;
    long n = bench_size(argc - 1, argv + 1);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, argv[1]) == 0)
            return bench_print(argv[1], kinds[i].run(n));
    return 2;
}
