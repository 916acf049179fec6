/* SPDX-License-Identifier: BSD-2-Clause */
/* core/memory.c: guest-physical memory regions: mapping, unmapping, protection, lookup.
 *
 * The map is changed with the world stopped and mem_lock held for writing, so that vCPUs in guest
 * state read it without a lock, and other threads with mem_lock held for reading. */
#include <errno.h>
#include <stdlib.h>

#include "core/mem_map.h"

/* More would make insertion and the copies of the map slow. */
#define MEM_MAX_REGIONS 4096u

/* ---- lookup ---- */

static bool holds(const struct mem_region *r, uint64_t gpa)
{
    return gpa - r->gpa < r->len; /* below r->gpa the difference wraps to a large number */
}

/* Number of the first region that ends behind `gpa`. */
static uint32_t mem_index(const struct mem_map *map, uint64_t gpa)
{
    uint32_t lo = 0, hi = map->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (map->r[mid].gpa + (map->r[mid].len - 1) < gpa)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct mem_region *mem_find(struct mem_map *map, uint64_t gpa)
{
    uint32_t i = atomic_load_explicit(&map->hit, memory_order_relaxed);

    if (i < map->n && holds(&map->r[i], gpa))
        return &map->r[i];
    i = mem_index(map, gpa);
    if (i == map->n || !holds(&map->r[i], gpa))
        return NULL;
    atomic_store_explicit(&map->hit, i, memory_order_relaxed);
    return &map->r[i];
}

bool core_mem_page(struct vm *vm, uint64_t gpa, struct core_page *page)
{
    struct mem_region *r = mem_find(vm->mem, gpa);

    if (!r) {
        *page = (struct core_page){.fd = -1};
        return false;
    }
    uint64_t n = (gpa - r->gpa) >> MEM_PAGE_SHIFT;
    page->host = r->host + (n << MEM_PAGE_SHIFT);
    page->prot = r->prot;
    page->code = &r->code[n];
    page->dirty = r->dirty ? &r->dirty[n] : NULL;
    page->fd = r->fd;
    page->fd_offset = r->fd_offset + (n << MEM_PAGE_SHIFT);
    return true;
}

/* ---- what a region owns ---- */

static uint64_t code_len(const struct mem_region *r)
{
    return (r->len >> MEM_PAGE_SHIFT) * sizeof(*r->code);
}

static uint64_t dirty_len(const struct mem_region *r)
{
    return (r->len >> MEM_PAGE_SHIFT) * sizeof(*r->dirty);
}

/* The words about each page, touched lazily like the pages themselves. */
static int code_alloc(struct mem_region *r)
{
    r->code = os_pages_alloc(code_len(r));
    return r->code ? 0 : VMM_E_NOMEM;
}

int mem_dirty_alloc(struct mem_region *r)
{
    r->dirty = os_pages_alloc(dirty_len(r));
    return r->dirty ? 0 : VMM_E_NOMEM;
}

void mem_dirty_free(struct mem_region *r)
{
    os_pages_free(r->dirty, dirty_len(r));
    r->dirty = NULL;
}

static void region_free(struct mem_region *r)
{
    os_pages_free(r->code, code_len(r));
    mem_dirty_free(r);
    if (r->kind == MEM_PAGES)
        os_pages_free(r->host, r->len);
    if (r->fd >= 0)
        os_fd_close(r->fd);
}

/* ---- changes ---- */

static int check_args(struct vm *vm, const char *op, uint64_t gpa, uint64_t len, uint32_t prot)
{
    uint64_t limit = 1ull << vm->caps.gpa_bits;

    if (!len || (gpa | len) & (MEM_PAGE_SIZE - 1))
        return core_fail_gpa(vm, VMM_E_INVAL, op, gpa,
                             "address 0x%llx and length 0x%llx must be multiples of 4096 and the "
                             "length not 0",
                             (unsigned long long)gpa, (unsigned long long)len);
    if ((prot & ~VMM_MEM_RWX) || !(prot & VMM_MEM_R))
        return core_fail_gpa(vm, VMM_E_INVAL, op, gpa, "bad protection 0x%x", prot);
    if (gpa >= limit || len > limit - gpa)
        return core_fail_gpa(vm, VMM_E_RANGE, op, gpa,
                             "0x%llx bytes at 0x%llx end beyond the %u address bits",
                             (unsigned long long)len, (unsigned long long)gpa, vm->caps.gpa_bits);
    return 0;
}

/* Replaces the map. World stopped. */
static void publish(struct vm *vm, struct mem_map *map, const struct mem_region *changed)
{
    struct mem_map *old = vm->mem;

    core_write_lock(&vm->mem_lock);
    vm->mem = map;
    core_write_unlock(&vm->mem_lock);
    free(old);
    vm->ops->mem_map_changed(vm, changed->gpa, changed->len);
}

static struct mem_map *map_new(uint32_t n)
{
    struct mem_map *map = malloc(sizeof(*map) + n * sizeof(map->r[0]));

    if (map) {
        atomic_init(&map->hit, 0);
        map->n = n;
    }
    return map;
}

/* World stopped. */
static int insert_stopped(struct vm *vm, const char *op, struct mem_region *r)
{
    struct mem_map *old = vm->mem, *map;
    uint32_t i = mem_index(old, r->gpa);

    if (i < old->n && old->r[i].gpa <= r->gpa + (r->len - 1))
        return core_fail_gpa(vm, VMM_E_EXIST, op, r->gpa,
                             "0x%llx bytes at 0x%llx overlap the region of 0x%llx bytes at 0x%llx",
                             (unsigned long long)r->len, (unsigned long long)r->gpa,
                             (unsigned long long)old->r[i].len, (unsigned long long)old->r[i].gpa);
    if (old->n >= MEM_MAX_REGIONS)
        return core_fail_gpa(vm, VMM_E_LIMIT, op, r->gpa, "there are %u regions already", old->n);
    if (vm->dirty_on && mem_dirty_alloc(r))
        return core_fail_gpa(vm, VMM_E_NOMEM, op, r->gpa, "no memory to track the region");
    map = map_new(old->n + 1);
    if (!map)
        return core_fail_gpa(vm, VMM_E_NOMEM, op, r->gpa, "no memory for the map of regions");
    memcpy(map->r, old->r, i * sizeof(map->r[0]));
    map->r[i] = *r;
    memcpy(map->r + i + 1, old->r + i, (old->n - i) * sizeof(map->r[0]));
    publish(vm, map, r);
    return 0;
}

/* Takes over `r` with all that it owns, even when it fails. */
static int insert(struct vm *vm, const char *op, struct mem_region *r)
{
    int err = code_alloc(r);

    if (err) {
        region_free(r);
        return core_fail_gpa(vm, err, op, r->gpa, "no memory for the page table of the region");
    }
    core_world_stop(vm);
    err = insert_stopped(vm, op, r);
    core_world_go(vm);
    if (err)
        region_free(r);
    return err;
}

int vm_mem_map(struct vm *vm, uint64_t gpa, void *host, uint64_t len, uint32_t prot)
{
    struct mem_region r = {.gpa = gpa, .len = len, .host = host, .prot = prot, .fd = -1};
    int err = vm ? check_args(vm, __func__, gpa, len, prot) : VMM_E_INVAL;

    if (err)
        return err;
    if (!host || (uintptr_t)host & (MEM_PAGE_SIZE - 1))
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, gpa,
                             "host pointer %p is not the start of a page", host);
    if (len > UINTPTR_MAX - (uintptr_t)host)
        return core_fail_gpa(vm, VMM_E_RANGE, __func__, gpa,
                             "0x%llx bytes at host pointer %p end beyond the address space",
                             (unsigned long long)len, host);
    r.kind = MEM_BORROWED;
    return insert(vm, __func__, &r);
}

static int fd_error(int os_errno)
{
    switch (os_errno) {
    case EACCES:
    case EPERM:
        return VMM_E_PERM;
    case EBADF:
    case EINVAL:
        return VMM_E_INVAL;
    case ENOMEM:
        return VMM_E_NOMEM;
    default:
        return VMM_E_IO;
    }
}

int vm_mem_map_fd(struct vm *vm, uint64_t gpa, int fd, uint64_t offset, uint64_t len, uint32_t prot)
{
    struct mem_region r = {.gpa = gpa, .len = len, .prot = prot, .kind = MEM_PAGES, .fd = -1};
    int err = vm ? check_args(vm, __func__, gpa, len, prot) : VMM_E_INVAL, os_errno = 0;
    uint64_t size;

    if (err)
        return err;
    if (offset & (MEM_PAGE_SIZE - 1))
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, gpa,
                             "file offset 0x%llx is not a multiple of 4096",
                             (unsigned long long)offset);
    os_errno = os_file_size(fd, &size);
    if (os_errno)
        return core_fail_os(vm, fd_error(os_errno), __func__, os_errno, "descriptor %d", fd);
    if (offset > size || len > size - offset)
        return core_fail_gpa(vm, VMM_E_RANGE, __func__, gpa,
                             "the file has 0x%llx bytes, not 0x%llx at offset 0x%llx",
                             (unsigned long long)size, (unsigned long long)len,
                             (unsigned long long)offset);
    /* Writable for the host even if not for the guest: vm_mem_write, vm_mem_protect. */
    r.host = os_pages_map_fd(fd, offset, len, true, &os_errno);
    if (!r.host && !(prot & VMM_MEM_W) && fd_error(os_errno) == VMM_E_PERM) {
        r.host_ro = true;
        r.host = os_pages_map_fd(fd, offset, len, false, &os_errno);
    }
    if (!r.host)
        return core_fail_os(vm, fd_error(os_errno), __func__, os_errno,
                            "cannot map 0x%llx bytes of descriptor %d at offset 0x%llx",
                            (unsigned long long)len, fd, (unsigned long long)offset);
    /* Mapping a device once more may be more than mapping memory once more: files only. */
    if ((vm->flags & VMM_VM_DIRECT) && size != UINT64_MAX) {
        r.fd = os_fd_dup(fd);
        r.fd_offset = offset;
    }
    return insert(vm, __func__, &r);
}

int vm_mem_alloc(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t prot, void **host)
{
    struct mem_region r = {.gpa = gpa, .len = len, .prot = prot, .kind = MEM_PAGES, .fd = -1};
    int err = vm ? check_args(vm, __func__, gpa, len, prot) : VMM_E_INVAL;

    if (err)
        return err;
    if (vm->flags & VMM_VM_DIRECT)
        r.host = os_pages_alloc_fd(len, &r.fd);
    if (!r.host)
        r.host = os_pages_alloc(len);
    if (!r.host)
        return core_fail_gpa(vm, VMM_E_NOMEM, __func__, gpa,
                             "the host has no 0x%llx bytes of memory", (unsigned long long)len);
    err = insert(vm, __func__, &r);
    if (!err && host)
        *host = r.host;
    return err;
}

/* The region that begins at `gpa`. World stopped. */
static struct mem_region *region_at(struct vm *vm, uint64_t gpa)
{
    struct mem_region *r = mem_find(vm->mem, gpa);

    return r && r->gpa == gpa ? r : NULL;
}

/* World stopped. *gone gets what is to be freed. */
static int remove_stopped(struct vm *vm, uint64_t gpa, struct mem_region *gone)
{
    struct mem_map *map = vm->mem;
    struct mem_region *r = region_at(vm, gpa);

    if (!r)
        return core_fail_gpa(vm, VMM_E_NOENT, "vm_mem_unmap", gpa, "no region begins at 0x%llx",
                             (unsigned long long)gpa);
    /* In place: taking something away must not fail for want of memory. */
    *gone = *r;
    core_write_lock(&vm->mem_lock);
    map->n--;
    memmove(r, r + 1, (size_t)(map->r + map->n - r) * sizeof(*r));
    core_write_unlock(&vm->mem_lock);
    vm->ops->mem_map_changed(vm, gone->gpa, gone->len);
    return 0;
}

int vm_mem_unmap(struct vm *vm, uint64_t gpa)
{
    struct mem_region gone = {.fd = -1};
    int err;

    if (!vm)
        return VMM_E_INVAL;
    core_world_stop(vm);
    err = remove_stopped(vm, gpa, &gone);
    core_world_go(vm);
    if (!err)
        region_free(&gone);
    return err;
}

/* World stopped. */
static int protect_stopped(struct vm *vm, uint64_t gpa, uint32_t prot)
{
    struct mem_region *r = region_at(vm, gpa);

    if (!r)
        return core_fail_gpa(vm, VMM_E_NOENT, "vm_mem_protect", gpa, "no region begins at 0x%llx",
                             (unsigned long long)gpa);
    if (r->host_ro && (prot & VMM_MEM_W))
        return core_fail_gpa(vm, VMM_E_PERM, "vm_mem_protect", gpa,
                             "the region is a file that is open for reading only");
    core_write_lock(&vm->mem_lock);
    r->prot = prot;
    core_write_unlock(&vm->mem_lock);
    vm->ops->mem_map_changed(vm, r->gpa, r->len);
    return 0;
}

int vm_mem_protect(struct vm *vm, uint64_t gpa, uint32_t prot)
{
    int err;

    if (!vm)
        return VMM_E_INVAL;
    if ((prot & ~VMM_MEM_RWX) || !(prot & VMM_MEM_R))
        return core_fail_gpa(vm, VMM_E_INVAL, __func__, gpa, "bad protection 0x%x", prot);
    core_world_stop(vm);
    err = protect_stopped(vm, gpa, prot);
    core_world_go(vm);
    return err;
}

int vm_mem_region(struct vm *vm, uint32_t index, uint64_t *gpa, uint64_t *len, uint32_t *prot)
{
    int err = VMM_E_NOENT; /* the normal end of a walk: not worth an error record */

    if (!vm)
        return VMM_E_INVAL;
    core_read_lock(&vm->mem_lock);
    if (index < vm->mem->n) {
        const struct mem_region *r = &vm->mem->r[index];

        if (gpa)
            *gpa = r->gpa;
        if (len)
            *len = r->len;
        if (prot)
            *prot = r->prot;
        err = 0;
    }
    core_read_unlock(&vm->mem_lock);
    return err;
}

/* ---- life of the VM ---- */

int core_mem_init(struct vm *vm)
{
    vm->mem = map_new(0);
    return vm->mem ? 0 : VMM_E_NOMEM;
}

void core_mem_fini(struct vm *vm)
{
    if (!vm->mem)
        return;
    for (uint32_t i = 0; i < vm->mem->n; i++)
        region_free(&vm->mem->r[i]);
    free(vm->mem);
    vm->mem = NULL;
}
