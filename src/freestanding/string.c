/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/string.c: functions of C and of its compilers that need no host. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- strings ---- */

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n; n--, a++, b++)
        if (*a != *b || !*a)
            return (unsigned char)*a - (unsigned char)*b;
    return 0;
}

char *strcpy(char *to, const char *from)
{
    memcpy(to, from, strlen(from) + 1);
    return to;
}

const char *vmm_strstr(const char *text, const char *what)
{
    size_t n = strlen(what);

    for (; *text; text++)
        if (!strncmp(text, what, n))
            return text;
    return n ? NULL : text;
}

/* ---- sorting: tables of some dozen elements, by insertion ---- */

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t t = a[i];

        a[i] = b[i];
        b[i] = t;
    }
}

void qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *))
{
    uint8_t *e = base;

    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j && compare(e + (j - 1) * size, e + j * size) > 0; j--)
            swap(e + (j - 1) * size, e + j * size, size);
}

/* ---- what compilers call ---- */

typedef unsigned __int128 u128;
typedef __int128 i128;

u128 __udivti3(u128 n, u128 d);
u128 __umodti3(u128 n, u128 d);
i128 __divti3(i128 n, i128 d);
i128 __modti3(i128 n, i128 d);
int __popcountdi2(uint64_t v);

static u128 divide(u128 n, u128 d, u128 *rest)
{
    u128 q = 0, r = 0;

    if (!(n >> 64) && !(d >> 64)) {
        *rest = (uint64_t)n % (uint64_t)d;
        return (uint64_t)n / (uint64_t)d;
    }
    for (int i = 127; i >= 0; i--) {
        int carry = (int)(r >> 127);

        r = r << 1 | (n >> i & 1);
        if (carry || r >= d) {
            r -= d;
            q |= (u128)1 << i;
        }
    }
    *rest = r;
    return q;
}

u128 __udivti3(u128 n, u128 d)
{
    u128 r;

    return divide(n, d, &r);
}

u128 __umodti3(u128 n, u128 d)
{
    u128 r;

    divide(n, d, &r);
    return r;
}

static u128 magnitude(i128 v)
{
    return v < 0 ? 0 - (u128)v : (u128)v;
}

i128 __divti3(i128 n, i128 d)
{
    u128 r, q = divide(magnitude(n), magnitude(d), &r);

    return (i128)((n < 0) != (d < 0) ? 0 - q : q);
}

i128 __modti3(i128 n, i128 d)
{
    u128 r;

    divide(magnitude(n), magnitude(d), &r);
    return (i128)(n < 0 ? 0 - r : r);
}

int __popcountdi2(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555;
    v = (v & 0x3333333333333333) + (v >> 2 & 0x3333333333333333);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return (int)(v * 0x0101010101010101 >> 56);
}
