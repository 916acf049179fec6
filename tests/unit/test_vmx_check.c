/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_check.c: the entry checks in software: a good state passes on every model, and each
 * field that is made bad is named. */
#include <check.h>

#include "vmx/check.h"
#include "vmx_fake.h"

#define PHYS_BITS 36

static char why[200];
static struct vmx_machine m;
static struct vmx_vmcs vmcs;

static void put(uint32_t field, uint64_t value)
{
    ck_assert_int_eq(vmx_insn_write(field, value), VMX_OK);
}

static void put_segment(unsigned n, uint16_t selector, uint32_t limit, uint32_t ar)
{
    put(VMX_SEG(VMX_GUEST_ES_SEL, n), selector);
    put(VMX_SEG(VMX_GUEST_ES_BASE, n), 0);
    put(VMX_SEG(VMX_GUEST_ES_LIMIT, n), limit);
    put(VMX_SEG(VMX_GUEST_ES_AR, n), ar);
}

static bool has(enum vmx_group g, int bit)
{
    return vmx_may_be_1(&m.caps, g) & (uint32_t)bit;
}

static void put_controls(void)
{
    static const struct vmx_wish wish = {
        .required = {[VMX_GROUP_PIN] = VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI,
                     [VMX_GROUP_PROC] = VMX_PROC_MSR_BITMAPS | VMX_PROC_IO_BITMAPS,
                     [VMX_GROUP_EXIT] = VMX_EXITC_HOST_64,
                     [VMX_GROUP_ENTRY] = VMX_ENTRY_GUEST_64 | VMX_ENTRY_LOAD_DEBUG},
        .wanted = {[VMX_GROUP_PIN] = VMX_PIN_VIRTUAL_NMIS,
                   [VMX_GROUP_PROC2] =
                       VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST | VMX_PROC2_VPID,
                   [VMX_GROUP_EXIT] = VMX_EXITC_LOAD_EFER | VMX_EXITC_LOAD_PAT,
                   [VMX_GROUP_ENTRY] = VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_PAT}};
    static const uint32_t fields[VMX_NGROUPS] = {VMX_PIN_CTLS, VMX_PROC_CTLS, VMX_PROC2_CTLS,
                                                 VMX_EXIT_CTLS, VMX_ENTRY_CTLS};
    struct vmx_controls c;

    ck_assert_int_eq(vmx_negotiate(&m.caps, &wish, &c, why, sizeof(why)), 0);
    for (unsigned g = 0; g < VMX_NGROUPS; g++)
        put(fields[g], c.value[g]);
    put(VMX_VPID, 1);
    put(VMX_EPTP, 0x1000 | 3 << 3 | 6);
    put(VMX_MSR_BITMAP, 0x2000);
    put(VMX_IO_BITMAP_A, 0x3000);
    put(VMX_IO_BITMAP_B, 0x4000);
}

static void put_host(void)
{
    put(VMX_HOST_CR0, 0x80050033);
    put(VMX_HOST_CR3, 0x5000);
    put(VMX_HOST_CR4, 0x2620);
    put(VMX_HOST_EFER, 0x500);
    put(VMX_HOST_PAT, 0x0007040600070406);
    put(VMX_HOST_CS_SEL, 8);
    put(VMX_HOST_SS_SEL, 16);
    put(VMX_HOST_TR_SEL, 0x18);
    put(VMX_HOST_RIP, 0xffffffff80001000);
}

/* Long mode. */
static void put_guest(void)
{
    put(VMX_GUEST_CR0, 0x80000031);
    put(VMX_GUEST_CR4, 0x2020);
    put(VMX_GUEST_CR3, 0x10000);
    put(VMX_GUEST_EFER, 0x500);
    put(VMX_GUEST_PAT, 0x0007040600070406);
    put(VMX_GUEST_DR7, 0x400);
    put(VMX_GUEST_RFLAGS, 2);
    put(VMX_GUEST_RIP, 0x1000);
    for (unsigned n = 0; n < 6; n++)
        put_segment(n, 0x10, 0xffffffff, 0xc093);
    put_segment(1, 8, 0xffffffff, 0xa09b);
    put_segment(6, 0, 0, 0x10000);
    put_segment(7, 0x18, 0x67, 0x8b);
    put(VMX_LINK_POINTER, UINT64_MAX);
}

static void setup(const struct fake_model *model)
{
    fake_reset(model, &m);
    fake.preempt = 1;
    ck_assert_int_eq(vmx_caps_read(&m.caps, m.host, why, sizeof(why)), 0);
    ck_assert_int_eq(vmx_machine_on(&m, why, sizeof(why)), 0);
    ck_assert_int_eq(vmx_vmcs_create(&m, &vmcs), 0);
    ck_assert(vmx_vmcs_load(&m, &vmcs));
    put_controls();
    put_host();
    put_guest();
}

static void teardown(void)
{
    vmx_vmcs_destroy(&m, &vmcs);
    vmx_machine_off(&m);
}

START_TEST(good_states)
{
    setup(&fake_models[_i]);
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    /* Halted, with an interrupt injected. */
    put(VMX_GUEST_ACTIVITY, 1);
    put(VMX_GUEST_RFLAGS, 0x202);
    put(VMX_ENTRY_INTR_INFO, 0x80000050);
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    put(VMX_GUEST_ACTIVITY, 0);
    put(VMX_ENTRY_INTR_INFO, 0x80000b0e);
    put(VMX_ENTRY_INTR_ERROR, 2);
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    put(VMX_ENTRY_INTR_INFO, 0);
    /* Virtual-8086 mode. */
    put(VMX_ENTRY_CTLS, vmx_insn_read(VMX_ENTRY_CTLS) & ~(uint64_t)VMX_ENTRY_GUEST_64);
    put(VMX_GUEST_EFER, 0);
    put(VMX_GUEST_RFLAGS, 0x20002);
    put(VMX_GUEST_CR4, 0x2000);
    for (unsigned n = 0; n < 6; n++) {
        put_segment(n, 0x100, 0xffff, 0xf3);
        put(VMX_SEG(VMX_GUEST_ES_BASE, n), 0x1000);
    }
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    if (has(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST)) { /* real mode */
        put(VMX_GUEST_RFLAGS, 2);
        put(VMX_GUEST_CR0, 0x30);
        for (unsigned n = 0; n < 6; n++)
            put(VMX_SEG(VMX_GUEST_ES_AR, n), 0x93);
        ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    }
    teardown();
}
END_TEST

/* Without unrestricted guest real mode is refused. */
START_TEST(real_mode_is_restricted)
{
    setup(fake_model("corei5_lynnfield_750"));
    put(VMX_ENTRY_CTLS, vmx_insn_read(VMX_ENTRY_CTLS) & ~(uint64_t)VMX_ENTRY_GUEST_64);
    put(VMX_GUEST_CR0, 0x30);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS), "guest CR0: bits that VMX fixes");
    teardown();
}
END_TEST

/* Virtualization of the local APIC. */
static void apic(uint32_t proc2, bool shadow, const char *rule)
{
    const uint64_t proc = vmx_insn_read(VMX_PROC_CTLS), old = vmx_insn_read(VMX_PROC2_CTLS);
    const char *found;

    put(VMX_PROC2_CTLS, old | proc2);
    put(VMX_PROC_CTLS, proc | (shadow ? VMX_PROC_TPR_SHADOW : 0));
    found = vmx_check_entry(&m.caps, PHYS_BITS);
    if (rule)
        ck_assert_str_eq(found ? found : "none", rule);
    else
        ck_assert_msg(!found, "%s", found);
    put(VMX_PROC2_CTLS, old);
    put(VMX_PROC_CTLS, proc);
}

START_TEST(apic_controls)
{
    const uint32_t all =
        VMX_PROC2_VIRTUAL_APIC_ACCESSES | VMX_PROC2_APIC_REGISTERS | VMX_PROC2_VIRTUAL_INTERRUPTS;

    setup(fake_model("corei7_skylake_x"));
    put(VMX_APIC_ACCESS_ADDR, 0x5000);
    put(VMX_VIRTUAL_APIC_ADDR, 0x6000);
    apic(all, true, NULL);
    apic(VMX_PROC2_VIRTUAL_APIC_ACCESSES, false, NULL);
    apic(VMX_PROC2_VIRTUAL_X2APIC | VMX_PROC2_VIRTUAL_INTERRUPTS, true, NULL);
    apic(VMX_PROC2_APIC_REGISTERS, false, "APIC-register virtualization without TPR shadow");
    apic(VMX_PROC2_VIRTUAL_INTERRUPTS, false, "virtual-interrupt delivery without TPR shadow");
    apic(VMX_PROC2_VIRTUAL_X2APIC, false, "virtualized x2APIC mode without TPR shadow");
    apic(VMX_PROC2_VIRTUAL_X2APIC | VMX_PROC2_VIRTUAL_APIC_ACCESSES, true,
         "virtualized x2APIC mode together with virtualized APIC accesses");
    put(VMX_TPR_THRESHOLD, 0x10);
    apic(VMX_PROC2_VIRTUAL_APIC_ACCESSES, true, "TPR threshold: bits 31:4 are not 0");
    apic(all, true, NULL);
    put(VMX_APIC_ACCESS_ADDR, 0x5008);
    apic(all, true, "APIC-access page: bad address");
    put(VMX_APIC_ACCESS_ADDR, 1ull << PHYS_BITS);
    apic(all, true, "APIC-access page: bad address");
    put(VMX_VIRTUAL_APIC_ADDR, 0x6010);
    apic(all, true, "virtual-APIC page: bad address");
    teardown();
}
END_TEST

/* One field of a good state is changed, on Skylake-X. */
static const struct {
    uint32_t field;
    uint64_t value;
    const char *rule;
} bad[] = {
    {VMX_PIN_CTLS, 0, "pin-based controls: a reserved bit is wrong"},
    {VMX_PROC_CTLS, 0, "primary processor-based controls: a reserved bit is wrong"},
    {VMX_PROC2_CTLS, 1u << 31, "secondary processor-based controls: a reserved bit is wrong"},
    {VMX_CR3_TARGET_COUNT, 5, "CR3-target count is too large"},
    {VMX_IO_BITMAP_A, 0x3001, "I/O bitmap A: bad address"},
    {VMX_IO_BITMAP_B, 1ull << PHYS_BITS, "I/O bitmap B: bad address"},
    {VMX_MSR_BITMAP, 0x10, "MSR bitmap: bad address"},
    {VMX_PIN_CTLS, 0x37, "virtual NMIs without NMI exiting"},
    {VMX_VPID, 0, "VPID is 0"},
    {VMX_EPTP, 0x1000, "EPT pointer: bad value"},
    {VMX_EPTP, 0x1000 | 2 << 3 | 6, "EPT pointer: bad value"},
    {VMX_PROC2_CTLS, 0x80, "unrestricted guest without EPT"},
    {VMX_PROC2_CTLS, 1u << 17, "PML without EPT"},
    {VMX_EXIT_CTLS, 0, "VM-exit controls: a reserved bit is wrong"},
    {VMX_EXIT_CTLS, 0x00436dfb | 1u << 9, "saving of a preemption timer that is off"},
    {VMX_EXIT_MSR_LOAD_COUNT, 1, NULL},
    {VMX_ENTRY_CTLS, 0, "VM-entry controls: a reserved bit is wrong"},
    {VMX_ENTRY_INTR_INFO, 0x80000150, "injected event: reserved type"},
    {VMX_ENTRY_INTR_INFO, 0x80000203, "injected NMI: the vector is not 2"},
    {VMX_ENTRY_INTR_INFO, 0x80000320, "injected exception: vector above 31"},
    {VMX_ENTRY_INTR_INFO, 0x80000850, "injected event: error code with a type that has none"},
    {VMX_ENTRY_INTR_INFO, 0x8000030e,
     "injected exception: error code, or none, against its vector and mode"},
    {VMX_ENTRY_INTR_INFO, 0x80000b06,
     "injected exception: error code, or none, against its vector and mode"},
    {VMX_ENTRY_INTR_INFO, 0x80001306, "injected event: reserved bits"},
    {VMX_ENTRY_INTR_INFO, 0x80000050, "injected external interrupt with RFLAGS.IF clear"},
    {VMX_HOST_CR0, 0, "host CR0: bits that VMX fixes"},
    {VMX_HOST_CR4, 0x620, "host CR4: bits that VMX fixes"},
    {VMX_HOST_CR3, 1ull << 40, "host CR3: beyond the physical address width"},
    {VMX_HOST_SYSENTER_ESP, 1ull << 63, "host SYSENTER_ESP is not canonical"},
    {VMX_HOST_PAT, 2, "host PAT: bad memory type"},
    {VMX_HOST_EFER, 0x100, "host EFER: LMA and LME against the host address-space size"},
    {VMX_HOST_EFER, 2, "host EFER: reserved bits"},
    {VMX_HOST_CS_SEL, 0, "host CS is null"},
    {VMX_HOST_TR_SEL, 0, "host TR is null"},
    {VMX_HOST_DS_SEL, 3, "host selector: TI or RPL is not 0"},
    {VMX_HOST_GS_BASE, 1ull << 47, "host FS, GS, TR, GDTR or IDTR base is not canonical"},
    {VMX_HOST_RIP, 1ull << 60, "host RIP is not canonical"},
    {VMX_GUEST_CR0, 0x80000030, "guest CR0.PG without CR0.PE"},
    {VMX_GUEST_CR0, 0x31, "64-bit guest without CR0.PG"},
    {VMX_GUEST_CR4, 0x2000, "64-bit guest without CR4.PAE"},
    {VMX_GUEST_CR4, 0x20, "guest CR4: bits that VMX fixes"},
    {VMX_GUEST_CR3, 1ull << 40, "guest CR3: beyond the physical address width"},
    {VMX_GUEST_EFER, 0x100, "guest EFER.LMA against the 64-bit guest control"},
    {VMX_GUEST_EFER, 0x400, "guest EFER: LMA and LME differ while CR0.PG is set"},
    {VMX_GUEST_DR7, 1ull << 32, "guest DR7: bits 63:32"},
    {VMX_GUEST_PAT, 0xff, "guest PAT: bad memory type"},
    {VMX_GUEST_SYSENTER_EIP, 1ull << 62, "guest SYSENTER_EIP is not canonical"},
    {VMX_GUEST_CS_AR, 0x10000, "CS is unusable"},
    {VMX_GUEST_CS_AR, 0xa091, "CS: bad type"},
    {VMX_GUEST_CS_AR, 0xa0fb, "CS: DPL is not SS.DPL"},
    {VMX_GUEST_CS_AR, 0xe09b, "CS: L and D together"},
    {VMX_GUEST_CS_AR, 0xa01b, "CS is not present"},
    {VMX_GUEST_CS_LIMIT, 0x1000, "CS: limit against granularity"},
    {VMX_GUEST_SS_AR, 0xc09b, "SS: bad type"},
    {VMX_GUEST_DS_AR, 0xc092, "data segment: not accessed"},
    {VMX_GUEST_DS_AR, 0xc013, "data segment is not present"},
    {VMX_GUEST_ES_BASE, 1ull << 32, "DS or ES: base above 4 GiB"},
    {VMX_GUEST_FS_BASE, 1ull << 60, "FS or GS: base is not canonical"},
    {VMX_GUEST_TR_AR, 0x89, "TR: type is not a busy TSS"},
    {VMX_GUEST_TR_AR, 0x1008b, "TR is unusable"},
    {VMX_GUEST_TR_SEL, 4, "TR: in the LDT"},
    {VMX_GUEST_LDTR_AR, 0x83, "LDTR: type is not an LDT"},
    {VMX_GUEST_GDTR_BASE, 1ull << 60, "GDTR: base is not canonical"},
    {VMX_GUEST_IDTR_LIMIT, 0x10000, "IDTR: limit above 0xffff"},
    {VMX_GUEST_RFLAGS, 0, "RFLAGS: reserved bits"},
    {VMX_GUEST_RIP, 1ull << 60, "RIP is not canonical"},
    {VMX_GUEST_ACTIVITY, 4, "activity state that the CPU does not have"},
    {VMX_GUEST_INTERRUPTIBILITY, 3, "blocking by STI and by MOV SS together"},
    {VMX_GUEST_INTERRUPTIBILITY, 1, "blocking by STI with RFLAGS.IF clear"},
    {VMX_GUEST_INTERRUPTIBILITY, 4, "blocking by SMI outside of SMM"},
    {VMX_GUEST_INTERRUPTIBILITY, 0x100, "interruptibility: reserved bits"},
    {VMX_GUEST_PENDING_DEBUG, 0x100000, "pending debug exceptions: reserved bits"},
    {VMX_LINK_POINTER, 1, "VMCS link pointer: bad address"},
};

START_TEST(bad_fields)
{
    const char *wrong;

    setup(fake_model("corei7_skylake_x"));
    put(bad[_i].field, bad[_i].value);
    wrong = vmx_check_entry(&m.caps, PHYS_BITS);
    if (bad[_i].rule) {
        ck_assert_msg(wrong, "%s: nothing found", bad[_i].rule);
        ck_assert_str_eq(wrong, bad[_i].rule);
    } else {
        ck_assert_ptr_null(wrong);
    }
    teardown();
}
END_TEST

START_TEST(bad_pairs)
{
    setup(fake_model("corei7_skylake_x"));
    put(VMX_EXIT_MSR_LOAD_COUNT, 2);
    put(VMX_EXIT_MSR_LOAD_ADDR, (1ull << PHYS_BITS) - 16);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS), "VM-exit MSR-load area: bad address");
    put(VMX_EXIT_MSR_LOAD_COUNT, 0);
    put(VMX_GUEST_RFLAGS, 0x202);
    put(VMX_ENTRY_INTR_INFO, 0x80000050);
    put(VMX_GUEST_INTERRUPTIBILITY, 1);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS),
                     "injected external interrupt while interrupts are blocked");
    put(VMX_ENTRY_INTR_INFO, 0x80000202);
    put(VMX_GUEST_INTERRUPTIBILITY, 8);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS), "injected NMI with blocking by NMI");
    put(VMX_ENTRY_INTR_INFO, 0);
    put(VMX_GUEST_INTERRUPTIBILITY, 1);
    put(VMX_GUEST_RFLAGS, 0x302);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS),
                     "pending single step: BS is 0 with RFLAGS.TF");
    put(VMX_GUEST_PENDING_DEBUG, 0x4000);
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    /* PAE paging takes its PDPTEs from the VMCS. */
    put(VMX_GUEST_RFLAGS, 2);
    put(VMX_GUEST_INTERRUPTIBILITY, 0);
    put(VMX_GUEST_PENDING_DEBUG, 0);
    put(VMX_ENTRY_CTLS, vmx_insn_read(VMX_ENTRY_CTLS) & ~(uint64_t)VMX_ENTRY_GUEST_64);
    put(VMX_GUEST_EFER, 0);
    put(VMX_GUEST_PDPTE2, 0x3003);
    ck_assert_str_eq(vmx_check_entry(&m.caps, PHYS_BITS), "PDPTE: reserved bits");
    put(VMX_GUEST_PDPTE2, 0x3001);
    ck_assert_ptr_null(vmx_check_entry(&m.caps, PHYS_BITS));
    teardown();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_check");
    TCase *tc = tcase_create("check");

    tcase_add_loop_test(tc, good_states, 0, FAKE_NMODELS);
    tcase_add_test(tc, real_mode_is_restricted);
    tcase_add_test(tc, apic_controls);
    tcase_add_loop_test(tc, bad_fields, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(tc, bad_pairs);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
