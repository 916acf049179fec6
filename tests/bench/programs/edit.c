/* SPDX-License-Identifier: BSD-2-Clause */
/* Dynamic programming over integer matrices: edit distance of SIZE characters, matrix powers. */
#include "bench.h"

enum { N = 48 };

static uint32_t edit_distance(const char *a, const char *b, long n)
{
    uint32_t *row = bench_alloc((size_t)(n + 1) * sizeof(*row));
    for (long j = 0; j <= n; j++)
        row[j] = (uint32_t)j;
    for (long i = 1; i <= n; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i;
        for (long j = 1; j <= n; j++) {
            uint32_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    uint32_t distance = row[n];
    free(row);
    return distance;
}

static void multiply(uint32_t (*to)[N], uint32_t (*a)[N], uint32_t (*b)[N])
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            uint32_t sum = 0;
            for (int k = 0; k < N; k++)
                sum += a[i][k] * b[k][j];
            to[i][j] = sum % 1000003;
        }
}

int main(int argc, char **argv)
{
    long n = bench_size(argc, argv);
    char *a = bench_alloc((size_t)n), *b = bench_alloc((size_t)n);
    static uint32_t m[3][N][N];
    bench_text(a, (size_t)n, 31);
    bench_text(b, (size_t)n, 37);
    uint64_t sum = edit_distance(a, b, n), seed = 41;
    for (int i = 0; i < N * N; i++)
        m[0][i / N][i % N] = m[1][i / N][i % N] = (uint32_t)(bench_random(&seed) % 1000);
    for (long i = 0; i < n / 16; i++) {
        multiply(m[2], m[0], m[1]);
        memcpy(m[0], m[2], sizeof(m[0]));
    }
    for (int i = 0; i < N * N; i++)
        sum = bench_mix(sum, m[0][i / N][i % N]);
    return bench_print("edit", sum);
}
