/* SPDX-License-Identifier: BSD-2-Clause */
/* test_vmx_host.c: VMs and vCPUs of the vmx engine on hosts that lack memory, MSRs or CPUs: they
 * are refused with a reason, and nothing of them stays; and who has the APIC-access page. */
#include <check.h>
#include <stdio.h>

#include "backends/vmx/vmx.h"
#include "freestanding/host.h"
#include <vmm/vmm.h>

/* Those of the fake are evaluated while allocations are counted and fail: Check's own allocate. */
#undef ck_assert
#undef ck_assert_msg
#define ck_assert(expr)          ((expr) ? (void)0 : ck_abort_msg("%s", #expr))
#define ck_assert_msg(expr, ...) ((expr) ? (void)0 : ck_abort_msg(__VA_ARGS__))
#include "vmx_fake.h"

const struct vmm_host_ops *vmm_host;
const struct vmm_backend_ops *const vmm_backends[] = {&vmm_backend_vmx, NULL};

/* ---- the host: that of vmx_fake.h with the functions that an engine wants ---- */

static struct vmm_host_ops host;
static struct vmm_error error;
static int fail_heap; /* malloc and its like fail when it counts down to 0; negative: never */
static long heap;
static unsigned fpu_depth;
static bool counting;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
void __wrap_free(void *p);

static bool heap_fails(void)
{
    return counting && fail_heap >= 0 && fail_heap-- == 0;
}

static void *counted(void *p)
{
    heap += counting && p;
    return p;
}

void *__wrap_malloc(size_t n)
{
    return heap_fails() ? NULL : counted(__real_malloc(n));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return heap_fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *p, size_t n)
{
    if (heap_fails())
        return NULL;
    return p ? __real_realloc(p, n) : counted(__real_realloc(p, n));
}

void *__wrap_aligned_alloc(size_t alignment, size_t n)
{
    return heap_fails() ? NULL : counted(__real_aligned_alloc(alignment, n));
}

void __wrap_free(void *p)
{
    heap -= counting && p;
    __real_free(p);
}

static void *pages_alloc(void *ctx, size_t n)
{
    bool was = counting;
    void *p;

    counting = false;
    p = fake_pages_alloc(ctx, n);
    counting = was;
    return p;
}

static void pages_free(void *ctx, void *p, size_t n)
{
    bool was = counting;

    counting = false;
    fake_pages_free(ctx, p, n);
    counting = was;
}

static void kick(void *ctx, uint32_t cpu)
{
    (void)ctx;
    ck_assert_uint_lt(cpu, FAKE_CPUS);
}

static void fpu_begin(void *ctx)
{
    (void)ctx;
    fpu_depth++;
}

static void fpu_end(void *ctx)
{
    (void)ctx;
    fpu_depth--;
}

static uint64_t now(void *ctx)
{
    static uint64_t ns;

    (void)ctx;
    return ns += 100;
}

/* Physical addresses below 4 GiB, whatever the allocator gives. */
static void start(const struct fake_model *model)
{
    struct vmx_machine none;
    void *p = aligned_alloc(4096, 4096);

    fake_reset(model, &none);
    fake.bias = ((uintptr_t)p & ~0xffffull) - (1ull << 31);
    free(p);
    host = fake_host;
    host.tsc_khz = 1000000;
    host.pages_alloc = pages_alloc;
    host.pages_free = pages_free;
    host.phys_to_virt = fake_phys_to_virt;
    host.cpu_count = fake_cpu_count;
    host.thread_slot = fake_thread_slot;
    host.kick = kick;
    host.fpu_begin = fpu_begin;
    host.fpu_end = fpu_end;
    host.now = now;
    vmm_host = &host;
    fail_heap = -1;
    error = (struct vmm_error){.size = sizeof(error)};
}

/* Nothing is left of a VM that is no more, or was none. */
static void check_clean(void)
{
    ck_assert_uint_eq(fake.pages, 0);
    ck_assert_uint_eq(fake.preempt, 0);
    ck_assert_uint_eq(fpu_depth, 0);
    for (unsigned i = 0; i < FAKE_CPUS; i++) {
        ck_assert(!fake.on[i]);
        ck_assert_uint_eq(fake.cr4[i], 0x620);
    }
    for (unsigned i = 0; i < FAKE_VMCSS; i++)
        ck_assert_uint_eq(fake.vmcs[i].phys, 0);
    ck_assert_int_eq(heap, 0);
}

/* A VM with two vCPUs, of which the error is told. All of it is gone at the end. */
static int create(void)
{
    const struct vm_config config = {
        .size = sizeof(config), .max_vcpus = 2, .irqchip = VMM_IRQCHIP_PC, .error = &error};
    struct vm *vm = NULL;
    struct vcpu *vcpu[2] = {NULL};
    int err;

    error.text[0] = 0;
    counting = true;
    err = vm_create(&config, &vm);
    ck_assert(!vm == (err != 0));
    for (uint32_t i = 0; !err && i < 2; i++) {
        err = vcpu_create(vm, i, NULL, &vcpu[i]);
        ck_assert(!vcpu[i] == (err != 0));
        if (err)
            vm_last_error(vm, &error);
    }
    ck_assert(!vm_destroy(vm));
    counting = false;
    check_clean();
    ck_assert_int_eq(!err, !error.text[0]);
    return err;
}

/* ---- hosts without memory ---- */

START_TEST(no_pages)
{
    unsigned failed = 0;

    for (int n = 0;; n++) {
        start(&fake_models[_i]);
        fake.fail_pages = n;
        int err = create();
        if (fake.fail_pages >= 0 && !err)
            break; /* all have been given */
        ck_assert_msg(err == VMM_E_NOMEM, "page %d: %d %s", n, err, error.text);
        failed++;
        /* It is only this time. */
        fake.fail_pages = -1;
        ck_assert_int_eq(create(), 0);
    }
    ck_assert_uint_ge(failed, 2 /* VMXON */ + 2 * 3 /* VMCS, XSAVE, MSR bitmap */);
}
END_TEST

START_TEST(no_heap)
{
    unsigned failed = 0;

    for (int n = 0;; n++) {
        start(&fake_models[_i]);
        fail_heap = n;
        int err = create();
        if (fail_heap >= 0 && !err)
            break;
        fail_heap = -1;
        if (!err) /* something is done without */
            continue;
        ck_assert_msg(err == VMM_E_NOMEM, "allocation %d: %d %s", n, err, error.text);
        failed++;
        ck_assert_int_eq(create(), 0);
    }
    ck_assert_uint_gt(failed, 10);
}
END_TEST

/* ---- MSRs that fault ---- */

/* Each access once: what the CPU must have is an error with a reason, what it may have is done
 * without. */
START_TEST(no_msr)
{
    unsigned failed = 0;

    for (int n = 0;; n++) {
        start(&fake_models[_i]);
        fake.fail_msrs = n;
        int err = create();
        if (fake.fail_msrs >= 0)
            break;
        ck_assert_msg(!err || err == VMM_E_NODEV, "RDMSR %d: %d %s", n, err, error.text);
        failed += err != 0;
        ck_assert_int_eq(create(), 0);
    }
    ck_assert_uint_gt(failed, 5);
}
END_TEST

static int no_wrmsr(void *ctx, uint32_t index, uint64_t value)
{
    (void)ctx;
    (void)index;
    (void)value;
    return 1;
}

/* IA32_FEATURE_CONTROL is open and cannot be written; all MSRs fault; none of it is there. */
START_TEST(msrs)
{
    start(&fake_models[_i]);
    host.wrmsr = no_wrmsr;
    ck_assert_int_eq(create(), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(error.text, "FEATURE_CONTROL"));
    fake.feature_control[0] = fake.feature_control[1] = 5; /* then nothing is to be written */
    ck_assert_int_eq(create(), 0);
    fake.msrs_fault = true;
    ck_assert_int_eq(create(), VMM_E_NODEV);
    start(NULL);
    ck_assert_int_eq(create(), VMM_E_NODEV);
    ck_assert_ptr_nonnull(strstr(error.text, "no VMX"));
}
END_TEST

/* ---- CPUs ---- */

START_TEST(cpus)
{
    /* One that cannot be reached, is locked, is another model, or in VMX operation already. */
    for (uint32_t bad = 0; bad < FAKE_CPUS; bad++) {
        start(&fake_models[_i]);
        fake.lost = 1u << bad;
        ck_assert_int_eq(create(), VMM_E_NODEV);
        fake.lost = 0;
        fake.feature_control[bad] = 1;
        ck_assert_int_eq(create(), VMM_E_NODEV);
        ck_assert_msg(strstr(error.text, "firmware"), "%s", error.text);
        start(&fake_models[_i]);
        fake.other = 1u << bad;
        ck_assert_int_eq(create(), VMM_E_NODEV);
        fake.other = 0;
        fake.cr0[bad] = 0x80050013; /* without NE */
        ck_assert_int_eq(create(), VMM_E_NODEV);
        ck_assert_msg(strstr(error.text, "CR0"), "%s", error.text);
        fake.cr0[bad] = 0x80050033;
        ck_assert_int_eq(create(), 0);
    }
    start(&fake_models[_i]);
    ck_assert_int_eq(create(), 0);
}
END_TEST

/* CR4.VMXE that somebody else has set stays. */
START_TEST(vmxe_stays)
{
    const struct vm_config config = {.size = sizeof(config)};
    struct vm *vm;

    start(&fake_models[_i]);
    fake.cr4[1] |= 1u << 13;
    ck_assert_int_eq(vm_create(&config, &vm), 0);
    ck_assert(fake.on[0] && fake.on[1]);
    ck_assert_int_eq(vm_destroy(vm), 0);
    ck_assert_uint_eq(fake.cr4[0], 0x620);
    ck_assert_uint_eq(fake.cr4[1], 0x2620);
}
END_TEST

/* ---- the APIC-access page ---- */

#define READS   0x181u /* qualifications of violations */
#define WRITES  0x182u
#define FETCHES 0x184u

static void set_base(struct vcpu *vcpu, uint64_t base)
{
    struct vcpu_regs regs = {.size = sizeof(regs), .groups = VMM_REGS_CONTROL};

    ck_assert_int_eq(vcpu_get_regs(vcpu, &regs), 0);
    regs.apic_base = base;
    ck_assert_int_eq(vcpu_set_regs(vcpu, &regs), 0);
    vmx_apic_begin(vcpu->backend_data);
}

static bool is_mapped(const struct vmx_vcpu *v, unsigned rights)
{
    struct ept_walk w;

    if (ept_walk(&v->vv->mmu.ept, APIC_DEFAULT_BASE, rights, &w) != EPT_TRANSLATED)
        return false;
    ck_assert_uint_eq(w.hpa, fake_phys(NULL, vmx_apic_page));
    ck_assert_uint_eq(w.size, 4096);
    return true;
}

static bool needs_invept(const struct vmx_vcpu *v)
{
    return ept_needs_invept(&v->vv->mmu.ept, &v->mmu.ept_cpu);
}

static void invept(struct vmx_vcpu *v)
{
    struct ept *ept = &v->vv->mmu.ept;

    ept_invept_done(ept, &v->mmu.ept_cpu, ept_generation(ept));
    ck_assert(!needs_invept(v));
}

static bool may_map(const struct vmx_vcpu *v)
{
    return vmx_apic_may_map(v, APIC_DEFAULT_BASE + 0x80, READS);
}

/* With v1 elsewhere nobody has the page, and it has invalidated before its entry. */
static void check_away(struct vmx_vcpu *v0, struct vmx_vcpu *v1)
{
    ck_assert(!vmx_at_apic_page(v1) && vmx_at_apic_page(v0) && v1->apic_due);
    ck_assert(!is_mapped(v0, 0) && needs_invept(v1));
    ck_assert(!may_map(v0) && !may_map(v1));
    ck_assert(!vmx_apic_map(v0, READS) && !is_mapped(v0, 0));
    vmx_apic_begin(v1);
    ck_assert_uint_eq(atomic_load(&v0->vv->mmu.apic_away), 1);
    invept(v0);
    invept(v1);
}

static void check_page(struct vmx_vcpu *v0, struct vmx_vcpu *v1)
{
    static const uint64_t elsewhere[] = {0xfee01800, 0xfee00000, 0xfee00c00};

    for (unsigned i = 0; i < 3; i++) {
        uint64_t due = v1->tlb.due;

        ck_assert(may_map(v0) && may_map(v1));
        ck_assert(vmx_apic_map(i & 1 ? v1 : v0, i & 1 ? WRITES : READS));
        ck_assert(is_mapped(v0, EPT_R | EPT_W) && !is_mapped(v0, EPT_X));
        invept(v0);
        invept(v1);
        set_base(v1->vcpu, elsewhere[i]);
        check_away(v0, v1);
        set_base(v1->vcpu, 0xfee00000);
        set_base(v1->vcpu, 0xfee00800);
        ck_assert(vmx_at_apic_page(v1) && v1->apic_due && v1->tlb.due > due);
        ck_assert(needs_invept(v1) && !is_mapped(v0, 0));
    }
    /* Tracked by the right to write, where there are no dirty bits. */
    ck_assert_int_eq(vm_dirty_start(v0->vv->vm), 0);
    ck_assert(may_map(v0) && vmx_apic_map(v0, READS) && is_mapped(v0, EPT_R));
    ck_assert(vmx_apic_map(v0, WRITES) && is_mapped(v0, EPT_R | EPT_W));
    /* It goes as it is. */
    set_base(v1->vcpu, 0xfee01800);
}

START_TEST(apic_page)
{
    const struct vm_config config = {
        .size = sizeof(config), .max_vcpus = 2, .irqchip = VMM_IRQCHIP_PC, .error = &error};
    struct vcpu *vcpu[2];
    struct vmx_vcpu *v0;
    struct vm *vm;

    start(&fake_models[_i]);
    ck_assert_int_eq(vm_create(&config, &vm), 0);
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_int_eq(vcpu_create(vm, i, NULL, &vcpu[i]), 0);
        vmx_apic_begin(vcpu[i]->backend_data);
    }
    v0 = vcpu[0]->backend_data;
    ck_assert_int_eq(!vmx_apic_page, !vmx_has_ept());
    ck_assert(!vmx_apic_may_map(v0, APIC_DEFAULT_BASE, FETCHES));
    ck_assert(!vmx_apic_may_map(v0, APIC_DEFAULT_BASE + 0x1000, READS));
    if (vmx_apic_page)
        check_page(v0, vcpu[1]->backend_data);
    else
        ck_assert(!may_map(v0));
    ck_assert_int_eq(vm_destroy(vm), 0);
    check_clean();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx_host");
    TCase *tc = tcase_create("vmx_host");

    tcase_add_loop_test(tc, no_pages, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, no_heap, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, no_msr, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, msrs, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, cpus, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, apic_page, 0, FAKE_NMODELS);
    tcase_add_loop_test(tc, vmxe_stays, 0, FAKE_NMODELS);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
