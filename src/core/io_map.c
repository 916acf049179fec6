/* SPDX-License-Identifier: BSD-2-Clause */
/* core/io_map.c: registration of MMIO and port callbacks.
 *
 * Maps are changed with the world stopped and vm->lock held: vCPUs in guest state read them without
 * a lock, other threads with vm->lock held. Whoever calls a callback first counts itself in
 * io_reg.calls and then leaves the guest state or drops the lock. So when an unregistering thread
 * has changed the map it only needs to wait for that count. */
#include <stdlib.h>

#include "core/io_map.h"

struct mmio {
    struct io_reg reg;
};

struct pio {
    struct io_reg reg;
};

#define IO_PORTS 0x10000ull

/* The calling thread's innermost callback. */
static struct io_call *io_calls(void)
{
    return *os_thread_slot();
}

/* ---- writes that the kernel collects ---- */

/*
 * The engine is told without a lock, as it may have to deliver what was collected. That makes
 * writes cheaper and nothing else: so a thread that finds another one at it, when both move a
 * registration, just does without.
 */
enum { POSTED_OFF, POSTED_CHANGES, POSTED_ON };

static void post(struct io_reg *reg, uint64_t base)
{
    const struct backend_host_ops *host = reg->vm->ops->host;
    uint32_t off = POSTED_OFF;

    if (!(reg->ops.flags & VMM_IO_POSTED) || !reg->ops.write || !host || !host->posted_add ||
        !atomic_compare_exchange_strong(&reg->posted, &off, POSTED_CHANGES))
        return;
    int err = host->posted_add(reg->vm, reg->kind == IO_PORT, base, reg->len);
    reg->posted_base = base;
    atomic_store(&reg->posted, err ? POSTED_OFF : POSTED_ON);
}

/* What was collected has been delivered when it returns. */
static void unpost(struct io_reg *reg)
{
    uint32_t on = POSTED_ON;

    if (!atomic_compare_exchange_strong(&reg->posted, &on, POSTED_CHANGES))
        return;
    reg->vm->ops->host->posted_del(reg->vm, reg->kind == IO_PORT, reg->posted_base, reg->len);
    atomic_store(&reg->posted, POSTED_OFF);
}

/* ---- callbacks in flight ---- */

static void reg_free(struct io_reg *reg)
{
    unpost(reg); /* if it was posted after unregistering had begun */
    if (reg->ops.release)
        reg->ops.release(reg->opaque);
    free(reg);
}

void io_call_awaited(struct io_reg *reg, uint32_t before)
{
    if (before == (IO_ORPHAN | 1))
        reg_free(reg);
    else if (before & IO_LEAVES)
        os_wake(&reg->calls); /* only the address is used: the registration may be gone */
}

/* Callbacks of `reg` on the calling thread's own stack. */
static uint32_t own_calls(const struct io_reg *reg)
{
    uint32_t n = 0;

    for (struct io_call *c = io_calls(); c; c = c->outer)
        n += c->reg == reg;
    return n;
}

/* Waits until only the calling thread is in callbacks of `reg`, then frees it, or leaves that to
 * the last of those. */
static void reg_retire(struct io_reg *reg)
{
    uint32_t own = own_calls(reg), word = atomic_fetch_or(&reg->calls, IO_LEAVES) | IO_LEAVES;

    while ((word & IO_CALLS) > own) {
        os_wait(&reg->calls, word, UINT64_MAX);
        word = atomic_load(&reg->calls);
    }
    if (own)
        atomic_store(&reg->calls, IO_ORPHAN | own);
    else
        reg_free(reg);
}

/* ---- the map ---- */

struct io_reg *io_map_at_or_after(const struct io_map *map, uint64_t addr)
{
    uint32_t lo = 0, hi = map->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (map->reg[mid]->base + (map->reg[mid]->len - 1) < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < map->n ? map->reg[lo] : NULL;
}

static struct io_map *map_new(uint32_t n)
{
    struct io_map *map = malloc(sizeof(*map) + n * sizeof(map->reg[0]));

    if (map)
        map->n = n;
    return map;
}

/* World stopped, vm->lock held. */
static void forget_hits(struct vm *vm, enum io_kind kind)
{
    for (uint32_t i = 0; i < VMM_MAX_VCPUS; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (vcpu)
            vcpu->io_hit[kind] = NULL;
    }
}

/* Puts `reg` where its base says into `map`, which has room for it behind its n entries. */
static void map_insert(struct io_map *map, struct io_reg *reg)
{
    uint32_t i = map->n++;

    for (; i && map->reg[i - 1]->base > reg->base; i--)
        map->reg[i] = map->reg[i - 1];
    map->reg[i] = reg;
}

static void map_remove(struct io_map *map, const struct io_reg *reg)
{
    uint32_t i = 0;

    while (map->reg[i] != reg)
        i++;
    map->n--;
    memmove(&map->reg[i], &map->reg[i + 1], (map->n - i) * sizeof(map->reg[0]));
}

/* Another registration than `self` that overlaps [base, base+len). */
static struct io_reg *find_overlap(const struct io_map *map, const struct io_reg *self,
                                   uint64_t base, uint64_t len)
{
    for (uint32_t i = 0; i < map->n; i++) {
        struct io_reg *r = map->reg[i];

        if (r != self && r->base <= base + (len - 1) && base <= r->base + (r->len - 1))
            return r;
    }
    return NULL;
}

static int check_place(struct vm *vm, const char *op, enum io_kind kind, const struct io_reg *self,
                       uint64_t base, uint64_t len)
{
    const struct io_reg *r = find_overlap(vm->io[kind], self, base, len);

    if (!r)
        return 0;
    return core_fail_gpa(vm, VMM_E_EXIST, op, base,
                         "0x%llx bytes at 0x%llx overlap %s, 0x%llx bytes at 0x%llx",
                         (unsigned long long)len, (unsigned long long)base,
                         r->ops.name ? r->ops.name : "a registration", (unsigned long long)r->len,
                         (unsigned long long)r->base);
}

static int check_range(struct vm *vm, const char *op, enum io_kind kind, uint64_t base,
                       uint64_t len)
{
    uint64_t limit = kind == IO_PORT ? IO_PORTS : 1ull << vm->caps.gpa_bits;

    if (!len)
        return core_fail_gpa(vm, VMM_E_INVAL, op, base, "the length is 0");
    if (base >= limit || len > limit - base)
        return core_fail_gpa(vm, VMM_E_RANGE, op, base, "0x%llx bytes at 0x%llx end beyond 0x%llx",
                             (unsigned long long)len, (unsigned long long)base,
                             (unsigned long long)limit);
    return 0;
}

/* ---- registering ---- */

static bool access_size(uint32_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

/* Takes over the caller's callbacks. */
static int reg_set_ops(struct io_reg *reg, const char *op, const struct vmm_io_ops *ops)
{
    uint32_t top = reg->kind == IO_PORT ? 4 : 8;
    int err =
        core_copy_in(&reg->ops, sizeof(reg->ops), ops, offsetof(struct vmm_io_ops, max_access) + 1);

    if (err)
        return vm_fail(reg->vm, err, op, "bad struct vmm_io_ops");
    if (reg->ops.flags & ~VMM_IO_POSTED)
        return vm_fail(reg->vm, VMM_E_UNSUPPORTED, op, "reserved bytes of vmm_io_ops are not 0");
    reg->min = reg->ops.min_access ? reg->ops.min_access : 1;
    reg->max = reg->ops.max_access ? reg->ops.max_access : top;
    if (!access_size(reg->min) || !access_size(reg->max) || reg->min > reg->max || reg->min > top)
        return vm_fail(reg->vm, VMM_E_INVAL, op, "access sizes %u to %u", reg->min, reg->max);
    if (reg->max > top)
        reg->max = top;
    for (uint32_t size = reg->min; size <= reg->max && size <= reg->len; size *= 2) {
        reg->sizes[0] |= reg->ops.read ? size : 0;
        reg->sizes[1] |= reg->ops.write ? size : 0;
    }
    return 0;
}

/* World stopped, vm->lock held. */
static int insert_stopped(struct io_reg *reg, const char *op)
{
    struct vm *vm = reg->vm;
    struct io_map *old = vm->io[reg->kind], *map;
    int err = check_place(vm, op, reg->kind, NULL, reg->base, reg->len);

    if (err)
        return err;
    map = map_new(old->n + 1);
    if (!map)
        return vm_fail(vm, VMM_E_NOMEM, op, "no memory for the I/O map");
    map->n = old->n;
    memcpy(map->reg, old->reg, old->n * sizeof(old->reg[0]));
    map_insert(map, reg);
    free(old);
    vm->io[reg->kind] = map;
    reg->next = vm->io_list;
    vm->io_list = reg;
    return 0;
}

static void io_unregister(struct io_reg *reg)
{
    struct vm *vm = reg->vm;

    unpost(reg);
    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    struct io_reg **p = &vm->io_list;
    while (*p != reg)
        p = &(*p)->next;
    *p = reg->next;
    map_remove(vm->io[reg->kind], reg);
    forget_hits(vm, reg->kind);
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
    reg_retire(reg);
}

static int io_register(struct vm *vm, const char *op, enum io_kind kind, uint64_t base,
                       uint64_t len, const struct vmm_io_ops *ops, void *opaque,
                       struct io_reg **out)
{
    int err = vm ? check_range(vm, op, kind, base, len) : VMM_E_INVAL;
    struct io_reg *reg;
    struct io_call call;

    if (err)
        return err;
    reg = calloc(1, kind == IO_MMIO ? sizeof(struct mmio) : sizeof(struct pio));
    if (!reg)
        return vm_fail(vm, VMM_E_NOMEM, op, "no memory for the registration");
    reg->vm = vm;
    reg->kind = kind;
    reg->base = base;
    reg->len = len;
    reg->opaque = opaque;
    err = reg_set_ops(reg, op, ops);
    if (err)
        goto out;
    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    err = insert_stopped(reg, op);
    if (!err && out)
        *out = reg; /* before the first callback can want it */
    if (!err)
        io_call_begin(&call, reg); /* a callback may unregister it at once */
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
    if (!err) {
        post(reg, base);
        io_call_end(&call);
    }
out:
    if (err)
        free(reg);
    return err;
}

int mmio_register(struct vm *vm, uint64_t gpa, uint64_t len, const struct vmm_io_ops *ops,
                  void *opaque, struct mmio **out)
{
    struct io_reg *reg;

    return io_register(vm, __func__, IO_MMIO, gpa, len, ops, opaque,
                       out ? (struct io_reg **)(void *)out : &reg);
}

int pio_register(struct vm *vm, uint16_t port, uint32_t len, const struct vmm_io_ops *ops,
                 void *opaque, struct pio **out)
{
    struct io_reg *reg;

    return io_register(vm, __func__, IO_PORT, port, len, ops, opaque,
                       out ? (struct io_reg **)(void *)out : &reg);
}

void mmio_unregister(struct mmio *mmio)
{
    if (mmio)
        io_unregister(&mmio->reg);
}

void pio_unregister(struct pio *pio)
{
    if (pio)
        io_unregister(&pio->reg);
}

int mmio_move(struct mmio *mmio, uint64_t gpa)
{
    struct io_reg *reg;
    struct vm *vm;
    int err;

    if (!mmio)
        return VMM_E_INVAL;
    reg = &mmio->reg;
    vm = reg->vm;
    err = check_range(vm, __func__, IO_MMIO, gpa, reg->len);

    if (err)
        return err;
    unpost(reg);
    core_world_stop(vm);
    os_mutex_lock(&vm->lock);
    err = check_place(vm, __func__, IO_MMIO, reg, gpa, reg->len);
    if (!err) {
        struct io_map *map = vm->io[IO_MMIO];

        map_remove(map, reg);
        reg->base = gpa;
        map_insert(map, reg);
        forget_hits(vm, IO_MMIO);
    }
    gpa = reg->base;
    os_mutex_unlock(&vm->lock);
    core_world_go(vm);
    post(reg, gpa);
    return err;
}

/* ---- life of the VM ---- */

int core_io_init(struct vm *vm)
{
    vm->io[IO_MMIO] = map_new(0);
    vm->io[IO_PORT] = map_new(0);
    if (vm->io[IO_MMIO] && vm->io[IO_PORT])
        return 0;
    free(vm->io[IO_MMIO]);
    free(vm->io[IO_PORT]);
    vm->io[IO_MMIO] = vm->io[IO_PORT] = NULL;
    return VMM_E_NOMEM;
}

void core_io_fini(struct vm *vm)
{
    /* A release may unregister others. */
    while (vm->io_list)
        io_unregister(vm->io_list);
    free(vm->io[IO_MMIO]);
    free(vm->io[IO_PORT]);
    vm->io[IO_MMIO] = vm->io[IO_PORT] = NULL;
}
