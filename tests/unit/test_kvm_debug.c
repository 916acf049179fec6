/* SPDX-License-Identifier: BSD-2-Clause */
/* test_kvm_debug.c: what KVM's vCPU is told of breakpoints, on hosts too where KVM ignores it. */
#include <stdarg.h>

#include "kvm_vm.h"
#include <vmm/debug.h>

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static struct kvm_guest_debug told; /* by the last KVM_SET_GUEST_DEBUG, */
static int told_fd;                 /* for this vCPU */
static unsigned tellings;
static bool listens; /* not to the probe */

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;

    va_start(args, request);
    uintptr_t arg = va_arg(args, uintptr_t);
    va_end(args);
    if (!listens || request != KVM_SET_GUEST_DEBUG)
        return __real_ioctl(fd, request, arg);
    memcpy(&told, (void *)arg, sizeof(told));
    told_fd = fd;
    tellings++;
    return 0;
}

static void set_breakpoint(uint64_t address)
{
    const struct vmm_debug debug = {
        .size = sizeof(debug), .nbreakpoints = 1, .breakpoints = {{address, VMM_BREAK_EXEC, 0}}};
    struct kvm_host *host = (struct kvm_host *)(uintptr_t)kvm_host();

    host->has |= KVM_HAS_GUEST_DEBUG;
    host->bad &= ~KVM_BAD_BREAKPOINT;
    listens = true;
    ck_assert_int_eq(vcpu_set_debug(vcpu, &debug), 0);
    ck_assert_uint_eq(tellings, 1);
    ck_assert_uint_eq(told.control, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP);
    ck_assert_uint_eq(told.arch.debugreg[0], address);
    ck_assert_uint_eq(told.arch.debugreg[7] & 0xff, 1);
}

START_TEST(breakpoints_are_taken_back)
{
    kvm_begin(0, 1);
    load_on(vcpu, "\xf4", 1);
    set_breakpoint(CODE + 0x10);
    ck_assert_int_eq(vcpu_set_debug(vcpu, NULL), 0);
    ck_assert_uint_eq(tellings, 2);
    ck_assert_uint_eq(told.control, 0);
    RUN(HLT);
    ck_assert_uint_eq(tellings, 2);
    kvm_end();
}
END_TEST

/* KVM's vCPU stays, for the next one of this index. */
START_TEST(breakpoints_end_with_the_vcpu)
{
    int fd;

    kvm_begin(0, 2);
    load_on(vcpu, "\xf4", 1);
    set_breakpoint(CODE);
    fd = told_fd;
    ck_assert_int_eq(vcpu_destroy(vcpu), 0);
    ck_assert_uint_eq(tellings, 2);
    ck_assert_int_eq(told_fd, fd);
    ck_assert_uint_eq(told.control, 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    load_on(vcpu, "\xf4", 1);
    RUN(HLT);
    ck_assert_uint_eq(tellings, 2);
    kvm_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {breakpoints_are_taken_back, breakpoints_end_with_the_vcpu};

    return kvm_main("kvm_debug", tests, sizeof(tests) / sizeof(tests[0]), 1);
}
