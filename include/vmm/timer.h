/* SPDX-License-Identifier: BSD-2-Clause */
/* vmm/timer.h: timers in guest time, for device models. */
#ifndef VMM_TIMER_H
#define VMM_TIMER_H

#include <vmm/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vmm_timer;

/*
 * Timers run on vCPU threads: a vCPU that executes guest code looks at the clock often (interp:
 * every 8192 instructions or sooner), a halted one sleeps until the earliest deadline. No thread is
 * created, and nothing fires while no vCPU is inside vcpu_run. `fire` gets the deadline that was
 * set; it runs with no library lock held and may set the timer again.
 */
int vm_timer_create(struct vm *vm, void (*fire)(void *opaque, uint64_t deadline), void *opaque,
                    struct vmm_timer **out); /* ANY */

/* Fires once when vm_clock reaches `deadline` (ns); replaces an earlier deadline. ANY. */
void vm_timer_set(struct vmm_timer *timer, uint64_t deadline);

/* After it returns, `fire` does not start until the timer is set again; one that is
 * under way on another thread may still be running. ANY. */
void vm_timer_cancel(struct vmm_timer *timer);

/* Cancels, waits for a running `fire` (except from inside it) and frees. NULL is allowed. ANY. */
void vm_timer_destroy(struct vmm_timer *timer);

#ifdef __cplusplus
}
#endif
#endif
