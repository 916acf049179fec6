/* SPDX-License-Identifier: BSD-2-Clause */
/* What the benchmark programs share: sizes, random numbers, checksums. */
#ifndef BENCH_H
#define BENCH_H

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_UNSUPPORTED = 77 };

/* The size is the first argument. */
static inline long bench_size(int argc, char **argv)
{
    long size = argc > 1 ? strtol(argv[1], NULL, 0) : 0;
    if (size <= 0) {
        fprintf(stderr, "usage: %s SIZE\n", argv[0]);
        exit(2);
    }
    return size;
}

static inline void *bench_alloc(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return p;
}

/* xorshift64*: the same numbers everywhere. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

static inline uint64_t bench_mix(uint64_t sum, uint64_t value)
{
    sum = (sum ^ value) * 0x9e3779b97f4a7c15ULL;
    return sum ^ (sum >> 29);
}

static inline int bench_print(const char *name, uint64_t sum)
{
    printf("%s %016" PRIx64 "\n", name, sum);
    return 0;
}

/* The processor lacks what the program measures. */
static inline int bench_unsupported(const char *what)
{
    fprintf(stderr, "this processor has no %s\n", what);
    return BENCH_UNSUPPORTED;
}

/* Bytes that look like text: words of a small vocabulary. */
static inline void bench_text(char *text, size_t bytes, uint64_t seed)
{
    static const char *const words[] = {
        "the",     "of",    "machine", "page",  "and",    "memory", "to",       "in",
        "address", "a",     "is",      "that",  "kernel", "table",  "register", "for",
        "it",      "fault", "was",     "guest", "on",     "block",  "are",      "processor",
        "as",      "with",  "entry",   "cache", "they",   "at",     "be",       "instruction"};
    size_t at = 0;
    while (at < bytes) {
        uint64_t r = bench_random(&seed);
        const char *word = words[(r & (r >> 8)) % 32];
        for (size_t i = 0; word[i] != '\0' && at < bytes; i++)
            text[at++] = word[i];
        if (at < bytes)
            text[at++] = (r >> 40) % 12 == 0 ? '\n' : ' ';
    }
}

#endif
