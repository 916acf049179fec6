/* SPDX-License-Identifier: BSD-2-Clause */
/* Regular expressions, matched by backtracking, over SIZE KiB of text. */
#include "bench.h"

/* Matches one element of the pattern: a character, '.', or a class "[a-z]". Its length in *length.
 */
static int element(const char *re, char c, int *length)
{
    if (*re != '[') {
        *length = 1;
        return c != '\0' && c != '\n' && (*re == '.' || *re == c);
    }
    int hit = 0, i = 1;
    for (; re[i] != ']'; i++) {
        if (re[i + 1] == '-') {
            hit |= c >= re[i] && c <= re[i + 2];
            i += 2;
        } else {
            hit |= c == re[i];
        }
    }
    *length = i + 1;
    return hit && c != '\0';
}

static const char *match(const char *re, const char *text)
{
    while (*re != '\0') {
        int length;
        int hit = element(re, *text, &length);
        char times = re[length];
        if (times == '*' || times == '+') {
            const char *at = text;
            int ignored;
            while (element(re, *at, &ignored))
                at++;
            for (const char *least = text + (times == '+'); at >= least; at--) {
                const char *end = match(re + length + 1, at);
                if (end != NULL)
                    return end;
            }
            return NULL;
        }
        if (times == '?') {
            const char *end = hit ? match(re + length + 1, text + 1) : NULL;
            return end != NULL ? end : match(re + length + 1, text);
        }
        if (!hit)
            return NULL;
        re += length;
        text++;
    }
    return text;
}

int main(int argc, char **argv)
{
    static const char *const patterns[] = {"m[a-z]+y of the", "[aeiou][^x-z]?[rst]* in",
                                           "page.*table", "[a-f]+[g-m]+[n-z]+ "};
    size_t bytes = (size_t)bench_size(argc, argv) * 1024;
    char *text = bench_alloc(bytes + 1);
    bench_text(text, bytes, 23);
    text[bytes] = '\0';
    uint64_t sum = 0;
    for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++) {
        for (const char *at = text; *at != '\0'; at++) {
            const char *end = match(patterns[p], at);
            if (end != NULL)
                sum = bench_mix(sum, (uint64_t)(at - text) << 16 | (uint64_t)(end - at));
        }
    }
    return bench_print("regex", sum);
}
