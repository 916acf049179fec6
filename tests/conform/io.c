/* SPDX-License-Identifier: BSD-2-Clause */
/* io.c: ports, the results of callbacks, completion by the program, registrations that change. */

#include "conform.h"

static struct device d;
static struct mmio *reg;

#define P(offset, size) device_pattern(offset, size)

static void start(enum snip_mode mode, struct code code)
{
    begin(VMM_IRQCHIP_NONE, 0, 2);
    reg = device_mmio(&d, MMIO, 0x1000);
    device_pio(&d, 0x80, 0x20);
    load_on(cpu, mode, code);
    memset(ram + DATA, 0, 256);
    set_gpr(VMM_RBX, MMIO);
}
#define START(mode, id) start(mode, GUEST_CODE(id))

/* ---- ports ---- */

GUEST(ports, 64,
      "mov $0x1122334455667788, %rax\n"
      "in $0x80, %al\n"
      "mov %rax, %r8\n"
      "in $0x82, %ax\n"
      "mov %rax, %r9\n"
      "mov $0x84, %edx\n"
      "in %dx, %eax\n"
      "mov %rax, %r10\n"
      "mov $0x12345678, %eax\n"
      "out %al, $0x81\n"
      "out %ax, $0x82\n"
      "out %eax, $0x84\n"
      "mov $0x90, %edx\n"
      "out %al, %dx\n"
      "hlt");

static void port_sizes(void)
{
    START(LONG64, ports);
    RUN(HLT);
    LOGGED(&d, R(0, 1), R(2, 2), R(4, 4), W(1, 1, 0x78), W(2, 2, 0x5678), W(4, 4, 0x12345678),
           W(0x10, 1, 0x78));
    EQ(gpr(VMM_R8), 0x1122334455667710);
    EQ(gpr(VMM_R9), 0x1122334455660000 | P(2, 2));
    EQ(gpr(VMM_R10), P(4, 4));
    end();
}

GUEST(port_odd, 64,
      "mov $0x81, %edx\n"
      "in %dx, %eax\n"
      "mov $0x83, %edx\n"
      "out %ax, %dx\n"
      "hlt");

static void port_not_aligned(void)
{
    START(LONG64, port_odd);
    RUN(HLT);
    LOGGED(&d, R(1, 1), R(2, 2), R(4, 1), W(3, 1, 0x11), W(4, 1, 0x12));
    EQ(gpr(VMM_RAX), P(1, 4));
    end();
}

GUEST(port_strings, 64,
      "mov $0x3000, %edi\n"
      "mov $3, %ecx\n"
      "mov $0x80, %edx\n"
      "cld\n"
      "rep insw\n"
      "mov $0x3000, %esi\n"
      "mov $4, %ecx\n"
      "rep outsb\n"
      "std\n"
      "mov $0x3014, %edi\n"
      "mov $2, %ecx\n"
      "rep insl\n"
      "outsw\n"
      "hlt");

static void port_string(void)
{
    START(LONG64, port_strings);
    RUN(HLT);
    LOGGED(&d, R(0, 2), R(0, 2), R(0, 2), W(0, 1, 0x10), W(0, 1, 0x11), W(0, 1, 0x10),
           W(0, 1, 0x11), R(0, 4), R(0, 4), W(0, 2, P(0, 2)));
    EQ(peek(DATA + 4, 2), P(0, 2));
    EQ(peek(DATA + 6, 2), 0);
    EQ(peek(DATA + 0x10, 8), P(0, 4) << 32 | P(0, 4));
    EQ(gpr(VMM_RDI), DATA + 0xc);
    EQ(gpr(VMM_RSI), DATA + 2);
    EQ(gpr(VMM_RCX), 0);
    end();
}

GUEST(long_ins, 64,
      "mov $0x200000, %edi\n"
      "mov $3000, %ecx\n"
      "mov $0x80, %edx\n"
      "rep insb\n"
      "mov $0x200000, %esi\n"
      "mov $3000, %ecx\n"
      "rep outsb\n"
      "hlt");

static void long_port_strings(void)
{
    START(LONG64, long_ins);
    RUN(HLT);
    EQ(d.n, 6000);
    for (uint32_t i = 0; i < 3000; i++)
        EQ(peek(HIGH + i, 1), 0x10);
    EQ(peek(HIGH + 3000, 1), 0);
    end();
}

GUEST(ins_to_mmio, 64,
      "mov %rbx, %rdi\n"
      "mov $2, %ecx\n"
      "mov $0x80, %edx\n"
      "rep insb\n"
      "mov %rbx, %rsi\n"
      "outsl\n"
      "hlt");

static void port_string_to_a_device(void)
{
    START(LONG64, ins_to_mmio);
    RUN(HLT);
    if (d.n > 1 && !d.log[1].write) { /* KVM reads ahead of the writes */
        LOGGED(&d, R(0, 1), R(0, 1), W(0, 1, 0x10), W(1, 1, 0x10), R(0, 4), W(0, 4, P(0, 4)));
    } else {
        LOGGED(&d, R(0, 1), W(0, 1, 0x10), R(0, 1), W(1, 1, 0x10), R(0, 4), W(0, 4, P(0, 4)));
    }
    end();
}

GUEST(user_port, 64, "in $0x80, %al\n hlt");

static void ports_at_cpl_3(void)
{
    struct vcpu_regs regs;

    START(USER64, user_port);
    RUN(HLT);
    EQ(halted_in(&ex), 13); /* no I/O bitmap, IOPL 0 */
    EQ(d.n, 0);
    load_on(cpu, USER64, GUEST_CODE(user_port));
    regs = get_regs(cpu);
    regs.rflags |= 3u << 12; /* IOPL 3 */
    set_regs(cpu, &regs, VMM_REGS_GPR);
    RUN(HLT);
    LOGGED(&d, R(0, 1));
    EQ(gpr(VMM_RAX), 0x10);
    EQ(halted_in(&ex), 13); /* HLT */
    end();
}

/* ---- results ---- */

GUEST(read_write, 64,
      "mov (%rbx), %rax\n"
      "mov %eax, 8(%rbx)\n"
      "in $0x80, %eax\n"
      "out %ax, $0x80\n"
      "hlt");

static void nobody(void)
{
    d.result = VMM_IO_NOBODY;
    START(LONG64, read_write);
    RUN(HLT);
    LOGGED(&d, R(0, 8), W(8, 4, 0xffffffff), R(0, 4), W(0, 2, 0xffff));
    d.result = 1234; /* anything else counts as NOBODY */
    LOAD(LONG64, read_write);
    set_gpr(VMM_RBX, MMIO);
    RUN(HLT);
    LOGGED(&d, R(0, 8), W(8, 4, 0xffffffff), R(0, 4), W(0, 2, 0xffff));
    end();
}

static void missing_callbacks(void)
{
    struct vmm_io_ops ops = {.size = sizeof(ops)};

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(mmio_register(vm, MMIO, 0x1000, &ops, NULL, NULL));
    OK(pio_register(vm, 0x80, 4, &ops, NULL, NULL));
    LOAD(LONG64, read_write);
    set_gpr(VMM_RBX, MMIO);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0xffffffff);
    end();
}

static void exit_to_the_program(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, read_write);
    RUN(MMIO);
    EQ(ex.rip, CODE);
    EQ(ex.u.mmio.gpa, MMIO);
    EQ(ex.u.mmio.len, 8);
    EQ(ex.u.mmio.access, VMM_ACCESS_READ);
    EQ(ex.mode, VMM_MODE_LONG64);
    EQ(ex.cpl, 0);
    ex.u.mmio.data = 0x1122334455667788;
    RUN(MMIO);
    EQ(ex.rip, CODE + 3);
    EQ(ex.u.mmio.gpa, MMIO + 8);
    EQ(ex.u.mmio.len, 4);
    EQ(ex.u.mmio.access, VMM_ACCESS_WRITE);
    EQ(ex.u.mmio.data, 0x55667788);
    EQ(gpr(VMM_RAX), 0x1122334455667788);
    RUN(PIO);
    EQ(ex.u.pio.port, 0x80);
    EQ(ex.u.pio.len, 4);
    EQ(ex.u.pio.access, VMM_ACCESS_READ);
    ex.u.pio.data = 0xaabbccdd;
    RUN(PIO);
    EQ(ex.u.pio.len, 2);
    EQ(ex.u.pio.access, VMM_ACCESS_WRITE);
    EQ(ex.u.pio.data, 0xccdd);
    RUN(HLT);
    EQ(d.n, 4); /* each access once */
    end();
}

static void nobody_registered(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, read_write);
    set_gpr(VMM_RBX, MMIO);
    RUN(MMIO);
    EQ(ex.u.mmio.data, UINT64_MAX);
    RUN(MMIO); /* not answered: all ones */
    EQ(ex.u.mmio.data, 0xffffffff);
    RUN(PIO);
    memset((char *)&ex + sizeof(ex.size), 0, sizeof(ex) - sizeof(ex.size)); /* another exit */
    RUN(PIO);
    EQ(ex.u.pio.data, 0xffff);
    RUN(HLT);
    end();
}

static void exact_registers_at_exits(void)
{
    struct vcpu_regs regs;

    START(LONG64, read_write);
    d.result = VMM_IO_EXIT;
    regs = get_regs(cpu);
    for (unsigned i = 0; i < 16; i++)
        if (i != VMM_RSP && i != VMM_RBX)
            regs.gpr[i] = 0x1000 + i;
    regs.rflags = 0x8d7;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    for (int i = 0; i < 4; i++) {
        struct vcpu_regs now;

        CHECK(vcpu_run(cpu, &ex) == 0);
        now = get_regs(cpu);
        EQ(now.rip, ex.rip);
        EQ(now.rflags, 0x8d7);
        EQ(now.gpr[VMM_RCX], 0x1001);
        EQ(now.gpr[VMM_RAX], i == 0 ? 0x1000 : i == 1 ? 0x77 : i == 2 ? 0x77 : 0x66);
        if (ex.reason == VMM_EXIT_MMIO)
            ex.u.mmio.data = 0x77;
        else
            ex.u.pio.data = 0x66;
    }
    RUN(HLT);
    end();
}

/* The program changes registers and memory while an access waits for its answer. */
static void registers_between_exit_and_answer(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, read_write);
    RUN(MMIO);
    set_gpr(VMM_RCX, 0x99);
    set_gpr(VMM_RAX, 0x98); /* the instruction's own result comes on top */
    OK(vcpu_get_xsave(cpu, (uint8_t[16384]){0}, 16384));
    ex.u.mmio.data = 0x97;
    RUN(MMIO);
    EQ(gpr(VMM_RAX), 0x97);
    EQ(gpr(VMM_RCX), 0x99);
    end();
}

static void moved_rip_drops_the_access(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, read_write);
    RUN(MMIO);
    struct vcpu_regs regs = get_regs(cpu);
    regs.rip += 3;
    regs.gpr[VMM_RAX] = 7;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    ex.u.mmio.data = 1;
    RUN(MMIO); /* that was not the answer of this one */
    EQ(ex.rip, CODE + 3);
    EQ(ex.u.mmio.data, 7);
    regs = get_regs(cpu);
    regs.rip = CODE;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    RUN(MMIO);
    EQ(ex.rip, CODE);
    EQ(ex.u.mmio.access, VMM_ACCESS_READ);
    end();
}

static void kick_between_exit_and_answer(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, read_write);
    RUN(MMIO);
    ex.u.mmio.data = 0x97;
    vcpu_kick(cpu);
    RUN(INTERRUPTED); /* the answer is kept */
    ex.reason = VMM_EXIT_NONE;
    RUN(MMIO);
    EQ(ex.u.mmio.data, 0x97);
    EQ(d.n, 2);
    end();
}

GUEST(many_accesses, 64,
      "movups (%rbx), %xmm0\n"
      "movups %xmm0, 0x3000\n"
      "mov $3, %ecx\n"
      "mov $0x3010, %edi\n"
      "mov %rbx, %rsi\n"
      "rep movsl\n"
      "lock addl $1, 0x20(%rbx)\n"
      "hlt");

static void several_accesses_of_one_instruction(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, many_accesses);
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, MMIO);
    ex.u.mmio.data = 0x1111;
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, MMIO + 8);
    EQ(ex.rip, CODE);
    ex.u.mmio.data = 0x2222;
    for (uint32_t i = 0; i < 3; i++) {
        RUN(MMIO);
        EQ(ex.u.mmio.gpa, MMIO + i * 4);
        EQ(gpr(VMM_RCX), 3 - i); /* registers are exact between iterations */
        ex.u.mmio.data = 0x30 + i;
    }
    RUN(MMIO);
    EQ(ex.u.mmio.access, VMM_ACCESS_READ);
    ex.u.mmio.data = 0x40;
    RUN(MMIO);
    EQ(ex.u.mmio.access, VMM_ACCESS_WRITE);
    EQ(ex.u.mmio.data, 0x41);
    RUN(HLT);
    EQ(peek(DATA, 8), 0x1111);
    EQ(peek(DATA + 8, 8), 0x2222);
    EQ(peek(DATA + 0x18, 4), 0x32);
    EQ(d.n, 7);
    end();
}

/* ---- DEFER ---- */

static void *complete_later(void *opaque)
{
    WAIT(d.n == 1);
    for (int i = 0; i < 10; i++)
        conform_nap();
    while (mmio_complete(cpu, 0x1234) == VMM_E_STATE) /* until the callback has returned */
        conform_nap();
    return opaque;
}

GUEST(read_once, 64, "mov (%rbx), %eax\n hlt");
GUEST(in_once, 64, "in $0x80, %al\n hlt");

static void deferred(void)
{
    pthread_t thread;

    for (int port = 0; port < 2; port++) {
        d.result = VMM_IO_DEFER;
        d.n = 0;
        start(LONG64, port ? GUEST_CODE(in_once) : GUEST_CODE(read_once));
        RESULT(mmio_complete(cpu, 0), VMM_E_STATE);
        CHECK(pthread_create(&thread, NULL, complete_later, NULL) == 0);
        RUN(HLT);
        pthread_join(thread, NULL);
        EQ(gpr(VMM_RAX), port ? 0x34 : 0x1234);
        EQ(d.n, 1);
        RESULT(mmio_complete(cpu, 0), VMM_E_STATE);
        end();
    }
}

static void complete_now(struct device *self)
{
    (void)self;
    OK(mmio_complete(vcpu_current(vm), 0x4321));
}

static void completed_before_the_callback_returns(void)
{
    d.result = VMM_IO_DEFER;
    d.act = complete_now;
    START(LONG64, read_once);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x4321);
    end();
}

static void kick_and_budget_while_deferred(void)
{
    d.result = VMM_IO_DEFER;
    START(LONG64, read_once);
    /* A slow machine may not get to the access in the first budgets. */
    for (uint64_t ns = 1000000; d.n == 0; ns *= 2) {
        OK(vcpu_set_budget(cpu, 0, ns));
        RUN(BUDGET);
        EQ(ex.rip, CODE);
    }
    OK(vcpu_set_budget(cpu, 0, 0));
    vcpu_kick(cpu);
    RUN(INTERRUPTED);
    EQ(ex.rip, CODE);
    OK(mmio_complete(cpu, 0x77)); /* comes in a later vcpu_run */
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x77);
    EQ(d.n, 1);
    end();
}

/* ---- what callbacks do ---- */

static void check_current(struct device *self)
{
    struct vcpu_regs regs = get_regs(cpu);

    (void)self;
    CHECK(vcpu_current(vm) == cpu);
    EQ(regs.rip, CODE);
    regs.gpr[VMM_RCX] = 0x55;
    set_regs(cpu, &regs, VMM_REGS_GPR);
    regs.rip = CODE + 100;
    regs.groups = VMM_REGS_GPR;
    RESULT(vcpu_set_regs(cpu, &regs), VMM_E_STATE);
}

static void registers_in_callbacks(void)
{
    d.act = check_current;
    START(LONG64, read_once);
    CHECK(vcpu_current(vm) == NULL);
    RUN(HLT);
    EQ(gpr(VMM_RCX), 0x55);
    EQ(gpr(VMM_RAX), P(0, 4));
    CHECK(vcpu_current(vm) == NULL);
    end();
}

static void unregister_self(struct device *self)
{
    mmio_unregister(reg);
    EQ(self->released, 0); /* when this callback has returned */
}

static void unregister_from_a_callback(void)
{
    d.act = unregister_self;
    START(LONG64, read_once);
    RUN(HLT);
    EQ(d.released, 1);
    EQ(gpr(VMM_RAX), P(0, 4));
    LOAD(LONG64, read_once);
    set_gpr(VMM_RBX, MMIO);
    RUN(MMIO);
    end();
}

static void move_self(struct device *self)
{
    (void)self;
    RESULT(mmio_move(reg, UINT64_MAX), VMM_E_RANGE);
    OK(mmio_move(reg, MMIO + 0x4000));
}

static void move_from_a_callback(void)
{
    static struct device other;

    d.act = move_self;
    START(LONG64, read_once);
    RUN(HLT);
    d.act = NULL;
    LOAD(LONG64, read_once);
    set_gpr(VMM_RBX, MMIO + 0x4000);
    RUN(HLT);
    EQ(d.n, 2);
    LOAD(LONG64, read_once);
    set_gpr(VMM_RBX, MMIO);
    RUN(MMIO);
    device_mmio(&other, MMIO, 0x10);
    RESULT(mmio_move(reg, MMIO), VMM_E_EXIST);
    end();
}

GUEST(reads_on, 64,
      "1: mov (%rbx), %eax\n"
      "incl 0x3000\n"
      "jmp 1b");

static void change_registrations_while_running(void)
{
    struct runner r;

    d.quiet = true;
    START(LONG64, reads_on);
    run_start_past(&r, cpu, VMM_EXIT_MMIO); /* of the time in which nobody is there */
    for (unsigned i = 0; i < 20; i++) {
        unsigned n = d.n, released = d.released;

        WAIT(d.n > n);
        mmio_unregister(reg);
        EQ(d.released, released + 1);
        n = d.n;
        conform_nap();
        EQ(d.n, n); /* no callback runs, and none will */
        reg = device_mmio(&d, MMIO, 0x1000);
    }
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

static _Atomic int inside;

static void dwell(struct device *self)
{
    (void)self;
    inside = 1;
    for (int i = 0; i < 40; i++)
        conform_nap();
    inside = 2;
}

static void unregister_waits_for_callbacks(void)
{
    struct runner r;

    d.act = dwell;
    START(LONG64, read_once);
    run_start(&r, cpu);
    WAIT(inside);
    mmio_unregister(reg);
    EQ(inside, 2);
    EQ(d.released, 1);
    run_join(&r, VMM_EXIT_HLT);
    end();
}

static _Atomic unsigned meeting;

static void meet(struct device *self)
{
    (void)self;
    meeting++;
    WAIT(meeting >= 2); /* until both are here */
}

static void callbacks_at_the_same_time(void)
{
    struct runner r[2];

    d.act = meet;
    START(LONG64, read_once);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    struct vcpu_regs regs = get_regs(vm_vcpu(vm, 1));
    regs.gpr[VMM_RBX] = MMIO;
    set_regs(vm_vcpu(vm, 1), &regs, VMM_REGS_GPR);
    for (unsigned i = 0; i < 2; i++)
        run_start(&r[i], vm_vcpu(vm, i));
    for (unsigned i = 0; i < 2; i++)
        run_join(&r[i], VMM_EXIT_HLT);
    EQ(meeting, 2);
    end();
}

static void new_state_drops_the_access(void)
{
    d.result = VMM_IO_EXIT;
    START(LONG64, read_write);
    for (int i = 0; i < 2; i++) {
        struct vcpu_setup setup = {.size = sizeof(setup),
                                   .mode = VMM_SETUP_LONG64,
                                   .rip = CODE,
                                   .rsp = SNIP_STACK,
                                   .cr3 = SNIP_TABLES};

        RUN(MMIO);
        EQ(ex.u.mmio.access, VMM_ACCESS_READ);
        EQ(d.n, (unsigned)i + 1);
        OK(vcpu_set_mode(cpu, &setup));
        set_gpr(VMM_RBX, MMIO);
    }
    end();
}

static void what_register_refuses(void)
{
    struct vmm_io_ops ops = device_ops();
    struct mmio *m;

    START(LONG64, read_once);
    RESULT(mmio_register(vm, MMIO + 0xfff, 2, &ops, &d, &m), VMM_E_EXIST);
    RESULT(mmio_register(vm, MMIO + 0x2000, 0, &ops, &d, &m), VMM_E_INVAL);
    RESULT(mmio_register(vm, UINT64_MAX, 2, &ops, &d, &m), VMM_E_RANGE);
    RESULT(pio_register(vm, 0x9f, 1, &ops, &d, NULL), VMM_E_EXIST);
    RESULT(pio_register(vm, 0xffff, 2, &ops, &d, NULL), VMM_E_RANGE);
    ops.max_access = 3;
    RESULT(mmio_register(vm, MMIO + 0x2000, 4, &ops, &d, &m), VMM_E_INVAL);
    ops.max_access = 2;
    ops.min_access = 4;
    RESULT(mmio_register(vm, MMIO + 0x2000, 4, &ops, &d, &m), VMM_E_INVAL);
    ops = device_ops();
    ops.flags = 0x8000;
    RESULT(mmio_register(vm, MMIO + 0x2000, 4, &ops, &d, &m), VMM_E_UNSUPPORTED);
    EQ(d.released, 0);
    end();
    EQ(d.released, 2);
}

static const struct conform_case cases[] = {
    CASE(port_sizes, "IN and OUT of 1, 2 and 4 bytes"),
    CASE(port_not_aligned, "port accesses that are not aligned come as aligned pieces"),
    CASE(port_string, "REP INS and OUTS access element by element, upwards and downwards"),
    CASE(long_port_strings, "long INS and OUTS make each access exactly once"),
    CASE(port_string_to_a_device, "INS and OUTS between a port and a memory-mapped device"),
    CASE(ports_at_cpl_3, "user mode reaches ports by IOPL, else #GP"),
    CASE(nobody, "NOBODY and unknown results: reads are all ones, writes dropped"),
    CASE(missing_callbacks, "a missing callback acts as NOBODY"),
    CASE(exit_to_the_program, "EXIT: vcpu_run returns with the access, the answer completes it"),
    CASE(nobody_registered, "unregistered addresses exit; what is not answered is all ones"),
    CASE(exact_registers_at_exits, "registers are exact at each exit"),
    CASE(registers_between_exit_and_answer, "registers set while an access waits keep their value"),
    CASE(moved_rip_drops_the_access, "another RIP drops the instruction that waits"),
    CASE(kick_between_exit_and_answer, "a kick between exit and completion loses no answer"),
    CASE(several_accesses_of_one_instruction, "each access of an instruction takes effect once"),
    CASE(deferred, "DEFER: the vCPU waits inside vcpu_run for mmio_complete"),
    CASE(completed_before_the_callback_returns, "mmio_complete from within the callback"),
    CASE(kick_and_budget_while_deferred, "kicks and budgets end a deferred wait, not the access"),
    CASE(registers_in_callbacks, "a callback reads and writes its vCPU; RIP cannot be moved"),
    CASE(unregister_from_a_callback, "a callback may unregister itself; release comes behind it"),
    CASE(move_from_a_callback, "mmio_move from a callback; taken places are refused"),
    CASE(change_registrations_while_running, "register and unregister while the vCPU accesses"),
    CASE(unregister_waits_for_callbacks, "mmio_unregister waits for callbacks on other threads"),
    CASE(callbacks_at_the_same_time, "callbacks of one registration run on two vCPUs at once"),
    CASE(new_state_drops_the_access, "vcpu_set_mode drops the instruction that waits"),
    CASE(what_register_refuses, "overlaps, empty ranges and bad ops are refused"),
};

AREA(io, cases);
