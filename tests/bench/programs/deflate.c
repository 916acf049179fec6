/* SPDX-License-Identifier: BSD-2-Clause */
/* zlib packs and unpacks SIZE KiB of text. */
#include "bench.h"

#include <zlib.h>

int main(int argc, char **argv)
{
    uLong bytes = (uLong)bench_size(argc, argv) * 1024;
    uLongf packed = compressBound(bytes), unpacked = bytes;
    char *text = bench_alloc(bytes), *again = bench_alloc(bytes), *out = bench_alloc(packed);
    bench_text(text, bytes, 71);
    if (compress2((Bytef *)out, &packed, (Bytef *)text, bytes, 6) != Z_OK ||
        uncompress((Bytef *)again, &unpacked, (Bytef *)out, packed) != Z_OK || unpacked != bytes ||
        memcmp(text, again, bytes) != 0)
        return 1;
    return bench_print("deflate", adler32(packed, (Bytef *)out, (uInt)packed));
}
