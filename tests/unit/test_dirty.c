/* SPDX-License-Identifier: BSD-2-Clause */
/* test_dirty.c: dirty tracking on the software CPU: whatever writes is seen, what only reads is
 * not. */
#include "api_vm.h"

#define PAGE 4096u
#define DATA 0x40000u /* the pages that guests write to */

static uint64_t bitmap[16];

/* The pages from DATA on that were written, a bit each. */
static uint64_t dirty(void)
{
    uint64_t bits = ~0ull, count = 0;

    ck_assert_int_eq(vm_dirty_get(vm, DATA, 64 * PAGE, 0, &bits, &count), 0);
    ck_assert_uint_eq(count, (unsigned)__builtin_popcountll(bits));
    return bits;
}

static void clean_all(void)
{
    ck_assert_int_eq(vm_dirty_get(vm, 0, RAM, 0, bitmap, NULL), 0);
}

static void begin(void)
{
    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_dirty_start(vm), 0);
}

/* Runs code with RDI = DATA that ends in HLT. */
static void run_code(const char *code, size_t len)
{
    struct vcpu_regs regs;

    api_load(vcpu, code, len);
    regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.gpr[VMM_RDI] = DATA;
    regs.gpr[VMM_RSI] = CODE;
    regs.gpr[VMM_RSP] = STACK;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    clean_all();
    RUN(HLT);
}

/* What `code` writes to, the first time and when it is executed again with warm caches. */
#define CHECK(code, pages)                                                                         \
    do {                                                                                           \
        run_code(code, sizeof(code) - 1);                                                          \
        ck_assert_uint_eq(dirty(), pages);                                                         \
        run_code(code, sizeof(code) - 1);                                                          \
        ck_assert_uint_eq(dirty(), pages);                                                         \
    } while (0)

START_TEST(stores_of_all_kinds)
{
    begin();
    CHECK("\x88\x07\xf4", 1);                             /* mov %al, (%rdi) */
    CHECK("\x48\x89\x87\x00\x20\x00\x00\xf4", 4);         /* mov %rax, 0x2000(%rdi) */
    CHECK("\x48\x89\x87\xfc\x0f\x00\x00\xf4", 3);         /* ... 0xffc: crosses a page */
    CHECK("\x83\x87\x00\x10\x00\x00\x01\xf4", 2);         /* addl $1, 0x1000(%rdi) */
    CHECK("\xf0\x48\xff\x87\xfc\x0f\x00\x00\xf4", 3);     /* lock incq 0xffc(%rdi) */
    CHECK("\xf0\x0f\xc7\x8f\x00\x30\x00\x00\xf4", 8);     /* lock cmpxchg8b 0x3000(%rdi) */
    CHECK("\x0f\xab\x87\x00\x10\x00\x00\xf4", 2);         /* bts %eax, 0x1000(%rdi) */
    CHECK("\x48\x8d\xa7\x00\x20\x00\x00\x50\xf4", 2);     /* lea 0x2000(%rdi), %rsp; push */
    CHECK("\x0f\x11\x87\xf8\x0f\x00\x00\xf4", 3);         /* movups %xmm0, 0xff8(%rdi) */
    CHECK("\x0f\x11\x87\x00\x10\x00\x00\xf4", 2);         /* movups %xmm0, 0x1000(%rdi) */
    CHECK("\x0f\xae\x07\xf4", 1);                         /* fxsave (%rdi) */
    CHECK("\xdd\x97\x00\x40\x00\x00\xf4", 16);            /* fstl 0x4000(%rdi) */
    CHECK("\x0f\xae\x9f\x00\x10\x00\x00\xf4", 2);         /* stmxcsr 0x1000(%rdi) */
    CHECK("\x0f\x01\x87\x00\x10\x00\x00\xf4", 2);         /* sgdt 0x1000(%rdi) */
    CHECK("\xb9\x00\x28\x00\x00\xf3\xaa\xf4", 7);         /* mov $0x2800, %ecx; rep stosb */
    CHECK("\xb9\x00\x06\x00\x00\xf3\x48\xa5\xf4", 7);     /* mov $0x600, %ecx; rep movsq */
    CHECK("\xfd\xb9\x02\x00\x00\x00\xf3\x48\xab\xf4", 1); /* std; rep stosq: the page before is not
                                                             of the query */
    api_end();
}
END_TEST

static int answer(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    *value = 0x5a;
    return VMM_IO_OK;
}

static int clean_meanwhile(void *opaque, uint64_t offset, uint32_t size, uint64_t *value)
{
    dirty();
    return answer(opaque, offset, size, value);
}

START_TEST(input_to_memory)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = answer};

    begin();
    ck_assert_int_eq(pio_register(vm, 0x40, 1, &ops, NULL, NULL), 0);
    CHECK("\x66\xba\x40\x00\xb9\x03\x00\x00\x00\xf3\x6c\xf4", 1); /* mov $0x40, %dx; rep insb */
    api_end();
}
END_TEST

/* INS looks at its target, reads the port and then stores: what was asked meanwhile has not seen
 * that. */
START_TEST(a_callback_may_ask)
{
    struct vmm_io_ops ops = {.size = sizeof(ops), .read = clean_meanwhile};
    /* mov $0x40, %dx; mov $DATA, %edi; insb; hlt */
    static const char code[] = "\x66\xba\x40\x00\xbf\x00\x00\x04\x00\x6c\xf4";

    begin();
    ck_assert_int_eq(pio_register(vm, 0x40, 1, &ops, NULL, NULL), 0);
    LOAD(code);
    clean_all();
    RUN(HLT);
    ck_assert_uint_eq(dirty(), 1);
    api_end();
}
END_TEST

START_TEST(reading_makes_nothing_dirty)
{
    begin();
    CHECK("\x48\x8b\x07\xf4", 0);                             /* mov (%rdi), %rax */
    CHECK("\x48\x8b\x87\xfc\x0f\x00\x00\xf4", 0);             /* ... 0xffc */
    CHECK("\x48\x8b\x87\x00\x10\x00\x00\x48\x89\x07\xf4", 1); /* reads one page, writes another */
    CHECK("\x8b\x07\x89\x07\xf4", 1);                         /* the same page, both ways */
    CHECK("\x39\x07\xf4", 0);                                 /* cmp %eax, (%rdi) */
    CHECK("\xb9\x00\x10\x00\x00\xf3\xae\xf4", 0);             /* repe scasb */
    api_end();
}
END_TEST

/* Each look cleans: the next store is seen again, though its page was writable without a check. */
START_TEST(every_round_sees_the_store)
{
    static const char loop[] = "\xff\x07"  /* 1: incl (%rdi) */
                               "\xe6\x99"  /* out %al, $0x99 */
                               "\xeb\xfa"; /* jmp 1b */

    begin();
    LOAD(loop);
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.gpr[VMM_RDI] = DATA + 0x5000;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    clean_all();
    for (int i = 0; i < 50; i++) {
        RUN(PIO);
        ck_assert_uint_eq(dirty(), 0x20);
        ck_assert_uint_eq(dirty(), 0);
    }
    api_end();
}
END_TEST

/* The accessed and dirty bits of page tables, of descriptors and of what host functions write. */
START_TEST(tables_that_the_cpu_writes)
{
    uint64_t entry;

    begin();
    LOAD("\x48\x89\x07\xf4");
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR;
    regs.gpr[VMM_RDI] = DATA;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    clean_all();
    RUN(HLT);
    ck_assert_int_eq(vm_dirty_get(vm, 0, RAM, 0, bitmap, NULL), 0);
    ck_assert_uint_eq(bitmap[0], 0x7 << 16); /* PML4, PDPT, first directory */
    ck_assert_uint_eq(bitmap[1], 1);         /* page 0x40 */
    ck_assert_int_eq(vm_mem_read(vm, TABLES + 0x2000, &entry, 8), 0);
    ck_assert_uint_eq(entry & 0x60, 0x60);

    /* mov $0x10, %eax; mov %eax, %ds: sets the descriptor's accessed bit */
    const uint64_t gdt[3] = {0, 0x00af9b000000ffff, 0x00cf92000000ffff};
    LOAD("\xb8\x10\x00\x00\x00\x8e\xd8\xf4");
    ck_assert_int_eq(vm_mem_write(vm, GATES, gdt, sizeof(gdt)), 0);
    regs = api_regs(vcpu);
    regs.groups = VMM_REGS_DT;
    regs.gdt = (struct vmm_dtable){.base = GATES, .limit = sizeof(gdt) - 1};
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    clean_all();
    RUN(HLT);
    ck_assert_int_eq(vm_dirty_get(vm, GATES, PAGE, 0, bitmap, NULL), 0);
    ck_assert_uint_eq(bitmap[0], 1);
    ck_assert_int_eq(vm_mem_read(vm, GATES + 16, &entry, 8), 0);
    ck_assert_uint_eq(entry >> 40 & 1, 1);
    api_end();
}
END_TEST

START_TEST(the_program_s_writes)
{
    uint8_t bytes[PAGE + 2] = {0};

    begin();
    LOAD("\xf4");
    clean_all();
    ck_assert_int_eq(vm_mem_write(vm, DATA + 0xfff, bytes, PAGE + 2), 0);
    ck_assert_uint_eq(dirty(), 7);
    ck_assert_int_eq(vm_mem_changed(vm, DATA + 0x3000, 1), 0);
    ck_assert_uint_eq(dirty(), 8);
    ck_assert_int_eq(vcpu_write_virt(vcpu, DATA + 0x4000, bytes, 1), 0);
    ck_assert_uint_eq(dirty(), 16);
    ck_assert_int_eq(vm_mem_read(vm, DATA, bytes, PAGE), 0);
    ck_assert_int_eq(vcpu_read_virt(vcpu, DATA, bytes, PAGE), 0);
    memset(vm_mem_ptr(vm, DATA, PAGE), 1, PAGE);
    ck_assert_uint_eq(dirty(), 0);
    api_end();
}
END_TEST

/* Pages with decoded code are written by way of a check that is there anyway. */
START_TEST(code_that_is_written)
{
    begin();
    /* movb $0x90, next; next: int3, which is a nop then; hlt */
    LOAD("\xc6\x05\x00\x00\x00\x00\x90\xcc\xf4");
    clean_all();
    RUN(HLT);
    ck_assert_int_eq(vm_dirty_get(vm, 0, 2 * PAGE, 0, bitmap, NULL), 0);
    ck_assert_uint_eq(bitmap[0], 2);
    api_end();
}
END_TEST

START_TEST(bits_are_where_they_belong)
{
    uint64_t bits[3] = {~0ull, ~0ull, ~0ull}, count = 9;
    uint8_t byte = 0;

    begin();
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x2000, VMM_MEM_R | VMM_MEM_W, NULL), 0);
    clean_all();
    ck_assert_int_eq(vm_mem_write(vm, 0x1000, &byte, 1), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x41000, &byte, 1), 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x201000, &byte, 1), 0);
    /* 65 pages, of which the last bit is in a second word. */
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 65 * PAGE, VMM_DIRTY_KEEP, bits, &count), 0);
    ck_assert_uint_eq(bits[0], 1);
    ck_assert_uint_eq(bits[1], 1);
    ck_assert_uint_eq(bits[2], ~0ull); /* not ours */
    ck_assert_uint_eq(count, 2);
    /* Kept: again. A hole is clean. */
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0x201 * (uint64_t)PAGE, 0, bitmap, &count), 0);
    ck_assert_uint_eq(count, 3);
    ck_assert_uint_eq(bitmap[0], 1);
    ck_assert_uint_eq(bitmap[1], 1);
    ck_assert_uint_eq(bitmap[8], 1);
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0x201 * (uint64_t)PAGE, 0, bitmap, &count), 0);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0x1000, 0, 0, NULL, &count), 0);
    api_end();
}
END_TEST

START_TEST(regions_that_come_and_go)
{
    uint64_t count;
    uint8_t byte = 0;

    begin();
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x4000, VMM_MEM_R | VMM_MEM_W, NULL), 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0x200000, 0x4000, 0, bitmap, &count), 0);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(vm_mem_write(vm, 0x202000, &byte, 1), 0);
    ck_assert_int_eq(vm_mem_protect(vm, 0x200000, VMM_MEM_R), 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0x200000, 0x4000, VMM_DIRTY_KEEP, bitmap, &count), 0);
    ck_assert_uint_eq(bitmap[0], 4);
    ck_assert_int_eq(vm_mem_unmap(vm, 0x200000), 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0x200000, 0x4000, 0, bitmap, &count), 0);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(vm_mem_alloc(vm, 0x200000, 0x4000, VMM_MEM_R | VMM_MEM_W, NULL), 0);
    ck_assert_int_eq(vm_dirty_get(vm, 0x200000, 0x4000, 0, bitmap, &count), 0);
    ck_assert_uint_eq(count, 0);
    api_end();
}
END_TEST

START_TEST(starting_and_stopping)
{
    uint64_t count = 5;
    uint8_t byte = 0;

    api_begin(VMM_IRQCHIP_NONE, 0, 1);
    ck_assert_int_eq(vm_dirty_stop(vm), VMM_E_STATE);
    ck_assert_int_eq(vm_dirty_get(vm, 0, PAGE, 0, bitmap, &count), VMM_E_STATE);
    ck_assert_uint_eq(count, 5);
    /* Warm entries for writing, from before the start. */
    LOAD("\x88\x07\xf4");
    struct vcpu_regs regs = api_regs(vcpu);
    regs.groups = VMM_REGS_GPR | VMM_REGS_EVENTS;
    regs.gpr[VMM_RDI] = DATA;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    RUN(HLT);
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    ck_assert_int_eq(vm_dirty_start(vm), VMM_E_STATE);
    ck_assert_uint_eq(dirty(), 0);
    regs.rip = CODE;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    RUN(HLT);
    ck_assert_uint_eq(dirty(), 1);
    ck_assert_int_eq(vm_mem_write(vm, DATA, &byte, 1), 0);
    ck_assert_int_eq(vm_dirty_stop(vm), 0);
    ck_assert_int_eq(vm_mem_write(vm, DATA, &byte, 1), 0);
    ck_assert_int_eq(vm_dirty_start(vm), 0);
    ck_assert_uint_eq(dirty(), 0);
    api_end();
}
END_TEST

START_TEST(bad_arguments)
{
    begin();
    ck_assert_int_eq(vm_dirty_start(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_stop(NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(NULL, 0, 0, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(vm, 0x10, PAGE, 0, bitmap, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(vm, 0, 0x10, 0, bitmap, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(vm, 0, PAGE, 2, bitmap, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(vm, 0, PAGE, 0, NULL, NULL), VMM_E_INVAL);
    ck_assert_int_eq(vm_dirty_get(vm, 1ull << 60, PAGE, 0, bitmap, NULL), VMM_E_RANGE);
    ck_assert_int_eq(vm_dirty_get(vm, PAGE, ~0xfffull, 0, bitmap, NULL), VMM_E_RANGE);
    api_end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        stores_of_all_kinds,        input_to_memory,
        a_callback_may_ask,         reading_makes_nothing_dirty,
        every_round_sees_the_store, tables_that_the_cpu_writes,
        the_program_s_writes,       code_that_is_written,
        bits_are_where_they_belong, regions_that_come_and_go,
        starting_and_stopping,      bad_arguments,
    };

    return api_main("dirty", tests, sizeof(tests) / sizeof(tests[0]));
}
