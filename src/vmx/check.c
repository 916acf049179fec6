/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/check.c: entry checks of controls and of the host state. */
#include "vmx/check_common.h"

/* ---- controls (SDM Vol. 3C 26.2.1) ---- */

static bool allowed(const struct vmx_caps *c, enum vmx_group g, uint64_t value)
{
    return !(~value & vmx_must_be_1(c, g)) && !(value & ~(uint64_t)vmx_may_be_1(c, g));
}

static const char *check_execution(const struct vmx_caps *c, unsigned pb)
{
    uint64_t pin = rd(VMX_PIN_CTLS), proc = rd(VMX_PROC_CTLS);

    RULE(allowed(c, VMX_GROUP_PIN, pin), "pin-based controls: a reserved bit is wrong");
    RULE(allowed(c, VMX_GROUP_PROC, proc),
         "primary processor-based controls: a reserved bit is wrong");
    RULE(!(proc & (uint32_t)VMX_PROC_SECONDARY) || allowed(c, VMX_GROUP_PROC2, rd(VMX_PROC2_CTLS)),
         "secondary processor-based controls: a reserved bit is wrong");
    RULE(rd(VMX_CR3_TARGET_COUNT) <= (c->misc >> 16 & 0x1ff), "CR3-target count is too large");
    if (proc & VMX_PROC_IO_BITMAPS) {
        RULE(address_ok(rd(VMX_IO_BITMAP_A), 4096, pb), "I/O bitmap A: bad address");
        RULE(address_ok(rd(VMX_IO_BITMAP_B), 4096, pb), "I/O bitmap B: bad address");
    }
    RULE(!(proc & VMX_PROC_MSR_BITMAPS) || address_ok(rd(VMX_MSR_BITMAP), 4096, pb),
         "MSR bitmap: bad address");
    RULE((pin & VMX_PIN_NMI) || !(pin & VMX_PIN_VIRTUAL_NMIS), "virtual NMIs without NMI exiting");
    RULE((pin & VMX_PIN_VIRTUAL_NMIS) || !(proc & VMX_PROC_NMI_WINDOW),
         "NMI-window exiting without virtual NMIs");
    return NULL;
}

static const char *check_apic(unsigned pb)
{
    uint64_t pin = rd(VMX_PIN_CTLS), proc = rd(VMX_PROC_CTLS);
    uint32_t p2 = proc2();

    if (proc & VMX_PROC_TPR_SHADOW) {
        RULE(address_ok(rd(VMX_VIRTUAL_APIC_ADDR), 4096, pb), "virtual-APIC page: bad address");
        RULE((p2 & VMX_PROC2_VIRTUAL_INTERRUPTS) || !(rd(VMX_TPR_THRESHOLD) & ~15ull),
             "TPR threshold: bits 31:4 are not 0");
    } else {
        RULE(!(p2 & VMX_PROC2_VIRTUAL_X2APIC), "virtualized x2APIC mode without TPR shadow");
        RULE(!(p2 & VMX_PROC2_APIC_REGISTERS), "APIC-register virtualization without TPR shadow");
        RULE(!(p2 & VMX_PROC2_VIRTUAL_INTERRUPTS), "virtual-interrupt delivery without TPR shadow");
    }
    RULE(!(p2 & VMX_PROC2_VIRTUAL_APIC_ACCESSES) || address_ok(rd(VMX_APIC_ACCESS_ADDR), 4096, pb),
         "APIC-access page: bad address");
    RULE(!(p2 & VMX_PROC2_VIRTUAL_X2APIC) || !(p2 & VMX_PROC2_VIRTUAL_APIC_ACCESSES),
         "virtualized x2APIC mode together with virtualized APIC accesses");
    RULE(!(p2 & VMX_PROC2_VIRTUAL_INTERRUPTS) || (pin & VMX_PIN_EXTERNAL_INTERRUPT),
         "virtual-interrupt delivery without external-interrupt exiting");
    if (pin & VMX_PIN_POSTED_INTERRUPTS) {
        RULE(p2 & VMX_PROC2_VIRTUAL_INTERRUPTS,
             "posted interrupts without virtual-interrupt delivery");
        RULE(rd(VMX_EXIT_CTLS) & VMX_EXITC_ACKNOWLEDGE,
             "posted interrupts without acknowledgement on exit");
        RULE(rd(VMX_POSTED_INTR_VECTOR) <= 255, "posted-interrupt vector is too large");
        RULE(address_ok(rd(VMX_POSTED_INTR_DESC), 64, pb),
             "posted-interrupt descriptor: bad address");
    }
    return NULL;
}

static bool eptp_ok(const struct vmx_caps *c, uint64_t eptp, unsigned pb)
{
    unsigned type = eptp & 7;

    if (!(type == 0 && c->ept_vpid >> 8 & 1) && !(type == 6 && (c->ept_vpid & VMX_EPT_WB)))
        return false;
    return (eptp >> 3 & 7) == 3 && (!(eptp & 0x40) || (c->ept_vpid & VMX_EPT_AD)) &&
           !(eptp & 0xf80) && !(eptp >> pb);
}

static const char *check_paging(const struct vmx_caps *c, unsigned pb)
{
    uint32_t p2 = proc2();

    RULE(!(p2 & VMX_PROC2_VPID) || rd(VMX_VPID), "VPID is 0");
    RULE(!(p2 & VMX_PROC2_EPT) || eptp_ok(c, rd(VMX_EPTP), pb), "EPT pointer: bad value");
    RULE((p2 & VMX_PROC2_EPT) || !(p2 & VMX_PROC2_UNRESTRICTED_GUEST),
         "unrestricted guest without EPT");
    RULE((p2 & VMX_PROC2_EPT) || !(p2 & VMX_PROC2_MODE_BASED_EXECUTE),
         "mode-based execute control without EPT");
    if (p2 & VMX_PROC2_PML) {
        RULE(p2 & VMX_PROC2_EPT, "PML without EPT");
        RULE(address_ok(rd(VMX_PML_ADDR), 4096, pb), "PML buffer: bad address");
    }
    if (p2 & VMX_PROC2_VMCS_SHADOWING) {
        RULE(address_ok(rd(VMX_VMREAD_BITMAP), 4096, pb), "VMREAD bitmap: bad address");
        RULE(address_ok(rd(VMX_VMWRITE_BITMAP), 4096, pb), "VMWRITE bitmap: bad address");
    }
    RULE(!(p2 & VMX_PROC2_EPT_VE) || address_ok(rd(VMX_VE_INFO_ADDR), 4096, pb),
         "virtualization-exception area: bad address");
    if (p2 & VMX_PROC2_VMFUNC) {
        RULE(!(rd(VMX_VMFUNC_CTLS) & ~c->vmfunc), "VM-function controls: a reserved bit is set");
        RULE(!(rd(VMX_VMFUNC_CTLS) & 1) ||
                 ((p2 & VMX_PROC2_EPT) && address_ok(rd(VMX_EPTP_LIST), 4096, pb)),
             "EPTP list: bad address, or no EPT");
    }
    return NULL;
}

/* An area of MSRs: 16-byte entries. */
static bool area_ok(uint64_t count, uint64_t address, unsigned pb)
{
    return !count || (address_ok(address, 16, pb) && !((address + count * 16 - 1) >> pb));
}

/* The CPU need not look at this, and may then do anything. */
static const char *check_area_counts(const struct vmx_caps *c)
{
    const uint32_t limit = vmx_area_limit(c);

    RULE(rd(VMX_ENTRY_MSR_LOAD_COUNT) <= limit, "VM-entry MSR-load area: too long for this CPU");
    RULE(rd(VMX_EXIT_MSR_STORE_COUNT) <= limit, "VM-exit MSR-store area: too long for this CPU");
    RULE(rd(VMX_EXIT_MSR_LOAD_COUNT) <= limit, "VM-exit MSR-load area: too long for this CPU");
    return NULL;
}

static const char *check_exit_controls(const struct vmx_caps *c, unsigned pb)
{
    uint64_t exit = rd(VMX_EXIT_CTLS);

    RULE(allowed(c, VMX_GROUP_EXIT, exit), "VM-exit controls: a reserved bit is wrong");
    RULE((rd(VMX_PIN_CTLS) & VMX_PIN_PREEMPTION_TIMER) || !(exit & VMX_EXITC_SAVE_TIMER),
         "saving of a preemption timer that is off");
    RULE(area_ok(rd(VMX_EXIT_MSR_STORE_COUNT), rd(VMX_EXIT_MSR_STORE_ADDR), pb),
         "VM-exit MSR-store area: bad address");
    RULE(area_ok(rd(VMX_EXIT_MSR_LOAD_COUNT), rd(VMX_EXIT_MSR_LOAD_ADDR), pb),
         "VM-exit MSR-load area: bad address");
    return NULL;
}

static bool type_has_error(const struct vmx_caps *c, unsigned vector, bool pe)
{
    if (c->basic >> 56 & 1) /* the CPU leaves that to us */
        return false;
    return pe && (vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 ||
                  (vector == 21 && (c->cr4_fixed1 & CR4_CET)));
}

static const char *check_event(const struct vmx_caps *c)
{
    uint32_t info = (uint32_t)rd(VMX_ENTRY_INTR_INFO), vector = info & VMX_INTR_VECTOR;
    uint32_t type = (info & VMX_INTR_TYPE) >> VMX_INTR_TYPE_SHIFT;
    bool pe = !(proc2() & VMX_PROC2_UNRESTRICTED_GUEST) || (rd(VMX_GUEST_CR0) & CR0_PE);
    bool error = info & VMX_INTR_HAS_ERROR;

    if (!(info & VMX_INTR_VALID))
        return NULL;
    RULE(type != 1, "injected event: reserved type");
    RULE(type != 7 || (vmx_may_be_1(c, VMX_GROUP_PROC) & VMX_PROC_MONITOR_TRAP_FLAG),
         "injected event: no monitor trap flag");
    RULE(type != VMX_TYPE_NMI || vector == 2, "injected NMI: the vector is not 2");
    RULE(type != VMX_TYPE_EXCEPTION || vector <= 31, "injected exception: vector above 31");
    RULE(type != 7 || !vector, "injected other event: the vector is not 0");
    if (type != VMX_TYPE_EXCEPTION)
        RULE(!error, "injected event: error code with a type that has none");
    else if (!(c->basic >> 56 & 1))
        RULE(error == type_has_error(c, vector, pe),
             "injected exception: error code, or none, against its vector and mode");
    RULE(!(info & 0x7ffff000), "injected event: reserved bits");
    RULE(!error || !(rd(VMX_ENTRY_INTR_ERROR) & 0xffff0000), "injected error code: bits 31:16");
    if (vmx_type_is_soft(info) && type != 7) {
        uint64_t len = rd(VMX_ENTRY_INSN_LEN);

        RULE(len <= 15 && (len || c->misc >> 30 & 1), "injected event: bad instruction length");
    }
    return NULL;
}

static const char *check_entry_controls(const struct vmx_caps *c, unsigned pb)
{
    uint64_t entry = rd(VMX_ENTRY_CTLS);

    RULE(allowed(c, VMX_GROUP_ENTRY, entry), "VM-entry controls: a reserved bit is wrong");
    RULE(area_ok(rd(VMX_ENTRY_MSR_LOAD_COUNT), rd(VMX_ENTRY_MSR_LOAD_ADDR), pb),
         "VM-entry MSR-load area: bad address");
    RULE(!(entry & (VMX_ENTRY_TO_SMM | VMX_ENTRY_DEACTIVATE_DUAL_MONITOR)),
         "entry to SMM outside of SMM");
    return check_event(c);
}

const char *vmx_check_controls(const struct vmx_caps *c, unsigned pb)
{
    const char *wrong = check_execution(c, pb);

    if (!wrong)
        wrong = check_apic(pb);
    if (!wrong)
        wrong = check_paging(c, pb);
    if (!wrong)
        wrong = check_exit_controls(c, pb);
    return wrong ? wrong : check_entry_controls(c, pb);
}

/* ---- host state (SDM Vol. 3C 26.2.2 to 26.2.4) ---- */

static const char *check_host_control(const struct vmx_caps *c, unsigned pb)
{
    RULE(fixed_ok(rd(VMX_HOST_CR0), c->cr0_fixed0, c->cr0_fixed1), "host CR0: bits that VMX fixes");
    RULE(fixed_ok(rd(VMX_HOST_CR4), c->cr4_fixed0, c->cr4_fixed1), "host CR4: bits that VMX fixes");
    RULE(!(rd(VMX_HOST_CR4) & CR4_CET) || (rd(VMX_HOST_CR0) & CR0_WP),
         "host CR4.CET without CR0.WP");
    RULE(!(rd(VMX_HOST_CR3) >> pb), "host CR3: beyond the physical address width");
    RULE(canonical(rd(VMX_HOST_SYSENTER_ESP)), "host SYSENTER_ESP is not canonical");
    RULE(canonical(rd(VMX_HOST_SYSENTER_EIP)), "host SYSENTER_EIP is not canonical");
    return NULL;
}

static const char *check_host_msrs(void)
{
    uint64_t exit = rd(VMX_EXIT_CTLS), efer = rd(VMX_HOST_EFER);

    RULE(!(exit & VMX_EXITC_LOAD_PAT) || pat_ok(rd(VMX_HOST_PAT)), "host PAT: bad memory type");
    if (exit & VMX_EXITC_LOAD_EFER) {
        RULE(!(efer & ~EFER_ALL), "host EFER: reserved bits");
        RULE(!(efer & EFER_LMA) == !(exit & VMX_EXITC_HOST_64) &&
                 !(efer & EFER_LME) == !(exit & VMX_EXITC_HOST_64),
             "host EFER: LMA and LME against the host address-space size");
    }
    return NULL;
}

static const char *check_host_segments(void)
{
    for (uint32_t field = VMX_HOST_ES_SEL; field <= VMX_HOST_TR_SEL; field += 2)
        RULE(!(rd(field) & 7), "host selector: TI or RPL is not 0");
    RULE(rd(VMX_HOST_CS_SEL), "host CS is null");
    RULE(rd(VMX_HOST_TR_SEL), "host TR is null");
    RULE(rd(VMX_HOST_SS_SEL) || (rd(VMX_EXIT_CTLS) & VMX_EXITC_HOST_64),
         "host SS is null in a 32-bit host");
    for (uint32_t field = VMX_HOST_FS_BASE; field <= VMX_HOST_IDTR_BASE; field += 2)
        RULE(canonical(rd(field)), "host FS, GS, TR, GDTR or IDTR base is not canonical");
    return NULL;
}

static const char *check_host_size(void)
{
    uint64_t exit = rd(VMX_EXIT_CTLS);

    /* This library's hosts are in IA-32e mode at VM entries. */
    RULE(exit & VMX_EXITC_HOST_64, "host address-space size is 0 in a 64-bit host");
    RULE(rd(VMX_HOST_CR4) & CR4_PAE, "64-bit host without CR4.PAE");
    RULE(canonical(rd(VMX_HOST_RIP)), "host RIP is not canonical");
    return NULL;
}

const char *vmx_check_host(const struct vmx_caps *c, unsigned pb)
{
    const char *wrong = check_host_control(c, pb);

    if (!wrong)
        wrong = check_host_msrs();
    if (!wrong)
        wrong = check_host_segments();
    return wrong ? wrong : check_host_size();
}

const char *vmx_check_entry(const struct vmx_caps *c, unsigned pb)
{
    const char *wrong = vmx_check_controls(c, pb);

    if (!wrong)
        wrong = vmx_check_host(c, pb);
    if (!wrong)
        wrong = vmx_check_guest(c, pb);
    return wrong ? wrong : check_area_counts(c);
}
