/* SPDX-License-Identifier: BSD-2-Clause */
/* Multiplication and division of large integers: the first SIZE digits of e and 2^k in decimal. */
#include "bench.h"

/* a *= factor; returns the carry. */
static uint64_t multiply(uint64_t *a, size_t words, uint64_t factor)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < words; i++) {
        unsigned __int128 product = (unsigned __int128)a[i] * factor + carry;
        a[i] = (uint64_t)product;
        carry = (uint64_t)(product >> 64);
    }
    return carry;
}

/* a /= divisor, the most significant word last; returns the remainder. */
static uint32_t divide(uint32_t *a, size_t words, uint32_t divisor)
{
    uint64_t rest = 0;
    for (size_t i = words; i-- > 0;) {
        rest = rest << 32 | a[i];
        a[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    return (uint32_t)rest;
}

/* sum of 1 / n! as a fraction of fixed point. */
static uint64_t digits_of_e(long digits)
{
    size_t words = (size_t)digits * 332193 / 100000 / 64 + 2;
    uint64_t *sum = calloc(words, 8), *term = calloc(words, 8);
    if (sum == NULL || term == NULL)
        exit(2);
    sum[words - 1] = 0;
    term[words - 1] = 1ULL << 63;
    for (uint32_t n = 3;; n++) {
        unsigned char carry = 0;
        uint64_t any = 0;
        for (size_t i = 0; i < words; i++) {
            uint64_t a;
            carry = (unsigned char)__builtin_add_overflow(sum[i], (uint64_t)carry, &a);
            carry = (unsigned char)(carry + __builtin_add_overflow(a, term[i], &sum[i]));
        }
        divide((uint32_t *)(void *)term, words * 2, n);
        for (size_t i = 0; i < words; i++)
            any |= term[i];
        if (any == 0)
            break;
    }
    uint64_t hash = 0;
    for (long i = 0; i < digits; i += 18)
        hash = bench_mix(hash, multiply(sum, words, 1000000000000000000ULL));
    free(sum);
    free(term);
    return hash;
}

static uint64_t power_of_two(long bits)
{
    size_t words = (size_t)bits / 32 + 1;
    uint32_t *a = calloc(words, 4);
    if (a == NULL)
        exit(2);
    a[words - 1] = 1;
    uint64_t hash = 0;
    while (words > 0) {
        hash = bench_mix(hash, divide(a, words, 1000000000));
        while (words > 0 && a[words - 1] == 0)
            words--;
    }
    free(a);
    return hash;
}

int main(int argc, char **argv)
{
    long digits = bench_size(argc, argv);
    return bench_print("bigint", bench_mix(digits_of_e(digits), power_of_two(digits * 4)));
}
