/* SPDX-License-Identifier: BSD-2-Clause */
/* The translator in programs that restrict themselves or use signals: guests run under a seccomp
 * filter with the system calls that docs/api.md names and no others, and under a rain of signals
 * whose handlers use the normal stack and all vector registers. */
#include <check.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sanitized.h"
#include <vmm/vmm.h>

#define CODE   0x1000u
#define STACK  0x9000u
#define TABLES 0x10000u
#define DATA   0x40000u
#define RAM    0x100000u
#define CPUS   2u

/*
 * RDI: rounds, RSI: memory of its own. Mixes with integer, vector and x87 instructions, stores that
 * cross pages, calls, and an instruction that is changed every 1024 rounds; RAX is the result.
 */
__asm__(".pushsection .rodata\n"
        "mix_begin:\n"
        "    xor %eax, %eax\n"
        "    mov %rsi, %rbx\n"
        "    movq %rsi, %xmm1\n"
        "    pxor %xmm0, %xmm0\n"
        "1:  imul $0x343fd, %rax, %rax\n"
        "    add $0x269ec3, %rax\n"
        "    rol $7, %rax\n"
        "    mov %eax, %edx\n"
        "    and $0x1fff, %edx\n"
        "    add %rax, (%rbx,%rdx)\n"
        "    mov 4(%rbx,%rdx), %rcx\n"
        "    xor %rcx, %rax\n"
        "    call 2f\n"
        "    movq %rax, %xmm2\n"
        "    paddq %xmm2, %xmm0\n"
        "    pshufd $0x4e, %xmm0, %xmm0\n"
        "    pxor %xmm1, %xmm0\n"
        "    movdqu %xmm0, 0x2ff8(%rbx)\n"
        "    fildll (%rbx)\n"
        "    fld1\n"
        "    faddp\n"
        "    fistpll 0x2000(%rbx)\n"
        "    xor 0x2000(%rbx), %rax\n"
        "    test $0x3ff, %edi\n"
        "    jnz 3f\n"
        "    incb 4f+1(%rip)\n"
        "3:  dec %rdi\n"
        "    jnz 1b\n"
        "    movq %xmm0, %rdx\n"
        "    xor %rdx, %rax\n"
        "    hlt\n"
        "2:  adc $5, %rax\n"
        "    bswap %rax\n"
        "4:  add $1, %al\n"
        "    ret\n"
        "mix_end:\n"
        ".popsection\n");
extern const uint8_t mix_begin[], mix_end[];

struct machine {
    struct vm *vm;
    struct vcpu *vcpu[CPUS];
    uint64_t rounds;
};

/* The vCPUs have copies of the code in different pages, as it changes itself. */
static uint64_t code_of(unsigned cpu)
{
    return CODE + cpu * 0x1000;
}

static int create(struct machine *m, const char *backend, uint64_t rounds)
{
    const char *const backends[] = {backend, NULL};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .max_vcpus = CPUS};

    *m = (struct machine){.rounds = rounds};
    if (vm_create(&config, &m->vm) || vm_mem_alloc(m->vm, 0, RAM, VMM_MEM_RWX, NULL))
        return -1;
    for (unsigned i = 0; i < CPUS; i++) {
        struct vcpu_setup setup = {.size = sizeof(setup),
                                   .mode = VMM_SETUP_LONG64,
                                   .rip = code_of(i),
                                   .rsp = STACK - i * 0x1000,
                                   .tables = TABLES};
        struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};

        if (vm_mem_write(m->vm, code_of(i), mix_begin, (size_t)(mix_end - mix_begin)) ||
            vcpu_create(m->vm, i, NULL, &m->vcpu[i]) || vcpu_set_mode(m->vcpu[i], &setup) ||
            vcpu_get_regs(m->vcpu[i], &regs))
            return -1;
        regs.gpr[VMM_RDI] = rounds;
        regs.gpr[VMM_RSI] = DATA + i * 0x10000;
        if (vcpu_set_regs(m->vcpu[i], &regs))
            return -1;
    }
    return 0;
}

static void *run_vcpu(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct vcpu_exit ex = {.size = sizeof(ex)};

    /* Time budgets make it come out now and then. */
    do {
        if (vcpu_set_budget(vcpu, 0, 3000000) || vcpu_run(vcpu, &ex))
            return NULL;
    } while (ex.reason == VMM_EXIT_BUDGET);
    return ex.reason == VMM_EXIT_HLT ? vcpu : NULL;
}

/* The results of both vCPUs; false: something failed. */
static bool results(struct machine *m, uint64_t *out)
{
    for (unsigned i = 0; i < CPUS; i++) {
        struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_GPR};

        if (vcpu_get_regs(m->vcpu[i], &regs) || regs.gpr[VMM_RDI])
            return false;
        out[i] = regs.gpr[VMM_RAX];
    }
    return true;
}

/* What the software CPU computes. */
static void expected(uint64_t rounds, uint64_t *out)
{
    struct machine m;

    ck_assert_int_eq(create(&m, "interp", rounds), 0);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_ptr_nonnull(run_vcpu(m.vcpu[i]));
    ck_assert(results(&m, out));
    ck_assert_uint_ne(out[0], out[1]);
    ck_assert_int_eq(vm_destroy(m.vm), 0);
}

/* ---- seccomp ---- */

#define ALLOW(call)                                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##call, 0, 1),                                        \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* Allows what docs/api.md names for running vCPUs, and what the test itself needs to end. More code
 * memory is refused with an errno. Everything else kills. */
static int restrict_all_threads(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(futex),
        ALLOW(sched_yield),
        ALLOW(clock_gettime),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(brk),
        ALLOW(madvise),
        ALLOW(mprotect),
        ALLOW(exit),
        ALLOW(exit_group),
        ALLOW(rt_sigprocmask), /* pthread_exit */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_memfd_create, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static pthread_barrier_t restricted;

static void *run_restricted(void *opaque)
{
    pthread_barrier_wait(&restricted); /* the thread is there ... */
    pthread_barrier_wait(&restricted); /* ... and restricted */
    return run_vcpu(opaque);
}

#define ROUNDS 100000u

/* In a process of its own: 0 if the results are right. */
static int restricted_process(const uint64_t *want)
{
    struct machine m;
    pthread_t thread[CPUS];
    uint64_t have[CPUS];
    bool ok = true;

    if (create(&m, "bt", ROUNDS) || pthread_barrier_init(&restricted, NULL, CPUS + 1))
        return 2;
    for (unsigned i = 0; i < CPUS; i++)
        if (pthread_create(&thread[i], NULL, run_restricted, m.vcpu[i]))
            return 3;
    pthread_barrier_wait(&restricted);
    if (restrict_all_threads())
        return 77;
    pthread_barrier_wait(&restricted);
    for (unsigned i = 0; i < CPUS; i++) {
        void *r;

        ok &= !pthread_join(thread[i], &r) && r;
    }
    return ok && results(&m, have) && !memcmp(have, want, sizeof(have)) ? 0 : 1;
}

START_TEST(seccomp)
{
    uint64_t want[CPUS];
    int status;
    pid_t pid;

    if (SANITIZED) {
        puts("seccomp is skipped: a sanitizer makes system calls of its own");
        return;
    }
    expected(ROUNDS, want);
    pid = fork();
    if (!pid)
        _exit(restricted_process(want));
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        return; /* no seccomp here */
    ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

/* Refuses executable memory in every form. */
static int forbid_code(void)
{
    const unsigned prot = offsetof(struct seccomp_data, args[2]); /* of mmap and mprotect */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_memfd_create, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, prot),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/* 0: no engine says that it can work here, and no VM is made that could not have a vCPU. */
static int process_without_code(void)
{
    static const char *const backends[] = {"bt", NULL};
    struct vmm_backend_report reports[4] = {{.size = sizeof(reports[0])}};
    struct vmm_error error = {.size = sizeof(error)};
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = backends,
                               .error = &error};
    int n, found = 0;
    struct vm *vm;

    if (forbid_code())
        return 77;
    n = vmm_backend_probe(reports, 4);
    for (int i = 0; i < n; i++)
        if (!strcmp(reports[i].name, "bt") || !strcmp(reports[i].name, "interp"))
            found +=
                reports[i].result == VMM_E_PERM && strstr(reports[i].reason, "executable memory");
        else if (!reports[i].result)
            return 1;
    if (found != 2)
        return 2;
    if (vm_create(&config, &vm) != VMM_E_NODEV || !strstr(error.text, "executable memory"))
        return 3;
    config.select = VMM_SELECT_AUTO;
    return vm_create(&config, &vm) == VMM_E_NODEV ? 0 : 4;
}

START_TEST(no_executable_memory)
{
    int status;
    pid_t pid = fork();

    if (!pid)
        _exit(process_without_code());
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
}
END_TEST

/* ---- signals ---- */

static _Atomic unsigned handled, bad_stacks, ended, stop_signals;
static __thread uintptr_t stack_top;

/* Uses stack and registers as a handler may. */
static void on_signal(int number)
{
    volatile char room[8192];
    int saved = errno;

    (void)number;
    memset((char *)(uintptr_t)room, 0x5a, sizeof(room));
    if (stack_top && stack_top - (uintptr_t)room > 512u << 10)
        bad_stacks++;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n movdqa %%xmm0, %%xmm1\n movdqa %%xmm0, %%xmm2\n"
                     "movdqa %%xmm0, %%xmm15\n fninit\n fldpi\n"
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm15");
    handled++;
    errno = saved;
}

static const int numbers[] = {SIGSEGV, SIGBUS,  SIGILL,  SIGFPE,  SIGTRAP,  SIGURG,
                              SIGALRM, SIGUSR1, SIGUSR2, SIGPROF, SIGVTALRM};
#define NNUMBERS (sizeof(numbers) / sizeof(numbers[0]))

static void *run_signalled(void *opaque)
{
    char here;
    void *r;

    stack_top = (uintptr_t)&here + 4096;
    r = run_vcpu(opaque);
    ended++;
    while (!stop_signals) /* signals are still sent to it */
        usleep(1000);
    return r;
}

static void *send(void *opaque)
{
    pthread_t *thread = opaque;

    for (unsigned n = 0; !stop_signals; n++) {
        pthread_kill(thread[n % CPUS], numbers[n % NNUMBERS]);
        usleep(50);
    }
    return NULL;
}

START_TEST(signals)
{
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, before[65],
                     now = {0};
    uint64_t want[CPUS], have[CPUS];
    pthread_t thread[CPUS], sender;
    struct machine m;

    if (SANITIZED) {
        puts("signals is skipped: a sanitizer delays signals");
        return;
    }
    expected(2 * ROUNDS, want);
    memset(before, 0, sizeof(before));
    handled = bad_stacks = ended = stop_signals = 0;
    for (unsigned i = 0; i < NNUMBERS; i++)
        ck_assert_int_eq(sigaction(numbers[i], &action, NULL), 0);
    for (int s = 1; s < 65; s++)
        sigaction(s, NULL, &before[s]);
    ck_assert_int_eq(create(&m, "bt", 2 * ROUNDS), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_PROF, &often, NULL), 0);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, run_signalled, m.vcpu[i]), 0);
    ck_assert_int_eq(pthread_create(&sender, NULL, send, thread), 0);
    while (ended < CPUS)
        usleep(1000);
    stop_signals = 1;
    pthread_join(sender, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        void *r;

        ck_assert_int_eq(pthread_join(thread[i], &r), 0);
        ck_assert_ptr_nonnull(r);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    setitimer(ITIMER_PROF, &never, NULL);
    ck_assert(results(&m, have));
    ck_assert_mem_eq(have, want, sizeof(have));
    ck_assert_uint_gt(handled, 50);
    ck_assert_uint_eq(bad_stacks, 0);
    for (int s = 1; s < 65; s++) {
        if (sigaction(s, NULL, &now))
            continue; /* the C library's own */
        ck_assert_ptr_eq((void *)(uintptr_t)now.sa_handler,
                         (void *)(uintptr_t)before[s].sa_handler);
        ck_assert_int_eq(now.sa_flags, before[s].sa_flags);
    }
    ck_assert_int_eq(vm_destroy(m.vm), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_host");
    TCase *t = tcase_create("bt_host");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_test(t, seccomp);
    tcase_add_test(t, no_executable_memory);
    tcase_add_test(t, signals);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
