/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/space.c: which pages of a guest's address space a stub has. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "backends/shadow/scan.h"
#include "backends/shadow/space.h"

#define PAGE 4096u
/* Pages that are looked at beside one that was missing, in an aligned block: more and more of them
 * as long as what is missing lies next to the last block. */
#define AROUND     16u
#define MAX_AROUND 256u
/* Pages of code that are rather found by a look at all than one by one. */
#define SPACE_MANY 256u
/* Pages that are mapped beforehand. */
#define MAX_FILL 1024u

/* ---- the table of pages ---- */

static uint32_t *bucket_of(struct space *sp, uint64_t va)
{
    uint64_t n = va / PAGE;

    return &sp->bucket[(n ^ n >> SPACE_BUCKET_BITS) & ((1u << SPACE_BUCKET_BITS) - 1)];
}

static uint32_t *code_bucket_of(struct space *sp, uint64_t gpa)
{
    uint64_t n = gpa / PAGE;

    return &sp->code_bucket[(n ^ n >> SPACE_CODE_BITS) & ((1u << SPACE_CODE_BITS) - 1)];
}

static struct space_page *find(struct space *sp, uint64_t va)
{
    uint32_t i = *bucket_of(sp, va);

    while (i && sp->page[i - 1].va != va)
        i = sp->page[i - 1].next;
    return i ? &sp->page[i - 1] : NULL;
}

static uint32_t number_of(const struct space *sp, const struct space_page *p)
{
    return (uint32_t)(p - sp->page) + 1;
}

static void link_page(struct space *sp, struct space_page *p)
{
    uint32_t *first = bucket_of(sp, p->va);

    p->next = *first;
    *first = number_of(sp, p);
}

static void unlink_page(struct space *sp, struct space_page *p)
{
    uint32_t *at = bucket_of(sp, p->va), n = number_of(sp, p);

    while (*at != n)
        at = &sp->page[*at - 1].next;
    *at = p->next;
}

static void link_code(struct space *sp, struct space_page *p)
{
    uint32_t *first = code_bucket_of(sp, p->gpa);

    p->next_code = *first;
    *first = number_of(sp, p);
}

static void unlink_code(struct space *sp, struct space_page *p)
{
    uint32_t *at = code_bucket_of(sp, p->gpa), n = number_of(sp, p);

    while (*at != n)
        at = &sp->page[*at - 1].next_code;
    *at = p->next_code;
}

static bool is_code(const struct space_page *p)
{
    return p->prot & PROT_EXEC;
}

static void forget(struct space *sp, struct space_page *p)
{
    struct space_page *last = &sp->page[sp->npages - 1];

    unlink_page(sp, p);
    if (is_code(p))
        unlink_code(sp, p);
    if (p != last) {
        unlink_page(sp, last);
        if (is_code(last))
            unlink_code(sp, last);
        *p = *last;
        link_page(sp, p);
        if (is_code(p))
            link_code(sp, p);
    }
    sp->npages--;
}

/* Enters a page, or what has become of the one at that address. False without memory. */
static bool enter(struct space *sp, const struct space_page *new)
{
    struct space_page *p = find(sp, new->va);

    if (p) {
        forget(sp, p);
    } else if (sp->npages == sp->room) {
        uint32_t room = sp->room ? 2 * sp->room : 256;
        struct space_page *pages = realloc(sp->page, room * sizeof(*pages));

        if (!pages)
            return false;
        sp->page = pages;
        sp->room = room;
    }
    p = &sp->page[sp->npages++];
    *p = *new;
    link_page(sp, p);
    if (is_code(p))
        link_code(sp, p);
    return true;
}

/* ---- commands ---- */

static bool flush(struct space *sp)
{
    uint32_t n = sp->ncmds;

    sp->ncmds = 0;
    if (!n || !stub_map(&sp->stub, n))
        return !sp->stub.lost;
    stub_kill(&sp->stub); /* nobody knows what is mapped now */
    return false;
}

static bool command(struct space *sp, const struct stub_cmd *c)
{
    if (sp->ncmds == STUB_CMDS && !flush(sp))
        return false;
    stub_cmds(&sp->stub)[sp->ncmds++] = *c;
    return true;
}

static bool unmap(struct space *sp, uint64_t va, uint64_t len)
{
    return command(sp, &(struct stub_cmd){SYS_munmap, {va, len}});
}

/* Several pages that follow each other in the guest's addresses and in a file. */
struct run {
    uint64_t va, len, offset;
    int fd;
    int prot;
};

static bool map_run(struct space *sp, struct run *r)
{
    struct stub_cmd c = {SYS_mmap,
                         {r->va, r->len, (uint64_t)r->prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                          (uint64_t)r->fd, r->offset}};

    if (!r->len)
        return true;
    r->len = 0;
    return command(sp, &c);
}

static bool add_to_run(struct space *sp, struct run *r, uint64_t va, const struct core_page *page,
                       int prot)
{
    if (r->len &&
        (r->va + r->len != va || r->fd != page->fd || r->prot != prot ||
         r->offset + r->len != page->fd_offset) &&
        !map_run(sp, r))
        return false;
    if (!r->len)
        *r = (struct run){.va = va, .offset = page->fd_offset, .fd = page->fd, .prot = prot};
    r->len += PAGE;
    return true;
}

/* ---- what may be there ---- */

static bool is_own(const struct space *sp, uint64_t va)
{
    return va - sp->stub.base < STUB_SIZE;
}

static bool can_map(const struct space *sp, uint64_t va)
{
    return va >= STUB_LOW && va < STUB_HIGH && !is_own(sp, va);
}

/* What the MMU gives for a page of data that has been accessed: PROT_*, or 0. */
static int data_prot(struct mmu *mmu, uint64_t va, const uint8_t **host)
{
    *host = mmu_prefetch(mmu, MMU_USER, va, false);
    if (!*host)
        return 0;
    return mmu_prefetch(mmu, MMU_USER, va, true) == *host ? PROT_READ | PROT_WRITE : PROT_READ;
}

/* Whether the MMU still gives what a page is mapped by. */
static bool holds(struct mmu *mmu, const struct space_page *p)
{
    struct mmu_code code;

    if (p->stale)
        return false;
    if (is_code(p))
        return mmu_prefetch_code(mmu, true, p->va, &code) && code.host == p->host &&
               mmu_prefetch(mmu, MMU_USER, p->va, false) == p->host;
    return mmu_prefetch(mmu, MMU_USER, p->va, p->prot & PROT_WRITE) == p->host;
}

/* INVLPG takes all of a large page away: what may be a part of one is noted. */
static void note_large(struct space *sp, const struct mmu *mmu, uint64_t va)
{
    if (va < mmu->large_lo[0] || va > mmu->large_hi[0])
        return;
    if (mmu->large_lo[0] < sp->large_lo)
        sp->large_lo = mmu->large_lo[0];
    if (mmu->large_hi[0] > sp->large_hi)
        sp->large_hi = mmu->large_hi[0];
}

/* ---- mapping ---- */

static const uint8_t *code_at(struct mmu *mmu, uint64_t va)
{
    struct mmu_code code;

    return mmu_prefetch_code(mmu, true, va, &code) ? code.host : NULL;
}

/* Whether the page at `va` must not be executable. */
static bool refuses(struct space *sp, struct mmu *mmu, uint64_t va, const uint8_t *page)
{
    struct shadow_code c = {page, code_at(mmu, va - PAGE), code_at(mmu, va + PAGE)};
    unsigned other = sp->scan & ~SHADOW_SCAN_CPUID;

    if (!shadow_scan(&c, sp->scan))
        return false;
    sp->only_cpuid = sp->scan != other && !shadow_scan(&c, other);
    return true;
}

static bool take_code(struct space *sp, struct interp_vcpu *iv, uint64_t va, struct run *r)
{
    struct mmu *mmu = &iv->cpu->mmu;
    struct mmu_code code;
    struct core_page page;
    struct space_page p, *before;

    if (!mmu_prefetch_code(mmu, true, va, &code))
        return false;
    /* From here on stores are seen: what is scanned stays as it is, or is taken away. */
    iv->env.code_decoded(iv, code.gpa);
    /* Protection keys may allow code to be executed and not to be read, which mmap does not. */
    if (!mmu_prefetch_code(mmu, true, va, &code) || !code.host ||
        mmu_prefetch(mmu, MMU_USER, va, false) != code.host ||
        !core_mem_page(iv->vcpu->vm, code.gpa, &page) || page.fd < 0 ||
        !(atomic_load(page.code) >> iv->vcpu->id & 1))
        return false;
    if (refuses(sp, mmu, va, code.host))
        return false;
    /* What the page before it ends with may begin an instruction of this one. */
    before = find(sp, va - PAGE);
    if (before && is_code(before) && refuses(sp, mmu, before->va, before->host))
        return false;
    p = (struct space_page){.va = va,
                            .host = code.host,
                            .gpa = code.gpa & MMU_PAGE_MASK,
                            .prot = PROT_READ | PROT_EXEC};
    note_large(sp, mmu, va);
    return enter(sp, &p) && add_to_run(sp, r, va, &page, p.prot);
}

static bool take_data(struct space *sp, struct interp_vcpu *iv, uint64_t va, struct run *r)
{
    struct mmu *mmu = &iv->cpu->mmu;
    struct core_page page;
    const uint8_t *host;
    struct space_page p;
    int prot = data_prot(mmu, va, &host);
    const struct mmu_entry *e = &mmu->data[MMU_USER][mmu_slot(va)];
    uint64_t gpa = e->gpa & MMU_PAGE_MASK;

    if (!prot || e->read != va || !core_mem_page(iv->vcpu->vm, gpa, &page) || page.fd < 0)
        return false;
    p = (struct space_page){.va = va, .host = host, .gpa = gpa, .prot = (uint8_t)prot};
    note_large(sp, mmu, va);
    return enter(sp, &p) && add_to_run(sp, r, va, &page, prot);
}

/* Whether the vCPU has executed code of that page before, which so may be worth its mapping. */
static bool has_code(struct interp_vcpu *iv, uint64_t va)
{
    struct mmu_code code;
    struct core_page page;

    return mmu_prefetch_code(&iv->cpu->mmu, true, va, &code) &&
           core_mem_page(iv->vcpu->vm, code.gpa, &page) && page.host &&
           (atomic_load_explicit(page.code, memory_order_relaxed) >> iv->vcpu->id & 1);
}

static bool may_write(const struct space_page *p)
{
    return p->prot & PROT_WRITE;
}

static unsigned next_around(const struct space *sp, uint64_t page)
{
    uint64_t n = sp->around_len / PAGE;

    /* Below the last block by as much as it is long, in it, or above. */
    if (page - (sp->around_first - sp->around_len) >= 3 * sp->around_len)
        return AROUND;
    return n >= MAX_AROUND ? MAX_AROUND : (unsigned)n * 2;
}

/* Maps the page, and those around it that have been accessed. */
static bool map_around(struct space *sp, struct interp_vcpu *iv, uint64_t page, bool exec)
{
    uint64_t len = (uint64_t)next_around(sp, page) * PAGE, first = page & ~(len - 1);
    struct run run = {.len = 0};

    if (!(exec ? take_code(sp, iv, page, &run) : take_data(sp, iv, page, &run)) ||
        !map_run(sp, &run))
        return false;
    sp->around_first = first;
    sp->around_len = len;
    for (uint64_t va = first; va < first + len; va += PAGE) {
        if (!can_map(sp, va) || find(sp, va))
            continue;
        if (!exec)
            take_data(sp, iv, va, &run);
        else if (has_code(iv, va))
            take_code(sp, iv, va, &run);
    }
    return map_run(sp, &run) && flush(sp);
}

bool space_fault(struct space *sp, struct interp_vcpu *iv, uint64_t va, enum mmu_access access)
{
    struct mmu *mmu = &iv->cpu->mmu;
    uint64_t page = va & MMU_PAGE_MASK;
    struct space_page *p;
    struct mmu_code code;
    uint32_t before = sp->npages;

    if (!can_map(sp, page))
        return false;
    if (sp->npages > SPACE_MAX_PAGES - MAX_AROUND && !space_clear(sp))
        return false;
    /* What the access does to the guest's tables. */
    if (access == MMU_EXEC ? mmu_fetch(mmu, true, va, &code) != MMU_OK || !code.host
                           : mmu_probe(mmu, MMU_USER, va, 1, access) != MMU_OK)
        return false;
    if (access == MMU_WRITE && !mmu_prefetch(mmu, MMU_USER, page, true))
        return false;
    sp->only_cpuid = false;
    if (!map_around(sp, iv, page, access == MMU_EXEC)) {
        sp->cpuid_refused += sp->only_cpuid;
        return false;
    }
    iv->cpu->count.direct_faults++;
    iv->cpu->count.direct_pages += sp->npages > before ? sp->npages - before : 1;
    p = find(sp, page);
    return p && (access != MMU_WRITE || may_write(p));
}

void space_look(struct space *sp, struct interp_vcpu *iv, uint64_t va, enum mmu_access access)
{
    uint64_t page = va & MMU_PAGE_MASK;

    if (can_map(sp, page) && sp->npages <= SPACE_MAX_PAGES - MAX_AROUND)
        map_around(sp, iv, page, access == MMU_EXEC);
}

/* ---- taking away ---- */

static bool take_away(struct space *sp, struct space_page *p)
{
    uint64_t va = p->va;

    forget(sp, p);
    return unmap(sp, va, PAGE);
}

static bool check_page(struct space *sp, struct mmu *mmu, uint64_t va)
{
    struct space_page *p = find(sp, va);

    return !p || holds(mmu, p) || take_away(sp, p);
}

/* Those that have `gpa`, or all if it is MMU_GONE_ALL. */
static bool check_pages(struct space *sp, struct mmu *mmu, uint64_t gpa)
{
    /* From the end: what takes the place of a page that goes has been looked at. */
    for (uint32_t i = sp->npages; i-- > 0;)
        if ((gpa == MMU_GONE_ALL || sp->page[i].gpa == gpa) && !holds(mmu, &sp->page[i]) &&
            !take_away(sp, &sp->page[i]))
            return false;
    return true;
}

bool space_check(struct space *sp, struct interp_vcpu *iv)
{
    struct mmu *mmu = &iv->cpu->mmu;
    uint64_t from = sp->seen, until = mmu->ngone;
    bool all = sp->any_stale || until - from > MMU_GONE_KEPT, ok = true;

    for (uint64_t n = from; n != until && !all; n++) {
        uint64_t what = mmu->gone[n % MMU_GONE_KEPT];

        all = what == MMU_GONE_ALL ||
              (!(what & MMU_GONE_GPA) && what >= sp->large_lo && what <= sp->large_hi);
    }
    for (uint64_t n = from; n != until && !all && ok; n++) {
        uint64_t what = mmu->gone[n % MMU_GONE_KEPT];

        ok = what & MMU_GONE_GPA ? check_pages(sp, mmu, what & ~MMU_GONE_GPA)
                                 : check_page(sp, mmu, what);
    }
    if (all)
        ok = check_pages(sp, mmu, MMU_GONE_ALL);
    /* Looking at the tables takes nothing away. */
    sp->seen = until;
    sp->any_stale = false;
    return ok && flush(sp);
}

bool space_has_code(const struct space *sp)
{
    for (uint32_t i = 0; i < sp->npages; i++)
        if (is_code(&sp->page[i]))
            return true;
    return false;
}

bool space_fill(struct space *sp, struct interp_vcpu *iv)
{
    struct mmu *mmu = &iv->cpu->mmu;
    uint32_t limit = sp->npages + MAX_FILL;
    struct run run = {.len = 0};

    for (unsigned i = 0; i < MMU_XTLB_SIZE; i++) {
        uint64_t va = mmu->exec[0][i].tag;

        if (va != MMU_NO_TAG && can_map(sp, va) && !find(sp, va))
            take_code(sp, iv, va, &run);
    }
    for (unsigned i = 0; i < MMU_TLB_SIZE && sp->npages < limit; i++) {
        uint64_t va = mmu->data[MMU_USER][i].read;

        if (va != mmu_empty_tag(i) && can_map(sp, va) && !find(sp, va))
            take_data(sp, iv, va, &run);
    }
    for (unsigned i = 0; mmu->l2 && i < MMU_L2_SIZE && sp->npages < limit; i++) {
        uint64_t va = mmu->l2[MMU_USER << MMU_L2_BITS | i].read ^ mmu->l2_key[0];

        if (!(va & ~MMU_PAGE_MASK) && can_map(sp, va) && !find(sp, va))
            take_data(sp, iv, va, &run);
    }
    return map_run(sp, &run) && flush(sp);
}

bool space_clear(struct space *sp)
{
    uint64_t end = sp->stub.base + STUB_SIZE;

    memset(sp->bucket, 0, sizeof(sp->bucket));
    memset(sp->code_bucket, 0, sizeof(sp->code_bucket));
    sp->npages = 0;
    sp->large_lo = UINT64_MAX;
    sp->large_hi = 0;
    return unmap(sp, 0, sp->stub.base) && unmap(sp, end, STUB_HIGH - end) && flush(sp);
}

static void mark_stale(struct space *sp, struct space_page *p)
{
    p->stale = sp->any_stale = true;
}

void space_written(struct space *sp, uint64_t gpa, uint64_t len)
{
    uint64_t first = gpa & MMU_PAGE_MASK, size = gpa - first + len;

    if (size > SPACE_MANY * PAGE) {
        for (uint32_t i = 0; i < sp->npages; i++)
            if (is_code(&sp->page[i]) && sp->page[i].gpa - first < size)
                mark_stale(sp, &sp->page[i]);
        return;
    }
    for (uint64_t at = first; at - first < size; at += PAGE)
        for (uint32_t i = *code_bucket_of(sp, at); i; i = sp->page[i - 1].next_code)
            if (sp->page[i - 1].gpa == at)
                mark_stale(sp, &sp->page[i - 1]);
}

/* ---- life ---- */

/* Copies entries of the top table. */
static bool read_top(struct interp_vcpu *iv, uint64_t cr3, unsigned first, unsigned n,
                     uint64_t *entry)
{
    struct core_page page;

    if (!core_mem_page(iv->vcpu->vm, cr3, &page) || !page.host)
        return false;
    for (unsigned i = 0; i < n; i++)
        mmu_copy(&entry[i], page.host + (first + i) * 8, 8);
    return true;
}

/* The entry of the top table is enough: programs have nothing so far from everything else. */
bool space_is_free(struct space *sp, struct interp_vcpu *iv)
{
    uint64_t entry;

    return read_top(iv, sp->cr3, sp->stub.base >> 39 & 511, 1, &entry) && !(entry & 1);
}

int space_open(struct space *sp, struct interp_vcpu *iv, uint64_t cr3)
{
    uint64_t top[512];

    memset(sp, 0, sizeof(*sp));
    sp->cr3 = cr3;
    sp->large_lo = UINT64_MAX;
    return read_top(iv, cr3, 0, 512, top) ? stub_create(&sp->stub, top) : EFAULT;
}

void space_kill(struct space *sp)
{
    if (sp->stub.mem)
        stub_kill(&sp->stub);
}

void space_close(struct space *sp)
{
    if (sp->stub.mem)
        stub_destroy(&sp->stub);
    free(sp->page);
    memset(sp, 0, sizeof(*sp));
}
