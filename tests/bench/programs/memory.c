/* SPDX-License-Identifier: BSD-2-Clause */
/* The C library's functions on memory and vector integers:
 * "memory copy|set|length|compare|vector SIZE". */
#include "bench.h"

enum { BYTES = 1 << 20 };

static char from[BYTES + 64], to[BYTES + 64];

/* Sizes from some bytes to the whole buffer, as programs have them. */
static size_t length_of(long i)
{
    static const uint16_t sizes[] = {7, 24, 64, 100, 240, 500, 1500, 4096, 16000};
    return sizes[i % 9];
}

static uint64_t copy(long n)
{
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        size_t bytes = i % 256 == 0 ? BYTES : length_of(i);
        memcpy(to + i % 64, from + i % 32, bytes);
        sum = sum * 5 + (uint8_t)to[bytes / 2];
    }
    return sum;
}

static uint64_t set(long n)
{
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        size_t bytes = i % 256 == 0 ? BYTES : length_of(i);
        memset(to + i % 64, (int)i, bytes);
        sum = sum * 5 + (uint8_t)to[bytes / 2];
    }
    return sum;
}

static uint64_t length(long n)
{
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        size_t at = (size_t)(i * 4099) % (BYTES / 2), bytes = length_of(i);
        char saved = from[at + bytes];
        from[at + bytes] = '\0';
        sum = sum * 5 + strlen(from + at);
        const char *found = memchr(from + at, '\n', bytes);
        sum += found != NULL ? (uint64_t)(found - from) : 1;
        from[at + bytes] = saved;
    }
    return sum;
}

static uint64_t compare(long n)
{
    uint64_t sum = 0;
    memcpy(to, from, BYTES);
    for (long i = 0; i < n; i++) {
        size_t at = (size_t)(i * 4099) % (BYTES / 2), bytes = length_of(i);
        to[at + bytes - 1] ^= 1;
        sum = sum * 5 + (memcmp(to + at, from + at, bytes) < 0);
        to[at + bytes - 1] ^= 1;
    }
    return sum;
}

/* Sums of absolute differences of bytes: SSE2 by the compiler. */
__attribute__((optimize("O3"))) static uint64_t vector(long n)
{
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        const uint8_t *a = (const uint8_t *)from + i * 64 % 65536;
        const uint8_t *b = (const uint8_t *)from + i * 128 % 65536 + 16;
        uint32_t difference = 0;
        for (int j = 0; j < 4096; j++)
            difference += a[j] > b[j] ? (uint32_t)(a[j] - b[j]) : (uint32_t)(b[j] - a[j]);
        sum = bench_mix(sum, difference);
    }
    return sum;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        uint64_t (*run)(long);
    } kinds[] = {
        {"copy", copy}, {"set", set}, {"length", length}, {"compare", compare}, {"vector", vector}};
    if (argc < 3)
        return 2;
    long n = bench_size(argc - 1, argv + 1);
    bench_text(from, BYTES, 59);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, argv[1]) == 0)
            return bench_print(argv[1], kinds[i].run(n));
    return 2;
}
