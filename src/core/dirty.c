/* SPDX-License-Identifier: BSD-2-Clause */
/* core/dirty.c: dirty tracking: which pages were written since they were last asked for.
 *
 * Each region has a byte per page while tracking is on. Who writes for the guest sets it: the core,
 * and engines by core_page.dirty; what the host's kernel logs instead comes with dirty_sync. Bytes
 * are cleared with the world stopped, and an engine that keeps pages as writable in a cache drops
 * that then (dirty_cleared), so that a store is either before the stop, and its byte was set then,
 * or sets it again. */
#include "core/mem_map.h"

typedef uint64_t eight_bytes __attribute__((may_alias));

/* ---- on and off ---- */

static void free_bytes(struct vm *vm)
{
    core_write_lock(&vm->mem_lock);
    for (uint32_t i = 0; i < vm->mem->n; i++)
        mem_dirty_free(&vm->mem->r[i]);
    core_write_unlock(&vm->mem_lock);
}

static int alloc_bytes(struct vm *vm)
{
    int err = 0;

    core_write_lock(&vm->mem_lock);
    for (uint32_t i = 0; i < vm->mem->n && !err; i++)
        err = mem_dirty_alloc(&vm->mem->r[i]);
    core_write_unlock(&vm->mem_lock);
    return err;
}

static void cleared(struct vm *vm, uint64_t gpa, uint64_t len)
{
    if (vm->ops->dirty_cleared)
        vm->ops->dirty_cleared(vm, gpa, len);
}

static int host_start(struct vm *vm)
{
    const struct backend_host_ops *host = vm->ops->host;
    int err = host && host->dirty_start ? host->dirty_start(vm) : VMM_E_UNSUPPORTED;

    vm->dirty_in_host = !err;
    return err == VMM_E_UNSUPPORTED ? 0 : err;
}

/* World stopped. */
static int start(struct vm *vm)
{
    if (vm->dirty_on)
        return vm_fail(vm, VMM_E_STATE, "vm_dirty_start", "dirty tracking is on");
    int err = alloc_bytes(vm);
    if (err)
        vm_fail(vm, err, "vm_dirty_start", "no memory for a byte per page");
    else
        err = host_start(vm);
    if (err) {
        free_bytes(vm);
        return err;
    }
    vm->dirty_on = true;
    cleared(vm, 0, UINT64_MAX);
    return 0;
}

int vm_dirty_start(struct vm *vm)
{
    if (!vm)
        return VMM_E_INVAL;
    core_world_stop(vm);
    int err = start(vm);
    core_world_go(vm);
    return err;
}

int vm_dirty_stop(struct vm *vm)
{
    int err = 0;

    if (!vm)
        return VMM_E_INVAL;
    core_world_stop(vm);
    if (!vm->dirty_on) {
        err = vm_fail(vm, VMM_E_STATE, __func__, "dirty tracking is off");
    } else {
        vm->dirty_on = false;
        if (vm->dirty_in_host)
            vm->ops->host->dirty_stop(vm);
        free_bytes(vm);
    }
    core_world_go(vm);
    return err;
}

/* ---- asking ---- */

struct query {
    uint64_t gpa, end;
    bool keep;
    uint64_t *bitmap;
    uint64_t count;
};

/* Page `n` of the region, which is page `bit` of the query. */
static void take_page(struct query *q, struct mem_region *r, uint64_t n, uint64_t bit)
{
    if (!atomic_load_explicit(&r->dirty[n], memory_order_acquire))
        return;
    /* vm_mem_write may mark it at the same time: what it wrote before that is in this result. */
    if (!q->keep)
        atomic_exchange(&r->dirty[n], 0);
    q->bitmap[bit / 64] |= 1ull << bit % 64;
    q->count++;
}

/* Most pages are clean. */
static bool eight_clean(const struct mem_region *r, uint64_t n)
{
    return n % 8 == 0 && !__atomic_load_n((eight_bytes *)(uintptr_t)&r->dirty[n], __ATOMIC_ACQUIRE);
}

/* The part of the region that is asked for. */
static void take_region(struct query *q, struct mem_region *r)
{
    uint64_t from = r->gpa > q->gpa ? r->gpa : q->gpa;
    uint64_t to = r->gpa + (r->len - 1) < q->end - 1 ? r->gpa + r->len : q->end;
    uint64_t n = (from - r->gpa) >> MEM_PAGE_SHIFT, last = (to - r->gpa) >> MEM_PAGE_SHIFT;
    uint64_t bit = (from - q->gpa) >> MEM_PAGE_SHIFT;

    while (n < last) {
        if (last - n >= 8 && eight_clean(r, n)) {
            n += 8;
            bit += 8;
        } else {
            take_page(q, r, n++, bit++);
        }
    }
}

/* World stopped. */
static int get(struct vm *vm, struct query *q)
{
    const struct backend_host_ops *host = vm->ops->host;

    if (!vm->dirty_on)
        return vm_fail(vm, VMM_E_STATE, "vm_dirty_get", "dirty tracking is off");
    if (q->gpa == q->end)
        return 0;
    int err = vm->dirty_in_host ? host->dirty_sync(vm, q->gpa, q->end - q->gpa) : 0;
    if (err)
        return err;
    for (uint32_t i = 0; i < vm->mem->n; i++) {
        struct mem_region *r = &vm->mem->r[i];

        if (r->gpa < q->end && r->gpa + (r->len - 1) >= q->gpa)
            take_region(q, r);
    }
    if (q->count && !q->keep)
        cleared(vm, q->gpa, q->end - q->gpa);
    return 0;
}

static int check(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t flags, const uint64_t *bitmap)
{
    uint64_t limit = 1ull << vm->caps.gpa_bits;

    if ((gpa | len) & (MEM_PAGE_SIZE - 1))
        return core_fail_gpa(vm, VMM_E_INVAL, "vm_dirty_get", gpa,
                             "address 0x%llx and length 0x%llx must be multiples of 4096",
                             (unsigned long long)gpa, (unsigned long long)len);
    if (flags & ~VMM_DIRTY_KEEP)
        return vm_fail(vm, VMM_E_INVAL, "vm_dirty_get", "unknown flags %#x",
                       flags & ~VMM_DIRTY_KEEP);
    if (!bitmap && len)
        return vm_fail(vm, VMM_E_INVAL, "vm_dirty_get", "bitmap is NULL");
    if (gpa > limit || len > limit - gpa)
        return core_fail_gpa(vm, VMM_E_RANGE, "vm_dirty_get", gpa,
                             "0x%llx bytes at 0x%llx end beyond the %u address bits",
                             (unsigned long long)len, (unsigned long long)gpa, vm->caps.gpa_bits);
    return 0;
}

int vm_dirty_get(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t flags, uint64_t *bitmap,
                 uint64_t *count)
{
    struct query q = {
        .gpa = gpa, .end = gpa + len, .keep = flags & VMM_DIRTY_KEEP, .bitmap = bitmap};
    int err = vm ? check(vm, gpa, len, flags, bitmap) : VMM_E_INVAL;

    if (err)
        return err;
    if (len)
        memset(bitmap, 0, ((len >> MEM_PAGE_SHIFT) + 63) / 64 * sizeof(*bitmap));
    core_world_stop(vm);
    err = get(vm, &q);
    core_world_go(vm);
    if (!err && count)
        *count = q.count;
    return err;
}
