/* SPDX-License-Identifier: BSD-2-Clause */
/* lifecycle.c: VMs and vCPUs: creation, reset, pause, stop, the end. */
#include <stdio.h>
#include <time.h>

#include "conform.h"

GUEST(halts, 64, "mov $42, %eax\n hlt");
GUEST(spins, 64, "1: incl 0x3000\n jmp 1b");
GUEST(reads_port, 64, "in $0x60, %al\n hlt");

static void create_run_destroy(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, halts);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 42);
    end();
}

static void many_times(void)
{
    for (int i = 0; i < 20; i++)
        create_run_destroy();
}

static void backend_is_the_required_one(void)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_get_caps(vm, &caps));
    CHECK(strcmp(caps.backend, conform_backend) == 0);
    EQ(caps.max_vcpus, 1);
    EQ(caps.page_size, 4096);
    EQ(caps.irqchip_mode, VMM_IRQCHIP_MODE_AUTO);
    CHECK(caps.gpa_bits >= 36 && caps.gpa_bits <= 52);
    CHECK(caps.xsave_size >= 576);
    CHECK(caps.tsc_khz > 100000);
    end();
}

static void irqchip_mode_is_told(void)
{
    struct vm_caps caps = {.size = sizeof(caps)};

    begin(VMM_IRQCHIP_PC, 0, 1);
    OK(vm_get_caps(vm, &caps));
    EQ(caps.irqchip_mode, conform_irqchip_mode);
    end();
}

static void irqchip_modes_that_are_not_offered(void)
{
    conform_irqchip_mode = VMM_IRQCHIP_MODE_SPLIT;
    if (!(conform_caps.caps & VMM_CAP_IRQCHIP_SPLIT))
        RESULT(begin_bare(VMM_IRQCHIP_PC, 0, 1), VMM_E_UNSUPPORTED);
    conform_irqchip_mode = VMM_IRQCHIP_MODE_KERNEL;
    if (!(conform_caps.caps & VMM_CAP_IRQCHIP_KERNEL))
        RESULT(begin_bare(VMM_IRQCHIP_PC, 0, 1), VMM_E_UNSUPPORTED);
    conform_irqchip_mode = VMM_IRQCHIP_MODE_AUTO;
    OK(begin_bare(VMM_IRQCHIP_PC, 0, 1));
    end();
}

static void flags_that_are_not_offered(void)
{
    static const struct {
        uint32_t flag;
        uint64_t cap;
    } flags[] = {{VMM_VM_EXIT_HYPERCALL, VMM_CAP_EXIT_HYPERCALL},
                 {VMM_VM_EXIT_CPUID, VMM_CAP_EXIT_CPUID},
                 {VMM_VM_KVM_PV, VMM_CAP_KVM_PV}};

    for (size_t i = 0; i < 3; i++) {
        bool offered = conform_caps.caps & flags[i].cap;

        RESULT(begin_bare(VMM_IRQCHIP_NONE, flags[i].flag, 1), offered ? 0 : VMM_E_UNSUPPORTED);
        if (offered)
            end();
    }
}

static void unknown_backend(void)
{
    const char *names[] = {"no-such-engine", NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_REQUIRE, .backends = names, .error = &error};

    RESULT(vm_create(&config, &vm), VMM_E_NODEV);
    EQ(error.code, VMM_E_NODEV);
    CHECK(error.text[0] != 0);
}

static void preferred_backend(void)
{
    const char *names[] = {"no-such-engine", conform_backend, NULL};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_PREFER, .backends = names};
    struct vm_caps caps = {.size = sizeof(caps)};

    OK(vm_create(&config, &vm));
    OK(vm_get_caps(vm, &caps));
    CHECK(strcmp(caps.backend, conform_backend) == 0);
    end();
}

static void defaults(void)
{
    struct vmm_backend_report reports[8] = {{.size = sizeof(reports[0])}};
    struct vm_config config = {.size = sizeof(config), .nreports = 8};
    struct vm_caps caps = {.size = sizeof(caps)};
    const char *best = NULL;
    int n;

    for (unsigned i = 0; i < 8; i++)
        reports[i].size = sizeof(reports[0]);
    n = vmm_backend_probe(reports, 8);
    CHECK(n > 0);
    EQ(vmm_backend_probe(NULL, 0), n);
    for (int i = 0; i < n; i++) {
        CHECK(reports[i].name[0] != 0 && reports[i].reason[0] != 0);
        if (!best && !reports[i].result && !(reports[i].flags & VMM_BACKEND_DEGRADED))
            best = reports[i].name;
    }
    if (!best) /* only degraded ones work */
        for (int i = 0; i < n && !best; i++)
            best = reports[i].result ? NULL : reports[i].name;
    OK(vm_create(NULL, &vm));
    OK(vm_get_caps(vm, &caps));
    CHECK(strcmp(caps.backend, best) == 0);
    end();
    struct vmm_backend_report again[8] = {{.size = sizeof(again[0])}};
    for (unsigned i = 0; i < 8; i++)
        again[i].size = sizeof(again[0]);
    config.reports = again;
    OK(vm_create(&config, &vm));
    end();
    for (int i = 0; i < n; i++)
        CHECK(strcmp(again[i].name, reports[i].name) == 0 && again[i].result == reports[i].result);
    RESULT(vmm_backend_probe(NULL, 1), VMM_E_INVAL);
    reports[0].size = 0;
    RESULT(vmm_backend_probe(reports, 8), VMM_E_INVAL);
}

static void limits(void)
{
    RESULT(begin_bare(VMM_IRQCHIP_NONE, 0, VMM_MAX_VCPUS + 1), VMM_E_INVAL);
    RESULT(begin_bare(2, 0, 1), VMM_E_INVAL);
    RESULT(begin_bare(VMM_IRQCHIP_NONE, 1u << 30, 1), VMM_E_UNSUPPORTED);
    OK(begin_bare(VMM_IRQCHIP_NONE, 0, 16));
    for (uint32_t i = 0; i < 16; i++) {
        struct vcpu *v;

        OK(vcpu_create(vm, i, NULL, &v));
        EQ(get_regs(v).rip, 0xfff0);
    }
    end();
}

static void vcpu_numbers(void)
{
    struct vcpu *v = NULL, *again;
    int data;

    OK(begin_bare(VMM_IRQCHIP_NONE, 0, 3));
    OK(vcpu_create(vm, 2, &data, &v));
    EQ(vcpu_id(v), 2);
    CHECK(vcpu_vm(v) == vm && vcpu_data(v) == &data && vm_vcpu(vm, 2) == v);
    CHECK(vm_vcpu(vm, 0) == NULL && vm_vcpu(vm, 3) == NULL);
    RESULT(vcpu_create(vm, 2, NULL, &again), VMM_E_EXIST);
    RESULT(vcpu_create(vm, 3, NULL, &again), VMM_E_RANGE);
    end();
}

static void vcpu_recreated(void)
{
    struct vcpu_regs regs;
    struct vcpu *old;

    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, halts);
    RUN(HLT);
    old = cpu;
    OK(vcpu_destroy(cpu));
    CHECK(vm_vcpu(vm, 0) == NULL);
    RESULT(vcpu_run(cpu, &ex), VMM_E_STATE);
    regs = (struct vcpu_regs){.size = sizeof(regs), .groups = VMM_REGS_ALL};
    RESULT(vcpu_get_regs(cpu, &regs), VMM_E_STATE);
    RESULT(vcpu_destroy(cpu), VMM_E_STATE);
    vcpu_kick(cpu); /* for the one that is gone */
    OK(vcpu_create(vm, 0, NULL, &cpu));
    CHECK(cpu == old);
    EQ(gpr(VMM_RAX), 0);
    EQ(get_regs(cpu).rip, 0xfff0);
    LOAD(LONG64, halts);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 42);
    end();
}

static void reset_state(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    struct vcpu_regs r = get_regs(cpu);
    EQ(r.rip, 0xfff0);
    EQ(r.rflags, 2);
    EQ(r.cr0, 0x60000010);
    EQ(r.cr3 | r.cr4 | r.efer | r.cr2 | r.cr8, 0);
    EQ(r.seg[VMM_CS].selector, 0xf000);
    EQ(r.seg[VMM_CS].base, 0xffff0000);
    EQ(r.seg[VMM_CS].limit, 0xffff);
    EQ(r.seg[VMM_DS].selector | r.seg[VMM_DS].base, 0);
    EQ(r.gdt.limit, 0xffff);
    EQ(r.idt.limit, 0xffff);
    EQ(r.dr[6], 0xffff0ff0);
    EQ(r.dr[7], 0x400);
    EQ(r.activity, VMM_ACTIVE);
    EQ(r.pat, 0x0007040600070406);
    EQ(r.xcr0, 1);
    end();
}

GUEST(rom, 16, "hlt");

static void reset_vector(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_mem_alloc(vm, 0xffff0000, 0x10000, VMM_MEM_RX, NULL));
    PLACE(0xfffffff0, rom);
    RUN(HLT);
    EQ(ex.rip, 0xfff1);
    EQ(ex.mode, VMM_MODE_REAL);
    end();
}

static unsigned order[8], norder;

static void on_reset_1(void *opaque)
{
    (void)opaque;
    order[norder++] = 1;
}
static void on_reset_2(void *opaque)
{
    (void)opaque;
    order[norder++] = 2;
}
static void on_stop_1(void *opaque)
{
    (void)opaque;
    order[norder++] = 11;
}
static void on_stop_2(void *opaque)
{
    (void)opaque;
    order[norder++] = 12;
}

static void devices_removed(void)
{
    const struct vmm_device_ops one = {
        .size = sizeof(one), .name = "1", .reset = on_reset_1, .stop = on_stop_1};
    struct vmm_device *device;
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_device_add(vm, &one, NULL, &device));
    LOAD(LONG64, spins);
    run_start(&r, cpu);
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    RESULT(vm_device_remove(device), VMM_E_BUSY);
    EQ(norder, 0);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    OK(vm_device_remove(device));
    EQ(norder, 1);
    EQ(order[0], 11);
    OK(vm_device_remove(NULL));
    OK(vm_reset(vm)); /* it is forgotten */
    end();
    EQ(norder, 1);
}

static void reset_of_everything(void)
{
    const struct vmm_device_ops one = {
        .size = sizeof(one), .name = "1", .reset = on_reset_1, .stop = on_stop_1};
    const struct vmm_device_ops two = {
        .size = sizeof(two), .name = "2", .reset = on_reset_2, .stop = on_stop_2};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_device_add(vm, &one, NULL, NULL));
    OK(vm_device_add(vm, &two, NULL, NULL));
    LOAD(LONG64, halts);
    RUN(HLT);
    poke(DATA, 0x1234, 4);
    OK(vm_request_exit(vm, VMM_EXIT_RESET, 0));
    vcpu_kick(cpu);
    OK(vm_reset(vm));
    EQ(norder, 2);
    EQ(order[0], 2);
    EQ(order[1], 1);
    EQ(get_regs(cpu).rip, 0xfff0);
    EQ(get_regs(cpu).gpr[VMM_RAX], 0);
    EQ(peek(DATA, 4), 0x1234); /* memory keeps its content */
    LOAD(LONG64, halts);
    RUN(INTERRUPTED); /* the kick stays in force */
    RUN(HLT);         /* the requested exit does not */
    end();
    EQ(norder, 4);
    EQ(order[2], 12);
    EQ(order[3], 11);
}

static void reset_drops_what_waits(void)
{
    struct vmm_event nmi = {.size = sizeof(nmi), .type = VMM_EVENT_NMI};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, reads_port);
    RUN(PIO);
    OK(vcpu_inject(cpu, &nmi));
    OK(vcpu_request_irq_window(cpu, 1));
    OK(vm_reset(vm));
    EQ(get_regs(cpu).nmi_pending, 0);
    ex.u.pio.data = 0x55; /* nobody waits for it */
    LOAD(LONG64, reads_port);
    RUN(PIO);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0xff);
    end();
}

static void others_wait_for_sipi(void)
{
    begin(VMM_IRQCHIP_PC, 0, 2);
    EQ(get_regs(cpu).activity, VMM_ACTIVE);
    EQ(get_regs(vm_vcpu(vm, 1)).activity, VMM_WAIT_SIPI);
    OK(vm_reset(vm));
    EQ(get_regs(vm_vcpu(vm, 1)).activity, VMM_WAIT_SIPI);
    end();
    begin(VMM_IRQCHIP_NONE, 0, 2);
    EQ(get_regs(vm_vcpu(vm, 1)).activity, VMM_ACTIVE);
    end();
}

static void pause_holds_guest_and_clock(void)
{
    struct runner r;
    uint64_t clock;
    uint32_t count;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, spins);
    run_start(&r, cpu);
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    for (int i = 0; i < 5; i++) {
        OK(vm_pause(vm));
        RESULT(vm_pause(vm), VMM_E_STATE);
        clock = vm_clock(vm);
        count = ram32(DATA);
        for (int k = 0; k < 20; k++)
            conform_nap();
        EQ(ram32(DATA), count);
        EQ(vm_clock(vm), clock);
        CHECK(!r.over);
        OK(vm_resume(vm));
        WAIT(ram32(DATA) != count);
        CHECK(vm_clock(vm) > clock);
    }
    RESULT(vm_resume(vm), VMM_E_STATE);
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

static void kick_and_stop_end_a_pause(void)
{
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, spins);
    run_start(&r, cpu);
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    OK(vm_pause(vm));
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    run_start(&r, cpu);
    for (int k = 0; k < 20; k++)
        conform_nap();
    CHECK(!r.over); /* it holds again */
    vm_stop(vm);
    run_join(&r, VMM_EXIT_STOPPED);
    OK(vm_resume(vm)); /* undoes both */
    OK(vcpu_set_budget(cpu, 0, 2000000));
    RUN(BUDGET);
    end();
}

static void clock_goes_on(void)
{
    struct timespec some = {.tv_nsec = 2000000};
    uint64_t before;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    before = vm_clock(vm);
    nanosleep(&some, NULL);
    CHECK(vm_clock(vm) >= before + 2000000); /* although no vCPU runs */
    end();
}

static void stop_makes_all_return(void)
{
    struct runner r[2];

    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, spins);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    for (unsigned i = 0; i < 2; i++)
        run_start(&r[i], vm_vcpu(vm, i));
    WAIT(ram32(DATA) != 0xa5a5a5a5);
    vm_stop(vm);
    for (unsigned i = 0; i < 2; i++)
        run_join(&r[i], VMM_EXIT_STOPPED);
    RUN(STOPPED);
    RUN(STOPPED);
    OK(vm_resume(vm));
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    end();
}

static void requested_exits(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, halts);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    OK(vm_request_exit(vm, VMM_EXIT_POWEROFF, 1));
    OK(vm_request_exit(vm, VMM_EXIT_RESET, 2));
    OK(vm_request_exit(vm, VMM_EXIT_RESET, 2)); /* no different one */
    OK(vm_request_exit(vm, VMM_EXIT_PANIC, 3));
    RESULT(vm_request_exit(vm, VMM_EXIT_HLT, 0), VMM_E_INVAL);
    for (unsigned i = 0; i < 2; i++) { /* once on each vCPU */
        cpu = vm_vcpu(vm, i);
        RUN(POWEROFF);
        EQ(ex.u.user.value, 1);
        EQ(ex.rip, CODE);
        RUN(RESET);
        EQ(ex.u.user.value, 2);
        RUN(PANIC);
        EQ(ex.u.user.value, 3);
        RUN(HLT);
    }
    for (unsigned i = 0; i < 6; i++)
        OK(vm_request_exit(vm, VMM_EXIT_USER, i));
    for (unsigned i = 0; i < 3; i++) {
        RUN(USER);
        EQ(ex.u.user.value, i);
    }
    RUN(USER); /* four wait; the latest has replaced the one before it */
    EQ(ex.u.user.value, 5);
    end();
}

#define VMS 8u

static void many_vms_at_once(void)
{
    struct vm *vms[VMS];
    struct vcpu *cpus[VMS];
    uint8_t *rams[VMS];
    struct runner r[VMS];

    for (unsigned i = 0; i < VMS; i++) {
        begin(VMM_IRQCHIP_NONE, 0, 1);
        LOAD(LONG64, spins);
        vms[i] = vm;
        cpus[i] = cpu;
        rams[i] = ram;
        memset(rams[i] + DATA, 0, 4);
    }
    for (unsigned i = 0; i < VMS; i++)
        run_start(&r[i], cpus[i]);
    for (unsigned i = 0; i < VMS; i++)
        WAIT(*(volatile uint32_t *)(void *)(rams[i] + DATA) > 100);
    for (unsigned i = 0; i < VMS; i++)
        vcpu_kick(cpus[i]);
    for (unsigned i = 0; i < VMS; i++)
        run_join(&r[i], VMM_EXIT_INTERRUPTED);
    for (unsigned i = 0; i < VMS; i++) {
        vm = vms[i];
        end();
    }
}

static void *create_and_run(void *failed)
{
    const char *names[] = {conform_backend, NULL};
    struct vm_config config = {
        .size = sizeof(config), .select = VMM_SELECT_REQUIRE, .backends = names};
    struct vcpu_setup setup = {.size = sizeof(setup), .rip = CODE, .rsp = CODE};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vm *m = NULL;
    struct vcpu *v;

    for (int i = 0; i < 10; i++) {
        if (vm_create(&config, &m) || vm_mem_alloc(m, 0, 0x10000, VMM_MEM_RWX, NULL) ||
            vm_mem_write(m, CODE, "\xf4", 1) || vcpu_create(m, 0, NULL, &v) ||
            vcpu_set_mode(v, &setup) || vcpu_run(v, &exit) || exit.reason != VMM_EXIT_HLT ||
            vm_destroy(m))
            *(_Atomic int *)failed = 1;
    }
    return NULL;
}

static void vms_in_many_threads(void)
{
    _Atomic int failed = 0;
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, create_and_run, &failed) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(!failed);
}

static void destroy_releases(void)
{
    static struct device d, e;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    device_pio(&e, 0x80, 1);
    end();
    EQ(d.released, 1);
    EQ(e.released, 1);
    OK(vm_destroy(NULL));
}

static void statistics(void)
{
    static struct device d;
    struct vm_stats stats = {.size = sizeof(stats)};
    struct vmm_count counts[3] = {{.size = sizeof(counts[0])}};

    begin(VMM_IRQCHIP_NONE, 0, 2);
    device_pio(&d, 0x60, 1);
    LOAD(LONG64, reads_port);
    RUN(HLT);
    RUN(HLT);
    OK(vm_get_stats(vm, &stats));
    EQ(stats.nvcpus, 2);
    EQ(stats.exits, 2);
    EQ(stats.pio, 1);
    EQ(stats.mmio, 0);
    stats.size = 0;
    RESULT(vm_get_stats(vm, &stats), VMM_E_INVAL);
    EQ(vm_get_exit_counts(vm, NULL, 0), 1);
    EQ(vm_get_exit_counts(vm, counts, 3), 1);
    EQ(counts[0].id, VMM_EXIT_HLT);
    EQ(counts[0].count, 2);
    CHECK(strcmp(counts[0].name, "HLT") == 0);
    counts[0].size = 0;
    RESULT(vm_get_exit_counts(vm, counts, 3), VMM_E_INVAL);
    RESULT(vm_get_fallback_counts(vm, counts, 3), VMM_E_INVAL);
    CHECK(vm_get_fallback_counts(vm, NULL, 0) >= 0);
    end();
}

/* On engines that generate no code, too: one config for all. */
static void code_cache_sizes(void)
{
    static const struct {
        uint64_t size;
        int result;
    } sizes[] = {{1, VMM_E_INVAL},         {VMM_CODE_CACHE_MIN - 1, VMM_E_INVAL},
                 {VMM_CODE_CACHE_MIN, 0},  {VMM_CODE_CACHE_MIN + 1, 0},
                 {VMM_CODE_CACHE_MAX, 0},  {VMM_CODE_CACHE_MAX + 1ull, VMM_E_INVAL},
                 {UINT64_MAX, VMM_E_INVAL}};
    const char *names[] = {conform_backend, NULL};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct vm_config config = {.size = sizeof(config),
                                   .select = VMM_SELECT_REQUIRE,
                                   .backends = names,
                                   .code_cache = sizes[i].size};

        RESULT(vm_create(&config, &vm), sizes[i].result);
        if (sizes[i].result)
            continue;
        ex = (struct vcpu_exit){.size = sizeof(ex)};
        OK(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, (void **)&ram));
        OK(vcpu_create(vm, 0, NULL, &cpu));
        LOAD(LONG64, halts);
        RUN(HLT);
        CHECK(!vm_lockstep_report(vm));
        end();
    }
}

static const struct conform_case cases[] = {
    CASE(create_run_destroy, "a VM is created, runs code and is destroyed"),
    CASE(many_times, "creation and destruction can be repeated"),
    CASE(backend_is_the_required_one, "SELECT_REQUIRE gives that backend; vm_get_caps tells it"),
    CASE(irqchip_mode_is_told, "vm_caps.irqchip_mode is what the config asked for",
         .flags = CASE_MODES),
    CASE(irqchip_modes_that_are_not_offered, "an irqchip mode without its capability is refused"),
    CASE(flags_that_are_not_offered, "a VM flag works with its capability, else is refused"),
    CASE(unknown_backend, "REQUIRE without a usable backend is VMM_E_NODEV with a text"),
    CASE(preferred_backend, "PREFER takes the first name that works"),
    CASE(defaults, "AUTO takes the best that is not degraded; reports tell of all"),
    CASE(limits, "numbers of vCPUs and unknown flags are checked; 16 vCPUs"),
    CASE(devices_removed, "vm_device_remove calls stop; BUSY while a vCPU runs"),
    CASE(vcpu_numbers, "vCPUs are found by number; taken and impossible numbers are refused"),
    CASE(vcpu_recreated, "a destroyed vCPU is refused, and fresh when created again"),
    CASE(reset_state, "a new vCPU is in the architecture's reset state"),
    CASE(reset_vector, "execution begins at F000:FFF0 with the base FFFF0000"),
    CASE(reset_of_everything, "vm_reset resets vCPUs and devices (in reverse order), not memory"),
    CASE(reset_drops_what_waits, "vm_reset forgets pending events, windows and completions"),
    CASE(others_wait_for_sipi, "with an irqchip, all but vCPU 0 wait for SIPI",
         .flags = CASE_MODES),
    CASE(pause_holds_guest_and_clock, "vm_pause stops guest code and vm_clock until vm_resume"),
    CASE(kick_and_stop_end_a_pause, "a kick or vm_stop returns from vcpu_run during a pause"),
    CASE(clock_goes_on, "vm_clock is monotonic time, also while no vCPU runs"),
    CASE(stop_makes_all_return, "vm_stop returns STOPPED from every vcpu_run until vm_resume"),
    CASE(requested_exits, "vm_request_exit: once per vCPU, in order, four wait at most"),
    CASE(many_vms_at_once, "several VMs run at the same time and do not meet"),
    CASE(vms_in_many_threads, "VMs are created and destroyed in several threads at once"),
    CASE(destroy_releases, "vm_destroy calls each release once; NULL is allowed"),
    CASE(statistics, "vm_get_stats counts exits and callbacks"),
    CASE(code_cache_sizes, "code_cache is taken from its least to its largest, else refused"),
};

AREA(lifecycle, cases);
