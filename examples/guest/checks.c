/* SPDX-License-Identifier: BSD-2-Clause */
/* checks.c: the self check: does the machine under this guest do what a PC does? */
#include "guest.h"

#define SCRATCH  ((uint8_t *)0x1000000) /* 16 MiB on: free in every machine this is used on */
#define UNMAPPED 0x100000000000ull

/* How much work the checks do; the word `brief` of the command line is for machines on which code
 * at CPL 0 is slow. */
struct extent {
    uint32_t memory; /* bytes */
    uint32_t zeros;  /* bytes of which the digest is known */
    uint8_t digest[16];
    uint32_t below, primes;
};

static const struct extent full = {8u << 20,
                                   1u << 20,
                                   {0xb6, 0xd8, 0x1b, 0x36, 0x0a, 0x56, 0x72, 0xd8, 0x0c, 0x27,
                                    0x43, 0x0f, 0x39, 0x15, 0x3e, 0x2c},
                                   100000,
                                   9592};
static const struct extent brief = {64u << 10,
                                    16u << 10,
                                    {0xce, 0x33, 0x8f, 0xe6, 0x89, 0x97, 0x78, 0xaa, 0xcf, 0xc2,
                                     0x84, 0x14, 0xf2, 0xd9, 0x49, 0x8b},
                                    10000,
                                    1229};
static const struct extent *extent = &full;

/* Runs one instruction that must fault; where the handler goes on is known before. */
#define PROVOKE(instruction, ...)                                                                  \
    do {                                                                                           \
        expected.vector = ~0ull;                                                                   \
        __asm__ volatile("lea 1f(%%rip), %%rax\n\t"                                                \
                         "mov %%rax, %0\n\t" instruction "\n1:"                                    \
                         : "=m"(expected.resume)                                                   \
                         : __VA_ARGS__                                                             \
                         : "rax", "rdx", "memory");                                                \
    } while (0)

static int check_timer(void)
{
    uint64_t before = rdtsc();
    uint64_t start = ticks;

    wait_ticks(5);
    return ticks >= start + 5 && rdtsc() > before;
}

static int check_exceptions(void)
{
    uint32_t zero = 0;

    PROVOKE("xor %%edx, %%edx\n\tdivl %1", "m"(zero)); /* divide error */
    if (expected.vector != 0) {
        return 0;
    }
    PROVOKE("ud2", "m"(zero));
    if (expected.vector != 6) {
        return 0;
    }
    PROVOKE("int3", "m"(zero));
    if (expected.vector != 3) {
        return 0;
    }
    PROVOKE("movl $1, (%1)", "r"(UNMAPPED)); /* page fault: write, not present */
    if (expected.vector != 14 || expected.error != 2 || expected.cr2 != UNMAPPED) {
        return 0;
    }
    PROVOKE("movl $1, (%1)", "r"(0x8000000000000000ull)); /* not canonical */
    return expected.vector == 13 && expected.error == 0;
}

/* Writes a pattern that depends on the address, reads it back, and once more inverted. */
static int check_memory(void)
{
    uint64_t *words = (uint64_t *)SCRATCH;
    uint64_t n = extent->memory / sizeof(uint64_t);

    for (uint64_t i = 0; i < n; i++) {
        words[i] = i * 0x9e3779b97f4a7c15ull;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (words[i] != i * 0x9e3779b97f4a7c15ull) {
            return 0;
        }
        words[i] = ~words[i];
    }
    for (uint64_t i = 0; i < n; i++) {
        if (words[i] != ~(i * 0x9e3779b97f4a7c15ull)) {
            return 0;
        }
    }
    return 1;
}

static int check_md5(void)
{
    static const uint8_t empty[16] = {0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04,
                                      0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e};
    uint8_t digest[16];

    md5("", 0, digest);
    if (memcmp(digest, empty, 16) != 0) {
        return 0;
    }
    memset(SCRATCH, 0, extent->zeros);
    md5(SCRATCH, extent->zeros, digest);
    return memcmp(digest, extent->digest, 16) == 0;
}

static int check_primes(void)
{
    return count_primes(SCRATCH, extent->below) == extent->primes;
}

static int check_cpus(void)
{
    uint32_t wanted = acpi_cpus();
    uint32_t got = smp_start(wanted);

    print("processors: %u of %u\n", got, wanted);
    return got == wanted && smp_count() == (uint64_t)got * COUNT_PER_CPU;
}

int run_checks(void)
{
    static const struct {
        const char *name;
        int (*check)(void);
    } checks[] = {
        {"timer interrupt", check_timer}, {"exceptions", check_exceptions},
        {"memory", check_memory},         {"md5", check_md5},
        {"primes", check_primes},         {"processors", check_cpus},
    };
    int failures = 0;

    if (has_word(boot_info.cmdline, "brief")) {
        extent = &brief;
    }
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        int ok = checks[i].check();

        print("check: %s: %s\n", checks[i].name, ok ? "ok" : "FAILED");
        failures += !ok;
    }
    return failures;
}
