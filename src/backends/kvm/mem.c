/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/mem.c: the memory map as KVM's slots. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/kvm/kvm.h"
#include "core/mem_map.h"

/*
 * Each change makes the list of slots that there should be, and brings KVM's in line with it: slots
 * that are in both stay, the others go before new ones come, for they may overlap. Everything
 * happens with the world stopped, so that the guest never sees memory missing.
 *
 * A region is one slot; neighbours that are contiguous in the host too are one if there are more
 * regions than slot numbers. What KVM refuses as a slot is none: it stays correct, but slow. Want
 * of memory is another matter: a slot that could not be taken away leads to memory that is perhaps
 * no longer the guest's, so that no vCPU may run until a later attempt succeeds.
 */

/* ---- the list that there should be ---- */

static uint32_t slot_flags(const struct kvm_vm *kvm, const struct mem_region *r)
{
    if (!(r->prot & VMM_MEM_W))
        return KVM_MEM_READONLY;
    return kvm->dirty_on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
}

static bool continues(const struct kvm_slot *s, const struct mem_region *r, uint32_t flags)
{
    return s->gpa + s->len == r->gpa && s->host + s->len == r->host && s->flags == flags;
}

/* `list` has room for all regions; the number of slots. */
static uint32_t plan(const struct kvm_vm *kvm, const struct mem_map *map, struct kvm_slot *list)
{
    bool merge = map->n > kvm_host()->nslots;
    uint32_t n = 0;

    for (uint32_t i = 0; i < map->n; i++) {
        const struct mem_region *r = &map->r[i];
        uint32_t flags = slot_flags(kvm, r);

        if (merge && n && continues(&list[n - 1], r, flags))
            list[n - 1].len += r->len;
        else
            list[n++] = (struct kvm_slot){
                .gpa = r->gpa, .len = r->len, .host = r->host, .flags = flags, .id = KVM_NO_SLOT};
    }
    return n;
}

/* ---- changes of KVM's slots ---- */

static int set_region(const struct kvm_vm *kvm, const struct kvm_slot *s, uint64_t len)
{
    const struct kvm_userspace_memory_region region = {.slot = s->id,
                                                       .flags = s->flags,
                                                       .guest_phys_addr = s->gpa,
                                                       .memory_size = len,
                                                       .userspace_addr = (uintptr_t)s->host};

    return kvm_ioctl_p(kvm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static uint32_t take_id(struct kvm_vm *kvm)
{
    if (kvm->nfree_ids)
        return kvm->free_ids[--kvm->nfree_ids];
    return kvm->next_id < kvm_host()->nslots ? kvm->next_id++ : KVM_NO_SLOT;
}

/* There is room: as many numbers as slots were ever in the list at once. */
static void put_id(struct kvm_vm *kvm, uint32_t id)
{
    kvm->free_ids[kvm->nfree_ids++] = id;
}

static int remove_slot(struct vm *vm, struct kvm_slot *s)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int r;

    if (s->id == KVM_NO_SLOT)
        return 0;
    if (s->flags & KVM_MEM_LOG_DIRTY_PAGES)
        kvm_dirty_slot_gone(vm, s);
    r = set_region(kvm, s, 0);
    if (r < 0)
        return kvm_fail(vm, "vcpu_run", r, "KVM_SET_USER_MEMORY_REGION (removing memory)");
    put_id(kvm, s->id);
    s->id = KVM_NO_SLOT;
    return 0;
}

static int add_slot(struct vm *vm, struct kvm_slot *s)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int r;

    s->id = take_id(kvm);
    if (s->id == KVM_NO_SLOT)
        return 0;
    r = set_region(kvm, s, s->len);
    if (r >= 0)
        return 0;
    put_id(kvm, s->id);
    s->id = KVM_NO_SLOT;
    if (r == -EEXIST || r == -EINVAL)
        return 0; /* where KVM has pages of its own, or addresses that it cannot have */
    return kvm_fail(vm, "vcpu_run", r, "KVM_SET_USER_MEMORY_REGION");
}

static bool same(const struct kvm_slot *a, const struct kvm_slot *b)
{
    return a->gpa == b->gpa && a->len == b->len && a->host == b->host && a->flags == b->flags;
}

/* Removes the slots that are not in the list; those that are lend it their numbers. */
static int remove_old(struct vm *vm, struct kvm_slot *list, uint32_t n)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint32_t j = 0;
    int err = 0;

    for (uint32_t i = 0; i < kvm->nslots; i++) {
        struct kvm_slot *old = &kvm->slots[i];

        while (j < n && list[j].gpa < old->gpa)
            j++;
        if (j < n && same(old, &list[j])) {
            list[j].id = old->id;
            continue;
        }
        int r = remove_slot(vm, old);

        err = err ? err : r;
    }
    return err;
}

/* What could not be removed stays in the old list, and nothing is added. */
static int bring_in_line(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint32_t n;
    int err;

    if (vm->mem->n > kvm->free_ids_cap) {
        uint32_t *ids = realloc(kvm->free_ids, (size_t)vm->mem->n * 2 * sizeof(*ids));

        if (!ids)
            return vm_fail(vm, VMM_E_NOMEM, "vcpu_run", "no memory for the list of slots");
        kvm->free_ids = ids;
        kvm->free_ids_cap = vm->mem->n * 2;
    }
    struct kvm_slot *list = malloc((vm->mem->n + 1) * sizeof(*list));
    if (!list)
        return vm_fail(vm, VMM_E_NOMEM, "vcpu_run", "no memory for the list of slots");
    n = plan(kvm, vm->mem, list);
    err = remove_old(vm, list, n);
    if (err) {
        free(list);
        return err;
    }
    free(kvm->slots);
    kvm->slots = list;
    kvm->nslots = n;
    kvm->slots_lack = false;
    for (uint32_t i = 0; i < n; i++)
        if (list[i].id == KVM_NO_SLOT) {
            int r = add_slot(vm, &list[i]);

            err = err ? err : r;
            kvm->slots_lack |= list[i].id == KVM_NO_SLOT;
        }
    return err;
}

/* ---- from outside ---- */

void kvm_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    interp_mem_map_changed(vm, gpa, len);
    kvm_stub_yield(vm, gpa, len);
    atomic_store(&kvm_vm_of(vm)->mem_error, bring_in_line(vm));
}

int kvm_mem_settle(struct vcpu *vcpu)
{
    struct vm *vm = vcpu->vm;
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int err;

    core_world_stop(vm);
    err = atomic_load(&kvm->mem_error) ? bring_in_line(vm) : 0;
    atomic_store(&kvm->mem_error, err);
    core_world_go(vm);
    return err;
}

int kvm_mem_refresh(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int err = 0;

    if (!atomic_exchange(&kvm->derived, false))
        return 0;
    for (uint32_t i = 0; i < kvm->nslots && !err; i++)
        err = remove_slot(vm, &kvm->slots[i]);
    if (!err)
        err = bring_in_line(vm);
    if (err)
        atomic_store(&kvm->derived, true);
    atomic_store(&kvm->mem_error, err);
    return err;
}

int kvm_mem_log(struct vm *vm, bool on)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int err = 0;

    for (uint32_t i = 0; i < kvm->nslots; i++) {
        struct kvm_slot *s = &kvm->slots[i], changed = *s;
        int r = 0;

        if (s->flags & KVM_MEM_READONLY)
            continue;
        changed.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
        if (changed.flags != s->flags && s->id != KVM_NO_SLOT)
            r = set_region(kvm, &changed, changed.len);
        if (r >= 0)
            s->flags = changed.flags;
        else
            err = kvm_fail(vm, on ? "vm_dirty_start" : "vm_dirty_stop", r,
                           "KVM_SET_USER_MEMORY_REGION (logging)");
    }
    return err;
}

void kvm_mem_fini(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    free(kvm->slots);
    free(kvm->free_ids);
    kvm->slots = NULL;
    kvm->free_ids = NULL;
}
