/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of the user-mode checks share: each check runs in a process of its own. */
#ifndef USER_H
#define USER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE     4096ul
#define NOT_HERE 77 /* what the check needs, this kernel or CPU does not have */

/* How often a loop is repeated that is to be hot. */
extern long user_rounds;

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("user: %s:%d: not true: %s\n", __FILE__, __LINE__, #what);                      \
            fflush(stdout);                                                                        \
            _Exit(1);                                                                              \
        }                                                                                          \
    } while (0)
#define SKIP(why)                                                                                  \
    do {                                                                                           \
        printf("user: not here: %s\n", why);                                                       \
        fflush(stdout);                                                                            \
        _Exit(NOT_HERE);                                                                           \
    } while (0)

struct user_check {
    const char *name;
    void (*run)(void);
};
extern const struct user_check user_cpu[], user_signals[], user_memory[], user_threads[],
    user_trace[];

/* Anonymous memory, or it ends. */
void *user_pages(unsigned n, int prot);
/* Takes a while, in user mode: the code runs often enough to be worth anything an engine does. */
uint64_t user_spin(long rounds);
/* Installs a handler with SA_SIGINFO and `flags`. */
void user_handle(int sig, void (*handler)(int, void *, void *), int flags);

#endif
