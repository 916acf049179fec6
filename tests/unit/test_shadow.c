/* SPDX-License-Identifier: BSD-2-Clause */
/* test_shadow.c: shadow paging, by single properties and by random guests.
 *
 * test_shadow [FIRST COUNT]: only random guests, with these seeds. */
#include <check.h>

#include "shadow_model.h"

#define TABLE(n) ((uint64_t)(n)*4096)
#define DATA(n)  ((uint64_t)(NTABLES + (n)) * 4096)
#define ALL      (P | W | U)
#define LINEAR   0x400000ull /* M.linear[i] is i pages from here */

static void put(uint64_t gpa, uint64_t e)
{
    host_store(gpa, &e, 8);
}

static uint64_t get(uint64_t gpa)
{
    uint64_t e;

    memcpy(&e, M.mem + gpa, 8);
    return e;
}

static void set_up(void)
{
    model_new();
    for (unsigned i = 0; i < NLINEAR; i++)
        M.linear[i] = LINEAR + i * 4096;
}

static void tear_down(void)
{
    model_free();
}

/* 4-level tables 0 to 3; LINEAR + n pages by entry n of table 3. */
static struct model_vcpu *long_mode(uint64_t cr0, uint64_t cr4)
{
    struct mmu_mode mode = {
        .cr0 = 0x80000001 | cr0, .cr4 = 0x20 | cr4, .efer = 0xd00, .gpa_bits = 40};

    if (!M.sh)
        ck_assert(model_start());
    put(TABLE(0), TABLE(1) | ALL);
    put(TABLE(1), TABLE(2) | ALL);
    put(TABLE(2) + 8 * 2, TABLE(3) | ALL);
    ck_assert(load_mode(&M.v[0], &mode));
    return &M.v[0];
}

#define PTE(n) (TABLE(3) + 8 * (n))

static uint64_t faults(void)
{
    return shadow_counts(M.sh)->faults;
}

START_TEST(demand_and_dirty)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    uint64_t n;

    put(PTE(0), DATA(0) | ALL);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    ck_assert_uint_eq(get(PTE(0)), DATA(0) | ALL | A);
    ck_assert_uint_eq(get(TABLE(0)), TABLE(1) | ALL | A);
    n = faults();
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 0, MMU_READ));
    ck_assert_uint_eq(faults(), n);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_WRITE), M.mem + DATA(0));
    ck_assert_uint_eq(get(PTE(0)), DATA(0) | ALL | A | D);
    ck_assert_uint_eq(faults(), n + 1);
    /* Cleared bits are set again after an invalidation. */
    put(PTE(0), DATA(0) | ALL);
    invlpg(v, 0);
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 0, MMU_WRITE));
    ck_assert_uint_eq(get(PTE(0)), DATA(0) | ALL | A | D);
}
END_TEST

START_TEST(stale_until_invlpg)
{
    struct model_vcpu *v = long_mode(0x10000, 0);

    put(PTE(0), DATA(0) | ALL);
    put(PTE(1), DATA(1) | ALL);
    access_page(v, BY_USER, 0, MMU_READ);
    access_page(v, BY_USER, 1, MMU_READ);
    put(PTE(0), DATA(2) | ALL);
    put(PTE(1), DATA(3) | ALL);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    invlpg(v, 0);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(2));
    ck_assert_ptr_eq(access_page(v, BY_USER, 1, MMU_READ), M.mem + DATA(1));
    reload(v);
    ck_assert_ptr_eq(access_page(v, BY_USER, 1, MMU_READ), M.mem + DATA(3));
}
END_TEST

/* The guest writes its own table: one fault, then at full speed until the next load of CR3. */
START_TEST(out_of_sync_tables)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    uint64_t n, e = DATA(5) | ALL;
    uint8_t *at;

    put(PTE(0), DATA(0) | ALL);
    put(PTE(1), TABLE(3) | ALL);
    access_page(v, BY_USER, 0, MMU_READ);
    n = shadow_counts(M.sh)->unsyncs;
    reload(v);
    at = access_page(v, BY_KERNEL, 1, MMU_WRITE);
    ck_assert_ptr_eq(at, M.mem + TABLE(3));
    ck_assert_uint_eq(shadow_counts(M.sh)->unsyncs, n + 1);
    memcpy(at, &e, 8);
    note_all();
    n = faults();
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL, 1, MMU_WRITE));
    ck_assert_uint_eq(faults(), n);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    reload(v);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(5));
    n = faults();
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL, 1, MMU_WRITE)); /* protected again */
    ck_assert_uint_eq(faults(), n + 1);
}
END_TEST

/* Stores to a page that becomes a table after it has been written, and to a table that was read. */
START_TEST(stores_to_tables_are_seen)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    uint64_t e = DATA(1) | ALL | A | D;

    put(PTE(0), TABLE(4) | ALL);
    put(PTE(1), TABLE(5) | ALL | A | D);
    put(TABLE(4), DATA(0) | ALL | A | D);
    put(TABLE(5), DATA(0) | ALL | A | D);
    put(TABLE(2) + 8 * 3, TABLE(4) | ALL);
    put(TABLE(2) + 8 * 4, TABLE(5) | ALL);
    M.linear[2] = LINEAR + 0x200000;
    M.linear[3] = LINEAR + 0x400000;
    reload(v);
    access_page(v, BY_KERNEL, 0, MMU_WRITE);
    for (unsigned k = 0; k < 2; k++) {
        uint8_t *at;

        ck_assert_ptr_eq(access_page(v, BY_USER, 2 + k, MMU_READ), M.mem + DATA(0));
        access_page(v, BY_KERNEL, k, MMU_READ);
        at = access_page(v, BY_KERNEL, k, MMU_WRITE);
        ck_assert_ptr_eq(at, M.mem + TABLE(4 + k));
        memcpy(at, &e, 8);
        note_all();
        reload(v);
        ck_assert_ptr_eq(access_page(v, BY_USER, 2 + k, MMU_READ), M.mem + DATA(1));
    }
}
END_TEST

/* A table that is written between all loads stays writable, and is compared. */
START_TEST(write_flood)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    uint64_t n = 0;

    put(PTE(1), TABLE(3) | ALL | A | D);
    for (unsigned k = 0; k < 20; k++) {
        uint64_t e = DATA(k & 7) | ALL;
        uint8_t *at = access_page(v, BY_KERNEL, 1, MMU_WRITE);

        memcpy(at, &e, 8);
        note_all();
        reload(v);
        ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(k & 7));
        if (k == 9)
            n = shadow_counts(M.sh)->unsyncs;
    }
    ck_assert_uint_gt(n, 2);
    ck_assert_uint_eq(shadow_counts(M.sh)->unsyncs, n);
    for (unsigned k = 0; k < 40; k++) /* it cools down */
        reload(v);
    access_page(v, BY_KERNEL, 1, MMU_WRITE);
    ck_assert_uint_eq(shadow_counts(M.sh)->unsyncs, n + 1);
}
END_TEST

START_TEST(cr3_cache)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    struct mmu_mode a = v->mode, b = a;
    uint64_t n;

    put(PTE(0), DATA(0) | ALL | A | D);
    put(TABLE(5), TABLE(1) | ALL);
    b.cr3 = TABLE(5);
    access_page(v, BY_USER, 0, MMU_READ);
    load_mode(v, &b);
    access_page(v, BY_USER, 0, MMU_READ);
    n = faults();
    for (unsigned k = 0; k < 10; k++) {
        load_mode(v, k & 1 ? &b : &a);
        ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    }
    ck_assert_uint_eq(faults(), n);
    /* With another CR0.WP it is another space. */
    a.cr0 ^= 0x10000;
    load_mode(v, &a);
    access_page(v, BY_USER, 0, MMU_READ);
    ck_assert_uint_gt(faults(), n);
}
END_TEST

/* What needs no work is found without any; what does is not passed over. */
START_TEST(quick_loads)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    struct mmu_mode a = v->mode, b = a;
    void *space = shadow_sink_space(&v->sv);

    put(PTE(0), DATA(0) | ALL | A | D);
    put(TABLE(5), TABLE(1) | ALL);
    b.cr3 = TABLE(5);
    reload(v);
    access_page(v, BY_USER, 0, MMU_READ);
    ck_assert(shadow_load(&v->sv) == SHADOW_RETRY);
    ck_assert(shadow_load_quick(&v->sv, false));
    ck_assert(shadow_load_quick(&v->sv, true));
    ck_assert_ptr_eq(shadow_sink_space(&v->sv), space);
    /* A space that there is not yet; then one that is not loaded. */
    mmu_set_mode(v->mmu, &b, true);
    ck_assert(!shadow_load_quick(&v->sv, true));
    ck_assert(shadow_load(&v->sv) == SHADOW_RETRY);
    mmu_set_mode(v->mmu, &a, true);
    ck_assert(!shadow_load_quick(&v->sv, false));
    ck_assert_ptr_ne(shadow_sink_space(&v->sv), space);
    ck_assert(shadow_load_quick(&v->sv, true));
    ck_assert_ptr_eq(shadow_sink_space(&v->sv), space);
    /* The role is more than CR3. */
    a.cr0 ^= 0x10000;
    mmu_set_mode(v->mmu, &a, true);
    ck_assert(!shadow_load_quick(&v->sv, true));
    a.cr0 ^= 0x10000;
    mmu_set_mode(v->mmu, &a, true);
    /* A table out of sync is to be compared first. */
    ck_assert(shadow_load_quick(&v->sv, true));
    put(PTE(0), DATA(2) | ALL | A | D);
    ck_assert(!shadow_load_quick(&v->sv, false) && !shadow_load_quick(&v->sv, true));
    ck_assert(!shadow_invlpg_holds(&v->sv, M.linear[0]));
    shadow_invlpg(&v->sv, M.linear[0]);
    ck_assert(shadow_invlpg_holds(&v->sv, M.linear[0]));
    ck_assert(shadow_load(&v->sv) == SHADOW_RETRY);
    ck_assert(shadow_load_quick(&v->sv, false));
    /* An accessed or dirty bit less is a difference, one more is none. */
    access_page(v, BY_USER, 0, MMU_READ);
    put(PTE(0), DATA(2) | ALL | A);
    ck_assert(!shadow_invlpg_holds(&v->sv, M.linear[0]));
}
END_TEST

/* The place where a space was found last forgets it with the space. */
START_TEST(spaces_come_and_go)
{
    struct model_vcpu *v = long_mode(0x10000, 0);
    struct mmu_mode mode = v->mode;

    put(PTE(0), DATA(0) | ALL | A | D);
    for (unsigned k = 4; k < 20; k++)
        put(TABLE(k), TABLE(1) | ALL);
    for (unsigned i = 0; i < 500; i++) {
        mode.cr3 = TABLE(4 + i * 7 % 16);
        mode.cr0 ^= i % 3 ? 0 : 0x10000;
        load_mode(v, &mode);
        ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    }
}
END_TEST

START_TEST(write_protection_without_wp)
{
    struct model_vcpu *v = long_mode(0, 0);

    put(PTE(0), DATA(0) | P | U);
    for (unsigned k = 0; k < 3; k++) {
        ck_assert_ptr_nonnull(access_page(v, BY_KERNEL, 0, MMU_WRITE));
        ck_assert_ptr_null(access_page(v, BY_USER, 0, MMU_WRITE));
        ck_assert_uint_eq(v->mmu->fault_error, MMU_PF_P | MMU_PF_W | MMU_PF_U);
        ck_assert_ptr_nonnull(access_page(v, BY_USER, 0, MMU_READ));
        ck_assert_ptr_nonnull(access_page(v, BY_USER, 0, MMU_EXEC));
    }
    ck_assert_uint_eq(M.emulated, 0);
    /* With SMEP the page that supervisor mode writes is not fetched from. */
    long_mode(0, 0x100000);
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL, 0, MMU_WRITE));
    ck_assert_ptr_null(access_page(v, BY_KERNEL, 0, MMU_EXEC));
    ck_assert_uint_eq(v->mmu->fault_error, MMU_PF_P | MMU_PF_I);
    /* With SMAP no mapping is right. */
    long_mode(0, 0x200000);
    put(PTE(0), DATA(0) | P | U | A | D);
    reload(v);
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL_AC, 0, MMU_WRITE));
    ck_assert_uint_eq(M.emulated, 1);
    ck_assert_ptr_null(access_page(v, BY_KERNEL, 0, MMU_READ));
}
END_TEST

/* Explicit accesses with AC, and implicit ones, which AC does not concern. */
START_TEST(smap)
{
    struct model_vcpu *v = long_mode(0x10000, 0x200000);

    put(PTE(0), DATA(0) | ALL);
    ck_assert_ptr_null(access_page(v, BY_KERNEL, 0, MMU_READ));
    ck_assert_uint_eq(v->mmu->fault_error, MMU_PF_P);
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL_AC, 0, MMU_READ));
    ck_assert_ptr_null(access_page(v, BY_IMPLICIT_AC, 0, MMU_READ));
    ck_assert_ptr_null(access_page(v, BY_IMPLICIT_AC, 0, MMU_WRITE));
    ck_assert_uint_eq(get(PTE(0)), DATA(0) | ALL | A); /* not dirty */
    ck_assert_ptr_nonnull(access_page(v, BY_KERNEL_AC, 0, MMU_WRITE));
    ck_assert_uint_eq(get(PTE(0)), DATA(0) | ALL | A | D);
    ck_assert_ptr_null(access_page(v, BY_IMPLICIT_AC, 0, MMU_WRITE));
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 0, MMU_WRITE));
}
END_TEST

START_TEST(pae_pointers_are_loaded_with_cr3)
{
    struct mmu_mode mode = {.cr0 = 0x80000001, .cr4 = 0x20, .efer = 0x800, .gpa_bits = 40};
    struct model_vcpu *v = &M.v[0];

    ck_assert(model_start());
    put(TABLE(0), TABLE(1) | P);
    put(TABLE(1) + 16, TABLE(3) | ALL);
    put(TABLE(2) + 16, TABLE(4) | ALL);
    put(PTE(0), DATA(0) | ALL);
    put(TABLE(4), DATA(1) | ALL);
    ck_assert(load_mode(v, &mode));
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    put(TABLE(0), TABLE(2) | P);
    invlpg(v, 0);
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(0));
    ck_assert(load_mode(v, &mode));
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(1));
    put(TABLE(0), TABLE(1) | ALL); /* reserved bits: the load fails */
    ck_assert(!load_mode(v, &mode));
    ck_assert_ptr_eq(access_page(v, BY_USER, 0, MMU_READ), M.mem + DATA(1));
}
END_TEST

START_TEST(large_pages)
{
    struct model_vcpu *v;
    uint64_t n;

    M.large = M.sink.large = true;
    v = long_mode(0x10000, 0);
    put(TABLE(2) + 16, 0x400000 | ALL | PS | A | D);
    ck_assert_ptr_eq(access_page(v, BY_USER, 3, MMU_WRITE), M.mem + 0x403000);
    n = faults();
    ck_assert_ptr_eq(access_page(v, BY_USER, 9, MMU_WRITE), M.mem + 0x409000);
    ck_assert_uint_eq(faults(), n);
    ck_assert_uint_eq(M.nmapped, 1);
    /* Stores to one page are to be seen: pages of 4 KiB from now on. */
    atomic_fetch_or(&M.code[0x409], 1);
    shadow_protect_gpa(M.sh, 0x409000, 4096);
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 9, MMU_READ));
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 3, MMU_WRITE));
    ck_assert_uint_eq(M.nmapped, 2);
    ck_assert_ptr_nonnull(access_page(v, BY_USER, 9, MMU_WRITE));
    ck_assert_uint_eq(M.emulated, 1);
    /* INVLPG of any address drops all of the page. */
    put(TABLE(2) + 16, 0x600000 | ALL | PS);
    invlpg(v, 20);
    ck_assert_ptr_eq(access_page(v, BY_USER, 3, MMU_READ), M.mem + 0x603000);
    /* A table in the page splits it. */
    put(TABLE(2) + 16, 0 | ALL | PS | A | D);
    reload(v);
    ck_assert_ptr_eq(access_page(v, BY_USER, 2, MMU_WRITE), M.mem + TABLE(2));
    ck_assert_uint_gt(shadow_counts(M.sh)->unsyncs, 0);
}
END_TEST

START_TEST(paging_off)
{
    struct model_vcpu *v = &M.v[0];

    M.large = M.sink.large = true;
    ck_assert(model_start());
    ck_assert_ptr_eq(access_page(v, BY_USER, 1, MMU_WRITE), M.mem + LINEAR + 4096);
    ck_assert_uint_eq(M.nmapped, 1);
    ck_assert_uint_eq(M.mapped[0].page.size, 0x200000);
    M.linear[0] = MEM_SIZE + 0x5000;
    access_page(v, BY_USER, 0, MMU_READ); /* what it should be */
    ck_assert_uint_eq(M.mmio, 1);
}
END_TEST

START_TEST(what_the_sink_must_enforce)
{
    struct model_vcpu *v = long_mode(0, 0);
    struct mmu_mode mode = v->mode;

    mode.cr4 |= 0x100000;
    M.ops.features &= ~(SINK_SMEP | SINK_SMAP);
    mmu_set_mode(v->mmu, &mode, true);
    ck_assert_int_eq(shadow_load(&v->sv), SHADOW_UNSUP);
    ck_assert_ptr_null(shadow_sink_space(&v->sv));
    mode.cr4 ^= 0x100000;
    mmu_set_mode(v->mmu, &mode, true);
    ck_assert_int_eq(shadow_load(&v->sv), SHADOW_RETRY);
}
END_TEST

START_TEST(limits)
{
    struct model_vcpu *v;

    M.config.max_maps = SHADOW_MIN_MAPS - 1;
    ck_assert(!model_start());
    M.config.max_maps = SHADOW_MIN_MAPS;
    M.config.max_nodes = SHADOW_MIN_NODES;
    v = long_mode(0x10000, 0);
    for (unsigned i = 0; i < NLINEAR; i++)
        put(PTE(i), DATA(i) | ALL);
    for (unsigned k = 0; k < 3; k++)
        for (unsigned i = 0; i < NLINEAR; i++) {
            ck_assert_ptr_eq(access_page(v, BY_USER, i, MMU_WRITE), M.mem + DATA(i));
            ck_assert_uint_le(M.nmapped, SHADOW_MIN_MAPS);
        }
    ck_assert_uint_eq(M.nomem, 0);
    ck_assert_uint_eq(M.emulated, 0);
}
END_TEST

/* Each allocation fails in turn, and each by itself; the guest notices nothing. */
START_TEST(allocations_fail)
{
    for (unsigned n = 1; n < 60; n++) {
        struct model_vcpu *v;

        M.fail_in = n;
        M.may_fail = true;
        if (model_start()) {
            v = long_mode(0x10000, 0);
            for (unsigned i = 0; i < 8; i++)
                put(PTE(i), DATA(i) | ALL);
            for (unsigned i = 0; i < 8; i++)
                ck_assert_ptr_eq(access_page(v, BY_USER, i, MMU_WRITE), M.mem + DATA(i));
        } else {
            ck_assert_uint_eq(M.nused, 0);
        }
        model_free();
        set_up();
    }
}
END_TEST

static uint64_t state;

static uint64_t rnd(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

START_TEST(random_guests)
{
    for (int k = 0; k < 5; k++) {
        state = (uint64_t)(_i * 5 + k) * 0x9e3779b97f4a7c15ull | 1;
        for (unsigned i = 0; i < 8; i++)
            rnd(2);
        random_start(rnd);
        for (unsigned i = 0; M.sh && i < 400; i++)
            random_step(rnd);
        if (getenv("SHADOW_STATS") && M.sh) {
            const struct shadow_counts *c = shadow_counts(M.sh);

            printf("%d: done %u stores %u faults %u emulated %u nomem %u: maps %lu unsyncs %lu "
                   "resyncs %lu "
                   "dropped %lu evictions %lu loads %lu found %lu\n",
                   _i * 5 + k, M.done, M.stores, M.faults, M.emulated, M.nomem, c->maps, c->unsyncs,
                   c->resyncs, c->dropped, c->evictions, c->loads, c->found);
        }
        model_free();
        model_new();
    }
}
END_TEST

static Suite *suite(int first, int count, bool all)
{
    Suite *s = suite_create("shadow");
    TCase *t = tcase_create("plain");

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, random_guests, first, first + count);
    suite_add_tcase(s, t);
    if (!all)
        return s;
    tcase_add_test(t, demand_and_dirty);
    tcase_add_test(t, stale_until_invlpg);
    tcase_add_test(t, out_of_sync_tables);
    tcase_add_test(t, stores_to_tables_are_seen);
    tcase_add_test(t, write_flood);
    tcase_add_test(t, cr3_cache);
    tcase_add_test(t, quick_loads);
    tcase_add_test(t, spaces_come_and_go);
    tcase_add_test(t, write_protection_without_wp);
    tcase_add_test(t, smap);
    tcase_add_test(t, pae_pointers_are_loaded_with_cr3);
    tcase_add_test(t, large_pages);
    tcase_add_test(t, paging_off);
    tcase_add_test(t, what_the_sink_must_enforce);
    tcase_add_test(t, limits);
    tcase_add_test(t, allocations_fail);
    return s;
}

int main(int argc, char **argv)
{
    bool some = argc == 3;
    SRunner *sr = srunner_create(suite(some ? atoi(argv[1]) : 0, some ? atoi(argv[2]) : 60, !some));
    int failed;

    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
