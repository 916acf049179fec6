/* SPDX-License-Identifier: BSD-2-Clause */
/* core/vm.c: VMs: creation, choice of the backend, life cycle, capabilities and counters. */
#include <stdio.h>
#include <stdlib.h>

#include "core/internal.h"

#define TSC_KHZ_MIN 1000u      /* 1 MHz */
#define TSC_KHZ_MAX 100000000u /* 100 GHz */

#define VM_FLAGS                                                                                   \
    (VMM_VM_EXIT_HYPERCALL | VMM_VM_EXIT_CPUID | VMM_VM_EXIT_HLT | VMM_VM_KVM_PV |                 \
     VMM_VM_TRUST_HOST | VMM_VM_TRANSLATE_ALL | VMM_VM_LOCKSTEP | VMM_VM_BASELINE | VMM_VM_DIRECT)

/* A vm_create under way: the caller's config, and where a failure goes. */
struct creation {
    struct vm_config config;
    char *reasons; /* why backends were skipped, for the error text */
    size_t reasons_size;
    bool nomem; /* one of them was that */
};

/* There is no VM yet to ask for its last error. */
static int refuse(struct creation *c, int code, const char *backend, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int refuse(struct creation *c, int code, const char *backend, const char *format, ...)
{
    struct vmm_error error;
    va_list ap;

    va_start(ap, format);
    core_error_set(&error, code, 0, backend, "vm_create", format, ap);
    va_end(ap);
    if (c->config.error && c->config.error->size >= 2 * sizeof(uint32_t))
        core_copy_out(c->config.error, &error, sizeof(error));
    return code;
}

/* ---- backends ---- */

static void probe(const struct vmm_backend_ops *ops, struct vmm_backend_report *report)
{
    memset(report, 0, sizeof(*report));
    report->size = sizeof(*report);
    snprintf(report->name, sizeof(report->name), "%s", ops->name);
    ops->probe(report);
}

/* Element `i` of a caller's array, whose element size is that of its first element. */
static void report_out(struct vmm_backend_report *reports, uint32_t i,
                       const struct vmm_backend_report *own)
{
    uint32_t stride = reports->size;
    char *element = (char *)reports + (size_t)i * stride;

    memcpy(element, &stride, sizeof(stride));
    core_copy_out(element, own, sizeof(*own));
}

static bool bad_reports(const struct vmm_backend_report *reports, uint32_t n)
{
    return n &&
           (!reports || reports->size < 2 * sizeof(uint32_t) || reports->size > CORE_STRUCT_MAX);
}

int vmm_backend_probe(struct vmm_backend_report *reports, uint32_t n)
{
    uint32_t count = 0;

    if (bad_reports(reports, n))
        return VMM_E_INVAL;
    if (!os_ready())
        return VMM_E_STATE;
    for (; vmm_backends[count]; count++) {
        struct vmm_backend_report report;

        if (count >= n)
            continue;
        probe(vmm_backends[count], &report);
        report_out(reports, count, &report);
    }
    return (int)count;
}

static const struct vmm_backend_ops *find_backend(const char *name)
{
    for (uint32_t i = 0; vmm_backends[i]; i++)
        if (!strcmp(vmm_backends[i]->name, name))
            return vmm_backends[i];
    return NULL;
}

/* Every backend's answer for the caller, then the names that this build does not have. */
static void fill_reports(const struct creation *c)
{
    const struct vm_config *config = &c->config;
    struct vmm_backend_report report;
    uint32_t used = 0;

    for (uint32_t i = 0; vmm_backends[i] && used < config->nreports; i++) {
        probe(vmm_backends[i], &report);
        report_out(config->reports, used++, &report);
    }
    const char *const *name = config->select == VMM_SELECT_AUTO ? NULL : config->backends;
    for (; name && *name && used < config->nreports; name++) {
        if (find_backend(*name))
            continue;
        memset(&report, 0, sizeof(report));
        report.result = VMM_E_NOENT;
        snprintf(report.name, sizeof(report.name), "%s", *name);
        snprintf(report.reason, sizeof(report.reason), "this build has no such backend");
        report_out(config->reports, used++, &report);
    }
    memset(&report, 0, sizeof(report));
    while (used < config->nreports)
        report_out(config->reports, used++, &report);
}

static void add_reason(struct creation *c, const char *name, const char *reason)
{
    size_t used = strlen(c->reasons);

    snprintf(c->reasons + used, c->reasons_size - used, "%s%s: %s", used ? "; " : "", name, reason);
}

/* Whether `ops` works here, and with all flags but `tolerated`; if not, the reason is noted. */
static bool usable(struct creation *c, const struct vmm_backend_ops *ops, uint32_t tolerated)
{
    struct vmm_backend_report report;

    probe(ops, &report);
    if (!report.result && !(report.flags & ~tolerated))
        return true;
    c->nomem |= report.result == VMM_E_NOMEM;
    add_reason(c, report.name, report.reason);
    return false;
}

static const struct vmm_backend_ops *choose_best(struct creation *c, uint32_t tolerated)
{
    c->reasons[0] = 0; /* all are asked now */
    for (uint32_t i = 0; vmm_backends[i]; i++)
        if (usable(c, vmm_backends[i], tolerated))
            return vmm_backends[i];
    return NULL;
}

static const struct vmm_backend_ops *choose_listed(struct creation *c)
{
    for (const char *const *name = c->config.backends; *name; name++) {
        const struct vmm_backend_ops *ops = find_backend(*name);

        if (!ops)
            add_reason(c, *name, "this build has no such backend");
        else if (usable(c, ops, VMM_BACKEND_DEGRADED))
            return ops;
    }
    return NULL;
}

static int choose(struct creation *c, const struct vmm_backend_ops **out)
{
    const struct vmm_backend_ops *ops = NULL;
    uint32_t select = c->config.select;

    if (c->config.backends && select != VMM_SELECT_AUTO)
        ops = choose_listed(c);
    if (!ops && select != VMM_SELECT_REQUIRE) {
        ops = choose_best(c, 0);
        if (!ops)
            ops = choose_best(c, VMM_BACKEND_DEGRADED);
    }
    if (!ops)
        return refuse(c, c->nomem ? VMM_E_NOMEM : VMM_E_NODEV, NULL, "no backend can be used: %s",
                      c->reasons[0] ? c->reasons : "none is allowed");
    *out = ops;
    return 0;
}

/* ---- creation ---- */

static int check_config(struct creation *c, const struct vm_config *given)
{
    struct vm_config *config = &c->config;
    const uint32_t error_end = offsetof(struct vm_config, error) + sizeof(config->error);

    int err = given ? core_copy_in(config, sizeof(*config), given, 2 * sizeof(uint32_t)) : 0;
    if (err == VMM_E_UNSUPPORTED && given->size >= error_end)
        config->error = given->error;
    if (err)
        return refuse(c, err, NULL, "config->size is %u, but a struct vm_config has %zu",
                      given->size, sizeof(*config));
    if (config->flags & ~VM_FLAGS)
        return refuse(c, VMM_E_UNSUPPORTED, NULL, "unknown flags %#x", config->flags & ~VM_FLAGS);
    if (config->select > VMM_SELECT_REQUIRE)
        return refuse(c, VMM_E_INVAL, NULL, "unknown select %u", config->select);
    if (config->select == VMM_SELECT_REQUIRE && (!config->backends || !config->backends[0]))
        return refuse(c, VMM_E_INVAL, NULL, "VMM_SELECT_REQUIRE without backends");
    if (config->irqchip > VMM_IRQCHIP_PC)
        return refuse(c, VMM_E_INVAL, NULL, "unknown irqchip %u", config->irqchip);
    if (config->irqchip_mode > VMM_IRQCHIP_MODE_KERNEL ||
        (config->irqchip_mode && !config->irqchip))
        return refuse(c, VMM_E_INVAL, NULL, "irqchip_mode is %u with irqchip %u",
                      config->irqchip_mode, config->irqchip);
    if (config->reserved)
        return refuse(c, VMM_E_UNSUPPORTED, NULL, "config->reserved is not 0");
    if (config->max_vcpus > VMM_MAX_VCPUS)
        return refuse(c, VMM_E_INVAL, NULL, "max_vcpus is %u, but at most %u are possible",
                      config->max_vcpus, VMM_MAX_VCPUS);
    if (config->tsc_khz && (config->tsc_khz < TSC_KHZ_MIN || config->tsc_khz > TSC_KHZ_MAX))
        return refuse(c, VMM_E_INVAL, NULL, "tsc_khz is %llu, but %u to %u are possible",
                      (unsigned long long)config->tsc_khz, TSC_KHZ_MIN, TSC_KHZ_MAX);
    if (config->code_cache &&
        (config->code_cache < VMM_CODE_CACHE_MIN || config->code_cache > VMM_CODE_CACHE_MAX))
        return refuse(c, VMM_E_INVAL, NULL, "code_cache is %llu, but %u to %u are possible",
                      (unsigned long long)config->code_cache, VMM_CODE_CACHE_MIN,
                      VMM_CODE_CACHE_MAX);
    if (!config->reports)
        config->nreports = 0;
    if (bad_reports(config->reports, config->nreports))
        return refuse(c, VMM_E_INVAL, NULL, "reports[0].size is not set");
    if (!config->max_vcpus)
        config->max_vcpus = 1;
    return 0;
}

/* Options are honoured or refused, never dropped. */
static int check_caps(struct creation *c, const struct vm *vm)
{
    static const struct {
        uint32_t flag;
        uint64_t cap;
        const char *name;
    } needs[] = {
        {VMM_VM_EXIT_HYPERCALL, VMM_CAP_EXIT_HYPERCALL, "VMM_VM_EXIT_HYPERCALL"},
        {VMM_VM_EXIT_CPUID, VMM_CAP_EXIT_CPUID, "VMM_VM_EXIT_CPUID"},
        {VMM_VM_KVM_PV, VMM_CAP_KVM_PV, "VMM_VM_KVM_PV"},
    };
    static const struct {
        uint32_t mode;
        uint64_t cap;
        const char *name;
    } modes[] = {
        {VMM_IRQCHIP_MODE_SPLIT, VMM_CAP_IRQCHIP_SPLIT, "VMM_IRQCHIP_MODE_SPLIT"},
        {VMM_IRQCHIP_MODE_KERNEL, VMM_CAP_IRQCHIP_KERNEL, "VMM_IRQCHIP_MODE_KERNEL"},
    };
    const char *name = vm->ops->name;

    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        if ((vm->flags & needs[i].flag) && !(vm->caps.caps & needs[i].cap))
            return refuse(c, VMM_E_UNSUPPORTED, name, "backend %s does not support %s", name,
                          needs[i].name);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (vm->irqchip_mode == modes[i].mode && !(vm->caps.caps & modes[i].cap))
            return refuse(c, VMM_E_UNSUPPORTED, name, "backend %s does not support %s", name,
                          modes[i].name);
    if (vm->tsc_khz != os_tsc_khz() && !(vm->caps.caps & VMM_CAP_TSC_KHZ))
        return refuse(c, VMM_E_UNSUPPORTED, name, "backend %s cannot scale the TSC to %llu kHz",
                      name, (unsigned long long)vm->tsc_khz);
    if (vm->max_vcpus > vm->caps.max_vcpus)
        return refuse(c, VMM_E_UNSUPPORTED, name, "backend %s has at most %u vCPUs", name,
                      vm->caps.max_vcpus);
    return 0;
}

static int init_locks(struct vm *vm)
{
    struct os_mutex *const locks[] = {&vm->lock,       &vm->error_lock, &vm->world_lock,
                                      &vm->timer_lock, &vm->irq_lock,   &vm->watcher.lock};

    for (size_t i = 0; i < sizeof(locks) / sizeof(locks[0]); i++) {
        if (!os_mutex_init(locks[i]))
            continue;
        while (i-- > 0)
            os_mutex_fini(locks[i]);
        return VMM_E_NOMEM;
    }
    return 0;
}

static void fini_locks(struct vm *vm)
{
    os_mutex_fini(&vm->watcher.lock);
    os_mutex_fini(&vm->irq_lock);
    os_mutex_fini(&vm->timer_lock);
    os_mutex_fini(&vm->world_lock);
    os_mutex_fini(&vm->error_lock);
    os_mutex_fini(&vm->lock);
}

static void fill_caps(struct vm *vm)
{
    vm->caps.size = sizeof(vm->caps);
    vm->caps.max_vcpus = VMM_MAX_VCPUS;
    vm->caps.page_size = 4096;
    vm->ops->caps(vm, &vm->caps);
    vm->caps.tsc_khz = vm->tsc_khz;
    snprintf(vm->caps.backend, sizeof(vm->caps.backend), "%s", vm->ops->name);
}

/* Passes the detail of what has failed inside on to the caller's struct. */
static int failed(struct creation *c, struct vm *vm, int err, const char *what)
{
    const char *name = vm->ops->name;

    if (vm->error.code)
        return refuse(c, err, name, "%s: %s", what, vm->error.text);
    return refuse(c, err, name, "%s: %s", what, vmm_strerror(err));
}

/* Where the controllers are to be: resolves AUTO, and calls the engine's hook for all but USER. */
static int choose_irqchip(struct creation *c, struct vm *vm)
{
    const struct backend_host_ops *host = vm->ops->host;
    const char *name = vm->ops->name;
    uint32_t wanted = vm->irqchip_mode;

    if (vm->irqchip_kind == VMM_IRQCHIP_NONE)
        return 0;
    /* The kernel, which has the local APICs then, does HLT. */
    if (wanted == VMM_IRQCHIP_MODE_AUTO && (vm->flags & VMM_VM_EXIT_HLT))
        vm->irqchip_mode = VMM_IRQCHIP_MODE_USER;
    if (wanted > VMM_IRQCHIP_MODE_USER && (vm->flags & VMM_VM_EXIT_HLT))
        return refuse(c, VMM_E_UNSUPPORTED, name, "VMM_VM_EXIT_HLT needs VMM_IRQCHIP_MODE_USER");
    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_USER)
        return 0;
    int err = host && host->irqchip_create ? host->irqchip_create(vm) : VMM_E_UNSUPPORTED;
    if (err == VMM_E_UNSUPPORTED && wanted == VMM_IRQCHIP_MODE_AUTO) {
        vm->irqchip_mode = VMM_IRQCHIP_MODE_USER;
        return 0;
    }
    if (!err && vm->irqchip_mode == VMM_IRQCHIP_MODE_AUTO)
        err = VMM_E_INTERNAL; /* the engine has not resolved it */
    return err ? failed(c, vm, err, "no interrupt controllers in the host's kernel") : 0;
}

static int create_irqchip(struct creation *c, struct vm *vm)
{
    int err = choose_irqchip(c, vm);

    if (err)
        return err;
    vm->caps.irqchip_mode = vm->irqchip_mode;
    if (vm->irqchip_mode == VMM_IRQCHIP_MODE_USER)
        err = irqchip_create(vm, NULL, &vm->irqchip);
    else if (vm->irqchip_mode == VMM_IRQCHIP_MODE_SPLIT)
        err = irqchip_create(vm, &core_irq_remote, &vm->irqchip);
    return err ? failed(c, vm, err, "no interrupt controllers") : 0;
}

static int build(struct creation *c, struct vm *vm)
{
    int err = core_mem_init(vm);
    if (err)
        return failed(c, vm, err, "no memory map");
    err = core_io_init(vm);
    if (err) {
        failed(c, vm, err, "no I/O map");
        goto no_io;
    }
    err = vm->ops->vm_init(vm);
    if (err) {
        failed(c, vm, err, "the backend failed");
        goto no_engine;
    }
    fill_caps(vm);
    err = check_caps(c, vm);
    if (err)
        goto not_capable;
    vm->caps.max_vcpus = vm->max_vcpus;
    core_clock_init(vm);
    err = create_irqchip(c, vm);
    if (!err)
        return 0;

not_capable:
    vm->ops->vm_fini(vm);
no_engine:
    core_io_fini(vm);
no_io:
    core_mem_fini(vm);
    return err;
}

int vm_create(const struct vm_config *config, struct vm **out)
{
    const struct vmm_backend_ops *ops = NULL;
    char reasons[200] = "";
    struct creation c = {.reasons = reasons, .reasons_size = sizeof(reasons)};

    int err = check_config(&c, config);
    if (err)
        return err;
    if (!out)
        return refuse(&c, VMM_E_INVAL, NULL, "out is NULL");
    if (!os_ready())
        return refuse(&c, VMM_E_STATE, NULL, "vmm_host_init comes first");
    fill_reports(&c);
    err = choose(&c, &ops);
    if (err)
        return err;

    struct vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return refuse(&c, VMM_E_NOMEM, ops->name, "no memory for the VM");
    vm->ops = ops;
    vm->flags = c.config.flags;
    if (!ops->direct || (vm->flags & VMM_VM_LOCKSTEP))
        vm->flags &= ~VMM_VM_DIRECT;
    vm->max_vcpus = c.config.max_vcpus;
    vm->irqchip_kind = c.config.irqchip;
    vm->irqchip_mode = c.config.irqchip_mode;
    vm->code_cache = c.config.code_cache;
    vm->tsc_khz = c.config.tsc_khz ? c.config.tsc_khz : os_tsc_khz();
    vm->error.size = sizeof(vm->error);
    atomic_store(&vm->next_timer, UINT64_MAX);
    err = init_locks(vm);
    if (err) {
        refuse(&c, err, ops->name, "no memory for locks");
        goto no_locks;
    }
    err = build(&c, vm);
    if (err)
        goto not_built;
    *out = vm;
    return 0;

not_built:
    core_timers_free(vm);
    fini_locks(vm);
no_locks:
    free(vm);
    return err;
}

int vm_destroy(struct vm *vm)
{
    if (!vm)
        return 0;
    int err = core_claim_all(vm, __func__);
    if (err)
        return err;

    core_devices_stop(vm);
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = vm_vcpu(vm, i);

        if (vcpu)
            core_vcpu_fini(vcpu);
    }
    core_irq_fds_fini(vm);
    core_watcher_fini(vm);
    irqchip_destroy(vm->irqchip);
    vm->irqchip = NULL;
    core_io_fini(vm);
    core_doorbells_fini(vm);
    core_mem_fini(vm);
    vm->ops->vm_fini(vm);
    free(vm->lockstep_report);
    core_timers_free(vm);
    for (uint32_t i = 0; i < vm->max_vcpus; i++)
        free(atomic_load(&vm->vcpus[i]));
    fini_locks(vm);
    free(vm);
    return 0;
}

/* ---- life cycle ---- */

void vm_stop(struct vm *vm)
{
    if (!vm)
        return;
    atomic_store(&vm->stopped, 1);
    core_request_all(vm, VCPU_REQ_STOP);
}

int vm_pause(struct vm *vm)
{
    uint32_t none = PAUSE_NONE;

    if (!vm)
        return VMM_E_INVAL;
    if (core_world_self(vm))
        return vm_fail(vm, VMM_E_STATE, __func__, "called from a callback");
    if (!atomic_compare_exchange_strong(&vm->paused, &none, PAUSE_HOLDING))
        return vm_fail(vm, VMM_E_STATE, __func__, "the VM is paused");
    core_request_all(vm, VCPU_REQ_PAUSE);
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        while (vcpu && atomic_load(&vcpu->where) == VCPU_RUN)
            os_wait(&vcpu->where, VCPU_RUN, UINT64_MAX);
    }
    core_clock_stop(vm);
    return 0;
}

int vm_resume(struct vm *vm)
{
    if (!vm)
        return VMM_E_INVAL;
    bool stopped = atomic_exchange(&vm->stopped, 0);
    bool paused = core_clock_start(vm);

    if (!stopped && !paused)
        return vm_fail(vm, VMM_E_STATE, __func__, "the VM is neither paused nor stopped");
    core_request_all(vm, VCPU_REQ_PAUSE);
    return 0;
}

int vm_reset(struct vm *vm)
{
    if (!vm)
        return VMM_E_INVAL;
    int err = core_claim_all(vm, __func__);
    if (err)
        return err;

    core_tsc_start(vm);
    if (vm->irqchip)
        irqchip_reset(vm->irqchip);
    if (vm->irqchip_mode > VMM_IRQCHIP_MODE_USER && vm->ops->host->irqchip_reset)
        vm->ops->host->irqchip_reset(vm);
    core_devices_reset(vm);
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = vm_vcpu(vm, i);

        if (!vcpu)
            continue;
        core_vcpu_reset(vcpu, false);
        /* What was asked for before has no meaning after it, but for the host program's wishes. */
        atomic_fetch_and(&vcpu->requests, VCPU_REQ_KICK | VCPU_REQ_STOP | VCPU_REQ_PAUSE);
    }
    core_release_all(vm);
    return 0;
}

/* Under vm->lock. A full queue keeps what came first and the latest. */
static void queue_exit(struct vcpu *vcpu, uint32_t reason, uint64_t value)
{
    struct core_exit_request *q = vcpu->exit_requests;

    for (uint32_t i = 0; i < vcpu->nexit_requests; i++)
        if (q[i].reason == reason && q[i].value == value)
            return;
    if (vcpu->nexit_requests == CORE_MAX_EXIT_REQUESTS)
        vcpu->nexit_requests--;
    q[vcpu->nexit_requests++] = (struct core_exit_request){reason, value};
}

int vm_request_exit(struct vm *vm, uint32_t reason, uint64_t value)
{
    if (!vm)
        return VMM_E_INVAL;
    if (reason < VMM_EXIT_POWEROFF || reason > VMM_EXIT_USER)
        return vm_fail(vm, VMM_E_INVAL, __func__, "%s (%u) is no exit that can be asked for",
                       vmm_exit_name(reason), reason);
    os_mutex_lock(&vm->lock);
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = vm_vcpu(vm, i);

        if (vcpu)
            queue_exit(vcpu, reason, value);
    }
    os_mutex_unlock(&vm->lock);
    core_request_all(vm, VCPU_REQ_EXIT);
    return 0;
}

/* ---- what is known of a VM ---- */

int vm_get_caps(struct vm *vm, struct vm_caps *caps)
{
    if (!vm)
        return VMM_E_INVAL;
    if (!caps || caps->size < 2 * sizeof(uint32_t) || caps->size > CORE_STRUCT_MAX)
        return vm_fail(vm, VMM_E_INVAL, __func__, "caps->size is not set");
    core_copy_out(caps, &vm->caps, sizeof(vm->caps));
    return 0;
}

static uint64_t counter(_Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

int vm_get_stats(struct vm *vm, struct vm_stats *stats)
{
    struct vm_stats own = {.size = sizeof(own)};

    if (!vm)
        return VMM_E_INVAL;
    if (!stats || stats->size < 2 * sizeof(uint32_t) || stats->size > CORE_STRUCT_MAX)
        return vm_fail(vm, VMM_E_INVAL, __func__, "stats->size is not set");
    os_mutex_lock(&vm->lock);
    for (uint32_t i = 0; i < vm->max_vcpus; i++) {
        struct vcpu *vcpu = atomic_load(&vm->vcpus[i]);

        if (!vcpu)
            continue;
        own.nvcpus += atomic_load(&vcpu->alive);
        own.exits += counter(&vcpu->nexits);
        own.mmio += counter(&vcpu->nmmio);
        own.pio += counter(&vcpu->npio);
        own.halts += counter(&vcpu->nhalts);
    }
    vm->ops->stats(vm, &own);
    os_mutex_unlock(&vm->lock);
    core_copy_out(stats, &own, sizeof(own));
    return 0;
}
