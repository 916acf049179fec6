/* SPDX-License-Identifier: BSD-2-Clause */
/* fake_vm.h: the public functions that device models use, over a clock that the test turns.
 *
 * Included by one source file of a test program. Because the device code refers to nothing else of
 * the library, the linker takes these definitions instead of the library's, and a test can say
 * "838 ns later" and mean it. */
#ifndef FAKE_VM_H
#define FAKE_VM_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmm/device.h>
#include <vmm/machine.h>

#define FAKE_MAX_IO    64
#define FAKE_MAX_MEM   8
#define FAKE_MAX_VCPUS 4

struct fake_io {
    int used;
    uint64_t base, len;
    struct vmm_io_ops ops;
    void *opaque;
};

/* Never instantiated: handles point at struct fake_io. */
struct mmio {
    struct fake_io io;
};
struct pio {
    struct fake_io io;
};

struct vmm_timer {
    struct vmm_timer *next;
    struct vm *vm;
    void (*fire)(void *opaque, uint64_t deadline);
    void *opaque;
    uint64_t deadline; /* UINT64_MAX: not set */
};

struct vmm_device {
    struct vmm_device *next;
    struct vmm_device_ops ops;
    void *opaque;
};

struct vm {
    uint64_t clock;
    struct pio pio[FAKE_MAX_IO];
    struct mmio mmio[FAKE_MAX_IO];
    struct vmm_timer *timers;
    struct vmm_device *devices;
    struct {
        uint64_t gpa, len;
        uint8_t *host;
        int owned;
        uint32_t prot;
    } mem[FAKE_MAX_MEM];
    int level[VMM_IRQ_LINES];
    uint32_t edges[VMM_IRQ_LINES]; /* rising */
    uint32_t msis;                 /* messages sent, and the last one */
    uint64_t msi_address;
    uint32_t msi_data;
    uint32_t exits; /* vm_request_exit calls */
    uint32_t exit_reason;
    uint64_t exit_value;
    uint64_t fired;   /* timer callbacks */
    uint32_t no_irqs; /* as a VM without interrupt controllers */
    int last_error;
    char error_text[256];
};

static struct vm *fake_vm_new(void)
{
    struct vm *vm = calloc(1, sizeof *vm);

    if (!vm)
        abort();
    return vm;
}

__attribute__((unused)) static void fake_vm_reset(struct vm *vm)
{
    for (struct vmm_device *d = vm->devices; d; d = d->next)
        if (d->ops.reset)
            d->ops.reset(d->opaque);
}

static void fake_vm_free(struct vm *vm)
{
    while (vm->devices) {
        struct vmm_device *d = vm->devices;
        vm->devices = d->next;
        if (d->ops.stop)
            d->ops.stop(d->opaque);
        free(d);
    }
    for (int i = 0; i < FAKE_MAX_IO; i++)
        if (vm->pio[i].io.used || vm->mmio[i].io.used)
            abort(); /* a device did not unregister */
    if (vm->timers)
        abort();
    for (int i = 0; i < FAKE_MAX_MEM; i++)
        if (vm->mem[i].owned)
            free(vm->mem[i].host);
    free(vm);
}

/* Moves the clock, running timers on the way at their deadlines. */
__attribute__((unused)) static void fake_advance(struct vm *vm, uint64_t ns)
{
    uint64_t end = vm->clock + ns;

    for (;;) {
        struct vmm_timer *first = NULL;
        for (struct vmm_timer *t = vm->timers; t; t = t->next)
            if (t->deadline <= end && (!first || t->deadline < first->deadline))
                first = t;
        if (!first)
            break;
        uint64_t deadline = first->deadline;
        if (deadline > vm->clock)
            vm->clock = deadline;
        first->deadline = UINT64_MAX;
        vm->fired++;
        first->fire(first->opaque, deadline);
    }
    vm->clock = end;
}

static int fake_register(struct fake_io *io, uint64_t base, uint64_t len,
                         const struct vmm_io_ops *ops, void *opaque)
{
    io->used = 1;
    io->base = base;
    io->len = len;
    io->ops = *ops;
    io->opaque = opaque;
    return 0;
}

int pio_register(struct vm *vm, uint16_t port, uint32_t len, const struct vmm_io_ops *ops,
                 void *opaque, struct pio **out)
{
    struct pio *slot = NULL;

    for (int i = 0; i < FAKE_MAX_IO; i++) {
        struct fake_io *io = &vm->pio[i].io;
        if (!io->used)
            slot = slot ? slot : &vm->pio[i];
        else if (port < io->base + io->len && io->base < (uint64_t)port + len)
            return vm_fail(vm, VMM_E_EXIST, "pio_register", "port %#x is taken", port);
    }
    if (!slot)
        return VMM_E_LIMIT;
    if (out)
        *out = slot;
    return fake_register(&slot->io, port, len, ops, opaque);
}

void pio_unregister(struct pio *pio)
{
    if (!pio)
        return;
    pio->io.used = 0;
    if (pio->io.ops.release)
        pio->io.ops.release(pio->io.opaque);
}

int mmio_register(struct vm *vm, uint64_t gpa, uint64_t len, const struct vmm_io_ops *ops,
                  void *opaque, struct mmio **out)
{
    struct mmio *slot = NULL;

    for (int i = 0; i < FAKE_MAX_IO; i++) {
        struct fake_io *io = &vm->mmio[i].io;
        if (!io->used)
            slot = slot ? slot : &vm->mmio[i];
        else if (gpa < io->base + io->len && io->base < gpa + len)
            return vm_fail(vm, VMM_E_EXIST, "mmio_register", "overlap");
    }
    if (!slot)
        return VMM_E_LIMIT;
    if (out)
        *out = slot;
    return fake_register(&slot->io, gpa, len, ops, opaque);
}

void mmio_unregister(struct mmio *mmio)
{
    if (!mmio)
        return;
    mmio->io.used = 0;
    if (mmio->io.ops.release)
        mmio->io.ops.release(mmio->io.opaque);
}

/* One access with the size rules of vmm/io.h; returns 1 if nobody answered any part of it. */
static int fake_access(struct vm *vm, int is_mmio, uint64_t addr, uint32_t size, int write,
                       uint64_t *value)
{
    uint64_t in = 0;
    int nobody = 0;

    for (uint32_t done = 0; done < size;) {
        uint64_t a = addr + done, v = UINT64_MAX;
        struct fake_io *io = NULL;
        for (int i = 0; i < FAKE_MAX_IO && !io; i++) {
            struct fake_io *x = is_mmio ? &vm->mmio[i].io : &vm->pio[i].io;
            if (x->used && a >= x->base && a - x->base < x->len)
                io = x;
        }
        uint32_t max = io && io->ops.max_access ? io->ops.max_access : is_mmio ? 8 : 4;
        uint32_t n = 8;
        while (n > max || n > size - done || a % n || (io && a + n > io->base + io->len))
            n /= 2;
        if (!io)
            n = 1;
        uint64_t mask = n == 8 ? UINT64_MAX : (1ull << (n * 8)) - 1;
        int r = VMM_IO_NOBODY;
        if (io && n >= io->ops.min_access) {
            if (write && io->ops.write)
                r = io->ops.write(io->opaque, a - io->base, n, *value >> (done * 8) & mask);
            else if (!write && io->ops.read)
                r = io->ops.read(io->opaque, a - io->base, n, &v);
        }
        if (r != VMM_IO_OK) {
            v = UINT64_MAX;
            nobody = 1;
        }
        in |= (v & mask) << (done * 8);
        done += n;
    }
    if (!write)
        *value = in;
    return nobody;
}

__attribute__((unused)) static void outn(struct vm *vm, uint16_t port, uint32_t size, uint32_t v)
{
    uint64_t value = v;

    fake_access(vm, 0, port, size, 1, &value);
}

__attribute__((unused)) static uint32_t inn(struct vm *vm, uint16_t port, uint32_t size)
{
    uint64_t value = 0;

    fake_access(vm, 0, port, size, 0, &value);
    return (uint32_t)value;
}

#define outb(vm, port, v) outn(vm, (uint16_t)(port), 1, (uint32_t)(v))
#define outw(vm, port, v) outn(vm, (uint16_t)(port), 2, (uint32_t)(v))
#define outl(vm, port, v) outn(vm, (uint16_t)(port), 4, (uint32_t)(v))
#define inb(vm, port)     inn(vm, (uint16_t)(port), 1)
#define inw(vm, port)     inn(vm, (uint16_t)(port), 2)
#define inl(vm, port)     inn(vm, (uint16_t)(port), 4)

__attribute__((unused)) static void mmio_out(struct vm *vm, uint64_t gpa, uint32_t size, uint64_t v)
{
    fake_access(vm, 1, gpa, size, 1, &v);
}

__attribute__((unused)) static uint64_t mmio_in(struct vm *vm, uint64_t gpa, uint32_t size)
{
    uint64_t v = 0;

    fake_access(vm, 1, gpa, size, 0, &v);
    return v;
}

int vm_irq_set(struct vm *vm, uint32_t line, int level)
{
    if (vm->no_irqs)
        return vm_fail(vm, VMM_E_STATE, "vm_irq_set", "no interrupt controllers");
    if (line >= VMM_IRQ_LINES)
        return vm_fail(vm, VMM_E_RANGE, "vm_irq_set", "line %u", line);
    if (level && !vm->level[line])
        vm->edges[line]++;
    vm->level[line] = !!level;
    return 0;
}

int vm_irq_pulse(struct vm *vm, uint32_t line)
{
    int r = vm_irq_set(vm, line, 1);

    return r ? r : vm_irq_set(vm, line, 0);
}

int vm_irq_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    vm->msis++;
    vm->msi_address = address;
    vm->msi_data = data;
    return 0;
}

int vm_timer_create(struct vm *vm, void (*fire)(void *opaque, uint64_t deadline), void *opaque,
                    struct vmm_timer **out)
{
    struct vmm_timer *t = calloc(1, sizeof *t);

    if (!t)
        return VMM_E_NOMEM;
    t->vm = vm;
    t->fire = fire;
    t->opaque = opaque;
    t->deadline = UINT64_MAX;
    t->next = vm->timers;
    vm->timers = t;
    *out = t;
    return 0;
}

void vm_timer_set(struct vmm_timer *timer, uint64_t deadline)
{
    timer->deadline = deadline;
}

void vm_timer_cancel(struct vmm_timer *timer)
{
    timer->deadline = UINT64_MAX;
}

void vm_timer_destroy(struct vmm_timer *timer)
{
    if (!timer)
        return;
    for (struct vmm_timer **p = &timer->vm->timers; *p; p = &(*p)->next) {
        if (*p == timer) {
            *p = timer->next;
            break;
        }
    }
    free(timer);
}

uint64_t vm_clock(struct vm *vm)
{
    return vm->clock;
}

int vm_request_exit(struct vm *vm, uint32_t reason, uint64_t value)
{
    vm->exits++;
    vm->exit_reason = reason;
    vm->exit_value = value;
    return 0;
}

int vm_get_caps(struct vm *vm, struct vm_caps *caps)
{
    (void)vm;
    caps->max_vcpus = FAKE_MAX_VCPUS;
    caps->gpa_bits = 40;
    return 0;
}

int vm_device_add(struct vm *vm, const struct vmm_device_ops *ops, void *opaque,
                  struct vmm_device **out)
{
    struct vmm_device *d = calloc(1, sizeof *d);

    if (!d)
        return VMM_E_NOMEM;
    d->ops = *ops;
    d->opaque = opaque;
    d->next = vm->devices;
    vm->devices = d;
    if (out)
        *out = d;
    return 0;
}

const char *vmm_strerror(int err)
{
    return err ? "failed" : "no error";
}

int vm_fail(struct vm *vm, int code, const char *op, const char *format, ...)
{
    va_list ap;
    int n = snprintf(vm->error_text, sizeof vm->error_text, "%s: ", op);

    va_start(ap, format);
    vsnprintf(vm->error_text + n, sizeof vm->error_text - (size_t)n, format, ap);
    va_end(ap);
    vm->last_error = code;
    return code;
}

/* Regions stay sorted by address. */
static int fake_map(struct vm *vm, uint64_t gpa, void *host, uint64_t len, uint32_t prot, int owned)
{
    int i = FAKE_MAX_MEM - 1;

    if (vm->mem[i].host)
        return VMM_E_LIMIT;
    for (; i > 0 && (!vm->mem[i - 1].host || vm->mem[i - 1].gpa > gpa); i--)
        vm->mem[i] = vm->mem[i - 1];
    vm->mem[i].gpa = gpa;
    vm->mem[i].len = len;
    vm->mem[i].host = host;
    vm->mem[i].prot = prot;
    vm->mem[i].owned = owned;
    return 0;
}

int vm_mem_map(struct vm *vm, uint64_t gpa, void *host, uint64_t len, uint32_t prot)
{
    return fake_map(vm, gpa, host, len, prot, 0);
}

int vm_mem_alloc(struct vm *vm, uint64_t gpa, uint64_t len, uint32_t prot, void **host)
{
    void *p = calloc(1, len);

    if (!p)
        return VMM_E_NOMEM;
    if (host)
        *host = p;
    return fake_map(vm, gpa, p, len, prot, 1);
}

int vm_mem_region(struct vm *vm, uint32_t index, uint64_t *gpa, uint64_t *len, uint32_t *prot)
{
    if (index >= FAKE_MAX_MEM || !vm->mem[index].host)
        return VMM_E_NOENT;
    *gpa = vm->mem[index].gpa;
    *len = vm->mem[index].len;
    *prot = vm->mem[index].prot;
    return 0;
}

void *vm_mem_ptr(struct vm *vm, uint64_t gpa, uint64_t len)
{
    for (int i = 0; i < FAKE_MAX_MEM; i++)
        if (vm->mem[i].host && gpa >= vm->mem[i].gpa && gpa - vm->mem[i].gpa < vm->mem[i].len &&
            len <= vm->mem[i].len - (gpa - vm->mem[i].gpa))
            return vm->mem[i].host + (gpa - vm->mem[i].gpa);
    return NULL;
}

int vm_mem_read(struct vm *vm, uint64_t gpa, void *buf, uint64_t len)
{
    void *p = vm_mem_ptr(vm, gpa, len);

    if (!p)
        return VMM_E_RANGE;
    memcpy(buf, p, len);
    return 0;
}

int vm_mem_write(struct vm *vm, uint64_t gpa, const void *buf, uint64_t len)
{
    void *p = vm_mem_ptr(vm, gpa, len);

    if (!p)
        return VMM_E_RANGE;
    memcpy(p, buf, len);
    return 0;
}

#endif
