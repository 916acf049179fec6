/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ept.c: extended page tables, against a model of the map and of what CPUs may cache.
 *
 * test_ept [FIRST COUNT]: only the random cases, with these seeds. */
#include "mmu/ept.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/ept_entry.h"

#define K4 0x1000ull
#define M2 0x200000ull
#define G1 0x40000000ull

/* As ck_assert, which takes too long for conditions that are looked at millions of times. */
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("%s", #condition);                                                        \
    } while (0)

/* ---- pages for tables ---- */

#define POOL 4096u
#define BASE 0x7700000000ull /* physical address of the pool */

static uint8_t *pool;
static bool used[POOL];
static unsigned nused, fail_in; /* the so-maniest allocation fails */

static void table_freed(uint64_t phys);

static void *pool_alloc(void *ctx, bool low)
{
    static unsigned next;

    (void)ctx, (void)low;
    if (fail_in && !--fail_in)
        return NULL;
    for (unsigned i = 0; i < POOL; i++, next++) {
        next %= POOL;
        if (!used[next]) {
            used[next] = true;
            nused++;
            return memset(pool + next * K4, 0, K4);
        }
    }
    return NULL;
}

static uint64_t pool_phys(void *ctx, const void *p)
{
    (void)ctx;
    return BASE + (uint64_t)((const uint8_t *)p - pool);
}

static void *pool_virt(void *ctx, uint64_t phys)
{
    (void)ctx;
    REQUIRE(phys - BASE < POOL * K4);
    return pool + (phys - BASE);
}

static void pool_free(void *ctx, void *p)
{
    uint64_t i = (uint64_t)((uint8_t *)p - pool) / K4;

    (void)ctx;
    REQUIRE(used[i]);
    table_freed(pool_phys(NULL, p));
    used[i] = false;
    nused--;
    memset(p, 0xff, K4); /* misconfigured, if somebody still reads it */
}

static const struct mmu_pages pages = {pool_alloc, pool_free, pool_phys, pool_virt, NULL};

#define CAPS                                                                                       \
    (EPT_CAP_4LEVEL | EPT_CAP_UC | EPT_CAP_WB | EPT_CAP_2M | EPT_CAP_INVEPT |                      \
     EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL | EPT_CAP_EXEC_ONLY)

static struct ept ept;

/* Host memory: WB, but for two holes. */
static unsigned type_of(void *ctx, uint64_t hpa, uint64_t *len)
{
    static const uint64_t edge[] = {0xa0000, 0xc0000, 64 * M2 + 5 * K4, 64 * M2 + 9 * K4,
                                    1ull << 52};
    unsigned i = 0;

    (void)ctx;
    while (hpa >= edge[i])
        i++;
    if (*len > edge[i] - hpa)
        *len = edge[i] - hpa;
    return i & 1 ? EPT_UC : EPT_WB;
}

static void init(uint64_t cap, bool ad, uint32_t max)
{
    const struct ept_config c = {.pages = &pages,
                                 .cap = cap,
                                 .phys_bits = 40,
                                 .max_tables = max,
                                 .accessed_dirty = ad,
                                 .type = type_of};

    REQUIRE(ept_init(&ept, &c) == EPT_OK);
}

static void set_up(void)
{
    pool = aligned_alloc(4096, POOL * K4);
    memset(used, 0, sizeof(used));
    nused = fail_in = 0;
}

static void tear_down(void)
{
    fail_in = 0;
    ept_free(&ept);
    REQUIRE(nused == 0);
    free(pool);
}

static uint64_t *entry(uint64_t gpa, unsigned level)
{
    uint64_t *table = ept.root;

    for (unsigned l = 4; l > level; l--)
        table = pool_virt(NULL, table[ept_index(gpa, l)] & EPT_ADDR);
    return &table[ept_index(gpa, level)];
}

static void expect(uint64_t gpa, uint64_t hpa, uint64_t size, unsigned rights, unsigned type)
{
    struct ept_walk w;

    ck_assert_int_eq(ept_walk(&ept, gpa, rights, &w), EPT_TRANSLATED);
    ck_assert_uint_eq(w.hpa, hpa);
    ck_assert_uint_eq(w.size, size);
    ck_assert_uint_eq(w.rights, rights);
    ck_assert_uint_eq(w.type, type);
}

static void expect_none(uint64_t gpa)
{
    struct ept_walk w;

    ck_assert_int_eq(ept_walk(&ept, gpa, 0, &w), EPT_VIOLATION);
    ck_assert_uint_eq(w.size, 0);
}

/* ---- what CPUs may have cached ---- */

/* Three stretches of guest-physical memory, for tables of all levels. */
#define ZONE_PAGES 1024u
static const uint64_t zone[] = {0, G1 - M2, (1ull << 48) - 2 * M2};
#define NPAGES (3 * ZONE_PAGES)

struct cached {
    uint64_t hpa, table[4]; /* [level - 1]: physical address of the table that was walked */
    uint8_t rights, type;
    bool valid, accessed, dirty;
};

#define NCPUS 2
static struct model_cpu {
    struct ept_cpu cpu;
    bool on;
    /* Two generations, so that an entry of before a change stays while a new one comes. */
    struct cached c[2][NPAGES];
} cpus[NCPUS];

/* What was mapped, by the calls that were made. */
static struct ref {
    uint64_t hpa;
    uint8_t rights, type;
    bool written; /* since the last report */
} ref[NPAGES];

static uint64_t page_gpa(unsigned i)
{
    return zone[i / ZONE_PAGES] + i % ZONE_PAGES * K4;
}

static void table_freed(uint64_t phys)
{
    for (unsigned n = 0; n < NCPUS; n++)
        for (unsigned k = 0; cpus[n].on && k < 2; k++)
            for (unsigned i = 0; i < NPAGES; i++)
                for (unsigned l = 0; l < 4; l++)
                    REQUIRE(!cpus[n].c[k][i].valid || cpus[n].c[k][i].table[l] != phys);
}

static bool same(const struct cached *a, const struct cached *b)
{
    return a->hpa == b->hpa && !memcmp(a->table, b->table, sizeof(a->table)) &&
           a->rights == b->rights && a->type == b->type && a->accessed == b->accessed &&
           a->dirty == b->dirty && a->valid == b->valid;
}

/* All that a walk gives: tables above missing pages are cached, too. */
static struct cached look(uint64_t gpa)
{
    struct cached c = {.valid = true};
    uint64_t *table = ept.root;
    struct ept_walk w;
    enum ept_result r = ept_walk(&ept, gpa, 0, &w);

    REQUIRE(r != EPT_MISCONFIGURATION);
    for (unsigned l = 4; l >= w.level; l--) {
        c.table[l - 1] = pool_phys(NULL, table);
        if (l > w.level)
            table = pool_virt(NULL, table[ept_index(gpa, l)] & EPT_ADDR);
    }
    if (r == EPT_TRANSLATED) {
        c.hpa = w.hpa;
        c.rights = (uint8_t)w.rights;
        c.type = (uint8_t)w.type;
        c.accessed = w.accessed;
        c.dirty = w.dirty;
    }
    return c;
}

static void check_cached(const struct cached *c, const struct cached *now)
{
    if (!c->valid)
        return;
    /* A cached table must be on the way still; further ones may have been added below. */
    for (unsigned l = 0; l < 4; l++)
        REQUIRE(!c->table[l] || c->table[l] == now->table[l]);
    if (!c->rights)
        return;
    REQUIRE(c->hpa == now->hpa);
    REQUIRE(c->type == now->type);
    REQUIRE(!(c->rights & ~now->rights));
    if (ept.ad) {
        REQUIRE(!c->accessed || now->accessed);
        REQUIRE(!c->dirty || now->dirty);
    }
}

/* After any change: the map is what it should be, and nobody who need not invalidate has stale
 * entries. Everybody then caches everything. */
static void check_all(void)
{
    for (unsigned i = 0; i < NPAGES; i++) {
        struct cached now = look(page_gpa(i));

        if (ept.tracking && !ept.ad && (ref[i].rights & EPT_W) && !ref[i].written) {
            REQUIRE(now.rights == (ref[i].rights & ~EPT_W));
        } else {
            REQUIRE(now.rights == ref[i].rights);
        }
        if (now.rights) {
            REQUIRE(now.hpa == ref[i].hpa);
            REQUIRE(now.type == ref[i].type);
        }
        for (unsigned n = 0; n < NCPUS; n++) {
            struct model_cpu *m = &cpus[n];

            if (!m->on)
                continue;
            if (!ept_needs_invept(&ept, &m->cpu))
                for (unsigned k = 0; k < 2; k++)
                    check_cached(&m->c[k][i], &now);
            if (m->cpu.seen && !same(&m->c[0][i], &now)) {
                if (!m->c[1][i].valid)
                    m->c[1][i] = m->c[0][i];
                m->c[0][i] = now;
            }
        }
    }
}

static void invept(struct model_cpu *m)
{
    uint64_t gen = ept_generation(&ept);

    memset(m->c, 0, sizeof(m->c));
    ept_invept_done(&ept, &m->cpu, gen);
}

static void cpu_on(struct model_cpu *m)
{
    memset(m, 0, sizeof(*m));
    ept_cpu_add(&ept, &m->cpu);
    m->on = true;
    REQUIRE(ept_needs_invept(&ept, &m->cpu));
}

static void cpu_off(struct model_cpu *m)
{
    m->on = false; /* whoever uses the tables again invalidates first */
    ept_cpu_remove(&ept, &m->cpu);
}

static void all_off(void)
{
    for (unsigned n = 0; n < NCPUS; n++)
        if (cpus[n].on)
            cpu_off(&cpus[n]);
}

/* A write by the guest, with whatever the CPU has cached, as hardware does it. */
static void guest_write(struct model_cpu *m, unsigned i)
{
    uint64_t gpa = page_gpa(i);
    struct cached *c = &m->c[0][i];
    struct ept_walk w;

    if (ept_needs_invept(&ept, &m->cpu))
        invept(m);
    if (c->valid && (c->rights & EPT_W) && (!ept.ad || c->dirty)) {
        ref[i].written = true;
        return;
    }
    if (ept_walk(&ept, gpa, EPT_W, &w) != EPT_TRANSLATED) {
        bool logged = ept_note_write(&ept, gpa);

        REQUIRE(logged == (ept.tracking && !ept.ad && (ref[i].rights & EPT_W)));
        if (logged)
            ref[i].written = true;
        return;
    }
    if (ept.ad) {
        for (unsigned l = 4; l > w.level; l--)
            *entry(gpa, l) |= EPT_A;
        *entry(gpa, w.level) |= EPT_A | EPT_D;
    }
    ref[i].written = true;
}

/* ---- the calls, and what they should do ---- */

static bool in_range(unsigned i, uint64_t gpa, uint64_t len)
{
    return page_gpa(i) - gpa < len;
}

static int do_map(uint64_t gpa, uint64_t hpa, uint64_t len, unsigned rights)
{
    int err = ept_map(&ept, gpa, hpa, len, rights);

    for (unsigned i = 0; !err && i < NPAGES; i++)
        if (in_range(i, gpa, len)) {
            uint64_t one = K4;

            ref[i].hpa = page_gpa(i) - gpa + hpa;
            ref[i].rights = (uint8_t)rights;
            ref[i].type = (uint8_t)type_of(NULL, ref[i].hpa, &one);
            ref[i].written = false;
        }
    return err;
}

static int do_unmap(uint64_t gpa, uint64_t len)
{
    int err = ept_unmap(&ept, gpa, len);

    for (unsigned i = 0; !err && i < NPAGES; i++)
        if (in_range(i, gpa, len))
            ref[i] = (struct ref){0};
    return err;
}

static int do_protect(uint64_t gpa, uint64_t len, unsigned rights)
{
    int err = ept_protect(&ept, gpa, len, rights);

    for (unsigned i = 0; !err && i < NPAGES; i++)
        if (in_range(i, gpa, len) && ref[i].rights)
            ref[i].rights = (uint8_t)rights;
    return err;
}

static int do_track(bool on)
{
    int err = ept_track(&ept, on);

    for (unsigned i = 0; !err && i < NPAGES; i++)
        ref[i].written = false;
    return err;
}

static void reported(void *ctx, uint64_t gpa)
{
    bool *seen = ctx;

    for (unsigned i = 0; i < NPAGES; i++)
        if (page_gpa(i) == gpa)
            seen[i] = true;
}

static void do_harvest(uint64_t gpa, uint64_t len)
{
    bool seen[NPAGES] = {false};

    ept_harvest(&ept, gpa, len, reported, seen);
    for (unsigned i = 0; i < NPAGES; i++)
        if (!ept.tracking) {
            REQUIRE(!seen[i]);
        } else if (in_range(i, gpa, len)) {
            REQUIRE(seen[i] == (ref[i].written && ref[i].rights));
            ref[i].written = false;
        }
}

/* ---- random cases ---- */

static uint64_t state;

static uint64_t rnd(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % n;
}

static void random_range(uint64_t *gpa, uint64_t *len)
{
    unsigned i = (unsigned)rnd(NPAGES);

    *gpa = page_gpa(i);
    switch (rnd(5)) {
    case 0:
        *len = K4;
        return;
    case 1:
        *len = K4 * (1 + rnd(20));
        break;
    case 2:
        *gpa &= ~(M2 - 1);
        *len = M2 * (1 + rnd(2));
        break;
    case 3:
        *gpa &= ~(G1 - 1);
        *len = rnd(4) ? M2 * (1 + rnd(600)) : G1 * (1 + rnd(2));
        break;
    default:
        *len = K4 * (1 + rnd(900));
    }
    if (*len > (1ull << 48) - *gpa)
        *len = (1ull << 48) - *gpa;
}

/* Mostly places where large pages are possible, and often the same so that tables merge. */
static uint64_t random_hpa(uint64_t gpa)
{
    uint64_t low = gpa & (G1 - 1);

    switch (rnd(4)) {
    case 0:
        return rnd(1u << 20) * K4;
    case 1:
        return low + M2 * rnd(4);
    default:
        return low + G1 * rnd(2);
    }
}

static unsigned random_rights(void)
{
    static const uint8_t rights[] = {EPT_RWX, EPT_RWX,       EPT_RWX,      EPT_R,
                                     EPT_X,   EPT_R | EPT_W, EPT_R | EPT_X};

    return rights[rnd(sizeof(rights))];
}

static void random_step(void)
{
    struct model_cpu *m = &cpus[rnd(NCPUS)];
    uint64_t gpa, len, gen = ept.gen;
    int err = EPT_OK;

    random_range(&gpa, &len);
    fail_in = rnd(4) ? 0 : 1 + (unsigned)rnd(4);
    switch (rnd(12)) {
    case 0:
    case 1:
    case 2:
        err = do_map(gpa, random_hpa(gpa), len, random_rights());
        break;
    case 3:
        err = do_unmap(gpa, len);
        break;
    case 4:
    case 5:
        err = do_protect(gpa, len, random_rights());
        break;
    case 6:
        do_harvest(gpa, len);
        break;
    case 7:
        err = rnd(4) ? EPT_OK : do_track(rnd(2));
        break;
    case 8:
        if (!m->on)
            cpu_on(m);
        else if (rnd(4))
            invept(m);
        else
            cpu_off(m);
        break;
    default:
        for (unsigned n = 0; m->on && n < 20; n++)
            guest_write(m, (unsigned)rnd(NPAGES));
    }
    fail_in = 0;
    REQUIRE(err == EPT_OK || err == EPT_E_NOMEM || err == EPT_E_LIMIT);
    if (err) /* nothing has changed: check_all, too, as the model has not */
        REQUIRE(ept.gen == gen);
    REQUIRE(ept.tables <= ept.cfg.max_tables);
    REQUIRE(ept.tables == nused);
    REQUIRE(ept.aside == 0);
}

static void random_case(uint64_t seed)
{
    uint64_t cap = CAPS;

    state = seed * 0x9e3779b97f4a7c15ull | 1;
    for (unsigned i = 0; i < 8; i++)
        rnd(2);
    memset(ref, 0, sizeof(ref));
    if (rnd(2))
        cap |= EPT_CAP_1G;
    if (!rnd(4))
        cap &= ~EPT_CAP_2M;
    if (rnd(2))
        cap |= EPT_CAP_AD;
    init(cap, rnd(4), rnd(3) ? POOL : 8 + (uint32_t)rnd(30));
    for (unsigned n = 0; n < 60; n++) {
        random_step();
        check_all();
    }
    all_off();
    ept_free(&ept);
    REQUIRE(nused == 0);
}

START_TEST(random_changes)
{
    random_case((uint64_t)_i);
}
END_TEST

/* ---- single properties ---- */

START_TEST(what_the_cpu_must_have)
{
    const struct {
        uint64_t cap;
        int err;
    } rows[] = {{CAPS, EPT_OK},
                {CAPS & ~EPT_CAP_4LEVEL, EPT_E_CAPS},
                {CAPS & ~EPT_CAP_INVEPT, EPT_E_CAPS},
                {CAPS & ~(EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL), EPT_E_CAPS},
                {CAPS & ~EPT_CAP_INVEPT_SINGLE, EPT_OK},
                {CAPS & ~(EPT_CAP_UC | EPT_CAP_WB), EPT_E_CAPS}};

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ept_config c = {
            .pages = &pages, .cap = rows[i].cap, .phys_bits = 40, .max_tables = 9};

        ck_assert_int_eq(ept_init(&ept, &c), rows[i].err);
        if (!rows[i].err)
            ck_assert_uint_eq(ept_invept_type(&ept), rows[i].cap & EPT_CAP_INVEPT_SINGLE ? 1 : 2);
        ept_free(&ept);
    }
    init(CAPS, true, 9);
    ck_assert_uint_eq(ept_eptp(&ept), pool_phys(NULL, ept.root) | 6 | 3 << 3);
    ept_free(&ept);
    init((CAPS & ~EPT_CAP_WB) | EPT_CAP_AD, true, 9);
    ck_assert_uint_eq(ept_eptp(&ept), pool_phys(NULL, ept.root) | 0 | 3 << 3 | 1 << 6);
}
END_TEST

START_TEST(arguments)
{
    init(CAPS & ~EPT_CAP_EXEC_ONLY, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0x800, 0, K4, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, 0, 0x10, K4, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, 0, 0, 0, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, 0, 1ull << 40, K4, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, 1ull << 48, 0, K4, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, (1ull << 48) - K4, 0, 2 * K4, EPT_R), EPT_E_ARG);
    ck_assert_int_eq(ept_unmap(&ept, K4, ~0xfffull), EPT_E_ARG);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_W), EPT_E_RIGHTS);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_W | EPT_X), EPT_E_RIGHTS);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_X), EPT_E_RIGHTS);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, 8), EPT_E_RIGHTS);
    ck_assert_uint_eq(nused, 1);
    expect_none(0);
    expect_none(1ull << 48);
}
END_TEST

START_TEST(page_sizes)
{
    init(CAPS | EPT_CAP_1G, false, POOL);
    ck_assert_int_eq(ept_map(&ept, G1 - M2 - K4, 2 * G1 - M2 - K4, G1 + 2 * M2 + K4, EPT_RWX), 0);
    expect(G1 - M2 - 1, 2 * G1 - M2 - 1, K4, EPT_RWX, EPT_WB);
    expect(G1 - M2 + 5, 2 * G1 - M2 + 5, M2, EPT_RWX, EPT_WB);
    expect(G1 + 7, 2 * G1 + 7, G1, EPT_RWX, EPT_WB);
    expect(2 * G1 + 7, 3 * G1 + 7, M2, EPT_RWX, EPT_WB);
    expect_none(G1 - M2 - K4 - 1);
    expect_none(2 * G1 + M2);
    ck_assert_uint_eq(nused, 5); /* root, PDPT, PD below and above 1 GiB, PT */
    /* Where the host address does not fit, no large page. */
    ck_assert_int_eq(ept_map(&ept, 8 * G1, G1 + K4, M2, EPT_RWX), 0);
    expect(8 * G1, G1 + K4, K4, EPT_RWX, EPT_WB);
    ept_free(&ept);
    init(CAPS, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, G1, G1, EPT_R), 0);
    expect(3, G1 + 3, M2, EPT_R, EPT_WB);
    ept_free(&ept);
    init(CAPS & ~EPT_CAP_2M, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, G1, M2, EPT_R), 0);
    expect(3, G1 + 3, K4, EPT_R, EPT_WB);
}
END_TEST

START_TEST(splitting_and_merging)
{
    init(CAPS | EPT_CAP_1G, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, G1, G1, EPT_RWX), 0);
    ck_assert_uint_eq(nused, 2);
    ck_assert_int_eq(ept_protect(&ept, 5 * M2 + K4, K4, EPT_R), 0);
    ck_assert_uint_eq(nused, 4);
    expect(5 * M2 + K4, G1 + 5 * M2 + K4, K4, EPT_R, EPT_WB);
    expect(5 * M2, G1 + 5 * M2, K4, EPT_RWX, EPT_WB);
    expect(6 * M2, G1 + 6 * M2, M2, EPT_RWX, EPT_WB);
    ck_assert_int_eq(ept_protect(&ept, 5 * M2 + K4, K4, EPT_RWX), 0);
    ck_assert_uint_eq(nused, 2);
    expect(5 * M2 + K4, G1 + 5 * M2 + K4, G1, EPT_RWX, EPT_WB);
    /* Page by page. */
    for (unsigned i = 0; i < 512; i++)
        ck_assert_int_eq(ept_map(&ept, 4 * G1 + i * K4, 9 * G1 + i * K4, K4, EPT_RWX), 0);
    expect(4 * G1, 9 * G1, M2, EPT_RWX, EPT_WB);
    /* And away: no table stays. */
    ck_assert_int_eq(ept_unmap(&ept, 4 * G1 + K4, M2 - K4), 0);
    expect(4 * G1, 9 * G1, K4, EPT_RWX, EPT_WB);
    expect_none(4 * G1 + K4);
    ck_assert_int_eq(ept_unmap(&ept, 0, 1ull << 48), 0);
    ck_assert_uint_eq(nused, 1);
}
END_TEST

START_TEST(memory_types)
{
    init(CAPS, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, 0, M2, EPT_RWX), 0);
    expect(0x9f000, 0x9f000, K4, EPT_RWX, EPT_WB);
    expect(0xa0000, 0xa0000, K4, EPT_RWX, EPT_UC);
    expect(0xbf000, 0xbf000, K4, EPT_RWX, EPT_UC);
    expect(0xc0000, 0xc0000, K4, EPT_RWX, EPT_WB);
    /* What is there already could be merged before the next piece needs the table. */
    ck_assert_int_eq(ept_map(&ept, 64 * M2, 128 * M2, M2, EPT_RWX), 0);
    ck_assert_int_eq(ept_map(&ept, 64 * M2, 64 * M2, M2, EPT_RWX), 0);
    expect(64 * M2 + 5 * K4, 64 * M2 + 5 * K4, K4, EPT_RWX, EPT_UC);
    ck_assert_int_eq(ept_map(&ept, 64 * M2, 64 * M2, M2, EPT_RWX), 0);
    expect(64 * M2 + 9 * K4, 64 * M2 + 9 * K4, K4, EPT_RWX, EPT_WB);
}
END_TEST

static unsigned bad_type(void *ctx, uint64_t hpa, uint64_t *len)
{
    (void)hpa;
    if (!ctx)
        *len = 0;
    return ctx ? 7 : EPT_WB;
}

START_TEST(bad_memory_types)
{
    struct ept_config c = {
        .pages = &pages, .cap = CAPS, .phys_bits = 40, .max_tables = 9, .type = bad_type};

    ck_assert_int_eq(ept_init(&ept, &c), 0);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_R), EPT_E_TYPE);
    ept.cfg.ctx = &c;
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_R), EPT_E_TYPE);
    ck_assert_uint_eq(nused, 1);
}
END_TEST

START_TEST(misconfigurations)
{
    const struct {
        unsigned level;
        uint64_t entry;
        enum ept_misconfig rule;
    } rows[] = {
        {4, 0, EPT_FINE},
        {4, 0xfffffffffffff0f8, EPT_FINE}, /* not present: nothing else counts */
        {4, EPT_RWX | 0x5000, EPT_FINE},
        {4, EPT_W | 0x5000, EPT_MIS_WRITE_ONLY},
        {4, EPT_W | EPT_X | 0x5000, EPT_MIS_WRITE_ONLY},
        {4, EPT_X | 0x5000, EPT_MIS_EXEC_ONLY},
        {4, EPT_RWX | EPT_PS, EPT_MIS_PAGE_SIZE},
        {4, EPT_RWX | 8, EPT_MIS_RESERVED},
        {4, EPT_RWX | 0x40, EPT_MIS_RESERVED},
        {4, EPT_RWX | 1ull << 40, EPT_MIS_ADDRESS},
        {4, EPT_RWX | 1ull << 51, EPT_MIS_ADDRESS},
        {4, EPT_RWX | 1ull << 52 | 1ull << 62, EPT_FINE},
        {3, EPT_RWX | EPT_PS, EPT_MIS_PAGE_SIZE}, /* without 1 GiB pages */
        {3, EPT_RWX | 0x10, EPT_MIS_RESERVED},
        {2, EPT_RWX | EPT_PS | 6 << 3, EPT_FINE},
        {2, EPT_RWX | EPT_PS | 0x1000, EPT_MIS_ALIGNMENT},
        {2, EPT_RWX | EPT_PS | 0x100000, EPT_MIS_ALIGNMENT},
        {2, EPT_RWX | EPT_PS | 2 << 3, EPT_MIS_TYPE},
        {2, EPT_RWX | EPT_PS | 3 << 3, EPT_MIS_TYPE},
        {2, EPT_RWX | EPT_PS | 7 << 3, EPT_MIS_TYPE},
        {2, EPT_RWX | 0x20, EPT_MIS_RESERVED},
        {1, EPT_R | EPT_PS | EPT_IPAT, EPT_FINE},
        {1, EPT_R | 1 << 3, EPT_FINE},
        {1, EPT_R | 4 << 3, EPT_FINE},
        {1, EPT_R | 5 << 3, EPT_FINE},
        {1, EPT_R | 7 << 3, EPT_MIS_TYPE},
    };
    struct ept_walk w;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_int_eq(ept_misconfig(CAPS & ~EPT_CAP_EXEC_ONLY, 40, rows[i].level, rows[i].entry),
                         rows[i].rule);
    ck_assert_int_eq(ept_misconfig(CAPS, 40, 1, EPT_X), EPT_FINE);
    ck_assert_int_eq(ept_misconfig(CAPS | EPT_CAP_1G, 40, 3, EPT_R | EPT_PS), EPT_FINE);
    ck_assert_int_eq(ept_misconfig(CAPS | EPT_CAP_1G, 40, 3, EPT_R | EPT_PS | M2),
                     EPT_MIS_ALIGNMENT);
    ck_assert_int_eq(ept_misconfig(CAPS, 52, 4, EPT_R | 1ull << 51), EPT_FINE);
    for (unsigned i = EPT_FINE; i <= EPT_MIS_TYPE; i++)
        for (unsigned j = EPT_FINE; j <= EPT_MIS_TYPE; j++)
            ck_assert_int_eq(!strcmp(ept_misconfig_text(i), ept_misconfig_text(j)), i == j);
    ck_assert_str_eq(ept_misconfig_text(99), "?");

    init(CAPS, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_RWX), 0);
    *entry(0, 2) |= 0x10;
    ck_assert_int_eq(ept_walk(&ept, 0, EPT_R, &w), EPT_MISCONFIGURATION);
    ck_assert_uint_eq(w.level, 2);
    ck_assert_int_eq(w.rule, EPT_MIS_RESERVED);
    *entry(0, 2) &= ~0x10ull;
    /* Rights of all levels count. */
    *entry(0, 3) &= ~(uint64_t)EPT_W;
    ck_assert_int_eq(ept_walk(&ept, 0, EPT_W, &w), EPT_VIOLATION);
    ck_assert_uint_eq(w.rights, EPT_R | EPT_X);
    ck_assert_int_eq(ept_walk(&ept, 0, EPT_R | EPT_X, &w), EPT_TRANSLATED);
}
END_TEST

/* Which change needs an invalidation. */
START_TEST(invalidations)
{
    struct ept_cpu cpu;

#define NEEDS(yes, call)                                                                           \
    do {                                                                                           \
        ept_invept_done(&ept, &cpu, ept_generation(&ept));                                         \
        ck_assert(!ept_needs_invept(&ept, &cpu));                                                  \
        ck_assert_int_eq(call, 0);                                                                 \
        ck_assert_int_eq(ept_needs_invept(&ept, &cpu), yes);                                       \
    } while (0)
    init(CAPS | EPT_CAP_AD, true, POOL);
    ept_cpu_add(&ept, &cpu);
    NEEDS(false, ept_map(&ept, 0, 0, K4, EPT_R));         /* new */
    NEEDS(false, ept_map(&ept, K4, K4, 5 * K4, EPT_RWX)); /* new */
    NEEDS(false, ept_protect(&ept, 0, K4, EPT_RWX));      /* more rights */
    NEEDS(false, ept_map(&ept, 0, 0, K4, EPT_RWX));       /* the same */
    NEEDS(true, ept_protect(&ept, 0, K4, EPT_R | EPT_X)); /* less rights */
    NEEDS(true, ept_map(&ept, 0, K4, K4, EPT_RWX));       /* another place */
    NEEDS(true, ept_map(&ept, K4, 0xa0000, K4, EPT_RWX)); /* another memory type */
    ept.cfg.type = NULL;
    NEEDS(true, ept_map(&ept, K4, 0xa0000, K4, EPT_RWX)); /* only another memory type */
    ept.cfg.type = type_of;
    NEEDS(true, ept_unmap(&ept, 2 * K4, K4));             /* gone */
    NEEDS(false, ept_unmap(&ept, 2 * K4, K4));            /* was not there */
    NEEDS(false, ept_protect(&ept, 2 * K4, K4, EPT_R));   /* was not there */
    NEEDS(false, ept_map(&ept, M2, G1, M2, EPT_RWX));     /* a large page */
    NEEDS(true, ept_protect(&ept, M2 + K4, K4, EPT_RWX)); /* split, merged */
    *entry(0, 1) |= EPT_A | EPT_D;
    NEEDS(true, ept_track(&ept, true)); /* dirty bits cleared, pages split */
    *entry(0, 1) |= EPT_D;
    ept_invept_done(&ept, &cpu, ept_generation(&ept));
    bool seen[NPAGES];
    ept_harvest(&ept, 0, K4, reported, seen);
    ck_assert(ept_needs_invept(&ept, &cpu));
    ept_invept_done(&ept, &cpu, ept_generation(&ept));
    ept_harvest(&ept, 0, K4, reported, seen);
    ck_assert(!ept_needs_invept(&ept, &cpu));
    ept_cpu_remove(&ept, &cpu);
}
END_TEST

/* A change between reading the generation and the end of the INVEPT is not lost. */
START_TEST(change_while_invalidating)
{
    struct ept_cpu cpu;
    uint64_t gen;

    init(CAPS, false, POOL);
    ept_cpu_add(&ept, &cpu);
    ept_invept_done(&ept, &cpu, ept_generation(&ept));
    ept_map(&ept, 0, 0, K4, EPT_RWX);
    gen = ept_generation(&ept);
    ept_unmap(&ept, 0, K4);
    ept_invept_done(&ept, &cpu, gen);
    ck_assert(ept_needs_invept(&ept, &cpu));
    ck_assert_uint_gt(nused, 1); /* the tables wait */
    ept_invept_done(&ept, &cpu, ept_generation(&ept));
    ck_assert_uint_eq(nused, 1);
    ept_cpu_remove(&ept, &cpu);
}
END_TEST

/* Each allocation fails in turn: the map is as before, and nothing has to be invalidated. */
START_TEST(allocations_fail)
{
    struct ept_walk w;

    init(CAPS | EPT_CAP_1G, false, POOL);
    ck_assert_int_eq(ept_map(&ept, 0, 0, 4 * G1, EPT_RWX), 0);
    for (unsigned op = 0; op < 4; op++) {
        const uint64_t at[] = {G1, 3 * G1 + M2 + K4, 2 * G1 + M2, M2};
        int err = EPT_E_NOMEM;
        unsigned n;

        if (op == 3) { /* few tables, as each of them fails */
            ck_assert_int_eq(ept_unmap(&ept, 0, 1ull << 48), 0);
            ck_assert_int_eq(ept_map(&ept, 0, 0, 4 * M2, EPT_RWX), 0);
        }
        for (n = 1;; n++) {
            uint64_t gen = ept.gen;
            uint32_t tables = ept.tables;

            fail_in = n;
            err = op == 0   ? ept_map(&ept, G1 - K4, 64 * G1 - K4, G1 + 2 * K4, EPT_R)
                  : op == 1 ? ept_unmap(&ept, 3 * G1 + M2 + K4, K4)
                  : op == 2 ? ept_protect(&ept, 2 * G1 + K4, G1 - 2 * K4, EPT_R)
                            : ept_track(&ept, true);
            if (!err)
                break;
            ck_assert_int_eq(err, EPT_E_NOMEM);
            ck_assert_uint_eq(ept.gen, gen);
            ck_assert_uint_eq(ept.tables, tables);
            ck_assert_uint_eq(nused, tables);
            ck_assert_int_eq(ept_walk(&ept, at[op], EPT_RWX, &w), EPT_TRANSLATED);
            ck_assert(!ept.tracking);
        }
        fail_in = 0;
        ck_assert_uint_gt(n, 1);
    }
}
END_TEST

START_TEST(limit_of_tables)
{
    init(CAPS, false, 4);
    ck_assert_int_eq(ept_map(&ept, 0, 0, K4, EPT_RWX), 0);
    ck_assert_int_eq(ept_map(&ept, M2, M2, K4, EPT_RWX), EPT_E_LIMIT);
    ck_assert_int_eq(ept_map(&ept, 0, 0, 1ull << 40, EPT_RWX), EPT_E_LIMIT);
    ck_assert_int_eq(ept_map(&ept, M2, M2, M2, EPT_RWX), 0);
    ck_assert_int_eq(ept_unmap(&ept, M2, K4), EPT_E_LIMIT);
    expect(M2, M2, M2, EPT_RWX, EPT_WB);
    ck_assert_uint_eq(nused, 4);
}
END_TEST

static Suite *suite(int first, int count, bool all)
{
    Suite *s = suite_create("ept");
    TCase *t = tcase_create("plain");

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, random_changes, first, first + count);
    suite_add_tcase(s, t);
    if (!all)
        return s;
    tcase_add_test(t, what_the_cpu_must_have);
    tcase_add_test(t, arguments);
    tcase_add_test(t, page_sizes);
    tcase_add_test(t, splitting_and_merging);
    tcase_add_test(t, memory_types);
    tcase_add_test(t, bad_memory_types);
    tcase_add_test(t, misconfigurations);
    tcase_add_test(t, invalidations);
    tcase_add_test(t, change_while_invalidating);
    tcase_add_test(t, allocations_fail);
    tcase_add_test(t, limit_of_tables);
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
