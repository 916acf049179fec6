/* SPDX-License-Identifier: BSD-2-Clause */
/* Code that changes: "code patch|jit SIZE". */
#include "bench.h"

#include <sys/mman.h>

typedef uint64_t function(uint64_t);

static uint8_t *code_page(void)
{
    uint8_t *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(2);
    return p;
}

/* lea imm(%rdi), %rax; ret */
static size_t emit_add(uint8_t *p, uint32_t imm)
{
    memcpy(p, "\x48\x8d\x87", 3);
    memcpy(p + 3, &imm, 4);
    p[7] = 0xc3;
    return 8;
}

/* Changes the constant in a function and calls it. */
static uint64_t patch(long n)
{
    uint8_t *p = code_page();
    function *f = (function *)(void *)p;
    uint64_t sum = 0;
    emit_add(p, 0);
    for (long i = 0; i < n; i++) {
        uint32_t imm = (uint32_t)i & 0xffff;
        memcpy(p + 3, &imm, 4);
        sum = f(sum * 3 + 1) ^ (uint64_t)i;
    }
    return sum;
}

/* Writes fresh functions over a page, calls each 500 times: a just-in-time compiler. */
static uint64_t jit(long n)
{
    uint8_t *p = code_page();
    size_t at = 0;
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        if (at + 256 > 4096)
            at = 0;
        uint8_t *start = p + at;
        for (int part = 0; part < 20; part++) {
            /* lea imm(%rdi), %rdi */
            uint32_t imm = (uint32_t)(i * 31 + part);
            memcpy(p + at, "\x48\x8d\xbf", 3);
            memcpy(p + at + 3, &imm, 4);
            at += 7;
        }
        at += emit_add(p + at, 1);
        for (int call = 0; call < 500; call++)
            sum = ((function *)(void *)start)(sum) ^ (uint64_t)call;
    }
    return sum;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    long n = bench_size(argc - 1, argv + 1);
    return bench_print(argv[1], strcmp(argv[1], "jit") == 0 ? jit(n) : patch(n));
}
