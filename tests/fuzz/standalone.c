/* SPDX-License-Identifier: BSD-2-Clause */
/* standalone.c: drives a fuzz target without libFuzzer: given files, then pseudo-random inputs.
 *
 * usage: run_fuzz_NAME [--runs N] [--seed S] [--max-len L] [FILE...]
 *
 * The inputs follow from seed and run number alone; a failure is repeated with the printed seed and
 * "--runs 1". */
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char where[128];

/* Names the input before the default action of the signal ends the process. */
static void on_crash(int sig)
{
    ssize_t n = write(STDERR_FILENO, where, strlen(where));

    (void)n;
    signal(sig, SIG_DFL);
    raise(sig);
}

static uint64_t xorshift(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A mixture: uniform bytes find little, so that runs of equal and of small bytes are common. */
static size_t make_input(uint64_t seed, uint8_t *buf, size_t max)
{
    uint64_t s = (seed + 1) * 0x9e3779b97f4a7c15ull | 1;
    size_t len, i = 0;

    for (int k = 0; k < 4; k++)
        xorshift(&s);
    len = xorshift(&s) % (max + 1);
    if (xorshift(&s) & 1)
        len %= 256;
    while (i < len) {
        uint64_t r = xorshift(&s);
        size_t run = 1 + (r >> 8) % 8;
        for (size_t j = 0; j < run && i < len; j++, i++) {
            uint8_t v = (uint8_t)(xorshift(&s) >> 24);
            buf[i] = (r & 3) == 0 ? (uint8_t)(v & 7) : (r & 3) == 1 ? (uint8_t)(r >> 16) : v;
        }
    }
    return len;
}

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *buf = NULL;
    size_t len = 0, cap = 0, n = 1;

    if (!f) {
        perror(path);
        return 1;
    }
    while (n) {
        if (cap - len < 65536) {
            uint8_t *p = realloc(buf, cap += 1u << 20);
            if (!p)
                break;
            buf = p;
        }
        n = fread(buf + len, 1, cap - len, f);
        len += n;
    }
    fclose(f);
    snprintf(where, sizeof where, "failing input: %.100s\n", path);
    /* A copy of the exact size lets AddressSanitizer see reads past the end. */
    uint8_t *exact = malloc(len ? len : 1);
    if (exact) {
        memcpy(exact, buf, len);
        LLVMFuzzerTestOneInput(exact, len);
    }
    free(exact);
    free(buf);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t runs = 0, seed = 1, files = 0;
    size_t max = 1024;
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], on_crash);
    for (int i = 1; i < argc; i++) {
        if (i + 1 < argc && !strcmp(argv[i], "--runs")) {
            runs = strtoull(argv[++i], NULL, 0);
        } else if (i + 1 < argc && !strcmp(argv[i], "--seed")) {
            seed = strtoull(argv[++i], NULL, 0);
        } else if (i + 1 < argc && !strcmp(argv[i], "--max-len")) {
            max = (size_t)strtoull(argv[++i], NULL, 0);
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "usage: %s [--runs N] [--seed S] [--max-len L] [FILE...]\n", argv[0]);
            return 2;
        } else if (run_file(argv[i])) {
            return 1;
        } else {
            files++;
        }
    }
    uint8_t *buf = malloc(max ? max : 1);
    if (!buf)
        return 1;
    for (uint64_t i = 0; i < runs; i++) {
        size_t len = make_input(seed + i, buf, max);
        uint8_t *exact = malloc(len ? len : 1);
        if (!exact)
            return 1;
        memcpy(exact, buf, len);
        snprintf(where, sizeof where, "failing input: --runs 1 --seed %" PRIu64 " --max-len %zu\n",
                 seed + i, max);
        alarm(60); /* one input that takes this long is a hang */
        LLVMFuzzerTestOneInput(exact, len);
        alarm(0);
        free(exact);
    }
    free(buf);
    printf("%" PRIu64 " files, %" PRIu64 " random inputs\n", files, runs);
    return 0;
}
