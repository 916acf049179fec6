/* SPDX-License-Identifier: BSD-2-Clause */
/* guest.h: the parts of the guest. */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

#define MEMORY_RANGES 32u

/* ---- port I/O and processor ---- */

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

/* ---- what the loader said (boot_info.c) ---- */

struct memory_range {
    uint64_t base, len;
    uint32_t type; /* 1: RAM, as in E820 */
};

struct boot_info {
    const char *loader;
    const char *cmdline;
    uint64_t rsdp; /* 0: to be searched */
    struct memory_range memory[MEMORY_RANGES];
    uint32_t nmemory;
};

extern struct boot_info boot_info;
void boot_info_read(uint32_t magic, uint32_t address);
uint64_t memory_bytes(void);

/* ---- console (console.c) ---- */

void console_init(void);
void console_listen(void);
void console_interrupt(void);
void put_char(char c);
/* %s %c %u %x with l for 64 bits, a width and 0. */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);
int get_char(void); /* sleeps until there is one */

/* ---- strings (console.c) ---- */

int equal(const char *a, const char *b);
int has_word(const char *text, const char *word);
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- interrupts and time (interrupts.c) ---- */

struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* An exception that a check provoked: the handler fills it and goes on at `resume`. */
struct expected {
    volatile uint64_t resume;
    volatile uint64_t vector, error, cr2;
};

extern struct expected expected;
extern volatile uint64_t ticks; /* of 10 ms */
void interrupts_init(void);
void interrupt(struct frame *frame);
void load_idt(void);
void wait_ticks(uint64_t n);

/* ---- ACPI and power (acpi.c) ---- */

uint32_t acpi_cpus(void); /* enabled processors in the MADT; 1 without ACPI */
void power_off(void);     /* returns if the machine has no ACPI or does not obey */
void reset(void);
void triple_fault(void);

/* ---- other processors (smp.c) ---- */

#define COUNT_PER_CPU 20000u

uint32_t smp_start(uint32_t wanted); /* how many run, this one included */
uint64_t smp_count(void);            /* each adds COUNT_PER_CPU to one counter: its value */
void cpu_main(void);
uint32_t lapic_read(uint32_t reg);
void lapic_write(uint32_t reg, uint32_t value);

/* ---- work (work.c) ---- */

void md5(const void *data, uint64_t len, uint8_t digest[16]);
uint32_t count_primes(uint8_t *sieve, uint32_t below);

/* ---- checks (checks.c) ---- */

int run_checks(void); /* the number that failed */

#endif
