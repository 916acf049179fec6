/* SPDX-License-Identifier: BSD-2-Clause */
/* core/watch.c: descriptors that a thread of the VM's own waits for. */
#include <errno.h>
#include <stdlib.h>

#include "core/internal.h"

struct core_watch {
    struct vm *vm;
    void (*ready)(void *opaque);
    void *opaque;
    int fd;
    uint32_t number; /* in watcher->watches */
    uint64_t tag;
};

/* The tag of the event that stops the thread. Others are (generation << 32 | number), so that what
 * the thread has still to serve is never taken for a later watch with that number. */
#define TAG_STOP 0u
#define BATCH    16u

int core_fd_error(int os_errno)
{
    switch (os_errno) {
    case EBADF:
    case EINVAL:
        return VMM_E_INVAL;
    case EMFILE:
    case ENFILE:
    case ENOSPC:
        return VMM_E_LIMIT;
    case ENOMEM:
    case EAGAIN: /* no thread */
        return VMM_E_NOMEM;
    case EPERM:
    case EACCES:
        return VMM_E_PERM;
    default:
        return VMM_E_IO;
    }
}

/* ---- the thread ---- */

/* Under the lock. */
static struct core_watch *find(const struct core_watcher *w, uint64_t tag)
{
    uint32_t number = (uint32_t)tag;
    struct core_watch *watch = number < w->nwatches ? w->watches[number] : NULL;

    return watch && watch->tag == tag ? watch : NULL;
}

static void serve(struct core_watcher *w, uint64_t tag)
{
    os_mutex_lock(&w->lock);
    struct core_watch *watch = find(w, tag);
    if (watch) {
        w->current = watch;
        os_mutex_unlock(&w->lock);
        if (os_event_take(watch->fd))
            watch->ready(watch->opaque); /* may remove the watch */
        os_mutex_lock(&w->lock);
        w->current = NULL;
        atomic_fetch_add(&w->done, 1);
        os_wake(&w->done);
    }
    os_mutex_unlock(&w->lock);
}

static void watcher_main(void *arg)
{
    struct core_watcher *w = arg;
    uint64_t tags[BATCH];

    os_mutex_lock(&w->lock);
    w->thread = os_thread_self();
    os_mutex_unlock(&w->lock);
    for (;;) {
        uint32_t n = os_poll_wait(w->poll, tags, BATCH);

        for (uint32_t i = 0; i < n; i++) {
            if (tags[i] == TAG_STOP)
                return;
            serve(w, tags[i]);
        }
    }
}

/* Under the lock. 0 or an errno. */
static int start(struct core_watcher *w)
{
    int err = os_poll_create(&w->poll);

    if (err)
        return err;
    err = os_event_create(&w->wake);
    if (err)
        goto no_event;
    err = os_poll_add(w->poll, w->wake, TAG_STOP);
    if (!err)
        err = os_thread_start(&w->handle, watcher_main, w);
    if (!err) {
        w->running = true;
        return 0;
    }
    os_event_close(w->wake);
no_event:
    os_poll_close(w->poll);
    return err;
}

void core_watcher_fini(struct vm *vm)
{
    struct core_watcher *w = &vm->watcher;

    if (w->running) {
        os_event_signal(w->wake);
        os_thread_join(&w->handle);
        os_event_close(w->wake);
        os_poll_close(w->poll);
        w->running = false;
    }
    for (uint32_t i = 0; i < w->nwatches; i++)
        free(w->watches[i]);
    free(w->watches);
    w->watches = NULL;
    w->nwatches = 0;
}

/* ---- watches ---- */

/* A free number. Under the lock. */
static int number(struct core_watcher *w, uint32_t *out)
{
    uint32_t i = 0;

    while (i < w->nwatches && w->watches[i])
        i++;
    if (i == w->nwatches) {
        uint32_t n = i ? 2 * i : 8;
        struct core_watch **watches = realloc(w->watches, n * sizeof(struct core_watch *));

        if (!watches)
            return ENOMEM;
        memset(watches + i, 0, (n - i) * sizeof(struct core_watch *));
        w->watches = watches;
        w->nwatches = n;
    }
    *out = i;
    return 0;
}

/* Under the lock. 0 or an errno. */
static int add(struct core_watcher *w, struct core_watch *watch)
{
    int err = w->running ? 0 : start(w);

    if (!err)
        err = number(w, &watch->number);
    if (err)
        return err;
    if (!++w->generation)
        w->generation = 1; /* with number 0, it would be TAG_STOP */
    watch->tag = (uint64_t)w->generation << 32 | watch->number;
    err = os_poll_add(w->poll, watch->fd, watch->tag);
    if (!err)
        w->watches[watch->number] = watch;
    return err;
}

int core_watch_add(struct vm *vm, const char *op, int fd, void (*ready)(void *opaque), void *opaque,
                   struct core_watch **out)
{
    struct core_watch *watch = malloc(sizeof(*watch));

    if (!watch)
        return vm_fail(vm, VMM_E_NOMEM, op, "no memory to wait for a descriptor");
    *watch = (struct core_watch){.vm = vm, .ready = ready, .opaque = opaque, .fd = fd};
    *out = watch; /* `ready` may want it at once */
    os_mutex_lock(&vm->watcher.lock);
    int err = add(&vm->watcher, watch);
    os_mutex_unlock(&vm->watcher.lock);
    if (!err)
        return 0;
    *out = NULL;
    free(watch);
    return core_fail_os(vm, core_fd_error(err), op, err, "cannot wait for descriptor %d", fd);
}

void core_watch_remove(struct core_watch *watch)
{
    if (!watch)
        return;

    struct core_watcher *w = &watch->vm->watcher;

    os_mutex_lock(&w->lock);
    os_poll_remove(w->poll, watch->fd);
    w->watches[watch->number] = NULL;
    while (w->current == watch && w->thread != os_thread_self()) {
        uint32_t seen = atomic_load(&w->done);

        os_mutex_unlock(&w->lock);
        os_wait(&w->done, seen, UINT64_MAX);
        os_mutex_lock(&w->lock);
    }
    os_mutex_unlock(&w->lock);
    free(watch);
}
