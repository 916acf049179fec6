/* SPDX-License-Identifier: BSD-2-Clause */
/* Table-driven CRC-32 and Adler-32 over SIZE KiB. */
#include "bench.h"

static uint32_t table[4][256];

static void set_up(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
        table[0][i] = c;
    }
    for (int t = 1; t < 4; t++)
        for (int i = 0; i < 256; i++)
            table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xff];
}

static uint32_t crc32(uint32_t crc, const uint8_t *p, size_t bytes)
{
    crc = ~crc;
    for (; bytes >= 4; bytes -= 4, p += 4) {
        uint32_t word;
        memcpy(&word, p, 4);
        crc ^= word;
        crc = table[3][crc & 0xff] ^ table[2][crc >> 8 & 0xff] ^ table[1][crc >> 16 & 0xff] ^
              table[0][crc >> 24];
    }
    for (; bytes > 0; bytes--, p++)
        crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

static uint32_t adler32(uint32_t adler, const uint8_t *p, size_t bytes)
{
    uint32_t a = adler & 0xffff, b = adler >> 16;
    for (size_t i = 0; i < bytes; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

int main(int argc, char **argv)
{
    long kib = bench_size(argc, argv);
    static uint8_t data[16384];
    set_up();
    if (crc32(0, (const uint8_t *)"123456789", 9) != 0xcbf43926)
        return 1;
    bench_text((char *)data, sizeof(data), 29);
    uint32_t crc = 0, adler = 1;
    for (long i = 0; i < kib; i += 16) {
        crc = crc32(crc, data, sizeof(data));
        if (i % 64 == 0)
            adler = adler32(adler, data, sizeof(data));
    }
    return bench_print("crc", (uint64_t)crc << 32 | adler);
}
