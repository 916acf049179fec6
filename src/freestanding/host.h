/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/host.h: the host that vmm_host_init was given. */
#ifndef FREESTANDING_HOST_H
#define FREESTANDING_HOST_H

#include <stdatomic.h>
#include <stdbool.h>

#include <vmm/host.h>

/* There is one host, so this is the only state that VMs share, with the heap. */
extern const struct vmm_host_ops *vmm_host;

/* A lock for some instructions, with the thread kept on its CPU. */
struct spin {
    atomic_flag held;
};
void spin_lock(struct spin *s);
void spin_unlock(struct spin *s);

/* Another thread of the host may run now. */
void host_yield(void);

#endif
