/* SPDX-License-Identifier: BSD-2-Clause */
/* core/doorbell.h: doorbells, for io.c and doorbell.c. */
#ifndef CORE_DOORBELL_H
#define CORE_DOORBELL_H

#include "core/io_map.h"

struct doorbell {
    struct vm *vm;
    struct core_doorbell d;
    bool in_kernel; /* too: what the software CPU writes comes here */
};

/* Sorted by address; changed with the world stopped and vm->lock held. */
struct doorbell_map {
    uint32_t n;
    struct doorbell *bell[];
};

/* A write by a guest: signals the doorbell that it means, if there is one. In guest state or with
 * vm->lock held. */
bool core_doorbell_ring(const struct doorbell_map *map, uint64_t addr, uint32_t size,
                        uint64_t value);

#endif
