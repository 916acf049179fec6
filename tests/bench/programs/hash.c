/* SPDX-License-Identifier: BSD-2-Clause */
/* Hash tables: SIZE integers with open addressing, SIZE / 4 strings with chains. */
#include "bench.h"

struct node {
    struct node *next;
    uint32_t hash;
    uint32_t count;
    char key[24];
};

static uint64_t open_addressing(long n)
{
    size_t slots = 1;
    while (slots < (size_t)n * 2)
        slots *= 2;
    uint64_t *keys = calloc(slots, sizeof(*keys));
    uint32_t *values = calloc(slots, sizeof(*values));
    if (keys == NULL || values == NULL)
        exit(2);
    uint64_t seed = 7, sum = 0;
    for (long i = 0; i < n * 4; i++) {
        uint64_t key = bench_random(&seed) % (uint64_t)n + 1;
        size_t slot = (key * 0x9e3779b97f4a7c15ULL) >> 20 & (slots - 1);
        while (keys[slot] != 0 && keys[slot] != key)
            slot = (slot + 1) & (slots - 1);
        keys[slot] = key;
        sum += ++values[slot];
    }
    free(keys);
    free(values);
    return sum;
}

static uint32_t hash_string(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s != '\0'; s++)
        h = (h ^ (uint8_t)*s) * 16777619u;
    return h;
}

static uint64_t chains(long n)
{
    size_t buckets = 1;
    while (buckets < (size_t)n)
        buckets *= 2;
    struct node **table = calloc(buckets, sizeof(struct node *));
    if (table == NULL)
        exit(2);
    uint64_t seed = 9, sum = 0;
    for (long i = 0; i < n * 4; i++) {
        char key[24];
        snprintf(key, sizeof(key), "key-%u", (unsigned)(bench_random(&seed) % (uint64_t)n));
        uint32_t hash = hash_string(key);
        struct node *node = table[hash & (buckets - 1)];
        while (node != NULL && (node->hash != hash || strcmp(node->key, key) != 0))
            node = node->next;
        if (node == NULL) {
            node = bench_alloc(sizeof(*node));
            node->next = table[hash & (buckets - 1)];
            node->hash = hash;
            node->count = 0;
            strcpy(node->key, key);
            table[hash & (buckets - 1)] = node;
        }
        sum = bench_mix(sum, ++node->count);
    }
    return sum;
}

int main(int argc, char **argv)
{
    long n = bench_size(argc, argv);
    return bench_print("hash", bench_mix(open_addressing(n), chains(n / 4 + 1)));
}
