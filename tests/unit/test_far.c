/* SPDX-License-Identifier: BSD-2-Clause */
/* test_far.c: far branches and returns, call gates, and IRET in every form. */
#include "x86_sys_test.h"

/* Far branches through a pointer at (%rdi). */
FAKE_ASM(jmp64, 64, ".byte 0x48\n ljmpl *(%rdi)\n");
FAKE_ASM(jmp64_32, 64, "ljmpl *(%rdi)\n");
FAKE_ASM(call64, 64, ".byte 0x48\n lcalll *(%rdi)\n hlt\n");
FAKE_ASM(call64_32, 64, "lcall *(%rdi)\n hlt\n");
FAKE_ASM(retq_, 64, "lretq\n");
FAKE_ASM(retq_imm, 64, "lretq $0x18\n");
FAKE_ASM(iretq_, 64, "iretq\n");
FAKE_ASM(iretl_64, 64, "iretl\n");
FAKE_ASM(jmp32, 32, "ljmp *(%edi)\n");
FAKE_ASM(call32, 32, "lcall *(%edi)\n hlt\n");
FAKE_ASM(jmp_imm, 32, "ljmp $0x20, $0x8000\n"); /* FAKE_CS16 */
FAKE_ASM(ret32, 32, "lret\n");
FAKE_ASM(ret32_imm, 32, "lret $8\n");
FAKE_ASM(iret32, 32, "iret\n");
FAKE_ASM(int31, 64, "int $0x31\n");
FAKE_ASM(real_jmp, 16, "ljmp $0x4000, $0x123\n");
FAKE_ASM(real_jmp_high, 16, "ljmp $0xf000, $0xfff0\n");
FAKE_ASM(real_call, 16, "lcall $0x4000, $0x123\n");
FAKE_ASM(real_jmp32, 16, ".byte 0x66, 0xea\n .long 0x10000\n .word 0x4000\n");
FAKE_ASM(real_ret, 16, "lret $2\n");
FAKE_ASM(real_iret, 16, "iretw\n");
FAKE_ASM(real_iretd, 16, "iretl\n");

#define TARGET 0x11000u
#define SEL    FAKE_FREE
#define GATE   (FAKE_FREE + 8) /* takes two in long mode */
#define R1_CS  ((FAKE_FREE + 24) | 1u)
#define R1_SS  ((FAKE_FREE + 32) | 1u)
#define R2_CS  ((FAKE_FREE + 40) | 2u)
#define R2_SS  ((FAKE_FREE + 48) | 2u)

static struct fake *f;

static void prepare(void)
{
    set_flat(f, R1_CS, AR_CODE32(1));
    set_flat(f, R1_SS, AR_DATA(1));
    set_flat(f, R2_CS, AR_CODE32(2));
    set_flat(f, R2_SS, AR_DATA(2));
    memset(f->mem + TARGET, 0xf4, 16);
    f->cpu->gpr[VMM_RDI] = FAKE_DATA;
}

static void setup_long(void)
{
    f = fake_new();
    fake_long64(f);
    prepare();
}

static void setup_32(void)
{
    f = fake_new();
    fake_prot32(f);
    fake_put(f, FAKE_TSS + 12, 4, FAKE_STACK0 - 0x1000);
    fake_put(f, FAKE_TSS + 16, 2, R1_SS);
    prepare();
}

static void teardown(void)
{
    fake_free(f);
}

/* A far pointer at (%rdi). */
static void pointer(uint16_t selector, uint64_t offset, unsigned size)
{
    fake_put(f, FAKE_DATA, size, offset);
    fake_put(f, FAKE_DATA + size, 2, selector);
}

/* The code must fault with this error code, at its first instruction and with RSP as it was. */
static void faults(const uint8_t *begin, const uint8_t *end, int vector, uint32_t error)
{
    bool lm = f->cpu->efer & X86_EFER_LMA, inner = f->cpu->cpl;
    uint64_t rsp = f->cpu->gpr[VMM_RSP];
    unsigned cs = f->cpu->seg[VMM_CS].selector, size = lm ? 8 : 4;

    ck_assert_int_eq(fake_exec(f, begin, end), vector);
    ck_assert_uint_eq(fake_stack(f, 0, size), error);
    ck_assert_uint_eq(fake_stack(f, 1, size), FAKE_TEXT);
    ck_assert_uint_eq(fake_stack(f, 2, size), cs);
    if (lm || inner)
        ck_assert_uint_eq(fake_stack(f, 4, size), rsp);
    else
        ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], rsp - 16);
    teardown();
}
#define FAULTS(name, vector, error) faults(name##_begin, name##_end, vector, error)

/* ---- JMP and CALL to code segments ---- */

START_TEST(jumps_between_modes)
{
    setup_long(); /* to compatibility mode and on to its HLT */
    pointer(FAKE_CS32, TARGET, 4);
    ck_assert_int_eq(FAKE_EXEC(f, jmp64_32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, TARGET + 1);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].selector, FAKE_CS32);
    ck_assert_uint_eq(fake_mode(f), 5);
    f->cpu->rip = FAKE_TEXT; /* and back */
    pointer(FAKE_CS64, TARGET, 4);
    ck_assert_int_eq(FAKE_EXEC(f, jmp32), FAKE_HLT);
    ck_assert_uint_eq(fake_mode(f), 6);
    teardown();

    setup_long();
    pointer(FAKE_CS64 | 0, TARGET, 8);
    ck_assert_int_eq(FAKE_EXEC(f, jmp64), FAKE_HLT);
    teardown();

    setup_32();
    f->mem[0x8000] = 0xf4;
    ck_assert_int_eq(FAKE_EXEC(f, jmp_imm), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].selector, FAKE_CS16);
    ck_assert_uint_eq(f->cpu->rip, 0x8001);
    teardown();
}
END_TEST

START_TEST(conforming_code_keeps_the_privilege)
{
    setup_32();
    set_flat(f, SEL, AR_CONFORM(0) & ~1u);
    pointer(SEL, TARGET, 4);
    fake_load(f, TARGET, int31_begin, int31_end);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, jmp32), 0x31);
    ck_assert_uint_eq(fake_stack(f, 1, 4), SEL | 3);
    ck_assert_uint_eq(fake_get_desc(f, SEL) >> 40 & 1, 1);
    teardown();
}
END_TEST

START_TEST(branch_faults)
{
    setup_32();
    pointer(3, TARGET, 4);
    FAULTS(jmp32, X86_GP, 0);
    setup_32();
    pointer(0xfff8, TARGET, 4);
    FAULTS(jmp32, X86_GP, 0xfff8);
    setup_32();
    pointer(FAKE_DS, TARGET, 4);
    FAULTS(jmp32, X86_GP, FAKE_DS);
    setup_32(); /* DPL != CPL */
    pointer(FAKE_UCS32, TARGET, 4);
    FAULTS(jmp32, X86_GP, FAKE_UCS32 & ~3u);
    setup_32(); /* RPL > CPL */
    pointer(FAKE_CS32 | 1, TARGET, 4);
    FAULTS(call32, X86_GP, FAKE_CS32);
    setup_32(); /* conforming, but less privileged */
    set_flat(f, SEL, AR_CONFORM(3));
    pointer(SEL, TARGET, 4);
    FAULTS(jmp32, X86_GP, SEL);
    setup_32();
    set_flat(f, SEL, AR_CODE32(0) & ~VMM_AR_P);
    pointer(SEL, TARGET, 4);
    FAULTS(jmp32, X86_NP, SEL);
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0, TARGET - 1, AR_CODE32(0) & ~VMM_AR_G));
    pointer(SEL, TARGET, 4);
    FAULTS(jmp32, X86_GP, 0);
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0, 0x67, AR_SYS(2, 0)));
    pointer(SEL, TARGET, 4);
    FAULTS(jmp32, X86_GP, SEL);
    setup_long();
    pointer(FAKE_CS64, 1ull << 47, 8);
    FAULTS(jmp64, X86_GP, 0);
    setup_long(); /* compatibility mode: the limit is 4 GiB */
    pointer(FAKE_CS32, 1ull << 32, 8);
    FAULTS(jmp64, X86_GP, 0);
    setup_long();
    set_flat(f, SEL, AR_CODE64(0) | VMM_AR_DB);
    pointer(SEL, TARGET, 8);
    FAULTS(jmp64, X86_GP, SEL);
    setup_long(); /* no TSS */
    pointer(FAKE_TR, TARGET, 8);
    FAULTS(call64, X86_GP, FAKE_TR);
}
END_TEST

START_TEST(calls_push_the_return_address)
{
    setup_32();
    pointer(FAKE_CS32, TARGET, 4);
    ck_assert_int_eq(FAKE_EXEC(f, call32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 8);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 2);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_CS32);
    teardown();
    setup_long();
    pointer(FAKE_CS64, TARGET, 8);
    ck_assert_int_eq(FAKE_EXEC(f, call64), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 16);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 3);
    ck_assert_uint_eq(fake_stack(f, 1, 8), FAKE_CS64);
    teardown();
    setup_long();
    pointer(FAKE_CS32, TARGET, 4);
    ck_assert_int_eq(FAKE_EXEC(f, call64_32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 8);
    teardown();
    setup_32(); /* no room */
    pointer(FAKE_CS32, TARGET, 4);
    fake_seg(f, VMM_SS, FAKE_DS, 0, FAKE_STACK - 5, AR_DATA(0) | 4); /* expand-down */
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - 1;
    ck_assert_int_eq(FAKE_EXEC(f, call32), FAKE_SHUTDOWN);
    teardown();
}
END_TEST

/* ---- call gates ---- */

START_TEST(call_gates_of_the_same_privilege)
{
    setup_32();
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 0, 3));
    pointer(GATE, 0xdeadbeef, 4);
    ck_assert_int_eq(FAKE_EXEC(f, call32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 8);
    teardown();
    setup_32(); /* 16 bits */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 4, 0, 0));
    memset(f->mem + (TARGET & 0xffff), 0xf4, 1);
    pointer(GATE, 0, 4);
    ck_assert_int_eq(FAKE_EXEC(f, call32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, (TARGET & 0xffff) + 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK - 4);
    ck_assert_uint_eq(fake_stack(f, 0, 2), 2);
    teardown();
    setup_32();
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 0, 0));
    pointer(GATE, 0, 4);
    ck_assert_int_eq(FAKE_EXEC(f, jmp32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK);
    teardown();
}
END_TEST

START_TEST(call_gates_to_inner_rings_copy_parameters)
{
    setup_32();
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 3, 2));
    pointer(GATE | 3, 0, 4);
    f->cpu->gpr[VMM_RSP] -= 8;
    fake_put(f, FAKE_STACK - 8, 4, 0x11111111);
    fake_put(f, FAKE_STACK - 4, 4, 0x22222222);
    fake_user(f);
    ck_assert_int_eq(FAKE_EXEC(f, call32), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->cpl, 0);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, FAKE_DS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 24);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 2);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_UCS32);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 0x11111111);
    ck_assert_uint_eq(fake_stack(f, 3, 4), 0x22222222);
    ck_assert_uint_eq(fake_stack(f, 4, 4), FAKE_STACK - 8);
    ck_assert_uint_eq(fake_stack(f, 5, 4), FAKE_UDS);
    /* And back, releasing the parameters on both stacks. */
    f->cpu->rip = TARGET + 0x100;
    fake_load(f, TARGET + 0x100, ret32_imm_begin, ret32_imm_end);
    fake_load(f, FAKE_TEXT + 2, int31_begin, int31_end);
    ck_assert_int_eq(fake_go(f), 0x31);
    ck_assert_uint_eq(fake_stack(f, 0, 4), FAKE_TEXT + 4);
    ck_assert_uint_eq(fake_stack(f, 1, 4), FAKE_UCS32);
    ck_assert_uint_eq(fake_stack(f, 3, 4), FAKE_STACK);
    teardown();
}
END_TEST

START_TEST(call_gates_in_long_mode)
{
    for (int compat = 0; compat < 2; compat++) {
        setup_long();
        fake_set_desc(f, GATE, gate_desc(FAKE_CS64, TARGET, 12, 3, 0));
        fake_set_desc(f, GATE + 8, 0);
        pointer(GATE | 3, 0, 4);
        fake_user(f);
        if (compat) {
            fake_seg(f, VMM_CS, FAKE_UCS32, 0, FLAT_LIMIT, AR_CODE32(3));
            x86_mode_changed(f->cpu);
        }
        ck_assert_int_eq(compat ? FAKE_EXEC(f, call32) : FAKE_EXEC(f, call64_32), FAKE_HLT);
        ck_assert_uint_eq(f->cpu->cpl, 0);
        ck_assert_uint_eq(fake_mode(f), 6);
        ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, 0);
        ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_STACK0 - 32);
        ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 2);
        ck_assert_uint_eq(fake_stack(f, 1, 8), compat ? FAKE_UCS32 : FAKE_UCS64);
        ck_assert_uint_eq(fake_stack(f, 2, 8), FAKE_STACK);
        ck_assert_uint_eq(fake_stack(f, 3, 8), FAKE_UDS);
        /* And back. */
        f->cpu->rip = TARGET + 0x100;
        fake_load(f, TARGET + 0x100, retq__begin, retq__end);
        fake_load(f, FAKE_TEXT + 2, int31_begin, int31_end);
        ck_assert_int_eq(fake_go(f), 0x31);
        ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT + 4);
        ck_assert_uint_eq(fake_stack(f, 1, 8), compat ? FAKE_UCS32 : FAKE_UCS64);
        teardown();
    }
}
END_TEST

START_TEST(call_gate_faults)
{
    setup_32(); /* DPL < CPL */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 0, 0));
    pointer(GATE, 0, 4);
    fake_user(f);
    FAULTS(call32, X86_GP, GATE);
    setup_32(); /* DPL < RPL */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 0, 0));
    pointer(GATE | 1, 0, 4);
    FAULTS(call32, X86_GP, GATE);
    setup_32();
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 0, 0) & ~(1ull << 47));
    pointer(GATE, 0, 4);
    FAULTS(call32, X86_NP, GATE);
    setup_32();
    fake_set_desc(f, GATE, gate_desc(0, TARGET, 12, 0, 0));
    pointer(GATE, 0, 4);
    FAULTS(call32, X86_GP, 0);
    setup_32();
    fake_set_desc(f, GATE, gate_desc(FAKE_DS, TARGET, 12, 0, 0));
    pointer(GATE, 0, 4);
    FAULTS(call32, X86_GP, FAKE_DS);
    setup_32();
    fake_set_desc(f, GATE, gate_desc(R1_CS, TARGET, 12, 0, 0)); /* to an outer ring */
    pointer(GATE, 0, 4);
    FAULTS(call32, X86_GP, R1_CS & ~3u);
    setup_32(); /* JMP does not change the privilege */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 3, 0));
    pointer(GATE, 0, 4);
    fake_user(f);
    FAULTS(jmp32, X86_GP, FAKE_CS32);
    setup_32(); /* the inner stack */
    fake_set_desc(f, GATE, gate_desc(R1_CS, TARGET, 12, 3, 0));
    fake_put(f, FAKE_TSS + 16, 2, 0);
    pointer(GATE, 0, 4);
    fake_user(f);
    FAULTS(call32, X86_TS, 0);
    setup_32();
    fake_set_desc(f, GATE, gate_desc(R1_CS, TARGET, 12, 3, 4));
    fake_set_desc(f, R1_SS, fake_desc(0, FAKE_STACK0 - 0x1000 - 32, AR_DATA(1) & ~VMM_AR_G));
    pointer(GATE, 0, 4);
    fake_user(f);
    FAULTS(call32, X86_SS, R1_SS & ~3u);
    setup_long(); /* upper half of a legacy gate */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS64, TARGET, 12, 3, 0));
    fake_set_desc(f, GATE + 8, gate_desc(FAKE_CS64, TARGET, 12, 3, 0));
    pointer(GATE, 0, 8);
    FAULTS(call64, X86_GP, GATE);
    setup_long(); /* not to 32-bit code */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS32, TARGET, 12, 3, 0));
    fake_set_desc(f, GATE + 8, 0);
    pointer(GATE, 0, 8);
    FAULTS(call64, X86_GP, FAKE_CS32);
    setup_long(); /* no 16-bit gates */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS64, TARGET, 4, 3, 0));
    fake_set_desc(f, GATE + 8, 0);
    pointer(GATE, 0, 8);
    FAULTS(call64, X86_GP, GATE);
    setup_long(); /* not canonical */
    fake_set_desc(f, GATE, gate_desc(FAKE_CS64, TARGET, 12, 3, 0));
    fake_set_desc(f, GATE + 8, 0x8000);
    pointer(GATE, 0, 8);
    FAULTS(call64, X86_GP, 0);
}
END_TEST

/* ---- returns ---- */

/* Values of `size` bytes on the stack, the first one on top. */
static void frame(unsigned size, unsigned n, const uint64_t *values)
{
    f->cpu->gpr[VMM_RSP] = FAKE_STACK - n * size;
    for (unsigned i = 0; i < n; i++)
        fake_put(f, f->cpu->gpr[VMM_RSP] + i * size, size, values[i]);
}
#define FRAME(size, ...)                                                                           \
    frame(size, sizeof((uint64_t[]){__VA_ARGS__}) / 8, (const uint64_t[]){__VA_ARGS__})

START_TEST(returns_to_outer_rings_drop_segments)
{
    setup_32();
    set_flat(f, SEL, AR_CONFORM(0));
    fake_seg(f, VMM_ES, SEL, 0, FLAT_LIMIT, AR_CONFORM(0));
    fake_seg(f, VMM_FS, FAKE_UDS, 0, FLAT_LIMIT, AR_DATA(3));
    FRAME(4, TARGET, FAKE_UCS32, 0x77777777, 0x88888888, FAKE_DATA, FAKE_UDS);
    fake_load(f, FAKE_TEXT, ret32_imm_begin, ret32_imm_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    ck_assert_uint_eq(f->cpu->rip, TARGET);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA + 8);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, FAKE_UDS);
    ck_assert_uint_eq(f->cpu->seg[VMM_ES].selector, SEL); /* conforming code */
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].selector, FAKE_UDS);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, 0);
    ck_assert(f->cpu->seg[VMM_GS].ar & VMM_AR_UNUSABLE);
    teardown();

    setup_long();
    f->cpu->seg[VMM_FS] = (struct vmm_segment){.base = 0x12345678, .ar = VMM_AR_UNUSABLE};
    FRAME(8, TARGET, FAKE_UCS64, 1, 2, 3, FAKE_DATA, FAKE_UDS);
    fake_load(f, FAKE_TEXT, retq_imm_begin, retq_imm_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA + 0x18);
    ck_assert_uint_eq(f->cpu->seg[VMM_FS].base, 0x12345678); /* null before */
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, 0);
    teardown();
}
END_TEST

START_TEST(returns_to_16_bit_stacks_keep_the_upper_half)
{
    setup_32();
    fake_set_desc(f, SEL, fake_desc(0, 0xffff, FAKE_AR_DATA | VMM_AR_DPL));
    FRAME(4, TARGET, FAKE_UCS32, 0x12345678, SEL | 3);
    fake_load(f, FAKE_TEXT, ret32_begin, ret32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], ((FAKE_STACK - 16) & 0xffff0000) | 0x5678);
    teardown();
}
END_TEST

START_TEST(return_faults)
{
    setup_32();
    FRAME(4, TARGET, 0);
    FAULTS(ret32, X86_GP, 0);
    setup_32();
    FRAME(4, TARGET, 0xfff8);
    FAULTS(ret32, X86_GP, 0xfff8);
    setup_32();
    FRAME(4, TARGET, FAKE_DS);
    FAULTS(ret32, X86_GP, FAKE_DS);
    setup_32(); /* to an inner ring */
    FRAME(4, TARGET, FAKE_CS32);
    fake_user(f);
    FAULTS(ret32, X86_GP, FAKE_CS32);
    setup_32(); /* DPL != RPL */
    FRAME(4, TARGET, FAKE_CS32 | 3, FAKE_STACK, FAKE_UDS);
    FAULTS(ret32, X86_GP, FAKE_CS32);
    setup_32();
    set_flat(f, SEL, AR_CODE32(0) & ~VMM_AR_P);
    FRAME(4, TARGET, SEL);
    FAULTS(ret32, X86_NP, SEL);
    setup_32();
    FRAME(4, TARGET, FAKE_CS16);
    FAULTS(ret32, X86_GP, 0);
    setup_32();
    FRAME(4, TARGET, FAKE_UCS32, FAKE_STACK, 0);
    FAULTS(ret32, X86_GP, 0);
    setup_32();
    FRAME(4, TARGET, FAKE_UCS32, FAKE_STACK, FAKE_DS);
    FAULTS(ret32, X86_GP, FAKE_DS);
    setup_32();
    FRAME(4, TARGET, FAKE_UCS32, FAKE_STACK, FAKE_UDS & ~3u);
    FAULTS(ret32, X86_GP, FAKE_UDS & ~3u);
    setup_32();
    set_flat(f, SEL, AR_DATA(3) & ~VMM_AR_P);
    FRAME(4, TARGET, FAKE_UCS32, FAKE_STACK, SEL | 3);
    FAULTS(ret32, X86_SS, SEL);
    setup_long();
    FRAME(8, 1ull << 47, FAKE_CS64);
    FAULTS(retq_, X86_GP, 0);
}
END_TEST

/* ---- IRET ---- */

START_TEST(iretq_restores_everything)
{
    setup_long();
    FRAME(8, TARGET, FAKE_UCS64, 2 | X86_IF | X86_ID | X86_ZF | X86_NT, FAKE_DATA + 1, FAKE_UDS);
    fake_load(f, FAKE_TEXT, iretq__begin, iretq__end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(f->cpu->rip, TARGET);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    ck_assert_uint_eq(rflags(f), 2 | X86_IF | X86_ID | X86_ZF | X86_NT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA + 1);
    ck_assert_uint_eq(f->cpu->seg[VMM_SS].selector, FAKE_UDS);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, 0);
    teardown();

    setup_long(); /* to compatibility mode */
    FRAME(8, TARGET, FAKE_UCS32, 2, 0x123456789, FAKE_UDS);
    fake_load(f, FAKE_TEXT, iretq__begin, iretq__end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(fake_mode(f), 5);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0x23456789);
    teardown();

    setup_long(); /* the same level pops SS:RSP, too; null is fine */
    FRAME(8, TARGET, FAKE_CS64, 2, FAKE_DATA, 0);
    ck_assert_int_eq(FAKE_EXEC(f, iretq_), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA);
    ck_assert(f->cpu->seg[VMM_SS].ar & VMM_AR_UNUSABLE);
    ck_assert_uint_eq(f->cpu->seg[VMM_DS].selector, FAKE_DS);
    teardown();

    setup_long();
    FRAME(4, TARGET, FAKE_CS64, 2, FAKE_DATA, FAKE_DS);
    ck_assert_int_eq(FAKE_EXEC(f, iretl_64), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], FAKE_DATA);
    teardown();
}
END_TEST

START_TEST(iretq_faults)
{
    setup_long();
    f->cpu->rflags |= X86_NT;
    FRAME(8, TARGET, FAKE_CS64, 2, FAKE_DATA, 0);
    FAULTS(iretq_, X86_GP, 0);
    setup_long(); /* null SS at CPL 3 */
    FRAME(8, TARGET, FAKE_UCS64, 2, FAKE_DATA, 3);
    FAULTS(iretq_, X86_GP, 0);
    setup_long(); /* null SS in compatibility mode */
    FRAME(8, TARGET, FAKE_CS32, 2, FAKE_DATA, 0);
    FAULTS(iretq_, X86_GP, 0);
    setup_long();
    FRAME(8, 1ull << 47, FAKE_UCS64, 2, FAKE_DATA, FAKE_UDS);
    FAULTS(iretq_, X86_GP, 0);
    setup_long();
    FRAME(8, TARGET, 0, 2, FAKE_DATA, FAKE_UDS);
    FAULTS(iretq_, X86_GP, 0);
    setup_long();
    FRAME(8, TARGET, FAKE_UCS64, 2, FAKE_DATA, FAKE_DS);
    FAULTS(iretq_, X86_GP, FAKE_DS);
    setup_long();
    set_flat(f, SEL, AR_CODE64(0) | VMM_AR_DB);
    FRAME(8, TARGET, SEL, 2, FAKE_DATA, 0);
    FAULTS(iretq_, X86_GP, SEL);
    setup_long(); /* a frame that is not there */
    FRAME(8, TARGET, FAKE_CS64, 2, FAKE_DATA, 0);
    f->cpu->gpr[VMM_RSP] = 1ull << 47;
    fake_put(f, FAKE_TSS + 36, 8, FAKE_STACK0);
    fake_put(f, FAKE_IDT + X86_SS * 16 + 4, 1, 1);
    FAULTS(iretq_, X86_SS, 0);
}
END_TEST

START_TEST(iret_changes_flags_by_privilege)
{
    setup_32(); /* CPL 3, IOPL 0: neither IF nor IOPL, VIF, VIP, VM */
    FRAME(4, TARGET, FAKE_UCS32, 0xffffffff & ~X86_TF);
    fake_user(f);
    fake_load(f, FAKE_TEXT, iret32_begin, iret32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(rflags(f), 2 | X86_ARITH | X86_DF | X86_NT | X86_RF | X86_AC | X86_ID);
    teardown();

    setup_32(); /* CPL 3, IOPL 3: IF */
    FRAME(4, TARGET, FAKE_UCS32, 2 | X86_IF);
    fake_user(f);
    x86_set_rflags(f->cpu, 2 | X86_IOPL);
    fake_load(f, FAKE_TEXT, iret32_begin, iret32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(rflags(f), 2 | X86_IOPL | X86_IF);
    teardown();

    setup_32(); /* CPL 0: all, by the privilege before the return */
    FRAME(4, TARGET, FAKE_UCS32, 2 | X86_IF | X86_IOPL | X86_VIF | X86_VIP, FAKE_DATA, FAKE_UDS);
    fake_load(f, FAKE_TEXT, iret32_begin, iret32_end);
    ck_assert_int_eq(fake_step(f), X86_STOP_STEP);
    ck_assert_uint_eq(rflags(f), 2 | X86_IF | X86_IOPL | X86_VIF | X86_VIP);
    ck_assert_uint_eq(f->cpu->cpl, 3);
    teardown();
}
END_TEST

START_TEST(iret_takes_waiting_interrupts)
{
    setup_long();
    FRAME(8, TARGET, FAKE_CS64, 2 | X86_IF, FAKE_DATA, FAKE_DS);
    f->irq = 0x50;
    ck_assert_int_eq(FAKE_EXEC(f, iretq_), 0x50);
    ck_assert_uint_eq(fake_stack(f, 0, 8), TARGET);
    teardown();
}
END_TEST

START_TEST(iret_single_steps_the_target)
{
    setup_long();
    memset(f->mem + TARGET, 0x90, 4);
    FRAME(8, TARGET, FAKE_CS64, 2 | X86_TF, FAKE_DATA, FAKE_DS);
    ck_assert_int_eq(FAKE_EXEC(f, iretq_), X86_DB);
    ck_assert_uint_eq(fake_stack(f, 0, 8), TARGET + 1);
    ck_assert_uint_eq(f->cpu->dr.dr6 & 0x4000, 0x4000);
    teardown();
}
END_TEST

/* ---- virtual-8086 mode ---- */

static void setup_vm86(unsigned iopl)
{
    setup_32();
    x86_set_rflags(f->cpu, 2 | X86_VM | iopl << X86_IOPL_SHIFT);
    f->cpu->cpl = 3;
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        x86_load_seg_real(f->cpu, i, 0);
    x86_load_seg_real(f->cpu, VMM_CS, FAKE_TEXT / 16);
    x86_mode_changed(f->cpu);
    f->cpu->rip = 0;
    f->cpu->gpr[VMM_RSP] = 0xe000;
    fake_load(f, 0x40123, int31_begin, int31_end);
}

START_TEST(iret_to_virtual_8086_mode)
{
    setup_32();
    FRAME(4, 0x123, 0x4000, 2 | X86_VM | X86_IOPL | X86_IF, 0x8000, 0x100, 0x200, 0x300, 0x400,
          0x500);
    fake_load(f, 0x40123, int31_begin, int31_end);
    ck_assert_int_eq(FAKE_EXEC(f, iret32), 0x31);
    ck_assert_uint_eq(fake_stack(f, 0, 4), 0x125);
    ck_assert_uint_eq(fake_stack(f, 1, 4), 0x4000);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_IOPL | X86_IF);
    ck_assert_uint_eq(fake_stack(f, 3, 4), 0x8000);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(fake_stack(f, 4 + i, 4), 0x100 * (i + 1));
    teardown();

    setup_32();
    FRAME(4, 0x10000, 0x4000, 2 | X86_VM, 0x8000, 0x100, 0x200, 0x300, 0x400, 0x500);
    FAULTS(iret32, X86_GP, 0);
}
END_TEST

START_TEST(iret_in_virtual_8086_mode)
{
    setup_vm86(3); /* VM, IOPL stay */
    fake_put(f, 0xe000, 6, 0x123 | 0x40000000ull | (uint64_t)(2 | X86_IF | X86_CF) << 32);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), 0x31);
    ck_assert_uint_eq(fake_stack(f, 1, 4), 0x4000);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_IOPL | X86_IF | X86_CF);
    ck_assert_uint_eq(fake_stack(f, 3, 4), 0xe006);
    teardown();

    setup_vm86(0);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), X86_GP);
    teardown();

    setup_vm86(0); /* VME: VIF instead of IF */
    f->cpu->cr4 |= X86_CR4_VME;
    fake_put(f, 0xe000, 6, 0x123 | 0x40000000ull | (uint64_t)(2 | X86_IF) << 32);
    fake_put(f, 0x40123, 1, 0xcc);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), X86_BP);
    ck_assert_uint_eq(fake_stack(f, 2, 4), 2 | X86_VM | X86_VIF);
    teardown();
    setup_vm86(0);
    f->cpu->cr4 |= X86_CR4_VME;
    ck_assert_int_eq(FAKE_EXEC(f, real_iretd), X86_GP);
    teardown();
    setup_vm86(0); /* a virtual interrupt waits */
    f->cpu->cr4 |= X86_CR4_VME;
    f->cpu->rflags |= X86_VIP;
    fake_put(f, 0xe000, 6, 0x123 | 0x40000000ull | (uint64_t)(2 | X86_IF) << 32);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), X86_GP);
    teardown();
    setup_vm86(0);
    f->cpu->cr4 |= X86_CR4_VME;
    fake_put(f, 0xe000, 6, 0x123 | 0x40000000ull | (uint64_t)(2 | X86_TF) << 32);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), X86_GP);
    teardown();
}
END_TEST

/* ---- real mode ---- */

static void setup_real(void)
{
    f = fake_new();
    fake_real(f);
    f->mem[0x40123] = 0xf4;
}

START_TEST(real_mode_branches)
{
    setup_real();
    ck_assert_int_eq(FAKE_EXEC(f, real_jmp), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].base, 0x40000);
    ck_assert_uint_eq(f->cpu->rip, 0x124);
    teardown();
    setup_real();
    f->mem[0xffff0] = 0xf4;
    ck_assert_int_eq(FAKE_EXEC(f, real_jmp_high), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->rip, 0xfff1);
    teardown();
    setup_real();
    ck_assert_int_eq(FAKE_EXEC(f, real_call), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xdffc);
    ck_assert_uint_eq(fake_stack(f, 0, 2), 5);
    ck_assert_uint_eq(fake_stack(f, 1, 2), FAKE_TEXT / 16);
    f->cpu->rip = 0x200;
    fake_load(f, 0x40200, real_ret_begin, real_ret_end);
    f->mem[FAKE_TEXT + 5] = 0xf4;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe002);
    ck_assert_uint_eq(f->cpu->seg[VMM_CS].base, FAKE_TEXT);
    ck_assert_uint_eq(f->cpu->rip, 6);
    teardown();
    setup_real(); /* beyond the limit */
    ck_assert_int_eq(FAKE_EXEC(f, real_jmp32), X86_GP);
    ck_assert_uint_eq(fake_stack(f, 0, 2), 0);
    ck_assert_uint_eq(fake_stack(f, 1, 2), FAKE_TEXT / 16);
    teardown();
}
END_TEST

START_TEST(real_mode_iret)
{
    setup_real();
    fake_put(f, 0xe000, 6, 0x123 | 0x40000000ull | (uint64_t)(0xffff & ~X86_TF) << 32);
    ck_assert_int_eq(FAKE_EXEC(f, real_iret), FAKE_HLT);
    ck_assert_uint_eq(rflags(f), 0x7ed7);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSP], 0xe006);
    teardown();
    setup_real();
    fake_put(f, 0xe000, 4, 0x123);
    fake_put(f, 0xe004, 4, 0x4000);
    fake_put(f, 0xe008, 4, 0xffffffff & ~(X86_TF | X86_RF));
    ck_assert_int_eq(FAKE_EXEC(f, real_iretd), FAKE_HLT);
    ck_assert_uint_eq(rflags(f), 0x7ed7 | X86_AC | X86_ID);
    teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        jumps_between_modes,
        conforming_code_keeps_the_privilege,
        branch_faults,
        calls_push_the_return_address,
        call_gates_of_the_same_privilege,
        call_gates_to_inner_rings_copy_parameters,
        call_gates_in_long_mode,
        call_gate_faults,
        returns_to_outer_rings_drop_segments,
        returns_to_16_bit_stacks_keep_the_upper_half,
        return_faults,
        iretq_restores_everything,
        iretq_faults,
        iret_changes_flags_by_privilege,
        iret_takes_waiting_interrupts,
        iret_single_steps_the_target,
        iret_to_virtual_8086_mode,
        iret_in_virtual_8086_mode,
        real_mode_branches,
        real_mode_iret,
    };

    return RUN_SUITE("far", tests);
}
