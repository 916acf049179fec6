/* SPDX-License-Identifier: BSD-2-Clause */
/* core/internal.h: what the files of the core call of each other. */
#ifndef CORE_INTERNAL_H
#define CORE_INTERNAL_H

#include <stdarg.h>
#include <string.h>

#include "backends/backend.h"
#include "core/core.h"

/* ---- error.c ---- */

/* vm_fail with the host's errno, or with the address that the failure is about. */
int core_fail_os(struct vm *vm, int code, const char *op, int os_errno, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
int core_fail_gpa(struct vm *vm, int code, const char *op, uint64_t gpa, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
/* Fills a struct vmm_error; vm_create has no VM to ask yet. */
void core_error_set(struct vmm_error *error, int code, int os_errno, const char *backend,
                    const char *op, const char *format, va_list ap);
/* Copies a library-made struct to a caller's, up to the size that the caller has set. */
void core_copy_out(void *caller, const void *own, uint32_t own_size);
/* Larger sizes of a caller's struct are no version of it but garbage. */
#define CORE_STRUCT_MAX 65536u
/* Copies a caller's struct, whose first member is its size, to *own: missing members become zero.
 * VMM_E_INVAL if it is NULL, shorter than `min` or longer than CORE_STRUCT_MAX, VMM_E_UNSUPPORTED
 * for a non-zero tail. */
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

/* ---- clock.c ---- */

/* vm->paused: vCPUs hold while it is not 0. */
#define PAUSE_NONE    0u
#define PAUSE_HOLDING 1u /* vm_pause waits for the vCPUs; the clock goes on */
#define PAUSE_CHANGE  2u /* the clock is being stopped or started: readers wait */
#define PAUSE_ON      3u /* the clock stands at vm->clock_paused */

void core_clock_init(struct vm *vm);
/* The PAUSE_HOLDING -> PAUSE_ON step of vm_pause, and PAUSE_ON -> PAUSE_NONE: false if it was not
 * on. */
void core_clock_stop(struct vm *vm);
bool core_clock_start(struct vm *vm);
/* The os_now time of a vm_clock time, while the clock runs; UINT64_MAX for none. */
uint64_t core_clock_to_os(struct vm *vm, uint64_t clock);
/* Power-on reset of the VM, and then of the TSC of one vCPU, to agree with the others. */
void core_tsc_start(struct vm *vm);
void core_tsc_reset(struct vcpu *vcpu);
/* Guest writes of IA32_TSC and IA32_TSC_ADJUST, which move each other (SDM Vol. 3B 18.17.3). */
void core_tsc_write(struct vcpu *vcpu, uint64_t value);
void core_tsc_write_adjust(struct vcpu *vcpu, uint64_t value);

/* ---- vcpu.c ---- */

/* vcpu->where */
#define VCPU_OUT  0u /* not inside vcpu_run */
#define VCPU_RUN  1u /* inside: guest code, callbacks, the core */
#define VCPU_WAIT 2u /* inside, asleep on `requests`: nothing runs on its thread */

/* Stores vcpu->where and tells vm_pause. */
static inline void core_vcpu_where(struct vcpu *v, uint32_t where)
{
    atomic_store(&v->where, where);
    if (where != VCPU_RUN && atomic_load(&v->vm->paused))
        os_wake(&v->where);
}
/* core_vcpu_request for every vCPU of the VM. ANY+SIG. */
void core_request_all(struct vm *vm, uint32_t bits);
/* Claims the vCPU for an OWNER function: 0, or VMM_E_BUSY recorded as `op`'s failure. A claim by
 * the thread that has it nests: *nested tells core_vcpu_release to leave it. */
int core_vcpu_claim(struct vcpu *vcpu, const char *op, bool *nested);
void core_vcpu_release(struct vcpu *vcpu, bool nested);
/* Claims all vCPUs for a QUIET function; VMM_E_BUSY if one is in use, also by this thread. */
int core_claim_all(struct vm *vm, const char *op);
void core_release_all(struct vm *vm);
/* Power-on (init false) or INIT reset of a vCPU and, with INIT, its local APIC. Claimed. */
void core_vcpu_reset(struct vcpu *vcpu, bool init);
/* Takes everything of a vCPU down but the slot's memory. Claimed or VM-wide quiet. */
void core_vcpu_fini(struct vcpu *vcpu);

/* ---- regs.c ---- */

/* Some groups of registers, without checks of the caller. Claimed, or the owner's thread. 0 or the
 * engine's VMM_E_* (vm_fail'ed), the groups are 0 then. */
int core_regs_get(struct vcpu *vcpu, uint32_t groups, struct vcpu_regs *regs);
/* Around calls of the engine's functions that change a vCPU: whoever stops the world may look at,
 * and change, what the engine has of it. _enter tells whether _leave has anything to undo. */
bool core_engine_enter(struct vcpu *vcpu);
void core_engine_leave(struct vcpu *vcpu, bool entered);
/* The engine's set_regs, with these two. */
int core_regs_set(struct vcpu *vcpu, const struct vcpu_regs *regs);
/* VMM_MODE_* and CPL from the groups GPR, SEG and CONTROL. */
static inline uint32_t core_mode(uint64_t cr0, uint64_t efer, uint64_t rflags, uint32_t cs_ar)
{
    if (!(cr0 & 1)) /* PE */
        return VMM_MODE_REAL;
    if (efer & 0x400) /* LMA */
        return cs_ar & VMM_AR_L    ? VMM_MODE_LONG64
               : cs_ar & VMM_AR_DB ? VMM_MODE_COMPAT32
                                   : VMM_MODE_COMPAT16;
    if (rflags & 0x20000) /* VM */
        return VMM_MODE_VM86;
    return cs_ar & VMM_AR_DB ? VMM_MODE_PROT32 : VMM_MODE_PROT16;
}
uint32_t core_regs_mode(const struct vcpu_regs *regs);
uint8_t core_regs_cpl(const struct vcpu_regs *regs);

/* ---- irq.c ---- */

/* VMM_E_STATE if there are no interrupt controllers; VMM_E_RANGE for no address of a message. */
int core_irq_check(struct vm *vm, const char *op);
int core_irq_check_msi(struct vm *vm, const char *op, uint64_t address);
/* Under irq_lock: passes the level of a line on to the controllers; one edge of it. */
int core_irq_drive(struct vm *vm, uint32_t line);
int core_irq_pulse(struct vm *vm, uint32_t line);
/* vm_irq_msi with a checked address. */
int core_irq_msi(struct vm *vm, uint64_t address, uint32_t data);
/* Under irq_lock: after a change of what wants to hear of EOIs. */
int core_irq_update_wanted(struct vm *vm);
/* For irqchip_create in split mode. */
extern const struct irqchip_remote core_irq_remote;

/* ---- irq_fd.c ---- */

/* An EOI of a line in irq_resample_lines: lowers it and signals the resample descriptors. */
void core_irq_fd_eoi(struct vm *vm, uint32_t line);
/* vm_destroy: takes all descriptors and routes away. */
void core_irq_fds_fini(struct vm *vm);

/* ---- watch.c ---- */

/* VMM_E_* for the errno of a function for descriptors. */
int core_fd_error(int os_errno);
/* Stops the thread; no watch is left. */
void core_watcher_fini(struct vm *vm);

/* ---- doorbell.c ---- */

/* vm_destroy: removes what is left; no vCPU is. */
void core_doorbells_fini(struct vm *vm);

/* ---- policy.c ---- */

/* Enters the caller's answer to an MSR or CPUID exit (vcpu->answer) in the record, as
 * core_io_answer. */
void core_policy_answer(struct vcpu *vcpu, const struct vcpu_exit *exit);
/* Whether the vCPU's local APIC has this MSR. */
bool core_msr_is_apic(const struct vcpu *vcpu, uint32_t index);
/* The default CPUID table, for a new vCPU. 0 or VMM_E_*. */
int core_cpuid_init(struct vcpu *vcpu);

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

/* ---- guest state, the short way [world.c] ---- */

/* Whether core_guest_out will do: the world is not stopped by this thread. */
static inline bool core_guest_leaves(const struct vcpu *v)
{
    return atomic_load_explicit(&v->vm->world_self, memory_order_relaxed) != v;
}

static inline void core_guest_out(struct vcpu *v)
{
    atomic_store(&v->in_guest, 0);
    if (__builtin_expect(atomic_load(&v->vm->world), 0))
        os_wake(&v->in_guest);
}

static inline void core_guest_in(struct vcpu *v)
{
    atomic_store(&v->in_guest, 1);
    if (__builtin_expect(atomic_load(&v->vm->world), 0))
        core_guest_enter(v); /* it waits, out of guest state */
}

/* Counts of a vCPU are changed by its thread only. */
static inline void core_count(_Atomic uint64_t *n)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

#endif
