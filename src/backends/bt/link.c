/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/link.c: direct jumps from block to block. */
#include "backends/bt/bt.h"

/*
 * Every jump to a place whose guest-physical address is known is in a list by that place, whether
 * there is a translation for it or not. Translations are made for one mode, and jumps stay in it.
 */

/* What is in the same page is near by: it is looked for together. */
static unsigned bucket(uint64_t gpa, uint32_t mode)
{
    uint64_t x = (gpa >> MMU_PAGE_SHIFT ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

    return (unsigned)(x >> (64 - BT_HASH_BITS)) ^ (gpa >> 4 & 0xff);
}

static void patch(struct bt *bt, uint8_t *site, const uint8_t *target)
{
    struct em e = {.to_rx = bt->rx - bt->rw};

    em_patch(&e, site, target);
}

/* Lets a jump go to a translation, or with NULL its way out. */
static void set(struct bt *bt, const struct bt_link *l, const struct bt_trans *t)
{
    if (l->way == BT_CROSS) {
        int32_t field = bt_map_field(bt, t ? t->page : &bt->page[BT_NO_PAGE]);

        memcpy(l->site - l->map, &field, 4);
    }
    bt->chains += t != NULL;
    if (t)
        patch(bt, l->site, l->way == BT_RETURN ? t->far : t->chain);
    else
        memcpy(l->site, &l->out, 4);
}

struct bt_trans *bt_link_find(struct bt *bt, uint64_t gpa, uint32_t mode)
{
    for (struct bt_trans *t = bt->trans[bucket(gpa, mode)]; t; t = t->next)
        if (t->gpa == gpa && t->mode == mode)
            return t;
    return NULL;
}

bool bt_link_returns(const struct bt *bt, uint64_t gpa, uint32_t mode)
{
    for (const struct bt_link *l = bt->links[bucket(gpa, mode)]; l; l = l->next)
        if (l->way == BT_RETURN && l->gpa == gpa && l->mode == mode)
            return true;
    return false;
}

/* Lets all jumps to `at` go to `t`. */
static void redirect(struct bt *bt, const struct bt_trans *at, const struct bt_trans *t)
{
    for (struct bt_link *l = bt->links[bucket(at->gpa, at->mode)]; l; l = l->next)
        if (l->gpa == at->gpa && l->mode == at->mode) {
            set(bt, l, t);
            bt->patched = true;
        }
}

static void insert(struct bt *bt, struct bt_link *l)
{
    struct bt_link **list = &bt->links[bucket(l->gpa, l->mode)];

    l->next = *list;
    *list = l;
    l->bound = true;
}

static void take_out(struct bt *bt, struct bt_link *link)
{
    struct bt_link **l = &bt->links[bucket(link->gpa, link->mode)];

    if (!link->bound)
        return;
    while (*l != link)
        l = &(*l)->next;
    *l = link->next;
    link->bound = false;
}

void bt_link_bind(struct bt *bt, struct bt_link *l, const struct bt_trans *t)
{
    if (l->bound && l->gpa == t->gpa)
        return;
    take_out(bt, l);
    l->gpa = t->gpa;
    insert(bt, l);
    set(bt, l, t);
    bt->patched = true;
}

void bt_link_enter(struct bt *bt, struct bt_trans *t)
{
    struct bt_trans **head = &bt->trans[bucket(t->gpa, t->mode)];

    t->next = *head;
    *head = t;
    t->older = bt->newest;
    t->newer = NULL;
    if (bt->newest)
        bt->newest->newer = t;
    bt->newest = t;
    redirect(bt, t, t);
    bt_links_enter(bt, &t->links);
}

void bt_links_enter(struct bt *bt, struct bt_links *links)
{
    for (unsigned i = 0; i < links->n; i++) {
        struct bt_link *l = &links->first[i];
        const struct bt_trans *target;

        if (l->way == BT_CROSS)
            continue;
        insert(bt, l);
        target = bt_link_find(bt, l->gpa, l->mode);
        if (target)
            set(bt, l, target);
    }
}

void bt_links_remove(struct bt *bt, struct bt_links *links)
{
    for (unsigned i = 0; i < links->n; i++)
        take_out(bt, &links->first[i]);
}

void bt_link_remove(struct bt *bt, struct bt_trans *t)
{
    struct bt_trans **p = &bt->trans[bucket(t->gpa, t->mode)];
    uint8_t *far;

    redirect(bt, t, NULL);
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    *(t->newer ? &t->newer->older : &bt->newest) = t->older;
    if (t->older)
        t->older->newer = t->newer;
    bt_links_remove(bt, &t->links);
    bt_page_put(bt, t->page);
    /* Tables of targets may still lead here. */
    far = bt->rw + (t->far - bt->rx);
    *far = 0xe9; /* JMP */
    patch(bt, far + 1, bt->stubs.fill);
    bt->patched = true;
}
