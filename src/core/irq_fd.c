/* SPDX-License-Identifier: BSD-2-Clause */
/* core/irq_fd.c: message routes, and descriptors whose signals are interrupts. */
#include <stdlib.h>

#include "core/internal.h"

/*
 * A descriptor is served by the host's kernel if the engine can have it do that, else by the VM's
 * thread (watch.c). The list and the routes are under irq_lock.
 */
struct irq_fd {
    struct irq_fd *next;
    struct vm *vm;
    uint32_t line; /* or route */
    int fd;        /* the caller's number of it: its name */
    int event;     /* duplicates */
    int resample;  /* or -1 */
    bool in_kernel;
    struct core_watch *watch; /* unless in_kernel */
};

static bool is_route(uint32_t line)
{
    return line >= VMM_IRQ_ROUTE_FIRST;
}

/* ---- routes ---- */

static int check_route(struct vm *vm, const char *op, uint32_t route)
{
    int err = core_irq_check(vm, op);

    if (err)
        return err;
    if (!is_route(route) || route - VMM_IRQ_ROUTE_FIRST >= VMM_IRQ_ROUTES)
        return vm_fail(vm, VMM_E_RANGE, op, "route %u, but they are numbered %u to %u", route,
                       VMM_IRQ_ROUTE_FIRST, VMM_IRQ_ROUTE_FIRST + VMM_IRQ_ROUTES - 1);
    return 0;
}

/* Under irq_lock. */
static int set_route(struct vm *vm, uint32_t number, const struct core_route *route)
{
    const struct backend_host_ops *host = vm->ops->host;

    if (!vm->routes)
        vm->routes = calloc(VMM_IRQ_ROUTES, sizeof(*vm->routes));
    if (!vm->routes)
        return vm_fail(vm, VMM_E_NOMEM, "vm_irq_route", "no memory for routes");
    int err = host && host->route_changed ? host->route_changed(vm, number, route) : 0;
    if (err && err != VMM_E_UNSUPPORTED)
        return err;
    vm->routes[number - VMM_IRQ_ROUTE_FIRST] = *route;
    return 0;
}

int vm_irq_route(struct vm *vm, uint32_t route, uint64_t address, uint32_t data)
{
    struct core_route r = {0};
    int err = vm ? check_route(vm, __func__, route) : VMM_E_INVAL;

    if (!err && address) {
        r = (struct core_route){.set = true, .address = address, .data = data};
        err = core_irq_check_msi(vm, __func__, address);
    }
    if (err)
        return err;
    os_mutex_lock(&vm->irq_lock);
    err = set_route(vm, route, &r);
    os_mutex_unlock(&vm->irq_lock);
    return err;
}

/* ---- signals ---- */

static void send_route(struct vm *vm, uint32_t number)
{
    struct core_route route = {0};

    os_mutex_lock(&vm->irq_lock);
    if (vm->routes)
        route = vm->routes[number - VMM_IRQ_ROUTE_FIRST];
    os_mutex_unlock(&vm->irq_lock);
    if (route.set)
        core_irq_msi(vm, route.address, route.data);
}

/* On the VM's thread. */
static void signalled(void *opaque)
{
    struct irq_fd *f = opaque;
    struct vm *vm = f->vm;

    if (is_route(f->line)) {
        send_route(vm, f->line);
        return;
    }
    os_mutex_lock(&vm->irq_lock);
    if (f->resample < 0) {
        core_irq_pulse(vm, f->line);
    } else {
        vm->irq_resampled |= 1u << f->line;
        core_irq_drive(vm, f->line);
    }
    os_mutex_unlock(&vm->irq_lock);
}

/* Under irq_lock: the line is not asserted by descriptors any more. */
static void lower(struct vm *vm, uint32_t line)
{
    uint32_t bit = 1u << line;

    if (!(vm->irq_resampled & bit))
        return;
    vm->irq_resampled &= ~bit;
    core_irq_drive(vm, line);
}

void core_irq_fd_eoi(struct vm *vm, uint32_t line)
{
    os_mutex_lock(&vm->irq_lock);
    lower(vm, line);
    for (struct irq_fd *f = vm->irq_fds; f; f = f->next)
        if (f->line == line && f->resample >= 0 && !f->in_kernel)
            os_event_signal(f->resample);
    os_mutex_unlock(&vm->irq_lock);
}

/* Under irq_lock: brings irq_resample_lines up to date; `extra`: a line that is about to need it.
 */
static int update_lines(struct vm *vm, uint32_t extra)
{
    vm->irq_resample_lines = extra;
    for (struct irq_fd *f = vm->irq_fds; f; f = f->next)
        if (f->resample >= 0 && !f->in_kernel)
            vm->irq_resample_lines |= 1u << f->line;
    return core_irq_update_wanted(vm);
}

/* ---- adding and removing ---- */

static void close_fds(const struct irq_fd *f)
{
    if (f->event >= 0)
        os_event_close(f->event);
    if (f->resample >= 0)
        os_event_close(f->resample);
}

static int dup_fd(struct vm *vm, int fd, int *out)
{
    int err = os_event_dup(fd, out);

    if (!err)
        return 0;
    *out = -1;
    return core_fail_os(vm, core_fd_error(err), "vm_irq_fd", err, "descriptor %d%s", fd,
                        core_fd_error(err) == VMM_E_INVAL ? " is no eventfd" : "");
}

/* Under irq_lock. */
static int serve_in_kernel(struct irq_fd *f)
{
    const struct backend_host_ops *host = f->vm->ops->host;

    if (!host || !host->irq_fd_add)
        return VMM_E_UNSUPPORTED;
    int err = host->irq_fd_add(f->vm, f->line, f->event, f->resample);
    f->in_kernel = !err;
    return err;
}

/* Under irq_lock. */
static int serve_here(struct irq_fd *f)
{
    int err = f->resample < 0 ? 0 : update_lines(f->vm, 1u << f->line);

    if (!err)
        err = core_watch_add(f->vm, "vm_irq_fd", f->event, signalled, f, &f->watch);
    if (err)
        update_lines(f->vm, 0);
    return err;
}

/* Under irq_lock. */
static int add(struct irq_fd *f)
{
    struct vm *vm = f->vm;

    for (struct irq_fd *other = vm->irq_fds; other; other = other->next)
        if (other->fd == f->fd)
            return vm_fail(vm, VMM_E_EXIST, "vm_irq_fd", "descriptor %d is on line %u", f->fd,
                           other->line);
    int err = serve_in_kernel(f);
    if (err == VMM_E_UNSUPPORTED)
        err = serve_here(f);
    if (err)
        return err;
    f->next = vm->irq_fds;
    vm->irq_fds = f;
    return 0;
}

static int check_args(struct vm *vm, uint32_t line, int resample_fd)
{
    int err = is_route(line) ? check_route(vm, "vm_irq_fd", line) : core_irq_check(vm, "vm_irq_fd");

    if (!err && is_route(line) && resample_fd >= 0)
        err = vm_fail(vm, VMM_E_INVAL, "vm_irq_fd", "a message has no level to resample");
    return err;
}

int vm_irq_fd(struct vm *vm, uint32_t line, int fd, int resample_fd)
{
    int err = vm ? check_args(vm, line, resample_fd) : VMM_E_INVAL;

    if (err)
        return err;
    struct irq_fd *f = malloc(sizeof(*f));
    if (!f)
        return vm_fail(vm, VMM_E_NOMEM, __func__, "no memory for the descriptor");
    *f = (struct irq_fd){.vm = vm, .line = line, .fd = fd, .event = -1, .resample = -1};
    err = dup_fd(vm, fd, &f->event);
    if (!err && resample_fd >= 0)
        err = dup_fd(vm, resample_fd, &f->resample);
    if (!err) {
        os_mutex_lock(&vm->irq_lock);
        err = add(f);
        os_mutex_unlock(&vm->irq_lock);
    }
    if (err) {
        close_fds(f);
        free(f);
    }
    return err;
}

/* Takes the first that fits out of the list; any if `fd` is -1. Under irq_lock. */
static struct irq_fd *take(struct vm *vm, uint32_t line, int fd)
{
    struct irq_fd **p = &vm->irq_fds, *f;

    while (*p && fd >= 0 && ((*p)->line != line || (*p)->fd != fd))
        p = &(*p)->next;
    f = *p;
    if (!f)
        return NULL;
    *p = f->next;
    if (f->in_kernel)
        vm->ops->host->irq_fd_del(vm, f->line, f->event);
    return f;
}

/* Ends what `take` has begun, without a lock: a signal may be being delivered. */
static void finish(struct irq_fd *f)
{
    struct vm *vm = f->vm;

    core_watch_remove(f->watch);
    if (f->resample >= 0 && !f->in_kernel) {
        os_mutex_lock(&vm->irq_lock);
        update_lines(vm, 0);
        if (!(vm->irq_resample_lines >> f->line & 1))
            lower(vm, f->line);
        os_mutex_unlock(&vm->irq_lock);
    }
    close_fds(f);
    free(f);
}

int vm_irq_fd_remove(struct vm *vm, uint32_t line, int fd)
{
    struct irq_fd *f = NULL;
    int err = vm ? core_irq_check(vm, __func__) : VMM_E_INVAL;

    if (err)
        return err;
    os_mutex_lock(&vm->irq_lock);
    if (fd >= 0)
        f = take(vm, line, fd);
    os_mutex_unlock(&vm->irq_lock);
    if (!f)
        return vm_fail(vm, VMM_E_NOENT, __func__, "descriptor %d is not on line %u", fd, line);
    finish(f);
    return 0;
}

void core_irq_fds_fini(struct vm *vm)
{
    struct irq_fd *f;

    do {
        os_mutex_lock(&vm->irq_lock);
        f = take(vm, 0, -1);
        if (!f) {
            free(vm->routes);
            vm->routes = NULL;
            vm->irqchip_kind = VMM_IRQCHIP_NONE; /* callbacks to come find no controllers */
        }
        os_mutex_unlock(&vm->irq_lock);
        if (f)
            finish(f);
    } while (f);
}
