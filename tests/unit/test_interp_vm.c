/* SPDX-License-Identifier: BSD-2-Clause */
/* test_interp_vm.c: whole VMs on the software CPU: real-mode code through the public API. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include <vmm/vmm.h>

#include <vmm/device.h>

static const char *const interp_only[] = {"interp", NULL};

static struct vm *vm;
static struct vcpu *vcpu;
static struct vcpu_exit ex;

static void begin(uint32_t irqchip, uint32_t cpus)
{
    struct vm_config config = {.size = sizeof(config),
                               .select = VMM_SELECT_REQUIRE,
                               .backends = interp_only,
                               .irqchip = irqchip,
                               .max_vcpus = cpus};

    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x100000, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    memset(&ex, 0, sizeof(ex));
    ex.size = sizeof(ex);
}

static void end(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
}

/* Puts code at 0:1000 and `v` there in real mode, with a stack below. */
static void load(struct vcpu *v, const uint8_t *code, size_t len)
{
    struct vcpu_setup s = {.size = sizeof(s), .mode = VMM_SETUP_REAL, .rip = 0x1000, .rsp = 0x1000};

    ck_assert_int_eq(vm_mem_write(vm, 0x1000, code, len), 0);
    ck_assert_int_eq(vcpu_set_mode(v, &s), 0);
}
#define LOAD(...)                                                                                  \
    do {                                                                                           \
        static const uint8_t code_[] = {__VA_ARGS__};                                              \
        load(vcpu, code_, sizeof(code_));                                                          \
    } while (0)

static uint32_t run(void)
{
    ck_assert_int_eq(vcpu_run(vcpu, &ex), 0);
    return ex.reason;
}

static struct vcpu_regs regs_of(struct vcpu *v)
{
    struct vcpu_regs r = {.size = sizeof(r), .groups = VMM_REGS_ALL};

    ck_assert_int_eq(vcpu_get_regs(v, &r), 0);
    return r;
}

START_TEST(adds_and_halts)
{
    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0xb8, 0x02, 0x00, /* mov ax, 2 */
         0x05, 0x28, 0x00, /* add ax, 40 */
         0xf4);            /* hlt */
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RAX], 42);
    ck_assert_uint_eq(ex.rip, 0x1007);
    ck_assert_uint_eq(ex.mode, VMM_MODE_REAL);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    end();
}
END_TEST

START_TEST(starts_at_the_reset_vector)
{
    static const uint8_t rom[16] = {0xf4};

    begin(VMM_IRQCHIP_NONE, 1);
    ck_assert_int_eq(vm_mem_alloc(vm, 0xffff0000, 0x10000, VMM_MEM_RX, NULL), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0xfffffff0, rom, sizeof(rom)), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(ex.rip, 0xfff1);
    end();
}
END_TEST

START_TEST(port_exits)
{
    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0xe4, 0x60, /* in al, 0x60 */
         0xfe, 0xc0, /* inc al */
         0xe6, 0x61, /* out 0x61, al */
         0xf4);      /* hlt */
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x60);
    ck_assert_uint_eq(ex.u.pio.access, VMM_ACCESS_READ);
    ck_assert_uint_eq(ex.rip, 0x1000);
    ck_assert_uint_ge(ex.insn_len, 2);
    ck_assert_uint_eq(ex.insn[0], 0xe4);
    ex.u.pio.data = 0x41;
    vcpu_kick(vcpu);
    ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x61);
    ck_assert_uint_eq(ex.u.pio.data, 0x42);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    end();
}
END_TEST

/* Also at the address where an instruction waits for its completion. */
START_TEST(ready_made_state_begins_anew)
{
    begin(VMM_IRQCHIP_NONE, 1);
    for (int i = 0; i < 2; i++) {
        LOAD(0xe4, 0x60, /* in al, 0x60 */
             0xf4);      /* hlt */
        ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    }
    ex.u.pio.data = 0x41;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RAX], 0x41);
    end();
}
END_TEST

START_TEST(mmio_read_modify_write_exits)
{
    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0x68, 0x00, 0xf0,                   /* push 0xf000 */
         0x07,                               /* pop es */
         0x26, 0x80, 0x06, 0x00, 0xf0, 0x05, /* add byte es:[0xf000], 5 */
         0xf4);
    ck_assert_int_eq(vm_mem_unmap(vm, 0), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x10000, VMM_MEM_RWX, NULL), 0);
    LOAD(0x68, 0x00, 0xf0, 0x07, 0x26, 0x80, 0x06, 0x00, 0xf0, 0x05, 0xf4);
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(ex.u.mmio.gpa, 0xfe000 + 0x1000);
    ck_assert_uint_eq(ex.u.mmio.len, 1);
    ck_assert_uint_eq(ex.u.mmio.access, VMM_ACCESS_READ);
    ex.u.mmio.data = 0x10;
    ck_assert_uint_eq(run(), VMM_EXIT_MMIO);
    ck_assert_uint_eq(ex.u.mmio.access, VMM_ACCESS_WRITE);
    ck_assert_uint_eq(ex.u.mmio.data, 0x15);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    end();
}
END_TEST

static uint8_t cell = 0x20;

/* Changes the memory map from inside an access. */
static int cell_read(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    struct mmio *other;
    struct vmm_io_ops none = {.size = sizeof(none), .name = "none"};

    (void)opaque;
    (void)offset;
    (void)size;
    ck_assert_int_eq(mmio_register(vm, 0x900000, 16, &none, NULL, &other), 0);
    mmio_unregister(other);
    *value = cell;
    return VMM_IO_OK;
}

static int cell_write(void *opaque, uint64_t offset, uint32_t size, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    cell = (uint8_t)value;
    return VMM_IO_OK;
}

/* LOCK excludes the other vCPUs; callbacks must run all the same. */
START_TEST(locked_access_to_a_device)
{
    struct vmm_io_ops ops = {.size = sizeof(ops),
                             .name = "cell",
                             .max_access = 1,
                             .read = cell_read,
                             .write = cell_write};

    begin(VMM_IRQCHIP_NONE, 2);
    ck_assert_int_eq(vm_mem_unmap(vm, 0), 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x10000, VMM_MEM_RWX, NULL), 0);
    ck_assert_int_eq(mmio_register(vm, 0x10000, 0x1000, &ops, NULL, NULL), 0);
    LOAD(0x68, 0x00, 0x10,                         /* push 0x1000 */
         0x07,                                     /* pop es */
         0xf0, 0x26, 0x80, 0x06, 0x00, 0x00, 0x05, /* lock add byte es:[0], 5 */
         0x68, 0xff, 0x0f,                         /* push 0xfff */
         0x07,                                     /* pop es */
         0xf0, 0x26, 0x83, 0x06, 0x0f, 0x00, 0x05, /* lock add word es:[15], 5: memory and device */
         0xf4);
    cell = 0x20;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(cell, 0x25);
    end();
}
END_TEST

static const uint8_t spin[] = {0xeb, 0xfe}; /* jmp $ */

START_TEST(instruction_budget_is_exact)
{
    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0x40, 0xeb, 0xfd); /* inc ax; jmp to it */
    for (uint64_t n = 1; n < 5000; n = n * 2 + 1) {
        struct vcpu_regs before = regs_of(vcpu);
        ck_assert_int_eq(vcpu_set_budget(vcpu, 2 * n, 0), 0);
        ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
        struct vcpu_regs after = regs_of(vcpu);
        ck_assert_uint_eq((after.gpr[VMM_RAX] - before.gpr[VMM_RAX]) & 0xffff, n);
        ck_assert_uint_eq(after.rip, 0x1000);
    }
    vcpu_set_budget(vcpu, 1, 0);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    ck_assert_uint_eq(ex.rip, 0x1001);
    end();
}
END_TEST

START_TEST(wall_time_budget)
{
    begin(VMM_IRQCHIP_NONE, 1);
    load(vcpu, spin, sizeof(spin));
    vcpu_set_budget(vcpu, 0, 3000000);
    ck_assert_uint_eq(run(), VMM_EXIT_BUDGET);
    ck_assert_uint_ge(vm_clock(vm), 3000000);
    end();
}
END_TEST

START_TEST(steps)
{
    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0x90, 0x40, 0xeb, 0xfc); /* nop; inc ax; jmp to the nop */
    static const uint64_t rips[] = {0x1001, 0x1002, 0x1000, 0x1001};
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(vcpu_step(vcpu, &ex), 0);
        ck_assert_uint_eq(ex.reason, VMM_EXIT_STEP);
        ck_assert_uint_eq(ex.rip, rips[i]);
    }
    end();
}
END_TEST

struct kicks {
    _Atomic uint32_t returned;
    _Atomic int over;
};

static void *kicker(void *opaque)
{
    struct kicks *k = opaque;
    uint32_t seen = 0;

    while (!k->over) {
        vcpu_kick(vcpu);
        while (k->returned == seen && !k->over)
            sched_yield();
        seen = k->returned;
    }
    return NULL;
}

START_TEST(kicks_from_a_thread)
{
    struct kicks k = {0};
    pthread_t thread;

    begin(VMM_IRQCHIP_NONE, 1);
    load(vcpu, spin, sizeof(spin));
    pthread_create(&thread, NULL, kicker, &k);
    for (int i = 0; i < 1000; i++) {
        ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
        k.returned++;
    }
    k.over = 1;
    pthread_join(thread, NULL);
    end();
}
END_TEST

static void on_signal(int number)
{
    (void)number;
    vcpu_kick(vcpu);
}

START_TEST(kicks_from_a_signal_handler)
{
    struct sigaction sa = {.sa_handler = on_signal};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
    timer_t timer;

    begin(VMM_IRQCHIP_PC, 1);
    load(vcpu, spin, sizeof(spin));
    sigaction(SIGUSR1, &sa, NULL);
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    timer_settime(timer, 0, &every, NULL);
    for (int i = 0; i < 20; i++)
        ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    LOAD(0xf4, 0xeb, 0xfd); /* also while it is halted */
    for (int i = 0; i < 20; i++)
        ck_assert_uint_eq(run(), VMM_EXIT_INTERRUPTED);
    timer_delete(timer);
    end();
}
END_TEST

/* IRQ 0 of the 8259 as it is after reset, with the vector base that BIOSes use, counts in [0x500].
 */
static const uint8_t tick_handler[] = {
    0x50,                         /* push ax */
    0x2e, 0xff, 0x06, 0x00, 0x05, /* inc word cs:[0x500] */
    0xb0, 0x20, 0xe6, 0x20,       /* EOI */
    0x58, 0xcf,                   /* pop ax; iret */
};
static const uint8_t tick_main[] = {
    0xb0, 0x11, 0xe6, 0x20,       /* ICW1: edge, cascade, ICW4 */
    0xb0, 0x08, 0xe6, 0x21,       /* vectors 8 to 15 */
    0xb0, 0x04, 0xe6, 0x21,       /* slave at input 2 */
    0xb0, 0x01, 0xe6, 0x21,       /* 8086 mode */
    0xb0, 0xfe, 0xe6, 0x21,       /* only IRQ 0 */
    0xb0, 0x34, 0xe6, 0x43,       /* counter 0: rate generator */
    0xb0, 0xa9, 0xe6, 0x40,       /* 1193 ticks: 1 ms */
    0xb0, 0x04, 0xe6, 0x40,       /**/
    0xfb,                         /* sti */
    0xf4,                         /* hlt */
    0x83, 0x3e, 0x00, 0x05, 0x05, /* cmp word [0x500], 5 */
    0x72, 0xf8,                   /* jb to the hlt */
    0xe6, 0x99,                   /* out 0x99, al */
};

START_TEST(a_halted_guest_gets_its_timer)
{
    static const uint8_t vector[4] = {0x00, 0x20, 0x00, 0x00}; /* 0:2000 */

    begin(VMM_IRQCHIP_PC, 1);
    ck_assert_int_eq(vmm_pit_create(vm), 0);
    load(vcpu, tick_main, sizeof(tick_main));
    ck_assert_int_eq(vm_mem_write(vm, 8 * 4, vector, sizeof(vector)), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x2000, tick_handler, sizeof(tick_handler)), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x99);
    ck_assert_uint_ge(vm_clock(vm), 4000000);

    struct vm_stats stats = {.size = sizeof(stats)};
    ck_assert_int_eq(vm_get_stats(vm, &stats), 0);
    ck_assert_uint_ge(stats.irqs, 5);
    ck_assert_uint_ge(stats.halts, 1);
    ck_assert_uint_gt(stats.insns, 20);
    end();
}
END_TEST

START_TEST(injected_interrupt_ends_the_halt)
{
    static const uint8_t vector[4] = {0x00, 0x20, 0x00, 0x00};
    static const uint8_t handler[] = {0xbb, 0x34, 0x12, 0xcf}; /* mov bx, 0x1234; iret */
    struct vmm_event e = {.size = sizeof(e), .type = VMM_EVENT_INTERRUPT, .vector = 0x21};

    begin(VMM_IRQCHIP_NONE, 1);
    LOAD(0xfb, 0xf4, 0x41, 0xe6, 0x99); /* sti; hlt; inc cx; out 0x99, al */
    ck_assert_int_eq(vm_mem_write(vm, 0x21 * 4, vector, sizeof(vector)), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x2000, handler, sizeof(handler)), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_STATE);
    ck_assert_int_eq(vcpu_request_irq_window(vcpu, 1), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_IRQ_WINDOW);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_int_eq(vcpu_irq_window_open(vcpu), 1);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), 0);
    ck_assert_int_eq(vcpu_inject(vcpu, &e), VMM_E_BUSY);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RBX], 0x1234);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RCX], 1);
    end();
}
END_TEST

/* ---- two CPUs ---- */

static void *run_second(void *opaque)
{
    struct vcpu_exit *exit = opaque;

    exit->size = sizeof(*exit);
    vcpu_run(vm_vcpu(vm, 1), exit);
    return NULL;
}

START_TEST(second_cpu_starts_by_sipi)
{
    struct vcpu *second;
    struct vcpu_exit exit;
    pthread_t thread;
    /* At 0:3000, in vector 3's page: mov ax, cs; out 0x98, al */
    static const uint8_t ap[] = {0x8c, 0xc8, 0xe6, 0x98};
    static const uint8_t code[] = {
        0xfc,                                              /* cld */
        0x66, 0xbb, 0x00, 0x03, 0xe0, 0xfe,                /* mov ebx, ICR */
        0x66, 0x67, 0xc7, 0x43, 0x10, 0,    0,    0,    1, /* ICR high: CPU 1 */
        0x66, 0x67, 0xc7, 0x03, 0x00, 0x45, 0x00, 0x00,    /* INIT */
        0x66, 0x67, 0xc7, 0x03, 0x03, 0x46, 0x00, 0x00,    /* SIPI to page 3 */
        0xe6, 0x99,
    };
    struct vcpu_regs r;

    begin(VMM_IRQCHIP_PC, 2);
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    ck_assert_uint_eq(regs_of(second).activity, VMM_WAIT_SIPI);
    load(vcpu, code, sizeof(code));
    ck_assert_int_eq(vm_mem_write(vm, 0x3000, ap, sizeof(ap)), 0);
    /* Unreal mode reaches the local APIC. */
    r = regs_of(vcpu);
    r.groups = VMM_REGS_SEG;
    r.seg[VMM_DS].limit = 0xffffffff;
    r.seg[VMM_DS].ar |= VMM_AR_G;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
    pthread_create(&thread, NULL, run_second, &exit);
    ck_assert_uint_eq(run(), VMM_EXIT_PIO);
    ck_assert_uint_eq(ex.u.pio.port, 0x99);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_PIO);
    ck_assert_uint_eq(exit.u.pio.port, 0x98);
    ck_assert_uint_eq(regs_of(second).gpr[VMM_RAX] & 0xffff, 0x300);
    end();
}
END_TEST

START_TEST(pause_and_map_while_running)
{
    struct vcpu_exit exit;
    struct vcpu *second;
    pthread_t thread;

    begin(VMM_IRQCHIP_PC, 2);
    ck_assert_int_eq(vcpu_create(vm, 1, NULL, &second), 0);
    load(second, spin, sizeof(spin));
    pthread_create(&thread, NULL, run_second, &exit);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x1000, VMM_MEM_RWX, NULL), 0);
        ck_assert_int_eq(vm_mem_unmap(vm, 0x200000), 0);
        ck_assert_int_eq(vm_pause(vm), 0);
        uint64_t clock = vm_clock(vm);
        ck_assert_uint_eq(vm_clock(vm), clock);
        ck_assert_int_eq(vm_resume(vm), 0);
    }
    vm_stop(vm);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(exit.reason, VMM_EXIT_STOPPED);
    ck_assert_int_eq(vm_resume(vm), 0);
    ck_assert_int_eq(vm_reset(vm), 0);
    ck_assert_uint_eq(regs_of(vcpu).rip, 0xfff0);
    ck_assert_uint_eq(regs_of(vcpu).seg[VMM_CS].base, 0xffff0000);
    end();
}
END_TEST

START_TEST(long_mode_and_triple_fault)
{
    struct vcpu_setup s = {.size = sizeof(s),
                           .mode = VMM_SETUP_LONG64,
                           .rip = 0x1000,
                           .rsp = 0x8000,
                           .tables = 0x10000};
    static const uint8_t code[] = {0x48, 0xb8, 1,    2,    3, 4, 5, 6, 7, 8, /* mov rax, imm64 */
                                   0x66, 0x0f, 0x6f, 0xc1,                   /* movdqa xmm0, xmm1 */
                                   0xf4, 0x0f, 0x0b};                        /* hlt; ud2 */
    uint64_t gpa = 0;
    int ok = 0;

    begin(VMM_IRQCHIP_NONE, 1);
    ck_assert_int_eq(vm_mem_write(vm, 0x1000, code, sizeof(code)), 0);
    ck_assert_int_eq(vcpu_set_mode(vcpu, &s), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(ex.mode, VMM_MODE_LONG64);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RAX], 0x0807060504030201);
    ck_assert_int_eq(vcpu_translate(vcpu, 0x1234, &gpa, &ok), 0);
    ck_assert_int_eq(ok, 1);
    ck_assert_uint_eq(gpa, 0x1234);
    ck_assert_int_eq(vcpu_translate(vcpu, 0x8000000000, &gpa, &ok), 0);
    ck_assert_int_eq(ok, 0);

    struct vcpu_regs r = regs_of(vcpu);
    r.groups = VMM_REGS_EVENTS;
    r.activity = VMM_ACTIVE;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), 0);
    ck_assert_uint_eq(run(), VMM_EXIT_SHUTDOWN); /* #UD without an IDT */
    ck_assert_uint_eq(run(), VMM_EXIT_SHUTDOWN);
    r = regs_of(vcpu);
    r.groups = VMM_REGS_CONTROL;
    r.cr4 = 0; /* long mode without PAE */
    ck_assert_int_eq(vcpu_set_regs(vcpu, &r), VMM_E_INVAL);
    end();
}
END_TEST

START_TEST(default_cpuid_can_be_set)
{
    struct vmm_cpuid table[256];
    uint32_t n = 256;

    begin(VMM_IRQCHIP_NONE, 1);
    ck_assert_int_eq(vm_default_cpuid(vm, table, &n), 0);
    ck_assert_uint_gt(n, 5);
    ck_assert_int_eq(vcpu_set_cpuid(vcpu, table, n), 0);
    LOAD(0x66, 0x31, 0xc0, 0x0f, 0xa2, 0xf4); /* xor eax, eax; cpuid; hlt */
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RAX], table[0].eax);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RBX], table[0].ebx);
    end();
}
END_TEST

START_TEST(msr_exit)
{
    begin(VMM_IRQCHIP_NONE, 1);
    ck_assert_int_eq(vcpu_msr_policy(vcpu, 0x1234, 0x1234, VMM_MSR_EXIT), 0);
    LOAD(0x66, 0xb9, 0x34, 0x12, 0, 0, 0x0f, 0x32, 0xf4); /* mov ecx, 0x1234; rdmsr; hlt */
    ck_assert_uint_eq(run(), VMM_EXIT_MSR);
    ck_assert_uint_eq(ex.u.msr.index, 0x1234);
    ex.u.msr.value = 0x1122334455667788;
    ck_assert_uint_eq(run(), VMM_EXIT_HLT);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RAX], 0x55667788);
    ck_assert_uint_eq(regs_of(vcpu).gpr[VMM_RDX], 0x11223344);
    end();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("interp_vm");
    TCase *tc = tcase_create("interp_vm");

    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, adds_and_halts);
    tcase_add_test(tc, starts_at_the_reset_vector);
    tcase_add_test(tc, port_exits);
    tcase_add_test(tc, ready_made_state_begins_anew);
    tcase_add_test(tc, mmio_read_modify_write_exits);
    tcase_add_test(tc, locked_access_to_a_device);
    tcase_add_test(tc, instruction_budget_is_exact);
    tcase_add_test(tc, wall_time_budget);
    tcase_add_test(tc, steps);
    tcase_add_test(tc, kicks_from_a_thread);
    tcase_add_test(tc, kicks_from_a_signal_handler);
    tcase_add_test(tc, a_halted_guest_gets_its_timer);
    tcase_add_test(tc, injected_interrupt_ends_the_halt);
    tcase_add_test(tc, second_cpu_starts_by_sipi);
    tcase_add_test(tc, pause_and_map_while_running);
    tcase_add_test(tc, long_mode_and_triple_fault);
    tcase_add_test(tc, default_cpuid_can_be_set);
    tcase_add_test(tc, msr_exit);

    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
