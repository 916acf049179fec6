/* SPDX-License-Identifier: BSD-2-Clause */
/* test_mmu.c: page walks, permissions, the software TLB and accesses. */
#include "mmu/mmu.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MEM_SIZE 0x100000u
#define ROM      0x80000u /* one page that the guest may not write */
#define ROOT     0x1000u
#define P        1u
#define W        2u
#define U        4u
#define A        0x20u
#define D        0x40u
#define PS       0x80u
#define G        0x100u
#define NX       (1ull << 63)
#define ALL      (P | W | U)

#define CR0_PG   0x80000001u
#define CR0_WP   0x10000u
#define CR4_PSE  0x10u
#define CR4_PAE  0x20u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define CR4_PKE  0x400000u
#define EFER_LMA 0x500u
#define EFER_NXE 0x800u

static uint8_t mem[MEM_SIZE] __attribute__((aligned(4096)));
static _Atomic uint64_t code[MEM_SIZE / 4096];
static _Atomic uint8_t dirty[MEM_SIZE / 4096];
static struct mmu *mmu;
static bool abort_mmio;
static struct {
    uint64_t gpa, value;
    unsigned size;
    bool write;
} ios[64];
static unsigned nios;
static uint64_t written_gpa;
static unsigned nwritten;
static unsigned npages; /* questions where a page is */

static bool env_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    (void)ctx;
    npages++;
    if (gpa >= MEM_SIZE)
        return false;
    page->host = mem + (gpa & MMU_PAGE_MASK);
    page->writable = (gpa & MMU_PAGE_MASK) != ROM;
    page->executable = true;
    page->code = &code[gpa >> 12];
    page->dirty = &dirty[gpa >> 12];
    return true;
}

static int env_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    (void)ctx;
    if (abort_mmio)
        return 1;
    ck_assert_uint_lt(nios, 64);
    ios[nios].gpa = gpa;
    ios[nios].size = size;
    ios[nios].write = write;
    ios[nios++].value = *value;
    if (!write)
        *value = 0x1122334455667788;
    return 0;
}

static void env_code_written(void *ctx, uint64_t gpa, unsigned len)
{
    (void)ctx, (void)len;
    written_gpa = gpa;
    nwritten++;
}

static const struct mmu_env env = {env_page, env_mmio, env_code_written, NULL};

static void set_up(void)
{
    memset(mem, 0, sizeof(mem));
    for (unsigned i = 0; i < MEM_SIZE / 4096; i++) {
        atomic_store(&code[i], 0);
        atomic_store(&dirty[i], 0);
    }
    abort_mmio = false;
    nios = nwritten = 0;
    mmu = calloc(1, sizeof(*mmu));
    mmu_init(mmu, &env);
}

static void tear_down(void)
{
    free(mmu);
}

static void put64(uint32_t at, uint64_t v)
{
    memcpy(mem + at, &v, 8);
}

static uint64_t get64(uint32_t at)
{
    uint64_t v;

    memcpy(&v, mem + at, 8);
    return v;
}

static void put32(uint32_t at, uint32_t v)
{
    memcpy(mem + at, &v, 4);
}

static bool set_mode(uint64_t cr0, uint64_t cr4, uint64_t efer, uint32_t pkru)
{
    struct mmu_mode mode = {.cr0 = cr0, .cr3 = ROOT, .cr4 = cr4, .efer = efer, .gpa_bits = 40};

    mode.pkru = pkru;
    mmu_flush_all(mmu);
    return mmu_set_mode(mmu, &mode, true);
}

/* 4-level tables at ROOT ... ROOT + 0x3000; linear 0x400000 + n pages map by `PT`. */
#define PDPT   (ROOT + 0x1000)
#define PD     (ROOT + 0x2000)
#define PT     (ROOT + 0x3000)
#define LINEAR 0x400000u

static void long_mode(uint64_t cr0, uint64_t cr4, uint64_t flags)
{
    put64(ROOT, PDPT | flags);
    put64(PDPT, PD | flags);
    put64(PD + 8 * 2, PT | flags);
    ck_assert(set_mode(CR0_PG | cr0, CR4_PAE | cr4, EFER_LMA | EFER_NXE, 0));
}

static void check_fault(int result, uint64_t addr, uint32_t error)
{
    ck_assert_int_eq(result, MMU_FAULT);
    ck_assert_uint_eq(mmu->fault_addr, addr);
    ck_assert_uint_eq(mmu->fault_error, error);
}

START_TEST(paging_off_is_identity)
{
    uint32_t v = 0x12345678;

    ck_assert_int_eq(mmu_write(mmu, MMU_USER, 0x5001, &v, 4), MMU_OK);
    ck_assert_int_eq(memcmp(mem + 0x5001, &v, 4), 0);
    ck_assert_ptr_eq(mmu_fast_write(mmu, MMU_USER, 0x5010, 8), mem + 0x5010);
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0x5010, 8)); /* an index of its own */
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_USER, 0x5ffc, 8));   /* crosses the page */
}
END_TEST

START_TEST(four_levels_and_accessed_dirty)
{
    uint64_t v = 7;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | ALL);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR + 8, &v, 8), MMU_OK);
    ck_assert_uint_eq(get64(ROOT), PDPT | ALL | A);
    ck_assert_uint_eq(get64(PD + 16), PT | ALL | A);
    ck_assert_uint_eq(get64(PT), 0x9000 | ALL | A);
    /* Clean: the first store must come to the walk, to set the dirty bit. */
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_USER, LINEAR, 8));
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_USER, LINEAR, 8));
    v = 9;
    ck_assert_int_eq(mmu_write(mmu, MMU_USER, LINEAR + 8, &v, 8), MMU_OK);
    ck_assert_uint_eq(get64(PT), 0x9000 | ALL | A | D);
    ck_assert_uint_eq(get64(0x9008), 9);
    ck_assert_uint_eq(dirty[9], 1);
    ck_assert_ptr_eq(mmu_fast_write(mmu, MMU_USER, LINEAR, 8), mem + 0x9000);
}
END_TEST

START_TEST(faults_name_their_cause)
{
    uint8_t b = 0;

    long_mode(CR0_WP, 0, ALL);
    check_fault(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_U);
    check_fault(mmu_write(mmu, MMU_KERNEL, LINEAR + 5, &b, 1), LINEAR + 5, MMU_PF_W);
    put64(PT, 0x9000 | P | W);
    check_fault(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_U);
    put64(PT, 0x9000 | P | U);
    check_fault(mmu_write(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_W);
    check_fault(mmu_write(mmu, MMU_KERNEL, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_W);
    ck_assert_uint_eq(get64(PT), 0x9000 | P | U); /* a fault sets no bits */
    put64(PT, 0x9000 | ALL | 1ull << 45);
    check_fault(mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_RSVD);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, 0x800000000000, &b, 1), MMU_NONCANON);
}
END_TEST

START_TEST(write_protection_without_wp)
{
    uint8_t b = 1;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | P | U);
    ck_assert_int_eq(mmu_write(mmu, MMU_KERNEL, LINEAR, &b, 1), MMU_OK);
    check_fault(mmu_write(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_W);
}
END_TEST

START_TEST(no_execute)
{
    struct mmu_code fetched;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | ALL | NX);
    check_fault(mmu_fetch(mmu, true, LINEAR, &fetched), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_I);
    put64(PT, 0x9000 | ALL);
    put64(PD + 16, PT | ALL | NX); /* any level forbids */
    check_fault(mmu_fetch(mmu, false, LINEAR, &fetched), LINEAR, MMU_PF_P | MMU_PF_I);
    put64(PD + 16, PT | ALL);
    ck_assert_int_eq(mmu_fetch(mmu, true, LINEAR + 5, &fetched), MMU_OK);
    ck_assert_uint_eq(fetched.gpa, 0x9005);
    ck_assert_ptr_eq(fetched.host, mem + 0x9000);
    ck_assert(!fetched.global);
    /* Without NXE the bit is reserved. */
    put64(PT, 0x9000 | ALL | NX);
    ck_assert(set_mode(CR0_PG, CR4_PAE, EFER_LMA, 0));
    check_fault(mmu_fetch(mmu, true, LINEAR, &fetched), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_RSVD);
}
END_TEST

START_TEST(smep_and_smap)
{
    struct mmu_code fetched;
    uint8_t b;

    long_mode(0, CR4_SMEP | CR4_SMAP, ALL);
    put64(PT, 0x9000 | ALL);
    check_fault(mmu_fetch(mmu, false, LINEAR, &fetched), LINEAR, MMU_PF_P | MMU_PF_I);
    ck_assert_int_eq(mmu_fetch(mmu, true, LINEAR, &fetched), MMU_OK);
    check_fault(mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1), LINEAR, MMU_PF_P);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL_AC, LINEAR, &b, 1), MMU_OK);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, LINEAR, 1));
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL_AC, LINEAR, 1));
    put64(PT, 0x9000 | P | W);
    mmu_flush_all(mmu);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1), MMU_OK);
}
END_TEST

START_TEST(protection_keys)
{
    uint8_t b = 0;

    long_mode(CR0_WP, CR4_PKE, ALL);
    put64(PT, 0x9000 | ALL | 3ull << 59);
    ck_assert(set_mode(CR0_PG | CR0_WP, CR4_PAE | CR4_PKE, EFER_LMA | EFER_NXE, 1u << 6));
    check_fault(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_PK);
    ck_assert(set_mode(CR0_PG | CR0_WP, CR4_PAE | CR4_PKE, EFER_LMA | EFER_NXE, 2u << 6));
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), MMU_OK);
    check_fault(mmu_write(mmu, MMU_USER, LINEAR, &b, 1), LINEAR,
                MMU_PF_P | MMU_PF_U | MMU_PF_W | MMU_PF_PK);
}
END_TEST

START_TEST(paging_32_bit)
{
    uint8_t b = 0;

    put32(ROOT + 4, 0x2000 | ALL);
    put32(0x2000, 0x9000 | ALL);
    ck_assert(set_mode(CR0_PG, CR4_PSE, EFER_NXE, 0));
    ck_assert_int_eq(mmu_write(mmu, MMU_USER, LINEAR + 3, &b, 1), MMU_OK);
    ck_assert_uint_eq(get64(0x2000) & 0xffffffff, 0x9000 | ALL | A | D);
    /* 4 MiB page with address bits 39:32 in bits 20:13; bit 21 is reserved. */
    put32(ROOT + 8, 0x00000000 | ALL | PS);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, 0x800000 + 0x5678, &b, 1), MMU_OK);
    ck_assert_ptr_eq(mmu_fast_read(mmu, MMU_USER, 0x800000 + 0x5678, 1), mem + 0x5678);
    put32(ROOT + 12, 0x200000 | ALL | PS);
    check_fault(mmu_read(mmu, MMU_USER, 0xc00000, &b, 1), 0xc00000,
                MMU_PF_P | MMU_PF_U | MMU_PF_RSVD);
}
END_TEST

START_TEST(paging_pae)
{
    uint8_t b = 0;

    put64(ROOT, 0x2000 | P);
    put64(0x2000 + 16, 0x3000 | ALL);
    put64(0x3000, 0x9000 | ALL);
    put64(0x2000 + 24, 0 | ALL | PS);
    ck_assert(set_mode(CR0_PG, CR4_PAE, EFER_NXE, 0));
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), MMU_OK);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, 0x600000 + 0x9000, &b, 1), MMU_OK);
    ck_assert_ptr_eq(mmu_fast_read(mmu, MMU_USER, 0x609000, 1), mem + 0x9000);
    check_fault(mmu_read(mmu, MMU_USER, 0x40000000, &b, 1), 0x40000000, MMU_PF_U);
    /* The PDPTEs are what they were when CR3 was loaded. */
    put64(ROOT, 0);
    mmu_flush_all(mmu);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), MMU_OK);
    put64(ROOT, 0x2000 | P | W); /* reserved */
    ck_assert(!set_mode(CR0_PG, CR4_PAE, EFER_NXE, 0));
}
END_TEST

START_TEST(large_pages_and_invlpg)
{
    uint8_t b;

    long_mode(0, 0, ALL);
    put64(PD + 8 * 2, 0 | ALL | PS);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR + 0x5000, &b, 1), MMU_OK);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR + 0x9000, &b, 1), MMU_OK);
    /* INVLPG of any address in the page drops all of it. */
    mmu_flush_page(mmu, LINEAR + 0x1000);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_USER, LINEAR + 0x5000, 1));
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_USER, LINEAR + 0x9000, 1));
    put64(PD + 8 * 2, 0x2000 | ALL | PS); /* a reserved address bit of a 2 MiB page */
    check_fault(mmu_read(mmu, MMU_USER, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_U | MMU_PF_RSVD);
    put64(PDPT, 0 | ALL | PS);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, 0x7123, &b, 1), MMU_OK); /* 1 GiB */
    ck_assert_ptr_eq(mmu_fast_read(mmu, MMU_USER, 0x7123, 1), mem + 0x7123);
}
END_TEST

START_TEST(flushes)
{
    uint8_t b;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | ALL | G);
    put64(PT + 8, 0xa000 | ALL);
    mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1);
    mmu_read(mmu, MMU_KERNEL, LINEAR + 0x1000, &b, 1);
    mmu_flush_nonglobal(mmu);
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, LINEAR, 1));
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, LINEAR + 0x1000, 1));
    mmu_read(mmu, MMU_KERNEL, LINEAR + 0x1000, &b, 1);
    mmu_flush_page(mmu, LINEAR);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, LINEAR, 1));
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, LINEAR + 0x1000, 1));
    mmu_flush_gpa(mmu, 0xa800, 1);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, LINEAR + 0x1000, 1));
    mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1);
    mmu_flush_all(mmu);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, LINEAR, 1));
}
END_TEST

/* The pages asked for by a read: 1 for the page itself, and 1 for each table that is looked for. */
static unsigned asks(uint64_t linear, int wanted)
{
    uint8_t b;

    npages = 0;
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, linear, &b, 1), wanted);
    return npages;
}

#define PT2 (ROOT + 0x4000)

/* Walks begin at the lowest table that is known, until something is flushed. */
START_TEST(paths)
{
    long_mode(0, 0, ALL);
    put64(PD + 8 * 3, PT2 | ALL);
    for (unsigned i = 0; i < 8; i++) {
        put64(PT + 8 * i, 0x9000 | ALL);
        put64(PT2 + 8 * i, 0xa000 | ALL);
    }
    ck_assert_uint_eq(asks(LINEAR, MMU_OK), 5);
    ck_assert_uint_eq(asks(LINEAR + 0x1000, MMU_OK), 1);
    ck_assert_uint_eq(asks(LINEAR + 0x200000, MMU_OK), 2); /* the other page table */
    ck_assert_uint_eq(asks(LINEAR + 0x201000, MMU_OK), 1);
    ck_assert_uint_eq(asks(LINEAR + 0x2000, MMU_OK), 1);
    mmu_flush_page(mmu, LINEAR);
    ck_assert_uint_eq(asks(LINEAR + 0x3000, MMU_OK), 5);
    mmu_flush_nonglobal(mmu);
    ck_assert_uint_eq(asks(LINEAR + 0x3000, MMU_OK), 5);
    mmu_flush_gpa(mmu, PT, 4096);
    ck_assert_uint_eq(asks(LINEAR + 0x4000, MMU_OK), 5);
    /* The accessed bits of what is above were set on the first way. */
    ck_assert_uint_eq(get64(PD + 24), PT2 | ALL | A);
    /* A fault looks at everything again. */
    put64(PD + 16, PT | P | W);
    mmu_flush_all(mmu);
    check_fault(mmu_read(mmu, MMU_USER, LINEAR, &(uint8_t){0}, 1), LINEAR, MMU_PF_P | MMU_PF_U);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, LINEAR, &(uint8_t){0}, 1), MMU_OK);
    put64(PD + 16, PT | ALL);
    ck_assert_uint_eq(asks(LINEAR, MMU_OK), 5);
    /* Rights of the entries above count on the short way. */
    put64(PD + 16, PT | P | U);
    mmu_flush_all(mmu);
    ck_assert_uint_eq(asks(LINEAR, MMU_OK), 5);
    check_fault(mmu_write(mmu, MMU_USER, LINEAR + 0x1000, &(uint8_t){0}, 1), LINEAR + 0x1000,
                MMU_PF_P | MMU_PF_U | MMU_PF_W);
}
END_TEST

/* More entries than are listed: a flush finds all of them. */
START_TEST(flushes_of_many)
{
    uint8_t b;

    long_mode(0, 0, ALL);
    for (unsigned i = 0; i < 512; i++)
        put64(PT + 8 * i, 0x9000 | ALL | (i % 16 ? 0 : G));
    for (unsigned n = 100; n <= 500; n += 200) {
        for (unsigned i = 0; i < n; i++)
            ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR + 0x1000 * i, &b, 1), MMU_OK);
        for (unsigned i = 0; i < n; i++)
            ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_USER, LINEAR + 0x1000 * i, 1));
        mmu_flush_nonglobal(mmu);
        for (unsigned i = 0; i < n; i++)
            if (i % 16)
                ck_assert_ptr_null(mmu_fast_read(mmu, MMU_USER, LINEAR + 0x1000 * i, 1));
        mmu_flush_all(mmu);
        for (unsigned i = 0; i < n; i++)
            ck_assert_ptr_null(mmu_fast_read(mmu, MMU_USER, LINEAR + 0x1000 * i, 1));
    }
}
END_TEST

/* Changes of page tables show whether a fetch still goes by what was cached. */
START_TEST(flushes_of_fetches)
{
    struct mmu_code fetched;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | P | G);
    put64(PT + 8, 0xa000 | P);
    put64(PT + 16, 0xb000 | ALL | G);
    ck_assert_int_eq(mmu_fetch(mmu, false, LINEAR + 1, &fetched), MMU_OK);
    ck_assert(fetched.global);
    ck_assert_int_eq(mmu_fetch(mmu, false, LINEAR + 0x1000, &fetched), MMU_OK);
    ck_assert(!fetched.global);
    ck_assert_int_eq(mmu_fetch(mmu, true, LINEAR + 0x2000, &fetched), MMU_OK);
    put64(PT, 0);
    put64(PT + 8, 0);
    mmu_flush_nonglobal(mmu);
    ck_assert_int_eq(mmu_fetch(mmu, false, LINEAR + 2, &fetched), MMU_OK);
    ck_assert(fetched.global);
    ck_assert_uint_eq(fetched.gpa, 0x9002);
    ck_assert_int_eq(mmu_fetch(mmu, false, LINEAR + 0x1000, &fetched), MMU_FAULT);
    mmu_flush_gpa(mmu, 0x9fff, 1);
    ck_assert_int_eq(mmu_fetch(mmu, false, LINEAR, &fetched), MMU_FAULT);
}
END_TEST

START_TEST(empty_entries_match_nothing)
{
    for (unsigned idx = 0; idx < MMU_NTABLES; idx++) {
        for (uint64_t i = 0; i < MMU_TLB_SIZE; i++) {
            ck_assert_ptr_null(mmu_fast_read(mmu, idx, i << 12, 1));
            ck_assert_ptr_null(mmu_fast_write(mmu, idx, (i << 12) + 4095, 1));
        }
        for (uint64_t back = 1; back < 8192; back++)
            ck_assert_ptr_null(mmu_fast_read(mmu, idx, 0 - back, 8));
    }
}
END_TEST

START_TEST(page_crossing)
{
    uint64_t v = 0x1122334455667788, r = 0;

    long_mode(0, 0, ALL);
    put64(PT, 0x9000 | ALL);
    check_fault(mmu_write(mmu, MMU_USER, LINEAR + 0xffc, &v, 8), LINEAR + 0x1000,
                MMU_PF_U | MMU_PF_W);
    ck_assert_uint_eq(get64(0x9ff8), 0); /* nothing was written */
    put64(PT + 8, 0xb000 | ALL);
    ck_assert_int_eq(mmu_write(mmu, MMU_USER, LINEAR + 0xffc, &v, 8), MMU_OK);
    ck_assert_int_eq(mmu_read(mmu, MMU_USER, LINEAR + 0xffc, &r, 8), MMU_OK);
    ck_assert_uint_eq(r, v);
    ck_assert_int_eq(memcmp(mem + 0xb000, (uint8_t *)&v + 4, 4), 0);
}
END_TEST

START_TEST(mmio_in_aligned_pieces)
{
    uint8_t buf[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    uint64_t v = 0;

    ck_assert_int_eq(mmu_write(mmu, MMU_KERNEL, MEM_SIZE + 3, buf, 9), MMU_OK);
    ck_assert_uint_eq(nios, 3);
    ck_assert_uint_eq(ios[0].gpa, MEM_SIZE + 3);
    ck_assert_uint_eq(ios[0].size, 1);
    ck_assert_uint_eq(ios[1].size, 4);
    ck_assert_uint_eq(ios[1].value, 0x05040302);
    ck_assert_uint_eq(ios[2].size, 4);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, MEM_SIZE + 8, &v, 8), MMU_OK);
    ck_assert_uint_eq(v, 0x1122334455667788);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, MEM_SIZE + 8, 8));
    abort_mmio = true;
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, MEM_SIZE, &v, 4), MMU_ABORT);
}
END_TEST

START_TEST(read_only_memory)
{
    uint32_t v = 5;

    ck_assert_int_eq(mmu_write(mmu, MMU_KERNEL, ROM + 4, &v, 4), MMU_OK);
    ck_assert_uint_eq(nios, 1);
    ck_assert(ios[0].write);
    ck_assert_uint_eq(get64(ROM), 0);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, ROM + 4, &v, 4), MMU_OK);
    ck_assert_uint_eq(v, 0);
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, ROM, 4));
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, ROM, 4));
}
END_TEST

START_TEST(stores_to_code_are_seen)
{
    uint32_t v = 5;

    atomic_store(&code[9], 1);
    ck_assert_int_eq(mmu_write(mmu, MMU_KERNEL, 0x9010, &v, 4), MMU_OK);
    ck_assert_uint_eq(nwritten, 1);
    ck_assert_uint_eq(written_gpa, 0x9010);
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0x9010, 4));
    atomic_store(&code[9], 0);
    mmu_write(mmu, MMU_KERNEL, 0x9010, &v, 4);
    ck_assert_ptr_nonnull(mmu_fast_write(mmu, MMU_KERNEL, 0x9010, 4));
    mmu_protect_gpa(mmu, 0x9123, 1);
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0x9010, 4));
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, 0x9010, 4));
}
END_TEST

START_TEST(pages_become_dirty_by_stores_only)
{
    uint32_t v = 5;

    for (uint64_t page = 0x9000; page < 0xd000; page += 0x1000)
        mmu_read(mmu, MMU_KERNEL, page, &v, 4);
    ck_assert_uint_eq(dirty[9], 0);
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, 0x9000, 4));
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0x9000, 4));
    for (uint64_t page = 0x9000; page < 0xd000; page += 0x1000) {
        mmu_write(mmu, MMU_KERNEL, page, &v, 4);
        ck_assert_uint_eq(dirty[page >> 12], 1);
        ck_assert_ptr_nonnull(mmu_fast_write(mmu, MMU_KERNEL, page, 4));
    }
    /* Two pages in the middle are cleaned. */
    dirty[0xa] = dirty[0xb] = 0;
    mmu_protect_gpa(mmu, 0xa000, 0x2000);
    ck_assert_ptr_nonnull(mmu_fast_write(mmu, MMU_KERNEL, 0x9000, 4));
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0xa000, 4));
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0xb000, 4));
    ck_assert_ptr_nonnull(mmu_fast_write(mmu, MMU_KERNEL, 0xc000, 4));
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, 0xb000, 4));
    mmu_protect_gpa(mmu, 0, UINT64_MAX);
    ck_assert_ptr_null(mmu_fast_write(mmu, MMU_KERNEL, 0xc000, 4));
    /* One that is dirty already may be written as soon as it has been read. */
    mmu_read(mmu, MMU_KERNEL, 0xc800, &v, 4);
    mmu_flush_all(mmu);
    mmu_read(mmu, MMU_KERNEL, 0xc800, &v, 4);
    ck_assert_ptr_nonnull(mmu_fast_write(mmu, MMU_KERNEL, 0xc800, 4));
}
END_TEST

START_TEST(read_modify_write)
{
    struct mmu_rmw rmw;

    ck_assert_int_eq(mmu_rmw_begin(mmu, MMU_KERNEL, 0x9010, 8, &rmw), MMU_OK);
    ck_assert_ptr_eq(rmw.host, mem + 0x9010);
    mmu_rmw_done(mmu, &rmw);
    ck_assert_uint_eq(nwritten, 0);
    atomic_store(&code[9], 2);
    ck_assert_int_eq(mmu_rmw_begin(mmu, MMU_KERNEL, 0x9010, 8, &rmw), MMU_OK);
    mmu_rmw_done(mmu, &rmw);
    ck_assert_uint_eq(nwritten, 1);
    ck_assert_int_eq(mmu_rmw_begin(mmu, MMU_KERNEL, 0x9ffc, 8, &rmw), MMU_OK);
    ck_assert_ptr_null(rmw.host); /* crosses a page */
    ck_assert_int_eq(mmu_rmw_begin(mmu, MMU_KERNEL, MEM_SIZE, 8, &rmw), MMU_OK);
    ck_assert_ptr_null(rmw.host); /* MMIO */
    long_mode(CR0_WP, 0, ALL);
    put64(PT, 0x9000 | P | U);
    check_fault(mmu_rmw_begin(mmu, MMU_USER, LINEAR, 4, &rmw), LINEAR,
                MMU_PF_P | MMU_PF_U | MMU_PF_W);
}
END_TEST

START_TEST(watched_pages_have_no_fast_entries)
{
    uint64_t pages[] = {0x9000};
    uint8_t b;

    mmu_set_watch(mmu, pages, 1);
    mmu_read(mmu, MMU_KERNEL, 0x9001, &b, 1);
    mmu_read(mmu, MMU_KERNEL, 0xa001, &b, 1);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL, 0x9001, 1));
    ck_assert_ptr_nonnull(mmu_fast_read(mmu, MMU_KERNEL, 0xa001, 1));
    mmu_read(mmu, MMU_USER_ALIGN, 0xa001, &b, 1);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_USER_ALIGN, 0xa001, 1));
}
END_TEST

START_TEST(tables_outside_memory)
{
    uint8_t b;

    long_mode(0, 0, ALL);
    put64(PD + 16, 0x7f000000 | ALL);
    check_fault(mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1), LINEAR, MMU_PF_P | MMU_PF_RSVD);
    ck_assert_uint_eq(nios, 0);
    /* A table in read-only memory: walked, without accessed bits. */
    put64(PD + 16, ROM | ALL);
    put64(ROM, 0x9000 | ALL);
    ck_assert_int_eq(mmu_read(mmu, MMU_KERNEL, LINEAR, &b, 1), MMU_OK);
    ck_assert_uint_eq(get64(ROM), 0x9000 | ALL);
}
END_TEST

START_TEST(translate_has_no_side_effects)
{
    uint64_t gpa = 0;

    long_mode(CR0_WP, CR4_SMAP, ALL);
    put64(PT, 0x9000 | ALL);
    mmu->fault_addr = 77;
    ck_assert(mmu_translate(mmu, LINEAR + 0x123, &gpa));
    ck_assert_uint_eq(gpa, 0x9123);
    ck_assert_uint_eq(get64(PT), 0x9000 | ALL);
    ck_assert(!mmu_translate(mmu, LINEAR + 0x1000, &gpa));
    ck_assert(!mmu_translate(mmu, 0x800000000000, &gpa));
    ck_assert_uint_eq(mmu->fault_addr, 77);
    ck_assert_ptr_null(mmu_fast_read(mmu, MMU_KERNEL_AC, LINEAR, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mmu");
    TCase *tc = tcase_create("mmu");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, paging_off_is_identity);
    tcase_add_test(tc, four_levels_and_accessed_dirty);
    tcase_add_test(tc, faults_name_their_cause);
    tcase_add_test(tc, write_protection_without_wp);
    tcase_add_test(tc, no_execute);
    tcase_add_test(tc, smep_and_smap);
    tcase_add_test(tc, protection_keys);
    tcase_add_test(tc, paging_32_bit);
    tcase_add_test(tc, paging_pae);
    tcase_add_test(tc, large_pages_and_invlpg);
    tcase_add_test(tc, flushes);
    tcase_add_test(tc, flushes_of_fetches);
    tcase_add_test(tc, paths);
    tcase_add_test(tc, flushes_of_many);
    tcase_add_test(tc, empty_entries_match_nothing);
    tcase_add_test(tc, page_crossing);
    tcase_add_test(tc, mmio_in_aligned_pieces);
    tcase_add_test(tc, read_only_memory);
    tcase_add_test(tc, stores_to_code_are_seen);
    tcase_add_test(tc, pages_become_dirty_by_stores_only);
    tcase_add_test(tc, read_modify_write);
    tcase_add_test(tc, watched_pages_have_no_fast_entries);
    tcase_add_test(tc, tables_outside_memory);
    tcase_add_test(tc, translate_has_no_side_effects);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
