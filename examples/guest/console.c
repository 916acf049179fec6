/* SPDX-License-Identifier: BSD-2-Clause */
/* console.c: COM1 with receive interrupts, a small print, and the strings it needs. */
#include "guest.h"

#include <stdarg.h>

#define COM1     0x3f8u
#define RX_SIZE  256u
#define LSR      (COM1 + 5)
#define LSR_DATA 1u
#define LSR_THRE 0x20u

static char rx[RX_SIZE];
static volatile uint32_t rx_head, rx_tail;

void console_init(void)
{
    outb(COM1 + 1, 0);    /* no interrupts yet */
    outb(COM1 + 3, 0x80); /* divisor 1: 115200 */
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);    /* 8 bits, no parity, 1 stop bit */
    outb(COM1 + 2, 7);    /* FIFOs on and cleared */
    outb(COM1 + 4, 0x0b); /* DTR, RTS, OUT2: interrupts reach the PIC */
}

/* After interrupts_init: the PIC sees only a line that rises from then on. */
void console_listen(void)
{
    outb(COM1 + 1, 1); /* receive interrupts */
}

void console_interrupt(void)
{
    while (inb(LSR) & LSR_DATA) {
        char c = (char)inb(COM1);

        if (rx_head - rx_tail < RX_SIZE) {
            rx[rx_head % RX_SIZE] = c;
            rx_head++;
        }
    }
}

int get_char(void)
{
    for (;;) {
        __asm__ volatile("cli");
        console_interrupt(); /* what came before the PIC was set up made no interrupt */
        if (rx_head != rx_tail) {
            char c = rx[rx_tail % RX_SIZE];

            rx_tail++;
            __asm__ volatile("sti");
            return (unsigned char)c;
        }
        __asm__ volatile("sti\n\thlt"); /* no interrupt is taken between the two */
    }
}

static void put_raw(char c)
{
    while ((inb(LSR) & LSR_THRE) == 0) {
        __asm__ volatile("pause");
    }
    outb(COM1, (uint8_t)c);
}

void put_char(char c)
{
    if (c == '\n') {
        put_raw('\r');
    }
    put_raw(c);
}

static void put_number(uint64_t value, unsigned base, unsigned width, char fill)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (n < width && n < sizeof(digits)) {
        digits[n++] = fill;
    }
    while (n > 0) {
        put_char(digits[--n]);
    }
}

void print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    for (const char *p = format; *p != '\0'; p++) {
        unsigned width = 0;
        char fill = ' ';
        int wide = 0;

        if (*p != '%') {
            put_char(*p);
            continue;
        }
        p++;
        if (*p == '0') {
            fill = '0';
        }
        while (*p >= '0' && *p <= '9') {
            width = width * 10 + (unsigned)(*p++ - '0');
        }
        while (*p == 'l') {
            wide = 1;
            p++;
        }
        switch (*p) {
        case 's':
            for (const char *s = va_arg(args, const char *); *s != '\0'; s++) {
                put_char(*s);
            }
            break;
        case 'c':
            put_char((char)va_arg(args, int));
            break;
        case 'u':
        case 'x':
            put_number(wide ? va_arg(args, unsigned long) : va_arg(args, unsigned),
                       *p == 'u' ? 10 : 16, width, fill);
            break;
        default:
            put_char('%');
            put_char(*p);
            break;
        }
    }
    va_end(args);
}

int equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

int has_word(const char *text, const char *word)
{
    while (*text != '\0') {
        const char *w = word;

        while (*text == ' ') {
            text++;
        }
        while (*w != '\0' && *text == *w) {
            text++;
            w++;
        }
        if (*w == '\0' && (*text == '\0' || *text == ' ')) {
            return 1;
        }
        while (*text != '\0' && *text != ' ') {
            text++;
        }
    }
    return 0;
}

/* The compiler calls these three for copies of its own. */
void *memcpy(void *to, const void *from, size_t n)
{
    void *result = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return result;
}

void *memset(void *to, int value, size_t n)
{
    void *result = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    return result;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}
