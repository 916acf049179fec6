/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads: memory and mappings that several CPUs use at the same time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user.h"

#define RW (PROT_READ | PROT_WRITE)

static _Atomic int stop;
static _Atomic uint64_t turn;
static volatile uint64_t *window;

static pthread_t start(void *(*run)(void *), void *arg)
{
    pthread_t t;

    CHECK(!pthread_create(&t, NULL, run, arg));
    return t;
}

static void join(pthread_t t)
{
    CHECK(!pthread_join(t, NULL));
}

static uint64_t plain;
static _Atomic uint64_t counter;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *count(void *arg)
{
    (void)arg;
    for (long i = 0; i < user_rounds * 1000; i++) {
        atomic_fetch_add(&counter, 1);
        pthread_mutex_lock(&mutex);
        plain++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void counted(void)
{
    pthread_t t[4];

    for (unsigned i = 0; i < 4; i++)
        t[i] = start(count, NULL);
    for (unsigned i = 0; i < 4; i++)
        join(t[i]);
    CHECK(plain == (uint64_t)user_rounds * 4000 && counter == plain);
}

static void *answer(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < (uint64_t)user_rounds * 100; i++) {
        while (atomic_load(&turn) != 2 * i + 1)
            if (i % 4 == 0)
                sched_yield();
        atomic_store(&turn, 2 * i + 2);
    }
    return NULL;
}

/* Two that wait for each other without the kernel: none of them is held up for ever. */
static void in_turn(void)
{
    pthread_t t = start(answer, NULL);

    for (uint64_t i = 0; i < (uint64_t)user_rounds * 100; i++) {
        atomic_store(&turn, 2 * i + 1);
        while (atomic_load(&turn) != 2 * i + 2)
            if (i % 4 == 0)
                sched_yield();
    }
    join(t);
}

/* What the page says is never older than what was published behind its mapping. */
static void *watch(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        uint64_t published = atomic_load(&turn);

        CHECK(window[8] >= published);
    }
    return NULL;
}

static void shot_down(void)
{
    int fd = memfd_create("user", 0);
    pthread_t t;

    CHECK(fd >= 0 && !ftruncate(fd, 64 * PAGE));
    window = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
    CHECK(window != MAP_FAILED);
    t = start(watch, NULL);
    for (uint64_t i = 1; i < (uint64_t)user_rounds * 50; i++) {
        CHECK(pwrite(fd, &i, 8, (long)(i % 64 * PAGE + 64)) == 8);
        CHECK(mmap((void *)window, PAGE, RW, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd,
                   (long)(i % 64 * PAGE)) == window);
        atomic_store(&turn, i);
        user_spin(i % 3);
    }
    stop = 1;
    join(t);
}

static void wait_there(int sig, void *info, void *context)
{
    (void)sig;
    (void)info;
    (void)context;
    sched_yield();
}

static void *scribble(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop))
        window[0]++;
    return NULL;
}

/* When mprotect is back nobody writes any more. */
static void frozen(void)
{
    pthread_t t;

    window = user_pages(1, RW);
    user_handle(SIGSEGV, wait_there, 0);
    t = start(scribble, NULL);
    for (long i = 0; i < user_rounds * 20; i++) {
        uint64_t before;

        CHECK(!mprotect((void *)window, PAGE, PROT_READ));
        before = window[0];
        for (unsigned j = 0; j < 200; j++)
            CHECK(window[0] == before);
        user_spin(1);
        CHECK(window[0] == before);
        CHECK(!mprotect((void *)window, PAGE, RW));
        user_spin(1);
    }
    stop = 1;
    join(t);
}

/* A child's memory stands still while a thread of its parent writes. */
static void forked(void)
{
    pthread_t t;

    window = user_pages(1, RW);
    t = start(scribble, NULL);
    for (long i = 0; i < user_rounds; i++) {
        int status;
        pid_t pid = fork();

        if (!pid) {
            uint64_t before = window[0];

            user_spin(5);
            _exit(window[0] != before);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && !status);
    }
    stop = 1;
    join(t);
}

/* A page that is given back is empty, or has what was written since. */
static void *fill(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        uint64_t published = atomic_load(&turn), got;

        window[3] = published << 1 | 1;
        got = window[3];
        CHECK(got == 0 || got == (published << 1 | 1));
    }
    return NULL;
}

static void given_back(void)
{
    pthread_t t;

    window = user_pages(1, RW);
    t = start(fill, NULL);
    for (uint64_t i = 1; i < (uint64_t)user_rounds * 50; i++) {
        CHECK(!madvise((void *)window, PAGE, MADV_DONTNEED));
        atomic_store(&turn, i);
        user_spin(i % 2);
    }
    stop = 1;
    join(t);
}

static uint8_t *code;
static _Atomic uint64_t target;

/* Calls what was published; each is another copy of the code, so nothing is patched under it. */
static void *call_it(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        uint64_t t = atomic_load(&target);
        uint8_t *at = code + (t & 63) * 64;
        uint32_t want = (uint32_t)(t >> 6);

        /* The kernel's return serializes: code of other threads is seen behind that. */
        CHECK(!syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
        if (t)
            CHECK(((uint32_t(*)(uint32_t))(uintptr_t)at)(want) >= want);
    }
    return NULL;
}

static void patched(void)
{
    pthread_t t;

    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
        SKIP("membarrier of code");
    code = user_pages(1, RW | PROT_EXEC);
    t = start(call_it, NULL);
    for (uint32_t i = 1; i < (uint32_t)user_rounds * 50; i++) {
        uint8_t *at = code + (i & 63) * 64;
        uint8_t fresh[6] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov eax, i; ret */

        memcpy(fresh + 1, &i, 4);
        /* The immediate, of 4 aligned bytes, changes at once. */
        if (i <= 64) {
            memcpy(at + 3, fresh, 6);
            memset(at, 0x90, 3);
        } else {
            __atomic_store_n((uint32_t *)(void *)(at + 4), i, __ATOMIC_SEQ_CST);
        }
        CHECK(!syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
        atomic_store(&target, (uint64_t)i << 6 | (i & 63));
    }
    stop = 1;
    join(t);
}

static void *leave(void *arg)
{
    (void)arg;
    return (void *)user_spin(1);
}

/* Processes that are ended in the middle of what they do, with all their threads. */
static void ended(void)
{
    for (long i = 0; i < user_rounds; i++) {
        int status;
        pid_t pid = fork();

        if (!pid) {
            window = user_pages(1, RW);
            start(scribble, NULL);
            start(scribble, NULL);
            if (i & 1)
                for (;;)
                    window[1]++;
            user_spin(5);
            _exit(3);
        }
        user_spin(5);
        if (i & 1)
            CHECK(!kill(pid, SIGKILL));
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(i & 1 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                    : WIFEXITED(status) && WEXITSTATUS(status) == 3);
    }
    for (long i = 0; i < user_rounds; i++)
        join(start(leave, NULL));
}

struct faulted {
    int fd;
    char *page;
};

static void *serve(void *arg)
{
    const struct faulted *f = arg;
    char *own = user_pages(1, RW);

    for (uint64_t i = 0; i < (uint64_t)user_rounds * 5; i++) {
        struct pollfd p = {.fd = f->fd, .events = POLLIN};
        struct uffd_msg msg;
        struct uffdio_copy copy = {.dst = (uint64_t)f->page, .src = (uint64_t)own, .len = PAGE};

        CHECK(poll(&p, 1, -1) == 1 && read(f->fd, &msg, sizeof(msg)) == sizeof(msg));
        CHECK(msg.event == UFFD_EVENT_PAGEFAULT);
        CHECK((msg.arg.pagefault.address & ~(PAGE - 1)) == (uint64_t)f->page);
        *(uint64_t *)(void *)own = i + 1;
        CHECK(!ioctl(f->fd, UFFDIO_COPY, &copy));
    }
    return NULL;
}

static void user_faults(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct faulted f = {(int)syscall(SYS_userfaultfd, O_CLOEXEC), user_pages(1, RW)};
    struct uffdio_register reg = {{(uint64_t)f.page, PAGE}, UFFDIO_REGISTER_MODE_MISSING, 0};
    pthread_t t;

    if (f.fd < 0)
        SKIP("userfaultfd");
    CHECK(!ioctl(f.fd, UFFDIO_API, &api) && !ioctl(f.fd, UFFDIO_REGISTER, &reg));
    t = start(serve, &f);
    for (uint64_t i = 0; i < (uint64_t)user_rounds * 5; i++) {
        CHECK(*(volatile uint64_t *)(void *)f.page == i + 1);
        user_spin(5);
        CHECK(!madvise(f.page, PAGE, MADV_DONTNEED));
    }
    join(t);
}

const struct user_check user_threads[] = {
    {"counted", counted},         {"in-turn", in_turn},
    {"shot-down", shot_down},     {"frozen", frozen},
    {"forked", forked},           {"given-back", given_back},
    {"patched", patched},         {"ended", ended},
    {"user-faults", user_faults}, {0},
};
