/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/io.c: doorbells as ioeventfds, posted writes as coalesced ranges. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backends/kvm/irq.h"

/*
 * Doorbells. KVM's ioeventfds have the semantics of the public API, so nothing is kept here but
 * what is needed to keep coalesced ranges away from them. Whatever KVM cannot do now (a descriptor
 * too many, no memory) the core does in software.
 *
 * Posted writes. KVM has one ring per VM for all coalesced ranges, which any of its vCPUs maps.
 * Each vCPU empties it after each KVM_RUN, before anything else is done about the exit; then all
 * that it has posted is delivered, and so is what other vCPUs have posted before. Entries are
 * delivered in the order of the ring: by one thread at a time, for which the others
 * wait; no lock is held during callbacks.
 */

#define PAGE      4096u
#define RING_SIZE PAGE
/* KVM_COALESCED_MMIO_MAX of the kernel's headers, which use their PAGE_SIZE. */
#define RING_MAX                                                                                   \
    ((RING_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

_Static_assert(sizeof(struct kvm_coalesced_mmio) == 24, "the layout of the kernel's ring");

/* A doorbell, or a range that is or should be coalesced. */
struct io_range {
    struct io_range *next;
    uint64_t addr, len;
    bool port;
    bool doorbell;
    bool active; /* coalesced now */
};

struct kvm_io {
    struct os_mutex lock; /* of all that follows; a leaf */
    struct io_range *ranges;
    _Atomic(struct kvm_coalesced_mmio_ring *) ring;
    _Atomic uintptr_t deliverer; /* the thread that delivers entries; 0: none */
    _Atomic uint32_t done;       /* counts the times that one has; a futex word */
    _Atomic bool used;           /* a range was coalesced at some time */
};

static struct kvm_io *io_of(struct vm *vm)
{
    return kvm_vm_of(vm)->io;
}

/* ---- life cycle ---- */

int kvm_io_init(struct vm *vm)
{
    struct kvm_io *io = calloc(1, sizeof(*io));

    if (!io || os_mutex_init(&io->lock)) {
        free(io);
        return vm_fail(vm, VMM_E_NOMEM, "vm_create", "no memory for doorbells");
    }
    kvm_vm_of(vm)->io = io;
    return 0;
}

void kvm_io_fini(struct vm *vm)
{
    struct kvm_io *io = io_of(vm);

    if (!io)
        return;
    kvm_vm_of(vm)->io = NULL;
    while (io->ranges) {
        struct io_range *r = io->ranges;

        io->ranges = r->next;
        free(r);
    }
    if (io->ring)
        munmap(io->ring, RING_SIZE);
    os_mutex_fini(&io->lock);
    free(io);
}

/* ---- ranges ---- */

static bool overlaps(const struct io_range *a, const struct io_range *b)
{
    return a->port == b->port && (a->addr - b->addr < b->len || b->addr - a->addr < a->len);
}

/* Has KVM coalesce the writes to the range, or not any more. Under the lock. */
static int coalesce(struct vm *vm, struct io_range *r, bool on)
{
    struct kvm_coalesced_mmio_zone zone = {
        .addr = r->addr,
        .size = (uint32_t)r->len,
        .pio = r->port,
    };

    if (r->active == on)
        return 0;
    int err = kvm_ioctl_p(kvm_vm_of(vm)->fd,
                          on ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, &zone);
    if (on && err < 0)
        return err;
    r->active = on;
    if (on)
        atomic_store(&io_of(vm)->used, true);
    return 0;
}

/* A doorbell's signal must not wait for the next exit, so a range with one in it is not coalesced.
 * Under the lock. */
static bool has_doorbell(const struct kvm_io *io, const struct io_range *range)
{
    for (const struct io_range *r = io->ranges; r; r = r->next)
        if (r->doorbell && overlaps(r, range))
            return true;
    return false;
}

/* After a doorbell has come or gone. Under the lock. */
static void update_ranges(struct vm *vm)
{
    struct kvm_io *io = io_of(vm);

    for (struct io_range *r = io->ranges; r; r = r->next)
        if (!r->doorbell)
            coalesce(vm, r, !has_doorbell(io, r));
}

static void insert(struct kvm_io *io, struct io_range *r)
{
    r->next = io->ranges;
    io->ranges = r;
}

/* Takes an equal range out of the list. Under the lock. */
static struct io_range *take(struct kvm_io *io, const struct io_range *like)
{
    for (struct io_range **p = &io->ranges; *p; p = &(*p)->next) {
        struct io_range *r = *p;

        if (r->doorbell == like->doorbell && r->port == like->port && r->addr == like->addr &&
            r->len == like->len) {
            *p = r->next;
            return r;
        }
    }
    return NULL;
}

/* ---- doorbells ---- */

static struct kvm_ioeventfd ioeventfd(const struct core_doorbell *d)
{
    return (struct kvm_ioeventfd){
        .datamatch = d->has_match ? d->match : 0,
        .addr = d->addr,
        .len = d->len,
        .fd = d->fd,
        .flags = (d->port ? KVM_IOEVENTFD_FLAG_PIO : 0u) |
                 (d->has_match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u),
    };
}

/* Accesses that begin at the address count, whatever their length. */
static struct io_range doorbell_range(const struct core_doorbell *d)
{
    return (struct io_range){.addr = d->addr, .len = 1, .port = d->port, .doorbell = true};
}

int kvm_doorbell_add(struct vm *vm, const struct core_doorbell *d)
{
    struct kvm_ioeventfd e = ioeventfd(d);
    struct kvm_io *io = io_of(vm);
    uint32_t needs = d->len ? KVM_HAS_IOEVENTFD : KVM_HAS_IOEVENTFD_ANY;

    if (!(kvm_host()->has & needs))
        return VMM_E_UNSUPPORTED;
    struct io_range *r = malloc(sizeof(*r));
    if (!r)
        return VMM_E_UNSUPPORTED;
    *r = doorbell_range(d);

    os_mutex_lock(&io->lock);
    int err = kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_IOEVENTFD, &e);
    if (err >= 0) {
        insert(io, r);
        update_ranges(vm);
    }
    os_mutex_unlock(&io->lock);
    if (err >= 0)
        return 0;
    free(r);
    return VMM_E_UNSUPPORTED;
}

void kvm_doorbell_del(struct vm *vm, const struct core_doorbell *d)
{
    struct kvm_ioeventfd e = ioeventfd(d);
    struct io_range like = doorbell_range(d);
    struct kvm_io *io = io_of(vm);

    e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    os_mutex_lock(&io->lock);
    kvm_ioctl_p(kvm_vm_of(vm)->fd, KVM_IOEVENTFD, &e);
    free(take(io, &like));
    update_ranges(vm);
    os_mutex_unlock(&io->lock);
}

/* ---- posted writes ---- */

int kvm_posted_add(struct vm *vm, bool port, uint64_t addr, uint64_t len)
{
    struct kvm_io *io = io_of(vm);
    uint32_t needs = port ? KVM_HAS_COALESCED_PIO : KVM_HAS_COALESCED_MMIO;

    if (!(kvm_host()->has & needs) || len > UINT32_MAX)
        return VMM_E_UNSUPPORTED;
    struct io_range *r = malloc(sizeof(*r));
    if (!r)
        return VMM_E_UNSUPPORTED;
    *r = (struct io_range){.addr = addr, .len = len, .port = port};

    os_mutex_lock(&io->lock);
    int err = has_doorbell(io, r) ? 0 : coalesce(vm, r, true);
    if (err >= 0)
        insert(io, r);
    os_mutex_unlock(&io->lock);
    if (err >= 0)
        return 0;
    free(r);
    return VMM_E_UNSUPPORTED;
}

/* All vCPUs map the same ring. Under the lock. */
static void map_ring(struct vm *vm, struct kvm_io *io)
{
    struct kvm_vm *kvm = kvm_vm_of(vm);
    int page = kvm_ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);

    for (uint32_t i = 0; i < VMM_MAX_VCPUS && page > 0 && !io->ring; i++) {
        if (kvm->vcpu_fd[i] < 0)
            continue;
        void *ring = mmap(NULL, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, kvm->vcpu_fd[i],
                          (off_t)page * PAGE);
        if (ring != MAP_FAILED)
            io->ring = ring;
    }
}

static bool in_range(const struct kvm_coalesced_mmio *e, const struct io_range *r)
{
    return (e->pio != 0) == r->port && e->phys_addr - r->addr < r->len;
}

/* What is in the ring for a range that goes must not reach whoever comes there next. Under the
 * lock. */
static void forget(struct vm *vm, struct kvm_io *io, const struct io_range *r)
{
    if (!io->ring)
        map_ring(vm, io);

    struct kvm_coalesced_mmio_ring *ring = io->ring;
    if (!ring)
        return;
    uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % RING_MAX;
    for (uint32_t i = ring->first % RING_MAX; i != last; i = (i + 1) % RING_MAX)
        if (in_range(&ring->coalesced_mmio[i], r))
            ring->coalesced_mmio[i].len = 0;
}

void kvm_posted_del(struct vm *vm, bool port, uint64_t addr, uint64_t len)
{
    struct io_range like = {.addr = addr, .len = len, .port = port};
    struct kvm_io *io = io_of(vm);

    os_mutex_lock(&io->lock);
    struct io_range *r = take(io, &like);
    if (r) {
        coalesce(vm, r, false);
        forget(vm, io, r);
    }
    os_mutex_unlock(&io->lock);
    free(r);
}

/* ---- the ring ---- */

/* Takes an entry out; false if there is none, or only such as came after `end`. Under the lock. */
static bool take_entry(struct kvm_io *io, uint32_t end, struct kvm_coalesced_mmio *entry)
{
    struct kvm_coalesced_mmio_ring *ring = io->ring;
    uint32_t first = ring->first % RING_MAX;

    if (first == end)
        return false;
    *entry = ring->coalesced_mmio[first];
    __atomic_store_n(&ring->first, (first + 1) % RING_MAX, __ATOMIC_RELEASE);
    return true;
}

/* The result is ignored, so it is an access from no CPU; the callback's thread is this vCPU's. */
static void deliver(struct vcpu *vcpu, const struct kvm_coalesced_mmio *e)
{
    uint64_t value = 0;

    if (e->len != 1 && e->len != 2 && e->len != 4 && e->len != 8)
        return;
    memcpy(&value, e->data, e->len);
    if (e->pio) {
        atomic_fetch_add_explicit(&vcpu->npio, 1, memory_order_relaxed);
        core_pio_access(vcpu->vm, NULL, 0, (uint16_t)e->phys_addr, e->len, true, &value);
    } else {
        atomic_fetch_add_explicit(&vcpu->nmmio, 1, memory_order_relaxed);
        core_mmio_access(vcpu->vm, NULL, 0, e->phys_addr, e->len, true, &value);
    }
}

/* Waits until no other thread delivers. Under the lock, which it lets go meanwhile. */
static void wait_turn(struct kvm_io *io)
{
    while (atomic_load(&io->deliverer)) {
        uint32_t seen = atomic_load(&io->done);

        os_mutex_unlock(&io->lock);
        os_wait(&io->done, seen, UINT64_MAX);
        os_mutex_lock(&io->lock);
    }
}

/* Under the lock, which it lets go during callbacks. */
static void deliver_all(struct vcpu *vcpu, struct kvm_io *io)
{
    struct kvm_coalesced_mmio_ring *ring = io->ring;
    uint32_t end = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE) % RING_MAX;
    struct kvm_coalesced_mmio entry;

    while (take_entry(io, end, &entry)) {
        os_mutex_unlock(&io->lock);
        deliver(vcpu, &entry);
        os_mutex_lock(&io->lock);
    }
}

static void drain(struct vcpu *vcpu, struct kvm_io *io)
{
    os_mutex_lock(&io->lock);
    wait_turn(io);
    if (!io->ring)
        map_ring(vcpu->vm, io);
    /* Before entries vanish: see nothing_to_do. */
    atomic_store(&io->deliverer, os_thread_self());
    if (io->ring)
        deliver_all(vcpu, io);
    atomic_store(&io->deliverer, 0);
    atomic_fetch_add(&io->done, 1);
    os_mutex_unlock(&io->lock);
    os_wake(&io->done);
}

/* Neither entries nor a thread that delivers some; or it is this thread that does, and looks at the
 * vCPU's state from a callback. */
static bool nothing_to_do(struct kvm_io *io)
{
    const struct kvm_coalesced_mmio_ring *ring;

    if (!atomic_load_explicit(&io->used, memory_order_acquire))
        return true;
    ring = atomic_load_explicit(&io->ring, memory_order_acquire);
    bool empty = ring && __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) ==
                             __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
    uintptr_t deliverer = atomic_load(&io->deliverer);
    return (empty && !deliverer) || deliverer == os_thread_self();
}

void kvm_io_drain(struct kvm_vcpu *kv)
{
    struct vcpu *vcpu = kv->vcpu;
    struct kvm_io *io = io_of(vcpu->vm);

    if (nothing_to_do(io))
        return;
    bool in_guest = atomic_load(&vcpu->in_guest);
    if (in_guest)
        core_guest_leave(vcpu);
    drain(vcpu, io);
    if (in_guest)
        core_guest_enter(vcpu);
}
