/* SPDX-License-Identifier: BSD-2-Clause */
/* bt_fake.h: a software CPU of x86_fake.h with the translator, which translates all code at once.
 */
#ifndef TEST_BT_FAKE_H
#define TEST_BT_FAKE_H

#include "backends/bt/bt.h"
#include "x86_fake.h"

static inline struct fake *translating(void)
{
    struct fake *f = fake_new();

    ck_assert_int_eq(bt_attach(f->cpu, 1, BT_ARENA), 0);
    fake_long64(f);
    return f;
}

/* Everything is a region after a few rounds. */
static inline struct fake *soon_regions(void)
{
    struct fake *f = translating();
    struct bt *bt = f->cpu->tier_state;

    bt->hotter = 4;
    for (unsigned i = 0; i < X86_TIER_HEAT; i++)
        f->cpu->tier_heat[i] = bt->hotter;
    fake_put(f, FAKE_TSS + 4, 8, FAKE_STACK0);
    return f;
}

static inline int again(struct fake *f)
{
    f->cpu->rip = FAKE_TEXT;
    return fake_go(f);
}

static inline void finish(struct fake *f)
{
    bt_detach(f->cpu);
    fake_free(f);
}

#endif
