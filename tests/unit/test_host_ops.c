/* SPDX-License-Identifier: BSD-2-Clause */
/* test_host_ops.c: services of a host's kernel, as an engine offers them: what the core asks of
 * them, and that it does itself what they decline. */
#include <check.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <vmm/vmm.h>

#include "fake_backend.h"

/* ---- a kernel that counts ---- */

static int result; /* of the hooks */
static struct {
    uint32_t adds, dels, changes, resets, created;
    struct core_doorbell doorbell;
    bool port;
    uint64_t addr, len;
    uint32_t line, route, lines, data;
    int level, fd, resample;
    uint64_t address;
    struct core_route r;
} host;

static int count_add(void)
{
    host.adds += !result;
    return result;
}

static int add_doorbell(struct vm *vm, const struct core_doorbell *d)
{
    (void)vm;
    host.doorbell = *d;
    return count_add();
}

static void del_doorbell(struct vm *vm, const struct core_doorbell *d)
{
    (void)vm;
    ck_assert_uint_eq(d->addr, host.doorbell.addr);
    ck_assert_int_eq(d->fd, host.doorbell.fd);
    host.dels++;
}

static int add_posted(struct vm *vm, bool port, uint64_t addr, uint64_t len)
{
    (void)vm;
    host.port = port;
    host.addr = addr;
    host.len = len;
    return count_add();
}

static void del_posted(struct vm *vm, bool port, uint64_t addr, uint64_t len)
{
    (void)vm;
    ck_assert_uint_eq(port, host.port);
    ck_assert_uint_eq(addr, host.addr);
    ck_assert_uint_eq(len, host.len);
    host.dels++;
}

static int add_irq_fd(struct vm *vm, uint32_t line, int fd, int resample_fd)
{
    (void)vm;
    host.line = line;
    host.fd = fd;
    host.resample = resample_fd;
    return count_add();
}

static void del_irq_fd(struct vm *vm, uint32_t line, int fd)
{
    (void)vm;
    ck_assert_uint_eq(line, host.line);
    ck_assert_int_eq(fd, host.fd);
    host.dels++;
}

static int change_route(struct vm *vm, uint32_t route, const struct core_route *r)
{
    (void)vm;
    host.route = route;
    host.r = *r;
    host.changes++;
    return result;
}

static int start_dirty(struct vm *vm)
{
    ck_assert(atomic_load(&vm->world));
    return count_add();
}

static void stop_dirty(struct vm *vm)
{
    (void)vm;
    host.dels++;
}

/* Page 3 of what is asked for was written. */
static int sync_dirty(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct core_page page;

    host.changes++;
    host.addr = gpa;
    host.len = len;
    if (result)
        return result;
    ck_assert(core_mem_page(vm, gpa + 0x3000, &page));
    atomic_store(page.dirty, 1);
    return 0;
}

static uint32_t mode_for_auto;

static int create_chips(struct vm *vm)
{
    host.created++;
    if (!result && vm->irqchip_mode == VMM_IRQCHIP_MODE_AUTO)
        vm->irqchip_mode = mode_for_auto;
    return result;
}

static void reset_chips(struct vm *vm)
{
    (void)vm;
    host.resets++;
}

static int set_line(struct vm *vm, uint32_t line, int level)
{
    (void)vm;
    host.line = line;
    host.level = level;
    host.changes++;
    return result;
}

static int send_msi(struct vm *vm, uint64_t address, uint32_t data)
{
    (void)vm;
    host.address = address;
    host.data = data;
    host.adds++;
    return result;
}

static int want_eoi(struct vm *vm, uint32_t lines)
{
    (void)vm;
    if (!result)
        host.lines = lines;
    return result;
}

static struct vm *vm;

static struct vm_config config(uint32_t mode)
{
    return (struct vm_config){.size = sizeof(struct vm_config),
                              .irqchip = VMM_IRQCHIP_PC,
                              .irqchip_mode = mode,
                              .max_vcpus = 2};
}

static void chips(void)
{
    fake_host.irqchip_create = create_chips;
    fake_host.irqchip_reset = reset_chips;
    fake_host.irq_line = set_line;
    fake_host.irq_msi = send_msi;
    fake_host.irq_eoi_wanted = want_eoi;
    fake_host.route_changed = change_route;
    fake_caps_bits |= VMM_CAP_IRQCHIP_SPLIT | VMM_CAP_IRQCHIP_KERNEL;
}

static void begin(uint32_t mode)
{
    const struct vm_config c = config(mode);

    vm = fake_vm(&c);
}

static void end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
}

static uint32_t mode_of(void)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    return caps.irqchip_mode;
}

static int refused(uint32_t mode, uint32_t flags, const char *word)
{
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config c = config(mode);
    struct vm *none = NULL;

    c.error = &error;
    c.flags = flags;
    int err = vm_create(&c, &none);
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(error.text, word) != NULL, "%s", error.text);
    ck_assert_int_eq(error.code, err);
    return err;
}

/* ---- modes of the interrupt controllers ---- */

START_TEST(without_the_hook_the_library_has_them)
{
    begin(VMM_IRQCHIP_MODE_AUTO);
    ck_assert_uint_eq(mode_of(), VMM_IRQCHIP_MODE_USER);
    ck_assert_ptr_nonnull(vm->irqchip);
    end();
    begin(VMM_IRQCHIP_MODE_USER);
    ck_assert_uint_eq(mode_of(), VMM_IRQCHIP_MODE_USER);
    end();
    vm = fake_vm(NULL);
    ck_assert_uint_eq(mode_of(), VMM_IRQCHIP_MODE_AUTO);
    ck_assert_int_eq(vm_irq_set(vm, 1, 1), VMM_E_STATE);
    end();
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_SPLIT, 0, "VMM_IRQCHIP_MODE_SPLIT"),
                     VMM_E_UNSUPPORTED);
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_KERNEL, 0, "VMM_IRQCHIP_MODE_KERNEL"),
                     VMM_E_UNSUPPORTED);
    ck_assert_int_eq(fake_vms, 0);
}
END_TEST

START_TEST(auto_is_the_engine_s_choice)
{
    static const uint32_t modes[] = {VMM_IRQCHIP_MODE_USER, VMM_IRQCHIP_MODE_SPLIT,
                                     VMM_IRQCHIP_MODE_KERNEL};

    chips();
    for (unsigned i = 0; i < 3; i++) {
        mode_for_auto = modes[i];
        begin(VMM_IRQCHIP_MODE_AUTO);
        ck_assert_uint_eq(mode_of(), modes[i]);
        ck_assert_int_eq(vm->irqchip != NULL, modes[i] != VMM_IRQCHIP_MODE_KERNEL);
        end();
    }
    ck_assert_uint_eq(host.created, 3);
    result = VMM_E_UNSUPPORTED;
    begin(VMM_IRQCHIP_MODE_AUTO);
    ck_assert_uint_eq(mode_of(), VMM_IRQCHIP_MODE_USER);
    end();
    result = 0;
    begin(VMM_IRQCHIP_MODE_USER);
    ck_assert_uint_eq(host.created, 4); /* not asked */
    end();
}
END_TEST

START_TEST(failures_of_the_hook_are_the_program_s)
{
    chips();
    result = VMM_E_BACKEND;
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_AUTO, 0, "controllers"), VMM_E_BACKEND);
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_KERNEL, 0, "controllers"), VMM_E_BACKEND);
    result = VMM_E_UNSUPPORTED;
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_SPLIT, 0, "controllers"), VMM_E_UNSUPPORTED);
    result = 0;
    mode_for_auto = VMM_IRQCHIP_MODE_AUTO;
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_AUTO, 0, "controllers"), VMM_E_INTERNAL);
    ck_assert_int_eq(fake_vms, 0);
}
END_TEST

START_TEST(halts_exit_only_with_the_library_s)
{
    struct vm_config c = config(VMM_IRQCHIP_MODE_AUTO);

    chips();
    mode_for_auto = VMM_IRQCHIP_MODE_KERNEL;
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_KERNEL, VMM_VM_EXIT_HLT, "VMM_VM_EXIT_HLT"),
                     VMM_E_UNSUPPORTED);
    ck_assert_int_eq(refused(VMM_IRQCHIP_MODE_SPLIT, VMM_VM_EXIT_HLT, "VMM_VM_EXIT_HLT"),
                     VMM_E_UNSUPPORTED);
    c.flags = VMM_VM_EXIT_HLT;
    vm = fake_vm(&c);
    ck_assert_uint_eq(mode_of(), VMM_IRQCHIP_MODE_USER);
    ck_assert_uint_eq(host.created, 0);
    end();
}
END_TEST

static uint32_t eois;

static void count_eoi(void *opaque, uint32_t line)
{
    eois += line;
    ck_assert_ptr_eq(opaque, &eois);
}

START_TEST(kernel_mode_passes_lines_and_messages_on)
{
    chips();
    begin(VMM_IRQCHIP_MODE_KERNEL);
    ck_assert_int_eq(vm_irq_set(vm, 9, 1), 0);
    ck_assert_uint_eq(host.line, 9);
    ck_assert_int_eq(host.level, 1);
    ck_assert_int_eq(vm_irq_pulse(vm, 10), 0);
    ck_assert_uint_eq(host.changes, 3);
    ck_assert_int_eq(host.level, 0);
    ck_assert_int_eq(vm_irq_set(vm, 24, 1), VMM_E_RANGE);
    ck_assert_int_eq(vm_irq_msi(vm, 0xfee01000, 0x4041), 0);
    ck_assert_uint_eq(host.address, 0xfee01000);
    ck_assert_uint_eq(host.data, 0x4041);
    ck_assert_int_eq(vm_irq_msi(vm, 0xfed00000, 0x41), VMM_E_RANGE);
    result = 1; /* nobody took it: not the sender's business */
    ck_assert_int_eq(vm_irq_msi(vm, 0xfee01000, 0x41), 0);
    result = VMM_E_BACKEND;
    ck_assert_int_eq(vm_irq_msi(vm, 0xfee01000, 0x41), VMM_E_BACKEND);
    ck_assert_int_eq(vm_irq_set(vm, 9, 0), VMM_E_BACKEND);
    ck_assert_int_eq(vm_irq_on_eoi(vm, 5, count_eoi, &eois), VMM_E_BACKEND);
    result = 0;
    ck_assert_int_eq(vm_irq_on_eoi(vm, 5, count_eoi, &eois), 0);
    ck_assert_int_eq(vm_irq_on_eoi(vm, 5, count_eoi, &eois), VMM_E_EXIST);
    ck_assert_int_eq(vm_irq_on_eoi(vm, 7, count_eoi, &eois), 0);
    ck_assert_uint_eq(host.lines, 1u << 5 | 1u << 7);
    eois = 0;
    core_irq_eoi(vm, 5);
    core_irq_eoi(vm, 6);
    core_irq_eoi(vm, 7);
    core_irq_eoi(vm, 1000);
    ck_assert_uint_eq(eois, 12);
    ck_assert_int_eq(vm_irq_on_eoi(vm, 5, NULL, NULL), 0);
    ck_assert_uint_eq(host.lines, 1u << 7);
    core_irq_eoi(vm, 5);
    ck_assert_uint_eq(eois, 12);
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_uint_eq(host.resets, 1);
    end();
}
END_TEST

START_TEST(kernel_mode_leaves_the_vcpus_to_the_engine)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};
    const struct fake_op halt[] = {{OP_HLT, 0, 0}, {OP_OUT, 0x10, 1}};
    uint64_t value;

    chips();
    begin(VMM_IRQCHIP_MODE_KERNEL);
    struct vcpu *first = fake_add(vm, 0, halt), *second = fake_add(vm, 1, halt);
    ck_assert_ptr_null(core_vcpu_lapic(first));
    ck_assert(!core_intr_pending(first));
    ck_assert_int_eq(core_intr_ack(first), -1);
    ck_assert_int_eq(vcpu_get_regs(second, &regs), 0);
    ck_assert_uint_eq(regs.activity, VMM_WAIT_SIPI);
    regs.cr8 = 7;
    regs.apic_base = 0xfee00900;
    ck_assert_int_eq(vcpu_set_regs(first, &regs), 0);
    ck_assert_uint_eq(fake_cpu(first)->regs.cr8, 7);
    ck_assert_uint_eq(fake_cpu(first)->regs.apic_base, 0xfee00900);
    ck_assert_int_eq(vcpu_get_msr(first, 0x1b, &value), VMM_E_NOENT); /* asked of the engine */
    end();
}
END_TEST

/* Ends the halt as the kernel does, while the engine waits in it. */
static uint32_t runs;

static int run_kernel_halt(struct vcpu *vcpu, bool step)
{
    if (fake_cpu(vcpu)->regs.activity == VMM_HALTED && ++runs == 2)
        fake_cpu(vcpu)->regs.activity = VMM_ACTIVE;
    return fake_run(vcpu, step);
}

START_TEST(halts_go_on_in_the_kernel)
{
    const struct fake_op halt[] = {{OP_HLT, 0, 0}, {OP_OUT, 0x10, 1}};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vmm_backend_ops ops = fake_backend;

    chips();
    begin(VMM_IRQCHIP_MODE_KERNEL);
    ops.run = run_kernel_halt;
    vm->ops = &ops;
    struct vcpu *vcpu = fake_add(vm, 0, halt);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_PIO);
    ck_assert_uint_eq(runs, 2);
    end();
}
END_TEST

/* CPUID.01H:EDX.APIC follows the engine's IA32_APIC_BASE. */
START_TEST(cpuid_looks_at_the_engine_s_apic_base)
{
    struct vmm_cpuid leaf = {.leaf = 1, .edx = 1u << 9 | 1};
    uint32_t out[4];

    chips();
    begin(VMM_IRQCHIP_MODE_KERNEL);
    struct vcpu *vcpu = fake_add(vm, 0, NULL);
    vcpu->cpuid[0] = leaf;
    vcpu->ncpuid = 1;
    ck_assert_int_eq(core_cpuid(vcpu, 0, 1, 0, out), CORE_IO_OK);
    ck_assert_uint_eq(out[3], 1);
    fake_cpu(vcpu)->regs.apic_base = 0xfee00800;
    ck_assert_int_eq(core_cpuid(vcpu, 0, 1, 0, out), CORE_IO_OK);
    ck_assert_uint_eq(out[3], 1u << 9 | 1);
    end();
}
END_TEST

static void out(uint16_t port, uint64_t value)
{
    ck_assert_int_eq(core_pio_access(vm, NULL, 0, port, 1, true, &value), CORE_IO_OK);
}

static void ioapic(uint32_t reg, uint64_t value)
{
    uint64_t select = reg;

    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00000, 4, true, &select), CORE_IO_OK);
    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00010, 4, true, &value), CORE_IO_OK);
}

static uint32_t ioapic_read(uint32_t reg)
{
    uint64_t select = reg, value = 0;

    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00000, 4, true, &select), CORE_IO_OK);
    ck_assert_int_eq(core_mmio_access(vm, NULL, 0, 0xfec00010, 4, false, &value), CORE_IO_OK);
    return (uint32_t)value;
}

START_TEST(split_mode_sends_messages_of_the_ioapic)
{
    chips();
    begin(VMM_IRQCHIP_MODE_SPLIT);
    ck_assert_uint_eq(host.changes, 24); /* all pins are masked */
    ck_assert(!host.r.set);
    ioapic(0x10 + 2 * 18 + 1, 0x05000000); /* physical destination 5 */
    ioapic(0x10 + 2 * 18, 0xa061);         /* level-triggered, active low, vector 0x61 */
    ck_assert_uint_eq(host.route, 18);
    ck_assert(host.r.set);
    ck_assert_uint_eq(host.r.address, 0xfee05000);
    ck_assert_uint_eq(host.r.data, 0xc061);
    ck_assert_uint_eq(host.adds, 0);
    ck_assert_int_eq(vm_irq_set(vm, 18, 1), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert_uint_eq(host.address, 0xfee05000);
    ck_assert_uint_eq(host.data, 0xc061);
    /* In service: masking it does not make its EOI unwanted. */
    ioapic(0x10 + 2 * 18, 0x1a061);
    ck_assert(host.r.set);
    ioapic(0x10 + 2 * 18, 0xa061);
    eois = 0;
    ck_assert_int_eq(vm_irq_on_eoi(vm, 18, count_eoi, &eois), 0);
    irqchip_eoi_vector(vm->irqchip, 0x60);
    ck_assert_uint_eq(host.adds, 1);
    irqchip_eoi_vector(vm->irqchip, 0x61);
    ck_assert_uint_eq(eois, 18);
    ck_assert_uint_eq(host.adds, 2); /* still asserted */
    ck_assert_int_eq(vm_irq_set(vm, 18, 0), 0);
    irqchip_eoi_vector(vm->irqchip, 0x61);
    ck_assert_uint_eq(host.adds, 2);
    ioapic(0x10 + 2 * 18, 0x1a061);
    ck_assert(!host.r.set);

    ioapic(0x10 + 2 * 4 + 1, 0xff000000);
    ioapic(0x10 + 2 * 4, 0x0962); /* edge, logical, lowest priority */
    ck_assert_int_eq(vm_irq_pulse(vm, 4), 0);
    ck_assert_uint_eq(host.adds, 3);
    ck_assert_uint_eq(host.address, 0xfeeff00c);
    ck_assert_uint_eq(host.data, 0x0162);
    ck_assert_int_eq(vm_irq_msi(vm, 0xfee02000, 0x44), 0);
    ck_assert_uint_eq(host.adds, 4);
    ck_assert_uint_eq(host.address, 0xfee02000);
    /* A message that nobody took leaves the pin free to try again. */
    result = 1;
    ioapic(0x10 + 2 * 19, 0xa063);
    ck_assert_int_eq(vm_irq_set(vm, 19, 1), 0);
    ck_assert_uint_eq(host.adds, 5);
    ck_assert_uint_eq(ioapic_read(0x10 + 2 * 19) & 0x4000, 0);
    result = 0;
    ck_assert_int_eq(vm_irq_set(vm, 19, 1), 0);
    ck_assert_uint_eq(host.adds, 6);
    ck_assert_uint_eq(ioapic_read(0x10 + 2 * 19) & 0x4000, 0x4000);
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_uint_eq(host.resets, 1);
    ck_assert(!host.r.set);
    end();
}
END_TEST

START_TEST(split_mode_gives_extint_to_the_engine)
{
    chips();
    begin(VMM_IRQCHIP_MODE_SPLIT);
    struct vcpu *vcpu = fake_add(vm, 0, NULL);
    out(0x20, 0x11);
    out(0x21, 0x20);
    out(0x21, 4);
    out(0x21, 1);
    out(0x21, 0);
    ck_assert(!irqchip_pic_intr(vm->irqchip));
    ck_assert_uint_eq(atomic_load(&vcpu->requests), 0);
    ck_assert_int_eq(vm_irq_set(vm, 3, 1), 0);
    ck_assert(irqchip_pic_intr(vm->irqchip));
    ck_assert_uint_eq(atomic_load(&vcpu->requests), VCPU_REQ_INTR);
    ck_assert(!core_intr_pending(vcpu));
    ck_assert_uint_eq(irqchip_pic_ack(vm->irqchip), 0x23);
    ck_assert(!irqchip_pic_intr(vm->irqchip));
    ck_assert_ptr_null(core_vcpu_lapic(vcpu));
    end();
}
END_TEST

/* ---- doorbells ---- */

static uint64_t take(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static const struct fake_op ring[] = {{OP_OUT, 0x510, 7}, {OP_OUT, 0x511, 1}};

START_TEST(doorbells_are_the_kernel_s_and_ours)
{
    int fd = eventfd(0, EFD_NONBLOCK);
    struct vmm_doorbell d = {.size = sizeof(d),
                             .flags = VMM_DOORBELL_PORT | VMM_DOORBELL_MATCH,
                             .addr = 0x510,
                             .match = 7,
                             .len = 1,
                             .fd = fd};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct doorbell *bell = NULL;

    fake_host.doorbell_add = add_doorbell;
    fake_host.doorbell_del = del_doorbell;
    vm = fake_vm(NULL);
    struct vcpu *vcpu = fake_add(vm, 0, ring);
    ck_assert_int_eq(mmio_doorbell(vm, &d, &bell), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert(host.doorbell.port);
    ck_assert(host.doorbell.has_match);
    ck_assert_uint_eq(host.doorbell.addr, 0x510);
    ck_assert_uint_eq(host.doorbell.match, 7);
    ck_assert_uint_eq(host.doorbell.len, 1);
    ck_assert_int_ne(host.doorbell.fd, fd);
    /* What comes to the library all the same is not lost. */
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.u.pio.port, 0x511);
    ck_assert_uint_eq(take(fd), 1);
    mmio_doorbell_remove(bell);
    ck_assert_uint_eq(host.dels, 1);

    result = VMM_E_UNSUPPORTED;
    ck_assert_int_eq(mmio_doorbell(vm, &d, &bell), 0);
    mmio_doorbell_remove(bell);
    ck_assert_uint_eq(host.dels, 1);
    result = VMM_E_LIMIT;
    ck_assert_int_eq(mmio_doorbell(vm, &d, &bell), VMM_E_LIMIT);
    ck_assert_ptr_null(vm->doorbells[1]);
    result = 0;
    ck_assert_int_eq(mmio_doorbell(vm, &d, NULL), 0);
    end();
    ck_assert_uint_eq(host.dels, 2);
    close(fd);
}
END_TEST

/* ---- posted writes ---- */

static uint32_t writes, releases;

static int count_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    writes++;
    return VMM_IO_EXIT; /* ignored for posted writes */
}

static void count_release(void *opaque)
{
    (void)opaque;
    releases++;
}

static const struct vmm_io_ops posted_ops = {.size = sizeof(posted_ops),
                                             .flags = VMM_IO_POSTED,
                                             .write = count_write,
                                             .release = count_release};

START_TEST(posted_registrations_are_told)
{
    struct mmio *mmio;
    struct pio *pio;

    fake_host.posted_add = add_posted;
    fake_host.posted_del = del_posted;
    vm = fake_vm(NULL);
    ck_assert_int_eq(mmio_register(vm, 0x10000, 0x1000, &posted_ops, NULL, &mmio), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert_uint_eq(host.addr, 0x10000);
    ck_assert_uint_eq(host.len, 0x1000);
    ck_assert_int_eq(mmio_move(mmio, 0x20000), 0);
    ck_assert_uint_eq(host.dels, 1);
    ck_assert_uint_eq(host.adds, 2);
    ck_assert_uint_eq(host.addr, 0x20000);
    ck_assert_int_eq(mmio_move(mmio, 1ull << 60), VMM_E_RANGE);
    ck_assert_uint_eq(host.dels, 1);
    mmio_unregister(mmio);
    ck_assert_uint_eq(host.dels, 2);
    ck_assert_uint_eq(releases, 1);
    ck_assert_int_eq(pio_register(vm, 0x80, 2, &posted_ops, NULL, &pio), 0);
    ck_assert(host.port);
    pio_unregister(pio);
    ck_assert_uint_eq(host.dels, 3);
    /* Whatever the kernel says, the registration works. */
    result = VMM_E_BACKEND;
    ck_assert_int_eq(pio_register(vm, 0x80, 2, &posted_ops, NULL, &pio), 0);
    pio_unregister(pio);
    ck_assert_uint_eq(host.dels, 3);
    result = 0;
    ck_assert_int_eq(mmio_register(vm, 0x10000, 0x1000, &posted_ops, NULL, NULL), 0);
    ck_assert_int_eq(mmio_register(vm, 0x10800, 0x1000, &posted_ops, NULL, NULL), VMM_E_EXIST);
    ck_assert_uint_eq(host.adds, 4);
    end();
    ck_assert_uint_eq(host.dels, 4);
}
END_TEST

static struct mmio *registered;

static int unregister_at_once(struct vm *of, bool port, uint64_t addr, uint64_t len)
{
    add_posted(of, port, addr, len);
    mmio_unregister(registered); /* as a callback on another thread might */
    return 0;
}

START_TEST(what_is_gone_before_it_is_posted_is_not_posted)
{
    fake_host.posted_add = unregister_at_once;
    fake_host.posted_del = del_posted;
    vm = fake_vm(NULL);
    ck_assert_int_eq(mmio_register(vm, 0x10000, 0x1000, &posted_ops, NULL, &registered), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert_uint_eq(host.dels, 1);
    ck_assert_uint_eq(releases, 1);
    ck_assert_ptr_null(vm->io_list);
    end();
    ck_assert_uint_eq(releases, 1);
}
END_TEST

START_TEST(results_of_posted_writes_do_not_count)
{
    static const struct fake_op code[] = {{OP_OUT, 0x80, 1}, {OP_OUT, 0x90, 2}};
    struct vcpu_exit exit = {.size = sizeof(exit)};

    vm = fake_vm(NULL);
    struct vcpu *vcpu = fake_add(vm, 0, code);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &posted_ops, NULL, NULL), 0);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_PIO);
    ck_assert_uint_eq(exit.u.pio.port, 0x90);
    ck_assert_uint_eq(writes, 1);
    end();
}
END_TEST

/* ---- descriptors and routes ---- */

START_TEST(descriptors_are_given_to_the_kernel)
{
    int fd = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);

    chips();
    fake_host.irq_fd_add = add_irq_fd;
    fake_host.irq_fd_del = del_irq_fd;
    begin(VMM_IRQCHIP_MODE_KERNEL);
    ck_assert_int_eq(vm_irq_fd(vm, 11, fd, resample), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert_uint_eq(host.line, 11);
    ck_assert_int_ne(host.fd, fd);
    ck_assert_int_ge(host.resample, 0);
    ck_assert_uint_eq(host.lines, 0);
    ck_assert(!vm->watcher.running);
    ck_assert_int_eq(vm_irq_fd(vm, 12, fd, -1), VMM_E_EXIST);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 12, fd), VMM_E_NOENT);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 11, fd), 0);
    ck_assert_uint_eq(host.dels, 1);
    result = VMM_E_LIMIT;
    ck_assert_int_eq(vm_irq_fd(vm, 11, fd, -1), VMM_E_LIMIT);
    result = 0;
    ck_assert_int_eq(vm_irq_fd(vm, 24, fd, -1), 0);
    end();
    ck_assert_uint_eq(host.dels, 2);
    close(fd);
    close(resample);
}
END_TEST

static int decline(struct vm *of, uint32_t line, int fd, int resample_fd)
{
    (void)of;
    (void)line;
    (void)fd;
    (void)resample_fd;
    return VMM_E_UNSUPPORTED;
}

static _Atomic int level;

static int note_level(struct vm *of, uint32_t line, int now)
{
    (void)of;
    ck_assert_uint_eq(line, 11);
    atomic_store(&level, now);
    return 0;
}

static void wait_level(int wanted)
{
    while (atomic_load(&level) != wanted)
        usleep(100);
}

START_TEST(what_the_kernel_declines_is_resampled_by_the_library)
{
    int fd = eventfd(0, EFD_NONBLOCK), resample = eventfd(0, EFD_NONBLOCK);

    chips();
    fake_host.irq_fd_add = decline;
    fake_host.irq_line = note_level;
    begin(VMM_IRQCHIP_MODE_KERNEL);
    result = VMM_E_BACKEND; /* of irq_eoi_wanted */
    ck_assert_int_eq(vm_irq_fd(vm, 11, fd, resample), VMM_E_BACKEND);
    result = 0;
    ck_assert_int_eq(vm_irq_fd(vm, 11, fd, resample), 0);
    ck_assert_uint_eq(host.lines, 1u << 11);
    ck_assert_int_eq(eventfd_write(fd, 1), 0);
    wait_level(1);
    /* The program's own level and the descriptor's are ORed. */
    ck_assert_int_eq(vm_irq_set(vm, 11, 0), 0);
    ck_assert_int_eq(atomic_load(&level), 1);
    ck_assert_uint_eq(take(resample), 0);
    core_irq_eoi(vm, 11);
    ck_assert_int_eq(atomic_load(&level), 0);
    ck_assert_uint_eq(take(resample), 1);
    /* What is asserted is lowered with its descriptor. */
    ck_assert_int_eq(eventfd_write(fd, 1), 0);
    wait_level(1);
    ck_assert_int_eq(vm_irq_fd_remove(vm, 11, fd), 0);
    ck_assert_int_eq(atomic_load(&level), 0);
    ck_assert_uint_eq(host.lines, 0);
    end();
    close(fd);
    close(resample);
}
END_TEST

START_TEST(routes_are_told)
{
    chips();
    begin(VMM_IRQCHIP_MODE_KERNEL);
    ck_assert_int_eq(vm_irq_route(vm, 30, 0xfee00000, 0x33), 0);
    ck_assert_uint_eq(host.route, 30);
    ck_assert(host.r.set);
    ck_assert_uint_eq(host.r.data, 0x33);
    result = VMM_E_BACKEND;
    ck_assert_int_eq(vm_irq_route(vm, 30, 0, 0), VMM_E_BACKEND);
    result = VMM_E_UNSUPPORTED;
    ck_assert_int_eq(vm_irq_route(vm, 30, 0, 0), 0);
    ck_assert(!host.r.set);
    ck_assert_int_eq(vm_irq_route(vm, 23, 0xfee00000, 0), VMM_E_RANGE);
    ck_assert_int_eq(vm_irq_route(vm, 24 + 1024, 0xfee00000, 0), VMM_E_RANGE);
    ck_assert_int_eq(vm_irq_route(vm, 24, 0xfed00000, 0), VMM_E_RANGE);
    end();
}
END_TEST

/* ---- dirty tracking ---- */

START_TEST(dirty_pages_of_the_kernel_and_the_core)
{
    uint64_t bitmap = 0, count = 0;
    uint8_t byte = 1;

    fake_host.dirty_start = start_dirty;
    fake_host.dirty_stop = stop_dirty;
    fake_host.dirty_sync = sync_dirty;
    vm = fake_vm(NULL);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x10000, VMM_MEM_RWX, NULL), 0);
    result = VMM_E_BACKEND;
    ck_assert_int_eq(vm_dirty_start(vm), VMM_E_BACKEND);
    ck_assert(!vm->dirty_on);
    result = 0;
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    ck_assert_uint_eq(host.adds, 1);
    ck_assert_uint_eq(fake_clears, 1);
    ck_assert_int_eq(vm_mem_write(vm, 0x5000, &byte, 1), 0);
    result = VMM_E_BACKEND;
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0x8000, 0, &bitmap, &count), VMM_E_BACKEND);
    result = 0;
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0x8000, VMM_DIRTY_KEEP, &bitmap, &count), 0);
    ck_assert_uint_eq(bitmap, 0x18);
    ck_assert_uint_eq(count, 2);
    ck_assert_uint_eq(fake_clears, 1); /* kept: nothing to tell */
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0x8000, 0, &bitmap, &count), 0);
    ck_assert_uint_eq(host.addr, 0x1000);
    ck_assert_uint_eq(host.len, 0x8000);
    ck_assert_uint_eq(bitmap, 0x18);
    ck_assert_uint_eq(fake_clears, 2);
    ck_assert_uint_eq(fake_clear_gpa, 0x1000);
    ck_assert_uint_eq(fake_clear_len, 0x8000);
    ck_assert_int_eq(vm_dirty_stop(vm), 0);
    ck_assert_uint_eq(host.dels, 1);
    /* An engine without a log: the bytes are all there is. */
    result = VMM_E_UNSUPPORTED;
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0, 0x10000, 0, &bitmap, &count), 0);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(vm_dirty_stop(vm), 0);
    ck_assert_uint_eq(host.dels, 1);
    end();
}
END_TEST

/* ---- MSR policies ---- */

START_TEST(engines_hear_of_msr_policies)
{
    vm = fake_vm(NULL);
    struct vcpu *vcpu = fake_add(vm, 0, NULL);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 1, 2, VMM_MSR_DENY), 0);
    ck_assert_uint_eq(fake_msr_policies, 1);
    fake_msr_policy_result = VMM_E_BACKEND;
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0, 4, VMM_MSR_EXIT), VMM_E_BACKEND);
    ck_assert_uint_eq(vcpu->nmsr_ranges, 1); /* as it was */
    ck_assert_uint_eq(vcpu->msr_ranges[0].policy, VMM_MSR_DENY);
    end();
}
END_TEST

static void setup(void)
{
    memset(&host, 0, sizeof(host));
    memset(&fake_host, 0, sizeof(fake_host));
    result = 0;
}

int main(void)
{
    const TTest *const tests[] = {
        without_the_hook_the_library_has_them,
        auto_is_the_engine_s_choice,
        failures_of_the_hook_are_the_program_s,
        halts_exit_only_with_the_library_s,
        kernel_mode_passes_lines_and_messages_on,
        kernel_mode_leaves_the_vcpus_to_the_engine,
        halts_go_on_in_the_kernel,
        cpuid_looks_at_the_engine_s_apic_base,
        split_mode_sends_messages_of_the_ioapic,
        split_mode_gives_extint_to_the_engine,
        doorbells_are_the_kernel_s_and_ours,
        posted_registrations_are_told,
        what_is_gone_before_it_is_posted_is_not_posted,
        results_of_posted_writes_do_not_count,
        descriptors_are_given_to_the_kernel,
        what_the_kernel_declines_is_resampled_by_the_library,
        routes_are_told,
        dirty_pages_of_the_kernel_and_the_core,
        engines_hear_of_msr_policies,
    };
    Suite *s = suite_create("host_ops");
    TCase *tc = tcase_create("host_ops");

    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_set_timeout(tc, 60);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(s, tc);
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
