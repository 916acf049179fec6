/* SPDX-License-Identifier: BSD-2-Clause */
/* The second level of the TLB: translated code finds there what the first level has lost, until it
 * is flushed. */
#include <check.h>

#include "bt_fake.h"
#include "core/x86/control.h"

static struct fake *translating_for(bool poor)
{
    struct fake *f = translating();
    struct bt *bt = f->cpu->tier_state;

    if (poor) {
        bt->host = (struct bt_features){0};
        bt->used = 0;
        bt_make_stubs(bt);
        bt_map_clear(f->cpu, bt);
    }
    return f;
}

/* Maps [to, to + 2 MiB) to the memory at `from`. */
static void map_large(struct fake *f, uint64_t to, uint64_t from)
{
    fake_put(f, FAKE_PD + (to >> 21) * 8, 8, from | 0x87);
}

/* Writes and sums one word of each of 6144 pages, four times; two of them are the same memory. */
FAKE_ASM(pages, 64,
         "mov $4, %edx\n 1: mov $0x200000, %esi\n mov $6144, %ecx\n"
         "2: incl 8(%rsi)\n mov (%rsi), %rax\n add %rax, %rbx\n add $4096, %rsi\n dec %ecx\n"
         "jnz 2b\n dec %edx\n jnz 1b\n hlt");

START_TEST(more_pages_than_the_first_level_has)
{
    for (unsigned poor = 0; poor < 2; poor++) {
        struct fake *f = translating_for(poor);
        struct mmu *mmu = &f->cpu->mmu;

        for (unsigned i = 0; i < 3072; i++)
            f->mem[0x200000 + i * 4096] = 1;
        for (unsigned i = 1; i <= 6; i++)
            map_large(f, (uint64_t)(i + 6) << 21, (uint64_t)i << 21);
        ck_assert_int_eq(FAKE_EXEC(f, pages), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 4 * 6144);
        for (unsigned i = 0; i < 3072; i++)
            ck_assert_uint_eq(f->mem[0x200000 + i * 4096 + 8], 8);
        ck_assert_uint_ge(mmu->l2_hits, 3 * 3072);
        ck_assert_uint_le(mmu->misses_by[MMU_READ] + mmu->misses_by[MMU_WRITE], 6144 + 16);
        finish(f);
    }
}
END_TEST

/* An address that shares its entry of the first level with PAGE. */
#define PAGE     0x50000u
#define PAGE_2   0x51000u
#define CONFLICT 0x1050000u
#define MEMORY   0x450000u /* of CONFLICT */
#define PTE      (FAKE_PT + PAGE / 4096 * 8)

FAKE_ASM(load_both, 64, "mov (%rsi), %eax\n mov (%rdi), %edx\n hlt");
FAKE_ASM(store_both, 64, "mov %eax, (%rsi)\n mov %edx, (%rdi)\n hlt");

static struct fake *with_conflict(const uint8_t *begin, const uint8_t *end)
{
    struct fake *f = translating_for(false);

    ck_assert_uint_eq(mmu_slot(PAGE), mmu_slot(CONFLICT));
    ck_assert_uint_ne(mmu_l2_slot(PAGE), mmu_l2_slot(CONFLICT));
    fake_put(f, PAGE, 4, 1);
    fake_put(f, PAGE_2, 4, 2);
    map_large(f, CONFLICT & ~0x1fffffu, MEMORY & ~0x1fffffu);
    fake_put(f, MEMORY, 4, 3);
    f->cpu->gpr[VMM_RSI] = PAGE;
    f->cpu->gpr[VMM_RDI] = CONFLICT;
    f->cpu->gpr[VMM_RAX] = 7;
    ck_assert_int_eq(fake_exec(f, begin, end), FAKE_HLT);
    return f;
}

START_TEST(the_second_level_is_flushed)
{
    for (unsigned flush = 0; flush < 3; flush++) {
        struct fake *f = with_conflict(load_both_begin, load_both_end);

        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 3);
        fake_put(f, PTE, 8, PAGE_2 | 7);
        ck_assert_int_eq(again(f), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1); /* as the TLB still has it */
        if (flush == 0)
            x86_flush_tlb(f->cpu);
        else if (flush == 1)
            x86_flush_tlb_nonglobal(f->cpu);
        else
            x86_flush_tlb_page(f->cpu, PAGE);
        ck_assert_int_eq(again(f), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
        finish(f);
    }
}
END_TEST

START_TEST(global_pages_stay)
{
    struct fake *f = translating_for(false);

    f->cpu->cr4 |= X86_CR4_PGE;
    x86_mode_changed(f->cpu);
    fake_put(f, PTE, 8, PAGE | 0x107);
    fake_put(f, PAGE, 4, 1);
    fake_put(f, PAGE_2, 4, 2);
    f->cpu->gpr[VMM_RSI] = PAGE;
    f->cpu->gpr[VMM_RDI] = CONFLICT;
    ck_assert_int_eq(FAKE_EXEC(f, load_both), FAKE_HLT);
    fake_put(f, PTE, 8, PAGE_2 | 0x107);
    x86_flush_tlb_nonglobal(f->cpu);
    ck_assert_int_eq(again(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(again(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
    finish(f);
}
END_TEST

/* Pages lose the right to be written unseen when code of them is decoded. */
FAKE_ASM(writes_code, 64,
         "mov $100, %ecx\n 1: movb %cl, 0x50001\n incl (%rdi)\n mov $0x50000, %eax\n call *%rax\n"
         "add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(constant, 64, "mov $0, %eax\n ret");

START_TEST(stores_into_code_are_seen)
{
    struct fake *f = translating_for(false);

    fake_load(f, PAGE, constant_begin, constant_end);
    f->cpu->gpr[VMM_RDI] = CONFLICT;
    ck_assert_int_eq(FAKE_EXEC(f, writes_code), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 5050);
    finish(f);
}
END_TEST

/* Pages that may only be read, or only by the kernel. */
START_TEST(rights_are_kept)
{
    struct fake *f = translating_for(false);

    f->cpu->cr0 |= X86_CR0_WP;
    fake_put(f, PTE, 8, PAGE | 5);
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RSI] = PAGE;
    f->cpu->gpr[VMM_RDI] = CONFLICT;
    ck_assert_int_eq(FAKE_EXEC(f, load_both), FAKE_HLT);
    ck_assert_int_eq(again(f), FAKE_HLT);
    FAKE_LOAD(f, store_both);
    x86_cache_invalidate(f->cpu, FAKE_TEXT, 16);
    ck_assert_int_eq(again(f), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, PAGE);
    finish(f);

    f = with_conflict(load_both_begin, load_both_end);
    fake_put(f, PTE, 8, PAGE | 3);
    fake_put(f, FAKE_TSS + 4, 8, FAKE_STACK0);
    x86_flush_tlb(f->cpu);
    ck_assert_int_eq(again(f), FAKE_HLT);
    fake_user(f);
    ck_assert_int_eq(again(f), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, PAGE);
    finish(f);
}
END_TEST

/* Handlers find it, too: a string instruction that goes to and fro. */
FAKE_ASM(copies, 64, "mov $1000, %ecx\n 1: movsb\n dec %ecx\n jnz 1b\n hlt");

START_TEST(handlers_ask_the_second_level)
{
    struct fake *f = translating_for(false);

    for (unsigned i = 0; i < 1000; i++)
        f->mem[PAGE + i] = (uint8_t)(i * 7);
    map_large(f, CONFLICT & ~0x1fffffu, MEMORY & ~0x1fffffu);
    f->cpu->gpr[VMM_RSI] = PAGE;
    f->cpu->gpr[VMM_RDI] = CONFLICT;
    ck_assert_int_eq(FAKE_EXEC(f, copies), FAKE_HLT);
    ck_assert_int_eq(memcmp(f->mem + PAGE, f->mem + MEMORY, 1000), 0);
    ck_assert_uint_le(f->cpu->mmu.misses_by[MMU_READ] + f->cpu->mmu.misses_by[MMU_WRITE], 8);
    finish(f);
}
END_TEST

/* An address that is not canonical and has the bits of one that is cached. */
START_TEST(wild_addresses)
{
    for (unsigned bit = 48; bit < 64; bit++) {
        struct fake *f = with_conflict(load_both_begin, load_both_end);

        x86_flush_tlb(f->cpu);
        f->cpu->gpr[VMM_RSI] = PAGE | 1ull << bit;
        ck_assert_int_eq(again(f), X86_GP);
        finish(f);
    }
}
END_TEST

/* Loads over the end of a page: each part is where its page is. */
START_TEST(crossing_pages)
{
    struct fake *f = with_conflict(load_both_begin, load_both_end);

    fake_put(f, PTE + 8, 8, (PAGE + 0x3000) | 7);
    fake_put(f, PAGE + 0xffe, 2, 0x1234);
    fake_put(f, PAGE + 0x3000, 2, 0x5678);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RSI] = PAGE + 0xffe;
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(again(f), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x56781234);
    }
    finish(f);
}
END_TEST

/* A #PF drops what there was for its address (SDM Vol. 3A 4.10.4.1). */
FAKE_ASM(load_store, 64, "mov (%rsi), %eax\n mov %edx, (%rsi)\n hlt");
FAKE_ASM(just_load, 64, "mov (%rsi), %eax\n hlt");

START_TEST(faults_drop_entries)
{
    struct fake *f = translating_for(false);

    f->cpu->cr0 |= X86_CR0_WP;
    fake_put(f, PTE, 8, PAGE | 5);
    fake_put(f, PAGE, 4, 1);
    fake_put(f, PAGE_2, 4, 2);
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RSI] = PAGE;
    ck_assert_int_eq(FAKE_EXEC(f, load_store), X86_PF_);
    fake_put(f, PTE, 8, PAGE_2 | 5);
    FAKE_LOAD(f, just_load);
    x86_cache_invalidate(f->cpu, FAKE_TEXT, 16);
    ck_assert_int_eq(again(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
    finish(f);
}
END_TEST

/* When the numbers of generations are used up, all is cleared. */
START_TEST(generations_start_over)
{
    struct fake *f = with_conflict(load_both_begin, load_both_end);
    struct mmu *mmu = &f->cpu->mmu;

    mmu->l2_gen = 0xffffffe;
    x86_flush_tlb(f->cpu);
    ck_assert_uint_eq(mmu->l2_gen, 2);
    ck_assert_uint_ne(mmu->l2_key[0], mmu->l2_key[1]);
    for (unsigned i = 0; i < MMU_NTABLES * MMU_L2_SIZE; i++)
        ck_assert_uint_eq(mmu->l2[i].read, 0);
    fake_put(f, PTE, 8, PAGE_2 | 7);
    ck_assert_int_eq(again(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
    finish(f);
}
END_TEST

/* ---- PCIDs ---- */

/* Another set of tables, in which PAGE is PAGE_2. */
#define PML4_2 0x600000u
#define PDPT_2 0x601000u
#define PD_2   0x602000u
#define PT_2   0x603000u
#define PTE_2  (PT_2 + PAGE / 4096 * 8)
#define KEEP   (1ull << 63)

FAKE_ASM(load_one, 64, "mov (%rsi), %eax\n hlt");

static struct fake *with_pcids(uint64_t flags)
{
    struct fake *f = translating_for(false);

    f->cpu->cr4 |= X86_CR4_PGE | X86_CR4_PCIDE;
    x86_mode_changed(f->cpu);
    memcpy(f->mem + PD_2, f->mem + FAKE_PD, 4096);
    memcpy(f->mem + PT_2, f->mem + FAKE_PT, 4096);
    fake_put(f, PML4_2, 8, PDPT_2 | 7);
    fake_put(f, PDPT_2, 8, PD_2 | 7);
    fake_put(f, PD_2, 8, PT_2 | 7);
    fake_put(f, PTE, 8, PAGE | 7 | flags);
    fake_put(f, PTE_2, 8, PAGE_2 | 7 | flags);
    fake_put(f, PAGE, 4, 1);
    fake_put(f, PAGE_2, 4, 2);
    fake_put(f, MEMORY, 4, 3);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RSI] = PAGE;
    ck_assert_int_eq(FAKE_EXEC(f, load_one), FAKE_HLT);
    return f;
}

/* What PAGE holds after a load of CR3. */
static uint64_t page_with(struct fake *f, uint64_t cr3)
{
    ck_assert(x86_set_cr3(f->cpu, cr3));
    ck_assert_uint_eq(f->cpu->cr3, cr3 & ~KEEP);
    ck_assert_int_eq(again(f), FAKE_HLT);
    return f->cpu->gpr[VMM_RAX];
}

START_TEST(pcids_have_entries_of_their_own)
{
    struct fake *f = with_pcids(0);
    uint64_t one = FAKE_PML4 | 1, two = PML4_2 | 2;

    ck_assert_uint_eq(page_with(f, one), 1);
    ck_assert_uint_eq(page_with(f, two), 2);
    ck_assert_uint_eq(page_with(f, one | KEEP), 1);
    ck_assert_uint_eq(page_with(f, two | KEEP), 2);
    /* They are still there when the tables have changed, until a load without the bit. */
    fake_put(f, PTE, 8, MEMORY | 7);
    fake_put(f, PTE_2, 8, MEMORY | 7);
    ck_assert_uint_eq(page_with(f, one | KEEP), 1);
    ck_assert_uint_eq(page_with(f, two | KEEP), 2);
    ck_assert_uint_eq(page_with(f, one), 3);
    ck_assert_uint_eq(page_with(f, two | KEEP), 2);
    ck_assert_uint_eq(page_with(f, one | KEEP), 3);
    ck_assert_uint_eq(page_with(f, two), 3);
    finish(f);
}
END_TEST

/* Each way to flush what belongs to a PCID that is not the current one. */
FAKE_ASM(do_invpcid, 64, "invpcid (%rdx), %r8\n hlt");

START_TEST(other_pcids_are_flushed)
{
    for (unsigned way = 0; way < 8; way++) {
        struct fake *f = with_pcids(0);
        uint64_t one = FAKE_PML4 | 1, two = PML4_2 | 2;

        ck_assert_uint_eq(page_with(f, one), 1);
        ck_assert_uint_eq(page_with(f, two), 2);
        fake_put(f, PTE, 8, MEMORY | 7);
        if (way < 4) { /* INVPCID, of this type */
            fake_load(f, FAKE_TEXT + 64, do_invpcid_begin, do_invpcid_end);
            fake_put(f, 0x700000, 8, 1);
            fake_put(f, 0x700008, 8, PAGE);
            f->cpu->gpr[VMM_RDX] = 0x700000;
            f->cpu->gpr[VMM_R8] = way;
            f->cpu->feat.l7_ebx |= X86_F7_EBX_INVPCID;
            f->cpu->rip = FAKE_TEXT + 64;
            ck_assert_int_eq(fake_go(f), FAKE_HLT);
        } else if (way == 4) {
            x86_flush_tlb(f->cpu);
        } else if (way == 5) {
            mmu_flush_gpa(&f->cpu->mmu, PAGE, 4096);
        } else if (way == 6) { /* more PCIDs than there are places for */
            for (uint64_t pcid = 3; pcid < 3 + MMU_CONTEXTS; pcid++)
                ck_assert_uint_eq(page_with(f, PML4_2 | pcid), 2);
        } else { /* keys start over */
            f->cpu->mmu.l2_gen = 0xfffffff;
            ck_assert_uint_eq(page_with(f, PML4_2 | 3), 2);
        }
        ck_assert_uint_eq(page_with(f, one | KEEP), 3);
        finish(f);
    }
}
END_TEST

START_TEST(global_pages_belong_to_all_pcids)
{
    struct fake *f = with_pcids(0x100);

    ck_assert_uint_eq(page_with(f, FAKE_PML4 | 1), 1);
    ck_assert_uint_eq(page_with(f, PML4_2 | 2), 1);
    x86_flush_tlb_page(f->cpu, PAGE);
    ck_assert_uint_eq(page_with(f, PML4_2 | 2 | KEEP), 2);
    ck_assert_uint_eq(page_with(f, FAKE_PML4 | 1), 2);
    finish(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_tlb");
    TCase *t = tcase_create("bt_tlb");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, more_pages_than_the_first_level_has);
    tcase_add_test(t, the_second_level_is_flushed);
    tcase_add_test(t, global_pages_stay);
    tcase_add_test(t, stores_into_code_are_seen);
    tcase_add_test(t, rights_are_kept);
    tcase_add_test(t, handlers_ask_the_second_level);
    tcase_add_test(t, wild_addresses);
    tcase_add_test(t, crossing_pages);
    tcase_add_test(t, faults_drop_entries);
    tcase_add_test(t, generations_start_over);
    tcase_add_test(t, pcids_have_entries_of_their_own);
    tcase_add_test(t, other_pcids_are_flushed);
    tcase_add_test(t, global_pages_belong_to_all_pcids);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
