/* SPDX-License-Identifier: BSD-2-Clause */
/* dirty.c: dirty tracking: exactly the pages that were written since, whoever wrote them. */
#include "conform.h"

#define PAGES (RAM / 4096)
#define WORDS (PAGES / 64)

static uint64_t map[WORDS];

static uint64_t collect(uint32_t flags)
{
    uint64_t count = UINT64_MAX, bits = 0;

    memset(map, 0xff, sizeof(map));
    OK(vm_dirty_get(vm, 0, RAM, flags, map, &count));
    for (unsigned i = 0; i < WORDS; i++)
        bits += (uint64_t)__builtin_popcountll(map[i]);
    EQ(bits, count);
    return count;
}

static bool exact(void)
{
    return conform_caps.caps & VMM_CAP_DIRTY_EXACT;
}

/* That vm_dirty_get shows `n` pages; where it is not exact, at least so many. */
static void collects(uint32_t flags, uint64_t n)
{
    uint64_t count = collect(flags);

    if (exact() || count < n)
        EQ(count, n);
}

static bool dirty(uint64_t gpa)
{
    return map[gpa >> 18] >> (gpa >> 12 & 63) & 1;
}

static bool clean(uint64_t gpa)
{
    return !exact() || !dirty(gpa);
}

GUEST(writes, 64,
      "movl $1, 0x200000\n"
      "movb $1, 0x203fff\n"
      "movl $1, 0x207ffe\n" /* two pages */
      "mov 0x209000, %eax\n"
      "hlt");

/* Runs it once before, so that page tables have their accessed and dirty bits. */
static void start(struct code code)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    load_on(cpu, LONG64, code);
    RUN(HLT);
}

static void run_again(void)
{
    struct vcpu_regs regs = get_regs(cpu);

    regs.rip = CODE;
    regs.activity = VMM_ACTIVE;
    set_regs(cpu, &regs, VMM_REGS_GPR | VMM_REGS_EVENTS);
    RUN(HLT);
}

static void writes_of_the_guest(void)
{
    start(GUEST_CODE(writes));
    OK(vm_dirty_start(vm));
    collects(0, 0); /* all are clean from then on */
    for (int i = 0; i < 3; i++) {
        run_again();
        collects(0, 4);
        CHECK(dirty(0x200000) && dirty(0x203000) && dirty(0x207000) && dirty(0x208000));
        collects(0, 0);
    }
    OK(vm_dirty_stop(vm));
    end();
}

/* More pages than a log of the hardware's holds (512); each has been mapped before. */
#define MANY    1300u
#define MANY_AT 0x800000u
GUEST(many, 32,
      "mov $0x800000, %edi\n"
      "1: incl (%edi)\n"
      "add $0x1000, %edi\n"
      "cmp $0xd14000, %edi\n"
      "jb 1b\n"
      "hlt");

static void many_pages(void)
{
    const uint64_t part = 700 * 4096, all = MANY * 4096;
    static uint64_t bits[(MANY + 63) / 64];
    uint64_t count;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    OK(vm_mem_alloc(vm, MANY_AT, all, VMM_MEM_RWX, NULL));
    LOAD(PROT32, many);
    RUN(HLT);
    OK(vm_dirty_start(vm));
    for (int i = 0; i < 3; i++) {
        run_again();
        OK(vm_dirty_get(vm, MANY_AT, all, 0, bits, &count));
        EQ(count, MANY);
        OK(vm_dirty_get(vm, MANY_AT, all, 0, bits, &count));
        EQ(count, 0);
    }
    /* In parts: what is not asked for stays. */
    run_again();
    OK(vm_dirty_get(vm, MANY_AT + part, all - part, 0, bits, &count));
    EQ(count, MANY - 700);
    run_again();
    OK(vm_dirty_get(vm, MANY_AT, part, 0, bits, &count));
    EQ(count, 700);
    OK(vm_dirty_get(vm, MANY_AT + part, all - part, 0, bits, &count));
    EQ(count, MANY - 700);
    end();
}

static void keep(void)
{
    start(GUEST_CODE(writes));
    OK(vm_dirty_start(vm));
    run_again();
    collects(VMM_DIRTY_KEEP, 4);
    collects(VMM_DIRTY_KEEP, 4);
    collects(0, 4);
    collects(0, 0);
    end();
}

static void user_mode_writes(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(USER64, writes);
    RUN(HLT); /* #GP */
    OK(vm_dirty_start(vm));
    struct vcpu_regs regs = get_regs(cpu);
    start_at(cpu, USER64, CODE, SNIP_STACK);
    regs = get_regs(cpu);
    EQ(regs.rip, CODE);
    RUN(HLT);
    collect(0);
    CHECK(dirty(0x200000) && dirty(0x203000) && dirty(0x207000) && dirty(0x208000));
    CHECK(dirty(SNIP_KSTACK - 8)); /* the frame of the #GP */
    CHECK(clean(0x209000) && clean(CODE));
    end();
}

static void ranges(void)
{
    uint64_t two[2] = {UINT64_MAX, UINT64_MAX}, count;

    start(GUEST_CODE(writes));
    OK(vm_dirty_start(vm));
    run_again();
    OK(vm_dirty_get(vm, 0x203000, 0x5000, 0, two, &count));
    EQ(two[0], 0x11); /* bits behind the last page are 0 */
    EQ(count, 2);
    EQ(two[1], UINT64_MAX);
    collects(0, 2); /* those outside of the range have stayed dirty */
    CHECK(dirty(0x200000) && dirty(0x208000));
    OK(vm_dirty_get(vm, 0x10000000, 0x100000, 0, map, &count)); /* a hole is clean */
    EQ(count, 0);
    end();
}

static void host_writes(void)
{
    static const uint64_t value = 5;

    start(GUEST_CODE(writes));
    OK(vm_dirty_start(vm));
    poke(0x210ffc, 1, 8);
    collects(0, 2);
    CHECK(dirty(0x210000) && dirty(0x211000));
    OK(vm_mem_changed(vm, 0x212000, 0x2000));
    collects(0, 2);
    CHECK(dirty(0x212000) && dirty(0x213000));
    OK(vcpu_write_virt(cpu, 0x214008, &value, 8));
    collects(0, 1);
    CHECK(dirty(0x214000));
    ram[0x216000] = 1; /* through our own pointer: not seen */
    collects(0, 0);
    end();
}

GUEST(pushes, 64, "push $1\n ud2");

static void pushes_and_frames(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, pushes);
    RUN(HLT);
    OK(vm_dirty_start(vm));
    start_at(cpu, LONG64, CODE, 0x220000);
    RUN(HLT);
    collect(0); /* with the page table's bits */
    CHECK(dirty(0x21f000) && clean(0x220000) && clean(SNIP_STACK - 8));
    end();
}

GUEST(touches, 64, "mov 0x3000, %eax\n movl $1, 0x6000\n hlt");

static void page_tables(void)
{
    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, touches);
    OK(vm_dirty_start(vm));
    RUN(HLT);
    collect(0);
    CHECK(dirty(0x6000));
    CHECK(dirty(SNIP_TABLES + 0x3000)); /* its accessed and dirty bits */
    EQ(peek(SNIP_TABLES + 0x3000 + 8 * (0x6000 >> 12), 8) & 0x60, 0x60);
    EQ(peek(SNIP_TABLES + 0x3000 + 8 * (0x3000 >> 12), 8) & 0x60, 0x20);
    CHECK(clean(0x3000));
    end();
}

GUEST(strings, 64,
      "mov $0x240000, %edi\n"
      "mov $0x3000, %ecx\n"
      "rep stosb\n"
      "mov $0x250000, %edi\n"
      "mov $4, %ecx\n"
      "mov $0x80, %edx\n"
      "rep insb\n"
      "lock incl 0x252000\n"
      "movups %xmm0, 0x254000\n"
      "hlt");

static void every_kind_of_write(void)
{
    static struct device d;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    device_pio(&d, 0x80, 1);
    LOAD(LONG64, strings);
    RUN(HLT);
    OK(vm_dirty_start(vm));
    run_again();
    collects(0, 6);
    CHECK(dirty(0x240000) && dirty(0x241000) && dirty(0x242000) && dirty(0x250000) &&
          dirty(0x252000) && dirty(0x254000));
    end();
}

static void new_regions(void)
{
    uint64_t count;

    start(GUEST_CODE(writes));
    OK(vm_dirty_start(vm));
    OK(vm_mem_alloc(vm, 0x800000, 0x10000, VMM_MEM_RWX, NULL));
    OK(vm_dirty_get(vm, 0x800000, 0x10000, 0, map, &count));
    EQ(count, 0); /* begins clean */
    poke(0x803000, 1, 1);
    OK(vm_dirty_get(vm, 0x800000, 0x10000, 0, map, &count));
    EQ(count, 1);
    EQ(map[0], 8);
    OK(vm_mem_unmap(vm, 0x800000));
    OK(vm_dirty_get(vm, 0x800000, 0x10000, 0, map, &count));
    EQ(count, 0);
    end();
}

static void starts_and_stops(void)
{
    uint64_t count;

    start(GUEST_CODE(writes));
    RESULT(vm_dirty_get(vm, 0, RAM, 0, map, &count), VMM_E_STATE);
    RESULT(vm_dirty_stop(vm), VMM_E_STATE);
    OK(vm_dirty_start(vm));
    RESULT(vm_dirty_start(vm), VMM_E_STATE);
    RESULT(vm_dirty_get(vm, 0x800, 0x1000, 0, map, &count), VMM_E_INVAL);
    RESULT(vm_dirty_get(vm, 0, 0x800, 0, map, &count), VMM_E_INVAL);
    RESULT(vm_dirty_get(vm, UINT64_MAX << 12, 0x2000, 0, map, &count), VMM_E_RANGE);
    RESULT(vm_dirty_get(vm, 0, 0x1000, 8, map, &count), VMM_E_INVAL);
    run_again();
    OK(vm_dirty_stop(vm));
    OK(vm_dirty_start(vm));
    collects(0, 0); /* begins clean again */
    run_again();
    OK(vm_dirty_get(vm, 0, RAM, 0, map, NULL));
    CHECK(dirty(0x200000));
    end(); /* with tracking on */
}

static void read_only_regions(void)
{
    start(GUEST_CODE(writes));
    OK(vm_mem_alloc(vm, 0x800000, 0x10000, VMM_MEM_RX, NULL));
    OK(vm_dirty_start(vm));
    OK(vm_mem_protect(vm, 0x800000, VMM_MEM_RWX));
    OK(vm_mem_protect(vm, 0, VMM_MEM_RX));
    OK(vm_mem_protect(vm, 0, VMM_MEM_RWX));
    collects(0, 0);
    run_again();
    collects(0, 4); /* still tracked */
    end();
}

/* Writes a number into page after page of 64, for ever. */
GUEST(rounds, 64,
      "1: mov $0x200000, %edi\n"
      "2: inc %rax\n"
      "mov %rax, (%rdi)\n"
      "add $0x1000, %edi\n"
      "cmp $0x240000, %edi\n"
      "jb 2b\n"
      "jmp 1b");

/* A copy that follows the dirty pages is equal in the end: no write is missed. */
static void no_write_is_lost(void)
{
    static uint8_t copy[64][8];
    struct runner r;

    begin(VMM_IRQCHIP_NONE, 0, 1);
    LOAD(LONG64, rounds);
    run_start(&r, cpu);
    OK(vm_dirty_start(vm));
    for (unsigned i = 0; i < 64; i++)
        OK(vm_mem_read(vm, HIGH + i * 4096, copy[i], 8));
    for (int round = 0; round < 100; round++) {
        bool last = round == 99;

        if (last) {
            vcpu_kick(cpu);
            run_join(&r, VMM_EXIT_INTERRUPTED);
        }
        collect(0);
        for (unsigned i = 0; i < 64; i++)
            if (dirty(HIGH + i * 4096))
                OK(vm_mem_read(vm, HIGH + i * 4096, copy[i], 8));
    }
    for (unsigned i = 0; i < 64; i++)
        CHECK(memcmp(copy[i], ram + HIGH + i * 4096, 8) == 0);
    collects(0, 0);
    end();
}

static const struct conform_case cases[] = {
    CASE(writes_of_the_guest, "exactly the pages that the guest has written, once"),
    CASE(many_pages, "more pages than a log of the hardware's holds"),
    CASE(keep, "VMM_DIRTY_KEEP leaves them dirty"),
    CASE(user_mode_writes, "writes of user mode, and frames on the kernel's stack"),
    CASE(ranges, "only the range is asked for and cleaned; holes are clean"),
    CASE(host_writes, "vm_mem_write, vcpu_write_virt and vm_mem_changed; not the host's pointer"),
    CASE(pushes_and_frames, "pushes and exception frames"),
    CASE(page_tables, "accessed and dirty bits of the guest's page tables"),
    CASE(every_kind_of_write, "strings, INS, LOCKed and vector stores"),
    CASE(new_regions, "regions mapped meanwhile begin clean and are tracked"),
    CASE(starts_and_stops, "start, stop and their errors"),
    CASE(read_only_regions, "changes of protection neither dirty nor stop tracking"),
    CASE(no_write_is_lost, "a write is in this result or in the next one"),
};

AREA(dirty, cases);
