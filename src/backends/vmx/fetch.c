/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/fetch.c: the instruction that has met what is not memory. */
#include <string.h>

#include "backends/vmx/fetch.h"
#include "backends/vmx/simple.h"
#include "core/internal.h"
#include "core/x86/control.h"
#include "vmx/fields.h"
#include "vmx/insn.h"

/* Where a page of memory is, from a cache with a page per level of the walk. */
static __attribute__((noinline)) const uint8_t *find_page(struct vmx_vcpu *v,
                                                          struct vmx_page_cache *c, uint64_t gpa)
{
    struct core_page page;

    if (!core_mem_page(v->vcpu->vm, gpa, &page) || !page.host)
        return NULL;
    *c = (struct vmx_page_cache){gpa, page.host};
    return c->host;
}

static inline const uint8_t *host_page(struct vmx_vcpu *v, unsigned level, uint64_t gpa)
{
    struct vmx_page_cache *c = &v->pages[level];

    gpa &= ~0xfffull;
    return __builtin_expect(c->gpa == gpa, 1) ? c->host : find_page(v, c, gpa);
}

/* What is cached is of one memory map. */
static inline void check_map(struct vmx_vcpu *v)
{
    uint64_t generation = vmx_vm_of(v)->map_generation;

    if (v->pages_of == generation)
        return;
    v->pages_of = generation;
    for (unsigned i = 0; i < VMX_NPAGES; i++)
        v->pages[i].gpa = UINT64_MAX;
    for (unsigned i = 0; i < VMX_NSITES; i++)
        v->sites[i].known = false;
    v->behind.known = false;
    v->nothing_at = UINT64_MAX;
}

bool vmx_find_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page)
{
    check_map(v);
    if (core_mem_page(v->vcpu->vm, gpa, page) && page->host)
        return true;
    v->nothing_at = gpa & ~0xfffull;
    return false;
}

#define P       1u
#define PS      0x80u
#define ADDRESS 0x000ffffffffff000ull

/*
 * The CPU has fetched the instruction through these tables, so rights and reserved bits need no
 * look. If the guest has changed them since without an invalidation, the CPU might have used the
 * new ones as well.
 */
static bool walk_long(struct vmx_vcpu *v, struct vmx_site *site, uint64_t linear, uint64_t *gpa)
{
    uint64_t table = site->cr3 & ADDRESS, entry;

    for (unsigned level = 4; level; level--) {
        unsigned shift = 3 + 9 * level;
        const uint8_t *page = host_page(v, level, table);
        const uint64_t *at;

        if (!page)
            return false;
        at = (const uint64_t *)(const void *)(page + (linear >> shift & 511) * 8);
        entry = __atomic_load_n(at, __ATOMIC_RELAXED);
        if (!(entry & P))
            return false;
        site->entry[level - 1] = at;
        site->value[level - 1] = entry;
        if (level < 4 && level > 1 && (entry & PS)) {
            uint64_t mask = (1ull << shift) - 1;

            *gpa = (entry & ADDRESS & ~mask) | (linear & mask);
            return true;
        }
        table = entry & ADDRESS;
    }
    *gpa = table | (linear & 0xfff);
    return true;
}

static bool translate(struct vmx_vcpu *v, struct vmx_site *site, uint64_t linear, uint64_t *gpa)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (!(cpu->cr0 & X86_CR0_PG)) {
        *gpa = linear;
        return true;
    }
    if (cpu->efer & X86_EFER_LMA)
        return walk_long(v, site, linear, gpa);
    vmx_pull(v, VMX_G_FLAGS | VMX_G_SEGS | VMX_G_CONTROL);
    return mmu_translate(&cpu->mmu, linear, gpa);
}

const struct vmx_move *vmx_find_move(struct vmx_vcpu *v, struct vmx_site *site, uint64_t cr3,
                                     uint32_t ar)
{
    struct x86_cpu *cpu = v->soft.cpu;
    enum vmx_code code = VMX_CODE64;
    uint64_t linear = cpu->rip, gpa;
    const uint8_t *page;
    unsigned n;

    *site = (struct vmx_site){.cr3 = cr3};
    for (unsigned i = 0; i < VMX_NENTRIES; i++)
        site->entry[i] = &site->value[i];
    if (!(cpu->efer & X86_EFER_LMA) || !(ar & VMM_AR_L)) {
        linear = (uint32_t)(vmx_insn_get(VMX_GUEST_CS_BASE) + cpu->rip);
        code = ar & VMM_AR_DB ? VMX_CODE32 : VMX_CODE16;
    }
    if (!translate(v, site, linear, &gpa))
        return NULL;
    page = host_page(v, 0, gpa);
    if (!page)
        return NULL;
    n = 0x1000 - (gpa & 0xfff);
    site->insn = page + (gpa & 0xfff);
    if (n > sizeof(site->bytes))
        n = sizeof(site->bytes);
    memcpy(site->bytes, site->insn, n);
    if (!vmx_decode_move((const uint8_t *)site->bytes, n, code, &site->move))
        return NULL;
    /* Of a 64-bit instruction only, whose address is RIP, and with all that it can have in its
     * page. */
    site->known = code == VMX_CODE64 && n >= sizeof(site->bytes);
    site->rip = cpu->rip;
    return &site->move;
}

/* ---- exits to the program ---- */

/* The page of RIP, where a whole instruction's bytes are, in 64-bit code: what an instruction in
 * front of RIP has been fetched from is known to be mapped, so that rights and reserved bits need
 * no look, as in walk_long. NULL: it is not so simple. */
static inline const uint8_t *page_behind(struct vmx_vcpu *v, uint64_t cr3)
{
    struct vmx_site *site = &v->behind;
    uint64_t rip = v->soft.cpu->rip, gpa;

    check_map(v);
    if (site->known && site->rip == rip && site->cr3 == cr3 && vmx_entries_hold(site))
        return site->insn;
    *site = (struct vmx_site){.cr3 = cr3, .rip = rip};
    for (unsigned i = 0; i < VMX_NENTRIES; i++)
        site->entry[i] = &site->value[i];
    if (!walk_long(v, site, rip, &gpa))
        return NULL;
    site->insn = host_page(v, 0, gpa);
    site->known = site->insn;
    return site->insn;
}

static inline bool fill_behind(struct vmx_vcpu *v, uint64_t cr3)
{
    const unsigned at = v->soft.cpu->rip & 0xfff, n = 15;
    struct vcpu_exit *e = &v->vcpu->exit;
    const uint8_t *page;

    if (at - n > 0x1000 - 2 * n)
        return false;
    page = page_behind(v, cr3);
    if (!page)
        return false;
    __builtin_memcpy(e->insn, page + at, 8);
    __builtin_memcpy(e->insn + n - 8, page + at + n - 8, 8);
    e->insn_len = n;
    return true;
}

static unsigned cpl_by_stack(void)
{
    const uint64_t ar = vmx_insn_get(VMX_SEG(VMX_GUEST_ES_AR, VMM_SS));

    return (ar & VMM_AR_DPL) >> VMM_AR_DPL_SHIFT;
}

void vmx_fill_where(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    struct vcpu_exit *e = &v->vcpu->exit;

    if (!v->in_session || v->mmu.vm86 || (v->valid & (VMX_G_SEGS | VMX_G_CONTROL)))
        return;
    vmx_need_rip(v);
    e->rip = cpu->rip;
    e->mode = core_mode(cpu->cr0, cpu->efer, v->flags, (uint32_t)vmx_insn_get(VMX_GUEST_CS_AR));
    e->cpl = e->mode == VMM_MODE_REAL ? 0 : e->mode == VMM_MODE_VM86 ? 3 : (uint8_t)cpl_by_stack();
    v->vcpu->exit_complete = true;
}

void vmx_fill_insn(struct vmx_vcpu *v, bool behind)
{
    const struct x86_cpu *cpu = v->soft.cpu;

    if (!behind || !(cpu->efer & X86_EFER_LMA) || !(cpu->seg[VMM_CS].ar & VMM_AR_L) ||
        !fill_behind(v, cpu->cr3))
        interp_fill_insn(v->vcpu);
}

bool vmx_fill_behind(struct vmx_vcpu *v)
{
    const struct x86_cpu *cpu = v->soft.cpu;
    struct vcpu_exit *e = &v->vcpu->exit;

    if (!(cpu->efer & X86_EFER_LMA) || (v->valid & ~(uint32_t)VMX_G_RIP) ||
        !(vmx_insn_get(VMX_GUEST_CS_AR) & VMM_AR_L) || !fill_behind(v, vmx_guest_cr3(v)))
        return false;
    e->rip = cpu->rip;
    e->mode = VMM_MODE_LONG64;
    e->cpl = (uint8_t)cpl_by_stack();
    v->vcpu->exit_complete = true;
    return true;
}
