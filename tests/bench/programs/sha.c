/* SPDX-License-Identifier: BSD-2-Clause */
/* SHA-256 (FIPS 180-4) of SIZE KiB with integer instructions. */
#include "bench.h"

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static uint32_t k[64];

/* floor(root * 2^32) modulo 2^32, where root^3 = prime or root^2 = prime: by bisection. */
static uint32_t root_fraction(uint32_t prime, int cubic)
{
    uint64_t low = 0, high = 1ULL << 37;
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        unsigned __int128 power = (unsigned __int128)middle * middle * (cubic ? middle : 1);
        int below = power <= (unsigned __int128)prime << (cubic ? 96 : 64);
        *(below ? &low : &high) = middle;
    }
    return (uint32_t)low;
}

static void set_up(uint32_t *state)
{
    int found = 0;
    for (uint32_t n = 2; found < 64; n++) {
        int prime = 1;
        for (uint32_t d = 2; d * d <= n; d++)
            prime &= n % d != 0;
        if (!prime)
            continue;
        if (found < 8)
            state[found] = root_fraction(n, 0);
        k[found++] = root_fraction(n, 1);
    }
}

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void compress(uint32_t *state, const uint8_t *block)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        uint32_t word;
        memcpy(&word, block + 4 * i, 4);
        w[i] = __builtin_bswap32(word);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, state, sizeof(s));
    for (int i = 0; i < 64; i++) {
        uint32_t e = rotr(s[4], 6) ^ rotr(s[4], 11) ^ rotr(s[4], 25);
        uint32_t t1 = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        uint32_t a = rotr(s[0], 2) ^ rotr(s[0], 13) ^ rotr(s[0], 22);
        uint32_t t2 = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof(*s));
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += s[i];
}

int main(int argc, char **argv)
{
    long kib = bench_size(argc, argv);
    uint32_t start[8], state[8];
    static uint8_t data[1024 + 64];
    set_up(start);
    /* The hash of "abc" is that of the standard. */
    memcpy(state, start, sizeof(state));
    memcpy(data, "abc\x80", 4);
    data[63] = 24;
    compress(state, data);
    if (state[0] != 0xba7816bf || state[7] != 0xf20015ad) {
        fprintf(stderr, "sha: wrong result %08x %08x\n", state[0], state[7]);
        return 1;
    }
    memcpy(state, start, sizeof(state));
    bench_text((char *)data, 1024, 19);
    for (long i = 0; i < kib; i++)
        for (int at = 0; at < 1024; at += 64)
            compress(state, data + at);
    return bench_print("sha", (uint64_t)state[0] << 32 | state[1]);
}
