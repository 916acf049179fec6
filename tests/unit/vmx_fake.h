/* SPDX-License-Identifier: BSD-2-Clause */
/* vmx_fake.h: a fake host of two CPUs with VMX, for hosted tests: capability MSRs of real models,
 * VMCSs that are arrays by field encoding, and the rules of VMXON, VMCLEAR and VMPTRLD. */
#ifndef VMX_FAKE_H
#define VMX_FAKE_H

#include <stdlib.h>
#include <string.h>

#include "vmx/caps.h"
#include "vmx/cpu.h"
#include "vmx/fields.h"
#include "vmx/insn.h"
#include <vmm/host.h>

/* As the CPU models of Bochs 2.7 have them. */
struct fake_model {
    const char *name;
    uint64_t basic, pin, proc, proc2, exit, entry, misc, cr4_fixed1, ept_vpid, vmfunc;
};

#define FAKE_PIN   0x0000007f00000016
#define FAKE_PROC  0xf7f9fffe04006172
#define FAKE_EXIT  0x007fffff00036dfb
#define FAKE_ENTRY 0x0000ffff000011fb
#define FAKE_BASIC 0x00d810000000002b

static const struct fake_model fake_models[] = {
    {"core2_penryn_t9600", FAKE_BASIC, 0x0000003f00000016, FAKE_PROC, 0x0000004100000000,
     0x0003ffff00036dfb, 0x00003fff000011fb, 0x401e0, 0x467ff, 0, 0},
    {"corei5_lynnfield_750", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x0000007f00000000, FAKE_EXIT,
     FAKE_ENTRY, 0x401e0, 0x67ff, 0xf0106114141, 0},
    {"corei5_arrandale_m520", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x000000ff00000000, FAKE_EXIT,
     FAKE_ENTRY, 0x401e0, 0x67ff, 0xf0106114141, 0},
    {"corei7_sandy_bridge_2600k", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x000000ff00000000, FAKE_EXIT,
     FAKE_ENTRY, 0x401e0, 0x627ff, 0xf0106114141, 0},
    {"corei7_ivy_bridge_3770k", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x000008ff00000000, FAKE_EXIT,
     FAKE_ENTRY, 0x401e0, 0x1727ff, 0xf0106114141, 0},
    {"corei7_haswell_4770", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x00047fff00000000, FAKE_EXIT,
     FAKE_ENTRY, 0x200401e0, 0x1727ff, 0xf0106334141, 1},
    {"broadwell_ult", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x00057fff00000000, FAKE_EXIT, FAKE_ENTRY,
     0x200401e0, 0x3727ff, 0xf0106334141, 1},
    {"corei7_skylake_x", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x02177fff00000000, FAKE_EXIT, FAKE_ENTRY,
     0x600401e0, 0x3727ff, 0xf0106334141, 1},
    {"corei3_cnl", FAKE_BASIC, FAKE_PIN, FAKE_PROC, 0x02157cff00000000, FAKE_EXIT, FAKE_ENTRY,
     0x600401e0, 0x772fff, 0xf0106334141, 1},
    {"corei7_icelake_u", 0x00d8100000000004, FAKE_PIN, 0xfff9fffe04006172, 0x02977fff00000000,
     FAKE_EXIT, FAKE_ENTRY, 0x600401e0, 0x772fff, 0xf0106334141, 1},
    {"tigerlake", 0x01d8100000000004, FAKE_PIN, 0xfff9fffe04006172, 0x02977fff00000000,
     0x107fffff00036dfb, 0x0010ffff000011fb, 0x600401e0, 0xf72fff, 0xf0106b34141, 1},
};
#define FAKE_NMODELS (sizeof(fake_models) / sizeof(fake_models[0]))

#define FAKE_CPUS  2
#define FAKE_VMCSS 4

struct fake_vmcs {
    uint64_t phys;      /* 0: free */
    uint64_t active_on; /* CPU + 1; 0: clear */
    uint64_t fields[0x7000];
};

static struct {
    const struct fake_model *model; /* NULL: a CPU without VMX */
    uint64_t feature_control[FAKE_CPUS], cr0[FAKE_CPUS], cr4[FAKE_CPUS];
    bool on[FAKE_CPUS];
    struct fake_vmcs *current[FAKE_CPUS];
    struct fake_vmcs vmcs[FAKE_VMCSS];
    uint32_t cpu;
    unsigned preempt, remote_calls, pages;
    uint32_t lost;     /* CPUs that run_on_cpu does not reach */
    bool in_interrupt; /* as a call of another CPU is */
    uint64_t tsc, late[FAKE_CPUS];
    uint32_t other; /* CPUs with another revision */
    int fail_pages; /* pages_alloc fails when it counts down to 0; negative: never */
    bool msrs_fault;
    int fail_msrs;                /* the same of rdmsr */
    uint64_t bias;                /* virtual less physical addresses */
    uint64_t invvpids[FAKE_CPUS]; /* executed */
} fake;

/* ---- the CPU ---- */

static inline struct fake_vmcs *fake_vmcs_of(uint64_t phys, bool make)
{
    for (unsigned i = 0; i < FAKE_VMCSS; i++)
        if (fake.vmcs[i].phys == phys)
            return &fake.vmcs[i];
    for (unsigned i = 0; make && i < FAKE_VMCSS; i++)
        if (!fake.vmcs[i].phys) {
            fake.vmcs[i].phys = phys;
            return &fake.vmcs[i];
        }
    return NULL;
}

static inline bool fake_revision_ok(uint64_t phys)
{
    return *(const uint32_t *)(uintptr_t)(phys + fake.bias) ==
           ((uint32_t)fake.model->basic & 0x7fffffff);
}

int vmx_insn_on(uint64_t phys)
{
    ck_assert_msg(fake.preempt, "VMXON with preemption on");
    ck_assert(fake.model);
    ck_assert_msg(fake.cr4[fake.cpu] >> 13 & 1, "VMXON raises #UD");
    ck_assert_msg((fake.feature_control[fake.cpu] & 5) == 5, "VMXON raises #GP");
    if (fake.on[fake.cpu] || !fake_revision_ok(phys))
        return VMX_FAIL_INVALID;
    fake.on[fake.cpu] = true;
    fake.current[fake.cpu] = NULL;
    return VMX_OK;
}

void vmx_insn_off(void)
{
    ck_assert_msg(fake.on[fake.cpu], "VMXOFF raises #UD");
    fake.on[fake.cpu] = false;
}

int vmx_insn_clear(uint64_t phys)
{
    struct fake_vmcs *v = fake_vmcs_of(phys, true);

    ck_assert_msg(fake.on[fake.cpu], "VMCLEAR raises #UD");
    ck_assert_msg(!v->active_on || v->active_on == fake.cpu + 1,
                  "VMCLEAR on another CPU than where the VMCS is active");
    v->active_on = 0;
    if (fake.current[fake.cpu] == v)
        fake.current[fake.cpu] = NULL;
    return VMX_OK;
}

int vmx_insn_load(uint64_t phys)
{
    struct fake_vmcs *v = fake_vmcs_of(phys, false);

    ck_assert_msg(fake.on[fake.cpu], "VMPTRLD raises #UD");
    ck_assert_msg(v, "VMPTRLD of a region that was never cleared");
    ck_assert_msg(!v->active_on || v->active_on == fake.cpu + 1,
                  "VMPTRLD of a VMCS that is active on another CPU");
    if (!fake_revision_ok(phys))
        return VMX_FAIL_VALID;
    v->active_on = fake.cpu + 1;
    fake.current[fake.cpu] = v;
    return VMX_OK;
}

uint64_t vmx_insn_read(uint32_t field)
{
    ck_assert(fake.current[fake.cpu] && vmx_field_info(field));
    return fake.current[fake.cpu]->fields[field];
}

int vmx_insn_write(uint32_t field, uint64_t value)
{
    if (!fake.current[fake.cpu])
        return VMX_FAIL_INVALID;
    if (!vmx_field_info(field))
        return VMX_FAIL_VALID;
    if (vmx_field_width(field) < 64)
        value &= (1ull << vmx_field_width(field)) - 1;
    fake.current[fake.cpu]->fields[field] = value;
    return VMX_OK;
}

int vmx_insn_invept(uint64_t type, const struct vmx_inv_operand *op)
{
    (void)type;
    (void)op;
    return VMX_OK;
}

/* Types 1 (of one VPID, which is not 0) and 2, where the CPU has them. */
int vmx_insn_invvpid(uint64_t type, const struct vmx_inv_operand *op)
{
    ck_assert_msg(fake.model && (fake.model->ept_vpid >> 32 & 1), "INVVPID raises #UD");
    if (type < 1 || type > 2 || !(fake.model->ept_vpid >> (40 + type) & 1) || op->what >> 16 ||
        (type == 1 && !op->what))
        return VMX_FAIL_INVALID;
    fake.invvpids[fake.cpu]++;
    return VMX_OK;
}

void vmx_insn_cpuid_sub(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    (void)subleaf;
    memset(out, 0, 16);
    if (leaf == 1 && fake.model) {
        out[2] = 1u << 5;
        out[3] = 1u << 12; /* MTRR */
    }
    if (leaf == 0)
        out[0] = 1;
    if (leaf == 0x80000000)
        out[0] = 0x80000008;
    if (leaf == 0x80000008)
        out[0] = 39;
}

#ifndef FAKE_HAS_MSRS /* else the test has these */
/* Sessions, which no test of a process begins. */
uint64_t vmx_insn_rdmsr(uint32_t index)
{
    ck_abort_msg("RDMSR of %#x outside of the host's function", index);
}

void vmx_insn_wrmsr(uint32_t index, uint64_t value)
{
    (void)value;
    ck_abort_msg("WRMSR of %#x outside of the host's function", index);
}
#endif

uint64_t vmx_insn_xgetbv(void)
{
    ck_abort_msg("XGETBV raises #UD");
}

void vmx_insn_xsetbv(uint64_t v)
{
    (void)v;
    ck_abort_msg("XSETBV raises #UD");
}

uint64_t vmx_insn_get_cr0(void)
{
    return fake.cr0[fake.cpu];
}

uint64_t vmx_insn_get_cr4(void)
{
    return fake.cr4[fake.cpu];
}

void vmx_insn_set_cr4(uint64_t v)
{
    fake.cr4[fake.cpu] = v;
}

/* The counter of a CPU is behind those of the others by fake.late. */
uint64_t vmx_insn_rdtsc(void)
{
    return ++fake.tsc - fake.late[fake.cpu];
}

/* ---- the host ---- */

static inline uint64_t fake_phys(void *ctx, const void *p)
{
    (void)ctx;
    return (uintptr_t)p - fake.bias;
}

static inline void *fake_pages_alloc(void *ctx, size_t n)
{
    void *p;

    (void)ctx;
    ck_assert_msg(!fake.in_interrupt, "pages are wanted in an interrupt");
    if (fake.fail_pages >= 0 && fake.fail_pages-- == 0)
        return NULL;
    p = aligned_alloc(4096, n * 4096);
    memset(p, 0, n * 4096);
    fake.pages += (unsigned)n;
    return p;
}

static inline void fake_pages_free(void *ctx, void *p, size_t n)
{
    (void)ctx;
    ck_assert_msg(!fake.in_interrupt, "pages are given back in an interrupt");
    for (unsigned i = 0; i < FAKE_VMCSS; i++)
        if (fake.vmcs[i].phys == fake_phys(NULL, p)) {
            ck_assert_msg(!fake.vmcs[i].active_on, "an active VMCS is freed");
            memset(&fake.vmcs[i], 0, sizeof(fake.vmcs[i]));
        }
    fake.pages -= (unsigned)n;
    free(p);
}

static inline uint32_t fake_cpu_id(void *ctx)
{
    (void)ctx;
    return fake.cpu;
}

static inline int fake_run_on_cpu(void *ctx, uint32_t cpu, void (*fn)(void *arg), void *arg)
{
    uint32_t old = fake.cpu;

    (void)ctx;
    fake.remote_calls++;
    if (fake.lost >> cpu & 1)
        return 1;
    fake.cpu = cpu;
    fake.in_interrupt = cpu != old;
    fake.preempt++; /* interrupts are off */
    fn(arg);
    fake.preempt--;
    fake.in_interrupt = false;
    fake.cpu = old;
    return 0;
}

static inline void fake_preempt_off(void *ctx)
{
    (void)ctx;
    fake.preempt++;
}

static inline void fake_preempt_on(void *ctx)
{
    (void)ctx;
    fake.preempt--;
}

static inline int fake_rdmsr(void *ctx, uint32_t index, uint64_t *value)
{
    const struct fake_model *m = fake.model;

    (void)ctx;
    if (!m || fake.msrs_fault || (fake.fail_msrs >= 0 && fake.fail_msrs-- == 0))
        return 1;
    switch (index) {
    case VMX_MSR_FEATURE_CONTROL:
        *value = fake.feature_control[fake.cpu];
        return 0;
    case VMX_MSR_BASIC:
        *value = m->basic ^ (fake.other >> fake.cpu & 1);
        return 0;
    case VMX_MSR_MISC:
        *value = m->misc;
        return 0;
    case VMX_MSR_CR0_FIXED0:
        *value = 0x80000021;
        return 0;
    case VMX_MSR_CR0_FIXED1:
        *value = 0xffffffff;
        return 0;
    case VMX_MSR_CR4_FIXED0:
        *value = 0x2000;
        return 0;
    case VMX_MSR_CR4_FIXED1:
        *value = m->cr4_fixed1;
        return 0;
    case VMX_MSR_TRUE_PIN:
        *value = m->pin;
        return 0;
    case VMX_MSR_TRUE_PROC:
        *value = m->proc;
        return 0;
    case VMX_MSR_TRUE_EXIT:
        *value = m->exit;
        return 0;
    case VMX_MSR_TRUE_ENTRY:
        *value = m->entry;
        return 0;
    /* Without the true controls more bits are 1. */
    case VMX_MSR_PIN:
        *value = m->pin;
        return 0;
    case VMX_MSR_PROC:
        *value = m->proc | 0x0401e172;
        return 0;
    case VMX_MSR_EXIT:
        *value = m->exit | 0x00036dff;
        return 0;
    case VMX_MSR_ENTRY:
        *value = m->entry | 0x000011ff;
        return 0;
    case VMX_MSR_PROC2:
        *value = m->proc2;
        return 0;
    case VMX_MSR_EPT_VPID:
        *value = m->ept_vpid;
        return !m->ept_vpid;
    case VMX_MSR_VMFUNC:
        *value = m->vmfunc;
        return !m->vmfunc;
    default:
        return 1;
    }
}

static inline int fake_wrmsr(void *ctx, uint32_t index, uint64_t value)
{
    (void)ctx;
    if (index != VMX_MSR_FEATURE_CONTROL || (fake.feature_control[fake.cpu] & 1))
        return 1;
    fake.feature_control[fake.cpu] = value;
    return 0;
}

static inline void *fake_phys_to_virt(void *ctx, uint64_t phys)
{
    (void)ctx;
    return (void *)(uintptr_t)(phys + fake.bias);
}

static inline uint32_t fake_cpu_count(void *ctx)
{
    (void)ctx;
    return FAKE_CPUS;
}

static inline void **fake_thread_slot(void *ctx)
{
    static void *slot;

    (void)ctx;
    return &slot;
}

static const struct vmm_host_ops fake_host = {.size = sizeof(fake_host),
                                              .pages_alloc = fake_pages_alloc,
                                              .pages_free = fake_pages_free,
                                              .virt_to_phys = fake_phys,
                                              .cpu_id = fake_cpu_id,
                                              .run_on_cpu = fake_run_on_cpu,
                                              .preempt_off = fake_preempt_off,
                                              .preempt_on = fake_preempt_on,
                                              .rdmsr = fake_rdmsr,
                                              .wrmsr = fake_wrmsr};

static struct vmx_cpu fake_cpus[FAKE_CPUS];

/* A fresh host of a model; its capabilities are not read. */
static inline void fake_reset(const struct fake_model *model, struct vmx_machine *m)
{
    memset(&fake, 0, sizeof(fake));
    memset(fake_cpus, 0, sizeof(fake_cpus));
    fake.model = model;
    fake.fail_pages = fake.fail_msrs = -1;
    fake.tsc = 1000000;
    for (unsigned i = 0; i < FAKE_CPUS; i++) {
        fake.cr0[i] = 0x80050033;
        fake.cr4[i] = 0x620;
    }
    *m = (struct vmx_machine){.host = &fake_host, .ncpus = FAKE_CPUS, .cpus = fake_cpus};
}

static inline const struct fake_model *fake_model(const char *name)
{
    for (unsigned i = 0; i < FAKE_NMODELS; i++)
        if (!strcmp(fake_models[i].name, name))
            return &fake_models[i];
    ck_abort_msg("no model %s", name);
}

#endif
