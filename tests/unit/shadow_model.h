/* SPDX-License-Identifier: BSD-2-Clause */
/* shadow_model.h: a guest with shadow paging, the hardware that runs on its tables, and a judge.
 *
 * The hardware is the page walker with its TLB, put on the tables that the sink for x86 makes: it
 * forgets translations only when the sink's flush says so. The judge walks the guest's tables. It
 * keeps for each linear page what they have given since the last invalidation of that page, which
 * is what the architecture allows an access to find (SDM Vol. 3A 4.10). */
#ifndef SHADOW_MODEL_H
#define SHADOW_MODEL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mmu/shadow.h"
#include "mmu/walk.h"

#ifndef REQUIRE
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
#endif

#define MEM_SIZE  0x800000u /* guest memory */
#define MEM_PAGES (MEM_SIZE / 4096)
#define NTABLES   20u            /* its first pages are tables, and data, too */
#define NCOPY     (NTABLES + 12) /* pages that edits may reach */
#define POOL      2048u
#define PHYS_MEM  0x40000000ull /* host-physical */
#define PHYS_POOL 0x1000000ull
#define MAP_SIZE  (0x200000u + 2 * MEM_SIZE + POOL * 4096)
#define NVCPUS    2u
#define NLINEAR   48u
#define NSEEN     64u

#define P  1u
#define W  2u
#define U  4u
#define A  0x20u
#define D  0x40u
#define PS 0x80u
#define NX (1ull << 63)

enum who { BY_USER, BY_KERNEL, BY_KERNEL_AC, BY_IMPLICIT_AC, NWHO };

/* What a walk gives. */
struct seen {
    uint64_t gpa;
    bool present, user, writable, nx, a, d;
    uint8_t pkey;
};

struct model_vcpu {
    struct mmu *mmu; /* the guest's */
    struct mmu *hw;  /* on the sink's tables */
    struct shadow_vcpu sv;
    struct mmu_mode mode;
    struct seen seen[NLINEAR][NSEEN];
    unsigned nseen[NLINEAR];
};

struct model {
    void *map; /* of the three that follow */
    uint8_t *mem, *copy, *pool;
    uint8_t *base; /* what the guest's walker reads: mem or copy */
    bool used[POOL];
    unsigned nused, fail_in, fail_every; /* the so-maniest allocation fails; one in so many does */
    uint8_t hole[MEM_PAGES], ro[MEM_PAGES];
    _Atomic uint64_t code[MEM_PAGES];
    _Atomic uint8_t dirty[MEM_PAGES];
    bool tracking, large, may_fail;
    struct mmu_env env, hw_env;
    struct mmu_pages pages;
    struct sink_x86 sink;
    struct sink_ops ops; /* of `sink`, watched */
    const struct sink_ops *inner;
    struct {
        void *space;
        struct sink_page page;
    } mapped[8192];
    unsigned nmapped;
    struct shadow_config config;
    struct shadow *sh;
    struct model_vcpu v[NVCPUS];
    uint64_t linear[NLINEAR];
    unsigned flushes, emulated, mmio, nomem, faults, done, stores;
    unsigned loads, quick, invlpgs;
};

static struct model M;

/* ---- memory ---- */

static bool guest_page(void *ctx, uint64_t gpa, struct mmu_page *page)
{
    uint64_t n = gpa / 4096;

    (void)ctx;
    if (gpa >= MEM_SIZE || M.hole[n])
        return false;
    page->host = M.base + n * 4096;
    page->writable = !M.ro[n];
    page->executable = true;
    page->code = &M.code[n];
    page->dirty = M.tracking ? &M.dirty[n] : NULL;
    return true;
}

static int no_mmio(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    (void)ctx, (void)gpa, (void)size, (void)write, (void)value;
    abort();
}

static void no_code(void *ctx, uint64_t gpa, unsigned len)
{
    (void)ctx, (void)gpa, (void)len;
}

/* As engines see stores by others than the guest. */
static void watch_table(void *ctx, uint64_t gpa, bool on)
{
    (void)ctx;
    if (gpa >= MEM_SIZE)
        return;
    if (on)
        atomic_fetch_or(&M.code[gpa / 4096], MMU_CODE_TABLE);
    else
        atomic_fetch_and(&M.code[gpa / 4096], ~MMU_CODE_TABLE);
}

static bool has_code(uint64_t n)
{
    return !M.config.code_compared && (atomic_load(&M.code[n]) & ~MMU_CODE_TABLE);
}

static void seen_store(uint64_t gpa, uint64_t len)
{
    if (atomic_load(&M.code[gpa / 4096]) & MMU_CODE_TABLE)
        shadow_written(M.sh, gpa, len);
}

static bool guest_large(void *ctx, uint64_t gpa)
{
    (void)ctx;
    if (!M.large || M.tracking || gpa + 0x200000 > MEM_SIZE)
        return false;
    for (uint64_t n = gpa / 4096; n < gpa / 4096 + 512; n++)
        if (M.hole[n] || M.ro[n] || has_code(n))
            return false;
    return true;
}

static void *pool_alloc(void *ctx, bool low)
{
    static unsigned count;

    (void)ctx, (void)low;
    if (M.fail_in && !--M.fail_in)
        return NULL;
    if (M.fail_every && ++count % M.fail_every == 0)
        return NULL;
    for (unsigned i = 0; i < POOL; i++)
        if (!M.used[i]) {
            M.used[i] = true;
            M.nused++;
            return memset(M.pool + i * 4096, 0, 4096);
        }
    return NULL;
}

static void pool_free(void *ctx, void *p)
{
    uint64_t i = (uint64_t)((uint8_t *)p - M.pool) / 4096;

    (void)ctx;
    REQUIRE(i < POOL && M.used[i]);
    M.used[i] = false;
    M.nused--;
    memset(p, 0xff, 4096); /* reserved bits, if the hardware still reads it */
}

static uint64_t any_phys(void *ctx, const void *p)
{
    const uint8_t *at = p;

    (void)ctx;
    if (at >= M.mem && at < M.mem + MEM_SIZE)
        return PHYS_MEM + (uint64_t)(at - M.mem);
    return PHYS_POOL + (uint64_t)(at - M.pool);
}

static void *pool_virt(void *ctx, uint64_t phys)
{
    (void)ctx;
    REQUIRE(phys - PHYS_POOL < POOL * 4096);
    return M.pool + (phys - PHYS_POOL);
}

/* Host-physical memory, as the hardware sees it. */
static bool host_page(void *ctx, uint64_t phys, struct mmu_page *page)
{
    static _Atomic uint64_t none;
    bool in_mem = phys - PHYS_MEM < MEM_SIZE;

    (void)ctx;
    REQUIRE(in_mem || phys - PHYS_POOL < POOL * 4096);
    page->host = in_mem ? M.mem + (phys - PHYS_MEM) / 4096 * 4096
                        : M.pool + (phys - PHYS_POOL) / 4096 * 4096;
    page->writable = page->executable = true;
    page->code = &none;
    page->dirty = NULL;
    return true;
}

/* ---- the sink, watched ---- */

static unsigned mapped_at(void *space, uint64_t linear, uint64_t size)
{
    unsigned i = 0;

    while (i < M.nmapped && (M.mapped[i].space != space || M.mapped[i].page.linear != linear ||
                             M.mapped[i].page.size != size))
        i++;
    return i;
}

static void *watch_space_new(void *ctx, bool long_mode)
{
    return M.inner->space_new(ctx, long_mode);
}

static void watch_space_free(void *ctx, void *space)
{
    for (unsigned i = 0; i < M.nmapped; i++)
        REQUIRE(M.mapped[i].space != space);
    M.inner->space_free(ctx, space);
}

static bool watch_map(void *ctx, void *space, const struct sink_page *page)
{
    unsigned i = mapped_at(space, page->linear, page->size);
    uint64_t gpa = page->gpa;

    REQUIRE(page->size == 4096 || page->size == 0x200000);
    REQUIRE(!((page->linear | gpa | (uintptr_t)page->host) & (page->size - 1)));
    REQUIRE(page->host == M.mem + gpa && gpa + page->size <= MEM_SIZE);
    for (unsigned j = 0; j < M.nmapped; j++)
        REQUIRE(j == i || M.mapped[j].space != space ||
                M.mapped[j].page.linear - page->linear >= page->size);
    for (unsigned j = 0; j < M.nmapped; j++)
        REQUIRE(j == i || M.mapped[j].space != space ||
                page->linear - M.mapped[j].page.linear >= M.mapped[j].page.size);
    if (page->rights & SINK_W)
        for (uint64_t n = gpa / 4096; n < (gpa + page->size) / 4096; n++)
            REQUIRE(!M.ro[n] && !M.hole[n] && !has_code(n));
    if (!M.inner->map(ctx, space, page))
        return false;
    REQUIRE(i < sizeof(M.mapped) / sizeof(M.mapped[0]));
    M.mapped[i].space = space;
    M.mapped[i].page = *page;
    M.nmapped += i == M.nmapped;
    return true;
}

static void watch_protect(void *ctx, void *space, uint64_t linear, uint64_t size, unsigned rights)
{
    unsigned i = mapped_at(space, linear, size);

    REQUIRE(i < M.nmapped);
    REQUIRE(!(rights & ~M.mapped[i].page.rights));
    M.mapped[i].page.rights = rights;
    M.inner->protect(ctx, space, linear, size, rights);
}

static void watch_unmap(void *ctx, void *space, uint64_t linear, uint64_t size)
{
    unsigned i = mapped_at(space, linear, size);

    REQUIRE(i < M.nmapped);
    M.mapped[i] = M.mapped[--M.nmapped];
    M.inner->unmap(ctx, space, linear, size);
}

static void watch_flush(void *ctx)
{
    M.inner->flush(ctx);
}

/* Now, and only now, the hardware forgets. */
static void hw_flush(void *ctx)
{
    (void)ctx;
    M.flushes++;
    for (unsigned i = 0; i < NVCPUS; i++)
        if (M.v[i].hw)
            mmu_flush_all(M.v[i].hw);
}

/* ---- the judge ---- */

/* A walk of the guest's tables as they are now, without effects. */
static int look(struct model_vcpu *v, unsigned idx, uint64_t linear, enum mmu_access access,
                struct seen *s, uint32_t *error)
{
    struct mmu_walk w;
    struct mmu_trace t;
    int r = mmu_walk_trace(v->mmu, idx, linear, access, false, &w, &t);

    *error = v->mmu->fault_error;
    memset(s, 0, sizeof(*s));
    if (r != MMU_OK)
        return r;
    *s = (struct seen){.present = true,
                       .gpa = w.gpa,
                       .user = w.user,
                       .writable = w.writable,
                       .nx = w.nx,
                       .a = true,
                       .d = w.dirty,
                       .pkey = w.pkey};
    for (unsigned l = t.leaf; l && l <= 4; l++) {
        uint64_t e = t.e[l - 1].value;

        if (v->mmu->paging != MMU_PAGING_4LEVEL && l > 2)
            break;
        s->a &= !!(e & A) || (t.e[l - 1].gpa < MEM_SIZE && M.ro[t.e[l - 1].gpa / 4096]);
    }
    return MMU_OK;
}

static bool in_reach(const struct model_vcpu *v, unsigned i)
{
    return mmu_canonical(v->mmu, M.linear[i]) && (v->mmu->linear_bits > 32 || !(M.linear[i] >> 32));
}

static void note_one(struct model_vcpu *v, unsigned i)
{
    uint32_t error, pkru = v->mmu->pkru;
    struct seen s;

    if (!in_reach(v, i))
        return;
    /* By the most lenient access there is; what it allows is looked at later. */
    v->mmu->pkru = 0;
    look(v, MMU_KERNEL_AC, M.linear[i], MMU_READ, &s, &error);
    v->mmu->pkru = pkru;
    for (unsigned k = 0; k < v->nseen[i]; k++)
        if (!memcmp(&v->seen[i][k], &s, sizeof(s)))
            return;
    REQUIRE(v->nseen[i] < NSEEN);
    v->seen[i][v->nseen[i]++] = s;
}

/* After every change of guest memory. */
static void note_all(void)
{
    for (unsigned n = 0; n < NVCPUS; n++)
        for (unsigned i = 0; i < NLINEAR; i++)
            note_one(&M.v[n], i);
}

/* The lists are bounded: an invalidation, when they are nearly full. */
static bool nearly_full(const struct model_vcpu *v)
{
    for (unsigned i = 0; i < NLINEAR; i++)
        if (v->nseen[i] >= NSEEN - 8)
            return true;
    return false;
}

static void forget(struct model_vcpu *v, int only)
{
    for (unsigned i = 0; i < NLINEAR; i++)
        if (only < 0 || (unsigned)only == i) {
            v->nseen[i] = 0;
            note_one(v, i);
        }
}

static bool allows(const struct model_vcpu *v, const struct seen *s, unsigned idx,
                   enum mmu_access access)
{
    const struct mmu_walk w = {
        .user = s->user, .writable = s->writable, .nx = s->nx, .pkey = s->pkey};
    uint32_t error;

    return s->present && mmu_allowed(v->mmu, idx, access, &w, &error);
}

/* An access went to `gpa` without touching the tables: something cached must have allowed it. */
static void judge_hit(const struct model_vcpu *v, unsigned i, unsigned idx, enum mmu_access access,
                      uint64_t gpa)
{
    for (unsigned k = 0; k < v->nseen[i]; k++) {
        const struct seen *s = &v->seen[i][k];

        if (s->gpa == gpa && s->a && (access != MMU_WRITE || s->d) && allows(v, s, idx, access))
            return;
    }
    REQUIRE(!"stale beyond what is allowed");
}

/* ---- accesses ---- */

static const unsigned guest_idx[NWHO] = {MMU_USER, MMU_KERNEL, MMU_KERNEL_AC, MMU_KERNEL};
static const unsigned fault_idx[NWHO] = {MMU_USER, MMU_KERNEL, MMU_KERNEL_AC, MMU_KERNEL_AC};

/* One try of the hardware; NULL: #PF. */
static uint8_t *hw_try(struct model_vcpu *v, enum who who, uint64_t linear, enum mmu_access access)
{
    void *space = shadow_sink_space(&v->sv);
    bool pae = v->mmu->paging != MMU_PAGING_4LEVEL;
    const struct mmu_mode mode = {
        .cr0 = 0x80010001,
        .cr3 = space ? sink_x86_cr3(&M.sink, space) : 0,
        .cr4 = 0x20 | (v->mmu->smep ? 0x100000 : 0) | (v->mmu->smap ? 0x200000 : 0) |
               (v->mmu->pke && M.sink.pkey ? 0x400000 : 0),
        .efer = pae ? 0x800 : 0xd00,
        .pkru = v->mmu->pkru,
        .gpa_bits = 40,
    };
    unsigned idx = guest_idx[who];
    struct mmu_code fetched;
    uint8_t *at;

    if (!space)
        return NULL;
    REQUIRE(!pae || mode.cr3 < 1ull << 32);
    /* Another CR3 at a VM entry, or WRPKRU: with a VPID of its own. */
    if (v->hw->root != (mode.cr3 & ~0xfffull) || v->hw->smap != v->mmu->smap ||
        v->hw->smep != v->mmu->smep || v->hw->pkru != mode.pkru ||
        v->hw->pke != (v->mmu->pke && M.sink.pkey) || v->hw->linear_bits != (pae ? 32 : 48)) {
        mmu_flush_all(v->hw);
        REQUIRE(mmu_set_mode(v->hw, &mode, true));
    } else if (pae) { /* the page-directory pointers are loaded by each entry */
        REQUIRE(mmu_set_mode(v->hw, &mode, true));
    }
    if (access == MMU_EXEC) {
        if (mmu_fetch(v->hw, who == BY_USER, linear, &fetched) != MMU_OK)
            return NULL;
        return M.mem + (fetched.host - M.mem);
    }
    if (mmu_probe(v->hw, idx, linear, 1, access) != MMU_OK)
        return NULL;
    at = access == MMU_WRITE ? mmu_fast_write(v->hw, idx, linear, 1)
                             : mmu_fast_read(v->hw, idx, linear, 1);
    REQUIRE(at);
    return at;
}

/* What the interpreter does: the guest's walker, now. */
static uint8_t *emulate(struct model_vcpu *v, enum who who, uint64_t linear, enum mmu_access access)
{
    struct mmu_walk w;
    struct mmu_trace t;
    struct mmu_page page;

    M.emulated++;
    if (mmu_walk_trace(v->mmu, guest_idx[who], linear, access, true, &w, &t) != MMU_OK)
        return NULL;
    if (!guest_page(NULL, w.gpa, &page))
        return NULL;
    if (access == MMU_WRITE) {
        if (!page.writable)
            return NULL;
        if (page.dirty)
            *page.dirty = 1;
        atomic_fetch_and(page.code, MMU_CODE_TABLE);
        seen_store(w.gpa, 4096);
    }
    return page.host + (linear & 4095);
}

/* The tables, after what the access of now would do to them, in M.copy. Its result. */
static int expect(struct model_vcpu *v, unsigned idx, uint64_t linear, enum mmu_access access,
                  struct mmu_walk *w, uint32_t *error)
{
    int r;

    memcpy(M.copy, M.mem, NCOPY * 4096);
    M.base = M.copy;
    r = mmu_walk_trace(v->mmu, idx, linear, access, true, w, &(struct mmu_trace){0});
    *error = v->mmu->fault_error;
    M.base = M.mem;
    return r;
}

/* An access of the guest to a page of M.linear; where it goes, or NULL. Everything is judged. */
static uint8_t *access_page(struct model_vcpu *v, enum who who, unsigned i, enum mmu_access access)
{
    static uint8_t before[NCOPY * 4096];
    uint64_t linear = M.linear[i], gpa = 0, n;
    unsigned idx = guest_idx[who];
    enum shadow_result r = SHADOW_RETRY;
    struct mmu_walk w;
    uint32_t error;
    uint8_t *at = NULL;
    int wanted;

    if (!in_reach(v, i))
        return NULL;
    memcpy(before, M.mem, sizeof(before));
    wanted = expect(v, idx, linear, access, &w, &error);
    for (unsigned tries = 0; !at && r == SHADOW_RETRY; tries++) {
        REQUIRE(tries < 4);
        at = hw_try(v, who, linear, access);
        if (!at)
            r = shadow_fault(&v->sv, linear, fault_idx[who], access, &gpa);
    }
    switch (r) {
    case SHADOW_RETRY:
        M.done++;
        if (!memcmp(M.mem, before, sizeof(before))) {
            judge_hit(v, i, idx, access, (uint64_t)(at - M.mem) & ~4095ull);
        } else {
            REQUIRE(wanted == MMU_OK && !memcmp(M.mem, M.copy, sizeof(before)));
            REQUIRE((uint64_t)(at - M.mem) == w.gpa);
        }
        n = (uint64_t)(at - M.mem) / 4096;
        REQUIRE(!M.hole[n]);
        if (access == MMU_WRITE)
            REQUIRE(!M.ro[n] && !has_code(n) && (!M.tracking || atomic_load(&M.dirty[n])));
        note_all();
        return at;
    case SHADOW_PF:
        M.faults++;
        REQUIRE(wanted == MMU_FAULT && v->mmu->fault_error == error);
        REQUIRE(v->mmu->fault_addr == linear);
        REQUIRE(!memcmp(M.mem, before, sizeof(before)));
        return NULL;
    case SHADOW_MMIO:
        M.mmio++;
        REQUIRE(who == BY_IMPLICIT_AC || (wanted == MMU_OK && gpa == w.gpa));
        REQUIRE(gpa >= MEM_SIZE || M.hole[gpa / 4096]);
        break;
    case SHADOW_NOMEM:
        REQUIRE(M.may_fail);
        M.nomem++;
        at = emulate(v, who, linear, access);
        break;
    default:
        at = emulate(v, who, linear, access);
    }
    note_all();
    return at;
}

/* ---- the guest's control registers ---- */

static void reload(struct model_vcpu *v)
{
    enum shadow_result r = SHADOW_RETRY;
    const unsigned way = M.loads++ % 4;

    /* Of all ways to do it the hardware is to get the same. */
    if (way != 0 && shadow_load_quick(&v->sv, way == 1))
        M.quick++;
    else
        r = shadow_load(&v->sv);
    REQUIRE(r == SHADOW_RETRY || (r == SHADOW_NOMEM && M.may_fail));
    forget(v, -1);
}

/* False: PDPTEs with reserved bits; nothing changes. */
static bool load_mode(struct model_vcpu *v, const struct mmu_mode *mode)
{
    bool on = mode->cr0 >> 31;
    struct mmu_mode m = *mode;

    if (!on)
        m.efer &= ~0x400ull;
    mmu_flush_all(v->mmu);
    if (!mmu_set_mode(v->mmu, &m, true))
        return false;
    v->mode = *mode;
    reload(v);
    return true;
}

static void invlpg(struct model_vcpu *v, unsigned i)
{
    const uint64_t dropped = shadow_counts(M.sh)->dropped;
    bool holds = shadow_invlpg_holds(&v->sv, M.linear[i]);

    REQUIRE(shadow_counts(M.sh)->dropped == dropped);
    if (!holds || M.invlpgs++ % 2) {
        shadow_invlpg(&v->sv, M.linear[i]);
        REQUIRE(holds == (shadow_counts(M.sh)->dropped == dropped));
    }
    forget(v, (int)i);
}

/* A store by the host, a device or the interpreter. */
static void host_store(uint64_t gpa, const void *value, unsigned size)
{
    memcpy(M.mem + gpa, value, size);
    seen_store(gpa, size);
    note_all();
}

/* ---- from beginning to end ---- */

static void model_new(void)
{
    memset(&M, 0, sizeof(M));
    M.map = mmap(NULL, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(M.map != MAP_FAILED);
    M.mem = (uint8_t *)(((uintptr_t)M.map + 0x1fffff) & ~(uintptr_t)0x1fffff);
    M.copy = M.mem + MEM_SIZE;
    M.pool = M.copy + MEM_SIZE;
    M.base = M.mem;
    M.env = (struct mmu_env){guest_page, no_mmio, no_code, NULL};
    M.hw_env = (struct mmu_env){host_page, no_mmio, no_code, NULL};
    M.pages = (struct mmu_pages){pool_alloc, pool_free, any_phys, pool_virt, NULL};
    M.sink = (struct sink_x86){
        .pages = &M.pages, .flush = hw_flush, .max_tables = 1024, .smep = true, .smap = true};
    M.config = (struct shadow_config){.pages = &M.pages,
                                      .sink_ctx = &M.sink,
                                      .max_spaces = 16,
                                      .max_nodes = 512,
                                      .max_maps = 2048,
                                      .large = guest_large,
                                      .watch = watch_table};
    for (unsigned n = 0; n < NVCPUS; n++) {
        M.v[n].mmu = malloc(sizeof(struct mmu));
        M.v[n].hw = malloc(sizeof(struct mmu));
        mmu_init(M.v[n].mmu, &M.env);
        mmu_init(M.v[n].hw, &M.hw_env);
    }
}

/* After M.config, M.sink and the rest have been set. */
static bool model_start(void)
{
    M.inner = sink_x86(&M.sink);
    M.ops = (struct sink_ops){M.inner->features, watch_space_new, watch_space_free, watch_map,
                              watch_protect,     watch_unmap,     watch_flush};
    M.config.sink = &M.ops;
    M.sh = shadow_new(&M.config);
    for (unsigned n = 0; M.sh && n < NVCPUS; n++) {
        M.v[n].mode = (struct mmu_mode){.gpa_bits = 40};
        mmu_set_mode(M.v[n].mmu, &M.v[n].mode, true);
        shadow_vcpu_add(M.sh, &M.v[n].sv, M.v[n].mmu);
        reload(&M.v[n]);
    }
    return M.sh;
}

static void model_free(void)
{
    shadow_free(M.sh);
    REQUIRE(!M.nused && !M.sink.tables && !M.nmapped);
    for (unsigned n = 0; n < NVCPUS; n++) {
        free(M.v[n].mmu);
        free(M.v[n].hw);
    }
    munmap(M.map, MAP_SIZE);
}

/* ---- steps of random or fuzzed guests ---- */

/* Numbers below n, from a generator or from the bytes of an input. */
typedef uint64_t choose_fn(uint64_t n);

/* A table: mostly each is used at one level, as by systems, and else anyhow. */
static uint64_t random_table(choose_fn *rnd, unsigned level)
{
    static const uint8_t first[] = {8, 4, 2, 0}, count[] = {NTABLES - 8, 4, 2, 2};

    if (!rnd(8) || level > 4)
        return rnd(NTABLES) * 4096;
    return (first[level - 1] + rnd(count[level - 1])) * 4096;
}

static uint64_t random_entry(choose_fn *rnd, unsigned level)
{
    static const uint32_t flags[] = {P | W | U,         P | W | U,     P | W | U | A,
                                     P | W | U | A | D, P | W,         P | U,
                                     P | W | A | D,     P | U | A | D, P};
    uint64_t e = flags[rnd(sizeof(flags) / sizeof(flags[0]))];
    bool two = M.v[0].mmu->paging == MMU_PAGING_32;

    if (!rnd(12))
        return 0;
    if (level == 1 || !rnd(20)) {
        e |= (rnd(4) ? rnd(NCOPY) : rnd(MEM_PAGES + 8)) * 4096;
    } else if (level <= 3 && !rnd(5)) {
        e |= PS | rnd(4) * 0x200000 * (two ? 2 : level == 3 ? 512 : 1);
    } else {
        e |= random_table(rnd, level - 1);
    }
    if (!rnd(8))
        e |= 0x100; /* global */
    if (!rnd(10) && !two)
        e |= NX;
    if (!rnd(6) && !two)
        e |= rnd(16) << 59;
    if (!rnd(50))
        e |= 1ull << rnd(two ? 32 : 63);
    return e;
}

/* Indices that lead to M.linear. */
static uint64_t random_slot(choose_fn *rnd, unsigned *level)
{
    uint64_t linear = M.linear[rnd(NLINEAR)];
    bool two = M.v[0].mmu->paging == MMU_PAGING_32;
    unsigned shift;

    *level = 1 + (unsigned)rnd(M.v[0].mmu->paging == MMU_PAGING_4LEVEL ? 4 : 2);
    shift = 12 + (*level - 1) * (two ? 10 : 9);
    return random_table(rnd, *level) + (linear >> shift & (two ? 1023 : 511)) * (two ? 4 : 8);
}

/* By the guest where it has a mapping for it, else by a device. */
static void random_edit(choose_fn *rnd)
{
    struct model_vcpu *v = &M.v[rnd(NVCPUS)];
    unsigned level, size = M.v[0].mmu->paging == MMU_PAGING_32 ? 4 : 8;
    uint64_t gpa = random_slot(rnd, &level), value, old = 0;
    unsigned first = (unsigned)rnd(NLINEAR);

    memcpy(&old, M.mem + gpa, size);
    value = random_entry(rnd, level);
    if (old && !rnd(3)) /* a small change */
        value = old ^ (rnd(3) ? 1ull << rnd(8) : A | D);
    for (unsigned k = rnd(4) ? 0 : NLINEAR; k < NLINEAR; k++) {
        unsigned i = (first + k) % NLINEAR;
        struct seen s;
        uint32_t error;
        uint8_t *at;

        if (!in_reach(v, i) ||
            look(v, MMU_KERNEL_AC, M.linear[i], MMU_WRITE, &s, &error) != MMU_OK ||
            s.gpa != (gpa & ~4095ull))
            continue;
        at = access_page(v, rnd(2) ? BY_KERNEL_AC : BY_KERNEL, i, MMU_WRITE);
        if (!at)
            continue;
        /* Wherever the translation led: that is where the guest writes. */
        at = M.mem + ((at - M.mem) & ~4095) + (gpa & 4095);
        if (M.ro[(at - M.mem) / 4096] || (at - M.mem) / 4096 >= NCOPY)
            return;
        memcpy(at, &value, size);
        M.stores++;
        note_all();
        return;
    }
    if (!M.ro[gpa / 4096])
        host_store(gpa, &value, size);
}

static void random_mode(choose_fn *rnd, struct model_vcpu *v)
{
    struct mmu_mode mode = v->mode;

    switch (rnd(8)) {
    case 0:
        mode.cr0 ^= 0x10000;
        break;
    case 1:
        mode.cr4 ^= 0x100000;
        break;
    case 2:
        mode.cr4 ^= 0x200000;
        break;
    case 3:
        mode.cr4 ^= 0x10;
        break;
    case 4:
        mode.efer ^= 0x800;
        break;
    case 5:
        mode.cr0 ^= 0x80000000u;
        break;
    case 6:
        mode.cr4 ^= 0x400000;
        mode.pkru = (uint32_t)rnd(1ull << 32);
        break;
    default:
        mode.pkru = (uint32_t)(rnd(1u << 16) * 0x10001);
    }
    load_mode(v, &mode);
}

static void random_map_change(choose_fn *rnd)
{
    uint64_t n = rnd(3) ? rnd(NTABLES + 12) : rnd(MEM_PAGES), len = rnd(3) ? 1 : 1 + rnd(600);

    if (n + len > MEM_PAGES)
        len = MEM_PAGES - n;
    switch (rnd(4)) {
    case 0:
        M.hole[n] ^= !rnd(4);
        shadow_unmap_gpa(M.sh, n * 4096, 4096);
        /* The judge knows memory by its address only, so that nothing else is to be forgotten. */
        break;
    case 1:
        if (n >= NTABLES) { /* accessed bits of tables that are read-only would differ */
            M.ro[n] ^= !rnd(4);
            shadow_unmap_gpa(M.sh, n * 4096, 4096);
        }
        break;
    case 2:
        atomic_fetch_or(&M.code[n], 1);
        shadow_protect_gpa(M.sh, n * 4096, 4096);
        break;
    default:
        for (uint64_t k = n; k < n + len; k++)
            atomic_store(&M.dirty[k], 0);
        shadow_protect_gpa(M.sh, n * 4096, len * 4096);
    }
    note_all();
}

static unsigned top_level(void)
{
    return (M.v[0].mode.cr4 & 0x20) ? M.v[0].mode.efer & 0x400 ? 4 : 3 : 2;
}

static void random_step(choose_fn *rnd)
{
    struct model_vcpu *v = &M.v[rnd(NVCPUS)];
    struct mmu_mode mode = v->mode;
    enum who who;
    uint8_t *at;

    for (unsigned n = 0; n < NVCPUS; n++)
        if (nearly_full(&M.v[n]))
            reload(&M.v[n]);
    switch (rnd(32)) {
    case 0:
        mode.cr3 = random_table(rnd, top_level());
        load_mode(v, &mode);
        break;
    case 1:
        if (rnd(2))
            random_mode(rnd, v);
        break;
    case 2:
    case 3:
        invlpg(v, (unsigned)rnd(NLINEAR));
        break;
    case 4:
        if (rnd(2))
            random_map_change(rnd);
        break;
    case 5:
    case 6:
        reload(v);
        break;
    case 7:
    case 8:
    case 9:
    case 10:
    case 11:
    case 12:
        random_edit(rnd);
        break;
    default:
        who = (enum who)rnd(NWHO);
        at =
            access_page(v, who, (unsigned)rnd(NLINEAR),
                        who == BY_IMPLICIT_AC || rnd(4) ? rnd(2) ? MMU_READ : MMU_WRITE : MMU_EXEC);
        (void)at;
    }
}

/* A guest of one paging mode, with tables that lead somewhere. */
static void random_start(choose_fn *rnd)
{
    enum mmu_paging paging = (enum mmu_paging)(1 + rnd(3));
    static const uint64_t base[] = {0,          0x1fe000,           0x3fffc000,
                                    0x7fe00000, 0xffff800000000000, 0xffffffffc0000000};
    struct mmu_mode mode = {.cr0 = 0x80000001, .gpa_bits = 40};
    unsigned nbase = paging == MMU_PAGING_4LEVEL ? 6 : 4, top;
    uint64_t at[3];

    mode.cr4 = paging == MMU_PAGING_32 ? 0x10 : 0x20;
    mode.efer = paging == MMU_PAGING_4LEVEL ? 0xd00 : 0x800;
    for (unsigned i = 0; i < 3; i++) /* few places, so that accesses come back */
        at[i] = base[rnd(nbase)];
    for (unsigned i = 0; i < NLINEAR; i++)
        M.linear[i] = at[rnd(3)] + rnd(6) * 4096;
    M.large = rnd(2);
    M.sink.large = rnd(2);
    M.config.code_compared = !rnd(4);
    M.sink.pkey = rnd(2);
    M.tracking = !rnd(3);
    if (!rnd(3)) {
        M.config.max_maps = SHADOW_MIN_MAPS + (uint32_t)rnd(8);
        M.config.max_nodes = SHADOW_MIN_NODES + (uint32_t)rnd(8);
        M.config.max_spaces = NVCPUS + (uint32_t)rnd(3);
        M.sink.max_tables = 24 + (uint32_t)rnd(20);
    }
    if (!rnd(5)) {
        M.fail_every = 3 + (unsigned)rnd(40);
        M.may_fail = true;
    }
    if (!model_start())
        return;
    for (unsigned n = 0; n < NVCPUS; n++) {
        M.v[n].mode = mode;
        M.v[n].mmu->paging = paging; /* for random_entry */
    }
    top = top_level();
    for (unsigned k = 0; k < 200; k++) {
        unsigned level, size = paging == MMU_PAGING_32 ? 4 : 8;
        uint64_t gpa = random_slot(rnd, &level), e = random_entry(rnd, level);

        memcpy(M.mem + gpa, &e, size);
    }
    for (unsigned k = 0; paging == MMU_PAGING_PAE && k < NTABLES; k++)
        for (unsigned j = 0; j < 4; j++) {
            uint64_t e = rnd(8) ? rnd(NTABLES) * 4096 | P : 0;

            memcpy(M.mem + k * 4096 + j * 8, &e, 8);
        }
    for (unsigned n = 0; n < NVCPUS; n++) {
        M.v[n].mmu->paging = MMU_PAGING_NONE;
        mode.cr3 = random_table(rnd, top);
        if (!load_mode(&M.v[n], &mode)) {
            mode.cr0 = 1;
            load_mode(&M.v[n], &mode);
        }
    }
}

#endif
