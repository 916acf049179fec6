/* SPDX-License-Identifier: BSD-2-Clause */
/* core/timer.c: timers in guest time: a binary heap by deadline, run by vCPU threads. */
#include <stdlib.h>

#include "core/internal.h"

#include <vmm/timer.h>

/*
 * Everything is under vm->timer_lock, a leaf but for requests to vCPUs. A timer's callback runs on
 * one thread at a time: while it runs, the timer is not in the heap, and a deadline that is set
 * meanwhile waits in the timer until the callback has returned.
 */
struct vmm_timer {
    struct vm *vm;
    void (*fire)(void *opaque, uint64_t deadline);
    void *opaque;
    uint64_t deadline;
    uint32_t slot;    /* index in the heap + 1; 0: not in it */
    bool armed;       /* has a deadline that has not been reached */
    bool gone;        /* destroyed from inside its callback */
    bool awaited;     /* somebody waits for its callback to return */
    uintptr_t runner; /* thread that runs the callback; 0: none */
    struct vmm_timer *next, **link;
};

/* Callbacks that one call of core_timers_run makes, so that timers which set themselves to the past
 * leave the vCPU time for the guest and for requests. */
#define MAX_BATCH 64

/* ---- heap ---- */

static void place(struct vm *vm, uint32_t i, struct vmm_timer *t)
{
    vm->timers[i] = t;
    t->slot = i + 1;
}

static void sift_up(struct vm *vm, uint32_t i, struct vmm_timer *t)
{
    while (i) {
        struct vmm_timer *parent = vm->timers[(i - 1) / 2];

        if (parent->deadline <= t->deadline)
            break;
        place(vm, i, parent);
        i = (i - 1) / 2;
    }
    place(vm, i, t);
}

static void sift_down(struct vm *vm, uint32_t i, struct vmm_timer *t)
{
    for (;;) {
        uint32_t child = 2 * i + 1;

        if (child >= vm->ntimers)
            break;
        if (child + 1 < vm->ntimers &&
            vm->timers[child + 1]->deadline < vm->timers[child]->deadline)
            child++;
        if (t->deadline <= vm->timers[child]->deadline)
            break;
        place(vm, i, vm->timers[child]);
        i = child;
    }
    place(vm, i, t);
}

static void heap_insert(struct vm *vm, struct vmm_timer *t)
{
    /* vm_timer_create has made room for all timers. */
    sift_up(vm, vm->ntimers++, t);
}

static void heap_remove(struct vm *vm, struct vmm_timer *t)
{
    uint32_t i = t->slot - 1;
    struct vmm_timer *last = vm->timers[--vm->ntimers];

    t->slot = 0;
    if (last == t)
        return;
    if (i && last->deadline < vm->timers[(i - 1) / 2]->deadline)
        sift_up(vm, i, last);
    else
        sift_down(vm, i, last);
}

static void update_next(struct vm *vm)
{
    atomic_store(&vm->next_timer, vm->ntimers ? vm->timers[0]->deadline : UINT64_MAX);
}

/* Makes the heap agree with t->armed and t->deadline. True: the earliest deadline is t's now. */
static bool reinsert(struct vm *vm, struct vmm_timer *t)
{
    if (t->slot)
        heap_remove(vm, t);
    if (t->armed && !t->runner)
        heap_insert(vm, t);
    update_next(vm);
    return t->slot == 1;
}

/* ---- the public functions ---- */

int vm_timer_create(struct vm *vm, void (*fire)(void *opaque, uint64_t deadline), void *opaque,
                    struct vmm_timer **out)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!fire || !out)
        return vm_fail(vm, VMM_E_INVAL, __func__, "%s is NULL", fire ? "out" : "fire");

    struct vmm_timer *t = calloc(1, sizeof(*t));
    if (!t)
        return vm_fail(vm, VMM_E_NOMEM, __func__, "no memory for a timer");
    t->vm = vm;
    t->fire = fire;
    t->opaque = opaque;

    os_mutex_lock(&vm->timer_lock);
    uint32_t count = 1;
    for (struct vmm_timer *other = vm->timer_list; other; other = other->next)
        count++;
    if (count > vm->timers_cap) {
        uint32_t cap = vm->timers_cap ? 2 * vm->timers_cap : 16;
        struct vmm_timer **timers = realloc(vm->timers, cap * sizeof(struct vmm_timer *));

        if (!timers) {
            os_mutex_unlock(&vm->timer_lock);
            free(t);
            return vm_fail(vm, VMM_E_NOMEM, __func__, "no memory for %u timers", count);
        }
        vm->timers = timers;
        vm->timers_cap = cap;
    }
    t->next = vm->timer_list;
    t->link = &vm->timer_list;
    if (t->next)
        t->next->link = &t->next;
    vm->timer_list = t;
    os_mutex_unlock(&vm->timer_lock);
    *out = t;
    return 0;
}

void vm_timer_set(struct vmm_timer *timer, uint64_t deadline)
{
    if (!timer)
        return;

    struct vm *vm = timer->vm;

    os_mutex_lock(&vm->timer_lock);
    timer->deadline = deadline;
    timer->armed = true;
    bool first = reinsert(vm, timer);
    os_mutex_unlock(&vm->timer_lock);
    if (first)
        core_timers_wake(vm);
}

void vm_timer_cancel(struct vmm_timer *timer)
{
    if (!timer)
        return;

    struct vm *vm = timer->vm;

    os_mutex_lock(&vm->timer_lock);
    timer->armed = false;
    reinsert(vm, timer);
    os_mutex_unlock(&vm->timer_lock);
}

/* Under the lock. */
static void free_timer(struct vmm_timer *t)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    free(t);
}

void vm_timer_destroy(struct vmm_timer *timer)
{
    if (!timer)
        return;

    struct vm *vm = timer->vm;
    os_mutex_lock(&vm->timer_lock);
    timer->armed = false;
    reinsert(vm, timer);
    if (timer->runner == os_thread_self()) {
        timer->gone = true; /* core_timers_run frees it */
        os_mutex_unlock(&vm->timer_lock);
        return;
    }
    while (timer->runner) {
        uint32_t seen = atomic_load(&vm->timer_done);

        timer->awaited = true;
        os_mutex_unlock(&vm->timer_lock);
        os_wait(&vm->timer_done, seen, UINT64_MAX);
        os_mutex_lock(&vm->timer_lock);
    }
    /* The callback may have set it again before it returned. */
    timer->armed = false;
    reinsert(vm, timer);
    free_timer(timer);
    os_mutex_unlock(&vm->timer_lock);
}

/* ---- running ---- */

/* Takes the earliest timer if it is due. Under the lock. */
static struct vmm_timer *take_due(struct vm *vm, uint64_t *deadline)
{
    struct vmm_timer *t = vm->ntimers ? vm->timers[0] : NULL;

    if (!t || t->deadline > vm_clock(vm))
        return NULL;
    *deadline = t->deadline;
    t->armed = false;
    t->runner = os_thread_self();
    reinsert(vm, t);
    return t;
}

/* After the callback. Under the lock. */
static void finish(struct vm *vm, struct vmm_timer *t)
{
    t->runner = 0;
    if (t->awaited) {
        atomic_fetch_add(&vm->timer_done, 1);
        os_wake(&vm->timer_done);
    }
    if (t->gone)
        free_timer(t);
    else
        reinsert(vm, t);
}

void core_timers_run(struct vm *vm)
{
    struct vmm_timer *t;
    uint64_t deadline;

    if (atomic_load(&vm->next_timer) > vm_clock(vm))
        return;
    os_mutex_lock(&vm->timer_lock);
    for (int i = 0; i < MAX_BATCH && (t = take_due(vm, &deadline)); i++) {
        os_mutex_unlock(&vm->timer_lock);
        t->fire(t->opaque, deadline);
        os_mutex_lock(&vm->timer_lock);
        finish(vm, t);
    }
    os_mutex_unlock(&vm->timer_lock);
}

/*
 * A vCPU that is about to sleep stores its wait_deadline and then looks at next_timer again, so
 * either it sees the new deadline or we see that it sleeps. One that runs guest code polls.
 */
void core_timers_wake(struct vm *vm)
{
    uint64_t deadline = atomic_load(&vm->next_timer);
    struct vcpu *late = NULL;

    if (deadline == UINT64_MAX)
        return;
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);
        uint64_t until = vcpu ? atomic_load(&vcpu->wait_deadline) : 0;

        if (until && until <= deadline)
            return;
        if (until)
            late = vcpu;
    }
    if (late)
        core_vcpu_request(late, VCPU_REQ_TIMER);
}

void core_timers_free(struct vm *vm)
{
    while (vm->timer_list)
        free_timer(vm->timer_list);
    free(vm->timers);
    vm->timers = NULL;
    vm->ntimers = vm->timers_cap = 0;
}
