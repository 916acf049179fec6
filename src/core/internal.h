/* SPDX-License-Identifier: BSD-2-Clause */
/* core/internal.h: what the files of the core call of each other. */
#ifndef CORE_INTERNAL_H
#define CORE_INTERNAL_H

#include <stdarg.h>
#include <string.h>

#include "backends/backend.h"
#include "core/core.h"
#include "core/irqchip.h"

/* ---- error.c ---- */

/* vm_fail with the host's errno, or with the address that the failure is about. */
int core_fail_os(struct vm *vm, int code, const char *op, int os_errno, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int core_fail_gpa(struct vm *vm, int code, const char *op, uint64_t gpa, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int core_fail_rip(struct vm *vm, int code, const char *op, uint64_t rip, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Fills a struct vmm_error; vm_create has no VM to ask yet. */
void core_error_set(struct vmm_error *error, int code, int os_errno, const char *backend,
                    const char *op, const char *format, va_list ap);
/* Copies a library-made struct to a caller's, up to the size that the caller has set. */
void core_copy_out(void *caller, const void *own, uint32_t own_size);
/* Copies a caller's struct, whose first member is its size, to *own: missing members become zero.
 * VMM_E_INVAL if it is NULL or shorter than `min`, VMM_E_UNSUPPORTED for a non-zero tail. */
int core_copy_in(void *own, uint32_t own_size, const void *caller, uint32_t min);

/* ---- world.c ---- */

void core_read_lock(struct core_rwlock *lock);
void core_read_unlock(struct core_rwlock *lock);
void core_write_lock(struct core_rwlock *lock);
void core_write_unlock(struct core_rwlock *lock);
/* The vCPU that the calling thread has claimed, or NULL. */
struct vcpu *core_world_self(struct vm *vm);

/* ---- timer.c ---- */

/* Runs callbacks of timers that are due; out of guest state, no lock held. */
void core_timers_run(struct vm *vm);
/* Makes sure that some halted vCPU wakes up in time for the earliest timer. */
void core_timers_wake(struct vm *vm);
/* vm_destroy: frees the timers that nobody has destroyed. */
void core_timers_free(struct vm *vm);

/* ---- vm.c, vcpu.c ---- */

/* core_vcpu_request for every vCPU of the VM. ANY+SIG. */
void core_request_all(struct vm *vm, uint32_t bits);
void core_vcpu_free(struct vcpu *vcpu);
/* Power-on (init false) or INIT reset of a vCPU and its local APIC. `clock`: the vm_clock time at
 * which its TSC is 0. With the vCPU claimed. */
void core_vcpu_reset(struct vcpu *vcpu, bool init);
/* Claims the vCPU for an OWNER function: 0, or VMM_E_BUSY recorded as `op`'s failure. A claim of
 * the same thread nests: *nested tells core_vcpu_release to leave it. */
int core_vcpu_claim(struct vcpu *vcpu, const char *op, bool *nested);
void core_vcpu_release(struct vcpu *vcpu, bool nested);
/* Claims all vCPUs (QUIET functions), under vm->lock; VMM_E_BUSY if one is in use. */
int core_claim_all(struct vm *vm, const char *op);
void core_release_all(struct vm *vm);

/* ---- policy.c ---- */

/* The part of core_answer for MSR and CPUID exits. */
void core_policy_answer(struct vcpu *vcpu, const struct vcpu_exit *exit);

/* ---- memory.c ---- */

int core_mem_init(struct vm *vm);
/* Unmaps and frees all regions; no vCPU is left. */
void core_mem_fini(struct vm *vm);

/* ---- io.c ---- */

int core_io_init(struct vm *vm);
/* Calls the release of each registration that is left; no vCPU is left. */
void core_io_fini(struct vm *vm);
/*
 * Enters the caller's answer to an MMIO or PIO exit (vcpu->answer) in the record; `exit` NULL: the
 * caller has given none, reads are all ones. Does not change vcpu->answer.
 */
void core_io_answer(struct vcpu *vcpu, const struct vcpu_exit *exit);
/* Whether the current instruction waits for mmio_complete, which sends VCPU_REQ_DEFER. */
bool core_io_deferred(struct vcpu *vcpu);
/* Forgets the record and a deferred access: the instruction will not be restarted. OWNER. */
void core_io_drop(struct vcpu *vcpu);

/* ---- device.c ---- */

/* vm_reset: calls each reset, in reverse order of adding. */
void core_devices_reset(struct vm *vm);
/* vm_destroy: calls each stop, in reverse order of adding, and frees the devices. */
void core_devices_stop(struct vm *vm);

#endif
