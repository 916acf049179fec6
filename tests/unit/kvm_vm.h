/* SPDX-License-Identifier: BSD-2-Clause */
/* kvm_vm.h: a VM on KVM for tests of that engine: 64-bit code at CPL 0, identity-mapped. */
#ifndef TEST_KVM_VM_H
#define TEST_KVM_VM_H

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "backends/kvm/kvm.h"
#include <vmm/vmm.h>

#define CODE   0x1000u
#define STACK  0x9000u
#define TABLES 0x10000u
#define RAM    0x100000u /* bytes from 0 on */

static struct vm *vm;
static struct vcpu *vcpu;
static struct vcpu_exit ex;

static inline struct kvm_vm *kvm(void)
{
    return kvm_vm_of(vm);
}

/* What the probe has found, for tests that take some of it away. */
static inline struct kvm_host *host(void)
{
    return (struct kvm_host *)(uintptr_t)kvm_host();
}

static uint32_t had, had_bad; /* what it was; the tests are about KVM, not about the repairs */

/* Where KVM does not run CPL 0 well, the software CPU would run all of these tests. */
static inline void kvm_begin(uint32_t flags, uint32_t cpus)
{
    static const char *const backends[] = {"kvm", NULL};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .max_vcpus = cpus,
                               .error = &error};

    had = host()->has;
    had_bad = host()->bad;
    host()->bad &= ~(KVM_BAD_EMULATION | KVM_BAD_USER_EVENTS);
    int err = vm_create(&config, &vm);
    ck_assert_msg(!err, "%s", error.text);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
}

static inline void kvm_end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
    host()->has = had;
    host()->bad = had_bad;
}

/* Exits of KVM so far. */
static inline uint64_t hw_exits(void)
{
    struct vm_stats stats = {.size = sizeof(stats)};

    ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
    return stats.hw_exits;
}

static inline void load_on(struct vcpu *v, const char *code, size_t len)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};

    ck_assert_int_eq(vm_mem_write(vm, CODE, code, len), 0);
    ck_assert_int_eq(vcpu_set_mode(v, &setup), 0);
}
#define LOAD(code) load_on(vcpu, code, sizeof(code) - 1)

static inline uint32_t run(void)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return ex.reason;
}
#define RUN(reason) ck_assert_str_eq(vmm_exit_name(run()), #reason)

static inline struct vcpu_regs get_regs(void)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL};

    ck_assert_int_eq(vcpu_get_regs(vcpu, &r), 0);
    return r;
}

static inline uint64_t gpr(unsigned i)
{
    return get_regs().gpr[i];
}

static inline void set_gpr(unsigned i, uint64_t value)
{
    struct vcpu_regs r = get_regs();

    r.groups = VMM_REGS_GPR;
    r.gpr[i] = value;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
}

/* Also ends HLT. */
static inline void set_rip(uint64_t rip)
{
    struct vcpu_regs r = get_regs();

    r.groups = VMM_REGS_GPR | VMM_REGS_EVENTS;
    r.rip = rip;
    r.activity = VMM_ACTIVE;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
}

static inline const char *last_error(int code)
{
    static struct vmm_error error;

    error.size = sizeof(error);
    vm_last_error(vm, &error);
    ck_assert_int_eq(error.code, code);
    return error.text;
}

/* Runs a suite of one case where KVM can be used, each test `times` times (_i). */
static inline int kvm_main(const char *name, const TTest *const *tests, size_t n, int times)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    SRunner *runner;
    int failed;

    if (kvm_host()->result) {
        printf("%s: skipped: %s\n", name, kvm_host()->reason);
        return 77;
    }
    tcase_set_timeout(tc, 60);
    for (size_t i = 0; i < n; i++)
        tcase_add_loop_test(tc, tests[i], 0, times);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
