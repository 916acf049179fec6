/* SPDX-License-Identifier: BSD-2-Clause */
/* test_segment.c: loads of segment registers, LDTR and TR, and the instructions on selectors. */
#include "x86_sys_test.h"

FAKE_ASM(mov_ds, 64, "mov %eax, %ds\n hlt\n");
FAKE_ASM(mov_ss, 64, "mov %eax, %ss\n hlt\n");
FAKE_ASM(mov_fs, 64, "mov %eax, %fs\n hlt\n");
FAKE_ASM(mov_from, 64, "mov %ds, %eax\n mov %ds, %rbx\n mov %ds, %cx\n mov %ds, (%rdi)\n hlt\n");
FAKE_ASM(fs_stack, 64, "push %fs\n pop %gs\n pushw %fs\n hlt\n");
FAKE_ASM(lldt_, 64, "lldt %ax\n sldt %rbx\n hlt\n");
FAKE_ASM(ltr_, 64, "ltr %ax\n str %ebx\n hlt\n");
FAKE_ASM(lar_, 64, "lar %ax, %ebx\n hlt\n");
FAKE_ASM(lar_mem, 64, "lar (%rdi), %rbx\n hlt\n");
FAKE_ASM(lsl_, 64, "lsl %ax, %ebx\n hlt\n");
FAKE_ASM(verr_, 64, "verr %ax\n hlt\n");
FAKE_ASM(verw_, 64, "verw %ax\n hlt\n");
FAKE_ASM(lfs64, 64, ".byte 0x48, 0x0f, 0xb4, 0x1f\n hlt\n"); /* lfs (%rdi), %rbx */
FAKE_ASM(sldt_user, 64, "sldt %eax\n int $0x30\n");
FAKE_ASM(mov_ds32, 32, "mov %eax, %ds\n hlt\n");
FAKE_ASM(mov_ss32, 32, "mov %eax, %ss\n hlt\n");
FAKE_ASM(stack32, 32, "push %es\n pop %fs\n hlt\n");
FAKE_ASM(pop_ss32, 32, "pop %ss\n nop\n hlt\n");
FAKE_ASM(les32, 32, "les (%edi), %ebx\n hlt\n");
FAKE_ASM(lss32, 32, "lss (%edi), %esp\n hlt\n");
FAKE_ASM(lds16, 32, "ldsw (%edi), %bx\n hlt\n");
FAKE_ASM(load_ds, 32, "mov %eax, %ds\n mov (%edi), %ebx\n hlt\n");
FAKE_ASM(arpl_, 32, "arpl %bx, %ax\n hlt\n");
FAKE_ASM(arpl_mem, 32, "arpl %bx, (%edi)\n hlt\n");
FAKE_ASM(lldt32, 32, "lldt %ax\n hlt\n");
FAKE_ASM(ltr32, 32, "ltr %ax\n hlt\n");
FAKE_ASM(lar32, 32, "lar %eax, %ebx\n hlt\n");
FAKE_ASM(lsl32, 32, "lsl %eax, %ebx\n hlt\n");
FAKE_ASM(real_load, 16, "mov %ax, %ds\n mov 0x10, %bl\n pop %es\n hlt\n");
FAKE_ASM(real_lldt, 16, ".byte 0x0f, 0x00, 0xd0\n");

#define SEL  FAKE_FREE
#define SEL2 (FAKE_FREE + 8)
#define WIDE (FAKE_FREE + 16) /* takes two */
#define LDT  0x30000u

static struct fake *f;

static void setup_long(void)
{
    f = fake_new();
    fake_long64(f);
}

static void setup_32(void)
{
    f = fake_new();
    fake_prot32(f);
}

static void teardown(void)
{
    fake_free(f);
}

/* Runs code with AX = selector; the result, and a fault's error code. */
#define TRY(name, selector) try_load(name##_begin, name##_end, selector)
static int try_load(const uint8_t *begin, const uint8_t *end, uint16_t selector)
{
    f->cpu->gpr[VMM_RAX] = selector;
    return fake_exec(f, begin, end);
}

#define FAULTS(name, selector, vector, error)                                                      \
    do {                                                                                           \
        ck_assert_int_eq(TRY(name, selector), vector);                                             \
        ck_assert_uint_eq(fake_stack(f, 0, fake_mode(f) == 6 ? 8 : 4), error);                     \
        ck_assert_uint_eq(fake_stack(f, 1, fake_mode(f) == 6 ? 8 : 4), FAKE_TEXT);                 \
        teardown();                                                                                \
    } while (0)

START_TEST(data_segments)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0x12345678, 0xabfff, AR_DATA(0) & ~1u));
    ck_assert_int_eq(TRY(mov_ds32, SEL), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, SEL);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].base, 0x12345678);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].limit, 0xabfff);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].ar, AR_DATA(0));
    ck_assert_uint_eq(fake_get_desc(f, SEL) >> 40 & 0xff, 0x93); /* accessed */
    teardown();

    setup_32(); /* readable code will do */
    ck_assert_int_eq(TRY(mov_ds32, FAKE_CS32), FAKE_HLT);
    teardown();
    setup_32(); /* conforming code whatever its DPL */
    set_flat(f, SEL, AR_CONFORM(0));
    ck_assert_int_eq(TRY(mov_ds32, SEL | 3), FAKE_HLT);
    teardown();
    setup_32();
    ck_assert_int_eq(TRY(mov_ds32, 3), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, 3);
    ck_assert(f->cpu->seg[VMM_DS].ar & VMM_AR_UNUSABLE);
    teardown();
}
END_TEST

START_TEST(data_segment_faults)
{
    setup_32();
    FAULTS(mov_ds32, 0xfff8, X86_GP, 0xfff8);
    setup_32(); /* no LDT */
    f->cpu->seg[VMM_LDTR].ar = VMM_AR_UNUSABLE;
    FAULTS(mov_ds32, 0xc, X86_GP, 0xc);
    setup_32();
    fake_set_desc(f, SEL, fake_desc(LDT, 0xff, AR_SYS(2, 0)));
    FAULTS(mov_ds32, SEL, X86_GP, SEL);
    setup_32();
    set_flat(f, SEL, AR_CODE32(0) & ~2u); /* execute only */
    FAULTS(mov_ds32, SEL, X86_GP, SEL);
    setup_32(); /* RPL > DPL */
    FAULTS(mov_ds32, FAKE_DS | 1, X86_GP, FAKE_DS);
    setup_32();
    set_flat(f, SEL, AR_DATA(0) & ~VMM_AR_P);
    FAULTS(mov_ds32, SEL, X86_NP, SEL);
    setup_32(); /* CPL > DPL */
    fake_user(f);
    FAULTS(mov_ds32, FAKE_DS, X86_GP, FAKE_DS);
    setup_32(); /* the table's limit is within the descriptor */
    f->cpu->gdt.limit = SEL + 6;
    set_flat(f, SEL, AR_DATA(0));
    FAULTS(mov_ds32, SEL, X86_GP, SEL);
}
END_TEST

START_TEST(stack_segments)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0, 0xffff, FAKE_AR_DATA));
    ck_assert_int_eq(TRY(mov_ss32, SEL), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->sp_mask, 0xffff);
    ck_assert_uint_eq(f->cpu->shadow, 0); /* over after the HLT */
    teardown();
    setup_32();
    FAULTS(mov_ss32, 0, X86_GP, 0);
    setup_32();
    FAULTS(mov_ss32, 0xfff8, X86_GP, 0xfff8);
    setup_32();
    FAULTS(mov_ss32, FAKE_DS | 1, X86_GP, FAKE_DS);
    setup_32();
    FAULTS(mov_ss32, FAKE_UDS & ~3u, X86_GP, FAKE_UDS & ~3u);
    setup_32();
    FAULTS(mov_ss32, FAKE_CS32, X86_GP, FAKE_CS32);
    setup_32();
    set_flat(f, SEL, AR_DATA(0) & ~2u);
    FAULTS(mov_ss32, SEL, X86_GP, SEL);
    setup_32();
    set_flat(f, SEL, AR_DATA(0) & ~VMM_AR_P);
    FAULTS(mov_ss32, SEL, X86_SS, SEL);
}
END_TEST

START_TEST(null_ss_in_64_bit_mode)
{
    setup_long();
    ck_assert_int_eq(TRY(mov_ss, 0), FAKE_HLT);
    ck_assert(f->cpu->seg[VMM_SS].ar & VMM_AR_UNUSABLE);
    teardown();
    setup_long();
    FAULTS(mov_ss, 1, X86_GP, 0);
    setup_long();
    fake_user(f);
    FAULTS(mov_ss, 3, X86_GP, 0);
}
END_TEST

START_TEST(null_fs_clears_the_base)
{
    setup_long();
    f->cpu->seg[VMM_FS].base = 0x123456789abc;
    ck_assert_int_eq(TRY(mov_fs, 0), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0);
    teardown();
    setup_long();
    fake_set_desc(f, SEL, fake_desc(0x87654321, 0xfff, AR_DATA(0) & ~VMM_AR_G));
    ck_assert_int_eq(TRY(mov_fs, SEL), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0x87654321);
    teardown();
    setup_long();
    ck_assert_int_eq(TRY(mov_ds, FAKE_DS), FAKE_HLT);
    teardown();
}
END_TEST

START_TEST(stores_of_selectors)
{
    setup_long();
    f->cpu->gpr[VMM_RAX] = f->cpu->gpr[VMM_RBX] = f->cpu->gpr[VMM_RCX] = ~0ull;
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, ~0ull);
    ck_assert_int_eq(FAKE_EXEC(f, mov_from), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], FAKE_DS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], FAKE_DS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], ~0xffffull | FAKE_DS);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 8), ~0xffffull | FAKE_DS);
    teardown();
}
END_TEST

START_TEST(pushes_and_pops)
{
    setup_long();
    f->cpu->seg[VMM_FS].selector = 0;
    fake_put(f, FAKE_STACK - 8, 8, ~0ull);
    f->cpu->seg[VMM_GS].selector = 0x77;
    ck_assert_int_eq(FAKE_EXEC(f, fs_stack), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 8, 6), 0);
    ck_assert_uint_eq(f->cpu->seg[VMM_GS].selector, 0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 2);
    teardown();

    setup_32(); /* a 32-bit push writes 16 bits */
    fake_put(f, FAKE_STACK - 4, 4, 0xaaaaaaaa);
    ck_assert_int_eq(FAKE_EXEC(f, stack32), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_STACK - 4, 4), 0xaaaa0000 | FAKE_DS);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].selector, FAKE_DS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK);
    teardown();

    setup_32(); /* a POP that faults leaves ESP */
    f->cpu->gpr[VMM_RSP] -= 4;
    fake_put(f, FAKE_STACK - 4, 4, 0xfff8);
    ck_assert_int_eq(FAKE_EXEC(f, pop_ss32), X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 4 - 16);
    teardown();
}
END_TEST

START_TEST(pop_ss_shadows)
{
    setup_32();
    f->cpu->gpr[VMM_RSP] -= 4;
    fake_put(f, FAKE_STACK - 4, 4, FAKE_DS);
    x86_set_rflags(f->cpu, 2 | X86_IF);
    fake_load(f, FAKE_TEXT, pop_ss32_begin, pop_ss32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    f->irq = 0x40;
    ck_assert_int_eq(fake_go(f), 0x40);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 2);
    teardown();
}
END_TEST

START_TEST(loads_of_far_pointers)
{
    setup_32();
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0x89abcdef | (uint64_t)FAKE_UDS << 32);
    ck_assert_int_eq(FAKE_EXEC(f, les32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x89abcdef);
    ck_assert_uint_eq(f->cpu->seg[VMM_ES].selector, FAKE_UDS);
    teardown();

    setup_32();
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    f->cpu->gpr[VMM_RBX] = 0x11111111;
    fake_put(f, FAKE_DATA, 4, 0xcdef | FAKE_DS << 16);
    ck_assert_int_eq(FAKE_EXEC(f, lds16), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x1111cdef);
    teardown();

    setup_32();
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0x9000 | (uint64_t)FAKE_DS << 32);
    ck_assert_int_eq(FAKE_EXEC(f, lss32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x9000);
    teardown();

    setup_32(); /* nothing changes when the selector is bad */
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0x9000 | (uint64_t)0xfff8 << 32);
    ck_assert_int_eq(FAKE_EXEC(f, lss32), X86_GP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 16);
    teardown();

    setup_long();
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0x123456789abcdef0);
    fake_put(f, FAKE_DATA + 8, 2, FAKE_UDS);
    ck_assert_int_eq(FAKE_EXEC(f, lfs64), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x123456789abcdef0);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].selector, FAKE_UDS);
    teardown();
}
END_TEST

START_TEST(code_decoded_for_flat_segments_is_left)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0x1000, 0xfff, AR_DATA(0) & ~VMM_AR_G));
    f->cpu->gpr[VMM_RDI] = 0x10;
    ck_assert_int_eq(TRY(load_ds, SEL), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], fake_get(f, 0x1010, 4));
    teardown();

    setup_32(); /* and the limit counts */
    fake_set_desc(f, SEL, fake_desc(0x1000, 0x12, AR_DATA(0) & ~VMM_AR_G));
    f->cpu->gpr[VMM_RDI] = 0x10;
    ck_assert_int_eq(TRY(load_ds, SEL), X86_GP);
    teardown();
}
END_TEST

START_TEST(ldt_in_64_bit_mode)
{
    setup_long();
    fake_set_desc(f, WIDE, fake_desc(0x2345678, 0x17, AR_SYS(2, 0)));
    fake_set_desc(f, WIDE + 8, 0xffff8000);
    ck_assert_int_eq(TRY(lldt_, WIDE), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_LDTR].base, 0xffff800002345678);
    ck_assert_uint_eq(f->cpu->seg[VMM_LDTR].limit, 0x17);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], WIDE);
    teardown();
    setup_long();
    ck_assert_int_eq(TRY(lldt_, 3), FAKE_HLT);
    ck_assert(f->cpu->seg[VMM_LDTR].ar & VMM_AR_UNUSABLE);
    teardown();

    setup_long(); /* not canonical */
    fake_set_desc(f, WIDE, fake_desc(0, 0x17, AR_SYS(2, 0)));
    fake_set_desc(f, WIDE + 8, 0x8000);
    FAULTS(lldt_, WIDE, X86_GP, WIDE);
    setup_long(); /* the upper half is a legacy descriptor */
    fake_set_desc(f, WIDE, fake_desc(0, 0x17, AR_SYS(2, 0)));
    fake_set_desc(f, WIDE + 8, fake_desc(0, 0, AR_SYS(2, 0)));
    FAULTS(lldt_, WIDE, X86_GP, WIDE);
    setup_long(); /* the upper half is beyond the table */
    fake_set_desc(f, WIDE, fake_desc(0, 0x17, AR_SYS(2, 0)));
    f->cpu->gdt.limit = WIDE + 14;
    FAULTS(lldt_, WIDE, X86_GP, WIDE);
    setup_long();
    FAULTS(lldt_, WIDE | 4, X86_GP, WIDE | 4);
    setup_long();
    FAULTS(lldt_, FAKE_DS, X86_GP, FAKE_DS);
    setup_long();
    fake_set_desc(f, WIDE, fake_desc(0, 0x17, 2));
    FAULTS(lldt_, WIDE, X86_NP, WIDE);
    setup_long();
    fake_user(f);
    FAULTS(lldt_, 0, X86_GP, 0);
}
END_TEST

START_TEST(ldt_selectors)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(LDT, 0xf, AR_SYS(2, 0)));
    fake_put(f, LDT + 8, 8, fake_desc(0x7000, 0xff, AR_DATA(0) & ~VMM_AR_G));
    ck_assert_int_eq(TRY(lldt32, SEL), FAKE_HLT);
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(TRY(mov_ds32, 0xc), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].base, 0x7000);
    f->cpu->rip = FAKE_TEXT;
    FAULTS(mov_ds32, 0x14, X86_GP, 0x14);
}
END_TEST

START_TEST(task_register)
{
    setup_long();
    fake_set_desc(f, WIDE, fake_desc(0x2345678, 0x67, AR_SYS(9, 0)));
    fake_set_desc(f, WIDE + 8, 0xffff8000);
    ck_assert_int_eq(TRY(ltr_, WIDE), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].base, 0xffff800002345678);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].ar, AR_SYS(11, 0));
    ck_assert_uint_eq(fake_get_desc(f, WIDE) >> 40 & 0xff, 0x8b);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], WIDE);
    f->cpu->rip = FAKE_TEXT; /* busy now */
    FAULTS(ltr_, WIDE, X86_GP, WIDE);

    setup_long();
    FAULTS(ltr_, 0, X86_GP, 0);
    setup_long(); /* no 16-bit TSS in long mode */
    fake_set_desc(f, WIDE, fake_desc(0, 0x67, AR_SYS(1, 0)));
    FAULTS(ltr_, WIDE, X86_GP, WIDE);
    setup_long();
    fake_set_desc(f, WIDE, fake_desc(0, 0x67, 9));
    FAULTS(ltr_, WIDE, X86_NP, WIDE);
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0x3000, 0x2b, AR_SYS(1, 0)));
    ck_assert_int_eq(TRY(ltr32, SEL), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_TR].ar, AR_SYS(3, 0));
    teardown();
}
END_TEST

/* ZF after code that examines AX. */
static bool zf(const uint8_t *begin, const uint8_t *end, uint16_t selector)
{
    f->cpu->cc ^= X86_CC_ZF;
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RBX] = 0xdeadbeef00000000;
    ck_assert_int_eq(try_load(begin, end, selector), FAKE_HLT);
    return f->cpu->cc & X86_CC_ZF;
}
#define ZF(name, selector) zf(name##_begin, name##_end, selector)

START_TEST(access_rights_and_limits)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0x12345678, 0xabcdefff, AR_DATA(2) | VMM_AR_AVL));
    ck_assert(ZF(lar32, SEL));
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xdad300);
    ck_assert(ZF(lsl32, SEL));
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xabcdefff);
    ck_assert(!ZF(lar32, SEL | 3)); /* RPL */
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xdeadbeef00000000);
    ck_assert(!ZF(lar32, 0));
    ck_assert(!ZF(lar32, 0xfff8));
    /* System types, one bit each. */
    for (unsigned type = 0; type < 16; type++) {
        fake_set_desc(f, SEL, fake_desc(0, 0x67, type));
        ck_assert_int_eq(ZF(lar32, SEL), 0x1a3e >> type & 1);
        ck_assert_int_eq(ZF(lsl32, SEL), 0x0a0e >> type & 1);
    }
    teardown();

    setup_long();
    for (unsigned type = 0; type < 16; type++) {
        fake_set_desc(f, SEL, fake_desc(0, 0x67, type));
        ck_assert_int_eq(ZF(lar_, SEL), 0x1a04 >> type & 1);
        ck_assert_int_eq(ZF(lsl_, SEL), 0x0a04 >> type & 1);
    }
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 2, FAKE_CS64);
    ck_assert(ZF(lar_mem, 0));
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0xaf9b00);
    teardown();
}
END_TEST

START_TEST(verification)
{
    setup_long();
    ck_assert(ZF(verr_, FAKE_DS));
    ck_assert(ZF(verw_, FAKE_DS));
    ck_assert(ZF(verr_, FAKE_CS64));
    ck_assert(!ZF(verw_, FAKE_CS64));
    ck_assert(!ZF(verr_, FAKE_TR));
    ck_assert(!ZF(verr_, FAKE_DS | 3));
    set_flat(f, SEL, AR_CODE32(0) & ~2u);
    ck_assert(!ZF(verr_, SEL));
    set_flat(f, SEL, AR_CONFORM(0));
    ck_assert(ZF(verr_, SEL | 3));
    set_flat(f, SEL, AR_DATA(0) & ~2u);
    ck_assert(ZF(verr_, SEL));
    ck_assert(!ZF(verw_, SEL));
    teardown();
}
END_TEST

START_TEST(arpl_raises_the_rpl)
{
    setup_32();
    f->cpu->gpr[VMM_RAX] = 0x12340010;
    f->cpu->gpr[VMM_RBX] = 3;
    ck_assert_int_eq(FAKE_EXEC(f, arpl_), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x12340013);
    ck_assert(f->cpu->cc & X86_CC_ZF);
    f->cpu->gpr[VMM_RBX] = 2;
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x12340013);
    ck_assert(!(f->cpu->cc & X86_CC_ZF));
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 4, 0x10);
    f->cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(FAKE_EXEC(f, arpl_mem), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 4), 0x12);
    teardown();
}
END_TEST

START_TEST(umip_hides_selectors)
{
    setup_long();
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, sldt_user), 0x30);
    teardown();
    setup_long();
    f->cpu->cr4 |= X86_CR4_UMIP;
    fake_user(f);
    FAULTS(sldt_user, 0, X86_GP, 0);
}
END_TEST

START_TEST(real_mode_loads_keep_limits)
{
    f = fake_new();
    fake_real(f);
    f->cpu->seg[VMM_DS].limit = 0xffffffff;
    f->cpu->gpr[VMM_RAX] = 0x4000;
    fake_put(f, 0x40010, 1, 0x5a);
    fake_put(f, 0xe000, 2, 0xbeef);
    ck_assert_int_eq(FAKE_EXEC(f, real_load), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].base, 0x40000);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].limit, 0xffffffff);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX] & 0xff, 0x5a);
    ck_assert_uint_eq(f->cpu->seg[VMM_ES].base, 0xbeef0);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe002);
    teardown();
    f = fake_new();
    fake_real(f);
    ck_assert_int_eq(FAKE_EXEC(f, real_lldt), X86_UD);
    teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        data_segments,
        data_segment_faults,
        stack_segments,
        null_ss_in_64_bit_mode,
        null_fs_clears_the_base,
        stores_of_selectors,
        pushes_and_pops,
        pop_ss_shadows,
        loads_of_far_pointers,
        code_decoded_for_flat_segments_is_left,
        ldt_in_64_bit_mode,
        ldt_selectors,
        task_register,
        access_rights_and_limits,
        verification,
        arpl_raises_the_rpl,
        umip_hides_selectors,
        real_mode_loads_keep_limits,
    };

    return RUN_SUITE("segment", tests);
}
