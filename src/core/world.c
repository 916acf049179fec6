/* SPDX-License-Identifier: BSD-2-Clause */
/* core/world.c: guest state, stopping the world, and the readers-writer lock. */
#include "core/internal.h"

/*
 * Who stops the world stores vm->world and then looks at each in_guest; who enters the guest stores
 * in_guest and then looks at vm->world. Both are sequentially consistent, so at least one of the
 * two sees the other.
 */

struct vcpu *core_world_self(struct vm *vm)
{
    uintptr_t self = os_thread_self();

    for (uint32_t i = 0; i < vm->max_vcpus; i++)
        if (atomic_load_explicit(&vm->owner[i], memory_order_relaxed) == self)
            return atomic_load(&vm->vcpus[i]);
    return NULL;
}

/* Waits until *word is no longer 1. What is waited for takes microseconds, if the other thread runs
 * at all: the sleep, which costs more, comes only after a while. */
static void wait_while_1(_Atomic uint32_t *word)
{
    for (int i = 0; i < 256; i++) {
        if (atomic_load_explicit(word, memory_order_relaxed) != 1)
            break;
        os_relax();
    }
    while (atomic_load(word) == 1)
        os_wait(word, 1, UINT64_MAX);
}

/* Under world_lock until start_world. `self`: the thread's vCPU that was in guest state, or NULL.
 */
static void stop_world(struct vm *vm, struct vcpu *self)
{
    os_mutex_lock(&vm->world_lock);
    atomic_store(&vm->world_self, self);
    atomic_store(&vm->world, 1);
    /* All are asked before any is waited for, so that the waits overlap. */
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu && atomic_load(&vcpu->in_guest))
            core_vcpu_request(vcpu, VCPU_REQ_WORLD);
    }
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu)
            wait_while_1(&vcpu->in_guest);
    }
}

static void start_world(struct vm *vm)
{
    atomic_store(&vm->world_self, NULL);
    atomic_store(&vm->world, 0);
    if (atomic_load(&vm->world_waiters))
        os_wake(&vm->world);
    os_mutex_unlock(&vm->world_lock);
}

static void leave(struct vcpu *vcpu)
{
    atomic_store(&vcpu->in_guest, 0);
    if (atomic_load(&vcpu->vm->world))
        os_wake(&vcpu->in_guest);
}

/* Whether the world runs; else the vCPU is in guest state all the same, and has to leave it. */
static inline bool try_enter(struct vcpu *vcpu)
{
    if (atomic_load_explicit(&vcpu->requests, memory_order_relaxed) & VCPU_REQ_WORLD)
        atomic_fetch_and(&vcpu->requests, ~VCPU_REQ_WORLD);
    atomic_store(&vcpu->in_guest, 1);
    return !atomic_load(&vcpu->vm->world);
}

static __attribute__((noinline)) void wait_and_enter(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;

    do {
        leave(vcpu);
        atomic_fetch_add(&vm->world_waiters, 1);
        wait_while_1(&vm->world);
        atomic_fetch_sub(&vm->world_waiters, 1);
    } while (!try_enter(vcpu));
}

static __attribute__((noinline)) void stop_again(struct vcpu *vcpu)
{
    vcpu->world_dropped = false;
    stop_world(vcpu->vm, vcpu);
}

void core_guest_enter(struct vcpu *vcpu)
{
    if (vcpu->world_dropped)
        stop_again(vcpu);
    else if (!try_enter(vcpu))
        wait_and_enter(vcpu);
}

void core_guest_leave(struct vcpu *vcpu)
{
    /* Only this thread can have made it world_self, so the comparison cannot go wrong. */
    if (atomic_load_explicit(&vcpu->vm->world_self, memory_order_relaxed) == vcpu) {
        vcpu->world_dropped = true;
        start_world(vcpu->vm);
        return;
    }
    leave(vcpu);
}

void core_world_stop(struct vm *vm)
{
    struct vcpu *self = core_world_self(vm);

    if (self && atomic_load_explicit(&self->in_guest, memory_order_relaxed))
        leave(self);
    else
        self = NULL;
    stop_world(vm, self);
}

void core_world_go(struct vm *vm)
{
    struct vcpu *self = atomic_load(&vm->world_self);

    start_world(vm);
    if (self)
        core_guest_enter(self);
}

/* ---- readers-writer lock ---- */

#define RW_WRITER  0x80000000u /* a writer is in */
#define RW_WAITING 0x40000000u /* a writer waits: no new readers */
#define RW_READERS 0x3fffffffu

void core_read_lock(struct core_rwlock *lock)
{
    uint32_t w = atomic_load(&lock->word);

    for (;;) {
        if (w & (RW_WRITER | RW_WAITING)) {
            os_wait(&lock->word, w, UINT64_MAX);
            w = atomic_load(&lock->word);
        } else if (atomic_compare_exchange_weak(&lock->word, &w, w + 1)) {
            return;
        }
    }
}

void core_read_unlock(struct core_rwlock *lock)
{
    uint32_t w = atomic_fetch_sub(&lock->word, 1) - 1;

    if (!(w & RW_READERS) && (w & RW_WAITING))
        os_wake(&lock->word);
}

void core_write_lock(struct core_rwlock *lock)
{
    uint32_t w = atomic_load(&lock->word);

    for (;;) {
        if (!(w & ~RW_WAITING)) {
            /* Clears RW_WAITING too: other writers that wait set it again when they wake up. */
            if (atomic_compare_exchange_weak(&lock->word, &w, RW_WRITER))
                return;
        } else if ((w & RW_WAITING) ||
                   atomic_compare_exchange_weak(&lock->word, &w, w | RW_WAITING)) {
            os_wait(&lock->word, w | RW_WAITING, UINT64_MAX);
            w = atomic_load(&lock->word);
        }
    }
}

void core_write_unlock(struct core_rwlock *lock)
{
    atomic_fetch_and(&lock->word, ~(RW_WRITER | RW_WAITING));
    os_wake(&lock->word);
}
