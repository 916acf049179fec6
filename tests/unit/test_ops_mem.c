/* SPDX-License-Identifier: BSD-2-Clause */
/* test_ops_mem.c: integer instructions with memory: devices, page crossings, faults without effect,
 * locks, alignment, features. */
#include <check.h>

#include "core/x86/decode.h"
#include "x86_fake.h"

static struct fake *f;
static uint64_t *gpr;

static void setup(void)
{
    f = fake_new();
    fake_long64(f);
    gpr = f->cpu->gpr;
}

static void teardown(void)
{
    fake_free(f);
}

static void protect(uint64_t page, uint64_t flags)
{
    fake_put(f, FAKE_PT + page / 4096 * 8, 8, page | flags);
    f->cpu->cr0 |= X86_CR0_WP;
    x86_mode_changed(f->cpu);
    x86_flush_tlb(f->cpu);
}

/* RMW instructions; RDI: where, RAX, RCX: operands. */
#define RMW(X)                                                                                     \
    X(add, "addl %ecx, (%rdi)")                                                                    \
    X(add_i, "addl $5, (%rdi)")                                                                    \
    X(sbb, "lock sbbl %ecx, (%rdi)")                                                               \
    X(inc, "incl (%rdi)")                                                                          \
    X(not, "lock notl (%rdi)")                                                                     \
    X(neg, "negl (%rdi)")                                                                          \
    X(shl, "shll %cl, (%rdi)")                                                                     \
    X(rcr, "rcrl $3, (%rdi)")                                                                      \
    X(shld, "shldl $4, %ecx, (%rdi)")                                                              \
    X(bts, "lock btsl $3, (%rdi)")                                                                 \
    X(btc, "btcl %edx, (%rdi)")                                                                    \
    X(xchg, "xchgl %ecx, (%rdi)")                                                                  \
    X(xadd, "lock xaddl %ecx, (%rdi)")                                                             \
    X(cmpxchg, "lock cmpxchgl %ecx, (%rdi)")                                                       \
    X(cmpxchg_no_lock, "cmpxchgl %ecx, (%rdi)")
#define RMW_CODE(name, text) FAKE_ASM(rmw_##name, 64, text "\n hlt");
RMW(RMW_CODE)
#define RMW_ROW(name, text) {text, rmw_##name##_begin, rmw_##name##_end},
static const struct {
    const char *text;
    const uint8_t *begin, *end;
} rmw[] = {RMW(RMW_ROW)};
#define NRMW (sizeof(rmw) / sizeof(rmw[0]))

#define OPERAND 0x89abcdefu
#define FLAGS   (2 | X86_CF | X86_AF)

static void start(uint64_t at)
{
    fake_long64(f);
    gpr[VMM_RDI] = at;
    gpr[VMM_RAX] = 0x89abcdef;
    gpr[VMM_RCX] = 0x13579bdf;
    gpr[VMM_RDX] = 2;
    x86_set_rflags(f->cpu, FLAGS);
}

/* What an instruction does to memory in one page is what it does to a device or across pages. */
START_TEST(rmw_everywhere)
{
    uint64_t want[17], result;

    start(FAKE_DATA);
    fake_put(f, FAKE_DATA, 4, OPERAND);
    ck_assert_int_eq(fake_exec(f, rmw[_i].begin, rmw[_i].end), FAKE_HLT);
    memcpy(want, gpr, sizeof(uint64_t) * 16);
    want[16] = x86_get_rflags(f->cpu);
    result = fake_get(f, FAKE_DATA, 4);

    start(FAKE_MMIO);
    f->input = OPERAND;
    f->nlog = 0;
    ck_assert_int_eq(fake_exec(f, rmw[_i].begin, rmw[_i].end), FAKE_HLT);
    ck_assert_uint_eq(f->nlog, 2);
    ck_assert(!f->log[0].write && f->log[1].write);
    ck_assert_uint_eq(f->log[1].value & 0xffffffff, result);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), want[16]);
    gpr[VMM_RDI] = FAKE_DATA;
    ck_assert(!memcmp(gpr, want, sizeof(uint64_t) * 16));

    start(0x80ffe);
    fake_put(f, 0x80ffe, 4, OPERAND);
    ck_assert_int_eq(fake_exec(f, rmw[_i].begin, rmw[_i].end), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, 0x80ffe, 4), result);
    ck_assert_uint_eq(x86_get_rflags(f->cpu), want[16]);
    gpr[VMM_RDI] = FAKE_DATA;
    ck_assert(!memcmp(gpr, want, sizeof(uint64_t) * 16));
}
END_TEST

/* A store that faults, in the first or in the second page, or that a device aborts, has no effect
 * at all. */
START_TEST(rmw_without_effect)
{
    static const uint64_t where[] = {0x81000, 0x80ffe, 0x81ffe, FAKE_MMIO};
    uint64_t before[16];

    for (unsigned k = 0; k < 8; k++) {
        uint64_t at = where[k / 2];
        int want = at == FAKE_MMIO ? FAKE_ABORTED : X86_PF_;

        start(at);
        protect(0x81000, k & 1 ? 0 : 5); /* absent, read-only */
        if (at < FAKE_MEM)
            fake_put(f, at, 4, OPERAND);
        f->abort_in = at == FAKE_MMIO ? 1 + (k & 1) : 0;
        memcpy(before, gpr, sizeof(before));
        fake_user(f);
        ck_assert_int_eq(fake_exec(f, rmw[_i].begin, rmw[_i].end), want);
        if (want == X86_PF_) {
            /* A page crossing is reported where it fails. */
            ck_assert_uint_eq(f->cpu->cr2, at == 0x80ffe ? 0x81000 : at);
            ck_assert_uint_eq(fake_stack(f, 0, 8), k & 1 ? 6 : 7);
            ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_TEXT);
            ck_assert_uint_eq(fake_stack(f, 3, 8) & X86_ARITH, FLAGS & X86_ARITH);
            ck_assert_uint_eq(fake_get(f, at, 4), OPERAND);
            gpr[VMM_RSP] = before[VMM_RSP];
        } else {
            ck_assert_uint_eq(x86_get_rflags(f->cpu) & X86_ARITH, FLAGS & X86_ARITH);
            ck_assert_uint_eq(f->cpu->rip, FAKE_TEXT);
        }
        ck_assert(!memcmp(gpr, before, sizeof(before)));
    }
}
END_TEST

FAKE_ASM(lock_add, 64, "lock addl %ecx, (%rdi)\n hlt");
FAKE_ASM(plain_add, 64, "addl %ecx, (%rdi)\n hlt");

START_TEST(locks_that_split_a_cache_line_exclude_others)
{
    start(FAKE_DATA + 0x3e);
    fake_put(f, FAKE_DATA + 0x3e, 4, OPERAND);
    f->locks = 0;
    ck_assert_int_eq(FAKE_EXEC(f, lock_add), FAKE_HLT);
    ck_assert_uint_eq(f->locks, 2);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 0x3e, 4), (uint32_t)(OPERAND + 0x13579bdf));
    f->cpu->rip = FAKE_TEXT;
    gpr[VMM_RDI] = FAKE_DATA + 0x3c;
    ck_assert_int_eq(FAKE_EXEC(f, lock_add), FAKE_HLT);
    ck_assert_uint_eq(f->locks, 2);
}
END_TEST

START_TEST(locks_of_page_crossings_exclude_others)
{
    start(0x80ffe);
    f->locks = 0;
    ck_assert_int_eq(FAKE_EXEC(f, plain_add), FAKE_HLT);
    ck_assert_uint_eq(f->locks, 0);
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(FAKE_EXEC(f, lock_add), FAKE_HLT);
    ck_assert_uint_eq(f->locks, 2);
}
END_TEST

FAKE_ASM(cx16, 64, "cmpxchg16b (%rdi)\n hlt");
FAKE_ASM(lock_cx16, 64, "lock cmpxchg16b (%rdi)\n hlt");

START_TEST(cmpxchg16b_is_aligned)
{
    for (unsigned k = 0; k < 2; k++) {
        fake_long64(f);
        gpr[VMM_RDI] = FAKE_DATA + 8;
        ck_assert_int_eq(k ? FAKE_EXEC(f, cx16) : FAKE_EXEC(f, lock_cx16), X86_GP);
        fake_long64(f);
        gpr[VMM_RDI] = FAKE_DATA + 16;
        fake_put(f, FAKE_DATA + 16, 8, 1);
        fake_put(f, FAKE_DATA + 24, 8, 2);
        gpr[VMM_RAX] = 1, gpr[VMM_RDX] = 2, gpr[VMM_RBX] = 3, gpr[VMM_RCX] = 4;
        ck_assert_int_eq(k ? FAKE_EXEC(f, cx16) : FAKE_EXEC(f, lock_cx16), FAKE_HLT);
        ck_assert_uint_eq(fake_get(f, FAKE_DATA + 16, 8), 3);
        ck_assert_uint_eq(fake_get(f, FAKE_DATA + 24, 8), 4);
        ck_assert(x86_get_rflags(f->cpu) & X86_ZF);
    }
}
END_TEST

FAKE_ASM(moffs, 64,
         "movabs %al, 0x40010\n movabs %eax, 0x40018\n movabs 0xffffffff80000000, %rax\n hlt");
FAKE_ASM(moffs_non_canonical, 64, "movabs 0x123456789abcdef0, %rax\n hlt");

START_TEST(absolute_addresses_of_64_bits)
{
    /* The second last GiB: the page directory that maps the first. */
    fake_put(f, FAKE_PML4 + 511 * 8, 8, FAKE_PDPT | 7);
    fake_put(f, FAKE_PDPT + 510 * 8, 8, FAKE_PD | 7);
    fake_put(f, 0, 8, 0x1122334455667788);
    x86_flush_tlb(f->cpu);
    gpr[VMM_RAX] = 0xaabbccdd;
    ck_assert_int_eq(FAKE_EXEC(f, moffs), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 0x10, 8), 0xdd);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 0x18, 8), 0xaabbccdd);
    ck_assert_uint_eq(gpr[VMM_RAX], 0x1122334455667788);
    fake_long64(f);
    ck_assert_int_eq(FAKE_EXEC(f, moffs_non_canonical), X86_GP);
}
END_TEST

FAKE_ASM(lea_all, 64,
         "lea 4(%rax,%rcx,8), %rdx\n lea 4(%eax,%ecx,8), %rsi\n lea 4(%rax,%rcx,8), %edi\n"
         "lea 4(%rax,%rcx,8), %r8w\n hlt");
FAKE_ASM(lea_16, 32, "addr16 lea 4(%bx,%si), %eax\n addr16 lea 4(%bx,%si), %dx\n hlt");

START_TEST(lea_sizes)
{
    gpr[VMM_RAX] = 0x1ffffffff;
    gpr[VMM_RCX] = 0x4000000000000001;
    gpr[VMM_R8] = ~0ull;
    ck_assert_int_eq(FAKE_EXEC(f, lea_all), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RDX], 0x20000000b);
    ck_assert_uint_eq(gpr[VMM_RSI], 0xb);
    ck_assert_uint_eq(gpr[VMM_RDI], 0xb);
    ck_assert_uint_eq(gpr[VMM_R8], 0xffffffffffff000b);
    fake_prot32(f);
    gpr[VMM_RBX] = 0x1ffff, gpr[VMM_RSI] = 0x30002, gpr[VMM_RDX] = 0xffffffff;
    ck_assert_int_eq(FAKE_EXEC(f, lea_16), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RAX], 5);
    ck_assert_uint_eq(gpr[VMM_RDX], 0xffff0005);
}
END_TEST

FAKE_ASM(cmov_false, 64, "xor %edx, %edx\n cmovnz (%rdi), %eax\n hlt");

START_TEST(cmov_reads_in_any_case)
{
    gpr[VMM_RDI] = FAKE_MMIO;
    gpr[VMM_RAX] = 0x1111111122222222;
    ck_assert_int_eq(FAKE_EXEC(f, cmov_false), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RAX], 0x22222222);
    ck_assert_uint_eq(f->nlog, 1);
}
END_TEST

FAKE_ASM(bt_far, 64, "bts %rcx, (%rdi)\n setc %al\n bt %rcx, (%rdi)\n setc %ah\n hlt");
FAKE_ASM(bt_a32, 32, "bts %ecx, (%edi)\n hlt");

START_TEST(bit_offsets_reach_far)
{
    gpr[VMM_RDI] = FAKE_DATA;
    gpr[VMM_RCX] = (uint64_t) - (0x10000 * 8) + 70;
    gpr[VMM_RAX] = 0x55;
    ck_assert_int_eq(FAKE_EXEC(f, bt_far), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RAX], 0x100);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA - 0x10000 + 8, 8), 1 << 6);

    /* Addresses wrap by the address size. */
    fake_prot32(f);
    gpr[VMM_RDI] = 0xfffffff0;
    gpr[VMM_RCX] = (FAKE_DATA + 0x10) * 8;
    ck_assert_int_eq(FAKE_EXEC(f, bt_a32), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 4), 1);
}
END_TEST

FAKE_ASM(bound32, 32, "bound %eax, (%edi)\n hlt");
FAKE_ASM(bound16, 32, "bound %ax, (%edi)\n hlt");

START_TEST(bound_compares_signed)
{
    static const struct {
        int32_t index;
        int want;
    } cases[] = {{-5, FAKE_HLT}, {0, FAKE_HLT}, {9, FAKE_HLT}, {-6, X86_BR}, {10, X86_BR}};

    for (unsigned k = 0; k < 5; k++) {
        fake_prot32(f);
        fake_put(f, FAKE_DATA, 4, (uint32_t)-5);
        fake_put(f, FAKE_DATA + 4, 4, 9);
        gpr[VMM_RDI] = FAKE_DATA;
        gpr[VMM_RAX] = (uint32_t)cases[k].index;
        ck_assert_int_eq(FAKE_EXEC(f, bound32), cases[k].want);
        fake_prot32(f);
        fake_put(f, FAKE_DATA, 2, (uint16_t)-5);
        fake_put(f, FAKE_DATA + 2, 2, 9);
        gpr[VMM_RDI] = FAKE_DATA;
        gpr[VMM_RAX] = (uint16_t)cases[k].index | 0xffff0000;
        ck_assert_int_eq(FAKE_EXEC(f, bound16), cases[k].want);
    }
}
END_TEST

/* ---- features ---- */

#define FEATURES(X)                                                                                \
    X(movbe, "movbe (%rdi), %eax", l1_ecx)                                                         \
    X(popcnt, "popcnt %eax, %eax", l1_ecx)                                                         \
    X(crc32, "crc32b %al, %eax", l1_ecx)                                                           \
    X(rdrand, "rdrand %eax", l1_ecx)                                                               \
    X(cx16, "cmpxchg16b (%rdi)", l1_ecx)                                                           \
    X(cx8, "cmpxchg8b (%rdi)", l1_edx)                                                             \
    X(cmov, "cmovz %eax, %ecx", l1_edx)                                                            \
    X(clflush, "clflush (%rdi)", l1_edx)                                                           \
    X(clflushopt, "clflushopt (%rdi)", l7_ebx)                                                     \
    X(clwb, "clwb (%rdi)", l7_ebx)                                                                 \
    X(rdseed, "rdseed %eax", l7_ebx)                                                               \
    X(adcx, "adcx %eax, %ecx", l7_ebx)                                                             \
    X(andn, "andn %eax, %ecx, %edx", l7_ebx)                                                       \
    X(pdep, "pdep %eax, %ecx, %edx", l7_ebx)                                                       \
    X(movdiri, "movdiri %eax, (%rdi)", l7_ecx)                                                     \
    X(lahf, "lahf", x1_ecx)
#define FEATURE_CODE(name, text, word) FAKE_ASM(feature_##name, 64, text "\n hlt");
FEATURES(FEATURE_CODE)
#define FEATURE_ROW(name, text, word)                                                              \
    {text, feature_##name##_begin, feature_##name##_end, offsetof(struct x86_cpu, feat.word)},
static const struct {
    const char *text;
    const uint8_t *begin, *end;
    size_t word;
} features[] = {FEATURES(FEATURE_ROW)};

START_TEST(absent_features_are_invalid_opcodes)
{
    uint32_t *word = (uint32_t *)(void *)((char *)f->cpu + features[_i].word);

    gpr[VMM_RDI] = FAKE_DATA;
    ck_assert_int_eq(fake_exec(f, features[_i].begin, features[_i].end), FAKE_HLT);
    *word = 0; /* as x86_cpuid_changed has it */
    x86_known_clear(f->cpu->known);
    x86_cache_flush(f->cpu);
    fake_long64(f);
    gpr[VMM_RDI] = FAKE_DATA;
    ck_assert_int_eq(fake_exec(f, features[_i].begin, features[_i].end), X86_UD);
}
END_TEST

FAKE_ASM(counts, 64, "tzcnt %eax, %ecx\n lzcnt %eax, %edx\n hlt");

START_TEST(counts_without_the_feature_are_scans)
{
    gpr[VMM_RAX] = 0x100;
    ck_assert_int_eq(FAKE_EXEC(f, counts), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RCX], 8);
    ck_assert_uint_eq(gpr[VMM_RDX], 23);
    f->cpu->feat.l7_ebx = f->cpu->feat.x1_ecx = 0;
    x86_cache_flush(f->cpu);
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(FAKE_EXEC(f, counts), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RDX], 8);
}
END_TEST

/* ---- odds and ends ---- */

#define INVALID(X)                                                                                 \
    X(ud0, ".byte 0x0f, 0xff, 0xc0")                                                               \
    X(ud1, ".byte 0x0f, 0xb9, 0xc0")                                                               \
    X(ud2, "ud2")                                                                                  \
    X(lock_reg, ".byte 0xf0, 0x01, 0xc0")                                                          \
    X(lock_mov, ".byte 0xf0, 0x89, 0x07")                                                          \
    X(lock_cmp, ".byte 0xf0, 0x39, 0x07")                                                          \
    X(lock_bt, ".byte 0xf0, 0x0f, 0xa3, 0x07")                                                     \
    X(lea_reg, ".byte 0x8d, 0xc0")                                                                 \
    X(pusha_64, ".byte 0x60")                                                                      \
    X(salc_64, ".byte 0xd6")                                                                       \
    X(bound_evex, ".byte 0x62, 0x07")
#define INVALID_CODE(name, text) FAKE_ASM(invalid_##name, 64, text "\n hlt\n hlt\n hlt");
INVALID(INVALID_CODE)
#define INVALID_ROW(name, text) {text, invalid_##name##_begin, invalid_##name##_end},
static const struct {
    const char *text;
    const uint8_t *begin, *end;
} invalid[] = {INVALID(INVALID_ROW)};

START_TEST(invalid_opcodes)
{
    gpr[VMM_RDI] = FAKE_DATA;
    ck_assert_int_eq(fake_exec(f, invalid[_i].begin, invalid[_i].end), X86_UD);
}
END_TEST

FAKE_ASM(nops, 64,
         "nop\n pause\n endbr64\n nopw (%rdi)\n nopl 0x12345678(%rax,%rax,8)\n prefetcht0 (%rdi)\n"
         "prefetchw (%rdi)\n prefetchnta (%rdi)\n lfence\n mfence\n sfence\n"
         ".byte 0xf3, 0x0f, 0x1e, 0xc8\n .byte 0x0f, 0x1a, 0xc0\n .byte 0x0f, 0x1b, 0x07\n"
         ".byte 0x0f, 0x1c, 0x07\n .byte 0x66, 0x90\n .byte 0x48, 0x90\n hlt");

START_TEST(nops_do_nothing)
{
    uint64_t before[16];

    gpr[VMM_RDI] = 0x123456789abcdef0;
    memcpy(before, gpr, sizeof(before));
    ck_assert_int_eq(FAKE_EXEC(f, nops), FAKE_HLT);
    ck_assert(!memcmp(before, gpr, sizeof(before)));
}
END_TEST

FAKE_ASM(xchg_nop, 64, ".byte 0x90\n .byte 0x41, 0x90\n hlt");
FAKE_ASM(salc, 32, "stc\n .byte 0xd6\n mov %al, %cl\n clc\n .byte 0xd6\n hlt");

START_TEST(xchg_with_itself_is_nop)
{
    gpr[VMM_RAX] = 0x1122334455667788;
    gpr[VMM_R8] = 0x8877665544332211;
    ck_assert_int_eq(FAKE_EXEC(f, xchg_nop), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RAX], 0x44332211);
    ck_assert_uint_eq(gpr[VMM_R8], 0x55667788);
    fake_prot32(f);
    ck_assert_int_eq(FAKE_EXEC(f, salc), FAKE_HLT);
    ck_assert_uint_eq(gpr[VMM_RCX] & 0xff, 0xff);
    ck_assert_uint_eq(gpr[VMM_RAX] & 0xff, 0);
}
END_TEST

FAKE_ASM(random_code, 64, "rdrand %rax\n setc %r8b\n rdseed %cx\n setc %r9b\n hlt");

START_TEST(random_numbers)
{
    uint64_t seen = 0;

    for (unsigned k = 0; k < 4; k++) {
        fake_long64(f);
        gpr[VMM_RCX] = ~0ull;
        ck_assert_int_eq(FAKE_EXEC(f, random_code), FAKE_HLT);
        ck_assert_uint_eq(gpr[VMM_RCX] >> 16, 0xffffffffffff);
        if (gpr[VMM_R8]) {
            ck_assert_uint_ne(gpr[VMM_RAX], seen);
            seen = gpr[VMM_RAX];
        } else {
            ck_assert_uint_eq(gpr[VMM_RAX], 0);
        }
    }
}
END_TEST

FAKE_ASM(flush, 64, "clflush (%rdi)\n hlt");

START_TEST(clflush_checks_its_address)
{
    protect(0x81000, 0);
    gpr[VMM_RDI] = 0x81ff0;
    ck_assert_int_eq(FAKE_EXEC(f, flush), X86_PF_);
    ck_assert_uint_eq(f->cpu->cr2, 0x81ff0);
    fake_long64(f);
    gpr[VMM_RDI] = 0x8000000000000000;
    ck_assert_int_eq(FAKE_EXEC(f, flush), X86_GP);
}
END_TEST

FAKE_ASM(monitor_mwait, 64, "monitor\n mwait\n hlt");

START_TEST(monitor_and_mwait)
{
    gpr[VMM_RAX] = FAKE_DATA;
    ck_assert_int_eq(FAKE_EXEC(f, monitor_mwait), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->monitor_linear, FAKE_DATA);
    fake_long64(f);
    gpr[VMM_RCX] = 2;
    ck_assert_int_eq(FAKE_EXEC(f, monitor_mwait), X86_GP);
    fake_long64(f);
    protect(0x81000, 0);
    gpr[VMM_RAX] = 0x81000;
    gpr[VMM_RCX] = 0;
    ck_assert_int_eq(FAKE_EXEC(f, monitor_mwait), X86_PF_);
    fake_long64(f);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, monitor_mwait), X86_UD);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops_mem");
    TCase *tc = tcase_create("mem");
    SRunner *sr = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, rmw_everywhere, 0, NRMW);
    tcase_add_loop_test(tc, rmw_without_effect, 0, NRMW);
    tcase_add_test(tc, locks_that_split_a_cache_line_exclude_others);
    tcase_add_test(tc, locks_of_page_crossings_exclude_others);
    tcase_add_test(tc, cmpxchg16b_is_aligned);
    tcase_add_test(tc, absolute_addresses_of_64_bits);
    tcase_add_test(tc, lea_sizes);
    tcase_add_test(tc, cmov_reads_in_any_case);
    tcase_add_test(tc, bit_offsets_reach_far);
    tcase_add_test(tc, bound_compares_signed);
    tcase_add_loop_test(tc, absent_features_are_invalid_opcodes, 0,
                        sizeof(features) / sizeof(features[0]));
    tcase_add_test(tc, counts_without_the_feature_are_scans);
    tcase_add_loop_test(tc, invalid_opcodes, 0, sizeof(invalid) / sizeof(invalid[0]));
    tcase_add_test(tc, nops_do_nothing);
    tcase_add_test(tc, xchg_with_itself_is_nop);
    tcase_add_test(tc, random_numbers);
    tcase_add_test(tc, clflush_checks_its_address);
    tcase_add_test(tc, monitor_and_mwait);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
