/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_shadow.c: invalidations of guests on shadow page tables that the vmx engine makes
 * without leaving its session: when that is enough, and what is then still due in the hardware's
 * TLB. */
#include <check.h>

#include "backends/vmx/vmx.h"
#include "core/x86/control.h"
#include "core/x86/exec.h"
#include "freestanding/host.h"
#include "vmx_fake.h"
#include <vmm/vmm.h>

const struct vmm_host_ops *vmm_host;
const struct vmm_backend_ops *const vmm_backends[] = {&vmm_backend_vmx, NULL};

/* ---- the host ---- */

static struct vmm_host_ops host;

static void nothing(void *ctx)
{
    (void)ctx;
}

static uint64_t now(void *ctx)
{
    static uint64_t ns;

    (void)ctx;
    return ns += 100;
}

/* ---- a guest ---- */

#define TABLES  0x10000u
#define AGAIN   0x20000u
#define LEAF    0x30000u
#define LINEAR  0x7f8000000000ull
#define TOP     (LINEAR >> 39 & 511)
#define DATA    0x40000u
#define PRESENT 7u

static struct vm *vm;
static struct vcpu *vcpu;
static struct vmx_vcpu *v;
static uint8_t *ram;

static void put(uint64_t gpa, uint64_t entry)
{
    memcpy(ram + gpa, &entry, sizeof(entry));
    vm_mem_changed(vm, gpa, sizeof(entry));
}

/* 64-bit code; this host's CPUID would not let the API say so. */
static void set_long_mode(struct x86_cpu *cpu)
{
    for (unsigned i = VMM_ES; i <= VMM_GS; i++)
        cpu->seg[i] = (struct vmm_segment){.selector = 16, .limit = UINT32_MAX, .ar = 0xc093};
    cpu->seg[VMM_CS] = (struct vmm_segment){.selector = 8, .limit = UINT32_MAX, .ar = 0xa09b};
    cpu->seg[VMM_TR] = (struct vmm_segment){.selector = 24, .limit = 0x67, .ar = 0x8b};
    cpu->seg[VMM_LDTR].ar = VMM_AR_UNUSABLE;
    cpu->cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_PG;
    cpu->cr4 = X86_CR4_PAE;
    cpu->efer = X86_EFER_LME | X86_EFER_LMA;
    cpu->cr3 = TABLES;
    x86_mode_changed(cpu);
}

/* CPUs without EPT, with VPIDs and without. */
static void start(bool vpids, uint32_t vcpus)
{
    static struct fake_model model;
    const struct vm_config config = {
        .size = sizeof(config), .max_vcpus = vcpus, .irqchip = VMM_IRQCHIP_NONE};
    struct vmx_machine none;
    void *p = aligned_alloc(4096, 4096);

    model = *fake_model(vpids ? "corei5_lynnfield_750" : "core2_penryn_t9600");
    model.proc2 &= ~((uint64_t)VMX_PROC2_EPT << 32);
    model.ept_vpid &= ~0xffffffffull;
    fake_reset(&model, &none);
    fake.bias = ((uintptr_t)p & ~0xffffull) - (1ull << 31);
    free(p);
    host = fake_host;
    host.tsc_khz = 1000000;
    host.phys_to_virt = fake_phys_to_virt;
    host.cpu_count = fake_cpu_count;
    host.thread_slot = fake_thread_slot;
    host.fpu_begin = host.fpu_end = nothing;
    host.now = now;
    vmm_host = &host;
    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert(!vmx_has_ept());
    ck_assert_int_eq(vm_mem_alloc(vm, 0, 0x100000, VMM_MEM_RWX, (void **)&ram), 0);
    ck_assert_int_eq(vcpu_create(vm, 0, NULL, &vcpu), 0);
    v = vcpu->backend_data;
    set_long_mode(v->soft.cpu);
    ck_assert_int_eq(v->tlb.vpid != 0, vpids);
    /* LINEAR is DATA, by tables of its own below the top table and a copy of that. */
    put(TABLES + 8 * TOP, LEAF | PRESENT);
    put(LEAF, (LEAF + 0x1000) | PRESENT);
    put(LEAF + 0x1000, (LEAF + 0x2000) | PRESENT);
    put(LEAF + 0x2000, DATA | PRESENT);
    memcpy(ram + AGAIN, ram + TABLES, 4096);
}

static void stop(void)
{
    ck_assert_int_eq(vm_destroy(vm), 0);
    ck_assert_uint_eq(fake.pages, 0);
}

/* As the last look before an entry would leave it; the VMCS is that of CPU 0. */
static void load(void)
{
    ck_assert(vmx_mmu_ready(v));
    v->flush_seen = v->soft.cpu->mmu.flush_gen;
    v->settled = vmx_asked(v);
    v->mmu.new_space = false;
}

static void touch(uint64_t linear)
{
    uint64_t gpa;

    ck_assert_int_eq(shadow_fault(&v->mmu.shadow, linear, MMU_KERNEL, MMU_READ, &gpa),
                     SHADOW_RETRY);
    v->settled = vmx_asked(v);
}

static bool seen(void)
{
    return v->flush_seen == v->soft.cpu->mmu.flush_gen && v->settled == vmx_asked(v);
}

static bool to_cr3(uint64_t value)
{
    uint64_t before = v->soft.cpu->mmu.flush_gen;

    ck_assert(x86_set_cr3(v->soft.cpu, value));
    return vmx_shadow_loaded(v, before);
}

/* ---- loads of CR3 ---- */

START_TEST(same_space)
{
    start(_i & 1, 1);
    ck_assert(!to_cr3(TABLES)); /* nothing has been loaded before */
    load();
    touch(LINEAR);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert(to_cr3(TABLES));
        ck_assert(seen() && !v->mmu.new_space && vmx_mmu_current(v));
    }
    /* What was due before stays due. */
    vmx_tlb_due(&v->tlb);
    ck_assert(to_cr3(TABLES));
    ck_assert(v->settled != vmx_asked(v));
    v->settled = vmx_asked(v);
    v->flush_seen--;
    ck_assert(to_cr3(TABLES));
    ck_assert(!seen());
    load();
    /* So does a load that has not been followed. */
    v->mmu.flush_gen--;
    ck_assert(!to_cr3(TABLES));
    stop();
}
END_TEST

START_TEST(other_space)
{
    bool vpids = _i & 1;

    start(vpids, 1);
    load();
    ck_assert(!to_cr3(AGAIN)); /* there is none yet */
    load();
    ck_assert(to_cr3(TABLES));
    ck_assert(v->mmu.new_space && vmx_mmu_current(v));
    /* Without a VPID the entry flushes. */
    ck_assert(seen() == !vpids);
    load();
    ck_assert(to_cr3(AGAIN) && v->mmu.new_space);
    stop();
}
END_TEST

/* Tables that have been written are compared by a load with all that belongs to it. */
START_TEST(written_tables)
{
    start(_i & 1, 1);
    load();
    touch(LINEAR);
    put(LEAF + 0x2000, (DATA + 0x1000) | PRESENT);
    ck_assert(!to_cr3(TABLES));
    load();
    ck_assert(to_cr3(TABLES));
    stop();
}
END_TEST

/* Spaces are changed with the world stopped, which a session must not wait for. */
START_TEST(several_vcpus)
{
    start(_i & 1, 2);
    load();
    ck_assert(!to_cr3(AGAIN));
    load();
    ck_assert(to_cr3(AGAIN) && seen());
    ck_assert(!to_cr3(TABLES));
    stop();
}
END_TEST

/* ---- INVLPG ---- */

static bool invlpg(uint64_t linear)
{
    uint64_t before = v->soft.cpu->mmu.flush_gen;

    x86_flush_tlb_page(v->soft.cpu, linear);
    return vmx_shadow_invlpg_holds(v, linear, before);
}

START_TEST(one_page)
{
    start(_i & 1, 1 + (_i >> 1));
    load();
    touch(LINEAR);
    ck_assert(invlpg(LINEAR) && seen());
    ck_assert(invlpg(LINEAR + 0x200000) && seen()); /* nothing is mapped there */
    put(LEAF + 0x2008, DATA | PRESENT);             /* its neighbour */
    v->settled = vmx_asked(v);
    ck_assert(invlpg(LINEAR) && seen());
    put(LEAF + 0x2000, 0);
    ck_assert(!invlpg(LINEAR));
    ck_assert(!vmx_mmu_current(v)); /* the next turn, or vmx_mmu_invlpg, sees to it */
    vmx_mmu_invlpg(v, LINEAR, v->soft.cpu->mmu.flush_gen - 1);
    ck_assert(vmx_mmu_current(v) && !seen());
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_shadow");
    TCase *tc = tcase_create("vmx_shadow");

    tcase_add_loop_test(tc, same_space, 0, 2);
    tcase_add_loop_test(tc, other_space, 0, 2);
    tcase_add_loop_test(tc, written_tables, 0, 2);
    tcase_add_loop_test(tc, several_vcpus, 0, 2);
    tcase_add_loop_test(tc, one_page, 0, 4);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
