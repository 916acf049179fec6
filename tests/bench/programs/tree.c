/* SPDX-License-Identifier: BSD-2-Clause */
/* Trees and lists: SIZE nodes in a treap, searched, walked and removed; a shuffled list is chased.
 */
#include "bench.h"

struct node {
    struct node *left, *right;
    uint32_t key, priority;
};

static struct node *rotate_right(struct node *n)
{
    struct node *top = n->left;
    n->left = top->right;
    top->right = n;
    return top;
}

static struct node *rotate_left(struct node *n)
{
    struct node *top = n->right;
    n->right = top->left;
    top->left = n;
    return top;
}

static struct node *insert(struct node *n, struct node *new)
{
    if (n == NULL)
        return new;
    if (new->key < n->key) {
        n->left = insert(n->left, new);
        return n->left->priority > n->priority ? rotate_right(n) : n;
    }
    n->right = insert(n->right, new);
    return n->right->priority > n->priority ? rotate_left(n) : n;
}

static struct node *merge(struct node *a, struct node *b)
{
    if (a == NULL || b == NULL)
        return a != NULL ? a : b;
    if (a->priority > b->priority) {
        a->right = merge(a->right, b);
        return a;
    }
    b->left = merge(a, b->left);
    return b;
}

static struct node *erase(struct node *root, uint32_t key)
{
    struct node **link = &root;
    while (*link != NULL && (*link)->key != key)
        link = key < (*link)->key ? &(*link)->left : &(*link)->right;
    struct node *gone = *link;
    if (gone != NULL) {
        *link = merge(gone->left, gone->right);
        free(gone);
    }
    return root;
}

static uint64_t walk(const struct node *n, uint64_t sum)
{
    if (n == NULL)
        return sum;
    sum = walk(n->left, sum);
    sum = bench_mix(sum, n->key);
    return walk(n->right, sum);
}

static uint64_t trees(long n)
{
    uint64_t seed = 11, sum = 0;
    struct node *root = NULL;
    for (long i = 0; i < n; i++) {
        struct node *new = bench_alloc(sizeof(*new));
        uint64_t r = bench_random(&seed);
        *new = (struct node){.key = (uint32_t)r, .priority = (uint32_t)(r >> 32)};
        root = insert(root, new);
    }
    seed = 11;
    for (long i = 0; i < n * 2; i++) {
        uint32_t key = (uint32_t)bench_random(&seed) + (i >= n);
        const struct node *at = root;
        while (at != NULL && at->key != key)
            at = key < at->key ? at->left : at->right;
        sum += at != NULL;
    }
    seed = 11;
    for (long i = 0; i < n; i++) {
        uint32_t key = (uint32_t)bench_random(&seed);
        if (i % 2)
            root = erase(root, key);
    }
    return walk(root, sum);
}

static uint64_t chase(long n)
{
    uint32_t *next = bench_alloc((size_t)n * sizeof(*next));
    for (long i = 0; i < n; i++)
        next[i] = (uint32_t)i;
    /* Sattolo's shuffle: one cycle through all. */
    uint64_t seed = 13;
    for (long i = n - 1; i > 0; i--) {
        long j = (long)(bench_random(&seed) % (uint64_t)i);
        uint32_t other = next[i];
        next[i] = next[j];
        next[j] = other;
    }
    uint32_t at = 0;
    uint64_t sum = 0;
    for (long i = 0; i < n * 8; i++) {
        at = next[at];
        sum += at ^ (uint64_t)i;
    }
    return sum;
}

int main(int argc, char **argv)
{
    long n = bench_size(argc, argv);
    return bench_print("tree", bench_mix(trees(n), chase(n)));
}
