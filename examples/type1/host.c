/* SPDX-License-Identifier: BSD-2-Clause */
/* host.c: struct vmm_host_ops for a machine without an operating system. */
#include "host.h"

#include <stdarg.h>
#include <stddef.h>

#include "single.h"

/* boot.S */
extern uint8_t bss_end[], vectors[], host_rdmsr[], host_wrmsr[], host_msr_fault[];
int host_msr_read(uint32_t index, uint64_t *value);
int host_msr_write(uint32_t index, uint64_t value);
void *memset(void *to, int c, size_t n);

struct frame {
    uint64_t gpr[15], vector, error, rip, cs, rflags, rsp, ss;
};
void host_exception(struct frame *f);
void (*host_interrupt)(unsigned vector);

/* ---- ports and the serial console ---- */

#define COM1 0x3f8

static void out(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}

static uint8_t in(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void put(char c)
{
    while (!(in(COM1 + 5) & 0x20))
        continue;
    out(COM1, (uint8_t)c);
}

void host_write(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(text[i]);
}

static void put_number(uint64_t v, unsigned base)
{
    char digits[24];
    int at = sizeof(digits);

    do
        digits[--at] = "0123456789abcdef"[v % base];
    while (v /= base);
    while (at < (int)sizeof(digits))
        put(digits[at++]);
}

void host_print(const char *f, ...)
{
    va_list ap;

    va_start(ap, f);
    for (; *f; f++) {
        bool wide = f[0] == '%' && f[1] == 'l';

        if (*f != '%') {
            put(*f);
            continue;
        }
        f += wide ? 2 : 1;
        if (*f == 's')
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
        else
            put_number(wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned), *f == 'x' ? 16 : 10);
    }
    va_end(ap);
}

_Noreturn void host_exit(bool ok)
{
    while (!(in(COM1 + 5) & 0x40)) /* what is not sent yet would be lost */
        continue;
    out(0xf4, ok ? 0x10 : 0x11);
    if (ok)
        out(0x8900, 'D'); /* Bochs with its debugger stops */
    for (const char *s = "Shutdown"; *s; s++)
        out(0x8900, (uint8_t)*s);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- exceptions ---- */

void host_exception(struct frame *f)
{
    if (f->vector == 2) {
        f->rip = vmm_host_nmi(f->rip);
        return;
    }
    if (f->vector >= 32 && host_interrupt) {
        host_interrupt((unsigned)f->vector);
        return;
    }
    if (f->vector == 13 && (f->rip == (uintptr_t)host_rdmsr || f->rip == (uintptr_t)host_wrmsr)) {
        f->rip = (uintptr_t)host_msr_fault;
        return;
    }
    host_print("Bail out! host exception %lu error %lx at %lx\n", f->vector, f->error, f->rip);
    host_exit(false);
}

static struct {
    uint16_t low, selector, type, middle;
    uint32_t high, zero;
} idt[256];

static void set_idt(void)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};

    for (unsigned i = 0; i < 256; i++) {
        uint64_t entry = (uintptr_t)vectors + 16 * i;

        idt[i].low = (uint16_t)entry;
        idt[i].selector = 8;
        idt[i].type = 0x8e00;
        idt[i].middle = (uint16_t)(entry >> 16);
        idt[i].high = (uint32_t)(entry >> 32);
    }
    __asm__ volatile("lidt %0" ::"m"(pointer));
}

/* ---- memory: a bit for each page of the first 4 GiB, set where it is in use ---- */

static uint64_t used[(1ull << 32) / 4096 / 64];
static size_t first_page, end_page, next_page; /* next_page: where to look first */

static bool is_used(size_t page)
{
    return used[page / 64] >> page % 64 & 1;
}

static void mark(size_t page, size_t n)
{
    for (size_t i = page; i < page + n; i++)
        used[i / 64] ^= 1ull << i % 64;
}

/* `n` free pages in a row in [from, to), or 0. */
static size_t find_pages(size_t n, size_t from, size_t to)
{
    size_t run = 0;

    for (size_t i = from; i < to; i++) {
        run = is_used(i) ? 0 : run + 1;
        if (run == n)
            return i + 1 - n;
    }
    return 0;
}

void host_reserve(uint64_t begin, uint64_t end)
{
    for (size_t page = begin / 4096; page < (end + 4095) / 4096; page++)
        if (!is_used(page))
            mark(page, 1);
}

static void *pages_alloc(void *ctx, size_t n)
{
    size_t page = n ? find_pages(n, next_page, end_page) : 0;

    (void)ctx;
    if (!page && n)
        page = find_pages(n, first_page, end_page);
    if (!page)
        return NULL;
    mark(page, n);
    next_page = page + n;
    return memset((void *)(page * 4096), 0, n * 4096);
}

static void pages_free(void *ctx, void *pages, size_t n)
{
    size_t page = (uintptr_t)pages / 4096;

    (void)ctx;
    mark(page, n);
    if (page < next_page)
        next_page = page;
}

/* All of memory is writable and executable for this host, which has no other programs. */
static int code_alloc(void *ctx, size_t len, void **rw, void **rx)
{
    *rw = *rx = pages_alloc(ctx, (len + 4095) / 4096);
    return !*rw;
}

static void code_free(void *ctx, void *rw, void *rx, size_t len)
{
    (void)rx;
    pages_free(ctx, rw, (len + 4095) / 4096);
}

/* ---- the CPU ---- */

static void nothing(void *ctx)
{
    (void)ctx;
}

static int rdmsr(void *ctx, uint32_t index, uint64_t *value)
{
    (void)ctx;
    return host_msr_read(index, value);
}

static int wrmsr(void *ctx, uint32_t index, uint64_t value)
{
    (void)ctx;
    return host_msr_write(index, value);
}

/* Nobody else uses vector registers. */
static void fpu_begin(void *ctx)
{
    uint32_t mxcsr = 0x1f80;

    (void)ctx;
    __asm__ volatile("fninit\n\tldmxcsr %0" ::"m"(mxcsr));
}

/* The clock: the TSC, taken for one of 200 MHz, about the speed of an emulator. */
#define TSC_KHZ 200000u

static uint64_t now(void *ctx)
{
    uint32_t low, high;

    (void)ctx;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (low | (uint64_t)high << 32) * (1000000 / TSC_KHZ);
}

static void log_line(void *ctx, const char *text)
{
    (void)ctx;
    host_print("# %s\n", text);
}

struct vmm_host_ops host_ops = {.size = sizeof(host_ops),
                                .tsc_khz = TSC_KHZ,
                                .pages_alloc = pages_alloc,
                                .pages_free = pages_free,
                                .code_alloc = code_alloc,
                                .code_free = code_free,
                                .rdmsr = rdmsr,
                                .wrmsr = wrmsr,
                                .fpu_begin = fpu_begin,
                                .fpu_end = nothing,
                                .now = now,
                                .log = log_line};

/* The vector state that this CPU has is there to use. */
static void set_xcr0(void)
{
    uint32_t a, b, c, d, low, high;
    uint64_t cr4;

    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    if (!(c >> 26 & 1))
        return;
    __asm__ volatile("cpuid" : "=a"(low), "=b"(b), "=c"(c), "=d"(high) : "a"(13), "c"(0));
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4 | 1u << 18));
    __asm__ volatile("xsetbv" ::"a"(low & 0xe7), "d"(0), "c"(0));
}

#define APIC   0xfee00000u
#define IOAPIC 0xfec00000u

static void mmio_write(uint32_t address, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)address = value;
}

/* The 8254 by pin 2 of the IOAPIC: an NMI needs no interrupts to be on. */
void host_tick(void)
{
    mmio_write(APIC + 0xf0, 0x1ff);
    out(0x43, 0x34);
    out(0x40, 1193 & 0xff);
    out(0x40, 1193 >> 8);
    mmio_write(IOAPIC, 0x15);
    mmio_write(IOAPIC + 0x10, 0xffu << 24);
    mmio_write(IOAPIC, 0x14);
    mmio_write(IOAPIC + 0x10, 4u << 8);
}

void host_cpu_init(void)
{
    set_idt();
    set_xcr0();
}

void host_init(uint64_t memory)
{
    out(COM1 + 1, 0);
    out(COM1 + 3, 0x80);
    out(COM1, 1); /* 115200 baud */
    out(COM1 + 1, 0);
    out(COM1 + 3, 3);
    out(COM1 + 2, 7);
    out(0x21, 0xff); /* no interrupts of the 8259s */
    out(0xa1, 0xff);
    host_cpu_init();
    first_page = next_page = ((uintptr_t)bss_end + 4095) / 4096;
    end_page = (memory < 3ull << 30 ? memory : 3ull << 30) / 4096;
    host_single(&host_ops);
}
