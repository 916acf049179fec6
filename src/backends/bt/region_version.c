/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/region_version.c: which version of a block is entered. */
#include "backends/bt/region.h"

/*
 * A version is for one state of flags and holds. When a block has many, states that are new enter
 * one that knows less: with the flags in cc, and what is held there; or one that begins with its
 * own looks; or, if one of those has failed, one without any.
 */

static const struct region_state in_cc = {.in_cc = true};

static bool same_state(const struct region_state *a, const struct region_state *b)
{
    return a->in_host == b->in_host && a->in_cc == b->in_cc && a->recipe.len == b->recipe.len &&
           !memcmp(a->recipe.code, b->recipe.code, a->recipe.len) &&
           !memcmp(a->hold, b->hold, sizeof(a->hold));
}

/* What of a state matters to a block. */
static struct region_state reduce(const struct region *r, const struct region_block *to,
                                  struct region_state s)
{
    region_reduce_holds(r, to, s.hold);
    if (!to->live) {
        s.in_host = false;
        s.in_cc = true;
    }
    if (!to->reads_first && (s.in_cc || s.recipe.len))
        s.in_host = false;
    if (s.in_cc)
        s.recipe.len = 0;
    return s;
}

static struct region_version *find_version(struct region_block *to, const struct region_state *s)
{
    for (unsigned i = 0; i < to->nversions; i++)
        if (same_state(&to->version[i].state, s))
            return &to->version[i];
    return NULL;
}

/* Versions that differ by the flags only. */
static unsigned same_holds(const struct region_block *to, const struct region_state *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < to->nversions; i++)
        n += !memcmp(to->version[i].state.hold, s->hold, sizeof(s->hold));
    return n;
}

/* Whether a version that knows `v` of the flags and holds may be entered with `s`: with the flags
 * in cc, and what is held there. What is denied stays so where there would be a look. */
static bool serves(const struct region_block *to, const struct region_state *v,
                   const struct region_state *s, unsigned *held)
{
    *held = 0;
    if (!v->in_cc || v->in_host)
        return false;
    for (unsigned k = 0; k < GEN_HOLDS; k++) {
        bool same = !memcmp(&v->hold[k], &s->hold[k], sizeof(s->hold[k]));

        if (!same && (v->hold[k].status != GEN_UNKNOWN ||
                      (s->hold[k].status == GEN_DENIED && region_wants(&to->use[k]))))
            return false;
        *held += same && s->hold[k].status == GEN_HELD;
    }
    return true;
}

/* The version that makes most of what is held; NULL: there is none. */
static struct region_version *find_other(struct region_block *to, const struct region_state *s)
{
    struct region_version *best = NULL;
    unsigned most = 0;

    for (unsigned i = 0; i < to->nversions; i++) {
        unsigned held;

        if (!serves(to, &to->version[i].state, s, &held) || (best && held <= most))
            continue;
        best = &to->version[i];
        most = held;
    }
    return best;
}

/* What those two versions know that come last. */
static struct region_state take_all(const struct region *r, const struct region_block *to,
                                    const struct region_state *s)
{
    struct region_state all = in_cc;

    memcpy(all.hold, s->hold, sizeof(all.hold));
    if (!region_forget_holds(r, to, all.hold))
        region_deny_holds(r, to, all.hold);
    return reduce(r, to, all);
}

struct region_version *region_get_version(const struct region *r, struct region_block *to,
                                          struct region_state s)
{
    struct region_version *v;

    s = reduce(r, to, s);
    v = find_version(to, &s);
    if (v)
        return v;
    if (same_holds(to, &s) >= REGION_FLAGS) {
        struct region_state other = in_cc;

        memcpy(other.hold, s.hold, sizeof(s.hold));
        s = other;
        v = find_version(to, &s);
        if (v)
            return v;
    }
    if (to->nversions >= REGION_VERSIONS) {
        v = find_other(to, &s);
        if (v)
            return v;
        s = take_all(r, to, &s);
        v = find_version(to, &s);
        if (v)
            return v;
    }
    v = &to->version[to->nversions++];
    *v = (struct region_version){.state = s};
    return v;
}
