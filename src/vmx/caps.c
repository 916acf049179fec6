/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/caps.c: capability MSRs and the choice of controls. */
#include <stdio.h>
#include <string.h>

#include "vmx/caps.h"
#include "vmx/insn.h"

/* ---- names ---- */

static const char *const names[VMX_NGROUPS][32] = {
#define NAME(name, bit) [bit] = #name,
    [VMX_GROUP_PIN] = {VMX_PIN_CONTROLS(NAME)},     [VMX_GROUP_PROC] = {VMX_PROC_CONTROLS(NAME)},
    [VMX_GROUP_PROC2] = {VMX_PROC2_CONTROLS(NAME)}, [VMX_GROUP_EXIT] = {VMX_EXIT_CONTROLS(NAME)},
    [VMX_GROUP_ENTRY] = {VMX_ENTRY_CONTROLS(NAME)},
#undef NAME
};

const char *vmx_control_name(enum vmx_group group, unsigned bit)
{
    return group < VMX_NGROUPS && bit < 32 ? names[group][bit] : NULL;
}

const char *vmx_group_name(enum vmx_group group)
{
    static const char *const groups[VMX_NGROUPS] = {
        [VMX_GROUP_PIN] = "pin-based",
        [VMX_GROUP_PROC] = "primary processor-based",
        [VMX_GROUP_PROC2] = "secondary processor-based",
        [VMX_GROUP_EXIT] = "VM-exit",
        [VMX_GROUP_ENTRY] = "VM-entry",
    };

    return group < VMX_NGROUPS ? groups[group] : "?";
}

void vmx_control_names(enum vmx_group group, uint32_t bits, char *text, size_t size)
{
    size_t used = 0;

    if (size)
        text[0] = 0;
    for (unsigned bit = 0; bit < 32; bit++) {
        const char *name = vmx_control_name(group, bit);
        int n;

        if (!(bits >> bit & 1) || used >= size)
            continue;
        if (name)
            n = snprintf(text + used, size - used, "%s%s", used ? " " : "", name);
        else
            n = snprintf(text + used, size - used, "%sbit%u", used ? " " : "", bit);
        used += (size_t)n;
    }
}

/* ---- discovery ---- */

static int refuse(char *why, size_t size, const char *text)
{
    snprintf(why, size, "%s", text);
    return VMM_E_NODEV;
}

struct reader {
    const struct vmm_host_ops *host;
    bool failed;
};

static uint64_t read_msr(struct reader *r, uint32_t index)
{
    uint64_t value = 0;

    if (r->host->rdmsr(r->host->ctx, index, &value))
        r->failed = true;
    return value;
}

/* Bit 55 of VMX_BASIC: controls that used to be 1 may be 0, as other MSRs say. */
static void read_controls(struct reader *r, struct vmx_caps *c)
{
    bool true_ones = c->basic >> 55 & 1;

    c->control[VMX_GROUP_PIN] = read_msr(r, true_ones ? VMX_MSR_TRUE_PIN : VMX_MSR_PIN);
    c->control[VMX_GROUP_PROC] = read_msr(r, true_ones ? VMX_MSR_TRUE_PROC : VMX_MSR_PROC);
    c->control[VMX_GROUP_EXIT] = read_msr(r, true_ones ? VMX_MSR_TRUE_EXIT : VMX_MSR_EXIT);
    c->control[VMX_GROUP_ENTRY] = read_msr(r, true_ones ? VMX_MSR_TRUE_ENTRY : VMX_MSR_ENTRY);
    if (vmx_may_be_1(c, VMX_GROUP_PROC) & (uint32_t)VMX_PROC_SECONDARY)
        c->control[VMX_GROUP_PROC2] = read_msr(r, VMX_MSR_PROC2);
    if (vmx_may_be_1(c, VMX_GROUP_PROC2) & (VMX_PROC2_EPT | VMX_PROC2_VPID))
        c->ept_vpid = read_msr(r, VMX_MSR_EPT_VPID);
    if (vmx_may_be_1(c, VMX_GROUP_PROC2) & VMX_PROC2_VMFUNC)
        c->vmfunc = read_msr(r, VMX_MSR_VMFUNC);
}

int vmx_caps_read(struct vmx_caps *c, const struct vmm_host_ops *host, char *why, size_t size)
{
    struct reader r = {.host = host};
    uint32_t id[4];

    memset(c, 0, sizeof(*c));
    vmx_insn_cpuid(1, id);
    if (!(id[2] & 1u << 5))
        return refuse(why, size, "the CPU has no VMX");
    c->feature_control = read_msr(&r, VMX_MSR_FEATURE_CONTROL);
    if (r.failed)
        return refuse(why, size, "IA32_FEATURE_CONTROL cannot be read");
    if ((c->feature_control & VMX_FEATURE_LOCKED) && !(c->feature_control & VMX_FEATURE_OUTSIDE))
        return refuse(why, size, "VMX is disabled by the firmware");
    c->basic = read_msr(&r, VMX_MSR_BASIC);
    c->misc = read_msr(&r, VMX_MSR_MISC);
    c->cr0_fixed0 = read_msr(&r, VMX_MSR_CR0_FIXED0);
    c->cr0_fixed1 = read_msr(&r, VMX_MSR_CR0_FIXED1);
    c->cr4_fixed0 = read_msr(&r, VMX_MSR_CR4_FIXED0);
    c->cr4_fixed1 = read_msr(&r, VMX_MSR_CR4_FIXED1);
    read_controls(&r, c);
    if (r.failed)
        return refuse(why, size, "a VMX capability MSR cannot be read");
    if ((c->basic >> 32 & 0x1fff) > 4096 || (c->basic >> 50 & 15) != 6)
        return refuse(why, size, "VMCS regions are not of write-back memory, 4096 bytes at most");
    if (!(vmx_may_be_1(c, VMX_GROUP_EXIT) & VMX_EXITC_HOST_64))
        return refuse(why, size, "VMX is not for 64-bit hosts");
    return VMM_OK;
}

void vmx_caps_hide(struct vmx_caps *c, enum vmx_group group, uint32_t bits)
{
    bits &= ~vmx_must_be_1(c, group);
    c->control[group] &= ~((uint64_t)bits << 32);
    if (group == VMX_GROUP_PROC && (bits & (uint32_t)VMX_PROC_SECONDARY))
        c->control[VMX_GROUP_PROC2] = 0;
    if (!(vmx_may_be_1(c, VMX_GROUP_PROC2) & VMX_PROC2_EPT))
        c->ept_vpid &= ~0xffffffffull;
    if (!(vmx_may_be_1(c, VMX_GROUP_PROC2) & VMX_PROC2_VPID))
        c->ept_vpid &= 0xffffffffull;
    if (!(vmx_may_be_1(c, VMX_GROUP_PROC2) & VMX_PROC2_VMFUNC))
        c->vmfunc = 0;
}

/* ---- negotiation ---- */

/* A control, and another without which it must not be set. */
static const struct {
    enum vmx_group group;
    uint32_t bit;
    enum vmx_group needs_group;
    uint32_t needs;
} needs[] = {
#define N(g1, b1, g2, b2)                                                                          \
    {                                                                                              \
        VMX_GROUP_##g1, (uint32_t)(b1), VMX_GROUP_##g2, (uint32_t)(b2)                             \
    }
    N(PIN, VMX_PIN_VIRTUAL_NMIS, PIN, VMX_PIN_NMI),
    N(PROC, VMX_PROC_NMI_WINDOW, PIN, VMX_PIN_VIRTUAL_NMIS),
    N(EXIT, VMX_EXITC_SAVE_TIMER, PIN, VMX_PIN_PREEMPTION_TIMER),
    N(PROC2, VMX_PROC2_UNRESTRICTED_GUEST, PROC2, VMX_PROC2_EPT),
    N(PROC2, VMX_PROC2_PML, PROC2, VMX_PROC2_EPT),
    N(PROC2, VMX_PROC2_MODE_BASED_EXECUTE, PROC2, VMX_PROC2_EPT),
    N(PROC2, VMX_PROC2_SUB_PAGE_WRITE, PROC2, VMX_PROC2_EPT),
    N(PROC2, VMX_PROC2_PT_GUEST_PHYSICAL, PROC2, VMX_PROC2_EPT),
    N(PROC2, VMX_PROC2_VIRTUAL_X2APIC, PROC, VMX_PROC_TPR_SHADOW),
    N(PROC2, VMX_PROC2_APIC_REGISTERS, PROC, VMX_PROC_TPR_SHADOW),
    N(PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS, PROC, VMX_PROC_TPR_SHADOW),
    N(PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS, PIN, VMX_PIN_EXTERNAL_INTERRUPT),
    N(PIN, VMX_PIN_POSTED_INTERRUPTS, PROC2, VMX_PROC2_VIRTUAL_INTERRUPTS),
    N(PIN, VMX_PIN_POSTED_INTERRUPTS, EXIT, VMX_EXITC_ACKNOWLEDGE),
    N(ENTRY, VMX_ENTRY_LOAD_EFER, EXIT, VMX_EXITC_LOAD_EFER),
    N(ENTRY, VMX_ENTRY_LOAD_PAT, EXIT, VMX_EXITC_LOAD_PAT),
#undef N
};

static bool drop_dependents(struct vmx_controls *c)
{
    bool dropped = false;

    for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++)
        if ((c->value[needs[i].group] & needs[i].bit) &&
            !(c->value[needs[i].needs_group] & needs[i].needs)) {
            c->value[needs[i].group] &= ~needs[i].bit;
            dropped = true;
        }
    return dropped;
}

static int missing(enum vmx_group group, uint32_t bits, char *why, size_t size)
{
    char list[128];

    vmx_control_names(group, bits, list, sizeof(list));
    snprintf(why, size, "the CPU lacks %s controls: %s", vmx_group_name(group), list);
    return VMM_E_UNSUPPORTED;
}

int vmx_negotiate(const struct vmx_caps *caps, const struct vmx_wish *wish, struct vmx_controls *c,
                  char *why, size_t size)
{
    uint32_t asked;

    memset(c, 0, sizeof(*c));
    for (unsigned g = 0; g < VMX_NGROUPS; g++)
        c->value[g] = (wish->required[g] | wish->wanted[g]) & vmx_may_be_1(caps, g);
    if (c->value[VMX_GROUP_PROC2])
        c->value[VMX_GROUP_PROC] |= (uint32_t)VMX_PROC_SECONDARY;
    while (drop_dependents(c))
        continue;
    for (unsigned g = 0; g < VMX_NGROUPS; g++) {
        asked = wish->required[g] | wish->wanted[g];
        if (wish->required[g] & ~c->value[g])
            return missing(g, wish->required[g] & ~c->value[g], why, size);
        c->refused[g] = asked & ~c->value[g];
        c->value[g] |= vmx_must_be_1(caps, g);
    }
    return VMM_OK;
}
