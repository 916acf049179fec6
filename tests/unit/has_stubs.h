/* SPDX-License-Identifier: BSD-2-Clause */
/* has_stubs.h: whether the host lets user code be executed directly. */
#ifndef HAS_STUBS_H
#define HAS_STUBS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "backends/shadow/stub.h"

/* If not, prints why the test is skipped. */
static inline bool has_stubs(void)
{
    struct stub s;
    int err = stub_create(&s, NULL);

    if (err) {
        printf("skipped, no direct execution here: %s\n", strerror(err));
        return false;
    }
    stub_kill(&s);
    stub_destroy(&s);
    return true;
}

#endif
