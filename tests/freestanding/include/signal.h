/* SPDX-License-Identifier: BSD-2-Clause */
/* signal.h of tests on a bare machine, which has none: cases that use them are not offered. */
#ifndef TESTS_SIGNAL_H
#define TESTS_SIGNAL_H

#define SIGKILL      9
#define SIGUSR1      10
#define SIGSTOP      19
#define SIGEV_SIGNAL 0
#define SIG_SETMASK  2

typedef unsigned long sigset_t;
struct sigaction {
    void (*sa_handler)(int number);
};
struct sigevent {
    int sigev_notify, sigev_signo;
};

int sigaction(int number, const struct sigaction *action, struct sigaction *old);
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int sigfillset(sigset_t *set);
int sigismember(const sigset_t *set, int number);
int sigpending(sigset_t *set);

#endif
