/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/text.c: snprintf for the conversions that the library uses: %c %d %p %s %u %x with
 * '#', '0', '-', width, precision (of strings), and the lengths hh to z. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct out {
    char *to;
    size_t size, n; /* n: characters that there would be */
};

static void put(struct out *o, char c)
{
    if (o->n + 1 < o->size)
        o->to[o->n] = c;
    o->n++;
}

struct conversion {
    bool alternate, zero, left;
    int width, precision; /* -1: none */
    unsigned bytes;       /* of an integer argument */
};

static void pad(struct out *o, char c, int n)
{
    for (; n > 0; n--)
        put(o, c);
}

static void put_field(struct out *o, const struct conversion *c, const char *prefix,
                      const char *text, int len)
{
    int fill = c->width - len;

    for (const char *p = prefix; *p; p++)
        fill--;
    if (!c->left && !c->zero)
        pad(o, ' ', fill);
    for (; *prefix; prefix++)
        put(o, *prefix);
    if (!c->left && c->zero)
        pad(o, '0', fill);
    for (int i = 0; i < len; i++)
        put(o, text[i]);
    if (c->left)
        pad(o, ' ', fill);
}

static void put_number(struct out *o, const struct conversion *c, uint64_t v, unsigned base,
                       const char *prefix)
{
    char digits[24];
    int at = sizeof(digits);

    do
        digits[--at] = "0123456789abcdef"[v % base];
    while ((v /= base));
    put_field(o, c, prefix, digits + at, (int)sizeof(digits) - at);
}

static int length(const char *text, int limit)
{
    int n = 0;

    while ((limit < 0 || n < limit) && text[n])
        n++;
    return n;
}

static int number(const char **f, va_list *ap)
{
    int n = 0;

    if (**f == '*') {
        (*f)++;
        return va_arg(*ap, int);
    }
    while (**f >= '0' && **f <= '9')
        n = n * 10 + *(*f)++ - '0';
    return n;
}

static const char *flags(const char *f, struct conversion *c)
{
    for (;; f++)
        if (*f == '#')
            c->alternate = true;
        else if (*f == '0')
            c->zero = true;
        else if (*f == '-')
            c->left = true;
        else
            return f;
}

static const char *size_of(const char *f, struct conversion *c)
{
    for (;; f++)
        if (*f == 'l' || *f == 'z' || *f == 'j' || *f == 't')
            c->bytes = 8;
        else if (*f == 'h')
            c->bytes /= 2;
        else
            return f;
}

static uint64_t argument(const struct conversion *c, va_list *ap)
{
    uint64_t v = c->bytes == 8 ? va_arg(*ap, uint64_t) : va_arg(*ap, unsigned);

    return c->bytes == 8 ? v : v & ((1ull << 8 * c->bytes) - 1);
}

static void convert(struct out *o, char kind, struct conversion *c, va_list *ap)
{
    uint64_t v;
    const char *s;
    char one;

    switch (kind) {
    case 'd':
    case 'i':
        v = argument(c, ap);
        if (c->bytes < 8)
            v = (uint64_t)((int64_t)(v << (64 - 8 * c->bytes)) >> (64 - 8 * c->bytes));
        put_number(o, c, (int64_t)v < 0 ? 0 - v : v, 10, (int64_t)v < 0 ? "-" : "");
        break;
    case 'u':
        put_number(o, c, argument(c, ap), 10, "");
        break;
    case 'x':
        v = argument(c, ap);
        put_number(o, c, v, 16, c->alternate && v ? "0x" : "");
        break;
    case 'p':
        put_number(o, c, (uintptr_t)va_arg(*ap, void *), 16, "0x");
        break;
    case 's':
        s = va_arg(*ap, const char *);
        if (!s)
            s = "(null)";
        c->zero = false;
        put_field(o, c, "", s, length(s, c->precision));
        break;
    case 'c':
        one = (char)va_arg(*ap, int);
        put_field(o, c, "", &one, 1);
        break;
    default: /* %% and what is not known */
        put(o, kind);
    }
}

int vsnprintf(char *to, size_t size, const char *f, va_list args)
{
    struct out o = {to, size, 0};
    va_list ap;

    va_copy(ap, args);
    for (; *f; f++) {
        struct conversion c = {.precision = -1, .bytes = 4};

        if (*f != '%') {
            put(&o, *f);
            continue;
        }
        f = flags(f + 1, &c);
        c.width = number(&f, &ap);
        if (*f == '.') {
            f++;
            c.precision = number(&f, &ap);
        }
        f = size_of(f, &c);
        if (!*f)
            break;
        convert(&o, *f, &c, &ap);
    }
    va_end(ap);
    if (size)
        to[o.n < size ? o.n : size - 1] = 0;
    return (int)o.n;
}

int snprintf(char *to, size_t size, const char *f, ...)
{
    va_list ap;

    va_start(ap, f);
    int n = vsnprintf(to, size, f, ap);
    va_end(ap);
    return n;
}
