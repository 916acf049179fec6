/* SPDX-License-Identifier: BSD-2-Clause */
/* core/os_linux.c: the host interface on Linux: futexes, POSIX threads, mmap, memfd. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/os.h"

#define NS_PER_SEC 1000000000ull

/* ---- locks and threads ---- */

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(struct os_mutex), "os_mutex is too small");
_Static_assert(_Alignof(pthread_mutex_t) <= _Alignof(struct os_mutex), "os_mutex alignment");

bool os_ready(void)
{
    return true;
}

static pthread_mutex_t *mutex(struct os_mutex *m)
{
    return (pthread_mutex_t *)(void *)m->storage;
}

int os_mutex_init(struct os_mutex *m)
{
    return pthread_mutex_init(mutex(m), NULL);
}

void os_mutex_fini(struct os_mutex *m)
{
    pthread_mutex_destroy(mutex(m));
}

void os_mutex_lock(struct os_mutex *m)
{
    pthread_mutex_lock(mutex(m));
}

void os_mutex_unlock(struct os_mutex *m)
{
    pthread_mutex_unlock(mutex(m));
}

uintptr_t os_thread_self(void)
{
    static _Thread_local char self;

    return (uintptr_t)&self;
}

void **os_thread_slot(void)
{
    static _Thread_local void *slot;

    return &slot;
}

void os_yield(void)
{
    sched_yield();
}

void os_relax(void)
{
    __builtin_ia32_pause();
}

_Static_assert(sizeof(pthread_t) <= sizeof(struct os_thread), "os_thread is too small");

static void *thread_main(void *opaque)
{
    struct os_thread *thread = opaque;

    thread->run(thread->arg);
    return NULL;
}

int os_thread_start(struct os_thread *thread, void (*run)(void *arg), void *arg)
{
    sigset_t all, old;
    pthread_t handle;

    thread->run = run;
    thread->arg = arg;
    /* The new thread inherits the mask. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!err)
        memcpy(&thread->storage, &handle, sizeof(handle));
    return err;
}

void os_thread_join(struct os_thread *thread)
{
    pthread_t handle;

    memcpy(&handle, &thread->storage, sizeof(handle));
    pthread_join(handle, NULL);
}

/* ---- waiting ---- */

void os_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline)
{
    struct timespec ts = {.tv_sec = (time_t)(deadline / NS_PER_SEC),
                          .tv_nsec = (long)(deadline % NS_PER_SEC)};
    int saved = errno;

    /* Unlike FUTEX_WAIT, the bitset form takes an absolute time, of the monotonic clock. */
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, seen,
            deadline == UINT64_MAX ? NULL : &ts, NULL, FUTEX_BITSET_MATCH_ANY);
    errno = saved;
}

void os_wake(_Atomic uint32_t *word)
{
    int saved = errno;

    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX, NULL, NULL, 0);
    errno = saved;
}

/* ---- time ---- */

uint64_t os_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* What CPUID says of the TSC's frequency; 0 if nothing. */
static uint64_t tsc_khz_cpuid(void)
{
    uint32_t a, b, c, d;

    /* SDM Vol. 3B 18.7.3: crystal clock * EBX / EAX. */
    if (__get_cpuid_max(0, NULL) >= 0x15) {
        __cpuid_count(0x15, 0, a, b, c, d);
        if (a && b && c)
            return (uint64_t)c * b / a / 1000;
    }
    /* The timing leaf that hypervisors share. */
    __cpuid(1, a, b, c, d);
    if (c >> 31) {
        __cpuid(0x40000000, a, b, c, d);
        if (a >= 0x40000010 && a < 0x40010000) {
            __cpuid(0x40000010, a, b, c, d);
            return a;
        }
    }
    return 0;
}

/* One reading of both clocks, from the try with the smallest gap around the TSC. */
static void sample(uint64_t *tsc, uint64_t *ns)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < 16; i++) {
        uint64_t before = os_now(), t = __builtin_ia32_rdtsc(), after = os_now();

        if (after - before < best) {
            best = after - before;
            *tsc = t;
            *ns = before + best / 2;
        }
    }
}

static uint64_t tsc_khz_measure(void)
{
    uint64_t t0 = 0, t1 = 0, n0 = 0, n1 = 0;

    sample(&t0, &n0);
    for (uint64_t end = n0 + NS_PER_SEC / 100; os_now() < end;)
        continue;
    sample(&t1, &n1);
    return (uint64_t)((unsigned __int128)(t1 - t0) * 1000000 / (n1 - n0));
}

uint64_t os_tsc_khz(void)
{
    static _Atomic uint64_t cached; /* a constant of the host */
    uint64_t khz = atomic_load(&cached);

    if (!khz) {
        khz = tsc_khz_cpuid();
        if (!khz)
            khz = tsc_khz_measure();
        if (!khz)
            khz = 1000000;
        /* All callers get one answer, even if two have measured at once. */
        uint64_t none = 0;
        if (!atomic_compare_exchange_strong(&cached, &none, khz))
            khz = none;
    }
    return khz;
}

/* ---- pages ---- */

void *os_pages_alloc(size_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int os_file_size(int fd, uint64_t *size)
{
    struct stat st;

    if (fstat(fd, &st))
        return errno;
    *size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : UINT64_MAX;
    return 0;
}

void *os_pages_map_fd(int fd, uint64_t offset, size_t len, bool writable, int *os_errno)
{
    void *p =
        mmap(NULL, len, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, (off_t)offset);

    if (p != MAP_FAILED)
        return p;
    *os_errno = errno;
    return NULL;
}

/* A file of zeroes that nobody can shrink under us; -1 if there is none to be had. */
static int make_memory_file(size_t len)
{
    struct rlimit limit;

    /* Beyond it, ftruncate raises SIGXFSZ. */
    if (getrlimit(RLIMIT_FSIZE, &limit) || len > limit.rlim_cur)
        return -1;
    int fd = memfd_create("vmm-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)len) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        close(fd);
        return -1;
    }
    return fd;
}

void *os_pages_alloc_fd(size_t len, int *fd)
{
    int os_errno;

    *fd = make_memory_file(len);
    if (*fd < 0)
        return NULL;
    void *p = os_pages_map_fd(*fd, 0, len, true, &os_errno);
    if (!p) {
        close(*fd);
        *fd = -1;
    }
    return p;
}

void os_pages_free(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}

int os_fd_dup(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

void os_fd_close(int fd)
{
    close(fd);
}

/* ---- code memory ---- */

static int code_alloc_memfd(size_t len, void **rw, void **rx)
{
    int err = 0;
    int fd = memfd_create("vmm-code", MFD_CLOEXEC);

    if (fd < 0)
        return errno;
    if (ftruncate(fd, (off_t)len)) {
        err = errno;
        goto out;
    }
    *rw = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (*rw == MAP_FAILED) {
        err = errno;
        goto out;
    }
    *rx = mmap(NULL, len, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    if (*rx == MAP_FAILED) {
        err = errno;
        munmap(*rw, len);
    }
out:
    close(fd);
    return err;
}

/* Without descriptors: mremap of nothing duplicates a shared mapping. */
static int code_alloc_shared(size_t len, void **rw, void **rx)
{
    *rw = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (*rw == MAP_FAILED)
        return errno;
    *rx = mremap(*rw, 0, len, MREMAP_MAYMOVE);
    if (*rx == MAP_FAILED) {
        int err = errno;
        munmap(*rw, len);
        return err;
    }
    if (mprotect(*rx, len, PROT_READ | PROT_EXEC)) {
        int err = errno;
        os_code_free(*rw, *rx, len);
        return err;
    }
    return 0;
}

int os_code_alloc(size_t len, void **rw, void **rx)
{
    if (!code_alloc_memfd(len, rw, rx))
        return 0;
    return code_alloc_shared(len, rw, rx);
}

void os_code_free(void *rw, void *rx, size_t len)
{
    munmap(rw, len);
    munmap(rx, len);
}

/* ---- events ---- */

int os_event_create(int *event)
{
    *event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *event < 0 ? errno : 0;
}

/* Whether the descriptor is something else than an eventfd; false where there is no telling. */
static bool no_event(int fd)
{
    static const char name[] = "anon_inode:[eventfd]";
    char path[32], target[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof(target));
    return n >= 0 && ((size_t)n != sizeof(name) - 1 || memcmp(target, name, sizeof(name) - 1) != 0);
}

int os_event_dup(int fd, int *event)
{
    *event = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (*event < 0)
        return errno;
    if (!no_event(*event))
        return 0;
    close(*event);
    return EINVAL;
}

void os_event_close(int event)
{
    close(event);
}

void os_event_signal(int event)
{
    int saved = errno;

    while (eventfd_write(event, 1) < 0 && errno == EINTR)
        continue;
    errno = saved;
}

bool os_event_take(int event)
{
    uint64_t count;
    struct iovec iov = {&count, sizeof(count)};
    struct pollfd p = {.fd = event, .events = POLLIN};

    /* Its file may be in blocking mode, which is the caller's to choose. */
    ssize_t n = preadv2(event, &iov, 1, -1, RWF_NOWAIT);
    if (n < 0 && errno != EAGAIN && poll(&p, 1, 0) == 1)
        n = read(event, &count, sizeof(count));
    return n == sizeof(count);
}

int os_poll_create(int *set)
{
    *set = epoll_create1(EPOLL_CLOEXEC);
    return *set < 0 ? errno : 0;
}

void os_poll_close(int set)
{
    close(set);
}

int os_poll_add(int set, int event, uint64_t tag)
{
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = tag};

    return epoll_ctl(set, EPOLL_CTL_ADD, event, &e) ? errno : 0;
}

void os_poll_remove(int set, int event)
{
    epoll_ctl(set, EPOLL_CTL_DEL, event, NULL);
}

uint32_t os_poll_wait(int set, uint64_t *tags, uint32_t max)
{
    struct epoll_event e[16];
    int n = epoll_wait(set, e, max < 16 ? (int)max : 16, -1);

    for (int i = 0; i < n; i++)
        tags[i] = e[i].data.u64;
    return n < 0 ? 0 : (uint32_t)n;
}
