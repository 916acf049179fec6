/* SPDX-License-Identifier: BSD-2-Clause */
/* A parallel job: four processes share SIZE units of work, taken from a common counter. */
#include "bench.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 4, WORDS = 4096 };

struct shared {
    atomic_long next;
    atomic_ullong sum;
};

static uint64_t work(uint64_t seed)
{
    static uint64_t words[WORDS];
    uint64_t sum = 0;
    for (int i = 0; i < WORDS; i++)
        words[i] = bench_random(&seed);
    for (int round = 0; round < 8; round++)
        for (int i = 0; i < WORDS; i++) {
            uint64_t other = words[words[i] % WORDS];
            words[i] = (words[i] ^ other >> 7) * 5 + (uint64_t)round;
            sum += words[i];
        }
    return sum;
}

int main(int argc, char **argv)
{
    long units = bench_size(argc, argv);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    for (int i = 0; i < PROCESSES; i++) {
        pid_t child = fork();
        if (child < 0)
            return 2;
        if (child == 0) {
            long unit;
            while ((unit = atomic_fetch_add(&shared->next, 1)) < units)
                atomic_fetch_add(&shared->sum, work((uint64_t)unit + 67));
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++)
        if (wait(NULL) < 0)
            return 2;
    return bench_print("parallel", shared->sum);
}
