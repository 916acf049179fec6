/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vm.c: creating, configuring, pausing, stopping, resetting and destroying VMs. */
#include <check.h>
#include <pthread.h>

#include "fake_backend.h"

#include <vmm/vmm.h>

static const struct fake_op spin[] = {{.kind = OP_NOP}, {.kind = OP_JMP, .a = 0}};

/* ---- creation ---- */

START_TEST(defaults)
{
    struct vm *vm = NULL;
    struct vm_caps caps = {.size = sizeof(caps)};

    ck_assert_int_eq(vm_create(NULL, &vm), 0);
    ck_assert_int_eq(vm_get_caps(vm, &caps), 0);
    ck_assert_uint_eq(caps.max_vcpus, 1);
    ck_assert_uint_eq(caps.gpa_bits, 40);
    ck_assert_uint_eq(caps.tsc_khz, os_tsc_khz());
    ck_assert_str_eq(caps.backend, "fake");
    ck_assert_int_eq(vm_destroy(vm), 0);
    ck_assert_int_eq(vm_destroy(NULL), 0);
    ck_assert_int_eq(fake_vms, 0);
}
END_TEST

static int create_with(struct vm_config config, struct vmm_error *error)
{
    struct vm *vm = NULL;

    memset(error, 0, sizeof(*error));
    error->size = sizeof(*error);
    config.error = error;
    int err = vm_create(&config, &vm);
    if (!err)
        vm_destroy(vm);
    return err;
}

START_TEST(bad_configs_are_refused_with_a_text)
{
    struct vmm_error e;
    const char *list[] = {"nonesuch", "broken", NULL};
    const uint32_t size = sizeof(struct vm_config);

    ck_assert_int_eq(create_with((struct vm_config){.size = 4}, &e), VMM_E_INVAL);
    ck_assert_int_eq(create_with((struct vm_config){.size = size, .flags = 0x80000000}, &e),
                     VMM_E_UNSUPPORTED);
    ck_assert_str_eq(e.text, "unknown flags 0x80000000");
    ck_assert_str_eq(e.op, "vm_create");
    ck_assert_int_eq(e.code, VMM_E_UNSUPPORTED);
    ck_assert_int_eq(create_with((struct vm_config){.size = size, .max_vcpus = 65}, &e),
                     VMM_E_INVAL);
    ck_assert_int_eq(create_with((struct vm_config){.size = size, .irqchip = 2}, &e), VMM_E_INVAL);
    ck_assert_int_eq(create_with((struct vm_config){.size = size, .select = 3}, &e), VMM_E_INVAL);
    ck_assert_int_eq(create_with((struct vm_config){.size = size, .tsc_khz = 1}, &e), VMM_E_INVAL);
    ck_assert_int_eq(
        create_with((struct vm_config){.size = size, .select = VMM_SELECT_REQUIRE}, &e),
        VMM_E_INVAL);
    ck_assert_int_eq(
        create_with(
            (struct vm_config){.size = size, .select = VMM_SELECT_REQUIRE, .backends = list}, &e),
        VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(e.text, "nonesuch: this build has no such backend"));
    ck_assert_ptr_nonnull(strstr(e.text, "broken: never works"));
    ck_assert_int_eq(
        create_with((struct vm_config){.size = size, .select = VMM_SELECT_PREFER, .backends = list},
                    &e),
        0);
    ck_assert_int_eq(
        create_with((struct vm_config){.size = size, .flags = VMM_VM_EXIT_HYPERCALL}, &e),
        VMM_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(e.text, "VMM_VM_EXIT_HYPERCALL"));
    ck_assert_str_eq(e.backend, "fake");
    ck_assert_int_eq(vm_create(NULL, NULL), VMM_E_INVAL);
}
END_TEST

START_TEST(config_of_a_later_version)
{
    struct {
        struct vm_config config;
        uint64_t later;
    } big = {.config = {.size = sizeof(big)}};
    struct vm *vm;

    ck_assert_int_eq(vm_create(&big.config, &vm), 0);
    vm_destroy(vm);
    big.later = 1;
    ck_assert_int_eq(vm_create(&big.config, &vm), VMM_E_UNSUPPORTED);
}
END_TEST

START_TEST(an_unset_capability_refuses_its_option)
{
    struct vmm_error e;
    struct vm_config config = {.size = sizeof(config), .tsc_khz = os_tsc_khz() / 2};

    ck_assert_int_eq(create_with(config, &e), 0);
    fake_caps_bits &= ~(uint64_t)VMM_CAP_TSC_KHZ;
    ck_assert_int_eq(create_with(config, &e), VMM_E_UNSUPPORTED);
    config.tsc_khz = os_tsc_khz();
    ck_assert_int_eq(create_with(config, &e), 0);
}
END_TEST

START_TEST(reports_of_all_backends)
{
    struct vmm_backend_report r[4];
    const char *list[] = {"nonesuch", "fake", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = list,
                               .reports = r,
                               .nreports = 4};
    struct vm *vm;

    for (int i = 0; i < 4; i++)
        r[i].size = sizeof(r[i]);
    ck_assert_int_eq(vmm_backend_probe(r, 4), 2);
    ck_assert_str_eq(r[0].name, "broken");
    ck_assert_int_eq(r[0].result, VMM_E_PERM);
    ck_assert_str_eq(r[1].name, "fake");
    ck_assert_int_eq(r[1].result, 0);
    ck_assert_int_eq(vmm_backend_probe(NULL, 0), 2);
    ck_assert_int_eq(vmm_backend_probe(NULL, 1), VMM_E_INVAL);

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    vm_destroy(vm);
    ck_assert_str_eq(r[2].name, "nonesuch");
    ck_assert_int_eq(r[2].result, VMM_E_NOENT);
    ck_assert_str_eq(r[3].name, "");
    fake_probe_result = VMM_E_PERM;
    ck_assert_int_eq(vm_create(NULL, &vm), VMM_E_NODEV);
    fake_probe_result = 0;
}
END_TEST

START_TEST(names_and_versions)
{
    ck_assert_str_eq(vmm_err_name(VMM_E_NOMEM), "VMM_E_NOMEM");
    ck_assert_str_eq(vmm_err_name(-999), "VMM_E_?");
    ck_assert_str_eq(vmm_strerror(VMM_E_BUSY), "object is in use");
    ck_assert_ptr_nonnull(vmm_strerror(-999));
    ck_assert_str_eq(vmm_exit_name(VMM_EXIT_MMIO), "MMIO");
    ck_assert_str_eq(vmm_exit_name(7777), "?");
    ck_assert_uint_eq(vmm_version(), 0x000100);
    ck_assert_str_eq(vmm_version_string(), "0.1.0");
}
END_TEST

/* ---- running, seen from other threads ---- */

struct runner {
    pthread_t thread;
    struct vcpu *vcpu;
    struct vcpu_exit exit;
    int err;
    _Atomic int returned;
};

static void *run_once(void *opaque)
{
    struct runner *r = opaque;

    r->exit.size = sizeof(r->exit);
    r->err = vcpu_run(r->vcpu, &r->exit);
    r->returned = 1;
    return NULL;
}

static void start(struct runner *r, struct vcpu *vcpu)
{
    memset(r, 0, sizeof(*r));
    r->vcpu = vcpu;
    pthread_create(&r->thread, NULL, run_once, r);
}

static uint64_t retired(struct vcpu *vcpu)
{
    return atomic_load(&fake_cpu(vcpu)->retired);
}

/* Until the guest has executed something since `before`. */
static void wait_progress(struct vcpu *vcpu, uint64_t before)
{
    while (retired(vcpu) == before)
        os_yield();
}

START_TEST(stop_holds_until_resume)
{
    struct vm *vm = fake_vm(NULL);
    struct vcpu *vcpu = fake_add(vm, 0, spin);
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct runner r;

    start(&r, vcpu);
    wait_progress(vcpu, 0);
    ck_assert_int_eq(vm_destroy(vm), VMM_E_BUSY);
    ck_assert_int_eq(vm_reset(vm), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_destroy(vcpu), VMM_E_BUSY);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), VMM_E_BUSY);
    vm_stop(vm);
    pthread_join(r.thread, NULL);
    ck_assert_int_eq(r.err, 0);
    ck_assert_uint_eq(r.exit.reason, VMM_EXIT_STOPPED);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_STOPPED);
    ck_assert_int_eq(vm_resume(vm), 0);
    ck_assert_int_eq(vm_resume(vm), VMM_E_STATE);
    vcpu_set_budget(vcpu, 3, 0);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_BUDGET);
    vm_destroy(vm);
}
END_TEST

START_TEST(pause_stops_guest_and_clock)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 2};
    struct vm *vm = fake_vm(&config);
    struct vcpu *vcpu[2] = {fake_add(vm, 0, spin), fake_add(vm, 1, spin)};
    struct runner r[2];

    for (int i = 0; i < 2; i++) {
        start(&r[i], vcpu[i]);
        wait_progress(vcpu[i], 0);
    }
    for (int round = 0; round < 50; round++) {
        ck_assert_int_eq(vm_pause(vm), 0);
        ck_assert_int_eq(vm_pause(vm), VMM_E_STATE);
        uint64_t n[2] = {retired(vcpu[0]), retired(vcpu[1])};
        uint64_t clock = vm_clock(vm), tsc = core_vcpu_tsc(vcpu[0]);

        for (int i = 0; i < 20; i++)
            os_yield();
        ck_assert_uint_eq(vm_clock(vm), clock);
        ck_assert_uint_eq(core_vcpu_tsc(vcpu[0]), tsc);
        ck_assert_uint_eq(retired(vcpu[0]), n[0]);
        ck_assert_uint_eq(retired(vcpu[1]), n[1]);
        ck_assert_int_eq(r[0].returned, 0);
        ck_assert_int_eq(vm_resume(vm), 0);
        ck_assert_uint_ge(vm_clock(vm), clock);
        wait_progress(vcpu[0], n[0]);
        wait_progress(vcpu[1], n[1]);
    }
    /* A kick returns from a held vcpu_run. */
    ck_assert_int_eq(vm_pause(vm), 0);
    vcpu_kick(vcpu[0]);
    pthread_join(r[0].thread, NULL);
    ck_assert_uint_eq(r[0].exit.reason, VMM_EXIT_INTERRUPTED);
    vm_stop(vm);
    pthread_join(r[1].thread, NULL);
    ck_assert_uint_eq(r[1].exit.reason, VMM_EXIT_STOPPED);
    ck_assert_int_eq(vm_resume(vm), 0);
    ck_assert_int_eq(vm_resume(vm), VMM_E_STATE);
    vm_destroy(vm);
}
END_TEST

struct storm {
    struct vm *vm;
    _Atomic int over;
};

static void *clock_reader(void *opaque)
{
    struct storm *s = opaque;
    uint64_t last = 0;

    while (!s->over) {
        uint64_t now = vm_clock(s->vm);
        ck_assert_uint_ge(now, last);
        last = now;
    }
    return NULL;
}

START_TEST(clock_never_goes_back)
{
    struct storm s = {.vm = fake_vm(NULL)};
    pthread_t thread;

    pthread_create(&thread, NULL, clock_reader, &s);
    for (int i = 0; i < 2000; i++) {
        ck_assert_int_eq(vm_pause(s.vm), 0);
        ck_assert_int_eq(vm_resume(s.vm), 0);
    }
    s.over = 1;
    pthread_join(thread, NULL);
    vm_destroy(s.vm);
}
END_TEST

/* ---- requested exits, reset, world stops ---- */

START_TEST(requested_exits_reach_every_vcpu_once)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 2};
    struct vm *vm = fake_vm(&config);
    struct vcpu *vcpu[2] = {fake_add(vm, 0, spin), fake_add(vm, 1, spin)};
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_HLT, 0), VMM_E_INVAL);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_PANIC, 1), 0);
    ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_USER, 77), 0);
    for (int i = 0; i < 2; i++) {
        vcpu_set_budget(vcpu[i], 5, 0);
        ck_assert_int_eq(vcpu_run(vcpu[i], &exit), 0);
        ck_assert_uint_eq(exit.reason, VMM_EXIT_PANIC);
        ck_assert_uint_eq(exit.u.user.value, 1);
        ck_assert_int_eq(vcpu_run(vcpu[i], &exit), 0);
        ck_assert_uint_eq(exit.reason, VMM_EXIT_USER);
        ck_assert_uint_eq(exit.u.user.value, 77);
        ck_assert_int_eq(vcpu_run(vcpu[i], &exit), 0);
        ck_assert_uint_eq(exit.reason, VMM_EXIT_BUDGET);
    }
    /* The queue is bounded, whatever the guest does. */
    for (uint64_t i = 0; i < 100; i++)
        ck_assert_int_eq(vm_request_exit(vm, VMM_EXIT_USER, i), 0);
    vm_destroy(vm);
}
END_TEST

static int resets;

static void count_reset(void *opaque)
{
    (void)opaque;
    resets++;
}

static void count_stop(void *opaque)
{
    ++*(int *)opaque;
}

START_TEST(reset_is_power_on)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 2, .irqchip = VMM_IRQCHIP_PC};
    struct vm *vm = fake_vm(&config);
    struct vcpu *vcpu[2] = {fake_add(vm, 0, spin), fake_add(vm, 1, spin)};
    int stops = 0;
    struct vmm_device_ops ops = {
        .size = sizeof(ops), .name = "test", .reset = count_reset, .stop = count_stop};
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR | VMM_REGS_EVENTS};
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vm_device_add(vm, &ops, &stops, NULL), 0);
    ck_assert_int_eq(vcpu_get_regs(vcpu[1], &regs), 0);
    ck_assert_uint_eq(regs.activity, VMM_WAIT_SIPI);
    regs.activity = VMM_ACTIVE;
    regs.rip = 1;
    ck_assert_int_eq(vcpu_set_regs(vcpu[1], &regs), 0);
    ck_assert_int_eq(vcpu_set_regs(vcpu[0], &regs), 0);
    vm_request_exit(vm, VMM_EXIT_RESET, 0);
    ck_assert_int_eq(vcpu_run(vcpu[0], &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_RESET);
    while (core_vcpu_tsc(vcpu[0]) < 1000000)
        continue;
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_uint_lt(core_vcpu_tsc(vcpu[0]) - core_vcpu_tsc(vcpu[1]) + (1ull << 62), 1ull << 63);
    ck_assert_int_eq(resets, 1);
    ck_assert_int_eq(vcpu_get_regs(vcpu[0], &regs), 0);
    ck_assert_uint_eq(regs.rip, 0);
    ck_assert_uint_eq(regs.activity, VMM_ACTIVE);
    ck_assert_int_eq(vcpu_get_regs(vcpu[1], &regs), 0);
    ck_assert_uint_eq(regs.activity, VMM_WAIT_SIPI);
    /* The request for the other vCPU went with the reset. */
    vcpu_set_budget(vcpu[1], 0, 1000000);
    ck_assert_int_eq(vcpu_run(vcpu[1], &exit), 0);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_BUDGET);
    vm_destroy(vm);
    ck_assert_int_eq(stops, 1);
    ck_assert_int_eq(fake_cpus, 0);
}
END_TEST

static int nothing_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)offset;
    (void)size;
    *value = 1;
    ++*(_Atomic int *)opaque;
    return VMM_IO_OK;
}

static _Atomic int releases;

static void count_release(void *opaque)
{
    (void)opaque;
    releases++;
}

/* Registering, mapping, pausing, kicking, creating and destroying while vCPUs run. */
START_TEST(everything_at_once)
{
    static const struct fake_op code[] = {
        {.kind = OP_READ, .a = 0x1000}, {.kind = OP_IN, .a = 0x80}, {.kind = OP_JMP, .a = 0}};
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 4};
    struct vm *vm = fake_vm(&config);
    struct vmm_io_ops ops = {
        .size = sizeof(ops), .name = "x", .read = nothing_read, .release = count_release};
    _Atomic int reads = 0;
    struct runner r[2];
    struct pio *pio;

    releases = 0;
    ck_assert_int_eq(mmio_register(vm, 0x1000, 16, &ops, &reads, NULL), 0);
    ck_assert_int_eq(pio_register(vm, 0x80, 1, &ops, &reads, &pio), 0);
    for (uint32_t i = 0; i < 2; i++)
        start(&r[i], fake_add(vm, i, code));
    for (int round = 0; round < 200; round++) {
        struct mmio *mmio;
        struct vcpu *extra;

        ck_assert_int_eq(mmio_register(vm, 0x2000, 16, &ops, &reads, &mmio), 0);
        ck_assert_int_eq(vm_mem_alloc(vm, 0x100000, 4096, VMM_MEM_RWX, NULL), 0);
        ck_assert_int_eq(vcpu_create(vm, 2, NULL, &extra), 0);
        ck_assert_int_eq(vcpu_create(vm, 2, NULL, &extra), VMM_E_EXIST);
        mmio_unregister(mmio);
        ck_assert_int_eq(vm_mem_unmap(vm, 0x100000), 0);
        vcpu_kick(extra);
        ck_assert_int_eq(vcpu_destroy(extra), 0);
        ck_assert_ptr_null(vm_vcpu(vm, 2));
    }
    vm_stop(vm);
    for (int i = 0; i < 2; i++) {
        pthread_join(r[i].thread, NULL);
        /* Port 0x80 was there all the time, and so was the MMIO. */
        ck_assert_uint_eq(r[i].exit.reason, VMM_EXIT_STOPPED);
    }
    ck_assert_int_eq(releases, 200);
    vm_destroy(vm);
    ck_assert_int_eq(releases, 202);
}
END_TEST

START_TEST(create_rejects_and_current)
{
    struct vm_config config = {.size = sizeof(config), .max_vcpus = 2};
    struct vm *vm = fake_vm(&config);
    struct vcpu *vcpu;
    struct vmm_error e = {.size = sizeof(e)};
    int tag;

    ck_assert_int_eq(vcpu_create(vm, 2, NULL, &vcpu), VMM_E_RANGE);
    vm_last_error(vm, &e);
    ck_assert_str_eq(e.op, "vcpu_create");
    ck_assert_int_eq(e.code, VMM_E_RANGE);
    ck_assert_str_eq(e.text, "vCPU 2, but the VM has at most 2");
    ck_assert_int_eq(vcpu_create(vm, 1, &tag, &vcpu), 0);
    ck_assert_ptr_eq(vcpu_data(vcpu), &tag);
    ck_assert_ptr_eq(vcpu_vm(vcpu), vm);
    ck_assert_uint_eq(vcpu_id(vcpu), 1);
    ck_assert_ptr_eq(vm_vcpu(vm, 1), vcpu);
    ck_assert_ptr_null(vm_vcpu(vm, 0));
    ck_assert_ptr_null(vm_vcpu(vm, 1000));
    ck_assert_ptr_null(vcpu_current(vm));
    vm_destroy(vm);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vm");
    TCase *create = tcase_create("create");
    TCase *life = tcase_create("life");

    suite_add_tcase(s, create);
    tcase_add_test(create, defaults);
    tcase_add_test(create, bad_configs_are_refused_with_a_text);
    tcase_add_test(create, config_of_a_later_version);
    tcase_add_test(create, an_unset_capability_refuses_its_option);
    tcase_add_test(create, reports_of_all_backends);
    tcase_add_test(create, names_and_versions);
    suite_add_tcase(s, life);
    tcase_set_timeout(life, 60);
    tcase_add_test(life, stop_holds_until_resume);
    tcase_add_test(life, pause_stops_guest_and_clock);
    tcase_add_test(life, clock_never_goes_back);
    tcase_add_test(life, requested_exits_reach_every_vcpu_once);
    tcase_add_test(life, reset_is_power_on);
    tcase_add_test(life, everything_at_once);
    tcase_add_test(life, create_rejects_and_current);

    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
