/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_mtrr.c: memory types of physical memory: rules of the manual, and how far a type reaches
 * compared with a look at each page. */
#include <check.h>

#include "vmx/mtrr.h"
#include "vmx_fake.h"

#define UC         0u
#define WC         1u
#define WT         4u
#define WP         5u
#define WB         6u
#define ON         0x800u
#define BITS       36u
#define MASK(size) (((1ull << BITS) - (size)) | 0x800)

static uint64_t seed = 1;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33);
}

static uint64_t msrs[0x300];
static uint32_t faults; /* this MSR does */

static int rdmsr(void *ctx, uint32_t index, uint64_t *value)
{
    (void)ctx;
    if (index >= 0x300 || index == faults)
        return 1;
    *value = msrs[index];
    return 0;
}

static struct vmx_mtrrs m;

static void start(uint64_t cap, uint64_t def_type)
{
    struct vmx_machine none;

    fake_reset(&fake_models[0], &none);
    memset(msrs, 0, sizeof(msrs));
    faults = 0;
    msrs[0xfe] = cap;
    msrs[0x2ff] = def_type;
}

static void range(unsigned i, uint64_t base, uint64_t mask, unsigned type)
{
    msrs[0x200 + 2 * i] = base | type;
    msrs[0x201 + 2 * i] = mask;
}

static void read_them(void)
{
    const struct vmm_host_ops host = {.rdmsr = rdmsr};

    vmx_mtrrs_read(&m, &host, BITS);
}

static unsigned at(uint64_t hpa)
{
    uint64_t len = 4096;
    unsigned type = vmx_mtrrs_type(&m, hpa, &len);

    ck_assert_uint_eq(len, 4096);
    return type;
}

static uint64_t reaches(uint64_t hpa)
{
    uint64_t len = 1ull << BITS;

    vmx_mtrrs_type(&m, hpa, &len);
    return len;
}

START_TEST(firmware)
{
    /* As PCs have it: WB, with a hole of 1 GiB below 4 GiB, and the first MiB in pieces. */
    start(0x508, ON | 0x400 | WB);
    range(0, 0xc0000000, MASK(0x40000000), UC);
    range(1, 0xd0000000, MASK(0x10000000), WC); /* UC wins */
    for (uint32_t i = 0x250; i < 0x270; i++)
        msrs[i] = 0x0606060606060606;
    msrs[0x259] = 0;                  /* from A0000H */
    msrs[0x269] = 0x0505050505050006; /* from C8000H */
    read_them();
    ck_assert_uint_eq(at(0), WB);
    ck_assert_uint_eq(at(0x9f000), WB);
    ck_assert_uint_eq(at(0xa0000), UC);
    ck_assert_uint_eq(at(0xbf000), UC);
    ck_assert_uint_eq(at(0xc0000), WB);
    ck_assert_uint_eq(at(0xc8000), WB);
    ck_assert_uint_eq(at(0xc9000), UC);
    ck_assert_uint_eq(at(0xca000), WP);
    ck_assert_uint_eq(at(0x100000), WB);
    ck_assert_uint_eq(reaches(0x100000), 0xbff00000);
    ck_assert_uint_eq(at(0xbffff000), WB);
    ck_assert_uint_eq(at(0xc0000000), UC);
    ck_assert_uint_eq(at(0xd0000000), UC);
    ck_assert_uint_eq(at(0xfffff000), UC);
    ck_assert_uint_eq(at(0x100000000), WB);
    ck_assert_uint_eq(reaches(0x100000000), 1ull << BITS);
}
END_TEST

START_TEST(rules)
{
    start(8, WB); /* off: all is UC */
    read_them();
    ck_assert_uint_eq(at(0x100000), UC);
    start(8, ON | UC);
    range(0, 0, MASK(1u << 30), WB);
    range(1, 0, MASK(1u << 20), WT);
    range(2, 1 << 20, MASK(1u << 20), WC);
    range(3, 2 << 20, MASK(1u << 20) & ~0x800ull, UC); /* not valid */
    range(4, 3 << 20, MASK(1u << 20), 2);              /* reserved */
    range(7, 0x40000000, MASK(1u << 30), WP);
    read_them();
    ck_assert_uint_eq(at(0), WT);
    ck_assert_uint_eq(at(1 << 20), UC); /* undefined */
    ck_assert_uint_eq(at(2 << 20), WB);
    ck_assert_uint_eq(at(3 << 20), UC);
    ck_assert_uint_eq(at(0x40000000), WP);
    ck_assert_uint_eq(at(0x80000000), UC);
    /* More ranges than anybody has. */
    start(0xff, ON | WT);
    read_them();
    ck_assert_uint_eq(at(0), WT);
    /* MSRs that fault: as without MTRRs. */
    for (uint32_t i = 0xfe; i < 0x300; i++) {
        start(0x508, ON | 0x400 | UC);
        faults = i;
        read_them();
        ck_assert(at(0) == UC || at(0) == WB);
        ck_assert(i != 0xfe || at(0) == WB);
    }
}
END_TEST

/* What is said of a stretch is true of each page in it. */
START_TEST(reach)
{
    static const uint8_t types[] = {UC, WC, WT, WP, WB};

    for (unsigned round = 0; round < 200; round++) {
        start(0x108 * (rnd() & 1) + 8, ON | (rnd() & 0x400) | types[rnd() % 5]);
        for (uint32_t i = 0x250; i < 0x270; i++)
            for (unsigned b = 0; b < 8; b++)
                msrs[i] |= (uint64_t)types[rnd() % 5] << 8 * b;
        for (unsigned i = 0; i < 8; i++) {
            uint64_t size = 1ull << (12 + rnd() % 14), mask = MASK(size);

            if (rnd() % 4 == 0) /* with holes */
                mask &= ~((uint64_t)(rnd() & 0xff) << (13 + rnd() % 12));
            range(i, ((uint64_t)rnd() << 12 & 0x3ffffff) & mask & ~0xfffull, mask,
                  types[rnd() % 5]);
        }
        read_them();
        for (uint64_t hpa = 0; hpa < 0x4000000;) {
            uint64_t len = 0x4000000 - hpa;
            unsigned type = vmx_mtrrs_type(&m, hpa, &len);

            ck_assert(len && !(len & 4095) && len <= 0x4000000 - hpa);
            for (uint64_t end = hpa + len; hpa < end; hpa += 4096) {
                uint64_t one = 4096;

                if (vmx_mtrrs_type(&m, hpa, &one) != type)
                    ck_abort_msg("round %u: another type at %#lx", round, (unsigned long)hpa);
            }
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_mtrr");
    TCase *tc = tcase_create("vmx_mtrr");

    tcase_add_test(tc, firmware);
    tcase_add_test(tc, rules);
    tcase_add_test(tc, reach);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
