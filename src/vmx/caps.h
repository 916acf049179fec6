/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx/caps.h: what this CPU's VMX can do, and which controls are used of it. */
#ifndef VMX_CAPS_H
#define VMX_CAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmm/host.h>

/* ---- MSRs (SDM Vol. 3D appendix A) ---- */

#define VMX_MSR_FEATURE_CONTROL 0x3a
#define VMX_MSR_BASIC           0x480
#define VMX_MSR_PIN             0x481
#define VMX_MSR_PROC            0x482
#define VMX_MSR_EXIT            0x483
#define VMX_MSR_ENTRY           0x484
#define VMX_MSR_MISC            0x485
#define VMX_MSR_CR0_FIXED0      0x486
#define VMX_MSR_CR0_FIXED1      0x487
#define VMX_MSR_CR4_FIXED0      0x488
#define VMX_MSR_CR4_FIXED1      0x489
#define VMX_MSR_VMCS_ENUM       0x48a
#define VMX_MSR_PROC2           0x48b
#define VMX_MSR_EPT_VPID        0x48c
#define VMX_MSR_TRUE_PIN        0x48d
#define VMX_MSR_TRUE_PROC       0x48e
#define VMX_MSR_TRUE_EXIT       0x48f
#define VMX_MSR_TRUE_ENTRY      0x490
#define VMX_MSR_VMFUNC          0x491

#define VMX_FEATURE_LOCKED  1u
#define VMX_FEATURE_OUTSIDE 4u /* VMXON outside of SMX operation */

/* ---- controls: a name for each bit ---- */

#define VMX_PIN_CONTROLS(X)                                                                        \
    X(EXTERNAL_INTERRUPT, 0)                                                                       \
    X(NMI, 3)                                                                                      \
    X(VIRTUAL_NMIS, 5)                                                                             \
    X(PREEMPTION_TIMER, 6)                                                                         \
    X(POSTED_INTERRUPTS, 7)
#define VMX_PROC_CONTROLS(X)                                                                       \
    X(INTERRUPT_WINDOW, 2)                                                                         \
    X(TSC_OFFSETTING, 3)                                                                           \
    X(HLT, 7)                                                                                      \
    X(INVLPG, 9)                                                                                   \
    X(MWAIT, 10)                                                                                   \
    X(RDPMC, 11)                                                                                   \
    X(RDTSC, 12)                                                                                   \
    X(CR3_LOAD, 15)                                                                                \
    X(CR3_STORE, 16)                                                                               \
    X(TERTIARY, 17)                                                                                \
    X(CR8_LOAD, 19)                                                                                \
    X(CR8_STORE, 20)                                                                               \
    X(TPR_SHADOW, 21)                                                                              \
    X(NMI_WINDOW, 22)                                                                              \
    X(MOV_DR, 23)                                                                                  \
    X(UNCONDITIONAL_IO, 24)                                                                        \
    X(IO_BITMAPS, 25)                                                                              \
    X(MONITOR_TRAP_FLAG, 27)                                                                       \
    X(MSR_BITMAPS, 28)                                                                             \
    X(MONITOR, 29)                                                                                 \
    X(PAUSE, 30)                                                                                   \
    X(SECONDARY, 31)
#define VMX_PROC2_CONTROLS(X)                                                                      \
    X(VIRTUAL_APIC_ACCESSES, 0)                                                                    \
    X(EPT, 1)                                                                                      \
    X(DESCRIPTOR_TABLES, 2)                                                                        \
    X(RDTSCP, 3)                                                                                   \
    X(VIRTUAL_X2APIC, 4)                                                                           \
    X(VPID, 5)                                                                                     \
    X(WBINVD, 6)                                                                                   \
    X(UNRESTRICTED_GUEST, 7)                                                                       \
    X(APIC_REGISTERS, 8)                                                                           \
    X(VIRTUAL_INTERRUPTS, 9)                                                                       \
    X(PAUSE_LOOP, 10)                                                                              \
    X(RDRAND, 11)                                                                                  \
    X(INVPCID, 12)                                                                                 \
    X(VMFUNC, 13)                                                                                  \
    X(VMCS_SHADOWING, 14)                                                                          \
    X(ENCLS, 15)                                                                                   \
    X(RDSEED, 16)                                                                                  \
    X(PML, 17)                                                                                     \
    X(EPT_VE, 18)                                                                                  \
    X(CONCEAL_PT, 19)                                                                              \
    X(XSAVES, 20)                                                                                  \
    X(MODE_BASED_EXECUTE, 22)                                                                      \
    X(SUB_PAGE_WRITE, 23)                                                                          \
    X(PT_GUEST_PHYSICAL, 24)                                                                       \
    X(TSC_SCALING, 25)                                                                             \
    X(USER_WAIT, 26)                                                                               \
    X(PCONFIG, 27)                                                                                 \
    X(ENCLV, 28)
#define VMX_EXIT_CONTROLS(X)                                                                       \
    X(SAVE_DEBUG, 2)                                                                               \
    X(HOST_64, 9)                                                                                  \
    X(LOAD_PERF_GLOBAL, 12)                                                                        \
    X(ACKNOWLEDGE, 15)                                                                             \
    X(SAVE_PAT, 18)                                                                                \
    X(LOAD_PAT, 19)                                                                                \
    X(SAVE_EFER, 20)                                                                               \
    X(LOAD_EFER, 21)                                                                               \
    X(SAVE_TIMER, 22)                                                                              \
    X(CLEAR_BNDCFGS, 23)                                                                           \
    X(CONCEAL_PT, 24)                                                                              \
    X(CLEAR_RTIT, 25)                                                                              \
    X(CLEAR_LBR, 26)                                                                               \
    X(LOAD_CET, 28)                                                                                \
    X(LOAD_PKRS, 29)
#define VMX_ENTRY_CONTROLS(X)                                                                      \
    X(LOAD_DEBUG, 2)                                                                               \
    X(GUEST_64, 9)                                                                                 \
    X(TO_SMM, 10)                                                                                  \
    X(DEACTIVATE_DUAL_MONITOR, 11)                                                                 \
    X(LOAD_PERF_GLOBAL, 13)                                                                        \
    X(LOAD_PAT, 14)                                                                                \
    X(LOAD_EFER, 15)                                                                               \
    X(LOAD_BNDCFGS, 16)                                                                            \
    X(CONCEAL_PT, 17)                                                                              \
    X(LOAD_RTIT, 18)                                                                               \
    X(LOAD_CET, 20)                                                                                \
    X(LOAD_LBR, 21)                                                                                \
    X(LOAD_PKRS, 22)

enum vmx_group {
    VMX_GROUP_PIN,
    VMX_GROUP_PROC,
    VMX_GROUP_PROC2,
    VMX_GROUP_EXIT,
    VMX_GROUP_ENTRY,
    VMX_NGROUPS
};

enum {
#define BIT(prefix, name, bit) prefix##name = (int)(1u << (bit)),
#define PIN(name, bit)         BIT(VMX_PIN_, name, bit)
#define PROC(name, bit)        BIT(VMX_PROC_, name, bit)
#define PROC2(name, bit)       BIT(VMX_PROC2_, name, bit)
#define EXIT(name, bit)        BIT(VMX_EXITC_, name, bit)
#define ENTRY(name, bit)       BIT(VMX_ENTRY_, name, bit)
    VMX_PIN_CONTROLS(PIN) VMX_PROC_CONTROLS(PROC) VMX_PROC2_CONTROLS(PROC2) VMX_EXIT_CONTROLS(EXIT)
        VMX_ENTRY_CONTROLS(ENTRY)
#undef BIT
#undef PIN
#undef PROC
#undef PROC2
#undef EXIT
#undef ENTRY
};

/* "EPT" for bit 1 of VMX_GROUP_PROC2; NULL for a bit without a name. */
const char *vmx_control_name(enum vmx_group group, unsigned bit);
/* "secondary processor-based", ... */
const char *vmx_group_name(enum vmx_group group);

/* ---- capabilities ---- */

/* Bits of vmx_caps.ept_vpid. */
#define VMX_EPT_EXEC_ONLY       (1ull << 0)
#define VMX_EPT_4_LEVELS        (1ull << 6)
#define VMX_EPT_WB              (1ull << 14)
#define VMX_EPT_2M              (1ull << 16)
#define VMX_EPT_1G              (1ull << 17)
#define VMX_EPT_INVEPT          (1ull << 20)
#define VMX_EPT_AD              (1ull << 21)
#define VMX_EPT_INVEPT_SINGLE   (1ull << 25)
#define VMX_EPT_INVEPT_ALL      (1ull << 26)
#define VMX_VPID_INVVPID        (1ull << 32)
#define VMX_VPID_ADDRESS        (1ull << 40)
#define VMX_VPID_SINGLE         (1ull << 41)
#define VMX_VPID_ALL            (1ull << 42)
#define VMX_VPID_RETAIN_GLOBALS (1ull << 43)

struct vmx_caps {
    uint64_t basic, misc;
    uint64_t control[VMX_NGROUPS]; /* low half: bits that are 1; high half: bits that may be 1 */
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t ept_vpid, vmfunc;
    uint64_t feature_control;
};

static inline uint32_t vmx_may_be_1(const struct vmx_caps *c, enum vmx_group g)
{
    return (uint32_t)(c->control[g] >> 32);
}

static inline uint32_t vmx_must_be_1(const struct vmx_caps *c, enum vmx_group g)
{
    return (uint32_t)c->control[g];
}

static inline uint32_t vmx_revision(const struct vmx_caps *c)
{
    return (uint32_t)c->basic & 0x7fffffff;
}

/* TSC ticks per tick of the preemption timer, as a shift. */
static inline unsigned vmx_timer_shift(const struct vmx_caps *c)
{
    return (unsigned)c->misc & 31;
}

/*
 * Reads them on this CPU. 0, or VMM_E_NODEV with `why`: there is no VMX, the firmware has locked it
 * off, or it lacks what every VMX has that is for 64-bit hosts. Enables nothing.
 */
int vmx_caps_read(struct vmx_caps *caps, const struct vmm_host_ops *host, char *why, size_t size);
/* Takes optional controls away, and with VMX_GROUP_PROC2's EPT and VPID what belongs to them: for
 * tests of what is done without. */
void vmx_caps_hide(struct vmx_caps *caps, enum vmx_group group, uint32_t bits);

/* ---- negotiation ---- */

struct vmx_wish {
    uint32_t required[VMX_NGROUPS], wanted[VMX_NGROUPS];
};

struct vmx_controls {
    uint32_t value[VMX_NGROUPS];
    uint32_t refused[VMX_NGROUPS]; /* of the wanted ones */
};

/*
 * All required controls and as many of the wanted as the CPU has and as make sense: one that needs
 * another (SDM Vol. 3C 26.2.1.1) goes with it. 0, or VMM_E_UNSUPPORTED with the names of required
 * ones that are not there.
 */
int vmx_negotiate(const struct vmx_caps *caps, const struct vmx_wish *wish,
                  struct vmx_controls *controls, char *why, size_t size);
/* The names of the controls that are set in `bits`, separated by spaces; cut at `size`. */
void vmx_control_names(enum vmx_group group, uint32_t bits, char *text, size_t size);

#endif
