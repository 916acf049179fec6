/* SPDX-License-Identifier: BSD-2-Clause */
/* threads.c: a scheduler: one ring of threads, and CPUs that take the next one that can run. */
#include "threads.h"

#include "../../examples/type1/host.h"
#include "cpus.h"

#define STACK_PAGES 32u

/* switch.S knows no more than `rsp` at 0. */
struct thread {
    uint64_t rsp;
    struct thread *next; /* in the ring */
    void (*run)(void *arg);
    void *arg, *stack, *slot;
    unsigned preempt; /* not 0: it keeps its CPU */
    bool running, idle, killed;
    _Atomic uint32_t over;
    const _Atomic uint32_t *word; /* it sleeps while this is `seen` and the deadline not reached */
    uint32_t seen;
    bool sleeps;
    uint64_t deadline;
};

void thread_switch(struct thread *from, struct thread *to);
void thread_begin(void); /* switch.S: calls thread_main */
void thread_main(void);

static struct thread *ring, first;
static atomic_flag ring_lock = ATOMIC_FLAG_INIT, page_lock = ATOMIC_FLAG_INIT;
static struct vmm_host_ops base; /* those of the machine with one thread */

/* ---- locks that interrupts respect ---- */

static uint64_t lock(atomic_flag *l)
{
    uint64_t flags = irq_off();

    while (atomic_flag_test_and_set_explicit(l, memory_order_acquire))
        __builtin_ia32_pause();
    return flags;
}

static void unlock(atomic_flag *l, uint64_t flags)
{
    atomic_flag_clear_explicit(l, memory_order_release);
    irq_restore(flags);
}

/* ---- scheduling ---- */

static bool can_run(struct thread *t)
{
    if (t->running || t->idle || t->over || t->killed)
        return false;
    if (!t->sleeps)
        return true;
    if ((t->word && atomic_load(t->word) != t->seen) || thread_now() >= t->deadline)
        t->sleeps = false;
    return !t->sleeps;
}

/* The next in the ring, else the same one, else the CPU's idle one. With the lock of the ring. */
static struct thread *choose(struct cpu *cpu)
{
    struct thread *now = cpu->current, *t = now->next;

    now->running = false;
    for (; t != now; t = t->next)
        if (can_run(t))
            return t;
    return can_run(now) ? now : cpu->idle;
}

static void schedule(void)
{
    uint64_t flags = lock(&ring_lock);
    struct cpu *cpu = this_cpu();
    struct thread *from = cpu->current, *to = choose(cpu);

    cpu->resched = 0;
    to->running = true;
    if (to != from) {
        cpu->current = to;
        thread_switch(from, to); /* comes back on any CPU, with the lock */
    }
    unlock(&ring_lock, flags);
}

/* Begins here, with the lock of the ring. */
void thread_main(void)
{
    struct thread *t = current_thread();

    unlock(&ring_lock, EFLAGS_IF);
    t->run(t->arg);
    thread_exit();
}

_Noreturn void thread_exit(void)
{
    struct thread *t = current_thread();

    t->preempt = 0;
    atomic_store(&t->over, 1);
    for (;;) {
        schedule();
        __asm__ volatile("sti");
    }
}

/* The clock's tick and kicks, with interrupts off. */
void threads_interrupt(void)
{
    if (current_thread()->preempt)
        this_cpu()->resched = 1;
    else
        schedule();
}

void thread_yield(void)
{
    if (!current_thread()->preempt)
        schedule();
}

void thread_wait(const _Atomic uint32_t *word, uint32_t seen, uint64_t deadline)
{
    struct thread *t = current_thread();
    uint64_t flags;

    if (t->preempt)
        return; /* for no reason, as waits may end */
    flags = irq_off();
    t->word = word;
    t->seen = seen;
    t->deadline = deadline;
    t->sleeps = true;
    schedule();
    irq_restore(flags);
}

uint64_t thread_now(void)
{
    return base.now(base.ctx);
}

static void idle(void *arg)
{
    (void)arg;
    for (;;) {
        schedule();
        __asm__ volatile("sti; hlt");
    }
}

/* ---- threads ---- */

static void ring_add(struct thread *t)
{
    uint64_t flags = lock(&ring_lock);

    t->next = ring->next;
    ring->next = t;
    unlock(&ring_lock, flags);
}

static void release(struct thread *t)
{
    uint64_t flags = lock(&ring_lock);
    struct thread *before = ring;

    while (before->next != t)
        before = before->next;
    before->next = t->next;
    unlock(&ring_lock, flags);
    host_ops.pages_free(NULL, t->stack, STACK_PAGES);
}

struct thread *thread_start(void (*run)(void *arg), void *arg)
{
    uint8_t *stack = host_ops.pages_alloc(NULL, STACK_PAGES);
    struct thread *t = (struct thread *)(void *)stack;
    uint64_t *sp = (uint64_t *)(void *)(stack + STACK_PAGES * 4096);

    if (!stack)
        return NULL;
    *t = (struct thread){.run = run, .arg = arg, .stack = stack};
    *--sp = 0;
    *--sp = (uintptr_t)thread_begin;
    sp -= 6; /* the registers that thread_switch pops */
    t->rsp = (uintptr_t)sp;
    ring_add(t);
    return t;
}

static bool wait_until_off(struct thread *t)
{
    uint64_t limit = thread_now() + 1000000000;

    while (__atomic_load_n(&t->running, __ATOMIC_ACQUIRE)) {
        if (thread_now() > limit)
            return false;
        thread_yield();
    }
    return true;
}

void thread_join(struct thread *t)
{
    while (!atomic_load(&t->over))
        thread_wait(&t->over, 0, UINT64_MAX);
    wait_until_off(t);
    release(t);
}

static struct thread *other(void)
{
    struct thread *me = current_thread();

    for (struct thread *t = me->next; t != me; t = t->next)
        if (!t->idle && t != &first)
            return t;
    return NULL;
}

bool threads_end_others(void)
{
    struct thread *t;

    while ((t = other())) {
        t->killed = true;
        if (!wait_until_off(t))
            return false;
        release(t);
    }
    return true;
}

bool thread_is_first(void)
{
    return current_thread() == &first;
}

/* ---- what the library asks of its host ---- */

static void preempt_off(void *ctx)
{
    (void)ctx;
    current_thread()->preempt++;
    __asm__ volatile("" ::: "memory");
}

static void preempt_on(void *ctx)
{
    (void)ctx;
    __asm__ volatile("" ::: "memory");
    if (!--current_thread()->preempt && this_cpu_resched() && irq_is_on())
        schedule();
}

static void **slot(void *ctx)
{
    (void)ctx;
    return &current_thread()->slot;
}

static void yield(void *ctx)
{
    (void)ctx;
    thread_yield();
}

static void wait(void *ctx, const void *word, uint32_t seen, uint64_t deadline)
{
    (void)ctx;
    thread_wait(word, seen, deadline);
}

/* Each tick looks at the words. */
static void wake(void *ctx, const void *word)
{
    (void)ctx;
    (void)word;
}

static void *pages_alloc(void *ctx, size_t n)
{
    uint64_t flags = lock(&page_lock);
    void *pages = base.pages_alloc(ctx, n);

    unlock(&page_lock, flags);
    return pages;
}

static void pages_free(void *ctx, void *pages, size_t n)
{
    uint64_t flags = lock(&page_lock);

    base.pages_free(ctx, pages, n);
    unlock(&page_lock, flags);
}

/* From the same pages. */
static int code_alloc(void *ctx, size_t len, void **rw, void **rx)
{
    uint64_t flags = lock(&page_lock);
    int err = base.code_alloc(ctx, len, rw, rx);

    unlock(&page_lock, flags);
    return err;
}

static void code_free(void *ctx, void *rw, void *rx, size_t len)
{
    uint64_t flags = lock(&page_lock);

    base.code_free(ctx, rw, rx, len);
    unlock(&page_lock, flags);
}

struct thread *threads_idle(void)
{
    struct thread *t = thread_start(idle, NULL);

    if (t)
        t->idle = true;
    return t;
}

void threads_be_idle(void)
{
    current_thread()->running = true;
    idle(NULL);
    __builtin_unreachable();
}

void threads_init(uint32_t ncpus, bool nmi)
{
    base = host_ops;
    host_ops.pages_alloc = pages_alloc;
    host_ops.pages_free = pages_free;
    host_ops.code_alloc = code_alloc;
    host_ops.code_free = code_free;
    host_ops.preempt_off = preempt_off;
    host_ops.preempt_on = preempt_on;
    host_ops.thread_slot = slot;
    host_ops.yield = yield;
    host_ops.wait = wait;
    host_ops.wake = wake;
    first.running = true;
    first.next = ring = &first;
    cpus_init(ncpus, nmi, &first);
}
