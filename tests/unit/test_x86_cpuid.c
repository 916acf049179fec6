/* SPDX-License-Identifier: BSD-2-Clause */
/* test_x86_cpuid.c: the CPUID instruction of the software CPU, and the table that it offers. */
#include "core/x86/control.h"
#include "core/x86/xstate.h"
#include "x86_expect.h"

FAKE_ASM(do_cpuid, 64, "cpuid\n hlt\n");
FAKE_ASM(do_cpuid_32, 32, "cpuid\n hlt\n");

static struct vmm_cpuid table[256];
static unsigned count;

static const struct vmm_cpuid *entry(uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < count; i++)
        if (table[i].leaf == leaf &&
            (!(table[i].flags & VMM_CPUID_SUBLEAF) || table[i].subleaf == subleaf))
            return &table[i];
    return NULL;
}

static int table_cpuid(void *ctx, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct vmm_cpuid *e = entry(leaf, subleaf);

    (void)ctx;
    out[0] = e ? e->eax : 0;
    out[1] = e ? e->ebx : 0;
    out[2] = e ? e->ecx : 0;
    out[3] = e ? e->edx : 0;
    return X86_ENV_OK;
}

/* A CPU with the default table. */
static struct fake *with_table(void)
{
    struct fake *f = fake_new();

    count = x86_default_cpuid(table, 256, 2600000);
    ck_assert_uint_le(count, 256);
    f->env.cpuid = table_cpuid;
    fake_long64(f);
    x86_cpuid_changed(f->cpu, table, count);
    return f;
}

static const uint64_t *query(struct fake *f, uint32_t leaf, uint32_t subleaf)
{
    f->cpu->rip = FAKE_TEXT;
    f->cpu->gpr[VMM_RAX] = 0xffffffff00000000 | leaf;
    f->cpu->gpr[VMM_RCX] = subleaf;
    EXPECT_OK(f, do_cpuid);
    return f->cpu->gpr;
}

START_TEST(cpuid_returns_the_table)
{
    struct fake *f = with_table();
    const uint64_t *r = query(f, 0, 0);

    ck_assert_uint_eq(r[VMM_RAX], 0x16);
    ck_assert_uint_eq(r[VMM_RBX], 0x756e6547);
    ck_assert_uint_eq(r[VMM_RDX], 0x49656e69);
    ck_assert_uint_eq(r[VMM_RCX], 0x6c65746e);
    r = query(f, 0x80000008, 0);
    ck_assert_uint_eq(r[VMM_RAX], 40 | 48 << 8);
    ck_assert_uint_eq(f->cpu->feat.gpa_bits, 40);
    fake_free(f);
}
END_TEST

START_TEST(dynamic_bits)
{
    struct fake *f = with_table();

    f->cpu->id = 5;
    f->cpu->cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    ck_assert_uint_eq(query(f, 1, 0)[VMM_RBX] >> 24, 5);
    ck_assert(!(f->cpu->gpr[VMM_RCX] & X86_F1_ECX_OSXSAVE));
    ck_assert(!(query(f, 7, 0)[VMM_RCX] & X86_F7_ECX_OSPKE));
    f->cpu->cr4 |= X86_CR4_OSXSAVE | X86_CR4_PKE;
    ck_assert(query(f, 1, 0)[VMM_RCX] & X86_F1_ECX_OSXSAVE);
    ck_assert(query(f, 7, 0)[VMM_RCX] & X86_F7_ECX_OSPKE);

    f->cpu->xcr0 = 1;
    ck_assert_uint_eq(query(f, 0xd, 0)[VMM_RBX], 576);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RCX], x86_xstate_size(f->cpu->feat.xcr0_mask));
    f->cpu->xcr0 = 0x203;
    ck_assert_uint_eq(query(f, 0xd, 0)[VMM_RBX], 2696);
    ck_assert_uint_eq(query(f, 0xd, 1)[VMM_RBX], 584);
    ck_assert_uint_eq(query(f, 0xd, 9)[VMM_RAX], 8);
    ck_assert_uint_eq(f->cpu->gpr[VMM_RBX], 2688);

    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(query(f, 0xb, i)[VMM_RDX], 5);
    ck_assert_uint_eq(query(f, 0xb, 1)[VMM_RCX], 0x201);
    fake_free(f);
}
END_TEST

START_TEST(misc_enable_limits_cpuid)
{
    struct fake *f = with_table();

    f->cpu->misc_enable |= X86_MISC_LIMIT_CPUID | X86_MISC_XD_DISABLE;
    ck_assert_uint_eq(query(f, 0, 0)[VMM_RAX], 2);
    ck_assert(!(query(f, 0x80000001, 0)[VMM_RDX] & X86_FX1_EDX_NX));
    fake_free(f);
}
END_TEST

START_TEST(syscall_shows_in_64_bit_mode_only)
{
    struct fake *f = with_table();

    ck_assert(query(f, 0x80000001, 0)[VMM_RDX] & X86_FX1_EDX_SYSCALL);
    fake_prot32(f);
    f->cpu->gpr[VMM_RAX] = 0x80000001;
    EXPECT_OK(f, do_cpuid_32);
    ck_assert(!(f->cpu->gpr[VMM_RDX] & X86_FX1_EDX_SYSCALL));
    ck_assert(f->cpu->gpr[VMM_RDX] & X86_FX1_EDX_LM);
    fake_free(f);
}
END_TEST

START_TEST(cpuid_faulting)
{
    struct fake *f = with_table();

    f->cpu->misc_features = 1;
    query(f, 0, 0); /* the supervisor may */
    fake_user(f);
    f->cpu->rip = FAKE_TEXT;
    EXPECT_FAULT(f, do_cpuid, X86_GP);
    f->cpu->misc_features = 0;
    EXPECT_OK(f, do_cpuid);
    fake_free(f);
}
END_TEST

START_TEST(table_is_coherent)
{
    struct fake *f = with_table();
    const struct vmm_cpuid *l1 = entry(1, 0), *l7 = entry(7, 0), *d0 = entry(0xd, 0);
    uint64_t xcr0 = d0->eax;

    /* No VMX, MONITOR, HLE, RTM, MPX, LA57, CET, AMX; a hypervisor. */
    ck_assert(!(l1->ecx & (1u << 3 | 1u << 5)));
    ck_assert(l1->ecx >> 31);
    ck_assert(!(l7->ebx & (1u << 4 | 1u << 11 | 1u << 14)));
    ck_assert(!(l7->ecx & (1u << 7 | 1u << 16)));
    ck_assert(!(l7->edx & (1u << 20 | 1u << 22 | 1u << 24 | 1u << 25)));
    /* Every state component belongs to a feature and has a subleaf. */
    ck_assert_int_eq(!!(xcr0 & X86_XCR0_AVX), !!(l1->ecx & X86_F1_ECX_AVX));
    ck_assert_int_eq(!!(xcr0 & X86_XCR0_AVX512), !!(l7->ebx & X86_F7_EBX_AVX512F));
    ck_assert_int_eq(!!(xcr0 & X86_XCR0_PKRU), !!(l7->ecx & X86_F7_ECX_PKU));
    ck_assert(x86_xcr0_valid(f->cpu, xcr0));
    for (unsigned i = 2; i < 63; i++)
        if (xcr0 >> i & 1) {
            ck_assert_ptr_nonnull(entry(0xd, i));
            ck_assert_uint_eq(entry(0xd, i)->eax, x86_xcomp[i].size);
        }
    /* Leaf 4 gives the number of APIC ids that leaf 0BH and leaf 1 give. */
    ck_assert_uint_eq((entry(4, 0)->eax >> 26) + 1, 1u << entry(0xb, 1)->eax);
    ck_assert_uint_eq(l1->ebx >> 16 & 0xff, 1u << entry(0xb, 1)->eax);
    ck_assert_uint_eq(entry(4, 4)->eax, 0);
    /* L2 in leaf 4 is that of leaf 80000006H. */
    ck_assert_uint_eq(((entry(4, 2)->ebx >> 22) + 1) * 64 * (entry(4, 2)->ecx + 1) / 1024,
                      entry(0x80000006, 0)->ecx >> 16);
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < i; j++)
            ck_assert(table[i].leaf != table[j].leaf || table[i].subleaf != table[j].subleaf);
    fake_free(f);
}
END_TEST

START_TEST(linux_can_turn_everything_on)
{
    struct fake *f = with_table();

    ck_assert(x86_set_cr4(f->cpu, X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_MCE |
                                      X86_CR4_VME | X86_CR4_TSD | X86_CR4_DE | X86_CR4_OSFXSR |
                                      X86_CR4_OSXMMEXCPT | X86_CR4_UMIP | X86_CR4_FSGSBASE |
                                      X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP |
                                      X86_CR4_SMAP | X86_CR4_PKE));
    ck_assert(x86_set_efer(f->cpu, X86_EFER_SCE | X86_EFER_LME | X86_EFER_NXE));
    fake_free(f);
}
END_TEST

START_TEST(frequencies)
{
    static const uint64_t khz[] = {1000000, 2600000, 2599998, 3187204, 999, 1999999, 4294000};

    for (unsigned i = 0; i < sizeof(khz) / sizeof(khz[0]); i++) {
        const struct vmm_cpuid *e;
        uint64_t got, error;

        count = x86_default_cpuid(table, 256, khz[i]);
        e = entry(0x15, 0);
        ck_assert_uint_ne(e->eax, 0);
        ck_assert_uint_ne(e->ebx, 0);
        /* As guests compute it, in 32 bits. */
        ck_assert_uint_le((uint64_t)(e->ecx / 1000) * e->ebx, UINT32_MAX);
        got = (uint64_t)e->ecx * e->ebx / e->eax; /* Hz */
        error = got > khz[i] * 1000 ? got - khz[i] * 1000 : khz[i] * 1000 - got;
        ck_assert_msg(error * 1000000 / (khz[i] * 1000) <= 1 || khz[i] < 1000000, "%lu kHz: %lu Hz",
                      (unsigned long)khz[i], (unsigned long)got);
        ck_assert_uint_eq(entry(0x40000010, 0)->eax, khz[i]);
        ck_assert_uint_eq(entry(0x16, 0)->eax, (khz[i] + 500) / 1000);
    }
}
END_TEST

START_TEST(small_buffers_are_not_overrun)
{
    struct vmm_cpuid few[3];
    unsigned all = x86_default_cpuid(table, 256, 1000000);

    memset(few, 0xee, sizeof(few));
    ck_assert_uint_eq(x86_default_cpuid(few, 2, 1000000), all);
    ck_assert_uint_eq(few[1].leaf, 1);
    ck_assert_uint_eq(few[2].leaf, 0xeeeeeeee);
}
END_TEST

EXPECT_MAIN("x86_cpuid", cpuid_returns_the_table, dynamic_bits, misc_enable_limits_cpuid,
            syscall_shows_in_64_bit_mode_only, cpuid_faulting, table_is_coherent,
            linux_can_turn_everything_on, frequencies, small_buffers_are_not_overrun)
