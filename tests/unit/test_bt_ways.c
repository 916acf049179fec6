/* SPDX-License-Identifier: BSD-2-Clause */
/* Ways between translated blocks: what they lead to dies, is mapped elsewhere, or belongs to
 * another mode. */
#include <check.h>
#include <pthread.h>

#include "bt_fake.h"
#include "core/x86/control.h"

/* ---- targets that die ---- */

/* The function changes what it returns to: the immediate of a MOV. */
FAKE_ASM(
    call_dies, 64,
    "mov $100, %ecx\n 1: call 3f\n 2: mov $0, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt\n"
    ".balign 64\n 3: mov %cl, 2b+1(%rip)\n ret");

START_TEST(return_to_changed_code)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, call_dies), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 5050);
    finish(f);
}
END_TEST

/* The same with an indirect jump, and with the code far away. */
FAKE_ASM(jump_dies, 64,
         "lea 3f(%rip), %rdx\n mov $100, %ecx\n 1: mov %cl, 1(%rdx)\n jmp *%rdx\n"
         "2: dec %ecx\n jnz 1b\n hlt\n .skip 5000\n 3: mov $0, %eax\n add %rax, %rbx\n jmp 2b");

START_TEST(jump_to_changed_code)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, jump_dies), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 5050);
    finish(f);
}
END_TEST

/* A return address that has changed since the call, and one that was never pushed by a call. */
FAKE_ASM(other_return, 64,
         "mov $100, %ecx\n 1: call 3f\n jmp 4f\n 2: add $3, %rbx\n lea 4f(%rip), %rax\n push "
         "%rax\n ret\n"
         "3: addq $2, (%rsp)\n inc %rbx\n ret\n 4: dec %ecx\n jnz 1b\n hlt");

START_TEST(return_elsewhere)
{
    struct fake *f = translating();

    ck_assert_int_eq(FAKE_EXEC(f, other_return), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 400);
    finish(f);
}
END_TEST

/* 5000 calls deep, from two places, whose return addresses have the same lower bits. */
FAKE_ASM(deep, 64,
         "mov $5000, %ecx\n call 1f\n hlt\n 1: dec %ecx\n jz 2f\n test $1, %cl\n jz 3f\n"
         "call 1b\n 4: inc %rbx\n 2: ret\n .skip 1024 - 5 - (. - 4b)\n"
         "3: call 1b\n add $2, %rbx\n ret");

START_TEST(deep_recursion)
{
    struct fake *f = translating();

    f->cpu->gpr[VMM_RSP] = FAKE_DATA + 0x20000;
    ck_assert_int_eq(FAKE_EXEC(f, deep), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 2500 + 2 * 2499);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA + 0x20000);
    finish(f);
}
END_TEST

/* ---- pages that are mapped elsewhere ---- */

#define CALLER   FAKE_TEXT
#define CALLEE   (FAKE_TEXT + 0x2000u)
#define CALLEE_2 (FAKE_TEXT + 0x3000u)
#define CALLER_2 (FAKE_TEXT + 0x4000u)
#define PTE(at)  (FAKE_PT + (at) / 4096 * 8)

FAKE_ASM(direct, 64, "1: call 1b + 0x2000\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(indirect, 64, "1: call *%rdx\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(by_jump, 64,
         "1: push %rsi\n jmp 1b + 0x2000\n nop\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(gives_1, 64, "mov $1, %eax\n ret");
FAKE_ASM(gives_2, 64, "mov $2, %eax\n ret");

static void run_more(struct fake *f, unsigned insns, uint64_t rbx)
{
    ck_assert_int_eq(fake_run(f, insns), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], rbx);
}

/* What the translated code knows of a mapping holds until the TLB is flushed, and no longer. */
static void remap_callee(const uint8_t *begin, const uint8_t *end, unsigned flush)
{
    struct fake *f = translating();
    bool jump = begin == by_jump_begin;
    unsigned n = jump ? 700 : 600;

    fake_load(f, CALLER, begin, end);
    fake_load(f, CALLEE, gives_1_begin, gives_1_end);
    fake_load(f, CALLEE_2, gives_2_begin, gives_2_end);
    f->cpu->gpr[VMM_RCX] = 1u << 30;
    f->cpu->gpr[VMM_RDX] = CALLEE;
    f->cpu->gpr[VMM_RSI] = CALLER + 7; /* behind the NOP */
    for (unsigned i = 0; i < 3; i++) {
        run_more(f, n, 100 + 400 * i);
        fake_put(f, PTE(CALLEE), 8, CALLEE_2 | 7);
        run_more(f, n, 200 + 400 * i);
        if (flush == 0)
            x86_flush_tlb(f->cpu);
        else if (flush == 1)
            x86_flush_tlb_nonglobal(f->cpu);
        else
            x86_flush_tlb_page(f->cpu, CALLEE);
        run_more(f, n, 400 + 400 * i);
        fake_put(f, PTE(CALLEE), 8, CALLEE | 7);
        x86_flush_tlb(f->cpu);
    }
    finish(f);
}

START_TEST(callee_is_remapped)
{
    for (unsigned flush = 0; flush < 3; flush++) {
        remap_callee(direct_begin, direct_end, flush);
        remap_callee(indirect_begin, indirect_end, flush);
        remap_callee(by_jump_begin, by_jump_end, flush);
    }
}
END_TEST

/* The callee maps another page where its caller is. */
FAKE_ASM(caller_1, 64,
         "1: call 1b + 0x2000\n mov $1, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(caller_2, 64,
         "1: call 1b + 0x2000\n mov $2, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(toggles, 64, "xorl $0x4000, 0x7080\n invlpg 0x10000\n ret");
FAKE_ASM(toggles_only, 64, "xorl $0x4000, 0x7080\n ret");
_Static_assert(PTE(CALLER) == 0x7080 && CALLER == 0x10000 && (CALLER ^ CALLER_2) == 0x4000,
               "as in the code");

static uint64_t remap_caller(const uint8_t *begin, const uint8_t *end)
{
    struct fake *f = translating();
    uint64_t sum;

    fake_load(f, CALLER, caller_1_begin, caller_1_end);
    fake_load(f, CALLER_2, caller_2_begin, caller_2_end);
    fake_load(f, CALLEE, begin, end);
    f->cpu->gpr[VMM_RCX] = 100;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    sum = f->cpu->gpr[VMM_RBX];
    finish(f);
    return sum;
}

START_TEST(caller_is_remapped)
{
    ck_assert_uint_eq(remap_caller(toggles_begin, toggles_end), 150);
    ck_assert_uint_eq(remap_caller(toggles_only_begin, toggles_only_end), 100);
}
END_TEST

/* ---- calls inside regions ---- */

/* Executes it to its HLT, in regions too. */
static void exec_in_region(const uint8_t *begin, const uint8_t *end, uint64_t rbx)
{
    struct fake *f = translating();

    ck_assert_int_eq(fake_exec(f, begin, end), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], rbx);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    finish(f);
}

/* The function, in another page, changes its caller now and then. */
FAKE_ASM(caller_changes, 64,
         "mov $400, %ecx\n 1: call 3f\n 2: mov $0, %eax\n add %rax, %rbx\n dec %ecx\n jnz 1b\n"
         "hlt\n .skip 5000\n 3: test $31, %cl\n jnz 4f\n mov %cl, 2b+1(%rip)\n 4: ret");
/* The caller changes the function. */
FAKE_ASM(callee_changes, 64,
         "mov $400, %ecx\n 1: call 3f\n add %rax, %rbx\n test $31, %cl\n jnz 2f\n"
         "mov %cl, 3f+1(%rip)\n 2: dec %ecx\n jnz 1b\n hlt\n .skip 5000\n 3: mov $0, %eax\n ret");
/* One return in eight leaves out the next instruction. */
FAKE_ASM(skips, 64,
         "mov $400, %ecx\n 1: call 3f\n add $1, %rbx\n dec %ecx\n jnz 1b\n hlt\n .skip 5000\n"
         "3: test $7, %cl\n jnz 4f\n addq $4, (%rsp)\n 4: ret");
/* A function that is called from two places, and calls another one. */
FAKE_ASM(nested, 64,
         "mov $400, %ecx\n 1: call 3f\n add $1, %rbx\n call 3f\n add $2, %rbx\n dec %ecx\n"
         "jnz 1b\n hlt\n .skip 5000\n 3: call 5f\n add $3, %rbx\n ret\n .skip 5000\n"
         "5: push %rbx\n pop %rax\n add $4, %rbx\n ret");
/* A jump through a constant address whose content changes. */
FAKE_ASM(constant_changes, 64,
         "lea 4f(%rip), %rsi\n lea 5f(%rip), %rdi\n mov %rsi, 6f(%rip)\n mov $400, %ecx\n"
         "1: call 2f\n add %rax, %rbx\n test $63, %cl\n jnz 3f\n mov 6f(%rip), %rdx\n"
         "mov %rdi, 6f(%rip)\n mov %rdx, %rdi\n 3: dec %ecx\n jnz 1b\n hlt\n"
         "2: jmp *6f(%rip)\n 4: mov $1, %eax\n ret\n 5: mov $2, %eax\n ret\n"
         ".skip 5000\n .balign 8\n 6: .quad 0");

START_TEST(calls_in_regions)
{
    unsigned sum = 0, late = 0;

    for (unsigned ecx = 400, last = 0; ecx; ecx--) {
        late += last;
        if (ecx % 32 == 0)
            last = ecx & 0xff;
        sum += last;
    }
    exec_in_region(caller_changes_begin, caller_changes_end, sum);
    exec_in_region(callee_changes_begin, callee_changes_end, late);
    exec_in_region(skips_begin, skips_end, 350);
    exec_in_region(nested_begin, nested_end, 400 * (3 + 2 * 7));
    exec_in_region(constant_changes_begin, constant_changes_end, 208 + 2 * 192);
}
END_TEST

/* The caller maps another page where the function is, and flushes. */
FAKE_ASM(remaps_page, 64,
         "1: call 1b + 0x2000\n add %rax, %rbx\n test $15, %cl\n jnz 2f\n"
         "xorl $0x1000, 0x7090\n invlpg 0x12000\n 2: dec %ecx\n jnz 1b\n hlt");
FAKE_ASM(remaps_all, 64,
         "1: call 1b + 0x2000\n add %rax, %rbx\n test $15, %cl\n jnz 2f\n"
         "xorl $0x1000, 0x7090\n mov %cr3, %rax\n mov %rax, %cr3\n 2: dec %ecx\n jnz 1b\n hlt");
_Static_assert(PTE(CALLEE) == 0x7090 && CALLEE == 0x12000 && (CALLEE ^ CALLEE_2) == 0x1000,
               "as in the code");

static void remap_in_region(const uint8_t *begin, const uint8_t *end)
{
    struct fake *f = translating();

    fake_load(f, CALLER, begin, end);
    fake_load(f, CALLEE, gives_1_begin, gives_1_end);
    fake_load(f, CALLEE_2, gives_2_begin, gives_2_end);
    f->cpu->gpr[VMM_RCX] = 400;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 1 + 12 * 16 * (2 + 1) + 15 * 2);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    finish(f);
}

START_TEST(flushed_in_regions)
{
    remap_in_region(remaps_page_begin, remaps_page_end);
    remap_in_region(remaps_all_begin, remaps_all_end);
}
END_TEST

/* 100 times `branch` (CALL or JMP) from `caller` to `callee`, as far away as displacements go. */
static void far_away(uint8_t branch, uint64_t caller, uint64_t callee)
{
    /* mov $1, %eax, and back by %rdx; there add %rax, %rbx; dec %ecx; jnz to the begin; hlt */
    static const uint8_t target[] = {0xb8, 1, 0, 0, 0, 0xff, 0xe2};
    static const uint8_t behind[] = {0x48, 0x01, 0xc3, 0xff, 0xc9, 0x75, 0xf2, 0xf4};
    const uint64_t begin = caller - 2; /* inc %edi, as the branch alone would not be translated */
    const uint64_t gib = (1u << 30) - 1;
    struct fake *f = translating();

    for (unsigned i = 0; i < 4; i++)
        fake_put(f, FAKE_PDPT + 8 * i, 8, FAKE_PD | 7);
    fake_put(f, begin & gib, 2, 0xc7ff);
    fake_put(f, caller & gib, 1, branch);
    fake_put(f, (caller & gib) + 1, 4, (uint32_t)(callee - caller - 5));
    for (unsigned i = 0; i < sizeof(behind); i++)
        fake_put(f, (caller & gib) + 5 + i, 1, behind[i]);
    for (unsigned i = 0; i < sizeof(target); i++)
        fake_put(f, (callee & gib) + i, 1, target[i]);
    f->cpu->rip = begin;
    f->cpu->gpr[VMM_RCX] = 100;
    f->cpu->gpr[VMM_RDX] = caller + 5;
    f->cpu->gpr[VMM_RSP] = FAKE_DATA + 0x20000;
    ck_assert_int_eq(fake_run(f, 700), X86_STOP_ATTENTION);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 100);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA + 0x20000 - (branch == 0xe8 ? 800 : 0));
    /* Only what comes to the last bytes of 2 GiB is left to handlers. */
    if (callee - (begin & MMU_PAGE_MASK) + 0x7ffff000 <= 0xffffefff)
        ck_assert_uint_lt(f->cpu->count.handler_calls, 20);
    finish(f);
}

START_TEST(far_away_targets)
{
    static const struct {
        uint64_t caller, callee;
    } row[] = {
        {0x10002, 0x40012000},    {0x40010002, 0x12000},    {0x14002, 0x80012000},
        {0x80010002, 0x12010},    {0x14ff0, 0x80014f80},    {0x14400, 0x80014204},
        {0x80014200, 0x14300},    {0x80014ff6, 0x15100},    {0x13ff8, 0x80013fe0},
        {0xc0010002, 0x80012000}, {0x80010002, 0xc0012345},
    };

    for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        far_away(0xe8, row[i].caller, row[i].callee);
        far_away(0xe9, row[i].caller, row[i].callee);
    }
}
END_TEST

/* Calls the other page if %esi is not 0. */
FAKE_ASM(calls_at_times, 64,
         "1: test %esi, %esi\n jz 2f\n call 1b + 0x2000\n add %rax, %rbx\n 2: dec %ecx\n jnz 1b\n"
         "hlt");

/* Has called so often that both pages are in a region. */
static struct fake *with_region(void)
{
    struct fake *f = translating();

    fake_load(f, CALLER, calls_at_times_begin, calls_at_times_end);
    fake_load(f, CALLEE, gives_1_begin, gives_1_end);
    fake_load(f, CALLEE_2, gives_2_begin, gives_2_end);
    f->cpu->gpr[VMM_RCX] = 1u << 30;
    f->cpu->gpr[VMM_RSI] = 1;
    ck_assert_int_eq(fake_run(f, 7000), X86_STOP_ATTENTION);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    return f;
}

/* Whether a region has made sure of its pages since the last flush. */
static bool is_guarded(const struct fake *f)
{
    for (unsigned i = 0; i < MMU_GUARDS; i++)
        if (f->cpu->mmu.guard[i].stamp == (CALLER ^ f->cpu->link_key))
            return true;
    return false;
}

/* Rounds, in so many runs, without the other page. */
static void enter_often(struct fake *f, unsigned runs)
{
    f->cpu->gpr[VMM_RSI] = 0;
    for (unsigned i = 0; i < runs; i++)
        ck_assert_int_eq(fake_run(f, 100), X86_STOP_ATTENTION);
}

/* Calls once more; what it returned. */
static uint64_t call_again(struct fake *f)
{
    f->cpu->rip = CALLER;
    f->cpu->gpr[VMM_RBX] = 0;
    f->cpu->gpr[VMM_RSI] = 1;
    ck_assert_int_eq(fake_run(f, 6), X86_STOP_ATTENTION);
    return f->cpu->gpr[VMM_RBX];
}

#define PTE_ACCESSED 0x20

/* A region is entered although one of its pages has not been used since the flush: if its entry has
 * the accessed bit, as the processor may have cached it then, and else not. */
START_TEST(pages_not_in_use)
{
    for (unsigned accessed = 0; accessed < 2; accessed++) {
        uint64_t bits = 7 | accessed * PTE_ACCESSED;
        struct fake *f = with_region();

        fake_put(f, PTE(CALLEE), 8, CALLEE | bits);
        x86_flush_tlb(f->cpu);
        ck_assert(!is_guarded(f));
        enter_often(f, 100);
        ck_assert_int_eq(is_guarded(f), accessed);
        ck_assert_uint_eq(fake_get(f, PTE(CALLEE), 8), CALLEE | bits);
        fake_put(f, PTE(CALLEE), 8, CALLEE_2 | bits);
        if (accessed)
            x86_flush_tlb_page(f->cpu, CALLEE);
        ck_assert(!is_guarded(f));
        ck_assert_uint_eq(call_again(f), 2);
        finish(f);
    }
}
END_TEST

/* A region whose page is elsewhere for good makes room for another. */
START_TEST(pages_that_have_gone)
{
    struct fake *f = with_region();
    uint64_t regions = f->cpu->count.regions;

    fake_put(f, PTE(CALLEE), 8, CALLEE_2 | 7 | PTE_ACCESSED);
    x86_flush_tlb(f->cpu);
    enter_often(f, 60000);
    ck_assert_uint_gt(f->cpu->count.regions, regions);
    ck_assert_uint_eq(call_again(f), 2);
    finish(f);
}
END_TEST

/* A return to an address that is not canonical, after many that were expected. */
FAKE_ASM(wild_return, 64,
         "mov $100, %ecx\n 1: call 3f\n dec %ecx\n jnz 1b\n hlt\n .skip 5000\n"
         "3: cmp $1, %ecx\n jne 4f\n btcq $62, (%rsp)\n 4: ret");

START_TEST(fault_of_a_return)
{
    struct fake *f = translating();
    uint64_t sp = f->cpu->gpr[VMM_RSP];

    ck_assert_int_eq(FAKE_EXEC(f, wild_return), X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 1);
    ck_assert_uint_eq(fake_stack(f, 1, 8),
                      FAKE_TEXT + (uint64_t)(wild_return_end - wild_return_begin) - 1);
    ck_assert_uint_eq(fake_stack(f, 4, 8), sp - 8);
    ck_assert_uint_gt(f->cpu->count.regions, 0);
    finish(f);
}
END_TEST

/* ---- modes ---- */

/* What a call of the kernel has left is not for user mode, which has the same page mapped at the
 * same address. */
FAKE_ASM(calls_once, 64, "call 1f\n hlt\n .balign 64\n 1: ret");
FAKE_ASM(returns_there, 64, "push $0x10005\n ret");

START_TEST(returns_keep_to_their_mode)
{
    struct fake *f = translating();
    uint64_t before;

    fake_load(f, CALLEE, returns_there_begin, returns_there_end);
    ck_assert_int_eq(FAKE_EXEC(f, calls_once), FAKE_HLT);
    fake_user(f);
    fake_put(f, FAKE_TSS + 4, 8, FAKE_STACK0);
    f->cpu->rip = CALLEE;
    before = f->cpu->count.translations;
    ck_assert_int_eq(fake_go(f), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 1, 8), CALLER + 5);
    /* The code that returns; HLT alone is not worth one. */
    ck_assert_uint_ge(f->cpu->count.translations, before + 1);
    finish(f);
}
END_TEST

/* Generations that come again are not taken for those of old. */
START_TEST(generations_start_over)
{
    struct fake *f = translating();
    struct bt *bt = f->cpu->tier_state;
    unsigned known = 0;

    fake_load(f, CALLER, direct_begin, direct_end);
    fake_load(f, CALLEE, gives_1_begin, gives_1_end);
    f->cpu->gpr[VMM_RCX] = 1u << 30;
    run_more(f, 600, 100);
    for (unsigned i = 0; i < bt->npages; i++)
        known += f->cpu->tier_map[i] != 0;
    ck_assert_uint_eq(known, 2);
    f->cpu->jump_set[0].link_gen = 0xfffff;
    x86_flush_tlb(f->cpu);
    for (unsigned i = 0; i < X86_TIER_PAGES; i++)
        ck_assert_uint_eq(f->cpu->tier_map[i], 0);
    run_more(f, 600, 200);
    finish(f);
}
END_TEST

/* More pages of code than there are elements of the map: all starts over. */
START_TEST(pages_are_given_back)
{
    struct fake *f = translating();
    struct bt *bt = f->cpu->tier_state;

    for (unsigned i = 0; i < 3; i++) {
        fake_load(f, CALLER, direct_begin, direct_end);
        fake_load(f, CALLEE, gives_1_begin, gives_1_end);
        f->cpu->gpr[VMM_RCX] = 1u << 30;
        f->cpu->rip = CALLER;
        run_more(f, 600, 100 * (i + 1));
        ck_assert_uint_eq(bt->npages, BT_NO_PAGE + 3);
        x86_cache_invalidate(f->cpu, CALLER, 0x3000);
        ck_assert_ptr_nonnull(bt->free_pages);
    }
    bt->free_pages = NULL;
    bt->npages = X86_TIER_PAGES;
    run_more(f, 600, 400);
    ck_assert_uint_eq(f->cpu->count.code_flushes, 1);
    finish(f);
}
END_TEST

/* ---- counts and requests ---- */

FAKE_ASM(counts, 64, "1: inc %rbx\n jmp 2f\n 2: inc %rbx\n jmp 1b");

/* Budgets are exact, however often translated code goes on by itself when its count is used up. */
START_TEST(long_budgets)
{
    static const unsigned budgets[] = {1,     X86_POLL - 1, X86_POLL, X86_POLL + 1, 2 * X86_POLL,
                                       33333, 65536,        100003,   250001};
    struct fake *f = translating();
    uint64_t total = 0;

    FAKE_LOAD(f, counts);
    for (unsigned i = 0; i < sizeof(budgets) / sizeof(budgets[0]); i++) {
        f->polls = 0;
        ck_assert_int_eq(fake_run(f, budgets[i]), X86_STOP_ATTENTION);
        ck_assert_uint_eq(f->done, budgets[i]);
        total += budgets[i];
        ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], total / 2 + total % 2);
        ck_assert_uint_ge(f->polls, budgets[i] / ((X86_SLICES + 1) * X86_POLL));
    }
    finish(f);
}
END_TEST

static void *wake(void *cpu)
{
    x86_wake(cpu);
    return NULL;
}

/* A request of another thread ends a loop, even if the count overwrites its sign. */
START_TEST(request_of_another_thread)
{
    struct fake *f = translating();
    pthread_t thread;

    FAKE_LOAD(f, counts);
    for (unsigned i = 0; i < 50; i++) {
        ck_assert_int_eq(pthread_create(&thread, NULL, wake, f->cpu), 0);
        ck_assert_int_eq(fake_run(f, UINT64_MAX), X86_STOP_ATTENTION);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_uint_eq(f->cpu->attention, 0);
    }
    finish(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bt_ways");
    TCase *t = tcase_create("bt_ways");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_test(t, return_to_changed_code);
    tcase_add_test(t, jump_to_changed_code);
    tcase_add_test(t, return_elsewhere);
    tcase_add_test(t, deep_recursion);
    tcase_add_test(t, callee_is_remapped);
    tcase_add_test(t, caller_is_remapped);
    tcase_add_test(t, calls_in_regions);
    tcase_add_test(t, flushed_in_regions);
    tcase_add_test(t, far_away_targets);
    tcase_add_test(t, pages_not_in_use);
    tcase_add_test(t, pages_that_have_gone);
    tcase_add_test(t, fault_of_a_return);
    tcase_add_test(t, returns_keep_to_their_mode);
    tcase_add_test(t, generations_start_over);
    tcase_add_test(t, pages_are_given_back);
    tcase_add_test(t, long_budgets);
    tcase_add_test(t, request_of_another_thread);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
