/* SPDX-License-Identifier: BSD-2-Clause */
/* Double-precision matrix products: "matmul sse2|avx2|avx512 SIZE", SIZE products of 128 x 128. */
#include "bench.h"

enum { N = 128 };

static double a[N][N], b[N][N], c[N][N];

/* The compiler's vector code for each width; FMA with the wide ones. */
#define MULTIPLY(name, attribute, bytes)                                                           \
    typedef double name##_v __attribute__((vector_size(bytes), aligned(8), may_alias));            \
    attribute static void multiply_##name(void)                                                    \
    {                                                                                              \
        enum { LANES = (bytes) / 8 };                                                              \
        for (int i = 0; i < N; i++)                                                                \
            for (int j = 0; j < N; j += LANES * 4) {                                               \
                name##_v s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};                                   \
                for (int k = 0; k < N; k++) {                                                      \
                    const name##_v *row = (const name##_v *)(const void *)&b[k][j];                \
                    s0 += row[0] * a[i][k];                                                        \
                    s1 += row[1] * a[i][k];                                                        \
                    s2 += row[2] * a[i][k];                                                        \
                    s3 += row[3] * a[i][k];                                                        \
                }                                                                                  \
                name##_v *to = (name##_v *)(void *)&c[i][j];                                       \
                to[0] = s0, to[1] = s1, to[2] = s2, to[3] = s3;                                    \
            }                                                                                      \
    }

MULTIPLY(sse2, , 16)
MULTIPLY(avx2, __attribute__((target("avx2,fma"))), 32)
MULTIPLY(avx512, __attribute__((target("avx512f"))), 64)

int main(int argc, char **argv)
{
    void (*multiply)(void) = multiply_sse2;
    if (argc < 3)
        return 2;
    long rounds = bench_size(argc - 1, argv + 1);
    if (strcmp(argv[1], "avx2") == 0) {
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
            return bench_unsupported("AVX2 and FMA");
        multiply = multiply_avx2;
    } else if (strcmp(argv[1], "avx512") == 0) {
        if (!__builtin_cpu_supports("avx512f"))
            return bench_unsupported("AVX-512");
        multiply = multiply_avx512;
    }
    uint64_t seed = 43, sum = 0;
    for (int i = 0; i < N * N; i++) {
        a[i / N][i % N] = (double)(bench_random(&seed) >> 40) / (1 << 24);
        b[i / N][i % N] = (double)(bench_random(&seed) >> 40) / (1 << 24);
    }
    for (long i = 0; i < rounds; i++) {
        a[0][i % N] += 1;
        multiply();
        uint64_t bits;
        memcpy(&bits, &c[i % N][(i * 7) % N], 8);
        sum = bench_mix(sum, bits);
    }
    return bench_print(argv[1], sum);
}
