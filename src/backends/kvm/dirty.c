/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/dirty.c: dirty tracking: KVM's logs, moved to the pages' dirty bytes. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/kvm/kvm.h"
#include "backends/kvm/uapi.h"

/*
 * Where KVM has dirty rings, each vCPU has one from its creation on, for KVM takes no later
 * decision: it costs 64 KiB and some ten microseconds then, and later a look at the log costs as
 * much as there are dirty pages, however much memory there is (vm_dirty_get of 1 GiB with 50 of
 * them: 31 us instead of 44). Else each slot has a bitmap.
 * Everything that happens here happens with the world stopped, but for a vCPU that empties its own
 * ring because it is full.
 *
 * KVM looks between two instructions that it emulates, and between two entries, whether a ring is
 * nearly full, and keeps 64 entries for what comes until then. One that emulates CPL 0 as a whole
 * goes on for a thousand instructions, and overwrites the log: there it is bitmaps.
 */

#define PAGE_SHIFT 12
#define RING_BYTES 65536u /* 4096 pages; KVM keeps some hundred entries for itself */

static void mark(struct vm *vm, uint64_t gpa)
{
    struct core_page page;

    if (core_mem_page(vm, gpa, &page) && page.dirty)
        atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
}

/* ---- rings ---- */

void kvm_dirty_init(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    const struct kvm_host *host = kvm_host();
    struct kvm_enable_cap cap = {.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL};
    uint32_t bytes = host->dirty_ring_bytes < RING_BYTES ? host->dirty_ring_bytes : RING_BYTES;

    if (!(host->has & KVM_HAS_DIRTY_RING) || !bytes || (host->bad & KVM_BAD_EMULATION))
        return;
    cap.args[0] = bytes;
    /* Without it there are bitmaps. */
    if (kvm_ioctl_p(kvm->fd, KVM_ENABLE_CAP, &cap) >= 0)
        kvm->ring_bytes = bytes;
}

void kvm_dirty_fini(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    for (unsigned i = 0; i < VMM_MAX_VCPUS; i++)
        if (kvm->ring[i].map)
            munmap(kvm->ring[i].map, kvm->ring_bytes);
    free(kvm->dirty_bits);
}

/* The ring belongs to KVM's vCPU, which outlives the library's. */
static int map_ring(struct vm *vm, unsigned id)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    off_t offset = (off_t)KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE);
    void *map;

    if (kvm->ring[id].map || kvm->vcpu_fd[id] < 0)
        return 0;
    map = mmap(NULL, kvm->ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, kvm->vcpu_fd[id], offset);
    if (map == MAP_FAILED)
        return vm_fail(vm, VMM_E_NOMEM, "vm_dirty_get", "cannot map the dirty ring of vCPU %u", id);
    kvm->ring[id].map = map;
    return 0;
}

static const struct kvm_slot *slot_of(const struct kvm_vm *kvm, uint32_t id)
{
    for (uint32_t i = 0; i < kvm->nslots; i++)
        if (kvm->slots[i].id == id)
            return &kvm->slots[i];
    return NULL;
}

/* Empties one ring. */
static void collect(struct vm *vm, unsigned id)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint32_t mask = kvm->ring_bytes / (uint32_t)sizeof(struct kvm_dirty_gfn) - 1;
    struct kvm_dirty_gfn *map = kvm->ring[id].map;
    const struct kvm_slot *slot = NULL;

    for (; map; kvm->ring[id].next++) {
        struct kvm_dirty_gfn *gfn = &map[kvm->ring[id].next & mask];

        if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
            break;
        if (!slot || slot->id != gfn->slot)
            slot = slot_of(kvm, gfn->slot);
        if (slot)
            mark(vm, slot->gpa + (gfn->offset << PAGE_SHIFT));
        __atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        atomic_store_explicit(&kvm->ring_reset_due, true, memory_order_relaxed);
    }
}

/* What has been collected is logged again from now on. After a failure it is due all the same. */
static int reset_rings(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int r;

    if (!atomic_exchange(&kvm->ring_reset_due, false))
        return 0;
    r = kvm_ioctl(kvm->fd, KVM_RESET_DIRTY_RINGS, 0);
    if (r >= 0)
        return 0;
    atomic_store(&kvm->ring_reset_due, true);
    return kvm_fail(vm, "vm_dirty_get", r, "KVM_RESET_DIRTY_RINGS");
}

int kvm_dirty_harvest(struct kvm_vcpu *kv)
{
    struct vm *vm = kv->vcpu->vm;
    int err;

    if (!kvm_vm_of(vm)->ring_bytes)
        return 0;
    err = map_ring(vm, kv->vcpu->id);
    if (err)
        return err;
    collect(vm, kv->vcpu->id);
    return reset_rings(vm);
}

static int harvest_all(struct vm *vm)
{
    for (unsigned i = 0; i < vm->max_vcpus; i++) {
        int err = map_ring(vm, i);

        if (err)
            return err;
        collect(vm, i);
    }
    return reset_rings(vm);
}

/* ---- bitmaps ---- */

static uint64_t pages_of(const struct kvm_slot *slot)
{
    return slot->len >> PAGE_SHIFT;
}

static int make_room(struct vm *vm, const struct kvm_slot *slot)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    size_t words = (pages_of(slot) + 63) / 64;
    uint64_t *bits;

    if (words <= kvm->dirty_bits_cap)
        return 0;
    bits = calloc(words, sizeof(*bits));
    if (!bits)
        return vm_fail(vm, VMM_E_NOMEM, "vm_dirty_get", "no memory for a bitmap of %llu pages",
                       (unsigned long long)pages_of(slot));
    free(kvm->dirty_bits);
    kvm->dirty_bits = bits;
    kvm->dirty_bits_cap = words;
    return 0;
}

/* Marks the pages of words first to last; true if there are any. */
static bool mark_words(struct vm *vm, const struct kvm_slot *slot, uint64_t first, uint64_t last)
{
    const uint64_t *bits = kvm_vm_of(vm)->dirty_bits;
    uint64_t any = 0;

    for (uint64_t w = first; w <= last; w++) {
        any |= bits[w];
        for (uint64_t left = bits[w]; left; left &= left - 1)
            mark(vm, slot->gpa + ((w * 64 + (uint64_t)__builtin_ctzll(left)) << PAGE_SHIFT));
    }
    return any;
}

/* With manual protection KVM_GET_DIRTY_LOG changes nothing. */
static int clear_words(struct vm *vm, const struct kvm_slot *slot, uint64_t first, uint64_t last)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    uint64_t end = (last + 1) * 64 < pages_of(slot) ? (last + 1) * 64 : pages_of(slot);
    const struct kvm_clear_dirty_log log = {.slot = slot->id,
                                            .first_page = first * 64,
                                            .num_pages = (uint32_t)(end - first * 64),
                                            .dirty_bitmap = kvm->dirty_bits + first};
    int r = kvm_ioctl_p(kvm->fd, KVM_CLEAR_DIRTY_LOG, &log);

    return r < 0 ? kvm_fail(vm, "vm_dirty_get", r, "KVM_CLEAR_DIRTY_LOG") : 0;
}

/* Pages first to last of the slot, and some around them. */
static int sync_slot(struct vm *vm, const struct kvm_slot *slot, uint64_t first, uint64_t last)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    bool manual = kvm_host()->has & KVM_HAS_MANUAL_DIRTY;
    struct kvm_dirty_log log = {.slot = slot->id};
    int err = make_room(vm, slot), r;

    if (err)
        return err;
    log.dirty_bitmap = kvm->dirty_bits;
    r = kvm_ioctl_p(kvm->fd, KVM_GET_DIRTY_LOG, &log);
    if (r < 0)
        return kvm_fail(vm, "vm_dirty_get", r, "KVM_GET_DIRTY_LOG");
    if (!manual) {
        mark_words(vm, slot, 0, (pages_of(slot) - 1) / 64);
        return 0;
    }
    return mark_words(vm, slot, first / 64, last / 64)
               ? clear_words(vm, slot, first / 64, last / 64)
               : 0;
}

static bool logged(const struct kvm_slot *slot)
{
    return slot->id != KVM_NO_SLOT && (slot->flags & KVM_MEM_LOG_DIRTY_PAGES);
}

/* ---- from outside ---- */

int kvm_dirty_start(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int err = kvm_mem_log(vm, true);

    if (err)
        kvm_mem_log(vm, false);
    kvm->dirty_on = !err;
    return err;
}

void kvm_dirty_stop(struct vm *vm)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    kvm->dirty_on = false;
    kvm_mem_log(vm, false);
    if (kvm->ring_bytes) /* so that nothing old is in them at the next start */
        harvest_all(vm);
}

int kvm_dirty_sync(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);

    if (kvm->ring_bytes)
        return harvest_all(vm);
    for (uint32_t i = 0; i < kvm->nslots && len; i++) {
        const struct kvm_slot *s = &kvm->slots[i];
        uint64_t end = gpa + (len - 1), slot_end = s->gpa + (s->len - 1);

        if (!logged(s) || s->gpa > end || slot_end < gpa)
            continue;
        int err = sync_slot(vm, s, gpa > s->gpa ? (gpa - s->gpa) >> PAGE_SHIFT : 0,
                            ((end < slot_end ? end : slot_end) - s->gpa) >> PAGE_SHIFT);

        if (err)
            return err;
    }
    return 0;
}

/* If it cannot be known any more what was written, all of it was. */
void kvm_dirty_slot_gone(struct vm *vm, const struct kvm_slot *slot)
{
    int err;

    if (!logged(slot))
        return;
    if (kvm_vm_of(vm)->ring_bytes)
        err = harvest_all(vm);
    else
        err = sync_slot(vm, slot, 0, pages_of(slot) - 1);
    for (uint64_t at = 0; err && at < slot->len; at += 1u << PAGE_SHIFT)
        mark(vm, slot->gpa + at);
}
