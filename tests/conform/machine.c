/* SPDX-License-Identifier: BSD-2-Clause */
/* machine.c: the VM in which a case runs, and what cases share. */
#include "conform.h"

#include <stdio.h>
#include <time.h>

struct vm *vm;
struct vcpu *cpu;
struct vcpu_exit ex;
uint8_t *ram;

const char *conform_backend;
uint32_t conform_irqchip_mode;
uint32_t conform_flags;
struct vm_caps conform_caps;

static struct vmm_error create_error = {.size = sizeof(create_error)};

void conform_result(const char *file, int line, const char *call, int found, int wanted)
{
    struct vmm_error error = {.size = sizeof(error)};

    if (found == wanted)
        return;
    if (vm)
        vm_last_error(vm, &error);
    else
        error = create_error;
    outcome_fail(file, line, "%s is %s, not %s%s%s%s", call,
                 found > 0    ? "positive"
                 : found == 0 ? "0"
                              : vmm_err_name(found),
                 wanted == 0 ? "0" : vmm_err_name(wanted), found < 0 ? " (" : "",
                 found < 0 ? error.text : "", found < 0 ? ")" : "");
}

/* ---- life cycle ---- */

int begin_bare(uint32_t irqchip, uint32_t flags, uint32_t max_vcpus)
{
    const char *names[] = {conform_backend, NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags | conform_flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .irqchip = irqchip,
                               .irqchip_mode = irqchip ? conform_irqchip_mode : 0,
                               .max_vcpus = max_vcpus,
                               .error = &create_error};

    ex = (struct vcpu_exit){.size = sizeof(ex)};
    return vm_create(&config, &vm);
}

void begin(uint32_t irqchip, uint32_t flags, uint32_t ncpus)
{
    struct vcpu *v;

    OK(begin_bare(irqchip, flags, ncpus));
    OK(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram));
    for (uint32_t i = 0; i < ncpus; i++)
        OK(vcpu_create(vm, i, NULL, &v));
    cpu = vm_vcpu(vm, 0);
}

void end(void)
{
    OK(vm_destroy(vm));
    vm = NULL;
    cpu = NULL;
}

/* ---- code and tables ---- */

/* guest_registers leaves MSRs as they are, and to write the TSC would set it back by the time since
 * it was read. */
#define ALL_BUT_MSRS (VMM_REGS_ALL & ~VMM_REGS_MSR)

void load_on(struct vcpu *v, enum snip_mode mode, struct code code)
{
    struct guest g = {.vm = vm, .cpu = v, .mem = ram};
    struct vcpu_regs regs;

    CHECK(guest_prepare(&g, mode, code.begin, (size_t)(code.end - code.begin), &regs));
    guest_map_large(&g, HIGH);
    guest_map_large(&g, 0xfec00000); /* IOAPIC */
    guest_map_large(&g, 0xfee00000); /* local APICs */
    OK(vm_mem_changed(vm, 0, SNIP_MEM));
    set_regs(v, &regs, ALL_BUT_MSRS);
}

void start_at(struct vcpu *v, enum snip_mode mode, uint32_t address, uint32_t stack)
{
    struct guest g = {.vm = vm, .cpu = v, .mem = ram};
    struct vcpu_regs regs;

    CHECK(guest_registers(&g, mode, &regs));
    regs.rip = address;
    regs.gpr[VMM_RSP] = stack;
    set_regs(v, &regs, ALL_BUT_MSRS);
}

void place(uint32_t address, struct code code)
{
    OK(vm_mem_write(vm, address, code.begin, (uint64_t)(code.end - code.begin)));
}

void gate(enum snip_mode mode, unsigned vector, uint32_t address)
{
    struct guest g = {.vm = vm, .cpu = cpu, .mem = ram};

    guest_gate(&g, mode, vector, address);
}

unsigned halted_in(const struct vcpu_exit *exit)
{
    uint64_t offset = exit->rip - SNIP_HANDLERS;

    if (exit->reason != VMM_EXIT_HLT || offset >= 4 * 256 || offset % 4 != 1)
        FAIL("%s at %#llx instead of a handler", vmm_exit_name(exit->reason),
             (unsigned long long)exit->rip);
    return (unsigned)(offset / 4);
}

/* ---- state ---- */

struct vcpu_regs get_regs(struct vcpu *v)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};

    OK(vcpu_get_regs(v, &regs));
    return regs;
}

void set_regs(struct vcpu *v, const struct vcpu_regs *regs, uint32_t groups)
{
    struct vcpu_regs copy = *regs;

    copy.groups = groups;
    OK(vcpu_set_regs(v, &copy));
}

uint64_t gpr(unsigned index)
{
    return get_regs(cpu).gpr[index];
}

void set_gpr(unsigned index, uint64_t value)
{
    struct vcpu_regs regs = get_regs(cpu);

    regs.gpr[index] = value;
    set_regs(cpu, &regs, VMM_REGS_GPR);
}

uint64_t peek(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    OK(vm_mem_read(vm, gpa, &value, size));
    return value;
}

void poke(uint64_t gpa, uint64_t value, unsigned size)
{
    OK(vm_mem_write(vm, gpa, &value, size));
}

void conform_run(const char *file, int line, bool step, uint32_t reason)
{
    int result = step ? vcpu_step(cpu, &ex) : vcpu_run(cpu, &ex);

    if (result != 0)
        conform_result(file, line, step ? "vcpu_step" : "vcpu_run", result, 0);
    if (ex.reason != reason)
        outcome_fail(file, line, "exit %s at %#llx, not %s", vmm_exit_name(ex.reason),
                     (unsigned long long)ex.rip, vmm_exit_name(reason));
}

/* ---- threads ---- */

static void *run_main(void *opaque)
{
    struct runner *r = opaque;

    do
        r->result = vcpu_run(r->vcpu, &r->exit);
    while (r->result == 0 && r->passed && r->exit.reason == r->passed);
    r->over = true;
    return NULL;
}

void run_start(struct runner *r, struct vcpu *v)
{
    run_start_past(r, v, VMM_EXIT_NONE);
}

void run_start_past(struct runner *r, struct vcpu *v, uint32_t passed)
{
    memset(r, 0, sizeof(*r));
    r->passed = passed;
    r->vcpu = v;
    r->exit.size = sizeof(r->exit);
    CHECK(pthread_create(&r->thread, NULL, run_main, r) == 0);
}

void run_join(struct runner *r, uint32_t reason)
{
    CHECK(pthread_join(r->thread, NULL) == 0);
    OK(r->result);
    if (r->exit.reason != reason)
        FAIL("the thread's exit is %s at %#llx, not %s", vmm_exit_name(r->exit.reason),
             (unsigned long long)r->exit.rip, vmm_exit_name(reason));
}

void conform_nap(void)
{
    const struct timespec some = {.tv_nsec = 50000};

    nanosleep(&some, NULL);
}

/* ---- the device ---- */

uint64_t device_pattern(uint64_t offset, uint32_t size)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < size; i++)
        value |= (uint64_t)((0x10 + offset + i) & 0xff) << i * 8;
    return value;
}

static int note(struct device *d, struct access access)
{
    unsigned n = d->n++;

    if (!d->quiet && n < LOG_MAX)
        d->log[n] = access;
    if (d->act)
        d->act(d);
    return d->result;
}

static int device_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    uint64_t pattern = device_pattern(offset, size);
    int result = note(opaque, (struct access){false, offset, size, pattern});

    if (result == VMM_IO_OK)
        *value = pattern;
    return result;
}

static int device_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    return note(opaque, (struct access){true, offset, size, value});
}

static void device_release(void *opaque)
{
    struct device *d = opaque;

    d->released++;
}

struct vmm_io_ops device_ops(void)
{
    return (struct vmm_io_ops){.size = sizeof(struct vmm_io_ops),
                               .name = "conform",
                               .read = device_read,
                               .write = device_write,
                               .release = device_release};
}

struct mmio *device_mmio(struct device *d, uint64_t gpa, uint64_t len)
{
    struct vmm_io_ops ops = device_ops();
    struct mmio *mmio = NULL;

    OK(mmio_register(vm, gpa, len, &ops, d, &mmio));
    return mmio;
}

struct pio *device_pio(struct device *d, uint16_t port, uint32_t len)
{
    struct vmm_io_ops ops = device_ops();
    struct pio *pio = NULL;

    OK(pio_register(vm, port, len, &ops, d, &pio));
    return pio;
}

static int print_access(char *text, size_t size, const struct access *a)
{
    if (a->write)
        return snprintf(text, size, "W%u+%#llx=%#llx", a->size, (unsigned long long)a->offset,
                        (unsigned long long)a->value);
    return snprintf(text, size, "R%u+%#llx", a->size, (unsigned long long)a->offset);
}

static void print_log(char *text, size_t size, const struct access *log, size_t n)
{
    text[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(text);

        if (i)
            used += (size_t)snprintf(text + used, size - used, " ");
        if (used + 48 > size)
            return;
        print_access(text + used, size - used, &log[i]);
    }
}

void conform_logged(const char *file, int line, struct device *d, const struct access *wanted,
                    size_t n)
{
    bool same = d->n == n;

    for (size_t i = 0; same && i < n; i++)
        same = d->log[i].write == wanted[i].write && d->log[i].offset == wanted[i].offset &&
               d->log[i].size == wanted[i].size &&
               (!wanted[i].write || d->log[i].value == wanted[i].value);
    if (!same) {
        char found[160], want[160];

        print_log(found, sizeof(found), d->log, d->n < LOG_MAX ? d->n : LOG_MAX);
        print_log(want, sizeof(want), wanted, n);
        outcome_fail(file, line, "accesses are %s, not %s", found, want);
    }
    d->n = 0;
}

/* ---- what is the host's ---- */

bool lost_at_shutdown(void)
{
    struct vcpu_regs r = get_regs(cpu);

    return strcmp(conform_backend, "kvm") == 0 && r.rip == 0xfff0 &&
           r.seg[VMM_CS].selector == 0xf000 && !(r.cr0 & 1);
}

bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit)
{
    struct vmm_cpuid table[256];
    uint32_t n = 256;

    OK(vm_default_cpuid(vm, table, &n));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t regs[4] = {table[i].eax, table[i].ebx, table[i].ecx, table[i].edx};

        if (table[i].leaf == leaf && table[i].subleaf == 0)
            return regs[reg] >> bit & 1;
    }
    return false;
}
