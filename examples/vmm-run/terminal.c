/* SPDX-License-Identifier: BSD-2-Clause */
/* terminal.c: raw mode of the controlling terminal, undone however the process ends. */
#include "terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/* One process has one controlling terminal: this is its state. */
static struct {
    int fd;
    struct termios saved;
    int known;
    volatile sig_atomic_t raw;
} terminal;

static const int fatal_signals[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

void terminal_restore(void)
{
    int saved_errno = errno;

    if (terminal.raw) {
        terminal.raw = 0;
        tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
    }
    errno = saved_errno;
}

/* SA_RESETHAND has put the default action back: the signal ends the process when this returns. */
static void restore_and_die(int number)
{
    terminal_restore();
    raise(number);
}

static void guard(void)
{
    struct sigaction action = {.sa_handler = restore_and_die, .sa_flags = (int)SA_RESETHAND};

    atexit(terminal_restore);
    for (size_t i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++) {
        struct sigaction old;

        /* A handler that is there already belongs to a sanitizer: leave it. */
        if (sigaction(fatal_signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
            sigaction(fatal_signals[i], &action, NULL);
        }
    }
}

int terminal_raw(int fd)
{
    struct termios raw;

    if (!terminal.known) {
        if (tcgetattr(fd, &terminal.saved) != 0) {
            return errno;
        }
        terminal.fd = fd;
        terminal.known = 1;
        guard();
    }
    /* Changing it from the background would only stop the process; SIGCONT comes when that ends. */
    if (tcgetpgrp(fd) != getpgrp()) {
        return 0;
    }
    raw = terminal.saved;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* messages on stderr keep their line ends */
    terminal.raw = 1;     /* before the change: a signal in between must undo it */
    if (tcsetattr(fd, TCSANOW, &raw) != 0) {
        terminal.raw = 0;
        return errno;
    }
    return 0;
}
