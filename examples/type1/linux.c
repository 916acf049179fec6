/* SPDX-License-Identifier: BSD-2-Clause */
/* linux.c: a PC with a Linux kernel and an initrd, which are modules of the boot loader; its serial
 * port is this machine's. */
#include "linux.h"

#include <vmm/boot.h>
#include <vmm/vmm.h>

#include "host.h"

/* Boot information of Multiboot: flags and fields, in words. */
#define HAS_COMMAND 4u
#define HAS_MODULES 8u
#define COMMAND     4
#define MODULES     5
#define MODULE_LIST 6

#define MEMORY (256ull << 20)

struct module {
    uint32_t begin, end, name, reserved;
};

static const struct module *modules(const uint32_t *boot)
{
    return (const struct module *)(uintptr_t)boot[MODULE_LIST];
}

uint32_t linux_modules(const uint32_t *boot)
{
    return boot[0] & HAS_MODULES ? boot[MODULES] : 0;
}

void linux_reserve(const uint32_t *boot)
{
    for (uint32_t i = 0; i < linux_modules(boot); i++)
        host_reserve(modules(boot)[i].begin, modules(boot)[i].end);
}

static struct vmm_image image(const struct module *m)
{
    return (struct vmm_image){.size = sizeof(struct vmm_image),
                              .data = (const void *)(uintptr_t)m->begin,
                              .len = m->end - m->begin,
                              .name = (const char *)(uintptr_t)m->name};
}

static size_t output(void *opaque, const uint8_t *bytes, size_t n)
{
    (void)opaque;
    host_write((const char *)bytes, n);
    return n;
}

/* Exits that only concern one access: reads of nothing give all ones. */
static bool goes_on(struct vcpu_exit *exit)
{
    switch (exit->reason) {
    case VMM_EXIT_MMIO:
        exit->u.mmio.data = UINT64_MAX;
        return true;
    case VMM_EXIT_PIO:
        exit->u.pio.data = UINT32_MAX;
        return true;
    case VMM_EXIT_NONE:
    case VMM_EXIT_INTERRUPTED:
    case VMM_EXIT_HLT:
        return true;
    default:
        return false;
    }
}

static int start(struct vm **vm, struct vcpu **vcpu, const uint32_t *boot)
{
    static const char *const names[] = {"vmx", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .irqchip = VMM_IRQCHIP_PC};
    struct vmm_pc_config pc_config = {
        .size = sizeof(pc_config), .memory = MEMORY, .serial_output = output};
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vmm_image initrd = {.size = sizeof(initrd)};
    struct vmm_boot load = {.size = sizeof(load), .kernel = image(&modules(boot)[0]), .pc = &pc};
    int err = vm_create(&config, vm);

    if (linux_modules(boot) > 1) {
        initrd = image(&modules(boot)[1]);
        load.modules = &initrd;
        load.nmodules = 1;
    }
    if (boot[0] & HAS_COMMAND)
        load.cmdline = (const char *)(uintptr_t)boot[COMMAND];
    if (!err)
        err = vmm_pc_create(*vm, &pc_config, &pc);
    if (!err)
        err = vcpu_create(*vm, 0, NULL, vcpu);
    return err ? err : vm_boot(*vcpu, VMM_BOOT_AUTO, &load);
}

static void tell(struct vm *vm, const struct vcpu_exit *exit)
{
    struct vm_stats stats = {.size = sizeof(stats)};

    if (exit->reason == VMM_EXIT_ENTRY_FAIL)
        host_print("# %s\n", exit->u.entry.text);
    if (!vm_get_stats(vm, &stats))
        host_print("# %lu instructions in software\n", stats.insns);
}

/* IA32_VMX_PINBASED_CTLS: the preemption timer may be on. */
static bool has_preemption_timer(void)
{
    uint64_t value;

    return !host_ops.rdmsr(host_ops.ctx, 0x481, &value) && (value >> 38 & 1);
}

bool linux_run(const uint32_t *boot)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm *vm = NULL;
    struct vcpu *vcpu;
    int err = start(&vm, &vcpu, boot);

    if (!has_preemption_timer())
        host_tick();
    while (!err) {
        err = vcpu_run(vcpu, &exit);
        if (!err && !goes_on(&exit))
            break;
    }
    if (err && vm)
        vm_last_error(vm, &error);
    if (err)
        host_print("# %s: %s\n", error.op, error.text);
    else
        host_print("# the guest ends with exit %s\n", vmm_exit_name(exit.reason));
    if (vm) {
        tell(vm, &exit);
        vm_destroy(vm);
    }
    return !err && exit.reason == VMM_EXIT_POWEROFF;
}
