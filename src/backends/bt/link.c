/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/bt/link.c: direct jumps from block to block. */
#include "backends/bt/bt.h"

/*
 * Every jump to a place in the same page is in a list by that place, whether there is a translation
 * for it or not. Such a jump needs no check: the page is that of the code that executes it, and
 * translations are made for one mode.
 */

static unsigned bucket(uint64_t gpa, uint32_t mode)
{
    uint64_t x = (gpa ^ (uint64_t)mode << 52) * 0x9e3779b97f4a7c15ull;

    return (unsigned)(x >> (64 - BT_HASH_BITS));
}

static void set(struct bt *bt, const struct bt_link *l, const uint8_t *target)
{
    struct em e = {.to_rx = bt->rx - bt->rw};

    em_patch(&e, l->site, target);
}

static const uint8_t *find(struct bt *bt, uint64_t gpa, uint32_t mode)
{
    for (struct bt_trans *t = bt->trans[bucket(gpa, mode)]; t; t = t->next)
        if (t->gpa == gpa && t->mode == mode)
            return t->chain;
    return NULL;
}

/* Lets all jumps to a block go to `target`; NULL: to their way out. */
static void redirect(struct bt *bt, const struct bt_trans *t, const uint8_t *target)
{
    for (struct bt_link *l = bt->links[bucket(t->gpa, t->mode)]; l; l = l->next)
        if (l->gpa == t->gpa && l->mode == t->mode) {
            set(bt, l, target ? target : l->out);
            bt->patched = true;
        }
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
    redirect(bt, t, t->chain);
    for (unsigned i = 0; i < t->nlinks; i++) {
        struct bt_link *l = &t->link[i], **list = &bt->links[bucket(l->gpa, l->mode)];
        const uint8_t *target = find(bt, l->gpa, l->mode);

        l->next = *list;
        *list = l;
        if (target)
            set(bt, l, target);
    }
}

void bt_link_remove(struct bt *bt, struct bt_trans *t)
{
    struct bt_trans **p = &bt->trans[bucket(t->gpa, t->mode)];

    redirect(bt, t, NULL);
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    *(t->newer ? &t->newer->older : &bt->newest) = t->older;
    if (t->older)
        t->older->newer = t->newer;
    for (unsigned i = 0; i < t->nlinks; i++) {
        struct bt_link **l = &bt->links[bucket(t->link[i].gpa, t->link[i].mode)];

        while (*l != &t->link[i])
            l = &(*l)->next;
        *l = t->link[i].next;
    }
}
