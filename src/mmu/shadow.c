/* SPDX-License-Identifier: BSD-2-Clause */
/* mmu/shadow.c: shadow paging: loading of control registers, and page faults. */
#include "mmu/shadow.h"

#include "mmu/shadow_impl.h"

#define LARGE_SIZE 0x200000ull

/* ---- making and loading ---- */

_Static_assert(sizeof(struct shadow) <= MMU_PAGE_SIZE, "a shadow is one page");

struct shadow *shadow_new(const struct shadow_config *config)
{
    struct shadow *sh;

    if (!config->max_spaces || config->max_nodes < SHADOW_MIN_NODES ||
        config->max_maps < SHADOW_MIN_MAPS)
        return NULL;
    sh = config->pages->alloc(config->pages->ctx, false);
    if (!sh)
        return NULL;
    sh->cfg = *config;
    if (!shadow_pools_init(sh)) {
        shadow_free(sh);
        return NULL;
    }
    return sh;
}

void shadow_free(struct shadow *sh)
{
    if (!sh)
        return;
    for (struct shadow_vcpu *sv = sh->vcpus; sv; sv = sv->next)
        sv->space = NULL;
    sh->cfg.watch = NULL; /* nobody looks any more */
    shadow_pools_free(sh);
    sh->cfg.pages->free(sh->cfg.pages->ctx, sh);
}

void shadow_vcpu_add(struct shadow *sh, struct shadow_vcpu *sv, struct mmu *mmu)
{
    *sv = (struct shadow_vcpu){.shadow = sh, .mmu = mmu, .next = sh->vcpus};
    sh->vcpus = sv;
    sh->env = mmu->env;
}

static void set_space(struct shadow_vcpu *sv, struct shadow_space *space)
{
    if (space) {
        space->current++;
        space->used = ++sv->shadow->stamp;
        shadow_node_touch(sv->shadow, space->root);
    }
    if (sv->space)
        sv->space->current--;
    sv->space = space;
}

void shadow_vcpu_remove(struct shadow_vcpu *sv)
{
    set_space(sv, NULL);
    for (struct shadow_vcpu **at = &sv->shadow->vcpus; *at; at = &(*at)->next)
        if (*at == sv) {
            *at = sv->next;
            return;
        }
}

/* All that decides what the guest's tables mean. */
static void role_of(const struct shadow *sh, const struct mmu *mmu, struct shadow_role *role)
{
    memset(role, 0, sizeof(*role));
    role->bits = mmu->paging;
    if (mmu->paging == MMU_PAGING_NONE)
        return;
    role->bits |= (uint32_t)mmu->wp << 2 | (uint32_t)mmu->nx << 3 | (uint32_t)mmu->smep << 4 |
                  (uint32_t)mmu->smap << 5 | (uint32_t)mmu->pse << 6 | (uint32_t)mmu->pke << 7;
    if (mmu->paging == MMU_PAGING_PAE)
        memcpy(role->pdpte, mmu->pdpte, sizeof(role->pdpte));
    else
        role->root = mmu->root;
    if (mmu->paging == MMU_PAGING_4LEVEL)
        role->bits |= 1u << 31;
    if (mmu->pke && !(sh->cfg.sink->features & SINK_PKEY))
        role->pkru = mmu->pkru;
}

static bool same_role(const struct shadow_role *a, const struct shadow_role *b)
{
    return a->root == b->root && a->bits == b->bits && a->pkru == b->pkru &&
           ((a->bits & 3) != MMU_PAGING_PAE || !memcmp(a->pdpte, b->pdpte, sizeof(a->pdpte)));
}

static struct shadow_space *space_find(struct shadow *sh, const struct shadow_role *role)
{
    struct shadow_space **slot = shadow_role_slot(sh, role);

    if (*slot && same_role(&(*slot)->role, role))
        return *slot;
    for (struct link *l = sh->all_spaces; l; l = l->next) {
        struct shadow_space *s = LINKED(struct shadow_space, all, l);

        if (same_role(&s->role, role)) {
            *slot = s;
            return s;
        }
    }
    return NULL;
}

/* The space there is has the sink's consent to SMEP and SMAP. */
bool shadow_load_quick(struct shadow_vcpu *sv, bool move)
{
    struct shadow *sh = sv->shadow;
    struct shadow_space *space = sv->space;
    struct shadow_role role;

    if (!space || sh->unsynced || sh->stale)
        return false;
    role_of(sh, sv->mmu, &role);
    if (!same_role(&space->role, &role)) {
        space = move ? space_find(sh, &role) : NULL;
        if (!space)
            return false;
        set_space(sv, space);
    }
    if (move) {
        sh->counts.loads++;
        sh->counts.found++;
    }
    return true;
}

enum shadow_result shadow_load(struct shadow_vcpu *sv)
{
    struct shadow *sh = sv->shadow;
    unsigned features = sh->cfg.sink->features;
    struct shadow_space *space;
    struct shadow_role role;

    sh->counts.loads++;
    if ((sv->mmu->smep && !(features & SINK_SMEP)) || (sv->mmu->smap && !(features & SINK_SMAP))) {
        set_space(sv, NULL);
        return SHADOW_UNSUP;
    }
    role_of(sh, sv->mmu, &role);
    space = space_find(sh, &role);
    if (space)
        sh->counts.found++;
    else
        set_space(sv, NULL); /* may go for the new one */
    if (!space)
        space = shadow_space_new(sh, &role);
    set_space(sv, space);
    shadow_resync(sh, space);
    return space ? SHADOW_RETRY : SHADOW_NOMEM;
}

void *shadow_sink_space(const struct shadow_vcpu *sv)
{
    return sv->space ? sv->space->sink : NULL;
}

const struct shadow_counts *shadow_counts(const struct shadow *sh)
{
    return &sh->counts;
}

/* ---- faults ---- */

/* One fault on its way. */
struct fault {
    struct shadow *sh;
    struct mmu *mmu;
    struct shadow_space *space;
    uint64_t linear;
    unsigned idx;
    enum mmu_access access;
    struct mmu_walk walk;
    struct mmu_trace trace;
    struct mmu_page page;
    unsigned rights;
    uint8_t pkey;
    struct shadow_node *path[6]; /* pinned; the last one gets the map */
    unsigned npath;
};

/* Whether stores to the page need not be seen (as in mmu/access.c). */
static bool may_write_unseen(const struct fault *f)
{
    const struct mmu_page *page = &f->page;
    uint64_t code = atomic_load_explicit(page->code, memory_order_acquire);

    /* Tables of the guest are looked at apart: map_page. */
    if (!page->writable || (!f->sh->cfg.code_compared && (code & ~MMU_CODE_TABLE)))
        return false;
    return !page->dirty || f->access == MMU_WRITE ||
           atomic_load_explicit(page->dirty, memory_order_relaxed);
}

/* Protection keys; for a sink without them the rights for the PKRU there is. 0: no mapping. */
static unsigned apply_pkey(struct fault *f, unsigned rights)
{
    uint32_t pk = f->mmu->pkru >> (f->walk.pkey * 2);

    if (!f->mmu->pke || !f->walk.user)
        return rights;
    if (f->sh->cfg.sink->features & SINK_PKEY) {
        /* What CR0.WP = 0 lets supervisor mode write, the CPU with its WP = 1 does not. */
        if ((pk & 2) && f->access == MMU_WRITE)
            return 0;
        f->pkey = f->walk.pkey;
        return rights;
    }
    if (pk & 1) /* may be fetched from only: no mapping is like that */
        return 0;
    return pk & 2 ? rights & ~SINK_W : rights;
}

/*
 * The rights of the mapping. With CR0.WP clear supervisor mode may write what user mode may only
 * read: the page is mapped for one of them at a time. False: no mapping lets this access through
 * without letting others through that must fault.
 */
static bool find_rights(struct fault *f)
{
    const struct mmu_walk *w = &f->walk;
    const struct mmu *mmu = f->mmu;
    bool user = f->idx == MMU_USER || f->idx == MMU_USER_ALIGN;
    bool write = w->dirty && may_write_unseen(f);
    bool none, supervisor_only = f->access == MMU_WRITE && !w->writable && w->user;

    f->rights = w->user ? SINK_U : 0;
    if (!w->nx && f->page.executable)
        f->rights |= SINK_X;
    if (supervisor_only) {
        if (mmu->smap || mmu->pke)
            return false;
        f->rights = (f->rights & (mmu->smep ? 0 : SINK_X)) | (write ? SINK_W : 0);
    } else if (write && (w->writable || (!mmu->wp && !w->user))) {
        f->rights |= SINK_W;
    }
    none = mmu->pke && w->user && !apply_pkey(f, SINK_U);
    f->rights = apply_pkey(f, f->rights);
    if (none || (f->access == MMU_WRITE && !(f->rights & SINK_W)))
        return false;
    return (f->access != MMU_EXEC || (f->rights & SINK_X)) && (!user || (f->rights & SINK_U));
}

/* The guest's entry of `level` that leads to `linear`. */
static uint64_t value_at(const struct fault *f, unsigned level)
{
    if ((f->space->role.bits & 3) == MMU_PAGING_PAE && level == 3)
        return f->space->role.pdpte[f->linear >> 30 & 3];
    return f->trace.e[level - 1].value;
}

static void pin(struct fault *f, struct shadow_node *n)
{
    n->pinned = true;
    shadow_node_touch(f->sh, n); /* not the oldest while what is below is made */
    f->path[f->npath++] = n;
}

/* Finds or makes the nodes of the walk. False: no memory. */
static bool make_path(struct fault *f)
{
    struct shadow_node *n = f->space->root;

    pin(f, n);
    for (unsigned level = n->level; !n->direct && level > 1 && level >= f->trace.leaf; level--) {
        bool direct = level == f->trace.leaf;
        struct shadow_node *c = shadow_node_find(f->sh, n, f->linear);

        if (c && !shadow_same(&c->value, value_at(f, level))) {
            shadow_node_drop(f->sh, c);
            c = NULL;
        }
        if (!c) {
            c = shadow_node_new(f->sh, n, level - 1, f->linear, direct,
                                direct ? 0 : f->trace.e[level - 2].gpa);
            if (!c)
                return false;
            c->value = value_at(f, level);
        }
        pin(f, c);
        n = c;
    }
    return true;
}

static void leave_path(struct fault *f)
{
    while (f->npath) {
        struct shadow_node *n = f->path[--f->npath];

        n->pinned = false;
        shadow_node_touch(f->sh, n);
    }
}

/* Whether a page of 2 MiB can be mapped: the guest's is as large, so is the host's, no guest table
 * is in it, and none of its pages is mapped by itself. */
static bool large_allowed(struct fault *f, struct shadow_node *n)
{
    uint64_t gpa = f->walk.gpa & ~(LARGE_SIZE - 1), linear = f->linear & ~(LARGE_SIZE - 1);
    struct shadow *sh = f->sh;

    if (!n->direct || !(sh->cfg.sink->features & SINK_LARGE) || !sh->cfg.large)
        return false;
    if (f->trace.leaf && f->walk.large_size < LARGE_SIZE)
        return false;
    if (!sh->cfg.large(sh->cfg.ctx, gpa))
        return false;
    for (unsigned i = 0; i < 512; i++)
        if (shadow_table_find(sh, gpa + i * MMU_PAGE_SIZE) ||
            shadow_map_find(sh, n, linear + i * MMU_PAGE_SIZE, false))
            return false;
    return true;
}

/* The map for the page, new or as it was; whatever else is at its place goes. */
static struct shadow_map *get_map(struct fault *f, struct shadow_node *n)
{
    struct shadow_map *m = shadow_map_find(f->sh, n, f->linear, false);
    struct shadow_map *big = n->direct ? shadow_map_find(f->sh, n, f->linear, true) : NULL;
    bool large = !m && large_allowed(f, n);
    uint64_t mask = large ? ~(LARGE_SIZE - 1) : MMU_PAGE_MASK;

    if (big && (!large || big->gpa != (f->walk.gpa & mask))) {
        shadow_map_drop(f->sh, big);
        big = NULL;
    }
    if (big)
        return big;
    if (m && m->gpa == f->walk.gpa)
        return m;
    if (m)
        shadow_map_drop(f->sh, m);
    return shadow_map_new(f->sh, n, f->linear & mask, f->walk.gpa & mask, large);
}

/* All maps of the node but one; false: it is the only one. */
static bool drop_others(struct shadow *sh, struct shadow_map *m)
{
    struct link *l, *next;
    bool any = false;

    for (l = m->node->maps; l; l = next) {
        next = l->next;
        if (l != &m->in_node) {
            shadow_map_drop(sh, LINKED(struct shadow_map, in_node, l));
            any = true;
        }
    }
    return any;
}

static bool done_map(const struct fault *f, struct shadow_map *m)
{
    m->rights = (uint8_t)f->rights;
    m->pkey = f->pkey;
    m->mapped = true;
    f->sh->counts.maps++;
    return true;
}

/* Puts the map into the sink; makes room there if that is needed. */
static bool put_map(struct fault *f, struct shadow_map *m)
{
    struct shadow *sh = f->sh;
    uint64_t size = m->large ? LARGE_SIZE : MMU_PAGE_SIZE;
    const struct sink_page page = {.linear = m->linear,
                                   .gpa = m->gpa,
                                   .host = f->page.host - (f->walk.gpa & (size - 1)),
                                   .size = size,
                                   .rights = f->rights,
                                   .pkey = f->pkey};

    if (m->rights & ~f->rights || m->pkey != f->pkey)
        sh->stale = true;
    while (!sh->cfg.sink->map(sh->cfg.sink_ctx, f->space->sink, &page)) {
        bool more = shadow_evict(sh) || drop_others(sh, m);

        sh->stale = true; /* what was made in vain goes with a flush, too */
        shadow_flush(sh);
        if (!more)
            return sh->cfg.sink->map(sh->cfg.sink_ctx, f->space->sink, &page) && done_map(f, m);
    }
    return done_map(f, m);
}

/* Maps what the walk has found. */
static enum shadow_result map_page(struct fault *f)
{
    struct shadow_table *t;
    struct shadow_node *n;
    struct shadow_map *m;

    if (!make_path(f))
        return SHADOW_NOMEM;
    n = f->path[f->npath - 1];
    m = get_map(f, n);
    if (!m)
        return SHADOW_NOMEM;
    m->value = n->direct ? 0 : value_at(f, 1);
    /* After the path, which may have made this page a table in sync. */
    t = shadow_table_find(f->sh, f->walk.gpa);
    if (t && f->access == MMU_WRITE)
        shadow_unsync(f->sh, t);
    if (t && !t->unsync)
        f->rights &= ~SINK_W;
    if (put_map(f, m))
        return SHADOW_RETRY;
    shadow_map_drop(f->sh, m);
    return SHADOW_NOMEM;
}

static void drop_linear(struct fault *f)
{
    struct shadow_map *m = shadow_lookup(f->sh, f->space, f->linear);

    if (m)
        shadow_map_drop(f->sh, m);
}

/*
 * With SMAP and RFLAGS.AC the fault does not tell whether the access was explicit, which may touch
 * user pages, or implicit (to a descriptor), which may not. Where that matters the interpreter,
 * which knows, does the instruction: when the page is mapped and an explicit access would not have
 * faulted, and before a dirty bit is set.
 */
static bool is_ambiguous(struct fault *f)
{
    struct shadow_map *m;

    if (f->idx != MMU_KERNEL_AC || !f->mmu->smap || f->access == MMU_EXEC)
        return false;
    m = shadow_lookup(f->sh, f->space, f->linear);
    if (m && (m->rights & SINK_U) && (f->access == MMU_READ || (m->rights & SINK_W)))
        return true;
    return f->access == MMU_WRITE &&
           mmu_walk_trace(f->mmu, f->idx, f->linear, f->access, false, &f->walk, &f->trace) ==
               MMU_OK &&
           f->walk.user && !f->walk.dirty;
}

static enum shadow_result fault(struct fault *f, uint64_t *gpa)
{
    if (is_ambiguous(f))
        return SHADOW_EMULATE;
    if (mmu_walk_trace(f->mmu, f->idx, f->linear, f->access, true, &f->walk, &f->trace) != MMU_OK) {
        drop_linear(f); /* SDM Vol. 3A 4.10.4.1: a #PF invalidates, too */
        if (f->idx == MMU_KERNEL_AC && f->mmu->smap && (f->mmu->fault_error & MMU_PF_PK))
            return SHADOW_EMULATE; /* an implicit access would fault for another reason */
        f->sh->counts.injected++;
        return SHADOW_PF;
    }
    if (!f->mmu->env->page(f->mmu->env->ctx, f->walk.gpa, &f->page)) {
        drop_linear(f);
        *gpa = f->walk.gpa | (f->linear & ~MMU_PAGE_MASK);
        return SHADOW_MMIO;
    }
    if (!find_rights(f)) {
        drop_linear(f);
        return SHADOW_EMULATE;
    }
    if (f->access == MMU_WRITE && f->page.dirty)
        atomic_store_explicit(f->page.dirty, 1, memory_order_relaxed);
    return map_page(f);
}

enum shadow_result shadow_fault(struct shadow_vcpu *sv, uint64_t linear, unsigned idx,
                                enum mmu_access access, uint64_t *gpa)
{
    struct fault f = {.sh = sv->shadow, .mmu = sv->mmu, .linear = linear, .idx = idx};
    enum shadow_result r;

    f.access = access;
    f.sh->counts.faults++;
    if (!sv->space) {
        r = shadow_load(sv);
        if (r != SHADOW_RETRY)
            return r;
    }
    f.space = sv->space;
    r = fault(&f, gpa);
    leave_path(&f);
    shadow_flush(f.sh);
    return r;
}
