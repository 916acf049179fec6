/* SPDX-License-Identifier: BSD-2-Clause */
/* api_vm.h: a VM on the software CPU for tests of the public API: 64-bit code at 0x1000. */
#ifndef TEST_API_VM_H
#define TEST_API_VM_H

#include <check.h>
#include <string.h>

#include <vmm/debug.h>
#include <vmm/device.h>
#include <vmm/vmm.h>

#define CODE      0x1000u
#define STACK     0x9000u
#define TABLES    0x10000u
#define GATES     0x20000u /* an IDT of 32 gates that leads to HANDLER */
#define HANDLER   0x21000u
#define RAM       0x100000u
#define MMIO_BASE 0xd0000000u /* nothing is there unless a test registers it */

static struct vm *vm;
static struct vcpu *vcpu;
static struct vcpu_exit ex;

static inline void api_begin(uint32_t irqchip, uint32_t flags, uint32_t cpus)
{
    static const char *const backends[] = {"interp", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = flags,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .irqchip = irqchip,
                               .max_vcpus = cpus};

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
}

static inline void api_end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    vm = NULL;
}

static inline void api_load(struct vcpu *v, const char *code, size_t len)
{
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};

    ck_assert_int_eq(vm_mem_write(vm, CODE, code, len), 0);
    ck_assert_int_eq(vcpu_set_mode(v, &setup), 0);
}
#define LOAD(code) api_load(vcpu, code, sizeof(code) - 1)

static inline struct vcpu_regs api_regs(struct vcpu *v)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_ALL};

    ck_assert_int_eq(vcpu_get_regs(v, &regs), 0);
    return regs;
}

static inline uint64_t api_gpr(unsigned index)
{
    return api_regs(vcpu).gpr[index];
}

/* Descriptors for CS = 8 and SS = 16, and gates for all exceptions, to a handler with this code.
 */
static inline void api_gates(const char *handler, size_t len)
{
    struct vcpu_regs regs = api_regs(vcpu);
    const uint64_t gdt[3] = {0, 0x00af9b000000ffff, 0x00cf93000000ffff};

    for (uint64_t i = 0; i < 32; i++) {
        const uint64_t gate[2] = {
            (HANDLER & 0xffff) | 8u << 16 | 0x8eull << 40 | (HANDLER & 0xffff0000ull) << 32, 0};
        ck_assert_int_eq(vm_mem_write(vm, GATES + i * 16, gate, sizeof(gate)), 0);
    }
    ck_assert_int_eq(vm_mem_write(vm, GATES + 0x800, gdt, sizeof(gdt)), 0);
    ck_assert_int_eq(vm_mem_write(vm, HANDLER, handler, len), 0);
    regs.groups = VMM_REGS_DT;
    regs.idt = (struct vmm_dtable){.base = GATES, .limit = 32 * 16 - 1};
    regs.gdt = (struct vmm_dtable){.base = GATES + 0x800, .limit = sizeof(gdt) - 1};
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
}
#define HANDLE(code) api_gates(code, sizeof(code) - 1)

static inline uint32_t api_run(void)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return ex.reason;
}
#define RUN(reason) ck_assert_str_eq(vmm_exit_name(api_run()), #reason)

static inline uint32_t api_step(void)
{
    ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
    return ex.reason;
}
#define STEP(reason) ck_assert_str_eq(vmm_exit_name(api_step()), #reason)

/* The text of the last failure, which must have this code. */
static inline const char *api_error(int code)
{
    static struct vmm_error error;

    error.size = sizeof(error);
    vm_last_error(vm, &error);
    ck_assert_int_eq(error.code, code);
    return error.text;
}

/* Runs a suite of one case. */
static inline int api_main(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    for (size_t i = 0; i < n; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
