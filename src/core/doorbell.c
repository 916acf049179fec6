/* SPDX-License-Identifier: BSD-2-Clause */
/* core/doorbell.c: guest writes that do no more than signal an eventfd. */
#include <stdlib.h>

#include "core/doorbell.h"

#define PORTS 0x10000ull

/* ---- ringing ---- */

/* The first at `addr` or above. */
static uint32_t first_at(const struct doorbell_map *map, uint64_t addr)
{
    uint32_t lo = 0, hi = map->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (map->bell[mid]->d.addr < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool core_doorbell_ring(const struct doorbell_map *map, uint64_t addr, uint32_t size,
                        uint64_t value)
{
    for (uint32_t i = first_at(map, addr); i < map->n; i++) {
        const struct core_doorbell *d = &map->bell[i]->d;

        if (d->addr != addr)
            break;
        if ((!d->len || d->len == size) && (!d->has_match || d->match == value)) {
            os_event_signal(d->fd);
            return true;
        }
    }
    return false;
}

/* ---- the table ---- */

static enum io_kind kind(const struct doorbell *b)
{
    return b->d.port ? IO_PORT : IO_MMIO;
}

/* Whether there is a write that both want. */
static bool compete(const struct core_doorbell *a, const struct core_doorbell *b)
{
    return a->addr == b->addr && (!a->len || !b->len || a->len == b->len) &&
           (!a->has_match || !b->has_match || a->match == b->match);
}

/* World stopped, vm->lock held. */
static int insert_stopped(struct doorbell *b)
{
    struct vm *vm = b->vm;
    struct doorbell_map *old = vm->doorbells[kind(b)], *map;
    uint32_t n = old ? old->n : 0, at = old ? first_at(old, b->d.addr) : 0;

    for (uint32_t i = at; i < n && old->bell[i]->d.addr == b->d.addr; i++)
        if (compete(&old->bell[i]->d, &b->d))
            return core_fail_gpa(vm, VMM_E_EXIST, "mmio_doorbell", b->d.addr,
                                 "another doorbell takes such writes to 0x%llx",
                                 (unsigned long long)b->d.addr);
    map = malloc(sizeof(*map) + (n + 1) * sizeof(map->bell[0]));
    if (!map)
        return vm_fail(vm, VMM_E_NOMEM, "mmio_doorbell", "no memory for the doorbells");
    map->n = n + 1;
    if (at)
        memcpy(map->bell, old->bell, at * sizeof(map->bell[0]));
    map->bell[at] = b;
    if (at < n)
        memcpy(map->bell + at + 1, old->bell + at, (n - at) * sizeof(map->bell[0]));
    free(old);
    vm->doorbells[kind(b)] = map;
    return 0;
}

/* World stopped, vm->lock held. */
static void remove_stopped(struct doorbell *b)
{
    struct doorbell_map **p = &b->vm->doorbells[kind(b)], *map = *p;
    uint32_t i = first_at(map, b->d.addr);

    while (map->bell[i] != b)
        i++;
    memmove(&map->bell[i], &map->bell[i + 1], (--map->n - i) * sizeof(map->bell[0]));
    if (!map->n) {
        free(map);
        *p = NULL; /* accesses do not even look */
    }
}

static int insert(struct doorbell *b)
{
    struct vm *vm = b->vm;

    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    int err = insert_stopped(b);
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
    return err;
}

static void discard(struct doorbell *b)
{
    struct vm *vm = b->vm;

    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    remove_stopped(b);
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
}

/* ---- adding and removing ---- */

static const char *check(const struct vm *vm, const struct vmm_doorbell *c)
{
    bool port = c->flags & VMM_DOORBELL_PORT, match = c->flags & VMM_DOORBELL_MATCH;
    uint64_t limit = port ? PORTS : 1ull << vm->caps.gpa_bits;
    uint32_t len = c->len ? c->len : 1;

    if (c->flags & ~(VMM_DOORBELL_PORT | VMM_DOORBELL_MATCH))
        return "flags are unknown";
    if (len != 1 && len != 2 && len != 4 && (len != 8 || port))
        return "len is impossible";
    if (c->addr >= limit || len > limit - c->addr)
        return "addr is out of range";
    if (match && !c->len)
        return "a match needs a len";
    if (match && c->len < 8 && c->match >> c->len * 8)
        return "match has more than len bytes";
    return NULL;
}

/* Has the kernel do it, if it can. */
static int add_in_kernel(struct doorbell *b)
{
    const struct backend_host_ops *host = b->vm->ops->host;
    int err = host && host->doorbell_add ? host->doorbell_add(b->vm, &b->d) : VMM_E_UNSUPPORTED;

    b->in_kernel = !err;
    return err == VMM_E_UNSUPPORTED ? 0 : err;
}

static int add(struct doorbell *b)
{
    int err = insert(b);

    if (err)
        return err;
    err = add_in_kernel(b);
    if (err)
        discard(b);
    return err;
}

int mmio_doorbell(struct vm *vm, const struct vmm_doorbell *config, struct doorbell **out)
{
    struct vmm_doorbell c;

    if (!vm)
        return VMM_E_INVAL;
    int err = core_copy_in(&c, sizeof(c), config, sizeof(c));
    if (err)
        return vm_fail(vm, err, __func__, "bad struct vmm_doorbell");
    const char *wrong = check(vm, &c);
    if (wrong)
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, c.addr, "%s", wrong);

    struct doorbell *b = malloc(sizeof(*b));
    if (!b)
        return vm_fail(vm, VMM_E_NOMEM, __func__, "no memory for the doorbell");
    *b = (struct doorbell){.vm = vm,
                           .d = {.addr = c.addr,
                                 .len = c.len,
                                 .port = c.flags & VMM_DOORBELL_PORT,
                                 .has_match = c.flags & VMM_DOORBELL_MATCH}};
    if (b->d.has_match)
        b->d.match = c.match;
    int os_errno = os_event_dup(c.fd, &b->d.fd);
    if (os_errno) {
        free(b);
        return core_fail_os(vm, core_fd_error(os_errno), __func__, os_errno, "descriptor %d", c.fd);
    }
    err = add(b);
    if (err) {
        os_event_close(b->d.fd);
        free(b);
        return err;
    }
    if (out)
        *out = b;
    return 0;
}

static void destroy(struct doorbell *b)
{
    if (b->in_kernel)
        b->vm->ops->host->doorbell_del(b->vm, &b->d);
    discard(b);
    os_event_close(b->d.fd);
    free(b);
}

void mmio_doorbell_remove(struct doorbell *doorbell)
{
    if (doorbell)
        destroy(doorbell);
}

void core_doorbells_fini(struct vm *vm)
{
    for (int i = IO_MMIO; i <= IO_PORT; i++)
        while (vm->doorbells[i])
            destroy(vm->doorbells[i]->bell[0]);
}
