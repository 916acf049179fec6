/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/shadow/stub.c: starting, stopping and feeding stubs. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backends/shadow/stub.h"
#include "core/os.h"
#include "mmu/mmu.h"

#define KICK         SIGUSR2
#define MAX_WAIT     1000000000ull /* ns: then the clock is looked at */
#define START_LIMIT  2000000000ull /* ns */
#define ANSWER_LIMIT 5000000000ull /* to a kick, by a task that has blocked signals */

#define NO_LISTENER    INT32_MIN    /* there is none yet */
#define HWCAP2_FSGS    2u           /* HWCAP2_FSGSBASE */
#define SA_WITH_RETURN 0x04000000ul /* SA_RESTORER */

/* ThreadSanitizer's runtime has reserved all that is free. */
#ifdef MMU_SANITIZE_THREAD
#define MAP_THERE MAP_FIXED
#else
#define MAP_THERE MAP_FIXED_NOREPLACE
#endif

/* Linux 6.6: whoever is woken goes on on this CPU. */
#define NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define NOTIF_SYNC_WAKE 1ull

/* The page that the stub reads. */
struct stub_ctl {
    uint32_t ncmd;
    int32_t owner;       /* a process */
    uint64_t no_signals; /* a mask */
    stack_t altstack;
    struct sock_fprog guest_prog, mapper_prog;
    struct stub_cmd cmd[STUB_CMDS];
    struct sock_filter guest_filter[17], mapper_filter[7];
};
_Static_assert(sizeof(struct stub_ctl) <= STUB_CTL_PAGES * STUB_PAGE, "room for it");

#define IS_AT(type, member, at) _Static_assert(offsetof(struct type, member) == (at), #member)
#define CTL_IS(member, at)      IS_AT(stub_ctl, member, (at)-STUB_CTL)
#define STATE_IS(member, at)    IS_AT(stub_state, member, (at)-STUB_STATE)
CTL_IS(ncmd, CTL_NCMD);
CTL_IS(owner, CTL_OWNER);
CTL_IS(no_signals, CTL_NO_SIGNALS);
CTL_IS(altstack, CTL_ALTSTACK);
CTL_IS(guest_prog, CTL_GUEST_PROG);
CTL_IS(mapper_prog, CTL_MAPPER_PROG);
CTL_IS(cmd, CTL_CMD);
_Static_assert(sizeof(struct stub_cmd) == STUB_CMD_SIZE, "its size");
STATE_IS(fs_base, STATE_FS_BASE);
STATE_IS(gs_base, STATE_GS_BASE);
STATE_IS(ds, STATE_DS);
STATE_IS(es, STATE_ES);
STATE_IS(fs, STATE_FS);
STATE_IS(gs, STATE_GS);
STATE_IS(context, STATE_CONTEXT);
STATE_IS(error, STATE_ERROR);
STATE_IS(signal, STATE_SIGNAL);
STATE_IS(guest_listener, STATE_GUEST_LISTENER);
STATE_IS(mapper_listener, STATE_MAPPER_LISTENER);
STATE_IS(guest_pid, STATE_GUEST_PID);
STATE_IS(tsc_error, STATE_TSC_ERROR);
STATE_IS(cpuid_error, STATE_CPUID_ERROR);
STATE_IS(cpuid, STATE_CPUID);
STATE_IS(info, STATE_INFO);

/* The code, position independent, and places in it. [stub_text.S] */
extern const uint8_t vmm_stub_text[], vmm_stub_handler[], vmm_stub_told[], vmm_stub_cpuid[],
    vmm_stub_returned[], vmm_stub_text_end[];

/* ---- what the tasks may call ---- */

#define LOAD(what)       BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(what))
#define DATA(field)      offsetof(struct seccomp_data, field)
#define JEQ(value, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), t, f)
#define RETURN(value)    BPF_STMT(BPF_RET | BPF_K, value)

static uint64_t place(const struct stub *s, const uint8_t *in_text)
{
    return s->base + STUB_TEXT + (uint64_t)(in_text - vmm_stub_text);
}

/* The stub's text does not go over a multiple of 4 GiB. */
static void write_filters(const struct stub *s)
{
    struct stub_ctl *c = s->ctl;
    uint64_t told = place(s, vmm_stub_told), returned = place(s, vmm_stub_returned);
    uint64_t cpuid = place(s, vmm_stub_cpuid);
    const struct sock_filter guest[] = {
        LOAD(DATA(arch)),
        JEQ(AUDIT_ARCH_X86_64, 0, 13),
        LOAD(DATA(instruction_pointer) + 4),
        JEQ(s->base >> 32, 0, 11),
        LOAD(DATA(instruction_pointer)),
        JEQ(told, 8, 0),
        JEQ(returned, 0, 2),
        LOAD(DATA(nr)),
        JEQ(SYS_rt_sigreturn, 7, 6),
        JEQ(cpuid, 0, 5),
        LOAD(DATA(nr)),
        JEQ(SYS_arch_prctl, 0, 3),
        LOAD(DATA(args[0])),
        JEQ(ARCH_SET_CPUID, 2, 1),
        RETURN(SECCOMP_RET_USER_NOTIF),
        RETURN(SECCOMP_RET_TRAP),
        RETURN(SECCOMP_RET_ALLOW),
    };
    const struct sock_filter mapper[] = {
        LOAD(DATA(nr)),
        JEQ(STUB_TELL, 3, 0),
        JEQ(SYS_mmap, 3, 0),
        JEQ(SYS_munmap, 2, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        RETURN(SECCOMP_RET_USER_NOTIF),
        RETURN(SECCOMP_RET_ALLOW),
    };

    _Static_assert(sizeof(guest) <= sizeof(c->guest_filter), "room");
    _Static_assert(sizeof(mapper) <= sizeof(c->mapper_filter), "room");
    memcpy(c->guest_filter, guest, sizeof(guest));
    memcpy(c->mapper_filter, mapper, sizeof(mapper));
    /* Pointers are those of the stub. */
    c->guest_prog = (struct sock_fprog){
        sizeof(guest) / sizeof(guest[0]),
        (struct sock_filter *)(uintptr_t)(s->base + STUB_CTL +
                                          offsetof(struct stub_ctl, guest_filter))};
    c->mapper_prog = (struct sock_fprog){
        sizeof(mapper) / sizeof(mapper[0]),
        (struct sock_filter *)(uintptr_t)(s->base + STUB_CTL +
                                          offsetof(struct stub_ctl, mapper_filter))};
}

/* ---- starting ---- */

/* The new process begins with this one's memory. */
static bool is_vacant(uint64_t base)
{
    void *want = (void *)(uintptr_t)base;
    void *p;

    if (MAP_THERE == MAP_FIXED)
        return true;
    p = mmap(want, STUB_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_THERE, -1, 0);
    if (p == MAP_FAILED)
        return false;
    munmap(p, STUB_SIZE);
    return p == want;
}

/* From 16 TiB to 80 TiB programs seldom have anything; all of it within 1 MiB. */
static bool choose_base(struct stub *s, const uint64_t *top)
{
    unsigned slot[128], n = 0;

    for (unsigned i = 32; i < 160; i++)
        if (!top || !(top[i] & 1))
            slot[n++] = i;
    while (n) {
        uint64_t random;
        unsigned i;

        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            random = os_now() * 0x9e3779b97f4a7c15ull;
        i = (unsigned)(random >> 39) % n;
        s->base = (uint64_t)slot[i] << 39 | (random & 0x7ffff00000);
        if (is_vacant(s->base))
            return true;
        slot[i] = slot[--n];
    }
    return false;
}

/* Pages that both sides have, and where they will be there. */
static int make_pages(struct stub *s)
{
    void *p;

    s->fd = memfd_create("vmm-stub", MFD_CLOEXEC);
    if (s->fd < 0)
        return errno;
    if (ftruncate(s->fd, STUB_SIZE))
        return errno;
    p = mmap(NULL, STUB_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (p == MAP_FAILED)
        return errno;
    s->mem = p;
    s->ctl = (void *)(s->mem + STUB_CTL);
    s->state = (void *)(s->mem + STUB_STATE);
    memcpy(s->mem + STUB_TEXT, vmm_stub_text, (size_t)(vmm_stub_text_end - vmm_stub_text));
    s->ctl->altstack = (stack_t){.ss_sp = (void *)(uintptr_t)(s->base + STUB_ALTSTACK),
                                 .ss_flags = (int)(1u << 31), /* SS_AUTODISARM */
                                 .ss_size = STUB_STACK};
    s->ctl->owner = getpid();
    atomic_init(&s->state->guest_listener, NO_LISTENER);
    atomic_init(&s->state->mapper_listener, NO_LISTENER);
    write_filters(s);
    return 0;
}

/* ---- the new process, until it is in the stub's text ---- */

#if defined(__clang__)
#define BARE __attribute__((no_sanitize("address", "thread", "undefined")))
#else
#define BARE __attribute__((no_sanitize_address, no_sanitize_thread, no_sanitize_undefined))
#endif

/* Neither errno nor anything else of the C library's may be touched. */
BARE static long call(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "+a"(nr)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return nr;
}

/* struct sigaction of the kernel. */
struct action {
    uint64_t handler, flags, restorer, mask;
};

BARE static bool map_own(const struct stub *s, uint64_t at, size_t len, int prot)
{
    long want = (long)(s->base + at);

    return call(SYS_mmap, want, (long)len, prot, MAP_SHARED | MAP_THERE, s->fd, (long)at) == want;
}

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

/* The kernel writes to what the C library has registered for the thread, which will be gone. */
BARE static bool drop_rseq(void)
{
    uint64_t thread;

    if (!&__rseq_size || !__rseq_size)
        return true;
    __asm__("mov %%fs:0, %0" : "=r"(thread));
    for (long len = 32; len <= 64; len += 4)
        if (!call(SYS_rseq, (long)thread + __rseq_offset, len, 1, 0x53053053, 0, 0))
            return true;
    return false;
}

BARE static void become_stub(const struct stub *s, long parent)
{
    static const char name[] = "vmm-stub";
    struct action a = {.handler = place(s, vmm_stub_handler),
                       .flags = SA_SIGINFO | SA_ONSTACK | SA_WITH_RETURN,
                       .restorer = place(s, vmm_stub_returned),
                       .mask = ~0ull};

    if (call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0) ||
        call(SYS_getppid, 0, 0, 0, 0, 0, 0) != parent ||
        call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0, 0) ||
        call(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0) ||
        call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0) || !drop_rseq() ||
        !map_own(s, STUB_TEXT, STUB_CTL, PROT_READ | PROT_EXEC) ||
        !map_own(s, STUB_CTL, STUB_STATE - STUB_CTL, PROT_READ) ||
        !map_own(s, STUB_STATE, STUB_SIZE - STUB_STATE, PROT_READ | PROT_WRITE))
        return;
    for (long sig = 1; sig <= 64; sig++)
        call(SYS_rt_sigaction, sig, (long)&a, 0, 8, 0, 0); /* KILL and STOP refuse */
    __asm__ volatile("jmp *%0" ::"r"(place(s, vmm_stub_text)));
}

/* A fork without the C library's: the copy touches nothing of it. */
BARE static long start_process(struct stub *s)
{
    uint64_t all = ~0ull, old;
    long parent = call(SYS_getpid, 0, 0, 0, 0, 0, 0), pid;

    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&old, 8, 0, 0);
    pid = call(SYS_clone, CLONE_FILES, 0, 0, 0, 0, 0);
    if (!pid) {
        become_stub(s, parent);
        call(SYS_exit_group, 1, 0, 0, 0, 0, 0);
    }
    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&old, 0, 8, 0, 0);
    return pid;
}

static void pause_ns(long ns)
{
    struct timespec t = {.tv_nsec = ns};

    nanosleep(&t, NULL);
}

static bool has_died(int pid)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) || info.si_pid;
}

/* ---- how the tasks tell ---- */

/* Takes what a task tells. */
static bool receive(struct stub_task *t)
{
    struct seccomp_notif n;

    do
        memset(&n, 0, sizeof(n));
    while (ioctl(t->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) && errno == EINTR);
    t->notice = n.id;
    return n.id;
}

/* Lets it go on. */
static bool answer(struct stub_task *t)
{
    struct seccomp_notif_resp r = {.id = t->notice};

    t->notice = 0;
    return !ioctl(t->listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

/* Waits for `t` to tell, `ns` at most: 1, 0: it has not, or -1: it never will. */
static int wait_for(const struct stub_task *t, uint64_t ns)
{
    struct pollfd p = {.fd = t->listener, .events = POLLIN};
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000),
                            .tv_nsec = (long)(ns % 1000000000)};
    int n = ppoll(&p, 1, &time, NULL);

    if (n > 0)
        return p.revents & POLLIN ? 1 : -1;
    return n < 0 && errno != EINTR ? -1 : 0;
}

/* Waits until it has got there for the first time. 0 or an errno. */
static int wait_started(const struct stub *s, struct stub_task *t, const _Atomic int32_t *listener)
{
    uint64_t limit = os_now() + START_LIMIT, sync = NOTIF_SYNC_WAKE;
    int told;

    while (atomic_load(listener) == NO_LISTENER) {
        if (has_died(s->mapper.pid))
            return ECHILD;
        if (os_now() > limit)
            return ETIMEDOUT;
        pause_ns(20000);
    }
    t->listener = atomic_load(listener);
    if (t->listener < 0)
        return -t->listener;
    ioctl(t->listener, NOTIF_SET_FLAGS, sync); /* older kernels are slower */
    do
        told = wait_for(t, START_LIMIT);
    while (!told && os_now() < limit);
    if (told <= 0)
        return ETIMEDOUT;
    return receive(t) ? 0 : EIO;
}

int stub_create(struct stub *s, const uint64_t *top)
{
    struct rlimit cpu;
    int err;

    *s = (struct stub){.fd = -1, .mapper.listener = -1, .guest.listener = -1};
    /* A limit of CPU time is each process's own, and its signal may not be noticed. */
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGS) || getrlimit(RLIMIT_CPU, &cpu) ||
        cpu.rlim_max != RLIM_INFINITY)
        return ENOTSUP;
    err = choose_base(s, top) ? make_pages(s) : EADDRINUSE;
    if (!err) {
        long pid = start_process(s);

        if (pid < 0)
            err = (int)-pid;
        else
            s->mapper.pid = (int)pid;
    }
    if (!err)
        err = wait_started(s, &s->mapper, &s->state->mapper_listener);
    if (!err)
        err = wait_started(s, &s->guest, &s->state->guest_listener);
    s->guest.pid = s->mapper.pid ? s->state->guest_pid : 0;
    /* Who cannot be stopped must not run. */
    if (!err && syscall(SYS_tgkill, s->guest.pid, s->guest.pid, KICK))
        err = errno;
    if (!err && stub_run(s, UINT64_MAX) != STUB_STOPPED)
        err = EIO;
    if (err) {
        stub_kill(s);
        stub_destroy(s);
        return err;
    }
    s->tsc_faults = !s->state->tsc_error;
    s->cpuid_can_fault = !s->state->cpuid_error;
    return 0;
}

static bool kill_task(int pid)
{
    return pid <= 0 || !syscall(SYS_kill, pid, SIGKILL) || errno == ESRCH;
}

/* Where that is not allowed (any more): a task that has no code does not go on. */
static bool starve(struct stub *s)
{
    int told = 0;

    if (!s->mapper.notice)
        return false;
    s->ctl->cmd[0] = (struct stub_cmd){SYS_munmap, {0, STUB_HIGH}};
    s->ctl->ncmd = 1;
    if (!answer(&s->mapper))
        return false;
    for (uint64_t limit = os_now() + ANSWER_LIMIT; !told && os_now() < limit;)
        told = wait_for(&s->mapper, MAX_WAIT / 10);
    return told < 0 && (!s->guest.notice || answer(&s->guest));
}

void stub_kill(struct stub *s)
{
    int saved = errno;
    bool guest, mapper;

    if (s->dying)
        return;
    s->lost = true;
    /* The listener stays open until they are gone: without it the guest task would go on. */
    guest = kill_task(s->guest.pid);
    mapper = kill_task(s->mapper.pid);
    s->dying = (guest && mapper) || starve(s);
    errno = saved;
}

static void reap(int pid)
{
    int saved = errno;

    while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        continue;
    errno = saved;
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Its task has ended; one that has never run guest code may have opened one that nobody knows. */
static void close_listener(const struct stub_task *t, const _Atomic int32_t *listener)
{
    close_fd(t->listener == -1 ? atomic_load(listener) : t->listener);
}

void stub_destroy(struct stub *s)
{
    if (s->dying)
        reap(s->mapper.pid);
    if (s->mapper.pid && !s->guest.pid) { /* it had just been started */
        s->guest.pid = s->state->guest_pid;
        s->dying &= kill_task(s->guest.pid);
    }
    if (s->dying)
        reap(s->guest.pid);
    if (s->state) {
        close_listener(&s->mapper, &s->state->mapper_listener);
        close_listener(&s->guest, &s->state->guest_listener);
    }
    close_fd(s->fd);
    if (s->mem)
        munmap(s->mem, STUB_SIZE);
    *s = (struct stub){.fd = -1, .mapper.listener = -1, .guest.listener = -1};
}

/* ---- the mapper ---- */

struct stub_cmd *stub_cmds(struct stub *s)
{
    return s->ctl->cmd;
}

int stub_map(struct stub *s, unsigned n)
{
    int saved = errno, told = -1;

    s->ctl->ncmd = n;
    if (!s->lost && answer(&s->mapper)) {
        do
            told = wait_for(&s->mapper, MAX_WAIT);
        while (!told);
    }
    if (told <= 0 || !receive(&s->mapper))
        stub_kill(s);
    errno = saved;
    return s->lost ? ESRCH : (int)-s->state->error;
}

/* ---- the guest task ---- */

struct stub_context *stub_context(const struct stub *s)
{
    uint64_t at = s->state->context - (s->base + STUB_ALTSTACK);

    if (at > STUB_STACK - sizeof(struct stub_context) || (at & 7))
        return NULL;
    return (void *)(s->mem + STUB_ALTSTACK + at);
}

const siginfo_t *stub_info(const struct stub *s)
{
    uint64_t at = s->state->info - (s->base + STUB_ALTSTACK);

    if (at > STUB_STACK - sizeof(siginfo_t) || (at & 7))
        return NULL;
    return (const void *)(s->mem + STUB_ALTSTACK + at);
}

uint8_t *stub_xsave(const struct stub *s, const struct stub_context *c, uint32_t *len)
{
    uint64_t at = c->xsave - (s->base + STUB_ALTSTACK);

    if (at >= STUB_STACK - 576 || (at & 63))
        return NULL;
    *len = (uint32_t)(STUB_STACK - at);
    return s->mem + STUB_ALTSTACK + at;
}

/* Whether the guest task has blocked the signal that should stop it: its own doing. */
static bool is_deaf(const struct stub *s)
{
    char path[40], text[2048], *line;
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/status", s->guest.pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* nobody knows */
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    line = strstr(text, "SigBlk:");
    return line && (strtoull(line + 7, NULL, 16) >> (KICK - 1) & 1);
}

void stub_fault_cpuid(struct stub *s, bool on)
{
    if (!s->cpuid_can_fault || on == s->cpuid_faults)
        return;
    s->cpuid_faults = on;
    s->state->cpuid = on ? 1 : 2;
}

void stub_kick(int guest)
{
    int saved = errno;

    if (guest > 0)
        syscall(SYS_tgkill, guest, guest, KICK);
    errno = saved;
}

/* Until the guest task has stopped; false: it never will. */
static bool wait_stopped(struct stub *s, uint64_t deadline)
{
    uint64_t kicked = 0;

    for (;;) {
        uint64_t now = os_now(), ns = MAX_WAIT;
        int told;

        if (kicked)
            ns = MAX_WAIT / 10;
        else if (deadline <= now)
            ns = 0;
        else if (deadline - now < ns)
            ns = deadline - now;
        told = wait_for(&s->guest, ns);
        if (told)
            return told > 0;
        now = os_now();
        if (now < deadline && !kicked)
            continue;
        stub_kick(s->guest.pid);
        if (!kicked)
            kicked = now;
        else if (now - kicked > ANSWER_LIMIT && is_deaf(s))
            return false;
    }
}

enum stub_end stub_run(struct stub *s, uint64_t deadline)
{
    enum stub_end end = STUB_GONE;
    int saved = errno;

    if (!s->lost && answer(&s->guest))
        end = wait_stopped(s, deadline) && receive(&s->guest) ? STUB_STOPPED : STUB_LOST;
    if (end != STUB_STOPPED)
        stub_kill(s);
    errno = saved;
    return end;
}
