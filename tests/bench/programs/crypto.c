/* SPDX-License-Identifier: BSD-2-Clause */
/* The instructions for cryptography: "crypto sha|aes|clmul SIZE", SIZE KiB each. */
#include "bench.h"

#include <cpuid.h>
#include <immintrin.h>

static uint8_t data[4096] __attribute__((aligned(64)));

static uint64_t fold(__m128i v)
{
    uint64_t half[2];
    memcpy(half, &v, 16);
    return half[0] ^ half[1] * 3;
}

/* Rounds of SHA-256 with the real schedule; round constants are numbers of the same kind. */
__attribute__((target("sha,sse4.1"))) static uint64_t sha(long kib)
{
    __m128i abef = _mm_set_epi64x(0x6a09e667bb67ae85, 0x510e527f9b05688c);
    __m128i cdgh = _mm_set_epi64x(0x3c6ef372a54ff53a, 0x1f83d9ab5be0cd19);
    const __m128i k = _mm_set_epi32(0x428a2f98, 0x71374491, (int)0xb5c0fbcf, (int)0xe9b5dba5);
    for (long i = 0; i < kib * 16; i++) {
        const __m128i *block = (const __m128i *)(const void *)(data + (i * 64) % 4096);
        __m128i w[4] = {block[0], block[1], block[2], block[3]};
        for (int round = 0; round < 16; round++) {
            __m128i m = _mm_add_epi32(w[round % 4], k);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, m);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(m, 0x0e));
            __m128i next = _mm_sha256msg1_epu32(w[round % 4], w[(round + 1) % 4]);
            next = _mm_add_epi32(next, _mm_alignr_epi8(w[(round + 3) % 4], w[(round + 2) % 4], 4));
            w[round % 4] = _mm_sha256msg2_epu32(next, w[(round + 3) % 4]);
        }
    }
    return bench_mix(fold(abef), fold(cdgh));
}

/* AES-128 in counter mode, four blocks at once. */
__attribute__((target("aes,sse4.1"))) static uint64_t aes(long kib)
{
    __m128i key[11], sum = _mm_setzero_si128();
    for (int i = 0; i < 11; i++)
        key[i] = _mm_set1_epi32(0x01234567 * (i + 1));
    for (long i = 0; i < kib * 16; i++) {
        __m128i *block = (__m128i *)(void *)(data + (i * 64) % 4096);
        __m128i s[4];
        for (int lane = 0; lane < 4; lane++)
            s[lane] = _mm_xor_si128(_mm_set_epi64x(i, lane), key[0]);
        for (int round = 1; round < 10; round++)
            for (int lane = 0; lane < 4; lane++)
                s[lane] = _mm_aesenc_si128(s[lane], key[round]);
        for (int lane = 0; lane < 4; lane++) {
            s[lane] = _mm_aesenclast_si128(s[lane], key[10]);
            block[lane] = _mm_xor_si128(block[lane], s[lane]);
            sum = _mm_xor_si128(sum, block[lane]);
        }
    }
    return fold(sum);
}

/* Folds the data with carry-less products, as a CRC does. */
__attribute__((target("pclmul,sse4.1"))) static uint64_t clmul(long kib)
{
    __m128i x = _mm_set1_epi32(1), y = _mm_set1_epi32(2);
    const __m128i k = _mm_set_epi64x(0x1751997d0, 0x0ccaa009e);
    for (long i = 0; i < kib * 32; i++) {
        const __m128i *block = (const __m128i *)(const void *)(data + (i * 32) % 4096);
        x = _mm_xor_si128(
            _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)),
            block[0]);
        y = _mm_xor_si128(
            _mm_xor_si128(_mm_clmulepi64_si128(y, k, 0x00), _mm_clmulepi64_si128(y, k, 0x11)),
            block[1]);
    }
    return bench_mix(fold(x), fold(y));
}

int main(int argc, char **argv)
{
    unsigned a, b = 0, c = 0, d;
    if (argc < 3)
        return 2;
    long kib = bench_size(argc - 1, argv + 1);
    bench_text((char *)data, sizeof(data), 47);
    if (strcmp(argv[1], "sha") == 0) {
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 29))
            return bench_unsupported("SHA");
        return bench_print("sha", sha(kib));
    }
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 2;
    if (strcmp(argv[1], "aes") == 0)
        return c & bit_AES ? bench_print("aes", aes(kib)) : bench_unsupported("AES");
    return c & bit_PCLMUL ? bench_print("clmul", clmul(kib)) : bench_unsupported("PCLMULQDQ");
}
