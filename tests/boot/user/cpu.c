/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers, flags, selectors, and instructions that show something of the system. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "user.h"

/* SYSCALL with all registers known; what the kernel must not touch is as before. */
static void system_calls(void)
{
    for (long i = 0; i < user_rounds * 100; i++) {
        uint64_t rax = SYS_getppid, rcx, r11, rbx = 0x1111, rdx = 0x2222, rsi = 0x3333, rip;
        register uint64_t r8 __asm__("r8") = 0x8888;
        register uint64_t r10 __asm__("r10") = 0xaaaa;
        register uint64_t r15 __asm__("r15") = 0xffff;

        __asm__ volatile("stc\n\tsyscall\n1:\tmov %%r11, %1\n\tlea 1b(%%rip), %2"
                         : "+a"(rax), "=&D"(r11), "=&r"(rip), "=c"(rcx), "+b"(rbx), "+d"(rdx),
                           "+S"(rsi), "+r"(r8), "+r"(r10), "+r"(r15)
                         :
                         : "r11", "memory", "cc");
        CHECK((pid_t)rax == getppid());
        CHECK(rcx == rip);
        CHECK((r11 & 0x201) == 0x201);
        CHECK(rbx == 0x1111 && rdx == 0x2222 && rsi == 0x3333);
        CHECK(r8 == 0x8888 && r10 == 0xaaaa && r15 == 0xffff);
        /* And with a prefix that does nothing. */
        rax = 0x7654;
        __asm__ volatile(".byte 0x48, 0x0f, 0x05" : "+a"(rax) : : "rcx", "r11", "memory");
        CHECK((int64_t)rax == -ENOSYS);
    }
}

/* INT 80H: the other table of system calls, and RCX and R11 stay. */
static void int80(void)
{
    for (long i = 0; i < user_rounds * 20; i++) {
        uint64_t rax = 64, rcx = 0x1234; /* getppid */

        __asm__ volatile("int $0x80" : "+a"(rax), "+c"(rcx) : : "r8", "r9", "r10", "r11", "memory");
        if ((int64_t)rax == -ENOSYS)
            SKIP("no 32-bit system calls");
        CHECK((pid_t)rax == getppid());
        CHECK(rcx == 0x1234);
    }
}

struct table {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static void system_registers(void)
{
    struct table gdt[2], idt[2];
    uint64_t msw[2];
    uint32_t tr, lar, limit;
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(0, &one);
    CHECK(!sched_setaffinity(0, sizeof(one), &one));
    for (long i = 0; i < user_rounds; i++) {
        int now = i > 0;

        __asm__ volatile("sgdt %0" : "=m"(gdt[now]));
        __asm__ volatile("sidt %0" : "=m"(idt[now]));
        __asm__ volatile("smsw %0" : "=r"(msw[now]));
        __asm__ volatile("lar %1, %0" : "=r"(lar) : "r"(0x33));
        CHECK((lar & 0xfe00) == 0xfa00);
        __asm__ volatile("str %0" : "=r"(tr));
        CHECK(tr == 0x40 || tr == 0); /* 0: emulated by the kernel */
        CHECK(!memcmp(&gdt[0], &gdt[now], sizeof(gdt[0])));
        CHECK(!memcmp(&idt[0], &idt[now], sizeof(idt[0])));
        CHECK(msw[0] == msw[now]);
        /* The limit of this segment tells the CPU and its node. */
        __asm__ volatile("lsl %1, %0" : "=r"(limit) : "r"(0x7b));
        CHECK((limit & 0xfff) == 0);
        user_spin(100);
    }
}

static void cpu_number(void)
{
    uint32_t a, b, c, d, aux;
    cpu_set_t mine, one;

    CHECK(!sched_getaffinity(0, sizeof(mine), &mine));
    for (long i = 0; i < user_rounds; i++) {
        unsigned cpu, n = (unsigned)(i % CPU_COUNT(&mine)), node;
        unsigned at = 0;

        for (unsigned left = n; !CPU_ISSET(at, &mine) || left--;)
            at++;
        CPU_ZERO(&one);
        CPU_SET(at, &one);
        CHECK(!sched_setaffinity(0, sizeof(one), &one));
        user_spin(100);
        CHECK(!syscall(SYS_getcpu, &cpu, &node, NULL) && cpu == at);
        CHECK((unsigned)sched_getcpu() == at);
        __cpuid(0x80000001, a, b, c, d);
        if (d >> 27 & 1) {
            __asm__ volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(aux));
            CHECK((aux & 0xfff) == at);
        }
        __cpuid_count(7, 0, a, b, c, d);
        if (c >> 22 & 1) {
            uint64_t id;

            __asm__ volatile("rdpid %0" : "=r"(id));
            CHECK((id & 0xfff) == at);
        }
    }
}

/* CPUID always says the same, and XGETBV. */
static void identity(void)
{
    uint32_t first[4] = {0}, vendor[4], a, b, c, d;

    __cpuid(0, first[0], first[1], first[2], first[3]);
    __cpuid(1, a, b, c, d);
    for (long i = 0; i < user_rounds; i++) {
        uint32_t lo, hi;

        __cpuid(0, vendor[0], vendor[1], vendor[2], vendor[3]);
        CHECK(!memcmp(first, vendor, sizeof(first)));
        if (c >> 27 & 1) {
            uint32_t size, most, dummy;

            __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
            CHECK((lo & 3) == 3);
            __cpuid_count(0xd, 0, most, size, dummy, hi);
            CHECK((lo & ~most) == 0); /* not more than CPUID allows */
            (void)size;
            (void)dummy;
        }
        user_spin(100);
    }
}

static void clocks(void)
{
    struct timespec t, last = {0};
    uint64_t tsc = 0;

    for (long i = 0; i < user_rounds * 200; i++) {
        uint64_t now = __builtin_ia32_rdtsc();

        CHECK(now > tsc);
        tsc = now;
        CHECK(!clock_gettime(CLOCK_MONOTONIC, &t));
        CHECK(t.tv_sec > last.tv_sec || (t.tv_sec == last.tv_sec && t.tv_nsec >= last.tv_nsec));
        last = t;
        if (i % 50 == 0)
            user_spin(20);
    }
}

/* FS and GS: bases that the kernel sets, those that the program sets, and selectors. */
static void segments(void)
{
    uint64_t base = 0, slot = 0x1122334455667788;

    for (long i = 0; i < user_rounds; i++) {
        uint16_t sel;
        uint64_t got;

        CHECK(!syscall(SYS_arch_prctl, ARCH_SET_GS, &slot));
        user_spin(50);
        __asm__ volatile("mov %%gs:0, %0" : "=r"(got));
        CHECK(got == slot);
        CHECK(!syscall(SYS_arch_prctl, ARCH_GET_GS, &base) && base == (uint64_t)&slot);
        /* A selector of a flat segment takes the base away. */
        __asm__ volatile("mov %0, %%gs" : : "r"(0x2b));
        user_spin(50);
        sched_yield();
        __asm__ volatile("mov %%gs, %0" : "=r"(sel));
        CHECK(sel == 0x2b);
        __asm__ volatile("mov %%gs:(%1), %0" : "=r"(got) : "r"(&slot));
        CHECK(got == slot);
        __asm__ volatile("mov %0, %%gs" : : "r"(0));
        for (unsigned j = 0; j < 2; j++) {
            uint16_t want = j ? 0 : 0x2b, es;

            __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(want));
            user_spin(50);
            sched_yield();
            __asm__ volatile("mov %%ds, %0\n\tmov %%es, %1" : "=r"(sel), "=r"(es));
            CHECK(sel == want && es == want);
        }
        slot++;
    }
}

static void fsgsbase(void)
{
    uint64_t mine = 0x123456789abcull;

    if (!(getauxval(AT_HWCAP2) & 2))
        SKIP("FSGSBASE");
    for (long i = 0; i < user_rounds; i++) {
        uint64_t got, from_kernel;

        __asm__ volatile("wrgsbase %0" : : "r"(mine));
        user_spin(50);
        sched_yield();
        __asm__ volatile("rdgsbase %0" : "=r"(got));
        CHECK(got == mine);
        CHECK(!syscall(SYS_arch_prctl, ARCH_GET_GS, &from_kernel) && from_kernel == mine);
        mine += PAGE;
    }
}

/* 32-bit code of the same process, by far returns; all addresses are below 4 GiB. */
extern const uint8_t code32[], code32_end[];
uint64_t saved_rsp __asm__("saved_rsp");
__asm__(".pushsection .rodata\ncode32:\n\t.code32\n\t"
        "mov $1000, %ecx\n\txor %eax, %eax\n"
        "1:\tadd %ecx, %eax\n\tinc %edx\n\tdec %edx\n\tloop 1b\n\t"
        "lret\n\t.code64\ncode32_end:\n.popsection");

/* On a stack below 4 GiB: where to go, and where that returns to. */
static uint32_t call32(const uint8_t *code, uint8_t *stack)
{
    uint64_t sum;

    __asm__ volatile("mov %%rsp, saved_rsp\n\t"
                     "mov %[stack], %%rsp\n\t"
                     "mov $0x2b, %%eax\n\tmov %%eax, %%ds\n\tmov %%eax, %%es\n\t"
                     "movl $1f, (%%rsp)\n\tmovl $0x33, 4(%%rsp)\n\t"
                     "sub $8, %%rsp\n\t"
                     "movl %k[code], (%%rsp)\n\tmovl $0x23, 4(%%rsp)\n\t"
                     "lretl\n"
                     "1:\tmov saved_rsp, %%rsp\n\t"
                     "xor %%ecx, %%ecx\n\tmov %%ecx, %%ds\n\tmov %%ecx, %%es"
                     : "=&a"(sum)
                     : [code] "D"(code), [stack] "S"(stack)
                     : "rcx", "rdx", "memory", "cc");
    return (uint32_t)sum;
}

static void compatibility(void)
{
    uint8_t *low = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    CHECK(low != MAP_FAILED);
    memcpy(low, code32, (size_t)(code32_end - code32));
    for (long i = 0; i < user_rounds * 10; i++) {
        CHECK(call32(low, low + 3 * PAGE) == 500500);
        if (i % 10 == 0)
            user_spin(10);
    }
}

static uint64_t flags_through(uint64_t flags)
{
    uint64_t got;

    __asm__ volatile("push %1\n\tpopfq\n\tpushfq\n\tpop %0\n\tpushq $0x202\n\tpopfq"
                     : "=r"(got)
                     : "r"(flags)
                     : "cc", "memory");
    return got;
}

static void flags(void)
{
    for (long i = 0; i < user_rounds * 50; i++) {
        CHECK(flags_through(0x202) == 0x202);
        CHECK(flags_through(0xed7) == 0xed7 - 0x200 + 0x200);
        CHECK(flags_through(0x3202) == 0x202); /* IOPL stays */
        CHECK(flags_through(2) == 0x202);      /* so does IF */
        CHECK(flags_through(0x4202) == 0x4202);
        CHECK(flags_through(0x40202) == 0x40202);
        CHECK(flags_through(0x200202) == 0x200202);
        if (i % 10 == 0)
            user_spin(10);
    }
}

/* What RDTSC does when the program has given it up. */
static void no_tsc(void)
{
    CHECK(!prctl(PR_SET_TSC, PR_TSC_ENABLE));
    for (long i = 0; i < user_rounds; i++) {
        user_spin(50);
        CHECK(__builtin_ia32_rdtsc());
    }
}

const struct user_check user_cpu[] = {
    {"system-calls", system_calls},
    {"int80", int80},
    {"system-registers", system_registers},
    {"cpu-number", cpu_number},
    {"identity", identity},
    {"clocks", clocks},
    {"segments", segments},
    {"fsgsbase", fsgsbase},
    {"compatibility", compatibility},
    {"flags", flags},
    {"no-tsc", no_tsc},
    {0},
};
