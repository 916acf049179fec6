/* SPDX-License-Identifier: BSD-2-Clause */
/* core/io_map.h: MMIO and port registrations, for io.c and io_map.c. */
#ifndef CORE_IO_MAP_H
#define CORE_IO_MAP_H

#include "core/internal.h"

enum io_kind { IO_MMIO, IO_PORT };

/* Bits of io_reg.calls above the number of callbacks in flight. */
#define IO_CALLS  0x3fffffffu
#define IO_LEAVES 0x40000000u /* a thread waits until there are fewer callbacks */
#define IO_ORPHAN 0x80000000u /* unregistered by its own callback: the last one frees it */

struct io_reg {
    struct vm *vm;
    enum io_kind kind;
    uint64_t base; /* changed with the world stopped and vm->lock held */
    uint64_t len;
    uint32_t min, max; /* access sizes */
    uint32_t sizes[2]; /* reads and writes that are one call: 1, 2, 4, 8 or'ed */
    struct vmm_io_ops ops;
    void *opaque;
    _Atomic uint32_t calls; /* also a futex word */
    struct io_reg *next;    /* vm->io_list */
    /* VMM_IO_POSTED: whether the kernel collects writes, and where. */
    _Atomic uint32_t posted; /* POSTED_* (io_map.c) */
    uint64_t posted_base;    /* while it is POSTED_ON */
};

/* Sorted by address; changed with the world stopped and vm->lock held. */
struct io_map {
    uint32_t n;
    struct io_reg *reg[];
};

/* A callback that the calling thread is in; innermost first. */
struct io_call {
    struct io_reg *reg;
    struct io_call *outer;
    void **slot; /* the thread's, which points to its innermost call */
};

/* The first registration that ends behind `addr`, or NULL. In guest state or with vm->lock held. */
struct io_reg *io_map_at_or_after(const struct io_map *map, uint64_t addr);

/* Somebody waits for the calls that there were `before` the end of one. */
void io_call_awaited(struct io_reg *reg, uint32_t before);

/* Around a callback, out of guest state; io_call_begin while the registration cannot go away: in
 * guest state or with vm->lock held. */
static inline void io_call_begin(struct io_call *call, struct io_reg *reg)
{
    atomic_fetch_add(&reg->calls, 1);
    call->reg = reg;
    call->slot = os_thread_slot();
    call->outer = *call->slot;
    *call->slot = call;
}

static inline void io_call_end(struct io_call *call)
{
    struct io_reg *reg = call->reg;
    uint32_t before;

    *call->slot = call->outer;
    before = atomic_fetch_sub(&reg->calls, 1);
    if (__builtin_expect(before & (IO_ORPHAN | IO_LEAVES), 0))
        io_call_awaited(reg, before);
}

#endif
