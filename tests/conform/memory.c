/* SPDX-License-Identifier: BSD-2-Clause */
/* memory.c: regions of guest-physical memory, and changes of them while guests run. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conform.h"

#define AREA_A 0x200000u /* where cases map things: RAM ends before it here */

/* 1 MiB of RAM only, so that AREA_A is free. */
static void begin_small(uint32_t ncpus)
{
    struct vcpu *v;

    OK(begin_bare(VMM_IRQCHIP_NONE, 0, ncpus));
    OK(vm_mem_alloc(vm, 0, 0x100000, VMM_MEM_RWX, (void **)&ram));
    for (uint32_t i = 0; i < ncpus; i++)
        OK(vcpu_create(vm, i, NULL, &v));
    cpu = vm_vcpu(vm, 0);
}

static uint8_t *pages(size_t len)
{
    uint8_t *p = aligned_alloc(4096, len);

    CHECK(p != NULL);
    memset(p, 0, len);
    return p;
}

GUEST(touch, 64,
      "mov $0x200000, %ebx\n"
      "mov (%rbx), %rax\n"
      "movq $0x1234, 8(%rbx)\n"
      "hlt");

static void caller_memory(void)
{
    uint8_t *host = pages(0x2000);

    begin_small(1);
    OK(vm_mem_map(vm, AREA_A, host, 0x2000, VMM_MEM_RWX));
    CHECK(vm_mem_ptr(vm, AREA_A + 0x10, 0x10) == host + 0x10);
    CHECK(vm_mem_ptr(vm, AREA_A, 0x2000) == host);
    CHECK(vm_mem_ptr(vm, AREA_A, 0x2001) == NULL);
    memcpy(host, "abcdefgh", 8);
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x6867666564636261);
    EQ(*(uint64_t *)(void *)(host + 8), 0x1234);
    end();
    host[0] = 'x'; /* it was borrowed and is ours again */
    free(host);
}

static void library_memory(void)
{
    uint8_t *host = NULL;

    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x3000, VMM_MEM_RWX, (void **)&host));
    CHECK(host != NULL && vm_mem_ptr(vm, AREA_A, 0x3000) == host);
    for (unsigned i = 0; i < 0x3000; i++)
        EQ(host[i], 0);
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0);
    EQ(peek(AREA_A + 8, 8), 0x1234);
    OK(vm_mem_unmap(vm, AREA_A));
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL)); /* zeroed again */
    EQ(peek(AREA_A + 8, 8), 0);
    end();
}

static void what_map_refuses(void)
{
    uint8_t *host = pages(0x2000);
    const uint64_t top = 1ull << (conform_caps.gpa_bits < 63 ? conform_caps.gpa_bits : 63);

    begin_small(1);
    RESULT(vm_mem_map(vm, AREA_A + 1, host, 0x1000, VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map(vm, AREA_A, host + 8, 0x1000, VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map(vm, AREA_A, host, 0x1001, VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map(vm, AREA_A, host, 0, VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map(vm, AREA_A, host, 0x1000, VMM_MEM_W), VMM_E_INVAL); /* R is required */
    RESULT(vm_mem_map(vm, AREA_A, host, 0x1000, 8 | VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map(vm, 0xff000, host, 0x2000, VMM_MEM_RWX), VMM_E_EXIST);
    RESULT(vm_mem_map(vm, top, host, 0x1000, VMM_MEM_RWX), VMM_E_RANGE);
    RESULT(vm_mem_map(vm, top - 0x1000, host, 0x2000, VMM_MEM_RWX), VMM_E_RANGE);
    OK(vm_mem_map(vm, top - 0x1000, host, 0x1000, VMM_MEM_RWX));
    RESULT(vm_mem_unmap(vm, AREA_A), VMM_E_NOENT);
    RESULT(vm_mem_unmap(vm, 0x1000), VMM_E_NOENT); /* inside of a region, not its begin */
    RESULT(vm_mem_protect(vm, 0x1000, VMM_MEM_R), VMM_E_NOENT);
    RESULT(vm_mem_protect(vm, 0, VMM_MEM_W), VMM_E_INVAL);
    end();
    free(host);
}

static int file_of(size_t len)
{
    int fd = memfd_create("conform", MFD_CLOEXEC);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)len) == 0);
    return fd;
}

static void file_memory(void)
{
    int fd = file_of(0x3000), copy;
    uint64_t value = 0x55;

    begin_small(1);
    CHECK(pwrite(fd, &value, 8, 0x1000) == 8);
    RESULT(vm_mem_map_fd(vm, AREA_A, fd, 0x1000, 0x3000, VMM_MEM_RWX), VMM_E_RANGE);
    RESULT(vm_mem_map_fd(vm, AREA_A, fd, 0x800, 0x1000, VMM_MEM_RWX), VMM_E_INVAL);
    RESULT(vm_mem_map_fd(vm, AREA_A, -1, 0, 0x1000, VMM_MEM_RWX), VMM_E_INVAL);
    copy = dup(fd);
    OK(vm_mem_map_fd(vm, AREA_A, copy, 0x1000, 0x2000, VMM_MEM_RWX));
    close(copy); /* the descriptor is not kept */
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0x55);
    CHECK(pread(fd, &value, 8, 0x1008) == 8);
    EQ(value, 0x1234);
    end();
    close(fd);
}

static void file_for_reading(void)
{
    char name[] = "/tmp/conform_XXXXXX";
    int fd = mkstemp(name), rd;

    CHECK(fd >= 0);
    rd = open(name, O_RDONLY);
    CHECK(rd >= 0 && unlink(name) == 0 && ftruncate(fd, 0x1000) == 0);
    begin_small(1);
    RESULT(vm_mem_map_fd(vm, AREA_A, rd, 0, 0x1000, VMM_MEM_RWX), VMM_E_PERM);
    OK(vm_mem_map_fd(vm, AREA_A, rd, 0, 0x1000, VMM_MEM_RX));
    RESULT(vm_mem_write(vm, AREA_A, "x", 1), VMM_E_PERM);
    RESULT(vm_mem_protect(vm, AREA_A, VMM_MEM_RWX), VMM_E_PERM);
    LOAD(LONG64, touch);
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, AREA_A + 8);
    RUN(HLT);
    end();
    close(fd);
    close(rd);
}

static void unmapped_is_mmio(void)
{
    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
    LOAD(LONG64, touch);
    RUN(HLT);
    OK(vm_mem_unmap(vm, AREA_A));
    LOAD(LONG64, touch);
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, AREA_A);
    EQ(ex.u.mmio.access, VMM_ACCESS_READ);
    EQ(ex.u.mmio.len, 8);
    ex.u.mmio.data = 77;
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, AREA_A + 8);
    EQ(ex.u.mmio.data, 0x1234);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 77);
    end();
}

static void other_memory_at_the_same_place(void)
{
    uint8_t *one = pages(0x1000), *two = pages(0x1000);

    begin_small(1);
    for (uint64_t i = 0; i < 6; i++) {
        uint8_t *host = i & 1 ? two : one;

        memcpy(host, &i, 8);
        OK(vm_mem_map(vm, AREA_A, host, 0x1000, VMM_MEM_RWX));
        LOAD(LONG64, touch);
        RUN(HLT);
        EQ(gpr(VMM_RAX), i);
        OK(vm_mem_unmap(vm, AREA_A));
    }
    end();
    free(one);
    free(two);
}

static void read_only_region(void)
{
    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RX, NULL));
    poke(AREA_A, 0x77, 8); /* vm_mem_write does, whatever the protection */
    LOAD(LONG64, touch);
    RUN(MMIO);
    EQ(gpr(VMM_RAX), 0x77);
    EQ(ex.u.mmio.gpa, AREA_A + 8);
    EQ(ex.u.mmio.access, VMM_ACCESS_WRITE);
    EQ(ex.u.mmio.len, 8);
    EQ(ex.u.mmio.data, 0x1234);
    RUN(HLT);
    EQ(peek(AREA_A + 8, 8), 0);
    OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RWX));
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(peek(AREA_A + 8, 8), 0x1234);
    OK(vm_mem_protect(vm, AREA_A, VMM_MEM_R));
    LOAD(LONG64, touch);
    RUN(MMIO);
    end();
}

static void device_behind_memory(void)
{
    static struct device d;

    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RX, NULL));
    device_mmio(&d, AREA_A, 0x1000);
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0);
    LOGGED(&d, W(8, 8, 0x1234));
    OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RWX));
    LOAD(LONG64, touch);
    RUN(HLT);
    EQ(d.n, 0); /* memory wins */
    OK(vm_mem_unmap(vm, AREA_A));
    LOAD(LONG64, touch);
    RUN(HLT);
    LOGGED(&d, R(0, 8), W(8, 8, 0x1234));
    end();
}

GUEST(read_modify_rom, 64,
      "mov $0x200000, %ebx\n"
      "lock addl $5, (%rbx)\n"
      "hlt");

static void rom_read_modify_write(void)
{
    static struct device d;

    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RX, NULL));
    poke(AREA_A, 0x70, 4);
    device_mmio(&d, AREA_A, 0x1000);
    LOAD(LONG64, read_modify_rom);
    RUN(HLT);
    LOGGED(&d, W(0, 4, 0x75));
    EQ(peek(AREA_A, 4), 0x70);
    end();
}

GUEST(jump_there, 64,
      "mov $0x200000, %eax\n"
      "jmp *%rax");
GUEST(there, 64, "nop\n hlt");

static void no_execute(void)
{
    begin_small(1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
    LOAD(LONG64, jump_there);
    PLACE(AREA_A, there);
    RUN(HLT);
    OK(vm_mem_protect(vm, AREA_A, VMM_MEM_R | VMM_MEM_W));
    LOAD(LONG64, jump_there);
    for (int i = 0; i < 2; i++) {
        RUN(MEM_FAULT);
        EQ(ex.rip, AREA_A);
        EQ(ex.u.fault.gpa, AREA_A);
        EQ(ex.u.fault.gva, AREA_A);
        EQ(ex.u.fault.access, VMM_ACCESS_EXEC);
    }
    OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RX));
    RUN(HLT);
    EQ(ex.rip, AREA_A + 2);
    end();
}

static void fetch_from_nothing(void)
{
    static struct device d;

    begin_small(1);
    LOAD(LONG64, jump_there);
    RUN(MEM_FAULT);
    EQ(ex.rip, AREA_A);
    EQ(ex.u.fault.gpa, AREA_A);
    EQ(ex.u.fault.gva, AREA_A);
    EQ(ex.u.fault.access, VMM_ACCESS_EXEC);
    device_mmio(&d, AREA_A, 0x1000);
    RUN(MEM_FAULT);
    EQ(d.n, 0); /* devices are not read for it */
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
    PLACE(AREA_A, there);
    RUN(HLT);
    EQ(ex.rip, AREA_A + 2);
    end();
}

static void copies(void)
{
    uint8_t buf[0x40] = {0};

    begin_small(1);
    OK(vm_mem_alloc(vm, 0x100000, 0x1000, VMM_MEM_RX, NULL)); /* adjacent to RAM */
    poke(0xffffc, 0x1122334455667788, 8);
    EQ(peek(0xffffc, 8), 0x1122334455667788);
    EQ(peek(0x100000, 4), 0x11223344);
    memset(buf, 0x55, sizeof(buf));
    RESULT(vm_mem_read(vm, 0x100ff0, buf, 0x11), VMM_E_RANGE);
    for (unsigned i = 0; i < sizeof(buf); i++)
        EQ(buf[i], 0x55); /* nothing copied */
    RESULT(vm_mem_write(vm, 0x100ff0, buf, 0x11), VMM_E_RANGE);
    EQ(peek(0x100ff0, 8), 0);
    OK(vm_mem_write(vm, 0x100ff0, buf, 0x10));
    RESULT(vm_mem_read(vm, NOTHING, buf, 1), VMM_E_RANGE);
    RESULT(vm_mem_changed(vm, 0x100ff0, 0x11), VMM_E_RANGE);
    OK(vm_mem_changed(vm, 0x100ff0, 0x10));
    CHECK(vm_mem_ptr(vm, 0xffffc, 8) == NULL); /* two regions */
    OK(vm_mem_read(vm, 0, NULL, 0));
    end();
}

static void walk(void)
{
    uint64_t gpa, len;
    uint32_t prot;

    begin_small(1);
    OK(vm_mem_alloc(vm, 0x800000, 0x2000, VMM_MEM_RX, NULL));
    OK(vm_mem_alloc(vm, 0x400000, 0x1000, VMM_MEM_R, NULL));
    OK(vm_mem_region(vm, 0, &gpa, &len, &prot));
    CHECK(gpa == 0 && len == 0x100000 && prot == VMM_MEM_RWX);
    OK(vm_mem_region(vm, 1, &gpa, &len, &prot));
    CHECK(gpa == 0x400000 && len == 0x1000 && prot == VMM_MEM_R);
    OK(vm_mem_region(vm, 2, &gpa, NULL, NULL));
    EQ(gpa, 0x800000);
    RESULT(vm_mem_region(vm, 3, &gpa, &len, &prot), VMM_E_NOENT);
    end();
}

GUEST(cross, 64,
      "mov $0x100000 - 4, %ebx\n"
      "movabs $0x1122334455667788, %rax\n"
      "mov %rax, (%rbx)\n"
      "mov (%rbx), %rcx\n"
      "hlt");

static void end_of_a_region(void)
{
    static struct device d;

    begin_small(1);
    device_mmio(&d, 0x100000, 0x1000);
    LOAD(LONG64, cross);
    RUN(HLT);
    EQ(peek(0xffffc, 4), 0x55667788);
    EQ(gpr(VMM_RCX), device_pattern(0, 4) << 32 | 0x55667788);
    LOGGED(&d, W(0, 4, 0x11223344), R(0, 4));
    OK(vm_mem_alloc(vm, 0x100000, 0x1000, VMM_MEM_RWX, NULL));
    LOAD(LONG64, cross);
    RUN(HLT);
    EQ(gpr(VMM_RCX), 0x1122334455667788);
    EQ(d.n, 0);
    end();
}

GUEST(touch_many, 32,
      "mov $0x200000, %ebx\n"
      "mov $300, %ecx\n"
      "1: addl %ecx, (%ebx)\n"
      "add $0x2000, %ebx\n"
      "loop 1b\n"
      "hlt");

static void many_regions(void)
{
    begin_small(1);
    for (uint32_t i = 0; i < 300; i++)
        OK(vm_mem_alloc(vm, AREA_A + i * 0x2000, 0x1000, VMM_MEM_RWX, NULL));
    for (int round = 1; round < 3; round++) {
        LOAD(PROT32, touch_many);
        RUN(HLT);
        for (uint32_t i = 0; i < 300; i++)
            EQ(peek(AREA_A + i * 0x2000, 4), (300 - i) * (uint32_t)round);
    }
    for (uint32_t i = 0; i < 300; i += 2)
        OK(vm_mem_unmap(vm, AREA_A + i * 0x2000));
    LOAD(PROT32, touch_many);
    RUN(MMIO);
    EQ(ex.u.mmio.gpa, AREA_A);
    end();
}

GUEST(touch_ends, 32,
      "mov $0x40000000, %ebx\n"
      "mov $0xbffffffc, %edx\n"
      "movl $1, (%ebx)\n"
      "movl $2, (%edx)\n"
      "mov 0x1000(%ebx), %eax\n"
      "hlt");

static void big_regions(void)
{
    const uint64_t high = 0x100000000;

    begin_small(1);
    OK(vm_mem_alloc(vm, 0x40000000, 0x80000000, VMM_MEM_RWX, NULL));
    OK(vm_mem_alloc(vm, high, 0x400000000, VMM_MEM_RWX, NULL)); /* touched lazily */
    LOAD(PROT32, touch_ends);
    RUN(HLT);
    EQ(peek(0x40000000, 4), 1);
    EQ(peek(0xbffffffc, 4), 2);
    EQ(gpr(VMM_RAX), 0);
    poke(high + 0x3fffffff8, 3, 8);
    EQ(peek(high + 0x3fffffff8, 8), 3);
    end();
}

GUEST(aliases, 64,
      "movl $7, 0x200000\n"
      "mov 0x201000, %eax\n"
      "lock incl 0x201000\n"
      "mov 0x200000, %ecx\n"
      "hlt");

static void one_memory_at_two_places(void)
{
    uint8_t *host = pages(0x1000);

    begin_small(1);
    OK(vm_mem_map(vm, AREA_A, host, 0x1000, VMM_MEM_RWX));
    OK(vm_mem_map(vm, AREA_A + 0x1000, host, 0x1000, VMM_MEM_RWX));
    LOAD(LONG64, aliases);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 7);
    EQ(gpr(VMM_RCX), 8);
    end();
    free(host);
}

/* ---- while vCPUs run ---- */

/* Counts at 0x200000 as long as it is memory, and at DATA + 8 always. */
GUEST(count_there, 64,
      "1: incl 0x200000\n"
      "incl 0x3008\n"
      "jmp 1b");

static void change_while_running(void)
{
    uint8_t *host[2] = {pages(0x1000), pages(0x1000)};
    static struct device d = {.quiet = true};
    struct runner r;

    begin_small(1);
    device_mmio(&d, AREA_A, 0x1000);
    OK(vm_mem_map(vm, AREA_A, host[0], 0x1000, VMM_MEM_RWX));
    LOAD(LONG64, count_there);
    run_start(&r, cpu);
    for (unsigned i = 0; i < 10; i++) {
        _Atomic uint32_t *used = (_Atomic uint32_t *)(void *)host[i & 1];
        uint32_t start = *used, at;

        WAIT(*used != start);
        OK(vm_mem_unmap(vm, AREA_A));
        at = *used; /* no vCPU uses the old mapping any more */
        start = d.n;
        WAIT(d.n > start + 4);
        EQ(*used, at);
        OK(vm_mem_map(vm, AREA_A, host[~i & 1], 0x1000, VMM_MEM_RWX));
    }
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
    free(host[0]);
    free(host[1]);
}

static void protect_while_running(void)
{
    static struct device d = {.quiet = true};
    struct runner r;

    begin_small(1);
    device_mmio(&d, AREA_A, 0x1000);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
    LOAD(LONG64, count_there);
    run_start(&r, cpu);
    for (unsigned i = 0; i < 10; i++) {
        uint64_t at = peek(AREA_A, 4), start;

        WAIT(peek(AREA_A, 4) != at);
        OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RX));
        at = peek(AREA_A, 4);
        start = d.n;
        WAIT(d.n > start + 4);
        EQ(peek(AREA_A, 4), at);
        OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RWX));
    }
    vcpu_kick(cpu);
    run_join(&r, VMM_EXIT_INTERRUPTED);
    end();
}

static void change_with_two_running(void)
{
    static struct device d = {.quiet = true};
    struct runner r[2];

    begin_small(2);
    device_mmio(&d, AREA_A, 0x1000);
    LOAD(LONG64, count_there);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    run_start(&r[0], cpu);
    run_start(&r[1], vm_vcpu(vm, 1));
    for (unsigned i = 0; i < 20; i++) {
        OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
        EQ(peek(AREA_A + 0x10, 8), 0);
        WAIT(peek(AREA_A, 4) > 10);
        OK(vm_mem_unmap(vm, AREA_A));
    }
    for (unsigned i = 0; i < 2; i++) {
        vcpu_kick(vm_vcpu(vm, i));
        run_join(&r[i], VMM_EXIT_INTERRUPTED);
    }
    end();
}

GUEST(locked_adds, 64,
      "mov $20000, %ecx\n"
      "1: lock incl 0x200000\n"
      "dec %ecx\n"
      "jnz 1b\n"
      "hlt");

static void locked_adds_of_two(void)
{
    struct runner r[2];

    begin(VMM_IRQCHIP_NONE, 0, 2);
    LOAD(LONG64, locked_adds);
    start_at(vm_vcpu(vm, 1), LONG64, CODE, SNIP_STACK);
    run_start(&r[0], cpu);
    run_start(&r[1], vm_vcpu(vm, 1));
    run_join(&r[0], VMM_EXIT_HLT);
    run_join(&r[1], VMM_EXIT_HLT);
    EQ(peek(HIGH, 4), 40000);
    end();
}

/* ---- from callbacks ---- */

GUEST(call_and_touch, 64,
      "out %al, $0x80\n"
      "mov 0x200000, %eax\n"
      "out %al, $0x80\n"
      "movl $5, 0x200000\n"
      "out %al, $0x80\n"
      "mov 0x200000, %ecx\n"
      "hlt");

static void change_map(struct device *d)
{
    switch (atomic_load(&d->n)) {
    case 1:
        OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RX, NULL));
        poke(AREA_A, 0x66, 4);
        break;
    case 2:
        OK(vm_mem_protect(vm, AREA_A, VMM_MEM_RWX));
        break;
    default:
        EQ(peek(AREA_A, 4), 5);
        OK(vm_mem_unmap(vm, AREA_A));
    }
}

static void change_from_callbacks(void)
{
    static struct device d = {.act = change_map};

    begin_small(1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, call_and_touch);
    RUN(MMIO);
    EQ(gpr(VMM_RAX), 0x66);
    EQ(ex.u.mmio.gpa, AREA_A);
    EQ(ex.u.mmio.access, VMM_ACCESS_READ);
    ex.u.mmio.data = 9;
    RUN(HLT);
    EQ(gpr(VMM_RCX), 9);
    end();
}

GUEST(calls, 64, "out %al, $0x80\n inc %ecx\n inc %ecx\n hlt");
GUEST(counts_down, 64, "dec %ecx\n dec %ecx\n hlt");

static void unmap_code(struct device *d)
{
    (void)d;
    OK(vm_mem_unmap(vm, AREA_A));
}

static void unmap_running_code(void)
{
    static struct device d = {.act = unmap_code};

    begin_small(1);
    device_pio(&d, 0x80, 1);
    OK(vm_mem_alloc(vm, AREA_A, 0x1000, VMM_MEM_RWX, NULL));
    LOAD(LONG64, jump_there);
    PLACE(AREA_A, calls);
    RUN(MEM_FAULT);
    EQ(ex.rip, AREA_A + 2);
    EQ(gpr(VMM_RCX), 0);
    end();
}

static void write_code(struct device *d)
{
    (void)d;
    place(CODE + 2, GUEST_CODE(counts_down));
}

static void overwrite_next_instructions(void)
{
    static struct device d = {.act = write_code};

    begin_small(1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, calls);
    RUN(HLT);
    EQ(gpr(VMM_RCX), 0xfffffffe);
    end();
}

/* ---- code ---- */

static void stored_code_between_runs(void)
{
    begin_small(1);
    LOAD(LONG64, calls);
    for (unsigned i = 0; i < 4; i++) {
        struct vcpu_regs regs = get_regs(cpu);

        regs.rip = CODE + 2;
        regs.gpr[VMM_RCX] = 0;
        regs.activity = VMM_ACTIVE;
        set_regs(cpu, &regs, VMM_REGS_GPR | VMM_REGS_EVENTS);
        /* Through our own pointer: seen at the next vcpu_run. */
        if (i & 1)
            memcpy(ram + CODE + 2, guest_counts_down, 4);
        else
            memcpy(ram + CODE + 2, guest_calls + 2, 4);
        RUN(HLT);
        EQ(gpr(VMM_RCX), i & 1 ? 0xfffffffe : 2);
    }
    end();
}

GUEST(loops, 64, "1: incl 0x3000\n jmp 1b");
GUEST(leaves, 64, "hlt");

static void code_of_a_running_vcpu(void)
{
    struct runner r;

    for (int told = 0; told < 2; told++) {
        begin_small(1);
        LOAD(LONG64, loops);
        run_start(&r, cpu);
        WAIT(ram32(DATA) != 0xa5a5a5a5);
        if (told) { /* our own store, then vm_mem_changed */
            *(volatile uint8_t *)(ram + CODE) = guest_leaves[0];
            OK(vm_mem_changed(vm, CODE, 1));
        } else {
            PLACE(CODE, leaves);
        }
        run_join(&r, VMM_EXIT_HLT);
        end();
    }
}

GUEST(modifies_itself, 64,
      "mov $3, %ecx\n"
      "1: movb $0xc2, 2f + 1(%rip)\n" /* inc %edx instead of inc %eax */
      "2: inc %eax\n"
      "loop 1b\n"
      "hlt");

static void self_modifying_code(void)
{
    begin_small(1);
    LOAD(LONG64, modifies_itself);
    RUN(HLT);
    EQ(gpr(VMM_RAX), 0);
    EQ(gpr(VMM_RDX), 3);
    end();
}

/* ---- guest-virtual addresses ---- */

static void virtual_addresses(void)
{
    uint64_t gpa = 0, value = 0;
    int ok = -1;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, leaves);
    /* One page at another linear address: a copy of the PTE of DATA for SNIP_ABSENT. */
    poke(SNIP_TABLES + 0x3000 + 8 * (SNIP_ABSENT >> 12), DATA | 7, 8);
    OK(vcpu_translate(cpu, SNIP_ABSENT + 0x123, &gpa, &ok));
    EQ(ok, 1);
    EQ(gpa, DATA + 0x123);
    OK(vcpu_translate(cpu, SNIP_RO, &gpa, &ok));
    EQ(ok, 1);
    OK(vcpu_translate(cpu, NOTHING, &gpa, &ok));
    EQ(ok, 0);
    OK(vcpu_translate(cpu, 1ull << 47, &gpa, &ok));
    EQ(ok, 0);
    EQ(peek(SNIP_TABLES + 0x3000 + 8 * (SNIP_ABSENT >> 12), 8), DATA | 7); /* no A or D bit */
    value = 0x1122334455667788;
    OK(vcpu_write_virt(cpu, SNIP_RO + 0xffc, &value, 8)); /* ignores write protection */
    EQ(peek(SNIP_RO + 0xffc, 4), 0x55667788);
    EQ(peek(DATA, 4), 0x11223344); /* the second page is DATA */
    value = 0;
    OK(vcpu_read_virt(cpu, SNIP_RO + 0xffc, &value, 8));
    EQ(value, 0x1122334455667788);
    RESULT(vcpu_read_virt(cpu, NOTHING, &value, 1), VMM_E_RANGE);
    RESULT(vcpu_read_virt(cpu, MMIO, &value, 1), VMM_E_RANGE);
    RESULT(vcpu_write_virt(cpu, NOTHING - 1, &value, 2), VMM_E_RANGE);
    end();
}

static const struct conform_case cases[] = {
    CASE(caller_memory, "vm_mem_map borrows the caller's memory; vm_mem_ptr finds it"),
    CASE(library_memory, "vm_mem_alloc gives zeroed memory"),
    CASE(what_map_refuses, "alignment, flags, overlaps and width of regions are checked"),
    CASE(file_memory, "vm_mem_map_fd shares a file; the descriptor is not kept"),
    CASE(file_for_reading, "a file open for reading gives a region without W; PERM for more"),
    CASE(unmapped_is_mmio, "accesses where no region is are MMIO"),
    CASE(other_memory_at_the_same_place, "what is mapped anew is what the guest sees"),
    CASE(read_only_region, "a write to a region without W is MMIO and changes nothing"),
    CASE(device_behind_memory, "memory wins over MMIO but for writes to read-only regions"),
    CASE(rom_read_modify_write, "read-modify-write of a read-only region writes to the device"),
    CASE(no_execute, "a fetch from a region without X is MEM_FAULT, and can be put right",
         .caps = VMM_CAP_MEM_EXEC),
    CASE(fetch_from_nothing, "a fetch from what is no memory is MEM_FAULT, and can be put right"),
    CASE(copies, "vm_mem_read and vm_mem_write span regions, and copy all or nothing"),
    CASE(walk, "vm_mem_region walks in address order"),
    CASE(end_of_a_region, "an access across the end of memory is split between both sides"),
    CASE(many_regions, "300 regions with holes between"),
    CASE(big_regions, "regions of gigabytes, above 4 GiB too"),
    CASE(one_memory_at_two_places, "the same memory can be mapped at two addresses"),
    CASE(change_while_running, "after vm_mem_unmap no running vCPU uses the old mapping"),
    CASE(protect_while_running, "vm_mem_protect takes effect in running vCPUs before it returns"),
    CASE(change_with_two_running, "map and unmap while two vCPUs use the region"),
    CASE(locked_adds_of_two, "LOCK makes read-modify-write of two vCPUs atomic"),
    CASE(change_from_callbacks, "callbacks map, protect and unmap what the next instruction uses"),
    CASE(unmap_running_code, "a callback unmaps the code that runs: MEM_FAULT behind it"),
    CASE(overwrite_next_instructions, "a callback's vm_mem_write replaces the next instructions"),
    CASE(stored_code_between_runs, "code stored through the host's pointer counts at the next run"),
    CASE(code_of_a_running_vcpu, "vm_mem_write and vm_mem_changed reach code that is running"),
    CASE(self_modifying_code, "what the guest stores into its next instruction is executed"),
    CASE(virtual_addresses, "vcpu_translate, vcpu_read_virt and vcpu_write_virt use the tables"),
};

AREA(memory, cases);
