/* SPDX-License-Identifier: BSD-2-Clause */
/* Strings: SIZE rounds over 64 KiB of text: words counted, searched, printed, folded, numbers read.
 */
#include "bench.h"

#include <ctype.h>

enum { BYTES = 65536 };

static char text[BYTES + 1], copy[BYTES + 1];

static uint64_t count_words(void)
{
    uint64_t words = 0, letters = 0;
    char *rest = NULL;
    memcpy(copy, text, sizeof(text));
    for (char *word = strtok_r(copy, " \n", &rest); word != NULL;
         word = strtok_r(NULL, " \n", &rest)) {
        words++;
        letters = letters * 7 + strlen(word);
    }
    return words ^ letters;
}

static uint64_t search(const char *what)
{
    uint64_t sum = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        sum = bench_mix(sum, (uint64_t)(at - text));
    return sum;
}

static uint64_t fold(void)
{
    uint64_t sum = 0;
    for (int i = 0; i < BYTES; i++) {
        char c = text[i];
        c = (char)(isalpha((unsigned char)c) && i % 3 == 0 ? toupper((unsigned char)c) : c);
        copy[i] = c;
        sum = sum * 33 + (uint8_t)c;
    }
    return sum;
}

static uint64_t numbers(int round)
{
    char line[64];
    uint64_t sum = 0;
    for (int i = 0; i < 2000; i++) {
        snprintf(line, sizeof(line), "%d:%s:%x", i * 7919 + round, "name", i);
        char *end;
        sum += (uint64_t)strtol(line, &end, 10);
        sum += (uint64_t)strtol(strrchr(end, ':') + 1, NULL, 16);
    }
    return sum;
}

int main(int argc, char **argv)
{
    long rounds = bench_size(argc, argv);
    uint64_t sum = 0;
    for (long i = 0; i < rounds; i++) {
        bench_text(text, BYTES, (uint64_t)i + 5);
        sum = bench_mix(sum, count_words());
        sum = bench_mix(sum, search("memory"));
        sum = bench_mix(sum, search("address is"));
        sum = bench_mix(sum, fold());
        sum = bench_mix(sum, numbers((int)i));
    }
    return bench_print("text", sum);
}
