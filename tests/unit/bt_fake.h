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

static inline void finish(struct fake *f)
{
    bt_detach(f->cpu);
    fake_free(f);
}

#endif
