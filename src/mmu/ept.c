/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/ept.c: changes of extended page tables.
 *
 * Each change runs twice over the same tree: plan() counts the tables that will be needed, which
 * are then set aside, and apply() does it. The CPU reads the tables and sets accessed and dirty
 * bits at any time, so that entries change by one atomic exchange each. */
#include "mmu/ept.h"

#include <string.h>

#include "mmu/ept_entry.h"

enum kind {
    MAP,
    PROTECT,
    UNMAP,
    ARM,    /* for tracking: all pages of 4 KiB, clean */
    DISARM, /* the end of tracking */
    TIDY    /* only tables that are empty or may be merged */
};

struct change {
    enum kind kind;
    uint64_t delta; /* MAP: hpa - gpa */
    uint64_t bits;  /* MAP: rights and memory type; PROTECT: rights */
    bool small;     /* pages of 4 KiB only */
};

static uint64_t load(const uint64_t *e)
{
    return __atomic_load_n(e, __ATOMIC_ACQUIRE);
}

static bool present(uint64_t e)
{
    return e & EPT_RWX;
}

static uint64_t *child(const struct ept *ept, uint64_t e)
{
    return ept->cfg.pages->virt(ept->cfg.pages->ctx, e & EPT_ADDR);
}

static uint64_t phys(const struct ept *ept, const void *page)
{
    return ept->cfg.pages->phys(ept->cfg.pages->ctx, page);
}

/* ---- pages for tables ---- */

static void page_free(struct ept *ept, void *page)
{
    ept->cfg.pages->free(ept->cfg.pages->ctx, page);
    ept->tables--;
}

/* Gives back what was set aside and not needed. */
static void release(struct ept *ept)
{
    while (ept->reserve) {
        uint64_t *page = ept->reserve;

        memcpy(&ept->reserve, page, sizeof(ept->reserve));
        page_free(ept, page);
    }
    ept->aside = 0;
}

static int set_aside(struct ept *ept, uint64_t n)
{
    if (n > ept->cfg.max_tables - ept->tables)
        return EPT_E_LIMIT;
    for (; ept->aside < n; ept->aside++) {
        uint64_t *page = ept->cfg.pages->alloc(ept->cfg.pages->ctx, false);

        if (!page) {
            release(ept);
            return EPT_E_NOMEM;
        }
        ept->tables++;
        memcpy(page, &ept->reserve, sizeof(ept->reserve));
        ept->reserve = page;
    }
    return EPT_OK;
}

static uint64_t *take(struct ept *ept)
{
    uint64_t *page = ept->reserve;

    memcpy(&ept->reserve, page, sizeof(ept->reserve));
    page[0] = 0;
    ept->aside--;
    return page;
}

/* Frees the tables that no processor can know of any more. Who has seen nothing will invalidate
 * before it uses the tables. */
static void collect(struct ept *ept)
{
    uint64_t oldest = ept->gen, *page, **at = &ept->pending;

    for (struct ept_cpu *cpu = ept->cpus; cpu; cpu = cpu->next)
        if (cpu->seen && cpu->seen < oldest)
            oldest = cpu->seen;
    while ((page = *at)) {
        uint64_t *next;

        memcpy(&next, page, sizeof(next));
        if (page[1] >> 3 > oldest) {
            at = (uint64_t **)(void *)page;
            continue;
        }
        *at = next;
        page_free(ept, page);
    }
}

/* Takes out a table and all below. Processors may still read it: the words written here are entries
 * that are not present, the link because pages are aligned. */
static void discard(struct ept *ept, uint64_t *table, unsigned level)
{
    for (unsigned i = 0; i < 512; i++) {
        uint64_t e = load(&table[i]);

        if (present(e) && !ept_is_leaf(e, level))
            discard(ept, child(ept, e), level - 1);
    }
    __atomic_store_n(&table[1], ept->gen << 3, __ATOMIC_RELAXED);
    __atomic_store_n(&table[0], (uint64_t)(uintptr_t)ept->pending, __ATOMIC_RELAXED);
    ept->pending = table;
}

/* ---- entries ---- */

/* SDM Vol. 3C 28.4.3.3: an entry that was present and now allows less, leads elsewhere or has lost
 * an accessed or dirty bit. */
static void note(struct ept *ept, uint64_t old, uint64_t new)
{
    uint64_t lost = old & ~new &(EPT_RWX | EPT_A | EPT_D);
    uint64_t moved = (old ^ new) & (EPT_ADDR | EPT_TYPE_MASK | EPT_IPAT | EPT_PS);

    if (present(old) && (lost || moved))
        __atomic_add_fetch(&ept->gen, 1, __ATOMIC_RELEASE);
}

/* Rights of a page as its entry has them while its being written is to be seen. */
static uint64_t watch(const struct ept *ept, uint64_t e)
{
    if (!ept->tracking || ept->ad || !(e & EPT_W) || (e & EPT_SW_DIRTY))
        return e;
    return (e & ~(uint64_t)EPT_W) | EPT_SW_LOGGED;
}

/* The value of a page's entry after a change. */
static uint64_t changed(const struct ept *ept, const struct change *c, uint64_t old, uint64_t gpa,
                        unsigned level)
{
    uint64_t rights = old & EPT_RWX;

    switch (c->kind) {
    case MAP:
        return watch(ept, (gpa + c->delta) | c->bits | (level > 1 ? EPT_PS : 0));
    case PROTECT:
        return watch(ept, (old & ~(EPT_RWX | EPT_SW_LOGGED)) | c->bits);
    case ARM:
        return watch(ept, old & ~(EPT_D | EPT_SW_DIRTY));
    case DISARM:
        if (old & EPT_SW_LOGGED)
            rights |= EPT_W;
        return (old & ~(EPT_RWX | EPT_SW_LOGGED | EPT_SW_DIRTY)) | rights;
    default:
        return 0;
    }
}

/* Whether the change is one of this very entry. `full`: it covers all that the entry maps. */
static bool direct(const struct ept *ept, const struct change *c, uint64_t e, unsigned level,
                   uint64_t gpa, bool full)
{
    if (level == 1)
        return true;
    if (c->kind == TIDY)
        return !present(e) || ept_is_leaf(e, level);
    if (!full)
        return false;
    if (c->kind == UNMAP)
        return true;
    if (c->kind == MAP)
        return !c->small && ept_has_size(ept->cfg.cap, level) &&
               !((gpa + c->delta) & (ept_size(level) - 1));
    return ept_is_leaf(e, level) && !c->small;
}

static void set(struct ept *ept, const struct change *c, uint64_t *e, unsigned level, uint64_t gpa)
{
    uint64_t old = load(e), new;

    if (c->kind == TIDY || (c->kind != MAP && !present(old)))
        return;
    do
        new = changed(ept, c, old, gpa, level);
    while (!__atomic_compare_exchange_n(e, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    note(ept, old, new);
    if (present(old) && !ept_is_leaf(old, level))
        discard(ept, child(ept, old), level - 1);
}

/* ---- the two passes ---- */

/* The part of [gpa, last] in the entry that maps `gpa`. */
static uint64_t part(uint64_t gpa, uint64_t last, unsigned level, bool *full)
{
    uint64_t end = gpa | (ept_size(level) - 1);

    *full = !(gpa & (ept_size(level) - 1)) && end <= last;
    return end < last ? end : last;
}

/* The number of tables that the change needs. No table: it does not exist yet; its entries will be
 * as `fill`, those that a page is split into, or 0. */
static uint64_t plan(const struct ept *ept, const uint64_t *table, uint64_t fill, unsigned level,
                     uint64_t gpa, uint64_t last, const struct change *c)
{
    uint64_t n = 0, end;

    for (;; gpa = end + 1) {
        bool full;
        uint64_t e = table ? load(&table[ept_index(gpa, level)]) : fill;

        end = part(gpa, last, level, &full);
        if (!direct(ept, c, e, level, gpa, full) && (c->kind == MAP || present(e))) {
            if (present(e) && !ept_is_leaf(e, level))
                n += plan(ept, child(ept, e), 0, level - 1, gpa, end, c);
            else
                n += 1 + plan(ept, NULL, e, level - 1, gpa, end, c);
        }
        if (end == last || n > ept->cfg.max_tables)
            return n;
    }
}

/* Puts a table in the place of a page or of nothing. */
static void split(struct ept *ept, uint64_t *e, unsigned level)
{
    uint64_t old = load(e), *table = take(ept), new = phys(ept, table) | EPT_RWX;

    do {
        uint64_t page = level == 2 ? old & ~EPT_PS : old;

        for (unsigned i = 0; i < 512; i++)
            table[i] = present(old) ? page + i * ept_size(level - 1) : 0;
    } while (!__atomic_compare_exchange_n(e, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    note(ept, old, new);
}

/* The large page that a table full of pages amounts to, or 0. */
static uint64_t merged(const struct ept *ept, const uint64_t *table, unsigned level)
{
    uint64_t first = load(&table[0]), used = 0, size = ept_size(level - 1);

    if (!present(first) || !ept_has_size(ept->cfg.cap, level) ||
        (first & EPT_ADDR & (ept_size(level) - 1)))
        return 0;
    for (unsigned i = 0; i < 512; i++) {
        uint64_t e = load(&table[i]);

        if (!ept_is_leaf(e, level - 1) || ((e - i * size) ^ first) & ~(EPT_A | EPT_D))
            return 0;
        used |= e & (EPT_A | EPT_D);
    }
    return first | used | EPT_PS;
}

/* A table whose content has changed: it may be empty, or a large page, now. */
static void tidy(struct ept *ept, uint64_t *e, unsigned level, const struct change *c)
{
    uint64_t old = load(e), *table = child(ept, old), new = 0;

    for (unsigned i = 0; i < 512; i++) {
        if (!present(load(&table[i])))
            continue;
        if (c->small || level == 4)
            return;
        new = merged(ept, table, level);
        if (!new)
            return;
        break;
    }
    __atomic_store_n(e, new, __ATOMIC_RELEASE);
    note(ept, old, new);
    discard(ept, table, level - 1);
}

static void apply(struct ept *ept, uint64_t *table, unsigned level, uint64_t gpa, uint64_t last,
                  const struct change *c)
{
    uint64_t end;

    for (;; gpa = end + 1) {
        uint64_t *e = &table[ept_index(gpa, level)], old = load(e);
        bool full;

        end = part(gpa, last, level, &full);
        if (direct(ept, c, old, level, gpa, full)) {
            set(ept, c, e, level, gpa);
        } else if (c->kind == MAP || present(old)) {
            if (!present(old) || ept_is_leaf(old, level))
                split(ept, e, level);
            apply(ept, child(ept, load(e)), level - 1, gpa, end, c);
            if (c->kind != MAP) /* its pieces have been planned apart: see ept_map */
                tidy(ept, e, level, c);
        }
        if (end == last)
            return;
    }
}

/* Both passes for a change of one piece. */
static int run(struct ept *ept, uint64_t gpa, uint64_t len, const struct change *c)
{
    uint64_t last = gpa + len - 1;
    int err;

    collect(ept);
    err = set_aside(ept, plan(ept, ept->root, 0, 4, gpa, last, c));
    if (!err)
        apply(ept, ept->root, 4, gpa, last, c);
    release(ept);
    collect(ept);
    return err;
}

/* ---- the interface ---- */

static bool in_width(uint64_t addr, uint64_t len, unsigned bits)
{
    return addr < 1ull << bits && len <= (1ull << bits) - addr;
}

static int check(const struct ept *ept, uint64_t gpa, uint64_t len, unsigned rights)
{
    if (!len || (gpa | len) & 4095 || !in_width(gpa, len, EPT_GPA_BITS))
        return EPT_E_ARG;
    if (rights & ~EPT_RWX || (!(rights & EPT_R) && (rights & EPT_W)))
        return EPT_E_RIGHTS;
    if (rights == EPT_X && !(ept->cfg.cap & EPT_CAP_EXEC_ONLY))
        return EPT_E_RIGHTS;
    return EPT_OK;
}

/* The memory type at `hpa`, and how far it reaches. */
static int type_of(const struct ept *ept, uint64_t hpa, uint64_t *len, uint64_t *bits)
{
    uint64_t most = *len;
    unsigned type = ept->cfg.type ? ept->cfg.type(ept->cfg.ctx, hpa, len) : EPT_WB;

    if (!*len || *len > most || *len & 4095)
        return EPT_E_TYPE;
    if (type > EPT_WB || type == 2 || type == 3)
        return EPT_E_TYPE;
    *bits = (uint64_t)type << EPT_TYPE_SHIFT;
    return EPT_OK;
}

/* Does both passes for all pieces of one memory type: first one, then the other. */
int ept_map(struct ept *ept, uint64_t gpa, uint64_t hpa, uint64_t len, unsigned rights)
{
    struct change c = {.kind = MAP, .delta = hpa - gpa, .small = ept->tracking};
    uint64_t need = 0, done, n, bits = 0;
    int err = check(ept, gpa, len, rights);

    if (!rights && !err)
        return ept_unmap(ept, gpa, len);
    if (!err && (hpa & 4095 || !in_width(hpa, len, ept->cfg.phys_bits)))
        err = EPT_E_ARG;
    collect(ept);
    for (done = 0; !err && done < len; done += n) {
        n = len - done;
        err = type_of(ept, hpa + done, &n, &bits);
        c.bits = bits | rights;
        if (!err)
            need += plan(ept, ept->root, 0, 4, gpa + done, gpa + done + n - 1, &c);
    }
    if (!err)
        err = set_aside(ept, need);
    for (done = 0; !err && done < len; done += n) {
        n = len - done;
        type_of(ept, hpa + done, &n, &bits);
        c.bits = bits | rights;
        apply(ept, ept->root, 4, gpa + done, gpa + done + n - 1, &c);
    }
    c.kind = TIDY;
    if (!err)
        apply(ept, ept->root, 4, gpa, gpa + len - 1, &c);
    release(ept);
    collect(ept);
    return err;
}

int ept_unmap(struct ept *ept, uint64_t gpa, uint64_t len)
{
    const struct change c = {.kind = UNMAP};
    int err = check(ept, gpa, len, 0);

    return err ? err : run(ept, gpa, len, &c);
}

int ept_protect(struct ept *ept, uint64_t gpa, uint64_t len, unsigned rights)
{
    const struct change c = {.kind = PROTECT, .bits = rights, .small = ept->tracking};
    int err = check(ept, gpa, len, rights);

    if (!rights && !err)
        return ept_unmap(ept, gpa, len);
    return err ? err : run(ept, gpa, len, &c);
}

int ept_track(struct ept *ept, bool on)
{
    const struct change c = {.kind = on ? ARM : DISARM, .small = on};
    bool was = ept->tracking;
    int err;

    ept->tracking = on;
    err = run(ept, 0, 1ull << EPT_GPA_BITS, &c);
    if (err)
        ept->tracking = was;
    return err;
}

/* The entry of a 4 KiB page, or NULL. */
static uint64_t *find(const struct ept *ept, uint64_t gpa)
{
    uint64_t *table = ept->root;

    if (gpa >> EPT_GPA_BITS)
        return NULL;
    for (unsigned level = 4;; level--) {
        uint64_t *e = &table[ept_index(gpa, level)], value = load(e);

        if (!present(value))
            return NULL;
        if (ept_is_leaf(value, level))
            return level == 1 ? e : NULL;
        table = child(ept, value);
    }
}

bool ept_note_write(struct ept *ept, uint64_t gpa)
{
    uint64_t *e = find(ept, gpa), old = e ? load(e) : 0, new;

    do {
        if (!(old & EPT_SW_LOGGED))
            return false;
        new = (old & ~EPT_SW_LOGGED) | EPT_W | EPT_SW_DIRTY;
    } while (!__atomic_compare_exchange_n(e, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    return true;
}

/* Makes a page clean; whether it was not. */
static bool clean(struct ept *ept, uint64_t *e)
{
    uint64_t old = load(e), new;

    do {
        if (!(old & (EPT_D | EPT_SW_DIRTY)))
            return false;
        new = watch(ept, old & ~(EPT_D | EPT_SW_DIRTY));
    } while (!__atomic_compare_exchange_n(e, &old, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
    note(ept, old, new);
    return true;
}

void ept_harvest(struct ept *ept, uint64_t gpa, uint64_t len, void (*fn)(void *ctx, uint64_t gpa),
                 void *ctx)
{
    uint64_t end;

    if (check(ept, gpa, len, 0) || !ept->tracking)
        return;
    for (end = gpa + len; gpa < end;) {
        struct ept_walk w;
        uint64_t *e = NULL;

        /* Past holes in steps of what is missing. */
        ept_walk(ept, gpa, 0, &w);
        if (w.level == 1)
            e = find(ept, gpa);
        if (e && clean(ept, e))
            fn(ctx, gpa & ~4095ull);
        gpa = (gpa | (ept_size(w.level) - 1)) + 1;
    }
}

uint64_t ept_eptp(const struct ept *ept)
{
    uint64_t type = ept->cfg.cap & EPT_CAP_WB ? EPT_WB : EPT_UC;

    return phys(ept, ept->root) | type | 3u << 3 | (ept->ad ? 1u << 6 : 0);
}

bool ept_usable(uint64_t cap)
{
    return (cap & EPT_CAP_4LEVEL) && (cap & (EPT_CAP_WB | EPT_CAP_UC)) && (cap & EPT_CAP_INVEPT) &&
           (cap & (EPT_CAP_INVEPT_SINGLE | EPT_CAP_INVEPT_ALL));
}

int ept_init(struct ept *ept, const struct ept_config *config)
{
    uint64_t cap = config->cap;

    memset(ept, 0, sizeof(*ept));
    if (!ept_usable(cap))
        return EPT_E_CAPS;
    if (config->phys_bits < 32 || config->phys_bits > 52)
        return EPT_E_ARG;
    if (!config->max_tables)
        return EPT_E_LIMIT;
    ept->cfg = *config;
    if (!(cap & EPT_CAP_2M)) /* what a page of 1 GiB is split into */
        ept->cfg.cap &= ~EPT_CAP_1G;
    ept->ad = config->accessed_dirty && (cap & EPT_CAP_AD);
    ept->root = config->pages->alloc(config->pages->ctx, false);
    if (!ept->root)
        return EPT_E_NOMEM;
    ept->tables = 1;
    ept->gen = 1;
    return EPT_OK;
}

void ept_free(struct ept *ept)
{
    if (!ept->root)
        return;
    ept->cpus = NULL;
    discard(ept, ept->root, 4);
    collect(ept);
    ept->root = NULL;
}

/* ---- invalidation ---- */

unsigned ept_invept_type(const struct ept *ept)
{
    return ept->cfg.cap & EPT_CAP_INVEPT_SINGLE ? 1 : 2;
}

void ept_cpu_add(struct ept *ept, struct ept_cpu *cpu)
{
    cpu->seen = 0;
    cpu->next = ept->cpus;
    ept->cpus = cpu;
}

void ept_cpu_remove(struct ept *ept, struct ept_cpu *cpu)
{
    for (struct ept_cpu **at = &ept->cpus; *at; at = &(*at)->next)
        if (*at == cpu) {
            *at = cpu->next;
            break;
        }
    collect(ept);
}

void ept_invept_done(struct ept *ept, struct ept_cpu *cpu, uint64_t generation)
{
    cpu->seen = generation;
    collect(ept);
}
