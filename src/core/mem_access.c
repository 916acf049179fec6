/* SPDX-License-Identifier: BSD-2-Clause */
/* core/mem_access.c: the host program's copies from and to guest memory. */
#include "core/mem_map.h"
#include "mmu/mmu.h"

/* With mem_lock held: 0 if all of [gpa, gpa+len) is memory, else the failure. */
static int check(struct vm *vm, const char *op, uint64_t gpa, uint64_t len, bool write)
{
    while (len) {
        struct mem_region *r = mem_find(vm->mem, gpa);

        if (!r)
            return core_fail_gpa(vm, VMM_E_RANGE, op, gpa, "no memory at 0x%llx",
                                 (unsigned long long)gpa);
        if (write && r->host_ro)
            return core_fail_gpa(vm, VMM_E_PERM, op, gpa,
                                 "the file behind 0x%llx is open for reading only",
                                 (unsigned long long)gpa);
        uint64_t part = r->len - (gpa - r->gpa);
        if (part >= len)
            break;
        gpa += part;
        len -= part;
    }
    return 0;
}

int vm_mem_read(struct vm *vm, uint64_t gpa, void *buf, uint64_t len)
{
    uint8_t *to = buf;
    int err;

    if (!vm)
        return VMM_E_INVAL;
    if (!buf && len)
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, gpa, "no buffer");
    core_read_lock(&vm->mem_lock);
    err = check(vm, __func__, gpa, len, false);
    while (!err && len) {
        struct mem_region *r = mem_find(vm->mem, gpa);
        uint64_t at = gpa - r->gpa, part = r->len - at < len ? r->len - at : len;

        mmu_copy(to, r->host + at, part);
        to += part;
        gpa += part;
        len -= part;
    }
    core_read_unlock(&vm->mem_lock);
    return err;
}

/* With mem_lock held: after a change of memory, marks its pages dirty; true if vCPUs have decoded
 * code there. */
static bool mark(struct vm *vm, uint64_t gpa, uint64_t len)
{
    uint64_t code = 0;

    /* A vCPU sets the page's bit before it reads the bytes: either it sees the new bytes, or its
     * bit is seen here. */
    atomic_thread_fence(memory_order_seq_cst);
    while (len) {
        struct mem_region *r = mem_find(vm->mem, gpa);
        uint64_t at = gpa - r->gpa, part = r->len - at < len ? r->len - at : len;
        uint64_t last = (at + part - 1) >> MEM_PAGE_SHIFT;

        for (uint64_t n = at >> MEM_PAGE_SHIFT; n <= last; n++) {
            if (r->dirty)
                atomic_store_explicit(&r->dirty[n], 1, memory_order_relaxed);
            code |= atomic_load_explicit(&r->code[n], memory_order_acquire);
        }
        gpa += part;
        len -= part;
    }
    return code != 0;
}

static void code_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    core_world_stop(vm);
    vm->ops->code_changed(vm, gpa, len);
    core_world_go(vm);
}

int vm_mem_write(struct vm *vm, uint64_t gpa, const void *buf, uint64_t len)
{
    const uint8_t *from = buf;
    uint64_t done = 0;
    bool code = false;
    int err;

    if (!vm)
        return VMM_E_INVAL;
    if (!buf && len)
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, gpa, "no buffer");
    core_read_lock(&vm->mem_lock);
    err = check(vm, __func__, gpa, len, true);
    while (!err && done < len) {
        struct mem_region *r = mem_find(vm->mem, gpa + done);
        uint64_t at = gpa + done - r->gpa;
        uint64_t part = r->len - at < len - done ? r->len - at : len - done;

        mmu_copy(r->host + at, from + done, part);
        done += part;
    }
    if (!err)
        code = mark(vm, gpa, len);
    core_read_unlock(&vm->mem_lock);
    if (code)
        code_changed(vm, gpa, len);
    return err;
}

int vm_mem_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    bool code = false;
    int err;

    if (!vm)
        return VMM_E_INVAL;
    core_read_lock(&vm->mem_lock);
    err = check(vm, __func__, gpa, len, false);
    if (!err)
        code = mark(vm, gpa, len);
    core_read_unlock(&vm->mem_lock);
    if (code)
        code_changed(vm, gpa, len);
    return err;
}

void *vm_mem_ptr(struct vm *vm, uint64_t gpa, uint64_t len)
{
    void *host = NULL;

    if (!vm)
        return NULL;
    core_read_lock(&vm->mem_lock);
    struct mem_region *r = mem_find(vm->mem, gpa);
    if (r && len <= r->len - (gpa - r->gpa))
        host = r->host + (gpa - r->gpa);
    core_read_unlock(&vm->mem_lock);
    return host;
}
