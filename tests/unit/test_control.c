/* SPDX-License-Identifier: BSD-2-Clause */
/* test_control.c: control registers, XCR0, EFER and PKRU of the software CPU, and the TLB. */
#include "core/x86/control.h"
#include "x86_expect.h"

FAKE_ASM(set_cr0, 64, "mov %rax, %cr0\n hlt\n");
FAKE_ASM(set_cr2, 64, "mov %rax, %cr2\n mov %cr2, %rbx\n hlt\n");
FAKE_ASM(set_cr3, 64, "mov %rax, %cr3\n hlt\n");
FAKE_ASM(set_cr4, 64, "mov %rax, %cr4\n hlt\n");
FAKE_ASM(set_cr8, 64, "mov %rax, %cr8\n hlt\n");
FAKE_ASM(get_all, 64, "mov %cr0, %rax\n mov %cr3, %rbx\n mov %cr4, %rcx\n mov %cr8, %rdx\n hlt\n");
FAKE_ASM(set_cr1, 64, ".byte 0x0f, 0x22, 0xc8\n hlt\n");
FAKE_ASM(set_cr0_32, 32, "mov %eax, %cr0\n hlt\n");
FAKE_ASM(set_cr3_32, 32, "mov %eax, %cr3\n hlt\n");
FAKE_ASM(set_cr4_32, 32, "mov %eax, %cr4\n hlt\n");
FAKE_ASM(read_cr0, 64, "mov %cr0, %rax\n hlt\n");

static struct fake *long64(void)
{
    struct fake *f = fake_new();

    fake_long64(f);
    return f;
}

static struct fake *prot32(void)
{
    struct fake *f = fake_new();

    fake_prot32(f);
    return f;
}

START_TEST(cr0_accepts_and_fixes_et)
{
    struct fake *f = long64();
    uint64_t cr0 = f->cpu->cr0;

    f->cpu->gpr[VMM_RAX] = (cr0 & ~(uint64_t)X86_CR0_ET) | X86_CR0_TS | 0x1000u;
    EXPECT_OK(f, set_cr0);
    ck_assert_uint_eq(f->cpu->cr0, cr0 | X86_CR0_TS);
    fake_free(f);
}
END_TEST

START_TEST(cr0_rejects_impossible_combinations)
{
    static const uint64_t bad[] = {
        X86_CR0_PG,                             /* without PE */
        X86_CR0_PG | X86_CR0_PE | X86_CR0_NW,   /* NW without CD */
        X86_CR0_PG | X86_CR0_PE | (1ull << 32), /* reserved */
        X86_CR0_PE,                             /* PG may not go in 64-bit mode */
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct fake *f = long64();
        uint64_t cr0 = f->cpu->cr0;

        f->cpu->gpr[VMM_RAX] = bad[i];
        EXPECT_FAULT(f, set_cr0, X86_GP);
        ck_assert_uint_eq(f->cpu->cr0, cr0);
        fake_free(f);
    }
}
END_TEST

START_TEST(pg_activates_long_mode)
{
    struct fake *f = prot32();

    f->cpu->efer = X86_EFER_LME;
    f->cpu->cr4 = X86_CR4_PAE;
    f->cpu->cr3 = FAKE_PML4;
    f->cpu->gpr[VMM_RAX] = f->cpu->cr0 | X86_CR0_PG;
    EXPECT_OK(f, set_cr0_32);
    ck_assert_uint_eq(f->cpu->efer, X86_EFER_LME | X86_EFER_LMA);
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_4LEVEL);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_COMPAT32);

    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = f->cpu->cr0 & ~(uint64_t)X86_CR0_PG;
    EXPECT_OK(f, set_cr0_32);
    ck_assert_uint_eq(f->cpu->efer, X86_EFER_LME);
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_NONE);
    ck_assert_uint_eq(fake_mode(f), VMM_MODE_PROT32);
    fake_free(f);
}
END_TEST

START_TEST(long_mode_needs_pae_and_a_wide_tss)
{
    struct fake *f = prot32();
    uint64_t cr0 = f->cpu->cr0;

    f->cpu->efer = X86_EFER_LME;
    f->cpu->cr3 = FAKE_PML4;
    f->cpu->gpr[VMM_RAX] = cr0 | X86_CR0_PG;
    EXPECT_FAULT(f, set_cr0_32, X86_GP);

    f->cpu->cr4 = X86_CR4_PAE;
    f->cpu->seg[VMM_TR].ar = VMM_AR_P | 3;
    EXPECT_FAULT(f, set_cr0_32, X86_GP);
    f->cpu->seg[VMM_TR].ar = VMM_AR_P | 11;
    f->cpu->seg[VMM_CS].ar |= VMM_AR_L;
    EXPECT_FAULT(f, set_cr0_32, X86_GP);
    ck_assert_uint_eq(f->cpu->cr0, cr0);
    ck_assert_uint_eq(f->cpu->efer, X86_EFER_LME);
    fake_free(f);
}
END_TEST

START_TEST(pae_loads_and_checks_pdptes)
{
    struct fake *f = prot32();
    const uint64_t table = FAKE_DATA;

    for (unsigned i = 0; i < 4; i++)
        fake_put(f, table + i * 8, 8, 0);
    fake_put(f, table, 8, FAKE_PD | 1);
    f->cpu->cr4 = X86_CR4_PAE;
    f->cpu->cr3 = table;
    f->cpu->gpr[VMM_RAX] = f->cpu->cr0 | X86_CR0_PG;
    EXPECT_OK(f, set_cr0_32);
    ck_assert_uint_eq(f->cpu->mmu.paging, MMU_PAGING_PAE);
    ck_assert_uint_eq(f->cpu->mmu.pdpte[0], FAKE_PD | 1);

    /* A reserved bit in a present entry: #GP, and the old ones stay. */
    fake_put(f, table + 0x1000, 8, FAKE_PD | 3);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = table + 0x1000;
    EXPECT_FAULT(f, set_cr3_32, X86_GP);
    ck_assert_uint_eq(f->cpu->cr3, table);
    ck_assert_uint_eq(f->cpu->mmu.pdpte[0], FAKE_PD | 1);

    /* A change of CR4.PGE loads them again. */
    fake_put(f, table, 8, FAKE_PD | 9);
    f->cpu->gpr[VMM_RAX] = f->cpu->cr4 | X86_CR4_PGE;
    EXPECT_OK(f, set_cr4_32);
    ck_assert_uint_eq(f->cpu->mmu.pdpte[0], FAKE_PD | 9);
    fake_free(f);
}
END_TEST

START_TEST(cr3_checks_width_and_drops_no_flush_bit)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 1ull << f->cpu->feat.gpa_bits | FAKE_PML4;
    EXPECT_FAULT(f, set_cr3, X86_GP);
    f->cpu->gpr[VMM_RAX] = 1ull << 63 | FAKE_PML4; /* no PCIDs: reserved */
    EXPECT_FAULT(f, set_cr3, X86_GP);

    f->cpu->cr4 |= X86_CR4_PCIDE;
    f->cpu->gpr[VMM_RAX] = 1ull << 63 | FAKE_PML4 | 5;
    EXPECT_OK(f, set_cr3);
    ck_assert_uint_eq(f->cpu->cr3, FAKE_PML4 | 5);
    ck_assert_uint_eq(f->cpu->mmu.root, FAKE_PML4);
    fake_free(f);
}
END_TEST

START_TEST(cr4_checks)
{
    struct fake *f = long64();
    uint64_t cr4 = f->cpu->cr4;

    f->cpu->gpr[VMM_RAX] = cr4 & ~(uint64_t)X86_CR4_PAE; /* in long mode */
    EXPECT_FAULT(f, set_cr4, X86_GP);
    f->cpu->gpr[VMM_RAX] = cr4 | 1u << 13; /* VMXE: not modelled */
    EXPECT_FAULT(f, set_cr4, X86_GP);
    f->cpu->cr3 |= 5;
    f->cpu->gpr[VMM_RAX] = cr4 | X86_CR4_PCIDE; /* while CR3 has a PCID */
    EXPECT_FAULT(f, set_cr4, X86_GP);
    f->cpu->cr3 &= ~(uint64_t)5;
    EXPECT_OK(f, set_cr4);
    ck_assert_uint_eq(f->cpu->cr4, cr4 | X86_CR4_PCIDE);

    f->cpu->rip = FAKE_TEXT;
    f->cpu->feat.l7_ebx &= ~X86_F7_EBX_SMEP;
    f->cpu->gpr[VMM_RAX] = cr4 | X86_CR4_SMEP;
    EXPECT_FAULT(f, set_cr4, X86_GP);
    fake_free(f);

    f = prot32();
    f->cpu->gpr[VMM_RAX] = X86_CR4_PAE | X86_CR4_PCIDE; /* outside of long mode */
    EXPECT_FAULT(f, set_cr4_32, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(paging_stays_while_pcide)
{
    struct fake *f = prot32();

    f->cpu->efer = X86_EFER_LME;
    f->cpu->cr4 = X86_CR4_PAE;
    f->cpu->cr3 = FAKE_PML4;
    ck_assert(x86_set_cr0(f->cpu, f->cpu->cr0 | X86_CR0_PG));
    ck_assert(x86_set_cr4(f->cpu, f->cpu->cr4 | X86_CR4_PCIDE));
    f->cpu->gpr[VMM_RAX] = f->cpu->cr0 & ~(uint64_t)X86_CR0_PG;
    EXPECT_FAULT(f, set_cr0_32, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(cr8_is_the_surroundings)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 16;
    EXPECT_FAULT(f, set_cr8, X86_GP);
    f->cpu->gpr[VMM_RAX] = 9;
    EXPECT_OK(f, set_cr8);
    ck_assert_uint_eq(f->cr8, 9);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, get_all);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], f->cpu->cr0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], f->cpu->cr3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], f->cpu->cr4);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 9);
    fake_free(f);
}
END_TEST

START_TEST(cr2_takes_anything_cr1_is_undefined)
{
    struct fake *f = long64();

    f->cpu->gpr[VMM_RAX] = 0x8000000000000001ull;
    EXPECT_OK(f, set_cr2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x8000000000000001ull);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_FAULT(f, set_cr1, X86_UD);
    fake_free(f);
}
END_TEST

START_TEST(users_cannot_touch_control_registers)
{
    struct fake *f = long64();

    fake_user(f);
    EXPECT_FAULT(f, set_cr0, X86_GP);
    EXPECT_FAULT(f, read_cr0, X86_GP);
    EXPECT_FAULT(f, set_cr8, X86_GP);
    fake_free(f);
}
END_TEST

/* ---- the machine status word ---- */

FAKE_ASM(do_clts, 64, "clts\n hlt\n");
FAKE_ASM(lmsw_reg, 32, "lmsw %ax\n hlt\n");
FAKE_ASM(lmsw_mem, 32, "lmsw (%ebx)\n hlt\n");
FAKE_ASM(smsw_16, 64, "smsw %ax\n hlt\n");
FAKE_ASM(smsw_32, 64, "smsw %eax\n hlt\n");
FAKE_ASM(smsw_64, 64, "smsw %rax\n hlt\n");
FAKE_ASM(smsw_mem, 64, "smsw (%rbx)\n hlt\n");

START_TEST(clts_clears_ts)
{
    struct fake *f = long64();

    f->cpu->cr0 |= X86_CR0_TS;
    fake_user(f);
    EXPECT_FAULT(f, do_clts, X86_GP);
    fake_long64(f);
    f->cpu->cr0 |= X86_CR0_TS;
    EXPECT_OK(f, do_clts);
    ck_assert(!(f->cpu->cr0 & X86_CR0_TS));
    fake_free(f);
}
END_TEST

START_TEST(lmsw_sets_but_does_not_clear_pe)
{
    struct fake *f = prot32();
    uint64_t cr0 = f->cpu->cr0;

    f->cpu->gpr[VMM_RAX] = 0xfff8; /* TS of the low four bits */
    EXPECT_OK(f, lmsw_reg);
    ck_assert_uint_eq(f->cpu->cr0, cr0 | X86_CR0_TS);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 2, X86_CR0_MP);
    EXPECT_OK(f, lmsw_mem);
    ck_assert_uint_eq(f->cpu->cr0, cr0 | X86_CR0_MP);
    f->cpu->rip = FAKE_TEXT;
    fake_user(f);
    EXPECT_FAULT(f, lmsw_reg, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(smsw_by_size_and_umip)
{
    struct fake *f = long64();
    uint64_t cr0 = f->cpu->cr0;

    f->cpu->gpr[VMM_RAX] = ~(uint64_t)0;
    EXPECT_OK(f, smsw_16);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0xffffffffffff0000ull | (cr0 & 0xffff));
    f->cpu->rip = FAKE_TEXT;
    EXPECT_OK(f, smsw_32);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], cr0);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = ~(uint64_t)0;
    EXPECT_OK(f, smsw_64);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], cr0);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, ~(uint64_t)0);
    EXPECT_OK(f, smsw_mem);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 8), 0xffffffffffff0000ull | (cr0 & 0xffff));

    f->cpu->rip = FAKE_TEXT;
    fake_user(f);
    EXPECT_OK(f, smsw_32);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->cr4 |= X86_CR4_UMIP;
    EXPECT_FAULT(f, smsw_32, X86_GP);
    fake_free(f);
}
END_TEST

/* ---- XCR0 ---- */

FAKE_ASM(do_xsetbv, 64, "xsetbv\n hlt\n");
FAKE_ASM(do_xgetbv, 64, "xgetbv\n hlt\n");

static void set_xcr0(struct fake *f, uint64_t value)
{
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = (uint32_t)value;
    f->cpu->gpr[VMM_RDX] = value >> 32;
    f->cpu->gpr[VMM_RCX] = 0;
}

START_TEST(xsetbv_checks)
{
    static const uint64_t bad[] = {0, 2, 5, 0x23, 0xe3, 0x67, 0x1000000000007ull, 0x407};
    struct fake *f = long64();

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        set_xcr0(f, bad[i]);
        EXPECT_FAULT(f, do_xsetbv, X86_GP);
    }
    set_xcr0(f, 0xe7);
    EXPECT_OK(f, do_xsetbv);
    ck_assert_uint_eq(f->cpu->xcr0, 0xe7);
    set_xcr0(f, 3);
    EXPECT_OK(f, do_xsetbv);
    set_xcr0(f, 3);
    f->cpu->gpr[VMM_RCX] = 1;
    EXPECT_FAULT(f, do_xsetbv, X86_GP);
    f->cpu->gpr[VMM_RCX] = 0;
    f->cpu->cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    EXPECT_FAULT(f, do_xsetbv, X86_UD);
    f->cpu->cr4 |= X86_CR4_OSXSAVE;
    fake_user(f);
    EXPECT_FAULT(f, do_xsetbv, X86_GP);
    fake_free(f);
}
END_TEST

START_TEST(xgetbv_at_any_privilege)
{
    struct fake *f = long64();

    fake_user(f);
    f->cpu->gpr[VMM_RDX] = ~(uint64_t)0;
    EXPECT_OK(f, do_xgetbv);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], f->cpu->xcr0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0);

    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RCX] = 1; /* XINUSE */
    f->cpu->pkru = 4;
    EXPECT_OK(f, do_xgetbv);
    ck_assert(f->cpu->gpr[VMM_RAX] & 0x200);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RCX] = 2;
    EXPECT_FAULT(f, do_xgetbv, X86_GP);
    f->cpu->gpr[VMM_RCX] = 0;
    f->cpu->cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    EXPECT_FAULT(f, do_xgetbv, X86_UD);
    fake_free(f);
}
END_TEST

/* ---- the TLB ---- */

#define VA_A    0x100000u /* two pages of the first 2 MiB */
#define PTE(va) (FAKE_PT + ((va) >> 12) * 8)

FAKE_ASM(load_twice, 64, "mov (%rbx), %rax\n mov %rdi, (%rsi)\n mov (%rbx), %rcx\n hlt\n");
FAKE_ASM(load_invlpg, 64,
         "mov (%rbx), %rax\n mov %rdi, (%rsi)\n invlpg (%rbx)\n mov (%rbx), %rcx\n hlt\n");
FAKE_ASM(load_cr3, 64,
         "mov (%rbx), %rax\n mov %rdi, (%rsi)\n mov %cr3, %rdx\n mov %rdx, %cr3\n"
         "mov (%rbx), %rcx\n hlt\n");

static void remap(struct fake *f, uint64_t flags)
{
    fake_put(f, VA_A, 8, 0x1111);
    fake_put(f, VA_A + 0x1000, 8, 0x2222);
    fake_put(f, PTE(VA_A), 8, VA_A | 7 | flags);
    x86_flush_tlb(f->cpu);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = VA_A;
    f->cpu->gpr[VMM_RSI] = PTE(VA_A);
    f->cpu->gpr[VMM_RDI] = (VA_A + 0x1000) | 7 | flags;
}

START_TEST(invlpg_shows_the_new_mapping)
{
    struct fake *f = long64();

    remap(f, 0);
    EXPECT_OK(f, load_twice);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1111);
    remap(f, 0);
    EXPECT_OK(f, load_invlpg);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1111);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x2222);
    f->cpu->rip = FAKE_TEXT;
    fake_user(f);
    f->cpu->gpr[VMM_RBX] = VA_A;
    fake_free(f);
}
END_TEST

START_TEST(global_pages_outlive_cr3_loads)
{
    struct fake *f = long64();

    remap(f, 0);
    EXPECT_OK(f, load_cr3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x2222);

    f->cpu->cr4 |= X86_CR4_PGE;
    remap(f, 0x100);
    EXPECT_OK(f, load_cr3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x1111);

    /* The G bit means nothing without CR4.PGE. */
    f->cpu->cr4 &= ~(uint64_t)X86_CR4_PGE;
    remap(f, 0x100);
    EXPECT_OK(f, load_cr3);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x2222);
    fake_free(f);
}
END_TEST

FAKE_ASM(call_remap_call, 64,
         "call *%rbx\n mov %rax, %rdx\n mov %rdi, (%rsi)\n invlpg (%rbx)\n call *%rbx\n hlt\n");
FAKE_ASM(give_one, 64, "mov $1, %eax\n ret\n");
FAKE_ASM(give_two, 64, "mov $2, %eax\n ret\n");

START_TEST(invlpg_reaches_code)
{
    struct fake *f = long64();

    remap(f, 0);
    fake_load(f, VA_A, give_one_begin, give_one_end);
    fake_load(f, VA_A + 0x1000, give_two_begin, give_two_end);
    EXPECT_OK(f, call_remap_call);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
    fake_free(f);
}
END_TEST

/* What programs do to their data does not concern the kernel's code, whatever the addresses have in
 * common. */
START_TEST(invlpg_of_data_leaves_code)
{
    struct fake *f = long64();
    const uint32_t *gen = &f->cpu->jump_set[0].link_gen;
    uint32_t before;

    remap(f, 0);
    fake_load(f, VA_A, give_one_begin, give_one_end);
    fake_load(f, VA_A + 0x1000, give_two_begin, give_two_end);
    EXPECT_OK(f, call_remap_call);
    before = *gen;
    for (unsigned i = X86_JUMP_PAGES_BITS; i < 47 - MMU_PAGE_SHIFT; i++)
        x86_flush_tlb_page(f->cpu, VA_A + (1ull << (i + MMU_PAGE_SHIFT)));
    for (unsigned i = 1; i < 16; i++)
        x86_flush_tlb_page(f->cpu, VA_A + i * 0x100000);
    ck_assert_uint_eq(*gen, before);
    x86_flush_tlb_page(f->cpu, VA_A + 8);
    ck_assert_uint_ne(*gen, before);
    fake_free(f);
}
END_TEST

/* An instruction that begins in the page before. */
FAKE_ASM(call_remap_rest_call, 64,
         "call *%rbx\n mov %rax, %rdx\n mov %rdi, (%rsi)\n invlpg 1(%rbx)\n call *%rbx\n hlt\n");

START_TEST(invlpg_reaches_the_rest_of_an_instruction)
{
    struct fake *f = long64();
    uint8_t code[2][6] = {{0xb8, 1, 0, 0, 0, 0xc3}, {0, 2, 0, 0, 0, 0xc3}}; /* MOV EAX; RET */

    remap(f, 0);
    fake_load(f, VA_A - 1, code[0], code[0] + 6);
    fake_load(f, VA_A + 0x1000, code[1] + 1, code[1] + 6);
    f->cpu->gpr[VMM_RBX] = VA_A - 1;
    EXPECT_OK(f, call_remap_rest_call);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 2);
    fake_free(f);
}
END_TEST

FAKE_ASM(wp_store, 64,
         "mov %rcx, (%rbx)\n" /* WP clear: may write */
         "mov %cr0, %rax\n or $0x10000, %rax\n mov %rax, %cr0\n"
         "mov %rcx, (%rbx)\n hlt\n");

START_TEST(wp_takes_effect_at_once)
{
    struct fake *f = long64();

    fake_put(f, PTE(VA_A), 8, VA_A | 5);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RBX] = VA_A;
    ck_assert_int_eq(EXPECT_RUN(f, wp_store), X86_PF_);
    ck_assert_uint_eq(f->cpu->event.error, MMU_PF_P | MMU_PF_W);
    ck_assert_uint_eq(f->cpu->event.cr2, VA_A);
    ck_assert(f->cpu->cr0 & X86_CR0_WP);
    fake_free(f);
}
END_TEST

/* ---- INVPCID ---- */

FAKE_ASM(do_invpcid, 64,
         "mov (%rbx), %rax\n mov %rdi, (%rsi)\n invpcid (%rdx), %r8\n"
         "mov (%rbx), %rcx\n hlt\n");
FAKE_ASM(only_invpcid, 64, "invpcid (%rdx), %r8\n hlt\n");

static void invpcid_args(struct fake *f, uint64_t type, uint64_t pcid, uint64_t linear)
{
    f->cpu->gpr[VMM_R8] = type;
    f->cpu->gpr[VMM_RDX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, pcid);
    fake_put(f, FAKE_DATA + 8, 8, linear);
    f->cpu->rip = FAKE_TEXT;
}

START_TEST(invpcid_types)
{
    static const struct {
        uint64_t type, pcid;
        bool global, flushed;
    } rows[] = {
        {0, 5, false, true}, {1, 5, false, true}, {1, 5, true, false},
        {2, 0, true, true},  {3, 0, false, true}, {3, 0, true, false},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fake *f = long64();

        ck_assert(x86_set_cr4(f->cpu, f->cpu->cr4 | X86_CR4_PCIDE | X86_CR4_PGE));
        ck_assert(x86_set_cr3(f->cpu, f->cpu->cr3 | 5));
        remap(f, rows[i].global ? 0x100 : 0);
        invpcid_args(f, rows[i].type, rows[i].pcid, VA_A);
        EXPECT_OK(f, do_invpcid);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x1111);
        ck_assert_msg(f->cpu->gpr[VMM_RCX] == (rows[i].flushed ? 0x2222u : 0x1111u), "row %u", i);
        fake_free(f);
    }
}
END_TEST

START_TEST(invpcid_faults)
{
    struct fake *f = long64();

    invpcid_args(f, 4, 0, 0); /* no such type */
    EXPECT_FAULT(f, only_invpcid, X86_GP);
    invpcid_args(f, 2, 0x1000, 0); /* reserved bits of the descriptor */
    EXPECT_FAULT(f, only_invpcid, X86_GP);
    invpcid_args(f, 1, 1, 0); /* a PCID without CR4.PCIDE */
    EXPECT_FAULT(f, only_invpcid, X86_GP);
    invpcid_args(f, 0, 0, 1ull << 63); /* not canonical */
    EXPECT_FAULT(f, only_invpcid, X86_GP);
    invpcid_args(f, 2, 0, 1ull << 63); /* which only type 0 looks at */
    EXPECT_OK(f, only_invpcid);
    invpcid_args(f, 2, 0, 0);
    f->cpu->feat.l7_ebx = 0;
    EXPECT_FAULT(f, only_invpcid, X86_UD);
    f->cpu->feat.l7_ebx = ~0u;
    fake_user(f);
    EXPECT_FAULT(f, only_invpcid, X86_GP);
    fake_free(f);
}
END_TEST

/* ---- protection keys ---- */

FAKE_ASM(do_wrpkru, 64, "mov (%rbx), %rsi\n wrpkru\n mov (%rbx), %rsi\n hlt\n");
FAKE_ASM(do_rdpkru, 64, "rdpkru\n hlt\n");
FAKE_ASM(only_wrpkru, 64, "wrpkru\n hlt\n");

START_TEST(pkru_takes_effect_at_once)
{
    struct fake *f = long64();

    fake_put(f, PTE(VA_A), 8, VA_A | 7 | 1ull << 59); /* key 1 */
    ck_assert(x86_set_cr4(f->cpu, f->cpu->cr4 | X86_CR4_PKE));
    fake_user(f);
    x86_flush_tlb(f->cpu);
    f->cpu->gpr[VMM_RBX] = VA_A;
    f->cpu->gpr[VMM_RDX] = 0;
    f->cpu->gpr[VMM_RAX] = 4; /* key 1: no access */
    ck_assert_int_eq(EXPECT_RUN(f, do_wrpkru), X86_PF_);
    ck_assert_uint_eq(f->cpu->event.error, MMU_PF_P | MMU_PF_U | MMU_PF_PK);
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RDX] = 7;
    EXPECT_OK(f, do_rdpkru);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 4);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], 0);
    fake_free(f);
}
END_TEST

START_TEST(pkru_faults)
{
    struct fake *f = long64();

    EXPECT_FAULT(f, do_rdpkru, X86_UD);
    EXPECT_FAULT(f, only_wrpkru, X86_UD);
    f->cpu->cr4 |= X86_CR4_PKE;
    f->cpu->gpr[VMM_RCX] = 1;
    EXPECT_FAULT(f, do_rdpkru, X86_GP);
    EXPECT_FAULT(f, only_wrpkru, X86_GP);
    f->cpu->gpr[VMM_RCX] = 0;
    f->cpu->gpr[VMM_RDX] = 1;
    EXPECT_FAULT(f, only_wrpkru, X86_GP);
    ck_assert_uint_eq(f->cpu->pkru, 0);
    fake_free(f);
}
END_TEST

EXPECT_MAIN("control", cr0_accepts_and_fixes_et, cr0_rejects_impossible_combinations,
            pg_activates_long_mode, long_mode_needs_pae_and_a_wide_tss, pae_loads_and_checks_pdptes,
            cr3_checks_width_and_drops_no_flush_bit, cr4_checks, paging_stays_while_pcide,
            cr8_is_the_surroundings, cr2_takes_anything_cr1_is_undefined,
            users_cannot_touch_control_registers, clts_clears_ts, lmsw_sets_but_does_not_clear_pe,
            smsw_by_size_and_umip, xsetbv_checks, xgetbv_at_any_privilege,
            invlpg_shows_the_new_mapping, global_pages_outlive_cr3_loads, invlpg_reaches_code,
            invlpg_of_data_leaves_code, invlpg_reaches_the_rest_of_an_instruction,
            wp_takes_effect_at_once, invpcid_types, invpcid_faults, pkru_takes_effect_at_once,
            pkru_faults)
