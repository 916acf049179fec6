/* SPDX-License-Identifier: BSD-2-Clause */
/* services.c: doorbells, posted writes, message routes and interrupts by eventfds. */
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "conform.h"

static int new_event(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    CHECK(fd >= 0);
    return fd;
}

/* What has been added to it since the last time. */
static uint64_t taken(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void signal_event(int fd)
{
    uint64_t one = 1;

    CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

static struct doorbell *ring(uint64_t addr, uint32_t len, uint32_t flags, uint64_t match, int fd)
{
    struct vmm_doorbell config = {
        .size = sizeof(config), .flags = flags, .addr = addr, .match = match, .len = len, .fd = fd};
    struct doorbell *bell = NULL;

    OK(mmio_doorbell(vm, &config, &bell));
    CHECK(bell != NULL);
    return bell;
}

/* ---- doorbells ---- */

GUEST(rings, 64,
      "movl $7, (%rbx)\n"
      "movl $8, (%rbx)\n"
      "movw $7, (%rbx)\n"
      "movl $7, 4(%rbx)\n"
      "mov (%rbx), %eax\n"
      "hlt");

static struct device d;

static void start(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    LOAD(LONG64, rings);
    set_gpr(VMM_RBX, MMIO);
}

static void again(void)
{
    LOAD(LONG64, rings);
    set_gpr(VMM_RBX, MMIO);
    RUN(HLT);
}

static void doorbell_of_a_length(void)
{
    int fd = new_event();

    start();
    ring(MMIO, 4, 0, 0, fd);
    RUN(HLT);
    EQ(taken(fd), 2);
    LOGGED(&d, W(0, 2, 7), W(4, 4, 7), R(0, 4)); /* what does not fit goes on */
    EQ(gpr(VMM_RAX), device_pattern(0, 4));
    end();
    close(fd);
}

static void doorbell_of_a_value(void)
{
    int seven = new_event(), eight = new_event();

    start();
    ring(MMIO, 4, VMM_DOORBELL_MATCH, 7, seven);
    ring(MMIO, 4, VMM_DOORBELL_MATCH, 8, eight);
    RUN(HLT);
    EQ(taken(seven), 1);
    EQ(taken(eight), 1);
    LOGGED(&d, W(0, 2, 7), W(4, 4, 7), R(0, 4));
    end();
    close(seven);
    close(eight);
}

static void doorbell_of_any_length(void)
{
    int fd = new_event();

    start();
    ring(MMIO, 0, 0, 0, fd);
    RUN(HLT);
    EQ(taken(fd), 3);
    LOGGED(&d, W(4, 4, 7), R(0, 4));
    end();
    close(fd);
}

GUEST(port_rings, 64, "mov $7, %al\n out %al, $0x80\n out %ax, $0x80\n in $0x80, %al\n hlt");

static void doorbell_on_a_port(void)
{
    int fd = new_event();

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 2);
    ring(0x80, 1, VMM_DOORBELL_PORT | VMM_DOORBELL_MATCH, 7, fd);
    LOAD(LONG64, port_rings);
    RUN(HLT);
    EQ(taken(fd), 1);
    LOGGED(&d, W(0, 2, 7), R(0, 1));
    end();
    close(fd);
}

static void doorbell_where_nobody_is(void)
{
    int fd = new_event();

    begin(VMM_IRQCHIP_NONE, 0, 1);
    ring(MMIO, 4, 0, 0, fd);
    LOAD(LONG64, rings);
    set_gpr(VMM_RBX, MMIO);
    RUN(MMIO); /* the word */
    EQ(ex.u.mmio.len, 2);
    EQ(taken(fd), 2);
    end();
    close(fd);
}

static void doorbell_removed(void)
{
    int fd = new_event(), copy = dup(fd);
    struct doorbell *bell;

    start();
    bell = ring(MMIO, 4, 0, 0, copy);
    close(copy); /* it was duplicated */
    RUN(HLT);
    EQ(taken(fd), 2);
    mmio_doorbell_remove(bell);
    mmio_doorbell_remove(NULL);
    d.n = 0;
    again();
    EQ(taken(fd), 0);
    LOGGED(&d, W(0, 4, 7), W(0, 4, 8), W(0, 2, 7), W(4, 4, 7), R(0, 4));
    end();
    close(fd);
}

static void what_doorbells_refuse(void)
{
    int fd = new_event();
    struct vmm_doorbell config = {.size = sizeof(config), .addr = MMIO, .len = 4, .fd = fd};

    start();
    OK(mmio_doorbell(vm, &config, NULL));
    RESULT(mmio_doorbell(vm, &config, NULL), VMM_E_EXIST);
    config.len = 3;
    RESULT(mmio_doorbell(vm, &config, NULL), VMM_E_INVAL);
    config.len = 0;
    config.flags = VMM_DOORBELL_MATCH;
    RESULT(mmio_doorbell(vm, &config, NULL), VMM_E_INVAL);
    config.len = 8;
    config.flags = VMM_DOORBELL_PORT;
    config.addr = 0x80;
    RESULT(mmio_doorbell(vm, &config, NULL), VMM_E_INVAL);
    config = (struct vmm_doorbell){.size = sizeof(config), .addr = MMIO + 8, .len = 4, .fd = -1};
    RESULT(mmio_doorbell(vm, &config, NULL), VMM_E_INVAL);
    RESULT(mmio_doorbell(vm, NULL, NULL), VMM_E_INVAL);
    RESULT(mmio_doorbell(NULL, &config, NULL), VMM_E_INVAL);
    end(); /* what is left goes with it */
    close(fd);
}

GUEST(rings_on, 64, "1: movl $7, (%rbx)\n incl 0x3000\n jmp 1b");

static void doorbells_while_running(void)
{
    struct runner r;
    int fd = new_event();

    d.quiet = true;
    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_mmio(&d, MMIO, 0x1000);
    LOAD(LONG64, rings_on);
    set_gpr(VMM_RBX, MMIO);
    run_start(&r, cpu);
    for (int i = 0; i < 10; i++) {
        unsigned n = d.n;

        WAIT(d.n > n);
        struct doorbell *bell = ring(MMIO, 4, 0, 0, fd);
        WAIT(taken(fd) > 0);
        mmio_doorbell_remove(bell);
        taken(fd);
        conform_nap();
        EQ(taken(fd), 0); /* no write signals any more */
    }
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
    close(fd);
}

/* ---- posted writes ---- */

GUEST(posts, 64,
      "movl $1, (%rbx)\n"
      "movl $2, 4(%rbx)\n"
      "movl $3, (%rbx)\n"
      "mov 0x1000(%rbx), %eax\n" /* another device */
      "movl $4, (%rbx)\n"
      "hlt");

static struct device plain;

static void saw_all(struct device *self)
{
    (void)self;
    EQ(d.n, 3); /* they come before any other callback */
}

static void posted_writes(void)
{
    struct vmm_io_ops ops = device_ops();

    begin(VMM_IRQCHIP_NONE, 0, 1);
    ops.flags = VMM_IO_POSTED;
    OK(mmio_register(vm, MMIO, 0x1000, &ops, &d, NULL));
    plain.act = saw_all;
    device_mmio(&plain, MMIO + 0x1000, 0x1000);
    LOAD(LONG64, posts);
    set_gpr(VMM_RBX, MMIO);
    RUN(HLT); /* and before an exit */
    LOGGED(&d, W(0, 4, 1), W(4, 4, 2), W(0, 4, 3), W(0, 4, 4));
    EQ(plain.n, 1);
    end();
}

GUEST(posts_many, 64, "mov $2000, %ecx\n 1: mov %ecx, (%rbx)\n loop 1b\n mov 8(%rbx), %eax\n hlt");

static void many_posted_writes(void)
{
    struct vmm_io_ops ops = device_ops();

    begin(VMM_IRQCHIP_NONE, 0, 1);
    ops.flags = VMM_IO_POSTED;
    OK(mmio_register(vm, MMIO, 0x1000, &ops, &d, NULL));
    LOAD(LONG64, posts_many);
    set_gpr(VMM_RBX, MMIO);
    RUN(HLT);
    EQ(d.n, 2001);
    for (unsigned i = 0; i < LOG_MAX; i++)
        EQ(d.log[i].value, 2000 - i);
    EQ(gpr(VMM_RAX), device_pattern(8, 4));
    end();
}

/* ---- routes and eventfds ---- */

#define COUNT 0x3010u
#define READY 0x3028u
#define APIC_ON                                                                                    \
    "mov $0xff, %al\n"                                                                             \
    "out %al, $0x21\n"                                                                             \
    "out %al, $0xa1\n"                                                                             \
    "mov $0xfee00000, %r15d\n"                                                                     \
    "mov $0xfec00000, %r14d\n"                                                                     \
    "movl $0x1ff, 0xf0(%r15)\n"
#define LOOP                                                                                       \
    "movl $1, 0x3028\n"                                                                            \
    "1: sti\n"                                                                                     \
    "hlt\n"                                                                                        \
    "jmp 1b\n"
GUEST(halted, 64, APIC_ON LOOP);
GUEST(pin_18, 64,
      APIC_ON "movl $0x35, (%r14)\n"
              "movl $0, 0x10(%r14)\n"
              "movl $0x34, (%r14)\n"
              "movl %r9d, 0x10(%r14)\n" LOOP);
GUEST(counts, 64, "incl 0x3010\n movl $0, 0xb0(%r15)\n iretq");

static struct runner r;

static void start_irq(struct code code, uint32_t pin)
{
    begin(VMM_IRQCHIP_PC, 0, 1);
    load_on(cpu, LONG64, code);
    memset(ram + DATA, 0, 4096);
    PLACE(HANDLER, counts);
    gate(LONG64, 0x41, HANDLER);
    set_gpr(VMM_R9, pin);
}

static void go(void)
{
    run_start(&r, cpu);
    WAIT(ram32(READY) == 1);
}

static void stop(void)
{
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

static void settled(uint32_t count)
{
    for (int i = 0; i < 20; i++)
        conform_nap();
    EQ(ram32(COUNT), count);
}

static void event_on_a_line(void)
{
    int fd = new_event(), copy = dup(fd);

    start_irq(GUEST_CODE(pin_18), 0x41);
    OK(vm_irq_fd(vm, 18, copy, -1));
    close(copy); /* it was duplicated */
    go();
    for (uint32_t i = 1; i <= 30; i++) {
        signal_event(fd);
        WAIT(ram32(COUNT) == i);
    }
    OK(vm_irq_fd_remove(vm, 18, copy));
    signal_event(fd);
    settled(30);
    RESULT(vm_irq_fd_remove(vm, 18, copy), VMM_E_NOENT);
    stop();
    close(fd);
}

static void event_while_nobody_runs(void)
{
    int fd = new_event();

    start_irq(GUEST_CODE(halted), 0);
    OK(vm_irq_route(vm, 30, 0xfee00000, 0x41));
    OK(vm_irq_fd(vm, 30, fd, -1));
    go();
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    signal_event(fd);
    for (int i = 0; i < 10; i++)
        conform_nap();
    run_start(&r, cpu);
    WAIT(ram32(COUNT) == 1);
    stop();
    close(fd);
}

static void event_with_resample(void)
{
    int fd = new_event(), resample = new_event();

    start_irq(GUEST_CODE(pin_18), 0x8041);
    OK(vm_irq_fd(vm, 18, fd, resample));
    go();
    for (uint32_t i = 1; i <= 20; i++) {
        signal_event(fd);
        WAIT(taken(resample) > 0); /* the EOI has lowered the line */
        settled(i);
    }
    OK(vm_irq_fd_remove(vm, 18, fd));
    stop();
    close(fd);
    close(resample);
}

/* Nothing waits in it any more. */
static bool served(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}

static void message_routes(void)
{
    int fd = new_event();

    start_irq(GUEST_CODE(halted), 0);
    OK(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, 0x51));
    OK(vm_irq_fd(vm, VMM_IRQ_ROUTE_FIRST, fd, -1));
    OK(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, 0x41)); /* changed: counts from now on */
    go();
    for (uint32_t i = 1; i <= 20; i++) {
        signal_event(fd);
        WAIT(ram32(COUNT) == i);
    }
    OK(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0, 0)); /* signals are lost */
    signal_event(fd);
    WAIT(served(fd));
    settled(20);
    OK(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, 0x41));
    settled(20);
    signal_event(fd);
    WAIT(ram32(COUNT) == 21);
    stop();
    close(fd);
}

static void many_events(void)
{
    int fds[16];

    start_irq(GUEST_CODE(halted), 0);
    for (uint32_t i = 0; i < 16; i++) {
        fds[i] = new_event();
        OK(vm_irq_route(vm, 100 + i, 0xfee00000, 0x41));
        OK(vm_irq_fd(vm, 100 + i, fds[i], -1));
    }
    go();
    for (uint32_t i = 0; i < 64; i++) {
        signal_event(fds[i % 16]);
        WAIT(ram32(COUNT) == i + 1);
    }
    stop();
    for (uint32_t i = 0; i < 16; i++)
        close(fds[i]);
}

static void what_events_refuse(void)
{
    int fd = new_event();

    begin(VMM_IRQCHIP_PC, 0, 1);
    OK(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST, 0xfee00000, 0x41));
    RESULT(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST - 1, 0xfee00000, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_route(vm, VMM_IRQ_ROUTE_FIRST + VMM_IRQ_ROUTES, 0xfee00000, 0x41), VMM_E_RANGE);
    RESULT(vm_irq_fd(vm, VMM_IRQ_ROUTE_FIRST + VMM_IRQ_ROUTES, fd, -1), VMM_E_RANGE);
    RESULT(vm_irq_fd(vm, 5, -1, -1), VMM_E_INVAL);
    RESULT(vm_irq_fd(vm, VMM_IRQ_ROUTE_FIRST, fd, fd), VMM_E_INVAL); /* lines only */
    OK(vm_irq_fd(vm, 5, fd, -1));
    RESULT(vm_irq_fd(vm, 5, fd, -1), VMM_E_EXIST);
    RESULT(vm_irq_fd_remove(vm, 6, fd), VMM_E_NOENT);
    end(); /* what is left goes with it */
    close(fd);
}

static const struct conform_case cases[] = {
    CASE(doorbell_of_a_length, "a doorbell takes writes of its length, others go on"),
    CASE(doorbell_of_a_value, "doorbells of different values share an address"),
    CASE(doorbell_of_any_length, "a doorbell of any length"),
    CASE(doorbell_on_a_port, "a doorbell on a port"),
    CASE(doorbell_where_nobody_is, "a doorbell without a registration"),
    CASE(doorbell_removed, "a removed doorbell signals no more; descriptors are duplicated"),
    CASE(what_doorbells_refuse, "equal doorbells and bad configurations are refused"),
    CASE(doorbells_while_running, "doorbells come and go while the vCPU writes"),
    CASE(posted_writes, "posted writes come in order, before other callbacks and exits"),
    CASE(many_posted_writes, "no posted write is lost, however many there are"),
    CASE(event_on_a_line, "an eventfd is an edge on a line until it is removed",
         .flags = CASE_MODES),
    CASE(event_while_nobody_runs, "a signal while no vCPU runs is taken at the next run",
         .flags = CASE_MODES),
    CASE(event_with_resample, "a resample eventfd is signalled at the EOI, which lowers the line",
         .flags = CASE_MODES),
    CASE(message_routes, "routes stand for messages, can change, and are silent when cleared",
         .flags = CASE_MODES),
    CASE(many_events, "16 eventfds on routes of their own", .flags = CASE_MODES),
    CASE(what_events_refuse, "numbers out of range, equal ones and no eventfds are refused",
         .flags = CASE_MODES),
};

AREA(services, cases);
