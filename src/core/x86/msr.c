/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/msr.c: the model-specific registers of the CPU itself; RDMSR and WRMSR. */
#include "core/x86/segment.h"
#include "core/x86/sys_handlers.h"

/* Architectural numbers (SDM Vol. 4 chapter 2). */
enum {
    IA32_TSC = 0x10,
    IA32_PLATFORM_ID = 0x17,
    IA32_TSC_ADJUST = 0x3b,
    IA32_SPEC_CTRL = 0x48,
    IA32_BIOS_SIGN_ID = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    IA32_MTRRCAP = 0xfe,
    IA32_ARCH_CAPABILITIES = 0x10a,
    MSR_MISC_FEATURES_ENABLES = 0x140,
    IA32_SYSENTER_CS = 0x174,
    IA32_SYSENTER_ESP = 0x175,
    IA32_SYSENTER_EIP = 0x176,
    IA32_MCG_CAP = 0x179,
    IA32_MCG_STATUS = 0x17a,
    IA32_MISC_ENABLE = 0x1a0,
    IA32_MTRR_PHYSBASE0 = 0x200,
    IA32_MTRR_FIX64K_00000 = 0x250,
    IA32_MTRR_FIX16K_80000 = 0x258,
    IA32_MTRR_FIX4K_C0000 = 0x268,
    IA32_PAT = 0x277,
    IA32_MTRR_DEF_TYPE = 0x2ff,
    IA32_XSS = 0xda0,
};
#define IA32_EFER           0xc0000080u
#define IA32_STAR           0xc0000081u
#define IA32_LSTAR          0xc0000082u
#define IA32_CSTAR          0xc0000083u
#define IA32_FMASK          0xc0000084u
#define IA32_FS_BASE        0xc0000100u
#define IA32_GS_BASE        0xc0000101u
#define IA32_KERNEL_GS_BASE 0xc0000102u
#define IA32_TSC_AUX        0xc0000103u

/* Eight variable ranges, fixed ranges, write combining. */
#define MTRR_VAR_COUNT 8
#define MTRRCAP        (MTRR_VAR_COUNT | 1u << 8 | 1u << 10)

/* What a CPU that speculates on nothing is not vulnerable to: RDCL_NO, SKIP_L1DFL_VMENTRY, SSB_NO,
 * MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO,
 * RFDS_NO, ITS_NO. */
#define ARCH_CAPABILITIES                                                                          \
    (1ull << 62 | 1ull << 0 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 |          \
     1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27)

#define PLATFORM_INFO      (1ull << 31) /* CPUID faulting */
#define MICROCODE_REVISION (1ull << 32)

/* IA32_MISC_ENABLE: writable bits, and read-only ones that a write may hold either way. */
#define MISC_ENABLE_RW                                                                             \
    (X86_MISC_FAST_STRINGS | 1ull << 3 | 1ull << 16 | 1ull << 18 | X86_MISC_LIMIT_CPUID |          \
     1ull << 23 | X86_MISC_XD_DISABLE)
#define MISC_ENABLE_RO (1ull << 7 | X86_MISC_BTS_NONE | X86_MISC_PEBS_NONE)

/* ---- values ---- */

/* Memory types: UC, WC, WT, WP, WB; PAT also has UC-. */
static bool memory_type(uint8_t type, bool pat)
{
    return type <= 6 && type != 2 && type != 3 ? true : pat && type == 7;
}

static bool memory_types(uint64_t value, bool pat)
{
    for (unsigned i = 0; i < 8; i++)
        if (!memory_type((uint8_t)(value >> (8 * i)), pat))
            return false;
    return true;
}

bool x86_pat_valid(uint64_t value)
{
    /* Type 7 is UC-, the MTRRs do not have it. */
    return memory_types(value, true);
}

static bool mtrr_fixed_valid(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return memory_types(value, false);
}

static bool pat_valid(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return x86_pat_valid(value);
}

static bool low32(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return !(value >> 32);
}

static bool mtrr_def_valid(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return !(value & ~(uint64_t)0xcff) && memory_type((uint8_t)value, false);
}

static bool mcg_status_valid(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return !(value & ~(uint64_t)7);
}

static bool spec_ctrl_valid(const struct x86_cpu *cpu, uint64_t value)
{
    uint64_t bits = 0;

    if (cpu->feat.l7_edx & X86_F7_EDX_IBRS)
        bits |= 1;
    if (cpu->feat.l7_edx & X86_F7_EDX_STIBP)
        bits |= 2;
    if (cpu->feat.l7_edx & X86_F7_EDX_SSBD)
        bits |= 4;
    return !(value & ~bits);
}

static bool misc_features_valid(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return value <= 1;
}

static bool zero(const struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    return value == 0;
}

/* ---- registers that are more than a field ---- */

static bool set_efer(struct x86_cpu *cpu, uint64_t value)
{
    struct x86_event before = cpu->event;

    if (x86_set_efer(cpu, value))
        return true;
    cpu->event = before; /* the caller knows what to raise */
    return false;
}

static uint64_t get_tsc(const struct x86_cpu *cpu)
{
    return cpu->env->tsc(cpu->env->mmu.ctx);
}

static bool set_tsc(struct x86_cpu *cpu, uint64_t value)
{
    cpu->tsc_adjust += value - get_tsc(cpu);
    cpu->env->set_tsc(cpu->env->mmu.ctx, value);
    return true;
}

static bool set_tsc_adjust(struct x86_cpu *cpu, uint64_t value)
{
    cpu->env->set_tsc(cpu->env->mmu.ctx, get_tsc(cpu) + value - cpu->tsc_adjust);
    cpu->tsc_adjust = value;
    return true;
}

static bool set_misc_enable(struct x86_cpu *cpu, uint64_t value)
{
    if (value & ~(MISC_ENABLE_RW | MISC_ENABLE_RO))
        return false;
    cpu->misc_enable = (value & MISC_ENABLE_RW) | (cpu->misc_enable & MISC_ENABLE_RO);
    return true;
}

static uint64_t get_platform_info(const struct x86_cpu *cpu)
{
    (void)cpu;
    return PLATFORM_INFO;
}

static uint64_t get_mtrrcap(const struct x86_cpu *cpu)
{
    (void)cpu;
    return MTRRCAP;
}

static uint64_t get_arch_capabilities(const struct x86_cpu *cpu)
{
    (void)cpu;
    return ARCH_CAPABILITIES;
}

static uint64_t get_microcode(const struct x86_cpu *cpu)
{
    (void)cpu;
    return MICROCODE_REVISION;
}

static uint64_t get_zero(const struct x86_cpu *cpu)
{
    (void)cpu;
    return 0;
}

static bool ignore(struct x86_cpu *cpu, uint64_t value)
{
    (void)cpu;
    (void)value;
    return true;
}

/* ---- the table ---- */

enum need { ALWAYS, TSC, TSC_ADJUST, SPEC, ARCH_CAP, SEP, MCA, MTRR, PAT, XSAVES, EFER, LM, AUX };

static bool has(const struct x86_cpu *cpu, enum need need)
{
    switch (need) {
    case TSC:
        return cpu->feat.l1_edx & X86_F1_EDX_TSC;
    case TSC_ADJUST:
        return cpu->feat.l7_ebx & X86_F7_EBX_TSC_ADJUST;
    case SPEC:
        return cpu->feat.l7_edx & (X86_F7_EDX_IBRS | X86_F7_EDX_STIBP | X86_F7_EDX_SSBD);
    case ARCH_CAP:
        return cpu->feat.l7_edx & X86_F7_EDX_ARCH_CAP;
    case SEP:
        return cpu->feat.l1_edx & X86_F1_EDX_SEP;
    case MCA:
        return cpu->feat.l1_edx & X86_F1_EDX_MCA;
    case MTRR:
        return cpu->feat.l1_edx & X86_F1_EDX_MTRR;
    case PAT:
        return cpu->feat.l1_edx & X86_F1_EDX_PAT;
    case XSAVES:
        return cpu->feat.xsave_eax & X86_FD1_XSAVES;
    case EFER:
        return cpu->feat.x1_edx & (X86_FX1_EDX_LM | X86_FX1_EDX_NX | X86_FX1_EDX_SYSCALL);
    case LM:
        return cpu->feat.x1_edx & X86_FX1_EDX_LM;
    case AUX:
        return (cpu->feat.x1_edx & X86_FX1_EDX_RDTSCP) || (cpu->feat.l7_ecx & X86_F7_ECX_RDPID);
    default:
        return true;
    }
}

#define FIELD(f) offsetof(struct x86_cpu, f)

/* `get` NULL: the field. `set` NULL: the field, after `valid` (NULL: all values) and, for
 * addresses, if canonical. Read-only registers have a `get` and no `set`. Sorted by index. */
static const struct msr {
    uint32_t index;
    uint16_t count; /* consecutive numbers: consecutive fields */
    uint8_t need;
    bool address;
    size_t field;
    bool (*valid)(const struct x86_cpu *cpu, uint64_t value);
    uint64_t (*get)(const struct x86_cpu *cpu);
    bool (*set)(struct x86_cpu *cpu, uint64_t value);
} msrs[] = {
    {IA32_TSC, 1, TSC, .get = get_tsc, .set = set_tsc},
    {IA32_PLATFORM_ID, 1, ALWAYS, .get = get_zero},
    {IA32_TSC_ADJUST, 1, TSC_ADJUST, .field = FIELD(tsc_adjust), .set = set_tsc_adjust},
    {IA32_SPEC_CTRL, 1, SPEC, .field = FIELD(spec_ctrl), .valid = spec_ctrl_valid},
    {IA32_BIOS_SIGN_ID, 1, ALWAYS, .get = get_microcode, .set = ignore},
    {MSR_PLATFORM_INFO, 1, ALWAYS, .get = get_platform_info},
    {IA32_MTRRCAP, 1, MTRR, .get = get_mtrrcap},
    {IA32_ARCH_CAPABILITIES, 1, ARCH_CAP, .get = get_arch_capabilities},
    {MSR_MISC_FEATURES_ENABLES, 1, ALWAYS, .field = FIELD(misc_features),
     .valid = misc_features_valid},
    {IA32_SYSENTER_CS, 1, SEP, .field = FIELD(sysenter_cs), .valid = low32},
    {IA32_SYSENTER_ESP, 1, SEP, .address = true, .field = FIELD(sysenter_esp)},
    {IA32_SYSENTER_EIP, 1, SEP, .address = true, .field = FIELD(sysenter_eip)},
    {IA32_MCG_CAP, 1, MCA, .get = get_zero}, /* no banks */
    {IA32_MCG_STATUS, 1, MCA, .field = FIELD(mcg_status), .valid = mcg_status_valid},
    {IA32_MISC_ENABLE, 1, ALWAYS, .field = FIELD(misc_enable), .set = set_misc_enable},
    {IA32_MTRR_FIX64K_00000, 1, MTRR, .field = FIELD(mtrr_fixed[0]), .valid = mtrr_fixed_valid},
    {IA32_MTRR_FIX16K_80000, 2, MTRR, .field = FIELD(mtrr_fixed[1]), .valid = mtrr_fixed_valid},
    {IA32_MTRR_FIX4K_C0000, 8, MTRR, .field = FIELD(mtrr_fixed[3]), .valid = mtrr_fixed_valid},
    {IA32_PAT, 1, PAT, .field = FIELD(pat), .valid = pat_valid},
    {IA32_MTRR_DEF_TYPE, 1, MTRR, .field = FIELD(mtrr_cap_def), .valid = mtrr_def_valid},
    {IA32_XSS, 1, XSAVES, .field = FIELD(xss), .valid = zero},
    {IA32_EFER, 1, EFER, .field = FIELD(efer), .set = set_efer},
    {IA32_STAR, 1, LM, .field = FIELD(star)},
    {IA32_LSTAR, 1, LM, .address = true, .field = FIELD(lstar)},
    {IA32_CSTAR, 1, LM, .address = true, .field = FIELD(cstar)},
    {IA32_FMASK, 1, LM, .field = FIELD(sfmask), .valid = low32},
    {IA32_FS_BASE, 1, LM, .address = true, .field = FIELD(seg[VMM_FS].base)},
    {IA32_GS_BASE, 1, LM, .address = true, .field = FIELD(seg[VMM_GS].base)},
    {IA32_KERNEL_GS_BASE, 1, LM, .address = true, .field = FIELD(kernel_gs_base)},
    {IA32_TSC_AUX, 1, AUX, .field = FIELD(tsc_aux), .valid = low32},
};

static const struct msr *find(const struct x86_cpu *cpu, uint32_t index)
{
    unsigned lo = 0, hi = sizeof(msrs) / sizeof(msrs[0]);

    while (hi - lo > 1) {
        unsigned mid = (lo + hi) / 2;

        if (index < msrs[mid].index)
            hi = mid;
        else
            lo = mid;
    }
    return index - msrs[lo].index < msrs[lo].count && has(cpu, (enum need)msrs[lo].need) ? &msrs[lo]
                                                                                         : NULL;
}

static uint64_t *field(struct x86_cpu *cpu, const struct msr *m, uint32_t index)
{
    return (uint64_t *)(void *)((uint8_t *)cpu + m->field) + (index - m->index);
}

/* Variable MTRRs alternate between base and mask, which have different reserved bits. */
static uint64_t *mtrr_var(struct x86_cpu *cpu, uint32_t index)
{
    if (index - IA32_MTRR_PHYSBASE0 >= 2 * MTRR_VAR_COUNT || !has(cpu, MTRR))
        return NULL;
    return &cpu->mtrr_var[index - IA32_MTRR_PHYSBASE0];
}

static bool mtrr_var_valid(const struct x86_cpu *cpu, uint32_t index, uint64_t value)
{
    if (value >> cpu->feat.gpa_bits)
        return false;
    if (index & 1)
        return !(value & 0x7ff);
    return !(value & 0xf00) && memory_type((uint8_t)value, false);
}

bool x86_read_msr(struct x86_cpu *cpu, uint32_t index, uint64_t *value, bool host)
{
    const struct msr *m = find(cpu, index);
    const uint64_t *var = mtrr_var(cpu, index);

    (void)host;
    if (var) {
        *value = *var;
        return true;
    }
    if (!m)
        return false;
    *value = m->get ? m->get(cpu) : *field(cpu, m, index);
    return true;
}

/* A read-only register of constant value takes that value from the host program, so that saved
 * state can be restored. */
static bool write_constant(struct x86_cpu *cpu, const struct msr *m, uint64_t value, bool host)
{
    return host && value == m->get(cpu);
}

bool x86_write_msr(struct x86_cpu *cpu, uint32_t index, uint64_t value, bool host)
{
    const struct msr *m = find(cpu, index);
    uint64_t *var = mtrr_var(cpu, index);

    if (var) {
        if (!mtrr_var_valid(cpu, index, value))
            return false;
        *var = value;
        return true;
    }
    if (!m)
        return false;
    if (m->set)
        return m->set(cpu, value);
    if (m->get)
        return write_constant(cpu, m, value, host);
    if ((m->address && !x86_canonical(cpu, value)) || (m->valid && !m->valid(cpu, value)))
        return false;
    *field(cpu, m, index) = value;
    return true;
}

/* ---- RDMSR and WRMSR ---- */

/* The surroundings first, then the table; false: an exception is queued or cpu->stop set. */
static bool access(struct x86_cpu *cpu, const struct x86_op *op, bool write, uint64_t *value)
{
    uint32_t index = X86_R32(cpu, VMM_RCX);
    bool handled = false;

    if (cpu->cpl) {
        x86_raise_err(cpu, X86_GP, 0);
        return false;
    }
    cpu->cur_idx = op->idx;
    if (!x86_env_result(cpu, cpu->env->msr(cpu->env->mmu.ctx, index, write, value, &handled)))
        return false;
    if (handled)
        return true;
    if (write ? x86_write_msr(cpu, index, *value, false) : x86_read_msr(cpu, index, value, false))
        return true;
    x86_raise_err(cpu, X86_GP, 0);
    return false;
}

const struct x86_op *x86_sys_rdmsr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value = 0;

    if (!access(cpu, op, false, &value))
        return x86_leave(cpu, op);
    cpu->gpr[VMM_RAX] = (uint32_t)value;
    cpu->gpr[VMM_RDX] = value >> 32;
    return op + 1;
}

const struct x86_op *x86_sys_wrmsr(struct x86_cpu *cpu, const struct x86_op *op)
{
    uint64_t value = (uint64_t)X86_R32(cpu, VMM_RDX) << 32 | X86_R32(cpu, VMM_RAX);

    x86_serialize();
    if (!access(cpu, op, true, &value))
        return x86_leave(cpu, op);
    return x86_go_checked(cpu, x86_op_next(cpu, op));
}
