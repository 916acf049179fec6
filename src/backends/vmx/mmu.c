/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/mmu.c: extended page tables of a VM: faults, large pages, written pages, INVEPT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/vmx/vmx.h"
#include "freestanding/host.h"
#include "vmx/decode.h"

#define PAGE    4096ull
#define LARGE   0x200000ull
#define EPT_ALL (1ull << 48) /* what 4 levels reach */

/* ---- pages for tables ---- */

static void *page_alloc(void *ctx, bool low)
{
    void *page;

    (void)ctx;
    page = vmm_host->pages_alloc(vmm_host->ctx, 1);
    if (page && low && vmm_host->virt_to_phys(vmm_host->ctx, page) >> 32) {
        vmm_host->pages_free(vmm_host->ctx, page, 1);
        return NULL;
    }
    return page;
}

static void page_free(void *ctx, void *page)
{
    (void)ctx;
    vmm_host->pages_free(vmm_host->ctx, page, 1);
}

static uint64_t page_phys(void *ctx, const void *p)
{
    (void)ctx;
    return vmm_host->virt_to_phys(vmm_host->ctx, p);
}

static void *page_virt(void *ctx, uint64_t phys)
{
    (void)ctx;
    return vmm_host->phys_to_virt(vmm_host->ctx, phys);
}

const struct mmu_pages vmx_pages = {
    .alloc = page_alloc, .free = page_free, .phys = page_phys, .virt = page_virt};

/* ---- code that the software CPU has decoded ---- */

static struct vmx_mmu *mmu_of(struct vcpu *vcpu)
{
    return &((struct vmx_vm *)vcpu->vm->backend_data)->mmu;
}

static bool alone(const struct vm *vm)
{
    return vm->max_vcpus == 1;
}

bool vmx_mmu_stop(struct vcpu *vcpu)
{
    if (alone(vcpu->vm) || atomic_load(&vcpu->vm->world_self) == vcpu)
        return false;
    core_world_stop(vcpu->vm);
    return true;
}

/* Takes the right to write away from the hardware. With the world stopped. */
static void protect(struct vmx_mmu *m, uint64_t gpa, uint64_t len)
{
    struct ept_walk w;

    if (m->shadow) {
        shadow_protect_gpa(m->shadow, gpa, len);
        return;
    }
    os_mutex_lock(&m->lock);
    if (ept_walk(&m->ept, gpa, 0, &w) == EPT_TRANSLATED &&
        ept_protect(&m->ept, gpa, len, w.rights & ~EPT_W))
        ept_unmap(&m->ept, gpa, len); /* no table to split a page with: it comes back by a fault */
    os_mutex_unlock(&m->lock);
}

/*
 * With one vCPU, code that was decoded is compared when the software CPU runs again, so the guest's
 * stores to it need not be seen. With several, another vCPU may store while this one executes.
 */
static void code_decoded(void *ctx, uint64_t gpa)
{
    struct vmx_vcpu *v = ctx;
    struct vcpu *vcpu = v->vcpu;
    struct core_page page;
    bool stopped, known;

    known = core_mem_page(vcpu->vm, gpa, &page) && page.host &&
            (atomic_load(page.code) >> vcpu->id & 1);
    v->mmu.code_decoded(ctx, gpa);
    if (known || alone(vcpu->vm))
        return;
    /* The bit is set: what is mapped from now on is not writable. */
    stopped = vmx_mmu_stop(vcpu);
    protect(mmu_of(vcpu), gpa & ~(PAGE - 1), PAGE);
    if (stopped)
        core_world_go(vcpu->vm);
}

/* ---- life ---- */

/* EPT entries name the type in place of the MTRRs: that of the host's own accesses, so that what a
 * program maps of a device's memory is not cached. */
static unsigned memory_type(void *ctx, uint64_t hpa, uint64_t *len)
{
    (void)ctx;
    return vmx_mtrrs_type(&vmx_mtrrs, hpa, len);
}

int vmx_mmu_init(struct vmx_vm *vv)
{
    struct ept_config config = {.pages = &vmx_pages,
                                .cap = vmx_machine.caps.ept_vpid,
                                .phys_bits = vmx_phys_bits,
                                .max_tables = 1u << 18,
                                .accessed_dirty = true,
                                .type = memory_type};

    os_mutex_init(&vv->mmu.lock);
    if (!vmx_has_ept())
        return vmx_shadow_init(vv);
    if (ept_init(&vv->mmu.ept, &config))
        return VMM_E_NOMEM;
    if (vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST))
        return VMM_OK;
    return vmx_identity_init(&vv->mmu);
}

void vmx_mmu_fini(struct vmx_vm *vv)
{
    shadow_free(vv->mmu.shadow);
    ept_free(&vv->mmu.ept);
    vmx_identity_fini(&vv->mmu);
    vmx_pml_free(&vv->mmu.pml);
    os_mutex_fini(&vv->mmu.lock);
}

void vmx_mmu_vcpu_init(struct vmx_vcpu *v)
{
    struct vmx_mmu *m = mmu_of(v->vcpu);

    v->mmu.code_decoded = v->soft.env.code_decoded;
    v->soft.env.code_decoded = code_decoded;
    if (m->shadow) {
        vmx_shadow_vcpu_init(v);
        return;
    }
    os_mutex_lock(&m->lock);
    ept_cpu_add(&m->ept, &v->mmu.ept_cpu);
    os_mutex_unlock(&m->lock);
}

void vmx_mmu_vcpu_fini(struct vmx_vcpu *v)
{
    struct vmx_mmu *m = mmu_of(v->vcpu);

    if (m->shadow) {
        vmx_shadow_vcpu_fini(v);
        return;
    }
    os_mutex_lock(&m->lock);
    ept_cpu_remove(&m->ept, &v->mmu.ept_cpu);
    os_mutex_unlock(&m->lock);
}

/* ---- changes from outside ---- */

/* The range as page tables take it: whole pages, no more than there can be. */
static uint64_t pages_of(uint64_t *gpa, uint64_t len)
{
    uint64_t from = *gpa & ~(PAGE - 1), to;

    if (from >= EPT_ALL)
        return 0;
    to = len >= EPT_ALL - *gpa ? EPT_ALL : (*gpa + len + PAGE - 1) & ~(PAGE - 1);
    *gpa = from;
    return to - from;
}

static void page_written(void *ctx, uint64_t gpa)
{
    struct core_page page;

    if (core_mem_page(ctx, gpa, &page) && page.dirty)
        atomic_store_explicit(page.dirty, 1, memory_order_relaxed);
}

static void harvest(struct vm *vm, struct vmx_mmu *m, uint64_t gpa, uint64_t len)
{
    ept_harvest(&m->ept, gpa, len, page_written, vm);
}

void vmx_mem_map_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;

    interp_mem_map_changed(vm, gpa, len);
    ((struct vmx_vm *)vm->backend_data)->map_generation++;
    len = pages_of(&gpa, len);
    if (!len)
        return;
    if (m->shadow) {
        shadow_unmap_gpa(m->shadow, gpa, len);
        return;
    }
    os_mutex_lock(&m->lock);
    harvest(vm, m, gpa, len);
    /* Without memory to split a page with: all of it. */
    if (ept_unmap(&m->ept, gpa, len))
        ept_unmap(&m->ept, 0, EPT_ALL);
    os_mutex_unlock(&m->lock);
}

void vmx_code_changed(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;

    interp_code_changed(vm, gpa, len);
    if (m->shadow)
        shadow_written(m->shadow, gpa, len);
}

/* EPT's own bits were cleared by dirty_sync. */
void vmx_dirty_cleared(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;

    interp_dirty_cleared(vm, gpa, len);
    len = pages_of(&gpa, len);
    if (m->shadow && len)
        shadow_protect_gpa(m->shadow, gpa, len);
}

bool vmx_mmu_marks_tables(void)
{
    return vmx_has_ept() && (vmx_machine.caps.ept_vpid & EPT_CAP_AD);
}

int vmx_dirty_start(struct vm *vm)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;
    int err;

    if (m->shadow)
        return VMM_E_UNSUPPORTED; /* its mappings follow the bytes */
    os_mutex_lock(&m->lock);
    ept_unmap(&m->ept, 0, EPT_ALL); /* rather than split it all */
    err = ept_track(&m->ept, true);
    os_mutex_unlock(&m->lock);
    return err ? VMM_E_NOMEM : VMM_OK;
}

void vmx_dirty_stop(struct vm *vm)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;

    os_mutex_lock(&m->lock);
    if (ept_track(&m->ept, false)) { /* nothing to split here; if it fails all the same: anew */
        ept_unmap(&m->ept, 0, EPT_ALL);
        ept_track(&m->ept, false);
    }
    vmx_pml_free(&m->pml);
    os_mutex_unlock(&m->lock);
}

static void page_logged(void *ctx, uint64_t gpa)
{
    struct vm *vm = ctx;

    harvest(vm, &((struct vmx_vm *)vm->backend_data)->mmu, gpa & ~(PAGE - 1), PAGE);
}

/* The list has pages beside those that are asked for: they are marked for later. */
int vmx_dirty_sync(struct vm *vm, uint64_t gpa, uint64_t len)
{
    struct vmx_mmu *m = &((struct vmx_vm *)vm->backend_data)->mmu;

    os_mutex_lock(&m->lock);
    if (!vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_PML) || !m->ept.ad)
        harvest(vm, m, gpa, len);
    else if (!vmx_pml_take(&m->pml, page_logged, vm))
        harvest(vm, m, 0, EPT_ALL);
    os_mutex_unlock(&m->lock);
    return VMM_OK;
}

/* ---- around entries ---- */

bool vmx_mmu_ready(struct vmx_vcpu *v)
{
    if (!vmx_has_ept())
        return vmx_shadow_ready(v);
    return vmx_uses(VMX_GROUP_PROC2, VMX_PROC2_UNRESTRICTED_GUEST) || vmx_restricted_ready(v);
}

/* ---- EPT violations ---- */

bool vmx_mmu_is_large(struct vm *vm, uint64_t gpa)
{
    struct core_page first, page;
    uint64_t hpa;

    gpa &= ~(LARGE - 1);
    if (!core_mem_page(vm, gpa, &first) || !first.host || first.dirty)
        return false;
    hpa = vmm_host->virt_to_phys(vmm_host->ctx, first.host);
    if (hpa & (LARGE - 1))
        return false;
    for (uint64_t at = 0; at < LARGE; at += PAGE) {
        uint64_t code;

        if (!core_mem_page(vm, gpa + at, &page) || page.host != first.host + at ||
            page.prot != first.prot || page.dirty)
            return false;
        code = atomic_load_explicit(page.code, memory_order_relaxed);
        if (alone(vm) ? code & MMU_CODE_TABLE : code)
            return false;
        if (vmm_host->virt_to_phys(vmm_host->ctx, page.host) != hpa + at)
            return false;
    }
    return true;
}

static unsigned rights_of(const struct vm *vm, const struct core_page *page)
{
    unsigned rights = EPT_R | (page->prot & VMM_MEM_X ? EPT_X : 0);

    if ((page->prot & VMM_MEM_W) &&
        (alone(vm) || !atomic_load_explicit(page->code, memory_order_acquire)))
        rights |= EPT_W;
    return rights;
}

/* With the lock held: the page, or the large one around it, as it may be mapped. */
static int map(struct vm *vm, struct vmx_mmu *m, uint64_t gpa, const struct core_page *page)
{
    uint64_t hpa = vmm_host->virt_to_phys(vmm_host->ctx, page->host), size = PAGE;
    unsigned rights = rights_of(vm, page);

    gpa &= ~(PAGE - 1);
    if ((vmx_machine.caps.ept_vpid & EPT_CAP_2M) && !m->ept.tracking && vmx_mmu_is_large(vm, gpa))
        size = LARGE;
    return ept_map(&m->ept, gpa & ~(size - 1), hpa & ~(size - 1), size, rights);
}

int vmx_mmu_violation(struct vmx_vcpu *v, uint64_t gpa, uint64_t qualification)
{
    struct vmx_ept_violation a = vmx_ept_violation(qualification);
    unsigned wanted = (a.read ? EPT_R : 0) | (a.write ? EPT_W : 0) | (a.fetch ? EPT_X : 0);
    struct vm *vm = v->vcpu->vm;
    struct vmx_mmu *m = mmu_of(v->vcpu);
    struct core_page page;
    struct ept_walk w;
    int r = VMX_MMU_RESUME;

    /* The violation has dropped what was older than the tables (SDM Vol. 3C 28.4.3.1). */
    os_mutex_lock(&m->lock);
    if (ept_walk(&m->ept, gpa, wanted, &w) == EPT_TRANSLATED)
        goto out;
    if (a.write && ept_note_write(&m->ept, gpa))
        goto out;
    r = VMX_MMU_SOFT;
    if (!core_mem_page(vm, gpa, &page) || !page.host || (wanted & ~rights_of(vm, &page)))
        goto out;
    if (!map(vm, m, gpa, &page)) {
        if (a.write)
            ept_note_write(&m->ept, gpa);
        r = VMX_MMU_RESUME;
    }
out:
    os_mutex_unlock(&m->lock);
    return r;
}

void vmx_mmu_misconfigured(struct vmx_vcpu *v, uint64_t gpa, char *text, size_t size)
{
    struct vmx_mmu *m = mmu_of(v->vcpu);
    struct ept_walk w;

    os_mutex_lock(&m->lock);
    ept_walk(&m->ept, gpa, 0, &w);
    os_mutex_unlock(&m->lock);
    snprintf(text, size, "EPT misconfiguration at %#llx, level %u, entry %#llx: %s",
             (unsigned long long)gpa, w.level, (unsigned long long)w.entry,
             ept_misconfig_text(w.rule));
}
