/* SPDX-License-Identifier: BSD-2-Clause */
/* core/io.c: dispatch of MMIO and port accesses to callbacks, and what becomes of their results. */
#include "core/doorbell.h"
#include "core/record.h"

/*
 * States of vcpu->defer, for an access whose callback may return VMM_IO_DEFER. mmio_complete may
 * come from any thread, also before the callback has returned.
 */
enum {
    DEFER_NONE,
    DEFER_OPEN,    /* the callback runs */
    DEFER_WAIT,    /* it returned VMM_IO_DEFER */
    DEFER_WRITING, /* a thread is in mmio_complete */
    DEFER_DONE,    /* vcpu->defer_value is the answer */
};

static uint64_t size_mask(uint32_t size)
{
    return size == 8 ? UINT64_MAX : (1ull << size * 8) - 1;
}

/* One access as the instruction makes it, and the piece of it that is being made. */
struct io_access {
    struct vm *vm;
    struct vcpu *vcpu; /* may be NULL */
    enum io_kind kind;
    bool write;
    uint64_t serial;
    uint64_t addr;
    uint32_t size;
    uint64_t value;
};

static enum core_answer answer_kind(const struct io_access *a)
{
    return a->kind == IO_MMIO ? ANSWER_MMIO : ANSWER_PIO;
}

static uint32_t key(const struct io_access *a)
{
    return core_record_key(answer_kind(a), a->write, a->size, a->addr);
}

/* ---- results ---- */

/* The access waits for its answer in a new entry of the record. */
static int suspend(struct io_access *a, enum record_state state)
{
    if (!core_record_add(a->vcpu, key(a), state, size_mask(a->size)))
        return CORE_IO_OK; /* nobody can answer it any more */
    return core_record_abort(a->vcpu);
}

static void fill_exit(struct vcpu *vcpu, const struct io_access *a)
{
    struct vcpu_exit *exit = &vcpu->exit;
    uint64_t data = a->write ? a->value : size_mask(a->size);

    memset(&exit->u, 0, sizeof(exit->u));
    if (a->kind == IO_MMIO) {
        exit->reason = VMM_EXIT_MMIO;
        exit->u.mmio.gpa = a->addr;
        exit->u.mmio.data = data;
        exit->u.mmio.len = (uint8_t)a->size;
        exit->u.mmio.access = a->write ? VMM_ACCESS_WRITE : VMM_ACCESS_READ;
    } else {
        exit->reason = VMM_EXIT_PIO;
        exit->u.pio.port = (uint16_t)a->addr;
        exit->u.pio.data = data;
        exit->u.pio.len = (uint8_t)a->size;
        exit->u.pio.access = a->write ? VMM_ACCESS_WRITE : VMM_ACCESS_READ;
    }
    vcpu->answer = answer_kind(a);
}

/* The program is to answer. */
static int leave_to_program(struct io_access *a)
{
    if (!a->vcpu) {
        a->value = size_mask(a->size);
        return CORE_IO_OK;
    }
    int r = suspend(a, RECORD_EXIT);
    if (r == CORE_IO_ABORT)
        fill_exit(a->vcpu, a);
    else
        a->value = size_mask(a->size);
    return r;
}

static int finish(struct io_access *a, uint64_t value)
{
    a->value = value & size_mask(a->size);
    if (a->vcpu)
        core_record_add(a->vcpu, key(a), RECORD_DONE, a->value);
    return CORE_IO_OK;
}

/* ---- DEFER ---- */

/* Ends the time in which mmio_complete may answer; true with the answer if it has. */
static bool defer_take(struct vcpu *vcpu, uint64_t *value)
{
    while (atomic_load(&vcpu->defer) == DEFER_WRITING)
        os_yield(); /* two stores of another thread */
    if (atomic_exchange(&vcpu->defer, DEFER_NONE) != DEFER_DONE)
        return false;
    *value = vcpu->defer_value;
    return true;
}

static int defer(struct io_access *a)
{
    uint32_t open = DEFER_OPEN;
    uint64_t value;

    if (!a->vcpu)
        return finish(a, UINT64_MAX);
    if (atomic_compare_exchange_strong(&a->vcpu->defer, &open, DEFER_WAIT)) {
        int r = suspend(a, RECORD_DEFER);

        if (r != CORE_IO_ABORT) {
            defer_take(a->vcpu, &value);
            a->value = size_mask(a->size);
        }
        return r;
    }
    return finish(a, defer_take(a->vcpu, &value) ? value : UINT64_MAX);
}

int mmio_complete(struct vcpu *vcpu, uint64_t value)
{
    uint32_t state;

    if (!vcpu)
        return VMM_E_INVAL;
    state = atomic_load(&vcpu->defer);
    do {
        if (state != DEFER_OPEN && state != DEFER_WAIT)
            return vm_fail(vcpu->vm, VMM_E_STATE, __func__,
                           "no access of vCPU %u waits for completion", vcpu->id);
    } while (!atomic_compare_exchange_weak(&vcpu->defer, &state, DEFER_WRITING));
    vcpu->defer_value = value;
    atomic_store(&vcpu->defer, DEFER_DONE);
    core_vcpu_request(vcpu, VCPU_REQ_DEFER);
    return 0;
}

bool core_io_deferred(struct vcpu *vcpu)
{
    uint32_t state = atomic_load(&vcpu->defer);

    return state == DEFER_WAIT || state == DEFER_WRITING;
}

void core_io_drop(struct vcpu *vcpu)
{
    uint64_t value;

    defer_take(vcpu, &value);
    vcpu->record.n = 0;
    vcpu->record.pos = 0;
}

/* ---- the program's answer ---- */

void core_io_answer(struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct core_record *rec = &vcpu->record;
    struct core_record_entry *e;
    uint64_t value = UINT64_MAX;

    if (!rec->n)
        return;
    e = &rec->e[rec->n - 1];
    if (e->state != RECORD_EXIT)
        return;
    if (exit && vcpu->answer == ANSWER_MMIO)
        value = exit->u.mmio.data;
    else if (exit && vcpu->answer == ANSWER_PIO)
        value = exit->u.pio.data;
    e->value = value & size_mask(core_record_size(e->key));
    e->state = RECORD_DONE;
}

/* ---- callbacks ---- */

static void count(struct io_access *a)
{
    if (a->vcpu)
        atomic_fetch_add_explicit(a->kind == IO_MMIO ? &a->vcpu->nmmio : &a->vcpu->npio, 1,
                                  memory_order_relaxed);
}

/* Calls the registration's callback, with `call` begun; out of guest state. */
static int call_back(struct io_access *a, struct io_reg *reg, uint64_t offset, uint64_t *value)
{
    bool posted = reg->ops.flags & VMM_IO_POSTED;

    *value = UINT64_MAX;
    if (a->write) {
        int r = reg->ops.write(reg->opaque, offset, a->size, a->value);

        return posted ? VMM_IO_OK : r;
    }
    return reg->ops.read(reg->opaque, offset, a->size, value);
}

/* Makes one piece that lies in `reg`, in guest state (or, from no CPU, with vm->lock held). */
static int deliver(struct io_access *a, struct io_reg *reg)
{
    struct vcpu *vcpu = a->vcpu;
    uint64_t offset = a->addr - reg->base, value;
    struct io_call call;
    int r;

    if (a->size < reg->min || !(a->write ? (void *)reg->ops.write : (void *)reg->ops.read))
        return finish(a, UINT64_MAX);
    count(a);
    io_call_begin(&call, reg);
    if (vcpu) {
        atomic_store(&vcpu->defer, DEFER_OPEN);
        core_guest_leave(vcpu);
        r = call_back(a, reg, offset, &value);
    } else {
        os_mutex_unlock(&a->vm->lock);
        r = call_back(a, reg, offset, &value);
    }
    io_call_end(&call);
    if (vcpu)
        core_guest_enter(vcpu);
    else
        os_mutex_lock(&a->vm->lock);

    if (r == VMM_IO_DEFER)
        return defer(a);
    if (vcpu) {
        uint64_t unused;

        defer_take(vcpu, &unused);
    }
    switch (r) {
    case VMM_IO_OK:
        return finish(a, value);
    case VMM_IO_EXIT:
        return leave_to_program(a);
    default:
        return finish(a, UINT64_MAX);
    }
}

/* ---- splitting ---- */

/* The registration that holds `addr`, or NULL; *room bytes from `addr` on are of the same kind. */
static struct io_reg *lookup(const struct io_access *a, uint64_t addr, uint64_t *room)
{
    struct io_reg *reg = a->vcpu ? a->vcpu->io_hit[a->kind] : NULL;

    if (!reg || addr - reg->base >= reg->len) {
        reg = io_map_at_or_after(a->vm->io[a->kind], addr);
        if (!reg || addr < reg->base) {
            *room = reg ? reg->base - addr : UINT64_MAX;
            return NULL;
        }
        if (a->vcpu)
            a->vcpu->io_hit[a->kind] = reg;
    }
    *room = reg->len - (addr - reg->base);
    return reg;
}

/* The largest naturally aligned access at `addr` of at most `max` bytes. */
static uint32_t aligned_size(uint64_t addr, uint64_t max)
{
    uint32_t size = 8;

    while (size > max || addr & (size - 1))
        size /= 2;
    return size;
}

/* Makes a piece at a->addr; sets a->size, of at most `left` bytes. `whole`: it may be the access
 * itself, which the program gets as it is even if it is not aligned. */
static int make_piece(struct io_access *a, uint32_t left, bool whole)
{
    uint64_t room, max = left;
    struct io_reg *reg;

    reg = lookup(a, a->addr, &room);
    if (reg && max > reg->max)
        max = reg->max;
    if (max > room)
        max = room;
    a->size = !reg && whole && max == left ? left : aligned_size(a->addr, max);
    a->value &= size_mask(a->size);
    if (reg)
        return deliver(a, reg);
    if (a->kind == IO_PORT && a->addr > UINT16_MAX)
        return finish(a, UINT64_MAX);
    return leave_to_program(a);
}

/* Answers a piece from the record. */
static int replay(struct io_access *a, struct core_record_entry *e)
{
    a->size = core_record_size(e->key);
    if (e->state == RECORD_DEFER) {
        if (core_io_deferred(a->vcpu))
            return core_record_abort(a->vcpu);
        if (!defer_take(a->vcpu, &e->value))
            e->value = UINT64_MAX;
        e->value &= size_mask(a->size);
        e->state = RECORD_DONE;
    }
    if (e->state == RECORD_EXIT) {
        a->value &= size_mask(a->size);
        fill_exit(a->vcpu, a);
        return core_record_abort(a->vcpu);
    }
    a->value = e->value;
    core_record_skip(a->vcpu);
    return CORE_IO_OK;
}

/* The piece that was made at a->addr before the instruction was aborted, whatever has happened to
 * the registrations since; NULL if none was. */
static struct core_record_entry *recorded(const struct io_access *a, uint32_t left)
{
    struct core_record_entry *e;
    uint32_t size;

    if (!a->vcpu)
        return NULL;
    e = core_record_next(a->vcpu, a->serial);
    if (!e)
        return NULL;
    size = core_record_size(e->key);
    if (size <= left && e->key == core_record_key(answer_kind(a), a->write, size, a->addr))
        return e;
    core_record_cut(a->vcpu);
    return NULL;
}

/* A write as the instruction makes it may be all that a doorbell waits for. */
static bool rings(const struct io_access *a, uint64_t value)
{
    const struct doorbell_map *map = a->vm->doorbells[a->kind];

    return __builtin_expect(map != NULL, 0) && a->write &&
           core_doorbell_ring(map, a->addr, a->size, value & size_mask(a->size));
}

static int access_pieces(const struct io_access *whole, uint64_t *value)
{
    uint64_t in = 0;

    for (uint32_t done = 0; done < whole->size;) {
        struct io_access a = *whole;
        struct core_record_entry *e;
        int r;

        a.addr += done;
        a.value = *value >> done * 8;
        e = recorded(&a, whole->size - done);
        if (e)
            r = replay(&a, e);
        else if (!done && rings(whole, *value))
            r = finish(&a, a.value);
        else
            r = make_piece(&a, whole->size - done, !done);
        if (r != CORE_IO_OK)
            return r;
        in |= (a.value & size_mask(a.size)) << done * 8;
        done += a.size;
    }
    if (!whole->write)
        *value = in;
    return CORE_IO_OK;
}

/* Nearly all accesses are whole, the first of their instruction, and of the registration that took
 * the last one: that registration, or NULL. */
static struct io_reg *plain(const struct io_access *a)
{
    struct io_reg *reg = a->vcpu->io_hit[a->kind];

    if (!reg || a->addr - reg->base >= reg->len || a->size > reg->max ||
        a->size > reg->len - (a->addr - reg->base) || (a->addr & (a->size - 1)) ||
        a->vm->doorbells[a->kind] || a->vcpu->record.serial == a->serial)
        return NULL;
    return reg;
}

static int make_plain(struct io_access *a, struct io_reg *reg, uint64_t *value)
{
    int r;

    core_record_next(a->vcpu, a->serial); /* begins it */
    a->value = *value & size_mask(a->size);
    r = deliver(a, reg);
    if (r == CORE_IO_OK && !a->write)
        *value = a->value;
    return r;
}

static int make_access(struct io_access *a, uint64_t *value)
{
    struct io_reg *reg;
    int r;

    if (a->vcpu) {
        reg = plain(a);
        return reg ? make_plain(a, reg, value) : access_pieces(a, value);
    }
    os_mutex_lock(&a->vm->lock);
    r = access_pieces(a, value);
    os_mutex_unlock(&a->vm->lock);
    return r;
}

int core_mmio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint64_t gpa, uint32_t size,
                     bool write, uint64_t *value)
{
    struct io_access a = {vm, vcpu, IO_MMIO, write, serial, gpa, size, 0};

    return make_access(&a, value);
}

int core_pio_access(struct vm *vm, struct vcpu *vcpu, uint64_t serial, uint16_t port, uint32_t size,
                    bool write, uint64_t *value)
{
    struct io_access a = {vm, vcpu, IO_PORT, write, serial, port, size, 0};

    return make_access(&a, value);
}

/* ---- the only access of an instruction ---- */

/* What becomes of it when its callback has not just made it. Nothing is recorded before: an
 * instruction that is over is not executed again. */
static __attribute__((noinline)) int not_made(struct io_access *a, int r, uint64_t value)
{
    core_record_next(a->vcpu, a->serial); /* begins it */
    if (r == VMM_IO_DEFER)
        return defer(a);
    defer_take(a->vcpu, &value);
    return r == VMM_IO_EXIT ? leave_to_program(a) : finish(a, UINT64_MAX);
}

static __attribute__((noinline)) int make_other(struct vcpu *vcpu, uint64_t serial, unsigned how,
                                                uint64_t addr, uint32_t size, uint64_t *value)
{
    if (how & CORE_PORT)
        return core_pio_access(vcpu->vm, vcpu, serial, (uint16_t)addr, size, how & CORE_WRITE,
                               value);
    return core_mmio_access(vcpu->vm, vcpu, serial, addr, size, how & CORE_WRITE, value);
}

int core_only_access(struct vcpu *vcpu, uint64_t serial, unsigned how, uint64_t addr, uint32_t size,
                     uint64_t *value)
{
    const bool write = how & CORE_WRITE;
    const unsigned kind = how & CORE_PORT, unused = 64 - 8 * size;
    struct io_reg *reg = vcpu->io_hit[kind];
    uint32_t open = DEFER_OPEN;
    uint64_t in = UINT64_MAX, offset;
    struct io_call call;
    int r;

    if (__builtin_expect(!reg || !(reg->sizes[write] & size) || (addr & (size - 1)), 0))
        return make_other(vcpu, serial, how, addr, size, value);
    offset = addr - reg->base;
    if (__builtin_expect(
            offset > reg->len - size || vcpu->vm->doorbells[kind] || !core_guest_leaves(vcpu), 0))
        return make_other(vcpu, serial, how, addr, size, value);
    core_count(kind == IO_MMIO ? &vcpu->nmmio : &vcpu->npio);
    io_call_begin(&call, reg);
    atomic_store(&vcpu->defer, DEFER_OPEN);
    core_guest_out(vcpu);
    if (write)
        r = reg->ops.write(reg->opaque, offset, size, *value << unused >> unused);
    else
        r = reg->ops.read(reg->opaque, offset, size, &in);
    if (write && (reg->ops.flags & VMM_IO_POSTED))
        r = VMM_IO_OK;
    io_call_end(&call);
    core_guest_in(vcpu);
    if (__builtin_expect(r != VMM_IO_OK ||
                             !atomic_compare_exchange_strong(&vcpu->defer, &open, DEFER_NONE),
                         0)) {
        struct io_access a = {vcpu->vm, vcpu, kind, write,
                              serial,   addr, size, *value << unused >> unused};

        if (r == VMM_IO_OK) {
            uint64_t late;

            defer_take(vcpu, &late);
        } else {
            r = not_made(&a, r, 0);
            in = a.value;
            if (r != CORE_IO_OK)
                return r;
        }
    }
    if (!write)
        *value = in << unused >> unused;
    return CORE_IO_OK;
}
