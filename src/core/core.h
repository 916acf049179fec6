/* SPDX-License-Identifier: BSD-2-Clause */
/* core/core.h: the VM and vCPU objects, and what backends and tests may call of the core. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "core/os.h"
#include <vmm/debug.h>
#include <vmm/device.h>
#include <vmm/memory.h>

/*
 * Locks, in the order in which they may be taken:
 *   world (stop the vCPUs) -> vm->lock (lists of vCPUs, regions, registrations, timers, devices)
 *   -> a device's own lock -> irqchip locks.
 * No lock is held while a callback of the user runs.
 *
 * A vCPU thread is "in guest" while the backend may use guest memory pointers and I/O registrations
 * without a reference; it leaves that state for callbacks, waits and exits. Whoever changes the
 * memory map or the I/O map stops the world: it asks all vCPUs to leave the guest state and waits
 * until they have; core_guest_enter blocks until the world goes on.
 */

/* Request bits of a vCPU: why it must come to core/vcpu.c at the next block edge. */
#define VCPU_REQ_KICK  1u
#define VCPU_REQ_STOP  2u
#define VCPU_REQ_PAUSE 4u
#define VCPU_REQ_WORLD 8u
#define VCPU_REQ_EXIT  16u
#define VCPU_REQ_INTR  32u
#define VCPU_REQ_NMI   64u
#define VCPU_REQ_INIT  128u
#define VCPU_REQ_SIPI  256u
#define VCPU_REQ_TIMER 512u
#define VCPU_REQ_DEFER 1024u

/* Sets request bits, makes the backend leave guest code and wakes the vCPU's thread. ANY+SIG. */
void core_vcpu_request(struct vcpu *vcpu, uint32_t bits);

/* Results of accesses that a backend makes on behalf of an instruction. */
#define CORE_IO_OK 0
#define CORE_IO_ABORT                                                                              \
    1                /* leave the instruction without effect and return from backend->run:         \
                        vcpu->exit is filled, or a request waits */
#define CORE_IO_GP 2 /* MSR accesses: raise #GP(0) */

/*
 * One access by the instruction `serial` (a number that is the same when the same instruction is
 * executed again after an abort, and differs from its predecessors'). Accesses that were already
 * made before the abort are answered from the record, so that each takes effect exactly once.
 * `size` is 1, 2, 4 or 8 (ports: 1, 2, 4); `vcpu` NULL: from no CPU, never aborts (NOBODY instead
 * of EXIT and DEFER).
 */
int core_mmio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint64_t gpa, uint32_t size,
                     bool write, uint64_t *value);
int core_pio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint16_t port, uint32_t size,
                    bool write, uint64_t *value);

/* MSRs that are not CPU state, and the policy: CORE_IO_*. `handled` false: the CPU's own. */
int core_msr_access(struct vcpu *vcpu, uint64_t serial, uint32_t index, bool write, uint64_t *value,
                    bool *handled);
/* CPUID by the vCPU's table; `out` = eax, ebx, ecx, edx. Dynamic bits are filled by the caller. */
int core_cpuid(struct vcpu *vcpu, uint64_t serial, uint32_t leaf, uint32_t subleaf,
               uint32_t out[4]);

/* Interrupts, as lapic_intr and lapic_ack, with vcpu_inject's queue in front. */
bool core_intr_pending(struct vcpu *vcpu);
int core_intr_ack(struct vcpu *vcpu);

/* Runs timers that are due; a backend calls it every few microseconds of guest execution.
 * Leaves the guest state while callbacks run. */
void core_poll_timers(struct vcpu *vcpu);

/* A page of guest memory as the MMU wants it. */
struct core_page {
    uint8_t *host;          /* NULL: not memory */
    uint32_t prot;          /* VMM_MEM_* */
    _Atomic uint64_t *code; /* bit n: vCPU n has decoded code of this page */
    _Atomic uint8_t *dirty; /* set by whoever writes, once dirty tracking is on; may be NULL */
};
/* Looks a page up; `gpa` need not be aligned. In guest state or with the world stopped. */
bool core_mem_page(struct vm *vm, uint64_t gpa, struct core_page *page);

/*
 * Guest state and stopping the world. core_world_stop returns when no other vCPU is in
 * guest state (the caller's own vCPU, if the calling thread runs one, may be in it or not).
 * Stops of several threads queue up; it does not nest.
 */
void core_guest_enter(struct vcpu *vcpu);
void core_guest_leave(struct vcpu *vcpu);
void core_world_stop(struct vm *vm);
void core_world_go(struct vm *vm);

#endif
