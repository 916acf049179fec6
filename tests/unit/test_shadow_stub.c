/* SPDX-License-Identifier: BSD-2-Clause */
/* The process that runs guest user code: what it maps, runs, stops at, and cannot do. */
#define _GNU_SOURCE
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/shadow/stub.h"
#include "core/os.h"
#include "has_stubs.h"

#define CODE 0x555555554000ull
#define DATA 0x7ffe00000000ull

static struct stub stub;
static int ram = -1;
static uint8_t *pages; /* [0]: code, [1]: data */

static void teardown(void)
{
    stub_kill(&stub);
    stub_destroy(&stub);
    if (ram >= 0)
        close(ram);
    if (pages)
        munmap(pages, 2 * STUB_PAGE);
    ram = -1;
    pages = NULL;
}

static struct stub_cmd map_cmd(uint64_t at, int prot, uint64_t offset)
{
    return (struct stub_cmd){
        SYS_mmap, {at, STUB_PAGE, (uint64_t)prot, MAP_SHARED | MAP_FIXED, (uint64_t)ram, offset}};
}

static void setup(void)
{
    ck_assert_int_eq(stub_create(&stub, NULL), 0);
    ram = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_ge(ram, 0);
    ck_assert_int_eq(ftruncate(ram, 2 * STUB_PAGE), 0);
    pages = mmap(NULL, 2 * STUB_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ram, 0);
    ck_assert_ptr_ne(pages, MAP_FAILED);
    stub_cmds(&stub)[0] = map_cmd(CODE, PROT_READ | PROT_EXEC, 0);
    stub_cmds(&stub)[1] = map_cmd(DATA, PROT_READ | PROT_WRITE, STUB_PAGE);
    ck_assert_int_eq(stub_map(&stub, 2), 0);
}

/* Runs `code`; returns what it stops with. */
static struct stub_context *run(const void *code, size_t len, uint64_t deadline)
{
    struct stub_context *c = stub_context(&stub);

    ck_assert_ptr_nonnull(c);
    memcpy(pages, code, len);
    c->rip = CODE;
    c->rsp = DATA + 0x800;
    c->eflags = 0x202;
    stub.state->fs_base = 0x123456789000;
    stub.state->gs_base = 0xffff888000000000;
    ck_assert_int_eq(stub_run(&stub, deadline), STUB_STOPPED);
    c = stub_context(&stub);
    ck_assert_ptr_nonnull(c);
    return c;
}
#define RUN(code) run(code, sizeof(code) - 1, UINT64_MAX)

START_TEST(registers)
{
    struct stub_context *c = stub_context(&stub);

    c->rax = 1;
    c->rbx = 2;
    c->r15 = 15;
    /* add rax, rbx; push rax; inc r15; stc; rdfsbase rcx; rdgsbase rdx; int3 */
    c = RUN("\x48\x01\xd8\x50\x49\xff\xc7\xf9\xf3\x48\x0f\xae\xc1\xf3\x48\x0f\xae\xca\xcc");
    ck_assert_uint_eq(stub.state->signal, SIGTRAP);
    ck_assert_uint_eq(c->rip, CODE + 19);
    ck_assert_uint_eq(c->rax, 3);
    ck_assert_uint_eq(c->r15, 16);
    ck_assert_uint_eq(c->rsp, DATA + 0x7f8);
    ck_assert_uint_eq(*(uint64_t *)(void *)(pages + STUB_PAGE + 0x7f8), 3);
    ck_assert_uint_eq(c->eflags & 1, 1);
    ck_assert_uint_eq(c->rcx, 0x123456789000);
    ck_assert_uint_eq(c->rdx, 0xffff888000000000);
    ck_assert_uint_eq(c->cs, 0x33);
    ck_assert_uint_eq(c->ss, 0x2b);
}
END_TEST

START_TEST(vectors)
{
    uint32_t len;
    struct stub_context *c = stub_context(&stub);
    uint8_t *x = stub_xsave(&stub, c, &len);

    ck_assert_ptr_nonnull(x);
    ck_assert_uint_ge(len, 576);
    memset(x + 160, 0x11, 16);
    *(uint64_t *)(void *)(x + 512) |= 3;
    /* paddb xmm0, xmm0; movaps xmm9, xmm0; int3 */
    c = RUN("\x66\x0f\xfc\xc0\x44\x0f\x28\xc8\xcc");
    x = stub_xsave(&stub, c, &len);
    ck_assert_uint_eq(x[160], 0x22);
    ck_assert_uint_eq(x[160 + 9 * 16 + 15], 0x22);
}
END_TEST

START_TEST(faults)
{
    /* mov rax, [rip + 0x10000] */
    struct stub_context *c = RUN("\x48\x8b\x05\x00\x00\x01\x00");

    ck_assert_uint_eq(stub.state->signal, SIGSEGV);
    ck_assert_uint_eq(c->trap, 14);
    ck_assert_uint_eq(c->cr2, CODE + 7 + 0x10000);
    ck_assert_uint_eq(c->error & 0x17, 4);
    ck_assert_uint_eq(c->rip, CODE);
    /* mov [rip - 7], eax: the code is not writable */
    c = RUN("\x89\x05\xfa\xff\xff\xff");
    ck_assert_uint_eq(c->trap, 14);
    ck_assert_uint_eq(c->error & 0x17, 7);
    /* jmp to the data */
    c = stub_context(&stub);
    c->rbx = DATA;
    c = RUN("\xff\xe3");
    ck_assert_uint_eq(c->error & 0x17, 0x15);
    ck_assert_uint_eq(c->rip, DATA);
    /* hlt; and what else traps */
    c = RUN("\xf4");
    ck_assert_uint_eq(c->trap, 13);
    c = RUN("\x31\xc0\xf7\xf0"); /* div eax */
    ck_assert_uint_eq(stub.state->signal, SIGFPE);
    ck_assert_uint_eq(c->rip, CODE + 2);
    if (stub.tsc_faults) {
        c = RUN("\x0f\x31");
        ck_assert_uint_eq(stub.state->signal, SIGSEGV);
        ck_assert_uint_eq(c->trap, 13);
        ck_assert_uint_eq(c->rip, CODE);
    }
}
END_TEST

/* CPUID with EAX 0 and INT3: whether it faulted. */
static bool cpuid_faults(void)
{
    struct stub_context *c = stub_context(&stub);

    c->rax = 0;
    c = RUN("\x0f\xa2\xcc");
    if (stub.state->signal == SIGTRAP) {
        ck_assert_uint_eq(c->rip, CODE + 3);
        ck_assert_uint_ne(c->rax, 0);
        return false;
    }
    ck_assert_uint_eq(stub.state->signal, SIGSEGV);
    ck_assert_uint_eq(c->trap, 13);
    ck_assert_uint_eq(c->rip, CODE);
    return true;
}

START_TEST(cpuid)
{
    ck_assert(!stub.cpuid_faults && !cpuid_faults());
    for (int on = 1; on >= 0; on--) {
        stub_fault_cpuid(&stub, on);
        ck_assert(stub.cpuid_faults == (on && stub.cpuid_can_fault));
        for (int i = 0; i < 3; i++)
            ck_assert(cpuid_faults() == stub.cpuid_faults);
    }
    /* What is changed twice before the next run. */
    stub_fault_cpuid(&stub, true);
    stub_fault_cpuid(&stub, false);
    ck_assert(!cpuid_faults());
}
END_TEST

/* Whatever it asks of the kernel comes to us. */
START_TEST(system_calls)
{
    static const int numbers[] = {SYS_write,        SYS_mmap,   SYS_munmap, SYS_exit_group,
                                  SYS_rt_sigreturn, SYS_getpid, SYS_kill,   SYS_rt_sigprocmask,
                                  0x40000000,       -1};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct stub_context *c = stub_context(&stub);

        c->rax = (uint64_t)(int64_t)numbers[i];
        c->rdi = 1;
        c = RUN("\x0f\x05"); /* syscall */
        ck_assert_uint_eq(stub.state->signal, SIGSYS);
        ck_assert_uint_eq(c->rip, CODE + 2);
        ck_assert_int_eq((int32_t)c->rax, numbers[i]);
    }
    struct stub_context *c = stub_context(&stub);
    c->rax = 20;
    c = RUN("\xcd\x80"); /* int 0x80 */
    ck_assert_uint_eq(stub.state->signal, SIGSYS);
    ck_assert_uint_eq(c->rip, CODE + 2);
}
END_TEST

START_TEST(endless)
{
    struct stub_context *c = run("\xff\xc0\xeb\xfc", 4, os_now() + 2000000);

    ck_assert_uint_eq(stub.state->signal, SIGUSR2);
    ck_assert_uint_ge(c->rip, CODE);
    ck_assert_uint_le(c->rip, CODE + 2);
    /* A kick that comes first is not lost. */
    stub_kick(stub.guest.pid);
    c = run("\xff\xc0\xeb\xfc", 4, UINT64_MAX);
    ck_assert_uint_eq(stub.state->signal, SIGUSR2);
}
END_TEST

START_TEST(unmap)
{
    struct stub_context *c;

    stub_cmds(&stub)[0] = (struct stub_cmd){SYS_munmap, {DATA, STUB_PAGE}};
    ck_assert_int_eq(stub_map(&stub, 1), 0);
    c = RUN("\x50"); /* push rax */
    ck_assert_uint_eq(c->trap, 14);
    ck_assert_uint_eq(c->cr2, DATA + 0x7f8);
    /* A command that fails says so, and the next one is done. */
    stub_cmds(&stub)[0] = map_cmd(DATA + 1, PROT_READ, 0);
    stub_cmds(&stub)[1] = map_cmd(DATA, PROT_READ | PROT_WRITE, STUB_PAGE);
    ck_assert_int_eq(stub_map(&stub, 2), EINVAL);
    c = RUN("\x50\xcc");
    ck_assert_uint_eq(stub.state->signal, SIGTRAP);
}
END_TEST

/* Nothing of the program's is there. */
START_TEST(empty)
{
    struct stub_context *c = stub_context(&stub);

    c->rbx = (uint64_t)(uintptr_t)&stub;
    c = RUN("\x8a\x03"); /* mov al, [rbx] */
    ck_assert_uint_eq(c->trap, 14);
    ck_assert_uint_eq(c->cr2, (uint64_t)(uintptr_t)&stub);
    c->rbx = stub.base + STUB_CTL;
    c = RUN("\x88\x03"); /* mov [rbx], al: read-only */
    ck_assert_uint_eq(c->trap, 14);
    c->rbx = stub.base;
    c = RUN("\x88\x03");
    ck_assert_uint_eq(c->trap, 14);
}
END_TEST

/* Guest code that jumps to the stub's system calls. */
START_TEST(forged)
{
    struct stub_context *c = stub_context(&stub);

    /* The mapper's system calls are none of its. */
    for (unsigned at = 0; at < 0x600; at++)
        if (stub.mem[at] == 0x0f && stub.mem[at + 1] == 0x05) {
            uint64_t to = stub.base + at;

            c = stub_context(&stub);
            ck_assert_ptr_nonnull(c);
            c->rbx = to;
            c->rax = SYS_munmap;
            c->rdi = DATA;
            c->rsi = STUB_PAGE;
            /* Where it is told or the frame is given back, the code behind goes on. */
            memcpy(pages, "\xff\xe3", 2);
            c->rip = CODE;
            ck_assert_int_eq(stub_run(&stub, os_now() + 20000000), STUB_STOPPED);
            c = stub_context(&stub);
            ck_assert_ptr_nonnull(c);
        }
    c->rsp = DATA + 0x800;
    c = RUN("\x58\xcc"); /* still mapped */
    ck_assert_uint_eq(stub.state->signal, SIGTRAP);
}
END_TEST

/* A program that closes descriptors which are not its own: nothing goes on that nobody hears. */
START_TEST(closed)
{
    bool mapper = _i;
    siginfo_t info = {0};
    int pid = mapper ? stub.mapper.pid : stub.guest.pid;

    close(mapper ? stub.mapper.listener : stub.guest.listener);
    memcpy(pages, "\xc6\x03\x01\xeb\xfb", 5); /* mov byte [rbx], 1, for ever */
    stub_context(&stub)->rip = CODE;
    stub_context(&stub)->rbx = DATA;
    ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL), 0);
    ck_assert_int_eq(info.si_status, SIGSEGV);
    if (mapper)
        ck_assert_int_eq(stub_map(&stub, 0), ESRCH);
    else
        ck_assert_int_eq(stub_run(&stub, os_now() + 1000000000), STUB_GONE);
    ck_assert_uint_eq(pages[STUB_PAGE], 0);
    /* Not twice. */
    *(mapper ? &stub.mapper.listener : &stub.guest.listener) = dup(0);
}
END_TEST

START_TEST(killed)
{
    siginfo_t info;

    kill(stub.guest.pid, SIGKILL);
    ck_assert_int_eq(waitid(P_PID, (id_t)stub.guest.pid, &info, WEXITED | WNOWAIT | __WALL), 0);
    ck_assert_int_eq(stub_run(&stub, os_now() + 1000000000), STUB_GONE);
    ck_assert(stub.lost);
    ck_assert_int_eq(stub_run(&stub, os_now() + 1000000000), STUB_GONE);
    ck_assert_int_eq(stub_map(&stub, 0), ESRCH);
}
END_TEST

/* The children are not for the program's wait(). */
START_TEST(unseen)
{
    ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
    ck_assert_int_eq(errno, ECHILD);
}
END_TEST

static uint64_t open_fds(void)
{
    uint64_t fds = 0;

    for (int fd = 0; fd < 64; fd++)
        fds |= (uint64_t)(fcntl(fd, F_GETFD) >= 0) << fd;
    return fds;
}

/* Without descriptors for all that it takes, there is no stub, and none is left open. */
START_TEST(no_descriptors)
{
    uint64_t before = open_fds();

    for (rlim_t more = 0; more < 17; more++) {
        struct rlimit old, limit;
        struct stub s;
        int first = dup(0), err;

        close(first);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
        limit = (struct rlimit){(rlim_t)first + more, old.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        err = stub_create(&s, NULL);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        ck_assert_int_eq(err, more < 3 || (err && more < 16) ? EMFILE : 0);
        stub_kill(&s);
        stub_destroy(&s);
        ck_assert_uint_eq(open_fds(), before);
    }
}
END_TEST

/* It is where the guest has nothing, or nowhere. */
START_TEST(place)
{
    uint64_t top[512], before = open_fds();
    struct stub s;

    for (unsigned i = 0; i < 512; i++)
        top[i] = 7;
    ck_assert_int_eq(stub_create(&s, top), EADDRINUSE);
    ck_assert_uint_eq(open_fds(), before);
    for (unsigned slot = 32; slot < 160; slot += 9) {
        top[slot] = 6;
        ck_assert_int_eq(stub_create(&s, top), 0);
        ck_assert_uint_eq(s.base >> 39, slot);
        stub_kill(&s);
        stub_destroy(&s);
        top[slot] = 7;
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("shadow_stub");
    TCase *tc = tcase_create("stub");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, registers);
    tcase_add_test(tc, vectors);
    tcase_add_test(tc, faults);
    tcase_add_test(tc, cpuid);
    tcase_add_test(tc, system_calls);
    tcase_add_test(tc, endless);
    tcase_add_test(tc, unmap);
    tcase_add_test(tc, empty);
    tcase_add_test(tc, forged);
    tcase_add_loop_test(tc, closed, 0, 2);
    tcase_add_test(tc, killed);
    tcase_add_test(tc, unseen);
    tcase_add_test(tc, no_descriptors);
    tcase_add_test(tc, place);
    suite_add_tcase(s, tc);
    return s;
}

int main(void)
{
    if (!has_stubs())
        return 77;

    SRunner *sr = srunner_create(suite());
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
