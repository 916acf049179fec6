/* SPDX-License-Identifier: BSD-2-Clause */
/* Sorts SIZE numbers by quicksort, and as records by the C library's qsort. */
#include "bench.h"

struct record {
    uint32_t key;
    char name[12];
};

static void insertion_sort(int64_t *a, long n)
{
    for (long i = 1; i < n; i++) {
        int64_t value = a[i];
        long j = i;
        for (; j > 0 && a[j - 1] > value; j--)
            a[j] = a[j - 1];
        a[j] = value;
    }
}

static void quick_sort(int64_t *a, long n)
{
    while (n > 16) {
        int64_t pivot = a[n / 2];
        long i = 0, j = n - 1;
        while (i <= j) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i <= j) {
                int64_t other = a[i];
                a[i++] = a[j];
                a[j--] = other;
            }
        }
        quick_sort(a, j + 1);
        a += i;
        n -= i;
    }
    insertion_sort(a, n);
}

static int by_key(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return strcmp(x->name, y->name);
}

int main(int argc, char **argv)
{
    long n = bench_size(argc, argv);
    uint64_t seed = 1, sum = 0;
    int64_t *numbers = bench_alloc((size_t)n * sizeof(*numbers));
    for (long i = 0; i < n; i++)
        numbers[i] = (int64_t)bench_random(&seed);
    quick_sort(numbers, n);
    for (long i = 0; i < n; i++)
        sum = bench_mix(sum, (uint64_t)numbers[i]);

    n /= 2;
    struct record *records = bench_alloc((size_t)(n + 1) * sizeof(*records));
    for (long i = 0; i < n; i++) {
        records[i].key = (uint32_t)(bench_random(&seed) % (uint64_t)(n / 2 + 1));
        snprintf(records[i].name, sizeof(records[i].name), "%x", (unsigned)bench_random(&seed));
    }
    qsort(records, (size_t)n, sizeof(*records), by_key);
    for (long i = 0; i < n; i++)
        sum = bench_mix(sum, records[i].key + (uint8_t)records[i].name[0]);
    return bench_print("sort", sum);
}
