/* SPDX-License-Identifier: BSD-2-Clause */
/* interrupts.c: IDT, the 8259 pair, and the 8254's timer tick. */
#include "guest.h"

#define VECTORS    48u
#define IRQ_BASE   32u
#define PIT_HZ     1193182u
#define TICK_HZ    100u
#define LAPIC_SVR  0xf0u
#define LAPIC_LVT0 0x350u

struct gate {
    uint16_t offset_low, selector, attributes, offset_mid;
    uint32_t offset_high, reserved;
};

extern const uint8_t stubs[];
struct expected expected;
volatile uint64_t ticks;
static struct gate idt[VECTORS];

void load_idt(void)
{
    const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {sizeof(idt) - 1, (uintptr_t)idt};

    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void interrupts_init(void)
{
    for (uint32_t i = 0; i < VECTORS; i++) {
        uintptr_t stub = (uintptr_t)(stubs + 16 * i);

        idt[i] = (struct gate){
            .offset_low = (uint16_t)stub,
            .selector = 0x08,
            .attributes = 0x8e00, /* present, DPL 0, interrupt gate */
            .offset_mid = (uint16_t)(stub >> 16),
        };
    }
    load_idt();
    /* The 8259 pair arrives through the local APIC's LINT0 pin. */
    lapic_write(LAPIC_SVR, 0x1ff);
    lapic_write(LAPIC_LVT0, 0x700);
    outb(0x20, 0x11); /* ICW1: edge triggered, cascade, ICW4 follows */
    outb(0x21, IRQ_BASE);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, IRQ_BASE + 8);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, 0xee); /* open: timer (0) and COM1 (4) */
    outb(0xa1, 0xff);
    outb(0x43, 0x34); /* counter 0, rate generator */
    outb(0x40, PIT_HZ / TICK_HZ & 0xff);
    outb(0x40, PIT_HZ / TICK_HZ >> 8);
    __asm__ volatile("sti");
}

static void crash(const struct frame *frame)
{
    print("\nguest: unexpected exception %lu, error %lx, at %lx\n", frame->vector, frame->error,
          frame->rip);
    triple_fault();
}

void interrupt(struct frame *frame)
{
    if (frame->vector < IRQ_BASE) {
        if (expected.resume == 0) {
            crash(frame);
        }
        expected.vector = frame->vector;
        expected.error = frame->error;
        __asm__ volatile("mov %%cr2, %0" : "=r"(expected.cr2));
        frame->rip = expected.resume;
        expected.resume = 0;
        return;
    }
    if (frame->vector == IRQ_BASE) {
        ticks++;
    } else if (frame->vector == IRQ_BASE + 4) {
        console_interrupt();
    }
    if (frame->vector >= IRQ_BASE + 8) {
        outb(0xa0, 0x20);
    }
    outb(0x20, 0x20);
}

void wait_ticks(uint64_t n)
{
    uint64_t end = ticks + n;

    while (ticks < end) {
        __asm__ volatile("hlt");
    }
}
