/* SPDX-License-Identifier: BSD-2-Clause */
/* outcome.c: a case in a child process; the child sends its failure through a pipe. */
#include "outcome.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static int to_parent = -1; /* in the child */

_Noreturn void outcome_end(const struct outcome *out)
{
    /* One write of less than PIPE_BUF: two threads that fail do not mix. */
    ssize_t sent = write(to_parent, out, sizeof(*out));

    _exit(sent == sizeof(*out) ? 0 : 2);
}

static _Noreturn void child(void (*run)(const void *), const void *arg, unsigned seconds)
{
    struct rlimit none = {0, 0};
    struct outcome out = {.result = OUTCOME_PASS};

    setrlimit(RLIMIT_CORE, &none);
    signal(SIGALRM, SIG_DFL);
    alarm(seconds);
    run(arg);
    if (write(to_parent, &out, sizeof(out)) != sizeof(out))
        _exit(2);
    exit(0); /* sanitizers look for leaks then */
}

static void set_text(struct outcome *out, const char *what, int number, const char *name)
{
    out->result = OUTCOME_FAIL;
    snprintf(out->text, sizeof(out->text), "%s %d%s%s", what, number, name ? ": " : "",
             name ? name : "");
}

static void collect(int fd, pid_t pid, unsigned seconds, struct outcome *out)
{
    ssize_t n;
    int status;

    do
        n = read(fd, out, sizeof(*out));
    while (n < 0 && errno == EINTR);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        out->result = OUTCOME_FAIL;
        snprintf(out->text, sizeof(out->text), "hangs: not over after %u s", seconds);
    } else if (WIFSIGNALED(status)) {
        set_text(out, "killed by signal", WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != 0) {
        set_text(out, "exit status", WEXITSTATUS(status), NULL);
    } else if (n != sizeof(*out)) {
        set_text(out, "ended without a result, exit status", 0, NULL);
    }
    out->text[sizeof(out->text) - 1] = 0;
}

void outcome_run(void (*run)(const void *arg), const void *arg, unsigned seconds,
                 struct outcome *out)
{
    int fds[2];
    pid_t pid;

    memset(out, 0, sizeof(*out));
    fflush(NULL);
    if (pipe(fds) != 0) {
        set_text(out, "pipe: errno", errno, NULL);
        return;
    }
    pid = fork();
    if (pid == 0) {
        close(fds[0]);
        to_parent = fds[1];
        child(run, arg, seconds);
    }
    close(fds[1]);
    if (pid < 0)
        set_text(out, "fork: errno", errno, NULL);
    else
        collect(fds[0], pid, seconds, out);
    close(fds[0]);
}
