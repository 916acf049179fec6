/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_area.c: lists of MSRs that entries and exits load and store, and what the engine puts
 * into them, executed by a CPU that has the manual's rules for them. */
#include <check.h>
#include <stdio.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "freestanding/host.h"
#include "vmx/check.h"
#define FAKE_HAS_MSRS
#include "vmx_fake.h"

const struct vmm_host_ops *vmm_host = &fake_host;
const struct vmm_backend_ops *const vmm_backends[] = {NULL};

#define EFER      0xc0000080u
#define PAT       0x277u
#define LSTAR     0xc0000082u
#define FS_BASE   0xc0000100u
#define GS_BASE   0xc0000101u
#define KERNEL_GS 0xc0000102u
#define TSC_AUX   0xc0000103u
#define GOOD_PAT  0x0007040600070406ull
#define PHYS_BITS 39

static uint64_t seed = 1;

static uint32_t rnd(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33);
}

/* ---- the CPU ---- */

static struct {
    uint32_t index;
    uint64_t value[FAKE_CPUS];
} msrs[] = {{EFER, {0}},    {PAT, {0}},       {LSTAR, {0}},   {FS_BASE, {0}},
            {GS_BASE, {0}}, {KERNEL_GS, {0}}, {TSC_AUX, {0}}, {0x174, {0}},
            {0x802, {0}},   {0x9b, {0}},      {0x9e, {0}},    {0x79, {0}}};
static bool paging; /* of whom the CPU runs */

static uint64_t *msr(uint32_t index)
{
    for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++)
        if (msrs[i].index == index)
            return &msrs[i].value[fake.cpu];
    return NULL;
}

uint64_t vmx_insn_rdmsr(uint32_t index)
{
    ck_assert_ptr_nonnull(msr(index));
    return *msr(index);
}

static bool good_pat(uint64_t pat)
{
    for (unsigned i = 0; i < 8; i++)
        if ((pat >> 8 * i & 0xff) > 7 || (pat >> 8 * i & 0xfe) == 2)
            return false;
    return true;
}

/* False: #GP. */
static bool wrmsr(uint32_t index, uint64_t value)
{
    uint64_t *m = msr(index);

    if (!m)
        return false;
    if (index == EFER) {
        if ((value & ~0xd01ull) || (paging && ((value ^ *m) & 0x100)))
            return false;
        value = (value & ~0x400ull) | (*m & 0x400);
    } else if (index == PAT && !good_pat(value)) {
        return false;
    } else if (index == TSC_AUX && value >> 32) {
        return false;
    } else if ((index == LSTAR || index == KERNEL_GS) &&
               (uint64_t)((int64_t)(value << 16) >> 16) != value) {
        return false;
    }
    *m = value;
    return true;
}

void vmx_insn_wrmsr(uint32_t index, uint64_t value)
{
    ck_assert_msg(wrmsr(index, value), "WRMSR of %#x raises #GP", index);
}

/* A list of the current VMCS, in memory. */
static struct vmx_area_msr *list_of(uint32_t address, uint32_t count, uint64_t *n)
{
    uint64_t at = vmx_insn_read(address);

    *n = vmx_insn_read(count);
    ck_assert_msg(!*n || !(at & 15), "the CPU refuses the address");
    return (struct vmx_area_msr *)(uintptr_t)(at + fake.bias);
}

/* SDM Vol. 3C 26.4 and 27.6: the number of the entry that fails, or 0. */
static unsigned load(uint32_t address, uint32_t count)
{
    uint64_t n;
    const struct vmx_area_msr *m = list_of(address, count, &n);

    for (unsigned i = 0; i < n; i++)
        if (m[i].index == FS_BASE || m[i].index == GS_BASE || m[i].index >> 8 == 8 ||
            m[i].index == 0x9b || m[i].index == 0x9e || m[i].index == 0x79 || m[i].zero ||
            !wrmsr(m[i].index, m[i].value))
            return i + 1;
    return 0;
}

/* 27.4. */
static unsigned store(void)
{
    uint64_t n;
    struct vmx_area_msr *m = list_of(VMX_EXIT_MSR_STORE_ADDR, VMX_EXIT_MSR_STORE_COUNT, &n);

    for (unsigned i = 0; i < n; i++) {
        if (m[i].index >> 8 == 8 || m[i].index == 0x9e || m[i].zero || !msr(m[i].index))
            return i + 1;
        m[i].value = *msr(m[i].index);
    }
    return 0;
}

static void set_long(bool on, bool lme)
{
    uint64_t *efer = msr(EFER);

    *efer = on ? *efer | 0x400 : *efer & ~0x400ull;
    if (lme)
        *efer = on ? *efer | 0x100 : *efer & ~0x100ull;
}

/* What it does with MSRs; false: VMX abort. */
static bool leave(struct vmx_vmcs *v, bool stores)
{
    uint32_t *indicator = (uint32_t *)v->page + 1;

    if (stores && store()) {
        *indicator = 1;
        return false;
    }
    paging = true;
    set_long(true, true);
    if (vmx_insn_read(VMX_EXIT_CTLS) & VMX_EXITC_LOAD_EFER)
        *msr(EFER) = vmx_insn_read(VMX_HOST_EFER);
    if (vmx_insn_read(VMX_EXIT_CTLS) & VMX_EXITC_LOAD_PAT)
        *msr(PAT) = vmx_insn_read(VMX_HOST_PAT);
    if (load(VMX_EXIT_MSR_LOAD_ADDR, VMX_EXIT_MSR_LOAD_COUNT)) {
        *indicator = 4;
        return false;
    }
    return true;
}

/* False: an entry failure, with the host's state behind it. */
static bool enter(struct vmx_vmcs *v)
{
    unsigned n;

    paging = vmx_insn_read(VMX_GUEST_CR0) & X86_CR0_PG;
    set_long(vmx_insn_read(VMX_ENTRY_CTLS) & VMX_ENTRY_GUEST_64, paging);
    if (vmx_insn_read(VMX_ENTRY_CTLS) & VMX_ENTRY_LOAD_EFER)
        *msr(EFER) = vmx_insn_read(VMX_GUEST_EFER);
    if (vmx_insn_read(VMX_ENTRY_CTLS) & VMX_ENTRY_LOAD_PAT)
        *msr(PAT) = vmx_insn_read(VMX_GUEST_PAT);
    n = load(VMX_ENTRY_MSR_LOAD_ADDR, VMX_ENTRY_MSR_LOAD_COUNT);
    if (!n)
        return true;
    vmx_insn_write(VMX_EXIT_REASON, VMX_EXIT_ENTRY_FAILED | VMX_EXIT_ENTRY_MSR_LOADING);
    vmx_insn_write(VMX_EXIT_QUALIFICATION, n);
    ck_assert(leave(v, false));
    return false;
}

/* ---- a VMCS ---- */

static struct vmx_vcpu vcpu;
static struct x86_cpu cpu;
static char why[200];

/* `fields`: entries and exits load EFER and PAT; else this is hidden from the engine. */
static void start(const struct fake_model *model, bool fields)
{
    static const struct vmx_wish wish = {
        .required = {[VMX_GROUP_EXIT] = VMX_EXITC_HOST_64},
        .wanted = {[VMX_GROUP_PROC2] = VMX_PROC2_EPT | VMX_PROC2_UNRESTRICTED_GUEST,
                   [VMX_GROUP_EXIT] = VMX_EXITC_LOAD_EFER | VMX_EXITC_LOAD_PAT,
                   [VMX_GROUP_ENTRY] = VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_PAT}};

    fake_reset(model, &vmx_machine);
    fake.preempt = 1;
    ck_assert_int_eq(vmx_caps_read(&vmx_machine.caps, vmx_machine.host, why, sizeof(why)), 0);
    ck_assert_int_eq(vmx_machine_on(&vmx_machine, why, sizeof(why)), 0);
    if (!fields) {
        vmx_caps_hide(&vmx_machine.caps, VMX_GROUP_EXIT, VMX_EXITC_LOAD_EFER | VMX_EXITC_LOAD_PAT);
        vmx_caps_hide(&vmx_machine.caps, VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_PAT);
    }
    ck_assert_int_eq(vmx_negotiate(&vmx_machine.caps, &wish, &vmx_controls, why, sizeof(why)), 0);
    vcpu = (struct vmx_vcpu){.soft.cpu = &cpu, .host_cpu = VMX_NO_CPU};
    cpu = (struct x86_cpu){.pat = GOOD_PAT};
    ck_assert_int_eq(vmx_vmcs_create(&vmx_machine, &vcpu.vmcs), 0);
    ck_assert(vmx_vmcs_load(&vmx_machine, &vcpu.vmcs));
    ck_assert_int_eq(vmx_area_open(&vcpu), 0);
    vmx_insn_write(VMX_EXIT_CTLS, vmx_controls.value[VMX_GROUP_EXIT]);
    vmx_insn_write(VMX_ENTRY_CTLS, vmx_controls.value[VMX_GROUP_ENTRY]);
    vmx_area_attach(&vcpu.area);
}

static void stop(void)
{
    vmx_area_close(&vcpu);
    vmx_vmcs_destroy(&vmx_machine, &vcpu.vmcs);
    vmx_machine_off(&vmx_machine);
    ck_assert_uint_eq(fake.pages, 0);
}

/* ---- lists ---- */

static const uint32_t address_of[] = {VMX_ENTRY_MSR_LOAD_ADDR, VMX_EXIT_MSR_STORE_ADDR,
                                      VMX_EXIT_MSR_LOAD_ADDR};
static const uint32_t count_of[] = {VMX_ENTRY_MSR_LOAD_COUNT, VMX_EXIT_MSR_STORE_COUNT,
                                    VMX_EXIT_MSR_LOAD_COUNT};

/* Against a model: MSRs 0x1000 to 0x105f, each in a list or not. */
START_TEST(lists)
{
    static uint64_t has[VMX_AREA_LISTS][96]; /* value + 1; 0: not there */
    unsigned n[VMX_AREA_LISTS] = {0};
    struct vmx_area *a = &vcpu.area;

    start(fake_model("core2_penryn_t9600"), false);
    ck_assert_uint_eq(a->max, VMX_AREA_ROOM);
    for (unsigned round = 0; round < 20000; round++) {
        enum vmx_area_list list = (enum vmx_area_list)(rnd() % VMX_AREA_LISTS);
        unsigned k = rnd() % 96, kinds = round / 1000 % 2 ? 2 : 5; /* more come, or more go */
        uint64_t value = rnd();

        if (rnd() % kinds) {
            bool fits = has[list][k] || n[list] < VMX_AREA_ROOM;

            ck_assert(vmx_area_put(a, list, 0x1000 + k, value) == fits);
            n[list] += fits && !has[list][k];
            has[list][k] = fits ? value + 1 : 0;
        } else {
            vmx_area_remove(a, list, 0x1000 + k);
            n[list] -= has[list][k] != 0;
            has[list][k] = 0;
        }
        vmx_area_push(a);
        for (unsigned i = 0; i < VMX_AREA_LISTS; i++)
            ck_assert_uint_eq(vmx_insn_read(count_of[i]), n[i]);
        const struct vmx_area_msr *m = vmx_area_find(a, list, 0x1000 + k);
        ck_assert(!m == !has[list][k]);
        ck_assert(!m || (m->value + 1 == has[list][k] && !m->zero));
    }
    /* As the CPU finds them: each once. */
    for (unsigned i = 0; i < VMX_AREA_LISTS; i++) {
        uint64_t entries;
        const struct vmx_area_msr *m = list_of(address_of[i], count_of[i], &entries);

        for (unsigned k = 0; k < entries; k++) {
            ck_assert_uint_eq(m[k].value + 1, has[i][m[k].index - 0x1000]);
            has[i][m[k].index - 0x1000] = 0;
        }
        for (unsigned k = 0; k < 96; k++)
            ck_assert_uint_eq(has[i][k], 0);
    }
    stop();
}
END_TEST

START_TEST(refused)
{
    static const uint32_t never[] = {FS_BASE, GS_BASE, 0x800, 0x8ff, 0x9b, 0x9e, 0x79};
    struct vmx_caps caps = {.misc = 0};
    struct vmx_area *a = &vcpu.area;

    start(fake_model("core2_penryn_t9600"), false);
    for (unsigned i = 0; i < sizeof(never) / sizeof(never[0]); i++) {
        ck_assert(!vmx_area_put(a, VMX_AREA_ENTRY_LOAD, never[i], 0));
        ck_assert(!vmx_area_put(a, VMX_AREA_EXIT_LOAD, never[i], 0));
        ck_assert_ptr_nonnull(vmx_area_refuses(VMX_AREA_EXIT_LOAD, never[i]));
    }
    /* Storing is reading. */
    ck_assert(vmx_area_put(a, VMX_AREA_EXIT_STORE, FS_BASE, 0));
    ck_assert(vmx_area_put(a, VMX_AREA_EXIT_STORE, 0x9b, 0));
    ck_assert(!vmx_area_put(a, VMX_AREA_EXIT_STORE, 0x808, 0));
    ck_assert(!vmx_area_put(a, VMX_AREA_EXIT_STORE, 0x9e, 0));
    ck_assert(vmx_area_put(a, VMX_AREA_ENTRY_LOAD, 0x7ff, 0));
    ck_assert(vmx_area_put(a, VMX_AREA_ENTRY_LOAD, 0x900, 0));
    ck_assert_uint_eq(vmx_area_limit(&caps), 512);
    caps.misc = 0x2000000;
    ck_assert_uint_eq(vmx_area_limit(&caps), 1024);
    caps.misc = 0xfffff1ffffff;
    ck_assert_uint_eq(vmx_area_limit(&caps), 512);
    caps.misc = 7 << 25;
    ck_assert_uint_eq(vmx_area_limit(&caps), 4096);
    stop();
}
END_TEST

/* The three lists are used at the same time: what is stored is what the guest had. */
START_TEST(stored)
{
    struct vmx_area *a = &vcpu.area;

    start(fake_model("core2_penryn_t9600"), false);
    *msr(EFER) = 0xd00;
    *msr(PAT) = GOOD_PAT;
    *msr(KERNEL_GS) = 1;
    *msr(LSTAR) = 2;
    vmx_insn_write(VMX_GUEST_CR0, X86_CR0_PG);
    vmx_insn_write(VMX_ENTRY_CTLS, vmx_insn_read(VMX_ENTRY_CTLS) | VMX_ENTRY_GUEST_64);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t index = i ? KERNEL_GS : LSTAR;

        ck_assert(vmx_area_put(a, VMX_AREA_ENTRY_LOAD, index, 0x100 + index));
        ck_assert(vmx_area_put(a, VMX_AREA_EXIT_STORE, index, 0));
        ck_assert(vmx_area_put(a, VMX_AREA_EXIT_LOAD, index, *msr(index)));
    }
    vmx_area_push(a);
    ck_assert(enter(&vcpu.vmcs));
    ck_assert_uint_eq(*msr(LSTAR), 0x100 + LSTAR);
    *msr(KERNEL_GS) = 77; /* SWAPGS */
    ck_assert(leave(&vcpu.vmcs, true));
    ck_assert_uint_eq(*msr(KERNEL_GS), 1);
    ck_assert_uint_eq(*msr(LSTAR), 2);
    ck_assert_uint_eq(vmx_area_find(a, VMX_AREA_EXIT_STORE, KERNEL_GS)->value, 77);
    ck_assert_uint_eq(vmx_area_find(a, VMX_AREA_EXIT_STORE, LSTAR)->value, 0x100 + LSTAR);
    stop();
}
END_TEST

/* ---- what fails ---- */

/* Lists of random MSRs: the CPU and the check in software find the same entry. */
START_TEST(failing)
{
    static const struct vmx_area_msr some[] = {
        {LSTAR, 0, 0xffff800000000000},
        {LSTAR, 0, 1ull << 47},
        {KERNEL_GS, 0, 0},
        {KERNEL_GS, 0, 1ull << 63},
        {FS_BASE, 0, 0},
        {GS_BASE, 0, 0},
        {0x802, 0, 0},
        {0x9b, 0, 0},
        {0x9e, 0, 0},
        {0x79, 0, 0},
        {PAT, 0, GOOD_PAT},
        {PAT, 0, GOOD_PAT | 2},
        {PAT, 0, 8},
        {TSC_AUX, 0, UINT32_MAX},
        {TSC_AUX, 0, 1ull << 32},
        {LSTAR, 1, 0},
        {EFER, 0, 0xd01},
        {EFER, 0, 0xd00},
        {EFER, 0, 0x801},
        {EFER, 0, 2},
        {0x174, 0, 8},
    };
    unsigned failures = 0;

    start(fake_model("core2_penryn_t9600"), false);
    for (unsigned round = 0; round < 5000; round++) {
        struct vmx_area *a = &vcpu.area;
        uint32_t n = rnd() % 4, which = 0;
        char text[128], number[16];
        const char *rule;
        bool entered, long_mode = rnd() % 2;

        *msr(EFER) = 0x500;
        vmx_insn_write(VMX_GUEST_CR0, rnd() % 4 ? X86_CR0_PG : 0);
        vmx_insn_write(VMX_ENTRY_CTLS, vmx_controls.value[VMX_GROUP_ENTRY] |
                                           (long_mode ? (uint32_t)VMX_ENTRY_GUEST_64 : 0));
        for (uint32_t i = 0; i < n; i++)
            a->msrs[i] = some[rnd() % (sizeof(some) / sizeof(some[0]))];
        a->count[VMX_AREA_ENTRY_LOAD] = n;
        vmx_area_push(a);
        rule = vmx_check_loads(VMX_AREA_ENTRY_LOAD, a->msrs, n, &which);
        entered = enter(&vcpu.vmcs);
        ck_assert_msg(entered == !rule, "%s", rule ? rule : "no rule");
        /* The host's LMA and LME are back either way. */
        if (entered) {
            ck_assert(leave(&vcpu.vmcs, true));
            ck_assert_uint_eq(*msr(EFER) & 0x500, 0x500);
            continue;
        }
        failures++;
        ck_assert_uint_eq(*msr(EFER) & 0x500, 0x500);
        ck_assert_uint_eq(vmx_insn_read(VMX_EXIT_QUALIFICATION), which);
        vmx_area_failed(&vcpu, text, sizeof(text));
        snprintf(number, sizeof(number), "%#x", a->msrs[which - 1].index);
        ck_assert_msg(strstr(text, rule) && strstr(text, number), "%s", text);
    }
    ck_assert_uint_gt(failures, 1000);
    stop();
}
END_TEST

/* What the library does not know of, and what cannot be. */
START_TEST(failing_otherwise)
{
    char text[128];

    start(fake_model("core2_penryn_t9600"), false);
    ck_assert(vmx_area_put(&vcpu.area, VMX_AREA_ENTRY_LOAD, 0x12345, 6));
    vmx_area_push(&vcpu.area);
    ck_assert(!enter(&vcpu.vmcs));
    vmx_area_failed(&vcpu, text, sizeof(text));
    ck_assert_str_eq(text, "VM entry, MSR loading: entry 1, MSR 0x12345 = 0x6: the CPU refuses it");
    vmx_insn_write(VMX_EXIT_QUALIFICATION, 2);
    vmx_area_failed(&vcpu, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "not there"));
    vmx_insn_write(VMX_EXIT_QUALIFICATION, 0);
    vmx_area_failed(&vcpu, text, sizeof(text));
    ck_assert_ptr_nonnull(strstr(text, "not there"));
    stop();
}
END_TEST

/* An exit cannot fail: the CPU stops, and the VMCS says why. */
START_TEST(aborts)
{
    start(fake_model("core2_penryn_t9600"), false);
    vmx_insn_write(VMX_GUEST_CR0, X86_CR0_PG);
    ck_assert_uint_eq(vmx_vmcs_abort(&vcpu.vmcs), 0);
    ck_assert(vmx_area_put(&vcpu.area, VMX_AREA_EXIT_STORE, 0x12345, 0));
    vmx_area_push(&vcpu.area);
    ck_assert(enter(&vcpu.vmcs));
    ck_assert(!leave(&vcpu.vmcs, true));
    ck_assert_str_eq(vmx_abort_name(vmx_vmcs_abort(&vcpu.vmcs)), "a guest MSR could not be stored");
    vmx_area_remove(&vcpu.area, VMX_AREA_EXIT_STORE, 0x12345);
    ck_assert(vmx_area_put(&vcpu.area, VMX_AREA_EXIT_LOAD, EFER, 0x1));
    vmx_area_push(&vcpu.area);
    ck_assert(enter(&vcpu.vmcs));
    ck_assert(!leave(&vcpu.vmcs, true));
    ck_assert_str_eq(vmx_abort_name(vmx_vmcs_abort(&vcpu.vmcs)), "a host MSR could not be loaded");
    ck_assert_str_eq(vmx_abort_name(7), "?");
    stop();
}
END_TEST

/* ---- the engine ---- */

static uint64_t some_pat(void)
{
    static const uint8_t types[] = {0, 1, 4, 5, 6, 7};
    uint64_t pat = 0;

    for (unsigned i = 0; i < 64; i += 8)
        pat |= (uint64_t)types[rnd() % 6] << i;
    return rnd() % 2 ? GOOD_PAT : pat;
}

/* A mode of the guest; what the engine pushes of it. */
static void some_guest(void)
{
    bool pages = rnd() % 4, long_mode = pages && rnd() % 2;

    cpu.cr0 = X86_CR0_PE | (pages ? X86_CR0_PG : 0);
    cpu.efer = (rnd() % 2 ? X86_EFER_SCE : 0) | (rnd() % 2 ? X86_EFER_NXE : 0);
    cpu.efer |= long_mode ? X86_EFER_LME | X86_EFER_LMA : !pages && rnd() % 2 ? X86_EFER_LME : 0;
    cpu.pat = some_pat();
    vmx_insn_write(VMX_GUEST_CR0, vmx_guest_pages(&vcpu) ? X86_CR0_PG : 0);
    vmx_insn_write(VMX_ENTRY_CTLS, vmx_controls.value[VMX_GROUP_ENTRY] |
                                       (long_mode ? (uint32_t)VMX_ENTRY_GUEST_64 : 0));
    if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_EFER))
        vmx_insn_write(VMX_GUEST_EFER, vmx_guest_efer(&vcpu));
    if (vmx_uses(VMX_GROUP_ENTRY, VMX_ENTRY_LOAD_PAT))
        vmx_insn_write(VMX_GUEST_PAT, vmx_has_ept() ? cpu.pat : VMX_SHADOW_PAT);
    vmx_area_efer(&vcpu);
    vmx_area_pat(&vcpu);
}

/* Behind each entry the guest has its EFER and PAT, and behind each exit the host has its own. */
static void run(void)
{
    const uint64_t host_efer = *msr(EFER), host_pat = *msr(PAT);
    uint64_t efer = vmx_guest_efer(&vcpu);

    ck_assert(enter(&vcpu.vmcs));
    ck_assert_uint_eq(*msr(EFER), efer);
    if (vmx_has_ept())
        ck_assert_uint_eq(*msr(PAT), cpu.pat);
    else
        ck_assert_uint_eq(*msr(PAT) & 7, 6);
    ck_assert(leave(&vcpu.vmcs, true));
    ck_assert_uint_eq(*msr(EFER), host_efer);
    ck_assert_uint_eq(*msr(PAT), host_pat);
}

static void new_host(void)
{
    *msr(EFER) = 0x500 | (rnd() % 2 ? X86_EFER_SCE : 0) | (rnd() % 2 ? X86_EFER_NXE : 0);
    *msr(PAT) = some_pat();
    vmx_insn_write(VMX_HOST_EFER, *msr(EFER));
    vmx_insn_write(VMX_HOST_PAT, *msr(PAT));
    vmx_area_host(&vcpu);
}

START_TEST(switched)
{
    const struct fake_model *model = &fake_models[_i / 2];
    bool fields = _i % 2, by_fields = fields && (model->entry >> 47 & 1);

    start(model, fields);
    ck_assert(!vcpu.area.msrs == by_fields);
    new_host();
    for (unsigned round = 0; round < 3000; round++) {
        if (rnd() % 8 == 0) { /* another CPU, which has a host's state of its own */
            fake.cpu = rnd() % FAKE_CPUS;
            ck_assert(vmx_vmcs_load(&vmx_machine, &vcpu.vmcs));
            new_host();
        }
        some_guest();
        run();
        run();
        ck_assert_uint_eq(vmx_insn_read(VMX_ENTRY_MSR_LOAD_COUNT),
                          vmx_insn_read(VMX_EXIT_MSR_LOAD_COUNT));
    }
    stop();
}
END_TEST

/* Nothing is paid for what guest and host have in common. */
START_TEST(alike)
{
    start(fake_model("core2_penryn_t9600"), false);
    *msr(EFER) = 0xd01;
    *msr(PAT) = 0x0007010600070106;
    vmx_area_host(&vcpu);
    cpu.cr0 = X86_CR0_PE | X86_CR0_PG;
    cpu.efer = 0xd01;
    vmx_area_efer(&vcpu);
    ck_assert_uint_eq(vmx_insn_read(VMX_ENTRY_MSR_LOAD_COUNT), 0);
    cpu.efer = 1; /* not in long mode: that is the entry's; with NXE for the shadow tables */
    vmx_area_efer(&vcpu);
    ck_assert_uint_eq(vmx_insn_read(VMX_EXIT_MSR_LOAD_COUNT), 0);
    cpu.efer = 0;
    vmx_area_efer(&vcpu);
    ck_assert_uint_eq(vmx_insn_read(VMX_EXIT_MSR_LOAD_COUNT), 1);
    cpu.efer = 0xd01;
    vmx_area_efer(&vcpu);
    ck_assert_uint_eq(vmx_insn_read(VMX_EXIT_MSR_LOAD_COUNT), 0);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_area");
    TCase *tc = tcase_create("area");

    tcase_add_test(tc, lists);
    tcase_add_test(tc, refused);
    tcase_add_test(tc, stored);
    tcase_add_test(tc, failing);
    tcase_add_test(tc, failing_otherwise);
    tcase_add_test(tc, aborts);
    tcase_add_loop_test(tc, switched, 0, 2 * FAKE_NMODELS);
    tcase_add_test(tc, alike);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
