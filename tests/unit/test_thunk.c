/* SPDX-License-Identifier: BSD-2-Clause */
/* test_thunk.c: vector and x87 instructions in running guests: what must be enabled, faults, other
 * modes, devices as operands, and the bounded memory for thunks. */
#define _GNU_SOURCE
#include <check.h>
#include <signal.h>

#include "native.h"

static struct fake *f;
static struct x86_cpu *cpu;

static void setup(void)
{
    f = fake_new();
    cpu = f->cpu;
    fake_long64(f);
    cpu->fpu.fcw = 0x37f;
    cpu->fpu.ftw = 0;
    cpu->gpr[VMM_RBX] = FAKE_DATA;
}

static void teardown(void)
{
    fake_free(f);
}

static bool host_has(unsigned leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];

    __cpuid_count(leaf, 0, r[0], r[1], r[2], r[3]);
    return r[reg] >> bit & 1;
}

static bool host_avx(void)
{
    return (native_xcr0() & 6) == 6;
}

static bool host_avx512(void)
{
    return (native_xcr0() & 0xe6) == 0xe6 && host_has(7, 1, 30) && host_has(7, 1, 31);
}

/* ---- what must be enabled ---- */

FAKE_ASM(paddb, 64, "paddb %xmm1, %xmm0\n hlt");
FAKE_ASM(movaps, 64, "movaps %xmm1, %xmm0\n hlt");
FAKE_ASM(paddb_mmx, 64, "paddb %mm1, %mm0\n hlt");
FAKE_ASM(vpaddb, 64, "vpaddb %xmm1, %xmm2, %xmm0\n hlt");
FAKE_ASM(vmovdqa, 64, "vmovdqa %ymm1, %ymm0\n hlt");
FAKE_ASM(vpaddb512, 64, "vpaddb %zmm1, %zmm2, %zmm0\n hlt");
FAKE_ASM(kandw, 64, "kandw %k1, %k2, %k0\n hlt");
FAKE_ASM(fld1, 64, "fld1\n hlt");
FAKE_ASM(fnop_wait, 64, "fwait\n hlt");
FAKE_ASM(fnstsw, 64, "fnstsw %ax\n hlt");

#define ENDS(name, vector)                                                                         \
    do {                                                                                           \
        cpu->rip = FAKE_TEXT;                                                                      \
        ck_assert_int_eq(FAKE_EXEC(f, name), vector);                                              \
    } while (0)

START_TEST(task_switched_raises_nm)
{
    cpu->cr0 |= X86_CR0_TS;
    ENDS(paddb, X86_NM);
    ENDS(movaps, X86_NM);
    ENDS(paddb_mmx, X86_NM);
    ENDS(fld1, X86_NM);
    ENDS(fnop_wait, X86_NM);
    ENDS(fnstsw, X86_NM);
    if (host_avx()) {
        ENDS(vpaddb, X86_NM);
        ENDS(vmovdqa, X86_NM);
    }
    if (host_avx512()) {
        ENDS(vpaddb512, X86_NM);
        ENDS(kandw, X86_NM);
    }
    cpu->cr0 &= ~(uint64_t)X86_CR0_MP;
    ENDS(fnop_wait, FAKE_HLT);
}
END_TEST

START_TEST(emulation_flag)
{
    cpu->cr0 |= X86_CR0_EM;
    ENDS(paddb, X86_UD);
    ENDS(movaps, X86_UD);
    ENDS(paddb_mmx, X86_UD);
    ENDS(fld1, X86_NM);
    ENDS(fnop_wait, FAKE_HLT);
    if (host_avx())
        ENDS(vpaddb, FAKE_HLT);
}
END_TEST

START_TEST(sse_needs_osfxsr)
{
    cpu->cr4 &= ~(uint64_t)X86_CR4_OSFXSR;
    ENDS(paddb, X86_UD);
    ENDS(movaps, X86_UD);
    ENDS(paddb_mmx, FAKE_HLT);
}
END_TEST

START_TEST(avx_needs_osxsave_and_xcr0)
{
    if (!host_avx())
        return;
    ENDS(vpaddb, FAKE_HLT);
    cpu->xcr0 = 3;
    ENDS(vpaddb, X86_UD);
    ENDS(vmovdqa, X86_UD);
    cpu->xcr0 = 7;
    ENDS(vpaddb, FAKE_HLT);
    if (host_avx512()) {
        ENDS(vpaddb512, X86_UD);
        ENDS(kandw, X86_UD);
        cpu->xcr0 = 0xe7;
        ENDS(vpaddb512, FAKE_HLT);
    }
    cpu->cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    ENDS(vpaddb, X86_UD);
}
END_TEST

START_TEST(cpuid_decides)
{
    cpu->feat.l1_edx &= ~(1u << 26);
    ENDS(paddb, X86_UD);
    cpu->feat.l1_edx |= 1u << 26;
    cpu->feat.l1_ecx &= ~(1u << 28);
    ENDS(vpaddb, X86_UD);
    cpu->feat.l7_ebx &= ~(1u << 16);
    ENDS(vpaddb512, X86_UD);
    ENDS(kandw, X86_UD);
    cpu->feat.l1_edx &= ~1u;
    ENDS(fld1, X86_UD);
}
END_TEST

/* ---- exceptions ---- */

FAKE_ASM(divps, 64, "divps %xmm1, %xmm0\n hlt");

START_TEST(unmasked_exception)
{
    static const float one[4] = {1, 1, 1, 1}, zero[4] = {1, 0, 1, 1};
    uint8_t old[16];

    memcpy(cpu->fpu.vec[0], one, 16);
    memcpy(cpu->fpu.vec[1], zero, 16);
    memcpy(old, cpu->fpu.vec[0], 16);
    cpu->fpu.mxcsr = 0x1f80 & ~0x200u;
    ENDS(divps, X86_XM);
    ck_assert_uint_eq(cpu->fpu.mxcsr, (0x1f80 & ~0x200u) | 4);
    ck_assert_mem_eq(cpu->fpu.vec[0], old, 16);
    ck_assert_uint_eq(fake_stack(f, 0, 8), FAKE_TEXT);
    cpu->cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    ENDS(divps, X86_UD);
    cpu->fpu.mxcsr = 0x1f80;
    ENDS(divps, FAKE_HLT);
    ck_assert_uint_eq(cpu->fpu.mxcsr, 0x1f84);
}
END_TEST

FAKE_ASM(x87_divide, 64,
         "fninit\n fldcw (%rbx)\n fld1\n fldz\n fdivrp %st, %st(1)\n nop\n fwait\n hlt");

/* The exception comes with the next waiting instruction. */
START_TEST(x87_exception_waits)
{
    fake_put(f, FAKE_DATA, 2, 0x37b);
    ENDS(x87_divide, X86_MF);
    ck_assert_uint_eq(fake_stack(f, 0, 8),
                      FAKE_TEXT + (uint64_t)(x87_divide_end - x87_divide_begin) - 2);
    ck_assert_uint_eq(cpu->fpu.fsw & 0x80bf, 0x8084);
    cpu->cr0 &= ~(uint64_t)X86_CR0_NE;
    ENDS(x87_divide, FAKE_HLT);
}
END_TEST

FAKE_ASM(addps_mem, 64, "addps (%rbx), %xmm0\n hlt");
FAKE_ASM(movups_mem, 64, "movups (%rbx), %xmm0\n hlt");
FAKE_ASM(movaps_store, 64, "movaps %xmm0, (%rbx)\n hlt");

START_TEST(memory_faults)
{
    cpu->gpr[VMM_RBX] = FAKE_DATA + 4;
    ENDS(addps_mem, X86_GP);
    ENDS(movaps_store, X86_GP);
    ENDS(movups_mem, FAKE_HLT);
    cpu->gpr[VMM_RBX] = 1ull << 47;
    ENDS(addps_mem, X86_GP);
    ENDS(movups_mem, X86_GP);
    fake_put(f, FAKE_PT + (FAKE_DATA / 4096 + 1) * 8, 8, 0);
    x86_flush_tlb(cpu);
    cpu->gpr[VMM_RBX] = FAKE_DATA + 4096 - 8;
    memset(cpu->fpu.vec[0], 0x5a, 16);
    ENDS(movups_mem, X86_PF_);
    ck_assert_uint_eq(cpu->cr2, FAKE_DATA + 4096);
    ck_assert_uint_eq(cpu->fpu.vec[0][0], 0x5a);
    cpu->gpr[VMM_RBX] = FAKE_DATA + 4096;
    ENDS(addps_mem, X86_PF_);
    ENDS(movaps_store, X86_PF_);
}
END_TEST

FAKE_ASM(masked, 64, "vmovdqu32 (%rbx), %zmm0{%k1}{z}\n vmovdqu32 %zmm0, (%rbx){%k1}\n hlt");

START_TEST(masked_elements_do_not_fault)
{
    if (!host_avx512())
        return;
    fake_put(f, FAKE_PT + (FAKE_DATA / 4096 + 1) * 8, 8, 0);
    x86_flush_tlb(cpu);
    cpu->gpr[VMM_RBX] = FAKE_DATA + 4096 - 12;
    fake_put(f, FAKE_DATA + 4096 - 12, 8, 0x0000000200000001);
    fake_put(f, FAKE_DATA + 4096 - 4, 4, 3);
    cpu->fpu.k[1] = 5;
    ENDS(masked, FAKE_HLT);
    ck_assert_uint_eq(cpu->fpu.vec[0][0] | cpu->fpu.vec[0][4] << 8 | cpu->fpu.vec[0][8] << 16,
                      0x30001);
    cpu->fpu.k[1] = 9;
    ENDS(masked, X86_PF_);
}
END_TEST

FAKE_ASM(gather, 64, "vpgatherdd %ymm2, (%rbx,%ymm1,4), %ymm0\n hlt");

/* What was loaded before the fault is not loaded again. */
START_TEST(gather_goes_on_after_a_fault)
{
    if (!host_avx() || !host_has(7, 1, 5))
        return;
    fake_put(f, FAKE_PT + (FAKE_DATA / 4096 + 1) * 8, 8, 0);
    x86_flush_tlb(cpu);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t index = i < 5 ? i : 1024 + i;

        memcpy(cpu->fpu.vec[1] + 4 * i, &index, 4);
        fake_put(f, FAKE_DATA + 4 * index, 4, 0x100 + i);
    }
    memset(cpu->fpu.vec[2], 0xff, 32);
    ENDS(gather, X86_PF_);
    ck_assert_uint_eq(cpu->cr2, FAKE_DATA + 4 * 1029);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(cpu->fpu.vec[2][4 * i], i < 5 ? 0 : 0xff);
    ck_assert_uint_eq(cpu->fpu.vec[0][16], 4);
    fake_put(f, FAKE_DATA, 4, 0xdead);
    fake_put(f, FAKE_PT + (FAKE_DATA / 4096 + 1) * 8, 8, (FAKE_DATA + 4096) | 7);
    x86_flush_tlb(cpu);
    ENDS(gather, FAKE_HLT);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(cpu->fpu.vec[0][4 * i], i);
}
END_TEST

/* ---- devices ---- */

FAKE_ASM(mmio, 64, "paddd (%rbx), %xmm0\n movups %xmm0, (%rbx)\n hlt");

START_TEST(operands_may_be_devices)
{
    cpu->gpr[VMM_RBX] = FAKE_MMIO;
    f->input = 0x0000000200000001;
    memset(cpu->fpu.vec[0], 0, 16);
    ENDS(mmio, FAKE_HLT);
    ck_assert_uint_eq(f->nlog, 4);
    ck_assert_uint_eq(f->log[3].value, 0x0000000200000001);
    ck_assert_uint_eq(f->log[3].addr, FAKE_MMIO + 8);
}
END_TEST

START_TEST(abort_has_no_effect)
{
    cpu->gpr[VMM_RBX] = FAKE_MMIO;
    f->input = 0x0000000200000001;
    f->abort_in = 2;
    memset(cpu->fpu.vec[0], 0, 16);
    ENDS(mmio, FAKE_ABORTED);
    ck_assert_uint_eq(cpu->fpu.vec[0][0], 0);
    ck_assert_uint_eq(cpu->rip, FAKE_TEXT);
}
END_TEST

/* ---- other modes ---- */

FAKE_ASM(sse32, 32, "movdqa (%ebx), %xmm0\n paddd %xmm0, %xmm0\n movd %xmm0, %eax\n hlt");
FAKE_ASM(vex32, 32, ".byte 0xc4,0xe3,0xf9,0x16,0xc0,0x01\n hlt"); /* VPEXTRQ: is VPEXTRD here */
FAKE_ASM(sse16, 16, "movdqa (%bx), %xmm0\n paddd %xmm0, %xmm0\n movd %xmm0, %eax\n hlt");
FAKE_ASM(vex16, 16, "vpaddd %xmm0, %xmm0, %xmm0\n hlt");
FAKE_ASM(env16, 16, "fninit\n fld1\n flds 6(%bx)\n fnstenv (%bx)\n fnsave 0x40(%bx)\n hlt");
FAKE_ASM(env32, 32, "fninit\n fld1\n fadds (%ebx)\n fnstenv (%ebx)\n fldenv (%ebx)\n hlt");

START_TEST(protected_mode)
{
    fake_prot32(f);
    cpu->feat.l7_ebx &= ~(1u << 6 | 1u << 13); /* pointers as of old */
    cpu->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
    cpu->xcr0 = 7;
    cpu->gpr[VMM_RBX] = FAKE_DATA;
    fake_put(f, FAKE_DATA, 8, 0x1122334400000021);
    ENDS(sse32, FAKE_HLT);
    ck_assert_uint_eq(cpu->gpr[VMM_RAX], 0x42);
    if (host_avx()) {
        ENDS(vex32, FAKE_HLT);
        ck_assert_uint_eq(cpu->gpr[VMM_RAX], 0x22446688);
    }
    fake_put(f, FAKE_DATA, 4, 0x3f800000);
    ENDS(env32, FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA, 4), 0xffff037f);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 4, 4), 0xffff3800);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 8, 4), 0xffff3fff);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 12, 4), FAKE_TEXT + 4);
    ck_assert_uint_eq(fake_get(f, FAKE_DATA + 20, 4), FAKE_DATA);
    ck_assert_uint_eq(cpu->fpu.fsw, 0x3800);
    ck_assert_uint_eq(cpu->fpu.ftw, 0x80);
}
END_TEST

START_TEST(real_mode)
{
    fake_real(f);
    cpu->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
    cpu->xcr0 = 7;
    cpu->gpr[VMM_RBX] = 0x8000;
    fake_put(f, 0x8000, 4, 0x21);
    cpu->rip = 0;
    ck_assert_int_eq(FAKE_EXEC(f, sse16), FAKE_HLT);
    ck_assert_uint_eq(cpu->gpr[VMM_RAX], 0x42);
    cpu->rip = 0;
    ck_assert_int_eq(FAKE_EXEC(f, vex16), X86_UD);
    fake_real(f);
    cpu->gpr[VMM_RBX] = 0x8000;
    cpu->seg[VMM_DS].selector = 0x400;
    cpu->seg[VMM_DS].base = 0x4000;
    ck_assert_int_eq(FAKE_EXEC(f, env16), FAKE_HLT);
    ck_assert_uint_eq(fake_get(f, 0xc000, 2), 0x37f);
    ck_assert_uint_eq(fake_get(f, 0xc002, 2) & 0x3800, 0x3000);
}
END_TEST

/* ---- bounds ---- */

/* More different instructions than there is room for thunks, again and again. */
START_TEST(thunks_are_bounded)
{
    static const unsigned n = 6000;
    uint8_t code[8] = {0x66, 0x0f, 0x3a, 0x0f, 0xc1, 0, 0xf4};

    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < n; i++) {
            for (unsigned b = 0; b < 16; b++) {
                cpu->fpu.vec[0][b] = (uint8_t)(b + 16);
                cpu->fpu.vec[1][b] = (uint8_t)b;
            }
            code[1] = 0x0f;
            code[4] = (uint8_t)(0xc1 + (i / 256 % 3) * 8); /* PALIGNR to XMM0-2 */
            code[5] = (uint8_t)i;
            memcpy(cpu->fpu.vec[2], cpu->fpu.vec[0], 16);
            cpu->rip = FAKE_TEXT + i * 8;
            ck_assert_int_eq(fake_exec(f, code, code + 7), FAKE_HLT);
            if (i / 256 % 3 == 0)
                ck_assert_uint_eq(cpu->fpu.vec[0][0], (i & 255) < 32 ? (i & 255) : 0);
        }
}
END_TEST

/* The same ops are run again after their forms were dropped. */
START_TEST(dropped_thunks_are_made_again)
{
    uint8_t code[8] = {0x66, 0x0f, 0xfc, 0xc1, 0xf4};

    memset(cpu->fpu.vec[0], 0, 16);
    memset(cpu->fpu.vec[1], 1, 16);
    ck_assert_int_eq(fake_exec(f, code, code + 5), FAKE_HLT);
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t other[8] = {0x66, 0x0f, 0x3a, 0x0f, 0, (uint8_t)i, 0xf4};

        other[4] = (uint8_t)(0xd3 + (i / 256 % 5) * 8); /* XMM2 on */
        other[4] |= (uint8_t)(i / 1280 % 4);
        cpu->rip = FAKE_TEXT + 0x1000;
        ck_assert_int_eq(fake_exec(f, other, other + 7), FAKE_HLT);
    }
    cpu->rip = FAKE_TEXT;
    ck_assert_int_eq(fake_go(f), FAKE_HLT);
    ck_assert_uint_eq(cpu->fpu.vec[0][7], 2);
}
END_TEST

/* ---- hostile code ---- */

/* Whatever the bytes are, the host executes nothing that faults or changes its own state. */
START_TEST(random_bytes_are_harmless)
{
    static struct native_state s;
    static const uint8_t heads[][4] = {{0x0f}, {0x66, 0x0f}, {0xf3, 0x0f}, {0xf2, 0x0f},
                                       {0xc5}, {0xc4},       {0x62},       {0xd9},
                                       {0xdb}, {0x48, 0x0f}};
    static const unsigned lens[] = {1, 2, 2, 2, 1, 1, 1, 1, 1, 2};
    unsigned executed = 0;

    for (unsigned mode = 0; mode < 3; mode++) {
        if (mode == 0)
            fake_long64(f);
        else if (mode == 1)
            fake_prot32(f);
        else
            fake_prot16(f);
        cpu->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
        cpu->xcr0 = 0xe7;
        for (unsigned i = 0; i < native_count(60000); i++) {
            unsigned h = rnd() % 10;
            uint8_t code[16], *p = (uint8_t *)&s;
            struct x86_op op = {0};

            for (unsigned b = 0; b < 16; b++)
                code[b] = (uint8_t)rnd();
            memcpy(code, heads[h], lens[h]);
            if (h == 5 && rnd() % 2)
                code[1] = (uint8_t)((code[1] & 0xe0) | (1 + rnd() % 3));
            if (h == 6)
                code[1] = (uint8_t)((code[1] & 0xf0) | (1 + rnd() % 3)), code[2] |= 4;
            ZydisDecoder z;
            ZydisDecodedOperand opnd[ZYDIS_MAX_OPERAND_COUNT];
            ZydisDecoderInit(&z,
                             mode == 0   ? ZYDIS_MACHINE_MODE_LONG_64
                             : mode == 1 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                         : ZYDIS_MACHINE_MODE_LEGACY_16,
                             mode == 0   ? ZYDIS_STACK_WIDTH_64
                             : mode == 1 ? ZYDIS_STACK_WIDTH_32
                                         : ZYDIS_STACK_WIDTH_16);
            if (ZYAN_FAILED(ZydisDecoderDecodeFull(&z, code, 15, &native_insn, opnd)))
                continue;
            struct x86_dec d = {.cpu = cpu, .mode = cpu->mode, .code = code, .insn = native_insn};
            memcpy(d.opnd, opnd, sizeof(opnd));
            op.len = native_insn.length;
            if (!x86_dec_vec(&d, &op))
                continue;
            for (unsigned b = 0; b < sizeof(s); b++)
                p[b] = (uint8_t)rnd();
            native_emulate(f, &s, code, native_insn.length);
            executed++;
        }
    }
    ck_assert_uint_ge(executed, native_count(60000) / 4);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("thunk");
    TCase *t = tcase_create("thunk");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, task_switched_raises_nm);
    tcase_add_test(t, emulation_flag);
    tcase_add_test(t, sse_needs_osfxsr);
    tcase_add_test(t, avx_needs_osxsave_and_xcr0);
    tcase_add_test(t, cpuid_decides);
    tcase_add_test(t, unmasked_exception);
    tcase_add_test(t, x87_exception_waits);
    tcase_add_test(t, memory_faults);
    tcase_add_test(t, masked_elements_do_not_fault);
    tcase_add_test(t, gather_goes_on_after_a_fault);
    tcase_add_test(t, operands_may_be_devices);
    tcase_add_test(t, abort_has_no_effect);
    tcase_add_test(t, protected_mode);
    tcase_add_test(t, real_mode);
    tcase_add_test(t, thunks_are_bounded);
    tcase_add_test(t, dropped_thunks_are_made_again);
    tcase_add_test(t, random_bytes_are_harmless);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
