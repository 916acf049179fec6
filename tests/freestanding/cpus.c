/* SPDX-License-Identifier: BSD-2-Clause */
/* cpus.c: several CPUs by their local APICs: start, clocks, calls and kicks of each other. */
#include "cpus.h"

#include "../../examples/type1/host.h"

#define MAX_CPUS 4u
#define APIC     0xfee00000u
#define TICK     50000u /* instructions in Bochs; with host_ops.now 0.25 ms */

#define VECTOR_TICK 0x40u
#define VECTOR_CALL 0x41u
#define VECTOR_KICK 0x42u

/* switch.S */
extern uint8_t ap_code[], ap_code_end[];
extern uint64_t ap_stack;
_Noreturn void ap_main(void);

void *memcpy(void *to, const void *from, size_t n);

static struct cpu cpus[MAX_CPUS];
static uint32_t ncpus = 1;
static bool kick_by_nmi;
static _Atomic uint32_t started;

/* ---- local APICs ---- */

static void apic_write(uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)(APIC + reg) = value;
}

static uint32_t apic_read(uint32_t reg)
{
    return *(volatile uint32_t *)(uintptr_t)(APIC + reg);
}

static void send(uint32_t cpu, uint32_t command)
{
    uint64_t flags = irq_off();

    apic_write(0x310, cpu << 24);
    apic_write(0x300, command);
    while (apic_read(0x300) & 0x1000)
        continue;
    irq_restore(flags);
}

static void start_clock(void)
{
    apic_write(0xf0, 0x1ff);
    apic_write(0x3e0, 11);                    /* not divided */
    apic_write(0x320, 0x20000 | VECTOR_TICK); /* again and again */
    apic_write(0x380, TICK);
}

/* ---- calls ---- */

struct call {
    void (*fn)(void *arg);
    void *arg;
    _Atomic bool done;
};

static void serve(void)
{
    struct call *c = atomic_exchange(&this_cpu()->call, NULL);

    if (!c)
        return;
    c->fn(c->arg);
    atomic_store(&c->done, true);
}

static int run_on_cpu(void *ctx, uint32_t id, void (*fn)(void *arg), void *arg)
{
    struct call c = {.fn = fn, .arg = arg};
    void *free = NULL;
    uint64_t flags;

    if (id >= ncpus)
        return 1;
    host_ops.preempt_off(ctx);
    if (this_cpu()->id == id) {
        flags = irq_off();
        fn(arg);
        irq_restore(flags);
    } else {
        while (!atomic_compare_exchange_strong(&cpus[id].call, &free, &c)) {
            free = NULL;
            __builtin_ia32_pause();
        }
        send(id, VECTOR_CALL);
        while (!atomic_load(&c.done)) {
            flags = irq_off(); /* it may wait for this CPU */
            serve();
            irq_restore(flags);
            __builtin_ia32_pause();
        }
    }
    host_ops.preempt_on(ctx);
    return 0;
}

static uint32_t cpu_count(void *ctx)
{
    (void)ctx;
    return ncpus;
}

static uint32_t cpu_id(void *ctx)
{
    (void)ctx;
    return this_cpu()->id;
}

static void kick(void *ctx, uint32_t cpu)
{
    (void)ctx;
    send(cpu, kick_by_nmi ? 0x4400 : 0x4000 | VECTOR_KICK);
}

static void interrupt(unsigned vector)
{
    if (vector == 0xff)
        return; /* spurious */
    apic_write(0xb0, 0);
    if (vector == VECTOR_CALL)
        serve();
    else if (vector == VECTOR_TICK)
        threads_interrupt();
}

/* ---- start ---- */

static void set_gs(struct cpu *cpu)
{
    host_ops.wrmsr(NULL, 0xc0000101, (uintptr_t)cpu);
}

/* As in boot.S; the TSS is the CPU's own. */
static void set_gdt(uint32_t id)
{
    static uint64_t gdts[MAX_CPUS][5], tss[MAX_CPUS][13];
    uint64_t base = (uintptr_t)tss[id], *gdt = gdts[id];
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(gdts[0]) - 1, (uintptr_t)gdt};

    gdt[1] = 0x00af9b000000ffff;
    gdt[2] = 0x00cf93000000ffff;
    gdt[3] = 0x0000890000000067 | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    __asm__ volatile("lgdt %0" ::"m"(pointer));
    __asm__ volatile("ltr %w0" ::"r"(0x18));
}

/* A new CPU, in long mode on the stack of its idle thread, which it becomes. */
_Noreturn void ap_main(void)
{
    struct cpu *cpu = &cpus[started];

    set_gdt(cpu->id);
    host_cpu_init();
    set_gs(cpu);
    start_clock();
    started++;
    threads_be_idle();
}

static void prepare(struct cpu *cpu, uint32_t id)
{
    cpu->self = cpu;
    cpu->id = id;
    cpu->idle = threads_idle();
    if (!cpu->idle) {
        host_print("Bail out! no memory\n");
        host_exit(false);
    }
}

static void delay(void)
{
    uint64_t end = host_ops.now(NULL) + 10000000;

    while (host_ops.now(NULL) < end)
        continue;
}

static void start(uint32_t id)
{
    struct cpu *cpu = &cpus[id];

    prepare(cpu, id);
    cpu->current = cpu->idle;
    ap_stack = *(uint64_t *)(void *)cpu->idle; /* its first field: what thread_switch would load */
    send(id, 0x4500);                          /* INIT */
    delay();
    send(id, 0x4608); /* starts at 0x8000 */
    for (int i = 0; i < 100 && started <= id; i++)
        delay();
    if (started <= id) {
        host_print("Bail out! CPU %u does not start\n", id);
        host_exit(false);
    }
}

void cpus_init(uint32_t n, bool nmi, struct thread *first)
{
    kick_by_nmi = nmi;
    host_ops.cpu_count = cpu_count;
    host_ops.cpu_id = cpu_id;
    host_ops.run_on_cpu = run_on_cpu;
    host_ops.kick = kick;
    host_interrupt = interrupt;
    cpus[0].self = &cpus[0];
    cpus[0].current = first;
    set_gs(&cpus[0]);
    prepare(&cpus[0], 0);
    started = 1;
    memcpy((void *)0x8000, ap_code, (size_t)(ap_code_end - ap_code));
    apic_write(0xf0, 0x1ff);
    for (ncpus = 1; ncpus < n && ncpus < MAX_CPUS; ncpus++)
        start(ncpus);
    start_clock();
    /* Bochs 2.7 holds interrupts back while a guest runs that was entered with RFLAGS.IF clear,
     * although they are to exit. An NMI ends that, and then the host takes its clock's tick. */
    host_tick();
    __asm__ volatile("sti");
}
