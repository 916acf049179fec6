/* SPDX-License-Identifier: BSD-2-Clause */
/* backends/vmx/fetch.c: the bytes of an instruction that has exited. */
#include "backends/vmx/fetch.h"
#include "backends/vmx/simple.h"
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
    v->nothing_at = UINT64_MAX;
}

bool vmx_is_memory(struct vmx_vcpu *v, uint64_t gpa, struct core_page *page)
{
    check_map(v);
    if (v->nothing_at == (gpa & ~0xfffull))
        return false;
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
static inline bool walk_long(struct vmx_vcpu *v, uint64_t linear, uint64_t *gpa)
{
    uint64_t table = vmx_insn_read(VMX_GUEST_CR3) & ADDRESS, entry;

    for (unsigned level = 4; level; level--) {
        unsigned shift = 3 + 9 * level;
        const uint8_t *page = host_page(v, level, table);

        if (!page)
            return false;
        entry = __atomic_load_n(
            (const uint64_t *)(const void *)(page + (linear >> shift & 511) * 8), __ATOMIC_RELAXED);
        if (!(entry & P))
            return false;
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

static inline bool translate(struct vmx_vcpu *v, uint64_t linear, uint64_t *gpa)
{
    struct x86_cpu *cpu = v->soft.cpu;

    if (!(cpu->cr0 & X86_CR0_PG)) {
        *gpa = linear;
        return true;
    }
    if (cpu->efer & X86_EFER_LMA)
        return walk_long(v, linear, gpa);
    vmx_pull(v, VMX_G_FLAGS | VMX_G_SEGS | VMX_G_CONTROL);
    return mmu_translate(&cpu->mmu, linear, gpa);
}

unsigned vmx_fetch(struct vmx_vcpu *v, const uint8_t **insn, enum vmx_code *code)
{
    struct x86_cpu *cpu = v->soft.cpu;
    uint32_t ar = (uint32_t)vmx_insn_read(VMX_GUEST_CS_AR);
    const uint8_t *page;
    uint64_t linear, gpa;

    check_map(v);
    vmx_need_rip(v);
    linear = cpu->rip;
    *code = VMX_CODE64;
    if (!(cpu->efer & X86_EFER_LMA) || !(ar & VMM_AR_L)) {
        linear = (uint32_t)(vmx_insn_read(VMX_GUEST_CS_BASE) + cpu->rip);
        *code = ar & VMM_AR_DB ? VMX_CODE32 : VMX_CODE16;
    }
    if (!translate(v, linear, &gpa))
        return 0;
    page = host_page(v, 0, gpa);
    if (!page)
        return 0;
    *insn = page + (gpa & 0xfff);
    return 0x1000 - (gpa & 0xfff);
}
