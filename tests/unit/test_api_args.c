/* SPDX-License-Identifier: BSD-2-Clause */
/* test_api_args.c: what the public functions refuse, and what they say about it. */
#include "api_vm.h"

#include <pthread.h>
#include <vmm/boot.h>
#include <vmm/machine.h>

/* A struct of a later version of the headers: the library's, and a tail that it does not know. */
#define LATER(type)                                                                                \
    struct {                                                                                       \
        type now;                                                                                  \
        uint64_t tail[2];                                                                          \
    }

static void says(int code, const char *part)
{
    const char *text = api_error(code);

    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* ---- NULL ---- */

START_TEST(null_handles)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu *v;
    uint64_t value;
    int ok;

    ck_assert_int_eq(vm_create(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_destroy(NULL), 0);
    vm_last_error(NULL, NULL);
    vm_stop(NULL);
    ck_assert_int_eq(vm_pause(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_resume(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_reset(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_request_exit(NULL, VMM_EXIT_USER, 0), VMM_E_INVAL);
    ck_assert_int_eq(vm_get_caps(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_get_stats(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_backend_probe(NULL, 1), VMM_E_INVAL);
    ck_assert_int_gt(vmm_backend_probe(NULL, 0), 0);
    ck_assert_int_eq(vm_mem_map(NULL, 0, NULL, 4096, VMM_MEM_R), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map_fd(NULL, 0, 0, 0, 4096, VMM_MEM_R), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_alloc(NULL, 0, 4096, VMM_MEM_R, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_unmap(NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_protect(NULL, 0, VMM_MEM_R), VMM_E_INVAL);
    ck_assert_ptr_null(vm_mem_ptr(NULL, 0, 1));
    ck_assert_int_eq(vm_mem_read(NULL, 0, &value, 8), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_write(NULL, 0, &value, 8), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_changed(NULL, 0, 8), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_region(NULL, 0, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_create(NULL, 0, NULL, &v), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_destroy(NULL), VMM_E_INVAL);
    ck_assert_ptr_null(vm_vcpu(NULL, 0));
    ck_assert_ptr_null(vcpu_current(NULL));
    ck_assert_int_eq(vcpu_run(NULL, &exit), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_step(NULL, &exit), VMM_E_INVAL);
    vcpu_kick(NULL);
    ck_assert_int_eq(vcpu_set_budget(NULL, 0, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_regs(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_regs(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_xsave(NULL, NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_xsave(NULL, NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_msr(NULL, 0, &value), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_msr(NULL, 0, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_mode(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_translate(NULL, 0, &value, &ok), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_read_virt(NULL, 0, &value, 8), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_write_virt(NULL, 0, &value, 8), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_inject(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_request_irq_window(NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_irq_window_open(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_default_cpuid(NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_cpuid(NULL, NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_msr_policy(NULL, 0, 0, 0), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_debug(NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(mmio_register(NULL, 0, 1, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(pio_register(NULL, 0, 1, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(mmio_move(NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(mmio_complete(NULL, 0), VMM_E_INVAL);
    mmio_unregister(NULL);
    pio_unregister(NULL);
    ck_assert_int_eq(vm_irq_set(NULL, 0, 1), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_pulse(NULL, 0), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_msi(NULL, 0xfee00000, 0), VMM_E_INVAL);
    ck_assert_int_eq(vm_irq_on_eoi(NULL, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_timer_create(NULL, NULL, NULL, NULL), VMM_E_INVAL);
    vm_timer_destroy(NULL);
    ck_assert_int_eq(vm_device_add(NULL, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_device_remove(NULL), 0);
    ck_assert_int_eq(vm_fail(NULL, VMM_E_IO, "op", "text"), VMM_E_IO);
    ck_assert_int_eq(vm_boot(NULL, VMM_BOOT_AUTO, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_boot_detect(NULL), VMM_E_FORMAT);
    vmm_image_free(NULL);
}
END_TEST

START_TEST(null_arguments)
{
    api_begin(VMM_IRQCHIP_PC, 0, 1);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_run(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_regs(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_regs(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_mode(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_xsave(vcpu, NULL, 4096), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_xsave(vcpu, NULL, 4096), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_msr(vcpu, 0, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_translate(vcpu, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_read_virt(vcpu, 0, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_inject(vcpu, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(mmio_register(vm, 0, 1, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_timer_create(vm, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_device_add(vm, NULL, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_read(vm, 0, NULL, 1), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_read(vm, 0, NULL, 0), 0);
    ck_assert_int_eq(vm_mem_map(vm, 0x1000000, NULL, 4096, VMM_MEM_R), VMM_E_INVAL);
    ck_assert_int_eq(vm_boot(vcpu, VMM_BOOT_AUTO, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_serial_create(vm, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vmm_pc_create(vm, NULL, NULL), VMM_E_INVAL);
    api_end();
}
END_TEST

/* ---- sizes of structs ---- */

/* Calls `f` with sizes that are none, and with a later version's struct. */
static void check_sizes(int (*f)(void *), void *later, uint32_t size)
{
    static const uint32_t bad[] = {0, 1, 4, 65537, UINT32_MAX};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memcpy(later, &bad[i], sizeof(bad[i]));
        ck_assert_msg(f(later) == VMM_E_INVAL, "size %u of %u", bad[i], size);
    }
    size += 16;
    memcpy(later, &size, sizeof(size));
    ck_assert_msg(f(later) == 0, "a longer struct of %u bytes", size);
    ((uint8_t *)later)[size - 1] = 1;
    ck_assert_msg(f(later) == VMM_E_UNSUPPORTED, "a longer struct with something in it");
    ((uint8_t *)later)[size - 1] = 0;
}

static int call_create(void *p)
{
    struct vm *other = NULL;
    int err = vm_create(p, &other);

    ck_assert(err == 0 || other == NULL);
    vm_destroy(other);
    return err;
}

static int call_set_regs(void *p)
{
    return vcpu_set_regs(vcpu, p);
}

static int call_set_mode(void *p)
{
    return vcpu_set_mode(vcpu, p);
}

static int call_inject(void *p)
{
    vm_reset(vm);
    return vcpu_inject(vcpu, p);
}

static int call_set_debug(void *p)
{
    return vcpu_set_debug(vcpu, p);
}

static int call_register(void *p)
{
    struct mmio *mmio = NULL;
    int err = mmio_register(vm, MMIO_BASE, 4, p, NULL, &mmio);

    mmio_unregister(mmio);
    return err;
}

static int call_device(void *p)
{
    return vm_device_add(vm, p, NULL, NULL);
}

static int call_boot(void *p)
{
    return vm_boot_flat(vcpu, p);
}

static int call_pc(void *p)
{
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vm_config config = {.size = sizeof(config), .irqchip = VMM_IRQCHIP_PC};
    struct vm *other;

    ck_assert_int_eq(vm_create(&config, &other), 0);
    int err = vmm_pc_create(other, p, &pc);
    ck_assert_int_eq(vm_destroy(other), 0);
    return err;
}

START_TEST(struct_sizes)
{
    LATER(struct vm_config) config = {.tail = {0}};
    LATER(struct vcpu_regs) regs = {.tail = {0}};
    LATER(struct vcpu_setup) setup = {.now = {.mode = VMM_SETUP_REAL}};
    LATER(struct vmm_event) event = {.now = {.type = VMM_EVENT_NMI}};
    LATER(struct vmm_debug) debug = {.tail = {0}};
    LATER(struct vmm_io_ops) ops = {.tail = {0}};
    LATER(struct vmm_device_ops) device = {.tail = {0}};
    LATER(struct vmm_boot)
    boot = {.now = {.kernel = {.size = sizeof(boot.now.kernel), .data = "\xf4", .len = 1}}};
    LATER(struct vmm_pc_config) pc = {.now = {.memory = 0x100000}};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
#define SIZES(call, object) check_sizes(call, &object, sizeof(object.now))
    SIZES(call_create, config);
    SIZES(call_set_regs, regs);
    SIZES(call_set_mode, setup);
    SIZES(call_inject, event);
    SIZES(call_set_debug, debug);
    SIZES(call_register, ops);
    SIZES(call_device, device);
    SIZES(call_boot, boot);
    SIZES(call_pc, pc);
    api_end();
}
END_TEST

/* What the library fills ends where the caller's struct does. */
START_TEST(filled_structs)
{
    struct {
        struct vm_caps caps;
        uint64_t guard;
    } c = {.guard = 0x55};
    LATER(struct vcpu_exit) exit = {.now = {.size = sizeof(exit)}, .tail = {1, 2}};
    struct vmm_error error = {.size = 8, .text = "kept"};

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    c.caps.size = offsetof(struct vm_caps, gpa_bits);
    c.caps.gpa_bits = 77;
    ck_assert_int_eq(vm_get_caps(vm, &c.caps), 0);
    ck_assert_uint_eq(c.caps.size, offsetof(struct vm_caps, gpa_bits));
    ck_assert_uint_eq(c.caps.max_vcpus, 1);
    ck_assert_uint_eq(c.caps.gpa_bits, 77);
    c.caps.size = sizeof(c.caps);
    ck_assert_int_eq(vm_get_caps(vm, &c.caps), 0);
    ck_assert_uint_eq(c.guard, 0x55);
    LOAD("\xf4");
    ck_assert_int_eq(vcpu_run(vcpu, &exit.now), 0);
    ck_assert_uint_eq(exit.now.size, sizeof(exit));
    ck_assert_uint_eq(exit.tail[0], 0);
    ck_assert_int_eq(vcpu_run(vcpu, NULL), VMM_E_INVAL);
    vm_last_error(vm, &error);
    ck_assert_int_eq(error.code, VMM_E_INVAL);
    ck_assert_str_eq(error.text, "kept");
    api_end();
}
END_TEST

/* ---- reserved bytes and unknown flags ---- */

START_TEST(reserved_members)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .flags = 0x8000};
    struct vmm_device_ops device = {.size = sizeof(device), .reserved = 1};
    struct vmm_debug debug = {.size = sizeof(debug), .flags = 2};
    struct vm_config config = {.size = sizeof(config), .flags = 0x80000000};
    struct vmm_event event = {.size = sizeof(event), .type = VMM_EVENT_NMI, .reserved = 1};
    struct vmm_pc_config pc_config = {.size = sizeof(pc_config), .memory = 0x100000, .reserved = 1};
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vmm_rtc_config rtc = {.size = sizeof(rtc), .reserved = 1};
    struct vmm_boot boot = {.size = sizeof(boot), .flags = 2};
    struct vm *other;

    api_begin(VMM_IRQCHIP_PC, 0, 1);
    ck_assert_int_eq(mmio_register(vm, MMIO_BASE, 4, &ops, NULL, NULL), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vm_device_add(vm, &device, NULL, NULL), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vm_create(&config, &other), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vcpu_inject(vcpu, &event), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vmm_pc_create(vm, &pc_config, &pc), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vm_boot_flat(vcpu, &boot), VMM_E_UNSUPPORTED);
    ck_assert_int_eq(vmm_rtc_create(vm, &rtc, NULL), VMM_E_UNSUPPORTED);
    struct vcpu_regs regs = api_regs(vcpu);
    regs.reserved[1] = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs = api_regs(vcpu);
    regs.seg[VMM_GS].reserved[2] = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    says(VMM_E_INVAL, "reserved");
    regs = api_regs(vcpu);
    regs.idt.reserved[0] = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_INVAL);
    regs.groups = VMM_REGS_GPR; /* members of other groups do not count */
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    api_end();
}
END_TEST

/* ---- impossible states ---- */

static void entry(struct vcpu_regs *regs, const char *named)
{
    struct vcpu_regs before = api_regs(vcpu), after;

    ck_assert_int_eq(vcpu_set_regs(vcpu, regs), VMM_E_INVAL);
    says(VMM_E_INVAL, named);
    after = api_regs(vcpu);
    before.tsc = after.tsc = 0;
    ck_assert_mem_eq(&before, &after, sizeof(before)); /* nothing changed */
    *regs = before;
}

START_TEST(impossible_states_are_named)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xf4");
    struct vcpu_regs r = api_regs(vcpu);
    r.cr0 &= ~1ull;
    entry(&r, "CR0.PG without CR0.PE");
    r.cr0 |= 1ull << 40;
    entry(&r, "CR0: reserved");
    r.cr4 |= 1ull << 60;
    entry(&r, "CR4");
    r.cr4 &= ~0x20ull;
    entry(&r, "EFER.LMA without CR4.PAE");
    r.efer &= ~0x400ull;
    entry(&r, "EFER.LMA");
    r.cr3 = UINT64_MAX;
    entry(&r, "CR3");
    r.cr8 = 16;
    entry(&r, "CR8");
    r.rflags = 0;
    entry(&r, "RFLAGS");
    r.rflags |= 0x20000;
    entry(&r, "RFLAGS.VM");
    r.rip = 1ull << 47;
    entry(&r, "RIP: not canonical");
    r.seg[VMM_CS].ar |= VMM_AR_UNUSABLE;
    entry(&r, "CS: unusable");
    r.seg[VMM_CS].ar |= VMM_AR_DB;
    entry(&r, "CS: L and D/B");
    r.seg[VMM_SS].ar |= VMM_AR_DPL;
    entry(&r, "DPL");
    r.seg[VMM_TR].ar = 0x8b | VMM_AR_UNUSABLE;
    entry(&r, "TR: unusable");
    r.seg[VMM_TR].base = 1ull << 63;
    entry(&r, "TR: base");
    r.seg[VMM_DS].limit = 0x12345678;
    entry(&r, "DS: limit");
    r.gdt.base = 1ull << 63;
    entry(&r, "GDTR");
    r.dr[7] = 1ull << 32;
    entry(&r, "DR7");
    r.pat = 2;
    entry(&r, "PAT");
    r.lstar = 1ull << 63;
    entry(&r, "LSTAR");
    r.xcr0 = 2;
    entry(&r, "XCR0");
    r.activity = 4;
    entry(&r, "activity");
    r.shadow = 4;
    entry(&r, "shadow");
    r.inject_valid = 2;
    entry(&r, "inject_valid");
    r.groups = 128;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), VMM_E_INVAL);
    RUN(HLT);
    api_end();
}
END_TEST

/* ---- huge values ---- */

START_TEST(huge_ranges)
{
    struct vmm_io_ops ops = {.size = sizeof(ops)};
    static _Alignas(4096) uint8_t page[4096];
    const uint64_t top = UINT64_MAX & ~0xfffull;

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\xf4");
    ck_assert_int_eq(vm_mem_map(vm, top, page, 4096, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map(vm, 0x1000000, page, top, VMM_MEM_RWX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_map(vm, 0x1000000, (void *)(uintptr_t)top, 0x2000, VMM_MEM_RWX),
                     VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x1000000, 0, VMM_MEM_RWX, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x1000000, 4096, 0, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x1000000, 4096, 9, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_protect(vm, 0, VMM_MEM_W), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_map_fd(vm, 0x1000000, -1, 0, 4096, VMM_MEM_RWX), VMM_E_INVAL);
    ck_assert_int_eq(vm_mem_read(vm, 0, page, UINT64_MAX), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_write(vm, UINT64_MAX, page, 2), VMM_E_RANGE);
    ck_assert_int_eq(vm_mem_changed(vm, RAM - 1, 2), VMM_E_RANGE);
    ck_assert_ptr_null(vm_mem_ptr(vm, RAM - 1, 2));
    ck_assert_ptr_null(vm_mem_ptr(vm, 1, UINT64_MAX));
    ck_assert_int_eq(mmio_register(vm, UINT64_MAX, 1, &ops, NULL, NULL), VMM_E_RANGE);
    ck_assert_int_eq(mmio_register(vm, 1, UINT64_MAX, &ops, NULL, NULL), VMM_E_RANGE);
    ck_assert_int_eq(mmio_register(vm, 1, 0, &ops, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(pio_register(vm, 0xffff, 2, &ops, NULL, NULL), VMM_E_RANGE);
    ck_assert_int_eq(pio_register(vm, 0xffff, 1, &ops, NULL, NULL), 0);
    ck_assert_int_eq(pio_register(vm, 0, UINT32_MAX, &ops, NULL, NULL), VMM_E_RANGE);
    ck_assert_int_eq(vcpu_read_virt(vcpu, UINT64_MAX, page, 2), VMM_E_RANGE);
    ck_assert_int_eq(vcpu_write_virt(vcpu, RAM - 1, page, 2), VMM_E_RANGE);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, (struct vmm_cpuid[1]){{0}}, UINT32_MAX), VMM_E_LIMIT);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0, UINT32_MAX, VMM_MSR_DENY), 0);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 1, 0, VMM_MSR_DENY), VMM_E_INVAL);
    ck_assert_ptr_null(vm_vcpu(vm, UINT32_MAX));
    ck_assert_int_eq(vm_irq_set(vm, 0, 1), VMM_E_STATE);
    api_end();
}
END_TEST

/* ---- vector state ---- */

START_TEST(xsave_round_trip)
{
    struct vm_caps caps = {.size = sizeof(caps)};
    _Alignas(64) uint8_t area[16384], again[16384];

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x0f\x58\xc1\xf4"); /* addps %xmm1,%xmm0; hlt */
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_le(caps.xsave_size, sizeof(area));
    ck_assert_int_eq(vcpu_get_xsave(vcpu, area, caps.xsave_size - 1), VMM_E_NOSPACE);
    ck_assert_int_eq(vcpu_get_xsave(vcpu, area, sizeof(area)), 0);
    const float one[4] = {1, 2, 3, 4}, two[4] = {10, 20, 30, 40};
    memcpy(area + 160, one, 16);
    memcpy(area + 176, two, 16);
    area[512] |= 2; /* XSTATE_BV: SSE */
    ck_assert_int_eq(vcpu_set_xsave(vcpu, area, 575), VMM_E_INVAL);
    ck_assert_int_eq(vcpu_set_xsave(vcpu, area, sizeof(area)), 0);
    RUN(HLT);
    ck_assert_int_eq(vcpu_get_xsave(vcpu, again, sizeof(again)), 0);
    ck_assert_mem_eq(again + 160, ((float[]){11, 22, 33, 44}), 16);
    /* Refused without a change: reserved bits of MXCSR, the header and XSTATE_BV. */
    static const unsigned bad[] = {24 + 2, 512 + 7, 512 + 16, 512 + 63};
    for (unsigned i = 0; i < 4; i++) {
        memcpy(area, again, sizeof(area));
        area[160] ^= 1;
        area[bad[i]] |= 0x80;
        ck_assert_msg(vcpu_set_xsave(vcpu, area, sizeof(area)) == VMM_E_INVAL, "byte %u", bad[i]);
        ck_assert_int_eq(vcpu_get_xsave(vcpu, area, sizeof(area)), 0);
        ck_assert_mem_eq(area, again, caps.xsave_size);
    }
    api_end();
}
END_TEST

/* ---- busy ---- */

static void *spin(void *exit)
{
    vcpu_run(vcpu, exit);
    return NULL;
}

static _Atomic int started;

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    started = 1;
    return VMM_IO_OK;
}

START_TEST(a_running_vcpu_is_busy)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .write = on_write};
    struct vmm_boot boot = {.size = sizeof(boot),
                            .kernel = {.size = sizeof(boot.kernel), .data = "\xf4", .len = 1}};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    struct vcpu *second;
    pthread_t thread;

    api_begin(VMM_IRQCHIP_NONE, 0, 2);
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &ops, NULL, NULL), 0);
    LOAD("\xe6\x80\xeb\xfe"); /* out %al,$0x80; jmp . */
    started = 0;
    pthread_create(&thread, NULL, spin, &exit);
    while (!started)
        continue;
    ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_step(vcpu, &ex), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 1, 1), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_destroy(vcpu), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &second), VMM_E_EXIST);
    ck_assert_int_eq(vm_reset(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_destroy(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_boot_flat(second, &boot), VMM_E_BUSY); /* QUIET, also for another vCPU */
    ck_assert_int_eq(vcpu_get_regs(second, &regs), 0);
    vcpu_kick(vcpu);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_INTERRUPTED);
    ck_assert_int_eq(vm_boot_flat(second, &boot), 0);
    api_end();
}
END_TEST

START_TEST(destroyed_vcpus_are_refused)
{
    api_begin(VMM_IRQCHIP_PC, 0, 1);
    ck_assert_int_eq(vcpu_destroy(vcpu), 0);
    ck_assert_int_eq(vcpu_destroy(vcpu), VMM_E_STATE);
    ck_assert_int_eq(vcpu_run(vcpu, &ex), VMM_E_STATE);
    ck_assert_int_eq(vcpu_set_budget(vcpu, 1, 1), VMM_E_STATE);
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), VMM_E_STATE);
    ck_assert_int_eq(mmio_complete(vcpu, 0), VMM_E_STATE);
    says(VMM_E_STATE, "vCPU 0");
    vcpu_kick(vcpu);
    ck_assert_ptr_null(vm_vcpu(vm, 0));
    ck_assert_int_eq(vm_irq_pulse(vm, 4), 0);
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    LOAD("\x90\xe6\x80");
    RUN(PIO); /* the kick was for the other one */
    api_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        null_handles,
        null_arguments,
        struct_sizes,
        filled_structs,
        reserved_members,
        impossible_states_are_named,
        huge_ranges,
        xsave_round_trip,
        a_running_vcpu_is_busy,
        destroyed_vcpus_are_refused,
    };

    return api_main("api_args", tests, sizeof(tests) / sizeof(tests[0]));
}
