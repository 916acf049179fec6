/* SPDX-License-Identifier: BSD-2-Clause */
/* core/x86/segment.c: descriptors and loads of segment registers. */
#include "core/x86/segment.h"

/* ---- descriptors ---- */

/* The address of `size` bytes at the selector's index, if its table is that long. */
static bool desc_addr(const struct x86_cpu *cpu, uint16_t selector, unsigned size, uint64_t *addr)
{
    uint32_t offset = selector & 0xfff8u;
    uint64_t base = cpu->gdt.base;
    uint32_t limit = cpu->gdt.limit;

    if (selector & 4) {
        const struct vmm_segment *ldt = &cpu->seg[VMM_LDTR];

        if (ldt->ar & VMM_AR_UNUSABLE)
            return false;
        base = ldt->base;
        limit = ldt->limit;
    }
    if ((uint64_t)offset + size - 1 > limit)
        return false;
    *addr = base + offset;
    if (!x86_long_mode(cpu))
        *addr = (uint32_t)*addr;
    return true;
}

bool x86_desc_probe(const struct x86_cpu *cpu, uint16_t selector, uint64_t *addr)
{
    return desc_addr(cpu, selector, 8, addr);
}

bool x86_desc_read(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, struct x86_desc *d)
{
    d->upper = 0;
    if (!desc_addr(cpu, selector, 8, &d->addr))
        return x86_refuse_sel(cpu, vector, selector);
    return x86_sys_read64(cpu, d->addr, &d->raw);
}

bool x86_desc_read_upper(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, struct x86_desc *d)
{
    uint64_t addr;

    if (!desc_addr(cpu, selector, 16, &addr))
        return x86_refuse_sel(cpu, vector, selector);
    if (!x86_sys_read(cpu, addr + 8, &d->upper, 8))
        return false;
    /* The upper type field tells these from legacy descriptors (SDM Vol. 3A 3.5.2). */
    if (d->upper >> 40 & 0x1f)
        return x86_refuse_sel(cpu, vector, selector);
    d->upper &= 0xffffffff;
    return true;
}

bool x86_desc_change(struct x86_cpu *cpu, uint64_t addr, uint8_t set, uint8_t clear)
{
    struct mmu_rmw rmw;
    uint8_t byte;
    int r = mmu_rmw_begin(&cpu->mmu, MMU_KERNEL, addr + 5, 1, &rmw);

    if (r != MMU_OK) {
        x86_mmu_failed(cpu, r, VMM_DS);
        return false;
    }
    if (rmw.host) {
        if (set)
            __atomic_fetch_or(rmw.host, set, __ATOMIC_SEQ_CST);
        if (clear)
            __atomic_fetch_and(rmw.host, (uint8_t)~clear, __ATOMIC_SEQ_CST);
        mmu_rmw_done(&cpu->mmu, &rmw);
        return true;
    }
    if (!x86_sys_read(cpu, addr + 5, &byte, 1))
        return false;
    byte = (uint8_t)((byte | set) & ~clear);
    return x86_sys_write(cpu, addr + 5, &byte, 1);
}

bool x86_desc_set_accessed(struct x86_cpu *cpu, struct x86_desc *d)
{
    if (d->raw & (uint64_t)X86_TYPE_ACCESSED << 40)
        return true;
    d->raw |= (uint64_t)X86_TYPE_ACCESSED << 40;
    return x86_desc_change(cpu, d->addr, X86_TYPE_ACCESSED, 0);
}

bool x86_tss_desc(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, struct x86_desc *d)
{
    if (selector & 4)
        return x86_refuse_sel(cpu, vector, selector);
    return x86_desc_read(cpu, selector, vector, d);
}

/* ---- segment registers ---- */

struct vmm_segment x86_desc_segment(const struct x86_desc *d, uint16_t selector)
{
    return (struct vmm_segment){.base = x86_desc_base(d),
                                .limit = x86_desc_limit(d),
                                .ar = x86_desc_ar(d),
                                .selector = selector};
}

void x86_seg_set(struct x86_cpu *cpu, unsigned seg, uint16_t selector, const struct x86_desc *d)
{
    struct vmm_segment *s = &cpu->seg[seg];

    /* Field by field: events and their returns come here. */
    s->base = x86_desc_base(d);
    s->limit = x86_desc_limit(d);
    s->ar = x86_desc_ar(d);
    s->selector = selector;
}

void x86_seg_null(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    /* The DPL of a null SS is CPL (SDM Vol. 3C 27.3.2). */
    cpu->seg[seg] = (struct vmm_segment){
        .selector = selector,
        .ar = VMM_AR_UNUSABLE | (seg == VMM_SS ? (selector & 3u) << VMM_AR_DPL_SHIFT : 0)};
}

void x86_seg_flat_code(struct x86_cpu *cpu, uint16_t selector, unsigned dpl, bool code64)
{
    cpu->seg[VMM_CS] = (struct vmm_segment){
        .limit = 0xffffffff,
        .ar = VMM_AR_G | (code64 ? VMM_AR_L : VMM_AR_DB) | VMM_AR_P | dpl << VMM_AR_DPL_SHIFT |
              VMM_AR_S | X86_TYPE_CODE | X86_TYPE_READABLE | X86_TYPE_ACCESSED,
        .selector = selector};
}

void x86_seg_flat_stack(struct x86_cpu *cpu, uint16_t selector, unsigned dpl)
{
    cpu->seg[VMM_SS] =
        (struct vmm_segment){.limit = 0xffffffff,
                             .ar = VMM_AR_G | VMM_AR_DB | VMM_AR_P | dpl << VMM_AR_DPL_SHIFT |
                                   VMM_AR_S | X86_TYPE_WRITABLE | X86_TYPE_ACCESSED,
                             .selector = selector};
}

void x86_load_seg_real(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct vmm_segment *s = &cpu->seg[seg];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (cpu->rflags & X86_VM) {
        s->limit = 0xffff;
        s->ar = VMM_AR_P | VMM_AR_DPL | VMM_AR_S | X86_TYPE_WRITABLE | X86_TYPE_ACCESSED;
        return;
    }
    /* Real mode keeps limit and rights, so that larger limits survive the way back from protected
     * mode; what a null selector left behind there becomes usable again. */
    if (s->ar & VMM_AR_UNUSABLE) {
        s->limit = 0xffff;
        s->ar = VMM_AR_P | VMM_AR_S | X86_TYPE_WRITABLE | X86_TYPE_ACCESSED;
    }
}

bool x86_load_stack_seg(struct x86_cpu *cpu, uint16_t selector, uint8_t vector)
{
    struct x86_desc d;

    if (x86_null_selector(selector)) {
        if (!x86_code64(cpu) || cpu->cpl == 3 || (selector & 3) != cpu->cpl)
            return x86_refuse(cpu, vector, 0);
        x86_seg_null(cpu, VMM_SS, selector);
        return true;
    }
    if (!x86_desc_read(cpu, selector, vector, &d))
        return false;
    if ((selector & 3) != cpu->cpl || !x86_desc_is_writable_data(&d) ||
        x86_desc_dpl(&d) != cpu->cpl)
        return x86_refuse_sel(cpu, vector, selector);
    if (!x86_desc_present(&d))
        return x86_refuse_sel(cpu, X86_SS, selector);
    if (!x86_desc_set_accessed(cpu, &d))
        return false;
    x86_seg_set(cpu, VMM_SS, selector, &d);
    return true;
}

bool x86_load_data_seg(struct x86_cpu *cpu, unsigned seg, uint16_t selector, uint8_t vector)
{
    struct x86_desc d;
    unsigned dpl;

    if (x86_null_selector(selector)) {
        x86_seg_null(cpu, seg, selector);
        return true;
    }
    if (!x86_desc_read(cpu, selector, vector, &d))
        return false;
    dpl = x86_desc_dpl(&d);
    if (!(x86_desc_ar(&d) & VMM_AR_S) ||
        (x86_desc_is_code(&d) && !(x86_desc_ar(&d) & X86_TYPE_READABLE)))
        return x86_refuse_sel(cpu, vector, selector);
    if (!(x86_desc_is_code(&d) && x86_desc_is_conforming(&d)) &&
        ((selector & 3u) > dpl || cpu->cpl > dpl))
        return x86_refuse_sel(cpu, vector, selector);
    if (!x86_desc_present(&d))
        return x86_refuse_sel(cpu, X86_NP, selector);
    if (!x86_desc_set_accessed(cpu, &d))
        return false;
    x86_seg_set(cpu, seg, selector, &d);
    return true;
}

/* The descriptor for LLDT and LTR: in the GDT, 16 bytes in 64-bit mode. */
static bool read_system(struct x86_cpu *cpu, uint16_t selector, unsigned type, struct x86_desc *d)
{
    if (selector & 4)
        return x86_refuse_sel(cpu, X86_GP, selector);
    if (!x86_desc_read(cpu, selector, X86_GP, d))
        return false;
    if (x86_code64(cpu) && !x86_desc_read_upper(cpu, selector, X86_GP, d))
        return false;
    /* A 16-bit TSS is as good as a 32-bit one outside of long mode. */
    if ((x86_desc_ar(d) & (VMM_AR_S | VMM_AR_TYPE)) != type &&
        (type != X86_SYS_TSS32 || x86_long_mode(cpu) ||
         (x86_desc_ar(d) & (VMM_AR_S | VMM_AR_TYPE)) != X86_SYS_TSS16))
        return x86_refuse_sel(cpu, X86_GP, selector);
    if (!x86_desc_present(d))
        return x86_refuse_sel(cpu, X86_NP, selector);
    if (x86_code64(cpu) && !mmu_canonical(&cpu->mmu, x86_desc_base(d)))
        return x86_refuse_sel(cpu, X86_GP, selector);
    return true;
}

static bool load_ldt(struct x86_cpu *cpu, uint16_t selector)
{
    struct x86_desc d;

    if (x86_null_selector(selector)) {
        x86_seg_null(cpu, VMM_LDTR, selector);
        return true;
    }
    if (!read_system(cpu, selector, X86_SYS_LDT_DESC, &d))
        return false;
    x86_seg_set(cpu, VMM_LDTR, selector, &d);
    return true;
}

static bool load_tr(struct x86_cpu *cpu, uint16_t selector)
{
    struct x86_desc d;

    if (x86_null_selector(selector))
        return x86_refuse(cpu, X86_GP, 0);
    if (!read_system(cpu, selector, X86_SYS_TSS32, &d) ||
        !x86_desc_change(cpu, d.addr, X86_SYS_BUSY_BIT, 0))
        return false;
    d.raw |= (uint64_t)X86_SYS_BUSY_BIT << 40;
    x86_seg_set(cpu, VMM_TR, selector, &d);
    return true;
}

bool x86_load_seg(struct x86_cpu *cpu, unsigned seg, uint16_t selector)
{
    bool ok;

    switch (seg) {
    case VMM_LDTR:
        return load_ldt(cpu, selector);
    case VMM_TR:
        return load_tr(cpu, selector);
    case VMM_SS:
        ok = x86_load_stack_seg(cpu, selector, X86_GP);
        break;
    default:
        ok = x86_load_data_seg(cpu, seg, selector, X86_GP);
    }
    if (ok && !x86_code64(cpu))
        x86_cs_changed(cpu); /* X86_MODE_FLAT, the stack's size */
    return ok;
}

bool x86_check_target(struct x86_cpu *cpu, const struct x86_desc *d, uint64_t rip)
{
    bool ok = x86_long_mode(cpu) && (x86_desc_ar(d) & VMM_AR_L) ? mmu_canonical(&cpu->mmu, rip)
                                                                : rip <= x86_desc_limit(d);

    return ok || x86_refuse(cpu, X86_GP, 0);
}

const struct x86_op *x86_go(struct x86_cpu *cpu, uint64_t rip, uint32_t old)
{
    const struct x86_env *env = cpu->env;

    x86_settle_shadow(cpu);
    /* Blocks at hand have been checked against one CS of those that are not flat. */
    if (((cpu->rflags | old) & (X86_TF | X86_RF)) || cpu->nmi_pending ||
        (cpu->user_stops && cpu->cpl == 3) || (!x86_code64(cpu) && !(cpu->mode & X86_MODE_FLAT)))
        return x86_next_slow(cpu, rip);
    /* Interrupts that become possible: most often there is none, and the slow loop is long. */
    if ((cpu->rflags & ~old & X86_IF) &&
        (cpu->shadow || (!x86_calm(cpu) && (env->intr(env->mmu.ctx) || cpu->stop))))
        return x86_next_slow(cpu, rip);
    return x86_next(cpu, rip);
}
