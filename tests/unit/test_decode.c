/* SPDX-License-Identifier: BSD-2-Clause */
/* test_decode.c: bytes that are special to the decoder: lengths, prefixes, NOPs, invalid codes. */
#include <check.h>

#include "core/x86/decode.h"
#include "x86_fake.h"

static struct fake *f;

static void setup(void)
{
    f = fake_new();
}

static void teardown(void)
{
    fake_free(f);
}

enum { NOP = -1, UD = X86_UD, GP = X86_GP };

struct row {
    unsigned bits;
    int wanted; /* NOP: goes on behind it; else the exception */
    const char *bytes;
    unsigned n;
};
#define ROW(bits, wanted, bytes)                                                                   \
    {                                                                                              \
        bits, wanted, bytes, sizeof(bytes) - 1                                                     \
    }

static const struct row rows[] = {
    /* Hints and reserved NOPs (SDM Vol. 2, opcode map), with and without prefixes. */
    ROW(64, NOP, "\xf3\x0f\x1e\xfa"),     /* ENDBR64 */
    ROW(32, NOP, "\xf3\x0f\x1e\xfb"),     /* ENDBR32 */
    ROW(64, NOP, "\xf3\x48\x0f\x1e\xc8"), /* RDSSPQ */
    ROW(64, NOP, "\x0f\x18\x00"),
    ROW(64, NOP, "\x0f\x18\x38"),
    ROW(64, NOP, "\x0f\x18\xc0"),
    ROW(64, NOP, "\x0f\x19\xc0"),
    ROW(64, NOP, "\x66\x0f\x1a\x00"),
    ROW(64, NOP, "\xf3\x0f\x1b\x00"),
    ROW(64, NOP, "\xf2\x0f\x1a\xc0"),
    ROW(64, NOP, "\x0f\x1c\x00"),
    ROW(64, NOP, "\x0f\x1d\x00"),
    ROW(64, NOP, "\x0f\x1e\x00"),
    ROW(64, NOP, "\x66\x66\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00"),
    ROW(64, NOP, "\x0f\x0d\x08"),
    ROW(64, NOP, "\x0f\x0d\x10"),
    ROW(64, NOP, "\xf3\x90"),
    ROW(64, NOP, "\x66\x90"),
    ROW(16, NOP, "\x0f\x1f\x00"),
    ROW(32, NOP, "\x66\x67\x90"),
    /* Undefined, or not in this mode. */
    ROW(64, UD, "\x0f\x0b"),
    ROW(64, UD, "\xc4\xc1\x7a\xbd\xce"), /* LZCNT with VEX */
    ROW(64, UD, "\x0f\xb9\xc0"),
    ROW(64, UD, "\x0f\xff\xc0"),
    ROW(64, UD, "\x06"),
    ROW(64, UD, "\x27"),
    ROW(64, UD, "\x37"),
    ROW(64, UD, "\x60"),
    ROW(64, UD, "\x82\xc0\x01"),
    ROW(64, UD, "\x9a\x00\x00\x00\x00\x00\x00"),
    ROW(64, UD, "\xea\x00\x00\x00\x00\x00\x00"),
    ROW(64, UD, "\xce"),
    ROW(64, UD, "\xd4\x0a"),
    ROW(64, UD, "\x0f\xaa"), /* RSM outside of SMM */
    ROW(64, UD, "\x0f\x37"), /* GETSEC */
    ROW(64, UD, "\x8e\xc8"), /* MOV CS */
    ROW(64, UD, "\x0f\x20\xc8"),
    ROW(64, UD, "\x0f\xb8\xc1"),
    ROW(32, UD, "\x0f\x3f"),
    ROW(32, UD, "\x0f\xa6\xc0"),
    ROW(16, UD, "\xc5\xf8\x77"), /* VZEROUPPER: no VEX in real mode */
    ROW(16, UD, "\x0f\x00\xc0"), /* SLDT in real mode */
    ROW(16, UD, "\x63\xc1"),     /* ARPL in real mode */
    /* LOCK where it does not belong. */
    ROW(64, UD, "\xf0\x90"),
    ROW(64, UD, "\xf0\x01\xc0"),
    ROW(64, UD, "\xf0\x0f\xa3\x00"),
    ROW(64, UD, "\xf0\x39\x00"),
    ROW(64, UD, "\xf0\x8b\x00"),
    ROW(64, UD, "\xf0\x0f\x20\xc0"),
    /* 15 bytes are the limit. */
    ROW(64, NOP, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
    ROW(64, GP, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
    ROW(16, GP, "\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x2e\x90"),
    /* The operand size prefix does not change near branches in 64-bit mode. */
    ROW(64, NOP, "\x66\xe9\x00\x00\x00\x00"),
    ROW(64, NOP, "\x66\xeb\x00"),
    ROW(64, NOP, "\x66\x0f\x84\x00\x00\x00\x00"),
};

static void mode(unsigned bits)
{
    if (bits == 16)
        fake_real(f);
    else if (bits == 32)
        fake_prot32(f);
    else
        fake_long64(f);
}

START_TEST(row)
{
    const struct row *r = &rows[_i];
    const uint8_t *bytes = (const uint8_t *)r->bytes;
    uint64_t at;

    mode(r->bits);
    f->cpu->gpr[VMM_RAX] = FAKE_DATA;
    f->cpu->gpr[VMM_RBX] = f->cpu->gpr[VMM_RSI] = 0x400;
    at = f->cpu->seg[VMM_CS].base + f->cpu->rip;
    memset(f->mem + at, 0xf4, 32);
    ck_assert_int_eq(fake_exec(f, bytes, bytes + r->n), r->wanted);
    if (r->wanted == NOP) {
        ck_assert_uint_eq(f->cpu->seg[VMM_CS].base + f->cpu->rip, at + r->n + 1);
        ck_assert_uint_eq(f->done, 2);
    }
    /* The same across a page boundary, at each place. */
    for (unsigned i = 1; i < r->n && r->wanted == NOP; i++) {
        mode(r->bits);
        f->cpu->gpr[VMM_RAX] = FAKE_DATA;
        f->cpu->rip += 4096 - i;
        at = f->cpu->seg[VMM_CS].base + f->cpu->rip;
        memset(f->mem + at, 0xf4, 32);
        ck_assert_int_eq(fake_exec(f, bytes, bytes + r->n), r->wanted);
        ck_assert_uint_eq(f->cpu->seg[VMM_CS].base + f->cpu->rip, at + r->n + 1);
    }
}
END_TEST

/* ---- operands ---- */

FAKE_ASM(addresses, 64,
         "lea 8(%rax,%rbx,4), %rcx\n"
         "lea -1(%rip), %rdx\n"
         "lea 0x7fffffff(%rip), %r8\n"
         "lea -0x80000000(%rip), %r9\n"
         "lea (,%r12,8), %r10\n"
         "lea (%eax,%ebx), %r11d\n"
         "lea 0x10(%rsp), %rsi\n"
         "lea (%r13), %rdi\n"
         "hlt\n");

START_TEST(effective_addresses)
{
    fake_long64(f);
    f->cpu->gpr[VMM_RAX] = 0xffffffff12345678;
    f->cpu->gpr[VMM_RBX] = 0x1000;
    f->cpu->gpr[VMM_R12] = 3;
    f->cpu->gpr[VMM_R13] = 0x1234;
    ck_assert_int_eq(FAKE_EXEC(f, addresses), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0xffffffff12345678 + 0x4000 + 8);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX], FAKE_TEXT + 5 + 7 - 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R8], FAKE_TEXT + 12 + 7 + 0x7fffffff);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R9], FAKE_TEXT + 19 + 7 - 0x80000000ull);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R10], 24);
    ck_assert_uint_eq(f->cpu->gpr[VMM_R11], 0x12346678);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RSI], FAKE_STACK + 0x10);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], 0x1234);
}
END_TEST

FAKE_ASM(bytes64, 64,
         "mov %ah, %bl\n"
         "mov %al, %bh\n"
         "mov %spl, %cl\n"
         "mov %r15b, %dl\n"
         "mov %cl, %dil\n"
         "hlt\n");

START_TEST(byte_registers)
{
    fake_long64(f);
    f->cpu->gpr[VMM_RAX] = 0x1122;
    f->cpu->gpr[VMM_RSP] = 0x33;
    f->cpu->gpr[VMM_R15] = 0x44;
    ck_assert_int_eq(FAKE_EXEC(f, bytes64), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 0x2211);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x33);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDX] & 0xff, 0x44);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RDI], 0x33);
}
END_TEST

/* 16-bit addressing forms: the sum wraps at 64 KiB, BP uses SS. */
FAKE_ASM(addr16, 16,
         "mov 2(%bx,%si), %al\n"
         "mov (%bp,%di), %ah\n"
         "mov %ds:(%bp), %cl\n"
         "mov 0x1234, %ch\n"
         "hlt\n");

START_TEST(addressing_16)
{
    fake_real(f);
    fake_seg(f, VMM_SS, 0x4000, 0x40000, 0xffff, FAKE_AR_DATA);
    x86_mode_changed(f->cpu);
    f->cpu->gpr[VMM_RBX] = 0xfff0;
    f->cpu->gpr[VMM_RSI] = 0x510;
    f->cpu->gpr[VMM_RBP] = 0x600;
    f->cpu->gpr[VMM_RDI] = 0x20;
    f->mem[0x502] = 1;
    f->mem[0x40620] = 2;
    f->mem[0x600] = 3;
    f->mem[0x1234] = 4;
    ck_assert_int_eq(FAKE_EXEC(f, addr16), FAKE_HLT);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 0x0201);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 0x0403);
}
END_TEST

/* 64-bit mode: FS and GS have bases, other overrides mean nothing; the default of RSP and RBP is
 * SS, which tells in the exception for non-canonical addresses. */
FAKE_ASM(segments64, 64,
         "mov %fs:(%rsi), %al\n"
         "mov %gs:8(%rsi), %bl\n"
         ".byte 0x2e\n mov (%rsi), %cl\n"
         "mov (%rbp), %dl\n");

START_TEST(segments_64)
{
    fake_long64(f);
    f->cpu->seg[VMM_FS].base = FAKE_DATA;
    f->cpu->seg[VMM_GS].base = FAKE_DATA + 0x100;
    f->cpu->gpr[VMM_RSI] = 0x30000;
    f->cpu->gpr[VMM_RBP] = 1ull << 63;
    f->mem[FAKE_DATA + 0x30000] = 1;
    f->mem[FAKE_DATA + 0x30108] = 2;
    f->mem[0x30000] = 3;
    ck_assert_int_eq(FAKE_EXEC(f, segments64), X86_SS);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 1);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 2);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], 3);
}
END_TEST

/* Empty TLB entries match nothing, not even the first and the last addresses. */
FAKE_ASM(ends, 64, "mov (%rsi), %al\n mov -1(%rbx), %cl\n hlt\n");

START_TEST(ends_of_the_address_space)
{
    fake_long64(f);
    f->mem[0] = 7;
    ck_assert_int_eq(FAKE_EXEC(f, ends), X86_PF_);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RAX], 7);
    ck_assert_uint_eq(f->cpu->cr2, UINT64_MAX);
}
END_TEST

/* Any bytes: decoding ends, and with it a length of 1 to 15. */
START_TEST(random_bytes)
{
    static const uint32_t modes[] = {
        X86_MODE_CODE16, X86_MODE_CODE16 | X86_MODE_PE, X86_MODE_CODE32 | X86_MODE_PE,
        X86_MODE_CODE32 | X86_MODE_PE | X86_MODE_FLAT | X86_MODE_STACK32,
        X86_MODE_CODE64 | X86_MODE_PE};
    uint64_t seed = 88172645463325252ull;
    uint8_t bytes[16];

    fake_long64(f);
    for (unsigned i = 0; i < 200000; i++) {
        struct x86_op op = {0};
        bool end = false;
        unsigned len;

        for (unsigned k = 0; k < 16; k++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            bytes[k] = (uint8_t)(seed >> 24);
        }
        if (i & 1)
            bytes[0] = 0x0f;
        len = x86_decode(f->cpu, modes[i % 5], bytes, 15, &op, &end);
        ck_assert_uint_ge(len, 1);
        ck_assert_uint_le(len, 15);
        ck_assert_uint_eq(op.len, len);
        ck_assert_ptr_nonnull(op.fn);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("decode");
    TCase *t = tcase_create("decode");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, row, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, effective_addresses);
    tcase_add_test(t, byte_registers);
    tcase_add_test(t, addressing_16);
    tcase_add_test(t, segments_64);
    tcase_add_test(t, ends_of_the_address_space);
    tcase_add_test(t, random_bytes);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
