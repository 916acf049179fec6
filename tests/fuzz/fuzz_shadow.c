/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz_shadow.c: guests with shadow paging, their tables, accesses and invalidations from the
 * input; everything is judged as in tests/unit/test_shadow.c. */
#include "../unit/shadow_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *input;
static size_t left;

/* Two bytes of the input, or four for large ranges; zeros after its end. */
static uint64_t choose(uint64_t n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < (n > 0x10000 ? 4u : n > 0x100 ? 2u : 1u) && left; i++, left--)
        v = v << 8 | *input++;
    return v % n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = data;
    left = size;
    model_new();
    random_start(choose);
    for (unsigned i = 0; M.sh && left && i < 2000; i++)
        random_step(choose);
    model_free();
    return 0;
}
