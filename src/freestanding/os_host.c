/* SPDX-License-Identifier: BSD-2-Clause */
/* freestanding/os_host.c: core/os.h on top of struct vmm_host_ops. */
#include <errno.h>
#include <string.h>

#include "core/os.h"
#include "freestanding/host.h"

const struct vmm_host_ops *vmm_host;

static bool complete(const struct vmm_host_ops *o)
{
    return o->pages_alloc && o->pages_free && o->virt_to_phys && o->phys_to_virt && o->cpu_count &&
           o->cpu_id && o->run_on_cpu && o->preempt_off && o->preempt_on && o->thread_slot &&
           o->rdmsr && o->wrmsr && o->fpu_begin && o->fpu_end && o->now && o->tsc_khz &&
           !o->code_alloc == !o->code_free && !o->mmio_map == !o->mmio_unmap &&
           !o->wait == !o->wake;
}

int vmm_host_init(const struct vmm_host_ops *ops)
{
    if (!ops || ops->size != sizeof(*ops) || ops->reserved || !complete(ops) ||
        (!ops->kick && ops->cpu_count(ops->ctx) > 1))
        return VMM_E_INVAL;
    if (vmm_host)
        return VMM_E_STATE;
    vmm_host = ops;
    return VMM_OK;
}

bool os_ready(void)
{
    return vmm_host;
}

/* ---- locks and threads ---- */

void os_relax(void)
{
    __builtin_ia32_pause();
}

void spin_lock(struct spin *s)
{
    vmm_host->preempt_off(vmm_host->ctx);
    while (atomic_flag_test_and_set_explicit(&s->held, memory_order_acquire))
        os_relax();
}

void spin_unlock(struct spin *s)
{
    atomic_flag_clear_explicit(&s->held, memory_order_release);
    vmm_host->preempt_on(vmm_host->ctx);
}

void host_yield(void)
{
    if (vmm_host->yield)
        vmm_host->yield(vmm_host->ctx);
    else
        os_relax();
}

void os_yield(void)
{
    host_yield();
}

/* Mutexes may be held for long and by threads that are preempted: waiting gives the CPU away. */
static _Atomic uint32_t *mutex_word(struct os_mutex *m)
{
    return (_Atomic uint32_t *)(void *)m->storage;
}

#define FREE   0u
#define HELD   1u
#define WANTED 2u /* held, and others wait */

int os_mutex_init(struct os_mutex *m)
{
    atomic_init(mutex_word(m), FREE);
    return 0;
}

void os_mutex_fini(struct os_mutex *m)
{
    (void)m;
}

void os_mutex_lock(struct os_mutex *m)
{
    uint32_t free = FREE;

    if (atomic_compare_exchange_strong_explicit(mutex_word(m), &free, HELD, memory_order_acquire,
                                                memory_order_relaxed))
        return;
    while (atomic_exchange_explicit(mutex_word(m), WANTED, memory_order_acquire) != FREE)
        os_wait(mutex_word(m), WANTED, UINT64_MAX);
}

void os_mutex_unlock(struct os_mutex *m)
{
    if (atomic_exchange_explicit(mutex_word(m), FREE, memory_order_release) == WANTED)
        os_wake(mutex_word(m));
}

uintptr_t os_thread_self(void)
{
    return (uintptr_t)vmm_host->thread_slot(vmm_host->ctx);
}

void **os_thread_slot(void)
{
    return vmm_host->thread_slot(vmm_host->ctx);
}

int os_thread_start(struct os_thread *thread, void (*run)(void *arg), void *arg)
{
    (void)thread;
    (void)run;
    (void)arg;
    return ENOSYS;
}

void os_thread_join(struct os_thread *thread)
{
    (void)thread;
}

/* ---- waiting and time ---- */

void os_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t deadline)
{
    if (vmm_host->wait) {
        vmm_host->wait(vmm_host->ctx, (const void *)(uintptr_t)word, seen, deadline);
        return;
    }
    while (atomic_load(word) == seen && (deadline == UINT64_MAX || os_now() < deadline))
        host_yield();
}

void os_wake(_Atomic uint32_t *word)
{
    if (vmm_host->wake)
        vmm_host->wake(vmm_host->ctx, (const void *)(uintptr_t)word);
}

uint64_t os_now(void)
{
    return vmm_host->now(vmm_host->ctx);
}

uint64_t os_tsc_khz(void)
{
    return vmm_host->tsc_khz;
}

/* ---- vector registers ---- */

void os_fpu_begin(void)
{
    vmm_host->fpu_begin(vmm_host->ctx);
}

void os_fpu_end(void)
{
    vmm_host->fpu_end(vmm_host->ctx);
}

/* ---- memory ---- */

static size_t pages(size_t len)
{
    return len / 4096 + (len % 4096 != 0);
}

/* What is long begins where a page of 2 MiB can, so that the hardware's tables can have such pages
 * of guest memory: behind a page that keeps where the host's pages begin. */
#define PAGE       4096
#define LARGE      ((size_t)2 << 20)
#define LONG_BYTES (2 * LARGE)

void *os_pages_alloc(size_t len)
{
    uint8_t *all, *p;

    if (len < LONG_BYTES)
        return vmm_host->pages_alloc(vmm_host->ctx, pages(len));
    all = vmm_host->pages_alloc(vmm_host->ctx, pages(len + LARGE));
    if (!all)
        return NULL;
    p = all + LARGE - (vmm_host->virt_to_phys(vmm_host->ctx, all) & (LARGE - 1));
    memcpy(p - PAGE, &all, sizeof(all));
    return p;
}

void os_pages_free(void *p, size_t len)
{
    void *all;

    if (!p)
        return;
    if (len < LONG_BYTES) {
        vmm_host->pages_free(vmm_host->ctx, p, pages(len));
        return;
    }
    memcpy(&all, (uint8_t *)p - PAGE, sizeof(all));
    vmm_host->pages_free(vmm_host->ctx, all, pages(len + LARGE));
}

int os_code_alloc(size_t len, void **rw, void **rx)
{
    if (!vmm_host->code_alloc)
        return ENOTSUP;
    return vmm_host->code_alloc(vmm_host->ctx, len, rw, rx) ? ENOMEM : 0;
}

void os_code_free(void *rw, void *rx, size_t len)
{
    vmm_host->code_free(vmm_host->ctx, rw, rx, len);
}

/* ---- files and descriptors: there are none ---- */

int os_file_size(int fd, uint64_t *size)
{
    (void)fd;
    (void)size;
    return ENOSYS;
}

void *os_pages_map_fd(int fd, uint64_t offset, size_t len, bool writable, int *os_errno)
{
    (void)fd;
    (void)offset;
    (void)len;
    (void)writable;
    *os_errno = ENOSYS;
    return NULL;
}

void *os_pages_alloc_fd(size_t len, int *fd)
{
    (void)len;
    (void)fd;
    return NULL;
}

int os_fd_dup(int fd)
{
    (void)fd;
    return -1;
}

void os_fd_close(int fd)
{
    (void)fd;
}

int os_event_create(int *event)
{
    (void)event;
    return ENOSYS;
}

int os_event_dup(int fd, int *event)
{
    (void)fd;
    (void)event;
    return ENOSYS;
}

void os_event_close(int event)
{
    (void)event;
}

void os_event_signal(int event)
{
    (void)event;
}

bool os_event_take(int event)
{
    (void)event;
    return false;
}

int os_poll_create(int *set)
{
    (void)set;
    return ENOSYS;
}

void os_poll_close(int set)
{
    (void)set;
}

int os_poll_add(int set, int event, uint64_t tag)
{
    (void)set;
    (void)event;
    (void)tag;
    return ENOSYS;
}

void os_poll_remove(int set, int event)
{
    (void)set;
    (void)event;
}

uint32_t os_poll_wait(int set, uint64_t *tags, uint32_t max)
{
    (void)set;
    (void)tags;
    (void)max;
    return 0;
}
