/* SPDX-License-Identifier: BSD-2-Clause */
/* boot_test.h: VMs for the tests of the image loaders, with RAM in which every stray write shows.
 */
#ifndef BOOT_TEST_H
#define BOOT_TEST_H

#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <vmm/boot.h>
#include <vmm/vmm.h>

#include "core/boot/boot.h"

#define MIB     0x100000ull
#define PATTERN 0xa5

static struct vm *vm;
static struct vcpu *vcpu;
static struct vmm_pc pc;
static uint8_t *ram; /* of begin_pc, filled with PATTERN */
static uint64_t ram_size;

static inline void begin_vm(uint32_t irqchip, uint32_t cpus)
{
    static const char *const interp_only[] = {"interp", NULL};
    struct vm_config config = {.size = sizeof(config),
                               .flags = VMM_VM_EXIT_HLT,
                               .select = VMM_SELECT_REQUIRE,
                               .backends = interp_only,
                               .irqchip = irqchip,
                               .max_vcpus = cpus};

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    ram = NULL;
    ram_size = 0;
    memset(&pc, 0, sizeof(pc));
    pc.size = sizeof(pc);
}

/* A VM without devices; memory is what add_memory adds. */
static inline void begin_plain(void)
{
    begin_vm(VMM_IRQCHIP_NONE, 1);
}

static inline void add_memory(uint64_t gpa, uint64_t len, uint32_t prot)
{
    ck_assert_int_eq(vm_mem_alloc(vm, gpa, len, prot, NULL), 0);
}

static inline void begin_pc_with(uint64_t memory, uint32_t cpus, uint32_t flags)
{
    struct vmm_pc_config config = {.size = sizeof(config),
                                   .flags = flags,
                                   .memory = memory,
                                   .cpus = cpus,
                                   .rtc_epoch = 1700000000};

    begin_vm(VMM_IRQCHIP_PC, cpus);
    if (memory <= 64 * MIB) {
        ram_size = memory;
        ram = aligned_alloc(4096, memory);
        ck_assert_ptr_nonnull(ram);
        memset(ram, PATTERN, memory);
        config.ram = ram;
    }
    ck_assert_int_eq(vmm_pc_create(vm, &config, &pc), 0);
}

static inline void begin_pc(uint64_t memory)
{
    begin_pc_with(memory, 1, 0);
}

static inline void end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    free(ram);
    ram = NULL;
}

/* ---- what is in memory and registers ---- */

static inline bool all_bytes(const uint8_t *p, uint64_t len, uint8_t value)
{
    return len == 0 || (p[0] == value && memcmp(p, p + 1, len - 1) == 0);
}

static inline bool untouched(uint64_t start, uint64_t end_)
{
    return all_bytes(ram + start, end_ - start, PATTERN);
}

static inline const uint8_t *at(uint64_t gpa, uint64_t len)
{
    const uint8_t *p = vm_mem_ptr(vm, gpa, len);

    ck_assert_msg(p != NULL, "no memory at 0x%llx", (unsigned long long)gpa);
    return p;
}

static inline uint32_t mem16(uint64_t gpa)
{
    return boot_get16(at(gpa, 2));
}

static inline uint32_t mem32(uint64_t gpa)
{
    return boot_get32(at(gpa, 4));
}

static inline uint64_t mem64(uint64_t gpa)
{
    return boot_get64(at(gpa, 8));
}

static inline const char *text_at(uint64_t gpa)
{
    return (const char *)at(gpa, 1);
}

static inline struct vcpu_regs regs_of(void)
{
    struct vcpu_regs regs;

    memset(&regs, 0, sizeof(regs));
    regs.size = sizeof(regs);
    regs.groups = VMM_REGS_ALL & ~VMM_REGS_MSR; /* time goes on */
    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    return regs;
}

/* ---- booting ---- */

static inline struct vmm_image image_of(const void *data, uint64_t len)
{
    return (struct vmm_image){.size = sizeof(struct vmm_image), .data = data, .len = len};
}

static inline struct vmm_boot request(const void *data, uint64_t len)
{
    return (struct vmm_boot){.size = sizeof(struct vmm_boot),
                             .kernel = image_of(data, len),
                             .pc = ram || pc.memory ? &pc : NULL};
}

static inline const char *last_text(void)
{
    static struct vmm_error error;

    memset(&error, 0, sizeof(error));
    error.size = sizeof(error);
    vm_last_error(vm, &error);
    return error.text;
}

static inline void must_boot(uint32_t kind, const struct vmm_boot *boot)
{
    int err = vm_boot(vcpu, kind, boot);

    ck_assert_msg(err == 0, "%s: %s", vmm_err_name(err), last_text());
}

/* The boot fails with the code, a message with `text` in it, and the vCPU as it was. */
static inline void must_fail(uint32_t kind, const struct vmm_boot *boot, int code, const char *text)
{
    struct vcpu_regs before = regs_of(), after;
    struct vmm_error error = {.size = sizeof(error)};
    int err = vm_boot(vcpu, kind, boot);

    vm_last_error(vm, &error);
    ck_assert_msg(err == code, "%s, not %s: %s", vmm_err_name(err), vmm_err_name(code), error.text);
    ck_assert_int_eq(error.code, code);
    ck_assert_msg(strstr(error.text, text) != NULL, "'%s' does not say '%s'", error.text, text);
    after = regs_of();
    ck_assert_msg(memcmp(&before, &after, sizeof(after)) == 0, "the vCPU has changed: %s",
                  error.text);
}

/* The same, and guest memory is as it was: for what is found before anything is written. */
static inline void must_refuse(uint32_t kind, const struct vmm_boot *boot, int code,
                               const char *text)
{
    must_fail(kind, boot, code, text);
    ck_assert_msg(untouched(0, ram_size), "memory was written before '%s'", text);
}

/* Runs to the first HLT. */
static inline uint64_t run_to_hlt(void)
{
    struct vcpu_exit exit = {.size = sizeof(exit)};

    ck_assert_int_eq(vcpu_set_budget(vcpu, 1000, 0), 0);
    ck_assert_int_eq(vcpu_run(vcpu, &exit), 0);
    ck_assert_msg(exit.reason == VMM_EXIT_HLT, "exit %s at 0x%llx", vmm_exit_name(exit.reason),
                  (unsigned long long)exit.rip);
    return exit.rip;
}

static inline void check_flat_segments(const struct vcpu_regs *regs, bool long_mode)
{
    static const int data[] = {VMM_ES, VMM_SS, VMM_DS, VMM_FS, VMM_GS};

    ck_assert_uint_eq(regs->seg[VMM_CS].selector, 0x10);
    ck_assert_uint_eq(regs->seg[VMM_CS].base, 0);
    ck_assert_uint_eq(regs->seg[VMM_CS].limit, 0xffffffff);
    ck_assert_uint_eq(regs->seg[VMM_CS].ar, long_mode ? 0xa09b : 0xc09b);
    for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
        ck_assert_uint_eq(regs->seg[data[i]].selector, 0x18);
        ck_assert_uint_eq(regs->seg[data[i]].base, 0);
        ck_assert_uint_eq(regs->seg[data[i]].limit, 0xffffffff);
        ck_assert_uint_eq(regs->seg[data[i]].ar, 0xc093);
    }
    /* The descriptors behind the selectors say the same. */
    ck_assert_uint_ge(regs->gdt.limit, 0x1f);
    ck_assert_uint_eq(mem64(regs->gdt.base), 0);
    ck_assert_uint_eq(mem64(regs->gdt.base + 0x10),
                      long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull);
    ck_assert_uint_eq(mem64(regs->gdt.base + 0x18), 0x00cf93000000ffffull);
    ck_assert_uint_eq(regs->rflags, 2);
}

/* State at every 32-bit entry point: paging off, flat. */
static inline void check_prot32(const struct vcpu_regs *regs)
{
    check_flat_segments(regs, false);
    ck_assert_uint_eq(regs->cr0, 0x11);
    ck_assert_uint_eq(regs->cr4, 0);
    ck_assert_uint_eq(regs->efer, 0);
    ck_assert_uint_eq(regs->seg[VMM_TR].base, 0);
    ck_assert_uint_eq(regs->seg[VMM_TR].limit, 0x67);
    ck_assert_uint_eq(regs->seg[VMM_TR].ar, 0x8b);
}

/* State at every 64-bit entry point: paging on, identity-mapped up to 4 GiB at least. */
static inline void check_long64(const struct vcpu_regs *regs)
{
    static const uint64_t where[] = {0, 0x1000, 0x7fffff, 0x1234567, 0xfee00020, 0xffffffff};

    check_flat_segments(regs, true);
    ck_assert_uint_eq(regs->cr0 & 0x80000001, 0x80000001);
    ck_assert_uint_eq(regs->cr4 & 0x20, 0x20);
    ck_assert_uint_eq(regs->efer & 0x500, 0x500);
    for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
        uint64_t gpa = 0;
        int ok = 0;

        ck_assert_int_eq(vcpu_translate(vcpu, where[i], &gpa, &ok), 0);
        ck_assert_int_eq(ok, 1);
        ck_assert_uint_eq(gpa, where[i]);
    }
}

static inline int run_suite(const char *name, const TTest *const *tests, size_t n)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    SRunner *runner;
    int failed;

    for (size_t i = 0; i < n; i++)
        tcase_add_test(tcase, tests[i]);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#define RUN_SUITE(name, tests) run_suite(name, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
