/* SPDX-License-Identifier: BSD-2-Clause */
/* Scalar floating point: "float nbody|mandelbrot|spectral|x87 SIZE". */
#include "bench.h"

#include <math.h>

static uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

/* Five bodies that attract each other; the energy of the system at the end. */
static uint64_t nbody(long steps)
{
    enum { BODIES = 5 };
    double x[BODIES][3], v[BODIES][3], mass[BODIES];
    uint64_t seed = 53;
    for (int i = 0; i < BODIES; i++) {
        for (int d = 0; d < 3; d++) {
            x[i][d] = (double)(bench_random(&seed) >> 44) / (1 << 16) * (i + 1);
            v[i][d] = (double)(bench_random(&seed) >> 44) / (1 << 22);
        }
        mass[i] = i == 0 ? 40 : 0.01 * i;
    }
    for (long s = 0; s < steps; s++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double r[3], square = 0;
                for (int d = 0; d < 3; d++) {
                    r[d] = x[i][d] - x[j][d];
                    square += r[d] * r[d];
                }
                double pull = 0.001 / (square * sqrt(square));
                for (int d = 0; d < 3; d++) {
                    v[i][d] -= r[d] * mass[j] * pull;
                    v[j][d] += r[d] * mass[i] * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int d = 0; d < 3; d++)
                x[i][d] += 0.001 * v[i][d];
    }
    uint64_t sum = 0;
    for (int i = 0; i < BODIES; i++)
        for (int d = 0; d < 3; d++)
            sum = bench_mix(sum, bits_of(x[i][d]) ^ bits_of(v[i][d]));
    return sum;
}

static uint64_t mandelbrot(long n)
{
    uint64_t inside = 0;
    for (long py = 0; py < n; py++)
        for (long px = 0; px < n; px++) {
            double cx = 3.0 * (double)px / (double)n - 2, cy = 2.0 * (double)py / (double)n - 1;
            double x = 0, y = 0;
            int i = 0;
            for (; i < 100 && x * x + y * y < 4; i++) {
                double t = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = t;
            }
            inside = inside * 3 + (uint64_t)i;
        }
    return inside;
}

/* Products with the matrix 1 / ((i + j)(i + j + 1) / 2 + i + 1): conversions and divisions. */
static uint64_t spectral(long n)
{
    double *u = bench_alloc((size_t)n * sizeof(*u)), *v = bench_alloc((size_t)n * sizeof(*v));
    for (long i = 0; i < n; i++)
        u[i] = 1;
    for (int round = 0; round < 8; round++) {
        double norm = 0;
        for (long i = 0; i < n; i++) {
            v[i] = 0;
            for (long j = 0; j < n; j++)
                v[i] += u[j] / (double)((i + j) * (i + j + 1) / 2 + i + 1);
            norm += v[i] * v[i];
        }
        for (long i = 0; i < n; i++)
            u[i] = v[i] / sqrt(norm);
    }
    uint64_t sum = 0;
    for (long i = 0; i < n; i++)
        sum = bench_mix(sum, bits_of(u[i]));
    return sum;
}

/* Iterates polynomials and square roots in 80-bit precision. */
static uint64_t x87(long n)
{
    long double sum = 0, x = 0.3L;
    for (long i = 0; i < n; i++) {
        x = 3.9L * x * (1 - x);
        sum += sqrtl(x) / (long double)(i % 100 + 1);
    }
    uint64_t mantissa;
    memcpy(&mantissa, &sum, 8);
    return mantissa;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    long size = bench_size(argc - 1, argv + 1);
    if (strcmp(argv[1], "nbody") == 0)
        return bench_print("nbody", nbody(size));
    if (strcmp(argv[1], "mandelbrot") == 0)
        return bench_print("mandelbrot", mandelbrot(size));
    if (strcmp(argv[1], "spectral") == 0)
        return bench_print("spectral", spectral(size));
    return bench_print("x87", x87(size));
}
