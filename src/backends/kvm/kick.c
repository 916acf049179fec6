/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/kvm/kick.c: KVM_RUN and how other threads, timers and signals get a vCPU out of it. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "backends/kvm/kvm.h"

/*
 * The thread blocks SIGURG while it is in the run loop; KVM_SET_SIGNAL_MASK unblocks it inside of
 * KVM_RUN only, so it never reaches a handler. SIGURG is ignored by default, so one that came
 * astray would do no harm either. Other signals interrupt KVM_RUN as they would any system call.
 *
 * A request is stored in vcpu->requests first. Then immediate_exit is set, and if the thread is in
 * KVM_RUN, or has looked at the requests before them and is on its way there, the signal is sent.
 * The thread clears immediate_exit, stores IN_RUN and only then looks at the requests, so it sees
 * either them or the signal or immediate_exit. Who sends moves IN_RUN to SENDING and then to SENT;
 * the thread does not leave this state behind before it has taken the signal.
 *
 * The program may use SIGURG too. Ours carry the vCPU's address; one that does not is given back
 * when the run loop is left.
 */
enum { OUT_OF_RUN, IN_RUN, SENDING, SENT };

#define KICK_SIGNAL SIGURG
#define KERNEL_SIGSET                                                                              \
    sizeof(uint64_t) /* the kernel's sigset_t is the first part of the library's */

static void kick_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, KICK_SIGNAL);
}

/* Without the value, a kick could not be told from a SIGURG of the program; but better so than not
 * at all. */
static void send_kick(struct kvm_vcpu *kv)
{
    siginfo_t info = {.si_signo = KICK_SIGNAL, .si_code = SI_QUEUE};
    int tid = atomic_load(&kv->tid);

    info.si_pid = getpid();
    info.si_value.sival_ptr = kv;
    if (syscall(SYS_rt_tgsigqueueinfo, info.si_pid, tid, KICK_SIGNAL, &info))
        syscall(SYS_tgkill, info.si_pid, tid, KICK_SIGNAL);
}

void kvm_wake(struct vcpu *vcpu)
{
    struct kvm_vcpu *kv = vcpu->backend_data;
    uint32_t in = IN_RUN;
    int saved = errno;

    if (!kv)
        return;
    x86_wake(kv->soft.cpu);
    __atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_compare_exchange_strong(&kv->in_run, &in, SENDING)) {
        send_kick(kv);
        atomic_store(&kv->in_run, SENT);
    }
    errno = saved;
}

/* ---- timer ---- */

static int timer_make(struct kvm_vcpu *kv)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL};
    timer_t timer;

    event.sigev_value.sival_ptr = kv;
    event._sigev_un._tid = atomic_load(&kv->tid);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) < 0)
        return kvm_fail(kv->vcpu->vm, "vcpu_run", -errno, "timer_create");
    kv->timer = timer;
    kv->has_timer = true;
    kv->timer_armed = UINT64_MAX;
    return 0;
}

static void timer_drop(struct kvm_vcpu *kv)
{
    if (kv->has_timer)
        timer_delete(kv->timer);
    kv->has_timer = false;
    kv->timer_armed = UINT64_MAX;
}

static void timer_set(struct kvm_vcpu *kv, uint64_t deadline)
{
    struct itimerspec spec = {0};

    if (deadline != UINT64_MAX) {
        if (!deadline)
            deadline = 1; /* 0 would disarm */
        spec.it_value.tv_sec = (time_t)(deadline / 1000000000u);
        spec.it_value.tv_nsec = (long)(deadline % 1000000000u);
    }
    timer_settime(kv->timer, TIMER_ABSTIME, &spec, NULL);
    kv->timer_armed = deadline;
}

/* Makes sure that KVM_RUN ends at `deadline`. A timer that is too early stays: it will find nothing
 * to do, which is cheaper than to set it at each change. */
static int timer_want(struct kvm_vcpu *kv, uint64_t deadline)
{
    if (deadline >= kv->timer_armed)
        return 0;
    if (!kv->has_timer) {
        int err = timer_make(kv);

        if (err)
            return err;
    }
    timer_set(kv, deadline);
    return 0;
}

/* ---- signals ---- */

/* The kernel forgets who has sent a signal when too many are pending. */
static bool is_ours(const struct kvm_vcpu *kv, const siginfo_t *info)
{
    if (info->si_code == SI_QUEUE || info->si_code == SI_TIMER)
        return info->si_value.sival_ptr == kv;
    return info->si_code == SI_USER && !info->si_pid;
}

/* Takes all pending signals of ours. The C library's function would change what it returns. */
static void drain(struct kvm_vcpu *kv)
{
    const struct timespec now = {0};
    siginfo_t info;
    sigset_t set;

    kick_set(&set);
    while (syscall(SYS_rt_sigtimedwait, &set, &info, &now, KERNEL_SIGSET) == KICK_SIGNAL) {
        if (is_ours(kv, &info))
            continue;
        kv->foreign_signal = true;
        kv->foreign = info;
    }
    if (kv->timer_armed != UINT64_MAX && kv->timer_armed <= os_now())
        kv->timer_armed = UINT64_MAX;
}

int kvm_kick_begin(struct kvm_vcpu *kv)
{
    struct { /* struct kvm_signal_mask with room for its set */
        uint32_t len;
        uint64_t set;
    } __attribute__((packed)) mask = {.len = sizeof(mask.set)};
    int tid = (int)syscall(SYS_gettid), r;
    sigset_t set, inside;

    if (tid != atomic_load(&kv->tid)) {
        timer_drop(kv);
        atomic_store(&kv->tid, tid);
    }
    kick_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, &kv->outer_mask);
    inside = kv->outer_mask;
    sigdelset(&inside, KICK_SIGNAL);
    memcpy(&mask.set, &inside, sizeof(mask.set));
    if (kv->mask_set && kv->mask == mask.set)
        return 0;
    r = kvm_ioctl_p(kv->fd, KVM_SET_SIGNAL_MASK, &mask);
    if (r < 0) {
        kvm_kick_end(kv);
        return kvm_fail(kv->vcpu->vm, "vcpu_run", r, "KVM_SET_SIGNAL_MASK");
    }
    kv->mask = mask.set;
    kv->mask_set = true;
    return 0;
}

/* A signal for the process that this thread has blocked is to be taken by another one. */
static void give_back(struct kvm_vcpu *kv)
{
    bool blocked = sigismember(&kv->outer_mask, KICK_SIGNAL);
    siginfo_t *info = &kv->foreign;
    pid_t pid = getpid();

    kv->foreign_signal = false;
    if (blocked && info->si_code != SI_TKILL)
        syscall(SYS_rt_sigqueueinfo, pid, KICK_SIGNAL, info);
    else if (syscall(SYS_rt_tgsigqueueinfo, pid, atomic_load(&kv->tid), KICK_SIGNAL, info))
        syscall(SYS_rt_sigqueueinfo, pid, KICK_SIGNAL, info);
}

/* Unblocks instead of restoring: what a callback has changed of the mask stays. */
void kvm_kick_end(struct kvm_vcpu *kv)
{
    sigset_t set;

    if (kv->timer_armed != UINT64_MAX) {
        timer_set(kv, UINT64_MAX);
        drain(kv);
    }
    if (kv->foreign_signal)
        give_back(kv);
    if (!sigismember(&kv->outer_mask, KICK_SIGNAL)) {
        kick_set(&set);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
}

/* ---- KVM_RUN ---- */

/* Out of KVM_RUN; true: a signal of ours has been sent, and is consumed. */
static void left(struct kvm_vcpu *kv, bool interrupted)
{
    uint32_t in = IN_RUN;

    if (!atomic_compare_exchange_strong(&kv->in_run, &in, OUT_OF_RUN)) {
        while (atomic_load(&kv->in_run) != SENT)
            os_yield();
        atomic_store(&kv->in_run, OUT_OF_RUN);
        interrupted = true;
    }
    if (interrupted)
        drain(kv);
}

int kvm_enter(struct kvm_vcpu *kv)
{
    struct vcpu *vcpu = kv->vcpu;
    int r;

    r = timer_want(kv, core_timers_begin(vcpu));
    if (r) {
        core_timers_end(vcpu);
        return -ENOMEM;
    }
    __atomic_store_n(&kv->run->immediate_exit, 0, __ATOMIC_RELAXED);
    atomic_store(&kv->in_run, IN_RUN);
    if (atomic_load(&vcpu->requests)) {
        left(kv, false);
        core_timers_end(vcpu);
        return KVM_ENTER_NOT;
    }
    r = ioctl(kv->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    left(kv, r == -EINTR);
    core_timers_end(vcpu);
    return r == -EINTR || r == -EAGAIN ? KVM_ENTER_INTERRUPTED : r;
}

#define BOUND 10000000u /* ns */

int kvm_enter_bounded(struct kvm_vcpu *kv)
{
    int r = timer_want(kv, os_now() + BOUND);

    if (r)
        return -ENOMEM;
    __atomic_store_n(&kv->run->immediate_exit, 0, __ATOMIC_RELAXED);
    atomic_store(&kv->in_run, IN_RUN);
    r = ioctl(kv->fd, KVM_RUN, 0) < 0 ? -errno : 0;
    left(kv, r == -EINTR);
    return r == -EINTR || r == -EAGAIN ? KVM_ENTER_INTERRUPTED : r;
}

void kvm_kick_fini(struct kvm_vcpu *kv)
{
    timer_drop(kv);
}
