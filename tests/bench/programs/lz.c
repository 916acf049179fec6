/* SPDX-License-Identifier: BSD-2-Clause */
/* Compresses SIZE KiB of text in the manner of LZ77 with hash chains, unpacks and compares. */
#include "bench.h"

enum { HASH_BITS = 14, WINDOW = 32768, MIN_MATCH = 4, MAX_MATCH = 258, MAX_CHAIN = 24 };

static int32_t head[1 << HASH_BITS];
static int32_t chain[WINDOW];

static uint32_t hash_at(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return value * 2654435761u >> (32 - HASH_BITS);
}

static void enter(const uint8_t *in, int32_t at)
{
    uint32_t h = hash_at(in + at);
    chain[at & (WINDOW - 1)] = head[h];
    head[h] = at;
}

static int match_length(const uint8_t *a, const uint8_t *b, int limit)
{
    int n = 0;
    while (n < limit && a[n] == b[n])
        n++;
    return n;
}

static int find_match(const uint8_t *in, int32_t at, int limit, int32_t *from)
{
    int best = MIN_MATCH - 1;
    int32_t candidate = head[hash_at(in + at)];
    for (int i = 0; i < MAX_CHAIN && candidate >= 0 && at - candidate < WINDOW; i++) {
        int length = match_length(in + candidate, in + at, limit);
        if (length > best) {
            best = length;
            *from = candidate;
        }
        candidate = chain[candidate & (WINDOW - 1)];
    }
    return best >= MIN_MATCH ? best : 0;
}

/* Literals: 0, byte. Matches: length (2 bytes), distance (2 bytes), with bit 15 of the length. */
static size_t compress(const uint8_t *in, int32_t bytes, uint8_t *out)
{
    size_t to = 0;
    memset(head, 0xff, sizeof(head));
    for (int32_t at = 0; at < bytes;) {
        int limit = bytes - at < MAX_MATCH ? bytes - at : MAX_MATCH;
        int32_t from = 0;
        int length = bytes - at >= 8 ? find_match(in, at, limit, &from) : 0;
        if (length == 0) {
            out[to++] = 0;
            out[to++] = in[at];
            length = 1;
        } else {
            int distance = at - from;
            out[to++] = (uint8_t)(0x80 | length >> 8);
            out[to++] = (uint8_t)length;
            out[to++] = (uint8_t)(distance >> 8);
            out[to++] = (uint8_t)distance;
        }
        for (int i = 0; i < length; i++, at++)
            if (bytes - at >= 8)
                enter(in, at);
    }
    return to;
}

static size_t unpack(const uint8_t *in, size_t bytes, uint8_t *out)
{
    size_t to = 0;
    for (size_t at = 0; at < bytes;) {
        if (in[at] == 0) {
            out[to++] = in[at + 1];
            at += 2;
            continue;
        }
        size_t length = (size_t)(in[at] & 0x7f) << 8 | in[at + 1];
        size_t distance = (size_t)in[at + 2] << 8 | in[at + 3];
        for (size_t i = 0; i < length; i++, to++)
            out[to] = out[to - distance];
        at += 4;
    }
    return to;
}

int main(int argc, char **argv)
{
    size_t bytes = (size_t)bench_size(argc, argv) * 1024;
    char *text = bench_alloc(bytes);
    uint8_t *packed = bench_alloc(bytes * 2);
    uint8_t *again = bench_alloc(bytes);
    bench_text(text, bytes, 3);
    size_t length = compress((const uint8_t *)text, (int32_t)bytes, packed);
    uint64_t sum = length;
    for (size_t i = 0; i < length; i++)
        sum = sum * 31 + packed[i];
    if (unpack(packed, length, again) != bytes || memcmp(text, again, bytes) != 0) {
        fprintf(stderr, "the text changed\n");
        return 1;
    }
    return bench_print("lz", sum);
}
