/* SPDX-License-Identifier: BSD-2-Clause */
/* port.c: the functions of C and POSIX that the drivers of tests and their cases call, on a bare
 * machine. What such a machine does not have is not offered to the case that wants it. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../examples/type1/host.h"
#include "../common/outcome.h"
#include "port.h"
#include "threads.h"

/* ---- output ---- */

struct port_file {
    int unused;
};
static FILE serial;
FILE *const stdout = &serial, *const stderr = &serial;
static bool muted;

void port_mute(bool mute)
{
    muted = mute;
}

__attribute__((format(printf, 1, 0))) static int print(const char *f, va_list ap)
{
    char text[1024];
    int n = vsnprintf(text, sizeof(text), f, ap);

    if (!muted)
        host_write(text, strlen(text));
    return n;
}

int printf(const char *f, ...)
{
    va_list ap;
    int n;

    va_start(ap, f);
    n = print(f, ap);
    va_end(ap);
    return n;
}

int fprintf(FILE *to, const char *f, ...)
{
    va_list ap;
    int n;

    (void)to;
    va_start(ap, f);
    n = print(f, ap);
    va_end(ap);
    return n;
}

int fflush(FILE *f)
{
    (void)f;
    return 0;
}

void perror(const char *text)
{
    printf("# %s: there are no files\n", text);
}

/* ---- the heap: whole pages, the first word of which is their number ---- */

#define HEAD 64u

void *malloc(size_t size)
{
    size_t n = (size + HEAD + 4095) / 4096;
    size_t *p = host_ops.pages_alloc(NULL, n);

    if (!p)
        return NULL;
    *p = n;
    return (uint8_t *)p + HEAD;
}

static size_t *head(void *p)
{
    return (size_t *)(void *)((uintptr_t)p & ~(uintptr_t)4095);
}

void *calloc(size_t n, size_t size)
{
    return malloc(n * size); /* pages are zeroed */
}

void *realloc(void *p, size_t size)
{
    void *q = malloc(size);
    size_t old = p ? *head(p) * 4096 - HEAD : 0;

    if (q && p)
        memcpy(q, p, old < size ? old : size);
    if (q)
        free(p);
    return q;
}

/* A page apart from its head: enough for pages. */
void *aligned_alloc(size_t alignment, size_t size)
{
    size_t n = (size + 4095) / 4096 + 1, *p;

    if (alignment > 4096)
        abort();
    p = host_ops.pages_alloc(NULL, n);
    return p ? (uint8_t *)p + 4096 : NULL;
}

/* Blocks of aligned_alloc stay: they begin with a page, not with a head. */
void free(void *p)
{
    if (p && ((uintptr_t)p & 4095) == HEAD)
        host_ops.pages_free(NULL, head(p), *head(p));
}

_Noreturn void abort(void)
{
    host_print("Bail out! abort\n");
    host_exit(false);
}

/* ---- strings ---- */

char *strchr(const char *s, int c)
{
    for (; *s != (char)c; s++)
        if (!*s)
            return NULL;
    return (char *)(uintptr_t)s;
}

char *strrchr(const char *s, int c)
{
    char *found = NULL;

    for (; (s = strchr(s, c)) && c; s++)
        found = (char *)(uintptr_t)s;
    return found;
}

size_t strcspn(const char *s, const char *stop)
{
    size_t n = 0;

    while (s[n] && !strchr(stop, s[n]))
        n++;
    return n;
}

char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = malloc(n);

    return copy ? memcpy(copy, s, n) : NULL;
}

int atoi(const char *s)
{
    int n = 0;

    for (; *s >= '0' && *s <= '9'; s++)
        n = n * 10 + *s - '0';
    return n;
}

/* ---- threads and time ---- */

struct port_thread {
    struct thread *thread;
    void *(*run)(void *arg);
    void *arg, *result;
};

static void run_thread(void *arg)
{
    struct port_thread *t = arg;

    t->result = t->run(t->arg);
}

int pthread_create(pthread_t *thread, const void *attr, void *(*run)(void *arg), void *arg)
{
    struct port_thread *t = malloc(sizeof(*t));

    (void)attr;
    if (!t)
        return 1;
    *t = (struct port_thread){.run = run, .arg = arg};
    *thread = t;
    t->thread = thread_start(run_thread, t);
    return !t->thread;
}

int pthread_join(pthread_t t, void **result)
{
    thread_join(t->thread);
    if (result)
        *result = t->result;
    free(t);
    return 0;
}

int sched_yield(void)
{
    thread_yield();
    return 0;
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
    uint64_t ns = (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;

    (void)left;
    thread_wait(NULL, 0, thread_now() + ns);
    return 0;
}

/* ---- one pipe, for what a case tells its driver ---- */

static struct {
    uint8_t data[4096];
    size_t n;
} in_pipe;

int pipe(int fds[2])
{
    in_pipe.n = 0;
    fds[0] = fds[1] = 1000;
    return 0;
}

ssize_t read(int fd, void *to, size_t n)
{
    if (fd != 1000)
        outcome_not_offered("files and descriptors");
    if (n > in_pipe.n)
        n = in_pipe.n;
    memcpy(to, in_pipe.data, n);
    memmove(in_pipe.data, in_pipe.data + n, in_pipe.n - n);
    in_pipe.n -= n;
    return (ssize_t)n;
}

ssize_t write(int fd, const void *from, size_t n)
{
    if (fd != 1000)
        outcome_not_offered("files and descriptors");
    if (n > sizeof(in_pipe.data) - in_pipe.n)
        return -1;
    memcpy(in_pipe.data + in_pipe.n, from, n);
    in_pipe.n += n;
    return (ssize_t)n;
}

int close(int fd)
{
    (void)fd;
    return 0;
}

FILE *fopen(const char *name, const char *mode)
{
    (void)name;
    (void)mode;
    return NULL;
}

char *fgets(char *to, int size, FILE *f)
{
    (void)to;
    (void)size;
    (void)f;
    return NULL;
}

int fclose(FILE *f)
{
    (void)f;
    return 0;
}

/* ---- what there is not ---- */

#define NO_FILES   outcome_not_offered("files and descriptors of the host")
#define NO_SIGNALS outcome_not_offered("signals of the host")

int open(const char *name, int flags, ...)
{
    (void)name;
    (void)flags;
    NO_FILES;
}

int mkstemp(char *name)
{
    (void)name;
    NO_FILES;
}

int memfd_create(const char *name, unsigned flags)
{
    (void)name;
    (void)flags;
    NO_FILES;
}

int eventfd(unsigned value, int flags)
{
    (void)value;
    (void)flags;
    NO_FILES;
}

ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    (void)fd;
    (void)to;
    (void)n;
    (void)at;
    NO_FILES;
}

ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{
    (void)fd;
    (void)from;
    (void)n;
    (void)at;
    NO_FILES;
}

int ftruncate(int fd, off_t n)
{
    (void)fd;
    (void)n;
    NO_FILES;
}

int dup(int fd)
{
    (void)fd;
    NO_FILES;
}

int unlink(const char *name)
{
    (void)name;
    NO_FILES;
}

int poll(struct pollfd *fds, unsigned long n, int timeout)
{
    (void)fds;
    (void)n;
    (void)timeout;
    NO_FILES;
}

int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    (void)number;
    (void)action;
    (void)old;
    NO_SIGNALS;
}

int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how;
    (void)set;
    (void)old;
    NO_SIGNALS;
}

int sigfillset(sigset_t *set)
{
    (void)set;
    NO_SIGNALS;
}

int sigismember(const sigset_t *set, int number)
{
    (void)set;
    (void)number;
    NO_SIGNALS;
}

int sigpending(sigset_t *set)
{
    (void)set;
    NO_SIGNALS;
}

int timer_create(int clock, struct sigevent *event, timer_t *timer)
{
    (void)clock;
    (void)event;
    (void)timer;
    NO_SIGNALS;
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    (void)timer;
    (void)flags;
    (void)value;
    (void)old;
    NO_SIGNALS;
}

int timer_delete(timer_t timer)
{
    (void)timer;
    NO_SIGNALS;
}
