/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Checks what user code of a Linux guest can see of its CPU and its memory: static, for x86-64.
 *
 *   user [-r ROUNDS] [NAME...]
 *
 * Prints a line for each check, "user: all passed" at the end if so. It passes on real hardware.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user.h"

#define LIMIT 240 /* seconds; on translated code, of a machine that is busy */

long user_rounds = 20;

static const struct user_check *const parts[] = {user_cpu, user_signals, user_memory, user_threads,
                                                 user_trace};

void *user_pages(unsigned n, int prot)
{
    void *p = mmap(NULL, n * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(p != MAP_FAILED);
    return p;
}

uint64_t user_spin(long rounds)
{
    uint64_t x = 88172645463325252ull;

    for (long i = 0; i < rounds * 1000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

void user_handle(int sig, void (*handler)(int, void *, void *), int flags)
{
    struct sigaction a = {.sa_flags = SA_SIGINFO | flags};

    a.sa_sigaction = (void (*)(int, siginfo_t *, void *))handler;
    CHECK(!sigaction(sig, &a, NULL));
}

static int run(const struct user_check *check)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (!pid) {
        alarm(LIMIT);
        check->run();
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    if (WIFSIGNALED(status))
        printf("user: %s: FAILED: ended by signal %d\n", check->name, WTERMSIG(status));
    else if (WEXITSTATUS(status) == NOT_HERE)
        printf("user: %s: skipped\n", check->name);
    else if (WEXITSTATUS(status))
        printf("user: %s: FAILED\n", check->name);
    else
        printf("user: %s: ok\n", check->name);
    return status && !(WIFEXITED(status) && WEXITSTATUS(status) == NOT_HERE);
}

static int is_chosen(const char *name, char **names, int n)
{
    int chosen = !n;

    for (int i = 0; i < n; i++)
        chosen |= !strcmp(name, names[i]);
    return chosen;
}

int main(int argc, char **argv)
{
    int failed = 0, passed = 0, option;

    while ((option = getopt(argc, argv, "r:")) != -1) {
        if (option != 'r')
            return 2;
        user_rounds = atol(optarg);
    }
    if (optind < argc && !strcmp(argv[optind], "exec"))
        return 42; /* executed by a check */
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        for (const struct user_check *c = parts[i]; c->name; c++)
            if (is_chosen(c->name, argv + optind, argc - optind))
                *(run(c) ? &failed : &passed) += 1;
    if (failed)
        printf("user: %d failed\n", failed);
    else if (passed)
        printf("user: all passed\n");
    return failed || !passed;
}
