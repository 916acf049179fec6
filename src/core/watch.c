/* SPDX-License-Identifier: BSD-2-Clause */
/* core/watch.c: the thread of a VM that waits for descriptors. */
#include "core/internal.h"

int core_watch_add(struct vm *vm, const char *op, int fd, void (*ready)(void *opaque), void *opaque,
                   struct core_watch **out)
{
    (void)op, (void)fd, (void)ready, (void)opaque, (void)out;
    return vm ? VMM_E_UNSUPPORTED : VMM_E_INVAL;
}

void core_watch_remove(struct core_watch *watch)
{
    (void)watch;
}

void core_watcher_fini(struct vm *vm)
{
    (void)vm;
}
