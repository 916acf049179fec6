/* SPDX-License-Identifier: BSD-2-Clause */
/* test_cache.c: decoded blocks follow what is in memory: self-modifying code, remapping, bounds. */
#include <check.h>

#include "core/x86/cache.h"
#include "x86_fake.h"

static struct fake *f;

static void setup(void)
{
    f = fake_new();
    fake_long64(f);
}

static void teardown(void)
{
    fake_free(f);
}

/* The store changes the immediate of the instruction behind it, in the same block. */
FAKE_ASM(next_insn, 64,
         "lea 1f+1(%rip), %rdi\n"
         "mov $77, %ecx\n"
         "mov %ecx, (%rdi)\n"
         "1: mov $11, %eax\n"
         "hlt\n");

START_TEST(store_to_the_next_instruction)
{
    ck_assert_int_eq(FAKE_EXEC(f, next_insn), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 77);
    ck_assert_uint_eq(f->done, 5);
}
END_TEST

/* The same by a locked read-modify-write, a push and a string store. */
FAKE_ASM(next_rmw, 64,
         "lea 1f+1(%rip), %rdi\n"
         "mov $5, %ecx\n"
         "lock addl %ecx, (%rdi)\n"
         "1: mov $11, %eax\n"
         "hlt\n");
FAKE_ASM(next_push, 64,
         "lea 1f+8(%rip), %rsp\n"
         "movabs $0xf400000050b8, %rax\n"
         "push %rax\n"
         "nop\n"
         "1: mov $11, %eax\n"
         "hlt\n .fill 16, 1, 0x90\n hlt\n");
FAKE_ASM(next_stos, 64,
         "lea 1f(%rip), %rdi\n"
         "mov $0x42, %eax\n"
         "mov $5, %ecx\n"
         "rep stosb\n"
         "1: .fill 8, 1, 0x90\n"
         "hlt\n");

START_TEST(other_stores_to_the_next_instruction)
{
    ck_assert_int_eq(FAKE_EXEC(f, next_rmw), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 16);

    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, next_push), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x50);

    /* 42H is a REX prefix: one NOP with five of them, two without. */
    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, next_stos), FAKE_HLT);
    ck_assert_uint_eq(f->done, 3 + 1 + 3 + 1);
}
END_TEST

/* A loop that counts in its own immediate. */
FAKE_ASM(counter, 64,
         "lea 1f+1(%rip), %rdi\n"
         "mov $1000, %ecx\n"
         "1: mov $0, %eax\n"
         "incl (%rdi)\n"
         "dec %ecx\n"
         "jnz 1b\n"
         "hlt\n");

START_TEST(loop_changes_itself)
{
    ck_assert_int_eq(FAKE_EXEC(f, counter), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 999);
    ck_assert_uint_eq(f->done, 2 + 4000 + 1);
    ck_assert_uint_lt(f->cpu->count.blocks_decoded, 5000);
}
END_TEST

/* Code is changed through another linear address, far from the block that is running. */
FAKE_ASM(alias, 64,
         "mov $2, %ebx\n"
         "1: call 2f\n"
         "add %eax, %edx\n"
         "movb $9, (%rsi)\n"
         "dec %ebx\n"
         "jnz 1b\n"
         "hlt\n"
         ".space 0x100 - (. - alias_begin)\n"
         "2: mov $1, %eax\n"
         "ret\n");

START_TEST(store_through_an_alias)
{
    fake_put(f, FAKE_PT + 0x100 * 8, 8, FAKE_TEXT | 7);
    f->cpu->gpr[VMM_RDX] = 0;
    f->cpu->gpr[VMM_RSI] = 0x100101;
    ck_assert_int_eq(FAKE_EXEC(f, alias), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 10);
}
END_TEST

/* A store into the second page of an instruction, from a block in another page. */
FAKE_ASM(tail, 64, "movabs $0x1111111111111111, %rax\n ret\n");
FAKE_ASM(tail_main, 64,
         "call *%rbx\n"
         "mov %rax, %rdx\n"
         "movb $0x22, (%rsi)\n"
         "call *%rbx\n"
         "hlt\n");

START_TEST(store_to_the_second_page)
{
    f->cpu->gpr[VMM_RBX] = FAKE_DATA + 4096 - 5;
    f->cpu->gpr[VMM_RSI] = FAKE_DATA + 4096 + 4;
    fake_load(f, FAKE_DATA + 4096 - 5, tail_begin, tail_end);
    ck_assert_int_eq(FAKE_EXEC(f, tail_main), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0x1111111111111111);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x2211111111111111);
}
END_TEST

/* Stores into a page with code, but not to it, leave the blocks alone. */
FAKE_ASM(data_near_code, 64,
         "mov $1000, %ecx\n"
         "1: mov %ecx, 0x800(%rip)\n"
         "dec %ecx\n"
         "jnz 1b\n"
         "hlt\n");

START_TEST(data_beside_code)
{
    ck_assert_int_eq(FAKE_EXEC(f, data_near_code), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->count.blocks_flushed, 0);
    ck_assert_uint_lt(f->cpu->count.blocks_decoded, 5);
}
END_TEST

/* When a page's last block is gone, stores to it are fast again. */
FAKE_ASM(overwrite, 64,
         "mov $0xc3, %al\n"
         "mov %al, (%rsi)\n"
         "call *%rsi\n"
         "mov %al, (%rsi)\n"
         "mov %al, (%rsi)\n"
         "mov %al, (%rsi)\n"
         "hlt\n");

START_TEST(page_without_blocks_is_no_code_page)
{
    f->cpu->gpr[VMM_RSI] = FAKE_DATA;
    ck_assert_int_eq(FAKE_EXEC(f, overwrite), FAKE_HLT);
    ck_assert_uint_eq(f->code[FAKE_DATA / 4096], 0);
    ck_assert_uint_eq(f->code_writes, 1);
}
END_TEST

/* ---- changes from outside ---- */

FAKE_ASM(constant, 64, "mov $1, %eax\n hlt\n");

START_TEST(recheck_finds_changes)
{
    uint64_t decoded;

    ck_assert_int_eq(FAKE_EXEC(f, constant), FAKE_HLT);
    decoded = f->cpu->count.blocks_decoded;
    f->cpu->rip = FAKE_TEXT;
    x86_cache_recheck(f->cpu);
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->count.blocks_decoded, decoded);

    f->mem[FAKE_TEXT + 1] = 2;
    f->cpu->rip = FAKE_TEXT;
    x86_cache_recheck(f->cpu);
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
}
END_TEST

/* 15 bytes, the last seven of which are no whole word. */
FAKE_ASM(long_constant, 64, "mov $1, %cl\n mov $1, %dl\n movabs $0, %rax\n hlt\n");

START_TEST(recheck_finds_changes_of_every_byte)
{
    ck_assert_int_eq(FAKE_EXEC(f, long_constant), FAKE_HLT);
    for (unsigned i = 0; i < 8; i++) {
        f->mem[FAKE_TEXT + 6 + i] = 1;
        f->cpu->rip = FAKE_TEXT;
        x86_cache_recheck(f->cpu);
        ck_assert_int_eq(fake_go(f), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x0101010101010101 >> (56 - 8 * i));
    }
}
END_TEST

START_TEST(recheck_finds_changes_across_pages)
{
    static const uint64_t at = FAKE_TEXT + 4096 - 3;

    f->cpu->rip = at;
    ck_assert_int_eq(FAKE_EXEC(f, constant), FAKE_HLT);
    f->mem[at + 4] = 3;
    f->cpu->rip = at;
    x86_cache_recheck(f->cpu);
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x03000001);
    /* Now it does not cross any more. */
    f->mem[at] = 0xf4;
    f->cpu->rip = at;
    x86_cache_recheck(f->cpu);
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, at + 1);
}
END_TEST

/* The surroundings may flush, recheck and invalidate in the middle of an instruction. */
FAKE_ASM(mmio_loop, 64,
         "mov $3, %ecx\n"
         "1: mov %ecx, (%rsi)\n"
         "inc %eax\n"
         "dec %ecx\n"
         "jnz 1b\n"
         "hlt\n");

static int disturb(void *ctx, uint64_t gpa, unsigned size, bool write, uint64_t *value)
{
    (void)ctx, (void)gpa, (void)size, (void)write;
    switch (*value) {
    case 3:
        x86_cache_flush(f->cpu);
        break;
    case 2:
        x86_cache_recheck(f->cpu);
        break;
    default:
        x86_cache_invalidate(f->cpu, 0, FAKE_MEM);
    }
    return X86_ENV_OK;
}

START_TEST(flush_inside_an_instruction)
{
    f->cpu->gpr[VMM_RSI] = FAKE_MMIO;
    f->env.mmu.mmio = disturb;
    ck_assert_int_eq(FAKE_EXEC(f, mmio_loop), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 3);
    ck_assert_uint_eq(f->done, 1 + 12 + 1);
}
END_TEST

START_TEST(invalidate_tells_what_is_left)
{
    ck_assert(x86_cache_invalidate(f->cpu, FAKE_TEXT, 1));
    ck_assert_int_eq(FAKE_EXEC(f, constant), FAKE_HLT);
    ck_assert(!x86_cache_invalidate(f->cpu, FAKE_TEXT + 0x800, 8));
    ck_assert(!x86_cache_invalidate(f->cpu, FAKE_TEXT + 6, 1));
    ck_assert(x86_cache_invalidate(f->cpu, FAKE_TEXT + 5, 1));
}
END_TEST

/* ---- bounds ---- */

/* Jumps to each byte of 8 MiB of NOPs with a RET now and then: more blocks than there is room. */
FAKE_ASM(flood, 64,
         "mov $0x400000, %ebx\n"
         "1: call *%rbx\n"
         "inc %ebx\n"
         "cmp $0xc00000, %ebx\n"
         "jne 1b\n"
         "hlt\n");

START_TEST(memory_is_bounded)
{
    memset(f->mem + 0x400000, 0x90, 0x800000);
    for (uint64_t i = 7; i < 0x800000; i += 8)
        f->mem[0x400000 + i] = 0xc3;
    fake_load(f, FAKE_TEXT, flood_begin, flood_end);
    while (!f->cpu->count.blocks_flushed)
        ck_assert_int_eq(fake_run(f, 1000000), X86_STOP_ATTENTION);
    /* It goes on with an empty cache. */
    ck_assert_int_eq(fake_run(f, 1000000), X86_STOP_ATTENTION);
    ck_assert_uint_lt(f->cpu->gpr[VMM_RBX], 0xc00000);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cache");
    TCase *t = tcase_create("cache");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 100);
    tcase_add_test(t, store_to_the_next_instruction);
    tcase_add_test(t, other_stores_to_the_next_instruction);
    tcase_add_test(t, loop_changes_itself);
    tcase_add_test(t, store_through_an_alias);
    tcase_add_test(t, store_to_the_second_page);
    tcase_add_test(t, data_beside_code);
    tcase_add_test(t, page_without_blocks_is_no_code_page);
    tcase_add_test(t, recheck_finds_changes);
    tcase_add_test(t, recheck_finds_changes_of_every_byte);
    tcase_add_test(t, recheck_finds_changes_across_pages);
    tcase_add_test(t, flush_inside_an_instruction);
    tcase_add_test(t, invalidate_tells_what_is_left);
    tcase_add_test(t, memory_is_bounded);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
