/* SPDX-License-Identifier: BSD-2-Clause */
/* shell.c: the guest's entry in C and its commands on the serial line. */
#include "guest.h"

#define LINE_MAX   80u
#define SCRATCH    ((uint8_t *)0x1000000)
#define DEBUG_EXIT 0xf4u

void guest_main(uint32_t magic, uint32_t info);

static void command_mem(void)
{
    for (uint32_t i = 0; i < boot_info.nmemory; i++) {
        const struct memory_range *range = &boot_info.memory[i];

        print("%016lx-%016lx %s\n", range->base, range->base + range->len - 1,
              range->type == 1 ? "RAM" : "reserved");
    }
    print("%lu MiB of RAM\n", memory_bytes() >> 20);
}

static uint8_t cmos(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

static void command_time(void)
{
    while (cmos(10) & 0x80) { /* an update is in progress */
    }
    print("20%02x-%02x-%02x %02x:%02x:%02x (RTC), up %lu.%02lu s\n", cmos(9), cmos(8), cmos(7),
          cmos(4), cmos(2), cmos(0), ticks / 100, ticks % 100);
}

static void command_cpus(void)
{
    uint32_t brand[12];

    for (uint32_t i = 0; i < 3; i++) {
        __asm__ volatile("cpuid"
                         : "=a"(brand[4 * i]), "=b"(brand[4 * i + 1]), "=c"(brand[4 * i + 2]),
                           "=d"(brand[4 * i + 3])
                         : "a"(0x80000002 + i), "c"(0));
    }
    print("%u processors run: ", smp_start(acpi_cpus()));
    for (uint32_t i = 0; i < sizeof(brand) && ((const char *)brand)[i] != '\0'; i++) {
        put_char(((const char *)brand)[i]);
    }
    put_char('\n');
}

static void command_md5(void)
{
    uint8_t digest[16];
    uint64_t start = ticks;

    memset(SCRATCH, 0, 4 << 20);
    md5(SCRATCH, 4 << 20, digest);
    for (int i = 0; i < 16; i++) {
        print("%02x", digest[i]);
    }
    print("  4 MiB of zeros, %lu0 ms\n", ticks - start);
}

static void command_primes(void)
{
    uint64_t start = ticks;
    uint32_t n = count_primes(SCRATCH, 1000000);

    print("%u primes below 1000000, %lu0 ms\n", n, ticks - start);
}

static void command_check(void)
{
    print("%s\n", run_checks() == 0 ? "self check: passed" : "self check: FAILED");
}

static void command_poweroff(void)
{
    print("powering off\n");
    power_off();
    print("the machine does not power off\n");
}

static void command_reboot(void)
{
    print("rebooting\n");
    reset();
}

static void command_help(void);

static const struct {
    const char *name;
    void (*run)(void);
    const char *text;
} commands[] = {
    {"help", command_help, "this list"},
    {"mem", command_mem, "memory map"},
    {"time", command_time, "real-time clock and uptime"},
    {"cpus", command_cpus, "start and show the processors"},
    {"md5", command_md5, "MD5 of 4 MiB"},
    {"primes", command_primes, "sieve up to a million"},
    {"check", command_check, "self check"},
    {"poweroff", command_poweroff, "end the VM"},
    {"reboot", command_reboot, "reset the machine"},
    {"crash", triple_fault, "triple fault"},
};

#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

static void command_help(void)
{
    for (size_t i = 0; i < NCOMMANDS; i++) {
        print("%s\r\t\t%s\n", commands[i].name, commands[i].text);
    }
}

static void read_line(char line[LINE_MAX])
{
    uint32_t n = 0;

    for (;;) {
        int c = get_char();

        if (c == '\r' || c == '\n') {
            line[n] = '\0';
            put_char('\n');
            return;
        }
        if ((c == 0x7f || c == '\b') && n > 0) {
            n--;
            print("\b \b");
        } else if (c >= ' ' && c < 0x7f && n < LINE_MAX - 1) {
            line[n++] = (char)c;
            put_char((char)c);
        }
    }
}

static void shell(void)
{
    char line[LINE_MAX];

    for (;;) {
        size_t i = 0;

        print("guest> ");
        read_line(line);
        while (i < NCOMMANDS && !equal(line, commands[i].name)) {
            i++;
        }
        if (i < NCOMMANDS) {
            commands[i].run();
        } else if (line[0] != '\0') {
            print("%s: unknown; try help\n", line);
        }
    }
}

/* `magic` and `info` are what the loader left in EAX and EBX. */
void guest_main(uint32_t magic, uint32_t info)
{
    console_init();
    boot_info_read(magic, info);
    print("\nlibvmm guest: 64-bit mode, started through %s, %lu MiB\n", boot_info.loader,
          memory_bytes() >> 20);
    interrupts_init();
    console_listen();
    if (!has_word(boot_info.cmdline, "auto")) {
        print("Type help for the commands.\n");
        shell();
    }
    if (run_checks() != 0) {
        print("self check: FAILED\n");
        outb(DEBUG_EXIT, 3);
    }
    print("self check: passed\n");
    command_poweroff();
}
