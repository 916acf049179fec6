/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory: what mappings show, code that is written, copies of fork. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user.h"

#define RW  (PROT_READ | PROT_WRITE)
#define RWX (RW | PROT_EXEC)

static sigjmp_buf back;

static void jump_out(int sig, void *info, void *context)
{
    (void)info;
    (void)context;
    siglongjmp(back, sig);
}

static int file_of(unsigned pages)
{
    int fd = memfd_create("user", 0);

    CHECK(fd >= 0 && !ftruncate(fd, pages * PAGE));
    return fd;
}

static void *map_at(void *at, int fd, long offset, int prot, int flags)
{
    void *p = mmap(at, PAGE, prot, flags | (at ? MAP_FIXED : 0), fd, offset);

    CHECK(p != MAP_FAILED);
    return p;
}

/* Two mappings of one page, and the file. */
static void shared(void)
{
    int fd = file_of(2);
    volatile uint64_t *a = map_at(NULL, fd, 0, RW, MAP_SHARED);
    volatile uint64_t *b = map_at(NULL, fd, 0, RW, MAP_SHARED);
    volatile uint64_t *own = map_at(NULL, fd, 0, RW, MAP_PRIVATE), value;

    for (uint64_t i = 1; i < (uint64_t)user_rounds * 1000; i++) {
        a[i % 512] = i;
        CHECK(b[i % 512] == i);
        b[(i + 7) % 512] = ~i;
        CHECK(a[(i + 7) % 512] == ~i);
        if (i % 500 == 0) {
            CHECK(own[i % 512] == i); /* not yet its own */
            CHECK(pread(fd, (void *)&value, 8, (long)(i % 512 * 8)) == 8 && value == i);
            CHECK(pwrite(fd, (void *)&i, 8, 8) == 8 && a[1] == i && b[1] == i);
        }
    }
    own[0] = 42;
    a[0] = 43;
    CHECK(own[0] == 42 && b[0] == 43);
}

/* Another page at the same address again and again, each with what it should have. */
static void remapped(void)
{
    int fd = file_of(64);
    volatile uint64_t *window = map_at(NULL, fd, 0, RW, MAP_SHARED), *page;

    for (long i = 0; i < 64; i++) {
        page = map_at(NULL, fd, i * (long)PAGE, RW, MAP_SHARED);
        page[5] = (uint64_t)i;
        munmap((void *)page, PAGE);
    }
    for (long i = 0; i < user_rounds * 200; i++) {
        long which = i * 29 % 64;

        CHECK(map_at((void *)window, fd, which * (long)PAGE, RW, MAP_SHARED) == window);
        CHECK(window[5] == (uint64_t)which);
        window[6] += 1;
        if (i % 3 == 0) {
            CHECK(!madvise((void *)window, PAGE, MADV_DONTNEED));
            CHECK(window[5] == (uint64_t)which);
        }
        if (i % 64 == 0)
            user_spin(10);
    }
    page = map_at(NULL, -1, 0, RW, MAP_PRIVATE | MAP_ANONYMOUS);
    for (long i = 0; i < user_rounds * 100; i++) {
        CHECK(page[3] == 0);
        page[3] = (uint64_t)i + 1;
        CHECK(!madvise((void *)page, PAGE, MADV_DONTNEED));
    }
}

/* mprotect, munmap, mremap: what was possible before is not. */
static void protected(void)
{
    volatile char *p = user_pages(4, RW), *q;

    user_handle(SIGSEGV, jump_out, 0);
    user_handle(SIGBUS, jump_out, 0);
    for (volatile long i = 0; i < user_rounds * 10; i++) {
        volatile int got = 0;

        p[0] = 1;
        CHECK(!mprotect((void *)p, PAGE, PROT_READ));
        if (!sigsetjmp(back, 1))
            p[0] = 2;
        else
            got = 1;
        CHECK(got && p[0] == 1);
        CHECK(!mprotect((void *)p, PAGE, PROT_NONE));
        got = 0;
        if (!sigsetjmp(back, 1))
            CHECK(p[0] == 3);
        else
            got = 1;
        CHECK(got);
        CHECK(!mprotect((void *)p, PAGE, RW));
        CHECK(p[0] == 1);
        q = mremap((void *)p, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                   user_pages(4, PROT_NONE));
        CHECK(q != MAP_FAILED && q[0] == 1);
        got = 0;
        if (!sigsetjmp(back, 1))
            CHECK(p[0] == 3);
        else
            got = 1;
        CHECK(got);
        p = q;
    }
}

static void truncated(void)
{
    int fd = file_of(2);
    volatile char *p = map_at(NULL, fd, 0, RW, MAP_SHARED);

    user_handle(SIGBUS, jump_out, 0);
    for (volatile long i = 0; i < user_rounds * 5; i++) {
        volatile int got = 0;

        CHECK(!ftruncate(fd, PAGE));
        p[9] = 1;
        CHECK(!ftruncate(fd, 0));
        if (!sigsetjmp(back, 1))
            p[9] = 2;
        else
            got = 1;
        CHECK(got);
        user_spin(10);
    }
}

/* A child has what there was at the fork, whoever writes. */
static void copied(void)
{
    volatile uint64_t *p = user_pages(64, RW);

    for (uint64_t i = 1; i <= (uint64_t)user_rounds; i++) {
        int status;
        pid_t pid;

        for (unsigned j = 0; j < 64; j++)
            p[j * 512] = i * 1000 + j;
        user_spin(10);
        pid = fork();
        CHECK(pid >= 0);
        for (unsigned j = 0; j < 64; j++) {
            CHECK(p[j * 512] == i * 1000 + j);
            p[j * 512] = pid ? 7 : 8;
            user_spin(1);
            CHECK(p[j * 512] == (pid ? 7 : 8));
        }
        if (!pid)
            _exit(0);
        CHECK(waitpid(pid, &status, 0) == pid && !status);
    }
}

static void executed(void)
{
    static char *const argv[] = {"user", "exec", NULL};

    for (volatile long i = 0; i < user_rounds; i++) {
        int status;
        pid_t pid = vfork();

        if (!pid) {
            execv("/proc/self/exe", argv);
            _exit(1);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 42);
        user_spin(20);
    }
}

/* mov eax, n; ret */
static void write_code(uint8_t *to, uint32_t n)
{
    to[0] = 0xb8;
    memcpy(to + 1, &n, 4);
    to[5] = 0xc3;
}

static uint32_t call(const volatile void *code)
{
    return ((uint32_t(*)(void))(uintptr_t)code)();
}

/* Code that is written where it is executed, patched, and written through another mapping. */
static void generated(void)
{
    int fd = file_of(1), mem = open("/proc/self/mem", O_RDWR);
    uint8_t *both = user_pages(1, RWX), own[6];
    uint8_t *x = map_at(NULL, fd, 0, PROT_READ | PROT_EXEC, MAP_SHARED);
    uint8_t *w = map_at(NULL, fd, 0, RW, MAP_SHARED), *flip = user_pages(1, RW);

    CHECK(mem >= 0);
    for (uint32_t i = 0; i < (uint32_t)user_rounds * 50; i++) {
        write_code(both + i % 600 * 6, i);
        CHECK(call(both + i % 600 * 6) == i);
        write_code(w + i % 600 * 6, ~i);
        CHECK(call(x + i % 600 * 6) == ~i);
        if (i % 10)
            continue;
        CHECK(!mprotect(flip, PAGE, RW));
        write_code(flip, i * 3);
        CHECK(!mprotect(flip, PAGE, PROT_READ | PROT_EXEC));
        CHECK(call(flip) == i * 3);
        for (unsigned j = 0; j < 100; j++)
            CHECK(call(flip) == i * 3);
        write_code(own, i * 5);
        CHECK(pwrite(mem, own, sizeof(own), (off_t)(uintptr_t)flip) == sizeof(own));
        CHECK(call(flip) == i * 5);
        CHECK(pwrite(fd, own, sizeof(own), 0) == sizeof(own));
        CHECK(call(x) == i * 5);
    }
}

/* Code that changes the instruction behind itself; a loop with an operand that it counts. */
static void self_modifying(void)
{
    static const uint8_t code[] = {0x31, 0xc0,                         /* xor eax, eax */
                                   0xb9, 0xe8, 0x03, 0x00, 0x00,       /* mov ecx, 1000 */
                                   0x05, 0x01, 0x00, 0x00, 0x00,       /* 7: add eax, 1 */
                                   0xff, 0x05, 0xf6, 0xff, 0xff, 0xff, /* inc dword [8] */
                                   0xff, 0xc9,                         /* dec ecx */
                                   0x75, 0xf1,                         /* jnz 7 */
                                   0xc3};
    uint8_t *p = user_pages(1, RWX);

    for (long i = 0; i < user_rounds; i++) {
        memcpy(p, code, sizeof(code));
        CHECK(call(p) == 500500);
    }
}

/* More pages than any table of few entries holds, at random. */
static void big(void)
{
    enum { PAGES = 40000 };
    uint64_t *p = user_pages(PAGES, RW), x = 1;

    for (unsigned i = 0; i < PAGES; i++)
        p[i * 512ul] = i;
    for (long i = 0; i < user_rounds * 5000; i++) {
        unsigned n;

        x = x * 6364136223846793005 + 1;
        n = (unsigned)(x >> 33) % PAGES;
        CHECK(p[n * 512ul] == n);
        p[n * 512ul + 1] = n;
    }
    for (unsigned i = 0; i < PAGES; i++)
        CHECK(p[i * 512ul] == i && (p[i * 512ul + 1] == i || p[i * 512ul + 1] == 0));
}

/* All over the address space: wherever something else may be, too. */
static void everywhere(void)
{
    static volatile uint64_t *page[512];
    unsigned n = 0;

    for (uint64_t at = 0x10000; at < 0x7ff000000000; at += 1ull << 38) {
        void *p =
            mmap((void *)at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

        if (p == MAP_FAILED)
            continue;
        CHECK(p == (void *)at);
        page[n++] = p;
    }
    CHECK(n > 300);
    for (long i = 0; i < user_rounds; i++) {
        for (unsigned j = 0; j < n; j++)
            page[j][0] += j;
        user_spin(10);
    }
    for (unsigned j = 0; j < n; j++)
        CHECK(page[j][0] == (uint64_t)user_rounds * j);
}

static volatile uint32_t *keyed;

/* Protection keys: the program's register decides. */
static void keys(void)
{
    int key = (int)syscall(SYS_pkey_alloc, 0, 0);

    if (key < 0)
        SKIP("protection keys");
    keyed = user_pages(1, RW);
    CHECK(!syscall(SYS_pkey_mprotect, keyed, PAGE, RW, key));
    user_handle(SIGSEGV, jump_out, 0);
    for (volatile long i = 0; i < user_rounds * 10; i++) {
        for (volatile uint32_t deny = 0; deny < 4; deny++) {
            volatile int got = 0;
            uint32_t pkru;

            __asm__ volatile("rdpkru" : "=a"(pkru) : "c"(0) : "rdx");
            pkru = (pkru & ~(3u << 2 * key)) | deny << 2 * key;
            __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
            if (!sigsetjmp(back, 1))
                keyed[0] = deny;
            else
                got = 1;
            CHECK(got == (deny != 0));
            __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
            got = 0;
            if (!sigsetjmp(back, 1))
                CHECK(keyed[0] == 0);
            else
                got = 1;
            CHECK(got == (int)(deny & 1));
            pkru &= ~(3u << 2 * key);
            __asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0) : "memory");
        }
        user_spin(5);
    }
}

const struct user_check user_memory[] = {
    {"shared", shared},
    {"remapped", remapped},
    {"protected", protected},
    {"truncated", truncated},
    {"copied", copied},
    {"executed", executed},
    {"generated", generated},
    {"self-modifying", self_modifying},
    {"big", big},
    {"everywhere", everywhere},
    {"keys", keys},
    {0},
};
