/* SPDX-License-Identifier: BSD-2-Clause */
/* aml.c: writing ACPI Machine Language and resource descriptors. */
#include "core/boot/aml.h"

#include <string.h>

enum {
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_EXT = 0x5b,
    OP_EXT_DEVICE = 0x82,
};

/* PkgLength in its three-byte form: 20 bits, which spares moving what was written already. */
#define PKG_BYTES 3u

/* Resource descriptor tags (ACPI 6.4, 6.4.2 and 6.4.3). */
#define RES_IRQ         0x22
#define RES_IO          0x47
#define RES_END         0x79
#define RES_MEMORY32    0x86
#define RES_DWORD_SPACE 0x87
#define RES_WORD_SPACE  0x88
#define RES_QWORD_SPACE 0x8a

#define SPACE_MEMORY    0
#define SPACE_IO        1
#define SPACE_BUS       2
#define SPACE_FIXED     0x0c /* minimum and maximum are fixed */
#define SPACE_IO_ENTIRE 3
#define SPACE_RW        1
#define SPACE_CACHEABLE 2

void aml_byte(struct aml *aml, uint8_t v)
{
    if (aml->len < aml->cap)
        aml->buf[aml->len++] = v;
    else
        aml->overflow = true;
}

void aml_word(struct aml *aml, uint16_t v)
{
    aml_byte(aml, (uint8_t)v);
    aml_byte(aml, (uint8_t)(v >> 8));
}

void aml_dword(struct aml *aml, uint32_t v)
{
    aml_word(aml, (uint16_t)v);
    aml_word(aml, (uint16_t)(v >> 16));
}

void aml_qword(struct aml *aml, uint64_t v)
{
    aml_dword(aml, (uint32_t)v);
    aml_dword(aml, (uint32_t)(v >> 32));
}

static void put_name(struct aml *aml, const char *name)
{
    for (size_t i = 0; name[i] != '\0'; i++)
        aml_byte(aml, (uint8_t)name[i]);
}

static size_t open_length(struct aml *aml)
{
    size_t mark = aml->len;

    for (size_t i = 0; i < PKG_BYTES; i++)
        aml_byte(aml, 0);
    return mark;
}

void aml_close(struct aml *aml, size_t mark)
{
    size_t len = aml->len - mark;

    if (aml->overflow)
        return;
    aml->buf[mark] = (uint8_t)((PKG_BYTES - 1) << 6 | (len & 15));
    aml->buf[mark + 1] = (uint8_t)(len >> 4);
    aml->buf[mark + 2] = (uint8_t)(len >> 12);
}

/* The root alone is a prefix with an empty name after it. */
size_t aml_scope(struct aml *aml, const char *name)
{
    size_t mark;

    aml_byte(aml, OP_SCOPE);
    mark = open_length(aml);
    put_name(aml, name);
    if (strcmp(name, "\\") == 0)
        aml_byte(aml, 0);
    return mark;
}

size_t aml_device(struct aml *aml, const char *name)
{
    size_t mark;

    aml_byte(aml, OP_EXT);
    aml_byte(aml, OP_EXT_DEVICE);
    mark = open_length(aml);
    put_name(aml, name);
    return mark;
}

size_t aml_package(struct aml *aml, uint8_t count)
{
    size_t mark;

    aml_byte(aml, OP_PACKAGE);
    mark = open_length(aml);
    aml_byte(aml, count);
    return mark;
}

void aml_name(struct aml *aml, const char *name)
{
    aml_byte(aml, OP_NAME);
    put_name(aml, name);
}

void aml_int(struct aml *aml, uint64_t v)
{
    if (v <= 1) {
        aml_byte(aml, (uint8_t)v); /* ZeroOp and OneOp are their own values */
    } else if (v <= UINT8_MAX) {
        aml_byte(aml, OP_BYTE);
        aml_byte(aml, (uint8_t)v);
    } else if (v <= UINT16_MAX) {
        aml_byte(aml, OP_WORD);
        aml_word(aml, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        aml_byte(aml, OP_DWORD);
        aml_dword(aml, (uint32_t)v);
    } else {
        aml_byte(aml, OP_QWORD);
        aml_qword(aml, v);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    aml_byte(aml, OP_STRING);
    put_name(aml, text);
    aml_byte(aml, 0);
}

static uint32_t hex_digit(char c)
{
    return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters in 5 bits each and four hexadecimal digits, stored big-endian (ACPI 6.4, 19.3.4).
 */
void aml_eisaid(struct aml *aml, const char *id)
{
    uint32_t v = 0;

    for (int i = 0; i < 3; i++)
        v = v << 5 | (uint32_t)(id[i] - '@');
    for (int i = 3; i < 7; i++)
        v = v << 4 | hex_digit(id[i]);
    aml_byte(aml, OP_DWORD);
    aml_dword(aml, __builtin_bswap32(v));
}

/* ---- resources ---- */

#define CRS_SIZE_BYTES 3u /* the buffer's size as a WordConst */

size_t aml_crs_begin(struct aml *aml)
{
    size_t mark;

    aml_name(aml, "_CRS");
    aml_byte(aml, OP_BUFFER);
    mark = open_length(aml);
    aml_byte(aml, OP_WORD);
    aml_word(aml, 0);
    return mark;
}

void aml_crs_end(struct aml *aml, size_t mark)
{
    size_t size;

    aml_byte(aml, RES_END);
    aml_byte(aml, 0); /* no checksum */
    if (aml->overflow)
        return;
    size = aml->len - mark - PKG_BYTES - CRS_SIZE_BYTES;
    aml->buf[mark + PKG_BYTES + 1] = (uint8_t)size;
    aml->buf[mark + PKG_BYTES + 2] = (uint8_t)(size >> 8);
    aml_close(aml, mark);
}

void aml_io(struct aml *aml, uint16_t port, uint8_t len)
{
    aml_byte(aml, RES_IO);
    aml_byte(aml, 1); /* decodes 16 bits */
    aml_word(aml, port);
    aml_word(aml, port);
    aml_byte(aml, 1);
    aml_byte(aml, len);
}

void aml_irq(struct aml *aml, uint8_t line)
{
    aml_byte(aml, RES_IRQ);
    aml_word(aml, (uint16_t)(1u << line));
}

void aml_memory(struct aml *aml, uint32_t base, uint32_t len, bool writable)
{
    aml_byte(aml, RES_MEMORY32);
    aml_word(aml, 9);
    aml_byte(aml, writable);
    aml_dword(aml, base);
    aml_dword(aml, len);
}

static void word_window(struct aml *aml, uint8_t type, uint8_t flags, uint16_t first, uint16_t last)
{
    aml_byte(aml, RES_WORD_SPACE);
    aml_word(aml, 13);
    aml_byte(aml, type);
    aml_byte(aml, SPACE_FIXED);
    aml_byte(aml, flags);
    aml_word(aml, 0); /* granularity */
    aml_word(aml, first);
    aml_word(aml, last);
    aml_word(aml, 0); /* translation */
    aml_word(aml, (uint16_t)(last - first + 1));
}

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
    word_window(aml, SPACE_BUS, 0, first, last);
}

void aml_io_window(struct aml *aml, uint16_t first, uint16_t last)
{
    word_window(aml, SPACE_IO, SPACE_IO_ENTIRE, first, last);
}

void aml_memory_window(struct aml *aml, uint64_t first, uint64_t last, bool cacheable)
{
    bool wide = last > UINT32_MAX;
    const uint64_t values[] = {0, first, last, 0, last - first + 1};

    aml_byte(aml, wide ? RES_QWORD_SPACE : RES_DWORD_SPACE);
    aml_word(aml, wide ? 43 : 23);
    aml_byte(aml, SPACE_MEMORY);
    aml_byte(aml, SPACE_FIXED);
    aml_byte(aml, (uint8_t)(SPACE_RW | (cacheable ? SPACE_CACHEABLE : 0)));
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        if (wide)
            aml_qword(aml, values[i]);
        else
            aml_dword(aml, (uint32_t)values[i]);
    }
}
