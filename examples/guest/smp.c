/* SPDX-License-Identifier: BSD-2-Clause */
/* smp.c: starts the other processors (INIT and start-up IPIs) and lets them count together. */
#include "guest.h"

#define LAPIC       0xfee00000u
#define LAPIC_ICR   0x300u
#define ICR_INIT    0x000c4500u /* all but self */
#define ICR_STARTUP 0x000c4600u
#define ICR_PENDING 0x00001000u
#define TRAMPOLINE  0x8000u

extern const uint8_t trampoline[], trampoline_end[];
static volatile uint32_t online = 1;
static volatile uint32_t round_number; /* one more: count again */
static volatile uint32_t finished;
static volatile uint64_t counter;

uint32_t lapic_read(uint32_t reg)
{
    return *(volatile uint32_t *)(uintptr_t)(LAPIC + reg);
}

void lapic_write(uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)(LAPIC + reg) = value;
}

static void send(uint32_t command)
{
    lapic_write(LAPIC_ICR, command);
    while (lapic_read(LAPIC_ICR) & ICR_PENDING) {
        __asm__ volatile("pause");
    }
}

uint32_t smp_start(uint32_t wanted)
{
    if (online >= wanted) {
        return online;
    }
    memcpy((void *)(uintptr_t)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
    send(ICR_INIT);
    wait_ticks(2);
    for (int i = 0; i < 2 && online < wanted; i++) {
        send(ICR_STARTUP | TRAMPOLINE >> 12);
        wait_ticks(2);
    }
    for (int i = 0; i < 200 && online < wanted; i++) {
        wait_ticks(1);
    }
    return online;
}

static void count(void)
{
    for (uint32_t i = 0; i < COUNT_PER_CPU; i++) {
        __asm__ volatile("lock incq %0" : "+m"(counter));
    }
    __asm__ volatile("lock incl %0" : "+m"(finished));
}

void cpu_main(void)
{
    uint32_t seen = round_number;

    load_idt();
    __asm__ volatile("lock incl %0" : "+m"(online));
    for (;;) {
        while (seen == round_number) {
            __asm__ volatile("pause");
        }
        seen = round_number;
        count();
    }
}

uint64_t smp_count(void)
{
    counter = 0;
    finished = 0;
    round_number = round_number + 1;
    count();
    for (uint64_t end = ticks + 3000; finished < online && ticks < end;) {
        __asm__ volatile("pause");
    }
    return counter;
}
