/* SPDX-License-Identifier: BSD-2-Clause */
/* test_lapic.c: the local APIC: registers, priorities, IPIs, timer, errors, x2APIC. */
#include <check.h>

#include "fake_irq.h"

#define ID          0x20u
#define VERSION     0x30u
#define TPR         0x80u
#define PPR         0xa0u
#define EOI         0xb0u
#define LDR         0xd0u
#define DFR         0xe0u
#define SVR         0xf0u
#define ISR         0x100u
#define TMR         0x180u
#define IRR         0x200u
#define ESR         0x280u
#define ICR         0x300u
#define ICR2        0x310u
#define LVT_TIMER   0x320u
#define LVT_THERMAL 0x330u
#define LVT_PERF    0x340u
#define LVT_LINT0   0x350u
#define LVT_LINT1   0x360u
#define LVT_ERROR   0x370u
#define TICR        0x380u
#define TCCR        0x390u
#define TDCR        0x3e0u

#define MASKED   0x10000u
#define PERIODIC 0x20000u
#define DEADLINE 0x40000u

#define APIC_BASE    0x1bu
#define TSC_DEADLINE 0x6e0u

#define BASE_XAPIC  0xfee00800ull
#define BASE_X2APIC 0xfee00c00ull
#define BSP         0x100ull

static void ipi(uint32_t from, uint32_t dest, uint32_t low)
{
    apic_write(from, ICR2, dest << 24);
    apic_write(from, ICR, low);
}

static uint32_t esr(uint32_t n)
{
    apic_write(n, ESR, 0);
    return apic_read(n, ESR);
}

static void eoi(uint32_t n)
{
    apic_write(n, EOI, 0);
}

static void setup(void)
{
    irq_setup();
    apic_enable_all();
}

/* ---- registers ---- */

START_TEST(state_after_reset)
{
    irqchip_reset(chip);
    ck_assert_uint_eq(apic_read(2, ID), 2u << 24);
    ck_assert_uint_eq(apic_read(0, VERSION), 0x00050014);
    ck_assert_uint_eq(apic_read(0, TPR), 0);
    ck_assert_uint_eq(apic_read(0, PPR), 0);
    ck_assert_uint_eq(apic_read(0, LDR), 0);
    ck_assert_uint_eq(apic_read(0, DFR), 0xffffffff);
    ck_assert_uint_eq(apic_read(0, SVR), 0xff);
    ck_assert_uint_eq(apic_read(1, LVT_TIMER), MASKED);
    ck_assert_uint_eq(apic_read(1, LVT_LINT0), MASKED);
    ck_assert_uint_eq(apic_read(1, LVT_LINT1), MASKED);
    ck_assert_uint_eq(apic_read(1, LVT_ERROR), MASKED);
    ck_assert_uint_eq(apic_read(0, TICR), 0);
    ck_assert_uint_eq(apic_read(0, TDCR), 0);
    ck_assert_uint_eq(rdmsr(0, APIC_BASE), BASE_XAPIC | BSP);
    ck_assert_uint_eq(rdmsr(3, APIC_BASE), BASE_XAPIC);
}
END_TEST

START_TEST(writable_bits)
{
    static const struct {
        uint32_t reg, reads;
    } t[] = {
        {TPR, 0xff},
        {LDR, 0xff000000},
        {DFR, 0xffffffff},
        {SVR, 0x3ff},
        {LVT_TIMER, 0x000700ff},
        {LVT_THERMAL, 0x000107ff},
        {LVT_PERF, 0x000107ff},
        {LVT_LINT0, 0x0001a7ff},
        {LVT_LINT1, 0x0001a7ff},
        {LVT_ERROR, 0x000100ff},
        {TDCR, 0xb},
        {ICR2, 0xff000000},
        {VERSION, 0x00050014},
        {ID, 1u << 24},
    };

    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        apic_write(1, t[i].reg, 0xffffffff);
        ck_assert_msg(apic_read(1, t[i].reg) == t[i].reads, "register %#x: %#x", t[i].reg,
                      apic_read(1, t[i].reg));
    }
    apic_write(1, DFR, 0);
    ck_assert_uint_eq(apic_read(1, DFR), 0x0fffffff);
}
END_TEST

START_TEST(reserved_registers_are_an_error)
{
    ck_assert_uint_eq(esr(0), 0);
    ck_assert_uint_eq(apic_read(0, 0x40), 0);
    ck_assert_uint_eq(apic_read(0, ESR), 0); /* only a write shows it */
    ck_assert_uint_eq(esr(0), 0x80);
    ck_assert_uint_eq(esr(0), 0);
    apic_write(0, 0x400, 1);
    ck_assert_uint_eq(esr(0), 0x80);
    apic_write(0, 0x3f0, 0x41); /* SELF IPI is x2APIC's */
    ck_assert_uint_eq(esr(0), 0x80);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(errors_interrupt_through_their_lvt)
{
    apic_write(0, LVT_ERROR, 0xfe);
    apic_read(0, 0x40);
    ck_assert_int_eq(ack(0), 0xfe);
    eoi(0);
    apic_read(0, 0x40); /* the same error again, not cleared: no other interrupt */
    ck_assert_int_eq(ack(0), NO_VECTOR);
    esr(0);
    apic_read(0, 0x40);
    ck_assert_int_eq(ack(0), 0xfe);
}
END_TEST

START_TEST(narrow_and_unaligned_accesses_do_no_harm)
{
    current = &cpu[2];
    ck_assert_uint_eq(mmio_in(vm, LAPIC_GPA + ID + 3, 1), 2);
    ck_assert_uint_eq(mmio_in(vm, LAPIC_GPA + ID + 4, 4), 0);
    mmio_out(vm, LAPIC_GPA + TPR, 1, 0x55);
    ck_assert_uint_eq(apic_read(2, TPR), 0);
}
END_TEST

START_TEST(each_cpu_sees_its_own_and_others_see_nothing)
{
    apic_write(1, TPR, 0x20);
    ck_assert_uint_eq(apic_read(0, TPR), 0);
    current = NULL;
    ck_assert_uint_eq(mmio_in(vm, LAPIC_GPA + TPR, 4), 0xffffffff);
}
END_TEST

/* ---- priorities ---- */

START_TEST(the_highest_vector_first)
{
    ipi(1, 0, 0x41);
    ipi(1, 0, 0x91);
    ipi(1, 0, 0x47);
    ck_assert_uint_eq(apic_read(0, IRR + 0x20), 1u << 1 | 1u << 7);
    ck_assert_uint_eq(apic_read(0, IRR + 0x40), 1u << 0x11);
    ck_assert_int_eq(ack(0), 0x91);
    ck_assert_uint_eq(apic_read(0, ISR + 0x40), 1u << 0x11);
    ck_assert_uint_eq(apic_read(0, PPR), 0x90);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ipi(1, 0, 0x9f); /* same class: waits */
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ipi(1, 0, 0xa0);
    ck_assert_int_eq(ack(0), 0xa0);
    eoi(0);
    ck_assert_uint_eq(apic_read(0, PPR), 0x90);
    eoi(0);
    ck_assert_int_eq(ack(0), 0x9f);
    eoi(0);
    ck_assert_int_eq(ack(0), 0x47);
    eoi(0);
    ck_assert_int_eq(ack(0), 0x41);
    eoi(0);
    eoi(0); /* nothing in service: harmless */
    ck_assert_uint_eq(apic_read(0, PPR), 0);
}
END_TEST

START_TEST(task_priority_holds_classes_back)
{
    apic_write(0, TPR, 0x45);
    ck_assert_uint_eq(apic_read(0, PPR), 0x45);
    ck_assert_uint_eq(lapic_get_cr8(cpu[0].lapic), 4);
    ipi(1, 0, 0x4f);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    uint32_t before = cpu[0].intr;
    lapic_set_cr8(cpu[0].lapic, 3);
    ck_assert_uint_gt(cpu[0].intr, before);
    ck_assert_uint_eq(apic_read(0, TPR), 0x30);
    ck_assert_int_eq(ack(0), 0x4f);
    lapic_set_cr8(cpu[0].lapic, 15);
    ipi(1, 0, 0xff);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ipi(1, 0, 0x400); /* NMI passes */
    ck_assert_uint_eq(cpu[0].nmi, 1);
}
END_TEST

/* An engine's hardware keeps the task priority while the guest runs. */
START_TEST(a_lent_task_priority)
{
    atomic_uint tpr = 0;

    apic_write(0, TPR, 0x53);
    ck_assert_uint_eq(lapic_lend(cpu[0].lapic, &tpr), 0);
    ck_assert(lapic_place(cpu[0].lapic) == LAPIC_IN_PAGE && tpr == 0x53);
    /* Others see what the guest has made of it; what arrives is told in any case. */
    atomic_store(&tpr, 0x80);
    ck_assert_uint_eq(apic_read(0, PPR), 0x80);
    ck_assert_uint_eq(lapic_get_cr8(cpu[0].lapic), 8);
    cpu[0].intr = 0;
    ipi(1, 0, 0x4041);
    ck_assert(cpu[0].intr && !lapic_intr(cpu[0].lapic));
    /* Lowered, and back: it is noticed when the priority comes back. */
    atomic_store(&tpr, 0x31);
    lapic_take_back(cpu[0].lapic);
    ck_assert_uint_eq(apic_read(0, TPR), 0x31);
    ck_assert(lapic_intr(cpu[0].lapic));
    apic_write(0, TPR, 0x45);
    ck_assert(!lapic_intr(cpu[0].lapic));
    ck_assert_uint_eq(lapic_lend(cpu[0].lapic, &tpr), 4); /* waits for less than 4 */
    lapic_take_back(cpu[0].lapic);
    ck_assert_uint_eq(apic_read(0, TPR), 0x45);
    apic_write(0, TPR, 0x30);
    ck_assert_uint_eq(lapic_lend(cpu[0].lapic, &tpr), 0); /* for nothing */
    /* It arrives while the guest has raised the priority for a moment. */
    ck_assert_int_eq(ack(0), 0x41);
    eoi(0);
    atomic_store(&tpr, 0xf0);
    ipi(1, 0, 0x4042);
    ck_assert(!lapic_intr(cpu[0].lapic));
    atomic_store(&tpr, 0x30);
    lapic_take_back(cpu[0].lapic);
    ck_assert_int_eq(ack(0), 0x42);
}
END_TEST

/* ... or delivers and ends interrupts, in a virtual-APIC page. */
static uint32_t in_page(const uint8_t *page, uint32_t at)
{
    return (uint32_t)page[at] | (uint32_t)page[at + 1] << 8 | (uint32_t)page[at + 2] << 16 |
           (uint32_t)page[at + 3] << 24;
}

START_TEST(lent_delivery)
{
    struct lapic *l = cpu[0].lapic;
    struct lapic_delivery d;
    uint8_t page[4096] = {0};
    atomic_uint tpr = 0;

    apic_write(0, TPR, 0x20);
    ipi(1, 0, 0x4041);
    ck_assert_int_eq(ack(0), 0x41);
    ipi(1, 0, 0x4051);
    ipi(1, 0, 0x4031);
    lapic_lend_delivery(l, &tpr, page, &d);
    ck_assert(d.requested == 0x51 && d.serviced == 0x41 && d.waiting == 2);
    ck_assert(!d.level[0] && !d.level[1] && !d.level[2] && !d.level[3]);
    ck_assert_uint_eq(in_page(page, 0xa0), 0x40);
    ck_assert_uint_eq(in_page(page, 0x120), 1u << 1);
    ck_assert_uint_eq(in_page(page, 0x220), 1u << 17);
    ck_assert_uint_eq(in_page(page, 0x210), 1u << 17);
    /* The guest takes 0x51 and ends both; 0x61 arrives meanwhile, and 0x31 once more. */
    page[0x222] = 0;
    page[0x120] = 0;
    cpu[0].intr = 0;
    ipi(1, 0, 0x4061);
    ipi(1, 0, 0x4031);
    ck_assert(cpu[0].intr);
    ck_assert_uint_eq(in_page(page, 0x230), 0);
    ck_assert_uint_eq(lapic_take_delivery(l, page), 1);
    lapic_take_back(l);
    ck_assert_uint_eq(apic_read(0, PPR), 0x20);
    ck_assert_int_eq(ack(0), 0x61);
    /* 0x61 in service, lent and ended there. */
    lapic_lend_delivery(l, &tpr, page, &d);
    ck_assert(d.requested == 0x31 && d.serviced == 0x61);
    page[0x130] = 0;
    lapic_take_delivery(l, page);
    lapic_take_back(l);
    lapic_ended(l, 0x61); /* edge-triggered: nobody is told */
    ck_assert_int_eq(ack(0), 0x31);
    eoi(0);
    lapic_lend_delivery(l, &tpr, page, &d);
    ck_assert(d.requested == 0 && d.serviced == 0);
    lapic_take_delivery(l, page);
    lapic_take_back(l);
    ck_assert(!lapic_intr(l));
}
END_TEST

/* ... or has its registers as memory, but for those that are not lent. */
START_TEST(lent_registers)
{
    static const uint32_t lent[] = {0x20,  0x30,  0xd0,  0xe0,  0xf0,  0x100, 0x170, 0x180,
                                    0x1f0, 0x200, 0x270, 0x280, 0x300, 0x310, 0x320, 0x330,
                                    0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0};
    struct lapic *l = cpu[1].lapic;
    uint8_t page[4096];
    atomic_uint tpr = 0;

    memset(page, 0xee, sizeof(page));
    apic_write(1, 0xf0, 0x1fe);
    apic_write(1, 0xd0, 0x12000000);
    apic_write(1, 0x3e0, 3);
    apic_write(1, 0x370, 0xfd);
    ipi(0, 1, 0x4041);
    ck_assert_int_eq(ack(1), 0x41);
    ipi(0, 1, 0x4077);
    lapic_lend(l, &tpr);
    lapic_lend_registers(l, page);
    lapic_take_registers(l, page);
    lapic_take_back(l);
    for (unsigned i = 0; i < sizeof(lent) / sizeof(lent[0]); i++)
        ck_assert_msg(in_page(page, lent[i]) == apic_read(1, lent[i]), "%#x", lent[i]);
    ck_assert_uint_eq(in_page(page, 0xb0), 0);
    ck_assert_uint_eq(in_page(page, 0x390), 0xeeeeeeee);
    /* What arrives is there the next time, and what the page has of it is not lost. */
    lapic_lend(l, &tpr);
    lapic_lend_registers(l, page);
    ipi(0, 1, 0x4091);
    ck_assert_uint_eq(in_page(page, 0x240), 0);
    /* The hardware keeps the ICR. */
    page[0x313] = 2;
    lapic_take_registers(l, page);
    lapic_take_back(l);
    ck_assert_uint_eq(apic_read(1, 0x310), 2u << 24);
    lapic_lend(l, &tpr);
    lapic_lend_registers(l, page);
    ck_assert_uint_eq(in_page(page, 0x240), 1u << 17);
    ck_assert_uint_eq(in_page(page, 0x230), 1u << 23);
    /* Written: the end of 0x41, an IPI to CPU 2, the id, which stays. */
    page[0xb0] = 5;
    lapic_take_registers(l, page);
    lapic_take_back(l);
    lapic_written(l, page, 0xb0);
    ck_assert_int_eq(ack(1), 0x91);
    page[0x300] = 0x66;
    page[0x301] = 0x50; /* with reserved bits */
    lapic_take_registers(l, page);
    cpu[2].intr = 0;
    lapic_written(l, page, 0x300);
    ck_assert(cpu[2].intr);
    ck_assert_uint_eq(apic_read(1, 0x300), 0x4066);
    page[0x23] = 9;
    lapic_written(l, page, 0x20);
    ck_assert_uint_eq(apic_read(1, 0x20), 1u << 24);
    lapic_lend(l, &tpr);
    lapic_lend_registers(l, page);
    ck_assert(!page[0xb0] && page[0x23] == 1 && in_page(page, 0x300) == 0x4066);
    ck_assert(in_page(page, 0x120) == 0 && in_page(page, 0x140) == 1u << 17);
    lapic_take_registers(l, page);
    lapic_take_back(l);
    ck_assert_uint_eq(apic_read(1, 0x240), 0);
}
END_TEST

START_TEST(an_interrupt_pends_once)
{
    ipi(1, 0, 0x50);
    ipi(2, 0, 0x50);
    ck_assert_int_eq(ack(0), 0x50);
    ipi(2, 0, 0x50); /* one in service, one requested */
    ck_assert_int_eq(ack(0), NO_VECTOR);
    eoi(0);
    ck_assert_int_eq(ack(0), 0x50);
    eoi(0);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

/* ---- IPIs ---- */

static uint32_t taken(int vector)
{
    uint32_t set = 0;

    for (uint32_t n = 0; n < CPUS; n++) {
        if (ack(n) == vector) {
            set |= 1u << n;
            eoi(n);
        }
    }
    return set;
}

START_TEST(shorthands)
{
    ipi(1, 0, 0x40000 | 0x61);
    ck_assert_uint_eq(taken(0x61), 0x2);
    ipi(1, 0, 0x80000 | 0x62);
    ck_assert_uint_eq(taken(0x62), 0xf);
    ipi(1, 0, 0xc0000 | 0x63);
    ck_assert_uint_eq(taken(0x63), 0xd);
    ck_assert_uint_eq(apic_read(1, ICR), 0xc0063); /* delivery status: idle */
}
END_TEST

START_TEST(physical_destinations)
{
    ipi(0, 3, 0x64);
    ck_assert_uint_eq(taken(0x64), 0x8);
    ipi(0, 0, 0x64);
    ck_assert_uint_eq(taken(0x64), 0x1);
    ipi(0, 9, 0x64);
    ck_assert_uint_eq(taken(0x64), 0);
    ipi(0, 0xff, 0x64);
    ck_assert_uint_eq(taken(0x64), 0xf);
}
END_TEST

START_TEST(logical_flat_destinations)
{
    for (uint32_t n = 0; n < CPUS; n++)
        apic_write(n, LDR, 0x10u << (24 + n));
    ipi(0, 0x60, 0x865);
    ck_assert_uint_eq(taken(0x65), 0x6);
    ipi(0, 0x0f, 0x865);
    ck_assert_uint_eq(taken(0x65), 0);
    ipi(0, 0xff, 0x865);
    ck_assert_uint_eq(taken(0x65), 0xf);
}
END_TEST

START_TEST(logical_cluster_destinations)
{
    static const uint32_t ldr[CPUS] = {0x11, 0x12, 0x21, 0x22};

    for (uint32_t n = 0; n < CPUS; n++) {
        apic_write(n, DFR, 0x0fffffff);
        apic_write(n, LDR, ldr[n] << 24);
    }
    ipi(0, 0x13, 0x866);
    ck_assert_uint_eq(taken(0x66), 0x3);
    ipi(0, 0x22, 0x866);
    ck_assert_uint_eq(taken(0x66), 0x8);
    ipi(0, 0xf1, 0x866); /* member 0 of all clusters */
    ck_assert_uint_eq(taken(0x66), 0x5);
    ipi(0, 0x34, 0x866);
    ck_assert_uint_eq(taken(0x66), 0);
    ipi(0, 0xff, 0x866);
    ck_assert_uint_eq(taken(0x66), 0xf);
}
END_TEST

START_TEST(lowest_priority_ipi)
{
    for (uint32_t n = 0; n < CPUS; n++) {
        apic_write(n, LDR, 1u << (24 + n));
        apic_write(n, TPR, 0x80 - 0x10 * n);
    }
    ipi(0, 0x07, 0x9f1); /* 0, 1, 2 */
    ck_assert_uint_eq(taken(0xf1), 0x4);
    apic_write(2, SVR, 0xff); /* disabled ones take no part */
    ipi(0, 0x07, 0x9f1);
    ck_assert_uint_eq(taken(0xf1), 0x2);
}
END_TEST

START_TEST(init_and_start_up)
{
    ipi(0, 1, 0xc500); /* INIT, level assert */
    ck_assert_uint_eq(cpu[1].init, 1);
    ipi(0, 1, 0x8500); /* INIT level de-assert: ignored */
    ck_assert_uint_eq(cpu[1].init, 1);
    ipi(0, 1, 0x4500); /* INIT, edge */
    ck_assert_uint_eq(cpu[1].init, 2);
    ipi(0, 1, 0x4699);
    ck_assert_uint_eq(cpu[1].sipi, 1);
    ck_assert_uint_eq(cpu[1].sipi_vector, 0x99);
    ipi(0, 0, 0xc4600 | 0x08); /* all but self; a low vector is no error here */
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_uint_eq(cpu[n].sipi, n == 0 ? 0 : n == 1 ? 2 : 1);
    ck_assert_uint_eq(esr(0), 0);
    ipi(0, 0, 0xc4400); /* NMI to all but self */
    ck_assert_uint_eq(cpu[0].nmi, 0);
    ck_assert_uint_eq(cpu[3].nmi, 1);
}
END_TEST

START_TEST(illegal_vectors)
{
    ipi(0, 1, 0x0f);
    ck_assert_uint_eq(taken(0x0f), 0);
    ck_assert_uint_eq(esr(0), 0x20);
    ck_assert_uint_eq(esr(1), 0);
    ck_assert_int_eq(irqchip_msi(chip, 0xfee01000, 0x05), 0);
    ck_assert_uint_eq(esr(1), 0x40);
}
END_TEST

/* ---- software enable, LVT ---- */

START_TEST(disabled_by_software)
{
    apic_write(1, LVT_TIMER, 0x33);
    apic_write(1, LVT_LINT1, 0x400);
    ipi(0, 1, 0x70);
    apic_write(1, SVR, 0xff);
    ck_assert_uint_eq(apic_read(1, LVT_TIMER), MASKED | 0x33);
    ck_assert_uint_eq(apic_read(1, LVT_LINT1), MASKED | 0x400);
    apic_write(1, LVT_TIMER, 0x34);
    ck_assert_uint_eq(apic_read(1, LVT_TIMER), MASKED | 0x34); /* cannot be unmasked */
    ipi(0, 1, 0x71);
    ck_assert_int_eq(ack(1), 0x70); /* what was pending is held, nothing new is taken */
    eoi(1);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    ipi(0, 1, 0x400);
    ipi(0, 1, 0x4500);
    ipi(0, 1, 0x4610);
    ck_assert_uint_eq(cpu[1].nmi, 1);
    ck_assert_uint_eq(cpu[1].init, 1);
    ck_assert_uint_eq(cpu[1].sipi, 1);
}
END_TEST

static void pic_init_icw(void)
{
    outb(vm, 0x20, 0x11);
    outb(vm, 0x21, 0x20);
    outb(vm, 0x21, 0x04);
    outb(vm, 0x21, 0x01);
}

START_TEST(virtual_wire_through_lint0)
{
    pic_init_icw();
    apic_write(0, LVT_LINT0, 0x700);
    pulse(1);
    ck_assert_int_eq(ack(0), 0x21);
    outb(vm, 0x20, 0x20);
    apic_write(0, LVT_LINT0, 0x10700);
    pulse(1);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    uint32_t before = cpu[0].intr;
    apic_write(0, LVT_LINT0, 0x700);
    ck_assert_uint_gt(cpu[0].intr, before); /* it was waiting */
    ck_assert_int_eq(ack(0), 0x21);
    outb(vm, 0x20, 0x20);
    lapic_set_cr8(cpu[0].lapic, 15); /* ExtINT has no priority */
    pulse(1);
    ck_assert_int_eq(ack(0), 0x21);
}
END_TEST

START_TEST(lint0_as_a_fixed_interrupt_and_as_nmi)
{
    pic_init_icw();
    apic_write(0, LVT_LINT0, 0x55); /* edge */
    pulse(1);
    ck_assert_int_eq(ack(0), 0x55);
    eoi(0);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    outb(vm, 0x20, 0x0c); /* takes the 8259's request away */
    ck_assert_uint_eq(inb(vm, 0x20), 0x81);
    outb(vm, 0x20, 0x20);
    apic_write(0, LVT_LINT0, 0x400);
    pulse(1);
    ck_assert_uint_eq(cpu[0].nmi, 1);
}
END_TEST

START_TEST(lint0_level_triggered)
{
    pic_init_icw();
    apic_write(0, LVT_LINT0, 0x8055);
    pulse(1);
    ck_assert_uint_eq(apic_read(0, LVT_LINT0), 0xc055); /* remote IRR */
    ck_assert_int_eq(ack(0), 0x55);
    eoi(0); /* still asserted: again */
    ck_assert_int_eq(ack(0), 0x55);
    outb(vm, 0x20, 0x0c);
    ck_assert_uint_eq(inb(vm, 0x20), 0x81);
    eoi(0);
    ck_assert_uint_eq(apic_read(0, LVT_LINT0), 0x8055);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(a_disabled_local_apic_leaves_intr_to_the_boot_processor)
{
    pic_init_icw();
    ck_assert_int_eq(wrmsr(0, APIC_BASE, 0xfee00000 | BSP), 0);
    pulse(1);
    ck_assert_int_eq(ack(0), 0x21);
    ck_assert_uint_eq(apic_read(0, VERSION), 0xffffffff); /* no registers */
    ipi(1, 0, 0x400);
    ck_assert_uint_eq(cpu[0].nmi, 0);
    ck_assert_int_eq(wrmsr(0, APIC_BASE, BASE_XAPIC | BSP), 0);
    ck_assert_uint_eq(apic_read(0, SVR), 0xff); /* as after reset */
}
END_TEST

START_TEST(the_page_can_be_moved)
{
    ck_assert_int_eq(wrmsr(1, APIC_BASE, 0x12345800), 0);
    current = &cpu[1];
    ck_assert_uint_eq(mmio_in(vm, 0x12345000 + ID, 4), 1u << 24);
    ck_assert_uint_eq(mmio_in(vm, LAPIC_GPA + ID, 4), 0xffffffff);
    ck_assert_uint_eq(apic_read(0, ID), 0);
    current = &cpu[0];
    ck_assert_uint_eq(mmio_in(vm, 0x12345000 + ID, 4), 0xffffffff);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC), 0);
    ck_assert_uint_eq(apic_read(1, ID), 1u << 24);
}
END_TEST

/* ---- timer ---- */

START_TEST(one_shot_with_all_divisors)
{
    static const uint32_t code[8] = {0xb, 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa};

    apic_write(0, LVT_TIMER, 0x80);
    for (uint32_t i = 0; i < 8; i++) {
        apic_write(0, TDCR, code[i]);
        apic_write(0, TICR, 1000);
        ck_assert_uint_eq(apic_read(0, TCCR), 1000);
        fake_advance(vm, 250u << i);
        ck_assert_uint_eq(apic_read(0, TCCR), 750);
        fake_advance(vm, (750u << i) - 1);
        ck_assert_uint_eq(apic_read(0, TCCR), 1);
        ck_assert_int_eq(ack(0), NO_VECTOR);
        fake_advance(vm, 1);
        ck_assert_uint_eq(apic_read(0, TCCR), 0);
        ck_assert_int_eq(ack(0), 0x80);
        eoi(0);
        fake_advance(vm, 1000000);
        ck_assert_int_eq(ack(0), NO_VECTOR);
    }
}
END_TEST

START_TEST(initial_count_0_stops)
{
    apic_write(0, LVT_TIMER, 0x80);
    apic_write(0, TICR, 1000);
    apic_write(0, TICR, 0);
    ck_assert_uint_eq(apic_read(0, TCCR), 0);
    fake_advance(vm, 1000000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(periodic)
{
    uint32_t n = 0;

    apic_write(0, TDCR, 0xb);
    apic_write(0, LVT_TIMER, PERIODIC | 0x81);
    apic_write(0, TICR, 1000000);
    for (uint32_t ms = 0; ms < 100; ms++) {
        fake_advance(vm, 1000000);
        if (ack(0) == 0x81) {
            n++;
            eoi(0);
        }
    }
    ck_assert_uint_eq(n, 100);
    fake_advance(vm, 300000);
    ck_assert_uint_eq(apic_read(0, TCCR), 700000);
    apic_write(0, LVT_TIMER, PERIODIC | MASKED | 0x81);
    fake_advance(vm, 5000000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_uint_eq(apic_read(0, TCCR), 700000); /* counts on */
    apic_write(0, LVT_TIMER, PERIODIC | 0x81);
    fake_advance(vm, 700000);
    ck_assert_int_eq(ack(0), 0x81);
}
END_TEST

START_TEST(tiny_periods_do_not_flood_the_host)
{
    apic_write(0, TDCR, 0xb);
    apic_write(0, LVT_TIMER, PERIODIC | 0x81);
    apic_write(0, TICR, 1);
    uint64_t before = vm->fired;
    fake_advance(vm, 1000000);
    ck_assert_uint_le(vm->fired - before, 51);
    ck_assert_int_eq(ack(0), 0x81);
}
END_TEST

START_TEST(one_shot_expiry_while_masked_is_lost)
{
    apic_write(0, LVT_TIMER, MASKED | 0x80);
    apic_write(0, TICR, 100);
    fake_advance(vm, 1000);
    apic_write(0, LVT_TIMER, 0x80);
    fake_advance(vm, 1000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(tsc_deadline)
{
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, 100), 0); /* another mode: ignored */
    ck_assert_uint_eq(rdmsr(0, TSC_DEADLINE), 0);
    apic_write(0, LVT_TIMER, DEADLINE | 0x82);
    apic_write(0, TICR, 100);
    ck_assert_uint_eq(apic_read(0, TICR), 0); /* the count is not used */
    uint64_t when = core_vcpu_tsc(&cpu[0]) + 20000;
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, when), 0);
    ck_assert_uint_eq(rdmsr(0, TSC_DEADLINE), when);
    ck_assert_uint_eq(apic_read(0, TCCR), 0);
    fake_advance(vm, 9999);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    fake_advance(vm, 1);
    ck_assert_int_eq(ack(0), 0x82);
    eoi(0);
    ck_assert_uint_eq(rdmsr(0, TSC_DEADLINE), 0);
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, 1), 0); /* in the past: at once */
    ck_assert_int_eq(ack(0), 0x82);
    eoi(0);
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, when + 20000), 0);
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, 0), 0); /* disarmed */
    fake_advance(vm, 100000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, core_vcpu_tsc(&cpu[0]) + 20000), 0);
    apic_write(0, LVT_TIMER, 0x82); /* leaving the mode disarms */
    ck_assert_uint_eq(rdmsr(0, TSC_DEADLINE), 0);
    fake_advance(vm, 100000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
}
END_TEST

START_TEST(tsc_deadline_follows_a_tsc_that_was_set_back)
{
    apic_write(0, LVT_TIMER, DEADLINE | 0x82);
    ck_assert_int_eq(wrmsr(0, TSC_DEADLINE, core_vcpu_tsc(&cpu[0]) + 20000), 0);
    cpu[0].tsc_offset -= 1000;
    fake_advance(vm, 10000);
    ck_assert_int_eq(ack(0), NO_VECTOR);
    fake_advance(vm, 500);
    ck_assert_int_eq(ack(0), 0x82);
}
END_TEST

START_TEST(init_stops_the_timer_and_keeps_the_base)
{
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_X2APIC), 0);
    ck_assert_int_eq(wrmsr(1, 0x80f, 0x1ff), 0);
    ck_assert_int_eq(wrmsr(1, 0x832, 0x80), 0);
    ck_assert_int_eq(wrmsr(1, 0x838, 1000), 0);
    lapic_reset(cpu[1].lapic, true);
    ck_assert_uint_eq(rdmsr(1, APIC_BASE), BASE_X2APIC);
    ck_assert_uint_eq(rdmsr(1, 0x802), 1);
    ck_assert_uint_eq(rdmsr(1, 0x80f), 0xff);
    fake_advance(vm, 100000);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    lapic_reset(cpu[1].lapic, false);
    ck_assert_uint_eq(rdmsr(1, APIC_BASE), BASE_XAPIC);
}
END_TEST

/* ---- x2APIC ---- */

static void x2apic_all(void)
{
    for (uint32_t n = 0; n < CPUS; n++) {
        ck_assert_int_eq(wrmsr(n, APIC_BASE, BASE_X2APIC | (n ? 0 : BSP)), 0);
        ck_assert_int_eq(wrmsr(n, 0x80f, 0x1ff), 0);
    }
}

START_TEST(apic_base_transitions)
{
    static const uint64_t off = 0xfee00000, bad = 0xfee00400;

    ck_assert_int_eq(wrmsr(1, APIC_BASE, bad), -1);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC | 1), -1); /* reserved bits */
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC | 0x200), -1);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC | 1ull << 40), -1); /* address width */
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_X2APIC), 0);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC), -1);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, bad), -1);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, off), 0);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_X2APIC), -1);
    ck_assert_int_eq(wrmsr(1, APIC_BASE, BASE_XAPIC), 0);
    ck_assert_uint_eq(rdmsr(1, APIC_BASE), BASE_XAPIC);
}
END_TEST

START_TEST(x2apic_registers_are_msrs_only_in_x2apic_mode)
{
    uint64_t v;

    ck_assert_int_eq(lapic_read_msr(cpu[1].lapic, 0x802, &v), -1);
    ck_assert_int_eq(wrmsr(1, 0x808, 0), -1);
    x2apic_all();
    ck_assert_uint_eq(apic_read(1, ID), 0xffffffff); /* and no memory any more */
    ck_assert_uint_eq(rdmsr(3, 0x802), 3);
    ck_assert_uint_eq(rdmsr(3, 0x803), 0x00050014);
    ck_assert_uint_eq(rdmsr(3, 0x80d), 8); /* LDR: cluster 0, member 3 */
}
END_TEST

START_TEST(x2apic_faults)
{
    static const uint32_t no_read[] = {0x800, 0x801, 0x804, 0x807, 0x809, 0x80b, 0x80c, 0x80e,
                                       0x829, 0x82f, 0x831, 0x83a, 0x83f, 0x840, 0x8ff};
    static const uint32_t no_write[] = {0x802, 0x803, 0x809, 0x80a, 0x80c, 0x80d, 0x80e, 0x810,
                                        0x818, 0x820, 0x827, 0x831, 0x839, 0x83b, 0x840, 0x8ff};
    static const struct {
        uint32_t index;
        uint64_t reserved;
    } bits[] = {
        {0x808, 0x100},  {0x80b, 1},          {0x80f, 0x400},    {0x828, 1},
        {0x830, 0x2000}, {0x830, 0x10000},    {0x830, 0x100000}, {0x832, 0x80000},
        {0x832, 0x100},  {0x833, 0x2000},     {0x835, 0x20000},  {0x836, 0x800},
        {0x837, 0x400},  {0x838, 1ull << 32}, {0x83e, 4},        {0x83e, 0x10},
        {0x83f, 0x100},  {0x808, 1ull << 32},
    };
    uint64_t v;

    x2apic_all();
    for (size_t i = 0; i < sizeof(no_read) / sizeof(no_read[0]); i++)
        ck_assert_msg(lapic_read_msr(cpu[0].lapic, no_read[i], &v) == -1, "%#x", no_read[i]);
    for (size_t i = 0; i < sizeof(no_write) / sizeof(no_write[0]); i++)
        ck_assert_msg(wrmsr(0, no_write[i], 0) == -1, "%#x", no_write[i]);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        ck_assert_msg(wrmsr(0, bits[i].index, bits[i].reserved) == -1, "%#x", bits[i].index);
    ck_assert_int_eq(wrmsr(0, 0x828, 0), 0);
    ck_assert_int_eq(wrmsr(0, 0x80b, 0), 0);
}
END_TEST

START_TEST(x2apic_ipis)
{
    x2apic_all();
    ck_assert_int_eq(wrmsr(0, 0x830, 2ull << 32 | 0x71), 0);
    ck_assert_uint_eq(rdmsr(0, 0x830), 2ull << 32 | 0x71);
    ck_assert_int_eq(ack(2), 0x71);
    ck_assert_int_eq(wrmsr(2, 0x80b, 0), 0);
    ck_assert_int_eq(wrmsr(0, 0x830, 0xaull << 32 | 0x872), 0); /* logical: members 1 and 3 */
    ck_assert_int_eq(ack(0), NO_VECTOR);
    ck_assert_int_eq(ack(1), 0x72);
    ck_assert_int_eq(ack(2), NO_VECTOR);
    ck_assert_int_eq(ack(3), 0x72);
    ck_assert_int_eq(wrmsr(0, 0x830, 0x1000full << 32 | 0x873), 0); /* another cluster */
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_int_eq(ack(n), NO_VECTOR);
    ck_assert_int_eq(wrmsr(0, 0x830, 0xffull << 32 | 0x91), 0); /* CPU 255, not a broadcast */
    ck_assert_int_eq(ack(2), NO_VECTOR);
    ck_assert_int_eq(wrmsr(0, 0x830, 0xffffffffull << 32 | 0x91), 0);
    for (uint32_t n = 0; n < CPUS; n++)
        ck_assert_int_eq(ack(n), 0x91);
    ck_assert_int_eq(wrmsr(1, 0x83f, 0xa3), 0); /* SELF IPI */
    ck_assert_int_eq(ack(1), 0xa3);
    ck_assert_int_eq(wrmsr(1, 0x83f, 0x03), 0);
    ck_assert_int_eq(wrmsr(1, 0x828, 0), 0);
    ck_assert_uint_eq(rdmsr(1, 0x828), 0x20);
}
END_TEST

START_TEST(x2apic_takes_8_bit_logical_messages)
{
    x2apic_all();
    ck_assert_int_eq(irqchip_msi(chip, 0xfee0c004, 0x74), 0);
    ck_assert_int_eq(ack(1), NO_VECTOR);
    ck_assert_int_eq(ack(2), 0x74);
    ck_assert_int_eq(ack(3), 0x74);
}
END_TEST

/* ---- vCPUs that come and go ---- */

START_TEST(a_destroyed_vcpu_takes_nothing)
{
    lapic_destroy(cpu[3].lapic);
    ipi(0, 3, 0x77);
    ipi(0, 0, 0xc4500);
    ck_assert_uint_eq(cpu[3].init, 0);
    ck_assert_uint_eq(cpu[2].init, 1);
    ck_assert_int_eq(lapic_create(chip, &cpu[3], &cpu[3].lapic), 0);
    apic_enable(3);
    ck_assert_int_eq(ack(3), NO_VECTOR);
    ipi(0, 3, 0x78);
    ck_assert_int_eq(ack(3), 0x78);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lapic");
    TCase *tc = tcase_create("lapic");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tc, setup, irq_teardown);
    tcase_add_test(tc, state_after_reset);
    tcase_add_test(tc, writable_bits);
    tcase_add_test(tc, reserved_registers_are_an_error);
    tcase_add_test(tc, errors_interrupt_through_their_lvt);
    tcase_add_test(tc, narrow_and_unaligned_accesses_do_no_harm);
    tcase_add_test(tc, each_cpu_sees_its_own_and_others_see_nothing);
    tcase_add_test(tc, the_highest_vector_first);
    tcase_add_test(tc, task_priority_holds_classes_back);
    tcase_add_test(tc, a_lent_task_priority);
    tcase_add_test(tc, lent_delivery);
    tcase_add_test(tc, lent_registers);
    tcase_add_test(tc, an_interrupt_pends_once);
    tcase_add_test(tc, shorthands);
    tcase_add_test(tc, physical_destinations);
    tcase_add_test(tc, logical_flat_destinations);
    tcase_add_test(tc, logical_cluster_destinations);
    tcase_add_test(tc, lowest_priority_ipi);
    tcase_add_test(tc, init_and_start_up);
    tcase_add_test(tc, illegal_vectors);
    tcase_add_test(tc, disabled_by_software);
    tcase_add_test(tc, virtual_wire_through_lint0);
    tcase_add_test(tc, lint0_as_a_fixed_interrupt_and_as_nmi);
    tcase_add_test(tc, lint0_level_triggered);
    tcase_add_test(tc, a_disabled_local_apic_leaves_intr_to_the_boot_processor);
    tcase_add_test(tc, the_page_can_be_moved);
    tcase_add_test(tc, one_shot_with_all_divisors);
    tcase_add_test(tc, initial_count_0_stops);
    tcase_add_test(tc, periodic);
    tcase_add_test(tc, tiny_periods_do_not_flood_the_host);
    tcase_add_test(tc, one_shot_expiry_while_masked_is_lost);
    tcase_add_test(tc, tsc_deadline);
    tcase_add_test(tc, tsc_deadline_follows_a_tsc_that_was_set_back);
    tcase_add_test(tc, init_stops_the_timer_and_keeps_the_base);
    tcase_add_test(tc, apic_base_transitions);
    tcase_add_test(tc, x2apic_registers_are_msrs_only_in_x2apic_mode);
    tcase_add_test(tc, x2apic_faults);
    tcase_add_test(tc, x2apic_ipis);
    tcase_add_test(tc, x2apic_takes_8_bit_logical_messages);
    tcase_add_test(tc, a_destroyed_vcpu_takes_nothing);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
