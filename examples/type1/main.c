/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c: a host without an operating system that runs guests by VMX; its output is TAP. */
#include <vmm/memory.h>
#include <vmm/vmm.h>

#include "host.h"
#include "linux.h"

void host_main(const uint32_t *boot);
void *memcpy(void *to, const void *from, size_t n);

static unsigned number, failures;

static void check(bool ok, const char *what)
{
    failures += !ok;
    host_print("%s %u - %s\n", ok ? "ok" : "not ok", ++number, what);
}

/* ---- a VM with 64 KiB, MMIO behind it and a port ---- */

static uint64_t mmio_value, port_value;
static uint8_t *ram;
static struct vm *vm;
static struct vcpu *vcpu;

static int mmio_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = 0x1234;
    return VMM_IO_OK;
}

static int mmio_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    mmio_value = value;
    return VMM_IO_OK;
}

static int port_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = 0x5a;
    return VMM_IO_OK;
}

static int port_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    port_value = value;
    return VMM_IO_OK;
}

static bool make(uint32_t irqchip)
{
    static const struct vmm_io_ops mmio = {
        .size = sizeof(mmio), .name = "mmio", .read = mmio_read, .write = mmio_write};
    static const struct vmm_io_ops port = {
        .size = sizeof(port), .name = "port", .read = port_read, .write = port_write};
    static const char *const names[] = {"vmx", NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_EXIT_HYPERCALL,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = names,
                               .irqchip = irqchip,
                               .error = &error};

    if (vm_create(&config, &vm)) {
        host_print("# %s\n", error.text);
        return false;
    }
    return !vm_mem_alloc(vm, 0, 0x20000, VMM_MEM_RWX, (void **)&ram) &&
           !mmio_register(vm, 0xd0000, 0x1000, &mmio, NULL, NULL) &&
           !pio_register(vm, 0x10, 1, &port, NULL, NULL) && !vcpu_create(vm, 0, NULL, &vcpu);
}

static uint64_t software_insns(void)
{
    struct vm_stats stats = {.size = sizeof(stats)};

    return vm_get_stats(vm, &stats) ? 0 : stats.insns;
}

/* Runs `code` in a mode of vcpu_set_mode until it exits. */
static uint32_t run(uint32_t mode, const uint8_t *code, size_t len, struct vcpu_regs *regs)
{
    struct vcpu_setup setup = {
        .size = sizeof(setup), .mode = mode, .rip = 0x1000, .rsp = 0x8000, .tables = 0x10000};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vmm_error error = {.size = sizeof(error)};

    memcpy(ram + 0x1000, code, len);
    mmio_value = port_value = 0;
    if (vcpu_set_mode(vcpu, &setup) || vcpu_run(vcpu, &exit)) {
        vm_last_error(vm, &error);
        host_print("# %s: %s\n", error.op, error.text);
        return VMM_EXIT_NONE;
    }
    if (exit.reason == VMM_EXIT_ENTRY_FAIL)
        host_print("# %s\n", exit.u.entry.text);
    regs->size = sizeof(*regs);
    regs->groups = VMM_REGS_GPR | VMM_REGS_CONTROL;
    vcpu_get_regs(vcpu, regs);
    return exit.reason;
}

/* ---- guests ---- */

/* Reads MMIO, writes its double there and to the port, counts 10000 in a loop. */
static const uint8_t real_code[] = {
    0xb8, 0x00, 0xd0, /* mov ax, 0xd000 */
    0x8e, 0xd8,       /* mov ds, ax */
    0xa1, 0x00, 0x00, /* mov ax, [0] */
    0x01, 0xc0,       /* add ax, ax */
    0xa3, 0x04, 0x00, /* mov [4], ax */
    0xe6, 0x10,       /* out 0x10, al */
    0x31, 0xdb,       /* xor bx, bx */
    0xb9, 0x10, 0x27, /* mov cx, 10000 */
    0x43,             /* inc bx */
    0xe2, 0xfd,       /* loop */
    0xf4,             /* hlt */
};

static void test_real(void)
{
    uint64_t before = software_insns();
    struct vcpu_regs regs;

    check(run(VMM_SETUP_REAL, real_code, sizeof(real_code), &regs) == VMM_EXIT_HLT,
          "a guest in real mode halts");
    check(mmio_value == 0x2468 && port_value == 0x68, "its MMIO and port accesses");
    check((regs.gpr[VMM_RBX] & 0xffff) == 10000, "its loop has run");
    before = software_insns() - before;
    host_print("# %lu instructions in software\n", before);
    check(before < 10000, "the hardware has executed most of it"); /* of 20,000 */
}

/* Vector instructions, CPUID and MMIO; the sum of 1 to 100000. */
static const uint8_t long_code[] = {
    0xb9, 0xa0, 0x86, 0x01, 0x00,                /* mov ecx, 100000 */
    0x31, 0xc0,                                  /* xor eax, eax */
    0x48, 0x01, 0xc8,                            /* add rax, rcx */
    0xff, 0xc9,                                  /* dec ecx */
    0x75, 0xf9,                                  /* jnz */
    0x66, 0x48, 0x0f, 0x6e, 0xc0,                /* movq xmm0, rax */
    0x66, 0x0f, 0xd4, 0xc0,                      /* paddq xmm0, xmm0 */
    0x66, 0x49, 0x0f, 0x7e, 0xc0,                /* movq r8, xmm0 */
    0x31, 0xc0,                                  /* xor eax, eax */
    0x0f, 0xa2,                                  /* cpuid */
    0x41, 0x89, 0xc1,                            /* mov r9d, eax */
    0x4c, 0x89, 0x04, 0x25, 0,    0, 0x0d, 0x00, /* mov [0xd0000], r8 */
    0xf4,                                        /* hlt */
};

static void test_long(void)
{
    uint64_t before = software_insns(), software;
    struct vcpu_regs regs;

    check(run(VMM_SETUP_LONG64, long_code, sizeof(long_code), &regs) == VMM_EXIT_HLT,
          "a guest in long mode halts");
    check(regs.gpr[VMM_R8] == 10000100000 && mmio_value == 10000100000,
          "its sum, through a vector register and MMIO");
    check(regs.gpr[VMM_R9] >= 1, "CPUID");
    software = software_insns() - before;
    check(software < 100, "the hardware has executed it");
}

/* Long mode with its IDT out of reach: an exception is a triple fault. */
static void test_shutdown(void)
{
    static const uint8_t code[] = {0x0f, 0x0b}; /* ud2 */
    struct vcpu_regs regs;

    check(run(VMM_SETUP_LONG64, code, sizeof(code), &regs) == VMM_EXIT_SHUTDOWN,
          "a triple fault is a shutdown");
}

/* 2 GiB is mapped by the tables, but nothing is there. */
static void test_exits(void)
{
    static const uint8_t unhandled[] = {0xa0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0xf4}; /* mov al, [2G] */
    struct vcpu_regs regs;

    check(run(VMM_SETUP_LONG64, unhandled, sizeof(unhandled), &regs) == VMM_EXIT_MMIO,
          "an access that nobody handles exits");
}

/* ---- the machine ---- */

static bool vmx, has_ept;

static bool probe(void)
{
    struct vmm_backend_report reports[4] = {{.size = sizeof(reports[0])}};
    int n = vmm_backend_probe(reports, 4);

    for (int i = 0; i < n && i < 4; i++)
        host_print("# %s: %s\n", reports[i].name, reports[i].reason);
    for (const char *p = reports[0].reason; *p; p++)
        has_ept |= p[0] == 'E' && p[1] == 'P' && p[2] == 'T';
    vmx = n > 0 && reports[0].result == VMM_OK;
    return vmx;
}

static void run_tests(void)
{
    check(make(VMM_IRQCHIP_NONE), "a VM on the backend vmx");
    if (failures)
        return;
    test_real();
    test_long();
    test_shutdown();
    test_exits();
    check(!host_costs(vcpu, ram, has_ept), "exits cost what they may");
    check(!vm_destroy(vm), "the VM is destroyed");
    check(make(VMM_IRQCHIP_PC) && !host_apic_costs(vcpu, ram, has_ept) && !vm_destroy(vm),
          "accesses to a local APIC cost what they may");
}

void host_main(const uint32_t *boot)
{
    host_init(0x100000 + (uint64_t)boot[2] * 1024);
    host_print("TAP version 13\n");
    check(!vmm_host_init(&host_ops), "vmm_host_init");
    linux_reserve(boot);
    if (probe() && linux_modules(boot))
        check(linux_run(boot), "the kernel powers off");
    else if (vmx)
        run_tests();
    else
        host_print("# no VMX here\n");
    host_print("1..%u\n# done, %u failed\n", number, failures);
    host_exit(!failures);
}
