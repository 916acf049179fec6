/* SPDX-License-Identifier: BSD-2-Clause */
/* test_api_process.c: what the library does to the process around it: descriptors, signals, system
 * calls, stacks, children. */
#define _GNU_SOURCE
#include "api_vm.h"
#include "dir_entries.h"
#include "sanitized.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vmm/machine.h>

/* mov $100,%ecx; 1: addps %xmm0,%xmm0; fldz; fstp; loop 1b; hlt */
#define GUEST "\xb9\x64\x00\x00\x00\x0f\x58\xc0\xd9\xee\xdd\xd8\xe2\xf7\xf4"

START_TEST(leaves_descriptors_and_signals_alone)
{
    unsigned before = dir_entries("/proc/self/fd");
    struct sigaction actions[32], now;
    sigset_t mask, mask_now;

    for (int i = 1; i < 32; i++)
        sigaction(i, NULL, &actions[i]);
    sigprocmask(SIG_BLOCK, NULL, &mask);
    api_begin(VMM_IRQCHIP_PC, VMM_VM_EXIT_HLT, 1);
    LOAD(GUEST);
    RUN(HLT);
    ck_assert_uint_eq(dir_entries("/proc/self/fd"), before);
    for (int i = 1; i < 32; i++) {
        sigaction(i, NULL, &now);
        ck_assert_ptr_eq((void *)(uintptr_t)now.sa_handler,
                         (void *)(uintptr_t)actions[i].sa_handler);
    }
    sigprocmask(SIG_BLOCK, NULL, &mask_now);
    for (int i = 1; i < 32; i++)
        ck_assert_int_eq(sigismember(&mask, i), sigismember(&mask_now, i));
    api_end();
    ck_assert_uint_eq(dir_entries("/proc/self/fd"), before);
}
END_TEST

/* Only these system calls from now on; `otherwise` is what the others meet. */
static int allow_only(const int *calls, unsigned n, uint32_t otherwise)
{
    struct sock_filter code[64];
    struct sock_fprog program = {.filter = code};
    unsigned at = 0;

    code[at++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < n; i++) {
        code[at++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i], 0, 1);
        code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
    program.len = (unsigned short)at;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Runs the guest under the filter in a child: its exit status, 0 if all went well. */
static int run_filtered(const int *calls, unsigned n, uint32_t otherwise)
{
    int status = 0;
    pid_t child = fork();

    ck_assert_int_ge(child, 0);
    if (child) {
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        return status;
    }
    /* The VM is the child's own: that of a parent must not be used. */
    struct vm_config config = {.size = sizeof(config)};
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};
    if (vm_create(&config, &vm) || vm_mem_alloc(vm, 0, RAM, VMM_MEM_RWX, NULL) ||
        vcpu_create(vm, 0, NULL, &vcpu) || vm_mem_write(vm, CODE, GUEST, sizeof(GUEST)) ||
        vcpu_set_mode(vcpu, &setup))
        _exit(1);
    if (allow_only(calls, n, otherwise))
        _exit(77);
    ex = (struct vcpu_exit){.size = sizeof(ex)};
    if (vcpu_run(vcpu, &ex) || ex.reason != VMM_EXIT_HLT)
        _exit(2);
    vcpu_kick(vcpu);
    if (vcpu_run(vcpu, &ex) || ex.reason != VMM_EXIT_INTERRUPTED)
        _exit(3);
    _exit(0);
}

/* The list for running vCPUs in docs/api.md. */
START_TEST(runs_under_seccomp)
{
#if SANITIZED
    puts("runs_under_seccomp is skipped: a sanitizer makes system calls of its own");
    return;
#endif
    static const int calls[] = {SYS_futex,  SYS_sched_yield, SYS_clock_gettime, SYS_mmap,
                                SYS_munmap, SYS_brk,         SYS_madvise,       SYS_exit_group};
    static const int none[] = {SYS_exit_group};
    int status = run_filtered(calls, sizeof(calls) / sizeof(calls[0]), SECCOMP_RET_KILL_PROCESS);

    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        puts("runs_under_seccomp is skipped: the host has no seccomp filters");
        return;
    }
    ck_assert_int_eq(status, 0);
    /* Nothing at all is allowed: what vcpu_create has reserved is enough. */
    ck_assert_int_eq(run_filtered(none, 1, SECCOMP_RET_ERRNO | EPERM), 0);
}
END_TEST

static void *whole_life(void *failed)
{
    struct vm_config config = {
        .size = sizeof(config), .irqchip = VMM_IRQCHIP_PC, .flags = VMM_VM_EXIT_HLT};
    struct vmm_pc_config pc_config = {.size = sizeof(pc_config), .memory = 0x100000};
    struct vmm_pc pc = {.size = sizeof(pc)};
    struct vcpu_setup setup = {.size = sizeof(setup),
                               .mode = VMM_SETUP_LONG64,
                               .rip = CODE,
                               .rsp = STACK,
                               .tables = TABLES};
    struct vcpu_exit exit = {.size = sizeof(exit)};
    struct vcpu *v;
    struct vm *m;

    if (vm_create(&config, &m) || vmm_pc_create(m, &pc_config, &pc) ||
        vcpu_create(m, 0, NULL, &v) || vm_mem_write(m, CODE, GUEST, sizeof(GUEST)) ||
        vcpu_set_mode(v, &setup) || vcpu_run(v, &exit) || exit.reason != VMM_EXIT_HLT ||
        vm_destroy(m))
        return failed;
    return NULL;
}

START_TEST(small_stacks_do)
{
    pthread_attr_t attr;
    pthread_t thread;
    void *failed = NULL;

    pthread_attr_init(&attr);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, 256 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, whole_life, &failed), 0);
    pthread_join(thread, &failed);
    ck_assert_ptr_null(failed);
    pthread_attr_destroy(&attr);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {leaves_descriptors_and_signals_alone, runs_under_seccomp,
                                  small_stacks_do};

    return api_main("api_process", tests, sizeof(tests) / sizeof(tests[0]));
}
