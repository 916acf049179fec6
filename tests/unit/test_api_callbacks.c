/* SPDX-License-Identifier: BSD-2-Clause */
/* test_api_callbacks.c: what callbacks may do to the VM and the vCPU that they run for. */
#include "api_vm.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <vmm/boot.h>

/* The callback of all registrations here does what the test has put into `act`. */
static void (*act)(uint32_t size);
static unsigned calls, releases;
static struct mmio *mmio;
static struct pio *pio;

static int on_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    calls++;
    if (act)
        act(size);
    *value = 0x42;
    return VMM_IO_OK;
}

static int on_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)value;
    calls++;
    if (act)
        act(size);
    return VMM_IO_OK;
}

static void on_release(void *opaque)
{
    (void)opaque;
    releases++;
}

static const struct vmm_io_ops ops = {
    .size = sizeof(ops), .name = "test", .read = on_read, .write = on_write, .release = on_release};

static void begin(uint32_t irqchip, void (*action)(uint32_t))
{
    act = action;
    calls = releases = 0;
    api_begin(irqchip, 0, 2);
    ck_assert_int_eq(mmio_register(vm, MMIO_BASE, 0x1000, &ops, NULL, &mmio), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 2, &ops, NULL, &pio), 0);
}

static void end(unsigned released)
{
    api_end();
    ck_assert_uint_eq(releases, released);
}

/* mov $0xd0000000,%ebx; mov (%rbx),%eax; inc %ecx; inc %ecx; hlt */
#define READ_MMIO "\xbb\x00\x00\x00\xd0\x8b\x03\xff\xc1\xff\xc1\xf4"
#define READ_INSN (CODE + 5)

/* ---- the memory and I/O maps ---- */

static void unregister_mmio(uint32_t size)
{
    (void)size;
    mmio_unregister(mmio);
    ck_assert_uint_eq(releases, 0); /* not before this callback has returned */
}

START_TEST(unregisters_itself)
{
    begin(VMM_IRQCHIP_NONE, unregister_mmio);
    /* mov $0xd0000000,%ebx; movups (%rbx),%xmm0; hlt: the second half finds nobody */
    LOAD("\xbb\x00\x00\x00\xd0\x0f\x10\x03\xf4");
    RUN(MMIO);
    ck_assert_uint_eq(calls, 1);
    ck_assert_uint_eq(releases, 1);
    ck_assert_uint_eq(ex.u.mmio.gpa, MMIO_BASE + 8);
    ex.u.mmio.data = 0x43;
    RUN(HLT);
    ck_assert_uint_eq(calls, 1); /* the first half was not made again */
    end(2);
}
END_TEST

static void move_mmio(uint32_t size)
{
    (void)size;
    ck_assert_int_eq(mmio_move(mmio, MMIO_BASE + 0x2000), 0);
    ck_assert_int_eq(mmio_move(mmio, UINT64_MAX), VMM_E_RANGE);
}

START_TEST(moves_itself)
{
    begin(VMM_IRQCHIP_NONE, move_mmio);
    LOAD(READ_MMIO);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x42);
    LOAD(READ_MMIO);
    RUN(MMIO);
    end(2);
}
END_TEST

static void unmap_code(uint32_t size)
{
    (void)size;
    ck_assert_int_eq(vm_mem_unmap(vm, 0x200000), 0);
}

/* movups, so that there is an access after the first callback; then code that is gone. */
START_TEST(unmaps_the_code_that_runs)
{
    begin(VMM_IRQCHIP_NONE, unmap_code);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x200000, READ_MMIO, sizeof(READ_MMIO)), 0);
    LOAD("\xb8\x00\x00\x20\x00\xff\xe0");
    RUN(MEM_FAULT);
    ck_assert_uint_eq(ex.rip, 0x200007);
    ck_assert_uint_eq(calls, 1);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 0);
    end(2);
}
END_TEST

static void unmap_target(uint32_t size)
{
    (void)size;
    if (calls == 2)
        ck_assert_int_eq(vm_mem_unmap(vm, 0x200000), 0);
}

START_TEST(unmaps_the_target_of_a_string)
{
    begin(VMM_IRQCHIP_NONE, unmap_target);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RWX, NULL), 0);
    /* mov $0x200000,%edi; mov $8,%ecx; mov $0x80,%edx; cld; rep insb; hlt */
    LOAD("\xbf\x00\x00\x20\x00\xb9\x08\x00\x00\x00\xba\x80\x00\x00\x00\xfc\xf3\x6c\xf4");
    RUN(MMIO); /* the value of the second IN goes to where there is nothing now */
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x200001);
    ck_assert_uint_eq(ex.u.mmio.data, 0x42);
    ck_assert_uint_eq(calls, 2);
    RUN(MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0x200002);
    ck_assert_uint_eq(calls, 3);
    end(2);
}
END_TEST

static void overwrite_code(uint32_t size)
{
    (void)size;
    ck_assert_int_eq(vm_mem_write(vm, READ_INSN + 2, "\xff\xc2\xff\xc2", 4), 0);
}

START_TEST(overwrites_the_next_instructions)
{
    begin(VMM_IRQCHIP_NONE, overwrite_code);
    LOAD(READ_MMIO);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 0);
    ck_assert_uint_eq(api_gpr(VMM_RDX), 2);
    end(2);
}
END_TEST

/* ---- the vCPU ---- */

static void set_registers(uint32_t size)
{
    struct vcpu_regs regs = api_regs(vcpu);

    (void)size;
    ck_assert_uint_eq(regs.rip, READ_INSN);
    regs.groups = VMM_REGS_GPR;
    regs.gpr[VMM_RCX] = 100;
    regs.gpr[VMM_RAX] = 200; /* the instruction's own result comes later */
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    regs.rip = HANDLER;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), VMM_E_STATE);
    struct vcpu_setup setup = {.size = sizeof(setup), .mode = VMM_SETUP_REAL, .rip = 0x7c00};
    ck_assert_int_eq(vcpu_set_mode(vcpu, &setup), VMM_E_STATE);
}

START_TEST(sets_registers)
{
    begin(VMM_IRQCHIP_NONE, set_registers);
    LOAD(READ_MMIO);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x42);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 102);
    ck_assert_uint_eq(ex.mode, VMM_MODE_LONG64);
    end(2);
}
END_TEST

static void to_compatibility_mode(uint32_t size)
{
    struct vcpu_regs regs = api_regs(vcpu);

    (void)size;
    regs.groups = VMM_REGS_SEG;
    regs.seg[VMM_CS].ar = 0xc09b;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
}

/* 48 ff c1 is INC RCX in 64-bit mode, DEC EAX and INC ECX in 32-bit mode. */
START_TEST(changes_the_mode)
{
    begin(VMM_IRQCHIP_NONE, to_compatibility_mode);
    LOAD("\xbb\x00\x00\x00\xd0\x8b\x03\x48\xff\xc1\xf4");
    RUN(HLT);
    ck_assert_uint_eq(ex.mode, VMM_MODE_COMPAT32);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x41);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 1);
    end(2);
}
END_TEST

static void inject_interrupt(uint32_t size)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_INTERRUPT, .vector = 20};

    (void)size;
    if (calls > 1)
        return;
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 0);
    ck_assert_uint_eq(api_regs(vcpu).inject_valid, 1);
}

/* Between the two instructions, whether their block ends there or not. */
START_TEST(injects_an_interrupt)
{
    begin(VMM_IRQCHIP_NONE, inject_interrupt);
    /* sti; out %al,$0x80; cli; out %al,$0x81; hlt */
    LOAD("\xfb\xe6\x80\xfa\xe6\x81\xf4");
    HANDLE(
        "\x41\x58\x41\x50\xbe\x01\x00\x00\x00\x48\xcf"); /* pop %r8; push %r8; mov $1,%esi; iretq */
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.rflags |= 0x200;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_R8), CODE + 3);
    ck_assert_uint_eq(api_gpr(VMM_RSI), 1);
    ck_assert_uint_eq(calls, 2);

    calls = 0;
    /* mov $0xd0000000,%ebx; movups (%rbx),%xmm0; cli; inc %ecx; hlt */
    LOAD("\xbb\x00\x00\x00\xd0\x0f\x10\x03\xfa\xff\xc1\xf4");
    HANDLE("\x41\x58\x41\x50\xbe\x01\x00\x00\x00\x48\xcf");
    regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.rflags |= 0x200;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_R8), CODE + 8);
    ck_assert_uint_eq(calls, 2);
    end(2);
}
END_TEST

static int exit_after_injection(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_NMI, .vector = 2};

    (void)opaque;
    (void)size;
    (void)value;
    calls++;
    if (offset)
        return VMM_IO_EXIT;
    e.type = VMM_EVENT_EXCEPTION;
    e.vector = 5;
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    return VMM_IO_OK;
}

/* The instruction waits in the middle: the event comes behind it, its accesses are made once. */
START_TEST(event_of_an_instruction_that_waits)
{
    struct vmm_io_ops once = ops;

    begin(VMM_IRQCHIP_NONE, NULL);
    once.read = exit_after_injection;
    ck_assert_int_eq(mmio_register(vm, MMIO_BASE + 0x1000, 0x1000, &once, NULL, NULL), 0);
    /* mov $0xd0001000,%ebx; movups (%rbx),%xmm0; nop; hlt */
    LOAD("\xbb\x00\x10\x00\xd0\x0f\x10\x03\x90\xf4");
    HANDLE("\x41\x58\xf4"); /* pop %r8; hlt */
    RUN(MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, MMIO_BASE + 0x1008);
    ck_assert_uint_eq(api_regs(vcpu).inject_valid, 1);
    RUN(HLT);
    ck_assert_uint_eq(ex.rip, HANDLER + 3);
    ck_assert_uint_eq(api_gpr(VMM_R8), CODE + 8);
    ck_assert_uint_eq(calls, 2);
    end(3);
}
END_TEST

static void arm_breakpoint(uint32_t size)
{
    struct vmm_debug debug = {.size = sizeof(debug),
                              .nbreakpoints = 1,
                              .breakpoints = {{.addr = READ_INSN + 4, .type = VMM_BREAK_EXEC}}};

    (void)size;
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), 0);
}

START_TEST(arms_a_breakpoint)
{
    begin(VMM_IRQCHIP_NONE, arm_breakpoint);
    LOAD(READ_MMIO);
    RUN(BREAKPOINT);
    ck_assert_uint_eq(ex.rip, READ_INSN + 4);
    ck_assert_uint_eq(api_gpr(VMM_RCX), 1);
    RUN(HLT);
    end(2);
}
END_TEST

static void set_cpuid(uint32_t size)
{
    struct vmm_cpuid table[256];
    uint32_t n = 256;

    (void)size;
    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), 0);
    for (uint32_t i = 0; i < n; i++)
        if (table[i].leaf == 1)
            table[i].ecx = 0; /* takes MOVBE, POPCNT, SSE3 ... away */
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
}

START_TEST(takes_features_away)
{
    begin(VMM_IRQCHIP_NONE, set_cpuid);
    LOAD("\xbb\x00\x00\x00\xd0\x8b\x03\xf3\x0f\xb8\xc9\xf4"); /* ...; popcnt %ecx,%ecx; hlt */
    HANDLE("\xbe\x06\x00\x00\x00\xf4");
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RSI), 6); /* #UD */
    end(2);
}
END_TEST

/* ---- what is refused ---- */

static void refused(uint32_t size)
{
    struct vcpu_exit inner = {.size = sizeof(inner)};
    struct vmm_boot boot = {.size = sizeof(boot),
                            .kernel = {.size = sizeof(boot.kernel), .data = "\xf4", .len = 1}};

    (void)size;
    ck_assert_ptr_eq(vcpu_current(vm), vcpu);
    ck_assert_int_eq(vcpu_run(vcpu, &inner), VMM_E_STATE);
    ck_assert_int_eq(vcpu_step(vcpu, &inner), VMM_E_STATE);
    ck_assert_int_eq(vcpu_destroy(vcpu), VMM_E_BUSY);
    ck_assert_int_eq(vm_destroy(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_reset(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_pause(vm), VMM_E_STATE);
    ck_assert_int_eq(vm_boot_flat(vcpu, &boot), VMM_E_BUSY);
    ck_assert_ptr_nonnull(strstr(api_error(VMM_E_BUSY), "callback"));
}

START_TEST(refuses_what_cannot_be)
{
    begin(VMM_IRQCHIP_NONE, refused);
    LOAD(READ_MMIO);
    RUN(HLT);
    ck_assert_ptr_null(vcpu_current(vm));
    end(2);
}
END_TEST

static void asks_for_exits(uint32_t size)
{
    (void)size;
    vcpu_kick(vcpu);
    vm_stop(vm);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_RESET, 5), 0);
}

START_TEST(asks_for_every_kind_of_exit)
{
    begin(VMM_IRQCHIP_NONE, asks_for_exits);
    LOAD(READ_MMIO);
    RUN(STOPPED);
    ck_assert_uint_ge(ex.rip, READ_INSN + 2); /* the access was made */
    ck_assert_int_eq(vm_resume(vm), 0);
    RUN(INTERRUPTED);
    RUN(RESET);
    ck_assert_uint_eq(ex.u.user.value, 5);
    RUN(HLT);
    ck_assert_uint_eq(calls, 1);
    end(2);
}
END_TEST

/* ---- other objects ---- */

static void run_another_vm(uint32_t size)
{
    struct vm *outer = vm;
    struct vcpu *outer_vcpu = vcpu;
    struct vcpu_exit outer_exit = ex;

    (void)size;
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD("\x90\xf4");
    RUN(HLT);
    ck_assert_ptr_null(vcpu_current(vm));
    ck_assert_ptr_eq(vcpu_current(outer), outer_vcpu);
    api_end();
    vm = outer;
    vcpu = outer_vcpu;
    ex = outer_exit;
}

START_TEST(runs_another_vm)
{
    begin(VMM_IRQCHIP_NONE, run_another_vm);
    LOAD(READ_MMIO);
    RUN(HLT);
    ck_assert_uint_eq(api_gpr(VMM_RAX), 0x42);
    end(2);
}
END_TEST

static void other_vcpus(uint32_t size)
{
    struct vcpu *other;

    (void)size;
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &other), 0);
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &other), VMM_E_EXIST);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &other), VMM_E_EXIST);
    api_load(other, "", 0);
    ck_assert_ptr_eq(vcpu_current(vm), vcpu);
    ck_assert_int_eq(vcpu_destroy(other), 0);
    ck_assert_int_eq(vcpu_destroy(other), VMM_E_STATE);
}

START_TEST(creates_and_destroys_vcpus)
{
    begin(VMM_IRQCHIP_PC, other_vcpus);
    LOAD("\xe6\x80\xe6\x90"); /* out %al,$0x80; out %al,$0x90 */
    RUN(PIO);
    end(2);
}
END_TEST

static void set_rip(void *opaque, uint64_t deadline)
{
    struct vcpu_regs regs = api_regs(vcpu);

    (void)opaque;
    (void)deadline;
    regs.groups = VMM_REGS_GPR;
    regs.rip = CODE + 2;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
}

/* A timer fires between instructions, where RIP can be moved. */
START_TEST(timer_moves_rip)
{
    struct vmm_timer *timer;

    begin(VMM_IRQCHIP_NONE, NULL);
    LOAD("\xeb\xfe\xf4"); /* 1: jmp 1b; hlt */
    ck_assert_int_eq(vm_timer_create(vm, set_rip, NULL, &timer), 0);
    vm_timer_set(timer, vm_clock(vm) + 1000000);
    RUN(HLT);
    ck_assert_uint_eq(ex.rip, CODE + 3);
    end(2);
}
END_TEST

static int defers(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)value;
    return VMM_IO_DEFER;
}

START_TEST(timer_ends_a_deferred_access)
{
    struct vmm_io_ops deferring = {.size = sizeof(deferring), .read = defers};
    struct vmm_timer *timer;

    begin(VMM_IRQCHIP_NONE, NULL);
    ck_assert_int_eq(pio_register(vm, 0x90, 1, &deferring, NULL, NULL), 0);
    LOAD("\xe4\x90\xf4"); /* in $0x90,%al; hlt: nobody completes it */
    ck_assert_int_eq(vm_timer_create(vm, set_rip, NULL, &timer), 0);
    vm_timer_set(timer, vm_clock(vm) + 1000000);
    RUN(HLT);
    ck_assert_int_eq(mmio_complete(vcpu, 1), VMM_E_STATE);
    /* Destroyed while an access waits. */
    LOAD("\xe4\x90\xf4");
    ck_assert_int_eq(vcpu_set_budget(vcpu, 0, 1000000), 0);
    RUN(BUDGET);
    end(2);
}
END_TEST

/* ---- the end of the VM ---- */

static unsigned stops;

static void on_stop(void *opaque)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    (void)opaque;
    stops++;
    ck_assert_int_eq(vcpu_run(vcpu, &exit), VMM_E_STATE);
    ck_assert_uint_eq(api_regs(vcpu).rip, CODE + 1); /* vCPUs are still there */
    ck_assert_int_eq(vm_destroy(vm), VMM_E_BUSY);
    mmio_unregister(mmio);
}

static void on_last_release(void *opaque)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};
    uint8_t byte;

    (void)opaque;
    releases++;
    ck_assert_ptr_null(vm_vcpu(vm, 0));
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), VMM_E_STATE); /* vCPUs are gone, memory is not */
    vcpu_kick(vcpu);
    ck_assert_int_eq(vm_mem_read(vm, CODE, &byte, 1), 0);
    ck_assert_int_eq(vm_irq_set(vm, 4, 0), VMM_E_STATE);
}

START_TEST(callbacks_of_destruction)
{
    struct vmm_device_ops device = {.size = sizeof(device), .stop = on_stop};
    struct vmm_io_ops last = {.size = sizeof(last), .release = on_last_release};

    begin(VMM_IRQCHIP_PC, NULL);
    ck_assert_int_eq(pio_register(vm, 0x90, 1, &last, NULL, NULL), 0);
    ck_assert_int_eq(vm_device_add(vm, &device, NULL, NULL), 0);
    LOAD("\x90\xe6\x91\xf4");
    RUN(PIO);
    stops = 0;
    end(3);
    ck_assert_uint_eq(stops, 1);
}
END_TEST

/* ---- several VMs ---- */

static void *count_in_a_vm(void *shared)
{
    static const char *const backends[] = {"interp", NULL};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_REQUIRE, .backends = backends};
    struct vcpu_setup setup = {.size = sizeof(setup), .rip = 0x1000, .rsp = 0x1000};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu *v;
    struct vm *m;
    int *fd = shared;

    /* mov $0x1000,%ax; mov %ax,%ds; mov $1000,%cx; 1: lock incw 0; loop 1b; hlt */
    static const uint8_t code[] = {0xb8, 0x00, 0x10, 0x8e, 0xd8, 0xb9, 0xe8, 0x03,
                                   0xf0, 0xff, 0x06, 0x00, 0x00, 0xe2, 0xf9, 0xf4};
    if (vm_create(&config, &m) || vm_mem_alloc(m, 0, 0x10000, VMM_MEM_RWX, NULL) ||
        vm_mem_map_fd(m, 0x10000, *fd, 0, 0x1000, VMM_MEM_RWX) || vcpu_create(m, 0, NULL, &v) ||
        vm_mem_write(m, 0x1000, code, sizeof(code)) || vcpu_set_mode(v, &setup) ||
        vcpu_run(v, &exit) || exit.reason != VMM_EXIT_HLT || vm_destroy(m))
        return shared;
    return NULL;
}

/* Four VMs in four threads count in one file, with LOCK. */
START_TEST(vms_share_memory)
{
    char name[] = "/tmp/test_api_XXXXXX";
    int fd = mkstemp(name);
    pthread_t threads[4];
    uint16_t count = 0;
    void *failed;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(unlink(name), 0);
    ck_assert_int_eq(ftruncate(fd, 0x1000), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_in_a_vm, &fd), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &failed);
        ck_assert_ptr_null(failed);
    }
    ck_assert_int_eq(pread(fd, &count, 2, 0), 2);
    ck_assert_uint_eq(count, 4000);
    close(fd);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        unregisters_itself,
        moves_itself,
        unmaps_the_code_that_runs,
        unmaps_the_target_of_a_string,
        overwrites_the_next_instructions,
        sets_registers,
        changes_the_mode,
        injects_an_interrupt,
        event_of_an_instruction_that_waits,
        arms_a_breakpoint,
        takes_features_away,
        refuses_what_cannot_be,
        asks_for_every_kind_of_exit,
        runs_another_vm,
        creates_and_destroys_vcpus,
        timer_moves_rip,
        timer_ends_a_deferred_access,
        callbacks_of_destruction,
        vms_share_memory,
    };

    return api_main("api_callbacks", tests, sizeof(tests) / sizeof(tests[0]));
}
