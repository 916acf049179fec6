/* SPDX-License-Identifier: BSD-2-Clause */
/* threads.c: which functions may be called when and from where, and what is refused otherwise. */
#include "conform.h"

GUEST(spins, 64, "1: incl 0x3000\n jmp 1b");
GUEST(calls, 64, "out %al, $0x80\n hlt");
GUEST(halts, 64, "hlt");

static void busy_while_running(void)
{
    static uint8_t area[16384];
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};
    struct vcpu_setup setup = {.size = sizeof(setup), .rip = CODE};
    struct vmm_event nmi = {.size = sizeof(nmi), .type = VMM_EVENT_NMI};
    struct runner r;
    struct vcpu *v;
    uint64_t value;
    int ok;

    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, spins);
    run_start(&r, cpu);
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    RESULT(vcpu_run(cpu, &ex), VMM_E_BUSY);
    if (conform_caps.caps & VMM_CAP_STEP)
        RESULT(vcpu_step(cpu, &ex), VMM_E_BUSY);
    RESULT(vcpu_get_regs(cpu, &regs), VMM_E_BUSY);
    RESULT(vcpu_set_regs(cpu, &regs), VMM_E_BUSY);
    RESULT(vcpu_set_mode(cpu, &setup), VMM_E_BUSY);
    RESULT(vcpu_get_xsave(cpu, area, sizeof(area)), VMM_E_BUSY);
    RESULT(vcpu_get_msr(cpu, 0x10, &value), VMM_E_BUSY);
    RESULT(vcpu_set_msr(cpu, 0x10, 0), VMM_E_BUSY);
    RESULT(vcpu_inject(cpu, &nmi), VMM_E_BUSY);
    RESULT(vcpu_request_irq_window(cpu, 1), VMM_E_BUSY);
    RESULT(vcpu_irq_window_open(cpu), VMM_E_BUSY);
    RESULT(vcpu_set_budget(cpu, 1, 1), VMM_E_BUSY);
    RESULT(vcpu_translate(cpu, 0, &value, &ok), VMM_E_BUSY);
    RESULT(vcpu_read_virt(cpu, 0, &value, 8), VMM_E_BUSY);
    RESULT(vcpu_msr_policy(cpu, 0, 1, VMM_MSR_DENY), VMM_E_BUSY);
    RESULT(vcpu_set_debug(cpu, NULL), VMM_E_BUSY);
    RESULT(vcpu_destroy(cpu), VMM_E_BUSY);
    RESULT(vcpu_create(vm, 0, NULL, &v), VMM_E_EXIST);
    RESULT(vm_reset(vm), VMM_E_BUSY);
    RESULT(vm_destroy(vm), VMM_E_BUSY);
    OK(vcpu_get_regs(vm_vcpu(vm, 1), &regs));          /* another vCPU is not */
    CHECK(vm_vcpu(vm, 0) == cpu && vcpu_id(cpu) == 0); /* ANY */
    CHECK(vcpu_current(vm) == NULL);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    OK(vcpu_get_regs(cpu, &regs));
    end();
}

static void refuse(struct device *d)
{
    struct vcpu_exit inner = {.size = sizeof(inner)};

    (void)d;
    CHECK(vcpu_current(vm) == cpu);
    RESULT(vcpu_run(cpu, &inner), VMM_E_STATE);
    if (conform_caps.caps & VMM_CAP_STEP)
        RESULT(vcpu_step(cpu, &inner), VMM_E_STATE);
    RESULT(vm_pause(vm), VMM_E_STATE);
    RESULT(vcpu_destroy(cpu), VMM_E_BUSY);
    RESULT(vm_destroy(vm), VMM_E_BUSY);
    RESULT(vm_reset(vm), VMM_E_BUSY);
}

static void refused_in_callbacks(void)
{
    static struct device d = {.act = refuse};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, calls);
    RUN(HLT);
    EQ(d.n, 1);
    end();
}

static void no_fire(void *opaque, uint64_t deadline)
{
    (void)opaque;
    FAIL("fired at %llu", (unsigned long long)deadline);
}

static void allowed(struct device *d)
{
    static struct device other;
    static uint8_t area[16384];
    struct vm_caps caps = {.size = sizeof(caps)};
    struct vm_stats stats = {.size = sizeof(stats)};
    struct vmm_error error = {.size = sizeof(error)};
    struct vmm_timer *timer;
    struct vcpu *v;
    uint64_t value;
    int ok;

    (void)d;
    OK(vm_get_caps(vm, &caps));
    OK(vm_get_stats(vm, &stats));
    vm_last_error(vm, &error);
    CHECK(vm_clock(vm) > 0);
    poke(DATA, 1, 8);
    EQ(peek(DATA, 8), 1);
    mmio_unregister(device_mmio(&other, MMIO, 16));
    EQ(other.released, 1);
    OK(vm_timer_create(vm, no_fire, NULL, &timer));
    vm_timer_destroy(timer);
    OK(vcpu_destroy(vm_vcpu(vm, 1)));
    OK(vcpu_create(vm, 1, NULL, &v));
    OK(vm_request_exit(vm, VMM_EXIT_USER, 5));
    OK(vcpu_get_xsave(cpu, area, sizeof(area)));
    OK(vcpu_get_msr(cpu, 0xc0000082, &value));
    OK(vcpu_set_msr(cpu, 0xc0000082, 0x1000));
    OK(vcpu_translate(cpu, CODE, &value, &ok));
    EQ(ok, 1);
    OK(vcpu_set_budget(cpu, 0, 0));
    OK(vcpu_set_debug(cpu, NULL));
    OK(vcpu_msr_policy(cpu, 1, 1, VMM_MSR_DENY));
    EQ(vcpu_irq_window_open(cpu), 0);
}

static void allowed_in_callbacks(void)
{
    static struct device d = {.act = allowed};
    uint64_t value;

    begin(VMM_IRQCHIP_NONE, 0, 2);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, calls);
    RUN(USER);
    EQ(ex.u.user.value, 5);
    RUN(HLT);
    OK(vcpu_get_msr(cpu, 0xc0000082, &value));
    EQ(value, 0x1000);
    end();
}

/* A callback's change of the mode counts from the next instruction on. */
static void set_mode_bits(struct device *d)
{
    struct vcpu_regs regs = get_regs(cpu);

    (void)d;
    regs.seg[VMM_CS].ar = 0xc09b; /* compatibility mode */
    set_regs(cpu, &regs, VMM_REGS_SEG);
}

/* 48 ff c1 is INC RCX in 64-bit mode; DEC EAX and INC ECX in 32-bit mode. */
GUEST(mode_changes, 64, "mov $5, %eax\n out %al, $0x80\n inc %rcx\n hlt");

static void mode_set_in_a_callback(void)
{
    static struct device d = {.act = set_mode_bits};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, mode_changes);
    RUN(HLT);
    EQ(ex.mode, VMM_MODE_COMPAT32);
    EQ(gpr(VMM_RAX), 4);
    EQ(gpr(VMM_RCX), 1);
    end();
}

static void in_another_vm(struct device *d)
{
    struct vm *outer = vm;
    struct vcpu *outer_cpu = cpu;
    struct vcpu_exit outer_exit = ex;
    uint8_t *outer_ram = ram;

    (void)d;
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    RUN(HLT);
    CHECK(vcpu_current(vm) == NULL && vcpu_current(outer) == outer_cpu);
    end();
    vm = outer;
    cpu = outer_cpu;
    ex = outer_exit;
    ram = outer_ram;
}

static void another_vm_in_a_callback(void)
{
    static struct device d = {.act = in_another_vm};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, calls);
    RUN(HLT);
    EQ(d.n, 1);
    end();
}

static void *run_once(void *opaque)
{
    *(int *)opaque = vcpu_run(cpu, &ex);
    return NULL;
}

static void another_thread_each_time(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, calls);
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        int result;

        CHECK(pthread_create(&thread, NULL, run_once, &result) == 0);
        pthread_join(thread, NULL);
        EQ(result, 0);
        EQ(ex.reason, i ? VMM_EXIT_HLT : VMM_EXIT_PIO);
    }
    end();
}

static void null_objects(void)
{
    RESULT(vm_create(NULL, NULL), VMM_E_INVAL);
    RESULT(vm_reset(NULL), VMM_E_INVAL);
    RESULT(vcpu_run(NULL, &ex), VMM_E_INVAL);
    RESULT(vcpu_get_regs(NULL, NULL), VMM_E_INVAL);
    RESULT(vm_mem_unmap(NULL, 0), VMM_E_INVAL);
    RESULT(vm_irq_set(NULL, 0, 1), VMM_E_INVAL);
    RESULT(vm_dirty_start(NULL), VMM_E_INVAL);
    RESULT(mmio_complete(NULL, 0), VMM_E_INVAL);
    vcpu_kick(NULL);
    vm_stop(NULL);
    mmio_unregister(NULL);
    begin(VMM_IRQCHIP_NONE, 0, 1);
    RESULT(vcpu_run(cpu, NULL), VMM_E_INVAL);
    RESULT(vcpu_get_regs(cpu, NULL), VMM_E_INVAL);
    RESULT(vcpu_inject(cpu, NULL), VMM_E_INVAL);
    RESULT(vm_mem_read(vm, 0, NULL, 1), VMM_E_INVAL);
    end();
}

static void detail_of_errors(void)
{
    struct vmm_error error = {.size = sizeof(error)};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    vm_last_error(vm, &error);
    EQ(error.code, 0);
    RESULT(vm_mem_unmap(vm, 0x5000000), VMM_E_NOENT);
    vm_last_error(vm, &error);
    EQ(error.code, VMM_E_NOENT);
    CHECK(strcmp(error.op, "vm_mem_unmap") == 0);
    CHECK(strcmp(error.backend, conform_backend) == 0);
    CHECK(strstr(error.text, "5000000") != NULL);
    RESULT(vm_fail(vm, VMM_E_IO, "my_device", "value %d", 42), VMM_E_IO);
    vm_last_error(vm, &error);
    EQ(error.code, VMM_E_IO);
    CHECK(strcmp(error.op, "my_device") == 0 && strcmp(error.text, "value 42") == 0);
    end();
}

static void sizes_of_structs(void)
{
    struct {
        struct vm_config config;
        uint64_t tail[2];
    } later = {.config = {.size = sizeof(later)}};
    struct vm_config config = {.size = 3};
    struct vm_caps caps = {.size = offsetof(struct vm_caps, gpa_bits), .gpa_bits = 77};

    RESULT(vm_create(&config, &vm), VMM_E_INVAL);
    later.tail[0] = 1; /* a later version's option */
    RESULT(vm_create(&later.config, &vm), VMM_E_UNSUPPORTED);
    later.tail[0] = 0;
    OK(vm_create(&later.config, &vm));
    OK(vm_get_caps(vm, &caps));
    EQ(caps.gpa_bits, 77); /* filled up to the caller's size */
    end();
}

static const struct conform_case cases[] = {
    CASE(busy_while_running, "functions of class OWNER and QUIET are BUSY while it runs"),
    CASE(refused_in_callbacks, "what callbacks must not call is refused"),
    CASE(allowed_in_callbacks, "functions of class ANY, and OWNER ones of its own vCPU"),
    CASE(mode_set_in_a_callback, "a mode set in a callback counts from the next instruction on"),
    CASE(another_vm_in_a_callback, "a callback may run another VM"),
    CASE(another_thread_each_time, "a vCPU may be run by another thread each time"),
    CASE(null_objects, "NULL for an object is refused or does nothing"),
    CASE(detail_of_errors, "vm_last_error has code, function, backend and text"),
    CASE(sizes_of_structs, "structs of other versions' sizes"),
};

AREA(threads, cases);
